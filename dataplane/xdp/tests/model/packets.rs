//! Random tables and frames, the same for the same seed: few enough addresses, slices and
//! segments that packets meet entries, some of what is odd, and damage on top.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::PacketBuilder;
use ipnet::IpNet;
use selvedge_pipeline::*;

/// Attached in the order of their ids; 5 has no `port` entry, 6 no interface.
pub(crate) const ACCESS: [u16; 2] = [1, 255];
pub(crate) const FABRIC: [u16; 2] = [3, 4];
pub(crate) const DISABLED: u16 = 5;
pub(crate) const ABSENT: u16 = 6;
/// The hook with a socket, and one that is quarantined.
pub(crate) const HOOK: u16 = 3;
pub(crate) const QUARANTINED: u16 = 1;
const NODE: u16 = 7;

/// SplitMix64; the seed is printed with a failure.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.word() % n as u64) as usize
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn of<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }

    fn mac(&mut self) -> [u8; 6] {
        [2, 0, 0, 0, 0, self.below(4) as u8]
    }
}

/// Few enough addresses that packets meet entries.
const ADDRESSES: [&str; 11] = [
    "10.1.0.1",
    "10.1.0.2",
    "10.1.1.3",
    "10.2.0.4",
    "fd10::1",
    "fd10::2",
    "fd10::1:3",
    "fd11::4",
    "192.0.2.9",
    "2001:db8::9",
    "fd10::ffff:0:1",
];
const ODD_ADDRESSES: [&str; 14] = [
    "169.254.1.1",
    "224.0.0.5",
    "255.255.255.255",
    "127.0.0.1",
    "0.0.0.0",
    "fe80::1",
    "fe80::22",
    "ff02::1",
    "::",
    "::1",
    "5f00:0:7:e001::",
    "5f00:1::1",
    "::ffff:10.1.0.1",
    "::ffff:127.0.0.1",
];
const PREFIXES: [&str; 11] = [
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.0.0/24",
    "0.0.0.0/0",
    "::/0",
    "fd10::/16",
    "fd10::/112",
    "fd00::/8",
    "10.1.0.2/31",
    "::/80",
    "::ffff:0:0/90",
];
const SETS: [u16; 4] = [1, 2, 3, 0xffff];
const SLICES: [u16; 3] = [1, 2, 16_383];
const TAGS: [u16; 5] = [0, 0, 1, 2, 0xffff];
const ENDPOINTS: [u16; 4] = [0, 0, 1, 65_535];
const POLICIES: [u32; 6] = [1, 2, 3, 4, 5, 65_535];
/// The last four are at the ends of what the programs have slots for.
const SIDS: [u16; 14] =
    [NODE, 8, 9, 10, 0xE001, 0xE100, 0xE101, 0xE102, 0xE105, 0x2000, 4_095, 4_096, 0xDFFF, 0xFFFF];

/// Of the switch, on N3. No endpoint has them.
pub(crate) const N3: [&str; 2] = ["198.51.100.1", "2001:db8:3::1"];
const N3_MORE: [&str; 3] = ["198.51.100.2", "10.2.0.4", "fd10::2"];

/// PDU sessions: TEID, gNB, and what its UE sends from. The gNBs are endpoints.
const SESSIONS: [(u32, &str, Option<&str>, Option<&str>); 4] = [
    (1, "192.0.2.9", Some("10.1.0.1"), None),
    (2, "2001:db8::9", Some("10.1.0.2"), Some("fd10::/112")),
    (0x80, "2001:db8::9", None, Some("fd10::1:0/112")),
    (0xffff_ffff, "192.0.2.9", None, Some("fd11::4/128")),
];

/// Where a session comes in, and its gNB is.
fn access_of(teid: u32) -> PortId {
    PortId(ACCESS[usize::from(teid > 2)])
}

fn net(random: &mut Random) -> IpNet {
    let address = |random: &mut Random| random.of(&ADDRESSES).parse::<IpAddr>().unwrap();
    match random.below(10) {
        0..6 => address(random).into(),
        6..9 => random.of(&PREFIXES).parse::<IpNet>().unwrap().trunc(),
        _ => {
            let address = address(random);
            let longest = if address.is_ipv4() { 32 } else { 128 };
            let len = random.below(longest + 1) as u8;
            IpNet::new(address, len).unwrap().trunc()
        }
    }
}

