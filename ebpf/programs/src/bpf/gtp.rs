//! N3 at the end of its tunnels: what gNBs send to this switch (GTP-U, TS 29.281).
//!
//! A G-PDU of a PDU session is unpacked and goes on in step B as if its UE were an endpoint at
//! this port. Of the tunnels that are not known, and the extension headers that are not
//! understood, the gNB is told, up to [`GTP_ANSWERS_PER_SECOND`]; an echo request is answered.
//! Everything else is dropped and counted. Only who is bound to the port by `endpoint` gets
//! answers. A UDP checksum is not verified: the inner packet's own covers what is delivered, and
//! the addresses, the TEID and the inner source have to agree with the session.

use aya_ebpf::programs::XdpContext;
use selvedge_ebpf_common::rule::origin;
use selvedge_ebpf_common::value::SessionData;
use selvedge_ebpf_common::{GATEWAY_MAC, GTP_ANSWERS_PER_SECOND, STAGE_ACCESS, drop, mac_word};
use selvedge_ebpf_parse::gtp::{
    self, Direction, ECHO_RESPONSE_LEN, ERROR_V4_LEN, ERROR_V6_LEN, Kind, Message, Refusal,
    SUPPORTED_EXTENSIONS_LEN,
};
use selvedge_ebpf_parse::ip::{self, ECN_CE, IPV4_LEN, IPV6_LEN, Packet, UDP};
use selvedge_ebpf_parse::rewrite::fold;
use selvedge_ebpf_parse::{
    Cursor, ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Window, rewrite, udp,
};

use super::answer::words;
use super::maps::GTP_RATE;
use super::state::State;
use super::{Step, access, events, jump, lookup, packet, tunnel};

/// The packet around a message.
#[derive(Clone, Copy)]
struct Outer {
    packet: Packet,
    /// Bytes of its IP header.
    header_len: usize,
    version: u8,
    source_port: u16,
}

#[inline(always)]
pub(super) fn run(ctx: &XdpContext, state: State) -> Step {
    let mut cursor = packet::cursor(ctx);
    let ethernet = cursor.take::<ETHERNET_LEN>().ok_or(drop::MALFORMED)?;
    let available = packet::len(ctx) - ETHERNET_LEN;
    let (packet, header_len, version) = if ethernet.be16::<12>() == ETHERTYPE_IPV4 {
        let packet = ip::ipv4(cursor, available).ok_or(drop::MALFORMED)?;
        let first = cursor.peek::<1>().ok_or(drop::MALFORMED)?;
        (packet, (first.u8::<0>() as usize & 0xf) << 2, 4)
    } else {
        (ip::ipv6(cursor, available).ok_or(drop::MALFORMED)?, IPV6_LEN, 6)
    };
    // Fragments are not put together.
    if packet.is_fragment || !gtp::is_gtpu(&packet) {
        return Err(drop::CORE_ADDRESS);
    }
    cursor.skip_computed(header_len);
    let datagram =
        udp::read(cursor, packet.len as usize - header_len).ok_or(drop::GTP_MALFORMED)?;
    let outer = Outer { packet, header_len, version, source_port: datagram.source };
    cursor.skip_computed(udp::LEN);
    let message = match gtp::read(cursor, datagram.payload_len) {
        Ok(message) => message,
        Err(Refusal::NotUnderstood(_)) => {
            return answer::<SUPPORTED_EXTENSIONS_LEN>(ctx, state, &outer, true, |at| {
                gtp::write_supported_extensions(at);
            });
        }
        Err(Refusal::UnknownMessage) => return Err(drop::GTP_UNEXPECTED),
        Err(_) => return Err(drop::GTP_MALFORMED),
    };
    match message.kind {
        Kind::GPdu => match lookup::session(message.teid) {
            Some(session) => uplink(ctx, state, &outer, cursor, &message, session),
            None => unknown(ctx, state, &outer, message.teid),
        },
        Kind::EchoRequest => {
            let sequence = message.sequence.ok_or(drop::GTP_MALFORMED)?;
            answer::<ECHO_RESPONSE_LEN>(ctx, state, &outer, false, |at| {
                gtp::write_echo_response(at, sequence);
            })
        }
        Kind::EndMarker => Err(drop::END_MARKER),
        Kind::ErrorIndication => Err(drop::ERROR_INDICATION),
        Kind::EchoResponse | Kind::SupportedExtensionHeaders => Err(drop::GTP_UNEXPECTED),
    }
}

