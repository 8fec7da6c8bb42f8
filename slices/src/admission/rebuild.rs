//! The same slices in a changed network, or other slices in the same one.
//!
//! What is promised follows from the slices in their order and from the network with all links
//! up ([`Whole`]): what then a failure does not touch stays, protected ways that it hits go to
//! their backups, for which capacity was kept, and only the rest is placed anew. So the result
//! depends on what is down and not on the order in which it went down.
//!
//! [`Ledger::rebuilt`] does all of that from nothing. [`Ledger::updated`] comes to the same from
//! what it knows: [`Whole`] is kept, so a link that goes down or comes back costs the slices
//! whose ways it changes; and a slice that came or went costs itself, as long as nobody after it
//! was placed where he is for want of what it held.

use std::collections::BTreeMap;
use std::sync::Arc;

use selvedge_topology::{ArcIx, Forwarding, Metric, NodeName, Topology};

use super::{Attachment, Entry, HookMemory, Ledger, Network, Placed, Refusal, Segment, place};
use crate::{NetworkSlice, ObjectName};

/// What is made of slices with all links up.
#[derive(Debug)]
pub(super) struct Whole {
    of: Given,
    /// Every slice, in order.
    asked: Vec<Asked>,
    /// Those that are admitted.
    ledger: Ledger,
}

#[derive(Clone, Debug)]
enum Asked {
    /// In the ledger, under this name.
    Admitted(ObjectName),
    Refused(Arc<(NetworkSlice, Refusal)>),
}

/// What a network is besides its failures.
#[derive(Clone, Debug)]
struct Given {
    topology: Arc<Topology>,
    metric: Metric,
    endpoints: Arc<BTreeMap<NodeName, Attachment>>,
    hooks: BTreeMap<ObjectName, Vec<selvedge_topology::NodeIx>>,
    memory: HookMemory,
}

impl Given {
    fn of(network: &Network<'_>) -> Self {
        Self {
            topology: network.snapshot.topology().clone(),
            metric: network.forwarding.metric(),
            endpoints: Arc::new(network.endpoints.clone()),
            hooks: network.hooks.clone(),
            memory: network.memory.clone(),
        }
    }

    fn is(&self, network: &Network<'_>) -> bool {
        Arc::ptr_eq(&self.topology, network.snapshot.topology())
            && self.metric == network.forwarding.metric()
            && *self.endpoints == *network.endpoints
            && self.hooks == *network.hooks
            && self.memory == *network.memory
    }
}

/// The network with all links up.
fn with_all_up<T>(network: &Network<'_>, what: impl FnOnce(&Network<'_>) -> T) -> T {
    if network.snapshot.down().is_empty() {
        return what(network);
    }
    let snapshot = network.snapshot.with_down(network.snapshot.version(), []);
    let forwarding = Forwarding::with_metric(&snapshot, network.forwarding.metric());
    what(&Network { snapshot: &snapshot, forwarding: &forwarding, ..*network })
}

