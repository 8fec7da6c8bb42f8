//! What an operator writes, after validation.

use selvedge_topology::{BitRate, Bytes, Delay, NodeName};

use crate::class::{Class, ClassReason};
use crate::limits::{MAX_BURST_BYTES, MTU_BYTES};
use crate::placement::Demand;
use crate::schedule::Schedule;
use crate::template::FromTemplate;
use crate::{ClassMap, ObjectName, PduSession, Snssai, TrafficRule};

/// One object of a file: `apiVersion: selvedge/v1` and a `kind`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    NetworkSlice(NetworkSlice),
    Hook(Hook),
    Application(Application),
    ClassMap(ClassMap),
    PduSession(PduSession),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    NetworkSlice,
    Hook,
    Application,
    ClassMap,
    PduSession,
}

impl ObjectKind {
    pub const ALL: [Self; 5] =
        [Self::NetworkSlice, Self::Hook, Self::Application, Self::ClassMap, Self::PduSession];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::NetworkSlice => "NetworkSlice",
            Self::Hook => "Hook",
            Self::Application => "Application",
            Self::ClassMap => "ClassMap",
            Self::PduSession => "PduSession",
        }
    }
}

impl std::fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl Object {
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::NetworkSlice(_) => ObjectKind::NetworkSlice,
            Self::Hook(_) => ObjectKind::Hook,
            Self::Application(_) => ObjectKind::Application,
            Self::ClassMap(_) => ObjectKind::ClassMap,
            Self::PduSession(_) => ObjectKind::PduSession,
        }
    }

    pub fn name(&self) -> &ObjectName {
        match self {
            Self::NetworkSlice(slice) => &slice.name,
            Self::Hook(hook) => &hook.name,
            Self::Application(application) => &application.name,
            Self::ClassMap(map) => &map.name,
            Self::PduSession(session) => &session.name,
        }
    }
}

/// A network slice (3GPP TS 28.541 §6.3.3, ServiceProfile, as far as a transport network keeps
/// it).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSlice {
    pub name: ObjectName,
    pub template: Option<FromTemplate>,
    pub s_nssai: Option<Snssai>,
    pub five_qi: Option<u8>,
    pub class: Class,
    pub class_reason: ClassReason,
    /// Decides among slices that two endpoints share: the highest, then the first name.
    pub priority: u8,
    /// From `dn` to `ue` (dLThptPerSlice): the slice's total.
    pub downlink: Rates,
    /// From `ue` to `dn` (uLThptPerSlice): the slice's total.
    pub uplink: Rates,
    /// One way, between the switches' access ports (dLLatency, uLLatency).
    pub latency: Option<Delay>,
    pub availability: Option<Availability>,
    pub resource_sharing_level: ResourceSharingLevel,
    /// Of `ue` endpoints that may be attached at one time (maxNumberofUEs).
    pub max_ues: Option<u32>,
    /// Of their sessions at one time (maxNumberofPDUSessions).
    pub max_pdu_sessions: Option<u32>,
    /// `None`: from when it is put until it is deactivated or deleted.
    pub schedule: Option<Schedule>,
    /// Without duplicates.
    pub endpoints: Vec<Endpoint>,
    /// Hooks on the path, in the order that packets of either direction meet them.
    pub through: Vec<Through>,
}

/// The promise for one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// The user's IP bytes. `None`: nothing is promised.
    pub guaranteed: Option<BitRate>,
    /// At least `guaranteed`. `None`: what the network has left.
    pub maximum: Option<BitRate>,
    /// What may come at once, of either rate. `None`: as the class has it.
    pub burst: Option<Bytes>,
}

impl Rates {
    /// The guaranteed rate's burst, in bytes of the user's IP packets; 0 without a guarantee.
    pub fn guaranteed_burst(&self, class: Class) -> Bytes {
        self.burst_of(self.guaranteed, class)
    }

    /// The maximum rate's burst; 0 without a maximum.
    pub fn maximum_burst(&self, class: Class) -> Bytes {
        self.burst_of(self.maximum, class)
    }

    /// Whether anything is stated.
    pub fn is_some(&self) -> bool {
        self.guaranteed.is_some() || self.maximum.is_some()
    }

    fn burst_of(&self, rate: Option<BitRate>, class: Class) -> Bytes {
        let Some(rate) = rate else { return Bytes(0) };
        let burst = self.burst.unwrap_or_else(|| class.default_burst(rate));
        Bytes(burst.0.clamp(MTU_BYTES, MAX_BURST_BYTES))
    }
}

/// A share of time in which a slice works, in millionths; at most 1,000,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Availability(pub(crate) u32);

impl Availability {
    pub fn ppm(self) -> u32 {
        self.0
    }
}

/// Whether a slice's resources may be shared with other slices (TS 28.541 §6.4.1,
/// resourceSharingLevel).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceSharingLevel {
    #[default]
    Shared,
    /// No capacity that is allocated to it, its backups' included, is another slice's.
    NonShared,
}

