//! `selvedge drain` and `undrain`: nodes and links that are to be empty.

use std::process::ExitCode;

use selvedge_controller::api::wire_intent::{Change, Target};

use super::{How, change};
use crate::Output;
use crate::client::ControllerArg;

/// How long a drain waits for the last packets, unless told otherwise, in seconds.
const PATIENCE_S: u64 = 30;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(value_enum)]
    kind: Kind,
    /// A switch; or a link: a port of it, as s1:p2, or the two nodes or ports it joins.
    #[arg(required = true, num_args = 1..=2, value_name = "NAME")]
    names: Vec<String>,
    /// Show what it would do, and do nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    controller: ControllerArg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Node,
    Link,
}

impl Args {
    fn target(&self) -> anyhow::Result<Target> {
        let kind = match (self.kind, &self.names[..]) {
            (Kind::Node, [_]) => "node",
            (Kind::Node, names) => anyhow::bail!("one node at a time, not {}", names.join(" and ")),
            (Kind::Link, _) => "link",
        };
        Ok(Target { kind: kind.to_owned(), name: self.names.join(" - ") })
    }
}

/// Returns when nothing is sent through it any more: then work on it may begin.
pub(super) fn drain(args: Args, output: Output) -> anyhow::Result<ExitCode> {
    let target = args.target()?;
    let what = format!("{} {}", target.kind, target.name);
    let how = How { wait: args.how.wait.or(Some(PATIENCE_S)), ..args.how };
    let change = Change { drain: vec![target], ..Change::default() };
    let done = change::planned(change, args.dry_run, &how, &args.controller, output)?;
    if done == ExitCode::SUCCESS && !args.dry_run && output == Output::Text {
        println!("{what} is drained: no path leads through it");
    }
    Ok(done)
}

pub(super) fn undrain(args: Args, output: Output) -> anyhow::Result<ExitCode> {
    let change = Change { undrain: vec![args.target()?], ..Change::default() };
    change::planned(change, args.dry_run, &args.how, &args.controller, output)
}
