//! Step C: frames with an outer header, from other switches, from hooks, and from step B when
//! the first segment is this switch's own.

use aya_ebpf::programs::XdpContext;
use selvedge_ebpf_common::value::{
    ConfigValue, HOOK_RUNNING, PORT_COMPUTE, PortValue, SID_COMPUTE, SID_DECAPSULATE, SID_NODE,
    way_port,
};
use selvedge_ebpf_common::{
    COMPUTE_PORT, FIRST_FUNCTION, GATEWAY_MAC, MAX_SLICE_ID, OUTER_LEN, REPAIRED, SID_BLOCK,
    SOURCE_MARK, STAGE_ANSWER, STAGE_SID_ON, STAGE_TUNNEL, drop, mac_word, sid_slot,
};
use selvedge_ebpf_parse::ip::{self, ECN_CE, ECN_ECT_0, ECN_ECT_1, IPIP, IPV4_LEN, IPV6, IPV6_LEN};
use selvedge_ebpf_parse::srv6::Container;
use selvedge_ebpf_parse::{ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Window, rewrite};

use super::egress::Leaves;
use super::icmp::Notice;
use super::maps::{HOOK, HOOK_COUNTERS, PORT, PORT_COUNTERS, SID, SOCKET};
use super::meter::{Own, Profile, meter};
use super::state::State;
use super::tunnel::Prepared;
use super::{Step, egress, icmp, jump, lookup, packet, repair, tunnel};

/// Segments that one switch may consume of a packet before it has to leave.
const ROUNDS: u32 = 4;

/// Ethernet and outer header.
const HEADERS: usize = ETHERNET_LEN + OUTER_LEN;

type Outer = Window<HEADERS>;

/// Where the segments lead.
enum Way {
    /// As `SidValue::way` has it.
    Forward(u64),
    Decapsulate,
    Hook(u8),
}

#[inline(always)]
pub(super) fn run(ctx: &XdpContext, state: State) -> Step {
    let ethernet = packet::ethernet(ctx).ok_or(drop::MALFORMED)?;
    if ethernet.be16::<12>() != ETHERTYPE_IPV6 {
        return Err(drop::UNSUPPORTED);
    }
    let outer = packet::cursor(ctx).peek::<HEADERS>().ok_or(drop::MALFORMED)?;
    let block = SID_BLOCK.to_be();
    let next_header = outer.u8::<20>();
    if outer.u8::<14>() >> 4 != 6
        || outer.raw32::<22>() != block
        || outer.raw32::<38>() != block
        || next_header != IPIP && next_header != IPV6
    {
        // A neighbor's test packet, perhaps.
        return jump(ctx, STAGE_ANSWER);
    }
    let payload_len = u32::from(outer.be16::<18>());
    let excess = packet::len(ctx) as i32 - HEADERS as i32 - payload_len as i32;
    if excess < 0 {
        return Err(drop::MALFORMED);
    }
    if excess > 0 {
        // Cut, and start over: rare, because no frame between switches needs padding.
        packet::move_tail(ctx, -excess)?;
        return jump(ctx, STAGE_SID_ON);
    }
    if outer.be16::<28>() != SOURCE_MARK {
        return Err(drop::FOREIGN_SOURCE);
    }
    let mark = u32::from(outer.u8::<37>() & 1);
    if state.fresh() == 0
        && let Some(counters) = PORT_COUNTERS.get_ptr_mut(state.port())
    {
        // SAFETY: this CPU's own counters.
        unsafe { (*counters).rx_marked[mark as usize] += 1 };
    }
    let config = lookup::config().ok_or(drop::PORT_DISABLED)?;
    let slice = outer.be16::<30>();
    let direction = outer.be16::<32>();
    // What admission numbers is counted; a slice beyond that is nobody's.
    state.in_slice(if slice > MAX_SLICE_ID { 0 } else { slice }, direction as u8 & 1, payload_len);
    let mut class = (outer.be16::<14>() >> 4) as u8;
    if state.kind() == PORT_COMPUTE
        && direction <= 1
        && let Some(profile) =
            meter(config, state, slice, direction as u8, payload_len, None, Own::None)?
    {
        class = profile.dscp() << 2 | class & 3;
        set_class(outer, class);
    }
    let profile = Profile::from_dscp(class >> 2);
    state.set_in_profile(u8::from(!profile.excess));

    let before = Container::from_raw([outer.raw64::<38>(), outer.raw64::<46>()]);
    let (way, after) = follow(before)?;
    if let Way::Decapsulate = way {
        return decapsulate(ctx, state, config, slice, class, payload_len, mark);
    }
    let (way, after) = match way {
        Way::Forward(way) if !repair::is_up(way) => {
            let last = outer.u8::<37>();
            if last & REPAIRED != 0 {
                return Err(drop::PORT_DOWN);
            }
            let (way, after) = repair::around(way, after)?;
            outer.set8::<37>(last | REPAIRED);
            (Way::Forward(way), after)
        }
        way => (way, after),
    };
    let [high, low] = after.raw();
    outer.set_raw64::<38>(high);
    outer.set_raw64::<46>(low);
    let len = HEADERS as u32 + payload_len;
    match way {
        Way::Hook(hook) => to_hook(ctx, state, hook, len, mark),
        Way::Forward(way) => forward(ctx, state, config, outer, way, profile, len, mark),
        Way::Decapsulate => Err(drop::MALFORMED),
    }
}

