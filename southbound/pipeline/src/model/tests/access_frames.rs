use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::{ClassifierAction, PortQueueEntry};

#[test]
fn a_packet_is_encapsulated() {
    // (packet, first outer word, next header): class AF41 of the slice's uplink with the
    // packet's ECN, and flow labels computed apart from this program.
    let cases = [
        (Ip::udp(ROBOT, VIDEO), 0x6000_0000 | 34 << 22 | 0x773c9, 4),
        (Ip { class: 0xb9, ..Ip::udp(ROBOT, VIDEO) }, 0x6010_0000 | 34 << 22 | 0x773c9, 4),
        (Ip { protocol: 1, ..Ip::udp(ROBOT, VIDEO) }, 0x6000_0000 | 34 << 22 | 0xdbc57, 4),
        (Ip { protocol: 6, ..Ip::udp(ROBOT6, VIDEO6) }, 0x6000_0000 | 34 << 22 | 0x804d4, 41),
    ];
    for (packet, first_word, next_header) in cases {
        let outcome = process(&switch(), ROBOT_PORT, &packet.frame());
        let forwarded = Ip { hop_limit: 63, ..packet.clone() };
        let inner = forwarded.bytes();
        let expected = [
            &NEIGHBOR_MAC[..],
            &UPLINK_MAC,
            &[0x86, 0xdd],
            &u32::to_be_bytes(first_word),
            &u16::try_from(inner.len()).unwrap().to_be_bytes(),
            &[next_header, 64],
            &"5f00:0:11:fffe:2:1::".parse::<Ipv6Addr>().unwrap().octets(),
            &"5f00:0:12:21:e001::".parse::<Ipv6Addr>().unwrap().octets(),
            &inner,
        ]
        .concat();
        let got = out(outcome.verdict.clone());
        assert_eq!(got, (UPLINK, expected), "{} -> {}", packet.source, packet.destination);
        parse(&got.1);
        use TableKind::{Endpoint, NextHop, Policy, Port, SliceMeter, SliceRoute};
        let path = [Port, Endpoint, SliceRoute, SliceMeter, Policy, NextHop];
        assert_eq!(tables(&outcome), path);
        assert_eq!(outcome.seen, None);
    }
}

