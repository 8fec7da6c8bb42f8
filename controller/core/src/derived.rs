//! What follows from intent, topology and reports: computed whole, each time something changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use selvedge_pipeline::HookId;
use selvedge_slices::admission::{Attachment, HookMemory, Network as Placement};
use selvedge_slices::{Ledger, NetworkSlice, ObjectName};
use selvedge_topology::{Bytes, Forwarding, LinkIx, NodeIx, NodeName, Snapshot, Topology};

use crate::Core;
use crate::attach::Located;
use crate::desired::{self, fabric, rules};
use crate::effect::HookLoad;
use crate::network::{LinkState, Network, Reason};
use crate::numbers::Numbers;
use crate::plan::Table;
use crate::refusal::Refusal;

#[derive(Clone, Debug)]
pub(crate) struct Derived {
    /// Declared links between switches.
    pub(crate) links: BTreeMap<LinkIx, LinkState>,
    /// The topology without unusable links.
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) forwarding: Arc<Forwarding>,
    /// For each host with a place in the topology, where it is or should be.
    pub(crate) attachments: BTreeMap<NodeName, Attachment>,
    /// Switches that each hook can run on.
    pub(crate) hook_nodes: BTreeMap<ObjectName, Vec<NodeIx>>,
    pub(crate) hook_memory: HookMemory,
    pub(crate) ledger: Ledger,
    /// By name, without the default slice.
    pub(crate) slices: BTreeMap<String, SliceState>,
    /// Hosts that packets can be delivered to.
    pub(crate) located: BTreeMap<NodeName, Located>,
    pub(crate) hooks: BTreeMap<(NodeName, HookId), HookWanted>,
    /// What each known switch should hold, without its generation.
    pub(crate) tables: BTreeMap<NodeName, Arc<Table>>,
}

#[derive(Clone, Debug)]
pub(crate) struct SliceState {
    /// Why its promise is not kept; empty when it is.
    pub(crate) reasons: Vec<String>,
    /// Admission found a place for it, though perhaps without its promise.
    pub(crate) placed: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct HookWanted {
    pub(crate) slice: ObjectName,
    pub(crate) hook: ObjectName,
    /// Whether packets of a direction go through it; index: downlink, uplink.
    pub(crate) directions: [bool; 2],
    pub(crate) load: HookLoad,
}

impl Derived {
    /// Of a network where nobody has joined.
    pub(crate) fn empty(topology: &Arc<Topology>) -> Self {
        let snapshot = Snapshot::new(topology.clone(), 0);
        let forwarding = Arc::new(Forwarding::new(&snapshot));
        Self {
            links: BTreeMap::new(),
            snapshot: Arc::new(snapshot),
            forwarding,
            attachments: BTreeMap::new(),
            hook_nodes: BTreeMap::new(),
            hook_memory: HookMemory::default(),
            ledger: Ledger::new(),
            slices: BTreeMap::new(),
            located: BTreeMap::new(),
            hooks: BTreeMap::new(),
            tables: BTreeMap::new(),
        }
    }

    pub(crate) fn compute(core: &Core) -> Result<(Self, Numbers), Refusal> {
        let network = &core.network;
        let mut numbers = core.numbers.clone();
        let links = network.link_states();
        let (snapshot, forwarding) = forwarding(core, &links);
        let mut derived = Self {
            attachments: attachments(core, &snapshot),
            hook_nodes: hook_nodes(core, &snapshot),
            hook_memory: hook_memory(core, &snapshot),
            located: located(core),
            links,
            snapshot,
            forwarding,
            ..Self::empty(&network.topology)
        };
        derived.admit(core, &mut numbers)?;
        let mut tables: BTreeMap<NodeName, Table> = BTreeMap::new();
        fabric::fabric(
            network,
            &derived.links,
            &derived.snapshot,
            &derived.forwarding,
            &mut numbers,
            &mut tables,
        )?;
        desired::slices(core, &mut derived, &mut numbers, &mut tables)?;
        rules::rules(&core.intent, &network.topology, &derived.located, &mut numbers, &mut tables)?;
        // A table can be wanted of a switch that is known only.
        tables.retain(|name, _| network.switches.get(name).is_some_and(|switch| switch.known));
        derived.tables = tables.into_iter().map(|(name, table)| (name, Arc::new(table))).collect();
        Ok((derived, numbers))
    }

    /// What admission is told.
    pub(crate) fn placement(&self) -> Placement<'_> {
        Placement {
            snapshot: &self.snapshot,
            forwarding: &self.forwarding,
            endpoints: &self.attachments,
            hooks: &self.hook_nodes,
            memory: &self.hook_memory,
        }
    }

    fn admit(&mut self, core: &Core, numbers: &mut Numbers) -> Result<(), Refusal> {
        let order = in_order(core);
        let (ledger, unplaced) = Ledger::rebuilt(&self.placement(), order);
        self.ledger = ledger;
        for name in core.intent.slices.keys() {
            numbers.slice(name.as_str())?;
            let waived =
                self.ledger.get(name.as_str()).and_then(|admitted| admitted.waived.as_ref());
            let why = unplaced.get(name).or(waived);
            let reasons = why.map(ToString::to_string).into_iter().collect();
            let placed = !unplaced.contains_key(name);
            self.slices.insert(name.to_string(), SliceState { reasons, placed });
        }
        Ok(())
    }
}

