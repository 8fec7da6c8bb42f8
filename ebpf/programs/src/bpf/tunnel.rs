//! Delivery to a UE: the packet goes to its gNB in GTP-U (TS 29.281) with a PDU session container
//! (TS 38.415 §5.5.2.1).
//!
//! Over IPv4 there is no UDP checksum (RFC 768), over IPv6 there is none either: the inner packet
//! has its own, and the gNB is a tunnel end that has been told of us (RFC 6935 §5, RFC 6936 §4).
//! A gNB that insists on one takes its tunnels over IPv4.
//!
//! The outer header has the class of the slice and the ECN field of the packet (RFC 6040 §4.1).

use aya_ebpf::programs::XdpContext;
use selvedge_ebpf_common::value::{GnbValue, TUNNEL_V4, TUNNEL_V6, TunnelData, way_port};
use selvedge_ebpf_common::{GATEWAY_MAC, OUTER_HOP_LIMIT, TUNNEL_SOURCE_PORT, drop, mac_word};
use selvedge_ebpf_parse::gtp::{self, Direction, G_PDU_LEN, Session};
use selvedge_ebpf_parse::ip::{IPV4_LEN, IPV6_LEN, Packet, UDP};
use selvedge_ebpf_parse::rewrite::fold;
use selvedge_ebpf_parse::srv6::flow_label;
use selvedge_ebpf_parse::{ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Window, udp};

use super::egress::Leaves;
use super::meter::Profile;
use super::state::State;
use super::{Step, egress, lookup, packet};

const _: () = assert!(TUNNEL_V4 as usize == IPV4_LEN + udp::LEN + G_PDU_LEN);
const _: () = assert!(TUNNEL_V6 as usize == IPV6_LEN + udp::LEN + G_PDU_LEN);

/// Where `delivery` leads.
pub(super) enum Prepared {
    /// The way, and how many bytes a tunnel puts before the packet; 0: it goes as it is.
    To(u64, u32),
    /// The longest packet that the tunnel carries.
    TooBig(u32),
}

/// Where `delivery` leads. Notes what [`run`] needs. `inner` is the packet as it will be, but for its hop limit
/// and ECN field.
#[inline(always)]
pub(super) fn prepare(
    state: State,
    delivery: u64,
    inner: &Packet,
    profile: Profile,
) -> Result<Prepared, u8> {
    let Some(tunnel) = TunnelData::unpack(delivery) else { return Ok(Prepared::To(delivery, 0)) };
    let gnb = lookup::gnb(tunnel.gnb).ok_or(drop::NO_DELIVERY)?;
    let overhead = u32::from(gnb.overhead);
    let mtu = u32::from(gnb.mtu).saturating_sub(overhead);
    if inner.len > mtu {
        return Ok(Prepared::TooBig(mtu));
    }
    state.set_tunnel(delivery);
    state.set_len(inner.len);
    let (ports, protocol) = inner.flow();
    state.set_label(flow_label(inner.source, inner.destination, ports, protocol));
    state.set_dscp(profile.dscp());
    Ok(Prepared::To(gnb.way, overhead))
}

/// The frame is Ethernet and the user's packet, and no more.
#[inline(always)]
pub(super) fn run(ctx: &XdpContext, state: State) -> Step {
    let start = packet::cursor(ctx).peek::<{ ETHERNET_LEN + 2 }>().ok_or(drop::MALFORMED)?;
    let second = start.u8::<15>();
    let ecn = if start.u8::<14>() >> 4 == 4 { second } else { second >> 4 };
    let class = state.dscp() << 2 | ecn & 3;
    let tunnel = TunnelData::unpack(state.tunnel()).ok_or(drop::NO_DELIVERY)?;
    let gnb = lookup::gnb(tunnel.gnb).ok_or(drop::NO_DELIVERY)?;
    let frame_len = if gnb.overhead == TUNNEL_V4 {
        v4(ctx, state, tunnel, gnb, class)
    } else {
        v6(ctx, state, tunnel, gnb, class)
    }?;
    let port = way_port(gnb.way).into();
    let counters = egress::counters(port).ok_or(drop::PORT_DOWN)?;
    egress::send(ctx, state, port, counters, frame_len, Leaves::Delivered(state.mark().into()))
}

