//! One link failure after the other, with 1,000 policies in place.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use selvedge_topology::{
    Delay, Graph, LinkIx, Live, Metric, NodeIx, Policy, Scratch, Snapshot, lengths_from,
};

use super::{Random, THREADS, all_links, milliseconds, p99};
use crate::report::Figure;

const POLICIES: usize = 1_000;
/// Failures that are also computed anew, and compared.
const COMPARED: usize = 25;

/// Every link of Kdl fails once, alone.
pub(super) fn run(kdl: &Snapshot) -> Result<Figure> {
    let graph = Graph::clone(kdl.graph());
    let policies = policies(&graph);
    let mut live = Live::new(graph.clone(), policies.clone(), THREADS);
    let links: Vec<LinkIx> = all_links(&graph).collect();
    let (mut spent, mut anew) = (Vec::new(), Duration::MAX);
    let (mut next_hops, mut backups, mut paths) = (0, 0, 0);
    for (i, &link) in links.iter().enumerate() {
        let start = Instant::now();
        let changes = live.fail(link);
        spent.push(start.elapsed());
        next_hops += changes.next_hops.len();
        backups += changes.backups;
        paths += changes.policies.len();
        if i % (links.len() / COMPARED) == 0 {
            let mut left = graph.clone();
            left.set_up(link, false);
            let start = Instant::now();
            let whole = Live::new(left, policies.clone(), THREADS);
            anew = anew.min(start.elapsed());
            ensure!(
                whole == live,
                "without {} the result is not that of computing anew",
                kdl.link(link)
            );
        }
        live.restore(link);
    }
    let median = {
        spent.sort_unstable();
        spent[spent.len() / 2]
    };
    let (p99, most) = (p99(&mut spent), spent[spent.len() - 1]);
    let count = links.len();
    println!("\nKdl, {count} single link failures, {POLICIES} policies; milliseconds");
    println!(
        "  median {:.3}, p99 {:.3}, most {:.3}; computing anew {:.1}",
        milliseconds(median),
        milliseconds(p99),
        milliseconds(most),
        milliseconds(anew)
    );
    println!(
        "  changed on average: {} next hops, {} backups, {} policies",
        next_hops / count,
        backups / count,
        paths / count
    );
    Ok(Figure {
        name: "recompute_kdl_p99_ms",
        value: milliseconds(p99),
        unit: "ms",
        better: "lower",
        baseline: ("computing anew".to_owned(), milliseconds(anew)),
    })
}

/// Between random nodes; half of them with a bound a little above the least delay there is.
fn policies(graph: &Graph) -> Vec<Policy> {
    let (mut random, mut scratch) = (Random(1), Scratch::new());
    let nodes = graph.len() as u64;
    let mut policies = Vec::new();
    while policies.len() < POLICIES {
        let (from, to) = (NodeIx(random.below(nodes) as u32), NodeIx(random.below(nodes) as u32));
        let least = lengths_from(graph, &mut scratch, from, Metric::Delay)[to.index()];
        if from == to || least.is_none() {
            continue;
        }
        let bound = least.sum() + least.sum() * random.below(50) / 100;
        let max_delay = random.chance(50).then_some(Delay(bound));
        policies.push(Policy { from, to, max_delay });
    }
    policies
}
