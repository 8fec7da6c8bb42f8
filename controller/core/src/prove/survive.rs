//! Whether slices outlive the failures that they are protected against.
//!
//! Failures come one at a time: a link, a switch, or all links of a shared-risk group. Which of
//! them meets packets is read off the way that they take by the entries; where they go then is
//! what admission promises ([`Protected`]), and it is judged here as if nobody had: that it leads
//! there over usable links and through the hooks, that the failure leaves it whole, and that
//! there is room for everybody whom the same failure moves.
//!
//! Room for failures that do not come together is shared, but by slices that share nothing: what
//! the worst failure moves of one of those is there for it alone, whatever fails.
//!
//! As in admission, what a failed way leaves free elsewhere is not counted on.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_pipeline::{Direction, PortId, SliceId};

use super::sums::{frames, is_over};
use super::view::{End, Sent, Text, View};
use super::world::{Backup, Level, Protected, Slice, Wire};
use super::{DIRECTIONS, Defect};

/// One thing that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    /// By the number of the declared link.
    Link(u32),
    Node(u32),
    /// Every link of a shared-risk group.
    Group(u32),
}

/// What a failure moves: of slices that share room, or of one that does not.
pub(crate) type Moved = (Option<SliceId>, Failure);

/// The way of packets that arrive.
struct Walk {
    from: usize,
    to: usize,
    arcs: Vec<(usize, PortId)>,
}

impl View {
    /// A slice with its protection, if it has any at present.
    fn protected(&self, slice: SliceId) -> Option<(&Slice, &Protected)> {
        let slice = self.world.slices.get(&slice)?;
        Some((slice, slice.protected.as_deref()?))
    }

    /// The ways of what a slice sends off in one direction at one ingress. What does not arrive
    /// is found elsewhere.
    fn walks(&self, from: usize, slice: SliceId, direction: Direction) -> Vec<Walk> {
        let policies = self.policies(from, slice, direction).into_iter();
        let walks = policies.flat_map(|policy| {
            let mut arcs: Vec<(usize, usize, PortId)> = Vec::new();
            let mut cross = |path, node, port| arcs.push((path, node, port));
            let sent = self.sent(from, policy, Some(&mut cross));
            let each =
                sent.into_iter().enumerate().filter(|(_, sent)| sent.end == End::Decapsulated);
            let walk = |(place, sent): (usize, Sent)| {
                let own = arcs.iter().filter(|(path, ..)| *path == place);
                let arcs = own.map(|(_, node, port)| (*node, *port)).collect();
                Walk { from, to: sent.at, arcs }
            };
            each.map(walk).collect::<Vec<_>>()
        });
        walks.collect()
    }

    /// What of a level's failures meets packets on that way.
    fn failures(&self, level: Level, walk: &Walk) -> BTreeSet<Failure> {
        let mut failures = BTreeSet::new();
        for wire in walk.arcs.iter().filter_map(|arc| self.world.wires.get(arc)) {
            failures.insert(Failure::Link(wire.link));
            if level >= Level::Node && wire.node != walk.from && wire.node != walk.to {
                failures.insert(Failure::Node(number(wire.node)));
            }
            if level >= Level::Group {
                failures.extend(self.groups_of(wire.link).iter().copied().map(Failure::Group));
            }
        }
        failures
    }

    fn groups_of(&self, link: u32) -> &[u32] {
        self.world.groups.get(link as usize).map_or(&[], Vec::as_slice)
    }

    /// Whether a failure takes down a hop.
    fn is_hit(&self, failure: Failure, node: usize, wire: &Wire) -> bool {
        match failure {
            Failure::Link(link) => wire.link == link,
            Failure::Node(lost) => number(node) == lost || number(wire.node) == lost,
            Failure::Group(group) => self.groups_of(wire.link).contains(&group),
        }
    }

    /// The port by which a usable link leaves a node, and where it leads.
    fn over(&self, node: usize, link: u32) -> Option<(PortId, &Wire)> {
        let mut ports = self.world.wires.range((node, PortId(0))..=(node, PortId(u16::MAX)));
        ports.find(|(_, wire)| wire.link == link).map(|((_, port), wire)| (*port, wire))
    }

