//! Router advertisements: what they say (RFC 4861 §4.2), and when a port gets one (§6.2.4,
//! §6.2.6). Pure: time and randomness come in as arguments.
//!
//! All go to all nodes of the link. So whoever solicits cannot have more than one of them each
//! [`BETWEEN`], and there is nothing to remember of him.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ipnet::Ipv6Net;
use selvedge_pipeline::PortId;
use selvedge_pipeline::gateway;
use selvedge_pipeline::model::wire::ACCESS_MTU;

use crate::gateway::{ALL_NODES, ALL_NODES_MAC, ICMPV6, ipv6};

const ADVERTISEMENT: u8 = 134;
/// `AdvCurHopLimit` (RFC 4861 §6.2.1): what IANA has for IPv6.
const HOP_LIMIT: u8 = 64;
/// There is DHCPv6 for addresses, and for the rest.
const MANAGED_AND_OTHER: u8 = 0xC0;
/// `AdvDefaultLifetime`, s: the most there is. Packets find their way while an agent is away, and
/// hosts must not forget it meanwhile.
const LIFETIME: u16 = 9000;
/// `AdvValidLifetime` and `AdvPreferredLifetime`, s: the defaults.
const VALID: u32 = 2_592_000;
const PREFERRED: u32 = 604_800;
/// A host makes itself an address in the prefix; others in it are behind the gateway.
const AUTONOMOUS: u8 = 0x40;

/// `MaxRtrAdvInterval` and `MinRtrAdvInterval`: the defaults.
const LONGEST: Duration = Duration::from_secs(600);
const SHORTEST: Duration = Duration::from_secs(198);
/// RFC 4861 §10: `MAX_INITIAL_RTR_ADVERT_INTERVAL`, `MAX_INITIAL_RTR_ADVERTISEMENTS`,
/// `MIN_DELAY_BETWEEN_RAS`, `MAX_RA_DELAY_TIME`.
const INITIAL: Duration = Duration::from_secs(16);
const INITIAL_COUNT: u8 = 3;
pub(super) const BETWEEN: Duration = Duration::from_secs(3);
const DELAY: Duration = Duration::from_millis(500);

/// The frame. `managed`: addresses are to be had by DHCPv6.
pub(super) fn frame(managed: bool, prefixes: &[Ipv6Net]) -> Vec<u8> {
    let flags = if managed { MANAGED_AND_OTHER } else { 0 };
    let mut message = vec![ADVERTISEMENT, 0, 0, 0, HOP_LIMIT, flags];
    message.extend(LIFETIME.to_be_bytes());
    message.extend([0; 8]); // reachable time, retransmission timer: the host's own
    message.extend([1, 1]); // source link-layer address, 8 bytes
    message.extend(gateway::MAC);
    message.extend([5, 1, 0, 0]); // MTU, 8 bytes
    message.extend(u32::try_from(ACCESS_MTU).expect("1500").to_be_bytes());
    for prefix in prefixes {
        message.extend([3, 4, prefix.prefix_len(), AUTONOMOUS]);
        message.extend(VALID.to_be_bytes());
        message.extend(PREFERRED.to_be_bytes());
        message.extend([0; 4]);
        message.extend(prefix.network().octets());
    }
    ipv6(ALL_NODES_MAC, ALL_NODES, ICMPV6, message, 2)
}

/// When each access port gets its next one.
#[derive(Debug, Default)]
pub(super) struct Schedule(BTreeMap<(PortId, u32), Turn>);

#[derive(Debug)]
struct Turn {
    due: Instant,
    sent: Option<Instant>,
    /// Of the first ones, how many are still to come.
    initial: u8,
}

/// Below `most`, by a number that is uniform over its range.
fn up_to(most: Duration, random: u64) -> Duration {
    Duration::from_nanos(random % (u64::try_from(most.as_nanos()).expect("minutes") + 1))
}

impl Schedule {
    /// The ports that there are now, with their interfaces. One that is new soon gets its first.
    pub(super) fn set_ports(
        &mut self,
        ports: &BTreeSet<(PortId, u32)>,
        now: Instant,
        random: impl Fn() -> u64,
    ) {
        self.0.retain(|port, _| ports.contains(port));
        for port in ports {
            self.0.entry(*port).or_insert_with(|| Turn {
                due: now + up_to(DELAY, random()),
                sent: None,
                initial: INITIAL_COUNT,
            });
        }
    }

