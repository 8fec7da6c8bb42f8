//! Judging what is concerned.

use std::collections::BTreeSet;
use std::sync::Arc;

use selvedge_pipeline::{Direction, Entry, Key, PolicyId, PortId, PortKind, SliceId, SliceSet};

use super::super::DIRECTIONS;
use super::super::class::{Changed, LOST, UNKNOWN};
use super::super::survive::Moved;
use super::super::world::Member;
use super::concern::Dirty;
use super::{FIRST_FUNCTION, Out, Spare, Topic, View};

impl View {
    pub(super) fn settle(&mut self, mut dirty: Dirty) -> Vec<Topic> {
        if dirty.everything {
            self.all_dirty(&mut dirty);
        }
        self.settle_fabric(&mut dirty);
        self.settle_groups(&mut dirty);
        let mut wrong = self.settle_pairs(&mut dirty);
        self.settle_sources(&mut dirty);
        if dirty.rules {
            self.rule_topics(&mut dirty.topics);
        }
        let mut topics = dirty.topics;
        topics.sort_unstable();
        topics.dedup();
        for topic in topics {
            match self.judge(&topic, None) {
                Some(defect) => {
                    Arc::make_mut(&mut self.others).insert(topic.clone(), defect);
                    wrong.push(topic);
                }
                None if self.others.contains_key(&topic) => {
                    Arc::make_mut(&mut self.others).remove(&topic);
                }
                None => {}
            }
        }
        wrong
    }

    fn all_dirty(&mut self, dirty: &mut Dirty) {
        let world = self.world.clone();
        dirty.rules = true;
        dirty.ports.extend(0..self.nodes.len());
        dirty.functions.extend(0..self.nodes.len());
        for (host, endpoint) in (0..).zip(world.endpoints.iter()) {
            if endpoint.is_some() {
                dirty.topics.push(Topic::Source(host));
            }
        }
        dirty.groups.extend(0..self.nodes.len());
        for (node, here) in self.nodes.iter().enumerate() {
            dirty.sets.extend(here.groups().iter().map(|(set, ..)| (node, set)));
        }
        for id in world.slices.keys() {
            dirty.topics.extend(DIRECTIONS.map(|direction| Topic::Meter(*id, direction)));
        }
    }

    pub(super) fn all_outs(&self) -> Vec<Vec<Out>> {
        let mut outs = vec![Vec::new(); self.nodes.len()];
        for (&(node, port), wire) in &*self.world.wires {
            let far = &self.nodes[wire.node];
            let to = if !self.nodes[node].ports.contains_key(&port) {
                LOST
            } else if !far.known() {
                UNKNOWN
            } else if far.ports.get(&wire.port) != Some(&PortKind::Fabric) {
                LOST
            } else {
                index(wire.node)
            };
            outs[node].push((port, wire.mac, to));
        }
        outs
    }

    fn settle_fabric(&mut self, dirty: &mut Dirty) {
        if !dirty.ports.is_empty() {
            let outs = self.all_outs();
            for (node, out) in outs.iter().enumerate() {
                if *out != self.outs[node] || dirty.ports.contains(&node) {
                    for sid in 0..self.classes.len() {
                        dirty.hops.push((u16::try_from(sid).expect("ids are limited"), node));
                    }
                }
            }
            self.outs = Arc::new(outs);
        }
        dirty.hops.sort_unstable();
        dirty.hops.dedup();
        for concerned in dirty.hops.chunk_by(|a, b| a.0 == b.0) {
            let sid = concerned[0].0;
            let mut moved: Vec<(usize, u16)> = Vec::new();
            for (_, node) in concerned {
                let next = self.next(sid, *node);
                if next != self.classes[usize::from(sid)].next[*node] {
                    moved.push((*node, next));
                }
            }
            if moved.is_empty() {
                continue;
            }
            let class = Arc::make_mut(&mut self.classes[usize::from(sid)]);
            let before = class.next.clone();
            for (node, next) in moved {
                class.next[node] = next;
            }
            let changed = class.settle(&before);
            let any_end = changed.contains(&Changed::End);
            for (ingress, policy, first) in self.users[usize::from(sid)].iter() {
                let node = *ingress as usize;
                // From which node a later id is followed depends on those before it.
                match changed[node] {
                    Changed::End => drop(dirty.policies.insert((node, *policy))),
                    _ if any_end && !first => drop(dirty.policies.insert((node, *policy))),
                    Changed::No if *first => {}
                    _ => drop(dirty.ways.insert((node, *policy))),
                }
            }
        }
        for node in std::mem::take(&mut dirty.functions) {
            let policies = Key::Policy(PolicyId(0))..=Key::Policy(PolicyId(u32::MAX));
            let own = self.nodes[node].range(policies).filter_map(|entry| match entry {
                Entry::Policy(policy) => Some((node, policy.policy)),
                _ => None,
            });
            dirty.policies.extend(own);
            let ids = self.nodes[node].locals.iter().filter(|(sid, _)| *sid < FIRST_FUNCTION);
            for (sid, _) in ids {
                let users = self.users.get(usize::from(*sid)).into_iter().flat_map(|u| u.iter());
                dirty.policies.extend(users.map(|(node, policy, _)| (*node as usize, *policy)));
            }
        }
    }