fn optional<T>(random: &mut Random, percent: usize, value: impl Fn(&mut Random) -> T) -> Option<T> {
    random.chance(percent).then(|| value(random))
}

pub(crate) fn tables(random: &mut Random) -> Vec<Entry> {
    let mut entries = Vec::new();
    for port in ACCESS {
        entries.push(Entry::Port(PortEntry { port: PortId(port), kind: PortKind::Access }));
    }
    for port in FABRIC.into_iter().chain([ABSENT]) {
        entries.push(Entry::Port(PortEntry { port: PortId(port), kind: PortKind::Fabric }));
    }
    let direction = |random: &mut Random| random.of(&[Direction::Uplink, Direction::Downlink]);
    for _ in 0..14 {
        entries.push(Entry::Endpoint(EndpointEntry {
            port: PortId(random.of(&ACCESS)),
            prefix: net(random),
            slice_set: SliceSet(random.of(&SETS)),
            direction: direction(random),
            endpoint: EndpointId(random.of(&ENDPOINTS)),
            tag: EndpointTag(random.of(&TAGS)),
        }));
    }
    let rules = match random.below(40) {
        0 => 64,
        1 => 1_000,
        _ => random.below(5),
    };
    for priority in 0..rules as u32 {
        entries.push(Entry::Classifier(Box::new(ClassifierEntry {
            priority: priority * 7 + 1,
            source: optional(random, 40, net),
            destination: optional(random, 40, net),
            protocol: optional(random, 50, |r| r.of(&[6, 17, 1])),
            source_ports: optional(random, 20, |r| r.of(&[[1, 1], [1, 2], [0, 1], [2, 700]])),
            destination_ports: optional(random, 40, |r| r.of(&[[1, 1], [2, 2], [2, 9], [0, 80]])),
            dscp: optional(random, 20, |r| r.of(&[0, 46])),
            slice_set: optional(random, 20, |r| SliceSet(r.of(&SETS))),
            endpoint_tag: optional(random, 15, |r| EndpointTag(r.of(&[1, 2, 0xffff]))),
            tunnel_id: optional(random, 15, |r| r.of(&SESSIONS).0),
            action: random.of(&[
                ClassifierAction::Drop,
                ClassifierAction::Pass,
                ClassifierAction::SetSlice(SliceId(2)),
                ClassifierAction::Mark(46),
                ClassifierAction::Mark(21),
                ClassifierAction::Steer(PolicyId(1)),
                ClassifierAction::Steer(PolicyId(65_535)),
            ]),
        })));
    }
    if rules == 1_000 {
        // No bit tells these apart: packets with a port 0 look at all of them.
        let wide = Some([1, 65_534]);
        for entry in entries.iter_mut().filter(|_| random.chance(70)) {
            if let Entry::Classifier(rule) = entry {
                let ClassifierEntry { priority, action, .. } = **rule;
                **rule = ClassifierEntry {
                    source_ports: wide,
                    destination_ports: wide,
                    ..ClassifierEntry::any(priority, action)
                };
            }
        }
    }
    for _ in 0..30 {
        entries.push(Entry::SliceRoute(SliceRouteEntry {
            slice_set: SliceSet(random.of(&SETS)),
            prefix: net(random),
            slice: SliceId(random.of(&SLICES)),
            action: if random.chance(30) {
                RouteAction::Local
            } else {
                RouteAction::Policy(PolicyId(random.of(&POLICIES)))
            },
            endpoint: EndpointId(random.of(&ENDPOINTS)),
        }));
    }
    for slice in SLICES {
        for way in [Direction::Uplink, Direction::Downlink] {
            if random.chance(60) {
                entries.push(Entry::SliceMeter(SliceMeterEntry {
                    slice: SliceId(slice),
                    direction: way,
                    class: random.of(&[Class::BestEffort, Class::Guaranteed, Class::Urllc]),
                    guaranteed_bps: random.of(&[0, 20_000_000]),
                    guaranteed_burst_bytes: 30_000,
                    maximum_bps: random.of(&[0, 40_000_000]),
                    maximum_burst_bytes: 60_000,
                }));
            }
        }
    }
    for slice in SLICES {
        for (way, endpoint) in [(Direction::Uplink, 1), (Direction::Downlink, 65_535)] {
            if random.chance(60) {
                entries.push(Entry::EndpointMeter(EndpointMeterEntry {
                    slice: SliceId(slice),
                    direction: way,
                    endpoint: EndpointId(endpoint),
                    guaranteed_bps: random.of(&[0, 10_000_000]),
                    guaranteed_burst_bytes: 15_000,
                    maximum_bps: random.of(&[0, 20_000_000]),
                    maximum_burst_bytes: 30_000,
                }));
            }
        }
    }
    for policy in POLICIES {
        // Half have one path, as most policies do.
        let count = if random.chance(50) { 1 } else { random.below(8) + 1 };
        let path = |random: &mut Random| {
            let n = random.below(6) + 1;
            let sids = (0..n).map(|_| random.of(&SIDS)).collect();
            Path { sids, weight: random.of(&[1, 1, 2, 5, 128]) }
        };
        let paths = (0..count).map(|_| path(random)).collect();
        if random.chance(85) {
            entries.push(Entry::Policy(PolicyEntry { policy: PolicyId(policy), paths }));
        }
    }
    let compute = |hook, on_failure| LocalSidAction::Compute { hook: HookId(hook), on_failure };
    // Id, action, percent.
    let locals = [
        (NODE, LocalSidAction::Node, 95),
        (9, LocalSidAction::Node, 10),
        (0xE001, LocalSidAction::Decapsulate, 95),
        (0xFFFF, LocalSidAction::Decapsulate, 50),
        (0xE100, compute(HOOK, OnFailure::Drop), 95),
        (0xE101, compute(QUARANTINED, OnFailure::Drop), 95),
        (0xE102, compute(QUARANTINED, OnFailure::Bypass), 95),
        (4_095, compute(HOOK, OnFailure::Bypass), 20),
    ];
    for (sid, action, percent) in locals {
        if random.chance(percent) {
            entries.push(Entry::LocalSid(LocalSidEntry { sid, action }));
        }
    }
    for node in [8, 9, 4_095] {
        entries.push(Entry::NextHop(NextHopEntry {
            node: NodeSid(node),
            port: PortId(random.of(&[FABRIC[0], FABRIC[1], ABSENT])),
            mac: random.mac(),
            backup: random.of(&[0, 1, 127]),
        }));
    }
    for around in [FABRIC[0], FABRIC[1], ABSENT] {
        for backup in [1, 127] {
            let n = random.below(5);
            entries.push(Entry::Backup(BackupEntry {
                around: PortId(around),
                backup,
                port: PortId(random.of(&[FABRIC[0], FABRIC[1], ABSENT])),
                mac: random.mac(),
                sids: (0..n).map(|_| random.of(&SIDS)).collect(),
            }));
        }
    }
    for _ in 0..16 {
        entries.push(Entry::Delivery(DeliveryEntry {
            slice: SliceId(random.of(&SLICES)),
            prefix: net(random),
            port: PortId(random.of(&[ACCESS[0], ACCESS[1], ABSENT])),
            mac: random.mac(),
            tunnel: optional(random, 40, tunnel).map(Box::new),
        }));
    }
    n3(random, &mut entries);
    entries.push(Entry::PortQueue(PortQueueEntry {
        port: PortId(FABRIC[0]),
        rate_bps: 97_000_000,
        threshold_bytes: [10_000, 20_000, 30_000],
        shaped_bps: [0; 3],
    }));
    entries
}

