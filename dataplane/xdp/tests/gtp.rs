//! N3 in the kernel: what a gNB gets for what it sends, byte by byte, and the failures of other
//! systems that must not be ours. The model test has the same at random; here each is named.

mod common;

use std::net::{IpAddr, Ipv4Addr};

use common::{PinDir, in_netns, veth};
use etherparse::PacketBuilder;
use selvedge_xdp::common::GATEWAY_MAC;
use selvedge_xdp::common::drop::{self, NAMES};
use selvedge_xdp::{
    Delivery, Direction, Endpoint, EndpointMeter, PortKind, Route, RouteAction, Rule, RuleAction,
    Session, Switch, Table, Tunnel, Verdict,
};

const GNB: [u8; 4] = [192, 0, 2, 9];
const N3: [u8; 4] = [198, 51, 100, 1];
const UE: [u8; 4] = [10, 1, 0, 1];
/// On another port of the same switch.
const SERVER: [u8; 4] = [10, 2, 0, 1];
const GNB_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const TEID: u32 = 0x1234_5678;
const DOWN_TEID: u32 = 0x8765_4321;
const QFI: u8 = 9;

struct Bed {
    switch: Switch,
    gnb: u32,
    server: u32,
    _pins: PinDir,
}

fn bed() -> Bed {
    let pins = PinDir::new();
    let mut switch = pins.open();
    let (gnb, server) = (veth("gnb"), veth("srv"));
    for (port, interface) in [(1, &gnb), (2, &server)] {
        switch.attach(port, interface).unwrap();
        switch.port.put(port, &PortKind::Access).unwrap();
    }
    let host = |address: [u8; 4]| ipnet::IpNet::from(IpAddr::from(address));
    switch.n3.put(N3.into(), &()).unwrap();
    // The gNB is in a slice of its own, where nobody else is.
    let bind = |port, address, slice_set| {
        let endpoint = Endpoint { slice_set, direction: Direction::Uplink, endpoint: 0, tag: 0 };
        switch.endpoint.put((port, host(address)), &endpoint).unwrap();
    };
    bind(1, GNB, 7);
    bind(2, SERVER, 1);
    let session = Session {
        port: 1,
        gnb: GNB.into(),
        ue_ipv4: Some(UE.into()),
        ue_ipv6: None,
        slice_set: 1,
        direction: Direction::Uplink,
        qfis: 1 << QFI,
        endpoint: 0,
        tag: 0,
    };
    switch.session.put(TEID, &session).unwrap();
    for address in [UE, SERVER] {
        let route = Route { slice: 1, action: RouteAction::Local, endpoint: 0 };
        switch.route.put((1, host(address)), &route).unwrap();
    }
    // Everything else too, so that only rules keep a packet from anywhere.
    let route = Route { slice: 1, action: RouteAction::Local, endpoint: 0 };
    switch.route.put((1, "0.0.0.0/0".parse().unwrap()), &route).unwrap();
    let tunnel = Tunnel { local: N3.into(), gnb: GNB.into(), teid: DOWN_TEID, qfi: QFI, mtu: 1500 };
    let ue = Delivery { port: 1, mac: GNB_MAC, tunnel: Some(tunnel) };
    switch.delivery.put((1, host(UE)), &ue).unwrap();
    let server_at = Delivery { port: 2, mac: SERVER_MAC, tunnel: None };
    switch.delivery.put((1, host(SERVER)), &server_at).unwrap();
    switch.delivery.put((1, "0.0.0.0/0".parse().unwrap()), &server_at).unwrap();
    Bed { switch, gnb: gnb.index, server: server.index, _pins: pins }
}

/// An IPv4 packet with a datagram, ready for Ethernet.
fn datagram(from: [u8; 4], to: [u8; 4], ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4(from, to, 64).udp(ports.0, ports.1);
    builder.write(&mut packet, payload).unwrap();
    packet
}

fn frame(source: [u8; 6], packet: &[u8]) -> Vec<u8> {
    [&GATEWAY_MAC[..], &source, &[8, 0], packet].concat()
}

/// What the gNB sends to N3.
fn of_gnb(message: &[u8]) -> Vec<u8> {
    frame(GNB_MAC, &datagram(GNB, N3, (2152, 2152), message))
}

