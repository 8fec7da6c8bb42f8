//! Laying, taking up and changing links.
//!
//! A plain link is a veth pair. A wire (DESIGN §12) is a namespace between two pairs, since a
//! redirected XDP frame skips every qdisc of the switch:
//!
//! ```text
//! s1:p1 === a [mirred] -> b [TBF] === s2:p1            and the same from b to a
//! ```
//!
//! Where frames are to be late or lost, they first leave, shaped, by a pair whose other end a
//! relay process reads:
//!
//! ```text
//! s1:p1 === a [mirred] -> qa [TBF] === ra -> relay -> b === s2:p1
//! ```
//!
//! Nothing in a wire aggregates frames: one in, one out.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Mutex;
use std::thread;

use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};

use crate::error::{Doing as _, Result};
use crate::ethtool;
use crate::host;
use crate::names;
use crate::netlink::{CREATE, Netlink, Request};
use crate::netns::NetNs;
use crate::process::Pid;
use crate::state::{Cable, NodeState, Plug, State};
use crate::tc;

/// A link's two ends and their peers inside a wire, as offsets to its first index.
const A: u32 = 0;
const WIRE_A: u32 = 1;
const WIRE_B: u32 = 2;
const B: u32 = 3;
const QUEUE_A: u32 = 4;
const RELAY_A: u32 = 5;
const QUEUE_B: u32 = 6;
const RELAY_B: u32 = 7;

/// What frames are captured at, or relayed between, in a wire.
pub(crate) const WIRE_ENDS: (&str, &str) = ("a", "b");
pub(crate) const RELAY_ENDS: (&str, &str) = ("ra", "rb");

/// A MAC address of the lab's own: locally administered, never that of the gateway
/// (02:5e:1f:..).
pub(crate) fn mac(kind: MacKind, number: u32) -> [u8; 6] {
    let [_, x, y, z] = number.to_be_bytes();
    [0x02, 0x53, kind as u8, x, y, z]
}

#[derive(Clone, Copy)]
pub(crate) enum MacKind {
    Host = 0x48,
    Port = 0x50,
}

/// One end of a pair: where, what it is called, what it is.
struct Tip<'a> {
    ns: &'a NetNs,
    name: &'a str,
    index: u32,
    mac: [u8; 6],
    up: bool,
    /// A host puts segments together as they arrive; everything else carries frames as they are.
    host: bool,
}

/// A limit that no two segments fit into (`gro_max_size`): frames are polled, and stay frames.
const NO_AGGREGATION: u32 = 1;

fn pair(work: &mut Work, near: &Tip<'_>, far: &Tip<'_>, mtu: u32) {
    let (here, there) = (near.ns.name(), far.ns.name());
    let what = format!("join {} in {here} and {} in {there}", near.name, far.name);
    let builder = LinkMessageBuilder::<LinkUnspec>::default();
    let peer = tip(builder, &Tip { up: false, ..*far }, mtu).build();
    let builder = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth);
    let message =
        tip(builder, near, mtu).set_info_data(InfoData::Veth(InfoVeth::Peer(peer))).build();
    work.pair(Request::new(what, CREATE, RouteNetlinkMessage::NewLink(message)));
    if far.up {
        work.up(there, far.index);
    }
}

fn tip<T>(builder: LinkMessageBuilder<T>, tip: &Tip<'_>, mtu: u32) -> LinkMessageBuilder<T> {
    let builder = if tip.up { builder.up() } else { builder };
    let builder = if tip.host {
        builder
    } else {
        builder.append_extra_attribute(LinkAttribute::GroMaxSize(NO_AGGREGATION))
    };
    builder
        .name(tip.name)
        .index(tip.index)
        .mtu(mtu)
        .address(tip.mac.to_vec())
        .setns_by_fd(tip.ns.as_fd().as_raw_fd())
}

/// Open namespaces by name.
#[derive(Debug, Default)]
pub(crate) struct Spaces(BTreeMap<String, NetNs>);

impl Spaces {
    pub(crate) fn insert(&mut self, ns: NetNs) {
        self.0.insert(ns.name().to_owned(), ns);
    }

