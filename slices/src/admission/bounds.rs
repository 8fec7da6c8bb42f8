//! The worst queueing of every port, kept up to date as flows come and go.
//!
//! The bursts that meet at a port are a linear form of the queueings before it: each flow brings
//! its own burst and its rate times what it has waited. So a port keeps two things, whatever the
//! number of flows: the sum of bursts, and for each port upstream the sum of the rates that come
//! from there. Only where a slice has several ways to one port, and the worst of them counts,
//! does it keep it apart, with those that have the same ways (`Ways` in port.rs).
//!
//! The bounds are the least solution of these equations, in whole nanoseconds. Whether promises
//! hold is mostly decided without it: any values that the equations do not raise are not below
//! the least solution, so promises that such values keep are kept. They are guessed from the
//! last solution in floating point and checked with room for every rounding. Only where that
//! leaves a promise in doubt is the least solution computed.

use std::sync::{Arc, OnceLock};

use selvedge_topology::{ArcIx, Bytes, Delay, NodeIx, Path};

use super::books::Slot;
use super::delay::{LIMIT_NS, QueueDelay, queue};
use super::port::{Flow, Port, ROUNDING, arrivals};
use super::route::shortest;
use super::watch::{Watch, Watches};
use super::{Network, overhead, usable};
use crate::Direction;
use crate::limits::MTU_BYTES;

/// Passes of a search in floating point. Equations this close to having no solution have none
/// that is of use.
const MAX_PASSES: usize = 20_000;
/// Parts of a guess that are added to it, for values that are certainly not too small.
const SLACKS: [f64; 5] = [5e-2, 1e-2, 1e-3, 1e-4, 1e-6];
/// Passes from the last solution towards the least one, in whole numbers.
const RAISES: usize = 2;
/// Between passes that look whether there is a solution at all.
const CHECK_EVERY: usize = 16;

/// The queueing of every port, in ns by arc.
#[derive(Clone, Debug)]
pub(super) struct Values {
    pub(super) ns: Vec<u64>,
    /// The same, for sums: to convert it each time takes longer than the sum.
    pub(super) float: Vec<f64>,
}

impl Values {
    pub(super) fn of(ns: Vec<u64>) -> Self {
        let float = ns.iter().map(|ns| *ns as f64).collect();
        Self { ns, float }
    }

    fn set(&mut self, arc: u32, ns: u64) {
        (self.ns[arc as usize], self.float[arc as usize]) = (ns, ns as f64);
    }
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
    /// Which of [`SLACKS`] was right last.
    slack: usize,
    /// Values that the equations do not raise and that keep every promise. A flow that is added
    /// changes the equations of its own ports only, one that leaves raises nothing: so these
    /// mostly stay good for many decisions.
    verified: Option<Values>,
    /// The least solution, where it is known; `Some(None)`: there is none.
    settled: Option<Option<Settled>>,
}

/// The least solution.
#[derive(Clone, Debug)]
struct Settled {
    values: Values,
    /// What can come at once to each port, by arc, once that was asked for.
    bursts: OnceLock<Arc<[Bytes]>>,
}