    /// Packets of a protected slice have where to go after any failure of what they cross.
    pub(super) fn backup(
        &self,
        node: usize,
        slice: SliceId,
        direction: Direction,
        text: Option<&mut Text>,
    ) -> Option<Defect> {
        let (of, protected) = self.protected(slice)?;
        let mut walks = self.walks(node, slice, direction).into_iter();
        let (walk, why) = walks.find_map(|walk| {
            let backup = protected.backups.get(&(direction, walk.from, walk.to));
            let why = self.lost(of, protected.level, &walk, backup.and_then(Option::as_ref))?;
            Some((walk, why))
        })?;
        if let Some(text) = text {
            let (from, to) = (self.world.name(walk.from), self.world.name(walk.to));
            text.subject = format!("{direction:?} of slice {} from {from} to {to}", of.name);
            text.nodes = self.nodes_on(&walk);
            text.detail = why;
        }
        Some(Defect::Unprotected)
    }

    /// By what packets on that way would be lost; `None`: they outlive every failure of a level.
    fn lost(
        &self,
        slice: &Slice,
        level: Level,
        walk: &Walk,
        backup: Option<&Backup>,
    ) -> Option<String> {
        if walk.arcs.is_empty() {
            return None;
        }
        let Some(backup) = backup else {
            return Some(String::from("there is no backup for when a part of that way fails"));
        };
        let mut hops: Vec<(usize, &Wire)> = Vec::new();
        let mut at = walk.from;
        let mut hooks = backup.hooks.as_slice();
        let mut meet = |at: usize| {
            while let [(node, _), rest @ ..] = hooks
                && *node == at
            {
                hooks = rest;
            }
        };
        meet(at);
        for &(node, link) in &backup.hops {
            if node != at {
                return Some(format!("its backup breaks off at {}", self.world.name(at)));
            }
            let Some((_, wire)) = self.over(node, link) else {
                let name = self.world.name(node);
                return Some(format!("its backup leaves {name} by a link that is not usable"));
            };
            hops.push((node, wire));
            at = wire.node;
            meet(at);
        }
        if at != walk.to {
            return Some(format!("its backup ends at {}", self.world.name(at)));
        }
        let named = backup.hooks.iter().map(|(_, name)| name);
        let wanted = slice.hooks.iter().map(|(name, _)| name);
        if !hooks.is_empty() || !named.eq(wanted) {
            return Some(String::from("its backup does not go through its hooks in order"));
        }
        let hit =
            |failure: &Failure| hops.iter().any(|(at, wire)| self.is_hit(*failure, *at, wire));
        let failure = self.failures(level, walk).into_iter().find(hit)?;
        Some(format!("its backup does not outlive the loss of {} either", self.named(failure)))
    }

    /// What each failure adds to each arc when it moves what a slice guarantees in one direction
    /// from one ingress: by arc, then by failure; the meter's share, as often as one backup
    /// crosses the arc.
    pub(super) fn added(
        &self,
        node: usize,
        slice: SliceId,
        direction: Direction,
    ) -> Vec<((usize, PortId), Moved, u64)> {
        let Some((of, protected)) = self.protected(slice) else { return Vec::new() };
        let owner = of.dedicated.then_some(slice);
        let share = self.share_bps(node, slice, direction);
        if share == 0 {
            return Vec::new();
        }
        let mut most: BTreeMap<((usize, PortId), Failure), u64> = BTreeMap::new();
        for walk in self.walks(node, slice, direction) {
            let backup = protected.backups.get(&(direction, walk.from, walk.to));
            let Some(Some(backup)) = backup else { continue };
            let arc = |(node, link): &(usize, u32)| Some((*node, self.over(*node, *link)?.0));
            let mut arcs: Vec<(usize, PortId)> = backup.hops.iter().filter_map(arc).collect();
            arcs.sort_unstable();
            let failures = self.failures(protected.level, &walk);
            for crossed in arcs.chunk_by(|a, b| a == b) {
                for failure in &failures {
                    let most = most.entry((crossed[0], *failure)).or_default();
                    *most = (*most).max(crossed.len() as u64);
                }
            }
        }
        let each = most.into_iter();
        each.map(|((arc, failure), times)| (arc, (owner, failure), share.saturating_mul(times)))
            .collect()
    }

