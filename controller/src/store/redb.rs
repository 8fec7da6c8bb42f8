//! The store in one file, by redb.
//!
//! redb refuses everything after its first failed write, so that a half-written page is
//! never read back. The file itself is whole: it has two commit slots. So after a failure
//! the database is closed, and the next call opens it again; that is how a full disk that
//! has room again, or a file system that is writable again, is noticed.
//!
//! A file that is whole and can only be read, because its disk is full or read-only, is opened
//! for reading (`overlay.rs`); each commit tries to open it for writing first.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use redb::backends::FileBackend;
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError,
    TableDefinition,
};
use tokio::sync::broadcast;

use super::overlay::Overlay;
use super::{
    Change, MAX_KEY_BYTES, MAX_OPERATIONS, MAX_VALUE_BYTES, Operation, Precondition, Revision,
    Store, StoreError, Transaction, Versioned, WATCH_BACKLOG, Watch,
};
use super::{ELECTION_KEY, Leadership};
use crate::clock;

/// Layout of the tables below. Raised when an older program would misread them.
const FORMAT: u64 = 1;
/// Memory redb may use for pages, in bytes.
const CACHE_BYTES: usize = 64 << 20;

/// `format` and `revision`.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Key to (revision of its last write, value).
const OBJECTS: TableDefinition<&str, (u64, &[u8])> = TableDefinition::new("objects");

type Source = Box<dyn std::error::Error + Send + Sync>;

/// The embedded store: one file, one controller.
#[derive(Clone)]
pub struct RedbStore {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    /// `None` after a failure, until it could be opened again.
    database: Mutex<Option<Opened>>,
    changes: broadcast::Sender<Option<Change>>,
}

struct Opened {
    database: Database,
    /// Nothing that is committed would reach the file.
    read_only: bool,
}

impl RedbStore {
    /// Opens the store, or makes it (mode 0600). Blocks for as long as the file is read. A store
    /// that can be read and not written is opened too: its commits fail until it can.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another process has it open, [`StoreError::NewerFormat`] if
    /// a newer program wrote it, [`StoreError::Damaged`] if it is something else.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        let database = open(&path).or_else(|refused| open_to_read(&path, refused))?;
        let (changes, _) = broadcast::channel(WATCH_BACKLOG);
        Ok(Self { inner: Arc::new(Inner { path, database: Mutex::new(Some(database)), changes }) })
    }

    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(result) => result,
            Err(failed) => {
                Err(StoreError::Read { path: self.inner.path.clone(), source: failed.into() })
            }
        }
    }
}

impl Store for RedbStore {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Versioned>, StoreError>> {
        let key = key.to_owned();
        Box::pin(self.blocking(move |inner| inner.read(|database| get(database, &key))))
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
    ) -> BoxFuture<'a, Result<Vec<(String, Versioned)>, StoreError>> {
        let prefix = prefix.to_owned();
        let take = |key: &str, (revision, bytes): (Revision, &[u8])| {
            (key.to_owned(), Versioned { value: bytes.to_vec(), revision })
        };
        Box::pin(self.blocking(move |inner| inner.read(|database| rows(database, &prefix, take))))
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
        let prefix = prefix.to_owned();
        let take = |key: &str, _: (Revision, &[u8])| key.to_owned();
        Box::pin(self.blocking(move |inner| inner.read(|database| rows(database, &prefix, take))))
    }

    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Revision, StoreError>> {
        Box::pin(async move {
            check_limits(&transaction)?;
            self.blocking(move |inner| inner.commit(transaction)).await
        })
    }

    fn watch(&self, prefix: &str) -> Watch {
        Watch { prefix: prefix.to_owned(), changes: self.inner.changes.subscribe() }
    }

    /// Whoever has the file open leads. The id is greater than any before: the store's plus
    /// one, or the time in seconds where that is more, so that a store that is restored from a
    /// backup does not fall behind. The caller commits it under [`ELECTION_KEY`].
    fn campaign<'a>(&'a self, _name: &'a str) -> BoxFuture<'a, Result<Leadership, StoreError>> {
        Box::pin(async {
            let last = self
                .get(ELECTION_KEY)
                .await?
                .and_then(|stored| String::from_utf8(stored.value).ok()?.parse::<u128>().ok());
            let now_s = u128::from(clock::unix_ms() / 1_000);
            let next = last.map_or(1, |last| last.saturating_add(1)).max(now_s);
            Ok(Leadership::for_ever(next))
        })
    }

    fn leader(&self) -> Option<String> {
        None
    }
}

