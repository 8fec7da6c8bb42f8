//! A path, and what it is shortest by.

use crate::{Arc, ArcIx, BitRate, Delay, NodeIx, Snapshot};

/// What a path is shortest by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// The links' `cost`; [`crate::DEFAULT_COST`] where none is stated.
    Cost,
    /// The links' `delay`; 0 where none is stated.
    Delay,
    /// 1 each.
    Hops,
}

impl Metric {
    pub fn of(self, arc: &Arc) -> u64 {
        match self {
            Self::Cost => u64::from(arc.cost),
            Self::Delay => arc.delay.map_or(0, Delay::us),
            Self::Hops => 1,
        }
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
