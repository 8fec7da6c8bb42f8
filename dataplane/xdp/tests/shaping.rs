//! Classes that wait in the kernel's HTB: their rate, their queue, and what becomes of them.

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::{PinDir, in_netns, send, veth};
use etherparse::PacketBuilder;
use selvedge_xdp::common::drop;
use selvedge_xdp::{
    Class, Delivery, Direction, Endpoint, Error, Meter, PortKind, Queue, Route, RouteAction,
    Switch, Table, offload,
};

const HOST: [u8; 6] = [2, 0, 0, 0, 0, 0x11];
const GATEWAY: [u8; 6] = [0x02, 0x5E, 0x1F, 0, 0, 1];
const SLICE: u16 = 3;
const FRAME: usize = 1000;
const PATIENCE: Duration = Duration::from_secs(30);
/// A megabyte a second; it holds 60 frames.
const RATE_BPS: u64 = 8_000_000;
const THRESHOLD: u32 = 60_000;

/// From port 1 with 10.1.0.11 to port 2 with 10.1.0.12.
struct Bed {
    switch: Switch,
    pins: PinDir,
}

fn bed() -> Bed {
    let pins = PinDir::new();
    let mut switch = pins.open();
    for (port, name, address) in [(1, "p1", "10.1.0.11/32"), (2, "p2", "10.1.0.12/32")] {
        switch.attach(port, &veth(name)).unwrap();
        offload::prepare_veth(&format!("{name}h")).unwrap();
        switch.port.put(port, &PortKind::Access).unwrap();
        let address = address.parse().unwrap();
        let endpoint =
            Endpoint { slice_set: SLICE, direction: Direction::Uplink, endpoint: 0, tag: 0 };
        switch.endpoint.put((port, address), &endpoint).unwrap();
        switch.delivery.put((SLICE, address), &Delivery { port, mac: HOST, tunnel: None }).unwrap();
        let route = Route { slice: SLICE, action: RouteAction::Local, endpoint: 0 };
        switch.route.put((SLICE, address), &route).unwrap();
    }
    Bed { switch, pins }
}

fn queue(shaped_bps: [u64; 3]) -> Queue {
    Queue { rate_bps: 97_000_000, threshold_bytes: [THRESHOLD; 3], shaped_bps }
}

fn frame() -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(HOST, GATEWAY)
        .ipv4([10, 1, 0, 11], [10, 1, 0, 12], 64)
        .udp(4000, 5000);
    let mut frame = Vec::new();
    builder.write(&mut frame, &[0; FRAME - 14 - 20 - 8]).unwrap();
    frame
}

