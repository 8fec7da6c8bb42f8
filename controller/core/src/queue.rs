//! The virtual queue of an egress port: its rate, and what excess may wait in it.

use selvedge_slices::Class;
use selvedge_topology::BitRate;

/// The share of a link's capacity at which the virtual queue drains, in percent: a little
/// less, so that the queue behind it stays short (DESIGN §6).
pub(crate) const DRAIN_PERCENT: u64 = 97;

/// What is promised less than this is not shaped: no queue drains more slowly.
pub(crate) const MIN_SHAPED_BPS: u64 = 8_000;

/// Drain rate in bit/s and thresholds in bytes for a link of that capacity.
pub(crate) fn of(capacity: BitRate) -> (u64, [u32; 3]) {
    let rate = u128::from(capacity.bps()) * u128::from(DRAIN_PERCENT) / 100;
    let rate = u64::try_from(rate).expect("97 % of a u64 is one");
    (rate, Class::ALL.map(|class| threshold(class, BitRate(rate))))
}

/// In bytes, where the class drains at `rate`.
pub(crate) fn threshold(class: Class, rate: BitRate) -> u32 {
    u32::try_from(class.threshold(rate).0).unwrap_or(u32::MAX)
}
