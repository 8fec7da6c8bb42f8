//! What the operator API says, as JSON. The command line reads the same types.
//!
//! Rates are bits per second, sizes bytes, times milliseconds of Unix time and delays
//! microseconds; a field's name carries its unit. MAC addresses are `aa:bb:cc:dd:ee:ff`.

use std::collections::BTreeMap;

use selvedge_core::assure::DelayView;
use selvedge_core::view;
use selvedge_core::{DiscoveryCounts, HookState, LogEntry, Phase, Severity};
use selvedge_slices::schedule::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::wire_placement::Placed;

/// How the network stands to what is wanted.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Version of this program.
    pub version: String,
    pub role: RoleName,
    /// Who leads, as it advertises itself; null: nobody does, or the store is a file.
    pub leader: Option<String>,
    /// Every declared switch has a session, holds exactly what it should, and nothing is under
    /// way.
    pub converged: bool,
    /// Counts up with every change of intent that was taken.
    pub revision: u64,
    /// The highest generation given to entries of a switch.
    pub generation: u64,
    pub switches: Share,
    pub links: Share,
    pub endpoints: Share,
    pub slices: usize,
    /// Slices whose promise is not kept at present.
    pub slices_degraded: usize,
    /// Why the store takes nothing at present, and so every change is refused; null: it does.
    pub store_unwritable: Option<String>,
    /// Why the last plan was not written, if so.
    pub blocked: Option<String>,
    /// What stands between now and converged; empty when converged.
    pub waiting_for: Vec<String>,
    /// Nodes and links that are drained, by whom and why.
    #[serde(default)]
    pub drained: Vec<String>,
    /// The directory of files that is the whole intent; null: objects are changed by this API.
    pub intent_files: Option<IntentFiles>,
    /// Table entries that this controller has sent to switches since it started: inserted,
    /// modified and deleted, all switches together.
    pub writes: u64,
}

/// What a controller does among those that share a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RoleName {
    /// Takes changes, and programs the switches.
    Leader,
    /// Answers questions about what is in the store, and stands ready.
    Follower,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct IntentFiles {
    pub dir: String,
    /// Why its files are not what runs: a line for each problem; null: they are.
    pub refused: Option<String>,
    /// Refusals, each counted once for as long as it lasts, since this controller leads.
    pub refusals: u64,
}

/// So many of so many: switches that have a session, links that are usable, endpoints that
/// are attached, of those declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Share {
    pub ready: usize,
    pub declared: usize,
}

