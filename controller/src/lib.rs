//! The controller: the shell around `selvedge-core`.
//!
//! It owns what the core must not know: the clock, the store, TLS and gRPC sessions with
//! switches, HTTP for operators and applications. One task owns the core ([`engine`]); every
//! switch has tasks of its own ([`southbound`]); the APIs ([`api`]) reach the core through a
//! [`Handle`].

pub mod api;
pub mod backup;
mod clock;
mod engine;
mod intent_dir;
mod lead;
mod mec;
mod modules;
pub mod pki;
mod run;
mod sampling;
mod southbound;
pub mod store;
#[cfg(test)]
mod testing;
mod text;
mod trace;

pub use engine::{Handle, RequestError, Role, embedded};
pub use modules::MAX_MODULE_BYTES;
pub use run::{Options, RunError, run};
pub use text::rate;

/// For every program that has a controller in it: its copies of state are made of many small
/// pieces, which come and go with each request, on several threads
/// (docs/decisions/0015-an-allocator.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
