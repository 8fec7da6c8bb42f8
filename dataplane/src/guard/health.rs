//! Whether frames get through a fabric port, by its carrier and by test packets. Pure.

use std::collections::VecDeque;
use std::time::Duration;

/// Test packets in a row without an answer, with which a port is down.
const LOST: u32 = 3;
/// Answered ones in a row, with which it is up again.
const GOOD: u32 = 20;
/// Least time that a port stays down; twice as long each time it fails again soon.
const HOLD: Duration = Duration::from_millis(100);
const MAX_HOLD: Duration = Duration::from_secs(2);
/// A failure within this time of the one before makes a port one that flaps.
const SOON: Duration = Duration::from_secs(10);
/// A port that was down when the agent came is one whose neighbor does not answer at all, if it
/// has not by now.
const NOBODY: Duration = Duration::from_secs(5);
/// Test packets under way that are remembered.
const OPEN: usize = 256;

/// Times are those of one clock that never goes back.
#[derive(Clone, Debug)]
pub struct Health {
    up: bool,
    carrier: bool,
    /// The neighbor answers test packets: its silence says something.
    answers: bool,
    /// `answers` is taken for granted since then, from an agent before.
    assumed: Option<Duration>,
    open: VecDeque<Open>,
    /// About the longest that answers take.
    slow: Duration,
    lost: u32,
    good: u32,
    /// When it last went down, and how long it stays so at least.
    down: Option<(Duration, Duration)>,
}

/// How long after a test packet was sent its answer has to be there: this, and as long as what
/// stands before it in this switch's queue takes.
const GRACE: Duration = Duration::from_millis(10);
/// The same where frames have come from the neighbor since: then its queue may be long.
const LONG_GRACE: Duration = Duration::from_millis(60);

/// A test packet without an answer.
#[derive(Clone, Copy, Debug)]
struct Open {
    number: u32,
    /// When its answer was due if there were no grace.
    due: Duration,
    /// Frames received on the port by then.
    received: u64,
    /// It counts as lost. Its answer may come all the same.
    lost: bool,
}

/// Why a port went down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Carrier,
    Silence,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Carrier => f.write_str("it has no carrier"),
            Self::Silence => write!(f, "{LOST} test packets in a row were not answered"),
        }
    }
}

impl Health {
    /// `up`: what the data plane has it for.
    pub fn new(up: bool, carrier: bool, now: Duration) -> Self {
        let assumed = (!up).then_some(now);
        let (open, slow) = (VecDeque::new(), Duration::ZERO);
        Self { up, carrier, answers: !up, assumed, open, slow, lost: 0, good: 0, down: None }
    }

    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Test packet `number` leaves at `at`, by when so many frames have been received.
    pub fn sent(&mut self, number: u32, at: Duration, received: u64) {
        if self.open.len() == OPEN {
            self.open.pop_front();
        }
        let due = at + self.slow;
        self.open.push_back(Open { number, due, received, lost: false });
    }

    pub fn carrier(&mut self, carrier: bool) {
        if self.carrier && !carrier {
            self.open.clear();
            self.good = 0;
        }
        self.carrier = carrier;
    }

    /// Looks at what has come of test packets; `answer`: how long it took, `received`: frames by
    /// now. Says when that changes whether the port is up, and why it went down.
    pub fn look(
        &mut self,
        answer: impl Fn(u32) -> Option<Duration>,
        received: u64,
        now: Duration,
    ) -> Option<Result<(), Why>> {
        let (mut lost, mut good, mut slow) = (self.lost, self.good, self.slow);
        self.open.retain_mut(|open| {
            if let Some(took) = answer(open.number) {
                (lost, good) = (0, good + 1);
                // A link that has become slow is no link that is down.
                slow = took.max(slow - slow / 64);
                return false;
            }
            let grace = if received == open.received { GRACE } else { LONG_GRACE };
            if !open.lost && now >= open.due + grace {
                (open.lost, lost, good) = (true, lost + 1, 0);
            }
            true
        });
        (self.lost, self.good, self.slow) = (lost, good, slow);
        if good > 0 {
            (self.answers, self.assumed) = (true, None);
        } else if self.assumed.is_some_and(|since| now.saturating_sub(since) > NOBODY) {
            (self.answers, self.assumed) = (false, None);
        }
        if self.up {
            let silent = self.answers && lost >= LOST;
            let why =
                if self.carrier { silent.then_some(Why::Silence) } else { Some(Why::Carrier) };
            return why.map(|why| {
                self.fail(now);
                Err(why)
            });
        }
        let held = self.down.is_some_and(|(since, hold)| now < since + hold);
        let answered = !self.answers || good >= GOOD;
        (self.carrier && answered && !held).then(|| {
            (self.up, self.lost) = (true, 0);
            Ok(())
        })
    }

