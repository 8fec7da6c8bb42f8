//! Reading and rewriting bytes. Offsets are into the frame unless said otherwise.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::wire::{
    ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV6_LEN, PROTOCOL_IPV4, PROTOCOL_IPV6, REPAIRED,
};
use crate::DropReason::{self, Malformed};

pub(super) fn ethertype(frame: &[u8]) -> Result<u16, DropReason> {
    word(frame, 12).ok_or(Malformed)
}

/// Ethernet source address.
pub(super) fn ethernet_source(frame: &[u8]) -> Result<[u8; 6], DropReason> {
    array(frame, 6).ok_or(Malformed)
}

pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

pub(super) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

pub(super) fn ipv6_at(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    array::<16>(bytes, at).map(Ipv6Addr::from)
}

pub(super) fn ethernet(destination: [u8; 6], source: [u8; 6], ethertype: u16) -> Vec<u8> {
    [&destination[..], &source, &ethertype.to_be_bytes()].concat()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V4,
    V6,
}

impl Version {
    pub(super) fn ethertype(self) -> u16 {
        match self {
            Self::V4 => ETHERTYPE_IPV4,
            Self::V6 => ETHERTYPE_IPV6,
        }
    }

    /// Next header of an outer header.
    pub(super) fn protocol(self) -> u8 {
        match self {
            Self::V4 => PROTOCOL_IPV4,
            Self::V6 => PROTOCOL_IPV6,
        }
    }

    pub(super) fn of_protocol(protocol: u8) -> Option<Self> {
        match protocol {
            PROTOCOL_IPV4 => Some(Self::V4),
            PROTOCOL_IPV6 => Some(Self::V6),
            _ => None,
        }
    }
}

/// A user's IP packet, trimmed to the length its header gives.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) version: Version,
    pub(super) bytes: Vec<u8>,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// IPv6: the first next header, until [`Packet::look_behind_extensions`].
    pub(super) protocol: u8,
    pub(super) ports: Option<(u16, u16)>,
    /// More are to come, or it is not the first.
    pub(super) is_fragment: bool,
}

impl Packet {
    /// Reads the packet that `bytes` begin with.
    ///
    /// # Errors
    /// `Malformed`: the version is another, a length reaches beyond `bytes` or not over the header,
    /// or a first fragment of IPv4 is too short for its ports.
    pub(super) fn parse(version: Version, bytes: &[u8]) -> Result<Self, DropReason> {
        match version {
            Version::V4 => Self::ipv4(bytes),
            Version::V6 => Self::ipv6(bytes),
        }
        .ok_or(Malformed)
    }

    fn ipv4(bytes: &[u8]) -> Option<Self> {
        let header: [u8; 20] = array(bytes, 0)?;
        let header_len = usize::from(header[0] & 0xf) * 4;
        let total_len = usize::from(word(bytes, 2)?);
        if header[0] >> 4 != 4 || header_len < 20 || total_len < header_len {
            return None;
        }
        let bytes = bytes.get(..total_len)?.to_vec();
        let fragment = word(&header, 6)?;
        let (offset, more) = (fragment & 0x1fff, fragment & 0x2000 != 0);
        let protocol = header[9];
        let ports = match offset {
            0 => ports(protocol, &bytes[header_len..], more)?,
            _ => None,
        };
        Some(Self {
            version: Version::V4,
            source: Ipv4Addr::from(array::<4>(&header, 12)?).into(),
            destination: Ipv4Addr::from(array::<4>(&header, 16)?).into(),
            protocol,
            ports,
            is_fragment: more || offset != 0,
            bytes,
        })
    }

    fn ipv6(bytes: &[u8]) -> Option<Self> {
        let header: [u8; IPV6_LEN] = array(bytes, 0)?;
        if header[0] >> 4 != 6 {
            return None;
        }
        let bytes = bytes.get(..IPV6_LEN + usize::from(word(&header, 4)?))?.to_vec();
        let protocol = header[6];
        let [source, destination] = [ipv6_at(&header, 8)?, ipv6_at(&header, 24)?];
        // RFC 6890 §2.2.3.
        if [source, destination].iter().any(|address| address.to_ipv4_mapped().is_some()) {
            return None;
        }
        Some(Self {
            version: Version::V6,
            source: source.into(),
            destination: destination.into(),
            protocol,
            ports: ports(protocol, &bytes[IPV6_LEN..], false)?,
            is_fragment: false,
            bytes,
        })
    }

