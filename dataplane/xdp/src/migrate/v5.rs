//! Layout 5: whole addresses and PDU sessions lay in hash maps of the kernel, each with all that it
//! says; ports counted what they were given as sent, and there was no drop of that reason.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::Ipv6Net;
use selvedge_ebpf_common::key::{AddressKey, PrefixKey};
use selvedge_ebpf_common::map::Kind;
use selvedge_ebpf_common::rule::RuleValue;
use selvedge_ebpf_common::value;
use selvedge_ebpf_common::{MAX_RULES, Plain};

use super::{Becomes, Layout, Old, OldMaps, old};
use crate::Error;
use crate::maps::Maps;
use crate::table::{
    Classifier, Delivery, Direction, Endpoint, PrefixTable, Queue, QueueTable, Route, RouteAction,
    Row, Session, SessionTable, Table, Tunnel, address_of, bytes, net,
};

pub(crate) const LAYOUT: Layout = Layout { version: 5, maps: MAPS };

const MAPS: &[Old] = &[
    old("CONFIG", Kind::Array, 4, 104, 1, Becomes::Same),
    old("FACTS", Kind::Array, 4, 32, 1, Becomes::Same),
    old("PORT_NAME", Kind::Array, 4, 16, 512, Becomes::Same),
    old("PORT_BY_LOW_IFINDEX", Kind::Array, 4, 4, 4096, Becomes::Same),
    old("PORT_BY_IFINDEX", Kind::Hash, 4, 4, 1024, Becomes::Same),
    old("HOOK_BY_IFINDEX", Kind::Hash, 4, 4, 1024, Becomes::Same),
    old("PORT", Kind::Array, 4, 16, 512, Becomes::Same),
    old("PORT_STATE", Kind::Array, 4, 4, 512, Becomes::Same),
    old("DEVICE", Kind::DevMap, 4, 8, 512, Becomes::Same),
    old("ENDPOINT_EXACT", Kind::Hash, 24, 4, 131_072, Becomes::Converted(endpoints)),
    old("ENDPOINT_PREFIX", Kind::LpmTrie, 24, 4, 131_072, Becomes::Converted(endpoint_prefixes)),
    old("RULE", Kind::Array, 4, 104, 2048, Becomes::Converted(rules)),
    old("RULE_NODE", Kind::Array, 4, 8, 131_072, Becomes::Converted(rules)),
    old("ROUTE_EXACT", Kind::Hash, 24, 8, 131_072, Becomes::Converted(routes)),
    old("ROUTE_PREFIX", Kind::LpmTrie, 24, 8, 131_072, Becomes::Converted(route_prefixes)),
    old("METER", Kind::Array, 4, 64, 32_768, Becomes::Same),
    old("METER_STATE", Kind::Array, 4, 64, 32_768, Becomes::Same),
    old("POLICY", Kind::Array, 4, 40, 65_536, Becomes::Same),
    old("SID", Kind::Array, 4, 16, 12_288, Becomes::Same),
    old("BACKUP", Kind::Array, 4, 40, 32_768, Becomes::Same),
    old("DELIVERY_EXACT", Kind::Hash, 24, 56, 131_072, Becomes::Converted(deliveries)),
    old("DELIVERY_PREFIX", Kind::LpmTrie, 24, 56, 131_072, Becomes::Converted(delivery_prefixes)),
    old("SESSION", Kind::Hash, 4, 72, 131_072, Becomes::Converted(sessions)),
    old("QUEUE", Kind::Array, 4, 56, 512, Becomes::Converted(queues)),
    old("QUEUE_STATE", Kind::Array, 4, 64, 512, Becomes::Same),
    old("HOOK", Kind::Array, 4, 16, 256, Becomes::Same),
    old("SOCKET", Kind::XskMap, 4, 4, 256, Becomes::Same),
    old("PORT_COUNTERS", Kind::PerCpuArray, 4, 72, 512, Becomes::Counted(port_counters)),
    old("SLICE_COUNTERS", Kind::PerCpuArray, 4, 104, 32_768, Becomes::Same),
    old("HOOK_COUNTERS", Kind::PerCpuArray, 4, 64, 256, Becomes::Same),
    old("DROPS", Kind::PerCpuArray, 4, 8, 27, Becomes::Counted(drops)),
    old("SCRATCH", Kind::PerCpuArray, 4, 120, 1, Becomes::Counted(scratch)),
    old("EVENTS", Kind::RingBuf, 0, 0, 65_536, Becomes::Same),
    old("RECENT", Kind::LruHash, 24, 8, 1024, Becomes::Same),
    old("EVENT_RATE", Kind::Array, 4, 64, 512, Becomes::Same),
    old("GTP_RATE", Kind::Array, 4, 64, 512, Becomes::Same),
    old("PROBE", Kind::Array, 4, 2048, 256, Becomes::Same),
];

