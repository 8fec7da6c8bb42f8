//! Pairs of disjoint paths against all pairs of all paths.

mod common;

use common::{apart, constraints, in_order, length, metric, network, small};
use proptest::prelude::*;
use selvedge_topology::{
    Constraints, Disjoint, NoPair, NodeIx, NotFound, Path, Query, Scratch, Shared, disjoint_pair,
    is_disjoint,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn the_least_pair_is_what_brute_force_finds(
        (nodes, edges) in small(6, 11),
        metric in metric(),
        constraints in prop_oneof![Just(Constraints::default()), constraints()],
        disjoint in prop_oneof![Just(Disjoint::Link), Just(Disjoint::Node), Just(Disjoint::Srlg)],
    ) {
        let snapshot = network(nodes, &edges);
        let graph = snapshot.graph();
        let (from, to) = (NodeIx(0), NodeIx(1));
        let all = in_order(&snapshot, from, to, metric, &constraints);
        let total = |a: &Path, b: &Path| {
            let (a, b) = (length(&snapshot, a, metric), length(&snapshot, b, metric));
            (a.0 + b.0, a.1 + b.1)
        };
        let pairs = all.iter().enumerate().flat_map(|(i, a)| all[i + 1..].iter().map(move |b| (a, b)));
        let pairs = pairs.filter(|(a, b)| apart(&snapshot, a, b, disjoint));
        let least = pairs.map(|(a, b)| total(a, b)).min();
        let query = Query { from, to, metric, constraints: &constraints };
        match disjoint_pair(graph, &mut Scratch::new(), &query, disjoint) {
            Ok(pair) => {
                prop_assert!(all.contains(&pair.first) && all.contains(&pair.second));
                prop_assert!(apart(&snapshot, &pair.first, &pair.second, disjoint));
                prop_assert!(is_disjoint(graph, &pair.first, &pair.second, disjoint));
                let lengths = [&pair.first, &pair.second].map(|p| length(&snapshot, p, metric));
                prop_assert!(lengths.is_sorted());
                prop_assert_eq!(Some(total(&pair.first, &pair.second)), least);
            }
            Err(NoPair::NotFound(NotFound::NoPath)) => prop_assert!(all.is_empty()),
            Err(NoPair::Shared(shared)) => {
                let passes = |path: &Path| match shared {
                    Shared::Node(node) => path.nodes.contains(&node),
                    Shared::Link(link) => path.arcs.iter().any(|arc| arc.link() == link),
                    Shared::Srlg(srlg) => {
                        path.arcs.iter().any(|arc| graph.srlgs(arc.link()).contains(&srlg))
                    }
                };
                prop_assert!(!all.is_empty() && all.iter().all(passes));
                prop_assert_eq!(least, None);
            }
            Err(NoPair::None) => prop_assert_eq!(least, None),
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}
