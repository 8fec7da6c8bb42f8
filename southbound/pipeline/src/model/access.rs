//! Step B: what an endpoint sends. Gateway questions are answered, everything else is bound
//! to its port, routed in its slices, metered, and delivered or encapsulated.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    Run, Seen, Step, Verdict,
    fabric::Link,
    frame::{self, Outer, Packet, Version},
    icmp::{Bound, Notice, Sender, Told},
    wire::{self, Profile},
};
use crate::{
    ClassifierAction, ClassifierEntry, Direction, DropReason, EndpointEntry, EndpointId,
    EndpointTag, PortId, RouteAction, SliceId, SliceMeterEntry, SliceSet, TableKind,
    entry::gateway, paths, prefix,
};

const ICMPV6: u8 = 58;
const ROUTER_SOLICITATION: u8 = 133;
const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
/// Router solicitation to redirect (RFC 4861 §4).
const NEIGHBOR_DISCOVERY: std::ops::RangeInclusive<u8> = 133..=137;

/// From a client's port to a server's (RFC 2131 §4.1, RFC 8415 §7.2).
const DHCP_PORTS: (u16, u16) = (68, 67);
const DHCPV6_PORTS: (u16, u16) = (546, 547);
const UDP_LEN: usize = 8;
/// RFC 8415 §7.1.
const ALL_DHCP_AGENTS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

