//! The user's packet: what the pipeline matches, from IPv4 (RFC 791) or IPv6 (RFC 8200).

use crate::Cursor;

/// Least bytes of an IPv4 header.
pub const IPV4_LEN: usize = 20;
/// Bytes of an IPv6 header.
pub const IPV6_LEN: usize = 40;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;
pub const SCTP: u8 = 132;
/// IPv4 in IPv6 (RFC 2473).
pub const IPIP: u8 = 4;
/// IPv6 in IPv6 (RFC 2473).
pub const IPV6: u8 = 41;

/// Congestion experienced (RFC 3168 §5).
pub const ECN_CE: u8 = 3;
/// ECN-capable transports (RFC 3168 §5).
pub const ECN_ECT_0: u8 = 2;
pub const ECN_ECT_1: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Raw; IPv4 is IPv4-mapped, `::ffff:a.b.c.d`.
    pub source: [u64; 2],
    pub destination: [u64; 2],
    /// Of the packet, header included, as the header says; the frame has as much.
    pub len: u32,
    /// Source port in the high half, as numbers; 0 without [`Packet::has_ports`].
    pub ports: u32,
    /// TCP, UDP or SCTP, no fragment but the first, and the four bytes are there.
    pub has_ports: bool,
    /// More are to come, or it is not the first.
    pub is_fragment: bool,
    /// IPv6: the first next header; see [`is_extension`].
    pub protocol: u8,
    pub traffic_class: u8,
    pub hop_limit: u8,
}

impl Packet {
    /// Ports and protocol of the flow: the same for all fragments, of which one has the ports.
    #[inline(always)]
    pub const fn flow(&self) -> (u32, u8) {
        if self.is_fragment { (0, 0) } else { (self.ports, self.protocol) }
    }
}

/// The low half of an IPv4-mapped address, raw.
#[inline(always)]
pub const fn mapped(raw: u32) -> [u64; 2] {
    [0, 0xffff_0000 | (raw as u64) << 32]
}

/// Whether an IPv6 address (raw) is an IPv4-mapped one, which no packet of IPv6 has (RFC 6890
/// §2.2.3: neither its source nor its destination).
#[inline(always)]
const fn is_mapped(raw: [u64; 2]) -> bool {
    raw[0] | (raw[1] & 0xffff_ffff ^ 0xffff_0000) == 0
}

#[inline(always)]
const fn has_port_header(protocol: u8) -> bool {
    protocol == TCP || protocol == UDP || protocol == SCTP
}

/// Extension headers of IPv6 that are looked behind; a packet with more is malformed here
/// (RFC 8504 §5.3 lets a node set a limit).
pub const MAX_EXTENSIONS: usize = 6;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// Of a fragment's word of flags and offset: IPv4 has the flag above the offset, IPv6 below.
const V4_MORE: u16 = 0x2000;
const V4_OFFSET: u16 = 0x1fff;
const V6_MORE: u16 = 1;
const V6_OFFSET: u16 = 0xfff8;

/// Least bytes of a first fragment behind its headers, which are the ports among others: no other
/// fragment brings them (RFC 1858 §3).
const FIRST_FRAGMENT_LEN: usize = 8;

/// Source port in the high half, and whether there are any. `None`: a first fragment without.
///
/// `len`: from the cursor to the end of the packet.
#[inline(always)]
fn ports(cursor: Cursor, protocol: u8, len: usize, is_fragment: bool) -> Option<(u32, bool)> {
    if !has_port_header(protocol) {
        return Some((0, false));
    }
    if is_fragment && len < FIRST_FRAGMENT_LEN {
        return None;
    }
    match cursor.peek::<4>() {
        Some(transport) if len >= 4 => Some((transport.be32::<0>(), true)),
        _ => Some((0, false)),
    }
}

/// The IPv4 packet at the cursor. `None`: malformed, that is another version, a header
/// length below 20, a length that the frame does not have, or a first fragment that is too short
/// for its ports.
///
/// `available` is the number of bytes from the cursor on, from another source than the
/// cursor: a compiler that sees the two are the same drops the comparison that the verifier
/// needs to see.
#[inline(always)]
pub fn ipv4(mut cursor: Cursor, available: usize) -> Option<Packet> {
    let header = cursor.peek::<IPV4_LEN>()?;
    let version_ihl = header.u8::<0>();
    // 0x45..=0x4f: version 4 and at least five words.
    if !(0x45..=0x4f).contains(&version_ihl) {
        return None;
    }
    let header_len = ((version_ihl & 0xf) as usize) << 2;
    let len = header.be16::<2>() as usize;
    if len < header_len || len > available {
        return None;
    }
    let protocol = header.u8::<9>();
    let fragment = header.be16::<6>();
    let (mut ports, mut has_ports) = (0, false);
    if fragment & V4_OFFSET == 0 {
        cursor.skip(header_len);
        (ports, has_ports) =
            self::ports(cursor, protocol, len - header_len, fragment & V4_MORE != 0)?;
    }
    Some(Packet {
        source: mapped(header.raw32::<12>()),
        destination: mapped(header.raw32::<16>()),
        len: len as u32,
        ports,
        has_ports,
        is_fragment: fragment & (V4_MORE | V4_OFFSET) != 0,
        protocol,
        traffic_class: header.u8::<1>(),
        hop_limit: header.u8::<8>(),
    })
}

