//! Loading the embedded object with aya.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use aya::programs::{Program, ProgramError};
use aya::{Ebpf, EbpfLoader};
use selvedge_ebpf_common::Plain;
use selvedge_ebpf_common::map::PINNED;

use crate::object::{self, ENTRY, FIRST, HOOK_RX, JUMP, SHAPED, STAGES, TRACERS};
use crate::pins::{LinkName, Pins};
use crate::samples::First;
use crate::{Error, btf, sys};

#[derive(Debug)]
pub(crate) struct Programs {
    entry: OwnedFd,
    hook_rx: OwnedFd,
    shaped: OwnedFd,
    jump: OwnedFd,
    stages: Vec<(&'static str, OwnedFd)>,
    pub(crate) first: Arc<First>,
    tracers: Vec<Tracer>,
    /// Of [`Clock::Set`].
    pub(crate) clock: Option<OwnedFd>,
}

/// What hears a tracepoint.
#[derive(Debug)]
pub(crate) struct Tracer {
    /// Attached, if nothing is yet; it jumps to what is in the tail-call map at `place`.
    pub(crate) attached: OwnedFd,
    pub(crate) tracepoint: &'static str,
    pub(crate) name: &'static str,
    pub(crate) program: OwnedFd,
    pub(crate) place: u32,
}

const JUMP_PREFIX: &str = "jump-";

/// Whose clock the programs go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    Kernel,
    /// [`Switch::set_clock`](crate::Switch::set_clock) sets it.
    Set,
}

/// Loads all programs; maps that are not pinned yet are made and pinned.
pub(crate) fn load(pins: &Pins, clock: Clock) -> Result<Programs, Error> {
    let mut ebpf = object(pins, &[], clock)?;
    let clock = (clock == Clock::Set).then(|| array(&ebpf, CLOCK)).transpose()?;
    let entry = program(&mut ebpf, ENTRY)?;
    let hook_rx = program(&mut ebpf, HOOK_RX)?;
    let shaped = program(&mut ebpf, SHAPED)?;
    let jump = tail_calls(&ebpf)?;
    let mut stages = Vec::new();
    for (name, index) in STAGES {
        let stage = program(&mut ebpf, name)?;
        put_stage(jump.as_fd(), JUMP, index, stage.as_fd())?;
        stages.push((name, stage));
    }
    let first = First { places: first(&mut ebpf, &mut stages)?, jump: duplicate(&jump, JUMP)? };
    first.put(false)?;
    let tracers: Result<_, Error> = TRACERS
        .iter()
        .map(|&(attached, tracepoint, name, place)| {
            let attached = program(&mut ebpf, attached)?;
            let program = program(&mut ebpf, name)?;
            Ok(Tracer { attached, tracepoint, name, program, place })
        })
        .collect();
    let first = Arc::new(first);
    Ok(Programs { entry, hook_rx, shaped, jump, stages, first, tracers: tracers?, clock })
}

