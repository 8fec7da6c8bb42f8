use std::net::Ipv6Addr;

use super::*;
use crate::BackupEntry;

fn inner() -> Ip {
    Ip::udp(VIDEO, PLC)
}

#[test]
fn transit_changes_addresses_and_hop_limit() {
    let frame = fabric(&[0x12, 0xe001], FACTORY, 64, 34 << 2, &inner().bytes());
    let (port, got) = out(verdict(UPLINK, &frame));
    let mut expected = frame;
    expected[..12].copy_from_slice(&[NEIGHBOR_MAC, UPLINK_MAC].concat());
    expected[21] = 63;
    assert_eq!((port, got), (UPLINK, expected));
}

#[test]
fn a_way_point_is_consumed() {
    let frame = fabric(&[NODE, 0x12, 0x21, 4, 5, 6], FACTORY, 9, 0, &inner().bytes());
    let (_, got) = out(verdict(UPLINK, &frame));
    let destination: Ipv6Addr = "5f00:0:12:21:4:5:6:0".parse().unwrap();
    assert_eq!(got[38..54], destination.octets());
    assert_eq!(got[21], 8);
}

/// Once, where there is room for its ids, and not onto another port that is down.
#[test]
fn a_port_that_is_down_is_gone_around() {
    let mut switch = switch();
    let other = PortId(UPLINK.0 + 100);
    let (mac, other_mac) = ([2, 0, 0, 0, 9, 9], [2, 0, 0, 0, 9, 8]);
    switch.set_port(other, Port { mac: other_mac, up: true });
    let hop = NextHopEntry { node: NodeSid(0x12), port: UPLINK, mac: NEIGHBOR_MAC, backup: 3 };
    switch.insert(Entry::NextHop(hop));
    let (around, sids) = (UPLINK, vec![0x31, 0x32]);
    switch.insert(Entry::Backup(BackupEntry { around, backup: 3, port: other, mac, sids }));
    let frame = |sids: &[u16]| fabric(sids, FACTORY, 64, 0, &inner().bytes());
    let verdict = |switch: &Switch, frame: &[u8]| process(switch, UPLINK, frame).verdict;

    let (port, _) = out(verdict(&switch, &frame(&[0x12, 0xe001])));
    assert_eq!(port, UPLINK, "while it is up");
    switch.set_down(UPLINK, true);
    let (port, led) = out(verdict(&switch, &frame(&[0x12, 0xe001])));
    assert_eq!((port, &led[..12]), (other, &[mac, other_mac].concat()[..]));
    let destination: Ipv6Addr = "5f00:0:31:32:12:e001::".parse().unwrap();
    assert_eq!((&led[38..54], led[37], led[21]), (&destination.octets()[..], 2, 63));
    // As it would come back from elsewhere.
    let mut again = frame(&[0x12, 0xe001]);
    again[37] = 2;
    assert_eq!(verdict(&switch, &again), Verdict::Drop(DropReason::PortDown), "once");
    out(verdict(&switch, &frame(&[0x12, 2, 3, 4])));
    let full = verdict(&switch, &frame(&[0x12, 2, 3, 4, 5]));
    assert_eq!(full, Verdict::Drop(DropReason::NoRepairRoom));
    let none = verdict(&switch, &frame(&[0x21, 0xe001]));
    assert_eq!(none, Verdict::Drop(DropReason::PortDown), "no backup");
    switch.set_down(other, true);
    let both = verdict(&switch, &frame(&[0x12, 0xe001]));
    assert_eq!(both, Verdict::Drop(DropReason::PortDown), "both");
}

#[test]
fn the_last_segment_delivers_in_the_slice_of_the_source() {
    let frame = |slice| fabric(&[NODE, 0xe001], slice, 1, 34 << 2, &inner().bytes());
    let (port, got) = out(verdict(UPLINK, &frame(FACTORY)));
    let header = [&PLC_MAC[..], &gateway::MAC, &[8, 0]].concat();
    assert_eq!((port, got), (PLC_PORT, [header, inner().bytes()].concat()));

    let other = verdict(UPLINK, &frame(SliceId::DEFAULT));
    assert_eq!(other, Verdict::Drop(DropReason::NoDelivery), "isolation");

    let packet = Ip::udp(VIDEO6, ROBOT6);
    let frame = fabric(&[NODE, 0xe001], FACTORY, 64, 0, &packet.bytes());
    let (port, got) = out(verdict(UPLINK, &frame));
    let header = [&ROBOT_MAC[..], &gateway::MAC, &[0x86, 0xdd]].concat();
    assert_eq!((port, got), (ROBOT_PORT, [header, packet.bytes()].concat()));
}