#[inline(always)]
fn v4(
    ctx: &XdpContext,
    state: State,
    tunnel: TunnelData,
    gnb: &GnbValue,
    class: u8,
) -> Result<u32, u8> {
    const LEN: usize = TUNNEL_V4 as usize;
    packet::move_head(ctx, -(LEN as i32))?;
    let mut cursor = packet::cursor(ctx);
    let frame = cursor.take::<{ ETHERNET_LEN + IPV4_LEN + udp::LEN }>().ok_or(drop::MALFORMED)?;
    let len = LEN as u32 + state.len();
    packet::write_ethernet(frame, gnb.way, mac_word(GATEWAY_MAC), ETHERTYPE_IPV4);
    let (source, destination) = ((gnb.local[1] >> 32) as u32, (gnb.peer[1] >> 32) as u32);
    // Whole, and not to be fragmented, so there is nothing to identify (RFC 6864 §4.1).
    write_ipv4(frame, UDP, class, len as u16, source, destination);
    write_udp::<{ ETHERNET_LEN + IPV4_LEN }, _>(frame, state.label(), len - IPV4_LEN as u32);
    gtp::write_g_pdu(
        cursor.take().ok_or(drop::MALFORMED)?,
        tunnel.teid,
        session(tunnel),
        state.len() as u16,
    );
    Ok(ETHERNET_LEN as u32 + len)
}

#[inline(always)]
fn v6(
    ctx: &XdpContext,
    state: State,
    tunnel: TunnelData,
    gnb: &GnbValue,
    class: u8,
) -> Result<u32, u8> {
    const LEN: usize = TUNNEL_V6 as usize;
    packet::move_head(ctx, -(LEN as i32))?;
    let mut cursor = packet::cursor(ctx);
    let frame = cursor.take::<{ ETHERNET_LEN + IPV6_LEN + udp::LEN }>().ok_or(drop::MALFORMED)?;
    let payload_len = (LEN - IPV6_LEN) as u32 + state.len();
    packet::write_ethernet(frame, gnb.way, mac_word(GATEWAY_MAC), ETHERTYPE_IPV6);
    write_ipv6(frame, UDP, class, state.label(), payload_len, gnb.local, gnb.peer);
    write_udp::<{ ETHERNET_LEN + IPV6_LEN }, _>(frame, state.label(), payload_len);
    gtp::write_g_pdu(
        cursor.take().ok_or(drop::MALFORMED)?,
        tunnel.teid,
        session(tunnel),
        state.len() as u16,
    );
    Ok((ETHERNET_LEN + IPV6_LEN) as u32 + payload_len)
}

#[inline(always)]
fn session(tunnel: TunnelData) -> Session {
    Session { direction: Direction::Down, qfi: tunnel.qfi }
}

/// Behind Ethernet; addresses raw, `len` of the whole packet.
#[inline(always)]
pub(super) fn write_ipv4<const N: usize>(
    frame: Window<N>,
    protocol: u8,
    class: u8,
    len: u16,
    source: u32,
    destination: u32,
) {
    const DONT_FRAGMENT: u32 = 0x4000;
    let first = u32::from(0x4500 | u16::from(class)) << 16 | u32::from(len);
    let third = u32::from(OUTER_HOP_LIMIT) << 24 | u32::from(protocol) << 16;
    let halves = |word: u32| (word >> 16) + (word & 0xffff);
    let sum = halves(first)
        + DONT_FRAGMENT
        + halves(third)
        + halves(u32::from_be(source))
        + halves(u32::from_be(destination));
    frame.set_raw32::<14>(first.to_be());
    frame.set_raw32::<18>(DONT_FRAGMENT.to_be());
    frame.set_raw32::<22>((third | u32::from(!fold(sum))).to_be());
    frame.set_raw32::<26>(source);
    frame.set_raw32::<30>(destination);
}

/// Behind Ethernet; addresses raw.
#[inline(always)]
pub(super) fn write_ipv6<const N: usize>(
    frame: Window<N>,
    protocol: u8,
    class: u8,
    label: u32,
    payload_len: u32,
    source: [u64; 2],
    destination: [u64; 2],
) {
    frame.set_raw32::<14>((6 << 28 | u32::from(class) << 20 | label).to_be());
    let word = payload_len << 16 | u32::from(protocol) << 8 | u32::from(OUTER_HOP_LIMIT);
    frame.set_raw32::<18>(word.to_be());
    frame.set_raw64::<22>(source[0]);
    frame.set_raw64::<30>(source[1]);
    frame.set_raw64::<38>(destination[0]);
    frame.set_raw64::<46>(destination[1]);
}

/// At `AT` of the frame, without a checksum.
#[inline(always)]
fn write_udp<const AT: usize, const N: usize>(frame: Window<N>, label: u32, len: u32) {
    let source = u32::from(TUNNEL_SOURCE_PORT) | label & 0x3fff;
    let ports = u64::from(source) << 48 | u64::from(gtp::PORT) << 32;
    frame.set_raw64::<AT>((ports | u64::from(len) << 16).to_be());
}
