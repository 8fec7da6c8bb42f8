//! An immutable picture of the network, in the form computation wants: switches by dense index,
//! links as pairs of arcs, adjacency compressed into two arrays.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use crate::{BitRate, DEFAULT_COST, Delay, End, Graph, Link, NodeName, Topology};

/// A switch, by rising name. The index is good for snapshots of the same topology, also those
/// without some of its links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIx(pub u32);

/// A link, as an index into [`Topology::links`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkIx(pub u32);

/// One direction of a link: from its `a` to its `b`, or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArcIx(u32);

impl ArcIx {
    pub const fn new(link: LinkIx, a_to_b: bool) -> Self {
        Self(link.0 * 2 + if a_to_b { 0 } else { 1 })
    }

    pub const fn link(self) -> LinkIx {
        LinkIx(self.0 / 2)
    }

    pub const fn a_to_b(self) -> bool {
        self.0.is_multiple_of(2)
    }

    pub(crate) const fn raw(self) -> u32 {
        self.0
    }

    pub(crate) const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The same link the other way.
    pub const fn reverse(self) -> Self {
        Self(self.0 ^ 1)
    }
}

impl NodeIx {
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl LinkIx {
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// One direction of a link between two switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arc {
    pub ix: ArcIx,
    pub from: NodeIx,
    pub to: NodeIx,
    /// `None`: not stated, so not limiting.
    pub capacity: Option<BitRate>,
    /// `None`: not stated.
    pub delay: Option<Delay>,
    /// At least 1.
    pub cost: u32,
}

/// The network at one version: immutable, shared behind an `Arc` by whoever computes on it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    version: u64,
    topology: std::sync::Arc<Topology>,
    names: Vec<NodeName>,
    down: BTreeSet<LinkIx>,
    /// Grouped by `from`; within a node by the neighbor's name, then by link.
    arcs: Vec<Arc>,
    /// `first[n]..first[n + 1]` are node `n`'s in `arcs`.
    first: Vec<u32>,
    /// Positions in `arcs`, grouped by `to` in the same way, for walks against the traffic.
    into: Vec<u32>,
    into_first: Vec<u32>,
    /// Position in `arcs` by [`ArcIx`]; `u32::MAX` for one that is not there.
    position: Vec<u32>,
    /// Administrative groups of the topology, by name: a group's index is its bit.
    affinities: Vec<NodeName>,
    graph: OnceLock<std::sync::Arc<Graph>>,
}

impl Snapshot {
    /// The whole topology, every link up.
    pub fn new(topology: std::sync::Arc<Topology>, version: u64) -> Self {
        Self::build(topology, version, BTreeSet::new())
    }

    /// The same network with exactly these links down, whatever was down before.
    #[must_use]
    pub fn with_down(&self, version: u64, down: impl IntoIterator<Item = LinkIx>) -> Self {
        Self::build(self.topology.clone(), version, down.into_iter().collect())
    }

    fn build(topology: std::sync::Arc<Topology>, version: u64, down: BTreeSet<LinkIx>) -> Self {
        let names: Vec<NodeName> = topology.switches().map(|(name, _)| name.clone()).collect();
        let index = |name: &NodeName| names.binary_search(name).ok().map(node_ix);
        let mut arcs = Vec::new();
        for (i, link) in topology.links.iter().enumerate() {
            let ix = LinkIx(u32::try_from(i).expect("links are limited"));
            let (Some(a), Some(b)) = (index(&link.a.node), index(&link.b.node)) else { continue };
            if down.contains(&ix) {
                continue;
            }
            let arc = |from, to, a_to_b| Arc {
                ix: ArcIx::new(ix, a_to_b),
                from,
                to,
                capacity: link.capacity,
                delay: link.delay,
                cost: link.cost.unwrap_or(DEFAULT_COST).max(1),
            };
            arcs.push(arc(a, b, true));
            arcs.push(arc(b, a, false));
        }
        // Indices rise with names, so this is "by the neighbor's name, then by link".
        arcs.sort_by_key(|arc| (arc.from, arc.to, arc.ix));
        let mut into: Vec<u32> = (0..).take(arcs.len()).collect();
        into.sort_by_key(|&at| {
            let arc = &arcs[at as usize];
            (arc.to, arc.from, arc.ix)
        });
        let mut position = vec![u32::MAX; topology.links.len() * 2];
        for (at, arc) in (0..).zip(&arcs) {
            position[arc.ix.0 as usize] = at;
        }
        let first = offsets(names.len(), arcs.iter().map(|arc| arc.from));
        let into_first = offsets(names.len(), arcs.iter().map(|arc| arc.to));
        let groups: BTreeSet<&NodeName> =
            topology.links.iter().flat_map(|link| &link.affinity).collect();
        let affinities = groups.into_iter().cloned().collect();
        let graph = OnceLock::new();
        Self {
            version,
            topology,
            names,
            down,
            arcs,
            first,
            into,
            into_first,
            position,
            affinities,
            graph,
        }
    }