/// A message whose length field counts all of `rest`, which follows the TEID.
fn message(flags: u8, kind: u8, teid: u32, rest: &[u8]) -> Vec<u8> {
    let len = (rest.len() as u16).to_be_bytes();
    [&[0x30 | flags, kind], &len[..], &teid.to_be_bytes(), rest].concat()
}

/// An uplink G-PDU with its PDU session container.
fn g_pdu(teid: u32, qfi: u8, inner: &[u8]) -> Vec<u8> {
    message(4, 255, teid, &[&[0, 0, 0, 0x85, 1, 0x10, qfi, 0], inner].concat())
}

fn to_server() -> Vec<u8> {
    datagram(UE, SERVER, (1, 2), b"to the server")
}

impl Bed {
    fn run(&self, frame: &[u8]) -> Verdict {
        self.switch.test_run(self.gnb, frame).unwrap().verdict
    }

    /// The frame is dropped for this reason, and counted.
    fn drops(&self, frame: &[u8], reason: u8, what: &str) {
        let count = || self.switch.counters.drops().unwrap()[usize::from(reason)];
        let before = count();
        let verdict = self.run(frame);
        let found = match &verdict {
            Verdict::Dropped(reason) => NAMES[usize::from(*reason)],
            _ => "not dropped",
        };
        assert_eq!(found, NAMES[usize::from(reason)], "{what}: {verdict:02x?}");
        assert_eq!(count(), before + 1, "{what}");
    }
}

/// As it leaves: one hop further.
fn hop(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[8] -= 1;
    packet[10..12].fill(0);
    let header = etherparse::Ipv4HeaderSlice::from_slice(&packet).unwrap().to_header();
    let checksum = header.calc_header_checksum();
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet
}

#[test]
fn what_a_ue_sends_leaves_its_tunnel_and_what_it_gets_enters_one() {
    in_netns(|| {
        let bed = bed();
        let up = to_server();
        let want = [&SERVER_MAC[..], &GATEWAY_MAC, &[8, 0], &hop(&up)].concat();
        let got = bed.run(&of_gnb(&g_pdu(TEID, QFI, &up)));
        assert_eq!(got, Verdict::Forwarded { port: 2, frame: want });

        let down = datagram(SERVER, UE, (2, 1), b"to the UE");
        let got = bed.switch.test_run(bed.server, &frame(SERVER_MAC, &down)).unwrap().verdict;
        let Verdict::Forwarded { port: 1, frame: sent } = got else { panic!("{got:?}") };
        let headers = etherparse::PacketHeaders::from_ethernet_slice(&sent).unwrap();
        let Some(etherparse::NetHeaders::Ipv4(ip, _)) = headers.net else { panic!("IPv4") };
        assert_eq!((ip.source, ip.destination), (N3, GNB));
        assert_eq!((ip.time_to_live, ip.dont_fragment), (64, true));
        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
        let Some(etherparse::TransportHeader::Udp(udp)) = headers.transport else { panic!("UDP") };
        assert_eq!((udp.destination_port, udp.checksum), (2152, 0));
        // TS 29.281 §5.1, and DL PDU SESSION INFORMATION (TS 38.415 §5.5.2.1).
        let inner = hop(&down);
        let len = (inner.len() as u16 + 8).to_be_bytes();
        let head = [0x34, 255, len[0], len[1], 0x87, 0x65, 0x43, 0x21, 0, 0, 0, 0x85, 1, 0, QFI, 0];
        assert_eq!(headers.payload.slice(), [&head[..], &inner].concat());
    });
}

#[test]
fn rates_of_a_ue_hold_for_its_session() {
    in_netns(|| {
        let bed = bed();
        let session = bed.switch.session.get(TEID).unwrap().unwrap();
        let rated = Session { endpoint: 9, ..session };
        bed.switch.session.put(TEID, &rated).unwrap();
        assert_eq!(bed.switch.session.get(TEID).unwrap(), Some(rated));
        // Two packets of 1,000 bytes, and the next after a second.
        let (rate, burst) = (8_000, 2_000);
        let meter = EndpointMeter {
            guaranteed_bps: 0,
            guaranteed_burst_bytes: 0,
            maximum_bps: rate,
            maximum_burst_bytes: burst,
        };
        bed.switch.endpoint_meter.put((1, Direction::Uplink, 9), &meter).unwrap();
        let up = of_gnb(&g_pdu(TEID, QFI, &datagram(UE, SERVER, (1, 2), &[0; 972])));
        for _ in 0..2 {
            assert!(matches!(bed.run(&up), Verdict::Forwarded { port: 2, .. }));
        }
        assert_eq!(bed.run(&up), Verdict::Dropped(drop::OVER_ENDPOINT_MAXIMUM));
    });
}

