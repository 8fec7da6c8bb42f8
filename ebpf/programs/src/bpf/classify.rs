//! Step B.7: the first application rule that a packet matches.
//!
//! Most packets find a handful of rules at the end of the tree. A list that is longer than
//! [`FEW`] leaves is gone through in a stage of its own, which calls itself: the verifier would
//! have to follow each look at a rule in one that is inlined.

use aya_ebpf::programs::XdpContext;
use selvedge_ebpf_common::rule::{
    MAX_RULE_NODES, RuleNode, RuleValue, RuleWords, Scan, reach, rule_fields, scan, scan_leaf,
};
use selvedge_ebpf_common::value::{ConfigValue, rules_in_force};
use selvedge_ebpf_common::{MAX_RULES, STAGE_ACCESS_ON, STAGE_CLASSIFY, drop};
use selvedge_ebpf_parse::ip::{self, Packet};
use selvedge_ebpf_parse::{ETHERNET_LEN, ETHERTYPE_IPV4};

use super::maps::{RULE, RULE_NODE};
use super::state::State;
use super::{Step, extensions, jump, packet};

/// Leaves that are looked at without a tail call.
const FEW: u32 = 2;
/// Leaves that one tail call looks at: with those for all rules a packet stays below the 33 that
/// the kernel allows.
const MANY: u32 = 8;

pub(super) enum Found {
    Rule(&'static RuleValue),
    None,
    /// [`STAGE_CLASSIFY`] has to look.
    Later,
}

#[inline(always)]
pub(super) fn rule(
    config: &ConfigValue,
    state: State,
    packet: &Packet,
    slice_set: u16,
    origin: u64,
) -> Found {
    let seen = state.classified();
    if seen != 0 {
        // 1: none; else the place of a rule, plus 2.
        return match RULE.get((seen as u32).wrapping_sub(2)) {
            Some(rule) => Found::Rule(rule),
            None => Found::None,
        };
    }
    // Once: the agent may switch banks meanwhile.
    // SAFETY: a word of a map value.
    let (bank, count) = rules_in_force(unsafe { (&raw const config.rules).read_volatile() });
    if count == 0 {
        return Found::None;
    }
    let fields = fields(packet, slice_set);
    let (source, destination) = (packet.source, packet.destination);
    let [s0, s1, d0, d1] = [source[0], source[1], destination[0], destination[1]];
    let [s0, s1, d0, d1] = [s0, s1, d0, d1].map(u64::swap_bytes);
    // Of zeros the compiler would make a call of memset, byte by byte.
    let words: RuleWords = [s0, s1, d0, d1, fields, origin, fields, fields];
    let Some(end) = reach(bank * MAX_RULE_NODES, &words, node) else { return Found::None };
    let matches = |number| is_match(bank, number, packet, fields, origin);
    let seen = match end.is_list() {
        true => scan(end.base(), FEW, node, matches),
        false => scan_leaf(end, matches),
    };
    match seen {
        // Looked up once more, so that the verifier need not tell apart from where it came.
        Scan::Found(number) => match RULE.get(bank * MAX_RULES + number) {
            Some(rule) => Found::Rule(rule),
            None => Found::None,
        },
        Scan::More(place) if place != 0 => {
            state.set_classified(u64::from(place) << 32 | u64::from(slice_set));
            state.set_tunnel(origin);
            Found::Later
        }
        Scan::More(_) | Scan::End => Found::None,
    }
}

#[inline(always)]
fn fields(packet: &Packet, slice_set: u16) -> u64 {
    let dscp = packet.traffic_class >> 2;
    rule_fields(packet.ports, packet.has_ports, packet.protocol, dscp, slice_set)
}

#[inline(always)]
fn node(index: u32) -> Option<RuleNode> {
    RULE_NODE.get(index).copied()
}

#[inline(always)]
fn is_match(bank: u32, number: u32, packet: &Packet, fields: u64, origin: u64) -> bool {
    let rule = RULE.get(bank * MAX_RULES + number);
    rule.is_some_and(|rule| rule.matches(packet.source, packet.destination, fields, origin))
}

/// The rest of a long list.
#[inline(always)]
pub(super) fn run(ctx: &XdpContext, state: State) -> Step {
    let mut cursor = packet::cursor(ctx);
    let ethernet = cursor.take::<ETHERNET_LEN>().ok_or(drop::MALFORMED)?;
    let available = packet::len(ctx) - ETHERNET_LEN;
    if ethernet.be16::<12>() == ETHERTYPE_IPV4 {
        let Some(inner) = ip::ipv4(cursor, available) else { return Err(drop::MALFORMED) };
        rest(ctx, state, &inner)
    } else {
        let Some(inner) = ip::ipv6(cursor, available) else { return Err(drop::MALFORMED) };
        rest(ctx, state, &extensions::fill(state, inner).unwrap_or(inner))
    }
}

#[inline(always)]
fn rest(ctx: &XdpContext, state: State, inner: &Packet) -> Step {
    let (place, slice_set) = ((state.classified() >> 32) as u32, state.classified() as u16);
    let bank = u32::from(place >= MAX_RULE_NODES);
    let (fields, origin) = (fields(inner, slice_set), state.tunnel());
    let seen = scan(place, MANY, node, |number| is_match(bank, number, inner, fields, origin));
    let (known, stage) = match seen {
        Scan::Found(number) => (u64::from(bank * MAX_RULES + number) + 2, STAGE_ACCESS_ON),
        Scan::End => (1, STAGE_ACCESS_ON),
        Scan::More(place) => (u64::from(place) << 32 | u64::from(slice_set), STAGE_CLASSIFY),
    };
    state.set_classified(known);
    jump(ctx, stage)
}