fn tunnel(random: &mut Random) -> Tunnel {
    let version = random.below(2);
    Tunnel {
        local: N3[version].parse().unwrap(),
        gnb: ["192.0.2.9", "2001:db8::9"][version].parse().unwrap(),
        teid: random.word() as u32 | 1,
        qfi: random.of(&[0, 1, 9, 63]),
        mtu: random.of(&[68, 150, 1500, 1543, 1544, 1563, 1564, 65_535]),
    }
}

fn n3(random: &mut Random, entries: &mut Vec<Entry>) {
    for address in N3 {
        if random.chance(90) {
            let address = address.parse().unwrap();
            entries.push(Entry::N3Address(N3AddressEntry { address }));
        }
    }
    if random.chance(10) {
        let address = random.of(&N3_MORE).parse().unwrap();
        entries.push(Entry::N3Address(N3AddressEntry { address }));
    }
    for (teid, gnb, ipv4, ipv6) in SESSIONS {
        let gnb: IpAddr = gnb.parse().unwrap();
        if random.chance(90) {
            entries.push(Entry::Endpoint(EndpointEntry {
                port: access_of(teid),
                prefix: gnb.into(),
                slice_set: SliceSet(random.of(&SETS)),
                direction: Direction::Uplink,
                endpoint: EndpointId(random.of(&ENDPOINTS)),
                tag: EndpointTag(random.of(&TAGS)),
            }));
        }
        if random.chance(90) {
            entries.push(Entry::GtpSession(Box::new(GtpSessionEntry {
                teid,
                port: access_of(teid),
                gnb: if random.chance(95) { gnb } else { address(random) },
                ue_ipv4: ipv4.map(|text| text.parse().unwrap()),
                ue_ipv6: ipv6.map(|text| text.parse().unwrap()),
                slice_set: SliceSet(random.of(&SETS)),
                direction: random.of(&[Direction::Uplink, Direction::Downlink]),
                qfis: random.of(&[0, 0, 1 << 5, u64::MAX, 1 << 63 | 1 << 5]),
                endpoint: EndpointId(random.of(&ENDPOINTS)),
                tag: EndpointTag(random.of(&TAGS)),
            })));
        }
    }
}

