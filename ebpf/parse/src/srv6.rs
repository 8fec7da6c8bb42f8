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

// Odd, from the digits of the golden ratio and of pi.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
const FACTORS: [u64; 5] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7345,
    0xa409_3822_299f_31d1,
    0x082e_fa98_ec4e_6c89,
    0x4528_21e6_38d0_1377,
];

/// Entropy of a flow in 20 bits. Addresses raw; `ports` is 0 where there are none.
///
/// Products that do not wait for each other, added up, and mixed once more.
#[inline(always)]
pub const fn flow_label(source: [u64; 2], destination: [u64; 2], ports: u32, protocol: u8) -> u32 {
    let sum = u64::from_be(source[0])
        .wrapping_mul(FACTORS[0])
        .wrapping_add(u64::from_be(source[1]).wrapping_mul(FACTORS[1]))
        .wrapping_add(u64::from_be(destination[0]).wrapping_mul(FACTORS[2]))
        .wrapping_add(u64::from_be(destination[1]).wrapping_mul(FACTORS[3]))
        .wrapping_add(((ports as u64) << 8 | protocol as u64).wrapping_mul(FACTORS[4]));
    ((sum ^ sum >> 32).wrapping_mul(GOLDEN) >> 44) as u32
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

        /// As the model words it.
        #[test]
        fn labels_are_the_hash_of_the_words(
            source in any::<[u16; 8]>(),
            destination in any::<[u16; 8]>(),
            ports in any::<u32>(),
            protocol in any::<u8>(),
        ) {
            let words = |groups: [u16; 8]| {
                let word = |four: &[u16]| four.iter().fold(0, |w, g| w << 16 | u64::from(*g));
                [word(&groups[..4]), word(&groups[4..])]
            };
            let last = u64::from(ports) << 8 | u64::from(protocol);
            let all = [&words(source)[..], &words(destination), &[last]].concat();
            let products = all.iter().zip(FACTORS).map(|(word, factor)| word.wrapping_mul(factor));
            let h = products.fold(0u64, u64::wrapping_add);
            let h = (h ^ h >> 32).wrapping_mul(GOLDEN) >> 44;
            let label = flow_label(raw(source), raw(destination), ports, protocol);
            prop_assert_eq!(u64::from(label), h);
            prop_assert!(label < 1 << 20);
        }
    }

    /// A thousand addresses and ports, one after the other: as many labels as by chance.
    #[test]
    fn flows_that_differ_little_have_other_labels() {
        let v4 =
            |n: u32| [0, u64::from(0x0a00_0000u32.wrapping_add(n).to_be()) << 32 | 0xffff_0000];
        let v6 = |n: u64| [0xfd10_u64.to_be() >> 48, n.to_be()];
        let kinds: [&dyn Fn(u32) -> u32; 5] = [
            &|n| flow_label(v4(n), v4(7), 1, 17),
            &|n| flow_label(v4(n >> 5), v4(n & 31), 1, 17),
            &|n| flow_label(v4(7), v4(9), 5001 << 16 | n, 6),
            &|n| flow_label(v6(n.into()), v6(7), 1, 17),
            &|n| flow_label(v6(u64::from(n >> 5)), v6(u64::from(n & 31) << 32), 1, 17),
        ];
        for (at, label) in kinds.iter().enumerate() {
            let labels: std::collections::BTreeSet<u32> = (0..1024).map(label).collect();
            assert!(labels.len() > 1018, "{at}: {}", labels.len());
            // And evenly over the few paths that a policy has.
            for paths in [2, 3, 8] {
                let of = |path| (0..1024).filter(|n| label(*n) % paths == path).count();
                let least = (0..paths).map(of).min().unwrap();
                assert!(least * paths as usize * 10 > 1024 * 7, "{at}: {least} of {paths}");
            }
        }
    }
}
