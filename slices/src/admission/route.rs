//! The best way that can be written down: through a slice's hooks in order, in at most
//! [`MAX_IDS`] ids, where between ids the fabric goes its own shortest path trees.
//!
//! First the best way whatever ids it takes, by Dijkstra over (node, hooks passed): nothing that
//! can be written down is better, and mostly it can be. Where it cannot, Dijkstra over (node,
//! hooks passed, ids used), where a step is either a whole stretch of a tree, or a hook on the
//! node. So bandwidth, compute node and ids are decided together, and the result is the best by
//! construction, not a path that then turns out to be unwritable. The second search looks at
//! every pair of nodes at worst: meant for up to a thousand switches.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use selvedge_topology::{Arc, ArcIx, Metric, NodeIx, Path, Snapshot};

use super::{MAX_HOOKS_IN_A_ROW, MAX_IDS, Network, Segment};

/// What an arc counts, or `None` when it must not be used.
pub(super) type Weight<'a> = &'a dyn Fn(&Arc) -> Option<u64>;

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
    if hooks.is_empty() {
        if from == to {
            return Some((Path::from_arcs(snapshot, from, Vec::new()), vec![Segment::Deliver]));
        }
        if by_metric == Some(forwarding.metric()) {
            let path = forwarding.tree(snapshot, to).path(snapshot, from)?;
            if path.arcs.iter().all(|arc| snapshot.arc(*arc).and_then(weight).is_some()) {
                return Some((path, vec![Segment::Node(to), Segment::Deliver]));
            }
        }
    }
    let written = if hooks.is_empty() {
        let path = shortest(snapshot, (from, to), weight)?;
        let mut segments: Vec<Segment> =
            ids(network, &path).into_iter().map(Segment::Node).collect();
        segments.push(Segment::Deliver);
        (segments.len() <= MAX_IDS).then_some((path, segments))
    } else {
        write(network, from, &unwritten(snapshot, (from, to), hooks, weight)?)
    };
    match written {
        Some(way) => Some(way),
        None => writable(network, (from, to), hooks, weight),
    }
}

/// [`unwritten`] where there are no hooks to go through: the same way.
pub(super) fn shortest(
    snapshot: &Snapshot,
    (from, to): (NodeIx, NodeIx),
    weight: Weight<'_>,
) -> Option<Path> {
    // By node: (weight, hops), and the arc by which it was come to.
    let mut best: Vec<((u64, u32), Option<ArcIx>)> =
        vec![((u64::MAX, u32::MAX), None); snapshot.len()];
    best[from.index()].0 = (0, 0);
    let mut heap = BinaryHeap::with_capacity(snapshot.len());
    heap.push(Reverse(((0, 0), from.0)));
    while let Some(Reverse((length, node))) = heap.pop() {
        let node = NodeIx(node);
        if best[node.index()].0 < length {
            continue;
        }
        if node == to {
            let (mut arcs, mut at) = (Vec::with_capacity(length.1 as usize), to);
            while let Some(arc) = best[at.index()].1 {
                arcs.push(arc);
                at = snapshot.arc(arc)?.from;
            }
            arcs.reverse();
            return Some(Path::from_arcs(snapshot, from, arcs));
        }
        for arc in snapshot.arcs_from(node) {
            let Some(more) = weight(arc) else { continue };
            let length = (length.0.saturating_add(more), length.1 + 1);
            let known = &mut best[arc.to.index()];
            if length < known.0 {
                *known = (length, Some(arc.ix));
                heap.push(Reverse((length, arc.to.0)));
            }
        }
    }
    None
}

/// A step of a way.
#[derive(Clone, Copy)]
enum Step {
    Arc(ArcIx),
    /// Through the next hook, on this node.
    Hook(NodeIx),
}

