//! Application rules, and the tree by which a packet finds its own.
//!
//! A node of the tree looks at some adjacent bits of the packet and leads to one node for each of
//! their values; what leads no further is a leaf, and has the rules that are left, by falling
//! priority. Which bits is the agent's choice, so that rules end up far apart; a rule that does
//! not say what these bits are is found by all values. The tree narrows down and does not judge:
//! at the leaf every field is compared.
//!
//! The bits are those of [`RuleWords`].

use core::mem::size_of;

use crate::{MAX_RULES, Plain};

/// `RULE`: one application rule; two banks of `MAX_RULES`, each by falling priority.
///
/// A packet matches when every word, masked, equals the rule's, its ports are in the ranges, and it
/// comes from where the rule says.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleValue {
    /// In wire order, as are the masks and the destination.
    pub source: [u64; 2],
    pub source_mask: [u64; 2],
    pub destination: [u64; 2],
    pub destination_mask: [u64; 2],
    /// See [`rule_fields`]. A range of one port is here.
    pub fields: u64,
    pub fields_mask: u64,
    /// First and last.
    pub source_ports: [u16; 2],
    pub destination_ports: [u16; 2],
    pub priority: u32,
    /// Of the action: a slice, a DSCP or a policy.
    pub argument: u16,
    /// `RULE_*`.
    pub action: u8,
    /// Prefix lengths in bits of 128; [`RULE_ANY`] matches anything.
    pub source_bits: u8,
    pub destination_bits: u8,
    /// `RULE_NAMES_*`.
    pub names: u8,
    /// See [`origin`].
    pub tag: u16,
    pub teid: u32,
}

const _: () = assert!(size_of::<RuleValue>() == 104);
// SAFETY: `repr(C)`, integers and arrays of them only; the size, asserted above, is the sum of
// the fields, so that no padding is hidden.
unsafe impl Plain for RuleValue {}

pub const RULE_DROP: u8 = 0;
pub const RULE_PASS: u8 = 1;
pub const RULE_SET_SLICE: u8 = 2;
pub const RULE_MARK: u8 = 3;
pub const RULE_STEER: u8 = 4;
/// In place of a prefix length.
pub const RULE_ANY: u8 = 0xff;

/// The rule says what the source port is.
pub const RULE_NAMES_SOURCE_PORT: u8 = 1;
pub const RULE_NAMES_DESTINATION_PORT: u8 = 2;
/// It says what [`origin`] is.
pub const RULE_NAMES_TAG: u8 = 4;
pub const RULE_NAMES_TEID: u8 = 8;

/// Set in [`rule_fields`] when the packet shows its ports.
pub const FIELDS_PORTS: u64 = 1;

/// What rules compare besides addresses, in one word: source port (63..48), destination port
/// (47..32), protocol (31..24), DSCP (21..16), slice set (22 and 15..1), [`FIELDS_PORTS`] (0).
#[inline(always)]
pub const fn rule_fields(
    ports: u32,
    has_ports: bool,
    protocol: u8,
    dscp: u8,
    slice_set: u16,
) -> u64 {
    (ports as u64) << 32
        | (protocol as u64) << 24
        | (dscp as u64) << 16
        | (slice_set as u64 >> 15) << 22
        | (slice_set as u64 & 0x7fff) << 1
        | has_ports as u64
}

/// Where a packet comes from, in one word: the TEID of its GTP-U tunnel (47..16), 0 for none; and
/// the tag of who sends it (15..0), 0 for none.
#[inline(always)]
pub const fn origin(teid: u32, tag: u16) -> u64 {
    (teid as u64) << 16 | tag as u64
}

/// The slice set of [`rule_fields`].
pub const fn slice_set_of(fields: u64) -> u16 {
    (fields >> 22 & 1) as u16 * 0x8000 + ((fields >> 1) as u16 & 0x7fff)
}

/// As given. A compiler that knew how it was worked out would compare each part by itself, and the
/// verifier follows only so many branches at once (8,192).
#[cfg(target_arch = "bpf")]
#[inline(always)]
fn together(mut word: u64) -> u64 {
    // SAFETY: leaves the register as it is.
    unsafe {
        core::arch::asm!(
            "{word} |= 0",
            word = inout(reg) word,
            options(pure, nomem, nostack, preserves_flags)
        )
    };
    word
}

#[cfg(not(target_arch = "bpf"))]
#[inline(always)]
const fn together(word: u64) -> u64 {
    word
}

impl RuleValue {
    /// Its own [`origin`], and the mask for a packet's.
    #[inline(always)]
    pub fn origin(&self) -> (u64, u64) {
        const TEID: u64 = origin(u32::MAX, 0);
        const TAG: u64 = origin(0, u16::MAX);
        // 0 or 1 each.
        let tag = together(u64::from(self.names) >> RULE_NAMES_TAG.trailing_zeros() & 1);
        let teid = together(u64::from(self.names) >> RULE_NAMES_TEID.trailing_zeros() & 1);
        (origin(self.teid, self.tag), (tag * TAG) | (teid * TEID))
    }

