//! The part of aya-ebpf that the programs use, with its names and signatures, for the host.
//!
//! What a helper remembers is the thread's own. After a tail call the caller is over: until the
//! next program starts ([`resume`]) its maps are empty and its redirects lead nowhere, so that
//! what the host still runs of it changes nothing.

use std::cell::Cell;
use std::ffi::c_void;

pub(crate) mod maps;

pub(crate) trait EbpfContext {
    fn as_ptr(&self) -> *mut c_void;
}

pub(crate) mod bindings {
    pub(crate) mod xdp_action {
        pub(crate) const XDP_ABORTED: u32 = 0;
        pub(crate) const XDP_DROP: u32 = 1;
        pub(crate) const XDP_PASS: u32 = 2;
        pub(crate) const XDP_REDIRECT: u32 = 4;
    }

    /// Addresses are as wide as the host's; `start..end` is the memory around the frame.
    #[expect(non_camel_case_types, reason = "the kernel's name")]
    pub(crate) struct xdp_md {
        pub(crate) data: usize,
        pub(crate) data_end: usize,
        /// `data`: no metadata.
        pub(crate) data_meta: usize,
        pub(crate) ingress_ifindex: u32,
        pub(crate) start: usize,
        pub(crate) end: usize,
    }
}

pub(crate) mod programs {
    use super::bindings::xdp_md;

    pub(crate) struct XdpContext {
        pub(crate) ctx: *mut xdp_md,
    }

    impl XdpContext {
        pub(crate) fn new(ctx: *mut xdp_md) -> Self {
            Self { ctx }
        }

        pub(crate) fn data(&self) -> usize {
            // SAFETY: `host::run` keeps the context for as long as a program runs.
            unsafe { (*self.ctx).data }
        }

        pub(crate) fn metadata(&self) -> usize {
            // SAFETY: `host::run` keeps the context for as long as a program runs.
            unsafe { (*self.ctx).data_meta }
        }

        pub(crate) fn metadata_end(&self) -> usize {
            self.data()
        }

        pub(crate) fn data_end(&self) -> usize {
            // SAFETY: `host::run` keeps the context for as long as a program runs.
            unsafe { (*self.ctx).data_end }
        }
    }

    impl super::EbpfContext for XdpContext {
        fn as_ptr(&self) -> *mut std::ffi::c_void {
            self.ctx.cast()
        }
    }
}

pub(crate) mod helpers {
    use super::{MACHINE, bindings::xdp_md};

    const ETHERNET_LEN: usize = 14;
    const EINVAL: i64 = 22;

    /// # Safety
    /// None needed; the kernel's has this signature.
    pub(crate) unsafe fn bpf_ktime_get_ns() -> u64 {
        MACHINE.with(|machine| machine.now_ns.get())
    }

    /// As the kernel has it; the frame's start stays where it is.
    ///
    /// # Safety
    /// `ctx` is valid.
    pub(crate) unsafe fn bpf_xdp_adjust_meta(ctx: *mut xdp_md, by: i32) -> i64 {
        // SAFETY: by this function's contract.
        let ctx = unsafe { &mut *ctx };
        let meta = ctx.data_meta.wrapping_add_signed(by as isize);
        if meta < ctx.start || meta > ctx.data || (ctx.data - meta) % 4 != 0 {
            return -EINVAL;
        }
        ctx.data_meta = meta;
        0
    }

    /// As the kernel has it, of what is in the frame.
    ///
    /// # Safety
    /// `ctx` is valid, and `len` bytes can be written at `to`.
    pub(crate) unsafe fn bpf_xdp_load_bytes(
        ctx: *mut xdp_md,
        offset: u32,
        to: *mut std::ffi::c_void,
        len: u32,
    ) -> i64 {
        // SAFETY: by this function's contract.
        let ctx = unsafe { &*ctx };
        let at = ctx.data + offset as usize;
        if at + len as usize > ctx.data_end {
            return -EINVAL;
        }
        // SAFETY: of the frame by the comparison, and to where may be written by the contract.
        unsafe { (at as *const u8).copy_to_nonoverlapping(to.cast(), len as usize) };
        0
    }

    /// As the kernel has it: at least an Ethernet header stays, within the frame's memory.
    ///
    /// # Safety
    /// `ctx` is valid.
    pub(crate) unsafe fn bpf_xdp_adjust_head(ctx: *mut xdp_md, by: i32) -> i64 {
        // SAFETY: by this function's contract.
        let ctx = unsafe { &mut *ctx };
        let data = ctx.data.wrapping_add_signed(by as isize);
        if ctx.data_meta != ctx.data || data < ctx.start || data + ETHERNET_LEN > ctx.data_end {
            return -EINVAL;
        }
        (ctx.data, ctx.data_meta) = (data, data);
        0
    }

    /// As the kernel has it; what is new at the end is zero.
    ///
    /// # Safety
    /// `ctx` is valid, and `start..end` of it is memory that nobody else uses.
    pub(crate) unsafe fn bpf_xdp_adjust_tail(ctx: *mut xdp_md, by: i32) -> i64 {
        // SAFETY: by this function's contract.
        let ctx = unsafe { &mut *ctx };
        let data_end = ctx.data_end.wrapping_add_signed(by as isize);
        if data_end > ctx.end || data_end < ctx.data + ETHERNET_LEN {
            return -EINVAL;
        }
        if data_end > ctx.data_end {
            // SAFETY: up to `end`, by this function's contract.
            unsafe { (ctx.data_end as *mut u8).write_bytes(0, data_end - ctx.data_end) };
        }
        ctx.data_end = data_end;
        0
    }
}

/// What is not in maps.
#[derive(Default)]
pub(crate) struct Machine {
    pub(crate) now_ns: Cell<u64>,
    /// A tail call's stage. While it is set the running program is over.
    pub(crate) next: Cell<Option<u32>>,
    /// Samplers are in the tail-call map.
    pub(crate) samples: Cell<bool>,
    /// The last redirect's index.
    pub(crate) redirected: Cell<Option<u32>>,
}

thread_local! {
    pub(crate) static MACHINE: Machine = Machine::default();
}

/// Before a program starts; gives the stage that the last one jumped to.
pub(crate) fn resume() -> Option<u32> {
    MACHINE.with(|machine| machine.next.take())
}

fn over() -> bool {
    MACHINE.with(|machine| machine.next.get().is_some())
}
