//! Why there is no path, or no pair: against everything that could be relaxed, tried.

mod common;

use std::collections::BTreeSet;

use common::{all_paths, apart, constraints, in_order, metric, network, small};
use proptest::prelude::*;
use selvedge_topology::{
    Affinity, BitRate, Constraints, Delay, Disjoint, Elements, LinkIx, Metric, Never, NoPath,
    NodeIx, Path, Query, Relaxation, Scratch, Shared, Snapshot, cheapest, disjoint_pair, explain,
    explain_pair,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Delay,
    Hops,
    Bandwidth,
    Affinity,
    Exclude,
    Include,
}

/// Without elements that the network does not have.
fn known(mut constraints: Constraints, nodes: usize, links: usize) -> Constraints {
    for elements in [&mut constraints.exclude, &mut constraints.include] {
        elements.nodes.retain(|node| node.index() < nodes);
        elements.links.retain(|link| link.index() < links);
    }
    constraints
}

fn parts(of: &Constraints) -> Vec<Part> {
    let asked = [
        (Part::Delay, of.max_delay.is_some()),
        (Part::Hops, of.max_hops.is_some()),
        (Part::Bandwidth, of.bandwidth.is_some()),
        (Part::Affinity, of.affinity != Affinity::default()),
        (Part::Exclude, of.exclude != Elements::default()),
        (Part::Include, of.include != Elements::default()),
    ];
    asked.into_iter().filter(|(_, asked)| *asked).map(|(part, _)| part).collect()
}

fn without(mut constraints: Constraints, part: Part) -> Constraints {
    match part {
        Part::Delay => constraints.max_delay = None,
        Part::Hops => constraints.max_hops = None,
        Part::Bandwidth => constraints.bandwidth = None,
        Part::Affinity => constraints.affinity = Affinity::default(),
        Part::Exclude => constraints.exclude = Elements::default(),
        Part::Include => constraints.include = Elements::default(),
    }
    constraints
}

fn part(of: &Relaxation) -> Part {
    match of {
        Relaxation::MaxDelay { .. } => Part::Delay,
        Relaxation::MaxHops { .. } => Part::Hops,
        Relaxation::Bandwidth { .. } => Part::Bandwidth,
        Relaxation::Affinity { .. } => Part::Affinity,
        Relaxation::Exclude { .. } => Part::Exclude,
        Relaxation::Include { .. } => Part::Include,
    }
}

fn less(all: &Elements, gone: &Elements) -> Elements {
    Elements {
        nodes: &all.nodes - &gone.nodes,
        links: &all.links - &gone.links,
        srlgs: &all.srlgs - &gone.srlgs,
    }
}

/// With one relaxed as it is named; of an affinity nothing is left.
fn eased(mut constraints: Constraints, by: &Relaxation) -> Constraints {
    match by {
        Relaxation::MaxDelay { needed, .. } => constraints.max_delay = Some(*needed),
        Relaxation::MaxHops { needed, .. } => constraints.max_hops = Some(*needed),
        Relaxation::Bandwidth { available, .. } => constraints.bandwidth = Some(*available),
        Relaxation::Affinity { .. } => constraints.affinity = Affinity::default(),
        Relaxation::Exclude { elements } => {
            constraints.exclude = less(&constraints.exclude, elements);
        }
        Relaxation::Include { elements } => {
            constraints.include = less(&constraints.include, elements);
        }
    }
    constraints
}

/// All paths, or all pairs of them, that keep to constraints.
fn answers(
    snapshot: &Snapshot,
    (from, to): (NodeIx, NodeIx),
    constraints: &Constraints,
    disjoint: Option<Disjoint>,
) -> Vec<Vec<Path>> {
    let all = in_order(snapshot, from, to, Metric::Hops, constraints);
    let Some(disjoint) = disjoint else { return all.into_iter().map(|path| vec![path]).collect() };
    let pairs = all.iter().enumerate().flat_map(|(i, a)| all[i + 1..].iter().map(move |b| (a, b)));
    let pairs = pairs.filter(|(a, b)| apart(snapshot, a, b, disjoint));
    pairs.map(|(a, b)| vec![a.clone(), b.clone()]).collect()
}

