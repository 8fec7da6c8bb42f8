//! Shortest paths between one node and all others, and between two nodes.
//!
//! Every search works in a [`Scratch`] that is kept between queries: once it has grown to the
//! graph's size nothing is allocated. Of equal paths that of the fewest hops is taken, then at
//! each node the first arc of [`Graph::out`]: first by the neighbor's name, then by link. So a
//! stretch of a shortest path is itself the shortest path between its ends, and taking away a
//! link that a path does not use never changes that path.

use crate::graph::Length;
use crate::heap::Heap;
use crate::{ArcIx, Edge, Graph, Metric, NodeIx, Path};

pub(crate) const NONE: u64 = Length::NONE.0;

/// Memory of searches, of any graph; grows to the largest.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    pub(crate) heap: Heap,
    /// By node: valid where `stamp` is `now`.
    length: Vec<u64>,
    stamp: Vec<u32>,
    /// By node, for marks: valid where it is `now`.
    mark: Vec<u32>,
    /// By node: valid where `clear_stamp` is `now`.
    clear: Vec<bool>,
    clear_stamp: Vec<u32>,
    now: u32,
    pub(crate) stack: Vec<u32>,
    pub(crate) labels: crate::constrained::Labels,
}

impl Scratch {
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn begin(&mut self, nodes: usize) {
        if self.stamp.len() < nodes {
            self.length.resize(nodes, NONE);
            self.stamp.resize(nodes, 0);
            self.mark.resize(nodes, 0);
            self.clear.resize(nodes, false);
            self.clear_stamp.resize(nodes, 0);
        }
        self.now = self.now.checked_add(1).unwrap_or_else(|| {
            self.stamp.fill(0);
            self.mark.fill(0);
            self.clear_stamp.fill(0);
            1
        });
        self.heap.clear();
    }

    #[inline]
    pub(crate) fn known(&self, node: usize) -> u64 {
        if self.stamp[node] == self.now { self.length[node] } else { NONE }
    }

    #[inline]
    pub(crate) fn set(&mut self, node: usize, length: u64) {
        self.stamp[node] = self.now;
        self.length[node] = length;
    }
}

impl Scratch {
    #[inline]
    pub(crate) fn is_marked(&self, node: NodeIx) -> bool {
        self.mark[node.index()] == self.now
    }

    /// Whether it was not marked before.
    #[inline]
    pub(crate) fn mark(&mut self, node: NodeIx) -> bool {
        std::mem::replace(&mut self.mark[node.index()], self.now) != self.now
    }

    #[inline]
    pub(crate) fn clear(&self, node: NodeIx) -> Option<bool> {
        (self.clear_stamp[node.index()] == self.now).then(|| self.clear[node.index()])
    }

    #[inline]
    pub(crate) fn set_clear(&mut self, node: NodeIx, clear: bool) {
        self.clear_stamp[node.index()] = self.now;
        self.clear[node.index()] = clear;
    }
}

/// Lengths of the shortest paths from every node to `root` (`toward`), or from `root` to every
/// node, into `lengths`, by node; [`Length::NONE`]'s value where there is none. Arcs that
/// `usable` refuses, and links that are down, are not used.
///
/// Cost: `O((nodes + links) log nodes)`; allocates nothing once `lengths` and `heap` have grown.
pub(crate) fn lengths_into(
    graph: &Graph,
    heap: &mut Heap,
    root: NodeIx,
    metric: Metric,
    toward: bool,
    usable: impl Fn(&Edge) -> bool,
    lengths: &mut Vec<u64>,
) {
    lengths.clear();
    lengths.resize(graph.len(), NONE);
    lengths[root.index()] = 0;
    heap.clear();
    heap.push(0, root.0);
    while let Some((length, node)) = heap.pop() {
        if length > lengths[node as usize] {
            continue;
        }
        let edges = if toward { graph.into(NodeIx(node)) } else { graph.out(NodeIx(node)) };
        for edge in edges {
            if !edge.is_up() || !usable(edge) {
                continue;
            }
            let candidate = length + edge.length(metric);
            let known = &mut lengths[edge.node.index()];
            if candidate < *known {
                *known = candidate;
                heap.push(candidate, edge.node.0);
            }
        }
    }
}

/// The arc that `node` takes towards the node that `lengths` are lengths to.
#[inline]
pub(crate) fn choose(
    graph: &Graph,
    lengths: &[u64],
    metric: Metric,
    node: NodeIx,
    usable: impl Fn(&Edge) -> bool,
) -> Option<ArcIx> {
    let here = lengths[node.index()];
    if here == 0 || here == NONE {
        return None;
    }
    let shortest = |edge: &&Edge| {
        let there = lengths[edge.node.index()];
        edge.is_up() && there != NONE && there + edge.length(metric) == here && usable(edge)
    };
    graph.out(node).iter().find(shortest).map(|edge| edge.arc)
}

/// The path from `from` to the node that `lengths` are lengths to.
pub(crate) fn descend(
    graph: &Graph,
    lengths: &[u64],
    metric: Metric,
    from: NodeIx,
    usable: impl Fn(&Edge) -> bool,
) -> Option<Path> {
    if lengths[from.index()] == NONE {
        return None;
    }
    let (mut at, mut arcs) = (from, Vec::new());
    while let Some(arc) = choose(graph, lengths, metric, at, &usable) {
        at = graph.edge(arc).node;
        arcs.push(arc);
    }
    Some(graph.path(from, arcs))
}