impl Ledger {
    /// The same slices in a changed network, in this order, from nothing: those that still fit
    /// keep their promise, those that do not are waived, those that cannot even be reached are
    /// left out and listed. Slices have different names.
    pub fn rebuilt<'s>(
        network: &Network<'_>,
        slices: impl IntoIterator<Item = &'s NetworkSlice>,
    ) -> (Self, BTreeMap<ObjectName, Refusal>) {
        let slices: Vec<&NetworkSlice> = slices.into_iter().collect();
        let whole = Whole::of(network, &slices);
        let ledger = if network.snapshot.down().is_empty() {
            whole.ledger.clone()
        } else {
            whole.one_by_one(network)
        };
        ledger.completed(network, &slices, Arc::new(whole))
    }

    /// What [`Self::rebuilt`] comes to, from a ledger that it or this made.
    ///
    /// Cost: a look at every slice, and a decision on each that the change reaches.
    pub fn updated<'s>(
        &self,
        network: &Network<'_>,
        slices: impl IntoIterator<Item = &'s NetworkSlice>,
    ) -> (Self, BTreeMap<ObjectName, Refusal>) {
        let slices: Vec<&NetworkSlice> = slices.into_iter().collect();
        let known = self.whole.as_ref().filter(|whole| whole.of.is(network));
        let whole = known.and_then(|whole| whole.edited(network, &slices));
        let whole = whole.unwrap_or_else(|| Arc::new(Whole::of(network, &slices)));
        let ledger = if network.snapshot.down().is_empty() {
            whole.ledger.clone()
        } else {
            whole.at_once(network).unwrap_or_else(|| whole.one_by_one(network))
        };
        ledger.completed(network, &slices, whole)
    }

    /// Places what is not in the ledger yet.
    fn completed(
        mut self,
        network: &Network<'_>,
        slices: &[&NetworkSlice],
        whole: Arc<Whole>,
    ) -> (Self, BTreeMap<ObjectName, Refusal>) {
        let mut unplaced = BTreeMap::new();
        let mut later: Vec<(&NetworkSlice, Refusal)> = Vec::new();
        if network.snapshot.down().is_empty() {
            let refused = whole.asked.iter().filter_map(|asked| match asked {
                Asked::Admitted(_) => None,
                Asked::Refused(refused) => Some((&refused.0, refused.1.clone())),
            });
            later.extend(refused);
        } else {
            for slice in slices {
                if self.get(slice.name.as_str()).is_none()
                    && let Err(refusal) = self.admit(network, slice)
                {
                    later.push((slice, *refusal));
                }
            }
        }
        for (slice, refusal) in later {
            if let Err(refusal) = self.admit_waived(network, slice, refusal) {
                unplaced.insert(slice.name.clone(), *refusal);
            }
        }
        self.whole = Some(whole);
        (self, unplaced)
    }

    fn take_over(
        &mut self,
        network: &Network<'_>,
        slice: &NetworkSlice,
        placed: Vec<Placed>,
    ) -> bool {
        let slot = self.slot(&slice.name);
        match place::taken_over(self, network, slice, slot, placed) {
            Some(admitted) => {
                self.enter(network, Entry { slot, pressed: true, admitted: Arc::new(admitted) });
                true
            }
            None => {
                self.free.push(slot);
                false
            }
        }
    }
}

impl Whole {
    fn of(network: &Network<'_>, slices: &[&NetworkSlice]) -> Self {
        let mut whole = Self { of: Given::of(network), asked: Vec::new(), ledger: Ledger::new() };
        whole.ledger.prepare(network);
        with_all_up(network, |network| whole.append(network, slices));
        whole
    }

    fn append(&mut self, network: &Network<'_>, slices: &[&NetworkSlice]) {
        for slice in slices {
            self.asked.push(match self.ledger.admit(network, slice) {
                Ok(_) => Asked::Admitted(slice.name.clone()),
                Err(refusal) => Asked::Refused(Arc::new(((*slice).clone(), *refusal))),
            });
        }
    }

    /// Of other slices in the same order. `None`: somebody might be placed otherwise now.
    fn edited(
        self: &Arc<Self>,
        network: &Network<'_>,
        slices: &[&NetworkSlice],
    ) -> Option<Arc<Self>> {
        let (mut asked, mut gone, mut freed) = (Vec::new(), Vec::new(), false);
        for known in &self.asked {
            let (slice, pressed) = match known {
                Asked::Admitted(name) => {
                    let entry = &self.ledger.admitted[name];
                    (&entry.admitted.slice, entry.pressed)
                }
                Asked::Refused(refused) => (&refused.0, true),
            };
            if slices.get(asked.len()).is_some_and(|wanted| *wanted == slice) {
                if freed && pressed {
                    return None;
                }
                asked.push(known.clone());
            } else if let Asked::Admitted(name) = known {
                freed = true;
                gone.push(name);
            }
        }
        let more = &slices[asked.len()..];
        if asked.len() == self.asked.len() && more.is_empty() {
            return Some(self.clone());
        }
        let mut whole = Self { of: self.of.clone(), asked, ledger: self.ledger.clone() };
        for name in gone {
            whole.ledger.remove(name);
        }
        if !more.is_empty() {
            with_all_up(network, |network| whole.append(network, more));
        }
        Some(Arc::new(whole))
    }

    fn admitted(&self) -> impl Iterator<Item = (&NetworkSlice, &[Placed])> {
        self.asked.iter().filter_map(|asked| match asked {
            Asked::Admitted(name) => {
                let admitted = &self.ledger.admitted[name].admitted;
                Some((&admitted.slice, admitted.placed.as_slice()))
            }
            Asked::Refused(_) => None,
        })
    }

