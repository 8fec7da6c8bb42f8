//! Counts of one second, from cumulative counters that are read each second. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use selvedge_pipeline::PortId;
use selvedge_southbound::selvedge::v1;
use selvedge_xdp::common::COMPUTE_PORT;
use selvedge_xdp::common::value::{PortCounters, SliceCounters};

use crate::guard::probe::Answers;

/// A mark that was set so much too late is not one by which seconds are told apart: packets of
/// the second before have to have arrived half a second into this one.
pub const LATE: Duration = Duration::from_millis(150);
/// Slices in one message; a second's report has as many messages as it takes.
pub const SLICES_PER_MESSAGE: usize = 1024;

/// All counters of a switch at one time.
#[derive(Clone, Debug)]
pub struct Reading {
    pub at: Instant,
    /// By port; from [`COMPUTE_PORT`](selvedge_xdp::common::COMPUTE_PORT) on by hook.
    pub ports: Vec<PortCounters>,
    /// By [`slice_slot`](selvedge_xdp::common::slice_slot), those that had any packet.
    pub slices: BTreeMap<u32, SliceCounters>,
}

/// What was counted of one second.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Marked packets are those of this second.
    pub exact: bool,
    /// Between the readings that the other counts are of; 0: there was none before.
    pub interval_ms: u32,
    /// Marked packets sent and received, by port.
    pub ports: BTreeMap<u16, (u64, u64)>,
    /// All packets and bytes of ports, not of hooks.
    pub traffic: BTreeMap<u16, Traffic>,
    pub slices: Vec<v1::SliceCount>,
}

/// What came by a port, and what its device sent: packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub came: [u64; 2],
    pub left: [u64; 2],
}

/// Which seconds had their mark, and what was read after them.
#[derive(Debug, Default)]
pub struct Periods {
    /// Seconds that were given their mark in time; the last few.
    marked: Vec<u64>,
    /// After the last even and the last odd second.
    readings: [Option<(u64, Reading)>; 2],
}

impl Periods {
    /// `second` was given its mark, so much after its start.
    pub fn begun(&mut self, second: u64, late: Duration) {
        self.marked.retain(|marked| second.saturating_sub(3) <= *marked && *marked < second);
        if late <= LATE {
            self.marked.push(second);
        }
    }

    /// `reading` was taken after `second`, when none of its packets was under way any more.
    pub fn read(&mut self, second: u64, reading: Reading) -> Counts {
        let parity = usize::from(second % 2 == 1);
        let mut counts = Counts::default();
        let of = |parity: usize, wanted: u64| {
            let found = self.readings[parity].as_ref().filter(|(second, _)| *second == wanted);
            found.map(|(_, reading)| reading)
        };
        let around = [second.saturating_sub(1), second, second + 1];
        // This mark's count before: after the second before the last.
        if let Some(before) = of(parity, second.saturating_sub(2))
            && around.iter().all(|second| self.marked.contains(second))
        {
            counts.exact = true;
            counts.ports = marked_packets(before, &reading, parity);
        }
        if let Some(last) = of(1 - parity, second.saturating_sub(1)) {
            let interval = reading.at.saturating_duration_since(last.at).as_millis();
            counts.interval_ms = u32::try_from(interval).unwrap_or(u32::MAX);
            let before = self.readings[parity].as_ref().filter(|_| counts.exact);
            let marked = before.map(|(_, before)| (before, parity));
            counts.slices = slices(last, marked, &reading);
            counts.traffic = traffic(last, &reading);
        }
        self.readings[parity] = Some((second, reading));
        counts
    }
}

/// The first counters are of interfaces that are no port yet.
const NO_PORT: usize = 1;

fn marked_packets(before: &Reading, now: &Reading, mark: usize) -> BTreeMap<u16, (u64, u64)> {
    let both = (0u16..).zip(before.ports.iter().zip(&now.ports)).skip(NO_PORT);
    let counts = both.map(|(port, (before, now))| {
        let sent = now.tx_marked[mark].wrapping_sub(before.tx_marked[mark]);
        (port, (sent, now.rx_marked[mark].wrapping_sub(before.rx_marked[mark])))
    });
    counts.filter(|(_, counts)| *counts != (0, 0)).collect()
}

