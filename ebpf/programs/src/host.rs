//! Running the programs on this thread, with its own maps, clock and events.
//!
//! Maps are written and read as bytes by name, in the layout of `selvedge_ebpf_common`: what
//! lies in a switch's pinned maps can be put here as it is.

use selvedge_ebpf_common::{
    STAGE_ACCESS, STAGE_ACCESS_ON, STAGE_ANSWER, STAGE_CLASSIFY, STAGE_EXTENSIONS, STAGE_GTP,
    STAGE_ICMP, STAGE_SAMPLED, STAGE_SHAPE, STAGE_SID, STAGE_SID_ON, STAGE_TUNNEL,
};

use crate::bpf::{self, NAMED};
use crate::shim::bindings::{xdp_action, xdp_md};
use crate::shim::maps::{self, Def};
use crate::shim::programs::XdpContext;
use crate::shim::{MACHINE, resume};

/// Room around a frame as `BPF_PROG_TEST_RUN` has it: in front of it, of which the kernel keeps
/// the first bytes for itself, and behind it on its page.
const HEADROOM: usize = 256;
const KERNEL_S: usize = 40;
const PAGE: usize = 4096;
const TAILROOM: usize = 320;
/// Longest frame that can be run.
pub const MAX_FRAME: usize = PAGE - HEADROOM - TAILROOM;
/// `MAX_TAIL_CALL_CNT` of the kernel.
const MAX_TAIL_CALLS: usize = 33;

/// How a program and the stages it jumped to ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// `XDP_*` of linux/bpf.h.
    pub action: u32,
    /// With `XDP_REDIRECT`: the index in the device or socket map.
    pub redirected: Option<u32>,
    pub frame: Vec<u8>,
    /// What is before the frame for the kernel.
    pub metadata: Vec<u8>,
    /// How many stages were jumped to.
    pub tail_calls: usize,
}

fn program(name: &str) -> fn(XdpContext) -> u32 {
    match name {
        "entry" => bpf::entry,
        "access" => bpf::access,
        "sid" => bpf::sid,
        "answer" => bpf::answer,
        "gtp" => bpf::gtp,
        "tunnel" => bpf::tunnel,
        "hook_rx" => bpf::hook_rx,
        "redirect" => bpf::redirect,
        "pass" => bpf::pass,
        "discard" => bpf::discard,
        _ => panic!("no program {name}"),
    }
}

fn stage(index: u32) -> Option<fn(XdpContext) -> u32> {
    match index {
        STAGE_ACCESS if MACHINE.with(|machine| machine.samples.get()) => Some(bpf::sample_access),
        STAGE_SID if MACHINE.with(|machine| machine.samples.get()) => Some(bpf::sample_sid),
        STAGE_ACCESS | STAGE_ACCESS_ON => Some(bpf::access),
        STAGE_SID | STAGE_SID_ON => Some(bpf::sid),
        STAGE_SAMPLED => Some(bpf::sampled),
        STAGE_ANSWER => Some(bpf::answer),
        STAGE_CLASSIFY => Some(bpf::classify),
        STAGE_EXTENSIONS => Some(bpf::extensions),
        STAGE_GTP => Some(bpf::gtp),
        STAGE_TUNNEL => Some(bpf::tunnel),
        STAGE_ICMP => Some(bpf::icmp),
        STAGE_SHAPE => Some(bpf::shape),
        _ => None,
    }
}

/// What the program called `name` does with `frame`, received on interface `ifindex`.
///
/// # Panics
/// There is no such program, or the frame is shorter than an Ethernet header or longer than
/// [`MAX_FRAME`].
pub fn run(name: &str, ifindex: u32, frame: &[u8]) -> Ran {
    run_behind(name, ifindex, 0, frame)
}

/// As [`run`], of a frame that came with so many bytes of metadata.
///
/// # Panics
/// As [`run`].
pub fn run_behind(name: &str, ifindex: u32, metadata: usize, frame: &[u8]) -> Ran {
    assert!((14..=MAX_FRAME).contains(&frame.len()), "{} bytes", frame.len());
    let mut page = [0u8; PAGE];
    page[HEADROOM..][..frame.len()].copy_from_slice(frame);
    let page_at = page.as_mut_ptr().expose_provenance();
    let mut context = xdp_md {
        data: page_at + HEADROOM,
        data_end: page_at + HEADROOM + frame.len(),
        data_meta: page_at + HEADROOM - metadata,
        ingress_ifindex: ifindex,
        start: page_at + KERNEL_S,
        end: page_at + PAGE - TAILROOM,
    };
    let context = &raw mut context;
    MACHINE.with(|machine| machine.redirected.set(None));
    resume();
    let mut action = program(name)(XdpContext::new(context));
    let mut tail_calls = 0;
    while let Some(index) = resume() {
        tail_calls += 1;
        assert!(tail_calls <= MAX_TAIL_CALLS, "the kernel refuses more tail calls");
        let stage = stage(index).unwrap_or_else(|| panic!("no stage {index}"));
        action = stage(XdpContext::new(context));
    }
    // SAFETY: the programs are done with it.
    let (meta, data, data_end) =
        unsafe { ((*context).data_meta, (*context).data, (*context).data_end) };
    let redirected = MACHINE.with(|machine| machine.redirected.get());
    Ran {
        action,
        redirected: redirected.filter(|_| action == xdp_action::XDP_REDIRECT),
        frame: page[data - page_at..data_end - page_at].to_vec(),
        metadata: page[meta - page_at..data - page_at].to_vec(),
        tail_calls,
    }
}

fn named(name: &str) -> &'static Def {
    let found = NAMED.iter().find(|(other, _)| *other == name);
    found.unwrap_or_else(|| panic!("no map {name}")).1
}

/// Empties this thread's maps.
pub fn clear() {
    maps::clear();
}

/// Puts an entry into the map called `name`; an array's key is its index.
///
/// # Panics
/// There is no such map, its keys or values have another size, or it is full.
pub fn put(name: &str, key: &[u8], value: &[u8]) {
    named(name).write(key, value).unwrap_or_else(|error| panic!("{name}: {error}"));
}

/// The value of `key` in the map called `name`.
///
/// # Panics
/// There is no such map, or its keys have another size.
pub fn get(name: &str, key: &[u8]) -> Option<Vec<u8>> {
    named(name).read(key)
}

/// What `bpf_ktime_get_ns` says from now on.
pub fn set_clock(now_ns: u64) {
    MACHINE.with(|machine| machine.now_ns.set(now_ns));
}

/// Whether samplers are in front of their stages from now on.
pub fn set_samples(samples: bool) {
    MACHINE.with(|machine| machine.samples.set(samples));
}

/// Takes the records of the ring called `name`.
///
/// # Panics
/// There is no such ring.
pub fn records(name: &str) -> Vec<Box<[u8]>> {
    named(name).drain()
}

#[cfg(test)]
mod tests;
