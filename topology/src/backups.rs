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

use crate::detour::{Failed, detour};
use crate::sssp::Scratch;
use crate::{ArcIx, LinkIx, NodeIx, Path, Routes};

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
    /// By link, which backups go over it; sorted.
    users: Vec<Vec<Around>>,
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
        let (nodes, users) = (vec![None; around.len()], vec![Vec::new(); graph.links()]);
        let mut backups = Self { links, first, nodes, around, users };
        let all: Vec<Around> = backups.all().collect();
        for (around, backup) in computed(routes, &all, threads) {
            backups.put(around, backup);
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

    fn put(&mut self, around: Around, backup: Option<Backup>) {
        let slot = self.slot(around);
        let before = std::mem::replace(slot, backup);
        let after: Vec<LinkIx> = links(slot.as_ref()).collect();
        for link in links(before.as_ref()) {
            let users = &mut self.users[link.index()];
            if let Ok(at) = users.binary_search(&around) {
                users.remove(at);
            }
        }
        for link in after {
            let users = &mut self.users[link.index()];
            if let Err(at) = users.binary_search(&around) {
                users.insert(at, around);
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
        let again = if up {
            let improves = |around: &Around| {
                let backup = self.get(*around);
                backup.is_none_or(|backup| may_improve(routes, link, &backup.path))
            };
            self.all().filter(improves).collect()
        } else {
            self.lost(routes, link)
        };
        let mut differ = self.spell_again(routes, changed, up);
        for (around, backup) in computed(routes, &again, threads) {
            if self.get(around) != backup.as_ref() {
                self.put(around, backup);
                differ.push(around);
            }
        }
        differ.sort_unstable();
        differ.dedup();
        differ
    }

    /// Those that went over a link that failed, or around it.
    fn lost(&self, routes: &Routes, link: LinkIx) -> Vec<Around> {
        let graph = routes.graph();
        let mut lost = self.users[link.index()].clone();
        for arc in [ArcIx::new(link, true), ArcIx::new(link, false)] {
            let Some((from, _)) = graph.ends(arc) else { continue };
            lost.push(Around::Link(arc));
            let run = self.first[arc.index()] as usize..self.first[arc.index() + 1] as usize;
            lost.extend(self.around[run].iter().map(|(next, after)| Around::Node(*next, *after)));
            // Arcs into the start, of which this one is the second.
            let before = graph.into(from).iter().map(|edge| Around::Node(edge.arc, arc));
            lost.extend(before.filter(|around| match around {
                Around::Node(next, after) => self.position(*next, *after).is_some(),
                Around::Link(_) => false,
            }));
        }
        lost.sort_unstable();
        lost.dedup();
        lost
    }

    /// New way-points along the paths that stay, where a tree that has changed gives others.
    fn spell_again(&mut self, routes: &Routes, changed: &[bool], up: bool) -> Vec<Around> {
        let all = (0..)
            .zip(&mut self.links)
            .map(|(raw, backup)| (Around::Link(ArcIx::from_raw(raw)), backup));
        let nodes = self.around.iter().zip(&mut self.nodes);
        let nodes = nodes.map(|((next, after), backup)| (Around::Node(*next, *after), backup));
        let mut differ = Vec::new();
        for (around, backup) in all.chain(nodes) {
            let Some(Backup { path, segments }) = backup else { continue };
            if routes.may_differ(path, 1, segments.as_deref(), changed, up) {
                let again = spelled(routes, path);
                if again != *segments {
                    *segments = again;
                    differ.push(around);
                }
            }
        }
        differ
    }
}

fn links(backup: Option<&Backup>) -> impl Iterator<Item = LinkIx> + '_ {
    backup.into_iter().flat_map(|backup| backup.path.arcs.iter().map(|arc| arc.link()))
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
        Around::Link(arc) => (arc, graph.ends(arc)?.1, Failed::Link(arc.link())),
        Around::Node(next, after) => {
            if !graph.is_up(after.link()) {
                return None;
            }
            (next, graph.edge(after).node, Failed::Node(graph.edge(next).node))
        }
    };
    if !graph.is_up(next.link()) {
        return None;
    }
    let from = graph.start(next);
    let arcs = detour(routes, scratch, (from, merge), failed)?;
    let path = graph.path(from, arcs);
    let segments = spelled(routes, &path);
    Some(Backup { path, segments })
}

/// The way-points after the first arc.
fn spelled(routes: &Routes, path: &Path) -> Option<Vec<NodeIx>> {
    routes.waypoints(path, 1).ok().filter(|segments| segments.len() <= MAX_REPAIR_SIDS)
}