    /// Where a packet with that active id goes from a node.
    fn next(&self, sid: u16, node: usize) -> u16 {
        let here = &self.nodes[node];
        if !here.known() {
            return UNKNOWN;
        }
        if here.local(sid).is_some() {
            return index(node);
        }
        let Some((port, mac)) = self.classes[usize::from(sid)].hop[node] else { return LOST };
        let out = self.outs[node].iter().find(|(out, ..)| *out == port);
        out.filter(|(_, far, _)| *far == mac).map_or(LOST, |(.., to)| *to)
    }

    fn settle_groups(&mut self, dirty: &mut Dirty) {
        let world = self.world.clone();
        for node in std::mem::take(&mut dirty.groups) {
            let groups = self.nodes[node].regrouped(node, &world);
            let before = self.nodes[node].groups();
            if groups == *before {
                continue;
            }
            let sets = before.iter().chain(groups.iter()).map(|(set, ..)| set);
            let sets: BTreeSet<SliceSet> = sets.collect();
            for set in sets.into_iter().filter(|set| !before.of(*set).eq(groups.of(*set))) {
                dirty.sets.insert((node, set));
                for (member, _) in before.of(set).chain(groups.of(set)) {
                    let slices = member.slices.iter();
                    dirty.sources.extend(slices.map(|id| (node, *id, member.direction)));
                }
            }
            Arc::make_mut(&mut self.nodes[node]).set_groups(groups);
        }
    }

    fn settle_pairs(&mut self, dirty: &mut Dirty) -> Vec<Topic> {
        for (node, policy) in &dirty.policies {
            if let Some(routes) = self.nodes[*node].routes_by_policy.get(policy) {
                dirty.routes.extend(routes.iter().map(|(set, net)| (*node, *set, *net)));
            }
        }
        for (node, policy) in &dirty.ways {
            if let Some(routes) = self.nodes[*node].routes_by_policy.get(policy) {
                for (set, _) in routes {
                    self.source_of(*node, *set, &mut dirty.sources);
                }
            }
        }
        let mut wrong = Vec::new();
        for (node, set) in &dirty.sets {
            if self.pairs.contains_key(&(*node, *set)) {
                Arc::make_mut(&mut self.pairs).remove(&(*node, *set));
            }
            let here = self.nodes[*node].clone();
            if !here.groups().has(*set) {
                continue;
            }
            // Besides those that it should reach, those that it does.
            let mut stray: Vec<u32> = Vec::new();
            for route in here.routes_of(*set) {
                self.world.hosts.overlapping(route.prefix, |host| stray.push(host));
            }
            for (member, froms) in here.groups().of(*set) {
                let mut to: Vec<u32> = self.world.reached(member).collect();
                to.extend(&stray);
                to.sort_unstable();
                to.dedup();
                for to in to {
                    self.settle_pair((*node, *set), member, froms, to, &mut wrong);
                }
                let slices = member.slices.iter();
                dirty.sources.extend(slices.map(|id| (*node, *id, member.direction)));
            }
        }
        let whole = |node: usize, set: SliceSet| dirty.sets.contains(&(node, set));
        dirty.routes.sort_unstable();
        dirty.routes.dedup();
        for (node, set, net) in &dirty.routes {
            if whole(*node, *set) {
                continue;
            }
            let here = self.nodes[*node].clone();
            if !here.groups().has(*set) {
                continue;
            }
            let mut to = Vec::new();
            self.world.hosts.overlapping(*net, |host| to.push(host));
            for (member, froms) in here.groups().of(*set) {
                for to in &to {
                    self.settle_pair((*node, *set), member, froms, *to, &mut wrong);
                }
            }
            self.source_of(*node, *set, &mut dirty.sources);
        }
        dirty.towards.sort_unstable();
        dirty.towards.dedup();
        for (node, slice, to) in &dirty.towards {
            let here = self.nodes[*node].clone();
            for set in here.sets_in(*slice).iter().filter(|set| !whole(*node, **set)) {
                for (member, froms) in here.groups().of(*set) {
                    self.settle_pair((*node, *set), member, froms, *to, &mut wrong);
                }
            }
        }
        wrong
    }

