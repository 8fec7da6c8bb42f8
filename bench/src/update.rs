//! How many table entries a switch takes in a second, over P4Runtime, and what that costs the
//! packets that it forwards meanwhile.
//!
//! A client writes routes in batches as large as a message may be: inserts all, modifies all,
//! deletes all. Client and server are on one CPU, with gRPC between them; on another the ingress
//! path of `bench forward` is driven, with and without updates, in turns. Then the agent's
//! telemetry, which reads all counters each second, is on the CPU that forwards, in turns as well.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use selvedge_dataplane::assure::{Measured, Told};
use selvedge_dataplane::backend::xdp::XdpTables;
use selvedge_dataplane::p4rt::core::{Core, Mode};
use selvedge_dataplane::p4rt::server::{Service, listen};
use selvedge_pipeline::{
    EndpointId, Entry, PolicyId, RouteAction, SliceId, SliceRouteEntry, SliceSet,
};
use selvedge_southbound::client::{P4Client, Target, Update};
use selvedge_xdp::Switch;
use serde_json::Value;
use tokio::sync::{oneshot, watch};

use crate::forward;
use crate::net::{self, Far, ip};
use crate::report::row;

/// Repetitions, of which the median counts.
const ROUNDS: usize = 5;
const ENTRIES: u32 = 50_000;
/// How long forwarding is driven, with and without.
const SAMPLE: Duration = Duration::from_secs(1);
/// Of which counters are read three times.
const TELEMETRY_SAMPLE: Duration = Duration::from_secs(3);
/// Nobody's but this bench's.
const SET: SliceSet = SliceSet(9);

pub(crate) fn run() -> Result<Vec<Value>> {
    net::isolate()?;
    ip("link set lo up")?;
    let far = Far::new()?;
    let place = forward::Place::new(&far)?;
    let address = serve(&place.switch)?;
    let rates = rates(address)?;
    let [inserted, modified, deleted] = rates;
    println!("{ENTRIES} routes in batches, over P4Runtime; median of {ROUNDS}");
    println!("inserted {inserted:>9.0}/s\nmodified {modified:>9.0}/s\ndeleted  {deleted:>9.0}/s");

    let busy = Busy::start(address)?;
    net::stay_on_one_cpu()?;
    let bed = place.bed(&far)?;
    let mut kept = Vec::new();
    for _ in 0..ROUNDS {
        busy.pause(true);
        let alone = bed.ingress(SAMPLE)?;
        busy.pause(false);
        let before = busy.written.load(Ordering::Relaxed);
        kept.push(bed.ingress(SAMPLE)? / alone);
        ensure!(busy.written.load(Ordering::Relaxed) > before, "nothing was updated meanwhile");
    }
    busy.pause(true);
    let kept = median(&mut kept);
    println!("forwarded under updates at full rate: {:.1} % of what is without", kept * 100.0);
    let mut cost = Vec::new();
    for _ in 0..ROUNDS {
        let alone = bed.ingress(TELEMETRY_SAMPLE)?;
        let told = telemetry(&place.switch)?;
        cost.push(1.0 - bed.ingress(TELEMETRY_SAMPLE)? / alone);
        ensure!(told.stop()? > 0, "nothing was read meanwhile");
    }
    let cost = median(&mut cost);
    println!("telemetry on the same CPU costs {:.2} % of that", cost * 100.0);
    let slowest = inserted.min(modified).min(deleted);
    Ok(vec![
        row("entries_per_s_switch", slowest, "entries/s", "higher", ("target", 50_000.0)),
        row("updated_rate_kept", kept, "of without updates", "higher", ("target", 0.95)),
        row("telemetry_cost", cost, "of the throughput", "lower", ("target", 0.01)),
    ])
}

