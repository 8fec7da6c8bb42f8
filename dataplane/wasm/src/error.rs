//! Why a hook does not run.

use wasmtime::Trap;

use crate::{
    batch::Violation,
    manifest::{ABI, SECTION},
    socket::SocketError,
};

/// Why a module was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("not a WebAssembly module: it does not begin with `\\0asm` and version 1")]
    NotWasm,
    #[error("a component, where a hook is a core module")]
    Component,
    #[error("a precompiled module (ELF): modules are compiled on the node that runs them")]
    Precompiled,
    #[error("a module in text form: compile it first (wat2wasm, wasm-tools parse)")]
    Text,
    #[error("the module is truncated: its sections end beyond the file")]
    Truncated,
    #[error("manifest (custom section {SECTION:?}) of {found} bytes, at most {most} are read")]
    ManifestSize { found: usize, most: usize },
    #[error("cannot read the manifest (custom section {SECTION:?})")]
    Manifest { source: serde_json::Error },
    #[error("made for hook ABI {found}, this host speaks {ABI}")]
    Abi { found: i32 },
    #[error("wants the verdict `steer`, which this host cannot give: it knows no policies")]
    Steer,
    #[error("imports what no hook is given: {}", names.join(", "))]
    UnknownImports { names: Vec<String> },
    #[error(
        "imports what its manifest does not name: {}; add it to \"imports\" in the custom \
         section {SECTION:?}", names.join(", ")
    )]
    UndeclaredImports { names: Vec<String> },
    #[error("exports no `{name}`; a hook exports {wanted}")]
    NoExport { name: &'static str, wanted: &'static str },
    #[error("export `{name}` has another type; a hook exports {wanted}")]
    ExportType { name: &'static str, wanted: &'static str },
    #[error("the module does not compile")]
    Compile { source: BoxError },
    #[error("the module cannot be instantiated")]
    Instantiate { source: BoxError },
    #[error(
        "the module's memory has no room for the packet window: {pages} pages of 64 KiB must \
         be allowed beyond what it has; remove its maximum"
    )]
    Window { pages: u64, source: BoxError },
    #[error("cannot map the packet window")]
    MapWindow { source: std::io::Error },
    #[error("hook_abi() failed")]
    AbiCall { source: Failure },
    #[error("hook_init() failed")]
    Init { source: Failure },
    #[error("hook_init() refused its configuration with code {code}")]
    InitRefused { code: i32 },
    #[error(transparent)]
    Socket(#[from] SocketError),
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How a guest failed while it ran. Always the end of that instance.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("used up its fuel of {fuel}")]
    Fuel { fuel: u64 },
    #[error("ran longer than {cpu_ms} ms of processor time or {wall_ms} ms by the clock")]
    Overran { cpu_ms: u64, wall_ms: u64 },
    #[error("trapped")]
    Trap { source: BoxError },
    #[error("broke the hook ABI")]
    Abi(#[from] Violation),
}

impl Failure {
    /// What a call's error means, given what it was allowed.
    pub(crate) fn of(error: wasmtime::Error, fuel: u64, budget: crate::watchdog::Budget) -> Self {
        match error.downcast_ref::<Trap>() {
            Some(Trap::OutOfFuel) => Self::Fuel { fuel },
            Some(Trap::Interrupt) => Self::Overran {
                cpu_ms: budget.cpu.as_millis() as u64,
                wall_ms: budget.wall.as_millis() as u64,
            },
            // The cause alone: wasmtime's chain begins with where it happened.
            Some(trap) => Self::Trap { source: (*trap).into() },
            None => Self::Trap { source: error.into() },
        }
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}