    /// What outlives the failures, from where it is without them: everybody is moved, and then
    /// looked at whether all of it fits. If it does, it does one by one. `None`: it does not.
    fn at_once(&self, network: &Network<'_>) -> Option<Ledger> {
        let mut ledger = self.ledger.clone();
        let mut moved: Vec<(&NetworkSlice, Vec<Placed>)> = Vec::new();
        for (slice, placed) in self.admitted() {
            if placed.iter().all(|placed| is_untouched(network, placed)) {
                continue;
            }
            ledger.remove(&slice.name);
            let still = placed.iter().map(|placed| surviving(network, placed));
            moved.extend(still.collect::<Option<_>>().map(|placed| (slice, placed)));
        }
        let mut touched: Vec<ArcIx> = Vec::new();
        for (slice, placed) in moved {
            let admitted = place::written(&ledger, network, slice, placed)?;
            touched.extend(admitted.arcs());
            let slot = ledger.slot(&slice.name);
            ledger.add_flows(slot, &admitted);
            ledger.enter(network, Entry { slot, pressed: true, admitted: Arc::new(admitted) });
        }
        let kept = |ledger: &mut Ledger| {
            ledger.watches.is_empty()
                || ledger.bounds.surely(&touched, None, &ledger.watches)
                || ledger.bounds.settle().is_some_and(|values| {
                    ledger.watches.iter().all(|watch| watch.broken(values).is_none())
                })
        };
        (ledger.books.all_within() && kept(&mut ledger)).then_some(ledger)
    }

    /// The same one by one, each if it fits.
    fn one_by_one(&self, network: &Network<'_>) -> Ledger {
        let mut ledger = Ledger::new();
        ledger.prepare(network);
        let still = self.admitted().filter_map(|(slice, placed)| {
            let still = placed.iter().map(|placed| surviving(network, placed));
            Some((slice, still.collect::<Option<Vec<_>>>()?))
        });
        let still: Vec<(&NetworkSlice, Vec<Placed>)> = still.collect();
        for (slice, placed) in &still {
            let without = |placed: &Placed| Placed { backup: None, ..placed.clone() };
            ledger.take_over(network, slice, placed.iter().map(without).collect());
        }
        // Capacity was kept for one failure. What is left decides who is protected from a second.
        for (slice, placed) in still {
            if placed.iter().all(|placed| placed.backup.is_none()) {
                continue;
            }
            let Some(Entry { slot, admitted, .. }) = ledger.take(&slice.name) else { continue };
            ledger.free.push(slot);
            if !ledger.take_over(network, slice, placed) {
                let without = ledger.take_over(network, slice, admitted.placed.clone());
                debug_assert!(without, "it was in place a moment ago");
            }
        }
        ledger
    }
}

/// Whether the ids lead over the same links as before.
fn leads(network: &Network<'_>, placed: &Placed, segments: &[Segment], arcs: &[ArcIx]) -> bool {
    let (mut at, mut left) = (placed.from, arcs);
    for segment in segments {
        let Segment::Node(node) = *segment else { continue };
        let tree = network.forwarding.tree(network.snapshot, node);
        if !tree.reaches(at) {
            return false;
        }
        for arc in tree.walk(network.snapshot, at) {
            match left.split_first() {
                Some((first, rest)) if *first == arc.ix => left = rest,
                _ => return false,
            }
        }
        at = node;
    }
    left.is_empty()
}

fn is_untouched(network: &Network<'_>, placed: &Placed) -> bool {
    let backup = placed.backup.as_ref();
    leads(network, placed, &placed.segments, &placed.path.arcs)
        && backup.is_none_or(|b| leads(network, placed, &b.segments, &b.path.arcs))
}

/// The way as it was, or its backup, if the ids still lead over the same links.
fn surviving(network: &Network<'_>, placed: &Placed) -> Option<Placed> {
    let kept = placed.backup.as_ref().filter(|b| leads(network, placed, &b.segments, &b.path.arcs));
    if leads(network, placed, &placed.segments, &placed.path.arcs) {
        return Some(Placed { backup: kept.cloned(), ..placed.clone() });
    }
    let backup = kept?.clone();
    let (path, segments) = (backup.path, backup.segments);
    Some(Placed { path, segments, backup: None, ..placed.clone() })
}
