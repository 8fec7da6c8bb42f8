//! Frames and packets.

use std::net::{Ipv4Addr, Ipv6Addr};

use selvedge_ebpf_parse::gtp::{self, Kind};
use selvedge_ebpf_parse::ip::{self, Packet};
use selvedge_ebpf_parse::srv6::{Container, flow_label};
use selvedge_ebpf_parse::stamp::{self, End, FRAME_LEN};
use selvedge_ebpf_parse::{Cursor, Window, udp};

use crate::{dhcp_relay, lldp_frame};

/// Gives `read` a cursor over an exact copy, so that the sanitizer sees overruns.
fn with_cursor<T>(bytes: &[u8], read: impl FnOnce(Cursor) -> T) -> T {
    let mut bytes: Box<[u8]> = bytes.into();
    let start = bytes.as_mut_ptr() as usize;
    // SAFETY: `bytes` outlives the cursor; no reader here hands out a window.
    read(unsafe { Cursor::new(start, start + bytes.len()) })
}

/// What `change` makes of `N` bytes.
fn changed<const N: usize>(mut bytes: [u8; N], change: impl FnOnce(Window<N>)) -> [u8; N] {
    let start = bytes.as_mut_ptr() as usize;
    // SAFETY: the window is used while `bytes` is borrowed here.
    change(unsafe { Cursor::new(start, start + N) }.peek().expect("as many bytes"));
    bytes
}

fn packet(bytes: &[u8]) -> Option<Packet> {
    with_cursor(bytes, |cursor| match bytes.first()? >> 4 {
        4 => ip::ipv4(cursor, bytes.len()),
        6 => ip::ipv6(cursor, bytes.len()),
        _ => None,
    })
}

/// The payload of a datagram to UDP port 2152.
pub(crate) fn gtp(bytes: &[u8]) {
    let Ok(message) = gtp::read_bytes(bytes) else { return };
    let gtp::Message { teid, session, header_len, len, .. } = message;
    assert!(header_len <= gtp::MAX_HEADER_LEN && header_len % 4 == 0);
    assert!(header_len <= len && len <= bytes.len());
    assert_eq!(gtp::read_bytes(&bytes[..len]), Ok(message), "what is behind a message");
    assert!(gtp::read_bytes(&bytes[..len - 1]).is_err(), "a message cut by one byte");
    let rest = &bytes[header_len..len];
    match message.kind {
        Kind::GPdu => {
            assert!(!rest.is_empty());
            let _ = packet(rest).is_some_and(|inner| gtp::is_gtpu(&inner));
            if let Some(session) = session {
                assert!(session.qfi < 64);
                let inner_len = u16::try_from(rest.len()).expect("a length of 16 bits");
                let header = changed([0; gtp::G_PDU_LEN], |at| {
                    gtp::write_g_pdu(at, teid, session, inner_len)
                });
                let again = gtp::read_bytes(&[&header[..], rest].concat()).expect("one of ours");
                assert_eq!((again.teid, again.session), (teid, Some(session)));
                assert_eq!(again.len - again.header_len, rest.len());
            }
        }
        Kind::ErrorIndication => {
            if let Some(error) = gtp::ErrorIndication::from_bytes(rest) {
                let halves = [0, 8].map(|at| {
                    u64::from_ne_bytes(error.peer[at..at + 8].try_into().expect("eight bytes"))
                });
                let bytes = changed([0; gtp::ERROR_V6_LEN], |at| {
                    gtp::write_error_v6(at, error.teid, 2152, halves);
                });
                assert_eq!(gtp::ErrorIndication::from_bytes(&bytes[16..]), Some(error));
            }
        }
        _ => {}
    }
}

/// An IP packet and the datagram in it, held against etherparse.
pub(crate) fn ip(bytes: &[u8]) {
    let got = packet(bytes);
    let raw = |octets: [u8; 16]| {
        [0, 8].map(|at| u64::from_ne_bytes(octets[at..at + 8].try_into().expect("eight bytes")))
    };
    let want = match bytes.first().map(|first| first >> 4) {
        Some(4) => etherparse::Ipv4HeaderSlice::from_slice(bytes).ok().and_then(|header| {
            let len = usize::from(header.total_len());
            (header.slice().len()..=bytes.len()).contains(&len).then(|| {
                let (source, destination) = (header.source_addr(), header.destination_addr());
                let addresses = [source, destination].map(|a| raw(a.to_ipv6_mapped().octets()));
                (len, header.slice().len(), header.protocol().0, header.ttl(), addresses)
            })
        }),
        Some(6) => etherparse::Ipv6HeaderSlice::from_slice(bytes).ok().and_then(|header| {
            let len = usize::from(header.payload_length()) + 40;
            (len <= bytes.len()).then(|| {
                let (source, destination) = (header.source_addr(), header.destination_addr());
                let addresses = [source, destination].map(|a| raw(a.octets()));
                (len, 40, header.next_header().0, header.hop_limit(), addresses)
            })
        }),
        _ => None,
    };
    assert_eq!(
        got.map(|p| (p.len as usize, p.protocol, p.hop_limit, [p.source, p.destination])),
        want.map(|(len, _, protocol, hop_limit, addresses)| (len, protocol, hop_limit, addresses)),
    );
    let (Some(got), Some((len, header_len, ..))) = (got, want) else { return };
    let payload = &bytes[header_len..len];
    if got.has_ports {
        assert_eq!(payload[..4], got.ports.to_be_bytes());
    }
    if got.protocol == ip::UDP {
        let datagram = with_cursor(payload, |cursor| udp::read(cursor, payload.len()));
        let want = etherparse::UdpHeaderSlice::from_slice(payload)
            .ok()
            .map(|header| usize::from(header.length()))
            .filter(|len| (udp::LEN..=payload.len()).contains(len));
        assert_eq!(datagram.map(|datagram| datagram.payload_len + udp::LEN), want);
        if let (Some(datagram), true) = (datagram, got.has_ports) {
            let ports = u32::from(datagram.source) << 16 | u32::from(datagram.destination);
            assert_eq!(ports, got.ports);
        }
    }
}

