//! What no plan can go below, by duality.
//!
//! For any prices of links that add up to 1, the fullest link is at least as full as the average
//! by those prices; and that is at least what it costs to send each demand the cheapest way. So
//! every choice of prices proves a bound, for split demands too, and good prices a good one.
//!
//! They are found by the method of Frank and Wolfe on the sum of `exp(sharpness * utilisation)`
//! over split routings, of which only the utilisation is kept.

use super::network::Demand;
use super::routes::Routes;

/// Sharpness at first, at most, and by how much it grows when the sum is nearly as small as it
/// gets.
const BLUNT: f64 = 40.0;
const SHARP: f64 = 20_000.0;
const STEEPER: f64 = 1.5;

pub(super) struct Bound<'a> {
    routes: &'a Routes,
    demands: &'a [Demand],
    /// Of the split routing.
    utilisation: Vec<f64>,
    sharpness: f64,
    /// The best bound so far.
    pub(super) proven: f64,
    /// Cost of a pair by its shortest paths, and with one and two segments between.
    cost: Vec<f64>,
    transposed: Vec<f64>,
    two: Vec<f64>,
    three: Vec<f64>,
    flow: Vec<f64>,
    last_flow: Vec<f64>,
}

impl<'a> Bound<'a> {
    /// Starts at the utilisation of some plan.
    pub(super) fn new(routes: &'a Routes, demands: &'a [Demand], utilisation: &[f64]) -> Self {
        let pairs = routes.nodes * routes.nodes;
        Self {
            routes,
            demands,
            utilisation: utilisation.to_vec(),
            sharpness: BLUNT,
            proven: 0.0,
            cost: vec![0.0; pairs],
            transposed: vec![0.0; pairs],
            two: vec![0.0; pairs],
            three: vec![0.0; pairs],
            flow: vec![0.0; pairs],
            last_flow: vec![0.0; pairs],
        }
    }

    /// Multiplications and additions of one call of [`Self::improve`], roughly.
    pub(super) fn work(&self) -> usize {
        let Self { routes, demands, .. } = self;
        3 * routes.nodes.pow(3) + 100 * routes.links + demands.len() * routes.nodes
    }

    /// Mixes in a plan's utilisation.
    pub(super) fn offer(&mut self, utilisation: &[f64]) {
        let fullest = self.utilisation.iter().copied().fold(0.0, f64::max);
        self.mix(utilisation, fullest);
    }

    /// One step: prices, the bound that they prove, and a routing that mixes in their cheapest
    /// ways. `O(n³ + entries)`.
    pub(super) fn improve(&mut self) {
        let fullest = self.utilisation.iter().copied().fold(0.0, f64::max);
        if fullest <= 0.0 {
            return;
        }
        let price = |utilisation: &f64| (self.sharpness * (utilisation - fullest)).exp();
        let mut prices: Vec<f64> = self.utilisation.iter().map(price).collect();
        let sum: f64 = prices.iter().sum();
        prices.iter_mut().for_each(|price| *price /= sum);
        self.costs(&prices);
        let bps = |demand: &Demand| demand.rate.0 as f64;
        let cheapest = |demand: &Demand| self.three[self.routes.pair(demand.from, demand.to)];
        let used = self.demands.iter().filter(|demand| demand.rate.0 > 0);
        let proven: f64 = used.map(|demand| bps(demand) * cheapest(demand)).sum();
        self.proven = self.proven.max(proven);
        let other = self.cheapest_ways();
        let average: f64 = prices.iter().zip(&self.utilisation).map(|(p, u)| p * u).sum();
        self.mix(&other, fullest);
        // What mixing could still gain is small beside what the sharpness blurs.
        let blur = (prices.len() as f64).ln() / self.sharpness;
        if average - proven < 0.5 * blur {
            self.sharpness = (self.sharpness * STEEPER).min(SHARP);
        }
    }

