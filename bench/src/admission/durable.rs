//! How long a reservation takes until it is durable: through the controller's engine, with its
//! group commit, onto a redb store on disk.
//!
//! A decision here is one request of one client from when it is put into the engine's queue to
//! its answer: the core takes the slice as a reservation (TS 28.541,
//! FeasibilityCheckAndReservationJob), which is admission (bandwidth, delay bound, protection)
//! with the plan and its proof, and the commit is on disk; or it is refused, which needs no
//! commit, with a counter-offer. Not in it: HTTP and reading YAML; and switches, which have
//! nothing of a reservation. Requests are those of `admission_p99_ms`, a thousand fewer in place
//! at first: nobody leaves, so they are there at the end.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use selvedge_controller::store::RedbStore;
use selvedge_controller::{Handle, RequestError, embedded};
use selvedge_core::{
    Change, Config, Core, Effect, Event, Port, Reply, Report, Request, SliceRequest, Timer, Update,
};
use selvedge_pipeline::{Entry, Key, PortId};
use selvedge_slices::{NetworkSlice, Object, Side};
use selvedge_topology::{End, Host, Link, Node, NodeName, Topology, read};
use serde_json::Value;
use tokio::sync::watch;

use super::{IN_PLACE, Net, Requests};
use crate::report::row;

/// Clients that each wait for their answer before they ask again.
const CLIENTS: usize = 8;
/// Requests of all of them.
const REQUESTS: usize = 1_000;
/// Each from an empty store; the figure is the median. A processor that the machine has lent to
/// another for some milliseconds holds up all clients, and two of those are one in a hundred.
const REPEATS: usize = 5;
/// How long what is reserved is held.
const HELD_MS: u64 = 86_400_000;

pub(super) fn row_of(net: &Net) -> Result<Value> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().context("no runtime")?;
    let mut ms = Vec::with_capacity(REPEATS);
    for _ in 0..REPEATS {
        ms.push(runtime.block_on(p99_ms(net))?);
    }
    ms.sort_by(f64::total_cmp);
    Ok(row("admission_durable_p99_ms", ms[REPEATS / 2], "ms", "lower", ("target", 5.0)))
}

async fn p99_ms(net: &Net) -> Result<f64> {
    let mut requests = Requests::new(net, 1)?;
    let in_place = IN_PLACE - REQUESTS;
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
    std::fs::create_dir_all(&dir).with_context(|| format!("{}", dir.display()))?;
    let dir = tempfile::tempdir_in(&dir).with_context(|| format!("{}", dir.display()))?;
    let store = RedbStore::open(dir.path().join("controller.redb"))?;
    let core = joined(&topology()?);
    let (stop, stopped) = watch::channel(false);
    let (handle, engine) = embedded(core, Arc::new(store), stopped);
    let begun = Instant::now();
    let (mut taken, mut tried) = (0, 0);
    while taken < in_place {
        ensure!(tried < in_place * 6, "only {taken} slices fit");
        let took = asked(net, &handle, &mut requests, in_place - taken).await?;
        tried += took.len();
        taken += took.iter().filter(|(_, taken)| *taken).count();
    }
    println!("{in_place} of {tried} reservations in {:.1} s", begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    let took = asked(net, &handle, &mut requests, REQUESTS).await?;
    let seconds = begun.elapsed().as_secs_f64();
    drop(stop);
    engine.await?;
    let refused = took.iter().filter(|(_, taken)| !taken).count();
    let ms_of = |(took, _): &(Duration, bool)| took.as_secs_f64() * 1e3;
    let mut ms: Vec<f64> = took.iter().map(ms_of).collect();
    ms.sort_by(f64::total_cmp);
    let at = |share: f64| ms[(ms.len() as f64 * share) as usize];
    let taken = |taken: bool| {
        let mut ms: Vec<f64> = took.iter().filter(|(_, was)| *was == taken).map(ms_of).collect();
        ms.sort_by(f64::total_cmp);
        ms[(ms.len() as f64 * 0.99) as usize]
    };
    println!(
        "{REQUESTS} durable decisions of {CLIENTS} clients beside {in_place} reservations in \
         {seconds:.1} s: median {:.1} ms, p99 {:.1} ms (taken {:.1} ms, refused {:.1} ms); \
         {refused} refused",
        at(0.5),
        at(0.99),
        taken(true),
        taken(false)
    );
    ensure!(
        (150..250).contains(&(refused * 1_000 / REQUESTS)),
        "about a fifth of the requests should be refused"
    );
    Ok(at(0.99))
}

/// So many requests of clients that each wait for their answer: how long it took, and whether
/// the slice was taken.
async fn asked(
    net: &Net,
    handle: &Handle,
    requests: &mut Requests,
    count: usize,
) -> Result<Vec<(Duration, bool)>> {
    let asked: Vec<Object> = (0..count).map(|_| named(net, requests.next())).collect();
    let (asked, next) = (Arc::new(asked), Arc::new(AtomicUsize::new(0)));
    let clients = (0..CLIENTS).map(|_| {
        let (handle, asked, next) = (handle.clone(), asked.clone(), next.clone());
        tokio::spawn(async move {
            let mut took: Vec<(Duration, bool)> = Vec::new();
            while let Some(slice) = asked.get(next.fetch_add(1, Ordering::Relaxed)) {
                let begun = Instant::now();
                let taken = reserve(&handle, vec![slice.clone()]).await?;
                took.push((begun.elapsed(), taken));
            }
            anyhow::Ok(took)
        })
    });
    let mut took = Vec::new();
    for client in clients.collect::<Vec<_>>() {
        took.extend(client.await??);
    }
    Ok(took)
}

/// Geant2012 with two hosts on each switch: an endpoint is on one side of all its slices.
fn topology() -> Result<Topology> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/Geant2012.graph");
    let read = read::from_path(&file).map_err(|problems| anyhow!("{problems}"))?;
    let mut topology = read.topology.with_hosts()?;
    let switches: Vec<NodeName> = topology.switches().map(|(name, _)| name.clone()).collect();
    for (number, switch) in (0u8..).zip(switches) {
        let name: NodeName = format!("dn-{switch}").parse()?;
        let near = End { node: switch, port: "dn0".parse()? };
        topology.links.push(Link::new(near, End { node: name.clone(), port: "eth0".parse()? }));
        let ipv4 = Some(std::net::Ipv4Addr::new(10, 1, 0, number).into());
        topology.nodes.insert(name, Node::Host(Host { ipv4, ipv6: None, mac: None }));
    }
    Ok(topology)
}

