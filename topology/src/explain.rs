//! Why there is no path, or no pair of them: which constraint to relax, and by how much.

mod describe;

use std::collections::BTreeSet;

use crate::constrained::{NotFound, Query, cheapest};
use crate::constraints::{Affinity, Constraints, Elements, Kind};
use crate::disjoint::{Disjoint, NoPair, Shared, disjoint_pair};
use crate::graph::Figures;
use crate::sssp::Scratch;
use crate::{ArcIx, BitRate, Delay, Edge, Graph, LinkIx, Metric, NodeIx, Path};

/// Why a query has no answer. Built only after the search itself has found none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoPath {
    pub from: NodeIx,
    pub to: NodeIx,
    /// Of a pair of paths: what they were not to share.
    pub disjoint: Option<Disjoint>,
    /// Whatever is relaxed, there is none.
    pub never: Option<Never>,
    /// Each is enough on its own; in it, everything has to be relaxed. One of a single relaxation
    /// says the least that is enough; in one of several, no bound can be less while the others are
    /// what they are. Empty where there is none in any case.
    pub alternatives: Vec<Vec<Relaxation>>,
}

/// Why there would be no answer without any constraint either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Never {
    /// So many nodes can be reached from the first, itself included.
    Disconnected { reached: usize },
    /// Every path passes this, which two are not to share.
    Shared(Shared),
    /// Whatever the first of two is, no second one is left.
    NoSecond,
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
        links: BTreeSet<LinkIx>,
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

/// Why `query` has no answer. Takes up to some hundreds of searches: not for a hot path.
///
/// # Errors
/// When a search is given up before it can tell ([`NotFound::TooHard`]).
pub fn explain(
    graph: &Graph,
    scratch: &mut Scratch,
    query: &Query<'_>,
) -> Result<NoPath, NotFound> {
    Search { scratch, disjoint: None }.explain(graph, query)
}

/// Why there are no two paths that share nothing that `disjoint` names. Where a search for a
/// smaller bound is given up, what is named is enough but may not be the least.
///
/// # Errors
/// As [`explain`].
pub fn explain_pair(
    graph: &Graph,
    scratch: &mut Scratch,
    query: &Query<'_>,
    disjoint: Disjoint,
) -> Result<NoPath, NotFound> {
    Search { scratch, disjoint: Some(disjoint) }.explain(graph, query)
}

/// Rounds in which relaxations that are enough together are each made less.
const ROUNDS: usize = 4;

/// Looks for one path, or for two.
struct Search<'a> {
    scratch: &'a mut Scratch,
    disjoint: Option<Disjoint>,
}