    /// Guarantees that may go by a route of a set.
    fn source_of(
        &self,
        node: usize,
        set: SliceSet,
        sources: &mut BTreeSet<(usize, SliceId, Direction)>,
    ) {
        for (member, _) in self.nodes[node].groups().of(set) {
            let promised = |id: &&SliceId| {
                let of = self.world.slices.get(id);
                of.is_some_and(|s| s.guaranteed_bps != [0; 2] || s.protected.is_some())
            };
            let slices = member.slices.iter().filter(promised);
            sources.extend(slices.map(|id| (node, *id, member.direction)));
        }
    }

    fn settle_pair(
        &mut self,
        (node, set): (usize, SliceSet),
        member: &Arc<Member>,
        froms: &[u32],
        to: u32,
        wrong: &mut Vec<Topic>,
    ) {
        match self.pair((node, set), member, froms, to, None) {
            Some(defect) => {
                let pairs = Arc::make_mut(&mut self.pairs).entry((node, set)).or_default();
                pairs.insert((member.clone(), to), defect);
                wrong.push(Topic::Pair(node, set, member.clone(), to));
            }
            None => {
                let key = (member.clone(), to);
                if self.pairs.get(&(node, set)).is_some_and(|pairs| pairs.contains_key(&key)) {
                    let all = Arc::make_mut(&mut self.pairs);
                    let pairs = all.get_mut(&(node, set)).expect("it was just looked at");
                    pairs.remove(&key);
                    if pairs.is_empty() {
                        all.remove(&(node, set));
                    }
                }
            }
        }
    }

    /// What failures add for packets that enter there, and whether these outlive them. Costs
    /// slices that are not protected next to nothing.
    fn settle_added(
        &mut self,
        (node, slice, direction): (usize, SliceId, Direction),
        dirty: &mut Dirty,
    ) {
        let key = (slice, super::super::index(direction));
        let topic = Topic::Backup(node, slice, direction);
        let protected = self.world.slices.get(&slice).is_some_and(|s| s.protected.is_some());
        if protected || self.others.contains_key(&topic) {
            dirty.topics.push(topic);
        }
        let before = self.nodes[node].added.get(&key).cloned();
        if !protected && before.is_none() {
            return;
        }
        let before = before.unwrap_or_default();
        let added = self.added(node, slice, direction);
        if *before == added {
            return;
        }
        book(&mut self.spare, &before, false);
        book(&mut self.spare, &added, true);
        let arcs = before.iter().chain(&added).map(|(arc, ..)| Topic::Spare(arc.0, arc.1));
        dirty.topics.extend(arcs);
        let here = Arc::make_mut(&mut self.nodes[node]);
        if added.is_empty() {
            here.added.remove(&key);
        } else {
            here.added.insert(key, Arc::new(added));
        }
    }

    fn settle_sources(&mut self, dirty: &mut Dirty) {
        for (node, slice, direction) in std::mem::take(&mut dirty.sources) {
            self.settle_added((node, slice, direction), dirty);
            let carried = self.carried(node, slice, direction);
            let key = (slice, super::super::index(direction));
            let before = self.nodes[node].sources.get(&key);
            if before.map_or(&[][..], |before| before.as_slice()) == carried.as_slice() {
                continue;
            }
            let before = before.cloned();
            let load = Arc::make_mut(&mut self.load);
            let mut touch = |arc: &(usize, PortId)| {
                dirty.topics.push(Topic::Load(arc.0, arc.1));
                if self.spare.contains_key(arc) {
                    dirty.topics.push(Topic::Spare(arc.0, arc.1));
                }
            };
            for (arc, bps) in before.iter().flat_map(|before| before.iter()) {
                let sum = load.get_mut(arc).expect("it was added");
                *sum -= bps;
                touch(arc);
            }
            for (arc, bps) in &carried {
                *load.entry(*arc).or_default() += bps;
                touch(arc);
            }
            let here = Arc::make_mut(&mut self.nodes[node]);
            if carried.is_empty() {
                here.sources.remove(&key);
            } else {
                here.sources.insert(key, Arc::new(carried));
            }
        }
    }
}

/// Adds to the sums, or takes from them what was added.
fn book(sums: &mut Spare, added: &[((usize, PortId), Moved, u64)], there: bool) {
    for here in added.chunk_by(|a, b| a.0 == b.0) {
        let arc = here[0].0;
        let mut of = sums.remove(&arc).unwrap_or_default();
        let by_moved = Arc::make_mut(&mut of);
        for (_, moved, bps) in here {
            let sum = by_moved.entry(*moved).or_default();
            if there {
                *sum += bps;
            } else {
                *sum -= bps;
                if *sum == 0 {
                    by_moved.remove(moved);
                }
            }
        }
        if !of.is_empty() {
            sums.insert(arc, of);
        }
    }
}

fn index(node: usize) -> u16 {
    u16::try_from(node).expect("nodes are limited to 4,095")
}
