//! STAMP between neighbors (RFC 8762): test packets are sent back, and answers to ours noted.
//!
//! Both in the program, so that what is measured is the link, its queues and the kernel's way
//! to the program, and not how busy the agents are.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::programs::XdpContext;
use selvedge_ebpf_common::value::{PROBES_KEPT, PortValue, probe_answer};
use selvedge_ebpf_common::{PROBE_PORT, PROBE_REFLECTOR, PROBE_SENDER, PROBE_SENDER_PORT, drop};
use selvedge_ebpf_parse::ETHERTYPE_IPV6;
use selvedge_ebpf_parse::stamp::{self, End, FRAME_LEN, Kind};

use super::maps::{PORT, PROBE};
use super::state::State;
use super::{Step, packet};

const SENDER: End = End::new(PROBE_SENDER, PROBE_SENDER_PORT);
const REFLECTOR: End = End::new(PROBE_REFLECTOR, PROBE_PORT);

/// A frame on a fabric port that is in no outer header of ours.
#[inline(always)]
pub(super) fn run(ctx: &XdpContext, state: State) -> Step {
    if packet::len(ctx) != FRAME_LEN {
        return Err(drop::UNSUPPORTED);
    }
    let frame = packet::cursor(ctx).peek::<FRAME_LEN>().ok_or(drop::UNSUPPORTED)?;
    let kind = stamp::kind(frame, SENDER, REFLECTOR).ok_or(drop::UNSUPPORTED)?;
    if !stamp::intact(frame) {
        return Err(drop::MALFORMED);
    }
    // Not `State::now`, whose picoseconds wrap.
    // SAFETY: takes nothing.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    match kind {
        Kind::Test => {
            let mac = PORT.get(state.port()).map_or(0, |value: &PortValue| value.mac);
            packet::write_ethernet(frame, frame.raw64::<6>(), mac, ETHERTYPE_IPV6);
            stamp::reflect(frame, now_ns);
            state.answered()
        }
        Kind::Answer => {
            let sequence = stamp::sequence(frame);
            let slot = sequence as usize & (PROBES_KEPT - 1);
            if let Some(probe) = PROBE.get_ptr_mut(state.port()) {
                let answer = probe_answer(sequence, stamp::two_way_ns(frame, now_ns));
                // SAFETY: a word of a map value, at an index below its length.
                unsafe { (&raw mut (*probe).answers[slot]).write_volatile(answer) };
            }
            // The interface's own, for whoever captures there: the kernel has no such address.
            Ok(state.passed(ctx))
        }
    }
}
