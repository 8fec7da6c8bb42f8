//! What is different since something was derived, and deriving just that anew.
//!
//! Found out by comparing the state that it was derived of with the state as it is, not told by
//! events: so none can be missed. What is the same object is the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use selvedge_slices::ObjectName;
use selvedge_slices::admission::{Admitted, Attachment, HookMemory};
use selvedge_topology::{ArcIx, LinkIx, NodeIx, NodeName};

use super::{Derived, SliceState, State, attachment, forwarding, hooks};
use crate::Core;
use crate::desired::{self, Named, Scope, fabric, rules};
use crate::intent::StoredSlice;
use crate::lifecycle::Phase;
use crate::network::Switch;
use crate::numbers::Numbers;
use crate::placement;
use crate::refusal::Refusal;
use crate::table::Table;

type Tables = BTreeMap<NodeName, Table>;

/// What of the state is another.
#[derive(Default)]
struct Changes {
    switches: BTreeSet<NodeName>,
    /// Switches with a port in a link whose state is another.
    linked: BTreeSet<NodeName>,
    /// Hosts that are delivered to elsewhere than before, or not any more, or for the first time.
    moved: BTreeSet<NodeName>,
    /// Hosts that are named by slices and were not, or the other way round.
    renamed: BTreeSet<NodeName>,
    /// Slices by what is asked of them.
    slices: BTreeSet<ObjectName>,
    /// Admission may come to something else.
    admission: bool,
}

impl Derived {
    /// From the state of a core; equal to what it would be if nothing had followed before.
    ///
    /// Cost: the entries of switches that report otherwise; of slices that are asked for or
    /// placed otherwise, with those that share endpoints with them; and what admission costs. If
    /// another link is usable, also the nodes squared.
    pub(crate) fn compute(core: &Core) -> Result<(Self, Numbers), Refusal> {
        let before = &*core.derived;
        let mut now = Self {
            of: State {
                intent: core.intent.clone(),
                places: core.places.clone(),
                switches: core.network.switches.clone(),
                learned: core.endpoints.learned.clone(),
                numbers: core.numbers.clone(),
            },
            ..before.clone()
        };
        let mut numbers = core.numbers.clone();
        let mut changes = Changes::default();
        now.network_since(core, before, &mut changes);
        now.hosts_since(core, before, &mut changes);
        now.names_since(before, &mut changes);
        now.admission_since(core, before, &mut numbers, &mut changes)?;
        now.default_since(&changes);
        now.seats = before.seats.after(core, &now.located);
        let scope = now.scope(before, &changes);
        now.tables_since(core, before, &scope, &changes, &mut numbers)?;
        now.of.numbers = numbers.clone();
        Ok((now, numbers))
    }

    fn network_since(&mut self, core: &Core, before: &Self, changes: &mut Changes) {
        before.of.switches.differences(&self.of.switches, |name, old, new| {
            if !old.zip(new).is_some_and(|(old, new)| same(old, new)) {
                changes.switches.insert(name.clone());
            }
        });
        let drained = &self.of.intent.drained;
        // Where hosts are decides how much of what is drained stays in use.
        let same_hosts = drained.is_empty() || self.of.learned == before.of.learned;
        if changes.switches.is_empty() && same_hosts && before.of.intent.same_drains(drained) {
            return;
        }
        let network = &core.network;
        let all: BTreeSet<LinkIx> = changes
            .switches
            .iter()
            .flat_map(|name| network.declared.links(name))
            .copied()
            .collect();
        for ix in all {
            let state = network.link_state(ix);
            if self.links.get(&ix) != Some(&state) {
                let link = network.link(ix);
                changes.linked.extend([link.a.node.clone(), link.b.node.clone()]);
                Arc::make_mut(&mut self.links).insert(ix, state);
            }
        }
        (self.snapshot, self.forwarding, self.repairs) = forwarding(core, &self.links);
        changes.admission |= !Arc::ptr_eq(&self.snapshot, &before.snapshot);
    }

