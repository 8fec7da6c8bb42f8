//! When a breach begins and ends.

use selvedge_topology::ArcIx;

use super::window::{LONGEST, Sum, WINDOWS, Windows};

/// Share of packets within the guarantee that may be lost before its rate counts as not kept, in
/// millionths: 1 %.
pub const LOSS_ALLOWED_PPM: u64 = 10_000;
/// A second in which more of them are lost is one in which the slice does not work: 10 %.
pub const LOSS_UNAVAILABLE_PPM: u64 = 100_000;
/// A breach begins when the mean of so many seconds is one, and the last of them too.
pub const BEGIN_SECONDS: u64 = 3;
/// It ends after so many measured seconds in a row without one: what flaps is one breach.
pub const END_SECONDS: u32 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Packets within the guarantee are lost.
    Rate,
    /// The mean delay of the worst path is above the promised latency.
    Delay,
    /// More seconds of the last 15 minutes did not work than the promised share allows.
    Availability,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Rate, Self::Delay, Self::Availability];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Delay => "delay",
            Self::Availability => "availability",
        }
    }
}

/// A promise that is not kept at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    pub since_ms: u64,
    /// The link, node or hook that is to blame, if that can be told.
    pub hop: Option<String>,
    /// Measured and promised, in words.
    pub text: String,
}

/// What is promised of one direction. `None`: nothing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Promise {
    pub(crate) guaranteed: bool,
    pub(crate) latency_ns: Option<u64>,
    pub(crate) availability_ppm: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Begins(Kind),
    /// With when it began.
    Ends(Kind, u64),
}

/// One direction of one slice.
#[derive(Clone, Debug, Default)]
pub(crate) struct Track {
    pub(crate) windows: Windows,
    /// In the order of [`Kind::ALL`].
    pub(crate) breaches: [Option<Breach>; Kind::ALL.len()],
    good: [u32; Kind::ALL.len()],
    /// Links of its paths in the last [`BEGIN_SECONDS`], and the last second of each: what is to
    /// blame may have been left for another path already.
    links: Vec<(ArcIx, u64)>,
}

/// Seconds of the longest window in which a slice of this availability need not work.
pub(crate) fn allowed_seconds(availability_ppm: u32) -> u64 {
    let (length, _) = WINDOWS[LONGEST];
    length * u64::from(1_000_000u32.saturating_sub(availability_ppm)) / 1_000_000
}

impl Track {
    /// Notes the links that its paths have in a second.
    pub(crate) fn goes_over(&mut self, second: u64, arcs: impl Iterator<Item = ArcIx>) {
        self.links.retain(|(_, last)| last + BEGIN_SECONDS > second);
        for arc in arcs {
            match self.links.iter_mut().find(|(link, _)| *link == arc) {
                Some((_, last)) => *last = second,
                None => self.links.push((arc, second)),
            }
        }
    }

    pub(crate) fn recent_links(&self) -> impl Iterator<Item = ArcIx> {
        self.links.iter().map(|(arc, _)| *arc)
    }

