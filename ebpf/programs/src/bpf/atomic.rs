//! BPF atomics. `AtomicU64` has none of its methods on this target; the host has no intrinsics.

#[cfg(target_arch = "bpf")]
use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};
#[cfg(not(target_arch = "bpf"))]
use core::sync::atomic::{AtomicU64, Ordering};

/// Adds, and tells nobody what was there: a fetch-add whose result is used needs AcqRel, or it
/// is miscompiled; unused, this is the plain instruction.
///
/// # Safety
/// `word` points to a map value.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub(super) unsafe fn add(word: *mut u64, amount: u64) {
    // SAFETY: by this function's contract.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(word, amount) };
}

/// Compare-and-swap; what it found.
///
/// # Safety
/// `word` points to a map value.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub(super) unsafe fn swap(word: *mut u64, old: u64, new: u64) -> u64 {
    // SAFETY: by this function's contract.
    let (found, _) = unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::AcqRel }, { AtomicOrdering::Acquire }>(word, old, new)
    };
    found
}

#[cfg(not(target_arch = "bpf"))]
pub(super) unsafe fn add(word: *mut u64, amount: u64) {
    // SAFETY: as above; map values are aligned.
    unsafe { AtomicU64::from_ptr(word) }.fetch_add(amount, Ordering::Relaxed);
}

#[cfg(not(target_arch = "bpf"))]
pub(super) unsafe fn swap(word: *mut u64, old: u64, new: u64) -> u64 {
    // SAFETY: as above; map values are aligned.
    let word = unsafe { AtomicU64::from_ptr(word) };
    let (Ok(found) | Err(found)) =
        word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire);
    found
}
