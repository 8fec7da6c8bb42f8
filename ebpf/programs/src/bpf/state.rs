//! What a packet carries from stage to stage, and how it ends. Lies in `SCRATCH`, which is
//! this CPU's own: XDP programs of one CPU do not interrupt each other.

use core::mem::offset_of;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::programs::XdpContext;
use selvedge_ebpf_common::value::{
    END_ANSWERED, END_DROPPED, END_FORWARDED, END_PASSED, SAMPLE_CHOSEN, Scratch,
};
use selvedge_ebpf_common::{STAGE_SAMPLED, drop, slice_slot};

use super::maps::{DEVICE, DROPS, JUMP, SCRATCH, SLICE_COUNTERS};
use super::{Step, clock, egress, packet};

#[derive(Clone, Copy)]
pub(super) struct State(*mut Scratch);

macro_rules! field {
    ($get:ident, $set:ident, $field:ident: $type:ty) => {
        #[inline(always)]
        pub(super) fn $get(self) -> $type {
            // SAFETY: this CPU's scratch, for as long as the program runs.
            unsafe { (*self.0).$field }
        }

        #[inline(always)]
        pub(super) fn $set(self, value: $type) {
            // Volatile: of several the compiler would make a call of memset, byte by byte.
            // SAFETY: this CPU's scratch, for as long as the program runs.
            unsafe { (&raw mut (*self.0).$field).write_volatile(value) }
        }
    };
}

impl State {
    /// For a packet that has just arrived on `port`.
    #[inline(always)]
    pub(super) fn start(port: u32) -> Option<Self> {
        let state = Self::resume()?;
        state.set_port(port);
        state.set_now_ps(0);
        state.set_transport(0);
        state.set_classified(0);
        state.set_slice(0);
        state.clear_marks();
        state.clear_later();
        Some(state)
    }

    /// In a later stage.
    #[inline(always)]
    pub(super) fn resume() -> Option<Self> {
        SCRATCH.get_ptr_mut(0).map(Self)
    }

    field!(port, set_port, port: u32);
    field!(now_ps, set_now_ps, now_ps: u64);
    field!(transport, set_transport, transport: u64);
    field!(classified, set_classified, classified: u64);
    field!(slice, set_slice, slice: u16);
    field!(direction, set_direction, direction: u8);
    field!(kind, set_kind, kind: u8);
    field!(fresh, set_fresh, fresh: u8);
    field!(len, set_len, len: u32);
    field!(in_profile, set_in_profile, in_profile: u8);
    field!(mark, set_mark, mark: u8);
    field!(tunnel, set_tunnel, tunnel: u64);
    field!(label, set_label, label: u32);
    field!(slice_set, set_slice_set, slice_set: u16);
    field!(endpoint, set_endpoint, endpoint: u16);
    field!(dscp, set_dscp, dscp: u8);
    field!(notice, set_notice, notice: u8);
    field!(shaped, set_shaped, shaped: u8);

    field!(sampled, set_sampled, sampled: u8);
    field!(action, set_action, action: u32);

    /// `fresh`, `in_profile`, `mark` and `sampled`, which are one word.
    #[inline(always)]
    fn clear_marks(self) {
        const {
            assert!(offset_of!(Scratch, fresh).is_multiple_of(4));
            assert!(offset_of!(Scratch, fresh) + 4 == offset_of!(Scratch, len));
        };
        // SAFETY: this CPU's scratch, for as long as the program runs; aligned, and of four bytes.
        unsafe { (&raw mut (*self.0).fresh).cast::<u32>().write_volatile(0) };
    }

    /// `slice_set`, `shaped` and `notice`, which are one word.
    #[inline(always)]
    fn clear_later(self) {
        const {
            assert!(offset_of!(Scratch, slice_set).is_multiple_of(4));
            assert!(offset_of!(Scratch, slice_set) + 4 == offset_of!(Scratch, endpoint));
        };
        // SAFETY: this CPU's scratch, for as long as the program runs; aligned, and of four bytes.
        unsafe { (&raw mut (*self.0).slice_set).cast::<u32>().write_volatile(0) };
    }

    /// All of it.
    #[inline(always)]
    pub(super) fn scratch(self) -> *mut Scratch {
        self.0
    }

    /// The same number, of which the verifier no longer knows where it came from: an index has it
    /// tell apart all that an index was worked out from, on every way from there on.
    #[inline(always)]
    pub(super) fn forgotten(self, number: u32) -> u32 {
        self.set_label(number);
        // SAFETY: this CPU's scratch, for as long as the program runs.
        unsafe { (&raw const (*self.0).label).read_volatile() }
    }