#[inline(always)]
fn set_class<const N: usize>(outer: Window<N>, class: u8) {
    let first = outer.be16::<14>() & 0xf00f | u16::from(class) << 4;
    outer.set_raw16::<14>(first.to_be());
}

/// C.3: consumes this switch's segments.
#[inline(always)]
fn follow(mut container: Container) -> Result<(Way, Container), u8> {
    for _ in 0..ROUNDS {
        let active = container.active();
        let slot = sid_slot(active).ok_or(drop::NO_NEXT_HOP)?;
        let segment = SID.get(slot).ok_or(drop::NO_NEXT_HOP)?;
        match segment.local {
            SID_NODE => container = container.shifted(),
            SID_DECAPSULATE => return Ok((Way::Decapsulate, container)),
            SID_COMPUTE => {
                container = container.shifted();
                let hook = segment.hook;
                // The kernel takes a dead process's socket out of the map before anybody hears of
                // the death.
                let running = HOOK.get(hook.into()).is_some_and(|h| h.state == HOOK_RUNNING);
                if running && SOCKET.get(hook.into()).is_some() {
                    return Ok((Way::Hook(hook), container));
                }
                let bypass = segment.bypass != 0;
                if let Some(counters) = HOOK_COUNTERS.get_ptr_mut(hook.into()) {
                    // SAFETY: this CPU's own counters.
                    unsafe {
                        if bypass {
                            (*counters).bypassed += 1;
                        } else {
                            (*counters).refused += 1;
                        }
                    }
                }
                if !bypass {
                    return Err(drop::HOOK_DOWN);
                }
            }
            _ if active == 0 || active >= FIRST_FUNCTION => return Err(drop::UNKNOWN_SID),
            _ if segment.way == 0 => return Err(drop::NO_NEXT_HOP),
            _ => return Ok((Way::Forward(segment.way), container)),
        }
    }
    Err(drop::UNKNOWN_SID)
}

#[inline(always)]
fn to_hook(ctx: &XdpContext, state: State, hook: u8, len: u32, mark: u32) -> Step {
    let port = u32::from(COMPUTE_PORT) + u32::from(hook);
    // A hook that runs has its device; one that is just losing it is down.
    let counters = egress::counters(port).ok_or(drop::HOOK_DOWN)?;
    let sent = egress::send(ctx, state, port, counters, len, Leaves::Encapsulated(mark));
    let action = sent.map_err(|_| drop::HOOK_DOWN)?;
    if let Some(counters) = HOOK_COUNTERS.get_ptr_mut(hook.into()) {
        // SAFETY: this CPU's own counters.
        unsafe {
            (*counters).to_packets += 1;
            (*counters).to_bytes += u64::from(len);
        }
    }
    Ok(action)
}

