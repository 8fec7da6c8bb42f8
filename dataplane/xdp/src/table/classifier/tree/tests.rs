use proptest::prelude::*;
use selvedge_ebpf_common::rule::{
    RuleWords, Scan, origin, reach, rule_fields, scan, scan_leaf, slice_set_of,
};

use super::*;
use crate::table::classifier::{Rule, RuleAction, encode};

const BASE: u32 = MAX_RULE_NODES;

/// What a packet shows.
#[derive(Clone, Copy, Debug)]
struct Shown {
    source: u32,
    destination: u32,
    /// 0: none.
    protocol: u8,
    ports: [u16; 2],
    dscp: u8,
    slice_set: u16,
    /// 0: none.
    tag: u16,
    teid: u32,
}

impl Shown {
    fn fields(self) -> u64 {
        let has_ports = self.protocol == 17;
        let ports = u32::from(self.ports[0]) << 16 | u32::from(self.ports[1]);
        let ports = if has_ports { ports } else { 0 };
        rule_fields(ports, has_ports, self.protocol, self.dscp, self.slice_set)
    }

    fn origin(self) -> u64 {
        origin(self.teid, self.tag)
    }

    /// In wire order.
    fn addresses(self) -> [[u64; 2]; 2] {
        [self.source, self.destination].map(|address| {
            let mapped = 0xffff_0000_0000 | u64::from(address);
            [0, mapped.to_be()]
        })
    }

    /// By the tree.
    fn found(self, rules: &[RuleValue], nodes: &[RuleNode]) -> Option<u32> {
        let [source, destination] = self.addresses();
        let words: RuleWords = [
            u64::from_be(source[0]),
            u64::from_be(source[1]),
            u64::from_be(destination[0]),
            u64::from_be(destination[1]),
            self.fields(),
            self.origin(),
            0,
            0,
        ];
        let node = |index: u32| nodes.get(usize::try_from(index - BASE).unwrap()).copied();
        let (fields, origin) = (self.fields(), self.origin());
        let matches =
            |number: u32| rules[number as usize].matches(source, destination, fields, origin);
        let end = reach(BASE, &words, node)?;
        let seen = match end.is_list() {
            true => scan(end.base(), u32::MAX, node, matches),
            false => scan_leaf(end, matches),
        };
        match seen {
            Scan::Found(number) => Some(number),
            Scan::End | Scan::More(_) => None,
        }
    }

    /// One rule after the other.
    fn first(self, rules: &[RuleValue]) -> Option<u32> {
        let [source, destination] = self.addresses();
        let (fields, origin) = (self.fields(), self.origin());
        let first = rules.iter().position(|r| r.matches(source, destination, fields, origin));
        first.map(|number| u32::try_from(number).unwrap())
    }
}

/// Few different values, so that packets match.
fn address() -> impl Strategy<Value = u32> {
    prop_oneof![any::<u32>(), (0u32..4, 0u32..16).prop_map(|(a, b)| 0x0a00_0000 | a << 16 | b)]
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![any::<u16>(), 0u16..40]
}

fn net() -> impl Strategy<Value = Option<ipnet::IpNet>> {
    let net = (address(), 0u8..=32).prop_map(|(address, bits)| {
        ipnet::Ipv4Net::new(address.into(), bits).unwrap().trunc().into()
    });
    proptest::option::of(net)
}

fn range() -> impl Strategy<Value = Option<[u16; 2]>> {
    let range = (port(), port(), any::<bool>()).prop_map(|(a, b, one)| match one {
        true => [a, a],
        false => [a.min(b), a.max(b)],
    });
    proptest::option::of(range)
}

prop_compose! {
    fn rule()(
        source in net(),
        destination in net(),
        protocol in proptest::option::of(prop_oneof![Just(17u8), Just(6u8)]),
        source_ports in range(),
        destination_ports in range(),
        dscp in proptest::option::of(0u8..4),
        slice_set in proptest::option::of(1u16..4),
        tag in proptest::option::of(1u16..4),
        teid in proptest::option::of(1u32..4),
    ) -> RuleValue {
        let rule = Rule {
            source,
            destination,
            protocol,
            source_ports,
            destination_ports,
            dscp,
            slice_set,
            tag,
            teid,
            action: RuleAction::Drop,
        };
        encode(1, &rule).unwrap()
    }
}

