//! `selvedge path` and `selvedge te`: the shape of what they print, and what they refuse.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const GRAPH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/topologies/Abilene.graph");
const DEMANDS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/topologies/Abilene.demands");
const GEANT: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/topologies/Geant2012.graphml");

/// Parallel links, a link without capacity, one without delay, a switch apart.
const YAML: &str = "\
name: small
topology:
  nodes:
    s1: { kind: switch }
    s2: { kind: switch }
    s3: { kind: switch }
    s4: { kind: switch }
    lone: { kind: switch }
  links:
    - { endpoints: ['s1:p1', 's2:p1'], capacity: 1Gbps, delay: 1ms }
    - { endpoints: ['s1:p2', 's2:p2'], capacity: 2Gbps, delay: 1ms }
    - { endpoints: ['s2:p3', 's3:p1'], delay: 2ms, srlg: [1] }
    - { endpoints: ['s1:p3', 's4:p1'], capacity: 10Gbps, delay: 5ms, affinity: [gold], srlg: [1] }
    - { endpoints: ['s4:p2', 's3:p2'], capacity: 10Gbps }
";

/// A file of its own, removed with the value.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("selvedge-{}-{name}", std::process::id()));
        std::fs::write(&path, text).expect("a temporary file");
        Self(path)
    }

    fn name(&self) -> &str {
        self.0.to_str().expect("a path in UTF-8")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn selvedge(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_selvedge"));
    command.args(args).output().expect("the binary starts")
}

fn json(args: &[&str]) -> Value {
    let output = selvedge(&[args, &["--output", "json"]].concat());
    serde_json::from_slice(&output.stdout).expect("JSON on standard output")
}

/// (options after the command, exit code, words on either output).
type Cases<'a> = &'a [(&'a str, i32, &'a str)];

fn hold(base: &[&str], cases: Cases<'_>) {
    for (options, code, words) in cases {
        let options: Vec<&str> = options.split_whitespace().collect();
        let output = selvedge(&[base, &options].concat());
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert_eq!(output.status.code(), Some(*code), "{options:?}: {text}");
        assert!(text.contains(words), "{options:?} lacks {words:?}: {text}");
    }
}

#[test]
fn path_refuses_what_cannot_be_and_says_what_could() {
    let file = File::new("path-refused.yaml", YAML);
    let base = ["path", "--topology", file.name(), "--from", "s1", "--to", "s3"];
    let cases: Cases<'_> = &[
        // What is no question.
        ("--max-delay -5ms", 2, "\"-5ms\" is not a time"),
        ("--max-delay 99999999999999999999s", 2, "is not a time"),
        ("--max-delay 5", 2, "did you mean"),
        ("--max-hops -1", 2, "-1 is not in"),
        ("--max-hops 99999999999", 2, "is not in"),
        ("--bandwidth 0bps", 2, "a rate of 0 asks for nothing"),
        ("--bandwidth -1Mbps", 2, "is not a bit rate"),
        ("--bandwidth 99999999999999Tbps", 2, "is not a bit rate"),
        ("-k 0", 2, "0 is not in 1..=1024"),
        ("-k 2 --disjoint link", 2, "cannot be used with"),
        ("--ecmp -k 2", 2, "cannot be used with"),
        ("--metric latency", 2, "delay, cost, hops"),
        ("--exclude-node s9", 1, "there is no switch \"s9\"; did you mean \"s1\"?"),
        ("--include-link s1", 1, "NODE:PORT of either end, or NODE:NODE"),
        ("--include-link s1:s2", 1, "s1:s2 is 2 links; name one by NODE:PORT"),
        ("--exclude-link s1:p9", 1, "s1 has no link to another switch at port \"p9\""),
        ("--exclude-srlg 7", 1, "no link is in shared-risk group 7"),
        ("--affinity-any silver", 1, "there is no administrative group \"silver\""),
        // What contradicts itself.
        ("--affinity-any gold --affinity-none gold", 1, "--affinity-none rules out"),
        ("--affinity-all gold --affinity-none gold", 1, "--affinity-none rules out"),
        (
            "--include-node s4 --exclude-node s4",
            1,
            "over what is excluded: s4, or without passing s4",
        ),
        ("--include-srlg 1 --exclude-srlg 1", 1, "over what is excluded: shared-risk group 1"),
        // What there is not: the least that would be enough.
        ("--max-delay 1ms", 1, "there is one with a delay of 3ms (2ms more than asked)"),
        ("--max-delay 0us", 1, "there is one with a delay of 3ms (3ms more than asked)"),
        ("--max-hops 1", 1, "there is one with 2 hops (1 more than asked)"),
        ("--bandwidth 20Gbps", 1, "with 10Gbps (10Gbps less than asked; the bottleneck is s1:p3"),
        ("--include-node lone", 1, "there is one without passing lone"),
        ("--affinity-any gold", 1, "if these links had the affinity: s4:p2 - s3:p2"),
        ("--exclude-node s2 --exclude-node s4", 1, "over what is excluded: s2"),
        ("--disjoint node --max-delay 4ms", 1, "there are two with a delay of 5ms (1ms more"),
        ("--disjoint srlg", 1, "every path passes shared-risk group 1"),
        (
            "--max-hops 1 --bandwidth 20Gbps --max-delay 1ms",
            1,
            "with a delay of 3ms (2ms more than asked) and with 2 hops (1 more than asked) and \
             with 2Gbps",
        ),
        // Absurd, but answered.
        ("--max-delay 9999999999s --max-hops 4294967295", 0, "s1 > s2 > s3"),
        ("--exclude-node s1", 0, "s1 > s2 > s3"),
        ("-k 1024", 0, "s1 > s4 > s3"),
    ];
    hold(&base, cases);
    let apart = ["path", "--topology", file.name(), "--from", "s1", "--to", "lone"];
    hold(&apart, &[("", 1, "s1 and lone are not connected: from s1 one reaches 4 of 5 switches")]);
}

