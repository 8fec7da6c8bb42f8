//! NEXT-C-SID containers (RFC 9800 §4.1, F3216) and the flow label of the outer header.

/// An outer destination address as two numbers, high half first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Container {
    pub high: u64,
    pub low: u64,
}

impl Container {
    #[inline(always)]
    pub const fn from_raw(raw: [u64; 2]) -> Self {
        Self { high: u64::from_be(raw[0]), low: u64::from_be(raw[1]) }
    }

    #[inline(always)]
    pub const fn raw(self) -> [u64; 2] {
        [self.high.to_be(), self.low.to_be()]
    }

    /// The active segment: the first id after the 32-bit block.
    #[inline(always)]
    pub const fn active(self) -> u16 {
        (self.high >> 16) as u16
    }

    /// Consumes the active segment: the ids behind it move up, zeros follow.
    #[inline(always)]
    pub const fn shifted(self) -> Self {
        Self {
            high: self.high & 0xffff_ffff_0000_0000 | (self.high & 0xffff) << 16 | self.low >> 48,
            low: self.low << 16,
        }
    }
}

impl Container {
    /// Puts `count` ids before the active segment: `ids` as a number, the first in the highest 16
    /// bits, zeros behind the last. `None`: there is no room, or there are more than four.
    #[inline(always)]
    pub const fn pushed(self, ids: u64, count: u8) -> Option<Self> {
        // The first four ids, and the two behind them.
        let (four, two) = (self.high << 32 | self.low >> 32, self.low as u32);
        let (overflow, first, last) = match count {
            0 => (0, four, two),
            1 => ((two as u16) as u64, ids | four >> 16, ((four as u16) as u32) << 16 | two >> 16),
            2 => (two as u64, ids | four >> 32, four as u32),
            3 => (two as u64 | (four as u16) as u64, ids | four >> 48, (four >> 16) as u32),
            4 => (two as u64 | (four as u32) as u64, ids, (four >> 32) as u32),
            _ => return None,
        };
        if overflow != 0 {
            return None;
        }
        let high = self.high & 0xffff_ffff_0000_0000 | first >> 32;
        Some(Self { high, low: first << 32 | last as u64 })
    }
}

#[inline(always)]
const fn mix(h: u32, word: u32) -> u32 {
    let h = (h ^ word).wrapping_mul(0x9E37_79B1);
    h ^ h >> 15
}

#[inline(always)]
const fn mix_address(h: u32, raw: [u64; 2]) -> u32 {
    let (high, low) = (u64::from_be(raw[0]), u64::from_be(raw[1]));
    let h = mix(mix(h, (high >> 32) as u32), high as u32);
    mix(mix(h, (low >> 32) as u32), low as u32)
}

/// Entropy of a flow in 20 bits. Addresses raw; `ports` is 0 where there are none.
#[inline(always)]
pub const fn flow_label(source: [u64; 2], destination: [u64; 2], ports: u32, protocol: u8) -> u32 {
    let h = mix_address(mix_address(0, source), destination);
    mix(mix(h, ports), protocol as u32) >> 12
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn raw(groups: [u16; 8]) -> [u64; 2] {
        let word = |four: &[u16]| {
            let bytes: Vec<u8> = four.iter().flat_map(|group| group.to_be_bytes()).collect();
            u64::from_ne_bytes(bytes.try_into().unwrap())
        };
        [word(&groups[..4]), word(&groups[4..])]
    }

    proptest! {
        #[test]
        fn a_shift_moves_the_ids_and_leaves_the_block(groups in any::<[u16; 8]>()) {
            let before = Container::from_raw(raw(groups));
            prop_assert_eq!(before.active(), groups[2]);
            prop_assert_eq!(before.raw(), raw(groups));
            let [a, b, _, rest @ ..] = groups;
            let [c, d, e, f, g] = rest;
            prop_assert_eq!(before.shifted().raw(), raw([a, b, c, d, e, f, g, 0]));
        }

        #[test]
        fn ids_are_put_before_the_others_where_there_is_room(
            block in any::<[u16; 2]>(),
            own in prop::collection::vec(1u16.., 0..=6),
            repair in prop::collection::vec(1u16.., 0..=6),
        ) {
            let container = |ids: &[u16]| {
                let mut groups = [0; 8];
                groups[..2].copy_from_slice(&block);
                groups[2..2 + ids.len()].copy_from_slice(ids);
                Container::from_raw(raw(groups))
            };
            let number = (repair.iter().zip([48, 32, 16, 0]))
                .fold(0, |number, (id, shift)| number | u64::from(*id) << shift);
            let count = u8::try_from(repair.len()).unwrap();
            let all = [repair.clone(), own.clone()].concat();
            let want = (all.len() <= 6 && repair.len() <= 4).then(|| container(&all));
            prop_assert_eq!(container(&own).pushed(number, count), want);
        }

        /// As the contract words it: eight address words, ports, protocol.
        #[test]
        fn labels_are_the_hash_of_the_words(
            source in any::<[u16; 8]>(),
            destination in any::<[u16; 8]>(),
            ports in any::<u32>(),
            protocol in any::<u8>(),
        ) {
            let words = |groups: [u16; 8]| {
                let pairs = groups.chunks(2).map(|g| u32::from(g[0]) << 16 | u32::from(g[1]));
                pairs.collect::<Vec<_>>()
            };
            let mut h = 0u32;
            for w in [words(source), words(destination), vec![ports, protocol.into()]].concat() {
                h = (h ^ w).wrapping_mul(0x9E3779B1);
                h ^= h >> 15;
            }
            let label = flow_label(raw(source), raw(destination), ports, protocol);
            prop_assert_eq!(label, h >> 12);
            prop_assert!(label < 1 << 20);
        }
    }
}
