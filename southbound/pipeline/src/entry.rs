//! What a switch can be told: one type per table, in the order a packet meets them.
//!
//! `port` -> `endpoint` -> `classifier` -> `slice_route` -> `endpoint_meter` -> `slice_meter` ->
//! `policy` -> `local_sid` -> `next_hop` | `delivery` -> `port_queue`. What a gNB sends to an `n3_address` is
//! bound by `gtp_session` in place of `endpoint`.
//!
//! Units: rates are bits per second, sizes are bytes, both counted in the user's IP bytes
//! unless a field says otherwise. Every entry has a key (what it matches) and a value; two
//! entries with one key are the same entry at two times ([`Entry::key`]).

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv6Net};

/// A port of one switch, `1..=255`. P4Runtime port number and index of the switch's maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u16);

/// A node's 16-bit segment identifier in the global block, `1..=4095` (RFC 9800 §4.1, GIB).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeSid(pub u16);

/// A slice as the data plane numbers it, `1..=16383`. [`SliceId::DEFAULT`] is the slice of
/// endpoints that no slice names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SliceId(pub u16);

impl SliceId {
    pub const DEFAULT: Self = Self(1);
    /// The outer source address would carry 16 bits; beyond this are sets of slices.
    pub const MAX: Self = Self(16_383);
}

/// The slices an endpoint is in, as one number: `1..=16383` is the one slice of that id,
/// `16384..=65535` a set of several that the controller numbered. Routes are looked up by it,
/// so that traffic between two endpoints finds the slice they share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SliceSet(pub u16);

/// An endpoint that has rates of its own in some slice, `1..=65535`; one number on all switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub u16);

impl EndpointId {
    /// It has no rates of its own.
    pub const NONE: Self = Self(0);
}

/// By which rules know some endpoints, `1..=65535`; several may have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointTag(pub u16);

impl EndpointTag {
    pub const NONE: Self = Self(0);
}

/// A path policy of one ingress switch, `1..=65535`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId(pub u32);

/// A compute hook resident on one switch, `0..=255`; its function id is [`hook_function`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HookId(pub u16);

/// Function id of `uDT46`: decapsulate and deliver in the slice that the outer source names.
pub const FUNCTION_UDT46: u16 = 0xE001;
/// Function id of hook 0's `uCompute`; hook `n` is at `+ n`.
pub const FUNCTION_UCOMPUTE: u16 = 0xE100;

/// Function id of `uCompute` for `hook`.
pub const fn hook_function(hook: HookId) -> u16 {
    FUNCTION_UCOMPUTE + hook.0
}

/// Scheduling class, by rising priority; the value is carried in the outer traffic class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    BestEffort = 0,
    Guaranteed = 1,
    Urllc = 2,
}

/// Which of a slice's two totals a packet counts against (TS 28.541: dLThptPerSlice,
/// uLThptPerSlice). Traffic sent by a `ue` is uplink, by a `dn` downlink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    Downlink = 0,
    Uplink = 1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortKind {
    /// Towards endpoints: bare IP, sources checked, no SRv6 accepted (RFC 8754 §5.1).
    Access,
    /// Towards other switches: SRv6 only.
    Fabric,
}

/// Key `port`. A port without an entry drops everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortEntry {
    pub port: PortId,
    pub kind: PortKind,
}

/// Key `port, prefix` (longest prefix). Who may send from this port, and in which slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointEntry {
    pub port: PortId,
    pub prefix: IpNet,
    pub slice_set: SliceSet,
    pub direction: Direction,
    /// Whose uplink rates hold.
    pub endpoint: EndpointId,
    pub tag: EndpointTag,
}

/// An application traffic rule. Key `priority`: one rule a priority, the highest that
/// matches decides; at most 1,024 rules on a switch. `None` matches anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassifierEntry {
    pub priority: u32,
    pub source: Option<IpNet>,
    pub destination: Option<IpNet>,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// First and last, not all; of TCP, UDP and SCTP. Packets that show no ports do not match.
    pub source_ports: Option<[u16; 2]>,
    pub destination_ports: Option<[u16; 2]>,
    pub dscp: Option<u8>,
    /// What the sender is bound to, by `endpoint` or `gtp_session`.
    pub slice_set: Option<SliceSet>,
    /// Of the sender; not 0.
    pub endpoint_tag: Option<EndpointTag>,
    /// TEID of the GTP-U tunnel that the packet comes in; not 0.
    pub tunnel_id: Option<u32>,
    pub action: ClassifierAction,
}

