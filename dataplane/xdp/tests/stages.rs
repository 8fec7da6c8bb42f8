//! Each stage byte by byte against frames that etherparse builds, and what time and load do:
//! meters and virtual queues at their rate and beyond.

mod common;

use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{PinDir, in_netns, veth};
use etherparse::{Ethernet2Header, IpNumber, Ipv6FlowLabel, Ipv6Header, PacketBuilder};
use selvedge_xdp::common::drop;
use selvedge_xdp::{
    Class, Delivery, Direction, Endpoint, EndpointMeter, LocalSid, Meter, NextHop, Path, Policy,
    PortKind, Queue, Route, RouteAction, Rule, RuleAction, Switch, Table, Verdict,
};

const HOST: [u8; 6] = [2, 0, 0, 0, 0, 0x11];
const GATEWAY: [u8; 6] = [0x02, 0x5E, 0x1F, 0, 0, 1];
const NEIGHBOR: [u8; 6] = [2, 0, 0, 0, 0, 0x22];

/// Access port 1 with 10.1.0.11 and fd10::11, fabric port 2 towards node 9; this is node 7.
struct Bed {
    switch: Switch,
    access: u32,
    fabric: u32,
    fabric_mac: [u8; 6],
    _pins: PinDir,
}

fn bed() -> Bed {
    let pins = PinDir::new();
    let switch = pins.open();
    bed_of(switch, pins)
}

/// Time passes by [`Switch::set_clock`] alone.
fn timed_bed() -> Bed {
    let pins = PinDir::new();
    let switch = Switch::open_with_set_clock(&pins.options()).unwrap();
    bed_of(switch, pins)
}

fn bed_of(mut switch: Switch, pins: PinDir) -> Bed {
    let (p1, p2) = (veth("p1"), veth("p2"));
    switch.attach(1, &p1).unwrap();
    switch.attach(2, &p2).unwrap();
    switch.port.put(1, &PortKind::Access).unwrap();
    switch.port.put(2, &PortKind::Fabric).unwrap();
    for address in ["10.1.0.11/32", "fd10::11/128"] {
        let net = address.parse().unwrap();
        let endpoint = Endpoint { slice_set: 3, direction: Direction::Uplink, endpoint: 0, tag: 0 };
        switch.endpoint.put((1, net), &endpoint).unwrap();
        switch.delivery.put((3, net), &Delivery { port: 1, mac: HOST, tunnel: None }).unwrap();
        switch
            .route
            .put((3, net), &Route { slice: 3, action: RouteAction::Local, endpoint: 0 })
            .unwrap();
    }
    for prefix in ["10.2.0.0/16", "fd20::/64"] {
        let route = Route { slice: 3, action: RouteAction::Policy(1), endpoint: 0 };
        switch.route.put((3, prefix.parse().unwrap()), &route).unwrap();
    }
    switch.policy.put(1, &Policy::one(&[9, 0xE001])).unwrap();
    switch.local_sid.put(7, &LocalSid::Node).unwrap();
    switch.local_sid.put(0xE001, &LocalSid::Decapsulate).unwrap();
    switch.next_hop.put(9, &NextHop { port: 2, mac: NEIGHBOR, backup: 0 }).unwrap();
    Bed { switch, access: p1.index, fabric: p2.index, fabric_mac: p2.mac, _pins: pins }
}

impl Bed {
    fn sent(&self, ifindex: u32, frame: &[u8]) -> (u16, Vec<u8>) {
        match self.switch.test_run(ifindex, frame).unwrap().verdict {
            Verdict::Forwarded { port, frame } => (port, frame),
            other => panic!("{other:?}"),
        }
    }

    fn dropped(&self, ifindex: u32, frame: &[u8]) -> u8 {
        match self.switch.test_run(ifindex, frame).unwrap().verdict {
            Verdict::Dropped(reason) => reason,
            other => panic!("{other:?}"),
        }
    }
}

/// Ethernet and an IPv4 UDP packet of `len` bytes from 10.1.0.11 to 10.2.0.5.
fn v4(hops: u8, class: u8, len: usize) -> Vec<u8> {
    let mut ip = etherparse::Ipv4Header::new(
        (len - 20) as u16,
        hops,
        IpNumber::UDP,
        [10, 1, 0, 11],
        [10, 2, 0, 5],
    )
    .unwrap();
    ip.dscp = etherparse::IpDscp::try_new(class >> 2).unwrap();
    ip.ecn = etherparse::IpEcn::try_new(class & 3).unwrap();
    ip.header_checksum = ip.calc_header_checksum();
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(HOST, GATEWAY)
        .ip(etherparse::IpHeaders::Ipv4(ip, Default::default()))
        .udp(4000, 5001)
        .write(&mut frame, &vec![0x5a; len - 28])
        .unwrap();
    frame
}