impl Search<'_> {
    fn explain(&mut self, graph: &Graph, query: &Query<'_>) -> Result<NoPath, NotFound> {
        let Query { from, to, .. } = *query;
        let never = self.never(graph, query)?;
        let mut alternatives = Vec::new();
        if never.is_none() {
            let kinds: Vec<Kind> = query.constraints.kinds().collect();
            for kind in &kinds {
                alternatives.extend(self.alone(graph, query, *kind)?.map(|one| vec![one]));
            }
            // Sets of kinds, by size: subsets of at most six.
            for size in 2..=kinds.len() {
                if alternatives.is_empty() {
                    alternatives = self.together(graph, query, &kinds, size)?;
                }
            }
        }
        Ok(NoPath { from, to, disjoint: self.disjoint, never, alternatives })
    }

    fn never(&mut self, graph: &Graph, query: &Query<'_>) -> Result<Option<Never>, NotFound> {
        let none = Query { constraints: &Constraints::default(), ..*query };
        if cheapest(graph, self.scratch, &none) == Err(NotFound::NoPath) {
            let reached = reachable(graph, query.from);
            return Ok(Some(Never::Disconnected { reached }));
        }
        let Some(disjoint) = self.disjoint else { return Ok(None) };
        match disjoint_pair(graph, self.scratch, &none, disjoint) {
            Err(NoPair::Shared(shared)) => Ok(Some(Never::Shared(shared))),
            Err(NoPair::None) => Ok(Some(Never::NoSecond)),
            Err(NoPair::NotFound(error)) => Err(error),
            Err(NoPair::TooHard { best: None, .. }) => Err(NotFound::TooHard),
            Ok(_) | Err(NoPair::TooHard { best: Some(_), .. }) => Ok(None),
        }
    }

    /// The path, or both; `None`: there is none.
    fn found(&mut self, graph: &Graph, query: &Query<'_>) -> Result<Option<Vec<Path>>, NotFound> {
        let Some(disjoint) = self.disjoint else {
            return match cheapest(graph, self.scratch, query) {
                Ok(path) => Ok(Some(vec![path])),
                Err(NotFound::NoPath) => Ok(None),
                Err(error) => Err(error),
            };
        };
        match disjoint_pair(graph, self.scratch, query, disjoint) {
            Ok(pair) => Ok(Some(vec![pair.first, pair.second])),
            Err(NoPair::TooHard { best: Some(pair), .. }) => {
                Ok(Some(vec![pair.first, pair.second]))
            }
            Err(NoPair::TooHard { best: None, .. }) => Err(NotFound::TooHard),
            Err(NoPair::NotFound(NotFound::NoPath) | NoPair::Shared(_) | NoPair::None) => Ok(None),
            Err(NoPair::NotFound(error)) => Err(error),
        }
    }

    /// The least relaxation of one kind that is enough.
    fn alone(
        &mut self,
        graph: &Graph,
        query: &Query<'_>,
        kind: Kind,
    ) -> Result<Option<Relaxation>, NotFound> {
        let rest = query.constraints.clone().without(kind);
        let query_of = |metric| Query { metric, constraints: &rest, ..*query };
        let paths = match kind {
            Kind::Delay => self.found(graph, &query_of(Metric::Delay))?,
            Kind::Hops => self.found(graph, &query_of(Metric::Hops))?,
            Kind::Bandwidth => self.widest(graph, query)?,
            Kind::Affinity => {
                let fits = |edge: &Edge| query.constraints.has_affinity(graph, edge);
                self.found(&weighed(graph, fits), &query_of(Metric::Cost))?
            }
            Kind::Exclude => {
                let ends = (query.from, query.to);
                let fits = |edge: &Edge| query.constraints.spares(graph, ends, edge);
                self.found(&weighed(graph, fits), &query_of(Metric::Cost))?
            }
            Kind::Include => return self.give_up(graph, query),
        };
        let enough = paths.and_then(|paths| needed(graph, query, kind, &paths));
        match enough {
            // The least sum of two need not be the least that each has to keep to.
            Some(enough) if self.disjoint.is_some() => self.tightened(graph, query, enough),
            enough => Ok(enough),
        }
    }

    /// The least bound on delay or hops under which there are two, of those below one that is
    /// enough.
    fn tightened(
        &mut self,
        graph: &Graph,
        query: &Query<'_>,
        enough: Relaxation,
    ) -> Result<Option<Relaxation>, NotFound> {
        let asked = match &enough {
            Relaxation::MaxDelay { asked, .. } => asked.us(),
            Relaxation::MaxHops { asked, .. } => u64::from(*asked),
            _ => return Ok(Some(enough)),
        };
        let (kind, mut best, mut low) = (enough.kind(), enough, asked + 1);
        while let Some(high) = best.bound().filter(|high| low < *high) {
            let middle = low.midpoint(high);
            let eased = best.with_bound(middle).eased(query.constraints.clone());
            match self.found(graph, &Query { constraints: &eased, ..*query }) {
                Ok(Some(paths)) => match needed(graph, query, kind, &paths) {
                    Some(less) => best = less,
                    None => break,
                },
                Ok(None) => low = middle + 1,
                Err(NotFound::TooHard) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(Some(best))
    }

    /// What is enough when so many kinds are relaxed at once.
    fn together(
        &mut self,
        graph: &Graph,
        query: &Query<'_>,
        kinds: &[Kind],
        size: usize,
    ) -> Result<Vec<Vec<Relaxation>>, NotFound> {
        let mut alternatives = Vec::new();
        for set in (0u32..1 << kinds.len()).filter(|set| set.count_ones() as usize == size) {
            let dropped = kinds.iter().enumerate().filter(|(i, _)| set & 1 << i != 0);
            let dropped: Vec<Kind> = dropped.map(|(_, kind)| *kind).collect();
            let rest = dropped.iter().fold(query.constraints.clone(), |c, kind| c.without(*kind));
            let Some(paths) = self.found(graph, &Query { constraints: &rest, ..*query })? else {
                continue;
            };
            let needed = |kind: &Kind| needed(graph, query, *kind, &paths);
            let enough = dropped.iter().filter_map(needed).collect();
            alternatives.push(self.each_least(graph, query, enough)?);
        }
        Ok(alternatives)
    }

    /// Relaxations that are enough together, each then made the least that the others leave.
    fn each_least(
        &mut self,
        graph: &Graph,
        query: &Query<'_>,
        mut enough: Vec<Relaxation>,
    ) -> Result<Vec<Relaxation>, NotFound> {
        let mut order: Vec<usize> = (0..enough.len()).collect();
        // Bounds by what is let in then; while it is eased, an affinity is no constraint at all,
        // so its links come last.
        order.sort_by_key(|at| match enough[*at].kind() {
            Kind::Exclude | Kind::Include => 0,
            Kind::Delay | Kind::Hops | Kind::Bandwidth => 1,
            Kind::Affinity => 2,
        });
        // One that has become less may let another be less again.
        for _ in 0..ROUNDS {
            let before = enough.clone();
            for &at in &order {
                let others = enough.iter().enumerate().filter(|(other, _)| *other != at);
                let eased = others.fold(query.constraints.clone(), |c, (_, other)| other.eased(c));
                let query = Query { constraints: &eased, ..*query };
                if let Some(least) = self.alone(graph, &query, enough[at].kind())? {
                    enough[at] = least;
                }
            }
            if enough == before {
                break;
            }
        }
        Ok(enough)
    }

    /// What has most capacity under everything but the bandwidth: as many searches as it takes
    /// to halve the capacities there are.
    fn widest(&mut self, graph: &Graph, query: &Query<'_>) -> Result<Option<Vec<Path>>, NotFound> {
        let asked = query.constraints.bandwidth;
        let stated = graph.arcs().filter_map(|arc| graph.figures(arc).capacity);
        let capacities: BTreeSet<BitRate> =
            stated.filter(|c| asked.is_none_or(|asked| *c < asked)).collect();
        let capacities: Vec<BitRate> = capacities.into_iter().collect();
        let mut at_least = |rate: Option<BitRate>| {
            let constraints = Constraints { bandwidth: rate, ..query.constraints.clone() };
            self.found(graph, &Query { constraints: &constraints, ..*query })
        };
        let mut best = at_least(None)?;
        let (mut low, mut high) = (0, capacities.len());
        while best.is_some() && low < high {
            let middle = low.midpoint(high);
            match at_least(Some(capacities[middle]))? {
                Some(paths) => {
                    best = Some(paths);
                    low = middle + 1;
                }
                None => high = middle,
            }
        }
        Ok(best)
    }

    /// One element that a path cannot pass, if giving up one is enough; otherwise what the best
    /// path without any of them does not pass.
    fn give_up(
        &mut self,
        graph: &Graph,
        query: &Query<'_>,
    ) -> Result<Option<Relaxation>, NotFound> {
        for elements in query.constraints.include.each() {
            let given_up = Relaxation::Include { elements };
            let constraints = given_up.eased(query.constraints.clone());
            if self.found(graph, &Query { constraints: &constraints, ..*query })?.is_some() {
                return Ok(Some(given_up));
            }
        }
        let constraints = query.constraints.clone().without(Kind::Include);
        let paths = self.found(graph, &Query { constraints: &constraints, ..*query })?;
        Ok(paths.and_then(|paths| needed(graph, query, Kind::Include, &paths)))
    }
}

/// What paths that break constraints of a kind need of it; `None`: they keep to them.
fn needed(graph: &Graph, query: &Query<'_>, kind: Kind, paths: &[Path]) -> Option<Relaxation> {
    let each = paths.iter().filter_map(|path| needed_by(graph, query, kind, path));
    each.reduce(Relaxation::and)
}

fn needed_by(graph: &Graph, query: &Query<'_>, kind: Kind, path: &Path) -> Option<Relaxation> {
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
            let links: BTreeSet<LinkIx> = lacking.map(|edge| edge.arc.link()).collect();
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

impl Relaxation {
    fn kind(&self) -> Kind {
        match self {
            Self::MaxDelay { .. } => Kind::Delay,
            Self::MaxHops { .. } => Kind::Hops,
            Self::Bandwidth { .. } => Kind::Bandwidth,
            Self::Affinity { .. } => Kind::Affinity,
            Self::Exclude { .. } => Kind::Exclude,
            Self::Include { .. } => Kind::Include,
        }
    }

    /// What is enough for two paths, from what each needs; both of one kind.
    fn and(mut self, other: Self) -> Self {
        match (&mut self, other) {
            (Self::MaxDelay { needed, .. }, Self::MaxDelay { needed: more, .. }) => {
                *needed = more.max(*needed);
            }
            (Self::MaxHops { needed, .. }, Self::MaxHops { needed: more, .. }) => {
                *needed = more.max(*needed);
            }
            (
                Self::Bandwidth { available, .. },
                less @ Self::Bandwidth { available: other, .. },
            ) if other < *available => self = less,
            (Self::Affinity { links }, Self::Affinity { links: more }) => links.extend(more),
            (Self::Exclude { elements }, Self::Exclude { elements: more })
            | (Self::Include { elements }, Self::Include { elements: more }) => {
                elements.extend(more);
            }
            _ => {}
        }
        self
    }

    fn bound(&self) -> Option<u64> {
        match self {
            Self::MaxDelay { needed, .. } => Some(needed.us()),
            Self::MaxHops { needed, .. } => Some(u64::from(*needed)),
            _ => None,
        }
    }

    fn with_bound(&self, bound: u64) -> Self {
        match self {
            Self::MaxDelay { asked, .. } => Self::MaxDelay { asked: *asked, needed: Delay(bound) },
            Self::MaxHops { asked, .. } => {
                let needed = u32::try_from(bound).unwrap_or(u32::MAX);
                Self::MaxHops { asked: *asked, needed }
            }
            other => other.clone(),
        }
    }

    /// Constraints with this one relaxed; of an affinity nothing is left.
    fn eased(&self, mut constraints: Constraints) -> Constraints {
        match self {
            Self::MaxDelay { needed, .. } => constraints.max_delay = Some(*needed),
            Self::MaxHops { needed, .. } => constraints.max_hops = Some(*needed),
            Self::Bandwidth { available, .. } => constraints.bandwidth = Some(*available),
            Self::Affinity { .. } => constraints.affinity = Affinity::default(),
            Self::Exclude { elements } => constraints.exclude.remove(elements),
            Self::Include { elements } => constraints.include.remove(elements),
        }
        constraints
    }
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
