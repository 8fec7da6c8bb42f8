//! `selvedge path`: paths between two nodes of a topology file, without a controller.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use selvedge_topology::{
    BitRate, Forwarding, Metric, NodeIx, NodeName, Path, Problems, Query, Read, Snapshot,
    encode_segments, read, shortest_path,
};
use serde_json::json;

use crate::Output;

/// Of the six ids that a packet carries, one is for what happens at the end.
const MAX_WAYPOINTS: usize = 5;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Topology: Selvedge YAML, Topology Zoo GraphML or REPETITA .graph.
    #[arg(long, value_name = "FILE")]
    topology: PathBuf,
    /// Where the path begins: a switch, or a host for the switch it hangs on.
    #[arg(long, value_name = "NODE")]
    from: String,
    /// Where it ends.
    #[arg(long, value_name = "NODE")]
    to: String,
    /// What the path is shortest by.
    #[arg(long, value_enum, default_value_t = By::Delay)]
    metric: By,
    /// Only links of at least this capacity, such as 10Mbps.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    bandwidth: Option<BitRate>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum By {
    Delay,
    Cost,
}

pub(crate) fn rate(text: &str) -> Result<BitRate, String> {
    text.parse().map_err(|error: selvedge_topology::UnitError| match &error.suggestion {
        Some(near) => format!("{error}; did you mean {near}?"),
        None => error.to_string(),
    })
}

