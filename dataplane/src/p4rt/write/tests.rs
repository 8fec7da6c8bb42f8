use selvedge_pipeline::{
    Class, ClassifierAction, ClassifierEntry, DeliveryEntry, Direction, NextHopEntry, NodeSid,
    PolicyEntry, PolicyId, PortId, PortKind, SliceId, SliceMeterEntry,
};

use super::*;
use crate::backend::memory::MemoryTables;

fn wire(kind: Type, entry: &Entry) -> p4v1::Update {
    let entry = convert::entry_to_wire(entry).unwrap();
    p4v1::Update { r#type: kind.into(), entity: Some(convert::entity(entry)) }
}

fn without_action(kind: Type, entry: &Entry) -> p4v1::Update {
    let mut update = wire(kind, entry);
    match update.entity.as_mut().and_then(|entity| entity.entity.as_mut()) {
        Some(Entity::TableEntry(entry)) => entry.action = None,
        other => panic!("{other:?}"),
    }
    update
}

fn port(port: u16) -> Entry {
    Entry::Port(PortEntry { port: PortId(port), kind: PortKind::Access })
}

fn rule(priority: u32, dscp: Option<u8>, action: ClassifierAction) -> Entry {
    Entry::Classifier(Box::new(ClassifierEntry {
        destination: Some("10.1.0.0/16".parse().unwrap()),
        protocol: Some(17),
        dscp,
        ..ClassifierEntry::any(priority, action)
    }))
}

fn generation(generation: u64) -> Entry {
    Entry::Generation(GenerationEntry { generation })
}

fn policy(sids: &[u16]) -> Entry {
    Entry::Policy(PolicyEntry::one(PolicyId(1), sids.to_vec()))
}

#[test]
fn updates_and_what_they_end_with() {
    use Type::{Delete, Insert, Modify, Unspecified};
    let next_hop = |port| {
        Entry::NextHop(NextHopEntry {
            node: NodeSid(3),
            port: PortId(port),
            mac: [2; 6],
            backup: 0,
        })
    };
    let meter = Entry::SliceMeter(SliceMeterEntry {
        slice: SliceId(1),
        direction: Direction::Uplink,
        class: Class::Guaranteed,
        guaranteed_bps: 20_000_000,
        guaranteed_burst_bytes: 625_000,
        maximum_bps: 0,
        maximum_burst_bytes: 0,
    });
    // (update, code, entries held under the key afterwards)
    let script = [
        (wire(Modify, &port(1)), Code::NotFound, false),
        (wire(Delete, &port(1)), Code::NotFound, false),
        (wire(Insert, &port(1)), Code::Ok, true),
        (wire(Insert, &port(1)), Code::AlreadyExists, true),
        (wire(Modify, &port(1)), Code::Ok, true),
        (wire(Delete, &port(1)), Code::Ok, false),
        (wire(Insert, &port(9)), Code::InvalidArgument, false),
        (wire(Insert, &next_hop(9)), Code::InvalidArgument, false),
        (wire(Insert, &next_hop(8)), Code::Ok, true),
        (wire(Unspecified, &next_hop(8)), Code::InvalidArgument, true),
        (wire(Insert, &policy(&[2, 0xE001])), Code::Ok, true),
        (wire(Modify, &policy(&[3, 2, 0xE001])), Code::Ok, true),
        (without_action(Modify, &policy(&[1])), Code::Ok, true),
        (without_action(Modify, &port(1)), Code::NotFound, false),
        (without_action(Insert, &port(1)), Code::InvalidArgument, false),
        (wire(Insert, &meter), Code::Ok, true),
        // One rule a priority; a deletion must name the rule that is there.
        (wire(Insert, &rule(7, None, ClassifierAction::Drop)), Code::Ok, true),
        (wire(Insert, &rule(7, Some(46), ClassifierAction::Pass)), Code::AlreadyExists, true),
        (wire(Modify, &rule(7, Some(46), ClassifierAction::Pass)), Code::NotFound, true),
        (wire(Delete, &rule(7, Some(46), ClassifierAction::Drop)), Code::NotFound, true),
        (wire(Modify, &rule(7, None, ClassifierAction::Pass)), Code::Ok, true),
        (wire(Delete, &rule(7, None, ClassifierAction::Drop)), Code::Ok, false),
    ];
    let tables = MemoryTables::default();
    for (step, (wire, code, there)) in script.iter().enumerate() {
        let ended = update(&tables, Generations::Guarded, wire);
        let got = ended.as_ref().map_or_else(|error| error.code, |()| Code::Ok);
        assert_eq!(got, *code, "step {step}: {ended:?}");
        let Some(Entity::TableEntry(entry)) = wire.entity.clone().unwrap().entity else {
            panic!("a table entry");
        };
        let key = convert::key_from_wire(&entry).unwrap();
        assert_eq!(tables.get(&key).unwrap().is_some(), *there, "step {step}");
    }
    assert_eq!(tables.get(&Key::Policy(PolicyId(1))).unwrap(), Some(policy(&[3, 2, 0xE001])));
}

#[test]
fn an_older_generation_is_refused_where_it_is_guarded() {
    use Type::{Delete, Insert, Modify};
    for guarded in [Generations::Guarded, Generations::Free] {
        let tables = MemoryTables::default();
        let code = |kind, n| match update(&tables, guarded, &wire(kind, &generation(n))) {
            Ok(()) => Code::Ok,
            Err(error) => error.code,
        };
        let refused = match guarded {
            Generations::Guarded => Code::FailedPrecondition,
            Generations::Free => Code::Ok,
        };
        assert_eq!(code(Insert, 5), Code::Ok);
        assert_eq!(code(Modify, 5), Code::Ok);
        assert_eq!(code(Modify, 7), Code::Ok);
        assert_eq!(code(Modify, 6), refused);
        assert_eq!(code(Delete, 0), refused);
        clear(&tables, guarded).unwrap();
        let kept = tables.get(&Key::Generation).unwrap().is_some();
        assert_eq!(kept, guarded == Generations::Guarded);
    }
}

#[test]
fn clearing_leaves_nothing() {
    let tables = MemoryTables::default();
    for entry in [port(1), port(2), policy(&[1]), rule(1, None, ClassifierAction::Drop)] {
        tables.put(&entry).unwrap();
    }
    clear(&tables, Generations::Free).unwrap();
    for table in TableKind::ALL {
        assert_eq!(tables.entries(table).unwrap(), [], "{}", table.table().name);
    }
}

#[test]
fn what_is_no_table_entry_is_refused() {
    let tables = MemoryTables::holding(1);
    let entity = |entity| Some(p4v1::Entity { entity });
    let delivery = Entry::Delivery(DeliveryEntry {
        slice: SliceId(1),
        prefix: "10.1.0.11/32".parse().unwrap(),
        port: PortId(1),
        mac: [2; 6],
        tunnel: None,
    });
    let Some(Entity::TableEntry(good)) = wire(Type::Insert, &delivery).entity.unwrap().entity
    else {
        panic!("a table entry");
    };
    let table = |change: fn(&mut p4v1::TableEntry)| {
        let mut entry = good.clone();
        change(&mut entry);
        entity(Some(Entity::TableEntry(entry)))
    };
    // (entity, code, part of the message)
    let cases = [
        (None, Code::InvalidArgument, "no entity"),
        (entity(None), Code::InvalidArgument, "no entity"),
        (entity(Some(Entity::CounterEntry(Default::default()))), Code::Unimplemented, "counters"),
        (
            entity(Some(Entity::PacketReplicationEngineEntry(Default::default()))),
            Code::Unimplemented,
            "not copied",
        ),
        (entity(Some(Entity::MeterEntry(Default::default()))), Code::Unimplemented, "nothing"),
        (entity(Some(Entity::ActionProfileGroup(Default::default()))), Code::Unimplemented, "shot"),
        (
            entity(Some(Entity::ActionProfileMember(Default::default()))),
            Code::Unimplemented,
            "shot",
        ),
        (table(|e| e.table_id = 77), Code::NotFound, "no table 0x0000004d"),
        (table(|e| e.metadata = vec![1]), Code::Unimplemented, "table delivery: entries carry no"),
        (table(|e| e.priority = 3), Code::InvalidArgument, "priority"),
        (table(|e| e.action = None), Code::InvalidArgument, "table delivery: no action"),
        (table(|e| e.r#match.clear()), Code::InvalidArgument, "slice"),
        (table(|_| {}), Code::Ok, ""),
    ];
    for (entity, code, part) in cases {
        let text = format!("{entity:?}");
        let wire = p4v1::Update { r#type: Type::Insert.into(), entity };
        match update(&tables, Generations::Free, &wire) {
            Ok(()) => assert_eq!(code, Code::Ok, "{text}"),
            Err(error) => {
                assert_eq!(error.code, code, "{error} {text}");
                assert!(error.message.contains(part), "{error} {text}");
            }
        }
    }
    let Entry::Delivery(delivery) = delivery else { unreachable!() };
    let more = Entry::Delivery(DeliveryEntry { slice: SliceId(2), ..delivery });
    let full = update(&tables, Generations::Free, &wire(Type::Insert, &more)).unwrap_err();
    assert_eq!(full.code, Code::ResourceExhausted);
}
