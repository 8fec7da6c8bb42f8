//! A state of the network with what is wrong in it, kept up to date change by change.
//!
//! What packets do falls into classes, and a change is judged by the classes that it concerns:
//!
//! | class | concerned by |
//! |---|---|
//! | packets towards one node id ([`Class`]) | its next hops, local ids, ports, links |
//! | one policy of one ingress: ids in turn | the policy; the classes of its ids, where their end changed; functions of switches it goes to |
//! | endpoints of one switch that are bound and belong alike (a group), towards one endpoint | its route; the route's policy; deliveries to the endpoint |
//! | what a slice guarantees in one direction from one ingress | its meter, its routes, the ways of its policies |
//!
//! A [`Topic`] is one such question; the view holds those whose answer is a defect. Cheap to
//! clone: everything is shared until it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use selvedge_pipeline::{
    Direction, Entry, FUNCTION_UDT46, Key, LocalSidAction, PolicyId, PortId, PortKind, SliceId,
    SliceSet,
};
use selvedge_topology::NodeName;

use super::class::{Changed, Class, LOST, UNKNOWN};
use super::node::Node;
use super::world::{Member, World};
use super::{CounterExample, Defect};
use crate::plan::Table;

/// What an unknown switch is supposed to hold.
const EMPTY: Table = Table::new();

/// Node ids are below.
const FIRST_FUNCTION: u16 = 0xE000;

/// One thing that may be wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Topic {
    /// A bound source is attached there.
    Binding(usize, PortId, IpNet),
    Delivery(usize, SliceId, IpNet),
    /// An endpoint is bound where it is attached.
    Source(u32),
    /// A group of a switch towards an endpoint.
    Pair(usize, SliceSet, Arc<Member>, u32),
    Meter(SliceId, Direction),
    /// What guarantees put on an arc.
    Load(usize, PortId),
    /// A classifier entry, by its priority.
    Asked(usize, u32),
    /// A traffic rule, by its place in the world's list, where an endpoint that it concerns is.
    Rule(usize, u32),
}

/// For people. Filled in when somebody asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Text {
    pub(crate) subject: String,
    pub(crate) nodes: Vec<usize>,
    pub(crate) detail: String,
}

type Pairs = BTreeMap<(Arc<Member>, u32), Defect>;

/// A usable link of a node: its port, the far MAC address, the far node, or [`LOST`] or
/// [`UNKNOWN`].
type Out = (PortId, [u8; 6], u16);

#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) world: Arc<World>,
    pub(crate) nodes: Vec<Arc<Node>>,
    /// By node id.
    pub(crate) classes: Vec<Arc<Class>>,
    /// Policies with that id among theirs, by node id.
    users: Vec<Arc<Vec<(u32, PolicyId)>>>,
    /// Usable links of each node.
    outs: Arc<Vec<Vec<Out>>>,
    pub(crate) part: Arc<Vec<usize>>,
    /// Guarantees on each arc, bits per second of packets.
    pub(crate) load: Arc<BTreeMap<(usize, PortId), u64>>,
    pairs: Arc<BTreeMap<(usize, SliceSet), Pairs>>,
    others: Arc<BTreeMap<Topic, Defect>>,
}

/// What has to be judged again.
#[derive(Default)]
pub(super) struct Dirty {
    groups: BTreeSet<usize>,
    sets: BTreeSet<(usize, SliceSet)>,
    routes: Vec<(usize, SliceSet, IpNet)>,
    /// Endpoints that groups of a switch may send to in a slice.
    towards: Vec<(usize, SliceId, u32)>,
    policies: BTreeSet<(usize, PolicyId)>,
    /// Policies whose way is another, though not its end.
    ways: BTreeSet<(usize, PolicyId)>,
    hops: Vec<(u16, usize)>,
    /// Switches where all next hops are looked at again.
    ports: BTreeSet<usize>,
    functions: BTreeSet<usize>,
    topics: Vec<Topic>,
    sources: BTreeSet<(usize, SliceId, Direction)>,
    rules: bool,
    everything: bool,
}

/// A change of one entry of a node; `None`: removed.
pub(crate) type Changes = Vec<(Key, Option<Entry>)>;

