//! Selvedge YAML: what is refused, and that what is written reads back.

use std::collections::BTreeMap;

use proptest::prelude::*;
use selvedge_topology::{
    BitRate, Compute, Delay, End, Format, Host, Link, Loss, Node, Position, Power, Role, Shaped,
    Switch, Topology, read,
};

/// line:column: message [help]
fn problems(text: &str) -> Vec<String> {
    match read::from_str("t.yaml", text, Format::Selvedge) {
        Ok(_) => Vec::new(),
        Err(problems) => problems
            .places()
            .map(|(line, column, problem)| {
                let help = problem.help.as_ref().map(|help| format!(" [{help}]"));
                format!("{line}:{column}: {}{}", problem.message, help.unwrap_or_default())
            })
            .collect(),
    }
}

#[test]
fn everything_wrong_in_one_go() {
    let text = r#"
name: metro
topolgy: {}
topology:
  nodes:
    s1: { kind: switch, rol: access }
    S2: { kind: switch }
    s3: { kind: swich }
    s4: { kind: switch, position: [91, 6], compute: { cpu: 0, memory: 4G, energy: 12, accelerators: { gpu: 0 } } }
    h1: { kind: host, ipv4: 10.0.0.1, site: north }
    h2: { kind: host, ipv4: 10.0.0.2/32, ipv6: 5f00::1/128 }
    h3: { kind: host, ipv4: 10.0.0.0/24 }
    h4: { kind: host }
    h5: { kind: host, ipv6: "fd10::5/64", mac: "01:00:00:00:00:01" }
  links:
    - { endpoints: ["s1:p1", "s4:p1"], capacity: 100mbps, delay: 300, cost: 0, srlg: [1, 1] }
    - { endpoints: ["s1:p1", "s9:p1"], bandwidth: 1Gbps }
    - { endpoints: ["s1:p2", "s1:p3"], affinity: [Gold, red, red] }
    - { endpoints: ["s1:p4"] }
    - { endpoints: ["h2:eth0", "h3:eth0"] }
    - { endpoints: ["s1:p5", "h2:eth1"], capacity: 11Tbps, loss: 101% }
    - { endpoints: ["s4:p5", "h2:eth2"] }
    - { endpoints: ["s1:mgmt0", "s1-p1"] }
    - { endpoints: ["s1:p6", "s4:p6"], shaped: [guaranteed, gold] }
"#;
    let want = [
        "3:1: a topology file has no \"topolgy\" [did you mean \"topology\"?]",
        "6:25: a node has no \"rol\" [did you mean \"role\"?]",
        "7:5: \"S2\" is not a node name: 1 to 63 of a-z, 0-9 and '-', no '-' at either end \
         [did you mean s2?]",
        "8:17: \"swich\" is not a kind of node [did you mean \"switch\"?]",
        "9:36: \"91\" is not degrees from -90 to 90",
        "9:60: \"0\" is not a whole number from 1 to 4096",
        "9:71: \"4G\" is not a size such as 30kB or 4Gi [did you mean 4GB?]",
        "9:83: \"12\" is not a power such as 12W [did you mean 12W?]",
        "9:108: \"0\" is not a whole number from 1 to 4096",
        "10:29: \"10.0.0.1\" is not an address block such as 10.1.0.11/32 or fd10::11/128 \
         [did you mean 10.0.0.1/32?]",
        "10:39: a node has no \"site\": only a switch has one",
        "11:29: 10.0.0.2/32 overlaps 10.0.0.0/24 of h3",
        "11:48: 5f00::1/128 is not an address that a host can have",
        "13:9: a host has an ipv4 or ipv6 address, or both [such as ipv4: 10.1.0.11/32]",
        "14:29: fd10::5/64 has bits beyond its prefix length [did you mean fd10::5/128?]",
        "14:48: 01:00:00:00:00:01 is not one station's address",
        "16:50: \"100mbps\" is not a bit rate such as 20Mbps [did you mean 100Mbps?]",
        "16:66: \"300\" is not a time in whole microseconds such as 5ms [did you mean 300ms?]",
        "16:77: \"0\" is not a whole number from 1 to 16777214",
        "16:90: shared-risk group 1 is here twice",
        "17:21: port s1:p1 is used twice",
        "17:30: there is no node \"s9\" [did you mean \"s1\"?]",
        "17:40: a link has no \"bandwidth\": it is called \"capacity\"",
        "18:20: a link from s1 to itself",
        "18:51: \"Gold\" is not a group: 1 to 63 of a-z, 0-9 and '-' [did you mean gold?]",
        "18:62: administrative group red is here twice",
        "19:20: a link has two endpoints, not 1 [such as [\"s1:p1\", \"s2:p1\"]]",
        "20:20: a link between two hosts [a host hangs on a switch]",
        "21:52: a link's capacity is from 1kbps to 10Tbps",
        "21:66: \"101%\" is not a percentage from 0% to 100% such as 0.1%",
        "22:20: h2 has two links [a host has one link; name a second host]",
        "23:21: port name \"mgmt0\" is taken by the switch itself (lo, mgmt0, hk<number>)",
        "23:33: \"s1-p1\" is not node:port [such as \"s1:p1\"]",
        "24:48: a link that shapes has to have a capacity",
        "24:61: \"gold\" is not guaranteed or urllc",
    ];
    let mut got = problems(text);
    // Which of two overlapping hosts is pointed at is the later in the file.
    let overlap = got.iter().position(|p| p.contains("overlaps")).unwrap();
    assert!(got[overlap].starts_with("12:29: 10.0.0.0/24 overlaps 10.0.0.2/32 of h2"), "{got:#?}");
    got.remove(overlap);
    let want: Vec<&str> = want.into_iter().filter(|p| !p.contains("overlaps")).collect();
    assert_eq!(got, want, "{got:#?}");
}

