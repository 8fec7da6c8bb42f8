//! Shortest paths under a bandwidth bound, around excluded links and nodes.
//!
//! Dijkstra over (metric, hops); equal paths are decided by names, so that the same network
//! gives the same path everywhere. Disjoint and k-shortest paths belong beside this file.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use crate::{Arc, ArcIx, BitRate, Delay, LinkIx, NodeIx, Snapshot};

/// What a path is shortest by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// The links' `cost`; [`crate::DEFAULT_COST`] where none is stated.
    Cost,
    /// The links' `delay`; 0 where none is stated.
    Delay,
}

impl Metric {
    pub fn of(self, arc: &Arc) -> u64 {
        match self {
            Self::Cost => u64::from(arc.cost),
            Self::Delay => arc.delay.map_or(0, Delay::us),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Query {
    pub from: NodeIx,
    pub to: NodeIx,
    pub metric: Metric,
    /// Links of less capacity are not used; one without a stated capacity is.
    pub min_bandwidth: Option<BitRate>,
    pub without_links: BTreeSet<LinkIx>,
    /// `from` and `to` are used even if they are listed.
    pub without_nodes: BTreeSet<NodeIx>,
}

impl Query {
    pub fn new(from: NodeIx, to: NodeIx, metric: Metric) -> Self {
        let (without_links, without_nodes) = (BTreeSet::new(), BTreeSet::new());
        Self { from, to, metric, min_bandwidth: None, without_links, without_nodes }
    }

    fn allows(&self, arc: &Arc) -> bool {
        let ends = |node| node == self.from || node == self.to;
        !self.without_links.contains(&arc.ix.link())
            && (ends(arc.to) || !self.without_nodes.contains(&arc.to))
    }

    fn fits(&self, arc: &Arc) -> bool {
        arc.capacity.zip(self.min_bandwidth).is_none_or(|(capacity, wanted)| capacity >= wanted)
    }
}

/// A walk along arcs; no arc at all when it starts where it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// One more than `arcs`.
    pub nodes: Vec<NodeIx>,
    pub arcs: Vec<ArcIx>,
}

impl Path {
    /// # Panics
    /// When an arc is not in the snapshot or does not start where the one before it ended.
    pub fn from_arcs(snapshot: &Snapshot, from: NodeIx, arcs: Vec<ArcIx>) -> Self {
        let mut nodes = vec![from];
        for &ix in &arcs {
            let arc = snapshot.arc(ix).expect("a path's arcs are in its snapshot");
            assert_eq!(nodes.last(), Some(&arc.from), "a path's arcs join");
            nodes.push(arc.to);
        }
        Self { nodes, arcs }
    }

    pub fn from(&self) -> NodeIx {
        self.nodes[0]
    }

    pub fn to(&self) -> NodeIx {
        self.nodes[self.nodes.len() - 1]
    }

    fn sum(&self, snapshot: &Snapshot, metric: Metric) -> u64 {
        self.arcs.iter().filter_map(|&ix| snapshot.arc(ix)).map(|arc| metric.of(arc)).sum()
    }

    pub fn cost(&self, snapshot: &Snapshot) -> u64 {
        self.sum(snapshot, Metric::Cost)
    }

    /// Propagation, as far as it is stated.
    pub fn delay(&self, snapshot: &Snapshot) -> Delay {
        Delay(self.sum(snapshot, Metric::Delay))
    }

    /// The smallest stated capacity and the first arc that has it.
    pub fn bottleneck(&self, snapshot: &Snapshot) -> Option<(ArcIx, BitRate)> {
        let stated = |&ix: &ArcIx| Some((ix, snapshot.arc(ix)?.capacity?));
        self.arcs.iter().filter_map(stated).min_by_key(|(_, capacity)| *capacity)
    }
}

/// Why there is no path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPath {
    #[error(
        "{from} and {to} are not connected: from {from} one reaches {reached} of {switches} switches"
    )]
    Disconnected { from: String, to: String, reached: usize, switches: usize },
    #[error(
        "no path from {from} to {to} has {wanted}: the widest has {widest}, its bottleneck is \
         {bottleneck}"
    )]
    Bandwidth { from: String, to: String, wanted: BitRate, widest: BitRate, bottleneck: String },
    #[error("every path from {from} to {to} goes over what is excluded")]
    Excluded { from: String, to: String },
}

