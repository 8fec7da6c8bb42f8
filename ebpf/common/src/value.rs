//! Values of the maps. A value keeps what the program needs in the form it needs, and what
//! the agent wrote, so that entries are read back as they were.

use core::mem::size_of;

use crate::{GENERATOR_HEAD_LEN, N3_ADDRESSES, Plain, SAMPLE_ADDRESSES, SAMPLE_HEAD};

/// Asserts the size of a map value and that no padding is hidden in it.
macro_rules! plain {
    ($($name:ty = $bytes:literal),* $(,)?) => {$(
        const _: () = assert!(size_of::<$name>() == $bytes);
        // SAFETY: `repr(C)`, integers and arrays of them only; the size, asserted above, is
        // the sum of the fields, so that no padding is hidden.
        unsafe impl Plain for $name {}
    )*};
}

plain! {
    ConfigValue = 104,
    FactsValue = 32,
    PortName = 16,
    PortValue = 16,
    DeviceValue = 8,
    PrefixValue = 16,
    MeterValue = 64,
    MeterState = 64,
    EndpointMeterValue = 128,
    PolicyValue = 40,
    PathSetValue = 272,
    SidValue = 16,
    BackupValue = 40,
    GnbValue = 48,
    ProfileValue = 48,
    QueueValue = 64,
    ShaperValue = 72,
    ShapedMeta = 16,
    QueueState = 64,
    HookValue = 16,
    PortCounters = 184,
    SliceCounters = 104,
    HookCounters = 64,
    Scratch = 376,
    SampleValue = 152,
    SeenEvent = 24,
    HeadValue = 80,
    PatchValue = 16,
    HeadNext = 24,
    ProbeValue = 2048,
}

/// `CONFIG`, one: what concerns every packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConfigValue {
    /// First eight bytes of outer source addresses, in wire order: block, this node's id, mark.
    pub source: u64,
    /// Own addresses on N3, in wire order; 0: none.
    pub n3: [[u64; 2]; N3_ADDRESSES],
    /// Not 0: rates are enforced.
    pub metering: u32,
    /// Rules in force: how many (15..0), and in which half of their maps (16). Read once for a
    /// packet.
    pub rules: u32,
    /// 0: the `*_PREFIX` map is empty, and not looked into.
    pub endpoint_prefixes: u32,
    pub route_prefixes: u32,
    pub delivery_prefixes: u32,
    /// What packets that enter now are marked with, 0 or 1: see [`PortCounters::rx_marked`].
    pub mark: u32,
    /// 0: there is no address in `n3`.
    pub n3_addresses: u32,
    /// Kernel's id of the map `DEVICE`, by which it says what it could not redirect.
    pub device_map: u32,
}

impl ConfigValue {
    pub const fn rules(bank: u32, count: u32) -> u32 {
        (bank & 1) << 16 | count & 0xffff
    }
}

/// Bank and count of [`ConfigValue::rules`].
#[inline(always)]
pub const fn rules_in_force(rules: u32) -> (u32, u32) {
    (rules >> 16 & 1, rules & 0xffff)
}

/// `FACTS`, one: what the switch remembers for its controllers (DESIGN §3).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FactsValue {
    pub generation: u64,
    pub election_low: u64,
    pub election_high: u64,
    /// [`FactsValue::HAS_GENERATION`], [`FactsValue::HAS_ELECTION`].
    pub flags: u64,
}

impl FactsValue {
    pub const HAS_GENERATION: u64 = 1;
    pub const HAS_ELECTION: u64 = 2;
}

/// `PORT_NAME` by port id: the name that has the id, NUL-padded; all zero when it is free.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortName(pub [u8; 16]);

/// `PORT` by port id or compute port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortValue {
    /// See [`mac_word`](crate::mac_word).
    pub mac: u64,
    /// 0: no interface.
    pub ifindex: u32,
    /// `PORT_*`. Unknown values drop.
    pub kind: u8,
    /// Of a compute port.
    pub hook: u8,
    pub _pad: [u8; 2],
}

/// No `port` entry: drops everything.
pub const PORT_NONE: u8 = 0;
pub const PORT_ACCESS: u8 = 1;
pub const PORT_FABRIC: u8 = 2;
pub const PORT_COMPUTE: u8 = 3;

/// `DEVICE` by egress port: `struct bpf_devmap_val` of linux/bpf.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceValue {
    pub ifindex: u32,
    /// A program to run at the egress; 0: none.
    pub program_fd: u32,
}