    fn hosts_since(&mut self, core: &Core, before: &Self, changes: &mut Changes) {
        let network = &core.network;
        let mut hosts: BTreeSet<&NodeName> =
            changes.switches.iter().flat_map(|name| network.declared.guests(name)).collect();
        let learned = &self.of.learned;
        before.of.learned.differences(learned, |host, _, _| hosts.extend([host]));
        if !changes.switches.is_empty() {
            let there = |at: &(NodeName, String)| changes.switches.contains(&at.0);
            let here = learned.iter().filter(|(_, l)| l.at.as_ref().is_some_and(there));
            hosts.extend(here.map(|(host, _)| host));
        }
        let ues = before.of.intent.ues_since(&self.of.intent, &hosts);
        let all: BTreeSet<NodeName> = hosts.into_iter().chain(ues).cloned().collect();
        for host in &all {
            let at = core.locate(host);
            if self.located.get(host) != at.as_ref() {
                match at {
                    Some(at) => self.located.insert(host.clone(), at),
                    None => self.located.remove(host),
                };
                changes.moved.insert(host.clone());
            }
            let attached = attachment(core, &self.snapshot, host);
            if self.bare.attachments.get(host) != attached.as_ref() {
                let attachments = Arc::make_mut(&mut self.bare.attachments);
                match attached {
                    Some(attached) => attachments.insert(host.clone(), attached),
                    None => attachments.remove(host),
                };
                changes.admission = true;
            }
        }
        let intent = same_objects(&self.of.intent.hooks, &before.of.intent.hooks)
            && before.of.intent.same_drains(&self.of.intent.drained);
        if !intent || !changes.switches.is_empty() {
            (self.hook_nodes, self.bare.memory) = hooks(core, &self.snapshot);
        }
        changes.admission |=
            self.hook_nodes != before.hook_nodes || self.bare.memory != before.bare.memory;
    }

    /// Which slices name whom.
    fn names_since(&mut self, before: &Self, changes: &mut Changes) {
        let active = |stored: &&Arc<StoredSlice>| stored.phase() == Phase::Active;
        for (name, old, new) in before.of.intent.slices.since(&self.of.intent.slices) {
            changes.slices.insert(name.clone());
            let (old, new) = (old.filter(active), new.filter(active));
            for endpoint in old.iter().flat_map(|stored| &stored.object.endpoints) {
                let Some(mut named) = self.named.get(&endpoint.name).cloned() else { continue };
                named.slices.retain(|other| other != name);
                if named.slices.is_empty() {
                    self.named.remove(&endpoint.name);
                } else {
                    self.named.insert(endpoint.name.clone(), named);
                }
            }
            for endpoint in new.iter().flat_map(|stored| &stored.object.endpoints) {
                let named = self.named.get(&endpoint.name).cloned();
                let mut named = named.unwrap_or(Named { side: endpoint.side, slices: Vec::new() });
                named.side = endpoint.side;
                named.slices.push(name.clone());
                named.slices.sort_unstable();
                self.named.insert(endpoint.name.clone(), named);
            }
        }
        before.named.differences(&self.named, |host, old, new| {
            if old.is_some() != new.is_some() {
                changes.renamed.insert(host.clone());
            }
        });
    }

    fn default_since(&mut self, changes: &Changes) {
        for host in changes.moved.iter().chain(&changes.renamed) {
            if self.located.contains_key(host) && !self.named.contains_key(host) {
                self.in_default.insert(host.clone(), ());
            } else {
                self.in_default.remove(host);
            }
        }
    }

    /// Whether applications are to be placed, or were, and where may be decided otherwise now.
    fn places_anew(&self, before: &Self, changes: &Changes) -> bool {
        let (old, new) = (&before.of, &self.of);
        let same = changes.switches.is_empty()
            && old.learned == new.learned
            && same_objects(&old.intent.applications, &new.intent.applications)
            && old.places == new.places;
        let mut joined = false;
        old.switches.differences(&new.switches, |_, old, new| {
            joined |= old.map(|old| old.joined) != new.map(|new| new.joined);
        });
        (old.intent.places() || new.intent.places()) && (!same || joined)
    }

