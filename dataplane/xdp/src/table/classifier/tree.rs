//! The tree by which packets find their rule (`selvedge_ebpf_common::rule`).
//!
//! A rule is one ternary string over the bits of a packet, or a few where a port range falls
//! apart into prefixes. A cut is judged by the squares of the lists it leaves: their sum is small
//! when lists are short and few rules stand in several. When nodes run out, leaves get longer;
//! with one leaf for all rules there is always room.

use selvedge_ebpf_common::rule::{
    LEAF_RULES, MAX_RULE_DEPTH, MAX_RULE_NODES, RULE_NAMES_DESTINATION_PORT,
    RULE_NAMES_SOURCE_PORT, RULE_WORDS, RuleNode, RuleValue,
};

/// Bits that one cut looks at.
const MAX_BITS: u32 = 10;
/// Prefixes that a rule's two port ranges are taken apart into; beyond that, what the ports of a
/// range have in common counts.
const MAX_PIECES: usize = 16;
/// Rules of a leaf that is not cut further, at first.
const SHORT: usize = 2;
/// What a node more costs, as a rule in a list would.
const NODE_COST: u64 = 1;

type Words = [u64; RULE_WORDS];

/// Bits of `value` outside `mask` are 0.
#[derive(Clone, Copy, Debug)]
struct Piece {
    rule: u16,
    value: Words,
    mask: Words,
    /// It is all of its rule, and says all that the rule does.
    whole: bool,
}

#[derive(Clone, Copy, Debug)]
struct Cut {
    word: usize,
    shift: u32,
    bits: u32,
}

/// Nodes for rules by falling priority, the root first; `base`: where they will be.
pub(super) fn nodes(rules: &[RuleValue], base: u32) -> Vec<RuleNode> {
    let pieces: Vec<Piece> =
        rules.iter().zip(0..).flat_map(|(rule, number)| pieces(rule, number)).collect();
    let mut short = SHORT;
    loop {
        if let Some(nodes) = Builder::new(base, short).build(&pieces) {
            return nodes;
        }
        short *= 2;
    }
}

fn pieces(rule: &RuleValue, number: u16) -> Vec<Piece> {
    let address = |words: [u64; 2]| words.map(u64::from_be);
    let ([s0, s1], [d0, d1]) = (address(rule.source), address(rule.destination));
    let ([m0, m1], [n0, n1]) = (address(rule.source_mask), address(rule.destination_mask));
    let named = |bit: u8, range: [u16; 2]| (rule.names & bit != 0).then_some(range);
    let (origin, origin_mask) = rule.origin();
    let source = named(RULE_NAMES_SOURCE_PORT, rule.source_ports);
    let destination = named(RULE_NAMES_DESTINATION_PORT, rule.destination_ports);
    let (sources, destinations) = (prefixes(source), prefixes(destination));
    let exact = sources.len() * destinations.len() <= MAX_PIECES;
    let (sources, destinations) = match exact {
        true => (sources, destinations),
        false => (vec![common(source)], vec![common(destination)]),
    };
    let whole = exact && sources.len() * destinations.len() == 1;
    let both = sources.iter().flat_map(|from| destinations.iter().map(move |to| (from, to)));
    let piece = |(from, to): (&(u16, u16), &(u16, u16))| {
        let ports = |from: u16, to: u16| u64::from(from) << 48 | u64::from(to) << 32;
        Piece {
            rule: number,
            value: [s0, s1, d0, d1, rule.fields | ports(from.0, to.0), origin],
            mask: [m0, m1, n0, n1, rule.fields_mask | ports(from.1, to.1), origin_mask],
            whole,
        }
    };
    both.map(piece).collect()
}

/// A range as prefixes: value and mask.
fn prefixes(range: Option<[u16; 2]>) -> Vec<(u16, u16)> {
    let Some([first, last]) = range else { return vec![(0, 0)] };
    let mut prefixes = Vec::new();
    let (mut at, last) = (u32::from(first), u32::from(last));
    while at <= last {
        // The largest block that begins here and ends by `last`.
        let aligned = if at == 0 { 16 } else { at.trailing_zeros() };
        let fits = (last + 1 - at).ilog2();
        let bits = aligned.min(fits);
        let mask = 0xffff_u32 << bits & 0xffff;
        prefixes.push((narrow(at), narrow(mask)));
        at += 1 << bits;
    }
    prefixes
}

/// What all ports of a range have in common.
fn common(range: Option<[u16; 2]>) -> (u16, u16) {
    let Some([first, last]) = range else { return (0, 0) };
    let differ = 16 - (first ^ last).leading_zeros();
    let mask = narrow(0xffff_u32 << differ & 0xffff);
    (first & mask, mask)
}

fn narrow(number: u32) -> u16 {
    u16::try_from(number).expect("a port")
}

struct Builder {
    base: u32,
    short: usize,
    nodes: Vec<RuleNode>,
}

/// A node to be made.
struct Open {
    slot: usize,
    pieces: Vec<Piece>,
    /// Bits that the way to it has looked at.
    fixed: Words,
    depth: u32,
}

impl Builder {
    fn new(base: u32, short: usize) -> Self {
        Self { base, short, nodes: vec![RuleNode::default()] }
    }

    /// `None`: there are too many nodes.
    fn build(mut self, pieces: &[Piece]) -> Option<Vec<RuleNode>> {
        let root = Open { slot: 0, pieces: pieces.to_vec(), fixed: Words::default(), depth: 1 };
        let mut open = vec![root];
        while let Some(mut node) = open.pop() {
            let rules = rules(&mut node.pieces, &node.fixed);
            let may_be_cut = rules.len() > self.short && node.depth < MAX_RULE_DEPTH;
            match may_be_cut.then(|| cut(&node.pieces)).flatten() {
                Some(cut) => self.split(&node, cut, &mut open)?,
                None => self.leaf(node.slot, &rules)?,
            }
        }
        Some(self.nodes)
    }