#[test]
fn drops_have_reasons() {
    use DropReason::*;
    let udp = Ip::udp;
    let raw = |ethertype, bytes: &[u8]| ethernet(ethertype, bytes);
    let edit = |frame: Vec<u8>, at: usize, byte: u8| {
        let mut frame = frame;
        frame[at] = byte;
        frame
    };
    let robot = || udp(ROBOT, VIDEO).frame();
    let robot6 = || udp(ROBOT6, VIDEO6).frame();
    let long = |len| Ip { payload: vec![0; len], ..udp(ROBOT, VIDEO) }.frame();
    let icmp = |kind| Ip { protocol: 1, payload: vec![kind; 24], ..udp(ROBOT, VIDEO) }.frame();
    let icmp6 = |kind| Ip { protocol: 58, payload: vec![kind; 24], ..udp(ROBOT6, VIDEO6) }.frame();
    // (what, port, frame, reason)
    let cases: Vec<(&str, PortId, Vec<u8>, DropReason)> = vec![
        ("no port", PortId(9), robot(), PortDisabled),
        ("no port, no frame", PortId(9), vec![], PortDisabled),
        ("VLAN", ROBOT_PORT, raw(0x8100, &[0; 60]), Unsupported),
        ("length field", ROBOT_PORT, raw(46, &[0; 60]), Unsupported),
        ("version 6 in IPv4", ROBOT_PORT, edit(robot(), 14, 0x65), Malformed),
        ("IHL 4", ROBOT_PORT, edit(robot(), 14, 0x44), Malformed),
        ("IHL over total length", ROBOT_PORT, edit(robot(), 14, 0x4f), Malformed),
        ("total length below header", ROBOT_PORT, edit(robot(), 17, 19), Malformed),
        ("total length beyond frame", ROBOT_PORT, edit(robot(), 17, 33), Malformed),
        ("version 4 in IPv6", ROBOT_PORT, edit(robot6(), 14, 0x45), Malformed),
        ("payload length beyond frame", ROBOT_PORT, edit(robot6(), 19, 13), Malformed),
        ("1501 bytes, may be fragmented", ROBOT_PORT, edit(long(1481), 20, 0), TooBig),
        ("the block", ROBOT_PORT, udp(ROBOT6, "5f00:0:12:e001::").frame(), Srv6FromAccess),
        ("the block beyond ours", ROBOT_PORT, udp(ROBOT6, "5f00:1::1").frame(), Srv6FromAccess),
        ("the block, spoofed", ROBOT_PORT, udp("fd66::6", "5f00:0:1::").frame(), Srv6FromAccess),
        ("another's address", ROBOT_PORT, udp(PLC, VIDEO).frame(), SpoofedSource),
        ("on another port", PLC_PORT, robot(), SpoofedSource),
        ("spoofed before hop limit", PLC_PORT, edit(robot(), 22, 1), SpoofedSource),
        ("multicast", ROBOT_PORT, udp(ROBOT, "224.0.0.251").frame(), Unsupported),
        ("multicast", ROBOT_PORT, udp(ROBOT6, "ff02::fb").frame(), Unsupported),
        ("broadcast", ROBOT_PORT, udp(ROBOT, "255.255.255.255").frame(), Unsupported),
        ("loopback", ROBOT_PORT, udp(ROBOT, "127.0.0.1").frame(), Unsupported),
        ("loopback", ROBOT_PORT, udp(ROBOT6, "::1").frame(), Unsupported),
        ("unspecified", ROBOT_PORT, udp(ROBOT, "0.0.0.0").frame(), Unsupported),
        ("unspecified", ROBOT_PORT, udp(ROBOT6, "::").frame(), Unsupported),
        ("link-local", ROBOT_PORT, udp(ROBOT, "169.254.7.7").frame(), Unsupported),
        ("link-local", ROBOT_PORT, udp(ROBOT6, "fe80::7").frame(), Unsupported),
        ("gateway", ROBOT_PORT, udp(ROBOT, "169.254.1.1").frame(), Unsupported),
        ("gateway", ROBOT_PORT, udp(ROBOT6, "fe80::1").frame(), Unsupported),
        ("router solicitation from afar", ROBOT_PORT, icmp6(133), Unsupported),
        ("neighbor advertisement", ROBOT_PORT, icmp6(136), Unsupported),
        ("redirect", ROBOT_PORT, icmp6(137), Unsupported),
        ("TTL 1 of an error", ROBOT_PORT, edit(icmp(11), 22, 1), HopLimit),
        ("TTL 0 of a fragment", ROBOT_PORT, edit(edit(robot(), 22, 0), 20, 0x20), HopLimit),
        ("hop limit 1 of an error", ROBOT_PORT, edit(icmp6(1), 21, 1), HopLimit),
        ("nowhere", ROBOT_PORT, udp(ROBOT, "192.0.2.1").frame(), NoRoute),
        ("in the other slice", ROBOT_PORT, udp(PHONE, PLC).frame(), NoRoute),
        ("policy not there", ROBOT_PORT, udp(ROBOT, "10.2.9.1").frame(), NoPolicy),
        ("interface gone", ROBOT_PORT, udp(ROBOT, "10.2.11.1").frame(), PortDown),
        ("not delivered here", ROBOT_PORT, udp(ROBOT, "10.1.0.99").frame(), NoDelivery),
        ("bare IP on fabric", UPLINK, robot(), Unsupported),
        ("bare IPv6 on fabric", UPLINK, robot6(), Unsupported),
    ];
    for (what, port, frame, reason) in cases {
        assert_eq!(verdict(port, &frame), Verdict::Drop(reason), "{what}");
    }
    assert!(matches!(verdict(ROBOT_PORT, &long(1480)), Verdict::Out { .. }), "1500 bytes");
    let echo = icmp6(128);
    assert!(matches!(verdict(ROBOT_PORT, &echo), Verdict::Out { .. }), "echo request");
}

#[test]
fn lldp_goes_to_the_agent_from_any_enabled_port() {
    let frame = ethernet(0x88cc, &[2, 7]);
    for port in [ROBOT_PORT, UPLINK] {
        assert_eq!(verdict(port, &frame), Verdict::PassToKernel);
    }
    assert_eq!(verdict(PortId(9), &frame), Verdict::Drop(DropReason::PortDisabled));
}

