//! Labs as a whole, and their processes.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use selvedge_lab::{
    Control, Lab, Options, Phase, ProcessName, Signal, Source, Summary, down as take_down,
    down_all, list as labs,
};
use selvedge_topology::NodeName;
use serde_json::json;

use super::show::{Progress, on_interrupt, table};
use super::{Which, own_binary};
use crate::Output;

#[derive(clap::Args)]
pub(super) struct Up {
    /// Topology: Selvedge YAML, Topology Zoo GraphML or REPETITA .graph. Without hosts, each
    /// switch gets one.
    file: PathBuf,
    /// What to call the lab, instead of by its topology's name.
    #[arg(long, visible_alias = "lab", value_name = "NAME")]
    name: Option<NodeName>,
    /// No controller: switches that obey any P4Runtime client, on 192.0.2.N:9559.
    #[arg(long)]
    unmanaged: bool,
    /// Namespaces and links alone; no switch runs.
    #[arg(long, conflicts_with = "unmanaged")]
    cables: bool,
    /// How many controllers: one leads, the others stand ready; their store is three members of
    /// etcd, which has to be installed.
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with_all = ["unmanaged", "cables"],
          value_parser = clap::value_parser!(u8).range(1..=i64::from(selvedge_lab::MAX_CONTROLLERS)))]
    controllers: u8,
    /// Neither drop nor mark packets for their rate.
    #[arg(long)]
    no_metering: bool,
    /// Directory whose .yaml files are the whole intent: see `selvedge controller --help`.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["unmanaged", "cables"])]
    intent: Option<PathBuf>,
    /// Seconds until all must work.
    #[arg(long, value_name = "SECONDS", default_value_t = selvedge_lab::DEADLINE.as_secs(),
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

#[derive(clap::Args)]
pub(super) struct Down {
    /// The lab; if absent, the only one that is up.
    #[arg(value_name = "NAME")]
    name: Option<NodeName>,
    #[arg(long, value_name = "NAME", conflicts_with = "name")]
    lab: Option<NodeName>,
    /// Every lab, and whatever crashes left.
    #[arg(long, conflicts_with_all = ["name", "lab"])]
    all: bool,
}

/// A process, in words.
#[derive(clap::Args)]
struct Named {
    /// `controller`, `switch`, `compute` or `etcd`.
    kind: String,
    /// The node of a switch or compute process; the number of a controller or member of etcd.
    node: Option<String>,
}

impl Named {
    fn process(&self) -> anyhow::Result<ProcessName> {
        let text = match &self.node {
            Some(node) => format!("{} {node}", self.kind),
            None => self.kind.clone(),
        };
        Ok(text.parse()?)
    }
}

#[derive(clap::Args)]
pub(super) struct Kill {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    process: Named,
    /// Ask it to end (SIGTERM) instead of killing it on the spot (SIGKILL).
    #[arg(long)]
    gently: bool,
}

#[derive(clap::Args)]
pub(super) struct Start {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    process: Named,
}

