//! The k shortest loop-free paths.
//!
//! Yen's algorithm with Lawler's rule that a path is only varied from where it left its own
//! predecessor (Management Science 17(11), 1971, and 18(7), 1972), so that no path is found
//! twice; each variation is an A* search along the tree towards the end, which is computed once.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::constrained::{NotFound, Query, cheapest_where};
use crate::graph::Length;
use crate::sssp::{NONE, Scratch, lengths_into, point_to_point};
use crate::{ArcIx, Constraints, Edge, Graph, NodeIx, Path};

/// A path found but not yet handed out; the least is first.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    length: Length,
    path: Path,
    /// Position in the path where it leaves the one it was varied from.
    leaves: usize,
}

impl Ord for Candidate {
    /// For a heap whose greatest is taken first.
    fn cmp(&self, other: &Self) -> Ordering {
        by_length_and_name(&(other.length, &other.path), &(self.length, &self.path))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The order of all paths between two nodes: by length, then by the first arc that differs.
pub(crate) fn by_length_and_name(a: &(Length, &Path), b: &(Length, &Path)) -> Ordering {
    a.0.cmp(&b.0).then_with(|| {
        let arcs = |path: &Path, at: usize| (path.nodes[at + 1], path.arcs[at]);
        let both = a.1.arcs.len().min(b.1.arcs.len());
        let differ = (0..both).map(|at| arcs(a.1, at).cmp(&arcs(b.1, at)));
        differ.into_iter().find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    })
}

/// The `k` shortest paths that keep to the query's constraints, shortest first; fewer where
/// there are no more.
///
/// # Errors
/// [`NotFound::NoPath`] when there is none at all; what [`crate::cheapest`] says else.
pub fn k_shortest(
    graph: &Graph,
    scratch: &mut Scratch,
    query: &Query<'_>,
    k: usize,
) -> Result<Vec<Path>, NotFound> {
    let mut paths = Shortest::new(graph, *query);
    let mut found = Vec::new();
    while found.len() < k {
        match paths.next(scratch)? {
            Some(path) => found.push(path),
            None => break,
        }
    }
    if found.is_empty() && k > 0 { Err(NotFound::NoPath) } else { Ok(found) }
}

/// All paths between two nodes, shortest first, each computed when it is asked for.
#[derive(Debug)]
pub struct Shortest<'a> {
    graph: &'a Graph,
    query: Query<'a>,
    /// Lengths to the end, when arcs alone are constrained.
    lengths: Vec<u64>,
    /// By arc; empty when all are usable.
    allowed: Vec<bool>,
    /// By node: on the part that a variation keeps.
    kept: Vec<bool>,
    candidates: BinaryHeap<Candidate>,
    given: Vec<Candidate>,
    begun: bool,
}

impl<'a> Shortest<'a> {
    pub fn new(graph: &'a Graph, query: Query<'a>) -> Self {
        let (lengths, allowed, kept) = (Vec::new(), Vec::new(), vec![false; graph.len()]);
        let candidates = BinaryHeap::new();
        Self { graph, query, lengths, allowed, kept, candidates, given: Vec::new(), begun: false }
    }

    /// The next longer path, or `None` after the last.
    ///
    /// # Errors
    /// As [`crate::cheapest`], but for the absence of a path.
    pub fn next(&mut self, scratch: &mut Scratch) -> Result<Option<Path>, NotFound> {
        if self.begun {
            self.vary(scratch)?;
        } else {
            self.begun = true;
            self.prepare(scratch);
            let whole = Path { nodes: vec![self.query.from], arcs: Vec::new() };
            if self.query.from == self.query.to {
                let path = cheapest_where(self.graph, scratch, &self.query, None);
                let candidate = |path| Candidate { length: Length::ZERO, path, leaves: 0 };
                self.candidates.extend(optional(path)?.map(candidate));
            } else {
                self.branch(scratch, &whole, 0)?;
            }
        }
        let Some(next) = self.candidates.pop() else { return Ok(None) };
        let path = next.path.clone();
        self.given.push(next);
        Ok(Some(path))
    }

    /// Whether all constraints are on arcs, so that lengths to the end bound every search.
    fn is_plain(&self) -> bool {
        let constraints = self.query.constraints;
        constraints.max_delay.is_none()
            && constraints.max_hops.is_none()
            && constraints.include.is_empty()
    }

    fn prepare(&mut self, scratch: &mut Scratch) {
        let (graph, Query { from, to, metric, constraints }) = (self.graph, self.query);
        if !constraints.allow_all_arcs() {
            self.allowed.resize(graph.arc_slots(), false);
            for edge in graph.nodes().flat_map(|node| graph.out(node)) {
                self.allowed[edge.arc.index()] = constraints.allows(graph, (from, to), edge);
            }
        }
        if self.is_plain() {
            let usable = |edge: &Edge| self.allowed.get(edge.arc.index()).copied().unwrap_or(true);
            lengths_into(graph, &mut scratch.heap, to, metric, true, usable, &mut self.lengths);
        }
    }

