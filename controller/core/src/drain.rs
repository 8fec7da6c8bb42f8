//! Nodes and links that are to be empty, for work on them.
//!
//! What is drained is left out of the network that paths are computed in, so slices and the
//! fabric's own trees avoid it, and the plan that follows is made before anything is broken. It
//! is never left out at the price of a connection: where nothing else joins two parts, or leads
//! to an endpoint that is attached to a drained node, just so much of it stays in use. A drain
//! that would begin so is refused; after it, when a link fails elsewhere, it is the last resort.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use selvedge_topology::problem::nearest;
use selvedge_topology::{DEFAULT_COST, End, Link, LinkIx, NodeName, Topology};
use serde::{Deserialize, Serialize};

use crate::Core;
use crate::event::{Target, TargetKind};
use crate::intent::Intent;
use crate::network::{LinkState, Reason};
use crate::refusal::Refusal;

/// Names that a message lists at most.
const NAMED: usize = 4;

/// A node, or a link by its ends as they are declared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Drained {
    Node(NodeName),
    Link(End, End),
}

/// Who drained it, and why.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DrainMeta {
    pub(crate) author: String,
    /// Empty: none was given.
    pub(crate) reason: String,
    pub(crate) at_ms: u64,
}

impl fmt::Display for Drained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node {node}"),
            Self::Link(a, b) => write!(f, "link {a} - {b}"),
        }
    }
}

impl fmt::Display for DrainMeta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = if self.reason.is_empty() { "" } else { ": " };
        write!(f, "by {}{why}{}", self.author, self.reason)
    }
}

/// Links between switches.
fn fabric(topology: &Topology) -> impl Iterator<Item = (LinkIx, &Link)> {
    let switch = |end: &End| topology.nodes.get(&end.node).is_some_and(|n| n.as_switch().is_some());
    let links = (0..).map(LinkIx).zip(&topology.links);
    links.filter(move |(_, link)| switch(&link.a) && switch(&link.b))
}

/// What an operator named: a switch; or a link by an end, `s1:p2`, or by both, `s1 - s2` or
/// `s1:p2 - s2:p1`.
pub(crate) fn resolve(target: &Target, topology: &Topology) -> Result<Drained, Refusal> {
    let name = target.name.trim();
    match target.kind {
        TargetKind::Node => {
            let switches = || topology.switches().map(|(name, _)| name);
            match switches().find(|switch| switch.as_str() == name) {
                Some(switch) => Ok(Drained::Node(switch.clone())),
                None => Err(Refusal::UnknownNode {
                    name: name.to_owned(),
                    near: nearest(name, switches().map(NodeName::as_str)).map(str::to_owned),
                }),
            }
        }
        TargetKind::Link => link(name, topology),
    }
}

fn link(name: &str, topology: &Topology) -> Result<Drained, Refusal> {
    let (a, b) = name.split_once(" - ").map_or((name, None), |(a, b)| (a, Some(b)));
    let is = |text: &str, end: &End| text == end.node.as_str() || text == end.to_string();
    let matches = |link: &Link| match b {
        // One end alone is a port: a node has several links.
        None => a == link.a.to_string() || a == link.b.to_string(),
        Some(b) => (is(a, &link.a) && is(b, &link.b)) || (is(a, &link.b) && is(b, &link.a)),
    };
    let found: Vec<&Link> =
        fabric(topology).map(|(_, link)| link).filter(|link| matches(link)).collect();
    match found[..] {
        [link] => Ok(Drained::of(link)),
        [] => {
            let texts: Vec<String> = fabric(topology)
                .flat_map(|(_, link)| match b {
                    None => vec![link.a.to_string(), link.b.to_string()],
                    Some(_) if name.contains(':') => {
                        vec![format!("{} - {}", link.a, link.b), format!("{} - {}", link.b, link.a)]
                    }
                    Some(_) => vec![
                        format!("{} - {}", link.a.node, link.b.node),
                        format!("{} - {}", link.b.node, link.a.node),
                    ],
                })
                .collect();
            let near = nearest(name, texts.iter().map(String::as_str)).map(str::to_owned);
            Err(Refusal::UnknownLink { name: name.to_owned(), near })
        }
        _ => {
            let links = found.iter().take(NAMED).map(ToString::to_string).collect();
            Err(Refusal::SeveralLinks { name: name.to_owned(), links })
        }
    }
}