impl Run<'_> {
    pub(super) fn access(&mut self, port: PortId, frame: &[u8]) -> Step {
        let payload = frame::payload(frame);
        let packet = match frame::ethertype(frame)? {
            wire::ETHERTYPE_ARP => return self.arp(port, frame),
            wire::ETHERTYPE_IPV4 => Packet::parse(Version::V4, payload)?,
            wire::ETHERTYPE_IPV6 => Packet::parse(Version::V6, payload)?,
            _ => return Err(DropReason::Unsupported),
        };
        if packet.version == Version::V6
            && let Some(answer) = self.ipv6_local(port, frame, &packet)?
        {
            return Ok(answer);
        }
        if self.switch.is_n3(packet.destination) {
            return self.n3(port, frame, &packet);
        }
        self.enter(frame, packet, Sender::Here(port, frame))
    }

    /// A UE's packet out of its tunnel, or one of this switch's own. What a link's neighbors ask has
    /// no meaning there, and what is the core's own is not for UEs.
    pub(super) fn carried(&mut self, frame: &[u8], packet: Packet, bound: Bound) -> Step {
        let discovery = packet.protocol == ICMPV6
            && packet.version == Version::V6
            && packet.bytes.get(wire::IPV6_LEN).is_some_and(|t| NEIGHBOR_DISCOVERY.contains(t));
        let multicast = matches!(packet.destination, IpAddr::V6(v6) if v6.is_multicast());
        if discovery || multicast {
            return Err(DropReason::Unsupported);
        }
        if self.switch.is_n3(packet.destination) {
            return Err(DropReason::CoreAddress);
        }
        let sender = Sender::Elsewhere(frame::ethernet_source(frame)?, bound);
        self.enter(frame, packet, sender)
    }

    /// What a PDU session says of the sender is in place of `endpoint`.
    fn enter(&mut self, frame: &[u8], mut packet: Packet, sender: Sender<'_>) -> Step {
        if packet.bytes.len() > wire::ACCESS_MTU {
            return self.tell(Notice::TooBig(wire::ACCESS_MTU), Told { packet: &packet, sender });
        }
        let block = |v6: Ipv6Addr| v6.segments()[0] == 0x5f00;
        if matches!(packet.destination, IpAddr::V6(v6) if block(v6)) {
            return Err(DropReason::Srv6FromAccess);
        }
        packet.look_behind_extensions()?;
        if matches!(sender, Sender::Elsewhere(..))
            && packet.protocol == wire::UDP
            && packet.ports.is_some_and(|(_, to)| to == wire::GTP_PORT)
        {
            return Err(DropReason::GtpInGtp);
        }
        self.ingress(frame, packet, sender)
    }

    /// A frame on a port without an entry goes nowhere, but shows who is there.
    pub(super) fn unassigned(&mut self, port: PortId, frame: &[u8]) {
        let v4 =
            |at| frame::array::<4>(frame, at).map(|octets| IpAddr::from(Ipv4Addr::from(octets)));
        let (source, header) = match frame::ethertype(frame) {
            Ok(wire::ETHERTYPE_ARP) => (v4(28), 28),
            Ok(wire::ETHERTYPE_IPV4) => (v4(26), 20),
            Ok(wire::ETHERTYPE_IPV6) => {
                (frame::ipv6_at(frame, 22).map(IpAddr::from), wire::IPV6_LEN)
            }
            _ => return,
        };
        let whole = frame.len() >= wire::ETHERNET_LEN + header;
        let fabric = |address| matches!(address, IpAddr::V6(v6) if v6.segments()[0] == 0x5f00);
        if let Some(address) =
            source.filter(|source| whole && routable(*source) && !fabric(*source))
            && let Ok(mac) = frame::ethernet_source(frame)
        {
            self.seen = Some(Seen { port, mac, address });
        }
    }

    /// B.4 to B.10.
    fn ingress(&mut self, frame: &[u8], mut packet: Packet, sender: Sender<'_>) -> Step {
        let bound = match sender {
            Sender::Elsewhere(_, bound) => bound,
            Sender::Here(port, frame) => {
                let nobody = packet.source == Ipv4Addr::UNSPECIFIED;
                match self.bound(port, frame, packet.source)? {
                    Some(EndpointEntry { slice_set, direction, endpoint, tag, .. }) => {
                        Bound { slice_set, direction, endpoint, tag, tunnel: None }
                    }
                    None if nobody => return dhcp(&packet),
                    None => return Err(DropReason::SpoofedSource),
                }
            }
        };
        if !routable(packet.destination) {
            return match (sender, packet.version) {
                (Sender::Here(..), Version::V4) => dhcp(&packet),
                _ => Err(DropReason::Unsupported),
            };
        }
        if packet.hop_limit() <= 1 {
            return match sender {
                Sender::Elsewhere(..) => Err(DropReason::HopLimit),
                Sender::Here(..) => {
                    self.tell(Notice::TimeExceeded, Told { packet: &packet, sender })
                }
            };
        }
        let mut came = packet.clone();
        packet.decrement_hop_limit();

        let mut rules = self.switch.rules();
        let rule = rules.find(|rule| matches(rule, &packet, &bound)).copied();
        let Bound { mut slice_set, direction, .. } = bound;
        let mut steered = None;
        if let Some(rule) = rule {
            let detail = match rule.action {
                ClassifierAction::Drop => "drop".to_owned(),
                ClassifierAction::Pass => "pass".to_owned(),
                ClassifierAction::SetSlice(slice) => format!("slice {}", slice.0),
                ClassifierAction::Mark(dscp) => format!("mark with DSCP {dscp}"),
                ClassifierAction::Steer(policy) => format!("steer to policy {}", policy.0),
            };
            self.hit(
                TableKind::Classifier,
                flow(&packet, &bound),
                format_args!("rule {}: {detail}", rule.priority),
            );
            match rule.action {
                ClassifierAction::Drop => return Err(DropReason::ClassifierDrop),
                ClassifierAction::Pass => {}
                ClassifierAction::SetSlice(slice) => slice_set = SliceSet(slice.0),
                ClassifierAction::Mark(dscp) => {
                    packet.set_dscp(dscp);
                    // Who is told of it sees it so (RFC 1812 §4.3.2.3).
                    came.set_dscp(dscp);
                }
                ClassifierAction::Steer(policy) => steered = Some(RouteAction::Policy(policy)),
            }
        }

        let key = format!("slice set {}, {}", slice_set.0, packet.destination);
        let Some(route) = self.switch.route(slice_set, packet.destination).copied() else {
            self.miss(TableKind::SliceRoute, key);
            return Err(DropReason::NoRoute);
        };
        let target = match route.action {
            RouteAction::Local => "local".to_owned(),
            RouteAction::Policy(policy) => format!("policy {}", policy.0),
        };
        self.hit(
            TableKind::SliceRoute,
            key,
            format_args!("{}: slice {}, {target}", route.prefix, route.slice.0),
        );
        let endpoint = match direction {
            Direction::Uplink => bound.endpoint,
            Direction::Downlink => route.endpoint,
        };
        self.endpoint_meter(route.slice, direction, endpoint);
        let profile = self.meter(route.slice, direction).unwrap_or(Profile::BEST_EFFORT);

        match steered.unwrap_or(route.action) {
            RouteAction::Local => {
                let told = Told { packet: &came, sender };
                self.deliver(route.slice, profile, &packet, told)
            }
            RouteAction::Policy(id) => {
                let key = format!("policy {}", id.0);
                let Some(policy) = self.switch.policy(id) else {
                    self.miss(TableKind::Policy, key);
                    return Err(DropReason::NoPolicy);
                };
                let (ports, protocol) = packet.flow();
                let label = wire::flow_label(packet.source, packet.destination, ports, protocol);
                let (at, of) = (paths::choose(&policy.paths, label), policy.paths.len());
                let sids = policy.paths[at].sids.clone();
                let ids = sids.iter().map(|sid| format!("{sid:x}")).collect::<Vec<_>>().join(":");
                let which =
                    if of > 1 { format!("path {} of {of}, ", at + 1) } else { String::new() };
                self.hit(TableKind::Policy, key, format_args!("{which}segments {ids}"));
                let outer = self.encapsulate(&packet, &sids, profile, (route.slice, direction));
                // A fresh header is not counted down by the switch that wrote it.
                self.segments(outer, Link { addresses: frame::addresses(frame)?, fresh: true })
            }
        }
    }

    fn encapsulate(
        &self,
        packet: &Packet,
        sids: &[u16],
        profile: Profile,
        (slice, direction): (SliceId, Direction),
    ) -> Outer {
        let class = profile.dscp() << 2 | packet.traffic_class() & 3; // RFC 6040 §4.1
        let (ports, protocol) = packet.flow();
        let label = wire::flow_label(packet.source, packet.destination, ports, protocol);
        let first = 6 << 28 | u32::from(class) << 20 | label;
        let payload_len = packet.bytes.len() as u16; // at most the access MTU
        let mut bytes = Vec::with_capacity(wire::IPV6_LEN + packet.bytes.len());
        bytes.extend_from_slice(&first.to_be_bytes());
        bytes.extend_from_slice(&payload_len.to_be_bytes());
        bytes.extend_from_slice(&[packet.version.protocol(), wire::HOP_LIMIT]);
        let source = wire::outer_source(self.switch.node(), slice, direction, self.switch.mark());
        bytes.extend_from_slice(&source.octets());
        bytes.extend_from_slice(&wire::outer_destination(sids).octets());
        bytes.extend_from_slice(&packet.bytes);
        Outer { bytes }
    }

    /// Step B.9 of an endpoint's own rates. With full buckets they change nothing.
    fn endpoint_meter(&mut self, slice: SliceId, direction: Direction, endpoint: EndpointId) {
        if endpoint == EndpointId::NONE {
            return;
        }
        let key = format!("slice {}, {}, endpoint {}", slice.0, word(direction), endpoint.0);
        let Some(meter) = self.switch.endpoint_meter(slice, direction, endpoint) else {
            return self.miss(TableKind::EndpointMeter, key);
        };
        let (guaranteed, maximum) = (meter.guaranteed_bps, meter.maximum_bps);
        let detail = format!("{guaranteed} bit/s guaranteed, {maximum} bit/s at most; 0: none");
        self.hit(TableKind::EndpointMeter, key, detail);
    }

    /// Step B.9, with a full bucket. `None`: the slice is not metered here.
    pub(super) fn meter(&mut self, slice: SliceId, direction: Direction) -> Option<Profile> {
        let key = format!("slice {}, {}", slice.0, word(direction));
        let Some(meter) = self.switch.meter(slice, direction) else {
            self.miss(TableKind::SliceMeter, key);
            return None;
        };
        let profile = full_bucket(meter);
        self.hit(TableKind::SliceMeter, key, profile);
        Some(profile)
    }

    /// The endpoint that `source` is on this port; reports it when there is none.
    pub(super) fn bound(
        &mut self,
        port: PortId,
        frame: &[u8],
        source: IpAddr,
    ) -> Result<Option<EndpointEntry>, DropReason> {
        let key = format!("port {}, {source}", port.0);
        let Some(endpoint) = self.switch.endpoint(port, source).copied() else {
            self.miss(TableKind::Endpoint, key);
            self.reveal(port, frame, source)?;
            return Ok(None);
        };
        let (set, way) = (endpoint.slice_set.0, word(endpoint.direction));
        self.hit(
            TableKind::Endpoint,
            key,
            format_args!("{}: slice set {set}, {way}", endpoint.prefix),
        );
        Ok(Some(endpoint))
    }

    /// An address that cannot be an endpoint's is not worth a report.
    fn reveal(&mut self, port: PortId, frame: &[u8], address: IpAddr) -> Result<(), DropReason> {
        if routable(address) {
            self.seen = Some(Seen { port, mac: frame::ethernet_source(frame)?, address });
        }
        Ok(())
    }

    /// B.1 for ARP (RFC 826): the gateway or an N3 address is asked for, by somebody who belongs
    /// here.
    fn arp(&mut self, port: PortId, frame: &[u8]) -> Step {
        let arp: [u8; 28] = frame::array(frame, wire::ETHERNET_LEN).ok_or(DropReason::Malformed)?;
        if arp[..6] != [0, 1, 8, 0, 6, 4] {
            return Err(DropReason::Unsupported);
        }
        let [sender, target] =
            [14, 24].map(|at| Ipv4Addr::from(frame::array::<4>(&arp, at).expect("28 bytes")));
        let bound = self.bound(port, frame, sender.into())?;
        if arp[6..8] != [0, 1] || !(target == gateway::IPV4 || self.switch.is_n3(target.into())) {
            return Err(DropReason::Unsupported);
        }
        if bound.is_none() {
            return Err(DropReason::SpoofedSource);
        }
        let mut answer = frame.to_vec();
        let mut put = |at: usize, bytes: &[u8]| answer[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &frame[6..12]);
        put(6, &gateway::MAC);
        put(20, &[0, 2]);
        put(22, &gateway::MAC);
        put(28, &target.octets());
        put(32, &arp[8..18]); // the sender's pair becomes the target's
        Ok(Verdict::Answer { port, frame: answer })
    }

    /// B.1 for IPv6: neighbor discovery and multicast end here. `None`: an ordinary packet.
    fn ipv6_local(
        &mut self,
        port: PortId,
        frame: &[u8],
        packet: &Packet,
    ) -> Result<Option<Verdict>, DropReason> {
        let message = &packet.bytes[wire::IPV6_LEN..];
        match message.first() {
            Some(&NEIGHBOR_SOLICITATION) if packet.protocol == ICMPV6 => {
                self.solicitation(port, frame, packet).map(Some)
            }
            Some(&ROUTER_SOLICITATION) if packet.protocol == ICMPV6 => {
                self.router_solicitation(port, frame, packet).map(Some)
            }
            Some(kind) if packet.protocol == ICMPV6 && NEIGHBOR_DISCOVERY.contains(kind) => {
                Err(DropReason::Unsupported)
            }
            _ if packet.destination == ALL_DHCP_AGENTS
                && link_local(packet.source)
                && packet.protocol == wire::UDP
                && packet.ports == Some(DHCPV6_PORTS)
                && message.len() >= UDP_LEN =>
            {
                Ok(Some(Verdict::PassToKernel))
            }
            _ if packet.destination.is_multicast() => Err(DropReason::Unsupported),
            _ => Ok(None),
        }
    }

    /// A router solicitation (RFC 4861 §6.1.1), which the agent answers.
    fn router_solicitation(&mut self, port: PortId, frame: &[u8], packet: &Packet) -> Step {
        if packet.bytes.len() < wire::IPV6_LEN + 8 {
            return Err(DropReason::Malformed);
        }
        if packet.hop_limit() != 255 {
            return Err(DropReason::Unsupported);
        }
        let nobody = packet.source.is_unspecified() || link_local(packet.source);
        if !nobody && self.bound(port, frame, packet.source)?.is_none() {
            return Err(DropReason::SpoofedSource);
        }
        Ok(Verdict::PassToKernel)
    }

    /// A neighbor solicitation (RFC 4861 §4.3, §7.2.4): answered for the gateway and N3. One for
    /// another address shows its sender, or, in duplicate address detection, its target.
    fn solicitation(&mut self, port: PortId, frame: &[u8], packet: &Packet) -> Step {
        let message = &packet.bytes[wire::IPV6_LEN..];
        let target = frame::ipv6_at(message, 8).ok_or(DropReason::Malformed)?;
        let IpAddr::V6(source) = packet.source else { unreachable!("parsed as IPv6") };
        let shown = if source.is_unspecified() { target } else { source };
        let bound = self.bound(port, frame, shown.into())?.is_some() && shown == source;
        let own = target == gateway::IPV6 || self.switch.is_n3(target.into());
        if !own || packet.hop_limit() != 255 {
            return Err(DropReason::Unsupported);
        }
        if !bound && !source.is_unicast_link_local() {
            return Err(DropReason::SpoofedSource);
        }
        let frame = advertisement(frame::ethernet_source(frame)?, source, target);
        Ok(Verdict::Answer { port, frame })
    }
}