#[expect(clippy::too_many_arguments, reason = "inlined, and each is a register")]
#[inline(always)]
fn forward(
    ctx: &XdpContext,
    state: State,
    config: &ConfigValue,
    outer: Outer,
    way: u64,
    profile: Profile,
    len: u32,
    mark: u32,
) -> Step {
    if state.fresh() == 0 {
        let hop_limit = outer.u8::<21>();
        if hop_limit <= 1 {
            return Err(drop::HOP_LIMIT);
        }
        outer.set8::<21>(hop_limit - 1);
    }
    let port = u32::from(way_port(way));
    let counters = egress::counters(port).ok_or(drop::PORT_DOWN)?;
    let source = PORT.get(port).map_or(0, |value: &PortValue| value.mac);
    packet::write_ethernet(outer, way, source, ETHERTYPE_IPV6);
    if egress::queue(config, state, port, counters, profile, len)? {
        let second = outer.u8::<15>();
        let ecn = second >> 4 & 3;
        if ecn == 1 || ecn == 2 {
            outer.set8::<15>(second | ECN_CE << 4);
        }
    }
    egress::send(ctx, state, port, counters, len, Leaves::Encapsulated(mark))
}

/// `uDT46`, then step D.
#[inline(always)]
fn decapsulate(
    ctx: &XdpContext,
    state: State,
    config: &ConfigValue,
    slice: u16,
    class: u8,
    payload_len: u32,
    mark: u32,
) -> Step {
    let mut cursor = packet::cursor(ctx);
    let outer = cursor.take::<HEADERS>().ok_or(drop::MALFORMED)?;
    let v4 = outer.u8::<20>() == IPIP;
    let available = packet::len(ctx) - HEADERS;
    let inner = if v4 { ip::ipv4(cursor, available) } else { ip::ipv6(cursor, available) };
    let inner = inner.ok_or(drop::MALFORMED)?;
    if inner.len != payload_len {
        return Err(drop::MALFORMED);
    }
    // RFC 6040 §4.2: what was marked on the way stays marked, or cannot be told.
    let ecn = inner.traffic_class & 3;
    let (mut told, capable) = (class & 3, ecn == ECN_ECT_0 || ecn == ECN_ECT_1);
    if told == ECN_CE && ecn == 0 {
        return Err(drop::MALFORMED);
    }
    let delivery = if v4 {
        lookup::delivery(config, slice, inner.destination, 4)
    } else {
        lookup::delivery(config, slice, inner.destination, 6)
    };
    let delivery = delivery.ok_or(drop::NO_DELIVERY)?;
    let profile = Profile::from_dscp(class >> 2);
    let (way, overhead) = match tunnel::prepare(state, delivery, &inner, profile)? {
        Prepared::To(way, overhead) => (way, overhead),
        Prepared::TooBig(mtu) => return icmp::tell(ctx, state, Notice::TooBig, mtu),
    };
    let port = u32::from(way_port(way));
    let counters = egress::counters(port).ok_or(drop::PORT_DOWN)?;
    let len = ETHERNET_LEN as u32 + overhead + inner.len;
    if egress::queue(config, state, port, counters, profile, len)? {
        told = ECN_CE;
    }
    let changes = capable && (told == ECN_CE || told == ECN_ECT_1) && told != ecn;

    packet::move_head(ctx, OUTER_LEN as i32)?;
    let mut cursor = packet::cursor(ctx);
    let ethernet = cursor.take::<ETHERNET_LEN>().ok_or(drop::MALFORMED)?;
    let gateway = mac_word(GATEWAY_MAC);
    if v4 {
        packet::write_ethernet(ethernet, way, gateway, ETHERTYPE_IPV4);
        if changes {
            rewrite::set_ecn_ipv4(cursor.peek::<IPV4_LEN>().ok_or(drop::MALFORMED)?, told);
        }
    } else {
        packet::write_ethernet(ethernet, way, gateway, ETHERTYPE_IPV6);
        if changes {
            rewrite::set_ecn_ipv6(cursor.peek::<IPV6_LEN>().ok_or(drop::MALFORMED)?, told);
        }
    }
    if overhead != 0 {
        state.set_mark(mark as u8);
        return jump(ctx, STAGE_TUNNEL);
    }
    egress::send(ctx, state, port, counters, len, Leaves::Delivered(mark))
}
