//! Why an agent could not start, or stopped.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use selvedge_southbound::tls::TlsError;

use crate::backend::BackendError;
use crate::lock::LockError;
use crate::options::OptionError;
use crate::ports::PortsError;

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("{}", list(.0))]
    Options(Vec<OptionError>),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("no credentials")]
    Credentials(#[source] TlsError),
    #[error("no data plane")]
    DataPlane(#[source] selvedge_xdp::Error),
    #[error("cannot read the tables")]
    Tables(#[source] BackendError),
    #[error("no ports")]
    Ports(#[source] PortsError),
    #[error("cannot listen for the compute process at {path:?}")]
    ComputeSocket {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot use the run directory {path:?}")]
    RunDir {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("P4Runtime cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("the DHCP relay cannot listen on UDP port {port}")]
    Relay {
        port: u16,
        #[source]
        source: io::Error,
    },
    #[error("cannot {doing}")]
    System {
        doing: &'static str,
        #[source]
        source: io::Error,
    },
    /// A task that runs as long as the agent has ended.
    #[error("the {task} task stopped")]
    Task {
        task: &'static str,
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

impl AgentError {
    pub(crate) fn system(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { doing, source }
    }

    pub(crate) fn relay(port: u16) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Relay { port, source }
    }
}

fn list(problems: &[OptionError]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
