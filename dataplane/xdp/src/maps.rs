//! The pinned maps of one switch, opened, and what is written to more than one place at once.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use selvedge_ebpf_common::map::{Kind, PINNED};
use selvedge_ebpf_common::value::ConfigValue;

use crate::Error;
use crate::map::{Map, RawEntry};

#[derive(Debug)]
pub(crate) struct Maps {
    by_name: BTreeMap<&'static str, Map>,
    /// Held over every read-modify-write of a map, `CONFIG` among them.
    writer: Mutex<()>,
}

impl Maps {
    pub(crate) fn new(maps: impl IntoIterator<Item = Map>) -> Self {
        let by_name: BTreeMap<_, _> = maps.into_iter().map(|map| (map.spec.name, map)).collect();
        assert_eq!(by_name.len(), PINNED.len(), "every pinned map is opened");
        Self { by_name, writer: Mutex::new(()) }
    }

    pub(crate) fn get(&self, name: &str) -> &Map {
        self.by_name.get(name).expect("a name of `PINNED`")
    }

    /// What the agent has written, as bytes by map; not what the programs keep there.
    pub(crate) fn raw_entries(&self) -> Result<Vec<RawEntry>, Error> {
        const KEPT: [&str; 6] =
            ["METER_STATE", "QUEUE_STATE", "EVENT_RATE", "GTP_RATE", "RECENT", "PROBE"];
        // Sockets cannot be read back.
        let of_agent = self.by_name.iter().filter(|(name, map)| {
            !KEPT.contains(*name)
                && !matches!(map.spec.kind, Kind::PerCpuArray | Kind::RingBuf | Kind::XskMap)
        });
        let mut all = Vec::new();
        for (_, map) in of_agent {
            all.extend(map.raw_entries()?);
        }
        Ok(all)
    }

    pub(crate) fn write(&self) -> MutexGuard<'_, ()> {
        // A panic elsewhere left maps that are whole: each write is one system call.
        self.writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn config(&self) -> Result<ConfigValue, Error> {
        self.get("CONFIG").at(0)
    }

    /// Changes `CONFIG`. The caller holds [`Maps::write`].
    pub(crate) fn set_config(
        &self,
        _writer: &MutexGuard<'_, ()>,
        change: impl FnOnce(&mut ConfigValue),
    ) -> Result<(), Error> {
        let before = self.config()?;
        let mut after = before;
        change(&mut after);
        if after == before { Ok(()) } else { self.get("CONFIG").put(&0u32, &after) }
    }
}