/// RFC 6040 §4.2, as far as the outer header can say anything.
#[test]
fn congestion_is_carried_in() {
    const NOT_ECT: u8 = 0;
    const ECT1: u8 = 1;
    const ECT0: u8 = 2;
    const CE: u8 = 3;
    for v6 in [false, true] {
        for outer in [NOT_ECT, ECT1, ECT0, CE] {
            for inner in [NOT_ECT, ECT1, ECT0, CE] {
                let packet = if v6 { Ip::udp(VIDEO6, ROBOT6) } else { Ip::udp(VIDEO, ROBOT) };
                let packet = Ip { class: 46 << 2 | inner, ..packet };
                let class = 46 << 2 | outer;
                let frame = fabric(&[NODE, 0xe001], FACTORY, 64, class, &packet.bytes());
                let got = verdict(UPLINK, &frame);
                let want = match (outer, inner) {
                    (CE, NOT_ECT) => {
                        assert_eq!(got, Verdict::Drop(DropReason::Malformed));
                        continue;
                    }
                    (CE, _) => CE,
                    (ECT1, ECT0) => ECT1,
                    _ => inner,
                };
                let (_, got) = out(got);
                parse_ip(&got[14..]);
                assert_eq!(got[14..], Ip { class: 46 << 2 | want, ..packet }.bytes());
            }
        }
    }
}

/// The difference carries twice (RFC 1624 §4): a checksum of 0 and ECT(0), of 1 and ECT(1).
#[test]
fn congestion_changes_a_checksum_that_wraps() {
    for (ecn, checksum) in [(2, 0u16), (1, 1), (2, 0xffff - 1), (1, 0xffff - 1)] {
        let packet = Ip { class: ecn, ..Ip::udp(VIDEO, ROBOT) };
        let mut bytes = packet.bytes();
        // What the identification gains, the checksum loses (ones' complement).
        let now = u32::from(u16::from_be_bytes([bytes[10], bytes[11]]));
        let gain = now + u32::from(!checksum);
        let gain = (gain & 0xffff) + (gain >> 16);
        let id = u32::from(u16::from_be_bytes([bytes[4], bytes[5]])) + gain;
        let id = ((id & 0xffff) + (id >> 16)) as u16;
        bytes[4..6].copy_from_slice(&id.to_be_bytes());
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        parse_ip(&bytes);
        let (_, got) = out(verdict(UPLINK, &fabric(&[NODE, 0xe001], FACTORY, 64, 3, &bytes)));
        parse_ip(&got[14..]);
        assert_eq!(got[15] & 3, 3);
    }
}

#[test]
fn drops_have_reasons() {
    use DropReason::*;
    let frame = |sids: &[u16]| fabric(sids, FACTORY, 64, 0, &inner().bytes());
    let transit = || frame(&[0x12]);
    let last = || frame(&[NODE, 0xe001]);
    let edit = |frame: Vec<u8>, at: usize, byte: u8| {
        let mut frame = frame;
        frame[at] = byte;
        frame
    };
    let not_inner = |bytes: &[u8]| fabric(&[NODE, 0xe001], FACTORY, 64, 0, bytes);
    let longer = [inner().bytes(), vec![0]].concat();
    // (what, frame, reason)
    let cases: Vec<(&str, Vec<u8>, DropReason)> = vec![
        ("ARP", ethernet(0x0806, &[0; 28]), Unsupported),
        ("version", edit(transit(), 14, 0x40), Unsupported),
        ("source outside the block", edit(transit(), 25, 1), Unsupported),
        ("destination outside the block", edit(transit(), 41, 1), Unsupported),
        ("next header 17", edit(transit(), 20, 17), Unsupported),
        ("payload beyond frame", edit(transit(), 19, 33), Malformed),
        ("no ingress of ours", edit(transit(), 29, 0xff), ForeignSource),
        ("not ours, and nowhere", edit(frame(&[0x99]), 29, 0xff), ForeignSource),
        ("hop limit 1", edit(transit(), 21, 1), HopLimit),
        ("hop limit 0", edit(transit(), 21, 0), HopLimit),
        ("no segment", frame(&[]), UnknownSid),
        ("ends at this node", frame(&[NODE]), UnknownSid),
        ("function of another node", frame(&[0xe002]), UnknownSid),
        ("unknown function", frame(&[NODE, 0xffff]), UnknownSid),
        ("unknown node", frame(&[0x99]), NoNextHop),
        ("beyond the nodes", frame(&[0xdfff]), NoNextHop),
        ("unknown node, hop limit 1", edit(frame(&[0x99]), 21, 1), NoNextHop),
        ("five rounds", frame(&[NODE, NODE, NODE, NODE, 0x12]), UnknownSid),
        ("hook is down", frame(&[NODE, 0xe107, 0x12]), HookDown),
        ("interface gone", frame(&[0x14]), PortDown),
        ("inner of the other version", edit(last(), 20, 41), Malformed),
        ("inner is cut", not_inner(&inner().bytes()[..31]), Malformed),
        ("inner has a tail", not_inner(&longer), Malformed),
        ("inner is no header", not_inner(&[0x45; 19]), Malformed),
    ];
    for (what, frame, reason) in cases {
        assert_eq!(verdict(UPLINK, &frame), Verdict::Drop(reason), "{what}");
    }
    assert_eq!(out(verdict(UPLINK, &frame(&[NODE, NODE, NODE, 0x12]))).0, UPLINK, "four rounds");
}

