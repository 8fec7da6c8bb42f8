//! Who leads: the start of a controller, and the task that stands for election for as long as
//! it runs.
//!
//! With a store in a file there is nobody else, and this controller leads from the start. With
//! one in etcd it follows first: it answers questions from what the store has, refuses changes
//! and switches, and stands for election. Elected, it reads the store once more; what an
//! earlier leader may still send there is refused from the election on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use selvedge_core::{Config, Core};
use selvedge_topology::Topology;
use tokio::task::JoinHandle;

use crate::api::problem::chain;
use crate::engine::{Handle, Input, Role};
use crate::run::RunError;
use crate::store::{
    ELECTION_KEY, EtcdStore, EtcdTls, Leadership, Location, RESTORING_KEY, RedbStore, Store,
    StoreError, Transaction, Watch,
};

/// Pause before a store that does not answer is asked again.
const PAUSE: Duration = Duration::from_millis(200);
/// A follower reads the store again so long after a change, further ones included.
const GATHER: Duration = Duration::from_millis(100);
/// What is given to etcd to hear that the leader stops. If it does not, the lease ends later.
pub(crate) const RESIGNING: Duration = Duration::from_millis(250);

/// How the records of a store become a core.
pub(crate) struct Records {
    pub(crate) topology: Arc<Topology>,
    pub(crate) location: Location,
}

/// What an engine starts with.
pub(crate) struct Start {
    pub(crate) core: Core,
    pub(crate) role: Role,
    /// The election id's record, where the store did not take it, and why.
    pub(crate) owed: Option<(Vec<u8>, StoreError)>,
}

/// Opens the store. One in etcd is waited for.
pub(crate) async fn begin(
    location: &Location,
    tls: Option<&EtcdTls>,
    records: &Records,
) -> Result<(Arc<dyn Store>, Start), RunError> {
    match location {
        Location::File(path) => {
            let store: Arc<dyn Store> = Arc::new(RedbStore::open(path)?);
            let led = store.campaign("").await?;
            let value = led.election_id().to_string().into_bytes();
            let kept = keep_id(store.as_ref(), value.clone()).await;
            // A store that can be read is enough to serve; the next id is greater by the clock.
            let owed = match kept {
                Err(error) if error.is_retryable() => Some((value, error)),
                kept => kept.map(|()| None)?,
            };
            let role = Role::Leader { election_id: led.election_id() };
            let core = records.restore(store.as_ref()).await?;
            Ok((store, Start { core, role, owed }))
        }
        Location::Etcd { members, prefix } => {
            let store: Arc<dyn Store> = Arc::new(EtcdStore::follower(members, prefix, tls)?);
            let core = loop {
                match records.restore(store.as_ref()).await {
                    Err(RunError::Store(error)) if error.is_retryable() => {
                        tracing::warn!(error = chain(&error), "the store is waited for");
                        tokio::time::sleep(5 * PAUSE).await;
                    }
                    restored => break restored?,
                }
            };
            let role = Role::Follower { leader: None };
            Ok((store, Start { core, role, owed: None }))
        }
    }
}

impl Records {
    /// The core as the store has it. Keys of ours that are not the core's are left out.
    async fn restore(&self, store: &dyn Store) -> Result<Core, RunError> {
        let keys = store.keys("").await?;
        if keys.iter().any(|key| key == RESTORING_KEY) {
            return Err(RunError::HalfRestored { store: self.location.clone() });
        }
        // One by one they would be as many questions as there are records.
        let kind = |key: &String| match key.split_once('/') {
            Some((kind, _)) => format!("{kind}/"),
            None => key.clone(),
        };
        let kinds: BTreeSet<String> = keys.iter().filter(|key| is_cores(key)).map(kind).collect();
        let mut records = BTreeMap::new();
        for kind in kinds {
            let rows = store.list(&kind).await?.into_iter().filter(|(key, _)| is_cores(key));
            records.extend(rows.map(|(key, stored)| (key, stored.value)));
        }
        Core::restore(Topology::clone(&self.topology), Config::default(), records).map_err(
            |source| RunError::Restore { store: self.location.clone(), source: source.into() },
        )
    }
}