/// The shortest path, or why there is none.
pub fn shortest_path(snapshot: &Snapshot, query: &Query) -> Result<Path, NoPath> {
    let usable = |arc: &Arc| query.allows(arc) && query.fits(arc);
    let search = |usable: &dyn Fn(&Arc) -> bool| {
        dijkstra(snapshot, query.from, query.to, |arc| usable(arc).then(|| query.metric.of(arc)))
    };
    if let Some(path) = search(&usable) {
        return Ok(path);
    }
    let name = |node| snapshot.name(node).to_string();
    let (from, to) = (name(query.from), name(query.to));
    if search(&|_| true).is_none() {
        let reached = reachable(snapshot, query.from);
        return Err(NoPath::Disconnected { from, to, reached, switches: snapshot.len() });
    }
    match (query.min_bandwidth, widest_path(snapshot, query)) {
        (Some(wanted), Some((arc, widest))) => {
            let bottleneck = snapshot.link(arc.link()).to_string();
            Err(NoPath::Bandwidth { from, to, wanted, widest, bottleneck })
        }
        _ => Err(NoPath::Excluded { from, to }),
    }
}

/// The narrowest arc of the widest allowed path, when that has a stated capacity at all.
fn widest_path(snapshot: &Snapshot, query: &Query) -> Option<(ArcIx, BitRate)> {
    // Raise the floor until nothing connects: as many searches as there are capacities.
    let capacities: BTreeSet<BitRate> =
        snapshot.arcs().iter().filter_map(|arc| arc.capacity).collect();
    let over = |floor: BitRate| {
        dijkstra(snapshot, query.from, query.to, |arc| {
            let wide = arc.capacity.is_none_or(|capacity| capacity >= floor);
            (query.allows(arc) && wide).then(|| query.metric.of(arc))
        })
    };
    let capacities: Vec<BitRate> = capacities.into_iter().collect();
    let count = capacities.partition_point(|&floor| over(floor).is_some());
    over(*capacities.get(count.checked_sub(1)?)?)?.bottleneck(snapshot)
}

fn reachable(snapshot: &Snapshot, from: NodeIx) -> usize {
    let mut seen = vec![false; snapshot.len()];
    seen[from.index()] = true;
    let mut stack = vec![from];
    while let Some(node) = stack.pop() {
        for arc in snapshot.arcs_from(node) {
            if !std::mem::replace(&mut seen[arc.to.index()], true) {
                stack.push(arc.to);
            }
        }
    }
    seen.iter().filter(|&&seen| seen).count()
}

/// The path of least (weight, hops), then of first names. `weight` says what an arc counts, or
/// `None` when it must not be used.
pub(crate) fn dijkstra(
    snapshot: &Snapshot,
    from: NodeIx,
    to: NodeIx,
    weight: impl Fn(&Arc) -> Option<u64>,
) -> Option<Path> {
    // Towards `to`, against the traffic, so that each node's choice is its next hop.
    let (distance, next) = toward(snapshot, to, &weight);
    distance[from.index()]?;
    let mut arcs = Vec::new();
    let mut at = from;
    while at != to {
        let arc = next[at.index()].expect("a node with a distance has a next hop");
        arcs.push(arc);
        at = snapshot.arc(arc).expect("next hops are arcs of this snapshot").to;
    }
    Some(Path::from_arcs(snapshot, from, arcs))
}

/// What a node is away from a target: (weight, hops).
pub(crate) type Distance = (u64, u32);

/// Every node's distance to `to` and the arc that it takes: of those on a shortest path, the
/// one to the neighbor of the first name, then of the first link.
pub(crate) fn toward(
    snapshot: &Snapshot,
    to: NodeIx,
    weight: &impl Fn(&Arc) -> Option<u64>,
) -> (Vec<Option<Distance>>, Vec<Option<ArcIx>>) {
    let mut distance: Vec<Option<Distance>> = vec![None; snapshot.len()];
    let mut done = vec![false; snapshot.len()];
    let start: (Distance, NodeIx) = ((0, 0), to);
    let mut heap = BinaryHeap::from([Reverse(start)]);
    distance[to.index()] = Some((0, 0));
    while let Some(Reverse(((sum, hops), node))) = heap.pop() {
        if std::mem::replace(&mut done[node.index()], true) {
            continue;
        }
        for arc in snapshot.arcs_into(node) {
            let Some(weight) = weight(arc) else { continue };
            let candidate = (sum.saturating_add(weight), hops + 1);
            let best = &mut distance[arc.from.index()];
            if best.is_none_or(|best| candidate < best) {
                *best = Some(candidate);
                heap.push(Reverse((candidate, arc.from)));
            }
        }
    }
    let choose = |node: NodeIx| {
        let here = distance[node.index()].filter(|_| node != to)?;
        // Arcs are in order of the neighbors' names.
        let shortest = |arc: &&Arc| {
            let there = distance[arc.to.index()].zip(weight(arc));
            there.is_some_and(|((sum, hops), w)| (sum.saturating_add(w), hops + 1) == here)
        };
        snapshot.arcs_from(node).iter().find(shortest).map(|arc| arc.ix)
    };
    let next = snapshot.nodes().map(choose).collect();
    (distance, next)
}
