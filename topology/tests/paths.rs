//! Paths against brute force, on small networks where everything collides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use selvedge_topology::{
    ArcIx, BitRate, Delay, EncodeError, End, Forwarding, Link, LinkIx, Metric, NoPath, Node,
    NodeIx, Path, Query, Snapshot, Switch, Topology, Tree, encode_segments, shortest_path,
};

/// (from, to, cost, delay, capacity in Mbit/s).
type Edge = (usize, usize, u32, u64, u64);

fn network(nodes: usize, edges: &[Edge]) -> Snapshot {
    let name = |n: usize| format!("n{n}").parse().unwrap();
    let end =
        |n: usize, port: usize| End { node: name(n), port: format!("p{port}").parse().unwrap() };
    let links = edges.iter().enumerate().map(|(i, &(a, b, cost, delay, mbps))| Link {
        cost: Some(cost),
        delay: Some(Delay(delay)),
        capacity: (mbps > 0).then(|| BitRate::from_mbps(mbps)),
        ..Link::new(end(a, i), end(b, i))
    });
    let nodes: BTreeMap<_, _> =
        (0..nodes).map(|n| (name(n), Node::Switch(Switch::default()))).collect();
    let topology = Topology { name: "t".parse().unwrap(), nodes, links: links.collect() };
    Snapshot::new(Arc::new(topology), 1)
}

prop_compose! {
    fn small()(nodes in 2usize..6)(
        edges in proptest::collection::vec(
            (0..nodes, 1..nodes, 1u32..4, 0u64..3, 0u64..4),
            0..10,
        ),
        nodes in Just(nodes),
    ) -> (usize, Vec<Edge>) {
        // The second number is how far the other end is around, so no link is to itself.
        let edges = edges.into_iter().map(|(a, by, c, d, m)| (a, (a + by) % nodes, c, d, m));
        (nodes, edges.collect())
    }
}

/// Every loop-free walk.
fn all_paths(snapshot: &Snapshot, from: NodeIx, to: NodeIx) -> Vec<Path> {
    let mut found = Vec::new();
    let mut stack = vec![(vec![from], Vec::<ArcIx>::new())];
    while let Some((nodes, arcs)) = stack.pop() {
        let at = nodes[nodes.len() - 1];
        if at == to {
            found.push(Path { nodes, arcs });
            continue;
        }
        for arc in snapshot.arcs_from(at).iter().filter(|arc| !nodes.contains(&arc.to)) {
            let mut longer = (nodes.clone(), arcs.clone());
            longer.0.push(arc.to);
            longer.1.push(arc.ix);
            stack.push(longer);
        }
    }
    found
}

