use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv6Net};
use proptest::{option, prelude::*};

use super::*;
use crate::{entry::*, prefix, tables};

/// Prefixes that the tables can express: no host bits, IPv4 written as IPv4.
fn net() -> impl Strategy<Value = IpNet> {
    let v4 = (any::<u32>(), 0u8..=32)
        .prop_map(|(bits, len)| IpNet::new(IpAddr::V4(bits.into()), len).unwrap().trunc());
    let v6 = (any::<u128>(), 0u8..=128)
        .prop_map(|(bits, len)| IpNet::new(IpAddr::V6(bits.into()), len).unwrap().trunc());
    prop_oneof![
        v4,
        v6.prop_filter("not in the mapped block", |net| {
            let (bits, len) = prefix::prefix_bits(*net);
            prefix::prefix(bits, len) == *net
        })
    ]
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())), address6()]
}

fn address6() -> impl Strategy<Value = IpAddr> {
    (1u128 << 64..).prop_map(|bits| IpAddr::V6(bits.into()))
}

fn address4() -> impl Strategy<Value = IpAddr> {
    any::<u32>().prop_map(|bits| IpAddr::V4(bits.into()))
}

fn tunnel() -> impl Strategy<Value = Tunnel> {
    let ends = prop_oneof![(address4(), address4()), (address6(), address6())];
    (ends, 1u32.., 0u8..64, 68u16..).prop_map(|((local, gnb), teid, qfi, mtu)| Tunnel {
        local,
        gnb,
        teid,
        qfi,
        mtu,
    })
}

fn session() -> impl Strategy<Value = Entry> {
    let ipv4 = || (1u32..).prop_map(Ipv4Addr::from_bits);
    let ipv6 = || {
        (1u128 << 127.., 1u8..=128)
            .prop_map(|(bits, len)| Ipv6Net::new(bits.into(), len).unwrap().trunc())
    };
    let ue = prop_oneof![
        ipv4().prop_map(|v4| (Some(v4), None)),
        ipv6().prop_map(|v6| (None, Some(v6))),
        (ipv4(), ipv6()).prop_map(|(v4, v6)| (Some(v4), Some(v6))),
    ];
    let more = (any::<u64>(), endpoint(), tag());
    (1u32.., port(), address(), ue, slice_set(), direction(), more).prop_map(
        |(teid, port, gnb, (ue_ipv4, ue_ipv6), slice_set, direction, (qfis, endpoint, tag))| {
            Entry::GtpSession(Box::new(GtpSessionEntry {
                teid,
                port,
                gnb,
                ue_ipv4,
                ue_ipv6,
                slice_set,
                direction,
                qfis,
                endpoint,
                tag,
            }))
        },
    )
}

fn endpoint() -> impl Strategy<Value = EndpointId> {
    any::<u16>().prop_map(EndpointId)
}

fn tag() -> impl Strategy<Value = EndpointTag> {
    any::<u16>().prop_map(EndpointTag)
}

fn port() -> impl Strategy<Value = PortId> {
    (1u16..=255).prop_map(PortId)
}

fn slice() -> impl Strategy<Value = SliceId> {
    (1u16..=SliceId::MAX.0).prop_map(SliceId)
}

fn direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Downlink), Just(Direction::Uplink)]
}

fn slice_set() -> impl Strategy<Value = SliceSet> {
    (1u16..).prop_map(SliceSet)
}

fn class() -> impl Strategy<Value = Class> {
    prop_oneof![Just(Class::BestEffort), Just(Class::Guaranteed), Just(Class::Urllc)]
}

fn path() -> impl Strategy<Value = Path> {
    (prop::collection::vec(1u16.., 1..=6), 1u8..=128)
        .prop_map(|(sids, weight)| Path { sids, weight })
}

fn policy() -> impl Strategy<Value = PolicyId> {
    (1u32..=65_535).prop_map(PolicyId)
}