/// RFC 4861 §6.1.1, RFC 2131 §4.1, RFC 8415 §7: what the agent answers or relays.
#[test]
fn what_hosts_ask_a_router_goes_to_the_agent() {
    let dhcp = |source: &str, destination: &str, (from, to): (u16, u16)| {
        let payload = [from.to_be_bytes(), to.to_be_bytes(), [0, 12], [0; 2], [1; 2], [6; 2]];
        Ip { payload: payload.concat(), ..Ip::udp(source, destination) }
    };
    let solicit = |source: &str, hop_limit| Ip {
        protocol: 58,
        payload: vec![133, 0, 0, 0, 0, 0, 0, 0],
        hop_limit,
        ..Ip::udp(source, "ff02::2")
    };
    use DropReason::{Malformed, SpoofedSource, Unsupported};
    let (all, gateway) = ("255.255.255.255", "169.254.1.1");
    let (client, client6) = ((68, 67), (546, 547));
    let short = Ip { payload: vec![133; 7], ..solicit("fe80::7", 255) };
    let cases = [
        ("discover", dhcp("0.0.0.0", all, client), Ok(())),
        ("rebind", dhcp(ROBOT, all, client), Ok(())),
        ("renew", dhcp(ROBOT, gateway, client), Ok(())),
        ("a stranger", dhcp("10.9.9.9", all, client), Err(SpoofedSource)),
        ("a server", dhcp("0.0.0.0", all, (67, 68)), Err(SpoofedSource)),
        ("a server with an address", dhcp(ROBOT, all, (67, 68)), Err(Unsupported)),
        ("to one that is not here", dhcp("0.0.0.0", VIDEO, client), Err(SpoofedSource)),
        ("solicit", dhcp("fe80::7", "ff02::1:2", client6), Ok(())),
        ("solicit from nowhere", dhcp("::", "ff02::1:2", client6), Err(Unsupported)),
        ("to servers alone", dhcp("fe80::7", "ff05::1:3", client6), Err(Unsupported)),
        ("advertise", dhcp("fe80::7", "ff02::1:2", (547, 546)), Err(Unsupported)),
        ("router solicitation", solicit("fe80::7", 255), Ok(())),
        ("without an address", solicit("::", 255), Ok(())),
        ("of an endpoint", solicit(ROBOT6, 255), Ok(())),
        ("of another", solicit("fd66::6", 255), Err(SpoofedSource)),
        ("from beyond a router", solicit("fe80::7", 254), Err(Unsupported)),
        ("seven bytes", short, Err(Malformed)),
    ];
    for (what, packet, want) in cases {
        let want = want.map_or_else(Verdict::Drop, |()| Verdict::PassToKernel);
        assert_eq!(verdict(ROBOT_PORT, &packet.frame()), want, "{what}");
    }
    let fragment = |byte| {
        let mut frame = dhcp("0.0.0.0", all, client).frame();
        frame[20] = byte;
        frame
    };
    assert_eq!(verdict(ROBOT_PORT, &fragment(0x20)), Verdict::Drop(SpoofedSource));
    assert_eq!(verdict(ROBOT_PORT, &fragment(0x40)), Verdict::PassToKernel, "may not be cut");
}

#[test]
fn padding_is_trimmed() {
    let packet = Ip::udp(ROBOT, VIDEO);
    let padded = [packet.frame(), vec![0xaa; 14]].concat();
    assert_eq!(verdict(ROBOT_PORT, &padded), verdict(ROBOT_PORT, &packet.frame()));
    let packet = Ip::udp(ROBOT6, VIDEO6);
    let padded = [packet.frame(), vec![0xaa; 2000]].concat();
    assert_eq!(verdict(ROBOT_PORT, &padded), verdict(ROBOT_PORT, &packet.frame()));
}

#[test]
fn on_one_switch_nothing_is_encapsulated() {
    let packet = Ip::udp(ROBOT, PLC);
    let (port, frame) = out(verdict(ROBOT_PORT, &packet.frame()));
    let inner = Ip { hop_limit: 63, ..packet }.bytes();
    let header = [&PLC_MAC[..], &gateway::MAC, &[8, 0]].concat();
    assert_eq!((port, frame.as_slice()), (PLC_PORT, &[header, inner].concat()[..]));
    parse(&frame);
}

