//! Packets that an operator asks the switches to tell of: one request at a time, for a few seconds.
//!
//! The request goes to every session there is, what they tell comes back to whoever asked, and the
//! core hears of neither. A switch ends by itself when its time is over, so nobody has to be there.
//!
//! A packet that lacks a switch of its way looks like one that was lost. So packets count from when
//! all switches tell, and when one of them has more than it tells of, fewer are asked for.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use selvedge_pipeline::model::{Ingress, Verdict};
use selvedge_pipeline::{Direction, DropReason, HookId, PortId};
use selvedge_southbound::selvedge::v1;
use selvedge_topology::NodeName;
use tokio::sync::{Mutex, broadcast, watch};
use tokio::time::Instant;

use crate::southbound::{BadMessage, bad};
use crate::trace::sampled::Packets;

/// Told packets that wait for the one who asked; more push out the oldest.
const WAITING: usize = 1024;
/// Messages heard of one time of asking.
const MAX_TOLD: usize = 4096;
/// How long the last packet that was wanted may be on its way still.
const ON_ITS_WAY: Duration = Duration::from_millis(300);
/// A switch that has not said by then that it has begun, or ended, is not waited for.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(3);
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// What a switch tells of in a second (session.proto), all at once or not.
const PER_SECOND: f64 = 200.0;
/// When there are more, 1 in so many of them is asked for instead.
const FEWER: u32 = 8;
/// Packets of one message of a switch.
const MAX_BATCH: usize = 256;
/// Bytes of a frame that are told, and bytes that a frame can have.
const MAX_HEAD: usize = 256;
const MAX_FRAME: u32 = 65_535;
/// The compute port of hook 0 (session.proto, `LinkCount`).
const FIRST_COMPUTE_PORT: u32 = 256;

/// A packet at one switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) switch: NodeName,
    /// Since the Unix epoch, by the switch's clock.
    pub(crate) at_ns: u64,
    /// Since it began to tell: alike at switches whose clocks are not.
    pub(crate) after: Duration,
    /// The same at every switch.
    pub(crate) digest: u64,
    pub(crate) ingress: Ingress,
    /// Without frames.
    pub(crate) verdict: Verdict,
    /// `None`: it was not found to be of any.
    pub(crate) slice: Option<(u16, Direction)>,
    pub(crate) in_profile: bool,
    /// As it came, with zeros behind what was told.
    pub(crate) frame: Vec<u8>,
    /// How many bytes of it were told.
    pub(crate) head_len: usize,
}

/// What comes from a switch.
#[derive(Clone, Debug)]
enum Heard {
    /// All that comes is told from this time of its clock on, Unix epoch in ns.
    Begun(NodeName, u64),
    /// Nothing comes any more.
    Ended(NodeName),
    Told(Told),
}

/// Shared by the sessions and the API.
#[derive(Debug)]
pub(crate) struct Sampling {
    asked: watch::Sender<Option<v1::Sampling>>,
    heard: broadcast::Sender<(u32, Heard)>,
    one: Mutex<()>,
    last: AtomicU32,
}

impl Default for Sampling {
    fn default() -> Self {
        let (asked, heard) = (watch::Sender::new(None), broadcast::Sender::new(WAITING));
        Self { asked, heard, one: Mutex::default(), last: AtomicU32::new(0) }
    }
}

/// Somebody else is asking.
#[derive(Debug)]
pub(crate) struct Busy;

/// Ends a request, also one that was given up.
struct Ends<'a>(&'a Sampling);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.end(self.0.last.load(Ordering::Relaxed));
    }
}

impl Sampling {
    /// What a session has to ask its switch for, from now on.
    pub(crate) fn asked(&self) -> watch::Receiver<Option<v1::Sampling>> {
        self.asked.subscribe()
    }

