//! `selvedge lab`: networks of namespaces on this machine.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command as Process, ExitCode};

use anyhow::Context as _;
use clap::{Args as ClapArgs, Subcommand};
use selvedge_lab::relay::{self, Relay};
use selvedge_lab::{Lab, LabError};
use selvedge_topology::{BitRate, Delay, Loss, NodeName};

use crate::Output;

mod change;
mod lifecycle;
mod show;
mod test;
mod traffic;

pub(crate) use show::on_interrupt;

#[derive(ClapArgs)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

/// Which lab.
#[derive(ClapArgs)]
struct Which {
    /// The lab; if absent, the only one that is up.
    #[arg(long, value_name = "NAME")]
    lab: Option<NodeName>,
}

impl Which {
    fn open(&self) -> Result<Lab, LabError> {
        self.lab.as_ref().map_or_else(Lab::only, Lab::open)
    }
}

#[derive(Subcommand)]
enum Verb {
    /// Bring up the network of a topology file, and wait until it works.
    Up(lifecycle::Up),
    /// Remove a lab: namespaces, links, processes, pins; also what a crash left.
    Down(lifecycle::Down),
    /// All labs, and what crashes left of some.
    List,
    /// The processes of a lab.
    Ps(Which),
    /// Run a command in a node's namespace; the exit code is the command's.
    Exec {
        #[command(flatten)]
        which: Which,
        /// A node, or `mgmt` for the management network.
        node: String,
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Ask one host from another.
    Ping(traffic::Ping),
    /// Ask every host from every other one; exit code 1 unless all answer.
    Pingall(traffic::Pingall),
    /// Measure throughput with iperf3.
    Iperf(traffic::Iperf),
    /// Send numbered UDP packets at a rate; count loss, interruption and delay.
    Udp(traffic::Udp),
    /// Take a link's carrier away, or give it back.
    Link(change::Link),
    /// Change a link's rate, delay or loss.
    Impair(change::Impair),
    /// Unplug a host and plug it in at another port.
    Move(change::Move),
    /// Write a link's frames into a pcap file.
    Capture(traffic::Capture),
    /// Bring up a network, do what a file says, and check what it expects; TAP, JUnit or JSON.
    Test(test::Test),
    /// Kill a process of the lab: `controller`, `controller 2`, `etcd 1`, `switch NAME`,
    /// `compute NAME`.
    Kill(lifecycle::Kill),
    /// Start a process again that was killed.
    Start(lifecycle::Start),
    /// Become `selvedge ARGS` in a session of its own (the lab's own use).
    #[command(hide = true)]
    Launch {
        /// Instead of `selvedge`.
        #[arg(long)]
        program: Option<PathBuf>,
        #[arg(last = true, required = true)]
        args: Vec<String>,
    },
    /// Relay the frames of a wire (the lab's own use).
    #[command(hide = true)]
    Wire {
        #[arg(long, value_parser = delay)]
        delay: Delay,
        #[arg(long, value_parser = loss)]
        loss: Loss,
        #[arg(long)]
        seed: u64,
    },
}

pub(crate) fn run(args: Args, output: Output) -> anyhow::Result<ExitCode> {
    let done = match args.verb {
        Verb::Up(up) => lifecycle::up(up, output),
        Verb::Down(down) => lifecycle::down(down, output),
        Verb::List => lifecycle::list(output),
        Verb::Ps(which) => lifecycle::ps(&which, output),
        Verb::Exec { which, node, command } => exec(&which, &node, &command),
        Verb::Ping(ping) => traffic::ping(ping, output),
        Verb::Pingall(pingall) => traffic::pingall(pingall, output),
        Verb::Iperf(iperf) => traffic::iperf(iperf, output),
        Verb::Udp(udp) => traffic::udp(udp, output),
        Verb::Link(link) => change::link(link, output),
        Verb::Impair(impair) => change::impair(impair, output),
        Verb::Move(change) => change::move_host(change, output),
        Verb::Capture(capture) => traffic::capture(capture, output),
        Verb::Test(test) => test::test(test, output),
        Verb::Kill(kill) => lifecycle::kill(kill, output),
        Verb::Start(start) => lifecycle::start(start, output),
        Verb::Launch { program, args } => launch(program, &args),
        Verb::Wire { delay, loss, seed } => wire(Relay { delay, loss, seed }),
    };
    done.or_else(|error| match error.downcast::<LabError>() {
        Ok(LabError::Topology(problems)) => Ok(crate::path::refuse_file(*problems, output)),
        Ok(error) => Err(error.into()),
        Err(error) => Err(error),
    })
}

pub(crate) use test::check as check_test;

/// Becomes the command, so that signals, terminal and exit code are the command's own.
fn exec(which: &Which, node: &str, command: &[String]) -> anyhow::Result<ExitCode> {
    let lab = which.open()?;
    lab.netns(node)?.enter().with_context(|| format!("cannot enter the namespace of {node}"))?;
    let error = Process::new(&command[0])
        .args(&command[1..])
        .env("SELVEDGE_LAB", lab.name().as_str())
        .exec();
    Err(error).with_context(|| format!("cannot run {}", command[0]))
}

fn launch(program: Option<PathBuf>, args: &[String]) -> anyhow::Result<ExitCode> {
    selvedge_lab::new_session().context("cannot make a session")?;
    let program = program.map_or_else(own_binary, Ok)?;
    let error = Process::new(&program).args(args).exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}

fn wire(wire: Relay) -> anyhow::Result<ExitCode> {
    match relay::run(wire).context("cannot relay")? {}
}

/// This program's file.
fn own_binary() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot find this program's own file")
}

fn delay(text: &str) -> Result<Delay, String> {
    text.parse().map_err(|error: selvedge_topology::UnitError| suggest(&error))
}

fn loss(text: &str) -> Result<Loss, String> {
    text.parse().map_err(|error: selvedge_topology::UnitError| suggest(&error))
}

fn rate(text: &str) -> Result<BitRate, String> {
    text.parse().map_err(|error: selvedge_topology::UnitError| suggest(&error))
}

fn suggest(error: &selvedge_topology::UnitError) -> String {
    match &error.suggestion {
        Some(near) => format!("{error}; did you mean {near}?"),
        None => error.to_string(),
    }
}
