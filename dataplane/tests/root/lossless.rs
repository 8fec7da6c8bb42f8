//! Typed entries through the pinned maps of a real data plane.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv6Net};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use selvedge_dataplane::backend::xdp::XdpTables;
use selvedge_dataplane::backend::{BackendError, Tables};
use selvedge_pipeline::*;

use super::support::{Place, in_netns};

fn net() -> impl Strategy<Value = IpNet> {
    let v4 = (any::<u32>(), 0u8..=32)
        .prop_map(|(bits, len)| IpNet::new(IpAddr::V4(bits.into()), len).unwrap().trunc());
    let v6 = (any::<u128>(), 0u8..=128)
        .prop_map(|(bits, len)| IpNet::new(IpAddr::V6(bits.into()), len).unwrap().trunc());
    // Few prefixes, so that some are of each other's and some are met twice.
    let near = (0u8..4, 24u8..=32)
        .prop_map(|(host, len)| IpNet::new([10, 1, 0, host].into(), len).unwrap().trunc());
    prop_oneof![v4, v6, near]
}

fn ports() -> impl Strategy<Value = Option<[u16; 2]>> {
    prop::option::of((any::<u16>(), any::<u16>()).prop_map(|(a, b)| [a.min(b), a.max(b)]))
}

fn port() -> impl Strategy<Value = PortId> {
    (1u16..=255).prop_map(PortId)
}

fn set() -> impl Strategy<Value = SliceSet> {
    (1u16..).prop_map(SliceSet)
}

fn direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Downlink), Just(Direction::Uplink)]
}

