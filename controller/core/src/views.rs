//! What the APIs read. Nothing here changes anything.

use std::sync::Arc;

use selvedge_pipeline::{Class, Direction, Entry, Key, SliceMeterEntry};
use selvedge_slices::admission::{Protection, usable};
use selvedge_slices::rules::RuleState;
use selvedge_slices::{
    Application, Hook, NetworkSlice, Object, ObjectKind, PduSession, TrafficRule,
};
use selvedge_topology::{ArcIx, NodeName, Topology};

use crate::Core;
use crate::attach::prefixes;
use crate::effect::LogEntry;
use crate::event::{DiscoveryCounts, ObjectId};
use crate::intent::{Intent, StoredSlice};
use crate::lifecycle::Phase;
use crate::network::{LinkState, Use};
use crate::numbers::DEFAULT_SLICE;
use crate::plan::Table;
use crate::reconcile::generation_of;
use crate::view::{
    ApplicationView, ClassMapView, EndpointView, Explanation, HookInstanceView, HookView,
    Lifecycle, LinkView, MeterView, NodeView, ObjectChange, PduSessionView, PortView, Revision,
    SliceState, SliceView, Status,
};

fn lifecycle(stored: &StoredSlice, kept: bool) -> Lifecycle {
    let phase = stored.phase();
    let enabled = kept && phase.holds_capacity();
    Lifecycle {
        phase,
        administrative_state: if phase == Phase::Active { "UNLOCKED" } else { "LOCKED" },
        operational_state: if enabled { "ENABLED" } else { "DISABLED" },
        schedule: stored.object.schedule,
    }
}

impl Core {
    pub fn topology(&self) -> &Topology {
        &self.network.topology
    }

    /// Of the intent: counts up with every change that was taken.
    pub fn revision(&self) -> u64 {
        self.intent.revision
    }

    pub fn status(&self) -> Status {
        let waiting_for = self.waiting_for();
        let switches = &self.network.switches;
        let usable = |state: &&LinkState| matches!(state, LinkState::Usable { .. });
        let degraded = self.derived.slices.values().filter(|slice| !slice.reasons.is_empty());
        Status {
            converged: waiting_for.is_empty(),
            revision: self.intent.revision,
            generation: self.generation,
            switches_declared: switches.len(),
            switches_joined: switches.values().filter(|switch| switch.joined).count(),
            links_declared: self.derived.links.len(),
            links_usable: self.derived.links.values().filter(usable).count(),
            endpoints_declared: self.network.topology.hosts().count(),
            endpoints_attached: self.derived.located.len(),
            slices: self.intent.slices.len(),
            slices_degraded: degraded.count(),
            store_unwritable: self.store_unwritable.clone(),
            blocked: self.blocked.clone(),
            waiting_for,
            drained: self.drains(),
            files: self.files.clone(),
        }
    }

    /// What stands between now and converged: every declared switch joined, holding exactly
    /// what it should, and nothing in flight.
    fn waiting_for(&self) -> Vec<String> {
        let mut waiting = Vec::new();
        if let Some(why) = &self.blocked {
            waiting.push(why.clone());
        }
        if self.due_at.is_some() {
            waiting.push(String::from("a change that is being computed"));
        }
        if self.running.is_some() {
            waiting.push(String::from("a plan that is being carried out"));
        }
        for (name, switch) in &self.network.switches {
            let session = self.sessions.get(name);
            if !switch.joined {
                waiting.push(format!("switch {name} to join"));
            } else if session.is_none_or(|session| session.held.is_none()) {
                waiting.push(format!("entries of switch {name} to be read"));
            } else if session.is_some_and(|session| session.is_writing()) || !self.in_sync(name) {
                waiting.push(format!("entries of switch {name} to be written"));
            }
        }
        waiting
    }

