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
/// Times that each link fails; the least time is that of the work, the others have waited for
/// whatever else the machine does.
const ROUNDS: usize = 5;

/// Every link of Kdl fails alone, a few times.
pub(super) fn run(kdl: &Snapshot) -> Result<Figure> {
    let graph = Graph::clone(kdl.graph());
    let policies = policies(&graph);
    let live = Live::new(graph.clone(), policies.clone(), THREADS);
    let links: Vec<LinkIx> = all_links(&graph).collect();
    let (mut least, mut all, mut anew) = (Vec::new(), Vec::new(), Duration::MAX);
    let (mut next_hops, mut backups, mut paths) = (0, 0, 0);
    for (i, &link) in links.iter().enumerate() {
        let mut once = || {
            let mut live = live.clone();
            let start = Instant::now();
            let changes = live.fail(link);
            all.push(start.elapsed());
            (live, changes, all[all.len() - 1])
        };
        let (after, changes, mut spent) = once();
        for _ in 1..ROUNDS {
            spent = spent.min(once().2);
        }
        least.push(spent);
        next_hops += changes.next_hops.len();
        backups += changes.backups;
        paths += changes.policies.len();
        if i % (links.len() / COMPARED) == 0 {
            let mut left = graph.clone();
            left.set_up(link, false);
            let start = Instant::now();
            let whole = Live::new(left, policies.clone(), THREADS);
            anew = anew.min(start.elapsed());
            let link = kdl.link(link);
            ensure!(whole == after, "without {link} the result is not that of computing anew");
        }
    }
    let every = p99(&mut all);
    let p99 = p99(&mut least);
    let (median, most) = (least[least.len() / 2], least[least.len() - 1]);
    let count = links.len();
    println!("\nKdl, {count} single link failures, {POLICIES} policies; milliseconds");
    println!(
        "  median {:.3}, p99 {:.3}, most {:.3}, least of {ROUNDS} each; p99 of all rounds {:.3}; \
         computing anew {:.1}",
        milliseconds(median),
        milliseconds(p99),
        milliseconds(most),
        milliseconds(every),
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