impl Bounds {
    pub(super) fn prepare(&mut self, network: &Network<'_>) {
        let slots = network.snapshot.arc_slots();
        self.ports.resize_with(slots, Arc::default);
        let links = (0..).map(selvedge_topology::LinkIx).take(slots / 2);
        for arc in links.flat_map(|link| [true, false].map(|a_to_b| ArcIx::new(link, a_to_b))) {
            let rate = network.capacity(arc).map(usable);
            let port = Arc::make_mut(&mut self.ports[arc.index()]);
            port.set(rate, MTU_BYTES + overhead(network, arc));
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
        for (arc, arrives) in arrivals(&flow.routes) {
            let port = Arc::make_mut(&mut self.ports[arc.index()]);
            port.enter(of, flow, arrives);
            if port.flows == 1 && port.rate.is_some() {
                self.active.push(arc.index() as u32);
                let empty = port.queueing(0.0);
                self.guess[arc.index()] = self.guess[arc.index()].max(empty);
            }
        }
        self.settled = None;
    }

    /// Takes back what [`Self::add`] was given.
    pub(super) fn remove(&mut self, of: (Slot, Direction), flow: &Flow) {
        for (arc, arrives) in arrivals(&flow.routes) {
            let port = Arc::make_mut(&mut self.ports[arc.index()]);
            port.leave(of, flow, arrives);
            if port.flows == 0 {
                self.active.retain(|active| *active as usize != arc.index());
                self.guess[arc.index()] = 0.0;
            }
        }
        self.low.iter_mut().for_each(|low| *low = 0);
        self.settled = None;
    }

    /// A place to come back to with [`Self::restore`], when a flow is only tried. What is verified
    /// without it stays so.
    pub(super) fn mark(&mut self) -> Mark {
        let (low, guess) = (self.low.clone(), self.guess.clone());
        Mark { low, guess, settled: self.settled.take() }
    }

    /// The guess stays if it is one: a flow more or less changes little.
    pub(super) fn restore(&mut self, mark: Mark) {
        let Mark { low, guess, settled } = mark;
        self.low = low;
        if self.guess.iter().all(|guess| *guess == 0.0) {
            self.guess = guess;
        }
        self.settled = settled;
    }

    /// For flows or promises that were added without [`Self::surely`].
    pub(super) fn forget(&mut self) {
        self.verified = None;
    }

    /// Whether a promise is broken already by what the queues are at least.
    pub(super) fn surely_late(&self, promise: &Watch) -> bool {
        promise.broken(Some(&self.at_least())).is_some()
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
            let kept = added.is_none_or(|watch| watch.broken(Some(values)).is_none());
            if kept && self.not_raised(values, touched) {
                return true;
            }
        }
        // Mostly the first guess shows that they do. If not, what queues are at least often shows
        // that they do not: at once where that is known well, as nothing has left since.
        let mut in_doubt = self.low.iter().any(|low| *low > 0);
        if in_doubt && !kept(added, watches, &self.raised()) {
            return false;
        }
        // One step wider than the last: what is verified with room stays so for longer.
        for (slack, more) in SLACKS.iter().enumerate().skip(self.slack.saturating_sub(1)) {
            for _ in 0..6 {
                self.pass();
                if self.is_lost() {
                    self.guess.fill(0.0);
                    return false;
                }
                let mut above = Values::of(self.empty());
                for &arc in &self.active {
                    let value = self.guess[arc as usize] * (1.0 + more) + 64.0;
                    above.set(arc, value as u64 + 1);
                }
                if self.not_raised(&above, self.active.iter().copied()) {
                    if kept(added, watches, &above) {
                        (self.verified, self.slack) = (Some(above), slack);
                        return true;
                    }
                    if !in_doubt && !kept(added, watches, &self.raised()) {
                        return false;
                    }
                    in_doubt = true;
                    break;
                }
            }
        }
        false
    }

    /// Values not above the least solution, with what the equations raise the last one to in a few
    /// passes: mostly that shows whether flows that were added since break a promise.
    fn raised(&self) -> Values {
        let mut values = self.at_least();
        for _ in 0..RAISES {
            for &arc in &self.active {
                let port = &self.ports[arc as usize];
                let next = port.nanoseconds(port.bursts(&values));
                if next > values.ns[arc as usize] {
                    values.set(arc, next);
                }
            }
        }
        values
    }

    /// The last solution; without a burst at ports that are not in it.
    fn at_least(&self) -> Values {
        Values::of((0..self.ports.len()).map(|arc| self.least(arc)).collect())
    }

    fn least(&self, arc: usize) -> u64 {
        self.ports[arc].empty_ns.max(self.low[arc])
    }

    /// Whether every way between these switches takes longer than this by what queues are at least.
    pub(super) fn is_too_far(
        &self,
        network: &Network<'_>,
        ends: (NodeIx, NodeIx),
        promised: Delay,
    ) -> bool {
        let us = |arc: ArcIx| network.snapshot.link(arc.link()).delay.map_or(0, Delay::us);
        let ns = |arc: ArcIx| us(arc).saturating_mul(1000).saturating_add(self.least(arc.index()));
        let fastest = shortest(network.snapshot, ends, &|arc| Some(ns(arc.ix)));
        let sum = |path: Path| path.arcs.iter().fold(0, |sum, arc| ns(*arc).saturating_add(sum));
        fastest.is_some_and(|path| sum(path) > promised.us().saturating_mul(1000))
    }

    /// The queueing of every port without a burst.
    fn empty(&self) -> Vec<u64> {
        self.ports.iter().map(|port| port.empty_ns).collect()
    }

    /// The bounds, in ns by arc; `None` when bursts grow without limit.
    pub(super) fn settle(&mut self) -> Option<&Values> {
        if self.settled.is_none() {
            let settled = self.solve();
            match &settled {
                Some(settled) => {
                    self.low.clone_from(&settled.ns);
                    for &arc in &self.active {
                        self.guess[arc as usize] = settled.float[arc as usize];
                    }
                }
                // A guess from which nothing comes down again.
                None => self.guess.fill(0.0),
            }
            let settled = settled.map(|values| Settled { values, bursts: OnceLock::new() });
            self.settled = Some(settled);
        }
        Some(&self.settled.as_ref()?.as_ref()?.values)
    }

