//! Whether a slice would be admitted: tried on a copy of the ledger that stays as it is, and
//! without looking for why not, which is most of what a refusal costs.

use std::collections::BTreeSet;

use selvedge_topology::{ArcIx, BitRate, Delay};

use super::books::Slot;
use super::bounds::Values;
use super::place::{self, By, Demand, Placing};
use super::watch::Watch;
use super::{Admitted, Ledger, Network, Refusal};
use crate::limits::MAX_LATENCY_US;
use crate::{Direction, NetworkSlice};

/// Tries for one refusal, so that none takes for ever. What is left over then is not offered.
const TRIES: usize = 48;

/// In this order, as admission does.
pub(super) const WAYS: [By; 2] = [By::Cost, By::Delay];

pub(super) struct Tries<'n> {
    ledger: Ledger,
    network: &'n Network<'n>,
    slot: Slot,
    left: usize,
    /// Promises that are broken whatever is tried, once that was looked at.
    broken: Option<BTreeSet<Slot>>,
}

impl<'n> Tries<'n> {
    /// Of what may come in place of a slice, beside all others.
    pub(super) fn new(ledger: &Ledger, network: &'n Network<'n>, slice: &NetworkSlice) -> Self {
        let mut ledger = ledger.clone();
        ledger.prepare(network);
        ledger.remove(&slice.name);
        let slot = ledger.slot(&slice.name);
        Self { ledger, network, slot, left: TRIES, broken: None }
    }

    /// Why it would be refused; costs more than [`Self::admits`].
    pub(super) fn refusal(&mut self, slice: &NetworkSlice) -> Option<Box<Refusal>> {
        self.left = self.left.checked_sub(1)?;
        match place::promised(&mut self.ledger, self.network, slice, self.slot) {
            Ok((admitted, _)) => {
                self.ledger.remove_flows(self.slot, &admitted);
                None
            }
            Err(refusal) => Some(refusal),
        }
    }

    /// The direction whose rate is more than links have left, the first of two, and how much of it
    /// fits.
    pub(super) fn too_much(&mut self, slice: &NetworkSlice) -> Option<(Direction, BitRate)> {
        self.left = self.left.checked_sub(1)?;
        let placing = Placing::new(&self.ledger, self.network, slice, None).ok()?;
        let blocked = placing.place(By::Cost).err()?;
        let largest = placing.largest(blocked, By::Cost);
        Some((largest.direction, BitRate(largest.kbps * 1000)))
    }

    pub(super) fn admits(&mut self, slice: &NetworkSlice) -> bool {
        self.admitted_by(slice, &WAYS, Self::keeps_delays).is_some()
    }

    /// The first of these ways by which it is admitted; none where delays leave it in doubt: to
    /// say no for certain is dear.
    pub(super) fn surely_admits(&mut self, slice: &NetworkSlice, ways: &[By]) -> Option<By> {
        self.admitted_by(slice, ways, Self::surely_keeps_delays)
    }

    fn admitted_by(
        &mut self,
        slice: &NetworkSlice,
        ways: &[By],
        keeps: impl Fn(&mut Self, &Admitted) -> bool,
    ) -> Option<By> {
        self.left = self.left.checked_sub(1)?;
        for by in ways {
            let admitted = self.placed(slice, *by)?;
            if keeps(self, &admitted) {
                return Some(*by);
            }
        }
        None
    }

    /// The least latency with which it would be admitted. Which ways are tried does not depend on
    /// the latency: so each takes what it takes.
    pub(super) fn least_latency(&mut self, slice: &NetworkSlice) -> Option<Delay> {
        let slice = NetworkSlice { latency: Some(Delay(MAX_LATENCY_US)), ..slice.clone() };
        let mut found: Option<Delay> = None;
        for by in WAYS {
            self.left = self.left.checked_sub(1)?;
            let Some(admitted) = self.placed(&slice, by) else { break };
            let own = Watch::of(self.network, self.slot, &admitted)?;
            let (least, broken) = self.beside(&admitted, |ledger| {
                let values = ledger.bounds.settle().cloned();
                (values.as_ref().map(|values| own.least(values)), broken(ledger, &values))
            });
            if let Some(least) = least.filter(|least| least.us() <= MAX_LATENCY_US)
                && self.is_nothing_new(&broken)
            {
                found = Some(found.map_or(least, |found| found.min(least)));
            }
        }
        found
    }

    fn placed(&mut self, slice: &NetworkSlice, by: By) -> Option<Admitted> {
        let bursts = match by {
            By::Cost => None,
            By::Delay => self.ledger.bounds.bursts(),
        };
        let placing = Placing::new(&self.ledger, self.network, slice, bursts).ok()?;
        let bounds = &self.ledger.bounds;
        let is_too_far = |promised| {
            let ends = |demand: &Demand| (demand.from, demand.to);
            let mut ends = placing.demands.iter().map(ends);
            ends.any(|ends| bounds.is_too_far(self.network, ends, promised))
        };
        if matches!(by, By::Cost) && slice.latency.is_some_and(is_too_far) {
            return None;
        }
        let admitted = placing.place(by).ok()?;
        placing.access_fits().ok()?;
        Some(admitted)
    }

    fn surely_keeps_delays(&mut self, admitted: &Admitted) -> bool {
        let own = Watch::of(self.network, self.slot, admitted);
        if own.as_ref().is_some_and(|own| self.ledger.bounds.surely_late(own)) {
            return false;
        }
        if own.is_none() && self.ledger.watches.is_empty() {
            return true;
        }
        let touched: Vec<ArcIx> = admitted.arcs().collect();
        self.beside(admitted, |ledger| {
            ledger.bounds.surely(&touched, own.as_ref(), &ledger.watches)
        })
    }

    fn keeps_delays(&mut self, admitted: &Admitted) -> bool {
        if self.surely_keeps_delays(admitted) {
            return true;
        }
        let own = Watch::of(self.network, self.slot, admitted);
        if own.as_ref().is_some_and(|own| self.ledger.bounds.surely_late(own)) {
            return false;
        }
        let (late, broken) = self.beside(admitted, |ledger| {
            let values = ledger.bounds.settle().cloned();
            let late = own.as_ref().and_then(|own| own.broken(values.as_ref()));
            (late.is_some(), broken(ledger, &values))
        });
        !late && self.is_nothing_new(&broken)
    }

    /// With the slice's flows in the ledger's bounds.
    fn beside<T>(&mut self, admitted: &Admitted, what: impl FnOnce(&mut Ledger) -> T) -> T {
        let mark = self.ledger.bounds.mark();
        self.ledger.add_flows(self.slot, admitted);
        let result = what(&mut self.ledger);
        self.ledger.remove_flows(self.slot, admitted);
        self.ledger.bounds.restore(mark);
        result
    }

    /// A promise that is broken already is not the slice's doing.
    fn is_nothing_new(&mut self, now: &BTreeSet<Slot>) -> bool {
        if now.is_empty() {
            return true;
        }
        let ledger = &mut self.ledger;
        let before = self.broken.get_or_insert_with(|| {
            let values = ledger.bounds.settle().cloned();
            broken(ledger, &values)
        });
        now.is_subset(before)
    }
}

/// Promises that these queueings break; without a bound, all.
fn broken(ledger: &Ledger, values: &Option<Values>) -> BTreeSet<Slot> {
    ledger.watches.broken(values.as_ref()).into_iter().map(|(slot, _)| slot).collect()
}
