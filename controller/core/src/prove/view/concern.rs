//! Changes, and what they concern.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;
use selvedge_pipeline::{Direction, Entry, Key, Path, PolicyId, PortId, SliceId, SliceSet};

use super::super::DIRECTIONS;
use super::super::class::Class;
use super::super::node::sources;
use super::super::world::{Slice, World};
use super::{Changes, FIRST_FUNCTION, Topic, View};

/// What has to be judged again.
#[derive(Default)]
pub(super) struct Dirty {
    pub(super) groups: BTreeSet<usize>,
    pub(super) sets: BTreeSet<(usize, SliceSet)>,
    pub(super) routes: Vec<(usize, SliceSet, IpNet)>,
    /// Endpoints that groups of a switch may send to in a slice.
    pub(super) towards: Vec<(usize, SliceId, u32)>,
    pub(super) policies: BTreeSet<(usize, PolicyId)>,
    /// Policies whose way is another, though not its end.
    pub(super) ways: BTreeSet<(usize, PolicyId)>,
    pub(super) hops: Vec<(u16, usize)>,
    /// Switches where all next hops are looked at again.
    pub(super) ports: BTreeSet<usize>,
    pub(super) functions: BTreeSet<usize>,
    pub(super) topics: Vec<Topic>,
    pub(super) sources: BTreeSet<(usize, SliceId, Direction)>,
    pub(super) rules: bool,
    pub(super) everything: bool,
}

/// Ids of nodes that paths lead to, and whether one begins there.
type Uses = BTreeSet<(u16, bool)>;

/// Of all paths of a policy.
fn uses(entry: Option<&Entry>) -> Uses {
    let Some(Entry::Policy(policy)) = entry else { return Uses::new() };
    let of = |path: &Path| -> Vec<(u16, bool)> {
        let each = path.sids.iter().filter(|sid| **sid < FIRST_FUNCTION);
        each.map(|sid| (*sid, path.sids.first() == Some(sid))).collect()
    };
    policy.paths.iter().flat_map(of).collect()
}

impl View {
    pub(super) fn known_changed(&mut self, node: usize, dirty: &mut Dirty) {
        dirty.ports.insert(node);
        dirty.functions.insert(node);
        dirty.groups.insert(node);
        dirty.rules = true;
    }

    pub(super) fn change(&mut self, node: usize, changes: Changes, dirty: &mut Dirty) {
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
            let used_after = uses(entry.as_ref());
            let old = Arc::make_mut(&mut self.nodes[node]).set(key, entry);
            match key {
                Key::NextHop(_) | Key::Backup(..) | Key::PortQueue(_) | Key::Generation => {}
                Key::N3Address(_) => {
                    let here = world.hosts_of.get(node).into_iter().flatten();
                    dirty.topics.extend(here.map(|host| Topic::Source(*host)));
                }
                Key::GtpSession(teid) => {
                    dirty.groups.insert(node);
                    dirty.topics.push(Topic::Session(node, teid));
                    let new = self.nodes[node].session(teid);
                    let old = match &old {
                        Some(Entry::GtpSession(old)) => Some(&**old),
                        _ => None,
                    };
                    for net in old.into_iter().chain(new).flat_map(sources) {
                        let add = |host| dirty.topics.push(Topic::Source(host));
                        world.hosts.overlapping(net, add);
                    }
                }
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
                Key::EndpointMeter(slice, direction, _) => {
                    dirty.topics.push(Topic::Meter(slice, direction));
                }
                Key::Policy(policy) => {
                    dirty.policies.insert((node, policy));
                    self.used(node, policy, &uses(old.as_ref()), &used_after);
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
    fn used(&mut self, node: usize, policy: PolicyId, before: &Uses, after: &Uses) {
        let node = u32::try_from(node).expect("nodes are limited");
        for (sid, first) in before.difference(after) {
            self.class(*sid);
            let users = Arc::make_mut(&mut self.users[usize::from(*sid)]);
            let user = (node, policy, *first);
            if let Some(at) = users.iter().position(|known| *known == user) {
                users.swap_remove(at);
            }
        }
        for (sid, first) in after.difference(before) {
            self.class(*sid);
            Arc::make_mut(&mut self.users[usize::from(*sid)]).push((node, policy, *first));
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

    pub(super) fn world_changed(&mut self, before: &World, dirty: &mut Dirty) {
        let world = self.world.clone();
        if before.wires != world.wires {
            let keys: BTreeSet<_> = before.wires.keys().chain(world.wires.keys()).collect();
            let mut links: BTreeSet<u32> = BTreeSet::new();
            for key in keys {
                let (old, new) = (before.wires.get(key), world.wires.get(key));
                if old != new {
                    dirty.ports.insert(key.0);
                    dirty.topics.push(Topic::Load(key.0, key.1));
                    dirty.topics.push(Topic::Spare(key.0, key.1));
                    links.extend([old, new].into_iter().flatten().map(|wire| wire.link));
                }
            }
            self.links_changed(&links, dirty);
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
        before.slices.differences(&world.slices, |id, old, new| {
            // Who came or went is found by endpoint below.
            let protected = |s: Option<&Arc<Slice>>| s.and_then(|s| s.protected.clone());
            if protected(old) != protected(new) {
                self.sources_dirty(*id, dirty);
            }
            if !old.zip(new).is_some_and(|(old, new)| old.is_but_for_members(new)) {
                self.slice_dirty(*id, dirty);
            }
            dirty.topics.extend(DIRECTIONS.map(|direction| Topic::Meter(*id, direction)));
        });
        if !Arc::ptr_eq(&before.endpoints, &world.endpoints) {
            let all = before.endpoints.iter().zip(world.endpoints.iter());
            let same = |(old, new): &(&Option<Arc<_>>, &Option<Arc<_>>)| match (old, new) {
                (Some(old), Some(new)) => Arc::ptr_eq(old, new),
                (None, None) => true,
                _ => false,
            };
            let changed: Vec<u32> =
                (0..).zip(all).filter(|(_, both)| !same(both)).map(|(host, _)| host).collect();
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
        }
        self.sources_dirty(slice, dirty);
        for direction in DIRECTIONS {
            dirty.topics.push(Topic::Meter(slice, direction));
        }
    }

    fn sources_dirty(&self, slice: SliceId, dirty: &mut Dirty) {
        for node in self.world.switches_of(slice) {
            dirty.sources.extend(DIRECTIONS.map(|direction| (node, slice, direction)));
        }
    }

    /// Links are usable that were not, or the other way round: backups may lead over them.
    fn links_changed(&self, links: &BTreeSet<u32>, dirty: &mut Dirty) {
        for (slice, of) in self.world.slices.iter() {
            let backups = of.protected.iter().flat_map(|protected| &protected.backups);
            for ((direction, from, _), backup) in backups {
                let hops = backup.iter().flat_map(|backup| &backup.hops);
                if hops.into_iter().any(|(_, link)| links.contains(link)) {
                    dirty.sources.insert((*from, *slice, *direction));
                }
            }
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
            if let Some(way) = endpoint.n3 {
                dirty.topics.push(Topic::Session(node, way.uplink_teid));
            }
            for slice in &endpoint.member.slices {
                for net in &endpoint.prefixes {
                    dirty.topics.push(Topic::Delivery(node, *slice, *net));
                }
                let switches = world.switches_of(*slice).into_iter();
                dirty.towards.extend(switches.map(|from| (from, *slice, host)));
                for direction in DIRECTIONS {
                    dirty.topics.push(Topic::Meter(*slice, direction));
                    dirty.sources.insert((node, *slice, direction));
                }
            }
        }
    }
}
