//! Step B: what an endpoint sends is bound to its port, routed in its slices, metered, and
//! delivered or encapsulated.

use aya_ebpf::programs::XdpContext;
use selvedge_ebpf_common::rule::{self, RULE_DROP, RULE_MARK, RULE_SET_SLICE, RULE_STEER};
use selvedge_ebpf_common::value::{
    ConfigValue, MAX_PATHS, PortValue, SEVERAL, flow_bucket, way_port,
};
use selvedge_ebpf_common::{
    FIRST_FUNCTION, GATEWAY_MAC, MAX_INNER_LEN, OUTER_HOP_LIMIT, OUTER_LEN, REPAIRED, STAGE_ANSWER,
    STAGE_CLASSIFY, STAGE_EXTENSIONS, STAGE_GTP, STAGE_SID_ON, STAGE_TUNNEL, drop, mac_word,
    sid_slot, slice_slot,
};
use selvedge_ebpf_parse::gtp;
use selvedge_ebpf_parse::ip::{
    self, ICMPV6, IPIP, IPV4_LEN, IPV6, IPV6_LEN, Packet, mapped, multicast_v6, routable_v4,
    routable_v6,
};
use selvedge_ebpf_parse::srv6::{Container, flow_label};
use selvedge_ebpf_parse::{ETHERNET_LEN, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, rewrite};

use super::classify::Found;
use super::egress::Leaves;
use super::icmp::Notice;
use super::maps::{POLICY, PORT, SID, SLICE_COUNTERS};
use super::meter::{Profile, meter, own_rates};
use super::state::State;
use super::tunnel::Prepared;
use super::{
    Step, classify, egress, events, extensions, icmp, jump, lookup, packet, repair, tunnel,
};

/// Router solicitation to redirect (RFC 4861 §4).
pub(super) const ND_FIRST: u8 = 133;
pub(super) const ND_LAST: u8 = 137;
pub(super) const ROUTER_SOLICITATION: u8 = 133;
pub(super) const NEIGHBOR_SOLICITATION: u8 = 135;

/// Bytes of an IPv6 packet up to its ICMPv6 type.
pub(super) const ICMPV6_TYPE: usize = IPV6_LEN + 1;

#[inline(always)]
pub(super) fn run(ctx: &XdpContext, state: State) -> Step {
    let mut cursor = packet::cursor(ctx);
    let ethernet = cursor.take::<ETHERNET_LEN>().ok_or(drop::MALFORMED)?;
    let available = packet::len(ctx) - ETHERNET_LEN;
    match ethernet.be16::<12>() {
        ETHERTYPE_IPV4 => {
            let Some(inner) = ip::ipv4(cursor, available) else { return Err(drop::MALFORMED) };
            enter(ctx, state, inner, 4)
        }
        ETHERTYPE_IPV6 => {
            let Some(inner) = ip::ipv6(cursor, available) else { return Err(drop::MALFORMED) };
            // Neighbor discovery and multicast end here, whatever their source.
            if inner.protocol == ICMPV6
                && inner.len >= ICMPV6_TYPE as u32
                && let Some(message) = cursor.peek::<ICMPV6_TYPE>()
                && (ND_FIRST..=ND_LAST).contains(&message.u8::<IPV6_LEN>())
            {
                return match message.u8::<IPV6_LEN>() {
                    ROUTER_SOLICITATION | NEIGHBOR_SOLICITATION => of_link(ctx, state),
                    _ => Err(drop::UNSUPPORTED),
                };
            }
            if multicast_v6(inner.destination) {
                return of_link(ctx, state);
            }
            enter(ctx, state, inner, 6)
        }
        ETHERTYPE_ARP => jump(ctx, STAGE_ANSWER),
        _ => Err(drop::UNSUPPORTED),
    }
}

