//! The programs against southbound/pipeline's interpreter: random tables, random packets,
//! some of them cut, stretched or damaged; verdict, port and bytes must be the same.

mod common;

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use common::entries::put;
use common::{PinDir, in_netns, veth};
use etherparse::PacketBuilder;
use ipnet::IpNet;
use selvedge_pipeline::model::{self, Ingress, Port};
use selvedge_pipeline::*;
use selvedge_xdp::{HookState, Switch, Verdict};

const PACKETS: usize = 30_000;
/// Attached in the order of their ids; 5 has no `port` entry, 6 no interface.
const ACCESS: [u16; 2] = [1, 2];
const FABRIC: [u16; 2] = [3, 4];
const DISABLED: u16 = 5;
const ABSENT: u16 = 6;
const NODE: u16 = 7;

/// SplitMix64; the seed is printed with a failure.
struct Random(u64);

impl Random {
    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        (self.word() % n as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn of<T: Clone>(&mut self, items: &[T]) -> T {
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
const ODD_ADDRESSES: [&str; 12] = [
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
];
const PREFIXES: [&str; 9] = [
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.0.0/24",
    "0.0.0.0/0",
    "::/0",
    "fd10::/16",
    "fd10::/112",
    "fd00::/8",
    "10.1.0.2/31",
];
const SETS: [u16; 4] = [1, 2, 3, 5000];
const SLICES: [u16; 3] = [1, 2, 3];
const SIDS: [u16; 10] = [NODE, 8, 9, 10, 0xE001, 0xE100, 0xE101, 0xE102, 0xE105, 0x2000];

fn net(random: &mut Random) -> IpNet {
    if random.chance(60) {
        random.of(&ADDRESSES).parse::<std::net::IpAddr>().unwrap().into()
    } else {
        random.of(&PREFIXES).parse::<IpNet>().unwrap().trunc()
    }
}

fn optional<T>(random: &mut Random, percent: usize, value: impl Fn(&mut Random) -> T) -> Option<T> {
    random.chance(percent).then(|| value(random))
}

fn tables(random: &mut Random) -> Vec<Entry> {
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
        }));
    }
    for priority in 0..random.below(5) as u32 {
        entries.push(Entry::Classifier(ClassifierEntry {
            priority: priority * 7 + 1,
            source: optional(random, 40, net),
            destination: optional(random, 40, net),
            protocol: optional(random, 50, |r| r.of(&[6, 17, 1])),
            source_port: optional(random, 20, |r| r.of(&[1, 2])),
            destination_port: optional(random, 40, |r| r.of(&[1, 2])),
            dscp: optional(random, 20, |r| r.of(&[0, 46])),
            action: random.of(&[
                ClassifierAction::Drop,
                ClassifierAction::Pass,
                ClassifierAction::SetSlice(SliceId(2)),
            ]),
        }));
    }
    for _ in 0..30 {
        entries.push(Entry::SliceRoute(SliceRouteEntry {
            slice_set: SliceSet(random.of(&SETS)),
            prefix: net(random),
            slice: SliceId(random.of(&SLICES)),
            action: if random.chance(30) {
                RouteAction::Local
            } else {
                RouteAction::Policy(PolicyId(random.below(6) as u32 + 1))
            },
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
    for policy in 1..=5 {
        let n = random.below(6) + 1;
        let sids = (0..n).map(|_| random.of(&SIDS)).collect();
        entries.push(Entry::Policy(PolicyEntry { policy: PolicyId(policy), sids }));
    }
    let locals = [
        (NODE, LocalSidAction::Node),
        (0xE001, LocalSidAction::Decapsulate),
        (0xE100, LocalSidAction::Compute { hook: HookId(0), on_failure: OnFailure::Drop }),
        (0xE101, LocalSidAction::Compute { hook: HookId(1), on_failure: OnFailure::Drop }),
        (0xE102, LocalSidAction::Compute { hook: HookId(1), on_failure: OnFailure::Bypass }),
    ];
    for (sid, action) in locals {
        entries.push(Entry::LocalSid(LocalSidEntry { sid, action }));
    }
    for node in [8, 9] {
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
        }));
    }
    entries.push(Entry::PortQueue(PortQueueEntry {
        port: PortId(FABRIC[0]),
        rate_bps: 97_000_000,
        threshold_bytes: [10_000, 20_000, 30_000],
    }));
    entries
}