#[repr(C)]
#[derive(Clone, Copy)]
struct EndpointValue {
    slice_set: u16,
    direction: u8,
    _bits: u8,
}

// SAFETY: `repr(C)`, integers only, no padding: 4 bytes.
unsafe impl Plain for EndpointValue {}

#[repr(C)]
#[derive(Clone, Copy)]
struct RouteValue {
    /// 0: local.
    policy: u32,
    slice: u16,
    _bits: u8,
    _pad: u8,
}

// SAFETY: `repr(C)`, integers only, no padding: 8 bytes.
unsafe impl Plain for RouteValue {}

#[repr(C)]
#[derive(Clone, Copy)]
struct DeliveryValue {
    way: u64,
    local: [u64; 2],
    peer: [u64; 2],
    teid: u32,
    mtu: u16,
    qfi: u8,
    /// 0: no tunnel.
    overhead: u8,
    _bits: u8,
    _pad: [u8; 7],
}

// SAFETY: `repr(C)`, integers and arrays of them only, no padding: 56 bytes.
unsafe impl Plain for DeliveryValue {}

#[repr(C)]
#[derive(Clone, Copy)]
struct SessionValue {
    peer: [u64; 2],
    ipv6: [u64; 2],
    _ipv6_mask: [u64; 2],
    qfis: u64,
    /// In wire order; 0: none.
    ipv4: u32,
    slice_set: u16,
    port: u8,
    direction: u8,
    /// 0: none.
    ipv6_bits: u8,
    _pad: [u8; 7],
}

// SAFETY: `repr(C)`, integers and arrays of them only, no padding: 72 bytes.
unsafe impl Plain for SessionValue {}

impl From<EndpointValue> for Endpoint {
    fn from(value: EndpointValue) -> Self {
        let direction = Direction::parse(value.direction);
        Self { slice_set: value.slice_set, direction, endpoint: 0, tag: 0 }
    }
}

impl From<RouteValue> for Route {
    fn from(RouteValue { policy, slice, .. }: RouteValue) -> Self {
        let action = if policy == 0 { RouteAction::Local } else { RouteAction::Policy(policy) };
        Self { slice, action, endpoint: 0 }
    }
}

impl From<DeliveryValue> for Delivery {
    fn from(value: DeliveryValue) -> Self {
        let DeliveryValue { way, local, peer, teid, mtu, qfi, overhead, .. } = value;
        let (local, gnb) = (address_of(local), address_of(peer));
        let tunnel = (overhead != 0).then_some(Tunnel { local, gnb, teid, qfi, mtu });
        Self { port: value::way_port(way), mac: value::way_mac(way), tunnel }
    }
}

/// Whole addresses of a table.
fn addresses<V: Plain, R: Row + From<V>>(
    map: &str,
    old: &OldMaps,
    new: &Arc<Maps>,
) -> Result<(), Error> {
    let table = PrefixTable::<R>::new(Arc::clone(new));
    for (key, value) in old.get(map).entries::<AddressKey, V>()? {
        table.put((key.scope as u16, net(bytes(key.address), 128)), &value.into())?;
    }
    Ok(())
}

