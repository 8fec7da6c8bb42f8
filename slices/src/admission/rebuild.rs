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

use selvedge_topology::sorted::Sorted;
use selvedge_topology::{ArcIx, Forwarding, Metric, NodeName, Topology};

use super::{Attachment, Entry, HookMemory, Ledger, Network, Placed, Refusal, Segment, place};
use crate::{NetworkSlice, ObjectName};

/// Slices in the order in which they were promised: by a number that rises, then by name. No two
/// have the same name.
pub type InOrder = Sorted<(u64, ObjectName), Arc<NetworkSlice>>;

/// What is made of slices with all links up.
#[derive(Debug)]
pub(super) struct Whole {
    of: Given,
    asked: InOrder,
    /// Those of them that were not admitted, or not as they would have been alone. They might be
    /// placed otherwise if somebody before them were not there.
    pressed: Sorted<(u64, ObjectName), Pressed>,
    /// Those that were admitted.
    ledger: Ledger,
}

#[derive(Clone, Debug, PartialEq)]
enum Pressed {
    Admitted,
    Refused(Arc<Refusal>),
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
            endpoints: network.endpoints.clone(),
            hooks: network.hooks.clone(),
            memory: network.memory.clone(),
        }
    }

    fn is(&self, network: &Network<'_>) -> bool {
        Arc::ptr_eq(&self.topology, network.snapshot.topology())
            && self.metric == network.forwarding.metric()
            && self.endpoints == *network.endpoints
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
    /// left out and listed.
    pub fn rebuilt(
        network: &Network<'_>,
        slices: &InOrder,
    ) -> (Self, BTreeMap<ObjectName, Refusal>) {
        let whole = Whole::of(network, slices);
        let ledger = if network.snapshot.down().is_empty() {
            whole.ledger.clone()
        } else {
            whole.one_by_one(network)
        };
        ledger.completed(network, Arc::new(whole))
    }

    /// What [`Self::rebuilt`] comes to, from a ledger that it or this made.
    ///
    /// Cost: a decision on each slice that the change reaches; and where links are down, a look
    /// at every slice.
    pub fn updated(
        &self,
        network: &Network<'_>,
        slices: &InOrder,
    ) -> (Self, BTreeMap<ObjectName, Refusal>) {
        let known = self.whole.as_ref().filter(|whole| whole.of.is(network));
        let whole = known.and_then(|whole| whole.edited(network, slices));
        let whole = whole.unwrap_or_else(|| Arc::new(Whole::of(network, slices)));
        let ledger = if network.snapshot.down().is_empty() {
            whole.ledger.clone()
        } else {
            whole.at_once(network).unwrap_or_else(|| whole.one_by_one(network))
        };
        ledger.completed(network, whole)
    }

    /// Places what is not in the ledger yet.
    fn completed(
        mut self,
        network: &Network<'_>,
        whole: Arc<Whole>,
    ) -> (Self, BTreeMap<ObjectName, Refusal>) {
        let mut unplaced = BTreeMap::new();
        let mut later: Vec<(&NetworkSlice, Refusal)> = Vec::new();
        if network.snapshot.down().is_empty() {
            let refused = whole.pressed.iter().filter_map(|(key, pressed)| match pressed {
                Pressed::Admitted => None,
                Pressed::Refused(why) => Some((&*whole.asked[key], Refusal::clone(why))),
            });
            later.extend(refused);
        } else {
            for slice in whole.asked.values() {
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
    fn of(network: &Network<'_>, slices: &InOrder) -> Self {
        let mut whole = Self {
            of: Given::of(network),
            asked: slices.clone(),
            pressed: Sorted::new(),
            ledger: Ledger::new(),
        };
        whole.ledger.prepare(network);
        with_all_up(network, |network| whole.append(network, slices.iter()));
        whole
    }

    fn append<'s>(
        &mut self,
        network: &Network<'_>,
        slices: impl Iterator<Item = (&'s (u64, ObjectName), &'s Arc<NetworkSlice>)>,
    ) {
        for (key, slice) in slices {
            let pressed = match self.ledger.admit(network, slice).err() {
                Some(refusal) => Pressed::Refused(Arc::new(*refusal)),
                None if self.ledger.admitted[&slice.name].pressed => Pressed::Admitted,
                None => continue,
            };
            self.pressed.insert(key.clone(), pressed);
        }
    }

    /// Of other slices. `None`: somebody might be placed otherwise now.
    fn edited(self: &Arc<Self>, network: &Network<'_>, slices: &InOrder) -> Option<Arc<Self>> {
        let (mut gone, mut first_new) = (Vec::new(), None);
        self.asked.differences(slices, |key, old, new| {
            gone.extend(old.map(|_| key));
            if new.is_some() && first_new.is_none() {
                first_new = Some(key);
            }
        });
        if gone.is_empty() && first_new.is_none() {
            return Some(self.clone());
        }
        // Those behind the first that is new are decided after it.
        let behind = |key: &&(u64, ObjectName)| first_new.is_some_and(|first| *key > first);
        let later: Vec<_> = match first_new {
            Some(first) => self.asked.from(first).map(|(key, _)| key).filter(behind).collect(),
            None => Vec::new(),
        };
        let stay = |key: &&&(u64, ObjectName)| !behind(key);
        let freed = |key: &&&(u64, ObjectName)| self.ledger.get(key.1.as_str()).is_some();
        if let Some(first) = gone.iter().filter(stay).find(freed) {
            let mut pressed = self.pressed.from(*first).map(|(key, _)| key);
            if pressed.any(|key| gone.binary_search(&key).is_err() && !behind(&key)) {
                return None;
            }
        }
        let mut whole = Self {
            of: self.of.clone(),
            asked: slices.clone(),
            pressed: self.pressed.clone(),
            ledger: self.ledger.clone(),
        };
        for key in gone.into_iter().chain(later) {
            whole.pressed.remove(key);
            whole.ledger.remove(&key.1);
        }
        if let Some(first) = first_new {
            with_all_up(network, |network| whole.append(network, slices.from(first)));
        }
        Some(Arc::new(whole))
    }

    fn admitted(&self) -> impl Iterator<Item = (&NetworkSlice, &[Placed])> {
        self.asked.values().filter_map(|slice| {
            let admitted = &self.ledger.admitted.get(&slice.name)?.admitted;
            Some((&admitted.slice, admitted.placed.as_slice()))
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
                || ledger.bounds.settle().is_some_and(|values| ledger.watches.are_kept(values))
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
