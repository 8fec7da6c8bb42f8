//! Slices that have a maximum, and the operator's classes.

use selvedge_core::{Refusal, Reply, Request};
use selvedge_pipeline::{Class, Entry};
use selvedge_slices::ObjectKind;

use crate::intent::delete;
use crate::lab::{Lab, metro, name, objects};

fn two_users(most: u32) -> selvedge_core::Change {
    objects(&format!(
        "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: {{ name: few }}\nspec:\n  \
         maxNumberofUEs: {most}\n  uplink: {{ guaranteed: 1Mbps }}\n  \
         endpoints: [{{ ue: robot-1 }}, {{ ue: phone-1 }}, {{ dn: plc }}]\n"
    ))
}

fn reach(lab: &Lab) -> [bool; 2] {
    ["robot-1", "phone-1"].map(|ue| {
        let both = [true, false].map(|ipv6| {
            let (ue, plc) = (name(ue), name("plc"));
            (lab.reaches(&ue, &plc, ipv6), lab.reaches(&plc, &ue, ipv6))
        });
        assert!(both.iter().all(|(up, down)| up == down && up == &both[0].0), "{ue}: {both:?}");
        both[0].0
    })
}

#[test]
fn the_first_who_attach_are_admitted_and_others_wait() {
    let mut lab = Lab::new(metro());
    lab.join_all();
    lab.settle();
    lab.apply(two_users(1)).unwrap();
    for host in ["plc", "video", "robot-1"] {
        lab.see(&name(host));
        lab.settle();
    }
    lab.assert_converged();
    assert_eq!(reach(&lab), [true, false]);
    lab.see(&name("phone-1"));
    lab.settle();
    lab.assert_converged();
    assert_eq!(reach(&lab), [true, false], "the second one comes too late");
    // Full is not open: it reaches nobody outside of the slice either.
    let out = lab.send(&name("phone-1"), "10.3.0.31".parse().unwrap());
    assert!(out.dropped().is_some(), "{out:?}");
    let said: Vec<String> =
        lab.logged("endpoint-refused").iter().map(|entry| entry.text.clone()).collect();
    assert_eq!(said, ["phone-1 is not admitted: maxNumberofUEs 1, attached are robot-1"]);
    let notes = lab.core.explain("few").unwrap().notes;
    assert_eq!(notes, ["maxNumberofUEs 1: 1 attached (robot-1); not admitted: phone-1"]);

    // A controller that starts again does not choose again.
    lab.restart();
    lab.join_all();
    lab.settle();
    assert_eq!(reach(&lab), [true, false]);

    // The seat is given up when its endpoint's port is down and another waits.
    let port = lab.places["robot-1"].clone();
    lab.port(&port, false);
    lab.settle();
    lab.assert_converged();
    assert_eq!(reach(&lab), [false, true]);
    assert_eq!(lab.logged("endpoint-admitted").len(), 1);
    lab.port(&port, true);
    lab.settle();
    assert_eq!(reach(&lab), [false, true], "and is not taken back");

    lab.apply(two_users(2)).unwrap();
    lab.assert_converged();
    assert_eq!(reach(&lab), [true, true]);
    lab.apply(two_users(1)).unwrap();
    assert_eq!(reach(&lab), [false, true], "who came first stays");
    lab.apply(delete(ObjectKind::NetworkSlice, "few")).unwrap();
    lab.assert_converged();
    assert!(!lab.store.keys().any(|key| key.starts_with("attached/")), "{:?}", lab.store.keys());
}

fn class_at(lab: &Lab, switch: &str) -> Vec<Class> {
    let class = |entry: &&Entry| match entry {
        Entry::SliceMeter(meter) => Some(meter.class),
        _ => None,
    };
    lab.entries(switch).iter().filter_map(class).collect()
}

#[test]
fn the_operators_map_decides_the_class_of_slices() {
    let map = |name: &str, spec: &str| {
        objects(&format!(
            "apiVersion: selvedge/v1\nkind: ClassMap\nmetadata: {{ name: {name} }}\n\
             spec: {{ {spec} }}\n"
        ))
    };
    let slice = |five_qi: u8| {
        objects(&format!(
            "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: {{ name: a }}\nspec:\n  \
             5qi: {five_qi}\n  uplink: {{ guaranteed: 1Mbps }}\n  \
             endpoints: [{{ ue: robot-1 }}, {{ dn: plc }}]\n"
        ))
    };
    let mut lab = Lab::up(metro());
    assert_eq!(
        lab.apply(slice(200)),
        Err(Refusal::UnknownFiveQi { slice: "a".parse().unwrap(), number: 200 })
    );
    lab.apply(slice(9)).unwrap();
    assert_eq!(class_at(&lab, "gnb1"), [Class::Guaranteed], "by its rate");
    lab.apply(map("ours", "5qi: { 9: urllc, 200: guaranteed }")).unwrap();
    lab.assert_converged();
    assert_eq!(class_at(&lab, "gnb1"), [Class::Urllc]);
    assert_eq!(lab.apply(slice(9)), Ok(Reply::Applied { changed: false, revision: 2 }));
    let second = lab.apply(map("other", "dscp: { 46: urllc }"));
    assert!(matches!(second, Err(Refusal::SecondClassMap { .. })), "{second:?}");

    lab.apply(slice(200)).unwrap();
    assert_eq!(class_at(&lab, "gnb1"), [Class::Guaranteed]);
    lab.restart();
    lab.join_all();
    lab.settle();
    assert_eq!(class_at(&lab, "gnb1"), [Class::Guaranteed]);
    assert_eq!(lab.core.class_map().name.as_deref(), Some("ours"));
    let needed = lab.apply(delete(ObjectKind::ClassMap, "ours"));
    assert!(matches!(needed, Err(Refusal::UnknownFiveQi { number: 200, .. })), "{needed:?}");
    lab.apply(slice(9)).unwrap();
    lab.apply(delete(ObjectKind::ClassMap, "ours")).unwrap();
    assert_eq!(class_at(&lab, "gnb1"), [Class::Guaranteed]);
}

#[test]
fn a_plan_says_what_was_filled_in_and_what_is_not_enforced() {
    let mut lab = Lab::up(metro());
    let change = objects(
        "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: { name: a }\nspec:\n  \
         template: MIoT\n  endpoints: [{ ue: robot-1, uplink: { maximum: 1Mbps } }, { dn: plc }]\n",
    );
    let Ok(Reply::Plan(plan)) = lab.request(Request::Plan(change)) else { panic!("a plan") };
    assert_eq!(plan.notes, ["slice a: from template MIoT: sst 3, 5qi 9"]);
    assert_eq!(plan.warnings.len(), 1, "{:?}", plan.warnings);
    assert!(plan.warnings[0].contains("robot-1 are not enforced"), "{:?}", plan.warnings);
}

#[test]
fn the_example_of_slices_is_taken_on_metro() {
    let mut lab = Lab::up(metro());
    lab.apply(objects(include_str!("../../../../examples/slices/robots.yaml"))).unwrap();
    lab.assert_converged();
    assert_eq!(lab.core.status().slices_degraded, 0);
}
