//! One port's part of the equations in `bounds.rs`: what comes to it, and how long that waits.
//!
//! Sums are kept in whole numbers. Where one is only needed in whole bytes, it is taken in
//! floating point first: mostly that says which byte it is for certain, and otherwise the sum is
//! taken again in whole numbers.

use std::collections::BTreeMap;
use std::sync::Arc;

use selvedge_topology::sorted::Sorted;
use selvedge_topology::{ArcIx, BitRate, Bytes};

use super::books::Slot;
use super::bounds::Values;
use super::delay::queue;
use crate::Direction;
use crate::limits::MTU_BYTES;

pub(super) const NS_PER_BYTE_AT_1_BPS: u64 = 8_000_000_000;

/// Relative error of a sum in floating point, with room: each of its terms adds at most 2^-53.
pub(super) const ROUNDING: f64 = 1e-11;

/// One direction of one slice.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) rate: BitRate,
    pub(super) burst: Bytes,
    /// Arcs in order, the link to the endpoint last.
    pub(super) routes: Vec<Vec<ArcIx>>,
}

/// What a way brings to a port: its burst as often as it crosses, and what arrives while it
/// waits at the ports before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Arrival {
    crossings: u64,
    /// By arc: how often it has waited there, over all crossings.
    waited: Vec<(u32, u64)>,
}

/// Several ways to one port, of which the worst counts for each flow that has them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ways {
    arrivals: Arc<[Arrival]>,
    /// Of one flow: where it crosses the port more often on one way than on another, its burst
    /// says which is the worst. Otherwise that is the same one for all flows.
    own: Option<(Slot, Direction)>,
}

impl Ways {
    fn new(of: (Slot, Direction), mut arrivals: Vec<Arrival>) -> Self {
        arrivals.sort_unstable();
        let same = arrivals.iter().all(|arrival| arrival.crossings == arrivals[0].crossings);
        Self { arrivals: arrivals.into(), own: (!same).then_some(of) }
    }
}

/// Of the flows that have the same ways.
#[derive(Clone, Debug, Default, PartialEq)]
struct Sums {
    flows: usize,
    /// In bit/s.
    rate: u64,
    burst: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Port {
    /// What it drains at; `None`: it does not limit.
    pub(super) rate: Option<BitRate>,
    /// Bytes on the wire of a full packet.
    frame: u64,
    /// What stands there without a burst, in bytes: the threshold and one frame.
    base: u64,
    /// How long that takes to send.
    pub(super) empty_ns: u64,
    /// The same in floating point, and what each byte of the user's adds.
    empty: f64,
    ns_per_byte: f64,
    pub(super) flows: usize,
    /// The user's bytes.
    burst: u64,
    /// By arc: the sum of the rates, in bit/s. Whole numbers, below 2^53.
    upstream: Vec<(u32, f64)>,
    choices: Sorted<Ways, Sums>,
}

impl Port {
    /// For a link of which so much may be promised, whose full packets take so many bytes.
    pub(super) fn set(&mut self, rate: Option<BitRate>, frame: u64) {
        let empty = queue(rate.unwrap_or_default(), Bytes(0));
        (self.rate, self.frame) = (rate, frame);
        self.base = empty.threshold.0 + empty.frame.0;
        self.empty_ns = rate.map_or(0, |_| empty.nanoseconds);
        let ns_per_byte =
            rate.map_or(0.0, |rate| NS_PER_BYTE_AT_1_BPS as f64 / rate.0.max(1) as f64);
        self.empty = self.base as f64 * ns_per_byte;
        self.ns_per_byte = ns_per_byte * frame as f64 / MTU_BYTES as f64;
    }

