//! Slices that have a maximum, and the operator's classes.

use selvedge_core::{Refusal, Reply, Request};
use selvedge_pipeline::{Class, Direction, EndpointId, Entry};
use selvedge_slices::ObjectKind;

use crate::intent::delete;
use crate::lab::{Lab, metro, name, objects};

fn two_users(most: u32) -> selvedge_core::Change {
    objects(&format!(
        "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: {{ name: few }}\nspec:\n  \
         maxNumberofUEs: {most}\n  uplink: {{ guaranteed: 1Mbps }}\n  \
         endpoints: [{{ ue: robot-1 }}, {{ ue: phone-1 }}, {{ dn: plc }}]\n"
    ))
}

fn reach(lab: &Lab) -> [bool; 2] {
    ["robot-1", "phone-1"].map(|ue| {
        let both = [true, false].map(|ipv6| {
            let (ue, plc) = (name(ue), name("plc"));
            (lab.reaches(&ue, &plc, ipv6), lab.reaches(&plc, &ue, ipv6))
        });
        assert!(both.iter().all(|(up, down)| up == down && up == &both[0].0), "{ue}: {both:?}");
        both[0].0
    })
}

#[test]
fn the_first_who_attach_are_admitted_and_others_wait() {
    let mut lab = Lab::new(metro());
    lab.join_all();
    lab.settle();
    lab.apply(two_users(1)).unwrap();
    for host in ["plc", "video", "robot-1"] {
        lab.see(&name(host));
        lab.settle();
    }
    lab.assert_converged();
    assert_eq!(reach(&lab), [true, false]);
    lab.see(&name("phone-1"));
    lab.settle();
    lab.assert_converged();
    assert_eq!(reach(&lab), [true, false], "the second one comes too late");
    // Full is not open: it reaches nobody outside of the slice either.
    let out = lab.send(&name("phone-1"), "10.3.0.31".parse().unwrap());
    assert!(out.dropped().is_some(), "{out:?}");
    let said: Vec<String> =
        lab.logged("endpoint-refused").iter().map(|entry| entry.text.clone()).collect();
    assert_eq!(said, ["phone-1 is not admitted: maxNumberofUEs 1, attached are robot-1"]);
    let notes = lab.core.explain("few").unwrap().notes;
    assert_eq!(notes, ["maxNumberofUEs 1: 1 attached (robot-1); not admitted: phone-1"]);

    // A controller that starts again does not choose again.
    lab.restart();
    lab.join_all();
    lab.settle();
    assert_eq!(reach(&lab), [true, false]);

    // The seat is given up when its endpoint's port is down and another waits.
    let port = lab.places["robot-1"].clone();
    lab.port(&port, false);
    lab.settle();
    lab.assert_converged();
    assert_eq!(reach(&lab), [false, true]);
    assert_eq!(lab.logged("endpoint-admitted").len(), 1);
    lab.port(&port, true);
    lab.settle();
    assert_eq!(reach(&lab), [false, true], "and is not taken back");

    lab.apply(two_users(2)).unwrap();
    lab.assert_converged();
    assert_eq!(reach(&lab), [true, true]);
    lab.apply(two_users(1)).unwrap();
    assert_eq!(reach(&lab), [false, true], "who came first stays");
    lab.apply(delete(ObjectKind::NetworkSlice, "few")).unwrap();
    lab.assert_converged();
    assert!(!lab.store.keys().any(|key| key.starts_with("attached/")), "{:?}", lab.store.keys());
}

fn class_at(lab: &Lab, switch: &str) -> Vec<Class> {
    let class = |entry: &&Entry| match entry {
        Entry::SliceMeter(meter) => Some(meter.class),
        _ => None,
    };
    lab.entries(switch).iter().filter_map(class).collect()
}

