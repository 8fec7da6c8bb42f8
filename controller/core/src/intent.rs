//! What operators and applications want: objects by name, and changes to them, taken whole or
//! not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use selvedge_slices::{
    Application, ClassMap, Hook, NetworkSlice, Object, ObjectKind, ObjectName, Side, TrafficRule,
};
use selvedge_topology::{NodeName, Topology};

use crate::drain::{DrainMeta, Drained};
use crate::event::{Change, ObjectId};
use crate::lifecycle::{self, Phase};
use crate::refusal::Refusal;
use crate::view::{Touched, Verb};

mod sessions;
mod slices;

pub(crate) use sessions::{N3Way, Sessions};
pub(crate) use slices::{Difference, Slices, StoredSlice};

/// Cheap to clone: objects are shared until they change.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Intent {
    /// Counts up with every change that was taken.
    pub(crate) revision: u64,
    pub(crate) slices: Slices,
    pub(crate) hooks: BTreeMap<ObjectName, Arc<Stored<Hook>>>,
    pub(crate) applications: BTreeMap<ObjectName, Arc<Stored<Application>>>,
    /// One at most: see [`Intent::check`].
    pub(crate) class_maps: BTreeMap<ObjectName, Arc<Stored<ClassMap>>>,
    pub(crate) sessions: Sessions,
    /// Nodes and links that are to be empty. No rollback changes them.
    pub(crate) drained: BTreeMap<Drained, DrainMeta>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored<T> {
    pub(crate) object: T,
    pub(crate) meta: Meta,
}

/// Who put an object, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// SHA-256 of a hook's module, lower-case hex.
    pub(crate) module: Option<String>,
    pub(crate) revision: u64,
    pub(crate) author: String,
    pub(crate) changed_at_ms: u64,
    /// Of a slice.
    pub(crate) phase: Phase,
}

/// Puts an object, unless it is there already just so.
fn put<T: PartialEq>(
    map: &mut BTreeMap<ObjectName, Arc<Stored<T>>>,
    name: &ObjectName,
    object: T,
    meta: Meta,
) -> bool {
    let same = |old: &Arc<Stored<T>>| old.object == object && old.meta.module == meta.module;
    if map.get(name).is_some_and(same) {
        return false;
    }
    map.insert(name.clone(), Arc::new(Stored { object, meta }));
    true
}

/// The same for a slice. Who came first keeps the place, whatever phase follows; who has held
/// nothing does not.
fn put_slice(slices: &mut Slices, slice: NetworkSlice, mut meta: Meta) -> bool {
    let old = slices.get(&slice.name).filter(|old| *old.object == slice);
    let Some(old) = old else {
        slices.insert(Arc::new(Stored { object: Arc::new(slice), meta }));
        return true;
    };
    let (before, phase) = (old.phase(), meta.phase);
    if before == phase && phase.holds_capacity() {
        return false;
    }
    let revision = if before.holds_capacity() { old.meta.revision } else { meta.revision };
    meta = Meta { phase, revision, ..old.meta.clone() };
    let object = old.object.clone();
    slices.insert(Arc::new(Stored { object, meta }));
    before != phase
}

/// What differs between two maps of objects, by the revision that each was put in.
fn differing<'a, T>(
    kind: ObjectKind,
    before: &'a BTreeMap<ObjectName, Arc<Stored<T>>>,
    after: &'a BTreeMap<ObjectName, Arc<Stored<T>>>,
) -> impl Iterator<Item = Touched> + 'a {
    let touched = move |verb, name: &ObjectName| Touched {
        verb,
        id: ObjectId { kind, name: ObjectName::clone(name) },
    };
    let put = after.iter().filter_map(move |(name, stored)| match before.get(name) {
        None => Some(touched(Verb::Added, name)),
        Some(old) if old.meta.revision != stored.meta.revision => {
            Some(touched(Verb::Changed, name))
        }
        Some(_) => None,
    });
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    put.chain(gone.map(move |name| touched(Verb::Deleted, name)))
}

impl Intent {
    /// Whether the same nodes and links are drained.
    pub(crate) fn same_drains(&self, drained: &BTreeMap<Drained, DrainMeta>) -> bool {
        self.drained.keys().eq(drained.keys())
    }

