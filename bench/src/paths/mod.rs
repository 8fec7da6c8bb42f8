//! `bench paths`: path computation beside igraph, rustworkx, networkx and HiGHS, which
//! `bench/paths.py` times in its own process on the same graphs.
//!
//! Kdl is the Topology Zoo's, its links' delays the weights; of parallel links the faster. Real
//! graphs come from `../shared/topologies`.

mod exact;
mod grow;
mod recompute;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use selvedge_topology::{
    AllPairs, Constraints, Figures, Graph, GraphLink, LinkIx, Metric, NodeIx, Query, Scratch,
    Snapshot, k_shortest, read,
};
use serde_json::{Value, json};

use crate::report::{self, Figure};

const PYTHON: &str = "target/venv/bin/python3";
const SCRIPT: &str = "bench/paths.py";
const SHARED: &str = "../shared";
const WORK: &str = "target/bench/paths";
/// Two cores: what the baselines may use as well.
const THREADS: usize = 2;
const PAIRS: usize = 20;
const K: usize = 8;

pub(crate) fn run() -> Result<()> {
    ensure!(
        Path::new(SHARED).join("topologies").is_dir(),
        "the graphs of {SHARED}/topologies are not there"
    );
    fs::create_dir_all(WORK).with_context(|| format!("make the directory {WORK:?}"))?;
    python(&["unpack", SHARED, WORK])?;
    let kdl = read(&Path::new(WORK).join("graphml/Kdl.graphml"))?;
    let mut figures = baselines(&kdl)?;
    figures.push(recompute::run(&kdl)?);
    figures.push(exact::run()?);
    figures.extend(grow::run());
    report::write_values("paths", &figures.iter().map(Figure::json).collect::<Vec<_>>())
}

fn read(path: &Path) -> Result<Snapshot> {
    let read = read::from_path(path).map_err(|problems| anyhow::anyhow!("{problems}"))?;
    Ok(Snapshot::new(Arc::new(read.topology), 0))
}

fn python(arguments: &[&str]) -> Result<Value> {
    let output = Command::new(PYTHON)
        .arg(SCRIPT)
        .args(arguments)
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("start {PYTHON}"))?;
    if !output.status.success() {
        bail!("{SCRIPT} {}: {}", arguments.join(" "), output.status);
    }
    // A library may have greeted before.
    let last = output.stdout.trim_ascii().rsplit(|byte| *byte == b'\n').next();
    serde_json::from_slice(last.unwrap_or_default())
        .with_context(|| format!("read what {SCRIPT} wrote"))
}

