//! The truth that plans are proven against, straight from the state: not from what was computed
//! of it, but for which slices admission could place and which numbers names have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use selvedge_pipeline::{Class, ClassifierAction, Direction, HookId, SliceId};
use selvedge_slices::rules::{FilterType, RuleAction, RuleState};
use selvedge_slices::{
    Ledger, NetworkSlice, ObjectName, OnFailure, ResourceSharingLevel, Side, TrafficFilter,
};
use selvedge_topology::sorted::Sorted;
use selvedge_topology::{BitRate, LinkIx, NodeName};

use crate::Core;
use crate::attach::{Learned, as_held, prefixes};
use crate::derived::SliceState;
use crate::event::HookState;
use crate::intent::{Difference, Intent, StoredSlice};
use crate::lifecycle::Phase;
use crate::network::{LinkState, Network, Switches};
use crate::numbers::DEFAULT_SLICE;
use crate::prove::{Endpoint, HookAt, Hosts, Member, Rule, Slice, Wire, Wires, World};
use crate::seats::Seats;

mod protected;

/// Share of a link's capacity that may be promised, in percent (DESIGN §6).
const MARGIN_PERCENT: u64 = 97;

/// The parts of a [`World`] that follow from the intent, and change with what is derived only;
/// and what they were made of, so that only what is different is looked at again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Truth {
    nodes: Arc<Vec<NodeName>>,
    hosts: Arc<Hosts>,
    endpoints: Arc<Vec<Option<Arc<Endpoint>>>>,
    hosts_of: Arc<Vec<Vec<u32>>>,
    slices: Sorted<SliceId, Arc<Slice>>,
    rules: Arc<Vec<Rule>>,
    groups: Arc<Vec<Vec<u32>>>,
    wires: Arc<Wires>,
    links: Arc<BTreeMap<LinkIx, LinkState>>,
    /// What every host is in or waits for.
    members: Arc<Vec<Arc<Member>>>,
    intent: Intent,
    seats: Seats,
    switches: Switches,
    ledger: Arc<Ledger>,
    /// No link is down.
    is_whole: bool,
    /// What admission made of slices.
    states: Sorted<ObjectName, SliceState>,
    learned: Sorted<NodeName, Learned>,
    /// By name, as they were numbered.
    ids: Sorted<ObjectName, SliceId>,
    /// The other way round.
    names: Sorted<SliceId, ObjectName>,
}

/// What is new, or what was there if that is the same: so that it is seen to be.
fn keep<T: PartialEq>(before: &Arc<T>, now: T) -> Arc<T> {
    if **before == now { before.clone() } else { Arc::new(now) }
}

impl Truth {
    pub(crate) fn new(network: &Network) -> Self {
        let hosts = network.topology.hosts();
        let hosts = hosts.map(|(name, host)| (name.clone(), prefixes(host)));
        let hosts = Hosts::new(hosts);
        let default = Member { slices: vec![SliceId::DEFAULT], direction: Direction::Uplink };
        let members = std::iter::repeat_n(Arc::new(default), hosts.names.len());
        let all = (0..).take(hosts.names.len()).collect();
        Self {
            nodes: Arc::new(network.switches.keys().cloned().collect()),
            endpoints: Arc::new(vec![None; hosts.names.len()]),
            hosts_of: Arc::new(vec![Vec::new(); network.switches.len()]),
            slices: [(SliceId::DEFAULT, Arc::new(default_slice(all)))].into_iter().collect(),
            members: Arc::new(members.collect()),
            groups: Arc::new(network.topology.links.iter().map(|link| link.srlg.clone()).collect()),
            hosts: Arc::new(hosts),
            ..Self::default()
        }
    }

    fn host(&self, name: &NodeName) -> Option<u32> {
        let at = self.hosts.names.binary_search(name).ok()?;
        Some(u32::try_from(at).expect("hosts are limited"))
    }
}

