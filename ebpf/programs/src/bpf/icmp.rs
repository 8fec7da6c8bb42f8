//! Tells the sender of a packet that it was too big (RFC 792 and 1191, RFC 4443 §3.2), or that its
//! hop limit is used up (RFC 4443 §3.3). Not of what RFC 1122 §3.2.2 and RFC 4443 §2.4 exempt: ICMP
//! errors, fragments, addresses of many; nor of packets with options or extension headers, and
//! [`ICMP_ERRORS_PER_SECOND`] for each port.
//!
//! An endpoint at this port gets it from the gateway. Whoever is elsewhere, or behind a tunnel,
//! gets it as if the one that could not be reached had sent it, in the same slice the other way:
//! step B routes it.

use aya_ebpf::programs::XdpContext;
use selvedge_ebpf_common::value::PORT_ACCESS;
use selvedge_ebpf_common::{
    GATEWAY_IPV4, GATEWAY_MAC, ICMP_ERRORS_PER_SECOND, OUTER_LEN, STAGE_ACCESS_ON, STAGE_ICMP,
    drop, mac_word,
};
use selvedge_ebpf_parse::ip::{
    self, ICMP, ICMPV6, IPIP, IPV4_LEN, IPV6_LEN, routable_v4, routable_v6,
};
use selvedge_ebpf_parse::rewrite::fold;
use selvedge_ebpf_parse::{ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6};

use super::answer::{GATEWAY_HIGH, GATEWAY_LOW, words};
use super::maps::ICMP_RATE;
use super::state::State;
use super::{Step, events, jump, lookup, packet, tunnel};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    TimeExceeded = 1,
    TooBig = 2,
}

const LEN: usize = 8;
/// What is quoted of the packet: its header and the eight bytes that RFC 792 asks for.
const QUOTE_V4: usize = IPV4_LEN + 8;
const QUOTE_V6: usize = IPV6_LEN + 8;
/// Echo reply and request are no errors.
const ECHO: [u8; 2] = [0, 8];
const DONT_FRAGMENT: u16 = 0x4000;
/// Types from here up inform (RFC 4443 §2.1).
const FIRST_INFORMATION: u8 = 128;

/// The packet goes no further; whether its sender is told so is seen in [`run`]. `mtu`: the longest
/// that would have gone.
#[inline(always)]
pub(super) fn tell(ctx: &XdpContext, state: State, notice: Notice, mtu: u32) -> Step {
    state.set_notice(notice as u8);
    state.set_label(mtu);
    jump(ctx, STAGE_ICMP)
}

/// What is told of, and to whom.
#[derive(Clone, Copy)]
struct Told {
    too_big: bool,
    mtu: u32,
    /// Its sender is not at this port.
    routed: bool,
    /// What the frame came from; see `mac_word`.
    to: u64,
}

impl Told {
    /// Of what is not told.
    const fn reason(self) -> u8 {
        if self.too_big { drop::TOO_BIG } else { drop::HOP_LIMIT }
    }
}

#[inline(always)]
pub(super) fn run(ctx: &XdpContext, state: State) -> Step {
    let in_outer = state.kind() != PORT_ACCESS || state.fresh() != 0;
    let ethernet = packet::ethernet(ctx).ok_or(drop::MALFORMED)?;
    let (to, ethertype) = (ethernet.raw64::<6>(), ethernet.be16::<12>());
    let v4 = if in_outer {
        let outer = packet::cursor(ctx).peek::<{ ETHERNET_LEN + OUTER_LEN }>();
        let v4 = outer.ok_or(drop::MALFORMED)?.u8::<20>() == IPIP;
        packet::move_head(ctx, OUTER_LEN as i32)?;
        v4
    } else {
        ethertype == ETHERTYPE_IPV4
    };
    let told = Told {
        too_big: state.notice() == Notice::TooBig as u8,
        mtu: state.label(),
        routed: in_outer || state.slice_set() != 0,
        to,
    };
    if in_outer {
        // A set of one slice has its number.
        state.set_slice_set(state.slice());
    }
    if v4 {
        ipv4(ctx, state, told)?
    } else {
        ipv6(ctx, state, told)?
    };
    if !told.routed {
        return state.answered();
    }
    // There is no outer header any more, whatever the frame came in as.
    state.set_kind(PORT_ACCESS);
    state.set_direction(state.direction() ^ 1);
    state.set_endpoint(0);
    state.set_tunnel(0);
    state.set_slice(0);
    state.set_fresh(0);
    state.set_transport(0);
    state.set_classified(0);
    jump(ctx, STAGE_ACCESS_ON)
}

/// Whether it is to be told of this packet, which has been looked at.
#[inline(always)]
fn admit(state: State, told: Told, source: [u64; 2], version: u8) -> Result<(), u8> {
    if !told.routed {
        let config = lookup::config().ok_or(drop::PORT_DISABLED)?;
        let bound = lookup::endpoint(config, state.port(), source, version);
        bound.ok_or(drop::SPOOFED_SOURCE)?;
    }
    // Of a slice that nobody numbered there is no way back.
    let nowhere = told.routed && state.slice_set() == 0;
    let rate = ICMP_RATE.get_ptr_mut(state.port());
    if nowhere || !events::within::<ICMP_ERRORS_PER_SECOND>(rate, state.now()) {
        return Err(told.reason());
    }
    Ok(())
}

