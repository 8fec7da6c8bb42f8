//! What switches report, laid over what the topology declares.
//!
//! A switch keeps what it last reported when its session ends: its programs go on forwarding,
//! and if it is dead its neighbors report lost carriers. So an agent's death re-routes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use selvedge_pipeline::{HookId, PortId};
use selvedge_topology::sorted::Sorted;
use selvedge_topology::{End, Link, LinkIx, NodeName, PortName, Topology};

use crate::declared::Declared;
use crate::event::{Compute, HookStatus, Neighbor, Port, Report};
use crate::order::Wiring;

/// Ports of one switch, as the pipeline counts them.
const MAX_PORT: u16 = 255;

/// Cheap to clone and to compare.
pub(crate) type Switches = Sorted<NodeName, Arc<Switch>>;

/// What is known of one declared switch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Switch {
    /// It has a session now.
    pub(crate) joined: bool,
    /// It had one at some time.
    pub(crate) known: bool,
    pub(crate) version: String,
    pub(crate) compute: Option<Compute>,
    pub(crate) ports: Arc<BTreeMap<PortId, Port>>,
    /// Of `ports`.
    names: Arc<BTreeMap<String, PortId>>,
    /// Those that have shown who they are.
    pub(crate) neighbors: BTreeMap<PortId, Neighbor>,
    pub(crate) hooks: BTreeMap<HookId, HookStatus>,
}

impl Switch {
    pub(crate) fn port_named(&self, name: &str) -> Option<&Port> {
        self.ports.get(self.names.get(name)?)
    }

    pub(crate) fn join(&mut self, report: Report) {
        self.joined = true;
        self.known = true;
        self.version = report.version;
        self.compute = report.compute;
        (self.ports, self.names) = Default::default();
        for port in report.ports {
            self.set_port(port);
        }
        let authenticated = |(_, neighbor): &(PortId, Neighbor)| neighbor.authenticated;
        self.neighbors = report.neighbors.into_iter().filter(authenticated).collect();
        self.hooks = report.hooks.into_iter().collect();
    }

    /// False: the port is none of ours (compute ports, management) or its number is out of
    /// range, and it is not taken.
    pub(crate) fn set_port(&mut self, port: Port) -> bool {
        let sound = (1..=MAX_PORT).contains(&port.id.0) && port.name.parse::<PortName>().is_ok();
        if sound {
            // A name is at one port: an interface that came back under another number.
            let (ports, names) = (Arc::make_mut(&mut self.ports), Arc::make_mut(&mut self.names));
            let other = names.insert(port.name.clone(), port.id);
            if let Some(other) = other.filter(|other| *other != port.id) {
                ports.remove(&other);
            }
            let (id, name) = (port.id, port.name.clone());
            if let Some(before) = ports.insert(id, port).filter(|before| before.name != name) {
                names.remove(&before.name);
            }
        }
        sound
    }

    /// Whether the other is what a record of this one says.
    pub(crate) fn reported(&self, other: &Self) -> bool {
        (&self.version, self.known, self.compute) == (&other.version, other.known, other.compute)
            && Arc::ptr_eq(&self.ports, &other.ports)
            && self.neighbors == other.neighbors
    }

    pub(crate) fn remove_port(&mut self, port: PortId) {
        if let Some(port) = Arc::make_mut(&mut self.ports).remove(&port) {
            Arc::make_mut(&mut self.names).remove(&port.name);
        }
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
    pub(crate) switches: Switches,
    pub(crate) declared: Arc<Declared>,
}

impl Network {
    pub(crate) fn new(topology: Arc<Topology>) -> Self {
        let switches =
            topology.switches().map(|(name, _)| (name.clone(), Arc::default())).collect();
        let declared = Arc::new(Declared::new(&topology));
        Self { topology, switches, declared }
    }

    /// A switch, to change what is known of it.
    pub(crate) fn switch_mut(&mut self, name: &NodeName) -> Option<&mut Switch> {
        self.switches.get_mut(name).map(Arc::make_mut)
    }