    /// Opens those of the names that are not open yet.
    pub(crate) fn open(&mut self, names: impl IntoIterator<Item = String>) -> Result<()> {
        for name in names {
            if let Entry::Vacant(vacant) = self.0.entry(name) {
                let ns = NetNs::open(vacant.key()).doing("open namespace", vacant.key())?;
                vacant.insert(ns);
            }
        }
        Ok(())
    }

    pub(crate) fn get(&self, name: &str) -> &NetNs {
        self.0.get(name).expect("opened before it is used")
    }
}

/// Requests, gathered by the namespace that they are for.
#[derive(Default)]
pub(crate) struct Work {
    pairs: Vec<Request>,
    inside: BTreeMap<String, Inside>,
}

/// What is to be done in one namespace, in this order.
#[derive(Default)]
struct Inside {
    up: Vec<u32>,
    /// Index, and whether it is a host's end.
    offloads: Vec<(u32, bool)>,
    then: Vec<Request>,
}

impl Work {
    pub(crate) fn offloads(&mut self, ns: &str, index: u32, host: bool) {
        self.inside.entry(ns.to_owned()).or_default().offloads.push((index, host));
    }

    /// The second end of a pair, which the kernel refuses to make up from the start.
    pub(crate) fn up(&mut self, ns: &str, index: u32) {
        self.inside.entry(ns.to_owned()).or_default().up.push(index);
    }

    pub(crate) fn then(&mut self, ns: &str, requests: impl IntoIterator<Item = Request>) {
        self.inside.entry(ns.to_owned()).or_default().then.extend(requests);
    }

    pub(crate) fn pair(&mut self, request: Request) {
        self.pairs.push(request);
    }

    /// Pairs first, then namespace by namespace on a few threads.
    pub(crate) fn run(self, spaces: &Spaces) -> Result<()> {
        let Some(any) = spaces.0.values().next() else { return Ok(()) };
        Netlink::route(any)?.send(self.pairs)?;
        let family = ethtool::family(&mut Netlink::generic(any)?)?;
        parallel(self.inside.into_iter().collect(), |(name, Inside { up, offloads, then })| {
            let ns = spaces.get(&name);
            let mut route = None;
            let mut send = |requests: Vec<Request>| {
                if requests.is_empty() {
                    return Ok(());
                }
                let route = match &mut route {
                    Some(route) => route,
                    none => none.insert(Netlink::route(ns)?),
                };
                route.send(requests)
            };
            send(up.into_iter().map(|index| set_up(index, true)).collect())?;
            set_offloads(ns, family, &offloads)?;
            send(then)
        })
    }
}

/// Sets the offloads of interfaces (index, host's end) that are up: only then does a veth that
/// polls tell its peer that frames can be redirected into it.
fn set_offloads(ns: &NetNs, family: u16, ends: &[(u32, bool)]) -> Result<()> {
    let set = |&(index, host): &(u32, bool)| {
        let features = if host { ethtool::host() } else { ethtool::fabric() };
        ethtool::set(family, index, &features)
    };
    if ends.is_empty() {
        return Ok(());
    }
    Netlink::generic(ns)?.send(ends.iter().map(set).collect())
}

/// As [`set_offloads`], for a host's end.
pub(crate) fn set_host_offloads(ns: &NetNs, index: u32) -> Result<()> {
    let family = ethtool::family(&mut Netlink::generic(ns)?)?;
    set_offloads(ns, family, &[(index, true)])
}

