//! `selvedge compute`: the Wasm host of a switch's packet hooks.

use std::{path::PathBuf, process::ExitCode};

use selvedge_wasm::{Options, StopSignal};

use crate::Output;

/// Runs next to `selvedge switch --compute-socket PATH`, in its network namespace. It needs
/// CAP_NET_RAW and CAP_IPC_LOCK and gives up every other capability. It may be started before
/// the switch's agent and outlives it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Socket that the switch's agent listens at.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
}

pub(crate) fn run(args: Args, _output: Output) -> anyhow::Result<ExitCode> {
    crate::out::log();
    // Before any other thread exists, so that all of them block the signals.
    let stop = StopSignal::on_termination()?;
    selvedge_wasm::run(&Options { socket: args.socket, drop_privileges: true }, &stop)?;
    Ok(ExitCode::SUCCESS)
}
