//! Tables in which a packet finds a key with one look at one cache line: hash and displace (Pagh
//! 1999; Belazzougui, Botelho and Dietzfelbinger 2009), in buckets.
//!
//! A key belongs to one of [`GROUPS`] groups by its hash, and its row follows from the hash and its
//! group's displacement. The agent chooses displacements so that no two keys have one row or, where
//! that would take long, so that one of them has another row of the same line; what is little and
//! hot is the array of displacements. So a key that a packet has not met for a while costs one
//! cache line, where the kernel's hash map costs two or three, one after the other; and
//! lines are four fifths full, so that 100,000 keys stay in a cache where they can: rows are
//! narrow (IPv4, TEIDs) or wide (IPv6), in tables of their own.
//!
//! The agent is the only writer. A row never moves under a packet: a group that needs another
//! displacement is written to its new rows, then the displacement changes, then the old rows are
//! freed. The number of times that a row was written or freed, beside its key, tells a reader that
//! this happened meanwhile; it is odd where there is a key.

use core::mem::size_of;

use crate::Plain;

/// Keys of a table.
pub const MAX_KEYS: u32 = 131_072;
pub const ROWS: u32 = 163_840;
/// Rows of a line.
pub const NARROW: u32 = 4;
pub const WIDE: u32 = 2;

pub const GROUPS: u32 = 65_536;
/// Displacements in one word of their array.
pub const IN_WORD: u32 = 4;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NarrowRow {
    /// The key (47..0), and how often the row was written or freed (63..48).
    pub key: u64,
    pub data: u64,
}

/// One cache line.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NarrowLine {
    pub rows: [NarrowRow; NARROW as usize],
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WideRow {
    /// In wire order.
    pub address: [u64; 2],
    pub data: u64,
    /// The scope (47..0), and how often the row was written or freed (63..48).
    pub key: u64,
}

/// One cache line.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WideLine {
    pub rows: [WideRow; WIDE as usize],
}

const _: () = assert!(size_of::<NarrowLine>() == 64 && size_of::<WideLine>() == 64);
// SAFETY: `repr(C)`, `u64`s only.
unsafe impl Plain for NarrowLine {}
// SAFETY: `repr(C)`, `u64`s only.
unsafe impl Plain for WideLine {}

/// Set in the key of a row that is in use.
pub const LIVE: u64 = 1 << 48;
/// What a reader compares of a row's key.
pub const COMPARED: u64 = LIVE | (LIVE - 1);

/// The key of a row that is written (with [`LIVE`] set) or freed, after `before`.
pub const fn next_key(before: u64, key: u64) -> u64 {
    ((before >> 48) + 1) << 48 | key & (LIVE - 1)
}

/// A narrow key: an IPv4 address in wire order, and a scope.
#[inline(always)]
pub const fn narrow_key(scope: u16, address: u32) -> u64 {
    (scope as u64) << 32 | address as u64
}

// Odd, from the digits of the golden ratio and of pi.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
const PI: [u64; 3] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7345, 0xa409_3822_299f_31d0];

#[inline(always)]
pub const fn narrow_hash(key: u64) -> u64 {
    let one = key.wrapping_mul(GOLDEN);
    let two = (one ^ one >> 32).wrapping_mul(PI[0]);
    two ^ two >> 32
}

#[inline(always)]
pub const fn wide_hash(scope: u32, address: [u64; 2]) -> u64 {
    let one = ((scope as u64) << 32 ^ address[0] ^ scope as u64).wrapping_mul(GOLDEN);
    let two = address[1].wrapping_mul(PI[0]);
    let both = one ^ two.rotate_left(32);
    let mixed = (both ^ both >> 29).wrapping_mul(PI[1]);
    mixed ^ mixed >> 32
}

#[inline(always)]
pub const fn group(hash: u64) -> u32 {
    hash as u32 & (GROUPS - 1)
}

/// A group's displacement in its word.
#[inline(always)]
pub const fn displacement(word: u64, group: u32) -> u16 {
    (word >> ((group % IN_WORD) * 16)) as u16
}

/// The word with another one.
pub const fn displaced(word: u64, group: u32, displacement: u16) -> u64 {
    let shift = (group % IN_WORD) * 16;
    word & !(0xffff << shift) | (displacement as u64) << shift
}

/// The row of a key, counted over all lines.
#[inline(always)]
pub const fn row(hash: u64, displacement: u16) -> u32 {
    let factor = (displacement as u64).wrapping_mul(PI[2]) | 1;
    let spread = hash.wrapping_mul(factor) >> 32;
    ((spread * ROWS as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses and scopes as they are: one after the other.
    fn hashes() -> impl Iterator<Item = u64> {
        let v4 = |n: u32| (0x0a40_0000 + n).to_be();
        let sessions = (1..=MAX_KEYS).map(|teid| narrow_hash(teid.into()));
        let hosts = (0..MAX_KEYS).map(move |n| narrow_hash(narrow_key(7, v4(n))));
        let prefixes = (0..u64::from(MAX_KEYS))
            .map(|n| wide_hash(3, [u64::from_be(0xfd10 << 48 | n), 1 << 56]));
        sessions.chain(hosts).chain(prefixes)
    }

    /// At least as evenly as by chance: Poisson of mean 2.
    #[test]
    fn keys_spread_over_groups() {
        let mut hashes = hashes();
        for _ in 0..3 {
            let mut sizes = vec![0u32; GROUPS as usize];
            for hash in hashes.by_ref().take(MAX_KEYS as usize) {
                sizes[group(hash) as usize] += 1;
            }
            let share = |of: fn(&u32) -> bool| {
                sizes.iter().filter(|size| of(size)).count() as f64 / f64::from(GROUPS)
            };
            assert!(share(|size| *size == 0) < 0.14);
            assert!(share(|size| *size > 4) < 0.055);
            assert!(*sizes.iter().max().unwrap() < 16);
        }
    }

    #[test]
    fn a_displacement_sends_the_keys_of_a_group_to_any_rows() {
        let mut groups = vec![Vec::new(); GROUPS as usize];
        for hash in hashes().take(MAX_KEYS as usize) {
            groups[group(hash) as usize].push(hash);
        }
        for hashes in groups.iter().filter(|hashes| hashes.len() > 1) {
            let parted = (0..100).filter(|d| {
                let mut rows: Vec<u32> = hashes.iter().map(|hash| row(*hash, *d)).collect();
                assert!(rows.iter().all(|row| *row < ROWS));
                rows.sort_unstable();
                rows.dedup();
                rows.len() == hashes.len()
            });
            assert!(parted.count() > 90);
        }
    }

    #[test]
    fn a_key_is_live_every_second_time() {
        let mut key = 0;
        for time in 1..200_000u64 {
            key = next_key(key, 0x1234_5678_9abc | u64::MAX << 48);
            assert_eq!(key & (LIVE - 1), 0x1234_5678_9abc);
            assert_eq!(key & LIVE != 0, time % 2 == 1);
        }
    }

    #[test]
    fn a_displacement_lies_in_its_word() {
        let mut word = 0;
        for group in 0..IN_WORD {
            word = displaced(word, group, 0xffff);
            word = displaced(word, group, 100 + group as u16);
        }
        for group in 0..IN_WORD {
            assert_eq!(displacement(word, group), 100 + group as u16);
        }
    }
}
