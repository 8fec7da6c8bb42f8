//! What became of frames that were given to a device, as the kernel's tracepoints tell it.
//!
//! Both are called for every device of the machine, of all network namespaces. A device is ours
//! if its index is a port's and this CPU has given it frames that it has not sent: a poll gives
//! frames and has them sent before another poll of the CPU begins, so that nobody else's frames
//! are in between.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use selvedge_ebpf_common::flight::Refused;
use selvedge_ebpf_common::{TRACE_REFUSED, TRACE_TRANSMITTED, drop};

use super::maps::{CONFIG, DROPS, PORT_COUNTERS, TRACE};
use super::port_of;

/// Where `struct net_device` of this kernel has its `ifindex`, given when the programs are loaded.
#[unsafe(no_mangle)]
static IFINDEX_OFFSET: u32 = 0;

/// The tracepoint's argument `N`, as its `TP_PROTO` numbers them (include/trace/events/xdp.h).
#[inline(always)]
fn argument<const N: usize>(ctx: &RawTracePointContext) -> u64 {
    let arguments: *const u64 = ctx.as_ptr().cast();
    // SAFETY: the kernel gives as many arguments as the tracepoint has.
    unsafe { *arguments.add(N) }
}

#[raw_tracepoint]
pub(crate) fn on_transmitted(ctx: RawTracePointContext) -> i32 {
    // SAFETY: nothing is kept across the call.
    unsafe { TRACE.tail_call(&ctx, TRACE_TRANSMITTED) };
    0
}

#[raw_tracepoint]
pub(crate) fn on_refused(ctx: RawTracePointContext) -> i32 {
    // SAFETY: nothing is kept across the call.
    unsafe { TRACE.tail_call(&ctx, TRACE_REFUSED) };
    0
}

/// `xdp_devmap_xmit(from_dev, to_dev, sent, drops, err)`.
#[raw_tracepoint]
pub(crate) fn transmitted(ctx: RawTracePointContext) -> i32 {
    // SAFETY: a static; volatile, because its value is given when the programs are loaded.
    let offset = unsafe { (&raw const IFINDEX_OFFSET).read_volatile() };
    let ifindex = (argument::<1>(&ctx) + u64::from(offset)) as *const u32;
    // SAFETY: the helper checks the address.
    let Ok(ifindex) = (unsafe { bpf_probe_read_kernel(ifindex) }) else { return 0 };
    let port = port_of(ifindex);
    let (sent, refused) = (argument::<2>(&ctx) as u32, argument::<3>(&ctx) as u32);
    if port != 0
        && let Some(counters) = PORT_COUNTERS.get_ptr_mut(port)
    {
        // SAFETY: this CPU's own.
        count(unsafe { (*counters).settle(sent, refused) });
    }
    0
}

/// `xdp_redirect_err(dev, xdp, tgt, err, map_type, map_id, index)`.
#[raw_tracepoint]
pub(crate) fn refused(ctx: RawTracePointContext) -> i32 {
    let (map, port) = (argument::<5>(&ctx) as u32, argument::<6>(&ctx) as u32);
    if CONFIG.get(0).is_some_and(|config| config.device_map == map)
        && let Some(counters) = PORT_COUNTERS.get_ptr_mut(port)
    {
        // SAFETY: this CPU's own.
        count(unsafe { (*counters).refuse() });
    }
    0
}

/// Of the port they are counted already.
#[inline(always)]
fn count(refused: Refused) {
    let failed = refused.packets + refused.answers;
    if failed != 0
        && let Some(count) = DROPS.get_ptr_mut(drop::TRANSMIT_ERROR.into())
    {
        // SAFETY: this CPU's own counter.
        unsafe { *count += failed };
    }
}
