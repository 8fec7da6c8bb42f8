//! The shortest path that keeps to its constraints, exactly: label setting, from the end to
//! the start, guided and pruned by the shortest lengths from the start.
//!
//! A label is a way from a node to the end: its length, delay and what it passes. Labels are
//! settled in the order of the whole path's least possible length, so the first that arrives is
//! shortest; one is dropped when another of its node is as good in everything, or when even the
//! fastest way from the start would break a bound. Delay bounds make the problem NP-hard in
//! general, but with delays in whole microseconds a node has as many labels at most as the bound
//! has microseconds; [`MAX_LABELS`] is where the search gives up with an error of its own,
//! never with "no path".
//!
//! Elements that have to be passed are bits of a label. The ways may then be drawn over a node
//! twice; when the best one is, those nodes are made bits too and the search is repeated
//! (decremental state space relaxation; Righini and Salani, Networks 51(3), 2008).

use crate::constraints::MAX_INCLUDES;
use crate::graph::Length;
use crate::heap::Heap;
use crate::sssp::{NONE, Scratch, descend, lengths_into};
use crate::{ArcIx, Constraints, Edge, Graph, Metric, NodeIx, Path};

/// Labels of one search: 40 bytes each.
pub const MAX_LABELS: usize = 2_000_000;
/// Bits of a label: elements to pass, and nodes not to pass twice.
const BITS: usize = 64;

/// A path asked for.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    pub from: NodeIx,
    pub to: NodeIx,
    /// What is to be least; then hops, then the names on the way.
    pub metric: Metric,
    pub constraints: &'a Constraints,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// There is none: [`crate::explain`] says why.
    #[error("no path keeps to the constraints")]
    NoPath,
    #[error(
        "the search was given up after {MAX_LABELS} partial paths: whether there is a path is not known"
    )]
    TooHard,
    #[error("a path is asked to pass {0} elements; at most {MAX_INCLUDES} can be")]
    TooManyIncludes(usize),
}

/// Memory of label searches.
#[derive(Clone, Debug, Default)]
pub(crate) struct Labels {
    all: Vec<Label>,
    /// By node: the last settled label and the least delay of those settled.
    head: Vec<u32>,
    least_delay: Vec<u64>,
    /// By arc.
    allowed: Vec<bool>,
    lengths: Vec<u64>,
    delays: Vec<u64>,
    hops: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Label {
    length: u64,
    delay_us: u64,
    passed: u64,
    node: u32,
    /// The label of the same node that was settled before.
    before: u32,
}

const NO_LABEL: u32 = u32::MAX;

/// Least lengths from the start to each node, under the query's constraints on arcs or fewer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds<'a> {
    pub(crate) lengths: &'a [u64],
    /// In microseconds above the hops, as [`Length`]; needed where delay is bounded.
    pub(crate) delays: &'a [u64],
    /// Needed where hops are bounded.
    pub(crate) hops: &'a [u64],
}

/// Which bit stands for what.
#[derive(Clone, Debug, Default)]
struct Bits {
    nodes: Vec<NodeIx>,
    links: Vec<crate::LinkIx>,
    srlgs: Vec<u32>,
    /// Nodes that must not be passed twice.
    critical: Vec<NodeIx>,
}

impl Bits {
    fn includes(&self) -> usize {
        self.nodes.len() + self.links.len() + self.srlgs.len()
    }

    /// The bits that stand for something to pass.
    fn wanted(&self) -> u64 {
        (1u64 << self.includes()) - 1
    }

    fn of_node(&self, node: NodeIx) -> u64 {
        let at = |list: &[NodeIx]| list.iter().position(|known| *known == node);
        let include = at(&self.nodes).map_or(0, |at| 1 << at);
        include | at(&self.critical).map_or(0, |at| 1 << (self.includes() + at))
    }

