//! Slices put, changed, refused, planned and deleted.

use selvedge_core::{Change, Effect, Event, ObjectId, Refusal, Reply, Request, RequestId};
use selvedge_pipeline::{Direction, DropReason, Entry, SliceMeterEntry};
use selvedge_slices::ObjectKind;
use selvedge_slices::admission::Offer;

use crate::lab::{Lab, metro, name, objects};

const FACTORY: &str = include_str!("../../../../examples/metro/slices.yaml");

pub(crate) fn slice(name: &str, rate: &str, endpoints: &str) -> Change {
    objects(&text(name, rate, "", endpoints))
}

fn text(name: &str, rate: &str, more: &str, endpoints: &str) -> String {
    format!(
        "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: {{ name: {name} }}\nspec:\n  \
         downlink: {{ guaranteed: {rate} }}\n  uplink: {{ guaranteed: {rate} }}\n  \
         {more}endpoints: [{endpoints}]\n"
    )
}

/// From an availability of 99.9 on it is protected against failures.
pub(crate) fn protected(name: &str, rate: &str, availability: &str, endpoints: &str) -> Change {
    objects(&text(name, rate, &format!("availability: {availability}\n  "), endpoints))
}

/// Which availability asks for which protection, the first for none.
pub(crate) const AVAILABILITIES: [&str; 4] = ["90", "99.9", "99.99", "99.999"];

pub(crate) fn delete(kind: ObjectKind, name: &str) -> Change {
    let id = ObjectId { kind, name: name.parse().unwrap() };
    Change { delete: vec![id], ..Change::default() }
}

fn meters(lab: &Lab, switch: &str) -> Vec<SliceMeterEntry> {
    let meter = |entry: &&Entry| match entry {
        Entry::SliceMeter(meter) => Some(*meter),
        _ => None,
    };
    lab.entries(switch).iter().filter_map(meter).collect()
}

#[test]
fn a_slice_isolates_and_is_metered() {
    let mut lab = Lab::up(metro());
    let reply = lab.apply(objects(FACTORY)).unwrap();
    assert_eq!(reply, Reply::Applied { changed: true, revision: 1 });
    lab.assert_converged();
    let (robot, plc, phone, video) = (name("robot-1"), name("plc"), name("phone-1"), name("video"));
    for ipv6 in [false, true] {
        assert!(lab.reaches(&robot, &plc, ipv6) && lab.reaches(&plc, &robot, ipv6));
        assert!(lab.reaches(&phone, &video, ipv6) && lab.reaches(&video, &phone, ipv6));
        for (a, b) in [(&phone, &robot), (&robot, &video), (&video, &plc), (&plc, &phone)] {
            assert!(!lab.reaches(a, b, ipv6), "{a} -> {b}");
        }
    }
    let refused = lab.send(&phone, "10.1.0.11".parse().unwrap());
    assert_eq!(refused.dropped(), Some(DropReason::NoRoute));
    let [up] = meters(&lab, "gnb1")[..] else { panic!("one meter") };
    assert_eq!((up.direction, up.guaranteed_bps), (Direction::Uplink, 20_000_000));
    assert_eq!((up.maximum_bps, up.guaranteed_burst_bytes), (40_000_000, 625_000));
    let [down] = meters(&lab, "edge1")[..] else { panic!("one meter") };
    assert_eq!(down.direction, Direction::Downlink);
    assert_eq!(meters(&lab, "s1"), []);
    let view = lab.core.slices();
    assert_eq!((view.len(), view[0].name.as_str()), (1, "factory-control"));
    let why = lab.core.explain("factory-control").unwrap();
    assert_eq!(why.placement.unwrap().paths.len(), 2);
    assert_eq!(why.meters.len(), 2);
}

