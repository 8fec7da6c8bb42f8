use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;

/// Parses an exact copy, so that Miri and the allocator see overruns.
fn parse(bytes: &[u8], version: u8) -> Option<Packet> {
    let mut bytes: Box<[u8]> = bytes.into();
    let start = bytes.as_mut_ptr() as usize;
    // SAFETY: `bytes` outlives the cursor.
    let cursor = unsafe { Cursor::new(start, start + bytes.len()) };
    if version == 4 { ipv4(cursor, bytes.len()) } else { ipv6(cursor, bytes.len()) }
}

/// What an IPv6 packet is behind its extension headers.
fn behind(packet: &[u8]) -> Option<Transport> {
    let parsed = parse(packet, 6).unwrap();
    assert!(is_extension(parsed.protocol) || packet[6] == TCP);
    let mut bytes: Box<[u8]> = packet.into();
    let start = bytes.as_mut_ptr() as usize;
    // SAFETY: `bytes` outlives the cursor.
    let mut cursor = unsafe { Cursor::new(start, start + bytes.len()) };
    cursor.skip(IPV6_LEN);
    behind_extensions(cursor, parsed.protocol, parsed.len as usize - IPV6_LEN)
}

fn raw(address: Ipv6Addr) -> [u64; 2] {
    let octets = address.octets();
    [0, 8].map(|at| u64::from_ne_bytes(octets[at..at + 8].try_into().unwrap()))
}

fn v4_udp(payload: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4([10, 1, 0, 11], [10, 1, 0, 12], 9).udp(4000, 5001);
    builder.write(&mut packet, &vec![0; payload]).unwrap();
    packet
}

fn v6_tcp(payload: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    let (from, to): (Ipv6Addr, Ipv6Addr) =
        ("fd10::11".parse().unwrap(), "fd10::12".parse().unwrap());
    let builder = PacketBuilder::ipv6(from.octets(), to.octets(), 77).tcp(1, 65535, 0, 10);
    builder.write(&mut packet, &vec![0; payload]).unwrap();
    packet
}

#[test]
fn fields_are_those_etherparse_wrote() {
    let mut packet = v4_udp(20);
    packet[1] = 0xb9;
    let want = Packet {
        source: raw(Ipv4Addr::new(10, 1, 0, 11).to_ipv6_mapped()),
        destination: raw(Ipv4Addr::new(10, 1, 0, 12).to_ipv6_mapped()),
        len: 48,
        ports: 4000 << 16 | 5001,
        has_ports: true,
        is_fragment: false,
        protocol: UDP,
        traffic_class: 0xb9,
        hop_limit: 9,
    };
    assert_eq!(parse(&packet, 4), Some(want));

    let mut packet = v6_tcp(3);
    packet[0] = 0x6b;
    packet[1] |= 0x90;
    let want = Packet {
        source: raw("fd10::11".parse().unwrap()),
        destination: raw("fd10::12".parse().unwrap()),
        len: 63,
        ports: 1 << 16 | 65535,
        has_ports: true,
        is_fragment: false,
        protocol: TCP,
        traffic_class: 0xb9,
        hop_limit: 77,
    };
    assert_eq!(parse(&packet, 6), Some(want));
}

#[test]
fn every_truncation_is_refused() {
    for (packet, version) in [(v4_udp(0), 4), (v4_udp(100), 4), (v6_tcp(0), 6), (v6_tcp(100), 6)] {
        for len in 0..packet.len() {
            assert_eq!(parse(&packet[..len], version), None, "IPv{version}, {len} bytes");
        }
        let whole = parse(&packet, version);
        assert!(whole.is_some());
        let padded = [packet.as_slice(), &[0xee; 30]].concat();
        assert_eq!(parse(&padded, version), whole, "a longer frame is the same packet");
    }
}

#[test]
fn headers_that_lie_are_refused() {
    let change = |at: usize, to: u8| {
        let mut packet = v4_udp(20);
        packet[at] = to;
        parse(&packet, 4)
    };
    // (offset, value, accepted)
    let cases = [
        (0, 0x45, true),
        (0, 0x44, false), // four words of header
        (0, 0x40, false),
        (0, 0x55, false), // version 5
        (0, 0x65, false),
        (0, 0x4c, true),  // 48 bytes of header: all of the packet
        (0, 0x4d, false), // more than the packet
        (3, 19, false),   // total length below the header
        (3, 20, true),
        (3, 49, false), // beyond the frame
    ];
    for (at, to, accepted) in cases {
        assert_eq!(change(at, to).is_some(), accepted, "byte {at} = {to:#x}");
    }
    let mut packet = v6_tcp(0);
    packet[0] = 0x40;
    assert_eq!(parse(&packet, 6), None);
}