    /// Whether there are applications to be placed.
    pub(crate) fn places(&self) -> bool {
        self.applications.values().any(|stored| stored.object.demand.is_some())
    }

    /// The objects that a later intent has otherwise.
    pub(crate) fn touched(&self, later: &Self) -> Vec<Touched> {
        let slices = self.slices.since(&later.slices).into_iter().filter_map(|(name, old, new)| {
            let verb = match (old, new) {
                (Some(old), Some(new)) if old.meta.revision == new.meta.revision => return None,
                (Some(_), Some(_)) => Verb::Changed,
                (None, _) => Verb::Added,
                (_, None) => Verb::Deleted,
            };
            let id = ObjectId { kind: ObjectKind::NetworkSlice, name: name.clone() };
            Some(Touched { verb, id })
        });
        let mut sessions = Vec::new();
        self.sessions.differences(&later.sessions, |name, old, new| {
            let verb = match (old, new) {
                (Some(old), Some(new)) if old.meta.revision == new.meta.revision => return,
                (Some(_), Some(_)) => Verb::Changed,
                (None, _) => Verb::Added,
                (_, None) => Verb::Deleted,
            };
            let id = ObjectId { kind: ObjectKind::PduSession, name: name.clone() };
            sessions.push(Touched { verb, id });
        });
        slices
            .chain(differing(ObjectKind::Hook, &self.hooks, &later.hooks))
            .chain(differing(ObjectKind::Application, &self.applications, &later.applications))
            .chain(differing(ObjectKind::ClassMap, &self.class_maps, &later.class_maps))
            .chain(sessions)
            .collect()
    }

    /// An object, and of a hook the SHA-256 of its module.
    pub(crate) fn object(&self, id: &ObjectId) -> Option<(Object, Option<String>)> {
        let name = id.name.as_str();
        let (object, meta) = match id.kind {
            ObjectKind::NetworkSlice => {
                let stored = self.slices.get(name)?;
                (Object::NetworkSlice(NetworkSlice::clone(&stored.object)), &stored.meta)
            }
            ObjectKind::Hook => {
                let stored = self.hooks.get(name)?;
                (Object::Hook(stored.object.clone()), &stored.meta)
            }
            ObjectKind::Application => {
                let stored = self.applications.get(name)?;
                (Object::Application(stored.object.clone()), &stored.meta)
            }
            ObjectKind::ClassMap => {
                let stored = self.class_maps.get(name)?;
                (Object::ClassMap(stored.object.clone()), &stored.meta)
            }
            ObjectKind::PduSession => {
                let stored = self.sessions.get(name)?;
                (Object::PduSession(stored.object.clone()), &stored.meta)
            }
        };
        Some((object, meta.module.clone()))
    }

    /// SHA-256 digests of the modules of hooks.
    pub(crate) fn modules(&self) -> impl Iterator<Item = &str> {
        self.hooks.values().filter_map(|stored| stored.meta.module.as_deref())
    }

