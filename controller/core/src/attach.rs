//! Where endpoints are: declared, until they are seen elsewhere.
//!
//! An endpoint may attach anywhere, but only while its current port is gone or down or has become
//! another endpoint's, and only with its own MAC address; anything else is a spoof. An endpoint without a MAC address in
//! the topology is bound when it is first seen: until then its packets do not match the
//! `endpoint` table, so the switch reports them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use selvedge_pipeline::{PortId, prefix};
use selvedge_topology::sorted::Sorted;
use selvedge_topology::{Host, NodeName};

use crate::Core;
use crate::intent::N3Way;
use crate::network::{LinkState, Network, Use};

/// A sighting that was refused may have overtaken the news that the old port went down.
const SIGHTING_MS: u64 = 3_000;
/// The same refusal is logged this often at most.
const SPOOF_LOG_MS: u64 = 60_000;
/// Refusals remembered for that; more than these are logged each time.
const SPOOFS_KEPT: usize = 1_024;

/// What was learned of an endpoint, beyond what is declared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Learned {
    /// Switch and port name, if not as declared.
    pub(crate) at: Option<(NodeName, String)>,
    pub(crate) mac: Option<[u8; 6]>,
    /// Its port was gone since: at that port another device may be now, so there the address
    /// is learned anew; elsewhere it still must be this one.
    pub(crate) mac_stale: bool,
    /// Another endpoint has come to its port since: the port is up, but that says nothing.
    pub(crate) ousted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Sighting {
    switch: NodeName,
    port: PortId,
    mac: [u8; 6],
    at_ms: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Endpoints {
    pub(crate) learned: Sorted<NodeName, Learned>,
    refused: BTreeMap<NodeName, Sighting>,
    /// When a spoof was last logged, by endpoint and where it was seen.
    logged: BTreeMap<(NodeName, NodeName, PortId), u64>,
}

/// An endpoint that packets can be delivered to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Located {
    pub(crate) switch: NodeName,
    pub(crate) port: PortId,
    /// Of a UE in a PDU session: its gNB's, as are the others.
    pub(crate) mac: [u8; 6],
    pub(crate) n3: Option<N3Way>,
}

impl Core {
    /// Who hangs where an endpoint does: itself or, of a UE in a PDU session, the gNB.
    pub(crate) fn anchor<'a>(&'a self, host: &'a NodeName) -> &'a NodeName {
        self.intent.sessions.of_ue(host).map_or(host, |session| &session.gnb)
    }

    /// Switch and port name: see [`Endpoints::place`].
    pub(crate) fn place(&self, host: &NodeName) -> Option<(NodeName, String)> {
        self.endpoints.place(&self.network, self.anchor(host))
    }

    /// See [`Endpoints::locate`].
    pub(crate) fn locate(&self, host: &NodeName) -> Option<Located> {
        let anchor = self.anchor(host);
        let at = self.endpoints.locate(&self.network, anchor, host_of(&self.network, anchor)?)?;
        let Some(session) = self.intent.sessions.of_ue(host) else { return Some(at) };
        let n3 = self.intent.n3_way(session, &self.network.topology)?;
        Some(Located { n3: Some(n3), ..at })
    }
}

/// What a sighting came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Nothing to do: no endpoint has that address, or it is known there.
    Nothing,
    /// Its MAC address is known now, at the port where it should be.
    Learned {
        host: NodeName,
    },
    Moved {
        host: NodeName,
        from: Option<(NodeName, String)>,
    },
    /// `log`: worth a line.
    Spoof {
        host: NodeName,
        reason: String,
        log: bool,
    },
}

/// A prefix as a switch reads it back: without bits beyond its length, and IPv4 where it is
/// mapped IPv4.
pub(crate) fn as_held(net: IpNet) -> IpNet {
    let (bits, len) = prefix::prefix_bits(net);
    prefix::prefix(bits, len)
}

/// The prefixes of an endpoint, as entries name them.
pub(crate) fn prefixes(host: &Host) -> Vec<IpNet> {
    let (ipv4, ipv6) = (host.ipv4.map(IpNet::V4), host.ipv6.map(IpNet::V6));
    ipv4.into_iter().chain(ipv6).map(as_held).collect()
}

impl Endpoints {
    fn learn(&mut self, host: &NodeName, learn: impl FnOnce(&mut Learned)) {
        let mut learned = self.learned.get(host).cloned().unwrap_or_default();
        learn(&mut learned);
        self.learned.insert(host.clone(), learned);
    }

    /// Switch and port name: where it was seen last, or is declared to be.
    pub(crate) fn place(&self, network: &Network, host: &NodeName) -> Option<(NodeName, String)> {
        if let Some(at) = self.learned.get(host).and_then(|learned| learned.at.clone()) {
            return Some(at);
        }
        let (_, end) = network.home(host)?;
        Some((end.node.clone(), end.port.as_str().to_owned()))
    }

    /// Who is at a port, in the order of names. Cost: the hosts that are declared to hang on
    /// the switch, and those that have moved.
    fn at(&self, network: &Network, switch: &NodeName, port: &str) -> BTreeSet<NodeName> {
        if matches!(network.declared.port_use(switch, port), Some(Use::Fabric(_))) {
            return BTreeSet::new();
        }
        let moved = self.learned.iter().filter(|(_, learned)| learned.at.is_some());
        let all = network.declared.guests(switch).chain(moved.map(|(host, _)| host));
        let here = |host: &&NodeName| {
            self.place(network, host).is_some_and(|at| at.0 == *switch && at.1 == port)
        };
        all.filter(here).cloned().collect()
    }

