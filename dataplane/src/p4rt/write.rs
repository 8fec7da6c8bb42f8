//! One update of a `Write` (P4Runtime 1.4 §12), carried out on the tables.

use selvedge_pipeline::{Code, Entry, GenerationEntry, Key, PortEntry, TableKind, codec};
use selvedge_southbound::convert;
use selvedge_southbound::p4::v1::{self as p4v1, entity::Entity, update::Type};
use selvedge_southbound::status::UpdateError;

use crate::backend::{BackendError, Tables, port_of};

/// Whether the switch keeps the generation of its entries (DESIGN §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generations {
    /// An older one than it holds is refused.
    Guarded,
    /// The row is one like the others.
    Free,
}

/// # Errors
/// What this update ends with; nothing has changed then.
fn update(
    tables: &impl Tables,
    generations: Generations,
    update: &p4v1::Update,
) -> Result<(), UpdateError> {
    let entity = update.entity.as_ref().and_then(|entity| entity.entity.as_ref());
    let wire = match entity {
        Some(Entity::TableEntry(wire)) => wire,
        Some(Entity::CounterEntry(_)) => {
            return Err(UpdateError::new(Code::Unimplemented, "counters can be read only"));
        }
        Some(Entity::ActionProfileMember(_) | Entity::ActionProfileGroup(_)) => {
            return Err(super::read::no_members());
        }
        Some(Entity::PacketReplicationEngineEntry(_)) => {
            let what = "packets are not copied: XDP redirects one packet, to one port";
            return Err(UpdateError::new(Code::Unimplemented, what));
        }
        Some(_) => {
            let what = "this switch has table entries and counters, nothing else";
            return Err(UpdateError::new(Code::Unimplemented, what));
        }
        None => return Err(UpdateError::new(Code::InvalidArgument, "the update has no entity")),
    };
    let result = match Type::try_from(update.r#type) {
        Ok(Type::Insert) => insert(tables, wire),
        Ok(Type::Modify) => modify(tables, generations, wire),
        Ok(Type::Delete) => delete(tables, generations, wire),
        Ok(Type::Unspecified) | Err(_) => {
            Err(UpdateError::new(Code::InvalidArgument, "the update has no type"))
        }
    };
    result.map_err(|error| {
        // Which one, for whoever sent many.
        let table = TableKind::from_id(wire.table_id).map_or("", |kind| kind.table().name);
        match table {
            "" => error,
            table if error.message.contains(table) => error,
            table => UpdateError::new(error.code, format!("table {table}: {}", error.message)),
        }
    })
}

/// Whether packets see all of a batch or none: rules come into force together, and so do the
/// paths of one policy.
pub fn is_atomic(updates: &[p4v1::Update]) -> bool {
    let table = |update: &p4v1::Update| match update.entity.as_ref()?.entity.as_ref()? {
        Entity::TableEntry(wire) => TableKind::from_id(wire.table_id),
        _ => None,
    };
    match updates {
        [one] if table(one) == Some(TableKind::Policy) => true,
        all => all.iter().all(|one| table(one) == Some(TableKind::Classifier)),
    }
}

/// The updates in their order, and what each ends with.
pub fn batch(
    tables: &impl Tables,
    generations: Generations,
    updates: &[p4v1::Update],
    or_none: bool,
) -> Vec<Result<(), UpdateError>> {
    let (mut results, ended) = tables.batch(|| match or_none {
        true => all_or_none(tables, generations, updates),
        false => updates.iter().map(|one| update(tables, generations, one)).collect(),
    });
    if let Err(error) = ended {
        let error = failed(error);
        for (result, one) in results.iter_mut().zip(updates) {
            let is_rule = matches!(key_of(one), Some(Key::Classifier(_)));
            if is_rule && result.is_ok() {
                *result = Err(error.clone());
            }
        }
    }
    results
}

/// All of the updates or, when one fails, none: what was done before it is undone, and what comes
/// after it is not tried (ROLLBACK_ON_ERROR, P4Runtime 1.4 §12.2). Packets may meet what is undone.
fn all_or_none(
    tables: &impl Tables,
    generations: Generations,
    updates: &[p4v1::Update],
) -> Vec<Result<(), UpdateError>> {
    // What was held, by key.
    let mut before: Vec<(Key, Option<Entry>)> = Vec::new();
    for (at, one) in updates.iter().enumerate() {
        let held = key_of(one).map(|key| Ok((key, held(tables, &key)?))).transpose();
        let done = held.and_then(|held| update(tables, generations, one).map(|()| held));
        match done {
            Ok(held) => before.extend(held),
            Err(mut error) => {
                for (key, held) in before.into_iter().rev() {
                    let undone = match held {
                        Some(entry) => tables.put(&entry),
                        None => tables.remove(&key).map(drop),
                    };
                    if let Err(why) = undone {
                        error.message = format!("{}; cannot undo {key:?}: {why}", error.message);
                    }
                }
                let aborted = || UpdateError::new(Code::Aborted, "another of the batch failed");
                let mut results: Vec<_> = updates.iter().map(|_| Err(aborted())).collect();
                results[at] = Err(error);
                return results;
            }
        }
    }
    updates.iter().map(|_| Ok(())).collect()
}