fn default_slice(members: Vec<u32>) -> Slice {
    Slice {
        name: DEFAULT_SLICE.to_owned(),
        priority: 0,
        class: Class::BestEffort,
        two_sided: false,
        guaranteed_bps: [0; 2],
        hooks: Vec::new(),
        placed: true,
        kept: true,
        dedicated: false,
        members,
        protected: None,
    }
}

impl Core {
    /// As the state is now; [`Core::truth`] is of what was last derived.
    pub(crate) fn world(&self) -> World {
        let Truth { nodes, hosts, endpoints, hosts_of, slices, rules, groups, wires, .. } =
            self.truth.clone();
        let ix = |name: &NodeName| nodes.binary_search(name).expect("a declared switch");
        let stuck = self.network.switches.iter().filter(|(_, switch)| !switch.joined);
        let stuck = stuck.map(|(name, _)| ix(name)).collect();
        let hooks = self.hooks_in(&ix);
        World { nodes, hosts, endpoints, hosts_of, slices, rules, groups, wires, stuck, hooks }
    }

    fn wires(&self, nodes: &[NodeName]) -> Wires {
        let ix = |name: &NodeName| nodes.binary_search(name).expect("a declared switch");
        let mut wires = BTreeMap::new();
        for (link_ix, state) in &*self.derived.links {
            let LinkState::Usable { a, b } = state else { continue };
            let link = self.network.link(*link_ix);
            let percent = |capacity: BitRate| {
                let share = u128::from(capacity.bps()) * u128::from(MARGIN_PERCENT) / 100;
                u64::try_from(share).expect("a share is not more than the whole")
            };
            let reservable_bps = link.capacity.map(percent);
            let (node_a, node_b) = (ix(&link.a.node), ix(&link.b.node));
            let wire = |node, port, mac| Wire { node, port, mac, link: link_ix.0, reservable_bps };
            wires.insert((node_a, a.port), wire(node_b, b.port, b.mac));
            wires.insert((node_b, b.port), wire(node_a, a.port, a.mac));
        }
        wires
    }

    /// The truth of the present state, by what is different in it.
    pub(crate) fn truth_now(&self) -> Truth {
        let before = &self.truth;
        let mut now = Truth {
            intent: self.intent.clone(),
            seats: self.derived.seats.clone(),
            switches: self.network.switches.clone(),
            ledger: self.derived.ledger.clone(),
            is_whole: self.derived.snapshot.down().is_empty(),
            states: self.derived.slices.clone(),
            learned: self.endpoints.learned.clone(),
            links: self.derived.links.clone(),
            ..before.clone()
        };
        if !Arc::ptr_eq(&before.links, &now.links) {
            now.wires = Arc::new(self.wires(&now.nodes));
        }
        let slices = before.intent.slices.since(&self.intent.slices);
        for (name, ..) in &slices {
            if let Some(id) = now.ids.remove(*name) {
                now.names.remove(&id);
            }
        }
        for (name, _, new) in &slices {
            if let Some(id) = new.and_then(|_| self.numbers.known_slice(name.as_str())) {
                now.ids.insert((*name).clone(), id);
                now.names.insert(id, (*name).clone());
            }
        }
        let mut hosts: BTreeSet<u32> = BTreeSet::new();
        let default_is_other = truth_members((before, &mut now), &slices, &mut hosts);
        self.hosts_elsewhere(before, &mut now, &mut hosts);
        self.truth_endpoints(&mut now, &hosts);
        self.truth_slices(before, &mut now, default_is_other, &slices);
        let rules = &self.intent.applications;
        let same = rules.len() == before.intent.applications.len()
            && rules.iter().zip(&before.intent.applications).all(|(a, b)| Arc::ptr_eq(a.1, b.1));
        if !same {
            now.rules = keep(&before.rules, self.truth_rules());
        }
        now
    }

