//! The Wasm host of packet hooks: a process apart from the switch's agent, without BPF
//! capabilities. Each hook is a thread with one AF_XDP socket over frames whose inner packets
//! lie in the module's own linear memory ([`frames`]), and one instance that is called by the
//! batch within its limits ([`guest`]).
//!
//! Start reading at [`host`]: the agent's messages in, hooks started and stopped, what became
//! of them out. `docs/reference/hook-abi.md` is the contract with modules,
//! `proto/selvedge/compute.proto` the one with the agent.
//!
//! What it deliberately does not do: attach programs, know slices or policies, or decide
//! where a packet goes. Units: bytes, nanoseconds where a name says so.

mod batch;
mod bridge;
mod error;
mod frames;
mod guest;
mod hook;
mod hooks;
mod host;
mod imports;
mod manifest;
mod memory;
mod outer;
mod privileges;
mod ring;
mod socket;
mod stats;
mod watchdog;

pub use batch::{BATCH, Violation};
pub use error::{Failure, LoadError};
pub use guest::{DEFAULT_FUEL_PER_PACKET, DEFAULT_MEMORY, INIT_FUEL, MAX_MEMORY, STACK};
pub use host::{HostError, Options, StopSignal, run};
pub use imports::{COUNTERS, EVENT, EVENTS_PER_SECOND, MAP_ENTRIES, MAP_KEY, MAP_VALUE};
pub use manifest::{ABI, SECTION};
pub use outer::{MAX_INNER, MIN_INNER};
pub use socket::SocketError;
pub use watchdog::{BATCH_BUDGET, Budget, INIT_BUDGET};
