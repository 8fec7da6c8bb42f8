//! The truth that entries are checked against.
//!
//! Nodes are dense indices, `0..world.nodes.len()`, in the order of names; endpoints are the
//! topology's hosts, in the order of names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use selvedge_pipeline::{Class, ClassifierAction, Direction, HookId, PortId, SliceId, prefix};
use selvedge_topology::NodeName;
use selvedge_topology::sorted::Sorted;

use crate::intent::N3Way;

/// Cheap to clone and to compare with what it was made from: what did not change is shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct World {
    /// Every declared switch.
    pub(crate) nodes: Arc<Vec<NodeName>>,
    pub(crate) hosts: Arc<Hosts>,
    /// Switches that cannot be written now: what they do wrong cannot be helped.
    pub(crate) stuck: BTreeSet<usize>,
    /// Usable links, from either end.
    pub(crate) wires: Arc<Wires>,
    pub(crate) hooks: BTreeMap<(usize, HookId), HookAt>,
    /// By host; `None`: packets cannot be delivered to it.
    pub(crate) endpoints: Arc<Vec<Option<Arc<Endpoint>>>>,
    /// Those of each node.
    pub(crate) hosts_of: Arc<Vec<Vec<u32>>>,
    pub(crate) slices: Sorted<SliceId, Arc<Slice>>,
    /// Active traffic rules.
    pub(crate) rules: Arc<Vec<Rule>>,
    /// Shared-risk groups of each declared link: does not change while a core lives.
    pub(crate) groups: Arc<Vec<Vec<u32>>>,
}

pub(crate) type Wires = BTreeMap<(usize, PortId), Wire>;

/// Declared hosts: does not change while a core lives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hosts {
    pub(crate) names: Vec<NodeName>,
    /// No two overlap.
    prefixes: BTreeMap<(u128, u8), u32>,
    /// Lengths in use, of 128-bit prefixes, longest first.
    lengths: Vec<u8>,
}

/// Where a packet arrives that is sent on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wire {
    pub(crate) node: usize,
    pub(crate) port: PortId,
    /// Of the port that it arrives at.
    pub(crate) mac: [u8; 6],
    /// The declared link, the same from either end.
    pub(crate) link: u32,
    /// What guarantees may take, bits per second.
    pub(crate) reservable_bps: Option<u64>,
}

/// A hook that a switch should run, by its number there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HookAt {
    pub(crate) slice: SliceId,
    pub(crate) name: String,
    pub(crate) running: bool,
    /// Whether packets of a direction go through it; index: downlink, uplink.
    pub(crate) directions: [bool; 2],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// As switches hold them.
    pub(crate) prefixes: Vec<IpNet>,
    pub(crate) mac: [u8; 6],
    pub(crate) node: usize,
    pub(crate) port: PortId,
    /// It is a UE behind the gNB that is there.
    pub(crate) n3: Option<N3Way>,
    pub(crate) member: Arc<Member>,
}

/// What decides whom an endpoint talks with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Member {
    /// Every slice it is in, in rising order.
    pub(crate) slices: Vec<SliceId>,
    pub(crate) direction: Direction,
}

#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// It shares no room that is kept for failures.
    pub(crate) dedicated: bool,
    /// Its endpoints, in rising order, whether they can be delivered to or not.
    pub(crate) members: Vec<u32>,
    /// Which failures leave it its promises at present; `None`: none does.
    pub(crate) protected: Option<Arc<Protected>>,
}

/// What a slice is promised for failures that come one at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Protected {
    pub(crate) level: Level,
    /// By direction, ingress, egress: where packets go after a failure on their way; `None`:
    /// admission has nothing. Where packets cross no link there is nothing to protect.
    pub(crate) backups: BTreeMap<(Direction, usize, usize), Option<Backup>>,
}

/// Each level includes those before it. The switches where packets enter and leave are not
/// protected against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Any one link.
    Link,
    /// Any one link, or switch on the way.
    Node,
    /// Any one link, switch, or group of links that share a risk.
    Group,
}

/// A way for which capacity is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backup {
    /// From which node over which declared link, whether or not that is usable.
    pub(crate) hops: Vec<(usize, u32)>,
    /// The hooks on it, by node and name, in order.
    pub(crate) hooks: Vec<(usize, String)>,
}

/// One filter of an active traffic rule: packets that match one of each list that is not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) sources: Vec<IpNet>,
    pub(crate) destinations: Vec<IpNet>,
    pub(crate) protocols: Vec<u8>,
    /// First and last.
    pub(crate) source_ports: Vec<[u16; 2]>,
    pub(crate) destination_ports: Vec<[u16; 2]>,
    pub(crate) dscps: Vec<u8>,
    pub(crate) action: Option<ClassifierAction>,
}

