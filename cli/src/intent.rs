//! Intent: what the operator wants, and what became of it.

use std::path::PathBuf;
use std::process::ExitCode;

use selvedge_controller::api::wire_intent::Change;

use crate::Output;
use crate::client::ControllerArg;

pub(crate) mod assurance;
mod change;
mod drain;
mod exchange;
mod explain;
mod explain_application;
mod files;
mod get;
mod history;
mod slice;
pub(crate) mod table;
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
        /// Keep the plan in a file, for `apply`.
        #[arg(short = 'o', long, value_name = "FILE")]
        save: Option<PathBuf>,
        #[command(flatten)]
        controller: ControllerArg,
    },
    /// Make it so: everything in the files, or nothing.
    Apply {
        /// Files of objects, or one saved plan.
        #[arg(required_unless_present = "plan", value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Apply a saved plan; refused if the network's intent has changed since.
        #[arg(long, value_name = "FILE", conflicts_with = "files")]
        plan: Option<PathBuf>,
        #[command(flatten)]
        how: How,
        #[command(flatten)]
        controller: ControllerArg,
    },
    /// Delete what files declare, or objects by kind and name.
    Delete {
        /// A file, or slice/NAME, hook/NAME, application/NAME, class-map/NAME.
        #[arg(required = true, value_name = "FILE|KIND/NAME")]
        what: Vec<String>,
        #[command(flatten)]
        how: How,
        #[command(flatten)]
        controller: ControllerArg,
    },
    /// What was changed when, by whom and why; with a revision, what exactly.
    History {
        revision: Option<u64>,
        #[command(flatten)]
        controller: ControllerArg,
    },
    /// Make every object what it was at a revision. A change like any other: planned, proven,
    /// refused if it does not fit, and a revision of its own.
    Rollback {
        revision: u64,
        /// Show what it would do, and do nothing.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        how: How,
        #[command(flatten)]
        controller: ControllerArg,
    },
    /// Empty a node or a link before work on it: paths are made elsewhere before they are broken
    /// here. Refused with the promise that it would break. Returns when it is done.
    Drain(drain::Args),
    /// Let a node or a link be used again.
    Undrain(drain::Args),
    /// Show the network: status, nodes, links, endpoints, slices, hooks, applications, the class
    /// map, events, topology, or the entries or counters of a node.
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
    /// The life of a slice: whether it would fit, reserve, activate, deactivate.
    Slice {
        #[command(subcommand)]
        verb: slice::Verb,
    },
    /// Slices for other systems, as JSON.
    Export {
        #[arg(value_enum)]
        what: exchange::What,
        /// 3GPP TS 28.541: NetworkSlice and ServiceProfile.
        #[arg(long, value_enum, default_value_t = exchange::Format::Ts28541)]
        format: exchange::Format,
        /// MCC and MNC of the network, such as 00101: then S-NSSAIs are in plmnInfoList.
        #[arg(long)]
        plmn: Option<String>,
        #[command(flatten)]
        controller: ControllerArg,
    },
    /// Slices of 3GPP TS 28.541 (JSON) as documents for `apply`; names what they do not keep.
    Import(exchange::Import),
    /// The JSON Schema of slices, hooks, applications and class maps, for editors.
    Schema,
    /// Why something is as it is.
    Explain {
        #[arg(value_enum)]
        kind: explain::Kind,
        name: String,
        #[command(flatten)]
        controller: ControllerArg,
    },
}

/// How a change is made, and what is written down of it.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct How {
    /// Why, for the history.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// On whose behalf, for the history; you are written down beside it.
    #[arg(long, value_name = "NAME")]
    author: Option<String>,
    /// Wait until the switches hold it, at most so many seconds.
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
}

pub(crate) fn run(command: Command, output: Output) -> anyhow::Result<ExitCode> {
    match command {
        Command::Validate { files } => validate::run(&files, output),
        Command::Plan { files, save, controller } => {
            change::plan(&files, save.as_deref(), &controller, output)
        }
        Command::Apply { files, plan, how, controller } => {
            change::apply(&files, plan.as_deref(), &how, &controller, output)
        }
        Command::Delete { what, how, controller } => {
            change::delete(&what, &how, &controller, output)
        }
        Command::History { revision, controller } => history::run(revision, &controller, output),
        Command::Rollback { revision, dry_run, how, controller } => {
            let change = Change { rollback: Some(revision), ..Change::default() };
            change::planned(change, dry_run, &how, &controller, output)
        }
        Command::Drain(args) => drain::drain(args, output),
        Command::Undrain(args) => drain::undrain(args, output),
        Command::Get { kind, name, desired, controller } => {
            get::run(kind, name.as_deref(), desired, &controller, output)
        }
        Command::Slice { verb } => slice::run(verb, output),
        Command::Export {
            what: exchange::What::Slices,
            format: exchange::Format::Ts28541,
            plmn,
            controller,
        } => exchange::export(plmn.as_deref(), &controller),
        Command::Import(args) => exchange::import(&args, output),
        Command::Schema => {
            println!("{}", serde_json::to_string_pretty(&selvedge_slices::json_schema())?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Explain { kind: explain::Kind::Slice, name, controller } => {
            explain::slice(&name, &controller, output)
        }
        Command::Explain { kind: explain::Kind::Application, name, controller } => {
            explain_application::run(&name, &controller, output)
        }
    }
}