    /// The paths nearest to the last one given, one for each node where it can be left.
    fn vary(&mut self, scratch: &mut Scratch) -> Result<(), NotFound> {
        let Some(last) = self.given.last() else { return Ok(()) };
        let (path, first) = (last.path.clone(), last.leaves);
        for at in first..path.arcs.len() {
            self.branch(scratch, &path, at)?;
        }
        Ok(())
    }

    /// The shortest path that goes along `path` up to its node `at` and leaves it there by an
    /// arc that no path given so far takes there.
    fn branch(&mut self, scratch: &mut Scratch, path: &Path, at: usize) -> Result<(), NotFound> {
        let same = |given: &&Candidate| given.path.arcs.get(..at) == Some(&path.arcs[..at]);
        let given = self.given.iter().filter(same);
        let taken: Vec<ArcIx> =
            given.filter_map(|given| given.path.arcs.get(at).copied()).collect();
        let spur = path.nodes[at];
        // The node's only other arc may be the way back.
        let back = at.checked_sub(1).map(|before| path.nodes[before]);
        let other =
            |edge: &&Edge| edge.is_up() && Some(edge.node) != back && !taken.contains(&edge.arc);
        if !self.graph.out(spur).iter().any(|edge| other(&edge)) {
            return Ok(());
        }
        path.nodes[..at].iter().for_each(|node| self.kept[node.index()] = true);
        let found = if self.is_plain() {
            Ok(self.plain(scratch, path, at, &taken))
        } else {
            self.bound(scratch, path, at, &taken)
        };
        path.nodes[..at].iter().for_each(|node| self.kept[node.index()] = false);
        if let Some(arcs) = found? {
            let path = self.graph.path(self.query.from, arcs);
            let length = self.graph.length(&path, self.query.metric);
            self.candidates.push(Candidate { length, path, leaves: at });
        }
        Ok(())
    }

    fn plain(
        &self,
        scratch: &mut Scratch,
        path: &Path,
        at: usize,
        taken: &[ArcIx],
    ) -> Option<Vec<ArcIx>> {
        let spur = path.nodes[at];
        if self.lengths[spur.index()] == NONE {
            return None;
        }
        let usable = |edge: &Edge| {
            !self.kept[edge.node.index()]
                && !taken.contains(&edge.arc)
                && self.allowed.get(edge.arc.index()).copied().unwrap_or(true)
        };
        let mut arcs = path.arcs[..at].to_vec();
        let ends = (spur, self.query.to);
        let bound = |node: NodeIx| self.lengths[node.index()];
        point_to_point(self.graph, scratch, ends, self.query.metric, bound, usable, &mut arcs)?;
        Some(arcs)
    }

    fn bound(
        &self,
        scratch: &mut Scratch,
        path: &Path,
        at: usize,
        taken: &[ArcIx],
    ) -> Result<Option<Vec<ArcIx>>, NotFound> {
        let graph = self.graph;
        let kept = graph.path(self.query.from, path.arcs[..at].to_vec());
        let totals = graph.totals(&kept);
        let mut rest: Constraints = self.query.constraints.clone();
        if let Some(most) = &mut rest.max_delay {
            let Some(left) = most.us().checked_sub(totals.delay.us()) else { return Ok(None) };
            most.0 = left;
        }
        if let Some(most) = &mut rest.max_hops {
            let Some(left) = most.checked_sub(totals.hops) else { return Ok(None) };
            *most = left;
        }
        for arc in &kept.arcs {
            rest.include.links.remove(&arc.link());
            graph.srlgs(arc.link()).iter().for_each(|srlg| {
                rest.include.srlgs.remove(srlg);
            });
        }
        kept.nodes.iter().for_each(|node| {
            rest.include.nodes.remove(node);
        });
        let spare = |arc: ArcIx| {
            let (from, to) = graph.ends(arc).expect("arcs of this graph");
            !self.kept[from.index()]
                && !self.kept[to.index()]
                && !taken.contains(&arc)
                && self.allowed.get(arc.index()).copied().unwrap_or(true)
        };
        // What is excluded is so between the whole path's ends, and is in `allowed`.
        rest.exclude = crate::Elements::default();
        let query = Query { from: path.nodes[at], constraints: &rest, ..self.query };
        let found = optional(cheapest_where(graph, scratch, &query, Some(&spare)))?;
        Ok(found.map(|spur| [&kept.arcs[..], &spur.arcs[..]].concat()))
    }
}

fn optional(found: Result<Path, NotFound>) -> Result<Option<Path>, NotFound> {
    match found {
        Ok(path) => Ok(Some(path)),
        Err(NotFound::NoPath) => Ok(None),
        Err(error) => Err(error),
    }
}
