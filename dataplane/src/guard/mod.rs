//! Takes fabric ports that no frame gets through out of use, and back: the data plane then sends
//! around them at once, and nobody waits for the controller (S-BFD, RFC 7880, in spirit).
//!
//! A thread of its own, because milliseconds count and the agent may be busy with a batch of
//! entries. It hears of carrier from the kernel, and sends the test packets of STAMP ([`probe`])
//! that the neighbor's XDP program answers: so a neighbor whose agent has died is not down, and
//! an agent that is not running declares nobody down. [`health`] decides.

pub mod health;
pub mod probe;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::socket::LinkAddr;
use nix::time::{ClockId, clock_gettime};
use selvedge_pipeline::{Entry, PortEntry, PortId, PortKind, TableKind};
use selvedge_xdp as xdp;
use tokio::sync::watch;

use crate::backend::{BackendError, Tables};
use crate::gateway::{self, Sender};
use crate::ports::netlink::{Change, Monitor, Netlink};
use crate::ports::table::Port;
use crate::urgent::{self, UrgentError};
use health::{Health, Why};
use probe::Probing;

/// Ports are looked up anew although nothing was heard.
const REFRESH: Duration = Duration::from_secs(1);

/// What became of test packets, for whoever tells of delay and loss.
pub type Probes = Arc<Mutex<Probing>>;