fn address(random: &mut Random) -> std::net::IpAddr {
    let text = if random.chance(93) { random.of(&ADDRESSES) } else { random.of(&ODD_ADDRESSES) };
    text.parse().unwrap()
}

/// An IP packet between two of the addresses of one version.
fn inner(random: &mut Random) -> Vec<u8> {
    let source = address(random);
    let destination = loop {
        let destination = address(random);
        if destination.is_ipv4() == source.is_ipv4() {
            break destination;
        }
    };
    let hops = random.of(&[0, 1, 2, 64, 64, 64, 64, 255]);
    let len = random.of(&[0, 1, 3, 4, 40, 1452, 1460, 1472, 1473, 1500]);
    let payload: Vec<u8> = (0..len).map(|n| n as u8).collect();
    let builder = match (source, destination) {
        (std::net::IpAddr::V4(from), std::net::IpAddr::V4(to)) => {
            PacketBuilder::ipv4(from.octets(), to.octets(), hops)
        }
        (std::net::IpAddr::V6(from), std::net::IpAddr::V6(to)) => {
            PacketBuilder::ipv6(from.octets(), to.octets(), hops)
        }
        _ => unreachable!("one version"),
    };
    let port = |random: &mut Random| random.below(3) as u16;
    let (from, to) = (port(random), port(random));
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
        }
    }
    packet
}

fn ethernet(random: &mut Random, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let gateway = entry::gateway::MAC;
    [&gateway[..], &random.mac(), &ethertype.to_be_bytes(), payload].concat()
}

fn ip_frame(random: &mut Random, packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86DD };
    ethernet(random, ethertype, packet)
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
    let groups = [0x5f00, 0, 8, mark, random.of(&[1, 2, 3, 4, 5000]), random.of(&[0, 1, 1, 2])];
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
        if let std::net::IpAddr::V4(address) = address(random) {
            return address.octets();
        }
    }
}

