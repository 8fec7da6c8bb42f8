//! What a path has to keep to.

use std::collections::BTreeSet;

use crate::{BitRate, Delay, Edge, Graph, LinkIx, NodeIx};

/// Nodes, links and shared-risk groups that a path must pass, or must not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elements {
    pub nodes: BTreeSet<NodeIx>,
    pub links: BTreeSet<LinkIx>,
    pub srlgs: BTreeSet<u32>,
}

impl Elements {
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.links.is_empty() && self.srlgs.is_empty()
    }

    pub fn len(&self) -> usize {
        self.nodes.len() + self.links.len() + self.srlgs.len()
    }

    /// Each alone.
    pub(crate) fn each(&self) -> impl Iterator<Item = Self> + '_ {
        let nodes = self.nodes.iter().map(|node| Self { nodes: [*node].into(), ..Self::default() });
        let links = self.links.iter().map(|link| Self { links: [*link].into(), ..Self::default() });
        let srlgs = self.srlgs.iter().map(|srlg| Self { srlgs: [*srlg].into(), ..Self::default() });
        nodes.chain(links).chain(srlgs)
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.nodes.extend(other.nodes);
        self.links.extend(other.links);
        self.srlgs.extend(other.srlgs);
    }

    pub(crate) fn remove(&mut self, other: &Self) {
        self.nodes.retain(|node| !other.nodes.contains(node));
        self.links.retain(|link| !other.links.contains(link));
        self.srlgs.retain(|srlg| !other.srlgs.contains(srlg));
    }
}

/// Administrative groups as in RFC 3209 §4.7.4, a bit each; 0 asks for nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Affinity {
    /// A link with any of these is not used.
    pub exclude_any: u64,
    /// A link has at least one of these.
    pub include_any: u64,
    /// A link has each of these.
    pub include_all: u64,
}

impl Affinity {
    pub const fn allows(&self, groups: u64) -> bool {
        groups & self.exclude_any == 0
            && (self.include_any == 0 || groups & self.include_any != 0)
            && groups & self.include_all == self.include_all
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Everything optional; the default asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Constraints {
    /// Propagation along the whole path; a link without a stated delay counts 0.
    pub max_delay: Option<Delay>,
    pub max_hops: Option<u32>,
    /// Links of less capacity are not used; one without a stated capacity is.
    pub bandwidth: Option<BitRate>,
    /// The two ends are used even if they are listed.
    pub exclude: Elements,
    /// Each is passed at least once, in any order; of a group one of its links. At most
    /// [`MAX_INCLUDES`].
    pub include: Elements,
    pub affinity: Affinity,
}

/// Elements that one path can be asked to pass.
pub const MAX_INCLUDES: usize = 16;

/// The constraints apart, as what a refusal names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Delay,
    Hops,
    Bandwidth,
    Affinity,
    Exclude,
    Include,
}

impl Kind {
    pub const ALL: [Self; 6] =
        [Self::Delay, Self::Hops, Self::Bandwidth, Self::Affinity, Self::Exclude, Self::Include];
}

impl Constraints {
    /// Whether every arc may be used.
    pub fn allow_all_arcs(&self) -> bool {
        self.bandwidth.is_none() && self.exclude.is_empty() && self.affinity.is_empty()
    }

    /// Whether any path between the two nodes may use an arc that leads to or from
    /// `edge.node`.
    pub(crate) fn allows(&self, graph: &Graph, (from, to): (NodeIx, NodeIx), edge: &Edge) -> bool {
        self.wide_enough(graph, edge)
            && self.has_affinity(graph, edge)
            && self.spares(graph, (from, to), edge)
    }

    pub(crate) fn wide_enough(&self, graph: &Graph, edge: &Edge) -> bool {
        let capacity = graph.figures(edge.arc).capacity;
        capacity.zip(self.bandwidth).is_none_or(|(capacity, wanted)| capacity >= wanted)
    }

    pub(crate) fn has_affinity(&self, graph: &Graph, edge: &Edge) -> bool {
        self.affinity.allows(graph.affinity(edge.arc.link()))
    }

    /// Whether it touches nothing that is excluded.
    pub(crate) fn spares(&self, graph: &Graph, (from, to): (NodeIx, NodeIx), edge: &Edge) -> bool {
        let exclude = &self.exclude;
        let node = |node: NodeIx| node == from || node == to || !exclude.nodes.contains(&node);
        let srlgs =
            || graph.srlgs(edge.arc.link()).iter().all(|srlg| !exclude.srlgs.contains(srlg));
        (exclude.nodes.is_empty() || (node(edge.node) && node(graph.start(edge.arc))))
            && !exclude.links.contains(&edge.arc.link())
            && (exclude.srlgs.is_empty() || srlgs())
    }

    /// Kinds that ask for something.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> + '_ {
        Kind::ALL.into_iter().filter(|kind| match kind {
            Kind::Delay => self.max_delay.is_some(),
            Kind::Hops => self.max_hops.is_some(),
            Kind::Bandwidth => self.bandwidth.is_some(),
            Kind::Affinity => !self.affinity.is_empty(),
            Kind::Exclude => !self.exclude.is_empty(),
            Kind::Include => !self.include.is_empty(),
        })
    }

    /// The same without those of one kind.
    #[must_use]
    pub fn without(mut self, kind: Kind) -> Self {
        match kind {
            Kind::Delay => self.max_delay = None,
            Kind::Hops => self.max_hops = None,
            Kind::Bandwidth => self.bandwidth = None,
            Kind::Affinity => self.affinity = Affinity::default(),
            Kind::Exclude => self.exclude = Elements::default(),
            Kind::Include => self.include = Elements::default(),
        }
        self
    }
}
