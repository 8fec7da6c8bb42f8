//! The outer header in front of an inner packet: Ethernet and IPv6, 54 bytes, addresses as
//! NEXT-C-SID containers (RFC 9800 §4.1). Pure.
//!
//! Destination: block `5f00:0`, then six 16-bit ids, the hook's own already shifted out.
//! Source: `5f00:0:<ingress node>:fffe:<slice>:<direction>::`. The host checks what it needs
//! to tell the guest; whether the packet may go on is the pipeline's to say.

/// Ethernet and IPv6 header, bytes.
pub(crate) const OUTER: usize = 54;
/// Largest inner packet, bytes: the access MTU. What comes is no larger, and nothing larger
/// could be delivered.
pub const MAX_INNER: usize = 1500;
/// Smallest: an IPv4 header.
pub const MIN_INNER: usize = 20;

const ETHERTYPE: usize = 12;
const IPV6: usize = 14;
const PAYLOAD_LENGTH: usize = IPV6 + 4;
const NEXT_HEADER: usize = IPV6 + 6;
const HOP_LIMIT: usize = IPV6 + 7;
const SOURCE: usize = IPV6 + 8;
const DESTINATION: usize = IPV6 + 24;

const BLOCK: [u8; 4] = [0x5f, 0, 0, 0];
const SOURCE_MARK: [u8; 2] = [0xff, 0xfe];
const UDT46: [u8; 2] = [0xE0, 0x01];
const INITIAL_HOP_LIMIT: u8 = 64;
/// Next header values that say what is inside (IANA protocol numbers).
const IPV4_INSIDE: u8 = 4;
const IPV6_INSIDE: u8 = 41;

/// Outer header of a packet of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outer {
    bytes: [u8; OUTER],
}

/// Why a frame is none that a hook may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("not an IPv6 packet of this block")]
    Foreign,
    #[error("no IP packet of {MIN_INNER}..={MAX_INNER} bytes inside")]
    Inner,
}

impl Outer {
    /// Checks the header of a frame of `frame_len` bytes; also answers the length of the inner
    /// packet, which is within the frame.
    pub(crate) fn parse(bytes: [u8; OUTER], frame_len: usize) -> Result<(Self, usize), Invalid> {
        let inner_len =
            usize::from(u16::from_be_bytes([bytes[PAYLOAD_LENGTH], bytes[PAYLOAD_LENGTH + 1]]));
        let ours = bytes[ETHERTYPE..ETHERTYPE + 2] == [0x86, 0xDD]
            && bytes[IPV6] >> 4 == 6
            && bytes[SOURCE..SOURCE + 4] == BLOCK
            && bytes[DESTINATION..DESTINATION + 4] == BLOCK
            && bytes[SOURCE + 6..SOURCE + 8] == SOURCE_MARK;
        if !ours {
            return Err(Invalid::Foreign);
        }
        let fits = (MIN_INNER..=MAX_INNER).contains(&inner_len) && OUTER + inner_len <= frame_len;
        if !fits || !matches!(bytes[NEXT_HEADER], IPV4_INSIDE | IPV6_INSIDE) {
            return Err(Invalid::Inner);
        }
        Ok((Self { bytes }, inner_len))
    }

    /// What a guest is told of its packet: slice id in the low 16 bits, direction
    /// (0 downlink, 1 uplink) in bit 16.
    pub(crate) fn meta(&self) -> u32 {
        let slice = u16::from_be_bytes([self.bytes[SOURCE + 8], self.bytes[SOURCE + 9]]);
        let uplink = self.bytes[SOURCE + 10..SOURCE + 12] != [0, 0];
        u32::from(slice) | u32::from(uplink) << 16
    }

    /// The header with which a packet goes on, after the guest changed what is inside.
    /// `None` when `inner`, its first bytes, does not begin an IP packet.
    pub(crate) fn forward(mut self, inner: [u8; 2], inner_len: usize) -> Option<[u8; OUTER]> {
        self.describe(inner, inner_len)?;
        Some(self.bytes)
    }

    /// The header with which a packet goes back: to the switch where the one it answers came
    /// in, there to be delivered in the same slice, in the other direction. It is best effort,
    /// since nobody reserved the way back for it.
    pub(crate) fn reply(mut self, inner: [u8; 2], inner_len: usize) -> Option<[u8; OUTER]> {
        self.describe(inner, inner_len)?;
        let ingress = [self.bytes[SOURCE + 4], self.bytes[SOURCE + 5]];
        let destination = &mut self.bytes[DESTINATION + 4..DESTINATION + 16];
        destination.fill(0);
        destination[..2].copy_from_slice(&ingress);
        destination[2..4].copy_from_slice(&UDT46);
        let back = u8::from(self.bytes[SOURCE + 10..SOURCE + 12] == [0, 0]);
        self.bytes[SOURCE + 10..SOURCE + 12].copy_from_slice(&[0, back]);
        self.bytes[HOP_LIMIT] = INITIAL_HOP_LIMIT;
        let ecn = if inner[0] >> 4 == 4 { inner[1] & 3 } else { inner[1] >> 4 & 3 };
        self.bytes[IPV6] = 0x60; // traffic class: DSCP 0, the inner ECN (RFC 6040 §4.1)
        self.bytes[IPV6 + 1] = (self.bytes[IPV6 + 1] & 0x0F) | ecn << 4;
        let (to, from) = self.bytes[..12].split_at_mut(6);
        to.swap_with_slice(from);
        Some(self.bytes)
    }

