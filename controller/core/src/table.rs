//! The entries of one switch.
//!
//! A thousand switches hold a thousand entries each and more, and the core has several states of
//! each: what is wanted, what is held, what a proof supposes.

use std::ops::{Deref, DerefMut};

use selvedge_pipeline::{Entry, Key};
use selvedge_topology::sorted::Sorted;

/// Entries by their keys. Cheap to copy and to compare.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table(Sorted<Key, Entry>);

impl Table {
    pub fn new() -> Self {
        Self(Sorted::new())
    }

    /// Puts an entry; answers the one of that key before.
    pub fn insert(&mut self, entry: Entry) -> Option<Entry> {
        self.0.insert(entry.key(), entry)
    }
}

impl Deref for Table {
    type Target = Sorted<Key, Entry>;

    fn deref(&self) -> &Sorted<Key, Entry> {
        &self.0
    }
}

impl DerefMut for Table {
    fn deref_mut(&mut self) -> &mut Sorted<Key, Entry> {
        &mut self.0
    }
}

impl FromIterator<Entry> for Table {
    /// Of two entries of one key the later one counts.
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        Self(entries.into_iter().map(|entry| (entry.key(), entry)).collect())
    }
}
