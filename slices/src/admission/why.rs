//! Saying why a slice cannot be placed: the constraint that failed, by how much and where, and
//! what would fit.

use selvedge_topology::{
    Arc, ArcIx, BitRate, Bytes, Constraints, Metric, NodeIx, NodeName, Path, Query, Scratch,
    cheapest, explain,
};

use super::books::Slot;
use super::delay::{self, arc_name};
use super::memory::instances;
use super::place::{Blocked, By, Demand, Own, Placing, at, crossings};
use super::protect::{Failure, Protection, closed, failures, is_cut};
use super::route::best;
use super::watch::Watch;
use super::{Admitted, DelayBound, Ledger, Network, Refusal, Segment, frame_rate, ip_rate};
use super::{overhead, scale};
use crate::Direction;
use crate::limits::MTU_BYTES;

/// Holders of a full link that a refusal names.
const MAX_HOLDERS: usize = 8;

/// Of two refusals the one that asks for less.
pub(super) fn closer(first: Box<Refusal>, second: Box<Refusal>) -> Box<Refusal> {
    let least = |refusal: &Refusal| match refusal {
        Refusal::Delay { least: Some(bound), .. } => Some(bound.total),
        _ => None,
    };
    match (least(&first), least(&second)) {
        (Some(a), Some(b)) if b < a => second,
        (None, Some(_)) if matches!(*first, Refusal::Delay { .. }) => second,
        _ => first,
    }
}

/// What fits of a direction that is too much.
pub(super) struct Largest {
    pub(super) direction: Direction,
    pub(super) kbps: u64,
    /// The rates of frames at it.
    rates: [u64; 2],
    /// The demand that stands in the way of more.
    stuck: Box<Blocked>,
}