#[test]
fn whole_files() {
    let deep = format!("name: x\ntopology: {}", "{a: ".repeat(10_000));
    let many_nodes: String = (0..4096).map(|i| format!("    s{i}: {{ kind: switch }}\n")).collect();
    let many_nodes = format!("name: x\ntopology:\n  nodes:\n{many_nodes}");
    // (input, parts of the problems)
    let cases: &[(&str, &[&str])] = &[
        ("", &["there is no topology"]),
        ("name: x", &["has no \"topology\""]),
        ("[]", &["a topology file is a mapping"]),
        ("name: x\ntopology: {}", &["has no \"nodes\""]),
        ("name: x\ntopology: { nodes: [] }", &["nodes is a mapping"]),
        ("name: x\ntopology: { nodes: {} }", &[]),
        ("name: X\ntopology: { nodes: {} }", &["\"X\" is not a node name"]),
        ("name: x\nnodes: {}\ntopology: { nodes: {} }", &["it belongs under"]),
        ("name: x\ntopology: { nodes: {} }\n---\nname: y", &["one YAML document"]),
        ("name: x\nname: y\ntopology: { nodes: {} }", &["\"name\" is here twice"]),
        ("name: x\ntopology: { nodes: { a: { kind: switch }, a: { kind: switch } } }", &["twice"]),
        ("name: x\ntopology: { nodes: { a: } }", &["a node is a mapping"]),
        ("name: x\ntopology: { nodes: {}, links: {} }", &["links is a list"]),
        (&deep, &["deeper than 64"]),
        (&many_nodes, &["4096 nodes: at most 4095"]),
    ];
    for (input, want) in cases {
        let got = problems(input);
        let shown: String = input.chars().take(80).collect();
        assert_eq!(got.len(), want.len(), "{shown:?}: {got:?}");
        for (got, want) in got.iter().zip(*want) {
            assert!(got.contains(want), "{shown:?}: {got}");
        }
    }
    let large = " ".repeat((16 << 20) + 1);
    assert!(problems(&large)[0].contains("larger than 16777216 bytes"));
}

#[test]
fn a_report_shows_file_line_snippet_and_suggestion() {
    let text = "name: metro\ntopology:\n  nodes:\n    s1: { kind: switch, capcity: 5 }\n";
    let problems = read::from_str("metro.yaml", text, Format::Selvedge).unwrap_err();
    let mut shown = String::new();
    let handler = miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::none());
    handler.render_report(&mut shown, &problems).unwrap();
    for part in ["metro.yaml: 1 problem", "metro.yaml:4:25", "s1: { kind: switch, capcity: 5 }"] {
        assert!(shown.contains(part), "no {part:?} in:\n{shown}");
    }
}

#[test]
fn reading_never_panics_on_damaged_files() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/metro/topology.yaml");
    let text = std::fs::read_to_string(file).unwrap();
    for cut in (0..text.len()).step_by(7).filter(|at| text.is_char_boundary(*at)) {
        drop(read::from_str("cut", &text[..cut], Format::Selvedge));
        let without =
            format!("{}{}", &text[..cut], text[cut..].chars().skip(1).collect::<String>());
        drop(read::from_str("without", &without, Format::Selvedge));
    }
}

