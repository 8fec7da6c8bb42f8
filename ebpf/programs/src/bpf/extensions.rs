//! Looks behind the extension headers of a user's packet, for step B. In a program of its own: few
//! packets have any, and what the verifier would have to follow is this loop times all that comes
//! after it.

use aya_ebpf::programs::XdpContext;
use selvedge_ebpf_common::value::TRANSPORT_KNOWN;
use selvedge_ebpf_common::{STAGE_ACCESS_ON, drop};
use selvedge_ebpf_parse::ETHERNET_LEN;
use selvedge_ebpf_parse::ip::{IPV6_LEN, Packet, behind_extensions};

use super::state::State;
use super::{Step, jump, packet};

#[inline(always)]
pub(super) fn run(ctx: &XdpContext, state: State) -> Step {
    let mut cursor = packet::cursor(ctx);
    let headers = cursor.take::<{ ETHERNET_LEN + IPV6_LEN }>().ok_or(drop::MALFORMED)?;
    let left = usize::from(headers.be16::<{ ETHERNET_LEN + 4 }>());
    let first = headers.u8::<{ ETHERNET_LEN + 6 }>();
    let Some(transport) = behind_extensions(cursor, first, left) else {
        return Err(drop::MALFORMED);
    };
    let known = TRANSPORT_KNOWN
        | u64::from(transport.is_fragment) << 41
        | u64::from(transport.has_ports) << 40
        | u64::from(transport.protocol) << 32
        | u64::from(transport.ports);
    state.set_transport(known);
    jump(ctx, STAGE_ACCESS_ON)
}

/// The packet with what is known; `None`: [`run`] has not looked.
#[inline(always)]
pub(super) fn fill(state: State, inner: Packet) -> Option<Packet> {
    let known = state.transport();
    if known & TRANSPORT_KNOWN == 0 {
        return None;
    }
    let (ports, protocol) = (known as u32, (known >> 32) as u8);
    let (has_ports, is_fragment) = (known >> 40 & 1 != 0, known >> 41 & 1 != 0);
    Some(Packet { ports, has_ports, is_fragment, protocol, ..inner })
}
