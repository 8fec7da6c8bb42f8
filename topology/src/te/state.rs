//! Where every part of every demand goes, what that loads, and a price for each link.
//!
//! A link's price is `exp(sharpness * (utilisation - reference))`. Their sum is what a search
//! step makes smaller: with a high sharpness the fullest link is all that counts, with a low one
//! the fuller half of the network does.

use super::network::Demand;
use super::plan::{Plan, Share, part};
use super::routes::Routes;
use super::{MAX_PATHS, SHARES};

const NONE: u32 = u32::MAX;
/// Exponents are held below what a double takes.
const MAX_EXPONENT: f64 = 500.0;

/// Up to two intermediate nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Via([u32; 2]);

impl Via {
    pub(super) const DIRECT: Self = Self([NONE; 2]);

    pub(super) fn new(segments: &[u32]) -> Self {
        match *segments {
            [] => Self::DIRECT,
            [one] => Self::one(one),
            [first, second, ..] => Self::two(first, second),
        }
    }

    pub(super) const fn one(node: u32) -> Self {
        Self([node, NONE])
    }

    pub(super) const fn two(first: u32, second: u32) -> Self {
        Self([first, second])
    }

    pub(super) fn segments(self) -> Vec<u32> {
        self.0.into_iter().filter(|node| *node != NONE).collect()
    }

    /// From segment to segment.
    #[inline]
    pub(super) fn legs(self, from: u32, to: u32) -> impl Iterator<Item = (u32, u32)> + Clone {
        let [first, second] = self.0;
        let legs = match (first, second) {
            (NONE, _) => [(from, to), (NONE, NONE), (NONE, NONE)],
            (_, NONE) => [(from, first), (first, to), (NONE, NONE)],
            _ => [(from, first), (first, second), (second, to)],
        };
        legs.into_iter().take_while(|leg| leg.0 != NONE)
    }
}

/// A part of a demand on one way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) demand: u32,
    /// 0: not in use.
    pub(super) hundredths: u32,
    pub(super) via: Via,
}

#[derive(Clone)]
pub(super) struct State<'a> {
    pub(super) routes: &'a Routes,
    pub(super) demands: &'a [Demand],
    pub(super) pieces: Vec<Piece>,
    /// Pieces of each demand.
    pub(super) of_demand: Vec<Vec<u32>>,
    /// Pieces of each pair that is a leg of them.
    on_pair: Vec<Vec<u32>>,
    free: Vec<u32>,
    pub(super) utilisation: Vec<f64>,
    pub(super) price: Vec<f64>,
    sharpness: f64,
    reference: f64,
    delta: Vec<f64>,
    touched: Vec<u32>,
}

impl<'a> State<'a> {
    pub(super) fn new(
        routes: &'a Routes,
        demands: &'a [Demand],
        plan: &Plan,
        sharpness: f64,
    ) -> Self {
        let mut state = Self {
            routes,
            demands,
            pieces: Vec::new(),
            of_demand: vec![Vec::new(); demands.len()],
            on_pair: vec![Vec::new(); routes.nodes * routes.nodes],
            free: Vec::new(),
            utilisation: vec![0.0; routes.links],
            price: vec![0.0; routes.links],
            sharpness,
            reference: 0.0,
            delta: vec![0.0; routes.links],
            touched: Vec::new(),
        };
        let pieces = (0..).zip(&plan.demands).flat_map(|(demand, shares)| {
            shares.iter().map(move |share| {
                let via = Via::new(&share.segments);
                Piece { demand, hundredths: share.hundredths, via }
            })
        });
        state.load(&pieces.collect::<Vec<_>>());
        state
    }

    /// Takes the place of what was there.
    pub(super) fn load(&mut self, pieces: &[Piece]) {
        self.pieces.clear();
        self.free.clear();
        self.of_demand.iter_mut().chain(&mut self.on_pair).for_each(Vec::clear);
        for piece in pieces.iter().filter(|piece| piece.hundredths > 0) {
            self.insert(*piece);
        }
        self.refresh();
    }

    pub(super) fn plan(&self) -> Plan {
        let demands = 0..u32::try_from(self.demands.len()).expect("demands are limited");
        Plan { demands: demands.map(|demand| self.shares(demand)).collect() }
    }

