//! The network in the form that path computation wants: adjacency compressed into two arrays,
//! forward and reverse, with the figures beside the neighbors.
//!
//! A link that is down stays in its place, marked, so that a failure or a new figure is a
//! write of a few words and not a new graph. Lengths are one integer, [`Length`]: the metric's
//! sum above, the hops below, so that one addition and one comparison decide by both; equal
//! lengths are decided by the neighbor's name, then by the link's index.

use crate::{ArcIx, BitRate, Delay, LinkIx, Metric, NodeIx, Path, Snapshot};

/// What an [`Edge`] of a link that is down counts.
pub(crate) const DOWN: u32 = u32::MAX;
/// Bits of a [`Length`] that count hops; a loop-free path has fewer than 65,536.
const HOP_BITS: u32 = 16;

/// (sum of the metric, hops), compared in this order. The sum has 48 bits: 65,535 hops of the
/// largest figure (24 bits) stay below 2^40.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Length(pub(crate) u64);

impl Length {
    pub const ZERO: Self = Self(0);
    /// No way at all.
    pub const NONE: Self = Self(u64::MAX);

    pub const fn sum(self) -> u64 {
        self.0 >> HOP_BITS
    }

    pub const fn hops(self) -> u32 {
        (self.0 & ((1 << HOP_BITS) - 1)) as u32
    }

    pub const fn is_none(self) -> bool {
        self.0 == Self::NONE.0
    }
}

/// An arc as seen from one of its nodes: 16 bytes, four to a cache line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The other node.
    pub node: NodeIx,
    pub arc: ArcIx,
    cost: u32,
    delay_us: u32,
}

impl Edge {
    pub const fn is_up(&self) -> bool {
        self.cost != DOWN
    }

    /// What it adds to a [`Length`]. Of an edge that is up.
    #[inline]
    pub(crate) const fn length(&self, metric: Metric) -> u64 {
        let weight = match metric {
            Metric::Cost => self.cost,
            Metric::Delay => self.delay_us,
            Metric::Hops => 1,
        };
        ((weight as u64) << HOP_BITS) | 1
    }

    /// Propagation in microseconds; 0 where none is stated.
    pub const fn delay_us(&self) -> u64 {
        self.delay_us as u64
    }

    /// Of an edge that is up.
    pub const fn cost(&self) -> u32 {
        self.cost
    }
}

/// What an arc is, by [`ArcIx`]. Two arcs of one link may differ, as what is left of a link's
/// capacity does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// At least 1.
    pub cost: u32,
    /// At most [`crate::limits::MAX_DELAY_US`]; 0 where none is stated.
    pub delay_us: u32,
    /// `None`: not stated, so not limiting.
    pub capacity: Option<BitRate>,
}

/// A link of a graph that is made without a topology.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphLink {
    pub a: NodeIx,
    pub b: NodeIx,
    pub figures: Figures,
    /// Shared-risk groups.
    pub srlgs: Vec<u32>,
    /// Administrative groups, a bit each ([`Snapshot::affinity_bit`]).
    pub affinity: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ends {
    from: NodeIx,
    to: NodeIx,
    /// Positions in `out` and `into`.
    out: u32,
    into: u32,
}

/// See the module. `O(nodes + links)` memory, about 150 bytes a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    first: Vec<u32>,
    /// Arcs grouped by where they start, then by where they end, then by link.
    out: Vec<Edge>,
    /// The same grouped by where they end. As each link has an arc each way, the groups are as
    /// long as those of `out`, and share `first`.
    into: Vec<Edge>,
    /// By arc; `None` for slots of links that are not between two nodes of this graph.
    ends: Vec<Option<Ends>>,
    figures: Vec<Figures>,
    up: Vec<bool>,
    /// By link.
    affinity: Vec<u64>,
    srlg_first: Vec<u32>,
    srlgs: Vec<u32>,
}

