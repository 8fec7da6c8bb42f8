//! Datagrams of clients as they come from a packet socket, and those to them. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use selvedge_pipeline::gateway;

use crate::gateway::{checksum, ipv6, udp_checksum};

const ETHERTYPE_IPV4: u16 = 0x0800;
const UDP: u8 = 17;
const ETHERNET: usize = 14;
const UDP_HEADER: usize = 8;
const MAY_NOT_BE_CUT: [u8; 2] = [0x40, 0];

/// What a host has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Datagram<'a> {
    pub(super) mac: [u8; 6],
    pub(super) source: IpAddr,
    pub(super) payload: &'a [u8],
}

/// `None`: cut off. That it is UDP without options, from a client's port to a server's, the XDP
/// program has seen; checksums may be left to an interface that never fills them in.
pub(super) fn datagram(frame: &[u8]) -> Option<Datagram<'_>> {
    let mac = *frame.get(6..)?.first_chunk()?;
    let packet = frame.get(ETHERNET..)?;
    let (source, header) = match packet.first()? >> 4 {
        4 => (IpAddr::from(*packet.get(12..)?.first_chunk::<4>()?), 20),
        6 => (IpAddr::from(*packet.get(8..)?.first_chunk::<16>()?), 40),
        _ => return None,
    };
    let udp = packet.get(header..)?;
    let len = u16::from_be_bytes(*udp.get(4..)?.first_chunk()?);
    Some(Datagram { mac, source, payload: udp.get(UDP_HEADER..len.into())? })
}

fn udp([from, to]: [u16; 2], payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(UDP_HEADER + payload.len()).expect("no larger than a frame");
    let header = [from, to, len, 0].map(u16::to_be_bytes);
    [header.as_flattened(), payload].concat()
}

/// From the gateway to a client; `address`: `None` is all of the link.
pub(super) fn to_client4(mac: [u8; 6], address: Option<Ipv4Addr>, payload: &[u8]) -> Vec<u8> {
    let (mac, to) = match address {
        Some(address) => (mac, address),
        None => ([0xFF; 6], Ipv4Addr::BROADCAST),
    };
    let mut datagram = udp([67, 68], payload);
    let len = (20 + u16::try_from(datagram.len()).expect("no larger than a frame")).to_be_bytes();
    let ends = [gateway::IPV4.octets(), to.octets()].concat();
    let mut header =
        [&[0x45, 0][..], &len, &[0, 0], &MAY_NOT_BE_CUT, &[64, UDP, 0, 0], &ends].concat();
    let sum = checksum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    let udp_len = [datagram[4], datagram[5]];
    let sum = udp_checksum(&[&ends[..], &[0, UDP], &udp_len, &datagram].concat());
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    [&mac[..], &gateway::MAC, &ETHERTYPE_IPV4.to_be_bytes(), &header, &datagram].concat()
}

/// From the gateway to a client.
pub(super) fn to_client6(mac: [u8; 6], address: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    ipv6(mac, address, UDP, udp([547, 546], payload), 6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_read_again() {
        let mac = [2, 0, 0, 0, 0, 7];
        let gateway =
            |address: IpAddr| Datagram { mac: gateway::MAC, source: address, payload: b"odd" };
        let frame = to_client4(mac, Some("10.1.0.11".parse().unwrap()), b"odd");
        assert_eq!(datagram(&frame), Some(gateway(gateway::IPV4.into())));
        assert_eq!((&frame[..6], &frame[30..38]), (&mac[..], &[10, 1, 0, 11, 0, 67, 0, 68][..]));
        assert_eq!(checksum(&frame[14..34]), 0);
        let summed = [&frame[26..34], &[0, 17, 0, 11], &frame[34..]].concat();
        assert_eq!(checksum(&summed), 0);
        let all = to_client4(mac, None, b"odd");
        assert_eq!((&all[..6], &all[30..34]), (&[0xFF; 6][..], &[0xFF; 4][..]));

        let frame = to_client6(mac, "fe80::7".parse().unwrap(), b"odd");
        assert_eq!(datagram(&frame), Some(gateway(gateway::IPV6.into())));
        let summed = [&frame[22..54], &[0, 11, 0, 0, 0, 17], &frame[54..]].concat();
        assert_eq!(checksum(&summed), 0);
        for frame in [all, frame] {
            for len in 0..frame.len() {
                assert_eq!(datagram(&frame[..len]), None, "{len} bytes");
            }
        }
    }
}