/// What goes no further than this link: the gateway may have an answer. A UE is no neighbor.
#[inline(always)]
fn of_link(ctx: &XdpContext, state: State) -> Step {
    if state.slice_set() == 0 { jump(ctx, STAGE_ANSWER) } else { Err(drop::UNSUPPORTED) }
}

/// B.2 and B.3: what is for this switch itself, and what no endpoint may send.
#[inline(always)]
fn enter(ctx: &XdpContext, state: State, mut inner: Packet, version: u8) -> Step {
    let config = lookup::config().ok_or(drop::PORT_DISABLED)?;
    let from_tunnel = state.slice_set() != 0;
    if lookup::is_n3(config, inner.destination) {
        return if from_tunnel { Err(drop::CORE_ADDRESS) } else { jump(ctx, STAGE_GTP) };
    }
    if inner.len > MAX_INNER_LEN {
        return icmp::tell(ctx, state, Notice::TooBig, MAX_INNER_LEN);
    }
    // RFC 8754 §5.1: nobody outside may say where a packet goes inside.
    if version == 6 && inner.destination[0] & 0xffff == 0x005f {
        return Err(drop::SRV6_FROM_ACCESS);
    }
    if version == 6 && ip::is_extension(inner.protocol) {
        let Some(filled) = extensions::fill(state, inner) else {
            return jump(ctx, STAGE_EXTENSIONS);
        };
        inner = filled;
    }
    if from_tunnel && gtp::is_gtpu(&inner) {
        return Err(drop::GTP_IN_GTP);
    }
    ingress(ctx, state, config, inner, version)
}

/// Whether an address is an endpoint's, by the version of the packet it is in.
#[inline(always)]
fn routable(address: [u64; 2], version: u8) -> bool {
    if version == 4 { routable_v4((address[1] >> 32) as u32) } else { routable_v6(address) }
}

/// Tells the agent of a source that is not bound here.
#[inline(always)]
fn reveal(ctx: &XdpContext, state: State, address: [u64; 2], version: u8) {
    if routable(address, version)
        && let Some(ethernet) = packet::ethernet(ctx)
    {
        let word = ethernet.raw64::<6>();
        events::seen(state, selvedge_ebpf_common::mac_bytes(word), address);
    }
}

/// A frame on a port without an entry goes nowhere, but shows who is there: an endpoint that has
/// just been plugged in is bound as soon as it says anything.
#[inline(always)]
pub(super) fn unassigned(ctx: &XdpContext, state: State) {
    const ARP_SENDER: usize = ETHERNET_LEN + 14;

    let Some(ethernet) = packet::ethernet(ctx) else { return };
    let cursor = packet::cursor(ctx);
    match ethernet.be16::<12>() {
        ETHERTYPE_ARP => {
            if let Some(frame) = cursor.peek::<{ ETHERNET_LEN + 28 }>() {
                reveal(ctx, state, mapped(frame.raw32::<ARP_SENDER>()), 4);
            }
        }
        ETHERTYPE_IPV4 => {
            if let Some(frame) = cursor.peek::<{ ETHERNET_LEN + IPV4_LEN }>() {
                reveal(ctx, state, mapped(frame.raw32::<{ ETHERNET_LEN + 12 }>()), 4);
            }
        }
        ETHERTYPE_IPV6 => {
            if let Some(frame) = cursor.peek::<{ ETHERNET_LEN + IPV6_LEN }>() {
                let source =
                    [frame.raw64::<{ ETHERNET_LEN + 8 }>(), frame.raw64::<{ ETHERNET_LEN + 16 }>()];
                // The fabric's own: the far end of a link that is not a link yet.
                if source[0] & 0xffff != 0x005f {
                    reveal(ctx, state, source, 6);
                }
            }
        }
        _ => {}
    }
}

