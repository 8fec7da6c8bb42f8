//! Against a router of a few lines and against enumeration, on random small networks.

use proptest::collection::vec;
use proptest::prelude::*;

use super::change::{MAX_MOVES, ordered};
use super::routes::Routes;
use super::*;
use crate::BitRate;

/// A ring, so that all reach all, with chords; weights and capacities from few values, so that
/// equal-cost paths and full links are common. Capacities are up to 20 bit/s.
fn network(nodes: std::ops::Range<u32>) -> impl Strategy<Value = Network> {
    nodes.prop_flat_map(|n| {
        let figures = (1..4_u32, 5..20_u64);
        let ring = vec((figures.clone(), figures.clone()), n as usize);
        let chords = vec((0..n, 0..n, figures), 0..8);
        (ring, chords).prop_map(move |(ring, chords)| {
            let mut edges = Vec::new();
            let mut add = |from, to, (weight, capacity)| {
                let label = format!("e{}", edges.len());
                edges.push(Edge { label, from, to, weight, capacity: BitRate(capacity) });
            };
            for (node, (forth, back)) in (0..).zip(ring) {
                add(node, (node + 1) % n, forth);
                add((node + 1) % n, node, back);
            }
            for (from, to, figures) in chords.into_iter().filter(|chord| chord.0 != chord.1) {
                add(from, to, figures);
            }
            Network::new((0..n).map(|node| format!("n{node}")).collect(), edges)
        })
    })
}

fn demands(most: usize, rate: u64) -> impl Strategy<Value = Vec<(u32, u32, u64)>> {
    vec((0..100_u32, 0..99_u32, 0..rate), 1..most)
}

fn placed(network: &Network, demands: &[(u32, u32, u64)]) -> Vec<Demand> {
    let n = u32::try_from(network.len()).unwrap();
    let demand = |(i, (from, to, rate)): (usize, &(u32, u32, u64))| {
        let from = from % n;
        let to = (from + 1 + to % (n - 1)) % n;
        Demand { label: format!("d{i}"), from, to, rate: BitRate(*rate) }
    };
    demands.iter().enumerate().map(demand).collect()
}

fn never() -> bool {
    false
}

fn options(split: bool, max_rounds: usize) -> Options {
    Options { split, seed: 1, max_rounds }
}

/// Pushes `bps` from `from` to `to`, node by node, half and half at each; by distances from
/// Bellman and Ford.
fn route(network: &Network, from: u32, to: u32, bps: f64, utilisation: &mut [f64]) {
    let mut distance = vec![u64::MAX / 2; network.len()];
    distance[to as usize] = 0;
    for _ in 0..network.len() {
        for edge in network.edges() {
            let through = distance[edge.to as usize] + u64::from(edge.weight);
            let from = &mut distance[edge.from as usize];
            *from = (*from).min(through);
        }
    }
    let mut left = vec![(from, bps)];
    while let Some((node, bps)) = left.pop() {
        if node == to {
            continue;
        }
        let onward = network.edges().iter().enumerate().filter(|(_, edge)| {
            edge.from == node
                && distance[edge.to as usize] + u64::from(edge.weight) == distance[node as usize]
        });
        let onward: Vec<_> = onward.collect();
        for (link, edge) in &onward {
            let bps = bps / onward.len() as f64;
            utilisation[*link] += bps / edge.capacity.0 as f64;
            left.push((edge.to, bps));
        }
    }
}

fn routed(network: &Network, demands: &[Demand], plan: &Plan) -> Vec<f64> {
    let mut utilisation = vec![0.0; network.edges().len()];
    for (demand, shares) in demands.iter().zip(&plan.demands) {
        for share in shares {
            let bps = demand.rate.0 as f64 * f64::from(share.hundredths) / 100.0;
            let mut at = demand.from;
            for next in share.segments.iter().copied().chain([demand.to]) {
                route(network, at, next, bps, &mut utilisation);
                at = next;
            }
        }
    }
    utilisation
}

fn fullest(utilisation: &[f64]) -> f64 {
    utilisation.iter().copied().fold(0.0, f64::max)
}