fn link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// What IPv4 has to say to the link, or from nobody: DHCP is the agent's, if it is for a relay.
fn dhcp(packet: &Packet) -> Step {
    let to_relay = packet.destination == gateway::IPV4 || packet.destination == Ipv4Addr::BROADCAST;
    let has_header = packet.bytes[0] == 0x45 && packet.bytes.len() >= 20 + UDP_LEN;
    if to_relay
        && has_header
        && !packet.is_fragment
        && packet.protocol == wire::UDP
        && packet.ports == Some(DHCP_PORTS)
    {
        return Ok(Verdict::PassToKernel);
    }
    match packet.source.is_unspecified() {
        true => Err(DropReason::SpoofedSource),
        false => Err(DropReason::Unsupported),
    }
}

/// The neighbor advertisement of `own` (RFC 4861 §4.4): solicited, override, with the gateway's
/// link-layer address.
fn advertisement(to_mac: [u8; 6], to: Ipv6Addr, own: Ipv6Addr) -> Vec<u8> {
    const LEN: u16 = 32;
    let mut message = vec![NEIGHBOR_ADVERTISEMENT, 0, 0, 0, 0x60, 0, 0, 0];
    message.extend_from_slice(&own.octets());
    message.extend_from_slice(&[2, 1]); // target link-layer address, 8 bytes
    message.extend_from_slice(&gateway::MAC);

    let mut frame = frame::ethernet(to_mac, gateway::MAC, wire::ETHERTYPE_IPV6);
    frame.extend_from_slice(&[0x60, 0, 0, 0]);
    frame.extend_from_slice(&LEN.to_be_bytes());
    frame.extend_from_slice(&[ICMPV6, 255]);
    frame.extend_from_slice(&own.octets());
    frame.extend_from_slice(&to.octets());

    // RFC 4443 §2.3: the pseudo-header of RFC 8200 §8.1 comes first.
    let pseudo =
        [&own.octets()[..], &to.octets(), &[0, 0], &LEN.to_be_bytes(), &[0, 0, 0, ICMPV6]].concat();
    let sum = frame::sum(&[pseudo, message.clone()].concat());
    message[2..4].copy_from_slice(&(!sum).to_be_bytes());
    frame.extend_from_slice(&message);
    frame
}

