//! Keys of the hash and prefix maps: a scope (port, slice set or slice) and an address of 128
//! bits. An IPv4 address is its IPv4-mapped form, `::ffff:a.b.c.d`, as in P4Info, so a prefix
//! shorter than 96 bits matches both versions.

use core::mem::{align_of, size_of};

use crate::Plain;

/// Key of `RECENT`: one address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressKey {
    /// In wire order.
    pub address: [u64; 2],
    /// Port.
    pub scope: u32,
    pub _pad: u32,
}

const _: () = assert!(size_of::<AddressKey>() == 24 && align_of::<AddressKey>() == 8);
// SAFETY: `repr(C)`, integers only, no implicit padding (asserted above).
unsafe impl Plain for AddressKey {}

/// Key of the `*_PREFIX` maps (`BPF_MAP_TYPE_LPM_TRIE`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixKey {
    /// Bits that count, from the first of `scope` on: 32 + prefix length, and 96 more for IPv4.
    pub bits: u32,
    pub scope: u32,
    /// In wire order.
    pub address: [u32; 4],
}

/// Bits of [`PrefixKey`] that a whole address has.
pub const PREFIX_KEY_BITS: u32 = 32 + 128;

const _: () = assert!(size_of::<PrefixKey>() == 24 && align_of::<PrefixKey>() == 4);
// SAFETY: `repr(C)`, integers only, no implicit padding (asserted above).
unsafe impl Plain for PrefixKey {}
