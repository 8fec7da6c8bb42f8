//! Counts what is promised on every link, before and after every single failure, from nothing
//! but the ways that admission answers with. It shares no code with admission: rates, frames,
//! margin, failures and sums are its own.

use std::collections::BTreeMap;

use selvedge_slices::{Admitted, Direction, ResourceSharingLevel};
use selvedge_topology::{ArcIx, NodeIx, Path, Snapshot};

/// Sums of frames' bit/s.
pub(crate) struct Recount {
    /// By arc.
    capacity: Vec<Option<u64>>,
    load: Vec<u64>,
    links: usize,
    nodes: usize,
    groups: Vec<u32>,
    /// By failure, then by arc: what moves there. Failures: links, nodes, groups.
    moved: Vec<Vec<u64>>,
    /// By link.
    group_of: Vec<Vec<u32>>,
}

impl Recount {
    pub(crate) fn new(snapshot: &Snapshot) -> Self {
        let links = &snapshot.topology().links;
        let capacity = |arc: usize| links[arc / 2].capacity.map(|c| c.bps() / 100 * 97);
        let mut groups: Vec<u32> = links.iter().flat_map(|link| link.srlg.clone()).collect();
        groups.sort_unstable();
        groups.dedup();
        let arcs = links.len() * 2;
        let failures = links.len() + snapshot.len() + groups.len();
        Self {
            capacity: (0..arcs).map(capacity).collect(),
            load: vec![0; arcs],
            links: links.len(),
            nodes: snapshot.len(),
            groups,
            moved: vec![vec![0; arcs]; failures],
            group_of: links.iter().map(|link| link.srlg.clone()).collect(),
        }
    }

    /// Whether a path does not survive failure number `failure`.
    fn hits(&self, failure: usize, path: &Path) -> bool {
        if failure < self.links {
            return path.arcs.iter().any(|arc| arc.index() / 2 == failure);
        }
        if failure < self.links + self.nodes {
            let node = NodeIx((failure - self.links) as u32);
            let inner = &path.nodes[1..path.nodes.len().saturating_sub(1).max(1)];
            return inner.contains(&node);
        }
        let group = self.groups[failure - self.links - self.nodes];
        path.arcs.iter().any(|arc| self.group_of[arc.index() / 2].contains(&group))
    }

    /// How many kinds of failure a slice is promised to survive.
    fn protected(&self, admitted: &Admitted) -> usize {
        match admitted.slice.availability.map_or(0, |a| a.ppm()) {
            ppm if ppm >= 999_990 => self.moved.len(),
            ppm if ppm >= 999_900 => self.links + self.nodes,
            ppm if ppm >= 999_000 => self.links,
            _ => 0,
        }
    }

    /// Adds a slice (`sign` 1) or takes it away (-1), and checks every link it touches, before
    /// and after every failure.
    pub(crate) fn count(&mut self, admitted: &Admitted, sign: i64) -> Result<(), String> {
        let mut touched: Vec<usize> = Vec::new();
        let protected = self.protected(admitted);
        let mut kept_free: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for direction in [Direction::Downlink, Direction::Uplink] {
            let rate = match direction {
                Direction::Downlink => admitted.slice.downlink.guaranteed,
                Direction::Uplink => admitted.slice.uplink.guaranteed,
            };
            let Some(rate) = rate.filter(|_| admitted.waived.is_none()) else { continue };
            // 40 bytes of IPv6 and 14 of Ethernet around 1,500.
            let rate = (u128::from(rate.bps()) * 1554).div_ceil(1500) as u64;
            let placed: Vec<_> =
                admitted.placed.iter().filter(|placed| placed.direction == direction).collect();
            let usual: Vec<&Path> = placed.iter().map(|placed| &placed.path).collect();
            for (arc, times) in most(&usual) {
                shift(&mut self.load[arc], rate * times, sign);
                touched.push(arc);
            }
            let alone = admitted.slice.resource_sharing_level == ResourceSharingLevel::NonShared;
            for failure in 0..protected {
                let mut moves = Vec::new();
                for placed in placed.iter().filter(|placed| self.hits(failure, &placed.path)) {
                    let backup = placed.backup.as_ref().ok_or("a protected way has no backup")?;
                    if self.hits(failure, &backup.path) {
                        return Err(format!("failure {failure} hits a way and its backup"));
                    }
                    moves.push(&backup.path);
                }
                for (arc, times) in most(&moves) {
                    if alone {
                        let of = kept_free.entry(arc).or_insert_with(|| vec![0; protected]);
                        of[failure] += rate * times;
                    } else {
                        shift(&mut self.moved[failure][arc], rate * times, sign);
                    }
                    touched.push(arc);
                }
            }
        }
        // What is not shared is as good as used, whatever fails.
        for (arc, by_failure) in kept_free {
            let most = by_failure.into_iter().max().unwrap_or(0);
            shift(&mut self.load[arc], most, sign);
        }
        touched.sort_unstable();
        touched.dedup();
        touched.into_iter().try_for_each(|arc| self.check(arc))
    }

    fn check(&self, arc: usize) -> Result<(), String> {
        let Some(capacity) = self.capacity[arc] else { return Ok(()) };
        for (failure, moved) in self.moved.iter().enumerate() {
            let load = self.load[arc] + moved[arc];
            if load > capacity {
                return Err(format!("arc {arc}, failure {failure}: {load} of {capacity} bit/s"));
            }
        }
        Ok(())
    }

    /// The most that any failure leaves on an arc.
    #[allow(dead_code, reason = "the bench asks for less than the test")]
    pub(crate) fn worst(&self, arc: ArcIx) -> u64 {
        let moved = self.moved.iter().map(|moved| moved[arc.index()]).max().unwrap_or(0);
        self.load[arc.index()] + moved
    }

    /// The same sums from nothing, of what is admitted now.
    pub(crate) fn agrees<'a>(
        &self,
        snapshot: &Snapshot,
        admitted: impl Iterator<Item = &'a Admitted>,
    ) -> Result<(), String> {
        let mut fresh = Self::new(snapshot);
        for admitted in admitted {
            fresh.count(admitted, 1)?;
        }
        let same = fresh.load == self.load && fresh.moved == self.moved;
        same.then_some(()).ok_or("the sums are not those of what is admitted".to_owned())
    }
}

fn shift(sum: &mut u64, by: u64, sign: i64) {
    *sum = if sign > 0 { *sum + by } else { *sum - by };
}

/// The total of a slice counts once on a link, as often as one path crosses it.
fn most(paths: &[&Path]) -> BTreeMap<usize, u64> {
    let mut most: BTreeMap<usize, u64> = BTreeMap::new();
    for path in paths {
        let mut times: BTreeMap<usize, u64> = BTreeMap::new();
        for arc in &path.arcs {
            *times.entry(arc.index()).or_default() += 1;
        }
        for (arc, times) in times {
            let known = most.entry(arc).or_default();
            *known = times.max(*known);
        }
    }
    most
}
