//! N3: what a gNB sends to an address of this switch (GTP-U, TS 29.281), and the tunnel that
//! leads to it.

use std::net::IpAddr;

use super::{
    Run, Step, Verdict,
    frame::{self, Packet, Version},
    icmp::Bound,
    wire::{self, GTP_PORT, Profile, UDP},
};
use crate::{DropReason, GtpSessionEntry, PortId, TableKind, Tunnel, entry::gateway, prefix};

const ECHO_REQUEST: u8 = 1;
const ECHO_RESPONSE: u8 = 2;
const ERROR_INDICATION: u8 = 26;
const SUPPORTED_EXTENSION_HEADERS: u8 = 31;
const END_MARKER: u8 = 254;
const G_PDU: u8 = 255;

const UDP_PORT: u8 = 0x40;
const PDU_SESSION_CONTAINER: u8 = 0x85;
/// PDU types of a container (TS 38.415 §5.5.3.1).
const DOWN: u8 = 0;
const UP: u8 = 1;
/// Extension headers, and bytes of a header with all of them, that are followed.
const MAX_EXTENSIONS: usize = 4;
const MAX_HEADER_LEN: usize = 128;

struct Message<'a> {
    kind: u8,
    teid: u32,
    sequence: Option<u16>,
    /// PDU type and QFI.
    container: Option<(u8, u8)>,
    /// Behind the header.
    body: &'a [u8],
}

enum Refusal {
    Malformed,
    /// A message type that has no meaning here.
    Unknown,
    /// An extension header that we had to understand.
    NotUnderstood,
}

fn message(payload: &[u8]) -> Result<Message<'_>, Refusal> {
    use Refusal::Malformed;
    let [flags, kind, len_high, len_low, teid @ ..]: [u8; 8] =
        frame::array(payload, 0).ok_or(Malformed)?;
    let len = 8 + usize::from(u16::from_be_bytes([len_high, len_low]));
    if flags >> 4 != 3 {
        return Err(Malformed);
    }
    let payload = payload.get(..len).ok_or(Malformed)?;
    let known = [
        ECHO_REQUEST,
        ECHO_RESPONSE,
        ERROR_INDICATION,
        SUPPORTED_EXTENSION_HEADERS,
        END_MARKER,
        G_PDU,
    ];
    if !known.contains(&kind) {
        return Err(Refusal::Unknown);
    }
    let (mut sequence, mut container, mut body) = (None, None, &payload[8..]);
    if flags & 7 != 0 {
        let optional: [u8; 4] = frame::array(payload, 8).ok_or(Malformed)?;
        body = &payload[12..];
        sequence = (flags & 2 != 0).then(|| u16::from_be_bytes([optional[0], optional[1]]));
        if flags & 4 != 0 {
            (container, body) = extensions(optional[3], body)?;
        }
    }
    if kind == G_PDU && body.is_empty() {
        return Err(Malformed);
    }
    Ok(Message { kind, teid: u32::from_be_bytes(teid), sequence, container, body })
}

/// The container among the extension headers at the start of `rest`, of which the first is of type
/// `kind`; and what is behind the last.
#[expect(clippy::type_complexity, reason = "a pair within a pair, named above")]
fn extensions(mut kind: u8, mut rest: &[u8]) -> Result<(Option<(u8, u8)>, &[u8]), Refusal> {
    use Refusal::Malformed;
    let mut room = MAX_HEADER_LEN - 12;
    let mut container = None;
    for _ in 0..MAX_EXTENSIONS {
        if kind == 0 {
            break;
        }
        let len = 4 * usize::from(*rest.first().ok_or(Malformed)?);
        if len == 0 || len > room {
            return Err(Malformed);
        }
        let (header, behind) = rest.split_at_checked(len).ok_or(Malformed)?;
        if kind == PDU_SESSION_CONTAINER {
            let found = (header[1] >> 4, header[2] & 0x3f);
            if found.0 > UP || container.replace(found).is_some() {
                return Err(Malformed);
            }
        } else if kind & 0x80 != 0 {
            return Err(Refusal::NotUnderstood);
        }
        kind = header[len - 1];
        (rest, room) = (behind, room - len);
    }
    if kind == 0 { Ok((container, rest)) } else { Err(Malformed) }
}