    fn of_arc(&self, graph: &Graph, arc: ArcIx) -> u64 {
        let link = arc.link();
        let at = self.links.iter().position(|known| *known == link);
        let bit = at.map_or(0, |at| 1 << (self.nodes.len() + at));
        let groups = self.srlgs.iter().enumerate();
        groups
            .filter(|(_, srlg)| graph.srlgs(link).contains(srlg))
            .fold(bit, |bits, (at, _)| bits | 1 << (self.nodes.len() + self.links.len() + at))
    }

    fn critical(&self) -> u64 {
        !self.wanted()
    }
}

/// The shortest path that keeps to the query's constraints, through no node twice.
///
/// Cost without bounds on delay or hops: one search by Dijkstra. With them a few more for
/// pruning, and the labels. Allocates only the path, once `scratch` has grown.
///
/// # Errors
/// See [`NotFound`].
pub fn cheapest(graph: &Graph, scratch: &mut Scratch, query: &Query<'_>) -> Result<Path, NotFound> {
    cheapest_where(graph, scratch, query, None)
}

/// The same without the arcs that `spare` refuses: it is asked of each arc once.
pub(crate) fn cheapest_where(
    graph: &Graph,
    scratch: &mut Scratch,
    query: &Query<'_>,
    spare: Option<&dyn Fn(ArcIx) -> bool>,
) -> Result<Path, NotFound> {
    let mut labels = std::mem::take(&mut scratch.labels);
    let found = prepared(graph, &mut scratch.heap, &mut labels, query, spare);
    scratch.labels = labels;
    found
}

/// The same with bounds that are known already; every arc that is up may be used.
pub(crate) fn cheapest_within(
    graph: &Graph,
    scratch: &mut Scratch,
    query: &Query<'_>,
    bounds: &Bounds<'_>,
) -> Result<Path, NotFound> {
    debug_assert!(query.constraints.allow_all_arcs() && query.constraints.include.is_empty());
    let mut labels = std::mem::take(&mut scratch.labels);
    let everything = |_: &Edge| true;
    let found =
        search(graph, &mut scratch.heap, &mut labels, query, bounds, &Bits::default(), everything);
    scratch.labels = labels;
    found
}

fn prepared(
    graph: &Graph,
    heap: &mut Heap,
    labels: &mut Labels,
    query: &Query<'_>,
    spare: Option<&dyn Fn(ArcIx) -> bool>,
) -> Result<Path, NotFound> {
    let Query { from, to, constraints, .. } = *query;
    if constraints.include.len() > MAX_INCLUDES {
        return Err(NotFound::TooManyIncludes(constraints.include.len()));
    }
    let mut allowed = std::mem::take(&mut labels.allowed);
    allowed.clear();
    if spare.is_some() || !constraints.allow_all_arcs() {
        allowed.resize(graph.arc_slots(), false);
        for node in graph.nodes() {
            for edge in graph.out(node) {
                allowed[edge.arc.index()] = constraints.allows(graph, (from, to), edge)
                    && spare.is_none_or(|spare| spare(edge.arc));
            }
        }
    }
    let usable = |edge: &Edge| allowed.get(edge.arc.index()).copied().unwrap_or(true);
    let found = bounded(graph, heap, labels, query, &usable);
    labels.allowed = allowed;
    found
}

