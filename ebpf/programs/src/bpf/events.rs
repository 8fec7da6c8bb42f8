//! Telling the agent about sources that are not bound to the port they were seen on.

use selvedge_ebpf_common::key::AddressKey;
use selvedge_ebpf_common::rate::decide;
use selvedge_ebpf_common::value::{EVENTS_PER_SECOND, QueueState, RECENT_NS, SeenEvent};

use super::maps::{EVENT_RATE, EVENTS, RECENT};
use super::meter::charge;
use super::state::State;

/// Whether one more is within `PER_SECOND` in a second and at once; charges it.
#[inline(always)]
pub(super) fn within<const PER_SECOND: u64>(rate: Option<*mut QueueState>, now: u64) -> bool {
    let span = const { 1_000_000_000_000 / PER_SECOND };
    let Some(rate) = rate else { return false };
    // SAFETY: a field of a map value.
    let word = unsafe { &raw mut (*rate).tat_ps };
    // SAFETY: a word of a map value.
    let tat = unsafe { word.read_volatile() };
    let conforms = decide(tat, now, span, span * PER_SECOND).conforms;
    if conforms {
        charge(word, tat, now, span);
    }
    conforms
}

/// Whether [`within`] would have one more, a moment ago.
#[inline(always)]
pub(super) fn are_left<const PER_SECOND: u64>(rate: Option<*mut QueueState>, now: u64) -> bool {
    let span = const { 1_000_000_000_000 / PER_SECOND };
    // SAFETY: a word of a map value.
    let tat = rate.map(|rate| unsafe { (&raw const (*rate).tat_ps).read_volatile() });
    tat.is_some_and(|tat| decide(tat, now, span, span * PER_SECOND).conforms)
}

/// Tells of `address` on the packet's port, unless it was told a moment ago or the port has
/// told enough. A flood of forged sources costs one look-up a packet, and the port's own
/// events.
#[inline(always)]
pub(super) fn seen(state: State, mac: [u8; 6], address: [u64; 2]) {
    let port = state.port();
    let now = state.now();
    let now_ns = now / 1000;
    let key = AddressKey { address, scope: port, _pad: 0 };
    // SAFETY: the value is read at once.
    if let Some(told) = unsafe { RECENT.get(key) }
        && now_ns.wrapping_sub(*told) < RECENT_NS
    {
        return;
    }
    if !within::<EVENTS_PER_SECOND>(EVENT_RATE.get_ptr_mut(port), now) {
        return;
    }
    let event = SeenEvent { address, mac, port: port as u16 };
    if EVENTS.output(event, 0).is_ok() {
        // A full map makes room for itself.
        let _ = RECENT.insert(key, now_ns, 0);
    }
}