    fn costs(&mut self, prices: &[f64]) {
        let (routes, nodes) = (self.routes, self.routes.nodes);
        for to in 0..nodes as u32 {
            for from in 0..nodes as u32 {
                let pair = routes.pair(from, to);
                let cost = routes.entries(pair).map(|(link, c)| c * prices[link]).sum();
                let cost = if routes.joined(from, to) { cost } else { f64::INFINITY };
                self.cost[pair] = cost;
                self.transposed[routes.pair(to, from)] = cost;
            }
        }
        min_plus(&self.cost, &self.cost, &mut self.two, nodes);
        min_plus(&self.cost, &self.two, &mut self.three, nodes);
    }

    /// The utilisation when every demand takes its cheapest way.
    fn cheapest_ways(&mut self) -> Vec<f64> {
        let (routes, nodes) = (self.routes, self.routes.nodes);
        self.flow.fill(0.0);
        self.last_flow.fill(0.0);
        for demand in self.demands.iter().filter(|d| d.rate.0 > 0 && d.from != d.to) {
            let goal = self.three[routes.pair(demand.from, demand.to)];
            let first = self.between(demand.from, demand.to, &self.two, goal);
            let bps = demand.rate.0 as f64;
            self.flow[routes.pair(demand.from, first)] += bps;
            self.last_flow[routes.pair(first, demand.to)] += bps;
        }
        for to in 0..nodes as u32 {
            for from in 0..nodes as u32 {
                let bps = self.last_flow[routes.pair(from, to)];
                if bps > 0.0 && from != to {
                    let second =
                        self.between(from, to, &self.cost, self.two[routes.pair(from, to)]);
                    self.flow[routes.pair(from, second)] += bps;
                    self.flow[routes.pair(second, to)] += bps;
                }
            }
        }
        let mut utilisation = vec![0.0; routes.links];
        for (pair, &bps) in self.flow.iter().enumerate().filter(|(_, bps)| **bps > 0.0) {
            for (link, per_bps) in routes.entries(pair) {
                utilisation[link] += bps * per_bps;
            }
        }
        utilisation
    }

    /// The node where `cost` to it and `rest` from it add up to `goal`, the least there is.
    fn between(&self, from: u32, to: u32, rest: &[f64], goal: f64) -> u32 {
        let nodes = self.routes.nodes;
        let first = &self.transposed[from as usize * nodes..][..nodes];
        let rest = &rest[to as usize * nodes..][..nodes];
        let at = first.iter().zip(rest).position(|(first, rest)| first + rest <= goal);
        at.map_or(to, |node| u32::try_from(node).expect("nodes are limited"))
    }

    /// As much of `other` as makes the sum least.
    fn mix(&mut self, other: &[f64], fullest: f64) {
        let slope = |part: f64| -> f64 {
            let at = |(now, other): (&f64, &f64)| {
                let change = other - now;
                let exponent = self.sharpness * (now + part * change - fullest);
                change * exponent.min(500.0).exp()
            };
            self.utilisation.iter().zip(other).map(at).sum()
        };
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..24 {
            let middle = f64::midpoint(low, high);
            if slope(middle) <= 0.0 { low = middle } else { high = middle }
        }
        for (now, other) in self.utilisation.iter_mut().zip(other) {
            *now += low * (other - *now);
        }
    }
}

/// `out[to][from]` = least of `first[middle][from] + last[to][middle]`.
fn min_plus(first: &[f64], last: &[f64], out: &mut [f64], nodes: usize) {
    out.fill(f64::INFINITY);
    for (row, last) in out.chunks_exact_mut(nodes).zip(last.chunks_exact(nodes)) {
        for (first, &rest) in first.chunks_exact(nodes).zip(last) {
            for (least, &first) in row.iter_mut().zip(first) {
                let sum = first + rest;
                *least = if sum < *least { sum } else { *least };
            }
        }
    }
}
