//! The store in an etcd cluster (API v3), for several controllers.
//!
//! Ours there, under a prefix: `data/KEY`; `election`, there while somebody leads, bound to
//! its lease; `marker`, which every commit writes; `epoch`, when this cluster was first used.
//!
//! Two things are compared in each commit besides the caller's preconditions. That the
//! election's key is still the one we created: a leader that slept through its lease writes
//! nothing. And that the marker is as we last saw it: a transaction is tried again until
//! somebody answers, and is carried out once, because the first one to get through changes the
//! marker under the others.
//!
//! etcd must take what we send: `--max-txn-ops 65536 --max-request-bytes 33554432`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{Mutex as AsyncMutex, broadcast, mpsc, watch};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::etcd_rpc::proto::etcdserverpb as pb;
use super::etcd_rpc::proto::mvccpb;
use super::etcd_rpc::{CALL_TIMEOUT, COMMIT_TIMEOUT, Members};
use super::redb::check_limits;
use super::{
    Change, EtcdTls, Leadership, Operation, Precondition, Revision, Store, StoreError, Transaction,
    Versioned, WATCH_BACKLOG, Watch,
};
use crate::clock;

/// How long a leader that says nothing still leads: etcd's least with its default timers.
const LEASE_S: i64 = 2;
const RENEW: Duration = Duration::from_millis(500);
/// Between two looks at who leads.
const LOOK: Duration = Duration::from_millis(100);
/// For one commit, all attempts together.
const COMMIT_PATIENCE: Duration = Duration::from_secs(4);
/// Pause before a member that refused the connection is asked again.
const PAUSE: Duration = Duration::from_millis(50);
/// Commits whose outcome is not known; the oldest is forgotten first.
const UNCERTAIN: usize = 1024;

/// A handle on the cluster. Clones share the leadership.
#[derive(Clone)]
pub struct EtcdStore {
    inner: Arc<Inner>,
}

/// Whether this holder may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It has never stood for election: anybody may write.
    Free,
    Follows,
    /// The revision that created the election's key.
    Leads(i64),
}

struct Inner {
    /// As in errors.
    name: PathBuf,
    prefix: String,
    members: Members,
    standing: watch::Sender<Standing>,
    leader: Mutex<Option<String>>,
    changes: broadcast::Sender<Option<Change>>,
    /// One commit at a time.
    commits: AsyncMutex<Commits>,
    /// Distinguishes this process's commits from all others.
    nonce: u64,
}

#[derive(Default)]
struct Commits {
    /// Of the marker, as last seen; 0 if it is not there, `None` if nobody has looked.
    marker: Option<i64>,
    number: u64,
    /// Numbers of commits that were not answered.
    uncertain: Vec<u64>,
}

/// What one attempt came to.
enum Attempt {
    Done(Revision),
    Refused(StoreError),
    /// The marker has moved on: try again.
    Moved,
}

impl EtcdStore {
    /// Dials nobody yet. Inside a tokio runtime.
    ///
    /// # Errors
    /// [`StoreError::Open`] where `members`, `HOST:PORT` each, are no addresses.
    pub fn new(
        members: &[String],
        prefix: &str,
        tls: Option<&EtcdTls>,
    ) -> Result<Self, StoreError> {
        Self::standing(members, prefix, tls, Standing::Free)
    }

    /// As [`new`](Self::new); commits are refused from the start, until it has been elected.
    pub(crate) fn follower(
        members: &[String],
        prefix: &str,
        tls: Option<&EtcdTls>,
    ) -> Result<Self, StoreError> {
        Self::standing(members, prefix, tls, Standing::Follows)
    }

    fn standing(
        members: &[String],
        prefix: &str,
        tls: Option<&EtcdTls>,
        standing: Standing,
    ) -> Result<Self, StoreError> {
        let name = PathBuf::from(format!("etcd://{}/{prefix}", members.join(",")));
        let open =
            |error| StoreError::Open { path: name.clone(), source: std::io::Error::other(error) };
        let inner = Inner {
            members: Members::new(members, tls).map_err(open)?,
            name: name.clone(),
            prefix: prefix.to_owned(),
            standing: watch::channel(standing).0,
            leader: Mutex::default(),
            changes: broadcast::channel(WATCH_BACKLOG).0,
            commits: AsyncMutex::default(),
            nonce: nonce(),
        };
        let inner = Arc::new(inner);
        tokio::spawn(follow(Arc::downgrade(&inner)));
        Ok(Self { inner })
    }
}

