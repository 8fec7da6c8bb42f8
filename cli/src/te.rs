//! `selvedge te`: traffic engineering of a topology file and a traffic matrix, offline.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use selvedge_topology::limits::{MAX_CAPACITY_BPS, MIN_CAPACITY_BPS};
use selvedge_topology::read::text_of;
use selvedge_topology::read::traffic::{self, Directed};
use selvedge_topology::te::{self, Demand, MAX_MOVES, Options, Plan, Progress, Share};
use selvedge_topology::{BitRate, Delay};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Output;
use crate::lab::on_interrupt;
use crate::path::{parsed, refuse_file};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Topology: Selvedge YAML, Topology Zoo GraphML or REPETITA .graph.
    #[arg(long, value_name = "FILE")]
    topology: PathBuf,
    /// Traffic matrix: REPETITA .demands.
    #[arg(long, value_name = "FILE")]
    demands: PathBuf,
    /// Let a demand be split over several ways, in hundredths.
    #[arg(long)]
    split: bool,
    /// Time from the start of the command to its result. An interrupt (Ctrl-C) ends it earlier,
    /// with the best plan so far.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "1s",
        value_parser = parsed::<Delay>,
        allow_hyphen_values = true
    )]
    time: Delay,
    /// Stop after so many rounds of search even if time is left; then the same input gives the
    /// same result on every machine that is fast enough.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    rounds: Option<usize>,
    /// Another seed, another search.
    #[arg(long, value_name = "N", default_value_t = 0, allow_hyphen_values = true)]
    seed: u64,
    /// Start from the policies in this file, as `--output json` prints them.
    #[arg(long, value_name = "FILE", requires = "max_moves")]
    from: Option<PathBuf>,
    /// With --from: change the policies of at most so many demands, in an order that overloads
    /// no link.
    #[arg(
        long,
        value_name = "N",
        requires = "from",
        value_parser = max_moves,
        allow_hyphen_values = true
    )]
    max_moves: Option<usize>,
    /// Capacity of links that state none.
    #[arg(long, value_name = "RATE", value_parser = capacity, allow_hyphen_values = true)]
    capacity: Option<BitRate>,
    /// Show progress even when standard error is no terminal.
    #[arg(long)]
    progress: bool,
}

fn capacity(text: &str) -> Result<BitRate, String> {
    let rate: BitRate = parsed(text)?;
    if (MIN_CAPACITY_BPS..=MAX_CAPACITY_BPS).contains(&rate.bps()) {
        return Ok(rate);
    }
    let (least, most) = (BitRate(MIN_CAPACITY_BPS), BitRate(MAX_CAPACITY_BPS));
    Err(format!("a link's capacity is from {least} to {most}"))
}

fn max_moves(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number <= MAX_MOVES);
    number.ok_or_else(|| format!("not a number from 0 to {MAX_MOVES}"))
}

pub(crate) fn run(args: Args, output: Output) -> anyhow::Result<ExitCode> {
    let clock = Clock::new(Duration::from_micros(args.time.us()));
    let directed = match traffic::network_from_path(&args.topology, args.capacity) {
        Ok(directed) => directed,
        Err(problems) => return Ok(refuse_file(problems, output)),
    };
    let demands = match traffic::demands_from_path(&args.demands, &directed) {
        Ok(demands) => demands,
        Err(problems) => return Ok(refuse_file(problems, output)),
    };
    let interrupted = Arc::new(AtomicBool::new(false));
    on_interrupt(Arc::clone(&interrupted)).context("catch signals")?;
    let stop = || clock.is_up() || interrupted.load(Ordering::Relaxed);
    let options = Options {
        split: args.split,
        seed: args.seed,
        max_rounds: args.rounds.unwrap_or(usize::MAX),
    };
    let mut line = Line::new(args.progress);
    let mut assumed: Vec<String> = directed.assumptions.iter().map(|a| a.to_string()).collect();
    let idle = demands.iter().filter(|demand| demand.rate.0 == 0).count();
    if idle > 0 {
        assumed.push(format!("{idle} demands have a rate of 0 and load nothing"));
    }
    let result = match (&args.from, args.max_moves) {
        (Some(file), Some(most)) => {
            let text = match text_of(file, MAX_PLAN_BYTES) {
                Ok(text) => text,
                Err(problems) => return Ok(refuse_file(problems, output)),
            };
            let name = file.display().to_string();
            let plan = running(&name, &text, &directed, &demands, &mut assumed)?;
            let network = &directed.network;
            let change =
                te::change(network, &demands, &plan, most, options, &stop, &mut |p| line.show(p))?;
            Answer {
                plan: &change.plan,
                max_utilisation: change.max_utilisation,
                before: change.before,
                bound: None,
                change: Some(&change),
                seconds: clock.seconds(),
                interrupted: interrupted.load(Ordering::Relaxed),
                assumed,
            }
            .print(&directed, &demands, output, &mut line)
        }
        _ => {
            let network = &directed.network;
            let found = te::optimise(network, &demands, options, &stop, &mut |p| line.show(p))?;
            Answer {
                plan: &found.plan,
                max_utilisation: found.max_utilisation,
                before: found.shortest_paths,
                bound: Some(found.bound),
                change: None,
                seconds: clock.seconds(),
                interrupted: interrupted.load(Ordering::Relaxed),
                assumed,
            }
            .print(&directed, &demands, output, &mut line)
        }
    };
    result?;
    Ok(ExitCode::SUCCESS)
}

