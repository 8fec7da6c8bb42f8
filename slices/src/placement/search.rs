//! Many instances at once: those first that lose most by waiting, then moves, exchanges, and
//! room made for what was left out.

use std::collections::BTreeMap;

use super::{Placement, Put, Reach, Request, gain};
use crate::ObjectName;

/// Rounds over all instances. Most settle in three or four.
pub const MAX_ROUNDS: usize = 12;

/// Who is next in the first pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// The largest difference between the best node and the next (Martello and Toth, Knapsack
    /// Problems, 1990, §7.4).
    Regret,
    /// The same, for what it takes of the scarcest resource.
    RegretShare,
    /// The largest gain for what it takes.
    GainShare,
}

/// An instance that waits, with what it gains at most on each node.
struct Waiting<'a> {
    request: &'a Request,
    /// By offer; `None`: the network has refused it there.
    gains: Vec<Option<i64>>,
    /// What it takes of all there is of the scarcest resource, in millionths.
    share: i64,
    /// Best node, and the gain on the next best one or 0.
    best: Option<(usize, i64, i64)>,
    /// Nodes whose use changes `best`.
    watches: [Option<usize>; 2],
}

impl Placement {
    /// Places as many as are worth it; the sum of gains counts, and an instance that would cost
    /// more than it is worth is left out. Those in place already may be moved
    /// ([`Request::now`] and `moving_mw` say what that costs) and exchanged, but none of them is
    /// given up for a new one. Answers with those left out.
    ///
    /// `stop` is asked between tries: what was found until then is the result. Without it, the
    /// result is the same for the same call.
    pub fn place_all<R: Reach>(
        &mut self,
        reach: &mut R,
        requests: &[Request],
        stop: &dyn Fn() -> bool,
    ) -> Vec<Request> {
        let settled: Vec<ObjectName> = self.put.keys().cloned().collect();
        let mut best: Option<(i64, Order)> = None;
        let mut last = None;
        let orders = [Order::Regret, Order::RegretShare, Order::GainShare];
        // One has no order.
        for order in orders.into_iter().take(requests.len()) {
            if best.is_some() && stop() {
                break;
            }
            self.clear(reach, requests);
            self.first(reach, requests, order, stop);
            last = Some(order);
            if best.is_none_or(|(known, _)| self.gain() > known) {
                best = Some((self.gain(), order));
            }
        }
        if let Some((_, order)) = best.filter(|(_, order)| last != Some(*order)) {
            self.clear(reach, requests);
            self.first(reach, requests, order, stop);
        }
        let out = |placement: &Self, request: &&Request| !placement.put.contains_key(&request.name);
        let mut waiting: Vec<Request> =
            requests.iter().filter(|request| out(self, request)).cloned().collect();
        for _ in 0..MAX_ROUNDS {
            let before = self.gain();
            self.relocate(reach, stop);
            self.exchange(reach, stop);
            let mut still = Vec::new();
            for request in std::mem::take(&mut waiting) {
                match self.squeeze(reach, &request, &settled, stop) {
                    Some(given_up) => still.extend(given_up),
                    None => still.push(request),
                }
            }
            still.retain(|request| !self.insert(reach, request));
            waiting = still;
            if self.gain() <= before || stop() {
                break;
            }
        }
        waiting
    }

    fn clear<R: Reach>(&mut self, reach: &mut R, requests: &[Request]) {
        for request in requests {
            self.remove(reach, &request.name);
        }
    }