impl Placing<'_> {
    /// What others leave of an arc, also after the worst failure; `None`: not limited.
    fn left(&self, arc: ArcIx) -> Option<u64> {
        let taken = self.books.used(arc).saturating_add(self.books.most_spare(arc));
        Some(self.books.usable(arc)?.saturating_sub(taken))
    }

    /// What others and the slice's other direction leave of an arc.
    fn left_for(
        &self,
        arc: ArcIx,
        direction: Direction,
        own: &Own,
        rates: [u64; 2],
    ) -> Option<u64> {
        let mut others = [0, 0];
        others[1 - at(direction)] = rates[1 - at(direction)];
        let taken = self.taken(arc, own, others);
        Some(self.books.usable(arc)?.saturating_sub(taken))
    }

    /// Every demand has a way at all.
    pub(super) fn reachable(&self) -> Result<(), Box<Refusal>> {
        match self.place_at([0, 0], By::Cost) {
            Ok(_) => Ok(()),
            Err(blocked) => {
                let demand = &self.demands[blocked.index];
                Err(match &blocked.unprotected {
                    Some(path) => self.unprotected(demand, path),
                    None => self.unreachable(&blocked),
                })
            }
        }
    }

    /// There is no backup, whatever the rates.
    fn unprotected(&self, demand: &Demand, path: &Path) -> Box<Refusal> {
        let snapshot = self.network.snapshot;
        let Demand { direction, from, to, .. } = *demand;
        let all = failures(snapshot, path, self.level);
        let is_needed = |failure: &&Failure| {
            let closed = closed(snapshot, &[**failure]);
            let weight = |arc: &Arc| Some(1).filter(|_| !closed[arc.ix.index()]);
            best(self.network, (from, to), &self.hooks, &weight, None).is_none()
        };
        let cut = all.iter().find(|failure| is_cut(snapshot, (from, to), **failure));
        let critical = cut.or_else(|| all.iter().find(is_needed));
        let shared = match critical {
            Some(failure) => format!("every way needs {}", failure.describe(snapshot)),
            None => "no two ways stay clear of each other within the ids of a packet".to_owned(),
        };
        let offered = Protection::ALL.into_iter().rev().filter(|level| *level < self.level);
        let offered = offered.into_iter().find(|level| {
            let Ok(mut weaker) = Placing::new(self.ledger, self.network, self.slice, None) else {
                return false;
            };
            weaker.level = *level;
            weaker.place(By::Cost).is_ok()
        });
        Box::new(Refusal::Protection {
            slice: self.slice.name.clone(),
            direction,
            from: snapshot.name(from).clone(),
            to: snapshot.name(to).clone(),
            wanted: self.level,
            shared,
            offered: offered.unwrap_or_default(),
        })
    }

    pub(super) fn unreachable(&self, blocked: &Blocked) -> Box<Refusal> {
        let demand = &self.demands[blocked.index];
        let any = Own { any_memory: true, ..Own::default() };
        if let Some((_, segments)) = self.way(demand, &any, [0, 0], By::Cost, None)
            && let Some((index, _)) = self.overfull(&blocked.own.segments, &segments)
        {
            return self.no_memory(index, &blocked.own.segments);
        }
        let snapshot = self.network.snapshot;
        let slice = self.slice.name.clone();
        let Demand { direction, from, to, .. } = *demand;
        let (graph, none) = (snapshot.graph(), Constraints::default());
        let query = |from, to| Query { from, to, metric: Metric::Cost, constraints: &none };
        let leads = |a, b| cheapest(graph, &mut Scratch::new(), &query(a, b)).is_ok();
        if !leads(from, to) {
            let why = explain(graph, &mut Scratch::new(), &query(from, to));
            let reason = why.map_or_else(|why| why.to_string(), |why| why.describe(snapshot));
            return Box::new(Refusal::NoPath { slice, direction, reason });
        }
        let (from_name, to_name) = (snapshot.name(from).clone(), snapshot.name(to).clone());
        // The first hook that cannot be added is the one to name.
        let reached = |count: usize| {
            let weight = |arc: &Arc| Some(u64::from(arc.cost));
            best(self.network, (from, to), &self.hooks[..count], &weight, None).is_some()
        };
        let missing = (1..=self.hooks.len()).find(|count| !reached(*count));
        let on_the_way = |node: &NodeIx| leads(from, *node) && leads(*node, to);
        match missing.map(|count| count - 1) {
            Some(index) if !self.hooks[index].iter().any(on_the_way) => {
                Box::new(Refusal::HookUnreachable {
                    slice,
                    direction,
                    from: from_name,
                    to: to_name,
                    hook: self.slice.through[index].hook.clone(),
                })
            }
            _ => {
                let (from, to) = (from_name, to_name);
                Box::new(Refusal::TooManyIds { slice, direction, from, to })
            }
        }
    }

    /// The links to the endpoints themselves.
    pub(super) fn access_fits(&self) -> Result<(), Box<Refusal>> {
        for direction in Direction::ALL {
            let wanted = self.guaranteed(direction);
            for &arc in &self.access[at(direction)] {
                let Some(left) = self.left(arc) else { continue };
                let frame = MTU_BYTES + overhead(self.network, arc);
                // The slice's other direction on the same arc, where one side talks to itself.
                let other = Direction::ALL[1 - at(direction)];
                let both = self.access[at(other)].contains(&arc);
                let own = if both { scale(self.guaranteed(other), frame).0 } else { 0 };
                let left = left.saturating_sub(own);
                if scale(wanted, frame).0 <= left {
                    continue;
                }
                let ip = u128::from(left) * u128::from(MTU_BYTES) / u128::from(frame);
                let available = BitRate(u64::try_from(ip).expect("less than what is left"));
                let fits = BitRate(available.0 / 1000 * 1000);
                let (near, far) = self.network.snapshot.ends(arc);
                return Err(Box::new(Refusal::Bandwidth {
                    slice: self.slice.name.clone(),
                    direction,
                    from: near.node.clone(),
                    to: far.node.clone(),
                    link: arc_name(self.network, arc),
                    wanted,
                    available,
                    missing: BitRate(wanted.0 - available.0),
                    fits,
                    holders: self.ledger.holders(arc, MAX_HOLDERS),
                }));
            }
        }
        Ok(())
    }

    fn no_memory(&self, index: usize, own: &[Segment]) -> Box<Refusal> {
        let memory = self.network.memory;
        let own = instances(self.slice, own);
        let left = |node: NodeIx| {
            let left = self.memory.get(&node).copied().unwrap_or(0);
            left.saturating_sub(memory.taken(&own, node))
        };
        let most = self.hooks[index].iter().copied().rev().max_by_key(|node| left(*node));
        let node = most.expect("a hook without a node is refused before");
        let hook = self.slice.through[index].hook.clone();
        Box::new(Refusal::Memory {
            slice: self.slice.name.clone(),
            needed: Bytes(memory.need(&hook)),
            hook,
            node: self.network.snapshot.name(node).clone(),
            left: Bytes(left(node)),
            total: memory.nodes.get(&node).copied().unwrap_or_default(),
            holders: memory.holders(self.ledger, node),
        })
    }

    /// The largest rate that would fit in the direction of a demand that does not.
    pub(super) fn largest(&self, blocked: Box<Blocked>, by: By) -> Largest {
        let direction = self.demands[blocked.index].direction;
        let wanted = self.guaranteed(direction);
        // Downlink is placed first and does not wait for uplink; what uplink finds is placed.
        let mut rates = self.frames();
        if direction == Direction::Downlink {
            rates[at(Direction::Uplink)] = 0;
        }
        let start = self.demands.partition_point(|demand| demand.direction < direction);
        let end = self.demands.partition_point(|demand| demand.direction <= direction);
        let mut before = Own::default();
        let placed = self.place_some(0..start, &mut before, rates, by);
        debug_assert!(placed.is_ok(), "the other direction was placed before this one");
        let rates_at = |kbps: u64| {
            let mut rates = rates;
            rates[at(direction)] = frame_rate(BitRate(kbps * 1000)).0;
            rates
        };
        let at_rate = |kbps: u64| {
            let mut own = before.clone();
            let stuck = self.place_some(start..end, &mut own, rates_at(kbps), by).err();
            stuck.map(|stuck| stuck.with(own))
        };
        let mut steps = self.steps(&self.demands[start..end], direction, wanted, &blocked.own);
        let (mut low, mut stuck) = (0, blocked);
        // First the largest, then always the one in the middle of those that are left.
        let mut pick = steps.len().saturating_sub(1);
        while !steps.is_empty() {
            let (below, step, above) = steps.select_nth_unstable(pick);
            let step = *step;
            steps = match at_rate(step) {
                None => {
                    low = step;
                    above.iter().copied().filter(|other| *other > step).collect()
                }
                Some(blocked) => {
                    stuck = blocked;
                    below.iter().copied().filter(|other| *other < step).collect()
                }
            };
            pick = steps.len() / 2;
        }
        Largest { direction, kbps: low, rates: rates_at(low), stuck }
    }

    /// Why the demand does not fit at the slice's rates, and the largest rate that would.
    pub(super) fn too_narrow(&self, blocked: Box<Blocked>, by: By) -> Box<Refusal> {
        let Largest { direction, kbps, rates, stuck } = self.largest(blocked, by);
        let wanted = self.guaranteed(direction);
        let demand = &self.demands[stuck.index];
        let slice = self.slice.name.clone();
        let name = |node| self.network.snapshot.name(node).clone();
        let (from, to) = (name(demand.from), name(demand.to));
        let way = match (&stuck.unprotected, self.ways(demand, &stuck.own, rates, by)) {
            (None, Ok((way, _))) | (_, Ok((way, None))) => Some(way),
            (Some(_), Ok((_, backup))) => backup,
            (_, Err(_)) => None,
        };
        let bottleneck = way.and_then(|(path, _)| {
            let crossed = crossings(&path);
            let left = path.arcs.iter().filter_map(|arc| {
                let left = self.left_for(*arc, direction, &stuck.own, rates)?;
                let at = crossed.binary_search_by_key(arc, |(arc, _)| *arc);
                Some((left / crossed[at.expect("it is on the path")].1, *arc))
            });
            left.min_by_key(|(left, _)| *left) // the first of equals
        });
        match bottleneck {
            Some((left, arc)) if ip_rate(BitRate(left)) < wanted => {
                let available = ip_rate(BitRate(left));
                Box::new(Refusal::Bandwidth {
                    slice,
                    direction: demand.direction,
                    from,
                    to,
                    link: arc_name(self.network, arc),
                    wanted,
                    available,
                    missing: BitRate(wanted.0 - available.0),
                    fits: BitRate(kbps * 1000),
                    holders: self.ledger.holders(arc, MAX_HOLDERS),
                })
            }
            _ => Box::new(Refusal::TooManyIds { slice, direction: demand.direction, from, to }),
        }
    }

    /// Rates that may be the largest that fits, in kbit/s, in any order: what some link has left,
    /// once or shared by several crossings.
    fn steps(
        &self,
        demands: &[Demand],
        direction: Direction,
        wanted: BitRate,
        own: &Own,
    ) -> Vec<u64> {
        let kbps = |left: u64| ip_rate(BitRate(left)).0 / 1000;
        let frames = |kbps: u64| frame_rate(BitRate(kbps * 1000)).0;
        let arcs = || self.network.snapshot.arcs().iter().map(|arc| arc.ix);
        // No more than what is in use leaves, whatever backups there are beside it.
        let unused =
            |arc| self.books.usable(arc).map(|all| all.saturating_sub(self.books.used(arc)));
        let mut most: Vec<u64> = arcs().filter_map(unused).map(kbps).collect();
        most.retain(|kbps| kbps * 1000 < wanted.0);
        most.sort_unstable();
        let could = |kbps: &u64| demands.iter().all(|demand| self.could(demand, frames(*kbps)));
        let most = most.partition_point(could).checked_sub(1).map_or(0, |last| most[last]);
        let most = if could(&(wanted.0.saturating_sub(1) / 1000)) { u64::MAX } else { most };
        // In frames, so that what is no candidate is not converted: kbps(left) is at least a
        // number of kbit/s from the rate of its frames on.
        let most = most.min((wanted.0.saturating_sub(1)) / 1000);
        let candidates = frames(1)..frames(most.saturating_add(1));
        let shares = 1..=self.hooks.len() as u64 + 1;
        let mut steps: Vec<u64> = Vec::new();
        let mut add = |left: u64| {
            let shared = shares.clone().map(|n| left / n);
            steps.extend(shared.filter(|left| candidates.contains(left)).map(kbps));
        };
        for arc in arcs() {
            self.left_for(arc, direction, own, self.frames()).into_iter().for_each(&mut add);
            self.left_by_failure(arc, &mut add);
        }
        steps
    }

    /// Adds what a backup may take of an arc, by the failures that others are prepared for.
    fn left_by_failure(&self, arc: ArcIx, add: &mut impl FnMut(u64)) {
        let Some(usable) = self.books.usable(arc).filter(|_| self.level > Protection::None) else {
            return;
        };
        let left = usable.saturating_sub(self.books.used(arc));
        if self.dedicated {
            return add(left.saturating_sub(self.books.most_spare(arc)));
        }
        self.books.spares(arc).for_each(|spare| add(left.saturating_sub(spare)));
        add(left);
    }
}