/// RFC 1624: the checksum follows the TTL by difference, over every first byte it can have.
#[test]
fn the_checksum_follows_the_hop_limit() {
    for hop_limit in 2..=255 {
        for class in [0, 0x2e << 2, 0xff] {
            let packet = Ip { hop_limit, class, ..Ip::udp(ROBOT, PLC) };
            let (_, frame) = out(verdict(ROBOT_PORT, &packet.frame()));
            assert_eq!(frame[14..], Ip { hop_limit: hop_limit - 1, ..packet }.bytes());
        }
    }
}

/// RFC 792, RFC 1191, RFC 4443 §3.2 and §3.3: by the gateway, quoting the packet.
#[test]
fn who_sends_what_goes_no_further_is_told() {
    let short =
        |source: &str, destination: &str| Ip { hop_limit: 1, ..Ip::udp(source, destination) };
    let long = |source: &str, destination: &str, len| Ip {
        payload: vec![7; len],
        ..Ip::udp(source, destination)
    };
    // (packet, type and code, the word behind the checksum)
    let cases = [
        (short(ROBOT, VIDEO), [11, 0], 0),
        (long(ROBOT, VIDEO, 1481), [3, 4], 1500),
        (short(ROBOT6, VIDEO6), [3, 0], 0),
        (long(ROBOT6, VIDEO6, 1461), [2, 0], 1500),
    ];
    for (packet, kind, word) in cases {
        let Verdict::Answer { port, frame } = verdict(ROBOT_PORT, &packet.frame()) else {
            panic!("{kind:?}")
        };
        assert_eq!((port, &frame[..6]), (ROBOT_PORT, &ROBOT_MAC[..]));
        parse(&frame);
        let header = if packet.source.is_ipv4() { 20 } else { 40 };
        let message = &frame[14 + header..];
        assert_eq!(message[..2], kind);
        assert_eq!(message[4..8], u32::to_be_bytes(word));
        assert_eq!(message[8..], packet.bytes()[..header + 8]);
    }
}

#[test]
fn options_and_fragments_have_their_say_in_the_flow_label() {
    let label = |frame: &[u8]| {
        let (_, frame) = out(verdict(ROBOT_PORT, frame));
        u32::from_be_bytes(frame[14..18].try_into().unwrap()) & 0xf_ffff
    };
    let packet = Ip::udp(ROBOT, VIDEO);
    assert_eq!(label(&packet.frame()), 0x773c9);
    for fragment in [[0x20, 0], [0, 1], [0x3f, 0xff]] {
        let mut frame = packet.frame();
        frame[20..22].copy_from_slice(&fragment);
        assert_eq!(label(&frame), 0x2a17b, "all fragments of a packet: {fragment:?}");
    }
    // Three words of options before the ports.
    let mut bytes = packet.bytes();
    bytes.splice(20..20, [1; 12]);
    bytes[0] = 0x48;
    bytes[3] += 12;
    assert_eq!(label(&ethernet(0x0800, &bytes)), 0x773c9);
    // Too short to have ports.
    let short = Ip { payload: vec![0x13, 0x88, 0], ..packet };
    assert_eq!(label(&short.frame()), 0x99087);
}

