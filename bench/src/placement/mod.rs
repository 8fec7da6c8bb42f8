//! `bench placement`: instances with their paths onto nodes, beside an exact program (HiGHS) on
//! networks of up to 20 nodes, and beside random, first-fit and nearest placement on larger
//! loads. All of them reserve paths in the same ledger, by the same admission.
//!
//! What counts is the gain: what the placed instances are worth, less what energy, traffic,
//! moves and being away from preferred sites cost (`slices::placement`), in watts.

mod exact;
mod load;

use std::time::{Duration, Instant};

use anyhow::Result;
use selvedge_slices::Ledger;
use selvedge_slices::placement::{Paths, Placement, Request};
use serde_json::Value;

use crate::paths::{Random, milliseconds, p99};
use crate::report;
use load::Load;

/// Larger loads: Geant2012 (40 nodes), every second of which has compute; seeds of each.
const SEEDS: u64 = 2;
/// Instances of a load that fits, and of one that asks for more processors than there are.
const LOADS: [(&str, usize); 2] = [("light", 100), ("heavy", 240)];
/// For one load, whatever is placed by then: `place_all` is stopped.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn run() -> Result<Vec<Value>> {
    let mut rows = exact::rows()?;
    rows.extend(larger()?);
    Ok(rows)
}

/// How a baseline chooses among the nodes that have what an instance needs.
#[derive(Clone, Copy)]
enum Rule {
    Random,
    FirstFit,
    /// The least cost of the way from its users.
    Nearest,
}

const RULES: [(Rule, &str, &str); 3] = [
    (Rule::Random, "placement_vs_random", "random node that fits"),
    (Rule::FirstFit, "placement_vs_first_fit", "first node that fits"),
    (Rule::Nearest, "placement_vs_nearest", "nearest node that fits"),
];

/// What came of a load.
struct Outcome {
    gain_w: f64,
    placed: usize,
}

impl Outcome {
    fn of(placement: &Placement) -> Self {
        Self { gain_w: watts(placement.gain()), placed: placement.iter().count() }
    }
}

fn watts(mw: i64) -> f64 {
    mw as f64 / 1000.0
}

fn larger() -> Result<Vec<Value>> {
    println!("\nLarger loads: Geant2012, 20 nodes with compute, {SEEDS} seeds each");
    let mut ours_w = 0.0;
    let mut theirs_w = [0.0; 3];
    let mut singles: Vec<Duration> = Vec::new();
    let mut first_fits: Vec<Duration> = Vec::new();
    for (name, count) in LOADS {
        let mut sums = vec![(0.0, 0usize); RULES.len() + 1];
        let mut took = Duration::ZERO;
        for seed in 0..SEEDS {
            let load = Load::geant(count, seed)?;
            let start = Instant::now();
            let (ours, spent) = place_all(&load);
            took = took.max(start.elapsed());
            singles.extend(spent);
            ours_w += ours.gain_w;
            sums[0] = (sums[0].0 + ours.gain_w, sums[0].1 + ours.placed);
            for (index, (rule, ..)) in RULES.into_iter().enumerate() {
                let (theirs, spent) = by_rule(&load, rule, seed);
                if matches!(rule, Rule::FirstFit) {
                    first_fits.extend(spent);
                }
                theirs_w[index] += theirs.gain_w;
                let sum = &mut sums[index + 1];
                *sum = (sum.0 + theirs.gain_w, sum.1 + theirs.placed);
            }
        }
        let asked = count * usize::try_from(SEEDS)?;
        println!("  {name}: {asked} instances; at most {:.1} s for one load", took.as_secs_f64());
        let names = ["Selvedge"].into_iter().chain(RULES.map(|(_, _, name)| name));
        for (name, (gain_w, placed)) in names.zip(sums) {
            println!("    {name:<24} {placed:>5} placed, gain {gain_w:>9.0} W");
        }
    }
    let mut rows: Vec<Value> = RULES
        .into_iter()
        .zip(theirs_w)
        .map(|((_, row, name), theirs)| {
            report::row(row, ours_w, "W gained", "higher", (name, theirs))
        })
        .collect();
    let (one, first) = (milliseconds(p99(&mut singles)), milliseconds(p99(&mut first_fits)));
    println!("  one decision, p99: {one:.2} ms; first fit {first:.2} ms");
    rows.push(report::row("placement_ms", one, "ms", "lower", ("first node that fits", first)));
    Ok(rows)
}

/// All at once; then each decided anew, timed, with all others there.
fn place_all(load: &Load) -> (Outcome, Vec<Duration>) {
    let mut ledger = Ledger::new();
    let mut paths = Paths::new(&mut ledger, load.net.network());
    let mut placement = Placement::new(load.offers.clone());
    let start = Instant::now();
    placement.place_all(&mut paths, &load.requests, &|| start.elapsed() > PATIENCE);
    let outcome = Outcome::of(&placement);
    let there: Vec<Request> = placement.iter().map(|put| put.request.clone()).collect();
    let again = there.iter().map(|request| {
        // A refusal is an answer too: it stays where it was then.
        let start = Instant::now();
        drop(placement.place(&mut paths, request));
        start.elapsed()
    });
    (outcome, again.collect())
}

fn by_rule(load: &Load, rule: Rule, seed: u64) -> (Outcome, Vec<Duration>) {
    let mut random = Random(seed);
    let mut ledger = Ledger::new();
    let mut paths = Paths::new(&mut ledger, load.net.network());
    let mut placement = Placement::new(load.offers.clone());
    let mut spent = Vec::new();
    for request in &load.requests {
        let start = Instant::now();
        let mut order: Vec<(u64, usize)> = (0..load.offers.len())
            .map(|at| match rule {
                Rule::Random => (random.next(), at),
                Rule::FirstFit => (0, at),
                Rule::Nearest => (load.net.away(request, load.offers[at].node), at),
            })
            .collect();
        order.sort_unstable();
        let there =
            order.into_iter().find(|(_, at)| placement.place_at(&mut paths, request, *at).is_ok());
        spent.push(start.elapsed());
        // As Selvedge does: what costs more than it is worth is left out.
        if there.is_some()
            && placement.get(request.name.as_str()).is_some_and(|put| put.gain() <= 0)
        {
            placement.remove(&mut paths, &request.name);
        }
    }
    (Outcome::of(&placement), spent)
}
