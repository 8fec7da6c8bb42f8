//! Links that are longer or narrower one way than the other, as what is left of their capacity
//! makes them: everything against brute force over a list of arcs of the test's own.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use selvedge_topology::{
    AllPairs, ArcIx, BitRate, Constraints, Delay, Disjoint, EqualCost, Figures, Graph, GraphLink,
    LinkIx, Live, Metric, NoPair, NodeIx, NotFound, Path, Policy, Query, Scratch, cheapest,
    disjoint_pair, k_shortest, lengths_from,
};

#[derive(Clone, Copy, Debug)]
struct Arc {
    from: u32,
    to: u32,
    link: u32,
    forth: bool,
    cost: u32,
    delay: u32,
    /// Mbit/s; 0: not stated.
    capacity: u64,
    group: u32,
}

#[derive(Clone, Debug)]
struct Net {
    nodes: u32,
    arcs: Vec<Arc>,
    links: u32,
}

prop_compose! {
    fn net(most_nodes: u32, most_links: usize)(nodes in 3..=most_nodes)(
        links in vec(
            ((0..nodes, 1..nodes), (1u32..5, 1u32..5), (0u32..4, 0u32..4), (0u64..4, 0u64..4), 0u32..4),
            0..=most_links,
        ),
        nodes in Just(nodes),
    ) -> Net {
        let arcs = (0..).zip(&links).flat_map(|(link, ((a, by), cost, delay, capacity, group))| {
            let (a, b, group) = (*a, (a + by) % nodes, *group);
            let arc = |from, to, forth, cost, delay, capacity| {
                Arc { from, to, link, forth, cost, delay, capacity, group }
            };
            [
                arc(a, b, true, cost.0, delay.0, capacity.0),
                arc(b, a, false, cost.1, delay.1, capacity.1),
            ]
        });
        Net { nodes, arcs: arcs.collect(), links: links.len() as u32 }
    }
}

impl Net {
    fn graph(&self) -> Graph {
        let figures = |arc: &Arc| Figures {
            cost: arc.cost,
            delay_us: arc.delay,
            capacity: (arc.capacity > 0).then(|| BitRate::from_mbps(arc.capacity)),
        };
        let link = |arc: &Arc| GraphLink {
            a: NodeIx(arc.from),
            b: NodeIx(arc.to),
            figures: figures(arc),
            srlgs: vec![arc.group],
            affinity: 0,
        };
        let forth = self.arcs.iter().filter(|arc| arc.forth);
        let links: Vec<Option<GraphLink>> = forth.map(|arc| Some(link(arc))).collect();
        let mut graph = Graph::new(self.nodes as usize, &links);
        for arc in &self.arcs {
            graph.set_figures(arc.ix(), figures(arc));
        }
        graph
    }

    fn without(&self, down: &BTreeSet<u32>) -> Self {
        let mut left = self.clone();
        left.arcs.retain(|arc| !down.contains(&arc.link));
        left
    }

    /// All loop-free ways that keep to constraints, by length, hops and name.
    fn ways(&self, from: u32, to: u32, metric: Metric, asked: &Constraints) -> Vec<Way> {
        let mut found = BTreeMap::new();
        let mut stack = vec![Way(from, Vec::new())];
        while let Some(way) = stack.pop() {
            let at = way.1.last().map_or(from, |arc| arc.to);
            if at == to {
                if way.keeps(asked) {
                    found.insert((way.length(metric), way.1.len(), way.name()), way);
                }
                continue;
            }
            for arc in self.arcs.iter().filter(|arc| arc.from == at) {
                if arc.to != from && way.1.iter().all(|passed| passed.to != arc.to) {
                    let mut longer = way.clone();
                    longer.1.push(*arc);
                    stack.push(longer);
                }
            }
        }
        found.into_values().collect()
    }
}

impl Arc {
    fn ix(&self) -> ArcIx {
        ArcIx::new(LinkIx(self.link), self.forth)
    }
}

#[derive(Clone, Debug)]
struct Way(u32, Vec<Arc>);

impl Way {
    fn length(&self, metric: Metric) -> u64 {
        let of = |arc: &Arc| match metric {
            Metric::Cost => u64::from(arc.cost),
            Metric::Delay => u64::from(arc.delay),
            Metric::Hops => 1,
        };
        self.1.iter().map(of).sum()
    }

