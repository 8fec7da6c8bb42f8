//! What the host offers. A module may import a function only if its manifest names it.
//! On other targets than Wasm these are small stand-ins, so that hooks can be tested.

#[cfg(target_arch = "wasm32")]
mod imported {
    #[link(wasm_import_module = "selvedge")]
    unsafe extern "C" {
        pub(super) safe fn counter(id: u32, n: u64);
        pub(super) safe fn clock_ns() -> u64;
        pub(super) fn map_get(key: *const u8, len: usize, value: *mut u8, capacity: usize) -> i32;
        pub(super) fn map_put(
            key: *const u8,
            len: usize,
            value: *const u8,
            value_len: usize,
        ) -> i32;
        pub(super) fn emit(bytes: *const u8, len: usize) -> i32;
    }
}

/// Adds `n` to the hook's counter `id`, `0..16`, which the operator sees. Manifest: `counter`.
pub fn counter(id: u32, n: u64) {
    #[cfg(target_arch = "wasm32")]
    imported::counter(id, n);
    #[cfg(not(target_arch = "wasm32"))]
    let _ = (id, n);
}

/// Monotonic nanoseconds. Manifest: `clock_ns`.
pub fn clock_ns() -> u64 {
    #[cfg(target_arch = "wasm32")]
    return imported::clock_ns();
    #[cfg(not(target_arch = "wasm32"))]
    {
        use std::{sync::OnceLock, time::Instant};
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
}

/// Copies the value of `key` (at most 64 bytes) into `value`, as far as it fits, and answers
/// its length. Manifest: `map_get`.
#[cfg(target_arch = "wasm32")]
pub fn map_get(key: &[u8], value: &mut [u8]) -> Option<usize> {
    // SAFETY: the host reads and writes within the given lengths.
    let len =
        unsafe { imported::map_get(key.as_ptr(), key.len(), value.as_mut_ptr(), value.len()) };
    usize::try_from(len).ok()
}

/// Stores `value` (at most 256 bytes; empty removes) under `key`; false when there are 4,096
/// others already or one of them is too long. Manifest: `map_put`.
#[cfg(target_arch = "wasm32")]
pub fn map_put(key: &[u8], value: &[u8]) -> bool {
    // SAFETY: the host reads within the given lengths.
    unsafe { imported::map_put(key.as_ptr(), key.len(), value.as_ptr(), value.len()) == 0 }
}

/// Tells the operator something, at most 256 bytes and 16 times a second; false when it was
/// not taken. Manifest: `emit`.
pub fn emit(bytes: &[u8]) -> bool {
    #[cfg(target_arch = "wasm32")]
    // SAFETY: the host reads within the given length.
    return unsafe { imported::emit(bytes.as_ptr(), bytes.len()) == 0 };
    #[cfg(not(target_arch = "wasm32"))]
    return !bytes.is_empty();
}
