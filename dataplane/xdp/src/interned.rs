//! Values that many entries share, each once in an array: entries have its index.

use std::collections::BTreeMap;

use selvedge_ebpf_common::Plain;

use crate::map::Map;
use crate::maps::Maps;
use crate::{Error, sys};

/// Which are in use, by how many: what can be told from the entries, so that it is made anew with
/// them.
#[derive(Debug)]
pub(crate) struct Interned<V> {
    /// The array.
    map: &'static str,
    /// In errors.
    table: &'static str,
    by_value: BTreeMap<V, u32>,
    by_index: BTreeMap<u32, (V, u32)>,
    /// Nobody's, and no program has seen them.
    fresh: Vec<u32>,
    /// Nobody's any more, but for a program that has read an entry which is gone.
    freed: Vec<u32>,
}

impl<V: Plain + Ord> Interned<V> {
    /// `used`: the indices that entries have, as often as there are entries.
    pub(crate) fn open(
        table: &'static str,
        map: &Map,
        used: impl Iterator<Item = u32>,
    ) -> Result<Self, Error> {
        let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
        for index in used {
            *counts.entry(index).or_default() += 1;
        }
        let fresh = (0..map.spec.entries).rev().filter(|at| !counts.contains_key(at)).collect();
        let (mut by_value, mut by_index) = (BTreeMap::new(), BTreeMap::new());
        for (index, users) in counts {
            let value: V = map.at(index)?;
            // Of two that are the same, which an agent never writes, either is as good.
            by_value.insert(value, index);
            by_index.insert(index, (value, users));
        }
        Ok(Self { map: map.spec.name, table, by_value, by_index, fresh, freed: Vec::new() })
    }

    pub(crate) fn get(&self, index: u32) -> V {
        self.by_index.get(&index).expect("an entry has it").0
    }

    /// For an entry that is about to be written.
    ///
    /// # Errors
    /// [`Error::Full`] when every place is taken by others.
    pub(crate) fn acquire(&mut self, maps: &Maps, value: V) -> Result<u32, Error> {
        if let Some(index) = self.by_value.get(&value) {
            self.by_index.get_mut(index).expect("both know it").1 += 1;
            return Ok(*index);
        }
        if self.fresh.is_empty() && !self.freed.is_empty() {
            sys::wait_for_programs().map_err(Error::map("wait for the users of", self.map))?;
            self.fresh = std::mem::take(&mut self.freed);
        }
        let map = maps.get(self.map);
        let full = Error::Full { table: self.table, capacity: map.spec.entries };
        let index = *self.fresh.last().ok_or(full)?;
        map.put(&index, &value)?;
        self.fresh.pop();
        self.by_value.insert(value, index);
        self.by_index.insert(index, (value, 1));
        Ok(index)
    }

    /// Of an entry that is gone.
    pub(crate) fn release(&mut self, index: u32) {
        let (value, users) = self.by_index.get_mut(&index).expect("an entry had it");
        *users -= 1;
        if *users == 0 {
            self.by_value.remove(value);
            self.by_index.remove(&index);
            self.freed.push(index);
        }
    }
}