    pub(super) fn enter(&mut self, of: (Slot, Direction), flow: &Flow, arrives: Arrives<'_>) {
        self.flows += 1;
        match arrives {
            Arrives::Once(before) => self.take(flow, 1, each(before), true),
            Arrives::Ways(arrivals) => match <[Arrival; 1]>::try_from(arrivals) {
                Ok([Arrival { crossings, waited }]) => self.take(flow, crossings, waited, true),
                Err(arrivals) => {
                    let ways = Ways::new(of, arrivals);
                    let mut sums = self.choices.get(&ways).cloned().unwrap_or_default();
                    sums.flows += 1;
                    sums.rate += flow.rate.0;
                    sums.burst += flow.burst.0;
                    self.choices.insert(ways, sums);
                }
            },
        }
    }

    /// Takes back what [`Self::enter`] was given.
    pub(super) fn leave(&mut self, of: (Slot, Direction), flow: &Flow, arrives: Arrives<'_>) {
        self.flows -= 1;
        match arrives {
            Arrives::Once(before) => self.take(flow, 1, each(before), false),
            Arrives::Ways(arrivals) => match <[Arrival; 1]>::try_from(arrivals) {
                Ok([Arrival { crossings, waited }]) => self.take(flow, crossings, waited, false),
                Err(arrivals) => {
                    let ways = Ways::new(of, arrivals);
                    let sums = self.choices.get_mut(&ways).expect("what is removed was added");
                    sums.flows -= 1;
                    sums.rate -= flow.rate.0;
                    sums.burst -= flow.burst.0;
                    if sums.flows == 0 {
                        self.choices.remove(&ways);
                    }
                }
            },
        }
    }

    /// How often the worst of several ways has to be found.
    pub(super) fn choices(&self) -> usize {
        self.choices.len()
    }

    fn take(
        &mut self,
        flow: &Flow,
        crossings: u64,
        waited: impl IntoIterator<Item = (u32, u64)>,
        add: bool,
    ) {
        let burst = flow.burst.0 * crossings;
        self.burst = if add { self.burst + burst } else { self.burst - burst };
        for (arc, times) in waited {
            let rate = (flow.rate.0 * times) as f64;
            match (self.upstream.binary_search_by_key(&arc, |(arc, _)| *arc), add) {
                (Ok(at), true) => self.upstream[at].1 += rate,
                (Err(at), true) => self.upstream.insert(at, (arc, rate)),
                (Ok(at), false) => {
                    self.upstream[at].1 -= rate;
                    if self.upstream[at].1 == 0.0 {
                        self.upstream.remove(at);
                    }
                }
                (Err(_), false) => unreachable!("what is removed was added"),
            }
        }
    }

    /// The user's bytes that can come at once, under these values.
    pub(super) fn bursts(&self, values: &Values) -> u64 {
        let value = |arc: u32| values.ns[arc as usize];
        let mut bursts = self.burst.saturating_add(self.upstream_bytes(values));
        for (ways, sums) in &self.choices {
            let of = |arrival: &Arrival| {
                let waited = arrival
                    .waited
                    .iter()
                    .map(|(arc, times)| u128::from(*times) * u128::from(value(*arc)));
                let more = bytes(waited.sum::<u128>() * u128::from(sums.rate));
                (sums.burst * arrival.crossings).saturating_add(more)
            };
            let worst = ways.arrivals.iter().map(of).max().unwrap_or(0);
            bursts = bursts.saturating_add(worst);
        }
        bursts
    }

    /// What arrives while flows wait at the ports before, in bytes, rounded up.
    fn upstream_bytes(&self, values: &Values) -> u64 {
        let about = self.upstream_bits(|arc| values.float[arc as usize]);
        let about = about / NS_PER_BYTE_AT_1_BPS as f64;
        let least = (about * (1.0 - ROUNDING)).ceil();
        if least == (about * (1.0 + ROUNDING)).ceil() && least < u64::MAX as f64 {
            return least as u64;
        }
        let bits = |sum: u128, (arc, rate): &(u32, f64)| {
            sum + u128::from(*rate as u64) * u128::from(values.ns[*arc as usize])
        };
        bytes(self.upstream.iter().fold(0, bits))
    }

