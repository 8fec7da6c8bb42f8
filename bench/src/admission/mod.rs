//! `bench admission`: how fast slices are admitted on a network that is full, and how fast that
//! is durable; whether anything is ever over-committed; and how many are admitted beside the
//! most that an exact program can.

mod durable;
mod exact;
#[path = "../../../slices/tests/recount/mod.rs"]
mod recount;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use selvedge_slices::admission::{Attachment, HookMemory, Network};
use selvedge_slices::{Ledger, NetworkSlice, Object, ObjectName, Refusal, parse};
use selvedge_topology::{BitRate, Bytes, Delay, Forwarding, NodeIx, NodeName, Snapshot, read};

use crate::report::row;
use recount::Recount;
use serde_json::Value;

/// Slices in place while decisions are timed.
const IN_PLACE: usize = 10_000;
/// Decisions that are timed.
const DECISIONS: usize = 200_000;
/// Arrivals and departures that the independent recount follows.
const RECOUNTED: usize = 1_000_000;
/// From nothing, every so many arrivals and departures.
const FROM_NOTHING: usize = 50_000;
/// The mean guaranteed rate of a slice's direction: well below the load at which no delay
/// can be promised any more.
const MEAN_KBPS: u64 = 1_000;
/// Every slice's burst, in bytes: two packets.
const BURST: Bytes = Bytes(3_000);

pub(crate) fn run() -> Result<Vec<Value>> {
    let net = Net::geant()?;
    let mut rows = timed(&net)?;
    rows.push(durable::row_of(&net)?);
    recounted(&net)?;
    rows.push(exact::row()?);
    Ok(rows)
}

pub(crate) struct Net {
    snapshot: Snapshot,
    forwarding: Forwarding,
    endpoints: Arc<BTreeMap<NodeName, Attachment>>,
    hooks: BTreeMap<ObjectName, Vec<NodeIx>>,
    memory: HookMemory,
}

impl Net {
    fn geant() -> Result<Self> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/Geant2012.graph");
        let read = read::from_path(&file).map_err(|problems| anyhow!("{problems}"))?;
        Ok(Self::of(Snapshot::new(Arc::new(read.topology), 1)))
    }

    /// One endpoint on every switch, `h0` and on.
    pub(crate) fn of(snapshot: Snapshot) -> Self {
        let forwarding = Forwarding::new(&snapshot);
        let endpoints = snapshot.nodes().map(|switch| {
            let name = format!("h{}", switch.0).parse().expect("a letter and a number");
            (name, Attachment { switch, link: None })
        });
        let endpoints = Arc::new(endpoints.collect());
        let (hooks, memory) = Default::default();
        Self { snapshot, forwarding, endpoints, hooks, memory }
    }

    pub(crate) fn network(&self) -> Network<'_> {
        let Self { snapshot, forwarding, endpoints, hooks, memory } = self;
        Network { snapshot, forwarding, endpoints, hooks, memory }
    }
}

/// SplitMix64: the same requests in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// Requests of one of these kinds: with a latency (urllc, one in ten), protected against any link
/// (two in ten) or node (three in ten), or with a rate alone. Some switches of the network have
/// one link, or hang behind one switch: what asks for protection there is refused.
struct Requests {
    random: Random,
    kinds: Vec<NetworkSlice>,
    nodes: u64,
    protectable: Vec<bool>,
    made: u64,
}

impl Requests {
    fn new(net: &Net, seed: u64) -> Result<Self> {
        let kind = |spec: &str| -> Result<NetworkSlice> {
            let text = format!(
                "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: {{ name: x }}\n\
                 spec: {{ downlink: {{ guaranteed: 1Mbps }}, uplink: {{ guaranteed: 1Mbps }}, \
                 {spec} endpoints: [{{ ue: a }}, {{ dn: b }}] }}"
            );
            let object = parse("bench", &text).map_err(|problems| anyhow!("{problems}"))?.remove(0);
            let Object::NetworkSlice(slice) = object else { unreachable!("it is a slice") };
            Ok(slice)
        };
        let kinds =
            ["class: urllc, latency: 150ms,", "availability: 99.9,", "availability: 99.99,", ""];
        let kinds = kinds.iter().map(|spec| kind(spec)).collect::<Result<_>>()?;
        let degree = |node| net.snapshot.arcs_from(node).len();
        let protectable = net.snapshot.nodes().map(|node| degree(node) > 1).collect();
        Ok(Self {
            random: Random(seed),
            kinds,
            nodes: net.snapshot.len() as u64,
            protectable,
            made: 0,
        })
    }