fn classifier() -> impl Strategy<Value = Entry> {
    let rule_net =
        || option::of(net().prop_filter("says None", |net| prefix::prefix_bits(*net).1 > 0));
    let action = prop_oneof![
        Just(ClassifierAction::Drop),
        Just(ClassifierAction::Pass),
        slice().prop_map(ClassifierAction::SetSlice),
        (0u8..64).prop_map(ClassifierAction::Mark),
        policy().prop_map(ClassifierAction::Steer),
    ];
    let range = || {
        let range = (any::<u16>(), any::<u16>()).prop_map(|(a, b)| [a.min(b), a.max(b)]);
        option::of(range.prop_filter("says None", |range| *range != [0, u16::MAX]))
    };
    let ports = (range(), range());
    let tag = option::of((1u16..).prop_map(EndpointTag));
    let more = (option::of(0u8..64), option::of(slice_set()), tag, option::of(1u32..));
    (1..=i32::MAX as u32, rule_net(), rule_net(), any::<Option<u8>>(), ports, more, action)
        .prop_map(|(priority, source, destination, protocol, ports, more, action)| {
            let (dscp, slice_set, endpoint_tag, tunnel_id) = more;
            Entry::Classifier(Box::new(ClassifierEntry {
                priority,
                source,
                destination,
                protocol,
                source_ports: ports.0,
                destination_ports: ports.1,
                dscp,
                slice_set,
                endpoint_tag,
                tunnel_id,
                action,
            }))
        })
}

fn entry() -> impl Strategy<Value = Entry> {
    let kind = prop_oneof![Just(PortKind::Access), Just(PortKind::Fabric)];
    let local_sid = prop_oneof![
        Just(LocalSidAction::Node),
        Just(LocalSidAction::Decapsulate),
        (0u16..=255, any::<bool>()).prop_map(|(hook, bypass)| LocalSidAction::Compute {
            hook: HookId(hook),
            on_failure: if bypass { OnFailure::Bypass } else { OnFailure::Drop },
        }),
    ];
    let route = prop_oneof![Just(RouteAction::Local), policy().prop_map(RouteAction::Policy)];
    prop_oneof![
        (port(), kind).prop_map(|(port, kind)| Entry::Port(PortEntry { port, kind })),
        (port(), net(), slice_set(), direction(), endpoint(), tag()).prop_map(
            |(port, prefix, slice_set, direction, endpoint, tag)| {
                Entry::Endpoint(EndpointEntry { port, prefix, slice_set, direction, endpoint, tag })
            }
        ),
        classifier(),
        (slice_set(), net(), slice(), route, endpoint()).prop_map(
            |(slice_set, prefix, slice, action, endpoint)| {
                Entry::SliceRoute(SliceRouteEntry { slice_set, prefix, slice, action, endpoint })
            }
        ),
        (slice(), direction(), 1u16.., any::<(u64, u32, u64, u32)>()).prop_map(
            |(slice, direction, endpoint, rates)| Entry::EndpointMeter(EndpointMeterEntry {
                slice,
                direction,
                endpoint: EndpointId(endpoint),
                guaranteed_bps: rates.0,
                guaranteed_burst_bytes: rates.1,
                maximum_bps: rates.2,
                maximum_burst_bytes: rates.3,
            })
        ),
        (slice(), direction(), class(), any::<(u64, u32, u64, u32)>()).prop_map(
            |(slice, direction, class, rates)| Entry::SliceMeter(SliceMeterEntry {
                slice,
                direction,
                class,
                guaranteed_bps: rates.0,
                guaranteed_burst_bytes: rates.1,
                maximum_bps: rates.2,
                maximum_burst_bytes: rates.3,
            })
        ),
        (policy(), prop::collection::vec(path(), 1..=8))
            .prop_map(|(policy, paths)| Entry::Policy(PolicyEntry { policy, paths })),
        (1u16.., local_sid)
            .prop_map(|(sid, action)| Entry::LocalSid(LocalSidEntry { sid, action })),
        (1u16..=4095, port(), any::<[u8; 6]>(), 0u8..=127).prop_map(|(node, port, mac, backup)| {
            Entry::NextHop(NextHopEntry { node: NodeSid(node), port, mac, backup })
        }),
        (port(), 1u8..=127, port(), any::<[u8; 6]>(), prop::collection::vec(1u16.., 0..=4))
            .prop_map(|(around, backup, port, mac, sids)| {
                Entry::Backup(BackupEntry { around, backup, port, mac, sids })
            }),
        (slice(), net(), port(), any::<[u8; 6]>(), option::of(tunnel())).prop_map(
            |(slice, prefix, port, mac, tunnel)| {
                Entry::Delivery(DeliveryEntry {
                    slice,
                    prefix,
                    port,
                    mac,
                    tunnel: tunnel.map(Box::new),
                })
            }
        ),
        address().prop_map(|address| Entry::N3Address(N3AddressEntry { address })),
        session(),
        (port(), any::<u64>(), any::<[u32; 3]>(), option::of(any::<[u64; 3]>())).prop_map(
            |(port, rate_bps, threshold_bytes, shaped)| {
                let shaped_bps = shaped.unwrap_or_default();
                Entry::PortQueue(PortQueueEntry { port, rate_bps, threshold_bytes, shaped_bps })
            }
        ),
        any::<u64>().prop_map(|generation| Entry::Generation(GenerationEntry { generation })),
    ]
}

