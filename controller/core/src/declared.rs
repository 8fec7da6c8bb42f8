//! What the topology says, by what is asked for. Does not change while a core lives.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use selvedge_pipeline::prefix;
use selvedge_topology::{LinkIx, NodeName, PortName, Shaped, Topology};

use crate::attach::prefixes;
use crate::network::Use;

#[derive(Debug, Default)]
pub(crate) struct Declared {
    /// By switch, then by port.
    uses: BTreeMap<NodeName, BTreeMap<PortName, Use>>,
    /// The link that each host hangs on.
    homes: BTreeMap<NodeName, LinkIx>,
    /// Hosts that hang on each switch, in the order of names.
    guests: BTreeMap<NodeName, BTreeSet<NodeName>>,
    /// Hosts by their addresses: bits and length. No two overlap.
    owners: BTreeMap<(u128, u8), NodeName>,
    /// Lengths in `owners`, longest first.
    lengths: BTreeSet<Reverse<u8>>,
    /// Links between switches.
    fabric: Vec<LinkIx>,
    /// Links that shape classes.
    shaped: Vec<LinkIx>,
    /// Those of each switch.
    links: BTreeMap<NodeName, Vec<LinkIx>>,
}

impl Declared {
    pub(crate) fn new(topology: &Topology) -> Self {
        let mut all = Self::default();
        let is_switch = |name| topology.nodes.get(name).is_some_and(|n| n.as_switch().is_some());
        let is_host = |name| topology.nodes.get(name).is_some_and(|n| n.as_host().is_some());
        for (index, link) in (0..).zip(&topology.links) {
            let index = LinkIx(index);
            let fabric = is_switch(&link.a.node) && is_switch(&link.b.node);
            all.fabric.extend(Some(index).filter(|_| fabric));
            all.shaped.extend(Some(index).filter(|_| link.shaped != Shaped::NONE));
            for (near, far) in [(&link.a, &link.b), (&link.b, &link.a)] {
                if is_host(&near.node) {
                    let first = *all.homes.entry(near.node.clone()).or_insert(index) == index;
                    if first && is_switch(&far.node) {
                        let guests = all.guests.entry(far.node.clone()).or_default();
                        guests.insert(near.node.clone());
                    }
                } else if is_switch(&near.node) {
                    let used = if fabric { Use::Fabric(index) } else { Use::Host(index) };
                    let uses = all.uses.entry(near.node.clone()).or_default();
                    uses.insert(near.port.clone(), used);
                    if fabric {
                        all.links.entry(near.node.clone()).or_default().push(index);
                    }
                }
            }
        }
        for (name, host) in topology.hosts() {
            for net in prefixes(host) {
                let (bits, len) = prefix::prefix_bits(net);
                all.owners.insert((bits, len), name.clone());
                all.lengths.insert(Reverse(len));
            }
        }
        all
    }

    pub(crate) fn port_use(&self, switch: &NodeName, port: &str) -> Option<Use> {
        self.uses.get(switch)?.get(port).copied()
    }

    pub(crate) fn home(&self, host: &NodeName) -> Option<LinkIx> {
        self.homes.get(host).copied()
    }

    /// Hosts that hang on a switch, in the order of names.
    pub(crate) fn guests(&self, switch: &NodeName) -> impl Iterator<Item = &NodeName> {
        self.guests.get(switch).into_iter().flatten()
    }

    /// Who has an address.
    pub(crate) fn owner(&self, address: IpAddr) -> Option<&NodeName> {
        let bits = prefix::address_bits(address);
        self.lengths
            .iter()
            .find_map(|Reverse(len)| self.owners.get(&(bits & prefix::mask(*len), *len)))
    }

    /// Links between switches, in rising order.
    pub(crate) fn fabric(&self) -> &[LinkIx] {
        &self.fabric
    }

    /// Links that shape classes, in rising order.
    pub(crate) fn shaped(&self) -> &[LinkIx] {
        &self.shaped
    }

    /// Links from a switch to others, in rising order.
    pub(crate) fn links(&self, switch: &NodeName) -> &[LinkIx] {
        self.links.get(switch).map(Vec::as_slice).unwrap_or_default()
    }
}