    pub(crate) fn mac(&self, host: &NodeName, declared: &Host) -> Option<[u8; 6]> {
        let learned = || self.learned.get(host).filter(|l| !l.mac_stale).and_then(|l| l.mac);
        declared.mac.or_else(learned)
    }

    /// Where packets for the endpoint can be delivered; `None` while its switch has not
    /// joined, its port is not there, or its MAC address is not known.
    pub(crate) fn locate(
        &self,
        network: &Network,
        host: &NodeName,
        declared: &Host,
    ) -> Option<Located> {
        let mac = self.mac(host, declared)?;
        let (switch, port) = self.place(network, host)?;
        let known = network.switches.get(&switch).filter(|switch| switch.known)?;
        let port = known.port_named(&port)?.id;
        Some(Located { switch, port, mac, n3: None })
    }

    pub(crate) fn seen(
        &mut self,
        network: &Network,
        links: &BTreeMap<selvedge_topology::LinkIx, LinkState>,
        (switch, port): (&NodeName, PortId),
        mac: [u8; 6],
        address: IpAddr,
        now_ms: u64,
    ) -> Seen {
        let host = network.declared.owner(address);
        let Some((host, declared)) = host.and_then(|name| Some((name, host_of(network, name)?)))
        else {
            return Seen::Nothing;
        };
        let Some(there) = network.switches.get(switch).and_then(|s| s.ports.get(&port)) else {
            return Seen::Nothing;
        };
        if matches!(network.port_use(switch, there), Some(Use::Fabric(_)))
            || mac[0] & 1 != 0
            || mac == [0; 6]
        {
            return Seen::Nothing;
        }
        let here = (switch.clone(), there.name.clone());
        let place = self.place(network, host);
        let learned = self.learned.get(host).cloned().unwrap_or_default();
        let at_home = place.as_ref() == Some(&here);
        let must_be = declared.mac.or(learned.mac.filter(|_| !(at_home && learned.mac_stale)));
        let reason = if must_be.is_some_and(|known| known != mac) {
            Some(String::from("its MAC address is another"))
        } else if at_home {
            if self.mac(host, declared) == Some(mac) {
                return Seen::Nothing; // bound already, or about to be
            }
            self.learn(host, |learned| {
                (learned.mac, learned.mac_stale, learned.ousted) = (Some(mac), false, false);
            });
            return Seen::Learned { host: host.clone() };
        } else {
            place
                .as_ref()
                .filter(|place| !learned.ousted && attached(network, links, place))
                .map(|(node, name)| format!("it is attached to {node}:{name}, which is up"))
        };
        let Some(reason) = reason else {
            let declared_at = network.home(host).map(|(_, end)| end);
            let home =
                declared_at.is_some_and(|end| end.node == here.0 && end.port.as_str() == here.1);
            for other in self.at(network, &here.0, &here.1) {
                if other != *host {
                    self.learn(&other, |learned| learned.ousted = true);
                }
            }
            let learned = Learned {
                at: Some(here).filter(|_| !home),
                mac: Some(mac).filter(|_| declared.mac.is_none()),
                mac_stale: false,
                ousted: false,
            };
            self.refused.remove(host);
            self.learned.insert(host.clone(), learned);
            return Seen::Moved { host: host.clone(), from: place };
        };
        let sighting = Sighting { switch: switch.clone(), port, mac, at_ms: now_ms };
        self.refused.insert(host.clone(), sighting);
        let key = (host.clone(), switch.clone(), port);
        let log = self.logged.get(&key).is_none_or(|at| now_ms >= at + SPOOF_LOG_MS);
        if log {
            self.logged.retain(|_, at| now_ms < *at + SPOOF_LOG_MS);
            if self.logged.len() < SPOOFS_KEPT {
                self.logged.insert(key, now_ms);
            }
        }
        Seen::Spoof { host: host.clone(), reason, log }
    }

    /// A port went down or away: endpoints that were seen elsewhere just before may be there
    /// now. Returns the sightings to judge again: (switch, port, mac, address).
    pub(crate) fn port_lost(
        &mut self,
        network: &Network,
        switch: &NodeName,
        port: &str,
        gone: bool,
        now_ms: u64,
    ) -> Vec<(NodeName, PortId, [u8; 6], IpAddr)> {
        let mut again = Vec::new();
        for host in self.at(network, switch, port) {
            if gone && let Some(learned) = self.learned.get_mut(&host) {
                learned.mac_stale = learned.mac.is_some();
            }
            let recent = |s: &Sighting| now_ms <= s.at_ms + SIGHTING_MS;
            if let Some(sighting) = self.refused.remove(&host).filter(recent)
                && let Some(prefix) =
                    host_of(network, &host).and_then(|h| prefixes(h).first().copied())
            {
                again.push((sighting.switch, sighting.port, sighting.mac, prefix.addr()));
            }
        }
        again
    }
}

fn host_of<'a>(network: &'a Network, name: &NodeName) -> Option<&'a Host> {
    network.topology.nodes.get(name)?.as_host()
}

/// Whether an endpoint can still be at a place: its port is there and up, on a switch that
/// answers or that at least one link still leads to.
pub(crate) fn attached(
    network: &Network,
    links: &BTreeMap<selvedge_topology::LinkIx, LinkState>,
    (node, port): &(NodeName, String),
) -> bool {
    let Some(switch) = network.switches.get(node) else { return false };
    let up = switch.known && switch.port_named(port).is_some_and(|port| port.up);
    let reachable = || {
        links.iter().any(|(ix, state)| {
            let link = network.link(*ix);
            matches!(state, LinkState::Usable { .. }) && link.seen_from(node).is_some()
        })
    };
    up && (switch.joined || reachable())
}
