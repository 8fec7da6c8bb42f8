//! Packets that are told of: which of them, what is said of each, and that nothing else changes.

mod common;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use common::{PinDir, in_netns, veth};
use etherparse::PacketBuilder;
use selvedge_xdp::common::drop;
use selvedge_xdp::{
    Delivery, Direction, Endpoint, LocalSid, NextHop, Policy, PortKind, Route, RouteAction,
    SAMPLE_HEAD, SAMPLES_PER_SECOND, Sample, SampleFilter, Samples, Switch, Table, Verdict,
};

const HOST: [u8; 6] = [2, 0, 0, 0, 0, 0x11];
const GATEWAY: [u8; 6] = [0x02, 0x5E, 0x1F, 0, 0, 1];
const NEIGHBOR: [u8; 6] = [2, 0, 0, 0, 0, 0x22];
const SLICE: u16 = 3;

/// Access port 1 with 10.1.0.11, fabric port 2 towards node 9; this is node 7. 10.1.0.12 is
/// delivered nowhere.
struct Bed {
    switch: Switch,
    samples: Samples,
    access: u32,
    fabric: u32,
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
    let samples = switch.sampler.samples().unwrap();
    Bed { switch, samples, access: p1.index, fabric: p2.index, _pins: pins }
}

fn any() -> SampleFilter {
    SampleFilter {
        id: 5,
        sources: Vec::new(),
        destinations: Vec::new(),
        slice: None,
        direction: None,
        one_in: 1,
        duration: Duration::from_secs(60),
    }
}

/// From 10.1.0.11, of `len` bytes; `number` is what tells it from others.
fn v4(to: [u8; 4], number: u16, len: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(HOST, GATEWAY)
        .ipv4([10, 1, 0, 11], to, 64)
        .udp(4000, number)
        .write(&mut frame, &vec![0x5a; len - 28])
        .unwrap();
    frame
}

impl Bed {
    fn run(&self, ifindex: u32, frame: &[u8]) -> Verdict {
        self.switch.test_run(ifindex, frame).unwrap().verdict
    }

    fn told(&mut self) -> Vec<Sample> {
        std::iter::from_fn(|| self.samples.next()).collect()
    }

    /// Runs a frame from the host and gives what is told of it.
    fn of(&mut self, frame: &[u8]) -> Vec<Sample> {
        self.run(self.access, frame);
        self.told()
    }
}

/// The packet in a frame that left for node 9, as node 9 would send it back here.
fn returned(frame: &[u8]) -> Vec<u8> {
    let mut back = frame.to_vec();
    back[42..46].copy_from_slice(&[0, 7, 0xe0, 1]);
    back[46..54].fill(0);
    back
}

#[test]
fn a_packet_is_told_of_as_it_came_and_as_it_ended() {
    in_netns(|| {
        let mut bed = bed();
        let frame = v4([10, 2, 0, 5], 1, 400);
        assert_eq!(bed.of(&frame), [], "nobody asked");
        bed.switch.sampler.start(&any()).unwrap();
        let before = selvedge_xdp::now().unwrap();
        let Verdict::Forwarded { port: 2, frame: out } = bed.run(bed.access, &frame) else {
            panic!("not forwarded");
        };
        let told = bed.told();
        let [one] = &told[..] else { panic!("{told:?}") };
        assert_eq!((one.id, one.port, one.slice, one.direction), (5, 1, SLICE, Direction::Uplink));
        assert_eq!(one.verdict, Verdict::Forwarded { port: 2, frame: Vec::new() });
        assert!(!one.in_profile, "nothing is guaranteed");
        assert_eq!((one.frame_len as usize, &one.head[..]), (frame.len(), &frame[..SAMPLE_HEAD]));
        assert!(before <= one.at && one.at <= selvedge_xdp::now().unwrap());

        // At the next switch it is the same one, in its outer header.
        let mut back = returned(&out);
        bed.run(bed.fabric, &back);
        let told = bed.told();
        let [two] = &told[..] else { panic!("{told:?}") };
        assert_eq!((two.port, two.slice, two.digest), (2, SLICE, one.digest));
        assert_eq!(two.verdict, Verdict::Dropped(drop::NO_DELIVERY));
        assert_eq!(two.head[..], back[..SAMPLE_HEAD]);
        back[54 + 16 + 3] ^= 1;
        bed.run(bed.fabric, &back);
        assert_ne!(bed.told()[0].digest, one.digest, "another packet");

        // A short frame is told whole; what is padding at one switch is not in the digest.
        let short = v4([10, 2, 0, 5], 2, 28);
        let mut padded = short.clone();
        padded.extend([7; 18]);
        let (short, padded) = (bed.of(&short), bed.of(&padded));
        assert_eq!(short[0].head.len(), 42);
        assert_eq!((padded[0].head.len(), padded[0].digest), (60, short[0].digest));

        // Dropped before anybody knows whose it is.
        let mut spoofed = v4([10, 2, 0, 5], 3, 60);
        spoofed[29] = 99;
        let told = bed.of(&spoofed);
        assert_eq!(
            (told[0].verdict.clone(), told[0].slice),
            (Verdict::Dropped(drop::SPOOFED_SOURCE), 0)
        );

        bed.switch.sampler.stop().unwrap();
        assert_eq!(bed.of(&frame), [], "it is over");
    });
}