/// Does `each` for all items on as many threads as there are processors, at most four.
///
/// # Errors
/// The first of a thread that failed; the others finish what there is.
pub(crate) fn parallel<T: Send>(
    items: Vec<T>,
    each: impl Fn(T) -> Result<()> + Sync,
) -> Result<()> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(4);
    let items = Mutex::new(items.into_iter());
    let work = || {
        loop {
            let item = items.lock().expect("no thread panics holding it").next();
            match item {
                Some(item) => each(item)?,
                None => return Ok(()),
            }
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}

/// Largest packet of a link: what hosts send, or that with the outer header.
fn mtu(state: &State, cable: &Cable) -> u32 {
    let host = [&cable.a, &cable.b].into_iter().any(|plug| is_host(state, plug));
    if host { crate::ACCESS_MTU } else { crate::FABRIC_MTU }
}

fn is_host(state: &State, plug: &Plug) -> bool {
    matches!(state.nodes.get(plug.node.as_str()), Some(NodeState::Host { .. }))
}

fn plug_mac(state: &State, plug: &Plug, index: u32) -> [u8; 6] {
    match state.nodes.get(plug.node.as_str()) {
        Some(NodeState::Host { mac, .. }) => *mac,
        _ => mac(MacKind::Port, index),
    }
}

/// Lays a link. `host_port`: what the host's end is called meanwhile, where it is not to be
/// configured yet.
pub(crate) fn lay(
    work: &mut Work,
    state: &State,
    cable: &Cable,
    spaces: &Spaces,
    host_port: Option<&str>,
) {
    let mtu = mtu(state, cable);
    let ends = [(&cable.a, cable.index + A), (&cable.b, cable.index + B)];
    let tips = ends.map(|(plug, index)| {
        let host = is_host(state, plug);
        let ns = names::namespace(&state.name, plug.node.as_str());
        // A host's end that is not configured yet stays down.
        let up = !host || host_port.is_none();
        if up {
            work.offloads(&ns, index, host);
        }
        if host && up {
            work.then(&ns, host::configure(state, &plug.node, index));
        }
        let name = host_port.filter(|_| host).unwrap_or(plug.port.as_str());
        Tip { ns: spaces.get(&ns), name, index, mac: plug_mac(state, plug, index), up, host }
    });
    let [a, b] = tips;
    let Some(number) = cable.wire else {
        pair(work, &a, &b, mtu);
        return;
    };
    let name = names::wire_namespace(&state.name, number);
    let inner = |name_in: &'static str, offset| Tip {
        ns: spaces.get(&name),
        name: name_in,
        index: cable.index + offset,
        mac: mac(MacKind::Port, cable.index + offset),
        up: cable.up,
        host: false,
    };
    for (tip, peer) in [(&a, inner(WIRE_ENDS.0, WIRE_A)), (&b, inner(WIRE_ENDS.1, WIRE_B))] {
        work.offloads(&name, peer.index, false);
        pair(work, tip, &peer, mtu);
    }
    wire(work, state, cable, spaces);
}

/// Lays what is inside a wire, between its two ends.
pub(crate) fn wire(work: &mut Work, state: &State, cable: &Cable, spaces: &Spaces) {
    let Some(number) = cable.wire else { return };
    let name = names::wire_namespace(&state.name, number);
    let at = |offset| cable.index + offset;
    if cable.figures.relayed() {
        let inner = |name_in: &'static str, offset| Tip {
            ns: spaces.get(&name),
            name: name_in,
            index: at(offset),
            mac: mac(MacKind::Port, at(offset)),
            up: true,
            host: false,
        };
        let mtu = mtu(state, cable);
        for (queue, relay, names) in
            [(QUEUE_A, RELAY_A, ("qa", RELAY_ENDS.0)), (QUEUE_B, RELAY_B, ("qb", RELAY_ENDS.1))]
        {
            pair(work, &inner(names.0, queue), &inner(names.1, relay), mtu);
            work.offloads(&name, at(relay), false);
        }
    }
    for (from, to) in ways(cable) {
        if let Some(rate) = cable.figures.rate() {
            work.then(&name, [tc::shape(to, rate)]);
        }
        work.then(&name, tc::redirect(from, to));
    }
}

/// A pair within one namespace, for trying things on it: (name, index) of each end.
pub(crate) fn bench_pair(work: &mut Work, ns: &NetNs, ends: [(&str, u32); 2]) {
    let tips = ends.map(|(name, index)| {
        work.offloads(ns.name(), index, false);
        Tip { ns, name, index, mac: mac(MacKind::Port, index), up: true, host: false }
    });
    pair(work, &tips[0], &tips[1], crate::FABRIC_MTU);
}

