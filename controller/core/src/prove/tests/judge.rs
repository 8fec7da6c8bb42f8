//! What packets do, by sending them: an independent judge of plans.
//!
//! Frames go through [`selvedge_pipeline::model`], the interpreter that the XDP programs are
//! tested against. It shares no code with the prover; nor does what is expected here, which is
//! read from the objects that were applied.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use selvedge_pipeline::model::{self, Ingress, Verdict};
use selvedge_pipeline::{
    Class, Direction, DropReason, Entry, HookId, PortId, SliceId, SliceMeterEntry, Tunnel, gateway,
};
use selvedge_slices::NetworkSlice;
use selvedge_topology::{End, NodeName};

use super::Tables;
use crate::Core;
use crate::network::LinkState;

type Place = (NodeName, PortId);
/// gNB, TEID and QFI of a tunnel.
type Gtp = (IpAddr, u32, u8);
type Switches = BTreeMap<NodeName, model::Switch>;

/// The packet or the sum, and what is wrong with it.
pub(super) type Wrong = BTreeSet<(String, &'static str)>;

/// Who is where, in which slice, and what is cabled to what.
pub(super) struct Truth {
    pub(super) core: Core,
    wires: BTreeMap<Place, Place>,
    hosts: Vec<Host>,
}

struct Host {
    name: NodeName,
    /// Of a UE its gNB's, as is the place.
    mac: [u8; 6],
    at: Place,
    addresses: Vec<IpAddr>,
    slice: SliceId,
    direction: Direction,
    session: Option<Session>,
}

/// Of a UE behind a gNB.
struct Session {
    uplink_teid: u32,
    /// Of its uplink.
    flows: Vec<u8>,
    downlink: Tunnel,
}

/// What became of a frame.
#[derive(Default)]
struct Fate {
    /// The port, the MAC address and the tunnel that it left with.
    out: Option<(Place, [u8; 6], Option<Gtp>)>,
    hooks: Vec<(NodeName, HookId)>,
    links: Vec<Place>,
    /// Slice, direction and code point of the outer header, on the first link.
    outer: Option<(u16, u16, u8)>,
    /// Why it was dropped.
    dropped: Option<DropReason>,
}

/// How often one path crosses a link, at most: by slice, direction and ingress.
type Load = BTreeMap<Place, BTreeMap<(SliceId, Direction, NodeName), u64>>;

impl Truth {
    pub(super) fn of(core: Core) -> Self {
        let mut wires = BTreeMap::new();
        for (ix, state) in core.network.link_states() {
            let LinkState::Usable { a, b } = state else { continue };
            let link = core.network.link(ix);
            let (a, b) = ((link.a.node.clone(), a.port), (link.b.node.clone(), b.port));
            wires.insert(a.clone(), b.clone());
            wires.insert(b, a);
        }
        let mut hosts = Vec::new();
        for (name, host) in core.network.topology.hosts() {
            let session = core.intent.sessions.of_ue(name);
            let shown = session.map_or(name, |session| &session.gnb);
            let declared = core.network.topology.nodes[shown].as_host().expect("a host");
            // A UE without a session is nowhere.
            let Some(at) = core.endpoints.locate(&core.network, shown, declared) else { continue };
            let v4 = host.ipv4.map(|net| IpAddr::V4(net.addr()));
            let v6 = host.ipv6.map(|net| IpAddr::V6(net.addr()));
            let named = core.intent.slices.values().find_map(|stored| {
                let found = stored.object.endpoints.iter().find(|e| e.name == *name)?;
                Some((core.numbers.known_slice(stored.object.name.as_str())?, found.side))
            });
            let dn = named.is_some_and(|(_, side)| side == selvedge_slices::Side::Dn);
            hosts.push(Host {
                name: name.clone(),
                mac: at.mac,
                at: (at.switch, at.port),
                addresses: v4.into_iter().chain(v6).collect(),
                slice: named.map_or(SliceId::DEFAULT, |(slice, _)| slice),
                direction: if dn { Direction::Downlink } else { Direction::Uplink },
                session: session.map(|session| {
                    // 5QI 3 is guaranteed, as the slice is (TS 23.501, table 5.7.4-1).
                    let qfi = session.flows.iter().find(|(_, five_qi)| **five_qi == 3);
                    Session {
                        uplink_teid: session.uplink_teid,
                        flows: session.flows.keys().copied().collect(),
                        downlink: Tunnel {
                            local: session.n3,
                            gnb: declared.ipv4.expect("it has one").addr().into(),
                            teid: session.downlink_teid,
                            qfi: *qfi.expect("there is one").0,
                            mtu: session.mtu,
                        },
                    }
                }),
            });
        }
        Self { core, wires, hosts }
    }

    /// Of the port at the other end of a link.
    pub(super) fn mac_beyond(&self, node: &NodeName, port: PortId) -> Option<[u8; 6]> {
        let (far, at) = self.wires.get(&(node.clone(), port))?;
        Some(self.core.network.switches[far].ports[at].mac)
    }

    /// Everything that is wrong in one state.
    pub(super) fn wrong(&self, tables: &Tables) -> Wrong {
        let mut wrong = Wrong::new();
        let switches = self.switches(tables);
        let mut load = Load::new();
        // Enough flows that each path of a set is taken by some.
        let many = tables
            .values()
            .flat_map(|table| table.values())
            .any(|entry| matches!(entry, Entry::Policy(policy) if policy.paths.len() > 1));
        let flows = if many { 4000..4040 } else { 4000..4001 };
        let ports = [9, 5000].map(|to| flows.clone().map(move |from| (from, to)));
        let ports: Vec<(u16, u16)> = ports.into_iter().flatten().collect();
        for from in &self.hosts {
            for to in self.hosts.iter().filter(|to| to.name != from.name) {
                for (source, destination) in families(from, to) {
                    for (from_port, port) in ports.iter().copied() {
                        let sent = frame(from.mac, source, destination, (from_port, port));
                        let sent = match &from.session {
                            // One port goes in the first flow, the other in the last.
                            Some(session) if port == 9 => session.around(&sent, session.flows[0]),
                            Some(session) => {
                                session.around(&sent, *session.flows.last().expect("one"))
                            }
                            None => sent,
                        };
                        let fate = self.send(&switches, &from.at, sent);
                        let rule = !self.core.intent.applications.is_empty();
                        let blocked = rule && port == 9 && source == IpAddr::from([10, 1, 0, 12]);
                        let subject = format!("{source} -> {destination} port {port}");
                        match self.judged(from, to, blocked, &fate) {
                            Some(what) => drop(wrong.insert((subject, what))),
                            None => loaded(&mut load, from, &fate),
                        }
                    }
                }
            }
        }
        self.strangers(&switches, &mut wrong);
        self.promises(&switches, &mut wrong);
        self.links(&switches, load, &mut wrong);
        wrong
    }

    fn switches(&self, tables: &Tables) -> Switches {
        let switch = |(name, table): (&NodeName, &std::sync::Arc<crate::plan::Table>)| {
            let mut switch = model::Switch::new(table.values().cloned());
            for port in self.core.network.switches[name].ports.values() {
                switch.set_port(port.id, model::Port { mac: port.mac, up: port.up });
            }
            (0..4).for_each(|hook| switch.set_hook(HookId(hook), true));
            (name.clone(), switch)
        };
        tables.iter().map(switch).collect()
    }

    fn send(&self, switches: &Switches, at: &Place, mut frame: Vec<u8>) -> Fate {
        let mut fate = Fate::default();
        let (mut node, mut ingress) = (at.0.clone(), Ingress::Port(at.1));
        loop {
            match model::process(&switches[&node], ingress, &frame).verdict {
                Verdict::Out { port, frame: sent } => {
                    frame = sent;
                    let mac: [u8; 6] = frame[..6].try_into().expect("six bytes");
                    let place = (node.clone(), port);
                    let Some(far) = self.wires.get(&place) else {
                        fate.out = Some((place, mac, tunnel_of(&frame)));
                        return fate;
                    };
                    let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
                    let is_outer = word(12) == 0x86dd && word(38) == 0x5f00;
                    if is_outer && fate.outer.is_none() {
                        // The outer source: block, node, mark, slice, direction.
                        let dscp = (word(14) >> 6) as u8 & 0x3f;
                        fate.outer = Some((word(22 + 8), word(22 + 10), dscp));
                    }
                    fate.links.push(place);
                    if self.mac_beyond(&node, port) != Some(mac) {
                        return fate; // the far end's interface does not take it
                    }
                    (node, ingress) = (far.0.clone(), Ingress::Port(far.1));
                }
                Verdict::ToHook { hook, frame: sent } => {
                    fate.hooks.push((node.clone(), hook));
                    (ingress, frame) = (Ingress::Compute(hook), sent);
                }
                Verdict::Drop(reason) => {
                    fate.dropped = Some(reason);
                    return fate;
                }
                _ => return fate,
            }
        }
    }

    fn judged(&self, from: &Host, to: &Host, blocked: bool, fate: &Fate) -> Option<&'static str> {
        let talk = from.slice == to.slice
            && (from.slice == SliceId::DEFAULT || from.direction != to.direction);
        // Between those that do not talk nothing is even sent on its way.
        let stopped = matches!(
            fate.dropped,
            Some(
                DropReason::NoRoute
                    | DropReason::SpoofedSource
                    | DropReason::PortDisabled
                    | DropReason::ClassifierDrop
                    | DropReason::Unsupported
            )
        );
        match &fate.out {
            _ if talk && fate.dropped == Some(DropReason::HopLimit) => Some("circles"),
            _ if !talk => (!stopped).then_some("is sent"),
            out if blocked => out.as_ref().map(|_| "arrives"),
            None => Some("lost"),
            Some((place, mac, tunnel))
                if (place, mac, *tunnel)
                    != (&to.at, &to.mac, to.session.as_ref().map(Session::to)) =>
            {
                Some("strays")
            }
            Some(_) => self.treated(from, fate),
        }
    }

    fn slice(&self, id: SliceId) -> Option<&NetworkSlice> {
        let mut slices = self.core.intent.slices.values().map(|stored| &*stored.object);
        slices.find(|slice| self.core.numbers.known_slice(slice.name.as_str()) == Some(id))
    }

    /// By its slice's hooks and no other's; in that slice and direction; coloured as promised.
    fn treated(&self, from: &Host, fate: &Fate) -> Option<&'static str> {
        let slice = self.slice(from.slice);
        let through = slice.map(|slice| slice.through.as_slice()).unwrap_or_default();
        let wanted = through.iter().map(|through| Some(&through.hook));
        let met = fate.hooks.iter().map(|at| {
            let hook = self.core.derived.hooks.get(at)?;
            let own = slice.is_some_and(|slice| slice.name == hook.slice);
            Some(&hook.hook).filter(|_| own)
        });
        if !wanted.eq(met) {
            return Some("hooks");
        }
        let (slice_id, direction, dscp) = fate.outer?;
        let promised = slice.is_some_and(|s| s.class == selvedge_slices::Class::Guaranteed);
        let right = (from.slice.0, from.direction as u16, if promised { 34 } else { 0 });
        ((slice_id, direction, dscp) != right).then_some("treatment")
    }

    /// Sources that could be used where they are not, and what is delivered to others than it is
    /// for, if it comes in from the fabric.
    fn strangers(&self, switches: &Switches, wrong: &mut Wrong) {
        for (name, switch) in switches {
            for entry in switch.entries() {
                match entry {
                    Entry::Endpoint(e) => {
                        let place = (name.clone(), e.port);
                        let owner = self.hosts.iter().find(|host| {
                            host.at == place && host.has(e.prefix) && host.session.is_none()
                        });
                        let right = owner.is_some_and(|owner| owner.direction == e.direction);
                        if !right {
                            wrong
                                .insert((format!("{} at {name} {}", e.prefix, e.port.0), "source"));
                        }
                    }
                    Entry::Delivery(e) => {
                        let place = (name.clone(), e.port);
                        let mut owners = self.hosts.iter().filter(|host| host.has(e.prefix));
                        let right = owners.any(|host| {
                            let tunnel = host.session.as_ref().map(|session| session.downlink);
                            (&host.at, host.mac, host.slice) == (&place, e.mac, e.slice)
                                && tunnel == e.tunnel.as_deref().copied()
                        });
                        if !right {
                            let what = format!("{} in {} at {name}", e.prefix, e.slice.0);
                            wrong.insert((what, "delivery"));
                        }
                    }
                    Entry::GtpSession(e) => {
                        let place = (name.clone(), e.port);
                        let v4 = e.ue_ipv4.map(|v4| ipnet::IpNet::from(IpAddr::V4(v4)));
                        let v6 = e.ue_ipv6.map(ipnet::IpNet::from);
                        let mut owners = self.hosts.iter().filter(|host| {
                            host.at == place
                                && v4.into_iter().chain(v6).all(|net| host.has(net))
                                && host.direction == e.direction
                        });
                        let right = owners.any(|host| {
                            host.session.as_ref().is_some_and(|session| {
                                let qfis = session.flows.iter().fold(0, |set, qfi| set | 1 << qfi);
                                (session.uplink_teid, session.downlink.gnb, qfis)
                                    == (e.teid, e.gnb, e.qfis)
                            })
                        });
                        if !right {
                            wrong.insert((format!("session {:#x} at {name}", e.teid), "source"));
                        }
                    }
                    Entry::Classifier(e) => {
                        // The one rule of the objects.
                        let source: Option<ipnet::IpNet> = "10.1.0.12/32".parse().ok();
                        let right = (e.source, e.destination, e.protocol) == (source, None, None)
                            && (e.source_ports, e.destination_ports) == (None, Some([9, 9]))
                            && (e.slice_set, e.endpoint_tag, e.tunnel_id) == (None, None, None)
                            && e.action == selvedge_pipeline::ClassifierAction::Drop
                            && self.core.intent.applications.len() == 1;
                        if !right {
                            wrong.insert((format!("rule {} at {name}", e.priority), "rule"));
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    fn meter<'a>(
        &self,
        switches: &'a Switches,
        at: &NodeName,
        of: (SliceId, Direction),
    ) -> Option<&'a SliceMeterEntry> {
        switches[at].entries().find_map(|entry| match entry {
            Entry::SliceMeter(meter) => Some(meter).filter(|m| (m.slice, m.direction) == of),
            _ => None,
        })
    }

    /// What enters at a switch of what its meter guarantees: the rest comes back from hooks.
    fn entering(&self, meter: &SliceMeterEntry, at: &NodeName) -> u64 {
        let Some(slice) = self.slice(meter.slice) else { return meter.guaranteed_bps };
        let total = total(slice, meter.direction);
        let switch = &self.core.network.switches[at];
        let hooks = self.core.derived.hooks.iter().filter(|((node, hook), wanted)| {
            node == at && wanted.slice == slice.name && switch.hooks.contains_key(hook)
        });
        meter.guaranteed_bps.saturating_sub(total * hooks.count() as u64)
    }

    fn promises(&self, switches: &Switches, wrong: &mut Wrong) {
        for stored in self.core.intent.slices.values() {
            let slice = &stored.object;
            let Some(id) = self.core.numbers.known_slice(slice.name.as_str()) else { continue };
            for direction in [Direction::Downlink, Direction::Uplink] {
                let sends = |h: &&Host| (h.slice, h.direction) == (id, direction);
                let enters: BTreeSet<&NodeName> =
                    self.hosts.iter().filter(sends).map(|host| &host.at.0).collect();
                let meters =
                    enters.iter().map(|at| (self.meter(switches, at, (id, direction)), at));
                let shares: Vec<(u64, bool)> = meters
                    .map(|(meter, at)| {
                        let class = meter.is_some_and(|m| m.class == Class::Guaranteed);
                        (meter.map_or(0, |meter| self.entering(meter, at)), class)
                    })
                    .collect();
                let total = total(slice, direction);
                let none = shares.iter().any(|(bps, class)| *bps == 0 || !class);
                if (total > 0 && none) || shares.iter().map(|(bps, _)| bps).sum::<u64>() > total {
                    wrong.insert((format!("{} {direction:?}", slice.name), "promise"));
                }
            }
        }
    }

    fn links(&self, switches: &Switches, load: Load, wrong: &mut Wrong) {
        for ((node, port), by) in load {
            let name = &self.core.network.switches[&node].ports[&port].name;
            let is_here = |end: &End| end.node == node && end.port.as_str() == name;
            let network = &self.core.network;
            let mut links = network.declared.fabric().iter().map(|ix| network.link(*ix));
            let link = links.find(|link| is_here(&link.a) || is_here(&link.b));
            let Some(capacity) = link.and_then(|link| link.capacity) else { continue };
            let share =
                |((slice, direction, at), times): (&(SliceId, Direction, NodeName), &u64)| {
                    let meter = self.meter(switches, at, (*slice, *direction));
                    meter.map_or(0, |meter| self.entering(meter, at)) * times
                };
            let sum: u64 = by.iter().map(share).sum();
            if u128::from(sum) * 1_554 * 100 > u128::from(capacity.bps()) * 97 * 1_500 {
                wrong.insert((format!("{node} {}", port.0), "overload"));
            }
        }
    }
}

impl Session {
    /// Where packets to the UE go.
    fn to(&self) -> Gtp {
        (self.downlink.gnb, self.downlink.teid, self.downlink.qfi)
    }

    /// A frame of the UE as its gNB sends it (TS 29.281 §5.1, TS 38.415 §5.5.2.2).
    fn around(&self, frame: &[u8], qfi: u8) -> Vec<u8> {
        let inner = &frame[14..];
        let mut message = vec![0x34, 255];
        message.extend((inner.len() as u16 + 8).to_be_bytes());
        message.extend(self.uplink_teid.to_be_bytes());
        message.extend([0, 0, 0, 0x85, 1, 0x10, qfi, 0]);
        message.extend(inner);
        let (IpAddr::V4(from), IpAddr::V4(to)) = (self.downlink.gnb, self.downlink.local) else {
            panic!("tunnels of IPv4")
        };
        let len = 8 + message.len() as u16;
        let mut packet = vec![0x45, 0];
        packet.extend((20 + len).to_be_bytes());
        packet.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
        packet.extend([from.octets(), to.octets()].concat());
        packet.extend([2152, 2152, len, 0].iter().flat_map(|word: &u16| word.to_be_bytes()));
        [&gateway::MAC[..], &frame[6..12], &[8, 0], &packet, &message].concat()
    }
}

/// What a frame is in, if it is GTP-U over IPv4.
fn tunnel_of(frame: &[u8]) -> Option<Gtp> {
    let is_gtpu = frame.len() > 56
        && frame[12..15] == [8, 0, 0x45]
        && frame[23] == 17
        && frame[36..38] == 2152u16.to_be_bytes();
    let at = |from: usize| <[u8; 4]>::try_from(&frame[from..from + 4]).expect("four bytes");
    is_gtpu.then(|| (IpAddr::from(at(30)), u32::from_be_bytes(at(46)), frame[56]))
}

impl Host {
    fn has(&self, prefix: ipnet::IpNet) -> bool {
        let own = |address: &IpAddr| prefix == ipnet::IpNet::from(*address);
        self.addresses.iter().any(own)
    }
}

fn total(slice: &NetworkSlice, direction: Direction) -> u64 {
    let rates = match direction {
        Direction::Downlink => &slice.downlink,
        Direction::Uplink => &slice.uplink,
    };
    rates.guaranteed.map_or(0, |rate| rate.bps())
}

fn loaded(load: &mut Load, from: &Host, fate: &Fate) {
    for link in &fate.links {
        let times = fate.links.iter().filter(|other| *other == link).count() as u64;
        let by = (from.slice, from.direction, from.at.0.clone());
        let most = load.entry(link.clone()).or_default().entry(by).or_default();
        *most = times.max(*most);
    }
}

fn families(from: &Host, to: &Host) -> Vec<(IpAddr, IpAddr)> {
    let both = from.addresses.iter().flat_map(|s| to.addresses.iter().map(move |d| (*s, *d)));
    both.filter(|(s, d)| s.is_ipv4() == d.is_ipv4()).collect()
}

/// A UDP packet of no bytes.
fn frame(mac: [u8; 6], source: IpAddr, destination: IpAddr, (from, to): (u16, u16)) -> Vec<u8> {
    let mut frame = [&gateway::MAC[..], &mac].concat();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = vec![0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0];
            header.extend([source.octets(), destination.octets()].concat());
            let words = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
            let sum = words.sum::<u32>();
            let sum = (sum & 0xffff) + (sum >> 16);
            let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            frame.extend([&[0x08, 0x00], header.as_slice()].concat());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 17, 64]);
            frame.extend([source.octets(), destination.octets()].concat());
        }
        _ => panic!("two families"),
    }
    frame.extend([&from.to_be_bytes()[..], &to.to_be_bytes(), &[0, 8, 0, 0]].concat());
    frame
}
