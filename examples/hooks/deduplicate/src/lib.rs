//! Drops a UDP packet whose flow and payload were seen before within a short time: sensors
//! often send everything two or three times. A repetition is known by a 64-bit hash of
//! addresses, ports and payload, not of what changes on the way (TTL, identification).
//! Configuration: `window_ms=50` (the default), at most 60,000.
//!
//! Counters: 0 passed, 1 dropped as repeated.

#![cfg_attr(target_arch = "wasm32", no_std)]

use hook_sdk::{Hook, Packet, Verdict, export_hook, host, packet};

const DEFAULT_WINDOW_MS: u64 = 50;
const MAX_WINDOW_MS: u64 = 60_000;
/// Answer to a configuration that is not understood.
pub const BAD_CONFIG: i32 = 1;
/// Packets remembered: sets, each of the `WAYS` packets seen last.
const SETS: usize = 1024;
const WAYS: usize = 4;

pub struct Deduplicate {
    window_ns: u64,
    seen: [[Seen; WAYS]; SETS],
}

#[derive(Clone, Copy)]
struct Seen {
    hash: u64,
    at_ns: u64,
}

export_hook!(Deduplicate, imports: ["clock_ns", "counter"]);

impl Hook for Deduplicate {
    fn init(config: &[u8]) -> Result<Self, i32> {
        let text = core::str::from_utf8(config).map_err(|_| BAD_CONFIG)?.trim();
        let window_ms = match text.strip_prefix("window_ms=") {
            None if text.is_empty() => DEFAULT_WINDOW_MS,
            None => return Err(BAD_CONFIG),
            Some(ms) => ms.parse().ok().filter(|ms| *ms <= MAX_WINDOW_MS).ok_or(BAD_CONFIG)?,
        };
        let empty = Seen { hash: 0, at_ns: 0 };
        Ok(Self { window_ns: window_ms * 1_000_000, seen: [[empty; WAYS]; SETS] })
    }

    fn packet(&mut self, packet: &mut Packet<'_>) -> Verdict {
        let repeated = match identity(packet.bytes()) {
            Some(hash) => self.repeated(hash, host::clock_ns()),
            None => false,
        };
        host::counter(u32::from(repeated), 1);
        if repeated { Verdict::Drop } else { Verdict::Forward }
    }
}

impl Deduplicate {
    /// Whether `hash` was seen less than the window ago; from now on it was.
    pub fn repeated(&mut self, hash: u64, now_ns: u64) -> bool {
        let set = &mut self.seen[hash as usize % SETS];
        let fresh =
            |seen: &Seen| seen.at_ns != 0 && now_ns.saturating_sub(seen.at_ns) < self.window_ns;
        if set.iter().any(|seen| seen.hash == hash && fresh(seen)) {
            return true;
        }
        set.rotate_right(1);
        set[0] = Seen { hash, at_ns: now_ns.max(1) };
        false
    }
}

/// A hash of what makes a UDP packet the same packet; `None` for other packets.
pub fn identity(bytes: &[u8]) -> Option<u64> {
    let udp = packet::udp(bytes)?;
    let addresses = if bytes[0] >> 4 == 4 { 12..20 } else { 8..40 };
    let mut hash = 0xCBF2_9CE4_8422_2325;
    for part in [addresses, udp.header..udp.header + 4, udp.payload] {
        hash = mix(hash, &bytes[part]);
    }
    // 0 marks an empty place.
    Some(if hash == 0 { 1 } else { hash })
}

/// A word at a time; not for adversaries, who could only have their own packets dropped.
fn mix(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut word = |word: u64| {
        hash = (hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        hash ^= hash >> 32;
    };
    let (words, rest) = bytes.as_chunks::<8>();
    for bytes in words {
        word(u64::from_le_bytes(*bytes));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    word(u64::from_le_bytes(last));
    word(bytes.len() as u64);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(payload: &[u8], port: u8, ttl: u8) -> Vec<u8> {
        let mut bytes = vec![0x45, 0, 0, 28 + payload.len() as u8, 0, ttl, 0, 0, ttl, 17, 0, 0];
        bytes.extend([10, 0, 0, 1, 10, 0, 0, 2, 0, port, 0, 9, 0, 8 + payload.len() as u8, 0, 0]);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn a_repetition_within_the_window_is_one_and_later_is_none() {
        let mut hook = Deduplicate::init(b"window_ms=10").unwrap();
        let script = [
            (7, 1_000_000, false),
            (7, 2_000_000, true),
            (8, 2_000_000, false),
            (7, 10_999_999, true),
            (7, 11_000_000, false),
            (7, 20_999_999, true),
        ];
        for (hash, now, want) in script {
            assert_eq!(hook.repeated(hash, now), want, "{hash} at {now} ns");
        }
    }

    #[test]
    fn a_full_set_forgets_its_oldest() {
        let mut hook = Deduplicate::init(b"").unwrap();
        let hash = |n: usize| (1 + n * SETS) as u64;
        for n in 0..=WAYS {
            assert!(!hook.repeated(hash(n), 5));
        }
        assert!(hook.repeated(hash(1), 5));
        assert!(!hook.repeated(hash(0), 5));
    }

    #[test]
    fn what_changes_on_the_way_does_not_matter_and_everything_else_does() {
        let same = identity(&packet(b"reading 17", 7, 64));
        assert!(same.is_some());
        assert_eq!(same, identity(&packet(b"reading 17", 7, 63)));
        assert_ne!(same, identity(&packet(b"reading 18", 7, 64)));
        assert_ne!(same, identity(&packet(b"reading 17", 8, 64)));
        assert_ne!(identity(&packet(b"a", 7, 64)), identity(&packet(b"a\0", 7, 64)));
        assert_eq!(identity(b"nothing"), None);
    }

    #[test]
    fn a_bad_configuration_is_refused() {
        for config in [b"window=1".as_slice(), b"window_ms=60001", b"window_ms=-1", b"\xff"] {
            assert_eq!(Deduplicate::init(config).err(), Some(BAD_CONFIG), "{config:?}");
        }
    }
}
