//! The truth that plans are proven against, straight from the state: not from what was computed
//! of it, but for which slices admission could place and which numbers names have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use selvedge_pipeline::{Class, ClassifierAction, Direction, SliceId};
use selvedge_slices::rules::{FilterType, RuleAction, RuleState};
use selvedge_slices::{OnFailure, Side, TrafficFilter};
use selvedge_topology::{BitRate, NodeName};

use crate::Core;
use crate::attach::{as_held, prefixes};
use crate::event::HookState;
use crate::network::{LinkState, Network};
use crate::numbers::DEFAULT_SLICE;
use crate::prove::{Endpoint, HookAt, Hosts, Member, Rule, Slice, Wire, World};

/// Share of a link's capacity that may be promised, in percent (DESIGN §6).
const MARGIN_PERCENT: u64 = 97;

/// The parts of a [`World`] that follow from the intent, and change with what is derived only.
#[derive(Clone, Debug, Default)]
pub(crate) struct Truth {
    nodes: Arc<Vec<NodeName>>,
    hosts: Arc<Hosts>,
    endpoints: Arc<Vec<Option<Endpoint>>>,
    hosts_of: Arc<Vec<Vec<u32>>>,
    slices: Arc<BTreeMap<SliceId, Slice>>,
    rules: Arc<Vec<Rule>>,
}

/// What is new, or what was there if that is the same: so that it is seen to be.
fn keep<T: PartialEq>(before: &Arc<T>, now: T) -> Arc<T> {
    if **before == now { before.clone() } else { Arc::new(now) }
}

impl Truth {
    pub(crate) fn new(network: &Network) -> Self {
        let hosts = network.topology.hosts();
        let hosts = hosts.map(|(name, host)| (name.clone(), prefixes(host)));
        Self {
            nodes: Arc::new(network.switches.keys().cloned().collect()),
            hosts: Arc::new(Hosts::new(hosts)),
            ..Self::default()
        }
    }
}

impl Core {
    /// As the state is now; [`Core::truth`] is of what was last derived.
    pub(crate) fn world(&self) -> World {
        let Truth { nodes, hosts, endpoints, hosts_of, slices, rules } = self.truth.clone();
        let mut world =
            World { nodes, hosts, endpoints, hosts_of, slices, rules, ..World::default() };
        let ix: BTreeMap<&NodeName, usize> =
            self.network.switches.keys().enumerate().map(|(ix, name)| (name, ix)).collect();
        for (name, switch) in &self.network.switches {
            if !switch.joined {
                world.stuck.insert(ix[name]);
            }
        }
        for (link_ix, state) in &self.derived.links {
            let LinkState::Usable { a, b } = state else { continue };
            let link = self.network.link(*link_ix);
            let percent = |capacity: BitRate| {
                let share = u128::from(capacity.bps()) * u128::from(MARGIN_PERCENT) / 100;
                u64::try_from(share).expect("a share is not more than the whole")
            };
            let reservable_bps = link.capacity.map(percent);
            let (node_a, node_b) = (ix[&link.a.node], ix[&link.b.node]);
            let wire = |node, port, mac| Wire { node, port, mac, reservable_bps };
            world.wires.insert((node_a, a.port), wire(node_b, b.port, b.mac));
            world.wires.insert((node_b, b.port), wire(node_a, a.port, a.mac));
        }
        self.hooks_of(&mut world, &ix);
        world
    }

    /// The truth of the present state.
    pub(crate) fn truth_now(&self) -> Truth {
        let before = &self.truth;
        let mut members: BTreeMap<SliceId, Vec<u32>> = BTreeMap::new();
        let endpoints = self.truth_endpoints(&mut members);
        let mut hosts_of = vec![Vec::new(); before.nodes.len()];
        for (host, endpoint) in (0..).zip(&endpoints) {
            if let Some(endpoint) = endpoint {
                hosts_of[endpoint.node].push(host);
            }
        }
        let slices = self.truth_slices(members);
        Truth {
            nodes: before.nodes.clone(),
            hosts: before.hosts.clone(),
            endpoints: keep(&before.endpoints, endpoints),
            hosts_of: keep(&before.hosts_of, hosts_of),
            slices: keep(&before.slices, slices),
            rules: keep(&before.rules, self.truth_rules()),
        }
    }

