//! The embedded store, also on a disk that is full and on one that is read-only.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use proptest::prelude::*;

use super::super::WatchError;
use super::*;

fn rt() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn put(key: &str, value: &[u8]) -> Transaction {
    Transaction::default().put(key, value)
}

async fn value(store: &RedbStore, key: &str) -> Option<Vec<u8>> {
    store.get(key).await.unwrap().map(|found| found.value)
}

/// The error and its causes, as a person reads them.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text += &format!(": {source}");
        next = source.source();
    }
    text
}

#[test]
fn what_was_committed_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.redb");
    rt().block_on(async {
        let store = RedbStore::open(&path).unwrap();
        assert_eq!(store.commit(put("slice/a", b"1").put("slice/b", b"2")).await.unwrap(), 1);
        assert_eq!(store.commit(put("slicex", b"3").delete("slice/b")).await.unwrap(), 2);
        drop(store);
        let store = RedbStore::open(&path).unwrap();
        assert_eq!(
            store.list("slice/").await.unwrap(),
            [("slice/a".to_owned(), Versioned { value: b"1".to_vec(), revision: 1 })]
        );
        assert_eq!(store.list("").await.unwrap().len(), 2);
        assert_eq!(store.commit(put("slice/a", b"4")).await.unwrap(), 3);
    });
}

#[test]
fn preconditions_hold_or_nothing_happens() {
    let dir = tempfile::tempdir().unwrap();
    rt().block_on(async {
        let store = RedbStore::open(dir.path().join("c.redb")).unwrap();
        let absent = Precondition::Absent { key: "k".into() };
        let at = |revision| Precondition::At { key: "k".into(), revision };
        store.commit(put("k", b"1").when(absent.clone())).await.unwrap();
        // (precondition, whether it holds while k is at revision 1)
        for (precondition, found) in [(absent, Some(1)), (at(7), Some(1))] {
            let refused = store.commit(put("other", b"x").when(precondition)).await;
            assert!(
                matches!(&refused, Err(StoreError::Precondition { key, found: f, .. })
                    if key == "k" && *f == found),
                "{refused:?}"
            );
            assert_eq!(value(&store, "other").await, None);
        }
        assert_eq!(store.commit(put("k", b"2").when(at(1))).await.unwrap(), 2);
        let gone = Precondition::At { key: "none".into(), revision: 1 };
        let refused = store.commit(put("k", b"3").when(gone)).await;
        assert!(matches!(refused, Err(StoreError::Precondition { found: None, .. })));
    });
}

#[test]
fn a_watch_sees_its_prefix_and_is_told_when_it_is_too_slow() {
    let dir = tempfile::tempdir().unwrap();
    rt().block_on(async {
        let store = RedbStore::open(dir.path().join("c.redb")).unwrap();
        let mut watch = store.watch("a/");
        store.commit(put("b/1", b"x").put("a/1", b"y")).await.unwrap();
        store.commit(Transaction::default().delete("a/1")).await.unwrap();
        let change = |value, revision| Change { key: "a/1".into(), value, revision };
        assert_eq!(watch.next().await.unwrap(), change(Some(b"y".to_vec()), 1));
        assert_eq!(watch.next().await.unwrap(), change(None, 2));
        let mut flood = Transaction::default();
        for n in 0..WATCH_BACKLOG + 1 {
            flood = flood.put(format!("a/{n}"), *b"z");
        }
        store.commit(flood).await.unwrap();
        assert_eq!(watch.next().await, Err(WatchError::Lagged { missed: 1 }));
        assert!(watch.next().await.is_ok());
    });
}

#[test]
fn refusals_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.redb");
    let held = RedbStore::open(&path).unwrap();
    let text = RedbStore::open(&path).err().unwrap().to_string();
    assert!(text.contains("c.redb") && text.contains("in use by another controller"), "{text}");
    {
        let slot = held.inner.database.lock().unwrap();
        let newer = slot.as_ref().unwrap().database.begin_write().unwrap();
        newer.open_table(META).unwrap().insert("format", FORMAT + 1).unwrap();
        newer.commit().unwrap();
    }
    drop(held);
    let text = RedbStore::open(&path).err().unwrap().to_string();
    assert!(text.contains("c.redb") && text.contains("format 2") && text.contains("newer"));

    let other = dir.path().join("notes.txt");
    fs::write(&other, "shopping list, and long enough to be more than a header. ".repeat(200))
        .unwrap();
    let before = fs::read(&other).unwrap();
    let text = RedbStore::open(&other).err().unwrap().to_string();
    assert!(text.contains("notes.txt") && text.contains("not a store of Selvedge"), "{text}");
    assert_eq!(fs::read(&other).unwrap(), before, "somebody's file is left alone");

    let text = RedbStore::open(dir.path().join("no/such/dir")).err().unwrap().to_string();
    assert!(text.contains("no/such/dir"), "{text}");
}