fn check(
    snapshot: &Snapshot,
    query: &Query<'_>,
    disjoint: Option<Disjoint>,
    why: &NoPath,
) -> Result<(), TestCaseError> {
    let (ends, asked) = ((query.from, query.to), query.constraints);
    let any = |of: &Constraints| !answers(snapshot, ends, of, disjoint).is_empty();
    let text = why.describe(snapshot);
    if !any(&Constraints::default()) {
        never(snapshot, query, why)?;
        prop_assert!(why.alternatives.is_empty());
        return Ok(());
    }
    prop_assert_eq!(why.never, None);
    // The smallest sets of constraints without which there is an answer: each is named, no other.
    let parts = parts(asked);
    let sets: Vec<BTreeSet<Part>> = (1u32..1 << parts.len())
        .map(|set| (0..parts.len()).filter(|i| set & 1 << i != 0).map(|i| parts[i]).collect())
        .filter(|set: &BTreeSet<Part>| any(&set.iter().fold(asked.clone(), |c, p| without(c, *p))))
        .collect();
    let size = sets.iter().map(BTreeSet::len).min().unwrap();
    let want: BTreeSet<_> = sets.into_iter().filter(|set| set.len() == size).collect();
    let got: Vec<BTreeSet<Part>> =
        why.alternatives.iter().map(|all| all.iter().map(part).collect()).collect();
    prop_assert_eq!(got.len(), want.len(), "{}", text);
    prop_assert_eq!(got.iter().cloned().collect::<BTreeSet<_>>(), want, "{}", text);
    for alternative in &why.alternatives {
        let enough = alternative.iter().fold(asked.clone(), eased);
        prop_assert!(any(&enough), "not enough: {}", text);
        for one in alternative {
            let others = alternative.iter().filter(|other| part(other) != part(one));
            let others = others.fold(asked.clone(), eased);
            let found = answers(snapshot, ends, &without(others.clone(), part(one)), disjoint);
            let both_sets =
                [Part::Exclude, Part::Include].map(|p| alternative.iter().any(|r| part(r) == p));
            if both_sets == [true, true] {
                continue; // each was the least before the other was
            }
            least(snapshot, query, &others, one, &found, any)?;
        }
    }
    Ok(())
}

fn never(snapshot: &Snapshot, query: &Query<'_>, why: &NoPath) -> Result<(), TestCaseError> {
    let all = all_paths(snapshot, query.from, query.to);
    match why.never {
        Some(Never::Disconnected { reached }) => {
            let near =
                snapshot.nodes().filter(|to| !all_paths(snapshot, query.from, *to).is_empty());
            prop_assert!(all.is_empty() && near.count() == reached);
        }
        Some(Never::Shared(shared)) => {
            let graph = snapshot.graph();
            let links = |path: &Path| path.arcs.iter().map(|arc| arc.link()).collect::<Vec<_>>();
            let passes = |path: &Path| match shared {
                Shared::Node(node) => path.nodes[1..path.nodes.len() - 1].contains(&node),
                Shared::Link(link) => links(path).contains(&link),
                Shared::Srlg(srlg) => links(path).iter().any(|l| graph.srlgs(*l).contains(&srlg)),
            };
            prop_assert!(why.disjoint.is_some() && !all.is_empty() && all.iter().all(passes));
        }
        Some(Never::NoSecond) => prop_assert!(why.disjoint.is_some() && !all.is_empty()),
        None => prop_assert!(false, "there is none: {}", why.describe(snapshot)),
    }
    Ok(())
}

