//! Every truncation of good frames, and frames of no particular kind.

use proptest::prelude::*;

use super::*;
use crate::ClassifierAction;

/// One good frame of each kind, and where it enters.
fn good() -> Vec<(Ingress, Vec<u8>)> {
    let inner = Ip::udp(VIDEO, PLC).bytes();
    let robot = Ingress::Port(ROBOT_PORT);
    let uplink = Ingress::Port(UPLINK);
    let arp =
        [&[0, 1, 8, 0, 6, 4, 0, 1][..], &ROBOT_MAC, &[10, 1, 0, 11], &[0; 6], &[169, 254, 1, 1]];
    let solicitation =
        [&[135, 0, 0, 0, 0, 0, 0, 0][..], &gateway::IPV6.octets(), &[1, 1], &ROBOT_MAC].concat();
    let solicitation = Ip {
        protocol: 58,
        hop_limit: 255,
        payload: solicitation,
        ..Ip::udp(ROBOT6, "ff02::1:ff00:1")
    };
    vec![
        (robot, Ip::udp(ROBOT, VIDEO).frame()),
        (robot, Ip::udp(ROBOT6, VIDEO6).frame()),
        (robot, Ip::udp(ROBOT, PLC).frame()),
        (robot, Ip::udp(ROBOT, "10.2.8.1").frame()),
        (robot, Ip::udp(ROBOT, "10.2.10.1").frame()),
        (robot, ethernet(0x0806, &arp.concat())),
        (robot, solicitation.frame()),
        (uplink, fabric(&[0x12, 0xe001], FACTORY, 64, 34 << 2, &inner)),
        (uplink, fabric(&[NODE, 0xe001], FACTORY, 64, 34 << 2, &inner)),
        (uplink, fabric(&[NODE, 0xe001], FACTORY, 64, 1, &Ip::udp(VIDEO6, ROBOT6).bytes())),
        (uplink, fabric(&[NODE, 0xe105, 0x12], FACTORY, 64, 0, &inner)),
        (Ingress::Compute(HookId(5)), fabric(&[0x12, 0xe001], FACTORY, 64, 46 << 2, &inner)),
    ]
}

#[test]
fn every_truncation_is_malformed() {
    let switch = switch();
    for (ingress, frame) in good() {
        let whole = process(&switch, ingress, &frame).verdict;
        assert!(!matches!(whole, Verdict::Drop(_)), "{whole:?}");
        for len in 0..frame.len() {
            let cut: Box<[u8]> = frame[..len].into();
            let verdict = process(&switch, ingress, &cut).verdict;
            assert_eq!(verdict, Verdict::Drop(DropReason::Malformed), "{len} bytes of {frame:x?}");
        }
    }
}

/// What holds for every frame, whatever it is.
fn check(switch: &Switch, ingress: Ingress, frame: &[u8]) -> Result<(), TestCaseError> {
    let outcome = process(switch, ingress, frame);
    prop_assert_eq!(&process(switch, ingress, frame), &outcome, "the same answer twice");
    let access = matches!(ingress, Ingress::Port(ROBOT_PORT | PLC_PORT));
    match &outcome.verdict {
        Verdict::Out { port, frame: sent } => {
            prop_assert!(switch.egress(*port).is_some());
            prop_assert!(sent.len() <= frame.len() + wire::IPV6_LEN);
            match switch.port_kind(*port) {
                Some(PortKind::Access) => {
                    prop_assert_eq!(&sent[6..12], &gateway::MAC[..]);
                    prop_assert!(tables(&outcome).contains(&TableKind::Delivery));
                    prop_assert!(sent[26..28] != [0x5f, 0], "no segments leave the fabric");
                }
                _ => {
                    prop_assert_eq!(&sent[12..14], &[0x86, 0xdd][..]);
                    prop_assert_eq!(&sent[38..42], &wire::BLOCK[..]);
                    prop_assert_eq!(&sent[22..26], &wire::BLOCK[..]);
                    prop_assert_eq!(&sent[28..30], &[0xff, 0xfe][..]);
                }
            }
            if access {
                prop_assert!(tables(&outcome).contains(&TableKind::Endpoint));
            }
        }
        Verdict::Answer { port, frame: sent } => {
            prop_assert_eq!(Ingress::Port(*port), ingress);
            prop_assert_eq!(&sent[6..12], &gateway::MAC[..]);
        }
        Verdict::ToHook { hook, frame: sent } => {
            prop_assert!(switch.runs(*hook));
            prop_assert_eq!(&sent[38..42], &wire::BLOCK[..]);
        }
        Verdict::PassToKernel => {
            let to_agent = access
                && match frame[12..14] {
                    [0x08, 0x00] => frame[34..38] == [0, 68, 0, 67],
                    [0x86, 0xdd] => frame[54] == 133 || frame[54..58] == [2, 34, 2, 35],
                    _ => false,
                };
            prop_assert!(to_agent || frame[12..14] == [0x88, 0xcc], "{:02x?}", frame);
        }
        Verdict::Drop(_) => {}
    }
    Ok(())
}

fn ingress() -> impl Strategy<Value = Ingress> {
    prop_oneof![
        (0u16..5).prop_map(|port| Ingress::Port(PortId(port))),
        Just(Ingress::Compute(HookId(5))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn no_bytes_confuse_it(ingress in ingress(), frame in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&switch(), ingress, &frame)?;
    }

    /// Behind an Ethernet type that gets somewhere.
    #[test]
    fn no_payload_confuses_it(
        ingress in ingress(),
        ethertype in prop::sample::select(vec![0x0800, 0x0806, 0x86dd, 0x88cc, 0x8100]),
        version in any::<bool>(),
        mut payload in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        if let (true, Some(first)) = (version, payload.first_mut()) {
            *first = if ethertype == 0x0800 { 0x45 } else { 0x60 };
        }
        check(&switch(), ingress, &ethernet(ethertype, &payload))?;
    }

    /// Good frames with a few bytes changed, cut or grown: near every edge.
    #[test]
    fn no_damage_confuses_it(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
        tail in prop::collection::vec(any::<u8>(), 0..20),
        elsewhere in prop::option::weighted(0.1, ingress()),
        drop_rule in any::<bool>(),
    ) {
        let (ingress, mut frame) = which.get(&good()).clone();
        for (at, byte) in edits {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        if let Some(cut) = cut {
            frame.truncate(cut.index(frame.len() + 1));
        }
        frame.extend(tail);
        let mut switch = switch();
        if drop_rule {
            let rule = ClassifierEntry { dscp: Some(0), ..rule(1, ClassifierAction::Drop) };
            switch.insert(Entry::Classifier(rule.into()));
        }
        check(&switch, elsewhere.unwrap_or(ingress), &frame)?;
    }
}

/// Ten thousand endpoints and routes: an index, not a scan.
#[test]
fn many_entries_are_found() {
    let mut switch = switch();
    for n in 0..10_000u32 {
        let address = std::net::Ipv4Addr::from_bits(0x0b00_0000 + n);
        switch.insert(endpoint(ROBOT_PORT, &format!("{address}/32"), SliceSet(FACTORY.0)));
        let set = 5_000 + (n % 100) as u16;
        switch.insert(route(set, &format!("{address}/32"), FACTORY, RouteAction::Local));
    }
    for n in 0..10_000u32 {
        let address = std::net::Ipv4Addr::from_bits(0x0b00_0000 + n).to_string();
        let frame = Ip::udp(&address, VIDEO).frame();
        assert_eq!(out(process(&switch, ROBOT_PORT, &frame).verdict).0, UPLINK);
    }
}
