//! Cost against the size of the network, on generated graphs.

use std::time::{Duration, Instant};

use selvedge_topology::{
    Constraints, Delay, Disjoint, Figures, Graph, Length, Metric, NodeIx, Query, Scratch, cheapest,
    disjoint_pair, k_shortest, lengths_from,
};

use super::{K, Random, link, pairs};
use crate::report::Figure;

const SIZES: [usize; 5] = [1_250, 2_500, 5_000, 10_000, 20_000];
const QUERIES: usize = 15;

/// Median microseconds of each kind of query, by size.
pub(super) fn run() -> Vec<Figure> {
    type Run = fn(&Graph, &mut Scratch, NodeIx, NodeIx);
    let kinds: [(&str, &'static str, Run); 4] = [
        ("one to all", "sssp_exponent", |graph, scratch, from, _| {
            lengths_from(graph, scratch, from, Metric::Cost);
        }),
        ("bounded delay", "dclc_exponent", |graph, scratch, from, to| {
            let least = lengths_from(graph, scratch, from, Metric::Delay)[to.index()];
            bounded(graph, scratch, (from, to), least);
        }),
        ("8 shortest", "yen8_exponent", |graph, scratch, from, to| {
            let none = Constraints::default();
            let query = Query { from, to, metric: Metric::Cost, constraints: &none };
            k_shortest(graph, scratch, &query, K).expect("generated graphs are connected");
        }),
        ("node-disjoint", "disjoint_exponent", |graph, scratch, from, to| {
            let none = Constraints::default();
            let query = Query { from, to, metric: Metric::Cost, constraints: &none };
            disjoint_pair(graph, scratch, &query, Disjoint::Node).expect("a ring has two ways");
        }),
    ];
    let mut table = vec![Vec::new(); kinds.len()];
    for size in SIZES {
        let graph = generated(size);
        let mut scratch = Scratch::new();
        for ((.., run), medians) in kinds.iter().zip(&mut table) {
            let mut spent: Vec<Duration> = Vec::new();
            for (from, to) in pairs(&graph, QUERIES) {
                let start = Instant::now();
                run(&graph, &mut scratch, from, to);
                spent.push(start.elapsed());
            }
            spent.sort_unstable();
            medians.push(spent[spent.len() / 2].as_secs_f64() * 1e6);
        }
    }
    println!("\nGenerated networks, two links a node; median microseconds a query");
    println!(
        "  {:<14}{:>10}{:>10}{:>10}{:>10}{:>10}  exponent",
        "nodes", SIZES[0], SIZES[1], SIZES[2], SIZES[3], SIZES[4]
    );
    let mut figures = Vec::new();
    for ((title, name, _), medians) in kinds.into_iter().zip(&table) {
        let exponent = exponent(medians);
        let cells: String = medians.iter().map(|us| format!("{us:>10.0}")).collect();
        println!("  {title:<14}{cells}  {exponent:.2}");
        let baseline = ("linear".to_owned(), 1.0);
        figures.push(Figure { name, value: exponent, unit: "of nodes", better: "lower", baseline });
    }
    figures
}

/// 1.25 times the least delay.
fn bounded(graph: &Graph, scratch: &mut Scratch, (from, to): (NodeIx, NodeIx), least: Length) {
    let max_delay = Some(Delay(least.sum() + least.sum() / 4));
    let constraints = Constraints { max_delay, ..Constraints::default() };
    let query = Query { from, to, metric: Metric::Cost, constraints: &constraints };
    cheapest(graph, scratch, &query).expect("the fastest path is fast enough");
}

/// A ring with as many chords, most of them short, cost and delay at random.
fn generated(nodes: usize) -> Graph {
    let mut random = Random(nodes as u64);
    let node = |index: u64| NodeIx((index % nodes as u64) as u32);
    let figures = |random: &mut Random| Figures {
        cost: 1 + random.below(100) as u32,
        delay_us: 50 + random.below(5_000) as u32,
        capacity: None,
    };
    let mut links = Vec::new();
    for at in 0..nodes as u64 {
        links.push(Some(link(node(at), node(at + 1), figures(&mut random))));
        let far = if random.chance(5) { nodes as u64 - 3 } else { 40 };
        let by = 2 + random.below(far);
        links.push(Some(link(node(at), node(at + by), figures(&mut random))));
    }
    Graph::new(nodes, &links)
}

/// The slope of the least squares line through the logarithms.
fn exponent(medians: &[f64]) -> f64 {
    let points: Vec<(f64, f64)> =
        SIZES.iter().zip(medians).map(|(size, us)| ((*size as f64).ln(), us.ln())).collect();
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let over: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    over / points.iter().map(|p| (p.0 - x).powi(2)).sum::<f64>()
}
