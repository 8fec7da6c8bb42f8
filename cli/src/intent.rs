//! Intent: what the operator wants, and what became of it.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::Output;
use crate::client::ControllerArg;

pub(crate) mod assurance;
mod change;
mod explain;
mod files;
mod get;
mod table;
mod validate;

pub(crate) use change::{change_of, commit, deletion_of};
pub(crate) use table::{print_json, rate};

/// Intent: what the operator wants, and what became of it.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Check files without a controller: topologies, slices, hooks, applications.
    Validate {
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Show what applying files would do.
    Plan {
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Keep the plan for `apply --plan`.
        #[arg(long, value_name = "FILE")]
        save: Option<PathBuf>,
        #[command(flatten)]
        controller: ControllerArg,
    },
    /// Make it so: everything in the files, or nothing.
    Apply {
        #[arg(required_unless_present = "plan", value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Apply a saved plan; refused if the network's intent has changed since.
        #[arg(long, value_name = "FILE", conflicts_with = "files")]
        plan: Option<PathBuf>,
        /// Wait until the switches hold it, at most so many seconds.
        #[arg(long, value_name = "SECONDS")]
        wait: Option<u64>,
        #[command(flatten)]
        controller: ControllerArg,
    },
    /// Delete what files declare, or objects by kind and name.
    Delete {
        /// A file, or slice/NAME, hook/NAME, application/NAME.
        #[arg(required = true, value_name = "FILE|KIND/NAME")]
        what: Vec<String>,
        /// Wait until the switches hold it, at most so many seconds.
        #[arg(long, value_name = "SECONDS")]
        wait: Option<u64>,
        #[command(flatten)]
        controller: ControllerArg,
    },
    /// Show the network: status, nodes, links, endpoints, slices, hooks, applications, events,
    /// topology, or the entries or counters of a node.
    Get {
        #[arg(value_enum, default_value_t = get::Kind::Status)]
        kind: get::Kind,
        /// One of them; for entries and counters: the node.
        name: Option<String>,
        /// Entries as they should be, not as they were last seen.
        #[arg(long)]
        desired: bool,
        #[command(flatten)]
        controller: ControllerArg,
    },
    /// Why something is as it is.
    Explain {
        #[arg(value_enum)]
        kind: explain::Kind,
        name: String,
        #[command(flatten)]
        controller: ControllerArg,
    },
}

pub(crate) fn run(command: Command, output: Output) -> anyhow::Result<ExitCode> {
    match command {
        Command::Validate { files } => validate::run(&files, output),
        Command::Plan { files, save, controller } => {
            change::plan(&files, save.as_deref(), &controller, output)
        }
        Command::Apply { files, plan, wait, controller } => {
            change::apply(&files, plan.as_deref(), wait, &controller, output)
        }
        Command::Delete { what, wait, controller } => {
            change::delete(&what, wait, &controller, output)
        }
        Command::Get { kind, name, desired, controller } => {
            get::run(kind, name.as_deref(), desired, &controller, output)
        }
        Command::Explain { kind: explain::Kind::Slice, name, controller } => {
            explain::slice(&name, &controller, output)
        }
    }
}
