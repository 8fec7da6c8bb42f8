//! One controller core with a thousand switches: how fast it starts, plans, proves and hands
//! over, and what it takes up.
//!
//! The network: 40 core switches in a ring with chords, and 24 access switches to each pair of
//! neighbors among them; 100 endpoints on every switch. 10,000 slices of ten endpoints anywhere,
//! two of them on the `dn` side; each tenth guarantees 1 Mbit/s both ways. `SELVEDGE_SLICES`
//! makes them fewer.
//!
//! Switches are null: what is written to them is counted and kept, and answered at once. The
//! store takes everything at once too. Counted is the time inside the core: deriving what is
//! wanted (admission included), planning, proving, and handing over.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use selvedge_core::plan::Table;
use selvedge_core::{
    Change, Config, Core, Effect, Event, Port, Report, Request, RequestId, Update,
};
use selvedge_pipeline::{Entry, Key, PortId};
use selvedge_slices::Object;
use selvedge_topology::{BitRate, End, Host, Link, Node, NodeName, Switch, Topology};

use crate::report;

const CORES: usize = 40;
const SWITCHES: usize = 1_000;
const ENDPOINTS_EACH: usize = 100;
const SLICES: usize = 10_000;
const MEMBERS: usize = 10;
const DN_MEMBERS: usize = 2;

