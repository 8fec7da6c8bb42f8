//! The promised latencies, in the form in which they are checked with every decision.

use std::sync::Arc;

use selvedge_topology::Delay;

use super::books::Slot;
use super::bounds::Values;
use super::delay::routes;
use super::{Admitted, Network};
use crate::Direction;

/// A slice's promise.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    routes: Vec<Route>,
    arcs: Vec<u32>,
}

/// One way of a slice, or one of its backups.
#[derive(Clone, Copy, Debug)]
struct Route {
    slot: Slot,
    direction: Direction,
    /// Where its arcs end in those of all routes; they start where the ones before it end.
    end: u32,
    propagation_ns: u64,
    /// The longest queueing that keeps the promise; `None`: none does.
    queueing_ns: Option<u64>,
}

impl Watch {
    /// `None`: nothing is promised.
    pub(super) fn of(network: &Network<'_>, slot: Slot, admitted: &Admitted) -> Option<Self> {
        let promised = admitted.slice.latency.filter(|_| admitted.waived.is_none())?;
        let promised_ns = promised.us().saturating_mul(1000);
        let mut watch = Self { routes: Vec::new(), arcs: Vec::new() };
        for direction in Direction::ALL {
            for route in routes(admitted, direction) {
                let delays = route.iter().map(|arc| network.snapshot.link(arc.link()).delay);
                let us = delays.flatten().map(Delay::us).fold(0, u64::saturating_add);
                let propagation_ns = us.saturating_mul(1000);
                let queueing_ns = promised_ns.checked_sub(propagation_ns);
                watch.arcs.extend(route.iter().map(|arc| arc.index() as u32));
                let end = length(&watch.arcs);
                watch.routes.push(Route { slot, direction, end, propagation_ns, queueing_ns });
            }
        }
        Some(watch)
    }

    /// The first direction that would take longer than promised when ports take this long. Without
    /// a bound, the first.
    pub(super) fn broken(&self, waits: Option<&Values>) -> Option<Direction> {
        let broken = match waits {
            Some(waits) => late(&self.routes, &self.arcs, waits).next(),
            None => self.routes.first(),
        };
        broken.map(|route| route.direction)
    }

    /// The least latency that could be promised when ports take this long.
    pub(super) fn least(&self, waits: &Values) -> Delay {
        let each = each(&self.routes, &self.arcs, waits);
        let longest = each.map(|(route, ns)| route.propagation_ns.saturating_add(ns)).max();
        Delay(longest.unwrap_or(0).div_ceil(1000))
    }
}

/// Each route, and how long its packets wait in all.
fn each<'a>(
    routes: &'a [Route],
    arcs: &'a [u32],
    waits: &'a Values,
) -> impl Iterator<Item = (&'a Route, u64)> {
    let mut start = 0;
    routes.iter().map(move |route| {
        let own = &arcs[start..route.end as usize];
        start = route.end as usize;
        (route, own.iter().fold(0u64, |sum, arc| sum.saturating_add(waits.ns[*arc as usize])))
    })
}

/// The routes that would take longer than promised.
fn late<'a>(
    routes: &'a [Route],
    arcs: &'a [u32],
    waits: &'a Values,
) -> impl Iterator<Item = &'a Route> {
    let late = |(route, ns): &(&Route, u64)| route.queueing_ns.is_none_or(|most| *ns > most);
    each(routes, arcs, waits).filter(late).map(|(route, _)| route)
}

fn length(arcs: &[u32]) -> u32 {
    u32::try_from(arcs.len()).expect("the ways of a few slices are not that long")
}

/// The promises of so many slots lie one after the other, for all are looked at at once. When one
/// comes or goes, so many are copied.
const SLOTS: Slot = 64;

/// All promises.
#[derive(Clone, Debug, Default)]
pub(super) struct Watches {
    blocks: Vec<Arc<Block>>,
    routes: usize,
}

/// By slot.
#[derive(Clone, Debug, Default)]
struct Block {
    routes: Vec<Route>,
    arcs: Vec<u32>,
}

impl Watches {
    pub(super) fn is_empty(&self) -> bool {
        self.routes == 0
    }

    /// Of a slot that has none.
    pub(super) fn insert(&mut self, watch: &Watch) {
        let Some(slot) = watch.routes.first().map(|route| route.slot) else { return };
        let block = (slot / SLOTS) as usize;
        if self.blocks.len() <= block {
            self.blocks.resize_with(block + 1, Arc::default);
        }
        let Block { routes, arcs } = Arc::make_mut(&mut self.blocks[block]);
        let at = routes.partition_point(|route| route.slot < slot);
        let from = at.checked_sub(1).map_or(0, |before| routes[before].end);
        routes[at..].iter_mut().for_each(|route| route.end += length(&watch.arcs));
        let moved = |route: &Route| Route { end: from + route.end, ..*route };
        routes.splice(at..at, watch.routes.iter().map(moved));
        let from = from as usize;
        arcs.splice(from..from, watch.arcs.iter().copied());
        self.routes += watch.routes.len();
    }

    pub(super) fn remove(&mut self, slot: Slot) {
        let Some(block) = self.blocks.get_mut((slot / SLOTS) as usize) else { return };
        let start = block.routes.partition_point(|route| route.slot < slot);
        let end = block.routes.partition_point(|route| route.slot <= slot);
        if start == end {
            return;
        }
        let Block { routes, arcs } = Arc::make_mut(block);
        let from = start.checked_sub(1).map_or(0, |before| routes[before].end);
        let to = routes[end - 1].end;
        routes[end..].iter_mut().for_each(|route| route.end -= to - from);
        routes.drain(start..end);
        arcs.drain(from as usize..to as usize);
        self.routes -= end - start;
    }

    /// Whether all are kept when ports take this long.
    pub(super) fn are_kept(&self, waits: &Values) -> bool {
        self.blocks.iter().all(|block| late(&block.routes, &block.arcs, waits).next().is_none())
    }

    /// Those that are not, by slot, and the first direction that is late. Without a bound, all.
    pub(super) fn broken(&self, waits: Option<&Values>) -> Vec<(Slot, Direction)> {
        let mut broken: Vec<(Slot, Direction)> = Vec::new();
        for Block { routes, arcs } in self.blocks.iter().map(Arc::as_ref) {
            match waits {
                Some(waits) => {
                    broken.extend(late(routes, arcs, waits).map(|r| (r.slot, r.direction)));
                }
                None => broken.extend(routes.iter().map(|r| (r.slot, r.direction))),
            }
        }
        broken.dedup_by_key(|(slot, _)| *slot);
        broken
    }
}