#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    #[error("cannot open a packet socket for test packets")]
    Socket(#[source] io::Error),
    #[error("cannot hear of links")]
    Monitor(#[source] io::Error),
    #[error("cannot list interfaces")]
    Interfaces(#[source] io::Error),
    #[error("cannot list links")]
    Links(#[source] rtnetlink::Error),
    #[error("cannot read the monotonic clock")]
    Clock(#[source] nix::Error),
    #[error("cannot read or write the state of ports")]
    Maps(#[from] xdp::Error),
    #[error("cannot read which ports are fabric ports")]
    Tables(#[from] BackendError),
    #[error(transparent)]
    Thread(#[from] UrgentError),
}

/// What is to be guarded.
#[derive(Debug)]
pub struct Guard<T> {
    pub tables: T,
    pub states: xdp::PortStates,
    pub answers: xdp::Probes,
    pub counters: xdp::Counters,
    pub ports: watch::Receiver<BTreeMap<PortId, Port>>,
    /// Between test packets on a port.
    pub interval: Duration,
    pub probes: Probes,
    /// Ports that have a carrier, and that no frame gets through. Ends when nobody listens.
    pub silent: watch::Sender<BTreeSet<PortId>>,
}

/// A fabric port.
#[derive(Debug)]
struct Guarded {
    ifindex: u32,
    link: LinkAddr,
    mac: [u8; 6],
    health: Health,
}

impl<T: Tables + Send + 'static> Guard<T> {
    /// Starts the thread, in this one's network namespace. Ready when it has ended.
    ///
    /// # Errors
    /// There can be no further thread.
    pub fn start(self) -> io::Result<impl Future<Output = Result<(), GuardError>> + use<T>> {
        urgent::run("guard", urgent::GUARD, move || self.run())
    }

    async fn run(mut self) -> Result<(), GuardError> {
        let sender = Sender::open().map_err(GuardError::Socket)?;
        let netlink = Netlink::open().map_err(GuardError::Monitor)?;
        let mut monitor = Monitor::open().map_err(GuardError::Monitor)?;
        let mut guarded: BTreeMap<PortId, Guarded> = BTreeMap::new();
        self.refresh(&mut guarded, &netlink).await?;
        // With every other one a test packet leaves; each is a look at answers.
        let mut ticks = tokio::time::interval(self.interval / 2);
        // What was missed is missed: a burst of test packets says nothing more.
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut is_probe = false;
        let mut refreshes = tokio::time::interval(REFRESH);
        loop {
            tokio::select! {
                biased;
                change = monitor.change() => match change {
                    Some(Change { ifindex, carrier }) => {
                        for port in guarded.values_mut().filter(|port| port.ifindex == ifindex) {
                            port.health.carrier(carrier);
                        }
                    }
                    None => {
                        monitor = Monitor::open().map_err(GuardError::Monitor)?;
                        self.refresh(&mut guarded, &netlink).await?;
                    }
                },
                _ = ticks.tick() => {
                    is_probe = !is_probe;
                    if is_probe {
                        self.probe(&mut guarded, &sender)?;
                    }
                }
                _ = refreshes.tick() => self.refresh(&mut guarded, &netlink).await?,
                changed = self.ports.changed() => match changed {
                    Ok(()) => self.refresh(&mut guarded, &netlink).await?,
                    Err(_) => return Ok(()),
                },
                () = self.silent.closed() => return Ok(()),
            }
            self.look(&mut guarded)?;
        }
    }

    /// Which ports are fabric ports, and whether they have a carrier.
    async fn refresh(
        &mut self,
        guarded: &mut BTreeMap<PortId, Guarded>,
        netlink: &Netlink,
    ) -> Result<(), GuardError> {
        let addresses = gateway::link_addresses().map_err(GuardError::Interfaces)?;
        let links = netlink.links().await.map_err(GuardError::Links)?;
        let carrier: BTreeMap<u32, bool> = links.iter().map(|l| (l.ifindex, l.up)).collect();
        let ports = self.ports.borrow_and_update().clone();
        let fabric = self.tables.entries(TableKind::Port)?.into_iter().filter_map(|entry| {
            let Entry::Port(PortEntry { port, kind: PortKind::Fabric }) = entry else {
                return None;
            };
            let at = &ports.get(&port)?.link;
            Some((port, (at.ifindex, *addresses.get(&at.ifindex)?, at.mac?)))
        });
        let fabric: BTreeMap<PortId, (u32, LinkAddr, [u8; 6])> = fabric.collect();
        let now = now()?;
        for (port, gone) in guarded.extract_if(.., |port, _| !fabric.contains_key(port)) {
            if !gone.health.is_up() {
                self.states.set(port.0, true)?;
            }
        }
        for (port, (ifindex, link, mac)) in fabric {
            let carrier = carrier.get(&ifindex).copied().unwrap_or(false);
            let known = guarded.get(&port).filter(|known| known.ifindex == ifindex);
            if known.is_none() {
                let health = Health::new(self.states.is_up(port.0)?, carrier, now);
                guarded.insert(port, Guarded { ifindex, link, mac, health });
                let kept = self.answers.answers(port.0)?;
                self.probes().start(port, &kept);
            }
            let port = guarded.get_mut(&port).expect("it is there by now");
            (port.link, port.mac) = (link, mac);
            port.health.carrier(carrier);
        }
        self.probes().retain(|port| guarded.contains_key(&port));
        Ok(())
    }

    fn probes(&self) -> std::sync::MutexGuard<'_, Probing> {
        // Numbers, whole after each change.
        self.probes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A test packet on each port.
    fn probe(
        &self,
        guarded: &mut BTreeMap<PortId, Guarded>,
        sender: &Sender,
    ) -> Result<(), GuardError> {
        let second = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        for (port, at) in guarded {
            let sequence = self.probes().sent(*port, second);
            let now = now()?;
            let queued = self.states.backlog(port.0, now)?;
            let received = self.counters.port(port.0)?.rx_packets;
            at.health.sent(sequence, now + queued, received);
            let frame = probe::frame(at.mac, sequence, now);
            // One that cannot be sent is one that is not answered.
            if let Err(error) = sender.send_at(&at.link, &frame) {
                tracing::trace!(port = port.0, %error, "test packet not sent");
            }
        }
        Ok(())
    }

    fn look(&self, guarded: &mut BTreeMap<PortId, Guarded>) -> Result<(), GuardError> {
        for (port, at) in guarded {
            let answers = self.answers.answers(port.0)?;
            let answer = |number| probe::answer(&answers, number);
            let answer = |number| answer(number).map(|ns| Duration::from_nanos(ns.into()));
            let received = self.counters.port(port.0)?.rx_packets;
            let Some(change) = at.health.look(answer, received, now()?) else { continue };
            self.states.set(port.0, change.is_ok())?;
            match change {
                Ok(()) => tracing::info!(port = port.0, "frames get through again"),
                Err(why) => tracing::warn!(port = port.0, "packets go around the port: {why}"),
            }
            self.silent.send_if_modified(|silent| match change {
                Err(Why::Silence) => silent.insert(*port),
                Ok(()) | Err(Why::Carrier) => silent.remove(port),
            });
        }
        Ok(())
    }
}

/// On the clock that the XDP programs read.
fn now() -> Result<Duration, GuardError> {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).map_err(GuardError::Clock)
}
