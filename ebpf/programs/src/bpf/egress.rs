//! Steps D's end and E: the virtual queue of the egress port, and out; or to the kernel's HTB.

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::programs::XdpContext;
use selvedge_ebpf_common::rate::{MAX_BACKLOG_PS, span_ps, until};
use selvedge_ebpf_common::value::{
    ConfigValue, PortCounters, QueueValue, SHAPED_CLASS, SHAPED_DELIVERED, SHAPED_MARK, ShapedMeta,
};
use selvedge_ebpf_common::{HTB_MAJOR, STAGE_SHAPE, drop};

use super::maps::{DEVICE, PORT, PORT_COUNTERS, QUEUE, QUEUE_STATE, SHAPER};
use super::meter::{Profile, charge, pay, prepay};
use super::state::State;
use super::{Step, jump, packet};

/// This CPU's counters of a port; `None`: there is no such port.
#[inline(always)]
pub(super) fn counters(port: u32) -> Option<*mut PortCounters> {
    PORT_COUNTERS.get_ptr_mut(port)
}

/// Charges a frame of `len` bytes to the port's virtual queue. `Ok(true)`: it is to be marked
/// if it is ECN-capable. In profile it always passes.
#[inline(always)]
pub(super) fn queue(
    config: &ConfigValue,
    state: State,
    port: u32,
    counters: *mut PortCounters,
    profile: Profile,
    len: u32,
) -> Result<bool, u8> {
    if config.metering == 0 {
        return Ok(false);
    }
    let Some(queue) = QUEUE.get(port) else { return Ok(false) };
    if queue.cost == 0 {
        return Ok(false);
    }
    if queue.shaped >> (profile.class & 3) & 1 != 0 {
        return shape(queue, state, port, profile, len);
    }
    let mut charged = len;
    let mut prepaid = None;
    if !profile.excess && queue.prepay_bytes != 0 {
        // SAFETY: this CPU's own.
        prepaid = Some(unsafe { &raw mut (*counters).prepaid_bytes });
        let Some(lacking) = pay(prepaid, queue.prepay_bytes, len) else { return Ok(false) };
        charged = lacking + queue.prepay_bytes;
    }
    let Some(words) = QUEUE_STATE.get_ptr_mut(port) else { return Ok(false) };
    // SAFETY: a field of a map value.
    let word = unsafe { &raw mut (*words).tat_ps };
    // SAFETY: a word of a map value.
    let tat = unsafe { word.read_volatile() };
    let now = state.now();
    let backlog = until(tat, now);
    let mut mark = false;
    if profile.excess {
        // A class is one of three; spelled out for the verifier.
        let threshold = match profile.class {
            0 => queue.threshold_ps[0],
            1 => queue.threshold_ps[1],
            _ => queue.threshold_ps[2],
        };
        if backlog >= threshold {
            return Err(drop::QUEUE_FULL);
        }
        mark = backlog > threshold >> 1;
    }
    // Excess is bounded by its threshold.
    if profile.excess || backlog < MAX_BACKLOG_PS {
        charge(word, tat, now, span_ps(queue.cost, charged));
        prepay(prepaid, queue.prepay_bytes);
    }
    Ok(mark)
}

/// Admits a frame to the queue of its class in HTB. What is admitted is charged to the port's
/// virtual queue as well, so that the other classes leave room for it.
#[inline(always)]
fn shape(
    queue: &QueueValue,
    state: State,
    port: u32,
    profile: Profile,
    len: u32,
) -> Result<bool, u8> {
    let shaper = SHAPER.get(port).ok_or(drop::QUEUE_FULL)?;
    let words = QUEUE_STATE.get_ptr_mut(port).ok_or(drop::QUEUE_FULL)?;
    // SAFETY: fields of a map value.
    let (port_word, class_words) =
        unsafe { (&raw mut (*words).tat_ps, &raw mut (*words).class_tat_ps) };
    // Spelled out for the verifier.
    let (cost, threshold, word) = match profile.class {
        0 => (shaper.cost[0], shaper.threshold_ps[0], class_words.cast()),
        // SAFETY: a field of the same value.
        1 => (shaper.cost[1], shaper.threshold_ps[1], unsafe { class_words.cast::<u64>().add(1) }),
        // SAFETY: a field of the same value.
        _ => (shaper.cost[2], shaper.threshold_ps[2], unsafe { class_words.cast::<u64>().add(2) }),
    };
    // SAFETY: a word of a map value.
    let tat = unsafe { word.read_volatile() };
    let now = state.now();
    let backlog = until(tat, now);
    if backlog >= if profile.excess { threshold } else { MAX_BACKLOG_PS } {
        return Err(drop::QUEUE_FULL);
    }
    charge(word, tat, now, span_ps(cost, len));
    // SAFETY: a word of a map value.
    let tat = unsafe { port_word.read_volatile() };
    if until(tat, now) < MAX_BACKLOG_PS {
        charge(port_word, tat, now, span_ps(queue.cost, len));
    }
    state.set_shaped(1 + (profile.class & 3));
    Ok(profile.excess && backlog > threshold >> 1)
}