/// Slices in the order in which they were promised: who came first keeps what it has.
fn in_order(core: &Core) -> Vec<&NetworkSlice> {
    let mut slices: Vec<_> = core.intent.slices.values().collect();
    slices.sort_by_key(|stored| (stored.meta.revision, stored.object.name.clone()));
    slices.into_iter().map(|stored| &stored.object).collect()
}

/// Would every slice be kept, or at least not for another reason, once all switches have
/// joined? Answers why not, by slice: for changes made before the network is up.
pub(crate) fn unfit_when_joined(core: &Core) -> BTreeMap<String, String> {
    let links = core.network.link_states();
    let waits = |state: &LinkState| matches!(state, LinkState::Unusable(Reason::NotJoined(_)));
    let down =
        links.iter().filter(|(_, state)| matches!(state, LinkState::Unusable(_)) && !waits(state));
    let down: Vec<LinkIx> = down.map(|(ix, _)| *ix).collect();
    let snapshot = Snapshot::new(core.network.topology.clone(), 0).with_down(0, down);
    let mut derived = Derived::empty(&core.network.topology);
    derived.forwarding = Arc::new(Forwarding::new(&snapshot));
    derived.attachments = attachments(core, &snapshot);
    derived.hook_nodes = hook_nodes(core, &snapshot);
    derived.hook_memory = hook_memory(core, &snapshot);
    derived.snapshot = Arc::new(snapshot);
    let (ledger, unplaced) = Ledger::rebuilt(&derived.placement(), in_order(core));
    let why = |name: &ObjectName| {
        let waived = || ledger.get(name.as_str()).and_then(|admitted| admitted.waived.as_ref());
        let reason = unplaced.get(name).or_else(waived)?;
        Some((name.to_string(), reason.to_string()))
    };
    core.intent.slices.keys().filter_map(why).collect()
}

/// The network that is left, and its trees: those of before if the same links are left.
fn forwarding(
    core: &Core,
    links: &BTreeMap<LinkIx, LinkState>,
) -> (Arc<Snapshot>, Arc<Forwarding>) {
    let unusable = links.iter().filter(|(_, state)| matches!(state, LinkState::Unusable(_)));
    let down: std::collections::BTreeSet<LinkIx> = unusable.map(|(ix, _)| *ix).collect();
    let before = &core.derived;
    if *before.snapshot.down() == down {
        return (before.snapshot.clone(), before.forwarding.clone());
    }
    let version = before.snapshot.version() + 1;
    let snapshot = before.snapshot.with_down(version, down);
    let forwarding = Arc::new(Forwarding::new(&snapshot));
    (Arc::new(snapshot), forwarding)
}

fn attachments(core: &Core, snapshot: &Snapshot) -> BTreeMap<NodeName, Attachment> {
    let topology = &core.network.topology;
    let attachment = |host: &NodeName| {
        let (node, port) = core.endpoints.place(&core.network, host)?;
        let switch = snapshot.node(node.as_str())?;
        let home = core.network.home(host);
        let here = home.filter(|(_, end)| end.node == node && end.port.as_str() == port);
        Some((host.clone(), Attachment { switch, link: here.map(|(link, _)| link) }))
    };
    topology.hosts().filter_map(|(host, _)| attachment(host)).collect()
}

/// Switches with the memory for a hook.
fn hook_nodes(core: &Core, snapshot: &Snapshot) -> BTreeMap<ObjectName, Vec<NodeIx>> {
    let HookMemory { needs, nodes } = hook_memory(core, snapshot);
    let of = |needed: Bytes| nodes.iter().filter(move |(_, has)| **has >= needed);
    let hooks = needs.into_iter();
    hooks.map(|(name, needed)| (name, of(needed).map(|(node, _)| *node).collect())).collect()
}

/// The compute memory of switches, as they report it or as declared until they do, and what
/// hooks need.
fn hook_memory(core: &Core, snapshot: &Snapshot) -> HookMemory {
    let memory = |node: NodeIx| {
        let name = snapshot.name(node);
        let switch = &core.network.switches[name];
        if switch.known {
            return switch.compute.map(|compute| Bytes(compute.memory_bytes));
        }
        let declared = core.network.topology.nodes.get(name)?.as_switch()?;
        declared.compute.as_ref().map(|compute| Bytes(compute.memory_bytes))
    };
    let hooks = core.intent.hooks.iter();
    HookMemory {
        needs: hooks.map(|(name, stored)| (name.clone(), stored.object.memory)).collect(),
        nodes: snapshot.nodes().filter_map(|node| Some((node, memory(node)?))).collect(),
    }
}

fn located(core: &Core) -> BTreeMap<NodeName, Located> {
    let network: &Network = &core.network;
    let hosts = network.topology.hosts();
    let locate = |(host, declared)| {
        Some((NodeName::clone(host), core.endpoints.locate(network, host, declared)?))
    };
    hosts.filter_map(locate).collect()
}
