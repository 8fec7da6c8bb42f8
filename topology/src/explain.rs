//! Why there is no path: which constraint to relax, and by how much.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::constrained::{NotFound, Query, cheapest};
use crate::constraints::{Constraints, Elements, Kind};
use crate::graph::Figures;
use crate::sssp::Scratch;
use crate::{ArcIx, BitRate, Delay, Edge, Graph, LinkIx, Metric, NodeIx, Path, Snapshot};

/// Why a query has no answer. Built only after the search itself has found none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoPath {
    pub from: NodeIx,
    pub to: NodeIx,
    /// No path even without any constraint: so many nodes can be reached from `from`, itself
    /// included.
    pub disconnected: Option<usize>,
    /// Each is enough on its own; in it, everything has to be relaxed. Those of one relaxation
    /// say the least that is enough; those of several say what one path needs. Empty when
    /// disconnected.
    pub alternatives: Vec<Vec<Relaxation>>,
}

/// A constraint as it would have to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Relaxation {
    MaxDelay {
        asked: Delay,
        needed: Delay,
    },
    MaxHops {
        asked: u32,
        needed: u32,
    },
    /// `bottleneck` is the first arc that has no more.
    Bandwidth {
        asked: BitRate,
        available: BitRate,
        bottleneck: ArcIx,
    },
    /// These links lack the affinity and would have to be let in; the fewest.
    Affinity {
        links: Vec<LinkIx>,
    },
    /// These, excluded, would have to be let in. The path passes the fewest excluded arcs.
    Exclude {
        elements: Elements,
    },
    /// These would have to be given up. One if one is enough.
    Include {
        elements: Elements,
    },
}

/// Why `query` has no answer. Takes up to some tens of searches: not for a hot path.
///
/// # Errors
/// When a search is given up before it can tell ([`NotFound::TooHard`]).
pub fn explain(
    graph: &Graph,
    scratch: &mut Scratch,
    query: &Query<'_>,
) -> Result<NoPath, NotFound> {
    let Query { from, to, .. } = *query;
    let mut no_path = NoPath { from, to, disconnected: None, alternatives: Vec::new() };
    let none = Constraints::default();
    if found(graph, scratch, &Query { constraints: &none, ..*query })?.is_none() {
        no_path.disconnected = Some(reachable(graph, from));
        return Ok(no_path);
    }
    let kinds: Vec<Kind> = query.constraints.kinds().collect();
    for kind in &kinds {
        no_path.alternatives.extend(alone(graph, scratch, query, *kind)?.map(|one| vec![one]));
    }
    // Sets of kinds, by size: subsets of at most six.
    for size in 2..=kinds.len() {
        if !no_path.alternatives.is_empty() {
            break;
        }
        for set in 0u32..1 << kinds.len() {
            if set.count_ones() as usize != size {
                continue;
            }
            let dropped: Vec<Kind> = kinds
                .iter()
                .enumerate()
                .filter(|(i, _)| set & 1 << i != 0)
                .map(|(_, k)| *k)
                .collect();
            let rest = dropped.iter().fold(query.constraints.clone(), |c, kind| c.without(*kind));
            if let Some(path) = found(graph, scratch, &Query { constraints: &rest, ..*query })? {
                let needed = |kind: &Kind| needed(graph, query, *kind, &path);
                no_path.alternatives.push(dropped.iter().filter_map(needed).collect());
            }
        }
    }
    Ok(no_path)
}

