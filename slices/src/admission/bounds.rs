//! The worst queueing of every port, kept up to date as flows come and go.
//!
//! The bursts that meet at a port are a linear form of the queueings before it: each flow brings
//! its own burst and its rate times what it has waited. So a port keeps two things, whatever the
//! number of flows: the sum of bursts, and for each port upstream the sum of the rates that come
//! from there. Only where a slice has several ways to one port, and the worst of them counts,
//! does it keep them apart ([`Choice`]).
//!
//! The bounds are the least solution of these equations, in whole nanoseconds. Whether promises
//! hold is mostly decided without it: any values that the equations do not raise are not below
//! the least solution, so promises that such values keep are kept. They are guessed from the
//! last solution in floating point and checked with room for every rounding. Only where that
//! leaves a promise in doubt is the least solution computed.

use std::collections::BTreeMap;
use std::sync::Arc;

use selvedge_topology::{ArcIx, BitRate, Bytes};

use super::books::Slot;
use super::delay::{LIMIT_NS, QueueDelay, Watch, queue};
use super::{Network, Watches, overhead, usable};
use crate::Direction;
use crate::limits::MTU_BYTES;

const NS_PER_BYTE_AT_1_BPS: u64 = 8_000_000_000;
/// Passes of a search in floating point. Equations this close to having no solution have none
/// that is of use.
const MAX_PASSES: usize = 20_000;
/// Between passes that look whether there is a solution at all.
const CHECK_EVERY: usize = 16;

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
struct Arrival {
    crossings: u64,
    /// By arc: how often it has waited there, over all crossings.
    waited: Vec<(u32, u64)>,
}

/// A slice's ways to one port; the worst counts.
#[derive(Clone, Debug)]
struct Choice {
    of: (Slot, Direction),
    rate: BitRate,
    burst: Bytes,
    arrivals: Vec<Arrival>,
}

#[derive(Clone, Debug, Default)]
struct Port {
    /// What it drains at; `None`: it does not limit.
    rate: Option<BitRate>,
    /// Bytes on the wire of a full packet.
    frame: u64,
    /// What stands there without a burst, in bytes: the threshold and one frame.
    base: u64,
    /// How long that takes to send.
    empty_ns: u64,
    flows: usize,
    /// The user's bytes.
    burst: u64,
    /// By arc: the sum of the rates, in bit/s. Whole numbers, below 2^53.
    upstream: Vec<(u32, f64)>,
    choices: Vec<Choice>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Bounds {
    ports: Vec<Arc<Port>>,
    /// Ports that flows pass and that limit.
    active: Vec<u32>,
    /// Not above the least solution, in ns: the last one, if flows were only added since.
    low: Vec<u64>,
    /// Close to the least solution.
    guess: Vec<f64>,
    /// Values that the equations do not raise and that keep every promise. A flow that is added
    /// changes the equations of its own ports only, one that leaves raises nothing: so these
    /// mostly stay good for many decisions.
    verified: Option<Vec<u64>>,
    /// The least solution, where it is known; `Some(None)`: there is none.
    settled: Option<Option<Vec<u64>>>,
}

impl Bounds {
    pub(super) fn prepare(&mut self, network: &Network<'_>) {
        let slots = network.snapshot.arc_slots();
        self.ports.resize_with(slots, Arc::default);
        let links = (0..).map(selvedge_topology::LinkIx).take(slots / 2);
        for arc in links.flat_map(|link| [true, false].map(|a_to_b| ArcIx::new(link, a_to_b))) {
            let rate = network.capacity(arc).map(usable);
            let empty = queue(rate.unwrap_or_default(), Bytes(0));
            let port = Arc::make_mut(&mut self.ports[arc.index()]);
            port.rate = rate;
            port.frame = MTU_BYTES + overhead(network, arc);
            port.base = empty.threshold.0 + empty.frame.0;
            port.empty_ns = rate.map_or(0, |_| empty.nanoseconds);
        }
        self.low = vec![0; slots];
        self.guess = vec![0.0; slots];
        (self.verified, self.settled) = (None, None);
        self.active.clear();
        for (arc, port) in (0..).zip(&self.ports) {
            if port.flows > 0 && port.rate.is_some() {
                self.active.push(arc);
            }
        }
    }

