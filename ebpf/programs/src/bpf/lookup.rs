//! Longest prefix match: the whole address first (`selvedge_ebpf_common::exact`), then, unless it
//! is empty, a trie of the shorter prefixes.

use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, HashMap, LpmTrie};
use selvedge_ebpf_common::exact::{
    self, COMPARED, LIVE, NARROW, NarrowLine, NarrowRow, WIDE, WideLine, WideRow, narrow_hash,
    narrow_key, wide_hash,
};
use selvedge_ebpf_common::key::PREFIX_KEY_BITS;
use selvedge_ebpf_common::value::{
    ConfigValue, EndpointData, GnbValue, PathSetValue, PrefixValue, ProfileValue, RouteData,
    SessionData,
};

use super::maps::{
    CONFIG, DELIVERY_PREFIX, DELIVERY_V4, DELIVERY_V4_AT, DELIVERY_V6, DELIVERY_V6_AT,
    ENDPOINT_PREFIX, ENDPOINT_V4, ENDPOINT_V4_AT, ENDPOINT_V6, ENDPOINT_V6_AT, GNB, PATH_SET,
    PROFILE, PrefixData, ROUTE_PREFIX, ROUTE_V4, ROUTE_V4_AT, ROUTE_V6, ROUTE_V6_AT, SESSION,
    SESSION_AT, SESSION_V6, SESSION_V6_AT,
};

/// Looks at a row, where the group's displacement or the row itself changes meanwhile.
const LOOKS: u32 = 3;

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

/// What came of a look at a row.
enum Look<T> {
    Found(T),
    /// It was written meanwhile.
    Changed,
    None,
}

/// Looks at the row of a key, then at the others of its line, and again for as long as it is
/// another one by then.
#[inline(always)]
fn find<L, T>(
    lines: &'static Array<L>,
    n_rows: u32,
    places: &'static Array<u64>,
    hash: u64,
    look: impl Fn(&'static L, u32) -> Look<T>,
) -> Option<T> {
    let group = exact::group(hash);
    let place = places.get(group / exact::IN_WORD)?;
    let mut now = read(place);
    let mut looks = LOOKS;
    loop {
        let row = exact::row(hash, exact::displacement(now, group));
        let line = lines.get(row / n_rows)?;
        let mut none = true;
        let mut at = row;
        let mut left = n_rows;
        loop {
            match look(line, at & (n_rows - 1)) {
                Look::Found(found) => return Some(found),
                Look::Changed => none = false,
                Look::None => {}
            }
            at += 1;
            left = one_less(left);
            if left == 0 {
                break;
            }
        }
        let before = now;
        now = read(place);
        looks = one_less(looks);
        if looks == 0 || none && now == before {
            return None;
        }
    }
}

/// The agent writes meanwhile, and what is read first has been written last.
#[inline(always)]
fn read(word: &u64) -> u64 {
    // SAFETY: a word of a map value.
    unsafe { core::ptr::from_ref(word).read_volatile() }
}

/// The data of a key, in one table of narrow rows.
#[inline(always)]
fn narrow(lines: &'static Array<NarrowLine>, places: &'static Array<u64>, key: u64) -> Option<u64> {
    let wanted = key | LIVE;
    find(lines, NARROW, places, narrow_hash(key), |line, row| {
        let row: &NarrowRow = &line.rows[row as usize];
        let found = read(&row.key);
        if (found ^ wanted) & COMPARED != 0 {
            return Look::None;
        }
        let data = read(&row.data);
        if read(&row.key) == found { Look::Found(data) } else { Look::Changed }
    })
}

/// The address and the data of a key, in one table of wide rows: that `scope`, and an address of
/// which `differs` is 0.
#[inline(always)]
fn wide(
    lines: &'static Array<WideLine>,
    places: &'static Array<u64>,
    hash: u64,
    scope: u32,
    differs: impl Fn([u64; 2]) -> u64,
) -> Option<([u64; 2], u64)> {
    let wanted = u64::from(scope) | LIVE;
    find(lines, WIDE, places, hash, |line, row| {
        let row: &WideRow = &line.rows[row as usize];
        let found = read(&row.key);
        let address = [read(&row.address[0]), read(&row.address[1])];
        if (found ^ wanted) & COMPARED | differs(address) != 0 {
            return Look::None;
        }
        let data = read(&row.data);
        if read(&row.key) == found { Look::Found((address, data)) } else { Look::Changed }
    })
}

/// In assembly, so that the compiler does not write out the loop.
#[cfg(target_arch = "bpf")]
#[inline(always)]
fn one_less(mut count: u32) -> u32 {
    // SAFETY: a sum in a register.
    unsafe {
        core::arch::asm!(
            "{count} += -1",
            count = inout(reg) count,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    count
}

#[cfg(not(target_arch = "bpf"))]
fn one_less(count: u32) -> u32 {
    count - 1
}

#[inline(always)]
pub(super) fn path_set(policy: u32) -> Option<&'static PathSetValue> {
    let sets: &'static HashMap<u32, PathSetValue> = &PATH_SET;
    // SAFETY: the value is read at once; one replaced meanwhile is freed after this program.
    unsafe { sets.get(policy) }
}

#[inline(always)]
pub(super) fn session(teid: u32) -> Option<SessionData> {
    narrow(&SESSION, &SESSION_AT, teid.into()).map(SessionData::unpack)
}

/// What the UE of a PDU session sends from over IPv6.
#[inline(always)]
pub(super) fn session_v6(teid: u32) -> Option<[u64; 2]> {
    let hash = wide_hash(teid, [0; 2]);
    wide(&SESSION_V6, &SESSION_V6_AT, hash, teid, |_| 0).map(|(prefix, _)| prefix)
}

#[inline(always)]
pub(super) fn profile(profile: u32) -> Option<&'static ProfileValue> {
    let profiles: &'static Array<ProfileValue> = &PROFILE;
    profiles.get(profile)
}

#[inline(always)]
pub(super) fn gnb(gnb: u16) -> Option<&'static GnbValue> {
    let gnbs: &'static Array<GnbValue> = &GNB;
    gnbs.get(gnb.into())
}