/// The IPv6 packet at the cursor. `None`: malformed, that is another version, a length that
/// the frame does not have, or an address of IPv4. `available` as for [`ipv4`].
#[inline(always)]
pub fn ipv6(mut cursor: Cursor, available: usize) -> Option<Packet> {
    let header = cursor.take::<IPV6_LEN>()?;
    let first = header.be32::<0>();
    if first >> 28 != 6 {
        return None;
    }
    let payload_len = header.be16::<4>() as usize;
    let len = IPV6_LEN + payload_len;
    if len > available {
        return None;
    }
    let source = [header.raw64::<8>(), header.raw64::<16>()];
    let destination = [header.raw64::<24>(), header.raw64::<32>()];
    if is_mapped(source) || is_mapped(destination) {
        return None;
    }
    let protocol = header.u8::<6>();
    let (ports, has_ports) = ports(cursor, protocol, payload_len, false)?;
    Some(Packet {
        source,
        destination,
        len: len as u32,
        ports,
        has_ports,
        is_fragment: false,
        protocol,
        traffic_class: (first >> 20) as u8,
        hop_limit: header.u8::<7>(),
    })
}

/// What a packet is behind its extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// As in [`Packet`].
    pub ports: u32,
    pub has_ports: bool,
    pub is_fragment: bool,
    /// Of a fragment but the first, what its header says.
    pub protocol: u8,
}

/// A bit for each kind of extension header.
const EXTENSIONS: u64 =
    1 << HOP_BY_HOP | 1 << ROUTING | 1 << FRAGMENT | 1 << AUTHENTICATION | 1 << DESTINATION_OPTIONS;

/// Whether a next header is one that [`behind_extensions`] looks behind.
#[inline(always)]
pub const fn is_extension(protocol: u8) -> bool {
    protocol < 64 && EXTENSIONS >> protocol & 1 != 0
}

/// What follows the extension headers at the cursor, of which the first is a `protocol`; `left`:
/// bytes of the packet from there. `None`: they do not end in the packet (RFC 7112 §5), stand
/// where they may not, are more than [`MAX_EXTENSIONS`], or are those of a first fragment that is
/// too short for its ports.
#[inline(always)]
pub fn behind_extensions(
    mut cursor: Cursor,
    mut protocol: u8,
    mut left: usize,
) -> Option<Transport> {
    let mut is_fragment = false;
    for before in 0..=MAX_EXTENSIONS {
        if !is_extension(protocol) {
            let (ports, has_ports) = ports(cursor, protocol, left, is_fragment)?;
            return Some(Transport { ports, has_ports, is_fragment, protocol });
        }
        // RFC 8200 §4.1: that one is the first.
        if protocol == HOP_BY_HOP && before != 0 {
            return None;
        }
        let header = cursor.peek::<8>()?;
        let (next, said) = (header.u8::<0>(), header.u8::<1>() as usize);
        let len = match protocol {
            FRAGMENT => 8,
            // RFC 4302 §2.2: words of four bytes, less two, and at least one of the rest.
            AUTHENTICATION => (said + 2) << 2,
            _ => (said + 1) << 3,
        };
        if left < len || (protocol == AUTHENTICATION && said == 0) {
            return None;
        }
        if protocol == FRAGMENT {
            let fragment = header.be16::<2>();
            if fragment & V6_OFFSET != 0 {
                return Some(Transport {
                    ports: 0,
                    has_ports: false,
                    is_fragment: true,
                    protocol: next,
                });
            }
            is_fragment |= fragment & V6_MORE != 0;
        }
        left -= len;
        cursor.skip_computed(len);
        protocol = next;
    }
    None
}

/// Whether an IPv4 address (raw) is one that packets are carried to or from: not
/// unspecified, loopback, link-local, multicast or broadcast.
#[inline(always)]
pub const fn routable_v4(raw: u32) -> bool {
    let address = u32::from_be(raw);
    let first = address >> 24;
    address != 0
        && first != 127
        && address >> 16 != 0xa9fe
        && first & 0xf0 != 0xe0
        && address != u32::MAX
}

/// As [`routable_v4`], of an IPv6 address (raw): not unspecified, loopback, link-local, multicast
/// or IPv4-mapped.
#[inline(always)]
pub const fn routable_v6(raw: [u64; 2]) -> bool {
    let high = u64::from_be(raw[0]);
    let low = u64::from_be(raw[1]);
    !(high == 0 && low <= 1) && high >> 54 != 0xfe80 >> 6 && high >> 56 != 0xff && !is_mapped(raw)
}

/// `fe80::/10`.
#[inline(always)]
pub const fn link_local_v6(raw: [u64; 2]) -> bool {
    u64::from_be(raw[0]) >> 54 == 0xfe80 >> 6
}

/// `ff00::/8`.
#[inline(always)]
pub const fn multicast_v6(raw: [u64; 2]) -> bool {
    raw[0] & 0xff == 0xff
}

#[cfg(test)]
mod tests;