impl ResourceSharingLevel {
    pub const WORDS: [(&'static str, Self); 2] =
        [("shared", Self::Shared), ("non-shared", Self::NonShared)];
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub side: Side,
    pub name: NodeName,
    /// Of this endpoint's own traffic from `dn` to `ue` (dLThptPerUE), within the slice's total.
    /// Without a burst.
    pub downlink: Rates,
    /// From `ue` to `dn` (uLThptPerUE).
    pub uplink: Rates,
}

impl Endpoint {
    /// One without rates of its own.
    pub fn new(side: Side, name: NodeName) -> Self {
        Self { side, name, downlink: Rates::default(), uplink: Rates::default() }
    }

    pub fn rates(&self, direction: Direction) -> &Rates {
        match direction {
            Direction::Downlink => &self.downlink,
            Direction::Uplink => &self.uplink,
        }
    }

    pub fn has_rates(&self) -> bool {
        Direction::ALL.iter().any(|&direction| self.rates(direction).is_some())
    }
}

/// Which side of the slice an endpoint is on. What a `ue` sends is uplink, what a `dn` sends
/// downlink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// User equipment.
    Ue,
    /// Data network.
    Dn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    Downlink,
    Uplink,
}

impl Direction {
    pub const ALL: [Self; 2] = [Self::Downlink, Self::Uplink];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Downlink => "downlink",
            Self::Uplink => "uplink",
        }
    }
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl Side {
    /// The direction of what this side sends.
    pub fn sends(self) -> Direction {
        match self {
            Self::Ue => Direction::Uplink,
            Self::Dn => Direction::Downlink,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Through {
    pub hook: ObjectName,
    pub on_failure: OnFailure,
}

/// What happens to packets while a hook is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnFailure {
    /// They go on without it.
    Bypass,
    Drop,
}

impl NetworkSlice {
    pub fn rates(&self, direction: Direction) -> &Rates {
        match direction {
            Direction::Downlink => &self.downlink,
            Direction::Uplink => &self.uplink,
        }
    }

    /// How many `ue` endpoints may be attached at one time; `None`: all. An endpoint is one
    /// interface with its addresses, and so one PDU session: the lower of the two maxima holds.
    pub fn most_ues(&self) -> Option<usize> {
        let most = [self.max_ues, self.max_pdu_sessions].into_iter().flatten().min()?;
        Some(usize::try_from(most).unwrap_or(usize::MAX))
    }

    pub fn endpoints_on(&self, side: Side) -> impl Iterator<Item = &NodeName> {
        self.endpoints.iter().filter(move |e| e.side == side).map(|e| &e.name)
    }

    /// Endpoints with rates of their own.
    pub fn rated(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter().filter(|endpoint| endpoint.has_rates())
    }

    /// Who talks with whom, as (sender, receiver, direction): every `ue` with every `dn`, both
    /// ways; where a slice has one side only, everyone with everyone.
    pub fn pairs(&self) -> Vec<(&NodeName, &NodeName, Direction)> {
        self.pairs_of(|name| name)
    }

    /// The same, with what is known of each endpoint in place of its name: looked up once.
    pub fn pairs_of<'a, T: Copy>(
        &'a self,
        known: impl FnMut(&'a NodeName) -> T,
    ) -> Vec<(T, T, Direction)> {
        let both = [Side::Ue, Side::Dn].iter().all(|s| self.endpoints.iter().any(|e| e.side == *s));
        let known: Vec<T> = self.endpoints.iter().map(|e| &e.name).map(known).collect();
        let mut pairs = Vec::new();
        for (i, from) in self.endpoints.iter().enumerate() {
            for (j, to) in self.endpoints.iter().enumerate() {
                if i != j && (!both || from.side != to.side) {
                    pairs.push((known[i], known[j], from.side.sends()));
                }
            }
        }
        pairs
    }
}

/// A WebAssembly module that can stand on a slice's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    pub name: ObjectName,
    /// Where the module is: a file, relative to the file that names it.
    pub module: String,
    /// Handed to the module's `hook_init` as it is.
    pub config: String,
    pub fuel_per_packet: u64,
    /// Of the module's linear memory.
    pub memory: Bytes,
}

impl Hook {
    pub const DEFAULT_FUEL: u64 = 100_000;
    pub const DEFAULT_MEMORY: Bytes = Bytes(16 << 20);
}

/// An application on an endpoint, with the traffic rules of its descriptor (ETSI GS MEC 010-2
/// §6.2.1.2, AppD, as far as MEC 011 needs it).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    pub name: ObjectName,
    pub endpoint: NodeName,
    /// What it needs of a node; `None`: nobody places it.
    pub demand: Option<Demand>,
    /// With ids of their own.
    pub traffic_rules: Vec<TrafficRule>,
}