#[test]
fn the_operators_map_decides_the_class_of_slices() {
    let map = |name: &str, spec: &str| {
        objects(&format!(
            "apiVersion: selvedge/v1\nkind: ClassMap\nmetadata: {{ name: {name} }}\n\
             spec: {{ {spec} }}\n"
        ))
    };
    let slice = |five_qi: u8| {
        objects(&format!(
            "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: {{ name: a }}\nspec:\n  \
             5qi: {five_qi}\n  uplink: {{ guaranteed: 1Mbps }}\n  \
             endpoints: [{{ ue: robot-1 }}, {{ dn: plc }}]\n"
        ))
    };
    let mut lab = Lab::up(metro());
    assert_eq!(
        lab.apply(slice(200)),
        Err(Refusal::UnknownFiveQi { slice: "a".parse().unwrap(), number: 200 })
    );
    lab.apply(slice(9)).unwrap();
    assert_eq!(class_at(&lab, "gnb1"), [Class::Guaranteed], "by its rate");
    lab.apply(map("ours", "5qi: { 9: urllc, 200: guaranteed }")).unwrap();
    lab.assert_converged();
    assert_eq!(class_at(&lab, "gnb1"), [Class::Urllc]);
    assert_eq!(lab.apply(slice(9)), Ok(Reply::Applied { changed: false, revision: 2 }));
    let second = lab.apply(map("other", "dscp: { 46: urllc }"));
    assert!(matches!(second, Err(Refusal::SecondClassMap { .. })), "{second:?}");

    lab.apply(slice(200)).unwrap();
    assert_eq!(class_at(&lab, "gnb1"), [Class::Guaranteed]);
    lab.restart();
    lab.join_all();
    lab.settle();
    assert_eq!(class_at(&lab, "gnb1"), [Class::Guaranteed]);
    assert_eq!(lab.core.class_map().name.as_deref(), Some("ours"));
    let needed = lab.apply(delete(ObjectKind::ClassMap, "ours"));
    assert!(matches!(needed, Err(Refusal::UnknownFiveQi { number: 200, .. })), "{needed:?}");
    lab.apply(slice(9)).unwrap();
    lab.apply(delete(ObjectKind::ClassMap, "ours")).unwrap();
    assert_eq!(class_at(&lab, "gnb1"), [Class::Guaranteed]);
}

#[test]
fn a_plan_says_what_was_filled_in_and_what_is_not_enforced() {
    let mut lab = Lab::up(metro());
    let change = objects(
        "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: { name: a }\nspec:\n  \
         template: MIoT\n  endpoints: [{ ue: robot-1, uplink: { maximum: 1Mbps } }, { dn: plc }]\n",
    );
    let Ok(Reply::Plan(plan)) = lab.request(Request::Plan(change)) else { panic!("a plan") };
    assert_eq!(plan.notes, ["slice a: from template MIoT: sst 3, 5qi 9"]);
    assert_eq!(plan.warnings, Vec::<String>::new());
}

fn rated(robot: &str, phone: &str) -> selvedge_core::Change {
    objects(&format!(
        "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: {{ name: a }}\nspec:\n  \
         uplink: {{ guaranteed: 10Mbps, maximum: 20Mbps }}\n  \
         downlink: {{ guaranteed: 4Mbps }}\n  \
         endpoints: [{{ ue: robot-1{robot} }}, {{ ue: phone-1{phone} }}, {{ dn: plc }}]\n"
    ))
}

type Rates = (u64, u64);

/// What a switch meters in one direction: the slice's rates, and those of endpoints by number.
fn metered(lab: &Lab, switch: &str, way: Direction) -> (Vec<Rates>, Vec<(EndpointId, Rates)>) {
    let (mut slice, mut own) = (Vec::new(), Vec::new());
    for entry in lab.entries(switch) {
        match entry {
            Entry::SliceMeter(m) if m.direction == way => {
                slice.push((m.guaranteed_bps, m.maximum_bps));
            }
            Entry::EndpointMeter(m) if m.direction == way => {
                own.push((m.endpoint, (m.guaranteed_bps, m.maximum_bps)));
            }
            _ => {}
        }
    }
    (slice, own)
}

