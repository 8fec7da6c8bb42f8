//! Who leads: the start of a controller, and the task that stands for election for as long as
//! it runs.
//!
//! With a store in a file there is nobody else, and this controller leads from the start. With
//! one in etcd it follows first: it answers questions from what the store has, refuses changes
//! and switches, and stands for election. Elected, it reads the store once more; what an
//! earlier leader may still send there is refused from the election on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use selvedge_core::{Config, Core};
use selvedge_topology::Topology;
use tokio::task::JoinHandle;

use crate::api::problem::chain;
use crate::engine::{Handle, Input, Role};
use crate::run::RunError;
use crate::store::{
    ELECTION_KEY, EtcdStore, Leadership, Location, RedbStore, Store, StoreError, Transaction, Watch,
};

/// Pause before a store that does not answer is asked again.
const PAUSE: Duration = Duration::from_millis(200);
/// A follower reads the store again so long after a change, further ones included.
const GATHER: Duration = Duration::from_millis(100);
/// What is given to etcd to hear that the leader stops. If it does not, the lease ends later.
const RESIGNING: Duration = Duration::from_millis(250);

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
    records: &Records,
) -> Result<(Arc<dyn Store>, Start), RunError> {
    match location {
        Location::File(path) => {
            let store: Arc<dyn Store> = Arc::new(RedbStore::open(path)?);
            let led = store.campaign("").await?;
            let value = led.election_id().to_string().into_bytes();
            let kept = store.commit(Transaction::default().put(ELECTION_KEY, value.clone())).await;
            // A store that can be read is enough to serve; the next id is greater by the clock.
            let owed = match kept {
                Err(error) if error.is_retryable() => Some((value, error)),
                kept => kept.map(|_| None)?,
            };
            let role = Role::Leader { election_id: led.election_id() };
            let core = records.restore(store.as_ref()).await?;
            Ok((store, Start { core, role, owed }))
        }
        Location::Etcd { members, prefix } => {
            let store: Arc<dyn Store> = Arc::new(EtcdStore::new(members, prefix)?);
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
        let mut records = BTreeMap::new();
        for key in store.keys("").await? {
            let shell = ["controller/", "module/", "mec/"];
            let is_shells = shell.iter().any(|prefix| key.starts_with(prefix));
            if !is_shells && let Some(stored) = store.get(&key).await? {
                records.insert(key, stored.value);
            }
        }
        Core::restore(Topology::clone(&self.topology), Config::default(), records).map_err(
            |source| RunError::Restore { store: self.location.clone(), source: source.into() },
        )
    }
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
            () = changed(&mut watch) => {}
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
