//! Keys that the switches of one network share, by which they know each other's LLDP frames.
//!
//! A code is the left half of HMAC-SHA-256 (RFC 2104 §5: no less than half). What it is worth:
//! docs/decisions/0014.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::frame::{CODE_LEN, KEY_ID_LEN, Proof, Prover};

/// Of a key as the controller hands it out, bytes (RFC 2104 §3: as long as the hash).
pub const KEY_LEN: usize = 32;
/// Keys held at one time: the last, this and the next.
pub const KEYS_MAX: usize = 3;

#[derive(Clone)]
pub struct Key {
    id: [u8; KEY_ID_LEN],
    mac: Hmac<Sha256>,
}

impl Key {
    pub fn new(secret: &[u8; KEY_LEN]) -> Self {
        let mac = Hmac::new_from_slice(secret).expect("HMAC takes keys of any length");
        // Its name comes from itself, so that nobody has to number keys. No frame begins so:
        // the multicast address of LLDP does.
        let id = leading(mac.clone().chain_update("selvedge LLDP key"));
        Self { id, mac }
    }

    pub fn id(&self) -> [u8; KEY_ID_LEN] {
        self.id
    }

    /// Gives `encode` what proves a frame made at that time.
    pub fn proving<T>(&self, at_ms: u64, encode: impl FnOnce(Prover<'_>) -> T) -> T {
        let code = |bytes: &[u8]| leading(self.mac.clone().chain_update(bytes));
        encode(Prover { key_id: self.id, at_ms, code: &code })
    }

    /// Whether the frame is of somebody who has this key. Takes as long whatever differs.
    pub fn holds(&self, frame: &[u8], proof: &Proof) -> bool {
        let covered = &frame[..proof.covers];
        self.mac
            .clone()
            .chain_update(covered)
            .verify_truncated_left(&proof.code[..CODE_LEN])
            .is_ok()
    }
}

fn leading<const N: usize>(mac: Hmac<Sha256>) -> [u8; N] {
    *mac.finalize().into_bytes().first_chunk().expect("a code has 32 bytes")
}

impl fmt::Debug for Key {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lldp::frame;

    #[test]
    fn every_bit_that_is_covered_counts() {
        let (ours, other) = (Key::new(&[1; KEY_LEN]), Key::new(&[2; KEY_LEN]));
        assert_ne!(ours.id(), other.id());
        let ttl = Duration::from_secs(20);
        let frame = ours.proving(7, |prover| frame::encode([2; 6], "s1", "p1", ttl, Some(prover)));
        let proof = frame::parse(&frame).unwrap().proof.unwrap();
        assert_eq!((proof.key_id, proof.at_ms), (ours.id(), 7));
        assert!(ours.holds(&frame, &proof));
        assert!(!other.holds(&frame, &proof));
        for bit in 0..8 * (proof.covers + CODE_LEN) {
            let mut changed = frame.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            // One that says something else, or is none of ours any more, is another matter.
            let Ok(frame::Parsed { proof: Some(proof), .. }) = frame::parse(&changed) else {
                continue;
            };
            assert!(!ours.holds(&changed, &proof), "bit {bit}");
        }
    }

    /// RFC 4231 §4.2 (test case 1), with its key padded with zeros as HMAC does.
    #[test]
    fn it_is_hmac_sha_256() {
        let mut secret = [0; KEY_LEN];
        secret[..20].fill(0x0B);
        let code = Key::new(&secret).proving(0, |prover| (prover.code)(b"Hi There"));
        let want = [
            0xB0, 0x34, 0x4C, 0x61, 0xD8, 0xDB, 0x38, 0x53, 0x5C, 0xA8, 0xAF, 0xCE, 0xAF, 0x0B,
            0xF1, 0x2B,
        ];
        assert_eq!(code, want);
    }
}