/// B.4 to B.10.
#[inline(always)]
fn ingress(
    ctx: &XdpContext,
    state: State,
    config: &'static ConfigValue,
    inner: Packet,
    version: u8,
) -> Step {
    let (mut slice_set, mut direction) = (state.slice_set(), state.direction());
    let (mut endpoint, mut origin) = (state.endpoint(), state.tunnel());
    let from_tunnel = slice_set != 0;
    if !from_tunnel {
        let Some(bound) = lookup::endpoint(config, state.port(), inner.source, version) else {
            // Who has no address yet asks for one.
            if version == 4 && inner.source == mapped(0) {
                return jump(ctx, STAGE_ANSWER);
            }
            reveal(ctx, state, inner.source, version);
            return Err(drop::SPOOFED_SOURCE);
        };
        (slice_set, direction, endpoint) = (bound.slice_set, bound.direction, bound.endpoint);
        origin = rule::origin(0, bound.tag);
    }
    if !routable(inner.destination, version) {
        return of_link(ctx, state);
    }
    if inner.hop_limit <= 1 {
        return match from_tunnel {
            true => Err(drop::HOP_LIMIT),
            false => icmp::tell(ctx, state, Notice::TimeExceeded, 0),
        };
    }
    let mut steered = 0;
    match classify::rule(config, state, &inner, slice_set, origin) {
        Found::Rule(rule) => match rule.action {
            RULE_DROP => return Err(drop::CLASSIFIER_DROP),
            RULE_SET_SLICE => slice_set = rule.argument,
            RULE_STEER => steered = u32::from(rule.argument),
            RULE_MARK => mark_packet(ctx, version, rule.argument as u8)?,
            _ => {}
        },
        Found::None => {}
        Found::Later => return jump(ctx, STAGE_CLASSIFY),
    }
    let route = lookup::route(config, slice_set, inner.destination, version);
    let route = route.ok_or(drop::NO_ROUTE)?;
    let slice = route.slice;
    // Rates are those of the UE, whoever sends.
    if direction & 1 == 0 {
        endpoint = route.endpoint;
    }
    // The route says that there is a way in the slice, the rule which one it is.
    let policy = if steered != 0 { steered } else { route.policy };

    state.in_slice(slice, direction, inner.len);
    // Once: it may be another the next time.
    // SAFETY: a word of a map value.
    let mark = unsafe { (&raw const config.mark).read_volatile() } & 1;
    state.set_mark(mark as u8);
    let counters = SLICE_COUNTERS.get_ptr_mut(slice_slot(slice, direction));
    if let Some(counters) = counters {
        // SAFETY: this CPU's own counters.
        unsafe {
            (*counters).packets += 1;
            (*counters).bytes += u64::from(inner.len);
        }
    }
    let own = own_rates(config, state, slice, direction, endpoint, inner.len)?;
    let profile = meter(config, state, slice, direction, inner.len, counters, own)?
        .unwrap_or(Profile::BEST_EFFORT);
    if !profile.excess
        && let Some(counters) = counters
    {
        state.set_in_profile(1);
        // SAFETY: this CPU's own counters.
        unsafe { (*counters).entered[mark as usize] += 1 };
    }
    if policy == 0 {
        local(ctx, state, config, &inner, version, profile)
    } else {
        encapsulate(ctx, state, config, &inner, version, profile, policy)
    }
}

/// Gives a user's packet another DSCP (RFC 2474 §3).
#[inline(always)]
fn mark_packet(ctx: &XdpContext, version: u8, dscp: u8) -> Result<(), u8> {
    let mut cursor = packet::cursor(ctx);
    cursor.take::<ETHERNET_LEN>().ok_or(drop::MALFORMED)?;
    if version == 4 {
        rewrite::set_dscp_ipv4(cursor.peek::<IPV4_LEN>().ok_or(drop::MALFORMED)?, dscp);
    } else {
        rewrite::set_dscp_ipv6(cursor.peek::<IPV6_LEN>().ok_or(drop::MALFORMED)?, dscp);
    }
    Ok(())
}