/// All ways of at most two segments.
fn ways(nodes: u32) -> Vec<Vec<u32>> {
    let two = (0..nodes).flat_map(|a| (0..nodes).map(move |b| vec![a, b]));
    std::iter::once(Vec::new()).chain((0..nodes).map(|a| vec![a])).chain(two).collect()
}

/// A plan that sends each demand one of `ways`, by `picks`.
fn picked(demands: &[Demand], ways: &[Vec<u32>], picks: &[usize]) -> Plan {
    let share =
        |pick: usize| vec![Share { hundredths: 100, segments: ways[pick % ways.len()].clone() }];
    Plan { demands: (0..demands.len()).map(|i| share(picks[i % picks.len()])).collect() }
}

/// The least maximum over all unsplit plans.
fn enumerated(network: &Network, demands: &[Demand]) -> f64 {
    let ways = ways(u32::try_from(network.len()).unwrap());
    let mut picks = vec![0; demands.len()];
    let mut least = f64::INFINITY;
    loop {
        least = least.min(fullest(&routed(network, demands, &picked(demands, &ways, &picks))));
        let Some(at) = picks.iter().position(|pick| pick + 1 < ways.len()) else { return least };
        picks[at] += 1;
        picks[..at].fill(0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn utilisation_is_what_a_router_makes_it(
        network in network(3..8),
        demands in demands(12, 10),
        picks in vec(0..1000_usize, 12),
    ) {
        let demands = placed(&network, &demands);
        let routes = Routes::new(&network).unwrap();
        let plan = picked(&demands, &ways(u32::try_from(network.len()).unwrap()), &picks);
        let got = plan.utilisation(&routes, &demands);
        for (got, want) in got.iter().zip(routed(&network, &demands, &plan)) {
            prop_assert!((got - want).abs() < 1e-9, "{got} {want}");
        }
        // What enters a node and is not for it leaves it.
        let only = &demands[..1];
        let plan = Plan::shortest(1);
        let load = plan.utilisation(&routes, only);
        let mut balance = vec![0.0; network.len()];
        for (edge, load) in network.edges().iter().zip(load) {
            balance[edge.from as usize] += load * edge.capacity.0 as f64;
            balance[edge.to as usize] -= load * edge.capacity.0 as f64;
        }
        balance[only[0].from as usize] -= only[0].rate.0 as f64;
        balance[only[0].to as usize] += only[0].rate.0 as f64;
        prop_assert!(balance.iter().all(|left| left.abs() < 1e-9), "{balance:?}");
    }

    #[test]
    fn a_plan_is_never_worse_than_shortest_paths_nor_better_than_the_bound(
        network in network(3..8),
        demands in demands(20, 10),
        picks in vec(0..1000_usize, 20),
        split: bool,
    ) {
        let demands = placed(&network, &demands);
        let got = optimise(&network, &demands, options(split, 1), &never, &mut |_| ()).unwrap();
        let full = fullest(&routed(&network, &demands, &got.plan));
        prop_assert!((full - got.max_utilisation).abs() < 1e-9);
        prop_assert!(full <= got.shortest_paths + 1e-9);
        prop_assert!(got.bound <= full + 1e-9, "{} above {full}", got.bound);
        let other = picked(&demands, &ways(u32::try_from(network.len()).unwrap()), &picks);
        let other = fullest(&routed(&network, &demands, &other));
        prop_assert!(got.bound <= other + 1e-9, "{} above {other}", got.bound);
        for shares in &got.plan.demands {
            prop_assert_eq!(shares.iter().map(|share| share.hundredths).sum::<u32>(), SHARES);
            prop_assert!(split || shares.len() == 1);
            prop_assert!(shares.iter().all(|share| share.segments.len() <= MAX_SEGMENTS));
        }
        let again = optimise(&network, &demands, options(split, 1), &never, &mut |_| ()).unwrap();
        prop_assert_eq!(again, got);
    }

    #[test]
    fn moves_are_few_and_overload_nothing_on_the_way(
        network in network(3..8),
        demands in demands(12, 8),
        picks in vec(0..1000_usize, 12),
        max_moves in 0..8_usize,
        split: bool,
    ) {
        let demands = placed(&network, &demands);
        let running = picked(&demands, &ways(u32::try_from(network.len()).unwrap()), &picks);
        let got = change(
            &network, &demands, &running, max_moves, options(split, 1), &never, &mut |_| (),
        ).unwrap();
        prop_assert!(got.moves.len() <= max_moves);
        prop_assert!(got.max_utilisation <= got.before + 1e-9);
        let mut plan = running;
        for step in &got.moves {
            let before = routed(&network, &demands, &plan);
            prop_assert_eq!(&plan.demands[step.demand], &step.from);
            // Both at once: as if there were a second demand of the same kind.
            let (mut twice, mut both) = (demands.clone(), plan.clone());
            twice.push(demands[step.demand].clone());
            both.demands.push(step.to.clone());
            let meanwhile = routed(&network, &twice, &both);
            for (now, before) in meanwhile.iter().zip(&before) {
                prop_assert!(*now <= before.max(1.0) + 1e-6, "{before} to {now}");
            }
            plan.demands[step.demand].clone_from(&step.to);
        }
        prop_assert_eq!(&plan, &got.plan);
        let full = fullest(&routed(&network, &demands, &plan));
        prop_assert!((full - got.max_utilisation).abs() < 1e-9);
    }

    #[test]
    fn an_order_is_found_where_there_is_one(
        network in network(3..6),
        demands in demands(5, 8),
        picks in vec(0..1000_usize, 8),
    ) {
        let demands = placed(&network, &demands);
        let routes = Routes::new(&network).unwrap();
        let ways = ways(u32::try_from(network.len()).unwrap());
        let running = picked(&demands, &ways, &picks[..4]);
        let target = picked(&demands, &ways, &picks[4..]);
        let got = ordered(&routes, &demands, &running, &target);
        let different = (0..demands.len()).filter(|i| running.demands[*i] != target.demands[*i]);
        let different: Vec<usize> = different.collect();
        let exists = exists_order(&network, &demands, &running, &target, &different);
        prop_assert_eq!(exists, got.moves.len() == different.len(), "{:?}", got);
        prop_assert!(exists || got.refused.iter().all(|refused| refused.would_be > 1.0));
    }
}

proptest! {
    // A search promises no optimum; that it finds these is checked on the same ones each time.
    #![proptest_config(ProptestConfig {
        cases: 100,
        rng_seed: proptest::test_runner::RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_best_plan_is_found_where_all_can_be_tried(
        network in network(3..5),
        demands in demands(4, 10),
    ) {
        let demands = placed(&network, &demands);
        let got = optimise(&network, &demands, options(false, 6), &never, &mut |_| ()).unwrap();
        let least = enumerated(&network, &demands);
        prop_assert!(got.max_utilisation <= least * (1.0 + 3e-4), "{} {least}", got.max_utilisation);
        prop_assert!(got.max_utilisation >= least - 1e-9, "{} {least}", got.max_utilisation);
        let split = optimise(&network, &demands, options(true, 6), &never, &mut |_| ()).unwrap();
        // Hundredths and eight paths may cost a little.
        prop_assert!(split.max_utilisation <= least * 1.01, "{} {least}", split.max_utilisation);
    }
}

fn exists_order(
    network: &Network,
    demands: &[Demand],
    plan: &Plan,
    target: &Plan,
    left: &[usize],
) -> bool {
    left.is_empty()
        || left.iter().any(|&demand| {
            let before = routed(network, demands, plan);
            let (mut twice, mut both) = (demands.to_vec(), plan.clone());
            twice.push(demands[demand].clone());
            both.demands.push(target.demands[demand].clone());
            let meanwhile = routed(network, &twice, &both);
            let safe = meanwhile.iter().zip(before).all(|(now, was)| *now <= was.max(1.0) + 1e-9);
            let mut next = plan.clone();
            next.demands[demand].clone_from(&target.demands[demand]);
            let rest: Vec<usize> = left.iter().copied().filter(|d| *d != demand).collect();
            safe && exists_order(network, demands, &next, target, &rest)
        })
}

/// Two nodes, each with a demand that fills one of two links, are to change places.
#[test]
fn what_no_order_allows_is_refused_with_the_link() {
    let edge = |i: u32, from, to| Edge {
        label: format!("e{i}"),
        from,
        to,
        weight: 1,
        capacity: BitRate(10),
    };
    // 0 -> 3 by 1 or by 2.
    let edges = vec![edge(0, 0, 1), edge(1, 1, 3), edge(2, 0, 2), edge(3, 2, 3)];
    let network = Network::new((0..4).map(|n| n.to_string()).collect(), edges);
    let demand = |label: &str| Demand { label: label.into(), from: 0, to: 3, rate: BitRate(6) };
    let demands = [demand("a"), demand("b")];
    let by = |node| vec![Share { hundredths: 100, segments: vec![node] }];
    let running = Plan { demands: vec![by(1), by(2)] };
    let target = Plan { demands: vec![by(2), by(1)] };
    let routes = Routes::new(&network).unwrap();
    let got = ordered(&routes, &demands, &running, &target);
    assert_eq!(got.moves, []);
    assert_eq!(got.plan, running);
    let links: Vec<(usize, usize)> = got.refused.iter().map(|r| (r.demand, r.link)).collect();
    assert_eq!(links, [(0, 3), (1, 1)]);
    assert!(got.refused.iter().all(|refused| (refused.would_be - 1.2).abs() < 1e-9));
}

#[test]
fn plans_for_other_demands_are_refused() {
    let edges = vec![Edge { label: "e".into(), from: 0, to: 1, weight: 1, capacity: BitRate(9) }];
    let network = Network::new(vec!["a".into(), "b".into()], edges);
    let demand = |from, to| Demand { label: "d".into(), from, to, rate: BitRate(1) };
    let run = |demand: Demand, shares: Vec<Share>| {
        let plan = Plan { demands: vec![shares] };
        let options = options(false, 1);
        change(&network, &[demand], &plan, MAX_MOVES, options, &never, &mut |_| ())
            .map(|change| change.max_utilisation)
    };
    let share = |hundredths, segments: &[u32]| Share { hundredths, segments: segments.to_vec() };
    let cases: Vec<(Demand, Vec<Share>, &str)> = vec![
        (demand(1, 0), vec![share(100, &[])], "no path leads from b to a, as demand d needs"),
        (demand(0, 1), vec![share(99, &[])], "add up to 99"),
        (demand(0, 1), vec![share(50, &[]), share(50, &[])], "two shares"),
        (demand(0, 1), vec![share(100, &[0, 1, 0])], "3 segments"),
        (demand(0, 1), vec![share(100, &[1, 0])], "no path leads from b to a"),
    ];
    for (demand, shares, words) in cases {
        let error = run(demand, shares).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    assert!(run(demand(0, 1), vec![share(100, &[])]).unwrap() > 0.1);
}

/// The best way of the second demand is through 0 and 2, of which 2 alone is cheaper: it must
/// not hide the other.
#[test]
fn two_segments_are_tried_where_one_of_them_is_cheaper() {
    let figures: [(u32, u32, u32, u64); 8] = [
        (0, 1, 1, 5),
        (1, 0, 1, 6),
        (1, 2, 3, 5),
        (2, 1, 1, 5),
        (2, 3, 1, 6),
        (3, 2, 3, 5),
        (3, 0, 1, 11),
        (0, 3, 1, 13),
    ];
    let edge = |(from, to, weight, capacity)| Edge {
        label: format!("{from}-{to}"),
        from,
        to,
        weight,
        capacity: BitRate(capacity),
    };
    let labels = (0..4).map(|node: u32| node.to_string()).collect();
    let network = Network::new(labels, figures.into_iter().map(edge).collect());
    let demands = placed(&network, &[(0, 2, 4), (1, 1, 2)]);
    let got = optimise(&network, &demands, options(false, 6), &never, &mut |_| ()).unwrap();
    assert!((got.max_utilisation - 5.0 / 13.0).abs() < 1e-9, "{got:?}");
}
