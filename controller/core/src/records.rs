//! What the store keeps, and the core made of it again.
//!
//! | key | holds |
//! |---|---|
//! | `meta` | format version, revision of the intent, highest generation |
//! | `intent/slice/NAME`, `intent/hook/NAME`, `intent/application/NAME`, `intent/class-map/NAME`, `intent/pdu-session/NAME` | an object as in its file, who put it and when |
//! | `attached/SLICE` | `ue` endpoints attached to a slice that has a maximum, in the order in which they came |
//! | `number/POOL`, `number/POOL#N` | a pool of numbers; those from 64 N on, by the names that they were given to |
//! | `placement/NAME` | the switch that an application was last placed on |
//! | `endpoint/NAME` | where an endpoint was seen, its MAC address |
//! | `drain/node/NAME`, `drain/link/END` | what is to be empty, who wants it and why |
//! | `history/REVISION` | what a revision changed, and objects as they were before it |
//! | `switch/NAME` | what a switch last reported, and what was sent to its hooks |
//!
//! Values are JSON. What a switch reported is kept so that a controller that starts again knows
//! the network before the first switch has joined, and so writes nothing that it need not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use selvedge_pipeline::{HookId, PortId};
use selvedge_slices::{NetworkSlice, Object, ObjectName, PduSession, document};
use selvedge_topology::sorted::Sorted;
use selvedge_topology::{NodeName, Topology};
use serde::{Deserialize, Serialize};

use crate::attach::Learned;
use crate::drain::{self, Drained};
use crate::effect::{Effect, RecordChange};
use crate::event::{Compute, Neighbor, Port};
use crate::history::{self, History};
use crate::intent::{Intent, Meta, Stored, StoredSlice};
use crate::lifecycle::Phase;
use crate::network::{Switch, Switches};
use crate::numbers::Numbers;
use crate::seats::Seats;
use crate::{Config, Core};

mod epoch;

/// Of the records; a store with another one is not taken.
const FORMAT: u32 = 1;

