//! `selvedge path`: paths between two nodes of a topology file, without a controller.

mod ask;
mod show;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use selvedge_topology::{
    BitRate, Constraints, Delay, Disjoint, Metric, NoPair, NodeIx, NotFound, Path, Problems, Query,
    Read, Scratch, Shared, Snapshot, cheapest, disjoint_pair, explain, k_shortest, read,
};
use serde_json::json;

use crate::Output;

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
    /// What the path is shortest by; then by hops, then by names.
    #[arg(long, value_enum, default_value_t = By::Delay)]
    metric: By,
    /// The whole path's propagation at most, such as 5ms.
    #[arg(long, value_name = "TIME", value_parser = parsed::<Delay>)]
    max_delay: Option<Delay>,
    /// Links at most.
    #[arg(long, value_name = "NUMBER")]
    max_hops: Option<u32>,
    /// Only links of at least this capacity, such as 10Mbps.
    #[arg(long, value_name = "RATE", value_parser = parsed::<BitRate>)]
    bandwidth: Option<BitRate>,
    #[command(flatten)]
    elements: Elements,
    /// Two paths that share no link, no node, or no shared-risk group, of least length together;
    /// each keeps to everything asked.
    #[arg(long, value_enum, conflicts_with = "k")]
    disjoint: Option<Apart>,
    /// So many shortest loop-free paths.
    #[arg(short, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=1024))]
    k: Option<u16>,
    /// Runs a hook on this switch, on the way; in the order given, for the ids of the path.
    #[arg(long, value_name = "NODE")]
    hook: Vec<String>,
}

/// What a path passes, what it avoids; each can be given more than once.
#[derive(clap::Args, Default)]
struct Elements {
    /// Passes this switch.
    #[arg(long, value_name = "NODE")]
    include_node: Vec<String>,
    /// Passes this link: NODE:PORT of either end, or NODE:NODE.
    #[arg(long, value_name = "LINK")]
    include_link: Vec<String>,
    /// Passes a link of this shared-risk group.
    #[arg(long, value_name = "NUMBER")]
    include_srlg: Vec<u32>,
    /// Does not pass this switch.
    #[arg(long, value_name = "NODE")]
    exclude_node: Vec<String>,
    /// Does not pass this link, or these: NODE:PORT, or all of NODE:NODE.
    #[arg(long, value_name = "LINK")]
    exclude_link: Vec<String>,
    /// Passes no link of this shared-risk group.
    #[arg(long, value_name = "NUMBER")]
    exclude_srlg: Vec<u32>,
    /// Only links with at least one of these administrative groups.
    #[arg(long, value_name = "GROUP")]
    affinity_any: Vec<String>,
    /// Only links with all of these.
    #[arg(long, value_name = "GROUP")]
    affinity_all: Vec<String>,
    /// Only links with none of these.
    #[arg(long, value_name = "GROUP")]
    affinity_none: Vec<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum By {
    Delay,
    Cost,
    Hops,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Apart {
    Link,
    Node,
    Srlg,
}

pub(crate) fn parsed<T>(text: &str) -> Result<T, String>
where
    T: std::str::FromStr<Err = selvedge_topology::UnitError>,
{
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
    let shown = find(&args, &snapshot, &mut assumed);
    match (output, shown) {
        (Output::Json, shown) => {
            let error = shown.as_ref().err().cloned();
            let paths: Vec<_> = shown.iter().flatten().map(show::Shown::json).collect();
            let mut document = json!({ "paths": paths, "assumed": assumed });
            if let Some(error) = &error {
                document["error"] = json!(error);
            }
            println!("{document:#}");
            Ok(if error.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        (Output::Text, Ok(shown)) => {
            for (i, path) in shown.iter().enumerate() {
                if i > 0 {
                    println!();
                }
                path.print();
            }
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

fn find(
    args: &Args,
    snapshot: &Snapshot,
    assumed: &mut Vec<String>,
) -> Result<Vec<show::Shown>, String> {
    let from = ask::switch_or_host(snapshot, &args.from, assumed)?;
    let to = ask::switch_or_host(snapshot, &args.to, assumed)?;
    let hooks: Vec<NodeIx> =
        args.hook.iter().map(|name| ask::switch(snapshot, name)).collect::<Result<_, _>>()?;
    let mut constraints: Constraints = ask::elements(snapshot, &args.elements)?;
    constraints.max_delay = args.max_delay;
    constraints.max_hops = args.max_hops;
    constraints.bandwidth = args.bandwidth;
    constraints.include.nodes.extend(&hooks);
    let metric = match args.metric {
        By::Delay => Metric::Delay,
        By::Cost => Metric::Cost,
        By::Hops => Metric::Hops,
    };
    let query = Query { from, to, metric, constraints: &constraints };
    let (graph, mut scratch) = (snapshot.graph(), Scratch::new());
    let paths = match (args.disjoint, args.k) {
        (Some(apart), _) => pair(snapshot, &mut scratch, &query, apart)?,
        (None, Some(k)) => k_shortest(graph, &mut scratch, &query, usize::from(k))
            .map_err(|error| why(snapshot, &mut scratch, &query, error))?,
        (None, None) => cheapest(graph, &mut scratch, &query)
            .map(|path| vec![path])
            .map_err(|error| why(snapshot, &mut scratch, &query, error))?,
    };
    let shown = show::Shower::new(snapshot, &hooks);
    Ok(paths.iter().map(|path| shown.show(path)).collect())
}

fn why(snapshot: &Snapshot, scratch: &mut Scratch, query: &Query<'_>, error: NotFound) -> String {
    if error != NotFound::NoPath {
        return error.to_string();
    }
    let why = explain(snapshot.graph(), scratch, query);
    why.map_or_else(|error| error.to_string(), |why| why.describe(snapshot))
}

fn pair(
    snapshot: &Snapshot,
    scratch: &mut Scratch,
    query: &Query<'_>,
    apart: Apart,
) -> Result<Vec<Path>, String> {
    if query.from == query.to {
        return Err("a pair of paths is between two different switches".to_owned());
    }
    let (disjoint, what) = match apart {
        Apart::Link => (Disjoint::Link, "link"),
        Apart::Node => (Disjoint::Node, "node"),
        Apart::Srlg => (Disjoint::Srlg, "shared-risk group"),
    };
    let graph = snapshot.graph();
    let (from, to) = (snapshot.name(query.from), snapshot.name(query.to));
    let no = |because: String| {
        format!(
            "no two paths from {from} to {to} that share no {what} keep to the constraints: {because}"
        )
    };
    match disjoint_pair(graph, scratch, query, disjoint) {
        Ok(pair) => Ok(vec![pair.first, pair.second]),
        Err(NoPair::NotFound(error)) => Err(why(snapshot, scratch, query, error)),
        Err(NoPair::Shared(shared)) => {
            let shared = match shared {
                Shared::Node(node) => format!("switch {}", snapshot.name(node)),
                Shared::Link(link) => format!("link {}", snapshot.link(link)),
                Shared::Srlg(srlg) => format!("shared-risk group {srlg}"),
            };
            Err(no(format!("every path passes {shared}")))
        }
        Err(error) => Err(no(error.to_string())),
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
