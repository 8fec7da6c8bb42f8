//! What follows from intent, topology and reports.
//!
//! It is a function of the state alone, computed from what followed before and what is different
//! since ([`since`]): an event costs what it touches, not what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use selvedge_pipeline::HookId;
use selvedge_slices::admission::{Attachment, HookMemory, Network as Placement};
use selvedge_slices::{Ledger, ObjectName, Refusal};
use selvedge_topology::{Bytes, Forwarding, LinkIx, NodeIx, NodeName, Snapshot, Topology};

use crate::Core;
use crate::attach::{Learned, Located};
use crate::desired::Named;
use crate::effect::HookLoad;
use crate::intent::Intent;
use crate::network::{LinkState, Reason, Switches};
use crate::numbers::Numbers;
use crate::placement::{self, Place};
use crate::repairs::Repairs;
use crate::seats::Seats;
use crate::table::Table;
use selvedge_topology::sorted::Sorted;

mod since;
#[cfg(test)]
mod tests;

/// Cheap to clone, but for what hooks need.
#[derive(Clone, Debug)]
pub(crate) struct Derived {
    /// What all of this follows from.
    pub(crate) of: State,
    /// Declared links between switches.
    pub(crate) links: Arc<BTreeMap<LinkIx, LinkState>>,
    /// The topology without links that are unusable or avoided.
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) forwarding: Arc<Forwarding>,
    pub(crate) repairs: Repairs,
    /// For each host with a place in the topology, where it is or should be; placed
    /// applications included.
    pub(crate) attachments: Arc<BTreeMap<NodeName, Attachment>>,
    /// Switches that each hook can run on.
    pub(crate) hook_nodes: BTreeMap<ObjectName, Vec<NodeIx>>,
    /// Less what placed applications take.
    pub(crate) hook_memory: HookMemory,
    bare: Bare,
    pub(crate) ledger: Arc<Ledger>,
    /// Where applications are that are to be placed.
    pub(crate) places: BTreeMap<ObjectName, Place>,
    /// Who is attached to slices that have a maximum.
    pub(crate) seats: Seats,
    /// Slices that have no place at all.
    unplaced: Arc<BTreeMap<ObjectName, Refusal>>,
    /// Those that hold capacity, without the default slice.
    pub(crate) slices: Sorted<ObjectName, SliceState>,
    /// Hosts that packets can be delivered to.
    pub(crate) located: Sorted<NodeName, Located>,
    /// Which slices name a host; those that none names are in the default slice.
    pub(crate) named: Sorted<NodeName, Named>,
    /// Those in the default slice that packets can be delivered to.
    pub(crate) in_default: Sorted<NodeName, ()>,
    pub(crate) hooks: BTreeMap<(NodeName, HookId), HookWanted>,
    /// Classifier entries by switch; part of `tables`.
    rules: Arc<BTreeMap<NodeName, Table>>,
    /// What each known switch should hold, without its generation.
    pub(crate) tables: BTreeMap<NodeName, Arc<Table>>,
}

/// What there would be without placed applications.
#[derive(Clone, Debug, Default)]
struct Bare {
    attachments: Arc<BTreeMap<NodeName, Attachment>>,
    memory: HookMemory,
}

/// What everything follows from, besides the topology.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) intent: Intent,
    /// Where applications were.
    places: BTreeMap<ObjectName, NodeName>,
    pub(crate) switches: Switches,
    learned: Sorted<NodeName, Learned>,
    /// Those that were given in the course of it included.
    pub(crate) numbers: Numbers,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SliceState {
    /// Why its promise is not kept; empty when it is.
    pub(crate) reasons: Vec<String>,
    /// Admission found a place for it, though perhaps without its promise.
    pub(crate) placed: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HookWanted {
    pub(crate) slice: ObjectName,
    pub(crate) hook: ObjectName,
    /// Whether packets of a direction go through it; index: downlink, uplink.
    pub(crate) directions: [bool; 2],
    pub(crate) load: HookLoad,
}

impl Derived {
    /// Of a network where nobody has joined, and nothing is wanted.
    pub(crate) fn empty(topology: &Arc<Topology>) -> Self {
        let snapshot = Snapshot::new(topology.clone(), 0);
        let forwarding = Arc::new(Forwarding::new(&snapshot));
        Self {
            of: State::default(),
            links: Arc::default(),
            snapshot: Arc::new(snapshot),
            forwarding,
            repairs: Repairs::default(),
            attachments: Arc::default(),
            hook_nodes: BTreeMap::new(),
            hook_memory: HookMemory::default(),
            bare: Bare::default(),
            ledger: Arc::new(Ledger::new()),
            places: BTreeMap::new(),
            seats: Seats::default(),
            unplaced: Arc::default(),
            slices: Sorted::new(),
            located: Sorted::new(),
            named: Sorted::new(),
            in_default: Sorted::new(),
            hooks: BTreeMap::new(),
            rules: Arc::default(),
            tables: BTreeMap::new(),
        }
    }

    /// What admission is told.
    pub(crate) fn placement(&self) -> Placement<'_> {
        Placement { endpoints: &self.attachments, memory: &self.hook_memory, ..self.unsettled() }
    }

    /// What it is told when applications are to be placed as well.
    fn unsettled(&self) -> Placement<'_> {
        Placement {
            snapshot: &self.snapshot,
            forwarding: &self.forwarding,
            endpoints: &self.bare.attachments,
            hooks: &self.hook_nodes,
            memory: &self.bare.memory,
        }
    }
}