/// [`FIRST`], with samplers loaded beside the other stages.
fn first(
    ebpf: &mut Ebpf,
    stages: &mut Vec<(&'static str, OwnedFd)>,
) -> Result<Vec<(u32, OwnedFd, OwnedFd)>, Error> {
    let mut places = Vec::new();
    for (place, name, sampler) in FIRST {
        let (_, stage) = stages.iter().find(|(of, _)| *of == name).expect("it is a stage");
        let stage = duplicate(stage, name)?;
        let program = program(ebpf, sampler)?;
        places.push((place, stage, duplicate(&program, sampler)?));
        stages.push((sampler, program));
    }
    Ok(places)
}

fn duplicate(fd: &OwnedFd, name: &'static str) -> Result<OwnedFd, Error> {
    fd.try_clone().map_err(Error::map("open", name))
}

/// The object with its pinned maps: those of `pins`, made if they are not there. `sized`: maps of
/// this load that have another number of entries.
pub(crate) fn object(
    pins: &Pins,
    sized: &[(&'static str, u32)],
    clock: Clock,
) -> Result<Ebpf, Error> {
    let mut loader = EbpfLoader::new();
    let is_set = u32::from(clock == Clock::Set);
    loader.override_global("CLOCK_IS_SET", &is_set, true);
    let ifindex = btf::offset("net_device", "ifindex").map_err(Error::KernelTypes)?;
    loader.override_global("IFINDEX_OFFSET", &ifindex, true);
    for (name, entries) in sized {
        loader.map_max_entries(name, *entries);
    }
    for spec in PINNED {
        loader.map_pin_path(spec.name, pins.map(spec.name));
    }
    loader.load(object::bytes()).map_err(|source| Error::Object(Box::new(source)))
}

pub(crate) const CLOCK: &str = "CLOCK";

/// An array of this load. The object keeps its own descriptor, which programs still to be loaded
/// name.
pub(crate) fn array(ebpf: &Ebpf, name: &'static str) -> Result<OwnedFd, Error> {
    let map = ebpf.map(name).expect("the object has this map");
    let aya::maps::Map::Array(array) = map else { unreachable!("it is an array") };
    array.fd().as_fd().try_clone_to_owned().map_err(Error::map("open", name))
}

/// Writes an element of such an array.
pub(crate) fn put_element<V: Plain>(
    map: &OwnedFd,
    name: &'static str,
    index: u32,
    value: &V,
) -> Result<(), Error> {
    // SAFETY: an array, whose keys are u32, of these values.
    let put = unsafe {
        sys::update(
            map.as_fd(),
            std::ptr::from_ref(&index).cast(),
            std::ptr::from_ref(value).cast(),
        )
    };
    put.map_err(Error::map("write", name))
}

/// The tail-call map of this load. The object keeps its own descriptor, which programs still to
/// be loaded name.
pub(crate) fn tail_calls(ebpf: &Ebpf) -> Result<OwnedFd, Error> {
    let map = ebpf.map(JUMP).expect("the object has a tail-call map");
    let aya::maps::Map::ProgramArray(jump) = map else {
        unreachable!("the tail-call map is a program array");
    };
    jump.fd().as_fd().try_clone_to_owned().map_err(Error::map("open", JUMP))
}

pub(crate) fn put_stage(
    jump: BorrowedFd<'_>,
    name: &'static str,
    index: u32,
    stage: BorrowedFd<'_>,
) -> Result<(), Error> {
    let fd = stage.as_raw_fd().cast_unsigned();
    // SAFETY: a program array's keys and values are u32.
    let result = unsafe {
        sys::update(jump, std::ptr::from_ref(&index).cast(), std::ptr::from_ref(&fd).cast())
    };
    result.map_err(Error::map("write", name))
}

pub(crate) fn program(ebpf: &mut Ebpf, name: &'static str) -> Result<OwnedFd, Error> {
    let program = ebpf.program_mut(name).expect("the object has this program");
    let load = |program: &mut Program| {
        match program {
            Program::Xdp(program) => program.load()?,
            Program::RawTracePoint(program) => program.load()?,
            Program::SchedClassifier(program) => program.load()?,
            _ => unreachable!("our programs are of these kinds"),
        }
        Ok(program.fd()?.as_fd().try_clone_to_owned())
    };
    load(program)
        .map_err(|source: ProgramError| Error::Program { program: name, source: Box::new(source) })?
        .map_err(Error::map("open", name))
}

impl Programs {
    pub(crate) fn entry(&self) -> BorrowedFd<'_> {
        self.entry.as_fd()
    }

    /// What a link carries; `None`: what it has carried from the start.
    pub(crate) fn for_link(&self, name: LinkName) -> Option<BorrowedFd<'_>> {
        match name {
            LinkName::Port(_) => Some(self.entry.as_fd()),
            LinkName::Socket(_) => Some(self.hook_rx.as_fd()),
            LinkName::Shaped(_) => Some(self.shaped.as_fd()),
            LinkName::Tracer(_) => None,
        }
    }

    pub(crate) fn tracers(&self) -> impl Iterator<Item = (LinkName, &Tracer)> {
        (0u16..).map(LinkName::Tracer).zip(&self.tracers)
    }

    /// Pins the tail-call map beside those of earlier loads.
    pub(crate) fn pin_jump(&self, pins: &Pins) -> Result<(), Error> {
        let free = (0u32..)
            .map(|n| pins.program(&format!("{JUMP_PREFIX}{n}")))
            .find(|path| !path.exists())
            .expect("fewer than four thousand million agents");
        sys::pin(self.jump.as_fd(), &free).map_err(Error::path("pin a map at", free))
    }

    /// Pins the programs, for people to find.
    pub(crate) fn pin_programs(&self, pins: &Pins) -> Result<(), Error> {
        let named = [(ENTRY, &self.entry), (HOOK_RX, &self.hook_rx), (SHAPED, &self.shaped)];
        let stages = self.stages.iter().map(|(name, fd)| (*name, fd));
        let tracers = self.tracers.iter().map(|tracer| (tracer.name, &tracer.program));
        for (name, fd) in named.into_iter().chain(stages).chain(tracers) {
            let path = pins.program(name);
            sys::pin(fd.as_fd(), &path).map_err(Error::path("pin a program at", path))?;
        }
        Ok(())
    }
}