impl Inner {
    /// Runs `work` on the open database, opening it again first if it was closed. Who is going
    /// to write is given one that can be written.
    fn with<T>(
        &self,
        writing: bool,
        work: impl FnOnce(&Database) -> Result<T, Failure>,
    ) -> Result<Result<T, Failure>, StoreError> {
        // A panic under the lock leaves an `Option` that is whole either way.
        let mut slot = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = match slot.take().filter(|opened| !(writing && opened.read_only)) {
            Some(opened) => opened,
            None if writing => open(&self.path)?,
            None => open(&self.path).or_else(|refused| open_to_read(&self.path, refused))?,
        };
        let result = work(&opened.database);
        if !matches!(result, Err(Failure::Storage(_))) {
            *slot = Some(opened);
        }
        Ok(result)
    }

    fn read<T>(&self, work: impl Fn(&Database) -> Result<T, Failure>) -> Result<T, StoreError> {
        match self.with(false, work)? {
            Ok(value) => Ok(value),
            Err(failure) => Err(failure.reading(&self.path)),
        }
    }

    fn commit(&self, transaction: Transaction) -> Result<Revision, StoreError> {
        let mut attempted = None;
        let result = self
            .with(true, |database| commit(database, &transaction, &mut attempted))
            .map_err(|closed| self.unwritable(closed))?;
        let revision = match result {
            Ok(revision) => revision,
            Err(failure @ Failure::Storage(_)) => {
                // The last step of a commit can fail after it took effect (an fsync that
                // reports an older error). What the file says now is what counts.
                let landed = attempted
                    .is_some_and(|wanted| self.read(revision).is_ok_and(|found| found == wanted));
                match attempted {
                    Some(revision) if landed => revision,
                    _ => return Err(failure.writing(&self.path)),
                }
            }
            Err(failure) => return Err(failure.writing(&self.path)),
        };
        for operation in transaction.operations {
            let (key, value) = match operation {
                Operation::Put { key, value } => (key, Some(value)),
                Operation::Delete { key } => (key, None),
            };
            // Without a watcher the change is nobody's to miss.
            drop(self.changes.send(Some(Change { key, value, revision })));
        }
        Ok(revision)
    }

    /// For the writer, a store that cannot be opened again is one that cannot be written.
    fn unwritable(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Open { path, source } => StoreError::Write { path, source: source.into() },
            other => other,
        }
    }
}

/// What went wrong inside: of the file (the database is closed), or of the request.
enum Failure {
    Storage(Source),
    Precondition { key: String, found: Option<Revision> },
}

impl Failure {
    fn reading(self, path: &Path) -> StoreError {
        match self {
            Self::Storage(source) => StoreError::Read { path: path.to_owned(), source },
            other => other.writing(path),
        }
    }

    fn writing(self, path: &Path) -> StoreError {
        let path = path.to_owned();
        match self {
            Self::Storage(source) => StoreError::Write { path, source },
            Self::Precondition { key, found } => StoreError::Precondition { path, key, found },
        }
    }
}

/// Any error of redb. Its own chain ends in the error of the operating system.
fn storage(error: impl Into<redb::Error>) -> Failure {
    Failure::Storage(match error.into() {
        redb::Error::Io(error) => error.into(),
        error => error.into(),
    })
}

fn get(database: &Database, key: &str) -> Result<Option<Versioned>, Failure> {
    let transaction = database.begin_read().map_err(storage)?;
    let objects = transaction.open_table(OBJECTS).map_err(storage)?;
    let found = objects.get(key).map_err(storage)?;
    Ok(found.map(|guard| {
        let (revision, value) = guard.value();
        Versioned { value: value.to_vec(), revision }
    }))
}

fn rows<T>(
    database: &Database,
    prefix: &str,
    take: impl Fn(&str, (Revision, &[u8])) -> T,
) -> Result<Vec<T>, Failure> {
    let transaction = database.begin_read().map_err(storage)?;
    let objects = transaction.open_table(OBJECTS).map_err(storage)?;
    let mut found = Vec::new();
    for row in objects.range(prefix..).map_err(storage)? {
        let (key, value) = row.map_err(storage)?;
        if !key.value().starts_with(prefix) {
            break;
        }
        found.push(take(key.value(), value.value()));
    }
    Ok(found)
}

fn revision(database: &Database) -> Result<Revision, Failure> {
    let transaction = database.begin_read().map_err(storage)?;
    let meta = transaction.open_table(META).map_err(storage)?;
    let revision = meta.get("revision").map_err(storage)?;
    Ok(revision.map_or(0, |guard| guard.value()))
}