    fn name(&self) -> Vec<(u32, u32, bool)> {
        self.1.iter().map(|arc| (arc.to, arc.link, !arc.forth)).collect()
    }

    fn keeps(&self, asked: &Constraints) -> bool {
        asked.max_delay.is_none_or(|most| self.length(Metric::Delay) <= most.us())
            && asked.max_hops.is_none_or(|most| self.1.len() <= most as usize)
            && asked.bandwidth.is_none_or(|want| {
                let wide = |arc: &Arc| arc.capacity == 0 || arc.capacity * 1_000_000 >= want.bps();
                self.1.iter().all(wide)
            })
    }

    fn path(&self) -> Path {
        let nodes = std::iter::once(self.0).chain(self.1.iter().map(|arc| arc.to)).map(NodeIx);
        Path { nodes: nodes.collect(), arcs: self.1.iter().map(Arc::ix).collect() }
    }

    fn apart(&self, other: &Self, disjoint: Disjoint) -> bool {
        let shares = |a: &Arc| {
            other.1.iter().any(|b| {
                a.link == b.link
                    || (disjoint == Disjoint::Srlg && a.group == b.group)
                    || (disjoint == Disjoint::Node
                        && a.to == b.to
                        && a.to != self.1[self.1.len() - 1].to)
            })
        };
        !self.1.iter().any(shares)
    }
}

fn metric() -> impl Strategy<Value = Metric> {
    prop_oneof![Just(Metric::Cost), Just(Metric::Delay), Just(Metric::Hops)]
}

