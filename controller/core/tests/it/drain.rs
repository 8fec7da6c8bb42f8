//! Nodes and links that are emptied before work on them.

use selvedge_core::{Change, Refusal, Reply, Request, Target, TargetKind};

use crate::intent::slice;
use crate::lab::{Lab, metro, name, objects};

const FACTORY: &str = include_str!("../../../../examples/metro/slices.yaml");

fn target(kind: TargetKind, name: &str) -> Target {
    Target { kind, name: name.into() }
}

fn drain(kind: TargetKind, name: &str) -> Change {
    Change { drain: vec![target(kind, name)], reason: "work".into(), ..Change::default() }
}

fn drain_link(name: &str) -> Change {
    drain(TargetKind::Link, name)
}

fn drain_node(name: &str) -> Change {
    drain(TargetKind::Node, name)
}

fn undrain(kind: TargetKind, name: &str) -> Change {
    Change { undrain: vec![target(kind, name)], ..Change::default() }
}

fn applied(revision: u64) -> Reply {
    Reply::Applied { changed: true, revision }
}

/// The way of the robot's packets to the machine it talks with.
fn way(lab: &Lab) -> Vec<String> {
    let sent = lab.send(&name("robot-1"), "10.2.0.21".parse().unwrap());
    assert!(sent.dropped().is_none(), "{sent:?}");
    sent.nodes.iter().map(ToString::to_string).collect()
}

/// Carries out a change; after each write and each answer a packet from each host to each
/// arrives, but for those that slices keep apart.
fn without_loss(lab: &mut Lab, change: Change) {
    let apart = lab.unreachable();
    lab.request(Request::Apply { change, plan: None }).unwrap();
    while {
        assert_eq!(lab.unreachable(), apart);
        lab.step()
    } {}
    lab.assert_converged();
    assert!(lab.logged("plan-step-unsafe").is_empty());
}

/// The link is cut: nobody notices, and nothing is written.
fn cut(lab: &mut Lab, a: &str, b: &str) {
    let (apart, writes) = (lab.unreachable(), lab.writes);
    lab.link(a, b, false);
    assert_eq!(lab.unreachable(), apart, "at once");
    lab.settle();
    assert_eq!((lab.unreachable(), lab.writes), (apart, writes));
}

#[test]
fn a_link_is_emptied_without_a_loss_and_then_cut_without_one() {
    let mut lab = Lab::up(metro());
    lab.apply(objects(FACTORY)).unwrap();
    let before = way(&lab);
    assert_eq!(before, ["gnb1", "s1", "s3", "edge1"]);
    without_loss(&mut lab, drain_link("gnb1:p1"));
    assert_eq!(way(&lab)[..2], ["gnb1", "s2"]);
    let links = lab.core.links();
    let drained: Vec<_> = links.iter().filter_map(|link| link.drained.clone()).collect();
    assert_eq!(drained, ["by tester: work"]);
    assert_eq!(lab.core.status().drained, ["link gnb1:p1 - s1:p3 (by tester: work)"]);
    assert_eq!(lab.core.explain("factory-control").unwrap().avoided.len(), 1);
    let last = lab.core.history().next_back().unwrap();
    assert_eq!(last.operations, ["drain link gnb1:p1 - s1:p3"]);

    // Again, by its other names: it is so already.
    for name in ["gnb1:p1", "s1:p3", "gnb1 - s1", "s1:p3 - gnb1:p1"] {
        let again = lab.apply(drain_link(name)).unwrap();
        assert_eq!(again, Reply::Applied { changed: false, revision: 2 }, "{name}");
    }
    cut(&mut lab, "gnb1", "s1");
    lab.link("gnb1", "s1", true);
    lab.settle();
    assert_eq!(way(&lab)[..2], ["gnb1", "s2"], "drained, though it is up again");

    without_loss(&mut lab, undrain(TargetKind::Link, "gnb1 - s1"));
    assert_eq!(way(&lab), before);
    assert_eq!(lab.core.status().drained, [""; 0]);
    let again = lab.apply(undrain(TargetKind::Link, "gnb1 - s1")).unwrap();
    assert_eq!(again, Reply::Applied { changed: false, revision: 3 });
}

