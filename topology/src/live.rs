//! Everything that is computed of a network in use, kept as its links fail and come back:
//! next hops, their backups, and the paths of policies.

use std::collections::BTreeSet;

use crate::backups::Backups;
use crate::constrained::{Bounds, NotFound, Query, cheapest_within};
use crate::sssp::Scratch;
use crate::{Constraints, Delay, Graph, LinkIx, Metric, NodeIx, Path, Routes};

/// A path wanted: the cheapest by the fabric's metric under a bound on its delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub from: NodeIx,
    pub to: NodeIx,
    pub max_delay: Option<Delay>,
}

/// A policy's path, and the way-points that lead along it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Or why there is none.
    pub path: Result<Path, NotFound>,
    /// `None`: no way-points lead along it.
    pub segments: Option<Vec<NodeIx>>,
}

impl Placed {
    fn links(&self) -> impl Iterator<Item = LinkIx> + '_ {
        self.path.iter().flat_map(|path| path.arcs.iter().map(|arc| arc.link()))
    }
}

/// What one link's change has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// (root, node): the node sends packets for the root by another arc than before.
    pub next_hops: Vec<(NodeIx, NodeIx)>,
    /// How many backups differ.
    pub backups: usize,
    /// Policies whose path or way-points differ.
    pub policies: Vec<usize>,
}

/// See the module. Results are those of computing anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    routes: Routes,
    backups: Backups,
    /// Least delays with every link up, from each node to each: never more than any later ones.
    delays: Vec<u64>,
    policies: Vec<Policy>,
    placed: Vec<Placed>,
    /// By link, which policies go over it.
    users: Vec<BTreeSet<usize>>,
    threads: usize,
}

impl Live {
    /// `threads` at least 1.
    pub fn new(graph: Graph, policies: Vec<Policy>, threads: usize) -> Self {
        let delays = least_delays(&graph);
        let routes = Routes::new(graph, crate::Forwarding::METRIC, threads);
        let backups = Backups::new(&routes, threads);
        let users = vec![BTreeSet::new(); routes.graph().links()];
        let placed = Vec::new();
        let mut live = Self { routes, backups, delays, policies, placed, users, threads };
        let all: Vec<usize> = (0..live.policies.len()).collect();
        live.placed = live.place(&all).into_iter().map(|(_, placed)| placed).collect();
        for (policy, placed) in live.placed.iter().enumerate() {
            placed.links().for_each(|link| {
                live.users[link.index()].insert(policy);
            });
        }
        live
    }

    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    pub fn backups(&self) -> &Backups {
        &self.backups
    }

    /// By policy.
    pub fn placed(&self) -> &[Placed] {
        &self.placed
    }

    /// A link has failed. Costs what it changes: nodes whose way it was, backups and policies
    /// that went over it.
    pub fn fail(&mut self, link: LinkIx) -> Changes {
        let next_hops = self.routes.fail(link, self.threads);
        self.follow(link, next_hops)
    }

    /// A link has come back.
    pub fn restore(&mut self, link: LinkIx) -> Changes {
        let next_hops = self.routes.restore(link, self.threads);
        self.follow(link, next_hops)
    }

    fn follow(&mut self, link: LinkIx, next_hops: Vec<(NodeIx, NodeIx)>) -> Changes {
        let mut changed = vec![false; self.routes.graph().len()];
        next_hops.iter().for_each(|(root, _)| changed[root.index()] = true);
        let backups = self.backups.follow(&self.routes, link, &changed, self.threads).len();
        let up = self.routes.graph().is_up(link);
        let again: Vec<usize> = if up {
            (0..self.policies.len()).collect() // it may be better for any
        } else {
            self.users[link.index()].iter().copied().collect()
        };
        let mut found = self.place(&again);
        for (policy, placed) in self.placed.iter().enumerate() {
            let Ok(path) = &placed.path else { continue };
            if self.routes.may_differ(path, 0, placed.segments.as_deref(), &changed, up) {
                found.push((policy, self.spelled(placed.path.clone())));
            }
        }
        // What was placed anew counts, not the old path spelled again.
        found.sort_by_key(|(policy, _)| *policy);
        found.dedup_by_key(|(policy, _)| *policy);
        let mut policies = Vec::new();
        for (policy, placed) in found {
            if self.placed[policy] != placed {
                self.put(policy, placed);
                policies.push(policy);
            }
        }
        Changes { next_hops, backups, policies }
    }

    fn put(&mut self, policy: usize, placed: Placed) {
        for link in self.placed[policy].links() {
            self.users[link.index()].remove(&policy);
        }
        for link in placed.links() {
            self.users[link.index()].insert(policy);
        }
        self.placed[policy] = placed;
    }

    fn place(&self, policies: &[usize]) -> Vec<(usize, Placed)> {
        let part = |policies: &[usize]| -> Vec<(usize, Placed)> {
            let mut scratch = Scratch::new();
            policies.iter().map(|policy| (*policy, self.one(&mut scratch, *policy))).collect()
        };
        if self.threads < 2 || policies.len() < 32 {
            return part(policies);
        }
        std::thread::scope(|scope| {
            let mut parts = policies.chunks(policies.len().div_ceil(self.threads));
            let first = parts.next().unwrap_or_default();
            let others: Vec<_> = parts.map(|some| scope.spawn(|| part(some))).collect();
            let mut found = part(first);
            for other in others {
                match other.join() {
                    Ok(more) => found.extend(more),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            found
        })
    }

    fn one(&self, scratch: &mut Scratch, policy: usize) -> Placed {
        let Policy { from, to, max_delay } = self.policies[policy];
        let graph = self.routes.graph();
        let shortest = self.routes.path(from, to);
        let fits = |path: &Path| {
            max_delay.is_none_or(|most| graph.length(path, Metric::Delay).sum() <= most.us())
        };
        let path = match shortest {
            None => Err(NotFound::NoPath),
            Some(path) if fits(&path) => Ok(path),
            Some(_) => {
                let constraints = Constraints { max_delay, ..Constraints::default() };
                let metric = self.routes.metric();
                let query = Query { from, to, metric, constraints: &constraints };
                let nodes = graph.len();
                let mut memory = Vec::new();
                let lengths = self.routes.lengths_from(from, &mut memory);
                let delays = &self.delays[from.index() * nodes..][..nodes];
                let bounds = Bounds { lengths, delays, hops: &[] };
                cheapest_within(graph, scratch, &query, &bounds)
            }
        };
        self.spelled(path)
    }

    fn spelled(&self, path: Result<Path, NotFound>) -> Placed {
        let segments = path.as_ref().ok().and_then(|path| self.routes.waypoints(path, 0).ok());
        Placed { path, segments }
    }
}

/// By the node that paths start at, then by the node they end at; with every link up.
fn least_delays(graph: &Graph) -> Vec<u64> {
    let mut whole = graph.clone();
    for link in 0..graph.links() {
        whole.set_up(LinkIx(u32::try_from(link).expect("links are limited")), true);
    }
    let mut scratch = Scratch::new();
    let rows = whole.nodes().map(|root| {
        let mut lengths = Vec::new();
        let all = |_: &crate::Edge| true;
        crate::sssp::lengths_into(
            &whole,
            &mut scratch.heap,
            root,
            Metric::Delay,
            false,
            all,
            &mut lengths,
        );
        lengths
    });
    rows.collect::<Vec<_>>().concat()
}
