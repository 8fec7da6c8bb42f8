//! Sources that the `endpoint` table does not bind, as the XDP programs tell them.
//!
//! The programs limit them (once a second a source, a few a second a port); here they are
//! noted for the controller, and forgotten when nothing was heard of them for [`KEEP`]. One that
//! is bound then is told of the gateway at once (`gateway.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use selvedge_pipeline::{Entry, PortEntry, PortId, PortKind, TableKind, prefix};
use selvedge_xdp::Events;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::backend::Tables;
use crate::gateway;
use crate::ports::table::Port;
use crate::report::{Report, SEEN_MAX};

/// How long an unbound source is worth telling to a controller that comes back.
pub const KEEP: Duration = Duration::from_secs(30);

/// Sources that were seen and were not bound, with their MAC addresses.
type Waiting = BTreeMap<(PortId, IpAddr), [u8; 6]>;

/// What sightings are held against, and how their endpoints are told.
#[derive(Debug)]
pub struct Around<T> {
    pub tables: T,
    pub ports: watch::Receiver<BTreeMap<PortId, Port>>,
    /// Changes when entries were written.
    pub written: watch::Receiver<u64>,
}

impl<T: Tables> Around<T> {
    /// Access ports that have a carrier, with their interfaces. `None`: the table cannot be read.
    pub(crate) fn access(&self) -> Option<BTreeSet<(PortId, u32)>> {
        let entries = self.tables.entries(TableKind::Port).ok()?;
        let access = |entry: &Entry| match entry {
            Entry::Port(PortEntry { port, kind: PortKind::Access }) => Some(*port),
            _ => None,
        };
        let ports = self.ports.borrow();
        let up = |port| Some((port, ports.get(&port).filter(|at| at.link.up)?.link.ifindex));
        Some(entries.iter().filter_map(access).filter_map(up).collect())
    }

    /// Tells of the gateway on access ports that were not there before.
    fn greet(&self, sender: &gateway::Sender, greeted: &mut BTreeSet<(PortId, u32)>) {
        let Some(now) = self.access() else { return };
        for (port, ifindex) in now.difference(greeted) {
            for frame in gateway::to_all() {
                if let Err(error) = sender.send(*ifindex, &frame) {
                    tracing::debug!(port = port.0, %error, "the gateway was not announced");
                }
            }
        }
        *greeted = now;
    }

    /// Tells of the gateway those that are bound by now, and waits for the others.
    fn announce(&self, sender: &gateway::Sender, waiting: &mut Waiting) {
        if waiting.is_empty() {
            return;
        }
        let bound = match self.tables.entries(TableKind::Endpoint) {
            Ok(bound) => bound,
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "endpoints not read");
                return;
            }
        };
        let ports = self.ports.borrow();
        waiting.retain(|(port, address), mac| {
            let is_bound = bound.iter().any(|entry| match entry {
                Entry::Endpoint(e) => e.port == *port && prefix::contains(e.prefix, *address),
                _ => false,
            });
            if is_bound && let Some(at) = ports.get(port) {
                let frame = gateway::announcement(*mac, *address);
                if let Err(error) = sender.send(at.link.ifindex, &frame) {
                    tracing::debug!(port = %at.name, %error, "the gateway was not announced");
                }
            }
            !is_bound
        });
    }
}

/// Reads events for ever.
///
/// # Errors
/// When the ring cannot be polled, or there is no packet socket to be had.
pub async fn run(
    events: Events,
    report: watch::Sender<Report>,
    mut around: Around<impl Tables>,
) -> io::Result<std::convert::Infallible> {
    let sender = gateway::Sender::open()?;
    let mut waiting = Waiting::new();
    let mut greeted = BTreeSet::new();
    #[expect(
        deprecated,
        reason = "its replacement is unsafe code for descriptors that may close under it; \
                  this one owns its ring"
    )]
    let mut events = AsyncFd::new(events)?;
    let mut last: BTreeMap<(PortId, IpAddr), Instant> = BTreeMap::new();
    loop {
        let oldest = last.values().min().copied();
        let expiry = async {
            match oldest {
                Some(at) => tokio::time::sleep_until((at + KEEP).into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ready = events.readable_mut() => {
                let mut ready = ready?;
                let ring = ready.get_inner_mut();
                let mut batch = Vec::new();
                while let Some(event) = ring.next() {
                    batch.push(event);
                }
                ready.clear_ready();
                let now = Instant::now();
                for event in &batch {
                    if waiting.len() < SEEN_MAX {
                        waiting.insert((PortId(event.port), event.address), event.mac);
                    }
                }
                report.send_modify(|report| {
                    for event in &batch {
                        let port = PortId(event.port);
                        tracing::debug!(port = port.0, address = %event.address, "unbound source");
                        report.saw(port, event.address, event.mac);
                        last.insert((port, event.address), now);
                    }
                    // The report is bounded, and so is this.
                    last.retain(|key, _| report.seen.contains_key(key));
                });
                // It may have been bound between the frame and here.
                around.announce(&sender, &mut waiting);
            }
            changed = around.written.changed() => {
                if changed.is_err() {
                    // Nobody writes any more: the agent ends.
                    std::future::pending::<()>().await;
                }
                around.greet(&sender, &mut greeted);
                around.announce(&sender, &mut waiting);
            }
            changed = around.ports.changed() => {
                if changed.is_err() {
                    std::future::pending::<()>().await;
                }
                around.greet(&sender, &mut greeted);
            }
            () = expiry => {
                let now = Instant::now();
                last.retain(|_, at| now.duration_since(*at) < KEEP);
                waiting.retain(|key, _| last.contains_key(key));
                report.send_modify(|report| {
                    report.seen.retain(|key, _| last.contains_key(key));
                });
            }
        }
    }
}