/// The best way, whether or not ids can say it.
fn unwritten(
    snapshot: &Snapshot,
    (from, to): (NodeIx, NodeIx),
    hooks: &[&[NodeIx]],
    weight: Weight<'_>,
) -> Option<Vec<Step>> {
    type Seen = Option<((u64, usize), Option<(Step, usize)>)>;
    const RUNS: usize = MAX_HOOKS_IN_A_ROW + 1;
    let stages = hooks.len() + 1;
    let index =
        |node: NodeIx, stage: usize, run: usize| (node.index() * stages + stage) * RUNS + run;
    let mut best: Vec<Seen> = vec![None; snapshot.len() * stages * RUNS];
    let start = index(from, 0, 0);
    best[start] = Some(((0, 0), None));
    let mut heap = BinaryHeap::from([Reverse(((0, 0), start))]);
    while let Some(Reverse((length, at))) = heap.pop() {
        if best[at].is_some_and(|(known, _)| known < length) {
            continue;
        }
        let (node, stage, run) = (at / (stages * RUNS), at / RUNS % stages, at % RUNS);
        let node = NodeIx(u32::try_from(node).expect("nodes are numbered in 32 bits"));
        if node == to && stage == hooks.len() {
            let (mut steps, mut at) = (Vec::new(), at);
            while let Some((step, before)) = best[at].and_then(|(_, came)| came) {
                steps.push(step);
                at = before;
            }
            steps.reverse();
            return Some(steps);
        }
        let mut reach = |to: usize, length: (u64, usize), step: Step| {
            let known = &mut best[to];
            if known.is_none_or(|(known, _)| length < known) {
                *known = Some((length, Some((step, at))));
                heap.push(Reverse((length, to)));
            }
        };
        if run < MAX_HOOKS_IN_A_ROW && hooks.get(stage).is_some_and(|on| on.contains(&node)) {
            reach(index(node, stage + 1, run + 1), length, Step::Hook(node));
        }
        for arc in snapshot.arcs_from(node) {
            let Some(more) = weight(arc) else { continue };
            let length = (length.0.saturating_add(more), length.1 + 1);
            reach(index(arc.to, stage, 0), length, Step::Arc(arc.ix));
        }
    }
    None
}

/// The fewest ids that lead this way; `None`: more than [`MAX_IDS`].
fn write(network: &Network<'_>, from: NodeIx, steps: &[Step]) -> Option<(Path, Vec<Segment>)> {
    let (mut arcs, mut segments, mut at) = (Vec::new(), Vec::new(), from);
    let mut hooks = 0;
    for step in steps.chunk_by(|a, b| matches!((a, b), (Step::Arc(_), Step::Arc(_)))) {
        match step[0] {
            Step::Hook(node) => {
                segments.push(Segment::Hook { index: hooks, node });
                hooks += 1;
            }
            Step::Arc(_) => {
                let stretch = step.iter().filter_map(|step| match step {
                    Step::Arc(arc) => Some(*arc),
                    Step::Hook(_) => None,
                });
                let path = Path::from_arcs(network.snapshot, at, stretch.collect());
                segments.extend(ids(network, &path).into_iter().map(Segment::Node));
                at = path.to();
                arcs.extend(path.arcs);
            }
        }
    }
    segments.push(Segment::Deliver);
    (segments.len() <= MAX_IDS).then(|| (Path::from_arcs(network.snapshot, from, arcs), segments))
}

/// The fewest nodes, one after the other, whose trees lead along this path.
fn ids(network: &Network<'_>, path: &Path) -> Vec<NodeIx> {
    // By position on the path: how many ids lead there, and from where the last one does.
    let mut fewest: Vec<(usize, usize)> = vec![(0, 0)];
    for (position, node) in path.nodes.iter().enumerate().skip(1) {
        let tree = network.forwarding.tree(network.snapshot, *node);
        // A tree leads along the path from some node on, and from all after it.
        let along = |before: &usize| tree.next(path.nodes[*before]) == Some(path.arcs[*before]);
        let starts = (0..position).rev().take_while(along);
        let best = starts.map(|start| (fewest[start].0.saturating_add(1), start)).min();
        fewest.push(best.unwrap_or((usize::MAX, position - 1)));
    }
    if fewest[path.arcs.len()].0 == usize::MAX {
        return vec![path.to(); MAX_IDS]; // a link that no tree uses
    }
    let (mut ids, mut at) = (Vec::new(), path.arcs.len());
    while at > 0 {
        ids.push(path.nodes[at]);
        at = fewest[at].1;
    }
    ids.reverse();
    ids
}

