//! Changing headers, with the IPv4 checksum following by difference (RFC 1624 §3, equation 3),
//! so that a wrong one stays wrong.

use crate::Window;

/// A one's-complement sum folded to 16 bits.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The checksum after a word changed from `old` to `new`. All three raw, or all three as
/// numbers: the sum does not care (RFC 1071 §2 B).
#[inline(always)]
pub const fn checksum_after(checksum: u16, old: u16, new: u16) -> u16 {
    !fold((!checksum) as u32 + (!old) as u32 + new as u32)
}

/// Counts an IPv4 header's time to live down. It is above 0.
#[inline(always)]
pub fn decrement_ipv4<const N: usize>(header: Window<N>) {
    // Time to live is the first byte of its word, the low one of the raw word.
    let old = header.raw16::<8>();
    let new = old.wrapping_sub(1);
    header.set_raw16::<8>(new);
    header.set_raw16::<10>(checksum_after(header.raw16::<10>(), old, new));
}

/// Counts an IPv6 header's hop limit down. It is above 0.
#[inline(always)]
pub fn decrement_ipv6<const N: usize>(header: Window<N>) {
    header.set8::<7>(header.u8::<7>().wrapping_sub(1));
}

/// Sets an IPv4 header's ECN field (RFC 3168 §5), 0 to 3.
#[inline(always)]
pub fn set_ecn_ipv4<const N: usize>(header: Window<N>, ecn: u8) {
    // Type of service is the second byte of its word.
    let old = header.raw16::<0>();
    let new = old & !0x0300 | u16::from(ecn) << 8;
    header.set_raw16::<0>(new);
    header.set_raw16::<10>(checksum_after(header.raw16::<10>(), old, new));
}

/// Sets an IPv6 header's ECN field, 0 to 3.
#[inline(always)]
pub fn set_ecn_ipv6<const N: usize>(header: Window<N>, ecn: u8) {
    header.set8::<1>(header.u8::<1>() & !0x30 | ecn << 4);
}

/// Sets an IPv4 header's DSCP (RFC 2474 §3), 0 to 63.
#[inline(always)]
pub fn set_dscp_ipv4<const N: usize>(header: Window<N>, dscp: u8) {
    let old = header.raw16::<0>();
    let new = old & !0xfc00 | u16::from(dscp) << 10;
    header.set_raw16::<0>(new);
    header.set_raw16::<10>(checksum_after(header.raw16::<10>(), old, new));
}

/// Sets an IPv6 header's DSCP, 0 to 63: the first six bits of the traffic class, which begins in
/// the middle of the first byte.
#[inline(always)]
pub fn set_dscp_ipv6<const N: usize>(header: Window<N>, dscp: u8) {
    header.set8::<0>(header.u8::<0>() & 0xf0 | dscp >> 2);
    header.set8::<1>(header.u8::<1>() & 0x3f | dscp << 6);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cursor;
    use proptest::prelude::*;

    fn header(bytes: &mut [u8]) -> Window<20> {
        let start = bytes.as_mut_ptr() as usize;
        // SAFETY: the window is used while `bytes` is borrowed by the test.
        unsafe { Cursor::new(start, start + bytes.len()) }.peek().unwrap()
    }

    fn valid(bytes: &[u8]) -> bool {
        let sum = bytes.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
        fold(sum) == 0xffff
    }

    proptest! {
        #[test]
        fn checksums_stay_right(
            mut bytes in prop::array::uniform20(any::<u8>()),
            ecn in 0u8..4,
            dscp in 0u8..64,
        ) {
            bytes[8] = bytes[8].max(1);
            bytes[10..12].fill(0);
            let sum = bytes.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
            bytes[10..12].copy_from_slice(&(!fold(sum)).to_be_bytes());
            prop_assert!(valid(&bytes));
            let before = bytes;

            decrement_ipv4(header(&mut bytes));
            prop_assert_eq!(bytes[8], before[8] - 1);
            prop_assert!(valid(&bytes));

            set_ecn_ipv4(header(&mut bytes), ecn);
            prop_assert_eq!(bytes[1], before[1] & !3 | ecn);
            prop_assert!(valid(&bytes));

            set_dscp_ipv4(header(&mut bytes), dscp);
            prop_assert_eq!((bytes[0], bytes[1]), (before[0], dscp << 2 | ecn));
            prop_assert!(valid(&bytes));
        }

        #[test]
        fn only_the_traffic_class_of_ipv6_changes(
            mut bytes in prop::array::uniform20(any::<u8>()),
            ecn in 0u8..4,
            dscp in 0u8..64,
        ) {
            let before = bytes;
            set_ecn_ipv6(header(&mut bytes), ecn);
            prop_assert_eq!(bytes[1], before[1] & !0x30 | ecn << 4);
            prop_assert_eq!(bytes[0], before[0]);
            set_dscp_ipv6(header(&mut bytes), dscp);
            let word = |bytes: &[u8]| u16::from_be_bytes([bytes[0], bytes[1]]);
            let class = u16::from(dscp << 2 | ecn) << 4;
            prop_assert_eq!(word(&bytes), word(&before) & 0xf00f | class);
            prop_assert_eq!(&bytes[2..], &before[2..]);
        }
    }
}
