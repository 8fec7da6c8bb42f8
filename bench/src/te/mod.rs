//! `bench te`: `te::optimise` over all 260 instances of shared/topologies/repetita, demands whole
//! and split, a second each on two threads. The plans are written as `selvedge te --output json`
//! writes them, and check.py routes them again, sharing no code, and solves small instances
//! exactly.
//!
//! Rows without `_split` are of whole demands, the command's default. `seconds` is from before the files are read until the plan is known.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use selvedge_topology::read::traffic;
use selvedge_topology::te::{self, Options, Share};
use serde_json::{Value, json};

use crate::report;

const ARCHIVE: &str = "../shared/topologies/repetita/zoo-inverse-capacity.tar.xz";
const DIR: &str = "target/bench/te";
/// As in the command, a tenth of the second is kept for what follows the search.
const SEARCH: Duration = Duration::from_millis(900);

pub(crate) fn run() -> Result<Vec<Value>> {
    let graphs = unpack()?;
    for (mode, split) in [("whole", false), ("split", true)] {
        let dir = Path::new(DIR).join(mode);
        fs::create_dir_all(&dir).with_context(|| format!("make the directory {dir:?}"))?;
        for graph in &graphs {
            let solved = solve(graph, split).with_context(|| format!("{}", graph.display()))?;
            let name = graph.file_stem().context("a graph has a name")?;
            let path = dir.join(name).with_extension("json");
            fs::write(&path, solved.to_string()).with_context(|| format!("write {path:?}"))?;
        }
        println!("{}: {} plans in {}", mode, graphs.len(), dir.display());
    }
    rows(&check()?)
}

/// The graphs of the archive, each beside its demands.
fn unpack() -> Result<Vec<PathBuf>> {
    let data = Path::new(DIR).join("data");
    fs::create_dir_all(&data).with_context(|| format!("make the directory {data:?}"))?;
    let tar = Command::new("tar")
        .args(["--extract", "--xz", "--strip-components=2", "--file", ARCHIVE, "--directory"])
        .arg(&data)
        .status()
        .context("start tar")?;
    ensure!(tar.success(), "tar could not unpack {ARCHIVE}");
    let mut graphs = Vec::new();
    for entry in fs::read_dir(&data).with_context(|| format!("list {data:?}"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "graph") {
            graphs.push(path);
        }
    }
    graphs.sort();
    Ok(graphs)
}

fn solve(graph: &Path, split: bool) -> Result<Value> {
    let start = Instant::now();
    let directed = traffic::network_from_path(graph, None)?;
    let demands = traffic::demands_from_path(&graph.with_extension("0000.demands"), &directed)?;
    let stop = || start.elapsed() >= SEARCH;
    let options = Options { split, seed: 0, max_rounds: usize::MAX };
    let found = te::optimise(&directed.network, &demands, options, &stop, &mut |_| ())?;
    let seconds = start.elapsed().as_secs_f64();
    let policy = |demand: usize, share: &Share| {
        let labels = share.segments.iter().map(|node| directed.network.label(*node));
        json!({
            "demand": demands[demand].label,
            "share": f64::from(share.hundredths) / f64::from(te::SHARES),
            "segments": labels.collect::<Vec<_>>(),
        })
    };
    let policies = found.plan.policies();
    let policies = policies.flat_map(|(i, shares)| shares.iter().map(move |s| policy(i, s)));
    Ok(json!({
        "max_utilisation": found.max_utilisation,
        "optimum_bound": found.bound,
        "seconds": seconds,
        "policies": policies.collect::<Vec<_>>(),
    }))
}

/// What check.py found: summary figures by name.
fn check() -> Result<Value> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/te/check.py");
    let output = Command::new("target/venv/bin/python3")
        .args([script, DIR])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("start target/venv/bin/python3: `cargo xtask bench te` makes it")?;
    ensure!(output.status.success(), "check.py: {}", output.status);
    serde_json::from_slice(&output.stdout).context("read what check.py printed")
}

fn rows(found: &Value) -> Result<Vec<Value>> {
    let figure = |name: &str| found[name].as_f64().ok_or_else(|| anyhow!("check.py: no {name}"));
    let lower = |name: &str, unit: &str, baseline: (&str, f64)| -> Result<Value> {
        let value = figure(name)?;
        println!("{name:<32} {value:>8.4} {unit:<12} {} {:.4}", baseline.0, baseline.1);
        Ok(report::row(name, value, unit, "lower", baseline))
    };
    let shortest = ("median on shortest paths", figure("median_on_shortest_paths")?);
    let instances = figure("te_instances")?;
    let of = ("in the data set", 260.0);
    Ok(vec![
        lower("te_median_utilisation", "of capacity", shortest)?,
        lower("te_median_utilisation_split", "of capacity", shortest)?,
        lower("te_worst_seconds", "s", ("limit", 1.0))?,
        lower("te_worst_seconds_split", "s", ("limit", 1.0))?,
        lower("te_median_over_exact", "ratio", ("exact split optimum of two segments", 1.0))?,
        lower("te_median_over_exact_split", "ratio", ("exact split optimum of two segments", 1.0))?,
        report::row("te_instances", instances, "instances", "higher", of),
    ])
}
