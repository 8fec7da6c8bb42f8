//! The shortest path around a failure, with the trees of before at hand.
//!
//! A node whose way to the end does not touch what failed keeps that way, and its length is
//! known. So the search goes on only among nodes whose way does, and ends at the best way out
//! of them.

use crate::sssp::{NONE, Scratch};
use crate::{ArcIx, Edge, LinkIx, NodeIx, Routes};

/// What has failed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failed {
    Link(LinkIx),
    Node(NodeIx),
}

impl Failed {
    #[inline]
    fn touches(self, edge: &Edge) -> bool {
        match self {
            Self::Link(link) => edge.arc.link() == link,
            Self::Node(node) => edge.node == node,
        }
    }
}

/// The arcs of the shortest path from one node to another, that of first names among equals;
/// neither has failed, and a link that has is one of the first's to the second.
pub(crate) fn detour(
    routes: &Routes,
    scratch: &mut Scratch,
    (from, to): (NodeIx, NodeIx),
    failed: Failed,
) -> Option<Vec<ArcIx>> {
    let (graph, metric) = (routes.graph(), routes.metric());
    // Never longer than with what failed still there.
    let bounds = routes.lengths(to);
    if bounds[from.index()] == NONE {
        return None;
    }
    scratch.begin(graph.len());
    scratch.stack.clear();
    scratch.set(from.index(), 0);
    let mut best = NONE;
    // Every way over what failed passes this node.
    let via = match failed {
        Failed::Link(_) => from,
        Failed::Node(node) => node,
    };
    if is_clear(routes, scratch, from, (via, to), failed) {
        return routes.path(from, to).map(|path| path.arcs);
    }
    scratch.heap.push(bounds[from.index()], from.0);
    // Nodes where ways leave to clear ones, the best so far.
    let mut exits: Vec<NodeIx> = Vec::new();
    while let Some((key, node)) = scratch.heap.pop() {
        // Equal ones have to be settled for the choice by name.
        if key > best {
            break;
        }
        let length = scratch.known(node as usize);
        if key > length + bounds[node as usize] {
            continue;
        }
        for edge in graph.out(NodeIx(node)) {
            if !edge.is_up() || failed.touches(edge) {
                continue;
            }
            let candidate = length + edge.length(metric);
            let total = candidate + bounds[edge.node.index()];
            if total > best || candidate >= scratch.known(edge.node.index()) {
                continue;
            }
            scratch.set(edge.node.index(), candidate);
            if is_clear(routes, scratch, edge.node, (via, to), failed) {
                if total < best {
                    best = total;
                    exits.clear();
                }
                exits.push(edge.node);
            } else {
                scratch.heap.push(total, edge.node.0);
            }
        }
    }
    if best == NONE {
        return None;
    }
    // Marks what lies on shortest paths, from where they leave; then takes the first arc.
    for exit in exits {
        if scratch.known(exit.index()) + bounds[exit.index()] == best && scratch.mark(exit) {
            scratch.stack.push(exit.0);
        }
    }
    while let Some(node) = scratch.stack.pop() {
        let here = scratch.known(node as usize);
        for edge in graph.into(NodeIx(node)) {
            let there = scratch.known(edge.node.index());
            let leads = edge.is_up()
                && there != NONE
                && there + edge.length(metric) == here
                && scratch.clear(edge.node) == Some(false)
                && !failed.touches(graph.edge(edge.arc));
            if leads && scratch.mark(edge.node) {
                scratch.stack.push(edge.node.0);
            }
        }
    }
    let (mut at, mut arcs) = (from, Vec::new());
    while scratch.clear(at) == Some(false) {
        let here = scratch.known(at.index());
        let edge = graph.out(at).iter().find(|edge| {
            edge.is_up()
                && scratch.is_marked(edge.node)
                && scratch.known(edge.node.index()) == here + edge.length(metric)
                && !failed.touches(edge)
        });
        let edge = edge.expect("a marked node has a marked successor");
        arcs.push(edge.arc);
        at = edge.node;
    }
    while let Some(arc) = routes.next(to, at) {
        arcs.push(arc);
        at = graph.edge(arc).node;
    }
    Some(arcs)
}

/// Whether a node's way to the end is there still; remembered for all nodes on it.
fn is_clear(
    routes: &Routes,
    scratch: &mut Scratch,
    node: NodeIx,
    (via, to): (NodeIx, NodeIx),
    failed: Failed,
) -> bool {
    let graph = routes.graph();
    if let Some(known) = scratch.clear(node) {
        return known;
    }
    // A way through what failed is as long as its two parts; most are told by that.
    let lengths = routes.lengths(to);
    if routes.lengths(via)[node.index()].saturating_add(lengths[via.index()])
        != lengths[node.index()]
    {
        scratch.set_clear(node, true);
        return true;
    }
    let mut at = node;
    let clear = loop {
        if let Some(known) = scratch.clear(at) {
            break known;
        }
        if at == to {
            break true;
        }
        let Some(arc) = routes.next(to, at) else { break false };
        let edge = graph.edge(arc);
        if failed.touches(edge) {
            break false;
        }
        at = edge.node;
    };
    let last = at;
    scratch.set_clear(last, clear);
    at = node;
    while at != last {
        scratch.set_clear(at, clear);
        let arc = routes.next(to, at).expect("walked above");
        at = graph.edge(arc).node;
    }
    clear
}
