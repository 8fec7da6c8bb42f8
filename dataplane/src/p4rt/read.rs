//! A `Read` (P4Runtime 1.4 §13): table entries and counters, by wildcard or by key.

use selvedge_pipeline::{Code, CounterKind, Entry, TableKind};
use selvedge_southbound::convert;
use selvedge_southbound::p4::v1::{self as p4v1, entity::Entity, table_action};
use selvedge_southbound::status::UpdateError;

use crate::backend::{BackendError, Tables};

/// The entities that one element of a request asks for.
///
/// # Errors
/// What this element ends with.
pub fn read(tables: &impl Tables, wanted: &p4v1::Entity) -> Result<Vec<p4v1::Entity>, UpdateError> {
    match wanted.entity.as_ref() {
        Some(Entity::TableEntry(wanted)) => table_entries(tables, wanted),
        Some(Entity::CounterEntry(wanted)) => counter_entries(tables, wanted),
        None => Err(UpdateError::new(Code::InvalidArgument, "the request names no entity")),
        Some(Entity::ActionProfileMember(_) | Entity::ActionProfileGroup(_)) => Err(no_members()),
        Some(other) if asks_for_all(other) => Ok(Vec::new()),
        Some(_) => {
            let what = "this switch has table entries and counters, nothing else";
            Err(UpdateError::new(Code::NotFound, what))
        }
    }
}

fn table_entries(
    tables: &impl Tables,
    wanted: &p4v1::TableEntry,
) -> Result<Vec<p4v1::Entity>, UpdateError> {
    let selector = convert::selector_from_wire(wanted)?;
    let action = match wanted.action.as_ref().and_then(|action| action.r#type.as_ref()) {
        None => None,
        Some(table_action::Type::Action(action)) => Some(action.action_id),
        Some(_) => {
            let what = "entries are selected by an action's id, of tables without a selector";
            return Err(UpdateError::new(Code::InvalidArgument, what));
        }
    };
    if wanted.table_id == 0 && action.is_some() {
        let what = "a read of all tables takes no other filter"; // §9.1.4
        return Err(UpdateError::new(Code::InvalidArgument, what));
    }
    if !wanted.metadata.is_empty() {
        return Ok(Vec::new()); // no entry carries any
    }
    let mut entities = Vec::new();
    for table in TableKind::ALL {
        if wanted.table_id != 0 && wanted.table_id != table.table().id {
            continue;
        }
        for entry in one_or_all(tables, table, wanted)? {
            if !selector.selects(&entry) {
                continue;
            }
            let wire = convert::entry_to_wire(&entry)
                .map_err(|error| UpdateError::new(Code::Internal, error))?;
            if action.is_none_or(|id| action_of(&wire) == Some(id)) {
                entities.push(convert::entity(wire));
            }
        }
    }
    Ok(entities)
}

/// The entries among which the selector chooses: one, where a key is given, instead of a
/// pass over the map.
fn one_or_all(
    tables: &impl Tables,
    table: TableKind,
    wanted: &p4v1::TableEntry,
) -> Result<Vec<Entry>, UpdateError> {
    let key = (!wanted.r#match.is_empty()).then(|| convert::key_from_wire(wanted));
    match key {
        Some(Ok(key)) => match tables.get(&key) {
            Err(BackendError::Range { .. }) => Ok(Vec::new()),
            held => Ok(held.map_err(failed)?.into_iter().collect()),
        },
        // A match without its priority is a filter, not a key.
        Some(Err(_)) | None => tables.entries(table).map_err(failed),
    }
}

fn action_of(wire: &p4v1::TableEntry) -> Option<u32> {
    match wire.action.as_ref()?.r#type.as_ref()? {
        table_action::Type::Action(action) => Some(action.action_id),
        _ => None,
    }
}

