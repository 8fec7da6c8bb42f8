//! What the sender of a packet is told of it when it goes no further (RFC 792, 1191, 4443).

use std::net::{IpAddr, Ipv6Addr};

use super::access::routable;
use super::frame::{self, Packet, Version};
use super::{Run, Step, Verdict, wire};
use crate::{Direction, DropReason, EndpointId, EndpointTag, PortId, SliceSet, entry::gateway};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    TimeExceeded,
    /// The longest that would have gone, bytes.
    TooBig(usize),
}

/// Where the sender of a packet is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sender<'a> {
    /// At this port, where the frame came in.
    Here(PortId, &'a [u8]),
    /// Behind a tunnel or at another switch: the link-layer address that the frame came from, and
    /// what is known of the sender.
    Elsewhere([u8; 6], Bound),
}

/// What is known of who sends a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    pub(super) slice_set: SliceSet,
    pub(super) direction: Direction,
    /// Whose rates hold.
    pub(super) endpoint: EndpointId,
    pub(super) tag: EndpointTag,
    /// TEID of the tunnel that the packet came in.
    pub(super) tunnel: Option<u32>,
}

impl Bound {
    /// By a slice alone.
    pub(super) fn of_slice(slice_set: SliceSet, direction: Direction) -> Self {
        let (endpoint, tag) = (EndpointId::NONE, EndpointTag::NONE);
        Self { slice_set, direction, endpoint, tag, tunnel: None }
    }
}

/// A packet that may turn out to be too big, and who is told then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told<'a> {
    /// As it came.
    pub(super) packet: &'a Packet,
    pub(super) sender: Sender<'a>,
}

impl Notice {
    fn reason(self) -> DropReason {
        match self {
            Self::TimeExceeded => DropReason::HopLimit,
            Self::TooBig(_) => DropReason::TooBig,
        }
    }

    /// Type and code of both versions.
    fn kind(self, version: Version) -> [u8; 2] {
        match (self, version) {
            (Self::TimeExceeded, Version::V4) => [11, 0],
            (Self::TooBig(_), Version::V4) => [3, 4],
            (Self::TimeExceeded, Version::V6) => [3, 0],
            (Self::TooBig(_), Version::V6) => [2, 0],
        }
    }
}

impl Run<'_> {
    pub(super) fn tell(&mut self, notice: Notice, Told { packet, sender }: Told<'_>) -> Step {
        let header = if packet.version == Version::V4 { 20 } else { wire::IPV6_LEN };
        let Some(quote) = packet.bytes.get(..header + 8) else { return Err(notice.reason()) };
        let first = quote[header];
        let exempt = match packet.version {
            Version::V4 => {
                let fits_otherwise = matches!(notice, Notice::TooBig(_)) && quote[6] & 0x40 == 0;
                let error = quote[9] == ICMP && first != 0 && first != 8;
                quote[0] != 0x45 || packet.is_fragment || error || fits_otherwise
            }
            Version::V6 => {
                matches!(quote[6], 0 | 43 | 44 | 51 | 60) || quote[6] == ICMPV6 && first < 128
            }
        };
        if exempt || !routable(packet.source) || !routable(packet.destination) {
            return Err(notice.reason());
        }
        match sender {
            Sender::Here(port, frame) => {
                if self.switch.endpoint(port, packet.source).is_none() {
                    return Err(DropReason::SpoofedSource);
                }
                let own = match packet.version {
                    Version::V4 => gateway::IPV4.into(),
                    Version::V6 => gateway::IPV6.into(),
                };
                let to = frame::ethernet_source(frame)?;
                let mut frame = frame::ethernet(to, gateway::MAC, packet.version.ethertype());
                frame.extend(message(notice, own, packet.source, quote));
                Ok(Verdict::Answer { port, frame })
            }
            Sender::Elsewhere(mac, Bound { slice_set, direction, .. }) => {
                if slice_set.0 == 0 {
                    return Err(notice.reason());
                }
                let bytes = message(notice, packet.destination, packet.source, quote);
                let mut frame = frame::ethernet(mac, gateway::MAC, packet.version.ethertype());
                frame.extend(&bytes);
                let packet = Packet::parse(packet.version, &bytes)?;
                let back = match direction {
                    Direction::Uplink => Direction::Downlink,
                    Direction::Downlink => Direction::Uplink,
                };
                self.carried(&frame, packet, Bound::of_slice(slice_set, back))
            }
        }
    }
}

/// As an IP packet.
fn message(notice: Notice, from: IpAddr, to: IpAddr, quote: &[u8]) -> Vec<u8> {
    let mtu = match notice {
        Notice::TimeExceeded => 0,
        Notice::TooBig(mtu) => mtu as u32,
    };
    let of = |version| {
        let mut body = notice.kind(version).to_vec();
        body.extend([0, 0]);
        body.extend(mtu.to_be_bytes());
        body.extend(quote);
        body
    };
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut body = of(Version::V4);
            let checksum = !frame::sum(&body);
            body[2..4].copy_from_slice(&checksum.to_be_bytes());
            let len = (20 + body.len()) as u16; // some sixty bytes
            let mut packet = vec![0x45, 0];
            packet.extend(len.to_be_bytes());
            packet.extend([0, 0, 0x40, 0, 64, ICMP, 0, 0]);
            packet.extend(from.octets());
            packet.extend(to.octets());
            let checksum = !frame::sum(&packet);
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
            packet.extend(body);
            packet
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut body = of(Version::V6);
            let ends: [Ipv6Addr; 2] = [from, to];
            let ends = ends.map(|address| address.octets()).concat();
            let len = (body.len() as u16).to_be_bytes();
            let pseudo = [&ends[..], &[0, 0], &len, &[0, 0, 0, ICMPV6], &body].concat();
            let checksum = !frame::sum(&pseudo);
            body[2..4].copy_from_slice(&checksum.to_be_bytes());
            let mut packet = vec![0x60, 0, 0, 0];
            packet.extend(len);
            packet.extend([ICMPV6, 64]);
            packet.extend(ends);
            packet.extend(body);
            packet
        }
        _ => unreachable!("of one packet"),
    }
}