/// Whatever the tables can hold (P4Runtime refuses a little more).
fn entry() -> impl Strategy<Value = Entry> {
    let slice = || (1u16..=SliceId::MAX.0).prop_map(SliceId);
    let class = prop_oneof![Just(Class::BestEffort), Just(Class::Guaranteed), Just(Class::Urllc)];
    let policy = || (1u32..=65_535).prop_map(PolicyId);
    let rate = || prop_oneof![Just(0), 1_000_000u64..100_000_000_000];
    let kind = prop_oneof![Just(PortKind::Access), Just(PortKind::Fabric)];
    let local = prop_oneof![
        Just(LocalSidAction::Decapsulate),
        (0u16..=255, any::<bool>()).prop_map(|(hook, bypass)| LocalSidAction::Compute {
            hook: HookId(hook),
            on_failure: if bypass { OnFailure::Bypass } else { OnFailure::Drop },
        }),
    ];
    let route = prop_oneof![Just(RouteAction::Local), policy().prop_map(RouteAction::Policy)];
    let action = prop_oneof![
        Just(ClassifierAction::Drop),
        Just(ClassifierAction::Pass),
        slice().prop_map(ClassifierAction::SetSlice),
        (0u8..64).prop_map(ClassifierAction::Mark),
        policy().prop_map(ClassifierAction::Steer),
    ];
    let path = (prop::collection::vec(1u16.., 1..=6), 1u8..=128)
        .prop_map(|(sids, weight)| Path { sids, weight });
    let nets = (prop::option::of(net()), prop::option::of(net()));
    let fields =
        (any::<Option<u8>>(), ports(), ports(), prop::option::of(0u8..64), prop::option::of(set()));
    prop_oneof![
        (port(), kind).prop_map(|(port, kind)| Entry::Port(PortEntry { port, kind })),
        (port(), net(), set(), direction(), endpoint()).prop_map(
            |(port, prefix, slice_set, direction, endpoint)| {
                Entry::Endpoint(EndpointEntry {
                    port,
                    prefix,
                    slice_set,
                    direction,
                    endpoint,
                    tag: EndpointTag::NONE,
                })
            }
        ),
        (slice(), direction(), 1u16.., 0u64..100_000_000_000, any::<(u32, u32)>()).prop_map(
            |(slice, direction, endpoint, bps, bursts)| {
                Entry::EndpointMeter(EndpointMeterEntry {
                    slice,
                    direction,
                    endpoint: EndpointId(endpoint),
                    guaranteed_bps: if bps < 8_000 { 0 } else { bps },
                    guaranteed_burst_bytes: bursts.0,
                    maximum_bps: if bps % 2 == 0 { 0 } else { bps.max(8_000) },
                    maximum_burst_bytes: bursts.1,
                })
            }
        ),
        // Priorities that collide are the same rule; few different ones.
        (1u32..=64, nets, fields, action).prop_map(|(priority, nets, fields, action)| {
            Entry::Classifier(Box::new(ClassifierEntry {
                priority,
                source: nets.0,
                destination: nets.1,
                protocol: fields.0,
                source_ports: fields.1,
                destination_ports: fields.2,
                dscp: fields.3,
                slice_set: fields.4,
                endpoint_tag: None,
                tunnel_id: None,
                action,
            }))
        }),
        (set(), net(), slice(), route, endpoint()).prop_map(
            |(slice_set, prefix, slice, action, endpoint)| {
                Entry::SliceRoute(SliceRouteEntry { slice_set, prefix, slice, action, endpoint })
            }
        ),
        (slice(), direction(), class, rate(), any::<u32>(), rate(), any::<u32>()).prop_map(
            |(slice, direction, class, guaranteed, burst, maximum, maximum_burst)| {
                Entry::SliceMeter(SliceMeterEntry {
                    slice,
                    direction,
                    class,
                    guaranteed_bps: guaranteed,
                    guaranteed_burst_bytes: burst,
                    // Where there is one it is no less than what is guaranteed.
                    maximum_bps: if maximum == 0 { 0 } else { maximum.max(guaranteed) },
                    maximum_burst_bytes: maximum_burst,
                })
            }
        ),
        (policy(), prop::collection::vec(path, 1..=8))
            .prop_map(|(policy, paths)| Entry::Policy(PolicyEntry { policy, paths })),
        (0xE000u16.., local)
            .prop_map(|(sid, action)| { Entry::LocalSid(LocalSidEntry { sid, action }) }),
        (1u16..=4095).prop_map(|sid| {
            Entry::LocalSid(LocalSidEntry { sid, action: LocalSidAction::Node })
        }),
        (1u16..=4095, port(), any::<[u8; 6]>(), 0u8..=127).prop_map(|(node, port, mac, backup)| {
            Entry::NextHop(NextHopEntry { node: NodeSid(node), port, mac, backup })
        }),
        (port(), 1u8..=127, port(), any::<[u8; 6]>(), prop::collection::vec(1u16.., 0..=4))
            .prop_map(|(around, backup, port, mac, sids)| {
                Entry::Backup(BackupEntry { around, backup, port, mac, sids })
            }),
        (slice(), net(), port(), any::<[u8; 6]>(), prop::option::of(tunnel())).prop_map(
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
        // No more than there is room for.
        (0u32..4).prop_map(|n| {
            let v6 = IpAddr::V6((0x2001_0db8 << 96 | u128::from(n)).into());
            let address = if n % 2 == 0 { v6 } else { IpAddr::V4((0xc000_0200 + n).into()) };
            Entry::N3Address(N3AddressEntry { address })
        }),
        session(),
        (port(), 1_000_000u64..100_000_000_000, any::<[u32; 3]>(), [0u64..2, 0u64..2, 0u64..2])
            .prop_map(|(port, rate_bps, threshold_bytes, shaped)| {
                let shaped_bps = shaped.map(|shaped| shaped * rate_bps);
                Entry::PortQueue(PortQueueEntry { port, rate_bps, threshold_bytes, shaped_bps })
            }),
        any::<u64>().prop_map(|generation| Entry::Generation(GenerationEntry { generation })),
    ]
}

fn endpoint() -> impl Strategy<Value = EndpointId> {
    any::<u16>().prop_map(EndpointId)
}

fn address4() -> impl Strategy<Value = IpAddr> {
    any::<u32>().prop_map(|bits| IpAddr::V4(bits.into()))
}

fn address6() -> impl Strategy<Value = IpAddr> {
    (1u128 << 64..).prop_map(|bits| IpAddr::V6(bits.into()))
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
    let ue = prop_oneof![(1u32.., Just(0u8)), (Just(0u32), 1u8..=128), (1u32.., 1u8..=128),];
    let gnb = prop_oneof![address4(), address6()];
    let bits = (1u128 << 127.., any::<u64>());
    (1u32.., port(), gnb, ue, bits, (set(), endpoint()), direction()).prop_map(
        |(teid, port, gnb, (ipv4, len), (bits, qfis), (slice_set, endpoint), direction)| {
            let net = Ipv6Net::new(bits.into(), len).unwrap().trunc();
            Entry::GtpSession(Box::new(GtpSessionEntry {
                teid,
                port,
                gnb,
                ue_ipv4: (ipv4 != 0).then(|| ipv4.into()),
                ue_ipv6: (len != 0).then_some(net),
                slice_set,
                direction,
                qfis,
                endpoint,
                tag: EndpointTag::NONE,
            }))
        },
    )
}

fn all(tables: &XdpTables) -> BTreeMap<Key, Entry> {
    let mut entries = BTreeMap::new();
    for table in TableKind::ALL {
        for entry in tables.entries(table).unwrap() {
            let before = entries.insert(entry.key(), entry.clone());
            assert_eq!(before, None, "{entry:?} is listed twice");
        }
    }
    entries
}

#[test]
fn what_is_put_is_what_is_read_also_by_the_next_agent() {
    in_netns(|| {
        let place = Place::new();
        let pin_dir = std::path::Path::new("/sys/fs/bpf/selvedge").join(&place.instance);
        let options = selvedge_xdp::Options { pin_dir, metering: true };
        let mut switch = selvedge_xdp::Switch::open(&options).unwrap();
        let mut runner = TestRunner::new(Config { cases: 24, ..Config::default() });
        let entries = prop::collection::vec(entry(), 0..120);
        let result = runner.run(&entries, |entries| {
            let tables = XdpTables::of(&switch);
            let mut model = BTreeMap::new();
            for entry in &entries {
                tables.put(entry).unwrap();
                model.insert(entry.key(), entry.clone());
                prop_assert_eq!(tables.get(&entry.key()).unwrap(), Some(entry.clone()));
            }
            prop_assert_eq!(&all(&tables), &model);
            // Half of them go; the others stay as they were.
            let keys: Vec<Key> = model.keys().copied().collect();
            for key in keys.iter().step_by(2) {
                prop_assert!(tables.remove(key).unwrap());
                prop_assert!(!tables.remove(key).unwrap());
                prop_assert_eq!(tables.get(key).unwrap(), None);
                model.remove(key);
            }
            prop_assert_eq!(&all(&tables), &model);
            for key in model.keys() {
                prop_assert!(tables.remove(key).unwrap());
            }
            prop_assert_eq!(all(&tables), BTreeMap::new());
            Ok(())
        });
        result.unwrap();

        let mut model = BTreeMap::new();
        let tables = XdpTables::of(&switch);
        let entries = prop::collection::vec(entry(), 300);
        let entries = entries.new_tree(&mut runner).unwrap().current();
        for entry in entries {
            tables.put(&entry).unwrap();
            model.insert(entry.key(), entry);
        }
        tables.set_election(7 << 64 | 3).unwrap();
        drop(switch);
        switch = selvedge_xdp::Switch::open(&options).unwrap();
        assert_eq!(all(&XdpTables::of(&switch)), model);
        assert_eq!(XdpTables::of(&switch).election().unwrap(), Some(7 << 64 | 3));
    });
}

/// Row `n` of a table matched by prefix: a whole address, or a prefix of 120 bits.
fn row(table: TableKind, n: u32, whole: bool) -> Entry {
    let (address, len) = if whole { (u128::from(n), 128) } else { (u128::from(n) << 8, 120) };
    let prefix = IpNet::new(IpAddr::V6((0xfd << 120 | address).into()), len).unwrap();
    let (port, slice, slice_set) = (PortId(1), SliceId::DEFAULT, SliceSet(1));
    let endpoint = EndpointId::NONE;
    match table {
        TableKind::Endpoint => {
            let direction = Direction::Uplink;
            Entry::Endpoint(EndpointEntry {
                port,
                prefix,
                slice_set,
                direction,
                endpoint,
                tag: EndpointTag::NONE,
            })
        }
        TableKind::SliceRoute => {
            let action = RouteAction::Local;
            Entry::SliceRoute(SliceRouteEntry { slice_set, prefix, slice, action, endpoint })
        }
        TableKind::Delivery => {
            let mac = [2, 0, 0, 0, 0, 1];
            Entry::Delivery(DeliveryEntry { slice, prefix, port, mac, tunnel: None })
        }
        TableKind::GtpSession => Entry::GtpSession(Box::new(GtpSessionEntry {
            teid: n + 1,
            port,
            gnb: IpAddr::V4((0xc000_0201).into()),
            ue_ipv4: None,
            ue_ipv6: Some(Ipv6Net::new((0xfd << 120 | address).into(), len).unwrap()),
            slice_set,
            direction: Direction::Uplink,
            qfis: 0,
            endpoint: EndpointId::NONE,
            tag: EndpointTag::NONE,
        })),
        table => unreachable!("{} holds no so many", table.name()),
    }
}

#[test]
fn tables_hold_what_p4info_promises_and_say_when_they_are_full() {
    in_netns(|| {
        let place = Place::new();
        let pin_dir = std::path::Path::new("/sys/fs/bpf/selvedge").join(&place.instance);
        let options = selvedge_xdp::Options { pin_dir, metering: true };
        let switch = selvedge_xdp::Switch::open(&options).unwrap();
        let tables = XdpTables::of(&switch);
        let by_prefix = [TableKind::Endpoint, TableKind::SliceRoute, TableKind::Delivery];
        for table in by_prefix.into_iter().chain([TableKind::GtpSession]) {
            let size = table.table().size;
            // By TEID there is one kind of them.
            let kinds = if table == TableKind::GtpSession { 1 } else { 2 };
            for whole in [true, false].into_iter().take(kinds) {
                for n in 0..size {
                    tables.put(&row(table, n, whole)).unwrap();
                }
                let error = tables.put(&row(table, size, whole)).unwrap_err();
                assert_eq!(error.code(), Code::ResourceExhausted);
                let wanted = format!("table {} is full: it holds {size} entries", table.name());
                assert_eq!(error.to_string(), wanted);
                assert!(matches!(error, BackendError::Full { .. }));
                // One that is held can still be changed, and room that is made is used.
                tables.put(&row(table, 0, whole)).unwrap();
                assert!(tables.remove(&row(table, 0, whole).key()).unwrap());
                tables.put(&row(table, size, whole)).unwrap();
            }
        }
    });
}
