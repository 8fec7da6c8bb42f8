//! What the controller measures promises by: each second the packets of slices and links,
//! counted at both ends by the same mark ([`count`]), and delay and loss of links by test
//! packets ([`probe`]). The task that joins them with clock, maps and socket.
//!
//! Packets that enter the fabric in an even second carry one mark, in an odd second the other
//! (alternate marking, RFC 9341). Half a second into a second nobody sends the mark of the one
//! before any more, and all its packets have arrived: every switch reads its counts then, so
//! the counts of two switches are of the same packets. That takes clocks that agree on the
//! second to about 400 ms; the controller looks at the time that a report names.

pub mod count;
pub mod probe;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::socket::LinkAddr;
use nix::time::{ClockId, clock_gettime};
use selvedge_pipeline::{Entry, PortEntry, PortId, PortKind, TableKind};
use selvedge_southbound::selvedge::v1;
use selvedge_xdp as xdp;
use tokio::sync::watch;

use crate::backend::{BackendError, Tables};
use crate::gateway::{self, Sender};
use crate::ports::table::Port;
use count::{Periods, Reading};
use probe::Probing;

/// From the end of a second until its packets are counted.
const SETTLE: Duration = Duration::from_millis(500);

/// The last second's report, in messages of bounded size: a controller that is slow misses
/// seconds, and nothing waits for it.
pub type Told = Arc<Vec<v1::Telemetry>>;

#[derive(Debug, thiserror::Error)]
pub enum AssureError {
    #[error("cannot open a packet socket for test packets")]
    Socket(#[source] io::Error),
    #[error("cannot list interfaces")]
    Interfaces(#[source] io::Error),
    #[error("cannot read the monotonic clock")]
    Clock(#[source] nix::Error),
    #[error("cannot read or mark what is counted")]
    Maps(#[from] xdp::Error),
    #[error("cannot read which ports are fabric ports")]
    Tables(#[from] BackendError),
}

/// A switch's data plane, as far as it is measured.
#[derive(Debug)]
pub struct Measured<T> {
    pub tables: T,
    pub counters: xdp::Counters,
    pub probes: xdp::Probes,
    pub ports: watch::Receiver<BTreeMap<PortId, Port>>,
    /// Between test packets on a port.
    pub interval: Duration,
}

impl<T: Tables> Measured<T> {
    /// Runs for ever.
    ///
    /// # Errors
    /// See [`AssureError`].
    pub async fn run(
        mut self,
        told: watch::Sender<Told>,
    ) -> Result<std::convert::Infallible, AssureError> {
        let sender = Sender::open().map_err(AssureError::Socket)?;
        let mut periods = Periods::default();
        let mut probing = Probing::default();
        let mut fabric: BTreeMap<PortId, (LinkAddr, [u8; 6])> = BTreeMap::new();
        let (mut begun, mut read) = (0, 0);
        let mut next_probe = Instant::now();
        loop {
            let wall = unix_time();
            let (second, into) = (wall.as_secs(), Duration::from_nanos(wall.subsec_nanos().into()));
            if second != begun {
                self.probes.set_mark(second % 2 == 1)?;
                periods.begun(second, into);
                begun = second;
                fabric = self.fabric()?;
                probing.retain(|port| fabric.contains_key(&port));
            }
            if into >= SETTLE && read != second {
                read = second;
                let reading = self.reading()?;
                let over = second.saturating_sub(1);
                let counts = periods.read(over, reading);
                let links = probing.take(over, |port| {
                    self.probes.answers(port.0).map(|answers| answers.to_vec())
                })?;
                let at_ms = u64::try_from(wall.as_millis()).expect("a time in this age");
                told.send_replace(Arc::new(count::messages((over, at_ms), counts, links)));
            }
            let now = Instant::now();
            if now >= next_probe {
                next_probe = (next_probe + self.interval).max(now);
                for (port, (link, mac)) in &fabric {
                    let sequence = probing.sent(*port, second);
                    let frame = probe::frame(*mac, sequence, monotonic_ns()?);
                    // One that cannot be sent is one that is not answered.
                    if let Err(error) = sender.send_at(link, &frame) {
                        tracing::debug!(port = port.0, %error, "test packet not sent");
                    }
                }
            }
            let boundary = if read == second { Duration::from_secs(1) } else { SETTLE };
            let until_boundary = boundary.saturating_sub(into);
            let until_probe = next_probe.saturating_duration_since(now);
            tokio::time::sleep(until_boundary.min(until_probe)).await;
        }
    }

    fn reading(&self) -> Result<Reading, AssureError> {
        Ok(Reading {
            at: Instant::now(),
            ports: self.counters.ports()?,
            slices: self.counters.slices()?,
        })
    }

    /// Fabric ports that are up, with the addresses to send from.
    fn fabric(&mut self) -> Result<BTreeMap<PortId, (LinkAddr, [u8; 6])>, AssureError> {
        let links = gateway::link_addresses().map_err(AssureError::Interfaces)?;
        let ports = self.ports.borrow_and_update();
        let of = |entry: Entry| match entry {
            Entry::Port(PortEntry { port, kind: PortKind::Fabric }) => {
                let at = ports.get(&port).filter(|at| at.link.up)?;
                Some((port, (*links.get(&at.link.ifindex)?, at.link.mac?)))
            }
            _ => None,
        };
        Ok(self.tables.entries(TableKind::Port)?.into_iter().filter_map(of).collect())
    }
}

/// A clock from before 1970 counts as 1970: its reports are of no second that anybody asks for.
fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The clock that the XDP programs read.
fn monotonic_ns() -> Result<u64, AssureError> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(AssureError::Clock)?;
    Ok(u64::try_from(Duration::from(now).as_nanos()).expect("time since the machine started"))
}
