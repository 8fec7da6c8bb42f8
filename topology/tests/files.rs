//! Real networks through the readers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use selvedge_topology::{
    Assumption, BitRate, Constraints, Delay, Disjoint, Format, Metric, Query, Scratch, Snapshot,
    Topology, cheapest, disjoint_pair, read,
};

fn example(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(file)
}

/// What any topology must survive: YAML and back, hosts and back.
fn holds(topology: &Topology, what: &str) {
    let again = read::from_str(what, &topology.to_yaml(), Format::Selvedge);
    let again = again.unwrap_or_else(|problems| panic!("{what}: {:?}", problems.problems()));
    assert_eq!(again.topology, *topology, "{what}");
    let hosted = topology.clone().with_hosts().unwrap();
    assert_eq!(hosted.hosts().count(), topology.switches().count(), "{what}");
    let again = read::from_str(what, &hosted.to_yaml(), Format::Selvedge);
    let again = again.unwrap_or_else(|problems| panic!("{what}: {:?}", problems.problems()));
    assert_eq!(again.topology, hosted, "{what}");
}

#[test]
fn metro() {
    let read = read::from_path(&example("metro/topology.yaml")).unwrap();
    let topology = &read.topology;
    assert_eq!((topology.switches().count(), topology.hosts().count()), (8, 4));
    assert!(!read.assumptions.iter().any(Assumption::is_warning), "{:?}", read.assumptions);
    let again = read::from_str("again", &topology.to_yaml(), Format::Selvedge).unwrap();
    assert_eq!(again.topology, *topology);

    // Between any two sites there is a second way that shares no link and no switch.
    let snapshot = Snapshot::new(Arc::new(topology.clone()), 1);
    let switch = |node: &&str| snapshot.node(node).unwrap();
    let sites: Vec<_> = ["gnb1", "gnb2", "edge1", "edge2", "dc1"].iter().map(switch).collect();
    for from in &sites {
        for to in sites.iter().filter(|to| *to != from) {
            let none = Constraints::default();
            let query = Query { from: *from, to: *to, metric: Metric::Cost, constraints: &none };
            let (graph, mut scratch) = (snapshot.graph(), Scratch::new());
            disjoint_pair(graph, &mut scratch, &query, Disjoint::Node).unwrap();
        }
    }
}

#[test]
fn abilene() {
    let read = read::from_path(&example("topologies/Abilene.graphml")).unwrap();
    let topology = &read.topology;
    assert_eq!((topology.nodes.len(), topology.links.len()), (11, 14));
    assert_eq!(topology.name.as_str(), "abilene");
    assert!(!read.assumptions.iter().any(Assumption::is_warning), "{:?}", read.assumptions);
    holds(topology, "Abilene");
    let snapshot = Snapshot::new(Arc::new(topology.clone()), 1);
    let node = |name| snapshot.node(name).unwrap();
    let (from, to, none) = (node("seattle"), node("new-york"), Constraints::default());
    let query = Query { from, to, metric: Metric::Delay, constraints: &none };
    let path = cheapest(snapshot.graph(), &mut Scratch::new(), &query).unwrap();
    let names: Vec<&str> = path.nodes.iter().map(|n| snapshot.name(*n).as_str()).collect();
    let want = ["seattle", "denver", "kansas-city", "indianapolis", "chicago", "new-york"];
    assert_eq!(names, want);
    // About 4,680 km along these cities, at 5 us/km.
    let delay = path.delay(&snapshot);
    assert!((Delay(23_000)..Delay(24_000)).contains(&delay), "{delay}");
    assert_eq!(path.bottleneck(&snapshot), None, "the file has labels such as OC-192, no figures");
}

#[test]
fn geant() {
    let read = read::from_path(&example("topologies/Geant2012.graphml")).unwrap();
    let topology = &read.topology;
    assert_eq!((topology.nodes.len(), topology.links.len()), (40, 61));
    assert!(!read.assumptions.iter().any(Assumption::is_warning), "{:?}", read.assumptions);
    assert!(
        read.assumptions.iter().any(|a| matches!(a, Assumption::NoCapacity { .. })),
        "{:?}",
        read.assumptions
    );
    holds(topology, "Geant2012");
}

#[test]
fn repetita_is_directed_and_numbered() {
    let text = "NODES 3\nlabel x y\n0_New_York -74.0 40.7\n1_Chicago -87.6 41.8\n2_Lost 0 0\n\n\
                EDGES 5\nlabel src dest weight bw delay\n\
                e0 0 1 10 1000 1913\ne1 1 0 10 1000 1913\n\
                e2 0 1 7 1000 5\ne3 1 0 9 500 6\n\
                e4 1 2 1 1 0\n";
    let read = read::from_str("Three.graph", text, Format::Repetita).unwrap();
    let links = &read.topology.links;
    assert_eq!(links.len(), 3);
    assert_eq!(links[0].to_string(), "new-york:p1 - chicago:p1");
    assert_eq!(links[0].capacity, Some(BitRate::from_mbps(1)));
    // The worse figures of both directions.
    let figures = (links[1].capacity, links[1].delay, links[1].cost);
    assert_eq!(figures, (Some(BitRate(500_000)), Some(Delay(6)), Some(9)));
    let kinds: Vec<bool> = read.assumptions.iter().map(Assumption::is_warning).collect();
    assert_eq!(kinds, [false, true, true], "{:?}", read.assumptions);

    // (input, part of the problem)
    let cases = [
        ("", "NODES"),
        ("NODES x\n", "NODES"),
        ("NODES 99999\n", "from 1 to 4095"),
        ("NODES 1\nlabel x y\na 0 0\n", "EDGES"),
        ("NODES 1\nlabel x y\na 0 0\nEDGES 1\nh\n", "0 rows only"),
        ("NODES 1\nlabel x y\na 0 91\nEDGES 0\nh\n", ""),
        ("NODES 1\nlabel x y\na 0 0\nEDGES 1\nh\ne 0 1 1 1 1\n", "node \"1\""),
        ("NODES 2\nlabel x y\na 0 0\nb 0 0\nEDGES 1\nh\ne 0 1 0 1 1\n", "weight \"0\""),
        ("NODES 2\nlabel x y\na 0 0\nb 0 0\nEDGES 1\nh\ne 0 1 1 0 1\n", "bw (kbit/s) \"0\""),
        ("NODES 1\nlabel x y\na 0 0\nEDGES 0\nh\nmore\n", "more rows"),
    ];
    for (input, want) in cases {
        let got = match read::from_str("x.graph", input, Format::Repetita) {
            Ok(_) => String::new(),
            Err(problems) => problems.problems()[0].message.clone(),
        };
        assert!(got.contains(want) && got.is_empty() == want.is_empty(), "{input:?}: {got}");
    }
}

