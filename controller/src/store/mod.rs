//! What the controller must not forget.
//!
//! A flat, ordered map from text keys (`slice/factory-control`) to bytes. Every commit gets
//! the next *revision*, `1..`; a key remembers the revision that last wrote it. A commit is
//! all or nothing and is on disk before it is acknowledged. Leases stay inside
//! [`Store::campaign`], which is all that they are used for.

use std::io;
use std::path::PathBuf;

use futures::future::BoxFuture;
use tokio::sync::broadcast;

mod election;
mod etcd;
mod etcd_rpc;
mod etcd_tls;
mod location;
mod overlay;
mod redb;
pub use self::election::Leadership;
pub use self::etcd::EtcdStore;
pub use self::etcd_tls::{EtcdTls, EtcdTlsError};
pub use self::location::Location;
pub use self::redb::RedbStore;

/// Longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 512;
/// Largest value: a Wasm module of 8 MiB with what is said about it, encoded as text.
pub const MAX_VALUE_BYTES: usize = 16 << 20;
/// Most operations in one transaction.
pub const MAX_OPERATIONS: usize = 65_536;
/// Changes a watcher may fall behind before it is told to list again.
pub const WATCH_BACKLOG: usize = 1024;

/// The last election id that was used with this store, in decimal.
pub const ELECTION_KEY: &str = "controller/election";
/// There while the store holds a part of a backup: no controller takes it so.
pub const RESTORING_KEY: &str = "controller/restoring";

/// Number of a commit; `0` before the first.
pub type Revision = u64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    pub value: Vec<u8>,
    /// The commit that last wrote this key.
    pub revision: Revision,
}

/// What must hold for a transaction to be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// The key does not exist.
    Absent { key: String },
    /// The key was last written by this commit.
    At { key: String, revision: Revision },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    Put {
        key: String,
        value: Vec<u8>,
    },
    /// Of a key that does not exist: nothing.
    Delete {
        key: String,
    },
}

impl Operation {
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    pub preconditions: Vec<Precondition>,
    /// In order; a later operation on a key wins.
    pub operations: Vec<Operation>,
}

impl Transaction {
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.operations.push(Operation::Put { key: key.into(), value: value.into() });
        self
    }

    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.operations.push(Operation::Delete { key: key.into() });
        self
    }

    pub fn when(mut self, precondition: Precondition) -> Self {
        self.preconditions.push(precondition);
        self
    }
}

/// One key's change, as a watcher sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: String,
    /// `None`: deleted.
    pub value: Option<Vec<u8>>,
    pub revision: Revision,
}

/// Changes under a prefix, from the moment of the call on; those just before may be among them.
pub struct Watch {
    prefix: String,
    changes: broadcast::Receiver<Option<Change>>,
}

/// Why a watch has nothing to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The watcher fell more than [`WATCH_BACKLOG`] changes behind: list, then go on.
    #[error("{missed} changes were missed; list again")]
    Lagged { missed: u64 },
    /// The store has forgotten changes that were not told yet.
    #[error("changes were missed; list again")]
    Forgotten,
    #[error("the store is closed")]
    Closed,
}

impl Watch {
    /// The next change. Cancel-safe.
    pub async fn next(&mut self) -> Result<Change, WatchError> {
        loop {
            match self.changes.recv().await {
                Ok(Some(change)) if change.key.starts_with(&self.prefix) => return Ok(change),
                Ok(Some(_)) => {}
                Ok(None) => return Err(WatchError::Forgotten),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    return Err(WatchError::Lagged { missed });
                }
                Err(broadcast::error::RecvError::Closed) => return Err(WatchError::Closed),
            }
        }
    }
}

/// Why the store did not do what it was asked. Each names the file.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot open the store {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the store {} is in use by another controller", path.display())]
    InUse { path: PathBuf },
    #[error(
        "{} is not a store of Selvedge, or is damaged; restore it from a backup or name another file",
        path.display()
    )]
    Damaged {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error(
        "the store {} has format {found}, this program knows up to {supported}: it was written \
         by a newer Selvedge; run that one, or name another file",
        path.display()
    )]
    NewerFormat { path: PathBuf, found: u64, supported: u64 },
    /// Nothing of the transaction is in the store. The next one tries again from scratch.
    #[error("cannot write to the store {}; nothing was changed", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot read the store {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The key as it is: `None` if there is none.
    #[error("{key} in the store {} has been changed by somebody else", path.display())]
    Precondition { path: PathBuf, key: String, found: Option<Revision> },
    /// Whether a transaction was carried out is not known. If it was, the store's next commit
    /// finds that out, and this controller leads no more until it has read everything again.
    #[error("the store {} does not answer; whether it has what was sent is not known", path.display())]
    Unreachable {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another controller writes to this store, or none does yet.
    #[error("this controller does not lead; {}", leads(leader.as_deref()))]
    NotLeader { leader: Option<String> },
    #[error("{what} is {size}, the store takes at most {limit}")]
    Limit { what: &'static str, size: usize, limit: usize },
}

/// Who leads, in words.
pub(crate) fn leads(leader: Option<&str>) -> String {
    match leader {
        Some(leader) => format!("{leader} does"),
        None => "no controller does at this moment".to_owned(),
    }
}

impl StoreError {
    /// Whether the same transaction may succeed later without anybody changing it.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Write { .. }
            | Self::Read { .. }
            | Self::Open { .. }
            | Self::Unreachable { .. } => true,
            Self::InUse { .. }
            | Self::Damaged { .. }
            | Self::NewerFormat { .. }
            | Self::Precondition { .. }
            | Self::NotLeader { .. }
            | Self::Limit { .. } => false,
        }
    }

    /// Whether it says that the file cannot be written, so that it may yet be read: a disk that is
    /// full or read-only, or a file that is not ours to write.
    pub(crate) fn is_unwritable(&self) -> bool {
        let denied = |error: &io::Error| {
            matches!(
                error.kind(),
                io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
                    | io::ErrorKind::ReadOnlyFilesystem
                    | io::ErrorKind::PermissionDenied
            )
        };
        match self {
            Self::Open { source, .. } => denied(source),
            Self::Write { source, .. } => source.downcast_ref::<io::Error>().is_some_and(denied),
            _ => false,
        }
    }
}

/// Implemented by the embedded [`RedbStore`] for one controller, and by [`EtcdStore`] for several.
pub trait Store: Send + Sync + 'static {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Versioned>, StoreError>>;

    /// Every key that starts with `prefix`, in order of keys.
    fn list<'a>(
        &'a self,
        prefix: &'a str,
    ) -> BoxFuture<'a, Result<Vec<(String, Versioned)>, StoreError>>;

    /// As [`list`](Self::list), the keys alone.
    fn keys<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>, StoreError>>;

    /// Carries out all of it or nothing; returns when it is on disk.
    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Revision, StoreError>>;

    fn watch(&self, prefix: &str) -> Watch;

    /// Stands for election under `name`, which is how others tell their clients who leads;
    /// ready when elected. From the call on, [`commit`](Self::commit) is refused unless and
    /// while this store's holder leads.
    fn campaign<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Leadership, StoreError>>;

    /// The name of who leads, as last heard.
    fn leader(&self) -> Option<String>;
}
