//! At the kernel's ingress of every port: frames that the stage `shape` has passed go to the queue
//! of their class in the egress port's HTB.

use aya_ebpf::bindings::TC_ACT_UNSPEC;
use aya_ebpf::helpers::bpf_redirect;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use selvedge_ebpf_common::value::ShapedMeta;

/// What else is passed to the kernel goes on there.
#[classifier]
pub(crate) fn shaped(ctx: TcContext) -> i32 {
    // SAFETY: the kernel's context.
    let (start, end) = unsafe { ((*ctx.skb.skb).data_meta as usize, (*ctx.skb.skb).data as usize) };
    if start + size_of::<ShapedMeta>() > end {
        return TC_ACT_UNSPEC;
    }
    // SAFETY: inside the metadata by the comparison.
    let meta = unsafe { (start as *const ShapedMeta).read_unaligned() };
    // SAFETY: the kernel's context.
    unsafe { (*ctx.skb.skb).priority = meta.priority };
    // SAFETY: takes numbers only.
    unsafe { bpf_redirect(meta.ifindex, 0) as i32 }
}
