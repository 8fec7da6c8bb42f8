//! Finding the UDP payload of an IP packet, and its checksum.

use core::ops::Range;

const UDP: u8 = 17;
const UDP_HEADER: usize = 8;

/// Where the UDP of a packet is. All offsets are within the packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Udp {
    /// Where the UDP header begins.
    pub header: usize,
    pub payload: Range<usize>,
}

impl Udp {
    /// Where the checksum is (RFC 768).
    pub fn checksum(&self) -> Range<usize> {
        self.header + 6..self.header + 8
    }
}

/// The UDP of an unfragmented IPv4 or IPv6 packet (no extension headers); `None` for any
/// other packet, and for one whose lengths do not add up.
pub fn udp(packet: &[u8]) -> Option<Udp> {
    let version = *packet.first()? >> 4;
    let header = match version {
        4 => {
            let header = usize::from(packet[0] & 15) * 4;
            let fragment = u16::from_be_bytes(packet.get(6..8)?.try_into().ok()?);
            let whole = fragment & 0x3FFF == 0; // neither MF nor an offset
            (header >= 20 && whole && *packet.get(9)? == UDP).then_some(header)?
        }
        6 => (*packet.get(6)? == UDP).then_some(40)?,
        _ => return None,
    };
    let len = packet.get(header + 4..header + 6)?;
    let end = header + usize::from(u16::from_be_bytes([len[0], len[1]]));
    let payload = header + UDP_HEADER..end;
    (payload.start <= payload.end && end <= packet.len()).then_some(Udp { header, payload })
}

/// One's complement sum of 16-bit words, an odd byte padded with zero (RFC 1071).
pub fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    let (words, rest) = bytes.as_chunks::<2>();
    for word in words {
        sum += u32::from(u16::from_be_bytes(*word));
        if sum > 0xFFFF {
            sum -= 0xFFFF;
        }
    }
    if let [last] = rest {
        sum += u32::from(*last) << 8;
    }
    fold(sum)
}

/// `checksum` of data whose [`sum`] was `old`, after it became `new` (RFC 1624, equation 3).
/// For UDP: a checksum of 0 says that there is none, and stays; a result of 0 becomes
/// 0xFFFF (RFC 768).
pub fn update_udp_checksum(checksum: u16, old: u16, new: u16) -> u16 {
    if checksum == 0 {
        return 0;
    }
    let updated = !fold(u32::from(!checksum) + u32::from(!old) + u32::from(new));
    if updated == 0 { 0xFFFF } else { updated }
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipv4(payload: &[u8]) -> Vec<u8> {
        let total = 28 + payload.len() as u16;
        let mut packet = vec![0x45, 0];
        packet.extend(total.to_be_bytes());
        packet.extend([0, 0, 0x40, 0, 64, UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend([0, 7, 0, 9]);
        packet.extend((8 + payload.len() as u16).to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(payload);
        packet
    }

    #[test]
    fn the_payload_is_found_at_every_truncation_or_none_is() {
        let packet = ipv4(b"hello");
        assert_eq!(udp(&packet), Some(Udp { header: 20, payload: 28..33 }));
        for len in 0..packet.len() {
            assert_eq!(udp(&packet[..len]), None, "{len} bytes");
        }
        let change = |at: usize, to: u8| {
            let mut packet = packet.clone();
            packet[at] = to;
            udp(&packet)
        };
        assert_eq!(change(9, 6), None, "TCP");
        assert_eq!(change(6, 0x20), None, "first fragment");
        assert_eq!(change(7, 1), None, "later fragment");
        assert_eq!(change(0, 0x44), None, "header of 16 bytes");
        assert_eq!(change(25, 7), None, "UDP length below its header");
        assert_eq!(change(25, 14), None, "UDP length beyond the packet");
    }

    #[test]
    fn an_updated_checksum_is_the_one_computed_anew() {
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        for len in [0, 1, 2, 3, 64, 1471] {
            for _ in 0..200 {
                let old: Vec<u8> = (0..len).map(|_| random()).collect();
                let new: Vec<u8> = (0..len).map(|_| random()).collect();
                let rest = [random(), random()]; // what is summed besides
                let of = |payload: &[u8]| {
                    let sum = u32::from(sum(payload)) + u32::from(sum(&rest));
                    match !fold(sum) {
                        0 => 0xFFFF,
                        checksum => checksum,
                    }
                };
                let updated = update_udp_checksum(of(&old), sum(&old), sum(&new));
                assert_eq!(updated, of(&new), "{old:?} -> {new:?}");
            }
        }
        assert_eq!(update_udp_checksum(0, 1, 2), 0, "no checksum stays none");
    }
}
