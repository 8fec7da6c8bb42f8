//! B.1: the any-cast gateway answers ARP (RFC 826) and neighbor solicitations (RFC 4861) of
//! endpoints that belong to the port, for itself and for the addresses on N3.

use aya_ebpf::programs::XdpContext;
use selvedge_ebpf_common::value::{PORT_ACCESS, PORT_FABRIC};
use selvedge_ebpf_common::{GATEWAY_IPV4, GATEWAY_IPV6, GATEWAY_MAC, drop, mac_word};
use selvedge_ebpf_parse::ip::{ICMPV6, IPV6_LEN, link_local_v6, mapped};
use selvedge_ebpf_parse::rewrite::fold;
use selvedge_ebpf_parse::{ETHERNET_LEN, ETHERTYPE_ARP, ETHERTYPE_IPV6};

use super::state::State;
use super::{Step, access, lookup, packet, probe};

/// Ethernet, IPv4, address lengths 6 and 4, as the raw words of the header.
const ARP_FIXED: (u32, u16) = (u32::from_ne_bytes([0, 1, 8, 0]), u16::from_ne_bytes([6, 4]));
const ARP_LEN: usize = 28;
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// Neighbor solicitation up to its target; the gateway's advertisement with its address.
const SOLICITATION_LEN: usize = 24;
const ADVERTISEMENT_LEN: usize = 32;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;

#[inline(always)]
pub(super) fn run(ctx: &XdpContext, state: State) -> Step {
    match state.kind() {
        PORT_ACCESS => {}
        PORT_FABRIC => return probe::run(ctx, state),
        _ => return Err(drop::UNSUPPORTED),
    }
    let ethernet = packet::ethernet(ctx).ok_or(drop::MALFORMED)?;
    match ethernet.be16::<12>() {
        ETHERTYPE_ARP => arp(ctx, state),
        ETHERTYPE_IPV6 => solicitation(ctx, state),
        _ => Err(drop::UNSUPPORTED),
    }
}

#[inline(always)]
fn is_n3(address: [u64; 2]) -> bool {
    lookup::config().is_some_and(|config| lookup::is_n3(config, address))
}

#[inline(always)]
fn arp(ctx: &XdpContext, state: State) -> Step {
    const GATEWAY: u32 = u32::from_ne_bytes(GATEWAY_IPV4);

    let frame = packet::cursor(ctx).peek::<{ ETHERNET_LEN + ARP_LEN }>().ok_or(drop::MALFORMED)?;
    if (frame.raw32::<14>(), frame.raw16::<18>()) != ARP_FIXED {
        return Err(drop::UNSUPPORTED);
    }
    let bound = access::bound_v4(ctx, state, frame.raw32::<28>());
    let target = frame.raw32::<38>();
    if frame.be16::<20>() != REQUEST || target != GATEWAY && !is_n3(mapped(target)) {
        return Err(drop::UNSUPPORTED);
    }
    if !bound {
        return Err(drop::SPOOFED_SOURCE);
    }
    let gateway = mac_word(GATEWAY_MAC);
    // Sender: hardware address (6), protocol address (4). It becomes the target.
    let sender = (frame.raw64::<22>(), frame.raw16::<30>());
    packet::write_ethernet(frame, frame.raw64::<6>(), gateway, ETHERTYPE_ARP);
    frame.set_raw16::<20>(REPLY.to_be());
    frame.set_raw32::<22>(gateway as u32);
    frame.set_raw16::<26>((gateway >> 32) as u16);
    frame.set_raw32::<28>(target);
    frame.set_raw64::<32>(sender.0);
    frame.set_raw16::<40>(sender.1);
    state.answered()
}

/// The raw 16-bit words of the advertisement's checksum that do not depend on who asked for
/// what: pseudo-header (RFC 8200 §8.1) without its addresses, and the message without its target.
const CONSTANT_SUM: u32 = {
    let mut message = [0u8; ADVERTISEMENT_LEN];
    message[0] = NEIGHBOR_ADVERTISEMENT;
    message[4] = FLAGS;
    message[24] = 2;
    message[25] = 1;
    let mut sum = (ADVERTISEMENT_LEN as u16).to_be() as u32 + (ICMPV6 as u16).to_be() as u32;
    let mut n = 0;
    while n < 6 {
        message[26 + n] = GATEWAY_MAC[n];
        n += 1;
    }
    n = 0;
    while n < ADVERTISEMENT_LEN {
        sum += u16::from_le_bytes([message[n], message[n + 1]]) as u32;
        n += 2;
    }
    sum
};

