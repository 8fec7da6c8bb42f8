use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;

/// The word and the kernel's two operations on it.
fn charge(word: &AtomicU64, now: u64, span: u64, tolerance: u64) -> bool {
    let tat = word.load(Ordering::Relaxed);
    let decision = decide(tat, now, span, tolerance);
    if decision.conforms {
        commit(
            tat,
            now,
            span,
            |span| {
                word.fetch_add(span, Ordering::AcqRel);
            },
            |old, new| match word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(found) | Err(found) => found,
            },
        );
    }
    decision.conforms
}

#[test]
fn costs_are_exact_over_the_range() {
    // (bits per second, picoseconds per byte times 256)
    let cases = [
        (0, 0),
        (1_000_000, 2_048_000_000),
        (20_000_000, 102_400_000),
        (100_000_000, 20_480_000),
        (97_000_000, 21_113_402),
        (1_000_000_000, 2_048_000),
        (100_000_000_000, 20_480),
        (99_900_000_000, 20_501), // 20,500.5
    ];
    for (bps, want) in cases {
        assert_eq!(cost_x256(bps), want, "{bps} bit/s");
    }
    for mbps in 1..=100_000u64 {
        let cost = cost_x256(mbps * 1_000_000) as f64;
        let exact = 2_048_000_000.0 / mbps as f64;
        assert!((cost - exact).abs() / exact < 0.0025, "{mbps} Mbit/s: {cost} for {exact}");
    }
}

#[test]
fn spans_do_not_overflow_at_the_slowest_rate() {
    assert_eq!(span_ps(cost_x256(1_000_000), 65_535), 65_535 * 8_000_000);
    assert_eq!(tolerance_ps(cost_x256(1), u32::MAX), MAX_SPAN_PS);
    assert_eq!(threshold_ps(cost_x256(8_000), 100), 100_000_000_000);
    assert_eq!(threshold_ps(cost_x256(8_000), u32::MAX), MAX_SPAN_PS);
}

#[test]
fn a_burst_below_one_frame_counts_as_one_frame() {
    let cost = cost_x256(8_000_000); // a microsecond a byte
    assert_eq!(tolerance_ps(cost, 0), 1_514_000_000);
    assert_eq!(tolerance_ps(cost, 1_514), 1_514_000_000);
    assert_eq!(tolerance_ps(cost, 30_000), 30_000_000_000);
}

#[test]
fn distance_is_right_across_the_wrap() {
    // (tat, now, until)
    let cases = [
        (10, 10, 0),
        (11, 10, 1),
        (9, 10, 0),
        (5, u64::MAX - 4, 10),
        (u64::MAX - 4, 5, 0),
        (0, u64::MAX, 1),
        (u64::MAX, 0, 0),
        (HORIZON_PS, 0, HORIZON_PS),
        (HORIZON_PS + 1, 0, 0),
        (0, 1 << 63, 0),
        (0, u64::MAX - HORIZON_PS - 1, 0),
    ];
    for (tat, now, want) in cases {
        assert_eq!(until(tat, now), want, "tat {tat} now {now}");
    }
}

#[test]
fn a_word_never_touched_starts_full() {
    for now in [0, 1, 1 << 40, 1 << 63, u64::MAX - 2 * HORIZON_PS] {
        let word = AtomicU64::new(0);
        assert!(charge(&word, now, 1000, 1000), "now {now}");
        assert!(!charge(&word, now, 1, 1000), "now {now}: the burst is used up");
    }
}

#[test]
fn the_loser_of_a_wake_up_adds_once() {
    // Both CPUs read 0 at time 1,000; each packet takes 10.
    let word = AtomicU64::new(0);
    for expected in [1010, 1020] {
        commit(
            0,
            1000,
            10,
            |span| {
                word.fetch_add(span, Ordering::AcqRel);
            },
            |old, new| match word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(found) | Err(found) => found,
            },
        );
        assert_eq!(word.load(Ordering::Relaxed), expected);
    }
}

/// Bytes of 1,000-byte packets that pass in `seconds` when offered at `offered` bit/s.
fn passed(rate_bps: u64, burst: u32, offered_bps: u64, seconds: u64, start: u64) -> u64 {
    let cost = cost_x256(rate_bps);
    let (span, tolerance) = (span_ps(cost, 1000), tolerance_ps(cost, burst));
    let gap = 8_000 * 1_000_000_000_000 / offered_bps;
    let word = AtomicU64::new(start);
    let packets = seconds * 1_000_000_000_000 / gap;
    (0..packets).filter(|n| charge(&word, start.wrapping_add(n * gap), span, tolerance)).count()
        as u64
        * 1000
}

#[test]
fn the_rate_passes_and_no_more_even_at_the_wrap() {
    let two_seconds = 2_000_000_000_000u64;
    for start in [0, u64::MAX - two_seconds / 2, i64::MAX as u64 - two_seconds / 2] {
        let burst = 30_000;
        // 5 s at 20 Mbit/s is 12.5 MB.
        let at_rate = passed(20_000_000, burst, 20_000_000, 5, start);
        assert_eq!(at_rate, 12_500_000, "start {start}: at its rate a slice loses nothing");
        let beyond = passed(20_000_000, burst, 50_000_000, 5, start);
        let bound = 12_500_000 + u64::from(burst);
        assert!(
            beyond <= bound && beyond > bound - 2_000,
            "start {start}: passed {beyond} of {bound}"
        );
    }
}

proptest! {
    /// In any interval no more passes than rate x interval + burst, wherever the clock stands.
    #[test]
    fn never_above_the_envelope(
        start in any::<u64>(),
        gaps in prop::collection::vec(0u64..2_000_000_000, 1..200),
        lens in prop::collection::vec(40u32..=1500, 200),
    ) {
        let cost = cost_x256(10_000_000);
        let tolerance = tolerance_ps(cost, 15_000);
        let word = AtomicU64::new(start);
        let (mut now, mut elapsed, mut bytes) = (start, 0u64, 0u64);
        for (gap, len) in gaps.iter().zip(&lens) {
            now = now.wrapping_add(*gap);
            elapsed += gap;
            if charge(&word, now, span_ps(cost, *len), tolerance) {
                bytes += u64::from(*len);
            }
            // One byte is 800,000 ps at this rate.
            prop_assert!(bytes * 800_000 <= elapsed + tolerance);
        }
    }

    /// A slice that was idle, a second or half a year, gets its burst and not a packet less.
    #[test]
    fn idle_time_costs_nothing(start in any::<u64>(), idle in 15_000u64 * 800_000..u64::MAX - 2 * HORIZON_PS) {
        let cost = cost_x256(10_000_000);
        let tolerance = tolerance_ps(cost, 15_000);
        let word = AtomicU64::new(start);
        let span = span_ps(cost, 1500);
        let burst = |now| (0..20).filter(|_| charge(&word, now, span, tolerance)).count();
        prop_assert_eq!(burst(start), 10);
        prop_assert_eq!(burst(start.wrapping_add(idle)), 10);
    }
}
