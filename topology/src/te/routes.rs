//! For every ordered pair of nodes, the share of its traffic that each link carries.
//!
//! Kept as flat arrays, pairs grouped by destination: `pair(from, to) = to * n + from`. The
//! entries of a pair are the links that its shortest paths use, each with the utilisation that
//! one bit/s from `from` to `to` causes there.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::network::Network;
use super::{MAX_ENTRIES, PlanError};

pub(super) struct Routes {
    pub(super) nodes: usize,
    pub(super) links: usize,
    /// `first[pair]..first[pair + 1]` are its entries.
    first: Vec<usize>,
    link: Vec<u32>,
    /// Share divided by the link's capacity, 1/(bit/s).
    per_bps: Vec<f64>,
    /// The same by link: `link_first[link]..` are the pairs that use it.
    link_first: Vec<usize>,
    link_pair: Vec<u32>,
    link_per_bps: Vec<f64>,
}

impl Routes {
    /// All pairs, on up to two threads.
    pub(super) fn new(network: &Network) -> Result<Self, PlanError> {
        let nodes = network.len();
        let links = network.edges().len();
        let adjacency = Adjacency::new(network);
        let half = nodes.div_ceil(2);
        let (low, high) = std::thread::scope(|scope| {
            let high = scope.spawn(|| adjacency.entries_to(half..nodes));
            let low = adjacency.entries_to(0..half);
            (low, high.join().expect("path computation does not panic"))
        });
        let (low, high) = (low?, high?);
        let total = low.link.len() + high.link.len();
        if total > MAX_ENTRIES {
            return Err(PlanError::TooLarge { nodes });
        }
        let mut first = Vec::with_capacity(nodes * nodes + 1);
        first.push(0);
        for length in low.lengths.iter().chain(&high.lengths) {
            first.push(first[first.len() - 1] + *length as usize);
        }
        let mut link = low.link;
        link.extend_from_slice(&high.link);
        let mut per_bps = low.per_bps;
        per_bps.extend_from_slice(&high.per_bps);
        let mut routes = Self {
            nodes,
            links,
            first,
            link,
            per_bps,
            link_first: Vec::new(),
            link_pair: Vec::new(),
            link_per_bps: Vec::new(),
        };
        routes.invert();
        Ok(routes)
    }

    fn invert(&mut self) {
        let mut first = vec![0; self.links + 1];
        for link in &self.link {
            first[*link as usize + 1] += 1;
        }
        for i in 0..self.links {
            first[i + 1] += first[i];
        }
        let mut at = first.clone();
        self.link_pair = vec![0; self.link.len()];
        self.link_per_bps = vec![0.0; self.link.len()];
        for pair in 0..self.nodes * self.nodes {
            for i in self.first[pair]..self.first[pair + 1] {
                let slot = &mut at[self.link[i] as usize];
                self.link_pair[*slot] = u32::try_from(pair).expect("pairs of 4095 nodes fit");
                self.link_per_bps[*slot] = self.per_bps[i];
                *slot += 1;
            }
        }
        self.link_first = first;
    }

    #[inline]
    pub(super) fn pair(&self, from: u32, to: u32) -> usize {
        to as usize * self.nodes + from as usize
    }

    /// Links and utilisation per bit/s of a pair; nothing for a node to itself and where no path
    /// leads.
    #[inline]
    pub(super) fn entries(&self, pair: usize) -> impl Iterator<Item = (usize, f64)> + '_ {
        let range = self.first[pair]..self.first[pair + 1];
        self.link[range.clone()].iter().zip(&self.per_bps[range]).map(|(l, c)| (*l as usize, *c))
    }

    /// Pairs that use a link, and the utilisation that one bit/s between them causes there.
    pub(super) fn users(&self, link: usize) -> impl Iterator<Item = (usize, f64)> + '_ {
        let range = self.link_first[link]..self.link_first[link + 1];
        let per_bps = &self.link_per_bps[range.clone()];
        self.link_pair[range].iter().zip(per_bps).map(|(p, c)| (*p as usize, *c))
    }

    #[inline]
    pub(super) fn joined(&self, from: u32, to: u32) -> bool {
        let pair = self.pair(from, to);
        from == to || self.first[pair] < self.first[pair + 1]
    }
}

/// Links by the node they leave and by the node they enter.
struct Adjacency<'a> {
    network: &'a Network,
    out_first: Vec<usize>,
    out: Vec<u32>,
    in_first: Vec<usize>,
    into: Vec<u32>,
}

