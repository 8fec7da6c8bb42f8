//! Packets that an operator asks for, told to the agent: how each came, and how it ended.
//!
//! While they are asked for, `sample_access` and `sample_sid` are in the tail-call map in front of
//! `access` and `sid`. A packet is chosen where it comes in, by the user's addresses and a digest
//! of what no switch changes of it, so all switches choose the same ones (RFC 5475 §6.2); its slice
//! is known at the end. What other switches and hosts say to this one (test packets, LLDP) is not
//! looked at, nor a frame on a port without an entry.

use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_xdp_load_bytes};
use aya_ebpf::programs::XdpContext;
use selvedge_ebpf_common::value::{SAMPLE_CHOSEN, SAMPLE_KEPT, Scratch};
use selvedge_ebpf_common::{
    OUTER_LEN, SAMPLE_ADDRESSES, SAMPLE_HEAD, SAMPLES_PER_SECOND, SID_BLOCK, SOURCE_MARK,
};
use selvedge_ebpf_parse::gtp::PORT;
use selvedge_ebpf_parse::ip::{IPIP, IPV4_LEN, IPV6, IPV6_LEN, UDP, mapped};
use selvedge_ebpf_parse::{Cursor, ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6};

use super::maps::{SAMPLE, SAMPLE_RATE, SAMPLES};
use super::state::State;
use super::{events, packet};

/// Bytes behind a user's IP header that are in the digest.
const BEHIND: usize = 16;

/// A user's packet, as far as it is chosen by it.
struct User {
    source: [u64; 2],
    destination: [u64; 2],
    digest: u64,
    /// It may hold another user's packet.
    is_tunnel: bool,
}

#[inline(always)]
const fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ product >> 32
}

/// `fixed`: what of its header does not change, besides its addresses.
#[inline(always)]
fn user(ends: [[u64; 2]; 2], fixed: u64, behind: [u64; 2], protocol: u8) -> User {
    let [source, destination] = ends;
    let mut digest = mix(0, fixed);
    digest = mix(digest, source[0]);
    digest = mix(digest, source[1]);
    digest = mix(digest, destination[0]);
    digest = mix(digest, destination[1]);
    digest = mix(digest, behind[0]);
    digest = mix(digest, behind[1]);
    let is_tunnel = protocol == UDP && (behind[0] >> 16) as u16 == PORT.to_be();
    User { source, destination, digest, is_tunnel }
}

#[inline(always)]
fn ipv4(cursor: Cursor) -> Option<User> {
    let header = cursor.peek::<IPV4_LEN>()?;
    // Behind the packet's end may be padding, which the next switch does not get.
    let len = usize::from(header.be16::<2>());
    let behind = match cursor.peek::<{ IPV4_LEN + BEHIND }>() {
        Some(packet) if len >= IPV4_LEN + BEHIND => [packet.raw64::<20>(), packet.raw64::<28>()],
        _ => match cursor.peek::<{ IPV4_LEN + 8 }>() {
            Some(packet) if len >= IPV4_LEN + 8 => [packet.raw64::<20>(), 1],
            _ => [1, 1],
        },
    };
    let protocol = header.u8::<9>();
    // Length and identification; flags and offset; protocol.
    let fixed = u64::from(header.raw32::<2>())
        | u64::from(header.raw16::<6>()) << 32
        | u64::from(protocol) << 48;
    let ends = [mapped(header.raw32::<12>()), mapped(header.raw32::<16>())];
    Some(user(ends, fixed, behind, protocol))
}

#[inline(always)]
fn ipv6(cursor: Cursor) -> Option<User> {
    let header = cursor.peek::<IPV6_LEN>()?;
    let len = usize::from(header.be16::<4>());
    let behind = match cursor.peek::<{ IPV6_LEN + BEHIND }>() {
        Some(packet) if len >= BEHIND => [packet.raw64::<40>(), packet.raw64::<48>()],
        _ => match cursor.peek::<{ IPV6_LEN + 8 }>() {
            Some(packet) if len >= 8 => [packet.raw64::<40>(), 1],
            _ => [1, 1],
        },
    };
    // Flow label; length and next header, without the hop limit.
    let label = header.raw32::<0>() & 0x000f_ffff_u32.to_be();
    let fixed = u64::from(label) << 32 | u64::from(header.raw32::<4>() & 0x00ff_ffff);
    let source = [header.raw64::<8>(), header.raw64::<16>()];
    let destination = [header.raw64::<24>(), header.raw64::<32>()];
    Some(user([source, destination], fixed, behind, header.u8::<6>()))
}