    /// What a switch has told.
    pub(crate) fn told(&self, switch: &NodeName, told: v1::Samples) -> Result<(), BadMessage> {
        if told.samples.len() > MAX_BATCH {
            let problem = format!("{} are too many, at most {MAX_BATCH}", told.samples.len());
            return bad("samples", problem);
        }
        if let Some(begun) = told.begun {
            // Nobody is there who asked: it is over. So below.
            drop(self.heard.send((begun.id, Heard::Begun(switch.clone(), begun.at_ns))));
        }
        for sample in told.samples {
            let told = (sample.id, Heard::Told(checked(switch, sample)?));
            drop(self.heard.send(told));
        }
        if told.ended != 0 {
            drop(self.heard.send((told.ended, Heard::Ended(switch.clone()))));
        }
        Ok(())
    }

    /// Asks all switches for as long as `wanted` says, or until `most` packets are told of.
    ///
    /// # Errors
    /// [`Busy`]: there is another request.
    pub(crate) async fn collect(
        &self,
        mut wanted: v1::Sampling,
        most: usize,
    ) -> Result<Packets, Busy> {
        let _one = self.one.try_lock().map_err(|_| Busy)?;
        let _ends = Ends(self);
        let mut heard = self.heard.subscribe();
        let end = Instant::now() + Duration::from_millis(wanted.duration_ms.into());
        loop {
            wanted.id = self.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
            let left = end.saturating_duration_since(Instant::now());
            let left = left.as_micros().div_ceil(1000);
            wanted.duration_ms = u32::try_from(left).expect("no more than at first");
            let mut round = Round::new(self.asked.receiver_count());
            self.asked.send_replace(Some(wanted.clone()));
            match round.run(&mut heard, wanted.id, most, end).await {
                Ended::Enough => {
                    self.end(wanted.id);
                    round.rest(&mut heard, wanted.id).await;
                    return Ok(round.packets);
                }
                Ended::Crowded => wanted.one_in = wanted.one_in.saturating_mul(FEWER),
            }
        }
    }

    fn end(&self, id: u32) {
        self.asked.send_replace(Some(v1::Sampling { id, ..Default::default() }));
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// Also if the time is over.
    Enough,
    /// A switch had more than it may tell.
    Crowded,
}

/// One time of asking.
#[derive(Debug)]
struct Round {
    asked: Instant,
    switches: usize,
    begun: HashMap<NodeName, Begun>,
    /// How long after it was asked for all switches were heard to have begun.
    all_after: Option<Duration>,
    /// Those of `begun` that have not said that they tell no more.
    telling: HashSet<NodeName>,
    packets: Packets,
    enough: Option<Instant>,
}

#[derive(Debug)]
struct Begun {
    at_ns: u64,
    /// Packets above the rate at which a switch tells of them (GCRA), and when that was.
    level: f64,
    last_ns: u64,
}

/// What is heard of a request by `until`; `None`: no more.
async fn next(
    heard: &mut broadcast::Receiver<(u32, Heard)>,
    id: u32,
    until: Instant,
) -> Option<Heard> {
    loop {
        match tokio::time::timeout_at(until, heard.recv()).await {
            Ok(Ok((of, heard))) if of == id => return Some(heard),
            // Of a request before, or some were pushed out.
            Ok(Ok(_) | Err(broadcast::error::RecvError::Lagged(_))) => {}
            Ok(Err(broadcast::error::RecvError::Closed)) | Err(_) => return None,
        }
    }
}

impl Round {
    fn new(switches: usize) -> Self {
        Self {
            asked: Instant::now(),
            switches,
            begun: HashMap::new(),
            all_after: None,
            telling: HashSet::new(),
            packets: Packets::default(),
            enough: None,
        }
    }

    async fn run(
        &mut self,
        heard: &mut broadcast::Receiver<(u32, Heard)>,
        id: u32,
        most: usize,
        end: Instant,
    ) -> Ended {
        for _ in 0..MAX_TOLD {
            let until = self.enough.map_or(end, |enough| end.min(enough + ON_ITS_WAY));
            match next(heard, id, until).await {
                None => break,
                Some(Heard::Begun(switch, at_ns)) => self.begins(switch, at_ns),
                Some(Heard::Ended(switch)) => drop(self.telling.remove(&switch)),
                Some(Heard::Told(told)) => {
                    if self.is_crowded_by(told) {
                        return Ended::Crowded;
                    }
                    let is_enough = self.packets.len() >= most;
                    let since = self.enough.take().unwrap_or_else(Instant::now);
                    self.enough = is_enough.then_some(since);
                }
            }
        }
        Ended::Enough
    }