/// What of the network is left, and what is left out for a drain.
pub(crate) struct Left {
    /// Usable links that are left out.
    pub(crate) avoided: BTreeSet<LinkIx>,
    /// Drained links, and links of drained nodes, that stay in use.
    kept: BTreeSet<LinkIx>,
}

/// `usable`: links that could carry packets. `occupied`: nodes that something is attached to.
pub(crate) fn left(
    topology: &Topology,
    intent: &Intent,
    usable: impl Iterator<Item = LinkIx>,
    occupied: &BTreeSet<NodeName>,
) -> Left {
    let mut left = Left { avoided: BTreeSet::new(), kept: BTreeSet::new() };
    if intent.drained.is_empty() {
        return left;
    }
    let mut parts = Parts::new(topology);
    let mut candidates = Vec::new();
    for ix in usable {
        let link = &topology.links[ix.index()];
        let nodes = usize::from(intent.is_drained(&link.a.node))
            + usize::from(intent.is_drained(&link.b.node));
        let itself = intent.drained.contains_key(&Drained::of(link));
        if nodes == 0 && !itself {
            parts.join(link);
        } else {
            candidates.push((nodes, itself, link.cost.unwrap_or(DEFAULT_COST), ix));
        }
    }
    // Kruskal's algorithm: as few of them as hold together what can be held together.
    candidates.sort_unstable();
    for (.., ix) in candidates {
        let set = if parts.join(&topology.links[ix.index()]) {
            &mut left.kept
        } else {
            &mut left.avoided
        };
        set.insert(ix);
    }
    left.prune(topology, intent, occupied);
    left
}

impl Left {
    /// Nothing has to lead to a drained node that nothing is attached to.
    fn prune(&mut self, topology: &Topology, intent: &Intent, occupied: &BTreeSet<NodeName>) {
        loop {
            let mut degree: BTreeMap<&NodeName, usize> = BTreeMap::new();
            for ix in &self.kept {
                let link = &topology.links[ix.index()];
                for node in [&link.a.node, &link.b.node] {
                    *degree.entry(node).or_default() += 1;
                }
            }
            let idle = |node: &NodeName| {
                intent.is_drained(node) && !occupied.contains(node) && degree[node] == 1
            };
            let gone = self.kept.iter().copied().find(|ix| {
                let link = &topology.links[ix.index()];
                idle(&link.a.node) || idle(&link.b.node)
            });
            let Some(ix) = gone else { return };
            self.kept.remove(&ix);
            self.avoided.insert(ix);
        }
    }

    /// Whether packets of others still go through it.
    fn is_needed(&self, what: &Drained, topology: &Topology) -> bool {
        let of = |link: &Link| match what {
            Drained::Node(node) => link.a.node == *node || link.b.node == *node,
            Drained::Link(..) => *what == Drained::of(link),
        };
        let kept = self.kept.iter().filter(|ix| of(&topology.links[ix.index()])).count();
        match what {
            // The one link that leads to what is attached there.
            Drained::Node(_) => kept > 1,
            Drained::Link(..) => kept > 0,
        }
    }

