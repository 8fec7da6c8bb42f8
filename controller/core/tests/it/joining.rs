//! From nothing to everyone reaching everyone, and back after a controller's death.

use selvedge_core::Event;
use selvedge_pipeline::{DropReason, Entry, PortId};

use crate::lab::{Lab, metro, name};

#[test]
fn everyone_reaches_everyone_before_any_slice() {
    let lab = Lab::up(metro());
    lab.assert_converged();
    assert_eq!(lab.unreachable(), Vec::<String>::new());
    let status = lab.core.status();
    assert_eq!((status.switches_joined, status.links_usable), (8, 13));
    assert_eq!((status.endpoints_attached, status.endpoints_declared), (4, 4));
    assert_eq!(status.blocked, None);
}

#[test]
fn an_endpoint_without_a_mac_address_is_bound_when_it_is_seen() {
    let mut lab = Lab::new(metro());
    lab.join_all();
    lab.settle();
    lab.assert_converged();
    assert_eq!(lab.core.status().endpoints_attached, 0);
    let sent = lab.send(&name("robot-1"), "10.2.0.21".parse().unwrap());
    assert_eq!(sent.dropped(), Some(DropReason::SpoofedSource), "so its switch reports it");
    lab.see(&name("robot-1"));
    lab.see(&name("plc"));
    lab.settle();
    assert!(lab.reaches(&name("robot-1"), &name("plc"), false));
    assert!(lab.reaches(&name("plc"), &name("robot-1"), true), "one sighting is enough for both");
}

#[test]
fn a_controller_that_starts_again_writes_nothing() {
    let mut lab = Lab::up(metro());
    let (writes, status) = (lab.writes, lab.core.status());
    lab.restart();
    assert_eq!(lab.core.status().revision, status.revision);
    lab.join_all();
    lab.settle();
    lab.assert_converged();
    assert_eq!(lab.writes, writes, "nothing had to be written");
    assert_eq!(lab.core.status(), status);
}

#[test]
fn switches_that_join_late_after_a_restart_change_nothing_meanwhile() {
    let mut lab = Lab::up(metro());
    let writes = lab.writes;
    lab.restart();
    lab.join(&name("gnb1"));
    lab.settle();
    assert!(!lab.converged());
    assert_eq!(lab.writes, writes, "the others are as they last reported");
    assert_eq!(lab.unreachable(), Vec::<String>::new());
    lab.join_all();
    lab.settle();
    lab.assert_converged();
    assert_eq!(lab.writes, writes);
}

#[test]
fn a_session_that_ends_reroutes_nothing() {
    let mut lab = Lab::up(metro());
    let writes = lab.writes;
    lab.leave(&name("s2"));
    lab.settle();
    assert_eq!(lab.writes, writes);
    assert!(!lab.converged());
    lab.join(&name("s2"));
    lab.settle();
    lab.assert_converged();
    assert_eq!(lab.writes, writes);
}

#[test]
fn what_somebody_poked_into_a_switch_is_put_right() {
    let mut lab = Lab::up(metro());
    let s1 = name("s1");
    let good = lab.switches[&s1].entries.clone();
    let entries = &mut lab.switches.get_mut(&s1).unwrap().entries;
    let hop = entries.values().find_map(|entry| match entry {
        Entry::NextHop(hop) => Some(*hop),
        _ => None,
    });
    let hop = hop.unwrap();
    let wrong = Entry::NextHop(selvedge_pipeline::NextHopEntry { port: PortId(77), ..hop });
    entries.insert(wrong.key(), wrong);
    let stray = Entry::Port(selvedge_pipeline::PortEntry {
        port: PortId(200),
        kind: selvedge_pipeline::PortKind::Access,
    });
    entries.insert(stray.key(), stray);
    let writes = lab.writes;
    lab.resync();
    lab.assert_converged();
    assert_eq!(lab.writes, writes + 3, "one change, one removal, the generation");
    let without_generation = |entries: &std::collections::BTreeMap<_, Entry>| -> Vec<Entry> {
        entries.values().filter(|e| !matches!(e, Entry::Generation(_))).cloned().collect()
    };
    assert_eq!(without_generation(&lab.switches[&s1].entries), without_generation(&good));
    let before = lab.writes;
    lab.resync();
    assert_eq!(lab.writes, before, "a second look finds nothing");
}

#[test]
fn a_switch_that_the_topology_does_not_have_is_told_nothing() {
    let mut lab = Lab::up(metro());
    let report = lab.report(&name("s1"));
    lab.event(Event::SwitchJoined { switch: name("stranger"), report });
    lab.settle();
    assert_eq!(lab.logged("switch-unknown").len(), 1);
    lab.assert_converged();
}

#[test]
fn the_same_events_have_the_same_effects() {
    let run = || {
        let mut lab = Lab::up(metro()).seeded(7);
        lab.link("s1", "s2", false);
        lab.settle();
        lab.link("s1", "s2", true);
        lab.settle();
        lab.history
    };
    assert_eq!(run(), run());
}

#[test]
fn a_generation_of_a_store_that_was_put_back_is_raised_over_what_switches_hold() {
    let mut lab = Lab::new(metro());
    let s1 = name("s1");
    let held = Entry::Generation(selvedge_pipeline::GenerationEntry { generation: 900 });
    lab.switches.get_mut(&s1).unwrap().entries.insert(held.key(), held);
    lab.join_all();
    lab.settle();
    lab.assert_converged();
    let generation = lab.switches[&s1].entries.values().find_map(|entry| match entry {
        Entry::Generation(entry) => Some(entry.generation),
        _ => None,
    });
    assert!(generation > Some(900), "{generation:?}");
}