pub(super) fn up(args: Up, output: Output) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let progress = Arc::new(Progress::new());
    let watcher = Arc::clone(&progress);
    let mut options = Options::new(Source::File(args.file), own_binary()?);
    options.name = args.name;
    options.control = match (args.unmanaged, args.cables) {
        (true, _) => Control::Unmanaged,
        (_, true) => Control::Cables,
        _ => Control::Controller,
    };
    options.controllers = args.controllers;
    options.metering = !args.no_metering;
    options.intent = args.intent.map(|dir| dir.canonicalize().unwrap_or(dir));
    options.deadline = Duration::from_secs(args.timeout);
    options.watch = Box::new(move |event| watcher.show(event));
    on_interrupt(Arc::clone(&options.cancel))?;
    let done = Lab::up(options);
    progress.end();
    let lab = done?;

    let seconds = (start.elapsed().as_secs_f64() * 10.0).round() / 10.0;
    let (switches, hosts) = (lab.switches()?.len(), lab.hosts()?.len());
    let links = labs()?.into_iter().find(|l| l.name == *lab.name()).map_or(0, |l| l.links);
    match output {
        Output::Text => println!(
            "lab {} is up: {switches} switches, {hosts} hosts, {links} links ({seconds} s)",
            lab.name()
        ),
        Output::Json => println!(
            "{:#}",
            json!({
                "name": lab.name().as_str(), "seconds": seconds, "switches": switches,
                "hosts": hosts, "links": links, "run_dir": lab.run_dir(),
                "api_socket": lab.api_socket(),
            })
        ),
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn down(args: Down, output: Output) -> anyhow::Result<ExitCode> {
    let removed = if args.all {
        down_all()?
    } else {
        let name = match args.name.or(args.lab) {
            Some(name) => name,
            None => Lab::only()?.name().clone(),
        };
        take_down(&name)?;
        vec![name]
    };
    match output {
        Output::Text if removed.is_empty() => println!("no lab is up"),
        Output::Text => removed.iter().for_each(|name| println!("lab {name} is gone")),
        Output::Json => {
            let names: Vec<_> = removed.iter().map(NodeName::as_str).collect();
            println!("{:#}", json!({ "removed": names }));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn state(lab: &Summary) -> &'static str {
    match lab.phase {
        Some(Phase::Running) => "up",
        Some(Phase::Starting) if lab.busy.is_some() => "coming up",
        Some(Phase::Stopping) if lab.busy.is_some() => "going down",
        _ => "left over",
    }
}

pub(super) fn list(output: Output) -> anyhow::Result<ExitCode> {
    let labs = labs()?;
    let control = |lab: &Summary| match lab.control {
        Some(Control::Controller) => "controller",
        Some(Control::Unmanaged) => "unmanaged",
        Some(Control::Cables) => "cables",
        None => "-",
    };
    if output == Output::Json {
        let labs: Vec<_> = labs
            .iter()
            .map(|lab| {
                json!({
                    "name": lab.name.as_str(), "state": state(lab), "control": control(lab),
                    "file": lab.file, "switches": lab.switches, "hosts": lab.hosts,
                    "links": lab.links,
                    "processes": { "running": lab.processes.0, "wanted": lab.processes.1 },
                })
            })
            .collect();
        println!("{:#}", json!(labs));
        return Ok(ExitCode::SUCCESS);
    }
    if labs.is_empty() {
        println!("no lab is up");
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = table(["lab", "state", "control", "switches", "hosts", "links", "processes"]);
    for lab in &labs {
        let counts = [lab.switches, lab.hosts, lab.links].map(|count| count.to_string());
        let processes = format!("{} of {}", lab.processes.0, lab.processes.1);
        let [switches, hosts, links] = counts;
        let name = lab.name.to_string();
        let (state, control) = (state(lab).to_owned(), control(lab).to_owned());
        rows.add_row([name, state, control, switches, hosts, links, processes]);
    }
    println!("{rows}");
    for lab in labs.iter().filter(|lab| lab.is_leftover()) {
        println!("`selvedge lab down {}` removes what is left of it", lab.name);
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn ps(which: &Which, output: Output) -> anyhow::Result<ExitCode> {
    let lab = which.open()?;
    let processes = lab.processes()?;
    match output {
        Output::Json => {
            let list: Vec<_> = processes
                .iter()
                .map(|(name, pid)| {
                    let (pid, log) = (pid.map(|pid| pid.pid), lab.log(name));
                    json!({ "process": name.to_string(), "pid": pid, "log": log })
                })
                .collect();
            println!("{:#}", json!(list));
        }
        Output::Text => {
            let mut rows = table(["process", "pid", "log"]);
            for (name, pid) in &processes {
                let pid = pid.map_or_else(|| "gone".to_owned(), |pid| pid.pid.to_string());
                rows.add_row([name.to_string(), pid, lab.log(name).display().to_string()]);
            }
            println!("{rows}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn kill(args: Kill, output: Output) -> anyhow::Result<ExitCode> {
    let (lab, process) = (args.which.open()?, args.process.process()?);
    let signal = if args.gently { Signal::SIGTERM } else { Signal::SIGKILL };
    let ran = lab.stop(&process, signal)?;
    match output {
        Output::Text if ran => println!("{process} has ended"),
        Output::Text => println!("{process} was not running"),
        Output::Json => {
            println!("{:#}", json!({ "process": process.to_string(), "ran": ran }));
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn start(args: Start, output: Output) -> anyhow::Result<ExitCode> {
    let (lab, process) = (args.which.open()?, args.process.process()?);
    let pid = lab.start(&process).with_context(|| format!("cannot start {process}"))?;
    match output {
        Output::Text => println!("{process} runs as process {}", pid.pid),
        Output::Json => {
            println!("{:#}", json!({ "process": process.to_string(), "pid": pid.pid }));
        }
    }
    Ok(ExitCode::SUCCESS)
}
