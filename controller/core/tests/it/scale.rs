//! Forty switches with forty hosts, in the profile that tests are built in.

use std::time::{Duration, Instant};

use selvedge_topology::{BitRate, End, Host, Link, Node, NodeName, Switch, Topology};

use crate::lab::{Lab, name, objects};

/// A ring with chords, a host on each switch.
pub(crate) fn ring(switches: usize, chord: usize) -> Topology {
    let node = |n: usize| name(&format!("s{n:02}"));
    let end = |n: usize, port: &str| End { node: node(n), port: port.parse().unwrap() };
    let mut nodes: std::collections::BTreeMap<NodeName, Node> = Default::default();
    let mut links = Vec::new();
    let capacity = Some(BitRate::from_mbps(100));
    for n in 0..switches {
        nodes.insert(node(n), Node::Switch(Switch::default()));
        let host = Host {
            ipv4: Some(format!("10.0.{n}.1/32").parse().unwrap()),
            ipv6: Some(format!("fd10::{n:x}/128").parse().unwrap()),
            mac: Some([2, 0xff, 0, 0, 0, u8::try_from(n).unwrap()]),
        };
        let host_name = name(&format!("h{n:02}"));
        nodes.insert(host_name.clone(), Node::Host(host));
        let far = End { node: host_name, port: "eth0".parse().unwrap() };
        links.push(Link::new(end(n, "p1"), far));
        let next = (n + 1) % switches;
        links.push(Link { capacity, ..Link::new(end(n, "p2"), end(next, "p3")) });
        if n % 3 == 0 && chord > 0 {
            let far = (n + chord) % switches;
            links.push(Link { capacity, ..Link::new(end(n, "p4"), end(far, "p5")) });
        }
    }
    Topology { name: name("ring"), nodes, links }
}

#[test]
fn forty_switches_are_computed_and_proven_in_well_under_a_second() {
    let topology = ring(40, 13);
    let mut lab = Lab::new(topology);
    lab.join_all();
    let start = Instant::now();
    lab.settle();
    let all = start.elapsed();
    lab.assert_converged();
    // Settling computes a few times; one link down is computed once.
    let start = Instant::now();
    lab.link("s00", "s01", false);
    let down = start.elapsed();
    lab.settle();
    lab.assert_converged();
    let start = Instant::now();
    let slice = "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: { name: a }\nspec:\n  \
                 uplink: { guaranteed: 5Mbps }\n  endpoints: [{ ue: h00 }, { dn: h20 }]\n";
    let reply = lab.apply(objects(slice));
    let apply = start.elapsed();
    reply.unwrap();
    println!("settle {all:?}, two ports down {down:?}, apply {apply:?}");
    // Debug assertions and a busy machine included, with room to spare.
    for (what, took) in [("settle", all), ("link down", down), ("apply", apply)] {
        assert!(took < Duration::from_secs(3), "{what} took {took:?}");
    }
    let (from, to) = (name("h05"), name("h33"));
    assert!(lab.reaches(&from, &to, false) && lab.reaches(&to, &from, true));
}
