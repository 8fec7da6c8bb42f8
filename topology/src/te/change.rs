//! From a running plan to a better one, by few moves, in an order that overloads no link.
//!
//! A move takes one demand from its old ways to its new ones, make before break. While it lasts
//! both are assumed to carry the demand in full, also on links that they share: the ingress
//! switches packet by packet, but those on the old way are still under way when the first on
//! the new one arrive. A move is allowed when no link rises above its capacity meanwhile; a link
//! that is above it before may not rise at all.

use std::collections::{BTreeMap, HashSet};

use super::network::{Demand, Network};
use super::plan::{Plan, PlanError, Share, part};
use super::routes::Routes;
use super::search::{Options, Progress, workers};
use super::state::Via;

/// One demand's way from old to new.
#[derive(Clone, Debug, PartialEq)]
pub struct Move {
    pub demand: usize,
    pub from: Vec<Share>,
    pub to: Vec<Share>,
    /// The utilisation, while old and new both carry the demand, of the fullest of the links
    /// that it rises on; 0 when there is none.
    pub peak: f64,
}

/// A move that would have been good, and that no order found allows.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    pub demand: usize,
    pub to: Vec<Share>,
    /// The link that would be overloaded meanwhile, an index into the network's edges.
    pub link: usize,
    /// How full it would be.
    pub would_be: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What holds after all of `moves`.
    pub plan: Plan,
    /// In the order in which they are safe.
    pub moves: Vec<Move>,
    pub refused: Vec<Refused>,
    /// Of the running plan, and of `plan`.
    pub before: f64,
    pub max_utilisation: f64,
    pub rounds: usize,
}

/// Moves of one change.
pub const MAX_MOVES: usize = 1_000;
/// Moves that the search for an order tries, all in all.
const MAX_TRIED: usize = 500_000;
/// What rounding may add to a utilisation.
const ROUNDING: f64 = 1e-9;

/// At most `max_moves` demands of `running` move, each once. None does where that
/// would not make the fullest link emptier.
///
/// # Panics
/// When `max_moves` is above [`MAX_MOVES`].
///
/// # Errors
/// As [`optimise`](super::optimise), and where `running` is no plan for these demands.
pub fn change(
    network: &Network,
    demands: &[Demand],
    running: &Plan,
    max_moves: usize,
    options: Options,
    stop: &(dyn Fn() -> bool + Sync),
    progress: &mut dyn FnMut(Progress),
) -> Result<Change, PlanError> {
    assert!(max_moves <= MAX_MOVES, "the search for an order goes that deep");
    let routes = Routes::new(network)?;
    running.check(network, &routes, demands)?;
    let mut workers = workers(&routes, demands, running, options)
        .map(|worker| worker.with_budget(running, max_moves));
    let mut round = 0;
    while round < options.max_rounds && max_moves > 0 && !stop() {
        let [first, second] = &mut workers;
        std::thread::scope(|scope| {
            scope.spawn(|| second.round(stop));
            first.round(stop);
        });
        round += 1;
        let max_utilisation = workers[0].best.min(workers[1].best);
        progress(Progress { round, max_utilisation, bound: 0.0 });
    }
    let candidates = workers.map(|mut worker| {
        let target = worker.best_plan(running);
        ordered(&routes, demands, running, &target)
    });
    let [one, other] = candidates;
    let best = if other.max_utilisation < one.max_utilisation { other } else { one };
    Ok(Change { rounds: round, ..best })
}

/// What a demand's shares load, by link.
fn load(routes: &Routes, demand: &Demand, shares: &[Share]) -> BTreeMap<usize, f64> {
    let mut load = BTreeMap::new();
    for share in shares {
        let bps = part(demand, share.hundredths);
        for (from, to) in Via::new(&share.segments).legs(demand.from, demand.to) {
            for (link, per_bps) in routes.entries(routes.pair(from, to)) {
                *load.entry(link).or_insert(0.0) += bps * per_bps;
            }
        }
    }
    load
}

struct Pending {
    demand: usize,
    old: BTreeMap<usize, f64>,
    new: BTreeMap<usize, f64>,
}

