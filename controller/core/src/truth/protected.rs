//! Which failures leave a slice its promises, and by which backups: what the ledger says, in the
//! words of the proof.

use std::collections::BTreeMap;
use std::sync::Arc;

use selvedge_pipeline::Direction;
use selvedge_slices::admission::{Admitted, Placed, Protection, Segment};
use selvedge_slices::{NetworkSlice, ObjectName};

use super::Truth;
use crate::Core;
use crate::prove::{Backup, Level, Protected, Slice};

impl Core {
    /// What protects an admitted slice at present. While a part of the network is missing, one
    /// that lost a backup, or is on it, is promised nothing for a second failure (`explain` says
    /// so); with all of it there, no way may be without one.
    pub(super) fn protected(
        &self,
        (before, known): (&Truth, Option<&Arc<Slice>>),
        name: &ObjectName,
        slice: &NetworkSlice,
    ) -> Option<Arc<Protected>> {
        let level = match Protection::of(slice.availability) {
            Protection::None => return None,
            Protection::Link => Level::Link,
            Protection::Node => Level::Node,
            Protection::Srlg => Level::Group,
        };
        let admitted = self.derived.ledger.get(name.as_str())?;
        let same = before.ledger.get(name.as_str()).is_some_and(|old| std::ptr::eq(old, admitted));
        let known = known.filter(|_| same).and_then(|slice| slice.protected.clone());
        let protected = known
            .filter(|known| known.level == level)
            .unwrap_or_else(|| Arc::new(Protected { level, backups: self.backups(admitted) }));
        let whole = protected.backups.values().all(Option::is_some);
        (whole || self.derived.snapshot.down().is_empty()).then_some(protected)
    }

    fn backups(&self, admitted: &Admitted) -> BTreeMap<(Direction, usize, usize), Option<Backup>> {
        let snapshot = &self.derived.snapshot;
        let number = |node| {
            let name = snapshot.name(node);
            self.truth.nodes.binary_search(name).expect("a declared switch")
        };
        let backup = |placed: &Placed| {
            let backup = placed.backup.as_ref()?;
            let hops = backup.path.nodes.iter().zip(&backup.path.arcs);
            let hooks = backup.segments.iter().filter_map(|segment| match *segment {
                Segment::Hook { index, node } => {
                    Some((number(node), admitted.slice.through[index].hook.to_string()))
                }
                Segment::Node(_) | Segment::Deliver => None,
            });
            Some(Backup {
                hops: hops.map(|(node, arc)| (number(*node), arc.link().0)).collect(),
                hooks: hooks.collect(),
            })
        };
        let ways = admitted.placed.iter().filter(|placed| !placed.path.arcs.is_empty());
        let each = ways.map(|placed| {
            let direction = match placed.direction {
                selvedge_slices::Direction::Downlink => Direction::Downlink,
                selvedge_slices::Direction::Uplink => Direction::Uplink,
            };
            ((direction, number(placed.from), number(placed.to)), backup(placed))
        });
        each.collect()
    }
}