/// `*_PREFIX` by scope and prefix.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixValue {
    /// As in a row of the same table: see [`exact`](crate::exact).
    pub data: u64,
    /// As in [`PrefixKey`](crate::key::PrefixKey): tells the agent whether what a trie found
    /// is what it asked for.
    pub bits: u64,
}

/// What `endpoint` says of a source: one word of its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointData {
    pub slice_set: u16,
    pub direction: u8,
    /// By which `ENDPOINT_METER` knows it; 0: it has no rates of its own.
    pub endpoint: u16,
    /// Of it in rules; 0: none.
    pub tag: u16,
}

impl EndpointData {
    pub const fn pack(self) -> u64 {
        (self.tag as u64) << 48
            | (self.endpoint as u64) << 32
            | (self.direction as u64) << 16
            | self.slice_set as u64
    }

    #[inline(always)]
    pub const fn unpack(word: u64) -> Self {
        let (slice_set, direction) = (word as u16, (word >> 16) as u8);
        let (endpoint, tag) = ((word >> 32) as u16, (word >> 48) as u16);
        Self { slice_set, direction, endpoint, tag }
    }
}

/// What `slice_route` says of a destination: one word of its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteData {
    /// 0: local.
    pub policy: u32,
    pub slice: u16,
    /// As in [`EndpointData`], of the destination.
    pub endpoint: u16,
}

impl RouteData {
    pub const fn pack(self) -> u64 {
        (self.endpoint as u64) << 48 | (self.slice as u64) << 32 | self.policy as u64
    }

    #[inline(always)]
    pub const fn unpack(word: u64) -> Self {
        let (policy, slice) = (word as u32, (word >> 32) as u16);
        Self { policy, slice, endpoint: (word >> 48) as u16 }
    }
}

/// What `delivery` says of a destination, one word of its rows: a [`way`] without a backup, or,
/// with the highest bit set, a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelData {
    /// That the gNB has given.
    pub teid: u32,
    pub qfi: u8,
    /// Of `GNB`.
    pub gnb: u16,
}

impl TunnelData {
    pub const fn pack(self) -> u64 {
        1 << 63 | (self.qfi as u64 & 0x3f) << 48 | (self.gnb as u64) << 32 | self.teid as u64
    }

    #[inline(always)]
    pub const fn unpack(word: u64) -> Option<Self> {
        if word >> 63 == 0 {
            return None;
        }
        Some(Self { teid: word as u32, qfi: (word >> 48) as u8 & 0x3f, gnb: (word >> 32) as u16 })
    }
}

/// What `gtp_session` says of a TEID: one word of its rows. What the UE sends from over IPv6 is in
/// `SESSION_V6`, if [`ProfileValue::ipv6_bits`] is not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionData {
    /// What it sends from over IPv4, in wire order; 0: nothing.
    pub ipv4: u32,
    /// Of `PROFILE`.
    pub profile: u16,
    /// As in [`EndpointData`].
    pub endpoint: u16,
}

impl SessionData {
    pub const fn pack(self) -> u64 {
        (self.endpoint as u64) << 48 | (self.profile as u64) << 32 | self.ipv4 as u64
    }

    #[inline(always)]
    pub const fn unpack(word: u64) -> Self {
        let (ipv4, profile) = (word as u32, (word >> 32) as u16);
        Self { ipv4, profile, endpoint: (word >> 48) as u16 }
    }
}

/// `METER` by slice and direction.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeterValue {
    /// [`cost_x256`](crate::rate::cost_x256); 0: everything is excess.
    pub guaranteed_cost: u64,
    pub guaranteed_tolerance_ps: u64,
    /// 0: no maximum.
    pub maximum_cost: u64,
    pub maximum_tolerance_ps: u64,
    pub guaranteed_bps: u64,
    pub maximum_bps: u64,
    pub guaranteed_burst_bytes: u32,
    pub maximum_burst_bytes: u32,
    /// `CLASS_*`.
    pub class: u8,
    /// 0: no entry.
    pub present: u8,
    pub _pad: [u8; 2],
    /// See [`prepay_bytes`](crate::rate::prepay_bytes).
    pub prepay_bytes: u32,
}

pub const CLASS_BEST_EFFORT: u8 = 0;
pub const CLASS_GUARANTEED: u8 = 1;
pub const CLASS_URLLC: u8 = 2;

/// `METER_STATE`: theoretical arrival times, picoseconds; a cache line of its own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeterState {
    pub guaranteed_ps: u64,
    pub maximum_ps: u64,
    pub _pad: [u64; 6],
}