/// Of ports that had any packet.
fn traffic(last: &Reading, now: &Reading) -> BTreeMap<u16, Traffic> {
    let both = (0..COMPUTE_PORT).zip(last.ports.iter().zip(&now.ports)).skip(NO_PORT);
    let counts = both.map(|(port, (last, now))| {
        let since = |now: [u64; 2], last: [u64; 2]| {
            [now[0].wrapping_sub(last[0]), now[1].wrapping_sub(last[1])]
        };
        let came = |of: &PortCounters| [of.rx_packets, of.rx_bytes];
        let left = |of: &PortCounters| [of.left_packets, of.left_bytes];
        (port, Traffic { came: since(came(now), came(last)), left: since(left(now), left(last)) })
    });
    counts.filter(|(_, traffic)| *traffic != Traffic::default()).collect()
}

/// Of slices that had any packet.
fn slices(last: &Reading, marked: Option<(&Reading, usize)>, now: &Reading) -> Vec<v1::SliceCount> {
    let mut counts = Vec::new();
    let of = |reading: &Reading, slot| reading.slices.get(&slot).copied().unwrap_or_default();
    for (&slot, now) in &now.slices {
        let last = of(last, slot);
        let mut count = v1::SliceCount {
            in_packets: now.packets.wrapping_sub(last.packets),
            in_bytes: now.bytes.wrapping_sub(last.bytes),
            delivered_bytes: now.delivered_bytes.wrapping_sub(last.delivered_bytes),
            dropped_packets: now.dropped_packets.wrapping_sub(last.dropped_packets),
            lost: now.lost.wrapping_sub(last.lost),
            ..v1::SliceCount::default()
        };
        if let Some((before, mark)) = marked {
            let before = of(before, slot);
            count.entered = now.entered[mark].wrapping_sub(before.entered[mark]);
            count.left = now.left[mark].wrapping_sub(before.left[mark]);
        }
        if count == v1::SliceCount::default() {
            continue;
        }
        if count.lost > 0 {
            count.lost_reason = u32::try_from(now.lost_reason).unwrap_or(u32::MAX);
        }
        count.slice = slot / 2;
        count.direction = u32::from(slot % 2 == 1);
        counts.push(count);
    }
    counts
}