#[test]
fn a_hook_gets_the_packet_and_gives_it_back() {
    let frame = fabric(&[NODE, 0xe105, 0x12, 0xe001], FACTORY, 64, 46 << 2, &inner().bytes());
    let mut expected = frame.clone();
    let destination: Ipv6Addr = "5f00:0:12:e001::".parse().unwrap();
    expected[38..54].copy_from_slice(&destination.octets());
    let to_hook = verdict(UPLINK, &frame);
    assert_eq!(to_hook, Verdict::ToHook { hook: HookId(5), frame: expected.clone() });

    // Back: the source says downlink, whose meter here guarantees nothing to urllc.
    let (port, got) = out(verdict(HookId(5), &expected));
    assert_eq!(port, UPLINK);
    assert_eq!(got[14..16], [0x60 | 44 >> 2, 0], "VOICE-ADMIT");
    assert_eq!(got[21], 63);

    // A slice that is not metered here keeps its colour.
    let frame = fabric(&[0x12], SliceId(77), 64, 46 << 2 | 1, &inner().bytes());
    let (_, got) = out(verdict(HookId(5), &frame));
    assert_eq!(got[14..16], frame[14..16]);

    let foreign = Ip::udp(ROBOT, VIDEO).frame();
    assert_eq!(verdict(HookId(5), &foreign), Verdict::Drop(DropReason::Unsupported));
}

#[test]
fn a_hook_that_is_down_is_passed_by_or_not() {
    let bypass = fabric(&[NODE, 0xe106, 0x12], FACTORY, 64, 0, &inner().bytes());
    let (_, got) = out(verdict(UPLINK, &bypass));
    assert_eq!(got[38..54], wire::outer_destination(&[0x12]).octets());
    let mut switch = switch();
    switch.set_hook(HookId(5), false);
    let drop = fabric(&[NODE, 0xe105, 0x12], FACTORY, 64, 0, &inner().bytes());
    let outcome = process(&switch, UPLINK, &drop);
    assert_eq!(outcome.verdict, Verdict::Drop(DropReason::HookDown));
    assert_eq!(outcome.hits.last().unwrap().detail, "hook 5 does not run: drop");
}

/// A path that begins with a hook of the ingress itself.
#[test]
fn a_hook_at_the_ingress() {
    let packet = Ip::udp(ROBOT, "10.2.8.1");
    let Verdict::ToHook { hook, frame } = verdict(ROBOT_PORT, &packet.frame()) else {
        panic!("to the hook");
    };
    assert_eq!(hook, HookId(5));
    assert_eq!(frame[..14], ethernet(0x86dd, &[]), "the addresses it came with");
    assert_eq!(frame[38..54], wire::outer_destination(&[0x12, 0xe001]).octets());
    assert_eq!(frame[21], 64);
    assert_eq!(frame[54..], Ip { hop_limit: 63, ..packet }.bytes());
}

#[test]
fn padding_is_trimmed() {
    for sids in [&[0x12][..], &[NODE, 0xe001], &[NODE, 0xe105]] {
        let frame = fabric(sids, FACTORY, 64, 0, &inner().bytes());
        let padded = [frame.clone(), vec![0xaa; 9]].concat();
        assert_eq!(verdict(UPLINK, &padded), verdict(UPLINK, &frame), "{sids:x?}");
    }
}
