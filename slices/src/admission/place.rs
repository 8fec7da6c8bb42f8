//! Placing one slice: which ways it needs, and the best ones that keep every promise.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync;

use selvedge_topology::{Arc, ArcIx, BitRate, Bytes, Metric, NodeIx, Path};

use super::books::{Books, Slot};
use super::memory::instances;
use super::protect::{Failure, Protection, closed, failures, has_ways, is_cut};
use super::route::best;
use super::watch::Watch;
use super::why::{closer, late};
use super::{
    Admitted, Backup, Ledger, Network, Placed, Refusal, Segment, frame_rate, overhead, scale,
};
use crate::limits::MTU_BYTES;
use crate::{Direction, NetworkSlice, ResourceSharingLevel};

/// A way that is needed: between two switches, in one direction.
pub(super) struct Demand {
    pub(super) direction: Direction,
    pub(super) from: NodeIx,
    pub(super) to: NodeIx,
    /// Arcs to the receivers on `to`.
    pub(super) exits: BTreeSet<ArcIx>,
    /// The largest rate of frames for which [`Placing::could`] was true.
    could: Cell<Option<u64>>,
    /// Whether there is a failure that leaves no way at all, where that was looked at.
    is_cut: Cell<Option<bool>>,
}

impl Demand {
    fn new(direction: Direction, from: NodeIx, to: NodeIx, exits: BTreeSet<ArcIx>) -> Self {
        Self { direction, from, to, exits, could: Cell::new(None), is_cut: Cell::new(None) }
    }
}

/// How often a direction's traffic crosses each arc, at most, on any one path; in the order of
/// arcs.
pub(super) type Uses = Vec<(ArcIx, u64)>;

pub(super) type Way = (Path, Vec<Segment>);

/// What the slice itself uses so far.
#[derive(Clone, Default)]
pub(super) struct Own {
    /// By direction.
    pub(super) uses: [Uses; 2],
    /// Crossings by direction that a failure adds; in the order of arcs, then of failures.
    pub(super) spare: Vec<((ArcIx, Failure), [u64; 2])>,
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
    /// It shares its backups' capacity with nobody (resourceSharingLevel, TS 28.541 §6.3.3).
    pub(super) dedicated: bool,
    pub(super) hooks: Vec<&'a [NodeIx]>,
    pub(super) demands: Vec<Demand>,
    /// Access links by direction: what the slice sends and receives there.
    pub(super) access: [BTreeSet<ArcIx>; 2],
    /// How long arcs take as the network is now, with the slice's own bursts, in ns by direction
    /// and arc; `None` when bursts do not settle, or nobody asks.
    delays: Option<[Vec<u64>; 2]>,
    /// What others leave of the compute memory of nodes, in bytes.
    pub(super) memory: BTreeMap<NodeIx, u64>,
    /// Something was looked at that others have left too little of.
    pressed: Cell<bool>,
}

pub(super) fn at(direction: Direction) -> usize {
    match direction {
        Direction::Downlink => 0,
        Direction::Uplink => 1,
    }
}

