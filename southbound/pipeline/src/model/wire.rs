//! The bytes between switches: Ethernet, an outer IPv6 header of 40 bytes, the user's packet.
//! Destination `5f00:0:<sid1>:...:<sid6>`, source
//! `5f00:0:<node>:fffe:<slice>:<direction>:0:<mark>`.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use crate::{Class, Direction, SliceId, prefix};

pub const ETHERTYPE_IPV4: u16 = 0x0800;
pub const ETHERTYPE_ARP: u16 = 0x0806;
pub const ETHERTYPE_IPV6: u16 = 0x86DD;
pub const ETHERTYPE_LLDP: u16 = 0x88CC;

/// IP protocol number.
pub const UDP: u8 = 17;
/// UDP port of GTP-U (TS 29.281 §4.4.2).
pub const GTP_PORT: u16 = 2152;

pub const ETHERNET_LEN: usize = 14;
pub const IPV6_LEN: usize = 40;
/// Largest packet of a user, bytes of IP.
pub const ACCESS_MTU: usize = 1500;

/// Protocol numbers of an encapsulated packet (RFC 2473 §3, RFC 8986 §10.1).
pub const PROTOCOL_IPV4: u8 = 4;
pub const PROTOCOL_IPV6: u8 = 41;

/// First two groups of every segment identifier and outer source: the block, `5f00:0::/32`.
pub const BLOCK: [u8; 4] = [0x5f, 0, 0, 0];
/// Fourth group of an outer source.
pub const SOURCE_MARK: u16 = 0xfffe;
/// Function ids start here (RFC 9800 §4.1, local identifier block).
pub const FIRST_FUNCTION: u16 = 0xe000;
/// Hop limit of a fresh outer header.
pub const HOP_LIMIT: u8 = 64;
/// In the last byte of an outer source.
pub const REPAIRED: u8 = 2;

/// ECN-capable (RFC 3168 §5).
pub const ECN_ECT_0: u8 = 2;
pub const ECN_ECT_1: u8 = 1;
/// Congestion experienced.
pub const ECN_CE: u8 = 3;

/// Scheduling class and colour, as the outer traffic class carries them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    pub class: Class,
    /// Within the guarantee. Best effort never is.
    pub in_profile: bool,
}

impl Profile {
    pub const BEST_EFFORT: Self = Self { class: Class::BestEffort, in_profile: false };

    /// AF41 and AF42 (RFC 2597), EF (RFC 3246) and VOICE-ADMIT (RFC 5865).
    pub const fn dscp(self) -> u8 {
        match (self.class, self.in_profile) {
            (Class::BestEffort, _) => 0,
            (Class::Guaranteed, true) => 34,
            (Class::Guaranteed, false) => 36,
            (Class::Urllc, true) => 46,
            (Class::Urllc, false) => 44,
        }
    }

    /// A code point that is none of ours is best effort.
    pub const fn from_dscp(dscp: u8) -> Self {
        let (class, in_profile) = match dscp {
            34 => (Class::Guaranteed, true),
            36 => (Class::Guaranteed, false),
            46 => (Class::Urllc, true),
            44 => (Class::Urllc, false),
            _ => (Class::BestEffort, false),
        };
        Self { class, in_profile }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = match self.class {
            Class::BestEffort => "best effort",
            Class::Guaranteed => "guaranteed",
            Class::Urllc => "urllc",
        };
        write!(f, "{class}, {}", if self.in_profile { "in profile" } else { "excess" })
    }
}

/// Outer source of what enters at `node` in `slice`. `mark` alternates each second: by it each
/// end of a link counts the same packets (RFC 9341).
pub fn outer_source(node: u16, slice: SliceId, direction: Direction, mark: bool) -> Ipv6Addr {
    Ipv6Addr::new(0x5f00, 0, node, SOURCE_MARK, slice.0, direction as u16, 0, mark.into())
}

/// Outer destination of a path; at most six ids.
pub fn outer_destination(sids: &[u16]) -> Ipv6Addr {
    let mut groups = [0x5f00, 0, 0, 0, 0, 0, 0, 0];
    for (group, sid) in groups[2..].iter_mut().zip(sids) {
        *group = *sid;
    }
    Ipv6Addr::from(groups)
}

/// Entropy of a flow for the outer header, 20 bits. `ports` are 0 where there are none.
pub fn flow_label(
    source: IpAddr,
    destination: IpAddr,
    ports: Option<(u16, u16)>,
    protocol: u8,
) -> u32 {
    const FACTORS: [u64; 5] = [
        0x243f_6a88_85a3_08d3,
        0x1319_8a2e_0370_7345,
        0xa409_3822_299f_31d1,
        0x082e_fa98_ec4e_6c89,
        0x4528_21e6_38d0_1377,
    ];
    let words = |address| {
        let bits = prefix::address_bits(address);
        [(bits >> 64) as u64, bits as u64]
    };
    let (from, to) = ports.unwrap_or_default();
    let last = u64::from(from) << 24 | u64::from(to) << 8 | u64::from(protocol);
    let all = words(source).into_iter().chain(words(destination)).chain([last]);
    let products = all.zip(FACTORS).map(|(word, factor)| word.wrapping_mul(factor));
    let sum = products.fold(0u64, u64::wrapping_add);
    let label = (sum ^ sum >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44;
    label as u32
}
