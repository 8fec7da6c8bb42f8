//! Step B.9: class and colour of a packet.

use selvedge_ebpf_common::rate::{commit, decide, span_ps};
use selvedge_ebpf_common::value::{
    CLASS_BEST_EFFORT, CLASS_GUARANTEED, CLASS_URLLC, ConfigValue, SliceCounters,
};
use selvedge_ebpf_common::{MAX_SLICE_ID, drop, slice_slot};

use super::atomic;
use super::maps::{METER, METER_STATE};
use super::state::State;

/// What the outer traffic class says.
#[derive(Clone, Copy)]
pub(super) struct Profile {
    pub(super) class: u8,
    pub(super) excess: bool,
}

impl Profile {
    pub(super) const BEST_EFFORT: Self = Self { class: CLASS_BEST_EFFORT, excess: true };

    /// AF41 and AF42 (RFC 2597), EF (RFC 3246) and VOICE-ADMIT (RFC 5865).
    #[inline(always)]
    pub(super) fn dscp(self) -> u8 {
        match (self.class, self.excess) {
            (CLASS_GUARANTEED, false) => 34,
            (CLASS_GUARANTEED, true) => 36,
            (CLASS_URLLC, false) => 46,
            (CLASS_URLLC, true) => 44,
            _ => 0,
        }
    }

    /// A code point that is none of ours is best effort.
    #[inline(always)]
    pub(super) fn from_dscp(dscp: u8) -> Self {
        match dscp {
            34 => Self { class: CLASS_GUARANTEED, excess: false },
            36 => Self { class: CLASS_GUARANTEED, excess: true },
            46 => Self { class: CLASS_URLLC, excess: false },
            44 => Self { class: CLASS_URLLC, excess: true },
            _ => Self::BEST_EFFORT,
        }
    }
}

/// Charges `len` bytes of a packet to its slice's rates. `Ok(None)`: the slice is not metered
/// here.
///
/// A packet within the guarantee passes whatever the maximum says, and is charged to both; so
/// the excess of a slice is what its maximum leaves beyond its guarantee. `counters`: of the
/// slice and direction, where packets are enough that paying in advance is worth it.
#[inline(always)]
pub(super) fn meter(
    config: &ConfigValue,
    state: State,
    slice: u16,
    direction: u8,
    len: u32,
    counters: Option<*mut SliceCounters>,
) -> Result<Option<Profile>, u8> {
    if slice > MAX_SLICE_ID {
        return Ok(None);
    }
    let slot = slice_slot(slice, direction);
    let Some(meter) = METER.get(slot) else { return Ok(None) };
    if meter.present == 0 {
        return Ok(None);
    }
    let class = meter.class;
    if config.metering == 0 {
        return Ok(Some(Profile { class, excess: meter.guaranteed_cost == 0 }));
    }
    // SAFETY: this CPU's own.
    let prepaid = counters.map(|counters| unsafe { &raw mut (*counters).prepaid_bytes });
    let more = if prepaid.is_some() { meter.prepay_bytes } else { 0 };
    let Some(lacking) = pay(prepaid, more, len) else {
        return Ok(Some(Profile { class, excess: false }));
    };
    let Some(words) = METER_STATE.get_ptr_mut(slot) else { return Ok(None) };
    // SAFETY: fields of a map value.
    let (guaranteed, maximum) =
        unsafe { (&raw mut (*words).guaranteed_ps, &raw mut (*words).maximum_ps) };
    let now = state.now();

    let mut charged = len;
    let mut excess = true;
    if meter.guaranteed_cost != 0 {
        // SAFETY: a word of a map value.
        let tat = unsafe { guaranteed.read_volatile() };
        let tolerance = meter.guaranteed_tolerance_ps;
        let fits = |bytes| {
            let span = span_ps(meter.guaranteed_cost, bytes);
            decide(tat, now, span, tolerance).conforms.then_some(span)
        };
        let ahead = lacking + more;
        if let Some(span) = fits(ahead) {
            charge(guaranteed, tat, now, span);
            prepay(prepaid, more);
            (charged, excess) = (ahead, false);
        } else if let Some(span) = fits(len) {
            charge(guaranteed, tat, now, span);
            excess = false;
        }
    }
    if meter.maximum_cost != 0 {
        let span = span_ps(meter.maximum_cost, charged);
        // SAFETY: a word of a map value.
        let tat = unsafe { maximum.read_volatile() };
        if excess && !decide(tat, now, span, meter.maximum_tolerance_ps).conforms {
            return Err(drop::OVER_MAXIMUM);
        }
        charge(maximum, tat, now, span);
    }
    Ok(Some(Profile { class, excess }))
}

/// Takes `len` bytes from what this CPU has paid for in advance; the bytes that are lacking, if it
/// was not enough.
#[inline(always)]
pub(super) fn pay(prepaid: Option<*mut u64>, prepay_bytes: u32, len: u32) -> Option<u32> {
    let Some(prepaid) = prepaid.filter(|_| prepay_bytes != 0) else { return Some(len) };
    // SAFETY: callers give a word of a map value that is this CPU's own.
    let left = unsafe { *prepaid };
    if left < u64::from(len) {
        return Some(len - left as u32);
    }
    // SAFETY: as above.
    unsafe { *prepaid = left - u64::from(len) };
    None
}

/// This CPU has paid for so many bytes beyond those that it sends.
#[inline(always)]
pub(super) fn prepay(prepaid: Option<*mut u64>, prepay_bytes: u32) {
    if let Some(prepaid) = prepaid.filter(|_| prepay_bytes != 0) {
        // SAFETY: as in [`pay`].
        unsafe { *prepaid = prepay_bytes.into() };
    }
}

/// Charges a word of a map value.
#[inline(always)]
pub(super) fn charge(word: *mut u64, tat: u64, now: u64, span: u64) {
    commit(
        tat,
        now,
        span,
        // SAFETY: callers give words of map values.
        |span| unsafe { atomic::add(word, span) },
        // SAFETY: callers give words of map values.
        |old, new| unsafe { atomic::swap(word, old, new) },
    );
}