fn counter_entries(
    tables: &impl Tables,
    wanted: &p4v1::CounterEntry,
) -> Result<Vec<p4v1::Entity>, UpdateError> {
    let counters: Vec<CounterKind> = match wanted.counter_id {
        0 => CounterKind::ALL.to_vec(),
        id => {
            let unknown = || UpdateError::new(Code::NotFound, format!("no counter {id:#010x}"));
            vec![CounterKind::from_id(id).ok_or_else(unknown)?]
        }
    };
    let index = match &wanted.index {
        Some(_) if wanted.counter_id == 0 => {
            let what = "a read of all counters takes no index";
            return Err(UpdateError::new(Code::InvalidArgument, what));
        }
        index => index.as_ref().map(|index| index.index),
    };
    let mut entities = Vec::new();
    for counter in counters {
        let size = counter.counter().size;
        let cells = match index {
            None => 0..size,
            Some(index) => match u32::try_from(index) {
                Ok(index) if index < size => index..index + 1,
                _ => {
                    let name = counter.counter().name;
                    let what = format!("counter {name} has no cell {index}, only 0..{size}");
                    return Err(UpdateError::new(Code::OutOfRange, what));
                }
            },
        };
        for cell in cells {
            let count = tables.count(counter, cell).map_err(failed)?;
            entities.push(counter_entity(counter, cell, count.packets, count.bytes));
        }
    }
    Ok(entities)
}

fn counter_entity(counter: CounterKind, index: u32, packets: u64, bytes: u64) -> p4v1::Entity {
    let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let entry = p4v1::CounterEntry {
        counter_id: counter.counter().id,
        index: Some(p4v1::Index { index: index.into() }),
        data: Some(p4v1::CounterData { byte_count: signed(bytes), packet_count: signed(packets) }),
    };
    p4v1::Entity { entity: Some(Entity::CounterEntry(entry)) }
}

/// Members and groups are optional; who has none says so to each message (§9.2.3).
pub(super) fn no_members() -> UpdateError {
    let what = "there are no members and groups: the table policy takes sets in one shot";
    UpdateError::new(Code::Unimplemented, what)
}

/// Whether a request for entities that we do not have is a wildcard, which nothing answers.
fn asks_for_all(wanted: &Entity) -> bool {
    match wanted {
        Entity::TableEntry(_)
        | Entity::CounterEntry(_)
        | Entity::ActionProfileMember(_)
        | Entity::ActionProfileGroup(_) => false,
        Entity::ExternEntry(e) => e.extern_type_id == 0,
        Entity::MeterEntry(e) => e.meter_id == 0,
        Entity::DirectMeterEntry(e) => e.table_entry.as_ref().is_none_or(|t| t.table_id == 0),
        Entity::DirectCounterEntry(e) => e.table_entry.as_ref().is_none_or(|t| t.table_id == 0),
        Entity::PacketReplicationEngineEntry(_) => true,
        Entity::ValueSetEntry(e) => e.value_set_id == 0,
        Entity::RegisterEntry(e) => e.register_id == 0,
        Entity::DigestEntry(e) => e.digest_id == 0,
    }
}