#[test]
fn a_node_is_emptied_and_stays_so() {
    let mut lab = Lab::up(metro());
    lab.apply(objects(FACTORY)).unwrap();
    without_loss(&mut lab, drain_node("s1"));
    assert!(!way(&lab).contains(&"s1".to_owned()));
    let used = |lab: &Lab| {
        let used = |link: &&selvedge_core::view::LinkView| {
            (link.a.0.as_str() == "s1" || link.b.0.as_str() == "s1") && link.drained.is_none()
        };
        lab.core.links().iter().filter(used).count()
    };
    assert_eq!(used(&lab), 0);
    lab.restart();
    lab.join_all();
    lab.settle();
    lab.assert_converged();
    let node = |lab: &Lab| lab.core.nodes().into_iter().find(|n| n.name == name("s1")).unwrap();
    assert_eq!(node(&lab).drained.as_deref(), Some("by tester: work"));
    assert!(!way(&lab).contains(&"s1".to_owned()));
    // The machine goes.
    for peer in ["gnb1", "s2", "s3", "edge2"] {
        cut(&mut lab, "s1", peer);
    }
    // A change of slices is no matter of drains, and a rollback neither.
    lab.apply(slice("b", "1Mbps", "{ ue: phone-1 }, { dn: video }")).unwrap();
    lab.apply(Change { rollback: Some(0), ..Change::default() }).unwrap();
    assert!(node(&lab).drained.is_some());
    assert_eq!(lab.apply(undrain(TargetKind::Node, "s1")), Ok(applied(5)));
    assert_eq!(node(&lab).drained, None);
}

#[test]
fn what_a_promise_needs_is_not_drained() {
    let mut lab = Lab::up(metro());
    for (slice_name, endpoints) in
        [("a", "{ ue: robot-1 }, { dn: plc }"), ("b", "{ ue: phone-1 }, { dn: video }")]
    {
        lab.apply(slice(slice_name, "60Mbps", endpoints)).unwrap();
    }
    let (store, writes, status) = (lab.store.clone(), lab.writes, lab.core.status());
    // One of gnb1's two links of 100 Mbit/s is too little for both.
    for change in [drain_link("gnb1:p2"), drain_node("s2")] {
        let refused = lab.apply(change).unwrap_err();
        let text = refused.to_string();
        let Refusal::DrainBreaks { what, slice, reason } = refused else { panic!("{text}") };
        assert!(what == "link gnb1:p2 - s2:p3" || what == "node s2", "{what}");
        assert!(slice == "a" || slice == "b", "{slice}");
        assert!(reason.contains("gnb1") && reason.contains("missing"), "{reason}");
    }
    let refused = lab.apply(drain_node("gnb1")).unwrap_err();
    let (endpoint, slices) = ("phone-1".to_owned(), vec!["b".to_owned()]);
    assert_eq!(refused, Refusal::DrainNeeded { node: "gnb1".into(), endpoint, slices });
    assert_eq!((&lab.store, lab.writes, lab.core.status()), (&store, writes, status));
    // With less to keep it goes.
    lab.apply(slice("b", "10Mbps", "{ ue: phone-1 }, { dn: video }")).unwrap();
    without_loss(&mut lab, drain_link("gnb1:p2"));
    // And what no longer fits then is refused as it is elsewhere.
    let refused = lab.apply(slice("b", "60Mbps", "{ ue: phone-1 }, { dn: video }"));
    assert!(matches!(refused, Err(Refusal::DoesNotFit { .. })), "{refused:?}");
}