    /// A port's queue under these values, term by term; `None`: it does not limit.
    pub(super) fn queue(&self, values: &Values, arc: ArcIx) -> Option<QueueDelay> {
        let port = &self.ports[arc.index()];
        Some(queue(port.rate?, Bytes(port.framed(port.bursts(values)))))
    }

    /// What can come at once to each port, by arc; `None` when bursts grow without limit.
    pub(super) fn bursts(&mut self) -> Option<Arc<[Bytes]>> {
        self.settle()?;
        let Settled { values, bursts } = self.settled.as_ref()?.as_ref()?;
        let of = |port: &Arc<Port>| Bytes(port.bursts(values));
        Some(bursts.get_or_init(|| self.ports.iter().map(of).collect()).clone())
    }

    /// How long packets take over each arc, in ns, where these bursts meet and one more.
    pub(super) fn delays(&self, network: &Network<'_>, bursts: &[Bytes], own: Bytes) -> Vec<u64> {
        let links = &network.snapshot.topology().links;
        let propagation = links.iter().flat_map(|link| [link.delay.map_or(0, Delay::us); 2]);
        let ports = self.ports.iter().zip(bursts).zip(propagation);
        let delay = |((port, others), us): ((&Arc<Port>, &Bytes), u64)| {
            let waits = port.nanoseconds(others.0.saturating_add(own.0));
            us.saturating_mul(1000).saturating_add(waits)
        };
        ports.map(delay).collect()
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
    fn not_raised(&self, values: &Values, mut ports: impl Iterator<Item = u32>) -> bool {
        let value = |arc: u32| values.float[arc as usize];
        ports.all(|arc| {
            let port = &self.ports[arc as usize];
            if port.rate.is_none() {
                return true;
            }
            let rounding = 5.0 + 2.0 * port.choices() as f64;
            let bursts = port.bursts_float(value) * (1.0 + ROUNDING) + rounding;
            let after = port.queueing(bursts) * (1.0 + ROUNDING) + 1.0;
            after <= value(arc)
        })
    }

    /// The least solution: close by floating point, then up to it in whole numbers from values
    /// that are certainly not above it.
    fn solve(&mut self) -> Option<Values> {
        let mut before = self.guess.clone();
        let (mut start, mut tried) = (None, false);
        for passes in 1.. {
            let changed = self.pass();
            if self.is_lost() || passes > MAX_PASSES {
                return None;
            }
            // Mostly this close is close enough.
            if changed < 1e-9 && !tried {
                (start, tried) = (self.start(), true);
            }
            if start.is_some() || changed < 1e-11 {
                break;
            }
            if passes % CHECK_EVERY == 0 && self.grows_forever(&before) {
                return None;
            }
            before.clone_from(&self.guess);
        }
        let start = start.or_else(|| self.start());
        let mut values = start.unwrap_or_else(|| self.lowest());
        loop {
            let mut changed = false;
            for &arc in &self.active {
                let port = &self.ports[arc as usize];
                let next = port.nanoseconds(port.bursts(&values));
                if next > values.ns[arc as usize] {
                    values.set(arc, next);
                    changed = true;
                }
                if next > LIMIT_NS {
                    return None;
                }
            }
            if !changed {
                debug_assert!(
                    self.raised().ns.iter().zip(&values.ns).all(|(raised, least)| raised <= least)
                );
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
    fn start(&self) -> Option<Values> {
        for less in [1e-7, 1e-6, 1e-5, 1e-4] {
            let mut values = Values::of(self.empty());
            for &arc in &self.active {
                values.set(arc, (self.guess[arc as usize] * (1.0 - less)) as u64);
            }
            let value = |arc: u32| values.float[arc as usize];
            let not_lowered = self.active.iter().all(|&arc| {
                let after = self.ports[arc as usize].queueing_after(value) * (1.0 - ROUNDING);
                after >= value(arc)
            });
            if not_lowered {
                return Some(values);
            }
        }
        None
    }

    /// Values that are known not to be above the least solution.
    fn lowest(&self) -> Values {
        let mut values = Values::of(self.empty());
        for &arc in &self.active {
            values.set(arc, self.low[arc as usize]);
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
        let back = |arc: u32| self.ports[arc as usize].more(|arc| strong[arc as usize]);
        let mut on = self.active.iter().filter(|arc| strong[**arc as usize] > 0.0).peekable();
        on.peek().is_some() && on.all(|arc| back(*arc) > strong[*arc as usize] * (1.0 + 1e-9))
    }
}

/// Whether all promises are kept, that of a slice which is added first.
fn kept(added: Option<&Watch>, watches: &Watches, values: &Values) -> bool {
    added.is_none_or(|watch| watch.broken(Some(values)).is_none()) && watches.are_kept(values)
}

pub(super) struct Mark {
    low: Vec<u64>,
    guess: Vec<f64>,
    settled: Option<Option<Settled>>,
}