prop_compose! {
    fn bounds()(
        max_delay in proptest::option::of(0u64..12),
        max_hops in proptest::option::of(0u32..6),
        mbps in proptest::option::of(1u64..4),
    ) -> Constraints {
        Constraints {
            max_delay: max_delay.map(Delay),
            max_hops,
            bandwidth: mbps.map(BitRate::from_mbps),
            ..Constraints::default()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn paths_are_those_of_brute_force(net in net(7, 13), metric in metric(), asked in bounds()) {
        let (graph, mut scratch) = (net.graph(), Scratch::new());
        for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0)] {
            let want: Vec<Path> =
                net.ways(from, to, metric, &asked).iter().map(Way::path).collect();
            let (from, to) = (NodeIx(from), NodeIx(to));
            let query = Query { from, to, metric, constraints: &asked };
            let first = want.first().cloned().ok_or(NotFound::NoPath);
            prop_assert_eq!(cheapest(&graph, &mut scratch, &query), first);
            let some: Vec<Path> = want.into_iter().take(9).collect();
            prop_assert_eq!(k_shortest(&graph, &mut scratch, &query, 9).unwrap_or_default(), some);
        }
    }

    #[test]
    fn pairs_are_those_of_brute_force(
        net in net(6, 13),
        metric in metric(),
        asked in prop_oneof![Just(Constraints::default()), bounds()],
        disjoint in prop_oneof![Just(Disjoint::Link), Just(Disjoint::Node), Just(Disjoint::Srlg)],
    ) {
        let (from, to) = (NodeIx(0), NodeIx(1));
        let all = net.ways(0, 1, metric, &asked);
        let length = |way: &Way| (way.length(metric), way.1.len() as u64);
        let sum = |a: &Way, b: &Way| (length(a).0 + length(b).0, length(a).1 + length(b).1);
        let pairs = all.iter().enumerate().flat_map(|(i, a)| all[i..].iter().map(move |b| (a, b)));
        let least =
            pairs.filter(|(a, b)| a.apart(b, disjoint)).map(|(a, b)| sum(a, b)).min();
        let query = Query { from, to, metric, constraints: &asked };
        match disjoint_pair(&net.graph(), &mut Scratch::new(), &query, disjoint) {
            Ok(pair) => {
                let way = |path: &Path| all.iter().find(|way| way.path() == *path);
                let (Some(a), Some(b)) = (way(&pair.first), way(&pair.second)) else {
                    return Err(TestCaseError::fail(format!("{pair:?} does not keep to {asked:?}")));
                };
                prop_assert!(a.apart(b, disjoint) && length(a) <= length(b));
                prop_assert_eq!(Some(sum(a, b)), least);
            }
            Err(NoPair::NotFound(NotFound::NoPath)) => prop_assert!(all.is_empty()),
            Err(NoPair::Shared(_) | NoPair::None) => prop_assert!(least.is_none() && !all.is_empty()),
            Err(error) => prop_assert!(false, "{}", error),
        }
    }

    #[test]
    fn lengths_and_equal_cost_sets_are_those_of_brute_force(
        net in net(7, 13),
        metric in metric(),
        threads in 1usize..3,
    ) {
        let (graph, none) = (net.graph(), Constraints::default());
        let all_pairs = AllPairs::new(&graph, metric, threads);
        let mut scratch = Scratch::new();
        for from in 0..net.nodes {
            let row = lengths_from(&graph, &mut scratch, NodeIx(from), metric);
            for to in 0..net.nodes {
                let ways = net.ways(from, to, metric, &none);
                let least = ways.first().map(|way| way.length(metric));
                let length = row[to as usize];
                prop_assert_eq!(Some(length.sum()).filter(|_| !length.is_none()), least);
                prop_assert_eq!(all_pairs.length(NodeIx(from), NodeIx(to)), least);
                if metric == Metric::Delay {
                    continue; // links of no delay: tests/paths.rs
                }
                let shortest = ways.iter().filter(|way| Some(way.length(metric)) == least);
                let first: BTreeSet<ArcIx> =
                    shortest.filter_map(|way| way.1.first()).map(Arc::ix).collect();
                let set = EqualCost::toward(&graph, NodeIx(to), metric);
                prop_assert_eq!(set.next(NodeIx(from)).iter().copied().collect::<BTreeSet<_>>(), first);
            }
        }
    }

    /// Next hops, backups and policies as links fail and come back, each time all of them.
    #[test]
    fn what_is_kept_is_what_brute_force_finds(
        net in net(6, 11),
        steps in vec(0u32..11, 1..5),
        bound in proptest::option::of(2u64..8),
        down in btree_set(0u32..11, 0..2),
    ) {
        if net.links == 0 {
            return Ok(());
        }
        let mut down: BTreeSet<u32> = down.into_iter().filter(|link| *link < net.links).collect();
        let max_delay = bound.map(Delay);
        let nodes = || (0..net.nodes).map(NodeIx);
        let pairs = nodes().flat_map(|from| nodes().map(move |to| (from, to)));
        let policies: Vec<Policy> = pairs
            .filter(|(from, to)| from != to)
            .map(|(from, to)| Policy { from, to, max_delay })
            .collect();
        let mut graph = net.graph();
        down.iter().for_each(|link| graph.set_up(LinkIx(*link), false));
        let mut live = Live::new(graph, policies.clone(), 1);
        for step in steps {
            let link = step % net.links;
            if down.remove(&link) {
                live.restore(LinkIx(link));
            } else {
                down.insert(link);
                live.fail(LinkIx(link));
            }
            let left = net.without(&down);
            let none = Constraints::default();
            let bounded = Constraints { max_delay, ..Constraints::default() };
            for Policy { from, to, .. } in &policies {
                let ways = left.ways(from.0, to.0, Metric::Cost, &none);
                let first = ways.first().map(|way| way.1[0].ix());
                prop_assert_eq!(live.routes().next(*to, *from), first);
                let length = live.routes().length(*to, *from);
                let length = Some(length.sum()).filter(|_| !length.is_none());
                prop_assert_eq!(length, ways.first().map(|way| way.length(Metric::Cost)));
            }
            for (Policy { from, to, .. }, placed) in policies.iter().zip(live.placed()) {
                let ways = left.ways(from.0, to.0, Metric::Cost, &bounded);
                prop_assert_eq!(placed.path.clone().ok(), ways.first().map(Way::path));
            }
            for arc in left.arcs.iter() {
                let around = left.without(&[arc.link].into());
                let ways = around.ways(arc.from, arc.to, Metric::Cost, &none);
                let backup = live.backups().link(arc.ix()).map(|backup| backup.path.clone());
                prop_assert_eq!(backup, ways.first().map(Way::path));
            }
        }
    }
}
