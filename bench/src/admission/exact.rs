//! How many of some requests are admitted, one after the other as they come, beside the most
//! that could be by somebody who knew them all: an integer program, solved by HiGHS.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use selvedge_slices::Ledger;
use selvedge_slices::admission::{frame_rate, usable};
use selvedge_topology::{BitRate, End, Link, Node, Snapshot, Switch, Topology};
use serde_json::{Value, json};

use super::{Net, Random, Requests, figures};
use crate::report;

const PYTHON: &str = "target/venv/bin/python3";
const SCRIPT: &str = include_str!("exact.py");
const INSTANCES: usize = 20;
const NODES: usize = 8;
const REQUESTS: usize = 30;
/// Of the solver, for each instance; those that take longer are left out.
const SECONDS: u32 = 20;
/// Of a link, in Mbit/s; rates are 1 to 3 tenths of it.
const MBPS: u64 = 100;

pub(super) fn row() -> Result<Value> {
    let (mut instances, mut admitted) = (Vec::new(), Vec::new());
    for seed in 0..INSTANCES as u64 {
        let mut random = Random(1000 + seed);
        let net = Net::of(random_net(&mut random)?);
        let requests = requests(&net, &mut random)?;
        let mut ledger = Ledger::new();
        let accepted = requests.iter().filter(|r| ledger.admit(&net.network(), r).is_ok()).count();
        instances.push(instance(&net, &requests));
        admitted.push(accepted as f64);
    }
    let best = solve(&instances)?;
    let solved = admitted.iter().zip(&best).filter(|(_, (_, solved))| *solved);
    let (mut ours, mut most, mut count) = (0.0, 0.0, 0);
    let mut worst = 1.0f64;
    for (admitted, (best, _)) in solved {
        (ours, most, count) = (ours + admitted, most + best, count + 1);
        worst = worst.min(admitted / best);
    }
    ensure!(count > 0, "HiGHS solved no instance within {SECONDS} s");
    let asked = REQUESTS * count;
    println!(
        "{count} of {INSTANCES} instances solved exactly: {ours} of {asked} requests admitted one \
         after the other, {most} by the exact program that knows them all; worst instance {:.3}",
        worst
    );
    let share = |admitted: f64| admitted / asked as f64;
    let exact = ("HiGHS, which knows all requests", share(most));
    Ok(report::row("admission_vs_exact", share(ours), "share admitted", "higher", exact))
}

/// A ring with chords: [`NODES`] switches of degree three.
fn random_net(random: &mut Random) -> Result<Snapshot> {
    let node = |i: usize| format!("n{i}").parse().context("a name");
    let mut links = Vec::new();
    let mut add = |a: usize, b: usize| -> Result<()> {
        let port = format!("p{}", links.len());
        let end = |i| -> Result<End> { Ok(End { node: node(i)?, port: port.parse()? }) };
        let mut link = Link::new(end(a)?, end(b)?);
        figures(&mut link, MBPS);
        links.push(link);
        Ok(())
    };
    for i in 0..NODES {
        add(i, (i + 1) % NODES)?;
    }
    for _ in 0..NODES / 2 {
        let a = random.below(NODES as u64) as usize;
        let by = 2 + random.below(NODES as u64 - 3) as usize;
        add(a, (a + by) % NODES)?;
    }
    let switches = (0..NODES).map(|i| Ok((node(i)?, Node::Switch(Switch::default()))));
    let nodes = switches.collect::<Result<_>>()?;
    let topology = Topology { name: "random".parse()?, nodes, links };
    Ok(Snapshot::new(Arc::new(topology), 1))
}

fn requests(net: &Net, random: &mut Random) -> Result<Vec<selvedge_slices::NetworkSlice>> {
    let mut made = Requests::new(net, random.below(u64::MAX))?;
    Ok((0..REQUESTS)
        .map(|_| {
            let mut slice = made.next();
            (slice.latency, slice.availability) = (None, None);
            slice.downlink.guaranteed = None;
            let tenths = 1 + random.below(3);
            slice.uplink.guaranteed = Some(BitRate::from_mbps(MBPS / 10 * tenths));
            slice
        })
        .collect())
}

fn instance(net: &Net, requests: &[selvedge_slices::NetworkSlice]) -> Value {
    let capacity = |arc: &selvedge_topology::Arc| arc.capacity.map_or(0, |c| usable(c).0);
    let arcs = net.snapshot.arcs().iter().map(|a| json!([a.from.0, a.to.0, capacity(a) / 1000]));
    let flows = requests.iter().map(|slice| {
        let flows = slice.pairs().into_iter().filter_map(|(from, to, direction)| {
            let rate = frame_rate(slice.rates(direction).guaranteed?);
            let at = |endpoint| net.endpoints[endpoint].switch.0;
            Some(json!([at(from), at(to), rate.0 / 1000]))
        });
        flows.collect::<Value>()
    });
    json!({
        "nodes": net.snapshot.len(),
        "arcs": arcs.collect::<Value>(),
        "requests": flows.collect::<Value>(),
    })
}

/// (objective, proven to be the most) of each.
fn solve(instances: &[Value]) -> Result<Vec<(f64, bool)>> {
    let mut child = Command::new(PYTHON)
        .args(["-c", SCRIPT, &SECONDS.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {PYTHON}"))?;
    let text = serde_json::to_vec(instances)?;
    child.stdin.take().context("its input")?.write_all(&text)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "exact.py: {}", output.status);
    let results: Vec<(f64, f64, bool)> = serde_json::from_slice(&output.stdout)?;
    Ok(results.into_iter().map(|(best, _, solved)| (best, solved)).collect())
}