/// Frames that have come to the far end of port 2.
fn came() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("p2h:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn wait(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn qdiscs() -> String {
    let output = Command::new("tc").args(["qdisc", "show", "dev", "p2"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// (sent by port 2, dropped because the queue was full)
fn counted(switch: &Switch) -> (u64, u64) {
    let sent = switch.counters.port(2).unwrap().tx_packets;
    (sent, switch.counters.drops().unwrap()[usize::from(drop::QUEUE_FULL)])
}

#[test]
fn a_class_waits_at_its_rate_and_all_that_is_admitted_is_sent() {
    in_netns(|| {
        let bed = bed();
        bed.switch.queue.put(2, &queue([RATE_BPS, 0, 0])).unwrap();
        assert_eq!(bed.switch.queue.get(2).unwrap(), Some(queue([RATE_BPS, 0, 0])));
        let frame = frame();
        let start = Instant::now();
        let (offered, before) = (300, came());
        for _ in 0..offered {
            send("p1h", &frame);
        }
        let (sent, dropped) = counted(&bed.switch);
        let sending = start.elapsed();
        assert_eq!(sent + dropped, offered);
        // What the queue holds, and what has left it meanwhile.
        let most = 62.0 + sending.as_secs_f64() * 1000.0;
        assert!((60.0..=most).contains(&(sent as f64)), "{sent} of {most}");
        wait("all that was sent comes", || came() - before == sent);
        let took = start.elapsed().as_secs_f64();
        // The first 3,200 bytes are HTB's burst.
        let least = (sent as f64 - 4.0) / 1000.0;
        assert!(took >= least * 0.95, "{sent} frames in {took} s");

        // A class that is not shaped does not wait behind it: ten frames a second.
        bed.switch.queue.put(2, &queue([RATE_BPS / 100, 0, 0])).unwrap();
        for _ in 0..60 {
            send("p1h", &frame);
        }
        let meter = Meter {
            class: Class::Urllc,
            guaranteed_bps: 50_000_000,
            guaranteed_burst_bytes: 100_000,
            maximum_bps: 0,
            maximum_burst_bytes: 0,
        };
        bed.switch.meter.put((SLICE, Direction::Uplink), &meter).unwrap();
        let (at, start) = (came(), Instant::now());
        for _ in 0..50 {
            send("p1h", &frame);
        }
        wait("fifty frames", || came() - at >= 50);
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    });
}

#[test]
fn what_is_guaranteed_waits_beyond_the_threshold() {
    in_netns(|| {
        let bed = bed();
        bed.switch.queue.put(2, &queue([0, RATE_BPS, 0])).unwrap();
        let meter = Meter {
            class: Class::Guaranteed,
            guaranteed_bps: RATE_BPS,
            guaranteed_burst_bytes: 150_000,
            maximum_bps: 0,
            maximum_burst_bytes: 0,
        };
        bed.switch.meter.put((SLICE, Direction::Uplink), &meter).unwrap();
        let (frame, before, start) = (frame(), came(), Instant::now());
        for _ in 0..300 {
            send("p1h", &frame);
        }
        let (sent, dropped) = counted(&bed.switch);
        assert_eq!(sent + dropped, 300);
        // The burst, 152 packets of 986 bytes, and what was earned meanwhile; no excess behind it.
        let most = 153.0 + start.elapsed().as_secs_f64() * 1015.0;
        assert!((152.0..=most).contains(&(sent as f64)), "{sent} of {most}");
        wait("all that was sent comes", || came() - before == sent);
    });
}

#[test]
fn what_waits_goes_on_waiting_when_another_agent_takes_over() {
    in_netns(|| {
        let Bed { switch, pins } = bed();
        switch.queue.put(2, &queue([RATE_BPS, 0, 0])).unwrap();
        let before = came();
        for _ in 0..60 {
            send("p1h", &frame());
        }
        drop(switch);
        let mut switch = pins.open();
        switch.attach(2, &common::interface("p2")).unwrap();
        switch.queue.put(2, &queue([2 * RATE_BPS, 0, 0])).unwrap();
        let (sent, dropped) = counted(&switch);
        assert_eq!((sent, dropped), (60, 0));
        wait("all come", || came() - before == 60);
    });
}

#[test]
fn queues_come_and_go_with_their_row_their_interface_and_their_switch() {
    in_netns(|| {
        let mut bed = bed();
        let has_htb = || qdiscs().contains("htb 5e1f:");
        bed.switch.queue.put(2, &queue([0; 3])).unwrap();
        assert!(!has_htb());
        bed.switch.queue.put(2, &queue([0, RATE_BPS, RATE_BPS])).unwrap();
        assert!(has_htb() && qdiscs().matches("bfifo").count() == 2, "{}", qdiscs());
        bed.switch.queue.put(2, &queue([0; 3])).unwrap();
        assert!(!has_htb(), "{}", qdiscs());
        bed.switch.queue.put(2, &queue([RATE_BPS, 0, 0])).unwrap();
        bed.switch.queue.remove(2).unwrap();
        assert!(!has_htb());
        assert_eq!(bed.switch.queue.get(2).unwrap(), None);

        bed.switch.queue.put(2, &queue([RATE_BPS, 0, 0])).unwrap();
        bed.switch.detach(2).unwrap();
        assert!(!has_htb(), "the interface is free");
        common::ip("link del p2");
        bed.switch.attach(2, &veth("p2")).unwrap();
        assert!(has_htb(), "a new interface has what the row says");
        selvedge_xdp::remove_all(bed.pins.path()).unwrap();
        assert!(!has_htb());
    });
}

/// As who takes a lab down does, whose own interfaces have the same numbers.
#[test]
fn a_switch_is_removed_from_another_namespace() {
    in_netns(|| {
        let bed_there = bed();
        bed_there.switch.queue.put(2, &queue([RATE_BPS, 0, 0])).unwrap();
        in_netns(|| {
            let mut other = bed();
            other.switch.queue.put(2, &queue([RATE_BPS, 0, 0])).unwrap();
            selvedge_xdp::remove_all(bed_there.pins.path()).unwrap();
            assert!(qdiscs().contains("htb 5e1f:"), "{}", qdiscs());
            other.switch.detach(2).unwrap();
            assert!(!qdiscs().contains("htb 5e1f:"), "{}", qdiscs());
        });
    });
}

#[test]
fn an_interface_that_somebody_else_shapes_is_left_alone() {
    in_netns(|| {
        let bed = bed();
        let tc = |args: &str| {
            let status = Command::new("tc").args(args.split_whitespace()).status().unwrap();
            assert!(status.success(), "tc {args}");
        };
        tc("qdisc add dev p2 root handle 1: htb");
        let refused = bed.switch.queue.put(2, &queue([RATE_BPS, 0, 0]));
        assert!(matches!(refused, Err(Error::Htb { port: 2, .. })), "{refused:?}");
        assert_eq!(bed.switch.queue.get(2).unwrap(), None, "nothing half-applied");
        assert!(qdiscs().contains("htb 1:"), "{}", qdiscs());
        let too_fast = bed.switch.queue.put(2, &queue([98_000_000, 0, 0]));
        assert!(matches!(too_fast, Err(Error::Range { .. })), "{too_fast:?}");
    });
}
