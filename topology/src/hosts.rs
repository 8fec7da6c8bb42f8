//! Hosts for networks whose files have switches only.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::limits::{MAX_NODES, MAX_PORTS};
use crate::{End, Host, Link, Node, NodeName, PortName, Topology};

/// Why hosts cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostsError {
    #[error("{switches} switches with a host each are more than {MAX_NODES} nodes")]
    TooMany { switches: usize },
    #[error("switch {switch} has no port left for a host")]
    NoPort { switch: NodeName },
}

impl Topology {
    /// One host on each switch that has none, for labs: `h-<switch>` with `10.0.y.z/32` and
    /// `fd10::n/128`, numbered by the switches' names, on the switch's next `p<k>` and its own
    /// `eth0`, without figures.
    pub fn with_hosts(mut self) -> Result<Self, HostsError> {
        let with_host: BTreeSet<NodeName> = self
            .hosts()
            .filter_map(|(name, _)| self.attachment(name))
            .map(|(_, _, switch)| switch.node.clone())
            .collect();
        let switches: Vec<NodeName> = self
            .switches()
            .map(|(name, _)| name.clone())
            .filter(|name| !with_host.contains(name))
            .collect();
        if self.nodes.len() + switches.len() > MAX_NODES {
            return Err(HostsError::TooMany { switches: switches.len() });
        }
        let mut used: BTreeSet<End> =
            self.links.iter().flat_map(|link| [link.a.clone(), link.b.clone()]).collect();
        let addresses: BTreeSet<Ipv4Net> = self.hosts().filter_map(|(_, h)| h.ipv4).collect();
        let taken6: BTreeSet<Ipv6Net> = self.hosts().filter_map(|(_, h)| h.ipv6).collect();
        let mut numbers = (1u16..=u16::MAX).map(address).filter(|(v4, v6)| {
            !addresses.iter().any(|net| net.contains(v4)) && !taken6.iter().any(|n| n.contains(v6))
        });
        for switch in switches {
            let port = (1..=MAX_PORTS)
                .map(|k| End {
                    node: switch.clone(),
                    port: format!("p{k}").parse().expect("a valid name"),
                })
                .find(|end| !used.contains(end));
            let Some(port) = port else { return Err(HostsError::NoPort { switch }) };
            used.insert(port.clone());
            let (ipv4, ipv6) =
                numbers.next().ok_or(HostsError::TooMany { switches: self.nodes.len() })?;
            let host = Host { ipv4: Some(ipv4.into()), ipv6: Some(ipv6.into()), mac: None };
            let name = self.free_name(&switch);
            let eth0: PortName = "eth0".parse().expect("a valid name");
            self.links.push(Link::new(port, End { node: name.clone(), port: eth0 }));
            self.nodes.insert(name, Node::Host(host));
        }
        Ok(self)
    }

    fn free_name(&self, switch: &NodeName) -> NodeName {
        let base = format!("h-{switch}");
        let numbered = (2..).map(|n: u32| format!("h{n}-{switch}"));
        std::iter::once(base)
            .chain(numbered)
            .filter_map(|name| NodeName::from_label(&name))
            .find(|name| !self.nodes.contains_key(name))
            .expect("numbers do not run out")
    }
}

fn address(n: u16) -> (Ipv4Addr, Ipv6Addr) {
    let [y, z] = n.to_be_bytes();
    (Ipv4Addr::new(10, 0, y, z), Ipv6Addr::new(0xfd10, 0, 0, 0, 0, 0, 0, n))
}