fn raw_value() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..18)
}

fn raw_match() -> impl Strategy<Value = raw::FieldMatch> {
    let value = prop_oneof![
        raw_value().prop_map(raw::MatchValue::Exact),
        raw_value().prop_map(raw::MatchValue::Optional),
        (raw_value(), -2i32..132)
            .prop_map(|(value, prefix_len)| raw::MatchValue::Lpm { value, prefix_len }),
        (raw_value(), raw_value())
            .prop_map(|(value, mask)| raw::MatchValue::Ternary { value, mask }),
        (raw_value(), raw_value()).prop_map(|(low, high)| raw::MatchValue::Range { low, high }),
    ];
    (0u32..8, value).prop_map(|(field_id, value)| raw::FieldMatch { field_id, value })
}

fn raw_entry() -> impl Strategy<Value = raw::TableEntry> {
    let param =
        || (0u32..8, raw_value()).prop_map(|(param_id, value)| raw::Param { param_id, value });
    let action = || {
        (0u32..25, prop::collection::vec(param(), 0..9))
            .prop_map(|(id, params)| raw::Action { action_id: 1 << 24 | id, params })
    };
    let weighted =
        (action(), -1i32..130).prop_map(|(action, weight)| raw::WeightedAction { action, weight });
    let action = prop_oneof![
        action().prop_map(raw::TableAction::One),
        prop::collection::vec(weighted, 0..10).prop_map(raw::TableAction::Set),
    ];
    (0u32..16, prop::collection::vec(raw_match(), 0..7), option::of(action), -1i32..3).prop_map(
        |(table, matches, action, priority)| raw::TableEntry {
            table_id: 2 << 24 | table,
            matches,
            action,
            priority,
        },
    )
}