/// The switch's P4Runtime, on the loopback, until the process ends.
fn serve(switch: &Switch) -> Result<SocketAddr> {
    let no_ports = Box::new(|_, _: &[u8]| Err(std::io::ErrorKind::NotFound.into()));
    let core = Core::new(XdpTables::of(switch), no_ports, Mode::Unmanaged, 1)
        .context("read the tables")?;
    let (told, address) = std::sync::mpsc::channel();
    thread::spawn(move || {
        runtime()?.block_on(async {
            let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).await?;
            told.send(listener.local_addr()?).expect("it is waited for");
            Service::new(core).serve(listener, None).await?;
            anyhow::Ok(())
        })
    });
    address.recv_timeout(Duration::from_secs(5)).context("start a P4Runtime server")
}

/// The agent's telemetry, on this thread's CPU.
struct Telemetry {
    stop: oneshot::Sender<()>,
    reads: thread::JoinHandle<Result<u64>>,
}

impl Telemetry {
    /// How often counters were read.
    fn stop(self) -> Result<u64> {
        drop(self.stop);
        self.reads.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn telemetry(switch: &Switch) -> Result<Telemetry> {
    let (counters, probes) = (switch.counters.clone(), switch.probes.clone());
    let (stop, mut stopped) = oneshot::channel();
    let reads = thread::spawn(move || {
        runtime()?.block_on(async {
            let (told, mut heard) = watch::channel(Told::default());
            let measured = Measured { counters, probes, probing: Default::default() };
            let measuring = measured.start(told).context("start a thread")?;
            tokio::pin!(measuring);
            let mut reads = 0;
            loop {
                tokio::select! {
                    ended = &mut measuring => bail!("telemetry ended: {ended:?}"),
                    Ok(()) = heard.changed() => reads += 1,
                    _ = &mut stopped => return Ok(reads),
                }
            }
        })
    });
    Ok(Telemetry { stop, reads })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")
}

async fn connect(address: SocketAddr) -> Result<P4Client> {
    let target = Target {
        uri: format!("http://{address}"),
        tls: None,
        device_id: 1,
        role: String::new(),
        election_id: 1,
    };
    let (client, channel) = P4Client::connect(target).await?;
    // The session lasts as long as its stream.
    std::mem::forget(channel);
    Ok(client)
}

fn routes(policy: u32) -> impl Iterator<Item = Entry> {
    (0..ENTRIES).map(move |n| {
        Entry::SliceRoute(SliceRouteEntry {
            slice_set: SET,
            prefix: std::net::IpAddr::from(Ipv4Addr::from(0x0a00_0000 + n)).into(),
            slice: SliceId(3),
            action: RouteAction::Policy(PolicyId(policy)),
            endpoint: EndpointId::NONE,
        })
    })
}

/// Inserts, modifications and deletions of all routes.
fn changes() -> [Vec<Update>; 3] {
    [
        routes(1).map(Update::Insert).collect(),
        routes(2).map(Update::Modify).collect(),
        routes(2).map(Update::Delete).collect(),
    ]
}

/// Of each kind, a second.
fn rates(address: SocketAddr) -> Result<[f64; 3]> {
    let changes = changes();
    let mut seconds = [const { Vec::new() }; 3];
    runtime()?.block_on(async {
        let client = connect(address).await?;
        for _ in 0..ROUNDS {
            for (updates, seconds) in changes.iter().zip(&mut seconds) {
                let start = Instant::now();
                client.write(updates).await?;
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
        anyhow::Ok(())
    })?;
    Ok(seconds.map(|mut seconds| f64::from(ENTRIES) / median(&mut seconds)))
}

/// A client that goes on updating, but for pauses.
struct Busy {
    paused: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
}

impl Busy {
    fn start(address: SocketAddr) -> Result<Self> {
        let (paused, written) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let busy = Self { paused: Arc::clone(&paused), written: Arc::clone(&written) };
        thread::spawn(move || {
            let changes = changes();
            runtime()?.block_on(async {
                let client = connect(address).await?;
                for updates in changes.iter().cycle() {
                    for batch in updates.chunks(1_000) {
                        while paused.load(Ordering::Relaxed) {
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                        client.write(batch).await?;
                        written.fetch_add(batch.len() as u64, Ordering::Relaxed);
                    }
                }
                anyhow::Ok(())
            })
        });
        Ok(busy)
    }

    fn pause(&self, pause: bool) {
        self.paused.store(pause, Ordering::Relaxed);
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
