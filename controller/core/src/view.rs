//! What the APIs may read: plain values, copied out of the core.

use std::net::IpAddr;

use selvedge_pipeline::{HookId, PortId};
use selvedge_slices::placement::Cost;
use selvedge_slices::schedule::Schedule;
use selvedge_topology::NodeName;

use selvedge_slices::Object;
use serde::{Deserialize, Serialize};

use crate::assure::DelayView;
use crate::event::{Compute, DiscoveryCounts, HookState, Neighbor, ObjectId};
use crate::lifecycle::Phase;

#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Every declared switch is joined, holds exactly what it should, and nothing is in flight.
    pub converged: bool,
    /// Of the intent: counts up with every change that was taken.
    pub revision: u64,
    /// The highest number given to entries of a switch.
    pub generation: u64,
    pub switches_declared: usize,
    pub switches_joined: usize,
    pub links_declared: usize,
    pub links_usable: usize,
    pub endpoints_declared: usize,
    pub endpoints_attached: usize,
    pub slices: usize,
    /// Slices whose promise is not kept at present.
    pub slices_degraded: usize,
    /// Why the store takes nothing at present, and so every change is refused; `None`: it does.
    pub store_unwritable: Option<String>,
    /// Why the last plan was not written, if so.
    pub blocked: Option<String>,
    /// What stands between now and converged, for people; empty when converged.
    pub waiting_for: Vec<String>,
    /// Nodes and links that are drained, by whom and why.
    pub drained: Vec<String>,
    /// The directory of files that is the intent, if one is.
    pub files: Option<IntentFiles>,
}

