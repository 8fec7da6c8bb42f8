//! What switches report, laid over what the topology declares.
//!
//! A switch keeps what it last reported when its session ends: its programs go on forwarding,
//! and if it is dead its neighbors report lost carriers. So an agent's death re-routes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use selvedge_pipeline::{Entry, HookId, PortId};
use selvedge_topology::{End, Link, LinkIx, NodeName, PortName, Topology};

use crate::event::{Compute, HookStatus, Neighbor, Port, Report};
use crate::order::Wiring;

/// Ports of one switch, as the pipeline counts them.
const MAX_PORT: u16 = 255;

/// What is known of one declared switch.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Switch {
    /// It has a session now.
    pub(crate) joined: bool,
    /// It had one at some time.
    pub(crate) known: bool,
    pub(crate) version: String,
    pub(crate) compute: Option<Compute>,
    pub(crate) ports: BTreeMap<PortId, Port>,
    pub(crate) neighbors: BTreeMap<PortId, Neighbor>,
    pub(crate) hooks: BTreeMap<HookId, HookStatus>,
}

impl Switch {
    pub(crate) fn port_named(&self, name: &str) -> Option<&Port> {
        self.ports.values().find(|port| port.name == name)
    }

    pub(crate) fn join(&mut self, report: Report) {
        self.joined = true;
        self.known = true;
        self.version = report.version;
        self.compute = report.compute;
        self.ports.clear();
        for port in report.ports {
            self.set_port(port);
        }
        self.neighbors = report.neighbors.into_iter().collect();
        self.hooks = report.hooks.into_iter().collect();
    }

    /// False: the port is none of ours (compute ports, management) or its number is out of
    /// range, and it is not taken.
    pub(crate) fn set_port(&mut self, port: Port) -> bool {
        let sound = (1..=MAX_PORT).contains(&port.id.0) && port.name.parse::<PortName>().is_ok();
        if sound {
            // A name is at one port: an interface that came back under another number.
            self.ports.retain(|id, known| *id == port.id || known.name != port.name);
            self.ports.insert(port.id, port);
        }
        sound
    }

    pub(crate) fn remove_port(&mut self, port: PortId) {
        self.ports.remove(&port);
        self.neighbors.remove(&port);
    }
}

/// A declared link between two switches, as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LinkState {
    Usable { a: Attached, b: Attached },
    Unusable(Reason),
}

/// A port of a declared link, found on its switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    pub(crate) port: PortId,
    pub(crate) mac: [u8; 6],
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Reason {
    #[error("switch {0} has not joined")]
    NotJoined(NodeName),
    #[error("{0} is not there")]
    NoPort(End),
    #[error("{0} has no carrier")]
    Down(End),
    #[error("{end} should be cabled to {declared}, but sees {}:{}", sees.chassis, sees.port)]
    Miscabled { end: End, declared: End, sees: Neighbor },
}

/// What a port of a switch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// In a declared link to another switch.
    Fabric(LinkIx),
    /// In a declared link to a host.
    Host(LinkIx),
}

#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) topology: Arc<Topology>,
    /// Every declared switch.
    pub(crate) switches: BTreeMap<NodeName, Switch>,
    uses: Arc<BTreeMap<End, Use>>,
    /// The link that each host is declared to hang on.
    homes: Arc<BTreeMap<NodeName, LinkIx>>,
}

impl Network {
    pub(crate) fn new(topology: Arc<Topology>) -> Self {
        let switches =
            topology.switches().map(|(name, _)| (name.clone(), Switch::default())).collect();
        let is_switch =
            |end: &End| topology.nodes.get(&end.node).is_some_and(|n| n.as_switch().is_some());
        let mut uses = BTreeMap::new();
        let mut homes = BTreeMap::new();
        for (index, link) in (0..).zip(&topology.links) {
            for end in [&link.a, &link.b] {
                if topology.nodes.get(&end.node).is_some_and(|n| n.as_host().is_some()) {
                    homes.entry(end.node.clone()).or_insert(LinkIx(index));
                }
            }
            let fabric = is_switch(&link.a) && is_switch(&link.b);
            for end in [&link.a, &link.b].into_iter().filter(|end| is_switch(end)) {
                let link = LinkIx(index);
                uses.insert(end.clone(), if fabric { Use::Fabric(link) } else { Use::Host(link) });
            }
        }
        Self { topology, switches, uses: Arc::new(uses), homes: Arc::new(homes) }
    }

    /// What the topology declares a port for; `None`: nothing.
    pub(crate) fn port_use(&self, switch: &NodeName, port: &Port) -> Option<Use> {
        let name = port.name.parse().ok()?;
        self.uses.get(&End { node: switch.clone(), port: name }).copied()
    }

    /// The switch port that a host is declared to hang on, and the link between.
    pub(crate) fn home(&self, host: &NodeName) -> Option<(LinkIx, &End)> {
        let ix = *self.homes.get(host)?;
        let (_, far) = self.link(ix).seen_from(host)?;
        Some((ix, far))
    }

    pub(crate) fn link(&self, link: LinkIx) -> &Link {
        &self.topology.links[link.index()]
    }

    /// Declared links between switches, by index.
    pub(crate) fn fabric_links(&self) -> impl Iterator<Item = (LinkIx, &Link)> {
        (0..).map(LinkIx).zip(&self.topology.links).filter(|(_, link)| {
            self.switches.contains_key(&link.a.node) && self.switches.contains_key(&link.b.node)
        })
    }

