//! `selvedge path`: paths between nodes of a topology file, without a controller.

mod ask;
mod find;
mod show;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use selvedge_topology::{BitRate, Delay, Problems, Read, Snapshot, read};
use serde_json::json;

use crate::Output;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Topology: Selvedge YAML, Topology Zoo GraphML or REPETITA .graph.
    #[arg(long, value_name = "FILE")]
    topology: PathBuf,
    /// Where the path begins: a switch, or a host for the switch it hangs on. Without it, at
    /// every switch.
    #[arg(long, value_name = "NODE")]
    from: Option<String>,
    /// Where it ends. Without it, at every other switch.
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
    /// What the path is shortest by; then by hops, then by names.
    #[arg(long, value_enum, default_value_t = By::Delay)]
    metric: By,
    /// The whole path's propagation at most, such as 5ms.
    #[arg(long, value_name = "TIME", value_parser = parsed::<Delay>, allow_hyphen_values = true)]
    max_delay: Option<Delay>,
    /// Links at most.
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    max_hops: Option<u32>,
    /// Only links of at least this capacity, such as 10Mbps.
    #[arg(long, value_name = "RATE", value_parser = rate, allow_hyphen_values = true)]
    bandwidth: Option<BitRate>,
    #[command(flatten)]
    elements: Elements,
    /// Two paths that share no link, no node, or no shared-risk group, of least length together;
    /// each keeps to everything asked.
    #[arg(long, value_enum, requires = "from", requires = "to")]
    disjoint: Option<Apart>,
    /// So many shortest loop-free paths.
    #[arg(
        short,
        value_name = "NUMBER",
        value_parser = clap::value_parser!(u16).range(1..=1024),
        allow_hyphen_values = true,
        requires = "from",
        requires = "to",
        conflicts_with = "disjoint"
    )]
    k: Option<u16>,
    /// All paths that are as short as the shortest.
    #[arg(long, requires = "from", requires = "to", conflicts_with_all = ["disjoint", "k"])]
    ecmp: bool,
    /// With each link of a path, the loop-free ways around it and around the switch behind it.
    #[arg(long)]
    backups: bool,
    /// Runs a hook on this switch, on the way; in the order given, for the ids of the path.
    #[arg(long, value_name = "NODE")]
    hook: Vec<String>,
}

/// What a path passes, what it avoids; each can be given more than once.
#[derive(clap::Args)]
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

/// A rate that asks for something.
pub(crate) fn rate(text: &str) -> Result<BitRate, String> {
    match parsed(text)? {
        BitRate(0) => Err("a rate of 0 asks for nothing: leave the option out".to_owned()),
        rate => Ok(rate),
    }
}

pub(crate) fn run(args: Args, output: Output) -> anyhow::Result<ExitCode> {
    let Read { topology, assumptions } = match read::from_path(&args.topology) {
        Ok(read) => read,
        Err(problems) => return Ok(refuse_file(problems, output)),
    };
    let mut assumed: Vec<String> = assumptions.iter().map(ToString::to_string).collect();
    let snapshot = Snapshot::new(Arc::new(topology), 0);
    let found = find::find(&args, &snapshot, &mut assumed);
    match (output, found) {
        (Output::Json, found) => {
            let mut document = json!({ "paths": [], "assumed": assumed });
            let ok = found.is_ok();
            match found {
                Ok(found) => {
                    let paths = found.paths.iter().map(show::Shown::json);
                    document["paths"] = paths.collect();
                    if !found.none.is_empty() {
                        let none = found.none.iter();
                        let none = none.map(|(from, to)| json!({ "from": from, "to": to }));
                        document["none"] = none.collect();
                    }
                }
                Err(refused) => {
                    document["error"] = json!(refused.message);
                    document["relax"] = json!(refused.relax);
                }
            }
            println!("{document:#}");
            Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        (Output::Text, Ok(found)) => {
            for (i, path) in found.paths.iter().enumerate() {
                if i > 0 {
                    println!();
                }
                path.print();
            }
            for (from, to) in &found.none {
                println!("no path: {from} > {to}");
            }
            for assumption in &assumed {
                println!("assumed: {assumption}");
            }
            Ok(ExitCode::SUCCESS)
        }
        (Output::Text, Err(refused)) => {
            for assumption in &assumed {
                eprintln!("assumed: {assumption}");
            }
            anyhow::bail!(refused.message)
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
