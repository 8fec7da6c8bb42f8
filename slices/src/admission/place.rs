//! Placing one slice: which ways it needs, and the best ones that keep every promise.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use selvedge_topology::{ArcIx, BitRate, Metric, NodeIx, Path};

use super::books::{Books, Slot};
use super::delay::Watch;
use super::memory::instances;
use super::protect::{Failure, Protection, closed, failures, is_cut};
use super::route::best;
use super::why::{closer, late};
use super::{
    Admitted, Backup, Ledger, Network, Placed, Refusal, Segment, frame_rate, overhead, scale,
};
use crate::limits::MTU_BYTES;
use crate::{Direction, NetworkSlice};

/// A way that is needed: between two switches, in one direction.
pub(super) struct Demand {
    pub(super) direction: Direction,
    pub(super) from: NodeIx,
    pub(super) to: NodeIx,
    /// Arcs to the receivers on `to`.
    pub(super) exits: BTreeSet<ArcIx>,
}

/// How often a direction's traffic crosses each arc, at most, on any one path.
pub(super) type Uses = BTreeMap<ArcIx, u64>;

pub(super) type Way = (Path, Vec<Segment>);

/// What the slice itself uses so far.
#[derive(Clone, Default)]
pub(super) struct Own {
    /// By direction.
    pub(super) uses: [Uses; 2],
    /// Crossings by direction that a failure adds.
    pub(super) spare: BTreeMap<ArcIx, BTreeMap<Failure, [u64; 2]>>,
    /// Of its ways and their backups, whose hooks take memory.
    pub(super) segments: Vec<Segment>,
    /// Whatever the memory is: to tell what else stands in the way.
    pub(super) any_memory: bool,
}

#[derive(Clone, Copy)]
pub(super) enum By {
    Cost,
    /// Delay as the network is now, with the slice's own bursts.
    Delay,
}

pub(super) struct Placing<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) books: &'a Books,
    pub(super) network: &'a Network<'a>,
    pub(super) slice: &'a NetworkSlice,
    pub(super) level: Protection,
    pub(super) hooks: Vec<&'a [NodeIx]>,
    pub(super) demands: Vec<Demand>,
    /// Access links by direction: what the slice sends and receives there.
    pub(super) access: [BTreeSet<ArcIx>; 2],
    /// The others' queueing; `None` when their bursts do not settle, or nobody asks.
    pub(super) queues: Option<Vec<u64>>,
    /// What others leave of the compute memory of nodes, in bytes.
    pub(super) memory: BTreeMap<NodeIx, u64>,
}

pub(super) fn at(direction: Direction) -> usize {
    match direction {
        Direction::Downlink => 0,
        Direction::Uplink => 1,
    }
}

/// Places a slice; its flows are then in the ledger's bounds, under this slot.
pub(super) fn promised(
    ledger: &mut Ledger,
    network: &Network<'_>,
    slice: &NetworkSlice,
    slot: Slot,
) -> Result<Admitted, Box<Refusal>> {
    let mut refused: Option<Box<Refusal>> = None;
    for by in [By::Cost, By::Delay] {
        let queues = match by {
            By::Cost => None,
            By::Delay => ledger.bounds.settle().map(<[u64]>::to_vec),
        };
        let placing = Placing::new(ledger, network, slice, queues)?;
        let why = match placing.place(by) {
            Ok(admitted) => {
                placing.access_fits()?;
                match keeps_delays(ledger, network, slot, &admitted) {
                    Ok(()) => return Ok(admitted),
                    Err(why) => why,
                }
            }
            Err(blocked) => {
                placing.reachable()?;
                placing.access_fits()?;
                placing.too_narrow(blocked, by)
            }
        };
        refused = Some(match refused {
            Some(first) => closer(first, why),
            None => why,
        });
        // The second try is for delay only: it finds no more bandwidth than the first.
        let delay = |refusal: &Refusal| {
            matches!(refusal, Refusal::Delay { .. } | Refusal::OtherSlice { .. })
        };
        if !refused.as_deref().is_some_and(delay) {
            break;
        }
    }
    Err(refused.expect("a try that failed"))
}