/// Whether a key of the store is a record of the core's: not a module, say.
pub(crate) fn is_cores(key: &str) -> bool {
    !["controller/", "module/", "mec/"].iter().any(|prefix| key.starts_with(prefix))
}

/// For a store in a file, which has no other number to count on from; and so for a backup that is
/// restored to one.
async fn keep_id(store: &dyn Store, id: Vec<u8>) -> Result<(), StoreError> {
    store.commit(Transaction::default().put(ELECTION_KEY, id)).await.map(drop)
}

/// Follows, leads, follows again; ends with the engine.
pub(crate) async fn stand_for_ever(
    store: Arc<dyn Store>,
    handle: Handle,
    records: Records,
    name: String,
) {
    loop {
        let Some(mut led) = follow(store.as_ref(), &handle, &records, &name).await else { return };
        let election_id = led.election_id();
        let core = match records.restore(store.as_ref()).await {
            Ok(core) => Some(Box::new(core)),
            Err(error) => {
                tracing::error!(error = chain(&error), "elected, but the store cannot be read");
                drop(led);
                tokio::time::sleep(5 * PAUSE).await;
                continue;
            }
        };
        tracing::info!(election_id, "this controller leads");
        if let Err(error) = keep_id(store.as_ref(), election_id.to_string().into_bytes()).await {
            tracing::debug!(error = chain(&error), "the election id is not kept");
        }
        if handle.send(Input::Role { core, role: Role::Leader { election_id } }).await.is_err() {
            return;
        }
        led.lost().await;
        tracing::warn!(election_id, "this controller leads no more");
        let role = Role::Follower { leader: store.leader() };
        if handle.send(Input::Role { core: None, role }).await.is_err() {
            return;
        }
    }
}

/// Keeps the core as the store has it until elected. `None`: the engine has ended.
async fn follow(
    store: &dyn Store,
    handle: &Handle,
    records: &Records,
    name: &str,
) -> Option<Leadership> {
    let mut watch = store.watch("");
    let mut campaign = store.campaign(name);
    // What changed before the watch, and what one that led before thinks that it knows.
    let mut due = true;
    loop {
        tokio::select! {
            elected = &mut campaign => match elected {
                Ok(led) => return Some(led),
                Err(error) => {
                    tracing::debug!(error = chain(&error), "cannot stand for election");
                    tokio::time::sleep(PAUSE).await;
                    campaign = store.campaign(name);
                    continue;
                }
            },
            () = changed(&mut watch), if !due => {}
            () = std::future::ready(()), if due => {}
        }
        let restored = tokio::select! {
            restored = records.restore(store) => restored,
            elected = &mut campaign => match elected {
                Ok(led) => return Some(led),
                Err(_) => {
                    campaign = store.campaign(name);
                    continue;
                }
            },
        };
        due = false;
        match restored {
            Ok(core) => {
                let role = Role::Follower { leader: store.leader() };
                handle.send(Input::Role { core: Some(Box::new(core)), role }).await.ok()?;
            }
            Err(error) => tracing::debug!(error = chain(&error), "the store cannot be read"),
        }
    }
}

/// Ready a little after something in the store has changed.
async fn changed(watch: &mut Watch) {
    drop(watch.next().await);
    let gather = async { while watch.next().await.is_ok() {} };
    drop(tokio::time::timeout(GATHER, gather).await);
}

/// Ends the task, and so the leadership, at once: the next leader need not wait for the lease.
pub(crate) async fn resign(candidate: JoinHandle<()>) {
    candidate.abort();
    drop(candidate.await);
    // The lease is revoked by a task of its own.
    tokio::time::sleep(RESIGNING).await;
}