/// The shortest path from `from` to `to`, appended to `arcs`, and its length.
///
/// A* search: `bound` says for a node a length that no path from it to `to` undercuts and that
/// falls along no arc by more than the arc's length, such as that of the shortest path in a graph
/// with more links; the result does not depend on it. The path must not end where it starts.
pub(crate) fn point_to_point(
    graph: &Graph,
    scratch: &mut Scratch,
    (from, to): (NodeIx, NodeIx),
    metric: Metric,
    bound: impl Fn(NodeIx) -> u64,
    usable: impl Fn(&Edge) -> bool,
    arcs: &mut Vec<ArcIx>,
) -> Option<Length> {
    scratch.begin(graph.len());
    let estimate = bound(from);
    if estimate == NONE {
        return None;
    }
    scratch.set(from.index(), 0);
    scratch.heap.push(estimate, from.0);
    let mut best = NONE;
    while let Some((key, node)) = scratch.heap.pop() {
        // Everything on an equally short path has to be settled for the choice by name.
        if key > best {
            break;
        }
        let length = scratch.known(node as usize);
        if node == to.0 {
            best = best.min(length);
            continue;
        }
        if key > length + bound(NodeIx(node)) {
            continue;
        }
        for edge in graph.out(NodeIx(node)) {
            if !edge.is_up() || !usable(edge) {
                continue;
            }
            let candidate = length + edge.length(metric);
            if candidate < scratch.known(edge.node.index()) {
                let rest = bound(edge.node);
                if rest != NONE {
                    scratch.set(edge.node.index(), candidate);
                    scratch.heap.push(candidate + rest, edge.node.0);
                }
            }
        }
    }
    if best == NONE {
        return None;
    }
    // Marks what lies on shortest paths, from the end; then takes the first arc at each node.
    scratch.mark[to.index()] = scratch.now;
    scratch.stack.clear();
    scratch.stack.push(to.0);
    while let Some(node) = scratch.stack.pop() {
        let here = scratch.known(node as usize);
        for edge in graph.into(NodeIx(node)) {
            let at = edge.node.index();
            let there = scratch.known(at);
            let on_a_path = edge.is_up()
                && there != NONE
                && there + edge.length(metric) == here
                && scratch.mark[at] != scratch.now;
            if on_a_path {
                // `into` edges tell `usable` the other end, so ask by the edge as it leaves.
                let leaving = graph.edge(edge.arc);
                if usable(leaving) {
                    scratch.mark[at] = scratch.now;
                    scratch.stack.push(edge.node.0);
                }
            }
        }
    }
    let mut at = from;
    while at != to {
        let here = scratch.known(at.index());
        let edge = graph.out(at).iter().find(|edge| {
            let next = edge.node.index();
            edge.is_up()
                && scratch.mark[next] == scratch.now
                && scratch.known(next) == here + edge.length(metric)
                && usable(edge)
        });
        let edge = edge.expect("a marked node has a marked successor");
        arcs.push(edge.arc);
        at = edge.node;
    }
    Some(Length(best))
}

/// Every arc on a shortest path from each node to one: the equal-cost multipath sets of a
/// destination. By node, in [`Graph::out`]'s order; the first of a set is not always what
/// [`crate::Tree`] takes, which of equal costs wants the fewest hops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EqualCost {
    first: Vec<u32>,
    arcs: Vec<ArcIx>,
}

impl EqualCost {
    /// Towards `root` by the metric alone: paths of equal sums are equal, whatever their hops.
    pub fn toward(graph: &Graph, root: NodeIx, metric: Metric) -> Self {
        let mut lengths = Vec::new();
        let all = |_: &Edge| true;
        lengths_into(graph, &mut Heap::default(), root, metric, true, all, &mut lengths);
        let sum = |node: NodeIx| Length(lengths[node.index()]);
        let (mut first, mut arcs) = (vec![0], Vec::new());
        for node in graph.nodes() {
            let here = sum(node);
            for edge in graph.out(node) {
                let there = sum(edge.node);
                let weight = Length(edge.length(metric)).sum();
                // A weight of 0 leads nowhere nearer: of those only what saves a hop, or loops.
                let nearer = weight > 0 || there.hops() < here.hops();
                if edge.is_up()
                    && node != root
                    && !there.is_none()
                    && !here.is_none()
                    && nearer
                    && there.sum() + weight == here.sum()
                {
                    arcs.push(edge.arc);
                }
            }
            first.push(u32::try_from(arcs.len()).expect("arcs are limited"));
        }
        Self { first, arcs }
    }

    /// None at the root and where the root cannot be reached.
    pub fn next(&self, node: NodeIx) -> &[ArcIx] {
        let at = node.index();
        &self.arcs[self.first[at] as usize..self.first[at + 1] as usize]
    }
}

/// Lengths of the shortest paths from `root` to every node, by node.
pub fn lengths_from(
    graph: &Graph,
    scratch: &mut Scratch,
    root: NodeIx,
    metric: Metric,
) -> Vec<Length> {
    let mut lengths = Vec::new();
    lengths_into(graph, &mut scratch.heap, root, metric, false, |_| true, &mut lengths);
    lengths.into_iter().map(Length).collect()
}