/// Takes up what is inside a wire.
pub(crate) fn unwire(work: &mut Work, state: &State, cable: &Cable) {
    let Some(number) = cable.wire else { return };
    let name = names::wire_namespace(&state.name, number);
    for (from, to) in ways(cable) {
        work.then(&name, [tc::unredirect(from)]);
        if cable.figures.rate().is_some() {
            work.then(&name, [tc::unshape(to)]);
        }
    }
    if cable.figures.relayed() {
        work.then(&name, [QUEUE_A, QUEUE_B].map(|queue| delete(cable.index + queue)));
    }
}

/// Where frames go inside a wire: (in by, out by) of each direction.
fn ways(cable: &Cable) -> [(u32, u32); 2] {
    let at = |offset| cable.index + offset;
    let relayed = cable.figures.relayed();
    let (from_a, from_b) = if relayed { (QUEUE_A, QUEUE_B) } else { (WIRE_B, WIRE_A) };
    [(at(WIRE_A), at(from_a)), (at(WIRE_B), at(from_b))]
}

/// Interface to be set down or up for a link to lose or regain its carrier: (namespace, index).
/// A wire breaks in the middle, so both ends notice as they would of a cut fibre. Of a plain
/// link the end at the switch goes down (at `a` between two), and the other loses its carrier.
pub(crate) fn breakers(state: &State, cable: &Cable) -> Vec<(String, u32)> {
    let at = |offset| cable.index + offset;
    match cable.wire {
        Some(wire) => {
            let ns = names::wire_namespace(&state.name, wire);
            vec![(ns.clone(), at(WIRE_A)), (ns, at(WIRE_B))]
        }
        None => {
            let (plug, offset) =
                if is_host(state, &cable.a) { (&cable.b, B) } else { (&cable.a, A) };
            vec![(names::namespace(&state.name, plug.node.as_str()), at(offset))]
        }
    }
}

/// Whether the relay of a link listens at both ends, as its namespace's list of packet sockets
/// says (`/proc/net/packet`: socket, references, type, protocol, interface, ..).
pub(crate) fn is_relayed(cable: &Cable, relay: Pid) -> bool {
    let Ok(text) = fs::read_to_string(format!("/proc/{}/net/packet", relay.pid)) else {
        return false;
    };
    let listens = |index: u32| {
        text.lines().skip(1).any(|line| {
            let fields: Vec<_> = line.split_ascii_whitespace().collect();
            fields.get(3) == Some(&"0003") && fields.get(4) == Some(&index.to_string().as_str())
        })
    };
    [RELAY_A, RELAY_B].into_iter().all(|end| listens(cable.index + end))
}

/// The interface index of a link's end.
pub(crate) fn end_index(cable: &Cable, plug: &Plug) -> u32 {
    cable.index + if cable.a == *plug { A } else { B }
}

pub(crate) fn delete(index: u32) -> Request {
    let message = LinkUnspec::new_with_index(index).build();
    Request::new(format!("remove interface {index}"), 0, RouteNetlinkMessage::DelLink(message))
}

pub(crate) fn set_up(index: u32, up: bool) -> Request {
    let builder = LinkUnspec::new_with_index(index);
    let message = if up { builder.up() } else { builder.down() }.build();
    let what = format!("set interface {index} {}", if up { "up" } else { "down" });
    Request::new(what, 0, RouteNetlinkMessage::SetLink(message))
}

pub(crate) fn rename(index: u32, name: &str) -> Request {
    let message = LinkUnspec::new_with_index(index).name(name).build();
    let what = format!("call interface {index} {name}");
    Request::new(what, 0, RouteNetlinkMessage::SetLink(message))
}

/// Requests to take up the whole of a link, its wire's namespace excepted; by namespace.
pub(crate) fn take_up(work: &mut Work, state: &State, cable: &Cable) {
    let ns = |plug: &Plug| names::namespace(&state.name, plug.node.as_str());
    work.then(&ns(&cable.a), [delete(cable.index + A)]);
    if cable.wire.is_some() {
        work.then(&ns(&cable.b), [delete(cable.index + B)]);
    }
}
