//! Scheduling classes, what maps onto them, and what each costs: bursts and thresholds.

use selvedge_topology::{BitRate, Bytes, Delay, Shaped};

use crate::limits::{MAX_BURST_BYTES, MTU_BYTES};

/// By rising priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    BestEffort,
    Guaranteed,
    Urllc,
}

impl Class {
    pub const ALL: [Self; 3] = [Self::BestEffort, Self::Guaranteed, Self::Urllc];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::BestEffort => "best-effort",
            Self::Guaranteed => "guaranteed",
            Self::Urllc => "urllc",
        }
    }

    /// Whether it is among those that a link shapes.
    pub fn is_shaped(self, by: Shaped) -> bool {
        match self {
            Self::BestEffort => false,
            Self::Guaranteed => by.guaranteed,
            Self::Urllc => by.urllc,
        }
    }

    /// How much of its rate a meter lets through at once where no burst is stated: 250 ms, which
    /// TCP needs to reach the rate; 5 ms for urllc, whose delay bound pays for bursts (DESIGN §6).
    pub fn default_burst(self, rate: BitRate) -> Bytes {
        let time = match self {
            Self::BestEffort | Self::Guaranteed => Delay::from_ms(250),
            Self::Urllc => Delay::from_ms(5),
        };
        Bytes(bytes_in(rate, time).clamp(MTU_BYTES, MAX_BURST_BYTES))
    }

    /// Backlog of an egress port below which this class's excess still passes, for a port that
    /// drains at `rate`. Every packet of the port may wait behind the largest of them.
    pub fn threshold(self, rate: BitRate) -> Bytes {
        let time = match self {
            Self::BestEffort => Delay::from_ms(2),
            Self::Guaranteed => Delay::from_ms(3),
            Self::Urllc => Delay::from_ms(4),
        };
        // Slow ports still have to hold what one sender hands over at once, 64 KiB of segments
        // (GSO), or TCP loses the end of each and gets next to nothing.
        let packets = match self {
            Self::BestEffort => 64,
            Self::Guaranteed => 72,
            Self::Urllc => 80,
        };
        Bytes(bytes_in(rate, time).max(packets * FRAME_BYTES).min(u64::from(u32::MAX)))
    }
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// A full packet on a fabric wire: MTU, outer IPv6 header, Ethernet header.
pub const FRAME_BYTES: u64 = MTU_BYTES + OVERHEAD_BYTES;
/// What encapsulation adds to a user's IP packet on a fabric wire: 40 + 14.
pub const OVERHEAD_BYTES: u64 = 54;

fn bytes_in(rate: BitRate, time: Delay) -> u64 {
    let bytes = u128::from(rate.0) * u128::from(time.0) / 8_000_000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Why a slice is in its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassReason {
    /// `class:` says so.
    Stated,
    /// Its 5QI (3GPP TS 23.501, table 5.7.4-1, or the operator's map).
    FiveQi(u8),
    /// Its slice/service type (3GPP TS 23.501, table 5.15.2.2-1, or the operator's map).
    Sst(u8),
    /// It has a guaranteed rate.
    Rate,
    Nothing,
}

impl std::fmt::Display for ClassReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stated => f.write_str("as stated"),
            Self::FiveQi(number) => write!(f, "by its 5QI {number}"),
            Self::Sst(number) => write!(f, "by its SST {number}"),
            Self::Rate => f.write_str("by its guaranteed rate"),
            Self::Nothing => f.write_str("by default"),
        }
    }
}

/// The class that a standardized 5QI asks for (TS 23.501, table 5.7.4-1): delay-critical GBR is
/// urllc, GBR is guaranteed, the rest best effort. `None`: not standardized.
pub fn of_five_qi(number: u8) -> Option<Class> {
    match number {
        82..=90 => Some(Class::Urllc),
        1..=4 | 65..=67 | 71..=74 | 76 => Some(Class::Guaranteed),
        5..=10 | 69 | 70 | 79 | 80 => Some(Class::BestEffort),
        _ => None,
    }
}

/// The class that a slice/service type asks for (TS 23.501, table 5.15.2.2-1): URLLC is urllc;
/// the others decide nothing.
pub fn of_sst(number: u8) -> Option<Class> {
    (number == 2).then_some(Class::Urllc)
}

/// The class a slice is in: what is stated, else its 5QI, else its SST, else guaranteed when it
/// has a guaranteed rate. A 5QI or SST for best effort gives way to what follows. `five_qi`,
/// `sst`: the number and its class.
pub fn derive(
    stated: Option<Class>,
    five_qi: Option<(u8, Class)>,
    sst: Option<(u8, Class)>,
    has_guarantee: bool,
) -> (Class, ClassReason) {
    let five_qi = five_qi.map(|(number, class)| (class, ClassReason::FiveQi(number)));
    let sst = sst.map(|(number, class)| (class, ClassReason::Sst(number)));
    let stated = stated.map(|class| (class, ClassReason::Stated));
    let above =
        |by: Option<(Class, ClassReason)>| by.filter(|(class, _)| *class != Class::BestEffort);
    let by_rate = has_guarantee.then_some((Class::Guaranteed, ClassReason::Rate));
    let chosen = stated.or(above(five_qi)).or(above(sst)).or(by_rate).or(five_qi).or(sst);
    chosen.unwrap_or((Class::BestEffort, ClassReason::Nothing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes() {
        use Class::{BestEffort, Guaranteed, Urllc};
        // (stated, 5QI, SST, guaranteed rate) -> class
        let cases = [
            ((None, None, None, false), BestEffort),
            ((None, None, None, true), Guaranteed),
            ((None, None, Some(1), true), Guaranteed),
            ((None, None, Some(2), false), Urllc),
            ((None, None, Some(2), true), Urllc),
            ((Some(Guaranteed), Some(82), Some(2), true), Guaranteed),
            ((None, Some(82), Some(1), true), Urllc),
            ((None, Some(1), Some(2), true), Guaranteed),
            ((None, Some(9), None, false), BestEffort),
            ((None, Some(9), None, true), Guaranteed),
            ((None, Some(9), Some(2), true), Urllc),
        ];
        for ((stated, five_qi, sst, rate), want) in cases {
            let five_qi = five_qi.and_then(|number| Some((number, of_five_qi(number)?)));
            let sst = sst.and_then(|number| Some((number, of_sst(number)?)));
            let (class, _) = derive(stated, five_qi, sst, rate);
            assert_eq!(class, want, "{stated:?} {five_qi:?} {sst:?} {rate}");
        }
    }

    #[test]
    fn bursts_and_thresholds() {
        let rate = BitRate::from_mbps(20);
        assert_eq!(Class::Guaranteed.default_burst(rate), Bytes(625_000));
        assert_eq!(Class::Urllc.default_burst(rate), Bytes(12_500));
        assert_eq!(Class::Urllc.default_burst(BitRate(64_000)), Bytes(1500));
        assert_eq!(Class::Guaranteed.default_burst(BitRate(u64::MAX)), Bytes(u64::from(u32::MAX)));
        assert_eq!(Class::BestEffort.threshold(BitRate::from_mbps(970)), Bytes(242_500));
        assert_eq!(Class::BestEffort.threshold(BitRate(1)), Bytes(64 * 1554));
        for rate in [0, 1_000_000, 97_000_000, 97_000_000_000, u64::MAX].map(BitRate) {
            let thresholds = Class::ALL.map(|class| class.threshold(rate));
            assert!(thresholds.is_sorted(), "{rate}: {thresholds:?}");
        }
    }
}
