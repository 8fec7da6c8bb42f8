//! Every map: name, kind and size, as the object defines it and as a pin is checked.

use core::mem::size_of;

use crate::exact::{self, NarrowLine, WideLine};
use crate::key::{AddressKey, PrefixKey};
use crate::rule::{MAX_RULE_NODES, RuleNode, RuleValue};
use crate::value::*;
use crate::{
    BACKUP_SLOTS, MAX_HOOKS, MAX_PORT_ID, MAX_RULES, POLICY_SLOTS, PORT_SLOTS, SID_SLOTS,
    SLICE_SLOTS, TRACES, drop::REASONS,
};

/// Prefixes of `endpoint`, `slice_route` and `delivery`, each, that are no whole addresses. Of those
/// there are [`MAX_KEYS`](exact::MAX_KEYS) of IPv4 (2.6 MiB) and as many of IPv6 (5.1 MiB), and so
/// many PDU sessions and IPv6 prefixes of theirs.
pub const MAX_PREFIXES: u32 = 131_072;
/// Ends of tunnels to UEs, and kinds of PDU sessions (3 MiB each).
pub const MAX_GNBS: u32 = 65_536;
pub const MAX_PROFILES: u32 = 65_536;
/// Rates of endpoints, by slice and direction, in a hash map that grows with them. 2 MiB while there
/// are none.
pub const MAX_ENDPOINT_METERS: u32 = 131_072;
/// Policies with several paths, in a hash map that grows with them: all of them. 1 MiB while there
/// are none.
pub const MAX_PATH_SETS: u32 = POLICY_SLOTS;
/// Bytes of the event ring.
pub const EVENT_BYTES: u32 = 64 * 1024;
/// Bytes of the ring of sampled packets: those of 1.6 s.
pub const SAMPLE_BYTES: u32 = 128 * 1024;
/// Sources whose events are remembered, so that each is told once a second.
pub const MAX_RECENT: u32 = 1024;
/// Interfaces that may carry our programs, both ends of compute ports included.
pub const MAX_INTERFACES: u32 = 1024;

/// Interface indices below this find their port in an array, the others in a hash.
pub const LOW_IFINDICES: u32 = 4096;

/// `enum bpf_map_type` of linux/bpf.h, those used here.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Hash = 1,
    Array = 2,
    ProgramArray = 3,
    PerCpuArray = 6,
    LruHash = 9,
    LpmTrie = 11,
    DevMap = 14,
    XskMap = 17,
    RingBuf = 27,
}

/// `BPF_F_NO_PREALLOC`: memory grows with the entries.
pub const NO_PREALLOC: u32 = 1;
/// `BPF_F_MMAPABLE`: the agent writes where programs read. Values begin at a page.
pub const MMAPABLE: u32 = 1 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    pub name: &'static str,
    pub kind: Kind,
    pub key_bytes: usize,
    pub value_bytes: usize,
    pub entries: u32,
}

const fn array<V>(name: &'static str, entries: u32) -> Spec {
    Spec { name, kind: Kind::Array, key_bytes: 4, value_bytes: size_of::<V>(), entries }
}

const fn per_cpu<V>(name: &'static str, entries: u32) -> Spec {
    Spec { name, kind: Kind::PerCpuArray, key_bytes: 4, value_bytes: size_of::<V>(), entries }
}

const fn of<K, V>(name: &'static str, kind: Kind, entries: u32) -> Spec {
    Spec { name, kind, key_bytes: size_of::<K>(), value_bytes: size_of::<V>(), entries }
}

const fn narrow(name: &'static str) -> Spec {
    array::<NarrowLine>(name, exact::ROWS / exact::NARROW)
}

const fn wide(name: &'static str) -> Spec {
    array::<WideLine>(name, exact::ROWS / exact::WIDE)
}

const fn displacements(name: &'static str) -> Spec {
    array::<u64>(name, exact::GROUPS / exact::IN_WORD)
}

const fn prefixes(name: &'static str) -> Spec {
    of::<PrefixKey, PrefixValue>(name, Kind::LpmTrie, MAX_PREFIXES)
}