#[test]
fn path_prints_the_documented_json() {
    let file = File::new("path-json.yaml", YAML);
    let base = ["path", "--topology", file.name(), "--from", "s1", "--to", "s3"];
    let of = |options: &str| {
        let options: Vec<&str> = options.split_whitespace().collect();
        json(&[&base[..], &options].concat())
    };
    let one = of("");
    assert!(one["assumed"].as_array().is_some_and(|all| all.len() == 4), "{one}");
    let path = &one["paths"][0];
    assert_eq!(path["nodes"], serde_json::json!(["s1", "s2", "s3"]));
    assert_eq!(path["links"][0]["ends"], "s1:p1 -> s2:p1");
    assert_eq!(path["links"][1]["capacity_bps"], Value::Null);
    let figures = ["cost", "delay_us", "bottleneck_bps"].map(|name| path[name].as_u64());
    assert_eq!(figures, [Some(20), Some(3_000), Some(1_000_000_000)]);
    assert_eq!(path["segments"], serde_json::json!(["s3"]));

    // Equal cost: over either parallel link, and over s4.
    assert_eq!(of("--ecmp --metric cost")["paths"].as_array().map(Vec::len), Some(3));
    assert_eq!(of("-k 8")["paths"].as_array().map(Vec::len), Some(3));
    let around = &of("--backups")["paths"][0]["backups"];
    assert_eq!(around[0]["link"]["links"][0]["ends"], "s1:p2 -> s2:p2");
    assert_eq!(around[0]["link"]["segments"], serde_json::json!([]));
    assert_eq!(around[0]["node"]["nodes"], serde_json::json!(["s1", "s4", "s3"]));
    assert_eq!(around[1]["link"]["segments"], serde_json::json!(["s4", "s3"]));
    assert_eq!(around[1]["node"], Value::Null, "nothing leads around the end");

    let refused = of("--max-delay 1ms");
    assert_eq!(refused["paths"], serde_json::json!([]));
    let relax = serde_json::json!([[{ "max_delay": { "asked_us": 1000, "needed_us": 3000 } }]]);
    assert_eq!(refused["relax"], relax);

    let all = json(&["path", "--topology", file.name(), "--from", "s1"]);
    assert_eq!(all["paths"].as_array().map(Vec::len), Some(3));
    assert_eq!(all["none"], serde_json::json!([{ "from": "s1", "to": "lone" }]));
    let every = json(&["path", "--topology", file.name()]);
    assert_eq!(every["paths"].as_array().map(Vec::len), Some(12));
    assert_eq!(every["none"].as_array().map(Vec::len), Some(8));
}

#[test]
fn te_refuses_what_cannot_be() {
    let plan = |text: &str| format!("{{\"policies\": [{text}]}}");
    let of = |share: &str, segments: &str| {
        plan(&format!("{{\"demand\": \"demand_1\", \"share\": {share}, \"segments\": {segments}}}"))
    };
    let files = [
        ("not-json", "policies: []".to_owned(), "expected value"),
        ("no-policies", "{}".to_owned(), "missing field `policies`"),
        ("deep", "[".repeat(100_000), "invalid type"),
        ("share", of("0.333", "[]"), "share 0.333 is not a multiple of 0.01"),
        ("negative", of("-1", "[]"), "share -1 is not a multiple of 0.01"),
        ("much", of("1e300", "[]"), "is not a multiple of 0.01"),
        ("node", of("1", "[\"Atlantis\"]"), "policies[0]: there is no node \"Atlantis\""),
        ("long", of("1", "[\"1\", \"2\", \"3\"]"), "3 segments, of at most 2"),
        ("half", of("0.5", "[\"1\"]"), "add up to 50 hundredths"),
    ];
    let base = ["te", "--topology", GRAPH, "--demands", DEMANDS];
    for (name, text, words) in files {
        let file = File::new(name, &text);
        hold(&base, &[(&format!("--from {} --max-moves 3", file.name()), 1, words)]);
    }
    let cases: Cases<'_> = &[
        ("--time -1s", 2, "\"-1s\" is not a time"),
        ("--rounds -1", 2, "invalid digit"),
        ("--capacity 0bps", 2, "a link's capacity is from 1kbps to 10Tbps"),
        ("--capacity 11Tbps", 2, "a link's capacity is from 1kbps to 10Tbps"),
        ("--max-moves 3", 2, "--from"),
        ("--max-moves -3 --from x", 2, "not a number from 0 to 1000"),
        ("--max-moves 3 --from /nonexistent.json", 1, "/nonexistent.json"),
        ("--max-moves 3 --from /dev/zero", 1, "is larger than"),
        ("--time 0us", 0, "on shortest paths 1.2770"),
    ];
    hold(&base, cases);
    let silent = ["te", "--topology", GEANT, "--demands", DEMANDS];
    hold(&silent, &[("", 1, "22 links state no capacity"), ("--capacity 0bps", 2, "1kbps")]);
}