/// Of the table entry that an update is about; `None`: it is about none, and will fail.
fn key_of(update: &p4v1::Update) -> Option<Key> {
    match update.entity.as_ref()?.entity.as_ref()? {
        Entity::TableEntry(wire) => convert::key_from_wire(wire).ok(),
        _ => None,
    }
}

/// Removes every entry; the generation only where it is free.
pub fn clear(tables: &impl Tables, generations: Generations) -> Result<(), BackendError> {
    let (cleared, ended) = tables.batch(|| {
        for table in TableKind::ALL {
            if table == TableKind::Generation && generations == Generations::Guarded {
                continue;
            }
            for entry in tables.entries(table)? {
                tables.remove(&entry.key())?;
            }
        }
        Ok(())
    });
    cleared.and(ended)
}

fn insert(tables: &impl Tables, wire: &p4v1::TableEntry) -> Result<(), UpdateError> {
    let entry = writable(tables, wire)?;
    if held(tables, &entry.key())?.is_some() {
        let what = match entry {
            Entry::Classifier(rule) => format!("priority {} is taken", rule.priority),
            _ => "the entry exists".to_owned(),
        };
        return Err(UpdateError::new(Code::AlreadyExists, what));
    }
    tables.put(&entry).map_err(failed)
}

fn modify(
    tables: &impl Tables,
    generations: Generations,
    wire: &p4v1::TableEntry,
) -> Result<(), UpdateError> {
    if wire.action.is_none() {
        // Changes nothing (§9.1), of an entry that is there.
        let key = convert::key_from_wire(wire)?;
        return matching(tables, &key, wire).map(drop);
    }
    let entry = writable(tables, wire)?;
    let held = matching(tables, &entry.key(), wire)?;
    if let (Entry::Generation(held), Entry::Generation(new), Generations::Guarded) =
        (&held, &entry, generations)
    {
        let (GenerationEntry { generation: held }, GenerationEntry { generation: new }) =
            (held, new);
        if new < held {
            let what = format!("generation {new} is older than {held}, which this switch holds");
            return Err(UpdateError::new(Code::FailedPrecondition, what));
        }
    }
    tables.put(&entry).map_err(failed)
}

fn delete(
    tables: &impl Tables,
    generations: Generations,
    wire: &p4v1::TableEntry,
) -> Result<(), UpdateError> {
    let key = convert::key_from_wire(wire)?;
    matching(tables, &key, wire)?;
    if key == Key::Generation && generations == Generations::Guarded {
        let what = "a managed switch does not forget its generation";
        return Err(UpdateError::new(Code::FailedPrecondition, what));
    }
    match tables.remove(&key).map_err(failed)? {
        true => Ok(()),
        false => Err(missing()),
    }
}

/// The entry of an insertion or modification, if this switch can hold it.
fn writable(tables: &impl Tables, wire: &p4v1::TableEntry) -> Result<Entry, UpdateError> {
    if !wire.metadata.is_empty() {
        // It would have to be given back on reads (P4Runtime §9.1), and there is no room.
        return Err(UpdateError::new(Code::Unimplemented, "entries carry no metadata"));
    }
    let entry = convert::entry_from_wire(wire)?;
    if let Some(port) = port_of(&entry)
        && !tables.knows_port(port).map_err(failed)?
    {
        let what = match entry {
            Entry::Port(PortEntry { .. }) => format!("this switch has no port {}", port.0),
            _ => format!("the entry names port {}, which this switch does not have", port.0),
        };
        return Err(UpdateError::new(Code::InvalidArgument, what));
    }
    Ok(entry)
}

/// The entry held under `key`, if it has the very match of `wire`.
fn matching(
    tables: &impl Tables,
    key: &Key,
    wire: &p4v1::TableEntry,
) -> Result<Entry, UpdateError> {
    let held = held(tables, key)?.ok_or_else(missing)?;
    let key_only = p4v1::TableEntry {
        table_id: wire.table_id,
        r#match: wire.r#match.clone(),
        priority: wire.priority,
        ..Default::default()
    };
    let raw = convert::raw_from_wire(&key_only)?;
    match codec::same_match(&held, &raw) {
        Ok(true) => Ok(held),
        Ok(false) => {
            Err(UpdateError::new(Code::NotFound, "the rule of this priority matches other fields"))
        }
        Err(error) => Err(UpdateError::new(error.code(), error)),
    }
}

fn held(tables: &impl Tables, key: &Key) -> Result<Option<Entry>, UpdateError> {
    match tables.get(key) {
        // Nothing can be where nothing fits.
        Err(BackendError::Range { .. }) => Ok(None),
        held => held.map_err(failed),
    }
}

fn missing() -> UpdateError {
    UpdateError::new(Code::NotFound, "there is no such entry")
}

fn failed(error: BackendError) -> UpdateError {
    UpdateError::new(error.code(), error)
}

#[cfg(test)]
mod tests;
