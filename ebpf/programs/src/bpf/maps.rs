//! The maps, as `selvedge_ebpf_common::map` specifies them; a test compares the two.

#[cfg(target_arch = "bpf")]
use aya_ebpf::macros::map;
use aya_ebpf::maps::{
    Array, DevMap, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, RingBuf, XskMap,
};
use selvedge_ebpf_common::drop::REASONS;
use selvedge_ebpf_common::key::AddressKey;
use selvedge_ebpf_common::map::*;
use selvedge_ebpf_common::rule::{MAX_RULE_NODES, RuleNode, RuleValue};
use selvedge_ebpf_common::value::*;
use selvedge_ebpf_common::{
    BACKUP_SLOTS, MAX_HOOKS, MAX_PORT_ID, MAX_RULES, POLICY_SLOTS, PORT_SLOTS, SID_SLOTS,
    SLICE_SLOTS, STAGES,
};

/// What follows the length in a `PrefixKey`: scope and address.
pub(super) type PrefixData = [u32; 5];

#[cfg_attr(target_arch = "bpf", map)]
pub(super) static CONFIG: Array<ConfigValue> = Array::with_max_entries(1, 0);
#[cfg_attr(target_arch = "bpf", map)]
static FACTS: Array<FactsValue> = Array::with_max_entries(1, 0);
#[cfg_attr(target_arch = "bpf", map)]
static PORT_NAME: Array<PortName> = Array::with_max_entries(PORT_SLOTS, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static PORT_BY_LOW_IFINDEX: Array<u32> = Array::with_max_entries(LOW_IFINDICES, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static PORT_BY_IFINDEX: HashMap<u32, u32> =
    HashMap::with_max_entries(MAX_INTERFACES, NO_PREALLOC);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static HOOK_BY_IFINDEX: HashMap<u32, u32> =
    HashMap::with_max_entries(MAX_INTERFACES, NO_PREALLOC);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static PORT: Array<PortValue> = Array::with_max_entries(PORT_SLOTS, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static PORT_STATE: Array<u32> = Array::with_max_entries(PORT_SLOTS, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static DEVICE: DevMap = DevMap::with_max_entries(PORT_SLOTS, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static ENDPOINT_EXACT: HashMap<AddressKey, EndpointValue> =
    HashMap::with_max_entries(MAX_ENDPOINTS, NO_PREALLOC);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static ENDPOINT_PREFIX: LpmTrie<PrefixData, EndpointValue> =
    LpmTrie::with_max_entries(MAX_ENDPOINT_PREFIXES, NO_PREALLOC);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static RULE: Array<RuleValue> = Array::with_max_entries(2 * MAX_RULES, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static RULE_NODE: Array<RuleNode> = Array::with_max_entries(2 * MAX_RULE_NODES, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static ROUTE_EXACT: HashMap<AddressKey, RouteValue> =
    HashMap::with_max_entries(MAX_ROUTES, NO_PREALLOC);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static ROUTE_PREFIX: LpmTrie<PrefixData, RouteValue> =
    LpmTrie::with_max_entries(MAX_ROUTE_PREFIXES, NO_PREALLOC);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static METER: Array<MeterValue> = Array::with_max_entries(SLICE_SLOTS, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static METER_STATE: Array<MeterState> = Array::with_max_entries(SLICE_SLOTS, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static POLICY: Array<PolicyValue> = Array::with_max_entries(POLICY_SLOTS, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static SID: Array<SidValue> = Array::with_max_entries(SID_SLOTS, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static BACKUP: Array<BackupValue> = Array::with_max_entries(BACKUP_SLOTS, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static DELIVERY_EXACT: HashMap<AddressKey, DeliveryValue> =
    HashMap::with_max_entries(MAX_DELIVERIES, NO_PREALLOC);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static DELIVERY_PREFIX: LpmTrie<PrefixData, DeliveryValue> =
    LpmTrie::with_max_entries(MAX_DELIVERY_PREFIXES, NO_PREALLOC);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static SESSION: HashMap<u32, SessionValue> =
    HashMap::with_max_entries(MAX_SESSIONS, NO_PREALLOC);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static QUEUE: Array<QueueValue> = Array::with_max_entries(PORT_SLOTS, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static QUEUE_STATE: Array<QueueState> = Array::with_max_entries(PORT_SLOTS, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static HOOK: Array<HookValue> = Array::with_max_entries(MAX_HOOKS as u32, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static SOCKET: XskMap = XskMap::with_max_entries(MAX_HOOKS as u32, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static PORT_COUNTERS: PerCpuArray<PortCounters> =
    PerCpuArray::with_max_entries(PORT_SLOTS, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static SLICE_COUNTERS: PerCpuArray<SliceCounters> =
    PerCpuArray::with_max_entries(SLICE_SLOTS, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static HOOK_COUNTERS: PerCpuArray<HookCounters> =
    PerCpuArray::with_max_entries(MAX_HOOKS as u32, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static DROPS: PerCpuArray<u64> = PerCpuArray::with_max_entries(REASONS as u32, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static EVENTS: RingBuf = RingBuf::with_byte_size(EVENT_BYTES, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static RECENT: LruHashMap<AddressKey, u64> = LruHashMap::with_max_entries(MAX_RECENT, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static EVENT_RATE: Array<QueueState> = Array::with_max_entries(PORT_SLOTS, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static GTP_RATE: Array<QueueState> = Array::with_max_entries(PORT_SLOTS, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static PROBE: Array<ProbeValue> = Array::with_max_entries(MAX_PORT_ID as u32 + 1, 0);

/// Tail calls. Not pinned under its name: each load has its own.
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static JUMP: ProgramArray = ProgramArray::with_max_entries(STAGES, 0);

/// All but `JUMP`, for the host.
#[cfg(not(target_arch = "bpf"))]
pub(crate) static NAMED: &[(&str, &aya_ebpf::maps::Def)] = {
    macro_rules! named {
        ($($map:ident)*) => { &[$((stringify!($map), $map.def())),*] };
    }
    named! {
        CONFIG FACTS PORT_NAME PORT_BY_LOW_IFINDEX PORT_BY_IFINDEX HOOK_BY_IFINDEX PORT PORT_STATE
        DEVICE ENDPOINT_EXACT ENDPOINT_PREFIX RULE RULE_NODE ROUTE_EXACT ROUTE_PREFIX METER METER_STATE POLICY
        SID BACKUP DELIVERY_EXACT DELIVERY_PREFIX SESSION QUEUE QUEUE_STATE HOOK SOCKET PORT_COUNTERS
        SLICE_COUNTERS HOOK_COUNTERS DROPS SCRATCH EVENTS RECENT EVENT_RATE GTP_RATE PROBE
    }
};