    /// After no failure a link's guarantees are over what it may carry, counted in frames of full
    /// packets.
    pub(super) fn short(
        &self,
        node: usize,
        port: PortId,
        text: Option<&mut Text>,
    ) -> Option<Defect> {
        let sums = self.spare.get(&(node, port))?;
        let wire = self.world.wires.get(&(node, port))?;
        let reservable = wire.reservable_bps?;
        let apart = sums.iter().filter_map(|((owner, _), bps)| Some(((*owner)?, *bps)));
        let mut apart_of: BTreeMap<SliceId, u64> = BTreeMap::new();
        for (slice, bps) in apart {
            let most = apart_of.entry(slice).or_default();
            *most = bps.max(*most);
        }
        let apart = apart_of.values().fold(0, |sum: u64, bps| sum.saturating_add(*bps));
        let shared = sums.iter().filter(|((owner, _), _)| owner.is_none());
        // Of equals the first.
        let worst = shared.rev().max_by_key(|(_, bps)| **bps).map(|((_, f), bps)| (*f, *bps));
        let load = self.load.get(&(node, port)).copied().unwrap_or(0);
        let bps = load.saturating_add(apart).saturating_add(worst.map_or(0, |(_, bps)| bps));
        if !is_over(bps, reservable) {
            return None;
        }
        if let Some(text) = text {
            let failure = worst.map(|(failure, _)| failure);
            text.subject = format!("{} port {}", self.world.name(node), port.0);
            text.nodes = self.concerned((node, port), wire.node, failure);
            let after =
                failure.map(|failure| format!("after the loss of {} ", self.named(failure)));
            let of_them = match apart {
                0 => String::new(),
                apart => format!(" ({} of them kept for slices that do not share)", frames(apart)),
            };
            text.detail = format!(
                "{}guarantees of {} bit/s of frames{of_them}, at most {reservable} may be",
                after.unwrap_or_default(),
                frames(bps)
            );
        }
        Some(Defect::Unprotected)
    }

    /// The switches that have a part in what an arc carries after a failure.
    fn concerned(&self, arc: (usize, PortId), to: usize, failure: Option<Failure>) -> Vec<usize> {
        let mut nodes = BTreeSet::from([arc.0, to]);
        for (node, here) in self.nodes.iter().enumerate() {
            let carried = here.sources.iter().filter(|(_, sums)| sums.iter().any(|s| s.0 == arc));
            let added = here.added.iter();
            let moved = |(owner, of): Moved| owner.is_some() || Some(of) == failure;
            let added = added.filter(|(_, s)| s.iter().any(|s| s.0 == arc && moved(s.1)));
            let keys: BTreeSet<_> =
                carried.map(|(k, _)| *k).chain(added.map(|(k, _)| *k)).collect();
            for (slice, direction) in keys {
                let walks = self.walks(node, slice, DIRECTIONS[direction]);
                nodes.extend(walks.iter().flat_map(|walk| self.nodes_on(walk)));
            }
        }
        nodes.into_iter().collect()
    }

    /// The switches on a way, in order.
    fn nodes_on(&self, walk: &Walk) -> Vec<usize> {
        let far = walk.arcs.iter().filter_map(|arc| Some(self.world.wires.get(arc)?.node));
        std::iter::once(walk.from).chain(far).collect()
    }

    /// For people.
    fn named(&self, failure: Failure) -> String {
        match failure {
            Failure::Link(link) => {
                let mut wires = self.world.wires.iter();
                match wires.find(|(_, wire)| wire.link == link) {
                    Some(((node, _), wire)) => {
                        let (a, b) = (self.world.name(*node), self.world.name(wire.node));
                        format!("the link between {a} and {b}")
                    }
                    None => format!("link number {link}"),
                }
            }
            Failure::Node(node) => format!("switch {}", self.world.name(node as usize)),
            Failure::Group(group) => format!("shared-risk group {group}"),
        }
    }
}

fn number(node: usize) -> u32 {
    u32::try_from(node).expect("nodes are limited to 4,095")
}
