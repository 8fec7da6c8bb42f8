//! Sources that the `endpoint` table does not bind, as the XDP programs tell them.
//!
//! The programs limit them (once a second a source, a few a second a port); here they are
//! noted for the controller, and forgotten when nothing was heard of them for [`KEEP`].

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use selvedge_pipeline::PortId;
use selvedge_xdp::Events;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::report::Report;

/// How long an unbound source is worth telling to a controller that comes back.
pub const KEEP: Duration = Duration::from_secs(30);

/// Reads events for ever.
///
/// # Errors
/// When the ring cannot be polled.
pub async fn run(
    events: Events,
    report: watch::Sender<Report>,
) -> io::Result<std::convert::Infallible> {
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
            }
            () = expiry => {
                let now = Instant::now();
                last.retain(|_, at| now.duration_since(*at) < KEEP);
                report.send_modify(|report| {
                    report.seen.retain(|key, _| last.contains_key(key));
                });
            }
        }
    }
}
