//! A way ready for every next hop that may fail: for its link, and for the switch behind it.
//!
//! A switch whose link to the next hop is down sends along the shortest path that is left to
//! that next hop; one whose next hop is down, to the hop after it. From there on every way is as
//! before and cannot come back: what it passes lies after the failure in the tree of the packet's
//! destination, and a tree has no loops, whatever else is in it. So a repair needs no list a
//! destination, but one a pair of links that follow one another (facility backup in the sense of
//! RFC 4090 §3.2, spelled as TI-LFA does): O(links) of them, and a link that fails touches few.
//!
//! A repair is the port to leave by and the ids to go through, put before the ids that the
//! packet has. Way-points are such that the fabric as it was goes around the failure between
//! them: the first lies in the extended P-space, each stretch is clear of what failed.

use crate::sssp::{Scratch, point_to_point};
use crate::{ArcIx, Edge, LinkIx, NodeIx, Path, Routes};

/// Ids that a repair may add: of the six that an address holds, a packet on a plain path has
/// two, its egress and what happens there.
pub const MAX_REPAIR_SIDS: usize = 4;

/// A way around a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// From the switch before the failure to where the packet is on its way again.
    pub path: Path,
    /// Ids after leaving by the path's first arc, the last of them the path's end; none when that
    /// arc leads there. `None`: no way-points lead along the path, or more than
    /// [`MAX_REPAIR_SIDS`].
    pub segments: Option<Vec<NodeIx>>,
}

/// The ways around every link and every switch, for [`Routes`] as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backups {
    /// By arc; `None`: the link is down, or without it there is no way.
    links: Vec<Option<Backup>>,
    /// By arc into a switch: where those of the arcs out of it begin in `nodes`.
    first: Vec<u32>,
    nodes: Vec<Option<Backup>>,
    /// Of each in `nodes`, the two arcs.
    around: Vec<(ArcIx, ArcIx)>,
}

/// Which backup: the arc that leads to the failure, and for a switch the arc out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Around {
    Link(ArcIx),
    Node(ArcIx, ArcIx),
}

impl Backups {
    pub fn new(routes: &Routes, threads: usize) -> Self {
        let graph = routes.graph();
        let (mut first, mut around) = (vec![0], Vec::new());
        for slot in 0..graph.arc_slots() {
            let arc = ArcIx::from_raw(u32::try_from(slot).expect("links are limited"));
            if let Some((from, over)) = graph.ends(arc) {
                let on = graph.out(over).iter().filter(|edge| edge.node != from);
                around.extend(on.map(|edge| (arc, edge.arc)));
            }
            first.push(u32::try_from(around.len()).expect("backups are limited"));
        }
        let links = vec![None; graph.arc_slots()];
        let mut backups = Self { links, first, nodes: vec![None; around.len()], around };
        let all: Vec<Around> = backups.all().collect();
        for (around, backup) in computed(routes, &all, threads) {
            *backups.slot(around) = backup;
        }
        backups
    }

    /// For a packet at the start of `next` that is to take it, when its link is down.
    pub fn link(&self, next: ArcIx) -> Option<&Backup> {
        self.links[next.index()].as_ref()
    }

    /// For a packet at the start of `next` that is to take it and then `after`, when the switch
    /// between is down. `None` when `after` leads back, too.
    pub fn node(&self, next: ArcIx, after: ArcIx) -> Option<&Backup> {
        self.nodes[self.position(next, after)?].as_ref()
    }

    /// What `node` does with packets to `root` when its next hop fails: the way around the next
    /// switch, or, where that is the root itself or there is none, around the link.
    pub fn of(&self, routes: &Routes, root: NodeIx, node: NodeIx) -> Option<&Backup> {
        let next = routes.next(root, node)?;
        let over = routes.graph().edge(next).node;
        let around = routes.next(root, over).and_then(|after| self.node(next, after));
        around.or_else(|| self.link(next))
    }

