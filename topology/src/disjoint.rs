//! Two paths between the same nodes that do not fail together, of least total length.
//!
//! Without bounds on each path this is a flow of two units, found with two searches (Suurballe,
//! Networks 4, 1974; Bhandari, Survivable Networks, 1999). With bounds, with elements to pass or
//! with shared-risk groups it is NP-hard: then first paths are taken in order of their length,
//! each with the best second one, until twice the first is no shorter than the best pair: exact
//! when it ends, and it gives up, saying so, after [`MAX_FIRST_PATHS`].

use std::collections::BTreeSet;

use crate::constrained::{NotFound, Query, cheapest_where, keeps};
use crate::graph::Length;
use crate::heap::Heap;
use crate::sssp::{NONE, Scratch, lengths_into};
use crate::yen::{Shortest, by_length_and_name};
use crate::{ArcIx, Edge, Graph, LinkIx, NodeIx, Path};

/// First paths that are tried before the search is given up.
pub const MAX_FIRST_PATHS: usize = 2_000;

/// What two paths do not share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Disjoint {
    Link,
    /// No node between the two ends, and no link.
    Node,
    /// No shared-risk group, and no link.
    Srlg,
}

/// Two paths, the shorter first; each keeps to the query's constraints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub first: Path,
    pub second: Path,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPair {
    /// Not even one path: [`crate::explain`] says why.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// Every path that keeps to the constraints passes this.
    #[error("there is no second path: every path passes the same element")]
    Shared(Shared),
    #[error("there are no two such paths: whatever the first is, no second one is left")]
    None,
    /// Neither found nor excluded; `best` is a pair, but perhaps not the least, and no pair is
    /// shorter than `least`.
    #[error("the search was given up after {MAX_FIRST_PATHS} first paths")]
    TooHard { best: Option<Box<Pair>>, least: Length },
}

/// Something that all paths have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared {
    Node(NodeIx),
    Link(LinkIx),
    Srlg(u32),
}

/// The pair of least total length. Constraints hold for each of the two.
///
/// # Errors
/// See [`NoPair`].
///
/// # Panics
/// When `from` and `to` are one node.
pub fn disjoint_pair(
    graph: &Graph,
    scratch: &mut Scratch,
    query: &Query<'_>,
    disjoint: Disjoint,
) -> Result<Pair, NoPair> {
    assert_ne!(query.from, query.to, "a pair of paths is between two nodes");
    let mut firsts = Shortest::new(graph, *query);
    let Some(mut first) = firsts.next(scratch)? else { return Err(NotFound::NoPath.into()) };
    let Some(flow) = two_units(graph, query, &first, disjoint) else {
        return Err(shared(graph, scratch, query, &first, disjoint)?);
    };
    let length = |path: &Path| graph.length(path, query.metric);
    let total = |pair: &Pair| Length(length(&pair.first).0 + length(&pair.second).0);
    let least = total(&flow);
    let fits = |path: &Path| keeps(graph, path, query.constraints);
    let plain = query.constraints.include.is_empty() && fits(&flow.first) && fits(&flow.second);
    if plain && is_disjoint(graph, &flow.first, &flow.second, disjoint) {
        return Ok(flow);
    }
    if let no @ (NoPair::Shared(_) | NoPair::NotFound(_)) =
        shared(graph, scratch, query, &first, disjoint)?
    {
        return Err(no);
    }
    let mut best: Option<Pair> = None;
    for _ in 0..MAX_FIRST_PATHS {
        let twice = Length(length(&first).0 * 2);
        let known = best.as_ref().map(total);
        if known.is_some_and(|known| known <= twice || known <= least) {
            return Ok(best.expect("its length is known"));
        }
        let risks = Risks::of(graph, &first, disjoint);
        let spare = |arc: ArcIx| risks.spares(graph, query, arc);
        match cheapest_where(graph, scratch, query, Some(&spare)) {
            Ok(second) => {
                let pair = in_order(graph, query, first, second);
                if known.is_none_or(|known| total(&pair) < known) {
                    best = Some(pair);
                }
            }
            Err(NotFound::NoPath) => {}
            Err(error) => return Err(error.into()),
        }
        match firsts.next(scratch)? {
            Some(next) => first = next,
            None => return best.ok_or(NoPair::None),
        }
    }
    Err(NoPair::TooHard { best: best.map(Box::new), least })
}

