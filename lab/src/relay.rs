//! The relay of a wire that delays or loses frames: a process in the wire's namespace.
//!
//! A frame is sent on no earlier than its delay after it was read, and as much later as the
//! process is scheduled late (about 0.1 ms: it runs before whatever else the machine does). What waits is bounded by
//! [`MAX_WAITING`] in each direction; beyond it frames are dropped, and counted.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use selvedge_topology::{Delay, Loss};
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

use crate::cable::{RELAY_ENDS, WIRE_ENDS};
use crate::packet::{PacketSocket, Way};

/// Frames that wait in one direction. At 100 Mbit/s and full size, 4 s of delay.
pub const MAX_WAITING: usize = 32_768;

/// Frames read before others are sent.
const BURST: usize = 64;

/// What a wire does, the same in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relay {
    pub delay: Delay,
    pub loss: Loss,
    /// Of the sequence of losses: the same seed loses the same frames.
    pub seed: u64,
}

/// Relays, in the namespace of the calling thread, for ever.
///
/// # Errors
/// Where an interface is missing or goes.
pub fn run(relay: Relay) -> io::Result<std::convert::Infallible> {
    // The default of 50 us would add to every delay.
    nix::sys::prctl::set_timerslack(1_000)?;
    // A wire waits for no processor, however busy the lab's machine is. Without the right to it,
    // the relay waits its turn.
    let fifo = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let first = ThreadPriority::Crossplatform(1u8.try_into().expect("a priority"));
    if let Err(error) = set_thread_priority_and_policy(thread_native_id(), first, fifo) {
        eprintln!("the relay runs in turn with others: {error:?}");
    }
    let mut ways = [
        Direction::open(RELAY_ENDS.0, WIRE_ENDS.1, relay, relay.seed)?,
        Direction::open(RELAY_ENDS.1, WIRE_ENDS.0, relay, !relay.seed)?,
    ];
    let mut buffer = vec![0; 1 << 16];
    loop {
        let now = Instant::now();
        let mut wait = Duration::from_secs(60);
        for way in &mut ways {
            way.send_due(now)?;
            if let Some((due, _)) = way.waiting.front() {
                wait = wait.min(due.saturating_duration_since(now));
            }
        }
        let mut fds =
            [&ways[0], &ways[1]].map(|way| PollFd::new(way.from.as_fd(), PollFlags::POLLIN));
        match ppoll(&mut fds, Some(TimeSpec::from_duration(wait)), None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        for way in &mut ways {
            way.read(&mut buffer)?;
        }
    }
}

struct Direction {
    from: PacketSocket,
    to: PacketSocket,
    delay: Duration,
    dice: Dice,
    waiting: VecDeque<(Instant, Vec<u8>)>,
    /// Buffers to use again.
    spare: Vec<Vec<u8>>,
    dropped: u64,
}

impl Direction {
    fn open(from: &str, to: &str, relay: Relay, seed: u64) -> io::Result<Self> {
        Ok(Self {
            from: PacketSocket::tap(from)?,
            to: PacketSocket::output(to)?,
            delay: Duration::from_micros(relay.delay.0),
            dice: Dice::new(seed, relay.loss),
            waiting: VecDeque::new(),
            spare: Vec::new(),
            dropped: 0,
        })
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..BURST {
            let Some((length, way)) = self.from.receive(buffer)? else { return Ok(()) };
            if way == Way::Out || self.dice.loses() {
                continue;
            }
            if self.waiting.len() == MAX_WAITING {
                self.dropped += 1;
                if self.dropped.is_power_of_two() {
                    eprintln!("{} frames dropped: {MAX_WAITING} are waiting", self.dropped);
                }
                continue;
            }
            let mut frame = self.spare.pop().unwrap_or_default();
            frame.clear();
            frame.extend_from_slice(&buffer[..length]);
            self.waiting.push_back((Instant::now() + self.delay, frame));
        }
        Ok(())
    }

    fn send_due(&mut self, now: Instant) -> io::Result<()> {
        while let Some((due, _)) = self.waiting.front()
            && *due <= now
        {
            let (_, frame) = self.waiting.pop_front().expect("looked at just now");
            self.to.send(&frame)?;
            if self.spare.len() < 1024 {
                self.spare.push(frame);
            }
        }
        Ok(())
    }
}

/// Decides which frames are lost: independent of each other, by xorshift64* (Vigna, 2016).
struct Dice {
    state: u64,
    threshold: u64,
}

impl Dice {
    fn new(seed: u64, loss: Loss) -> Self {
        let threshold = (u64::from(loss.ppm()) << 32) / 1_000_000;
        // Far from zero, which would stay zero, and from small numbers, which start alike.
        Self { state: (seed ^ 0x9E37_79B9_7F4A_7C15).max(1), threshold }
    }

    fn loses(&mut self) -> bool {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let random = self.state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        random < self.threshold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dice_lose_what_they_should() {
        for (seed, ppm) in [(0, 0), (1, 10_000), (2, 300_000), (!1, 10_000), (7, 1_000_000)] {
            let mut dice = Dice::new(seed, Loss::from_ppm(ppm).unwrap());
            let lost = (0..1_000_000).filter(|_| dice.loses()).count();
            let off = lost.abs_diff(ppm as usize);
            // Six standard deviations.
            let bound = 6 * (f64::from(ppm) * f64::from(1_000_000 - ppm) / 1e6).sqrt() as usize;
            assert!(off <= bound, "seed {seed}: {lost} of a million at {ppm} ppm");
        }
    }
}