/// The report of `second`, told `at_ms`: links in the first message, slices in as many as it takes.
pub fn messages(
    (second, at_ms): (u64, u64),
    counts: Counts,
    probes: BTreeMap<PortId, Answers>,
) -> Vec<v1::Telemetry> {
    let mut links: BTreeMap<u16, v1::LinkCount> = BTreeMap::new();
    for (PortId(port), answers) in probes {
        let link = links.entry(port).or_default();
        link.probes = answers.sent;
        link.answered = answers.answered;
        link.delay_ns = answers.delay_ns;
        link.delay_max_ns = answers.delay_max_ns;
        let count = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let delays = answers.delays.counts();
        link.delays =
            delays.map(|(bucket, n)| v1::DelayCount { bucket, count: count(n) }).collect();
    }
    for (port, (sent, received)) in counts.ports {
        let link = links.entry(port).or_default();
        (link.sent, link.received) = (sent, received);
    }
    for (port, Traffic { came, left }) in counts.traffic {
        let link = links.entry(port).or_default();
        [link.in_packets, link.in_bytes] = came;
        [link.out_packets, link.out_bytes] = left;
    }
    let links = links.into_iter().map(|(port, link)| v1::LinkCount { port: port.into(), ..link });
    let mut first = Some(links.collect());
    let mut chunks: Vec<Vec<v1::SliceCount>> =
        counts.slices.chunks(SLICES_PER_MESSAGE).map(<[_]>::to_vec).collect();
    if chunks.is_empty() {
        chunks.push(Vec::new());
    }
    let last = chunks.len() - 1;
    let message = |(n, slices)| v1::Telemetry {
        second,
        exact: counts.exact,
        interval_ms: counts.interval_ms,
        links: first.take().unwrap_or_default(),
        slices,
        last: n == last,
        at_ms,
    };
    chunks.into_iter().enumerate().map(message).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A switch that counts, second by second.
    struct Bench {
        start: Instant,
        ports: PortCounters,
        slice: SliceCounters,
        periods: Periods,
    }

    impl Bench {
        fn new() -> Self {
            let (ports, slice) = Default::default();
            Self { start: Instant::now(), ports, slice, periods: Periods::default() }
        }

        /// A second in which `n` packets of 100 bytes entered, and were sent on.
        fn second(&mut self, second: u64, n: u64, late: Duration) {
            self.periods.begun(second, late);
            let mark = (second % 2) as usize;
            self.ports.tx_marked[mark] += n;
            self.ports.left_packets += n;
            self.ports.left_bytes += 154 * n;
            self.ports.rx_packets += 1;
            self.ports.rx_bytes += 60;
            self.slice.entered[mark] += n;
            self.slice.packets += n;
            self.slice.bytes += 100 * n;
        }

        /// Half a second into the next one.
        fn read(&mut self, second: u64, next_late: Duration) -> Counts {
            self.periods.begun(second + 1, next_late);
            let reading = Reading {
                at: self.start + Duration::from_secs(second),
                ports: vec![self.ports, self.ports],
                slices: [1, 3, 5].map(|slot| (slot, self.slice)).into(),
            };
            self.periods.read(second, reading)
        }
    }

    const ON_TIME: Duration = Duration::from_millis(1);

    #[test]
    fn a_second_has_the_packets_of_its_mark() {
        let mut bench = Bench::new();
        for (second, n, exact) in
            [(100, 5, false), (101, 7, false), (102, 11, true), (103, 0, true)]
        {
            bench.second(second, n, ON_TIME);
            let counts = bench.read(second, ON_TIME);
            assert_eq!(counts.exact, exact, "{second}");
            if second > 100 {
                assert_eq!(counts.interval_ms, 1000);
                let want = Traffic { came: [1, 60], left: [n, 154 * n] };
                assert_eq!(counts.traffic, BTreeMap::from([(1, want)]), "{second}");
            }
            if exact && n > 0 {
                assert_eq!(counts.ports, BTreeMap::from([(1, (n, 0))]), "{second}");
                let slices: Vec<_> = counts
                    .slices
                    .iter()
                    .map(|s| (s.slice, s.direction, s.entered, s.in_bytes))
                    .collect();
                assert_eq!(slices, [(0, 1, n, 100 * n), (1, 1, n, 100 * n), (2, 1, n, 100 * n)]);
            }
            if n == 0 {
                assert_eq!((counts.ports.len(), counts.slices.len()), (0, 0), "nothing to tell");
            }
        }
    }

    #[test]
    fn a_late_mark_or_a_missed_second_makes_counts_inexact() {
        let late = LATE + Duration::from_millis(1);
        // (mark of 103 is late, or its end is not read; what is exact of 103 and after)
        for (is_late, exact) in
            [(true, [false, false, true, true]), (false, [true, false, true, true])]
        {
            let mut bench = Bench::new();
            let mark = if is_late { late } else { ON_TIME };
            for second in 100..103 {
                bench.second(second, 1, ON_TIME);
                bench.read(second, if second == 102 { mark } else { ON_TIME });
            }
            bench.second(103, 1, mark);
            let first = if is_late { 103 } else { 104 };
            let mut got = Vec::new();
            for second in first..first + 4 {
                if second > 103 {
                    bench.second(second, 1, ON_TIME);
                }
                got.push(bench.read(second, ON_TIME).exact);
            }
            assert_eq!(got, exact, "late: {is_late}");
        }
    }

    #[test]
    fn a_report_is_cut_into_messages_of_bounded_size() {
        let slice = v1::SliceCount { in_bytes: u64::MAX, in_packets: 1, ..Default::default() };
        let slices = vec![slice; 2 * SLICES_PER_MESSAGE + 1];
        let counts = Counts { exact: true, interval_ms: 1000, slices, ..Counts::default() };
        let probes = BTreeMap::from([(PortId(2), Answers { sent: 10, ..Answers::default() })]);
        let messages = messages((9, 10_500), counts, probes);
        let shape: Vec<_> =
            messages.iter().map(|m| (m.second, m.links.len(), m.slices.len(), m.last)).collect();
        let many = SLICES_PER_MESSAGE;
        assert_eq!(shape, [(9, 1, many, false), (9, 0, many, false), (9, 0, 1, true)]);
        assert!(messages.iter().all(|m| prost::Message::encoded_len(m) < 128 << 10));
    }
}