/// Whether two paths between the same nodes share nothing that they must not.
pub fn is_disjoint(graph: &Graph, a: &Path, b: &Path, disjoint: Disjoint) -> bool {
    let risks = Risks::of(graph, a, disjoint);
    let inner = |node: &NodeIx| *node != a.from() && *node != a.to();
    b.arcs.iter().all(|arc| risks.spares_link(graph, *arc))
        && b.nodes.iter().filter(|node| inner(node)).all(|node| !risks.nodes.contains(node))
}

/// What another path must not touch.
struct Risks {
    nodes: BTreeSet<NodeIx>,
    links: BTreeSet<LinkIx>,
    srlgs: BTreeSet<u32>,
}

impl Risks {
    fn of(graph: &Graph, path: &Path, disjoint: Disjoint) -> Self {
        let links: BTreeSet<LinkIx> = path.arcs.iter().map(|arc| arc.link()).collect();
        let inner = path.nodes.iter().filter(|node| **node != path.from() && **node != path.to());
        let nodes = match disjoint {
            Disjoint::Node => inner.copied().collect(),
            Disjoint::Link | Disjoint::Srlg => BTreeSet::new(),
        };
        let srlgs = match disjoint {
            Disjoint::Srlg => links.iter().flat_map(|link| graph.srlgs(*link)).copied().collect(),
            Disjoint::Link | Disjoint::Node => BTreeSet::new(),
        };
        Self { nodes, links, srlgs }
    }

    fn spares_link(&self, graph: &Graph, arc: ArcIx) -> bool {
        !self.links.contains(&arc.link())
            && (self.srlgs.is_empty()
                || graph.srlgs(arc.link()).iter().all(|srlg| !self.srlgs.contains(srlg)))
    }

    fn spares(&self, graph: &Graph, query: &Query<'_>, arc: ArcIx) -> bool {
        let (from, to) = graph.ends(arc).expect("arcs of this graph");
        let free = |node| node == query.from || node == query.to || !self.nodes.contains(&node);
        self.spares_link(graph, arc) && free(from) && free(to)
    }
}

fn in_order(graph: &Graph, query: &Query<'_>, a: Path, b: Path) -> Pair {
    let length = |path| graph.length(path, query.metric);
    let order = by_length_and_name(&(length(&a), &a), &(length(&b), &b));
    if order.is_le() { Pair { first: a, second: b } } else { Pair { first: b, second: a } }
}

