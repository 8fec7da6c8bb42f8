//! Assurance over the metro network: what switches tell, second by second, and what comes of it.

use std::collections::BTreeMap;

use selvedge_core::assure::Kind;
use selvedge_core::{Counted, Event, LinkCount, Measured, SliceCount, Traffic};
use selvedge_pipeline::delay::{Delays, bucket};
use selvedge_pipeline::{Direction, DropReason, SliceId};
use selvedge_topology::NodeName;

use crate::lab::{Lab, metro, name, objects};

/// Its uplink goes gnb1, s1, s3, edge1.
const SLICE: &str = "\
apiVersion: selvedge/v1
kind: NetworkSlice
metadata: { name: control }
spec:
  sNssai: { sst: 2 }
  downlink: { guaranteed: 20Mbps }
  uplink: { guaranteed: 20Mbps }
  latency: 100ms
  availability: 99
  endpoints: [{ ue: robot-1 }, { dn: plc }]
";

/// What the network is like for a second.
#[derive(Clone, Default)]
struct Like {
    /// Packets of the slice's uplink that enter at gnb1, and how many of them are lost.
    entered: u64,
    lost: u64,
    /// What the switch of `at` tells as dropped, if not just what is lost.
    dropped: u64,
    /// Where the lost ones are: a link, by its near and far port; else a switch drops them.
    on: Option<(&'static str, &'static str)>,
    at: Option<(&'static str, DropReason)>,
    /// Two-way delay in milliseconds, by port; 1 elsewhere.
    slow: BTreeMap<&'static str, u64>,
    /// Ports whose test packets are lost.
    silent: Vec<&'static str>,
    /// Switches that tell nothing, or nothing exact.
    mute: Vec<&'static str>,
    vague: Vec<&'static str>,
    clock_off_ms: u64,
}

struct Bench {
    lab: Lab,
    id: SliceId,
    second: u64,
}

impl Bench {
    fn up() -> Self {
        let mut lab = Lab::up(metro());
        lab.apply(objects(SLICE)).expect("it fits");
        lab.settle();
        let id = SliceId(lab.core.slices()[0].id);
        let second = lab.now_ms / 1000 + 1;
        lab.log.clear();
        Self { lab, id, second }
    }

    fn run(&mut self, seconds: u64, like: &Like) {
        for _ in 0..seconds {
            self.lab.now_ms = (self.second + 1) * 1000 + 500;
            let switches: Vec<NodeName> = self.lab.switches.keys().cloned().collect();
            for switch in switches {
                if like.mute.contains(&switch.as_str()) {
                    continue;
                }
                let measured = self.measured(&switch, like);
                self.lab.event(Event::Measured { switch, measured });
            }
            self.second += 1;
        }
    }

    fn measured(&self, switch: &NodeName, like: &Like) -> Measured {
        let links = self.lab.report(switch).ports.into_iter().map(|port| {
            let end = format!("{switch}:{}", port.name);
            let silent = like.silent.contains(&end.as_str());
            let delay_ns = 1_000_000 * like.slow.get(end.as_str()).copied().unwrap_or(1);
            let lost = |far: bool| match like.on {
                Some((near, to)) if end == if far { to } else { near } => like.lost,
                _ => 0,
            };
            LinkCount {
                at: Counted::Port(port.id),
                probes: 10,
                answered: if silent { 0 } else { 10 },
                delay_ns,
                delay_max_ns: 2 * delay_ns,
                delays: if silent { Delays::default() } else { delays(delay_ns) },
                sent: 5000,
                received: 5000 - lost(true),
                came: Traffic { packets: 4000, bytes: 4_000_000 },
                left: Traffic { packets: 5000, bytes: 5_000_000 },
            }
        });
        let count = SliceCount {
            slice: self.id,
            direction: Direction::Uplink,
            in_bytes: 0,
            delivered_bytes: 0,
            entered: 0,
            left: 0,
            lost: 0,
            lost_reason: None,
        };
        let mut slices = Vec::new();
        let left = like.entered - like.lost;
        match switch.as_str() {
            "gnb1" => slices.push(SliceCount {
                in_bytes: 1000 * like.entered,
                entered: like.entered,
                ..count
            }),
            "edge1" => slices.push(SliceCount { delivered_bytes: 1000 * left, left, ..count }),
            _ => {}
        }
        if let Some((at, reason)) = like.at
            && at == switch.as_str()
        {
            let lost = like.lost.max(like.dropped);
            slices.push(SliceCount { lost, lost_reason: Some(reason), ..count });
        }
        Measured {
            second: self.second,
            at_ms: self.lab.now_ms - like.clock_off_ms,
            exact: !like.vague.contains(&switch.as_str()),
            interval_ms: 1000,
            links: links.collect(),
            slices,
            last: true,
        }
    }

