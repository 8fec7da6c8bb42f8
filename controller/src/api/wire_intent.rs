//! Changes of intent and plans, as JSON.

use std::collections::BTreeMap;

use selvedge_core::plan;
use selvedge_pipeline::Entry as PipelineEntry;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::wire_history::Touched;
use crate::text;

/// Objects to put and to delete, all of it or nothing.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Slices, hooks, applications, class maps and PDU sessions as YAML.
    #[serde(default)]
    pub documents: Documents,
    /// For each hook in `documents` the bytes of its module, base64 (RFC 4648 §4), under the
    /// hook's name or under the path that it gives.
    #[serde(default)]
    pub modules: BTreeMap<String, String>,
    #[serde(default)]
    pub delete: Vec<ObjectRef>,
    /// Instead of all of these: makes every object what it was at this revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<u64>,
    /// Nodes and links that are to be empty, for work on them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drain: Vec<Target>,
    /// Nodes and links that may be used again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undrain: Vec<Target>,
    /// Why, for the history: at most 1,024 bytes, without control characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// On whose behalf, for the history, where that is not the caller: at most 128 bytes. The
    /// caller is written down beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// To apply: the id of the plan this has to be; on any other state it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
}

/// One text, or several with names for the reports of what is wrong with them.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Documents {
    One(String),
    Many(Vec<Document>),
}

impl Default for Documents {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// File name, for messages.
    pub name: String,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ObjectRef {
    /// `NetworkSlice`, `Hook`, `Application`, `ClassMap` or `PduSession`.
    pub kind: String,
    pub name: String,
}

/// A part of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// `node` or `link`.
    pub kind: String,
    /// A switch; or a link by one end, `s1:p2`, or by both, `s1 - s2` or `s1:p2 - s2:p1`.
    pub name: String,
}

/// What a change would do.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// Names the plan by the state it was made on and what it would change.
    pub id: String,
    /// Objects that would be put or deleted.
    #[serde(default)]
    pub objects: Vec<Touched>,
    /// What else: `drain node s1`.
    #[serde(default)]
    pub operations: Vec<String>,
    /// Switches whose entries would change, by name.
    pub switches: BTreeMap<String, Difference>,
    /// Why it would be refused; then there is nothing else.
    pub refusal: Option<String>,
    /// Promises that would not be kept at present, and what is asked for but not enforced.
    pub warnings: Vec<String>,
    /// What the documents did not state and a template filled in.
    #[serde(default)]
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    pub added: Vec<Entry>,
    pub changed: Vec<EntryChange>,
    pub removed: Vec<Entry>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EntryChange {
    pub before: Entry,
    pub after: Entry,
}

/// One row of one table of a switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    pub table: String,
    /// What it matches, for people.
    pub key: String,
    /// What it does.
    pub value: String,
}

impl From<&PipelineEntry> for Entry {
    fn from(entry: &PipelineEntry) -> Self {
        Self {
            table: entry.table().name().to_owned(),
            key: text::key(entry),
            value: text::value(entry),
        }
    }
}

impl From<plan::Plan> for Plan {
    fn from(plan: plan::Plan) -> Self {
        let rows = |entries: &[PipelineEntry]| entries.iter().map(Entry::from).collect();
        let switches = plan.switches.iter().map(|(name, difference)| {
            let changed = difference
                .changed
                .iter()
                .map(|(before, after)| EntryChange { before: before.into(), after: after.into() });
            let difference = Difference {
                added: rows(&difference.added),
                changed: changed.collect(),
                removed: rows(&difference.removed),
            };
            (name.to_string(), difference)
        });
        Self {
            id: plan.id.to_string(),
            objects: plan.objects.iter().map(Touched::from).collect(),
            operations: plan.operations,
            switches: switches.collect(),
            refusal: plan.refusal.as_ref().map(ToString::to_string),
            warnings: plan.warnings,
            notes: plan.notes,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Applied {
    /// `false`: everything was as asked for already.
    pub changed: bool,
    /// Of the intent, after it.
    pub revision: u64,
}