#[test]
fn only_what_is_asked_for_is_told() {
    in_netns(|| {
        let mut bed = bed();
        let away = v4([10, 2, 0, 5], 1, 100);
        let here = v4([10, 1, 0, 11], 1, 100);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let asked = |bed: &Bed, change: &dyn Fn(&mut SampleFilter)| {
            let mut filter = any();
            change(&mut filter);
            bed.switch.sampler.start(&filter).unwrap();
        };
        type Change = &'static dyn Fn(&mut SampleFilter);
        let to = |to: &'static [&'static str]| -> Box<dyn Fn(&mut SampleFilter)> {
            Box::new(move |f| f.destinations = to.iter().map(|a| a.parse().unwrap()).collect())
        };
        // (filter, told of the packet that leaves, of the one that stays)
        let slice: Change = &|f| f.slice = Some(SLICE);
        let other_slice: Change = &|f| f.slice = Some(SLICE + 1);
        let uplink: Change = &|f| f.direction = Some(Direction::Uplink);
        let downlink: Change = &|f| f.direction = Some(Direction::Downlink);
        for (change, of_away, of_here) in [
            (slice, 1, 1),
            (other_slice, 0, 0),
            (uplink, 1, 1),
            (downlink, 0, 0),
            (&*to(&["10.2.0.5"]), 1, 0),
            (&*to(&["fd00::1", "10.1.0.11", "10.2.0.5"]), 1, 1),
            (&*to(&["10.2.0.6"]), 0, 0),
        ] {
            asked(&bed, change);
            let told = (bed.of(&away).len(), bed.of(&here).len());
            assert_eq!(told, (of_away, of_here));
        }
        asked(&bed, &|f| f.sources = vec![ip("10.1.0.11")]);
        assert_eq!(bed.of(&away).len(), 1);
        asked(&bed, &|f| f.sources = vec![ip("10.1.0.12")]);
        assert_eq!(bed.of(&away).len(), 0);
        let too_many = SampleFilter { sources: vec![ip("10.1.0.11"); 5], ..any() };
        assert!(bed.switch.sampler.start(&too_many).is_err());
        let too_long = SampleFilter { duration: Duration::from_secs(61), ..any() };
        assert!(bed.switch.sampler.start(&too_long).is_err());
    });
}

#[test]
fn one_in_so_many_is_the_same_ones_everywhere() {
    in_netns(|| {
        let mut bed = bed();
        bed.switch.sampler.start(&SampleFilter { one_in: 8, ..any() }).unwrap();
        let mut chosen = 0;
        for number in 0..800 {
            let Verdict::Forwarded { frame, .. } =
                bed.run(bed.access, &v4([10, 2, 0, 5], number, 100))
            else {
                panic!("not forwarded");
            };
            let first = bed.told().len();
            bed.run(bed.fabric, &returned(&frame));
            let second = bed.told().len();
            assert_eq!(first, second, "{number}");
            chosen += first;
            // Below the limit of a second.
            if number % 400 == 399 {
                std::thread::sleep(Duration::from_millis(500));
            }
        }
        assert!((60..=140).contains(&chosen), "{chosen} of 800");
    });
}

#[test]
fn it_ends_in_time_and_has_a_limit_and_no_packet_is_lost_by_it() {
    in_netns(|| {
        let mut bed = bed();
        let frame = v4([10, 2, 0, 5], 1, 100);
        bed.switch.sampler.start(&any()).unwrap();
        let (begun, mut told) = (Instant::now(), 0);
        for _ in 0..1000 {
            let verdict = bed.run(bed.access, &frame);
            assert!(matches!(verdict, Verdict::Forwarded { port: 2, .. }), "{verdict:?}");
            told += bed.told().len() as u64;
        }
        let most = SAMPLES_PER_SECOND + SAMPLES_PER_SECOND * (begun.elapsed().as_secs() + 1);
        assert!((SAMPLES_PER_SECOND..=most).contains(&told), "{told}");

        // Nobody ends it: neither agent nor controller.
        let short = SampleFilter { duration: Duration::from_millis(50), ..any() };
        bed.switch.sampler.start(&short).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        std::thread::sleep(Duration::from_millis(60));
        while !bed.of(&frame).is_empty() {
            assert!(Instant::now() < deadline, "it does not end");
        }
        let deadline = Instant::now() + Duration::from_secs(1);
        while Instant::now() < deadline {
            assert_eq!(bed.of(&frame), [], "it was over");
        }
    });
}
