//! The life of slices: checked, reserved, active, deactivated, over.

use std::collections::BTreeMap;

use selvedge_core::view::Lifecycle;
use selvedge_core::{CHECK_VALID_MS, Change, Phase, Refusal, Reply, Request, SliceRequest};
use selvedge_pipeline::{Direction, Entry};
use selvedge_slices::ObjectKind;
use selvedge_slices::schedule::Timestamp;

use crate::intent::{delete, slice};
use crate::lab::{Lab, metro, name, objects};

const HOUR_MS: u64 = 3_600_000;
/// Two such slices fit from gnb1, one on each of its links.
const LARGE: &str = "90Mbps";

fn large(slice_name: &str) -> Change {
    slice(slice_name, LARGE, "{ ue: phone-1 }, { dn: video }")
}

fn other(slice_name: &str) -> Change {
    slice(slice_name, LARGE, "{ ue: robot-1 }, { dn: plc }")
}

/// Metro with room for one more such slice.
fn half_full() -> Lab {
    let mut lab = Lab::up(metro());
    lab.apply(other("x")).unwrap();
    lab
}

fn of(lab: &mut Lab, request: SliceRequest) -> Result<Reply, Refusal> {
    let reply = lab.request(Request::Slice(request));
    lab.settle();
    reply
}

fn reserve(lab: &mut Lab, change: Change, for_ms: u64) -> Result<Reply, Refusal> {
    let until_ms = lab.now_ms + for_ms;
    of(lab, SliceRequest::Reserve { change, until_ms })
}

fn life(lab: &Lab, slice: &str) -> Lifecycle {
    let slices = lab.core.slices();
    slices.into_iter().find(|view| view.name == slice).expect("it is there").lifecycle
}

fn phase(lab: &Lab, slice: &str) -> Phase {
    life(lab, slice).phase
}

/// Meters of slice a.
fn metered(lab: &Lab) -> usize {
    let a = lab.core.slices().into_iter().find(|view| view.name == "a").map(|view| view.id);
    let meters = |switch: &str| {
        let of_a = |entry: &&&Entry| match entry {
            Entry::SliceMeter(meter) => Some(meter.slice.0) == a,
            _ => false,
        };
        lab.entries(switch).iter().filter(of_a).count()
    };
    ["gnb1", "dc1", "edge1"].map(meters).iter().sum()
}

/// Until that time, with everything that is due by then.
fn wait_until(lab: &mut Lab, at_ms: u64) {
    lab.now_ms = at_ms;
    lab.event(selvedge_core::Event::TimerDue(selvedge_core::Timer::Lifecycle));
    lab.settle();
}

#[test]
fn a_check_changes_nothing_and_recommends_what_would_fit() {
    let mut lab = Lab::up(metro());
    let (writes, store) = (lab.writes, lab.store.clone());
    let both = Change {
        put: [large("a").put, slice("b", "300Mbps", "{ ue: robot-1 }, { dn: plc }").put].concat(),
        ..Change::default()
    };
    let answers = match of(&mut lab, SliceRequest::Check(both)) {
        Ok(Reply::Feasibility(answers)) => answers,
        other => panic!("{other:?}"),
    };
    assert_eq!((lab.writes, &lab.store), (writes, &store));
    assert_eq!(answers[0].refusal, None);
    let valid = answers[0].valid.clone();
    assert!(answers.iter().all(|answer| answer.valid == valid), "{answers:?}");
    assert_eq!(valid.until_ms, lab.now_ms + CHECK_VALID_MS);
    assert!(matches!(answers[1].refusal, Some(Refusal::DoesNotFit { .. })), "{answers:?}");
    let recommended = answers[1].recommended.clone().expect("less would fit");
    let rate = recommended.downlink.guaranteed.unwrap().bps();
    assert!((1_000_000..100_000_000).contains(&rate), "{rate}");
    // It is what it says: taken as it is, and the first beside it.
    lab.apply(large("a")).unwrap();
    lab.assert_converged();
    let put = vec![selvedge_slices::Object::NetworkSlice(recommended)];
    lab.apply(Change { put, ..Change::default() }).unwrap();
    lab.assert_converged();
}

/// An answer is good for the state that it names, and until something is due by itself.
#[test]
fn a_check_says_how_long_it_holds() {
    let mut lab = half_full();
    let check = |lab: &mut Lab| match of(lab, SliceRequest::Check(large("a"))) {
        Ok(Reply::Feasibility(answers)) => answers[0].valid.clone(),
        other => panic!("{other:?}"),
    };
    let first = check(&mut lab);
    assert_eq!(check(&mut lab).state, first.state);
    lab.link("gnb1", "s1", false);
    lab.settle();
    let without = check(&mut lab).state;
    assert_ne!(without, first.state);
    lab.link("gnb1", "s1", true);
    lab.settle();
    assert_eq!(check(&mut lab).state, first.state, "the same state has the same name");
    reserve(&mut lab, large("b"), CHECK_VALID_MS / 5).unwrap();
    let later = check(&mut lab);
    assert_ne!(later.state, first.state);
    assert_eq!(later.until_ms, lab.now_ms + CHECK_VALID_MS / 5, "then b gives its place up");
}

