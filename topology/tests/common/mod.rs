//! Small networks where everything collides, and all their paths.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use selvedge_topology::{
    Affinity, ArcIx, BitRate, Constraints, Delay, Disjoint, Elements, End, Graph, Link, LinkIx,
    Metric, Node, NodeIx, NodeName, Path, Snapshot, Switch, Topology,
};

#[derive(Clone, Debug)]
pub(crate) struct Edge {
    pub(crate) a: usize,
    pub(crate) b: usize,
    pub(crate) cost: u32,
    pub(crate) delay: u64,
    /// Mbit/s; 0: not stated.
    pub(crate) capacity: u64,
    pub(crate) srlg: Vec<u32>,
    /// Which of `red` and `blue`.
    pub(crate) affinity: u8,
}

pub(crate) fn network(nodes: usize, edges: &[Edge]) -> Snapshot {
    let name = |n: usize| -> NodeName { format!("n{n}").parse().unwrap() };
    let end =
        |n: usize, port: usize| End { node: name(n), port: format!("p{port}").parse().unwrap() };
    let groups = |bits: u8| {
        let both: [NodeName; 2] = ["blue".parse().unwrap(), "red".parse().unwrap()];
        both.into_iter().enumerate().filter(|(i, _)| bits & 1 << i != 0).map(|(_, g)| g).collect()
    };
    let links = edges.iter().enumerate().map(|(i, edge)| Link {
        cost: Some(edge.cost),
        delay: Some(Delay(edge.delay)),
        capacity: (edge.capacity > 0).then(|| BitRate::from_mbps(edge.capacity)),
        srlg: edge.srlg.clone(),
        affinity: groups(edge.affinity),
        ..Link::new(end(edge.a, i), end(edge.b, i))
    });
    let nodes: BTreeMap<_, _> =
        (0..nodes).map(|n| (name(n), Node::Switch(Switch::default()))).collect();
    let topology = Topology { name: "t".parse().unwrap(), nodes, links: links.collect() };
    Snapshot::new(Arc::new(topology), 1)
}

pub(crate) fn edge(a: usize, b: usize, cost: u32, delay: u64, capacity: u64) -> Edge {
    Edge { a, b, cost, delay, capacity, srlg: Vec::new(), affinity: 0 }
}

prop_compose! {
    pub(crate) fn small(most_nodes: usize, most_links: usize)(nodes in 2..=most_nodes)(
        edges in proptest::collection::vec(
            (
                (0..nodes, 1..nodes),
                1u32..4,
                0u64..4,
                0u64..4,
                proptest::collection::btree_set(0u32..4, 0..2),
                0u8..4,
            ),
            0..=most_links,
        ),
        nodes in Just(nodes),
    ) -> (usize, Vec<Edge>) {
        // The second number is how far the other end is around, so no link is to itself.
        let edges = edges.into_iter().map(|((a, by), cost, delay, capacity, srlg, affinity)| Edge {
            a, b: (a + by) % nodes, cost, delay, capacity, srlg: srlg.into_iter().collect(), affinity,
        });
        (nodes, edges.collect())
    }
}

pub(crate) fn metric() -> impl Strategy<Value = Metric> {
    prop_oneof![Just(Metric::Cost), Just(Metric::Delay), Just(Metric::Hops)]
}

prop_compose! {
    fn elements(nodes: u32, links: u32)(
        nodes in proptest::collection::btree_set(0..nodes, 0..2),
        links in proptest::collection::btree_set(0..links, 0..2),
        srlgs in proptest::collection::btree_set(0u32..4, 0..2),
        any in 0..3,
    ) -> Elements {
        if any > 0 {
            return Elements::default();
        }
        Elements {
            nodes: nodes.into_iter().map(NodeIx).collect(),
            links: links.into_iter().map(LinkIx).collect(),
            srlgs,
        }
    }
}

prop_compose! {
    pub(crate) fn constraints()(
        max_delay in proptest::option::of(0u64..9),
        max_hops in proptest::option::weighted(0.3, 0u32..5),
        mbps in proptest::option::weighted(0.3, 1u64..5),
        exclude in elements(7, 12),
        include in elements(6, 12),
        affinity in proptest::option::weighted(0.2, (0u64..4, 0u64..4, 0u64..3)),
    ) -> Constraints {
        let affinity = affinity.map_or(Affinity::default(), |(exclude_any, include_any, include_all)| {
            Affinity { exclude_any, include_any, include_all }
        });
        Constraints {
            max_delay: max_delay.map(Delay),
            max_hops,
            bandwidth: mbps.map(BitRate::from_mbps),
            exclude,
            include,
            affinity,
        }
    }
}

