//! What assurance counts and measures: marks, deliveries, losses in profile, test packets.

mod common;

use common::{PinDir, in_netns, veth};
use etherparse::PacketBuilder;
use selvedge_xdp::common::value::{PROBES_KEPT, PortCounters};
use selvedge_xdp::common::{
    PROBE_PORT, PROBE_REFLECTOR, PROBE_SENDER, PROBE_SENDER_PORT, drop, slice_slot,
};
use selvedge_xdp::{
    Class, Delivery, Direction, Endpoint, LocalSid, Meter, NextHop, Policy, PortKind, Route,
    RouteAction, Switch, Table, Verdict,
};

const HOST: [u8; 6] = [2, 0, 0, 0, 0, 0x11];
const GATEWAY: [u8; 6] = [0x02, 0x5E, 0x1F, 0, 0, 1];
const NEIGHBOR: [u8; 6] = [2, 0, 0, 0, 0, 0x22];
const BROADCAST: [u8; 6] = [0xff; 6];
const SLICE: u16 = 3;

/// Access port 1 with 10.1.0.11, fabric port 2 towards node 9; this is node 7. 10.1.0.12 is
/// routed here and delivered nowhere.
struct Bed {
    switch: Switch,
    access: u32,
    fabric: u32,
    fabric_mac: [u8; 6],
    _pins: PinDir,
}

fn bed() -> Bed {
    let pins = PinDir::new();
    let mut switch = pins.open();
    let (p1, p2) = (veth("p1"), veth("p2"));
    switch.attach(1, &p1).unwrap();
    switch.attach(2, &p2).unwrap();
    switch.port.put(1, &PortKind::Access).unwrap();
    switch.port.put(2, &PortKind::Fabric).unwrap();
    let host = "10.1.0.11/32".parse().unwrap();
    let endpoint = Endpoint { slice_set: SLICE, direction: Direction::Uplink, endpoint: 0, tag: 0 };
    switch.endpoint.put((1, host), &endpoint).unwrap();
    switch.delivery.put((SLICE, host), &Delivery { port: 1, mac: HOST, tunnel: None }).unwrap();
    for here in ["10.1.0.11/32", "10.1.0.12/32"] {
        let route = Route { slice: SLICE, action: RouteAction::Local, endpoint: 0 };
        switch.route.put((SLICE, here.parse().unwrap()), &route).unwrap();
    }
    let route = Route { slice: SLICE, action: RouteAction::Policy(1), endpoint: 0 };
    switch.route.put((SLICE, "10.2.0.0/16".parse().unwrap()), &route).unwrap();
    switch.policy.put(1, &Policy::one(&[9, 0xE001])).unwrap();
    switch.local_sid.put(7, &LocalSid::Node).unwrap();
    switch.local_sid.put(0xE001, &LocalSid::Decapsulate).unwrap();
    switch.next_hop.put(9, &NextHop { port: 2, mac: NEIGHBOR, backup: 0 }).unwrap();
    // One frame of guarantee, at a rate that fills nothing up again.
    let meter = Meter {
        class: Class::Guaranteed,
        guaranteed_bps: 10_000,
        guaranteed_burst_bytes: 1514,
        maximum_bps: 0,
        maximum_burst_bytes: 0,
    };
    switch.meter.put((SLICE, Direction::Uplink), &meter).unwrap();
    Bed { switch, access: p1.index, fabric: p2.index, fabric_mac: p2.mac, _pins: pins }
}

fn v4(to: [u8; 4], bytes: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(HOST, GATEWAY)
        .ipv4([10, 1, 0, 11], to, 64)
        .udp(4000, 5001)
        .write(&mut frame, &vec![0x5a; bytes - 28])
        .unwrap();
    frame
}

impl Bed {
    fn run(&self, ifindex: u32, frame: &[u8]) -> Verdict {
        self.switch.test_run(ifindex, frame).unwrap().verdict
    }

    fn port(&self, port: u16) -> PortCounters {
        let one = self.switch.counters.port(port).unwrap();
        assert_eq!(self.switch.counters.ports().unwrap()[usize::from(port)], one, "both ways");
        one
    }

    fn slice(&self) -> selvedge_xdp::common::value::SliceCounters {
        let one = self.switch.counters.slice(SLICE, Direction::Uplink).unwrap();
        let slot = slice_slot(SLICE, Direction::Uplink as u8);
        let used = self.switch.counters.slices().unwrap();
        assert_eq!(used.get(&slot).copied().unwrap_or_default(), one, "both ways");
        one
    }
}

#[test]
fn a_mark_is_given_at_the_ingress_and_counted_at_both_ends_of_a_link() {
    in_netns(|| {
        let bed = bed();
        for (mark, times) in [(0usize, 1u64), (1, 3), (0, 2)] {
            bed.switch.probes.set_mark(mark == 1).unwrap();
            let before = (bed.port(2), bed.slice());
            for _ in 0..times {
                let Verdict::Forwarded { port: 2, frame } =
                    bed.run(bed.access, &v4([10, 2, 0, 5], 100))
                else {
                    panic!("not forwarded");
                };
                assert_eq!(frame[37], mark as u8, "last byte of the outer source");
                // As node 9 would send it back: this switch decapsulates and delivers.
                let mut back = frame.clone();
                back[42..46].copy_from_slice(&[0, 7, 0xe0, 1]);
                back[46..54].fill(0);
                back[54 + 16..54 + 20].copy_from_slice(&[10, 1, 0, 11]);
                let verdict = bed.run(bed.fabric, &back);
                assert!(matches!(verdict, Verdict::Forwarded { port: 1, .. }), "{verdict:?}");
            }
            let after = (bed.port(2), bed.slice());
            for which in [0, 1] {
                let want = if which == mark { times } else { 0 };
                let diff =
                    |f: fn(&PortCounters) -> [u64; 2]| f(&after.0)[which] - f(&before.0)[which];
                assert_eq!(diff(|p| p.tx_marked), want, "sent, mark {which}");
                assert_eq!(diff(|p| p.rx_marked), want, "received, mark {which}");
                assert_eq!(after.1.entered[which] - before.1.entered[which], want);
                assert_eq!(after.1.left[which] - before.1.left[which], want);
            }
            let delivered = after.1.delivered_packets - before.1.delivered_packets;
            let bytes = after.1.delivered_bytes - before.1.delivered_bytes;
            assert_eq!((delivered, bytes), (times, 100 * times));
        }
    });
}

