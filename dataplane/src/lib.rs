//! The switch agent: what stands between a Selvedge data plane and whoever programs it.
//!
//! The agent loads the XDP programs (`selvedge-xdp`), puts them on the switch's ports, serves
//! P4Runtime, tells the controller what it sees (ports, neighbors, unknown endpoints, hooks),
//! and hands compute hooks their sockets. It forwards nothing itself and keeps nothing of its
//! own: entries live in pinned maps, so an agent that dies changes nothing on the wire and one
//! that starts finds everything as it was.
//!
//! Each part is a pure core with a thin task around it:
//!
//! | module | decides | task |
//! |---|---|---|
//! | [`backend`] | entries <-> maps, limits, references | none: called under a lock |
//! | [`p4rt`] | arbitration, reads and writes | the P4Runtime server |
//! | [`ports`] | which interface is which port | rtnetlink watch |
//! | [`lldp`] | frames, when to send, who is a neighbor | AF_PACKET |
//! | [`report`] | what the controller has to be told | [`session`] dials it |
//! | [`guard`] | which fabric ports packets go around | a thread: rtnetlink, AF_PACKET, maps |
//! | [`assure`] | counts of each second | a thread for marks; maps |
//! | [`hosts`] | router advertisements, what a DHCP relay says | AF_PACKET, UDP to servers |
//! | [`sample`] | packets that the controller asks for | maps |
//! | [`hooks`] | state of each compute hook | seqpacket socket to the Wasm host |

mod agent;
pub mod assure;
pub mod backend;
pub mod backoff;
pub mod error;
mod gateway;
pub mod guard;
pub mod hooks;
pub mod hosts;
pub mod lldp;
pub mod lock;
pub mod options;
pub mod p4rt;
pub mod packet;
pub mod ports;
pub mod report;
pub mod sample;
pub mod seen;
pub mod session;
mod urgent;

pub use agent::{remove, run, run_until};
pub use error::AgentError;
pub use options::{ComputeOptions, HostOptions, Management, Options, PortRule};
