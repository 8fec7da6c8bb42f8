//! Delays in buckets that grow with them, as in HdrHistogram: eight to each power of two, so that
//! what is read out is at most an eighth too large. Nanoseconds, as a switch measures them.

use std::collections::BTreeMap;

/// Of the powers of two: three bits are kept below the highest.
const KEPT: u32 = 3;
/// Buckets are `0..BUCKETS`: those of 32 bits.
pub const BUCKETS: u32 = ((32 - KEPT) << KEPT) + (1 << KEPT);

/// The bucket that a delay is counted in.
pub const fn bucket(delay_ns: u32) -> u32 {
    let highest = delay_ns.checked_ilog2();
    match highest {
        Some(highest) if highest >= KEPT => {
            let shift = highest - KEPT;
            ((shift + 1) << KEPT) + ((delay_ns >> shift) & ((1 << KEPT) - 1))
        }
        _ => delay_ns,
    }
}

/// The largest delay that a bucket counts.
pub const fn largest_ns(bucket: u32) -> u64 {
    let (shift, low) = ((bucket >> KEPT).saturating_sub(1), bucket & ((1 << KEPT) - 1));
    let first = if bucket < 1 << KEPT { 0 } else { 1 << KEPT };
    ((first + low as u64 + 1) << shift) - 1
}

/// How many delays there were, by bucket; those with none are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delays(BTreeMap<u32, u64>);

impl Delays {
    pub fn add(&mut self, bucket: u32, count: u64) {
        let so_far = self.0.entry(bucket).or_default();
        *so_far = so_far.saturating_add(count);
    }

    pub fn merge(&mut self, other: &Self) {
        other.counts().for_each(|(bucket, count)| self.add(bucket, count));
    }

    /// Ascending.
    pub fn counts(&self) -> impl Iterator<Item = (u32, u64)> {
        self.0.iter().map(|(bucket, count)| (*bucket, *count))
    }

    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// How many are at most `delay_ns`, where a bucket ends there.
    pub fn up_to(&self, delay_ns: u64) -> u64 {
        let within = self.0.iter().take_while(|(bucket, _)| largest_ns(**bucket) <= delay_ns);
        within.map(|(_, count)| count).sum()
    }

    /// The delay that so many of a thousand do not exceed; `None`: there were none.
    pub fn quantile_ns(&self, per_mille: u64) -> Option<u64> {
        let rank = (self.total() * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        self.counts().find_map(|(bucket, count)| {
            seen += count;
            (seen >= rank).then(|| largest_ns(bucket))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_follow_each_other_and_are_all() {
        assert_eq!((bucket(0), bucket(u32::MAX)), (0, BUCKETS - 1));
        assert_eq!(largest_ns(BUCKETS - 1), u64::from(u32::MAX));
        for at in 0..BUCKETS - 1 {
            let end = u32::try_from(largest_ns(at)).unwrap();
            assert_eq!((bucket(end), bucket(end + 1)), (at, at + 1), "{at}");
        }
        // Prometheus's bounds are powers of two.
        let mut delays = Delays::default();
        [4095, 4096, 5000].map(bucket).into_iter().for_each(|at| delays.add(at, 1));
        assert_eq!(delays.up_to(4095), 1);
    }

    proptest! {
        #[test]
        fn a_quantile_is_at_most_an_eighth_too_large(
            mut all in prop::collection::vec(any::<u32>().prop_map(|n| n >> (n % 32)), 1..200),
            per_mille in 0u64..=1000,
        ) {
            let mut delays = Delays::default();
            all.iter().for_each(|delay| delays.add(bucket(*delay), 1));
            all.sort_unstable();
            let rank = (all.len() * per_mille as usize).div_ceil(1000).max(1);
            let exact = u64::from(all[rank - 1]);
            let read = delays.quantile_ns(per_mille).unwrap();
            prop_assert!(exact <= read && read <= exact + exact / 8, "{read} for {exact}");
        }
    }
}
