//! The programs, and how each ends. The library has them for the host as well.

mod access;
mod answer;
mod atomic;
mod classify;
mod clock;
mod egress;
mod events;
mod extensions;
#[cfg(target_arch = "bpf")]
mod generator;
mod gtp;
mod icmp;
mod lookup;
mod maps;
mod meter;
mod packet;
mod probe;
mod repair;
mod sample;
#[cfg(target_arch = "bpf")]
mod shaped;
mod sid;
mod state;
#[cfg(target_arch = "bpf")]
mod transmit;
mod tunnel;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{xdp_action, xdp_md};
#[cfg(target_arch = "bpf")]
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use selvedge_ebpf_common::drop;
use selvedge_ebpf_common::map::LOW_IFINDICES;
use selvedge_ebpf_common::value::{PORT_ACCESS, PORT_COMPUTE, PORT_FABRIC};
use selvedge_ebpf_common::{COMPUTE_PORT, STAGE_ACCESS, STAGE_ACCESS_ON, STAGE_SID, STAGE_SID_ON};
use selvedge_ebpf_parse::ETHERTYPE_LLDP;

use maps::{
    DEVICE, DROPS, HOOK_BY_IFINDEX, HOOK_COUNTERS, JUMP, PORT, PORT_BY_IFINDEX,
    PORT_BY_LOW_IFINDEX, PORT_COUNTERS, SOCKET,
};
use state::State;

#[cfg(not(target_arch = "bpf"))]
pub(crate) use maps::NAMED;

/// How a stage ends: an XDP action, or the reason of a drop.
type Step = Result<u32, u8>;

/// Goes on in another stage. Comes back only when the tail call fails, which is when the
/// agent is replacing the programs of a switch that it could not open.
#[inline(always)]
fn jump(ctx: &XdpContext, stage: u32) -> Step {
    // SAFETY: stages keep nothing across the call.
    unsafe { JUMP.tail_call(ctx, stage) };
    Err(drop::PORT_DISABLED)
}

#[inline(always)]
fn ingress_ifindex(ctx: &XdpContext) -> u32 {
    let md: *const xdp_md = ctx.as_ptr().cast();
    // SAFETY: the kernel gives every XDP program a context of this type.
    unsafe { (*md).ingress_ifindex }
}

#[inline(always)]
fn port_of(ifindex: u32) -> u32 {
    if ifindex < LOW_IFINDICES {
        return PORT_BY_LOW_IFINDEX.get(ifindex).copied().unwrap_or(0);
    }
    // SAFETY: a word; a concurrent change shows the old or the new.
    unsafe { PORT_BY_IFINDEX.get(ifindex) }.copied().unwrap_or(0)
}

/// Step A.
#[cfg_attr(target_arch = "bpf", xdp)]
pub(crate) fn entry(ctx: XdpContext) -> u32 {
    let port = port_of(ingress_ifindex(&ctx));
    let Some(state) = State::start(port) else { return xdp_action::XDP_ABORTED };
    state.end(&ctx, dispatch(&ctx, state, port))
}

#[inline(always)]
fn dispatch(ctx: &XdpContext, state: State, port: u32) -> Step {
    if let Some(counters) = PORT_COUNTERS.get_ptr_mut(port) {
        // SAFETY: this CPU's own counters.
        unsafe {
            (*counters).rx_packets += 1;
            (*counters).rx_bytes += packet::len(ctx) as u64;
        }
    }
    let value = PORT.get(port).ok_or(drop::PORT_DISABLED)?;
    let kind = value.kind;
    if kind == 0 {
        // An interface that the controller has not heard of yet, or has no use for.
        if port != 0 {
            access::unassigned(ctx, state);
        }
        return Err(drop::PORT_DISABLED);
    }
    state.set_kind(kind);
    if kind == PORT_COMPUTE {
        let hook = value.hook;
        if let Some(counters) = HOOK_COUNTERS.get_ptr_mut(hook.into()) {
            // SAFETY: this CPU's own counters.
            unsafe {
                (*counters).from_packets += 1;
                (*counters).from_bytes += packet::len(ctx) as u64;
            }
        }
        return jump(ctx, STAGE_SID);
    }
    let ethernet = packet::ethernet(ctx).ok_or(drop::MALFORMED)?;
    if ethernet.be16::<12>() == ETHERTYPE_LLDP {
        return Ok(state.passed(ctx));
    }
    match kind {
        PORT_ACCESS => jump(ctx, STAGE_ACCESS),
        PORT_FABRIC => jump(ctx, STAGE_SID),
        _ => Err(drop::PORT_DISABLED),
    }
}

/// Step B.
#[cfg_attr(target_arch = "bpf", xdp)]
#[inline(always)]
pub(crate) fn access(ctx: XdpContext) -> u32 {
    let Some(state) = State::resume() else { return xdp_action::XDP_ABORTED };
    state.end(&ctx, access::run(&ctx, state))
}

/// Step C.
#[cfg_attr(target_arch = "bpf", xdp)]
pub(crate) fn sid(ctx: XdpContext) -> u32 {
    let Some(state) = State::resume() else { return xdp_action::XDP_ABORTED };
    state.end(&ctx, sid::run(&ctx, state))
}

/// Step B.7 of packets that many rules are about.
#[cfg_attr(target_arch = "bpf", xdp)]
pub(crate) fn classify(ctx: XdpContext) -> u32 {
    let Some(state) = State::resume() else { return xdp_action::XDP_ABORTED };
    state.end(&ctx, classify::run(&ctx, state))
}

