//! The frames that packets lie in: one half the guest's, one half the host's.
//!
//! The kernel sees one run of memory (the UMEM) of [`FRAMES`] frames, two pages each:
//!
//! ```text
//!   UMEM        | host page 0 | guest page 0 | host page 1 | guest page 1 | ..
//!   a packet       ... outer header|inner packet ...
//!   guest's window              | guest page 0               | guest page 1 | ..  (adjacent)
//! ```
//!
//! A chunk begins so far before the page boundary that the outer header ends exactly on it.
//! The guest pages are also mapped, back to back, into the module's linear memory: the kernel
//! writes an inner packet where the guest reads it. The outer header never is in memory that
//! the guest can reach, so there is nothing to hide, nothing to write back, and no moment at
//! which a header could be forged, neither while it waits in a ring nor while it is sent.
//! What it costs: an inner packet always begins a page, so frames cannot be staggered over
//! the sets of the first-level cache (docs/decisions/0005).
//!
//! Units: bytes. Frames are numbered `0..FRAMES`. No reference is ever formed to this memory.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr::NonNull,
};

use crate::outer::OUTER;

/// Frames of one hook: what may wait while the host does not get to run. At 1,500 bytes and
/// 100 Mbit/s this is 120 ms. A power of two, as rings are.
pub(crate) const FRAMES: u32 = 1024;
/// The guest's share of a frame, and the host's.
pub(crate) const PAGE: usize = 4096;
/// The guest's window.
pub(crate) const WINDOW: usize = FRAMES as usize * PAGE;
/// What the kernel is told of: both halves of all frames.
pub(crate) const AREA: usize = 2 * WINDOW;
/// UMEM chunk; the kernel puts at most `CHUNK - KERNEL_HEADROOM` bytes of packet in it.
pub(crate) const CHUNK: u32 = 2048;
/// `XDP_PACKET_HEADROOM`, which a received packet is placed behind.
const KERNEL_HEADROOM: u64 = 256;

const STRIDE: u64 = 2 * PAGE as u64;
/// Where the outer header begins in a frame.
const OUTER_AT: u64 = (PAGE - OUTER) as u64;
const CHUNK_AT: u64 = OUTER_AT - KERNEL_HEADROOM;

/// Largest inner packet that fits a frame.
pub(crate) const FRAME_INNER: usize = CHUNK as usize - KERNEL_HEADROOM as usize - OUTER;

/// The memory of one hook's frames as the host and the kernel see it.
pub(crate) struct Frames {
    area: NonNull<u8>,
    file: OwnedFd,
}

// SAFETY: the mapping belongs to this value alone; who else writes to it is the kernel and
// the guest, each of which only ever touches it through copies by raw pointer.
unsafe impl Send for Frames {}

impl Frames {
    /// New frames, zeroed. One mapping here and [`FRAMES`] in each guest that has the window.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: the name is a C string; the answer is checked and owned here.
        let file = unsafe {
            let fd = libc::memfd_create(c"selvedge-frames".as_ptr(), libc::MFD_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        nix::unistd::ftruncate(&file, AREA as libc::off_t)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing of ours.
        let area = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                AREA,
                protection,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                file.as_raw_fd(),
                0,
            )
        };
        if area == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let area = NonNull::new(area.cast()).expect("the kernel maps nothing at address 0");
        Ok(Self { area, file })
    }

    /// Maps the guest pages, back to back, over the [`WINDOW`] bytes at `at`.
    ///
    /// # Safety
    /// `at` is page-aligned and those bytes are mapped by this crate, readable and writable,
    /// hold nothing that is needed, and no reference to them exists.
    pub(crate) unsafe fn map_window(&self, at: *mut u8) -> io::Result<()> {
        for frame in 0..FRAMES as usize {
            let offset = (2 * frame + 1) * PAGE;
            // SAFETY: within the bytes that the caller lets us replace.
            let mapped = unsafe {
                libc::mmap(
                    at.add(frame * PAGE).cast(),
                    PAGE,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_SHARED | libc::MAP_FIXED,
                    self.file.as_raw_fd(),
                    offset as libc::off_t,
                )
            };
            if mapped == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }

    /// Start of the UMEM.
    pub(crate) fn area(&self) -> *mut u8 {
        self.area.as_ptr()
    }

    pub(crate) fn read_outer(&self, frame: u32) -> [u8; OUTER] {
        let mut outer = [0; OUTER];
        // SAFETY: `packet` is inside the area and the header ends before the guest page.
        unsafe {
            std::ptr::copy_nonoverlapping(self.packet(frame), outer.as_mut_ptr(), OUTER);
        }
        outer
    }

    pub(crate) fn write_outer(&self, frame: u32, outer: &[u8; OUTER]) {
        // SAFETY: as in `read_outer`.
        unsafe { std::ptr::copy_nonoverlapping(outer.as_ptr(), self.packet(frame), OUTER) };
    }

    /// Copies the inner packet's first bytes out, as many as `into` holds (at most a page).
    pub(crate) fn read_inner(&self, frame: u32, into: &mut [u8]) {
        assert!(into.len() <= PAGE, "an inner packet is inside its page");
        // SAFETY: the guest page behind the header is inside the area.
        unsafe {
            let inner = self.packet(frame).add(OUTER);
            std::ptr::copy_nonoverlapping(inner, into.as_mut_ptr(), into.len());
        }
    }

    pub(crate) fn write_inner(&self, frame: u32, from: &[u8]) {
        assert!(from.len() <= PAGE, "an inner packet is inside its page");
        // SAFETY: as in `read_inner`.
        unsafe {
            let inner = self.packet(frame).add(OUTER);
            std::ptr::copy_nonoverlapping(from.as_ptr(), inner, from.len());
        }
    }

    fn packet(&self, frame: u32) -> *mut u8 {
        // SAFETY: `packet_at` of a frame below FRAMES is inside the area.
        unsafe { self.area.as_ptr().add(packet_at(frame) as usize) }
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        // SAFETY: ours, and nothing refers to it; the kernel holds its own pin on the pages.
        unsafe { libc::munmap(self.area.as_ptr().cast(), AREA) };
    }
}