fn bounded(
    graph: &Graph,
    heap: &mut Heap,
    labels: &mut Labels,
    query: &Query<'_>,
    usable: &impl Fn(&Edge) -> bool,
) -> Result<Path, NotFound> {
    let Query { from, to, metric, constraints } = *query;
    let simple = constraints.include.is_empty();
    let (mut lengths, mut delays, mut hops) = (
        std::mem::take(&mut labels.lengths),
        std::mem::take(&mut labels.delays),
        std::mem::take(&mut labels.hops),
    );
    let found = (|| {
        if simple {
            // Most shortest paths keep to the bounds as they are.
            lengths_into(graph, heap, to, metric, true, usable, &mut lengths);
            let path = descend(graph, &lengths, metric, from, usable).ok_or(NotFound::NoPath)?;
            if keeps(graph, &path, constraints) {
                return Ok(path);
            }
        }
        lengths_into(graph, heap, from, metric, false, usable, &mut lengths);
        if lengths[to.index()] == NONE {
            return Err(NotFound::NoPath);
        }
        if let Some(most) = constraints.max_delay {
            lengths_into(graph, heap, from, Metric::Delay, false, usable, &mut delays);
            if Length(delays[to.index()]).sum() > most.us() {
                return Err(NotFound::NoPath);
            }
        }
        if let Some(most) = constraints.max_hops {
            lengths_into(graph, heap, from, Metric::Hops, false, usable, &mut hops);
            if Length(hops[to.index()]).hops() > most {
                return Err(NotFound::NoPath);
            }
        }
        let bounds = Bounds { lengths: &lengths, delays: &delays, hops: &hops };
        let include = &constraints.include;
        let mut bits = Bits {
            nodes: include.nodes.iter().copied().collect(),
            links: include.links.iter().copied().collect(),
            srlgs: include.srlgs.iter().copied().collect(),
            critical: Vec::new(),
        };
        loop {
            let path = search(graph, heap, labels, query, &bounds, &bits, usable)?;
            let mut seen = path.nodes.clone();
            seen.sort_unstable();
            let mut twice: Vec<NodeIx> =
                seen.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
            if twice.is_empty() {
                return Ok(path);
            }
            twice.dedup();
            bits.critical.extend(twice);
            if bits.includes() + bits.critical.len() > BITS - 1 {
                return Err(NotFound::TooHard);
            }
        }
    })();
    (labels.lengths, labels.delays, labels.hops) = (lengths, delays, hops);
    found
}

/// Whether a path keeps to the bounds on its whole.
pub(crate) fn keeps(graph: &Graph, path: &Path, constraints: &Constraints) -> bool {
    let delay = || graph.length(path, Metric::Delay).sum();
    constraints.max_delay.is_none_or(|most| delay() <= most.us())
        && constraints.max_hops.is_none_or(|most| path.arcs.len() <= most as usize)
}

fn search(
    graph: &Graph,
    heap: &mut Heap,
    labels: &mut Labels,
    query: &Query<'_>,
    bounds: &Bounds<'_>,
    bits: &Bits,
    usable: impl Fn(&Edge) -> bool,
) -> Result<Path, NotFound> {
    let Query { from, to, metric, constraints } = *query;
    let max_delay = constraints.max_delay.map(crate::Delay::us);
    let most_hops = constraints.max_hops.unwrap_or(u32::MAX);
    // With one of these a label has to be compared with all of its node.
    let many = constraints.max_hops.is_some() || bits.includes() > 0;
    labels.begin(graph.len());
    let start = bits.of_node(to);
    let first = Label { length: 0, delay_us: 0, passed: start, node: to.0, before: NO_LABEL };
    heap.clear();
    if bounds.lengths[to.index()] != NONE {
        labels.all.push(first);
        heap.push(bounds.lengths[to.index()], 0);
    }
    let mut best = NONE;
    while let Some((key, at)) = heap.pop() {
        if key > best {
            break;
        }
        let label = labels.all[at as usize];
        let node = label.node as usize;
        if labels.is_dominated(&label, many, bits, most_hops) {
            continue;
        }
        if label.node == from.0 {
            if label.passed & bits.wanted() == bits.wanted() {
                best = best.min(label.length);
            } else {
                continue;
            }
        }
        labels.all[at as usize].before = labels.head[node];
        labels.head[node] = at;
        labels.least_delay[node] = labels.least_delay[node].min(label.delay_us);
        if label.node == from.0 {
            continue;
        }
        for edge in graph.into(NodeIx(label.node)) {
            let before = edge.node.index();
            let rest = bounds.lengths[before];
            if !edge.is_up() || rest == NONE || edge.node == to || !usable(edge) {
                continue;
            }
            let delay_us = if max_delay.is_some() { label.delay_us + edge.delay_us() } else { 0 };
            if let Some(most) = max_delay
                && Length(bounds.delays[before]).sum() + delay_us > most
            {
                continue;
            }
            let length = label.length + edge.length(metric);
            let so_far = Length(length).hops();
            if constraints.max_hops.is_some()
                && Length(bounds.hops[before]).hops() + so_far > most_hops
            {
                continue;
            }
            let passed = bits.of_node(edge.node);
            if passed & label.passed & bits.critical() != 0 {
                continue;
            }
            let passed = passed | label.passed | bits.of_arc(graph, edge.arc);
            let longer = Label { length, delay_us, passed, node: edge.node.0, before: NO_LABEL };
            if !many && labels.least_delay[before] <= delay_us {
                continue;
            }
            if labels.all.len() >= MAX_LABELS {
                return Err(NotFound::TooHard);
            }
            heap.push(length + rest, u32::try_from(labels.all.len()).expect("labels are limited"));
            labels.all.push(longer);
        }
    }
    if best == NONE {
        return Err(NotFound::NoPath);
    }
    Ok(labels.first_by_name(graph, query, bits, best, usable))
}

