//! Neighbor discovery by LLDP (IEEE 802.1AB-2016): frames ([`frame`]), keys ([`auth`]), when to
//! send and whom to believe ([`state`]), and the task that joins them with a packet socket.
//!
//! All ports send and all listen: which of them is a fabric port is for the controller to
//! conclude. What it deliberately does not do: announce that the agent goes away (TTL 0),
//! because the switch goes on forwarding without it.

pub mod auth;
pub mod frame;
pub mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant, SystemTime};

use selvedge_pipeline::{Entry, PortEntry, PortId, PortKind, TableKind};
use tokio::sync::{mpsc, watch};

use crate::backend::Tables;
use crate::p4rt::server::FrameIn;
use crate::packet::{self, PacketSocket};
use crate::ports::table::Port;
use crate::report::Report;
use crate::seen::Around;
use auth::Key;
use state::{Discovery, Facing, Output};

/// Counts are told no more often.
const TELL_COUNTS: Duration = Duration::from_secs(1);

/// Runs until the ports' task ends; writes neighbors and counts into `report`. `keys`: the first
/// is to send with; none, as long as there is no controller that gives any. `frames`: what came
/// in, for whoever wants to look for himself; too much of it is dropped.
///
/// # Errors
/// When the socket cannot be opened or read.
pub async fn run(
    chassis: String,
    mut around: Around<impl Tables>,
    mut keys: watch::Receiver<Vec<Key>>,
    report: watch::Sender<Report>,
    frames: mpsc::Sender<FrameIn>,
) -> io::Result<()> {
    let mut socket = PacketSocket::open(frame::ETHERTYPE)?;
    let mut discovery = Discovery::default();
    let mut current = BTreeMap::new();
    let mut muted = BTreeMap::new(); // ports, with their interfaces
    let mut counts_at = None;
    let mut frame = [0; packet::FRAME_MAX];
    let mut out = Vec::new();
    around.ports.mark_changed();
    loop {
        let deadline = discovery.deadline().into_iter().chain(counts_at).min();
        let due = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = around.ports.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                current.clone_from(&around.ports.borrow_and_update());
                socket.refresh()?;
                let up = facing(&around.tables, &current);
                discovery.set_up(&up, Instant::now(), &mut out);
            }
            Ok(()) = around.written.changed() => {
                around.written.mark_unchanged();
                let up = facing(&around.tables, &current);
                discovery.set_up(&up, Instant::now(), &mut out);
            }
            Ok(()) = keys.changed() => {
                let keys = keys.borrow_and_update().clone();
                discovery.set_keys(keys, Instant::now(), &mut out);
            }
            received = socket.recv(&mut frame) => match received {
                Ok((len, ifindex)) => {
                    let from = current.iter().find(|(_, port)| port.link.ifindex == ifindex);
                    if let Some((id, _)) = from {
                        if let Ok(room) = frames.try_reserve() {
                            room.send((*id, frame[..len].to_vec()));
                        }
                        let (now, clock_ms) = (Instant::now(), clock_ms());
                        discovery.receive(*id, &frame[..len], now, clock_ms, &mut out);
                        counts_at = counts_at.or(Some(now + TELL_COUNTS));
                    }
                }
                // An interface that went down says so once.
                Err(error) if error.raw_os_error() == Some(nix::libc::ENETDOWN) => {}
                Err(error) => return Err(error),
            },
            () = due => {
                let now = Instant::now();
                if counts_at.take_if(|at| *at <= now).is_some() {
                    report.send_modify(|report| report.lldp = discovery.counts);
                }
                discovery.tick(now, &mut out);
            }
        }
        for output in out.drain(..) {
            match output {
                Output::Send(id) => {
                    let Some(port) = current.get(&id) else { continue };
                    let Some(mac) = port.link.mac else { continue };
                    let encode = |prover: Option<frame::Prover<'_>>| {
                        frame::encode(mac, &chassis, &port.name, state::TTL, prover)
                    };
                    let frame = match discovery.key(id) {
                        Some(key) => key.proving(clock_ms(), |prover| encode(Some(prover))),
                        None => encode(None),
                    };
                    if let Err(error) = socket.send(port.link.ifindex, &frame) {
                        tracing::debug!(port = %port.name, %error, "LLDP frame not sent");
                    }
                }
                Output::Neighbor(id, neighbor) => {
                    tracing::debug!(port = id.0, ?neighbor, counts = ?discovery.counts, "neighbor");
                    report.send_modify(|report| match neighbor {
                        Some(neighbor) => drop(report.neighbors.insert(id, neighbor)),
                        None => drop(report.neighbors.remove(&id)),
                    });
                }
                Output::Mute(id, mute) => {
                    match current.get(&id).filter(|_| mute) {
                        Some(port) => muted.insert(id, port.link.ifindex),
                        None => muted.remove(&id),
                    };
                    socket.mute(muted.values().copied())?;
                }
            }
        }
    }
}

/// What the ports that are up are for. Where the table cannot be read, none is trusted.
fn facing(tables: &impl Tables, ports: &BTreeMap<PortId, Port>) -> Vec<(PortId, Facing)> {
    let entries = tables.entries(TableKind::Port).unwrap_or_default();
    let fabric = |entry: &Entry| match entry {
        Entry::Port(PortEntry { port, kind: PortKind::Fabric }) => Some(*port),
        _ => None,
    };
    let fabric: BTreeSet<PortId> = entries.iter().filter_map(fabric).collect();
    let facing = |id| if fabric.contains(id) { Facing::Fabric } else { Facing::Other };
    let up = ports.iter().filter(|(_, port)| port.link.up);
    up.map(|(id, _)| (*id, facing(id))).collect()
}

/// Since the Unix epoch.
fn clock_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
