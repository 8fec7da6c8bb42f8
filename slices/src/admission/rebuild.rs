//! The same slices in a changed network.

use std::collections::BTreeMap;

use selvedge_topology::{ArcIx, Forwarding};

use super::{Entry, Ledger, Network, Placed, Protection, Refusal, Segment, place};
use crate::{NetworkSlice, ObjectName};

impl Ledger {
    /// The same slices in a changed network, in this order: those that still fit keep their
    /// promise, those that do not are waived, those that cannot even be reached are left out and
    /// listed.
    ///
    /// Where some slice is protected, all are placed first as if every link was up; then what a
    /// failure does not touch stays, protected ways that it hits go to their backups, for which
    /// capacity was kept, and only the rest is placed anew. The result depends on what is down
    /// and not on the order in which it went down.
    pub fn rebuilt<'s>(
        network: &Network<'_>,
        slices: impl IntoIterator<Item = &'s NetworkSlice>,
    ) -> (Self, BTreeMap<ObjectName, Refusal>) {
        let slices: Vec<&NetworkSlice> = slices.into_iter().collect();
        let protected =
            |slice: &&NetworkSlice| Protection::of(slice.availability) > Protection::None;
        let degraded = !network.snapshot.down().is_empty();
        let mut ledger = Self::new();
        ledger.prepare(network);
        if degraded && slices.iter().any(protected) {
            ledger.survive(network, &slices);
        }
        let mut unplaced = BTreeMap::new();
        let mut later = Vec::new();
        for slice in slices {
            if ledger.get(slice.name.as_str()).is_some() {
                continue;
            }
            if let Err(refusal) = ledger.admit(network, slice) {
                later.push((slice, *refusal));
            }
        }
        for (slice, refusal) in later {
            if let Err(refusal) = ledger.admit_waived(network, slice, refusal) {
                unplaced.insert(slice.name.clone(), *refusal);
            }
        }
        (ledger, unplaced)
    }

    /// Takes over what outlives the failures from where it would be without them.
    fn survive(&mut self, network: &Network<'_>, slices: &[&NetworkSlice]) {
        let whole = network.snapshot.with_down(network.snapshot.version(), []);
        let forwarding = Forwarding::with_metric(&whole, network.forwarding.metric());
        let before = Network { snapshot: &whole, forwarding: &forwarding, ..*network };
        let mut nominal = Self::new();
        for slice in slices {
            drop(nominal.admit(&before, slice));
        }
        let surviving: Vec<(&NetworkSlice, Vec<Placed>)> = slices
            .iter()
            .filter_map(|slice| {
                let placed = &nominal.get(slice.name.as_str())?.placed;
                let still = placed.iter().map(|placed| surviving(network, placed));
                Some((*slice, still.collect::<Option<_>>()?))
            })
            .collect();
        for (slice, placed) in &surviving {
            if self.get(slice.name.as_str()).is_none() {
                let without = |placed: &Placed| Placed { backup: None, ..placed.clone() };
                self.take_over(network, slice, placed.iter().map(without).collect());
            }
        }
        // Capacity was kept for one failure. What is left decides who is protected from a second.
        for (slice, placed) in surviving {
            if placed.iter().all(|placed| placed.backup.is_none()) {
                continue;
            }
            let Some(Entry { slot, admitted }) = self.take(&slice.name) else { continue };
            self.free.push(slot);
            if !self.take_over(network, slice, placed) {
                let without = self.take_over(network, slice, admitted.placed);
                debug_assert!(without, "it was in place a moment ago");
            }
        }
    }

    fn take_over(
        &mut self,
        network: &Network<'_>,
        slice: &NetworkSlice,
        placed: Vec<Placed>,
    ) -> bool {
        let slot = self.slot(&slice.name);
        let admitted = place::taken_over(self, network, slice, slot, placed);
        match admitted {
            Some(admitted) => {
                self.enter(network, slot, admitted);
                true
            }
            None => {
                self.free.push(slot);
                false
            }
        }
    }
}

/// The way as it was, or its backup, if the ids still lead over the same links.
fn surviving(network: &Network<'_>, placed: &Placed) -> Option<Placed> {
    let leads = |segments: &[Segment], arcs: &[ArcIx]| {
        walked(network, placed, segments).is_some_and(|walked| walked == arcs)
    };
    if leads(&placed.segments, &placed.path.arcs) {
        let kept = placed.backup.as_ref().filter(|b| leads(&b.segments, &b.path.arcs));
        return Some(Placed { backup: kept.cloned(), ..placed.clone() });
    }
    let backup = placed.backup.clone().filter(|b| leads(&b.segments, &b.path.arcs))?;
    let (path, segments) = (backup.path, backup.segments);
    Some(Placed { path, segments, backup: None, ..placed.clone() })
}

/// The arcs that these ids lead over now.
fn walked(network: &Network<'_>, placed: &Placed, segments: &[Segment]) -> Option<Vec<ArcIx>> {
    let (mut at, mut arcs) = (placed.from, Vec::new());
    for segment in segments {
        if let Segment::Node(node) = *segment {
            let tree = network.forwarding.tree(network.snapshot, node);
            if !tree.reaches(at) {
                return None;
            }
            arcs.extend(tree.walk(network.snapshot, at).map(|arc| arc.ix));
            at = node;
        }
    }
    Some(arcs)
}