/// A tenth of the time is kept for what follows the search.
struct Clock {
    start: Instant,
    search: Duration,
}

impl Clock {
    fn new(time: Duration) -> Self {
        Self { start: Instant::now(), search: time.mul_f64(0.9) }
    }

    fn is_up(&self) -> bool {
        self.start.elapsed() >= self.search
    }

    fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }
}

/// The progress line.
struct Line {
    terminal: bool,
    on: bool,
    shown: Option<Instant>,
}

impl Line {
    fn new(asked: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { terminal, on: asked || terminal, shown: None }
    }

    /// At most five times a second.
    fn show(&mut self, progress: Progress) {
        let recent = |at: Instant| at.elapsed() < Duration::from_millis(200);
        if !self.on || self.shown.is_some_and(recent) {
            return;
        }
        self.shown = Some(Instant::now());
        let Progress { round, max_utilisation, bound } = progress;
        let bound = if bound > 0.0 { format!(", bound {bound:.4}") } else { String::new() };
        let text = format!("round {round}: fullest link {max_utilisation:.4}{bound}");
        let ends = if self.terminal { ("\r", "\x1b[K") } else { ("", "\n") };
        // A reader that went away misses nothing of the result.
        let _ = write!(std::io::stderr(), "{}{text}{}", ends.0, ends.1);
    }

