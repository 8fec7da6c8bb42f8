//! Longest prefix match: the whole address in a hash map first, then, unless it is empty, a
//! trie of the shorter prefixes.

use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, HashMap, LpmTrie};
use selvedge_ebpf_common::key::{AddressKey, PREFIX_KEY_BITS};
use selvedge_ebpf_common::value::{
    ConfigValue, DeliveryValue, EndpointValue, RouteValue, SessionValue,
};

use super::maps::{
    CONFIG, DELIVERY_EXACT, DELIVERY_PREFIX, ENDPOINT_EXACT, ENDPOINT_PREFIX, PrefixData,
    ROUTE_EXACT, ROUTE_PREFIX, SESSION,
};

#[inline(always)]
pub(super) fn config() -> Option<&'static ConfigValue> {
    let config: &'static Array<ConfigValue> = &CONFIG;
    config.get(0)
}

/// Whether an address is one of this switch's own on N3.
#[inline(always)]
pub(super) fn is_n3(config: &ConfigValue, address: [u64; 2]) -> bool {
    // A place that is free is the unspecified address.
    if config.n3_addresses == 0 || address[0] | address[1] == 0 {
        return false;
    }
    // The highest bit is set unless the two are the same: one branch, not eight.
    let differs = |own: [u64; 2]| {
        let bits = (own[0] ^ address[0]) | (own[1] ^ address[1]);
        bits | bits.wrapping_neg()
    };
    differs(config.n3[0]) & differs(config.n3[1]) & differs(config.n3[2]) & differs(config.n3[3])
        < 1 << 63
}

#[inline(always)]
pub(super) fn session(teid: u32) -> Option<&'static SessionValue> {
    let sessions: &'static HashMap<u32, SessionValue> = &SESSION;
    // SAFETY: the value is read at once; one replaced meanwhile is freed after this program.
    unsafe { sessions.get(teid) }
}

#[inline(always)]
fn longest<V>(
    exact: &'static HashMap<AddressKey, V>,
    prefixes: &'static LpmTrie<PrefixData, V>,
    any_prefixes: u32,
    scope: u32,
    address: [u64; 2],
) -> Option<&'static V> {
    let key = AddressKey { address, scope, _pad: 0 };
    // SAFETY: the value is read at once; one replaced meanwhile is freed after this program.
    if let Some(value) = unsafe { exact.get(key) } {
        return Some(value);
    }
    if any_prefixes == 0 {
        return None;
    }
    let data = [
        scope,
        address[0] as u32,
        (address[0] >> 32) as u32,
        address[1] as u32,
        (address[1] >> 32) as u32,
    ];
    prefixes.get(Key::new(PREFIX_KEY_BITS, data))
}

#[inline(always)]
pub(super) fn endpoint(
    config: &ConfigValue,
    port: u32,
    source: [u64; 2],
) -> Option<&'static EndpointValue> {
    longest(&ENDPOINT_EXACT, &ENDPOINT_PREFIX, config.endpoint_prefixes, port, source)
}

#[inline(always)]
pub(super) fn route(
    config: &ConfigValue,
    slice_set: u16,
    destination: [u64; 2],
) -> Option<&'static RouteValue> {
    longest(&ROUTE_EXACT, &ROUTE_PREFIX, config.route_prefixes, slice_set.into(), destination)
}

#[inline(always)]
pub(super) fn delivery(
    config: &ConfigValue,
    slice: u16,
    destination: [u64; 2],
) -> Option<&'static DeliveryValue> {
    longest(&DELIVERY_EXACT, &DELIVERY_PREFIX, config.delivery_prefixes, slice.into(), destination)
}
