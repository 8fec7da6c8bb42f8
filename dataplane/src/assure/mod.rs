//! What the controller measures promises by: each second the packets of slices and links,
//! counted at both ends by the same mark ([`count`]), and delay and loss of links by the test
//! packets of [`crate::guard`]. The task that joins them with clock and maps.
//!
//! Packets that enter the fabric in an even second carry one mark, in an odd second the other
//! (alternate marking, RFC 9341). Half a second into a second nobody sends the mark of the one
//! before any more, and all its packets have arrived: every switch reads its counts then, so
//! the counts of two switches are of the same packets. That takes clocks that agree on the
//! second to about 400 ms; the controller looks at the time that a report names.

pub mod count;

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use selvedge_southbound::selvedge::v1;
use selvedge_xdp as xdp;
use tokio::sync::watch;

use crate::guard;
use crate::urgent::{self, UrgentError};
use count::{Periods, Reading};

/// From the end of a second until its packets are counted.
const SETTLE: Duration = Duration::from_millis(500);

/// The last second's report, in messages of bounded size: a controller that is slow misses
/// seconds, and nothing waits for it.
pub type Told = Arc<Vec<v1::Telemetry>>;

#[derive(Debug, thiserror::Error)]
pub enum AssureError {
    #[error("cannot read or mark what is counted")]
    Maps(#[from] xdp::Error),
    #[error(transparent)]
    Thread(#[from] UrgentError),
}

/// A switch's data plane, as far as it is measured.
#[derive(Debug)]
pub struct Measured {
    pub counters: xdp::Counters,
    pub probes: xdp::Probes,
    pub probing: guard::Probes,
}

impl Measured {
    /// Starts a thread that sets marks: one that is set too late spoils the counts of two seconds.
    /// Counts can wait their turn, for half a second, and are read in the caller's runtime: that
    /// takes milliseconds, in which a thread that waits for nobody would keep the kernel from
    /// forwarding. Goes on for ever; ready when something has failed.
    ///
    /// # Errors
    /// There can be no further thread.
    pub fn start(
        self,
        told: watch::Sender<Told>,
    ) -> io::Result<impl Future<Output = Result<Infallible, AssureError>> + use<>> {
        let periods = Arc::new(Mutex::new(Periods::default()));
        let marking = {
            let (probes, periods) = (self.probes.clone(), Arc::clone(&periods));
            urgent::run("marks", urgent::MARKS, move || mark(probes, periods))?
        };
        Ok(async move {
            tokio::select! {
                ended = marking => ended,
                ended = self.count(&periods, told) => ended,
            }
        })
    }

    async fn count(
        self,
        periods: &Mutex<Periods>,
        told: watch::Sender<Told>,
    ) -> Result<Infallible, AssureError> {
        let mut read = 0;
        loop {
            let wall = unix_time();
            let (second, into) = (wall.as_secs(), Duration::from_nanos(wall.subsec_nanos().into()));
            if into >= SETTLE && read != second {
                read = second;
                let reading = self.reading()?;
                // Then its mark is given again already.
                let too_late = unix_time().as_secs() != second;
                if !too_late {
                    let over = second.saturating_sub(1);
                    let counts = locked(periods).read(over, reading);
                    let links = locked(&self.probing).take(over, |port| {
                        self.probes.answers(port.0).map(|answers| answers.to_vec())
                    })?;
                    let at_ms = u64::try_from(wall.as_millis()).expect("a time in this age");
                    told.send_replace(Arc::new(count::messages((over, at_ms), counts, links)));
                }
            }
            let boundary = if read == second { Duration::from_secs(1) + SETTLE } else { SETTLE };
            tokio::time::sleep(boundary.saturating_sub(into)).await;
        }
    }

    fn reading(&self) -> Result<Reading, AssureError> {
        Ok(Reading {
            at: Instant::now(),
            ports: self.counters.ports()?,
            slices: self.counters.slices()?,
        })
    }
}

/// Sets each second's mark.
async fn mark(
    probes: xdp::Probes,
    periods: Arc<Mutex<Periods>>,
) -> Result<Infallible, AssureError> {
    let mut begun = 0;
    loop {
        let wall = unix_time();
        let (second, into) = (wall.as_secs(), Duration::from_nanos(wall.subsec_nanos().into()));
        if second != begun {
            probes.set_mark(second % 2 == 1)?;
            locked(&periods).begun(second, into);
            begun = second;
        }
        tokio::time::sleep(Duration::from_secs(1).saturating_sub(into)).await;
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A clock from before 1970 counts as 1970: its reports are of no second that anybody asks for.
pub(crate) fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
