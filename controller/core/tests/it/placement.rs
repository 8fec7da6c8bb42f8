//! Applications that are placed together with the slices that lead to them.

use selvedge_core::{Change, ObjectId, Refusal, Request};
use selvedge_slices::ObjectKind;
use selvedge_topology::{Topology, read};

use crate::lab::{Lab, name, objects};

const BOTH: &str = include_str!("../../../../examples/placement/application.yaml");

fn topology() -> Topology {
    let text = include_str!("../../../../examples/placement/topology.yaml");
    read::from_str("placement", text, read::Format::Selvedge).unwrap().topology
}

fn application(name: &str, descriptor: &str, placement: &str) -> String {
    format!(
        "apiVersion: selvedge/v1\nkind: Application\nmetadata: {{ name: {name} }}\nspec:\n  \
         endpoint: {name}\n  computeDescriptor: {{ {descriptor} }}\n  placement: {{ {placement} }}\n"
    )
}

fn delete(name: &str) -> Change {
    let id = ObjectId { kind: ObjectKind::Application, name: name.parse().unwrap() };
    Change { delete: vec![id], ..Change::default() }
}

/// The switch that an application is on.
fn node(lab: &Lab, application: &str) -> Option<String> {
    let views = lab.core.applications();
    let view = views.into_iter().find(|view| view.name == application).unwrap();
    Some(view.placement.unwrap().node?.to_string())
}

fn kept(lab: &Lab, slice: &str) -> Vec<String> {
    lab.core.slices().into_iter().find(|view| view.name == slice).unwrap().reasons
}

/// What is promised from s1 to a switch, in bit/s.
fn reserved(lab: &Lab, to: &str) -> u64 {
    let links = lab.core.links();
    links.iter().find(|link| link.b.0.as_str() == to).unwrap().reserved_ab_bps
}

#[test]
fn compute_and_paths_are_decided_at_once() {
    let mut lab = Lab::up(topology());
    lab.apply(objects(BOTH)).unwrap();
    lab.assert_converged();
    // 1.5 processors of 8 W are cheaper than of 14 W; 6 W at dc1 would be, but are too far.
    assert_eq!(node(&lab, "analyser").as_deref(), Some("edge1"));
    assert_eq!(kept(&lab, "cameras"), [""; 0]);
    assert!(reserved(&lab, "edge1") > 40_000_000 && reserved(&lab, "edge2") == 0);
    assert_eq!(lab.logged("application-placed").len(), 1);
    // Without a port, nothing is delivered there yet.
    assert!(!lab.core.endpoints().iter().any(|e| e.name == name("analyser") && e.attached));
    // It is there when the controller starts again, and nothing has to be written.
    let writes = lab.writes;
    lab.restart();
    lab.join_all();
    lab.settle();
    assert_eq!((node(&lab, "analyser").as_deref(), lab.writes), (Some("edge1"), writes));
    lab.apply(delete("analyser")).unwrap_err(); // the slice's endpoint would be nowhere
    assert_eq!(node(&lab, "analyser").as_deref(), Some("edge1"));
}