/// Why promises would not be kept even if all switches had joined.
#[derive(Default)]
pub(crate) struct Unfit {
    pub(crate) slices: BTreeMap<String, String>,
    pub(crate) applications: BTreeMap<ObjectName, String>,
}

/// Would every slice be kept and every application placed, or at least not for another reason,
/// once all switches have joined? Answers why not: for changes made before the network is up.
pub(crate) fn unfit_when_joined(core: &Core) -> Unfit {
    let links = core.network.link_states();
    let waits = |state: &LinkState| matches!(state, LinkState::Unusable(Reason::NotJoined(_)));
    let down =
        links.iter().filter(|(_, state)| matches!(state, LinkState::Unusable(_)) && !waits(state));
    let avoided = core.left(&links, true).avoided;
    let down: Vec<LinkIx> = down.map(|(ix, _)| *ix).chain(avoided).collect();
    let snapshot = Snapshot::new(core.network.topology.clone(), 0).with_down(0, down);
    let mut derived = Derived::empty(&core.network.topology);
    derived.forwarding = Arc::new(Forwarding::new(&snapshot));
    derived.bare.attachments = core.derived.bare.attachments.clone();
    (derived.hook_nodes, derived.bare.memory) = hooks(core, &snapshot);
    derived.snapshot = Arc::new(snapshot);
    let settled = placement::settle(core, derived.unsettled(), &links, true);
    let why = |name: &ObjectName| {
        let admitted = settled.ledger.get(name.as_str());
        let waived = || admitted.and_then(|admitted| admitted.waived.as_ref());
        let reason = settled.unplaced.get(name).or_else(waived)?;
        Some((name.to_string(), reason.to_string()))
    };
    let slices = core.intent.slices.keys().filter_map(why).collect();
    let places = settled.places.into_iter();
    let applications = places.filter_map(|(name, place)| Some((name, place.reason?))).collect();
    Unfit { slices, applications }
}

/// The network that is left, its trees and the ways around its failures: those of before if the
/// same links are left.
fn forwarding(
    core: &Core,
    links: &BTreeMap<LinkIx, LinkState>,
) -> (Arc<Snapshot>, Arc<Forwarding>, Repairs) {
    let unusable = links.iter().filter(|(_, state)| matches!(state, LinkState::Unusable(_)));
    let avoided = core.left(links, false).avoided;
    let down: BTreeSet<LinkIx> = unusable.map(|(ix, _)| *ix).chain(avoided).collect();
    let before = &core.derived;
    if *before.snapshot.down() == down {
        return (before.snapshot.clone(), before.forwarding.clone(), before.repairs.clone());
    }
    let version = before.snapshot.version() + 1;
    let snapshot = before.snapshot.with_down(version, down);
    let forwarding = Arc::new(Forwarding::new(&snapshot));
    let repairs = before.repairs.following(&before.snapshot, &snapshot);
    (Arc::new(snapshot), forwarding, repairs)
}

fn attachment(core: &Core, snapshot: &Snapshot, host: &NodeName) -> Option<Attachment> {
    let (node, port) = core.place(host)?;
    let switch = snapshot.node(node.as_str())?;
    let home = core.network.home(core.anchor(host));
    let here = home.filter(|(_, end)| end.node == node && end.port.as_str() == port);
    Some(Attachment { switch, link: here.map(|(link, _)| link) })
}

/// Switches with the memory for each hook; the compute memory of switches, as they report it or
/// as declared until they do, and what hooks need.
fn hooks(core: &Core, snapshot: &Snapshot) -> (BTreeMap<ObjectName, Vec<NodeIx>>, HookMemory) {
    let memory = |node: NodeIx| {
        let name = snapshot.name(node);
        // Hooks are traffic, too.
        if core.intent.is_drained(name) {
            return None;
        }
        let switch = &core.network.switches[name];
        if switch.known {
            return switch.compute.map(|compute| Bytes(compute.memory_bytes));
        }
        let declared = core.network.topology.nodes.get(name)?.as_switch()?;
        declared.compute.as_ref().map(|compute| Bytes(compute.memory_bytes))
    };
    let wanted = core.intent.hooks.iter();
    let memory = HookMemory {
        needs: wanted.map(|(name, stored)| (name.clone(), stored.object.memory)).collect(),
        nodes: snapshot.nodes().filter_map(|node| Some((node, memory(node)?))).collect(),
    };
    let of = |needed: Bytes| memory.nodes.iter().filter(move |(_, has)| **has >= needed);
    let nodes = memory.needs.iter();
    let nodes = nodes
        .map(|(name, needed)| (name.clone(), of(*needed).map(|(node, _)| *node).collect()))
        .collect();
    (nodes, memory)
}