fn v6(random: &mut Random) -> [u8; 16] {
    loop {
        if let std::net::IpAddr::V6(address) = address(random) {
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
    body.extend(if random.chance(80) { gateway } else { v4(random) });
    if random.chance(50) {
        body.extend([0; 18]);
    }
    ethernet(random, 0x0806, &body)
}

fn discovery(random: &mut Random) -> Vec<u8> {
    let gateway = entry::gateway::IPV6.octets();
    let target = if random.chance(80) { gateway } else { v6(random) };
    let source = match random.below(6) {
        0 => [0; 16],
        1 => "fe80::22".parse::<std::net::Ipv6Addr>().unwrap().octets(),
        _ => v6(random),
    };
    let mut message = vec![random.of(&[135, 135, 135, 135, 133, 136, 128]), 0, 0, 0, 0, 0, 0, 0];
    message.extend(target);
    if random.chance(60) {
        message.extend([1, 1]);
        message.extend(random.mac());
    }
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((message.len() as u16).to_be_bytes());
    packet.extend([58, random.of(&[255, 255, 255, 64])]);
    packet.extend(source);
    packet.extend(if random.chance(50) { gateway } else { v6(random) });
    packet.extend(message);
    ethernet(random, 0x86DD, &packet)
}

fn frame(random: &mut Random, fabric: bool) -> Vec<u8> {
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
        _ => {
            let packet = inner(random);
            ip_frame(random, &packet)
        }
    };
    if random.chance(10) {
        let at = random.below(frame.len());
        frame[at] = random.word() as u8;
    }
    if random.chance(8) {
        frame.truncate(random.below(frame.len()).max(14));
    }
    if random.chance(8) {
        let padded = frame.len() + random.below(40);
        frame.resize(padded, 0xee);
    }
    frame
}

fn expected(verdict: model::Verdict) -> Verdict {
    match verdict {
        model::Verdict::Drop(reason) => Verdict::Dropped(reason as u8),
        model::Verdict::Out { port, frame } => Verdict::Forwarded { port: port.0, frame },
        model::Verdict::Answer { frame, .. } => Verdict::Answered { frame },
        model::Verdict::PassToKernel => Verdict::Passed,
        model::Verdict::ToHook { hook, frame } => Verdict::ToHook { hook: hook.0, frame },
    }
}

fn clear(switch: &Switch) {
    use selvedge_xdp::Table;
    fn empty<T: Table>(table: &T) {
        for (key, _) in table.entries().unwrap() {
            assert!(table.remove(key).unwrap());
        }
        assert!(table.entries().unwrap().is_empty());
    }
    empty(&switch.port);
    empty(&switch.endpoint);
    empty(&switch.classifier);
    empty(&switch.route);
    empty(&switch.meter);
    empty(&switch.policy);
    empty(&switch.local_sid);
    empty(&switch.next_hop);
    empty(&switch.backup);
    empty(&switch.delivery);
    empty(&switch.queue);
}

#[test]
fn the_programs_do_what_the_model_says() {
    in_netns(|| {
        let pins = PinDir::new();
        let options = selvedge_xdp::Options { metering: false, ..pins.options() };
        let mut switch = Switch::open(&options).unwrap();
        let mut model_ports = BTreeMap::new();
        let mut ifindices = BTreeMap::new();
        for port in ACCESS.into_iter().chain(FABRIC).chain([DISABLED]) {
            let interface = veth(&format!("p{port}"));
            switch.attach(port, &interface).unwrap();
            ifindices.insert(port, interface.index);
            model_ports.insert(port, interface.mac);
        }
        let hook = veth("hk0");
        switch.attach_hook(0, &hook, &common::interface("hk0h")).unwrap();
        let socket = common::xdp_socket();
        switch.set_hook_socket(0, socket.as_fd()).unwrap();
        switch.set_hook_state(0, Some(HookState::Running)).unwrap();
        switch.set_hook_state(1, Some(HookState::Quarantined)).unwrap();

        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        for seed in 0..30 {
            let mut random = Random(seed);
            clear(&switch);
            let entries = tables(&mut random);
            let mut model = model::Switch::new(entries.clone());
            for entry in &entries {
                put(&switch, entry);
            }
            for (port, mac) in &model_ports {
                model.set_port(PortId(*port), Port { mac: *mac, up: true });
            }
            for port in FABRIC {
                let down = random.chance(30);
                model.set_down(PortId(port), down);
                switch.port_states.set(port, !down).unwrap();
            }
            model.set_hook(HookId(0), true);
            model.set_mark(seed % 2 == 1);
            switch.probes.set_mark(seed % 2 == 1).unwrap();
            for n in 0..PACKETS / 30 {
                let fabric = random.chance(50);
                let (ingress, ifindex) = match random.below(20) {
                    0 => (Ingress::Port(PortId(DISABLED)), ifindices[&DISABLED]),
                    1 | 2 if fabric => (Ingress::Compute(HookId(0)), hook.index),
                    _ => {
                        let port = random.of(if fabric { &FABRIC } else { &ACCESS });
                        (Ingress::Port(PortId(port)), ifindices[&port])
                    }
                };
                let frame = frame(&mut random, fabric);
                let outcome = model::process(&model, ingress, &frame);
                let want = expected(outcome.verdict);
                let got = switch.test_run(ifindex, &frame).unwrap().verdict;
                assert_eq!(
                    got, want,
                    "seed {seed}, packet {n} at {ingress:?}: {frame:02x?}\nhits {:#?}",
                    outcome.hits
                );
                let name = match got {
                    Verdict::Dropped(reason) => {
                        selvedge_xdp::common::drop::NAMES[usize::from(reason)]
                    }
                    Verdict::Forwarded { .. } => "forwarded",
                    Verdict::ToHook { .. } => "to hook",
                    Verdict::Answered { .. } => "answered",
                    Verdict::Passed => "passed",
                };
                *reasons.entry(name.to_owned()).or_default() += 1;
            }
        }
        println!("{reasons:#?}");
        // What a full bucket and an empty queue cannot show is tested elsewhere.
        let unseen = ["over_maximum", "queue_full"];
        for name in selvedge_xdp::common::drop::NAMES {
            assert_eq!(reasons.contains_key(name), !unseen.contains(&name), "{name}");
        }
        let totals = switch.counters.totals().unwrap();
        assert_eq!(
            totals.received,
            totals.forwarded + totals.passed + totals.answered + totals.dropped,
            "{totals:?}"
        );
        assert!(totals.received >= PACKETS as u64);
    });
}