/// UMEM address to give the kernel for receiving into `frame`.
pub(crate) fn chunk_at(frame: u32) -> u64 {
    assert!(frame < FRAMES, "frame {frame} of {FRAMES}");
    u64::from(frame) * STRIDE + CHUNK_AT
}

/// UMEM address of the packet in `frame`, for sending from it.
pub(crate) fn packet_at(frame: u32) -> u64 {
    assert!(frame < FRAMES, "frame {frame} of {FRAMES}");
    u64::from(frame) * STRIDE + OUTER_AT
}

/// The frame that a received packet is in, if it is where [`chunk_at`] let it be put.
///
/// An address of a UMEM with unaligned chunks is the chunk's in the low 48 bits and the
/// packet's offset in it above (Linux `XSK_UNALIGNED_BUF_OFFSET_SHIFT`).
pub(crate) fn received_frame(addr: u64) -> Option<u32> {
    let packet = (addr & ((1 << 48) - 1)) + (addr >> 48);
    frame_of(packet)
}

/// The frame of an address made by [`packet_at`].
pub(crate) fn frame_of(packet: u64) -> Option<u32> {
    let frame = u32::try_from(packet / STRIDE).ok()?;
    (frame < FRAMES && packet % STRIDE == OUTER_AT).then_some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_its_frame_and_no_other_address_does() {
        for frame in [0, 1, FRAMES - 1] {
            assert_eq!(frame_of(packet_at(frame)), Some(frame));
            let received = chunk_at(frame) | KERNEL_HEADROOM << 48;
            assert_eq!(received_frame(received), Some(frame));
            for wrong in [received + 1, received - 1, chunk_at(frame), received + (1 << 48)] {
                assert_eq!(received_frame(wrong), None, "{wrong:#x}");
            }
        }
        assert_eq!(frame_of(AREA as u64 + OUTER_AT), None);
        assert_eq!(received_frame(u64::MAX), None);
        assert_eq!(packet_at(0) % PAGE as u64 + OUTER as u64, PAGE as u64, "inner begins a page");
    }

    #[test]
    fn the_guests_window_shows_inner_packets_and_never_outer_headers() {
        let frames = Frames::new().unwrap();
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh mapping of WINDOW bytes that nothing else uses, unmapped at the end.
        unsafe {
            let window = libc::mmap(std::ptr::null_mut(), WINDOW, protection, flags, -1, 0);
            assert_ne!(window, libc::MAP_FAILED);
            let window: *mut u8 = window.cast();
            frames.map_window(window).unwrap();
            for frame in 0..FRAMES {
                frames.write_outer(frame, &[0xEE; OUTER]);
                frames.write_inner(frame, &[0x11; 4]);
            }
            for at in 0..WINDOW {
                assert_ne!(window.add(at).read(), 0xEE, "byte {at} of the window");
            }
            window.add(7 * PAGE).cast::<[u8; 4]>().write([1, 2, 3, 4]);
            let mut inner = [0; 4];
            frames.read_inner(7, &mut inner);
            assert_eq!(inner, [1, 2, 3, 4]);
            // Whatever the guest writes anywhere, the headers stay.
            window.write_bytes(0x55, WINDOW);
            for frame in 0..FRAMES {
                assert_eq!(frames.read_outer(frame), [0xEE; OUTER]);
            }
            libc::munmap(window.cast(), WINDOW);
        }
    }
}