/// By the tunnel that it comes in, and by the tag of its UE: the same UE's packet, and the same rule
/// in a table of many.
#[test]
fn a_rule_is_about_a_tunnel_or_a_tag() {
    in_netns(|| {
        let bed = bed();
        let session = bed.switch.session.get(TEID).unwrap().unwrap();
        let tagged = Session { tag: 7, ..session };
        bed.switch.session.put(TEID, &tagged).unwrap();
        assert_eq!(bed.switch.session.get(TEID).unwrap(), Some(tagged));
        let any = Rule::any(RuleAction::Drop);
        let up = of_gnb(&g_pdu(TEID, QFI, &to_server()));
        let from_server = frame(SERVER_MAC, &datagram(SERVER, UE, (2, 1), b"to the UE"));
        // Rules that no bit of a packet tells from the last, so that there is a long list of them.
        let (from, to) = (Some([1, 65_534]), Some([3, 65_534]));
        let others = Rule { source_ports: from, destination_ports: to, ..any };
        for few in [true, false] {
            if !few {
                let (put, ended) = bed.switch.classifier.batch(|| {
                    (0..100).try_for_each(|n| bed.switch.classifier.put(1_000 + n, &others))
                });
                put.and(ended).unwrap();
            }
            let dropped = |rule: Rule, frame: &[u8]| {
                bed.switch.classifier.put(5, &rule).unwrap();
                assert_eq!(bed.switch.classifier.get(5).unwrap(), Some(rule));
                let interface = if frame == up { bed.gnb } else { bed.server };
                let got = bed.switch.test_run(interface, frame).unwrap().verdict;
                got == Verdict::Dropped(drop::CLASSIFIER_DROP)
            };
            assert!(dropped(Rule { teid: Some(TEID), ..any }, &up));
            assert!(!dropped(Rule { teid: Some(TEID + 1), ..any }, &up));
            assert!(dropped(Rule { tag: Some(7), ..any }, &up));
            assert!(!dropped(Rule { tag: Some(8), ..any }, &up));
            assert!(dropped(Rule { tag: Some(7), teid: Some(TEID), ..any }, &up));
            assert!(!dropped(Rule { tag: Some(8), teid: Some(TEID), ..any }, &up));
            // Who is bound by itself comes in no tunnel, whoever came before.
            assert!(!dropped(Rule { teid: Some(TEID), ..any }, &from_server));
            assert!(!dropped(Rule { tag: Some(7), ..any }, &from_server));
            let server = (2, IpAddr::from(SERVER).into());
            let bound = bed.switch.endpoint.get(server).unwrap().unwrap();
            bed.switch.endpoint.put(server, &Endpoint { tag: 8, ..bound }).unwrap();
            assert!(dropped(Rule { tag: Some(8), ..any }, &from_server));
            assert!(!dropped(Rule { tag: Some(8), ..any }, &up));
            bed.switch.endpoint.put(server, &bound).unwrap();
        }
    });
}