    /// What `what` alone leads to: the nodes of the smallest part that is left without it.
    fn behind(&self, what: &Drained, topology: &Topology, usable: &[LinkIx]) -> Vec<NodeName> {
        let mut parts = Parts::new(topology);
        let without = |link: &Link| match what {
            Drained::Node(node) => link.a.node != *node && link.b.node != *node,
            Drained::Link(..) => *what != Drained::of(link),
        };
        for ix in usable.iter().filter(|ix| !self.avoided.contains(ix)) {
            let link = &topology.links[ix.index()];
            if without(link) {
                parts.join(link);
            }
        }
        // Of the parts that a kept link of it leads to.
        let mut beside: BTreeSet<NodeName> = BTreeSet::new();
        for ix in &self.kept {
            let link = &topology.links[ix.index()];
            if !without(link) {
                let own = |node: &NodeName| matches!(what, Drained::Node(n) if n == node);
                let ends = [&link.a.node, &link.b.node].into_iter();
                beside.extend(ends.filter(|node| !own(node)).cloned());
            }
        }
        let mut found: BTreeMap<usize, Vec<NodeName>> = BTreeMap::new();
        for (name, _) in topology.switches() {
            found.entry(parts.of(name)).or_default().push(name.clone());
        }
        let roots: BTreeSet<usize> = beside.iter().map(|node| parts.of(node)).collect();
        found.retain(|root, _| roots.contains(root));
        found
            .into_values()
            .min_by_key(|nodes| (nodes.len(), Reverse(nodes.clone())))
            .unwrap_or_default()
    }
}

/// Union-find over switches.
struct Parts<'a> {
    index: BTreeMap<&'a NodeName, usize>,
    parent: Vec<usize>,
}

impl<'a> Parts<'a> {
    fn new(topology: &'a Topology) -> Self {
        let index: BTreeMap<_, _> =
            topology.switches().map(|(name, _)| name).zip(0usize..).collect();
        Self { parent: (0..index.len()).collect(), index }
    }

    fn of(&mut self, node: &NodeName) -> usize {
        let mut at = self.index[node];
        while self.parent[at] != at {
            self.parent[at] = self.parent[self.parent[at]];
            at = self.parent[at];
        }
        at
    }

    /// False: they were in one part already.
    fn join(&mut self, link: &Link) -> bool {
        let (a, b) = (self.of(&link.a.node), self.of(&link.b.node));
        self.parent[a] = b;
        a != b
    }
}

impl Intent {
    pub(crate) fn is_drained(&self, node: &NodeName) -> bool {
        self.drained.contains_key(&Drained::Node(node.clone()))
    }

    /// What a later intent has drained and undrained: `drain node s1`.
    pub(crate) fn operations(&self, later: &Self) -> Vec<String> {
        let only = |a: &Self, b: &Self, verb: &str| -> Vec<String> {
            let only = a.drained.keys().filter(|what| !b.drained.contains_key(*what));
            only.map(|what| format!("{verb} {what}")).collect()
        };
        [only(later, self, "drain"), only(self, later, "undrain")].concat()
    }

    /// What is drained that was not before, for people.
    pub(crate) fn newly_drained(&self, before: &Self) -> Option<String> {
        let new = self.drained.keys().filter(|what| !before.drained.contains_key(*what));
        let new: Vec<String> = new.map(ToString::to_string).collect();
        (!new.is_empty()).then(|| new.join(" and "))
    }
}

impl Core {
    /// What is left of the network with these links: of those that are down only because a
    /// switch has not joined, `waiting` says whether they count.
    pub(crate) fn left(&self, links: &BTreeMap<LinkIx, LinkState>, waiting: bool) -> Left {
        let usable = links.iter().filter(|(_, state)| is_usable(state, waiting));
        let topology = &self.network.topology;
        left(topology, &self.intent, usable.map(|(ix, _)| *ix), &self.occupied())
    }

    fn occupied(&self) -> BTreeSet<NodeName> {
        if self.intent.drained.is_empty() {
            return BTreeSet::new();
        }
        let hosts = self.network.topology.hosts();
        hosts.filter_map(|(host, _)| Some(self.place(host)?.0)).collect()
    }

