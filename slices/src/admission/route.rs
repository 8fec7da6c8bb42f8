//! The best way that can be written down: through a slice's hooks in order, in at most
//! [`MAX_IDS`] ids, where between ids the fabric goes its own shortest path trees.
//!
//! Dijkstra over (node, hooks passed, ids used): a step is either a whole stretch of a tree, or
//! a hook on the node. So bandwidth, compute node and ids are decided together, and the result
//! is the best by construction, not a path that then turns out to be unwritable. It looks at
//! every pair of nodes at worst: meant for up to a thousand switches.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use selvedge_topology::{ArcIx, Metric, NodeIx, Path, Snapshot};

use super::{MAX_HOOKS_IN_A_ROW, MAX_IDS, Network, Segment};

/// What an arc counts, or `None` when it must not be used.
pub(super) type Weight<'a> = &'a dyn Fn(ArcIx) -> Option<u64>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    node: NodeIx,
    /// Hooks passed.
    stage: usize,
    /// Hooks passed on this node since arriving.
    run: usize,
    ids: usize,
}

/// Of equal ways, that of fewer hops, then of fewer ids, then of first names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Length {
    weight: u64,
    hops: usize,
    ids: usize,
}

/// `hooks[i]`: the nodes that hook `i` can run on. `by_metric`: the weights are those of the
/// fabric's own metric, so its tree, where usable, is the best way.
pub(super) fn best(
    network: &Network<'_>,
    (from, to): (NodeIx, NodeIx),
    hooks: &[&[NodeIx]],
    weight: Weight<'_>,
    by_metric: Option<Metric>,
) -> Option<(Path, Vec<Segment>)> {
    let (snapshot, forwarding) = (network.snapshot, network.forwarding);
    let mut weights: Vec<Option<u64>> = vec![None; snapshot.arc_slots()];
    for arc in snapshot.arcs() {
        weights[arc.ix.index()] = weight(arc.ix);
    }
    if hooks.is_empty() {
        if from == to {
            return Some((Path::from_arcs(snapshot, from, Vec::new()), vec![Segment::Deliver]));
        }
        let path = forwarding.tree(snapshot, to).path(snapshot, from)?;
        let usable = path.arcs.iter().all(|arc| weights[arc.index()].is_some());
        if usable && by_metric == Some(forwarding.metric()) {
            return Some((path, vec![Segment::Node(to), Segment::Deliver]));
        }
    }
    if !connected(snapshot, from, to, &weights) {
        return None; // found out cheaply, without every tree
    }

    let index = |s: State| {
        let stages = hooks.len() + 1;
        ((s.node.index() * stages + s.stage) * (MAX_HOOKS_IN_A_ROW + 1) + s.run) * MAX_IDS + s.ids
    };
    let states = snapshot.len() * (hooks.len() + 1) * (MAX_HOOKS_IN_A_ROW + 1) * MAX_IDS;
    let mut best: Vec<Option<(Length, Option<State>)>> = vec![None; states];
    let mut done: Vec<Vec<(usize, usize)>> = vec![Vec::new(); snapshot.len() * (hooks.len() + 1)];
    let start = State { node: from, stage: 0, run: 0, ids: 0 };
    let zero = Length { weight: 0, hops: 0, ids: 0 };
    best[index(start)] = Some((zero, None));
    let stretches = Stretches::new(network, &weights);
    let mut heap = BinaryHeap::from([Reverse((zero, start))]);
    while let Some(Reverse((length, state))) = heap.pop() {
        // What was here before was no longer; with no more ids and hooks in a row, it was better.
        let popped = &mut done[state.node.index() * (hooks.len() + 1) + state.stage];
        if popped.iter().any(|&(run, ids)| run <= state.run && ids <= state.ids) {
            continue;
        }
        popped.push((state.run, state.ids));
        if state.node == to && state.stage == hooks.len() {
            let came = |state: State| best[index(state)].and_then(|(_, came)| came);
            return Some(written(network, from, state, came));
        }
        if state.ids + 1 >= MAX_IDS {
            continue; // the last id is for delivery
        }
        let mut reach = |to: State, (more, hops): (u64, usize)| {
            let weight = length.weight.saturating_add(more);
            let candidate = Length { weight, hops: length.hops + hops, ids: to.ids };
            let known = &mut best[index(to)];
            if known.is_none_or(|(known, _)| candidate < known) {
                *known = Some((candidate, Some(state)));
                heap.push(Reverse((candidate, to)));
            }
        };
        let here = hooks.get(state.stage).is_some_and(|nodes| nodes.contains(&state.node));
        if here && state.run < MAX_HOOKS_IN_A_ROW {
            let (stage, run, ids) = (state.stage + 1, state.run + 1, state.ids + 1);
            reach(State { stage, run, ids, ..state }, (0, 0));
        }
        for node in snapshot.nodes().filter(|node| *node != state.node) {
            let Some(more) = stretches.get(state.node, node) else { continue };
            reach(State { node, stage: state.stage, run: 0, ids: state.ids + 1 }, more);
        }
    }
    None
}