/// Sets `attempted` to the revision it is about to make durable.
fn commit(
    database: &Database,
    wanted: &Transaction,
    attempted: &mut Option<Revision>,
) -> Result<Revision, Failure> {
    let transaction = database.begin_write().map_err(storage)?;
    let revision = {
        let mut meta = transaction.open_table(META).map_err(storage)?;
        let mut objects = transaction.open_table(OBJECTS).map_err(storage)?;
        for precondition in &wanted.preconditions {
            let (key, needed) = match precondition {
                Precondition::Absent { key } => (key, None),
                Precondition::At { key, revision } => (key, Some(*revision)),
            };
            let found = objects.get(key.as_str()).map_err(storage)?.map(|row| row.value().0);
            if found != needed {
                // Dropping the transaction aborts it.
                return Err(Failure::Precondition { key: key.clone(), found });
            }
        }
        let last = meta.get("revision").map_err(storage)?.map_or(0, |row| row.value());
        let revision = last + 1;
        for operation in &wanted.operations {
            match operation {
                Operation::Put { key, value } => {
                    objects.insert(key.as_str(), (revision, value.as_slice())).map_err(storage)?;
                }
                Operation::Delete { key } => {
                    objects.remove(key.as_str()).map_err(storage)?;
                }
            }
        }
        meta.insert("revision", revision).map_err(storage)?;
        revision
    };
    *attempted = Some(revision);
    transaction.commit().map_err(storage)?;
    Ok(revision)
}

pub(super) fn check_limits(transaction: &Transaction) -> Result<(), StoreError> {
    let operations = transaction.operations.len();
    if operations > MAX_OPERATIONS {
        let what = "the number of operations";
        return Err(StoreError::Limit { what, size: operations, limit: MAX_OPERATIONS });
    }
    for operation in &transaction.operations {
        let size = operation.key().len();
        if size > MAX_KEY_BYTES {
            return Err(StoreError::Limit { what: "a key's length", size, limit: MAX_KEY_BYTES });
        }
        if let Operation::Put { value, .. } = operation
            && value.len() > MAX_VALUE_BYTES
        {
            let (what, size) = ("a value's length", value.len());
            return Err(StoreError::Limit { what, size, limit: MAX_VALUE_BYTES });
        }
    }
    Ok(())
}

fn open(path: &Path) -> Result<Opened, StoreError> {
    let open_error = |source| StoreError::Open { path: path.to_owned(), source };
    let existed = path.exists();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(open_error)?;
    if !existed {
        sync_parent(path).map_err(open_error)?;
    }
    let database = FileBackend::new(file)
        .and_then(|backend| Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend))
        .map_err(|error| unopened(path, error))?;
    match format(path, &database)? {
        Some(_) => {}
        None => create_tables(&database).map_err(|failure| failure.writing(path))?,
    }
    Ok(Opened { database, read_only: false })
}

/// Opens a store that could not be opened to be written, if that is because it cannot be
/// written; else the error is the one of before. Neither a new store nor an empty file is one
/// that can be read.
fn open_to_read(path: &Path, refused: StoreError) -> Result<Opened, StoreError> {
    if !refused.is_unwritable() {
        return Err(refused);
    }
    let Ok(file) = File::open(path) else { return Err(refused) };
    // Held against writers, who take the same lock, and against others like us.
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(_)) => return Err(refused),
    }
    let overlay =
        Overlay::new(file).map_err(|source| StoreError::Open { path: path.to_owned(), source })?;
    if overlay.is_empty() {
        return Err(refused);
    }
    let database = Builder::new()
        .set_cache_size(CACHE_BYTES)
        .create_with_backend(overlay)
        .map_err(|error| unopened(path, error))?;
    match format(path, &database)? {
        Some(_) => Ok(Opened { database, read_only: true }),
        None => Err(refused),
    }
}

fn unopened(path: &Path, error: DatabaseError) -> StoreError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            StoreError::InUse { path }
        }
        DatabaseError::Storage(StorageError::Io(source))
            if source.kind() != io::ErrorKind::InvalidData
                && source.kind() != io::ErrorKind::UnexpectedEof =>
        {
            StoreError::Open { path, source }
        }
        other => StoreError::Damaged { path, source: other.into() },
    }
}

/// A new file's name is durable once its directory is.
fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// The format of a store; `None`: it has no tables yet. Refuses that of a newer program.
fn format(path: &Path, database: &Database) -> Result<Option<u64>, StoreError> {
    let transaction = database.begin_read().map_err(|e| storage(e).reading(path))?;
    let found = match transaction.open_table(META) {
        Ok(meta) => meta
            .get("format")
            .map_err(|error| storage(error).reading(path))?
            .map(|format| format.value()),
        Err(redb::TableError::TableDoesNotExist(_)) => None,
        Err(error) => {
            return Err(StoreError::Damaged { path: path.to_owned(), source: error.into() });
        }
    };
    match found {
        Some(found) if found > FORMAT => {
            Err(StoreError::NewerFormat { path: path.to_owned(), found, supported: FORMAT })
        }
        found => Ok(found),
    }
}

fn create_tables(database: &Database) -> Result<(), Failure> {
    let transaction = database.begin_write().map_err(storage)?;
    transaction.open_table(META).map_err(storage)?.insert("format", FORMAT).map_err(storage)?;
    transaction.open_table(OBJECTS).map_err(storage)?;
    transaction.commit().map_err(storage)
}

#[cfg(test)]
#[path = "redb_tests.rs"]
mod tests;
