//! A network made of nothing but tables: switches, the hosts behind them, what joins them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use selvedge_core::{HookLoad, HookState, HookStatus, Port, Report};
use selvedge_pipeline::{Entry, HookId, Key, PortId};
use selvedge_topology::{End, Node, NodeName, Topology};

/// A switch as it is: whatever the controller thinks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Switch {
    pub(crate) ports: BTreeMap<PortId, Port>,
    pub(crate) entries: BTreeMap<Key, Entry>,
    pub(crate) hooks: BTreeMap<HookId, HookLoad>,
    pub(crate) joined: bool,
}

#[derive(Clone)]
pub(crate) struct Net {
    pub(crate) topology: Topology,
    pub(crate) switches: BTreeMap<NodeName, Switch>,
    /// MAC addresses of hosts.
    pub(crate) macs: BTreeMap<NodeName, [u8; 6]>,
    /// Where hosts really are.
    pub(crate) places: BTreeMap<NodeName, End>,
}

impl Net {
    pub(crate) fn new(topology: Topology) -> Self {
        let mut switches: BTreeMap<NodeName, Switch> = BTreeMap::new();
        let mut macs = BTreeMap::new();
        let mut places = BTreeMap::new();
        for (ix, (node, _)) in topology.hosts().enumerate() {
            macs.insert(node.clone(), [2, 0xff, 0, 0, (ix >> 8) as u8, ix as u8]);
            if let Some((_, _, end)) = topology.attachment(node) {
                places.insert(node.clone(), end.clone());
            }
        }
        for (ix, (node, _)) in topology.switches().enumerate() {
            let switch = switches.entry(node.clone()).or_default();
            let ends = topology.links.iter().filter_map(|link| Some(link.seen_from(node)?.0));
            let names: BTreeSet<String> = ends.map(|end| end.port.to_string()).collect();
            for (number, name) in (1..).zip(names) {
                let mac = [2, 0, (ix >> 8) as u8, ix as u8, 0, number as u8];
                let port = Port { id: PortId(number), name, mac, up: true };
                switch.ports.insert(port.id, port);
            }
        }
        Self { topology, switches, macs, places }
    }

    pub(crate) fn report(&self, switch: &NodeName) -> Report {
        let real = &self.switches[switch];
        let compute = match &self.topology.nodes[switch] {
            Node::Switch(switch) => switch.compute.as_ref(),
            Node::Host(_) => None,
        };
        let status = |load: &HookLoad| HookStatus {
            state: HookState::Running,
            reason: String::new(),
            sha256: load.sha256.clone(),
        };
        Report {
            version: "test".into(),
            ports: real.ports.values().cloned().collect(),
            compute: compute.map(|compute| selvedge_core::Compute {
                cpu: compute.cpu,
                memory_bytes: compute.memory_bytes,
            }),
            neighbors: Vec::new(),
            hooks: real.hooks.iter().map(|(hook, load)| (*hook, status(load))).collect(),
        }
    }

    pub(crate) fn addresses(&self, host: &NodeName) -> Vec<IpAddr> {
        let host = self.topology.nodes[host].as_host().expect("a host");
        let v4 = host.ipv4.map(|net| IpAddr::V4(net.addr()));
        v4.into_iter().chain(host.ipv6.map(|net| IpAddr::V6(net.addr()))).collect()
    }
}
