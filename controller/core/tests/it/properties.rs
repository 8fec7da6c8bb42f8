//! Random networks, random events: always the same end.

use proptest::prelude::*;
use selvedge_core::{Change, Defect, Refusal, Request, Target, TargetKind};
use selvedge_topology::{BitRate, End, Host, Link, Node, NodeName, Shaped, Switch, Topology};

use crate::intent::{AVAILABILITIES, delete, protected};
use crate::lab::{Lab, name};
use selvedge_slices::ObjectKind;

/// What happens to the network.
#[derive(Clone, Debug)]
enum Happening {
    LinkDown(usize),
    LinkUp(usize),
    Leave(usize),
    Join(usize),
    Restart,
    Put {
        slice: usize,
        from: usize,
        to: usize,
        mbps: u64,
        availability: usize,
    },
    Delete {
        slice: usize,
    },
    /// A link is to be empty, or may be used again.
    Drain(usize, bool),
    Resync,
    /// Answers and timers so far are handled in part.
    Some(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => (0..12usize).prop_map(Happening::LinkDown),
        3 => (0..12usize).prop_map(Happening::LinkUp),
        1 => (0..6usize).prop_map(Happening::Leave),
        2 => (0..6usize).prop_map(Happening::Join),
        1 => Just(Happening::Restart),
        3 => (0..3usize, 0..6usize, 0..6usize, 1..60u64, 0..4usize).prop_map(
            |(slice, from, to, mbps, availability)| {
                Happening::Put { slice, from, to, mbps, availability }
            }
        ),
        1 => (0..12usize, any::<bool>()).prop_map(|(at, undo)| Happening::Drain(at, undo)),
        1 => (0..3usize).prop_map(|slice| Happening::Delete { slice }),
        1 => Just(Happening::Resync),
        4 => (1..6usize).prop_map(Happening::Some),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// By the switches alone: the controller has not heard of it. Where costs differ, a way around
    /// may lead over a link that no tree uses, and cannot be said in ids.
    #[test]
    fn any_one_failure_is_gone_around(mut topology in topology()) {
        topology.links.iter_mut().for_each(|link| link.cost = None);
        let lab = Lab::up(topology);
        prop_assert_eq!(lab.unreachable(), Vec::<String>::new());
        let links = fabric(&lab).into_iter().map(|link| vec![link.a, link.b]);
        let of = |switch: &NodeName| {
            let links = fabric(&lab).into_iter().filter(|link| link.seen_from(switch).is_some());
            links.flat_map(|link| [link.a, link.b]).collect()
        };
        for ends in links.chain(lab.switches.keys().map(of)) {
            let mut net = (*lab).clone();
            for end in &ends {
                let ports = &mut net.switches.get_mut(&end.node).unwrap().ports;
                let port = ports.values_mut().find(|port| port.name == end.port.as_str());
                port.unwrap().up = false;
            }
            prop_assert_eq!(net.unreachable(), net.cut_off(), "{:?} fail", ends);
        }
    }
}

/// A tree with some more links, a host with a known MAC address on each switch.
fn topology() -> impl Strategy<Value = Topology> {
    let links = prop::collection::vec((0..6usize, 0..6usize, 1..4u32), 0..6);
    (2..6usize, prop::collection::vec(0..6usize, 6), links).prop_map(|(n, parents, more)| {
        let node = |n: usize| name(&format!("s{n}"));
        let mut ports = vec![1u32; n];
        let mut end = |n: usize| {
            ports[n] += 1;
            End { node: node(n), port: format!("p{}", ports[n]).parse().unwrap() }
        };
        let mut nodes: std::collections::BTreeMap<NodeName, Node> = Default::default();
        let mut links = Vec::new();
        for (s, parent) in parents.iter().enumerate().take(n) {
            nodes.insert(node(s), Node::Switch(Switch::default()));
            let number = u8::try_from(s).unwrap();
            let host = Host {
                ipv4: Some(format!("10.0.{s}.1/32").parse().unwrap()),
                ipv6: (s % 2 == 0).then(|| format!("fd10::{s:x}/128").parse().unwrap()),
                mac: Some([2, 0xff, 0, 0, 0, number]),
            };
            nodes.insert(name(&format!("h{s}")), Node::Host(host));
            let far = End { node: name(&format!("h{s}")), port: "eth0".parse().unwrap() };
            links.push(Link::new(end(s), far));
            if s > 0 {
                links.push(Link::new(end(s), end(parent % s)));
            }
        }
        for (a, b, cost) in more {
            let (a, b) = (a % n, b % n);
            if a != b {
                let capacity = Some(BitRate::from_mbps(100));
                let shaped = Shaped { guaranteed: cost == 1, urllc: false };
                let link = Link::new(end(a), end(b));
                links.push(Link { capacity, cost: Some(cost), shaped, ..link });
            }
        }
        Topology { name: name("random"), nodes, links }
    })
}

fn fabric(lab: &Lab) -> Vec<Link> {
    let switch = |end: &End| lab.switches.contains_key(&end.node);
    let links = lab.topology.links.iter();
    links.filter(|link| switch(&link.a) && switch(&link.b)).cloned().collect()
}

/// A refusal is as good as any answer; see what holds afterwards. But what admission takes, the
/// proof does.
fn ask(lab: &mut Lab, change: Change) {
    let reply = lab.request(Request::Apply { change, plan: None });
    let unprotected = |refusal: &Refusal| match refusal {
        Refusal::NotProven(counter) => counter.defect == Defect::Unprotected,
        _ => false,
    };
    assert!(!reply.as_ref().is_err_and(unprotected), "{reply:?}");
}

fn happen(lab: &mut Lab, happening: &Happening) {
    let switches: Vec<NodeName> = lab.switches.keys().cloned().collect();
    let hosts: Vec<NodeName> = lab.places.keys().cloned().collect();
    let links = fabric(lab);
    let link = |lab: &mut Lab, at: usize, up: bool| {
        let link = links[at % links.len()].clone();
        for end in [&link.a, &link.b] {
            lab.port(end, up);
        }
    };
    match *happening {
        Happening::LinkDown(at) => link(lab, at, false),
        Happening::LinkUp(at) => link(lab, at, true),
        Happening::Leave(at) => lab.leave(&switches[at % switches.len()]),
        Happening::Join(at) => lab.join(&switches[at % switches.len()]),
        Happening::Restart => {
            lab.restart();
            for switch in switches {
                if lab.switches[&switch].joined {
                    lab.join(&switch);
                }
            }
        }
        Happening::Put { slice: number, from, to, mbps, availability } => {
            let (from, to) = (&hosts[from % hosts.len()], &hosts[to % hosts.len()]);
            if from != to {
                let ends = format!("{{ ue: {from} }}, {{ dn: {to} }}");
                let availability = AVAILABILITIES[availability];
                let (number, rate) = (format!("n{number}"), format!("{mbps}Mbps"));
                let sharing = if mbps % 3 == 0 { "non-shared" } else { "shared" };
                let more = format!("{availability}\n  resourceSharingLevel: {sharing}");
                ask(lab, protected(&number, &rate, &more, &ends));
            }
        }
        Happening::Delete { slice } => {
            ask(lab, delete(ObjectKind::NetworkSlice, &format!("n{slice}")));
        }
        Happening::Drain(at, undo) => {
            let link = links[at % links.len()].clone();
            let target = Target { kind: TargetKind::Link, name: link.a.to_string() };
            let mut change = Change::default();
            let targets = if undo { &mut change.undrain } else { &mut change.drain };
            targets.push(target);
            ask(lab, change);
        }
        Happening::Resync => lab.resync(),
        Happening::Some(steps) => {
            for _ in 0..steps {
                lab.step();
            }
        }
    }
}

/// Hosts reach each other through the interpreter if and only if they share a slice and their
/// switches are connected.
fn judge(lab: &Lab) -> Result<(), TestCaseError> {
    let links = fabric(lab);
    let up = |end: &End| {
        lab.switches[&end.node].ports.values().any(|p| p.name == end.port.as_str() && p.up)
    };
    let mut part: std::collections::BTreeMap<&NodeName, usize> =
        lab.switches.keys().enumerate().map(|(ix, name)| (name, ix)).collect();
    for _ in 0..lab.switches.len() {
        for link in links.iter().filter(|link| up(&link.a) && up(&link.b)) {
            let least = part[&link.a.node].min(part[&link.b.node]);
            part.insert(lab.switches.get_key_value(&link.a.node).unwrap().0, least);
            part.insert(lab.switches.get_key_value(&link.b.node).unwrap().0, least);
        }
    }
    let view = lab.core.endpoints();
    let slices = |host: &NodeName| &view.iter().find(|e| e.name == *host).unwrap().slices;
    for from in lab.places.keys() {
        for to in lab.places.keys().filter(|to| *to != from) {
            // A host that is on the same side of every slice it shares talks to nobody there.
            let shares = slices(from).iter().any(|slice| {
                slices(to).contains(slice)
                    && (slice == "default" || {
                        let members = &lab.core.slices();
                        let members = &members.iter().find(|s| s.name == *slice).unwrap().endpoints;
                        members.len() == 2
                    })
            });
            let connected = part[&lab.places[from].node] == part[&lab.places[to].node];
            for ipv6 in [false, true] {
                let has = |host| lab.addresses(host).iter().any(|a| a.is_ipv6() == ipv6);
                if has(from) && has(to) {
                    let reaches = lab.reaches(from, to, ipv6);
                    prop_assert_eq!(reaches, shares && connected, "{} -> {} {}", from, to, ipv6);
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_network_ends_as_intended(
        topology in topology(),
        happenings in prop::collection::vec(happening(), 0..25),
        seed in 1..u64::MAX,
        failing in prop_oneof![Just(0u64), Just(20)],
    ) {
        let mut lab = Lab::new(topology).seeded(seed);
        lab.failing_percent = failing;
        lab.reordering = failing > 0;
        lab.join_all();
        for happening in &happenings {
            happen(&mut lab, happening);
        }
        lab.failing_percent = 0;
        for switch in lab.switches.keys().cloned().collect::<Vec<_>>() {
            if !lab.switches[&switch].joined {
                lab.join(&switch);
            }
        }
        lab.settle();
        let status = lab.core.status();
        prop_assert!(status.converged, "waiting for {:?}", status.waiting_for);
        for kind in ["plan-refused", "plan-step-unsafe"] {
            prop_assert!(lab.logged(kind).is_empty(), "{:?}", lab.logged(kind));
        }
        judge(&lab)?;
        // A new controller over the same store finds nothing to do.
        let writes = lab.writes;
        lab.restart();
        lab.join_all();
        lab.settle();
        lab.assert_converged();
        prop_assert_eq!(lab.writes, writes);
    }
}
