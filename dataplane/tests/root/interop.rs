//! Linux's own SRv6 in one fabric with a switch of ours: as a node on the way (`seg6local`, End
//! with flavor next-csid: RFC 9800 §4.1), as the ingress of a packet (`seg6`), and as its egress.

use std::net::{Ipv6Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use selvedge_pipeline::entry::FUNCTION_UDT46;
use selvedge_pipeline::model::wire::outer_source;
use selvedge_pipeline::{
    Code, CounterKind, DeliveryEntry, Direction, EndpointEntry, EndpointId, EndpointTag, Entry,
    LocalSidAction, LocalSidEntry, NextHopEntry, NodeSid, PolicyEntry, PolicyId, PortId,
    RouteAction, SliceId, SliceRouteEntry, SliceSet,
};
use selvedge_southbound::client::WriteError;

use super::forwarding::{A, B, Stop, echo, exchange};
use super::support::{
    Agent, Host, Place, access, block_on, connect, fabric, in_netns, inserts, ip, until,
};

const OURS: u16 = 0x11;
const LINUX: u16 = 0x20;
const B_IPV6: &str = "fd10::12";
/// Of Linux itself, which has no endpoint on our switch.
const FAR: &str = "fd10::9";

const THROUGH: PolicyId = PolicyId(1);
const TO_LINUX: PolicyId = PolicyId(2);

/// Of an interface in the namespace of this thread.
fn mac(name: &str) -> [u8; 6] {
    let all = nix::ifaddrs::getifaddrs().unwrap();
    let mut named = all.filter(|interface| interface.interface_name == name);
    named.find_map(|interface| interface.address?.as_link_addr()?.addr()).unwrap()
}

/// A router with `eth0` at p3 and `eth1` at p4, that knows our switch at p4.
fn linux(switch: [u8; 6]) -> Host {
    let linux = Host::new("l");
    linux.cable("p3");
    ip(&format!("link add p4 address {} type veth peer name l1 netns {}", text(switch), linux.tid));
    linux.run(move || {
        ip("link set l1 name eth1");
        ip("link set eth1 up");
        selvedge_xdp::offload::prepare_veth("eth1").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        ip(&format!("-6 address add {FAR}/128 dev lo"));
        ip(&format!("-6 neighbor add fe80::1 lladdr {} dev eth1 nud permanent", text(switch)));
        ip(&format!("-6 route add 5f00:0:{OURS:x}::/48 via fe80::1 dev eth1 onlink"));
        ip(&format!(
            "-6 route add 5f00:0:{LINUX:x}::/48 encap seg6local action End \
             flavors next-csid lblen 32 nflen 16 dev eth0"
        ));
        // Its egress: no uDT46 without VRF, but uDT6 into the table of its own addresses.
        ip(&format!(
            "-6 route add 5f00:0:{LINUX:x}:{FUNCTION_UDT46:x}::/64 encap seg6local \
             action End.DT6 table 255 dev eth0"
        ));
        let source = outer_source(LINUX, SliceId::DEFAULT, Direction::Uplink, false);
        ip(&format!("sr tunsrc set {source}"));
        ip(&format!(
            "-6 route add {B_IPV6}/128 encap seg6 mode encap.red \
             segs 5f00:0:{OURS:x}:{FUNCTION_UDT46:x}:: dev eth1"
        ));
    });
    linux
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Binds an address to a port and delivers there; whoever sends to it goes by `THROUGH`.
fn endpoint(port: u16, prefix: &str, mac: [u8; 6]) -> [Entry; 3] {
    let (slice, slice_set) = (SliceId::DEFAULT, SliceSet(SliceId::DEFAULT.0));
    let (port, direction, endpoint) = (PortId(port), Direction::Uplink, EndpointId::NONE);
    let prefix = prefix.parse().unwrap();
    let action = RouteAction::Policy(THROUGH);
    [
        Entry::Endpoint(EndpointEntry {
            port,
            prefix,
            slice_set,
            direction,
            endpoint,
            tag: EndpointTag::NONE,
        }),
        Entry::SliceRoute(SliceRouteEntry { slice_set, prefix, slice, action, endpoint }),
        Entry::Delivery(DeliveryEntry { slice, prefix, port, mac, tunnel: None }),
    ]
}

fn program(a: &Host, b: &Host, linux: &Host) -> Vec<Entry> {
    let local = |sid, action| Entry::LocalSid(LocalSidEntry { sid, action });
    let policy = |policy, sids: &[u16]| Entry::Policy(PolicyEntry::one(policy, sids.into()));
    let mut entries = vec![
        local(OURS, LocalSidAction::Node),
        local(FUNCTION_UDT46, LocalSidAction::Decapsulate),
        Entry::NextHop(NextHopEntry {
            node: NodeSid(LINUX),
            port: PortId(3),
            mac: linux.mac(),
            backup: 0,
        }),
        policy(THROUGH, &[LINUX, OURS, FUNCTION_UDT46]),
        policy(TO_LINUX, &[LINUX, FUNCTION_UDT46]),
        Entry::SliceRoute(SliceRouteEntry {
            slice_set: SliceSet(SliceId::DEFAULT.0),
            prefix: format!("{FAR}/128").parse().unwrap(),
            slice: SliceId::DEFAULT,
            action: RouteAction::Policy(TO_LINUX),
            endpoint: EndpointId::NONE,
        }),
    ];
    entries.extend(endpoint(1, &format!("{A}/32"), a.mac()));
    entries.extend(endpoint(2, &format!("{B}/32"), b.mac()));
    entries.extend(endpoint(2, &format!("{B_IPV6}/128"), b.mac()));
    entries
}

/// Answers every datagram over IPv6 until told to stop.
fn echo_ipv6(host: &Host, stop: &Stop) {
    let stop = Arc::clone(&stop.0);
    host.start(move || {
        let address: Ipv6Addr = B_IPV6.parse().unwrap();
        let socket = UdpSocket::bind((address, 7)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut bytes = [0; 2048];
        while !stop.load(Ordering::Relaxed) {
            if let Ok((len, from)) = socket.recv_from(&mut bytes) {
                socket.send_to(&bytes[..len], from).unwrap();
            }
        }
    });
}

/// How many of `count` datagrams of 1,200 bytes come back to Linux itself, each given 500 ms.
fn exchange_ipv6(linux: &Host, count: u32) -> u32 {
    linux.run(move || {
        let [from, to] = [FAR, B_IPV6].map(|text| text.parse::<Ipv6Addr>().unwrap());
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket.connect((to, 7)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let sent = |n: u32| {
            let mut bytes = [0; 1_200];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            socket.send(&bytes).unwrap();
            let mut back = [0; 2_048];
            socket.recv(&mut back).is_ok_and(|len| back[..len] == bytes)
        };
        (0..count).filter(|n| sent(*n)).count() as u32
    })
}

#[test]
fn linux_is_a_node_an_ingress_and_an_egress_of_the_fabric() {
    in_netns(|| {
        let place = Place::new();
        let (a, b) = (Host::new("a"), Host::new("b"));
        a.cable("p1");
        b.cable("p2");
        a.address(A);
        b.address(B);
        b.run(|| {
            ip(&format!("-6 address add {B_IPV6}/128 dev eth0 nodad"));
            ip("-6 route add default via fe80::1 dev eth0");
        });
        let linux = linux([2, 0, 0, 0, 0x11, 4]);
        assert_eq!(mac("p4"), [2, 0, 0, 0, 0x11, 4]);
        let stop = Stop::new();
        let agent = Agent::start(place.unmanaged());
        let entries = program(&a, &b, &linux);
        block_on(async {
            let (client, _channel) = connect(1).await;
            // Ports are there a moment after the server is.
            until("ports are known", async || {
                let ports = inserts([access(1), access(2), fabric(3), fabric(4)]);
                match client.write(&ports).await {
                    Ok(()) => true,
                    Err(WriteError::Updates { failed, .. }) => {
                        failed.iter().all(|failed| failed.code == Code::AlreadyExists)
                    }
                    Err(error) => panic!("{error:?}"),
                }
            })
            .await;
            client.write(&inserts(entries)).await.unwrap();
        });

        // Between our hosts by way of Linux, both ways.
        echo(&b, &stop);
        block_on(until("a reaches b through Linux", async || exchange(&a, 1) == 1));
        let received = |port: usize| {
            block_on(async {
                let (client, _channel) = connect(2).await;
                client.read_counter(CounterKind::PortRx).await.unwrap()[port].packets
            })
        };
        let before = received(4);
        assert_eq!(exchange(&a, 50), 50);
        assert!(received(4) - before >= 100, "each came in once more from Linux");
        drop(stop);

        // Linux's own packets in our fabric, and ours at Linux.
        let stop = Stop::new();
        echo_ipv6(&b, &stop);
        block_on(until("Linux reaches b", async || exchange_ipv6(&linux, 1) == 1));
        assert_eq!(exchange_ipv6(&linux, 50), 50);
        drop(stop);
        agent.kill();
    });
}
