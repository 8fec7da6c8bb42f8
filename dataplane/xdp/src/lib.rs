//! The switch's data plane from user space: loads the XDP programs of `ebpf/programs`, keeps
//! them and their maps pinned, and gives typed access to the tables.
//!
//! [`Switch::open`] is where to start. Everything here is synchronous, a handful of system
//! calls each; nothing is cached, because the pinned maps are the truth: what is kept beside them
//! (`exact`, `interned`) is where things are, and is made anew from them. Maps, programs and
//! links outlive the process.
//!
//! Units: rates are bits per second, sizes are bytes. Port ids are `1..=255`; a hook's compute
//! port has none.

mod btf;
mod counters;
mod error;
mod events;
mod exact;
mod facts;
mod generator;
mod hooks;
mod htb;
mod interned;
mod load;
mod map;
mod mapped;
mod maps;
mod migrate;
mod object;
pub mod offload;
mod pins;
mod port_states;
mod probes;
mod run;
mod samples;
mod switch;
mod sys;
mod table;

pub use counters::{Counters, Totals};
pub use error::Error;
pub use events::{EVENTS_PER_SECOND, EndpointSeen, Events};
pub use facts::Facts;
pub use generator::{Generator, Sink, UnderTest};
pub use hooks::{HookPort, HookState};
#[doc(hidden)]
pub use map::RawEntry;
pub use pins::remove_all;
pub use port_states::PortStates;
pub use probes::Probes;
pub use run::{TestRun, Verdict};
pub use samples::{
    SAMPLE_ADDRESSES, SAMPLE_HEAD, SAMPLE_LONGEST, SAMPLES_PER_SECOND, Sample, SampleFilter,
    Sampler, Samples, now,
};
pub use selvedge_ebpf_common as common;
pub use switch::{Attached, Interface, Options, Switch};
pub use table::{
    Backup, BackupTable, Class, Classifier, Delivery, DeliveryTable, Direction, END_MARKERS,
    Endpoint, EndpointMeter, EndpointMeterTable, Entries, LocalSid, LocalSidTable, Meter,
    MeterTable, N3Table, NextHop, NextHopTable, Path, Policy, PolicyTable, PortKind, PortTable,
    PrefixTable, Queue, QueueTable, Route, RouteAction, Rule, RuleAction, Session, SessionTable,
    Table, Tunnel,
};
