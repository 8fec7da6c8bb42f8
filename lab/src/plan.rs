//! From a topology file to what a lab is made of. Pure but for reading the file.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use selvedge_topology::{Format, Link, Node, NodeName, Topology, read};

use crate::cable::{MacKind, mac};
use crate::error::{LabError, Result};
use crate::names::MANAGEMENT;
use crate::state::{Cable, ComputeState, Figures, INDICES, NodeState, Plug};

/// Switches that have a management address: 192.0.2.2 to 192.0.2.254 (RFC 5737).
pub const MAX_SWITCHES: usize = 253;

/// From this rate on a link is a plain veth: a token bucket in software would be the bottleneck
/// long before, and would claim a rate that nothing holds.
pub const MAX_WIRE_BPS: u64 = 1_000_000_000;

/// The first interface index of a lab's links, beyond those of `lo`, bridge and management.
const FIRST_INDEX: u32 = 1000;

/// Something the user should know about how the file was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    Assumption(read::Assumption),
    /// The file has switches only.
    HostsAdded {
        hosts: usize,
    },
    /// Links at or above [`MAX_WIRE_BPS`].
    NotLimited {
        links: usize,
    },
    /// Delays that the reader computed from coordinates.
    NotDelayed {
        links: usize,
    },
    /// bpffs was not mounted.
    BpffsMounted,
    /// What is taken up and laid anew.
    Relaid {
        link: String,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Assumption(assumption) => assumption.fmt(f),
            Self::HostsAdded { hosts } => {
                write!(f, "the file has no hosts: added one to each of {hosts} switches")
            }
            Self::NotLimited { links } => write!(
                f,
                "{links} links of 1 Gbit/s or more are plain veth pairs: as fast as the machine, \
                 not limited to their capacity"
            ),
            Self::NotDelayed { links } => write!(
                f,
                "delays of {links} links, computed from coordinates, are not emulated (state \
                 `delay` in a Selvedge YAML)"
            ),
            Self::BpffsMounted => f.write_str("mounted bpffs at /sys/fs/bpf"),
            Self::Relaid { link } => {
                write!(f, "{link} was a plain link and is a wire now: its ports went and came back")
            }
        }
    }
}

/// Where the network comes from.
#[derive(Clone, Debug)]
pub enum Source {
    File(PathBuf),
    Topology(Box<Topology>),
}

impl From<&Path> for Source {
    fn from(path: &Path) -> Self {
        Self::File(path.to_owned())
    }
}

impl From<Topology> for Source {
    fn from(topology: Topology) -> Self {
        Self::Topology(Box::new(topology))
    }
}

#[derive(Debug)]
pub(crate) struct Plan {
    /// As the controller is to read it: with hosts, and their MAC addresses.
    pub(crate) topology: Topology,
    pub(crate) nodes: BTreeMap<String, NodeState>,
    pub(crate) links: Vec<Cable>,
    pub(crate) next_index: u32,
    pub(crate) notes: Vec<Note>,
}

/// # Errors
/// [`LabError::Topology`], [`LabError::TooManySwitches`], [`LabError::ReservedNode`].
pub(crate) fn plan(source: &Source) -> Result<Plan> {
    let (topology, mut notes, emulate_delay) = match source {
        Source::Topology(topology) => ((**topology).clone(), Vec::new(), true),
        Source::File(path) => {
            let read = read::from_path(path).map_err(LabError::topology)?;
            let stated = Format::of_file(&path.to_string_lossy()) == Some(Format::Selvedge);
            let notes = read.assumptions.into_iter().map(Note::Assumption).collect();
            (read.topology, notes, stated)
        }
    };
    let switches = topology.switches().count();
    if switches > MAX_SWITCHES {
        return Err(LabError::TooManySwitches { has: switches, max: MAX_SWITCHES });
    }
    let mut topology = if topology.hosts().next().is_none() {
        notes.push(Note::HostsAdded { hosts: switches });
        topology.with_hosts().map_err(LabError::Hosts)?
    } else {
        topology
    };
    if let Some((node, _)) = topology.nodes.get_key_value(MANAGEMENT) {
        return Err(LabError::ReservedNode { node: node.clone() });
    }

    let nodes = nodes(&mut topology);
    let (links, next_index) = links(&topology, emulate_delay, &mut notes);
    Ok(Plan { topology, nodes, links, next_index, notes })
}

/// Numbers switches and hosts in the order of their names, and fills in hosts' MAC addresses.
fn nodes(topology: &mut Topology) -> BTreeMap<String, NodeState> {
    let (mut switches, mut hosts) = (1, 0);
    let state = |(name, node): (&NodeName, &mut Node)| {
        let state = match node {
            Node::Switch(switch) => {
                switches += 1;
                let compute = switch.compute.as_ref().map(|compute| ComputeState {
                    cpu: compute.cpu,
                    memory_bytes: compute.memory_bytes,
                });
                NodeState::Switch { number: switches, compute }
            }
            Node::Host(host) => {
                hosts += 1;
                let mac = *host.mac.get_or_insert_with(|| mac(MacKind::Host, hosts));
                let ipv4 = host.ipv4.map(|net| first_v4(net.addr(), net.prefix_len()));
                let ipv6 = host.ipv6.map(|net| first_v6(net.addr(), net.prefix_len()));
                NodeState::Host { ipv4, ipv6, mac }
            }
        };
        (name.as_str().to_owned(), state)
    };
    topology.nodes.iter_mut().map(state).collect()
}