/// B.5: an endpoint's address, and nothing that means something to a link only.
pub(super) fn routable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_multicast()
                || v4.is_broadcast()
                || v4.is_loopback()
                || v4.is_unspecified()
                || v4.is_link_local()) // the gateway is one
        }
        IpAddr::V6(v6) => {
            !(v6.is_multicast()
                || v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unicast_link_local()
                || v6.to_ipv4_mapped().is_some())
        }
    }
}

fn matches(rule: &ClassifierEntry, packet: &Packet, bound: &Bound) -> bool {
    let any = |prefix: Option<ipnet::IpNet>, address| {
        prefix.is_none_or(|prefix| prefix::contains(prefix, address))
    };
    let port = |wanted: Option<[u16; 2]>, found: Option<u16>| {
        wanted.is_none_or(|[first, last]| found.is_some_and(|port| first <= port && port <= last))
    };
    any(rule.source, packet.source)
        && any(rule.destination, packet.destination)
        && rule.protocol.is_none_or(|protocol| protocol == packet.protocol)
        && port(rule.source_ports, packet.ports.map(|(source, _)| source))
        && port(rule.destination_ports, packet.ports.map(|(_, destination)| destination))
        && rule.dscp.is_none_or(|dscp| dscp == packet.traffic_class() >> 2)
        && rule.slice_set.is_none_or(|set| set == bound.slice_set)
        && rule.endpoint_tag.is_none_or(|tag| tag == bound.tag)
        && rule.tunnel_id.is_none_or(|teid| Some(teid) == bound.tunnel)
}

fn flow(packet: &Packet, bound: &Bound) -> String {
    let Packet { source, destination, protocol, .. } = packet;
    let dscp = packet.traffic_class() >> 2;
    let mut flow = match packet.ports {
        Some((from, to)) => format!("{source} port {from} -> {destination} port {to}"),
        None => format!("{source} -> {destination}"),
    };
    flow += &format!(", protocol {protocol}, dscp {dscp}");
    if bound.tag != EndpointTag::NONE {
        flow += &format!(", tag {}", bound.tag.0);
    }
    if let Some(teid) = bound.tunnel {
        flow += &format!(", tunnel {teid:#x}");
    }
    flow
}

fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Uplink => "uplink",
        Direction::Downlink => "downlink",
    }
}

fn full_bucket(meter: &SliceMeterEntry) -> Profile {
    let in_profile = meter.guaranteed_bps != 0 && meter.class != crate::Class::BestEffort;
    Profile { class: meter.class, in_profile }
}
