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
    /// Sent and not decided upon: number, when, and when it is lost.
    open: VecDeque<(u32, Duration)>,
    lost: u32,
    good: u32,
    /// When it last went down, and how long it stays so at least.
    down: Option<(Duration, Duration)>,
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
        let open = VecDeque::new();
        Self { up, carrier, answers: !up, assumed, open, lost: 0, good: 0, down: None }
    }

    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Test packet `number` has been sent, and is lost if there is no answer by `deadline`.
    pub fn sent(&mut self, number: u32, deadline: Duration) {
        if self.open.len() == OPEN {
            self.open.pop_front();
        }
        self.open.push_back((number, deadline));
    }

    pub fn carrier(&mut self, carrier: bool) {
        if self.carrier && !carrier {
            self.open.clear();
            self.good = 0;
        }
        self.carrier = carrier;
    }

    /// Looks at what has come of test packets. Says when that changes whether the port is up, and
    /// why it went down.
    pub fn look(
        &mut self,
        is_answered: impl Fn(u32) -> bool,
        now: Duration,
    ) -> Option<Result<(), Why>> {
        let (mut lost, mut good) = (self.lost, self.good);
        self.open.retain(|(number, deadline)| {
            if is_answered(*number) {
                (lost, good) = (0, good + 1);
                return false;
            }
            if now >= *deadline {
                (lost, good) = (lost + 1, 0);
            }
            now < *deadline
        });
        (self.lost, self.good) = (lost, good);
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
    }

    impl Port {
        fn new(up: bool) -> Self {
            Self { health: Health::new(up, true, Duration::ZERO), ticks: 0 }
        }

        fn now(&self) -> Duration {
            TICK * self.ticks
        }

        /// So many ticks, or until something changes: how many, and what.
        fn run(&mut self, ticks: u32, answered: bool) -> Option<(u32, Result<(), Why>)> {
            for n in 1..=ticks {
                self.health.sent(self.ticks, self.now() + TICK);
                self.ticks += 1;
                // Answers come between two ticks.
                if let Some(change) = self.health.look(|_| answered, self.now()) {
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
