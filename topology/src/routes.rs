//! The trees towards all nodes, kept as links fail and come back.
//!
//! After a failure only the nodes whose way went over the link are looked at, tree by tree
//! (Ramalingam and Reps, Journal of Algorithms 21(2), 1996); what comes out is what computing
//! anew would give, since a choice by length and then by name does not depend on what was not
//! chosen.

use crate::forwarding::NONE as NO_ARC;
use crate::heap::Heap;
use crate::sssp::{NONE, choose, lengths_into};
use crate::{ArcIx, Graph, Length, LinkIx, Metric, NodeIx, Path};

/// A node's way to a root has changed: (root, node).
pub(crate) type Change = (NodeIx, NodeIx);

/// The way from every node to every other: 12 bytes a pair, 200 MB for the largest network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes {
    graph: Graph,
    metric: Metric,
    /// By root, then by node.
    lengths: Vec<u64>,
    next: Vec<u32>,
    /// No link is longer one way than the other, so lengths to a node are those from it.
    symmetric: bool,
}

/// One tree, to be changed.
struct Row<'a> {
    root: NodeIx,
    lengths: &'a mut [u64],
    next: &'a mut [u32],
}

/// Memory of the repair of trees.
#[derive(Default)]
struct Work {
    heap: Heap,
    affected: Vec<NodeIx>,
    is_affected: Vec<bool>,
}

impl Routes {
    /// Every tree, on so many threads.
    pub fn new(graph: Graph, metric: Metric, threads: usize) -> Self {
        let nodes = graph.len();
        let (lengths, next) = (vec![NONE; nodes * nodes], vec![NO_ARC; nodes * nodes]);
        let symmetric = graph.is_symmetric(metric);
        let mut routes = Self { graph, metric, lengths, next, symmetric };
        routes.each(threads, |graph, row, work, _| {
            let mut lengths = Vec::new();
            lengths_into(graph, &mut work.heap, row.root, metric, true, |_| true, &mut lengths);
            row.lengths.copy_from_slice(&lengths);
            for node in graph.nodes() {
                let arc = choose(graph, &lengths, metric, node, |_| true);
                row.next[node.index()] = arc.map_or(NO_ARC, ArcIx::raw);
            }
        });
        routes
    }

    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// The arc that `node` sends on towards `root`; `None` at the root and where it cannot be
    /// reached.
    #[inline]
    pub fn next(&self, root: NodeIx, node: NodeIx) -> Option<ArcIx> {
        let raw = self.next[root.index() * self.graph.len() + node.index()];
        (raw != NO_ARC).then(|| ArcIx::from_raw(raw))
    }

    /// [`Length::NONE`] where there is no way.
    #[inline]
    pub fn length(&self, root: NodeIx, node: NodeIx) -> Length {
        Length(self.lengths[root.index() * self.graph.len() + node.index()])
    }

    /// Lengths to `root`, by node.
    pub(crate) fn lengths(&self, root: NodeIx) -> &[u64] {
        let nodes = self.graph.len();
        &self.lengths[root.index() * nodes..][..nodes]
    }

    /// Lengths from `node` to each, by node; in `memory` where they have to be gathered.
    pub(crate) fn lengths_from<'a>(&'a self, node: NodeIx, memory: &'a mut Vec<u64>) -> &'a [u64] {
        if self.symmetric {
            return self.lengths(node);
        }
        memory.clear();
        memory.extend(self.graph.nodes().map(|root| self.length(root, node).0));
        memory
    }

    /// The way from `node` to `root`.
    pub fn path(&self, node: NodeIx, root: NodeIx) -> Option<Path> {
        if self.length(root, node).is_none() {
            return None;
        }
        let (mut at, mut arcs) = (node, Vec::new());
        while let Some(arc) = self.next(root, at) {
            arcs.push(arc);
            at = self.graph.edge(arc).node;
        }
        Some(self.graph.path(node, arcs))
    }