    /// Bit/s times nanoseconds. In four sums, which a processor takes at once.
    pub(super) fn upstream_bits(&self, value: impl Fn(u32) -> f64) -> f64 {
        let (fours, rest) = self.upstream.as_chunks::<4>();
        let mut sums = [0.0; 4];
        for four in fours {
            for (sum, (arc, rate)) in sums.iter_mut().zip(four) {
                *sum += rate * value(*arc);
            }
        }
        let rest: f64 = rest.iter().map(|(arc, rate)| rate * value(*arc)).sum();
        (sums[0] + sums[1]) + (sums[2] + sums[3]) + rest
    }

    pub(super) fn bursts_float(&self, value: impl Fn(u32) -> f64) -> f64 {
        let bits = self.upstream_bits(&value);
        let mut bursts = self.burst as f64 + bits / NS_PER_BYTE_AT_1_BPS as f64;
        for (ways, sums) in &self.choices {
            let of = |arrival: &Arrival| {
                let waited = arrival.waited.iter();
                let waited: f64 = waited.map(|(arc, n)| *n as f64 * value(*arc)).sum();
                (sums.burst * arrival.crossings) as f64
                    + waited * sums.rate as f64 / NS_PER_BYTE_AT_1_BPS as f64
            };
            bursts += ways.arrivals.iter().map(of).fold(0.0, f64::max);
        }
        bursts
    }

    /// The user's bytes as frames, rounded up.
    pub(super) fn framed(&self, bytes: u64) -> u64 {
        if let Some(all) = bytes.checked_mul(self.frame) {
            return all.div_ceil(MTU_BYTES);
        }
        let frames = (u128::from(bytes) * u128::from(self.frame)).div_ceil(u128::from(MTU_BYTES));
        u64::try_from(frames).unwrap_or(u64::MAX)
    }

    /// Nanoseconds with these bytes of the user's, rounded up as in [`queue`].
    pub(super) fn nanoseconds(&self, bursts: u64) -> u64 {
        let Some(rate) = self.rate else { return 0 };
        let frames = self.framed(bursts);
        let all = frames.checked_add(self.base);
        match all.and_then(|all| all.checked_mul(NS_PER_BYTE_AT_1_BPS)) {
            Some(ns) => ns.div_ceil(rate.0.max(1)),
            None => queue(rate, Bytes(frames)).nanoseconds,
        }
    }

    pub(super) fn queueing_after(&self, value: impl Fn(u32) -> f64) -> f64 {
        self.queueing(self.bursts_float(value))
    }

    /// Nanoseconds with these bytes of the user's.
    pub(super) fn queueing(&self, bursts: f64) -> f64 {
        bursts * self.ns_per_byte + self.empty
    }