fn address(random: &mut Random) -> IpAddr {
    let text = if random.chance(93) { random.of(&ADDRESSES) } else { random.of(&ODD_ADDRESSES) };
    text.parse().unwrap()
}

/// An IP packet between two of the addresses of one version.
fn inner(random: &mut Random) -> Vec<u8> {
    let source = address(random);
    inner_from(random, source)
}

fn inner_from(random: &mut Random, source: IpAddr) -> Vec<u8> {
    let destination = loop {
        let destination =
            if random.chance(2) { random.of(&N3).parse().unwrap() } else { address(random) };
        if destination.is_ipv4() == source.is_ipv4() {
            break destination;
        }
    };
    let hops = if random.chance(12) { random.of(&[0, 1, 2, 255]) } else { 64 };
    let len = match random.below(4) {
        0 => random.of(&[0, 1, 3, 4, 1452, 1460, 1472, 1473, 1500]),
        _ => random.below(200),
    };
    let payload: Vec<u8> = (0..len).map(|n| n as u8).collect();
    let builder = match (source, destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), hops),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), hops),
        _ => unreachable!("one version"),
    };
    let port = |random: &mut Random| random.below(3) as u16;
    let (from, mut to) = (port(random), port(random));
    if random.chance(3) {
        to = 2152;
    }
    let mut packet = Vec::new();
    match random.below(4) {
        0 => builder.tcp(from, to, 1, 2).write(&mut packet, &payload).unwrap(),
        1 => {
            let protocol = random.of(&[1, 50, 132, 58, 17]).into();
            builder.write(&mut packet, protocol, &payload).unwrap();
        }
        _ => builder.udp(from, to).write(&mut packet, &payload).unwrap(),
    }
    // Traffic class, without a new checksum: nobody looks at it, but it must follow changes.
    match packet[0] >> 4 {
        4 => {
            packet[1] = random.of(&[0, 1, 2, 3, 46 << 2, 46 << 2 | 1]);
            if random.chance(5) {
                packet[6] = random.of(&[0x20, 0x40, 0x01]);
            }
        }
        _ => {
            let class = random.of(&[0u8, 1, 2, 3, 46 << 2, 46 << 2 | 2]);
            packet[0] = 0x60 | class >> 4;
            packet[1] = packet[1] & 0x0f | class << 4;
            if random.chance(30) {
                extend(random, &mut packet);
            }
        }
    }
    packet
}

/// Puts extension headers behind an IPv6 header; now and then more, shorter or elsewhere than
/// they may be.
fn extend(random: &mut Random, packet: &mut Vec<u8>) {
    for n in (0..random.of(&[1, 1, 1, 2, 3, 6, 7])).rev() {
        let kind =
            if n == 0 { random.of(&[0, 43, 44, 51, 60]) } else { random.of(&[43, 44, 51, 60, 60]) };
        let mut header = vec![packet[6], random.of(&[0, 1, 1, 2, 3])];
        match kind {
            44 => header.extend(random.of(&[[0u8, 0], [0, 1], [0, 8], [0, 9], [0, 6]])),
            _ => header.extend([1, 4]),
        }
        let len = match kind {
            44 => 8,
            51 => 4 * (usize::from(header[1]) + 2),
            _ => 8 * (usize::from(header[1]) + 1),
        };
        header.resize(if random.chance(98) { len } else { len - 3 }.max(4), 0);
        packet[6] = if random.chance(97) { kind } else { 0 };
        packet.splice(40..40, header);
    }
    let len = (packet.len() - 40) as u16;
    packet[4..6].copy_from_slice(&len.to_be_bytes());
}

