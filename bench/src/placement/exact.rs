//! Beside the most that could be gained: an integer program for instances and paths together.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use selvedge_slices::admission::{frame_rate, usable};
use selvedge_slices::class::FRAME_BYTES;
use selvedge_slices::placement::{AWAY_MW, NETWORK_MW, Offer, Paths, Placement, Request};
use selvedge_slices::{Class, Direction, Ledger, Side};
use serde_json::{Value, json};

use super::load::Load;
use crate::report;

const PYTHON: &str = "target/venv/bin/python3";
const SCRIPT: &str = include_str!("exact.py");
/// Networks of 6 to 20 nodes.
const INSTANCES: u64 = 30;
/// Of the solver for each; where it is not done by then its upper bound counts.
const SECONDS: u32 = 60;

pub(super) fn rows() -> Result<Vec<Value>> {
    println!("Beside the exact program, without delay bounds: the same constraints");
    let (mean, worst) = ratios(false)?;
    println!(
        "\nBeside an upper bound, with delay bounds: the exact program counts no bursts of others"
    );
    let (with_delay, _) = ratios(true)?;
    let exact = ("HiGHS integer program", 1.0);
    let bound = ("HiGHS integer program that counts no bursts of others", 1.0);
    Ok(vec![
        report::row("placement_vs_exact", mean, "of its gain, mean", "higher", exact),
        report::row("placement_vs_exact_worst", worst, "of its gain, worst", "higher", exact),
        report::row("placement_vs_bound_delay", with_delay, "of its gain, mean", "higher", bound),
    ])
}

/// Mean and worst share of what the exact program gains.
fn ratios(latency: bool) -> Result<(f64, f64)> {
    let (mut documents, mut gains) = (Vec::new(), Vec::new());
    for seed in 0..INSTANCES {
        let nodes = usize::try_from(6 + seed % 15)?;
        let load = Load::small(nodes, latency, seed)?;
        let mut ledger = Ledger::new();
        let mut paths = Paths::new(&mut ledger, load.net.network());
        let mut placement = Placement::new(load.offers.clone());
        placement.place_all(&mut paths, &load.requests, &|| false);
        gains.push((nodes, placement.iter().count(), placement.gain()));
        documents.push(document(&load));
    }
    let best = solve(&documents)?;
    let mut ratios = Vec::new();
    let mut solved = 0;
    for ((nodes, placed, gain), (_, bound, done)) in gains.iter().zip(&best) {
        let ratio = *gain as f64 / bound;
        println!(
            "  {nodes:>2} nodes and instances: {placed:>2} placed, {:>8.1} of {:>8.1} W: {ratio:.4}{}",
            super::watts(*gain),
            bound / 1000.0,
            if *done { "" } else { " (not solved in time: its bound)" },
        );
        solved += usize::from(*done);
        ratios.push(ratio);
    }
    ensure!(ratios.iter().all(|ratio| *ratio <= 1.001), "more than the most: a wrong bound");
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    let worst = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    println!("  mean {mean:.4}, worst {worst:.4}; {solved} of {INSTANCES} solved");
    Ok((mean, worst))
}

fn document(load: &Load) -> Value {
    let snapshot = &load.net.snapshot;
    let arcs = snapshot.arcs().iter().map(|arc| {
        let usable = arc.capacity.map(usable).unwrap_or_default();
        // What a packet waits at least, by the delay bound: propagation, the class's threshold,
        // a frame.
        let bytes = Class::Urllc.threshold(usable).0 + FRAME_BYTES;
        let delay = arc.delay.unwrap_or_default().0 + bytes * 8_000_000 / usable.0.max(1);
        json!([arc.from.0, arc.to.0, usable.0, arc.cost, delay])
    });
    let offers = load.offers.iter().map(|offer| {
        json!({
            "node": offer.node.0,
            "cpu": offer.cpu_milli,
            "memory": offer.memory.0,
            "accelerators": offer.accelerators,
        })
    });
    json!({
        "nodes": snapshot.len(),
        "arcs": arcs.collect::<Value>(),
        "offers": offers.collect::<Value>(),
        "requests": load.requests.iter().map(|one| request(load, one)).collect::<Value>(),
    })
}

fn request(load: &Load, request: &Request) -> Value {
    let demand = &request.demand;
    let flows = request.slices.iter().flat_map(|slice| {
        Direction::ALL.map(|direction| {
            let rate = slice.rates(direction).guaranteed.unwrap_or_default();
            let users = slice.endpoints_on(Side::Ue);
            let at = |user| load.net.network().endpoints.get(user).map(|at| at.switch.0);
            json!({
                "users": users.filter_map(at).collect::<Value>(),
                "up": direction == Direction::Uplink,
                "frame_bps": frame_rate(rate).0,
                "mw_per_cost": rate.0 as f64 * NETWORK_MW as f64 / 1e6,
            })
        })
    });
    json!({
        "cpu": demand.cpu_milli,
        "memory": demand.memory.0,
        "accelerators": demand.accelerators,
        "groups": demand.anti_affinity,
        "gains": load.offers.iter().map(|offer| gain(request, offer)).collect::<Value>(),
        "max_delay_us": request.slices.iter().filter_map(|slice| slice.latency).map(|d| d.0).min(),
        "flows": flows.collect::<Value>(),
    })
}

/// Worth less all costs but the network's, written down anew; `None`: ruled out.
fn gain(request: &Request, offer: &Offer) -> Option<i64> {
    let demand = &request.demand;
    let among = |wanted: &[String], has: &Option<String>| {
        has.as_ref().is_some_and(|has| wanted.contains(has))
    };
    if !demand.architectures.is_empty() && !among(&demand.architectures, &offer.architecture) {
        return None;
    }
    if demand.accelerators.keys().any(|kind| !offer.accelerators.contains_key(kind)) {
        return None;
    }
    let energy = offer.mw_per_cpu * demand.cpu_milli / 1_000;
    let away = !demand.preferred_sites.is_empty() && !among(&demand.preferred_sites, &offer.site);
    let moving = request.now.is_some_and(|now| now != offer.node);
    let cost = energy + if away { AWAY_MW } else { 0 } + if moving { demand.moving_mw } else { 0 };
    Some(i64::try_from(request.worth_mw).ok()? - i64::try_from(cost).ok()?)
}

/// (gain, upper bound, solved) of each.
fn solve(instances: &[Value]) -> Result<Vec<(f64, f64, bool)>> {
    let mut child = Command::new(PYTHON)
        .args(["-c", SCRIPT, &SECONDS.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {PYTHON}: `cargo xtask bench placement` makes it"))?;
    let text = serde_json::to_vec(instances)?;
    child.stdin.take().context("its input")?.write_all(&text)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "exact.py: {}", output.status);
    serde_json::from_slice(&output.stdout).context("read what exact.py printed")
}