#[test]
fn limits_are_kept_before_the_disk_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    rt().block_on(async {
        let store = RedbStore::open(dir.path().join("c.redb")).unwrap();
        let mut many = Transaction::default();
        for n in 0..=MAX_OPERATIONS {
            many = many.delete(n.to_string());
        }
        let cases = [
            (put(&"k".repeat(MAX_KEY_BYTES + 1), b""), "a key's length"),
            (put("k", &vec![0; MAX_VALUE_BYTES + 1]), "a value's length"),
            (many, "the number of operations"),
        ];
        for (transaction, want) in cases {
            let refused = store.commit(transaction).await;
            assert!(
                matches!(refused, Err(StoreError::Limit { what, .. }) if what == want),
                "{want}"
            );
        }
        assert_eq!(store.commit(put(&"k".repeat(MAX_KEY_BYTES), b"")).await.unwrap(), 1);
    });
}

const IN_NAMESPACE: &str = "SELVEDGE_TEST_MOUNT_NAMESPACE";

/// Runs an ignored test of this binary as root of a user and mount namespace of its own,
/// which any user may have; what it mounts goes with it.
fn in_mount_namespace(test: &str) {
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(IN_NAMESPACE, "1")
        .status()
        .expect("util-linux is installed");
    assert!(status.success(), "{test} failed, see above");
}

fn mount_tmpfs(dir: &Path, options: &str, flags: MsFlags) {
    assert!(std::env::var_os(IN_NAMESPACE).is_some(), "run by its parent test only");
    mount(Some("tmpfs"), dir, Some("tmpfs"), flags, Some(options)).unwrap();
}

#[test]
fn a_full_or_read_only_disk_refuses_writes_and_recovers() {
    in_mount_namespace("store::redb::tests::child_full_or_read_only_disk");
}

#[test]
#[ignore = "run by a_full_or_read_only_disk_refuses_writes_and_recovers"]
fn child_full_or_read_only_disk() {
    let dir = tempfile::tempdir().unwrap();
    mount_tmpfs(dir.path(), "size=4m", MsFlags::empty());
    let path = dir.path().join("c.redb");
    rt().block_on(async {
        let store = RedbStore::open(&path).unwrap();
        store.commit(put("kept", b"before")).await.unwrap();

        let ballast = dir.path().join("ballast");
        let mut file = fs::File::create(&ballast).unwrap();
        while file.write_all(&[7; 4096]).is_ok() {}
        let mut refused = 0;
        for n in 0..64 {
            let key = format!("big{n}");
            let Err(error) = store.commit(put(&key, &[n; 100_000])).await else { continue };
            let text = chain(&error);
            assert!(text.contains("c.redb") && text.contains("nothing was changed"), "{text}");
            assert!(text.contains("No space left"), "{text}");
            assert!(error.is_retryable());
            assert_eq!(value(&store, "kept").await.unwrap(), b"before", "reads go on");
            assert_eq!(value(&store, &key).await, None, "nothing is half done");
            refused += 1;
        }
        assert!(refused > 32, "the disk was full: {refused}");

        // Room again: the next write works, nobody restarts anything.
        drop(file);
        fs::remove_file(&ballast).unwrap();
        store.commit(put("kept", b"after")).await.unwrap();
        assert_eq!(value(&store, "kept").await.unwrap(), b"after");
        drop(store);

        let remount = |flags| mount_tmpfs(dir.path(), "size=4m", MsFlags::MS_REMOUNT | flags);
        remount(MsFlags::MS_RDONLY);
        // It opens, to be read; nothing that is committed seems to be there.
        let store = RedbStore::open(&path).unwrap();
        assert_eq!(value(&store, "kept").await.unwrap(), b"after");
        for _ in 0..2 {
            let text = chain(&store.commit(put("kept", b"x")).await.unwrap_err());
            assert!(text.contains("c.redb") && text.contains("Read-only file system"), "{text}");
            assert_eq!(value(&store, "kept").await.unwrap(), b"after");
        }
        let text = RedbStore::open(&path).err().unwrap().to_string();
        assert!(text.contains("in use by another controller"), "{text}");
        // What never was a store cannot be read either.
        let text = chain(&RedbStore::open(dir.path().join("none")).err().unwrap());
        assert!(text.contains("none") && text.contains("Read-only file system"), "{text}");
        remount(MsFlags::empty());
        store.commit(put("kept", b"written")).await.unwrap();
        drop(store);
        remount(MsFlags::empty());
        let store = RedbStore::open(&path).unwrap();
        assert_eq!(value(&store, "kept").await.unwrap(), b"written");
        // A file system that turns read-only under a running store: writing says so, and
        // goes on once it is writable.
        store.inner.database.lock().unwrap().take();
        remount(MsFlags::MS_RDONLY);
        let text = chain(&store.commit(put("kept", b"x")).await.unwrap_err());
        assert!(text.contains("cannot write") && text.contains("Read-only"), "{text}");
        remount(MsFlags::empty());
        store.commit(put("kept", b"again")).await.unwrap();
    });
}