#[test]
fn the_highest_rule_that_matches_decides() {
    let udp = |rule: ClassifierEntry| ClassifierEntry { protocol: Some(17), ..rule };
    let to_80 =
        |rule: ClassifierEntry| ClassifierEntry { destination_ports: Some([80, 80]), ..rule };
    let drop = ClassifierAction::Drop;
    let packet = Ip { class: 46 << 2, ..Ip::udp(ROBOT, VIDEO) };
    let icmp = Ip { protocol: 1, ..packet.clone() };
    // (rules, packet, dropped)
    let cases: Vec<(&str, Vec<ClassifierEntry>, &Ip, bool)> = vec![
        ("none", vec![], &packet, false),
        ("all", vec![rule(1, drop)], &packet, true),
        ("pass above", vec![rule(1, drop), rule(2, ClassifierAction::Pass)], &packet, false),
        ("pass below", vec![rule(2, drop), rule(1, ClassifierAction::Pass)], &packet, true),
        ("udp", vec![udp(rule(1, drop))], &packet, true),
        ("udp, but icmp", vec![udp(rule(1, drop))], &icmp, false),
        ("port", vec![to_80(rule(1, drop))], &packet, true),
        ("port, but none", vec![to_80(rule(1, drop))], &icmp, false),
        (
            "port 0, but none",
            vec![ClassifierEntry { source_ports: Some([0, 0]), ..rule(1, drop) }],
            &icmp,
            false,
        ),
        (
            "other source port",
            vec![ClassifierEntry { source_ports: Some([80, 80]), ..rule(1, drop) }],
            &packet,
            false,
        ),
        ("dscp", vec![ClassifierEntry { dscp: Some(46), ..rule(1, drop) }], &packet, true),
        ("other dscp", vec![ClassifierEntry { dscp: Some(0), ..rule(1, drop) }], &packet, false),
        (
            "slice set",
            vec![ClassifierEntry { slice_set: Some(SliceSet(FACTORY.0)), ..rule(1, drop) }],
            &packet,
            true,
        ),
        (
            "other slice set",
            vec![ClassifierEntry { slice_set: Some(BOTH), ..rule(1, drop) }],
            &packet,
            false,
        ),
        (
            "tag",
            vec![ClassifierEntry { endpoint_tag: Some(EndpointTag(4)), ..rule(1, drop) }],
            &packet,
            true,
        ),
        (
            "other tag",
            vec![ClassifierEntry { endpoint_tag: Some(EndpointTag(5)), ..rule(1, drop) }],
            &packet,
            false,
        ),
        (
            "a tunnel, but none",
            vec![ClassifierEntry { tunnel_id: Some(1), ..rule(1, drop) }],
            &packet,
            false,
        ),
        (
            "source prefix",
            vec![ClassifierEntry { source: Some(net("10.1.0.0/16")), ..rule(1, drop) }],
            &packet,
            true,
        ),
        (
            "other destination",
            vec![ClassifierEntry { destination: Some(net("10.1.0.0/16")), ..rule(1, drop) }],
            &packet,
            false,
        ),
        (
            "IPv6 only",
            vec![ClassifierEntry { destination: Some(net("2000::/3")), ..rule(1, drop) }],
            &packet,
            false,
        ),
    ];
    for (what, rules, packet, dropped) in cases {
        let mut switch = switch();
        let Entry::Endpoint(robot) = endpoint(ROBOT_PORT, "10.1.0.11/32", SliceSet(FACTORY.0))
        else {
            unreachable!()
        };
        switch.insert(Entry::Endpoint(EndpointEntry { tag: EndpointTag(4), ..robot }));
        rules.into_iter().for_each(|rule| switch.insert(Entry::Classifier(rule.into())));
        let verdict = process(&switch, ROBOT_PORT, &packet.frame()).verdict;
        assert_eq!(verdict == Verdict::Drop(DropReason::ClassifierDrop), dropped, "{what}");
    }
}

#[test]
fn a_rule_can_choose_the_slice() {
    let packet = Ip::udp(PHONE, PLC);
    let mut switch = switch();
    let run = |switch: &Switch| process(switch, ROBOT_PORT, &packet.frame()).verdict;
    assert_eq!(run(&switch), Verdict::Drop(DropReason::NoRoute));
    switch.insert(Entry::Classifier(rule(1, ClassifierAction::SetSlice(FACTORY)).into()));
    assert_eq!(out(run(&switch)).0, PLC_PORT);
}

#[test]
fn a_rule_can_mark() {
    for (from, to) in [(ROBOT, VIDEO), (ROBOT6, VIDEO6)] {
        let packet = Ip { class: 46 << 2 | 1, ..Ip::udp(from, to) };
        let mut switch = switch();
        let run = |switch: &Switch| out(process(switch, ROBOT_PORT, &packet.frame()).verdict);
        let (port, plain) = run(&switch);
        switch.insert(Entry::Classifier(rule(1, ClassifierAction::Mark(10)).into()));
        let marked = run(&switch);
        let want = Ip { class: 10 << 2 | 1, hop_limit: 63, ..packet.clone() }.bytes();
        assert_eq!(marked, (port, [&plain[..54], &want].concat()), "the outer header is as it was");
        let _: IpHeaders = parse_ip(&marked.1[54..]); // its checksum is right
    }
}