    pub fn nodes(&self) -> Vec<NodeView> {
        let node = |name: &NodeName| -> Option<NodeView> {
            let declared = self.network.topology.nodes.get(name)?.as_switch()?;
            let switch = self.network.switches.get(name)?;
            let held = self.sessions.get(name).and_then(|session| session.held.as_deref());
            let heard = self.heard.get(name);
            let ports = switch.ports.values().map(|port| {
                let fabric = matches!(self.network.port_use(name, port), Some(Use::Fabric(_)));
                let claim = || heard.and_then(|heard| heard.claims.get(&port.id));
                let neighbor = switch.neighbors.get(&port.id).or_else(claim);
                PortView {
                    id: port.id,
                    name: port.name.clone(),
                    mac: port.mac,
                    up: port.up,
                    kind: if fabric { "fabric" } else { "access" },
                    neighbor: neighbor.cloned(),
                }
            });
            Some(NodeView {
                name: name.clone(),
                sid: self.numbers.known_node(name).map_or(0, |sid| sid.0),
                role: declared.role.map_or(String::new(), |role| role.as_str().to_owned()),
                site: declared.site.clone(),
                position: declared
                    .position
                    .map(|at| (at.latitude_degrees(), at.longitude_degrees())),
                joined: switch.joined,
                version: switch.version.clone(),
                compute: switch.compute,
                ports: ports.collect(),
                entries: held.map_or(0, |held| held.len()),
                entries_desired: self.derived.tables.get(name).map_or(0, |table| table.len() + 1),
                generation: held.and_then(generation_of),
                in_sync: self.in_sync(name),
                drained: self.node_drained(name),
                discovery: heard.map(|heard| heard.counts).unwrap_or_default(),
            })
        };
        self.network.switches.keys().filter_map(node).collect()
    }

    /// Switches that have a session now.
    pub fn switches_joined(&self) -> Vec<NodeName> {
        let joined = self.network.switches.iter().filter(|(_, switch)| switch.joined);
        joined.map(|(name, _)| name.clone()).collect()
    }

    /// What each switch has heard by LLDP since its agent's start.
    pub fn discovery(&self) -> Vec<(NodeName, DiscoveryCounts)> {
        self.heard.iter().map(|(name, heard)| (name.clone(), heard.counts)).collect()
    }

    /// Declared links between switches, in the order of the topology.
    pub fn links(&self) -> Vec<LinkView> {
        let states = self.network.link_states();
        let view = |(ix, state): (&selvedge_topology::LinkIx, &LinkState)| {
            let link = self.network.link(*ix);
            let reserved = |a_to_b| self.derived.ledger.reserved(ArcIx::new(*ix, a_to_b)).bps();
            let end = |end: &selvedge_topology::End| (end.node.clone(), end.port.to_string());
            LinkView {
                a: end(&link.a),
                b: end(&link.b),
                capacity_bps: link.capacity.map(|capacity| capacity.bps()),
                delay_us: link.delay.map(|delay| delay.us()),
                usable: matches!(state, LinkState::Usable { .. }),
                reason: match state {
                    LinkState::Usable { .. } => None,
                    LinkState::Unusable(reason) => Some(reason.to_string()),
                },
                drained: self.link_drained(*ix),
                reserved_ab_bps: reserved(true),
                reserved_ba_bps: reserved(false),
                reservable_bps: link.capacity.map(|capacity| usable(capacity).bps()),
                rate_ab_bps: self.arc_rate_bps(ArcIx::new(*ix, true)),
                rate_ba_bps: self.arc_rate_bps(ArcIx::new(*ix, false)),
                measured: self.link_delay(*ix),
            }
        };
        states.iter().map(view).collect()
    }

    pub fn endpoints(&self) -> Vec<EndpointView> {
        let topology = &self.network.topology;
        let view = |(name, host): (&NodeName, &selvedge_topology::Host)| {
            let slices = self.intent.active().filter(|(_, stored)| {
                stored.object.endpoints.iter().any(|endpoint| endpoint.name == *name)
            });
            let mut slices: Vec<String> = slices.map(|(name, _)| name.to_string()).collect();
            if slices.is_empty() {
                slices.push(DEFAULT_SLICE.to_owned());
            }
            let learned = self.endpoints.learned.get(name);
            EndpointView {
                name: name.clone(),
                addresses: prefixes(host).iter().map(|prefix| prefix.addr()).collect(),
                mac: self.endpoints.mac(name, host),
                attachment: self.place(name),
                attached: self.derived.located.contains_key(name),
                moved: learned.is_some_and(|learned| learned.at.is_some()),
                slices,
            }
        };
        topology.hosts().map(view).collect()
    }

    /// Those of the intent; the default slice has no promise and is not listed.
    pub fn slices(&self) -> Vec<SliceView> {
        let view = |stored: &StoredSlice| {
            let slice = &stored.object;
            let state = self.derived.slices.get(slice.name.as_str());
            let reasons = state.map(|state| state.reasons.clone()).unwrap_or_default();
            SliceView {
                name: slice.name.to_string(),
                id: self.numbers.known_slice(slice.name.as_str()).map_or(0, |id| id.0),
                class: slice.class.to_string(),
                state: if reasons.is_empty() { SliceState::Kept } else { SliceState::Degraded },
                lifecycle: lifecycle(stored, reasons.is_empty()),
                reasons,
                endpoints: slice.endpoints.iter().map(|e| e.name.to_string()).collect(),
                hooks: slice.through.iter().map(|through| through.hook.to_string()).collect(),
                revision: stored.meta.revision,
                author: stored.meta.author.clone(),
                changed_at_ms: stored.meta.changed_at_ms,
            }
        };
        self.intent.slices.values().map(|stored| view(stored)).collect()
    }