    pub(super) fn add(&mut self, of: (Slot, Direction), flow: &Flow) {
        for (arc, arrivals) in arrivals(&flow.routes) {
            let port = Arc::make_mut(&mut self.ports[arc.index()]);
            port.flows += 1;
            if port.flows == 1 && port.rate.is_some() {
                self.active.push(arc.index() as u32);
                let empty = port.queueing(0.0);
                self.guess[arc.index()] = self.guess[arc.index()].max(empty);
            }
            match <[Arrival; 1]>::try_from(arrivals) {
                Ok([arrival]) => port.take(flow, &arrival, true),
                Err(arrivals) => {
                    let (rate, burst) = (flow.rate, flow.burst);
                    port.choices.push(Choice { of, rate, burst, arrivals });
                }
            }
        }
        self.settled = None;
    }

    /// Takes back what [`Self::add`] was given.
    pub(super) fn remove(&mut self, of: (Slot, Direction), flow: &Flow) {
        for (arc, arrivals) in arrivals(&flow.routes) {
            let port = Arc::make_mut(&mut self.ports[arc.index()]);
            port.flows -= 1;
            if port.flows == 0 {
                self.active.retain(|active| *active as usize != arc.index());
                self.guess[arc.index()] = 0.0;
            }
            match &arrivals[..] {
                [arrival] => port.take(flow, arrival, false),
                _ => {
                    let at = port.choices.iter().position(|choice| choice.of == of);
                    port.choices.swap_remove(at.expect("what is removed was added"));
                }
            }
        }
        self.low.iter_mut().for_each(|low| *low = 0);
        self.settled = None;
    }