/// Ways that are known already, if they still keep every promise.
pub(super) fn taken_over(
    ledger: &mut Ledger,
    network: &Network<'_>,
    slice: &NetworkSlice,
    slot: Slot,
    placed: Vec<Placed>,
) -> Option<Admitted> {
    let placing = Placing::new(ledger, network, slice, None).ok()?;
    let rates = placing.frames();
    let mut own = Own::default();
    for placed in &placed {
        own.enter(network, placing.level, placed.direction, &placed.path, placed.backup.as_ref());
        own.segments.extend_from_slice(&placed.segments);
    }
    placing.access_fits().ok()?;
    let used: BTreeSet<ArcIx> = own.uses.iter().flatten().map(|(arc, _)| *arc).collect();
    let spared = own.spare.keys().copied().collect();
    if !used.union(&spared).all(|arc| placing.within(*arc, &own, rates)) {
        return None;
    }
    let admitted = placing.written_down(placed, &own, rates);
    keeps_delays(ledger, network, slot, &admitted).ok()?;
    Some(admitted)
}

/// The slice's own delay bound and those of the others, with the slice in place. Where they are
/// kept its flows stay in the bounds.
fn keeps_delays(
    ledger: &mut Ledger,
    network: &Network<'_>,
    slot: Slot,
    admitted: &Admitted,
) -> Result<(), Box<Refusal>> {
    let own = Watch::of(network, slot, admitted);
    let mark = ledger.bounds.mark();
    ledger.add_flows(slot, admitted);
    if own.is_none() && ledger.watches.is_empty() {
        ledger.bounds.forget();
        return Ok(());
    }
    let backups = admitted.placed.iter().filter_map(|placed| placed.backup.as_ref());
    let paths = admitted.placed.iter().map(|placed| &placed.path).chain(backups.map(|b| &b.path));
    let exits = admitted.placed.iter().flat_map(|placed| &placed.exits);
    let touched: Vec<ArcIx> = paths.flat_map(|path| &path.arcs).chain(exits).copied().collect();
    if ledger.bounds.surely(&touched, own.as_ref(), &ledger.watches) {
        return Ok(());
    }
    let Some(refusal) = late(ledger, network, slot, admitted, own.as_ref()) else { return Ok(()) };
    ledger.remove_flows(slot, admitted);
    ledger.bounds.restore(mark);
    Err(refusal)
}

pub(super) fn waived(
    ledger: &Ledger,
    network: &Network<'_>,
    slice: &NetworkSlice,
    why: Refusal,
) -> Result<Admitted, Box<Refusal>> {
    let mut placing = Placing::new(ledger, network, slice, None)?;
    placing.level = Protection::None;
    let (placed, _) =
        placing.place_at([0, 0], By::Cost).map_err(|blocked| placing.unreachable(&blocked))?;
    let (slice, why) = (slice.clone(), Some(why));
    let (reserved, spare) = (BTreeMap::new(), Vec::new());
    Ok(Admitted { slice, placed, reserved, spare, waived: why })
}

/// The demand that could not be placed.
pub(super) struct Stuck {
    pub(super) index: usize,
    /// The way for which there is no backup.
    pub(super) unprotected: Option<Path>,
}

/// The same, and what was in place before it.
pub(super) struct Blocked {
    pub(super) index: usize,
    pub(super) own: Own,
    pub(super) unprotected: Option<Path>,
}

impl Stuck {
    pub(super) fn with(self, own: Own) -> Box<Blocked> {
        let Self { index, unprotected } = self;
        Box::new(Blocked { index, own, unprotected })
    }
}

impl Own {
    fn enter(
        &mut self,
        network: &Network<'_>,
        level: Protection,
        direction: Direction,
        path: &Path,
        backup: Option<&Backup>,
    ) {
        for (arc, count) in crossings(path) {
            let most = self.uses[at(direction)].entry(arc).or_default();
            *most = count.max(*most);
        }
        let Some(backup) = backup else { return };
        self.segments.extend_from_slice(&backup.segments);
        let failures = failures(network.snapshot, path, level);
        for (arc, count) in crossings(&backup.path) {
            let spare = self.spare.entry(arc).or_default();
            for failure in &failures {
                let most = &mut spare.entry(*failure).or_default()[at(direction)];
                *most = count.max(*most);
            }
        }
    }

    fn used(&self, arc: ArcIx, rates: [u64; 2]) -> u64 {
        let of = |i: usize| self.uses[i].get(&arc).map_or(0, |n| n.saturating_mul(rates[i]));
        of(0).saturating_add(of(1))
    }

    fn spared(&self, arc: ArcIx, failure: Failure, rates: [u64; 2]) -> u64 {
        let of = |counts: &[u64; 2]| {
            counts[0].saturating_mul(rates[0]).saturating_add(counts[1].saturating_mul(rates[1]))
        };
        self.spare.get(&arc).and_then(|spare| spare.get(&failure)).map_or(0, of)
    }
}