/// `ENDPOINT_METER` by [`endpoint_meter_key`](crate::endpoint_meter_key): rates of one endpoint
/// within its slice. An update writes both, so what packets charge meanwhile is forgotten.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointMeterValue {
    /// Without a class, and nothing is paid in advance. Cost 0: the slice's guarantee is shared.
    pub meter: MeterValue,
    pub state: MeterState,
}

/// `POLICY` by policy id.
///
/// A syscall writes an array element word by word, so a new path is written to the idle bank
/// first and made the active one by a second write: each packet takes one path whole. The agent
/// waits for packets that may still look at a bank before it writes there again.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyValue {
    /// Outer destination addresses, in wire order.
    pub destination: [[u64; 2]; 2],
    /// The bank in force.
    pub active: u32,
    /// Ids in each bank's address; 0: no entry. [`SEVERAL`]: there are several paths, in
    /// `PATH_SET`. The address is the first one's, for packets that no longer find the set.
    pub sids: [u8; 2],
    /// One less than that of the only path. It has no meaning here, and is read back.
    pub more_weight: [u8; 2],
}

/// In [`PolicyValue::sids`].
pub const SEVERAL: u8 = 0xff;

/// `PATH_SET` by policy id: the paths of a policy that has several. A hash map's element is
/// replaced as a whole, so each packet sees the set before or after.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathSetValue {
    /// Outer destination addresses, in wire order.
    pub destination: [[u64; 2]; MAX_PATHS],
    /// Which path the flows of a bucket take; see [`flow_bucket`].
    pub buckets: [u8; FLOW_BUCKETS],
    /// Ids in each address; 0 behind the last path.
    pub sids: [u8; MAX_PATHS],
    pub weight: [u8; MAX_PATHS],
}

/// Paths of one policy.
pub const MAX_PATHS: usize = 8;
/// What the flows of a policy with several paths are divided into; a power of two.
pub const FLOW_BUCKETS: usize = 128;

/// By the flow's label, as the outer header carries it.
#[inline(always)]
pub const fn flow_bucket(label: u32) -> usize {
    label as usize & (FLOW_BUCKETS - 1)
}

/// `SID` by [`sid_slot`](crate::sid_slot): entries of `local_sid` and `next_hop`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SidValue {
    /// Next hop, see [`way`] and [`backed`]; 0: no `next_hop` entry.
    pub way: u64,
    /// `SID_*`; [`SID_NONE`]: no `local_sid` entry.
    pub local: u8,
    pub hook: u8,
    /// Not 0: packets pass a hook that is not running.
    pub bypass: u8,
    pub _pad: [u8; 5],
}

/// A neighbor's MAC address (low 48 bits, in wire order) and the port that leads to it, in
/// one word, so that a packet never sees one of the two old and the other new.
#[inline(always)]
pub const fn way(port: u16, mac: [u8; 6]) -> u64 {
    crate::mac_word(mac) | (port as u64) << 48
}

/// The same with a backup of that port, for while it is down; 0: none.
#[inline(always)]
pub const fn backed(way: u64, backup: u8) -> u64 {
    way | (backup as u64) << 57
}

/// Below 512.
#[inline(always)]
pub const fn way_port(way: u64) -> u16 {
    (way >> 48) as u16 & 0x1ff
}

/// At most 127.
#[inline(always)]
pub const fn way_backup(way: u64) -> u8 {
    (way >> 57) as u8
}

#[inline(always)]
pub const fn way_mac(way: u64) -> [u8; 6] {
    crate::mac_bytes(way)
}

pub const SID_NONE: u8 = 0;
pub const SID_NODE: u8 = 1;
pub const SID_DECAPSULATE: u8 = 2;
pub const SID_COMPUTE: u8 = 3;

/// `PORT_STATE` by port: frames can be sent there. Anything else: they cannot, and go around.
pub const PORT_UP: u32 = 0;
pub const PORT_DOWN: u32 = 1;

/// `BACKUP` by [`backup_slot`](crate::backup_slot): the way around a port that is down, to where
/// packets are on their way again. Looked at only then. Two banks, as in [`PolicyValue`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackupValue {
    /// See [`way`]; 0: no entry.
    pub way: [u64; 2],
    /// Ids that come before the packet's own, as a number, the first in the highest 16 bits.
    pub repair: [u64; 2],
    /// The bank in force.
    pub active: u32,
    /// Ids in each bank, at most [`MAX_REPAIR_SIDS`](crate::MAX_REPAIR_SIDS).
    pub sids: [u8; 2],
    pub _pad: [u8; 2],
}

