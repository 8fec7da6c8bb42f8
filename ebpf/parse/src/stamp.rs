//! Test packets of the Simple Two-Way Active Measurement Protocol (STAMP, RFC 8762), in
//! unauthenticated mode over UDP and IPv6, with a stateless reflector.
//!
//! Times are truncated PTP timestamps (RFC 8186 §2.1, RFC 8762 §4.1.1: bit Z of the error
//! estimate), seconds and nanoseconds of each side's own monotonic clock: the two are not
//! synchronised (bit S is 0), and a two-way delay needs no more.

use crate::rewrite::{checksum_after, fold};
use crate::{ETHERNET_LEN, ETHERTYPE_IPV6, Window};

/// Bytes of a test packet (RFC 8762 §4.2.1), and of its frame.
pub const PACKET_LEN: usize = 44;
pub const FRAME_LEN: usize = ETHERNET_LEN + 40 + 8 + PACKET_LEN;
/// UDP datagram.
pub const UDP_LEN: u16 = 8 + PACKET_LEN as u16;
pub const UDP: u8 = 17;
/// S 0, Z 1, scale 2, multiplier 1: 2^-30 s, which is what a nanosecond rounds to.
pub const ERROR_ESTIMATE: u16 = 0x4201;
/// A test packet is dropped if it has crossed a router (RFC 5082).
pub const HOP_LIMIT: u8 = 255;

/// One side of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Raw.
    pub address: [u64; 2],
    pub port: u16,
}

impl End {
    pub const fn new(address: [u8; 16], port: u16) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
        let high = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        Self { address: [high, u64::from_le_bytes([i, j, k, l, m, n, o, p])], port }
    }
}

type Frame = Window<FRAME_LEN>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To be reflected.
    Test,
    /// What the neighbor made of ours.
    Answer,
}

/// `None`: not a test packet.
#[inline(always)]
pub fn kind(frame: Frame, sender: End, reflector: End) -> Option<Kind> {
    // Length, next header and hop limit in one word.
    let fixed = u32::from(UDP_LEN) << 16 | u32::from(UDP) << 8 | u32::from(HOP_LIMIT);
    if frame.be16::<12>() != ETHERTYPE_IPV6
        || frame.u8::<14>() >> 4 != 6
        || frame.be32::<18>() != fixed
        || frame.be16::<58>() != UDP_LEN
    {
        return None;
    }
    let source =
        End { address: [frame.raw64::<22>(), frame.raw64::<30>()], port: frame.be16::<54>() };
    let destination =
        End { address: [frame.raw64::<38>(), frame.raw64::<46>()], port: frame.be16::<56>() };
    if source == sender && destination == reflector {
        Some(Kind::Test)
    } else if source == reflector && destination == sender {
        Some(Kind::Answer)
    } else {
        None
    }
}

#[inline(always)]
const fn words(word: u64) -> u32 {
    (word & 0xffff) as u32
        + (word >> 16 & 0xffff) as u32
        + (word >> 32 & 0xffff) as u32
        + (word >> 48) as u32
}

/// The sum of the test packet's raw 16-bit words.
#[inline(always)]
fn packet_sum(frame: Frame) -> u32 {
    words(frame.raw64::<62>())
        + words(frame.raw64::<70>())
        + words(frame.raw64::<78>())
        + words(frame.raw64::<86>())
        + words(frame.raw64::<94>())
        + words(u64::from(frame.raw32::<102>()))
}

/// Whether the UDP checksum is right (RFC 8200 §8.1).
#[inline(always)]
pub fn intact(frame: Frame) -> bool {
    let pseudo = words(frame.raw64::<22>())
        + words(frame.raw64::<30>())
        + words(frame.raw64::<38>())
        + words(frame.raw64::<46>())
        + u32::from(UDP_LEN.to_be())
        + u32::from(u16::from(UDP).to_be());
    fold(pseudo + words(frame.raw64::<54>()) + packet_sum(frame)) == 0xffff
}

/// Nanoseconds of a clock as a truncated PTP timestamp, raw.
#[inline(always)]
pub const fn timestamp(ns: u64) -> u64 {
    (((ns / 1_000_000_000) << 32) | (ns % 1_000_000_000)).to_be()
}

#[inline(always)]
const fn nanoseconds(raw: u64) -> u64 {
    let word = u64::from_be(raw);
    (word >> 32).wrapping_mul(1_000_000_000).wrapping_add(word & 0xffff_ffff)
}

/// Makes a test packet its answer (RFC 8762 §4.3.1): received and sent `now_ns`, on the way
/// back, with the checksum following. The Ethernet header is the caller's.
#[inline(always)]
pub fn reflect(frame: Frame, now_ns: u64) {
    let source = [frame.raw64::<22>(), frame.raw64::<30>()];
    frame.set_raw64::<22>(frame.raw64::<38>());
    frame.set_raw64::<30>(frame.raw64::<46>());
    frame.set_raw64::<38>(source[0]);
    frame.set_raw64::<46>(source[1]);
    let ports = frame.raw32::<54>();
    frame.set_raw32::<54>(ports.rotate_left(16));

    let before = packet_sum(frame);
    let (sequence, sent, error) = (frame.raw32::<62>(), frame.raw64::<66>(), frame.raw16::<74>());
    let now = timestamp(now_ns);
    frame.set_raw64::<66>(now);
    frame.set_raw16::<74>(ERROR_ESTIMATE.to_be());
    frame.set_raw16::<76>(0);
    frame.set_raw64::<78>(now);
    frame.set_raw32::<86>(sequence);
    frame.set_raw64::<90>(sent);
    frame.set_raw16::<98>(error);
    frame.set_raw16::<100>(0);
    // The sender's hop limit, and nothing.
    frame.set_raw32::<102>(u32::from(HOP_LIMIT));
    let after = packet_sum(frame);
    let checksum = checksum_after(frame.raw16::<60>(), fold(before), fold(after));
    // RFC 768: a sum of zero is sent as all ones.
    frame.set_raw16::<60>(if checksum == 0 { 0xffff } else { checksum });
}

