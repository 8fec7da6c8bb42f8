//! Changing a lab that is up.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use selvedge_lab::{Done, Impairment, Lab, end};
use selvedge_topology::{BitRate, Delay, Loss};
use serde_json::json;

use super::{Which, delay, loss, rate};
use crate::Output;

#[derive(clap::Args)]
pub(super) struct Ends {
    /// A node, or NODE:PORT where several links join the two.
    a: String,
    /// The node at the other end.
    b: String,
}

#[derive(clap::Args)]
pub(super) struct Link {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    ends: Ends,
    #[arg(value_enum)]
    to: Carrier,
    #[command(flatten)]
    wait: Wait,
}

/// Whether to wait until the switches are as they should be after a change.
#[derive(clap::Args)]
struct Wait {
    /// Do not wait until the controller has taken it up.
    #[arg(long)]
    no_wait: bool,
}

/// Longest wait for the controller.
const PATIENCE: Duration = Duration::from_secs(10);

impl Wait {
    fn until(&self, lab: &Lab, done: Done<'_>) -> anyhow::Result<()> {
        if !self.no_wait {
            lab.settled(done, PATIENCE).context("it is done, but the network has not settled")?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Carrier {
    Up,
    Down,
}

#[derive(clap::Args)]
#[group(id = "what", required = true, multiple = true, args = ["rate", "delay", "loss"])]
pub(super) struct Impair {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    ends: Ends,
    /// Each direction, such as 10Mbps; 0bps takes the limit away.
    #[arg(long, value_parser = rate)]
    rate: Option<BitRate>,
    /// One way, such as 5ms.
    #[arg(long, value_parser = delay)]
    delay: Option<Delay>,
    /// Share of the frames in each direction, such as 1%.
    #[arg(long, value_parser = loss)]
    loss: Option<Loss>,
}

#[derive(clap::Args)]
pub(super) struct Move {
    #[command(flatten)]
    which: Which,
    host: String,
    /// A switch's port that nothing uses: NODE:PORT, as in gnb2:p3.
    to: String,
    #[command(flatten)]
    wait: Wait,
}

pub(super) fn link(args: Link, output: Output) -> anyhow::Result<ExitCode> {
    let (lab, Ends { a, b }) = (args.which.open()?, args.ends);
    let up = matches!(args.to, Carrier::Up);
    lab.link(&a, &b, up)?;
    args.wait.until(&lab, Done::Link { a: &a, b: &b, up })?;
    match output {
        Output::Text => println!("{a} - {b} is {}", if up { "up" } else { "down" }),
        Output::Json => println!("{:#}", json!({ "a": a, "b": b, "up": up })),
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn impair(args: Impair, output: Output) -> anyhow::Result<ExitCode> {
    let (lab, Ends { a, b }) = (args.which.open()?, args.ends);
    let impairment = Impairment { rate: args.rate, delay: args.delay, loss: args.loss };
    let notes = lab.impair(&a, &b, impairment)?;
    let mut said = Vec::new();
    said.extend(args.rate.map(|rate| format!("rate {rate}")));
    said.extend(args.delay.map(|delay| format!("delay {delay}")));
    said.extend(args.loss.map(|loss| format!("loss {loss}")));
    match output {
        Output::Text => {
            notes.iter().for_each(|note| eprintln!("note: {note}"));
            println!("{a} - {b}: {}", said.join(", "));
        }
        Output::Json => {
            let notes: Vec<_> = notes.iter().map(ToString::to_string).collect();
            println!("{:#}", json!({ "a": a, "b": b, "set": said, "notes": notes }));
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn move_host(args: Move, output: Output) -> anyhow::Result<ExitCode> {
    let (lab, to) = (args.which.open()?, end(&args.to)?);
    let was = lab.move_host(&args.host, &to)?;
    args.wait.until(&lab, Done::Moved { host: &args.host, to: &to })?;
    match output {
        Output::Text => match &was {
            Some(was) => println!("{} moved from {was} to {to}", args.host),
            None => println!("{} plugged in at {to}", args.host),
        },
        Output::Json => {
            let (was, to) = (was.map(|was| was.to_string()), to.to_string());
            println!("{:#}", json!({ "host": args.host, "from": was, "to": to }));
        }
    }
    Ok(ExitCode::SUCCESS)
}
