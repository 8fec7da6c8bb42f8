//! Traffic control of a wire: everything that comes in goes out at the other end, at a rate.
//!
//! `clsact` with a u32 filter that matches all (there is no matchall everywhere) and mirred
//! redirects; a token bucket at the other end holds frames back (tc-tbf(8)). A frame is counted
//! with its Ethernet header.

use rtnetlink::packet_core::DefaultNla;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{
    TcAction, TcActionAttribute, TcActionMirror, TcActionMirrorOption, TcActionOption,
    TcActionType, TcAttribute, TcFilterU32, TcFilterU32Option, TcHandle, TcMessage, TcMirror,
    TcMirrorActionType, TcOption, TcU32Key, TcU32Selector, TcU32SelectorFlags,
};
use selvedge_topology::BitRate;

use crate::netlink::{CREATE, REPLACE, Request};

/// Largest frame of the fabric with its Ethernet header, in bytes.
pub(crate) const FRAME: u64 = crate::FABRIC_MTU as u64 + 14;

/// How much a token bucket lets through at once: 2 ms at the rate, since a busy machine runs
/// its timers that late, and two frames at least. Less loses throughput; more lets a burst
/// arrive faster than the wire that it stands for.
fn burst_bytes(rate: BitRate) -> u64 {
    (rate.0 / 8 / 500).max(2 * FRAME)
}

/// How much may wait: 100 ms at the rate, which holds the bursts that admission lets meet
/// (250 ms of a guarantee, a quarter of the wire, with room), and sixteen frames at least.
fn limit_bytes(rate: BitRate) -> u64 {
    (rate.0 / 8 / 10).max(16 * FRAME)
}

/// Attaches `clsact` to `from` and sends all that comes in there out by `to`.
pub(crate) fn redirect(from: u32, to: u32) -> Vec<Request> {
    let clsact = TcHandle { major: 0xFFFF, minor: 0xFFF1 };
    let mut qdisc = message(from, TcHandle { major: 0xFFFF, minor: 0 }, clsact);
    qdisc.attributes.push(TcAttribute::Kind("clsact".into()));

    let ingress = TcHandle { major: 0xFFFF, minor: TcHandle::MIN_INGRESS };
    let mut filter = message(from, TcHandle::UNSPEC, ingress);
    // Priority 1, and ETH_P_ALL in network order.
    filter.header.info = (1 << 16) | u32::from(3u16.to_be());
    let mut selector = TcU32Selector::default();
    selector.flags = TcU32SelectorFlags::Terminal;
    selector.nkeys = 1;
    selector.keys = vec![TcU32Key::default()]; // mask 0: everything
    let mut mirror = TcMirror::default();
    mirror.generic.action = TcActionType::Stolen;
    mirror.eaction = TcMirrorActionType::EgressRedir;
    mirror.ifindex = to;
    let mut action = TcAction::default();
    action.attributes = vec![
        TcActionAttribute::Kind(TcActionMirror::KIND.into()),
        TcActionAttribute::Options(vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(
            mirror,
        ))]),
    ];
    filter.attributes = vec![
        TcAttribute::Kind(TcFilterU32::KIND.into()),
        TcAttribute::Options(vec![
            TcOption::U32(TcFilterU32Option::Selector(selector)),
            TcOption::U32(TcFilterU32Option::Action(vec![action])),
        ]),
    ];
    vec![
        Request::new("add clsact", REPLACE, RouteNetlinkMessage::NewQueueDiscipline(qdisc)),
        Request::new("redirect a wire", CREATE, RouteNetlinkMessage::NewTrafficFilter(filter)),
    ]
}

/// Takes away what [`redirect`] put on `from`.
pub(crate) fn unredirect(from: u32) -> Request {
    let clsact = TcHandle { major: 0xFFFF, minor: 0xFFF1 };
    let qdisc = message(from, TcHandle { major: 0xFFFF, minor: 0 }, clsact);
    Request::new("remove clsact", 0, RouteNetlinkMessage::DelQueueDiscipline(qdisc))
}

/// Sends out by `index` at `rate` and no faster; replaces what was set before.
pub(crate) fn shape(index: u32, rate: BitRate) -> Request {
    // struct tc_tbf_qopt: two of struct tc_ratespec (12 bytes), then limit, buffer, mtu.
    let bytes_per_s = rate.0 / 8;
    let mut parameters = Vec::with_capacity(36);
    parameters.extend([0, 1, 0, 0, 0, 0, 0, 0]); // cell_log, linklayer Ethernet, overhead, ..
    parameters.extend(u32::try_from(bytes_per_s).unwrap_or(u32::MAX).to_ne_bytes());
    parameters.extend([0; 12]); // no peak rate
    parameters.extend(u32::try_from(limit_bytes(rate)).unwrap_or(u32::MAX).to_ne_bytes());
    parameters.extend([0; 8]);
    let burst = u32::try_from(burst_bytes(rate)).unwrap_or(u32::MAX);
    let nla = |kind, value: &[u8]| TcOption::Other(DefaultNla::new(kind, value.to_vec()));
    let mut options = vec![nla(1, &parameters)]; // TCA_TBF_PARMS
    options.push(nla(4, &bytes_per_s.to_ne_bytes())); // TCA_TBF_RATE64
    options.push(nla(6, &burst.to_ne_bytes())); // TCA_TBF_BURST

    let mut qdisc = message(index, TcHandle { major: 1, minor: 0 }, TcHandle::ROOT);
    qdisc.attributes = vec![TcAttribute::Kind("tbf".into()), TcAttribute::Options(options)];
    Request::new("shape a wire", REPLACE, RouteNetlinkMessage::NewQueueDiscipline(qdisc))
}

/// Takes away what [`shape`] put on `index`.
pub(crate) fn unshape(index: u32) -> Request {
    let qdisc = message(index, TcHandle { major: 1, minor: 0 }, TcHandle::ROOT);
    Request::new("unshape a wire", 0, RouteNetlinkMessage::DelQueueDiscipline(qdisc))
}

fn message(index: u32, handle: TcHandle, parent: TcHandle) -> TcMessage {
    let mut message =
        TcMessage::with_index(i32::try_from(index).expect("the lab's indices are small"));
    message.header.handle = handle;
    message.header.parent = parent;
    message
}
