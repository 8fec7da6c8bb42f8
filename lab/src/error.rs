//! What can go wrong with a lab, by what the caller could do about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use selvedge_topology::{End, NodeName, Problems};

pub type Result<T, E = LabError> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum LabError {
    #[error("labs need root (CAP_SYS_ADMIN and CAP_NET_ADMIN): run this with sudo")]
    Privilege,
    #[error("{0}")]
    Topology(Box<Problems>),
    #[error("lab {name} is up already: `selvedge lab down --lab {name}` first, or give --name")]
    Exists { name: NodeName },
    #[error(
        "lab {name} was left half-way by a process that died: `selvedge lab down --lab {name}`"
    )]
    Leftover { name: NodeName },
    #[error("{object} exists and is not this lab's: remove it, or give the lab another --name")]
    Taken { object: PathBuf },
    #[error("lab {lab} would own {object}, which belongs to lab {other}: give it another --name")]
    Overlap { lab: NodeName, other: NodeName, object: String },
    #[error("lab {name} is in use by process {pid}")]
    Busy { name: NodeName, pid: u32 },
    #[error("no lab {name} is up")]
    NoSuchLab { name: NodeName },
    #[error("no lab is up")]
    NoLab,
    #[error("several labs are up ({}): say which with --lab", list(.0))]
    SeveralLabs(Vec<NodeName>),
    #[error("lab {lab} has no node {node:?}; it has {}", list(.known))]
    NoSuchNode { lab: NodeName, node: String, known: Vec<NodeName> },
    #[error("{node} is a switch, and this needs a host")]
    NotAHost { node: NodeName },
    #[error("{node} is a host, and this needs a switch")]
    NotASwitch { node: NodeName },
    #[error("{node} has no {family} address")]
    NoAddress { node: NodeName, family: crate::Family },
    #[error("no link joins {a} and {b}")]
    NoSuchLink { a: String, b: String },
    #[error("several links join {a} and {b}: name one by its ports, as in {a}:p1")]
    SeveralLinks { a: String, b: String },
    #[error("{end} is taken by the link {link}")]
    PortTaken { end: End, link: String },
    #[error("{given:?} is not a port: NODE:PORT, as in gnb2:p3")]
    NotAPort { given: String },
    #[error("hosts cannot be added to the network: {0}")]
    Hosts(selvedge_topology::HostsError),
    #[error("a lab has at most {max} switches (one address each in 192.0.2.0/24); this has {has}")]
    TooManySwitches { has: usize, max: usize },
    #[error("a node may not be called {node}: the lab has a namespace of that name for itself")]
    ReservedNode { node: NodeName },
    #[error(
        "{a} - {b} is a plain veth between two switches: XDP redirects frames past every tap of \
         theirs. Capture at a host, or give the link a capacity so that it becomes a wire"
    )]
    NoTap { a: End, b: End },
    #[error(
        "the lab has no process {0:?}; it may be controller, controller 2, etcd 1, \
             switch NAME or compute NAME"
    )]
    NoSuchProcess(String),
    #[error("{process} runs already, as process {pid}")]
    Running { process: String, pid: u32 },
    #[error("{process} ended early{}", tail(.log))]
    Died { process: String, log: Vec<String> },
    #[error("not ready after {} s: {missing}{}", .after.as_secs(), tail(.log))]
    Deadline { after: Duration, missing: String, log: Vec<String> },
    #[error("interrupted")]
    Cancelled,
    #[error("{tool} is not installed: {fix}")]
    Tool { tool: &'static str, fix: &'static str },
    #[error("iperf3 failed: {message}")]
    Iperf { message: String },
    #[error("lab {name}: {path} is not a lab file of this version")]
    State { name: NodeName, path: PathBuf, source: serde_json::Error },
    #[error("{given:?} is not {what}")]
    Argument { given: String, what: &'static str },
    #[error("cannot {doing} {object}")]
    System { doing: &'static str, object: String, source: io::Error },
}

impl LabError {
    pub(crate) fn topology(problems: Problems) -> Self {
        Self::Topology(Box::new(problems))
    }
}

/// Gives an [`io::Error`] the two things it lacks: what was being done, and to what.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str, object: impl std::fmt::Display) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, doing: &'static str, object: impl std::fmt::Display) -> Result<T> {
        self.map_err(|error| LabError::System {
            doing,
            object: object.to_string(),
            source: error.into(),
        })
    }
}

fn list<T: std::fmt::Display>(names: &[T]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The last lines of a log, each on a line of its own.
fn tail(log: &[String]) -> String {
    log.iter().fold(String::new(), |text, line| text + "\n    " + line)
}
