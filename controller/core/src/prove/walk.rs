//! One packet over the entries, in the pipeline's order.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use selvedge_pipeline::{
    DeliveryEntry, EndpointEntry, Entry, FUNCTION_UDT46, HookId, Key, LocalSidAction, NodeSid,
    PolicyId, PortId, PortKind, RouteAction, SliceId, SliceRouteEntry, SliceSet,
};

use super::world::{Endpoint, World};
use selvedge_topology::NodeName;

use crate::plan::Table;

/// Rounds of the local-id loop in one switch.
const ROUNDS: usize = 4;
/// Ids of 16 bits after the block in an outer destination.
const IDS: usize = 6;
const HOP_LIMIT: usize = 64;

/// The tables of one state, with what look-ups need.
pub(crate) struct State<'a> {
    pub(crate) world: &'a World,
    /// By node; `None`: not known.
    pub(crate) tables: Vec<Option<Indexed<'a>>>,
    carried: BTreeMap<(usize, PolicyId), Carried>,
}

pub(crate) struct Indexed<'a> {
    pub(crate) table: &'a Table,
    /// Prefix lengths in use, longest first: endpoint, route, delivery; each for v4 and v6.
    lengths: [[Vec<u8>; 2]; 3],
}

/// What became of a packet that a policy sent off.
#[derive(Clone, Debug)]
pub(crate) struct Carried {
    /// The ingress first.
    pub(crate) nodes: Vec<usize>,
    /// Arcs walked: node and the port it was left by.
    pub(crate) arcs: Vec<(usize, PortId)>,
    /// Compute functions on the way, in order.
    pub(crate) hooks: Vec<(usize, HookId)>,
    pub(crate) end: End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Stripped of its outer header at the last node.
    Decapsulated,
    /// At a switch whose entries are not known.
    Unknown,
    Loop,
    Lost(String),
}

/// What became of a packet from one endpoint to an address.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    pub(crate) slice: Option<SliceId>,
    /// Of the route that was taken.
    pub(crate) route: Option<IpNet>,
    pub(crate) nodes: Vec<usize>,
    pub(crate) hooks: Vec<(usize, HookId)>,
    pub(crate) policy: Option<PolicyId>,
    pub(crate) fate: Fate,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Sent out of this port with this destination MAC.
    Delivered {
        port: PortId,
        mac: [u8; 6],
    },
    Unknown,
    Loop,
    Lost(String),
}

#[derive(Clone, Copy)]
enum Match {
    Endpoint(PortId),
    Route(SliceSet),
    Delivery(SliceId),
}

impl<'a> Indexed<'a> {
    fn new(table: &'a Table) -> Self {
        let mut sets: [[BTreeSet<u8>; 2]; 3] = Default::default();
        for key in table.keys() {
            let (which, prefix) = match key {
                Key::Endpoint(_, prefix) => (0, prefix),
                Key::SliceRoute(_, prefix) => (1, prefix),
                Key::Delivery(_, prefix) => (2, prefix),
                _ => continue,
            };
            let family = usize::from(prefix.addr().is_ipv6());
            sets[which][family].insert(prefix.prefix_len());
        }
        let lengths = sets.map(|families| families.map(|set| set.into_iter().rev().collect()));
        Self { table, lengths }
    }