impl View {
    /// Of nothing known in `world`'s network.
    fn of(world: &Arc<World>) -> Self {
        let n = world.nodes.len();
        let mut view = Self {
            world: world.clone(),
            nodes: vec![Arc::default(); n],
            part: Arc::new(world.parts()),
            ..Self::default()
        };
        view.outs = Arc::new(view.all_outs());
        view
    }

    /// Brings the view to another world and other tables, judging what is concerned.
    ///
    /// Cost: for each switch whose table is another object its entries; for the world its
    /// endpoints and slices, if those are other objects.
    pub(crate) fn advance(&mut self, world: &Arc<World>, tables: &BTreeMap<NodeName, Arc<Table>>) {
        let mut dirty = Dirty::default();
        if self.world.nodes != world.nodes || self.world.hosts != world.hosts {
            *self = Self::of(world);
            dirty.everything = true;
        } else if !Arc::ptr_eq(&self.world, world) {
            let before = std::mem::replace(&mut self.world, world.clone());
            self.world_changed(&before, &mut dirty);
        }
        for node in 0..self.nodes.len() {
            let table = tables.get(world.name(node));
            let known = &self.nodes[node].table;
            let same = match (known, table) {
                (Some(known), Some(table)) => Arc::ptr_eq(known, table),
                (None, None) => true,
                _ => false,
            };
            if same {
                continue;
            }
            let changes = self.nodes[node].towards(table.map_or(&EMPTY, Arc::as_ref));
            if known.is_some() != table.is_some() {
                self.known_changed(node, &mut dirty);
            }
            self.change(node, changes, &mut dirty);
            // The same entries, but shared.
            Arc::make_mut(&mut self.nodes[node]).table = table.cloned();
        }
        self.settle(dirty);
    }

    /// Carries out one step of a plan; answers what is wrong now among what was concerned.
    pub(crate) fn step(&mut self, steps: impl Iterator<Item = (usize, Changes)>) -> Vec<Topic> {
        let mut dirty = Dirty::default();
        for (node, changes) in steps {
            if !self.nodes[node].known() {
                Arc::make_mut(&mut self.nodes[node]).table = Some(Arc::default());
                self.known_changed(node, &mut dirty);
            }
            self.change(node, changes, &mut dirty);
        }
        self.settle(dirty)
    }