/// `found` is all that there is without this part, the others being as relaxed as they are named.
fn least(
    snapshot: &Snapshot,
    query: &Query<'_>,
    others: &Constraints,
    one: &Relaxation,
    found: &[Vec<Path>],
    any: impl Fn(&Constraints) -> bool,
) -> Result<(), TestCaseError> {
    let asked = query.constraints;
    let links = |path: &Path| path.arcs.iter().map(|arc| arc.link()).collect::<Vec<LinkIx>>();
    let most = |of: &dyn Fn(&Path) -> u64| found.iter().map(|all| all.iter().map(of).max()).min();
    match one {
        Relaxation::MaxDelay { asked: was, needed } => {
            prop_assert_eq!(Some(*was), asked.max_delay);
            let delay = |path: &Path| path.delay(snapshot).us();
            prop_assert_eq!(Some(Some(needed.us())), most(&delay));
        }
        Relaxation::MaxHops { asked: was, needed } => {
            prop_assert_eq!(Some(*was), asked.max_hops);
            let hops = |path: &Path| path.arcs.len() as u64;
            prop_assert_eq!(Some(Some(u64::from(*needed))), most(&hops));
        }
        Relaxation::Bandwidth { asked: was, available, bottleneck } => {
            prop_assert_eq!(Some(*was), asked.bandwidth);
            let width = |path: &Path| {
                let stated = links(path).into_iter().filter_map(|l| snapshot.link(l).capacity);
                stated.min().map_or(u64::MAX, BitRate::bps)
            };
            let widest = found.iter().map(|all| all.iter().map(width).min().unwrap()).max();
            prop_assert_eq!(Some(available.bps()), widest);
            prop_assert_eq!(snapshot.link(bottleneck.link()).capacity, Some(*available));
        }
        Relaxation::Affinity { links: named } => {
            let groups = |link: LinkIx| snapshot.graph().affinity(link);
            let Affinity { exclude_any, include_any, include_all } = asked.affinity;
            let lacks = |link: &LinkIx| {
                groups(*link) & exclude_any != 0
                    || (include_any != 0 && groups(*link) & include_any == 0)
                    || groups(*link) & include_all != include_all
            };
            let lacking = |all: &Vec<Path>| -> BTreeSet<LinkIx> {
                all.iter().flat_map(links).filter(lacks).collect()
            };
            let sets: Vec<BTreeSet<LinkIx>> = found.iter().map(lacking).collect();
            prop_assert!(sets.contains(named));
            prop_assert!(sets.iter().all(|set| set.len() >= named.len()));
        }
        Relaxation::Exclude { elements } => {
            let hit = |all: &Vec<Path>| excluded(snapshot, all, &asked.exclude);
            let fewest = found.iter().map(|all| hit(all).1).min().unwrap();
            let best = found.iter().map(hit).filter(|(_, arcs)| *arcs == fewest);
            prop_assert!(best.map(|(elements, _)| elements).any(|of| of == *elements));
        }
        Relaxation::Include { elements } => {
            let count = elements.nodes.len() + elements.links.len() + elements.srlgs.len();
            prop_assert!(count > 0);
            let single = |gone: Elements| {
                any(&Constraints { include: less(&asked.include, &gone), ..others.clone() })
            };
            let Elements { nodes, links, srlgs } = asked.include.clone();
            let one_is_enough = nodes
                .into_iter()
                .any(|n| single(Elements { nodes: [n].into(), ..Elements::default() }))
                || links
                    .into_iter()
                    .any(|l| single(Elements { links: [l].into(), ..Elements::default() }))
                || srlgs
                    .into_iter()
                    .any(|s| single(Elements { srlgs: [s].into(), ..Elements::default() }));
            prop_assert_eq!(count == 1, one_is_enough);
        }
    }
    Ok(())
}