/// `GNB`: an end of tunnels that lead to UEs. Those that differ in nothing but TEID and QFI share
/// one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GnbValue {
    /// To the gNB; see [`way`].
    pub way: u64,
    /// Outer addresses, in wire order; IPv4 is IPv4-mapped.
    pub local: [u64; 2],
    pub peer: [u64; 2],
    /// Longest outer packet, bytes.
    pub mtu: u16,
    /// [`TUNNEL_V4`] or [`TUNNEL_V6`]; 0: none is here.
    pub overhead: u8,
    pub _pad: [u8; 5],
}

/// Bytes that a tunnel puts before a packet: IPv4 or IPv6, UDP, and GTP-U with a PDU session
/// container.
pub const TUNNEL_V4: u8 = 20 + 8 + 16;
pub const TUNNEL_V6: u8 = 40 + 8 + 16;

/// `PROFILE`: what PDU sessions of one gNB and one kind have in common, for the uplink.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProfileValue {
    /// The gNB's address, in wire order; IPv4 is IPv4-mapped.
    pub peer: [u64; 2],
    /// Which bits of the UE's IPv6 prefix count.
    pub ipv6_mask: [u64; 2],
    /// Bit `n`: QFI `n`; 0: not asked for.
    pub qfis: u64,
    pub slice_set: u16,
    /// The only port where they come in; 0: none is here.
    pub port: u8,
    pub direction: u8,
    /// Length of the IPv6 prefix; 0: nothing is sent from there.
    pub ipv6_bits: u8,
    pub _pad: u8,
    /// As in [`EndpointData`].
    pub tag: u16,
}

/// `QUEUE` by egress port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueValue {
    /// [`cost_x256`](crate::rate::cost_x256); 0: no entry, not limited.
    pub cost: u64,
    /// By class.
    pub threshold_ps: [u64; 3],
    pub rate_bps: u64,
    pub threshold_bytes: [u32; 3],
    /// See [`prepay_bytes`](crate::rate::prepay_bytes).
    pub prepay_bytes: u32,
    /// Bit `n`: class `n` leaves through the kernel's HTB, see [`ShaperValue`].
    pub shaped: u32,
    pub _pad: u32,
}

/// `SHAPER` by port: the classes that leave through the kernel's HTB. What is admitted to a class
/// waits in its queue there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShaperValue {
    /// By class: [`cost_x256`](crate::rate::cost_x256) of the rate at which it is drained.
    pub cost: [u64; 3],
    /// Excess is admitted while less waits; what is in profile, below
    /// [`MAX_BACKLOG_PS`](crate::rate::MAX_BACKLOG_PS).
    pub threshold_ps: [u64; 3],
    /// 0: not shaped.
    pub rate_bps: [u64; 3],
}

/// What a frame that goes to HTB has before it, for the program `shaped` at the kernel's ingress.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShapedMeta {
    pub ifindex: u32,
    /// `TC_H_MAKE` of the class.
    pub priority: u32,
    /// Of no two frames the same, so that the kernel does not put them together (GRO).
    pub nonce: u64,
}

/// `QUEUE_STATE` (and `EVENT_RATE`, `GTP_RATE`, `ICMP_RATE`, `HOST_RATE`, `SAMPLE_RATE`): a
/// theoretical arrival time, on a cache line of its own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueState {
    pub tat_ps: u64,
    /// By class, of a port's: when HTB will have sent what it was given.
    pub class_tat_ps: [u64; 3],
    pub _pad: [u64; 4],
}

/// `HOOK` by hook id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HookValue {
    /// `HOOK_*`; all but [`HOOK_RUNNING`] are passed by or dropped.
    pub state: u32,
    /// The end that carries the entry program.
    pub switch_ifindex: u32,
    /// The end that carries the hook's socket.
    pub socket_ifindex: u32,
    pub _pad: u32,
}

/// No hook of that id is loaded.
pub const HOOK_NONE: u32 = 0;
pub const HOOK_RUNNING: u32 = 1;
pub const HOOK_DOWN: u32 = 2;
pub const HOOK_QUARANTINED: u32 = 3;