/// What [`Routes`] holds, of some destinations.
#[derive(Default)]
struct Part {
    lengths: Vec<u32>,
    link: Vec<u32>,
    per_bps: Vec<f64>,
}

fn grouped(nodes: usize, ends: impl Iterator<Item = u32> + Clone) -> (Vec<usize>, Vec<u32>) {
    let mut first = vec![0; nodes + 1];
    for node in ends.clone() {
        first[node as usize + 1] += 1;
    }
    for i in 0..nodes {
        first[i + 1] += first[i];
    }
    let mut at = first.clone();
    let mut list = vec![0; first[nodes]];
    for (link, node) in (0..).zip(ends) {
        let slot = &mut at[node as usize];
        list[*slot] = link;
        *slot += 1;
    }
    (first, list)
}

impl<'a> Adjacency<'a> {
    fn new(network: &'a Network) -> Self {
        let edges = network.edges();
        let (out_first, out) = grouped(network.len(), edges.iter().map(|edge| edge.from));
        let (in_first, into) = grouped(network.len(), edges.iter().map(|edge| edge.to));
        Self { network, out_first, out, in_first, into }
    }

    fn entries_to(&self, destinations: std::ops::Range<usize>) -> Result<Part, PlanError> {
        let nodes = self.network.len();
        let mut part = Part::default();
        let mut share = vec![0.0_f64; self.network.edges().len()];
        for destination in destinations {
            self.add_destination(destination, &mut share, &mut part);
            if part.link.len() > MAX_ENTRIES {
                return Err(PlanError::TooLarge { nodes });
            }
        }
        Ok(part)
    }

    /// `share` is all zero before and after.
    fn add_destination(&self, destination: usize, share: &mut [f64], part: &mut Part) {
        let nodes = self.network.len();
        let edges = self.network.edges();
        let (distance, order) = self.distances(destination);
        // Shares by node, nearest first: what a next hop passes on is known before it is asked.
        let mut ranges = vec![0..0; nodes];
        let mut links: Vec<u32> = Vec::new();
        let mut shares: Vec<f64> = Vec::new();
        let mut touched: Vec<u32> = Vec::new();
        for &node in order.iter().skip(1) {
            let out = &self.out[self.out_first[node]..self.out_first[node + 1]];
            let on_shortest = |&&link: &&u32| {
                let edge = &edges[link as usize];
                let rest = distance[edge.to as usize];
                rest != u64::MAX && rest + u64::from(edge.weight) == distance[node]
            };
            let hops: f64 = out.iter().filter(on_shortest).map(|_| 1.0).sum();
            for &link in out.iter().filter(on_shortest) {
                touched.push(link);
                share[link as usize] += 1.0 / hops;
                for i in ranges[edges[link as usize].to as usize].clone() {
                    let further: u32 = links[i];
                    if share[further as usize] == 0.0 {
                        touched.push(further);
                    }
                    share[further as usize] += shares[i] / hops;
                }
            }
            let start = links.len();
            for link in touched.drain(..) {
                links.push(link);
                shares.push(std::mem::take(&mut share[link as usize]));
            }
            ranges[node] = start..links.len();
        }
        for range in ranges {
            part.lengths.push(u32::try_from(range.len()).expect("links are limited"));
            for i in range {
                part.link.push(links[i]);
                #[expect(clippy::cast_precision_loss, reason = "below 2^53, by 10 Tbit/s")]
                let capacity = edges[links[i] as usize].capacity.0 as f64;
                part.per_bps.push(shares[i] / capacity);
            }
        }
    }

    /// Distances to `destination`, `u64::MAX` where no path leads there; and the nodes that have
    /// one, nearest first, `destination` itself in front.
    fn distances(&self, destination: usize) -> (Vec<u64>, Vec<usize>) {
        let edges = self.network.edges();
        let mut distance = vec![u64::MAX; self.network.len()];
        let mut order = Vec::with_capacity(self.network.len());
        let mut heap = BinaryHeap::from([Reverse((0, destination))]);
        distance[destination] = 0;
        while let Some(Reverse((so_far, node))) = heap.pop() {
            if so_far > distance[node] {
                continue;
            }
            order.push(node);
            for &link in &self.into[self.in_first[node]..self.in_first[node + 1]] {
                let edge = &edges[link as usize];
                let (from, length) = (edge.from as usize, so_far + u64::from(edge.weight));
                if length < distance[from] {
                    distance[from] = length;
                    heap.push(Reverse((length, from)));
                }
            }
        }
        (distance, order)
    }
}