    /// The state of every declared link between switches.
    pub(crate) fn link_states(&self) -> BTreeMap<LinkIx, LinkState> {
        let state = |link: &Link| match (self.end(&link.a, &link.b), self.end(&link.b, &link.a)) {
            (Ok(a), Ok(b)) => LinkState::Usable { a, b },
            (Err(reason), _) | (_, Err(reason)) => LinkState::Unusable(reason),
        };
        self.fabric_links().map(|(ix, link)| (ix, state(link))).collect()
    }

    fn end(&self, end: &End, other: &End) -> Result<Attached, Reason> {
        let switch = &self.switches[&end.node];
        if !switch.known {
            return Err(Reason::NotJoined(end.node.clone()));
        }
        let Some(port) = switch.port_named(end.port.as_str()) else {
            return Err(Reason::NoPort(end.clone()));
        };
        if !port.up {
            return Err(Reason::Down(end.clone()));
        }
        match switch.neighbors.get(&port.id) {
            Some(sees)
                if sees.chassis != other.node.as_str() || sees.port != other.port.as_str() =>
            {
                let (end, declared, sees) = (end.clone(), other.clone(), sees.clone());
                Err(Reason::Miscabled { end, declared, sees })
            }
            _ => Ok(Attached { port: port.id, mac: port.mac }),
        }
    }
}

impl Wiring for Network {
    fn leads_to(&self, switch: &NodeName, hop: &Entry) -> Option<NodeName> {
        let Entry::NextHop(hop) = hop else { return None };
        let port = self.switches.get(switch)?.ports.get(&hop.port)?;
        let Use::Fabric(link) = self.port_use(switch, port)? else { return None };
        let link = self.link(link);
        // What is sent over a link that is down is lost, and goes round nowhere.
        self.end(&link.a, &link.b).and(self.end(&link.b, &link.a)).ok()?;
        Some(far_end(link, switch))
    }

    fn neighbors(&self, switch: &NodeName) -> Vec<NodeName> {
        let links = self.fabric_links().map(|(_, link)| link);
        let own = links.filter(|link| link.a.node == *switch || link.b.node == *switch);
        own.map(|link| far_end(link, switch)).collect()
    }
}

fn far_end(link: &Link, near: &NodeName) -> NodeName {
    if link.a.node == *near { link.b.node.clone() } else { link.a.node.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(text: &str) -> End {
        let (node, port) = text.split_once(':').unwrap();
        End { node: node.parse().unwrap(), port: port.parse().unwrap() }
    }

    fn port(id: u16, name: &str, up: bool) -> Port {
        Port { id: PortId(id), name: name.into(), mac: [2, 0, 0, 0, 0, 1], up }
    }

    fn two() -> Network {
        let switch = selvedge_topology::Node::Switch(selvedge_topology::Switch::default());
        let nodes = ["s1", "s2"].map(|name| (name.parse().unwrap(), switch.clone()));
        let links = vec![Link::new(end("s1:p1"), end("s2:p9"))];
        let topology = Topology { name: "t".parse().unwrap(), nodes: nodes.into(), links };
        Network::new(Arc::new(topology))
    }

    #[test]
    fn a_link_is_usable_when_both_ends_are() {
        let mut network = two();
        let (s1, s2): (NodeName, NodeName) = ("s1".parse().unwrap(), "s2".parse().unwrap());
        let reason = |network: &Network| match &network.link_states()[&LinkIx(0)] {
            LinkState::Usable { .. } => String::new(),
            LinkState::Unusable(reason) => reason.to_string(),
        };
        assert_eq!(reason(&network), "switch s1 has not joined");
        network.switches.get_mut(&s1).unwrap().join(Report::default());
        assert_eq!(reason(&network), "s1:p1 is not there");
        network.switches.get_mut(&s1).unwrap().set_port(port(1, "p1", false));
        assert_eq!(reason(&network), "s1:p1 has no carrier");
        network.switches.get_mut(&s1).unwrap().set_port(port(1, "p1", true));
        assert_eq!(reason(&network), "switch s2 has not joined");
        let ports = vec![port(7, "p9", true)];
        network.switches.get_mut(&s2).unwrap().join(Report { ports, ..Report::default() });
        assert_eq!(reason(&network), "");
        let neighbor =
            |chassis: &str, port: &str| Neighbor { chassis: chassis.into(), port: port.into() };
        let neighbors = &mut network.switches.get_mut(&s2).unwrap().neighbors;
        neighbors.insert(PortId(7), neighbor("s1", "p1"));
        assert_eq!(reason(&network), "");
        let neighbors = &mut network.switches.get_mut(&s2).unwrap().neighbors;
        neighbors.insert(PortId(7), neighbor("s3", "p1"));
        assert_eq!(reason(&network), "s2:p9 should be cabled to s1:p1, but sees s3:p1");
        network.switches.get_mut(&s2).unwrap().remove_port(PortId(7));
        network.switches.get_mut(&s2).unwrap().set_port(port(8, "p9", true));
        assert_eq!(reason(&network), "", "the neighbor went with the port");
        network.switches.get_mut(&s1).unwrap().joined = false;
        assert_eq!(reason(&network), "", "a lost session changes nothing");
    }

    #[test]
    fn foreign_ports_are_not_taken() {
        let mut switch = Switch::default();
        for (id, name, want) in [
            (1, "p1", true),
            (0, "p2", false),
            (256, "p2", false),
            (2, "hk0", false),
            (2, "mgmt0", false),
            (2, "", false),
        ] {
            assert_eq!(switch.set_port(port(id, name, true)), want, "{id} {name:?}");
        }
        assert!(switch.set_port(port(9, "p1", true)));
        assert_eq!(switch.ports.keys().collect::<Vec<_>>(), [&PortId(9)], "p1 moved");
    }
}