/// `PORT_COUNTERS`, for each CPU. Bytes are those of whole frames.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    /// Given to the device.
    pub tx_packets: u64,
    pub tx_bytes: u64,
    /// Of those in an outer header, by its mark. The mark alternates (RFC 9341 §3): packets of
    /// one that is not given any more are all sent, and what its count at the far end of a link
    /// lacks is lost.
    pub rx_marked: [u64; 2],
    pub tx_marked: [u64; 2],
    /// Charged to the port's queue and not sent yet. No counter.
    pub prepaid_bytes: u64,
    /// Frames given to the device, and of them those whose end is known, modulo 2^32: see
    /// [`flight`](crate::flight). No counters.
    pub given: u32,
    pub settled: u32,
    /// Of those given to the device: what it sent, and what it did not. The rest is on its way.
    pub left_packets: u64,
    pub left_bytes: u64,
    pub failed_packets: u64,
    pub failed_bytes: u64,
    /// Answers from here that the device did not send; in no other count of the port.
    pub failed_answers: u64,
    /// Bytes of the last frames given, by their number modulo [`flight::KEPT`](crate::flight::KEPT);
    /// 0 of an answer.
    pub lengths: [u16; crate::flight::KEPT as usize],
}

/// `SLICE_COUNTERS` by slice and direction, for each CPU. Bytes are the user's IP bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SliceCounters {
    /// Entered here, at an access port.
    pub packets: u64,
    pub bytes: u64,
    /// Dropped here, wherever they entered.
    pub dropped_packets: u64,
    pub dropped_bytes: u64,
    /// Delivered here to an endpoint.
    pub delivered_packets: u64,
    pub delivered_bytes: u64,
    /// Packets in profile that entered and were delivered here, by mark.
    pub entered: [u64; 2],
    pub left: [u64; 2],
    /// Packets in profile that were dropped here, and why the last one was.
    pub lost: u64,
    pub lost_reason: u64,
    /// Charged to the slice's rates and not sent yet. No counter.
    pub prepaid_bytes: u64,
}

/// `HOOK_COUNTERS` by hook id, for each CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HookCounters {
    /// Redirected to the compute port. Bytes are those of whole frames.
    pub to_packets: u64,
    pub to_bytes: u64,
    /// Came back from it.
    pub from_packets: u64,
    pub from_bytes: u64,
    /// Passed by or dropped because the hook was not running.
    pub bypassed: u64,
    pub refused: u64,
    /// Were on their way to the socket when it went; dropped as `hook_down`.
    pub no_socket: u64,
    pub _pad: u64,
}

/// `SCRATCH`, one for each CPU: what a packet carries from stage to stage, the packets that
/// neither left nor were dropped, and, for test runs, how the last one ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scratch {
    /// Handed to the kernel's stack.
    pub passed: u64,
    /// Answered from here: ARP, neighbor solicitations, GTP-U.
    pub answered: u64,
    /// Picoseconds; 0: not read yet.
    pub now_ps: u64,
    /// What is behind the extension headers: [`TRANSPORT_KNOWN`], whether it is a fragment (41),
    /// whether there are ports (40), the protocol (39..32), the ports (31..0). 0: nobody has looked.
    pub transport: u64,
    /// What the classifier came to: 1 for no rule, else the place of a rule plus 2 (31..0); or
    /// the leaf that comes next (63..32) and the slice set (15..0). 0: nobody has looked.
    pub classified: u64,
    /// Ingress port.
    pub port: u32,
    /// 0: not known yet.
    pub slice: u16,
    pub direction: u8,
    /// `PORT_*` of the ingress port.
    pub kind: u8,
    /// Not 0: this switch has just written the outer header.
    pub fresh: u8,
    /// Not 0: within the guarantee of its slice.
    pub in_profile: u8,
    /// What the packet is marked with where it enters: see [`PortCounters::rx_marked`].
    pub mark: u8,
    /// `SAMPLE_*`. It, the three before and nothing else are one aligned word.
    pub sampled: u8,
    /// Bytes of the user's packet, once the slice is known.
    pub len: u32,
    /// `END_*`.
    pub end: u32,
    /// With [`END_FORWARDED`] the egress port, with [`END_DROPPED`] the reason.
    pub detail: u32,
    /// Of a packet that leaves in a tunnel: see [`TunnelData`]. Before that is known: see
    /// [`origin`](crate::rule::origin), of a packet that came in one, or that many rules are about.
    pub tunnel: u64,
    /// Of its flow, as in an outer header; with `notice`, the longest packet that would have gone.
    pub label: u32,
    /// Of a packet out of a PDU session: what `endpoint` would say; 0: it came in by itself.
    pub slice_set: u16,
    /// `SHAPED_*`, and 1 plus the class of a packet that leaves through HTB; 0: it does not.
    pub shaped: u8,
    /// What its sender is told of a packet that goes no further. It, the two before and nothing
    /// else are one aligned word.
    pub notice: u8,
    /// Of a packet out of a PDU session, with `slice_set`: see [`EndpointData`].
    pub endpoint: u16,
    /// Outer DSCP of a packet that leaves in a tunnel.
    pub dscp: u8,
    pub _pad2: [u8; 5],
    /// Of a packet that may be told of: when it came, on the kernel's monotonic clock.
    pub at_ns: u64,
    /// Of what no switch changes of it: see [`SampleValue::most`].
    pub digest: u64,
    /// [`SampleValue::id`].
    pub sample_id: u32,
    /// The XDP action that it ended with.
    pub action: u32,
    /// Bytes of the frame as it came.
    pub frame_len: u32,
    /// Of them, those in `head`.
    pub head_len: u32,
    /// How the frame began as it came, in wire order.
    pub head: [u64; SAMPLE_HEAD / 8],
}