#[test]
fn a_store_that_was_not_closed_is_read_on_a_full_disk() {
    in_mount_namespace("store::redb::tests::child_not_closed_and_full");
}

/// As after `kill -9`: redb has to mend such a file before it can be read.
#[test]
#[ignore = "run by a_store_that_was_not_closed_is_read_on_a_full_disk"]
fn child_not_closed_and_full() {
    let dir = tempfile::tempdir().unwrap();
    mount_tmpfs(dir.path(), "size=8m", MsFlags::empty());
    let (path, copy) = (dir.path().join("c.redb"), dir.path().join("copy.redb"));
    rt().block_on(async {
        let store = RedbStore::open(&path).unwrap();
        for n in 0..50 {
            store.commit(put(&format!("key/{n}"), &[n; 1000])).await.unwrap();
        }
        fs::copy(&path, &copy).unwrap();
        drop(store);
        let before = fs::read(&copy).unwrap();
        let remount = |flags| mount_tmpfs(dir.path(), "size=8m", MsFlags::MS_REMOUNT | flags);
        remount(MsFlags::MS_RDONLY);
        let store = RedbStore::open(&copy).unwrap();
        assert_eq!(store.list("key/").await.unwrap().len(), 50);
        assert_eq!(value(&store, "key/49").await.unwrap(), [49; 1000]);
        assert!(store.commit(put("key/50", b"")).await.is_err());
        assert_eq!(fs::read(&copy).unwrap(), before, "nothing was written");
        drop(store);
        remount(MsFlags::empty());

        let mut file = fs::File::create(dir.path().join("ballast")).unwrap();
        while file.write_all(&[7; 4096]).is_ok() {}
        let store = RedbStore::open(&copy).unwrap();
        assert_eq!(store.list("key/").await.unwrap().len(), 50);
        fs::remove_file(dir.path().join("ballast")).unwrap();
        drop(file);
        store.commit(put("key/50", b"")).await.unwrap();
        assert_eq!(store.list("key/").await.unwrap().len(), 51);
    });
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<(u8, Option<u8>)>),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // A tiny key space, so that operations collide.
    let operation = (0u8..4, proptest::option::of(0u8..3));
    let step = prop_oneof![
        4 => proptest::collection::vec(operation, 0..4).prop_map(Step::Commit),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn behaves_like_a_map(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.redb");
        rt().block_on(async {
            let mut store = RedbStore::open(&path).unwrap();
            let mut model: BTreeMap<String, Versioned> = BTreeMap::new();
            let mut last = 0;
            for step in steps {
                let Step::Commit(operations) = step else {
                    drop(store);
                    store = RedbStore::open(&path).unwrap();
                    continue;
                };
                last += 1;
                let mut transaction = Transaction::default();
                for (key, value) in operations {
                    let key = key.to_string();
                    match value {
                        Some(value) => {
                            let value = vec![value];
                            transaction = transaction.put(key.clone(), value.clone());
                            model.insert(key, Versioned { value, revision: last });
                        }
                        None => {
                            transaction = transaction.delete(key.clone());
                            model.remove(&key);
                        }
                    }
                }
                prop_assert_eq!(store.commit(transaction).await.unwrap(), last);
                let found: BTreeMap<_, _> =
                    store.list("").await.unwrap().into_iter().collect();
                prop_assert_eq!(&found, &model);
            }
            Ok(())
        })?;
    }
}
