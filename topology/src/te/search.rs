//! The search as a whole: two threads, which compare notes after every round.

use super::bound::Bound;
use super::network::{Demand, Network};
use super::plan::{Plan, PlanError};
use super::routes::Routes;
use super::worker::Worker;

/// How to search.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether a demand may be split over several ways.
    pub split: bool,
    pub seed: u64,
    /// At most so many rounds; the closure may stop earlier.
    pub max_rounds: usize,
}

/// What is known after a round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    pub round: usize,
    pub max_utilisation: f64,
    pub bound: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub plan: Plan,
    /// Of `plan`.
    pub max_utilisation: f64,
    /// With every demand on its shortest paths.
    pub shortest_paths: f64,
    /// No plan with two segments has its fullest link below this, however it splits.
    pub bound: f64,
    pub rounds: usize,
}

/// A plan stops being improved when it is this near to the bound, relatively.
const NEAR_ENOUGH: f64 = 2e-4;
/// What a round spends on the bound, in multiplications.
const BOUND_WORK: usize = 800_000;
/// Rounds that a thread may be behind before it takes over the other's plan.
const BEHIND: usize = 12;

/// One for each thread.
pub(super) fn workers<'a>(
    routes: &'a Routes,
    demands: &'a [Demand],
    plan: &Plan,
    options: Options,
) -> [Worker<'a>; 2] {
    [1, 2].map(|stream: u64| {
        let seed = options.seed.wrapping_mul(2).wrapping_add(stream);
        Worker::new(routes, demands, plan, options.split, seed)
    })
}

/// Counts rounds that a worker is behind; after some it takes over the other's plan.
fn catch_up<'a>(worker: &mut Worker<'a>, other: &Worker<'a>, behind: &mut usize) {
    *behind = if worker.best > other.best + 1e-6 { *behind + 1 } else { 0 };
    if *behind > BEHIND {
        worker.adopt(other);
        *behind = 0;
    }
}

/// A plan for `demands`, from all on their shortest paths; never a worse one.
///
/// `stop` is asked often, from two threads; what has been found by then is returned. `progress`
/// is told after each round.
///
/// # Errors
/// [`PlanError::Unroutable`] when no path joins a demand's ends, [`PlanError::TooLarge`] beyond
/// [`MAX_ENTRIES`](super::MAX_ENTRIES).
///
/// Source: Gay, Hartert, Vissicchio, "Expect the unexpected: sub-second optimization for segment
/// routing", INFOCOM 2017, for what is asked; prices by the exponential of utilisation are
/// Plotkin's, Shmoys's and Tardos's (Math. of OR 20(2), 1995).
pub fn optimise(
    network: &Network,
    demands: &[Demand],
    options: Options,
    stop: &(dyn Fn() -> bool + Sync),
    progress: &mut dyn FnMut(Progress),
) -> Result<Outcome, PlanError> {
    let routes = Routes::new(network)?;
    let plan = Plan::shortest(demands.len());
    plan.check(network, &routes, demands)?;
    let start = plan.utilisation(&routes, demands);
    let shortest_paths = start.iter().copied().fold(0.0, f64::max);
    let mut workers = workers(&routes, demands, &plan, options);
    let mut bound = Bound::new(&routes, demands, &start);
    let mut round = 0;
    let mut behind = [0; 2];
    let mut credit = 0;
    bound.improve();
    while round < options.max_rounds && !stop() {
        let best = workers[0].best.min(workers[1].best);
        if best <= bound.proven * (1.0 + NEAR_ENOUGH) {
            break;
        }
        credit += BOUND_WORK;
        let [first, second] = &mut workers;
        std::thread::scope(|scope| {
            scope.spawn(|| second.round(stop));
            first.round(stop);
            while credit >= bound.work() && !stop() {
                bound.improve();
                credit -= bound.work();
            }
        });
        round += 1;
        let [one, other] = &mut workers;
        catch_up(one, other, &mut behind[0]);
        catch_up(other, one, &mut behind[1]);
        let winner = &workers[usize::from(workers[1].best < workers[0].best)];
        bound.offer(&winner.best_utilisation);
        let max_utilisation = winner.best;
        progress(Progress { round, max_utilisation, bound: bound.proven });
    }
    let winner = usize::from(workers[1].best < workers[0].best);
    let plan = workers[winner].best_plan(&plan);
    let utilisation = plan.utilisation(&routes, demands);
    let max_utilisation = utilisation.iter().copied().fold(0.0, f64::max);
    let bound = bound.proven;
    Ok(Outcome { plan, max_utilisation, shortest_paths, bound, rounds: round })
}
