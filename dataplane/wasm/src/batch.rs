//! A batch as guest and host exchange it: descriptors, and what the host accepts back. Pure.

use crate::outer::{MAX_INNER, MIN_INNER};

/// Most packets in one call of `hook_batch`.
pub const BATCH: usize = 64;
/// Bytes of a descriptor in guest memory: `offset`, `len`, `verdict`, `meta`, each a
/// little-endian u32.
pub(crate) const DESCRIPTOR: usize = 16;

/// Values of `verdict`.
const FORWARD: u32 = 0;
const DROP: u32 = 1;
const REPLY: u32 = 2;
const STEER: u32 = 3;

/// One packet of a batch, as in guest memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Descriptor {
    /// Where the inner packet begins in linear memory. The guest leaves it.
    pub(crate) offset: u32,
    /// Bytes of inner packet. The guest may change it.
    pub(crate) len: u32,
    /// Set by the guest; [`FORWARD`] when it leaves it.
    pub(crate) verdict: u32,
    /// To the guest: [`crate::outer::Outer::meta`]. From the guest: nothing.
    pub(crate) meta: u32,
}

/// What the guest decided about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Forward { len: usize },
    Reply { len: usize },
    Drop,
}

/// How a guest broke the ABI. The hook is quarantined: what it says about the rest of the
/// batch is not believed either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("descriptor {index}: offset moved from {given} to {found}")]
    Offset { index: usize, given: u32, found: u32 },
    #[error("descriptor {index}: length {len} is not within {MIN_INNER}..={MAX_INNER}")]
    Length { index: usize, len: u32 },
    #[error("descriptor {index}: verdict `steer` needs a policy that this host cannot choose")]
    Steer { index: usize },
    #[error("descriptor {index}: verdict `reply` is not among its manifest's \"verdicts\"")]
    Reply { index: usize },
    #[error("descriptor {index}: unknown verdict {verdict}")]
    Verdict { index: usize, verdict: u32 },
    #[error("hook_batch answered {code}, not 0")]
    Status { code: i32 },
}

impl Descriptor {
    pub(crate) fn to_bytes(self) -> [u8; DESCRIPTOR] {
        let mut bytes = [0; DESCRIPTOR];
        for (at, word) in [self.offset, self.len, self.verdict, self.meta].into_iter().enumerate() {
            bytes[at * 4..][..4].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn from_bytes(bytes: [u8; DESCRIPTOR]) -> Self {
        let word = |at: usize| {
            let word = bytes[at * 4..][..4].try_into().expect("four bytes");
            u32::from_le_bytes(word)
        };
        Self { offset: word(0), len: word(1), verdict: word(2), meta: word(3) }
    }

    /// The decision about the packet that was given as `self`, read from the descriptor that
    /// came back in its place.
    pub(crate) fn decide(self, index: usize, back: Self) -> Result<Decision, Violation> {
        if back.offset != self.offset {
            let (given, found) = (self.offset, back.offset);
            return Err(Violation::Offset { index, given, found });
        }
        let len = || {
            let len = back.len as usize;
            if (MIN_INNER..=MAX_INNER).contains(&len) {
                Ok(len)
            } else {
                Err(Violation::Length { index, len: back.len })
            }
        };
        match back.verdict {
            FORWARD => Ok(Decision::Forward { len: len()? }),
            DROP => Ok(Decision::Drop),
            REPLY => Ok(Decision::Reply { len: len()? }),
            STEER => Err(Violation::Steer { index }),
            verdict => Err(Violation::Verdict { index, verdict }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_guest_may_and_may_not_answer() {
        let given = Descriptor { offset: 4096, len: 100, verdict: FORWARD, meta: 9 };
        let back = |len, verdict| Descriptor { len, verdict, ..given };
        let length = |len| Err(Violation::Length { index: 3, len });
        let cases = [
            (back(100, FORWARD), Ok(Decision::Forward { len: 100 })),
            (back(20, FORWARD), Ok(Decision::Forward { len: 20 })),
            (back(1500, REPLY), Ok(Decision::Reply { len: 1500 })),
            (back(19, FORWARD), length(19)),
            (back(1501, REPLY), length(1501)),
            (back(u32::MAX, FORWARD), length(u32::MAX)),
            (back(0, DROP), Ok(Decision::Drop)),
            (back(100, STEER), Err(Violation::Steer { index: 3 })),
            (back(100, 4), Err(Violation::Verdict { index: 3, verdict: 4 })),
            (
                Descriptor { offset: 4097, ..given },
                Err(Violation::Offset { index: 3, given: 4096, found: 4097 }),
            ),
        ];
        for (back, want) in cases {
            assert_eq!(given.decide(3, back), want, "{back:?}");
        }
    }

    proptest! {
        #[test]
        fn a_decision_stays_within_its_frame(given: [u8; 16], back: [u8; 16]) {
            let back = Descriptor::from_bytes(back);
            prop_assert_eq!(Descriptor::from_bytes(back.to_bytes()), back);
            let given = Descriptor { offset: back.offset, ..Descriptor::from_bytes(given) };
            if let Ok(Decision::Forward { len } | Decision::Reply { len }) = given.decide(0, back) {
                prop_assert!((MIN_INNER..=crate::frames::FRAME_INNER).contains(&len));
            }
        }
    }
}