    /// Endpoints at a node, and for each the slices that name it.
    fn attached_to(&self, node: &NodeName) -> Vec<(NodeName, Vec<String>)> {
        let hosts = self.network.topology.hosts().map(|(host, _)| host);
        let here = hosts.filter(|host| self.place(host).is_some_and(|(at, _)| at == *node));
        let slices = |host: &NodeName| {
            let slices = self.intent.slices.naming(host);
            slices.map(ToString::to_string).collect()
        };
        here.map(|host| (host.clone(), slices(host))).collect()
    }

    /// The intent with what is to be drained and undrained; `None`: it is so already.
    pub(crate) fn with_drains(
        &self,
        (drain, undrain): (&[Target], &[Target]),
        next: Option<Intent>,
        meta: &DrainMeta,
    ) -> Result<Option<Intent>, Refusal> {
        let mut drained = self.intent.drained.clone();
        for target in drain {
            let what = resolve(target, &self.network.topology)?;
            drained.entry(what).or_insert_with(|| meta.clone());
        }
        for target in undrain {
            // What is no longer declared can be forgotten, too.
            let known = drained.keys().find(|what| what.is(target)).cloned();
            let what = known.map_or_else(|| resolve(target, &self.network.topology), Ok)?;
            drained.remove(&what);
        }
        if drained == self.intent.drained {
            return Ok(next);
        }
        let next = next.unwrap_or_else(|| Intent {
            revision: self.intent.revision + 1,
            ..self.intent.clone()
        });
        Ok(Some(Intent { drained, ..next }))
    }

    /// What a trial's intent drains anew, or what in it is attached to what is drained.
    ///
    /// # Errors
    /// A drain that something stands against: a slice's endpoint is attached to the node, or
    /// nothing else joins what it joins.
    pub(crate) fn check_drains(&self, trial: &Self) -> Result<(), Refusal> {
        let (before, after) = (&self.intent, &trial.intent);
        for what in after.drained.keys() {
            let Drained::Node(node) = what else { continue };
            let is_new = !before.drained.contains_key(what);
            for (endpoint, slices) in trial.attached_to(node) {
                let put = |slice: &&String| {
                    let stored = after.slices.get(slice.as_str());
                    stored.is_some_and(|stored| stored.meta.revision == after.revision)
                };
                let node = node.to_string();
                let endpoint = endpoint.to_string();
                if is_new && !slices.is_empty() {
                    return Err(Refusal::DrainNeeded { node, endpoint, slices });
                }
                if let Some(slice) = slices.iter().find(put) {
                    return Err(Refusal::AtDrained { slice: slice.clone(), endpoint, node });
                }
            }
        }
        let Some(what) = after.newly_drained(before) else { return Ok(()) };
        let topology = &trial.network.topology;
        let links = trial.network.link_states();
        let (old, new) = (self.left(&links, true), trial.left(&links, true));
        let needed = after
            .drained
            .keys()
            .find(|what| new.is_needed(what, topology) && !old.is_needed(what, topology));
        let Some(needed) = needed else { return Ok(()) };
        let usable = links.iter().filter(|(_, state)| is_usable(state, true));
        let usable: Vec<LinkIx> = usable.map(|(ix, _)| *ix).collect();
        let behind = new.behind(needed, topology, &usable);
        let mut names: Vec<String> = behind.iter().take(NAMED).map(ToString::to_string).collect();
        if behind.len() > NAMED {
            names.push(format!("{} more", behind.len() - NAMED));
        }
        Err(Refusal::DrainCuts { what, behind: names.join(", ") })
    }

    /// What a plan has to say of newly drained nodes.
    pub(crate) fn drain_warnings(&self, trial: &Self) -> Vec<String> {
        let new = |what: &&Drained| !self.intent.drained.contains_key(*what);
        let nodes = trial.intent.drained.keys().filter(new).filter_map(|what| match what {
            Drained::Node(node) => Some(node),
            Drained::Link(..) => None,
        });
        let warning = |node: &NodeName| {
            let attached = trial.attached_to(node);
            let names: Vec<&str> = attached.iter().map(|(name, _)| name.as_str()).collect();
            let text = names.join(", ");
            (!names.is_empty()).then(|| {
                format!(
                    "node {node}: {text} attached there, in no slice: served over one of its \
                     links until it goes, and cut off then"
                )
            })
        };
        nodes.filter_map(warning).collect()
    }

