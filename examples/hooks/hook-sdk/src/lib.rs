//! What a packet hook is written with: implement [`Hook`], name it in [`export_hook!`], build
//! for `wasm32-unknown-unknown`. The ABI beneath is docs/reference/hook-abi.md.
//!
//! No allocator and no standard library on the target: a hook's state is its own struct.
//! On other targets everything but the host's functions works too, for tests.

#![cfg_attr(target_arch = "wasm32", no_std)]

pub mod host;
pub mod packet;

pub use packet::{Udp, udp};

/// The ABI that this library speaks.
pub const ABI: i32 = 1;

/// A hook: made once from its configuration, then asked about every packet.
pub trait Hook: Sized {
    /// Reads the configuration (what the operator wrote, at most 64 KiB). An error's code is
    /// shown to the operator; it must not be 0.
    fn init(config: &[u8]) -> Result<Self, i32>;

    /// Decides about one packet, and may change it.
    fn packet(&mut self, packet: &mut Packet<'_>) -> Verdict;

    /// There will be no more packets.
    fn quiesce(&mut self) {}
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// On along its path.
    Forward = 0,
    Drop = 1,
    /// Back to where it came in; the hook has swapped the addresses. Must be named in the
    /// manifest (`verdicts: ["reply"]` in [`export_hook!`]).
    Reply = 2,
}

/// Least and most bytes of a packet that leaves a hook.
pub const MIN_LEN: usize = 20;
pub const MAX_LEN: usize = 1500;

/// As the host writes it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub offset: u32,
    pub len: u32,
    pub verdict: u32,
    pub meta: u32,
}

/// One IP packet: what the endpoints sent, without the network's own header.
pub struct Packet<'a> {
    room: &'a mut [u8],
    len: usize,
    meta: u32,
}

impl<'a> Packet<'a> {
    /// A packet of the first `len` bytes of `room`, which has [`MAX_LEN`] at least.
    pub fn new(room: &'a mut [u8], len: usize, meta: u32) -> Self {
        assert!(room.len() >= MAX_LEN && len <= MAX_LEN);
        Self { room, len, meta }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.room[..self.len]
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.room[..self.len]
    }

    /// Makes the packet shorter or longer (the bytes added are whatever lay there), within
    /// [`MIN_LEN`]`..=`[`MAX_LEN`]; false when `len` is not.
    pub fn set_len(&mut self, len: usize) -> bool {
        let fits = (MIN_LEN..=MAX_LEN).contains(&len);
        if fits {
            self.len = len;
        }
        fits
    }

    /// The slice that the packet is in, as the data plane numbers it.
    pub fn slice(&self) -> u16 {
        self.meta as u16
    }

    /// From a `ue` to a `dn`.
    pub fn is_uplink(&self) -> bool {
        self.meta >> 16 & 1 == 1
    }
}

/// Calls `hook` for each of `n` descriptors.
///
/// # Safety
/// `descriptors` are `n` that the host wrote for this batch, each with a frame of its own
/// that has [`MAX_LEN`] bytes and that nothing else refers to.
pub unsafe fn run_batch<H: Hook>(hook: &mut H, descriptors: *mut Descriptor, n: usize) {
    for index in 0..n {
        // SAFETY: by the caller; the frames do not overlap each other or the descriptors.
        unsafe {
            let descriptor = &mut *descriptors.add(index);
            let frame = descriptor.offset as usize as *mut u8;
            let room = core::slice::from_raw_parts_mut(frame, MAX_LEN);
            let mut packet = Packet::new(room, descriptor.len as usize, descriptor.meta);
            descriptor.verdict = hook.packet(&mut packet) as u32;
            descriptor.len = packet.len as u32;
        }
    }
}

/// Exports `$hook` as this module's hook, with the manifest that says what it imports and
/// which verdicts it gives beyond forward and drop:
///
/// ```ignore
/// export_hook!(Mark, imports: ["counter"]);
/// export_hook!(Echo, imports: [], verdicts: ["reply"]);
/// ```
#[macro_export]
macro_rules! export_hook {
    ($hook:ty, imports: [$($import:literal),*] $(, verdicts: [$($verdict:literal),*])?) => {
        #[cfg(target_arch = "wasm32")]
        mod exported_hook {
            use super::*;

            const TEXT: &str = concat!(
                "{\"abi\":1,\"imports\":[", $crate::comma_separated!($($import),*), "]",
                $(",\"verdicts\":[", $crate::comma_separated!($($verdict),*), "]",)?
                "}"
            );
            #[used]
            #[unsafe(link_section = "selvedge_hook")]
            static MANIFEST: [u8; TEXT.len()] = {
                let mut bytes = [0; TEXT.len()];
                let mut at = 0;
                while at < bytes.len() {
                    bytes[at] = TEXT.as_bytes()[at];
                    at += 1;
                }
                bytes
            };

            static mut HOOK: Option<$hook> = None;

            #[unsafe(no_mangle)]
            extern "C" fn hook_abi() -> i32 {
                $crate::ABI
            }

            #[unsafe(no_mangle)]
            extern "C" fn hook_init(config: *const u8, len: usize) -> i32 {
                // SAFETY: the host wrote `len` bytes there; there is one thread, and no other
                // export runs during this call.
                unsafe {
                    match <$hook as $crate::Hook>::init(core::slice::from_raw_parts(config, len))
                    {
                        Ok(hook) => *(&raw mut HOOK) = Some(hook),
                        Err(code) => return code,
                    }
                }
                0
            }

            #[unsafe(no_mangle)]
            extern "C" fn hook_batch(descriptors: *mut $crate::Descriptor, n: usize) -> i32 {
                // SAFETY: one thread, no other export runs during this call; the descriptors
                // are the host's.
                unsafe {
                    match &mut *(&raw mut HOOK) {
                        Some(hook) => $crate::run_batch(hook, descriptors, n),
                        None => return 1,
                    }
                }
                0
            }

            #[unsafe(no_mangle)]
            extern "C" fn hook_quiesce() {
                // SAFETY: one thread, no other export runs during this call.
                unsafe {
                    if let Some(hook) = &mut *(&raw mut HOOK) {
                        $crate::Hook::quiesce(hook);
                    }
                }
            }
        }
    };
}

/// String literals as the inside of a JSON array.
#[doc(hidden)]
#[macro_export]
macro_rules! comma_separated {
    () => { "" };
    ($first:literal $(, $more:literal)*) => {
        concat!("\"", $first, "\"" $(, ",\"", $more, "\"")*)
    };
}

#[cfg(target_arch = "wasm32")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}