fn found(
    graph: &Graph,
    scratch: &mut Scratch,
    query: &Query<'_>,
) -> Result<Option<Path>, NotFound> {
    match cheapest(graph, scratch, query) {
        Ok(path) => Ok(Some(path)),
        Err(NotFound::NoPath) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The least relaxation of one kind that is enough.
fn alone(
    graph: &Graph,
    scratch: &mut Scratch,
    query: &Query<'_>,
    kind: Kind,
) -> Result<Option<Relaxation>, NotFound> {
    let rest = query.constraints.clone().without(kind);
    let query_of = |metric| Query { metric, constraints: &rest, ..*query };
    let path = match kind {
        Kind::Delay => found(graph, scratch, &query_of(Metric::Delay))?,
        Kind::Hops => found(graph, scratch, &query_of(Metric::Hops))?,
        Kind::Bandwidth => widest(graph, scratch, query)?,
        Kind::Affinity => {
            let fits = |edge: &Edge| query.constraints.has_affinity(graph, edge);
            found(&weighed(graph, fits), scratch, &query_of(Metric::Cost))?
        }
        Kind::Exclude => {
            let ends = (query.from, query.to);
            let fits = |edge: &Edge| query.constraints.spares(graph, ends, edge);
            found(&weighed(graph, fits), scratch, &query_of(Metric::Cost))?
        }
        Kind::Include => return give_up(graph, scratch, query),
    };
    Ok(path.and_then(|path| needed(graph, query, kind, &path)))
}

/// What a path that breaks constraints of a kind needs of it; `None`: it keeps to them.
fn needed(graph: &Graph, query: &Query<'_>, kind: Kind, path: &Path) -> Option<Relaxation> {
    let (constraints, totals) = (query.constraints, graph.totals(path));
    let ends = (query.from, query.to);
    let edges = || path.arcs.iter().map(|&arc| graph.edge(arc));
    match kind {
        Kind::Delay => {
            let (asked, needed) = (constraints.max_delay?, totals.delay);
            (needed > asked).then_some(Relaxation::MaxDelay { asked, needed })
        }
        Kind::Hops => {
            let (asked, needed) = (constraints.max_hops?, totals.hops);
            (needed > asked).then_some(Relaxation::MaxHops { asked, needed })
        }
        Kind::Bandwidth => {
            let (asked, (bottleneck, available)) = (constraints.bandwidth?, totals.bottleneck?);
            let relaxation = Relaxation::Bandwidth { asked, available, bottleneck };
            (available < asked).then_some(relaxation)
        }
        Kind::Affinity => {
            let lacking = edges().filter(|edge| !constraints.has_affinity(graph, edge));
            let links: Vec<LinkIx> = lacking.map(|edge| edge.arc.link()).collect();
            (!links.is_empty()).then_some(Relaxation::Affinity { links })
        }
        Kind::Exclude => {
            let exclude = &constraints.exclude;
            let mut elements = Elements::default();
            for edge in edges().filter(|edge| !constraints.spares(graph, ends, edge)) {
                let link = edge.arc.link();
                elements.links.extend(exclude.links.get(&link));
                let groups = graph.srlgs(link).iter().filter(|srlg| exclude.srlgs.contains(srlg));
                elements.srlgs.extend(groups);
            }
            let inner = path.nodes.iter().filter(|node| **node != ends.0 && **node != ends.1);
            elements.nodes.extend(inner.filter(|node| exclude.nodes.contains(node)));
            (!elements.is_empty()).then_some(Relaxation::Exclude { elements })
        }
        Kind::Include => {
            let include = &constraints.include;
            let nodes: BTreeSet<NodeIx> = path.nodes.iter().copied().collect();
            let links: BTreeSet<LinkIx> = path.arcs.iter().map(|arc| arc.link()).collect();
            let groups: BTreeSet<u32> =
                links.iter().flat_map(|link| graph.srlgs(*link)).copied().collect();
            let elements = Elements {
                nodes: include.nodes.difference(&nodes).copied().collect(),
                links: include.links.difference(&links).copied().collect(),
                srlgs: include.srlgs.difference(&groups).copied().collect(),
            };
            (!elements.is_empty()).then_some(Relaxation::Include { elements })
        }
    }
}

/// The path of most capacity under everything but the bandwidth: as many searches as it takes
/// to halve the capacities there are.
fn widest(
    graph: &Graph,
    scratch: &mut Scratch,
    query: &Query<'_>,
) -> Result<Option<Path>, NotFound> {
    let asked = query.constraints.bandwidth;
    let stated = graph.arcs().filter_map(|arc| graph.figures(arc).capacity);
    let capacities: BTreeSet<BitRate> =
        stated.filter(|c| asked.is_none_or(|asked| *c < asked)).collect();
    let capacities: Vec<BitRate> = capacities.into_iter().collect();
    let mut at_least = |rate: Option<BitRate>| {
        let constraints = Constraints { bandwidth: rate, ..query.constraints.clone() };
        found(graph, scratch, &Query { constraints: &constraints, ..*query })
    };
    let mut best = at_least(None)?;
    let (mut low, mut high) = (0, capacities.len());
    while best.is_some() && low < high {
        let middle = low.midpoint(high);
        match at_least(Some(capacities[middle]))? {
            Some(path) => {
                best = Some(path);
                low = middle + 1;
            }
            None => high = middle,
        }
    }
    Ok(best)
}

/// The graph where an arc that does not fit costs more than any path of arcs that do.
fn weighed(graph: &Graph, fits: impl Fn(&Edge) -> bool) -> Graph {
    let mut weighed = graph.clone();
    for node in graph.nodes() {
        for edge in graph.out(node) {
            let cost = if fits(edge) { 1 } else { 1 << 17 };
            weighed.set_figures(edge.arc, Figures { cost, ..*graph.figures(edge.arc) });
        }
    }
    weighed
}

/// One element that a path cannot pass, if giving up one is enough; otherwise what the best
/// path without any of them does not pass.
fn give_up(
    graph: &Graph,
    scratch: &mut Scratch,
    query: &Query<'_>,
) -> Result<Option<Relaxation>, NotFound> {
    let include = &query.constraints.include;
    let nodes =
        include.nodes.iter().map(|node| Elements { nodes: [*node].into(), ..Elements::default() });
    let links =
        include.links.iter().map(|link| Elements { links: [*link].into(), ..Elements::default() });
    let srlgs =
        include.srlgs.iter().map(|srlg| Elements { srlgs: [*srlg].into(), ..Elements::default() });
    for elements in nodes.chain(links).chain(srlgs) {
        let mut constraints = query.constraints.clone();
        constraints.include.nodes.retain(|node| !elements.nodes.contains(node));
        constraints.include.links.retain(|link| !elements.links.contains(link));
        constraints.include.srlgs.retain(|srlg| !elements.srlgs.contains(srlg));
        if found(graph, scratch, &Query { constraints: &constraints, ..*query })?.is_some() {
            return Ok(Some(Relaxation::Include { elements }));
        }
    }
    let constraints = query.constraints.clone().without(Kind::Include);
    let path = found(graph, scratch, &Query { constraints: &constraints, ..*query })?;
    Ok(path.and_then(|path| needed(graph, query, Kind::Include, &path)))
}

/// Nodes that can be reached, the first included.
pub(crate) fn reachable(graph: &Graph, from: NodeIx) -> usize {
    let mut seen = vec![false; graph.len()];
    seen[from.index()] = true;
    let mut stack = vec![from];
    while let Some(node) = stack.pop() {
        for edge in graph.out(node).iter().filter(|edge| edge.is_up()) {
            if !std::mem::replace(&mut seen[edge.node.index()], true) {
                stack.push(edge.node);
            }
        }
    }
    seen.iter().filter(|&&seen| seen).count()
}

impl NoPath {
    /// For people, with the snapshot's names.
    pub fn describe(&self, snapshot: &Snapshot) -> String {
        let (from, to) = (snapshot.name(self.from), snapshot.name(self.to));
        if let Some(reached) = self.disconnected {
            let switches = snapshot.len();
            return format!(
                "{from} and {to} are not connected: from {from} one reaches {reached} of {switches} \
                 switches"
            );
        }
        let mut text = format!("no path from {from} to {to} keeps to the constraints");
        for (i, alternative) in self.alternatives.iter().enumerate() {
            let all: Vec<String> = alternative.iter().map(|one| one.describe(snapshot)).collect();
            let so = if i == 0 { "; there is one" } else { ", or" };
            write!(text, "{so} {}", all.join(" and ")).expect("strings take all");
        }
        text
    }
}

impl Relaxation {
    /// As in "there is one ...".
    pub fn describe(&self, snapshot: &Snapshot) -> String {
        let named = |elements: &Elements| elements.describe(snapshot);
        match self {
            Self::MaxDelay { asked, needed } => {
                let more = Delay(needed.us() - asked.us());
                format!("with a delay of {needed} ({more} more than asked)")
            }
            Self::MaxHops { asked, needed } => {
                format!("with {needed} hops ({} more than asked)", needed - asked)
            }
            Self::Bandwidth { asked, available, bottleneck } => {
                let less = BitRate(asked.bps() - available.bps());
                let link = snapshot.link(bottleneck.link());
                format!("with {available} ({less} less than asked; the bottleneck is {link})")
            }
            Self::Affinity { links } => {
                let links: Vec<String> =
                    links.iter().map(|link| snapshot.link(*link).to_string()).collect();
                format!("if these links had the affinity: {}", links.join(", "))
            }
            Self::Exclude { elements } => format!("over what is excluded: {}", named(elements)),
            Self::Include { elements } => format!("without passing {}", named(elements)),
        }
    }
}

impl Elements {
    /// For people, with the snapshot's names.
    pub fn describe(&self, snapshot: &Snapshot) -> String {
        let nodes = self.nodes.iter().map(|node| snapshot.name(*node).to_string());
        let links = self.links.iter().map(|link| snapshot.link(*link).to_string());
        let srlgs = self.srlgs.iter().map(|srlg| format!("shared-risk group {srlg}"));
        nodes.chain(links).chain(srlgs).collect::<Vec<_>>().join(", ")
    }
}