impl Graph {
    /// A graph of `nodes` nodes; the links' order gives their indices, the nodes' numbers stand
    /// for their names. `None` keeps an index free.
    ///
    /// # Panics
    /// When a link ends at a node that is not there, or where it starts, or when there are
    /// more than 65,535 nodes.
    pub fn new(nodes: usize, links: &[Option<GraphLink>]) -> Self {
        assert!(nodes <= 65_535, "hops are counted in 16 bits");
        let mut arcs: Vec<(NodeIx, NodeIx, ArcIx)> = Vec::with_capacity(links.len() * 2);
        let nothing = Figures { cost: 1, delay_us: 0, capacity: None };
        let mut figures = Vec::with_capacity(links.len() * 2);
        let (mut srlg_first, mut srlgs) = (vec![0], Vec::new());
        let mut affinity = Vec::with_capacity(links.len());
        for (i, link) in (0..).zip(links) {
            let of = link.as_ref().map_or(nothing, |link| link.figures);
            figures.extend([of, of]);
            affinity.push(link.as_ref().map_or(0, |link| link.affinity));
            if let Some(GraphLink { a, b, srlgs: groups, .. }) = link {
                assert!(a != b && a.index() < nodes && b.index() < nodes, "a link joins two nodes");
                assert!(of.cost >= 1 && of.cost != DOWN, "a cost is at least 1");
                arcs.push((*a, *b, ArcIx::new(LinkIx(i), true)));
                arcs.push((*b, *a, ArcIx::new(LinkIx(i), false)));
                srlgs.extend(groups);
            }
            srlg_first.push(position(srlgs.len()));
        }
        let mut ends: Vec<Option<Ends>> = vec![None; links.len() * 2];
        arcs.sort_unstable();
        let mut first = vec![0; nodes + 1];
        let edge = |node, arc: ArcIx| {
            let Figures { cost, delay_us, .. } = figures[arc.index()];
            Edge { node, arc, cost, delay_us }
        };
        let mut out = Vec::with_capacity(arcs.len());
        for &(from, to, arc) in &arcs {
            first[from.index() + 1] += 1;
            ends[arc.index()] = Some(Ends { from, to, out: position(out.len()), into: 0 });
            out.push(edge(to, arc));
        }
        for node in 0..nodes {
            first[node + 1] += first[node];
        }
        arcs.sort_unstable_by_key(|&(from, to, arc)| (to, from, arc));
        let mut into = Vec::with_capacity(arcs.len());
        for &(from, _, arc) in &arcs {
            ends[arc.index()].as_mut().expect("entered above").into = position(into.len());
            into.push(edge(from, arc));
        }
        let up = vec![true; figures.len()];
        Self { first, out, into, ends, figures, up, affinity, srlg_first, srlgs }
    }

    /// All links between switches, those that are down marked so.
    pub fn of(snapshot: &Snapshot) -> Self {
        let topology = snapshot.topology();
        let links: Vec<Option<GraphLink>> = topology
            .links
            .iter()
            .map(|link| {
                let a = snapshot.node(link.a.node.as_str())?;
                let b = snapshot.node(link.b.node.as_str())?;
                let us = link.delay.map_or(0, Delay::us);
                let figures = Figures {
                    cost: link.cost.unwrap_or(crate::DEFAULT_COST).max(1),
                    delay_us: u32::try_from(us).unwrap_or(DOWN),
                    capacity: link.capacity,
                };
                let bits = link.affinity.iter().filter_map(|group| snapshot.affinity_bit(group));
                let affinity = bits.fold(0, |set, bit| set | bit);
                Some(GraphLink { a, b, figures, srlgs: link.srlg.clone(), affinity })
            })
            .collect();
        let mut graph = Self::new(snapshot.len(), &links);
        for &link in snapshot.down() {
            graph.set_up(link, false);
        }
        graph
    }

    /// Nodes.
    pub fn len(&self) -> usize {
        self.first.len() - 1
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn nodes(&self) -> impl Iterator<Item = NodeIx> + use<> {
        (0..position(self.len())).map(NodeIx)
    }

    /// Upper bound of `ArcIx::index`, for tables by arc.
    pub fn arc_slots(&self) -> usize {
        self.ends.len()
    }

    pub fn links(&self) -> usize {
        self.affinity.len()
    }

    /// Arcs that start at `node`, by the other node, then by link; those that are down too.
    #[inline]
    pub fn out(&self, node: NodeIx) -> &[Edge] {
        &self.out[self.first[node.index()] as usize..self.first[node.index() + 1] as usize]
    }

    /// Arcs that end at `node`, in the same order.
    #[inline]
    pub fn into(&self, node: NodeIx) -> &[Edge] {
        &self.into[self.first[node.index()] as usize..self.first[node.index() + 1] as usize]
    }

    /// Where an arc starts and ends; `None` for a link with a host, or of no such index.
    #[inline]
    pub fn ends(&self, arc: ArcIx) -> Option<(NodeIx, NodeIx)> {
        self.ends.get(arc.index()).copied().flatten().map(|ends| (ends.from, ends.to))
    }

    /// # Panics
    /// When the arc is not of this graph.
    pub(crate) fn edge(&self, arc: ArcIx) -> &Edge {
        let ends = self.ends[arc.index()].as_ref().expect("an arc of this graph");
        &self.out[ends.out as usize]
    }

    pub(crate) fn start(&self, arc: ArcIx) -> NodeIx {
        self.ends[arc.index()].as_ref().expect("an arc of this graph").from
    }

    pub fn figures(&self, arc: ArcIx) -> &Figures {
        &self.figures[arc.index()]
    }

    pub fn is_up(&self, link: LinkIx) -> bool {
        self.up.get(ArcIx::new(link, true).index()).copied().unwrap_or(false)
    }

    /// Every arc of every link that is up.
    pub fn arcs(&self) -> impl Iterator<Item = ArcIx> + '_ {
        self.out.iter().filter(|edge| edge.is_up()).map(|edge| edge.arc)
    }

