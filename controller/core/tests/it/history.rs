//! What was changed, and the way back.

use selvedge_core::view::Verb;
use selvedge_core::{
    Change, HISTORY_BYTES, HISTORY_ENTRY_BYTES, HISTORY_KEPT, HISTORY_MODULES, Refusal, Reply,
    Request,
};
use selvedge_slices::{Object, ObjectKind};

use crate::intent::{delete, slice};
use crate::lab::{Lab, metro, objects};

const PHONE: &str = "{ ue: phone-1 }, { dn: video }";
const ROBOT: &str = "{ ue: robot-1 }, { dn: plc }";

fn back_to(revision: u64) -> Change {
    Change { rollback: Some(revision), reason: format!("back to {revision}"), ..Change::default() }
}

fn because(change: Change, reason: &str) -> Change {
    Change { reason: reason.into(), ..change }
}

/// Names of slices and their downlink.
fn slices(lab: &Lab) -> Vec<String> {
    let names = lab.core.slices().into_iter().map(|slice| slice.name);
    names
        .map(|name| {
            let id = selvedge_core::ObjectId {
                kind: ObjectKind::NetworkSlice,
                name: name.parse().unwrap(),
            };
            let Some(Object::NetworkSlice(slice)) = lab.core.object(&id) else { panic!("{name}") };
            format!("{name} {}", slice.downlink.guaranteed.unwrap())
        })
        .collect()
}

/// Four revisions: `a`, `b`, another `a`, no `b`.
fn four() -> Lab {
    let mut lab = Lab::up(metro());
    lab.apply(because(slice("a", "1Mbps", PHONE), "first")).unwrap();
    lab.apply(slice("b", "2Mbps", ROBOT)).unwrap();
    lab.apply(because(slice("a", "3Mbps", PHONE), "more")).unwrap();
    lab.apply(delete(ObjectKind::NetworkSlice, "b")).unwrap();
    lab
}

#[test]
fn every_change_is_written_down() {
    let mut lab = four();
    let unchanged = lab.apply(slice("a", "3Mbps", PHONE)).unwrap();
    assert_eq!(unchanged, Reply::Applied { changed: false, revision: 4 });
    lab.apply(slice("greedy", "300Mbps", ROBOT)).unwrap_err();
    let history: Vec<_> = lab.core.history().collect();
    let lines: Vec<_> = history
        .iter()
        .map(|r| {
            let touched: Vec<String> =
                r.touched.iter().map(|t| format!("{:?} {}", t.verb, t.id.name)).collect();
            (r.revision, r.author.as_str(), r.reason.as_str(), touched.join(", "))
        })
        .collect();
    assert_eq!(
        lines,
        [
            (1, "tester", "first", "Added a".to_owned()),
            (2, "tester", "", "Added b".to_owned()),
            (3, "tester", "more", "Changed a".to_owned()),
            (4, "tester", "", "Deleted b".to_owned()),
        ]
    );
    assert!(history[0].added > 0 && history[0].switches > 0, "{:?}", history[0]);
    assert!(history.windows(2).all(|pair| pair[0].at_ms <= pair[1].at_ms));
    // The change of `a` from 1 to 3, and `a` as added, which is no longer what it is.
    let rate = |object: &Option<Object>| match object {
        Some(Object::NetworkSlice(slice)) => slice.downlink.guaranteed.unwrap().to_string(),
        _ => "-".to_owned(),
    };
    let of = |revision| -> Vec<_> {
        let changes = lab.core.changes_of(revision).unwrap();
        changes.iter().map(|c| (c.touched.verb, rate(&c.before), rate(&c.after))).collect()
    };
    assert_eq!(of(1), [(Verb::Added, "-".to_owned(), "1Mbps".to_owned())]);
    assert_eq!(of(3), [(Verb::Changed, "1Mbps".to_owned(), "3Mbps".to_owned())]);
    assert_eq!(of(4), [(Verb::Deleted, "2Mbps".to_owned(), "-".to_owned())]);
    assert_eq!(lab.core.changes_of(5), None);
    assert_eq!(lab.logged("intent-changed").len(), 4);
}

#[test]
fn a_rollback_is_a_change_like_any_other() {
    let mut lab = four();
    let Ok(Reply::Plan(plan)) = lab.request(Request::Plan(back_to(2))) else { panic!() };
    assert_eq!(plan.refusal, None);
    let touched: Vec<_> = plan.objects.iter().map(|t| (t.verb, t.id.name.as_str())).collect();
    assert_eq!(touched, [(Verb::Changed, "a"), (Verb::Added, "b")]);
    assert!(!plan.switches.is_empty());
    assert_eq!(slices(&lab), ["a 3Mbps"], "a plan changes nothing");

    assert_eq!(lab.apply(back_to(2)).unwrap(), Reply::Applied { changed: true, revision: 5 });
    lab.assert_converged();
    assert_eq!(slices(&lab), ["a 1Mbps", "b 2Mbps"]);
    let last = lab.core.history().next_back().unwrap();
    assert_eq!((last.rollback, last.reason.as_str()), (Some(2), "back to 2"));
    // And back from going back; to nothing; to where it is.
    lab.apply(back_to(4)).unwrap();
    assert_eq!(slices(&lab), ["a 3Mbps"]);
    lab.apply(back_to(0)).unwrap();
    assert_eq!(slices(&lab), [""; 0]);
    let same = lab.apply(back_to(7)).unwrap();
    assert_eq!(same, Reply::Applied { changed: false, revision: 7 });
    assert_eq!(lab.apply(back_to(8)), Err(Refusal::NoRevision { revision: 8, last: 7 }));

    // A plan of a rollback is for the state it was made on, too.
    let Ok(Reply::Plan(plan)) = lab.request(Request::Plan(back_to(2))) else { panic!() };
    lab.apply(slice("c", "1Mbps", ROBOT)).unwrap();
    let stale = lab.request(Request::Apply { change: back_to(2), plan: Some(plan.id) });
    assert!(matches!(stale, Err(Refusal::OtherPlan { .. })), "{stale:?}");
}