/// Something without which there is no path at all, if there is such a thing.
fn shared(
    graph: &Graph,
    scratch: &mut Scratch,
    query: &Query<'_>,
    path: &Path,
    disjoint: Disjoint,
) -> Result<NoPair, NoPair> {
    let Risks { nodes, links, srlgs } = Risks::of(graph, path, disjoint);
    let nodes = nodes.into_iter().map(Shared::Node);
    let links = links.into_iter().map(Shared::Link);
    let srlgs = srlgs.into_iter().map(Shared::Srlg);
    for element in nodes.chain(srlgs).chain(links) {
        let spare = |arc: ArcIx| match element {
            Shared::Node(node) => {
                graph.ends(arc).is_some_and(|(from, to)| from != node && to != node)
            }
            Shared::Link(link) => arc.link() != link,
            Shared::Srlg(srlg) => !graph.srlgs(arc.link()).contains(&srlg),
        };
        match cheapest_where(graph, scratch, query, Some(&spare)) {
            Ok(_) => {}
            Err(NotFound::NoPath) => return Ok(NoPair::Shared(element)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(NoPair::None)
}

/// A node as a flow sees it: what comes in goes out only once when nodes are not shared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    In,
    Out,
}

/// How the second search came to a side of a node.
#[derive(Clone, Copy)]
enum Step {
    Start,
    /// Along a free arc.
    Along(ArcIx),
    /// Against an arc of the first path, which that gives back.
    Against(ArcIx),
    /// Through the node.
    Inside,
}

/// The two paths of least total length that share no link, and no node if so asked, without
/// regard to bounds on each. `first` is a path under the constraints on arcs.
fn two_units(graph: &Graph, query: &Query<'_>, first: &Path, disjoint: Disjoint) -> Option<Pair> {
    let Query { from, to, metric, constraints } = *query;
    let split = disjoint == Disjoint::Node;
    // Not `first` itself, which may be longer to keep to a bound.
    let bare = crate::Constraints {
        max_delay: None,
        max_hops: None,
        include: crate::Elements::default(),
        ..constraints.clone()
    };
    let bare = Query { constraints: &bare, ..*query };
    let shortest =
        crate::cheapest(graph, &mut Scratch::new(), &bare).unwrap_or_else(|_| first.clone());
    let usable = |edge: &Edge| edge.is_up() && constraints.allows(graph, (from, to), edge);
    let mut used = vec![false; graph.arc_slots()];
    let mut inside = vec![false; graph.len()];
    shortest.arcs.iter().for_each(|arc| used[arc.index()] = true);
    if split {
        shortest.nodes.iter().for_each(|node| inside[node.index()] = true);
    }
    let slot = |node: NodeIx, side| {
        if split { node.index() * 2 + usize::from(side == Side::Out) } else { node.index() }
    };
    let slots = if split { graph.len() * 2 } else { graph.len() };
    // Lengths from the start as potentials, so that arcs given back count nothing less than
    // nothing and the second search can be Dijkstra's, too.
    let (mut heap, mut potentials) = (Heap::default(), Vec::new());
    lengths_into(graph, &mut heap, from, metric, false, usable, &mut potentials);
    let mut lengths = vec![NONE; slots];
    let mut came: Vec<(Step, usize)> = vec![(Step::Start, usize::MAX); slots];
    let start = slot(from, Side::Out);
    lengths[start] = 0;
    heap.clear();
    heap.push(0, u32::try_from(start).expect("nodes are limited"));
    while let Some((length, at)) = heap.pop() {
        let at = at as usize;
        if length > lengths[at] {
            continue;
        }
        let node =
            NodeIx(u32::try_from(if split { at / 2 } else { at }).expect("nodes are limited"));
        let side = if at % 2 == 1 { Side::Out } else { Side::In };
        let mut reach = |next: NodeIx, side: Side, more: u64, step: Step| {
            let slot = slot(next, side);
            if length + more < lengths[slot] {
                lengths[slot] = length + more;
                came[slot] = (step, at);
                heap.push(length + more, u32::try_from(slot).expect("nodes are limited"));
            }
        };
        if !split || side == Side::Out {
            for edge in graph.out(node).iter().filter(|edge| usable(edge)) {
                let free = !used[edge.arc.index()] && !used[edge.arc.reverse().index()];
                if free && edge.node != from {
                    let reduced = potentials[node.index()] + edge.length(metric)
                        - potentials[edge.node.index()];
                    reach(edge.node, Side::In, reduced, Step::Along(edge.arc));
                }
            }
        }
        if node != from && (!split || side == Side::In) {
            // On a shortest path an arc is as long as the potentials differ.
            for edge in graph.into(node).iter().filter(|edge| used[edge.arc.index()]) {
                reach(edge.node, Side::Out, 0, Step::Against(edge.arc));
            }
        }
        if split && node != from && node != to {
            match side {
                Side::In if !inside[node.index()] => reach(node, Side::Out, 0, Step::Inside),
                Side::Out if inside[node.index()] => reach(node, Side::In, 0, Step::Inside),
                Side::In | Side::Out => {}
            }
        }
    }
    let mut at = slot(to, Side::In);
    if lengths[at] == NONE {
        return None;
    }
    while at != start {
        let (step, before) = came[at];
        match step {
            Step::Along(arc) => used[arc.index()] = true,
            Step::Against(arc) => used[arc.index()] = false,
            Step::Start | Step::Inside => {}
        }
        at = before;
    }
    let mut unravel = || {
        let (mut at, mut arcs) = (from, Vec::new());
        while at != to {
            let edge = graph.out(at).iter().find(|edge| used[edge.arc.index()]);
            let edge = edge.expect("what flows into a node flows out of it");
            used[edge.arc.index()] = false;
            arcs.push(edge.arc);
            at = edge.node;
        }
        graph.path(from, arcs)
    };
    let (a, b) = (unravel(), unravel());
    Some(in_order(graph, query, a, b))
}
