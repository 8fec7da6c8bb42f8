//! How the APIs and the sessions reach the engine.

use selvedge_core::{Core, Refusal, Reply, Request};
use tokio::sync::{mpsc, oneshot, watch};

use super::Input;
use crate::store::StoreError;

#[derive(Clone)]
pub struct Handle {
    inputs: mpsc::Sender<Input>,
    logged: watch::Receiver<u64>,
}

/// Why a request was not carried out. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error(transparent)]
    Refused(Refusal),
    #[error(transparent)]
    Store(StoreError),
    #[error("the controller is stopping")]
    Stopping,
}

impl Handle {
    pub(super) fn new(inputs: mpsc::Sender<Input>, logged: watch::Receiver<u64>) -> Self {
        Self { inputs, logged }
    }

    /// Ready when the answer is durable.
    pub async fn request(&self, author: String, request: Request) -> Result<Reply, RequestError> {
        let (answer, answered) = oneshot::channel();
        self.send(Input::Request { author, request, answer }).await?;
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

    /// Waits while the engine is behind.
    pub(crate) async fn send(&self, input: Input) -> Result<(), RequestError> {
        self.inputs.send(input).await.map_err(|_| RequestError::Stopping)
    }
}