#[test]
fn only_what_is_in_profile_enters_leaves_and_is_lost() {
    in_netns(|| {
        let bed = bed();
        let local = |bytes| bed.run(bed.access, &v4([10, 1, 0, 11], bytes));
        assert!(matches!(local(1000), Verdict::Forwarded { port: 1, .. }));
        let counts = bed.slice();
        assert_eq!((counts.entered[0], counts.left[0], counts.lost), (1, 1, 0));
        // In profile, and delivered nowhere.
        let lost = bed.run(bed.access, &v4([10, 1, 0, 12], 400));
        assert_eq!(lost, Verdict::Dropped(drop::NO_DELIVERY));
        let counts = bed.slice();
        assert_eq!((counts.entered[0], counts.left[0]), (2, 1));
        assert_eq!((counts.lost, counts.lost_reason), (1, u64::from(drop::NO_DELIVERY)));
        // Excess: counted as packets, not as promised ones.
        for _ in 0..3 {
            assert!(matches!(local(1400), Verdict::Forwarded { port: 1, .. }));
        }
        let lost = bed.run(bed.access, &v4([10, 1, 0, 12], 1400));
        assert_eq!(lost, Verdict::Dropped(drop::NO_DELIVERY));
        let counts = bed.slice();
        assert_eq!((counts.entered[0], counts.left[0], counts.lost), (2, 1, 1));
        assert_eq!((counts.packets, counts.delivered_packets), (6, 4));
        assert_eq!(counts.dropped_packets, 2);
    });
}

/// As an agent sends it.
fn test_packet(sequence: u32, sent_ns: u64) -> Vec<u8> {
    let mut packet = [0u8; 44];
    packet[..4].copy_from_slice(&sequence.to_be_bytes());
    packet[4..8].copy_from_slice(&((sent_ns / 1_000_000_000) as u32).to_be_bytes());
    packet[8..12].copy_from_slice(&((sent_ns % 1_000_000_000) as u32).to_be_bytes());
    packet[12..14].copy_from_slice(&0x4201u16.to_be_bytes());
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(NEIGHBOR, BROADCAST)
        .ipv6(PROBE_SENDER, PROBE_REFLECTOR, 255)
        .udp(PROBE_SENDER_PORT, PROBE_PORT)
        .write(&mut frame, &packet)
        .unwrap();
    frame
}

fn now_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

#[test]
fn test_packets_come_back_and_answers_are_noted() {
    in_netns(|| {
        let bed = bed();
        let sent = now_ns() - 5_000_000;
        let Verdict::Answered { frame } = bed.run(bed.fabric, &test_packet(70, sent)) else {
            panic!("not answered");
        };
        assert_eq!((&frame[..6], &frame[6..12]), (&NEIGHBOR[..], &bed.fabric_mac[..]));
        let parsed = etherparse::PacketHeaders::from_ethernet_slice(&frame).unwrap();
        let ip = parsed.net.clone().and_then(|net| net.ipv6_ref().map(|(ip, _)| ip.clone()));
        let ip = ip.expect("IPv6");
        assert_eq!((ip.source, ip.destination), (PROBE_REFLECTOR, PROBE_SENDER));
        let udp = parsed.transport.unwrap().udp().unwrap();
        assert_eq!((udp.source_port, udp.destination_port), (PROBE_PORT, PROBE_SENDER_PORT));
        let payload = parsed.payload.slice();
        assert_eq!(udp.calc_checksum_ipv6(&ip, payload).unwrap(), udp.checksum);

        assert_eq!(bed.run(bed.fabric, &frame), Verdict::Passed);
        let answers = bed.switch.probes.answers(2).unwrap();
        let (sequence, delay_ns) = answers[70 % PROBES_KEPT];
        assert_eq!(sequence, 70);
        assert!((5_000_000..2_000_000_000).contains(&delay_ns), "{delay_ns} ns");
        assert_eq!(answers.iter().filter(|(sequence, _)| *sequence != 0).count(), 1);

        // Damaged on the way, over a router, or from where nobody is a neighbor.
        let mut damaged = frame.clone();
        damaged[70] ^= 1;
        assert_eq!(bed.run(bed.fabric, &damaged), Verdict::Dropped(drop::MALFORMED));
        let mut routed = test_packet(71, sent);
        routed[21] = 254;
        assert_eq!(bed.run(bed.fabric, &routed), Verdict::Dropped(drop::UNSUPPORTED));
        let on_access = bed.run(bed.access, &test_packet(71, sent));
        assert!(matches!(on_access, Verdict::Dropped(_)), "{on_access:?}");
    });
}
