//! The maps, as `selvedge_ebpf_common::map` specifies them; a test compares the two.

#[cfg(target_arch = "bpf")]
use aya_ebpf::macros::map;
use aya_ebpf::maps::{
    Array, DevMap, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, RingBuf, XskMap,
};
use selvedge_ebpf_common::drop::REASONS;
use selvedge_ebpf_common::exact::{self, NarrowLine, WideLine};
use selvedge_ebpf_common::key::AddressKey;
use selvedge_ebpf_common::map::*;
use selvedge_ebpf_common::rule::{MAX_RULE_NODES, RuleNode, RuleValue};
use selvedge_ebpf_common::value::*;
use selvedge_ebpf_common::{
    BACKUP_SLOTS, MAX_HOOKS, MAX_PORT_ID, MAX_RULES, POLICY_SLOTS, PORT_SLOTS, SID_SLOTS,
    SLICE_SLOTS, STAGES, TRACES,
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
pub(super) static ENDPOINT_V4: Array<NarrowLine> =
    Array::with_max_entries(exact::ROWS / exact::NARROW, MMAPABLE);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static ENDPOINT_V4_AT: Array<u64> =
    Array::with_max_entries(exact::GROUPS / exact::IN_WORD, MMAPABLE);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static ENDPOINT_V6: Array<WideLine> =
    Array::with_max_entries(exact::ROWS / exact::WIDE, MMAPABLE);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static ENDPOINT_V6_AT: Array<u64> =
    Array::with_max_entries(exact::GROUPS / exact::IN_WORD, MMAPABLE);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static ENDPOINT_PREFIX: LpmTrie<PrefixData, PrefixValue> =
    LpmTrie::with_max_entries(MAX_PREFIXES, NO_PREALLOC);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static RULE: Array<RuleValue> = Array::with_max_entries(2 * MAX_RULES, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static RULE_NODE: Array<RuleNode> = Array::with_max_entries(2 * MAX_RULE_NODES, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static ROUTE_V4: Array<NarrowLine> =
    Array::with_max_entries(exact::ROWS / exact::NARROW, MMAPABLE);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static ROUTE_V4_AT: Array<u64> =
    Array::with_max_entries(exact::GROUPS / exact::IN_WORD, MMAPABLE);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static ROUTE_V6: Array<WideLine> =
    Array::with_max_entries(exact::ROWS / exact::WIDE, MMAPABLE);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static ROUTE_V6_AT: Array<u64> =
    Array::with_max_entries(exact::GROUPS / exact::IN_WORD, MMAPABLE);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static ROUTE_PREFIX: LpmTrie<PrefixData, PrefixValue> =
    LpmTrie::with_max_entries(MAX_PREFIXES, NO_PREALLOC);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static METER: Array<MeterValue> = Array::with_max_entries(SLICE_SLOTS, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static METER_STATE: Array<MeterState> = Array::with_max_entries(SLICE_SLOTS, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static ENDPOINT_METER: HashMap<u32, EndpointMeterValue> =
    HashMap::with_max_entries(MAX_ENDPOINT_METERS, NO_PREALLOC);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static POLICY: Array<PolicyValue> = Array::with_max_entries(POLICY_SLOTS, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static PATH_SET: HashMap<u32, PathSetValue> =
    HashMap::with_max_entries(MAX_PATH_SETS, NO_PREALLOC);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static SID: Array<SidValue> = Array::with_max_entries(SID_SLOTS, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static BACKUP: Array<BackupValue> = Array::with_max_entries(BACKUP_SLOTS, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static DELIVERY_V4: Array<NarrowLine> =
    Array::with_max_entries(exact::ROWS / exact::NARROW, MMAPABLE);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static DELIVERY_V4_AT: Array<u64> =
    Array::with_max_entries(exact::GROUPS / exact::IN_WORD, MMAPABLE);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static DELIVERY_V6: Array<WideLine> =
    Array::with_max_entries(exact::ROWS / exact::WIDE, MMAPABLE);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static DELIVERY_V6_AT: Array<u64> =
    Array::with_max_entries(exact::GROUPS / exact::IN_WORD, MMAPABLE);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static DELIVERY_PREFIX: LpmTrie<PrefixData, PrefixValue> =
    LpmTrie::with_max_entries(MAX_PREFIXES, NO_PREALLOC);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static GNB: Array<GnbValue> = Array::with_max_entries(MAX_GNBS, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static SESSION: Array<NarrowLine> =
    Array::with_max_entries(exact::ROWS / exact::NARROW, MMAPABLE);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static SESSION_AT: Array<u64> =
    Array::with_max_entries(exact::GROUPS / exact::IN_WORD, MMAPABLE);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static SESSION_V6: Array<WideLine> =
    Array::with_max_entries(exact::ROWS / exact::WIDE, MMAPABLE);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static SESSION_V6_AT: Array<u64> =
    Array::with_max_entries(exact::GROUPS / exact::IN_WORD, MMAPABLE);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static PROFILE: Array<ProfileValue> = Array::with_max_entries(MAX_PROFILES, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static QUEUE: Array<QueueValue> = Array::with_max_entries(PORT_SLOTS, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static QUEUE_STATE: Array<QueueState> = Array::with_max_entries(PORT_SLOTS, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static SHAPER: Array<ShaperValue> = Array::with_max_entries(PORT_SLOTS, 0);
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
// What was counted in earlier layouts; the agent adds it to the counters of the same name.
#[cfg_attr(target_arch = "bpf", map)]
static PORT_COUNTERS_BASE: Array<PortCounters> = Array::with_max_entries(PORT_SLOTS, 0);
#[cfg_attr(target_arch = "bpf", map)]
static SLICE_COUNTERS_BASE: Array<SliceCounters> = Array::with_max_entries(SLICE_SLOTS, 0);
#[cfg_attr(target_arch = "bpf", map)]
static HOOK_COUNTERS_BASE: Array<HookCounters> = Array::with_max_entries(MAX_HOOKS as u32, 0);
#[cfg_attr(target_arch = "bpf", map)]
static DROPS_BASE: Array<u64> = Array::with_max_entries(REASONS as u32, 0);
#[cfg_attr(target_arch = "bpf", map)]
static SCRATCH_BASE: Array<Scratch> = Array::with_max_entries(1, 0);
/// Programs of tracepoints, which are attached once and jump here: so they are replaced in one
/// step, which links of tracepoints are not.
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static TRACE: ProgramArray = ProgramArray::with_max_entries(TRACES, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static EVENTS: RingBuf = RingBuf::with_byte_size(EVENT_BYTES, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static SAMPLES: RingBuf = RingBuf::with_byte_size(SAMPLE_BYTES, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static SAMPLE: Array<SampleValue> = Array::with_max_entries(1, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static SAMPLE_RATE: Array<QueueState> = Array::with_max_entries(1, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static RECENT: LruHashMap<AddressKey, u64> = LruHashMap::with_max_entries(MAX_RECENT, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static EVENT_RATE: Array<QueueState> = Array::with_max_entries(PORT_SLOTS, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static GTP_RATE: Array<QueueState> = Array::with_max_entries(PORT_SLOTS, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static ICMP_RATE: Array<QueueState> = Array::with_max_entries(PORT_SLOTS, 0);
#[cfg_attr(target_arch = "bpf", map)]
pub(super) static HOST_RATE: Array<QueueState> = Array::with_max_entries(PORT_SLOTS, 0);
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
        DEVICE ENDPOINT_V4 ENDPOINT_V4_AT ENDPOINT_V6 ENDPOINT_V6_AT ENDPOINT_PREFIX RULE RULE_NODE
        ROUTE_V4 ROUTE_V4_AT ROUTE_V6 ROUTE_V6_AT ROUTE_PREFIX METER METER_STATE ENDPOINT_METER
        POLICY PATH_SET SID BACKUP
        DELIVERY_V4 DELIVERY_V4_AT DELIVERY_V6 DELIVERY_V6_AT DELIVERY_PREFIX GNB SESSION SESSION_AT
        SESSION_V6 SESSION_V6_AT PROFILE QUEUE QUEUE_STATE SHAPER HOOK SOCKET PORT_COUNTERS
        SLICE_COUNTERS HOOK_COUNTERS DROPS SCRATCH PORT_COUNTERS_BASE SLICE_COUNTERS_BASE
        HOOK_COUNTERS_BASE DROPS_BASE SCRATCH_BASE TRACE EVENTS SAMPLES SAMPLE SAMPLE_RATE RECENT
        EVENT_RATE GTP_RATE ICMP_RATE HOST_RATE PROBE
    }
};