    /// The ledger of before if nothing in it can differ; else one made anew, together with the
    /// places of applications.
    fn admission_since(
        &mut self,
        core: &Core,
        before: &Self,
        numbers: &mut Numbers,
        changes: &mut Changes,
    ) -> Result<(), Refusal> {
        let kept =
            !changes.admission && !self.places_anew(before, changes) && changes.slices.is_empty();
        if kept {
            return Ok(());
        }
        let settled = placement::settle(core, self.unsettled(), &self.links, false);
        let unplaced = settled.unplaced;
        (self.ledger, self.places) = (Arc::new(settled.ledger), settled.places);
        self.take_attachments(settled.placed);
        for host in placement::misplaced(core, &self.places) {
            if self.located.remove(host).is_some() {
                changes.moved.insert(host.clone());
            }
        }
        if *self.unplaced != unplaced {
            self.unplaced = Arc::new(unplaced);
        }
        let mut names = changes.slices.clone();
        before.ledger.differences(&self.ledger, |name| names.extend([name.clone()]));
        if !Arc::ptr_eq(&self.unplaced, &before.unplaced) {
            names.extend(before.unplaced.keys().chain(self.unplaced.keys()).cloned());
        }
        for name in names {
            let Some(stored) = core.intent.slices.get(&name) else {
                self.slices.remove(&name);
                continue;
            };
            numbers.slice(name.as_str())?;
            if !stored.phase().holds_capacity() {
                self.slices.remove(&name);
                continue;
            }
            let admitted = self.ledger.get(name.as_str());
            let why = self.unplaced.get(&name).or(admitted.and_then(|a| a.waived.as_ref()));
            let reasons = why.map(ToString::to_string).into_iter().collect();
            let state = SliceState { reasons, placed: admitted.is_some() };
            if self.slices.get(&name) != Some(&state) {
                self.slices.insert(name, state);
            }
        }
        Ok(())
    }

    /// `placed`: see [`placement::Settled`].
    fn take_attachments(
        &mut self,
        placed: Option<(Arc<BTreeMap<NodeName, Attachment>>, HookMemory)>,
    ) {
        match placed {
            None => {
                self.attachments = self.bare.attachments.clone();
                self.hook_memory = self.bare.memory.clone();
            }
            Some((attachments, memory)) => {
                if self.attachments != attachments {
                    self.attachments = attachments;
                }
                self.hook_memory = memory;
            }
        }
    }

    /// Slices whose entries are derived anew.
    fn scope(&self, before: &Self, changes: &Changes) -> Scope {
        let mut slices = changes.slices.clone();
        slices.extend(before.seats.changed(&self.seats).cloned());
        let same_network = Arc::ptr_eq(&self.snapshot, &before.snapshot)
            && Arc::ptr_eq(&self.attachments, &before.attachments)
            && self.hook_nodes == before.hook_nodes;
        let same_hooks = same_objects(&self.of.intent.hooks, &before.of.intent.hooks);
        let is_active = |name: &ObjectName| self.of.intent.active_slice(name).is_some();
        let mut also = |name: &ObjectName| {
            if is_active(name) {
                slices.insert(name.clone());
            }
        };
        before.slices.differences(&self.slices, |name, _, _| also(name));
        before.ledger.differences(&self.ledger, |name| {
            if !same_ways(before.ledger.get(name.as_str()), self.ledger.get(name.as_str())) {
                also(name);
            }
        });
        if !same_network {
            self.slices.iter().filter(|(_, s)| !s.placed).for_each(|(name, _)| also(name));
        }
        if !same_hooks {
            let through = |stored: &&Arc<StoredSlice>| !stored.object.through.is_empty();
            let all = self.of.intent.slices.values().filter(through);
            all.for_each(|stored| also(&stored.object.name));
        }
        let on_switch = |(key, _): &(&(NodeName, _), _)| changes.switches.contains(&key.0);
        slices.extend(before.hooks.iter().filter(on_switch).map(|(_, h)| h.slice.clone()));
        let mut default = !changes.renamed.is_empty();
        for host in &changes.moved {
            for named in [before.named.get(host), self.named.get(host)] {
                match named {
                    Some(named) => slices.extend(named.slices.iter().cloned()),
                    None => default = true,
                }
            }
        }
        default |= !Arc::ptr_eq(&self.snapshot, &before.snapshot)
            && desired::parts(before) != desired::parts(self);
        // What else an endpoint of theirs is in decides which of them its traffic takes.
        let mut all = slices.clone();
        for of in [before, self] {
            let objects = slices.iter().filter_map(|name| of.of.intent.active_slice(name));
            for endpoint in objects.flat_map(|stored| &stored.object.endpoints) {
                let also = of.named.get(&endpoint.name).into_iter().flat_map(|n| &n.slices);
                all.extend(also.filter(|name| !slices.contains(*name)).cloned());
            }
        }
        // What no packet is in has no entries.
        let is_active = |of: &Self, name: &ObjectName| of.of.intent.active_slice(name).is_some();
        all.retain(|name| is_active(before, name) || is_active(self, name));
        Scope { slices: all, default }
    }