/// Solicited, override.
const FLAGS: u8 = 0x60;

const fn half(address: [u8; 16], at: usize) -> u64 {
    let mut bytes = [0; 8];
    let mut n = 0;
    while n < 8 {
        bytes[n] = address[at + n];
        n += 1;
    }
    u64::from_le_bytes(bytes)
}

pub(super) const GATEWAY_HIGH: u64 = half(GATEWAY_IPV6, 0);
pub(super) const GATEWAY_LOW: u64 = half(GATEWAY_IPV6, 8);

#[inline(always)]
pub(super) fn words(word: u64) -> u32 {
    (word & 0xffff) as u32
        + (word >> 16 & 0xffff) as u32
        + (word >> 32 & 0xffff) as u32
        + (word >> 48) as u32
}

#[inline(always)]
fn solicitation(ctx: &XdpContext, state: State) -> Step {
    let mut cursor = packet::cursor(ctx);
    let ethernet = cursor.take::<ETHERNET_LEN>().ok_or(drop::MALFORMED)?;
    let available = packet::len(ctx) - ETHERNET_LEN;
    let message = cursor.peek::<{ IPV6_LEN + SOLICITATION_LEN }>().ok_or(drop::MALFORMED)?;
    let payload_len = message.be16::<4>() as usize;
    if payload_len < SOLICITATION_LEN || IPV6_LEN + payload_len > available {
        return Err(drop::MALFORMED);
    }
    let hop_limit = message.u8::<7>();
    let source = [message.raw64::<8>(), message.raw64::<16>()];
    let target = [message.raw64::<48>(), message.raw64::<56>()];
    let to_mac = ethernet.raw64::<6>();

    // In duplicate address detection the target is what shows who is there.
    let unspecified = source == [0, 0];
    let shown = if unspecified { target } else { source };
    let bound = access::bound(ctx, state, shown, 6);
    let own = target == [GATEWAY_HIGH, GATEWAY_LOW] || is_n3(target);
    if !own || hop_limit != 255 {
        return Err(drop::UNSUPPORTED);
    }
    if !link_local_v6(source) && (unspecified || !bound) {
        return Err(drop::SPOOFED_SOURCE);
    }

    const LEN: usize = ETHERNET_LEN + IPV6_LEN + ADVERTISEMENT_LEN;
    packet::move_tail(ctx, LEN as i32 - packet::len(ctx) as i32)?;
    let frame = packet::cursor(ctx).peek::<LEN>().ok_or(drop::MALFORMED)?;
    let gateway = mac_word(GATEWAY_MAC);
    packet::write_ethernet(frame, to_mac, gateway, ETHERTYPE_IPV6);
    frame.set_raw32::<14>((6u32 << 28).to_be());
    let word = (ADVERTISEMENT_LEN as u32) << 16 | u32::from(ICMPV6) << 8 | 255;
    frame.set_raw32::<18>(word.to_be());
    frame.set_raw64::<22>(target[0]);
    frame.set_raw64::<30>(target[1]);
    frame.set_raw64::<38>(source[0]);
    frame.set_raw64::<46>(source[1]);
    let ends = words(source[0]) + words(source[1]) + 2 * (words(target[0]) + words(target[1]));
    let checksum = !fold(CONSTANT_SUM + ends);
    frame.set_raw16::<54>(u16::from(NEIGHBOR_ADVERTISEMENT));
    frame.set_raw16::<56>(checksum);
    frame.set_raw32::<58>(u32::from(FLAGS));
    frame.set_raw64::<62>(target[0]);
    frame.set_raw64::<70>(target[1]);
    frame.set_raw64::<78>(gateway << 16 | 0x0102);
    state.answered()
}