/// The promise that is not kept with the slice in place: its own, or that of another which was
/// kept before it came. Its flows are in the bounds.
pub(super) fn late(
    ledger: &mut Ledger,
    network: &Network<'_>,
    slot: Slot,
    admitted: &Admitted,
    own: Option<&Watch>,
) -> Option<Box<Refusal>> {
    let values = ledger.bounds.settle().cloned();
    let bound = |ledger: &Ledger, admitted: &Admitted, direction| {
        let values = values.as_ref()?;
        delay::worst(network, (&ledger.bounds, values), admitted, direction)
    };
    let slice = admitted.slice.name.clone();
    if let Some(direction) = own.and_then(|own| own.broken(values.as_ref())) {
        let least = bound(ledger, admitted, direction);
        let ends = admitted.placed.iter().find(|placed| placed.direction == direction);
        let ends = ends.or(admitted.placed.first()).expect("a promise is of a way");
        let name = |node| network.snapshot.name(node).clone();
        let (from, to) = worst_ends(least.as_ref()).unwrap_or((name(ends.from), name(ends.to)));
        let wanted = admitted.slice.latency.unwrap_or_default();
        return Some(Box::new(Refusal::Delay { slice, direction, from, to, wanted, least }));
    }
    let mut harmed = ledger.watches.broken(values.as_ref());
    if !harmed.is_empty() {
        // A promise that is broken already is not this slice's doing.
        ledger.remove_flows(slot, admitted);
        let before = ledger.bounds.settle().cloned();
        ledger.add_flows(slot, admitted);
        let before = ledger.watches.broken(before.as_ref());
        let is_new = |slot: &Slot| before.binary_search_by_key(slot, |(slot, _)| *slot).is_err();
        harmed.retain(|(slot, _)| is_new(slot));
    }
    let named = harmed.into_iter().map(|(slot, direction)| (&ledger.names[&slot], direction));
    let (other, direction) = named.min_by_key(|(name, _)| *name)?;
    let other = other.clone();
    let of = ledger.get(other.as_str()).expect("a watch is of an admitted slice");
    let promised = of.slice.latency.unwrap_or_default();
    let bound = bound(ledger, of, direction);
    Some(Box::new(Refusal::OtherSlice { slice, other, direction, promised, bound }))
}

/// The first and last node of the hops that a bound adds up.
fn worst_ends(bound: Option<&DelayBound>) -> Option<(NodeName, NodeName)> {
    let hops = &bound?.hops;
    let node = |end: &str| end.split(':').next()?.parse().ok();
    let first = hops.first()?.link.split(" -> ").next().and_then(node)?;
    let last = hops.last()?.link.split(" -> ").nth(1).and_then(node)?;
    Some((first, last))
}
