//! Rates without division: one theoretical arrival time (TAT) in picoseconds for each rate.
//!
//! Virtual scheduling as GCRA has it (ITU-T I.371 Annex A): the word says when the line would
//! be free again. Its distance from now is the backlog; a packet conforms when backlog and
//! packet together fit the tolerance, which is the burst in picoseconds at that rate. So the
//! bucket starts full, and an idle word needs no refilling.
//!
//! A conforming packet moves the word by an atomic add; a word that lies in the past is set
//! to now by one compare-and-swap, and who loses that race adds as the others do (with adds
//! alone two CPUs both add the gap, and the slice is blacked out for as long as it was idle).
//! Both are `compute`, then `commit`: [`decide`] is pure, [`commit`] takes the two atomic
//! operations, so that the host tests what the kernel runs.

/// Picoseconds per byte times 256 at `bps` bits per second, rounded to the nearest; 0 for 0.
///
/// Exact within 0.25 % from 1 Mbit/s to 100 Gbit/s (80 ps a byte there, 20,480 in this form);
/// fits a packet of 64 KiB down to 2 kbit/s. Divides: for user space only.
pub const fn cost_x256(bps: u64) -> u64 {
    if bps == 0 {
        return 0;
    }
    // 8 bits a byte, 1e12 ps a second, 256: above u64 only as a product.
    ((8 * 1_000_000_000_000 * 256 + (bps as u128) / 2) / bps as u128) as u64
}

/// Picoseconds that `bytes` take at a cost of [`cost_x256`].
#[inline(always)]
pub const fn span_ps(cost_x256: u64, bytes: u32) -> u64 {
    cost_x256.wrapping_mul(bytes as u64) >> 8
}

/// Picoseconds that a burst of `bytes` takes: never less than one full frame, because a
/// smaller burst would let nothing pass at all. At most [`MAX_SPAN_PS`].
pub const fn tolerance_ps(cost_x256: u64, bytes: u32) -> u64 {
    threshold_ps(cost_x256, if bytes < MIN_BURST_BYTES { MIN_BURST_BYTES } else { bytes })
}

/// Picoseconds that a backlog of `bytes` takes to drain. At most [`MAX_SPAN_PS`].
pub const fn threshold_ps(cost_x256: u64, bytes: u32) -> u64 {
    let ps = (cost_x256 as u128 * bytes as u128) >> 8;
    if ps > MAX_SPAN_PS as u128 { MAX_SPAN_PS } else { ps as u64 }
}

/// Least burst that counts.
pub const MIN_BURST_BYTES: u32 = 1514;

/// Least that is worth paying in advance.
const MIN_PREPAY_BYTES: u32 = 256;

/// Bytes that a processor pays for at once, beyond those of a packet, so that the packets that
/// follow need neither the clock nor an atomic operation: where `bytes` are a burst or a
/// threshold, and `cpus` processors share the word. 0: each packet pays for itself.
///
/// What is paid for and not sent may come on top of a burst: together at most a 64th of it.
pub const fn prepay_bytes(bytes: u32, cpus: u32) -> u32 {
    let each = bytes / 64 / if cpus == 0 { 1 } else { cpus };
    if each < MIN_PREPAY_BYTES { 0 } else { each }
}

/// Longest tolerance, 17.6 s; longer bursts count as this.
pub const MAX_SPAN_PS: u64 = 1 << 44;

/// A word further ahead than this is one that has wrapped: nothing ever waits 35 s. So a word
/// is right after any time of idleness but the last 35 s before 213 days, where it delays its
/// slice by what is left of them.
pub const HORIZON_PS: u64 = 1 << 45;

/// What is guaranteed adds nothing to a queue's backlog beyond this, about 1.1 s: what was let
/// through in spite of a rate must not be held against others long after it is gone.
pub const MAX_BACKLOG_PS: u64 = 1 << 40;

/// Picoseconds from `now` until `tat`; 0 when it has passed. Right across the wrap.
#[inline(always)]
pub const fn until(tat: u64, now: u64) -> u64 {
    // One comparison for both ends: a word in the past is beyond the horizon as well.
    let ahead = tat.wrapping_sub(now);
    if ahead <= HORIZON_PS { ahead } else { 0 }
}

/// What a packet of `span` does to a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub conforms: bool,
    /// Picoseconds that were waiting before it.
    pub backlog: u64,
}

/// Whether a packet that takes `span` conforms, with `tat` as read. Changes nothing.
#[inline(always)]
pub const fn decide(tat: u64, now: u64, span: u64, tolerance: u64) -> Decision {
    let backlog = until(tat, now);
    Decision { conforms: backlog + span <= tolerance, backlog }
}

/// Charges `span` to a word read as `tat`. `add(span)` adds atomically; `swap(old, new)` is a
/// compare-and-swap that returns what it found.
#[inline(always)]
pub fn commit(
    tat: u64,
    now: u64,
    span: u64,
    add: impl FnOnce(u64),
    swap: impl FnOnce(u64, u64) -> u64,
) {
    if until(tat, now) > 0 {
        add(span);
    } else if swap(tat, now.wrapping_add(span)) != tat {
        // Somebody else has just woken it, and from now on it lies ahead.
        add(span);
    }
}

#[cfg(test)]
mod tests;
