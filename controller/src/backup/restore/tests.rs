use std::path::Path;
use std::sync::atomic::Ordering;

use super::*;
use crate::lead::Records;
use crate::run::RunError;
use crate::store::{Location, RedbStore};
use crate::testing::{FaultyStore, pair};

const META: &[u8] = br#"{"format":1,"revision":3,"generation":12}"#;
const SLICE: &str = r#"{"object":{"apiVersion":"selvedge/v1","kind":"NetworkSlice",
    "metadata":{"name":"robots"},"spec":{"downlink":{"guaranteed":"1Mbps"},
    "uplink":{"guaranteed":"1Mbps"},"endpoints":[{"ue":"h1"},{"dn":"h2"}]}},
    "revision":3,"author":"uid 0","changed_at_ms":1790000000000}"#;

fn backup(records: &[(&str, &[u8])]) -> Backup {
    let records = records.iter().map(|(key, value)| ((*key).to_owned(), value.to_vec()));
    Backup { version: "0.0.9".to_owned(), taken_at_ms: 1, records: records.collect() }
}

fn good() -> Backup {
    backup(&[
        ("meta", META),
        ("intent/slice/robots", SLICE.as_bytes()),
        ("module/00", &[0, 0xff]),
        (ELECTION_KEY, b"170141183460469231731687303715884105727"),
    ])
}

fn open(path: &Path) -> RedbStore {
    RedbStore::open(path).unwrap()
}

async fn begin(path: &Path) -> Result<u128, RunError> {
    let topology = pair();
    let location = Location::File(path.to_owned());
    let records = Records { topology, location: location.clone() };
    let (_, start) = lead::begin(&location, None, &records).await?;
    let slices = start.core.slices();
    assert_eq!(slices.len(), 1, "the slice is there");
    Ok(start.role.election_id().unwrap())
}

#[tokio::test]
async fn a_controller_starts_on_what_was_restored() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.redb");
    let store = open(&path);
    let restored = restore(&store, &good(), false).await.unwrap();
    assert_eq!((restored.records, restored.replaced), (4, 0));
    assert!(restored.generation > 12);
    let meta = store.get("meta").await.unwrap().unwrap().value;
    let meta = String::from_utf8(meta).unwrap();
    assert!(meta.contains(&restored.generation.to_string()) && meta.contains("\"revision\":3"));
    assert_eq!(store.get("module/00").await.unwrap().unwrap().value, [0, 0xff]);
    // What it holds is a backup like any other.
    let again = Backup::take(&store).await.unwrap();
    assert_eq!(again.records.len(), 4);
    drop(store);
    // Switches have obeyed that id.
    assert!(begin(&path).await.unwrap() > 170_141_183_460_469_231_731_687_303_715_884_105_727);
}

#[tokio::test]
async fn what_is_there_is_lost_only_when_that_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("c.redb"));
    let old = Transaction::default().put("intent/slice/old", "{}").put("meta", META);
    store.commit(old).await.unwrap();
    let refused = restore(&store, &good(), false).await.unwrap_err();
    assert!(matches!(refused, RestoreError::NotEmpty { records: 2 }), "{refused}");
    assert_eq!(store.keys("").await.unwrap(), ["intent/slice/old", "meta"]);
    restore(&store, &good(), true).await.unwrap();
    let keys = store.keys("").await.unwrap();
    assert_eq!(keys, [ELECTION_KEY, "intent/slice/robots", "meta", "module/00"]);
}

#[tokio::test]
async fn records_of_another_version_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("c.redb"));
    for (key, value) in [
        ("meta", &br#"{"format":2,"revision":1,"generation":1}"#[..]),
        ("later/x", b"{}"),
        ("intent/slice/robots", b"{}"),
    ] {
        let refused = restore(&store, &backup(&[(key, value)]), true).await.unwrap_err();
        assert!(matches!(&refused, RestoreError::Records { .. }), "{refused}");
        assert!(refused.to_string().contains("0.0.9"), "{refused}");
        assert_eq!(store.keys("").await.unwrap(), [""; 0]);
    }
}

#[tokio::test]
async fn what_was_cut_off_between_two_transactions_is_taken_by_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.redb");
    let mut large = good();
    for n in 0..MAX_OPERATIONS {
        large.records.insert(format!("mec/services/{n}"), b"{}".to_vec());
    }
    let store = FaultyStore::new(open(&path));
    store.room.store(1, Ordering::SeqCst);
    let cut = restore(&store, &large, false).await.unwrap_err();
    assert!(matches!(cut, RestoreError::Half { done: 1, all: 2, .. }), "{cut}");
    assert!(Backup::take(&store).await.unwrap_err().to_string().contains("restore it again"));
    drop(store);
    let refused = begin(&path).await.unwrap_err();
    assert!(matches!(refused, RunError::HalfRestored { .. }), "{refused}");
    let store = open(&path);
    restore(&store, &large, false).await.unwrap();
    assert_eq!(store.keys("").await.unwrap().len(), large.records.len());
    drop(store);
    begin(&path).await.unwrap();
}