    fn tables_since(
        &mut self,
        core: &Core,
        before: &Self,
        scope: &Scope,
        changes: &Changes,
        numbers: &mut Numbers,
    ) -> Result<(), Refusal> {
        let network = &core.network;
        let switches: BTreeSet<&NodeName> =
            changes.switches.iter().chain(&changes.linked).collect();
        let (mut old, mut new) = (Tables::new(), Tables::new());
        let mut known = before.of.numbers.clone();
        fabric::fabric(network, before, &switches, &mut known, &mut old)?;
        fabric::fabric(network, self, &switches, numbers, &mut new)?;
        if !Arc::ptr_eq(&self.ledger, &before.ledger) {
            fabric::shaped(network, before, &switches, &mut old);
            fabric::shaped(network, self, &switches, &mut new);
        }
        let n3 = [before, self].map(|derived| derived.of.intent.sessions.n3());
        let all = n3[0] != n3[1];
        fabric::n3(before, &n3[0], (!all).then_some(&switches), &mut old);
        fabric::n3(self, &n3[1], (!all).then_some(&switches), &mut new);
        let gone = desired::slices(network, before, scope, &mut known, &mut old)?;
        let hooks = desired::slices(network, self, scope, numbers, &mut new)?;
        self.hooks.retain(|key, _| !gone.contains_key(key));
        self.hooks.extend(hooks);
        self.rules_since(core, before, numbers, &mut old, &mut new)?;
        // A table can be wanted of a switch that is known only.
        let unknown = |name: &NodeName| !self.of.switches.get(name).is_some_and(|s| s.known);
        new.retain(|name, _| !unknown(name));
        if !Arc::ptr_eq(&self.forwarding, &before.forwarding) {
            self.hops_since(before, &switches, numbers, (&mut old, &mut new))?;
        }
        edit(&mut self.tables, old, new);
        self.tables.retain(|name, _| !unknown(name));
        Ok(())
    }

    fn rules_since(
        &mut self,
        core: &Core,
        before: &Self,
        numbers: &mut Numbers,
        old: &mut Tables,
        new: &mut Tables,
    ) -> Result<(), Refusal> {
        let same = same_objects(&self.of.intent.applications, &before.of.intent.applications);
        if same && (self.of.intent.applications.is_empty() || self.located == before.located) {
            return Ok(());
        }
        let mut rules = Tables::new();
        rules::rules(&core.intent, &core.network.topology, &self.located, numbers, &mut rules)?;
        for (tables, rules) in [(old, &*before.rules), (new, &rules)] {
            for (name, rules) in rules {
                let table = tables.entry(name.clone()).or_default();
                for rule in rules.values() {
                    table.insert(rule.clone());
                }
            }
        }
        self.rules = Arc::new(rules);
        Ok(())
    }

