//! Generations after a restore.
//!
//! A switch refuses entries of an older generation than it holds. A backup knows an older one
//! than the controller went on to after it; so a restore begins a new *epoch*: generations go on
//! from the time of the restore, in seconds, times 2^20. They stay below 2^53, which every JSON
//! reader keeps exactly, until the year 2242.

use std::collections::BTreeMap;

use selvedge_topology::Topology;

use super::{MetaRecord, RestoreError, json, parse};
use crate::{Config, Core};

/// More generations than a controller gives in a second.
const EPOCH_BITS: u32 = 20;

impl Core {
    /// Key of the record that holds the generation.
    pub const META: &'static str = "meta";

    /// Checks records of a backup, and returns what takes the place of their [`META`](Self::META)
    /// and the generation in it: higher than theirs, than that of `there`, the same record of the
    /// store that they go to, and than any that was given before `now_s` of Unix time.
    ///
    /// # Errors
    /// [`RestoreError`] for a record that no core of this version has written.
    pub fn raised(
        records: BTreeMap<String, Vec<u8>>,
        there: Option<&[u8]>,
        now_s: u64,
    ) -> Result<(Vec<u8>, u64), RestoreError> {
        let name = "restored".parse().expect("a name");
        let nowhere = Topology { name, nodes: BTreeMap::new(), links: Vec::new() };
        let mut core = Self::restore(nowhere, Config::default(), records)?;
        // What cannot be read is about to be replaced.
        let there = there.and_then(|meta| parse::<MetaRecord>(meta).ok());
        let there = there.map_or(0, |meta| meta.generation);
        core.generation = core.generation.max(there).max(now_s << EPOCH_BITS) + 1;
        Ok((json(&core.meta_record()), core.generation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(generation: u64) -> Vec<u8> {
        format!(r#"{{"format":1,"revision":7,"generation":{generation}}}"#).into_bytes()
    }

    #[test]
    fn a_restore_goes_on_above_every_generation_there_was() {
        let now_s = 1_800_000_000;
        let epoch = now_s << EPOCH_BITS;
        for (backup, there, least) in [
            (None, None, epoch),
            (Some(9), None, epoch),
            (Some(9), Some(10), epoch),
            // A clock that was set back.
            (Some(epoch + 9), None, epoch + 9),
            (Some(9), Some(epoch + 20), epoch + 20),
        ] {
            let records = backup.map(|generation| (Core::META.to_owned(), meta(generation)));
            let there = there.map(meta);
            let raised = Core::raised(records.into_iter().collect(), there.as_deref(), now_s);
            let (record, generation) = raised.unwrap();
            assert!(generation > least && generation < 1 << 53, "{generation}");
            let record: MetaRecord = parse(&record).unwrap();
            assert_eq!(record.generation, generation);
            assert_eq!(record.revision, if backup.is_some() { 7 } else { 0 });
        }
        let raised = Core::raised(BTreeMap::new(), Some(b"garbage"), now_s).unwrap();
        assert_eq!(raised.1, epoch + 1);
    }

    #[test]
    fn records_of_another_version_are_refused() {
        for (key, value) in [
            ("meta", r#"{"format":2,"revision":1,"generation":1}"#),
            ("meta", r#"{"format":1,"revision":1,"generation":1,"more":1}"#),
            ("later/x", "{}"),
            ("intent/slice/x", "{}"),
        ] {
            let records = BTreeMap::from([(key.to_owned(), value.as_bytes().to_vec())]);
            let refused = Core::raised(records, None, 1).unwrap_err();
            assert_eq!(refused.key, key);
        }
    }
}