    /// Protocol and ports become those behind the extension headers of IPv6.
    ///
    /// # Errors
    /// `Malformed`: they do not end in the packet, are not as the standards have them, or are more
    /// than six; or those of a first fragment that is too short for its ports.
    pub(super) fn look_behind_extensions(&mut self) -> Result<(), DropReason> {
        if self.version == Version::V6 {
            let behind = transport(self.protocol, &self.bytes[IPV6_LEN..]);
            (self.protocol, self.ports, self.is_fragment) = behind.ok_or(Malformed)?;
        }
        Ok(())
    }

    /// What tells its flow from others between the same addresses: the same for all fragments,
    /// of which one has the ports.
    pub(super) fn flow(&self) -> (Ports, u8) {
        if self.is_fragment { (None, 0) } else { (self.ports, self.protocol) }
    }

    pub(super) fn traffic_class(&self) -> u8 {
        match self.version {
            Version::V4 => self.bytes[1],
            Version::V6 => self.bytes[0] << 4 | self.bytes[1] >> 4,
        }
    }

    /// Sets the ECN field (RFC 3168 §5) and, in IPv4, the checksum that covers it.
    pub(super) fn set_ecn(&mut self, ecn: u8) {
        match self.version {
            Version::V4 => {
                let [version, class] = [self.bytes[0], self.bytes[1]];
                self.ipv4_word(0, u16::from_be_bytes([version, class & !3 | ecn]));
            }
            Version::V6 => self.bytes[1] = self.bytes[1] & !0x30 | ecn << 4,
        }
    }

    pub(super) fn set_dscp(&mut self, dscp: u8) {
        match self.version {
            Version::V4 => {
                let [version, class] = [self.bytes[0], self.bytes[1]];
                self.ipv4_word(0, u16::from_be_bytes([version, dscp << 2 | class & 3]));
            }
            Version::V6 => {
                self.bytes[0] = 0x60 | dscp >> 2;
                self.bytes[1] = dscp << 6 | self.bytes[1] & 0x3f;
            }
        }
    }

    pub(super) fn hop_limit(&self) -> u8 {
        match self.version {
            Version::V4 => self.bytes[8],
            Version::V6 => self.bytes[7],
        }
    }

    /// The hop limit is above 1.
    pub(super) fn decrement_hop_limit(&mut self) {
        match self.version {
            Version::V4 => {
                let [limit, protocol] = [self.bytes[8], self.bytes[9]];
                self.ipv4_word(8, u16::from_be_bytes([limit - 1, protocol]));
            }
            Version::V6 => self.bytes[7] -= 1,
        }
    }

    /// Replaces a word of the IPv4 header; the checksum follows by difference, so that a
    /// wrong one stays wrong (RFC 1624 §3, equation 3).
    fn ipv4_word(&mut self, at: usize, new: u16) {
        let old = word(&self.bytes, at).expect("within the header");
        let checksum = word(&self.bytes, 10).expect("within the header");
        let sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        self.bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
        self.bytes[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    }
}

type Ports = Option<(u16, u16)>;

/// TCP, UDP and SCTP begin with their ports. `None`: a first fragment is too short for them.
fn ports(protocol: u8, payload: &[u8], is_fragment: bool) -> Option<Ports> {
    if !matches!(protocol, 6 | 17 | 132) {
        return Some(None);
    }
    if is_fragment && payload.len() < 8 {
        return None;
    }
    Some(word(payload, 0).zip(word(payload, 2)))
}

/// Protocol and ports, and whether it is a fragment, behind the extension headers of IPv6 (RFC 8200 §4, RFC 4302). `None`: they
/// do not end in the payload, are not as the standards have them, or are more than six.
fn transport(first: u8, payload: &[u8]) -> Option<(u8, Ports, bool)> {
    let (mut protocol, mut rest, mut is_fragment) = (first, payload, false);
    for before in 0..=6 {
        let len = match protocol {
            0 if before > 0 => return None,
            0 | 43 | 60 => 8 * (usize::from(*rest.get(1)?) + 1),
            51 => match 4 * (usize::from(*rest.get(1)?) + 2) {
                ..12 => return None,
                len => len,
            },
            44 => 8,
            _ => return Some((protocol, ports(protocol, rest, is_fragment)?, is_fragment)),
        };
        let header = rest.get(..len)?;
        if protocol == 44 {
            let fragment = word(header, 2)?;
            if fragment >> 3 != 0 {
                return Some((header[0], None, true));
            }
            is_fragment |= fragment & 1 != 0;
        }
        protocol = header[0];
        rest = &rest[len..];
    }
    None
}

/// The outer header and what it carries, as bytes from the outer header's first. The header
/// is whole and the payload as long as it says.
#[derive(Clone, Debug)]
pub(super) struct Outer {
    pub(super) bytes: Vec<u8>,
}

impl Outer {
    pub(super) fn next_header(&self) -> u8 {
        self.bytes[6]
    }

