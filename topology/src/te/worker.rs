//! One thread's search: takes a full link, takes a demand off it, and puts that back where it
//! costs least. How sharply prices rise changes in cycles: low at first, so that the whole
//! network makes room, then higher and higher, so that the fullest links are what counts.

use super::SHARES;
use super::network::Demand;
use super::plan::Plan;
use super::routes::Routes;
use super::state::{Piece, State, Via};

/// Sharpness of a cycle's first and last level.
const BLUNT: f64 = 30.0;
const SHARP: f64 = 4000.0;
const STEEPER: f64 = 1.7;
/// Candidates with two segments, of those nearest by price.
const TWO_SEGMENT_CANDIDATES: usize = 3;
/// Candidates whose real growth is computed.
const TRIED: usize = 10;
/// Demands tried of one link, and those tried in vain, before another link's turn.
const TRIED_OF_LINK: usize = 48;
const IN_VAIN: usize = 6;
/// A link whose price fell to this part of what it was is another link's turn, too.
const RELIEVED: f64 = 0.3;
/// Demands sent elsewhere by chance at the start of a cycle.
const KICKED: usize = 3;
/// Less relative gain than this is none.
const GAIN: f64 = 1e-6;

pub(super) struct Worker<'a> {
    state: State<'a>,
    may_split: bool,
    /// Off in the first cycle: whole demands bring a large network down faster.
    split: bool,
    random: Random,
    sharpness: f64,
    /// Steps without a gain at this sharpness, and steps at all.
    idle: usize,
    steps: usize,
    pub(super) best: f64,
    best_pieces: Vec<Piece>,
    pub(super) best_utilisation: Vec<f64>,
    budget: Option<Budget>,
    /// Cost of every pair by prices of some steps ago.
    middle: Vec<f64>,
    middle_age: usize,
    to_segment: Vec<f64>,
    from_segment: Vec<f64>,
    users: Vec<(u32, f64)>,
    candidates: Vec<(f64, Via)>,
    by_second: Vec<(f64, u32)>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(
        routes: &'a Routes,
        demands: &'a [Demand],
        plan: &Plan,
        split: bool,
        seed: u64,
    ) -> Self {
        let state = State::new(routes, demands, plan, BLUNT);
        Self {
            may_split: split,
            split: false,
            random: Random(seed),
            sharpness: BLUNT,
            idle: 0,
            steps: 0,
            best: state.fullest(),
            best_pieces: state.pieces.clone(),
            best_utilisation: state.utilisation.clone(),
            budget: None,
            middle: vec![0.0; routes.nodes * routes.nodes],
            middle_age: usize::MAX,
            to_segment: vec![0.0; routes.nodes],
            from_segment: vec![0.0; routes.nodes],
            users: Vec::new(),
            candidates: Vec::new(),
            by_second: Vec::new(),
            state,
        }
    }

    /// Lets at most `most` demands go other ways than at the start.
    pub(super) fn with_budget(mut self, plan: &Plan, most: usize) -> Self {
        let moved = vec![false; plan.demands.len()];
        self.budget = Some(Budget { original: plan.clone(), moved, count: 0, most });
        self.melt();
        self
    }

    /// Steps of a round: about as much work whatever the size.
    fn round_steps(&self) -> usize {
        (2_000_000 / (self.state.routes.nodes.pow(2) + 500)).clamp(20, 500)
    }

    /// One round, or less if `stop` says so.
    pub(super) fn round(&mut self, stop: &(dyn Fn() -> bool + Sync)) {
        self.state.refresh();
        for step in 0..self.round_steps() {
            if step % 4 == 0 && stop() {
                break;
            }
            self.step(stop);
        }
        self.keep();
    }

    /// Goes on from another's plan.
    pub(super) fn adopt(&mut self, other: &Self) {
        self.best = other.best;
        self.best_pieces.clone_from(&other.best_pieces);
        self.best_utilisation.clone_from(&other.best_utilisation);
        self.state.load(&self.best_pieces);
        self.melt();
    }

    /// The best plan, in which all that can go as it does in `usual` does so, small demands
    /// before large ones: a policy that does not make the fullest link emptier is none.
    pub(super) fn best_plan(&mut self, usual: &Plan) -> Plan {
        self.state.load(&self.best_pieces);
        let fullest = self.state.fullest();
        let demands = 0..u32::try_from(self.state.demands.len()).expect("demands are limited");
        let differs = |demand: &u32| self.state.shares(*demand) != usual.demands[*demand as usize];
        let mut changed: Vec<u32> = demands.filter(differs).collect();
        changed.sort_by_key(|demand| self.state.demands[*demand as usize].rate);
        for demand in changed {
            let shares = self.state.shares(demand);
            self.state.replace(demand, &usual.demands[demand as usize]);
            if self.state.fullest() > fullest + 1e-12 {
                self.state.replace(demand, &shares);
            }
        }
        self.state.plan()
    }

    fn keep(&mut self) {
        let fullest = self.state.fullest();
        if fullest < self.best - 1e-9 {
            self.best = fullest;
            self.best_pieces.clone_from(&self.state.pieces);
            self.best_utilisation.clone_from(&self.state.utilisation);
        }
    }

    fn step(&mut self, stop: &(dyn Fn() -> bool + Sync)) {
        let Some(link) = self.full_link() else { return };
        self.steps += 1;
        let mut users = std::mem::take(&mut self.users);
        self.state.users(link, &mut users);
        if self.budget.is_some() {
            users.retain(|user| self.may_move(user.0));
        }
        let before = self.state.price[link];
        let mut gained = false;
        let mut in_vain = 0;
        for tried in 0..TRIED_OF_LINK.min(users.len()) {
            if tried % 8 == 7 && stop() {
                break;
            }
            let Some(at) = self.random.weighted(users.iter().map(|user| user.1)) else { break };
            let (piece, _) = users.swap_remove(at);
            // A split may have emptied it meanwhile, other moves used up the budget.
            if self.state.pieces[piece as usize].hundredths == 0 || !self.may_move(piece) {
                continue;
            }
            let moved = if self.split { self.split_piece(piece) } else { self.move_piece(piece) };
            if moved {
                self.account(self.state.pieces[piece as usize].demand);
            }
            gained |= moved;
            in_vain = if moved { 0 } else { in_vain + 1 };
            if in_vain == IN_VAIN || self.state.price[link] < RELIEVED * before {
                break;
            }
        }
        self.users = users;
        self.idle = if gained { 0 } else { self.idle + 1 };
        if self.idle > self.patience() {
            self.sharpen();
        }
    }

    fn patience(&self) -> usize {
        8 + self.state.routes.links / 8
    }

    /// The next level; after the last, a new cycle from somewhere in between.
    fn sharpen(&mut self) {
        self.keep();
        self.idle = 0;
        self.sharpness *= STEEPER;
        if self.sharpness > SHARP {
            self.melt();
        } else {
            self.state.reprice(self.sharpness);
        }
    }

    fn melt(&mut self) {
        self.idle = 0;
        self.split = self.may_split;
        if self.state.fullest() > self.best + 1e-3 {
            self.state.load(&self.best_pieces);
        }
        self.sharpness = BLUNT * (20.0_f64).powf(self.random.unit());
        self.state.reprice(self.sharpness);
        if self.budget.is_some() {
            self.take_back();
        }
        self.kick();
    }

    /// Sends some demands of full links another of their cheaper ways, by chance: out of a state
    /// that no single move makes better.
    fn kick(&mut self) {
        let mut users = std::mem::take(&mut self.users);
        for _ in 0..KICKED {
            let Some(link) = self.full_link() else { break };
            self.state.users(link, &mut users);
            users.retain(|user| self.may_move(user.0));
            let Some(at) = self.random.weighted(users.iter().map(|user| user.1)) else { continue };
            let piece = users[at].0;
            let (ends, bps) = (self.state.ends(piece), self.state.bps(piece));
            self.refresh_middle();
            self.find_candidates(ends);
            let pick = self.random.weighted(self.candidates.iter().map(|_| 1.0));
            let via = pick.map_or(Via::DIRECT, |at| self.candidates[at].1);
            let old = self.state.pieces[piece as usize].via;
            if via != old {
                self.state.shift(old, ends, -bps);
                self.state.shift(via, ends, bps);
                self.state.register(piece, via);
                self.account(self.state.pieces[piece as usize].demand);
            }
        }
        self.users = users;
    }

    fn may_move(&self, piece: u32) -> bool {
        let demand = self.state.pieces[piece as usize].demand as usize;
        self.budget.as_ref().is_none_or(|budget| budget.moved[demand] || budget.count < budget.most)
    }

    /// Keeps count of whether a demand goes as it did at the start.
    fn account(&mut self, demand: u32) {
        let Some(budget) = &mut self.budget else { return };
        let moved = self.state.shares(demand) != budget.original.demands[demand as usize];
        let was = std::mem::replace(&mut budget.moved[demand as usize], moved);
        budget.count = budget.count + usize::from(moved) - usize::from(was);
    }

    /// Puts some moved demands back, by chance, so that others get their turn.
    fn take_back(&mut self) {
        let demands = 0..u32::try_from(self.state.demands.len()).expect("demands are limited");
        demands.clone().for_each(|demand| self.account(demand));
        let part = self.random.unit();
        for demand in demands {
            let Some(budget) = &self.budget else { return };
            if budget.moved[demand as usize] && self.random.unit() < part {
                let shares = &budget.original.demands[demand as usize];
                self.state.replace(demand, shares);
                self.account(demand);
            }
        }
    }

    /// By chance, in proportion to price.
    fn full_link(&mut self) -> Option<usize> {
        self.random.weighted(self.state.price.iter().copied())
    }

    /// Puts a whole piece where the sum of prices is least.
    fn move_piece(&mut self, piece: u32) -> bool {
        let bps = self.state.bps(piece);
        let ends = self.state.ends(piece);
        let old = self.state.pieces[piece as usize].via;
        self.refresh_middle();
        self.state.shift(old, ends, -bps);
        let stay = self.state.growth(old, ends, bps);
        self.find_candidates(ends);
        let mut least = (stay * (1.0 - GAIN), old);
        let candidates = std::mem::take(&mut self.candidates);
        for &(cost, via) in candidates.iter().take(TRIED) {
            // Growth is convex in the rate, so the price at its start is a lower bound.
            if cost * bps * self.sharpness >= least.0 {
                break;
            }
            if via != old {
                let growth = self.state.growth(via, ends, bps);
                if growth < least.0 {
                    least = (growth, via);
                }
            }
        }
        self.candidates = candidates;
        self.state.shift(least.1, ends, bps);
        if least.1 == old {
            return false;
        }
        self.state.register(piece, least.1);
        true
    }

    /// Puts as much of a piece as pays onto the cheapest way.
    fn split_piece(&mut self, piece: u32) -> bool {
        let ends = self.state.ends(piece);
        let old = self.state.pieces[piece as usize];
        self.refresh_middle();
        self.find_candidates(ends);
        let cost_of = |state: &State<'_>, via: Via| -> f64 {
            via.legs(ends.0, ends.1).map(|(from, to)| state.cost(from, to)).sum()
        };
        let now = cost_of(&self.state, old.via);
        // Those through two segments were found by older prices.
        let candidates = self.candidates.iter().take(TRIED).map(|candidate| candidate.1);
        let cheapest = candidates
            .map(|via| (cost_of(&self.state, via), via))
            .min_by(|a, b| a.0.total_cmp(&b.0));
        let Some((cost, via)) = cheapest else { return false };
        if via == old.via || cost >= now * (1.0 - 1e-3) {
            return false;
        }
        let bps = self.state.bps(piece);
        let part = self.state.best_part(old.via, via, ends, bps);
        let hundredths = (part / bps * f64::from(old.hundredths)).round();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0..=100")]
        let hundredths = (hundredths as u32).min(old.hundredths).min(SHARES);
        hundredths > 0 && self.state.split(piece, hundredths, via)
    }

    fn refresh_middle(&mut self) {
        self.middle_age = self.middle_age.saturating_add(1);
        let nodes = self.state.routes.nodes;
        if self.middle_age < 4 + nodes / 2 {
            return;
        }
        self.middle_age = 0;
        for second in 0..nodes as u32 {
            for first in 0..nodes as u32 {
                // The same node twice is a way of one segment.
                let cost = if first == second { f64::INFINITY } else { self.cost(first, second) };
                self.middle[self.state.routes.pair(first, second)] = cost;
            }
        }
    }

    fn cost(&self, from: u32, to: u32) -> f64 {
        if self.state.routes.joined(from, to) { self.state.cost(from, to) } else { f64::INFINITY }
    }

    /// Ways by rising price.
    fn find_candidates(&mut self, (from, to): (u32, u32)) {
        let nodes = self.state.routes.nodes;
        self.candidates.clear();
        for node in 0..nodes as u32 {
            self.to_segment[node as usize] = self.cost(from, node);
            self.from_segment[node as usize] = self.cost(node, to);
        }
        self.candidates.push((self.to_segment[to as usize], Via::DIRECT));
        for node in (0..nodes as u32).filter(|node| *node != from && *node != to) {
            let cost = self.to_segment[node as usize] + self.from_segment[node as usize];
            if cost < f64::INFINITY {
                self.candidates.push((cost, Via::one(node)));
            }
        }
        self.find_pairs((from, to));
        let few = TRIED.min(self.candidates.len());
        let by_cost = |a: &(f64, Via), b: &(f64, Via)| a.0.total_cmp(&b.0);
        if few < self.candidates.len() {
            self.candidates.select_nth_unstable_by(few - 1, by_cost);
            self.candidates.truncate(few);
        }
        self.candidates.sort_by(by_cost);
    }

    /// Adds the cheapest ways with two segments, for some second ones the cheapest first one.
    fn find_pairs(&mut self, (from, to): (u32, u32)) {
        let nodes = self.state.routes.nodes;
        // Its own ends as segments are the ways of fewer segments.
        self.to_segment[from as usize] = f64::INFINITY;
        self.to_segment[to as usize] = f64::INFINITY;
        self.by_second.clear();
        for node in (0..nodes as u32).filter(|node| *node != from && *node != to) {
            let row = &self.middle[node as usize * nodes..][..nodes];
            let cost = least_sum(&self.to_segment, row) + self.from_segment[node as usize];
            if cost < f64::INFINITY {
                self.by_second.push((cost, node));
            }
        }
        let few = TWO_SEGMENT_CANDIDATES.min(self.by_second.len());
        if few > 0 {
            let by_cost = |a: &(f64, u32), b: &(f64, u32)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
            self.by_second.select_nth_unstable_by(few - 1, by_cost);
        }
        for &(cost, second) in &self.by_second[..few] {
            let row = &self.middle[second as usize * nodes..][..nodes];
            let sums = self.to_segment.iter().zip(row).map(|(first, middle)| first + middle);
            let least = (0..).zip(sums).min_by(|a, b| a.1.total_cmp(&b.1));
            if let Some((first, _)) = least {
                self.candidates.push((cost, Via::two(first, second)));
            }
        }
    }
}