/// Shorter prefixes of a table.
fn prefixes<V: Plain, R: Row + From<V>>(
    map: &str,
    old: &OldMaps,
    new: &Arc<Maps>,
) -> Result<(), Error> {
    let table = PrefixTable::<R>::new(Arc::clone(new));
    for (key, value) in old.get(map).entries::<PrefixKey, V>()? {
        let mut address = [0; 16];
        for (to, from) in address.chunks_exact_mut(4).zip(key.address) {
            to.copy_from_slice(&from.to_ne_bytes());
        }
        table.put((key.scope as u16, net(address, key.bits - 32)), &value.into())?;
    }
    Ok(())
}

fn endpoints(old: &OldMaps, new: &Arc<Maps>) -> Result<(), Error> {
    addresses::<EndpointValue, Endpoint>("ENDPOINT_EXACT", old, new)
}

fn endpoint_prefixes(old: &OldMaps, new: &Arc<Maps>) -> Result<(), Error> {
    prefixes::<EndpointValue, Endpoint>("ENDPOINT_PREFIX", old, new)
}

fn routes(old: &OldMaps, new: &Arc<Maps>) -> Result<(), Error> {
    addresses::<RouteValue, Route>("ROUTE_EXACT", old, new)
}

fn route_prefixes(old: &OldMaps, new: &Arc<Maps>) -> Result<(), Error> {
    prefixes::<RouteValue, Route>("ROUTE_PREFIX", old, new)
}

fn deliveries(old: &OldMaps, new: &Arc<Maps>) -> Result<(), Error> {
    addresses::<DeliveryValue, Delivery>("DELIVERY_EXACT", old, new)
}

fn delivery_prefixes(old: &OldMaps, new: &Arc<Maps>) -> Result<(), Error> {
    prefixes::<DeliveryValue, Delivery>("DELIVERY_PREFIX", old, new)
}

