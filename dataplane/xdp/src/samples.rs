//! Packets that are told of on demand: which, and what became of them.
//!
//! Nothing of it costs a packet anything while none are asked for, but a look at a bit at its end.
//! The programs stop choosing at the time that was set, whether or not an agent is there; an agent
//! that starts has a tail-call map of its own, with no samplers in it.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use nix::time::{ClockId, clock_gettime};
use selvedge_ebpf_common::value::{QueueState, SampleValue, Scratch};

pub use selvedge_ebpf_common::{SAMPLE_ADDRESSES, SAMPLE_HEAD, SAMPLES_PER_SECOND};

use crate::maps::Maps;
use crate::object::JUMP;
use crate::table::{Direction, address_words};
use crate::{Error, Verdict, load};

/// Longest time that packets are told of by one request.
pub const SAMPLE_LONGEST: Duration = Duration::from_secs(60);

/// Which packets are told of. Addresses are those of users' packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleFilter {
    /// Told with each packet.
    pub id: u32,
    /// At most [`SAMPLE_ADDRESSES`]; none: any.
    pub sources: Vec<IpAddr>,
    pub destinations: Vec<IpAddr>,
    pub slice: Option<u16>,
    pub direction: Option<Direction>,
    /// 1 in so many, the same ones at every switch.
    pub one_in: u32,
    /// At most [`SAMPLE_LONGEST`].
    pub duration: Duration,
}

/// A packet that was told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    pub id: u32,
    /// When it came, on the kernel's monotonic clock.
    pub at: Duration,
    /// The same at every switch that it comes to.
    pub digest: u64,
    /// Ingress port; from [`COMPUTE_PORT`](crate::common::COMPUTE_PORT) on that of a hook.
    pub port: u16,
    /// Without the frame.
    pub verdict: Verdict,
    /// The slice and direction that it was found to be of; 0: it did not come so far.
    pub slice: u16,
    pub direction: Direction,
    /// Within its slice's guarantee.
    pub in_profile: bool,
    /// Bytes of the frame as it came, and the first [`SAMPLE_HEAD`] of them.
    pub frame_len: u32,
    pub head: Vec<u8>,
}

/// What frames come to first: a place in the tail-call map, what is there, and the sampler.
#[derive(Debug)]
pub(crate) struct First {
    pub(crate) jump: OwnedFd,
    pub(crate) places: Vec<(u32, OwnedFd, OwnedFd)>,
}

impl First {
    pub(crate) fn put(&self, sampled: bool) -> Result<(), Error> {
        for (place, stage, sampler) in &self.places {
            let program = if sampled { sampler } else { stage };
            load::put_stage(self.jump.as_fd(), JUMP, *place, program.as_fd())?;
        }
        Ok(())
    }
}

/// Has packets told of.
#[derive(Clone, Debug)]
pub struct Sampler {
    pub(crate) maps: Arc<Maps>,
    pub(crate) first: Arc<First>,
}

impl Sampler {
    /// In place of what was asked for before.
    ///
    /// # Errors
    /// [`Error::Range`] for what a filter cannot say.
    pub fn start(&self, filter: &SampleFilter) -> Result<(), Error> {
        let range = |field, value, most| Error::Range { field, value, least: 0, most };
        let addresses = |of: &[IpAddr]| {
            let mut words = [[0; 2]; SAMPLE_ADDRESSES];
            if of.len() > words.len() {
                let most = SAMPLE_ADDRESSES as u64;
                return Err(range("sample addresses", of.len() as u64, most));
            }
            words.iter_mut().zip(of).for_each(|(word, address)| *word = address_words(*address));
            Ok(words)
        };
        if filter.duration > SAMPLE_LONGEST {
            let most = SAMPLE_LONGEST.as_secs();
            return Err(range("sample seconds", filter.duration.as_secs(), most));
        }
        let value = SampleValue {
            until_ns: 0,
            source: addresses(&filter.sources)?,
            destination: addresses(&filter.destinations)?,
            most: u32::MAX / filter.one_in.max(1),
            id: filter.id,
            slice: filter.slice.unwrap_or(0),
            direction: filter.direction.map_or(0, |direction| 1 + direction as u8),
            _pad: [0; 5],
        };
        // Two writes: no packet is chosen by half of it.
        let map = self.maps.get("SAMPLE");
        map.put(&0u32, &value)?;
        self.maps.get("SAMPLE_RATE").put(&0u32, &QueueState::default())?;
        let until = now()? + filter.duration;
        let until_ns = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
        map.put(&0u32, &SampleValue { until_ns, ..value })?;
        self.first.put(true)
    }

    pub fn stop(&self) -> Result<(), Error> {
        self.first.put(false)?;
        self.maps.get("SAMPLE").put(&0u32, &SampleValue::default())
    }

    /// The ring of what is told; one reader at a time.
    pub fn samples(&self) -> Result<Samples, Error> {
        let failed = |source: aya::maps::MapError| Error::Map {
            doing: "read",
            map: "SAMPLES",
            source: std::io::Error::other(source),
        };
        let fd = self.maps.get("SAMPLES").as_fd().try_clone_to_owned();
        let data = MapData::from_fd(fd.map_err(Error::map("read", "SAMPLES"))?).map_err(failed)?;
        Ok(Samples(RingBuf::try_from(aya::maps::Map::RingBuf(data)).map_err(failed)?))
    }
}

/// The kernel's monotonic clock, by which samples are dated.
///
/// # Errors
/// [`Error::Map`]: there is no such clock.
pub fn now() -> Result<Duration, Error> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
    now.map_err(|errno| Error::map("date what is in", "SAMPLE")(errno.into()))
}

/// The ring of told packets. Readable (`POLLIN`) while [`Samples::next`] has something.
pub struct Samples(RingBuf<MapData>);

impl Samples {
    /// The next packet; `None` when there is none now. Does not block.
    #[expect(clippy::should_implement_trait, reason = "an end is not for good")]
    pub fn next(&mut self) -> Option<Sample> {
        let item = self.0.next()?;
        let bytes: &[u8] = &item;
        assert!(bytes.len() >= size_of::<Scratch>(), "a record is one packet");
        // SAFETY: long enough by the assertion, and any bits are a valid `Plain`.
        let told = unsafe { bytes.as_ptr().cast::<Scratch>().read_unaligned() };
        let head: Vec<u8> = told.head.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let kept = (told.head_len as usize).min(SAMPLE_HEAD);
        Some(Sample {
            id: told.sample_id,
            at: Duration::from_nanos(told.at_ns),
            digest: told.digest,
            port: u16::try_from(told.port).expect("a port"),
            verdict: Verdict::of(&told, Vec::new()),
            slice: told.slice,
            // Nobody has written it of a packet that did not come so far.
            direction: Direction::parse(if told.slice == 0 { 0 } else { told.direction }),
            in_profile: told.slice != 0 && told.in_profile != 0,
            frame_len: told.frame_len,
            head: head[..kept].to_vec(),
        })
    }
}

impl AsRawFd for Samples {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl std::fmt::Debug for Samples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Samples").field(&self.as_raw_fd()).finish()
    }
}