    fn fail(&mut self, now: Duration) {
        let again = self.down.filter(|(since, _)| now.saturating_sub(*since) < SOON);
        let hold = again.map_or(HOLD, |(_, hold)| (hold * 2).min(MAX_HOLD));
        (self.up, self.good, self.down) = (false, 0, Some((now, hold)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(10);

    /// A port with its test packets, one a tick.
    struct Port {
        health: Health,
        ticks: u32,
        received: u64,
        /// Frames come in whether or not there are answers.
        hears: bool,
    }

    impl Port {
        fn new(up: bool) -> Self {
            let health = Health::new(up, true, Duration::ZERO);
            Self { health, ticks: 0, received: 0, hears: false }
        }

        fn now(&self) -> Duration {
            TICK * self.ticks
        }

        /// So many ticks, or until something changes: how many, and what.
        fn run(&mut self, ticks: u32, answered: bool) -> Option<(u32, Result<(), Why>)> {
            let first = self.ticks;
            for n in 1..=ticks {
                self.health.sent(self.ticks, self.now(), self.received);
                self.ticks += 1;
                // Answers come between two ticks.
                let answer = |number| (answered && number >= first).then_some(Duration::ZERO);
                self.received += u64::from(answered || self.hears);
                if let Some(change) = self.health.look(answer, self.received, self.now()) {
                    return Some((n, change));
                }
            }
            None
        }
    }

    #[test]
    fn three_lost_ones_take_a_port_down_and_twenty_answers_bring_it_back() {
        let mut port = Port::new(true);
        assert_eq!(port.run(100, true), None);
        assert_eq!(port.run(2, false), None, "two are not enough");
        assert_eq!(port.run(1, true), None);
        assert_eq!(port.run(100, false), Some((3, Err(Why::Silence))));
        assert_eq!(port.run(19, true), None);
        assert_eq!(port.run(1, false), None, "all over again");
        assert_eq!(port.run(100, true), Some((20, Ok(()))));
    }

    #[test]
    fn who_never_answers_is_not_missed() {
        let mut port = Port::new(true);
        assert_eq!(port.run(1000, false), None);
        port.health.carrier(false);
        assert_eq!(port.run(1, false), Some((1, Err(Why::Carrier))));
        port.health.carrier(true);
        assert_eq!(port.run(100, false), Some((10, Ok(()))), "held for a moment");
    }

    /// An initiator that does not run declares nobody down.
    #[test]
    fn a_pause_loses_nothing() {
        let mut port = Port::new(true);
        assert_eq!(port.run(10, true), None);
        port.ticks += 500;
        assert_eq!(port.run(2, false), None);
        assert_eq!(port.run(10, true), None);
    }

    /// The neighbor's queue may be long; or it hears nothing.
    #[test]
    fn while_frames_come_in_there_is_more_time_for_an_answer() {
        let mut port = Port::new(true);
        assert_eq!(port.run(100, true), None);
        port.hears = true;
        assert_eq!(port.run(100, false), Some((8, Err(Why::Silence))));
    }

    /// After a moment in which nobody could know.
    #[test]
    fn what_has_become_slow_is_used_again() {
        let mut port = Port::new(true);
        assert_eq!(port.run(100, true), None);
        let mut changes = Vec::new();
        for n in 100..1000 {
            port.health.sent(n, TICK * n, 0);
            // There and back takes 40 ticks from now on.
            let took = |number| {
                (number < 100 || number + 40 <= n + 1)
                    .then_some(TICK * 40 * u32::from(number >= 100))
            };
            let change = port.health.look(took, 0, TICK * (n + 1));
            changes.extend(change.map(|change| (n, change)));
        }
        assert_eq!(changes, [(102, Err(Why::Silence)), (159, Ok(()))]);
    }

    #[test]
    fn carrier_alone_does_not_bring_back_who_answered() {
        let mut port = Port::new(true);
        assert_eq!(port.run(10, true), None);
        port.health.carrier(false);
        assert_eq!(port.run(1, false), Some((1, Err(Why::Carrier))));
        port.health.carrier(true);
        assert_eq!(port.run(1000, false), None);
        assert_eq!(port.run(100, true), Some((20, Ok(()))));
    }

    #[test]
    fn what_flaps_is_held_down_for_longer_each_time() {
        let mut port = Port::new(true);
        assert_eq!(port.run(10, true), None);
        let mut held = Vec::new();
        for _ in 0..7 {
            assert_eq!(port.run(10, false), Some((3, Err(Why::Silence))));
            held.push(port.run(1000, true).expect("up again").0);
        }
        assert_eq!(held, [20, 20, 40, 80, 160, 200, 200]);
        assert_eq!(port.run(1100, true), None);
        assert_eq!(port.run(10, false), Some((3, Err(Why::Silence))));
        assert_eq!(port.run(1000, true), Some((20, Ok(()))), "forgiven");
    }

    #[test]
    fn what_was_down_before_the_agent_came_has_to_answer_or_be_one_that_never_does() {
        assert_eq!(Port::new(false).run(1000, true), Some((20, Ok(()))));
        let (ticks, change) = Port::new(false).run(1000, false).expect("a change");
        assert_eq!((ticks, change), (501, Ok(())));
    }
}