#[test]
fn a_rule_can_steer() {
    let mut switch = switch();
    let run = |switch: &Switch, to: &str| {
        process(switch, ROBOT_PORT, &Ip::udp(ROBOT, to).frame()).verdict
    };
    let steer = |policy| Entry::Classifier(rule(1, ClassifierAction::Steer(policy)).into());
    // Through a hook, which no route leads to.
    switch.insert(steer(PolicyId(8)));
    for to in [VIDEO, PLC] {
        let hooked = run(&switch, to);
        assert!(matches!(hooked, Verdict::ToHook { hook: HookId(5), .. }), "{to}: {hooked:?}");
    }
    // No way where the slice has none, nor by a policy that is not there.
    assert_eq!(run(&switch, "192.0.2.1"), Verdict::Drop(DropReason::NoRoute));
    switch.insert(steer(PolicyId(404)));
    assert_eq!(run(&switch, VIDEO), Verdict::Drop(DropReason::NoPolicy));
}

#[test]
fn the_longest_prefix_wins_and_can_go() {
    let mut switch = switch();
    let frame = Ip::udp(ROBOT, "10.2.10.1").frame();
    let run = |switch: &Switch| out(process(switch, ROBOT_PORT, &frame).verdict).0;
    assert_eq!(run(&switch), PLC_PORT, "10.2.10.0/24: decapsulated on this very switch");
    let key = crate::Key::SliceRoute(SliceSet(FACTORY.0), net("10.2.10.0/24"));
    assert!(switch.remove(&key).is_some());
    assert_eq!(run(&switch), UPLINK, "10.2.0.0/16");
    assert_eq!(switch.remove(&key), None);
}

#[test]
fn a_default_route_of_one_family() {
    // (prefix of the only route, packet, whether it is found)
    let cases = [
        ("0.0.0.0/0", Ip::udp(ROBOT, "192.0.2.1"), true),
        ("0.0.0.0/0", Ip::udp(ROBOT6, "2001:db8::1"), false),
        ("2000::/3", Ip::udp(ROBOT6, "2001:db8::1"), true),
        ("2000::/3", Ip::udp(ROBOT, "192.0.2.1"), false),
        ("::/0", Ip::udp(ROBOT6, "2001:db8::1"), true),
        ("::/0", Ip::udp(ROBOT, "192.0.2.1"), true),
    ];
    for (prefix, packet, found) in cases {
        let mut switch = switch();
        let action = RouteAction::Policy(PolicyId(7));
        switch.insert(route(FACTORY.0, prefix, FACTORY, action));
        let verdict = process(&switch, ROBOT_PORT, &packet.frame()).verdict;
        assert_eq!(verdict != Verdict::Drop(DropReason::NoRoute), found, "{prefix}");
    }
}

#[test]
fn class_and_colour_are_the_meters() {
    let dscp =
        |verdict| out(verdict).1[14..16].iter().fold(0u16, |w, b| w << 8 | u16::from(*b)) >> 6 & 63;
    let uplink = Ip::udp(ROBOT, VIDEO).frame();
    let downlink = Ip::udp("10.3.0.7", VIDEO).frame();
    let unmetered = Ip::udp(PHONE, VIDEO).frame();
    assert_eq!(dscp(verdict(ROBOT_PORT, &uplink)), 34, "guaranteed, in profile");
    assert_eq!(dscp(verdict(PLC_PORT, &downlink)), 44, "urllc without a guarantee: excess");
    assert_eq!(dscp(verdict(ROBOT_PORT, &unmetered)), 0, "no meter: best effort");
    let mut switch = switch();
    switch.insert(meter(FACTORY, Direction::Downlink, Class::Urllc, 1));
    assert_eq!(dscp(process(&switch, PLC_PORT, &downlink).verdict), 46, "urllc");
    switch.insert(meter(FACTORY, Direction::Downlink, Class::BestEffort, 1));
    assert_eq!(dscp(process(&switch, PLC_PORT, &downlink).verdict), 0, "best effort is excess");
}