    fn describe(&mut self, inner: [u8; 2], inner_len: usize) -> Option<()> {
        self.bytes[NEXT_HEADER] = match inner[0] >> 4 {
            4 => IPV4_INSIDE,
            6 if inner_len >= 40 => IPV6_INSIDE,
            _ => return None,
        };
        let len = u16::try_from(inner_len).expect("at most MAX_INNER");
        self.bytes[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 2].copy_from_slice(&len.to_be_bytes());
        Some(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Outer header of an uplink packet of slice 5 from node 3, to nodes 7 and its uDT46.
    pub(crate) fn outer(inner_len: u16, next_header: u8) -> [u8; OUTER] {
        let mut bytes = [0; OUTER];
        bytes[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
        bytes[12..14].copy_from_slice(&[0x86, 0xDD]);
        bytes[14..18].copy_from_slice(&[0x6B, 0x81, 0x23, 0x45]); // DSCP 46, ECN 0, label
        bytes[18..20].copy_from_slice(&inner_len.to_be_bytes());
        bytes[20] = next_header;
        bytes[21] = 60;
        bytes[22..34].copy_from_slice(&[0x5f, 0, 0, 0, 0, 3, 0xff, 0xfe, 0, 5, 0, 1]);
        bytes[38..46].copy_from_slice(&[0x5f, 0, 0, 0, 0, 7, 0xE0, 1]);
        bytes
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let change = |at: usize, to: u8| {
            let mut bytes = outer(100, 4);
            bytes[at] = to;
            bytes
        };
        let cases = [
            ("ours", outer(100, 4), 154, Ok(100)),
            ("padded", outer(100, 41), 160, Ok(100)),
            ("IPv4", change(13, 0), 154, Err(Invalid::Foreign)),
            ("version", change(14, 0x40), 154, Err(Invalid::Foreign)),
            ("source block", change(22, 0x20), 154, Err(Invalid::Foreign)),
            ("source mark", change(29, 0xff), 154, Err(Invalid::Foreign)),
            ("destination block", change(41, 1), 154, Err(Invalid::Foreign)),
            ("next header", change(20, 43), 154, Err(Invalid::Inner)),
            ("truncated", outer(100, 4), 153, Err(Invalid::Inner)),
            ("too short", outer(19, 4), 154, Err(Invalid::Inner)),
            ("too long", outer(1501, 4), 1600, Err(Invalid::Inner)),
        ];
        for (name, bytes, len, want) in cases {
            let got = Outer::parse(bytes, len).map(|(_, inner)| inner);
            assert_eq!(got, want, "{name}");
        }
    }

    #[test]
    fn going_on_changes_length_and_inner_version_only() {
        let (header, _) = Outer::parse(outer(100, 4), 154).unwrap();
        assert_eq!(header.meta(), 5 | 1 << 16);
        assert_eq!(header.clone().forward([0x60, 0], 300), Some(outer(300, 41)));
        assert_eq!(header.clone().forward([0x45, 0], 20), Some(outer(20, 4)));
        for (inner, len) in [([0x00, 0], 100), ([0x55, 0], 100), ([0x60, 0], 39)] {
            assert_eq!(header.clone().forward(inner, len), None, "{inner:x?}");
        }
    }

    #[test]
    fn a_reply_goes_to_the_ingress_in_the_same_slice_and_the_other_direction() {
        let (header, _) = Outer::parse(outer(100, 4), 154).unwrap();
        let reply = header.reply([0x45, 0b10], 60).unwrap();
        let (parsed, len) = Outer::parse(reply, 54 + 60).unwrap();
        assert_eq!((len, parsed.meta()), (60, 5));
        assert_eq!(reply[38..46], [0x5f, 0, 0, 0, 0, 3, 0xE0, 1]);
        assert_eq!(reply[46..54], [0; 8]);
        assert_eq!(reply[14..18], [0x60, 0x21, 0x23, 0x45], "best effort, inner ECN, same label");
        assert_eq!(reply[..12], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
        assert_eq!(reply[21], 64);
        let back = parsed.reply([0x45, 0], 60).unwrap();
        assert_eq!(Outer::parse(back, 114).unwrap().0.meta(), 5 | 1 << 16);
    }
}
