//! The history of changes, as JSON.

use selvedge_core::view;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// A change of intent that was taken.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Revision {
    /// Counts up by one with every change.
    pub revision: u64,
    pub at_ms: u64,
    pub author: String,
    /// Empty: none was given.
    pub reason: String,
    /// The revision that was gone back to; null: it was no rollback.
    pub rollback: Option<u64>,
    pub objects: Vec<Touched>,
    /// What else: `drain node s1`. No rollback undoes it.
    pub operations: Vec<String>,
    /// A rollback may lead past it; a change of more than 1 MiB keeps names only.
    pub undoable: bool,
    /// Table entries that were to be added, changed and removed, all switches together.
    pub added: usize,
    pub changed: usize,
    pub removed: usize,
    /// Switches whose entries were to change.
    pub switches: usize,
}

/// An object, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Touched {
    /// `added`, `changed` or `deleted`.
    pub verb: String,
    /// `NetworkSlice`, `Hook` or `Application`.
    pub kind: String,
    pub name: String,
}

/// A change with its objects as documents.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RevisionDetails {
    #[serde(flatten)]
    pub revision: Revision,
    /// In the order of `objects`.
    pub documents: Vec<Documents>,
}

/// An object before and after a change; null: there was none, or the history has its name only.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Documents {
    pub before: Option<Value>,
    pub after: Option<Value>,
}

impl From<view::Revision> for Revision {
    fn from(view: view::Revision) -> Self {
        Self {
            revision: view.revision,
            at_ms: view.at_ms,
            author: view.author,
            reason: view.reason,
            rollback: view.rollback,
            objects: view.touched.iter().map(Touched::from).collect(),
            operations: view.operations,
            undoable: view.undoable,
            added: view.added,
            changed: view.changed,
            removed: view.removed,
            switches: view.switches,
        }
    }
}

impl From<&view::Touched> for Touched {
    fn from(view: &view::Touched) -> Self {
        let verb = match view.verb {
            view::Verb::Added => "added",
            view::Verb::Changed => "changed",
            view::Verb::Deleted => "deleted",
        };
        let (kind, name) = (view.id.kind.to_string(), view.id.name.to_string());
        Self { verb: verb.to_owned(), kind, name }
    }
}

impl From<&view::ObjectChange> for Documents {
    fn from(view: &view::ObjectChange) -> Self {
        let document = |object: &Option<_>| object.as_ref().map(selvedge_slices::document::of);
        Self { before: document(&view.before), after: document(&view.after) }
    }
}