/// What of the excluded some paths pass, and over how many arcs.
fn excluded(snapshot: &Snapshot, all: &[Path], exclude: &Elements) -> (Elements, usize) {
    let (mut passed, mut count) = (Elements::default(), 0);
    for path in all {
        let inner: BTreeSet<NodeIx> =
            path.nodes.iter().copied().filter(|n| *n != path.from() && *n != path.to()).collect();
        passed.nodes.extend(inner.intersection(&exclude.nodes));
        for (at, arc) in path.arcs.iter().enumerate() {
            let link = arc.link();
            let groups: Vec<u32> = snapshot.link(link).srlg.clone();
            let groups: Vec<u32> =
                groups.into_iter().filter(|s| exclude.srlgs.contains(s)).collect();
            let ends = [path.nodes[at], path.nodes[at + 1]];
            let at_node = ends.iter().any(|n| inner.contains(n) && exclude.nodes.contains(n));
            passed.links.extend(exclude.links.get(&link));
            passed.srlgs.extend(&groups);
            count += usize::from(exclude.links.contains(&link) || !groups.is_empty() || at_node);
        }
    }
    (passed, count)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn what_to_relax_for_a_path_is_the_least(
        (nodes, edges) in small(6, 11),
        metric in metric(),
        constraints in constraints(),
    ) {
        let snapshot = network(nodes, &edges);
        let constraints = known(constraints, nodes, edges.len());
        let mut scratch = Scratch::new();
        for (from, to) in [(0, 1), (1, 0)].map(|(a, b)| (NodeIx(a), NodeIx(b))) {
            let query = Query { from, to, metric, constraints: &constraints };
            if cheapest(snapshot.graph(), &mut scratch, &query).is_err() {
                let why = explain(snapshot.graph(), &mut scratch, &query).unwrap();
                check(&snapshot, &query, None, &why)?;
            }
        }
    }

    #[test]
    fn what_to_relax_for_a_pair_is_the_least(
        (nodes, edges) in small(5, 12),
        metric in metric(),
        constraints in constraints(),
        disjoint in prop_oneof![Just(Disjoint::Link), Just(Disjoint::Node), Just(Disjoint::Srlg)],
    ) {
        let snapshot = network(nodes, &edges);
        let constraints = known(constraints, nodes, edges.len());
        let mut scratch = Scratch::new();
        let (from, to) = (NodeIx(0), NodeIx(1));
        let query = Query { from, to, metric, constraints: &constraints };
        if disjoint_pair(snapshot.graph(), &mut scratch, &query, disjoint).is_err() {
            let why = explain_pair(snapshot.graph(), &mut scratch, &query, disjoint).unwrap();
            check(&snapshot, &query, Some(disjoint), &why)?;
        }
    }
}

#[test]
fn a_pair_that_is_too_slow_is_told_how_fast_one_is() {
    let slow = |a, b, delay| common::edge(a, b, 1, delay, 0);
    let edges = [slow(0, 1, 1), slow(1, 3, 1), slow(0, 2, 4), slow(2, 3, 3), slow(0, 3, 9)];
    let snapshot = network(5, &edges);
    let error = |to, max_delay| {
        let constraints = Constraints { max_delay, ..Constraints::default() };
        let (from, metric) = (NodeIx(0), Metric::Cost);
        let query = Query { from, to: NodeIx(to), metric, constraints: &constraints };
        let mut scratch = Scratch::new();
        disjoint_pair(snapshot.graph(), &mut scratch, &query, Disjoint::Node).unwrap_err();
        let why = explain_pair(snapshot.graph(), &mut scratch, &query, Disjoint::Node);
        why.unwrap().describe(&snapshot)
    };
    assert_eq!(
        error(3, Some(Delay(5))),
        "no two paths from n0 to n3 that share no node keep to the constraints; there are two \
         with a delay of 7us (2us more than asked)"
    );
    assert_eq!(error(4, None), "n0 and n4 are not connected: from n0 one reaches 4 of 5 switches");
    let line = network(3, &[slow(0, 1, 1), slow(1, 2, 1)]);
    let none = Constraints::default();
    let query = Query { from: NodeIx(0), to: NodeIx(2), metric: Metric::Cost, constraints: &none };
    let why = explain_pair(line.graph(), &mut Scratch::new(), &query, Disjoint::Node).unwrap();
    assert_eq!(
        why.describe(&line),
        "no two paths from n0 to n2 share no node: every path passes switch n1"
    );
}
