//! Paths against brute force, on small networks where everything collides.

mod common;

use common::{all_paths, constraints, edge, in_order, length, metric, network, small};
use proptest::prelude::*;
use selvedge_topology::{
    AllPairs, ArcIx, BitRate, Constraints, Delay, Elements, EncodeError, EqualCost, Forwarding,
    LinkIx, Metric, NodeIx, NotFound, Path, Query, Scratch, Sid, Snapshot, Tree, cheapest, encode,
    encode_segments, explain, follow, k_shortest, lengths_from,
};
use std::collections::BTreeSet;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn the_cheapest_is_what_brute_force_finds(
        (nodes, edges) in small(6, 12),
        metric in metric(),
        constraints in constraints(),
        down in proptest::collection::btree_set(0u32..12, 0..2),
    ) {
        let down = down.into_iter().filter(|l| (*l as usize) < edges.len()).map(LinkIx);
        let snapshot = network(nodes, &edges).with_down(2, down);
        let mut scratch = Scratch::new();
        for from in snapshot.nodes() {
            for to in snapshot.nodes() {
                let want = in_order(&snapshot, from, to, metric, &constraints);
                let query = Query { from, to, metric, constraints: &constraints };
                let found = cheapest(snapshot.graph(), &mut scratch, &query);
                prop_assert_eq!(found.as_ref().ok(), want.first());
                prop_assert!(matches!(found, Ok(_) | Err(NotFound::NoPath)), "{:?}", found);
            }
        }
    }

    #[test]
    fn the_k_shortest_are_the_first_of_all(
        (nodes, edges) in small(6, 10),
        metric in metric(),
        constraints in prop_oneof![Just(Constraints::default()), constraints()],
        k in 1usize..12,
    ) {
        let snapshot = network(nodes, &edges);
        let mut scratch = Scratch::new();
        for (from, to) in [(0, 1), (1, 0), (0, 0)].map(|(a, b)| (NodeIx(a), NodeIx(b))) {
            let mut want = in_order(&snapshot, from, to, metric, &constraints);
            want.truncate(k);
            let query = Query { from, to, metric, constraints: &constraints };
            let found = k_shortest(snapshot.graph(), &mut scratch, &query, k);
            prop_assert_eq!(found.unwrap_or_default(), want);
        }
    }

    #[test]
    fn all_pairs_and_equal_cost_sets_are_those_of_brute_force(
        (nodes, edges) in small(6, 10),
        metric in metric(),
        threads in 1usize..3,
    ) {
        let snapshot = network(nodes, &edges);
        let graph = snapshot.graph();
        let all_pairs = AllPairs::new(graph, metric, threads);
        let mut scratch = Scratch::new();
        for to in snapshot.nodes() {
            let sets = EqualCost::toward(graph, to, metric);
            for from in snapshot.nodes() {
                let all = all_paths(&snapshot, from, to);
                let least = all.iter().map(|p| length(&snapshot, p, metric).0).min();
                prop_assert_eq!(all_pairs.length(from, to), least);
                let one = lengths_from(graph, &mut scratch, from, metric)[to.index()];
                prop_assert_eq!(Some(one.sum()).filter(|_| !one.is_none()), least);
                if metric == Metric::Delay {
                    continue; // equal sums over links of no delay are no order: see below
                }
                let shortest = all.iter().filter(|p| Some(length(&snapshot, p, metric).0) == least);
                let first: BTreeSet<ArcIx> =
                    shortest.filter_map(|p| p.arcs.first().copied()).collect();
                prop_assert_eq!(sets.next(from).iter().copied().collect::<BTreeSet<_>>(), first);
            }
        }
    }

    #[test]
    fn equal_cost_sets_over_links_of_no_delay_lead_to_the_end(
        (nodes, edges) in small(6, 12),
    ) {
        let snapshot = network(nodes, &edges);
        for to in snapshot.nodes() {
            let sets = EqualCost::toward(snapshot.graph(), to, Metric::Delay);
            let least = |from: NodeIx| {
                let all = all_paths(&snapshot, from, to);
                all.iter().map(|path| length(&snapshot, path, Metric::Delay).0).min()
            };
            for from in snapshot.nodes() {
                let set = sets.next(from);
                prop_assert_eq!(set.is_empty(), from == to || least(from).is_none());
                for arc in snapshot.arcs_from(from) {
                    let weight = Metric::Delay.of(arc);
                    let shortest = least(arc.to).map(|rest| rest + weight) == least(from);
                    let shortest = shortest && from != to && least(from).is_some();
                    // Of links of no delay some are left out, so that nothing goes in circles.
                    prop_assert!(shortest || !set.contains(&arc.ix));
                    prop_assert!(!shortest || weight == 0 || set.contains(&arc.ix));
                }
                let (mut at, mut hops) = (vec![from], 0);
                while at != [to] && !set.is_empty() {
                    let next = at.iter().flat_map(|node| match sets.next(*node) {
                        [] => vec![*node],
                        arcs => arcs.iter().map(|arc| snapshot.arc(*arc).unwrap().to).collect(),
                    });
                    at = next.collect::<BTreeSet<_>>().into_iter().collect();
                    hops += 1;
                    prop_assert!(hops < nodes, "in circles from {:?} to {:?}", from, to);
                }
            }
        }
    }

    #[test]
    fn trees_are_shortest_loop_free_and_first_by_name(
        (nodes, edges) in small(6, 10),
        down in proptest::collection::btree_set(0u32..10, 0..3),
    ) {
        let down = down.into_iter().filter(|l| (*l as usize) < edges.len()).map(LinkIx);
        let snapshot = network(nodes, &edges).with_down(2, down);
        let none = Constraints::default();
        for root in snapshot.nodes() {
            let tree = Tree::toward(&snapshot, root, Metric::Cost);
            for from in snapshot.nodes() {
                let want = in_order(&snapshot, from, root, Metric::Cost, &none);
                let path = tree.path(&snapshot, from);
                prop_assert_eq!(path.as_ref(), want.first());
                prop_assert_eq!(tree.reaches(from), !want.is_empty());
            }
        }
    }

    #[test]
    fn ids_lead_along_the_path_and_are_the_fewest(
        (nodes, edges) in small(5, 8),
        hooks in proptest::collection::vec(0usize..5, 0..3),
    ) {
        let snapshot = network(nodes, &edges);
        let forwarding = Forwarding::new(&snapshot);
        let ends = |from| all_paths(&snapshot, NodeIx(from), NodeIx(1));
        for path in ends(0).into_iter().chain(ends(1)) {
            let mut hooks: Vec<usize> = hooks.iter().map(|at| at % path.nodes.len()).collect();
            hooks.sort_unstable();
            let fewest = fewest_sids(&snapshot, &forwarding, &path, &hooks);
            match encode(&snapshot, &forwarding, &path, &hooks, usize::MAX) {
                Ok(sids) => {
                    prop_assert_eq!(Some(sids.len()), fewest);
                    prop_assert_eq!(&follow(&snapshot, &forwarding, path.from(), &sids), &path.arcs);
                    let (mut at, mut hook) = (path.from(), 0);
                    for sid in sids {
                        match sid {
                            Sid::Node(node) => at = node,
                            Sid::Hook(index) => {
                                prop_assert_eq!((index, at), (hook, path.nodes[hooks[hook]]));
                                hook += 1;
                            }
                            Sid::Deliver => prop_assert_eq!((hook, at), (hooks.len(), path.to())),
                        }
                    }
                }
                Err(EncodeError::OffTree { .. }) => prop_assert_eq!(fewest, None),
                Err(error) => prop_assert!(false, "{}", error),
            }
        }
    }
}