/// The one action, or those of a set.
fn actions(raw: &mut raw::TableEntry) -> Vec<&mut raw::Action> {
    match raw.action.as_mut() {
        None => Vec::new(),
        Some(raw::TableAction::One(action)) => vec![action],
        Some(raw::TableAction::Set(set)) => set.iter_mut().map(|one| &mut one.action).collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn nothing_is_lost(entry in entry()) {
        let raw = encode(&entry).unwrap();
        prop_assert_eq!(decode(&raw).unwrap(), entry.clone());
        prop_assert_eq!(decode_key(&raw).unwrap(), entry.key());
        prop_assert!(same_match(&entry, &raw).unwrap());
        prop_assert!(Selector::new(&raw).unwrap().selects(&entry));
    }

    /// Leading zeros and another order make no difference, and are gone in what is read back.
    #[test]
    fn what_is_not_canonical_is_read_as_well(entry in entry(), zeros in 1usize..4) {
        let canonical = encode(&entry).unwrap();
        let mut raw = canonical.clone();
        let pad = |value: &mut Vec<u8>| drop(value.splice(0..0, vec![0; zeros]));
        for field in &mut raw.matches {
            match &mut field.value {
                raw::MatchValue::Exact(value)
                | raw::MatchValue::Optional(value)
                | raw::MatchValue::Lpm { value, .. } => pad(value),
                raw::MatchValue::Ternary { value, mask } => { pad(value); pad(mask) }
                raw::MatchValue::Range { low, high } => { pad(low); pad(high) }
            }
        }
        for action in actions(&mut raw) {
            action.params.iter_mut().for_each(|param| pad(&mut param.value));
            action.params.reverse();
        }
        raw.matches.reverse();
        prop_assert_eq!(decode(&raw).unwrap(), entry.clone());
        prop_assert_eq!(encode(&decode(&raw).unwrap()).unwrap(), canonical);
    }

    /// Two entries have one raw match exactly when they have one key; only in `classifier`
    /// may the match differ under one key.
    #[test]
    fn the_raw_match_is_the_key(one in entry(), other in entry()) {
        let [a, b] = [encode(&one).unwrap(), encode(&other).unwrap()];
        let same = (a.table_id, a.matches, a.priority) == (b.table_id, b.matches, b.priority);
        if one.table() == TableKind::Classifier {
            prop_assert!(!same || one.key() == other.key());
        } else {
            prop_assert_eq!(same, one.key() == other.key());
        }
    }

    /// Good entries with one value or id replaced: what is still taken says what it says.
    #[test]
    fn damage_is_refused_or_means_something(
        entry in entry(),
        which in any::<prop::sample::Index>(),
        value in raw_value(),
        id in 0u32..8,
        change_id in any::<bool>(),
    ) {
        let mut raw = encode(&entry).unwrap();
        let params: usize = actions(&mut raw).iter().map(|action| action.params.len()).sum();
        let count = raw.matches.len() + params;
        prop_assume!(count > 0);
        let at = which.index(count);
        if let Some(field) = raw.matches.get_mut(at) {
            match &mut field.value {
                _ if change_id => field.field_id = id,
                raw::MatchValue::Exact(old)
                | raw::MatchValue::Optional(old)
                | raw::MatchValue::Lpm { value: old, .. }
                | raw::MatchValue::Ternary { value: old, .. }
                | raw::MatchValue::Range { low: old, .. } => *old = value,
            }
        } else {
            let at = at - raw.matches.len();
            let mut params = actions(&mut raw).into_iter().flat_map(|action| &mut action.params);
            let param = params.nth(at).unwrap();
            if change_id { param.param_id = id } else { param.value = value }
        }
        match decode(&raw) {
            Ok(read) => prop_assert_eq!(decode(&encode(&read).unwrap()).unwrap(), read),
            Err(error) => prop_assert_ne!(error.code(), Code::Ok),
        }
    }

    /// Whatever a client sends: no panic, and what is accepted can be written down again.
    #[test]
    fn any_raw_entry_is_read_or_refused(raw in raw_entry()) {
        if let Ok(entry) = decode(&raw) {
            prop_assert_eq!(decode(&encode(&entry).unwrap()).unwrap(), entry);
        }
        if let Err(error) = decode_key(&raw) {
            prop_assert_ne!(error.code(), Code::Ok);
        }
        drop(Selector::new(&raw));
    }
}

/// Every width in the definition is as wide as what our types can hold, or the definition
/// would refuse what the switch can do; the property above covers the other direction.
#[test]
fn widths_are_what_the_largest_values_need() {
    let largest = [
        Entry::NextHop(NextHopEntry {
            node: NodeSid(4095),
            port: PortId(255),
            mac: [0xff; 6],
            backup: 127,
        }),
        Entry::Policy(PolicyEntry::one(PolicyId(65_535), vec![u16::MAX; 6])),
        Entry::Generation(GenerationEntry { generation: u64::MAX }),
    ];
    for entry in largest {
        let raw = encode(&entry).unwrap();
        let table = entry.table().table();
        for (field, found) in table.fields.iter().zip(&raw.matches) {
            if let raw::MatchValue::Exact(value) = &found.value {
                let bits = 128 - raw::number(value).unwrap().leading_zeros();
                assert!(
                    bits == field.width || field.name == "row",
                    "{}.{}",
                    table.name,
                    field.name
                );
            }
        }
    }
}

fn table_id(kind: TableKind) -> u32 {
    kind.table().id
}

/// A raw entry by hand: `(field id, value)`, `(action id, [(parameter id, value)])`.
fn raw(
    kind: TableKind,
    matches: &[(u32, raw::MatchValue)],
    action: (u32, &[(u32, &[u8])]),
    priority: i32,
) -> raw::TableEntry {
    let field = |(field_id, value): &(u32, raw::MatchValue)| raw::FieldMatch {
        field_id: *field_id,
        value: value.clone(),
    };
    let param = |(param_id, value): &(u32, &[u8])| raw::Param {
        param_id: *param_id,
        value: value.to_vec(),
    };
    raw::TableEntry {
        table_id: table_id(kind),
        matches: matches.iter().map(field).collect(),
        action: Some(raw::TableAction::One(raw::Action {
            action_id: 1 << 24 | action.0,
            params: action.1.iter().map(param).collect(),
        })),
        priority,
    }
}

/// The same with sets of the action, by weight.
fn weighted(mut raw: raw::TableEntry, weights: &[i32]) -> raw::TableEntry {
    let Some(raw::TableAction::One(action)) = raw.action.take() else { panic!("one action") };
    let one = |weight: &i32| raw::WeightedAction { action: action.clone(), weight: *weight };
    raw.action = Some(raw::TableAction::Set(weights.iter().map(one).collect()));
    raw
}

#[test]
fn what_is_refused_and_how() {
    use raw::MatchValue::{Exact, Lpm, Optional, Range, Ternary};
    let exact = |value: &[u8]| Exact(value.to_vec());
    let lpm = |value: &[u8], prefix_len| Lpm { value: value.to_vec(), prefix_len };
    let mapped = [0xff, 0xff, 10, 1, 0, 0];
    let bind: (u32, &[(u32, &[u8])]) = (3, &[(1, &[1]), (2, &[0])]);
    let port1 = [(1, exact(&[1]))];
    let endpoint = |prefix| raw(TableKind::Endpoint, &[port1[0].clone(), (2, prefix)], bind, 0);
    let rule = |m: raw::MatchValue| raw(TableKind::Classifier, &[(1, m)], (4, &[]), 1);
    let path = |sids: [&'static [u8]; 6]| {
        let params: Vec<(u32, &[u8])> = (1..).zip(sids).collect();
        raw(TableKind::Policy, &[(1, exact(&[9]))], (10, &params), 0)
    };
    let sids = |sids| weighted(path(sids), &[1]);
    let set = |weights| weighted(path([&[1], &[0], &[0], &[0], &[0], &[0]]), weights);
    let port = |m: &[(u32, raw::MatchValue)], action| raw(TableKind::Port, m, action, 0);
    let none: &[(u32, &[u8])] = &[];

    // (entry, code, part of the message)
    let cases: Vec<(raw::TableEntry, Code, &str)> = vec![
        (raw::TableEntry { table_id: 99, ..Default::default() }, Code::NotFound, "no table 0x0"),
        (raw::TableEntry::default(), Code::NotFound, "0x00000000"),
        (port(&[], (1, none)), Code::InvalidArgument, "table port, field port: missing"),
        (port(&[(2, exact(&[1]))], (1, none)), Code::InvalidArgument, "no match field 2"),
        (
            port(&[port1[0].clone(), port1[0].clone()], (1, none)),
            Code::InvalidArgument,
            "given twice",
        ),
        (port(&[(1, lpm(&[1], 8))], (1, none)), Code::InvalidArgument, "an exact match, got lpm"),
        (
            port(&[(1, Range { low: vec![1], high: vec![2] })], (1, none)),
            Code::InvalidArgument,
            "got range",
        ),
        (port(&[(1, exact(&[]))], (1, none)), Code::OutOfRange, "table port, port: empty"),
        (port(&[(1, exact(&[1, 0]))], (1, none)), Code::OutOfRange, "does not fit 8 bits"),
        (port(&[(1, exact(&[1; 17]))], (1, none)), Code::OutOfRange, "does not fit 8 bits"),
        (port(&[(1, exact(&[0]))], (1, none)), Code::OutOfRange, "0 is not within 1..=255"),
        (port(&port1, (3, none)), Code::InvalidArgument, "not one of its own"),
        (port(&port1, (1, &[(1, &[1])])), Code::InvalidArgument, "no parameter 1"),
        (
            raw::TableEntry { action: None, ..port(&port1, (1, none)) },
            Code::InvalidArgument,
            "table port: no action",
        ),
        (
            raw::TableEntry { priority: 1, ..port(&port1, (1, none)) },
            Code::InvalidArgument,
            "no priority",
        ),
        (endpoint(lpm(&mapped, 0)), Code::InvalidArgument, "must then be left out"),
        (endpoint(lpm(&mapped, 129)), Code::InvalidArgument, "129 is not within 1..=128"),
        (endpoint(lpm(&mapped, -1)), Code::InvalidArgument, "-1 is not within 1..=128"),
        (endpoint(lpm(&mapped, 110)), Code::InvalidArgument, "bits outside"),
        (endpoint(exact(&mapped)), Code::InvalidArgument, "an lpm match, got exact"),
        (
            raw(TableKind::Endpoint, &port1, (3, &[(1, &[1])]), 0),
            Code::InvalidArgument,
            "parameter direction: missing",
        ),
        (
            raw(TableKind::Endpoint, &port1, (3, &[(1, &[1]), (1, &[1])]), 0),
            Code::InvalidArgument,
            "parameter slice_set: given twice",
        ),
        (
            raw(TableKind::Endpoint, &port1, (3, &[(1, &[1]), (2, &[2]), (3, &[0])]), 0),
            Code::OutOfRange,
            "table endpoint, direction: does not fit 1 bits",
        ),
        (
            raw(TableKind::Classifier, &[], (4, none), 0),
            Code::InvalidArgument,
            "entries have a priority",
        ),
        (rule(Ternary { value: vec![5], mask: vec![5] }), Code::Unimplemented, "has gaps"),
        (rule(Ternary { value: vec![0], mask: vec![0] }), Code::InvalidArgument, "left out"),
        (rule(Ternary { value: vec![1], mask: vec![0xf0] }), Code::InvalidArgument, "bits outside"),
        (
            raw(TableKind::Classifier, &[(6, Optional(vec![64]))], (4, none), 1),
            Code::OutOfRange,
            "dscp: does not fit 6 bits",
        ),
        (
            raw(
                TableKind::SliceMeter,
                &[(1, exact(&[1])), (2, exact(&[0]))],
                (9, &[(1, &[3]), (2, &[0]), (3, &[0]), (4, &[0]), (5, &[0])]),
                0,
            ),
            Code::OutOfRange,
            "class: 3 is not within 0..=2",
        ),
        (
            raw(TableKind::Classifier, &[], (22, &[(1, &[64])]), 1),
            Code::OutOfRange,
            "dscp: does not fit 6 bits",
        ),
        (
            raw(TableKind::Classifier, &[], (23, &[(1, &[0])]), 1),
            Code::OutOfRange,
            "policy: 0 is not within",
        ),
        (
            raw(TableKind::Classifier, &[(7, Optional(vec![0]))], (4, none), 1),
            Code::OutOfRange,
            "slice_set: 0 is not within",
        ),
        (sids([&[0]; 6]), Code::OutOfRange, "0 segments"),
        (path([&[1]; 6]), Code::InvalidArgument, "takes a set of actions"),
        (weighted(port(&port1, (1, none)), &[1]), Code::InvalidArgument, "takes one action"),
        (set(&[]), Code::Unimplemented, "without an action"),
        (set(&[1; 9]), Code::InvalidArgument, "9 actions in a set, at most 8"),
        (set(&[1, 0]), Code::InvalidArgument, "weight 0 is not within 1..=128"),
        (set(&[1, -1]), Code::InvalidArgument, "weight -1"),
        (set(&[129]), Code::InvalidArgument, "weight 129"),
        (
            weighted(raw(TableKind::Policy, &[(1, exact(&[9]))], (1, none), 0), &[1]),
            Code::InvalidArgument,
            "not one of its own",
        ),
        (
            sids([&[1], &[0], &[2], &[0], &[0], &[0]]),
            Code::InvalidArgument,
            "sid3: a segment behind",
        ),
        (
            raw(
                TableKind::Endpoint,
                &port1,
                (26, &[(1, &[1]), (2, &[1]), (3, &[0]), (4, &[0])]),
                0,
            ),
            Code::OutOfRange,
            "tag: 0 is not within 1..=65535",
        ),
        (
            raw(TableKind::Generation, &[(1, exact(&[1]))], (17, &[(1, &[1])]), 0),
            Code::OutOfRange,
            "1 is not within 0..=0",
        ),
    ];
    for (raw, code, part) in cases {
        let error = decode(&raw).expect_err(part);
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(part), "{error} lacks {part:?}");
    }
}

