//! The compute memory of nodes, as hooks take it.
//!
//! A slice's hook runs once on a node, however many of the slice's ways lead through it there,
//! and takes its memory once. Two slices through one hook take it twice: an instance belongs to
//! a slice.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_topology::{Bytes, NodeIx};

use super::{Admitted, Ledger, Placed, Segment};
use crate::{NetworkSlice, ObjectName};

/// What there is, and what each hook takes of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HookMemory {
    /// Of one instance. A hook that is not listed takes nothing.
    pub needs: BTreeMap<ObjectName, Bytes>,
    /// A node that is not listed is not limited.
    pub nodes: BTreeMap<NodeIx, Bytes>,
}

/// Hooks of one slice by where they run.
pub(super) type Instances<'a> = BTreeSet<(NodeIx, &'a ObjectName)>;

pub(super) fn instances<'a>(
    slice: &'a NetworkSlice,
    segments: impl IntoIterator<Item = &'a Segment>,
) -> Instances<'a> {
    let instance = |segment: &Segment| match *segment {
        Segment::Hook { index, node } => Some((node, &slice.through[index].hook)),
        Segment::Node(_) | Segment::Deliver => None,
    };
    segments.into_iter().filter_map(instance).collect()
}

pub(super) fn segments(placed: &[Placed]) -> impl Iterator<Item = &Segment> {
    placed.iter().flat_map(|placed| &placed.segments)
}

impl HookMemory {
    pub(super) fn need(&self, hook: &ObjectName) -> u64 {
        self.needs.get(hook).map_or(0, |bytes| bytes.0)
    }

    /// What these instances take of a node, in bytes.
    pub(super) fn taken(&self, instances: &Instances<'_>, at: NodeIx) -> u64 {
        let here = instances.iter().filter(|(node, _)| *node == at);
        here.fold(0, |sum: u64, (_, hook)| sum.saturating_add(self.need(hook)))
    }

    /// Who has hooks on a node, and how much they take.
    pub(super) fn holders(&self, ledger: &Ledger, at: NodeIx) -> Vec<(ObjectName, Bytes)> {
        let taken = |admitted: &Admitted| {
            let instances = instances(&admitted.slice, segments(&admitted.placed));
            Bytes(self.taken(&instances, at))
        };
        let each = ledger.iter().map(|(name, admitted)| (name.clone(), taken(admitted)));
        each.filter(|(_, bytes)| bytes.0 > 0).collect()
    }

    /// What all hooks take of a node.
    pub(crate) fn held(&self, ledger: &Ledger, at: NodeIx) -> Bytes {
        if self.needs.is_empty() {
            return Bytes(0);
        }
        let holders = self.holders(ledger, at);
        Bytes(holders.iter().fold(0, |sum: u64, (_, held)| sum.saturating_add(held.0)))
    }
}