    /// Hosts that may be elsewhere.
    fn hosts_elsewhere(&self, before: &Truth, now: &mut Truth, hosts: &mut BTreeSet<u32>) {
        for slice in before.seats.changed(&now.seats) {
            let waiting = before.seats.waiting(slice).chain(now.seats.waiting(slice));
            hosts.extend(waiting.filter_map(|host| now.host(host)));
        }
        let mut changed: BTreeSet<&NodeName> = BTreeSet::new();
        before.switches.differences(&self.network.switches, |name, old, new| {
            if !old.zip(new).is_some_and(|(old, new)| old.reported(new)) {
                changed.insert(name);
            }
        });
        for name in &changed {
            hosts.extend(self.network.declared.guests(name).filter_map(|host| now.host(host)));
        }
        before.learned.differences(&now.learned, |host, _, _| hosts.extend(now.host(host)));
        let there = |at: &Option<(NodeName, String)>| {
            at.as_ref().is_some_and(|(node, _)| changed.contains(node))
        };
        let learned = now.learned.iter().filter(|_| !changed.is_empty());
        let moved = learned.filter(|(_, learned)| there(&learned.at));
        hosts.extend(moved.filter_map(|(host, _)| now.host(host)));
        let names: BTreeSet<&NodeName> =
            hosts.iter().map(|host| &self.truth.hosts.names[*host as usize]).collect();
        let ues = before.intent.ues_since(&self.intent, &names);
        hosts.extend(ues.into_iter().filter_map(|ue| now.host(ue)));
    }

    fn truth_endpoints(&self, now: &mut Truth, hosts: &BTreeSet<u32>) {
        for host in hosts {
            let at = *host as usize;
            let name = &now.hosts.names[at];
            let declared = self.network.topology.nodes.get(name).and_then(|node| node.as_host());
            let located = declared.and_then(|declared| Some((declared, self.locate(name)?)));
            let endpoint = located.and_then(|(declared, at_port)| {
                let member = admitted(now, *host)?;
                let node = now.nodes.binary_search(&at_port.switch);
                Some(Endpoint {
                    prefixes: prefixes(declared),
                    mac: at_port.mac,
                    node: node.expect("an endpoint is at a declared switch"),
                    port: at_port.port,
                    n3: at_port.n3,
                    member,
                })
            });
            if now.endpoints[at].as_deref() == endpoint.as_ref() {
                continue;
            }
            let (old, new) = (now.endpoints[at].as_ref().map(|e| e.node), endpoint.as_ref());
            let new = new.map(|endpoint| endpoint.node);
            if old != new {
                let hosts_of = Arc::make_mut(&mut now.hosts_of);
                if let Some(old) = old {
                    hosts_of[old].retain(|other| other != host);
                }
                if let Some(new) = new {
                    let place = hosts_of[new].partition_point(|other| other < host);
                    hosts_of[new].insert(place, *host);
                }
            }
            Arc::make_mut(&mut now.endpoints)[at] = endpoint.map(Arc::new);
        }
    }

