//! Neighbor discovery by LLDP (IEEE 802.1AB-2016): frames ([`frame`]), when to send and whom
//! to believe ([`state`]), the packet socket ([`socket`]), and the task that joins them.
//!
//! All ports send and all listen: which of them is a fabric port is for the controller to
//! conclude. What it deliberately does not do: announce that the agent goes away (TTL 0),
//! because the switch goes on forwarding without it.

pub mod frame;
pub mod socket;
pub mod state;

use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use selvedge_pipeline::PortId;
use tokio::sync::watch;

use crate::ports::table::Port;
use crate::report::Report;
use socket::LldpSocket;
use state::{Discovery, Output};

/// Runs until `ports` closes; writes neighbors into `report`.
///
/// # Errors
/// When the socket cannot be opened or read.
pub async fn run(
    chassis: String,
    mut ports: watch::Receiver<BTreeMap<PortId, Port>>,
    report: watch::Sender<Report>,
) -> io::Result<()> {
    let mut socket = LldpSocket::open()?;
    let mut discovery = Discovery::default();
    let mut current = BTreeMap::new();
    let mut frame = [0; socket::FRAME_MAX];
    let mut out = Vec::new();
    ports.mark_changed();
    loop {
        let deadline = discovery.deadline();
        let due = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = ports.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                current.clone_from(&ports.borrow_and_update());
                socket.refresh()?;
                let up: Vec<PortId> =
                    current.iter().filter(|(_, port)| port.link.up).map(|(id, _)| *id).collect();
                discovery.set_up(&up, Instant::now(), &mut out);
            }
            received = socket.recv(&mut frame) => match received {
                Ok((len, ifindex)) => {
                    let from = current.iter().find(|(_, port)| port.link.ifindex == ifindex);
                    if let Some((id, _)) = from {
                        discovery.receive(*id, &frame[..len], Instant::now(), &mut out);
                    }
                }
                // An interface that went down says so once.
                Err(error) if error.raw_os_error() == Some(nix::libc::ENETDOWN) => {}
                Err(error) => return Err(error),
            },
            () = due => discovery.tick(Instant::now(), &mut out),
        }
        for output in out.drain(..) {
            match output {
                Output::Send(id) => {
                    let Some(port) = current.get(&id) else { continue };
                    let Some(mac) = port.link.mac else { continue };
                    let frame = frame::encode(mac, &chassis, &port.name, state::TTL);
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
            }
        }
    }
}
