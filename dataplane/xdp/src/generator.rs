//! Load for benches: live frames (`BPF_F_TEST_XDP_LIVE_FRAMES`) whose head is put back before
//! each run, and a sink for what comes out. A switch at work needs none of it.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use selvedge_ebpf_common::value::{DeviceValue, HeadNext, HeadValue, PatchValue};
use selvedge_ebpf_common::{GENERATOR_HEAD_LEN, GENERATOR_SHORT_HEAD_LEN, STAGE_UNDER_TEST};

use crate::load::{self, Clock};
use crate::object::JUMP;
use crate::switch::{Interface, Switch};
use crate::{Error, sys};

/// Frames that are under way at once. Fewer than a veth ring holds (256), so that a generator
/// whose sink runs on the same CPU overruns none.
const BATCH: u32 = 64;

/// Slot of the device map that no port has, for the bare redirect.
const BARE: u32 = 0;

/// What the frames meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnderTest {
    /// The switch's entry program and all that follows.
    Pipeline,
    /// A redirect to [`Generator`]'s `out` and nothing else.
    Redirect,
    /// The kernel's stack.
    Kernel,
}

/// Programs of a load of their own, over the maps of a switch.
#[derive(Debug)]
pub struct Generator<'a> {
    switch: &'a Switch,
    generator: OwnedFd,
    redirect: OwnedFd,
    pass: OwnedFd,
    discard: OwnedFd,
    jump: OwnedFd,
    head: OwnedFd,
    patch: OwnedFd,
    next: OwnedFd,
}

/// Counts (as port 0 does) and drops all that arrives at an interface, until dropped.
#[derive(Debug)]
pub struct Sink {
    _link: OwnedFd,
}

impl<'a> Generator<'a> {
    /// `out` is where [`UnderTest::Redirect`] sends. Of [`MAX_HEADS`] heads the first is in use,
    /// all zero.
    pub fn new(switch: &'a Switch, out: &Interface) -> Result<Self, Error> {
        let mut ebpf =
            load::object(switch.pins(), &[(HEAD, MAX_HEADS), (PATCH, MAX_HEADS)], Clock::Kernel)?;
        let jump = load::tail_calls(&ebpf)?;
        let (head, patch) = (load::array(&ebpf, HEAD)?, load::array(&ebpf, PATCH)?);
        let next = load::array(&ebpf, HEAD_NEXT)?;
        let device = DeviceValue { ifindex: out.index, program_fd: 0 };
        switch.maps.get("DEVICE").put(&BARE, &device)?;
        Ok(Self {
            switch,
            generator: load::program(&mut ebpf, "generator")?,
            redirect: load::program(&mut ebpf, "redirect")?,
            pass: load::program(&mut ebpf, "pass")?,
            discard: load::program(&mut ebpf, "discard")?,
            jump,
            head,
            patch,
            next,
        })
    }

    /// Frames begin as these do from now on, in turns: with as much of them as
    /// [`GENERATOR_HEAD_LEN`], the rest of which is zero where they are shorter.
    ///
    /// # Errors
    /// [`Error::Range`]: they are not a power of two, or more than [`MAX_HEADS`].
    pub fn set_heads(&self, frames: &[impl AsRef<[u8]>]) -> Result<(), Error> {
        let count = u32::try_from(frames.len()).ok().filter(|n| n.is_power_of_two());
        let Some(count) = count.filter(|n| *n <= MAX_HEADS) else {
            return Err(Error::Range {
                field: "heads, a power of two",
                value: frames.len() as u64,
                least: 1,
                most: MAX_HEADS.into(),
            });
        };
        let heads: Vec<Head> = frames.iter().map(|frame| head(frame.as_ref())).collect();
        // Those that a cache holds beside everything else are like frames that a NIC puts there.
        let few = count <= MANY_HEADS;
        let places = if few { None } else { places_of_difference(&heads) };
        let whole = if places.is_some() { &heads[..1] } else { &heads };
        for (index, head) in (0u32..).zip(whole) {
            let mut value = HeadValue::default();
            for (at, to) in value.words.iter_mut().enumerate() {
                *to = word(head, 8 * at);
            }
            load::put_element(&self.head, HEAD, index, &value)?;
        }
        if let Some(places) = places {
            for (index, head) in (0u32..).zip(&heads) {
                let patch = PatchValue(places.map(|at| word(head, at)));
                load::put_element(&self.patch, PATCH, index, &patch)?;
            }
        }
        let number = |at| u32::try_from(at).expect("inside a head");
        let next = HeadNext {
            heads: if places.is_some() { 0 } else { count - 1 },
            patches: if places.is_some() { count - 1 } else { 0 },
            at: places.unwrap_or_default().map(number),
            ..HeadNext::default()
        };
        load::put_element(&self.next, HEAD_NEXT, 0, &next)
    }