/// The class, plus 1.
pub const SHAPED_CLASS: u8 = 3;
/// The packet leaves to its endpoint; else in an outer header.
pub const SHAPED_DELIVERED: u8 = 4;
/// What it is marked with: see [`PortCounters::tx_marked`].
pub const SHAPED_MARK: u8 = 8;

/// The head of the frame is kept.
pub const SAMPLE_KEPT: u8 = 1;
/// The packet is told of.
pub const SAMPLE_CHOSEN: u8 = 2;

/// `SAMPLE`, one: which packets are told of, while samplers are in the tail-call map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampleValue {
    /// On the kernel's monotonic clock; nothing is chosen from then on.
    pub until_ns: u64,
    /// Addresses of users' packets, in wire order, IPv4 IPv4-mapped; none: any.
    pub source: [[u64; 2]; SAMPLE_ADDRESSES],
    pub destination: [[u64; 2]; SAMPLE_ADDRESSES],
    /// Of digests' low halves; 1 in N is 2^32 / N. So every switch chooses the same packets
    /// (RFC 5475 §6.2, hash-based filtering).
    pub most: u32,
    /// Of the request; it is told with each packet.
    pub id: u32,
    /// 0: any.
    pub slice: u16,
    /// 1 plus the direction; 0: any.
    pub direction: u8,
    pub _pad: [u8; 5],
}

pub const TRANSPORT_KNOWN: u64 = 1 << 63;

pub const END_NONE: u32 = 0;
pub const END_FORWARDED: u32 = 1;
pub const END_DROPPED: u32 = 2;
pub const END_PASSED: u32 = 3;
pub const END_ANSWERED: u32 = 4;

/// Events that one port may raise in a second, and at once.
pub const EVENTS_PER_SECOND: u64 = 100;
/// The same source on the same port is told again after this, in nanoseconds.
pub const RECENT_NS: u64 = 1_000_000_000;

/// Record of the `EVENTS` ring: a source that is not bound to the port it was seen on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeenEvent {
    /// In wire order; IPv4 is IPv4-mapped.
    pub address: [u64; 2],
    /// The frame's source.
    pub mac: [u8; 6],
    pub port: u16,
}

/// What the generator of benches writes over the start of each frame, in wire order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadValue {
    pub words: [u64; GENERATOR_HEAD_LEN / 8],
}

/// What it writes over that, where heads differ little: eight bytes at two places.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchValue(pub [u64; 2]);

/// `HEAD_NEXT`, one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadNext {
    pub number: u32,
    /// One less than the heads in use, a power of two.
    pub heads: u32,
    /// The same of patches; 0: none is in use.
    pub patches: u32,
    /// Where patches go, below 128.
    pub at: [u32; 2],
    pub _pad: u32,
}

/// `PROBE` by port: answers to the test packets sent there, by their sequence number modulo
/// [`PROBES_KEPT`]: see [`probe_answer`]. One word each, so that a reader never sees half.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeValue {
    pub answers: [u64; PROBES_KEPT],
}

impl Default for ProbeValue {
    fn default() -> Self {
        Self { answers: [0; PROBES_KEPT] }
    }
}

/// A power of two.
pub const PROBES_KEPT: usize = 256;

/// Sequence number and two-way delay in nanoseconds, at most 4.29 s. Numbers start at 1.
#[inline(always)]
pub const fn probe_answer(sequence: u32, delay_ns: u64) -> u64 {
    let delay = if delay_ns > u32::MAX as u64 { u32::MAX as u64 } else { delay_ns };
    (sequence as u64) << 32 | delay
}