    pub fn srlgs(&self, link: LinkIx) -> &[u32] {
        let at = link.index();
        &self.srlgs[self.srlg_first[at] as usize..self.srlg_first[at + 1] as usize]
    }

    pub fn affinity(&self, link: LinkIx) -> u64 {
        self.affinity[link.index()]
    }

    /// A link fails or comes back, in both directions. Constant time.
    pub fn set_up(&mut self, link: LinkIx, up: bool) {
        for arc in [ArcIx::new(link, true), ArcIx::new(link, false)] {
            if self.ends(arc).is_some() {
                self.up[arc.index()] = up;
                self.refresh(arc);
            }
        }
    }

    /// New figures of one direction. Constant time.
    ///
    /// # Panics
    /// When the arc is not of this graph or the cost is 0.
    pub fn set_figures(&mut self, arc: ArcIx, figures: Figures) {
        assert!(figures.cost >= 1 && figures.cost != DOWN, "a cost is at least 1");
        self.figures[arc.index()] = figures;
        self.refresh(arc);
    }

    fn refresh(&mut self, arc: ArcIx) {
        let Some(ends) = self.ends[arc.index()] else { return };
        let Figures { cost, delay_us, .. } = self.figures[arc.index()];
        let cost = if self.up[arc.index()] { cost } else { DOWN };
        for edge in [&mut self.out[ends.out as usize], &mut self.into[ends.into as usize]] {
            (edge.cost, edge.delay_us) = (cost, delay_us);
        }
    }

    /// Whether no link is longer one way than the other: then trees towards a node are trees
    /// from it.
    pub fn is_symmetric(&self, metric: Metric) -> bool {
        self.out.iter().all(|edge| {
            let back = self.edge(edge.arc.reverse());
            edge.is_up() == back.is_up() && edge.length(metric) == back.length(metric)
        })
    }

    /// The arcs of this graph, joined, as a path.
    pub fn path(&self, from: NodeIx, arcs: Vec<ArcIx>) -> Path {
        let mut nodes = Vec::with_capacity(arcs.len() + 1);
        nodes.push(from);
        nodes.extend(arcs.iter().map(|&arc| self.edge(arc).node));
        debug_assert!(arcs.iter().zip(&nodes).all(|(&arc, node)| self.start(arc) == *node));
        Path { nodes, arcs }
    }

    pub fn totals(&self, path: &Path) -> Totals {
        let mut totals = Totals { cost: 0, delay: Delay(0), hops: 0, bottleneck: None };
        for &arc in &path.arcs {
            let figures = self.figures(arc);
            totals.cost += u64::from(figures.cost);
            totals.delay.0 += u64::from(figures.delay_us);
            totals.hops += 1;
            let narrower =
                |(_, known): (ArcIx, BitRate)| figures.capacity.is_some_and(|c| c < known);
            if totals.bottleneck.is_none_or(narrower) {
                totals.bottleneck =
                    figures.capacity.map(|capacity| (arc, capacity)).or(totals.bottleneck);
            }
        }
        totals
    }

    /// The path's length by a metric, whether or not its links are up.
    pub fn length(&self, path: &Path, metric: Metric) -> Length {
        let of = |figures: &Figures| match metric {
            Metric::Cost => u64::from(figures.cost),
            Metric::Delay => u64::from(figures.delay_us),
            Metric::Hops => 1,
        };
        Length(path.arcs.iter().map(|&arc| (of(self.figures(arc)) << HOP_BITS) | 1).sum())
    }
}

/// What a path adds up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    pub cost: u64,
    /// Propagation, as far as it is stated.
    pub delay: Delay,
    pub hops: u32,
    /// The smallest stated capacity and the first arc that has it.
    pub bottleneck: Option<(ArcIx, BitRate)>,
}

fn position(len: usize) -> u32 {
    u32::try_from(len).expect("nodes and links are limited")
}
