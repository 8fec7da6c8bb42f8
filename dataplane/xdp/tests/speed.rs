//! A rough look at the cost of each path; `cargo xtask bench forward` measures in earnest.
//! Run with: cargo test -p selvedge-xdp --test speed -- --ignored --nocapture

mod common;

use std::time::Instant;

use common::{PinDir, in_netns, interface, veth};
use selvedge_xdp::{
    Class, Delivery, Direction, Endpoint, Generator, LocalSid, Meter, NextHop, PortKind, Queue,
    Route, RouteAction, Table, UnderTest,
};

#[test]
#[ignore = "prints figures"]
fn figures() {
    in_netns(|| {
        let pins = PinDir::new();
        let mut switch = pins.open();
        let (p1, p2) = (veth("p1"), veth("p2"));
        switch.attach(1, &p1).unwrap();
        switch.attach(2, &p2).unwrap();
        switch.port.put(1, &PortKind::Access).unwrap();
        switch.port.put(2, &PortKind::Fabric).unwrap();
        let net = "10.1.0.11/32".parse().unwrap();
        let endpoint = Endpoint { slice_set: 3, direction: Direction::Uplink };
        switch.endpoint.put((1, net), &endpoint).unwrap();
        switch.delivery.put((3, net), &Delivery { port: 2, mac: [2; 6] }).unwrap();
        let policy = Route { slice: 3, action: RouteAction::Policy(1) };
        switch.route.put((3, "10.2.0.5/32".parse().unwrap()), &policy).unwrap();
        switch.policy.put(1, &vec![9, 0xE001]).unwrap();
        switch.local_sid.put(7, &LocalSid::Node).unwrap();
        switch.local_sid.put(0xE001, &LocalSid::Decapsulate).unwrap();
        switch.next_hop.put(9, &NextHop { port: 2, mac: [2; 6] }).unwrap();
        let meter = Meter {
            class: Class::Guaranteed,
            guaranteed_bps: 100_000_000_000,
            guaranteed_burst_bytes: 1_000_000_000,
            maximum_bps: 0,
            maximum_burst_bytes: 0,
        };
        switch.meter.put((3, Direction::Uplink), &meter).unwrap();
        let queue = Queue { rate_bps: 100_000_000_000, threshold_bytes: [u32::MAX; 3] };
        switch.queue.put(2, &queue).unwrap();

        let mut inner = Vec::new();
        etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 1, 0, 11], [10, 2, 0, 5], 64)
            .udp(1, 2)
            .write(&mut inner, &[0; 86])
            .unwrap();
        let encapsulated = |destination: [u16; 8]| {
            let mut frame = vec![2u8; 12];
            frame.extend([0x86, 0xDD, 0x68, 0x80, 0, 0]);
            frame.extend((inner.len() as u16 - 14).to_be_bytes());
            frame.extend([4, 64]);
            let source = [0x5f00u16, 0, 9, 0xfffe, 3, 1, 0, 0];
            frame.extend(source.into_iter().chain(destination).flat_map(u16::to_be_bytes));
            let mut packet = inner[14..].to_vec();
            packet[16..20].copy_from_slice(&[10, 1, 0, 11]);
            frame.extend(packet);
            frame
        };
        let cases = [
            ("bare redirect", UnderTest::Redirect, p1.index, inner.clone()),
            ("ingress", UnderTest::Pipeline, p1.index, inner.clone()),
            (
                "transit",
                UnderTest::Pipeline,
                p2.index,
                encapsulated([0x5f00, 0, 9, 0xE001, 0, 0, 0, 0]),
            ),
            (
                "egress",
                UnderTest::Pipeline,
                p2.index,
                encapsulated([0x5f00, 0, 7, 0xE001, 0, 0, 0, 0]),
            ),
        ];
        let generator = Generator::new(&switch, &p2).unwrap();
        let _sink = generator.sink(&interface("p2h")).unwrap();
        let packets = 4_000_000u32;
        for round in 0..3 {
            for (name, under_test, ifindex, frame) in &cases {
                let start = Instant::now();
                generator.run(*under_test, *ifindex, frame, packets).unwrap();
                let ns = start.elapsed().as_nanos() as f64 / f64::from(packets);
                println!("round {round} {name}: {ns:.0} ns, {:.2} Mpps", 1000.0 / ns);
            }
        }
        println!("{:?} {:?}", switch.counters.totals(), switch.counters.named_drops());
        let sizes = std::process::Command::new("sh")
            .args([
                "-c",
                "for p in entry access sid answer hook_rx; do bpftool prog show pinned \
                   $0/v1/programs/$p | grep -E 'xlated|name'; bpftool prog dump xlated pinned \
                   $0/v1/programs/$p | grep -cE '^ *[0-9]+: \\('; done",
            ])
            .arg(pins.path())
            .output()
            .unwrap();
        println!("{}", String::from_utf8_lossy(&sizes.stdout));
    });
}