/// Every loop-free path, in the order of their names.
pub(crate) fn all_paths(snapshot: &Snapshot, from: NodeIx, to: NodeIx) -> Vec<Path> {
    let mut found = Vec::new();
    let mut stack = vec![(vec![from], Vec::<ArcIx>::new())];
    while let Some((nodes, arcs)) = stack.pop() {
        let at = nodes[nodes.len() - 1];
        if at == to {
            found.push(Path { nodes, arcs });
            continue;
        }
        let longer = snapshot.arcs_from(at).iter().filter(|arc| !nodes.contains(&arc.to));
        for arc in longer.rev() {
            let mut longer = (nodes.clone(), arcs.clone());
            longer.0.push(arc.to);
            longer.1.push(arc.ix);
            stack.push(longer);
        }
    }
    found
}

pub(crate) fn length(snapshot: &Snapshot, path: &Path, metric: Metric) -> (u64, usize) {
    let sum = path.arcs.iter().map(|ix| metric.of(snapshot.arc(*ix).unwrap())).sum();
    (sum, path.arcs.len())
}

/// Whether a path keeps to constraints, from the topology alone.
pub(crate) fn keeps(
    snapshot: &Snapshot,
    graph: &Graph,
    path: &Path,
    constraints: &Constraints,
) -> bool {
    let links: Vec<(LinkIx, &Link)> =
        path.arcs.iter().map(|arc| (arc.link(), snapshot.link(arc.link()))).collect();
    let bits = |link: LinkIx| graph.affinity(link);
    let inner: Vec<NodeIx> =
        path.nodes.iter().copied().filter(|n| *n != path.from() && *n != path.to()).collect();
    let Constraints { max_delay, max_hops, bandwidth, exclude, include, affinity } = constraints;
    let delay: u64 = links.iter().map(|(_, link)| link.delay.unwrap().us()).sum();
    max_delay.is_none_or(|most| delay <= most.us())
        && max_hops.is_none_or(|most| links.len() <= most as usize)
        && links.iter().all(|(_, l)| l.capacity.zip(*bandwidth).is_none_or(|(c, want)| c >= want))
        && inner.iter().all(|node| !exclude.nodes.contains(node))
        && links.iter().all(|(ix, link)| {
            !exclude.links.contains(ix) && link.srlg.iter().all(|s| !exclude.srlgs.contains(s))
        })
        && include.nodes.iter().all(|node| path.nodes.contains(node))
        && include.links.iter().all(|want| links.iter().any(|(ix, _)| ix == want))
        && include.srlgs.iter().all(|want| links.iter().any(|(_, link)| link.srlg.contains(want)))
        && links.iter().all(|(ix, _)| {
            bits(*ix) & affinity.exclude_any == 0
                && (affinity.include_any == 0 || bits(*ix) & affinity.include_any != 0)
                && affinity.include_all & !bits(*ix) == 0
        })
}

/// All paths that keep to constraints, shortest first, equal ones by name.
pub(crate) fn in_order(
    snapshot: &Snapshot,
    from: NodeIx,
    to: NodeIx,
    metric: Metric,
    constraints: &Constraints,
) -> Vec<Path> {
    let graph = snapshot.graph();
    let mut all = all_paths(snapshot, from, to);
    all.retain(|path| keeps(snapshot, graph, path, constraints));
    let by_name = |a: &Path, b: &Path| {
        let steps = |p: &Path| -> Vec<(NodeIx, ArcIx)> {
            p.nodes[1..].iter().copied().zip(p.arcs.iter().copied()).collect()
        };
        steps(a).cmp(&steps(b))
    };
    let order = |a: &Path, b: &Path| -> Ordering {
        length(snapshot, a, metric).cmp(&length(snapshot, b, metric)).then_with(|| by_name(a, b))
    };
    all.sort_by(order);
    all
}

/// Whether two paths share nothing that they must not, from the topology alone.
pub(crate) fn apart(snapshot: &Snapshot, a: &Path, b: &Path, disjoint: Disjoint) -> bool {
    let links = |p: &Path| p.arcs.iter().map(|arc| arc.link()).collect::<BTreeSet<_>>();
    let inner = |p: &Path| {
        let ends = [p.from(), p.to()];
        p.nodes.iter().copied().filter(|n| !ends.contains(n)).collect::<BTreeSet<_>>()
    };
    let groups = |p: &Path| {
        let groups = links(p).into_iter().flat_map(|link| snapshot.link(link).srlg.clone());
        groups.collect::<BTreeSet<u32>>()
    };
    links(a).is_disjoint(&links(b))
        && match disjoint {
            Disjoint::Link => true,
            Disjoint::Node => inner(a).is_disjoint(&inner(b)),
            Disjoint::Srlg => groups(a).is_disjoint(&groups(b)),
        }
}