#[inline(always)]
fn ipv4(ctx: &XdpContext, state: State, told: Told) -> Result<(), u8> {
    const TIME_EXCEEDED: u64 = 11 << 56;
    const FRAGMENTATION_NEEDED: u64 = 3 << 56 | 4 << 48;
    const GATEWAY: u32 = u32::from_ne_bytes(GATEWAY_IPV4);

    let mut cursor = packet::cursor(ctx);
    cursor.take::<ETHERNET_LEN>().ok_or(drop::MALFORMED)?;
    let available = packet::len(ctx) - ETHERNET_LEN;
    let inner = ip::ipv4(cursor, available).ok_or(drop::MALFORMED)?;
    let start = cursor.peek::<QUOTE_V4>().ok_or(told.reason())?;
    let (source, destination) = (start.raw32::<12>(), start.raw32::<16>());
    let exempt = start.u8::<0>() != 0x45
        || inner.len < QUOTE_V4 as u32
        || inner.is_fragment
        || inner.protocol == ICMP && !ECHO.contains(&start.u8::<IPV4_LEN>())
        || told.too_big && start.be16::<6>() & DONT_FRAGMENT == 0
        || !routable_v4(source)
        || !routable_v4(destination);
    if exempt {
        return Err(told.reason());
    }
    admit(state, told, inner.source, 4)?;
    let quoted = words(start.raw64::<0>())
        + words(start.raw64::<8>())
        + words(start.raw64::<16>())
        + words(start.raw32::<24>().into());

    packet::move_tail(ctx, (ETHERNET_LEN + QUOTE_V4) as i32 - packet::len(ctx) as i32)?;
    packet::move_head(ctx, -((IPV4_LEN + LEN) as i32))?;
    let frame =
        packet::cursor(ctx).peek::<{ ETHERNET_LEN + IPV4_LEN + LEN }>().ok_or(drop::MALFORMED)?;
    packet::write_ethernet(frame, told.to, mac_word(GATEWAY_MAC), ETHERTYPE_IPV4);
    let from = if told.routed { destination } else { GATEWAY };
    tunnel::write_ipv4(frame, ICMP, 0, (IPV4_LEN + LEN + QUOTE_V4) as u16, from, source);
    let kind = if told.too_big { FRAGMENTATION_NEEDED } else { TIME_EXCEEDED };
    let header = (kind | u64::from(told.mtu)).to_be();
    let sum = words(header) + quoted;
    frame.set_raw64::<{ ETHERNET_LEN + IPV4_LEN }>(header);
    frame.set_raw16::<{ ETHERNET_LEN + IPV4_LEN + 2 }>(!fold(sum));
    Ok(())
}

#[inline(always)]
fn ipv6(ctx: &XdpContext, state: State, told: Told) -> Result<(), u8> {
    const TIME_EXCEEDED: u64 = 3 << 56;
    const PACKET_TOO_BIG: u64 = 2 << 56;
    const MESSAGE: u32 = (LEN + QUOTE_V6) as u32;

    let mut cursor = packet::cursor(ctx);
    cursor.take::<ETHERNET_LEN>().ok_or(drop::MALFORMED)?;
    let available = packet::len(ctx) - ETHERNET_LEN;
    let inner = ip::ipv6(cursor, available).ok_or(drop::MALFORMED)?;
    let start = cursor.peek::<QUOTE_V6>().ok_or(told.reason())?;
    let exempt = inner.len < QUOTE_V6 as u32
        || ip::is_extension(inner.protocol)
        || inner.protocol == ICMPV6 && start.u8::<IPV6_LEN>() < FIRST_INFORMATION
        || !routable_v6(inner.source)
        || !routable_v6(inner.destination);
    if exempt {
        return Err(told.reason());
    }
    admit(state, told, inner.source, 6)?;
    let quoted = words(start.raw64::<0>())
        + words(start.raw64::<8>())
        + words(start.raw64::<16>())
        + words(start.raw64::<24>())
        + words(start.raw64::<32>())
        + words(start.raw64::<40>());

    packet::move_tail(ctx, (ETHERNET_LEN + QUOTE_V6) as i32 - packet::len(ctx) as i32)?;
    packet::move_head(ctx, -((IPV6_LEN + LEN) as i32))?;
    let frame =
        packet::cursor(ctx).peek::<{ ETHERNET_LEN + IPV6_LEN + LEN }>().ok_or(drop::MALFORMED)?;
    packet::write_ethernet(frame, told.to, mac_word(GATEWAY_MAC), ETHERTYPE_IPV6);
    let from = if told.routed { inner.destination } else { [GATEWAY_HIGH, GATEWAY_LOW] };
    tunnel::write_ipv6(frame, ICMPV6, 0, 0, MESSAGE, from, inner.source);
    let kind = if told.too_big { PACKET_TOO_BIG } else { TIME_EXCEEDED };
    let header = (kind | u64::from(told.mtu)).to_be();
    let ends = words(from[0]) + words(from[1]) + words(inner.source[0]) + words(inner.source[1]);
    // RFC 8200 §8.1: the pseudo-header comes first.
    let pseudo = ends + words((u64::from(MESSAGE) << 16 | u64::from(ICMPV6)).to_be());
    let sum = pseudo + words(header) + quoted;
    frame.set_raw64::<{ ETHERNET_LEN + IPV6_LEN }>(header);
    frame.set_raw16::<{ ETHERNET_LEN + IPV6_LEN + 2 }>(!fold(sum));
    Ok(())
}