    /// The first pass. Gains are estimated from the network's floor, and the node that is then
    /// taken is reserved for real.
    fn first<R: Reach>(
        &mut self,
        reach: &mut R,
        requests: &[Request],
        order: Order,
        stop: &dyn Fn() -> bool,
    ) {
        let mut waiting: Vec<Waiting<'_>> =
            requests.iter().map(|request| self.waiting(reach, request)).collect();
        for one in &mut waiting {
            self.look(reach, one);
        }
        loop {
            let next = waiting.iter().enumerate().filter_map(|(index, one)| {
                let (_, gain, next) = one.best?;
                let urgency = match order {
                    Order::Regret => gain - next,
                    Order::RegretShare => (gain - next).saturating_mul(1_000_000) / one.share,
                    Order::GainShare => gain.saturating_mul(1_000_000) / one.share,
                };
                // Ties by what is gained, then as asked for.
                Some(((urgency, gain, std::cmp::Reverse(index)), index))
            });
            let Some((_, index)) = next.max_by_key(|(key, _)| *key) else { break };
            if stop() {
                break;
            }
            let Some((at, ..)) = waiting[index].best else { break };
            match self.try_at(reach, waiting[index].request, at) {
                Ok(cost) => {
                    let one = waiting.swap_remove(index);
                    let put = Put { request: one.request.clone(), at, cost };
                    if put.gain() <= 0 {
                        reach.release(one.request);
                        continue;
                    }
                    self.enter(put);
                    for other in &mut waiting {
                        if other.watches.contains(&Some(at)) {
                            self.look(reach, other);
                        }
                    }
                }
                Err(_) => {
                    waiting[index].gains[at] = None;
                    self.look(reach, &mut waiting[index]);
                }
            }
        }
    }

