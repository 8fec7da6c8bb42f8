//! What was changed when, by whom and why, and how each change is undone.
//!
//! One entry for each revision of the intent. An entry keeps objects as they were *before* the
//! change; what they became is in the next entry that touches them, or in the intent. So going
//! back is undoing entries from the newest down, and a change costs what it replaces.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use selvedge_slices::{Object, document};
use selvedge_topology::sorted::Sorted;
use serde::{Deserialize, Serialize};

use crate::effect::RecordChange;
use crate::event::{Change, ObjectId};
use crate::intent::Intent;
use crate::refusal::Refusal;
use crate::view::{ObjectChange, Revision, Touched, Verb};

/// Entries kept; the oldest go first.
pub const HISTORY_KEPT: usize = 1_000;
/// What all entries take in the store, in bytes; the oldest go first.
pub const HISTORY_BYTES: usize = 16 << 20;
/// What one entry takes, in bytes. A larger one keeps names only: no rollback leads past it.
pub const HISTORY_ENTRY_BYTES: usize = 1 << 20;
/// Modules that only entries refer to; the oldest entries go first. One has up to 8 MiB.
pub const HISTORY_MODULES: usize = 16;

/// Of its records in the store.
pub(crate) const PREFIX: &str = "history/";

/// What is written down beside a change.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Note {
    pub(crate) author: String,
    pub(crate) reason: String,
    /// The revision that was gone back to.
    pub(crate) rollback: Option<u64>,
}

impl Note {
    /// For the event log.
    pub(crate) fn text(&self) -> String {
        let Self { author, reason, rollback } = self;
        let back = rollback.map_or(String::new(), |to| format!(", back to revision {to}"));
        let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        format!("by {author}{back}{why}")
    }
}

/// An object and, of a hook, the SHA-256 of its module.
type Before = (Object, Option<String>);

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    at_ms: u64,
    note: Note,
    /// Table entries added, changed and removed, all switches together, and those switches.
    entries: [usize; 4],
    touched: Vec<(Touched, Option<Before>)>,
    /// What is no object's: `drain node s1`.
    operations: Vec<String>,
    /// `touched` has the objects of before, and not their names only.
    undoable: bool,
    /// Of its record.
    bytes: usize,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// By revision, without a gap up to the newest.
    entries: Sorted<u64, Arc<Entry>>,
    bytes: usize,
    /// What the store has not been asked for yet.
    unsaved: VecDeque<RecordChange>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    at_ms: u64,
    author: String,
    reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rollback: Option<u64>,
    entries: [usize; 4],
    undoable: bool,
    touched: Vec<TouchedRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    operations: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TouchedRecord {
    verb: Verb,
    kind: String,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<serde_json::Value>,
    /// SHA-256 of a hook's module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    module: Option<String>,
}

impl History {
    /// Writes down how `after` came of `before`. `entries`: added, changed, removed, switches.
    pub(crate) fn add(
        &mut self,
        (before, after): (&Intent, &Intent),
        note: Note,
        entries: [usize; 4],
        now_ms: u64,
    ) {
        let touched = before.touched(after).into_iter().map(|touched| {
            let was = before.object(&touched.id);
            (touched, was)
        });
        let touched = touched.collect();
        let operations = before.operations(after);
        let mut entry =
            Entry { at_ms: now_ms, note, entries, touched, operations, undoable: true, bytes: 0 };
        let mut value = entry.record();
        if value.len() > HISTORY_ENTRY_BYTES {
            entry.undoable = false;
            entry.touched.iter_mut().for_each(|(_, before)| *before = None);
            value = entry.record();
        }
        entry.bytes = value.len();
        self.bytes += entry.bytes;
        let more_modules = entry.modules().next().is_some();
        self.entries.insert(after.revision, Arc::new(entry));
        let value = Some(value);
        self.unsaved.push_back(RecordChange { key: key(after.revision), value });
        while self.entries.len() > HISTORY_KEPT
            || self.bytes > HISTORY_BYTES
            || (more_modules && self.own_modules(after) > HISTORY_MODULES)
        {
            let Some((revision, entry)) = self.entries.pop_first() else { return };
            self.bytes -= entry.bytes;
            self.unsaved.push_back(RecordChange { key: key(revision), value: None });
        }
    }

    /// Modules that no hook of the intent has.
    fn own_modules(&self, intent: &Intent) -> usize {
        let used: BTreeSet<&str> = intent.modules().collect();
        self.modules().collect::<BTreeSet<_>>().difference(&used).count()
    }

    /// SHA-256 digests of modules that a rollback may need.
    pub(crate) fn modules(&self) -> impl Iterator<Item = &str> {
        self.entries.values().flat_map(|entry| entry.modules())
    }

    /// What the store is to be told; it is forgotten here.
    pub(crate) fn take_unsaved(history: &mut Arc<Self>) -> VecDeque<RecordChange> {
        if history.unsaved.is_empty() {
            return VecDeque::new();
        }
        std::mem::take(&mut Arc::make_mut(history).unsaved)
    }

    /// The change that makes every object what it was at a revision.
    pub(crate) fn back_to(&self, revision: u64, intent: &Intent) -> Result<Change, Refusal> {
        let last = intent.revision;
        if revision > last {
            return Err(Refusal::NoRevision { revision, last });
        }
        let oldest = self.oldest(last);
        if revision < oldest {
            return Err(Refusal::RevisionGone { revision, oldest });
        }
        let mut then: BTreeMap<&ObjectId, Option<&Before>> = BTreeMap::new();
        for (_, entry) in self.entries.from(&(revision + 1)).rev() {
            then.extend(entry.touched.iter().map(|(t, before)| (&t.id, before.as_ref())));
        }
        let mut change = Change::default();
        for (id, before) in then {
            match before {
                Some((object, module)) => {
                    let module = module.iter().map(|digest| (id.name.clone(), digest.clone()));
                    change.modules.extend(module);
                    change.put.push(object.clone());
                }
                None if intent.object(id).is_some() => change.delete.push(id.clone()),
                None => {}
            }
        }
        Ok(change)
    }

