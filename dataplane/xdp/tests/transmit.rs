//! What a device does not send of what the switch gives it: each frame is counted as sent, or as
//! an error of the port and a drop, and what was sent is what the far end has received.

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::{PinDir, in_netns, ip, veth};
use etherparse::PacketBuilder;
use selvedge_xdp::common::value::PortCounters;
use selvedge_xdp::{
    Delivery, Direction, Endpoint, Interface, PortKind, Route, RouteAction, Switch, Table, offload,
};

const HOST: [u8; 6] = [2, 0, 0, 0, 0, 0x11];
const FAR: [u8; 6] = [2, 0, 0, 0, 0, 0x12];
const GATEWAY: [u8; 6] = [0x02, 0x5E, 0x1F, 0, 0, 1];

struct Bed {
    switch: Switch,
    p1: Interface,
    p2: Interface,
    pins: PinDir,
}

/// Access ports 1 and 2, with 10.1.0.11 and 10.1.0.12.
fn bed() -> Bed {
    let pins = PinDir::new();
    let mut switch = pins.open();
    let (p1, p2) = (veth("p1"), veth("p2"));
    for end in ["p1h", "p2h"] {
        offload::prepare_veth(end).unwrap();
    }
    let hosts = [(1, &p1, "10.1.0.11/32", HOST), (2, &p2, "10.1.0.12/32", FAR)];
    for (port, interface, prefix, mac) in hosts {
        switch.attach(port, interface).unwrap();
        switch.port.put(port, &PortKind::Access).unwrap();
        let prefix = prefix.parse().unwrap();
        let endpoint = Endpoint { slice_set: 1, direction: Direction::Uplink, endpoint: 0, tag: 0 };
        switch.endpoint.put((port, prefix), &endpoint).unwrap();
        switch.delivery.put((1, prefix), &Delivery { port, mac, tunnel: None }).unwrap();
        let local = Route { slice: 1, action: RouteAction::Local, endpoint: 0 };
        switch.route.put((1, prefix), &local).unwrap();
    }
    Bed { switch, p1, p2, pins }
}

/// `len` bytes from 10.1.0.11 to 10.1.0.12.
fn frame(len: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(HOST, GATEWAY)
        .ipv4([10, 1, 0, 11], [10, 1, 0, 12], 64)
        .udp(4000, 5001)
        .write(&mut frame, &vec![0; len - 42])
        .unwrap();
    frame
}

fn who_has_the_gateway() -> Vec<u8> {
    let mut frame = [[0xff; 6], HOST].concat();
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(HOST);
    frame.extend([10, 1, 0, 11, 0, 0, 0, 0, 0, 0, 169, 254, 1, 1]);
    frame
}

/// Packets and bytes that an interface has taken out of its ring, by the kernel's account.
fn taken(end: &str) -> [u64; 2] {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = text.lines().find_map(|line| line.trim().strip_prefix(&format!("{end}:"))).unwrap();
    let mut fields = line.split_whitespace().map(|field| field.parse().unwrap());
    let [bytes, packets] = [fields.next().unwrap(), fields.next().unwrap()];
    [packets, bytes]
}

/// What port 2 has counted: given, sent and failed, packets and bytes of each.
fn counted(switch: &Switch) -> [[u64; 2]; 3] {
    let PortCounters {
        tx_packets,
        tx_bytes,
        left_packets,
        left_bytes,
        failed_packets,
        failed_bytes,
        ..
    } = switch.counters.port(2).unwrap();
    [[tx_packets, tx_bytes], [left_packets, left_bytes], [failed_packets, failed_bytes]]
}

fn transmit_errors(switch: &Switch) -> u64 {
    let drops = switch.counters.named_drops().unwrap();
    drops.iter().find(|(name, _)| *name == "transmit_error").map_or(0, |(_, count)| *count)
}

fn balanced(switch: &Switch) {
    let totals = switch.counters.totals().unwrap();
    let ended = totals.forwarded + totals.passed + totals.answered + totals.dropped;
    assert_eq!(totals.received, ended, "{totals:?}");
}