/// Numbers that entries at a switch name: of who sends, and of who is sent to.
fn named(lab: &Lab, switch: &str) -> [Vec<EndpointId>; 2] {
    let (mut sends, mut gets) = (Vec::new(), Vec::new());
    for entry in lab.entries(switch) {
        match entry {
            Entry::Endpoint(e) if e.endpoint != EndpointId::NONE => sends.push(e.endpoint),
            Entry::SliceRoute(e) if e.endpoint != EndpointId::NONE => gets.push(e.endpoint),
            _ => {}
        }
    }
    sends.dedup();
    gets.dedup();
    [sends, gets]
}

#[test]
fn rates_of_endpoints_are_metered_where_their_traffic_enters() {
    use Direction::{Downlink, Uplink};
    const M: u64 = 1_000_000;
    let mut lab = Lab::up(metro());
    let robot = ", uplink: { guaranteed: 6Mbps, maximum: 8Mbps }, downlink: { maximum: 2Mbps }";
    lab.apply(rated(robot, "")).unwrap();
    lab.assert_converged();
    let at = |lab: &Lab, host: &str| lab.places[&name(host)].node.to_string();
    let (gnb, edge) = (at(&lab, "robot-1"), at(&lab, "plc"));
    let number = EndpointId(1);
    assert_eq!(named(&lab, &gnb), [vec![number], vec![]]);
    assert_eq!(named(&lab, &edge), [vec![], vec![number]]);
    let (slice, own) = metered(&lab, &gnb, Uplink);
    assert_eq!(own, [(number, (6 * M, 8 * M))]);
    assert_eq!(slice, [(10 * M, 20 * M)]);
    assert_eq!(
        metered(&lab, &edge, Downlink),
        (vec![(4 * M, 0)], vec![(number, (0, 2 * M))]),
        "no guarantee of its own: it shares the slice's"
    );
    let why = lab.core.explain("a").unwrap();
    let of_robot = why.meters.iter().filter(|m| m.endpoint.as_deref() == Some("robot-1"));
    assert_eq!(of_robot.count(), 2);

    // All of the guarantee can be one endpoint's.
    lab.apply(rated(", uplink: { guaranteed: 10Mbps }", "")).unwrap();
    lab.assert_converged();
    assert_eq!(metered(&lab, &gnb, Uplink).1, [(number, (10 * M, 0))]);
    assert_eq!(named(&lab, &edge), [vec![], vec![]]);
    assert_eq!(lab.core.status().slices_degraded, 0);

    // The number is kept, and given back with the last rate.
    lab.restart();
    lab.join_all();
    lab.settle();
    lab.assert_converged();
    lab.apply(rated(", uplink: { maximum: 1Mbps }", ", uplink: { maximum: 1Mbps }")).unwrap();
    lab.assert_converged();
    assert!(lab.store.keys().any(|key| key.starts_with("number/endpoint#")));
    lab.apply(rated("", "")).unwrap();
    lab.assert_converged();
    assert_eq!(metered(&lab, &gnb, Uplink).1, []);
    let left = lab.store.keys().any(|key| key.starts_with("number/endpoint#"));
    assert!(!left, "{:?}", lab.store.keys());
}

#[test]
fn rates_move_with_their_endpoint() {
    let mut lab = Lab::up(metro());
    lab.apply(rated(", uplink: { guaranteed: 6Mbps }", "")).unwrap();
    lab.assert_converged();
    let (robot, to) = (name("robot-1"), lab.spare_port("gnb2"));
    let from = lab.places[&robot].clone();
    lab.port(&from, false);
    lab.places.insert(robot.clone(), to);
    lab.see(&robot);
    lab.settle();
    lab.assert_converged();
    // What is not the robot's is shared alike.
    let of = |switch: &str| metered(&lab, switch, Direction::Uplink);
    assert_eq!(of("gnb1"), (vec![(2_000_000, 7_000_000)], vec![]));
    let own = (EndpointId(1), (6_000_000, 0));
    assert_eq!(of("gnb2"), (vec![(8_000_000, 13_000_000)], vec![own]));
}

#[test]
fn the_example_of_slices_is_taken_on_metro() {
    let mut lab = Lab::up(metro());
    lab.apply(objects(include_str!("../../../../examples/slices/robots.yaml"))).unwrap();
    lab.assert_converged();
    assert_eq!(lab.core.status().slices_degraded, 0);
}
