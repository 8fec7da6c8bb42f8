//! Endpoints that go elsewhere, and those that only pretend to.

use selvedge_core::Event;
use selvedge_pipeline::PortId;
use selvedge_topology::{End, NodeName, read};

use crate::lab::{Lab, metro, name, objects};

#[test]
fn an_endpoint_keeps_its_address_and_slice_where_it_goes() {
    let mut lab = Lab::up(metro());
    lab.apply(objects(include_str!("../../../../examples/metro/slices.yaml"))).unwrap();
    let to = lab.spare_port("gnb2");
    let (robot, plc) = (name("robot-1"), name("plc"));
    // Unplugged at gnb1, plugged in at gnb2.
    let from = lab.places[&robot].clone();
    lab.port(&from, false);
    lab.places.insert(robot.clone(), to.clone());
    lab.see(&robot);
    let at = lab.now_ms;
    while !lab.reaches(&robot, &plc, false) || !lab.reaches(&plc, &robot, false) {
        assert!(lab.step(), "never reached: {:?}", lab.log);
    }
    assert_eq!(lab.now_ms, at, "at once");
    lab.settle();
    lab.assert_converged();
    assert!(lab.reaches(&plc, &robot, true));
    assert!(!lab.reaches(&name("phone-1"), &robot, false), "still in its slice only");
    assert_eq!(lab.logged("endpoint-moved").len(), 1);
    // It stays there when the controller starts again, and when its old port comes back.
    let writes = lab.writes;
    lab.restart();
    lab.join_all();
    lab.settle();
    assert_eq!(lab.writes, writes);
    lab.port(&from, true);
    lab.settle();
    assert!(lab.reaches(&robot, &plc, false));
    let view = lab.core.endpoints();
    let robot_view = view.iter().find(|endpoint| endpoint.name == robot).unwrap();
    assert!(robot_view.moved && robot_view.attached);
    // And back home.
    lab.port(&to, false);
    lab.places.insert(robot.clone(), from);
    lab.see(&robot);
    lab.settle();
    assert!(lab.reaches(&plc, &robot, true));
    let view = lab.core.endpoints();
    assert!(!view.iter().find(|endpoint| endpoint.name == robot).unwrap().moved);
}

#[test]
fn an_address_seen_elsewhere_while_its_port_is_up_is_a_spoof() {
    let mut lab = Lab::up(metro());
    let to = lab.spare_port("gnb2");
    let (robot, plc) = (name("robot-1"), name("plc"));
    let address = lab.addresses(&robot)[0];
    let writes = lab.writes;
    let seen = |mac| Event::EndpointSeen { switch: to.node.clone(), port: PortId(9), mac, address };
    for _ in 0..3 {
        lab.event(seen(lab.macs[&robot]));
        lab.settle();
    }
    assert_eq!(lab.logged("endpoint-spoofed").len(), 1, "said once, not each time");
    assert_eq!(lab.writes, writes);
    assert!(lab.reaches(&robot, &plc, false));
    // Its port goes down, and somebody else claims the address.
    lab.now_ms += 10_000;
    let from = lab.places[&robot].clone();
    lab.port(&from, false);
    lab.settle();
    lab.event(seen([2, 6, 6, 6, 6, 6]));
    lab.settle();
    assert_eq!(lab.logged("endpoint-moved").len(), 0, "not with another MAC address");
}

#[test]
fn a_sighting_may_overtake_the_news_that_the_old_port_is_down() {
    let mut lab = Lab::up(metro());
    let to = lab.spare_port("gnb2");
    let (robot, plc) = (name("robot-1"), name("plc"));
    let from = lab.places.insert(robot.clone(), to).unwrap();
    lab.see(&robot);
    lab.settle();
    assert_eq!(lab.logged("endpoint-moved").len(), 0);
    lab.port(&from, false);
    lab.settle();
    assert_eq!(lab.logged("endpoint-moved").len(), 1);
    assert!(lab.reaches(&plc, &robot, false));
}

#[test]
fn a_declared_mac_address_needs_no_sighting() {
    let text = "name: t\ntopology:\n  nodes:\n    s1: { kind: switch }\n    s2: { kind: switch }\n    \
                a: { kind: host, ipv4: 10.0.0.1/32, mac: \"02:ff:00:00:00:00\" }\n    \
                b: { kind: host, ipv4: 10.0.0.2/32, mac: \"02:ff:00:00:00:01\" }\n  links:\n    \
                - { endpoints: [\"s1:p1\", \"s2:p1\"] }\n    - { endpoints: [\"s1:p2\", \"a:eth0\"] }\n    \
                - { endpoints: [\"s2:p2\", \"b:eth0\"] }\n";
    let topology = read::from_str("t", text, read::Format::Selvedge).unwrap().topology;
    let mut lab = Lab::new(topology);
    lab.join_all();
    lab.settle();
    assert!(lab.reaches(&name("a"), &name("b"), false));
}

#[test]
fn another_device_at_the_same_port_is_learned_after_the_port_was_gone() {
    let mut lab = Lab::up(metro());
    let (robot, plc) = (name("robot-1"), name("plc"));
    let place = lab.places[&robot].clone();
    let port = lab.switches[&place.node].ports.values().find(|p| p.name == "p3").unwrap().clone();
    lab.switches.get_mut(&place.node).unwrap().ports.remove(&port.id);
    lab.event(Event::PortGone { switch: place.node.clone(), port: port.id });
    lab.settle();
    lab.assert_converged();
    lab.macs.insert(robot.clone(), [2, 7, 7, 7, 7, 7]);
    lab.switches.get_mut(&place.node).unwrap().ports.insert(port.id, port.clone());
    lab.event(Event::PortChanged { switch: place.node.clone(), port });
    lab.settle();
    lab.see(&robot);
    lab.settle();
    assert!(lab.reaches(&plc, &robot, false));
}

#[test]
fn an_endpoint_whose_port_became_anothers_may_go_elsewhere() {
    let mut lab = Lab::up(metro());
    let spare = lab.spare_port("gnb2");
    let (robot, plc, phone) = (name("robot-1"), name("plc"), name("phone-1"));
    let (robots, phones) = (lab.places[&robot].clone(), lab.places[&phone].clone());
    let go = |lab: &mut Lab, host: &NodeName, to: &End| {
        let from = lab.places.insert(host.clone(), to.clone()).unwrap();
        lab.port(&from, false);
        lab.port(to, true);
    };
    // The phone is plugged in where the robot was before the robot is seen anywhere else.
    go(&mut lab, &robot, &spare);
    go(&mut lab, &phone, &robots);
    lab.see(&robot);
    lab.settle();
    assert!(!lab.reaches(&plc, &robot, false), "its port is up, with whom nobody knows");
    lab.see(&phone);
    lab.see(&robot);
    lab.settle();
    lab.restart();
    lab.join_all();
    lab.settle();
    assert!(lab.reaches(&plc, &robot, false) && lab.reaches(&plc, &phone, false));
    // The robot is ousted no more: at its new port it is a spoof to use its address elsewhere.
    lab.places.insert(robot.clone(), phones.clone());
    lab.port(&phones, true);
    lab.see(&robot);
    lab.settle();
    assert!(!lab.reaches(&plc, &robot, false));
}
