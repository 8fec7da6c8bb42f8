//! The brain: events in, effects out.
//!
//! [`Core::handle`] is one deterministic state machine over plain values: no task, clock,
//! randomness, file or socket. Every change goes through the same five steps: *desired*
//! entries from intent and topology, *plan* as the difference to what switches report, *prove*
//! by walking packets over the plan's steps, *commit* to the store, *reconcile* by reading
//! back. So the same code runs in production, in tests with a made-up network, and in
//! `selvedge plan` as a dry run.
//!
//! Units: times are milliseconds on the shell's clock, rates bits per second, sizes bytes.

pub mod assure;
mod attach;
mod config;
mod core;
mod declared;
mod derived;
mod desired;
mod drain;
mod effect;
mod event;
mod history;
mod hooks;
mod intent;
mod lifecycle;
mod network;
mod numbers;
mod offers;
mod order;
mod placement;
pub mod plan;
mod prove;
mod queue;
mod reconcile;
mod records;
mod refusal;
mod repairs;
mod request;
mod seats;
mod table;
mod truth;
pub mod view;
mod views;

pub use crate::core::Core;
pub use config::Config;
pub use effect::{Effect, HookLoad, LogEntry, RecordChange, Reply, Severity, Update};
pub use event::{
    Change, Compute, Counted, DiscoveryCounts, Event, HookState, HookStatus, LinkCount, Measured,
    Neighbor, ObjectId, Port, ReadId, Report, Request, RequestId, SliceCount, Target, TargetKind,
    Timer, Traffic, WriteId,
};
pub use history::{HISTORY_BYTES, HISTORY_ENTRY_BYTES, HISTORY_KEPT, HISTORY_MODULES};
pub use lifecycle::{
    CHECK_VALID_MS, Feasibility, MAX_RESERVATION_MS, Phase, SliceRequest, Validity,
};
pub use offers::Offers;
pub use plan::{Difference, Plan, PlanId, PlanIdError};
pub use prove::{CounterExample, Defect};
pub use reconcile::Proof;
pub use records::RestoreError;
pub use refusal::{Refusal, SessionFault};
