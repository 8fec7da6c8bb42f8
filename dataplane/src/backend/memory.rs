//! Tables in memory, for tests of what stands on [`Tables`]. Ports 1 to 8 exist; a table
//! holds as many entries as its definition says, or as a test allows.

use std::collections::BTreeMap;
use std::sync::Mutex;

use selvedge_pipeline::{CounterKind, Entry, Key, PortId, TableKind};

use super::{BackendError, Count, Tables};

#[derive(Debug, Default)]
pub(crate) struct MemoryTables {
    entries: Mutex<BTreeMap<Key, Entry>>,
    election: Mutex<Option<u128>>,
    capacity: Option<usize>,
}

impl MemoryTables {
    pub(crate) fn holding(capacity: usize) -> Self {
        Self { capacity: Some(capacity), ..Self::default() }
    }
}

impl Tables for MemoryTables {
    fn get(&self, key: &Key) -> Result<Option<Entry>, BackendError> {
        Ok(self.entries.lock().unwrap().get(key).cloned())
    }

    fn put(&self, entry: &Entry) -> Result<(), BackendError> {
        let mut entries = self.entries.lock().unwrap();
        let table = entry.table().table();
        let held = entries.values().filter(|held| held.table() == entry.table()).count();
        let capacity = self.capacity.unwrap_or(table.size as usize);
        if held >= capacity && !entries.contains_key(&entry.key()) {
            return Err(BackendError::Full { table: table.name, capacity: capacity as u32 });
        }
        entries.insert(entry.key(), entry.clone());
        Ok(())
    }

    fn remove(&self, key: &Key) -> Result<bool, BackendError> {
        Ok(self.entries.lock().unwrap().remove(key).is_some())
    }

    fn entries(&self, table: TableKind) -> Result<Vec<Entry>, BackendError> {
        let entries = self.entries.lock().unwrap();
        Ok(entries.values().filter(|entry| entry.table() == table).cloned().collect())
    }

    fn count(&self, counter: CounterKind, index: u32) -> Result<Count, BackendError> {
        Ok(Count { packets: u64::from(index), bytes: u64::from(counter.counter().id) })
    }

    fn knows_port(&self, port: PortId) -> Result<bool, BackendError> {
        Ok((1..=8).contains(&port.0))
    }

    fn election(&self) -> Result<Option<u128>, BackendError> {
        Ok(*self.election.lock().unwrap())
    }

    fn set_election(&self, id: u128) -> Result<(), BackendError> {
        *self.election.lock().unwrap() = Some(id);
        Ok(())
    }
}
