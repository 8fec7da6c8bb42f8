//! What a slice is protected against, and what a backup has to stay clear of.

use std::collections::BTreeSet;

use selvedge_topology::{Arc, ArcIx, LinkIx, NodeIx, Path, Snapshot};

use crate::Availability;

/// The failures, one at a time, that leave a slice its promises. Each level includes those
/// before it; the switches at both ends of a way are never protected against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protection {
    #[default]
    None,
    /// Any one link.
    Link,
    /// Any one link or switch on the way.
    Node,
    /// Any one link, switch or shared-risk group.
    Srlg,
}

impl Protection {
    pub const ALL: [Self; 4] = [Self::None, Self::Link, Self::Node, Self::Srlg];

    /// What a promised share of time asks for. A link that is mended within hours is out for a
    /// few minutes in 10,000, a switch or a duct more rarely and for longer: 99.9 % is out of
    /// reach of one link alone, 99.99 % of one switch, 99.999 % of one duct.
    pub fn of(availability: Option<Availability>) -> Self {
        match availability.map_or(0, Availability::ppm) {
            0..999_000 => Self::None,
            999_000..999_900 => Self::Link,
            999_900..999_990 => Self::Node,
            _ => Self::Srlg,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Link => "link",
            Self::Node => "node",
            Self::Srlg => "srlg",
        }
    }
}

impl std::fmt::Display for Protection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// One thing that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    Link(LinkIx),
    Node(NodeIx),
    /// Every link of this shared-risk group.
    Group(u32),
}

impl Failure {
    /// The links it takes down.
    pub fn links(self, snapshot: &Snapshot) -> Vec<LinkIx> {
        let all = (0..).map(LinkIx).zip(&snapshot.topology().links);
        match self {
            Self::Link(link) => vec![link],
            Self::Node(node) => {
                let name = snapshot.name(node);
                let touches = all.filter(|(_, link)| link.seen_from(name).is_some());
                touches.map(|(ix, _)| ix).collect()
            }
            Self::Group(group) => {
                all.filter(|(_, link)| link.srlg.contains(&group)).map(|(ix, _)| ix).collect()
            }
        }
    }

    /// In the order of failures, to compare in one step.
    pub(super) fn key(self) -> u64 {
        let (kind, number) = match self {
            Self::Link(link) => (0, link.0),
            Self::Node(node) => (1, node.0),
            Self::Group(group) => (2, group),
        };
        kind << 32 | u64::from(number)
    }

    pub(super) fn describe(self, snapshot: &Snapshot) -> String {
        match self {
            Self::Link(link) => format!("link {}", snapshot.link(link)),
            Self::Node(node) => format!("switch {}", snapshot.name(node)),
            Self::Group(group) => format!("shared-risk group {group}"),
        }
    }
}

/// The failures that a path does not survive, as far as a level goes; in order.
pub fn failures(snapshot: &Snapshot, path: &Path, level: Protection) -> Vec<Failure> {
    let mut failures = BTreeSet::new();
    if level >= Protection::Link {
        failures.extend(path.arcs.iter().map(|arc| Failure::Link(arc.link())));
    }
    if level >= Protection::Node {
        let within = |node: &&NodeIx| **node != path.from() && **node != path.to();
        failures.extend(path.nodes.iter().filter(within).map(|node| Failure::Node(*node)));
    }
    if level >= Protection::Srlg {
        let groups = path.arcs.iter().flat_map(|arc| &snapshot.link(arc.link()).srlg);
        failures.extend(groups.map(|group| Failure::Group(*group)));
    }
    failures.into_iter().collect()
}

/// Arcs by [`ArcIx::index`] that these failures take down.
pub(super) fn closed(snapshot: &Snapshot, failures: &[Failure]) -> Vec<bool> {
    let mut closed = vec![false; snapshot.arc_slots()];
    let mut close = |arc: ArcIx| closed[arc.index()] = true;
    for failure in failures {
        match *failure {
            Failure::Link(link) => {
                [true, false].into_iter().for_each(|a_to_b| close(ArcIx::new(link, a_to_b)));
            }
            Failure::Node(node) => {
                let out = snapshot.arcs_from(node).iter();
                out.chain(snapshot.arcs_into(node)).for_each(|arc| close(arc.ix));
            }
            Failure::Group(group) => {
                let shares = |arc: &&Arc| snapshot.link(arc.ix.link()).srlg.contains(&group);
                snapshot.arcs().iter().filter(shares).for_each(|arc| close(arc.ix));
            }
        }
    }
    closed
}

/// Whether so many ways lead from one switch to another over open arcs, no two over the same one:
/// each is found beside those before it by turning some of their arcs back (Ford and Fulkerson).
pub(super) fn has_ways(
    snapshot: &Snapshot,
    (from, to): (NodeIx, NodeIx),
    ways: usize,
    open: &dyn Fn(ArcIx) -> bool,
) -> bool {
    let mut taken = vec![false; snapshot.arc_slots()];
    for _ in 0..ways {
        // By node, the arc by which it was come to, and whether along it or back.
        let mut came: Vec<Option<(ArcIx, NodeIx, bool)>> = vec![None; snapshot.len()];
        let mut queue = std::collections::VecDeque::from([from]);
        while let Some(node) = queue.pop_front().filter(|_| came[to.index()].is_none()) {
            let out = snapshot.arcs_from(node).iter();
            let out = out.filter(|arc| !taken[arc.ix.index()] && open(arc.ix));
            let back = snapshot.arcs_into(node).filter(|arc| taken[arc.ix.index()]);
            let steps = out.map(|arc| (arc.ix, arc.to, true));
            for (arc, next, along) in steps.chain(back.map(|arc| (arc.ix, arc.from, false))) {
                if next != from && came[next.index()].is_none() {
                    came[next.index()] = Some((arc, node, along));
                    queue.push_back(next);
                }
            }
        }
        let mut at = to;
        while at != from {
            let Some((arc, before, along)) = came[at.index()] else { return false };
            (taken[arc.index()], at) = (along, before);
        }
    }
    true
}

/// Whether a failure leaves no way at all from one switch to another.
pub(super) fn is_cut(snapshot: &Snapshot, (from, to): (NodeIx, NodeIx), failure: Failure) -> bool {
    let mut seen = vec![false; snapshot.len()];
    seen[from.index()] = true;
    let mut stack = vec![from];
    while let Some(node) = stack.pop() {
        for arc in snapshot.arcs_from(node) {
            let closed = match failure {
                Failure::Link(link) => arc.ix.link() == link,
                Failure::Node(node) => arc.to == node,
                Failure::Group(group) => snapshot.link(arc.ix.link()).srlg.contains(&group),
            };
            if !closed && !std::mem::replace(&mut seen[arc.to.index()], true) {
                stack.push(arc.to);
            }
        }
    }
    !seen[to.index()]
}
