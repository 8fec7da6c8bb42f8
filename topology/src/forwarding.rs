//! What the fabric does by itself: every switch sends a packet for node N along the shortest
//! path tree towards N. A path that differs is spelled out as way-points of that forwarding.

use std::sync::OnceLock;

use crate::heap::Heap;
use crate::sssp::{choose, lengths_into};
use crate::{Arc, ArcIx, Metric, NodeIx, Path, Snapshot};

/// The way from every switch to one of them: 4 bytes a switch, so that all trees of the largest
/// network are 64 MiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    root: NodeIx,
    /// `NONE` at the root and where the root cannot be reached.
    next: Vec<u32>,
}

pub(crate) const NONE: u32 = u32::MAX;

impl Tree {
    pub fn toward(snapshot: &Snapshot, root: NodeIx, metric: Metric) -> Self {
        let graph = snapshot.graph();
        let (mut heap, mut lengths) = (Heap::default(), Vec::new());
        lengths_into(graph, &mut heap, root, metric, true, |_| true, &mut lengths);
        let next = |node| choose(graph, &lengths, metric, node, |_| true);
        let next = graph.nodes().map(|node| next(node).map_or(NONE, ArcIx::raw)).collect();
        Self { root, next }
    }

    pub fn root(&self) -> NodeIx {
        self.root
    }

    /// The arc that `node` sends on; `None` at the root and where the root cannot be reached.
    pub fn next(&self, node: NodeIx) -> Option<ArcIx> {
        Some(self.next[node.index()]).filter(|&raw| raw != NONE).map(ArcIx::from_raw)
    }

    pub fn reaches(&self, node: NodeIx) -> bool {
        node == self.root || self.next(node).is_some()
    }

    /// The arcs from `node` to the root, in order; none where the root cannot be reached.
    pub fn walk<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        node: NodeIx,
    ) -> impl Iterator<Item = &'a Arc> + 'a {
        let mut at = node;
        std::iter::from_fn(move || {
            let arc = snapshot.arc(self.next(at)?)?;
            at = arc.to;
            Some(arc)
        })
    }

    /// The whole way from `node` to the root.
    pub fn path(&self, snapshot: &Snapshot, node: NodeIx) -> Option<Path> {
        let arcs = self.walk(snapshot, node).map(|arc| arc.ix).collect();
        self.reaches(node).then(|| Path::from_arcs(snapshot, node, arcs))
    }
}

/// The trees towards all nodes, each computed when first asked for. Ties go by name, so every
/// instance for the same network forwards alike.
#[derive(Clone, Debug)]
pub struct Forwarding {
    metric: Metric,
    trees: Vec<OnceLock<Tree>>,
}

impl Forwarding {
    /// The metric that switches forward by.
    pub const METRIC: Metric = Metric::Cost;

    pub fn new(snapshot: &Snapshot) -> Self {
        Self::with_metric(snapshot, Self::METRIC)
    }

    pub fn with_metric(snapshot: &Snapshot, metric: Metric) -> Self {
        Self { metric, trees: vec![OnceLock::new(); snapshot.len()] }
    }

    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// `snapshot` must be the one this was made for.
    pub fn tree(&self, snapshot: &Snapshot, root: NodeIx) -> &Tree {
        self.trees[root.index()].get_or_init(|| Tree::toward(snapshot, root, self.metric))
    }
}
