//! The frame of a context. After a resize all windows are void; take new ones.

#[cfg(target_arch = "bpf")]
use core::{arch::asm, mem::offset_of};

#[cfg(target_arch = "bpf")]
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_meta, bpf_xdp_adjust_tail};
use aya_ebpf::programs::XdpContext;
use selvedge_ebpf_common::drop;
use selvedge_ebpf_common::value::ShapedMeta;
use selvedge_ebpf_parse::{Cursor, ETHERNET_LEN, Window};

#[inline(always)]
pub(super) fn cursor(ctx: &XdpContext) -> Cursor {
    // SAFETY: the kernel's bounds of the frame.
    unsafe { Cursor::new(ctx.data(), ctx.data_end()) }
}

/// Bytes of the frame. In assembly, so that the compiler neither finds comparisons with
/// [`cursor`]'s bounds superfluous that the verifier insists on, nor moves a term of a sum into
/// 32-bit arithmetic on a packet pointer, which the verifier refuses.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub(super) fn len(ctx: &XdpContext) -> usize {
    const { assert!(offset_of!(xdp_md, data) == 0 && offset_of!(xdp_md, data_end) == 4) };
    let len: usize;
    // SAFETY: reads two fields of the kernel's context.
    unsafe {
        asm!(
            "{len} = *(u32 *)({ctx} + 4)",
            "{start} = *(u32 *)({ctx} + 0)",
            "{len} -= {start}",
            ctx = in(reg) ctx.ctx,
            len = out(reg) len,
            start = out(reg) _,
            options(readonly, nostack, preserves_flags),
        );
    }
    len
}

#[cfg(not(target_arch = "bpf"))]
pub(super) fn len(ctx: &XdpContext) -> usize {
    ctx.data_end() - ctx.data()
}

#[inline(always)]
pub(super) fn ethernet(ctx: &XdpContext) -> Option<Window<ETHERNET_LEN>> {
    cursor(ctx).peek()
}

/// Moves the frame's start: `by` below 0 makes room.
#[inline(always)]
pub(super) fn move_head(ctx: &XdpContext, by: i32) -> Result<(), u8> {
    // SAFETY: a valid context.
    match unsafe { bpf_xdp_adjust_head(ctx.ctx, by) } {
        0 => Ok(()),
        // No room in front, or nothing left behind: no frame we handle.
        _ => Err(drop::MALFORMED),
    }
}

/// Moves the frame's end: `by` below 0 cuts.
#[inline(always)]
pub(super) fn move_tail(ctx: &XdpContext, by: i32) -> Result<(), u8> {
    // SAFETY: a valid context.
    match unsafe { bpf_xdp_adjust_tail(ctx.ctx, by) } {
        0 => Ok(()),
        _ => Err(drop::MALFORMED),
    }
}

/// Puts metadata before the frame, for programs at the kernel's ingress.
#[inline(always)]
pub(super) fn put_meta(ctx: &XdpContext, meta: ShapedMeta) -> Result<(), u8> {
    // SAFETY: a valid context.
    if unsafe { bpf_xdp_adjust_meta(ctx.ctx, -(size_of::<ShapedMeta>() as i32)) } != 0 {
        return Err(drop::MALFORMED);
    }
    let start = ctx.metadata();
    if start + size_of::<ShapedMeta>() > ctx.metadata_end() {
        return Err(drop::MALFORMED);
    }
    // SAFETY: inside the metadata by the comparison; its start is aligned to 4.
    unsafe { (start as *mut ShapedMeta).write_unaligned(meta) };
    Ok(())
}

/// Takes away what metadata a frame came with.
#[inline(always)]
pub(super) fn drop_meta(ctx: &XdpContext) {
    let len = ctx.metadata_end() - ctx.metadata();
    // Where there is no metadata it fails.
    // SAFETY: a valid context.
    unsafe { bpf_xdp_adjust_meta(ctx.ctx, len as i32) };
}

/// Writes an Ethernet header: addresses as words (`selvedge_ebpf_common::mac_word`, what is
/// above the address ignored in `destination`), type as a number.
#[inline(always)]
pub(super) fn write_ethernet<const N: usize>(
    frame: Window<N>,
    destination: u64,
    source: u64,
    ethertype: u16,
) {
    frame.set_raw64::<0>(destination & 0xffff_ffff_ffff | source << 48);
    frame.set_raw32::<8>((source >> 16) as u32);
    frame.set_raw16::<12>(ethertype.to_be());
}