#[test]
fn a_packet_that_the_tunnel_does_not_carry_is_too_big() {
    in_netns(|| {
        let bed = bed();
        let len = |payload: usize| {
            let down = datagram(SERVER, UE, (2, 1), &vec![0; payload]);
            bed.switch.test_run(bed.server, &frame(SERVER_MAC, &down)).unwrap().verdict
        };
        // 1500 less 44 for the tunnel and 28 for the user's headers.
        assert!(matches!(len(1428), Verdict::Forwarded { port: 1, .. }));
        // Who sends more is told, and what would fit.
        let Verdict::Answered { frame: told } = len(1429) else { panic!() };
        let headers = etherparse::PacketHeaders::from_ethernet_slice(&told).unwrap();
        let Some(etherparse::TransportHeader::Icmpv4(icmp)) = headers.transport else { panic!() };
        let etherparse::Icmpv4Type::DestinationUnreachable(
            etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu },
        ) = icmp.icmp_type
        else {
            panic!("{icmp:?}")
        };
        assert_eq!(next_hop_mtu, 1500 - 44);
        assert_eq!(icmp.checksum, icmp.icmp_type.calc_checksum(headers.payload.slice()));
        // What comes up has its headers on top of the access MTU.
        let up = datagram(UE, SERVER, (1, 2), &[0; 1472]);
        let got = bed.run(&of_gnb(&g_pdu(TEID, QFI, &up)));
        assert!(matches!(got, Verdict::Forwarded { port: 2, .. }), "{got:?}");
        let up = datagram(UE, SERVER, (1, 2), &[0; 1473]);
        // The UE gets it as from the server, in its tunnel.
        let Verdict::Forwarded { port: 1, frame } = bed.run(&of_gnb(&g_pdu(TEID, QFI, &up))) else {
            panic!()
        };
        let inner = etherparse::PacketHeaders::from_ip_slice(&frame[14 + 44..]).unwrap();
        let Some(etherparse::NetHeaders::Ipv4(ip, _)) = inner.net else { panic!("IPv4") };
        assert_eq!((ip.source, ip.destination), (SERVER, UE));
        let Some(etherparse::TransportHeader::Icmpv4(icmp)) = inner.transport else { panic!() };
        let is_told = matches!(icmp.icmp_type, etherparse::Icmpv4Type::DestinationUnreachable(_));
        assert!(is_told, "{icmp:?}");
    });
}

#[test]
fn an_echo_request_is_answered() {
    in_netns(|| {
        let bed = bed();
        let request = datagram(GNB, N3, (4000, 2152), &message(2, 1, 0, &[0xab, 0xcd, 0, 0]));
        let Verdict::Answered { frame } = bed.run(&frame(GNB_MAC, &request)) else { panic!() };
        assert_eq!((&frame[..6], &frame[6..12]), (&GNB_MAC[..], &GATEWAY_MAC[..]));
        let headers = etherparse::PacketHeaders::from_ethernet_slice(&frame).unwrap();
        let Some(etherparse::NetHeaders::Ipv4(ip, _)) = headers.net else { panic!("IPv4") };
        assert_eq!((ip.source, ip.destination), (N3, GNB));
        let Some(etherparse::TransportHeader::Udp(udp)) = headers.transport else { panic!("UDP") };
        assert_eq!((udp.source_port, udp.destination_port), (2152, 4000));
        let want = message(2, 2, 0, &[0xab, 0xcd, 0, 0, 14, 0]);
        assert_eq!(headers.payload.slice(), want);
    });
}

#[test]
fn of_an_unknown_teid_the_gnb_is_told_so_often_and_not_more() {
    in_netns(|| {
        let bed = bed();
        let unknown = of_gnb(&g_pdu(77, QFI, &to_server()));
        let Verdict::Answered { frame: told } = bed.run(&unknown) else { panic!() };
        let headers = etherparse::PacketHeaders::from_ethernet_slice(&told).unwrap();
        // UDP port extension header, TEID Data I, GTP-U peer address (TS 29.281 §7.3.1).
        let rest = [&[0, 0, 0, 0x40, 1, 2152u16.to_be_bytes()[0], 2152u16.to_be_bytes()[1], 0][..]];
        let elements = [&[16, 0, 0, 0, 77, 133, 0, 4][..], &N3].concat();
        let want = message(6, 26, 0, &[rest.concat(), elements].concat());
        assert_eq!(headers.payload.slice(), want);

        // Bucket and refill of a thousand: of 4,000 in less than a second some are not told.
        let verdicts: Vec<_> = (0..4_000).map(|_| bed.run(&unknown)).collect();
        let told = verdicts.iter().filter(|v| matches!(v, Verdict::Answered { .. })).count();
        let silent =
            verdicts.iter().filter(|v| **v == Verdict::Dropped(drop::UNKNOWN_TEID)).count();
        assert_eq!(told + silent, 4_000);
        assert!(told >= 999, "{told}");
        assert!(silent > 0, "{told} were told");
        // Who does not belong to the port is told nothing.
        let packet = datagram([203, 0, 113, 1], N3, (2152, 2152), &g_pdu(77, QFI, &to_server()));
        bed.drops(&frame(GNB_MAC, &packet), drop::SPOOFED_SOURCE, "a stranger");
    });
}