    fn truth_slices(&self, mut members: BTreeMap<SliceId, Vec<u32>>) -> BTreeMap<SliceId, Slice> {
        let mut slices = BTreeMap::new();
        let default = Slice {
            name: DEFAULT_SLICE.to_owned(),
            priority: 0,
            class: Class::BestEffort,
            two_sided: false,
            guaranteed_bps: [0; 2],
            hooks: Vec::new(),
            placed: true,
            kept: true,
            members: members.remove(&SliceId::DEFAULT).unwrap_or_default(),
        };
        slices.insert(SliceId::DEFAULT, default);
        for (name, stored) in self.intent.active() {
            let slice = &stored.object;
            let Some(id) = self.numbers.known_slice(name.as_str()) else { continue };
            let state = self.derived.slices.get(name.as_str());
            let (placed, kept) = state.map_or((false, false), |s| (s.placed, s.reasons.is_empty()));
            let on = |side| slice.endpoints.iter().any(|endpoint| endpoint.side == side);
            let total = |rate: Option<BitRate>| if kept { rate.map_or(0, BitRate::bps) } else { 0 };
            let hooks = slice.through.iter().map(|through| {
                let may_be_missed = !placed && through.on_failure == OnFailure::Bypass;
                (through.hook.to_string(), may_be_missed)
            });
            let class = match slice.class {
                selvedge_slices::Class::BestEffort => Class::BestEffort,
                selvedge_slices::Class::Guaranteed => Class::Guaranteed,
                selvedge_slices::Class::Urllc => Class::Urllc,
            };
            let slice = Slice {
                name: name.to_string(),
                priority: slice.priority,
                class,
                two_sided: on(Side::Ue) && on(Side::Dn),
                guaranteed_bps: [total(slice.downlink.guaranteed), total(slice.uplink.guaranteed)],
                hooks: hooks.collect(),
                placed,
                kept,
                members: members.remove(&id).unwrap_or_default(),
            };
            slices.insert(id, slice);
        }
        slices
    }

    /// By host. Fills in who is in which slice.
    fn truth_endpoints(&self, members: &mut BTreeMap<SliceId, Vec<u32>>) -> Vec<Option<Endpoint>> {
        let mut named: BTreeMap<&NodeName, (Side, Vec<SliceId>)> = BTreeMap::new();
        for (name, stored) in self.intent.active() {
            let Some(id) = self.numbers.known_slice(name.as_str()) else { continue };
            for endpoint in &stored.object.endpoints {
                let (_, slices) =
                    named.entry(&endpoint.name).or_insert((endpoint.side, Vec::new()));
                if !self.derived.seats.waits(name, &endpoint.name) {
                    slices.push(id);
                }
            }
        }
        let mut kinds: BTreeSet<Arc<Member>> = BTreeSet::new();
        let mut endpoints = Vec::with_capacity(self.truth.hosts.names.len());
        for (number, (name, host)) in (0..).zip(self.network.topology.hosts()) {
            let (side, mut slices) =
                named.remove(name).unwrap_or((Side::Ue, vec![SliceId::DEFAULT]));
            if slices.is_empty() {
                endpoints.push(None); // every slice that names it is full
                continue;
            }
            slices.sort_unstable();
            slices.dedup();
            for slice in &slices {
                members.entry(*slice).or_default().push(number);
            }
            let Some(at) = self.endpoints.locate(&self.network, name, host) else {
                endpoints.push(None);
                continue;
            };
            let direction = match side {
                Side::Ue => Direction::Uplink,
                Side::Dn => Direction::Downlink,
            };
            let member = Member { slices, direction };
            let member = kinds.get(&member).cloned().unwrap_or_else(|| Arc::new(member));
            kinds.insert(member.clone());
            let node = self.truth.nodes.binary_search(&at.switch);
            endpoints.push(Some(Endpoint {
                prefixes: prefixes(host),
                mac: at.mac,
                node: node.expect("an endpoint is at a declared switch"),
                port: at.port,
                member,
            }));
        }
        endpoints
    }

    fn hooks_of(&self, world: &mut World, ix: &BTreeMap<&NodeName, usize>) {
        for ((switch, hook), wanted) in &self.derived.hooks {
            let Some(slice) = self.numbers.known_slice(wanted.slice.as_str()) else { continue };
            let status = self.network.switches.get(switch).and_then(|s| s.hooks.get(hook));
            let at = HookAt {
                slice,
                name: wanted.hook.to_string(),
                running: status.is_some_and(|status| status.state == HookState::Running),
                directions: wanted.directions,
            };
            world.hooks.insert((ix[switch], *hook), at);
        }
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