    /// Injects `repeat` copies of `frame` as received on interface `ifindex`, as fast as this
    /// CPU goes, and carries the verdicts out. Each begins as the next head does: its first
    /// [`GENERATOR_HEAD_LEN`] bytes, or [`GENERATOR_SHORT_HEAD_LEN`] if it is shorter than that.
    /// What is behind them must not be changed by what it meets.
    ///
    /// The mean time for each frame, by the kernel's account: without the tens of milliseconds
    /// that it takes to begin and to end, and without what others ran in between. Whole
    /// nanoseconds.
    ///
    /// # Errors
    /// [`Error::Range`] for a frame shorter than [`GENERATOR_SHORT_HEAD_LEN`].
    pub fn run(
        &self,
        under_test: UnderTest,
        ifindex: u32,
        frame: &[u8],
        repeat: u32,
    ) -> Result<Duration, Error> {
        if frame.len() < GENERATOR_SHORT_HEAD_LEN {
            return Err(Error::Range {
                field: "frame length",
                value: frame.len() as u64,
                least: GENERATOR_SHORT_HEAD_LEN as u64,
                most: u64::from(u16::MAX),
            });
        }
        let program = match under_test {
            UnderTest::Pipeline => self.switch.programs().entry(),
            UnderTest::Redirect => self.redirect.as_fd(),
            UnderTest::Kernel => self.pass.as_fd(),
        };
        load::put_stage(self.jump.as_fd(), JUMP, STAGE_UNDER_TEST, program)?;
        sys::live_run(self.generator.as_fd(), frame, ifindex, repeat, BATCH)
            .map(|ns| Duration::from_nanos(ns.into()))
            .map_err(Error::TestRun)
    }

    /// On an interface of this thread's network namespace.
    pub fn sink(&self, interface: &Interface) -> Result<Sink, Error> {
        match sys::link_xdp(self.discard.as_fd(), interface.index) {
            Ok(link) => Ok(Sink { _link: link }),
            Err(source) => Err(Error::Native { ifname: interface.name.clone(), source }),
        }
    }
}

/// More heads than this are told by what differs, where that is little: 320 KiB as they are.
const MANY_HEADS: u32 = 4096;

/// Most heads of frames.
pub(crate) const MAX_HEADS: u32 = 131_072;

const HEAD: &str = "HEAD";
const HEAD_NEXT: &str = "HEAD_NEXT";
const PATCH: &str = "PATCH";

type Head = [u8; GENERATOR_HEAD_LEN];

fn head(frame: &[u8]) -> Head {
    let mut head = [0; GENERATOR_HEAD_LEN];
    for (to, byte) in head.iter_mut().zip(frame) {
        *to = *byte;
    }
    head
}

fn word(head: &Head, at: usize) -> u64 {
    u64::from_ne_bytes(head[at..at + 8].try_into().expect("eight bytes"))
}

/// Two places of eight bytes, outside of which all heads are the same. One head needs none.
fn places_of_difference(heads: &[Head]) -> Option<[usize; 2]> {
    let [first, others @ ..] = heads else { return None };
    let mut differs = (0..first.len()).filter(|at| others.iter().any(|o| o[*at] != first[*at]));
    let last = GENERATOR_HEAD_LEN - 8;
    let one = differs.next().unwrap_or(0).min(last);
    let two = differs.find(|at| *at >= one + 8).unwrap_or(0).min(last);
    (!others.is_empty() && differs.all(|at| at < two + 8)).then_some([one, two])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_that_differ_in_two_places_are_told_by_these() {
        let with = |bytes: &[usize]| {
            let mut head = [7; GENERATOR_HEAD_LEN];
            bytes.iter().for_each(|at| head[*at] = 8);
            head
        };
        let places = |changed: &[&[usize]]| {
            let changed: Vec<Head> = changed.iter().map(|bytes| with(bytes)).collect();
            places_of_difference(&[&[with(&[])][..], &changed].concat())
        };
        assert_eq!(places(&[]), None);
        assert_eq!(places(&[&[]]), Some([0, 0]));
        assert_eq!(places(&[&[3], &[10]]), Some([3, 0]));
        assert_eq!(places(&[&[48], &[68, 73]]), Some([48, 68]));
        assert_eq!(places(&[&[0], &[8, 15], &[79]]), None);
        assert_eq!(places(&[&[70, 79]]), Some([70, 72]));
    }
}