#[test]
fn nobody_is_cut_off_by_a_drain() {
    let mut lab = Lab::up(metro());
    lab.apply(drain_link("gnb1 - s1")).unwrap();
    let refused = lab.apply(drain_link("gnb1 - s2")).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "link gnb1:p2 - s2:p3 cannot be drained: nothing else leads to gnb1"
    );
    let refused = lab.apply(drain_node("s2")).unwrap_err();
    assert_eq!(refused.to_string(), "node s2 cannot be drained: nothing else leads to gnb1");
    // When the other way fails, the drained one is better than none.
    lab.link("gnb1", "s2", false);
    lab.settle();
    lab.assert_converged();
    assert_eq!(lab.unreachable(), [""; 0]);
    let link = lab.core.links().into_iter().find_map(|link| link.drained).unwrap();
    assert_eq!(link, "by tester: work; in use: there is no other way");
}

#[test]
fn endpoints_of_no_slice_are_served_until_the_node_goes() {
    let mut lab = Lab::up(metro());
    let Ok(Reply::Plan(plan)) = lab.request(Request::Plan(drain_node("dc1"))) else { panic!() };
    let warning = &plan.warnings[0];
    assert!(warning.contains("dc1: video attached there, in no slice"), "{warning}");
    assert_eq!(plan.operations, ["drain node dc1"]);
    without_loss(&mut lab, drain_node("dc1"));
    assert_eq!(lab.unreachable(), [""; 0]);
    let in_use = lab
        .core
        .links()
        .into_iter()
        .filter(|link| link.drained.as_ref().is_some_and(|text| text.contains("in use")));
    assert_eq!(in_use.count(), 1, "a leaf carries nobody else's packets");
    // A promise does not begin on what is about to go.
    let refused = lab.apply(slice("a", "1Mbps", "{ ue: phone-1 }, { dn: video }")).unwrap_err();
    let (slice_name, endpoint, node) = ("a".into(), "video".into(), "dc1".into());
    assert_eq!(refused, Refusal::AtDrained { slice: slice_name, endpoint, node });
}

#[test]
fn hooks_leave_a_drained_node() {
    let mut lab = Lab::up(metro());
    lab.apply(objects(
        "apiVersion: selvedge/v1\nkind: Hook\nmetadata: { name: h }\nspec: { module: m }\n---\n\
         apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: { name: a }\nspec:\n  \
         uplink: { guaranteed: 1Mbps }\n  downlink: { guaranteed: 1Mbps }\n  \
         endpoints: [{ ue: phone-1 }, { dn: video }]\n  \
         through: [{ hook: h, onFailure: bypass }]\n",
    ))
    .unwrap();
    let at = |lab: &Lab| lab.core.hooks()[0].instances[0].switch.to_string();
    let first = at(&lab);
    lab.apply(drain_node(&first)).unwrap();
    lab.assert_converged();
    assert_ne!(at(&lab), first);
    let other = at(&lab);
    let refused = lab.apply(drain_node(&other)).unwrap_err();
    assert!(matches!(&refused, Refusal::DrainBreaks { slice, .. } if slice == "a"), "{refused}");
}

#[test]
fn names_that_are_not_there() {
    let mut lab = Lab::up(metro());
    for (change, want) in [
        (drain_node("s9"), "the topology has no switch \"s9\"; did you mean \"s1\"?"),
        (drain_node("plc"), "the topology has no switch \"plc\""),
        (drain_link("gnb1:p9"), "did you mean \"gnb1:p1\"?"),
        (drain_link("gnb1 - s3"), "did you mean \"gnb1 - s1\"?"),
        (drain_link("gnb1:p3"), "the topology has no link \"gnb1:p3\" between switches"),
        (undrain(TargetKind::Node, "nothing"), "the topology has no switch \"nothing\""),
    ] {
        let text = lab.apply(change).unwrap_err().to_string();
        assert!(text.contains(want), "want {want:?} in {text:?}");
    }
    assert_eq!(lab.core.revision(), 0);
}