    /// The oldest revision that can be gone back to.
    fn oldest(&self, last: u64) -> u64 {
        let stop = self.entries.iter().rev().find(|(_, entry)| !entry.undoable);
        let first = self.entries.keys().next().map(|first| first - 1);
        stop.map(|(revision, _)| *revision).or(first).unwrap_or(last)
    }

    /// Oldest first.
    pub(crate) fn views(&self) -> impl DoubleEndedIterator<Item = Revision> {
        self.entries.iter().map(|(revision, entry)| entry.view(*revision))
    }

    /// What one revision did, with objects before and after it.
    pub(crate) fn changes(&self, revision: u64, intent: &Intent) -> Option<Vec<ObjectChange>> {
        let entry = self.entries.get(&revision)?;
        let after = |id: &ObjectId| {
            let mut later = self.entries.from(&(revision + 1)).map(|(_, entry)| entry);
            let next =
                later.find_map(|entry| entry.touched.iter().find(|(touched, _)| touched.id == *id));
            match next {
                Some((_, before)) => before.clone(),
                None => intent.object(id),
            }
        };
        let change = |(touched, before): &(Touched, Option<Before>)| ObjectChange {
            touched: touched.clone(),
            before: before.as_ref().map(|(object, _)| object.clone()),
            after: after(&touched.id).map(|(object, _)| object),
        };
        Some(entry.touched.iter().map(change).collect())
    }

    /// Takes a record of the store, by what follows [`PREFIX`] in its key.
    pub(crate) fn restore(&mut self, revision: &str, value: &[u8]) -> Result<(), String> {
        let revision = revision.parse().ok().filter(|revision: &u64| *revision > 0);
        let revision = revision.ok_or_else(|| String::from("not a revision"))?;
        let mut entry = Entry::of_record(value)?;
        entry.bytes = value.len();
        self.bytes += entry.bytes;
        self.entries.insert(revision, Arc::new(entry));
        Ok(())
    }

    /// Every record was read: keeps those that lead to the intent's revision without a gap.
    pub(crate) fn restored(&mut self, last: u64) {
        let mut next = last;
        while self.entries.contains_key(&next) {
            next -= 1;
        }
        let kept = self.entries.from(&(next + 1)).take_while(|(revision, _)| **revision <= last);
        self.entries = kept.map(|(revision, entry)| (*revision, entry.clone())).collect();
        self.bytes = self.entries.values().map(|entry| entry.bytes).sum();
    }
}

/// Keys sort as their revisions do.
fn key(revision: u64) -> String {
    format!("{PREFIX}{revision:020}")
}

impl Entry {
    /// SHA-256 digests of modules that undoing it may need.
    fn modules(&self) -> impl Iterator<Item = &str> {
        self.touched.iter().filter_map(|(_, before)| before.as_ref()?.1.as_deref())
    }

    fn view(&self, revision: u64) -> Revision {
        let Entry { at_ms, note, entries: [added, changed, removed, switches], .. } = self;
        Revision {
            revision,
            at_ms: *at_ms,
            author: note.author.clone(),
            reason: note.reason.clone(),
            rollback: note.rollback,
            touched: self.touched.iter().map(|(touched, _)| touched.clone()).collect(),
            operations: self.operations.clone(),
            undoable: self.undoable,
            added: *added,
            changed: *changed,
            removed: *removed,
            switches: *switches,
        }
    }

    fn record(&self) -> Vec<u8> {
        let touched = self.touched.iter().map(|(touched, before)| TouchedRecord {
            verb: touched.verb,
            kind: touched.id.kind.as_str().to_owned(),
            name: touched.id.name.to_string(),
            before: before.as_ref().map(|(object, _)| document::of(object)),
            module: before.as_ref().and_then(|(_, module)| module.clone()),
        });
        let Note { author, reason, rollback } = self.note.clone();
        let (at_ms, entries, undoable) = (self.at_ms, self.entries, self.undoable);
        let (touched, operations) = (touched.collect(), self.operations.clone());
        crate::records::json(&Record {
            at_ms,
            author,
            reason,
            rollback,
            entries,
            undoable,
            touched,
            operations,
        })
    }

    fn of_record(value: &[u8]) -> Result<Self, String> {
        let record: Record = crate::records::parse(value)?;
        let Record { at_ms, author, reason, rollback, entries, undoable, touched, operations } =
            record;
        let touched = touched.into_iter().map(|record| {
            let TouchedRecord { verb, kind, name, before, module } = record;
            let kinds = selvedge_slices::ObjectKind::ALL;
            let kind = kinds.into_iter().find(|known| known.as_str() == kind);
            let kind =
                kind.ok_or_else(|| String::from("a kind that this version does not know"))?;
            let name = name.parse().map_err(|error| format!("{error}"))?;
            let before = before.map(|document| document::object(&document)).transpose()?;
            let touched = Touched { verb, id: ObjectId { kind, name } };
            Ok((touched, before.map(|object| (object, module))))
        });
        let touched = touched.collect::<Result<_, String>>()?;
        let note = Note { author, reason, rollback };
        Ok(Self { at_ms, note, entries, touched, operations, undoable, bytes: 0 })
    }
}
