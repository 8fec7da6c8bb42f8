//! Counter-offers of refusals, worked out beside the engine: nobody else waits for them.

use std::sync::Arc;

use selvedge_core::Offers;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Refusals whose offers may be open, each with the state that they follow from. With as many
/// the engine waits for one.
const OPEN: usize = 64;
/// Refusals whose offers are worked out at a time: the engine needs a processor, too.
const AT_ONCE: usize = 1;

#[derive(Clone)]
pub(super) struct OpenOffers {
    room: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

impl OpenOffers {
    pub(super) fn new() -> Self {
        Self { room: Arc::new(Semaphore::new(OPEN)), turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Begins with these when it is their turn. The task ends when they are worked out.
    pub(super) async fn work_out(&self, offers: Offers) -> JoinHandle<()> {
        let turns = self.turns.clone();
        let room = self.room.clone().acquire_owned().await.expect("it is never closed");
        tokio::spawn(async move {
            let turn = turns.acquire_owned().await.expect("it is never closed");
            // Whoever looks at them after a failure meets it himself.
            drop(tokio::task::spawn_blocking(move || offers.work_out()).await);
            drop((turn, room));
        })
    }
}