#[test]
fn te_goes_on_from_its_own_plan_whatever_demands_are_left() {
    let base = ["te", "--topology", GRAPH, "--demands", DEMANDS, "--rounds", "2"];
    for split in [&[][..], &["--split"][..]] {
        let plan = json(&[&base[..], split].concat());
        for name in ["max_utilisation", "shortest_paths", "optimum_bound", "seconds"] {
            assert!(plan[name].as_f64().is_some(), "{name}: {plan}");
        }
        let policy = &plan["policies"][0];
        assert!(policy["demand"].is_string() && policy["share"].is_number(), "{plan}");
        assert!(policy["segments"].is_array(), "{plan}");
        // The first demand is no more.
        let gone = policy["demand"].as_str().expect("a label");
        let text = std::fs::read_to_string(DEMANDS).expect("the example");
        let (count, rows) = text.split_once('\n').expect("a header");
        let fewer = rows.lines().filter(|row| row.split_whitespace().next() != Some(gone));
        let fewer: Vec<&str> = fewer.collect();
        let all: usize = count.split_whitespace().nth(1).expect("a number").parse().expect("one");
        let demands = format!("DEMANDS {}\n{}\n", all - 1, fewer.join("\n"));
        let demands = File::new("fewer.demands", &demands);
        let running = File::new("running.json", &plan.to_string());
        let again = ["te", "--topology", GRAPH, "--demands", demands.name(), "--rounds", "2"];
        let from = ["--from", running.name(), "--max-moves", "4"];
        let change = json(&[&again[..], &from, split].concat());
        let moves = change["moves"].as_array().expect("moves");
        assert!(moves.len() <= 4, "{change}");
        assert!(change["max_utilisation"].as_f64() <= change["before"].as_f64(), "{change}");
        let assumed = change["assumed"].to_string();
        assert!(assumed.contains("1 demands of") && assumed.contains(gone), "{assumed}");
    }
}

#[test]
fn te_prints_the_best_plan_so_far_when_it_is_interrupted() {
    // A ring with more demands than two rounds can place.
    let nodes = 60;
    let mut graph = format!("NODES {nodes}\nlabel x y\n");
    (0..nodes).for_each(|node| graph += &format!("n{node} 0 0\n"));
    graph += &format!("\nEDGES {}\nlabel src dest weight bw delay\n", nodes * 4);
    let mut edge = 0;
    for node in 0..nodes {
        for by in [1, 7] {
            let (other, bw) = ((node + by) % nodes, 1000 + 37 * ((node * by) % 11));
            for (a, b) in [(node, other), (other, node)] {
                graph += &format!("e{edge} {a} {b} 1 {bw} 1\n");
                edge += 1;
            }
        }
    }
    let pairs = (0..nodes).flat_map(|a| (0..nodes).map(move |b| (a, b))).filter(|(a, b)| a != b);
    let rows: Vec<String> =
        pairs.map(|(a, b)| format!("d{a}_{b} {a} {b} {}", 1 + (a * b) % 5)).collect();
    let demands = format!("DEMANDS {}\nlabel src dest bw\n{}\n", rows.len(), rows.join("\n"));
    let (graph, demands) = (File::new("ring.graph", &graph), File::new("ring.demands", &demands));
    let mut child = Command::new(env!("CARGO_BIN_EXE_selvedge"))
        .args(["te", "--topology", graph.name(), "--demands", demands.name()])
        .args(["--time", "600s", "--progress", "--output", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let first = lines.next().expect("a line").expect("text");
    assert!(first.starts_with("round ") && first.contains("fullest link"), "{first}");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(killed.expect("kill starts").success());
    let mut text = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut text).expect("text");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    let plan: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(plan["interrupted"], true, "{plan}");
    assert!(plan["seconds"].as_f64() < Some(500.0), "ended early");
    let (full, before) = (plan["max_utilisation"].as_f64(), plan["shortest_paths"].as_f64());
    assert!(full <= before && full.is_some(), "{plan}");
}
