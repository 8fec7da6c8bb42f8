//! Bounds: a [`Cursor`] gives out [`Window`]s of a length known at compile time, each after
//! one comparison; inside a window every access is checked by the compiler.

use core::ptr;

/// Walks a packet from `pos` to `end`.
#[derive(Clone, Copy)]
pub struct Cursor {
    pos: usize,
    end: usize,
}

impl Cursor {
    /// # Safety
    /// `start..end` can be read and written for as long as the cursor and its windows are
    /// used. `XdpContext::data()` and `data_end()` give such a pair, until the packet is
    /// resized.
    #[inline(always)]
    pub const unsafe fn new(start: usize, end: usize) -> Self {
        Self { pos: start, end }
    }

    /// The next `N` bytes, or `None` if the packet ends first. Stays where it is.
    #[inline(always)]
    pub fn peek<const N: usize>(&self) -> Option<Window<N>> {
        // One comparison, in this shape, directly before the access: the verifier learns the
        // safe range from it. Computing a length and comparing that teaches it nothing.
        if self.pos + N > self.end {
            return None;
        }
        Some(Window(self.pos as *mut u8))
    }

    /// The next `N` bytes, and moves past them.
    #[inline(always)]
    pub fn take<const N: usize>(&mut self) -> Option<Window<N>> {
        let window = self.peek()?;
        self.pos += N;
        Some(window)
    }

    /// Moves past `bytes`, at most a few hundred, without looking at them.
    #[inline(always)]
    pub fn skip(&mut self, bytes: usize) {
        self.pos += bytes;
    }

    /// As [`Cursor::skip`], of a number that was worked out from the packet and that the program
    /// goes on to use.
    #[inline(always)]
    pub fn skip_computed(&mut self, bytes: usize) {
        self.pos = add(self.pos, bytes);
    }
}

/// In assembly, so that there is one such sum: a compiler that makes it twice, in two orders,
/// compares the one with the end and reads at the other, of which the verifier then knows
/// nothing.
#[cfg(target_arch = "bpf")]
#[inline(always)]
fn add(mut pos: usize, bytes: usize) -> usize {
    // SAFETY: a sum of two registers.
    unsafe {
        core::arch::asm!(
            "{pos} += {bytes}",
            pos = inout(reg) pos,
            bytes = in(reg) bytes,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    pos
}

#[cfg(not(target_arch = "bpf"))]
#[inline(always)]
const fn add(pos: usize, bytes: usize) -> usize {
    pos + bytes
}

/// `N` bytes of a packet. Offsets are constants; one beyond the end does not compile.
#[derive(Clone, Copy)]
pub struct Window<const N: usize>(*mut u8);

impl<const N: usize> Window<N> {
    #[inline(always)]
    fn at<T, const AT: usize>(self) -> *mut T {
        const { assert!(AT + size_of::<T>() <= N, "outside the window") };
        // SAFETY: inside the window by the assertion above, and a window by
        // `Cursor::new` inside the packet.
        unsafe { self.0.add(AT).cast() }
    }

    #[inline(always)]
    fn get<T: Copy, const AT: usize>(self) -> T {
        // SAFETY: in bounds by `at`; `T` is an integer here, of which any bits are valid.
        unsafe { ptr::read_unaligned(self.at::<T, AT>()) }
    }

    #[inline(always)]
    fn set<T: Copy, const AT: usize>(self, value: T) {
        // SAFETY: in bounds by `at`, and writable by `Cursor::new`.
        unsafe { ptr::write_unaligned(self.at::<T, AT>(), value) }
    }

    #[inline(always)]
    pub fn u8<const AT: usize>(self) -> u8 {
        self.get::<u8, AT>()
    }

    #[inline(always)]
    pub fn raw16<const AT: usize>(self) -> u16 {
        self.get::<u16, AT>()
    }

    #[inline(always)]
    pub fn raw32<const AT: usize>(self) -> u32 {
        self.get::<u32, AT>()
    }

    #[inline(always)]
    pub fn raw64<const AT: usize>(self) -> u64 {
        self.get::<u64, AT>()
    }

    /// As a number.
    #[inline(always)]
    pub fn be16<const AT: usize>(self) -> u16 {
        u16::from_be(self.raw16::<AT>())
    }

    /// As a number.
    #[inline(always)]
    pub fn be32<const AT: usize>(self) -> u32 {
        u32::from_be(self.raw32::<AT>())
    }

    #[inline(always)]
    pub fn set8<const AT: usize>(self, value: u8) {
        self.set::<u8, AT>(value);
    }

    #[inline(always)]
    pub fn set_raw16<const AT: usize>(self, value: u16) {
        self.set::<u16, AT>(value);
    }

    #[inline(always)]
    pub fn set_raw32<const AT: usize>(self, value: u32) {
        self.set::<u32, AT>(value);
    }

    #[inline(always)]
    pub fn set_raw64<const AT: usize>(self, value: u64) {
        self.set::<u64, AT>(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_end_where_the_packet_does() {
        for len in 0..40usize {
            let mut bytes: Box<[u8]> = (0..len as u8).collect();
            let start = bytes.as_mut_ptr() as usize;
            // SAFETY: `bytes` outlives the cursor.
            let mut cursor = unsafe { Cursor::new(start, start + len) };
            let first = cursor.take::<14>();
            assert_eq!(first.is_some(), len >= 14, "{len} bytes");
            if let Some(first) = first {
                assert_eq!((first.u8::<13>(), first.be16::<12>()), (13, 0x0c0d));
                let second = cursor.peek::<20>();
                assert_eq!(second.is_some(), len >= 34, "{len} bytes");
                if let Some(second) = second {
                    assert_eq!(second.be32::<16>(), 0x1e1f_2021);
                    second.set_raw64::<8>(u64::from_be_bytes([1; 8]));
                    assert_eq!(bytes[22..30], [1; 8]);
                    assert_eq!(bytes[30], 30);
                }
            }
        }
    }
}
