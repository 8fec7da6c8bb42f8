//! The way from switch to switch in a slice: as admission placed it, else the shortest that
//! still goes through the hooks that it must.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_pipeline::{
    Direction, Entry, FUNCTION_UDT46, HookId, LocalSidAction, LocalSidEntry, OnFailure, PolicyId,
    hook_function,
};
use selvedge_slices::admission::{MAX_IDS, Segment};
use selvedge_slices::{NetworkSlice, ObjectName};
use selvedge_topology::{NodeIx, NodeName};

use super::Scope;
use super::fabric::put;
use crate::derived::{Derived, HookWanted};
use crate::effect::HookLoad;
use crate::intent::Intent;
use crate::numbers::Numbers;
use crate::refusal::Refusal;
use crate::table::Table;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Local,
    Policy { policy: PolicyId, sids: Vec<u16> },
}

/// The ways of a slice, by direction and the switches between which they are.
type Between = BTreeMap<(usize, NodeIx, NodeIx), Way>;

pub(super) struct Ways {
    names: Vec<NodeName>,
    sids: Vec<u16>,
    /// For each two switches: can packets get from one to the other?
    part: Vec<usize>,
    /// Ways of named slices.
    named: BTreeMap<ObjectName, Between>,
    hooks: BTreeMap<(NodeName, HookId), HookWanted>,
    on_failure: BTreeMap<(NodeName, HookId), OnFailure>,
}

pub(super) fn index(direction: Direction) -> usize {
    match direction {
        Direction::Downlink => 0,
        Direction::Uplink => 1,
    }
}

const DIRECTIONS: [Direction; 2] = [Direction::Downlink, Direction::Uplink];

fn of_slices(direction: selvedge_slices::Direction) -> Direction {
    match direction {
        selvedge_slices::Direction::Downlink => Direction::Downlink,
        selvedge_slices::Direction::Uplink => Direction::Uplink,
    }
}

impl Ways {
    /// Ways of these slices, and of the default one.
    pub(super) fn new(
        derived: &Derived,
        slices: &BTreeSet<ObjectName>,
        numbers: &mut Numbers,
    ) -> Result<Self, Refusal> {
        let snapshot = &derived.snapshot;
        let mut sids = Vec::new();
        for node in snapshot.nodes() {
            sids.push(numbers.node(snapshot.name(node))?.0);
        }
        let mut ways = Self {
            names: snapshot.nodes().map(|node| snapshot.name(node).clone()).collect(),
            sids,
            part: parts(derived),
            named: BTreeMap::new(),
            hooks: BTreeMap::new(),
            on_failure: BTreeMap::new(),
        };
        let intent = &derived.of.intent;
        for name in slices {
            let Some(stored) = intent.active_slice(name) else { continue };
            let slice = &stored.object;
            let between = match derived.ledger.get(name.as_str()) {
                Some(admitted) => {
                    let mut between = Between::new();
                    for placed in &admitted.placed {
                        let direction = of_slices(placed.direction);
                        let (from, to) = (placed.from, placed.to);
                        let segments = &placed.segments;
                        let way =
                            ways.of(intent, numbers, slice, direction, (from, to), segments)?;
                        between.insert((index(direction), from, to), way);
                    }
                    between
                }
                None => ways.unplaced(derived, numbers, slice)?,
            };
            ways.named.insert(name.clone(), between);
        }
        Ok(ways)
    }

    /// Ways of a slice that admission found no place for: some of its endpoints or hooks are
    /// cut off. What is left goes the shortest way, through hooks that can be reached; a hook
    /// that cannot is bypassed, or nothing goes, as the slice says.
    fn unplaced(
        &mut self,
        derived: &Derived,
        numbers: &mut Numbers,
        slice: &NetworkSlice,
    ) -> Result<Between, Refusal> {
        let mut between: BTreeSet<(usize, NodeIx, NodeIx)> = BTreeSet::new();
        let switch = |name| derived.attachments.get(name).map(|at| at.switch);
        for (from, to, direction) in slice.pairs_of(switch) {
            if let (Some(from), Some(to)) = (from, to) {
                between.insert((index(of_slices(direction)), from, to));
            }
        }
        let mut ways = Between::new();
        for (direction, from, to) in between {
            if let Some(segments) = self.shortest(derived, slice, from, to) {
                let (intent, at) = (&derived.of.intent, DIRECTIONS[direction]);
                let way = self.of(intent, numbers, slice, at, (from, to), &segments)?;
                ways.insert((direction, from, to), way);
            }
        }
        Ok(ways)
    }

    fn shortest(
        &self,
        derived: &Derived,
        slice: &NetworkSlice,
        from: NodeIx,
        to: NodeIx,
    ) -> Option<Vec<Segment>> {
        let part = |node: NodeIx| self.part[node.index()];
        if part(from) != part(to) {
            return None;
        }
        let mut at = from;
        let mut segments = Vec::new();
        for (index, through) in slice.through.iter().enumerate() {
            let nodes =
                derived.hook_nodes.get(&through.hook).map(Vec::as_slice).unwrap_or_default();
            let near = |node: &&NodeIx| -> u64 {
                let tree = derived.forwarding.tree(&derived.snapshot, **node);
                tree.walk(&derived.snapshot, at).map(|arc| u64::from(arc.cost)).sum()
            };
            match nodes.iter().filter(|node| part(**node) == part(from)).min_by_key(near) {
                Some(&node) => {
                    if node != at {
                        segments.push(Segment::Node(node));
                    }
                    segments.push(Segment::Hook { index, node });
                    at = node;
                }
                None if through.on_failure == selvedge_slices::OnFailure::Bypass => {}
                None => return None,
            }
        }
        if to != at {
            segments.push(Segment::Node(to));
        }
        segments.push(Segment::Deliver);
        (segments.len() <= MAX_IDS).then_some(segments)
    }