/// Unpacks a G-PDU; the cursor is at the message.
#[inline(always)]
fn uplink(
    ctx: &XdpContext,
    state: State,
    outer: &Outer,
    mut cursor: Cursor,
    message: &Message,
    session: SessionData,
) -> Step {
    let source = outer.packet.source;
    let profile = lookup::profile(session.profile.into()).ok_or(drop::UNKNOWN_TEID)?;
    if u32::from(profile.port) != state.port() || profile.peer != source {
        // Perhaps the gNB has moved, and shows it.
        access::bound(ctx, state, source, outer.version);
        return Err(drop::SPOOFED_SOURCE);
    }
    let mut allowed = profile.qfis == 0;
    if let Some(container) = message.session {
        if container.direction == Direction::Down {
            return Err(drop::GTP_UNEXPECTED);
        }
        allowed |= profile.qfis >> (container.qfi & 63) & 1 != 0;
    }
    if !allowed {
        return Err(drop::QFI_NOT_ALLOWED);
    }

    // Step B reads the packet; here only whose it is, and what is marked on it.
    cursor.skip_computed(message.header_len);
    let left = message.len - message.header_len;
    let start = cursor.peek::<IPV4_LEN>().ok_or(drop::MALFORMED)?;
    let (inner_v4, ecn) = match start.u8::<0>() >> 4 {
        4 if left >= IPV4_LEN => {
            if session.ipv4 == 0 || start.raw32::<12>() != session.ipv4 {
                return Err(drop::SPOOFED_SOURCE);
            }
            (true, start.u8::<1>() & 3)
        }
        6 if left >= IPV6_LEN => {
            let header = cursor.peek::<IPV6_LEN>().ok_or(drop::MALFORMED)?;
            if profile.ipv6_bits == 0 {
                return Err(drop::SPOOFED_SOURCE);
            }
            let prefix = lookup::session_v6(message.teid).ok_or(drop::SPOOFED_SOURCE)?;
            let mask = profile.ipv6_mask;
            let differs = header.raw64::<8>() & mask[0] ^ prefix[0]
                | header.raw64::<16>() & mask[1] ^ prefix[1];
            if differs != 0 {
                return Err(drop::SPOOFED_SOURCE);
            }
            (false, header.u8::<1>() >> 4 & 3)
        }
        _ => return Err(drop::MALFORMED),
    };
    // RFC 6040 §4.2, as where SRv6 ends.
    let told = outer.packet.traffic_class & 3;
    if told == ECN_CE && ecn == 0 {
        return Err(drop::MALFORMED);
    }
    let changes = told & 1 == 1 && (ecn == ip::ECN_ECT_0 || ecn == ip::ECN_ECT_1);

    let ethernet = packet::ethernet(ctx).ok_or(drop::MALFORMED)?;
    let (to, from) = (ethernet.raw64::<0>(), ethernet.raw64::<6>() & 0xffff_ffff_ffff);
    let headers = outer.header_len + udp::LEN + message.header_len;
    let excess = packet::len(ctx) as i32 - (ETHERNET_LEN + headers) as i32 - left as i32;
    if excess > 0 {
        packet::move_tail(ctx, -excess)?;
    }
    packet::move_head(ctx, headers as i32)?;
    let mut cursor = packet::cursor(ctx);
    let ethernet = cursor.take::<ETHERNET_LEN>().ok_or(drop::MALFORMED)?;
    if inner_v4 {
        packet::write_ethernet(ethernet, to, from, ETHERTYPE_IPV4);
        if changes {
            rewrite::set_ecn_ipv4(cursor.peek::<IPV4_LEN>().ok_or(drop::MALFORMED)?, told);
        }
    } else {
        packet::write_ethernet(ethernet, to, from, ETHERTYPE_IPV6);
        if changes {
            rewrite::set_ecn_ipv6(cursor.peek::<IPV6_LEN>().ok_or(drop::MALFORMED)?, told);
        }
    }
    state.set_slice_set(profile.slice_set);
    state.set_direction(profile.direction);
    state.set_endpoint(session.endpoint);
    state.set_tunnel(origin(message.teid, profile.tag));
    jump(ctx, STAGE_ACCESS)
}