/// A table's maps.
struct Table {
    v4: (&'static Array<NarrowLine>, &'static Array<u64>),
    v6: (&'static Array<WideLine>, &'static Array<u64>),
    prefixes: &'static LpmTrie<PrefixData, PrefixValue>,
}

/// What it says of an address, in one word; `version` is that of the packet the address is in.
#[inline(always)]
fn longest(
    table: &Table,
    any_prefixes: u32,
    scope: u32,
    address: [u64; 2],
    version: u8,
) -> Option<u64> {
    let exact = if version == 4 {
        narrow(table.v4.0, table.v4.1, narrow_key(scope as u16, (address[1] >> 32) as u32))
    } else {
        let differs = |of: [u64; 2]| (of[0] ^ address[0]) | (of[1] ^ address[1]);
        let found = wide(table.v6.0, table.v6.1, wide_hash(scope, address), scope, differs);
        found.map(|(_, data)| data)
    };
    if exact.is_some() {
        return exact;
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
    Some(table.prefixes.get(Key::new(PREFIX_KEY_BITS, data))?.data)
}

#[inline(always)]
pub(super) fn endpoint(
    config: &ConfigValue,
    port: u32,
    source: [u64; 2],
    version: u8,
) -> Option<EndpointData> {
    let table = Table {
        v4: (&ENDPOINT_V4, &ENDPOINT_V4_AT),
        v6: (&ENDPOINT_V6, &ENDPOINT_V6_AT),
        prefixes: &ENDPOINT_PREFIX,
    };
    longest(&table, config.endpoint_prefixes, port, source, version).map(EndpointData::unpack)
}

#[inline(always)]
pub(super) fn route(
    config: &ConfigValue,
    slice_set: u16,
    destination: [u64; 2],
    version: u8,
) -> Option<RouteData> {
    let table = Table {
        v4: (&ROUTE_V4, &ROUTE_V4_AT),
        v6: (&ROUTE_V6, &ROUTE_V6_AT),
        prefixes: &ROUTE_PREFIX,
    };
    let found = longest(&table, config.route_prefixes, slice_set.into(), destination, version);
    found.map(RouteData::unpack)
}

/// A way, or a tunnel: see `TunnelData`.
#[inline(always)]
pub(super) fn delivery(
    config: &ConfigValue,
    slice: u16,
    destination: [u64; 2],
    version: u8,
) -> Option<u64> {
    let table = Table {
        v4: (&DELIVERY_V4, &DELIVERY_V4_AT),
        v6: (&DELIVERY_V6, &DELIVERY_V6_AT),
        prefixes: &DELIVERY_PREFIX,
    };
    longest(&table, config.delivery_prefixes, slice.into(), destination, version)
}
