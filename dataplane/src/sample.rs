//! Packets that the controller asks to be told of (`selvedge_xdp::Sampler`): it starts them, tells
//! what comes, and ends them in time whether or not the controller is still there.

use std::net::IpAddr;
use std::time::Duration;
use std::{array, io};

use selvedge_southbound::selvedge::v1;
use selvedge_xdp::common::COMPUTE_PORT;
use selvedge_xdp::{self as xdp, Direction, SampleFilter, Verdict};
use tokio::io::unix::AsyncFd;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use crate::assure::unix_time;

/// Packets of one message: some more than a switch tells of at once.
pub const BATCH: usize = 256;
/// More than the ring holds: who reads is never kept by who writes.
const RING: usize = 4 * BATCH;
/// What comes within it is told together.
const GATHER: Duration = Duration::from_millis(50);

/// Messages that wait for a slow session; more push out the oldest.
pub const WAITING: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    #[error("cannot have packets told of")]
    Maps(#[from] xdp::Error),
    #[error("cannot wait for packets that are told of")]
    Wait(#[source] io::Error),
}

/// Runs for ever.
///
/// # Errors
/// See [`SampleError`].
pub async fn run(
    sampler: xdp::Sampler,
    mut asked: watch::Receiver<Option<v1::Sampling>>,
    told: broadcast::Sender<v1::Samples>,
) -> Result<std::convert::Infallible, SampleError> {
    #[expect(
        deprecated,
        reason = "its replacement is unsafe code for descriptors that may close under it; \
                  this one owns its ring"
    )]
    let mut ring = AsyncFd::new(sampler.samples()?).map_err(SampleError::Wait)?;
    let mut until: Option<Instant> = None;
    let mut id = 0;
    // Without a session nobody hears it.
    let tell = |samples| drop(told.send(samples));
    let ended = |id| tell(v1::Samples { ended: id, ..Default::default() });
    loop {
        let end = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = asked.changed() => {
                if changed.is_err() {
                    // Nobody asks any more: the agent ends.
                    std::future::pending::<()>().await;
                }
                let wanted = asked.borrow_and_update().as_ref().map(filter);
                match wanted {
                    Some(Ok(wanted)) if !wanted.duration.is_zero() => {
                        sampler.start(&wanted)?;
                        id = wanted.id;
                        let begun = v1::SamplingBegun { id, at_ns: ns(unix_time()) };
                        tell(v1::Samples { begun: Some(begun), ..Default::default() });
                        until = Some(Instant::now() + wanted.duration);
                    }
                    Some(Err(why)) => {
                        tracing::warn!(why, "packets asked for in a way that is not understood");
                    }
                    Some(Ok(SampleFilter { id, .. })) => {
                        sampler.stop()?;
                        until = None;
                        drain(ring.get_mut())?.into_iter().for_each(tell);
                        ended(id);
                    }
                    None => {}
                }
            }
            () = end => {
                sampler.stop()?;
                until = None;
                drain(ring.get_mut())?.into_iter().for_each(tell);
                ended(id);
            }
            ready = ring.readable_mut() => {
                let mut ready = ready.map_err(SampleError::Wait)?;
                tokio::time::sleep(GATHER).await;
                drain(ready.get_inner_mut())?.into_iter().for_each(tell);
                ready.clear_ready();
            }
        }
    }
}

/// All that is there, in messages of [`BATCH`].
fn drain(samples: &mut xdp::Samples) -> Result<Vec<v1::Samples>, xdp::Error> {
    let (wall, now) = (unix_time(), xdp::now()?);
    let at = |sample: &xdp::Sample| wall.saturating_sub(now.saturating_sub(sample.at));
    let all: Vec<_> = std::iter::from_fn(|| samples.next())
        .take(RING)
        .map(|sample| message(&sample, at(&sample)))
        .collect();
    let batch = |samples: &[_]| v1::Samples { samples: samples.to_vec(), ..Default::default() };
    Ok(all.chunks(BATCH).map(batch).collect())
}

fn filter(asked: &v1::Sampling) -> Result<SampleFilter, &'static str> {
    let address = |bytes: &Vec<u8>| match bytes[..] {
        [a, b, c, d] => Ok(IpAddr::from([a, b, c, d])),
        ref v6 if v6.len() == 16 => Ok(IpAddr::from(array::from_fn::<u8, 16, _>(|n| v6[n]))),
        _ => Err("an address has 4 or 16 bytes"),
    };
    let addresses = |of: &[Vec<u8>]| match of.len() {
        0..=xdp::SAMPLE_ADDRESSES => of.iter().map(address).collect(),
        _ => Err("too many addresses"),
    };
    let duration = Duration::from_millis(asked.duration_ms.into());
    if duration > xdp::SAMPLE_LONGEST {
        return Err("too long a time");
    }
    Ok(SampleFilter {
        id: asked.id,
        sources: addresses(&asked.sources)?,
        destinations: addresses(&asked.destinations)?,
        slice: match u16::try_from(asked.slice) {
            Ok(0) => None,
            Ok(slice) => Some(slice),
            Err(_) => return Err("not a slice's number"),
        },
        direction: match asked.direction {
            0 => None,
            1 => Some(Direction::Downlink),
            2 => Some(Direction::Uplink),
            _ => return Err("not a direction"),
        },
        one_in: asked.one_in,
        duration,
    })
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn message(sample: &xdp::Sample, at: Duration) -> v1::Sample {
    let (verdict, detail) = match &sample.verdict {
        Verdict::Forwarded { port, .. } => (v1::sample::Verdict::Forwarded, u32::from(*port)),
        Verdict::ToHook { hook, .. } => {
            (v1::sample::Verdict::Forwarded, u32::from(COMPUTE_PORT + hook))
        }
        Verdict::Dropped(reason) => (v1::sample::Verdict::Dropped, u32::from(*reason)),
        Verdict::Passed => (v1::sample::Verdict::Passed, 0),
        Verdict::Answered { .. } => (v1::sample::Verdict::Answered, 0),
    };
    v1::Sample {
        id: sample.id,
        at_ns: ns(at),
        digest: sample.digest,
        port: sample.port.into(),
        verdict: verdict.into(),
        detail,
        slice: sample.slice.into(),
        direction: sample.direction as u32,
        in_profile: sample.in_profile,
        frame_len: sample.frame_len,
        head: sample.head.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_asked_for_is_refused() {
        let asked = v1::Sampling { one_in: 1, duration_ms: 1000, ..Default::default() };
        let with = |sources: &[usize]| v1::Sampling {
            sources: sources.iter().map(|len| vec![1; *len]).collect(),
            ..asked.clone()
        };
        // (asked for, refused)
        let cases = [
            (asked.clone(), false),
            (with(&[4, 16]), false),
            (with(&[5]), true),
            (with(&[4; 5]), true),
            (v1::Sampling { duration_ms: 60_001, ..asked.clone() }, true),
            (v1::Sampling { slice: 65_536, ..asked.clone() }, true),
            (v1::Sampling { direction: 3, ..asked.clone() }, true),
            (v1::Sampling { slice: 7, direction: 2, ..asked }, false),
        ];
        for (asked, refused) in cases {
            assert_eq!(filter(&asked).is_err(), refused, "{asked:?}");
        }
    }
}