impl Hosts {
    pub(crate) fn new(hosts: impl Iterator<Item = (NodeName, Vec<IpNet>)>) -> Self {
        let mut known = Self::default();
        let mut lengths = BTreeSet::new();
        for (number, (name, prefixes)) in (0..).zip(hosts) {
            known.names.push(name);
            for net in prefixes {
                let (bits, len) = prefix::prefix_bits(net);
                known.prefixes.insert((bits, len), number);
                lengths.insert(len);
            }
        }
        known.lengths = lengths.into_iter().rev().collect();
        known
    }

    /// Hosts with an address in `net`, or whose addresses `net` is a part of.
    pub(crate) fn overlapping(&self, net: IpNet, mut each: impl FnMut(u32)) {
        let (bits, len) = prefix::prefix_bits(net);
        if let Some(host) = self.prefixes.get(&(bits, len)) {
            return each(*host);
        }
        let wider = self.lengths.iter().filter(|wider| **wider < len);
        for wider in wider {
            if let Some(host) = self.prefixes.get(&(bits & prefix::mask(*wider), *wider)) {
                return each(*host);
            }
        }
        let last = bits | !prefix::mask(len);
        for host in self.prefixes.range((bits, 0)..=(last, u8::MAX)).map(|(_, host)| *host) {
            each(host);
        }
    }
}

impl Slice {
    /// Whether another is the same apart from who is in it and what protects it.
    pub(crate) fn is_but_for_members(&self, other: &Self) -> bool {
        let Self {
            name,
            priority,
            class,
            two_sided,
            guaranteed_bps,
            hooks,
            placed,
            kept,
            dedicated,
            members: _,
            protected: _,
        } = self;
        (name, priority, class, two_sided)
            == (&other.name, &other.priority, &other.class, &other.two_sided)
            && (guaranteed_bps, hooks, placed, kept, dedicated)
                == (
                    &other.guaranteed_bps,
                    &other.hooks,
                    &other.placed,
                    &other.kept,
                    &other.dedicated,
                )
    }
}

impl Endpoint {
    /// Its address in a family: what packets are judged by.
    pub(crate) fn address(&self, ipv6: bool) -> Option<IpAddr> {
        self.prefixes.iter().map(|prefix| prefix.addr()).find(|address| address.is_ipv6() == ipv6)
    }
}

impl World {
    pub(crate) fn name(&self, node: usize) -> &NodeName {
        &self.nodes[node]
    }

    pub(crate) fn endpoint(&self, host: u32) -> Option<&Endpoint> {
        self.endpoints.get(host as usize)?.as_deref()
    }

    pub(crate) fn host(&self, host: u32) -> &NodeName {
        &self.hosts.names[host as usize]
    }

    /// Endpoints at a port.
    pub(crate) fn hosts_at(&self, node: usize, port: PortId) -> impl Iterator<Item = u32> + '_ {
        let here = self.hosts_of.get(node).map(Vec::as_slice).unwrap_or_default();
        here.iter()
            .copied()
            .filter(move |host| self.endpoint(*host).is_some_and(|e| e.port == port))
    }

    /// The slice that traffic between two endpoints takes: of those in which they talk the one
    /// of the highest priority, then of the first name.
    pub(crate) fn shared(&self, a: &Member, b: &Member) -> Option<(SliceId, &Slice)> {
        let mut best: Option<(SliceId, &Slice)> = None;
        for id in a.slices.iter().filter(|id| b.slices.binary_search(id).is_ok()) {
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
        best
    }

    /// Endpoints that a member of those slices talks with, some of them more than once.
    pub(crate) fn reached<'a>(&'a self, from: &'a Member) -> impl Iterator<Item = u32> + 'a {
        let slices = from.slices.iter().filter_map(|id| self.slices.get(id));
        let members = slices.flat_map(|slice| slice.members.iter().copied());
        members.filter(|to| {
            self.endpoint(*to).is_some_and(|to| self.shared(from, &to.member).is_some())
        })
    }

    /// Switches where a slice's endpoints are.
    pub(crate) fn switches_of(&self, slice: SliceId) -> BTreeSet<usize> {
        let members = self.slices.get(&slice).map(|slice| slice.members.as_slice());
        let members = members.unwrap_or_default().iter();
        members.filter_map(|host| Some(self.endpoint(*host)?.node)).collect()
    }

    /// Which part of the network each node is in: equal numbers can reach each other. The number
    /// is that of the part's first node.
    pub(crate) fn parts(&self) -> Vec<usize> {
        fn root(part: &mut [usize], mut node: usize) -> usize {
            while part[node] != node {
                part[node] = part[part[node]];
                node = part[node];
            }
            node
        }
        let mut part: Vec<usize> = (0..self.nodes.len()).collect();
        for (&(from, _), wire) in &*self.wires {
            let (a, b) = (root(&mut part, from), root(&mut part, wire.node));
            part[a.max(b)] = a.min(b);
        }
        (0..part.len()).map(|node| root(&mut part, node)).collect()
    }
}