impl ClassifierEntry {
    /// Of every packet.
    pub const fn any(priority: u32, action: ClassifierAction) -> Self {
        Self {
            priority,
            source: None,
            destination: None,
            protocol: None,
            source_ports: None,
            destination_ports: None,
            dscp: None,
            slice_set: None,
            endpoint_tag: None,
            tunnel_id: None,
            action,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClassifierAction {
    Drop,
    Pass,
    /// Route in this slice instead of the endpoint's own set.
    SetSlice(SliceId),
    /// Give the user's packet this DSCP, `0..=63`, and route it in the endpoint's own slices.
    Mark(u8),
    /// Route in the endpoint's own slices, but go by this policy in place of the route's, also
    /// where the route says that the destination is on this switch.
    Steer(PolicyId),
}

/// Key `slice_set, prefix` (longest prefix). Where a destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SliceRouteEntry {
    pub slice_set: SliceSet,
    pub prefix: IpNet,
    pub slice: SliceId,
    pub action: RouteAction,
    /// Whose downlink rates hold.
    pub endpoint: EndpointId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteAction {
    /// On this switch: look up `delivery`.
    Local,
    Policy(PolicyId),
}

/// Key `slice, direction`. A slice and direction without an entry is best effort, unmetered.
/// A packet within `guaranteed_bps` is in profile; beyond it but within `maximum_bps` it is
/// excess; beyond that it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SliceMeterEntry {
    pub slice: SliceId,
    pub direction: Direction,
    pub class: Class,
    /// `0`: everything is excess.
    pub guaranteed_bps: u64,
    pub guaranteed_burst_bytes: u32,
    /// `0`: no maximum.
    pub maximum_bps: u64,
    pub maximum_burst_bytes: u32,
}

/// Key `slice, direction, endpoint`. Rates of one endpoint's own, of which packets meet one: in the
/// uplink those of who sends, in the downlink those of whom it is for. What is within
/// `guaranteed_bps` is within the slice's guarantee, whatever else is charged to that; beyond it
/// but within `maximum_bps` it is excess; beyond that it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointMeterEntry {
    pub slice: SliceId,
    pub direction: Direction,
    pub endpoint: EndpointId,
    /// `0`: it shares the slice's guarantee with others that have none of their own.
    pub guaranteed_bps: u64,
    pub guaranteed_burst_bytes: u32,
    /// `0`: no maximum.
    pub maximum_bps: u64,
    pub maximum_burst_bytes: u32,
}

/// Key `policy`. One to eight paths, of which each flow takes one and stays on it; see
/// [`crate::paths`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyEntry {
    pub policy: PolicyId,
    pub paths: Vec<Path>,
}

impl PolicyEntry {
    /// All packets take one path.
    pub fn one(policy: PolicyId, sids: Vec<u16>) -> Self {
        Self { policy, paths: vec![Path { sids, weight: 1 }] }
    }
}

/// Up to six 16-bit ids after the block, in travelling order; the last two are the egress node
/// and its function.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    pub sids: Vec<u16>,
    /// `1..=128`. A path gets its weight's share of the flows, to the nearest of 128 parts, and
    /// one part at least.
    pub weight: u8,
}

/// Key `sid`: what this switch does when the active 16-bit id is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalSidEntry {
    pub sid: u16,
    pub action: LocalSidAction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LocalSidAction {
    /// `uN` (RFC 9800 §4.1): this switch's own node id; shift and go on. One per switch; it
    /// is also the id that outer sources carry.
    Node,
    /// `uDT46`.
    Decapsulate,
    /// `uCompute`: hand to the hook's compute port; when it is down, as `on_failure` says.
    Compute { hook: HookId, on_failure: OnFailure },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnFailure {
    Bypass,
    Drop,
}

/// Key `node`. The way to another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHopEntry {
    pub node: NodeSid,
    pub port: PortId,
    /// MAC address of the neighbor's port.
    pub mac: [u8; 6],
    /// Which backup of the port leads on while it is down, `1..=127`; 0: none.
    pub backup: u8,
}

/// Key `port, backup`. The way around a port while it is down, for the next hops that name it:
/// out of another port, with up to four ids before the packet's own. A packet is led around one
/// failure, not two.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupEntry {
    /// The port that is down.
    pub around: PortId,
    /// `1..=127`.
    pub backup: u8,
    pub port: PortId,
    /// MAC address of the neighbor's port.
    pub mac: [u8; 6],
    /// In travelling order; none where the neighbor's own way is clear of what failed.
    pub sids: Vec<u16>,
}

/// Key `slice, prefix` (longest prefix). The last step: an endpoint on one of our ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryEntry {
    pub slice: SliceId,
    pub prefix: IpNet,
    pub port: PortId,
    /// Of the endpoint or, with a tunnel, of the gNB or the router towards it.
    pub mac: [u8; 6],
    /// The endpoint is a UE behind this.
    pub tunnel: Option<Box<Tunnel>>,
}

/// The downlink half of a PDU session's N3 tunnel (GTP-U, TS 29.281).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tunnel {
    /// This switch's own address. Of the same IP version as `gnb`.
    pub local: IpAddr,
    pub gnb: IpAddr,
    /// That the gNB has given; not 0.
    pub teid: u32,
    /// QoS flow identifier, `0..=63` (TS 38.415 §5.5.3.3).
    pub qfi: u8,
    /// Bytes of IP that the way to the gNB carries, headers of the tunnel included; a packet
    /// that is longer is dropped.
    pub mtu: u16,
}

impl Tunnel {
    /// Bytes that the tunnel puts before a packet: IP, UDP, and GTP-U with a PDU session
    /// container.
    pub const fn overhead(&self) -> usize {
        match self.gnb {
            IpAddr::V4(_) => 20 + 8 + 16,
            IpAddr::V6(_) => 40 + 8 + 16,
        }
    }
}