impl<'a> Placing<'a> {
    pub(super) fn new(
        ledger: &'a Ledger,
        network: &'a Network<'a>,
        slice: &'a NetworkSlice,
        queues: Option<Vec<u64>>,
    ) -> Result<Self, Box<Refusal>> {
        let name = || slice.name.clone();
        for endpoint in &slice.endpoints {
            if !network.endpoints.contains_key(&endpoint.name) {
                let endpoint = endpoint.name.clone();
                return Err(Box::new(Refusal::Endpoint { slice: name(), endpoint }));
            }
        }
        let mut hooks = Vec::new();
        for through in &slice.through {
            let hook = through.hook.clone();
            match network.hooks.get(&through.hook) {
                None => return Err(Box::new(Refusal::Hook { slice: name(), hook })),
                Some(nodes) if nodes.is_empty() => {
                    return Err(Box::new(Refusal::NoCompute { slice: name(), hook }));
                }
                Some(nodes) => hooks.push(nodes.as_slice()),
            }
        }
        let mut demands: BTreeMap<(Direction, NodeIx, NodeIx), BTreeSet<ArcIx>> = BTreeMap::new();
        let mut access: [BTreeSet<ArcIx>; 2] = Default::default();
        for (from, to, direction) in slice.pairs() {
            let switch = |endpoint| network.endpoints[endpoint].switch;
            let exits = demands.entry((direction, switch(from), switch(to))).or_default();
            exits.extend(network.access(to));
            let links = &mut access[at(direction)];
            links.extend(network.access(from).map(ArcIx::reverse));
            links.extend(network.access(to));
        }
        let demands = demands
            .into_iter()
            .map(|((direction, from, to), exits)| Demand { direction, from, to, exits })
            .collect();
        let (books, level) = (&ledger.books, Protection::of(slice.availability));
        let mut memory = BTreeMap::new();
        if !hooks.is_empty() {
            for (node, total) in &network.memory.nodes {
                let holders = network.memory.holders(ledger, *node);
                let left =
                    holders.iter().fold(total.0, |left, (_, held)| left.saturating_sub(held.0));
                memory.insert(*node, left);
            }
        }
        Ok(Self { ledger, books, network, slice, level, hooks, demands, access, queues, memory })
    }

    pub(super) fn guaranteed(&self, direction: Direction) -> BitRate {
        self.slice.rates(direction).guaranteed.unwrap_or_default()
    }

    /// The guaranteed rates as frames of the fabric, by direction.
    pub(super) fn frames(&self) -> [u64; 2] {
        Direction::ALL.map(|direction| frame_rate(self.guaranteed(direction)).0)
    }

    /// What others and the slice itself take of an arc, after the worst failure.
    pub(super) fn taken(&self, arc: ArcIx, own: &Own, rates: [u64; 2]) -> u64 {
        let after = |failure: &Failure| {
            let others = self.books.spare(arc, *failure);
            others.saturating_add(own.spared(arc, *failure, rates))
        };
        let worst = own.spare.get(&arc).and_then(|spare| spare.keys().map(after).max());
        let spare = self.books.most_spare(arc).max(worst.unwrap_or(0));
        self.books.used(arc).saturating_add(own.used(arc, rates)).saturating_add(spare)
    }

    fn within(&self, arc: ArcIx, own: &Own, rates: [u64; 2]) -> bool {
        self.books.usable(arc).is_none_or(|usable| self.taken(arc, own, rates) <= usable)
    }

    /// Whether a direction's way may cross an arc this often.
    fn fits(
        &self,
        arc: ArcIx,
        times: u64,
        direction: Direction,
        own: &Own,
        rates: [u64; 2],
    ) -> bool {
        let rate = rates[at(direction)];
        let Some(usable) = self.books.usable(arc).filter(|_| rate > 0) else { return true };
        let known = own.uses[at(direction)].get(&arc).copied().unwrap_or(0);
        let more = rate.saturating_mul(times.saturating_sub(known));
        self.taken(arc, own, rates).saturating_add(more) <= usable
    }

