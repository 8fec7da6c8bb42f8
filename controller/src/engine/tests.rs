//! The engine with a real core and store; switches are made up.

use std::sync::atomic::Ordering;
use std::time::Duration;

use selvedge_core::{Event, Port, ReadId, Reply};
use selvedge_pipeline::{CounterKind, PortId};
use selvedge_topology::NodeName;

use super::switch::COMMANDS;
use super::{Command, CountersError, Input, RequestError, SessionId, SwitchLink};
use crate::store::Store as _;
use crate::testing::{Controller, FakeSwitch, join_pair, report};

fn s1() -> NodeName {
    "s1".parse().unwrap()
}

#[tokio::test]
async fn what_happens_in_the_network_is_carried_out_though_the_store_is_full() {
    let controller = Controller::start();
    let _switches = join_pair(&controller).await;
    controller.until_converged().await;
    let stored = || async { controller.store.get("switch/s1").await.unwrap().unwrap() };
    let before = stored().await;

    controller.store.full.store(true, Ordering::SeqCst);
    let port = Port { id: PortId(1), name: "p1".into(), mac: [2, 0, 0, 0, 1, 1], up: false };
    let event = Event::PortChanged { switch: s1(), port };
    let input = Input::FromSwitch { switch: s1(), session: SessionId(1), event };
    controller.handle.send(input).await.unwrap();
    let mut usable = 1;
    for _ in 0..200 {
        usable = controller.handle.query(|core| core.status()).await.unwrap().links_usable;
        if usable == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(usable, 0, "the failed link is known");
    assert_eq!(stored().await, before);

    controller.store.full.store(false, Ordering::SeqCst);
    for _ in 0..500 {
        if stored().await != before {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the store was not told once it had room");
}

#[tokio::test]
async fn the_status_says_that_the_store_cannot_be_written_until_it_can() {
    let controller = Controller::start();
    let status = || async { controller.handle.query(|core| core.status()).await.unwrap() };
    let until = async |unwritable: bool| {
        for _ in 0..500 {
            if status().await.store_unwritable.is_some() == unwritable {
                return status().await.store_unwritable;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never: {:?}", status().await);
    };
    assert_eq!(status().await.store_unwritable, None);
    controller.store.full.store(true, Ordering::SeqCst);
    let objects = selvedge_slices::parse(
        "a.yaml",
        "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: { name: a }\nspec:\n  \
         endpoints: [{ ue: h1 }, { dn: h2 }]\n",
    );
    let change = selvedge_core::Change { put: objects.unwrap(), ..Default::default() };
    let request = selvedge_core::Request::Apply { change, plan: None };
    let refused = controller.handle.request("tester".into(), request).await;
    assert!(matches!(refused, Err(super::RequestError::Store(_))), "{refused:?}");
    // Nothing is owed to the store, and yet its recovery is noticed.
    let why = until(true).await.unwrap();
    assert!(why.contains("controller.redb"), "{why}");
    controller.store.full.store(false, Ordering::SeqCst);
    until(false).await;
    let events = controller.handle.query(|core| core.events().cloned().collect::<Vec<_>>());
    let events = events.await.unwrap();
    let kinds: Vec<&str> =
        events.iter().map(|e| e.kind).filter(|kind| kind.starts_with("store-")).collect();
    assert_eq!(kinds, ["store-unwritable", "store-writable"]);
}

/// A slice that is guaranteed so much from one host to another.
fn apply(
    controller: &Controller,
    name: &str,
    rate: &str,
) -> impl Future<Output = Result<Reply, RequestError>> + Send + 'static {
    let text = format!(
        "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: {{ name: {name} }}\nspec:\n  \
         uplink: {{ guaranteed: {rate} }}\n  endpoints: [{{ ue: h1 }}, {{ dn: h2 }}]\n"
    );
    let put = selvedge_slices::parse("a.yaml", &text).unwrap();
    let change = selvedge_core::Change { put, ..Default::default() };
    let request = selvedge_core::Request::Apply { change, plan: None };
    let handle = controller.handle.clone();
    async move { handle.request("tester".into(), request).await }
}

async fn until(what: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never");
}

/// Decisions go on while a commit is on its way: they are in the next one, and where it fails they
/// fail with it, because they saw what it was to store.
#[tokio::test]
async fn what_comes_while_a_commit_is_on_its_way_is_decided_and_waits() {
    let controller = Controller::start();
    let _switches = join_pair(&controller).await;
    let store = &controller.store;
    for (fails, names) in [(false, ["a", "b", "c"]), (true, ["d", "e", "f"])] {
        controller.until_converged().await;
        let before = store.asked.load(Ordering::SeqCst);
        let commits = || store.asked.load(Ordering::SeqCst) - before;
        store.busy.send_replace(true);
        let [first, second, third] = names;
        let first = tokio::spawn(apply(&controller, first, "1Mbps"));
        until(|| commits() == 1).await;
        let later = [second, third].map(|name| tokio::spawn(apply(&controller, name, "1Mbps")));
        tokio::task::yield_now().await;
        until(|| controller.handle.waiting() == 0).await;
        assert!(!first.is_finished(), "nobody is answered before it is stored");
        store.full.store(fails, Ordering::SeqCst);
        store.busy.send_replace(false);
        for answer in futures::future::join_all(std::iter::once(first).chain(later)).await {
            let answer = answer.unwrap();
            assert_eq!(matches!(answer, Err(RequestError::Store(_))), fails, "{answer:?}");
        }
        // What follows from what was taken is stored, too.
        assert!(if fails { commits() == 1 } else { commits() >= 2 }, "{}", commits());
        let slices = controller.handle.query(|core| core.slices().len()).await.unwrap();
        assert_eq!(slices, 3, "those of the commits that did not fail");
    }
}

/// Requests that wait together are stored together, and each is answered for itself; when that
/// fails, none of what they changed is there.
#[tokio::test]
async fn requests_share_a_commit() {
    let controller = Controller::start();
    let _switches = join_pair(&controller).await;
    controller.until_converged().await;
    let store = &controller.store;
    let slices = || async {
        let names = |core: &selvedge_core::Core| core.slices().len();
        controller.handle.query(names).await.unwrap()
    };
    let of_slices = store.of_slices.load(Ordering::SeqCst);
    let asked = store.asked.load(Ordering::SeqCst);
    store.busy.send_replace(true);
    let first = tokio::spawn(apply(&controller, "a", "1Mbps"));
    until(|| store.asked.load(Ordering::SeqCst) > asked).await;
    let rates = [("b", "90Gbps"), ("c", "1Mbps"), ("d", "1Mbps"), ("e", "1Mbps")];
    let later = rates.map(|(name, rate)| tokio::spawn(apply(&controller, name, rate)));
    tokio::task::yield_now().await;
    until(|| controller.handle.waiting() == 0).await;
    store.busy.send_replace(false);
    let answers = futures::future::join_all(std::iter::once(first).chain(later)).await;
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    let admitted: Vec<bool> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(admitted, [true, false, true, true, true], "{answers:?}");
    let Err(RequestError::Refused(refusal)) = &answers[1] else { panic!("{answers:?}") };
    assert!(refusal.offers().unwrap().are_worked_out(), "whoever is answered need not wait");
    assert_eq!(slices().await, 4);
    let commits = store.of_slices.load(Ordering::SeqCst) - of_slices;
    assert_eq!(commits, 2, "the first, and what came meanwhile");

    store.full.store(true, Ordering::SeqCst);
    let none = ["f", "g", "h"].map(|name| apply(&controller, name, "1Mbps"));
    let none = futures::future::join_all(none).await;
    assert!(none.iter().all(Result::is_err), "{none:?}");
    assert_eq!(slices().await, 4);
}

/// More than may wait for their offers.
#[tokio::test]
async fn every_refusal_is_answered_with_offers() {
    let controller = Controller::start();
    let _switches = join_pair(&controller).await;
    controller.until_converged().await;
    let refused = (0..40).map(|n| {
        let text = format!(
            "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: {{ name: n{n} }}\nspec:\n  \
             uplink: {{ guaranteed: 90Gbps }}\n  endpoints: [{{ ue: h1 }}, {{ dn: h2 }}]\n"
        );
        let put = selvedge_slices::parse("a.yaml", &text).unwrap();
        let change = selvedge_core::Change { put, ..Default::default() };
        let request = selvedge_core::Request::Apply { change, plan: None };
        controller.handle.request("tester".into(), request)
    });
    for answer in futures::future::join_all(refused).await {
        let Err(RequestError::Refused(refusal)) = &answer else { panic!("{answer:?}") };
        assert!(!refusal.offers().unwrap().is_empty(), "{refusal}");
    }
}

#[tokio::test]
async fn an_older_session_is_not_listened_to() {
    let controller = Controller::start();
    let joined = || async {
        let nodes = controller.handle.query(|core| core.nodes()).await.unwrap();
        let node = nodes.into_iter().find(|node| node.name == s1()).unwrap();
        (node.joined, node.version)
    };
    let old = FakeSwitch::default();
    old.join(&controller.handle, 1, "s1", report(1, 3, "s2")).await;
    let newer = selvedge_core::Report { version: "newer".into(), ..report(1, 3, "s2") };
    FakeSwitch::default().join(&controller.handle, 2, "s1", newer).await;

    let left = Input::Left { switch: s1(), session: SessionId(1) };
    controller.handle.send(left).await.unwrap();
    let event = Event::SwitchLeft { switch: s1() };
    let stale = Input::FromSwitch { switch: s1(), session: SessionId(1), event };
    controller.handle.send(stale).await.unwrap();
    assert_eq!(joined().await, (true, "newer".to_owned()));
    let left = Input::Left { switch: s1(), session: SessionId(2) };
    controller.handle.send(left).await.unwrap();
    assert!(!joined().await.0);
}

#[tokio::test]
async fn counters_are_asked_of_a_switch_that_is_there_and_answers() {
    let controller = Controller::start();
    let cells = vec![(CounterKind::Drops, 3)];
    let read =
        |limit_ms| controller.handle.counters(s1(), cells.clone(), Duration::from_millis(limit_ms));
    assert_eq!(read(5_000).await, Err(CountersError::NotJoined));

    // It joins and never reads its commands.
    let (link, commands) = SwitchLink::new(SessionId(1));
    let event = Event::SwitchJoined { switch: s1(), report: report(1, 3, "s2") };
    controller.handle.send(Input::Joined { switch: s1(), link, event }).await.unwrap();
    assert_eq!(read(50).await, Err(CountersError::Timeout(Duration::from_millis(50))));
    let waiting = futures::future::join_all((0..COMMANDS).map(|_| read(300))).await;
    let busy = waiting.iter().filter(|answer| **answer == Err(CountersError::Busy)).count();
    assert!(busy >= COMMANDS / 2, "{busy} of {COMMANDS} refused: the core has its half");
    assert!(busy < COMMANDS, "{busy}");
    drop(commands);
    let ended = read(5_000).await;
    assert!(matches!(ended, Err(CountersError::NotJoined)), "{ended:?}");

    FakeSwitch::default().join(&controller.handle, 2, "s1", report(1, 3, "s2")).await;
    let answer = read(5_000).await.unwrap();
    assert_eq!(answer.len(), 1);
    assert_eq!((answer[0].counter, answer[0].index), cells[0]);
}

#[test]
fn a_switch_that_is_behind_fails_at_once_and_holds_up_nobody() {
    let (link, commands) = SwitchLink::new(SessionId(1));
    let read = |n| Command::Read { read: ReadId(n) };
    for n in 0..COMMANDS as u64 {
        assert!(link.send(&s1(), read(n)).is_none());
    }
    let failed = |event: Option<Event>| match event {
        Some(Event::EntriesRead { read, result: Err(why), .. }) => (read, why),
        other => panic!("{other:?}"),
    };
    let (read_id, why) = failed(link.send(&s1(), read(7)));
    assert!(read_id == ReadId(7) && why.contains("behind"), "{why}");
    drop(commands);
    assert!(failed(link.send(&s1(), read(8))).1.contains("ended"));
}