/// By trying every way to cut the path.
fn fewest_sids(
    snapshot: &Snapshot,
    forwarding: &Forwarding,
    path: &Path,
    hooks: &[usize],
) -> Option<usize> {
    let hops = path.arcs.len();
    let mut fewest: Vec<Option<usize>> = vec![None; hops + 1];
    let hooks_at = |position: usize| hooks.iter().filter(|at| **at == position).count();
    fewest[0] = Some(hooks_at(0));
    for end in 1..=hops {
        for start in 0..end {
            let tree = forwarding.tree(snapshot, path.nodes[end]);
            let arcs: Vec<ArcIx> =
                tree.walk(snapshot, path.nodes[start]).map(|arc| arc.ix).collect();
            let over_a_hook = (start + 1..end).any(|position| hooks_at(position) > 0);
            if arcs != path.arcs[start..end] || over_a_hook {
                continue;
            }
            if let Some(before) = fewest[start] {
                let all = before + 1 + hooks_at(end);
                fewest[end] = Some(fewest[end].map_or(all, |known| known.min(all)));
            }
        }
    }
    fewest[hops].map(|fewest| fewest + 1)
}

#[test]
fn why_there_is_no_path() {
    let edges = [edge(0, 1, 1, 1, 10), edge(1, 2, 1, 1, 5), edge(0, 2, 9, 1, 3)];
    let snapshot = network(4, &edges);
    let (from, n2, n3) = (NodeIx(0), NodeIx(2), NodeIx(3));
    let error = |to, constraints: &Constraints| {
        let query = Query { from, to, metric: Metric::Cost, constraints };
        let mut scratch = Scratch::new();
        assert_eq!(cheapest(snapshot.graph(), &mut scratch, &query), Err(NotFound::NoPath));
        explain(snapshot.graph(), &mut scratch, &query).unwrap().describe(&snapshot)
    };
    let mut constraints = Constraints::default();
    assert_eq!(
        error(n3, &constraints),
        "n0 and n3 are not connected: from n0 one reaches 3 of 4 switches"
    );
    constraints.bandwidth = Some(BitRate::from_mbps(7));
    assert_eq!(
        error(n2, &constraints),
        "no path from n0 to n2 keeps to the constraints; there is one with 5Mbps (2Mbps less than \
         asked; the bottleneck is n1:p1 - n2:p1)"
    );
    constraints.bandwidth = Some(BitRate::from_mbps(4));
    constraints.max_delay = Some(Delay(1));
    assert_eq!(
        error(n2, &constraints),
        "no path from n0 to n2 keeps to the constraints; there is one with a delay of 2us (1us \
         more than asked), or with 3Mbps (1Mbps less than asked; the bottleneck is n0:p2 - n2:p2)"
    );
    let exclude = Elements { links: [LinkIx(1), LinkIx(2)].into(), ..Elements::default() };
    let constraints = Constraints { exclude, ..Constraints::default() };
    assert_eq!(
        error(n2, &constraints),
        "no path from n0 to n2 keeps to the constraints; there is one over what is excluded: \
         n0:p2 - n2:p2"
    );
}

