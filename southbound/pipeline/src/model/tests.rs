//! Frames by hand, and what becomes of them. `etherparse` reads what comes out.

mod access_frames;
mod any_frame;
mod fabric_frames;

use etherparse::{IpHeaders, NetHeaders, PacketHeaders};

use super::*;
use crate::{
    Class, ClassifierEntry, DeliveryEntry, Direction, EndpointEntry, EndpointId, EndpointTag,
    Entry, LocalSidAction, LocalSidEntry, NextHopEntry, NodeSid, OnFailure, PolicyEntry, PolicyId,
    PortEntry, PortKind, RouteAction, SliceId, SliceMeterEntry, SliceRouteEntry, SliceSet,
    entry::gateway,
};

const NODE: u16 = 0x11;
/// Access, with robot-1 and phone-1.
const ROBOT_PORT: PortId = PortId(1);
/// Access, with plc.
const PLC_PORT: PortId = PortId(2);
/// Fabric, towards node 0x12 and all behind it.
const UPLINK: PortId = PortId(3);
/// Enabled, but its interface has gone.
const GONE: PortId = PortId(4);

const ROBOT_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
const PLC_MAC: [u8; 6] = [2, 0, 0, 0, 1, 2];
const UPLINK_MAC: [u8; 6] = [2, 0, 0, 0, 2, 3];
const NEIGHBOR_MAC: [u8; 6] = [2, 0, 0, 0, 9, 9];

const ROBOT: &str = "10.1.0.11";
const ROBOT6: &str = "fd10::11";
/// In both slices.
const PHONE: &str = "10.1.0.12";
const PLC: &str = "10.3.0.1";
/// Behind the fabric.
const VIDEO: &str = "10.2.0.1";
const VIDEO6: &str = "fd20::1";

const FACTORY: SliceId = SliceId(2);
const BOTH: SliceSet = SliceSet(4096);

fn net(text: &str) -> ipnet::IpNet {
    text.parse().unwrap()
}

fn sid(sid: u16, action: LocalSidAction) -> Entry {
    Entry::LocalSid(LocalSidEntry { sid, action })
}

fn endpoint(port: PortId, prefix: &str, slice_set: SliceSet) -> Entry {
    let direction = if port == ROBOT_PORT { Direction::Uplink } else { Direction::Downlink };
    let endpoint = EndpointId::NONE;
    Entry::Endpoint(EndpointEntry {
        port,
        prefix: net(prefix),
        slice_set,
        direction,
        endpoint,
        tag: EndpointTag::NONE,
    })
}

fn route(set: u16, prefix: &str, slice: SliceId, action: RouteAction) -> Entry {
    let (slice_set, prefix, endpoint) = (SliceSet(set), net(prefix), EndpointId::NONE);
    Entry::SliceRoute(SliceRouteEntry { slice_set, prefix, slice, action, endpoint })
}

fn delivery(slice: SliceId, prefix: &str, port: PortId, mac: [u8; 6]) -> Entry {
    Entry::Delivery(DeliveryEntry { slice, prefix: net(prefix), port, mac, tunnel: None })
}

fn next_hop(node: u16, port: PortId) -> Entry {
    Entry::NextHop(NextHopEntry { node: NodeSid(node), port, mac: NEIGHBOR_MAC, backup: 0 })
}

fn policy(id: u32, sids: &[u16]) -> Entry {
    Entry::Policy(PolicyEntry::one(PolicyId(id), sids.to_vec()))
}

fn meter(slice: SliceId, direction: Direction, class: Class, guaranteed_bps: u64) -> Entry {
    Entry::SliceMeter(SliceMeterEntry {
        slice,
        direction,
        class,
        guaranteed_bps,
        guaranteed_burst_bytes: 1,
        maximum_bps: 1,
        maximum_burst_bytes: 1,
    })
}

fn rule(priority: u32, action: crate::ClassifierAction) -> ClassifierEntry {
    ClassifierEntry::any(priority, action)
}

