//! One ring shared with the kernel (`linux/if_xdp.h`): entries of `T`, a producer's and a
//! consumer's index that count up for ever, and a flags word. Each side writes one index and
//! reads the other's; an entry is read after the index that publishes it (acquire) and
//! written before it (release).

use std::{
    io,
    os::fd::AsRawFd,
    os::fd::BorrowedFd,
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

/// The ring's memory, as the kernel laid it out for the socket.
struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn at<T>(&self, offset: u64, count: usize) -> *mut T {
        let offset = usize::try_from(offset).expect("ring offsets are small");
        assert!(offset + count * size_of::<T>() <= self.len, "the kernel's own offsets fit");
        // SAFETY: inside the mapping by the assertion.
        unsafe { self.base.as_ptr().add(offset).cast() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: ours, and only pointers of the ring that is dropped with it refer to it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

struct Ring<T> {
    mapping: Mapping,
    offsets: libc::xdp_ring_offset,
    size: u32, // a power of two
    entries: *mut T,
}

// SAFETY: the mapping is used by this value alone and by the kernel, through atomics.
unsafe impl<T: Send> Send for Ring<T> {}

impl<T: Copy> Ring<T> {
    fn map(
        socket: BorrowedFd<'_>,
        offsets: libc::xdp_ring_offset,
        page_offset: i64,
        size: u32,
    ) -> io::Result<Self> {
        let end = usize::try_from(offsets.desc).expect("ring offsets are small");
        let len = end + size as usize * size_of::<T>();
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing of ours.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                socket.as_raw_fd(),
                page_offset,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).expect("the kernel maps nothing at address 0");
        let mapping = Mapping { base, len };
        let entries = mapping.at(offsets.desc, size as usize);
        Ok(Self { mapping, offsets, size, entries })
    }

    fn word(&self, offset: u64) -> &AtomicU32 {
        // SAFETY: aligned by the kernel, inside the mapping, lives as long as `self`, and both
        // sides access it atomically.
        unsafe { AtomicU32::from_ptr(self.mapping.at(offset, 1)) }
    }

    fn producer(&self) -> &AtomicU32 {
        self.word(self.offsets.producer)
    }

    fn consumer(&self) -> &AtomicU32 {
        self.word(self.offsets.consumer)
    }

    fn entry(&self, index: u32) -> *mut T {
        // SAFETY: masked to the ring's size, which the mapping holds.
        unsafe { self.entries.add((index & (self.size - 1)) as usize) }
    }
}

/// A ring that the host fills: fill and transmit.
pub(crate) struct Producer<T>(Ring<T>);

impl<T: Copy> Producer<T> {
    pub(crate) fn map(
        socket: BorrowedFd<'_>,
        offsets: libc::xdp_ring_offset,
        page_offset: i64,
        size: u32,
    ) -> io::Result<Self> {
        Ring::map(socket, offsets, page_offset, size).map(Self)
    }

    /// False when the ring is full.
    #[must_use]
    pub(crate) fn push(&mut self, entry: T) -> bool {
        let next = self.0.producer().load(Ordering::Relaxed);
        if self.pending() == self.0.size {
            return false;
        }
        // SAFETY: the slot is not published and the kernel has consumed what was in it.
        unsafe { self.0.entry(next).write(entry) };
        self.0.producer().store(next.wrapping_add(1), Ordering::Release);
        true
    }

    /// Entries that the kernel has not taken yet.
    pub(crate) fn pending(&self) -> u32 {
        let consumed = self.0.consumer().load(Ordering::Acquire);
        self.0.producer().load(Ordering::Relaxed).wrapping_sub(consumed)
    }

    /// Whether the kernel waits for a system call to look at this ring.
    pub(crate) fn needs_wakeup(&self) -> bool {
        let flags = self.0.word(self.0.offsets.flags).load(Ordering::Relaxed);
        flags & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// A ring that the kernel fills: receive and completion.
pub(crate) struct Consumer<T>(Ring<T>);

impl<T: Copy> Consumer<T> {
    pub(crate) fn map(
        socket: BorrowedFd<'_>,
        offsets: libc::xdp_ring_offset,
        page_offset: i64,
        size: u32,
    ) -> io::Result<Self> {
        Ring::map(socket, offsets, page_offset, size).map(Self)
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        let next = self.0.consumer().load(Ordering::Relaxed);
        if next == self.0.producer().load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: published by the kernel, which does not touch it until it is consumed.
        let entry = unsafe { self.0.entry(next).read() };
        self.0.consumer().store(next.wrapping_add(1), Ordering::Release);
        Some(entry)
    }
}