    /// Everything that is wrong, in a fixed order.
    pub(crate) fn wrong(&self) -> impl Iterator<Item = (Topic, Defect)> + '_ {
        let pairs = self.pairs.iter().flat_map(|((node, set), pairs)| {
            let topic = |((member, to), defect): (&(Arc<Member>, u32), &Defect)| {
                (Topic::Pair(*node, *set, member.clone(), *to), *defect)
            };
            pairs.iter().map(topic)
        });
        let others = self.others.iter().map(|(topic, defect)| (topic.clone(), *defect));
        others.chain(pairs)
    }

    /// What is wrong among topics of a range that are not pairs.
    pub(super) fn wrong_between(&self, first: &Topic, last: &Topic) -> Vec<Topic> {
        self.others.range(first..=last).map(|(topic, _)| topic.clone()).collect()
    }

    pub(crate) fn defect(&self, topic: &Topic) -> Option<Defect> {
        match topic {
            Topic::Pair(node, set, member, to) => {
                self.pairs.get(&(*node, *set))?.get(&(member.clone(), *to)).copied()
            }
            other => self.others.get(other).copied(),
        }
    }

    /// What is wrong there, for people.
    pub(crate) fn explain(&self, topic: &Topic) -> Option<(CounterExample, Vec<usize>)> {
        let mut text = Text::default();
        let defect = self.judge(topic, Some(&mut text))?;
        let nodes = text.nodes.iter().map(|node| self.world.name(*node).clone()).collect();
        let Text { subject, detail, .. } = text;
        Some((CounterExample { defect, step: 0, subject, nodes, detail }, text.nodes))
    }

    fn judge(&self, topic: &Topic, text: Option<&mut Text>) -> Option<Defect> {
        match topic {
            Topic::Binding(node, port, net) => self.binding(*node, *port, *net, text),
            Topic::Delivery(node, slice, net) => self.delivery(*node, *slice, *net, text),
            Topic::Source(host) => self.source(*host, text),
            Topic::Pair(node, set, member, to) => {
                let froms = self.nodes[*node].groups().get(set).and_then(|g| g.get(member))?;
                self.pair((*node, *set), member, froms, *to, text)
            }
            Topic::Meter(slice, direction) => self.meters(*slice, *direction, text),
            Topic::Load(node, port) => self.overload(*node, *port, text),
            Topic::Asked(node, priority) => self.asked(*node, *priority, text),
            Topic::Rule(rule, host) => self.rule(*rule, *host, text),
        }
    }

    // Changes, and what they concern.

    fn known_changed(&mut self, node: usize, dirty: &mut Dirty) {
        dirty.ports.insert(node);
        dirty.functions.insert(node);
        dirty.groups.insert(node);
        dirty.rules = true;
    }

    fn change(&mut self, node: usize, changes: Changes, dirty: &mut Dirty) {
        if changes.is_empty() {
            return;
        }
        let world = self.world.clone();
        for (key, entry) in changes {
            if let Key::NextHop(sid) = key {
                // Held by class alone, but for reading back.
                let hop = match &entry {
                    Some(Entry::NextHop(hop)) => Some((hop.port, hop.mac)),
                    _ => None,
                };
                let class = self.class(sid.0);
                class.hop[node] = hop;
                dirty.hops.push((sid.0, node));
            }
            let sids_after = match &entry {
                Some(Entry::Policy(policy)) => policy.sids.clone(),
                _ => Vec::new(),
            };
            let old = Arc::make_mut(&mut self.nodes[node]).set(key, entry);
            match key {
                Key::NextHop(_) | Key::PortQueue(_) | Key::Generation => {}
                Key::Port(port) => {
                    dirty.ports.insert(node);
                    self.port_changed(node, port, dirty);
                }
                Key::Endpoint(port, net) => {
                    dirty.groups.insert(node);
                    dirty.topics.push(Topic::Binding(node, port, net));
                    world.hosts.overlapping(net, |host| dirty.topics.push(Topic::Source(host)));
                }
                Key::Classifier(priority) => {
                    dirty.topics.push(Topic::Asked(node, priority));
                    dirty.rules = true;
                }
                Key::SliceRoute(set, net) => dirty.routes.push((node, set, net)),
                Key::SliceMeter(slice, direction) => {
                    dirty.topics.push(Topic::Meter(slice, direction));
                    dirty.sources.insert((node, slice, direction));
                }
                Key::Policy(policy) => {
                    dirty.policies.insert((node, policy));
                    let before = match &old {
                        Some(Entry::Policy(policy)) => policy.sids.as_slice(),
                        _ => &[],
                    };
                    self.used(node, policy, before, &sids_after);
                }
                Key::LocalSid(sid) => {
                    if sid < FIRST_FUNCTION {
                        // The class is made, so that the id has an end.
                        let _: &mut Class = self.class(sid);
                        dirty.hops.push((sid, node));
                    }
                    dirty.functions.insert(node);
                }
                Key::Delivery(slice, net) => {
                    dirty.topics.push(Topic::Delivery(node, slice, net));
                    let mut to = Vec::new();
                    world.hosts.overlapping(net, |host| to.push(host));
                    if !to.is_empty() {
                        let switches = world.switches_of(slice);
                        for host in to {
                            dirty.towards.extend(switches.iter().map(|from| (*from, slice, host)));
                        }
                    }
                }
            }
        }
    }

    fn port_changed(&self, node: usize, port: PortId, dirty: &mut Dirty) {
        // Whoever sends here, and endpoints at the port.
        if let Some(wire) = self.world.wires.get(&(node, port)) {
            dirty.ports.insert(wire.node);
            return;
        }
        let world = self.world.clone();
        for host in world.hosts_at(node, port) {
            dirty.topics.push(Topic::Source(host));
            self.towards(host, dirty);
        }
    }

    /// Everybody who may send to a host.
    fn towards(&self, host: u32, dirty: &mut Dirty) {
        let Some(endpoint) = self.world.endpoint(host) else { return };
        for slice in &endpoint.member.slices {
            let switches = self.world.switches_of(*slice).into_iter();
            dirty.towards.extend(switches.map(|from| (from, *slice, host)));
        }
    }

    /// A policy has other ids.
    fn used(&mut self, node: usize, policy: PolicyId, before: &[u16], after: &[u16]) {
        let user = (u32::try_from(node).expect("nodes are limited"), policy);
        for sid in before.iter().filter(|sid| **sid < FIRST_FUNCTION && !after.contains(sid)) {
            self.class(*sid);
            let users = Arc::make_mut(&mut self.users[usize::from(*sid)]);
            if let Some(at) = users.iter().position(|known| *known == user) {
                users.swap_remove(at);
            }
        }
        let mut known: Vec<u16> = before.to_vec();
        for sid in after.iter().filter(|sid| **sid < FIRST_FUNCTION) {
            if !known.contains(sid) {
                known.push(*sid);
                self.class(*sid);
                Arc::make_mut(&mut self.users[usize::from(*sid)]).push(user);
            }
        }
    }

    fn class(&mut self, sid: u16) -> &mut Class {
        let at = usize::from(sid);
        if self.classes.len() <= at {
            let n = self.nodes.len();
            let empty = Arc::new(Class::new(n));
            self.classes.resize(at + 1, empty);
            self.users.resize(at + 1, Arc::default());
        }
        Arc::make_mut(&mut self.classes[at])
    }

    fn world_changed(&mut self, before: &World, dirty: &mut Dirty) {
        let world = self.world.clone();
        if before.wires != world.wires {
            let keys: BTreeSet<_> = before.wires.keys().chain(world.wires.keys()).collect();
            for key in keys {
                let (old, new) = (before.wires.get(key), world.wires.get(key));
                if old != new {
                    dirty.ports.insert(key.0);
                    dirty.topics.push(Topic::Load(key.0, key.1));
                }
            }
            let part = world.parts();
            if part != *self.part {
                self.part = Arc::new(part);
                dirty.everything = true;
            }
        }
        if before.hooks != world.hooks {
            let keys: BTreeSet<_> = before.hooks.keys().chain(world.hooks.keys()).collect();
            for key in keys {
                let (old, new) = (before.hooks.get(key), world.hooks.get(key));
                if old != new {
                    dirty.functions.insert(key.0);
                    for hook in [old, new].into_iter().flatten() {
                        self.slice_dirty(hook.slice, dirty);
                    }
                }
            }
        }
        if !Arc::ptr_eq(&before.slices, &world.slices) {
            let ids: BTreeSet<_> = before.slices.keys().chain(world.slices.keys()).collect();
            for id in ids {
                let (old, new) = (before.slices.get(id), world.slices.get(id));
                if old != new {
                    // Who came or went is found by endpoint below.
                    let all = |s: &super::Slice| super::Slice { members: Vec::new(), ..s.clone() };
                    if old.map(all) != new.map(all) {
                        self.slice_dirty(*id, dirty);
                    }
                    for direction in super::DIRECTIONS {
                        dirty.topics.push(Topic::Meter(*id, direction));
                    }
                }
            }
        }
        if !Arc::ptr_eq(&before.endpoints, &world.endpoints) {
            let all = before.endpoints.iter().zip(world.endpoints.iter());
            let changed: Vec<u32> =
                (0..).zip(all).filter(|(_, (old, new))| old != new).map(|(host, _)| host).collect();
            for host in changed {
                self.endpoint_changed(before, host, dirty);
            }
            dirty.rules |= !world.rules.is_empty();
        }
        dirty.rules |= before.rules != world.rules;
    }

    fn slice_dirty(&self, slice: SliceId, dirty: &mut Dirty) {
        for node in self.world.switches_of(slice) {
            let sets = self.nodes[node].sets_in(slice).into_iter();
            dirty.sets.extend(sets.map(|set| (node, set)));
            for direction in super::DIRECTIONS {
                dirty.sources.insert((node, slice, direction));
            }
        }
        for direction in super::DIRECTIONS {
            dirty.topics.push(Topic::Meter(slice, direction));
        }
    }

    fn endpoint_changed(&self, before: &World, host: u32, dirty: &mut Dirty) {
        dirty.topics.push(Topic::Source(host));
        for world in [before, &*self.world] {
            let Some(endpoint) = world.endpoint(host) else { continue };
            let node = endpoint.node;
            dirty.groups.insert(node);
            for binding in self.nodes[node].bindings() {
                if endpoint.prefixes.iter().any(|net| net.contains(&binding.prefix)) {
                    dirty.topics.push(Topic::Binding(node, binding.port, binding.prefix));
                }
            }
            for slice in &endpoint.member.slices {
                for net in &endpoint.prefixes {
                    dirty.topics.push(Topic::Delivery(node, *slice, *net));
                }
                let switches = world.switches_of(*slice).into_iter();
                dirty.towards.extend(switches.map(|from| (from, *slice, host)));
                for direction in super::DIRECTIONS {
                    dirty.topics.push(Topic::Meter(*slice, direction));
                    dirty.sources.insert((node, *slice, direction));
                }
            }
        }
    }

    // Judging what is concerned.

    fn settle(&mut self, mut dirty: Dirty) -> Vec<Topic> {
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
            dirty.sets.extend(here.groups().keys().map(|set| (node, *set)));
        }
        for id in world.slices.keys() {
            dirty.topics.extend(super::DIRECTIONS.map(|direction| Topic::Meter(*id, direction)));
        }
    }

    fn all_outs(&self) -> Vec<Vec<Out>> {
        let mut outs = vec![Vec::new(); self.nodes.len()];
        for (&(node, port), wire) in &self.world.wires {
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
            for (ingress, policy) in self.users[usize::from(sid)].iter() {
                let node = *ingress as usize;
                let first = || match self.nodes[node].get(&Key::Policy(*policy)) {
                    Some(Entry::Policy(entry)) => entry.sids.first() == Some(&sid),
                    _ => false,
                };
                // From which node a later id is followed depends on those before it.
                match changed[node] {
                    Changed::End => drop(dirty.policies.insert((node, *policy))),
                    _ if any_end && !first() => drop(dirty.policies.insert((node, *policy))),
                    Changed::No if first() => {}
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
                dirty.policies.extend(users.map(|(node, policy)| (*node as usize, *policy)));
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
            let sets: BTreeSet<SliceSet> = before.keys().chain(groups.keys()).copied().collect();
            for set in sets {
                let (old, new) = (before.get(&set), groups.get(&set));
                if old != new {
                    dirty.sets.insert((node, set));
                    let members = [old, new].into_iter().flatten().flat_map(BTreeMap::keys);
                    for member in members {
                        let slices = member.slices.iter();
                        dirty.sources.extend(slices.map(|id| (node, *id, member.direction)));
                    }
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
            let Some(groups) = here.groups().get(set) else { continue };
            // Besides those that it should reach, those that it does.
            let mut stray: Vec<u32> = Vec::new();
            for route in here.routes_of(*set) {
                self.world.hosts.overlapping(route.prefix, |host| stray.push(host));
            }
            for (member, froms) in groups {
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
            let Some(groups) = here.groups().get(set) else { continue };
            let mut to = Vec::new();
            self.world.hosts.overlapping(*net, |host| to.push(host));
            for (member, froms) in groups {
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
                let Some(groups) = here.groups().get(set) else { continue };
                for (member, froms) in groups {
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
        for member in self.nodes[node].groups().get(&set).into_iter().flat_map(BTreeMap::keys) {
            let promised = |id: &&SliceId| {
                self.world.slices.get(id).is_some_and(|slice| slice.guaranteed_bps != [0; 2])
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

    fn settle_sources(&mut self, dirty: &mut Dirty) {
        for (node, slice, direction) in std::mem::take(&mut dirty.sources) {
            let carried = self.carried(node, slice, direction);
            let key = (slice, super::index(direction));
            let before = self.nodes[node].sources.get(&key);
            if before.map_or(&[][..], |before| before.as_slice()) == carried.as_slice() {
                continue;
            }
            let before = before.cloned();
            let load = Arc::make_mut(&mut self.load);
            for (arc, bps) in before.iter().flat_map(|before| before.iter()) {
                let sum = load.get_mut(arc).expect("it was added");
                *sum -= bps;
                dirty.topics.push(Topic::Load(arc.0, arc.1));
            }
            for (arc, bps) in &carried {
                *load.entry(*arc).or_default() += bps;
                dirty.topics.push(Topic::Load(arc.0, arc.1));
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

fn index(node: usize) -> u16 {
    u16::try_from(node).expect("nodes are limited to 4,095")
}

/// One packet that a policy sent off.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    /// Where it ended.
    pub(crate) at: usize,
    /// Compute functions on the way, in order.
    pub(crate) hooks: Vec<(usize, selvedge_pipeline::HookId)>,
    pub(crate) end: End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Stripped of its outer header.
    Decapsulated,
    /// At a switch whose entries are not known.
    Unknown,
    Loop,
    Lost(Why),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    NoPolicy(PolicyId),
    TooManyIds(PolicyId),
    UnknownId(u16),
    NoWay(u16),
    TooManyLocal,
    HopLimit,
}

/// Rounds of the local-id loop in one switch.
const ROUNDS: usize = 4;
/// Ids of 16 bits after the block in an outer destination.
const IDS: usize = 6;
/// Links that a packet crosses at most: its first hop limit is 64, and one that arrives with 1
/// is still decapsulated.
const HOPS: usize = 64;

impl View {
    /// What becomes of packets that `policy` sends off at `ingress`: steps C.3 of the pipeline,
    /// from one end of a class to the next. `arcs`: given each link on the way.
    pub(crate) fn sent(
        &self,
        ingress: usize,
        policy: PolicyId,
        mut arcs: Option<&mut dyn FnMut(usize, PortId)>,
    ) -> Sent {
        let mut sent = Sent { at: ingress, hooks: Vec::new(), end: End::Unknown };
        if !self.nodes[ingress].known() {
            return sent;
        }
        let sids = match self.nodes[ingress].get(&Key::Policy(policy)) {
            Some(Entry::Policy(entry)) if entry.sids.len() <= IDS => entry.sids.as_slice(),
            Some(_) => {
                sent.end = End::Lost(Why::TooManyIds(policy));
                return sent;
            }
            None => {
                sent.end = End::Lost(Why::NoPolicy(policy));
                return sent;
            }
        };
        let mut ids = sids.iter().copied().chain(std::iter::repeat(0));
        let mut active = ids.next().expect("endless");
        let (mut rounds, mut hops) = (0, 0);
        sent.end = loop {
            if let Some(action) = self.nodes[sent.at].local(active) {
                if rounds == ROUNDS {
                    break End::Lost(Why::TooManyLocal);
                }
                rounds += 1;
                match action {
                    LocalSidAction::Decapsulate => break End::Decapsulated,
                    LocalSidAction::Node => {}
                    LocalSidAction::Compute { hook, .. } => {
                        sent.hooks.push((sent.at, hook));
                        rounds = 0; // it comes in anew, from the compute port
                    }
                }
                active = ids.next().expect("endless");
                continue;
            }
            if rounds == ROUNDS {
                break End::Lost(Why::TooManyLocal);
            }
            if active == 0 || active >= FIRST_FUNCTION {
                break End::Lost(Why::UnknownId(active));
            }
            let Some(class) = self.classes.get(usize::from(active)) else {
                break End::Lost(Why::NoWay(active));
            };
            let end = class.end[sent.at];
            if let Some(arcs) = &mut arcs {
                // As far as it goes; in a circle once round is enough.
                let mut left = self.nodes.len();
                while class.next[sent.at] < UNKNOWN && usize::from(class.next[sent.at]) != sent.at {
                    if left == 0 {
                        break;
                    }
                    left -= 1;
                    if let Some((port, _)) = class.hop[sent.at] {
                        arcs(sent.at, port);
                    }
                    sent.at = usize::from(class.next[sent.at]);
                }
            }
            match end {
                LOST => break End::Lost(Why::NoWay(active)),
                super::class::LOOP => break End::Loop,
                UNKNOWN => break End::Unknown,
                _ => {}
            }
            if arcs.is_none() {
                hops += usize::from(class.hops[sent.at]);
                sent.at = usize::from(end);
            }
            if hops > HOPS {
                break End::Lost(Why::HopLimit);
            }
            rounds = 0;
        };
        sent
    }
}

/// For messages.
pub(super) fn function_name(id: u16) -> &'static str {
    if id == FUNCTION_UDT46 { "uDT46" } else { "the function" }
}
