//! PDU sessions: UEs behind gNBs, whose tunnels end at the switch of the gNB.

use std::net::IpAddr;

use selvedge_core::{Change, ObjectId, Refusal, Reply};
use selvedge_pipeline::{DropReason, Entry, gateway};
use selvedge_slices::ObjectKind;
use selvedge_topology::{Topology, read};

use crate::forward::{Delivery, Fate};
use crate::lab::{Lab, name, objects};
use crate::packets::frame;

const TOPOLOGY: &str = r#"
name: n3
topology:
  nodes:
    s1: { kind: switch }
    s2: { kind: switch }
    gnb-1: { kind: host, ipv4: 192.0.2.1/32, ipv6: "2001:db8::1/128" }
    gnb-2: { kind: host, ipv4: 192.0.2.2/32 }
    plc: { kind: host, ipv4: 10.2.0.1/32 }
    robot: { kind: host, ipv4: 10.1.0.1/32 }
    phone: { kind: host, ipv4: 10.1.0.2/32 }
  links:
    - { endpoints: ["s1:p1", "s2:p1"], capacity: 1Gbps, delay: 100us }
    - { endpoints: ["s1:p2", "gnb-1:eth0"], capacity: 1Gbps }
    - { endpoints: ["s2:p2", "gnb-2:eth0"], capacity: 1Gbps }
    - { endpoints: ["s2:p3", "plc:eth0"], capacity: 1Gbps }
"#;

const SLICE: &str = "
apiVersion: selvedge/v1
kind: NetworkSlice
metadata: { name: factory }
spec:
  downlink: { guaranteed: 10Mbps }
  uplink: { guaranteed: 10Mbps }
  endpoints: [{ ue: robot }, { dn: plc }]
";

const ROBOT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 0, 1));
const PHONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 0, 2));
const PLC: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 2, 0, 1));

/// Of the robot, through a gNB.
fn session(gnb: &str, uplink: u32, downlink: u32) -> String {
    format!(
        "apiVersion: selvedge/v1\nkind: PduSession\nmetadata: {{ name: robot-1 }}\nspec:\n  \
         ue: robot\n  slice: factory\n  gnb: {gnb}\n  n3: 198.51.100.1\n  \
         uplink: {{ teid: {uplink} }}\n  downlink: {{ teid: {downlink} }}\n  \
         qosFlows: [{{ qfi: 1, 5qi: 9 }}, {{ qfi: 2, 5qi: 3 }}]\n"
    )
}

fn topology() -> Topology {
    read::from_str("n3", TOPOLOGY, read::Format::Selvedge).expect("a topology").topology
}

/// With the slice and the session, in one change: the slice's UE is nowhere without.
fn up() -> Lab {
    let mut lab = Lab::up(topology());
    lab.apply(objects(&format!("{SLICE}---\n{}", session("gnb-1", 0x1001, 0x2001)))).unwrap();
    lab.assert_converged();
    lab
}