#[test]
fn what_cannot_be_written_down() {
    let endpoint = |prefix: &str| {
        Entry::Endpoint(EndpointEntry {
            port: PortId(1),
            prefix: prefix.parse().unwrap(),
            slice_set: SliceSet(1),
            direction: Direction::Uplink,
            endpoint: EndpointId::NONE,
            tag: EndpointTag::NONE,
        })
    };
    let rule = |priority, source: &str| {
        Entry::Classifier(Box::new(ClassifierEntry {
            source: Some(source.parse().unwrap()),
            ..ClassifierEntry::any(priority, ClassifierAction::Drop)
        }))
    };
    let policy = |sids| Entry::Policy(PolicyEntry::one(PolicyId(1), sids));
    let paths = |count, weight| {
        let paths = vec![Path { sids: vec![1], weight }; count];
        Entry::Policy(PolicyEntry { policy: PolicyId(1), paths })
    };
    let backup = |backup, sids| {
        let (around, port) = (PortId(1), PortId(2));
        Entry::Backup(BackupEntry { around, backup, port, mac: [0; 6], sids })
    };
    let tunnel = |local: &str, gnb: &str, teid, qfi, mtu| {
        let (local, gnb) = (local.parse().unwrap(), gnb.parse().unwrap());
        let tunnel = Some(Tunnel { local, gnb, teid, qfi, mtu }.into());
        let (slice, prefix) = (SliceId::DEFAULT, "10.1.0.1/32".parse().unwrap());
        Entry::Delivery(DeliveryEntry { slice, prefix, port: PortId(1), mac: [0; 6], tunnel })
    };
    let session = |teid, ipv4: Option<&str>, ipv6: Option<&str>| {
        Entry::GtpSession(Box::new(GtpSessionEntry {
            teid,
            port: PortId(1),
            gnb: "192.0.2.1".parse().unwrap(),
            ue_ipv4: ipv4.map(|text| text.parse().unwrap()),
            ue_ipv6: ipv6.map(|text| text.parse().unwrap()),
            slice_set: SliceSet(1),
            direction: Direction::Uplink,
            qfis: 0,
            endpoint: EndpointId::NONE,
            tag: EndpointTag::NONE,
        }))
    };
    let n3 = |text: &str| Entry::N3Address(N3AddressEntry { address: text.parse().unwrap() });
    // (entry, part of the message)
    let cases = [
        (tunnel("192.0.2.1", "fd00::1", 1, 1, 1500), "another IP version"),
        (tunnel("192.0.2.1", "192.0.2.2", 0, 1, 1500), "teid: 0 is not within"),
        (tunnel("192.0.2.1", "192.0.2.2", 1, 64, 1500), "64 is not within 0..=63"),
        (tunnel("192.0.2.1", "192.0.2.2", 1, 1, 67), "67 is not within 68..=65535"),
        (tunnel("::ffff:192.0.2.1", "fd00::2", 1, 1, 1500), "write it as IPv4"),
        (session(0, Some("10.1.0.1"), None), "teid: 0 is not within"),
        (session(1, None, None), "name nobody"),
        (session(1, Some("0.0.0.0"), None), "or everybody"),
        (session(1, None, Some("::/0")), "or everybody"),
        (session(1, None, Some("fd10::1/64")), "bits outside"),
        (session(1, None, Some("::ffff:10.1.0.1/128")), "write it as IPv4"),
        (n3("::ffff:192.0.2.1"), "write it as IPv4"),
        (endpoint("10.1.0.1/16"), "bits outside"),
        (endpoint("::ffff:10.1.0.1/128"), "write it as IPv4"),
        (rule(1, "::/0"), "left out"),
        (rule(0, "10.0.0.0/8"), "got 0"),
        (rule(1 << 31, "10.0.0.0/8"), "got 2147483648"),
        (policy(vec![]), "0 segments"),
        (policy(vec![1; 7]), "7 segments"),
        (paths(0, 1), "without an action"),
        (paths(9, 1), "9 actions in a set"),
        (paths(2, 0), "weight 0 is not within"),
        (paths(1, 129), "weight 129 is not within"),
        (backup(0, vec![]), "0 is not within 1..=127"),
        (backup(127, vec![1; 5]), "5 segments"),
        (policy(vec![1, 0, 2]), "sid2: 0 is not within"),
        (Entry::Port(PortEntry { port: PortId(256), kind: PortKind::Access }), "256"),
        (
            Entry::NextHop(NextHopEntry {
                node: NodeSid(4096),
                port: PortId(1),
                mac: [0; 6],
                backup: 0,
            }),
            "4096 is not within 1..=4095",
        ),
    ];
    for (entry, part) in cases {
        let error = encode(&entry).expect_err(part);
        assert!(error.to_string().contains(part), "{error} lacks {part:?}");
    }
}

