//! Step B.9: class and colour of a packet, by the rates of its endpoint and of its slice.

use selvedge_ebpf_common::rate::{commit, decide, span_ps};
use selvedge_ebpf_common::value::{
    CLASS_BEST_EFFORT, CLASS_GUARANTEED, CLASS_URLLC, ConfigValue, MeterState, MeterValue,
    SliceCounters,
};
use selvedge_ebpf_common::{MAX_SLICE_ID, drop, endpoint_meter_key, slice_slot};

use super::atomic;
use super::maps::{ENDPOINT_METER, METER, METER_STATE};
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

/// What the rates of its own say of an endpoint's packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    /// It has no guarantee of its own, and shares its slice's.
    None,
    Within,
    Beyond,
}

/// Charges `len` bytes of a packet to the rates of its endpoint; 0: it has none.
#[inline(always)]
pub(super) fn own_rates(
    config: &ConfigValue,
    state: State,
    slice: u16,
    direction: u8,
    endpoint: u16,
    len: u32,
) -> Result<Own, u8> {
    if endpoint == 0 || config.metering == 0 {
        return Ok(Own::None);
    }
    let key = endpoint_meter_key(slice, direction, endpoint);
    let Some(rates) = ENDPOINT_METER.get_ptr_mut(key) else { return Ok(Own::None) };
    // SAFETY: of a map value, of which the agent changes no part while it is in the map.
    let meter = unsafe { &(*rates).meter };
    // SAFETY: fields of a map value.
    let words = unsafe { Words::of(&raw mut (*rates).state) };
    let now = state.now();
    let charged = guarantee(meter, words, now, len, len, Own::None);
    limit(meter, words, now, charged.unwrap_or(len), charged.is_some())
        .map_err(|_| drop::OVER_ENDPOINT_MAXIMUM)?;
    Ok(match charged {
        _ if meter.guaranteed_cost == 0 => Own::None,
        Some(_) => Own::Within,
        None => Own::Beyond,
    })
}

/// Charges `len` bytes of a packet to its slice's rates. `Ok(None)`: the slice is not metered
/// here.
///
/// A packet within the guarantee passes whatever the maximum says, and is charged to both; so
/// the excess of a slice is what its maximum leaves beyond its guarantee. In the same way what is
/// within an endpoint's own guarantee is within its slice's, and charged to it. `counters`: of the
/// slice and direction, where packets are enough that paying in advance is worth it.
#[inline(always)]
pub(super) fn meter(
    config: &ConfigValue,
    state: State,
    slice: u16,
    direction: u8,
    len: u32,
    counters: Option<*mut SliceCounters>,
    own: Own,
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
    let prepaid = prepaid.filter(|_| own != Own::Beyond);
    let more = if prepaid.is_some() { meter.prepay_bytes } else { 0 };
    let Some(lacking) = pay(prepaid, more, len) else {
        return Ok(Some(Profile { class, excess: false }));
    };
    let Some(words) = METER_STATE.get_ptr_mut(slot) else { return Ok(None) };
    // SAFETY: fields of a map value.
    let words = unsafe { Words::of(words) };
    let now = state.now();
    let charged = guarantee(meter, words, now, len, lacking + more, own);
    if charged.is_some_and(|charged| charged == lacking + more) {
        prepay(prepaid, more);
    }
    let excess = charged.is_none();
    limit(meter, words, now, charged.unwrap_or(len), !excess)?;
    Ok(Some(Profile { class, excess }))
}

/// Arrival times of a rate that is guaranteed and of a maximum, words of a map value.
#[derive(Clone, Copy)]
struct Words {
    guaranteed: *mut u64,
    maximum: *mut u64,
}

impl Words {
    /// # Safety
    /// `state` points to a map value.
    #[inline(always)]
    unsafe fn of(state: *mut MeterState) -> Self {
        // SAFETY: by this function's contract.
        unsafe {
            Self {
                guaranteed: &raw mut (*state).guaranteed_ps,
                maximum: &raw mut (*state).maximum_ps,
            }
        }
    }
}

/// Charges a packet of `len` bytes to the guarantee: `ahead` bytes if they conform, else its own.
/// What was charged; `None`: it is excess.
#[inline(always)]
fn guarantee(
    meter: &MeterValue,
    words: Words,
    now: u64,
    len: u32,
    ahead: u32,
    own: Own,
) -> Option<u32> {
    if meter.guaranteed_cost == 0 || own == Own::Beyond {
        return None;
    }
    // SAFETY: a word of a map value.
    let tat = unsafe { words.guaranteed.read_volatile() };
    let fits = |bytes| {
        let span = span_ps(meter.guaranteed_cost, bytes);
        let conforms = decide(tat, now, span, meter.guaranteed_tolerance_ps).conforms;
        conforms.then_some(span)
    };
    let (charged, span) = if let Some(span) = fits(ahead) {
        (ahead, span)
    } else if let Some(span) = fits(len) {
        (len, span)
    } else if own == Own::Within {
        (len, span_ps(meter.guaranteed_cost, len))
    } else {
        return None;
    };
    charge(words.guaranteed, tat, now, span);
    Some(charged)
}

/// Charges `charged` bytes to the maximum, if there is one, and if they conform or are within the
/// guarantee.
#[inline(always)]
fn limit(
    meter: &MeterValue,
    words: Words,
    now: u64,
    charged: u32,
    guaranteed: bool,
) -> Result<(), u8> {
    if meter.maximum_cost == 0 {
        return Ok(());
    }
    let span = span_ps(meter.maximum_cost, charged);
    // SAFETY: a word of a map value.
    let tat = unsafe { words.maximum.read_volatile() };
    if !guaranteed && !decide(tat, now, span, meter.maximum_tolerance_ps).conforms {
        return Err(drop::OVER_MAXIMUM);
    }
    charge(words.maximum, tat, now, span);
    Ok(())
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