    /// How a demand goes, the largest share first.
    pub(super) fn shares(&self, demand: u32) -> Vec<Share> {
        let share = |piece: &u32| {
            let Piece { hundredths, via, .. } = self.pieces[*piece as usize];
            Share { hundredths, segments: via.segments() }
        };
        let mut shares: Vec<Share> = self.of_demand[demand as usize].iter().map(share).collect();
        shares.sort();
        shares
    }

    /// Routes a demand in another way.
    pub(super) fn replace(&mut self, demand: u32, shares: &[Share]) {
        for piece in std::mem::take(&mut self.of_demand[demand as usize]) {
            let (via, ends, bps) =
                (self.pieces[piece as usize].via, self.ends(piece), self.bps(piece));
            self.shift(via, ends, -bps);
            self.unlist(piece);
            self.pieces[piece as usize].hundredths = 0;
            self.free.push(piece);
        }
        for share in shares {
            let demands = self.demands;
            let Demand { from, to, .. } = demands[demand as usize];
            let (via, hundredths) = (Via::new(&share.segments), share.hundredths);
            self.shift(via, (from, to), part(&demands[demand as usize], hundredths));
            self.insert(Piece { demand, hundredths, via });
        }
    }

    pub(super) fn fullest(&self) -> f64 {
        self.utilisation.iter().copied().fold(0.0, f64::max)
    }

    /// Sums utilisation up anew, so that rounding does not pile up.
    pub(super) fn refresh(&mut self) {
        self.utilisation.fill(0.0);
        for piece in &self.pieces {
            if piece.hundredths == 0 {
                continue;
            }
            let demand = &self.demands[piece.demand as usize];
            let bps = part(demand, piece.hundredths);
            for (from, to) in piece.via.legs(demand.from, demand.to) {
                for (link, per_bps) in self.routes.entries(self.routes.pair(from, to)) {
                    self.utilisation[link] += bps * per_bps;
                }
            }
        }
        self.reprice(self.sharpness);
    }

    pub(super) fn reprice(&mut self, sharpness: f64) {
        self.sharpness = sharpness;
        self.reference = self.fullest();
        for link in 0..self.price.len() {
            self.price[link] = self.price_at(self.utilisation[link]);
        }
    }

    #[inline]
    fn price_at(&self, utilisation: f64) -> f64 {
        (self.sharpness * (utilisation - self.reference)).min(MAX_EXPONENT).exp()
    }

    /// What a bit/s from `from` to `to` costs.
    #[inline]
    pub(super) fn cost(&self, from: u32, to: u32) -> f64 {
        let entries = self.routes.entries(self.routes.pair(from, to));
        entries.map(|(link, per_bps)| per_bps * self.price[link]).sum()
    }

    pub(super) fn bps(&self, piece: u32) -> f64 {
        let piece = &self.pieces[piece as usize];
        part(&self.demands[piece.demand as usize], piece.hundredths)
    }

    pub(super) fn ends(&self, piece: u32) -> (u32, u32) {
        let demand = &self.demands[self.pieces[piece as usize].demand as usize];
        (demand.from, demand.to)
    }

    /// Adds a rate to the links of a way, or with a negative one takes it from them.
    pub(super) fn shift(&mut self, via: Via, (from, to): (u32, u32), bps: f64) {
        for (from, to) in via.legs(from, to) {
            for (link, per_bps) in self.routes.entries(self.routes.pair(from, to)) {
                let now = self.utilisation[link] + bps * per_bps;
                self.utilisation[link] = now;
                self.price[link] = self.price_at(now);
            }
        }
    }

    /// By how much the sum of prices would grow if `bps` took this way.
    pub(super) fn growth(&mut self, via: Via, (from, to): (u32, u32), bps: f64) -> f64 {
        self.accumulate(via, (from, to), bps);
        let mut growth = 0.0;
        let mut touched = std::mem::take(&mut self.touched);
        for link in touched.drain(..).map(|link| link as usize) {
            let more = std::mem::take(&mut self.delta[link]);
            growth += self.price_at(self.utilisation[link] + more) - self.price[link];
        }
        self.touched = touched;
        growth
    }

    fn accumulate(&mut self, via: Via, (from, to): (u32, u32), bps: f64) {
        for (from, to) in via.legs(from, to) {
            for (link, per_bps) in self.routes.entries(self.routes.pair(from, to)) {
                if self.delta[link] == 0.0 {
                    self.touched.push(u32::try_from(link).expect("links are limited"));
                }
                self.delta[link] += bps * per_bps;
            }
        }
    }

