//! What must hold of any frame that leaves, read with etherparse and not with our own parsers.

use etherparse::{
    ArpPacketSlice, Ethernet2HeaderSlice, Icmpv4Slice, Icmpv6Slice, IpAuthHeaderSlice, IpNumber,
    Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice, Ipv6RawExtHeaderSlice,
    PacketHeaders, TransportHeader, UdpHeaderSlice,
};
use std::net::IpAddr;

use selvedge_pipeline::entry::gateway;
use selvedge_pipeline::model::wire::flow_label;
use selvedge_xdp::Verdict;

use crate::packets::{ACCESS, N3};

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86DD;

/// Protocol, ports, and whether it is a fragment.
type Transport = (u8, Option<(u16, u16)>, bool);

/// A user's packet as etherparse reads it.
#[derive(Debug)]
struct Packet<'a> {
    source: IpAddr,
    destination: IpAddr,
    /// `None`: the extension headers are not as they should be.
    transport: Option<Transport>,
    hop_limit: u8,
    /// What the header's checksum is off by, modulo 0xffff; of IPv6, 0.
    checksum_error: u32,
    /// Behind the header, as long as the header says.
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// `None`: no whole packet.
    fn read(ethertype: u16, bytes: &'a [u8]) -> Option<Self> {
        match ethertype {
            IPV4 => {
                let header = Ipv4HeaderSlice::from_slice(bytes).ok()?;
                let payload_len = usize::from(header.payload_len().ok()?);
                let payload = bytes.get(header.slice().len()..)?.get(..payload_len)?;
                let protocol = header.protocol().0;
                let first = header.fragments_offset().value() == 0;
                let right = u32::from(header.to_header().calc_header_checksum());
                Some(Self {
                    source: header.source_addr().into(),
                    destination: header.destination_addr().into(),
                    transport: Some((
                        protocol,
                        ports(protocol, payload).filter(|_| first),
                        header.is_fragmenting_payload(),
                    )),
                    hop_limit: header.ttl(),
                    checksum_error: (right + 0xffff - u32::from(header.header_checksum())) % 0xffff,
                    payload,
                })
            }
            IPV6 => {
                let header = Ipv6HeaderSlice::from_slice(bytes).ok()?;
                let payload = bytes.get(40..)?.get(..usize::from(header.payload_length()))?;
                Some(Self {
                    source: header.source_addr().into(),
                    destination: header.destination_addr().into(),
                    transport: transport(header.next_header(), payload),
                    hop_limit: header.hop_limit(),
                    checksum_error: 0,
                    payload,
                })
            }
            _ => None,
        }
    }

    /// Is `before`, `hops` further on; or tells its sender, on behalf of where it was to go, that it
    /// is too big.
    fn check(&self, before: &Packet<'_>, hops: u8) {
        let turned = (self.destination, self.source) == (before.source, before.destination);
        if turned && self.payload != before.payload {
            assert_eq!((self.hop_limit, self.checksum_error), (63, 0), "routed");
            let kind = self.check_error(before);
            assert!([[3, 4], [2, 0]].contains(&kind), "{kind:?}");
            return;
        }
        assert_eq!(
            (self.source, self.destination, self.transport, self.payload),
            (before.source, before.destination, before.transport, before.payload)
        );
        assert_eq!(self.hop_limit + hops, before.hop_limit);
        assert_eq!(self.checksum_error, before.checksum_error, "as right as it was");
    }
}

