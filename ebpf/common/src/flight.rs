//! Frames between a program, which gives them to a device, and the device, which sends them at
//! the end of the poll or says that it did not.
//!
//! The kernel collects what one CPU redirects to a device and hands it over [`BULK`] at a time;
//! of each bulk the device sends the first and refuses the rest. The tracepoint that tells
//! (`xdp:xdp_devmap_xmit`) has how many, and not which: so the lengths of the last frames are kept.

use crate::value::PortCounters;

/// `DEV_MAP_BULK_SIZE` of kernel/bpf/devmap.c.
pub const BULK: u32 = 16;
/// Frames that are kept: a full bulk, the frame that found it full, and room. A power of two.
pub const KEPT: u32 = 32;

/// What a device has refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    pub packets: u64,
    pub answers: u64,
}

impl PortCounters {
    /// A frame is given to the device. `bytes` is 0 for one that no port counts, an answer.
    #[inline(always)]
    pub fn give(&mut self, bytes: u16) {
        self.lengths[(self.given % KEPT) as usize] = bytes;
        self.given = self.given.wrapping_add(1);
    }

    /// The device has sent the first `sent` of a bulk and refused `refused`.
    ///
    /// A bulk goes when it is full, which the next frame finds out, that is then given and not in
    /// it; or at the end of the poll, with all in it. So what else is in flight was sent when
    /// nobody listened.
    #[inline(always)]
    pub fn settle(&mut self, sent: u32, refused: u32) -> Refused {
        let flying = self.given.wrapping_sub(self.settled);
        let full = sent.wrapping_add(refused) >= BULK;
        let waiting = u32::from(full && flying > BULK);
        let count = flying - waiting;
        let failed = if refused < count { refused } else { count };
        let end = self.given.wrapping_sub(waiting);
        let mut sum = Refused::default();
        let mut back = 1;
        while back <= KEPT && back <= failed {
            self.fail(end.wrapping_sub(back), &mut sum);
            back += 1;
        }
        self.settled = end;
        let mut left = [self.tx_packets, self.tx_bytes];
        if waiting != 0 {
            let bytes = self.length(end);
            left = [left[0] - u64::from(bytes != 0), left[1] - bytes];
        }
        self.left_packets = left[0].wrapping_sub(self.failed_packets);
        self.left_bytes = left[1].wrapping_sub(self.failed_bytes);
        sum
    }

    /// The last frame was refused before it came to the device: that is down, or the frame too
    /// long for it.
    #[inline(always)]
    pub fn refuse(&mut self) -> Refused {
        let mut sum = Refused::default();
        if self.given != self.settled {
            self.given = self.given.wrapping_sub(1);
            self.fail(self.given, &mut sum);
        }
        sum
    }

    /// Of frame `number`, one of the last.
    #[inline(always)]
    fn length(&self, number: u32) -> u64 {
        self.lengths[(number % KEPT) as usize].into()
    }

    #[inline(always)]
    fn fail(&mut self, number: u32, sum: &mut Refused) {
        let bytes = self.length(number);
        // 0 of an answer, else 1: the verifier would follow each branch for each frame.
        let packet = (bytes + u64::from(u16::MAX)) >> 16;
        self.failed_packets += packet;
        self.failed_bytes += bytes;
        self.failed_answers += 1 - packet;
        sum.packets += packet;
        sum.answers += 1 - packet;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A port that has sent so much.
    fn given(lengths: impl IntoIterator<Item = u16>) -> PortCounters {
        let given = u32::MAX - 7;
        let (tx_packets, tx_bytes) = (1000, 70_000);
        let mut port =
            PortCounters { given, settled: given, tx_packets, tx_bytes, ..Default::default() };
        (port.left_packets, port.left_bytes) = (tx_packets, tx_bytes);
        lengths.into_iter().for_each(|bytes| give(&mut port, bytes));
        port
    }

    fn give(port: &mut PortCounters, bytes: u16) {
        port.tx_packets += u64::from(bytes != 0);
        port.tx_bytes += u64::from(bytes);
        port.give(bytes);
    }

    /// `[packets, bytes]` left and failed, and answers failed, by what `step` did.
    fn change(port: &mut PortCounters, step: impl Fn(&mut PortCounters) -> Refused) -> [u64; 5] {
        let before = *port;
        let refused = step(port);
        let change = [
            port.left_packets - before.left_packets,
            port.left_bytes - before.left_bytes,
            port.failed_packets - before.failed_packets,
            port.failed_bytes - before.failed_bytes,
            port.failed_answers - before.failed_answers,
        ];
        assert_eq!([refused.packets, refused.answers], [change[2], change[4]]);
        change
    }

    fn settle(port: &mut PortCounters, sent: u32, refused: u32) -> [u64; 5] {
        change(port, |port| port.settle(sent, refused))
    }

    #[test]
    fn the_last_of_a_bulk_are_those_that_failed() {
        let mut port = given([100, 200, 0, 400]);
        assert_eq!(settle(&mut port, 1, 3), [1, 100, 2, 600, 1]);
        assert_eq!(settle(&mut port, 0, 4), [0; 5], "not ours");
        let mut port = given([100, 0, 300]);
        assert_eq!(settle(&mut port, 3, 0), [2, 400, 0, 0, 0]);
    }

    #[test]
    fn the_frame_that_finds_a_bulk_full_is_in_the_next() {
        let mut port = given((1..=17).map(|n| n * 100));
        assert_eq!(settle(&mut port, 14, 2), [14, 10_500, 2, 3_100, 0]);
        assert_eq!(settle(&mut port, 0, 1), [0, 0, 1, 1_700, 0]);
        let mut port = given((1..=16).map(|n| n * 100));
        assert_eq!(settle(&mut port, 15, 1), [15, 12_000, 1, 1_600, 0], "the poll's end");
    }

    #[test]
    fn what_never_came_to_the_device_is_not_in_its_bulk() {
        let mut port = given([100, 200]);
        assert_eq!(change(&mut port, PortCounters::refuse), [0, 0, 1, 200, 0]);
        give(&mut port, 300);
        assert_eq!(settle(&mut port, 2, 0), [2, 400, 0, 0, 0]);
        assert_eq!(change(&mut port, PortCounters::refuse), [0; 5]);
    }

    #[test]
    fn frames_that_nobody_saw_go_count_as_sent() {
        // Of 40 test runs, of which no device hears; then a poll's two frames.
        let mut port = given([60; 40]);
        give(&mut port, 100);
        give(&mut port, 200);
        assert_eq!(settle(&mut port, 1, 1), [41, 40 * 60 + 100, 1, 200, 0]);
        assert_eq!(port.given, port.settled);
    }
}