/// The maps that are pinned, so that entries and traffic outlive the agent.
pub const PINNED: &[Spec] = &[
    array::<ConfigValue>("CONFIG", 1),
    array::<FactsValue>("FACTS", 1),
    array::<PortName>("PORT_NAME", PORT_SLOTS),
    array::<u32>("PORT_BY_LOW_IFINDEX", LOW_IFINDICES),
    of::<u32, u32>("PORT_BY_IFINDEX", Kind::Hash, MAX_INTERFACES),
    of::<u32, u32>("HOOK_BY_IFINDEX", Kind::Hash, MAX_INTERFACES),
    array::<PortValue>("PORT", PORT_SLOTS),
    array::<u32>("PORT_STATE", PORT_SLOTS),
    of::<u32, DeviceValue>("DEVICE", Kind::DevMap, PORT_SLOTS),
    narrow("ENDPOINT_V4"),
    displacements("ENDPOINT_V4_AT"),
    wide("ENDPOINT_V6"),
    displacements("ENDPOINT_V6_AT"),
    prefixes("ENDPOINT_PREFIX"),
    array::<RuleValue>("RULE", 2 * MAX_RULES),
    array::<RuleNode>("RULE_NODE", 2 * MAX_RULE_NODES),
    narrow("ROUTE_V4"),
    displacements("ROUTE_V4_AT"),
    wide("ROUTE_V6"),
    displacements("ROUTE_V6_AT"),
    prefixes("ROUTE_PREFIX"),
    array::<MeterValue>("METER", SLICE_SLOTS),
    array::<MeterState>("METER_STATE", SLICE_SLOTS),
    of::<u32, EndpointMeterValue>("ENDPOINT_METER", Kind::Hash, MAX_ENDPOINT_METERS),
    array::<PolicyValue>("POLICY", POLICY_SLOTS),
    of::<u32, PathSetValue>("PATH_SET", Kind::Hash, MAX_PATH_SETS),
    array::<SidValue>("SID", SID_SLOTS),
    array::<BackupValue>("BACKUP", BACKUP_SLOTS),
    narrow("DELIVERY_V4"),
    displacements("DELIVERY_V4_AT"),
    wide("DELIVERY_V6"),
    displacements("DELIVERY_V6_AT"),
    prefixes("DELIVERY_PREFIX"),
    array::<GnbValue>("GNB", MAX_GNBS),
    narrow("SESSION"),
    displacements("SESSION_AT"),
    wide("SESSION_V6"),
    displacements("SESSION_V6_AT"),
    array::<ProfileValue>("PROFILE", MAX_PROFILES),
    array::<QueueValue>("QUEUE", PORT_SLOTS),
    array::<QueueState>("QUEUE_STATE", PORT_SLOTS),
    array::<ShaperValue>("SHAPER", PORT_SLOTS),
    array::<HookValue>("HOOK", MAX_HOOKS as u32),
    of::<u32, u32>("SOCKET", Kind::XskMap, MAX_HOOKS as u32),
    per_cpu::<PortCounters>("PORT_COUNTERS", PORT_SLOTS),
    per_cpu::<SliceCounters>("SLICE_COUNTERS", SLICE_SLOTS),
    per_cpu::<HookCounters>("HOOK_COUNTERS", MAX_HOOKS as u32),
    per_cpu::<u64>("DROPS", REASONS as u32),
    per_cpu::<Scratch>("SCRATCH", 1),
    array::<PortCounters>("PORT_COUNTERS_BASE", PORT_SLOTS),
    array::<SliceCounters>("SLICE_COUNTERS_BASE", SLICE_SLOTS),
    array::<HookCounters>("HOOK_COUNTERS_BASE", MAX_HOOKS as u32),
    array::<u64>("DROPS_BASE", REASONS as u32),
    array::<Scratch>("SCRATCH_BASE", 1),
    of::<u32, u32>("TRACE", Kind::ProgramArray, TRACES),
    Spec {
        name: "EVENTS",
        kind: Kind::RingBuf,
        key_bytes: 0,
        value_bytes: 0,
        entries: EVENT_BYTES,
    },
    Spec {
        name: "SAMPLES",
        kind: Kind::RingBuf,
        key_bytes: 0,
        value_bytes: 0,
        entries: SAMPLE_BYTES,
    },
    array::<SampleValue>("SAMPLE", 1),
    array::<QueueState>("SAMPLE_RATE", 1),
    of::<AddressKey, u64>("RECENT", Kind::LruHash, MAX_RECENT),
    array::<QueueState>("EVENT_RATE", PORT_SLOTS),
    array::<QueueState>("GTP_RATE", PORT_SLOTS),
    array::<QueueState>("ICMP_RATE", PORT_SLOTS),
    array::<QueueState>("HOST_RATE", PORT_SLOTS),
    array::<ProbeValue>("PROBE", MAX_PORT_ID as u32 + 1),
];
