//! Frames by hand: Ethernet, IP, UDP.

use std::net::IpAddr;

use selvedge_pipeline::gateway;

/// A UDP packet of ports 4000 -> 5000 from a host to its gateway.
pub(crate) fn frame(mac: [u8; 6], source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let udp = [0x0f, 0xa0, 0x13, 0x88, 0, 12, 0, 0, b'p', b'i', b'n', b'g'];
    let mut frame = Vec::new();
    frame.extend(gateway::MAC);
    frame.extend(mac);
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend([0x08, 0x00]);
            let mut header = vec![0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0, 0];
            header.extend(source.octets());
            header.extend(destination.octets());
            let words = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
            let mut sum: u32 = words.sum();
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            let checksum = !(sum as u16);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            frame.extend(header);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.extend([0x86, 0xdd]);
            frame.extend([0x60, 0, 0, 0, 0, 12, 17, 64]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        _ => panic!("two families"),
    }
    frame.extend(udp);
    frame
}