pub(crate) fn run(args: Args, output: Output) -> anyhow::Result<ExitCode> {
    let Read { topology, assumptions } = match read::from_path(&args.topology) {
        Ok(read) => read,
        Err(problems) => return Ok(refuse_file(problems, output)),
    };
    let mut assumed: Vec<String> = assumptions.iter().map(ToString::to_string).collect();
    let snapshot = Snapshot::new(Arc::new(topology), 0);
    let ends = node(&snapshot, &args.from, &mut assumed)
        .and_then(|from| Ok((from, node(&snapshot, &args.to, &mut assumed)?)));
    let found = ends.and_then(|(from, to)| {
        let metric = match args.metric {
            By::Delay => Metric::Delay,
            By::Cost => Metric::Cost,
        };
        let query = Query { min_bandwidth: args.bandwidth, ..Query::new(from, to, metric) };
        shortest_path(&snapshot, &query).map_err(|why| why.to_string())
    });
    let shown = found.map(|path| Shown::of(&snapshot, &path));
    match (output, shown) {
        (Output::Json, shown) => {
            let error = shown.as_ref().err().cloned();
            let paths: Vec<_> = shown.iter().map(Shown::json).collect();
            let mut document = json!({ "paths": paths, "assumed": assumed });
            if let Some(error) = &error {
                document["error"] = json!(error);
            }
            println!("{document:#}");
            Ok(if error.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        (Output::Text, Ok(shown)) => {
            shown.print();
            for assumption in &assumed {
                println!("assumed: {assumption}");
            }
            Ok(ExitCode::SUCCESS)
        }
        (Output::Text, Err(error)) => {
            for assumption in &assumed {
                eprintln!("assumed: {assumption}");
            }
            anyhow::bail!(error)
        }
    }
}

/// The switch of that name, or of the host of that name.
fn node(snapshot: &Snapshot, name: &str, assumed: &mut Vec<String>) -> Result<NodeIx, String> {
    if let Some(node) = snapshot.node(name) {
        return Ok(node);
    }
    let topology = snapshot.topology();
    let host = name.parse::<NodeName>().ok().filter(|name| topology.nodes.contains_key(name));
    let Some(host) = host else {
        let known = topology.nodes.keys().map(NodeName::as_str);
        let near = selvedge_topology::problem::nearest(name, known);
        let help = near.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
        return Err(format!("there is no node {name:?}{help}"));
    };
    let switch = topology.attachment(&host).map(|(_, _, switch)| switch.node.clone());
    let switch = switch.ok_or_else(|| format!("host {host} is not linked to any switch"))?;
    assumed.push(format!("{host} stands for its switch {switch}"));
    snapshot.node(switch.as_str()).ok_or_else(|| format!("there is no switch {switch}"))
}

struct Shown {
    nodes: Vec<String>,
    links: Vec<ShownLink>,
    cost: u64,
    /// As far as links state it.
    delay_us: u64,
    bottleneck: Option<BitRate>,
    /// Way-points of the fabric's own forwarding, or why there are none.
    segments: Result<Vec<String>, String>,
}

struct ShownLink {
    ends: String,
    capacity: Option<BitRate>,
    delay: Option<selvedge_topology::Delay>,
    cost: u32,
}

impl Shown {
    fn of(snapshot: &Snapshot, path: &Path) -> Self {
        let name = |node: &NodeIx| snapshot.name(*node).to_string();
        let link = |ix: &selvedge_topology::ArcIx| {
            let arc = snapshot.arc(*ix)?;
            let (near, far) = snapshot.ends(*ix);
            let ends = format!("{near} -> {far}");
            Some(ShownLink { ends, capacity: arc.capacity, delay: arc.delay, cost: arc.cost })
        };
        let forwarding = Forwarding::new(snapshot);
        let segments = encode_segments(snapshot, &forwarding, path, MAX_WAYPOINTS);
        Self {
            nodes: path.nodes.iter().map(name).collect(),
            links: path.arcs.iter().filter_map(link).collect(),
            cost: path.cost(snapshot),
            delay_us: path.delay(snapshot).us(),
            bottleneck: path.bottleneck(snapshot).map(|(_, rate)| rate),
            segments: segments
                .map(|nodes| nodes.iter().map(name).collect())
                .map_err(|error| error.to_string()),
        }
    }

    fn json(&self) -> serde_json::Value {
        let links: Vec<_> = self
            .links
            .iter()
            .map(|link| {
                json!({
                    "ends": link.ends,
                    "cost": link.cost,
                    "delay_us": link.delay.map(selvedge_topology::Delay::us),
                    "capacity_bps": link.capacity.map(BitRate::bps),
                })
            })
            .collect();
        let mut path = json!({
            "nodes": self.nodes,
            "links": links,
            "cost": self.cost,
            "delay_us": self.delay_us,
            "bottleneck_bps": self.bottleneck.map(BitRate::bps),
            "segments": self.segments.as_ref().ok(),
        });
        if let Err(why) = &self.segments {
            path["segments_refused"] = json!(why);
        }
        path
    }

    fn print(&self) {
        println!("{}", self.nodes.join(" > "));
        let stated = |figure: Option<String>| figure.unwrap_or_else(|| "not stated".to_owned());
        for ShownLink { ends, capacity, delay, cost } in &self.links {
            let capacity = stated(capacity.map(|rate| rate.to_string()));
            let delay = stated(delay.map(|delay| delay.to_string()));
            println!("  {ends}  cost {cost}, delay {delay}, capacity {capacity}");
        }
        let delay = selvedge_topology::Delay(self.delay_us);
        let bottleneck = stated(self.bottleneck.map(|rate| rate.to_string()));
        println!("cost {}, delay {delay}, bottleneck {bottleneck}", self.cost);
        match &self.segments {
            Ok(waypoints) if waypoints.is_empty() => println!("way-points: none"),
            Ok(waypoints) => println!("way-points: {}", waypoints.join(", ")),
            Err(why) => println!("way-points: none possible: {why}"),
        }
    }
}

pub(crate) fn refuse_file(problems: Problems, output: Output) -> ExitCode {
    match output {
        Output::Json => {
            let list: Vec<_> = problems
                .places()
                .map(|(line, column, problem)| {
                    let (message, help) = (&problem.message, &problem.help);
                    json!({ "line": line, "column": column, "message": message, "help": help })
                })
                .collect();
            println!("{:#}", json!({ "file": problems.file(), "problems": list }));
        }
        Output::Text => eprintln!("{:?}", miette::Report::new(problems)),
    }
    ExitCode::FAILURE
}