fn switch() -> Switch {
    use LocalSidAction::{Compute, Decapsulate, Node};
    use RouteAction::{Local, Policy};
    let port = |port, kind| Entry::Port(PortEntry { port, kind });
    let hook = |hook, on_failure| Compute { hook: HookId(hook), on_failure };
    let mut switch = Switch::new([
        port(ROBOT_PORT, PortKind::Access),
        port(PLC_PORT, PortKind::Access),
        port(UPLINK, PortKind::Fabric),
        port(GONE, PortKind::Fabric),
        endpoint(ROBOT_PORT, "10.1.0.11/32", SliceSet(FACTORY.0)),
        endpoint(ROBOT_PORT, "fd10::11/128", SliceSet(FACTORY.0)),
        endpoint(ROBOT_PORT, "10.1.0.12/32", BOTH),
        endpoint(PLC_PORT, "10.3.0.0/24", SliceSet(FACTORY.0)),
        // Factory: longer prefixes win.
        route(FACTORY.0, "10.2.0.0/16", FACTORY, Policy(PolicyId(7))),
        route(FACTORY.0, "fd20::/16", FACTORY, Policy(PolicyId(7))),
        route(FACTORY.0, "10.3.0.1/32", FACTORY, Local),
        route(FACTORY.0, "10.1.0.0/24", FACTORY, Local),
        route(FACTORY.0, "10.2.8.0/24", FACTORY, Policy(PolicyId(8))),
        route(FACTORY.0, "10.2.9.0/24", FACTORY, Policy(PolicyId(404))),
        route(FACTORY.0, "10.2.10.0/24", FACTORY, Policy(PolicyId(10))),
        route(FACTORY.0, "10.2.11.0/24", FACTORY, Policy(PolicyId(11))),
        route(BOTH.0, "10.2.0.0/16", SliceId::DEFAULT, Policy(PolicyId(7))),
        meter(FACTORY, Direction::Uplink, Class::Guaranteed, 20_000_000),
        meter(FACTORY, Direction::Downlink, Class::Urllc, 0),
        policy(7, &[0x12, 0x21, 0xe001]),
        policy(8, &[NODE, 0xe105, 0x12, 0xe001]),
        policy(10, &[NODE, 0xe001]),
        policy(11, &[0x14, 0xe001]),
        sid(NODE, Node),
        sid(0xe001, Decapsulate),
        sid(0xe105, hook(5, OnFailure::Drop)),
        sid(0xe106, hook(6, OnFailure::Bypass)),
        sid(0xe107, hook(7, OnFailure::Drop)),
        next_hop(0x12, UPLINK),
        next_hop(0x21, UPLINK),
        next_hop(0x14, GONE),
        delivery(FACTORY, "10.3.0.1/32", PLC_PORT, PLC_MAC),
        delivery(FACTORY, "10.1.0.11/32", ROBOT_PORT, ROBOT_MAC),
        delivery(FACTORY, "fd10::11/128", ROBOT_PORT, ROBOT_MAC),
        delivery(FACTORY, "10.2.10.0/24", PLC_PORT, PLC_MAC),
    ]);
    for (port, last) in [(ROBOT_PORT, 1), (PLC_PORT, 2), (UPLINK, 3)] {
        switch.set_port(port, Port { mac: [2, 0, 0, 0, 2, last], up: true });
    }
    switch.set_port(GONE, Port { mac: [2, 0, 0, 0, 2, 4], up: false });
    switch.set_hook(HookId(5), true);
    switch
}

fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let header = [&gateway::MAC[..], &ROBOT_MAC, &ethertype.to_be_bytes()];
    [header.concat().as_slice(), payload].concat()
}

/// An IP packet with a right header checksum: traffic class, hop limit, protocol, payload.
#[derive(Clone)]
struct Ip {
    source: IpAddr,
    destination: IpAddr,
    class: u8,
    hop_limit: u8,
    protocol: u8,
    payload: Vec<u8>,
}

impl Ip {
    fn udp(source: &str, destination: &str) -> Self {
        let udp = [&[0x13, 0x88, 0, 80, 0, 12, 0, 0][..], b"ping"].concat(); // 5000 -> 80
        Self {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            class: 0,
            hop_limit: 64,
            protocol: 17,
            payload: udp,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let len = u16::try_from(20 + self.payload.len()).unwrap().to_be_bytes();
                let (limit, protocol) = (self.hop_limit, self.protocol);
                bytes.extend([0x45, self.class, len[0], len[1], 0, 1, 0x40, 0, limit, protocol]);
                bytes.extend([0, 0]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                let header = etherparse::Ipv4Header::from_slice(&bytes).unwrap().0;
                bytes[10..12].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                bytes.extend((6 << 28 | u32::from(self.class) << 20).to_be_bytes());
                bytes.extend(u16::try_from(self.payload.len()).unwrap().to_be_bytes());
                bytes.extend([self.protocol, self.hop_limit]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
            }
            _ => panic!("two families"),
        }
        bytes.extend(&self.payload);
        bytes
    }

    fn frame(&self) -> Vec<u8> {
        let v4 = self.source.is_ipv4();
        ethernet(if v4 { 0x0800 } else { 0x86dd }, &self.bytes())
    }
}

/// A frame between switches.
fn fabric(sids: &[u16], slice: SliceId, hop_limit: u8, class: u8, inner: &[u8]) -> Vec<u8> {
    let outer = Ip {
        source: wire::outer_source(0x31, slice, Direction::Downlink, false).into(),
        destination: wire::outer_destination(sids).into(),
        class,
        hop_limit,
        protocol: if inner[0] >> 4 == 4 { 4 } else { 41 },
        payload: inner.to_vec(),
    };
    outer.frame()
}

fn verdict(ingress: impl Into<Ingress>, frame: &[u8]) -> Verdict {
    process(&switch(), ingress, frame).verdict
}

#[track_caller]
fn out(verdict: Verdict) -> (PortId, Vec<u8>) {
    match verdict {
        Verdict::Out { port, frame } => (port, frame),
        other => panic!("{other:?}"),
    }
}

/// etherparse checks every length, and the IPv4 checksum here, down to the innermost packet.
#[track_caller]
fn parse(frame: &[u8]) -> PacketHeaders<'_> {
    let headers = PacketHeaders::from_ethernet_slice(frame).unwrap();
    if let Some(NetHeaders::Ipv4(header, _)) = &headers.net {
        assert_eq!(header.header_checksum, header.calc_header_checksum());
    }
    headers
}

#[track_caller]
fn parse_ip(bytes: &[u8]) -> IpHeaders {
    let (headers, _) = IpHeaders::from_slice(bytes).unwrap();
    if let IpHeaders::Ipv4(header, _) = &headers {
        assert_eq!(header.header_checksum, header.calc_header_checksum());
    }
    headers
}

fn tables(outcome: &Outcome) -> Vec<TableKind> {
    outcome.hits.iter().map(|hit| hit.table).collect()
}