impl Run<'_> {
    /// A packet to one of this switch's own addresses, from an access port.
    pub(super) fn n3(&mut self, port: PortId, frame: &[u8], outer: &Packet) -> Step {
        self.hit(TableKind::N3Address, outer.destination, "this switch");
        // Fragments are not put together.
        let from = match (outer.protocol, outer.ports) {
            (UDP, Some((from, GTP_PORT))) if !outer.is_fragment => from,
            _ => return Err(DropReason::CoreAddress),
        };
        let payload = datagram(outer).ok_or(DropReason::GtpMalformed)?;
        let message = match message(payload) {
            Ok(message) => message,
            Err(Refusal::Malformed) => return Err(DropReason::GtpMalformed),
            Err(Refusal::Unknown) => return Err(DropReason::GtpUnexpected),
            Err(Refusal::NotUnderstood) => {
                self.bound(port, frame, outer.source)?.ok_or(DropReason::SpoofedSource)?;
                let types = [141, 2, UDP_PORT, PDU_SESSION_CONTAINER];
                let body = [&[0x32, SUPPORTED_EXTENSION_HEADERS, 0, 8], &[0; 8][..], &types];
                return answer(port, frame, outer, from, &body.concat());
            }
        };
        match message.kind {
            G_PDU => self.uplink(port, frame, outer, from, &message),
            ECHO_REQUEST => {
                let [high, low] = message.sequence.ok_or(DropReason::GtpMalformed)?.to_be_bytes();
                self.bound(port, frame, outer.source)?.ok_or(DropReason::SpoofedSource)?;
                // Recovery: a restart counter of 0 (TS 29.281 §8.2).
                let body = [0x32, ECHO_RESPONSE, 0, 6, 0, 0, 0, 0, high, low, 0, 0, 14, 0];
                answer(port, frame, outer, from, &body)
            }
            END_MARKER => Err(DropReason::EndMarker),
            ERROR_INDICATION => Err(DropReason::ErrorIndication),
            _ => Err(DropReason::GtpUnexpected),
        }
    }

    fn uplink(
        &mut self,
        port: PortId,
        frame: &[u8],
        outer: &Packet,
        from: u16,
        message: &Message<'_>,
    ) -> Step {
        let key = format!("teid {:#x}", message.teid);
        let Some(session) = self.switch.session(message.teid).copied() else {
            self.miss(TableKind::GtpSession, key);
            self.bound(port, frame, outer.source)?.ok_or(DropReason::SpoofedSource)?;
            return answer(port, frame, outer, from, &error_indication(message.teid, from, outer));
        };
        self.hit(TableKind::GtpSession, key, format_args!("slice set {}", session.slice_set.0));
        if (session.port, session.gnb) != (port, outer.source) {
            self.bound(port, frame, outer.source)?;
            return Err(DropReason::SpoofedSource);
        }
        match message.container {
            Some((DOWN, _)) => return Err(DropReason::GtpUnexpected),
            _ if session.qfis == 0 => {}
            Some((_, qfi)) if session.qfis >> qfi & 1 == 1 => {}
            _ => return Err(DropReason::QfiNotAllowed),
        }
        let (version, source) = inner_source(message.body).ok_or(DropReason::Malformed)?;
        if !is_ue(&session, source) {
            return Err(DropReason::SpoofedSource);
        }
        // The frame ends where the message does.
        let ecn = |class: u8| class & 3;
        let class = match version {
            Version::V4 => message.body[1],
            Version::V6 => message.body[1] >> 4,
        };
        let told = ecn(outer.traffic_class());
        if told == wire::ECN_CE && ecn(class) == 0 {
            return Err(DropReason::Malformed);
        }
        let mut packet = Packet::parse(version, message.body)?;
        if told & 1 == 1 && (1..=2).contains(&ecn(class)) {
            packet.set_ecn(told);
        }
        let GtpSessionEntry { teid, slice_set, direction, endpoint, tag, .. } = session;
        let bound = Bound { slice_set, direction, endpoint, tag, tunnel: Some(teid) };
        self.carried(frame, packet, bound)
    }
}

/// Payload of the datagram that the packet is. `None`: its length contradicts the packet.
fn datagram(packet: &Packet) -> Option<&[u8]> {
    let header_len = match packet.version {
        Version::V4 => 4 * usize::from(packet.bytes[0] & 0xf),
        Version::V6 => wire::IPV6_LEN,
    };
    let datagram = &packet.bytes[header_len..];
    let len = usize::from(frame::word(datagram, 4)?);
    frame::word(datagram, 6)?;
    datagram.get(8..len)
}