/// Cuts off what the frame has beyond its packet: padding of short frames, mostly.
#[inline(always)]
fn trim(ctx: &XdpContext, inner: &Packet) -> Result<(), u8> {
    let excess = packet::len(ctx) as i32 - ETHERNET_LEN as i32 - inner.len as i32;
    if excess > 0 { packet::move_tail(ctx, -excess) } else { Ok(()) }
}

/// Step D for a packet that stays on this switch.
#[inline(always)]
fn local(
    ctx: &XdpContext,
    state: State,
    config: &ConfigValue,
    inner: &Packet,
    version: u8,
    profile: Profile,
) -> Step {
    let delivery = lookup::delivery(config, state.slice(), inner.destination, version);
    let delivery = delivery.ok_or(drop::NO_DELIVERY)?;
    let (way, overhead) = match tunnel::prepare(state, delivery, inner, profile)? {
        Prepared::To(way, overhead) => (way, overhead),
        Prepared::TooBig(mtu) => return icmp::tell(ctx, state, Notice::TooBig, mtu),
    };
    let port = u32::from(way_port(way));
    let counters = egress::counters(port).ok_or(drop::PORT_DOWN)?;
    trim(ctx, inner)?;
    let len = ETHERNET_LEN as u32 + overhead + inner.len;
    let mark = egress::queue(config, state, port, counters, profile, len)? && ecn_capable(inner);

    let mut cursor = packet::cursor(ctx);
    let ethernet = cursor.take::<ETHERNET_LEN>().ok_or(drop::MALFORMED)?;
    let gateway = mac_word(GATEWAY_MAC);
    if version == 4 {
        packet::write_ethernet(ethernet, way, gateway, ETHERTYPE_IPV4);
        let header = cursor.peek::<IPV4_LEN>().ok_or(drop::MALFORMED)?;
        rewrite::decrement_ipv4(header);
        if mark {
            rewrite::set_ecn_ipv4(header, ip::ECN_CE);
        }
    } else {
        packet::write_ethernet(ethernet, way, gateway, ETHERTYPE_IPV6);
        let header = cursor.peek::<IPV6_LEN>().ok_or(drop::MALFORMED)?;
        rewrite::decrement_ipv6(header);
        if mark {
            rewrite::set_ecn_ipv6(header, ip::ECN_CE);
        }
    }
    if overhead != 0 {
        return jump(ctx, STAGE_TUNNEL);
    }
    egress::send(ctx, state, port, counters, len, Leaves::Delivered(state.mark().into()))
}

/// Of ECT(0) and ECT(1) (RFC 3168 §5).
#[inline(always)]
fn ecn_capable(inner: &Packet) -> bool {
    let ecn = inner.traffic_class & 3;
    ecn == 1 || ecn == 2
}

