//! What is kept as links fail and come back, against computing anew; backups against what
//! packets do.

mod common;

use common::{in_order, network, small};
use proptest::prelude::*;
use selvedge_topology::{
    ArcIx, Backup, Constraints, Delay, Graph, LinkIx, Live, MAX_REPAIR_SIDS, Metric, NodeIx, Path,
    Policy, Routes, Snapshot,
};

fn policies(nodes: usize) -> Vec<Policy> {
    let nodes = u32::try_from(nodes).unwrap();
    let pairs = (0..nodes).flat_map(|a| (0..nodes).map(move |b| (NodeIx(a), NodeIx(b))));
    pairs
        .filter(|(from, to)| from != to)
        .flat_map(|(from, to)| {
            [None, Some(Delay(3)), Some(Delay(6))].map(|max_delay| Policy { from, to, max_delay })
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn following_changes_is_computing_anew(
        (nodes, edges) in small(6, 12),
        steps in proptest::collection::vec(0usize..12, 1..8),
        threads in 1usize..3,
    ) {
        let snapshot = network(nodes, &edges);
        let mut graph = Graph::clone(snapshot.graph());
        let mut live = Live::new(graph.clone(), policies(nodes), threads);
        for step in steps {
            if edges.is_empty() {
                continue;
            }
            let link = LinkIx(u32::try_from(step % edges.len()).unwrap());
            let before = live.clone();
            let up = graph.is_up(link);
            let changes = if up { live.fail(link) } else { live.restore(link) };
            graph.set_up(link, !up);
            let anew = Live::new(graph.clone(), policies(nodes), 1);
            prop_assert_eq!(live.routes(), anew.routes());
            prop_assert_eq!(live.backups(), anew.backups());
            prop_assert_eq!(live.placed(), anew.placed());
            // And what is reported is what differs.
            let mut want = Vec::new();
            for root in graph.nodes() {
                for node in graph.nodes() {
                    if before.routes().next(root, node) != live.routes().next(root, node) {
                        want.push((root, node));
                    }
                }
            }
            let mut next_hops = changes.next_hops.clone();
            next_hops.sort_unstable();
            prop_assert_eq!(next_hops, want);
            let differ = |policy: &usize| before.placed()[*policy] != live.placed()[*policy];
            let want: Vec<usize> = (0..live.placed().len()).filter(differ).collect();
            let mut policies = changes.policies.clone();
            policies.sort_unstable();
            prop_assert_eq!(policies, want);
        }
    }

    #[test]
    fn policies_have_the_cheapest_paths((nodes, edges) in small(6, 12), down in 0usize..12) {
        let snapshot = network(nodes, &edges);
        let down = (down < edges.len()).then(|| LinkIx(u32::try_from(down).unwrap()));
        let mut live = Live::new(Graph::clone(snapshot.graph()), policies(nodes), 1);
        down.map(|link| live.fail(link));
        let left = snapshot.with_down(2, down);
        for (policy, placed) in policies(nodes).iter().zip(live.placed()) {
            let constraints = Constraints { max_delay: policy.max_delay, ..Constraints::default() };
            let want = in_order(&left, policy.from, policy.to, Metric::Cost, &constraints);
            prop_assert_eq!(placed.path.as_ref().ok(), want.first());
            let fewest = want.first().and_then(|path| fewest(&left, path, 0));
            prop_assert_eq!(placed.segments.as_ref().map(Vec::len), fewest);
        }
    }

    #[test]
    fn packets_get_around_every_failure((nodes, edges) in small(6, 12)) {
        let snapshot = network(nodes, &edges);
        let graph = Graph::clone(snapshot.graph());
        let live = Live::new(graph.clone(), Vec::new(), 1);
        let (routes, backups) = (live.routes(), live.backups());
        for root in graph.nodes() {
            for node in graph.nodes() {
                let Some(next) = routes.next(root, node) else { continue };
                let over = graph.ends(next).unwrap().1;
                // The link to the next hop has failed.
                let failed = |arc: ArcIx| arc.link() == next.link();
                let left = snapshot.with_down(2, [next.link()]);
                let none = Constraints::default();
                let best = in_order(&left, node, over, Metric::Cost, &none);
                let backup = backups.link(next);
                prop_assert_eq!(backup.map(|b| &b.path), best.first());
                if let Some(backup) = backup {
                    let fewest = fewest(&snapshot, &backup.path, 1);
                    let fewest = fewest.filter(|ids| *ids <= MAX_REPAIR_SIDS);
                    prop_assert_eq!(backup.segments.as_ref().map(Vec::len), fewest);
                    let arrived = delivered(routes, backup, root, &failed).unwrap_or(true);
                    prop_assert!(arrived, "around {:?} from {:?} to {:?}", next, node, root);
                }
                // The next hop itself has failed.
                if over == root {
                    prop_assert_eq!(backups.of(routes, root, node), backup);
                    continue;
                }
                let after = routes.next(root, over).unwrap();
                let merge = graph.ends(after).unwrap().1;
                let failed = |arc: ArcIx| {
                    let (a, b) = graph.ends(arc).unwrap();
                    a == over || b == over
                };
                let around: Vec<LinkIx> =
                    graph.arcs().filter(|arc| failed(*arc)).map(ArcIx::link).collect();
                let left = snapshot.with_down(2, around);
                let best = in_order(&left, node, merge, Metric::Cost, &none);
                let backup = backups.node(next, after);
                prop_assert_eq!(backup.map(|b| &b.path), best.first());
                if let Some(backup) = backup {
                    let fewest = fewest(&snapshot, &backup.path, 1);
                    let fewest = fewest.filter(|ids| *ids <= MAX_REPAIR_SIDS);
                    prop_assert_eq!(backup.segments.as_ref().map(Vec::len), fewest);
                    let arrived = delivered(routes, backup, root, &failed).unwrap_or(true);
                    prop_assert!(arrived, "around {:?} from {:?} to {:?}", over, node, root);
                }
            }
        }
    }
}

/// The fewest ids that lead along a path from its node at `start`, by trying every way to cut it:
/// each piece has to be the first of the cheapest paths between its ends.
fn fewest(snapshot: &Snapshot, path: &Path, start: usize) -> Option<usize> {
    let none = Constraints::default();
    let mut fewest = vec![None; path.nodes.len()];
    fewest[start] = Some(0);
    for end in start + 1..path.nodes.len() {
        for from in start..end {
            let (a, b) = (path.nodes[from], path.nodes[end]);
            let best = in_order(snapshot, a, b, Metric::Cost, &none);
            if best[0].arcs == path.arcs[from..end] {
                let through = fewest[from].map(|ids: usize| ids + 1);
                fewest[end] = fewest[end].into_iter().chain(through).min();
            }
        }
    }
    fewest[path.nodes.len() - 1]
}

/// Whether a packet on a backup arrives without touching what failed, when no other switch knows
/// of the failure; `None` when it cannot be spelled.
fn delivered(
    routes: &Routes,
    backup: &Backup,
    root: NodeIx,
    failed: &dyn Fn(ArcIx) -> bool,
) -> Option<bool> {
    let graph = routes.graph();
    let first = backup.path.arcs[0];
    let mut segments = backup.segments.clone()?;
    segments.push(root);
    let (mut at, mut ok) = (graph.ends(first)?.1, !failed(first));
    for segment in segments {
        let mut hops = 0;
        while at != segment {
            let Some(arc) = routes.next(segment, at) else { return Some(false) };
            hops += 1;
            if failed(arc) || hops > graph.len() {
                ok = false;
                break;
            }
            at = graph.ends(arc)?.1;
        }
    }
    Some(ok && at == root)
}