impl Packet<'_> {
    /// An ICMP error about `before`: its type and code.
    fn check_error(&self, before: &Packet<'_>) -> [u8; 2] {
        assert_eq!(self.destination, before.source);
        let quoted = &self.payload[8..];
        let ends: (IpAddr, IpAddr) = match (self.source, self.destination) {
            (IpAddr::V4(_), _) => {
                let message = Icmpv4Slice::from_slice(self.payload).expect("a message");
                let right = message.icmp_type().calc_checksum(message.payload());
                assert_eq!(message.checksum(), right);
                let header = Ipv4HeaderSlice::from_slice(quoted).expect("a header");
                assert_eq!(quoted[20..], before.payload[..8]);
                (header.source_addr().into(), header.destination_addr().into())
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let message = Icmpv6Slice::from_slice(self.payload).expect("a message");
                assert!(message.is_checksum_valid(source.octets(), destination.octets()));
                let header = Ipv6HeaderSlice::from_slice(quoted).expect("a header");
                assert_eq!(quoted[40..], before.payload[..8]);
                (header.source_addr().into(), header.destination_addr().into())
            }
            ends => panic!("{ends:?}"),
        };
        assert_eq!(ends, (before.source, before.destination));
        [self.payload[0], self.payload[1]]
    }
}