#[test]
fn ports_are_those_of_whole_transport_headers() {
    let ports = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = v4_udp(20);
        change(&mut packet);
        let parsed = parse(&packet, 4).unwrap();
        (parsed.has_ports, parsed.ports)
    };
    let udp = 4000 << 16 | 5001;
    assert_eq!(ports(&|_| ()), (true, udp));
    assert_eq!(ports(&|p| p[9] = SCTP), (true, udp));
    assert_eq!(ports(&|p| p[9] = 1), (false, 0));
    assert_eq!(ports(&|p| p[6] = 0x20), (true, udp), "the first fragment");
    assert_eq!(ports(&|p| p[7] = 1), (false, 0), "fragment offset");
    assert_eq!(ports(&|p| p[6..8].copy_from_slice(&[0x20, 1])), (false, 0), "in the middle");
    assert_eq!(ports(&|p| p[6] = 0x40), (true, udp), "do not fragment");
    assert_eq!(ports(&|p| p[6] = 0x80), (true, udp), "the reserved bit");
    assert_eq!(ports(&|p| p[3] = 23), (false, 0), "three bytes of transport header");
    assert_eq!(ports(&|p| p[3] = 24), (true, udp));
    assert_eq!(
        ports(&|p| p[0] = 0x46),
        (true, 28 << 16 | u32::from(u16::from_be_bytes([p_checksum()[0], p_checksum()[1]])))
    );

    let mut packet = v6_tcp(0);
    packet[5] = 3;
    assert!(!parse(&packet, 6).unwrap().has_ports);
    packet[5] = 4;
    assert!(parse(&packet, 6).unwrap().has_ports);
}

/// `headers` between an IPv6 header and TCP: kind, and what follows the next header's kind.
fn extended(headers: &[(u8, &[u8])]) -> Vec<u8> {
    let mut packet = v6_tcp(0);
    for (kind, rest) in headers.iter().rev() {
        let header = [&[packet[6]], *rest].concat();
        packet.splice(40..40, header);
        packet[6] = *kind;
    }
    let len = u16::try_from(packet.len() - 40).unwrap();
    packet[4..6].copy_from_slice(&len.to_be_bytes());
    packet
}

