//! Links, switches and writes that fail.

use selvedge_core::Severity;

use crate::lab::{Lab, metro, name, objects};
use crate::scale::ring;

#[test]
fn traffic_goes_on_over_another_path() {
    let mut lab = Lab::up(metro());
    let (robot, plc) = (name("robot-1"), name("plc"));
    let before = lab.send(&robot, "10.2.0.21".parse().unwrap()).nodes;
    assert_eq!(before, ["gnb1", "s1", "s3", "edge1"].map(name));
    let at = lab.now_ms;
    lab.link("s1", "s3", false);
    // One pass: the next hops are written before any timer.
    while !lab.reaches(&robot, &plc, false) {
        assert!(lab.step(), "never reached");
    }
    assert_eq!(lab.now_ms, at, "no pause before traffic flows again");
    lab.settle();
    lab.assert_converged();
    assert_eq!(lab.unreachable(), Vec::<String>::new());
    assert_eq!(lab.logged("link-down").len(), 1, "one link, one line");
    lab.link("s1", "s3", true);
    lab.settle();
    assert_eq!(lab.send(&robot, "10.2.0.21".parse().unwrap()).nodes, before);
}

#[test]
fn switches_go_around_a_failure_by_themselves() {
    let lab = Lab::up(metro());
    for link in lab.topology.links.clone() {
        if [&link.a, &link.b].iter().any(|end| !lab.switches.contains_key(&end.node)) {
            continue;
        }
        let mut net = (*lab).clone();
        for end in [&link.a, &link.b] {
            let ports = &mut net.switches.get_mut(&end.node).unwrap().ports;
            ports.values_mut().find(|port| port.name == end.port.as_str()).unwrap().up = false;
        }
        assert_eq!(net.unreachable(), Vec::<String>::new(), "{link}");
    }
}

#[test]
fn no_packet_goes_in_circles_while_next_hops_change() {
    // Rings, where the way round is the other way; with chords, where it is mixed.
    for (switches, chord, seed) in [(4, 0, 1), (5, 0, 2), (9, 0, 3), (10, 3, 4), (12, 5, 5)] {
        let mut lab = Lab::up(ring(switches, chord)).seeded(seed);
        lab.shuffling = true;
        for n in 0..switches {
            let (a, b) = (format!("s{n:02}"), format!("s{:02}", (n + 1) % switches));
            for up in [false, true] {
                lab.link(&a, &b, up);
                lab.settle();
                lab.assert_converged();
                assert_eq!(lab.circles, [], "{switches} switches, {a} - {b} up: {up}");
            }
        }
        assert!(lab.logged("plan-step-unsafe").is_empty());
    }
}

#[test]
fn a_partition_is_reported_and_the_parts_go_on() {
    let mut lab = Lab::up(metro());
    lab.link("gnb1", "s1", false);
    lab.link("gnb1", "s2", false);
    lab.settle();
    lab.assert_converged();
    assert!(lab.reaches(&name("robot-1"), &name("phone-1"), false), "on one switch");
    assert!(lab.reaches(&name("plc"), &name("video"), true));
    assert!(!lab.reaches(&name("robot-1"), &name("plc"), false));
    lab.link("gnb1", "s2", true);
    lab.settle();
    assert_eq!(lab.unreachable(), Vec::<String>::new());
}

#[test]
fn a_link_that_is_cabled_wrong_is_not_used() {
    let mut lab = Lab::up(metro());
    lab.neighbor("s1:p2", Some("s2:p9"));
    lab.settle();
    let line = lab.logged("link-miscabled");
    assert_eq!(line.len(), 1);
    assert_eq!(line[0].severity, Severity::Warning);
    assert_eq!(line[0].text, "s1:p2 should be cabled to s3:p2, but sees s2:p9");
    let nodes = lab.send(&name("robot-1"), "10.2.0.21".parse().unwrap()).nodes;
    assert!(!nodes.windows(2).any(|pair| pair == ["s1", "s3"].map(name)), "{nodes:?}");
    assert_eq!(lab.unreachable(), Vec::<String>::new());
    lab.neighbor("s1:p2", Some("s3:p2"));
    lab.settle();
    assert_eq!(lab.core.status().links_usable, 13);
}

/// The known attack on controllers that find links by LLDP.
#[test]
fn what_is_said_without_a_key_is_shown_and_nothing_follows() {
    let mut lab = Lab::up(metro());
    lab.neighbor("s1:p2", Some("s3:p2"));
    lab.settle();
    let seen = |lab: &Lab| {
        let nodes = lab.core.nodes();
        let s1 = nodes.into_iter().find(|node| node.name == name("s1")).unwrap();
        s1.ports.into_iter().find(|port| port.name == "p2").unwrap().neighbor
    };
    assert!(seen(&lab).unwrap().authenticated);
    lab.claim("s1:p2", "s2:p9");
    lab.settle();
    let claimed = seen(&lab).unwrap();
    assert_eq!((claimed.chassis.as_str(), claimed.authenticated), ("s2", false));
    assert_eq!(lab.logged("link-miscabled").len(), 0);
    assert_eq!(lab.core.status().links_usable, 13);
    assert!(lab.core.status().converged);
    lab.neighbor("s1:p2", None);
    assert_eq!(seen(&lab), None);
}