    pub(super) fn hop_limit(&self) -> u8 {
        self.bytes[7]
    }

    /// The hop limit is above 1.
    pub(super) fn decrement_hop_limit(&mut self) {
        self.bytes[7] -= 1;
    }

    pub(super) fn traffic_class(&self) -> u8 {
        self.bytes[0] << 4 | self.bytes[1] >> 4
    }

    pub(super) fn set_traffic_class(&mut self, class: u8) {
        self.bytes[0] = self.bytes[0] & 0xf0 | class >> 4;
        self.bytes[1] = self.bytes[1] & 0x0f | class << 4;
    }

    /// Group `0..8` of the source address.
    pub(super) fn source_group(&self, group: usize) -> u16 {
        word(&self.bytes, 8 + 2 * group).expect("the header is whole")
    }

    pub(super) fn destination(&self) -> Ipv6Addr {
        ipv6_at(&self.bytes, 24).expect("the header is whole")
    }

    /// The active segment: the first id after the block (RFC 9800 §4.1).
    pub(super) fn active(&self) -> u16 {
        self.destination().segments()[2]
    }

    /// Consumes the active segment: what is behind it moves up, zeros follow.
    pub(super) fn shift(&mut self) {
        self.bytes.copy_within(30..40, 28);
        self.bytes[38..40].fill(0);
    }

    /// Whether it has been led around a failure.
    pub(super) fn is_repaired(&self) -> bool {
        self.bytes[23] & REPAIRED != 0
    }

    /// Puts ids before the active segment. `false`: there is no room for them.
    pub(super) fn repair(&mut self, sids: &[u16]) -> bool {
        let own = 28..40 - 2 * sids.len();
        if self.bytes[own.end..40].iter().any(|byte| *byte != 0) {
            return false;
        }
        self.bytes.copy_within(own, 28 + 2 * sids.len());
        for (at, sid) in (28..).step_by(2).zip(sids) {
            self.bytes[at..at + 2].copy_from_slice(&sid.to_be_bytes());
        }
        self.bytes[23] |= REPAIRED;
        true
    }

    pub(super) fn payload(&self) -> &[u8] {
        &self.bytes[IPV6_LEN..]
    }

    /// As a frame.
    pub(super) fn framed(&self, destination: [u8; 6], source: [u8; 6]) -> Vec<u8> {
        let mut frame = ethernet(destination, source, ETHERTYPE_IPV6);
        frame.reserve_exact(self.bytes.len());
        frame.extend_from_slice(&self.bytes);
        frame
    }
}

/// One's-complement sum of big-endian words (RFC 1071), zero behind an odd byte.
pub(super) fn sum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Destination and source address of a frame that is at least an Ethernet header.
pub(super) fn addresses(frame: &[u8]) -> Result<([u8; 6], [u8; 6]), DropReason> {
    Ok((array(frame, 0).ok_or(Malformed)?, ethernet_source(frame)?))
}

/// What is behind the Ethernet header.
pub(super) fn payload(frame: &[u8]) -> &[u8] {
    frame.get(ETHERNET_LEN..).unwrap_or_default()
}