    fn clear(&self) {
        if self.terminal && self.shown.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// A file of policies, as far as it is read.
#[derive(Deserialize)]
struct State {
    policies: Vec<Policy>,
}

#[derive(Deserialize)]
struct Policy {
    demand: String,
    share: f64,
    segments: Vec<String>,
}

/// A file of policies: some two million of them.
const MAX_PLAN_BYTES: usize = 256 << 20;

/// The plan that a file's policies make; demands that it does not name take their shortest
/// paths. Policies of demands that are no more are left out.
fn running(
    file: &str,
    text: &str,
    directed: &Directed,
    demands: &[Demand],
    assumed: &mut Vec<String>,
) -> anyhow::Result<Plan> {
    let state: State = serde_json::from_str(text).with_context(|| file.to_owned())?;
    let index: HashMap<&str, usize> =
        demands.iter().enumerate().map(|(at, demand)| (demand.label.as_str(), at)).collect();
    let mut named: BTreeMap<usize, Vec<Share>> = BTreeMap::new();
    let mut gone = BTreeSet::new();
    for (at, policy) in state.policies.iter().enumerate() {
        let place = format!("{file}: policies[{at}]");
        let share = policy.share * f64::from(te::SHARES);
        if !(1.0..=100.0).contains(&share.round()) || (share - share.round()).abs() > 1e-6 {
            bail!("{place}: share {} is not a multiple of 0.01 up to 1", policy.share);
        }
        let Some(&demand) = index.get(policy.demand.as_str()) else {
            gone.insert(&policy.demand);
            continue;
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1..=100")]
        let hundredths = share.round() as u32;
        let node = |label: &String| {
            let node = directed.node(label);
            node.with_context(|| format!("{place}: there is no node {label:?}"))
        };
        let segments = policy.segments.iter().map(node).collect::<anyhow::Result<_>>()?;
        named.entry(demand).or_default().push(Share { segments, hundredths });
    }
    if let Some(first) = gone.first() {
        let count = gone.len();
        assumed.push(format!("{count} demands of {file} are no more, such as {first}"));
    }
    let mut plan = Plan::shortest(demands.len());
    for (demand, mut shares) in named {
        shares.sort();
        plan.demands[demand] = shares;
    }
    Ok(plan)
}

struct Answer<'a> {
    plan: &'a Plan,
    max_utilisation: f64,
    /// Of the running plan, or of the shortest paths.
    before: f64,
    bound: Option<f64>,
    change: Option<&'a te::Change>,
    seconds: f64,
    /// Before the time was up.
    interrupted: bool,
    assumed: Vec<String>,
}

impl Answer<'_> {
    fn print(
        &self,
        directed: &Directed,
        demands: &[Demand],
        output: Output,
        line: &mut Line,
    ) -> std::io::Result<()> {
        line.clear();
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        match output {
            Output::Json => writeln!(out, "{:#}", self.json(directed, demands))?,
            Output::Text => {
                self.text(&mut out, directed, demands)?;
                self.assumed.iter().try_for_each(|assumed| writeln!(out, "assumed: {assumed}"))?;
            }
        }
        out.flush()
    }

    fn json(&self, directed: &Directed, demands: &[Demand]) -> Value {
        let labels = |segments: &[u32]| -> Vec<&str> {
            segments.iter().map(|node| directed.network.label(*node)).collect()
        };
        let share = |share: &Share| f64::from(share.hundredths) / f64::from(te::SHARES);
        let policies: Vec<Value> = self
            .plan
            .policies()
            .flat_map(|(demand, shares)| shares.iter().map(move |share| (demand, share)))
            .map(|(demand, of)| {
                let segments = labels(&of.segments);
                json!({ "demand": demands[demand].label, "share": share(of), "segments": segments })
            })
            .collect();
        let shares = |shares: &[Share]| -> Vec<Value> {
            let one = |of: &Share| json!({ "share": share(of), "segments": labels(&of.segments) });
            shares.iter().map(one).collect()
        };
        let mut document = json!({
            "max_utilisation": self.max_utilisation,
            "seconds": self.seconds,
            "policies": policies,
            "assumed": self.assumed,
        });
        if self.interrupted {
            document["interrupted"] = json!(true);
        }
        let before = if self.change.is_some() { "before" } else { "shortest_paths" };
        document[before] = json!(self.before);
        if let Some(bound) = self.bound {
            document["optimum_bound"] = json!(bound);
        }
        if let Some(change) = self.change {
            let moves = change.moves.iter().map(|step| {
                json!({
                    "demand": demands[step.demand].label,
                    "from": shares(&step.from),
                    "to": shares(&step.to),
                    "peak_utilisation": step.peak,
                })
            });
            document["moves"] = moves.collect();
            let refused = change.refused.iter().map(|refused| {
                json!({
                    "demand": demands[refused.demand].label,
                    "to": shares(&refused.to),
                    "link": directed.network.edges()[refused.link].label,
                    "would_be": refused.would_be,
                })
            });
            document["refused"] = refused.collect();
        }
        document
    }

    fn text(
        &self,
        out: &mut impl std::io::Write,
        directed: &Directed,
        demands: &[Demand],
    ) -> std::io::Result<()> {
        let ways = |shares: &[Share]| -> String {
            let way = |share: &Share| {
                let part = match share.hundredths {
                    te::SHARES => String::new(),
                    hundredths => format!("{hundredths} % "),
                };
                let labels = share.segments.iter().map(|node| directed.network.label(*node));
                let labels: Vec<&str> = labels.collect();
                if labels.is_empty() {
                    format!("{part}on shortest paths")
                } else {
                    format!("{part}via {}", labels.join(", "))
                }
            };
            shares.iter().map(way).collect::<Vec<_>>().join("; ")
        };
        if self.interrupted {
            writeln!(out, "interrupted: the best plan so far")?;
        }
        let was = if self.change.is_some() { "before" } else { "on shortest paths" };
        let (full, before) = (self.max_utilisation, self.before);
        writeln!(out, "fullest link: {full:.4} of its capacity; {was} {before:.4}")?;
        if let Some(bound) = self.bound {
            writeln!(out, "no plan can be below {bound:.4}")?;
        }
        let Some(change) = self.change else {
            let count = self.plan.policies().count();
            writeln!(out, "policies: {count} of {} demands", demands.len())?;
            for (demand, shares) in self.plan.policies() {
                writeln!(out, "  {}  {}", demands[demand].label, ways(shares))?;
            }
            return writeln!(out, "found in {:.3} s", self.seconds);
        };
        writeln!(out, "moves: {}, in this order", change.moves.len())?;
        for step in &change.moves {
            let (label, to, peak) = (&demands[step.demand].label, ways(&step.to), step.peak);
            writeln!(out, "  {label}  {to}  (meanwhile up to {peak:.4})")?;
        }
        for refused in &change.refused {
            let (label, to) = (&demands[refused.demand].label, ways(&refused.to));
            let link = &directed.network.edges()[refused.link].label;
            let full = refused.would_be;
            writeln!(out, "  not moved: {label}  {to}: link {link} would be at {full:.4}")?;
        }
        writeln!(out, "found in {:.3} s", self.seconds)
    }
}