#[test]
fn a_slice_that_no_longer_fits_is_degraded_aloud_and_restored() {
    let mut lab = Lab::up(metro());
    let slice = objects(
        "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: { name: big }\nspec:\n  \
         downlink: { guaranteed: 60Mbps }\n  uplink: { guaranteed: 60Mbps }\n  \
         endpoints: [{ ue: robot-1 }, { dn: plc }]\n---\n\
         apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: { name: other }\nspec:\n  \
         downlink: { guaranteed: 60Mbps }\n  uplink: { guaranteed: 60Mbps }\n  \
         endpoints: [{ ue: phone-1 }, { dn: video }]\n",
    );
    lab.apply(slice).unwrap();
    assert_eq!(lab.core.status().slices_degraded, 0);
    // gnb1 has two uplinks of 100 Mbit/s; with one of them only one of the slices fits.
    lab.link("gnb1", "s2", false);
    lab.settle();
    lab.assert_converged();
    assert_eq!(lab.core.status().slices_degraded, 1);
    let line = lab.logged("slice-degraded");
    assert_eq!((line.len(), line[0].severity), (1, Severity::Error));
    assert!(line[0].text.contains("are missing"), "{}", line[0].text);
    assert!(lab.reaches(&name("robot-1"), &name("plc"), false), "degraded, not cut off");
    assert!(lab.reaches(&name("phone-1"), &name("video"), false));
    lab.link("gnb1", "s2", true);
    lab.settle();
    assert_eq!(lab.core.status().slices_degraded, 0);
    assert_eq!(lab.logged("slice-restored").len(), 1);
}

#[test]
fn a_slice_whose_endpoint_is_cut_off_serves_the_others() {
    let mut lab = Lab::up(metro());
    let slice = objects(
        "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: { name: three }\nspec:\n  \
         uplink: { guaranteed: 5Mbps }\n  \
         endpoints: [{ ue: robot-1 }, { dn: plc }, { dn: video }]\n",
    );
    lab.apply(slice).unwrap();
    lab.link("dc1", "s3", false);
    lab.link("dc1", "s2", false);
    lab.settle();
    lab.assert_converged();
    assert_eq!(lab.core.status().slices_degraded, 1);
    assert!(lab.reaches(&name("robot-1"), &name("plc"), false));
    assert!(!lab.reaches(&name("robot-1"), &name("video"), false));
}

#[test]
fn writes_that_fail_and_answers_in_any_order_converge_all_the_same() {
    for seed in 1..40 {
        let mut lab = Lab::new(metro()).seeded(seed * 7919);
        lab.failing_percent = 25;
        lab.reordering = true;
        lab.join_all();
        lab.settle();
        lab.see_all();
        lab.link("s1", "s2", false);
        lab.settle();
        let slice = objects(include_str!("../../../../examples/metro/slices.yaml"));
        lab.apply(slice).unwrap();
        lab.link("gnb1", "s1", false);
        lab.settle();
        lab.assert_converged();
        assert!(lab.reaches(&name("robot-1"), &name("plc"), false), "seed {seed}");
        assert!(lab.reaches(&name("phone-1"), &name("video"), true), "seed {seed}");
        assert!(!lab.reaches(&name("phone-1"), &name("plc"), false), "seed {seed}");
        assert_eq!(lab.logged("plan-refused").len(), 0, "seed {seed}: {:?}", lab.log);
    }
}

#[test]
fn a_switch_that_does_not_answer_is_asked_again() {
    let mut lab = Lab::up(metro());
    let s1 = name("s1");
    // The session is there, but nothing comes back: the answers of one switch are lost.
    lab.mute(&s1);
    lab.link("s1", "s3", false);
    lab.settle_for(20_000);
    assert!(!lab.converged());
    assert!(lab.logged("switch-failed").iter().any(|line| line.subject == "s1"));
    lab.unmute(&s1);
    lab.settle();
    lab.assert_converged();
    assert_eq!(lab.unreachable(), Vec::<String>::new());
}

#[test]
fn a_switch_that_leaves_while_it_is_written_is_read_when_it_is_back() {
    let mut lab = Lab::up(metro());
    let s1 = name("s1");
    lab.mute(&s1);
    lab.link("s1", "s3", false);
    while lab.step_answers() {}
    lab.unmute(&s1);
    lab.leave(&s1);
    lab.settle();
    lab.join(&s1);
    lab.settle();
    lab.assert_converged();
    assert_eq!(lab.unreachable(), Vec::<String>::new());
}
