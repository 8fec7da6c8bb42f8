//! Classes of a port in the kernel's HTB (tc-htb(8)): one queue for each, at its rate.
//!
//! Frames that name no class of it go out at once. The programs admit no more to a class than its
//! queue holds, so that the kernel drops none.

use std::io;

use netlink_packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use selvedge_ebpf_common::HTB_MAJOR;

use crate::table::Queue;

/// Of linux/pkt_sched.h and linux/rtnetlink.h.
const TCA_OPTIONS: u16 = 2;
const TCA_HTB_PARMS: u16 = 1;
const TCA_HTB_INIT: u16 = 2;
const TCA_HTB_RATE64: u16 = 6;
const TCA_HTB_CEIL64: u16 = 7;
const NLA_HEADER: usize = 4;

/// What a class may send at once: 2 ms at its rate, since timers may be that late, and two full
/// frames at least.
const MIN_BURST_BYTES: u64 = 2 * 1600;
const GSO_BYTES: u64 = 65_536;

const MAJOR: u16 = HTB_MAJOR as u16;
const ROOT: TcHandle = TcHandle { major: MAJOR, minor: 0 };

const fn class_handle(class: u16) -> TcHandle {
    TcHandle { major: MAJOR, minor: class + 1 }
}

/// Makes what the shaped classes of `queue` need on an interface, or gives it its rates. What
/// waits there goes on waiting.
pub(crate) fn ensure(ifindex: u32, queue: &Queue) -> io::Result<()> {
    let mut root = message(ifindex, ROOT, TcHandle::ROOT, "htb")?;
    // struct tc_htb_glob: version, rate2quantum, defcls (none: not shaped), debug, direct_pkts.
    let global: Vec<u8> = [3u32, 10, 0, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
    root.attributes.push(options(&nla(TCA_HTB_INIT, &global)));
    let socket = open()?;
    match request(&socket, NLM_F_CREATE | NLM_F_EXCL, RouteNetlinkMessage::NewQueueDiscipline(root))
    {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
        made => made?,
    }
    let with_rates = (0u16..).zip(queue.shaped_bps).zip(queue.threshold_bytes);
    for ((class, bps), threshold) in with_rates.filter(|((_, bps), _)| *bps != 0) {
        let mut shaped = message(ifindex, class_handle(class), ROOT, "htb")?;
        shaped.attributes.push(options(&class_options(bps)));
        let put = NLM_F_CREATE | NLM_F_REPLACE;
        request(&socket, put, RouteNetlinkMessage::NewTrafficClass(shaped))?;

        let handle = TcHandle { major: MAJOR + 1 + class, minor: 0 };
        let mut leaf = message(ifindex, handle, class_handle(class), "bfifo")?;
        // All that the programs admit: 1.1 s at the rate, the threshold, and the largest burst of
        // segments (GSO), which may come on top; with room for clocks that differ.
        let held = bps / 8 * 5 / 4 + u64::from(threshold) + 4 * GSO_BYTES;
        let limit = u32::try_from(held).unwrap_or(u32::MAX);
        leaf.attributes.push(options(&limit.to_ne_bytes()));
        request(&socket, put, RouteNetlinkMessage::NewQueueDiscipline(leaf))?;
    }
    Ok(())
}

/// Takes away what [`ensure`] made, with what waits there. That nothing is there is fine, and that
/// the interface has gone.
pub(crate) fn remove(ifindex: u32) -> io::Result<()> {
    const NOTHING: [i32; 3] = [libc::ENOENT, libc::EINVAL, libc::ENODEV];
    let root = message(ifindex, ROOT, TcHandle::ROOT, "htb")?;
    match request(&open()?, 0, RouteNetlinkMessage::DelQueueDiscipline(root)) {
        Err(error) if error.raw_os_error().is_some_and(|code| NOTHING.contains(&code)) => Ok(()),
        removed => removed,
    }
}

/// `TCA_HTB_PARMS` (struct tc_htb_opt) and the rates in 64 bits.
fn class_options(bps: u64) -> Vec<u8> {
    let bytes_per_s = bps / 8;
    let burst = (bytes_per_s / 500).max(MIN_BURST_BYTES);
    // In ticks of 64 ns (PSCHED_SHIFT), as a time at the rate.
    let ticks = (u128::from(burst) * 1_000_000_000 / u128::from(bytes_per_s.max(1))) >> 6;
    let ticks = u32::try_from(ticks).unwrap_or(u32::MAX).to_ne_bytes();
    // struct tc_ratespec: cell_log, linklayer (Ethernet: no table is needed), overhead,
    // cell_align, mpu, rate.
    let mut rate = vec![0, 1, 0, 0, 0, 0, 0, 0];
    rate.extend(u32::try_from(bytes_per_s).unwrap_or(u32::MAX).to_ne_bytes());
    // rate, ceil, buffer, cbuffer, quantum, level, prio.
    let numbers = [4096u32, 0, 0].into_iter().flat_map(u32::to_ne_bytes);
    let parameters: Vec<u8> =
        [&rate[..], &rate, &ticks, &ticks].concat().into_iter().chain(numbers).collect();
    let wide = bytes_per_s.to_ne_bytes();
    [nla(TCA_HTB_PARMS, &parameters), nla(TCA_HTB_RATE64, &wide), nla(TCA_HTB_CEIL64, &wide)]
        .concat()
}

/// An attribute; its value is of a multiple of 4 bytes.
fn nla(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(NLA_HEADER + value.len()).expect("small attributes");
    [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat()
}

fn options(value: &[u8]) -> TcAttribute {
    TcAttribute::Other(DefaultNla::new(TCA_OPTIONS, value.to_vec()))
}

fn message(ifindex: u32, handle: TcHandle, parent: TcHandle, kind: &str) -> io::Result<TcMessage> {
    let mut message = TcMessage::with_index(i32::try_from(ifindex).map_err(io::Error::other)?);
    (message.header.handle, message.header.parent) = (handle, parent);
    message.attributes.push(TcAttribute::Kind(kind.into()));
    Ok(message)
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// Sends one request and takes its answer.
fn request(socket: &Socket, flags: u16, message: RouteNetlinkMessage) -> io::Result<()> {
    let mut request = NetlinkMessage::from(message);
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer);
    match answer.map_err(io::Error::other)?.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        _ => Ok(()),
    }
}