#[test]
fn bad_graphml() {
    let file = |body: &str| {
        format!(
            "<graphml><key attr.name=\"label\" for=\"node\" id=\"l\"/>\
             <key attr.name=\"LinkSpeedRaw\" for=\"edge\" id=\"s\"/>\
             <key attr.name=\"Latitude\" for=\"node\" id=\"y\"/>\
             <key attr.name=\"Longitude\" for=\"node\" id=\"x\"/>{body}</graphml>"
        )
    };
    let nodes = "<node id=\"0\"/><node id=\"1\"/>";
    let edge = |inner: &str| {
        file(&format!("<graph>{nodes}<edge source=\"0\" target=\"1\">{inner}</edge></graph>"))
    };
    let deep = "<a>".repeat(10_000);
    // (input, part of the problem)
    let cases = [
        (String::new(), "not XML"),
        (deep, "not XML"),
        ("<graphml>".into(), "not XML"),
        ("<!DOCTYPE a [<!ENTITY b \"c\">]><graphml/>".into(), "not XML"),
        (file(""), "one <graph>, not 0"),
        (file("<graph/>"), "0 nodes"),
        (file("<graph><node/></graph>"), "no \"id\""),
        (file("<graph><node id=\"0\"/><node id=\"0\"/></graph>"), "twice"),
        (file("<graph><node id=\"0\"/><edge source=\"0\" target=\"9\"/></graph>"), "no node \"9\""),
        (file("<graph><node id=\"0\"/><edge source=\"0\"/></graph>"), "no \"target\""),
        (edge("<data key=\"s\">fast</data>"), "LinkSpeedRaw \"fast\""),
        (edge("<data key=\"s\">-1</data>"), "LinkSpeedRaw \"-1\""),
        (edge("<data key=\"s\">NaN</data>"), "LinkSpeedRaw \"NaN\""),
        (edge("<data key=\"s\">1e99</data>"), "LinkSpeedRaw \"1e99\""),
        (edge("<data key=\"s\">0</data>"), ""),
        (
            file(
                "<graph><node id=\"0\"><data key=\"x\">0</data><data key=\"y\">91</data></node>\
                 </graph>",
            ),
            "not a place on Earth",
        ),
    ];
    for (input, want) in cases {
        let got = match read::from_str("x.graphml", &input, Format::GraphMl) {
            Ok(_) => String::new(),
            Err(problems) => problems.problems()[0].message.clone(),
        };
        let shown: String = input.chars().take(400).collect();
        assert!(got.contains(want) && got.is_empty() == want.is_empty(), "{shown:?}: {got}");
    }
}

#[test]
fn a_self_link_and_a_part_apart_are_reported() {
    let text = "<graphml><graph><node id=\"a\"/><node id=\"b\"/><node id=\"c\"/>\
                <edge source=\"a\" target=\"b\"/><edge source=\"a\" target=\"a\"/></graph></graphml>";
    let read = read::from_str("x.graphml", text, Format::GraphMl).unwrap();
    let warnings: Vec<String> =
        read.assumptions.iter().filter(|a| a.is_warning()).map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "1 links from a node to itself left out, such as a",
            "the network falls into 2 parts: 2 around a, 1 around c",
        ]
    );
}

/// The whole archives, where they lie beside the project.
#[test]
fn every_public_topology() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/topologies");
    let unpack = |archive: &str, program: &str, args: &[&str]| -> Option<PathBuf> {
        let archive = shared.join(archive);
        if !archive.exists() {
            eprintln!("{} is not here: not tested", archive.display());
            return None;
        }
        let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join(program);
        std::fs::create_dir_all(&to).unwrap();
        let status = Command::new(program).args(args).arg(&archive).current_dir(&to).status();
        assert!(status.expect("unpacking tool").success());
        Some(to)
    };
    let zoo = unpack("topology-zoo/topology-zoo-graphml.zip", "unzip", &["-qo"]);
    let repetita = unpack("repetita/zoo-inverse-capacity.tar.xz", "tar", &["xf"]);
    for (found, format, want) in [(zoo, Format::GraphMl, 276), (repetita, Format::Repetita, 260)] {
        let Some(found) = found else { continue };
        let mut stack = vec![found];
        let mut count = 0;
        while let Some(at) = stack.pop() {
            if at.is_dir() {
                stack.extend(std::fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().path()));
                continue;
            }
            let file = at.display().to_string();
            if Format::of_file(&file) != Some(format) {
                continue;
            }
            count += 1;
            let read = read::from_path(&at).unwrap_or_else(|problems| {
                panic!("{file}: {:?}", problems.places().collect::<Vec<_>>())
            });
            holds(&read.topology, &file);
        }
        assert_eq!(count, want, "{format:?}");
    }
}