    /// What switches have still to tell when it has ended.
    async fn rest(&mut self, heard: &mut broadcast::Receiver<(u32, Heard)>, id: u32) {
        let until = Instant::now() + END_TIMEOUT;
        while !self.telling.is_empty() {
            match next(heard, id, until).await {
                None => break,
                Some(Heard::Begun(switch, at_ns)) => self.begins(switch, at_ns),
                Some(Heard::Ended(switch)) => drop(self.telling.remove(&switch)),
                Some(Heard::Told(told)) => drop(self.is_crowded_by(told)),
            }
        }
    }

    fn begins(&mut self, switch: NodeName, at_ns: u64) {
        self.telling.insert(switch.clone());
        self.begun.insert(switch, Begun { at_ns, level: 0.0, last_ns: at_ns });
        if self.begun.len() >= self.switches {
            self.all_after.get_or_insert(BEGIN_TIMEOUT.min(self.asked.elapsed()));
        }
    }

    /// Whether the switch may have left some out, since it tells of so many a second only.
    fn is_crowded_by(&mut self, mut told: Told) -> bool {
        let Some(begun) = self.begun.get_mut(&told.switch) else { return false };
        let passed = told.at_ns.saturating_sub(begun.last_ns) as f64 / 1e9;
        begun.last_ns = told.at_ns.max(begun.last_ns);
        begun.level = (begun.level - passed * PER_SECOND).max(0.0) + 1.0;
        let is_crowded = begun.level > PER_SECOND - 1.0;
        // No clock of another machine is in it: it began after it was asked, which is all that
        // has to be known of when.
        told.after = Duration::from_nanos(told.at_ns.saturating_sub(begun.at_ns));
        let is_early = told.after < self.all_after.unwrap_or(BEGIN_TIMEOUT);
        self.packets.add(told, is_early);
        is_crowded
    }
}

fn checked(switch: &NodeName, sample: v1::Sample) -> Result<Told, BadMessage> {
    use v1::sample::Verdict as Kind;
    let end = |field, port: u32| match (u16::try_from(port), port.checked_sub(FIRST_COMPUTE_PORT)) {
        (Ok(port @ 1..), None) => Ok(Ingress::Port(PortId(port))),
        (_, Some(hook @ 0..=255)) => Ok(Ingress::Compute(HookId(hook as u16))),
        _ => bad(field, format!("{port} is no port, 1 to 511")),
    };
    let ingress = end("sample.port", sample.port)?;
    let verdict = match sample.verdict() {
        Kind::Forwarded => match end("sample.detail", sample.detail)? {
            Ingress::Port(port) => Verdict::Out { port, frame: Vec::new() },
            Ingress::Compute(hook) => Verdict::ToHook { hook, frame: Vec::new() },
        },
        Kind::Dropped => {
            let reason = DropReason::ALL.into_iter().find(|r| u32::from(*r as u8) == sample.detail);
            match reason {
                Some(reason) => Verdict::Drop(reason),
                None => return bad("sample.detail", format!("{} is no reason", sample.detail)),
            }
        }
        Kind::Passed => Verdict::PassToKernel,
        Kind::Answered => match ingress {
            Ingress::Port(port) => Verdict::Answer { port, frame: Vec::new() },
            Ingress::Compute(_) => return bad("sample.verdict", "an answer to a hook"),
        },
        Kind::Unspecified => return bad("sample.verdict", "not a verdict"),
    };
    let head_len = sample.head.len();
    if head_len > MAX_HEAD || sample.frame_len > MAX_FRAME || head_len > sample.frame_len as usize {
        let problem = format!("{head_len} bytes of a frame of {}", sample.frame_len);
        return bad("sample.head", problem);
    }
    let mut frame = sample.head;
    frame.resize(sample.frame_len as usize, 0);
    let slice = match (u16::try_from(sample.slice), sample.direction) {
        (Ok(0), _) => None,
        (Ok(slice), 0) => Some((slice, Direction::Downlink)),
        (Ok(slice), 1) => Some((slice, Direction::Uplink)),
        _ => return bad("sample.slice", format!("{}, {}", sample.slice, sample.direction)),
    };
    Ok(Told {
        switch: switch.clone(),
        at_ns: sample.at_ns,
        after: Duration::ZERO,
        digest: sample.digest,
        ingress,
        verdict,
        slice,
        in_profile: sample.in_profile,
        frame,
        head_len,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use v1::sample::Verdict as Kind;

    fn sample(port: u32, verdict: Kind, detail: u32) -> v1::Sample {
        v1::Sample {
            id: 1,
            port,
            verdict: verdict.into(),
            detail,
            frame_len: 60,
            head: vec![1; 60],
            ..Default::default()
        }
    }

    #[test]
    fn what_is_out_of_range_is_refused_by_its_field() {
        let s1 = "s1".parse().unwrap();
        let good = sample(1, Kind::Forwarded, 2);
        // (sample, the field refused; `None`: accepted)
        let cases = [
            (good.clone(), None),
            (sample(256, Kind::Forwarded, 511), None),
            (sample(1, Kind::Dropped, 13), None),
            (sample(0, Kind::Forwarded, 2), Some("sample.port")),
            (sample(512, Kind::Forwarded, 2), Some("sample.port")),
            (sample(1, Kind::Forwarded, 0), Some("sample.detail")),
            (sample(1, Kind::Dropped, 200), Some("sample.detail")),
            (sample(300, Kind::Answered, 0), Some("sample.verdict")),
            (sample(1, Kind::Unspecified, 0), Some("sample.verdict")),
            (v1::Sample { frame_len: 59, ..good.clone() }, Some("sample.head")),
            (v1::Sample { frame_len: 65_536, ..good.clone() }, Some("sample.head")),
            (
                v1::Sample { frame_len: 400, head: vec![0; 257], ..good.clone() },
                Some("sample.head"),
            ),
            (v1::Sample { slice: 1, direction: 2, ..good.clone() }, Some("sample.slice")),
            (v1::Sample { slice: 65_536, ..good }, Some("sample.slice")),
        ];
        for (sample, want) in cases {
            let got = checked(&s1, sample.clone()).err().map(|bad| bad.field);
            assert_eq!(got, want, "{sample:?}");
        }
        let samples = vec![v1::Sample::default(); MAX_BATCH + 1];
        let crowd = v1::Samples { samples, ..Default::default() };
        assert_eq!(Sampling::default().told(&s1, crowd).unwrap_err().field, "samples");
    }

    const S1: &str = "s1";
    const S2: &str = "s2";

    fn begun(id: u32, at_ms: u64) -> v1::Samples {
        let begun = v1::SamplingBegun { id, at_ns: at_ms * 1_000_000 };
        v1::Samples { begun: Some(begun), ..Default::default() }
    }

    fn ended(id: u32) -> v1::Samples {
        v1::Samples { ended: id, ..Default::default() }
    }

    /// (digest, time in ms) of each.
    fn samples(id: u32, of: &[(u64, u64)]) -> v1::Samples {
        let one = |&(digest, at_ms): &(u64, u64)| v1::Sample {
            id,
            digest,
            at_ns: at_ms * 1_000_000,
            ..sample(1, Kind::Passed, 0)
        };
        v1::Samples { samples: of.iter().map(one).collect(), ..Default::default() }
    }

    async fn question(asked: &mut watch::Receiver<Option<v1::Sampling>>) -> v1::Sampling {
        asked.changed().await.unwrap();
        asked.borrow_and_update().clone().unwrap()
    }

    #[tokio::test]
    async fn one_at_a_time_hears_what_is_told_to_it_and_ends_it() {
        let sampling = Sampling::default();
        let mut asked = sampling.asked();
        let wanted = v1::Sampling { duration_ms: 60_000, one_in: 7, ..Default::default() };
        let collecting = sampling.collect(wanted.clone(), 1);
        let tell = |samples| sampling.told(&S1.parse().unwrap(), samples).unwrap();
        let switch = async {
            let ask = question(&mut asked).await;
            assert_eq!((ask.one_in, ask.duration_ms), (7, 60_000));
            assert!(sampling.collect(wanted.clone(), 1).await.is_err(), "one at a time");
            tell(samples(ask.id.wrapping_sub(1), &[(1, 5000)]));
            tell(begun(ask.id, 1000));
            tell(samples(ask.id, &[(2, 2000)]));
            assert_eq!(question(&mut asked).await.duration_ms, 0, "it ends at the switches");
            // Told before it heard of that, and late.
            tell(samples(ask.id, &[(3, 2001)]));
            tell(ended(ask.id));
        };
        let (packets, ()) = tokio::join!(collecting, switch);
        assert_eq!(packets.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn packets_count_from_when_all_switches_tell() {
        let sampling = Sampling::default();
        let mut asked = [sampling.asked(), sampling.asked()];
        let wanted = v1::Sampling { duration_ms: 600, one_in: 1, ..Default::default() };
        let collecting = sampling.collect(wanted, 100);
        let tell = |at: &str, samples| sampling.told(&at.parse().unwrap(), samples).unwrap();
        let switches = async {
            let id = question(&mut asked[0]).await.id;
            // Its clock is an hour ahead of the other's.
            tell(S1, begun(id, 3_600_000));
            tokio::time::sleep(Duration::from_millis(40)).await;
            tell(S2, begun(id, 7000));
            // The first was sent 30 ms after the request or later: too early for the other, maybe.
            tell(S1, samples(id, &[(1, 3_600_030), (2, 3_600_500)]));
            tell(S2, samples(id, &[(1, 7001), (2, 7470)]));
            tell(S1, ended(id));
            tell(S2, ended(id));
        };
        let (packets, ()) = tokio::join!(collecting, switches);
        assert_eq!(packets.unwrap().len(), 1, "the second, at both");
    }

    #[tokio::test]
    async fn a_switch_that_does_not_begin_is_not_waited_for() {
        let sampling = Sampling::default();
        let mut asked = [sampling.asked(), sampling.asked()];
        let wanted = v1::Sampling { duration_ms: 5_000, one_in: 1, ..Default::default() };
        let collecting = sampling.collect(wanted, 1);
        let switches = async {
            let id = question(&mut asked[0]).await.id;
            let tell = |samples| sampling.told(&S1.parse().unwrap(), samples).unwrap();
            tell(begun(id, 0));
            tell(samples(id, &[(1, 2999), (2, 3000)]));
            tell(ended(id));
        };
        let (packets, ()) = tokio::join!(collecting, switches);
        assert_eq!(packets.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn fewer_are_asked_for_when_a_switch_has_too_many() {
        let sampling = Sampling::default();
        let mut asked = sampling.asked();
        let wanted = v1::Sampling { duration_ms: 5_000, one_in: 2, ..Default::default() };
        let collecting = sampling.collect(wanted, 3);
        let switch = async {
            let tell = |samples| sampling.told(&S1.parse().unwrap(), samples).unwrap();
            let first = question(&mut asked).await;
            tell(begun(first.id, 0));
            tell(samples(first.id, &(0..200).map(|n| (n, n)).collect::<Vec<_>>()));
            tell(samples(first.id, &(200..400).map(|n| (n, n)).collect::<Vec<_>>()));
            let second = question(&mut asked).await;
            assert_ne!(second.id, first.id);
            assert_eq!(second.one_in, 16);
            assert!(second.duration_ms <= 5_000);
            tell(begun(second.id, 1000));
            // As many as a switch may tell of: nobody is asked again.
            tell(samples(second.id, &(0..200).map(|n| (n, 1000 + 10 * n)).collect::<Vec<_>>()));
            question(&mut asked).await;
            tell(ended(second.id));
        };
        let (packets, ()) = tokio::join!(collecting, switch);
        assert!(packets.unwrap().len() >= 3);
    }
}