/// Where a UE's packet comes from, if its header is there.
fn inner_source(packet: &[u8]) -> Option<(Version, IpAddr)> {
    match packet[0] >> 4 {
        4 => {
            frame::array::<20>(packet, 0)?;
            Some((Version::V4, IpAddr::from(frame::array::<4>(packet, 12)?)))
        }
        6 => {
            frame::array::<{ wire::IPV6_LEN }>(packet, 0)?;
            Some((Version::V6, frame::ipv6_at(packet, 8)?.into()))
        }
        _ => None,
    }
}

fn is_ue(session: &GtpSessionEntry, source: IpAddr) -> bool {
    match source {
        IpAddr::V4(source) => session.ue_ipv4 == Some(source),
        IpAddr::V6(source) => {
            session.ue_ipv6.is_some_and(|net| prefix::contains(net.into(), source.into()))
        }
    }
}

/// TS 29.281 §7.3.1, with the UDP port extension header (§5.2.2.1).
fn error_indication(teid: u32, from: u16, outer: &Packet) -> Vec<u8> {
    let own = match outer.destination {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let len = 16 + own.len() as u16;
    let mut body = vec![0x36, ERROR_INDICATION];
    body.extend(len.to_be_bytes());
    body.extend([0, 0, 0, 0, 0, 0, 0, UDP_PORT, 1]);
    body.extend(from.to_be_bytes());
    body.extend([0, 16]);
    body.extend(teid.to_be_bytes());
    body.push(133);
    body.extend((own.len() as u16).to_be_bytes());
    body.extend(own);
    body
}

/// `message` back to who sent `outer`, from the address that it was for.
fn answer(port: PortId, frame: &[u8], outer: &Packet, to_port: u16, message: &[u8]) -> Step {
    let to = frame::ethernet_source(frame)?;
    let ends = (outer.destination, outer.source);
    let udp = Datagram { ends, ports: (GTP_PORT, to_port), checksum: true };
    let mut frame = frame::ethernet(to, gateway::MAC, outer.version.ethertype());
    frame.extend(udp.around(0, 0, message));
    Ok(Verdict::Answer { port, frame })
}

/// A user's packet in its tunnel, as an IP packet.
pub(super) fn tunnelled(tunnel: &Tunnel, profile: Profile, packet: &Packet) -> Vec<u8> {
    let (ports, protocol) = packet.flow();
    let label = wire::flow_label(packet.source, packet.destination, ports, protocol);
    let mut message = vec![0x34, G_PDU];
    message.extend((packet.bytes.len() as u16 + 8).to_be_bytes());
    message.extend(tunnel.teid.to_be_bytes());
    message.extend([0, 0, 0, PDU_SESSION_CONTAINER, 1, DOWN << 4, tunnel.qfi, 0]);
    message.extend(&packet.bytes);
    let class = profile.dscp() << 2 | packet.traffic_class() & 3;
    let from = 0xc000 | (label & 0x3fff) as u16;
    let ends = (tunnel.local, tunnel.gnb);
    Datagram { ends, ports: (from, GTP_PORT), checksum: false }.around(class, label, &message)
}

struct Datagram {
    ends: (IpAddr, IpAddr),
    ports: (u16, u16),
    /// Over IPv6; over IPv4 there is none.
    checksum: bool,
}

impl Datagram {
    fn around(&self, class: u8, label: u32, payload: &[u8]) -> Vec<u8> {
        let len = (8 + payload.len()) as u16;
        let mut udp = [self.ports.0, self.ports.1, len, 0].map(u16::to_be_bytes).concat();
        udp.extend(payload);
        let mut packet = Vec::new();
        match self.ends {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                packet.extend([0x45, class]);
                packet.extend((20 + len).to_be_bytes());
                packet.extend([0, 0, 0x40, 0, 64, UDP, 0, 0]);
                packet.extend(from.octets());
                packet.extend(to.octets());
                let checksum = !frame::sum(&packet);
                packet[10..12].copy_from_slice(&checksum.to_be_bytes());
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                packet.extend((6 << 28 | u32::from(class) << 20 | label).to_be_bytes());
                packet.extend(len.to_be_bytes());
                packet.extend([UDP, 64]);
                packet.extend(from.octets());
                packet.extend(to.octets());
                if self.checksum {
                    let pseudo = [&packet[8..40], &[0, UDP], &len.to_be_bytes(), &udp].concat();
                    let checksum = match !frame::sum(&pseudo) {
                        0 => 0xffff,
                        checksum => checksum,
                    };
                    udp[6..8].copy_from_slice(&checksum.to_be_bytes());
                }
            }
            _ => unreachable!("the codec takes ends of one version only"),
        }
        packet.extend(udp);
        packet
    }
}