#[test]
fn a_session_is_of_one_gnb_one_ue_and_its_flows() {
    in_netns(|| {
        let bed = bed();
        let spoofed = datagram([10, 1, 0, 2], SERVER, (1, 2), b"of another UE");
        bed.drops(&of_gnb(&g_pdu(TEID, QFI, &spoofed)), drop::SPOOFED_SOURCE, "another UE");
        let v6 = [&[0x60, 0, 0, 0, 0, 0, 59, 64][..], &[0xfd; 32]].concat();
        bed.drops(&of_gnb(&g_pdu(TEID, QFI, &v6)), drop::SPOOFED_SOURCE, "no IPv6 in it");
        let other = datagram(SERVER, N3, (2152, 2152), &g_pdu(TEID, QFI, &to_server()));
        bed.drops(&frame(GNB_MAC, &other), drop::SPOOFED_SOURCE, "another gNB");
        let elsewhere =
            frame(SERVER_MAC, &datagram(GNB, N3, (2152, 2152), &g_pdu(TEID, QFI, &to_server())));
        let got = bed.switch.test_run(bed.server, &elsewhere).unwrap().verdict;
        assert_eq!(got, Verdict::Dropped(drop::SPOOFED_SOURCE), "at another port");
        bed.drops(&of_gnb(&g_pdu(TEID, 8, &to_server())), drop::QFI_NOT_ALLOWED, "another flow");
        let bare = message(0, 255, TEID, &to_server());
        bed.drops(&of_gnb(&bare), drop::QFI_NOT_ALLOWED, "no container");
    });
}

/// Published failure: an extension header of length 0 makes an endless loop.
#[test]
fn gtp_extension_header_of_length_0() {
    in_netns(|| {
        let bed = bed();
        for kind in [0x85, 0x40, 0xc0] {
            let rest = [&[0, 0, 0, kind, 0, 0x10, QFI, kind][..], &to_server()].concat();
            bed.drops(&of_gnb(&message(4, 255, TEID, &rest)), drop::GTP_MALFORMED, "empty");
        }
    });
}

/// Published failure: fields that flags promise and that are not there are read all the same.
#[test]
fn gtp_missing_fields() {
    in_netns(|| {
        let bed = bed();
        let whole = g_pdu(TEID, QFI, &to_server());
        let inner = whole.len() - to_server().len();
        for len in 0..whole.len() {
            // The datagram is cut, and says so; the length field of GTP-U does not.
            let reason = drop::GTP_MALFORMED;
            bed.drops(&of_gnb(&whole[..len]), reason, &format!("{len} bytes"));
            // Now it does too.
            if len >= 8 {
                let mut cut = whole[..len].to_vec();
                cut[2..4].copy_from_slice(&(len as u16 - 8).to_be_bytes());
                let reason = if len <= inner { drop::GTP_MALFORMED } else { drop::MALFORMED };
                bed.drops(&of_gnb(&cut), reason, &format!("{len} bytes, and says so"));
            }
        }
        for flags in [1, 2, 4, 7] {
            let none = message(flags, 255, TEID, &[]);
            bed.drops(&of_gnb(&none), drop::GTP_MALFORMED, "no optional fields");
        }
        let no_sequence = message(0, 1, 0, &[]);
        bed.drops(&of_gnb(&no_sequence), drop::GTP_MALFORMED, "an echo request without number");
    });
}