    fn next(&mut self) -> NetworkSlice {
        let kind = match self.random.below(10) {
            0 => 0,
            1 | 2 => 1,
            3..=5 => 2,
            _ => 3,
        };
        let mut slice = self.kinds[kind].clone();
        self.made += 1;
        slice.name = format!("s{}", self.made).parse().expect("a letter and a number");
        let pick = |random: &mut Random, kind| loop {
            let node = random.below(self.nodes);
            if !matches!(kind, 1 | 2) || self.protectable[node as usize] {
                break node;
            }
        };
        let a = pick(&mut self.random, kind);
        let b = loop {
            let b = pick(&mut self.random, kind);
            if b != a {
                break b;
            }
        };
        for (endpoint, node) in slice.endpoints.iter_mut().zip([a, b]) {
            endpoint.name = format!("h{node}").parse().expect("a letter and a number");
        }
        // What asks too much: for less delay than one port's queue may take, or for a rate that no
        // link has.
        let excess = self.random.below(100);
        if excess < 5 {
            slice.latency = Some(Delay::from_ms(1));
        }
        for rates in [&mut slice.downlink, &mut slice.uplink] {
            // 0.1 to 1.9 of the mean.
            let kbps = MEAN_KBPS / 10 + self.random.below(MEAN_KBPS * 18 / 10);
            let kbps = if (5..17).contains(&excess) { 100_000_000 + kbps } else { kbps };
            rates.guaranteed = Some(BitRate(kbps * 1000));
            rates.burst = Some(BURST);
        }
        slice
    }
}

#[derive(Default)]
struct Outcome {
    admitted: u64,
    bandwidth: u64,
    delay: u64,
    protection: u64,
}

impl Outcome {
    /// Counts it, and names what it was.
    fn count<T>(&mut self, result: &Result<T, Box<Refusal>>) -> &'static str {
        let (count, kind) = match result.as_ref().map_err(|refusal| &**refusal) {
            Ok(_) => (&mut self.admitted, "admitted"),
            Err(Refusal::Bandwidth { .. }) => (&mut self.bandwidth, "bandwidth"),
            Err(Refusal::Delay { .. } | Refusal::OtherSlice { .. }) => (&mut self.delay, "delay"),
            Err(_) => (&mut self.protection, "protection"),
        };
        *count += 1;
        kind
    }

    fn refused(&self) -> f64 {
        let refused = self.bandwidth + self.delay + self.protection;
        refused as f64 / (refused + self.admitted) as f64
    }
}

/// A network with so many slices, and their names in the order in which they came.
fn filled(net: &Net, requests: &mut Requests, count: usize) -> Result<(Ledger, Vec<ObjectName>)> {
    let mut ledger = Ledger::new();
    let mut names = Vec::new();
    for _ in 0..count * 6 {
        if names.len() == count {
            break;
        }
        let slice = requests.next();
        if ledger.admit(&net.network(), &slice).is_ok() {
            names.push(slice.name);
        }
    }
    ensure!(names.len() == count, "only {} slices fit", names.len());
    Ok((ledger, names))
}