fn sessions(old: &OldMaps, new: &Arc<Maps>) -> Result<(), Error> {
    let table = SessionTable(Arc::clone(new));
    for (teid, value) in old.get("SESSION").entries::<u32, SessionValue>()? {
        let prefix = Ipv6Net::new(Ipv6Addr::from(bytes(value.ipv6)), value.ipv6_bits);
        let session = Session {
            port: value.port.into(),
            gnb: address_of(value.peer),
            ue_ipv4: (value.ipv4 != 0).then(|| Ipv4Addr::from(value.ipv4.to_ne_bytes())),
            ue_ipv6: prefix.ok().filter(|_| value.ipv6_bits != 0),
            slice_set: value.slice_set,
            direction: Direction::parse(value.direction),
            qfis: value.qfis,
            endpoint: 0,
            tag: 0,
        };
        table.put(teid, &session)?;
    }
    Ok(())
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct QueueValue {
    cost: u64,
    _threshold_ps: [u64; 3],
    rate_bps: u64,
    threshold_bytes: [u32; 3],
    _prepay_bytes: u32,
}

// SAFETY: `repr(C)`, integers and arrays of them only, no padding: 56 bytes.
unsafe impl Plain for QueueValue {}

/// No class was shaped.
fn queues(old: &OldMaps, new: &Arc<Maps>) -> Result<(), Error> {
    let table = QueueTable(Arc::clone(new));
    let held: Vec<QueueValue> = old.get("QUEUE").array()?;
    for (port, QueueValue { rate_bps, threshold_bytes, .. }) in
        (0u16..).zip(held).filter(|(_, queue)| queue.cost != 0)
    {
        table.put(port, &Queue { rate_bps, threshold_bytes, shaped_bps: [0; 3] })?;
    }
    Ok(())
}

/// Rules had the word of their fields without a slice set, and a DSCP that names took all of its
/// byte. In the half that `CONFIG`, which both layouts share, says to be in force.
fn rules(old: &OldMaps, new: &Arc<Maps>) -> Result<(), Error> {
    const OF_NO_DSCP: u64 = 0b11 << 22;
    let config: value::ConfigValue = old.get("CONFIG").at(0)?;
    let (bank, count) = value::rules_in_force(config.rules);
    let all: Vec<RuleValue> = old.get("RULE").array()?;
    let (first, count) = ((bank * MAX_RULES) as usize, count as usize);
    let amended =
        |rule: RuleValue| RuleValue { fields_mask: rule.fields_mask & !OF_NO_DSCP, ..rule };
    let rules: Vec<_> = all.into_iter().skip(first).take(count).map(amended).collect();
    Classifier::new(Arc::clone(new)).fill(bank, &rules)
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PortCounters {
    rx_packets: u64,
    rx_bytes: u64,
    tx_packets: u64,
    tx_bytes: u64,
    rx_marked: [u64; 2],
    tx_marked: [u64; 2],
    prepaid_bytes: u64,
}

// SAFETY: `repr(C)`, integers of one size and arrays of them only.
unsafe impl Plain for PortCounters {}

/// What layout 5 said was sent has left, for all it knew. What was charged to queues beforehand
/// is forgotten: at most what a CPU prepays, once.
fn port_counters(old: &OldMaps, new: &Arc<Maps>) -> Result<(), Error> {
    let pair = |a: [u64; 2], b: [u64; 2]| [a[0] + b[0], a[1] + b[1]];
    let sums = old.get("PORT_COUNTERS").per_cpu_array(|a: PortCounters, b: PortCounters| {
        PortCounters {
            rx_packets: a.rx_packets + b.rx_packets,
            rx_bytes: a.rx_bytes + b.rx_bytes,
            tx_packets: a.tx_packets + b.tx_packets,
            tx_bytes: a.tx_bytes + b.tx_bytes,
            rx_marked: pair(a.rx_marked, b.rx_marked),
            tx_marked: pair(a.tx_marked, b.tx_marked),
            prepaid_bytes: 0,
        }
    })?;
    let base = |port: PortCounters| value::PortCounters {
        rx_packets: port.rx_packets,
        rx_bytes: port.rx_bytes,
        tx_packets: port.tx_packets,
        tx_bytes: port.tx_bytes,
        rx_marked: port.rx_marked,
        tx_marked: port.tx_marked,
        left_packets: port.tx_packets,
        left_bytes: port.tx_bytes,
        ..Default::default()
    };
    let bases: Vec<_> = sums.into_iter().map(base).collect();
    new.get("PORT_COUNTERS").base().put_array(0, &bases)
}

/// Reasons keep their numbers; there is one more.
fn drops(old: &OldMaps, new: &Arc<Maps>) -> Result<(), Error> {
    let counts: Vec<u64> = old.get("DROPS").per_cpu_array(|a: u64, b: u64| a + b)?;
    new.get("DROPS").base().put_array(0, &counts)
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Scratch {
    passed: u64,
    answered: u64,
    /// Of the packet under way.
    _rest: [u64; 13],
}

// SAFETY: `repr(C)`, integers of one size and an array of them.
unsafe impl Plain for Scratch {}

/// What neither left nor was dropped; the rest is of no packet any more.
fn scratch(old: &OldMaps, new: &Arc<Maps>) -> Result<(), Error> {
    let sums = old.get("SCRATCH").per_cpu_array(|a: Scratch, b: Scratch| Scratch {
        passed: a.passed + b.passed,
        answered: a.answered + b.answered,
        ..Default::default()
    })?;
    let base = |Scratch { passed, answered, .. }: Scratch| value::Scratch {
        passed,
        answered,
        ..Default::default()
    };
    let bases: Vec<_> = sums.into_iter().map(base).collect();
    new.get("SCRATCH").base().put_array(0, &bases)
}