impl Status {
    pub(crate) fn new(view: view::Status, writes: u64) -> Self {
        let share = |ready, declared| Share { ready, declared };
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            role: RoleName::Leader,
            leader: None,
            converged: view.converged,
            revision: view.revision,
            generation: view.generation,
            switches: share(view.switches_joined, view.switches_declared),
            links: share(view.links_usable, view.links_declared),
            endpoints: share(view.endpoints_attached, view.endpoints_declared),
            slices: view.slices,
            slices_degraded: view.slices_degraded,
            store_unwritable: view.store_unwritable,
            blocked: view.blocked,
            waiting_for: view.waiting_for,
            drained: view.drained,
            intent_files: view.files.map(|files| IntentFiles {
                dir: files.dir,
                refused: files.refused,
                refusals: files.refusals,
            }),
            writes,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Node {
    pub name: String,
    /// Its number in segment identifiers.
    pub sid: u16,
    pub role: String,
    pub site: Option<String>,
    pub position: Option<Position>,
    /// Has a session.
    pub joined: bool,
    /// Of the switch's software; empty before it joins.
    pub version: String,
    pub compute: Option<Compute>,
    pub ports: Vec<Port>,
    /// Entries it is known to hold, and should hold.
    pub entries: usize,
    pub entries_desired: usize,
    pub generation: Option<u64>,
    pub in_sync: bool,
    /// By whom it was drained and why; null: it is not.
    pub drained: Option<String>,
    pub discovery: Discovery,
}

/// LLDP frames that a switch has received since its agent's start.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Discovery {
    pub received: u64,
    /// Without an End TLV, and taken nevertheless.
    pub without_end: u64,
    /// Those that said nothing, by reason.
    pub discarded: BTreeMap<String, u64>,
}

impl From<DiscoveryCounts> for Discovery {
    fn from(counts: DiscoveryCounts) -> Self {
        let discarded = counts.by_reason().map(|(reason, count)| (reason.to_owned(), count));
        Self {
            received: counts.received,
            without_end: counts.without_end,
            discarded: discarded.collect(),
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct Position {
    pub latitude: f64,
    pub longitude: f64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct Compute {
    pub cpu: u32,
    pub memory_bytes: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Port {
    pub id: u16,
    pub name: String,
    pub mac: String,
    /// Carrier.
    pub up: bool,
    /// `fabric` or `access`.
    pub kind: String,
    pub neighbor: Option<Neighbor>,
}

/// As LLDP tells.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Neighbor {
    pub chassis: String,
    pub port: String,
    /// It has shown a key of this network. If not, nothing follows from what it says.
    pub authenticated: bool,
}

impl From<view::NodeView> for Node {
    fn from(view: view::NodeView) -> Self {
        Self {
            name: view.name.to_string(),
            sid: view.sid,
            role: view.role,
            site: view.site,
            position: view.position.map(|(latitude, longitude)| Position { latitude, longitude }),
            joined: view.joined,
            version: view.version,
            compute: view.compute.map(|c| Compute { cpu: c.cpu, memory_bytes: c.memory_bytes }),
            ports: view.ports.into_iter().map(Port::from).collect(),
            entries: view.entries,
            entries_desired: view.entries_desired,
            generation: view.generation,
            in_sync: view.in_sync,
            drained: view.drained,
            discovery: view.discovery.into(),
        }
    }
}

impl From<view::PortView> for Port {
    fn from(view: view::PortView) -> Self {
        Self {
            id: view.id.0,
            name: view.name,
            mac: mac_text(view.mac),
            up: view.up,
            kind: view.kind.to_owned(),
            neighbor: view.neighbor.map(|neighbor| Neighbor {
                chassis: neighbor.chassis,
                port: neighbor.port,
                authenticated: neighbor.authenticated,
            }),
        }
    }
}

pub(crate) fn mac_text(mac: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Link {
    /// `node:port`.
    pub a: String,
    pub b: String,
    pub capacity_bps: Option<u64>,
    pub delay_us: Option<u64>,
    pub usable: bool,
    /// Why not.
    pub reason: Option<String>,
    /// Why paths avoid it, though it is usable; null: they do not.
    pub drained: Option<String>,
    /// Sums of guaranteed rates, from `a` to `b` and back.
    pub reserved_ab_bps: u64,
    pub reserved_ba_bps: u64,
    /// What guarantees may take in each direction.
    pub reservable_bps: Option<u64>,
    /// What left for the other end in the last second, as rate of frames; null: not told.
    pub rate_ab_bps: Option<u64>,
    pub rate_ba_bps: Option<u64>,
    /// Delays of test packets over the last 5 s; null: none was answered.
    pub measured: Option<LinkDelay>,
}

/// One way, microseconds: half of there and back. At most an eighth too large.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LinkDelay {
    pub median_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
}

impl From<DelayView> for LinkDelay {
    fn from(view: DelayView) -> Self {
        let us = |ns: u64| ns as f64 / 1e3;
        Self { median_us: us(view.median_ns), p99_us: us(view.p99_ns), max_us: us(view.max_ns) }
    }
}

impl From<view::LinkView> for Link {
    fn from(view: view::LinkView) -> Self {
        let end = |(node, port)| format!("{node}:{port}");
        Self {
            a: end(view.a),
            b: end(view.b),
            capacity_bps: view.capacity_bps,
            delay_us: view.delay_us,
            usable: view.usable,
            reason: view.reason,
            drained: view.drained,
            reserved_ab_bps: view.reserved_ab_bps,
            reserved_ba_bps: view.reserved_ba_bps,
            reservable_bps: view.reservable_bps,
            rate_ab_bps: view.rate_ab_bps,
            rate_ba_bps: view.rate_ba_bps,
            measured: view.measured.map(Into::into),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Endpoint {
    pub name: String,
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<std::net::IpAddr>,
    pub mac: Option<String>,
    /// Where it is attached, or declared: switch and port.
    pub switch: Option<String>,
    pub port: Option<String>,
    pub attached: bool,
    /// It is elsewhere than declared.
    pub moved: bool,
    /// `default` if no slice names it.
    pub slices: Vec<String>,
}

impl From<view::EndpointView> for Endpoint {
    fn from(view: view::EndpointView) -> Self {
        let (switch, port) = view.attachment.unzip();
        Self {
            name: view.name.to_string(),
            addresses: view.addresses,
            mac: view.mac.map(mac_text),
            switch: switch.map(|switch| switch.to_string()),
            port,
            attached: view.attached,
            moved: view.moved,
            slices: view.slices,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SliceState {
    /// Its promise is kept.
    Kept,
    /// Some of its traffic has no path, or its guarantee does not fit what is left.
    Degraded,
}

impl From<view::SliceState> for SliceState {
    fn from(state: view::SliceState) -> Self {
        match state {
            view::SliceState::Kept => Self::Kept,
            view::SliceState::Degraded => Self::Degraded,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Slice {
    pub name: String,
    /// Its number in the data plane.
    pub id: u16,
    pub class: String,
    pub state: SliceState,
    /// Why degraded.
    pub reasons: Vec<String>,
    /// `designed`: nothing is held for it; `reserved`: its capacity is; `active`;
    /// `deactivated`: its capacity is held, switches have nothing of it.
    pub lifecycle: String,
    /// When a reservation expires, RFC 3339; null: it does not.
    pub reserved_until: Option<String>,
    /// As scheduled, RFC 3339.
    pub start: Option<String>,
    pub end: Option<String>,
    /// `UNLOCKED` while active, else `LOCKED` (3GPP TS 28.541).
    pub administrative_state: String,
    /// `ENABLED`: its capacity is there; `DISABLED` (3GPP TS 28.541).
    pub operational_state: String,
    pub endpoints: Vec<String>,
    pub hooks: Vec<String>,
    /// The change of intent that last touched it, by whom and when.
    pub revision: u64,
    pub author: String,
    pub changed_at_ms: u64,
}

impl From<view::SliceView> for Slice {
    fn from(view: view::SliceView) -> Self {
        let view::Lifecycle { phase, administrative_state, operational_state, schedule } =
            view.lifecycle;
        let reserved_until = match phase {
            Phase::Reserved { until_ms } => until_ms,
            Phase::Designed | Phase::Active | Phase::Deactivated => None,
        };
        let moment = |at: Option<Timestamp>| at.map(|at| at.to_string());
        Self {
            name: view.name,
            id: view.id,
            class: view.class,
            state: view.state.into(),
            reasons: view.reasons,
            lifecycle: phase.as_str().to_owned(),
            reserved_until: reserved_until.map(|at| Timestamp(at).to_string()),
            start: moment(schedule.and_then(|schedule| schedule.start)),
            end: moment(schedule.and_then(|schedule| schedule.end)),
            administrative_state: administrative_state.to_owned(),
            operational_state: operational_state.to_owned(),
            endpoints: view.endpoints,
            hooks: view.hooks,
            revision: view.revision,
            author: view.author,
            changed_at_ms: view.changed_at_ms,
        }
    }
}

/// Which classes 5QIs, SSTs and DSCPs stand for.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ClassMap {
    /// The operator's ClassMap; null: there is none, and 3GPP's tables hold.
    pub name: Option<String>,
    pub rows: Vec<ClassRow>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ClassRow {
    /// `5qi`, `sst` or `dscp`.
    pub by: String,
    pub number: u8,
    pub class: String,
    /// By the ClassMap, not by 3GPP.
    pub stated: bool,
}

impl From<view::ClassMapView> for ClassMap {
    fn from(view: view::ClassMapView) -> Self {
        let row = |row: selvedge_slices::class_map::Row| ClassRow {
            by: row.by.to_owned(),
            number: row.number,
            class: row.class.to_string(),
            stated: row.stated,
        };
        Self { name: view.name, rows: view.rows.into_iter().map(row).collect() }
    }
}

/// A UE behind a gNB.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PduSession {
    pub name: String,
    pub ue: String,
    pub slice: String,
    pub gnb: String,
    /// Where the gNB sends to.
    pub n3: String,
    pub uplink_teid: u32,
    pub downlink_teid: u32,
    pub flows: Vec<QosFlow>,
    /// The flow that packets to the UE go in; null: the gNB has no address of that version.
    pub downlink_qfi: Option<u8>,
    /// Bytes of IP between switch and gNB.
    pub mtu: u16,
    /// Switch and port of the gNB.
    pub attachment: Option<String>,
    /// The gNB can be sent to.
    pub attached: bool,
    pub revision: u64,
    pub author: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct QosFlow {
    pub qfi: u8,
    #[serde(rename = "5qi")]
    pub five_qi: u8,
}

impl From<view::PduSessionView> for PduSession {
    fn from(view: view::PduSessionView) -> Self {
        let session = view.session;
        let flow = |(qfi, five_qi)| QosFlow { qfi, five_qi };
        Self {
            name: session.name.to_string(),
            ue: session.ue.to_string(),
            slice: session.slice.to_string(),
            gnb: session.gnb.to_string(),
            n3: session.n3.to_string(),
            uplink_teid: session.uplink_teid,
            downlink_teid: session.downlink_teid,
            flows: session.flows.into_iter().map(flow).collect(),
            downlink_qfi: view.downlink_qfi,
            mtu: session.mtu,
            attachment: view.attachment.map(|(node, port)| format!("{node}:{port}")),
            attached: view.attached,
            revision: view.revision,
            author: view.author,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Hook {
    pub name: String,
    /// SHA-256 of the module.
    pub sha256: String,
    pub fuel_per_packet: u64,
    pub memory_bytes: u64,
    /// The worst of its instances: `refused`, `quarantined`, `down`, `loading` (also while the
    /// switch has not said anything of it), `running`; `unused` if no slice leads through it.
    pub state: String,
    /// The switch of that instance.
    pub node: Option<String>,
    pub instances: Vec<HookInstance>,
    pub revision: u64,
    pub author: String,
}

/// The hook as one slice runs it on one switch.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct HookInstance {
    pub slice: String,
    pub switch: String,
    pub hook: u16,
    /// `loading`, `running`, `down`, `quarantined`, `refused`; absent: the switch has said
    /// nothing of it yet.
    pub state: Option<String>,
    pub reason: String,
}

impl From<view::HookView> for Hook {
    fn from(view: view::HookView) -> Self {
        let state =
            |instance: &view::HookInstanceView| instance.state.unwrap_or(HookState::Loading);
        let badness = |state| match state {
            HookState::Running => 0,
            HookState::Loading => 1,
            HookState::Down => 2,
            HookState::Quarantined => 3,
            HookState::Refused => 4,
        };
        // Of equals the first, so that it does not change from call to call.
        let worst = view.instances.iter().rev().max_by_key(|instance| badness(state(instance)));
        Self {
            state: worst.map_or("unused", |worst| hook_state(state(worst))).to_owned(),
            node: worst.map(|worst| worst.switch.to_string()),
            name: view.name,
            sha256: view.sha256,
            fuel_per_packet: view.fuel_per_packet,
            memory_bytes: view.memory_bytes,
            instances: view.instances.into_iter().map(HookInstance::from).collect(),
            revision: view.revision,
            author: view.author,
        }
    }
}

impl From<view::HookInstanceView> for HookInstance {
    fn from(view: view::HookInstanceView) -> Self {
        Self {
            slice: view.slice,
            switch: view.switch.to_string(),
            hook: view.hook.0,
            state: view.state.map(|state| hook_state(state).to_owned()),
            reason: view.reason,
        }
    }
}

fn hook_state(state: HookState) -> &'static str {
    match state {
        HookState::Loading => "loading",
        HookState::Running => "running",
        HookState::Down => "down",
        HookState::Quarantined => "quarantined",
        HookState::Refused => "refused",
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Application {
    pub name: String,
    pub endpoint: String,
    /// Absent: the controller does not place it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placed>,
    /// In the order of its descriptor.
    pub rules: Vec<Rule>,
    pub revision: u64,
    pub author: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Rule {
    pub id: String,
    pub active: bool,
}

impl From<view::ApplicationView> for Application {
    fn from(view: view::ApplicationView) -> Self {
        let rule = |(id, active)| Rule { id, active };
        Self {
            name: view.name,
            endpoint: view.endpoint.to_string(),
            placement: view.placement.map(Placed::from),
            rules: view.rules.into_iter().map(rule).collect(),
            revision: view.revision,
            author: view.author,
        }
    }
}

/// A line of the event log.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// Counts up by one from 1 since the controller started.
    pub sequence: u64,
    pub at_ms: u64,
    /// `info`; `warning`: something is not as declared, the network copes; `error`: a promise
    /// is not kept.
    pub severity: String,
    /// A fixed word for the kind of event.
    pub kind: String,
    /// The node, link, slice or hook it is about.
    pub subject: String,
    pub text: String,
}

impl From<&LogEntry> for LogLine {
    fn from(entry: &LogEntry) -> Self {
        let severity = match entry.severity {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        Self {
            sequence: entry.sequence,
            at_ms: entry.at_ms,
            severity: severity.to_owned(),
            kind: entry.kind.to_owned(),
            subject: entry.subject.clone(),
            text: entry.text.clone(),
        }
    }
}
