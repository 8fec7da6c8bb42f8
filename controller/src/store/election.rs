//! Leading: an election id, until it is lost.

use tokio::sync::{mpsc, watch};

/// Held by the controller that leads. Dropping it resigns.
#[derive(Debug)]
pub struct Leadership {
    election_id: u128,
    lost: watch::Receiver<bool>,
    /// Closed when this is dropped; `None` where nobody else could lead.
    _resign: Option<mpsc::Sender<()>>,
}

impl Leadership {
    /// Of a store that only one controller can have.
    pub(super) fn for_ever(election_id: u128) -> Self {
        Self { election_id, lost: watch::channel(false).1, _resign: None }
    }

    pub(super) fn until(
        election_id: u128,
        lost: watch::Receiver<bool>,
        resign: mpsc::Sender<()>,
    ) -> Self {
        Self { election_id, lost, _resign: Some(resign) }
    }

    /// Greater than that of every earlier leader (P4Runtime §5.1); kept by switches.
    pub fn election_id(&self) -> u128 {
        self.election_id
    }

    /// Ready when it is certain that this controller leads no more.
    pub async fn lost(&mut self) {
        if self.lost.wait_for(|lost| *lost).await.is_err() {
            // Nobody is left who could say so.
            std::future::pending::<()>().await;
        }
    }
}