/// A directory of files that is the whole intent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntentFiles {
    pub dir: String,
    /// Why its files are not what runs: a line for each problem; `None`: they are.
    pub refused: Option<String>,
    /// Refusals, each counted once for as long as it lasts, since this controller leads.
    pub refusals: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct NodeView {
    pub name: NodeName,
    /// Its number in SIDs.
    pub sid: u16,
    pub role: String,
    pub site: Option<String>,
    pub position: Option<(f64, f64)>,
    pub joined: bool,
    /// Of its software; empty before it joins.
    pub version: String,
    /// The compute it reports.
    pub compute: Option<Compute>,
    /// As it reports them.
    pub ports: Vec<PortView>,
    /// Entries that the switch is known to hold, and should hold.
    pub entries: usize,
    pub entries_desired: usize,
    pub generation: Option<u64>,
    pub in_sync: bool,
    /// By whom it was drained and why; `None`: it is not.
    pub drained: Option<String>,
    /// What it has heard by LLDP since its agent's start.
    pub discovery: DiscoveryCounts,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PortView {
    pub id: PortId,
    pub name: String,
    pub mac: [u8; 6],
    pub up: bool,
    /// `fabric` or `access`.
    pub kind: &'static str,
    /// As LLDP tells.
    pub neighbor: Option<Neighbor>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LinkView {
    /// Node and port of both ends, as declared.
    pub a: (NodeName, String),
    pub b: (NodeName, String),
    pub capacity_bps: Option<u64>,
    pub delay_us: Option<u64>,
    pub usable: bool,
    /// Why not.
    pub reason: Option<String>,
    /// Why paths avoid it; `None`: they do not.
    pub drained: Option<String>,
    /// What is promised, as rate of frames, from `a` to `b` and back.
    pub reserved_ab_bps: u64,
    pub reserved_ba_bps: u64,
    /// What may be promised at most: capacity times margin.
    pub reservable_bps: Option<u64>,
    /// What left for the other end in the last second, as rate of frames; `None`: not told.
    pub rate_ab_bps: Option<u64>,
    pub rate_ba_bps: Option<u64>,
    /// Of test packets; `None`: none was answered of late.
    pub measured: Option<DelayView>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct EndpointView {
    pub name: NodeName,
    pub addresses: Vec<IpAddr>,
    pub mac: Option<[u8; 6]>,
    /// Switch and port where it is attached, or declared.
    pub attachment: Option<(NodeName, String)>,
    /// The port exists, its switch has joined, and the MAC address is known.
    pub attached: bool,
    /// Seen elsewhere than declared.
    pub moved: bool,
    /// Names of its slices; `default` if no slice names it.
    pub slices: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SliceState {
    /// Promise kept: paths are there and fit.
    Kept,
    /// Some traffic has no path, or the guarantee does not fit what is left of the network.
    Degraded,
}

/// Where a slice is in its life.
#[derive(Clone, Debug, PartialEq)]
pub struct Lifecycle {
    pub phase: Phase,
    /// `UNLOCKED` while it is active, else `LOCKED` (TS 28.541 §6.3.1, ITU-T X.731).
    pub administrative_state: &'static str,
    /// `ENABLED` if its capacity is there, so that it works or could, else `DISABLED`.
    pub operational_state: &'static str,
    pub schedule: Option<Schedule>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SliceView {
    pub name: String,
    /// The number in entries and outer sources.
    pub id: u16,
    pub class: String,
    pub state: SliceState,
    pub lifecycle: Lifecycle,
    /// Why degraded.
    pub reasons: Vec<String>,
    pub endpoints: Vec<String>,
    pub hooks: Vec<String>,
    pub revision: u64,
    pub author: String,
    pub changed_at_ms: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct HookView {
    pub name: String,
    /// Of the module.
    pub sha256: String,
    pub fuel_per_packet: u64,
    pub memory_bytes: u64,
    pub instances: Vec<HookInstanceView>,
    pub revision: u64,
    pub author: String,
}

/// A hook as one slice runs it on one switch.
#[derive(Clone, Debug, PartialEq)]
pub struct HookInstanceView {
    pub slice: String,
    pub switch: NodeName,
    pub hook: HookId,
    /// `None`: the switch has said nothing of it yet.
    pub state: Option<HookState>,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ApplicationView {
    pub name: String,
    pub endpoint: NodeName,
    /// `None`: it is not placed by the controller.
    pub placement: Option<PlacementView>,
    /// Rule id and whether it is ACTIVE, in the order of its descriptor.
    pub rules: Vec<(String, bool)>,
    pub revision: u64,
    pub author: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PduSessionView {
    pub session: selvedge_slices::PduSession,
    /// The flow that packets to the UE go in; `None`: the gNB has no address of that version.
    pub downlink_qfi: Option<u8>,
    /// Switch and port of the gNB.
    pub attachment: Option<(NodeName, String)>,
    /// The gNB can be sent to.
    pub attached: bool,
    pub revision: u64,
    pub author: String,
}

/// Where an application is that the controller places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlacementView {
    /// `None`: no node takes it at present.
    pub node: Option<NodeName>,
    /// It was seen there. Else this is a decision, and nothing has started it yet.
    pub seen: bool,
    /// Why it has no node, or why what it needs is not kept there.
    pub reason: Option<String>,
}

/// Why an application is where it is.
#[derive(Clone, Debug, PartialEq)]
pub struct ApplicationExplanation {
    pub application: String,
    pub endpoint: NodeName,
    /// `None`: it is not placed by the controller; then `nodes` is empty too.
    pub placement: Option<PlacementView>,
    /// Slices that lead to it.
    pub slices: Vec<String>,
    /// Every node with compute.
    pub nodes: Vec<NodeVerdict>,
}

/// What a node would be for an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeVerdict {
    pub node: NodeName,
    /// With its slices tried there; `None`: it lacks something.
    pub cost: Option<Cost>,
    pub lacks: Vec<String>,
}

/// Why a slice goes where it goes, and what its meters are.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    pub slice: String,
    /// The number in entries and outer sources.
    pub id: u16,
    pub state: SliceState,
    pub phase: Phase,
    /// Why degraded.
    pub reasons: Vec<String>,
    /// Paths, links with what is reserved and left, delay bounds term by term. `None`: there is
    /// no place for it in the network as it is.
    pub placement: Option<selvedge_slices::Explanation>,
    pub meters: Vec<MeterView>,
    /// What is drained, so that its paths avoid it.
    pub avoided: Vec<String>,
    /// What happens to it when a link fails, in words.
    pub protection: String,
    /// What came from its template, who is attached where it has a maximum, and what of it is
    /// not enforced.
    pub notes: Vec<String>,
}

/// Which classes 5QIs, SSTs and DSCPs stand for.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassMapView {
    /// The operator's map; `None`: there is none, and 3GPP's tables hold.
    pub name: Option<String>,
    /// By 5QI, SST and DSCP.
    pub rows: Vec<selvedge_slices::class_map::Row>,
}

/// A share of a slice's total, where its traffic enters; see the meter's entry.
#[derive(Clone, Debug, PartialEq)]
pub struct MeterView {
    pub switch: NodeName,
    /// `downlink` or `uplink`.
    pub direction: &'static str,
    /// Whose own rates these are; `None`: the slice's.
    pub endpoint: Option<String>,
    /// Of the slice.
    pub class: &'static str,
    pub guaranteed_bps: u64,
    pub maximum_bps: u64,
}

/// What a change did to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    Added,
    Changed,
    Deleted,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Touched {
    pub verb: Verb,
    pub id: ObjectId,
}

/// A change of intent that was taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    pub revision: u64,
    pub at_ms: u64,
    pub author: String,
    /// Empty: none was given.
    pub reason: String,
    /// The revision that was gone back to.
    pub rollback: Option<u64>,
    pub touched: Vec<Touched>,
    /// What else: `drain node s1`. No rollback undoes it.
    pub operations: Vec<String>,
    /// A rollback may lead past it.
    pub undoable: bool,
    /// Table entries, all switches together.
    pub added: usize,
    pub changed: usize,
    pub removed: usize,
    /// Switches whose entries were to change.
    pub switches: usize,
}

/// An object before and after a change; where the history keeps names only, neither.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectChange {
    pub touched: Touched,
    pub before: Option<Object>,
    pub after: Option<Object>,
}