/// The best way of those that ids can say.
fn writable(
    network: &Network<'_>,
    (from, to): (NodeIx, NodeIx),
    hooks: &[&[NodeIx]],
    weight: Weight<'_>,
) -> Option<(Path, Vec<Segment>)> {
    let snapshot = network.snapshot;
    let mut weights: Vec<Option<u64>> = vec![None; snapshot.arc_slots()];
    for arc in snapshot.arcs() {
        weights[arc.ix.index()] = weight(arc);
    }
    let (stages, runs) = (hooks.len() + 1, hooks.len().min(MAX_HOOKS_IN_A_ROW) + 1);
    let index = |s: State| ((s.node.index() * stages + s.stage) * runs + s.run) * MAX_IDS + s.ids;
    let states = snapshot.len() * stages * runs * MAX_IDS;
    let mut best: Vec<Option<(Length, Option<State>)>> = vec![None; states];
    let mut done: Vec<Vec<(usize, usize)>> = vec![Vec::new(); snapshot.len() * stages];
    let start = State { node: from, stage: 0, run: 0, ids: 0 };
    let zero = Length { weight: 0, hops: 0, ids: 0 };
    best[index(start)] = Some((zero, None));
    let mut stretches = Stretches::new(network, &weights);
    let mut heap = BinaryHeap::from([Reverse((zero, start))]);
    while let Some(Reverse((length, state))) = heap.pop() {
        // What was here before was no longer; with no more ids and hooks in a row, it was better.
        let popped = &mut done[state.node.index() * stages + state.stage];
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
        for (node, &more) in (0..).map(NodeIx).zip(stretches.from(state.node)) {
            if more != NO_WAY && node != state.node {
                reach(State { node, stage: state.stage, run: 0, ids: state.ids + 1 }, more);
            }
        }
    }
    None
}

/// The length of the way that the fabric goes from each node to each other: (weight, hops).
/// 16 bytes a pair, for the starts that one search comes to.
struct Stretches<'a> {
    network: &'a Network<'a>,
    weights: &'a [Option<u64>],
    /// By start, then by destination; [`NO_WAY`] where an arc on the way must not be used. Empty
    /// until asked for.
    lengths: Vec<Vec<(u64, usize)>>,
}

const NO_WAY: (u64, usize) = (u64::MAX, usize::MAX);

impl<'a> Stretches<'a> {
    fn new(network: &'a Network<'a>, weights: &'a [Option<u64>]) -> Self {
        Self { network, weights, lengths: vec![Vec::new(); network.snapshot.len()] }
    }

    fn from(&mut self, start: NodeIx) -> &[(u64, usize)] {
        let (snapshot, forwarding) = (self.network.snapshot, self.network.forwarding);
        let length = |root| {
            let tree = forwarding.tree(snapshot, root);
            if !tree.reaches(start) {
                return NO_WAY;
            }
            let (mut sum, mut hops) = (0u64, 0);
            for arc in tree.walk(snapshot, start) {
                let Some(weight) = self.weights[arc.ix.index()] else { return NO_WAY };
                (sum, hops) = (sum.saturating_add(weight), hops + 1);
            }
            (sum, hops)
        };
        let known = &mut self.lengths[start.index()];
        if known.is_empty() {
            known.extend(snapshot.nodes().map(length));
        }
        known
    }
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