    /// Whether a direction's backup may cross an arc this often after these failures.
    fn spares(
        &self,
        arc: ArcIx,
        times: u64,
        (direction, failures): (Direction, &[Failure]),
        own: &Own,
        rates: [u64; 2],
    ) -> bool {
        let rate = rates[at(direction)];
        let Some(usable) = self.books.usable(arc).filter(|_| rate > 0) else { return true };
        let used = self.books.used(arc).saturating_add(own.used(arc, rates));
        let known = own.spare.get(&arc);
        // Mostly there is room for the worst that any failure brings.
        let most = self.books.most_spare(arc).saturating_add(rate.saturating_mul(times));
        if known.is_none() && used.saturating_add(most) <= usable {
            return true;
        }
        let after = |failure: &Failure| {
            let counts = known.and_then(|spare| spare.get(failure));
            let known = counts.map_or(0, |counts| counts[at(direction)]);
            let more = rate.saturating_mul(times.saturating_sub(known));
            let spare = self.books.spare(arc, *failure);
            spare.saturating_add(own.spared(arc, *failure, rates)).saturating_add(more)
        };
        let worst = failures.iter().map(after).max().unwrap_or(0);
        used.saturating_add(worst) <= usable && self.taken(arc, own, rates) <= usable
    }

    pub(super) fn place(&self, by: By) -> Result<Admitted, Box<Blocked>> {
        let rates = self.frames();
        let (placed, own) = self.place_at(rates, by)?;
        Ok(self.written_down(placed, &own, rates))
    }

    fn written_down(&self, placed: Vec<Placed>, own: &Own, rates: [u64; 2]) -> Admitted {
        let mut reserved: BTreeMap<ArcIx, BitRate> = BTreeMap::new();
        let mut add = |arc: ArcIx, rate: u64| {
            if rate > 0 {
                let sum = reserved.entry(arc).or_default();
                sum.0 = sum.0.saturating_add(rate);
            }
        };
        for direction in Direction::ALL {
            for (arc, count) in &own.uses[at(direction)] {
                add(*arc, count.saturating_mul(rates[at(direction)]));
            }
            for arc in &self.access[at(direction)] {
                let frame = MTU_BYTES + overhead(self.network, *arc);
                add(*arc, scale(self.guaranteed(direction), frame).0);
            }
        }
        let mut spare = Vec::new();
        for (arc, failures) in &own.spare {
            for failure in failures.keys() {
                let rate = BitRate(own.spared(*arc, *failure, rates));
                spare.extend(Some((*arc, *failure, rate)).filter(|_| rate.0 > 0));
            }
        }
        Admitted { slice: self.slice.clone(), placed, reserved, spare, waived: None }
    }

    /// All demands, one after the other, at these rates of frames.
    pub(super) fn place_at(
        &self,
        rates: [u64; 2],
        by: By,
    ) -> Result<(Vec<Placed>, Own), Box<Blocked>> {
        let mut own = Own::default();
        match self.place_some(0..self.demands.len(), &mut own, rates, by) {
            Ok(placed) => Ok((placed, own)),
            Err(stuck) => Err(stuck.with(own)),
        }
    }

    /// Some of the demands, beside what is placed already.
    pub(super) fn place_some(
        &self,
        demands: Range<usize>,
        own: &mut Own,
        rates: [u64; 2],
        by: By,
    ) -> Result<Vec<Placed>, Stuck> {
        let mut placed = Vec::new();
        for index in demands {
            let demand = &self.demands[index];
            let ((path, segments), backup) = self
                .ways(demand, own, rates, by)
                .map_err(|unprotected| Stuck { index, unprotected })?;
            let backup = backup.map(|(path, segments)| Backup { path, segments });
            let Demand { direction, from, to, .. } = *demand;
            own.enter(self.network, self.level, direction, &path, backup.as_ref());
            own.segments.extend_from_slice(&segments);
            let exits = demand.exits.iter().copied().collect();
            placed.push(Placed { direction, from, to, path, segments, backup, exits });
        }
        Ok(placed)
    }

    /// A way and, as far as the slice is protected, its backup. Where the best way leaves none,
    /// those are tried that stay clear of one of its parts. Not found: the way without a backup,
    /// or nothing.
    pub(super) fn ways(
        &self,
        demand: &Demand,
        own: &Own,
        rates: [u64; 2],
        by: By,
    ) -> Result<(Way, Option<Way>), Option<Path>> {
        let first = self.way(demand, own, rates, by, None).ok_or(None)?;
        if self.level == Protection::None || first.0.arcs.is_empty() {
            return Ok((first, None));
        }
        let failures = failures(self.network.snapshot, &first.0, self.level);
        if let Some(backup) = self.backup(demand, own, rates, by, &first) {
            return Ok((first, Some(backup)));
        }
        let (from, to) = (demand.from, demand.to);
        if failures.iter().any(|failure| is_cut(self.network.snapshot, (from, to), *failure)) {
            return Err(Some(first.0));
        }
        for failure in failures {
            let closed = closed(self.network.snapshot, &[failure]);
            let Some(other) = self.way(demand, own, rates, by, Some((&closed, None))) else {
                continue;
            };
            if let Some(backup) = self.backup(demand, own, rates, by, &other) {
                return Ok((other, Some(backup)));
            }
        }
        Err(Some(first.0))
    }