/// As what a frame leaves; with its mark, 0 or 1.
#[derive(Clone, Copy)]
pub(super) enum Leaves {
    /// In an outer header, which has the mark.
    Encapsulated(u32),
    /// To the endpoint.
    Delivered(u32),
}

/// Sends the frame of `len` bytes out of `port`, whose `counters` these are.
#[inline(always)]
pub(super) fn send(
    ctx: &XdpContext,
    state: State,
    port: u32,
    counters: *mut PortCounters,
    len: u32,
    leaves: Leaves,
) -> Step {
    let shaped = state.shaped();
    if shaped != 0 {
        let (flag, mark) = match leaves {
            Leaves::Encapsulated(mark) => (0, mark),
            Leaves::Delivered(mark) => (SHAPED_DELIVERED, mark),
        };
        let mark = if mark & 1 != 0 { SHAPED_MARK } else { 0 };
        state.set_shaped(shaped | flag | mark);
        state.set_label(port);
        return jump(ctx, STAGE_SHAPE);
    }
    if DEVICE.redirect(port, xdp_action::XDP_DROP.into()).is_err() {
        return Err(drop::PORT_DOWN);
    }
    count(state, counters, len, leaves);
    // SAFETY: this CPU's own counters.
    unsafe { (*counters).give(len as u16) };
    Ok(state.forwarded(port))
}

#[inline(always)]
fn count(state: State, counters: *mut PortCounters, len: u32, leaves: Leaves) {
    // SAFETY: this CPU's own counters.
    unsafe {
        (*counters).tx_packets += 1;
        (*counters).tx_bytes += u64::from(len);
    }
    match leaves {
        // SAFETY: this CPU's own counters.
        Leaves::Encapsulated(mark) => unsafe { (*counters).tx_marked[(mark & 1) as usize] += 1 },
        Leaves::Delivered(mark) => state.delivered(mark),
    }
}

/// Gives a frame to the kernel, where the program `shaped` finds it and has it queued in HTB.
#[inline(always)]
pub(super) fn run(ctx: &XdpContext, state: State) -> Step {
    let (port, shaped) = (state.label(), state.shaped());
    let counters = counters(port).ok_or(drop::PORT_DOWN)?;
    let ifindex = PORT.get(port).map_or(0, |value| value.ifindex);
    if ifindex == 0 {
        return Err(drop::PORT_DOWN);
    }
    let priority = HTB_MAJOR << 16 | u32::from(shaped & SHAPED_CLASS);
    packet::put_meta(ctx, ShapedMeta { ifindex, priority, nonce: state.now() })?;
    let mark = u32::from(shaped & SHAPED_MARK != 0);
    let delivered = shaped & SHAPED_DELIVERED != 0;
    let leaves = if delivered { Leaves::Delivered(mark) } else { Leaves::Encapsulated(mark) };
    let len = packet::len(ctx) as u32;
    count(state, counters, len, leaves);
    // Nothing that HTB is given is refused: it was admitted.
    // SAFETY: this CPU's own counters.
    unsafe {
        (*counters).left_packets += 1;
        (*counters).left_bytes += u64::from(len);
    }
    state.forwarded(port);
    Ok(xdp_action::XDP_PASS)
}