    /// The way of a slice over these segments; what hooks there are on it is kept.
    fn of(
        &mut self,
        intent: &Intent,
        numbers: &mut Numbers,
        slice: &NetworkSlice,
        direction: Direction,
        (from, to): (NodeIx, NodeIx),
        segments: &[Segment],
    ) -> Result<Way, Refusal> {
        let mut sids = Vec::with_capacity(segments.len());
        for segment in segments {
            sids.push(match *segment {
                Segment::Node(node) => self.sids[node.index()],
                Segment::Hook { index, node } => {
                    hook_function(self.hook(intent, numbers, slice, direction, index, node)?)
                }
                Segment::Deliver => FUNCTION_UDT46,
            });
        }
        let way = if matches!(segments, [Segment::Deliver]) {
            Way::Local
        } else {
            let (ingress, egress) = (&self.names[from.index()], &self.names[to.index()]);
            let name = slice.name.as_str();
            let policy = numbers.policy(ingress, name, egress, direction)?;
            Way::Policy { policy, sids }
        };
        Ok(way)
    }

    /// The function of a slice's hook on a node.
    fn hook(
        &mut self,
        intent: &Intent,
        numbers: &mut Numbers,
        slice: &NetworkSlice,
        direction: Direction,
        at: usize,
        node: NodeIx,
    ) -> Result<HookId, Refusal> {
        let through = &slice.through[at];
        let switch = self.names[node.index()].clone();
        let id = numbers.hook(&switch, slice.name.as_str(), through.hook.as_str())?;
        let stored = intent.hooks.get(&through.hook);
        let unknown = || Refusal::UnknownHook {
            slice: slice.name.to_string(),
            hook: through.hook.to_string(),
        };
        let stored = stored.ok_or_else(unknown)?;
        let wanted = self.hooks.entry((switch.clone(), id)).or_insert_with(|| HookWanted {
            slice: slice.name.clone(),
            hook: through.hook.clone(),
            directions: [false; 2],
            load: HookLoad {
                name: format!("{}/{}", slice.name, through.hook),
                sha256: stored.meta.module.clone().unwrap_or_default(),
                config: stored.object.config.clone().into_bytes(),
                fuel_per_packet: stored.object.fuel_per_packet,
                memory_bytes: stored.object.memory.0,
            },
        });
        wanted.directions[index(direction)] = true;
        let on_failure = match through.on_failure {
            selvedge_slices::OnFailure::Bypass => OnFailure::Bypass,
            selvedge_slices::OnFailure::Drop => OnFailure::Drop,
        };
        self.on_failure.insert((switch, id), on_failure);
        Ok(id)
    }

    /// The way from one switch to another; `None`: there is none. `slice: None` is the default
    /// slice.
    pub(super) fn way(
        &self,
        slice: Option<&ObjectName>,
        direction: Direction,
        from: &NodeName,
        to: &NodeName,
    ) -> Option<Way> {
        let ix = |name: &NodeName| self.names.binary_search(name).ok();
        let (from, to) = (ix(from)?, ix(to)?);
        let node = |index: usize| NodeIx(u32::try_from(index).expect("nodes are limited"));
        if let Some(slice) = slice {
            let between = (index(direction), node(from), node(to));
            return self.named.get(slice)?.get(&between).cloned();
        }
        if from == to {
            return Some(Way::Local);
        }
        let sid = self.sids[to];
        let way = || Way::Policy {
            policy: Numbers::default_policy(sid),
            sids: vec![sid, FUNCTION_UDT46],
        };
        (self.part[from] == self.part[to]).then(way)
    }

    /// Adds the functions of these slices' hooks to the tables of their switches.
    pub(super) fn functions(&self, scope: &Scope, tables: &mut BTreeMap<NodeName, Table>) {
        for ((switch, hook), on_failure) in &self.on_failure {
            if !scope.slices.contains(&self.hooks[&(switch.clone(), *hook)].slice) {
                continue;
            }
            let action = LocalSidAction::Compute { hook: *hook, on_failure: *on_failure };
            let entry = LocalSidEntry { sid: hook_function(*hook), action };
            put(tables.entry(switch.clone()).or_default(), Entry::LocalSid(entry));
        }
    }

    /// Switches that run hooks of a slice on its way in a direction, and how many.
    pub(super) fn hooks_of(
        &self,
        slice: &ObjectName,
        direction: Direction,
    ) -> BTreeMap<&NodeName, Vec<HookId>> {
        let mut found: BTreeMap<&NodeName, Vec<HookId>> = BTreeMap::new();
        for ((switch, hook), wanted) in &self.hooks {
            if wanted.slice == *slice && wanted.directions[index(direction)] {
                found.entry(switch).or_default().push(*hook);
            }
        }
        found
    }

    pub(super) fn into_hooks(self) -> BTreeMap<(NodeName, HookId), HookWanted> {
        self.hooks
    }
}

/// Which part of the network each switch is in: equal numbers reach each other.
pub(crate) fn parts(derived: &Derived) -> Vec<usize> {
    let snapshot = &derived.snapshot;
    let mut part: Vec<Option<usize>> = vec![None; snapshot.len()];
    for start in snapshot.nodes() {
        let mut stack = vec![start];
        while let Some(node) = stack.pop() {
            if part[node.index()].is_none() {
                part[node.index()] = Some(start.index());
                stack.extend(snapshot.arcs_from(node).iter().map(|arc| arc.to));
            }
        }
    }
    part.into_iter().map(|part| part.expect("every node was visited")).collect()
}
