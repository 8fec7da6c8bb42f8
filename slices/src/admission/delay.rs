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
//! Hops feed each other's bursts, so the bounds are a least fixed point, found by iteration from
//! below; where it does not settle there is no bound. Not in it: the time that switches, hooks
//! and the senders' own interfaces take, and hops whose capacity or delay is not stated. They
//! are listed in [`DelayBound::unknown`].

use std::collections::BTreeMap;
use std::fmt;

use selvedge_topology::{ArcIx, BitRate, Bytes, Delay};

use super::{Admitted, Network, overhead, scale, usable};
use crate::class::{Class, FRAME_BYTES};
use crate::limits::MTU_BYTES;
use crate::{Direction, ObjectName};

/// Rounds of the fixed point. What grows for that long does not settle in any useful range.
const MAX_ROUNDS: usize = 200;
/// A bound beyond this is no bound: 1,000 s.
const LIMIT_NS: u64 = 1_000_000_000_000;

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

/// The worst queueing of every port that promises meet at, in nanoseconds.
#[derive(Clone, Debug)]
pub(super) struct Queues {
    /// What may stand at a port apart from grown bursts, and those, by arc.
    ports: BTreeMap<ArcIx, QueueDelay>,
}

/// One direction of one slice.
struct Flow {
    rate: BitRate,
    burst: Bytes,
    /// Arcs in order, the link to the endpoint last.
    routes: Vec<Vec<ArcIx>>,
}

fn flows<'a>(admitted: impl Iterator<Item = &'a Admitted>) -> Vec<Flow> {
    let mut flows = Vec::new();
    for of in admitted.filter(|admitted| admitted.waived.is_none()) {
        for direction in Direction::ALL {
            let rates = of.slice.rates(direction);
            let Some(rate) = rates.guaranteed else { continue };
            let burst = rates.guaranteed_burst(of.slice.class);
            flows.push(Flow { rate, burst, routes: routes(of, direction) });
        }
    }
    flows
}

/// Every way of a slice's direction, the link to the endpoint included where it is known.
fn routes(admitted: &Admitted, direction: Direction) -> Vec<Vec<ArcIx>> {
    let mut routes = Vec::new();
    for placed in admitted.placed.iter().filter(|placed| placed.direction == direction) {
        let arcs = &placed.path.arcs;
        if placed.exits.is_empty() {
            routes.push(arcs.clone());
        }
        routes.extend(placed.exits.iter().map(|exit| [arcs.as_slice(), &[*exit]].concat()));
    }
    routes
}

/// A port's queue with these bytes of bursts.
fn queue(rate: BitRate, bursts: Bytes) -> QueueDelay {
    let threshold = Class::Urllc.threshold(rate); // the largest
    let frame = Bytes(FRAME_BYTES);
    let bits = u128::from(bursts.0) + u128::from(threshold.0) + u128::from(frame.0);
    let ns = (bits * 8 * 1_000_000_000).div_ceil(u128::from(rate.0.max(1)));
    let nanoseconds = u64::try_from(ns).unwrap_or(u64::MAX);
    QueueDelay { bursts, threshold, frame, rate, nanoseconds }
}

/// A size of full IP packets as frames of an arc, rounded up to bytes.
fn framed(network: &Network<'_>, arc: ArcIx, burst: Bytes) -> u64 {
    scale(BitRate(burst.0), MTU_BYTES + overhead(network, arc)).0
}