impl Labels {
    fn begin(&mut self, nodes: usize) {
        self.all.clear();
        self.head.clear();
        self.head.resize(nodes, NO_LABEL);
        self.least_delay.clear();
        self.least_delay.resize(nodes, NONE);
    }

    fn settled(&self, node: usize) -> impl Iterator<Item = &Label> {
        let mut at = self.head[node];
        std::iter::from_fn(move || {
            let label = self.all.get(at as usize)?;
            at = label.before;
            Some(label)
        })
    }

    /// Settled labels of a node are no longer than one that comes later.
    fn is_dominated(&self, label: &Label, many: bool, bits: &Bits, most_hops: u32) -> bool {
        let node = label.node as usize;
        if self.least_delay[node] > label.delay_us {
            return false;
        }
        let better = |other: &Label| {
            let more = label.passed & !other.passed & bits.wanted();
            let fewer = other.passed & !label.passed & bits.critical();
            let hops = Length(other.length).hops() <= Length(label.length).hops();
            other.delay_us <= label.delay_us
                && more == 0
                && (bits.includes() == 0 || fewer == 0)
                && (most_hops == u32::MAX || hops)
        };
        !many || self.settled(node).any(better)
    }

    /// Of all paths of length `best`, that whose arcs come first.
    fn first_by_name(
        &self,
        graph: &Graph,
        query: &Query<'_>,
        bits: &Bits,
        best: u64,
        usable: impl Fn(&Edge) -> bool,
    ) -> Path {
        let Query { from, to, metric, constraints } = *query;
        let (mut at, mut arcs) = (from, Vec::new());
        let mut length = best;
        let mut delay_us = constraints.max_delay.map_or(0, crate::Delay::us);
        let mut passed = bits.of_node(from);
        while at != to || length > 0 {
            let edge = graph.out(at).iter().find(|edge| {
                let weight = if edge.is_up() { edge.length(metric) } else { NONE };
                let delay = if constraints.max_delay.is_some() { edge.delay_us() } else { 0 };
                let here = passed | bits.of_arc(graph, edge.arc);
                let leads = |label: &Label| {
                    label.length == length - weight
                        && label.delay_us <= delay_us - delay
                        && (here | label.passed) & bits.wanted() == bits.wanted()
                        && here & label.passed & bits.critical() == 0
                };
                weight <= length
                    && delay <= delay_us
                    && usable(edge)
                    && self.settled(edge.node.index()).any(leads)
            });
            let edge = edge.expect("a settled label has a settled label after it");
            passed |= bits.of_arc(graph, edge.arc) | bits.of_node(edge.node);
            length -= edge.length(metric);
            if constraints.max_delay.is_some() {
                delay_us -= edge.delay_us();
            }
            arcs.push(edge.arc);
            at = edge.node;
        }
        graph.path(from, arcs)
    }
}
