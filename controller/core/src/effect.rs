//! What the core wants done. The shell carries effects out in order, and decides nothing.

use selvedge_pipeline::{Entry, HookId};
use selvedge_topology::NodeName;

use crate::event::{ReadId, RequestId, Timer, WriteId};
use crate::lifecycle::Feasibility;
use crate::plan::Plan;
use crate::refusal::Refusal;

#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Durable before any later effect of the same call is carried out. If the store refuses,
    /// the shell drops the rest, answers the request with the store's error, and goes back to
    /// the clone of the core that it took before a [`Event::Request`](crate::Event::Request).
    /// Records of other events (`switch/`, `number/`, `endpoint/`, `placement/`) may be kept for a later try.
    Persist(Vec<RecordChange>),
    /// Read every entry of the switch's tables: [`Event::EntriesRead`](crate::Event).
    ReadEntries {
        switch: NodeName,
        read: ReadId,
    },
    /// Write to one switch, in order, and answer with [`Event::WriteDone`](crate::Event).
    /// Effects that follow are for other switches and need not wait for it.
    Write {
        switch: NodeName,
        write: WriteId,
        updates: Vec<Update>,
    },
    /// Load or replace. The shell adds the module's bytes, which it holds by their digest.
    LoadHook {
        switch: NodeName,
        hook: HookId,
        load: HookLoad,
    },
    UnloadHook {
        switch: NodeName,
        hook: HookId,
    },
    /// What a refusal offers instead need not be worked out yet ([`Offers`](crate::Offers)): the
    /// shell may do that beside what comes next.
    Reply {
        request: RequestId,
        reply: Result<Reply, Refusal>,
    },
    /// For the operator's event log.
    Log(LogEntry),
    /// `at_ms` on the clock of `handle`'s `now_ms`. Replaces an earlier time of that timer.
    SetTimer {
        timer: Timer,
        at_ms: u64,
    },
}

/// `value: None` deletes. Keys are ASCII, their parts separated by `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordChange {
    pub key: String,
    pub value: Option<Vec<u8>>,
}

/// One change of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// There is no entry with that key.
    Insert(Entry),
    /// There is one with that key and another value.
    Modify(Entry),
    /// The entry as the switch has it.
    Delete(Entry),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookLoad {
    /// For people: `slice/hook`.
    pub name: String,
    /// Of the module, lower-case hex.
    pub sha256: String,
    /// Given to `hook_init`.
    pub config: Vec<u8>,
    pub fuel_per_packet: u64,
    pub memory_bytes: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Plan(Plan),
    /// For each slice of the change.
    Feasibility(Vec<Feasibility>),
    /// The change is durable and on its way to the switches. `changed`: false if everything
    /// was as asked for already. `revision`: of the intent, after it.
    Applied {
        changed: bool,
        revision: u64,
    },
}

/// A line of the operator's event log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Counts up by one from 1 since the core was made.
    pub sequence: u64,
    pub at_ms: u64,
    pub severity: Severity,
    /// A fixed word for the kind of event, for filters: `switch-joined`, `link-down` ...
    pub kind: &'static str,
    /// The node, link, slice or hook that it is about.
    pub subject: String,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Info,
    /// Something is not as declared; the network copes.
    Warning,
    /// A promise is not kept at present.
    Error,
}