    /// Room for nodes; the index of the first.
    fn room(&mut self, count: usize) -> Option<usize> {
        let first = self.nodes.len();
        if first + count > MAX_RULE_NODES as usize {
            return None;
        }
        self.nodes.resize(first + count, RuleNode::default());
        Some(first)
    }

    fn place(&self, index: usize) -> u32 {
        self.base + u32::try_from(index).expect("nodes are limited")
    }

    fn split(&mut self, node: &Open, cut: Cut, open: &mut Vec<Open>) -> Option<()> {
        let first = self.room(1 << cut.bits)?;
        let Cut { word, shift, bits } = cut;
        let mask = (1u64 << bits) - 1;
        let narrow = u16::try_from(mask).expect("few bits");
        self.nodes[node.slot] = RuleNode::cut(word, shift, narrow, self.place(first));
        let mut fixed = node.fixed;
        fixed[word] |= mask << shift;
        for value in 0..1u64 << bits {
            let agrees = |p: &&Piece| {
                ((p.value[word] >> shift) ^ value) & (p.mask[word] >> shift) & mask == 0
            };
            let pieces: Vec<Piece> = node.pieces.iter().filter(agrees).copied().collect();
            if !pieces.is_empty() {
                let slot = first + usize::try_from(value).expect("few bits");
                open.push(Open { slot, pieces, fixed, depth: node.depth + 1 });
            }
        }
        Some(())
    }

    fn leaf(&mut self, slot: usize, rules: &[u16]) -> Option<()> {
        let room = LEAF_RULES as usize;
        if rules.len() <= room {
            // A full one would go on behind itself, were it one of a list; it is not.
            self.nodes[slot] = RuleNode::leaf(rules);
            return Some(());
        }
        let first = self.room(rules.len() / room + 1)?;
        self.nodes[slot] = RuleNode::list(self.place(first));
        for (index, rules) in (first..).zip(rules.chunks(room)) {
            self.nodes[index] = RuleNode::leaf(rules);
        }
        Some(())
    }
}

/// The rules that packets meet here, by number, and no piece of others: what comes after one
/// that every packet matches is never looked at.
fn rules(pieces: &mut Vec<Piece>, fixed: &Words) -> Vec<u16> {
    let covers = |piece: &Piece| {
        piece.whole && piece.mask.iter().zip(fixed).all(|(mask, fixed)| mask & !fixed == 0)
    };
    // Pieces are in the order of their rules.
    if let Some(last) = pieces.iter().position(covers) {
        pieces.truncate(last + 1);
    }
    let mut rules: Vec<u16> = pieces.iter().map(|piece| piece.rule).collect();
    rules.dedup();
    rules
}

/// The best cut; `None`: none is worth its nodes.
fn cut(pieces: &[Piece]) -> Option<Cut> {
    let count = pieces.len() as u64;
    let mut best = (count * count * 9 / 10, None);
    let mut counts = Vec::new();
    for word in 0..RULE_WORDS {
        let gains = gains(pieces, word);
        for bits in 1..=MAX_BITS {
            let gain = |shift: &u32| -> u64 {
                gains[*shift as usize..(*shift + bits) as usize].iter().sum()
            };
            let shift = (0..=64 - bits).max_by_key(gain).expect("there is one");
            // Nothing to gain from the last bit: no cut that is wider is better.
            if gains[shift as usize] == 0 || gains[(shift + bits - 1) as usize] == 0 {
                continue;
            }
            let cut = Cut { word, shift, bits };
            let cost = cost(pieces, cut, best.0, &mut counts);
            if cost < best.0 {
                best = (cost, Some(cut));
            }
        }
    }
    best.1
}

/// For each bit of a word how many pieces it tells from others.
fn gains(pieces: &[Piece], word: usize) -> [u64; 64] {
    let mut sets = [[0u64; 2]; 64];
    for piece in pieces {
        let mut left = piece.mask[word];
        while left != 0 {
            let bit = left.trailing_zeros();
            left &= left - 1;
            sets[bit as usize][usize::from(piece.value[word] >> bit & 1 != 0)] += 1;
        }
    }
    sets.map(|[zeros, ones]| zeros.min(ones))
}

/// The squares of the lists that a cut leaves, and its nodes; not exact above `limit`.
fn cost(pieces: &[Piece], cut: Cut, limit: u64, counts: &mut Vec<u32>) -> u64 {
    let Cut { word, shift, bits } = cut;
    let mask = (1u64 << bits) - 1;
    counts.clear();
    counts.resize(1 << bits, 0);
    let mut everywhere = 0;
    for piece in pieces {
        let (value, told) = (piece.value[word] >> shift & mask, piece.mask[word] >> shift & mask);
        if told == 0 {
            everywhere += 1;
            continue;
        }
        // All values of the bits that it does not tell.
        let free = mask & !told;
        let mut some = free;
        loop {
            counts[usize::try_from(value | some).expect("few bits")] += 1;
            if some == 0 {
                break;
            }
            some = (some - 1) & free;
        }
    }
    let mut sum = NODE_COST << bits;
    for count in counts {
        sum += u64::from(*count + everywhere).pow(2);
        if sum > limit {
            break;
        }
    }
    sum
}

#[cfg(test)]
mod tests;
