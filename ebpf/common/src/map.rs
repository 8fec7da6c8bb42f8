//! Every map: name, kind and size, as the object defines it and as a pin is checked.

use core::mem::size_of;

use crate::key::{AddressKey, PrefixKey};
use crate::rule::{MAX_RULE_NODES, RuleNode, RuleValue};
use crate::value::*;
use crate::{
    BACKUP_SLOTS, MAX_HOOKS, MAX_PORT_ID, MAX_RULES, POLICY_SLOTS, PORT_SLOTS, SID_SLOTS,
    SLICE_SLOTS, drop::REASONS,
};

// Limits of the table, each for its two maps. Memory grows with the entries, but for 16 bytes
// of a hash map's bucket: 2 MiB for each of the three while they are empty.
pub const MAX_ENDPOINTS: u32 = 131_072;
pub const MAX_ENDPOINT_PREFIXES: u32 = 131_072;
pub const MAX_ROUTES: u32 = 131_072;
pub const MAX_ROUTE_PREFIXES: u32 = 131_072;
pub const MAX_DELIVERIES: u32 = 131_072;
pub const MAX_DELIVERY_PREFIXES: u32 = 131_072;
/// PDU sessions, in a hash map of the same kind.
pub const MAX_SESSIONS: u32 = 131_072;
/// Bytes of the event ring.
pub const EVENT_BYTES: u32 = 64 * 1024;
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
    PerCpuArray = 6,
    LruHash = 9,
    LpmTrie = 11,
    DevMap = 14,
    XskMap = 17,
    RingBuf = 27,
}

/// `BPF_F_NO_PREALLOC`: memory grows with the entries.
pub const NO_PREALLOC: u32 = 1;

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
    of::<AddressKey, EndpointValue>("ENDPOINT_EXACT", Kind::Hash, MAX_ENDPOINTS),
    of::<PrefixKey, EndpointValue>("ENDPOINT_PREFIX", Kind::LpmTrie, MAX_ENDPOINT_PREFIXES),
    array::<RuleValue>("RULE", 2 * MAX_RULES),
    array::<RuleNode>("RULE_NODE", 2 * MAX_RULE_NODES),
    of::<AddressKey, RouteValue>("ROUTE_EXACT", Kind::Hash, MAX_ROUTES),
    of::<PrefixKey, RouteValue>("ROUTE_PREFIX", Kind::LpmTrie, MAX_ROUTE_PREFIXES),
    array::<MeterValue>("METER", SLICE_SLOTS),
    array::<MeterState>("METER_STATE", SLICE_SLOTS),
    array::<PolicyValue>("POLICY", POLICY_SLOTS),
    array::<SidValue>("SID", SID_SLOTS),
    array::<BackupValue>("BACKUP", BACKUP_SLOTS),
    of::<AddressKey, DeliveryValue>("DELIVERY_EXACT", Kind::Hash, MAX_DELIVERIES),
    of::<PrefixKey, DeliveryValue>("DELIVERY_PREFIX", Kind::LpmTrie, MAX_DELIVERY_PREFIXES),
    of::<u32, SessionValue>("SESSION", Kind::Hash, MAX_SESSIONS),
    array::<QueueValue>("QUEUE", PORT_SLOTS),
    array::<QueueState>("QUEUE_STATE", PORT_SLOTS),
    array::<HookValue>("HOOK", MAX_HOOKS as u32),
    of::<u32, u32>("SOCKET", Kind::XskMap, MAX_HOOKS as u32),
    per_cpu::<PortCounters>("PORT_COUNTERS", PORT_SLOTS),
    per_cpu::<SliceCounters>("SLICE_COUNTERS", SLICE_SLOTS),
    per_cpu::<HookCounters>("HOOK_COUNTERS", MAX_HOOKS as u32),
    per_cpu::<u64>("DROPS", REASONS as u32),
    per_cpu::<Scratch>("SCRATCH", 1),
    Spec {
        name: "EVENTS",
        kind: Kind::RingBuf,
        key_bytes: 0,
        value_bytes: 0,
        entries: EVENT_BYTES,
    },
    of::<AddressKey, u64>("RECENT", Kind::LruHash, MAX_RECENT),
    array::<QueueState>("EVENT_RATE", PORT_SLOTS),
    array::<QueueState>("GTP_RATE", PORT_SLOTS),
    array::<ProbeValue>("PROBE", MAX_PORT_ID as u32 + 1),
];
