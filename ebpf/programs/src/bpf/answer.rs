//! B.1: the any-cast gateway answers ARP (RFC 826) and neighbor solicitations (RFC 4861) of
//! endpoints that belong to the port, for itself and for the addresses on N3. Router
//! solicitations, and DHCP from clients, the agent gets.

use aya_ebpf::programs::XdpContext;
use selvedge_ebpf_common::value::{PORT_ACCESS, PORT_FABRIC};
use selvedge_ebpf_common::{
    GATEWAY_IPV4, GATEWAY_IPV6, GATEWAY_MAC, HOST_REQUESTS_PER_SECOND, drop, mac_word,
};
use selvedge_ebpf_parse::ip::{ICMPV6, IPV4_LEN, IPV6_LEN, UDP, link_local_v6, mapped};
use selvedge_ebpf_parse::rewrite::fold;
use selvedge_ebpf_parse::{ETHERNET_LEN, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, udp};

use super::access::{ICMPV6_TYPE, NEIGHBOR_SOLICITATION, ROUTER_SOLICITATION};
use super::maps::HOST_RATE;
use super::state::State;
use super::{Step, access, events, lookup, packet, probe};

const GATEWAY: u32 = u32::from_ne_bytes(GATEWAY_IPV4);

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
        ETHERTYPE_IPV4 => dhcp(ctx, state),
        ETHERTYPE_IPV6 => ipv6(ctx, state),
        _ => Err(drop::UNSUPPORTED),
    }
}

/// From a client's port to a server's, raw (RFC 2131 §4.1, RFC 8415 §7.2).
const DHCP_PORTS: u32 = u32::from_ne_bytes([0, 68, 0, 67]);
const DHCPV6_PORTS: u32 = u32::from_ne_bytes([2, 34, 2, 35]);
/// RFC 8415 §7.1.
const ALL_DHCP_AGENTS: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2];
/// Fragment offset, and whether more are to come.
const FRAGMENT: u16 = 0x3fff;
const SOLICITATION_LEAST: usize = 8;

/// Leaves the frame to the agent, who hears what is for the gateway's MAC address. No interface
/// has that one, and so the kernel's own IP lets it be.
#[inline(always)]
fn to_agent(ctx: &XdpContext, state: State) -> Step {
    let rate = HOST_RATE.get_ptr_mut(state.port());
    if !events::within::<HOST_REQUESTS_PER_SECOND>(rate, state.now()) {
        return Err(drop::TOO_MANY_REQUESTS);
    }
    let frame = packet::ethernet(ctx).ok_or(drop::MALFORMED)?;
    let gateway = mac_word(GATEWAY_MAC);
    frame.set_raw32::<0>(gateway as u32);
    frame.set_raw16::<4>((gateway >> 32) as u16);
    Ok(state.passed(ctx))
}

/// Of IPv4: from an endpoint to the link, or from who has no address.
#[inline(always)]
fn dhcp(ctx: &XdpContext, state: State) -> Step {
    let header = packet::cursor(ctx).peek::<{ ETHERNET_LEN + IPV4_LEN }>();
    let header = header.ok_or(drop::MALFORMED)?;
    let foreign = if header.raw32::<26>() == 0 { drop::SPOOFED_SOURCE } else { drop::UNSUPPORTED };
    let destination = header.raw32::<30>();
    if header.u8::<14>() != 0x45
        || header.be16::<20>() & FRAGMENT != 0
        || header.u8::<23>() != UDP
        || destination != u32::MAX && destination != GATEWAY
    {
        return Err(foreign);
    }
    let total_len = header.be16::<16>() as usize;
    let datagram = packet::cursor(ctx).peek::<{ ETHERNET_LEN + IPV4_LEN + udp::LEN }>();
    let datagram = datagram.ok_or(foreign)?;
    if total_len < IPV4_LEN + udp::LEN || datagram.raw32::<34>() != DHCP_PORTS {
        return Err(foreign);
    }
    to_agent(ctx, state)
}

/// Of IPv6: a solicitation, or to many, or to the link.
#[inline(always)]
fn ipv6(ctx: &XdpContext, state: State) -> Step {
    let header = packet::cursor(ctx).peek::<{ ETHERNET_LEN + IPV6_LEN }>();
    let header = header.ok_or(drop::MALFORMED)?;
    let payload_len = header.be16::<18>() as usize;
    let source = [header.raw64::<22>(), header.raw64::<30>()];
    let destination = [header.raw64::<38>(), header.raw64::<46>()];
    let hop_limit = header.u8::<21>();
    match header.u8::<20>() {
        ICMPV6 if payload_len != 0 => {
            let message = packet::cursor(ctx).peek::<{ ETHERNET_LEN + ICMPV6_TYPE }>();
            match message.ok_or(drop::MALFORMED)?.u8::<{ ETHERNET_LEN + IPV6_LEN }>() {
                NEIGHBOR_SOLICITATION => return solicitation(ctx, state),
                ROUTER_SOLICITATION => {}
                _ => return Err(drop::UNSUPPORTED),
            }
            if payload_len < SOLICITATION_LEAST {
                return Err(drop::MALFORMED);
            }
            if hop_limit != 255 {
                return Err(drop::UNSUPPORTED);
            }
            let nobody = source == [0, 0] || link_local_v6(source);
            if !nobody && !access::bound(ctx, state, source, 6) {
                return Err(drop::SPOOFED_SOURCE);
            }
        }
        UDP if payload_len >= udp::LEN => {
            let all = [half(ALL_DHCP_AGENTS, 0), half(ALL_DHCP_AGENTS, 8)];
            let datagram = packet::cursor(ctx).peek::<{ ETHERNET_LEN + IPV6_LEN + udp::LEN }>();
            let ports = datagram.ok_or(drop::MALFORMED)?.raw32::<{ ETHERNET_LEN + IPV6_LEN }>();
            if ports != DHCPV6_PORTS || destination != all || !link_local_v6(source) {
                return Err(drop::UNSUPPORTED);
            }
        }
        _ => return Err(drop::UNSUPPORTED),
    }
    to_agent(ctx, state)
}

#[inline(always)]
fn is_n3(address: [u64; 2]) -> bool {
    lookup::config().is_some_and(|config| lookup::is_n3(config, address))
}

#[inline(always)]
fn arp(ctx: &XdpContext, state: State) -> Step {
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