/// A number that no other process has, as good as certainly.
fn nonce() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_u64(clock::unix_ms());
    hasher.write_u32(std::process::id());
    hasher.write_u64(COUNT.fetch_add(1, Ordering::Relaxed));
    hasher.finish()
}

impl Store for EtcdStore {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Versioned>, StoreError>> {
        Box::pin(async move {
            let request = pb::RangeRequest { key: self.inner.data(key), ..Default::default() };
            let found = self.inner.range(request).await?.kvs.into_iter().next();
            Ok(found.map(versioned))
        })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
    ) -> BoxFuture<'a, Result<Vec<(String, Versioned)>, StoreError>> {
        Box::pin(async move {
            let rows = self.inner.rows(prefix, false).await?;
            Ok(rows.into_iter().map(|(key, row)| (key, versioned(row))).collect())
        })
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
        Box::pin(async move {
            let rows = self.inner.rows(prefix, true).await?;
            Ok(rows.into_iter().map(|(key, _)| key).collect())
        })
    }

    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Revision, StoreError>> {
        Box::pin(async move {
            check_limits(&transaction)?;
            // A task of its own: a caller that gives up leaves nothing half known.
            let inner = Arc::clone(&self.inner);
            match tokio::spawn(async move { inner.commit(transaction).await }).await {
                Ok(result) => result,
                Err(failed) => Err(StoreError::Unreachable {
                    path: self.inner.name.clone(),
                    source: failed.into(),
                }),
            }
        })
    }

    fn watch(&self, prefix: &str) -> Watch {
        Watch { prefix: prefix.to_owned(), changes: self.inner.changes.subscribe() }
    }

    fn campaign<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Leadership, StoreError>> {
        Box::pin(async move {
            self.inner.standing.send_replace(Standing::Follows);
            let epoch = self.inner.epoch().await?;
            loop {
                if let Some((lease, revision)) = self.inner.stand(name).await? {
                    return Ok(lead(&self.inner, epoch, lease, revision));
                }
                tokio::time::sleep(LOOK).await;
            }
        })
    }

    fn leader(&self) -> Option<String> {
        self.inner.leader.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn versioned(row: mvccpb::KeyValue) -> Versioned {
    Versioned { value: row.value, revision: revision(row.mod_revision) }
}

fn revision(of_etcd: i64) -> Revision {
    Revision::try_from(of_etcd).unwrap_or_default()
}

fn of_etcd(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// The first key after all that begin with `prefix`.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    // Ours are text and not empty: the last byte is less than 0xff.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

impl Inner {
    fn own(&self, key: &str) -> Vec<u8> {
        format!("{}/{key}", self.prefix).into_bytes()
    }

    fn data(&self, key: &str) -> Vec<u8> {
        self.own(&format!("data/{key}"))
    }

    /// The key as callers know it.
    fn key(&self, of_etcd: &[u8]) -> Option<String> {
        let text = std::str::from_utf8(of_etcd).ok()?;
        text.strip_prefix(&self.prefix)?.strip_prefix("/data/").map(str::to_owned)
    }

    fn unreadable(&self, status: Status) -> StoreError {
        StoreError::Read { path: self.name.clone(), source: said(&status).into() }
    }

    async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, StoreError> {
        self.members.range(request).await.map_err(|status| self.unreadable(status))
    }

    async fn rows(
        &self,
        prefix: &str,
        keys_only: bool,
    ) -> Result<Vec<(String, mvccpb::KeyValue)>, StoreError> {
        let key = self.data(prefix);
        let request = pb::RangeRequest { range_end: end_of(&key), key, keys_only };
        let rows = self.range(request).await?.kvs.into_iter();
        Ok(rows.filter_map(|row| Some((self.key(&row.key)?, row))).collect())
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, StoreError> {
        let mut commits = self.commits.lock().await;
        commits.number += 1;
        let number = commits.number;
        let deadline = Instant::now() + COMMIT_PATIENCE;
        let mut sent = false;
        loop {
            let failed = match self.attempt(&mut commits, number, &transaction, &mut sent).await {
                Ok(Attempt::Done(revision)) => return Ok(revision),
                Ok(Attempt::Refused(error)) => return Err(error),
                Ok(Attempt::Moved) => None,
                Err(status) => Some(status),
            };
            let Some(status) = failed else { continue };
            if let Some(error) = self.definite(&status, &transaction) {
                return Err(error);
            }
            if Instant::now() > deadline {
                let (path, source) = (self.name.clone(), said(&status).into());
                if !sent {
                    return Err(StoreError::Write { path, source });
                }
                if commits.uncertain.len() == UNCERTAIN {
                    commits.uncertain.remove(0);
                }
                commits.uncertain.push(number);
                return Err(StoreError::Unreachable { path, source });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Refusals after which nothing of the transaction is in the store.
    fn definite(&self, status: &Status, transaction: &Transaction) -> Option<StoreError> {
        let (path, source) = (self.name.clone(), said(status).into());
        match status.code() {
            // etcd's own words for a database that is full.
            Code::ResourceExhausted => Some(StoreError::Write { path, source }),
            Code::InvalidArgument | Code::OutOfRange => {
                tracing::error!(
                    operations = transaction.operations.len(),
                    error = said(status),
                    "etcd takes less than it has to; see docs/several-controllers.md"
                );
                Some(StoreError::Write { path, source })
            }
            Code::PermissionDenied | Code::Unauthenticated => {
                Some(StoreError::Write { path, source })
            }
            _ => None,
        }
    }

    async fn attempt(
        &self,
        commits: &mut Commits,
        number: u64,
        transaction: &Transaction,
        sent: &mut bool,
    ) -> Result<Attempt, Status> {
        let standing = *self.standing.borrow();
        if standing == Standing::Follows {
            return Ok(Attempt::Refused(self.not_leader()));
        }
        let marker = self.own("marker");
        let seen = match commits.marker {
            Some(seen) => seen,
            None => {
                let request = pb::RangeRequest { key: marker.clone(), ..Default::default() };
                let found = self.members.range(request).await?.kvs.into_iter().next();
                *commits.marker.insert(found.map_or(0, |row| row.mod_revision))
            }
        };
        let request = self.request(standing, number, seen, transaction);
        *sent = true;
        let answer = self.members.txn(COMMIT_TIMEOUT, &request).await?;
        if answer.succeeded {
            let now = answer.header.unwrap_or_default().revision;
            commits.marker = Some(now);
            return Ok(Attempt::Done(revision(now)));
        }
        Ok(self.refused(commits, number, seen, standing, transaction, answer))
    }

    fn request(
        &self,
        standing: Standing,
        number: u64,
        seen: i64,
        transaction: &Transaction,
    ) -> pb::TxnRequest {
        let (marker, election) = (self.own("marker"), self.own("election"));
        let mut compare = vec![modified(marker.clone(), seen)];
        let mut failure = vec![read(marker.clone()), read(election.clone())];
        if let Standing::Leads(created) = standing {
            compare.push(created_at(election, created));
        }
        for precondition in &transaction.preconditions {
            let (key, needed) = match precondition {
                Precondition::Absent { key } => (self.data(key), 0),
                Precondition::At { key, revision } => (self.data(key), of_etcd(*revision)),
            };
            compare.push(modified(key.clone(), needed));
            failure.push(read(key));
        }
        // etcd takes a key once in a transaction; the last operation on it wins.
        let mut last: BTreeMap<&str, &Operation> = BTreeMap::new();
        for operation in &transaction.operations {
            last.insert(operation.key(), operation);
        }
        let written = last.into_values().map(|operation| match operation {
            Operation::Put { key, value } => put(self.data(key), value.clone(), 0),
            Operation::Delete { key } => delete(self.data(key)),
        });
        let mark = put(marker, format!("{:016x}-{number}", self.nonce).into_bytes(), 0);
        pb::TxnRequest { compare, success: written.chain([mark]).collect(), failure }
    }

    /// Which of the comparisons failed.
    fn refused(
        &self,
        commits: &mut Commits,
        number: u64,
        seen: i64,
        standing: Standing,
        transaction: &Transaction,
        answer: pb::TxnResponse,
    ) -> Attempt {
        let mut found = answer.responses.into_iter().map(|response| match response.response {
            Some(pb::response_op::Response::ResponseRange(range)) => range.kvs.into_iter().next(),
            _ => None,
        });
        let marker = found.next().flatten().unwrap_or_default();
        let election = found.next().flatten();
        if marker.mod_revision != seen {
            commits.marker = Some(marker.mod_revision);
            match self.own_number(&marker.value) {
                Some(own) if own == number => return Attempt::Done(revision(marker.mod_revision)),
                Some(own) if commits.uncertain.contains(&own) => {
                    tracing::warn!("what was not acknowledged is in the store; it is read again");
                    commits.uncertain.clear();
                    if standing != Standing::Free {
                        self.step_down();
                        return Attempt::Refused(self.not_leader());
                    }
                }
                _ => {}
            }
            return Attempt::Moved;
        }
        if let Standing::Leads(created) = standing
            && election.as_ref().is_none_or(|row| row.create_revision != created)
        {
            self.heard(election.map(|row| row.value));
            self.step_down();
            return Attempt::Refused(self.not_leader());
        }
        for (precondition, row) in transaction.preconditions.iter().zip(found) {
            let found = row.map(|row| revision(row.mod_revision));
            let (key, holds) = match precondition {
                Precondition::Absent { key } => (key, found.is_none()),
                Precondition::At { key, revision } => (key, found == Some(*revision)),
            };
            if !holds {
                let (path, key) = (self.name.clone(), key.clone());
                return Attempt::Refused(StoreError::Precondition { path, key, found });
            }
        }
        Attempt::Moved
    }

    /// Which commit of this process wrote a marker.
    fn own_number(&self, marker: &[u8]) -> Option<u64> {
        let text = std::str::from_utf8(marker).ok()?;
        text.strip_prefix(&format!("{:016x}-", self.nonce))?.parse().ok()
    }

    fn not_leader(&self) -> StoreError {
        let leader = self.leader.lock().unwrap_or_else(PoisonError::into_inner).clone();
        StoreError::NotLeader { leader }
    }

    fn step_down(&self) {
        self.standing.send_replace(Standing::Follows);
    }

    fn heard(&self, leader: Option<Vec<u8>>) {
        let leader = leader.map(|name| String::from_utf8_lossy(&name).into_owned());
        *self.leader.lock().unwrap_or_else(PoisonError::into_inner) = leader;
    }

    /// The upper half of election ids: seconds of Unix time when this prefix was first used, so
    /// that a new cluster, whose revisions begin at 1, does not fall behind an old one.
    async fn epoch(&self) -> Result<u64, StoreError> {
        let key = self.own("epoch");
        let now = (clock::unix_ms() / 1_000).to_string().into_bytes();
        let request = pb::TxnRequest {
            compare: vec![created_at(key.clone(), 0)],
            success: vec![put(key.clone(), now.clone(), 0)],
            failure: vec![read(key)],
        };
        let answer = self.members.txn(CALL_TIMEOUT, &request).await;
        let answer = answer.map_err(|status| self.unreadable(status))?;
        let stored = if answer.succeeded { Some(now) } else { first(answer).map(|row| row.value) };
        let epoch = stored.and_then(|text| String::from_utf8(text).ok()?.parse().ok());
        let why = "its election epoch is not a number";
        epoch.ok_or_else(|| StoreError::Damaged { path: self.name.clone(), source: why.into() })
    }

    /// One try at being elected: the lease and the revision it was won with.
    async fn stand(&self, name: &str) -> Result<Option<(i64, i64)>, StoreError> {
        let unreadable = |status| self.unreadable(status);
        let key = self.own("election");
        let request = pb::RangeRequest { key: key.clone(), ..Default::default() };
        let held = self.range(request).await?.kvs.into_iter().next();
        let is_held = held.is_some();
        self.heard(held.map(|row| row.value));
        if is_held {
            return Ok(None);
        }
        let lease = self.members.grant(LEASE_S).await.map_err(unreadable)?;
        let request = pb::TxnRequest {
            compare: vec![created_at(key.clone(), 0)],
            success: vec![put(key.clone(), name.as_bytes().to_vec(), lease)],
            failure: vec![read(key)],
        };
        let answer = self.members.txn(CALL_TIMEOUT, &request).await.map_err(unreadable)?;
        if answer.succeeded {
            self.heard(Some(name.as_bytes().to_vec()));
            return Ok(Some((lease, answer.header.unwrap_or_default().revision)));
        }
        self.heard(first(answer).map(|row| row.value));
        // If not, it ends by itself.
        drop(self.members.revoke(lease).await);
        Ok(None)
    }
}

/// Starts the task that keeps the lease.
fn lead(inner: &Arc<Inner>, epoch: u64, lease: i64, created: i64) -> Leadership {
    inner.standing.send_replace(Standing::Leads(created));
    let (lost, is_lost) = watch::channel(false);
    let (resign, resigned) = mpsc::channel(1);
    tokio::spawn(keep(Arc::clone(inner), lease, created, lost, resigned));
    let id = (u128::from(epoch) << 64) | u128::from(revision(created));
    Leadership::until(id, is_lost, resign)
}

/// Renews the lease until it is certain that it ended, or we resign. That etcd does not answer
/// is no such certainty: what we write is compared, by etcd and by switches.
async fn keep(
    inner: Arc<Inner>,
    lease: i64,
    created: i64,
    lost: watch::Sender<bool>,
    mut resigned: mpsc::Receiver<()>,
) {
    let mut standing = inner.standing.subscribe();
    loop {
        tokio::select! {
            _ = resigned.recv() => break,
            _ = standing.wait_for(|standing| *standing != Standing::Leads(created)) => break,
            () = tokio::time::sleep(RENEW) => {}
        }
        match inner.members.renew(lease).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(status) => {
                tracing::warn!(error = said(&status), "the lease could not be renewed");
            }
        }
    }
    inner.standing.send_if_modified(|standing| {
        let leads = *standing == Standing::Leads(created);
        if leads {
            *standing = Standing::Follows;
        }
        leads
    });
    lost.send_replace(true);
    // If it does not get through, the lease ends by itself.
    drop(inner.members.revoke(lease).await);
}

/// Tells watchers of all changes, for as long as the store is there.
async fn follow(store: std::sync::Weak<Inner>) {
    let mut next = None;
    loop {
        let Some(inner) = store.upgrade() else { return };
        if let Err(status) = follow_once(inner, &store, &mut next).await {
            tracing::debug!(error = said(&status), "the watch on etcd broke");
        }
        tokio::time::sleep(RENEW).await;
    }
}

async fn follow_once(
    inner: Arc<Inner>,
    store: &std::sync::Weak<Inner>,
    next: &mut Option<i64>,
) -> Result<(), Status> {
    let key = inner.data("");
    let start = match *next {
        Some(next) => next,
        None => {
            let request = pb::RangeRequest { key: key.clone(), ..Default::default() };
            let now = inner.members.range(request).await?.header.unwrap_or_default().revision;
            // What was before nobody could have been told.
            drop(inner.changes.send(None));
            *next.insert(now + 1)
        }
    };
    let create = pb::WatchCreateRequest { range_end: end_of(&key), key, start_revision: start };
    let (mut answers, _requests) = inner.members.watch(create).await?;
    drop(inner);
    loop {
        let answer = tokio::select! {
            answer = answers.message() => answer?,
            () = tokio::time::sleep(RENEW) => {
                if store.strong_count() == 0 { return Ok(()) }
                continue;
            }
        };
        let Some(answer) = answer else { return Ok(()) };
        let Some(inner) = store.upgrade() else { return Ok(()) };
        if answer.canceled {
            // Compacted away, or refused: begin with what there is.
            *next = None;
            return Err(Status::aborted(answer.cancel_reason));
        }
        for event in answer.events {
            let deleted = event.r#type() == mvccpb::event::EventType::Delete;
            let Some(row) = event.kv else { continue };
            *next = Some(row.mod_revision + 1);
            let Some(key) = inner.key(&row.key) else { continue };
            let revision = revision(row.mod_revision);
            let value = (!deleted).then_some(row.value);
            // Without a watcher the change is nobody's to miss.
            drop(inner.changes.send(Some(Change { key, value, revision })));
        }
    }
}

fn first(answer: pb::TxnResponse) -> Option<mvccpb::KeyValue> {
    match answer.responses.into_iter().next()?.response? {
        pb::response_op::Response::ResponseRange(range) => range.kvs.into_iter().next(),
        _ => None,
    }
}

fn said(status: &Status) -> String {
    format!("{} ({:?})", status.message(), status.code())
}

/// A key that is not there has revision 0.
fn modified(key: Vec<u8>, revision: i64) -> pb::Compare {
    let target = pb::compare::CompareTarget::Mod.into();
    let target_union = Some(pb::compare::TargetUnion::ModRevision(revision));
    pb::Compare { key, target, target_union, ..Default::default() }
}

fn created_at(key: Vec<u8>, revision: i64) -> pb::Compare {
    let target = pb::compare::CompareTarget::Create.into();
    let target_union = Some(pb::compare::TargetUnion::CreateRevision(revision));
    pb::Compare { key, target, target_union, ..Default::default() }
}

fn read(key: Vec<u8>) -> pb::RequestOp {
    let request = pb::RangeRequest { key, ..Default::default() };
    pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(request)) }
}

fn put(key: Vec<u8>, value: Vec<u8>, lease: i64) -> pb::RequestOp {
    let request = pb::PutRequest { key, value, lease };
    pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(request)) }
}

fn delete(key: Vec<u8>) -> pb::RequestOp {
    let request = pb::DeleteRangeRequest { key };
    pb::RequestOp { request: Some(pb::request_op::Request::RequestDeleteRange(request)) }
}