/// Both CPUs fill the one ring of the far end, which the kernel's stack empties; a poll of it
/// comes when it comes.
#[test]
fn what_a_full_ring_refuses_is_an_error_and_all_else_arrives() {
    in_netns(|| {
        let Bed { switch, p1, pins: _pins, .. } = bed();
        let before = taken("p2h");
        let deadline = Instant::now() + Duration::from_secs(30);
        while counted(&switch)[2][0] < 1000 {
            assert!(Instant::now() < deadline, "nothing is refused: {:?}", counted(&switch));
            thread::scope(|scope| {
                for len in [60, 1400] {
                    let (switch, ifindex) = (&switch, p1.index);
                    scope.spawn(move || switch.inject(ifindex, &frame(len), 20_000).unwrap());
                }
            });
        }
        // Not all that was injected: some frames are used again, and their hops run out.
        let [given, sent, failed] = counted(&switch);
        assert_eq!([sent[0] + failed[0], sent[1] + failed[1]], given, "nothing is under way");
        let arrived = || {
            let now = taken("p2h");
            [now[0] - before[0], now[1] - before[1]]
        };
        while arrived()[0] < sent[0] && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(arrived(), sent, "{failed:?} failed");
        assert!(sent[0] > 1000, "{sent:?}");
        assert_eq!(transmit_errors(&switch), failed[0]);
        balanced(&switch);
    });
}

#[test]
fn a_device_that_is_down_sends_nothing_and_one_without_a_far_end_neither() {
    in_netns(|| {
        let Bed { switch, p1, p2: _, pins: _pins } = bed();
        switch.inject(p1.index, &frame(100), 40).unwrap();
        assert_eq!(counted(&switch), [[40, 4000], [40, 4000], [0, 0]]);
        // The device itself is down: refused before it comes to it.
        ip("link set p2 down");
        switch.inject(p1.index, &frame(200), 50).unwrap();
        assert_eq!(counted(&switch), [[90, 14_000], [40, 4000], [50, 10_000]]);
        // Its far end is: the device refuses whole bulks.
        ip("link set p2 up");
        ip("link set p2h down");
        switch.inject(p1.index, &frame(300), 60).unwrap();
        assert_eq!(counted(&switch), [[150, 32_000], [40, 4000], [110, 28_000]]);
        ip("link set p2h up");
        offload::prepare_veth("p2h").unwrap();
        switch.inject(p1.index, &frame(400), 70).unwrap();
        assert_eq!(counted(&switch), [[220, 60_000], [110, 32_000], [110, 28_000]]);
        assert_eq!(transmit_errors(&switch), 110);
        balanced(&switch);

        // Answers of the switch.
        switch.inject(p1.index, &who_has_the_gateway(), 5).unwrap();
        ip("link set p1h down");
        switch.inject(p1.index, &who_has_the_gateway(), 6).unwrap();
        let port = switch.counters.port(1).unwrap();
        assert_eq!((port.tx_packets, port.failed_packets, port.failed_answers), (0, 0, 6));
        assert_eq!(transmit_errors(&switch), 116);
        assert_eq!(switch.counters.totals().unwrap().answered, 5);
        balanced(&switch);
    });
}

/// Two namespaces whose devices have the same indices: each switch counts its own.
#[test]
fn a_device_of_the_same_index_elsewhere_is_not_ours() {
    in_netns(|| {
        let Bed { switch, p2, pins: _pins, .. } = bed();
        in_netns(|| {
            let other = bed();
            assert_eq!(other.p2.index, p2.index, "the test is about equal indices");
            ip("link set p2 down");
            other.switch.inject(other.p1.index, &frame(100), 30).unwrap();
            ip("link set p2 up");
            other.switch.inject(other.p1.index, &frame(100), 20).unwrap();
            assert_eq!(counted(&other.switch), [[50, 5000], [20, 2000], [30, 3000]]);
        });
        assert_eq!(counted(&switch), [[0; 2]; 3]);
        assert_eq!(transmit_errors(&switch), 0);
    });
}

/// Errors are counted while nobody is there, and once while programs are replaced.
#[test]
fn errors_are_counted_without_an_agent_and_over_an_upgrade() {
    in_netns(|| {
        let Bed { switch, p1, pins, .. } = bed();
        ip("link set p2h down");
        switch.inject(p1.index, &frame(100), 10).unwrap();
        drop(switch);
        // Without the agent: what comes in at the far end of port 1.
        for _ in 0..10 {
            common::send("p1h", &frame(100));
        }
        for n in 1..=5u64 {
            let switch = pins.open();
            let deadline = Instant::now() + Duration::from_secs(5);
            while counted(&switch)[2][0] < 10 + 10 * n && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(5));
            }
            let failed = 10 + 10 * n;
            assert_eq!(counted(&switch), [[failed, failed * 100], [0, 0], [failed, failed * 100]]);
            assert_eq!(transmit_errors(&switch), failed);
            switch.inject(p1.index, &frame(100), 10).unwrap();
        }
    });
}