impl Pending {
    /// The fullest link that would rise above what it may, and how full it would be.
    fn obstacle(&self, utilisation: &[f64]) -> Option<(usize, f64)> {
        let meanwhile = self.new.iter().map(|(link, more)| (*link, utilisation[*link] + more));
        meanwhile
            .filter(|(link, full)| *full > utilisation[*link].max(1.0) + ROUNDING)
            .max_by(|a, b| a.1.total_cmp(&b.1))
    }

    fn peak(&self, utilisation: &[f64]) -> f64 {
        let meanwhile = self.new.iter().map(|(link, more)| utilisation[*link] + more);
        meanwhile.fold(0.0, f64::max)
    }

    fn apply(&self, utilisation: &mut [f64], sign: f64) {
        self.old.iter().for_each(|(link, load)| utilisation[*link] -= sign * load);
        self.new.iter().for_each(|(link, load)| utilisation[*link] += sign * load);
    }
}

/// Looks for an order, depth first: what is loaded after some moves does not depend on theirs,
/// so that each set of moves has to be looked at once. Takes the whole way if there is one, or
/// else the way to the best set that was reached.
struct Order<'a> {
    pending: &'a [Pending],
    utilisation: Vec<f64>,
    done: Vec<bool>,
    path: Vec<usize>,
    seen: HashSet<Vec<bool>>,
    /// Sets of moves that may be looked at; enough for one order at least.
    max_seen: usize,
    best: f64,
    best_path: Vec<usize>,
}

impl Order<'_> {
    /// True when all are done.
    fn extend(&mut self) -> bool {
        let fullest = self.utilisation.iter().copied().fold(0.0, f64::max);
        if fullest < self.best - ROUNDING || self.path.len() == self.pending.len() {
            self.best = fullest;
            self.best_path.clone_from(&self.path);
        }
        if self.path.len() == self.pending.len() {
            return true;
        }
        let mut next: Vec<(f64, usize)> = (0..self.pending.len())
            .filter(|at| !self.done[*at])
            .filter(|at| self.pending[*at].obstacle(&self.utilisation).is_none())
            .map(|at| (self.pending[at].peak(&self.utilisation), at))
            .collect();
        next.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        for (_, at) in next {
            self.done[at] = true;
            if self.seen.len() < self.max_seen && self.seen.insert(self.done.clone()) {
                let before = self.utilisation.clone();
                self.pending[at].apply(&mut self.utilisation, 1.0);
                self.path.push(at);
                if self.extend() {
                    return true;
                }
                self.path.pop();
                self.utilisation = before;
            }
            self.done[at] = false;
        }
        false
    }
}

pub(super) fn ordered(
    routes: &Routes,
    demands: &[Demand],
    running: &Plan,
    target: &Plan,
) -> Change {
    let pending: Vec<Pending> = (0..demands.len())
        .filter(|demand| running.demands[*demand] != target.demands[*demand])
        .map(|demand| Pending {
            demand,
            old: load(routes, &demands[demand], &running.demands[demand]),
            new: load(routes, &demands[demand], &target.demands[demand]),
        })
        .collect();
    let start = running.utilisation(routes, demands);
    let before = start.iter().copied().fold(0.0, f64::max);
    let mut order = Order {
        pending: &pending,
        utilisation: start.clone(),
        done: vec![false; pending.len()],
        path: Vec::new(),
        seen: HashSet::new(),
        max_seen: pending.len().max(MAX_TRIED / pending.len().max(1)),
        best: before,
        best_path: Vec::new(),
    };
    order.extend();
    let path = order.best_path;
    let mut plan = running.clone();
    let mut utilisation = start;
    let mut moves = Vec::new();
    for &at in &path {
        let Pending { demand, .. } = pending[at];
        let to = target.demands[demand].clone();
        let from = std::mem::replace(&mut plan.demands[demand], to.clone());
        moves.push(Move { demand, from, to, peak: pending[at].peak(&utilisation) });
        pending[at].apply(&mut utilisation, 1.0);
    }
    let left = pending.iter().enumerate().filter(|(at, _)| !path.contains(at));
    let refused = left.filter_map(|(_, pending)| {
        let (link, would_be) = pending.obstacle(&utilisation)?;
        let to = target.demands[pending.demand].clone();
        Some(Refused { demand: pending.demand, to, link, would_be })
    });
    let refused = refused.collect();
    let max_utilisation = utilisation.iter().copied().fold(0.0, f64::max);
    Change { plan, moves, refused, before, max_utilisation, rounds: 0 }
}