    pub fn hooks(&self) -> Vec<HookView> {
        let view = |stored: &crate::intent::Stored<Hook>| {
            let hook = &stored.object;
            let of_hook = self.derived.hooks.iter().filter(|(_, wanted)| wanted.hook == hook.name);
            let instances = of_hook.map(|((switch, id), wanted)| {
                let status = self.network.switches.get(switch).and_then(|s| s.hooks.get(id));
                HookInstanceView {
                    slice: wanted.slice.to_string(),
                    switch: switch.clone(),
                    hook: *id,
                    state: status.map(|status| status.state),
                    reason: status.map_or(String::new(), |status| status.reason.clone()),
                }
            });
            HookView {
                name: hook.name.to_string(),
                sha256: stored.meta.module.clone().unwrap_or_default(),
                fuel_per_packet: hook.fuel_per_packet,
                memory_bytes: hook.memory.0,
                instances: instances.collect(),
                revision: stored.meta.revision,
                author: stored.meta.author.clone(),
            }
        };
        self.intent.hooks.values().map(|stored| view(stored)).collect()
    }

    pub fn applications(&self) -> Vec<ApplicationView> {
        let view = |stored: &crate::intent::Stored<Application>| {
            let application = &stored.object;
            let rules = application.traffic_rules.iter();
            ApplicationView {
                name: application.name.to_string(),
                endpoint: application.endpoint.clone(),
                placement: self.placement_of(&application.name),
                rules: rules.map(|r| (r.id.clone(), r.state == RuleState::Active)).collect(),
                revision: stored.meta.revision,
                author: stored.meta.author.clone(),
            }
        };
        self.intent.applications.values().map(|stored| view(stored)).collect()
    }

    pub fn pdu_sessions(&self) -> Vec<PduSessionView> {
        let view = |stored: &Arc<crate::intent::Stored<PduSession>>| {
            let session = &stored.object;
            let way = self.intent.n3_way(session, &self.network.topology);
            PduSessionView {
                session: session.clone(),
                downlink_qfi: way.map(|way| way.tunnel.qfi),
                attachment: self.place(&session.ue),
                attached: self.derived.located.contains_key(&session.ue),
                revision: stored.meta.revision,
                author: stored.meta.author.clone(),
            }
        };
        self.intent.sessions.values().map(view).collect()
    }

    /// The rules of an application, in the order of its descriptor; `None`: there is none of
    /// that name.
    pub fn traffic_rules(&self, application: &str) -> Option<&[TrafficRule]> {
        let stored = self.intent.applications.get(application)?;
        Some(&stored.object.traffic_rules)
    }

    /// An object as it was put.
    pub fn object(&self, id: &ObjectId) -> Option<Object> {
        self.intent.object(id).map(|(object, _)| object)
    }

    /// Every object of the intent.
    pub fn object_ids(&self) -> Vec<ObjectId> {
        let id = |kind, name: &selvedge_slices::ObjectName| ObjectId { kind, name: name.clone() };
        let Intent { slices, hooks, applications, class_maps, sessions, .. } = &self.intent;
        let slices = slices.keys().map(|name| id(ObjectKind::NetworkSlice, name));
        let hooks = hooks.keys().map(|name| id(ObjectKind::Hook, name));
        let applications = applications.keys().map(|name| id(ObjectKind::Application, name));
        let class_maps = class_maps.keys().map(|name| id(ObjectKind::ClassMap, name));
        let sessions = sessions.keys().map(|name| id(ObjectKind::PduSession, name));
        slices.chain(hooks).chain(applications).chain(class_maps).chain(sessions).collect()
    }

    /// Whether the intent has just this object, and of a hook this module (SHA-256).
    pub fn holds(&self, object: &Object, module: &Option<String>) -> bool {
        let id = ObjectId { kind: object.kind(), name: object.name().clone() };
        self.intent.object(&id).is_some_and(|held| held.0 == *object && held.1 == *module)
    }

    /// SHA-256 digests of modules that hooks have or had, as far as the history goes back: what
    /// the shell must keep.
    pub fn modules(&self) -> impl Iterator<Item = &str> {
        self.intent.modules().chain(self.history.modules())
    }

    /// Changes of intent that were taken, oldest first.
    pub fn history(&self) -> impl DoubleEndedIterator<Item = Revision> {
        self.history.views()
    }