/// A G-PDU of a tunnel that there is not: TS 29.281 §7.3.1.
#[inline(always)]
fn unknown(ctx: &XdpContext, state: State, outer: &Outer, teid: u32) -> Step {
    let (port, own) = (outer.source_port, outer.packet.destination);
    if outer.version == 4 {
        answer::<ERROR_V4_LEN>(ctx, state, outer, true, |at| {
            gtp::write_error_v4(at, teid, port, (own[1] >> 32) as u32);
        })
    } else {
        answer::<ERROR_V6_LEN>(ctx, state, outer, true, |at| {
            gtp::write_error_v6(at, teid, port, own);
        })
    }
}

/// Sends a message of `N` bytes, an even number, back to who sent `outer`. `limited`: only so
/// often.
#[inline(always)]
fn answer<const N: usize>(
    ctx: &XdpContext,
    state: State,
    outer: &Outer,
    limited: bool,
    write: impl FnOnce(Window<N>),
) -> Step {
    let Packet { source, destination, .. } = outer.packet;
    if !access::bound(ctx, state, source, outer.version) {
        return Err(drop::SPOOFED_SOURCE);
    }
    let rate = GTP_RATE.get_ptr_mut(state.port());
    if limited && !events::within::<GTP_ANSWERS_PER_SECOND>(rate, state.now()) {
        return Err(drop::UNKNOWN_TEID);
    }
    let to = packet::ethernet(ctx).ok_or(drop::MALFORMED)?.raw64::<6>();
    let gateway = mac_word(GATEWAY_MAC);
    let header_len = if outer.version == 4 { IPV4_LEN } else { IPV6_LEN };
    let len = ETHERNET_LEN + header_len + udp::LEN + N;
    packet::move_tail(ctx, len as i32 - packet::len(ctx) as i32)?;

    let ports = u32::from(gtp::PORT) << 16 | u32::from(outer.source_port);
    let udp_len = (udp::LEN + N) as u16;
    let mut cursor = packet::cursor(ctx);
    if outer.version == 4 {
        let frame =
            cursor.take::<{ ETHERNET_LEN + IPV4_LEN + udp::LEN }>().ok_or(drop::MALFORMED)?;
        packet::write_ethernet(frame, to, gateway, ETHERTYPE_IPV4);
        let (own, peer) = ((destination[1] >> 32) as u32, (source[1] >> 32) as u32);
        tunnel::write_ipv4(frame, UDP, 0, IPV4_LEN as u16 + udp_len, own, peer);
        frame.set_raw32::<{ ETHERNET_LEN + IPV4_LEN }>(ports.to_be());
        let rest = u32::from(udp_len) << 16;
        frame.set_raw32::<{ ETHERNET_LEN + IPV4_LEN + 4 }>(rest.to_be());
        write(cursor.take().ok_or(drop::MALFORMED)?);
    } else {
        let frame =
            cursor.take::<{ ETHERNET_LEN + IPV6_LEN + udp::LEN }>().ok_or(drop::MALFORMED)?;
        packet::write_ethernet(frame, to, gateway, ETHERTYPE_IPV6);
        tunnel::write_ipv6(frame, UDP, 0, 0, udp_len.into(), destination, source);
        frame.set_raw32::<{ ETHERNET_LEN + IPV6_LEN }>(ports.to_be());
        write(cursor.peek().ok_or(drop::MALFORMED)?);
        let ends =
            words(source[0]) + words(source[1]) + words(destination[0]) + words(destination[1]);
        // Twice the length: of the pseudo-header (RFC 8200 §8.1), and of the datagram.
        let fixed = words(ports.to_be().into())
            + words((u32::from(UDP) + 2 * u32::from(udp_len)).to_be().into());
        let sum = fixed + ends + sum::<N>(cursor).ok_or(drop::MALFORMED)?;
        // 0 would say that there is none.
        let checksum = match !fold(sum) {
            0 => 0xffff,
            checksum => checksum,
        };
        frame.set_raw16::<{ ETHERNET_LEN + IPV6_LEN + 4 }>(udp_len.to_be());
        frame.set_raw16::<{ ETHERNET_LEN + IPV6_LEN + 6 }>(checksum);
    }
    state.answered()
}

/// Sum of the raw 16-bit words of the next `N` bytes.
#[inline(always)]
fn sum<const N: usize>(mut cursor: Cursor) -> Option<u32> {
    let mut sum = 0;
    for _ in 0..N / 2 {
        sum += u32::from(cursor.take::<2>()?.raw16::<0>());
    }
    Some(sum)
}