#[test]
fn a_reservation_holds_capacity_and_nothing_else_and_expires_by_itself() {
    let mut lab = half_full();
    let writes = lab.writes;
    reserve(&mut lab, large("a"), HOUR_MS).unwrap();
    assert_eq!(phase(&lab, "a"), Phase::Reserved { until_ms: Some(lab.now_ms + HOUR_MS) });
    assert_eq!(lab.writes, writes, "no entry in any switch");
    let second = lab.apply(other("b"));
    assert!(matches!(second, Err(Refusal::DoesNotFit { .. })), "{second:?}");

    // It survives the controller, with its end.
    let until = phase(&lab, "a");
    lab.restart();
    lab.join_all();
    lab.settle();
    assert_eq!(phase(&lab, "a"), until);
    assert_eq!(lab.writes, writes);

    let at_ms = lab.now_ms + HOUR_MS;
    wait_until(&mut lab, at_ms);
    assert_eq!(phase(&lab, "a"), Phase::Designed);
    assert_eq!(lab.logged("reservation-expired").len(), 1);
    lab.apply(other("b")).unwrap();
    let late = of(&mut lab, SliceRequest::Activate("a".parse().unwrap()));
    assert!(matches!(late, Err(Refusal::DoesNotFit { .. })), "its place is taken: {late:?}");
}

#[test]
fn a_controller_that_was_away_gives_an_expired_reservation_back() {
    let mut lab = half_full();
    reserve(&mut lab, large("a"), HOUR_MS).unwrap();
    lab.now_ms += 2 * HOUR_MS;
    lab.restart();
    lab.apply(other("b")).unwrap();
    assert_eq!(phase(&lab, "a"), Phase::Designed);
}

/// What meters guarantee slice a, by switch and direction, in bit/s.
fn guaranteed(lab: &Lab) -> BTreeMap<(&'static str, bool), u64> {
    let a = lab.core.slices().into_iter().find(|view| view.name == "a").map(|view| view.id);
    let mut shares = BTreeMap::new();
    for switch in ["gnb1", "gnb2", "edge1", "edge2", "dc1"] {
        for entry in lab.entries(switch) {
            if let Entry::SliceMeter(meter) = entry
                && Some(meter.slice.0) == a
            {
                let uplink = meter.direction == Direction::Uplink;
                shares.insert((switch, uplink), meter.guaranteed_bps);
            }
        }
    }
    shares
}

/// Shares of a total never add up to more, so they follow who sends; but no switch where traffic
/// enters before and after has less, after any step, than the lower of its two shares.
#[test]
fn while_a_slice_is_modified_no_ingress_has_less_than_the_lower_share() {
    let one = "{ ue: robot-1 }, { dn: video }";
    let two = "{ ue: robot-1 }, { ue: plc }, { dn: video }";
    let mut lab = Lab::up(metro());
    lab.apply(slice("a", "20Mbps", one)).unwrap();
    for (mbps, ends) in [(30, one), (10, one), (24, two), (40, two), (40, one), (90, one)] {
        let before = guaranteed(&lab);
        let change = slice("a", &format!("{mbps}Mbps"), ends);
        lab.request(Request::Apply { change, plan: None }).unwrap();
        let mut steps = vec![guaranteed(&lab)];
        while lab.step() {
            steps.push(guaranteed(&lab));
        }
        lab.assert_converged();
        let after = guaranteed(&lab);
        for uplink in [false, true] {
            let of = after.iter().filter(|((_, up), _)| *up == uplink).map(|(_, share)| share);
            assert_eq!(of.sum::<u64>(), mbps * 1_000_000);
        }
        for (at, share) in &before {
            let least = after.get(at).copied().unwrap_or(0).min(*share);
            let least_held = steps.iter().map(|step| step.get(at).copied().unwrap_or(0)).min();
            assert!(least_held >= Some(least), "{at:?}: {least_held:?} of {least} to {mbps}");
        }
        assert!(steps.len() > 2, "{steps:?}");
    }
}