/// A core whose switches have all joined and hold what they should; what is written to them is
/// kept here and answered at once.
fn joined(topology: &Topology) -> Core {
    let mut core = Core::new(topology.clone(), Config::default());
    let mut held: BTreeMap<NodeName, BTreeMap<Key, Entry>> = BTreeMap::new();
    let mut timers: BTreeMap<Timer, u64> = BTreeMap::new();
    let (mut now_ms, mut events) = (1_000_000, VecDeque::new());
    for (number, (switch, _)) in (0u8..).zip(topology.switches()) {
        let ends = topology.links.iter().flat_map(|link| [&link.a, &link.b]);
        let ports = (1u16..).zip(ends.filter(|end| end.node == *switch)).map(|(id, end)| Port {
            id: PortId(id),
            name: end.port.to_string(),
            mac: [2, 0, 0, number, 0, u8::try_from(id).expect("few ports")],
            up: true,
        });
        let report =
            Report { version: "bench".into(), ports: ports.collect(), ..Report::default() };
        events.push_back(Event::SwitchJoined { switch: switch.clone(), report });
    }
    loop {
        let event = match events.pop_front() {
            Some(event) => event,
            None => {
                let due = timers.iter().filter(|(timer, _)| **timer != Timer::Resync);
                let Some((timer, at)) = due.map(|(t, at)| (*t, *at)).min_by_key(|(_, at)| *at)
                else {
                    return core;
                };
                timers.remove(&timer);
                now_ms = at.max(now_ms);
                Event::TimerDue(timer)
            }
        };
        for effect in core.handle(event, now_ms) {
            match effect {
                Effect::ReadEntries { switch, read } => {
                    let entries = held.entry(switch.clone()).or_default();
                    let result = Ok(entries.values().cloned().collect());
                    events.push_back(Event::EntriesRead { switch, read, result });
                }
                Effect::Write { switch, write, updates } => {
                    let entries = held.entry(switch.clone()).or_default();
                    for update in updates {
                        match update {
                            Update::Insert(entry) | Update::Modify(entry) => {
                                entries.insert(entry.key(), entry);
                            }
                            Update::Delete(entry) => drop(entries.remove(&entry.key())),
                        }
                    }
                    events.push_back(Event::WriteDone { switch, write, result: Ok(()) });
                }
                Effect::SetTimer { timer, at_ms } => drop(timers.insert(timer, at_ms)),
                _ => {}
            }
        }
    }
}

/// The slice between hosts of that topology, in place of the bench's endpoints.
fn named(net: &Net, mut slice: NetworkSlice) -> Object {
    for endpoint in &mut slice.endpoints {
        let number = endpoint.name.as_str()[1..].parse().expect("endpoints are numbered");
        let switch = net.snapshot.name(selvedge_topology::NodeIx(number));
        let prefix = if endpoint.side == Side::Ue { "h" } else { "dn" };
        endpoint.name = format!("{prefix}-{switch}").parse().expect("a host's name");
    }
    Object::NetworkSlice(slice)
}

/// Whether the slices were taken.
async fn reserve(handle: &Handle, put: Vec<Object>) -> Result<bool> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let until_ms = u64::try_from(now.as_millis())? + HELD_MS;
    let change = Change { put, ..Change::default() };
    let request = Request::Slice(SliceRequest::Reserve { change, until_ms });
    match handle.request("bench".to_owned(), request).await {
        Ok(Reply::Applied { .. }) => Ok(true),
        Ok(other) => Err(anyhow!("not an answer to a reservation: {other:?}")),
        Err(RequestError::Refused(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