    /// Picoseconds, read once for each packet: the clock costs as much as a look-up or two.
    #[inline(always)]
    pub(super) fn now(self) -> u64 {
        match self.now_ps() {
            0 => {
                let now = clock::now();
                self.set_now_ps(now);
                now
            }
            now => now,
        }
    }

    /// From here on the packet's slice is known, and drops are counted to it.
    #[inline(always)]
    pub(super) fn in_slice(self, slice: u16, direction: u8, len: u32) {
        self.set_slice(slice);
        self.set_direction(direction);
        self.set_len(len);
        self.set_in_profile(0);
    }

    #[inline(always)]
    fn ends(self, end: u32, detail: u32) {
        // SAFETY: this CPU's scratch, for as long as the program runs.
        unsafe {
            (*self.0).end = end;
            (*self.0).detail = detail;
        }
    }

    #[inline(always)]
    pub(super) fn forwarded(self, port: u32) -> u32 {
        self.ends(END_FORWARDED, port);
        xdp_action::XDP_REDIRECT
    }

    /// To the kernel's stack, where only frames that the stage `shape` passed have metadata.
    #[inline(always)]
    pub(super) fn passed(self, ctx: &XdpContext) -> u32 {
        packet::drop_meta(ctx);
        self.ends(END_PASSED, 0);
        // SAFETY: this CPU's scratch, for as long as the program runs.
        unsafe { (*self.0).passed += 1 };
        xdp_action::XDP_PASS
    }

    /// Back out of the port it came in by. A redirect and not `XDP_TX`: veth wakes the far end
    /// after that only if it carries an XDP program, and an answer would lie in its ring until
    /// the next frame comes.
    #[inline(always)]
    pub(super) fn answered(self) -> Step {
        if DEVICE.redirect(self.port(), xdp_action::XDP_DROP.into()).is_err() {
            return Err(drop::PORT_DOWN);
        }
        if let Some(counters) = egress::counters(self.port()) {
            // SAFETY: this CPU's own counters.
            unsafe { (*counters).give(0) };
        }
        self.ends(END_ANSWERED, 0);
        // SAFETY: this CPU's scratch, for as long as the program runs.
        unsafe { (*self.0).answered += 1 };
        Ok(xdp_action::XDP_REDIRECT)
    }

    /// Counts a packet of the slice that leaves to its endpoint; `mark`: 0 or 1.
    #[inline(always)]
    pub(super) fn delivered(self, mark: u32) {
        let slice = self.slice();
        if slice != 0
            && let Some(counters) = SLICE_COUNTERS.get_ptr_mut(slice_slot(slice, self.direction()))
        {
            // SAFETY: this CPU's own counters.
            unsafe {
                (*counters).delivered_packets += 1;
                (*counters).delivered_bytes += u64::from(self.len());
                (*counters).left[(mark & 1) as usize] += u64::from(self.in_profile());
            }
        }
    }

    /// The program's return value. A packet that was chosen to be told of is told of.
    #[inline(always)]
    pub(super) fn end(self, ctx: &XdpContext, step: Step) -> u32 {
        let action = self.counted(step);
        if self.sampled() & SAMPLE_CHOSEN != 0 {
            self.set_action(action);
            // SAFETY: nothing is kept across the call. One that fails tells nothing.
            unsafe { JUMP.tail_call(ctx, STAGE_SAMPLED) };
        }
        action
    }

    /// The action of a step; counts a drop.
    #[inline(always)]
    fn counted(self, step: Step) -> u32 {
        let reason = match step {
            Ok(action) => return action,
            Err(reason) => reason,
        };
        self.ends(END_DROPPED, reason.into());
        if let Some(count) = DROPS.get_ptr_mut(reason.into()) {
            // SAFETY: this CPU's own counter.
            unsafe { *count += 1 };
        }
        let slice = self.slice();
        if slice != 0
            && let Some(counters) = SLICE_COUNTERS.get_ptr_mut(slice_slot(slice, self.direction()))
        {
            // SAFETY: this CPU's own counters.
            unsafe {
                (*counters).dropped_packets += 1;
                (*counters).dropped_bytes += u64::from(self.len());
                if self.in_profile() != 0 {
                    (*counters).lost += 1;
                    (*counters).lost_reason = u64::from(reason);
                }
            }
        }
        xdp_action::XDP_DROP
    }
}