fn length(snapshot: &Snapshot, path: &Path, metric: Metric) -> (u64, usize) {
    let sum = path.arcs.iter().map(|ix| metric.of(snapshot.arc(*ix).unwrap())).sum();
    (sum, path.arcs.len())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn shortest_is_what_brute_force_finds(
        (nodes, edges) in small(),
        metric in prop_oneof![Just(Metric::Cost), Just(Metric::Delay)],
        mbps in proptest::option::of(1u64..5),
        without_links in proptest::collection::btree_set(0u32..10, 0..3),
        without_nodes in proptest::collection::btree_set(0u32..6, 0..2),
    ) {
        let snapshot = network(nodes, &edges);
        for from in snapshot.nodes() {
            for to in snapshot.nodes() {
                let query = Query {
                    min_bandwidth: mbps.map(BitRate::from_mbps),
                    without_links: without_links.iter().copied().map(LinkIx).collect(),
                    without_nodes: without_nodes.iter().copied().map(NodeIx).collect(),
                    ..Query::new(from, to, metric)
                };
                let allowed = |path: &Path| {
                    let inner = path.nodes.iter().filter(|n| **n != from && **n != to);
                    inner.clone().all(|n| !query.without_nodes.contains(n))
                        && path.arcs.iter().all(|ix| {
                            let arc = snapshot.arc(*ix).unwrap();
                            !query.without_links.contains(&ix.link())
                                && arc.capacity.zip(query.min_bandwidth).is_none_or(|(c, w)| c >= w)
                        })
                };
                let all = all_paths(&snapshot, from, to);
                let best = all.iter().filter(|p| allowed(p)).map(|p| length(&snapshot, p, metric)).min();
                match shortest_path(&snapshot, &query) {
                    Ok(path) => {
                        prop_assert!(allowed(&path));
                        prop_assert_eq!(Some(length(&snapshot, &path, metric)), best);
                        let again = Path::from_arcs(&snapshot, from, path.arcs.clone());
                        prop_assert_eq!(&again, &path);
                    }
                    Err(why) => {
                        prop_assert_eq!(best, None, "{}", why);
                        prop_assert_eq!(matches!(why, NoPath::Disconnected { .. }), all.is_empty());
                        if let NoPath::Bandwidth { widest, wanted, .. } = why {
                            prop_assert!(widest < wanted);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn trees_are_shortest_loop_free_and_the_same_with_links_in_any_order(
        (nodes, edges) in small(),
        down in proptest::collection::btree_set(0u32..10, 0..3),
    ) {
        let down: Vec<LinkIx> =
            down.into_iter().filter(|l| (*l as usize) < edges.len()).map(LinkIx).collect();
        let snapshot = network(nodes, &edges).with_down(2, down);
        for root in snapshot.nodes() {
            let tree = Tree::toward(&snapshot, root, Metric::Cost);
            for from in snapshot.nodes() {
                let best = all_paths(&snapshot, from, root)
                    .iter()
                    .map(|p| length(&snapshot, p, Metric::Cost))
                    .min();
                let path = tree.path(&snapshot, from);
                prop_assert_eq!(path.as_ref().map(|p| length(&snapshot, p, Metric::Cost)), best);
                prop_assert_eq!(tree.reaches(from), best.is_some());
                if let Some(path) = path {
                    let unique: BTreeSet<_> = path.nodes.iter().collect();
                    prop_assert_eq!(unique.len(), path.nodes.len());
                    prop_assert!(path.arcs.iter().all(|arc| !snapshot.is_down(arc.link())));
                }
            }
        }
    }

    #[test]
    fn waypoints_lead_along_the_path_and_are_the_fewest((nodes, edges) in small()) {
        let snapshot = network(nodes, &edges);
        let forwarding = Forwarding::new(&snapshot);
        for from in snapshot.nodes() {
            for to in snapshot.nodes() {
                for path in all_paths(&snapshot, from, to) {
                    let encoded = encode_segments(&snapshot, &forwarding, &path, usize::MAX);
                    let fewest = fewest_waypoints(&snapshot, &forwarding, &path);
                    match encoded {
                        Ok(waypoints) => {
                            prop_assert_eq!(Some(waypoints.len()), fewest);
                            let mut arcs = Vec::new();
                            let mut at = from;
                            for waypoint in waypoints {
                                let tree = forwarding.tree(&snapshot, waypoint);
                                arcs.extend(tree.walk(&snapshot, at).map(|arc| arc.ix));
                                at = waypoint;
                            }
                            prop_assert_eq!(&arcs, &path.arcs);
                        }
                        Err(EncodeError::OffTree { .. }) => prop_assert_eq!(fewest, None),
                        Err(error) => prop_assert!(false, "{}", error),
                    }
                }
            }
        }
    }
}

/// By trying every way to cut the path.
fn fewest_waypoints(snapshot: &Snapshot, forwarding: &Forwarding, path: &Path) -> Option<usize> {
    let hops = path.arcs.len();
    let mut fewest: Vec<Option<usize>> = vec![None; hops + 1];
    fewest[0] = Some(0);
    for end in 1..=hops {
        for start in 0..end {
            let tree = forwarding.tree(snapshot, path.nodes[end]);
            let arcs: Vec<ArcIx> =
                tree.walk(snapshot, path.nodes[start]).map(|arc| arc.ix).collect();
            if let (true, Some(before)) = (arcs == path.arcs[start..end], fewest[start]) {
                fewest[end] = Some(fewest[end].map_or(before + 1, |known| known.min(before + 1)));
            }
        }
    }
    fewest[hops]
}

#[test]
fn why_there_is_no_path() {
    let snapshot = network(4, &[(0, 1, 1, 1, 10), (1, 2, 1, 1, 5), (0, 2, 9, 1, 3)]);
    let (n0, n2, n3) = (NodeIx(0), NodeIx(2), NodeIx(3));
    let error = |query: &Query| shortest_path(&snapshot, query).unwrap_err().to_string();
    assert_eq!(
        error(&Query::new(n0, n3, Metric::Cost)),
        "n0 and n3 are not connected: from n0 one reaches 3 of 4 switches"
    );
    let mut query = Query::new(n0, n2, Metric::Cost);
    query.min_bandwidth = Some(BitRate::from_mbps(7));
    assert_eq!(
        error(&query),
        "no path from n0 to n2 has 7Mbps: the widest has 5Mbps, its bottleneck is n1:p1 - n2:p1"
    );
    query.min_bandwidth = None;
    query.without_links = [LinkIx(1), LinkIx(2)].into();
    assert_eq!(error(&query), "every path from n0 to n2 goes over what is excluded");
}

#[test]
fn ties_go_by_name() {
    // Two equal ways over n1 and n2, and two parallel links to each.
    let edges =
        [(0, 2, 1, 0, 0), (2, 3, 1, 0, 0), (0, 1, 1, 0, 0), (0, 1, 1, 0, 0), (1, 3, 1, 0, 0)];
    let snapshot = network(4, &edges);
    let path = shortest_path(&snapshot, &Query::new(NodeIx(0), NodeIx(3), Metric::Cost)).unwrap();
    assert_eq!(path.arcs, [ArcIx::new(LinkIx(2), true), ArcIx::new(LinkIx(4), true)]);
    assert_eq!(path.nodes, [NodeIx(0), NodeIx(1), NodeIx(3)]);
    // The other parallel link cannot be written with node ids.
    let other = Path::from_arcs(
        &snapshot,
        NodeIx(0),
        vec![ArcIx::new(LinkIx(3), true), ArcIx::new(LinkIx(4), true)],
    );
    let forwarding = Forwarding::new(&snapshot);
    let error = encode_segments(&snapshot, &forwarding, &other, 6).unwrap_err();
    assert!(error.to_string().contains("no way-point leads over n0:p3 - n1:p3"), "{error}");
    // A detour over n2 takes a way-point.
    let detour = Path::from_arcs(
        &snapshot,
        NodeIx(0),
        vec![ArcIx::new(LinkIx(0), true), ArcIx::new(LinkIx(1), true)],
    );
    let encoded = encode_segments(&snapshot, &forwarding, &detour, 6).unwrap();
    assert_eq!(encoded, [NodeIx(2), NodeIx(3)]);
    assert_eq!(
        encode_segments(&snapshot, &forwarding, &detour, 1),
        Err(EncodeError::TooLong { needed: 2, limit: 1 })
    );
}