#[test]
fn queues_are_shown() {
    let mut switch = switch();
    switch.insert(Entry::PortQueue(PortQueueEntry {
        port: UPLINK,
        rate_bps: 97_000_000,
        threshold_bytes: [10, 20, 30],
        shaped_bps: [0; 3],
    }));
    let details = |switch: &Switch, source| {
        let frame = Ip::udp(source, VIDEO).frame();
        process(switch, ROBOT_PORT, &frame).hits.last().unwrap().detail.clone()
    };
    let charged = "guaranteed, in profile: passes and is charged 86 bytes";
    assert_eq!(details(&switch, ROBOT), charged);
    assert_eq!(details(&switch, PHONE), "best effort, excess: passes below 10 bytes of backlog");
    switch.insert(Entry::PortQueue(PortQueueEntry {
        port: UPLINK,
        rate_bps: 97_000_000,
        threshold_bytes: [10, 20, 30],
        shaped_bps: [0, 5_000_000, 0],
    }));
    let shaped = "guaranteed, in profile: queued by HTB at 5000000 bit/s";
    assert_eq!(details(&switch, ROBOT), shaped);
}

fn arp(operation: u8, sender: &str, target: &str) -> Vec<u8> {
    let [sender, target] = [sender, target].map(|a| a.parse::<Ipv4Addr>().unwrap().octets());
    let arp = [&[0, 1, 8, 0, 6, 4, 0, operation][..], &ROBOT_MAC, &sender, &[0; 6], &target];
    ethernet(0x0806, &arp.concat())
}

#[test]
fn the_gateway_answers_arp() {
    let expected = |padding: usize| {
        let arp = [
            &ROBOT_MAC[..],
            &gateway::MAC,
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2],
            &gateway::MAC,
            &[169, 254, 1, 1],
            &ROBOT_MAC,
            &[10, 1, 0, 11],
            &[0; 60][..padding],
        ];
        Verdict::Answer { port: ROBOT_PORT, frame: arp.concat() }
    };
    let request = arp(1, ROBOT, "169.254.1.1");
    assert_eq!(verdict(ROBOT_PORT, &request), expected(0));
    let padded = [request.clone(), vec![0; 18]].concat();
    assert_eq!(verdict(ROBOT_PORT, &padded), expected(18), "as long as it came");

    let other_hardware = {
        let mut frame = request;
        frame[15] = 6;
        frame
    };
    let seen = |address: &str| {
        let address = address.parse().unwrap();
        Some(Seen { port: ROBOT_PORT, mac: ROBOT_MAC, address })
    };
    use DropReason::{Malformed, SpoofedSource, Unsupported};
    // (frame, reason, reported)
    let cases = [
        (arp(1, "10.9.9.9", "169.254.1.1"), SpoofedSource, seen("10.9.9.9")),
        (arp(1, "0.0.0.0", "169.254.1.1"), SpoofedSource, None),
        (arp(1, ROBOT, PHONE), Unsupported, None),
        (arp(1, "10.9.9.9", PHONE), Unsupported, seen("10.9.9.9")),
        (arp(2, "10.9.9.9", "169.254.1.1"), Unsupported, seen("10.9.9.9")),
        (other_hardware, Unsupported, None),
        (arp(1, ROBOT, "169.254.1.1")[..41].to_vec(), Malformed, None),
    ];
    for (frame, reason, seen) in cases {
        let outcome = process(&switch(), ROBOT_PORT, &frame);
        assert_eq!((outcome.verdict, outcome.seen), (Verdict::Drop(reason), seen));
    }
}

fn solicitation(source: &str, target: &str, hop_limit: u8, options: &[u8]) -> Vec<u8> {
    let target: Ipv6Addr = target.parse().unwrap();
    let message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), options].concat();
    let destination = "ff02::1:ff00:1";
    Ip { protocol: 58, hop_limit, payload: message, ..Ip::udp(source, destination) }.frame()
}