    /// Lines of the log that are of breaches, oldest first, and forgotten.
    fn breaches(&mut self) -> Vec<String> {
        let log = std::mem::take(&mut self.lab.log);
        let ours = log.into_iter().filter(|line| line.kind.starts_with("slice-breach"));
        ours.map(|line| format!("{} {}: {}", line.kind, line.subject, line.text)).collect()
    }
}

fn good() -> Like {
    Like { entered: 1000, ..Like::default() }
}

/// Nine of ten take `delay_ns`, one twice as long.
fn delays(delay_ns: u64) -> Delays {
    let mut delays = Delays::default();
    let at = |delay_ns| bucket(u32::try_from(delay_ns).unwrap());
    delays.add(at(delay_ns), 9);
    delays.add(at(2 * delay_ns), 1);
    delays
}

#[test]
fn links_and_ports_have_their_rates_and_the_spread_of_their_delays() {
    let mut bench = Bench::up();
    let link = |bench: &Bench| {
        let links = bench.lab.core.links();
        let is = |end: &(NodeName, String), node, port| end.0.as_str() == node && end.1 == port;
        let found = links.into_iter().find(|l| is(&l.a, "gnb1", "p1") || is(&l.b, "gnb1", "p1"));
        found.expect("gnb1's first link")
    };
    assert_eq!((link(&bench).measured, link(&bench).rate_ab_bps), (None, None));
    bench.run(7, &good());
    let view = link(&bench);
    assert_eq!((view.rate_ab_bps, view.rate_ba_bps), (Some(40_000_000), Some(40_000_000)));
    let measured = view.measured.expect("test packets were answered");
    assert!((500_000..562_500).contains(&measured.median_ns), "{measured:?}");
    assert!((1_000_000..1_125_000).contains(&measured.p99_ns), "{measured:?}");
    assert_eq!(measured.max_ns, measured.p99_ns);
    let rates = bench.lab.core.port_rates("gnb1");
    let rate = rates.values().next().expect("a port of it");
    assert_eq!((rate.in_packets, rate.in_bps), (4000, 32_000_000));
    assert_eq!((rate.out_packets, rate.out_bps), (5000, 40_000_000));
    let all = bench.lab.core.link_delays();
    assert!(all.iter().all(|link| link.delays.total() == 7 * 20), "seven seconds, both ends");
    assert!(all.iter().all(|link| link.sum_ns == 7 * 20 * 1_000_000), "{all:?}");

    // What is not told any more is not shown any more; what was counted stays.
    let silent = Like { silent: vec!["gnb1:p1", "s1:p3"], ..good() };
    bench.run(6, &silent);
    assert_eq!(link(&bench).measured, None);
    bench.run(6, &Like { mute: vec!["gnb1"], ..silent });
    assert!(bench.lab.core.port_rates("gnb1").is_empty());
    let after = bench.lab.core.link_delays();
    assert_eq!(after.len(), all.len());
    assert!(after.iter().any(|link| link.delays.total() == 7 * 20));
}

#[test]
fn a_healthy_slice_is_measured_and_breaks_nothing() {
    let mut bench = Bench::up();
    let none = bench.lab.core.assurance("control").expect("it is there");
    assert_eq!((none.second, none.directions[1].windows[0].measured_seconds), (None, 0));
    bench.run(70, &good());
    assert_eq!(bench.breaches(), [""; 0]);
    let view = bench.lab.core.assurance("control").expect("it is there");
    assert_eq!(view.second, Some(bench.second - 1));
    let uplink = &view.directions[1];
    assert_eq!((uplink.direction, uplink.guaranteed_bps), ("uplink", Some(20_000_000)));
    assert_eq!((uplink.latency_us, view.availability_ppm), (Some(100_000), Some(990_000)));
    let five = uplink.windows[0];
    assert_eq!((five.seconds, five.measured_seconds), (5, 5));
    assert_eq!((five.offered_bps, five.delivered_bps), (Some(8_000_000), Some(8_000_000)));
    assert_eq!((five.loss_ppm, five.availability_ppm), (Some(0), Some(1_000_000)));
    // Three links, 1 ms there and back on each.
    assert_eq!((five.delay_ns, five.delay_max_ns), (Some(1_500_000), Some(3_000_000)));
    assert!(uplink.windows[1].measured_seconds > 55 && uplink.windows[2].measured_seconds == 70);
    let hops: Vec<&str> = uplink.hops.iter().map(|hop| hop.link.as_str()).collect();
    assert_eq!(hops.len(), 3, "{hops:?}");
    assert!(hops.contains(&"gnb1:p1 -> s1:p3") && hops.contains(&"s3:p4 -> edge1:p1"));
    assert!(uplink.hops.iter().all(|hop| hop.bound_ns.is_some_and(|bound| bound > 500_000)));
    assert_eq!(uplink.breaches, []);
    // Nobody sends downlink: that is no breach.
    assert_eq!(view.directions[0].windows[0].loss_ppm, None);
    assert_eq!(bench.lab.core.assurances().len(), 1);
}

#[test]
fn loss_within_the_guarantee_names_the_link_and_ends() {
    let mut bench = Bench::up();
    bench.run(6, &good());
    let on = Some(("gnb1:p1", "s1:p3"));
    bench.run(1, &Like { lost: 100, on, ..good() });
    assert_eq!(
        bench.breaches(),
        ["slice-breach control: uplink rate: 3.3333 % of the packets within its guarantee of \
          20Mbps are lost (100 of 3000); gnb1:p1 -> s1:p3 lost 100 of 15000 packets"],
        "within one second"
    );
    bench.run(3, &Like { lost: 100, on, ..good() });
    assert_eq!(bench.breaches(), [""; 0], "said once");
    let view = bench.lab.core.assurance("control").expect("it is there");
    let breach = &view.directions[1].breaches[0];
    assert_eq!(breach.kind, Kind::Rate);
    let hop = breach.breach.hop.as_deref().expect("it is known");
    assert!(hop.starts_with("gnb1:p1 -> s1:p3"), "{hop}");
    bench.run(5, &good());
    let ended = ["slice-breach-ended control: uplink rate: kept again after 8 s"];
    assert_eq!(bench.breaches(), ended);
}

#[test]
fn a_switch_that_drops_is_named_with_its_reason() {
    let mut bench = Bench::up();
    let at = Some(("s3", DropReason::NoNextHop));
    bench.run(3, &Like { lost: 500, at, ..good() });
    let breaches = bench.breaches();
    assert_eq!(breaches.len(), 1, "{breaches:?}");
    assert!(breaches[0].ends_with("; s3 dropped 500 of them (no_next_hop)"), "{breaches:?}");
}

#[test]
fn a_link_is_named_also_when_its_slice_has_left_it() {
    let mut bench = Bench::up();
    bench.run(6, &good());
    bench.lab.link("gnb1", "s1", false);
    bench.lab.settle();
    // The second is told after the switch of paths, as every second is.
    let second = bench.second;
    bench.run(1, &Like { lost: 100, on: Some(("gnb1:p1", "s1:p3")), ..good() });
    let view = bench.lab.core.assurance("control").expect("it is there");
    assert_eq!(view.second, Some(second));
    let hops = &view.directions[1].hops;
    assert!(hops.iter().all(|hop| !hop.link.starts_with("gnb1:p1")), "{hops:?}");
    let breaches = bench.breaches();
    assert_eq!(breaches.len(), 1, "{breaches:?}");
    assert!(breaches[0].ends_with("; gnb1:p1 -> s1:p3 lost 100 of 15000 packets"), "{breaches:?}");
}

#[test]
fn a_drop_is_named_also_when_it_was_told_a_second_before_its_loss() {
    let mut bench = Bench::up();
    bench.run(6, &good());
    let at = Some(("s3", DropReason::NoNextHop));
    // Drops are counted between readings, half a second after the loss begins to be.
    bench.run(1, &Like { dropped: 100, at, ..good() });
    assert_eq!(bench.breaches(), [""; 0]);
    bench.run(1, &Like { lost: 100, ..good() });
    let breaches = bench.breaches();
    assert_eq!(breaches.len(), 1, "{breaches:?}");
    assert!(breaches[0].ends_with("; s3 dropped 100 of them (no_next_hop)"), "{breaches:?}");
}

#[test]
fn a_slow_link_is_named_with_its_excess_and_in_both_directions() {
    let mut bench = Bench::up();
    bench.run(4, &good());
    let slow = BTreeMap::from([("s1:p2", 400), ("s3:p2", 400)]);
    bench.run(3, &Like { slow, ..good() });
    let breaches = bench.breaches();
    assert_eq!(breaches.len(), 2, "{breaches:?}");
    for (line, link) in breaches.iter().zip(["s3:p2 -> s1:p2", "s1:p2 -> s3:p2"]) {
        assert!(line.contains("promised 100ms; "), "{line}");
        assert!(line.contains(&format!("; {link} takes ")), "{line}");
    }
    bench.run(8, &good());
    assert_eq!(bench.breaches().len(), 2, "both end");
}

#[test]
fn a_silent_link_costs_availability() {
    let mut bench = Bench::up();
    bench.run(4, &good());
    // 1 % of 15 minutes is 9 s.
    let idle = Like { silent: vec!["gnb1:p1", "s1:p3"], ..Like::default() };
    bench.run(9, &idle);
    assert_eq!(bench.breaches(), [""; 0]);
    bench.run(1, &idle);
    let breaches = bench.breaches();
    assert_eq!(breaches.len(), 2, "{breaches:?}");
    let want = "uplink availability: 10 s of the last 15 minutes it did not work, promised 99 %; \
                gnb1:p1 -> s1:p3 is silent";
    assert!(breaches[1].ends_with(want), "{breaches:?}");
}

#[test]
fn what_is_not_measured_breaks_nothing() {
    let mut bench = Bench::up();
    // Half is lost, but an end counts another second's packets, or says nothing.
    for like in [
        Like { lost: 500, vague: vec!["edge1"], ..good() },
        Like { lost: 500, mute: vec!["edge1"], ..good() },
        Like { lost: 500, clock_off_ms: 900, ..good() },
    ] {
        bench.run(10, &like);
        assert!(bench.lab.logged("slice-breach").is_empty(), "{:?}", bench.lab.log);
    }
    let off = bench.lab.logged("clock-off").len();
    assert_eq!(off, bench.lab.switches.len(), "each switch's clock, once");
    bench.run(2, &good());
    assert_eq!(bench.lab.logged("clock-right").len(), off);
    // A transit switch that tells nothing keeps nobody waiting for longer than a second.
    bench.lab.log.clear();
    bench.run(4, &Like { lost: 500, mute: vec!["s2"], ..good() });
    assert_eq!(bench.lab.logged("slice-breach").len(), 1);
}

#[test]
fn seconds_of_another_time_and_switches_that_left_are_not_heard() {
    let mut bench = Bench::up();
    bench.run(3, &good());
    let judged = bench.lab.core.assurance("control").expect("it is there").second;
    let gnb1 = name("gnb1");
    for second in [0, bench.second - 20, bench.second + 20, u64::MAX] {
        let told = Measured { second, ..bench.measured(&gnb1, &good()) };
        bench.lab.event(Event::Measured { switch: gnb1.clone(), measured: told });
    }
    let view = bench.lab.core.assurance("control").expect("it is there");
    assert_eq!(view.second, judged);
    bench.lab.leave(&gnb1);
    bench.run(8, &Like { lost: 900, ..good() });
    assert!(bench.lab.logged("slice-breach").is_empty(), "its ingress is not heard");
}