/// The least of `a[i] + b[i]`, in lanes that the compiler can keep in vector registers.
fn least_sum(a: &[f64], b: &[f64]) -> f64 {
    const LANES: usize = 8;
    let mut least = [f64::INFINITY; LANES];
    let (a_rows, a_rest) = a.as_chunks::<LANES>();
    let (b_rows, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_rows.iter().zip(b_rows) {
        for lane in 0..LANES {
            let sum = a[lane] + b[lane];
            least[lane] = if sum < least[lane] { sum } else { least[lane] };
        }
    }
    let rest = a_rest.iter().zip(b_rest).map(|(a, b)| a + b);
    rest.chain(least).fold(f64::INFINITY, f64::min)
}

/// How many demands may go other ways than at the start, and which do.
struct Budget {
    original: Plan,
    moved: Vec<bool>,
    count: usize,
    most: usize,
}

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// In `0..1`.
    pub(super) fn unit(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let bits = (self.next() >> 11) as f64;
        bits / (1_u64 << 53) as f64
    }

    /// An index, in proportion to weights; `None` when all are 0.
    pub(super) fn weighted(&mut self, weights: impl Iterator<Item = f64> + Clone) -> Option<usize> {
        let sum: f64 = weights.clone().sum();
        let mut left = self.unit() * sum;
        let mut last = None;
        for (at, weight) in weights.enumerate() {
            if weight > 0.0 {
                last = Some(at);
                left -= weight;
                if left <= 0.0 {
                    break;
                }
            }
        }
        last
    }
}