/// A packet of `ue` for `to`, through a gNB and its tunnel, in QoS flow 2.
fn uplink(lab: &Lab, gnb: &str, teid: u32, ue: IpAddr, to: IpAddr) -> Delivery {
    let gnb = name(gnb);
    let inner = &frame(lab.macs[&gnb], ue, to)[14..];
    let mut message = vec![0x34, 255];
    message.extend((inner.len() as u16 + 8).to_be_bytes());
    message.extend(teid.to_be_bytes());
    message.extend([0, 0, 0, 0x85, 1, 0x10, 2, 0]);
    message.extend(inner);
    let IpAddr::V4(from) = lab.addresses(&gnb)[0] else { panic!("IPv4 first") };
    let mut packet = vec![0x45, 0];
    packet.extend((28 + message.len() as u16).to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet.extend(from.octets());
    packet.extend([198, 51, 100, 1]);
    packet
        .extend([2152u16, 2152, 8 + message.len() as u16, 0].iter().flat_map(|w| w.to_be_bytes()));
    packet.extend(message);
    let bytes = [&gateway::MAC[..], &lab.macs[&gnb], &[8, 0], &packet].concat();
    lab.forward(&lab.places[&gnb].clone(), bytes)
}

/// gNB, its TEID and QFI of the tunnel that a packet for the robot leaves in.
fn downlink(lab: &Lab) -> (String, u32, u8) {
    match lab.send(&name("plc"), ROBOT).fate {
        Fate::Delivered(host, frame) => {
            assert_eq!(frame[..6], lab.macs[&host]);
            // Ethernet, IPv4, UDP to 2152, then GTP-U.
            assert_eq!(frame[36..38], 2152u16.to_be_bytes());
            let teid = u32::from_be_bytes(frame[46..50].try_into().unwrap());
            (host.to_string(), teid, frame[56])
        }
        fate => panic!("{fate:?}"),
    }
}

fn delivered_to(delivery: &Delivery) -> Option<&str> {
    match &delivery.fate {
        Fate::Delivered(host, _) => Some(host.as_str()),
        _ => None,
    }
}

#[test]
fn a_session_leads_from_its_gnb_into_the_slice_and_back() {
    let lab = up();
    let sent = uplink(&lab, "gnb-1", 0x1001, ROBOT, PLC);
    assert_eq!(delivered_to(&sent), Some("plc"), "{sent:?}");
    assert_eq!(sent.nodes, [name("s1"), name("s2")]);
    // 5QI 3 is guaranteed, as the slice is; 5QI 9 is best effort (TS 23.501, table 5.7.4-1).
    assert_eq!(downlink(&lab), ("gnb-1".into(), 0x2001, 2));
    // Of another UE, and from another gNB.
    let spoofed = uplink(&lab, "gnb-1", 0x1001, PHONE, PLC);
    assert_eq!(spoofed.dropped(), Some(DropReason::SpoofedSource));
    let elsewhere = uplink(&lab, "gnb-2", 0x1001, ROBOT, PLC);
    assert_eq!(delivered_to(&elsewhere), None);
    // The gNB itself is in no slice of the robot's.
    assert_eq!(delivered_to(&lab.send(&name("gnb-1"), PLC)), None);
    // No bare packet has the robot's address.
    let bound = |entry: &Entry| matches!(entry, Entry::Endpoint(e) if e.prefix.contains(&ROBOT));
    assert!(!lab.entries("s1").into_iter().any(bound));
}

#[test]
fn a_hand_over_takes_both_halves_along() {
    let mut lab = up();
    // Another tunnel at the same gNB, then another gNB at another switch, then back.
    for (gnb, up, down) in
        [("gnb-1", 0x1001, 0x2002), ("gnb-2", 0x1001, 0x3001), ("gnb-1", 0x1005, 0x2003)]
    {
        let reply = lab.apply(objects(&session(gnb, up, down))).unwrap();
        assert!(matches!(reply, Reply::Applied { changed: true, .. }), "{reply:?}");
        lab.assert_converged();
        assert_eq!(downlink(&lab), (gnb.into(), down, 2));
        let sent = uplink(&lab, gnb, up, ROBOT, PLC);
        assert_eq!(delivered_to(&sent), Some("plc"), "{gnb}: {sent:?}");
        let sessions = |switch: &str| {
            let entries = lab.entries(switch);
            entries.iter().filter(|entry| matches!(entry, Entry::GtpSession(_))).count()
        };
        assert_eq!(sessions("s1") + sessions("s2"), 1, "nothing is left behind");
    }
}

#[test]
fn a_session_outlives_the_controller_and_ends_when_it_is_deleted() {
    let mut lab = up();
    let writes = lab.writes;
    lab.restart();
    lab.join_all();
    lab.settle();
    lab.assert_converged();
    assert_eq!(lab.writes, writes, "the switches have it all");
    let views = lab.core.pdu_sessions();
    assert_eq!(views.len(), 1);
    assert_eq!(views[0].attachment, Some((name("s1"), "p2".to_owned())));
    assert!(views[0].attached && views[0].downlink_qfi == Some(2));

    // Without the session the slice would have an endpoint that is nowhere.
    let id = |kind, name: &str| ObjectId { kind, name: name.parse().unwrap() };
    let session = id(ObjectKind::PduSession, "robot-1");
    let alone = Change { delete: vec![session.clone()], ..Change::default() };
    assert!(matches!(lab.apply(alone), Err(Refusal::DoesNotFit { .. })));
    let slice = id(ObjectKind::NetworkSlice, "factory");
    lab.apply(Change { delete: vec![session, slice], ..Change::default() }).unwrap();
    lab.assert_converged();
    assert_eq!(delivered_to(&uplink(&lab, "gnb-1", 0x1001, ROBOT, PLC)), None);
    for switch in ["s1", "s2"] {
        let of_n3 = |e: &Entry| matches!(e, Entry::GtpSession(_) | Entry::N3Address(_));
        assert!(!lab.entries(switch).into_iter().any(of_n3), "{switch}");
    }
}

#[test]
fn what_is_refused() {
    let good = session("gnb-1", 1, 2);
    let second = |ue: &str, teid| {
        let other = good.replace("robot-1", "other").replace("ue: robot", &format!("ue: {ue}"));
        format!("{good}---\n{}", other.replace("teid: 1 }", &format!("teid: {teid} }}")))
    };
    // (documents, part of the message)
    let cases = [
        (good.replace("ue: robot", "ue: nobody"), "no host nobody"),
        (good.replace("gnb: gnb-1", "gnb: s1"), "no host s1"),
        (good.replace("ue: robot", "ue: plc"), "hangs on s2:p3"),
        (good.replace("n3: 198.51.100.1", "n3: 10.2.0.1"), "an address of host plc"),
        (
            good.replace("n3: 198.51.100.1", "n3: 2001:db8:3::1").replace("gnb-1", "gnb-2"),
            "gNB gnb-2 has no address",
        ),
        (good.replace("slice: factory", "slice: none"), "slice none does not name robot"),
        (good.replace("5qi: 3", "5qi: 200"), "5QI 200 has no class"),
        (second("robot", 9), "UE robot is that of session"),
        (second("phone", 1), "uplink TEID 1 is that of session"),
    ];
    let mut lab = Lab::up(topology());
    for (text, part) in cases {
        let refusal = lab.apply(objects(&format!("{SLICE}---\n{text}"))).expect_err(part);
        assert!(matches!(refusal, Refusal::Session { .. }), "{refusal}");
        assert!(refusal.to_string().contains(part), "{refusal} lacks {part:?}");
    }
}
