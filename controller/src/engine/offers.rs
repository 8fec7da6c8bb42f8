//! Counter-offers of refusals, worked out beside the engine: nobody else waits for them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use selvedge_core::Offers;
use tokio::sync::{mpsc, oneshot};

/// Refusals whose offers may wait for their turn, each with the state that they follow from. With
/// as many, whoever looks at further ones works them out himself.
const OPEN: usize = 16;

pub(super) struct OpenOffers {
    queue: mpsc::Sender<(Offers, oneshot::Sender<()>)>,
}

impl OpenOffers {
    /// Starts a thread of its own, which ends with this.
    pub(super) fn new() -> Self {
        let (queue, waiting) = mpsc::channel(OPEN);
        std::thread::Builder::new()
            .name("offers".to_owned())
            .spawn(move || in_turn(waiting))
            .expect("a thread can be started");
        Self { queue }
    }

    /// Begins with these when it is their turn; never waits. The answer comes, or is cut off, when
    /// they are worked out. `None`: too many wait already.
    pub(super) fn work_out(&self, offers: Offers) -> Option<oneshot::Receiver<()>> {
        let (done, is_done) = oneshot::channel();
        self.queue.try_send((offers, done)).ok()?;
        Some(is_done)
    }
}

fn in_turn(mut waiting: mpsc::Receiver<(Offers, oneshot::Sender<()>)>) {
    while let Some((offers, done)) = waiting.blocking_recv() {
        // Whoever looks at them after a failure meets it himself.
        drop(catch_unwind(AssertUnwindSafe(|| offers.work_out())));
        // Whoever asked may have gone. The state goes with what is dropped here, too.
        drop(offers);
        let _gone = done.send(());
    }
}