/// Rows of target/bench/scale.json. Baselines, from the same run: planning and handing over
/// without the proof; the proof of the whole state from nothing, for each entry of the plan; the
/// first start; the bare entries.
pub(crate) fn rows(figures: &Figures) -> Vec<serde_json::Value> {
    let Figures { start, one_slice, link_down, restart, memory_mib, entries, .. } = *figures;
    let rate = |took: Duration| start.entries as f64 / took.as_secs_f64();
    let proof = one_slice.proof_us_per_entry().max(link_down.proof_us_per_entry());
    let whole = figures.whole_proof.as_secs_f64() * 1e6 / one_slice.entries.max(1) as f64;
    let bare = (entries * size_of::<(Key, Entry)>()) as f64 / f64::from(1 << 20);
    let start_s = start.took.as_secs_f64();
    let row = report::row;
    vec![
        row(
            "entries_per_s",
            rate(start.took),
            "entries/s",
            "higher",
            ("planned and handed over without proof", rate(start.took - start.proof)),
        ),
        row("proof_us_per_entry", proof, "us", "lower", ("proof of the whole state", whole)),
        row("restart_s", restart.as_secs_f64(), "s", "lower", ("first start", start_s)),
        row("memory_mib", memory_mib, "MiB", "lower", ("the bare entries", bare)),
    ]
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    /// Everybody joins, nothing is there, no slices yet.
    pub(crate) start: Phase,
    /// One more slice.
    pub(crate) one_slice: Phase,
    pub(crate) link_down: Phase,
    /// A new core over the same records and switches, to converged.
    pub(crate) restart: Duration,
    /// Resident, at the end: two cores' worth of switches' entries are part of it.
    pub(crate) memory_mib: f64,
    pub(crate) entries: usize,
    /// To prove the whole of one state from nothing.
    pub(crate) whole_proof: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Phase {
    /// Until the last write was answered.
    pub(crate) took: Duration,
    /// Of that, in proofs of plans. Measured on a copy.
    pub(crate) proof: Duration,
    pub(crate) entries: usize,
}

impl Phase {
    pub(crate) fn proof_us_per_entry(&self) -> f64 {
        self.proof.as_secs_f64() * 1e6 / self.entries.max(1) as f64
    }
}

fn name(text: &str) -> NodeName {
    text.parse().expect("a node name")
}

/// xorshift64: the same network every time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

fn switch(n: usize) -> NodeName {
    name(&format!("s{n:03}"))
}

fn host(n: usize) -> NodeName {
    name(&format!("h{n:05}"))
}

fn topology() -> Topology {
    let mut nodes: BTreeMap<NodeName, Node> = BTreeMap::new();
    let mut links = Vec::new();
    let mut ports = vec![0usize; SWITCHES];
    let mut end = |n: usize| {
        ports[n] += 1;
        End { node: switch(n), port: format!("p{}", ports[n]).parse().expect("a port name") }
    };
    let mut connect = |a: usize, b: usize, gbps: u64| {
        let capacity = Some(BitRate::from_mbps(gbps * 1_000));
        links.push(Link { capacity, ..Link::new(end(a), end(b)) });
    };
    for n in 0..CORES {
        connect(n, (n + 1) % CORES, 400);
        if n % 5 == 0 {
            connect(n, (n + CORES / 2 + 3) % CORES, 400);
        }
    }
    for n in CORES..SWITCHES {
        connect(n, n % CORES, 100);
        connect(n, (n + 1) % CORES, 100);
    }
    for n in 0..SWITCHES {
        nodes.insert(switch(n), Node::Switch(Switch::default()));
        for at in 0..ENDPOINTS_EACH {
            let number = n * ENDPOINTS_EACH + at;
            let [_, a, b, c] = u32::try_from(number).expect("few hosts").to_be_bytes();
            let declared = Host {
                ipv4: Some(format!("10.{a}.{b}.{c}/32").parse().expect("a prefix")),
                ipv6: None,
                mac: Some([2, 0xff, 0, a, b, c]),
            };
            nodes.insert(host(number), Node::Host(declared));
            let far = End { node: host(number), port: "eth0".parse().expect("a port name") };
            links.push(Link::new(end(n), far));
        }
    }
    Topology { name: name("scale"), nodes, links }
}

/// Who is in which slice: every endpoint in one.
fn members(random: &mut Random) -> Vec<usize> {
    let mut order: Vec<usize> = (0..SWITCHES * ENDPOINTS_EACH).collect();
    for at in (1..order.len()).rev() {
        order.swap(at, random.below(at + 1));
    }
    order
}

fn slice(number: usize, members: &[usize]) -> Object {
    let mut text = format!(
        "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: {{ name: n{number:05} }}\nspec:\n"
    );
    if number.is_multiple_of(10) {
        text += "  downlink: { guaranteed: 1Mbps }\n  uplink: { guaranteed: 1Mbps }\n";
    }
    text += "  endpoints:\n";
    for (at, member) in members.iter().enumerate() {
        let side = if at < DN_MEMBERS { "dn" } else { "ue" };
        text += &format!("    - {{ {side}: {} }}\n", host(*member));
    }
    let objects = selvedge_slices::parse("bench", &text).expect("a slice");
    objects.into_iter().next().expect("one")
}

/// The shell around the core, and all switches.
struct Null {
    core: Core,
    topology: Topology,
    now_ms: u64,
    records: BTreeMap<String, Vec<u8>>,
    switches: BTreeMap<NodeName, Table>,
    /// Inside the core.
    spent: Duration,
    ports: BTreeMap<NodeName, Vec<Port>>,
    answers: Vec<Event>,
    timers: BTreeMap<selvedge_core::Timer, u64>,
    written: usize,
    /// In proofs of what events brought about at once; measured on copies.
    proven: Duration,
}

impl Null {
    fn new(topology: Topology) -> Self {
        let mut ports: BTreeMap<NodeName, Vec<Port>> = BTreeMap::new();
        for link in &topology.links {
            for end in [&link.a, &link.b] {
                if topology.nodes[&end.node].as_switch().is_none() {
                    continue;
                }
                let number: usize = end.node.as_str()[1..].parse().expect("numbered");
                let known = ports.entry(end.node.clone()).or_default();
                let id = u16::try_from(known.len() + 1).expect("few ports");
                let (high, low) = ((number >> 8) as u8, number as u8);
                let mac = [2, 0, high, low, 0, id as u8];
                known.push(Port { id: PortId(id), name: end.port.to_string(), mac, up: true });
            }
        }
        Self {
            core: Core::new(topology.clone(), Config::default()),
            topology,
            now_ms: 1_000_000,
            records: BTreeMap::new(),
            switches: BTreeMap::new(),
            ports,
            answers: Vec::new(),
            timers: BTreeMap::new(),
            written: 0,
            proven: Duration::ZERO,
            spent: Duration::ZERO,
        }
    }

    fn join_all(&mut self) {
        for (switch, ports) in self.ports.clone() {
            let report = Report { version: "null".into(), ports, ..Report::default() };
            self.event(Event::SwitchJoined { switch, report });
        }
    }

    /// An event that has to be proven before it is answered.
    fn urgent(&mut self, event: Event) {
        if let Some(proof) = self.core.proof_of(event.clone(), self.now_ms) {
            let start = Instant::now();
            proof.check().expect("the core's own plans are right");
            self.proven += start.elapsed();
        }
        self.event(event);
    }

    fn event(&mut self, event: Event) {
        let start = Instant::now();
        let effects = self.core.handle(event, self.now_ms);
        self.spent += start.elapsed();
        for effect in effects {
            match effect {
                Effect::Persist(changes) => {
                    for change in changes {
                        match change.value {
                            Some(value) => self.records.insert(change.key, value),
                            None => self.records.remove(&change.key),
                        };
                    }
                }
                Effect::ReadEntries { switch, read } => {
                    let known = self.switches.entry(switch.clone()).or_default();
                    let result = Ok(known.values().cloned().collect());
                    self.answers.push(Event::EntriesRead { switch, read, result });
                }
                Effect::Write { switch, write, updates } => {
                    self.written += updates.len();
                    let known = self.switches.entry(switch.clone()).or_default();
                    for update in updates {
                        match update {
                            Update::Insert(entry) | Update::Modify(entry) => known.insert(entry),
                            Update::Delete(entry) => known.remove(&entry.key()),
                        };
                    }
                    self.answers.push(Event::WriteDone { switch, write, result: Ok(()) });
                }
                Effect::SetTimer { timer, at_ms } => {
                    self.timers.insert(timer, at_ms);
                }
                Effect::Reply { reply, .. } => {
                    reply.expect("the bench's own slices are taken");
                }
                Effect::LoadHook { .. } | Effect::UnloadHook { .. } | Effect::Log(_) => {}
            }
        }
    }

    /// Until nothing is left but the periodic reading back. Answers the time that a copy of the
    /// core took to prove what it proves.
    fn settle(&mut self) -> Duration {
        let mut proof = Duration::ZERO;
        loop {
            while let Some(event) = self.answers.pop() {
                self.event(event);
            }
            let timers = self.timers.iter().filter(|(t, _)| **t != selvedge_core::Timer::Resync);
            let Some((timer, at)) = timers.map(|(t, at)| (*t, *at)).min_by_key(|(_, at)| *at)
            else {
                return proof;
            };
            if timer == selvedge_core::Timer::Batch {
                proof += self.proof();
            }
            self.timers.remove(&timer);
            self.now_ms = self.now_ms.max(at);
            self.event(Event::TimerDue(timer));
        }
    }

    fn proof(&self) -> Duration {
        let mut copy = self.core.clone();
        let Some(proof) = copy.proof_due(self.now_ms) else { return Duration::ZERO };
        let start = Instant::now();
        proof.check().expect("the core's own plans are right");
        start.elapsed()
    }

    fn phase(&mut self, mut begin: impl FnMut(&mut Self)) -> Phase {
        let (before, spent, proven) = (self.written, self.spent, self.proven);
        begin(self);
        let proof = self.settle() + (self.proven - proven);
        let waiting = self.core.status().waiting_for;
        assert!(waiting.is_empty(), "not converged: {:?}", waiting.first());
        Phase { took: self.spent - spent, proof, entries: self.written - before }
    }

    fn apply(&mut self, put: Vec<Object>) {
        let change = Change { put, ..Change::default() };
        let request = Request::Apply { change, plan: None };
        self.urgent(Event::Request { id: RequestId(1), author: "bench".into(), request });
    }

    fn link(&mut self, index: usize, up: bool) {
        let link = self.topology.links[index].clone();
        for end in [link.a, link.b] {
            let ports = self.ports.get_mut(&end.node).expect("a switch");
            let port = ports.iter_mut().find(|port| port.name == end.port.as_str());
            let port = port.expect("a port of the link");
            port.up = up;
            let port = port.clone();
            self.urgent(Event::PortChanged { switch: end.node, port });
        }
    }

    fn restart(&mut self) -> (Duration, usize) {
        let (before, spent) = (self.written, self.spent);
        let records = self.records.clone();
        let topology = self.topology.clone();
        self.core = Core::new(
            Topology { links: Vec::new(), nodes: BTreeMap::new(), ..topology.clone() },
            Config::default(),
        );
        self.answers.clear();
        self.timers.clear();
        let start = Instant::now();
        self.core = Core::restore(topology, Config::default(), records).expect("its own records");
        self.spent += start.elapsed();
        self.join_all();
        self.settle();
        assert!(self.core.status().converged);
        (self.spent - spent, self.written - before)
    }
}

/// Resident set of this process.
fn memory_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

fn show(what: &str, phase: &Phase) {
    let secs = phase.took.as_secs_f64();
    println!(
        "{what:<12} {secs:>8.3} s   {:>9} entries   {:>9.0} entries/s   proof {:>8.3} s, {:>7.2} us/entry",
        phase.entries,
        phase.entries as f64 / secs,
        phase.proof.as_secs_f64(),
        phase.proof_us_per_entry(),
    );
}

pub(crate) fn run() -> Result<()> {
    report::write_values("scale", &rows(&measure()))
}

fn measure() -> Figures {
    let mut random = Random(0x5E1_7ED6E);
    let topology = topology();
    let order = members(&mut random);
    let count = std::env::var("SELVEDGE_SLICES").ok().and_then(|text| text.parse().ok());
    let groups: Vec<&[usize]> = order.chunks(MEMBERS).take(count.unwrap_or(SLICES)).collect();
    let objects: Vec<Object> =
        groups.iter().enumerate().map(|(number, members)| slice(number, members)).collect();
    let (rest, last) = objects.split_at(objects.len() - 2);
    let mut null = Null::new(topology);
    // Slices first, so that no endpoint is ever in the default one: everybody would reach
    // everybody there.
    let rest = rest.to_vec();
    let slices = null.phase_of_intent(rest);
    println!("intent taken in {:.3} s, before anybody joins", slices.as_secs_f64());
    let start = null.phase(Null::join_all);
    show("start", &start);
    let first = null.phase(|null| null.apply(vec![last[0].clone()]));
    show("one slice", &first);
    let one_slice = null.phase(|null| null.apply(vec![last[1].clone()]));
    show("one more", &one_slice);
    let link_down = null.phase(|null| null.link(0, false));
    show("link down", &link_down);
    let up = null.phase(|null| null.link(0, true));
    show("link up", &up);
    let (restart, restart_writes) = null.restart();
    println!("restart      {:>8.3} s   {restart_writes} entries written", restart.as_secs_f64());
    let entries = null.switches.values().map(|table| table.len()).sum();
    let memory_mib = memory_mib();
    println!("memory       {memory_mib:>8.0} MiB with {entries} entries at the switches");
    Figures { start, one_slice, link_down, restart, memory_mib, entries, whole_proof: start.proof }
}

impl Null {
    fn phase_of_intent(&mut self, objects: Vec<Object>) -> Duration {
        let spent = self.spent;
        self.apply(objects);
        self.spent - spent
    }
}
