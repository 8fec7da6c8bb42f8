//! Test packets (STAMP, RFC 8762) on each fabric port. The neighbor's XDP program sends them
//! back and our own notes when; here they are made, numbered, and added up. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use selvedge_pipeline::PortId;
use selvedge_pipeline::delay::{Delays, bucket};
use selvedge_xdp::common::value::PROBES_KEPT;
use selvedge_xdp::common::{PROBE_PORT, PROBE_REFLECTOR, PROBE_SENDER, PROBE_SENDER_PORT};

/// Between test packets, unless told otherwise.
pub const INTERVAL: Duration = Duration::from_millis(10);
/// Answers are read up to 1.5 s after the first of a second was sent, and 256 are kept.
pub const LEAST_INTERVAL: Duration = Duration::from_millis(7);
/// At least one for each second's report.
pub const LARGEST_INTERVAL: Duration = Duration::from_secs(1);

const ETHERTYPE_IPV6: u16 = 0x86DD;
const UDP: u8 = 17;
/// Bytes of a test packet in unauthenticated mode (RFC 8762 §4.2.1), and of its datagram.
const PACKET_LEN: usize = 44;
const DATAGRAM_LEN: u16 = 8 + PACKET_LEN as u16;
/// Truncated PTP timestamps of a clock that is not synchronised, good to 2^-30 s.
const ERROR_ESTIMATE: u16 = 0x4201;
/// Reflected only if it has crossed no router (RFC 5082).
const HOP_LIMIT: u8 = 255;

/// The frame of test packet `sequence`, sent at `now` on the monotonic clock. To everybody on
/// the link, which is the neighbor: its address need not be known.
pub fn frame(mac: [u8; 6], sequence: u32, now: Duration) -> Vec<u8> {
    let seconds = u32::try_from(now.as_secs()).expect("136 years since the start");
    let nanoseconds = now.subsec_nanos();
    let mut packet = [0; PACKET_LEN];
    packet[..4].copy_from_slice(&sequence.to_be_bytes());
    packet[4..8].copy_from_slice(&seconds.to_be_bytes());
    packet[8..12].copy_from_slice(&nanoseconds.to_be_bytes());
    packet[12..14].copy_from_slice(&ERROR_ESTIMATE.to_be_bytes());
    let len = DATAGRAM_LEN.to_be_bytes();
    let ends = [PROBE_SENDER, PROBE_REFLECTOR].concat();
    let ports = [PROBE_SENDER_PORT.to_be_bytes(), PROBE_PORT.to_be_bytes()].concat();
    // RFC 8200 §8.1: the pseudo-header comes first.
    let summed = [&ends[..], &[0, 0], &len, &[0, 0, 0, UDP], &ports, &len, &[0, 0], &packet];
    let checksum = crate::gateway::checksum(&summed.concat());
    // RFC 768: none is all ones.
    let checksum = if checksum == 0 { 0xFFFF } else { checksum }.to_be_bytes();
    [
        &[0xFF; 6][..],
        &mac,
        &ETHERTYPE_IPV6.to_be_bytes(),
        &[0x60, 0, 0, 0],
        &len,
        &[UDP, HOP_LIMIT],
        &ends,
        &ports,
        &len,
        &checksum,
        &packet,
    ]
    .concat()
}

/// Test packets of one second on one port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    pub sent: u32,
    pub answered: u32,
    /// Two-way, mean and largest of those answered; 0 if none was.
    pub delay_ns: u64,
    pub delay_max_ns: u64,
    /// All of them.
    pub delays: Delays,
}

#[derive(Clone, Debug, Default)]
struct Port {
    /// The last number given; numbers start at 1.
    sequence: u32,
    /// First and last number of each second that is not reported yet.
    seconds: BTreeMap<u64, (u32, u32)>,
}

/// What was sent on all ports.
#[derive(Clone, Debug, Default)]
pub struct Probing(BTreeMap<PortId, Port>);

impl Probing {
    /// Forgets ports that are not fabric ports any more.
    pub fn retain(&mut self, is_fabric: impl Fn(PortId) -> bool) {
        self.0.retain(|port, _| is_fabric(*port));
    }

    /// Before the first on `port`, with the answers that it keeps: of an agent before, maybe,
    /// whose numbers are not given again. What answers come late to that one's last test packets
    /// are left room for.
    pub fn start(&mut self, port: PortId, kept: &[(u32, u32)]) {
        self.0.entry(port).or_insert_with(|| {
            // RFC 1982: of two numbers the later one is less than half of all ahead.
            let later = |a: u32, b: u32| if b.wrapping_sub(a) < 1 << 31 { b } else { a };
            let given = kept.iter().map(|(sequence, _)| *sequence).filter(|number| *number > 0);
            let last = given.reduce(later).map(|last| last.wrapping_add(PROBES_KEPT as u32));
            Port { sequence: last.unwrap_or(0), seconds: BTreeMap::new() }
        });
    }

    /// The number of the test packet that is sent on `port` in `second`.
    pub fn sent(&mut self, port: PortId, second: u64) -> u32 {
        let state = self.0.entry(port).or_default();
        state.sequence = state.sequence.wrapping_add(1).max(1);
        let sequence = state.sequence;
        state.seconds.entry(second).or_insert((sequence, sequence)).1 = sequence;
        sequence
    }

