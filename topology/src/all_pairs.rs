//! Shortest lengths between all pairs of nodes.
//!
//! Real networks are nearly trees: nodes can be taken away one after the other, each with few
//! neighbors left, which are joined instead by links as long as the ways over it. Put back in
//! reverse order, a node's lengths to all others are the least over those few neighbors, and
//! a row of the matrix is a sum and a minimum of a few rows: no queue, and as fast as memory
//! (Planken, de Weerdt, van der Krogt: Computing All-Pairs Shortest Paths by Leveraging Low
//! Treewidth, JAIR 43, 2012). Where a node would have more than [`MAX_WIDTH`] neighbors left,
//! it is Dijkstra from each node instead, on as many threads as allowed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::graph::Length;
use crate::heap::Heap;
use crate::sssp::{NONE, lengths_into};
use crate::{Graph, Metric, NodeIx};

/// Neighbors of a node as it is taken away.
const MAX_WIDTH: usize = 96;

/// Lengths from every node to every node, by a metric's sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllPairs {
    nodes: usize,
    cells: Cells,
}

/// Row-major by the node where paths start. 4 or 8 bytes a pair: 64 or 128 MiB for the largest
/// network.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cells {
    /// No path is as long as 2^30.
    Narrow(Vec<i32>),
    Wide(Vec<i64>),
}

impl AllPairs {
    /// `threads` at least 1; used where the graph is not nearly a tree.
    ///
    /// # Panics
    /// When `threads` is 0.
    pub fn new(graph: &Graph, metric: Metric, threads: usize) -> Self {
        assert!(threads > 0, "somebody has to do it");
        let nodes = graph.len();
        let edges = graph.nodes().flat_map(|node| graph.out(node)).filter(|edge| edge.is_up());
        let longest = edges.map(|edge| Length(edge.length(metric)).sum()).max().unwrap_or(0);
        let narrow = longest.saturating_mul(nodes as u64) < 1 << 30;
        let cells = match eliminate(graph, metric) {
            Some(steps) if narrow => Cells::Narrow(fill(nodes, &steps)),
            Some(steps) => Cells::Wide(fill(nodes, &steps)),
            None => Cells::Wide(by_dijkstra(graph, metric, threads)),
        };
        Self { nodes, cells }
    }

    /// The metric's sum along the shortest path; `None` when there is none.
    pub fn length(&self, from: NodeIx, to: NodeIx) -> Option<u64> {
        let at = from.index() * self.nodes + to.index();
        match &self.cells {
            Cells::Narrow(cells) => Some(cells[at]).filter(|c| *c < i32::FAR).map(i64::from),
            Cells::Wide(cells) => Some(cells[at]).filter(|c| *c < i64::FAR),
        }
        .map(i64::cast_unsigned)
    }
}

trait Cell: Copy + Ord + std::ops::Add<Output = Self> {
    /// No path. Twice as much still fits.
    const FAR: Self;
    const ZERO: Self;
    fn of(length: i64) -> Self;
}

impl Cell for i32 {
    const FAR: Self = 1 << 30;
    const ZERO: Self = 0;
    fn of(length: i64) -> Self {
        Self::try_from(length).unwrap_or(Self::FAR).min(Self::FAR)
    }
}

impl Cell for i64 {
    const FAR: Self = 1 << 62;
    const ZERO: Self = 0;
    fn of(length: i64) -> Self {
        length
    }
}

/// A node as it is taken away, and the neighbors left to it.
struct Step {
    node: u32,
    neighbors: Vec<Neighbor>,
}

#[derive(Clone, Copy)]
struct Neighbor {
    node: u32,
    /// To the neighbor, and back.
    there: i64,
    back: i64,
}