#[test]
fn the_gateway_answers_neighbor_solicitations() {
    let link_layer = [&[1, 1][..], &ROBOT_MAC].concat();
    let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
    for source in [ROBOT6, "fe80::bad:cafe"] {
        for options in [&link_layer[..], &[], &[&link_layer[..], &nonce].concat()] {
            let request = solicitation(source, "fe80::1", 255, options);
            let Verdict::Answer { port: ROBOT_PORT, frame } = verdict(ROBOT_PORT, &request) else {
                panic!("{source} got no answer");
            };
            assert_eq!(frame.len(), 86);
            assert_eq!(frame[..12], [ROBOT_MAC, gateway::MAC].concat());
            let headers = parse(&frame);
            let Some(NetHeaders::Ipv6(ip, _)) = headers.net else { panic!("IPv6") };
            assert_eq!(ip.hop_limit, 255);
            assert_eq!(ip.source_addr(), gateway::IPV6);
            assert_eq!(ip.destination_addr(), source.parse::<Ipv6Addr>().unwrap());
            assert_eq!((ip.traffic_class, ip.flow_label.value()), (0, 0));
            let message = etherparse::Icmpv6Slice::from_slice(&frame[54..]).unwrap();
            assert!(message.is_checksum_valid(ip.source, ip.destination));
            let expected = [
                &[136, 0][..],
                &frame[56..58],
                &[0x60, 0, 0, 0],
                &gateway::IPV6.octets(),
                &[2, 1],
                &gateway::MAC,
            ];
            assert_eq!(frame[54..], expected.concat());
        }
    }
    let seen = |address: &str| {
        let address = address.parse().unwrap();
        Some(Seen { port: ROBOT_PORT, mac: ROBOT_MAC, address })
    };
    use DropReason::{Malformed, SpoofedSource, Unsupported};
    // (frame, reason, reported)
    let cases = [
        (solicitation(ROBOT6, "fe80::1", 254, &[]), Unsupported, None),
        (solicitation("fd66::6", "fe80::1", 255, &[]), SpoofedSource, seen("fd66::6")),
        (solicitation("::", "fe80::1", 255, &[]), SpoofedSource, None),
        (solicitation("::", "fd66::6", 255, &[]), Unsupported, seen("fd66::6")),
        (solicitation("::", ROBOT6, 255, &[]), Unsupported, None),
        (solicitation(ROBOT6, "fd10::12", 255, &[]), Unsupported, None),
        (solicitation("fe80::5", "fd10::12", 255, &[]), Unsupported, None),
        (solicitation(ROBOT6, "fe80::1", 255, &[])[..77].to_vec(), Malformed, None),
    ];
    for (frame, reason, seen) in cases {
        let outcome = process(&switch(), ROBOT_PORT, &frame);
        assert_eq!((outcome.verdict, outcome.seen), (Verdict::Drop(reason), seen));
    }
}

#[test]
fn a_source_that_is_not_bound_is_reported() {
    let seen = |frame: &[u8]| process(&switch(), ROBOT_PORT, frame).seen.map(|seen| seen.address);
    assert_eq!(seen(&Ip::udp(PLC, VIDEO).frame()), Some(PLC.parse().unwrap()));
    assert_eq!(seen(&Ip::udp("fd66::6", VIDEO6).frame()), Some("fd66::6".parse().unwrap()));
    assert_eq!(seen(&Ip::udp("fe80::6", VIDEO6).frame()), None, "link-local");
    assert_eq!(seen(&Ip::udp("0.0.0.0", VIDEO).frame()), None, "unspecified");
}

#[test]
fn a_port_without_an_entry_shows_who_is_there() {
    let switch = switch();
    let shown = |frame: Vec<u8>| process(&switch, PortId(9), &frame).seen.map(|seen| seen.address);
    let with_source = |mut frame: Vec<u8>, at: usize, source: &[u8]| {
        frame[at..at + source.len()].copy_from_slice(source);
        frame
    };
    let (v4, v6) = (Ip::udp(ROBOT, VIDEO).frame(), Ip::udp(ROBOT6, VIDEO6).frame());
    let arp = arp(1, ROBOT, "169.254.1.1");
    for (what, frame, want) in [
        ("IPv4", v4.clone(), Some(ROBOT)),
        ("IPv6", v6.clone(), Some(ROBOT6)),
        ("ARP", arp.clone(), Some(ROBOT)),
        ("half an ARP", arp[..41].to_vec(), None),
        ("half an IPv6 header", v6[..53].to_vec(), None),
        ("link-local", with_source(v4, 26, &[169, 254, 0, 9]), None),
        ("fabric", with_source(v6, 22, &[0x5f, 0]), None),
        ("nothing", Vec::new(), None),
    ] {
        assert_eq!(shown(frame), want.map(|a| a.to_string().parse().unwrap()), "{what}");
    }
}