    /// The intent after a change; `None`: it would be the same.
    pub(crate) fn changed(
        &self,
        change: &Change,
        author: &str,
        now_ms: u64,
    ) -> Result<Option<Self>, Refusal> {
        let mut next = self.clone();
        next.revision += 1;
        let mut seen: BTreeSet<(ObjectKind, &ObjectName)> = BTreeSet::new();
        let mut once = |kind, name| {
            let twice = Refusal::Twice { kind, name: ObjectName::clone(name) };
            if seen.insert((kind, name)) { Ok(()) } else { Err(twice) }
        };
        let mut different = false;
        for id in &change.delete {
            once(id.kind, &id.name)?;
            let was_there = match id.kind {
                ObjectKind::NetworkSlice => next.slices.remove(&id.name).is_some(),
                ObjectKind::Hook => next.hooks.remove(&id.name).is_some(),
                ObjectKind::Application => next.applications.remove(&id.name).is_some(),
                ObjectKind::ClassMap => next.class_maps.remove(&id.name).is_some(),
                ObjectKind::PduSession => next.sessions.remove(&id.name),
            };
            if !was_there {
                return Err(Refusal::NotFound { kind: id.kind, name: id.name.clone() });
            }
            different = true;
        }
        for object in &change.put {
            let name = object.name();
            once(object.kind(), name)?;
            let module = match object {
                Object::Hook(_) => {
                    let missing = || Refusal::ModuleMissing { hook: name.to_string() };
                    Some(change.modules.get(name).ok_or_else(missing)?.clone())
                }
                Object::NetworkSlice(_)
                | Object::Application(_)
                | Object::ClassMap(_)
                | Object::PduSession(_) => None,
            };
            let phase = match object {
                Object::NetworkSlice(slice) => {
                    lifecycle::phase_of_put(self.slices.get(name).map(Arc::as_ref), slice, now_ms)?
                }
                _ => Phase::default(),
            };
            let meta = Meta {
                module,
                revision: next.revision,
                author: author.to_owned(),
                changed_at_ms: now_ms,
                phase,
            };
            different |= match object.clone() {
                Object::NetworkSlice(mut slice) => {
                    slice.classify(self.class_map());
                    put_slice(&mut next.slices, slice, meta)
                }
                Object::Hook(hook) => put(&mut next.hooks, name, hook, meta),
                Object::Application(application) => {
                    put(&mut next.applications, name, application, meta)
                }
                Object::ClassMap(map) => put(&mut next.class_maps, name, map, meta),
                Object::PduSession(object) => next.sessions.put(Stored { object, meta }),
            };
        }
        if next.class_maps != self.class_maps {
            next.classify();
        }
        Ok(different.then_some(next))
    }

    /// The operator's classes; `None`: 3GPP's hold.
    pub(crate) fn class_map(&self) -> Option<&ClassMap> {
        self.class_maps.values().next().map(|stored| &stored.object)
    }

    /// Puts every slice into the class that the map gives it.
    pub(crate) fn classify(&mut self) {
        let map = self.class_maps.values().next().map(|stored| &stored.object);
        for stored in self.slices.clone().values() {
            let mut slice = NetworkSlice::clone(&stored.object);
            slice.classify(map);
            if slice != *stored.object {
                self.slices.edit(&slice.name, |stored| stored.object = Arc::new(slice.clone()));
            }
        }
    }

    /// The intent after one traffic rule is replaced.
    pub(crate) fn with_rule(
        &self,
        application: &ObjectName,
        old: &TrafficRule,
        new: &TrafficRule,
        author: &str,
        now_ms: u64,
    ) -> Result<Option<Self>, Refusal> {
        let kind = ObjectKind::Application;
        let not_found = || Refusal::NotFound { kind, name: application.clone() };
        let names = |rule: &TrafficRule| (application.to_string(), rule.id.clone());
        let mut next = self.clone();
        next.revision += 1;
        let stored = next.applications.get_mut(application).ok_or_else(not_found)?;
        let stored = Arc::make_mut(stored);
        let (application, rule) = names(new);
        if new.id != old.id {
            return Err(Refusal::UnknownRule { application, rule });
        }
        if let Err(error) = new.check() {
            return Err(Refusal::RuleUnsupported { application, rule, reason: error.to_string() });
        }
        let mut rules = stored.object.traffic_rules.iter_mut();
        let Some(present) = rules.find(|rule| rule.id == old.id) else {
            return Err(Refusal::UnknownRule { application, rule });
        };
        if present != old {
            return Err(Refusal::RuleChanged { application, rule });
        }
        if present == new {
            return Ok(None);
        }
        present.clone_from(new);
        stored.meta = Meta {
            module: None,
            revision: next.revision,
            author: author.to_owned(),
            changed_at_ms: now_ms,
            phase: Phase::default(),
        };
        Ok(Some(next))
    }