/// An outer destination address, then an inner packet.
pub(crate) fn srv6(bytes: &[u8]) {
    let Some((address, rest)) = bytes.split_first_chunk::<16>() else { return };
    let half = |at: usize| u64::from_ne_bytes(address[at..at + 8].try_into().expect("eight bytes"));
    let first = Container::from_raw([half(0), half(8)]);
    assert_eq!(first.raw(), [half(0), half(8)]);
    let mut container = first;
    for group in address[4..].chunks_exact(2) {
        assert_eq!(container.active(), u16::from_be_bytes([group[0], group[1]]));
        assert_eq!(container.high >> 32, first.high >> 32, "the block");
        container = container.shifted();
    }
    assert_eq!((container.high << 32, container.low), (0, 0), "all segments are used up");
    if let Some(inner) = packet(rest) {
        let Packet { source, destination, ports, protocol, .. } = inner;
        assert!(flow_label(source, destination, ports, protocol) < 1 << 20);
    }
}

/// A frame that has the length of a test packet's.
pub(crate) fn stamp(bytes: &[u8]) {
    let Some(frame) = bytes.first_chunk::<FRAME_LEN>() else { return };
    let end = |low: u8, port| {
        let mut address = [0; 16];
        (address[0], address[1], address[15]) = (0xfe, 0x80, low);
        End::new(address, port)
    };
    let (sender, reflector) = (end(1, 50_862), end(2, 862));
    changed(*frame, |at| {
        let (kind, intact) = (stamp::kind(at, sender, reflector), stamp::intact(at));
        if kind != Some(stamp::Kind::Test) {
            let _ = stamp::two_way_ns(at, u64::MAX);
            return;
        }
        let sequence = at.be32::<62>();
        stamp::reflect(at, 7_000_000_000);
        assert_eq!(stamp::kind(at, sender, reflector), Some(stamp::Kind::Answer));
        assert_eq!(stamp::intact(at), intact, "a wrong checksum stays wrong");
        assert_eq!(stamp::sequence(at), sequence, "the answer says what was asked");
        assert_eq!(stamp::two_way_ns(at, 0), 0);
    });
}

/// A frame from the wire.
pub(crate) fn lldp(bytes: &[u8]) {
    let Ok(lldp_frame::Parsed { advertisement, proof, .. }) = lldp_frame::parse(bytes) else {
        return;
    };
    assert!(proof.is_none_or(|proof| proof.covers + proof.code.len() <= bytes.len()), "{proof:?}");
    let lldp_frame::Advertisement { chassis, port, ttl } = &advertisement;
    let printable = |name: &str| name.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    assert!(printable(chassis) && printable(port), "{advertisement:?}");
    let sendable = |name: &str| (1..lldp_frame::ID_MAX).contains(&name.len());
    if sendable(chassis) && sendable(port) {
        let frame = lldp_frame::encode([2; 6], chassis, port, *ttl, None);
        let read = lldp_frame::parse(&frame).map(|parsed| (parsed.advertisement, parsed.has_end));
        assert_eq!(read, Ok((advertisement, true)));
    }
}

/// What a client sends and what a server answers, in both versions; who comes back is who asked.
pub(crate) fn dhcp(bytes: &[u8]) {
    const PORT: &str = "s1/p2";
    const REPLY: u8 = 2;
    const RELAY_REPL: u8 = 13;
    let (relay, gateway) = (Ipv4Addr::new(192, 0, 2, 7), Ipv4Addr::new(169, 254, 1, 1));
    if let Ok(mut relayed) = dhcp_relay::to_server4(bytes, relay, PORT, gateway) {
        assert!(relayed.len() <= dhcp_relay::LARGEST);
        relayed[0] = REPLY;
        let answer = dhcp_relay::to_client4(&relayed).expect("it has what was added");
        assert_eq!(answer.port, PORT);
    }
    let _ = dhcp_relay::to_client4(bytes);
    let client = (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9), [2, 0, 0, 0, 0, 9]);
    if let Ok(mut relayed) = dhcp_relay::to_server6(bytes, client, Ipv6Addr::LOCALHOST, PORT) {
        assert!(relayed.len() <= dhcp_relay::LARGEST);
        relayed[0] = RELAY_REPL;
        let answer = dhcp_relay::to_client6(&relayed).expect("it has what was added");
        assert_eq!((answer.port.as_str(), answer.message), (PORT, bytes.to_vec()));
    }
    let _ = dhcp_relay::to_client6(bytes);
}
