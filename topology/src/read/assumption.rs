//! What a reader took for granted. Nothing is guessed in silence: each guess is one of these.

use std::fmt;

use crate::{DEFAULT_COST, Topology};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assumption {
    /// Parts that no link joins: each part's size and first node, largest part first.
    Disconnected { parts: Vec<(usize, String)> },
    /// Links between switches without a capacity do not limit anything.
    NoCapacity { links: usize, of: usize },
    /// Links between switches without a delay count 0.
    NoDelay { links: usize, of: usize },
    /// Links between switches without a cost count [`DEFAULT_COST`].
    NoCost { links: usize, of: usize },
    /// Switches without a place; the delay of their links cannot be computed.
    NoPosition { nodes: Vec<String> },
    /// Labels that are no valid or no unique names.
    Renamed { names: Vec<(String, String)> },
    /// Links from a node to itself, left out.
    SelfLinks { count: usize, example: String },
    /// A directed link whose two directions differ: the worse figures hold for both.
    Asymmetric { count: usize, example: String },
    /// A directed link without its way back: taken as one in both directions.
    OneWay { count: usize, example: String },
    /// Hosts that no link attaches.
    Unattached { hosts: Vec<String> },
}

impl Assumption {
    /// Whether a reader of the file should be warned, rather than told when they ask.
    pub fn is_warning(&self) -> bool {
        match self {
            Self::Disconnected { .. }
            | Self::SelfLinks { .. }
            | Self::Asymmetric { .. }
            | Self::OneWay { .. }
            | Self::Unattached { .. } => true,
            Self::NoCapacity { .. }
            | Self::NoDelay { .. }
            | Self::NoCost { .. }
            | Self::NoPosition { .. }
            | Self::Renamed { .. } => false,
        }
    }
}

/// At most three of a list, and how many more.
fn some(names: impl ExactSizeIterator<Item = String>) -> String {
    let count = names.len();
    let shown: Vec<String> = names.take(3).collect();
    let rest = count - shown.len();
    let more = if rest == 0 { String::new() } else { format!(" and {rest} more") };
    format!("{}{more}", shown.join(", "))
}

impl fmt::Display for Assumption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disconnected { parts } => {
                let list = parts.iter().map(|(size, first)| format!("{size} around {first}"));
                write!(f, "the network falls into {} parts: {}", parts.len(), some(list))
            }
            Self::NoCapacity { links, of } => write!(
                f,
                "{links} of {of} links between switches state no capacity: nothing limits them"
            ),
            Self::NoDelay { links, of } => {
                write!(f, "{links} of {of} links between switches state no delay: it counts 0")
            }
            Self::NoCost { links, of } => write!(
                f,
                "{links} of {of} links between switches state no cost: it counts {DEFAULT_COST}"
            ),
            Self::NoPosition { nodes } => write!(
                f,
                "{} nodes have no coordinates, so the delay of their links is unknown: {}",
                nodes.len(),
                some(nodes.iter().cloned())
            ),
            Self::Renamed { names } => {
                let list = names.iter().map(|(from, to)| format!("{from:?} -> {to}"));
                write!(f, "{} labels are not names of their own: {}", names.len(), some(list))
            }
            Self::SelfLinks { count, example } => {
                write!(f, "{count} links from a node to itself left out, such as {example}")
            }
            Self::Asymmetric { count, example } => write!(
                f,
                "{count} links differ by direction, such as {example}: the worse figures hold for \
                 both"
            ),
            Self::OneWay { count, example } => write!(
                f,
                "{count} links are stated in one direction only, such as {example}: taken as both"
            ),
            Self::Unattached { hosts } => {
                write!(f, "{} hosts have no link: {}", hosts.len(), some(hosts.iter().cloned()))
            }
        }
    }
}

/// What any topology leaves open, whatever file it came from.
pub(super) fn of_topology(topology: &Topology) -> Vec<Assumption> {
    let mut found = Vec::new();
    let parts = parts(topology);
    if parts.len() > 1 {
        found.push(Assumption::Disconnected { parts });
    }
    let fabric: Vec<_> = topology
        .links
        .iter()
        .filter(|link| {
            let switch = |name| topology.nodes.get(name).is_some_and(|n| n.as_switch().is_some());
            switch(&link.a.node) && switch(&link.b.node)
        })
        .collect();
    let of = fabric.len();
    let without = |missing: fn(&crate::Link) -> bool| fabric.iter().filter(|l| missing(l)).count();
    match without(|link| link.capacity.is_none()) {
        0 => {}
        links => found.push(Assumption::NoCapacity { links, of }),
    }
    match without(|link| link.delay.is_none()) {
        0 => {}
        links => found.push(Assumption::NoDelay { links, of }),
    }
    match without(|link| link.cost.is_none()) {
        0 => {}
        links => found.push(Assumption::NoCost { links, of }),
    }
    let linked: std::collections::BTreeSet<_> =
        topology.links.iter().flat_map(|link| [&link.a.node, &link.b.node]).collect();
    let unattached: Vec<String> = topology
        .hosts()
        .filter(|(name, _)| !linked.contains(name))
        .map(|(name, _)| name.to_string())
        .collect();
    if !unattached.is_empty() {
        found.push(Assumption::Unattached { hosts: unattached });
    }
    found
}

/// Connected parts of the switches: size and first name, largest first.
fn parts(topology: &Topology) -> Vec<(usize, String)> {
    let snapshot = crate::Snapshot::new(std::sync::Arc::new(topology.clone()), 0);
    let mut part = vec![false; snapshot.len()];
    let mut parts = Vec::new();
    for first in snapshot.nodes() {
        if std::mem::replace(&mut part[first.index()], true) {
            continue;
        }
        let (mut size, mut stack) = (0, vec![first]);
        while let Some(node) = stack.pop() {
            size += 1;
            for arc in snapshot.arcs_from(node) {
                if !std::mem::replace(&mut part[arc.to.index()], true) {
                    stack.push(arc.to);
                }
            }
        }
        parts.push((size, snapshot.name(first).to_string()));
    }
    parts.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    parts
}