/// The sender's sequence number.
#[inline(always)]
pub fn sequence(frame: Frame) -> u32 {
    frame.be32::<86>()
}

/// Of an answer that came at `now_ns`: there and back, without the time the reflector took.
/// What a clock that ran backwards would make of it counts as 0.
#[inline(always)]
pub fn two_way_ns(frame: Frame, now_ns: u64) -> u64 {
    let whole = now_ns.saturating_sub(nanoseconds(frame.raw64::<90>()));
    let there = nanoseconds(frame.raw64::<66>()).saturating_sub(nanoseconds(frame.raw64::<78>()));
    whole.saturating_sub(there)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cursor;

    const SENDER: End = End::new([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 50_862);
    const REFLECTOR: End = End::new([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2], 862);

    /// Sequence 7, sent at 3.5 s, without a checksum.
    fn bare() -> [u8; FRAME_LEN] {
        let mut frame = [0u8; FRAME_LEN];
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        frame[14] = 0x60;
        frame[18..22].copy_from_slice(&[0, 52, UDP, HOP_LIMIT]);
        frame[22..24].copy_from_slice(&[0xfe, 0x80]);
        frame[37] = 1;
        frame[38..40].copy_from_slice(&[0xfe, 0x80]);
        frame[53] = 2;
        frame[54..56].copy_from_slice(&50_862u16.to_be_bytes());
        frame[56..58].copy_from_slice(&862u16.to_be_bytes());
        frame[58..60].copy_from_slice(&UDP_LEN.to_be_bytes());
        frame[65] = 7;
        frame[66..74].copy_from_slice(&timestamp(3_500_000_000).to_le_bytes());
        frame[74..76].copy_from_slice(&ERROR_ESTIMATE.to_be_bytes());
        frame
    }

    /// By RFC 1071, byte pair by byte pair.
    fn checksum(frame: &[u8]) -> u16 {
        let mut pseudo = frame[22..54].to_vec();
        pseudo.extend([0, 0, 0, 52, 0, 0, 0, UDP]);
        pseudo.extend(&frame[54..]);
        let sum: u32 = pseudo.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
        !fold(sum)
    }

    fn test_packet() -> [u8; FRAME_LEN] {
        let mut frame = bare();
        let sum = checksum(&frame);
        frame[60..62].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    fn window(frame: &mut [u8; FRAME_LEN]) -> Frame {
        let start = frame.as_mut_ptr() as usize;
        // SAFETY: the window is used while `frame` is borrowed by the test.
        unsafe { Cursor::new(start, start + FRAME_LEN) }.peek().unwrap()
    }

    #[test]
    fn a_test_packet_comes_back_with_what_it_said_and_when_it_was_there() {
        let mut frame = test_packet();
        let at = window(&mut frame);
        assert_eq!(kind(at, SENDER, REFLECTOR), Some(Kind::Test));
        assert!(intact(at));
        reflect(at, 100_000_000_123);
        assert_eq!(kind(at, SENDER, REFLECTOR), Some(Kind::Answer));
        assert!(intact(at), "the checksum follows");
        assert_eq!(sequence(at), 7);
        assert_eq!(two_way_ns(at, 3_500_123_456), 123_456);
        // RFC 8762 figure 5, field by field.
        let packet = &frame[62..];
        let there = [0, 0, 0, 100, 0, 0, 0, 123];
        assert_eq!(packet[..4], [0, 0, 0, 7], "sequence number, stateless");
        assert_eq!(packet[4..12], there, "timestamp");
        assert_eq!(packet[12..14], ERROR_ESTIMATE.to_be_bytes());
        assert_eq!(packet[16..24], there, "receive timestamp");
        assert_eq!(packet[24..28], [0, 0, 0, 7], "sender's sequence number");
        assert_eq!(packet[28..36], [0, 0, 0, 3, 29, 205, 101, 0], "sender's timestamp");
        assert_eq!(packet[36..38], ERROR_ESTIMATE.to_be_bytes(), "sender's error estimate");
        assert_eq!(packet[40], HOP_LIMIT, "sender's hop limit");
        assert_eq!([&packet[14..16], &packet[38..40], &packet[41..]].concat(), [0; 7]);
        let sum = checksum(&{
            let mut bare = frame;
            bare[60..62].fill(0);
            bare
        });
        assert_eq!(frame[60..62], sum.to_be_bytes());
    }

    #[test]
    fn what_is_no_test_packet_is_none() {
        // (offset, what is changed about it, still a test packet)
        let cases = [
            (12, 0x08, false),
            (14, 0x40, false),
            (19, 51, false),
            (20, 6, false),
            (21, 254, false), // it came over a router
            (37, 3, false),
            (53, 9, false),
            (55, 1, false),
            (57, 1, false),
            (59, 53, false),
            (65, 99, true),
        ];
        for (at, byte, test) in cases {
            let mut frame = test_packet();
            frame[at] = byte;
            let window = window(&mut frame);
            assert_eq!(kind(window, SENDER, REFLECTOR).is_some(), test, "byte {at}");
            assert!(!intact(window) || at < 22, "byte {at} is in the checksum");
        }
    }

    #[test]
    fn clocks_that_disagree_give_no_delay_rather_than_a_huge_one() {
        let mut frame = test_packet();
        let at = window(&mut frame);
        reflect(at, 5);
        assert_eq!(two_way_ns(at, 3_400_000_000), 0);
    }
}