    /// Addresses are in wire order; of `fields` see [`rule_fields`], of `origin` [`origin`].
    #[inline(always)]
    pub fn matches(
        &self,
        source: [u64; 2],
        destination: [u64; 2],
        fields: u64,
        origin: u64,
    ) -> bool {
        let (from, from_mask) = self.origin();
        let differs = (source[0] & self.source_mask[0] ^ self.source[0])
            | (source[1] & self.source_mask[1] ^ self.source[1])
            | (destination[0] & self.destination_mask[0] ^ self.destination[0])
            | (destination[1] & self.destination_mask[1] ^ self.destination[1])
            | (fields & self.fields_mask ^ self.fields)
            | (origin ^ from) & from_mask;
        if together(differs) != 0 {
            return false;
        }
        // What is below 0 has its highest bit set.
        let (from, to) = (fields >> 48, fields >> 32 & 0xffff);
        let [source, destination] = [self.source_ports, self.destination_ports];
        let outside = from.wrapping_sub(u64::from(source[0]))
            | u64::from(source[1]).wrapping_sub(from)
            | to.wrapping_sub(u64::from(destination[0]))
            | u64::from(destination[1]).wrapping_sub(to);
        together(outside) >> 63 == 0
    }
}

/// What nodes look at, as numbers: source and destination, high half first, then [`rule_fields`]
/// and [`origin`]; nothing looks at the rest, which is there so that three bits number them.
pub type RuleWords = [u64; 8];
/// Of them in use.
pub const RULE_WORDS: usize = 6;

/// Nodes in one of two banks of `RULE_NODE`; the first is the root.
pub const MAX_RULE_NODES: u32 = 65_536;
/// Nodes that are looked at between the root and a leaf, both included.
pub const MAX_RULE_DEPTH: u32 = 24;
/// Rules that a leaf node has room for. A longer list is leaves one after the other, of which
/// the last is not full.
pub const LEAF_RULES: u32 = 5;

/// `RULE_NODE`.
///
/// - A leaf: numbers of rules, each plus 1, of 12 bits from the lowest on; 0 behind the last.
/// - A list of leaves (bit 62): where they begin (55..32).
/// - A cut (bit 63): which word (2..0), by how much it is moved right (8..3), the mask for that
///   (31..16), and where the nodes of its values begin (55..32).
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleNode(pub u64);

const _: () = assert!(size_of::<RuleNode>() == 8 && MAX_RULES < 1 << 12);
// SAFETY: one integer.
unsafe impl Plain for RuleNode {}

impl RuleNode {
    const CUT: u64 = 1 << 63;
    const LIST: u64 = 1 << 62;

    /// `mask` has all bits up to its highest.
    pub const fn cut(word: usize, shift: u32, mask: u16, base: u32) -> Self {
        let at = word as u64 | (shift as u64) << 3;
        Self(Self::CUT | at | (mask as u64) << 16 | (base as u64) << 32)
    }

    pub const fn list(base: u32) -> Self {
        Self(Self::LIST | (base as u64) << 32)
    }

    /// At most [`LEAF_RULES`].
    pub fn leaf(rules: &[u16]) -> Self {
        let numbers = rules.iter().rev();
        Self(numbers.fold(0, |word, rule| word << 12 | (u64::from(*rule) + 1)))
    }

    #[inline(always)]
    pub const fn is_cut(self) -> bool {
        self.0 & Self::CUT != 0
    }

    #[inline(always)]
    pub const fn is_list(self) -> bool {
        self.0 & Self::LIST != 0
    }

    /// Where the leaves of a list begin, or the nodes of a cut.
    #[inline(always)]
    pub const fn base(self) -> u32 {
        (self.0 >> 32) as u32 & 0xff_ffff
    }

    /// Where a cut leads.
    #[inline(always)]
    pub const fn next(self, words: &RuleWords) -> u32 {
        let word = words[(self.0 & 7) as usize];
        self.base() + (word >> (self.0 >> 3 & 63) & (self.0 >> 16 & 0xffff)) as u32
    }

    /// The first rule of a leaf, and the rest.
    #[inline(always)]
    pub const fn first(self) -> Option<(u32, Self)> {
        match self.0 as u32 & 0xfff {
            0 => None,
            number => Some((number - 1, Self(self.0 >> 12))),
        }
    }
}

/// The leaf or the list of a packet's rules.
#[inline(always)]
pub fn reach(
    root: u32,
    words: &RuleWords,
    node: impl Fn(u32) -> Option<RuleNode>,
) -> Option<RuleNode> {
    let mut at = node(root)?;
    for _ in 0..MAX_RULE_DEPTH {
        if !at.is_cut() {
            break;
        }
        at = node(at.next(words))?;
    }
    Some(at)
}

/// What a look at some of a packet's rules came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// Number of the first that matches.
    Found(u32),
    /// None does, and there are no more.
    End,
    /// None does; the leaf that comes next.
    More(u32),
}

/// The rules of one leaf. `More(0)`: it is full, so that there may be more behind it.
#[inline(always)]
pub fn scan_leaf(mut leaf: RuleNode, matches: impl Fn(u32) -> bool) -> Scan {
    for _ in 0..LEAF_RULES {
        let Some((number, rest)) = leaf.first() else { return Scan::End };
        leaf = rest;
        if matches(number) {
            return Scan::Found(number);
        }
    }
    Scan::More(0)
}

/// The rules of at most `leaves` leaves of a list, from the one at `place` on.
#[inline(always)]
pub fn scan(
    mut place: u32,
    leaves: u32,
    node: impl Fn(u32) -> Option<RuleNode>,
    // Copied: through a reference it would be called, and not written out.
    matches: impl Fn(u32) -> bool + Copy,
) -> Scan {
    for _ in 0..leaves {
        let Some(leaf) = node(place) else { return Scan::End };
        match scan_leaf(leaf, matches) {
            Scan::More(_) => place += 1,
            over => return over,
        }
    }
    Scan::More(place)
}
