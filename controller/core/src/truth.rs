//! The truth that plans are proven against, straight from the state: not from what was computed
//! of it, but for which slices admission could place and which numbers names have.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use selvedge_pipeline::{Class, ClassifierAction, Direction, SliceId};
use selvedge_slices::rules::{FilterType, RuleAction, RuleState};
use selvedge_slices::{OnFailure, Side, TrafficFilter};
use selvedge_topology::{BitRate, NodeName};

use crate::Core;
use crate::attach::as_held;
use crate::event::HookState;
use crate::network::LinkState;
use crate::numbers::DEFAULT_SLICE;
use crate::prove::{Endpoint, HookAt, Rule, Slice, Wire, World};

/// Share of a link's capacity that may be promised, in percent (DESIGN §6).
const MARGIN_PERCENT: u64 = 97;

impl Core {
    pub(crate) fn world(&self) -> World {
        let nodes: Vec<NodeName> = self.network.switches.keys().cloned().collect();
        let mut world = World { nodes, ..World::default() };
        let ix: BTreeMap<&NodeName, usize> =
            self.network.switches.keys().enumerate().map(|(ix, name)| (name, ix)).collect();
        for (name, switch) in &self.network.switches {
            if !switch.joined {
                world.stuck.insert(ix[name]);
            }
        }
        for (link_ix, state) in self.network.link_states() {
            let LinkState::Usable { a, b } = state else { continue };
            let link = self.network.link(link_ix);
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
        self.slices_of(&mut world);
        self.endpoints_of(&mut world, &ix);
        self.hooks_of(&mut world, &ix);
        self.rules_of(&mut world);
        world
    }

    fn slices_of(&self, world: &mut World) {
        let default = Slice {
            name: DEFAULT_SLICE.to_owned(),
            priority: 0,
            class: Class::BestEffort,
            two_sided: false,
            guaranteed_bps: [0; 2],
            hooks: Vec::new(),
            placed: true,
            kept: true,
        };
        world.slices.insert(SliceId::DEFAULT, default);
        for (name, stored) in &self.intent.slices {
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
            };
            world.slices.insert(id, slice);
        }
    }

    fn endpoints_of(&self, world: &mut World, ix: &BTreeMap<&NodeName, usize>) {
        let mut named: BTreeMap<&NodeName, (Side, BTreeSet<SliceId>)> = BTreeMap::new();
        for (name, stored) in &self.intent.slices {
            let Some(id) = self.numbers.known_slice(name.as_str()) else { continue };
            for endpoint in &stored.object.endpoints {
                let (_, slices) =
                    named.entry(&endpoint.name).or_insert((endpoint.side, BTreeSet::new()));
                slices.insert(id);
            }
        }
        for (name, host) in self.network.topology.hosts() {
            let Some(at) = self.endpoints.locate(&self.network, name, host) else { continue };
            let (side, slices) =
                named.remove(name).unwrap_or((Side::Ue, BTreeSet::from([SliceId::DEFAULT])));
            let v4 = host.ipv4.map(IpNet::V4);
            let v6 = host.ipv6.map(IpNet::V6);
            world.endpoints.push(Endpoint {
                name: name.clone(),
                prefixes: v4.into_iter().chain(v6).collect(),
                mac: at.mac,
                node: ix[&at.switch],
                port: at.port,
                direction: match side {
                    Side::Ue => Direction::Uplink,
                    Side::Dn => Direction::Downlink,
                },
                slices,
            });
        }
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

    fn rules_of(&self, world: &mut World) {
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
                        world.rules.push(Rule {
                            sources: forward.destinations.clone(),
                            destinations: forward.sources.clone(),
                            source_ports: forward.destination_ports.clone(),
                            destination_ports: forward.source_ports.clone(),
                            ..forward.clone()
                        });
                    }
                    world.rules.push(forward);
                }
            }
        }
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