    fn longest(&self, what: Match, address: IpAddr) -> Option<&'a Entry> {
        let which = match what {
            Match::Endpoint(_) => 0,
            Match::Route(_) => 1,
            Match::Delivery(_) => 2,
        };
        let lengths: &Vec<u8> = &self.lengths[which][usize::from(address.is_ipv6())];
        lengths.iter().find_map(|length| {
            let prefix = IpNet::new(address, *length).ok()?.trunc();
            let key = match what {
                Match::Endpoint(port) => Key::Endpoint(port, prefix),
                Match::Route(set) => Key::SliceRoute(set, prefix),
                Match::Delivery(slice) => Key::Delivery(slice, prefix),
            };
            self.table.get(&key)
        })
    }

    fn endpoint(&self, port: PortId, source: IpAddr) -> Option<&'a EndpointEntry> {
        match self.longest(Match::Endpoint(port), source)? {
            Entry::Endpoint(entry) => Some(entry),
            _ => None,
        }
    }

    fn route(&self, set: SliceSet, destination: IpAddr) -> Option<&'a SliceRouteEntry> {
        match self.longest(Match::Route(set), destination)? {
            Entry::SliceRoute(entry) => Some(entry),
            _ => None,
        }
    }

    fn delivery(&self, slice: SliceId, destination: IpAddr) -> Option<&'a DeliveryEntry> {
        match self.longest(Match::Delivery(slice), destination)? {
            Entry::Delivery(entry) => Some(entry),
            _ => None,
        }
    }

    fn port_kind(&self, port: PortId) -> Option<PortKind> {
        match self.table.get(&Key::Port(port))? {
            Entry::Port(entry) => Some(entry.kind),
            _ => None,
        }
    }
}

impl<'a> State<'a> {
    pub(crate) fn new(world: &'a World, tables: &'a BTreeMap<NodeName, Arc<Table>>) -> Self {
        let tables = world
            .nodes
            .iter()
            .map(|name| tables.get(name).map(|table| Indexed::new(table)))
            .collect();
        Self { world, tables, carried: BTreeMap::new() }
    }

    /// A packet from `from`, sent with an address of its own, to an address.
    pub(crate) fn walk(&mut self, from: &Endpoint, source: IpAddr, destination: IpAddr) -> Walk {
        let ingress = from.node;
        let mut walk = Walk {
            slice: None,
            route: None,
            nodes: vec![ingress],
            hooks: Vec::new(),
            policy: None,
            fate: Fate::Unknown,
        };
        let Some(table) = &self.tables[ingress] else { return walk };
        let lost = |mut walk: Walk, why: String| {
            walk.fate = Fate::Lost(why);
            walk
        };
        if table.port_kind(from.port) != Some(PortKind::Access) {
            return lost(walk, format!("port {} is no access port", from.port.0));
        }
        let Some(bound) = table.endpoint(from.port, source) else {
            return lost(walk, format!("{source} is not bound to port {}", from.port.0));
        };
        let Some(route) = table.route(bound.slice_set, destination) else {
            let set = bound.slice_set.0;
            return lost(walk, format!("slice set {set} has no route to {destination}"));
        };
        (walk.slice, walk.route) = (Some(route.slice), Some(route.prefix));
        if let RouteAction::Policy(policy) = route.action {
            walk.policy = Some(policy);
            let carried = self.carried(ingress, policy);
            walk.nodes = carried.nodes.clone();
            walk.hooks = carried.hooks.clone();
            match &carried.end {
                End::Decapsulated => {}
                End::Unknown => return walk,
                End::Loop => {
                    walk.fate = Fate::Loop;
                    return walk;
                }
                End::Lost(why) => {
                    let why = why.clone();
                    return lost(walk, why);
                }
            }
        }
        let egress = *walk.nodes.last().expect("a walk has an ingress");
        let Some(table) = &self.tables[egress] else { return walk };
        let Some(delivery) = table.delivery(route.slice, destination) else {
            return lost(walk, format!("no delivery for {destination} in slice {}", route.slice.0));
        };
        if table.port_kind(delivery.port) != Some(PortKind::Access) {
            return lost(walk, format!("delivery to port {}, no access port", delivery.port.0));
        }
        walk.fate = Fate::Delivered { port: delivery.port, mac: delivery.mac };
        walk
    }

    /// What becomes of packets that `policy` sends off at `ingress`.
    pub(crate) fn carried(&mut self, ingress: usize, policy: PolicyId) -> &Carried {
        if !self.carried.contains_key(&(ingress, policy)) {
            let carried = self.carry(ingress, policy);
            self.carried.insert((ingress, policy), carried);
        }
        &self.carried[&(ingress, policy)]
    }