fn label(source: Ipv6Addr, destination: Ipv6Addr, ports: u32, protocol: u32) -> u32 {
    let halves = |address: Ipv6Addr| [(address.to_bits() >> 64) as u64, address.to_bits() as u64];
    let ([a, b], [c, d]) = (halves(source), halves(destination));
    let sum = [
        (a, 0x243f_6a88_85a3_08d3),
        (b, 0x1319_8a2e_0370_7345),
        (c, 0xa409_3822_299f_31d1),
        (d, 0x082e_fa98_ec4e_6c89),
        (u64::from(ports) << 8 | u64::from(protocol), 0x4528_21e6_38d0_1377u64),
    ]
    .iter()
    .fold(0u64, |sum, (word, factor)| sum.wrapping_add(word.wrapping_mul(*factor)));
    ((sum ^ sum >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44) as u32
}

fn outer(
    (to, from): ([u8; 6], [u8; 6]),
    class: u8,
    label: u32,
    hops: u8,
    source: &str,
    destination: &str,
    inner: &[u8],
) -> Vec<u8> {
    let protocol = if inner[0] >> 4 == 4 { IpNumber::IPV4 } else { IpNumber::IPV6 };
    let mut frame = Vec::new();
    let ethernet =
        Ethernet2Header { source: from, destination: to, ether_type: etherparse::EtherType::IPV6 };
    ethernet.write(&mut frame).unwrap();
    let header = Ipv6Header {
        traffic_class: class,
        flow_label: Ipv6FlowLabel::try_new(label).unwrap(),
        payload_length: inner.len() as u16,
        next_header: protocol,
        hop_limit: hops,
        source: source.parse::<Ipv6Addr>().unwrap().octets(),
        destination: destination.parse::<Ipv6Addr>().unwrap().octets(),
    };
    header.write(&mut frame).unwrap();
    frame.extend_from_slice(inner);
    frame
}

#[test]
fn ingress_encapsulates() {
    in_netns(|| {
        let bed = bed();
        for class in [0u8, 1, 2, 3, 46 << 2 | 1] {
            let (port, frame) = bed.sent(bed.access, &v4(64, class, 128));
            let label = label(
                "::ffff:10.1.0.11".parse().unwrap(),
                "::ffff:10.2.0.5".parse().unwrap(),
                4000 << 16 | 5001,
                17,
            );
            let want = outer(
                (NEIGHBOR, bed.fabric_mac),
                class & 3,
                label,
                64,
                "5f00:0:7:fffe:3:1::",
                "5f00:0:9:e001::",
                &v4(63, class, 128)[14..],
            );
            assert_eq!((port, frame), (2, want), "class {class:#x}");
        }
        // Padded to the least Ethernet frame, and cut to its packet again.
        let mut short = v4(64, 0, 28);
        short.resize(60, 0);
        assert_eq!(bed.sent(bed.access, &short).1.len(), 14 + 40 + 28);

        let mut v6 = Vec::new();
        let (from, to): (Ipv6Addr, Ipv6Addr) =
            ("fd10::11".parse().unwrap(), "fd20::5".parse().unwrap());
        PacketBuilder::ethernet2(HOST, GATEWAY)
            .ipv6(from.octets(), to.octets(), 64)
            .tcp(1, 2, 3, 4)
            .write(&mut v6, &[9; 100])
            .unwrap();
        let (port, frame) = bed.sent(bed.access, &v6);
        v6[14 + 7] = 63;
        let want = outer(
            (NEIGHBOR, bed.fabric_mac),
            0,
            label(from, to, 1 << 16 | 2, 6),
            64,
            "5f00:0:7:fffe:3:1::",
            "5f00:0:9:e001::",
            &v6[14..],
        );
        assert_eq!((port, frame), (2, want));
        let counters = bed.switch.counters.slice(3, Direction::Uplink).unwrap();
        assert_eq!((counters.packets, counters.bytes), (7, 5 * 128 + 28 + 160));
    });
}

/// Rows of entries that stay are moved for others, and no packet misses one.
#[test]
fn packets_find_their_entries_while_others_come_and_go() {
    const STAY: u8 = 200;
    in_netns(|| {
        let bed = bed();
        let Switch { endpoint, route, .. } = &bed.switch;
        let bound = Endpoint { slice_set: 3, direction: Direction::Uplink, endpoint: 0, tag: 0 };
        let leads = Route { slice: 3, action: RouteAction::Policy(1), endpoint: 0 };
        let at = |address: [u8; 4]| std::net::IpAddr::from(address).into();
        for n in 0..STAY {
            endpoint.put((1, at([10, 1, 1, n])), &bound).unwrap();
            route.put((3, at([10, 2, 1, n])), &leads).unwrap();
        }
        let done = AtomicBool::new(false);
        let rounds = thread::scope(|scope| {
            let churn = scope.spawn(|| {
                let others = || (0u32..60_000).map(|n| [10, 9, (n >> 8) as u8, n as u8]);
                let mut rounds = 0;
                while !done.load(Ordering::Relaxed) {
                    for other in others() {
                        endpoint.put((1, at(other)), &bound).unwrap();
                        route.put((3, at(other)), &leads).unwrap();
                    }
                    for other in others() {
                        assert!(endpoint.remove((1, at(other))).unwrap());
                        assert!(route.remove((3, at(other))).unwrap());
                    }
                    rounds += 1;
                }
                rounds
            });
            for n in 0..50_000u32 {
                let mut frame = v4(64, 0, 64);
                let last = (n % u32::from(STAY)) as u8;
                frame[28..30].copy_from_slice(&[1, last]);
                frame[32..34].copy_from_slice(&[1, last]);
                let run = bed.switch.test_run(bed.access, &frame).unwrap();
                let out = matches!(run.verdict, Verdict::Forwarded { port: 2, .. });
                assert!(out, "frame {n}: {:?}", run.verdict);
            }
            done.store(true, Ordering::Relaxed);
            churn.join().unwrap()
        });
        assert!(rounds > 0);
    });
}

/// Ids that a packet leaves with from the access port, by its UDP source port.
fn path_of(bed: &Bed, flow: u16) -> [u8; 12] {
    let mut frame = v4(64, 0, 128);
    frame[34..36].copy_from_slice(&flow.to_be_bytes());
    let (_, sent) = bed.sent(bed.access, &frame);
    *sent[42..].first_chunk().unwrap()
}

fn policy(paths: &[&[u16]], buckets: impl Fn(usize) -> u8) -> Policy {
    let path = |sids: &&[u16]| Path { sids: sids.to_vec(), weight: 1 };
    Policy { paths: paths.iter().map(path).collect(), buckets: std::array::from_fn(buckets) }
}

#[test]
fn flows_take_the_paths_of_their_buckets() {
    in_netns(|| {
        let bed = bed();
        let paths: Vec<Vec<u16>> = (1..=8).map(|n| vec![9, n, 0xE001]).collect();
        let paths: Vec<&[u16]> = paths.iter().map(Vec::as_slice).collect();
        // What a bucket leads to is not the bucket's number, nor the same for neighbors.
        let path_in = |bucket: usize| (bucket * 5 / 16 % 8) as u8;
        bed.switch.policy.put(1, &policy(&paths, path_in)).unwrap();
        let ends = ["::ffff:10.1.0.11", "::ffff:10.2.0.5"].map(|text| text.parse().unwrap());
        let mut met = [0; 8];
        for flow in 4000..4300u16 {
            let label = label(ends[0], ends[1], u32::from(flow) << 16 | 5001, 17);
            let path = path_in(label as usize % 128);
            met[usize::from(path)] += 1;
            let mut want = [0; 12];
            want[..6].copy_from_slice(&[0, 9, 0, path + 1, 0xE0, 1]);
            assert_eq!(path_of(&bed, flow), want, "flow {flow}");
        }
        assert!(met.iter().all(|count| *count > 10), "{met:?}");
    });
}

/// While a policy changes between two sets and a single path, every packet takes a path of one
/// of them, whole.
#[test]
fn a_set_of_paths_changes_as_a_whole() {
    in_netns(|| {
        let bed = bed();
        let all: [&[&[u16]]; 3] = [
            &[&[9, 0x1111, 0x1111, 0x1111, 0x1111, 0xE001], &[9, 0x2222, 0x2222, 0xE001]],
            &[&[9, 0x3333, 0x3333, 0x3333, 0x3333, 0x3333], &[9, 0xE001], &[9, 0x4444, 0x4444]],
            &[&[9, 0x5555, 0x5555, 0x5555, 0x5555, 0xE001]],
        ];
        let policies = all.map(|paths| policy(paths, |bucket| (bucket % paths.len()) as u8));
        let octets = |sids: &&[u16]| {
            let mut octets = [0; 12];
            let bytes: Vec<u8> = sids.iter().flat_map(|sid| sid.to_be_bytes()).collect();
            octets[..bytes.len()].copy_from_slice(&bytes);
            octets
        };
        let right: Vec<[u8; 12]> = all.iter().flat_map(|paths| paths.iter().map(octets)).collect();
        let table = bed.switch.policy.clone();
        table.put(1, &policies[0]).unwrap();
        let done = AtomicBool::new(false);
        let done = &done;
        std::thread::scope(|scope| {
            let changes = scope.spawn(move || {
                let mut count = 0;
                while !done.load(Ordering::Relaxed) {
                    table.put(1, &policies[count % 3]).unwrap();
                    count += 1;
                }
                count
            });
            let mut met = vec![0; right.len()];
            let end = Instant::now() + Duration::from_secs(2);
            let mut wrong = None;
            for flow in (4000..4100u16).cycle() {
                let path = path_of(&bed, flow);
                match right.iter().position(|known| *known == path) {
                    Some(known) => met[known] += 1,
                    None => wrong = Some(path),
                }
                if wrong.is_some() || Instant::now() > end {
                    break;
                }
            }
            done.store(true, Ordering::Relaxed);
            let changes = changes.join().unwrap();
            assert_eq!(wrong, None, "neither before nor after");
            println!("{changes} changes");
            assert!(changes > 10 && met.iter().all(|count| *count > 0), "{changes}, {met:?}");
        });
    });
}

fn rule(action: RuleAction) -> Rule {
    Rule {
        source: None,
        destination: None,
        protocol: Some(17),
        source_ports: None,
        destination_ports: Some([5001, 5001]),
        dscp: None,
        slice_set: Some(3),
        tag: None,
        teid: None,
        action,
    }
}

#[test]
fn a_rule_marks_the_packet_inside() {
    in_netns(|| {
        let bed = bed();
        let (_, plain) = bed.sent(bed.access, &v4(64, 1, 128));
        bed.switch.classifier.put(7, &rule(RuleAction::Mark(34))).unwrap();
        let (_, marked) = bed.sent(bed.access, &v4(64, 1, 128));
        // ECN, checksum and all else as etherparse makes it; the outer header as it was.
        assert_eq!(marked, [&plain[..54], &v4(63, 34 << 2 | 1, 128)[14..]].concat());
        // To a neighbor on this switch as well.
        let mut own = v4(64, 2, 128);
        own[30..34].copy_from_slice(&[10, 1, 0, 11]);
        let (port, sent) = bed.sent(bed.access, &own);
        let ip = etherparse::Ipv4HeaderSlice::from_slice(&sent[14..]).unwrap();
        assert_eq!((port, ip.dcp().value(), ip.ecn().value()), (1, 34, 2));
        // Another slice set is not marked.
        let others = Rule { slice_set: Some(4), ..rule(RuleAction::Mark(34)) };
        bed.switch.classifier.put(7, &others).unwrap();
        assert_eq!(bed.sent(bed.access, &v4(64, 1, 128)).1, plain);
    });
}

#[test]
fn a_rule_steers_to_a_policy() {
    in_netns(|| {
        let bed = bed();
        bed.switch.policy.put(2, &Policy::one(&[9, 0x77, 0xE001])).unwrap();
        bed.switch.classifier.put(7, &rule(RuleAction::Steer(2))).unwrap();
        let steered: [u8; 12] = [0, 9, 0, 0x77, 0xE0, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!(path_of(&bed, 4000), steered);
        // What the slice has no route to is not sent anywhere.
        let mut stray = v4(64, 0, 128);
        stray[30..34].copy_from_slice(&[10, 9, 9, 9]);
        assert_eq!(bed.dropped(bed.access, &stray), drop::NO_ROUTE);
        // Also what would stay on this switch.
        let mut own = v4(64, 0, 128);
        own[30..34].copy_from_slice(&[10, 1, 0, 11]);
        assert_eq!(bed.sent(bed.access, &own).1[42..54], steered);
        bed.switch.classifier.put(7, &rule(RuleAction::Steer(3))).unwrap();
        assert_eq!(bed.dropped(bed.access, &v4(64, 0, 128)), drop::NO_POLICY);
    });
}

#[test]
fn transit_and_egress() {
    in_netns(|| {
        let bed = bed();
        let inner = &v4(9, 1, 200)[14..];
        let at = |hops, destination: &str, class, inner: &[u8]| {
            let addresses = (bed.fabric_mac, NEIGHBOR);
            outer(addresses, class, 0x12345, hops, "5f00:0:4:fffe:3:0::", destination, inner)
        };
        // Another node's: counted down, otherwise as it came.
        let (port, frame) = bed.sent(bed.fabric, &at(64, "5f00:0:9:7:e001::", 34 << 2, inner));
        let mut want = at(63, "5f00:0:9:7:e001::", 34 << 2, inner);
        want[..6].copy_from_slice(&NEIGHBOR);
        want[6..12].copy_from_slice(&bed.fabric_mac);
        assert_eq!((port, frame), (2, want));
        // A way-point here, then another node.
        let (_, frame) = bed.sent(bed.fabric, &at(64, "5f00:0:7:9:e001::", 0, inner));
        assert_eq!(frame[38..54], "5f00:0:9:e001::".parse::<Ipv6Addr>().unwrap().octets());
        // The end: out of the outer header, to the endpoint.
        let mut own = v4(9, 1, 200);
        own[30..34].copy_from_slice(&[10, 1, 0, 11]);
        let (port, frame) = bed.sent(bed.fabric, &at(64, "5f00:0:7:e001::", 0, &own[14..]));
        let mut want = own.clone();
        want[..6].copy_from_slice(&HOST);
        want[6..12].copy_from_slice(&GATEWAY);
        assert_eq!((port, frame), (1, want.clone()));
        // Congestion met on the way is told to the endpoint, with a right checksum.
        let (_, frame) = bed.sent(bed.fabric, &at(64, "5f00:0:7:e001::", 3, &own[14..]));
        let old = etherparse::Ipv4HeaderSlice::from_slice(&want[14..]).unwrap().to_header();
        let new = etherparse::Ipv4HeaderSlice::from_slice(&frame[14..]).unwrap().to_header();
        assert_eq!(new.ecn.value(), 3);
        let difference =
            u32::from(old.calc_header_checksum()) + 0xffff - u32::from(old.header_checksum);
        let after = u32::from(new.calc_header_checksum()) + 0xffff - u32::from(new.header_checksum);
        assert_eq!(difference % 0xffff, after % 0xffff, "as right as it was");
    });
}

fn meter(class: Class, guaranteed_bps: u64, maximum_bps: u64) -> Meter {
    Meter {
        class,
        guaranteed_bps,
        guaranteed_burst_bytes: 15_000,
        maximum_bps,
        maximum_burst_bytes: 30_000,
    }
}

#[test]
fn a_burst_is_in_profile_then_excess_then_dropped() {
    in_netns(|| {
        let bed = bed();
        // So slow that no time passes: a packet takes 0.75 s.
        bed.switch.meter.put((3, Direction::Uplink), &meter(Class::Urllc, 16_000, 16_000)).unwrap();
        let frame = v4(64, 1, 1500);
        let outcomes: Vec<_> = (0..25)
            .map(|_| match bed.switch.test_run(bed.access, &frame).unwrap().verdict {
                Verdict::Forwarded { frame, .. } => Ok(frame[14] << 4 | frame[15] >> 4),
                Verdict::Dropped(reason) => Err(reason),
                other => panic!("{other:?}"),
            })
            .collect();
        let want: Vec<_> = std::iter::empty()
            .chain([Ok(46 << 2 | 1); 10]) // 15,000 bytes
            .chain([Ok(44 << 2 | 1); 10]) // 30,000
            .chain([Err(drop::OVER_MAXIMUM); 5])
            .collect();
        assert_eq!(outcomes, want);
        let counters = bed.switch.counters.slice(3, Direction::Uplink).unwrap();
        assert_eq!((counters.packets, counters.dropped_packets), (25, 5));
        assert_eq!(counters.dropped_bytes, 5 * 1500);
        bed.switch.set_metering(false).unwrap();
        let (_, frame) = bed.sent(bed.access, &frame);
        assert_eq!(frame[14] << 4 | frame[15] >> 4, 46 << 2 | 1, "classed, not metered");
    });
}

#[test]
fn a_slice_gets_its_rate_and_no_more() {
    in_netns(|| {
        let bed = bed();
        let rate_bps = 20_000_000u64;
        let frame = v4(64, 0, 1500);
        // (meter, which of the packets count)
        let in_profile = |frame: &[u8]| frame[14] << 4 | frame[15] >> 4 == 34 << 2;
        type Counts<'a> = &'a dyn Fn(&[u8]) -> bool;
        let cases: [(Meter, Counts<'_>); 2] = [
            (meter(Class::Guaranteed, rate_bps, 0), &in_profile),
            (meter(Class::BestEffort, 0, rate_bps), &|_: &[u8]| true),
        ];
        for (meter, counts) in cases {
            // A burst that outlasts the test's own pauses: 200 ms.
            let meter =
                Meter { guaranteed_burst_bytes: 500_000, maximum_burst_bytes: 500_000, ..meter };
            bed.switch.meter.put((3, Direction::Uplink), &meter).unwrap();
            // Old words of an idle slice must not matter.
            std::thread::sleep(Duration::from_millis(50));
            let start = Instant::now();
            let mut bytes = 0u64;
            while start.elapsed() < Duration::from_millis(700) {
                if let Verdict::Forwarded { frame, .. } =
                    bed.switch.test_run(bed.access, &frame).unwrap().verdict
                    && counts(&frame)
                {
                    bytes += 1500;
                }
            }
            let elapsed = start.elapsed().as_secs_f64();
            let most = elapsed * rate_bps as f64 / 8.0 + 500_000.0;
            assert!(bytes as f64 <= most + 1500.0, "{meter:?}: {bytes} of {most}");
            assert!(bytes as f64 > most * 0.9, "{meter:?}: {bytes} of {most}");
        }
    });
}

/// The number of 10.1.0.11.
const ROBOT: u16 = 65_535;

/// Beside 10.1.0.11, which has rates of its own, 10.1.0.12 has none; 10.1.0.99 is on the other
/// side. The slice guarantees 20 Mbit/s.
fn shared_slice(own: EndpointMeter) -> Bed {
    let bed = timed_bed();
    let Bed { switch, .. } = &bed;
    let net = |last: u8| format!("10.1.0.{last}/32").parse().unwrap();
    let rated = Endpoint { slice_set: 3, direction: Direction::Uplink, endpoint: ROBOT, tag: 0 };
    switch.endpoint.put((1, net(11)), &rated).unwrap();
    switch.endpoint.put((1, net(12)), &Endpoint { endpoint: 0, ..rated }).unwrap();
    let other = Endpoint { slice_set: 3, direction: Direction::Downlink, endpoint: 0, tag: 0 };
    switch.endpoint.put((1, net(99)), &other).unwrap();
    for (last, endpoint) in [(11, ROBOT), (12, 0)] {
        let route = Route { slice: 3, action: RouteAction::Local, endpoint };
        switch.route.put((3, net(last)), &route).unwrap();
        let delivery = Delivery { port: 1, mac: HOST, tunnel: None };
        switch.delivery.put((3, net(last)), &delivery).unwrap();
    }
    for direction in [Direction::Uplink, Direction::Downlink] {
        switch.endpoint_meter.put((3, direction, ROBOT), &own).unwrap();
        switch.meter.put((3, direction), &meter(Class::Guaranteed, 20_000_000, 0)).unwrap();
    }
    bed
}

fn own(guaranteed_bps: u64, maximum_bps: u64) -> EndpointMeter {
    let (guaranteed_burst_bytes, maximum_burst_bytes) = (3_000, 3_000);
    EndpointMeter { guaranteed_bps, guaranteed_burst_bytes, maximum_bps, maximum_burst_bytes }
}

/// What two endpoints get, each in profile, beyond, and dropped by its own maximum, in bit/s: 11
/// and 12 send at these rates for two seconds, or 99 sends to them.
fn shares(bed: &Bed, direction: Direction, rates_bps: [u64; 2]) -> [[f64; 3]; 2] {
    const END_NS: u64 = 2_000_000_000;
    let frames = [11, 12].map(|last| {
        let mut frame = v4(64, 0, 1500);
        match direction {
            Direction::Uplink => frame[29] = last,
            Direction::Downlink => {
                frame[29] = 99;
                frame[30..34].copy_from_slice(&[10, 1, 0, last]);
            }
        }
        frame
    });
    let (mut next, mut got) = ([0; 2], [[0.0; 3]; 2]);
    loop {
        let who = usize::from(next[1] < next[0]);
        if next[who] >= END_NS {
            return got;
        }
        // Not 0, which is no time yet.
        bed.switch.set_clock(1 + next[who]).unwrap();
        let before = bed.switch.counters.slice(3, direction).unwrap().entered;
        let end = match bed.switch.test_run(bed.access, &frames[who]).unwrap().verdict {
            Verdict::Forwarded { .. } => {
                usize::from(bed.switch.counters.slice(3, direction).unwrap().entered == before)
            }
            Verdict::Dropped(drop::OVER_ENDPOINT_MAXIMUM) => 2,
            other => panic!("{other:?}"),
        };
        got[who][end] += 1500.0 * 8.0 / (END_NS as f64 / 1e9);
        next[who] += 1500 * 8 * 1_000_000_000 / rates_bps[who];
    }
}

fn assert_near(got: f64, want: f64, what: &str) {
    assert!((got - want).abs() <= want * 0.01 + 12_000.0, "{what}: {got} bit/s, not {want}");
}

#[test]
fn an_endpoint_gets_its_own_rates_and_its_neighbor_what_there_is_besides() {
    for direction in [Direction::Uplink, Direction::Downlink] {
        in_netns(|| {
            let bed = shared_slice(own(5_000_000, 8_000_000));
            let [robot, other] = shares(&bed, direction, [12_000_000, 14_000_000]);
            assert_near(robot[0], 5_000_000.0, "in profile");
            assert_near(robot[1], 3_000_000.0, "excess");
            assert_near(robot[2], 4_000_000.0, "beyond its maximum");
            assert_near(other[0], 14_000_000.0, "the neighbor's, all within the slice's guarantee");
            assert_eq!(other[2], 0.0);
        });
    }
}

#[test]
fn what_an_endpoint_is_guaranteed_its_neighbor_does_not_take() {
    in_netns(|| {
        let bed = shared_slice(own(5_000_000, 0));
        let [robot, other] = shares(&bed, Direction::Uplink, [5_000_000, 100_000_000]);
        assert_near(robot[0], 5_000_000.0, "in profile");
        assert_near(other[0], 15_000_000.0, "the neighbor's in profile");
    });
}

#[test]
fn an_endpoint_with_a_maximum_only_shares_the_guarantee() {
    in_netns(|| {
        let bed = shared_slice(own(0, 8_000_000));
        let [robot, other] = shares(&bed, Direction::Uplink, [8_000_000, 12_000_000]);
        assert_near(robot[0], 8_000_000.0, "in profile");
        assert_near(other[0], 12_000_000.0, "the neighbor's in profile");
    });
}

#[test]
fn a_changed_rate_leaves_what_has_been_charged() {
    in_netns(|| {
        let bed = shared_slice(own(0, 1_000_000));
        bed.switch.set_clock(1).unwrap();
        let frame = v4(64, 0, 1500);
        let end = || bed.switch.test_run(bed.access, &frame).unwrap().verdict;
        for _ in 0..2 {
            assert!(matches!(end(), Verdict::Forwarded { .. }));
        }
        bed.switch.endpoint_meter.put((3, Direction::Uplink, ROBOT), &own(0, 999_999)).unwrap();
        assert_eq!(end(), Verdict::Dropped(drop::OVER_ENDPOINT_MAXIMUM));
        assert!(bed.switch.endpoint_meter.remove((3, Direction::Uplink, ROBOT)).unwrap());
        assert!(matches!(end(), Verdict::Forwarded { .. }), "no entry, no limit");
        let range = bed.switch.endpoint_meter.put((3, Direction::Uplink, 0), &own(0, 1_000_000));
        assert!(range.is_err(), "0 is nobody's number");
    });
}

#[test]
fn the_virtual_queue_passes_guarantees_and_bounds_the_rest() {
    in_netns(|| {
        let bed = bed();
        // 1,554-byte frames; a packet takes 0.78 s, so the backlog only grows.
        let queue = Queue { rate_bps: 16_000, threshold_bytes: [5362, 0, 0], shaped_bps: [0; 3] };
        bed.switch.queue.put(2, &queue).unwrap();
        let outcome = |frame: &[u8]| match bed.switch.test_run(bed.access, frame).unwrap().verdict {
            Verdict::Forwarded { frame, .. } => Ok(frame[15] >> 4 & 3),
            Verdict::Dropped(reason) => Err(reason),
            other => panic!("{other:?}"),
        };
        // Backlog before each, in frames: 0, 1, 2 (above half), 3, 4 (over the threshold).
        let capable = v4(64, 2, 1500);
        let got: Vec<_> = (0..5).map(|_| outcome(&capable)).collect();
        assert_eq!(got, [Ok(2), Ok(2), Ok(3), Ok(3), Err(drop::QUEUE_FULL)]);
        assert_eq!(outcome(&v4(64, 0, 1500)), Err(drop::QUEUE_FULL));
        // What is guaranteed passes, and is not marked.
        let guaranteed = Meter {
            guaranteed_burst_bytes: 30_000, // all of them, however fast they come
            ..meter(Class::Guaranteed, 1_000_000_000, 0)
        };
        bed.switch.meter.put((3, Direction::Uplink), &guaranteed).unwrap();
        for _ in 0..20 {
            assert_eq!(outcome(&capable), Ok(2));
        }
        // Excess of another class has another threshold, here none at all.
        bed.switch.queue.remove(2).unwrap();
        bed.switch.meter.put((3, Direction::Uplink), &meter(Class::Urllc, 0, 0)).unwrap();
        assert_eq!(outcome(&capable), Ok(2), "no entry, no limit");
        bed.switch.queue.put(2, &queue).unwrap();
        assert_eq!(outcome(&capable), Err(drop::QUEUE_FULL));
        bed.switch.set_metering(false).unwrap();
        assert_eq!(outcome(&capable), Ok(2));
    });
}

#[test]
fn the_virtual_queue_drains_at_its_rate() {
    in_netns(|| {
        let bed = bed();
        let queue =
            Queue { rate_bps: 97_000_000, threshold_bytes: [1_200_000; 3], shaped_bps: [0; 3] };
        bed.switch.queue.put(2, &queue).unwrap();
        let frame = v4(64, 0, 1500);
        let start = Instant::now();
        let mut bytes = 0u64;
        while start.elapsed() < Duration::from_millis(500) {
            if let Verdict::Forwarded { frame, .. } =
                bed.switch.test_run(bed.access, &frame).unwrap().verdict
            {
                bytes += frame.len() as u64;
            }
        }
        let most = start.elapsed().as_secs_f64() * 97_000_000.0 / 8.0 + 1_200_000.0 + 1554.0;
        assert!(bytes as f64 <= most, "{bytes} of {most}");
        assert!(bytes as f64 > most * 0.85, "{bytes} of {most}");
    });
}

/// The agent hears of a port what `HOST_REQUESTS_PER_SECOND` says, at once and in a second.
#[test]
fn a_host_cannot_flood_the_agent() {
    in_netns(|| {
        let bed = bed();
        let source = "fe80::7".parse::<Ipv6Addr>().unwrap().octets();
        let routers = "ff02::2".parse::<Ipv6Addr>().unwrap().octets();
        let builder = PacketBuilder::ethernet2(HOST, [0x33, 0x33, 0, 0, 0, 2]);
        let mut solicitation = Vec::new();
        let builder = builder.ipv6(source, routers, 255);
        let message = builder.icmpv6_raw(133, 0, [0; 4]);
        message.write(&mut solicitation, &[]).unwrap();
        let start = Instant::now();
        let mut passed = 0;
        let dropped = loop {
            match bed.switch.test_run(bed.access, &solicitation).unwrap().verdict {
                Verdict::Passed => passed += 1,
                Verdict::Dropped(reason) => break reason,
                other => panic!("{other:?}"),
            }
            assert!(start.elapsed() < Duration::from_secs(30), "{passed} passed");
        };
        assert_eq!(dropped, drop::TOO_MANY_REQUESTS);
        let most = 100.0 * (1.0 + start.elapsed().as_secs_f64());
        assert!((100..=most.ceil() as u64).contains(&passed), "{passed} of {most}");
    });
}

#[test]
fn every_truncation_is_dropped_or_sent_whole() {
    in_netns(|| {
        let bed = bed();
        let access = v4(64, 0, 100);
        for len in 14..access.len() {
            assert_eq!(bed.dropped(bed.access, &access[..len]), drop::MALFORMED, "{len} bytes");
        }
        let addresses = (bed.fabric_mac, NEIGHBOR);
        let source = "5f00:0:4:fffe:3:0::";
        let fabric = outer(addresses, 0, 1, 64, source, "5f00:0:7:e001::", &access[14..]);
        for len in 14..fabric.len() {
            assert_eq!(bed.dropped(bed.fabric, &fabric[..len]), drop::MALFORMED, "{len} bytes");
        }
    });
}
