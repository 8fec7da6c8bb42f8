//! What the core is told.
//!
//! The shell turns every message of a switch's session, every answer of a P4Runtime call,
//! every request of an API and every timer into one [`Event`]. Names and numbers in them come
//! from outside: the core checks each against what it knows and logs what does not fit.

use std::collections::BTreeMap;
use std::net::IpAddr;

use selvedge_pipeline::delay::Delays;
use selvedge_pipeline::{Direction, DropReason, Entry, HookId, PortId, SliceId};
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
    /// What a switch has heard by LLDP, and of hosts, since its agent's start.
    Discovered {
        switch: NodeName,
        counts: DiscoveryCounts,
    },
    /// What a switch counted and measured in one second, or a part of it.
    Measured {
        switch: NodeName,
        measured: Measured,
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
    /// What became of the directory of files that is the intent: taken, or why not.
    IntentFiles {
        dir: String,
        refused: Option<String>,
    },
    /// A time set by [`Effect::SetTimer`](crate::Effect::SetTimer) has come. A timer that
    /// comes too often or too early does no harm.
    TimerDue(Timer),
}

/// What a switch counted and measured in one second. Where it has many slices in several parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Since the Unix epoch, by the switch's clock.
    pub second: u64,
    /// When it was told, by the switch's clock: milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// `entered`, `left`, `sent` and `received` are of packets that entered the fabric in that
    /// second, and of all of those.
    pub exact: bool,
    /// What the other counts of slices and ports are of.
    pub interval_ms: u32,
    pub links: Vec<LinkCount>,
    pub slices: Vec<SliceCount>,
    /// There is no more of that second.
    pub last: bool,
}

/// One port of a switch in one second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkCount {
    pub at: Counted,
    /// Test packets sent to the neighbor, and answers.
    pub probes: u32,
    pub answered: u32,
    /// Two-way, nanoseconds: mean and largest of those answered.
    pub delay_ns: u64,
    pub delay_max_ns: u64,
    /// All of them.
    pub delays: Delays,
    /// Marked packets.
    pub sent: u64,
    pub received: u64,
    /// All packets that came by the port, and that left by it, in [`Measured::interval_ms`].
    pub came: Traffic,
    pub left: Traffic,
}

/// Bytes are those of whole frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub packets: u64,
    pub bytes: u64,
}

/// Where packets of slices are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    Port(PortId),
    /// The compute port of a hook: sent to it, received from it.
    Hook(HookId),
}

/// One direction of one slice at one switch in one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceCount {
    pub slice: SliceId,
    pub direction: Direction,
    /// The user's bytes that entered here and were delivered here.
    pub in_bytes: u64,
    pub delivered_bytes: u64,
    /// Packets within the guarantee that entered here and were delivered here.
    pub entered: u64,
    pub left: u64,
    /// Packets within the guarantee that were dropped here, and why the last one was.
    pub lost: u64,
    pub lost_reason: Option<DropReason>,
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
    /// It has shown a key of this network. Whoever has not is shown to the operator, and nothing
    /// follows from what it says.
    pub authenticated: bool,
}

/// LLDP frames, those that said nothing, by reason, and what hosts asked of a router.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiscoveryCounts {
    pub received: u64,
    /// Without an End TLV, and taken nevertheless.
    pub without_end: u64,
    /// In the order of [`Self::REASONS`].
    pub discarded: [u64; 8],
    /// In the order of [`Self::OF_HOSTS`].
    pub hosts: [u64; 7],
}

impl DiscoveryCounts {
    /// Why a frame said nothing; but one that is `misplaced`, a proof where no switch should be,
    /// is told as if it had none.
    pub const REASONS: [&str; 8] = [
        "malformed",
        "unauthenticated",
        "unknown_key",
        "forged",
        "stale",
        "replayed",
        "misplaced",
        "limited",
    ];

    /// Router solicitations and advertisements, messages of DHCP and DHCPv6 that were relayed, and
    /// those that were not.
    pub const OF_HOSTS: [&str; 7] = [
        "solicitations",
        "advertisements",
        "to_servers",
        "to_clients",
        "malformed",
        "foreign",
        "no_server",
    ];

    pub fn by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Self::REASONS.into_iter().zip(self.discarded)
    }
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
    /// Nodes and links that are to be empty, for work on them.
    pub drain: Vec<Target>,
    /// Nodes and links that may be used again.
    pub undrain: Vec<Target>,
    /// Why, for the history.
    pub reason: String,
}

/// A part of the network, as an operator names it: a switch; or a link by one end, `s1:p2`, or
/// by both, `s1 - s2` or `s1:p2 - s2:p1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub kind: TargetKind,
    pub name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    Node,
    Link,
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