    /// What a revision did to each object; `None`: the history does not have it.
    pub fn changes_of(&self, revision: u64) -> Option<Vec<ObjectChange>> {
        self.history.changes(revision, &self.intent)
    }

    /// The latest lines of the event log, oldest first.
    pub fn events(&self) -> impl DoubleEndedIterator<Item = &LogEntry> {
        self.events.values().map(Arc::as_ref)
    }

    /// What a switch should hold, without its generation.
    pub fn entries_desired(&self, switch: &str) -> Option<&Table> {
        self.derived.tables.get(switch).map(|table| &**table)
    }

    /// What a switch is known to hold.
    pub fn entries_held(&self, switch: &str) -> Option<&Table> {
        self.sessions.get(switch)?.held.as_deref()
    }

    /// Why a slice goes where it goes; `None`: there is none of that name.
    pub fn explain(&self, slice: &str) -> Option<Explanation> {
        let stored = self.intent.slices.get(slice)?;
        let id = self.numbers.known_slice(slice)?;
        let reasons = self.derived.slices.get(slice).map(|s| s.reasons.clone()).unwrap_or_default();
        let mut meters = Vec::new();
        for (switch, table) in &self.derived.tables {
            for entry in table.values() {
                let (endpoint, direction, rates) = match entry {
                    Entry::SliceMeter(m) if m.slice == id => {
                        (None, m.direction, (m.guaranteed_bps, m.maximum_bps))
                    }
                    Entry::EndpointMeter(m) if m.slice == id => {
                        let name = self.numbers.endpoint_name(m.endpoint);
                        (name, m.direction, (m.guaranteed_bps, m.maximum_bps))
                    }
                    _ => continue,
                };
                let class = match table.get(&Key::SliceMeter(id, direction)) {
                    Some(Entry::SliceMeter(SliceMeterEntry { class, .. })) => *class,
                    _ => Class::BestEffort,
                };
                meters.push(MeterView {
                    switch: switch.clone(),
                    direction: match direction {
                        Direction::Downlink => "downlink",
                        Direction::Uplink => "uplink",
                    },
                    endpoint: endpoint.map(str::to_owned),
                    class: match class {
                        Class::BestEffort => "best-effort",
                        Class::Guaranteed => "guaranteed",
                        Class::Urllc => "urllc",
                    },
                    guaranteed_bps: rates.0,
                    maximum_bps: rates.1,
                });
            }
        }
        let protection = after_failure(Protection::of(stored.object.availability)).to_owned();
        Some(Explanation {
            slice: slice.to_owned(),
            id: id.0,
            state: if reasons.is_empty() { SliceState::Kept } else { SliceState::Degraded },
            phase: stored.phase(),
            reasons,
            placement: self.derived.ledger.explain(&self.derived.placement(), slice),
            meters,
            avoided: self.drains(),
            protection,
            notes: self.notes(&stored.object),
        })
    }

    fn notes(&self, slice: &NetworkSlice) -> Vec<String> {
        let filled = slice.from_template();
        let attached = self.derived.seats.explain(&slice.name);
        filled.into_iter().chain(attached).chain(slice.not_enforced()).collect()
    }

    /// Slices of the intent with their states, for other systems.
    pub fn exported(&self) -> Vec<selvedge_slices::ts28541::Exported> {
        let views = self.slices();
        let of =
            |(stored, view): (&Arc<StoredSlice>, SliceView)| selvedge_slices::ts28541::Exported {
                slice: NetworkSlice::clone(&stored.object),
                administrative_state: view.lifecycle.administrative_state,
                operational_state: view.lifecycle.operational_state,
            };
        self.intent.slices.values().zip(views).map(of).collect()
    }

    pub fn class_map(&self) -> ClassMapView {
        let map = self.intent.class_map();
        ClassMapView {
            name: map.map(|map| map.name.to_string()),
            rows: selvedge_slices::class_map::rows(map),
        }
    }
}

/// What happens to a slice when something fails, while its promise is kept.
fn after_failure(level: Protection) -> &'static str {
    match level {
        Protection::None => {
            "none asked for (availability below 99.9 %): after a failure the controller looks for \
             another path, and there may be none with room"
        }
        Protection::Link => {
            "link: room on another path is kept for the failure of any one link that it crosses, \
             and the controller sends it there"
        }
        Protection::Node => {
            "node: room on another path is kept for the failure of any one link or switch that it \
             crosses, and the controller sends it there"
        }
        Protection::Srlg => {
            "srlg: room on another path is kept for the failure of any one link, switch or \
             shared-risk group that it crosses, and the controller sends it there"
        }
    }
}