    /// A host on the interface asks. `false`: it is not that of an access port.
    pub(super) fn solicited(&mut self, ifindex: u32, now: Instant, random: u64) -> bool {
        let Some((_, turn)) = self.0.iter_mut().find(|((_, index), _)| *index == ifindex) else {
            return false;
        };
        let earliest = turn.sent.map_or(now, |sent| now.max(sent + BETWEEN));
        turn.due = turn.due.min(earliest.max(now + up_to(DELAY, random)));
        true
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.values().map(|turn| turn.due).min()
    }

    /// The ports whose turn it is, with their interfaces.
    pub(super) fn tick(&mut self, now: Instant, random: impl Fn() -> u64) -> Vec<(PortId, u32)> {
        let mut due = Vec::new();
        for (port, turn) in self.0.iter_mut().filter(|(_, turn)| turn.due <= now) {
            due.push(*port);
            turn.initial = turn.initial.saturating_sub(1);
            let pause = SHORTEST + up_to(LONGEST - SHORTEST, random());
            let pause = if turn.initial > 0 { pause.min(INITIAL) } else { pause };
            (turn.sent, turn.due) = (Some(now), now + pause);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::checksum;

    const PORT: (PortId, u32) = (PortId(7), 12);

    #[test]
    fn it_says_what_there_is() {
        let frame = frame(true, &["fd10::/64".parse().unwrap()]);
        assert_eq!(frame[..6], ALL_NODES_MAC);
        assert_eq!(frame[6..12], gateway::MAC);
        assert_eq!(frame[20..22], [58, 255]);
        assert_eq!(frame[54..56], [134, 0]);
        assert_eq!(frame[58..62], [64, 0xC0, 0x23, 0x28]);
        assert_eq!(frame[70..78], [&[1, 1][..], &gateway::MAC].concat());
        assert_eq!(frame[78..86], [5, 1, 0, 0, 0, 0, 0x05, 0xDC]);
        assert_eq!(frame[86..90], [3, 4, 64, 0x40]);
        assert_eq!(frame[102..106], [0xFD, 0x10, 0, 0]);
        let len = (frame.len() - 54) as u8;
        let summed = [&frame[22..54], &[0, len, 0, 0, 0, 58], &frame[54..]].concat();
        assert_eq!(checksum(&summed), 0);
        assert_eq!(super::frame(false, &[])[59], 0, "neither managed nor other");
    }

    /// Each line: at which second, whether somebody asks, and how many are sent.
    #[test]
    fn ports_get_them_in_time() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        schedule.set_ports(&[PORT].into(), start, || 0);
        let script = [
            (0, false, 1),
            (1, true, 0),
            (2, true, 0),
            (3, false, 1), // what was asked at 1 and 2
            (18, false, 0),
            (19, false, 1),
            (216, false, 0),
            (217, false, 1),
            (300, true, 1),
        ];
        for (at, asks, sent) in script {
            let now = start + Duration::from_secs(at);
            if asks {
                assert!(schedule.solicited(PORT.1, now, 0));
            }
            assert_eq!(schedule.tick(now, || 0).len(), sent, "at {at} s");
        }
        assert!(!schedule.solicited(13, start, 0));
        schedule.set_ports(&BTreeSet::new(), start, || 0);
        assert_eq!(schedule.deadline(), None);
    }

    #[test]
    fn pauses_are_what_the_standard_allows() {
        for random in [0, 1 << 40, u64::MAX] {
            let start = Instant::now();
            let mut schedule = Schedule::default();
            schedule.set_ports(&[PORT].into(), start, || random);
            let mut before = schedule.deadline().unwrap();
            assert!(before <= start + DELAY);
            for n in 1..9 {
                assert_eq!(schedule.tick(before, || random), [PORT]);
                let due = schedule.deadline().unwrap();
                let pause = due - before;
                let most = if n < INITIAL_COUNT { INITIAL } else { LONGEST };
                assert!(pause <= most && pause >= most.min(SHORTEST), "{n}: {pause:?}");
                before = due;
            }
        }
    }
}