#[test]
fn a_deletion_needs_the_match_alone() {
    let entry = Entry::Port(PortEntry { port: PortId(7), kind: PortKind::Fabric });
    let mut raw = encode(&entry).unwrap();
    let nonsense = raw::Action { action_id: 12_345, params: Vec::new() };
    raw.action = Some(raw::TableAction::One(nonsense));
    assert_eq!(decode_key(&raw), Ok(Key::Port(PortId(7))));
    raw.action = None;
    assert_eq!(decode_key(&raw), Ok(Key::Port(PortId(7))));
}

#[test]
fn a_rule_of_another_match_is_another_rule() {
    let rule = |protocol| {
        Entry::Classifier(Box::new(ClassifierEntry {
            protocol: Some(protocol),
            ..ClassifierEntry::any(3, ClassifierAction::Pass)
        }))
    };
    let (udp, tcp) = (rule(17), encode(&rule(6)).unwrap());
    assert_eq!(decode_key(&tcp), Ok(udp.key()));
    assert_eq!(same_match(&udp, &tcp), Ok(false));
}

#[test]
fn reads_select() {
    let entries = [
        Entry::Port(PortEntry { port: PortId(1), kind: PortKind::Access }),
        Entry::Port(PortEntry { port: PortId(2), kind: PortKind::Fabric }),
        Entry::Generation(GenerationEntry { generation: 5 }),
    ];
    let count = |raw: &raw::TableEntry| {
        let selector = Selector::new(raw).unwrap();
        entries.iter().filter(|entry| selector.selects(entry)).count()
    };
    let table = |kind| raw::TableEntry { table_id: table_id(kind), ..Default::default() };
    assert_eq!(count(&raw::TableEntry::default()), 3);
    assert_eq!(count(&table(TableKind::Port)), 2);
    assert_eq!(count(&table(TableKind::Policy)), 0);
    assert_eq!(count(&encode(&entries[1]).unwrap()), 1);
    let one = raw::TableEntry {
        action: None,
        matches: vec![raw::FieldMatch { field_id: 1, value: raw::MatchValue::Exact(vec![0, 2]) }],
        ..table(TableKind::Port)
    };
    assert_eq!(count(&one), 1);
    let unknown = raw::TableEntry { table_id: 7, ..Default::default() };
    assert_eq!(Selector::new(&unknown).unwrap_err().code(), Code::NotFound);
}

