//! Putting a backup into a store, in place of all that is there.

use std::collections::BTreeMap;
use std::time::Duration;

use selvedge_core::Core;

use super::Backup;
use crate::clock;
use crate::lead::{self, is_cores};
use crate::store::{
    ELECTION_KEY, MAX_OPERATIONS, MAX_VALUE_BYTES, Operation, RESTORING_KEY, Store, StoreError,
    Transaction, leads,
};

/// For being elected: longer than the lease of a controller that has just been killed.
const ELECTION: Duration = Duration::from_secs(5);
/// Of one transaction, less than etcd takes at once: a largest value, or many small ones.
const BATCH_BYTES: usize = MAX_VALUE_BYTES;
/// Of one transaction, two of which can be about [`RESTORING_KEY`].
const BATCH_OPERATIONS: usize = MAX_OPERATIONS - 2;

/// What a restore did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    pub records: usize,
    /// Records that were there before.
    pub replaced: usize,
    /// The controller goes on from here: more than any switch can hold.
    pub generation: u64,
}

/// Why a backup was not restored. Unless it says so, nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(
        "Selvedge {own} cannot use a record of this backup, which {version} took; nothing was \
         changed",
        own = env!("CARGO_PKG_VERSION")
    )]
    Records {
        version: String,
        #[source]
        source: selvedge_core::RestoreError,
    },
    #[error("a controller uses this store: {}; stop every one first", leads(leader.as_deref()))]
    Led { leader: Option<String> },
    #[error("the store holds {records} records already; --replace puts the backup in their place")]
    NotEmpty { records: usize },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "the store took {done} of {all} parts of the backup; no controller takes it so: restore \
         again"
    )]
    Half {
        done: usize,
        all: usize,
        #[source]
        source: StoreError,
    },
}

/// Replaces what the store holds by `backup`. `replace`: also where it holds something.
///
/// The generations of entries go on from a number that no controller can have reached that ran
/// after the backup was taken, so that switches which hold newer entries obey (see
/// `selvedge_core::Core::raised`); the election id is at least the highest of both.
///
/// What does not fit into one transaction goes in several, the first of which leaves a mark that
/// the last takes away; no controller takes a store with that mark.
///
/// # Errors
/// [`RestoreError`].
pub async fn restore(
    store: &dyn Store,
    backup: &Backup,
    replace: bool,
) -> Result<Restored, RestoreError> {
    let campaign = tokio::time::timeout(ELECTION, store.campaign("a restore"));
    let Ok(led) = campaign.await else {
        return Err(RestoreError::Led { leader: store.leader() });
    };
    let led = led?;
    let result = replace_all(store, backup, replace, led.election_id()).await;
    drop(led);
    if store.leader().is_some() {
        tokio::time::sleep(lead::RESIGNING).await;
    }
    result
}

async fn replace_all(
    store: &dyn Store,
    backup: &Backup,
    replace: bool,
    election_id: u128,
) -> Result<Restored, RestoreError> {
    let there = store.keys("").await?;
    let own = |key: &String| key != ELECTION_KEY && key != RESTORING_KEY;
    let records = there.iter().filter(|key| own(key)).count();
    let half = there.iter().any(|key| key == RESTORING_KEY);
    if records > 0 && !replace && !half {
        return Err(RestoreError::NotEmpty { records });
    }
    let mut wanted = backup.records.clone();
    wanted.remove(RESTORING_KEY);
    let generation = raise(store, backup, &mut wanted).await?;
    let last = wanted.get(ELECTION_KEY).and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
    let id = last.unwrap_or(0).max(election_id);
    wanted.insert(ELECTION_KEY.to_owned(), id.to_string().into_bytes());

    let restored = Restored { records: backup.records.len(), replaced: records, generation };
    let batches = batches(&there, wanted);
    let all = batches.len();
    for (done, batch) in batches.into_iter().enumerate() {
        match store.commit(batch).await {
            Ok(_) => {}
            Err(error) if done == 0 => return Err(error.into()),
            Err(source) => return Err(RestoreError::Half { done, all, source }),
        }
    }
    Ok(restored)
}

/// Checks the core's records and raises their generation, which is returned.
async fn raise(
    store: &dyn Store,
    backup: &Backup,
    wanted: &mut BTreeMap<String, Vec<u8>>,
) -> Result<u64, RestoreError> {
    let unusable = |source| RestoreError::Records { version: backup.version.clone(), source };
    let cores = wanted.iter().filter(|(key, _)| is_cores(key));
    let cores = cores.map(|(key, value)| (key.clone(), value.clone())).collect();
    let there = store.get(Core::META).await?.map(|stored| stored.value);
    let now_s = clock::unix_ms() / 1_000;
    let (meta, generation) = Core::raised(cores, there.as_deref(), now_s).map_err(unusable)?;
    wanted.insert(Core::META.to_owned(), meta);
    Ok(generation)
}

/// Transactions that delete what is there and not wanted, and put what is.
fn batches(there: &[String], wanted: BTreeMap<String, Vec<u8>>) -> Vec<Transaction> {
    let gone = there.iter().filter(|key| !wanted.contains_key(*key)).cloned();
    let gone: Vec<_> = gone.map(|key| Operation::Delete { key }).collect();
    let puts = wanted.into_iter().map(|(key, value)| Operation::Put { key, value });
    let mut batches = vec![Transaction::default()];
    let mut bytes = 0;
    for operation in gone.into_iter().chain(puts) {
        let size = operation.key().len()
            + if let Operation::Put { value, .. } = &operation { value.len() } else { 0 };
        let last = batches.last_mut().expect("never empty");
        let fits = last.operations.len() < BATCH_OPERATIONS && bytes + size <= BATCH_BYTES;
        if fits || last.operations.is_empty() {
            bytes += size;
            last.operations.push(operation);
        } else {
            bytes = size;
            batches.push(Transaction { operations: vec![operation], ..Transaction::default() });
        }
    }
    if batches.len() > 1 {
        let mark = Operation::Put { key: RESTORING_KEY.to_owned(), value: Vec::new() };
        batches[0].operations.push(mark);
        let unmark = Operation::Delete { key: RESTORING_KEY.to_owned() };
        batches.last_mut().expect("more than one").operations.push(unmark);
    }
    batches
}

#[cfg(test)]
mod tests;