    /// How many of `most` bit/s should go from one way to the other, for the least sum of prices.
    pub(super) fn best_part(&mut self, old: Via, new: Via, ends: (u32, u32), most: f64) -> f64 {
        self.accumulate(new, ends, 1.0);
        self.accumulate(old, ends, -1.0);
        // A link may be listed twice, where its sum passed through zero; both see the same sum.
        self.touched.sort_unstable();
        self.touched.dedup();
        let slope = |bps: f64| -> f64 {
            let at = |link: &u32| {
                let (link, change) = (*link as usize, self.delta[*link as usize]);
                change * self.price_at(self.utilisation[link] + bps * change)
            };
            self.touched.iter().map(at).sum()
        };
        let (mut low, mut high) = (0.0, most);
        if slope(high) <= 0.0 {
            low = high;
        } else {
            // Half a hundredth of a demand is what is asked for.
            for _ in 0..8 {
                let middle = f64::midpoint(low, high);
                if slope(middle) <= 0.0 { low = middle } else { high = middle }
            }
        }
        for link in self.touched.drain(..) {
            self.delta[link as usize] = 0.0;
        }
        low
    }

    /// Pieces that a link carries, with the utilisation that each causes there.
    pub(super) fn users(&self, link: usize, found: &mut Vec<(u32, f64)>) {
        found.clear();
        for (pair, per_bps) in self.routes.users(link) {
            let pieces = self.on_pair[pair].iter();
            found.extend(pieces.map(|piece| (*piece, self.bps(*piece) * per_bps)));
        }
    }

    /// Registers another way for a piece, whose load was shifted already.
    pub(super) fn register(&mut self, piece: u32, via: Via) {
        self.unlist(piece);
        let demand = self.pieces[piece as usize].demand;
        let same = self.of_demand[demand as usize]
            .iter()
            .copied()
            .find(|other| *other != piece && self.pieces[*other as usize].via == via);
        if let Some(same) = same {
            self.pieces[same as usize].hundredths += self.pieces[piece as usize].hundredths;
            self.pieces[piece as usize].hundredths = 0;
            self.of_demand[demand as usize].retain(|other| *other != piece);
            self.free.push(piece);
        } else {
            self.pieces[piece as usize].via = via;
            self.list(piece);
        }
    }

    /// Moves some hundredths of a piece onto another way, load and all; false when the demand
    /// has too many ways already.
    pub(super) fn split(&mut self, piece: u32, hundredths: u32, via: Via) -> bool {
        let Piece { demand, hundredths: has, via: old } = self.pieces[piece as usize];
        let ends = self.ends(piece);
        let bps = part(&self.demands[demand as usize], hundredths);
        if hundredths == has {
            self.shift(old, ends, -bps);
            self.shift(via, ends, bps);
            self.register(piece, via);
            return true;
        }
        let pieces = &self.of_demand[demand as usize];
        let same = pieces.iter().copied().find(|p| self.pieces[*p as usize].via == via);
        if same.is_none() && pieces.len() >= MAX_PATHS {
            return false;
        }
        self.shift(old, ends, -bps);
        self.shift(via, ends, bps);
        self.pieces[piece as usize].hundredths -= hundredths;
        match same {
            Some(same) => self.pieces[same as usize].hundredths += hundredths,
            None => self.insert(Piece { demand, hundredths, via }),
        }
        true
    }

    fn insert(&mut self, piece: Piece) {
        debug_assert!(piece.hundredths <= SHARES, "at most the whole of it");
        let slot = self.free.pop().unwrap_or_else(|| {
            self.pieces.push(piece);
            u32::try_from(self.pieces.len() - 1).expect("pieces are limited")
        });
        self.pieces[slot as usize] = piece;
        self.of_demand[piece.demand as usize].push(slot);
        self.list(slot);
    }

    fn list(&mut self, piece: u32) {
        let (from, to) = self.ends(piece);
        for (from, to) in self.pieces[piece as usize].via.legs(from, to) {
            self.on_pair[self.routes.pair(from, to)].push(piece);
        }
    }

    fn unlist(&mut self, piece: u32) {
        let (from, to) = self.ends(piece);
        for (from, to) in self.pieces[piece as usize].via.legs(from, to) {
            let list = &mut self.on_pair[self.routes.pair(from, to)];
            let at = list.iter().position(|other| *other == piece).expect("it was listed");
            list.swap_remove(at);
        }
    }
}