/// `None`: the bursts do not settle.
pub(super) fn queues<'a>(
    network: &Network<'_>,
    admitted: impl Iterator<Item = &'a Admitted>,
) -> Option<Queues> {
    let flows = flows(admitted);
    let mut delays: BTreeMap<ArcIx, u64> = BTreeMap::new();
    for _ in 0..MAX_ROUNDS {
        let mut bursts: BTreeMap<ArcIx, u64> = BTreeMap::new();
        for flow in &flows {
            let mut grown: BTreeMap<ArcIx, u64> = BTreeMap::new();
            for route in &flow.routes {
                // Once for each time the route crosses an arc; the worst route counts.
                let mut of_route: BTreeMap<ArcIx, u64> = BTreeMap::new();
                let mut waited = 0u64;
                for &arc in route {
                    let more = u128::from(flow.rate.0) * u128::from(waited);
                    let more = u64::try_from(more.div_ceil(8_000_000_000)).unwrap_or(u64::MAX);
                    let burst = Bytes(flow.burst.0.saturating_add(more));
                    let here = of_route.entry(arc).or_default();
                    *here = here.saturating_add(framed(network, arc, burst));
                    waited = waited.saturating_add(delays.get(&arc).copied().unwrap_or(0));
                }
                for (arc, burst) in of_route {
                    let worst = grown.entry(arc).or_default();
                    *worst = burst.max(*worst);
                }
            }
            for (arc, burst) in grown {
                let sum = bursts.entry(arc).or_default();
                *sum = sum.saturating_add(burst);
            }
        }
        let limited = bursts.iter().filter_map(|(arc, burst)| {
            let rate = usable(network.capacity(*arc)?);
            Some((*arc, queue(rate, Bytes(*burst))))
        });
        let ports: BTreeMap<ArcIx, QueueDelay> = limited.collect();
        let next: BTreeMap<ArcIx, u64> =
            ports.iter().map(|(arc, queue)| (*arc, queue.nanoseconds)).collect();
        if next == delays {
            return Some(Queues { ports });
        }
        if next.values().any(|ns| *ns > LIMIT_NS) {
            return None;
        }
        delays = next;
    }
    None
}

impl Queues {
    /// A port's queue, also where no promise is yet.
    pub(super) fn at(&self, network: &Network<'_>, arc: ArcIx) -> Option<QueueDelay> {
        let rate = usable(network.capacity(arc)?);
        Some(self.ports.get(&arc).copied().unwrap_or_else(|| queue(rate, Bytes(0))))
    }

    /// What an arc would add to a path of a slice that is not in these queues yet: propagation
    /// and queueing with its burst, in nanoseconds. Close to the bound, for finding paths.
    pub(super) fn weight(&self, network: &Network<'_>, arc: ArcIx, burst: Bytes) -> u64 {
        let propagation = network.snapshot.link(arc.link()).delay.map_or(0, Delay::us);
        let waiting = self.at(network, arc).map_or(0, |now| {
            let own = framed(network, arc, burst);
            queue(now.rate, Bytes(now.bursts.0.saturating_add(own))).nanoseconds
        });
        propagation.saturating_mul(1000).saturating_add(waiting)
    }

    /// The worst bound of a slice's direction.
    pub(super) fn worst(
        &self,
        network: &Network<'_>,
        admitted: &Admitted,
        direction: Direction,
    ) -> Option<DelayBound> {
        let bounds = routes(admitted, direction).into_iter().map(|route| {
            let hooks = !admitted.slice.through.is_empty();
            self.bound(network, &route, hooks)
        });
        bounds.max_by_key(|bound| bound.total)
    }

    pub(super) fn bound(
        &self,
        network: &Network<'_>,
        route: &[ArcIx],
        through_hooks: bool,
    ) -> DelayBound {
        let hops: Vec<HopDelay> = route
            .iter()
            .map(|&arc| HopDelay {
                link: arc_name(network, arc),
                propagation: network.snapshot.link(arc.link()).delay,
                queue: self.at(network, arc),
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
        if through_hooks {
            unknown.push("the time that hooks take".to_owned());
        }
        DelayBound { hops, total: Delay(total.div_ceil(1000)), unknown }
    }
}

/// A slice whose promised latency these queues break: its name, direction and bound.
pub(super) fn broken<'a>(
    network: &Network<'_>,
    queues: Option<&Queues>,
    admitted: impl Iterator<Item = &'a Admitted>,
) -> Option<(ObjectName, Direction, Delay, Option<DelayBound>)> {
    for admitted in admitted.filter(|admitted| admitted.waived.is_none()) {
        let Some(promised) = admitted.slice.latency else { continue };
        for direction in Direction::ALL {
            let bound = match queues {
                None => None,
                Some(queues) => match queues.worst(network, admitted, direction) {
                    Some(bound) if bound.total > promised => Some(bound),
                    _ => continue,
                },
            };
            return Some((admitted.slice.name.clone(), direction, promised, bound));
        }
    }
    None
}

/// `near:port -> far:port`, in the direction of travel.
pub(super) fn arc_name(network: &Network<'_>, arc: ArcIx) -> String {
    let (near, far) = network.snapshot.ends(arc);
    format!("{near} -> {far}")
}