fn failed(error: BackendError) -> UpdateError {
    UpdateError::new(error.code(), error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use selvedge_pipeline::{
        ClassifierAction, ClassifierEntry, PolicyEntry, PolicyId, PortEntry, PortId, PortKind,
    };

    use crate::backend::memory::MemoryTables;

    fn port(port: u16, kind: PortKind) -> Entry {
        Entry::Port(PortEntry { port: PortId(port), kind })
    }

    fn rule(priority: u32) -> Entry {
        Entry::Classifier(Box::new(ClassifierEntry {
            protocol: Some(17),
            ..ClassifierEntry::any(priority, ClassifierAction::Drop)
        }))
    }

    fn tables() -> MemoryTables {
        let tables = MemoryTables::default();
        let policy = Entry::Policy(PolicyEntry::one(PolicyId(9), vec![2, 0xE001]));
        for entry in
            [port(1, PortKind::Access), port(2, PortKind::Fabric), rule(5), rule(6), policy]
        {
            tables.put(&entry).unwrap();
        }
        tables
    }

    fn entries(wanted: p4v1::TableEntry) -> Result<Vec<Entry>, Code> {
        let entities = read(&tables(), &convert::entity(wanted)).map_err(|error| error.code)?;
        let mut entries: Vec<Entry> = entities
            .into_iter()
            .map(|entity| match entity.entity {
                Some(Entity::TableEntry(entry)) => convert::entry_from_wire(&entry).unwrap(),
                other => panic!("{other:?}"),
            })
            .collect();
        entries.sort();
        Ok(entries)
    }

    #[test]
    fn wildcards_and_keys() {
        let wire = |entry: &Entry| convert::entry_to_wire(entry).unwrap();
        let of = |table: TableKind| p4v1::TableEntry {
            table_id: table.table().id,
            ..Default::default()
        };
        assert_eq!(entries(p4v1::TableEntry::default()).unwrap().len(), 5);
        let both = vec![port(1, PortKind::Access), port(2, PortKind::Fabric)];
        assert_eq!(entries(of(TableKind::Port)), Ok(both));
        assert_eq!(entries(of(TableKind::NextHop)), Ok(vec![]));
        let key_of_1 = p4v1::TableEntry { action: None, ..wire(&port(1, PortKind::Access)) };
        assert_eq!(entries(key_of_1), Ok(vec![port(1, PortKind::Access)]));
        let absent = p4v1::TableEntry { action: None, ..wire(&port(3, PortKind::Access)) };
        assert_eq!(entries(absent), Ok(vec![]));
        let fabric = p4v1::TableEntry {
            action: wire(&port(2, PortKind::Fabric)).action,
            ..of(TableKind::Port)
        };
        assert_eq!(entries(fabric.clone()), Ok(vec![port(2, PortKind::Fabric)]));
        // By priority alone, by match alone.
        let by_priority = p4v1::TableEntry { priority: 6, ..of(TableKind::Classifier) };
        assert_eq!(entries(by_priority), Ok(vec![rule(6)]));
        let by_match = p4v1::TableEntry { priority: 0, action: None, ..wire(&rule(5)) };
        assert_eq!(entries(by_match), Ok(vec![rule(5), rule(6)]));
        // Refused.
        assert_eq!(
            entries(p4v1::TableEntry { table_id: 3, ..Default::default() }),
            Err(Code::NotFound)
        );
        assert_eq!(entries(p4v1::TableEntry { table_id: 0, ..fabric }), Err(Code::InvalidArgument));
    }

    #[test]
    fn counters_by_cell_by_counter_and_all() {
        let of = |counter_id, index: Option<i64>| {
            let index = index.map(|index| p4v1::Index { index });
            let wanted = p4v1::CounterEntry { counter_id, index, data: None };
            let entity = p4v1::Entity { entity: Some(Entity::CounterEntry(wanted)) };
            read(&tables(), &entity).map(|cells| cells.len()).map_err(|error| error.code)
        };
        let drops = CounterKind::Drops.counter();
        let all: u32 = CounterKind::ALL.iter().map(|kind| kind.counter().size).sum();
        assert_eq!(of(drops.id, Some(3)), Ok(1));
        assert_eq!(of(drops.id, None), Ok(drops.size as usize));
        assert_eq!(of(0, None), Ok(all as usize));
        assert_eq!(of(0, Some(1)), Err(Code::InvalidArgument));
        assert_eq!(of(drops.id, Some(i64::from(drops.size))), Err(Code::OutOfRange));
        assert_eq!(of(drops.id, Some(-1)), Err(Code::OutOfRange));
        assert_eq!(of(77, None), Err(Code::NotFound));
    }

    #[test]
    fn what_we_do_not_have_is_empty_or_unknown() {
        let ask = |entity| read(&tables(), &p4v1::Entity { entity }).map_err(|error| error.code);
        assert_eq!(ask(None), Err(Code::InvalidArgument));
        let meter = |meter_id| p4v1::MeterEntry { meter_id, ..Default::default() };
        assert_eq!(ask(Some(Entity::MeterEntry(meter(0)))), Ok(vec![]));
        assert_eq!(ask(Some(Entity::MeterEntry(meter(1)))), Err(Code::NotFound));
        let group = Entity::ActionProfileGroup(Default::default());
        assert_eq!(ask(Some(group)), Err(Code::Unimplemented));
        let member = Entity::ActionProfileMember(Default::default());
        assert_eq!(ask(Some(member)), Err(Code::Unimplemented));
    }
}
