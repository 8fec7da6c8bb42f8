//! The truth that entries are checked against.
//!
//! Nodes are dense indices, `0..world.nodes.len()`, in the order of names.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use selvedge_pipeline::{Class, ClassifierAction, Direction, HookId, PortId, SliceId};
use selvedge_topology::NodeName;

#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    /// Every declared switch.
    pub(crate) nodes: Vec<NodeName>,
    /// Switches that cannot be written now: what they do wrong cannot be helped.
    pub(crate) stuck: BTreeSet<usize>,
    /// Usable links, from either end.
    pub(crate) wires: BTreeMap<(usize, PortId), Wire>,
    pub(crate) hooks: BTreeMap<(usize, HookId), HookAt>,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) slices: BTreeMap<SliceId, Slice>,
    /// Active traffic rules.
    pub(crate) rules: Vec<Rule>,
}

/// Where a packet arrives that is sent on a port.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wire {
    pub(crate) node: usize,
    pub(crate) port: PortId,
    /// Of the port that it arrives at.
    pub(crate) mac: [u8; 6],
    /// What guarantees may take, bits per second.
    pub(crate) reservable_bps: Option<u64>,
}

/// A hook that a switch should run, by its number there.
#[derive(Clone, Debug)]
pub(crate) struct HookAt {
    pub(crate) slice: SliceId,
    pub(crate) name: String,
    pub(crate) running: bool,
    /// Whether packets of a direction go through it; index: downlink, uplink.
    pub(crate) directions: [bool; 2],
}

#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) name: NodeName,
    pub(crate) prefixes: Vec<IpNet>,
    pub(crate) mac: [u8; 6],
    pub(crate) node: usize,
    pub(crate) port: PortId,
    pub(crate) direction: Direction,
    /// Every slice it is in.
    pub(crate) slices: BTreeSet<SliceId>,
}

#[derive(Clone, Debug)]
pub(crate) struct Slice {
    pub(crate) name: String,
    /// Higher wins where two endpoints share several.
    pub(crate) priority: u8,
    pub(crate) class: Class,
    /// It has endpoints on both sides: each side talks with the other only.
    pub(crate) two_sided: bool,
    /// Totals, bits per second; index: downlink, uplink.
    pub(crate) guaranteed_bps: [u64; 2],
    /// In the order that packets of either direction meet them; whether each may be missed.
    pub(crate) hooks: Vec<(String, bool)>,
    /// There is a place for all of it; else what cannot go through its hooks need not go.
    pub(crate) placed: bool,
    /// It fits: what it promises must be carried out.
    pub(crate) kept: bool,
}

/// One filter of an active traffic rule: packets that match one of each list that is not empty.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) sources: Vec<IpNet>,
    pub(crate) destinations: Vec<IpNet>,
    pub(crate) protocols: Vec<u8>,
    pub(crate) source_ports: Vec<u16>,
    pub(crate) destination_ports: Vec<u16>,
    pub(crate) dscps: Vec<u8>,
    pub(crate) action: Option<ClassifierAction>,
}

impl World {
    pub(crate) fn name(&self, node: usize) -> &NodeName {
        &self.nodes[node]
    }

    /// The slice that traffic between two endpoints takes: of those in which they talk the one
    /// of the highest priority, then of the first name.
    pub(crate) fn shared(&self, a: &Endpoint, b: &Endpoint) -> Option<SliceId> {
        let mut best: Option<(SliceId, &Slice)> = None;
        for id in a.slices.intersection(&b.slices) {
            let Some(slice) = self.slices.get(id) else { continue };
            if slice.two_sided && a.direction == b.direction {
                continue;
            }
            let better = best.is_none_or(|(_, best)| {
                slice.priority > best.priority
                    || (slice.priority == best.priority && slice.name < best.name)
            });
            if better {
                best = Some((*id, slice));
            }
        }
        best.map(|(id, _)| id)
    }

    /// Which part of the network each node is in: equal numbers can reach each other.
    pub(crate) fn parts(&self) -> Vec<usize> {
        let mut part: Vec<usize> = (0..self.nodes.len()).collect();
        // Links are two-way, so the smallest number spreads until nothing changes.
        let mut changed = true;
        while changed {
            changed = false;
            for (&(from, _), wire) in &self.wires {
                let least = part[from].min(part[wire.node]);
                if part[from] != least || part[wire.node] != least {
                    (part[from], part[wire.node]) = (least, least);
                    changed = true;
                }
            }
        }
        part
    }
}
