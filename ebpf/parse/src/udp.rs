//! The header of a datagram (UDP, RFC 768).

use crate::Cursor;

/// Bytes of the header.
pub const LEN: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    pub source: u16,
    pub destination: u16,
    /// Bytes behind the header, as the header says; the packet has as many.
    pub payload_len: usize,
    /// Raw. 0: the sender made none, as it may over IPv4 (RFC 768); over IPv6 only between
    /// ends of a tunnel that both know (RFC 6935 §5, RFC 6936 §4). Not verified here.
    pub checksum: u16,
}

/// The datagram at the cursor, in the `available` bytes of an IP packet that follow its
/// headers. `None`: malformed, that is a length below 8 or one that the packet does not have.
/// What a packet has beyond it is not the datagram's. `available` as for [`crate::ip::ipv4`].
#[inline(always)]
pub fn read(cursor: Cursor, available: usize) -> Option<Datagram> {
    let header = cursor.peek::<LEN>()?;
    let len = header.be16::<4>() as usize;
    if len < LEN || len > available {
        return None;
    }
    Some(Datagram {
        source: header.be16::<0>(),
        destination: header.be16::<2>(),
        payload_len: len - LEN,
        checksum: header.raw16::<6>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads an exact copy, so that Miri and the allocator see overruns.
    fn parse(bytes: &[u8]) -> Option<Datagram> {
        let mut bytes: Box<[u8]> = bytes.into();
        let start = bytes.as_mut_ptr() as usize;
        // SAFETY: `bytes` outlives the cursor.
        read(unsafe { Cursor::new(start, start + bytes.len()) }, bytes.len())
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        // (length field, bytes there are, payload)
        let cases = [
            (0, 20, None), // of a jumbogram (RFC 2675 §4)
            (7, 20, None),
            (8, 8, Some(0)),
            (8, 7, None),
            (20, 20, Some(12)),
            (20, 24, Some(12)),
            (21, 20, None),
            (65535, 20, None),
        ];
        for (len, available, want) in cases {
            let mut bytes = vec![0; available];
            bytes[4..6].copy_from_slice(&u16::to_be_bytes(len));
            assert_eq!(parse(&bytes).map(|udp| udp.payload_len), want, "{len} of {available}");
        }
    }

    proptest! {
        /// The oracle is etherparse.
        #[test]
        fn any_bytes_are_read_as_etherparse_reads_them(
            mut bytes in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            if bytes.len() > 4 {
                bytes[4] = 0;
            }
            let want = etherparse::UdpHeaderSlice::from_slice(&bytes)
                .ok()
                .filter(|udp| (8..=bytes.len()).contains(&udp.length().into()))
                .map(|udp| Datagram {
                    source: udp.source_port(),
                    destination: udp.destination_port(),
                    payload_len: usize::from(udp.length()) - 8,
                    checksum: udp.checksum().to_be(),
                });
            prop_assert_eq!(parse(&bytes), want);
        }
    }
}
