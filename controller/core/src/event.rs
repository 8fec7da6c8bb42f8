//! What the core is told.
//!
//! The shell turns every message of a switch's session, every answer of a P4Runtime call,
//! every request of an API and every timer into one [`Event`]. Names and numbers in them come
//! from outside: the core checks each against what it knows and logs what does not fit.

use std::collections::BTreeMap;
use std::net::IpAddr;

use selvedge_pipeline::{Entry, HookId, PortId};
use selvedge_slices::{Object, ObjectKind, ObjectName, TrafficRule};
use selvedge_topology::NodeName;

use crate::lifecycle::SliceRequest;
use crate::plan::PlanId;

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A switch opened its session; `switch` is the name in its certificate. Replaces an
    /// earlier session of that switch, whose reads and writes then count as failed.
    SwitchJoined {
        switch: NodeName,
        report: Report,
    },
    /// The session ended. What the switch forwards goes on, so its links and endpoints stay as
    /// it last reported them.
    SwitchLeft {
        switch: NodeName,
    },
    PortChanged {
        switch: NodeName,
        port: Port,
    },
    PortGone {
        switch: NodeName,
        port: PortId,
    },
    /// `None`: the neighbor's time to live ran out.
    NeighborChanged {
        switch: NodeName,
        port: PortId,
        neighbor: Option<Neighbor>,
    },
    /// A source that the `endpoint` table does not bind was seen on an access port.
    EndpointSeen {
        switch: NodeName,
        port: PortId,
        mac: [u8; 6],
        address: IpAddr,
    },
    HookChanged {
        switch: NodeName,
        hook: HookId,
        status: HookStatus,
    },
    /// Answers [`Effect::ReadEntries`](crate::Effect::ReadEntries). `Err`: what the switch or
    /// the connection said.
    EntriesRead {
        switch: NodeName,
        read: ReadId,
        result: Result<Vec<Entry>, String>,
    },
    /// Answers [`Effect::Write`](crate::Effect::Write). A failed write may have been applied
    /// in part: the core reads the switch again.
    WriteDone {
        switch: NodeName,
        write: WriteId,
        result: Result<(), String>,
    },
    /// Answered by exactly one [`Effect::Reply`](crate::Effect::Reply) among the effects of
    /// the same call.
    Request {
        id: RequestId,
        author: String,
        request: Request,
    },
    /// The store does not take what it is told, and why; `None`: it does again.
    Store {
        unwritable: Option<String>,
    },
    /// A time set by [`Effect::SetTimer`](crate::Effect::SetTimer) has come. A timer that
    /// comes too often or too early does no harm.
    TimerDue(Timer),
}

/// What a switch says of itself when it joins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Of its software.
    pub version: String,
    pub ports: Vec<Port>,
    /// `None`: no hooks here.
    pub compute: Option<Compute>,
    pub neighbors: Vec<(PortId, Neighbor)>,
    pub hooks: Vec<(HookId, HookStatus)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    pub id: PortId,
    /// Interface or port name; declared ports are found by it.
    pub name: String,
    pub mac: [u8; 6],
    /// Carrier.
    pub up: bool,
}

/// An LLDP neighbor (IEEE 802.1AB): chassis id and port id, which Selvedge switches fill with
/// their names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbor {
    pub chassis: String,
    pub port: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compute {
    pub cpu: u32,
    pub memory_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookStatus {
    pub state: HookState,
    /// Why, for `Down`, `Quarantined` and `Refused`.
    pub reason: String,
    /// Of the module, lower-case hex; empty if none is loaded.
    pub sha256: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookState {
    Loading,
    Running,
    /// The compute host is not there; loaded again with growing pauses.
    Down,
    /// Trapped or overran its fuel; stays so until its module or settings change.
    Quarantined,
    /// The module was not accepted; stays so until its module or settings change.
    Refused,
}

/// What an API asks for. Reading needs no request: see the views of [`Core`](crate::Core).
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// What would [`Request::Apply`] do? Changes nothing. Reply: [`Reply::Plan`].
    ///
    /// [`Reply::Plan`]: crate::Reply::Plan
    Plan(Change),
    /// Takes the whole change or nothing. With `plan`, only if the plan made now is that
    /// same plan. Reply: [`Reply::Applied`](crate::Reply::Applied).
    Apply { change: Change, plan: Option<PlanId> },
    /// About slices as such: see [`SliceRequest`].
    Slice(SliceRequest),
    /// MEC 011: replaces one traffic rule of an application if it still is `old`. Their ids
    /// must be equal. Reply: [`Reply::Applied`](crate::Reply::Applied).
    ReplaceTrafficRule { application: ObjectName, old: TrafficRule, new: TrafficRule },
}

/// A change of intent: objects put and deleted at once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    pub put: Vec<Object>,
    /// For each hook in `put`: the SHA-256 of its module, lower-case hex. The shell keeps the
    /// module's bytes under that digest before it sends the request.
    pub modules: BTreeMap<ObjectName, String>,
    pub delete: Vec<ObjectId>,
    /// Puts and deletes what makes every object what it was at this revision, and nothing else.
    pub rollback: Option<u64>,
    /// Why, for the history.
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectId {
    pub kind: ObjectKind,
    pub name: ObjectName,
}

/// The shell's number for a request; comes back in the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// The core's number for a read of a switch's entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadId(pub u64);

/// The core's number for one write to one switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriteId(pub u64);

/// The core's timers. Each has one time at most: setting it again replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A burst of events is over: compute and write.
    Batch,
    /// The packets in flight have arrived: go on to removals.
    Step,
    /// A read or a write should have been answered by now.
    Deadline,
    /// Read every switch again.
    Resync,
    /// Load hooks again that are down.
    Hooks,
    /// A slice starts, ends, or its reservation expires.
    Lifecycle,
}