prop_compose! {
    fn shown()(
        source in address(),
        destination in address(),
        protocol in prop_oneof![3 => Just(17u8), 1 => Just(6u8)],
        ports in [port(), port()],
        dscp in 0u8..4,
        slice_set in 1u16..4,
        tag in 0u16..4,
        teid in 0u32..4,
    ) -> Shown {
        Shown { source, destination, protocol, ports, dscp, slice_set, tag, teid }
    }
}

/// A packet that a rule is about: its own values, the rest made up.
fn hit(rule: &RuleValue, other: Shown) -> Shown {
    let low = |value: u64, mask: u64, made_up: u32| {
        let (value, mask) = (u64::from_be(value) as u32, u64::from_be(mask) as u32);
        value | made_up & !mask
    };
    let port = |range: [u16; 2], made_up: u16| made_up.clamp(range[0], range[1]);
    Shown {
        source: low(rule.source[1], rule.source_mask[1], other.source),
        destination: low(rule.destination[1], rule.destination_mask[1], other.destination),
        protocol: if rule.fields_mask >> 24 & 0xff == 0 { 17 } else { (rule.fields >> 24) as u8 },
        ports: [
            port(rule.source_ports, other.ports[0]),
            port(rule.destination_ports, other.ports[1]),
        ],
        dscp: if rule.fields_mask >> 16 & 0x3f == 0 { 0 } else { (rule.fields >> 16) as u8 & 63 },
        slice_set: match slice_set_of(rule.fields_mask) {
            0 => other.slice_set,
            _ => slice_set_of(rule.fields),
        },
        tag: if rule.tag == 0 { other.tag } else { rule.tag },
        teid: if rule.teid == 0 { other.teid } else { rule.teid },
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_tree_finds_what_a_scan_finds(
        rules in proptest::collection::vec(rule(), 1..200),
        packets in proptest::collection::vec(shown(), 200),
    ) {
        let nodes = nodes(&rules, BASE);
        prop_assert!(nodes.len() <= MAX_RULE_NODES as usize);
        let hits = rules.iter().zip(packets.iter().cycle()).map(|(rule, other)| hit(rule, *other));
        for packet in packets.iter().copied().chain(hits) {
            prop_assert_eq!(packet.found(&rules, &nodes), packet.first(&rules), "{:?}", packet);
        }
    }
}

#[test]
fn ranges_fall_apart_into_prefixes() {
    let apart = |first, last| prefixes(Some([first, last]));
    assert_eq!(apart(7, 7), [(7, 0xffff)]);
    assert_eq!(apart(65_535, 65_535), [(65_535, 0xffff)]);
    assert_eq!(apart(0, 65_535), [(0, 0)]);
    assert_eq!(apart(1, 6), [(1, 0xffff), (2, 0xfffe), (4, 0xfffe), (6, 0xffff)]);
    assert_eq!(
        apart(1_024, 65_535),
        [
            (1_024, 0xfc00),
            (2_048, 0xf800),
            (4_096, 0xf000),
            (8_192, 0xe000),
            (16_384, 0xc000),
            (32_768, 0x8000),
        ]
    );
    assert_eq!(common(Some([8000, 8099])), (7936, 0xff00));
    assert_eq!(common(Some([1024, 65535])), (0, 0));
}

/// Rules that no bit tells apart are looked at one after the other, however many they are.
#[test]
fn a_full_table_of_rules_that_overlap_has_room() {
    let rules: Vec<RuleValue> = (0..1024u16)
        .map(|n| {
            let rule = Rule {
                source_ports: Some([n, 65535 - n]),
                destination_ports: Some([n * 2, 65535 - n]),
                ..Rule::any(RuleAction::Drop)
            };
            encode(1, &rule).unwrap()
        })
        .rev()
        .collect();
    let nodes = nodes(&rules, BASE);
    assert!(nodes.len() <= MAX_RULE_NODES as usize, "{} nodes", nodes.len());
    for n in [0, 1, 500, 1022, 1023] {
        let packet = Shown {
            source: 1,
            destination: 2,
            protocol: 17,
            ports: [n, n * 2],
            dscp: 0,
            slice_set: 1,
            tag: 0,
            teid: 0,
        };
        assert_eq!(packet.found(&rules, &nodes), packet.first(&rules), "{n}");
    }
}