    /// What the topology declares a port for; `None`: nothing.
    pub(crate) fn port_use(&self, switch: &NodeName, port: &Port) -> Option<Use> {
        self.declared.port_use(switch, &port.name)
    }

    /// The switch port that a host is declared to hang on, and the link between.
    pub(crate) fn home(&self, host: &NodeName) -> Option<(LinkIx, &End)> {
        let ix = self.declared.home(host)?;
        let (_, far) = self.link(ix).seen_from(host)?;
        Some((ix, far))
    }

    pub(crate) fn link(&self, link: LinkIx) -> &Link {
        &self.topology.links[link.index()]
    }

    /// The state of every declared link between switches.
    pub(crate) fn link_states(&self) -> BTreeMap<LinkIx, LinkState> {
        self.declared.fabric().iter().map(|ix| (*ix, self.link_state(*ix))).collect()
    }

    pub(crate) fn link_state(&self, link: LinkIx) -> LinkState {
        let link = self.link(link);
        match (self.end(&link.a, &link.b), self.end(&link.b, &link.a)) {
            (Ok(a), Ok(b)) => LinkState::Usable { a, b },
            (Err(reason), _) | (_, Err(reason)) => LinkState::Unusable(reason),
        }
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
    fn ways_out(&self, switch: &NodeName) -> Vec<(PortId, NodeName)> {
        let Some(known) = self.switches.get(switch) else { return Vec::new() };
        let links = self.declared.links(switch).iter().map(|ix| self.link(*ix));
        let ways = links.filter_map(|link| {
            let (near, far) = link.seen_from(switch)?;
            let port = known.port_named(near.port.as_str())?;
            // Whatever is known of the link and of its far end: it may be up again, or its far
            // end not have joined yet, while packets go there. And also to whom it was cabled.
            let sees = known.neighbors.get(&port.id).and_then(|sees| sees.chassis.parse().ok());
            let sees = sees.filter(|node| *node != far.node && self.switches.contains_key(node));
            Some([Some((port.id, far.node.clone())), sees.map(|node| (port.id, node))])
        });
        ways.flatten().flatten().collect()
    }

    fn neighbors(&self, switch: &NodeName) -> Vec<NodeName> {
        let links = self.declared.links(switch).iter().map(|ix| self.link(*ix));
        links.filter_map(|link| Some(link.seen_from(switch)?.1.node.clone())).collect()
    }
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
        network.switch_mut(&s1).unwrap().join(Report::default());
        assert_eq!(reason(&network), "s1:p1 is not there");
        network.switch_mut(&s1).unwrap().set_port(port(1, "p1", false));
        assert_eq!(reason(&network), "s1:p1 has no carrier");
        network.switch_mut(&s1).unwrap().set_port(port(1, "p1", true));
        assert_eq!(reason(&network), "switch s2 has not joined");
        let ports = vec![port(7, "p9", true)];
        network.switch_mut(&s2).unwrap().join(Report { ports, ..Report::default() });
        assert_eq!(reason(&network), "");
        let neighbor = |chassis: &str, port: &str| Neighbor {
            chassis: chassis.into(),
            port: port.into(),
            authenticated: true,
        };
        let neighbors = &mut network.switch_mut(&s2).unwrap().neighbors;
        neighbors.insert(PortId(7), neighbor("s1", "p1"));
        assert_eq!(reason(&network), "");
        let neighbors = &mut network.switch_mut(&s2).unwrap().neighbors;
        neighbors.insert(PortId(7), neighbor("s3", "p1"));
        assert_eq!(reason(&network), "s2:p9 should be cabled to s1:p1, but sees s3:p1");
        network.switch_mut(&s2).unwrap().remove_port(PortId(7));
        network.switch_mut(&s2).unwrap().set_port(port(8, "p9", true));
        assert_eq!(reason(&network), "", "the neighbor went with the port");
        network.switch_mut(&s1).unwrap().joined = false;
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