/// What a `p4runtime-shell` user sees must not change by accident: ids are on other people's
/// disks.
#[test]
fn ids_stay() {
    let ids: Vec<String> = TableKind::ALL
        .iter()
        .map(|kind| {
            let table: &tables::Table = kind.table();
            let actions = table.actions.iter().map(|a| format!("{}={}", a.name, a.id & 0xff));
            format!("{}={}: {}", table.name, table.id & 0xff, actions.collect::<Vec<_>>().join(" "))
        })
        .collect();
    assert_eq!(
        ids,
        [
            "port=1: access=1 fabric=2",
            "endpoint=2: bind=3 bind_tagged=26",
            "classifier=3: drop=4 pass=5 set_slice=6 mark=22 steer=23",
            "slice_route=4: local=7 to_policy=8",
            "slice_meter=5: meter=9",
            "policy=6: segments=10",
            "local_sid=7: node=11 decapsulate=12 compute=13",
            "next_hop=8: forward=14",
            "delivery=9: deliver=15 deliver_gtp=19",
            "port_queue=10: limit=16 limit_and_shape=25",
            "generation=11: set_generation=17",
            "backup=12: repair=18",
            "n3_address=13: end_tunnels=20",
            "gtp_session=14: decapsulate_gtp=21 decapsulate_gtp_tagged=27",
            "endpoint_meter=15: meter_endpoint=24",
        ]
    );
    assert_eq!((tables::PATHS.id, tables::PATHS.name), (0x1100_0001, "paths"));
}