    fn backup(
        &self,
        demand: &Demand,
        own: &Own,
        rates: [u64; 2],
        by: By,
        (path, on_path): &Way,
    ) -> Option<Way> {
        let failures = failures(self.network.snapshot, path, self.level);
        let closed = closed(self.network.snapshot, &failures);
        let mut own = own.clone();
        own.enter(self.network, self.level, demand.direction, path, None);
        own.segments.extend_from_slice(on_path);
        self.way(demand, &own, rates, by, Some((&closed, Some(&failures))))
    }

    /// The best way, clear of closed arcs; with failures given it is a backup for these.
    pub(super) fn way(
        &self,
        demand: &Demand,
        own: &Own,
        rates: [u64; 2],
        by: By,
        avoiding: Option<(&[bool], Option<&[Failure]>)>,
    ) -> Option<Way> {
        let Demand { direction, from, to, .. } = *demand;
        let fits = |arc: ArcIx, times: u64| match avoiding {
            Some((closed, _)) if closed[arc.index()] => false,
            Some((_, Some(failures))) => self.spares(arc, times, (direction, failures), own, rates),
            _ => self.fits(arc, times, direction, own, rates),
        };
        let burst = self.slice.rates(direction).guaranteed_burst(self.slice.class);
        // Arcs that a path may cross once but not as often as it did.
        let mut narrow: BTreeSet<ArcIx> = BTreeSet::new();
        // Nodes that have no room for one more of the slice's hooks.
        let mut full: BTreeSet<(usize, NodeIx)> = BTreeSet::new();
        loop {
            let weight = |arc: ArcIx| {
                if narrow.contains(&arc) || !fits(arc, 1) {
                    return None;
                }
                let snapshot = self.network.snapshot;
                match (by, &self.queues) {
                    (By::Delay, Some(queues)) => {
                        let propagation = snapshot.link(arc.link()).delay.map_or(0, |d| d.us());
                        let waiting = self.ledger.bounds.with_burst(queues, arc, burst);
                        Some(propagation.saturating_mul(1000).saturating_add(waiting))
                    }
                    _ => Some(u64::from(snapshot.arc(arc)?.cost)),
                }
            };
            let metric = matches!(by, By::Cost).then_some(Metric::Cost);
            let open = |(index, nodes): (usize, &&[NodeIx])| -> Vec<NodeIx> {
                nodes.iter().copied().filter(|node| !full.contains(&(index, *node))).collect()
            };
            let hooks: Vec<Vec<NodeIx>> = self.hooks.iter().enumerate().map(open).collect();
            let hooks: Vec<&[NodeIx]> = hooks.iter().map(Vec::as_slice).collect();
            let found = best(self.network, (from, to), &hooks, &weight, metric)?;
            let over = self.overfull(&own.segments, &found.1);
            if let Some(over) = over.filter(|_| !own.any_memory) {
                full.insert(over);
                continue;
            }
            let too_often: Vec<ArcIx> = crossings(&found.0)
                .into_iter()
                .filter(|(arc, times)| *times > 1 && !fits(*arc, *times))
                .map(|(arc, _)| arc)
                .collect();
            if too_often.is_empty() {
                return Some(found);
            }
            narrow.extend(too_often);
        }
    }

    /// A hook of a new way, by its place in the slice, that is one too many for its node beside
    /// those of its other ways.
    pub(super) fn overfull(&self, own: &[Segment], way: &[Segment]) -> Option<(usize, NodeIx)> {
        let mut all = instances(self.slice, own);
        for segment in way {
            let Segment::Hook { index, node } = *segment else { continue };
            all.insert((node, &self.slice.through[index].hook));
            let left = self.memory.get(&node);
            if left.is_some_and(|left| self.network.memory.taken(&all, node) > *left) {
                return Some((index, node));
            }
        }
        None
    }
}

pub(super) fn crossings(path: &Path) -> BTreeMap<ArcIx, u64> {
    let mut counts = BTreeMap::new();
    for arc in &path.arcs {
        *counts.entry(*arc).or_default() += 1;
    }
    counts
}