    /// What became of those of `second`, once: by port, with the answers that it keeps.
    pub fn take<E>(
        &mut self,
        second: u64,
        answers: impl Fn(PortId) -> Result<Vec<(u32, u32)>, E>,
    ) -> Result<BTreeMap<PortId, Answers>, E> {
        let mut taken = BTreeMap::new();
        for (port, state) in &mut self.0 {
            let sent = state.seconds.get(&second).copied();
            state.seconds = state.seconds.split_off(&(second + 1));
            if let Some((first, last)) = sent {
                taken.insert(*port, add(first, last, &answers(*port)?));
            }
        }
        Ok(taken)
    }
}

/// The two-way delay, in nanoseconds, with which a test packet was answered, of those that are
/// kept.
pub fn answer(kept: &[(u32, u32)], sequence: u32) -> Option<u32> {
    let slot = usize::try_from(sequence).expect("32 bits") % PROBES_KEPT;
    let (answered, delay_ns) = kept.get(slot)?;
    (*answered == sequence).then_some(*delay_ns)
}

fn add(first: u32, last: u32, kept: &[(u32, u32)]) -> Answers {
    let mut sum = Answers::default();
    let mut total = 0u64;
    for sequence in first..=last {
        sum.sent += 1;
        let Some(delay_ns) = answer(kept, sequence) else { continue };
        sum.answered += 1;
        total += u64::from(delay_ns);
        sum.delays.add(bucket(delay_ns), 1);
        sum.delay_max_ns = sum.delay_max_ns.max(delay_ns.into());
    }
    sum.delay_ns = total.checked_div(sum.answered.into()).unwrap_or(0);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_has_its_own_and_loses_what_is_not_answered() {
        let (port, other) = (PortId(3), PortId(4));
        let mut probing = Probing::default();
        let mut kept = vec![(0, 0); PROBES_KEPT];
        for second in [10, 11] {
            for n in 0..10 {
                let sequence = probing.sent(port, second);
                assert_eq!(sequence, 1 + n + if second == 11 { 10 } else { 0 });
                // 3 is lost, 15 late: its slot shows an earlier number.
                if ![3, 15].contains(&sequence) {
                    kept[sequence as usize % PROBES_KEPT] = (sequence, 1000 * sequence);
                }
            }
        }
        probing.sent(other, 11);
        let none = Ok::<_, ()>(vec![(0, 0); PROBES_KEPT]);
        let answers = |port: PortId| if port.0 == 3 { Ok(kept.clone()) } else { none.clone() };
        let first = probing.take(10, answers).unwrap();
        let mut delays = Delays::default();
        (1..=10).filter(|n| *n != 3).for_each(|n| delays.add(bucket(1000 * n), 1));
        let want = Answers { sent: 10, answered: 9, delay_ns: 5_777, delay_max_ns: 10_000, delays };
        assert_eq!(first, BTreeMap::from([(port, want)]));
        assert!(probing.take(10, answers).unwrap().is_empty(), "once");
        let second = probing.take(11, answers).unwrap();
        assert_eq!((second[&port].sent, second[&port].answered), (10, 9));
        assert_eq!(second[&other], Answers { sent: 1, ..Answers::default() });
        probing.retain(|port| port == other);
        assert_eq!(probing.sent(port, 12), 1, "a port that was away starts anew");
    }

    #[test]
    fn numbers_wrap_past_zero_and_answers_of_before_do_not_count() {
        let mut probing = Probing(BTreeMap::from([(
            PortId(1),
            Port { sequence: u32::MAX, seconds: BTreeMap::new() },
        )]));
        assert_eq!(probing.sent(PortId(1), 5), 1);
        let old = |_| Ok::<_, ()>(vec![(1 + PROBES_KEPT as u32, 7); PROBES_KEPT]);
        assert_eq!(probing.take(5, old).unwrap()[&PortId(1)].answered, 0);
    }

    #[test]
    fn an_agent_gives_no_number_of_the_one_before() {
        let port = PortId(3);
        let mut kept = vec![(0, 0); PROBES_KEPT];
        for before in [1..40, 900..1200, u32::MAX - 20..u32::MAX] {
            for sequence in before.clone() {
                kept[sequence as usize % PROBES_KEPT] = (sequence, 1000);
            }
            let mut probing = Probing::default();
            probing.start(port, &kept);
            for _ in 0..PROBES_KEPT {
                let sequence = probing.sent(port, 7);
                assert_eq!(answer(&kept, sequence), None, "{sequence} after {before:?}");
            }
            let next = probing.sent(port, 8);
            probing.start(port, &kept);
            assert_eq!(probing.sent(port, 8), next + 1, "a port that is there goes on");
        }
    }

    #[test]
    fn the_frame_is_a_stamp_packet() {
        let frame = frame([2, 0, 0, 0, 0, 9], 0x0102_0304, Duration::new(7, 5));
        assert_eq!(frame.len(), 106);
        assert_eq!(frame[..12], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 9]);
        assert_eq!(frame[62..76], [1, 2, 3, 4, 0, 0, 0, 7, 0, 0, 0, 5, 0x42, 1]);
        let whole = [&frame[22..54], &[0, 0, 0, 52, 0, 0, 0, UDP], &frame[54..]].concat();
        assert_eq!(crate::gateway::checksum(&whole), 0);
    }
}
