//! The shell's clock: milliseconds of Unix time at start, counted on by a monotonic clock, so
//! that a step of the machine's time moves no timer.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
    started_unix_ms: u64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now(), started_unix_ms: unix_ms() }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.started_unix_ms + millis(self.started.elapsed())
    }

    /// When the clock will show `at_ms`; now, if that has passed.
    pub(crate) fn instant(&self, at_ms: u64) -> Instant {
        self.started + Duration::from_millis(at_ms.saturating_sub(self.started_unix_ms))
    }
}

/// `0` on a machine whose time is before 1970.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