fn ethernet(random: &mut Random, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let gateway = entry::gateway::MAC;
    [&gateway[..], &random.mac(), &ethertype.to_be_bytes(), payload].concat()
}

fn ip_frame(random: &mut Random, packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86DD };
    ethernet(random, ethertype, packet)
}

/// What a gNB sends to N3, mostly of one of [`SESSIONS`].
fn gtp(random: &mut Random) -> Vec<u8> {
    let (mut teid, gnb, ipv4, ipv6) = random.of(&SESSIONS);
    let mut gnb: IpAddr = gnb.parse().unwrap();
    if random.chance(6) {
        teid = random.of(&[0, 1, 2, 3, 0x8000_0000]);
    }
    if random.chance(4) {
        gnb = address(random);
    }
    let kind = match random.below(20) {
        0 | 1 => 1,
        2 => random.of(&[2, 26, 31, 254, 254]),
        3 => random.of(&[0, 3, 128, 253]),
        _ => 255,
    };
    let mut body = match kind {
        26 => [&[16][..], &teid.to_be_bytes(), &[133, 0, 4, 192, 0, 2, 9]].concat(),
        255 if random.chance(98) => {
            let of_ue = random.chance(92);
            let text = [ipv4, ipv6].into_iter().flatten().next_back().filter(|_| of_ue);
            let text = if random.chance(50) { ipv4.filter(|_| of_ue).or(text) } else { text };
            let ue = text.map(|text| text.split('/').next().unwrap().parse::<IpAddr>().unwrap());
            let ue = ue.unwrap_or_else(|| address(random));
            inner_from(random, ue)
        }
        _ => Vec::new(),
    };

    let mut flags = 0x30u8 | random.of(&[0, 0, 0, 2, 1, 8]);
    if kind == 1 && random.chance(90) {
        flags |= 2;
    }
    // Extension headers, from the last on; the container is what N3 has (TS 38.415).
    let mut next = 0u8;
    let mut extensions = Vec::new();
    let count = if random.chance(85) { 1 } else { random.below(6) };
    for n in 0..count {
        let mut kind = random.of(&[0x85, 0x85, 0x85, 0x85, 0x85, 0x40, 0x20, 0x84, 0xc0]);
        if n == 0 && random.chance(90) {
            kind = 0x85;
        } else if random.chance(50) {
            kind = random.of(&[0x40, 0x20, 0x03]);
        }
        let units = if random.chance(90) { 1 } else { random.of(&[0, 2, 3, 31, 63]) };
        let mut header = vec![0; 4 * units.max(1)];
        header[0] = units as u8;
        header[1] = random.of(&[0x10, 0x10, 0x10, 0x10, 0x1f, 0x00, 0x20]);
        header[2] = random.of(&[5, 5, 5, 63, 0xc5, 9]);
        *header.last_mut().unwrap() = next;
        extensions.splice(0..0, header);
        next = kind;
    }
    if count > 0 {
        flags |= 4;
    }
    let optional = if flags & 7 != 0 { vec![0x12, 0x34, 0, next] } else { vec![] };
    let mut len = optional.len() + extensions.len() + body.len();
    if random.chance(3) {
        len = random.of(&[0, 1, 3, 4, len + 1, len.saturating_sub(1), 0xffff]);
    }
    let mut message = vec![flags, kind];
    message.extend((len as u16).to_be_bytes());
    message.extend(teid.to_be_bytes());
    message.extend(optional);
    message.extend(extensions);
    message.append(&mut body);
    if random.chance(2) {
        message.extend([0xee; 5]);
    }

    let to = random.of(&N3).parse::<IpAddr>().unwrap();
    let to = if to.is_ipv4() == gnb.is_ipv4() {
        to
    } else {
        N3[usize::from(gnb.is_ipv6())].parse().unwrap()
    };
    let mut packet = Vec::new();
    let port = if random.chance(97) { 2152 } else { random.of(&[2123, 2153, 0]) };
    let from = random.of(&[2152, 50_000, 1]);
    match (gnb, to) {
        (IpAddr::V4(gnb), IpAddr::V4(to)) => {
            PacketBuilder::ipv4(gnb.octets(), to.octets(), 64)
                .udp(from, port)
                .write(&mut packet, &message)
                .unwrap();
            packet[1] = random.of(&[0, 0, 0, 1, 2, 3, 46 << 2 | 3]);
            if random.chance(4) {
                packet[6] = random.of(&[0x20, 0x40, 0x01]);
            }
            if random.chance(4) {
                // Options: one word of "no operation" (RFC 791 §3.1).
                packet[0] = 0x46;
                let total = u16::from_be_bytes([packet[2], packet[3]]) + 4;
                packet[2..4].copy_from_slice(&total.to_be_bytes());
                packet.splice(20..20, [1; 4]);
            }
        }
        (IpAddr::V6(gnb), IpAddr::V6(to)) => {
            PacketBuilder::ipv6(gnb.octets(), to.octets(), 64)
                .udp(from, port)
                .write(&mut packet, &message)
                .unwrap();
            packet[1] = random.of(&[0, 0, 0, 0x10, 0x20, 0x30]);
        }
        _ => unreachable!("one version"),
    }
    ip_frame(random, &packet)
}