/// What step B needs of packets with extension headers.
#[cfg_attr(target_arch = "bpf", xdp)]
pub(crate) fn extensions(ctx: XdpContext) -> u32 {
    let Some(state) = State::resume() else { return xdp_action::XDP_ABORTED };
    state.end(&ctx, extensions::run(&ctx, state))
}

/// What step B answers itself.
#[cfg_attr(target_arch = "bpf", xdp)]
pub(crate) fn answer(ctx: XdpContext) -> u32 {
    let Some(state) = State::resume() else { return xdp_action::XDP_ABORTED };
    state.end(&ctx, answer::run(&ctx, state))
}

/// GTP-U from gNBs.
#[cfg_attr(target_arch = "bpf", xdp)]
pub(crate) fn gtp(ctx: XdpContext) -> u32 {
    let Some(state) = State::resume() else { return xdp_action::XDP_ABORTED };
    state.end(&ctx, gtp::run(&ctx, state))
}

/// Delivery to UEs.
#[cfg_attr(target_arch = "bpf", xdp)]
pub(crate) fn tunnel(ctx: XdpContext) -> u32 {
    let Some(state) = State::resume() else { return xdp_action::XDP_ABORTED };
    state.end(&ctx, tunnel::run(&ctx, state))
}

/// What is told to the sender of a packet that goes no further.
#[cfg_attr(target_arch = "bpf", xdp)]
pub(crate) fn icmp(ctx: XdpContext) -> u32 {
    let Some(state) = State::resume() else { return xdp_action::XDP_ABORTED };
    state.end(&ctx, icmp::run(&ctx, state))
}

/// The end of step E for packets of a class that is shaped.
#[cfg_attr(target_arch = "bpf", xdp)]
pub(crate) fn shape(ctx: XdpContext) -> u32 {
    let Some(state) = State::resume() else { return xdp_action::XDP_ABORTED };
    state.end(&ctx, egress::run(&ctx, state))
}

/// Before step B while packets are sampled.
#[cfg_attr(target_arch = "bpf", xdp)]
pub(crate) fn sample_access(ctx: XdpContext) -> u32 {
    let Some(state) = State::resume() else { return xdp_action::XDP_ABORTED };
    sample::look_access(&ctx, state);
    state.end(&ctx, jump(&ctx, STAGE_ACCESS_ON))
}

/// Before step C while packets are sampled.
#[cfg_attr(target_arch = "bpf", xdp)]
pub(crate) fn sample_sid(ctx: XdpContext) -> u32 {
    let Some(state) = State::resume() else { return xdp_action::XDP_ABORTED };
    sample::look_sid(&ctx, state);
    state.end(&ctx, jump(&ctx, STAGE_SID_ON))
}

/// Tells of a packet that was chosen, at its end.
#[cfg_attr(target_arch = "bpf", xdp)]
pub(crate) fn sampled(_ctx: XdpContext) -> u32 {
    let Some(state) = State::resume() else { return xdp_action::XDP_ABORTED };
    sample::tell(state);
    state.action()
}

/// On the socket end of a compute port: frames go to the hook's AF_XDP socket, or nowhere.
#[cfg_attr(target_arch = "bpf", xdp)]
pub(crate) fn hook_rx(ctx: XdpContext) -> u32 {
    // SAFETY: a word; a concurrent change shows the old or the new.
    let hook = unsafe { HOOK_BY_IFINDEX.get(ingress_ifindex(&ctx)) }.copied();
    let Some(hook) = hook else { return xdp_action::XDP_DROP };
    if let Ok(action) = SOCKET.redirect(hook, xdp_action::XDP_DROP.into()) {
        return action;
    }
    if let Some(counters) = HOOK_COUNTERS.get_ptr_mut(hook) {
        // SAFETY: this CPU's own counters.
        unsafe { (*counters).no_socket += 1 };
    }
    // Once more received, and dropped: so the sums of what came and went stay equal.
    if let Some(counters) = PORT_COUNTERS.get_ptr_mut(u32::from(COMPUTE_PORT) + hook) {
        // SAFETY: this CPU's own counters.
        unsafe {
            (*counters).rx_packets += 1;
            (*counters).rx_bytes += packet::len(&ctx) as u64;
        }
    }
    if let Some(count) = DROPS.get_ptr_mut(drop::HOOK_DOWN.into()) {
        // SAFETY: this CPU's own counter.
        unsafe { *count += 1 };
    }
    xdp_action::XDP_DROP
}

/// Nothing but a redirect to the first device: what the pipeline is compared with.
#[cfg_attr(target_arch = "bpf", xdp)]
pub(crate) fn redirect(_ctx: XdpContext) -> u32 {
    DEVICE.redirect(0, 0).unwrap_or(xdp_action::XDP_ABORTED)
}

/// For interfaces that need a program and no pipeline, such as the far ends of benches.
#[cfg_attr(target_arch = "bpf", xdp)]
pub(crate) fn pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Counts and drops: the end of benches.
#[cfg_attr(target_arch = "bpf", xdp)]
pub(crate) fn discard(ctx: XdpContext) -> u32 {
    if let Some(counters) = PORT_COUNTERS.get_ptr_mut(0) {
        // SAFETY: this CPU's own counters.
        unsafe {
            (*counters).rx_packets += 1;
            (*counters).rx_bytes += packet::len(&ctx) as u64;
        }
    }
    xdp_action::XDP_DROP
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier would refuse this loop; that the programs load shows that it is not there.
    loop {}
}

/// The helpers used are for GPL-compatible programs.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
