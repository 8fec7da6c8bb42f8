//! How long to wait before dialing again. Pure: randomness comes in as an argument.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// First pause.
pub const BASE: Duration = Duration::from_millis(200);
/// Longest pause: a controller that returns is found within it.
pub const CAP: Duration = Duration::from_secs(5);

/// Doubling pauses, each drawn from its upper half, so that the switches of one controller
/// do not come back in step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause after one more failure. `random` is any number, uniform over its range.
    pub fn next(&mut self, random: u64) -> Duration {
        let ceiling = CAP.min(BASE * (1 << self.failures.min(16)));
        self.failures = self.failures.saturating_add(1);
        let half = ceiling / 2;
        let span = u64::try_from(half.as_nanos()).expect("seconds") + 1;
        half + Duration::from_nanos(random % span)
    }

    /// It worked.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Good enough to keep switches out of step: the seed of a fresh hash map.
pub fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_start_again() {
        let mut backoff = Backoff::default();
        let lowest: Vec<u128> = (0..7).map(|_| backoff.next(0).as_millis()).collect();
        assert_eq!(lowest, [100, 200, 400, 800, 1600, 2500, 2500]);
        for _ in 0..100 {
            assert!(backoff.next(u64::MAX) <= CAP);
        }
        backoff.reset();
        let highest = backoff.next(BASE.as_nanos() as u64 / 2);
        assert_eq!(highest, BASE);
    }
}
