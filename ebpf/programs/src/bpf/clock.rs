//! Picoseconds. A bench may load the programs with a clock that it sets, for rates that no wire
//! here carries.

use aya_ebpf::helpers::bpf_ktime_get_ns;
#[cfg(target_arch = "bpf")]
use aya_ebpf::{macros::map, maps::Array};

/// A constant once the programs are loaded: what the verifier sees is one clock or the other.
#[cfg(target_arch = "bpf")]
#[unsafe(no_mangle)]
static CLOCK_IS_SET: u32 = 0;

/// Not pinned: each load has its own. Nanoseconds.
#[cfg(target_arch = "bpf")]
#[map]
static CLOCK: Array<u64> = Array::with_max_entries(1, 0);

#[cfg(target_arch = "bpf")]
#[inline(always)]
pub(super) fn now() -> u64 {
    // SAFETY: a static; volatile, because its value is given when the programs are loaded.
    if unsafe { (&raw const CLOCK_IS_SET).read_volatile() } != 0 {
        return CLOCK.get(0).copied().unwrap_or(0).wrapping_mul(1000);
    }
    // SAFETY: takes nothing.
    unsafe { bpf_ktime_get_ns() }.wrapping_mul(1000)
}

#[cfg(not(target_arch = "bpf"))]
pub(super) fn now() -> u64 {
    // SAFETY: takes nothing.
    unsafe { bpf_ktime_get_ns() }.wrapping_mul(1000)
}
