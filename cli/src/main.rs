//! `selvedge`: the one binary. Each command has its own file; this one names them.

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

#[macro_use]
mod out;

mod backup;
mod client;
mod compute;
mod controller;
mod doctor;
mod intent;
mod lab;
mod path;
mod pki;
mod switch;
mod te;
mod top;
mod trace;

/// SDN controller for 5G edge networks, and the data plane it programs.
#[derive(Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    /// How results are printed.
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Run the controller.
    Controller(controller::Args),
    /// Run a switch: the agent and its XDP programs.
    Switch(switch::Args),
    /// Run the Wasm host of a switch's compute hooks.
    Compute(compute::Args),
    /// Bring up networks of namespaces, break them, measure them.
    Lab(lab::Args),
    /// Write all that the controller keeps into a file.
    Backup(backup::BackupArgs),
    /// Put a backup into a store.
    Restore(backup::RestoreArgs),
    /// Certificates for controller and switches.
    Pki(pki::Args),
    #[command(flatten)]
    Intent(intent::Command),
    /// Every slice's promises beside what is measured, live.
    Top(top::Args),
    /// The path a packet takes, with every table it hits.
    Trace(trace::Args),
    /// Paths between two nodes of a topology file.
    Path(path::Args),
    /// Traffic engineering of a topology file and a traffic matrix.
    Te(te::Args),
    /// What this machine lacks, with the fix for each.
    Doctor(doctor::Args),
}

fn main() -> ExitCode {
    let Cli { output, command } = Cli::parse();
    let result = match command {
        Command::Controller(args) => controller::run(args, output),
        Command::Switch(args) => switch::run(args, output),
        Command::Compute(args) => compute::run(args, output),
        Command::Lab(args) => lab::run(args, output),
        Command::Backup(args) => backup::backup(args, output),
        Command::Restore(args) => backup::restore(args, output),
        Command::Pki(args) => pki::run(args, output),
        Command::Intent(command) => intent::run(command, output),
        Command::Top(args) => top::run(args, output),
        Command::Trace(args) => trace::run(args, output),
        Command::Path(args) => path::run(args, output),
        Command::Te(args) => te::run(args, output),
        Command::Doctor(args) => doctor::run(args, output),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
