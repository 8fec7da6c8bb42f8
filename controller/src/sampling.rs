//! Packets that an operator asks the switches to tell of: one request at a time, for a few seconds.
//!
//! The request goes to every session there is, what they tell comes back to whoever asked, and the
//! core hears of neither. A switch ends by itself when its time is over, so nobody has to be there.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use selvedge_pipeline::model::{Ingress, Verdict};
use selvedge_pipeline::{Direction, DropReason, HookId, PortId};
use selvedge_southbound::selvedge::v1;
use selvedge_topology::NodeName;
use tokio::sync::{Mutex, broadcast, watch};
use tokio::time::Instant;

use crate::southbound::{BadMessage, bad};

/// Told packets that wait for the one who asked; more push out the oldest.
const WAITING: usize = 1024;
/// Told packets of one request.
pub(crate) const MAX_TOLD: usize = 4096;
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

/// Shared by the sessions and the API.
#[derive(Debug)]
pub(crate) struct Sampling {
    asked: watch::Sender<Option<v1::Sampling>>,
    told: broadcast::Sender<(u32, Told)>,
    one: Mutex<()>,
    last: AtomicU32,
}

impl Default for Sampling {
    fn default() -> Self {
        let (asked, told) = (watch::Sender::new(None), broadcast::Sender::new(WAITING));
        Self { asked, told, one: Mutex::default(), last: AtomicU32::new(0) }
    }
}

/// Somebody else is asking.
#[derive(Debug)]
pub(crate) struct Busy;

/// Ends a request, also one that was given up.
struct Ends<'a>(&'a Sampling, u32);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.asked.send_replace(Some(v1::Sampling { id: self.1, ..Default::default() }));
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
        for sample in told.samples {
            let told = (sample.id, checked(switch, sample)?);
            // Nobody is there who asked: it is over.
            drop(self.told.send(told));
        }
        Ok(())
    }

    /// Asks all switches for as long as `wanted` says, or for as long as `take` says when it has
    /// enough of what it is given.
    ///
    /// # Errors
    /// [`Busy`]: there is another request.
    pub(crate) async fn collect(
        &self,
        wanted: v1::Sampling,
        mut take: impl FnMut(Told) -> Option<Duration>,
    ) -> Result<(), Busy> {
        let _one = self.one.try_lock().map_err(|_| Busy)?;
        let id = self.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let mut told = self.told.subscribe();
        let mut until = Instant::now() + Duration::from_millis(wanted.duration_ms.into());
        let _ends = Ends(self, id);
        self.asked.send_replace(Some(v1::Sampling { id, ..wanted }));
        let mut taken = 0;
        while taken < MAX_TOLD {
            match tokio::time::timeout_at(until, told.recv()).await {
                Ok(Ok((of, told))) if of == id => {
                    taken += 1;
                    if let Some(after) = take(told) {
                        until = until.min(Instant::now() + after);
                    }
                }
                // Of a request before, or some were pushed out.
                Ok(Ok(_) | Err(broadcast::error::RecvError::Lagged(_))) => {}
                Ok(Err(broadcast::error::RecvError::Closed)) | Err(_) => break,
            }
        }
        Ok(())
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
        let crowd = v1::Samples { samples: vec![v1::Sample::default(); MAX_BATCH + 1] };
        assert_eq!(Sampling::default().told(&s1, crowd).unwrap_err().field, "samples");
    }

    #[tokio::test]
    async fn one_at_a_time_hears_what_is_told_to_it_and_ends_it() {
        let sampling = Sampling::default();
        let mut asked = sampling.asked();
        let wanted = v1::Sampling { duration_ms: 60_000, one_in: 7, ..Default::default() };
        let mut told = Vec::new();
        let collecting = sampling.collect(wanted.clone(), |one| {
            told.push(one);
            Some(Duration::ZERO)
        });
        let switch = async {
            asked.changed().await.unwrap();
            let ask = asked.borrow_and_update().clone().unwrap();
            assert_eq!((ask.one_in, ask.duration_ms), (7, 60_000));
            assert!(sampling.collect(wanted.clone(), |_| None).await.is_err(), "one at a time");
            let mut old = sample(1, Kind::Passed, 0);
            old.id = ask.id.wrapping_sub(1);
            let new = v1::Sample { id: ask.id, ..sample(2, Kind::Passed, 0) };
            let samples = vec![old, new];
            sampling.told(&"s1".parse().unwrap(), v1::Samples { samples }).unwrap();
        };
        let (ended, ()) = tokio::join!(collecting, switch);
        ended.unwrap();
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].ingress, Ingress::Port(PortId(2)));
        let last = asked.borrow_and_update().clone().unwrap();
        assert_eq!(last.duration_ms, 0, "it ends at the switches");
    }
}