/// Any frame may be asked for here, but only one of IP by its addresses.
#[inline(always)]
pub(super) fn look_access(ctx: &XdpContext, state: State) {
    let mut cursor = packet::cursor(ctx);
    let Some(ethernet) = cursor.take::<ETHERNET_LEN>() else { return };
    let user = match ethernet.be16::<12>() {
        ETHERTYPE_IPV4 => ipv4(cursor),
        ETHERTYPE_IPV6 => ipv6(cursor),
        _ => None,
    };
    choose(ctx, state, user);
}

/// What is in an outer header.
#[inline(always)]
pub(super) fn look_sid(ctx: &XdpContext, state: State) {
    let mut cursor = packet::cursor(ctx);
    let Some(outer) = cursor.take::<{ ETHERNET_LEN + OUTER_LEN }>() else { return };
    if outer.be16::<12>() != ETHERTYPE_IPV6
        || outer.raw32::<22>() != SID_BLOCK.to_be()
        || outer.be16::<28>() != SOURCE_MARK
    {
        return;
    }
    match outer.u8::<20>() {
        IPIP => choose(ctx, state, ipv4(cursor)),
        IPV6 => choose(ctx, state, ipv6(cursor)),
        _ => {}
    }
}

/// Whether an address is one of those asked for.
#[inline(always)]
fn is_one(of: &[[u64; 2]; SAMPLE_ADDRESSES], address: [u64; 2]) -> bool {
    let is = |one: [u64; 2]| (one[0] ^ address[0]) | (one[1] ^ address[1]) == 0;
    is_any(of) || is(of[0]) || is(of[1]) || is(of[2]) || is(of[3])
}

/// No packet has the unspecified address as its destination.
#[inline(always)]
fn is_any(of: &[[u64; 2]; SAMPLE_ADDRESSES]) -> bool {
    of[0][0] | of[0][1] == 0
}

#[inline(always)]
fn choose(ctx: &XdpContext, state: State, user: Option<User>) {
    let Some(wanted) = SAMPLE.get(0) else { return };
    // Not `State::now`, whose picoseconds wrap.
    // SAFETY: takes nothing.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    if now_ns >= wanted.until_ns
        || !events::are_left::<SAMPLES_PER_SECOND>(SAMPLE_RATE.get_ptr_mut(0), state.now())
    {
        return;
    }
    let (digest, matches, is_tunnel) = match user {
        Some(user) => (
            user.digest,
            is_one(&wanted.source, user.source) && is_one(&wanted.destination, user.destination),
            user.is_tunnel,
        ),
        // Nothing that another switch would know it by.
        None => (mix(0, now_ns), is_any(&wanted.source) && is_any(&wanted.destination), false),
    };
    let is_chosen = matches && digest as u32 <= wanted.most;
    let is_kept = state.sampled() & SAMPLE_KEPT != 0;
    // A tunnel's packet is looked at once more when it is out of it, and is that one.
    if !is_kept && (!(is_chosen || is_tunnel) || !keep(ctx, state, now_ns)) {
        return;
    }
    let scratch = state.scratch();
    // SAFETY: this CPU's scratch, for as long as the program runs.
    unsafe {
        (*scratch).digest = digest;
        (*scratch).sample_id = wanted.id;
    }
    state.set_sampled(if is_chosen { SAMPLE_KEPT | SAMPLE_CHOSEN } else { SAMPLE_KEPT });
}

/// Notes the frame as it came.
#[inline(always)]
fn keep(ctx: &XdpContext, state: State, now_ns: u64) -> bool {
    let scratch = state.scratch();
    let frame_len = packet::len(ctx) as u32;
    let last = SAMPLE_HEAD as u32 - 1;
    // Masked, so that the verifier sees that it is 1 to all: no frame is empty.
    let head_len = ((if frame_len > last { last } else { frame_len.wrapping_sub(1) }) & last) + 1;
    // SAFETY: this CPU's scratch, for as long as the program runs.
    unsafe {
        (*scratch).at_ns = now_ns;
        (*scratch).frame_len = frame_len;
        (*scratch).head_len = head_len;
        let head = (&raw mut (*scratch).head).cast();
        bpf_xdp_load_bytes(ctx.ctx, 0, head, head_len) == 0
    }
}

/// At the end of a packet that was chosen.
#[inline(always)]
pub(super) fn tell(state: State) {
    let Some(wanted) = SAMPLE.get(0) else { return };
    if wanted.slice != 0 && wanted.slice != state.slice() {
        return;
    }
    if wanted.direction != 0 && (state.slice() == 0 || wanted.direction != state.direction() + 1) {
        return;
    }
    if events::within::<SAMPLES_PER_SECOND>(SAMPLE_RATE.get_ptr_mut(0), state.now()) {
        // SAFETY: this CPU's scratch, which nobody writes meanwhile.
        let record: &Scratch = unsafe { &*state.scratch() };
        // A full ring loses it.
        let _ = SAMPLES.output::<Scratch>(record, 0);
    }
}
