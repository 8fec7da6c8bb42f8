//! The topology as written: nodes by name, links between their ports.

use std::collections::BTreeMap;

use ipnet::{Ipv4Net, Ipv6Net};

use crate::{BitRate, Delay, Loss, NodeName, PortName, Position, Power};

/// Nodes and the links between them. A value of this type that a reader returned is valid:
/// links join existing nodes, each port is used once, a host has at most one link, and that to
/// a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    pub name: NodeName,
    pub nodes: BTreeMap<NodeName, Node>,
    /// In the order of the file; [`crate::LinkIx`] is an index into it.
    pub links: Vec<Link>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    Switch(Switch),
    Host(Host),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Switch {
    pub role: Option<Role>,
    pub site: Option<String>,
    pub position: Option<Position>,
    /// Present where hooks and functions can run.
    pub compute: Option<Compute>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Users attach here: behind it is a base station.
    Access,
    Transit,
    /// An edge site.
    Edge,
    /// A data centre.
    Core,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Access, Self::Transit, Self::Edge, Self::Core];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Transit => "transit",
            Self::Edge => "edge",
            Self::Core => "core",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compute {
    /// Whole processors.
    pub cpu: u32,
    pub memory_bytes: u64,
    /// Such as `x86_64`.
    pub architecture: Option<String>,
    /// How many there are of each kind, such as `gpu`.
    pub accelerators: BTreeMap<String, u32>,
    /// What the node draws more for each processor in use.
    pub energy: Option<Power>,
}

/// An endpoint: what sends and receives the users' packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// The addresses it may send from; usually one, `/32` and `/128`.
    pub ipv4: Option<Ipv4Net>,
    pub ipv6: Option<Ipv6Net>,
    /// When absent, the lab's or the machine's own.
    pub mac: Option<[u8; 6]>,
}

/// A full-duplex link; the figures hold in each direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub a: End,
    pub b: End,
    pub capacity: Option<BitRate>,
    /// Propagation, one way.
    pub delay: Option<Delay>,
    /// Routing weight, `1..=`[`crate::limits::MAX_COST`]; without one it counts
    /// [`crate::DEFAULT_COST`].
    pub cost: Option<u32>,
    /// Shared-risk groups: what fails together.
    pub srlg: Vec<u32>,
    /// Administrative groups (RFC 3630 §2.5.9, RFC 7308), by name; a network has at most
    /// [`crate::limits::MAX_AFFINITIES`].
    pub affinity: Vec<NodeName>,
    pub loss: Option<Loss>,
    pub shaped: Shaped,
}

/// Classes of slices that the kernel's HTB queues at the ports of a link, at the sum of what is
/// promised to them there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shaped {
    pub guaranteed: bool,
    pub urllc: bool,
}

impl Shaped {
    pub const NONE: Self = Self { guaranteed: false, urllc: false };

    /// By the names that files have.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let named = [(self.guaranteed, "guaranteed"), (self.urllc, "urllc")];
        named.into_iter().filter_map(|(is, name)| is.then_some(name))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct End {
    pub node: NodeName,
    pub port: PortName,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.node, self.port)
    }
}

impl Link {
    /// A link without figures.
    pub fn new(a: End, b: End) -> Self {
        let (srlg, affinity) = (Vec::new(), Vec::new());
        Self {
            a,
            b,
            capacity: None,
            delay: None,
            cost: None,
            srlg,
            affinity,
            loss: None,
            shaped: Shaped::NONE,
        }
    }

    /// This end and the other, when the link touches `node`.
    pub fn seen_from(&self, node: &NodeName) -> Option<(&End, &End)> {
        if self.a.node == *node {
            Some((&self.a, &self.b))
        } else if self.b.node == *node {
            Some((&self.b, &self.a))
        } else {
            None
        }
    }
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} - {}", self.a, self.b)
    }
}

impl Node {
    pub fn as_switch(&self) -> Option<&Switch> {
        match self {
            Self::Switch(switch) => Some(switch),
            Self::Host(_) => None,
        }
    }

    pub fn as_host(&self) -> Option<&Host> {
        match self {
            Self::Host(host) => Some(host),
            Self::Switch(_) => None,
        }
    }
}

impl Topology {
    /// By name.
    pub fn switches(&self) -> impl Iterator<Item = (&NodeName, &Switch)> {
        self.nodes.iter().filter_map(|(name, node)| Some((name, node.as_switch()?)))
    }

    /// By name.
    pub fn hosts(&self) -> impl Iterator<Item = (&NodeName, &Host)> {
        self.nodes.iter().filter_map(|(name, node)| Some((name, node.as_host()?)))
    }

    /// The switch port that a host hangs on: (link, the host's end, the switch's end).
    pub fn attachment(&self, host: &NodeName) -> Option<(&Link, &End, &End)> {
        self.nodes.get(host)?.as_host()?;
        self.links.iter().find_map(|link| {
            let (near, far) = link.seen_from(host)?;
            Some((link, near, far))
        })
    }
}
