//! How long a packet that is not dropped can take, at worst.
//!
//! Packets in profile always pass; excess passes only while the backlog is below a threshold, so
//! the same bound holds for what of it passes.
//!
//! For each hop: propagation, plus what can stand before the packet divided by the rate the
//! port drains at (97 % of its capacity). Before it can stand
//!
//! - the bursts of every admitted slice that uses the port. A burst grows along its path: while
//!   it waits at a hop, more of its slice's traffic arrives behind it, at most its rate times
//!   the bound of the hops before (network calculus: an arrival curve `b + r t` through a server
//!   with delay at most `d` leaves with `b + r d`);
//! - excess traffic, up to the largest threshold of any class (excess of another class waits in
//!   the same queue);
//! - one full frame that is being sent.
//!
//! Hops feed each other's bursts, so the bounds are a least fixed point (`bounds.rs`); where there
//! is none there is no bound. Not in it: the time that switches, hooks
//! and the senders' own interfaces take, and hops whose capacity or delay is not stated. They
//! are listed in [`DelayBound::unknown`].

use std::fmt;

use selvedge_topology::{ArcIx, BitRate, Bytes, Delay};

use super::bounds::{Bounds, Values};
use super::port::Flow;
use super::{Admitted, Network};
use crate::class::{Class, FRAME_BYTES};
use crate::{Direction, NetworkSlice};

/// A bound beyond this is no bound: 1,000 s.
pub(super) const LIMIT_NS: u64 = 1_000_000_000_000;

/// The bound of one path, term by term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelayBound {
    pub hops: Vec<HopDelay>,
    /// Rounded up.
    pub total: Delay,
    /// What the total does not count, in words.
    pub unknown: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HopDelay {
    /// `near:port -> far:port`.
    pub link: String,
    pub propagation: Option<Delay>,
    /// `None`: the port's capacity is not stated.
    pub queue: Option<QueueDelay>,
}

/// What can stand before a packet at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueDelay {
    pub bursts: Bytes,
    pub threshold: Bytes,
    pub frame: Bytes,
    /// What the port drains at.
    pub rate: BitRate,
    /// Nanoseconds, rounded up.
    pub nanoseconds: u64,
}

impl DelayBound {
    /// The hop with the largest part.
    pub fn worst(&self) -> Option<&HopDelay> {
        self.hops.iter().max_by_key(|hop| hop.nanoseconds())
    }
}

impl HopDelay {
    fn nanoseconds(&self) -> u64 {
        let propagation = self.propagation.map_or(0, |delay| delay.us().saturating_mul(1000));
        propagation.saturating_add(self.queue.map_or(0, |queue| queue.nanoseconds))
    }
}

impl fmt::Display for HopDelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.link)?;
        match self.propagation {
            Some(delay) => write!(f, "{delay} propagation")?,
            None => write!(f, "propagation not stated")?,
        }
        match &self.queue {
            Some(QueueDelay { bursts, threshold, frame, rate, nanoseconds }) => write!(
                f,
                " + {} queue (bursts {bursts} + threshold {threshold} + frame {frame} at {rate})",
                Delay(nanoseconds.div_ceil(1000))
            ),
            None => write!(f, ", queue not limited by a stated capacity"),
        }
    }
}

/// One direction of a slice's promise, where it has one.
pub(super) fn flows(of: &Admitted) -> Vec<(Direction, Flow)> {
    let flow = |direction| {
        let rates = of.slice.rates(direction);
        let burst = rates.guaranteed_burst(of.slice.class);
        Some((direction, Flow { rate: rates.guaranteed?, burst, routes: routes(of, direction) }))
    };
    let promised = Direction::ALL.into_iter().filter(|_| of.waived.is_none());
    promised.filter_map(flow).collect()
}

/// Every way of a slice's direction and every backup, the link to the endpoint included where it
/// is known. Backups count at all times: so the bounds hold before and after each failure.
pub(super) fn routes(admitted: &Admitted, direction: Direction) -> Vec<Vec<ArcIx>> {
    let mut routes = Vec::new();
    for placed in admitted.placed.iter().filter(|placed| placed.direction == direction) {
        let backup = placed.backup.as_ref().map(|backup| &backup.path);
        for arcs in [Some(&placed.path), backup].into_iter().flatten().map(|path| &path.arcs) {
            if placed.exits.is_empty() {
                routes.push(arcs.clone());
            }
            routes.extend(placed.exits.iter().map(|exit| [arcs.as_slice(), &[*exit]].concat()));
        }
    }
    routes
}

/// A port's queue with these bytes of bursts.
pub(super) fn queue(rate: BitRate, bursts: Bytes) -> QueueDelay {
    let threshold = Class::Urllc.threshold(rate); // the largest
    let frame = Bytes(FRAME_BYTES);
    let bits = u128::from(bursts.0) + u128::from(threshold.0) + u128::from(frame.0);
    let ns = (bits * 8 * 1_000_000_000).div_ceil(u128::from(rate.0.max(1)));
    let nanoseconds = u64::try_from(ns).unwrap_or(u64::MAX);
    QueueDelay { bursts, threshold, frame, rate, nanoseconds }
}

/// The worst bound of a slice's direction, with these queueings.
pub(super) fn worst(
    network: &Network<'_>,
    (bounds, values): (&Bounds, &Values),
    admitted: &Admitted,
    direction: Direction,
) -> Option<DelayBound> {
    let bounds = routes(admitted, direction)
        .into_iter()
        .map(|route| bound(network, (bounds, values), &route, &admitted.slice));
    bounds.max_by_key(|bound| bound.total)
}

pub(super) fn bound(
    network: &Network<'_>,
    (bounds, values): (&Bounds, &Values),
    route: &[ArcIx],
    slice: &NetworkSlice,
) -> DelayBound {
    let hops: Vec<HopDelay> = route
        .iter()
        .map(|&arc| HopDelay {
            link: arc_name(network, arc),
            propagation: network.snapshot.link(arc.link()).delay,
            queue: bounds.queue(values, arc),
        })
        .collect();
    let total = hops.iter().fold(0u64, |sum, hop| sum.saturating_add(hop.nanoseconds()));
    let mut unknown = Vec::new();
    let list = |missing: fn(&HopDelay) -> bool| {
        let links: Vec<&str> =
            hops.iter().filter(|h| missing(h)).map(|h| h.link.as_str()).collect();
        (!links.is_empty()).then(|| links.join(", "))
    };
    if let Some(links) = list(|hop| hop.propagation.is_none()) {
        unknown.push(format!("propagation over {links}: no delay is stated"));
    }
    if let Some(links) = list(|hop| hop.queue.is_none()) {
        unknown.push(format!("queueing into {links}: no capacity is stated"));
    }
    let shapes = |arc: &&ArcIx| slice.class.is_shaped(network.snapshot.link(arc.link()).shaped);
    let shaped: Vec<String> = route.iter().filter(shapes).map(|a| arc_name(network, *a)).collect();
    if !shaped.is_empty() {
        unknown.push(format!("the queue of the class {} into {}", slice.class, shaped.join(", ")));
    }
    if !slice.through.is_empty() {
        unknown.push("the time that hooks take".to_owned());
    }
    DelayBound { hops, total: Delay(total.div_ceil(1000)), unknown }
}

/// `near:port -> far:port`, in the direction of travel.
pub(super) fn arc_name(network: &Network<'_>, arc: ArcIx) -> String {
    let (near, far) = network.snapshot.ends(arc);
    format!("{near} -> {far}")
}
