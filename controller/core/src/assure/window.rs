//! Sums over the last seconds, without keeping the seconds.

use std::collections::VecDeque;

/// Length of each window in seconds, and of the steps it moves on by: 5 s, 1 min, 15 min.
pub(crate) const WINDOWS: [(u64, u64); 3] = [(5, 1), (60, 5), (900, 60)];
/// Of those, the one that availability is held against.
pub(crate) const LONGEST: usize = 2;

/// What one direction of a slice did in a second, or in several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    /// Seconds that its ends told, and of those the ones whose packets are counted exactly.
    pub(crate) seconds: u32,
    pub(crate) exact: u32,
    /// The user's bits that entered and were delivered; per second they are rates.
    pub(crate) offered_bits: u64,
    pub(crate) delivered_bits: u64,
    /// Packets within the guarantee that entered, and those of them that never left.
    pub(crate) entered: u64,
    pub(crate) lost: u64,
    /// Seconds whose delay is known, and their delays (one way, nanoseconds).
    pub(crate) delayed: u32,
    pub(crate) delay_ns: u64,
    pub(crate) delay_max_ns: u64,
    /// Seconds of which it is known whether it worked, and those in which it did not.
    pub(crate) watched: u32,
    pub(crate) unavailable: u32,
}

impl Sum {
    pub(crate) fn add(&mut self, other: &Self) {
        self.seconds += other.seconds;
        self.exact += other.exact;
        self.offered_bits = self.offered_bits.saturating_add(other.offered_bits);
        self.delivered_bits = self.delivered_bits.saturating_add(other.delivered_bits);
        self.entered = self.entered.saturating_add(other.entered);
        self.lost = self.lost.saturating_add(other.lost);
        self.delayed += other.delayed;
        self.delay_ns = self.delay_ns.saturating_add(other.delay_ns);
        self.delay_max_ns = self.delay_max_ns.max(other.delay_max_ns);
        self.watched += other.watched;
        self.unavailable += other.unavailable;
    }

    /// Of the seconds whose delay is known.
    pub(crate) fn mean_delay_ns(&self) -> Option<u64> {
        self.delay_ns.checked_div(self.delayed.into())
    }

    /// Packets lost within the guarantee, in millionths of those that entered.
    pub(crate) fn loss_ppm(&self) -> Option<u64> {
        let lost = u128::from(self.lost) * 1_000_000;
        let share = lost.checked_div(self.entered.into())?;
        Some(u64::try_from(share).unwrap_or(u64::MAX))
    }
}

/// Sums over the last 5 s, minute and quarter of an hour: 32 of them, whatever is asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Windows([VecDeque<(u64, Sum)>; WINDOWS.len()]);

impl Windows {
    /// Seconds come in order; some may be missing.
    pub(crate) fn push(&mut self, second: u64, sum: &Sum) {
        for (steps, (length, step)) in self.0.iter_mut().zip(WINDOWS) {
            let at = second / step;
            match steps.back_mut() {
                Some((last, so_far)) if *last == at => so_far.add(sum),
                _ => steps.push_back((at, *sum)),
            }
            while steps.front().is_some_and(|(first, _)| first + length / step <= at) {
                steps.pop_front();
            }
        }
    }

    /// The whole of a window of [`WINDOWS`].
    pub(crate) fn whole(&self, window: usize) -> Sum {
        total(self.0[window].iter())
    }

    /// The last `seconds`, at most five, up to the newest.
    pub(crate) fn recent(&self, seconds: u64) -> Sum {
        let newest = self.0[0].back().map_or(0, |(second, _)| *second);
        total(self.0[0].iter().filter(|(second, _)| second + seconds > newest))
    }
}

fn total<'a>(sums: impl Iterator<Item = &'a (u64, Sum)>) -> Sum {
    sums.fold(Sum::default(), |mut total, (_, sum)| {
        total.add(sum);
        total
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(entered: u64) -> Sum {
        Sum { seconds: 1, entered, ..Sum::default() }
    }

    #[test]
    fn windows_forget_what_is_older() {
        let mut windows = Windows::default();
        // 1,000 is the start of a step of each length.
        for at in 900..1020 {
            windows.push(at, &second(at));
        }
        let span = |from: u64| (from..1020).sum::<u64>();
        assert_eq!((windows.whole(0).seconds, windows.whole(0).entered), (5, span(1015)));
        assert_eq!(windows.recent(3).entered, span(1017));
        assert_eq!(windows.whole(1).entered, span(960));
        assert_eq!(windows.whole(2).entered, span(900));
        windows.push(1020, &second(0));
        assert_eq!(windows.whole(1).seconds, 56, "a step at a time");
        windows.push(3000, &second(7));
        assert_eq!([0, 1, 2].map(|n| windows.whole(n).entered), [7; 3], "after a pause");
        assert!(windows.0.iter().map(VecDeque::len).sum::<usize>() <= 32);
    }

    #[test]
    fn shares_are_of_what_was_measured() {
        assert_eq!(Sum::default().loss_ppm(), None, "nobody offered anything");
        assert_eq!(Sum::default().mean_delay_ns(), None);
        let sum = Sum { entered: 1000, lost: 25, delayed: 2, delay_ns: 9, ..Sum::default() };
        assert_eq!((sum.loss_ppm(), sum.mean_delay_ns()), (Some(25_000), Some(4)));
    }
}