/// Places a slice; its flows are then in the ledger's bounds, under this slot. True beside it: it
/// might have been placed otherwise if others had taken less.
pub(super) fn promised(
    ledger: &mut Ledger,
    network: &Network<'_>,
    slice: &NetworkSlice,
    slot: Slot,
) -> Result<(Admitted, bool), Box<Refusal>> {
    let mut refused: Option<Box<Refusal>> = None;
    let mut late: Option<Admitted> = None;
    for by in [By::Cost, By::Delay] {
        let bursts = match by {
            By::Cost => None,
            By::Delay => ledger.bounds.bursts(),
        };
        let placing = Placing::new(ledger, network, slice, bursts)?;
        let why = match placing.place(by) {
            // The ways that were late already are so for the same reason.
            Ok(admitted) if late.as_ref() == Some(&admitted) => break,
            Ok(admitted) => {
                placing.access_fits()?;
                let pressed = placing.pressed.get() || matches!(by, By::Delay);
                match keeps_delays(ledger, network, slot, &admitted) {
                    Ok(()) => return Ok((admitted, pressed)),
                    Err(why) => {
                        late = Some(admitted);
                        why
                    }
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
    let own = placing.own(&placed);
    let rates = placing.frames();
    placing.access_fits().ok()?;
    let used = own.uses.iter().flatten().map(|(arc, _)| *arc);
    let mut arcs = used.chain(own.spare.iter().map(|((arc, _), _)| *arc));
    if !arcs.all(|arc| placing.within(arc, &own, rates)) {
        return None;
    }
    let admitted = placing.written_down(placed, &own, rates);
    keeps_delays(ledger, network, slot, &admitted).ok()?;
    Some(admitted)
}

/// The same, whether or not promises are kept.
pub(super) fn written(
    ledger: &Ledger,
    network: &Network<'_>,
    slice: &NetworkSlice,
    placed: Vec<Placed>,
) -> Option<Admitted> {
    let placing = Placing::new(ledger, network, slice, None).ok()?;
    let own = placing.own(&placed);
    Some(placing.written_down(placed, &own, placing.frames()))
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
    if own.is_none() && ledger.watches.is_empty() {
        ledger.add_flows(slot, admitted);
        ledger.bounds.forget();
        return Ok(());
    }
    let mark = ledger.bounds.mark();
    ledger.add_flows(slot, admitted);
    let touched: Vec<ArcIx> = admitted.arcs().collect();
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
        let uses = &mut self.uses[at(direction)];
        for (arc, count) in crossings(path) {
            match uses.binary_search_by_key(&arc, |(arc, _)| *arc) {
                Ok(known) => uses[known].1 = uses[known].1.max(count),
                Err(place) => uses.insert(place, (arc, count)),
            }
        }
        let Some(backup) = backup else { return };
        self.segments.extend_from_slice(&backup.segments);
        let failures = failures(network.snapshot, path, level);
        for (arc, count) in crossings(&backup.path) {
            for failure in &failures {
                let of = (arc, *failure);
                let known = self.spare.binary_search_by_key(&of, |(of, _)| *of);
                let known = known.unwrap_or_else(|place| {
                    self.spare.insert(place, (of, [0, 0]));
                    place
                });
                let most = &mut self.spare[known].1[at(direction)];
                *most = count.max(*most);
            }
        }
    }

    fn is_nothing(&self) -> bool {
        self.spare.is_empty() && self.uses.iter().all(Vec::is_empty)
    }

    /// How often a direction crosses an arc.
    fn crosses(&self, direction: Direction, arc: ArcIx) -> u64 {
        let uses = &self.uses[at(direction)];
        uses.binary_search_by_key(&arc, |(arc, _)| *arc).map_or(0, |known| uses[known].1)
    }

    fn used(&self, arc: ArcIx, rates: [u64; 2]) -> u64 {
        let of = |direction| self.crosses(direction, arc).saturating_mul(rates[at(direction)]);
        Direction::ALL.into_iter().map(of).fold(0, u64::saturating_add)
    }

    /// What failures add to an arc.
    fn spares(&self, arc: ArcIx) -> &[((ArcIx, Failure), [u64; 2])] {
        let start = self.spare.partition_point(|((of, _), _)| *of < arc);
        let here = self.spare[start..].iter().take_while(|((of, _), _)| *of == arc).count();
        &self.spare[start..start + here]
    }
}

/// The rate of these crossings by direction.
fn rate_of(counts: [u64; 2], rates: [u64; 2]) -> u64 {
    counts[0].saturating_mul(rates[0]).saturating_add(counts[1].saturating_mul(rates[1]))
}

impl<'a> Placing<'a> {
    pub(super) fn new(
        ledger: &'a Ledger,
        network: &'a Network<'a>,
        slice: &'a NetworkSlice,
        bursts: Option<sync::Arc<[Bytes]>>,
    ) -> Result<Self, Box<Refusal>> {
        let name = || slice.name.clone();
        let mut unknown = None;
        let pairs = slice.pairs_of(|endpoint| {
            let at = network.attached(endpoint);
            unknown = unknown.or(Some(endpoint).filter(|_| at.is_none()));
            at
        });
        if let Some(endpoint) = unknown.cloned() {
            return Err(Box::new(Refusal::Endpoint { slice: name(), endpoint }));
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
        for (from, to, direction) in pairs {
            let (Some((from, entry)), Some((to, exit))) = (from, to) else { continue };
            demands.entry((direction, from, to)).or_default().extend(exit);
            access[at(direction)].extend(entry.map(ArcIx::reverse).into_iter().chain(exit));
        }
        let demands = demands
            .into_iter()
            .map(|((direction, from, to), exits)| Demand::new(direction, from, to, exits))
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
        let delays = bursts.map(|bursts| {
            Direction::ALL.map(|direction| {
                let own = slice.rates(direction).guaranteed_burst(slice.class);
                ledger.bounds.delays(network, &bursts, own)
            })
        });
        let dedicated = slice.resource_sharing_level == ResourceSharingLevel::NonShared;
        Ok(Self {
            ledger,
            books,
            network,
            slice,
            level,
            dedicated,
            hooks,
            demands,
            access,
            delays,
            memory,
            pressed: Cell::new(false),
        })
    }

    pub(super) fn guaranteed(&self, direction: Direction) -> BitRate {
        self.slice.rates(direction).guaranteed.unwrap_or_default()
    }

    /// The guaranteed rates as frames of the fabric, by direction.
    pub(super) fn frames(&self) -> [u64; 2] {
        Direction::ALL.map(|direction| frame_rate(self.guaranteed(direction)).0)
    }

    /// What others have prepared for when this failure comes, beside which the slice's own
    /// backup has to fit: what is not shared has to fit beside the worst that others prepare for.
    fn beside(&self, arc: ArcIx, failure: Failure) -> u64 {
        if self.dedicated { self.books.most_spare(arc) } else { self.books.spare(arc, failure) }
    }

    /// What others and the slice itself take of an arc, after the worst failure.
    pub(super) fn taken(&self, arc: ArcIx, own: &Own, rates: [u64; 2]) -> u64 {
        let after = |((_, failure), counts): &((ArcIx, Failure), [u64; 2])| {
            self.beside(arc, *failure).saturating_add(rate_of(*counts, rates))
        };
        let worst = own.spares(arc).iter().map(after).max().unwrap_or(0);
        let spare = self.books.most_spare(arc).max(worst);
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
        if own.is_nothing() {
            let taken = self.books.used(arc).saturating_add(self.books.most_spare(arc));
            return taken.saturating_add(rate.saturating_mul(times)) <= usable;
        }
        let known = own.crosses(direction, arc);
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
        let known = own.spares(arc);
        if known.is_empty() && !failures.is_empty() {
            // Mostly there is room for the worst that any failure brings, or for none.
            let least = used.saturating_add(rate.saturating_mul(times));
            if least > usable {
                return false;
            }
            if least.saturating_add(self.books.most_spare(arc)) <= usable {
                return true;
            }
        }
        let after = |failure: &Failure| {
            let counts = known.iter().find(|((_, of), _)| of == failure);
            let counts = counts.map_or([0, 0], |(_, counts)| *counts);
            let more = rate.saturating_mul(times.saturating_sub(counts[at(direction)]));
            self.beside(arc, *failure).saturating_add(rate_of(counts, rates)).saturating_add(more)
        };
        failures.iter().all(|failure| used.saturating_add(after(failure)) <= usable)
            && self.taken(arc, own, rates) <= usable
    }

    /// Whether a demand could have its ways at a rate of frames, as far as what is in use alone
    /// says: one way, and for a backup a second one that has no arc of it. No: there are none.
    pub(super) fn could(&self, demand: &Demand, rate: u64) -> bool {
        if !self.hooks.is_empty() || demand.from == demand.to {
            return true;
        }
        if demand.could.get().is_some_and(|known| rate <= known) {
            return true; // what has room for more has room for this
        }
        let ways = if self.level == Protection::None { 1 } else { 2 };
        let open = |arc: ArcIx| {
            let usable = self.books.usable(arc).filter(|_| rate > 0);
            usable.is_none_or(|usable| self.books.used(arc).saturating_add(rate) <= usable)
        };
        let could = has_ways(self.network.snapshot, (demand.from, demand.to), ways, &open);
        if could {
            demand.could.set(Some(rate));
        }
        could
    }

    /// Whether one of these failures leaves the demand no way at all. `failures`: those of one of
    /// its ways, no matter which: what cuts it is on every way.
    fn is_cut(&self, demand: &Demand, failures: &[Failure]) -> bool {
        let ends = (demand.from, demand.to);
        demand.is_cut.get().unwrap_or_else(|| {
            let cut = failures.iter().any(|failure| is_cut(self.network.snapshot, ends, *failure));
            demand.is_cut.set(Some(cut));
            cut
        })
    }

    pub(super) fn place(&self, by: By) -> Result<Admitted, Box<Blocked>> {
        let rates = self.frames();
        let (placed, own) = self.place_at(rates, by)?;
        Ok(self.written_down(placed, &own, rates))
    }

    /// What these ways use.
    fn own(&self, placed: &[Placed]) -> Own {
        let mut own = Own::default();
        for Placed { direction, path, backup, segments, .. } in placed {
            own.enter(self.network, self.level, *direction, path, backup.as_ref());
            own.segments.extend_from_slice(segments);
        }
        own
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
        let of = |((arc, failure), counts): &((ArcIx, Failure), [u64; 2])| {
            (*arc, *failure, BitRate(rate_of(*counts, rates)))
        };
        let mut spare: Vec<(ArcIx, Failure, BitRate)> = own.spare.iter().map(of).collect();
        spare.retain(|(.., rate)| rate.0 > 0);
        if self.dedicated {
            let mut worst: BTreeMap<ArcIx, BitRate> = BTreeMap::new();
            for (arc, _, rate) in spare.drain(..) {
                let known = worst.entry(arc).or_default();
                *known = rate.max(*known);
            }
            worst.into_iter().for_each(|(arc, rate)| add(arc, rate.0));
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
        if !self.could(demand, rates[at(demand.direction)]) || self.is_cut(demand, &failures) {
            return Err(Some(first.0));
        }
        let mut tried: Vec<Way> = Vec::new();
        for failure in failures {
            let closed = closed(self.network.snapshot, &[failure]);
            let Some(other) = self.way(demand, own, rates, by, Some((&closed, None))) else {
                continue;
            };
            if tried.contains(&other) {
                continue;
            }
            if let Some(backup) = self.backup(demand, own, rates, by, &other) {
                return Ok((other, Some(backup)));
            }
            tried.push(other);
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
        let fits = |arc: ArcIx, times: u64| {
            let fits = match avoiding {
                Some((closed, _)) if closed[arc.index()] => return false,
                Some((_, Some(failures))) => {
                    self.spares(arc, times, (direction, failures), own, rates)
                }
                _ => self.fits(arc, times, direction, own, rates),
            };
            if !fits {
                self.pressed.set(true);
            }
            fits
        };
        // Arcs that a path may cross once but not as often as it did.
        let mut narrow: BTreeSet<ArcIx> = BTreeSet::new();
        // Nodes that have no room for one more of the slice's hooks.
        let mut full: BTreeSet<(usize, NodeIx)> = BTreeSet::new();
        loop {
            let weight = |arc: &Arc| {
                if narrow.contains(&arc.ix) || !fits(arc.ix, 1) {
                    return None;
                }
                Some(match (by, &self.delays) {
                    (By::Delay, Some(delays)) => delays[at(direction)][arc.ix.index()],
                    _ => u64::from(arc.cost),
                })
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
                self.pressed.set(true);
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

/// How often a path crosses its arcs, in their order.
pub(super) fn crossings(path: &Path) -> Uses {
    let mut arcs = path.arcs.clone();
    arcs.sort_unstable();
    let each = arcs.chunk_by(|a, b| a == b);
    each.map(|same| (same[0], same.len() as u64)).collect()
}