fn switch() -> impl Strategy<Value = Switch> {
    let role = proptest::option::of(proptest::sample::select(&Role::ALL[..]));
    let site = proptest::option::of("[ -~é\u{a0}]{1,20}".prop_map(String::from));
    let position =
        proptest::option::of((-90_000_000..=90_000_000i32, -180_000_000..=180_000_000i32));
    let accelerators = proptest::collection::btree_map("[a-zA-Z0-9._-]{1,8}", 1..=4096u32, 0..3);
    let energy = proptest::option::of((0..=10_000_000u64).prop_map(Power));
    let compute = (1..=4096u32, (1u64 << 20)..=(1 << 50));
    let more = (proptest::option::of("[a-z0-9_]{1,8}"), accelerators, energy);
    let compute = proptest::option::of((compute, more));
    (role, site, position, compute).prop_map(|(role, site, position, compute)| {
        let position = position.and_then(|(lat, lon)| {
            Position::from_degrees(f64::from(lat) / 1e6, f64::from(lon) / 1e6)
        });
        let compute = compute.map(|((cpu, memory_bytes), more)| {
            let (architecture, accelerators, energy) = more;
            Compute { cpu, memory_bytes, architecture, accelerators, energy }
        });
        Switch { role, site, position, compute }
    })
}

prop_compose! {
    /// Switches in a chain with hosts on some, with any figures.
    fn topology()(
        switches in proptest::collection::vec((switch(), any::<bool>()), 1..8),
        figures in proptest::collection::vec(
            (
                proptest::option::of(1_000..=10_000_000_000_000u64),
                proptest::option::of(0..=10_000_000u64),
                proptest::option::of(1..=0x00FF_FFFEu32),
                proptest::collection::btree_set(any::<u32>(), 0..4),
                proptest::option::of(0..=1_000_000u32),
                proptest::sample::subsequence(vec!["gold", "no", "7"], 0..3),
                any::<[bool; 2]>(),
            ),
            16,
        ),
        mac in proptest::option::of(any::<[u8; 6]>()),
    ) -> Topology {
        let end = |node: String, port: &str| End {
            node: node.parse().unwrap(),
            port: port.parse().unwrap(),
        };
        let names = ["null", "s1", "0", "true", "a-b", "5g", "n", "yes"];
        let mut nodes = BTreeMap::new();
        let mut links = Vec::new();
        let mut figures = figures.into_iter();
        let mut push = |a, b| {
            let (capacity, delay, cost, srlg, loss, affinity, shaped) = figures.next().unwrap();
            let [guaranteed, urllc] = shaped.map(|shaped| shaped && capacity.is_some());
            links.push(Link {
                capacity: capacity.map(BitRate),
                delay: delay.map(Delay),
                cost,
                srlg: srlg.into_iter().collect(),
                affinity: affinity.into_iter().map(|group| group.parse().unwrap()).collect(),
                loss: loss.and_then(Loss::from_ppm),
                shaped: Shaped { guaranteed, urllc },
                ..Link::new(a, b)
            });
        };
        for (i, (switch, with_host)) in switches.into_iter().enumerate() {
            let name = names[i].to_owned();
            nodes.insert(name.parse().unwrap(), Node::Switch(switch));
            if i > 0 {
                push(end(names[i - 1].into(), "up"), end(name.clone(), "down"));
            }
            if with_host {
                let host = format!("h{i}");
                let unicast = mac.map(|mut mac| {
                    mac[0] &= 0xFE;
                    mac[5] = u8::try_from(i).unwrap() + 1;
                    mac
                });
                let host_value = Host {
                    ipv4: Some(format!("10.0.0.{i}/32").parse().unwrap()),
                    ipv6: (i % 2 == 0).then(|| format!("fd10::{i}/128").parse().unwrap()),
                    mac: unicast,
                };
                nodes.insert(host.parse().unwrap(), Node::Host(host_value));
                push(end(name, "h"), end(host, "eth0"));
            }
        }
        Topology { name: "t".parse().unwrap(), nodes, links }
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_back(topology in topology()) {
        let yaml = topology.to_yaml();
        let read = read::from_str("written", &yaml, Format::Selvedge);
        let read = read.map_err(|p| TestCaseError::fail(format!("{:?}\n{yaml}", p.problems())))?;
        prop_assert_eq!(read.topology, topology);
    }
}