fn encapsulated(random: &mut Random) -> Vec<u8> {
    let packet = inner(random);
    let protocol = if packet[0] >> 4 == 4 { 4 } else { 41 };
    let dscp = random.of(&[0u8, 34, 36, 46, 44, 8]);
    let class = dscp << 2 | random.below(4) as u8;
    let mut outer = vec![0x60 | class >> 4, class << 4, 0x12, 0x34];
    outer.extend((packet.len() as u16).to_be_bytes());
    outer.extend([protocol, random.of(&[0, 1, 2, 64, 64, 64])]);
    let mark = if random.chance(95) { 0xfffeu16 } else { 0xfffd };
    let groups = [
        0x5f00,
        0,
        8,
        mark,
        random.of(&[1, 2, 3, 16_383, 16_384, 0xffff]),
        random.of(&[0, 1, 1, 2]),
    ];
    // The last holds the mark, and whether the packet has been led around a failure.
    let last = random.of(&[0, 0, 1, 2, 3]);
    outer.extend(groups.into_iter().chain([0, last]).flat_map(u16::to_be_bytes));
    let n = random.below(6) + 1;
    let mut sids: Vec<u16> = (0..n).map(|_| random.of(&SIDS)).collect();
    if random.chance(30) {
        sids = vec![NODE, 0xE001];
    }
    sids.resize(6, 0);
    outer.extend([0x5f00, 0].into_iter().chain(sids).flat_map(u16::to_be_bytes));
    outer.extend(packet);
    ethernet(random, 0x86DD, &outer)
}

fn v4(random: &mut Random) -> [u8; 4] {
    loop {
        if let IpAddr::V4(address) = address(random) {
            return address.octets();
        }
    }
}

fn v6(random: &mut Random) -> [u8; 16] {
    loop {
        if let IpAddr::V6(address) = address(random) {
            return address.octets();
        }
    }
}

fn arp(random: &mut Random) -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, random.of(&[1, 1, 1, 2])];
    body.extend(random.mac());
    body.extend(v4(random));
    body.extend([0; 6]);
    let gateway = entry::gateway::IPV4.octets();
    let n3 = N3[0].parse::<Ipv4Addr>().unwrap().octets();
    body.extend(if random.chance(80) { random.of(&[gateway, gateway, n3]) } else { v4(random) });
    if random.chance(50) {
        body.extend([0; 18]);
    }
    ethernet(random, 0x0806, &body)
}

fn discovery(random: &mut Random) -> Vec<u8> {
    let gateway = entry::gateway::IPV6.octets();
    let n3 = N3[1].parse::<Ipv6Addr>().unwrap().octets();
    let own = random.of(&[gateway, gateway, n3]);
    let target = if random.chance(80) { own } else { v6(random) };
    let source = match random.below(6) {
        0 => [0; 16],
        1 => "fe80::22".parse::<Ipv6Addr>().unwrap().octets(),
        _ => v6(random),
    };
    let mut message =
        vec![random.of(&[135, 135, 135, 135, 133, 133, 136, 128]), 0, 0, 0, 0, 0, 0, 0];
    message.extend(target);
    if random.chance(60) {
        message.extend([1, 1]);
        message.extend(random.mac());
    }
    let mut packet = vec![0x60, 0, 0, 0];
    let len = if random.chance(10) { random.below(message.len()) } else { message.len() };
    packet.extend((len as u16).to_be_bytes());
    packet.extend([58, random.of(&[255, 255, 255, 64])]);
    packet.extend(source);
    packet.extend(if random.chance(50) { gateway } else { v6(random) });
    packet.extend(message);
    ethernet(random, 0x86DD, &packet)
}