    /// The fewest way-points from position `start` of a path to its end, as
    /// [`crate::encode_segments`], or the hop that no way-point leads over.
    pub(crate) fn waypoints(&self, path: &Path, start: usize) -> Result<Vec<NodeIx>, usize> {
        let follows = |hop: usize, end: usize| {
            self.next(path.nodes[end], path.nodes[hop]) == Some(path.arcs[hop])
        };
        let found = crate::encode::waypoints(start, path.arcs.len(), follows)?;
        Ok(found.into_iter().map(|position| path.nodes[position]).collect())
    }

    /// Whether [`Self::waypoints`] may now give others than `known`, after a change of the trees
    /// that `changed` tells by root; `up` when a link came back. Looks at a word a way-point
    /// when one failed: a stretch that does not use it stays what it is.
    pub(crate) fn may_differ(
        &self,
        path: &Path,
        start: usize,
        known: Option<&[NodeIx]>,
        changed: &[bool],
        up: bool,
    ) -> bool {
        let Some(known) = known else {
            return path.nodes[start..].iter().any(|node| changed[node.index()]);
        };
        let mut at = start;
        for waypoint in known {
            let rest = path.nodes[at + 1..].iter().position(|node| node == waypoint);
            let Some(rest) = rest else { return true };
            let end = at + 1 + rest;
            let still = |hop: usize| self.next(*waypoint, path.nodes[hop]) == Some(path.arcs[hop]);
            if up && changed[waypoint.index()] && !(at..end).all(still) {
                return true;
            }
            // The next node may be within reach, for which the first hop has to be right.
            if let Some(beyond) = path.nodes.get(end + 1)
                && changed[beyond.index()]
                && self.next(*beyond, path.nodes[at]) == Some(path.arcs[at])
            {
                return true;
            }
            at = end;
        }
        false
    }

    /// Takes a link out of use, in both directions. Returns what changed, by root.
    pub(crate) fn fail(&mut self, link: LinkIx, threads: usize) -> Vec<Change> {
        if !self.graph.is_up(link) {
            return Vec::new();
        }
        self.graph.set_up(link, false);
        let metric = self.metric;
        self.each(threads, |graph, row, work, changes| {
            if let Some((a, b)) = graph.ends(ArcIx::new(link, true)) {
                let over =
                    |node: NodeIx, forth| row.next[node.index()] == ArcIx::new(link, forth).raw();
                // A tree takes a link one way at most.
                let cut = if over(a, true) { a } else { b };
                if cut == a || over(b, false) {
                    work.detach(graph, &row, cut);
                    work.attach(graph, row, metric, changes);
                }
            }
        })
    }

    /// Puts a link back into use. Returns what changed, by root.
    pub(crate) fn restore(&mut self, link: LinkIx, threads: usize) -> Vec<Change> {
        if self.graph.is_up(link) {
            return Vec::new();
        }
        self.graph.set_up(link, true);
        let metric = self.metric;
        self.each(threads, |graph, row, work, changes| {
            if graph.ends(ArcIx::new(link, true)).is_some() {
                work.improve(graph, row, metric, link, changes);
            }
        })
    }