#[test]
fn neither_is_taken_when_one_does_not_fit() {
    let mut lab = Lab::up(topology());
    let refused = |lab: &mut Lab, text: &str| {
        let revision = lab.core.revision();
        let refusal = lab.apply(objects(text)).unwrap_err();
        assert!(matches!(refusal, Refusal::NoPlace { .. }), "{refusal:?}");
        assert_eq!(lab.core.revision(), revision);
        assert!(["edge1", "edge2", "dc1"].iter().all(|node| reserved(lab, node) == 0));
        assert!(lab.core.applications().is_empty() && lab.core.slices().is_empty());
        refusal.to_string()
    };
    let text = refused(&mut lab, &BOTH.replace("1500m", "9"));
    for part in [
        "edge1: 9 cpu wanted, 4 of 4 left, 5 missing",
        "edge2: 9 cpu wanted, 8 of 8 left, 1 missing",
        "dc1: the network refuses slice cameras: ",
        "a latency of 10ms cannot be promised",
        "it would be placed with",
        "cpu 8 on edge2",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    let fast = BOTH.replace("40Mbps", "990Mbps").replace("100Mbps", "1Gbps");
    let text = refused(&mut lab, &fast.replace("  latency: 10ms\n", ""));
    assert!(text.contains("990Mbps are to be guaranteed"), "{text}");
    assert!(text.contains("guaranteed uplink in slice cameras (edge1)"), "{text}");
}

#[test]
fn it_moves_when_its_node_goes_and_says_so() {
    let mut lab = Lab::up(topology());
    lab.apply(objects(BOTH)).unwrap();
    lab.link("s1", "edge1", false);
    lab.settle();
    lab.assert_converged();
    assert_eq!(node(&lab, "analyser").as_deref(), Some("edge2"));
    assert_eq!(kept(&lab, "cameras"), [""; 0]);
    assert!(reserved(&lab, "edge2") > 40_000_000);
    let moved = lab.logged("application-moved");
    assert!(moved[0].text.contains("from edge1 to edge2"), "{moved:?}");
    // The way back is open: 9 W saved do not pay for 10.
    lab.link("s1", "edge1", true);
    lab.settle();
    assert_eq!(node(&lab, "analyser").as_deref(), Some("edge2"));
    // Now there is nowhere to go.
    lab.link("s1", "edge1", false);
    lab.link("s1", "edge2", false);
    lab.settle();
    let unkept = lab.logged("application-unkept");
    assert!(unkept[0].text.contains("slice cameras is not kept"), "{unkept:?}");
    assert!(!kept(&lab, "cameras").is_empty());
    // The first that can take it does.
    lab.link("s1", "edge1", true);
    lab.settle();
    assert_eq!(node(&lab, "analyser").as_deref(), Some("edge1"));
    assert_eq!(kept(&lab, "cameras"), [""; 0]);
    assert_eq!(lab.logged("application-restored").len(), 1);
}

#[test]
fn moving_has_to_pay() {
    // (moving cost, where it is in the end)
    for (cost, want) in [("1W", "dc1"), ("5W", "edge1")] {
        let mut lab = Lab::up(topology());
        // Four watts less at dc1, but that is off.
        lab.link("s1", "dc1", false);
        lab.leave(&name("dc1"));
        lab.settle();
        let text = application("recorder", "cpu: 2, memory: 1Gi", &format!("movingCost: {cost}"));
        lab.apply(objects(&text)).unwrap();
        assert_eq!(node(&lab, "recorder").as_deref(), Some("edge1"), "{cost}");
        lab.join(&name("dc1"));
        lab.link("s1", "dc1", true);
        lab.settle();
        assert_eq!(node(&lab, "recorder").as_deref(), Some(want), "{cost}");
        let moved = lab.logged("application-moved");
        assert_eq!(moved.len(), usize::from(want == "dc1"), "{moved:?}");
    }
}

#[test]
fn an_instance_that_is_seen_is_there() {
    let mut lab = Lab::up(topology());
    lab.apply(objects(BOTH)).unwrap();
    // Somebody starts it on the other edge.
    let to = lab.spare_port("edge2");
    lab.places.insert(name("analyser"), to.clone());
    lab.see(&name("analyser"));
    lab.settle();
    lab.assert_converged();
    assert_eq!(node(&lab, "analyser").as_deref(), Some("edge2"));
    assert_eq!(kept(&lab, "cameras"), [""; 0]);
    assert!(reserved(&lab, "edge2") > 40_000_000 && reserved(&lab, "edge1") == 0);
    for camera in ["camera-1", "camera-2"] {
        let (camera, analyser) = (name(camera), name("analyser"));
        assert!(lab.reaches(&camera, &analyser, false) && lab.reaches(&analyser, &camera, false));
    }
    // Its port goes down, and with it its node: a new instance has to be started elsewhere.
    lab.link("s1", "edge2", false);
    lab.port(&to, false);
    lab.settle();
    assert_eq!(node(&lab, "analyser").as_deref(), Some("edge1"));
    assert_eq!(kept(&lab, "cameras"), [""; 0]);
    let other = lab.spare_port("edge1");
    lab.places.insert(name("analyser"), other);
    lab.macs.insert(name("analyser"), [2, 7, 7, 7, 7, 7]);
    lab.see(&name("analyser"));
    lab.settle();
    assert!(lab.reaches(&name("camera-1"), &name("analyser"), false));
}

#[test]
fn it_is_taken_before_the_network_is_up_and_placed_when_it_is() {
    let mut lab = Lab::new(topology());
    let refusal = lab.apply(objects(&BOTH.replace("1500m", "9"))).unwrap_err();
    assert!(refusal.to_string().contains("cpu 8 on edge2"), "{refusal}");
    lab.apply(objects(BOTH)).unwrap();
    assert_eq!(node(&lab, "analyser"), None);
    lab.join_all();
    lab.settle();
    lab.see_all();
    lab.settle();
    assert_eq!(node(&lab, "analyser").as_deref(), Some("edge1"));
    assert_eq!(kept(&lab, "cameras"), [""; 0]);
}

#[test]
fn anti_affinity_and_accelerators_decide_too() {
    let mut lab = Lab::up(topology());
    lab.apply(objects(BOTH)).unwrap();
    let text =
        application("recorder", "cpu: 1, memory: 1Gi", "antiAffinity: vision, sites: [east, west]");
    lab.apply(objects(&text)).unwrap();
    assert_eq!(node(&lab, "recorder").as_deref(), Some("edge2"));
    let descriptor = "cpu: 1, memory: 1Gi, accelerators: { gpu: 2 }";
    let text = application("recorder", descriptor, "sites: west");
    let refusal = lab.apply(objects(&text)).unwrap_err().to_string();
    assert!(refusal.contains("edge2: 2 gpu wanted, 1 of 1 left, 1 missing"), "{refusal}");
    assert!(refusal.contains("site datacentre (dc1)"), "{refusal}");
    assert_eq!(node(&lab, "recorder").as_deref(), Some("edge2"), "as it was");
}

#[test]
fn explained_by_node() {
    let mut lab = Lab::up(topology());
    lab.apply(objects(BOTH)).unwrap();
    let explained = lab.core.explain_application("analyser").unwrap();
    assert_eq!(explained.placement.as_ref().unwrap().node, Some(name("edge1")));
    assert_eq!(explained.slices, ["cameras"]);
    let of = |node: &str| explained.nodes.iter().find(|one| one.node == name(node)).unwrap();
    // 1.5 x 8 W; three links of cost 10 up with 40 Mbit/s, three down with 2, 2 mW each.
    let cost = of("edge1").cost.unwrap();
    assert_eq!((cost.energy_mw, cost.network_mw, cost.moving_mw), (12_000, 2_520, 0));
    let cost = of("edge2").cost.unwrap();
    assert_eq!((cost.energy_mw, cost.network_mw, cost.moving_mw), (21_000, 2_520, 10_000));
    let lacks = &of("dc1").lacks;
    assert!(lacks[0].contains("a latency of 10ms cannot be promised"), "{lacks:?}");
    assert!(lab.core.explain_application("nobody").is_none());
}

#[test]
fn what_cannot_be_placed_at_all_is_refused() {
    let mut lab = Lab::up(topology());
    let twice = format!("{BOTH}---\n{}", application("other", "cpu: 1, memory: 1Gi", ""));
    let twice = twice.replace("endpoint: other", "endpoint: analyser");
    let linked = BOTH.replace("endpoint: analyser", "endpoint: camera-1");
    let cases = [(twice.as_str(), "both are to be placed"), (linked.as_str(), "hangs on gnb1:p2")];
    for (text, want) in cases {
        let refusal = lab.apply(objects(text)).unwrap_err().to_string();
        assert!(refusal.contains(want), "{refusal}");
    }
    // A dry run says the same.
    let request = Request::Plan(objects(&BOTH.replace("1500m", "65")));
    let plan = format!("{:?}", lab.request(request));
    assert!(plan.contains("NoPlace"), "{plan}");
}