/// Published failure: a length of 0 in GTP-U, UDP or IP.
#[test]
fn gtp_zero_length_fields() {
    in_netns(|| {
        let bed = bed();
        let whole = of_gnb(&g_pdu(TEID, QFI, &to_server()));
        let zero = |at: usize| {
            let mut frame = whole.clone();
            frame[at..at + 2].fill(0);
            frame
        };
        bed.drops(&zero(14 + 20 + 8 + 2), drop::GTP_MALFORMED, "GTP-U");
        bed.drops(&zero(14 + 20 + 4), drop::GTP_MALFORMED, "UDP");
        bed.drops(&zero(14 + 2), drop::MALFORMED, "outer IP");
        bed.drops(&zero(14 + 20 + 8 + 16 + 2), drop::MALFORMED, "inner IP");
        bed.drops(&of_gnb(&message(0, 255, TEID, &[])), drop::GTP_MALFORMED, "nothing in it");
    });
}

/// Published failure: an end marker of a tunnel that there is not.
#[test]
fn gtp_end_marker_without_session() {
    in_netns(|| {
        let bed = bed();
        for teid in [0, 77, u32::MAX] {
            bed.drops(&of_gnb(&message(0, 254, teid, &[])), drop::END_MARKER, "no session");
        }
        bed.drops(&of_gnb(&message(0, 254, TEID, &[])), drop::END_MARKER, "of a session");
        bed.drops(&of_gnb(&message(0, 254, TEID, &to_server())), drop::END_MARKER, "a full one");
    });
}

/// Published failure: a UE sends GTP-U itself, whose inner packet is then taken for another UE's.
#[test]
fn gtp_in_gtp() {
    in_netns(|| {
        let bed = bed();
        let forged = datagram([10, 1, 0, 2], SERVER, (1, 2), b"as another UE");
        let inner = message(0, 255, TEID, &forged);
        for to in [GNB, SERVER, [203, 0, 113, 9]] {
            let nested = datagram(UE, to, (2152, 2152), &inner);
            let what = format!("to {}", Ipv4Addr::from(to));
            bed.drops(&of_gnb(&g_pdu(TEID, QFI, &nested)), drop::GTP_IN_GTP, &what);
        }
        let nested = datagram(UE, N3, (2152, 2152), &inner);
        bed.drops(&of_gnb(&g_pdu(TEID, QFI, &nested)), drop::CORE_ADDRESS, "to N3");
    });
}

#[test]
fn what_is_the_core_s_own_is_not_for_ues() {
    in_netns(|| {
        let bed = bed();
        let to_n3 = datagram(UE, N3, (1, 2123), b"");
        bed.drops(&of_gnb(&g_pdu(TEID, QFI, &to_n3)), drop::CORE_ADDRESS, "a UE to N3");
        let bare = datagram(GNB, N3, (1, 22), b"");
        bed.drops(&frame(GNB_MAC, &bare), drop::CORE_ADDRESS, "a gNB that wants something else");
        let mut fragment = datagram(GNB, N3, (2152, 2152), &g_pdu(TEID, QFI, &to_server()));
        fragment[6] = 0x20;
        bed.drops(&frame(GNB_MAC, &fragment), drop::CORE_ADDRESS, "a fragment");
    });
}

/// What arrives at an interface, as it arrives, until it is dropped.
struct Capture(std::os::fd::OwnedFd);

impl Capture {
    fn new(name: &str) -> Self {
        use std::os::fd::{AsRawFd, FromRawFd};
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
            sll_ifindex: common::interface(name).index.cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the pointers are of live values, with their lengths; the socket is owned here.
        unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            assert!(fd >= 0, "{}", std::io::Error::last_os_error());
            let socket = std::os::fd::OwnedFd::from_raw_fd(fd);
            let size = 64 << 20;
            let (size, len) = (&raw const size, size_of::<libc::c_int>() as libc::socklen_t);
            let set = libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVBUFFORCE,
                size.cast::<libc::c_void>(),
                len,
            );
            assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
            let len = size_of_val(&address) as libc::socklen_t;
            let bound = libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len);
            assert_eq!(bound, 0, "{}", std::io::Error::last_os_error());
            Self(socket)
        }
    }

    /// The next frame; `None`: none has come for this long.
    fn next(&self, wait_ms: i32) -> Option<Vec<u8>> {
        use std::os::fd::AsRawFd;
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let mut bytes = vec![0u8; 2048];
        // SAFETY: one descriptor, and room for as many bytes as is said.
        unsafe {
            if libc::poll(&raw mut poll, 1, wait_ms) < 1 {
                return None;
            }
            let fd = self.0.as_raw_fd();
            let len = libc::recv(fd, bytes.as_mut_ptr().cast(), bytes.len(), 0);
            bytes.truncate(usize::try_from(len).expect("a frame"));
        }
        Some(bytes)
    }
}