    /// Next hops and backups of switches that are not derived whole, where they differ.
    fn hops_since(
        &self,
        before: &Self,
        whole: &BTreeSet<&NodeName>,
        numbers: &mut Numbers,
        (old, new): (&mut Tables, &mut Tables),
    ) -> Result<(), Refusal> {
        let mut sids = Vec::with_capacity(self.snapshot.len());
        for node in self.snapshot.nodes() {
            sids.push(numbers.node(self.snapshot.name(node))?);
        }
        for node in self.snapshot.nodes() {
            let name = self.snapshot.name(node);
            let is_known = self.of.switches.get(name).is_some_and(|switch| switch.known);
            if !is_known || whole.contains(name) {
                continue;
            }
            for (derived, tables) in [(before, &mut *old), (self, &mut *new)] {
                let table = tables.entry(name.clone()).or_default();
                for backup in fabric::backups(derived, node, |node| sids[node.index()].0) {
                    fabric::put(table, backup);
                }
            }
            for (root, sid) in self.snapshot.nodes().zip(&sids) {
                if before.next_hop(node, root) == self.next_hop(node, root) {
                    continue;
                }
                for (derived, tables) in [(before, &mut *old), (self, &mut *new)] {
                    if let Some(hop) = fabric::hop(derived, (node, root), *sid) {
                        fabric::put(tables.entry(name.clone()).or_default(), hop);
                    }
                }
            }
        }
        Ok(())
    }

    /// How a switch sends packets to another, and the backup of that.
    pub(crate) fn next_hop(&self, at: NodeIx, root: NodeIx) -> Option<(ArcIx, u8)> {
        let next = self.forwarding.tree(&self.snapshot, root).next(at)?;
        Some((next, self.repairs.number((&self.snapshot, &self.forwarding), next, root)))
    }
}

/// Takes entries out of tables and puts others in; what is the same stays untouched.
fn edit(tables: &mut BTreeMap<NodeName, Arc<Table>>, old: Tables, mut new: Tables) {
    for (name, old) in old {
        let Some(table) = tables.get_mut(&name) else { continue };
        let new = new.get(&name);
        for key in old.iter().map(|(key, _)| key) {
            if !new.is_some_and(|new| new.contains_key(key)) {
                Arc::make_mut(table).remove(key);
            }
        }
    }
    for (name, new) in std::mem::take(&mut new) {
        let table = tables.entry(name).or_default();
        if table.is_empty() {
            *table = Arc::new(new);
            continue;
        }
        for entry in new.values() {
            if table.get(&entry.key()) != Some(entry) {
                Arc::make_mut(table).insert(entry.clone());
            }
        }
    }
}

fn same(old: &Switch, new: &Switch) -> bool {
    old.reported(new) && old.hooks == new.hooks
}

/// Names of objects that are not the same object in both.
fn different<'a, T>(
    old: &'a BTreeMap<ObjectName, Arc<T>>,
    new: &'a BTreeMap<ObjectName, Arc<T>>,
) -> impl Iterator<Item = &'a ObjectName> {
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    let other = new
        .iter()
        .filter(|(name, object)| !old.get(*name).is_some_and(|old| Arc::ptr_eq(old, object)));
    gone.chain(other.map(|(name, _)| name))
}

fn same_objects<T>(old: &BTreeMap<ObjectName, Arc<T>>, new: &BTreeMap<ObjectName, Arc<T>>) -> bool {
    different(old, new).next().is_none()
}

/// Whether packets go by the same ids.
fn same_ways(old: Option<&Admitted>, new: Option<&Admitted>) -> bool {
    match (old, new) {
        (None, None) => true,
        (Some(old), Some(new)) => {
            let ways = |admitted: &Admitted| {
                let placed = admitted.placed.iter();
                placed.map(|p| (p.direction, p.from, p.to, p.segments.clone())).collect::<Vec<_>>()
            };
            ways(old) == ways(new)
        }
        _ => false,
    }
}
