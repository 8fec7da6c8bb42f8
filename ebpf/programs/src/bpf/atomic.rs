//! BPF atomics. `AtomicU64` has none of its methods on this target.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

/// Adds, and tells nobody what was there: a fetch-add whose result is used needs AcqRel, or it
/// is miscompiled; unused, this is the plain instruction.
///
/// # Safety
/// `word` points to a map value.
#[inline(always)]
pub(super) unsafe fn add(word: *mut u64, amount: u64) {
    // SAFETY: by this function's contract.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(word, amount) };
}

/// Compare-and-swap; what it found.
///
/// # Safety
/// `word` points to a map value.
#[inline(always)]
pub(super) unsafe fn swap(word: *mut u64, old: u64, new: u64) -> u64 {
    // SAFETY: by this function's contract.
    let (found, _) = unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::AcqRel }, { AtomicOrdering::Acquire }>(word, old, new)
    };
    found
}