fn ports(protocol: u8, payload: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *payload.first_chunk().filter(|_| [6, 17, 132].contains(&protocol))?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

/// What is behind the extension headers of IPv6.
fn transport(first: IpNumber, payload: &[u8]) -> Option<Transport> {
    let (mut number, mut rest, mut is_fragment) = (first, payload, false);
    loop {
        let (next, len) = match number {
            IpNumber::IPV6_HEADER_HOP_BY_HOP if rest.len() < payload.len() => return None,
            IpNumber::IPV6_HEADER_HOP_BY_HOP
            | IpNumber::IPV6_ROUTE_HEADER
            | IpNumber::IPV6_DESTINATION_OPTIONS => {
                let header = Ipv6RawExtHeaderSlice::from_slice(rest).ok()?;
                (header.next_header(), header.slice().len())
            }
            IpNumber::AUTHENTICATION_HEADER => {
                let header = IpAuthHeaderSlice::from_slice(rest).ok()?;
                (header.next_header(), header.slice().len())
            }
            IpNumber::IPV6_FRAGMENTATION_HEADER => {
                let header = Ipv6FragmentHeaderSlice::from_slice(rest).ok()?;
                if header.fragment_offset().value() != 0 {
                    return Some((header.next_header().0, None, true));
                }
                is_fragment |= header.is_fragmenting_payload();
                (header.next_header(), header.slice().len())
            }
            _ => return Some((number.0, ports(number.0, rest), is_fragment)),
        };
        number = next;
        rest = &rest[len..];
    }
}

/// Ethernet type, and what follows.
fn link(frame: &[u8]) -> (u16, &[u8]) {
    let header = Ethernet2HeaderSlice::from_slice(frame).expect("an Ethernet header");
    (header.ether_type().0, &frame[header.slice().len()..])
}

/// The outer header, and the packet in it if it is whole: ours, and exactly as long as the frame.
fn outer(frame: &[u8]) -> (Ipv6HeaderSlice<'_>, Option<Packet<'_>>) {
    let (ethertype, rest) = link(frame);
    assert_eq!(ethertype, IPV6);
    let header = Ipv6HeaderSlice::from_slice(rest).expect("an outer header");
    let inner = &rest[40..];
    assert_eq!(inner.len(), usize::from(header.payload_length()));
    let ethertype = match header.next_header().0 {
        4 => IPV4,
        41 => IPV6,
        other => panic!("next header {other}"),
    };
    let (source, destination) = (header.source_addr().segments(), header.destination_addr());
    assert_eq!((source[0], source[1], source[3]), (0x5f00, 0, 0xfffe));
    assert_eq!(destination.segments()[..2], [0x5f00, 0]);
    (header, Packet::read(ethertype, inner))
}

/// Behind a GTP-U header, where the sender wrote it as it should: the user's packet.
fn behind_gtp(message: &[u8]) -> &[u8] {
    let mut at = if message[0] & 7 == 0 { 8 } else { 12 };
    let mut next = if message[0] & 4 == 0 { 0 } else { message[11] };
    while next != 0 {
        at += 4 * usize::from(message[at]);
        next = message[at - 1];
    }
    &message[at..8 + usize::from(u16::from_be_bytes([message[2], message[3]]))]
}

fn of_user(packet: &[u8]) -> (u16, &[u8]) {
    (if packet[0] >> 4 == 4 { IPV4 } else { IPV6 }, packet)
}

/// The packet that an access port let in and that became `after`: out of a tunnel, if it is not
/// what came.
fn let_in<'a>(frame: &'a [u8], after: &Packet<'_>) -> Packet<'a> {
    let (ethertype, rest) = link(frame);
    let packet = Packet::read(ethertype, rest).expect("a whole packet");
    let ends = (packet.source, packet.destination);
    if ends == (after.source, after.destination) || ends == (after.destination, after.source) {
        return packet;
    }
    assert!(N3.contains(&&*packet.destination.to_string()));
    assert_eq!(packet.transport.map(|(protocol, ..)| protocol), Some(17));
    let udp = UdpHeaderSlice::from_slice(packet.payload).expect("a datagram");
    assert_eq!(udp.destination_port(), 2152);
    let (ethertype, inner) = of_user(behind_gtp(&packet.payload[8..usize::from(udp.length())]));
    Packet::read(ethertype, inner).expect("a whole packet")
}

/// The user's packet in a frame to an endpoint: out of a tunnel, if it went in one.
fn let_out(frame: &[u8]) -> (u16, &[u8]) {
    let (ethertype, rest) = link(frame);
    let packet = Packet::read(ethertype, rest).expect("a whole packet");
    if !N3.contains(&&*packet.source.to_string()) {
        return (ethertype, rest);
    }
    assert_eq!((packet.hop_limit, packet.checksum_error), (64, 0));
    assert_eq!(packet.payload.as_ptr_range().end, frame.as_ptr_range().end, "and no more");
    let udp = UdpHeaderSlice::from_slice(packet.payload).expect("a datagram");
    assert_eq!((udp.destination_port(), udp.checksum()), (2152, 0));
    assert!(udp.source_port() >= 0xc000);
    assert_eq!(usize::from(udp.length()), packet.payload.len());
    let message = &packet.payload[8..];
    assert_eq!((message[0], message[1]), (0x34, 255));
    assert_eq!(usize::from(u16::from_be_bytes([message[2], message[3]])), message.len() - 8);
    assert_ne!(message[4..8], [0; 4]);
    assert_eq!((&message[8..14], message[15]), (&[0, 0, 0, 0x85, 1, 0][..], 0));
    assert!(message[14] < 64);
    of_user(&message[16..])
}

/// A GTP-U message back to where `frame` came from; its checksum over IPv6 is right.
fn check_gtp_answer(frame: &[u8], sent: &[u8]) {
    let (asked, told) = (link(frame), link(sent));
    let [asked, answer] =
        [asked, told].map(|(kind, rest)| Packet::read(kind, rest).expect("a whole packet"));
    assert_eq!((answer.source, answer.destination), (asked.destination, asked.source));
    let asked_from = asked.transport.and_then(|(_, ports, _)| ports).expect("GTP-U").0;
    assert_eq!(answer.transport, Some((17, Some((2152, asked_from)), false)));
    assert_eq!((answer.hop_limit, answer.checksum_error), (64, 0));
    let headers = PacketHeaders::from_ethernet_slice(sent).expect("a datagram");
    let Some(TransportHeader::Udp(udp)) = &headers.transport else { panic!("{headers:?}") };
    let message = headers.payload.slice();
    assert_eq!(usize::from(udp.length), 8 + message.len());
    assert_eq!(usize::from(u16::from_be_bytes([message[2], message[3]])), message.len() - 8);
    assert!([2, 26, 31].contains(&message[1]), "{message:02x?}");
    match headers.net.as_ref().expect("IP") {
        etherparse::NetHeaders::Ipv6(ip, _) => {
            assert_eq!(Ok(udp.checksum), udp.calc_checksum_ipv6(ip, message));
        }
        _ => assert_eq!(udp.checksum, 0),
    }
}

/// Checks what became of `frame`, which came in at an access port or in an outer header.
pub(crate) fn check(access: bool, frame: &[u8], verdict: &Verdict) {
    match verdict {
        Verdict::Forwarded { port, frame: sent } if ACCESS.contains(port) => {
            let (ethertype, rest) = let_out(sent);
            assert_eq!(sent[6..12], gateway::MAC);
            let packet = Packet::read(ethertype, rest).expect("a whole packet");
            assert_eq!(packet.payload.as_ptr_range().end, sent.as_ptr_range().end, "and no more");
            if access {
                packet.check(&let_in(frame, &packet), 1);
            } else {
                let untrimmed = frame[..54 + usize::from(outer_len(frame))].to_vec();
                packet.check(&outer(&untrimmed).1.expect("a whole packet"), 0);
            }
        }
        Verdict::Forwarded { frame: sent, .. } | Verdict::ToHook { frame: sent, .. } => {
            let (header, inner) = outer(sent);
            if access {
                let inner = inner.expect("a whole packet");
                let before = let_in(frame, &inner);
                inner.check(&before, 1);
                let Packet { source, destination, transport, .. } = inner;
                let (protocol, ports, is_fragment) = transport.expect("what it carries");
                let (protocol, ports) = if is_fragment { (0, None) } else { (protocol, ports) };
                let label = flow_label(source, destination, ports, protocol);
                assert_eq!(header.flow_label().value(), label, "{inner:?}");
                assert_eq!(header.hop_limit(), 64);
            } else {
                // What is carried is nobody's business on the way, but where its sender is told.
                let untrimmed = frame[..54 + usize::from(outer_len(frame))].to_vec();
                let (same, before) = (sent[54..] == untrimmed[54..], outer(&untrimmed).1);
                if !same {
                    let (inner, before) = (inner.expect("whole"), before.expect("whole"));
                    inner.check(&before, 0);
                }
            }
        }
        Verdict::Answered { frame: sent } => {
            assert_eq!((&sent[..6], &sent[6..12]), (&frame[6..12], &gateway::MAC[..]));
            match link(sent) {
                (IPV4, rest) if rest[9] == 17 => check_gtp_answer(frame, sent),
                (IPV6, rest) if rest[6] == 17 => check_gtp_answer(frame, sent),
                (kind @ (IPV4 | IPV6), rest) if kind == IPV4 || rest[40] < 128 => {
                    let [before, error] = [frame, sent].map(|frame| {
                        let (kind, rest) = link(frame);
                        Packet::read(kind, rest).expect("a whole packet")
                    });
                    let kind = error.check_error(&before);
                    assert!([[3, 4], [11, 0], [2, 0], [3, 0]].contains(&kind), "{kind:?}");
                    assert!(gateway::is(error.source));
                    assert_eq!((error.hop_limit, error.checksum_error), (64, 0));
                }
                (IPV6, rest) => {
                    let header = Ipv6HeaderSlice::from_slice(rest).expect("an IPv6 header");
                    let message = Icmpv6Slice::from_slice(&rest[40..]).expect("a message");
                    assert_eq!(rest.len(), 40 + usize::from(header.payload_length()));
                    assert_eq!((header.hop_limit(), message.type_u8()), (255, 136));
                    assert!(message.is_checksum_valid(header.source(), header.destination()));
                }
                (_, rest) => {
                    let arp = ArpPacketSlice::from_slice(rest).expect("ARP").to_packet();
                    assert_eq!(arp.operation.0, 2);
                    assert_eq!(arp.sender_protocol_addr(), &frame[38..42]);
                    assert_eq!(arp.sender_hw_addr(), gateway::MAC);
                    assert_eq!(arp.target_hw_addr(), &frame[22..28]);
                    assert_eq!(arp.target_protocol_addr(), &frame[28..32]);
                }
            }
        }
        Verdict::Dropped(_) | Verdict::Passed => {}
    }
}

fn outer_len(frame: &[u8]) -> u16 {
    Ipv6HeaderSlice::from_slice(&frame[14..]).expect("an outer header").payload_length()
}