#[test]
fn explain_says_what_a_slice_is_protected_against() {
    let mut lab = Lab::up(metro());
    let protection = |lab: &Lab| lab.core.explain("p").unwrap().protection;
    for (availability, begins) in AVAILABILITIES.into_iter().zip(["none", "link", "node", "srlg"]) {
        let change = protected("p", "1Mbps", availability, "{ ue: phone-1 }, { dn: video }");
        if lab.apply(change).is_ok() {
            assert!(protection(&lab).starts_with(begins), "{}", protection(&lab));
        }
    }
    let kept = lab.core.explain("p").unwrap().placement.unwrap();
    let is_backup = kept.paths.iter().any(|path| path.is_backup);
    assert_eq!(is_backup, protection(&lab).contains("is kept"), "{}", protection(&lab));
    assert!(is_backup, "metro has two ways");
}

#[test]
fn what_is_unchanged_changes_nothing() {
    let mut lab = Lab::up(metro());
    lab.apply(objects(FACTORY)).unwrap();
    let (writes, store) = (lab.writes, lab.store.clone());
    let reply = lab.apply(objects(FACTORY)).unwrap();
    assert_eq!(reply, Reply::Applied { changed: false, revision: 1 });
    assert_eq!(lab.writes, writes);
    assert_eq!(lab.store, store);
}

#[test]
fn deleting_a_slice_puts_its_endpoints_back() {
    let mut lab = Lab::up(metro());
    lab.apply(objects(FACTORY)).unwrap();
    lab.apply(delete(ObjectKind::NetworkSlice, "factory-control")).unwrap();
    lab.assert_converged();
    assert_eq!(lab.unreachable(), Vec::<String>::new());
    assert_eq!(meters(&lab, "gnb1"), []);
    let again = lab.apply(delete(ObjectKind::NetworkSlice, "factory-control"));
    assert!(matches!(again, Err(Refusal::NotFound { .. })), "{again:?}");
}

#[test]
fn offers_are_of_the_state_in_which_a_slice_was_refused() {
    let mut lab = Lab::up(metro());
    lab.apply(objects(FACTORY)).unwrap();
    let refused = |lab: &Lab| {
        let change = slice("greedy", "300Mbps", "{ ue: phone-1 }, { dn: video }");
        let request = Request::Apply { change, plan: None };
        let event = Event::Request { id: RequestId(1_000), author: "tester".into(), request };
        let effects = lab.core.clone().handle(event, lab.now_ms);
        let reply = effects.into_iter().find_map(|effect| match effect {
            Effect::Reply { reply, .. } => Some(reply),
            _ => None,
        });
        match reply {
            Some(Err(Refusal::DoesNotFit { offers, .. })) => offers,
            other => panic!("{other:?}"),
        }
    };
    let (first, same) = (refused(&lab), refused(&lab));
    assert!(!first.are_worked_out(), "the core does not wait for them");
    for name in ["a", "b", "c", "d"] {
        // As long as they fit.
        drop(lab.apply(slice(name, "60Mbps", "{ ue: phone-1 }, { dn: video }")));
    }
    let later = refused(&lab);
    assert!(matches!(first[0], Offer::Rate { .. }), "{first:?}");
    assert!(first.are_worked_out() && !same.are_worked_out());
    assert_eq!(first, same);
    assert_ne!(first, later, "there is less left");
}

