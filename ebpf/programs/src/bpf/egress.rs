//! Steps D's end and E: the virtual queue of the egress port, and out.

use aya_ebpf::bindings::xdp_action;
use selvedge_ebpf_common::drop;
use selvedge_ebpf_common::rate::{MAX_BACKLOG_PS, span_ps, until};
use selvedge_ebpf_common::value::{ConfigValue, PortCounters};

use super::Step;
use super::maps::{DEVICE, PORT_COUNTERS, QUEUE, QUEUE_STATE};
use super::meter::{Profile, charge, pay, prepay};
use super::state::State;

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

/// Sends the frame of `len` bytes out of `port`, whose `counters` these are. `mark`: its outer
/// header's, if it has one.
#[inline(always)]
pub(super) fn send(
    state: State,
    port: u32,
    counters: *mut PortCounters,
    len: u32,
    mark: Option<u32>,
) -> Step {
    if DEVICE.redirect(port, xdp_action::XDP_DROP.into()).is_err() {
        return Err(drop::PORT_DOWN);
    }
    // SAFETY: this CPU's own counters.
    unsafe {
        (*counters).tx_packets += 1;
        (*counters).tx_bytes += u64::from(len);
        if let Some(mark) = mark {
            (*counters).tx_marked[(mark & 1) as usize] += 1;
        }
        (*counters).give(len as u16);
    }
    Ok(state.forwarded(port))
}