/// The length of the way that the fabric goes from each node to each other: (weight, hops).
/// 16 bytes a pair, for the time of one search.
struct Stretches {
    nodes: usize,
    /// By destination, then by start; [`NO_WAY`] where an arc on the way must not be used.
    lengths: Vec<(u64, usize)>,
}

const NO_WAY: (u64, usize) = (u64::MAX, usize::MAX);

impl Stretches {
    fn new(network: &Network<'_>, weights: &[Option<u64>]) -> Self {
        let (snapshot, forwarding) = (network.snapshot, network.forwarding);
        let nodes = snapshot.len();
        let mut lengths = vec![NO_WAY; nodes * nodes];
        let mut on_the_way = Vec::new();
        for root in snapshot.nodes() {
            let tree = forwarding.tree(snapshot, root);
            let lengths = &mut lengths[root.index() * nodes..][..nodes];
            let mut known = vec![false; nodes];
            known[root.index()] = true;
            lengths[root.index()] = (0, 0);
            for start in snapshot.nodes() {
                // Down the tree to where it is known, and back.
                let mut at = start;
                while !known[at.index()] {
                    known[at.index()] = true;
                    let Some(arc) = tree.next(at).and_then(|arc| snapshot.arc(arc)) else { break };
                    on_the_way.push(arc);
                    at = arc.to;
                }
                for arc in on_the_way.drain(..).rev() {
                    let (sum, hops) = lengths[arc.to.index()];
                    let longer = weights[arc.ix.index()].filter(|_| hops != usize::MAX);
                    lengths[arc.from.index()] =
                        longer.map_or(NO_WAY, |weight| (sum.saturating_add(weight), hops + 1));
                }
            }
        }
        Self { nodes, lengths }
    }

    fn get(&self, from: NodeIx, to: NodeIx) -> Option<(u64, usize)> {
        Some(self.lengths[to.index() * self.nodes + from.index()]).filter(|way| *way != NO_WAY)
    }
}

/// Whether usable arcs lead from one node to the other at all.
fn connected(snapshot: &Snapshot, from: NodeIx, to: NodeIx, weights: &[Option<u64>]) -> bool {
    let mut seen = vec![false; snapshot.len()];
    seen[from.index()] = true;
    let mut stack = vec![from];
    while let Some(node) = stack.pop() {
        for arc in snapshot.arcs_from(node) {
            let usable = weights[arc.ix.index()].is_some();
            if usable && !std::mem::replace(&mut seen[arc.to.index()], true) {
                stack.push(arc.to);
            }
        }
    }
    seen[to.index()]
}

/// The path and ids that lead to `last`.
fn written(
    network: &Network<'_>,
    from: NodeIx,
    last: State,
    came: impl Fn(State) -> Option<State>,
) -> (Path, Vec<Segment>) {
    let mut states = vec![last];
    while let Some(before) = came(states[states.len() - 1]) {
        states.push(before);
    }
    states.reverse();
    let (mut arcs, mut segments) = (Vec::new(), Vec::new());
    for step in states.windows(2) {
        let (before, after) = (step[0], step[1]);
        if after.stage > before.stage {
            segments.push(Segment::Hook { index: before.stage, node: before.node });
        } else {
            let tree = network.forwarding.tree(network.snapshot, after.node);
            arcs.extend(tree.walk(network.snapshot, before.node).map(|arc| arc.ix));
            segments.push(Segment::Node(after.node));
        }
    }
    segments.push(Segment::Deliver);
    (Path::from_arcs(network.snapshot, from, arcs), segments)
}