    /// The same for computation, made when first asked for.
    pub fn graph(&self) -> &std::sync::Arc<Graph> {
        self.graph.get_or_init(|| std::sync::Arc::new(Graph::of(self)))
    }

    /// The bit of an administrative group in [`crate::Affinity`]; `None` when no link is in it.
    pub fn affinity_bit(&self, group: &NodeName) -> Option<u64> {
        let at = self.affinities.binary_search(group).ok()?;
        (at < 64).then(|| 1 << at)
    }

    /// Administrative groups that links are in, by name.
    pub fn affinities(&self) -> &[NodeName] {
        &self.affinities
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn topology(&self) -> &std::sync::Arc<Topology> {
        &self.topology
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub fn nodes(&self) -> impl Iterator<Item = NodeIx> + use<> {
        (0..self.names.len()).map(node_ix)
    }

    /// The switch of that name; hosts have no index.
    pub fn node(&self, name: &str) -> Option<NodeIx> {
        self.names.binary_search_by(|known| known.as_str().cmp(name)).ok().map(node_ix)
    }

    pub fn name(&self, node: NodeIx) -> &NodeName {
        &self.names[node.index()]
    }

    pub fn is_down(&self, link: LinkIx) -> bool {
        self.down.contains(&link)
    }

    pub fn down(&self) -> &BTreeSet<LinkIx> {
        &self.down
    }

    /// Every arc of links between switches that are up.
    pub fn arcs(&self) -> &[Arc] {
        &self.arcs
    }

    pub fn arcs_from(&self, node: NodeIx) -> &[Arc] {
        let (start, end) = (self.first[node.index()], self.first[node.index() + 1]);
        &self.arcs[start as usize..end as usize]
    }

    pub fn arcs_into(&self, node: NodeIx) -> impl Iterator<Item = &Arc> {
        let (start, end) = (self.into_first[node.index()], self.into_first[node.index() + 1]);
        self.into[start as usize..end as usize].iter().map(|&at| &self.arcs[at as usize])
    }

    /// `None` when its link is down, or leads to a host.
    pub fn arc(&self, ix: ArcIx) -> Option<&Arc> {
        self.arcs.get(*self.position.get(ix.0 as usize)? as usize)
    }

    /// Upper bound of `ArcIx::index` in this snapshot, for tables by arc.
    pub fn arc_slots(&self) -> usize {
        self.position.len()
    }

    pub fn link(&self, ix: LinkIx) -> &Link {
        &self.topology.links[ix.index()]
    }

    /// The sending and the receiving end of an arc.
    pub fn ends(&self, ix: ArcIx) -> (&End, &End) {
        let link = self.link(ix.link());
        if ix.a_to_b() { (&link.a, &link.b) } else { (&link.b, &link.a) }
    }

    /// The link that a switch's port belongs to.
    pub fn link_at(&self, end: &End) -> Option<LinkIx> {
        let at = self.topology.links.iter().position(|link| link.a == *end || link.b == *end)?;
        Some(LinkIx(u32::try_from(at).expect("links are limited")))
    }

    /// Where the topology file puts each host: (host, switch, link).
    pub fn attachments(&self) -> BTreeMap<NodeName, (NodeIx, LinkIx)> {
        let mut found = BTreeMap::new();
        for (i, link) in (0..).zip(&self.topology.links) {
            for (host, switch) in [(&link.a, &link.b), (&link.b, &link.a)] {
                let is_host =
                    self.topology.nodes.get(&host.node).is_some_and(|n| n.as_host().is_some());
                if let (true, Some(switch)) = (is_host, self.node(switch.node.as_str())) {
                    found.insert(host.node.clone(), (switch, LinkIx(i)));
                }
            }
        }
        found
    }
}

impl ArcIx {
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

fn node_ix(index: usize) -> NodeIx {
    NodeIx(u32::try_from(index).expect("nodes are limited"))
}

/// Where each node's run starts in a sequence sorted by node.
fn offsets(nodes: usize, sorted: impl Iterator<Item = NodeIx>) -> Vec<u32> {
    let mut first = vec![0; nodes + 1];
    for node in sorted {
        first[node.index() + 1] += 1;
    }
    for i in 0..nodes {
        first[i + 1] += first[i];
    }
    first
}