    /// Nanoseconds that come on top where the ports before take so much longer.
    pub(super) fn more(&self, value: impl Fn(u32) -> f64) -> f64 {
        self.upstream_bits(value) / NS_PER_BYTE_AT_1_BPS as f64 * self.ns_per_byte
    }
}

/// What arrives in some nanoseconds times bit/s, in bytes, rounded up.
fn bytes(bits: u128) -> u64 {
    if let Ok(bits) = u64::try_from(bits) {
        return bits.div_ceil(NS_PER_BYTE_AT_1_BPS);
    }
    u64::try_from(bits.div_ceil(u128::from(NS_PER_BYTE_AT_1_BPS))).unwrap_or(u64::MAX)
}

/// What a flow brings to an arc.
pub(super) enum Arrives<'a> {
    /// Once, on one way: what it has waited at before.
    Once(&'a [ArcIx]),
    /// Several times or on several ways: every different arrival once.
    Ways(Vec<Arrival>),
}

/// Once each, as [`Arrival::waited`].
fn each(before: &[ArcIx]) -> impl Iterator<Item = (u32, u64)> {
    before.iter().map(|arc| (arc.index() as u32, 1))
}

/// What the routes bring to each arc, in no order.
pub(super) fn arrivals(routes: &[Vec<ArcIx>]) -> Vec<(ArcIx, Arrives<'_>)> {
    let mut crossed: Vec<ArcIx> = routes.iter().flatten().copied().collect();
    crossed.sort_unstable();
    let is_once = |arc: &ArcIx| {
        let at = crossed.partition_point(|other| other < arc);
        crossed.get(at + 1) != Some(arc)
    };
    let mut all = Vec::with_capacity(crossed.len());
    let mut ways: BTreeMap<ArcIx, Vec<Arrival>> = BTreeMap::new();
    for route in routes {
        for (i, arc) in route.iter().enumerate() {
            if is_once(arc) {
                all.push((*arc, Arrives::Once(&route[..i])));
                continue;
            }
            if route[..i].contains(arc) {
                continue; // its crossings count at the first
            }
            let mut arrival = Arrival { crossings: 0, waited: Vec::new() };
            let crossings = (i..route.len()).filter(|at| route[*at] == *arc);
            for at in crossings {
                arrival.crossings += 1;
                for before in &route[..at] {
                    let before = before.index() as u32;
                    let waited = &mut arrival.waited;
                    match waited.iter_mut().find(|(arc, _)| *arc == before) {
                        Some((_, times)) => *times += 1,
                        None => waited.push((before, 1)),
                    }
                }
            }
            arrival.waited.sort_unstable();
            let known = ways.entry(*arc).or_default();
            if !known.contains(&arrival) {
                known.push(arrival);
            }
        }
    }
    all.extend(ways.into_iter().map(|(arc, arrivals)| (arc, Arrives::Ways(arrivals))));
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Of sums that come close to a whole number of bytes, too, on ports of every speed.
        #[test]
        fn short_cuts_round_as_whole_numbers_do(
            rates in proptest::collection::vec(1u64..1 << 45, 0..40),
            waits in proptest::collection::vec(0u64..1 << 40, 40),
            (near, off) in (any::<bool>(), 0u64..3),
            rate in 0u64..1 << 45,
            bursts in prop_oneof![0u64..1 << 40, any::<u64>()],
        ) {
            let mut waits = waits;
            let upstream: Vec<(u32, f64)> = (0..).zip(&rates).map(|(i, r)| (i, *r as f64)).collect();
            let sum = |waits: &[u64]| -> u128 {
                rates.iter().zip(waits).map(|(r, w)| u128::from(*r) * u128::from(*w)).sum()
            };
            let mut port = Port { upstream, ..Port::default() };
            if near && !rates.is_empty() {
                // One bit/s waits for what is missing to a whole byte, or a little less or more.
                port.upstream.push((rates.len() as u32, 1.0));
                let all = sum(&waits);
                let per_byte = u128::from(NS_PER_BYTE_AT_1_BPS);
                let missing = all.next_multiple_of(per_byte) - all;
                waits.insert(rates.len(), missing as u64 + off);
                let all = all + missing + u128::from(off);
                prop_assert_eq!(port.bursts(&Values::of(waits.clone())), all.div_ceil(per_byte) as u64);
            } else {
                let bytes = sum(&waits).div_ceil(u128::from(NS_PER_BYTE_AT_1_BPS));
                prop_assert_eq!(port.bursts(&Values::of(waits.clone())), bytes as u64);
            }
            port.set(Some(BitRate(rate)), 1554);
            let frames = (u128::from(bursts) * 1554).div_ceil(1500);
            let frames = u64::try_from(frames).unwrap_or(u64::MAX);
            let slow = queue(BitRate(rate), Bytes(frames)).nanoseconds;
            prop_assert_eq!(port.nanoseconds(bursts), slow);
        }
    }
}