#[test]
fn active_deactivated_active_deleted() {
    let mut lab = half_full();
    let a = || "a".parse().unwrap();
    reserve(&mut lab, large("a"), HOUR_MS).unwrap();
    of(&mut lab, SliceRequest::Activate(a())).unwrap();
    lab.assert_converged();
    assert_eq!(phase(&lab, "a"), Phase::Active);
    let life_of = |lab: &Lab| {
        let Lifecycle { administrative_state, operational_state, .. } = life(lab, "a");
        (administrative_state, operational_state)
    };
    assert_eq!(life_of(&lab), ("UNLOCKED", "ENABLED"));
    assert_eq!(metered(&lab), 2);
    assert!(matches!(
        of(&mut lab, SliceRequest::Activate(a())),
        Ok(Reply::Applied { changed: false, .. })
    ));
    assert!(matches!(
        reserve(&mut lab, large("a"), HOUR_MS),
        Err(Refusal::Phase { phase: Phase::Active, .. })
    ));

    of(&mut lab, SliceRequest::Deactivate(a())).unwrap();
    lab.assert_converged();
    assert_eq!((phase(&lab, "a"), metered(&lab)), (Phase::Deactivated, 0));
    assert_eq!(life_of(&lab), ("LOCKED", "ENABLED"));
    let second = lab.apply(other("b"));
    assert!(matches!(second, Err(Refusal::DoesNotFit { .. })), "its capacity is held: {second:?}");
    // A changed document changes it, and does not unlock it.
    lab.apply(slice("a", "50Mbps", "{ ue: phone-1 }, { dn: video }")).unwrap();
    lab.restart();
    lab.join_all();
    lab.settle();
    assert_eq!((phase(&lab, "a"), metered(&lab)), (Phase::Deactivated, 0));

    of(&mut lab, SliceRequest::Activate(a())).unwrap();
    assert_eq!((phase(&lab, "a"), metered(&lab)), (Phase::Active, 2));
    lab.apply(delete(ObjectKind::NetworkSlice, "a")).unwrap();
    lab.assert_converged();
    lab.apply(other("b")).unwrap();
    let gone = of(&mut lab, SliceRequest::Deactivate(a()));
    assert!(matches!(gone, Err(Refusal::NotFound { .. })), "{gone:?}");
}

#[test]
fn a_schedule_starts_and_ends_a_slice() {
    let mut lab = Lab::up(metro());
    let scheduled = |start: u64, end: u64| {
        objects(&format!(
            "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: {{ name: a }}\nspec:\n  \
             uplink: {{ guaranteed: 60Mbps }}\n  endpoints: [{{ ue: phone-1 }}, {{ dn: video }}]\n  \
             schedule: {{ start: \"{}\", end: \"{}\" }}\n",
            Timestamp(start),
            Timestamp(end)
        ))
    };
    let (start, end) = (lab.now_ms + HOUR_MS, lab.now_ms + 3 * HOUR_MS);
    lab.apply(scheduled(start, end)).unwrap();
    assert_eq!((phase(&lab, "a"), metered(&lab)), (Phase::Reserved { until_ms: None }, 0));
    let early = of(&mut lab, SliceRequest::Activate("a".parse().unwrap()));
    assert!(matches!(early, Err(Refusal::Phase { .. })), "{early:?}");
    wait_until(&mut lab, start - HOUR_MS / 2);
    assert_eq!(metered(&lab), 0);
    wait_until(&mut lab, start);
    lab.assert_converged();
    assert_eq!((phase(&lab, "a"), metered(&lab)), (Phase::Active, 2));
    wait_until(&mut lab, end);
    lab.assert_converged();
    assert_eq!((phase(&lab, "a"), metered(&lab)), (Phase::Designed, 0));
    assert_eq!(life(&lab, "a").operational_state, "DISABLED");
    let kinds = ["slice-activated", "slice-ended"].map(|kind| lab.logged(kind).len());
    assert_eq!(kinds, [1, 1]);
    let over = lab.apply(scheduled(start, end - 1));
    assert!(matches!(over, Err(Refusal::ScheduleOver { .. })), "{over:?}");
    // Another schedule, another life.
    let end = lab.now_ms + HOUR_MS;
    lab.apply(scheduled(start, end)).unwrap();
    assert_eq!((phase(&lab, "a"), metered(&lab)), (Phase::Active, 2));
}

/// At no moment is less guaranteed than before or after, and no packet is lost.
#[test]
fn a_slice_is_modified_without_ever_having_less() {
    let mut lab = Lab::up(metro());
    let rate = |rate: &str| slice("a", rate, "{ ue: robot-1 }, { dn: plc }");
    lab.apply(rate("20Mbps")).unwrap();
    for (to, least) in [("60Mbps", 20_000_000), ("10Mbps", 10_000_000), ("90Mbps", 10_000_000)] {
        lab.request(Request::Apply { change: rate(to), plan: None }).unwrap();
        loop {
            for (switch, from, at) in [("gnb1", "robot-1", "plc"), ("edge1", "plc", "robot-1")] {
                let meter = lab.entries(switch).into_iter().find_map(|entry| match entry {
                    Entry::SliceMeter(meter) => Some(meter.guaranteed_bps),
                    _ => None,
                });
                assert!(meter.is_some_and(|rate| rate >= least), "{to}, {switch}: {meter:?}");
                assert!(lab.reaches(&name(from), &name(at), false), "{to}: {from} -> {at}");
            }
            if !lab.step() {
                break;
            }
        }
        lab.assert_converged();
    }
    let refused = lab.apply(rate("300Mbps"));
    assert!(matches!(refused, Err(Refusal::DoesNotFit { .. })), "{refused:?}");
    assert_eq!(metered(&lab), 2, "the old guarantee stands");
}