/// Key `address`. An address of this switch on N3 (TS 23.501 §4.2.6), the same on all access
/// ports: it answers ARP, neighbor solicitations and GTP-U there. At most four.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct N3AddressEntry {
    pub address: IpAddr,
}

/// Key `teid`: that this switch has given to the uplink half of a PDU session's N3 tunnel, one for
/// all of its addresses; not 0. What comes through it is the UE's, as if `endpoint` had bound it.
/// A switch holds 131,072, so that 100,000 can be changed make before break by the third.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GtpSessionEntry {
    pub teid: u32,
    /// Where it must come in, and from whom.
    pub port: PortId,
    pub gnb: IpAddr,
    /// What the UE may send from; at least one.
    pub ue_ipv4: Option<Ipv4Addr>,
    /// A UE has a prefix, of 64 bits mostly (TS 23.501 §5.8.2.2.3).
    pub ue_ipv6: Option<Ipv6Net>,
    pub slice_set: SliceSet,
    pub direction: Direction,
    /// QoS flows that may be used: bit `n` is QFI `n`. `0`: any, and none.
    pub qfis: u64,
    /// Whose uplink rates hold.
    pub endpoint: EndpointId,
    pub tag: EndpointTag,
}

/// Key `port`. The virtual queue of an egress port, in bytes on the wire. Without an entry
/// the port is not limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortQueueEntry {
    pub port: PortId,
    /// Drain rate: the link's capacity times 0.97.
    pub rate_bps: u64,
    /// Excess of a class passes while the backlog is below its threshold; ECN-capable
    /// packets are marked above half of it. Index: [`Class`].
    pub threshold_bytes: [u32; 3],
    /// A class with a rate is queued by the kernel's HTB at this rate (bit/s of frames, not above
    /// `rate_bps`), and then what waits there is its backlog. 0: it is not. Index: [`Class`].
    pub shaped_bps: [u64; 3],
}

/// One row. The generation of the intent that this switch's entries carry out; written last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GenerationEntry {
    pub generation: u64,
}

/// Large kinds are boxed: a controller holds millions of entries, nearly all of the small kinds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entry {
    Port(PortEntry),
    Endpoint(EndpointEntry),
    Classifier(Box<ClassifierEntry>),
    SliceRoute(SliceRouteEntry),
    SliceMeter(SliceMeterEntry),
    Policy(PolicyEntry),
    LocalSid(LocalSidEntry),
    NextHop(NextHopEntry),
    Backup(BackupEntry),
    Delivery(DeliveryEntry),
    PortQueue(PortQueueEntry),
    Generation(GenerationEntry),
    N3Address(N3AddressEntry),
    GtpSession(Box<GtpSessionEntry>),
    EndpointMeter(EndpointMeterEntry),
}

/// What an entry matches; at most one entry of a switch has a given key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    Port(PortId),
    Endpoint(PortId, IpNet),
    Classifier(u32),
    SliceRoute(SliceSet, IpNet),
    SliceMeter(SliceId, Direction),
    Policy(PolicyId),
    LocalSid(u16),
    NextHop(NodeSid),
    Backup(PortId, u8),
    Delivery(SliceId, IpNet),
    PortQueue(PortId),
    Generation,
    N3Address(IpAddr),
    GtpSession(u32),
    EndpointMeter(SliceId, Direction, EndpointId),
}

impl Entry {
    pub fn key(&self) -> Key {
        match self {
            Self::Port(e) => Key::Port(e.port),
            Self::Endpoint(e) => Key::Endpoint(e.port, e.prefix),
            Self::Classifier(e) => Key::Classifier(e.priority),
            Self::SliceRoute(e) => Key::SliceRoute(e.slice_set, e.prefix),
            Self::SliceMeter(e) => Key::SliceMeter(e.slice, e.direction),
            Self::Policy(e) => Key::Policy(e.policy),
            Self::LocalSid(e) => Key::LocalSid(e.sid),
            Self::NextHop(e) => Key::NextHop(e.node),
            Self::Backup(e) => Key::Backup(e.around, e.backup),
            Self::Delivery(e) => Key::Delivery(e.slice, e.prefix),
            Self::PortQueue(e) => Key::PortQueue(e.port),
            Self::Generation(_) => Key::Generation,
            Self::N3Address(e) => Key::N3Address(e.address),
            Self::GtpSession(e) => Key::GtpSession(e.teid),
            Self::EndpointMeter(e) => Key::EndpointMeter(e.slice, e.direction, e.endpoint),
        }
    }
}

/// The any-cast gateway that every switch answers for on every access port, so that an
/// endpoint keeps its configuration when it moves.
pub mod gateway {
    use super::IpAddr;
    use std::net::{Ipv4Addr, Ipv6Addr};

    pub const MAC: [u8; 6] = [0x02, 0x5E, 0x1F, 0x00, 0x00, 0x01];
    pub const IPV4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
    pub const IPV6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    pub fn is(address: IpAddr) -> bool {
        address == IPV4 || address == IPV6
    }
}