    /// Runs `work` on every tree, and gathers what it reports.
    fn each(
        &mut self,
        threads: usize,
        work: impl Fn(&Graph, Row<'_>, &mut Work, &mut Vec<Change>) + Sync,
    ) -> Vec<Change> {
        let nodes = self.graph.len();
        let rows = nodes.div_ceil(threads.max(1)).max(1);
        let graph = &self.graph;
        let parts = self.lengths.chunks_mut(rows * nodes).zip(self.next.chunks_mut(rows * nodes));
        let part = |at: usize, lengths: &mut [u64], next: &mut [u32]| {
            let mut memory = Work { is_affected: vec![false; nodes], ..Work::default() };
            let mut changes = Vec::new();
            let both = lengths.chunks_mut(nodes).zip(next.chunks_mut(nodes));
            for (i, (lengths, next)) in both.enumerate() {
                let root = NodeIx(u32::try_from(at * rows + i).expect("nodes are limited"));
                work(graph, Row { root, lengths, next }, &mut memory, &mut changes);
            }
            changes
        };
        std::thread::scope(|scope| {
            let mut parts = parts.enumerate();
            let Some((first, (lengths, next))) = parts.next() else { return Vec::new() };
            let others: Vec<_> = parts
                .map(|(at, (lengths, next))| {
                    let part = &part;
                    scope.spawn(move || part(at, lengths, next))
                })
                .collect();
            let mut changes = part(first, lengths, next);
            for other in others {
                match other.join() {
                    Ok(more) => changes.extend(more),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            changes
        })
    }
}

impl Work {
    /// Gathers `cut` and all nodes whose way goes over it.
    fn detach(&mut self, graph: &Graph, row: &Row<'_>, cut: NodeIx) {
        self.affected.clear();
        self.affected.push(cut);
        self.is_affected[cut.index()] = true;
        let mut at = 0;
        while let Some(&node) = self.affected.get(at) {
            at += 1;
            for edge in graph.into(node) {
                if row.next[edge.node.index()] == edge.arc.raw()
                    && !self.is_affected[edge.node.index()]
                {
                    self.is_affected[edge.node.index()] = true;
                    self.affected.push(edge.node);
                }
            }
        }
    }

    /// New ways for the nodes gathered, from those that are not affected.
    fn attach(&mut self, graph: &Graph, row: Row<'_>, metric: Metric, changes: &mut Vec<Change>) {
        self.heap.clear();
        for &node in &self.affected {
            let mut best = NONE;
            for edge in graph.out(node) {
                let rest = row.lengths[edge.node.index()];
                if edge.is_up() && !self.is_affected[edge.node.index()] && rest != NONE {
                    best = best.min(rest + edge.length(metric));
                }
            }
            row.lengths[node.index()] = best;
            if best != NONE {
                self.heap.push(best, node.0);
            }
        }
        while let Some((length, node)) = self.heap.pop() {
            if length > row.lengths[node as usize] {
                continue;
            }
            for edge in graph.into(NodeIx(node)) {
                let at = edge.node.index();
                if edge.is_up() && self.is_affected[at] {
                    let candidate = length + edge.length(metric);
                    if candidate < row.lengths[at] {
                        row.lengths[at] = candidate;
                        self.heap.push(candidate, edge.node.0);
                    }
                }
            }
        }
        for node in self.affected.drain(..) {
            self.is_affected[node.index()] = false;
            let arc = choose(graph, row.lengths, metric, node, |_| true).map_or(NO_ARC, ArcIx::raw);
            if std::mem::replace(&mut row.next[node.index()], arc) != arc {
                changes.push((row.root, node));
            }
        }
    }

    /// Shorter ways over a link that came back, and equal ones that come first by name.
    fn improve(
        &mut self,
        graph: &Graph,
        row: Row<'_>,
        metric: Metric,
        link: LinkIx,
        changes: &mut Vec<Change>,
    ) {
        self.heap.clear();
        self.affected.clear();
        for arc in [ArcIx::new(link, true), ArcIx::new(link, false)] {
            let (from, edge) = (graph.start(arc), graph.edge(arc));
            let rest = row.lengths[edge.node.index()];
            if rest == NONE {
                continue;
            }
            let candidate = rest + edge.length(metric);
            if candidate <= row.lengths[from.index()] && !self.is_affected[from.index()] {
                self.is_affected[from.index()] = true;
                self.affected.push(from);
            }
            if candidate < row.lengths[from.index()] {
                row.lengths[from.index()] = candidate;
                self.heap.push(candidate, from.0);
            }
        }
        while let Some((length, node)) = self.heap.pop() {
            if length > row.lengths[node as usize] {
                continue;
            }
            for edge in graph.into(NodeIx(node)).iter().filter(|edge| edge.is_up()) {
                let at = edge.node.index();
                let candidate = length + edge.length(metric);
                // An equal way may come first by name.
                if candidate <= row.lengths[at] && !self.is_affected[at] {
                    self.is_affected[at] = true;
                    self.affected.push(edge.node);
                }
                if candidate < row.lengths[at] {
                    row.lengths[at] = candidate;
                    self.heap.push(candidate, edge.node.0);
                }
            }
        }
        for node in self.affected.drain(..) {
            self.is_affected[node.index()] = false;
            let arc = choose(graph, row.lengths, metric, node, |_| true).map_or(NO_ARC, ArcIx::raw);
            if std::mem::replace(&mut row.next[node.index()], arc) != arc {
                changes.push((row.root, node));
            }
        }
    }
}
