//! Frames between a program, which gives them to a device, and the device, which sends them at
//! the end of the poll or says that it did not.
//!
//! The kernel collects what one CPU redirects to a device and hands it over [`BULK`] at a time;
//! of each bulk the device sends the first and refuses the rest. The tracepoint that tells
//! (`xdp:xdp_devmap_xmit`) has how many, and not which: so what had been counted before each of the
//! last frames is kept, and a difference is what is between two of them.

use crate::value::FlightValue;

/// `DEV_MAP_BULK_SIZE` of kernel/bpf/devmap.c.
pub const BULK: u32 = 16;
/// Frames that are kept: a full bulk, the frame that found it full, and room for what was given
/// while nobody listened.
pub const KEPT: u32 = 32;

/// What has become of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    pub left_packets: u64,
    pub left_bytes: u64,
    pub failed_packets: u64,
    pub failed_bytes: u64,
    pub failed_answers: u64,
}

impl FlightValue {
    /// A frame is given to the device. `bytes` is 0 for one that no port counts, an answer.
    #[inline(always)]
    pub fn give(&mut self, bytes: u16) {
        self.before[(self.given % KEPT) as usize] = self.counted;
        let [packets, sum] = self.counted;
        let packet = if bytes == 0 { 0 } else { 1 };
        self.counted = [packets.wrapping_add(packet), sum.wrapping_add(u32::from(bytes))];
        self.given = self.given.wrapping_add(1);
    }

    /// The device has sent the first `sent` of a bulk and refused `refused`.
    ///
    /// A bulk goes when it is full, which the next frame finds out, that is then given and not in
    /// it; or at the end of the poll, with all in it. So what else is in flight was sent when
    /// nobody listened.
    #[inline(always)]
    pub fn settle(&mut self, sent: u32, refused: u32) -> Settled {
        let flying = self.given.wrapping_sub(self.settled);
        let full = sent.wrapping_add(refused) >= BULK;
        let count = if full && flying > BULK { flying - 1 } else { flying };
        let end = self.settled.wrapping_add(count);
        let failed = if refused < count { refused } else { count };
        let known = if count < KEPT { count } else { KEPT };
        let [start_packets, start_bytes] = self.before(end.wrapping_sub(known));
        let [middle_packets, middle_bytes] = self.before(end.wrapping_sub(failed));
        let [end_packets, end_bytes] = self.before(end);
        self.settled = end;
        let failed_packets = end_packets.wrapping_sub(middle_packets);
        Settled {
            left_packets: u64::from(middle_packets.wrapping_sub(start_packets)),
            left_bytes: u64::from(middle_bytes.wrapping_sub(start_bytes)),
            failed_packets: u64::from(failed_packets),
            failed_bytes: u64::from(end_bytes.wrapping_sub(middle_bytes)),
            failed_answers: u64::from(failed.wrapping_sub(failed_packets)),
        }
    }

    /// The last frame was refused before it came to the device: that is down, or the frame too
    /// long for it.
    #[inline(always)]
    pub fn refuse(&mut self) -> Settled {
        if self.given == self.settled {
            return Settled::default();
        }
        let [end_packets, end_bytes] = self.counted;
        self.given = self.given.wrapping_sub(1);
        self.counted = self.before[(self.given % KEPT) as usize];
        let [packets, bytes] = self.counted;
        let failed_packets = u64::from(end_packets.wrapping_sub(packets));
        Settled {
            failed_packets,
            failed_bytes: u64::from(end_bytes.wrapping_sub(bytes)),
            failed_answers: 1 - failed_packets,
            ..Settled::default()
        }
    }

    /// What had been counted before frame `number`, the one to come or one of the last.
    #[inline(always)]
    fn before(&self, number: u32) -> [u32; 2] {
        if number == self.given { self.counted } else { self.before[(number % KEPT) as usize] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(lengths: impl IntoIterator<Item = u16>) -> FlightValue {
        let (given, counted) = (u32::MAX - 7, [u32::MAX; 2]);
        let mut flight = FlightValue { given, settled: given, counted, before: [[9; 2]; 32] };
        lengths.into_iter().for_each(|bytes| flight.give(bytes));
        flight
    }

    /// `[packets, bytes]` left, the same failed, answers failed.
    fn figures(settled: Settled) -> [u64; 5] {
        let Settled { left_packets, left_bytes, failed_packets, failed_bytes, failed_answers } =
            settled;
        [left_packets, left_bytes, failed_packets, failed_bytes, failed_answers]
    }

    #[test]
    fn the_last_of_a_bulk_are_those_that_failed() {
        let mut flight = given([100, 200, 0, 400]);
        assert_eq!(figures(flight.settle(1, 3)), [1, 100, 2, 600, 1]);
        assert_eq!(figures(flight.settle(0, 4)), [0; 5], "not ours");
        let mut flight = given([100, 0, 300]);
        assert_eq!(figures(flight.settle(3, 0)), [2, 400, 0, 0, 0]);
    }

    #[test]
    fn the_frame_that_finds_a_bulk_full_is_in_the_next() {
        let mut flight = given((1..=17).map(|n| n * 100));
        assert_eq!(figures(flight.settle(14, 2)), [14, 10_500, 2, 3_100, 0]);
        assert_eq!(figures(flight.settle(0, 1)), [0, 0, 1, 1_700, 0]);
        let mut flight = given((1..=16).map(|n| n * 100));
        assert_eq!(figures(flight.settle(15, 1)), [15, 12_000, 1, 1_600, 0], "the poll's end");
    }

    #[test]
    fn what_never_came_to_the_device_is_not_in_its_bulk() {
        let mut flight = given([100, 200]);
        assert_eq!(figures(flight.refuse()), [0, 0, 1, 200, 0]);
        flight.give(300);
        assert_eq!(figures(flight.settle(2, 0)), [2, 400, 0, 0, 0]);
        assert_eq!(figures(flight.refuse()), [0; 5]);
    }

    #[test]
    fn frames_that_nobody_saw_go_count_as_sent() {
        // Of 40 test runs, of which no device hears; then a poll's two frames.
        let mut flight = given([60; 40]);
        flight.give(100);
        flight.give(200);
        assert_eq!(figures(flight.settle(1, 1)), [31, 30 * 60 + 100, 1, 200, 0], "as many as kept");
        assert_eq!(flight.given, flight.settled);
    }
}