#[test]
fn a_slice_that_does_not_fit_is_refused_and_nothing_has_changed() {
    let mut lab = Lab::up(metro());
    lab.apply(objects(FACTORY)).unwrap();
    let (writes, store, status) = (lab.writes, lab.store.clone(), lab.core.status());
    let refused = lab.apply(slice("greedy", "300Mbps", "{ ue: phone-1 }, { dn: video }"));
    let Err(Refusal::DoesNotFit { slice: refused, reason, offers }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(refused, "greedy");
    assert!(reason.contains("link") && reason.contains("missing"), "{reason}");
    assert!(matches!(offers[0], Offer::Rate { .. }), "{offers:?}");
    assert_eq!((lab.writes, &lab.store, lab.core.status()), (writes, &store, status));
}

#[test]
fn references_are_checked() {
    let mut lab = Lab::up(metro());
    let refusal = |lab: &mut Lab, change| lab.apply(change).unwrap_err().to_string();
    let ghost = slice("a", "1Mbps", "{ ue: ghost }, { dn: plc }");
    assert_eq!(refusal(&mut lab, ghost), "slice \"a\": the topology has no host \"ghost\"");
    let switch = slice("a", "1Mbps", "{ ue: s1 }, { dn: plc }");
    assert_eq!(refusal(&mut lab, switch), "slice \"a\": the topology has no host \"s1\"");
    lab.apply(slice("a", "1Mbps", "{ ue: robot-1 }, { dn: plc }")).unwrap();
    let sides = slice("b", "1Mbps", "{ dn: robot-1 }, { ue: video }");
    assert!(refusal(&mut lab, sides).contains("is `ue` in slice \"a\" and `dn` in slice \"b\""));
    let hook = objects(
        "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: { name: c }\nspec:\n  \
         endpoints: [{ ue: phone-1 }, { dn: video }]\n  \
         through: [{ hook: missing, onFailure: drop }]\n",
    );
    assert!(refusal(&mut lab, hook).contains("goes through hook \"missing\""));
    let twice = Change {
        delete: delete(ObjectKind::NetworkSlice, "a").delete,
        ..slice("a", "1Mbps", "{ ue: robot-1 }, { dn: plc }")
    };
    assert_eq!(refusal(&mut lab, twice), "NetworkSlice \"a\" is there twice");
    assert_eq!(lab.core.revision(), 1);
}

#[test]
fn a_saved_plan_is_for_the_state_it_was_made_on() {
    let mut lab = Lab::up(metro());
    let plan = |lab: &mut Lab, change| match lab.request(Request::Plan(change)) {
        Ok(Reply::Plan(plan)) => plan,
        other => panic!("{other:?}"),
    };
    let (writes, store) = (lab.writes, lab.store.clone());
    let saved = plan(&mut lab, objects(FACTORY));
    assert_eq!(saved, plan(&mut lab, objects(FACTORY)), "nothing has changed");
    assert_eq!((lab.writes, &lab.store), (writes, &store), "a plan changes nothing");
    assert_eq!(saved.refusal, None);
    let switches: Vec<&str> = saved.switches.keys().map(|name| name.as_str()).collect();
    assert_eq!(switches, ["dc1", "edge1", "gnb1"]);
    // Another change comes first.
    lab.apply(slice("other", "1Mbps", "{ ue: phone-1 }, { dn: video }")).unwrap();
    let apply = |lab: &mut Lab, plan: &selvedge_core::Plan| {
        let plan = Some(plan.id.to_string().parse().unwrap());
        lab.request(Request::Apply { change: objects(FACTORY), plan })
    };
    assert!(matches!(apply(&mut lab, &saved), Err(Refusal::OtherPlan { .. })));
    let saved = plan(&mut lab, objects(FACTORY));
    // A link fails: the slice would go another way.
    lab.link("gnb1", "s1", false);
    lab.settle();
    assert!(matches!(apply(&mut lab, &saved), Err(Refusal::OtherPlan { .. })));
    let saved = plan(&mut lab, objects(FACTORY));
    assert_eq!(apply(&mut lab, &saved), Ok(Reply::Applied { changed: true, revision: 2 }));
    lab.settle();
    lab.assert_converged();
    let refused = plan(&mut lab, slice("greedy", "300Mbps", "{ ue: phone-1 }, { dn: video }"));
    assert!(matches!(refused.refusal, Some(Refusal::DoesNotFit { .. })));
    assert!(refused.switches.is_empty());
}

#[test]
fn intent_outlives_the_controller() {
    let mut lab = Lab::up(metro());
    lab.apply(objects(FACTORY)).unwrap();
    let writes = lab.writes;
    let (slices, status) = (lab.core.slices(), lab.core.status());
    lab.restart();
    lab.join_all();
    lab.settle();
    assert_eq!((lab.core.slices(), lab.core.status()), (slices, status));
    assert_eq!(lab.writes, writes);
}

#[test]
fn a_slice_may_come_before_the_switches() {
    let mut lab = Lab::new(metro());
    lab.apply(objects(FACTORY)).unwrap();
    assert_eq!(lab.core.status().slices_degraded, 1, "nobody has joined");
    let greedy = lab.apply(slice("greedy", "300Mbps", "{ ue: phone-1 }, { dn: video }"));
    assert!(matches!(greedy, Err(Refusal::DoesNotFit { .. })), "{greedy:?}");
    lab.join_all();
    lab.settle();
    lab.see_all();
    lab.settle();
    lab.assert_converged();
    assert_eq!(lab.core.status().slices_degraded, 0);
    assert!(lab.reaches(&name("robot-1"), &name("plc"), true));
}

#[test]
fn two_slices_that_share_endpoints() {
    let mut lab = Lab::up(metro());
    let both = objects(
        "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: { name: low }\nspec:\n  \
         uplink: { maximum: 5Mbps }\n  endpoints: [{ ue: robot-1 }, { ue: phone-1 }, { dn: plc }]\n\
         ---\napiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: { name: urgent }\nspec:\n  \
         priority: 9\n  uplink: { guaranteed: 5Mbps }\n  endpoints: [{ ue: robot-1 }, { dn: plc }]\n",
    );
    lab.apply(both).unwrap();
    lab.assert_converged();
    let id = |slice: &str| lab.core.slices().iter().find(|s| s.name == slice).unwrap().id;
    let slice_of = |from: &str, to: &str| {
        let sent = lab.send(&name(from), to.parse().unwrap());
        assert!(sent.dropped().is_none(), "{from} -> {to}: {sent:?}");
        let switch = &lab.places[from].node;
        // The route that was taken, by what the ingress holds.
        let set = lab.entries(switch.as_str()).into_iter().find_map(|entry| match entry {
            Entry::Endpoint(e) if e.prefix.contains(&lab.addresses(&name(from))[0]) => {
                Some(e.slice_set)
            }
            _ => None,
        });
        lab.entries(switch.as_str()).into_iter().find_map(|entry| match entry {
            Entry::SliceRoute(route)
                if Some(route.slice_set) == set
                    && route.prefix.to_string() == format!("{to}/32") =>
            {
                Some(route.slice.0)
            }
            _ => None,
        })
    };
    assert_eq!(slice_of("robot-1", "10.2.0.21"), Some(id("urgent")));
    assert_eq!(slice_of("phone-1", "10.2.0.21"), Some(id("low")));
    assert_eq!(slice_of("plc", "10.1.0.11"), Some(id("urgent")));
    assert_eq!(slice_of("plc", "10.1.0.12"), Some(id("low")));
    let across = lab.send(&name("robot-1"), "10.1.0.12".parse().unwrap());
    assert_eq!(across.dropped(), Some(DropReason::NoRoute), "two of the `ue` side do not talk");
}

#[test]
fn shares_of_a_total_never_add_up_to_more() {
    let mut lab = Lab::up(metro());
    // The two hosts at gnb1 and edge1 send uplink from two switches.
    let wide = slice("wide", "9Mbps", "{ ue: robot-1 }, { ue: plc }, { dn: video }");
    lab.apply(wide).unwrap();
    let share = |switch: &str| -> u64 {
        let up = meters(&lab, switch).into_iter().filter(|m| m.direction == Direction::Uplink);
        up.map(|meter| meter.guaranteed_bps).sum()
    };
    assert_eq!((share("gnb1"), share("edge1"), share("dc1")), (4_500_000, 4_500_000, 0));
}
