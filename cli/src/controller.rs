//! `selvedge controller`: runs the controller until SIGTERM or SIGINT.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use selvedge_controller::store::Location;
use selvedge_controller::{Options, RunError};
use tokio::signal::unix::{SignalKind, signal};

use crate::Output;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The network as declared: .yaml, .graphml or .graph.
    #[arg(long, value_name = "FILE")]
    topology: PathBuf,
    /// Where intent is kept: a file, made if it is not there, or etcd's members, which several
    /// controllers can share.
    #[arg(long, value_name = "FILE|etcd://HOST:PORT,...[/PREFIX]")]
    store: Location,
    /// For etcd over TLS: a directory with ca.pem, client.pem and client.key.
    #[arg(long, value_name = "DIR")]
    store_tls: Option<PathBuf>,
    /// How the other controllers name this one to their clients. Default: the API's address.
    #[arg(long, value_name = "TEXT")]
    advertise: Option<String>,
    /// Directory with ca.pem, controller.pem and controller.key; see `selvedge pki init`.
    #[arg(long, value_name = "DIR")]
    tls: PathBuf,
    /// Where switches register.
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:9558")]
    southbound: SocketAddr,
    /// The API's Unix socket.
    #[arg(long, value_name = "PATH")]
    api_socket: PathBuf,
    /// The API on TCP too: in the clear, open to whoever can reach it.
    #[arg(long, value_name = "ADDR:PORT")]
    api: Option<SocketAddr>,
    /// Directory whose .yaml files are the whole intent, those below it included. It is read
    /// again when they change; nobody else changes objects then.
    #[arg(long, value_name = "DIR")]
    intent: Option<PathBuf>,
}

pub(crate) fn run(args: Args, _output: Output) -> anyhow::Result<ExitCode> {
    let Args { topology, store, store_tls, advertise, tls, southbound, .. } = args;
    let Args { api_socket, api, intent, .. } = args;
    let options =
        Options { topology, store, store_tls, advertise, tls, southbound, api_socket, api, intent };
    crate::out::log();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        anyhow::Ok(selvedge_controller::run(options, stop, || {}).await)
    })?;
    // What is still in flight has had its time.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match result {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(RunError::Topology(problems)) => {
            eprintln!("{:?}", miette::Report::new(problems));
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(error.into()),
    }
}
