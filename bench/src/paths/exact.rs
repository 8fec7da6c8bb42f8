//! Delay-constrained least cost over all REPETITA graphs, against HiGHS' integer programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use selvedge_topology::{
    BitRate, Constraints, Delay, Graph, Metric, NodeIx, NotFound, Query, Scratch, cheapest,
};
use serde_json::{Value, json};

use super::{Random, WORK, all_links, milliseconds, p99, python, read};
use crate::report::Figure;

/// Instances that are checked, unless `SELVEDGE_BENCH_DCLC` says another number.
const CHECKED: usize = 10_000;

pub(super) fn run() -> Result<Figure> {
    let count = match std::env::var("SELVEDGE_BENCH_DCLC") {
        Ok(text) => text.parse().context("SELVEDGE_BENCH_DCLC is a number of instances")?,
        Err(_) => CHECKED,
    };
    let mut files = Vec::new();
    graphs(&Path::new(WORK).join("repetita"), &mut files)?;
    files.sort_unstable();
    let each = count.div_ceil(files.len());
    let (mut documents, mut spent) = (Vec::new(), Vec::new());
    let (mut found, mut slowest) = (0, (Duration::ZERO, String::new()));
    let mut scratch = Scratch::new();
    for (seed, file) in (1..).zip(&files) {
        let snapshot = read(file)?;
        let graph = snapshot.graph();
        let mut random = Random(seed);
        let mut instances = Vec::new();
        for _ in 0..each {
            let (from, to, constraints) = instance(graph, &mut random, &mut scratch);
            let query = Query { from, to, metric: Metric::Cost, constraints: &constraints };
            let start = Instant::now();
            let path = cheapest(graph, &mut scratch, &query);
            let took = start.elapsed();
            spent.push(took);
            if took > slowest.0 {
                slowest = (took, file.display().to_string());
            }
            ensure!(path != Err(NotFound::TooHard), "{file:?}: given up");
            let cost = path.ok().map(|path| graph.totals(&path).cost);
            found += usize::from(cost.is_some());
            instances.push(written(graph, &query, cost));
        }
        let arcs: Vec<Value> = graph
            .arcs()
            .map(|arc| {
                let (a, b) = graph.ends(arc).expect("an arc of this graph");
                let figures = graph.figures(arc);
                json!([a.0, b.0, figures.cost, figures.delay_us])
            })
            .collect();
        let name = file.file_stem().map(|stem| stem.to_string_lossy());
        documents.push(json!({
            "name": name, "nodes": graph.len(), "arcs": arcs, "instances": instances,
        }));
    }
    let total = spent.len();
    let most = slowest;
    let p99 = p99(&mut spent);
    println!(
        "\nDelay-constrained least cost, {total} instances over {} graphs; milliseconds",
        files.len()
    );
    println!(
        "  median {:.4}, p99 {:.4}, most {:.3} ({}); {found} have a path",
        milliseconds(spent[total / 2]),
        milliseconds(p99),
        milliseconds(most.0),
        most.1
    );
    let file = PathBuf::from(WORK).join("dclc.json");
    fs::write(&file, Value::from(documents).to_string())
        .with_context(|| format!("write {file:?}"))?;
    let exact = python(&["exact", &file.to_string_lossy(), &total.to_string()])?;
    let wrong = exact["wrong"].as_array().context("no list of differences")?;
    ensure!(wrong.is_empty(), "{} results differ from HiGHS', such as {}", wrong.len(), wrong[0]);
    let theirs = exact["p99_seconds"].as_f64().context("no seconds")? * 1e3;
    println!("  HiGHS agrees on all {}; its p99 {theirs:.1}", exact["checked"]);
    Ok(Figure {
        name: "dclc_p99_ms",
        value: milliseconds(p99),
        unit: "ms",
        better: "lower",
        baseline: (
            format!("HiGHS {}, integer program", exact["version"].as_str().unwrap_or("?")),
            theirs,
        ),
    })
}

fn graphs(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("list {dir:?}"))? {
        let path = entry?.path();
        if path.is_dir() {
            graphs(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "graph") {
            found.push(path);
        }
    }
    Ok(())
}

/// A delay bound around what decides: from a little below the least delay to the cheapest
/// path's; sometimes with other constraints as well.
fn instance(
    graph: &Graph,
    random: &mut Random,
    scratch: &mut Scratch,
) -> (NodeIx, NodeIx, Constraints) {
    let node = |random: &mut Random| NodeIx(random.below(graph.len() as u64) as u32);
    let from = node(random);
    let mut to = node(random);
    while to == from {
        to = node(random);
    }
    let none = Constraints::default();
    let mut delay = |metric| {
        let query = Query { from, to, metric, constraints: &none };
        cheapest(graph, scratch, &query).map_or(0, |path| graph.totals(&path).delay.us())
    };
    let (least, cheapest) = (delay(Metric::Delay), delay(Metric::Cost));
    let span = cheapest.saturating_sub(least) + least / 4;
    let max_delay = Delay((least - least / 20) + random.below(span + 1));
    let mut constraints = Constraints { max_delay: Some(max_delay), ..none };
    if random.chance(20) {
        constraints.max_hops = Some(1 + random.below(12) as u32);
    }
    if random.chance(20) {
        let links: Vec<_> = all_links(graph).collect();
        let link = links[random.below(links.len() as u64) as usize];
        let capacity = graph.figures(selvedge_topology::ArcIx::new(link, true)).capacity;
        constraints.bandwidth = capacity.map(|capacity| BitRate(capacity.bps() / 2 + 1));
    }
    if random.chance(20) {
        let links: Vec<_> = all_links(graph).collect();
        constraints.exclude.links.insert(links[random.below(links.len() as u64) as usize]);
    }
    if random.chance(20) {
        constraints.exclude.nodes.insert(node(random));
    }
    (from, to, constraints)
}

/// As the integer program has it: which arcs must not be used, by position.
fn written(graph: &Graph, query: &Query<'_>, cost: Option<u64>) -> Value {
    let constraints = query.constraints;
    let free = |node: NodeIx| {
        node == query.from || node == query.to || !constraints.exclude.nodes.contains(&node)
    };
    let usable = |arc: selvedge_topology::ArcIx| {
        let (a, b) = graph.ends(arc).expect("an arc of this graph");
        let capacity = graph.figures(arc).capacity;
        free(a)
            && free(b)
            && !constraints.exclude.links.contains(&arc.link())
            && capacity.zip(constraints.bandwidth).is_none_or(|(c, want)| c >= want)
    };
    let without: Vec<usize> =
        graph.arcs().enumerate().filter(|(_, arc)| !usable(*arc)).map(|(at, _)| at).collect();
    json!({
        "from": query.from.0,
        "to": query.to.0,
        "max_delay_us": constraints.max_delay.map(Delay::us),
        "max_hops": constraints.max_hops,
        "without": without,
        "cost": cost,
    })
}