#[test]
fn ties_go_by_name() {
    // Two equal ways over n1 and n2, and two parallel links to each.
    let ends = [(0, 2), (2, 3), (0, 1), (0, 1), (1, 3)];
    let edges = ends.map(|(a, b)| edge(a, b, 1, 0, 0));
    let snapshot = network(4, &edges);
    let none = Constraints::default();
    let query = Query { from: NodeIx(0), to: NodeIx(3), metric: Metric::Cost, constraints: &none };
    let path = cheapest(snapshot.graph(), &mut Scratch::new(), &query).unwrap();
    let arc = |link| ArcIx::new(LinkIx(link), true);
    assert_eq!(path.arcs, [arc(2), arc(4)]);
    assert_eq!(path.nodes, [NodeIx(0), NodeIx(1), NodeIx(3)]);
    // The other parallel link cannot be written with node ids.
    let other = Path::from_arcs(&snapshot, NodeIx(0), vec![arc(3), arc(4)]);
    let forwarding = Forwarding::new(&snapshot);
    let error = encode_segments(&snapshot, &forwarding, &other, 6).unwrap_err();
    assert!(error.to_string().contains("no way-point leads over n0:p3 - n1:p3"), "{error}");
    // A detour over n2 takes a way-point.
    let detour = Path::from_arcs(&snapshot, NodeIx(0), vec![arc(0), arc(1)]);
    let encoded = encode_segments(&snapshot, &forwarding, &detour, 6).unwrap();
    assert_eq!(encoded, [NodeIx(2), NodeIx(3)]);
    assert_eq!(
        encode_segments(&snapshot, &forwarding, &detour, 1),
        Err(EncodeError::TooLong { needed: 2, limit: 1 })
    );
    let sids = encode(&snapshot, &forwarding, &detour, &[1, 1, 2], 6);
    assert_eq!(
        sids.unwrap(),
        [
            Sid::Node(NodeIx(2)),
            Sid::Hook(0),
            Sid::Hook(1),
            Sid::Node(NodeIx(3)),
            Sid::Hook(2),
            Sid::Deliver
        ]
    );
    let error = encode(&snapshot, &forwarding, &detour, &[1, 1, 2, 2], 6).unwrap_err();
    assert_eq!(error, EncodeError::TooManySids { needed: 7, limit: 6 });
}

/// Of two ways from the middle to the end the cheaper has more hops, and must not hide the other:
/// the bound leaves one detour, and that before the middle saves more.
#[test]
fn a_cheaper_rest_of_more_hops_does_not_hide_one_of_fewer() {
    let ends = [(0, 1, 5), (0, 3, 1), (3, 1, 1), (1, 2, 4), (1, 4, 1), (4, 2, 2)];
    let snapshot = network(5, &ends.map(|(a, b, cost)| edge(a, b, cost, 0, 0)));
    let constraints = Constraints { max_hops: Some(3), ..Constraints::default() };
    let (from, to, metric) = (NodeIx(0), NodeIx(2), Metric::Cost);
    let query = Query { from, to, metric, constraints: &constraints };
    let path = cheapest(snapshot.graph(), &mut Scratch::new(), &query).unwrap();
    assert_eq!(path.nodes, [0, 3, 1, 2].map(NodeIx));
}
