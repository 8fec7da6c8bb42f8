//! Packets through the made-up network, by the pipeline's interpreter: the oracle.

use std::collections::BTreeSet;
use std::net::IpAddr;

use selvedge_pipeline::DropReason;
use selvedge_pipeline::model::{self, Verdict};
use selvedge_topology::{End, NodeName};

use crate::net::Net;

impl Net {
    /// Sends a packet through the pipeline's interpreter, switch by switch.
    pub(crate) fn send(&self, from: &NodeName, to: IpAddr) -> Delivery {
        let end = &self.places[from];
        let source = self.addresses(from).into_iter().find(|own| own.is_ipv4() == to.is_ipv4());
        let source = source.expect("an address of that family");
        let frame = crate::packets::frame(self.macs[from], source, to);
        self.forward(end, frame)
    }

    pub(crate) fn forward(&self, end: &End, mut frame: Vec<u8>) -> Delivery {
        let mut delivery = Delivery { nodes: Vec::new(), hooks: Vec::new(), fate: Fate::Lost };
        let ports = &self.switches[&end.node].ports;
        let port = ports.values().find(|port| port.name == end.port.as_str()).expect("a port");
        let (mut node, mut ingress) = (end.node.clone(), model::Ingress::Port(port.id));
        for _ in 0..200 {
            if delivery.nodes.last() != Some(&node) {
                delivery.nodes.push(node.clone());
            }
            let real = &self.switches[&node];
            let mut switch = model::Switch::new(real.entries.values().cloned());
            for port in real.ports.values() {
                switch.set_port(port.id, model::Port { mac: port.mac, up: true });
                switch.set_down(port.id, !port.up);
            }
            for hook in real.hooks.keys() {
                switch.set_hook(*hook, true);
            }
            match model::process(&switch, ingress, &frame).verdict {
                Verdict::Drop(reason) => {
                    delivery.fate = Fate::Dropped(reason);
                    return delivery;
                }
                Verdict::ToHook { hook, frame: inside } => {
                    delivery.hooks.push(real.hooks[&hook].name.clone());
                    (ingress, frame) = (model::Ingress::Compute(hook), inside);
                }
                Verdict::Out { port, frame: outgoing } => {
                    let port = &real.ports[&port];
                    if !port.up {
                        return delivery;
                    }
                    let out = End { node: node.clone(), port: port.name.parse().expect("a name") };
                    let host = self.places.iter().find(|(_, place)| **place == out);
                    if let Some((host, _)) = host {
                        delivery.fate = Fate::Delivered(host.clone(), outgoing);
                        return delivery;
                    }
                    let link = self.topology.links.iter().find(|l| l.a == out || l.b == out);
                    let Some(link) = link else { return delivery };
                    let far = if link.a == out { &link.b } else { &link.a };
                    let Some(next) = self.switches.get(&far.node) else { return delivery };
                    let mut ports = next.ports.values();
                    let arrives = ports.find(|port| port.name == far.port.as_str());
                    let Some(arrives) = arrives.filter(|port| port.up) else { return delivery };
                    if outgoing[..6] != arrives.mac {
                        return delivery; // another machine's frame
                    }
                    (node, frame) = (far.node.clone(), outgoing);
                    ingress = model::Ingress::Port(arrives.id);
                }
                Verdict::Answer { .. } | Verdict::PassToKernel => return delivery,
            }
        }
        delivery
    }

    /// Whether the packet arrives at the host whose address it is, whole and with its MAC.
    pub(crate) fn reaches(&self, from: &NodeName, to: &NodeName, ipv6: bool) -> bool {
        let Some(address) = self.addresses(to).into_iter().find(|a| a.is_ipv6() == ipv6) else {
            return false;
        };
        if !self.addresses(from).iter().any(|a| a.is_ipv6() == ipv6) {
            return false;
        }
        match self.send(from, address).fate {
            Fate::Delivered(host, frame) => host == *to && frame[..6] == self.macs[to],
            _ => false,
        }
    }

    /// Pairs that do not reach each other, in both families.
    pub(crate) fn unreachable(&self) -> Vec<String> {
        self.pairs(|from, to, ipv6| !self.reaches(from, to, ipv6))
    }

    /// Those between whose switches no links lead that are up.
    pub(crate) fn cut_off(&self) -> Vec<String> {
        let up = |end: &End| {
            let ports = self.switches.get(&end.node).map(|switch| &switch.ports);
            ports.is_some_and(|ports| ports.values().any(|p| p.up && p.name == end.port.as_str()))
        };
        let part = |from: &NodeName| {
            let mut part = BTreeSet::from([self.places[from].node.clone()]);
            for _ in 0..self.switches.len() {
                for link in self.topology.links.iter().filter(|link| up(&link.a) && up(&link.b)) {
                    if part.contains(&link.a.node) || part.contains(&link.b.node) {
                        part.extend([link.a.node.clone(), link.b.node.clone()]);
                    }
                }
            }
            part
        };
        self.pairs(|from, to, _| !part(from).contains(&self.places[to].node))
    }

    fn pairs(&self, which: impl Fn(&NodeName, &NodeName, bool) -> bool) -> Vec<String> {
        let mut pairs = Vec::new();
        for from in self.places.keys() {
            for to in self.places.keys().filter(|to| *to != from) {
                for ipv6 in [false, true] {
                    let has = |host| self.addresses(host).iter().any(|a| a.is_ipv6() == ipv6);
                    if has(from) && has(to) && which(from, to, ipv6) {
                        pairs.push(format!("{from} -> {to} ipv6={ipv6}"));
                    }
                }
            }
        }
        pairs
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) nodes: Vec<NodeName>,
    /// `slice/hook`, in order.
    pub(crate) hooks: Vec<String>,
    pub(crate) fate: Fate,
}

#[derive(Clone, Debug)]
pub(crate) enum Fate {
    Delivered(NodeName, Vec<u8>),
    Dropped(DropReason),
    /// Left by a port that leads nowhere.
    Lost,
}

impl Delivery {
    pub(crate) fn dropped(&self) -> Option<DropReason> {
        match self.fate {
            Fate::Dropped(reason) => Some(reason),
            _ => None,
        }
    }
}
