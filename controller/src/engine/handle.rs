//! How the APIs and the sessions reach the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use selvedge_core::{Core, Refusal, Reply, Request};
use selvedge_pipeline::CounterKind;
use selvedge_southbound::client::CounterCell;
use selvedge_topology::NodeName;
use tokio::sync::{mpsc, oneshot, watch};

use super::{Asked, Input, Role};
use crate::store::StoreError;

#[derive(Clone)]
pub struct Handle {
    inputs: mpsc::Sender<Input>,
    logged: watch::Receiver<u64>,
    role: watch::Receiver<Role>,
    /// Table entries sent to switches since this process started.
    writes: Arc<AtomicU64>,
}

/// Why a request was not carried out. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error(transparent)]
    Refused(Refusal),
    /// One commit may be of several requests.
    #[error(transparent)]
    Store(Arc<StoreError>),
    #[error("the controller is stopping")]
    Stopping,
}

/// Why the counters of a switch could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CountersError {
    #[error("it is not joined: it has no session with this controller")]
    NotJoined,
    #[error("too much waits for it already; come back")]
    Busy,
    #[error("{0}")]
    Switch(String),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the controller is stopping")]
    Stopping,
}

impl Handle {
    pub(super) fn new(
        inputs: mpsc::Sender<Input>,
        logged: watch::Receiver<u64>,
        role: watch::Receiver<Role>,
    ) -> Self {
        Self { inputs, logged, role, writes: Arc::default() }
    }

    /// Inputs that the engine has not looked at.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.inputs.max_capacity() - self.inputs.capacity()
    }

    /// Ready when the answer is durable.
    pub async fn request(&self, author: String, request: Request) -> Result<Reply, RequestError> {
        let (answer, answered) = oneshot::channel();
        self.send(Input::Request(Asked { author, request, answer })).await?;
        answered.await.map_err(|_| RequestError::Stopping)?
    }

    /// Runs `query` on the core as it is between two events, and so for a short time only.
    pub async fn query<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Core) -> T + Send + 'static,
    ) -> Result<T, RequestError> {
        let (answer, answered) = oneshot::channel();
        // Whoever asked may have gone.
        self.send(Input::Query(Box::new(move |core| drop(answer.send(query(core)))))).await?;
        answered.await.map_err(|_| RequestError::Stopping)
    }

    /// Changes whenever a line is added to the event log: its sequence number.
    pub fn logged(&self) -> watch::Receiver<u64> {
        self.logged.clone()
    }

    /// Whether this controller leads, and changes of that.
    pub fn role(&self) -> watch::Receiver<Role> {
        self.role.clone()
    }

    /// These cells of a switch's counters, in the order given, as the switch has them now.
    pub(crate) async fn counters(
        &self,
        switch: NodeName,
        cells: Vec<(CounterKind, u32)>,
        limit: Duration,
    ) -> Result<Vec<CounterCell>, CountersError> {
        let (answer, answered) = oneshot::channel();
        let read = async {
            let input = Input::ReadCounters { switch, cells, answer };
            self.send(input).await.map_err(|_| CountersError::Stopping)?;
            // Dropped unanswered: the session ended before its task came to it.
            answered.await.map_err(|_| CountersError::NotJoined)?
        };
        tokio::time::timeout(limit, read).await.map_err(|_| CountersError::Timeout(limit))?
    }

    /// Table entries inserted, modified and deleted on all switches since this process
    /// started, as far as they were sent; whether the switch took them does not matter.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    pub(crate) fn wrote(&self, entries: usize) {
        self.writes.fetch_add(entries as u64, Ordering::Relaxed);
    }

    /// Waits while the engine is behind.
    pub(crate) async fn send(&self, input: Input) -> Result<(), RequestError> {
        self.inputs.send(input).await.map_err(|_| RequestError::Stopping)
    }
}
