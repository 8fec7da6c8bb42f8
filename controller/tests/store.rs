//! What every store has to do, and what happens to one on etcd when members and leaders fail.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use selvedge_controller::pki;
use selvedge_controller::store::{
    Change, EtcdStore, EtcdTls, MAX_OPERATIONS, Precondition, RedbStore, Store, StoreError,
    Transaction, Versioned, Watch, WatchError,
};

mod etcd;
use etcd::Cluster;

const PATIENCE: Duration = Duration::from_secs(20);

fn put(key: &str, value: &[u8]) -> Transaction {
    Transaction::default().put(key, value)
}

async fn value(store: &dyn Store, key: &str) -> Option<Vec<u8>> {
    store.get(key).await.unwrap().map(|found| found.value)
}

/// Tries until it works.
async fn eventually<T, E: std::fmt::Display, F: Future<Output = Result<T, E>>>(
    mut attempt: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => assert!(Instant::now() < deadline, "still: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a watcher is told of a change, or told to list again and finds it there.
async fn heard(store: &dyn Store, watch: &mut Watch, want: Change) {
    let heard = async {
        loop {
            match watch.next().await {
                Ok(change) if change == want => return,
                Ok(_) => {}
                Err(WatchError::Closed) => panic!("the store is closed"),
                Err(_) if value(store, &want.key).await == want.value => return,
                Err(_) => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.expect("the change is told");
}

/// The contract: the same for every store.
async fn contract(store: &dyn Store) {
    // Versioned keys, in order, under their prefix.
    let first = store.commit(put("slice/a", b"1").put("slice/b", b"2")).await.unwrap();
    let second = store.commit(put("slicex", b"3").delete("slice/b")).await.unwrap();
    assert!(second > first);
    let a = Versioned { value: b"1".to_vec(), revision: first };
    assert_eq!(store.get("slice/a").await.unwrap(), Some(a.clone()));
    assert_eq!(store.get("slice/b").await.unwrap(), None);
    assert_eq!(store.list("slice/").await.unwrap(), [("slice/a".to_owned(), a)]);
    assert_eq!(store.keys("slice").await.unwrap(), ["slice/a", "slicex"]);
    assert_eq!(store.keys("").await.unwrap().len(), 2);

    // The last operation on a key wins.
    store.commit(put("twice", b"1").delete("twice").put("twice", b"2")).await.unwrap();
    assert_eq!(value(store, "twice").await.unwrap(), b"2");
    store.commit(put("twice", b"3").delete("twice")).await.unwrap();
    assert_eq!(value(store, "twice").await, None);
    store.commit(Transaction::default()).await.unwrap();

    // Preconditions hold, or nothing happens.
    let absent = Precondition::Absent { key: "k".into() };
    let at = |revision| Precondition::At { key: "k".into(), revision };
    let made = store.commit(put("k", b"1").when(absent.clone())).await.unwrap();
    for precondition in [absent, at(made + 7)] {
        let refused = store.commit(put("other", b"x").when(precondition)).await;
        assert!(
            matches!(&refused, Err(StoreError::Precondition { key, found, .. })
                if key == "k" && *found == Some(made)),
            "{refused:?}"
        );
        assert_eq!(value(store, "other").await, None);
    }
    let mut watch = store.watch("k");
    let changed = store.commit(put("k", b"2").when(at(made))).await.unwrap();
    assert!(changed > made);

    // Watchers hear of it.
    let want = Change { key: "k".into(), value: Some(b"2".to_vec()), revision: changed };
    heard(store, &mut watch, want).await;
    let gone = store.commit(Transaction::default().delete("k")).await.unwrap();
    heard(store, &mut watch, Change { key: "k".into(), value: None, revision: gone }).await;

    // Limits, and what has to fit.
    let mut many = Transaction::default();
    for n in 0..=MAX_OPERATIONS {
        many = many.delete(n.to_string());
    }
    assert!(matches!(store.commit(many).await, Err(StoreError::Limit { .. })));
    store.commit(put("module/x", &vec![7; 12 << 20])).await.unwrap();
    assert_eq!(value(store, "module/x").await.unwrap().len(), 12 << 20);
    let mut large = Transaction::default();
    for n in 0..2_000 {
        large = large.put(format!("large/{n}"), *b"x");
    }
    store.commit(large).await.unwrap();
    assert_eq!(store.keys("large/").await.unwrap().len(), 2_000);

    // Elected, it writes; elected again, with a greater id.
    let led = tokio::time::timeout(PATIENCE, store.campaign("one")).await.unwrap().unwrap();
    store.commit(put("led", b"1")).await.unwrap();
    let id = led.election_id();
    store.commit(put("controller/election", id.to_string().as_bytes())).await.unwrap();
    drop(led);
    let led = tokio::time::timeout(PATIENCE, store.campaign("one")).await.unwrap().unwrap();
    assert!(led.election_id() > id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redb_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    contract(&RedbStore::open(dir.path().join("c.redb")).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_keeps_the_contract_while_members_fail() {
    let cluster = Cluster::start(3, &[]);
    let store = |prefix: &str| EtcdStore::new(&cluster.members, prefix, None).unwrap();
    let whole = store("whole");
    eventually(|| whole.get("")).await;
    contract(&whole).await;
    for member in [0, 1] {
        cluster.signal(member, Signal::SIGSTOP);
        let without = store(&format!("without-{member}"));
        eventually(|| without.get("")).await;
        contract(&without).await;
        cluster.signal(member, Signal::SIGCONT);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_without_a_majority_acknowledges_nothing_and_comes_back() {
    let cluster = Cluster::start(3, &[]);
    let store = EtcdStore::new(&cluster.members, "s", None).unwrap();
    eventually(|| store.commit(put("k", b"before"))).await;
    cluster.signal(0, Signal::SIGSTOP);
    cluster.signal(1, Signal::SIGSTOP);
    let refused = store.commit(put("k", b"lost?")).await.unwrap_err();
    assert!(refused.is_retryable() && refused.to_string().contains("etcd://"), "{refused}");
    cluster.signal(0, Signal::SIGCONT);
    cluster.signal(1, Signal::SIGCONT);
    eventually(|| store.commit(put("k", b"after"))).await;
    // Whatever became of the one in between, it does not come after.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(value(&store, "k").await.unwrap(), b"after");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_that_is_full_refuses_and_serves_reads() {
    let cluster = Cluster::start(1, &["--quota-backend-bytes", "4194304"]);
    let store = EtcdStore::new(&cluster.members, "s", None).unwrap();
    eventually(|| store.commit(put("k", b"kept"))).await;
    let mut refused = None;
    for n in 0..64 {
        if let Err(error) = store.commit(put(&format!("big{n}"), &[7; 500_000])).await {
            refused = Some(error);
            break;
        }
    }
    let refused = refused.expect("it is full at last");
    assert!(matches!(refused, StoreError::Write { .. }) && refused.is_retryable(), "{refused:?}");
    assert_eq!(value(&store, "k").await.unwrap(), b"kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_over_tls_wants_our_certificate_and_we_want_its() {
    let dir = tempfile::tempdir().unwrap();
    let made = |name: &str| dir.path().join(name);
    let issue = |to: &str, nodes: &[&str]| {
        let nodes: Vec<pki::Node> = nodes.iter().map(|node| node.parse().unwrap()).collect();
        let validity = pki::Validity::days(1);
        pki::init(&made(to), &nodes, pki::Options { force: false, validity }).unwrap();
    };
    issue("own", &["member=127.0.0.1", "client"]);
    issue("foreign", &["client"]);
    let file = |name: &str| made("own").join(name).to_str().unwrap().to_owned();
    let cluster = Cluster::start_with(
        "https",
        1,
        &[
            "--client-cert-auth",
            &format!("--trusted-ca-file={}", file("ca.pem")),
            &format!("--cert-file={}", file("member.pem")),
            &format!("--key-file={}", file("member.key")),
        ],
    );
    let store = |of: &str| {
        let tls = EtcdTls::load(&made(of)).unwrap();
        EtcdStore::new(&cluster.members, "s", Some(&tls)).unwrap()
    };
    let good = store("own");
    eventually(|| good.commit(put("k", b"1"))).await;
    assert_eq!(value(&good, "k").await.unwrap(), b"1");
    // Of another authority, which is not the member's either; and none.
    store("foreign").get("k").await.unwrap_err();
    std::fs::copy(made("own").join("ca.pem"), made("foreign").join("ca.pem")).unwrap();
    store("foreign").get("k").await.unwrap_err();
    EtcdStore::new(&cluster.members, "s", None).unwrap().get("k").await.unwrap_err();
    let missing = EtcdTls::load(dir.path()).unwrap_err();
    assert!(missing.to_string().contains("ca.pem"), "{missing}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_leads_the_next_takes_over_and_the_old_one_writes_nothing() {
    let cluster = Cluster::start(3, &[]);
    let store = || Arc::new(EtcdStore::new(&cluster.members, "s", None).unwrap());
    let (old, new) = (store(), store());
    let mut led = eventually(|| old.campaign("old")).await;
    old.commit(put("k", b"old")).await.unwrap();
    let standing = tokio::spawn({
        let new = Arc::clone(&new);
        async move { new.campaign("new").await }
    });
    eventually(|| async { new.leader().filter(|name| name == "old").ok_or("not heard") }).await;
    let refused = new.commit(put("k", b"new")).await.unwrap_err();
    assert!(refused.to_string().contains("old does"), "{refused}");

    // The key goes from under it, as when its lease ends while it is paused.
    cluster.delete("s/election");
    let next = tokio::time::timeout(PATIENCE, standing).await.unwrap().unwrap().unwrap();
    assert!(next.election_id() > led.election_id());
    new.commit(put("k", b"new")).await.unwrap();
    let refused = old.commit(put("k", b"stale")).await.unwrap_err();
    assert!(matches!(refused, StoreError::NotLeader { .. }), "{refused}");
    assert_eq!(value(old.as_ref(), "k").await.unwrap(), b"new");
    tokio::time::timeout(PATIENCE, led.lost()).await.expect("it is told");
}