/// B.10: puts the packet into an outer header (RFC 8986 §5.1, H.Encaps.Red) and sends it on
/// its way; or, when the first segment is this switch's own, hands it to step C.
#[inline(always)]
fn encapsulate(
    ctx: &XdpContext,
    state: State,
    config: &ConfigValue,
    inner: &Packet,
    version: u8,
    profile: Profile,
    id: u32,
) -> Step {
    let policy = POLICY.get(id).ok_or(drop::NO_POLICY)?;
    let second = policy.active & 1 != 0;
    let sids = if second { policy.sids[1] } else { policy.sids[0] };
    if sids == 0 {
        return Err(drop::NO_POLICY);
    }
    let mut destination = if second { policy.destination[1] } else { policy.destination[0] };
    let (ports, protocol) = inner.flow();
    let label = flow_label(inner.source, inner.destination, ports, protocol);
    if sids == SEVERAL
        && let Some(set) = lookup::path_set(id)
    {
        let path = set.buckets[flow_bucket(state.forgotten(label))];
        destination = set.destination[usize::from(path) & (MAX_PATHS - 1)];
    }

    // Most first segments are another node's, and the frame can leave from here.
    let container = Container::from_raw(destination);
    let active = container.active();
    let slot = sid_slot(active).ok_or(drop::NO_NEXT_HOP)?;
    let segment = SID.get(slot).ok_or(drop::NO_NEXT_HOP)?;
    let (own, way) = (segment.local != 0, segment.way);
    if !own && (active == 0 || active >= FIRST_FUNCTION) {
        return Err(drop::UNKNOWN_SID);
    }
    if !own && way == 0 {
        return Err(drop::NO_NEXT_HOP);
    }
    let (mut way, mut destination, mut repaired) = (way, destination, 0);
    if !own && !repair::is_up(way) {
        let (other, ids) = repair::around(way, container)?;
        (way, destination, repaired) = (other, ids.raw(), u64::from(REPAIRED));
    }
    let port = u32::from(way_port(way));
    let counters = egress::counters(port).ok_or(drop::PORT_DOWN)?;
    let len = (ETHERNET_LEN + OUTER_LEN) as u32 + inner.len;
    let mut ecn = inner.traffic_class & 3; // RFC 6040 §4.1
    if !own && egress::queue(config, state, port, counters, profile, len)? && ecn_capable(inner) {
        ecn = ip::ECN_CE;
    }

    let came_to = packet::ethernet(ctx).ok_or(drop::MALFORMED)?.raw64::<0>();
    let came_from = packet::ethernet(ctx).ok_or(drop::MALFORMED)?.raw64::<6>();
    trim(ctx, inner)?;
    packet::move_head(ctx, -(OUTER_LEN as i32))?;
    let mut cursor = packet::cursor(ctx);
    let outer = cursor.take::<{ ETHERNET_LEN + OUTER_LEN }>().ok_or(drop::MALFORMED)?;
    if own {
        packet::write_ethernet(outer, came_to, came_from & 0xffff_ffff_ffff, ETHERTYPE_IPV6);
    } else {
        let source = PORT.get(port).map_or(0, |value: &PortValue| value.mac);
        packet::write_ethernet(outer, way, source, ETHERTYPE_IPV6);
    }
    let class = u32::from(profile.dscp() << 2 | ecn);
    outer.set_raw32::<14>((6 << 28 | class << 20 | label).to_be());
    let protocol = if version == 4 { IPIP } else { IPV6 };
    // Payload length, next header and hop limit are one word.
    let word = inner.len << 16 | u32::from(protocol) << 8 | u32::from(OUTER_HOP_LIMIT);
    outer.set_raw32::<18>(word.to_be());
    outer.set_raw64::<22>(config.source);
    let mark = u32::from(state.mark() & 1);
    let source = u64::from(state.slice()) << 48
        | u64::from(state.direction()) << 32
        | u64::from(mark)
        | repaired;
    outer.set_raw64::<30>(source.to_be());
    outer.set_raw64::<38>(destination[0]);
    outer.set_raw64::<46>(destination[1]);
    if version == 4 {
        rewrite::decrement_ipv4(cursor.peek::<IPV4_LEN>().ok_or(drop::MALFORMED)?);
    } else {
        rewrite::decrement_ipv6(cursor.peek::<IPV6_LEN>().ok_or(drop::MALFORMED)?);
    }
    if own {
        state.set_fresh(1);
        return jump(ctx, STAGE_SID_ON);
    }
    egress::send(ctx, state, port, counters, len, Leaves::Encapsulated(mark))
}

/// Whether `source` is bound to the packet's port; tells the agent when it is not.
#[inline(always)]
pub(super) fn bound(ctx: &XdpContext, state: State, source: [u64; 2], version: u8) -> bool {
    let Some(config) = lookup::config() else { return false };
    if lookup::endpoint(config, state.port(), source, version).is_some() {
        return true;
    }
    reveal(ctx, state, source, version);
    false
}

/// Also for sources of IPv4 that are not in IP packets.
#[inline(always)]
pub(super) fn bound_v4(ctx: &XdpContext, state: State, raw: u32) -> bool {
    bound(ctx, state, mapped(raw), 4)
}