/// Rules about ports are not got around by what stands before the ports (RFC 7112, RFC 1858).
#[test]
fn ports_are_found_behind_extension_headers() {
    const OPTIONS: &[u8] = &[0, 1, 4, 0, 0, 0, 0];
    const LONG: &[u8] = &[1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const AUTHENTICATED: &[u8] = &[1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2];
    let fragment = |word: u16| [&[0][..], &word.to_be_bytes(), &[0, 0, 0, 9]].concat();
    let tcp = Some((true, 1 << 16 | 65535, TCP));
    type Headers<'a> = &'a [(u8, &'a [u8])];
    type Behind = Option<(bool, u32, u8)>;
    let cases: &[(&str, Headers<'_>, Behind)] = &[
        ("none", &[], tcp),
        ("hop-by-hop", &[(0, OPTIONS)], tcp),
        ("routing, two words", &[(43, LONG)], tcp),
        ("destination options", &[(60, LONG), (60, OPTIONS)], tcp),
        ("authentication", &[(51, AUTHENTICATED)], tcp),
        ("authentication without a sequence number", &[(51, &[0, 0, 0, 0, 0, 0, 1])], None),
        ("hop-by-hop is not the first", &[(60, OPTIONS), (0, OPTIONS)], None),
        ("a fragment that is all", &[(44, &fragment(0))], tcp),
        ("the first fragment", &[(44, &fragment(1))], tcp),
        ("a later fragment", &[(44, &fragment(9))], Some((false, 0, TCP))),
        ("its options are not looked at", &[(44, &fragment(8)), (60, LONG)], Some((false, 0, 60))),
        ("six", &[(60, OPTIONS); 6], tcp),
        ("seven", &[(60, OPTIONS); 7], None),
        ("longer than the packet", &[(60, &[9, 0, 0, 0, 0, 0, 0])], None),
        ("no next header", &[(60, OPTIONS), (59, OPTIONS)], Some((false, 0, 59))),
    ];
    for (name, headers, expected) in cases {
        let got = behind(&extended(headers));
        assert_eq!(got.map(|p| (p.has_ports, p.ports, p.protocol)), *expected, "{name}");
        let is_fragment = ["the first fragment", "a later fragment"].contains(name)
            || *name == "its options are not looked at";
        assert!(got.is_none_or(|p| p.is_fragment == is_fragment), "{name}");
    }
}

#[test]
fn a_first_fragment_too_short_for_its_ports_is_refused() {
    let first = |len: u8, protocol: u8, flags: u8| {
        let mut packet = v4_udp(20);
        (packet[3], packet[6], packet[9]) = (20 + len, flags, protocol);
        parse(&packet, 4).is_some()
    };
    assert!(!first(7, UDP, 0x20));
    assert!(first(8, UDP, 0x20));
    assert!(first(7, UDP, 0), "no fragment");
    assert!(first(7, 1, 0x20), "no ports");
    let fragment: &[u8] = &[0, 0, 1, 0, 0, 0, 9];
    let mut packet = extended(&[(44, fragment)]);
    packet[5] = 8 + 7;
    assert_eq!(behind(&packet), None);
    packet[5] = 8 + 8;
    assert!(behind(&packet).is_some());
}

/// UDP checksum of `v4_udp(20)`: behind an options word it is where the ports would be.
fn p_checksum() -> [u8; 2] {
    let packet = v4_udp(20);
    [packet[26], packet[27]]
}

#[test]
fn routable_addresses() {
    let v4 = [
        ("10.1.0.11", true),
        ("0.0.0.0", false),
        ("0.0.0.1", true),
        ("127.1.2.3", false),
        ("169.254.1.1", false),
        ("169.255.0.0", true),
        ("224.0.0.1", false),
        ("239.255.255.255", false),
        ("240.0.0.1", true),
        ("255.255.255.254", true),
        ("255.255.255.255", false),
    ];
    for (address, want) in v4 {
        let octets = address.parse::<Ipv4Addr>().unwrap().octets();
        assert_eq!(routable_v4(u32::from_ne_bytes(octets)), want, "{address}");
    }
    let v6 = [
        ("fd10::11", true),
        ("::", false),
        ("::1", false),
        ("::2", true),
        ("1::", true),
        ("fe80::1", false),
        ("febf::1", false),
        ("fec0::1", true),
        ("ff02::1", false),
    ];
    for (address, want) in v6 {
        assert_eq!(routable_v6(raw(address.parse().unwrap())), want, "{address}");
    }
    assert!(link_local_v6(raw("fe80::1".parse().unwrap())));
    assert!(!link_local_v6(raw("fec0::1".parse().unwrap())));
    assert!(multicast_v6(raw("ff02::1".parse().unwrap())));
    assert!(!multicast_v6(raw("fe80::ff".parse().unwrap())));
}

proptest! {
    /// The oracle is etherparse: what it reads as a whole packet we read, with its fields.
    #[test]
    fn any_bytes_are_read_as_etherparse_reads_them(
        mut bytes in prop::collection::vec(any::<u8>(), 0..120),
        version in prop::sample::select(vec![4u8, 6]),
    ) {
        if let Some(first) = bytes.first_mut() {
            *first = version << 4 | *first & 0xf;
        }
        if bytes.len() > 4 {
            // Lengths that have a chance to fit.
            bytes[2] = 0;
            bytes[4] = 0;
        }
        if let Some(flags) = bytes.get_mut(6).filter(|_| version == 4) {
            *flags &= !0x20; // first fragments have a test of their own
        }
        let got = parse(&bytes, version);
        let want = match version {
            4 => etherparse::Ipv4HeaderSlice::from_slice(&bytes).ok()
                .filter(|h| usize::from(h.total_len()) <= bytes.len()
                    && usize::from(h.total_len()) >= h.slice().len())
                .map(|h| (h.total_len().into(), h.protocol().0, h.ttl(),
                    raw(h.source_addr().to_ipv6_mapped()),
                    raw(h.destination_addr().to_ipv6_mapped()))),
            _ => etherparse::Ipv6HeaderSlice::from_slice(&bytes).ok()
                .filter(|h| usize::from(h.payload_length()) + 40 <= bytes.len())
                .map(|h| (u32::from(h.payload_length()) + 40, h.next_header().0, h.hop_limit(),
                    raw(h.source_addr()), raw(h.destination_addr()))),
        };
        let got = got.map(|p| (p.len, p.protocol, p.hop_limit, p.source, p.destination));
        prop_assert_eq!(got, want);
    }
}
