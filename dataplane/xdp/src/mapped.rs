//! A map's memory, where programs read what is written here. Words only, each written whole.

use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

#[derive(Debug)]
pub(crate) struct Mapped(NonNull<[AtomicU64]>);

// SAFETY: atomics, which any thread may use; the memory stays until this is dropped.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

fn bytes(words: usize) -> NonZeroUsize {
    NonZeroUsize::new(words * size_of::<AtomicU64>()).expect("a map has elements")
}

impl Mapped {
    /// Of an array made with `BPF_F_MMAPABLE`, of so many words.
    pub(crate) fn open(map: impl AsFd, words: usize) -> io::Result<Self> {
        let (access, shared) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED);
        // SAFETY: at an address of the kernel's choice.
        let start = unsafe { mmap(None, bytes(words), access, shared, map, 0) }?;
        Ok(Self(NonNull::slice_from_raw_parts(start.cast(), words)))
    }

    /// Memory that is no map's.
    #[cfg(test)]
    pub(crate) fn anonymous(words: usize) -> Self {
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: at an address of the kernel's choice.
        let start = unsafe {
            nix::sys::mman::mmap_anonymous(None, bytes(words), access, MapFlags::MAP_PRIVATE)
        };
        Self(NonNull::slice_from_raw_parts(start.unwrap().cast(), words))
    }

    /// The same memory, for a reader that ends before this does.
    #[cfg(test)]
    pub(crate) fn alias(&self) -> std::mem::ManuallyDrop<Self> {
        std::mem::ManuallyDrop::new(Self(self.0))
    }
}

impl Deref for Mapped {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: mapped for as long as this is, page-aligned, and any bits are a number.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by this, whole, and nothing borrows it any more.
        if let Err(error) = unsafe { munmap(self.0.cast(), bytes(self.0.len()).get()) } {
            tracing::warn!(%error, "a map's memory stays mapped");
        }
    }
}