    /// Why a node is drained, for people; `None`: it is not.
    pub(crate) fn node_drained(&self, node: &NodeName) -> Option<String> {
        let meta = self.intent.drained.get(&Drained::Node(node.clone()))?;
        Some(meta.to_string())
    }

    /// Why a link is avoided, or would be if there were another way; `None`: it is not.
    pub(crate) fn link_drained(&self, ix: LinkIx) -> Option<String> {
        let link = self.network.link(ix);
        let itself = self.intent.drained.get(&Drained::of(link));
        let node = || {
            let mut ends = [&link.a.node, &link.b.node].into_iter();
            let node = ends.find(|node| self.intent.is_drained(node))?;
            Some(format!("with node {node}"))
        };
        let why = itself.map(ToString::to_string).or_else(node)?;
        let in_use = !self.derived.snapshot.down().contains(&ix);
        Some(if in_use { format!("{why}; in use: there is no other way") } else { why })
    }

    /// Everything that is drained, for people.
    pub(crate) fn drains(&self) -> Vec<String> {
        let drained = self.intent.drained.iter();
        drained.map(|(what, meta)| format!("{what} ({meta})")).collect()
    }
}

impl Drained {
    fn of(link: &Link) -> Self {
        Self::Link(link.a.clone(), link.b.clone())
    }

    fn is(&self, target: &Target) -> bool {
        let kind = match self {
            Self::Node(_) => TargetKind::Node,
            Self::Link(..) => TargetKind::Link,
        };
        kind == target.kind
            && self.to_string().split_once(' ').is_some_and(|(_, n)| n == target.name)
    }

    /// The last part of its key in the store: nothing else has it.
    pub(crate) fn key(&self) -> String {
        match self {
            Self::Node(node) => format!("node/{node}"),
            Self::Link(a, _) => format!("link/{a}"),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// A node, or node and port of both ends of a link.
    what: Vec<String>,
    author: String,
    reason: String,
    at_ms: u64,
}

pub(crate) fn record(what: &Drained, meta: &DrainMeta) -> Vec<u8> {
    let what = match what {
        Drained::Node(node) => vec![node.to_string()],
        Drained::Link(a, b) => {
            let parts = [a, b].into_iter();
            parts.flat_map(|end| [end.node.to_string(), end.port.to_string()]).collect()
        }
    };
    let DrainMeta { author, reason, at_ms } = meta.clone();
    crate::records::json(&Record { what, author, reason, at_ms })
}

pub(crate) fn restore(value: &[u8]) -> Result<(Drained, DrainMeta), String> {
    let Record { what, author, reason, at_ms } = crate::records::parse(value)?;
    let end = |node: &str, port: &str| {
        let node = node.parse().map_err(|error| format!("{error}"))?;
        let port = port.parse().map_err(|error| format!("{error}"))?;
        Ok::<_, String>(End { node, port })
    };
    let what = match &what[..] {
        [node] => Drained::Node(node.parse().map_err(|error| format!("{error}"))?),
        [a, a_port, b, b_port] => Drained::Link(end(a, a_port)?, end(b, b_port)?),
        _ => return Err(String::from("neither a node nor a link")),
    };
    Ok((what, DrainMeta { author, reason, at_ms }))
}

fn is_usable(state: &LinkState, waiting: bool) -> bool {
    match state {
        LinkState::Usable { .. } => true,
        LinkState::Unusable(Reason::NotJoined(_)) => waiting,
        LinkState::Unusable(_) => false,
    }
}