/// All pairs and k shortest.
fn baselines(kdl: &Snapshot) -> Result<Vec<Figure>> {
    let graph = simple(kdl.graph());
    let weight = |arc| u64::from(graph.figures(arc).delay_us);
    let edges: Vec<Value> = graph
        .arcs()
        .filter(|arc| arc.a_to_b())
        .map(|arc| {
            let (a, b) = graph.ends(arc).expect("an arc of this graph");
            json!([a.0, b.0, weight(arc)])
        })
        .collect();
    let pairs = pairs(&graph, PAIRS);
    let file = PathBuf::from(WORK).join("kdl.json");
    let ends: Vec<[u32; 2]> = pairs.iter().map(|(a, b)| [a.0, b.0]).collect();
    let document = json!({ "nodes": graph.len(), "edges": edges, "pairs": ends, "k": K });
    fs::write(&file, document.to_string()).with_context(|| format!("write {file:?}"))?;

    let (all_pairs, table) = best(20, || AllPairs::new(&graph, Metric::Delay, THREADS));
    let lengths = graph.nodes().flat_map(|a| graph.nodes().map(move |b| (a, b)));
    let sum: u64 = lengths.filter_map(|(a, b)| table.length(a, b)).sum();
    let none = Constraints::default();
    let mut scratch = Scratch::new();
    let mut yen = |&(from, to): &(NodeIx, NodeIx)| {
        let query = Query { from, to, metric: Metric::Delay, constraints: &none };
        k_shortest(&graph, &mut scratch, &query, K)
    };
    let (spent, found) = best(5, || pairs.iter().map(&mut yen).collect::<Result<Vec<_>, _>>());
    let yen = spent / u32::try_from(PAIRS).expect("a few pairs");
    let found = found.context("Kdl is connected")?;

    let others = python(&["baselines", &file.to_string_lossy()])?;
    for other in ["igraph", "rustworkx"] {
        ensure!(others[other]["sum"] == sum, "{other} finds other lengths: {}", others[other]);
    }
    let delay =
        |path: &selvedge_topology::Path| path.arcs.iter().map(|arc| weight(*arc)).sum::<u64>();
    let ours: Vec<Vec<u64>> = found.iter().map(|paths| paths.iter().map(delay).collect()).collect();
    ensure!(others["networkx"]["lengths"] == json!(ours), "networkx finds other paths");

    let seconds = |name: &str| others[name]["seconds"].as_f64().context("no seconds");
    let version =
        |name: &str| format!("{name} {}", others[name]["version"].as_str().unwrap_or("?"));
    let list = others["networkx"]["seconds"].as_array().context("no list of seconds")?;
    let networkx = list.iter().filter_map(Value::as_f64).sum::<f64>() / PAIRS as f64;
    println!("Kdl: {} nodes, {} links; seconds, best of some rounds", graph.len(), edges.len());
    println!("  all pairs      {:.6}", all_pairs.as_secs_f64());
    for name in ["igraph", "rustworkx"] {
        println!("    {:<16} {:.6}", version(name), seconds(name)?);
    }
    println!("  {K} shortest, a pair, mean of {PAIRS}  {:.6}", yen.as_secs_f64());
    println!("    {:<16} {networkx:.6}", version("networkx"));
    let rate = |name, spent: Duration, other: &str, theirs: f64, unit| {
        let value = spent.as_secs_f64().recip();
        Figure { name, value, unit, better: "higher", baseline: (version(other), theirs.recip()) }
    };
    Ok(vec![
        rate("apsp_kdl_vs_igraph", all_pairs, "igraph", seconds("igraph")?, "matrices/s"),
        rate("apsp_kdl_vs_rustworkx", all_pairs, "rustworkx", seconds("rustworkx")?, "matrices/s"),
        rate("yen8_kdl_vs_networkx", yen, "networkx", networkx, "pairs/s"),
    ])
}

/// Of parallel links the faster: networkx's algorithm takes simple graphs only.
fn simple(graph: &Graph) -> Graph {
    let mut links: Vec<Option<GraphLink>> = Vec::new();
    for node in graph.nodes() {
        let mut edges = graph.out(node).iter().filter(|edge| edge.node > node).peekable();
        while let Some(edge) = edges.next() {
            let mut fastest = graph.figures(edge.arc);
            while let Some(other) = edges.next_if(|other| other.node == edge.node) {
                let other = graph.figures(other.arc);
                if other.delay_us < fastest.delay_us {
                    fastest = other;
                }
            }
            links.push(Some(link(node, edge.node, *fastest)));
        }
    }
    Graph::new(graph.len(), &links)
}

fn link(a: NodeIx, b: NodeIx, figures: Figures) -> GraphLink {
    GraphLink { a, b, figures, srlgs: Vec::new(), affinity: 0 }
}

/// Different nodes, the same in every run.
fn pairs(graph: &Graph, count: usize) -> Vec<(NodeIx, NodeIx)> {
    let mut random = Random(7);
    let mut node = || NodeIx(random.below(graph.len() as u64) as u32);
    std::iter::repeat_with(|| (node(), node())).filter(|(a, b)| a != b).take(count).collect()
}

/// The least time of some rounds, and what the last gave.
fn best<T>(rounds: usize, mut run: impl FnMut() -> T) -> (Duration, T) {
    let mut once = || {
        let start = Instant::now();
        let result = run();
        (start.elapsed(), result)
    };
    let (mut least, mut last) = once();
    for _ in 1..rounds {
        let (spent, result) = once();
        least = least.min(spent);
        last = result;
    }
    (least, last)
}

/// The value that 99 of 100 do not exceed.
pub(crate) fn p99(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[(times.len() * 99).div_ceil(100).saturating_sub(1)]
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// SplitMix64: the same numbers everywhere (Steele, Lea, Flood, OOPSLA 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// `limit` at least 1.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// With a chance of `percent`.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

fn all_links(graph: &Graph) -> impl Iterator<Item = LinkIx> + '_ {
    graph.arcs().filter(|arc| arc.a_to_b()).map(|arc| arc.link())
}