    fn all(&self) -> impl Iterator<Item = Around> + '_ {
        let links = (0..).zip(&self.links).map(|(raw, _)| Around::Link(ArcIx::from_raw(raw)));
        links.chain(self.around.iter().map(|(next, after)| Around::Node(*next, *after)))
    }

    fn position(&self, next: ArcIx, after: ArcIx) -> Option<usize> {
        let start = self.first[next.index()] as usize;
        let run = &self.around[start..self.first[next.index() + 1] as usize];
        Some(start + run.iter().position(|(_, known)| *known == after)?)
    }

    fn slot(&mut self, around: Around) -> &mut Option<Backup> {
        match around {
            Around::Link(arc) => &mut self.links[arc.index()],
            Around::Node(next, after) => {
                let at = self.position(next, after).expect("one of all");
                &mut self.nodes[at]
            }
        }
    }

    fn get(&self, around: Around) -> Option<&Backup> {
        match around {
            Around::Link(arc) => self.link(arc),
            Around::Node(next, after) => self.node(next, after),
        }
    }

    /// Follows a change of `routes`: `link` has failed or come back, `changed` says by root
    /// whether a tree differs. Returns which backups differ from before.
    pub(crate) fn follow(
        &mut self,
        routes: &Routes,
        link: LinkIx,
        changed: &[bool],
        threads: usize,
    ) -> Vec<Around> {
        let up = routes.graph().is_up(link);
        let mut again = Vec::new();
        let mut spell = Vec::new();
        let links = (0..)
            .zip(&self.links)
            .map(|(raw, backup)| (Around::Link(ArcIx::from_raw(raw)), backup));
        let nodes = self.around.iter().zip(&self.nodes);
        let nodes = nodes.map(|((next, after), backup)| (Around::Node(*next, *after), backup));
        for (around, backup) in links.chain(nodes) {
            let touches = match around {
                Around::Link(arc) => arc.link() == link,
                Around::Node(next, after) => next.link() == link || after.link() == link,
            };
            let stale = match backup {
                Some(backup) if up => may_improve(routes, link, &backup.path),
                Some(backup) => backup.path.arcs.iter().any(|arc| arc.link() == link),
                None => up,
            };
            if touches || stale {
                again.push(around);
            } else if let Some(backup) = backup
                && backup.path.nodes[1..].iter().any(|node| changed[node.index()])
            {
                spell.push(around);
            }
        }
        let mut differ = Vec::new();
        for around in spell {
            let slot = self.slot(around);
            let backup = slot.as_mut().expect("only what there is is spelled again");
            let segments = spelled(routes, &backup.path);
            if segments != backup.segments {
                backup.segments = segments;
                differ.push(around);
            }
        }
        for (around, backup) in computed(routes, &again, threads) {
            if self.get(around) != backup.as_ref() {
                *self.slot(around) = backup;
                differ.push(around);
            }
        }
        differ
    }
}

/// Whether a way over `link`, which came back, may be as short as `path`.
fn may_improve(routes: &Routes, link: LinkIx, path: &Path) -> bool {
    let graph = routes.graph();
    let known = graph.length(path, routes.metric());
    [true, false].into_iter().any(|forth| {
        let arc = ArcIx::new(link, forth);
        let Some((a, b)) = graph.ends(arc) else { return false };
        let (to_link, on) = (routes.length(a, path.from()), routes.length(path.to(), b));
        !to_link.is_none()
            && !on.is_none()
            && to_link.0 + graph.edge(arc).length(routes.metric()) + on.0 <= known.0
    })
}

fn computed(routes: &Routes, all: &[Around], threads: usize) -> Vec<(Around, Option<Backup>)> {
    let part = |part: &[Around]| {
        let mut scratch = Scratch::new();
        part.iter().map(|around| (*around, compute(routes, &mut scratch, *around))).collect()
    };
    // A thread costs more than some tens of these.
    if threads < 2 || all.len() < 64 {
        return part(all);
    }
    std::thread::scope(|scope| {
        let mut parts = all.chunks(all.len().div_ceil(threads));
        let first = parts.next().unwrap_or_default();
        let others: Vec<_> = parts.map(|all| scope.spawn(|| part(all))).collect();
        let mut found: Vec<_> = part(first);
        for other in others {
            match other.join() {
                Ok(more) => found.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        found
    })
}

fn compute(routes: &Routes, scratch: &mut Scratch, around: Around) -> Option<Backup> {
    let graph = routes.graph();
    let (next, merge, failed) = match around {
        Around::Link(arc) => (arc, graph.ends(arc)?.1, None),
        Around::Node(next, after) => {
            if !graph.is_up(after.link()) {
                return None;
            }
            (next, graph.edge(after).node, Some(graph.edge(next).node))
        }
    };
    if !graph.is_up(next.link()) {
        return None;
    }
    let from = graph.start(next);
    let usable = |edge: &Edge| match failed {
        None => edge.arc.link() != next.link(),
        Some(node) => edge.node != node,
    };
    // Lengths with the failed part still there are never longer.
    let lengths = routes.lengths(merge);
    let mut arcs = Vec::new();
    let bound = |node: NodeIx| lengths[node.index()];
    point_to_point(graph, scratch, (from, merge), routes.metric(), bound, usable, &mut arcs)?;
    let path = graph.path(from, arcs);
    let segments = spelled(routes, &path);
    Some(Backup { path, segments })
}

/// The way-points after the first arc.
fn spelled(routes: &Routes, path: &Path) -> Option<Vec<NodeIx>> {
    routes.waypoints(path, 1).ok().filter(|segments| segments.len() <= MAX_REPAIR_SIDS)
}
