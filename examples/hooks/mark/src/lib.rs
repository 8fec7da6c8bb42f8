//! Changes the payload of every UDP packet so that its receiver can tell: each byte is XORed
//! with a key. The checksum is kept right. Configuration: the key as text, `key=0x5A`
//! (the default).
//!
//! Counters: 0 marked, 1 left alone (not UDP).

#![cfg_attr(target_arch = "wasm32", no_std)]

use hook_sdk::{Hook, Packet, Verdict, export_hook, host, packet};

/// The key where the configuration names none.
pub const DEFAULT_KEY: u8 = 0x5A;
/// Answer to a configuration that is not understood.
pub const BAD_CONFIG: i32 = 1;

pub struct Mark {
    key: u8,
}

export_hook!(Mark, imports: ["counter"]);

impl Hook for Mark {
    fn init(config: &[u8]) -> Result<Self, i32> {
        let text = core::str::from_utf8(config).map_err(|_| BAD_CONFIG)?.trim();
        let key = match text.strip_prefix("key=") {
            None if text.is_empty() => DEFAULT_KEY,
            None => return Err(BAD_CONFIG),
            Some(key) => match key.strip_prefix("0x") {
                Some(hex) => u8::from_str_radix(hex, 16).map_err(|_| BAD_CONFIG)?,
                None => key.parse().map_err(|_| BAD_CONFIG)?,
            },
        };
        Ok(Self { key })
    }

    fn packet(&mut self, packet: &mut Packet<'_>) -> Verdict {
        let marked = mark(packet.bytes_mut(), self.key);
        host::counter(u32::from(!marked), 1);
        Verdict::Forward
    }
}

/// XORs the UDP payload of `bytes`; false when there is none.
pub fn mark(bytes: &mut [u8], key: u8) -> bool {
    let Some(udp) = packet::udp(bytes) else { return false };
    let payload = &mut bytes[udp.payload.clone()];
    let old = packet::sum(payload);
    for byte in payload.iter_mut() {
        *byte ^= key;
    }
    let new = packet::sum(payload);
    let checksum = &mut bytes[udp.checksum()];
    let updated =
        packet::update_udp_checksum(u16::from_be_bytes([checksum[0], checksum[1]]), old, new);
    checksum.copy_from_slice(&updated.to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_the_key() {
        let cases: [(&[u8], Result<u8, i32>); 8] = [
            (b"", Ok(0x5A)),
            (b" \n", Ok(0x5A)),
            (b"key=0x01", Ok(1)),
            (b"key=255\n", Ok(255)),
            (b"key=256", Err(BAD_CONFIG)),
            (b"key=0xyy", Err(BAD_CONFIG)),
            (b"lock=1", Err(BAD_CONFIG)),
            (b"\xff", Err(BAD_CONFIG)),
        ];
        for (config, want) in cases {
            assert_eq!(Mark::init(config).map(|mark| mark.key), want, "{config:?}");
        }
    }

    #[test]
    fn marking_twice_restores_the_packet() {
        let mut packet = vec![
            0x45, 0, 0, 33, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 7, 0, 9, 0, 13,
            0x12, 0x34,
        ];
        packet.extend(b"hello");
        let original = packet.clone();
        assert!(mark(&mut packet, 0x5A));
        assert_eq!(packet[28..], *b"hello".map(|byte| byte ^ 0x5A).as_slice());
        assert_ne!(packet[26..28], original[26..28], "checksum");
        assert_eq!(packet[..26], original[..26]);
        assert!(mark(&mut packet, 0x5A));
        assert_eq!(packet, original);
        packet[9] = 6;
        assert!(!mark(&mut packet, 0x5A), "TCP is left alone");
    }
}
