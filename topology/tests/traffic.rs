//! Networks and traffic matrices from files: what is taken, and what is refused with its place.

use std::path::{Path, PathBuf};

use selvedge_topology::BitRate;
use selvedge_topology::read::traffic::{Directed, demands_from_path, network_from_path};
use selvedge_topology::te::{Options, optimise};

fn example(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples")).join(name)
}

/// A file of its own, removed with the value.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("selvedge-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn abilene() -> Directed {
    network_from_path(&example("topologies/Abilene.graph"), None).unwrap()
}

#[test]
fn abilene_reaches_its_optimum() {
    let directed = abilene();
    let demands = demands_from_path(&example("topologies/Abilene.demands"), &directed).unwrap();
    let options = Options { split: false, seed: 0, max_rounds: 20 };
    let found = optimise(&directed.network, &demands, options, &|| false, &mut |_| ()).unwrap();
    // Both are known: shared/topologies/README.md.
    assert!((found.shortest_paths - 1.277).abs() < 1e-3, "{}", found.shortest_paths);
    assert!((0.8999..0.91).contains(&found.max_utilisation), "{}", found.max_utilisation);
    assert!(found.bound > 0.88 && found.bound <= found.max_utilisation, "{}", found.bound);
    assert_eq!(directed.network.label(0), "0_New_York");
}

#[test]
fn demands_name_rows_labels_and_hosts() {
    let rows = "DEMANDS 2\nlabel src dest bw\na 0 10 5\nb 3_Seattle 0_New_York 0\n";
    let file = File::new("rows.demands", rows);
    let demands = demands_from_path(&file.0, &abilene()).unwrap();
    let got: Vec<_> = demands.iter().map(|d| (d.label.as_str(), d.from, d.to, d.rate.0)).collect();
    assert_eq!(got, [("a", 0, 10, 5_000), ("b", 3, 0, 0)]);

    let metro = network_from_path(&example("metro/topology.yaml"), Some(BitRate(1_000))).unwrap();
    let file = File::new("hosts.demands", "DEMANDS 1\nlabel src dest bw\na robot-1 dc1 5\n");
    let demands = demands_from_path(&file.0, &metro).unwrap();
    assert_eq!(metro.network.label(demands[0].from), "gnb1");

    let geant = example("topologies/Geant2012.graphml");
    let geant = network_from_path(&geant, Some(BitRate(1_000))).unwrap();
    let labels = geant.network.labels();
    assert!(labels.iter().any(|label| label == "UK"), "the file's own: {labels:?}");
}

#[test]
fn bad_demands_are_refused_with_their_line() {
    // (text after the header, line, words)
    let cases = [
        ("DEMANDS 1\nh\na 0 11 5\n", 3, "there is no node \"11\""),
        ("DEMANDS 1\nh\na 0 3_Seatle 5\n", 3, "there is no node \"3_Seatle\""),
        ("DEMANDS 1\nh\na 0 1 -5\n", 3, "\"-5\" is not a number from 0"),
        ("DEMANDS 1\nh\na 0 1 99999999999999999999999\n", 3, "is not a number from 0"),
        ("DEMANDS 1\nh\na 0 1 10000000001\n", 3, "is not a number from 0 to 10000000000"),
        ("DEMANDS 1\nh\na 0 1 nan\n", 3, "is not a number"),
        ("DEMANDS 1\nh\na 1 1 5\n", 3, "from a node to itself"),
        ("DEMANDS 1\nh\na 0 1\n", 3, "label src dest bw"),
        ("DEMANDS 2\nh\na 0 1 5\na 0 2 5\n", 4, "used twice"),
        ("DEMANDS 2\nh\na 0 1 5\n", 4, "followed by 1 rows only"),
        ("DEMANDS 1\nh\na 0 1 5\nb 0 2 5\n", 4, "more rows"),
        ("DEMANDS 99999999\nh\n", 1, "are read"),
        ("", 1, "DEMANDS and a number"),
    ];
    let directed = abilene();
    for (at, (text, line, words)) in cases.into_iter().enumerate() {
        let file = File::new(&format!("bad{at}.demands"), text);
        let problems = demands_from_path(&file.0, &directed).unwrap_err();
        let found: Vec<_> = problems.places().map(|(line, _, p)| (line, p.to_string())).collect();
        let hit = found.iter().any(|(at, what)| *at == line && what.contains(words));
        assert!(hit, "{text:?}: {found:?}");
    }
}

#[test]
fn networks_that_cannot_be_judged_are_refused() {
    let graph = |edges: &str| format!("NODES 3\nh\na 0 0\nb 0 0\nc 0 0\nEDGES 2\nh\n{edges}");
    let cases = [
        ("e0 0 1 10 0 5\ne1 1 0 10 9 5\n", 8, "bw (kbit/s) \"0\""),
        ("e0 0 1 10 9 5\ne1 1 0 0 9 5\n", 9, "weight \"0\""),
        ("e0 0 7 10 9 5\ne1 1 0 10 9 5\n", 8, "node \"7\""),
        ("e0 0 1 10 9\ne1 1 0 10 9 5\n", 8, "label src dest weight bw delay"),
    ];
    for (at, (edges, line, words)) in cases.into_iter().enumerate() {
        let file = File::new(&format!("bad{at}.graph"), &graph(edges));
        let problems = network_from_path(&file.0, None).unwrap_err();
        let found: Vec<_> = problems.places().map(|(line, _, p)| (line, p.to_string())).collect();
        let hit = found.iter().any(|(at, what)| *at == line && what.contains(words));
        assert!(hit, "{edges:?}: {found:?}");
    }

    let file = File::new("apart.graph", &graph("e0 0 1 10 9 5\ne1 1 0 10 9 5\n"));
    let directed = network_from_path(&file.0, None).unwrap();
    let demands = File::new("apart.demands", "DEMANDS 1\nh\nx a c 5\n");
    let problems = demands_from_path(&demands.0, &directed).unwrap_err();
    let found: Vec<_> = problems.places().map(|(line, _, p)| (line, p.to_string())).collect();
    assert_eq!(found, [(3, "no path leads from a to c, as x needs".to_owned())]);

    let silent = network_from_path(&example("topologies/Geant2012.graphml"), None).unwrap_err();
    let problem = &silent.problems()[0];
    assert!(problem.message.contains("state no capacity"), "{problem:?}");
    assert!(problem.help.as_ref().unwrap().contains("--capacity"), "{problem:?}");
}