    /// A place to come back to with [`Self::restore`], when a flow is only tried.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            low: self.low.clone(),
            guess: self.guess.clone(),
            verified: self.verified.clone(),
            settled: self.settled.clone(),
        }
    }

    pub(super) fn restore(&mut self, mark: Mark) {
        let Mark { low, guess, verified, settled } = mark;
        (self.low, self.guess) = (low, guess);
        (self.verified, self.settled) = (verified, settled);
    }

    /// For flows or promises that were added without [`Self::surely`].
    pub(super) fn forget(&mut self) {
        self.verified = None;
    }

    /// Whether a promise is broken already by what the queues are at least.
    pub(super) fn surely_late(&self, promise: &Watch) -> bool {
        let mut least = self.empty();
        least.iter_mut().zip(&self.low).for_each(|(least, low)| *least = (*least).max(*low));
        promise.broken(&least).is_some()
    }

    /// Whether values that are not below the bounds are known under which all these promises
    /// hold. `touched`: the ports of the flows that were added since this was last `true`, and
    /// `added` their promise. `false` says nothing: the bounds themselves may be less.
    pub(super) fn surely(
        &mut self,
        touched: &[ArcIx],
        added: Option<&Watch>,
        watches: &Watches,
    ) -> bool {
        if let Some(values) = &self.verified {
            let touched = touched.iter().map(|arc| arc.index() as u32);
            let kept = added.is_none_or(|watch| watch.broken(values).is_none());
            if kept && self.not_raised(values, touched) {
                return true;
            }
        }
        let mut least = self.empty();
        least.iter_mut().zip(&self.low).for_each(|(least, low)| *least = (*least).max(*low));
        if added.is_some_and(|watch| watch.broken(&least).is_some()) {
            return false;
        }
        for more in [5e-2, 1e-2, 1e-3, 1e-4, 1e-6] {
            for _ in 0..6 {
                self.pass();
                if self.is_lost() {
                    self.guess.fill(0.0);
                    return false;
                }
                let mut above = self.empty();
                for &arc in &self.active {
                    let value = self.guess[arc as usize] * (1.0 + more) + 64.0;
                    above[arc as usize] = value as u64 + 1;
                }
                if self.not_raised(&above, self.active.iter().copied()) {
                    let kept = |watch: &Watch| watch.broken(&above).is_none();
                    if watches.values().map(Arc::as_ref).chain(added).all(kept) {
                        self.verified = Some(above);
                        return true;
                    }
                    break;
                }
            }
        }
        false
    }

    /// The queueing of every port without a burst.
    fn empty(&self) -> Vec<u64> {
        self.ports.iter().map(|port| port.empty_ns).collect()
    }

    /// The bounds, in ns by arc; `None` when bursts grow without limit.
    pub(super) fn settle(&mut self) -> Option<&[u64]> {
        if self.settled.is_none() {
            let settled = self.solve();
            match &settled {
                Some(settled) => {
                    self.low.clone_from(settled);
                    for &arc in &self.active {
                        self.guess[arc as usize] = settled[arc as usize] as f64;
                    }
                }
                // A guess from which nothing comes down again.
                None => self.guess.fill(0.0),
            }
            self.settled = Some(settled);
        }
        self.settled.as_ref()?.as_deref()
    }

    /// A port's queue under these values, term by term; `None`: it does not limit.
    pub(super) fn queue(&self, values: &[u64], arc: ArcIx) -> Option<QueueDelay> {
        let port = &self.ports[arc.index()];
        Some(queue(port.rate?, Bytes(port.framed(port.bursts(values)))))
    }

    /// What a flow with this burst would wait at a port now.
    pub(super) fn with_burst(&self, values: &[u64], arc: ArcIx, burst: Bytes) -> u64 {
        let port = &self.ports[arc.index()];
        let Some(rate) = port.rate else { return 0 };
        let bursts = port.bursts(values).saturating_add(burst.0);
        queue(rate, Bytes(port.framed(bursts))).nanoseconds
    }

    /// The equations once, in floating point and in place; the largest relative change.
    fn pass(&mut self) -> f64 {
        let mut changed = 0f64;
        for &arc in &self.active {
            let guess = |arc: u32| self.guess[arc as usize];
            let next = self.ports[arc as usize].queueing_after(guess);
            let before = std::mem::replace(&mut self.guess[arc as usize], next);
            changed = changed.max((next - before).abs() / next.max(1.0));
        }
        changed
    }

    /// Whether the equations raise none of these values, for certain: sums of numbers that are
    /// not negative have a relative error of at most 2^-53 for each, and rounding up adds less
    /// than two bytes for each choice and five in all.
    fn not_raised(&self, values: &[u64], mut ports: impl Iterator<Item = u32>) -> bool {
        let value = |arc: u32| values[arc as usize] as f64;
        ports.all(|arc| {
            let port = &self.ports[arc as usize];
            if port.rate.is_none() {
                return true;
            }
            let rounding = 5.0 + 2.0 * port.choices.len() as f64;
            let bursts = port.bursts_float(value) * (1.0 + 1e-11) + rounding;
            let after = port.queueing(bursts) * (1.0 + 1e-11) + 1.0;
            after <= value(arc)
        })
    }

    /// The least solution: close by floating point, then up to it in whole numbers from values
    /// that are certainly not above it.
    fn solve(&mut self) -> Option<Vec<u64>> {
        let mut before = self.guess.clone();
        for passes in 1.. {
            let changed = self.pass();
            if self.is_lost() || passes > MAX_PASSES {
                return None;
            }
            if changed < 1e-11 {
                break;
            }
            if passes % CHECK_EVERY == 0 && self.grows_forever(&before) {
                return None;
            }
            before.clone_from(&self.guess);
        }
        let mut values = self.start();
        loop {
            let mut changed = false;
            for &arc in &self.active {
                let port = &self.ports[arc as usize];
                let rate = port.rate.expect("active ports limit");
                let next = queue(rate, Bytes(port.framed(port.bursts(&values)))).nanoseconds;
                let value = &mut values[arc as usize];
                if next > *value {
                    (*value, changed) = (next, true);
                }
                if next > LIMIT_NS {
                    return None;
                }
            }
            if !changed {
                return Some(values);
            }
        }
    }

    /// Whether the guess is beyond every bound.
    fn is_lost(&self) -> bool {
        self.active.iter().any(|arc| self.guess[*arc as usize] > 2.0 * LIMIT_NS as f64)
    }

    /// Values not above the least solution: those that the equations, without any rounding up,
    /// do not lower are below it, as there is no more than one solution.
    fn start(&self) -> Vec<u64> {
        for less in [1e-7, 1e-6, 1e-5, 1e-4] {
            let mut values = self.empty();
            for &arc in &self.active {
                values[arc as usize] = (self.guess[arc as usize] * (1.0 - less)) as u64;
            }
            let value = |arc: u32| values[arc as usize] as f64;
            let not_lowered = self.active.iter().all(|&arc| {
                let after = self.ports[arc as usize].queueing_after(value) * (1.0 - 1e-11);
                after >= value(arc)
            });
            if not_lowered {
                return values;
            }
        }
        let mut values = self.empty();
        for &arc in &self.active {
            values[arc as usize] = self.low[arc as usize];
        }
        values
    }

    /// Whether the equations, applied to what the last pass changed, give at least that back on
    /// some ports: then it comes back for ever, and there is no solution (Collatz and Wielandt).
    fn grows_forever(&self, before: &[f64]) -> bool {
        let change: Vec<f64> =
            self.guess.iter().zip(before).map(|(now, before)| (now - before).max(0.0)).collect();
        let most = change.iter().copied().fold(0.0, f64::max);
        let strong: Vec<f64> =
            change.iter().map(|c| if *c >= most * 1e-3 { *c } else { 0.0 }).collect();
        let back = |arc: u32| {
            let port = &self.ports[arc as usize];
            let bits: f64 = port.upstream.iter().map(|(a, r)| r * strong[*a as usize]).sum();
            let rate = port.rate.map_or(f64::INFINITY, |rate| rate.0 as f64);
            bits * port.frame as f64 / MTU_BYTES as f64 / rate
        };
        let mut on = self.active.iter().filter(|arc| strong[**arc as usize] > 0.0).peekable();
        on.peek().is_some() && on.all(|arc| back(*arc) > strong[*arc as usize] * (1.0 + 1e-9))
    }
}