    fn waiting<'a, R: Reach>(&self, reach: &R, request: &'a Request) -> Waiting<'a> {
        let gains = (0..self.offers.len())
            .map(|at| Some(gain(request.worth_mw, self.at_least(reach, request, at))));
        let share = |wanted: u64, all: u64| {
            let share = u128::from(wanted) * 1_000_000 / u128::from(all.max(1));
            i64::try_from(share).unwrap_or(i64::MAX)
        };
        let demand = &request.demand;
        let cpu = share(demand.cpu_milli, self.offers.iter().map(|offer| offer.cpu_milli).sum());
        let memory = share(demand.memory.0, self.offers.iter().map(|offer| offer.memory.0).sum());
        let accelerators = demand.accelerators.iter().map(|(kind, wanted)| {
            let all = self.offers.iter().filter_map(|offer| offer.accelerators.get(kind));
            share(*wanted, all.sum())
        });
        let share = accelerators.fold(cpu.max(memory), i64::max).max(1);
        Waiting { request, gains: gains.collect(), share, best: None, watches: [None; 2] }
    }

    /// Finds its best nodes, as they are used now.
    fn look<R: Reach>(&self, reach: &R, one: &mut Waiting<'_>) {
        let mut nodes: Vec<(i64, usize)> =
            one.gains.iter().enumerate().filter_map(|(at, gain)| Some(((*gain)?, at))).collect();
        nodes.retain(|(gain, _)| *gain > 0);
        nodes.sort_unstable_by_key(|(gain, at)| (std::cmp::Reverse(*gain), *at));
        let mut fitting =
            nodes.into_iter().filter(|(_, at)| self.lacks(reach, one.request, *at).is_empty());
        let (first, second) = (fitting.next(), fitting.next());
        one.best = first.map(|(gain, at)| (at, gain, second.map_or(0, |(gain, _)| gain)));
        one.watches = [first, second].map(|node| node.map(|(_, at)| at));
    }

    /// Places an instance if that is worth it.
    fn insert<R: Reach>(&mut self, reach: &mut R, request: &Request) -> bool {
        let Ok((at, cost)) = self.best(reach, request) else { return false };
        let put = Put { request: request.clone(), at, cost };
        if put.gain() <= 0 {
            reach.release(request);
            return false;
        }
        self.enter(put);
        true
    }

    /// Each instance to its best node, with all others where they are.
    fn relocate<R: Reach>(&mut self, reach: &mut R, stop: &dyn Fn() -> bool) {
        for name in self.put.keys().cloned().collect::<Vec<_>>() {
            if stop() {
                return;
            }
            self.better(reach, &name);
        }
    }

    /// Two instances of different nodes to where each is better off without the other.
    fn exchange<R: Reach>(&mut self, reach: &mut R, stop: &dyn Fn() -> bool) {
        let names: Vec<ObjectName> = self.put.keys().cloned().collect();
        let floors_of = |put: &Put| -> Vec<u64> {
            (0..self.offers.len()).map(|at| self.at_least(reach, &put.request, at)).collect()
        };
        let floors: BTreeMap<ObjectName, Vec<u64>> =
            self.put.iter().map(|(name, put)| (name.clone(), floors_of(put))).collect();
        for (index, first) in names.iter().enumerate() {
            for second in &names[index + 1..] {
                if stop() {
                    return;
                }
                let (a, b) = (&self.put[first], &self.put[second]);
                let before = a.cost.total().saturating_add(b.cost.total());
                let floor = floors[first][b.at].saturating_add(floors[second][a.at]);
                if a.at == b.at || floor >= before {
                    continue;
                }
                let (Some(a), Some(b)) = (self.take(reach, first), self.take(reach, second)) else {
                    continue;
                };
                let moves = [(&a.put.request, b.put.at), (&b.put.request, a.put.at)];
                if !self.put_at(reach, moves, before) {
                    self.restore(reach, b);
                    self.restore(reach, a);
                }
            }
        }
    }

    /// Both to these nodes, if that costs less than `before`; else neither.
    fn put_at<R: Reach>(
        &mut self,
        reach: &mut R,
        moves: [(&Request, usize); 2],
        before: u64,
    ) -> bool {
        let mut total = 0u64;
        for (done, (request, at)) in moves.iter().enumerate() {
            let found = self.try_at(reach, request, *at);
            if let Ok(cost) = found {
                total = total.saturating_add(cost.total());
                self.enter(Put { request: (*request).clone(), at: *at, cost });
            }
            if found.is_err() || total >= before {
                let entered = if found.is_ok() { done + 1 } else { done };
                for (request, _) in &moves[..entered] {
                    self.remove(reach, &request.name);
                }
                return false;
            }
        }
        true
    }

    /// A node for one that has none: on each in turn those that gain least make room, and go
    /// elsewhere where they can, if all in all more is gained. Answers with those given up;
    /// `None`: nothing has changed.
    fn squeeze<R: Reach>(
        &mut self,
        reach: &mut R,
        request: &Request,
        settled: &[ObjectName],
        stop: &dyn Fn() -> bool,
    ) -> Option<Vec<Request>> {
        let before = self.gain();
        for at in 0..self.offers.len() {
            if stop() {
                return None;
            }
            if gain(request.worth_mw, self.at_least(reach, request, at)) <= 0 {
                continue;
            }
            let here = self.put.values().filter(|put| put.at == at);
            let mut here: Vec<(i64, ObjectName)> =
                here.map(|put| (put.gain(), put.request.name.clone())).collect();
            here.sort();
            let mut taken = Vec::new();
            let mut placed = false;
            for (_, name) in here {
                taken.extend(self.take(reach, &name));
                if let Ok(cost) = self.try_at(reach, request, at) {
                    self.enter(Put { request: request.clone(), at, cost });
                    placed = true;
                    break;
                }
            }
            if placed {
                let others = taken.iter().rev().map(|taken| taken.put.request.clone());
                let (moved, given_up): (Vec<Request>, Vec<Request>) =
                    others.partition(|other| self.insert(reach, other));
                let kept = given_up.iter().all(|other| !settled.contains(&other.name));
                if kept && self.gain() > before {
                    return Some(given_up);
                }
                for other in moved.iter().chain([request]) {
                    self.remove(reach, &other.name);
                }
            }
            for one in taken.into_iter().rev() {
                self.restore(reach, one);
            }
        }
        None
    }
}