    fn carry(&self, ingress: usize, policy: PolicyId) -> Carried {
        let mut carried = Carried {
            nodes: vec![ingress],
            arcs: Vec::new(),
            hooks: Vec::new(),
            end: End::Unknown,
        };
        let Some(table) = &self.tables[ingress] else { return carried };
        let mut ids: [u16; IDS] = match table.table.get(&Key::Policy(policy)) {
            Some(Entry::Policy(entry)) if entry.sids.len() <= IDS => {
                let mut ids = [0; IDS];
                ids[..entry.sids.len()].copy_from_slice(&entry.sids);
                ids
            }
            Some(_) => {
                carried.end = End::Lost(format!("policy {} has more ids than fit", policy.0));
                return carried;
            }
            None => {
                carried.end = End::Lost(format!("there is no policy {}", policy.0));
                return carried;
            }
        };
        let mut at = ingress;
        let mut seen = BTreeSet::new();
        carried.end = loop {
            if !seen.insert((at, ids)) || seen.len() > HOP_LIMIT {
                break End::Loop;
            }
            let Some(table) = &self.tables[at] else { break End::Unknown };
            match self.segment(at, table, &mut ids, &mut carried.hooks) {
                Local::Decapsulate => break End::Decapsulated,
                Local::Lost(why) => break End::Lost(why),
                Local::Forward { port, mac } => {
                    carried.arcs.push((at, port));
                    let Some(wire) = self.world.wires.get(&(at, port)) else {
                        break End::Lost(format!("port {} leads over no usable link", port.0));
                    };
                    if wire.mac != mac {
                        break End::Lost(format!(
                            "the next hop by port {} has another MAC address than {}",
                            port.0,
                            self.world.name(wire.node)
                        ));
                    }
                    if table.port_kind(port).is_none() {
                        break End::Lost(format!("port {} has no entry", port.0));
                    }
                    at = wire.node;
                    carried.nodes.push(at);
                    let known = self.tables[at].as_ref();
                    if known.is_some_and(|t| t.port_kind(wire.port) != Some(PortKind::Fabric)) {
                        let name = self.world.name(at);
                        break End::Lost(format!(
                            "port {} of {name} is no fabric port",
                            wire.port.0
                        ));
                    }
                }
            }
        };
        carried
    }

    /// Step C.3 of the pipeline in one switch.
    fn segment(
        &self,
        at: usize,
        table: &Indexed<'_>,
        ids: &mut [u16; IDS],
        hooks: &mut Vec<(usize, HookId)>,
    ) -> Local {
        for _ in 0..ROUNDS {
            let active = ids[0];
            let shift = |ids: &mut [u16; IDS]| {
                ids.rotate_left(1);
                ids[IDS - 1] = 0;
            };
            match table.table.get(&Key::LocalSid(active)) {
                Some(Entry::LocalSid(entry)) => match entry.action {
                    LocalSidAction::Node => shift(ids),
                    LocalSidAction::Decapsulate => return Local::Decapsulate,
                    LocalSidAction::Compute { hook, .. } => {
                        hooks.push((at, hook));
                        shift(ids);
                    }
                },
                _ if active == 0 || active >= 0xE000 => {
                    let what = if active == FUNCTION_UDT46 { "uDT46" } else { "the function" };
                    return Local::Lost(format!("id {active:#06x} ({what}) is not known here"));
                }
                _ => {
                    return match table.table.get(&Key::NextHop(NodeSid(active))) {
                        Some(Entry::NextHop(hop)) => {
                            Local::Forward { port: hop.port, mac: hop.mac }
                        }
                        _ => Local::Lost(format!("there is no next hop towards node {active}")),
                    };
                }
            }
        }
        Local::Lost(String::from("more local ids follow each other than one switch handles"))
    }
}

enum Local {
    Decapsulate,
    Forward { port: PortId, mac: [u8; 6] },
    Lost(String),
}
