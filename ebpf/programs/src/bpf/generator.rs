//! The source of benches: gives a live frame the next of a ring of heads (the kernel recycles
//! frames as the last run left them) and goes on in the program under test.

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::Array;
use aya_ebpf::programs::XdpContext;
use selvedge_ebpf_common::value::{HeadNext, HeadValue, PatchValue};
use selvedge_ebpf_common::{GENERATOR_HEAD_LEN, GENERATOR_SHORT_HEAD_LEN, STAGE_UNDER_TEST};

use super::{jump, packet};

/// Not pinned: each load has its own, and a bench as many as it asks for, a power of two.
#[map]
static HEAD: Array<HeadValue> = Array::with_max_entries(1, 0);
/// The same. Many heads would fill the cache that tables and programs share, as frames that a NIC
/// puts there do not.
#[map]
static PATCH: Array<PatchValue> = Array::with_max_entries(1, 0);
/// One: the number of the next head, and what of it counts. For one CPU.
#[map]
static HEAD_NEXT: Array<HeadNext> = Array::with_max_entries(1, 0);

#[xdp]
pub(crate) fn generator(ctx: XdpContext) -> u32 {
    let Some(next) = HEAD_NEXT.get_ptr_mut(0) else { return xdp_action::XDP_ABORTED };
    // SAFETY: a map value; nobody else writes it while a bench runs.
    let next = unsafe {
        (*next).number += 1;
        *next
    };
    let Some(head) = HEAD.get(next.number & next.heads) else { return xdp_action::XDP_ABORTED };
    let cursor = packet::cursor(&ctx);
    let Some(frame) = cursor.peek::<GENERATOR_SHORT_HEAD_LEN>() else {
        return xdp_action::XDP_ABORTED;
    };
    let words = &head.words;
    frame.set_raw64::<0>(words[0]);
    frame.set_raw64::<8>(words[1]);
    frame.set_raw64::<16>(words[2]);
    frame.set_raw64::<24>(words[3]);
    frame.set_raw64::<32>(words[4]);
    frame.set_raw64::<40>(words[5]);
    frame.set_raw64::<48>(words[6]);
    frame.set_raw64::<56>(words[7]);
    if let Some(frame) = cursor.peek::<GENERATOR_HEAD_LEN>() {
        frame.set_raw64::<64>(words[8]);
        frame.set_raw64::<72>(words[9]);
        if next.patches != 0
            && let Some(patch) = PATCH.get(next.number & next.patches)
        {
            for (at, word) in next.at.into_iter().zip(patch.0) {
                let mut cursor = cursor;
                // Bounded, for the verifier.
                cursor.skip_computed((at & 127) as usize);
                if let Some(window) = cursor.peek::<8>() {
                    window.set_raw64::<0>(word);
                }
            }
        }
    }
    match jump(&ctx, STAGE_UNDER_TEST) {
        Ok(action) => action,
        Err(_) => xdp_action::XDP_ABORTED,
    }
}