/// What a client says to a relay, mostly.
fn dhcp(random: &mut Random) -> Vec<u8> {
    let payload = vec![1; random.below(40)];
    let hops = random.of(&[1, 64, 255]);
    let mut packet = Vec::new();
    if random.chance(50) {
        let source = random.of(&["0.0.0.0", "0.0.0.0", "10.1.0.1", "10.1.0.2"]);
        let to = random.of(&["255.255.255.255", "255.255.255.255", "169.254.1.1", "10.1.0.2"]);
        let [source, to] = [source, to].map(|text| text.parse::<Ipv4Addr>().unwrap().octets());
        let builder = PacketBuilder::ipv4(source, to, hops);
        let ports = random.of(&[(68, 67), (68, 67), (68, 67), (67, 68), (68, 69)]);
        builder.udp(ports.0, ports.1).write(&mut packet, &payload).unwrap();
        if random.chance(5) {
            packet[6] = random.of(&[0x20, 0x40, 0x01]);
        }
    } else {
        let source = random.of(&["fe80::22", "fe80::22", "fe80::22", "fd10::1", "::"]);
        let to = random.of(&["ff02::1:2", "ff02::1:2", "ff02::1:2", "ff02::1:3", "fe80::1"]);
        let [source, to] = [source, to].map(|text| text.parse::<Ipv6Addr>().unwrap().octets());
        let builder = PacketBuilder::ipv6(source, to, hops);
        let ports = random.of(&[(546, 547), (546, 547), (546, 547), (547, 546), (546, 548)]);
        builder.udp(ports.0, ports.1).write(&mut packet, &payload).unwrap();
        if random.chance(10) {
            packet[5] = random.below(9) as u8;
        }
    }
    ip_frame(random, &packet)
}

pub(crate) fn frame(random: &mut Random, fabric: bool) -> Vec<u8> {
    if random.chance(2) {
        let mut frame = dhcp(random);
        damage(random, &mut frame);
        return frame;
    }
    let mut frame = match random.below(20) {
        0 => arp(random),
        1 => discovery(random),
        2 => {
            let ethertype = random.of(&[0x88CC, 0x8100, 0x0806, 0x0800, 0x86DD, 0x1234]);
            let junk: Vec<u8> = (0..random.below(80)).map(|_| random.word() as u8).collect();
            ethernet(random, ethertype, &junk)
        }
        3 | 4 => encapsulated(random),
        n if fabric && n > 5 => encapsulated(random),
        n if n > 12 => gtp(random),
        _ => {
            let packet = inner(random);
            ip_frame(random, &packet)
        }
    };
    damage(random, &mut frame);
    frame
}

/// A third of all frames is changed; what is left is at least an Ethernet header.
fn damage(random: &mut Random, frame: &mut Vec<u8>) {
    if random.chance(10) {
        let at = random.below(frame.len());
        frame[at] = random.word() as u8;
    }
    if random.chance(6) {
        // Near an edge: by one, one bit, or to what is special in some field.
        for _ in 0..random.below(4) + 1 {
            let at = random.below(frame.len());
            frame[at] = match random.below(4) {
                0 => frame[at].wrapping_add(1),
                1 => frame[at].wrapping_sub(1),
                2 => frame[at] ^ 1 << random.below(8),
                _ => random.of(&[0, 1, 4, 6, 17, 41, 58, 0x45, 0x46, 0x4f, 0x5f, 0x60, 0xfe, 0xff]),
            };
        }
    }
    if random.chance(2) {
        // Bytes in another place.
        let (from, to) = (random.below(frame.len()), random.below(frame.len()));
        let len = random.below(frame.len() - from.max(to)) + 1;
        frame.copy_within(from..from + len, to);
    }
    if random.chance(8) {
        frame.truncate(random.below(frame.len()).max(14));
    }
    if random.chance(8) {
        let padded = frame.len() + random.below(40);
        frame.resize(padded, 0xee);
    }
}