pub(super) struct Mark {
    low: Vec<u64>,
    guess: Vec<f64>,
    verified: Option<Vec<u64>>,
    settled: Option<Option<Vec<u64>>>,
}

impl Port {
    fn take(&mut self, flow: &Flow, arrival: &Arrival, add: bool) {
        let burst = flow.burst.0 * arrival.crossings;
        self.burst = if add { self.burst + burst } else { self.burst - burst };
        for (arc, times) in &arrival.waited {
            let rate = (flow.rate.0 * times) as f64;
            match (self.upstream.binary_search_by_key(arc, |(arc, _)| *arc), add) {
                (Ok(at), true) => self.upstream[at].1 += rate,
                (Err(at), true) => self.upstream.insert(at, (*arc, rate)),
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
    fn bursts(&self, values: &[u64]) -> u64 {
        let bits = |sum: u128, (arc, rate): &(u32, f64)| {
            sum + u128::from(*rate as u64) * u128::from(values[*arc as usize])
        };
        let mut bursts = self.burst.saturating_add(bytes(self.upstream.iter().fold(0, bits)));
        for choice in &self.choices {
            let of = |arrival: &Arrival| {
                let waited = arrival
                    .waited
                    .iter()
                    .map(|(arc, times)| u128::from(*times) * u128::from(values[*arc as usize]));
                let more = bytes(waited.sum::<u128>() * u128::from(choice.rate.0));
                (choice.burst.0 * arrival.crossings).saturating_add(more)
            };
            let worst = choice.arrivals.iter().map(of).max().unwrap_or(0);
            bursts = bursts.saturating_add(worst);
        }
        bursts
    }

    fn bursts_float(&self, value: impl Fn(u32) -> f64) -> f64 {
        let mut bits = 0.0;
        for (arc, rate) in &self.upstream {
            bits += rate * value(*arc);
        }
        let mut bursts = self.burst as f64 + bits / NS_PER_BYTE_AT_1_BPS as f64;
        for choice in &self.choices {
            let of = |arrival: &Arrival| {
                let waited = arrival.waited.iter();
                let waited: f64 = waited.map(|(arc, n)| *n as f64 * value(*arc)).sum();
                (choice.burst.0 * arrival.crossings) as f64
                    + waited * choice.rate.0 as f64 / NS_PER_BYTE_AT_1_BPS as f64
            };
            bursts += choice.arrivals.iter().map(of).fold(0.0, f64::max);
        }
        bursts
    }

    /// The user's bytes as frames, rounded up.
    fn framed(&self, bytes: u64) -> u64 {
        let frames = (u128::from(bytes) * u128::from(self.frame)).div_ceil(u128::from(MTU_BYTES));
        u64::try_from(frames).unwrap_or(u64::MAX)
    }

    fn queueing_after(&self, value: impl Fn(u32) -> f64) -> f64 {
        self.queueing(self.bursts_float(value))
    }

    /// Nanoseconds with these bytes of the user's.
    fn queueing(&self, bursts: f64) -> f64 {
        let frames = bursts * self.frame as f64 / MTU_BYTES as f64;
        let rate = self.rate.map_or(f64::INFINITY, |rate| rate.0.max(1) as f64);
        (frames + self.base as f64) * NS_PER_BYTE_AT_1_BPS as f64 / rate
    }
}

/// What arrives in some nanoseconds times bit/s, in bytes, rounded up.
fn bytes(bits: u128) -> u64 {
    u64::try_from(bits.div_ceil(u128::from(NS_PER_BYTE_AT_1_BPS))).unwrap_or(u64::MAX)
}

/// What the routes bring to each arc, every different arrival once.
fn arrivals(routes: &[Vec<ArcIx>]) -> BTreeMap<ArcIx, Vec<Arrival>> {
    let mut all: BTreeMap<ArcIx, Vec<Arrival>> = BTreeMap::new();
    for route in routes {
        for (i, arc) in route.iter().enumerate() {
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
            let known = all.entry(*arc).or_default();
            if !known.contains(&arrival) {
                known.push(arrival);
            }
        }
    }
    all
}
