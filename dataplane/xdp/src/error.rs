//! What can go wrong between user space and the data plane.

use std::io;
use std::path::PathBuf;

use selvedge_ebpf_common::LAYOUT_VERSION;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pins are of another version of this program.
    #[error(
        "{path:?} holds the data plane of another version (layout {found}; this program speaks \
         layout {LAYOUT_VERSION} and takes over from layout {} alone); to take it off its ports, \
         which stops their traffic, run: rm -r {path:?}",
        LAYOUT_VERSION - 1
    )]
    OtherLayout { path: PathBuf, found: String },

    /// A pinned map is not what its name and layout version promise.
    #[error(
        "the pinned map {path:?} is {found}, not {wanted}; to start afresh, which stops the \
         traffic of this switch, run: rm -r {dir:?}"
    )]
    PinnedMap { path: PathBuf, dir: PathBuf, found: String, wanted: String },

    #[error("cannot {doing} {path:?}")]
    Path {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    #[error("{path:?} is not on a BPF file system and none can be mounted at {mount_point:?}")]
    NoBpffs {
        path: PathBuf,
        mount_point: PathBuf,
        #[source]
        source: io::Error,
    },

    #[error("cannot load the embedded eBPF object")]
    Object(#[source] Box<aya::EbpfError>),

    #[error("this kernel does not say what its structures are (CONFIG_DEBUG_INFO_BTF)")]
    KernelTypes(#[source] io::Error),

    #[error("cannot attach to the kernel's tracepoint {tracepoint:?}")]
    Tracepoint {
        tracepoint: &'static str,
        #[source]
        source: io::Error,
    },

    /// The source carries the verifier's log.
    #[error("the kernel refuses the eBPF program {program:?}")]
    Program {
        program: &'static str,
        #[source]
        source: Box<aya::programs::ProgramError>,
    },

    /// Selvedge never falls back to generic XDP, which costs several times as much.
    #[error("interface {ifname:?} cannot carry a native XDP program")]
    Native {
        ifname: String,
        #[source]
        source: io::Error,
    },

    #[error("interface {ifname:?} cannot carry a program at its ingress (TCX, from Linux 6.6 on)")]
    Ingress {
        ifname: String,
        #[source]
        source: io::Error,
    },

    #[error(
        "cannot queue classes of port {port} by HTB, with nothing else at its interface's root"
    )]
    Htb {
        port: u16,
        #[source]
        source: io::Error,
    },

    /// A tunnel between addresses of two versions.
    #[error("{local} is of another IP version than {gnb}, the gNB's")]
    MixedVersions { local: std::net::IpAddr, gnb: std::net::IpAddr },

    #[error("table {table}: the unspecified address is nobody's")]
    Unspecified { table: &'static str },

    #[error("cannot {doing} port {port}")]
    Port {
        doing: &'static str,
        port: u16,
        #[source]
        source: io::Error,
    },

    #[error("cannot {doing} map {map}")]
    Map {
        doing: &'static str,
        map: &'static str,
        #[source]
        source: io::Error,
    },

    #[error("table {table} is full: it holds {capacity} entries")]
    Full { table: &'static str, capacity: u32 },

    #[error("{field} {value} is outside {least}..={most}")]
    Range { field: &'static str, value: u64, least: u64, most: u64 },

    #[error("all {0} port numbers are taken")]
    NoPortFree(u16),

    #[error("port name {0:?}: 1 to 15 bytes, none of them NUL")]
    PortName(String),

    #[error("cannot {doing} {ifname:?}")]
    Interface {
        doing: &'static str,
        ifname: String,
        #[source]
        source: io::Error,
    },

    #[error("the test run failed")]
    TestRun(#[source] io::Error),
}

impl Error {
    pub(crate) fn map(doing: &'static str, map: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Map { doing, map, source }
    }

    pub(crate) fn path(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Path { doing, path: path.into(), source }
    }
}

/// `value` as it is when it lies in `least..=most`.
pub(crate) fn within(
    field: &'static str,
    value: impl Into<u64>,
    least: u64,
    most: u64,
) -> Result<(), Error> {
    let value = value.into();
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(Error::Range { field, value, least, most })
    }
}