#[test]
fn a_rollback_is_held_to_admission() {
    let mut lab = Lab::up(metro());
    lab.apply(slice("a", "60Mbps", PHONE)).unwrap();
    lab.apply(delete(ObjectKind::NetworkSlice, "a")).unwrap();
    // What `a` needs is gone by now.
    lab.link("gnb1", "s1", false);
    lab.link("gnb1", "s2", false);
    lab.settle();
    let (store, writes) = (lab.store.clone(), lab.writes);
    let refused = lab.apply(back_to(1));
    assert!(matches!(&refused, Err(Refusal::DoesNotFit { slice, .. }) if slice == "a"));
    assert_eq!((&lab.store, lab.writes), (&store, writes));
}

#[test]
fn history_outlives_the_controller_and_comes_with_the_intent() {
    let mut lab = four();
    let history: Vec<_> = lab.core.history().collect();
    lab.restart();
    assert_eq!(lab.core.history().collect::<Vec<_>>(), history);
    lab.join_all();
    lab.settle();
    lab.apply(back_to(2)).unwrap();
    assert_eq!(slices(&lab), ["a 1Mbps", "b 2Mbps"]);
    // A store of before there was a history.
    lab.store.retain(|key, _| !key.starts_with("history/"));
    lab.restart();
    assert_eq!(lab.apply(back_to(4)), Err(Refusal::RevisionGone { revision: 4, oldest: 5 }));
    lab.apply(slice("c", "1Mbps", PHONE)).unwrap();
    lab.apply(back_to(5)).unwrap();
    assert_eq!(slices(&lab), ["a 1Mbps", "b 2Mbps"]);
}

#[test]
fn the_oldest_go_first() {
    let mut lab = Lab::new(metro());
    for n in 0..HISTORY_KEPT + 5 {
        let rate = format!("{}kbps", 100 + n % 2);
        lab.request(Request::Apply { change: slice("a", &rate, PHONE), plan: None }).unwrap();
    }
    let kept = |lab: &Lab| lab.store.keys().filter(|key| key.starts_with("history/")).count();
    assert_eq!((lab.core.history().count(), kept(&lab)), (HISTORY_KEPT, HISTORY_KEPT));
    assert_eq!(lab.core.history().next().unwrap().revision, 6);
    assert_eq!(lab.apply(back_to(4)), Err(Refusal::RevisionGone { revision: 4, oldest: 5 }));
    lab.apply(back_to(5)).unwrap();
    lab.restart();
    assert_eq!((lab.core.history().count(), kept(&lab)), (HISTORY_KEPT, HISTORY_KEPT));
}

/// Hooks whose settings make a document of about 60 kB each.
fn hooks(count: usize, module: &str) -> Change {
    let config = "x".repeat(60_000);
    let hook = |n| {
        format!(
            "apiVersion: selvedge/v1\nkind: Hook\nmetadata: {{ name: h{n} }}\n\
             spec: {{ module: {module}{n}, config: {config:?} }}\n"
        )
    };
    objects(&(0..count).map(hook).collect::<Vec<_>>().join("---\n"))
}

#[test]
fn large_changes_are_bounded() {
    let mut lab = Lab::new(metro());
    let bytes = |lab: &Lab| -> usize {
        lab.store.iter().filter(|(key, _)| key.starts_with("history/")).map(|(_, v)| v.len()).sum()
    };
    // Each replaces ten documents, and so keeps 600 kB.
    for n in 0..40 {
        lab.request(Request::Apply { change: hooks(10, &format!("m{}", n % 2)), plan: None })
            .unwrap();
        assert!(bytes(&lab) <= HISTORY_BYTES);
    }
    assert!(bytes(&lab) > HISTORY_BYTES / 2, "{}", bytes(&lab));
    // Twenty are more than an entry keeps: their names are.
    lab.request(Request::Apply { change: hooks(20, "big"), plan: None }).unwrap();
    lab.request(Request::Apply { change: hooks(20, "bigger"), plan: None }).unwrap();
    let last = lab.core.history().next_back().unwrap();
    assert_eq!((last.undoable, last.touched.len()), (false, 20));
    let last_key = lab.store.keys().rfind(|key| key.starts_with("history/")).unwrap();
    assert!(lab.store[last_key].len() < HISTORY_ENTRY_BYTES);
    let refused = lab.apply(back_to(41));
    assert_eq!(refused, Err(Refusal::RevisionGone { revision: 41, oldest: 42 }));
}

#[test]
fn modules_are_kept_for_a_rollback_but_not_all() {
    let hook = |n: usize| {
        objects(&format!(
            "apiVersion: selvedge/v1\nkind: Hook\nmetadata: {{ name: h }}\n\
             spec: {{ module: m{n} }}\n"
        ))
    };
    let mut lab = Lab::new(metro());
    for n in 0..HISTORY_MODULES + 4 {
        lab.request(Request::Apply { change: hook(n), plan: None }).unwrap();
    }
    let kept: std::collections::BTreeSet<&str> = lab.core.modules().collect();
    assert_eq!(kept.len(), HISTORY_MODULES + 1);
    let oldest = lab.core.history().next().unwrap().revision - 1;
    lab.apply(back_to(oldest)).unwrap();
    let used = lab.core.hooks()[0].sha256.clone();
    assert_eq!(used, crate::lab::digest(&format!("m{}", oldest - 1)));
    assert!(lab.core.modules().any(|module| module == used));
}