/// All nodes, those of the fewest neighbors first.
fn eliminate(graph: &Graph, metric: Metric) -> Option<Vec<Step>> {
    let mut around: Vec<Vec<Neighbor>> = graph
        .nodes()
        .map(|node| {
            let mut neighbors: Vec<Neighbor> = Vec::new();
            for (out, into) in graph.out(node).iter().zip(graph.into(node)) {
                let weight = |edge: &crate::Edge| {
                    let sum = || Length(edge.length(metric)).sum().cast_signed();
                    if edge.is_up() { sum() } else { i64::FAR }
                };
                join(&mut neighbors, out.node.0, weight(out), i64::FAR);
                join(&mut neighbors, into.node.0, i64::FAR, weight(into));
            }
            neighbors
        })
        .collect();
    let mut queue: BinaryHeap<Reverse<(usize, u32)>> =
        (0..).zip(&around).map(|(node, neighbors)| Reverse((neighbors.len(), node))).collect();
    let mut gone = vec![false; around.len()];
    let mut steps = Vec::with_capacity(around.len());
    while let Some(Reverse((degree, node))) = queue.pop() {
        if gone[node as usize] || degree != around[node as usize].len() {
            continue;
        }
        if degree > MAX_WIDTH {
            return None;
        }
        gone[node as usize] = true;
        let neighbors = std::mem::take(&mut around[node as usize]);
        for neighbor in &neighbors {
            let list = &mut around[neighbor.node as usize];
            list.retain(|other| other.node != node);
            for other in neighbors.iter().filter(|other| other.node != neighbor.node) {
                let (there, back) = (neighbor.back + other.there, other.back + neighbor.there);
                join(list, other.node, there.min(i64::FAR), back.min(i64::FAR));
            }
            queue.push(Reverse((list.len(), neighbor.node)));
        }
        steps.push(Step { node, neighbors });
    }
    Some(steps)
}

fn join(list: &mut Vec<Neighbor>, node: u32, there: i64, back: i64) {
    match list.iter_mut().find(|known| known.node == node) {
        Some(known) => {
            known.there = known.there.min(there);
            known.back = known.back.min(back);
        }
        None => list.push(Neighbor { node, there, back }),
    }
}

fn fill<C: Cell>(nodes: usize, steps: &[Step]) -> Vec<C> {
    let mut cells = vec![C::FAR; nodes * nodes];
    let mut row = vec![C::FAR; nodes];
    let mut column = vec![C::FAR; nodes];
    let mut neighbors = steps.iter().flat_map(|step| &step.neighbors);
    let symmetric = neighbors.all(|neighbor| neighbor.there == neighbor.back);
    for step in steps.iter().rev() {
        row.fill(C::FAR);
        for neighbor in &step.neighbors {
            let there = C::of(neighbor.there);
            let from = &cells[neighbor.node as usize * nodes..][..nodes];
            for (least, rest) in row.iter_mut().zip(from) {
                *least = (*least).min(there + *rest);
            }
        }
        if symmetric {
            column.copy_from_slice(&row);
        } else {
            for (start, least) in column.iter_mut().enumerate() {
                let over = step.neighbors.iter().map(|neighbor| {
                    cells[start * nodes + neighbor.node as usize] + C::of(neighbor.back)
                });
                *least = over.min().unwrap_or(C::FAR).min(C::FAR);
            }
        }
        let at = step.node as usize;
        row[at] = C::ZERO;
        for (start, least) in column.iter().enumerate() {
            cells[start * nodes + at] = *least;
        }
        cells[at * nodes..][..nodes].copy_from_slice(&row);
    }
    cells
}

fn by_dijkstra(graph: &Graph, metric: Metric, threads: usize) -> Vec<i64> {
    let nodes = graph.len();
    let mut cells = vec![i64::FAR; nodes * nodes];
    let rows = nodes.div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        for (part, cells) in cells.chunks_mut(rows * nodes).enumerate() {
            scope.spawn(move || {
                let (mut heap, mut lengths) = (Heap::default(), Vec::new());
                for (at, row) in cells.chunks_mut(nodes).enumerate() {
                    let root = NodeIx(u32::try_from(part * rows + at).expect("nodes are limited"));
                    lengths_into(graph, &mut heap, root, metric, false, |_| true, &mut lengths);
                    for (cell, &length) in row.iter_mut().zip(&lengths) {
                        let sum = Length(length).sum().cast_signed();
                        *cell = if length == NONE { i64::FAR } else { sum };
                    }
                }
            });
        }
    });
    cells
}