/// Message type and TEID of GTP-U over IPv4.
fn gtp_of(frame: &[u8]) -> Option<(u8, u32)> {
    let is_gtp = frame.get(12..14)? == [8, 0] && frame.get(36..38)? == 2152u16.to_be_bytes();
    let teid = frame.get(46..50)?.try_into().ok()?;
    is_gtp.then(|| (frame[43], u32::from_be_bytes(teid)))
}

/// Under traffic: of the old tunnel packets, then the end markers, then nothing more; of the new
/// one packets; and none is lost.
#[test]
fn a_hand_over_ends_the_old_tunnel_behind_its_last_packet() {
    const HAND_OVERS: u32 = 20;
    in_netns(|| {
        let bed = bed();
        selvedge_xdp::offload::prepare_veth("gnbh").unwrap();
        let capture = Capture::new("gnbh");
        let down = frame(SERVER_MAC, &datagram(SERVER, UE, (2, 1), b"to the UE"));
        let ue = ipnet::IpNet::from(IpAddr::from(UE));
        let mut sent = 0u64;
        let mut seen: Vec<(u8, u32)> = Vec::new();
        let drain = |seen: &mut Vec<(u8, u32)>, wait_ms| {
            while let Some(frame) = capture.next(wait_ms) {
                seen.extend(gtp_of(&frame));
            }
        };
        let mut inject = |n: u32| {
            bed.switch.inject(bed.server, &down, n).unwrap();
            sent += u64::from(n);
        };
        inject(64);
        for n in 1..=HAND_OVERS {
            let tunnel = Tunnel {
                local: N3.into(),
                gnb: GNB.into(),
                teid: DOWN_TEID + n,
                qfi: QFI,
                mtu: 1500,
            };
            let delivery = Delivery { port: 1, mac: GNB_MAC, tunnel: Some(tunnel) };
            std::thread::scope(|scope| {
                scope.spawn(|| bed.switch.delivery.put((1, ue), &delivery).unwrap());
                for _ in 0..16 {
                    inject(64);
                }
            });
            inject(64);
            drain(&mut seen, 0);
        }
        // The last markers come after a grace period.
        drain(&mut seen, 1000);

        let packets = seen.iter().filter(|(kind, _)| *kind == 255).count();
        assert_eq!(packets as u64, sent, "none is lost");
        for n in 0..HAND_OVERS {
            let teid = DOWN_TEID + n;
            let of: Vec<u8> =
                seen.iter().filter(|(_, of)| *of == teid).map(|(kind, _)| *kind).collect();
            let markers = of.iter().rev().take_while(|kind| **kind == 254).count();
            assert_eq!(markers, selvedge_xdp::END_MARKERS, "tunnel {n}: {of:?}");
            assert!(of[..of.len() - markers].iter().all(|kind| *kind == 255), "{n}: {of:?}");
        }
        let last: Vec<_> = seen.iter().filter(|(_, of)| *of == DOWN_TEID + HAND_OVERS).collect();
        assert!(!last.is_empty() && last.iter().all(|(kind, _)| *kind == 255));

        // Both prefixes of one UE lead into one tunnel: it ends with the second.
        let tunnel = Tunnel {
            local: N3.into(),
            gnb: GNB.into(),
            teid: DOWN_TEID + HAND_OVERS,
            qfi: QFI,
            mtu: 1500,
        };
        let also = "fd10::/64".parse().unwrap();
        let delivery = Delivery { port: 1, mac: GNB_MAC, tunnel: Some(tunnel) };
        bed.switch.delivery.put((1, also), &delivery).unwrap();
        assert!(bed.switch.delivery.remove((1, ue)).unwrap());
        assert_eq!(capture.next(200).and_then(|frame| gtp_of(&frame)), None, "still in use");
        assert!(bed.switch.delivery.remove((1, also)).unwrap());
        let ended = capture.next(2000).and_then(|frame| gtp_of(&frame));
        assert_eq!(ended, Some((254, DOWN_TEID + HAND_OVERS)));
    });
}
