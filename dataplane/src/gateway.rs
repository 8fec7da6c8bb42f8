//! The any-cast gateway speaking first: an endpoint that has just been bound asked for it in vain
//! a moment ago, and would ask again only after its own retry timer (1 s: RFC 4861 §10
//! `RETRANS_TIMER`, and Linux for ARP). It is told unasked instead, and what it holds back for
//! want of the gateway's address leaves at once. An interface that has just become an access
//! port, or has its carrier back, is told likewise: whoever was plugged in asked too early, and
//! what it then sends shows who it is.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsRawFd;

use nix::sys::socket::{LinkAddr, MsgFlags, sendto};
use selvedge_pipeline::gateway;
use socket2::{Domain, Socket, Type};

const ETHERTYPE_ARP: u16 = 0x0806;
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86DD;
pub(crate) const ICMPV6: u8 = 58;
/// RFC 4291 §2.7.1, and where it goes (RFC 2464 §7).
pub(crate) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xFF02, 0, 0, 0, 0, 0, 0, 1);
pub(crate) const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ADVERTISEMENT: u8 = 136;
/// Not solicited, override (RFC 4861 §4.4).
const FLAGS: u8 = 0x20;

/// A frame from the gateway to one endpoint: an ARP reply (RFC 826), or a neighbor
/// advertisement (RFC 4861 §7.2.6), in the family of `address`.
pub(crate) fn announcement(mac: [u8; 6], address: IpAddr) -> Vec<u8> {
    let ethernet = |ethertype: u16| [&mac[..], &gateway::MAC, &ethertype.to_be_bytes()].concat();
    match address {
        IpAddr::V4(address) => [
            &ethernet(ETHERTYPE_ARP)[..],
            &[0, 1, 8, 0, 6, 4, 0, 2], // Ethernet, IPv4, their lengths, reply
            &gateway::MAC,
            &gateway::IPV4.octets(),
            &mac,
            &address.octets(),
        ]
        .concat(),
        IpAddr::V6(address) => {
            let mut message = vec![ADVERTISEMENT, 0, 0, 0, FLAGS, 0, 0, 0];
            message.extend(gateway::IPV6.octets());
            message.extend([2, 1]); // target link-layer address, 8 bytes
            message.extend(gateway::MAC);
            ipv6(mac, address, ICMPV6, message, 2)
        }
    }
}

/// A frame with a payload of IPv6 from the gateway, which has its checksum put in at `sum_at`.
pub(crate) fn ipv6(
    mac: [u8; 6],
    to: Ipv6Addr,
    protocol: u8,
    mut payload: Vec<u8>,
    sum_at: usize,
) -> Vec<u8> {
    let len = u16::try_from(payload.len()).expect("no larger than a frame").to_be_bytes();
    let ends = [gateway::IPV6.octets(), to.octets()].concat();
    // The pseudo-header of RFC 8200 §8.1 comes first.
    let summed = [&ends[..], &[0, 0], &len, &[0, 0, 0, protocol], &payload].concat();
    let sum = udp_checksum(&summed);
    payload[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
    let ethernet = [&mac[..], &gateway::MAC, &ETHERTYPE_IPV6.to_be_bytes()].concat();
    [&ethernet[..], &[0x60, 0, 0, 0], &len, &[protocol, 255], &ends, &payload].concat()
}

/// As [`checksum`]; 0, which says that there is none (RFC 768), in its other form. To ICMPv6 the
/// two are one.
pub(crate) fn udp_checksum(bytes: &[u8]) -> u16 {
    match checksum(bytes) {
        0 => 0xFFFF,
        sum => sum,
    }
}

/// RFC 1071.
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| (*low).into());
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}

/// The same for whoever is on the link: a gratuitous ARP reply (RFC 5227 §3), and an unsolicited
/// neighbor advertisement to all nodes.
pub(crate) fn to_all() -> [Vec<u8>; 2] {
    [announcement([0xFF; 6], gateway::IPV4.into()), announcement(ALL_NODES_MAC, ALL_NODES.into())]
}

/// A packet socket that sends and hears nothing.
#[derive(Debug)]
pub(crate) struct Sender(Socket);

impl Sender {
    /// In this thread's network namespace.
    ///
    /// # Errors
    /// `PermissionDenied` without CAP_NET_RAW.
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self(Socket::new(Domain::PACKET, Type::RAW.nonblocking(), None)?))
    }

    /// Sends at once or not at all.
    ///
    /// # Errors
    /// `NotFound` if there is no such interface; the system's.
    pub(crate) fn send(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        self.send_at(link_addresses()?.get(&ifindex).ok_or(io::ErrorKind::NotFound)?, frame)
    }

    /// As [`Self::send`], on an interface that was looked up before.
    pub(crate) fn send_at(&self, link: &LinkAddr, frame: &[u8]) -> io::Result<()> {
        sendto(self.0.as_raw_fd(), frame, link, MsgFlags::MSG_DONTWAIT)?;
        Ok(())
    }
}

/// Interfaces by index. The kernel's own list of link addresses, because it is the only place
/// where one is made without unsafe code.
pub(crate) fn link_addresses() -> io::Result<BTreeMap<u32, LinkAddr>> {
    let links = nix::ifaddrs::getifaddrs()?.filter_map(|interface| {
        let link = *interface.address?.as_link_addr()?;
        Some((u32::try_from(link.ifindex()).ok()?, link))
    });
    Ok(links.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_is_announced_in_either_family() {
        let mac = [2, 0xFF, 0, 0, 0, 7];
        let frame = announcement(mac, "10.1.0.11".parse().unwrap());
        let want = [
            2, 0xFF, 0, 0, 0, 7, 2, 0x5E, 0x1F, 0, 0, 1, 8, 6, // Ethernet
            0, 1, 8, 0, 6, 4, 0, 2, // reply
            2, 0x5E, 0x1F, 0, 0, 1, 169, 254, 1, 1, // the gateway
            2, 0xFF, 0, 0, 0, 7, 10, 1, 0, 11, // the endpoint
        ];
        assert_eq!(frame, want);

        let frame = announcement(mac, "fd10::11".parse().unwrap());
        assert_eq!(frame.len(), 14 + 40 + 32);
        assert_eq!(frame[12..14], [0x86, 0xDD]);
        assert_eq!(frame[18..22], [0, 32, 58, 255]);
        assert_eq!(frame[54], 136);
        assert_eq!(frame[58], 0x20, "nobody asked, and it counts");
        // With its checksum in place the sum of all is zero.
        let summed = [&frame[22..54], &[0, 32, 0, 0, 0, 58], &frame[54..]].concat();
        assert_eq!(checksum(&summed), 0);
    }
}