    fn truth_slices(
        &self,
        before: &Truth,
        now: &mut Truth,
        default_is_other: bool,
        slices: &[Difference<'_>],
    ) {
        if default_is_other {
            let mine = |member: &Arc<Member>| member.slices == [SliceId::DEFAULT];
            let all = (0..).zip(now.members.iter()).filter(|(_, member)| mine(member));
            let default = default_slice(all.map(|(host, _)| host).collect());
            now.slices.insert(SliceId::DEFAULT, Arc::new(default));
        }
        let mut names: BTreeSet<&ObjectName> = slices.iter().map(|(name, ..)| *name).collect();
        before.states.differences(&self.derived.slices, |name, _, _| names.extend([name]));
        before.ledger.differences(&self.derived.ledger, |name| names.extend([name]));
        names.extend(before.seats.changed(&self.derived.seats));
        if before.is_whole != now.is_whole {
            let all = self.intent.slices.values().map(|stored| &stored.object);
            let asking = all.filter(|slice| slice.availability.is_some());
            names.extend(asking.map(|slice| &slice.name));
        }
        // Numbers are given to others after they were given back.
        for name in &names {
            if let Some(id) = before.ids.get(*name).filter(|id| now.ids.get(*name) != Some(*id)) {
                now.slices.remove(id);
            }
        }
        for name in names {
            let Some(id) = now.ids.get(name) else { continue };
            let Some(stored) = self.intent.active_slice(name) else {
                now.slices.remove(id);
                continue;
            };
            let state = self.derived.slices.get(name);
            let (placed, kept) = state.map_or((false, false), |s| (s.placed, s.reasons.is_empty()));
            let known = before.slices.get(id).filter(|_| before.ids.get(name) == Some(id));
            let protected = || self.protected((before, known), name, &stored.object);
            let protected = kept.then(protected).flatten();
            let slice = truth_slice(now, &stored.object, placed, kept);
            let slice = Slice { protected, ..slice };
            if known.map(Arc::as_ref) != Some(&slice) {
                now.slices.insert(*id, Arc::new(slice));
            }
        }
    }

    fn hooks_in(&self, ix: &impl Fn(&NodeName) -> usize) -> BTreeMap<(usize, HookId), HookAt> {
        let mut hooks = BTreeMap::new();
        for ((switch, hook), wanted) in &self.derived.hooks {
            let Some(slice) = self.numbers.known_slice(wanted.slice.as_str()) else { continue };
            let status = self.network.switches.get(switch).and_then(|s| s.hooks.get(hook));
            let at = HookAt {
                slice,
                name: wanted.hook.to_string(),
                running: status.is_some_and(|status| status.state == HookState::Running),
                directions: wanted.directions,
            };
            hooks.insert((ix(switch), *hook), at);
        }
        hooks
    }

    fn truth_rules(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        for (application, stored) in &self.intent.applications {
            for rule in &stored.object.traffic_rules {
                if rule.state != RuleState::Active {
                    continue;
                }
                let action = match rule.action {
                    RuleAction::Drop => ClassifierAction::Drop,
                    RuleAction::Passthrough => ClassifierAction::Pass,
                };
                for filter in &rule.filters {
                    let forward = of_filter(&format!("{application}/{}", rule.id), filter, action);
                    if rule.filter_type == FilterType::Flow {
                        rules.push(Rule {
                            sources: forward.destinations.clone(),
                            destinations: forward.sources.clone(),
                            source_ports: forward.destination_ports.clone(),
                            destination_ports: forward.source_ports.clone(),
                            ..forward.clone()
                        });
                    }
                    rules.push(forward);
                }
            }
        }
        rules
    }
}

/// What hosts are in. Answers whether somebody came to the default slice or left it.
fn truth_members(
    (before, now): (&Truth, &mut Truth),
    slices: &[Difference<'_>],
    hosts: &mut BTreeSet<u32>,
) -> bool {
    let mut named: BTreeMap<u32, (Option<Side>, BTreeSet<SliceId>)> = BTreeMap::new();
    let mut note = |now: &Truth, stored: &StoredSlice, was: bool, id: SliceId| {
        for endpoint in &stored.object.endpoints {
            let Some(host) = now.host(&endpoint.name) else { continue };
            let (side, slices) = named.entry(host).or_insert_with(|| {
                let member = &now.members[host as usize];
                let all = member.slices.iter().copied();
                (None, all.filter(|id| *id != SliceId::DEFAULT).collect())
            });
            match was {
                true => drop(slices.remove(&id)),
                false => {
                    *side = Some(endpoint.side);
                    slices.insert(id);
                }
            }
        }
    };
    let active = |stored: &Option<&Arc<StoredSlice>>| {
        stored.is_some_and(|stored| stored.phase() == Phase::Active)
    };
    for (name, old, _) in slices.iter().filter(|(_, old, _)| active(old)) {
        if let Some((stored, id)) = old.zip(before.ids.get(*name)) {
            note(now, stored, true, *id);
        }
    }
    for (name, _, new) in slices.iter().filter(|(_, _, new)| active(new)) {
        if let Some((stored, id)) = new.zip(now.ids.get(*name)) {
            note(now, stored, false, *id);
        }
    }
    let mut kinds: BTreeSet<Arc<Member>> = BTreeSet::new();
    let mut default_is_other = false;
    for (host, (side, slices)) in named {
        let was = now.members[host as usize].clone();
        let mut member = Member { slices: slices.into_iter().collect(), ..(*was).clone() };
        match side {
            Some(Side::Ue) => member.direction = Direction::Uplink,
            Some(Side::Dn) => member.direction = Direction::Downlink,
            None => {}
        }
        if member.slices.is_empty() {
            member = Member { slices: vec![SliceId::DEFAULT], direction: Direction::Uplink };
        }
        if member == *was {
            continue;
        }
        let default = |member: &Member| member.slices == [SliceId::DEFAULT];
        default_is_other |= default(&was) != default(&member);
        let member = kinds.get(&member).cloned().unwrap_or_else(|| Arc::new(member));
        kinds.insert(member.clone());
        Arc::make_mut(&mut now.members)[host as usize] = member;
        hosts.insert(host);
    }
    default_is_other
}

/// What a host is in; `None`: every slice that names it is full.
fn admitted(now: &Truth, host: u32) -> Option<Arc<Member>> {
    let member = &now.members[host as usize];
    let name = &now.hosts.names[host as usize];
    let waits = |id: &SliceId| {
        let slice = now.names.get(id);
        slice.is_some_and(|slice| now.seats.waits(slice, name))
    };
    if !member.slices.iter().any(waits) {
        return Some(member.clone());
    }
    let slices: Vec<SliceId> = member.slices.iter().copied().filter(|id| !waits(id)).collect();
    (!slices.is_empty()).then(|| Arc::new(Member { slices, ..(**member).clone() }))
}

fn truth_slice(now: &Truth, slice: &NetworkSlice, placed: bool, kept: bool) -> Slice {
    let on = |side| slice.endpoints.iter().any(|endpoint| endpoint.side == side);
    let total = |rate: Option<BitRate>| if kept { rate.map_or(0, BitRate::bps) } else { 0 };
    let hooks = slice.through.iter().map(|through| {
        let may_be_missed = !placed && through.on_failure == OnFailure::Bypass;
        (through.hook.to_string(), may_be_missed)
    });
    let endpoints = slice.endpoints.iter().map(|endpoint| &endpoint.name);
    let inside = endpoints.filter(|endpoint| !now.seats.waits(&slice.name, endpoint));
    let mut members: Vec<u32> = inside.filter_map(|endpoint| now.host(endpoint)).collect();
    members.sort_unstable();
    Slice {
        name: slice.name.to_string(),
        priority: slice.priority,
        class: match slice.class {
            selvedge_slices::Class::BestEffort => Class::BestEffort,
            selvedge_slices::Class::Guaranteed => Class::Guaranteed,
            selvedge_slices::Class::Urllc => Class::Urllc,
        },
        two_sided: on(Side::Ue) && on(Side::Dn),
        guaranteed_bps: [total(slice.downlink.guaranteed), total(slice.uplink.guaranteed)],
        hooks: hooks.collect(),
        placed,
        kept,
        dedicated: slice.resource_sharing_level == ResourceSharingLevel::NonShared,
        members,
        protected: None,
    }
}

fn of_filter(name: &str, filter: &TrafficFilter, action: ClassifierAction) -> Rule {
    let held = |nets: &[IpNet]| nets.iter().copied().map(as_held).collect();
    Rule {
        name: name.to_owned(),
        sources: held(&filter.src_address),
        destinations: held(&filter.dst_address),
        protocols: filter.protocol.clone(),
        source_ports: filter.src_port.clone(),
        destination_ports: filter.dst_port.clone(),
        dscps: filter.dscp.into_iter().collect(),
        action: Some(action),
    }
}