    /// What an object names must be there, and what the data plane cannot tell apart must not
    /// be asked for. Objects that were taken before the topology changed may fail this; they
    /// are not held against a change of others.
    pub(crate) fn check(&self, before: &Self, topology: &Topology) -> Result<(), Refusal> {
        let is_host =
            |name: &NodeName| topology.nodes.get(name).is_some_and(|node| node.as_host().is_some());
        let mut maps = self.class_maps.keys();
        if let (Some(first), Some(second)) = (maps.next(), maps.next()) {
            return Err(Refusal::SecondClassMap { first: first.clone(), second: second.clone() });
        }
        let map = self.class_map();
        if map != before.class_map() {
            self.slices.values().try_for_each(|stored| known_five_qi(&stored.object, map))?;
        }
        for (name, old, new) in before.slices.since(&self.slices) {
            let Some(slice) = new.map(|stored| &stored.object) else { continue };
            if old.is_some_and(|old| old.object == *slice) {
                continue;
            }
            known_five_qi(slice, map)?;
            for endpoint in &slice.endpoints {
                let host = topology.nodes.get(&endpoint.name).and_then(|node| node.as_host());
                let names = || (name.to_string(), endpoint.name.to_string());
                let Some(host) = host else {
                    let (slice, endpoint) = names();
                    return Err(Refusal::UnknownEndpoint { slice, endpoint });
                };
                if host.ipv4.is_none() && host.ipv6.is_none() {
                    let (slice, endpoint) = names();
                    return Err(Refusal::EndpointWithoutAddress { slice, endpoint });
                }
                self.one_side(&endpoint.name)?;
            }
            let unknown = slice.through.iter().find(|t| !self.hooks.contains_key(&t.hook));
            if let Some(through) = unknown.filter(|t| !before.hooks.contains_key(&t.hook)) {
                let (slice, hook) = (name.to_string(), through.hook.to_string());
                return Err(Refusal::UnknownHook { slice, hook });
            }
        }
        self.check_sessions(before, topology)?;
        // A hook that is gone and one that never was are two different mistakes.
        let mut gone = before.hooks.keys().filter(|hook| !self.hooks.contains_key(*hook));
        gone.try_for_each(|hook| self.unused(hook))?;
        let mut placed: BTreeMap<&NodeName, &ObjectName> = BTreeMap::new();
        for (name, stored) in &self.applications {
            let is_new = before.applications.get(name) != Some(stored);
            if stored.object.demand.is_some() {
                let endpoint = &stored.object.endpoint;
                if let Some(first) = placed.insert(endpoint, name) {
                    return Err(Refusal::EndpointShared {
                        endpoint: endpoint.to_string(),
                        first: first.to_string(),
                        second: name.to_string(),
                    });
                }
                if is_new && let Some((_, _, at)) = topology.attachment(endpoint) {
                    return Err(Refusal::EndpointIsLinked {
                        application: name.to_string(),
                        endpoint: endpoint.to_string(),
                        at: at.to_string(),
                    });
                }
            }
            if is_new && !is_host(&stored.object.endpoint) {
                let endpoint = stored.object.endpoint.to_string();
                return Err(Refusal::UnknownApplicationEndpoint {
                    application: name.to_string(),
                    endpoint,
                });
            }
        }
        Ok(())
    }

    /// Every slice that names an endpoint has it on the same side.
    fn one_side(&self, endpoint: &NodeName) -> Result<(), Refusal> {
        let on = |side| self.slices.naming_as(endpoint, side).next().map(ToString::to_string);
        match (on(Side::Ue), on(Side::Dn)) {
            (Some(as_ue), Some(as_dn)) => {
                Err(Refusal::TwoSides { endpoint: endpoint.to_string(), as_ue, as_dn })
            }
            _ => Ok(()),
        }
    }

    /// No slice leads through a hook.
    fn unused(&self, hook: &ObjectName) -> Result<(), Refusal> {
        let uses = |slice: &NetworkSlice| slice.through.iter().any(|t| t.hook == *hook);
        let slices = self.slices.iter().filter(|(_, stored)| uses(&stored.object));
        let slices: Vec<String> = slices.map(|(name, _)| name.to_string()).collect();
        match slices.is_empty() {
            true => Ok(()),
            false => Err(Refusal::HookInUse { hook: hook.to_string(), slices }),
        }
    }
}

fn known_five_qi(slice: &NetworkSlice, map: Option<&ClassMap>) -> Result<(), Refusal> {
    match slice.unknown_five_qi(map) {
        Some(number) => Err(Refusal::UnknownFiveQi { slice: slice.name.clone(), number }),
        None => Ok(()),
    }
}