/// Each admitted slice takes the place of one that leaves; both are timed, together.
fn timed(net: &Net) -> Result<Vec<Value>> {
    let mut requests = Requests::new(net, 1)?;
    let begun = Instant::now();
    let (mut ledger, mut names) = filled(net, &mut requests, IN_PLACE)?;
    println!("{IN_PLACE} slices on Geant2012 in {:.2} s", begun.elapsed().as_secs_f64());
    let mut outcome = Outcome::default();
    let mut micros: Vec<f64> = Vec::with_capacity(DECISIONS);
    let mut by_outcome: BTreeMap<&str, (u64, f64)> = BTreeMap::new();
    for _ in 0..DECISIONS {
        let slice = requests.next();
        let leaver = requests.random.below(names.len() as u64) as usize;
        let begun = Instant::now();
        let result = ledger.admit(&net.network(), &slice);
        let kind = outcome.count(&result);
        let admitted = result.is_ok();
        if admitted {
            ledger.remove(&names[leaver]);
        }
        let took = begun.elapsed().as_secs_f64() * 1e6;
        micros.push(took);
        let (count, sum) = by_outcome.entry(kind).or_default();
        (*count, *sum) = (*count + 1, *sum + took);
        if admitted {
            names[leaver] = slice.name;
        }
    }
    let seconds: f64 = micros.iter().sum::<f64>() / 1e6;
    micros.sort_by(f64::total_cmp);
    let at = |share: f64| micros[(micros.len() as f64 * share) as usize];
    println!(
        "{DECISIONS} decisions in {seconds:.2} s: median {:.0} us, p99 {:.0} us, most {:.0} us; \
         refused {:.1} % ({} bandwidth, {} delay, {} protection)",
        at(0.5),
        at(0.99),
        micros[micros.len() - 1],
        outcome.refused() * 100.0,
        outcome.bandwidth,
        outcome.delay,
        outcome.protection
    );
    for (kind, (count, sum)) in by_outcome {
        println!("  {kind}: {:.0} us on average, {:.2} s in all", sum / count as f64, sum / 1e6);
    }
    ensure!(
        (0.15..0.25).contains(&outcome.refused()),
        "about a fifth of the requests should be refused"
    );
    let per_second = DECISIONS as f64 / seconds;
    Ok(vec![
        row("admission_per_s", per_second, "decisions/s", "higher", ("target", 10_000.0)),
        row("admission_p99_ms", at(0.99) / 1e3, "ms", "lower", ("target", 1.0)),
    ])
}

/// Random arrivals and departures; the recount follows each, and looks at every link before and
/// after every single failure of a link or a switch.
fn recounted(net: &Net) -> Result<()> {
    let mut requests = Requests::new(net, 2)?;
    let mut ledger = Ledger::new();
    let mut recount = Recount::new(&net.snapshot);
    let mut names: Vec<ObjectName> = Vec::new();
    let begun = Instant::now();
    let mut outcome = Outcome::default();
    for step in 1..=RECOUNTED {
        let arrives = requests.random.below(100) < if names.len() < IN_PLACE { 60 } else { 50 };
        if arrives || names.is_empty() {
            let slice = requests.next();
            let result = ledger.admit(&net.network(), &slice);
            outcome.count(&result);
            if let Ok(admitted) = result {
                recount.count(admitted, 1).map_err(|over| anyhow!("step {step}: {over}"))?;
                names.push(slice.name);
            }
        } else {
            let leaver = requests.random.below(names.len() as u64) as usize;
            let gone = ledger.remove(&names.swap_remove(leaver)).context("it was admitted")?;
            recount.count(&gone, -1).map_err(|over| anyhow!("step {step}: {over}"))?;
        }
        if step % FROM_NOTHING == 0 {
            let all = ledger.iter().map(|(_, admitted)| admitted);
            recount.agrees(&net.snapshot, all).map_err(|error| anyhow!("step {step}: {error}"))?;
        }
    }
    println!(
        "recounted {RECOUNTED} arrivals and departures, each with all {} links up and after every \
         single failure of a link or switch: never over-committed ({} in place at the end, \
         {:.1} % refused, {:.0} s)",
        net.snapshot.topology().links.len(),
        names.len(),
        outcome.refused() * 100.0,
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Used by the exact comparison: a link's figures.
pub(crate) fn figures(link: &mut selvedge_topology::Link, mbps: u64) {
    link.capacity = Some(BitRate::from_mbps(mbps));
    link.delay = Some(Delay(100));
}