/// The address itself, or the first host's where it is a network's.
fn first_v4(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let bits = address.to_bits();
    let host = bits & u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    if prefix < 31 && host == 0 { Ipv4Addr::from_bits(bits + 1) } else { address }
}

fn first_v6(address: Ipv6Addr, prefix: u8) -> Ipv6Addr {
    let bits = address.to_bits();
    let host = bits & u128::MAX.checked_shr(prefix.into()).unwrap_or(0);
    if prefix < 127 && host == 0 { Ipv6Addr::from_bits(bits + 1) } else { address }
}

fn links(topology: &Topology, emulate_delay: bool, notes: &mut Vec<Note>) -> (Vec<Cable>, u32) {
    let (mut not_limited, mut not_delayed) = (0, 0);
    let mut wires = (1..).filter(|wire| !topology.nodes.contains_key(format!("w{wire}").as_str()));
    let mut index = FIRST_INDEX;
    let cable = |link: &Link| {
        let rate = link.capacity.filter(|capacity| capacity.0 < MAX_WIRE_BPS);
        not_limited += usize::from(link.capacity.is_some() && rate.is_none());
        let delay = link.delay.filter(|_| emulate_delay);
        not_delayed += usize::from(link.delay.is_some() && delay.is_none());
        let figures = Figures {
            rate_bps: rate.map(|rate| rate.0),
            delay_us: delay.map_or(0, |delay| delay.0),
            loss_ppm: link.loss.map_or(0, |loss| loss.ppm()),
        };
        let wire = (figures != Figures::default())
            .then(|| wires.next().expect("fewer links than numbers"));
        let plug =
            |end: &selvedge_topology::End| Plug { node: end.node.clone(), port: end.port.clone() };
        let (a, b) = (plug(&link.a), plug(&link.b));
        let cable = Cable { a, b, index, wire, figures, up: true };
        index += INDICES;
        cable
    };
    let cables = topology.links.iter().map(cable).collect();
    if not_limited > 0 {
        notes.push(Note::NotLimited { links: not_limited });
    }
    if not_delayed > 0 {
        notes.push(Note::NotDelayed { links: not_delayed });
    }
    (cables, index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(file: &str, text: &str) -> Result<Plan> {
        let format = Format::of_file(file).unwrap();
        let read = read::from_str(file, text, format).unwrap();
        plan(&Source::from(read.topology))
    }

    const SMALL: &str = "
name: small
topology:
  nodes:
    s1: { kind: switch }
    w1: { kind: switch, compute: { cpu: 2, memory: 1Gi } }
    a: { kind: host, ipv4: 10.0.0.1/32, ipv6: fd10::1/128 }
    b: { kind: host, ipv4: 10.1.0.0/24, mac: '02:00:00:00:00:07' }
  links:
    - { endpoints: ['s1:p1', 'w1:p1'], capacity: 100Mbps, delay: 300us }
    - { endpoints: ['s1:p2', 'w1:p2'], capacity: 1Gbps }
    - { endpoints: ['s1:p3', 'a:eth0'] }
    - { endpoints: ['w1:p3', 'b:eth0'], loss: 1% }
";

    #[test]
    fn links_with_figures_are_wires() {
        let plan = plan_of("small.yaml", SMALL).unwrap();
        // (wire, figures): w1 is a switch here, so the wires are numbered from 2.
        let wires: Vec<_> = plan.links.iter().map(|link| (link.wire, link.figures)).collect();
        let figures = |rate_bps, delay_us, loss_ppm| Figures { rate_bps, delay_us, loss_ppm };
        assert_eq!(
            wires,
            [
                (Some(2), figures(Some(100_000_000), 300, 0)),
                (None, figures(None, 0, 0)),
                (None, figures(None, 0, 0)),
                (Some(3), figures(None, 0, 10_000)),
            ]
        );
        assert_eq!(plan.notes, [Note::NotLimited { links: 1 }]);
        let indices: Vec<_> = plan.links.iter().map(|link| link.index).collect();
        assert_eq!(indices, [1000, 1008, 1016, 1024]);
        assert_eq!(plan.next_index, 1032);
    }

    #[test]
    fn nodes_are_numbered_and_hosts_get_their_mac() {
        let plan = plan_of("small.yaml", SMALL).unwrap();
        let host = |ipv4: &str, ipv6: Option<&str>, mac| NodeState::Host {
            ipv4: Some(ipv4.parse().unwrap()),
            ipv6: ipv6.map(|ipv6| ipv6.parse().unwrap()),
            mac,
        };
        let compute = Some(ComputeState { cpu: 2, memory_bytes: 1 << 30 });
        let want = [
            ("a", host("10.0.0.1", Some("fd10::1"), [2, 0x53, 0x48, 0, 0, 1])),
            ("b", host("10.1.0.1", None, [2, 0, 0, 0, 0, 7])),
            ("s1", NodeState::Switch { number: 2, compute: None }),
            ("w1", NodeState::Switch { number: 3, compute }),
        ];
        assert_eq!(plan.nodes, want.map(|(name, node)| (name.to_owned(), node)).into());
        let yaml = plan.topology.to_yaml();
        let again = read::from_str("again.yaml", &yaml, Format::Selvedge).unwrap().topology;
        assert_eq!(again, plan.topology, "{yaml}");
        assert!(again.hosts().all(|(_, host)| host.mac.is_some()));
    }

    #[test]
    fn a_node_may_not_be_the_management() {
        let text = SMALL.replace("s1", MANAGEMENT);
        let refused = plan_of("small.yaml", &text).unwrap_err();
        assert!(matches!(refused, LabError::ReservedNode { .. }), "{refused}");
    }
}
