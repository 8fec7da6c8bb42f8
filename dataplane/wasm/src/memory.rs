//! Linear memories whose pages this crate mapped itself, so that it may put the pages of the
//! packet window ([`crate::frames`]) in the middle of one.
//!
//! A memory is one reservation of address space that never moves; growing it makes more of it
//! accessible. wasmtime runs with `memory_init_cow(false)` and the on-demand allocator, so
//! it neither maps anything over a memory of ours nor keeps one after its instance.

use std::{io, ptr::NonNull, sync::Arc};

use wasmtime::{LinearMemory, MemoryCreator, MemoryType};

/// Makes [`GuestMemory`]s; given to the engine once.
pub(crate) struct Creator;

impl Creator {
    pub(crate) fn shared() -> Arc<dyn MemoryCreator> {
        Arc::new(Self)
    }
}

// SAFETY: a new memory is anonymous and so zero-filled, spans the reservation plus the guard
// that it is asked for, never moves, and everything beyond `byte_size` is inaccessible.
unsafe impl MemoryCreator for Creator {
    fn new_memory(
        &self,
        _ty: MemoryType,
        minimum: usize,
        _maximum: Option<usize>,
        reserved: Option<usize>,
        guard: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        let capacity = reserved.unwrap_or(0).max(minimum);
        let memory = GuestMemory::new(capacity, guard)
            .and_then(|mut memory| memory.make_accessible(minimum).map(|()| memory))
            .map_err(|error| format!("cannot reserve {capacity} bytes of memory: {error}"))?;
        Ok(Box::new(memory))
    }
}

struct GuestMemory {
    base: NonNull<u8>,
    accessible: usize,
    capacity: usize,
    mapped: usize,
}

// SAFETY: the pointer is to a mapping that this value alone owns.
unsafe impl Send for GuestMemory {}
// SAFETY: `&self` gives out the address only.
unsafe impl Sync for GuestMemory {}

impl GuestMemory {
    fn new(capacity: usize, guard: usize) -> io::Result<Self> {
        let mapped = capacity + guard;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing of ours.
        let base =
            unsafe { libc::mmap(std::ptr::null_mut(), mapped, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).expect("the kernel maps nothing at address 0");
        Ok(Self { base, accessible: 0, capacity, mapped })
    }

    /// Makes the bytes up to `size` readable and writable; those that already are keep what
    /// is mapped there.
    fn make_accessible(&mut self, size: usize) -> io::Result<()> {
        if size > self.capacity {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        if size > self.accessible {
            // SAFETY: `accessible <= size <= capacity`, inside our mapping; not yet in use.
            let failed = unsafe {
                libc::mprotect(
                    self.base.as_ptr().add(self.accessible).cast(),
                    size - self.accessible,
                    libc::PROT_READ | libc::PROT_WRITE,
                )
            };
            if failed != 0 {
                return Err(io::Error::last_os_error());
            }
            self.accessible = size;
        }
        Ok(())
    }
}

// SAFETY: `as_ptr` stays the same and `byte_size` bytes behind it are accessible, by
// `make_accessible`; the packet window replaces pages inside, with the same protection.
unsafe impl LinearMemory for GuestMemory {
    fn byte_size(&self) -> usize {
        self.accessible
    }

    fn byte_capacity(&self) -> usize {
        self.capacity
    }

    fn grow_to(&mut self, new_size: usize) -> wasmtime::Result<()> {
        Ok(self.make_accessible(new_size)?)
    }

    fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }
}

impl Drop for GuestMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing refers to it once its memory is dropped.
        // Window pages that the kernel still writes to are pinned by the socket.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.mapped) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_grows_in_place_and_not_beyond_its_reservation() {
        let mut memory = GuestMemory::new(1 << 20, 1 << 16).unwrap();
        let base = memory.as_ptr();
        memory.grow_to(1 << 16).unwrap();
        // SAFETY: both bytes are inside the accessible part.
        unsafe {
            base.write(7);
            memory.grow_to(1 << 20).unwrap();
            base.add((1 << 20) - 1).write(8);
            assert_eq!((base.read(), base.add((1 << 20) - 1).read()), (7, 8));
        }
        assert_eq!(memory.as_ptr(), base);
        assert!(memory.grow_to((1 << 20) + 1).is_err());
        assert_eq!(memory.byte_size(), 1 << 20);
    }
}