    /// Takes in a second. A breach that begins has no text yet: the caller knows the network.
    pub(crate) fn take(
        &mut self,
        second: u64,
        sum: &Sum,
        promise: Promise,
        now_ms: u64,
    ) -> Vec<Change> {
        self.windows.push(second, sum);
        let recent = self.windows.recent(BEGIN_SECONDS);
        // Of the last second, and of the last few; `None`: not measured.
        let loss = |sum: &Sum| Some(sum.loss_ppm()? > LOSS_ALLOWED_PPM);
        let late = |sum: &Sum| Some(sum.mean_delay_ns()? > promise.latency_ns?);
        let budget = promise.availability_ppm.map(allowed_seconds);
        let down = |_: &Sum| {
            let whole = self.windows.whole(LONGEST);
            Some(u64::from(whole.unavailable) > budget?)
        };
        // A second in which nobody sent anything breaks no rate.
        let idle = sum.exact > 0 && sum.entered == 0;
        let rate = if !promise.guaranteed || idle { Some(false) } else { loss(sum) };
        let now = [
            (rate, loss(&recent)),
            if promise.latency_ns.is_none() {
                (Some(false), None)
            } else {
                (late(sum), late(&recent))
            },
            if budget.is_none() { (Some(false), None) } else { (down(sum), down(sum)) },
        ];
        let mut changes = Vec::new();
        for ((kind, (last, recent)), at) in Kind::ALL.into_iter().zip(now).zip(0..) {
            let Some(bad) = last else { continue };
            match &self.breaches[at] {
                None if bad && recent == Some(true) => {
                    self.good[at] = 0;
                    let begun = Breach { since_ms: now_ms, hop: None, text: String::new() };
                    self.breaches[at] = Some(begun);
                    changes.push(Change::Begins(kind));
                }
                None => {}
                Some(_) if bad => self.good[at] = 0,
                Some(breach) => {
                    self.good[at] += 1;
                    if self.good[at] >= END_SECONDS {
                        changes.push(Change::Ends(kind, breach.since_ms));
                        self.breaches[at] = None;
                    }
                }
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMISE: Promise =
        Promise { guaranteed: true, latency_ns: Some(5_000_000), availability_ppm: Some(999_000) };

    fn sum(entered: u64, lost: u64, delay_ms: u64) -> Sum {
        Sum {
            exact: 1,
            entered,
            lost,
            delayed: 1,
            delay_ns: delay_ms * 1_000_000,
            watched: 1,
            ..Sum::default()
        }
    }

    /// What each second brings.
    fn run(promise: Promise, seconds: &[Sum]) -> Vec<(usize, Change)> {
        let mut track = Track::default();
        let mut changes = Vec::new();
        for (n, sum) in seconds.iter().enumerate() {
            let now_ms = 1000 * n as u64;
            changes.extend(track.take(n as u64, sum, promise, now_ms).into_iter().map(|c| (n, c)));
        }
        changes
    }

    #[test]
    fn a_breach_begins_soon_and_ends_when_it_is_over() {
        let (good, lossy, slow) = (sum(1000, 0, 1), sum(1000, 50, 1), sum(1000, 0, 40));
        let whole = [vec![good; 5], vec![lossy; 4], vec![good; 9], vec![slow; 3], vec![good; 9]];
        let want = [
            (5, Change::Begins(Kind::Rate)),
            (13, Change::Ends(Kind::Rate, 5000)),
            (18, Change::Begins(Kind::Delay)),
            (25, Change::Ends(Kind::Delay, 18_000)),
        ];
        assert_eq!(run(PROMISE, &whole.concat()), want);
        let nothing = Promise::default();
        assert_eq!(run(nothing, &whole.concat()), [], "what is not promised is not broken");
    }

    #[test]
    fn what_flaps_is_one_breach() {
        let (good, lossy) = (sum(1000, 0, 1), sum(1000, 100, 1));
        let flapping: Vec<Sum> = [lossy, good, good].into_iter().cycle().take(60).collect();
        let changes = run(PROMISE, &[flapping, vec![good; 5]].concat());
        assert_eq!(changes, [(0, Change::Begins(Kind::Rate)), (62, Change::Ends(Kind::Rate, 0))]);
    }

    #[test]
    fn a_little_loss_an_idle_slice_and_silence_are_no_breach() {
        assert_eq!(run(PROMISE, &[sum(1000, 9, 1); 20]), [], "below 1 %");
        assert_eq!(run(PROMISE, &[sum(0, 0, 1); 20]), [], "idle");
        assert_eq!(run(PROMISE, &[Sum::default(); 20]), [], "nothing was measured");
        // Not measured is not good either.
        let (lossy, unknown) = (sum(1000, 500, 1), Sum::default());
        let changes = run(PROMISE, &[vec![lossy; 2], vec![unknown; 30]].concat());
        assert_eq!(changes, [(0, Change::Begins(Kind::Rate))]);
        // One second far above, in a mean that is not.
        let (good, spike) = (sum(1000, 0, 1), sum(1000, 0, 12));
        assert_eq!(run(PROMISE, &[good, good, spike, good, good]), []);
    }

    #[test]
    fn availability_is_held_against_a_quarter_of_an_hour() {
        assert_eq!(allowed_seconds(999_900), 0);
        assert_eq!(allowed_seconds(990_000), 9);
        let up = Sum { seconds: 1, watched: 1, ..Sum::default() };
        let down = Sum { unavailable: 1, ..up };
        let promise = Promise { availability_ppm: Some(990_000), ..Promise::default() };
        let changes = run(promise, &[vec![up; 10], vec![down; 12], vec![up; 1000]].concat());
        assert_eq!(changes[0], (19, Change::Begins(Kind::Availability)));
        assert!(
            matches!(changes[1], (at, Change::Ends(Kind::Availability, 19_000)) if at > 900),
            "{changes:?}"
        );
        assert_eq!(changes.len(), 2);
    }
}