/// Why the records of a store are not a core's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {key:?}: {reason}")]
pub struct RestoreError {
    pub key: String,
    pub reason: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MetaRecord {
    format: u32,
    revision: u64,
    generation: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ObjectRecord {
    /// As in its file.
    object: serde_json::Value,
    /// SHA-256 of a hook's module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    module: Option<String>,
    revision: u64,
    author: String,
    changed_at_ms: u64,
    /// Of a slice; absent: active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    phase: Option<PhaseRecord>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PhaseRecord {
    Designed,
    Reserved { until_ms: Option<u64> },
    Deactivated,
}

impl PhaseRecord {
    fn of(phase: Phase) -> Option<Self> {
        match phase {
            Phase::Designed => Some(Self::Designed),
            Phase::Reserved { until_ms } => Some(Self::Reserved { until_ms }),
            Phase::Active => None,
            Phase::Deactivated => Some(Self::Deactivated),
        }
    }

    fn phase(self) -> Phase {
        match self {
            Self::Designed => Phase::Designed,
            Self::Reserved { until_ms } => Phase::Reserved { until_ms },
            Self::Deactivated => Phase::Deactivated,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndpointRecord {
    /// Switch and port.
    at: Option<(String, String)>,
    mac: Option<[u8; 6]>,
    mac_stale: bool,
    #[serde(default)]
    ousted: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SwitchRecord {
    version: String,
    /// Processors and bytes of memory.
    compute: Option<(u32, u64)>,
    ports: Vec<PortRecord>,
    /// By hook: a digest of what was last sent to it.
    hooks_sent: BTreeMap<u16, u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PortRecord {
    id: u16,
    name: String,
    mac: [u8; 6],
    up: bool,
    /// LLDP chassis and port of one that has shown who it is.
    neighbor: Option<(String, String)>,
}

/// The state that the store has, or was asked to take.
#[derive(Debug, Default)]
pub(crate) struct MadeOf {
    meta: Option<MetaRecord>,
    intent: Intent,
    seats: Seats,
    numbers: Numbers,
    places: BTreeMap<ObjectName, NodeName>,
    learned: Sorted<NodeName, Learned>,
    switches: Switches,
    hooks_sent: BTreeMap<(NodeName, HookId), u64>,
}

/// Changes of records, as they are found.
struct Found(Vec<RecordChange>);

impl Found {
    /// `same`: the record is as it was. `make`: `None` where there is none any more.
    fn put(&mut self, key: String, same: bool, make: impl FnOnce() -> Option<Vec<u8>>) {
        if !same {
            self.0.push(RecordChange { key, value: make() });
        }
    }

    /// What differs between two maps.
    fn maps<K: Ord, V: PartialEq>(
        &mut self,
        (before, after): (&BTreeMap<K, V>, &BTreeMap<K, V>),
        key: impl Fn(&K) -> String,
        make: impl Fn(&K, &V) -> Vec<u8>,
    ) {
        for (name, value) in after {
            let same = before.get(name) == Some(value);
            self.put(key(name), same, || Some(make(name, value)));
        }
        for name in before.keys().filter(|name| !after.contains_key(*name)) {
            self.put(key(name), false, || None);
        }
    }
}

pub(crate) fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("records have string keys and no failing writers")
}

impl Core {
    fn made_of(&self) -> MadeOf {
        MadeOf {
            meta: Some(self.meta_record()),
            intent: self.intent.clone(),
            seats: self.derived.seats.clone(),
            numbers: self.numbers.clone(),
            places: self.places.clone(),
            learned: self.endpoints.learned.clone(),
            switches: self.network.switches.clone(),
            hooks_sent: self.hooks_sent.clone(),
        }
    }

    /// Records of the present state that are others than those of `before`, the history's left
    /// out.
    fn records_since(&self, before: &MadeOf) -> Vec<RecordChange> {
        let mut found = Found(Vec::new());
        let meta = self.meta_record();
        found.put(Self::META.to_owned(), before.meta.as_ref() == Some(&meta), || Some(json(&meta)));
        self.intent_since(&before.intent, &mut found);
        for slice in before.seats.changed(&self.derived.seats) {
            let seated = self.derived.seats.seated(slice);
            let make = || seated.filter(|seated| !seated.is_empty()).map(|seated| json(&seated));
            found.put(format!("attached/{slice}"), false, make);
        }
        for (rest, value) in self.numbers.records_since(&before.numbers) {
            found.put(format!("number/{rest}"), false, || value);
        }
        let key = |name: &ObjectName| format!("placement/{name}");
        found.maps((&before.places, &self.places), key, |_, node| json(&node.as_str()));
        before.learned.differences(&self.endpoints.learned, |host, _, learned| {
            let record = |learned: &Learned| {
                let at = learned.at.as_ref().map(|(node, port)| (node.to_string(), port.clone()));
                let Learned { mac, mac_stale, ousted, .. } = *learned;
                json(&EndpointRecord { at, mac, mac_stale, ousted })
            };
            found.put(format!("endpoint/{host}"), false, || learned.map(record));
        });
        let mut switches: BTreeSet<&NodeName> = BTreeSet::new();
        before.switches.differences(&self.network.switches, |name, old, new| {
            let reported = old.zip(new).is_some_and(|(old, new)| old.reported(new));
            switches.extend(Some(name).filter(|_| !reported));
        });
        if self.hooks_sent != before.hooks_sent {
            switches.extend(before.hooks_sent.keys().chain(self.hooks_sent.keys()).map(|k| &k.0));
        }
        for name in switches {
            let Some(switch) = self.network.switches.get(name).filter(|switch| switch.known) else {
                continue;
            };
            found.put(format!("switch/{name}"), false, || {
                Some(json(&self.switch_record(name, switch)))
            });
        }
        found.0
    }

    fn intent_since(&self, before: &Intent, found: &mut Found) {
        let intent = &self.intent;
        for (name, _, new) in before.slices.since(&intent.slices) {
            let record = |stored: &Arc<StoredSlice>| {
                let slice = NetworkSlice::clone(&stored.object);
                object_record(&Object::NetworkSlice(slice), &stored.meta)
            };
            found.put(format!("intent/slice/{name}"), false, || new.map(record));
        }
        let key = |kind: &'static str| move |name: &ObjectName| format!("intent/{kind}/{name}");
        found.maps((&before.hooks, &intent.hooks), key("hook"), |_, stored| {
            object_record(&Object::Hook(stored.object.clone()), &stored.meta)
        });
        let maps = (&before.applications, &intent.applications);
        found.maps(maps, key("application"), |_, stored| {
            object_record(&Object::Application(stored.object.clone()), &stored.meta)
        });
        found.maps((&before.class_maps, &intent.class_maps), key("class-map"), |_, stored| {
            object_record(&Object::ClassMap(stored.object.clone()), &stored.meta)
        });
        before.sessions.differences(&intent.sessions, |name, _, new| {
            let record = |stored: &Arc<Stored<PduSession>>| {
                object_record(&Object::PduSession(stored.object.clone()), &stored.meta)
            };
            found.put(format!("intent/pdu-session/{name}"), false, || new.map(record));
        });
        let key = |what: &Drained| format!("drain/{}", what.key());
        found.maps((&before.drained, &intent.drained), key, drain::record);
    }

    fn meta_record(&self) -> MetaRecord {
        let (revision, generation) = (self.intent.revision, self.generation);
        MetaRecord { format: FORMAT, revision, generation }
    }

    fn switch_record(&self, name: &NodeName, switch: &Switch) -> SwitchRecord {
        let port = |port: &Port| {
            let neighbor = switch.neighbors.get(&port.id);
            PortRecord {
                id: port.id.0,
                name: port.name.clone(),
                mac: port.mac,
                up: port.up,
                neighbor: neighbor.map(|n| (n.chassis.clone(), n.port.clone())),
            }
        };
        let sent = self.hooks_sent.iter().filter(|((node, _), _)| node == name);
        SwitchRecord {
            version: switch.version.clone(),
            compute: switch.compute.map(|compute| (compute.cpu, compute.memory_bytes)),
            ports: switch.ports.values().map(port).collect(),
            hooks_sent: sent.map(|((_, hook), digest)| (hook.0, *digest)).collect(),
        }
    }

    /// Asks for what the store does not have yet, if there is anything.
    pub(crate) fn persist(&mut self, out: &mut Vec<Effect>) {
        let mut changes = std::mem::take(&mut self.unsaved);
        changes.extend(self.records_since(&self.made_of));
        self.made_of = Arc::new(self.made_of());
        changes.extend(History::take_unsaved(&mut self.history));
        if !changes.is_empty() {
            out.push(Effect::Persist(changes));
        }
    }

    /// The core as it was when the store was last told, over a topology that may be another:
    /// what is no longer declared is kept as intent, and shows as degraded.
    ///
    /// # Errors
    /// [`RestoreError`] for a record that no core of this version has written.
    pub fn restore(
        topology: Topology,
        config: Config,
        records: impl IntoIterator<Item = (String, Vec<u8>)>,
    ) -> Result<Self, RestoreError> {
        let mut core = Self::new(topology, config);
        let mut records: BTreeMap<String, Vec<u8>> = records.into_iter().collect();
        for (key, value) in &records {
            core.take_record(key, value)
                .map_err(|reason| RestoreError { key: key.clone(), reason })?;
        }
        Arc::make_mut(&mut core.history).restored(core.intent.revision);
        core.intent.classify();
        core.lifecycle_at_ms = core.intent.next_due_ms();
        core.derive_or_keep();
        // What this version writes otherwise. The history says itself what it wants changed.
        records.retain(|key, _| !key.starts_with(history::PREFIX));
        for change in core.records_since(&MadeOf::default()) {
            let stored = records.remove(&change.key);
            if stored != change.value {
                core.unsaved.push(change);
            }
        }
        let gone = records.into_keys().map(|key| RecordChange { key, value: None });
        core.unsaved.extend(gone);
        core.made_of = Arc::new(core.made_of());
        Ok(core)
    }

    fn take_record(&mut self, key: &str, value: &[u8]) -> Result<(), String> {
        let foreign = || String::from("not a record of this version");
        if key == Self::META {
            let meta: MetaRecord = parse(value)?;
            if meta.format != FORMAT {
                return Err(format!("format {}, not {FORMAT}", meta.format));
            }
            (self.intent.revision, self.generation) = (meta.revision, meta.generation);
            return Ok(());
        }
        let (kind, name) = key.split_once('/').ok_or_else(foreign)?;
        match kind {
            "intent" => self.take_object(name.split_once('/').ok_or_else(foreign)?, value),
            "drain" => {
                let (what, meta) = drain::restore(value)?;
                self.intent.drained.insert(what, meta);
                Ok(())
            }
            "history" => Arc::make_mut(&mut self.history).restore(name, value),
            "number" => self.numbers.restore(name, value),
            "placement" => {
                let application: ObjectName = name.parse().map_err(|_| foreign())?;
                let node: String = parse(value)?;
                self.places.insert(application, node.parse().map_err(|_| foreign())?);
                Ok(())
            }
            "endpoint" => {
                let host: NodeName = name.parse().map_err(|_| foreign())?;
                let record: EndpointRecord = parse(value)?;
                let at = match record.at {
                    None => None,
                    Some((node, port)) => Some((node.parse().map_err(|_| foreign())?, port)),
                };
                let EndpointRecord { mac, mac_stale, ousted, .. } = record;
                let learned = Learned { at, mac, mac_stale, ousted };
                if self.network.topology.nodes.get(&host).is_some_and(|n| n.as_host().is_some()) {
                    self.endpoints.learned.insert(host, learned);
                }
                Ok(())
            }
            "attached" => {
                let slice: ObjectName = name.parse().map_err(|_| foreign())?;
                let seated: Vec<String> = parse(value)?;
                let seated: Result<Vec<NodeName>, _> = seated.iter().map(|s| s.parse()).collect();
                let derived = Arc::make_mut(&mut self.derived);
                derived.seats.restore(slice, seated.map_err(|_| foreign())?);
                Ok(())
            }
            "switch" => {
                let name: NodeName = name.parse().map_err(|_| foreign())?;
                self.take_switch(&name, parse(value)?);
                Ok(())
            }
            _ => Err(foreign()),
        }
    }

    fn take_object(&mut self, (kind, name): (&str, &str), value: &[u8]) -> Result<(), String> {
        let record: ObjectRecord = parse(value)?;
        let name: ObjectName = name.parse().map_err(|error| format!("{error}"))?;
        let object = document::object(&record.object)?;
        let ObjectRecord { module, revision, author, changed_at_ms, phase, .. } = record;
        let phase = phase.map_or(Phase::Active, PhaseRecord::phase);
        let meta = Meta { module, revision, author, changed_at_ms, phase };
        if *object.name() != name {
            return Err(format!("it holds {}", object.name()));
        }
        match (kind, object) {
            ("slice", Object::NetworkSlice(object)) => {
                self.intent.slices.insert(Arc::new(Stored { object: Arc::new(object), meta }));
            }
            ("hook", Object::Hook(object)) if meta.module.is_some() => {
                self.intent.hooks.insert(name, Arc::new(Stored { object, meta }));
            }
            ("application", Object::Application(object)) => {
                self.intent.applications.insert(name, Arc::new(Stored { object, meta }));
            }
            ("class-map", Object::ClassMap(object)) => {
                self.intent.class_maps.insert(name, Arc::new(Stored { object, meta }));
            }
            ("pdu-session", Object::PduSession(object)) => {
                self.intent.sessions.put(Stored { object, meta });
            }
            (_, object) => return Err(format!("it holds a {}", object.kind())),
        }
        Ok(())
    }

    /// What a switch reported before the controller ended, if it is still declared.
    fn take_switch(&mut self, name: &NodeName, record: SwitchRecord) {
        let Some(switch) = self.network.switch_mut(name) else { return };
        switch.known = true;
        switch.version = record.version;
        switch.compute = record.compute.map(|(cpu, memory_bytes)| Compute { cpu, memory_bytes });
        for port in record.ports {
            let PortRecord { id, name, mac, up, neighbor } = port;
            let id = PortId(id);
            if switch.set_port(Port { id, name, mac, up })
                && let Some((chassis, port)) = neighbor
            {
                let neighbor = Neighbor { chassis, port, authenticated: true };
                switch.neighbors.insert(id, neighbor);
            }
        }
        for (hook, digest) in record.hooks_sent {
            self.hooks_sent.insert((name.clone(), HookId(hook)), digest);
        }
    }
}

fn object_record(object: &Object, meta: &Meta) -> Vec<u8> {
    json(&ObjectRecord {
        object: document::of(object),
        module: meta.module.clone(),
        revision: meta.revision,
        author: meta.author.clone(),
        changed_at_ms: meta.changed_at_ms,
        phase: PhaseRecord::of(meta.phase),
    })
}

pub(crate) fn parse<'a, T: Deserialize<'a>>(value: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(value).map_err(|error| error.to_string())
}
