//! Labs: a topology file as a network of namespaces on one machine.
//!
//! [`Lab::up`] makes a namespace for each node, named `<lab>-<node>`, lays the links between
//! them, starts controller and switches, and returns when traffic flows; [`down`] removes all of
//! it, also what a crash left. No container, no Python: rtnetlink, and threads that enter
//! namespaces.
//!
//! Files: `/run/selvedge/<lab>/` (what the lab is, certificates, logs, the controller's store
//! and socket), pins under `/sys/fs/bpf/selvedge/<lab>-<node>/`, names in `/run/netns`.
//!
//! Units: rates are bits per second, delays microseconds, sizes bytes, unless a type says so.

mod cable;
mod capture;
mod change;
pub mod doctor;
mod down;
mod error;
mod ethtool;
mod host;
mod iperf;
mod lab;
pub mod measure;
mod names;
mod netlink;
pub mod netns;
mod packet;
mod ping;
mod plan;
mod process;
pub mod relay;
mod run;
mod settle;
mod several;
mod state;
mod status;
mod tc;
mod up;

use std::fmt;

pub use capture::{CaptureOptions, Captured};
pub use change::Impairment;
pub use down::{down, down_all};
pub use error::{LabError, Result};
pub use iperf::{Congestion, IperfOptions, IperfReport, MAX_SECONDS};
pub use lab::{Guard, Lab, Summary, list};
pub use names::{PIN_DIR, ProcessName, RUN_DIR, api_socket, end, namespace, run_dir};
pub use nix::sys::signal::Signal;
pub use ping::{Matrix, PingOptions, Pong};
pub use plan::{MAX_SWITCHES, MAX_WIRE_BPS, Note, Source};
pub use process::{Pid, new_session};
pub use settle::Done;
pub use state::{Control, Phase};
pub use up::{DEADLINE, Event, MAX_CONTROLLERS, Options, Step, prepare_bpffs};

/// Largest packet between a host and its switch, in bytes.
pub const ACCESS_MTU: u32 = 1500;
/// Largest packet between switches: an access packet in its outer header, with room.
pub const FABRIC_MTU: u32 = 1600;

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}
