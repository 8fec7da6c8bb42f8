//! The command line as its user meets it: exit codes, and what wrong input is told.

use std::fs::File;
use std::io;
use std::process::{Command, Output, Stdio};

fn selvedge(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_selvedge"));
    command.args(args).env("SELVEDGE_CONTROLLER", "unix:/nonexistent/api.sock");
    command.output().expect("the binary starts")
}

#[test]
fn exit_codes_are_0_done_1_refused_2_usage() {
    let metro = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/metro/topology.yaml");
    let slices = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/metro/slices.yaml");
    let graph = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/topologies/Abilene.graph");
    let demands = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/topologies/Abilene.demands");
    let te = ["te", "--topology", graph, "--demands", demands, "--rounds", "1"];
    let te_from = [&te[..], &["--from", demands, "--max-moves", "1"]].concat();
    let te_moves = [&te[..], &["--max-moves", "1"]].concat();
    // (arguments, exit code, words on standard output or error)
    let cases: &[(&[&str], i32, &str)] = &[
        (&["--help"], 0, "controller"),
        (&["--version"], 0, "selvedge"),
        (&[], 2, "Usage"),
        (&["aply"], 2, "apply"),
        (&["apply"], 2, "Usage"),
        (&["get", "slicez"], 2, "slices"),
        (&["get", "slices"], 1, "/nonexistent/api.sock"),
        (&["validate", metro, slices], 0, ""),
        (&["validate", "/nonexistent.yaml"], 1, "/nonexistent.yaml"),
        (&["path", "--topology", metro, "--from", "gnb1", "--to", "dc1"], 0, "gnb1 >"),
        (&["path", "--topology", metro, "--from", "gnb1", "--to", "dc9"], 1, "dc9"),
        (&["schema"], 0, "maxNumberofUEs"),
        (&["slice", "reserve", slices, "--for", "1w"], 2, "90s, 10m, 2h or 7d"),
        (&["slice", "chek", slices], 2, "check"),
        (&["export", "slices", "--format", "yang"], 2, "ts28541"),
        (&["import", "/nonexistent.json"], 1, "/nonexistent.json"),
        (&["import", metro], 1, "expected value"),
        (&te, 0, "fullest link: 0.9"),
        (&te_from, 1, "Abilene.demands"),
        (&te_moves, 2, "--from"),
        (&["te", "--topology", metro, "--demands", demands, "--capacity", "1Gbps"], 1, "no node"),
        (
            &["path", "--topology", metro, "--from", "gnb1", "--to", "dc1", "--bandwidth", "7"],
            2,
            "7",
        ),
    ];
    for (args, code, words) in cases {
        let output = selvedge(args);
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(*code), "{args:?}: {out}{err}");
        assert!(out.contains(words) || err.contains(words), "{args:?}: {out}{err}");
    }
}

#[test]
fn every_problem_of_a_file_is_told_at_once_with_its_place() {
    let path = std::env::temp_dir().join(format!("selvedge-usage-{}.yaml", std::process::id()));
    let text = "\
apiVersion: selvedge/v1
kind: NetworkSlice
metadata: { name: a }
spec:
  uplink: { guarantied: 20Mbps }
  downlink: { guaranteed: 20Mbit }
  endpoints: [{ ue: robot-1 }, { dn: plc }]
";
    std::fs::write(&path, text).expect("a temporary file");
    let output = selvedge(&["validate", path.to_str().expect("a path in UTF-8")]);
    std::fs::remove_file(&path).expect("it is ours");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    for words in ["guarantied", "guaranteed", "20Mbit", ":5:", ":6:"] {
        assert!(err.contains(words), "lacks {words:?}: {err}");
    }
}

#[test]
fn what_an_import_does_not_keep_is_said_on_both_outputs() {
    let path = std::env::temp_dir().join(format!("selvedge-import-{}.json", std::process::id()));
    let profile = r#"{ "serviceProfileId": "wall", "sst": 1, "uESpeed": 3, "dLLatency": 20,
                       "dLThptPerSlice": { "guaThpt": 5000 } }"#;
    std::fs::write(&path, profile).expect("a temporary file");
    let file = path.to_str().expect("a path in UTF-8");
    let lacking = selvedge(&["import", file]);
    let taken = selvedge(&["import", file, "--ue", "a,c", "--dn", "b"]);
    std::fs::remove_file(&path).expect("it is ours");
    let err = String::from_utf8_lossy(&lacking.stderr);
    assert!(lacking.status.code() == Some(1) && err.contains("--ue"), "{err}");
    let (out, err) =
        (String::from_utf8_lossy(&taken.stdout), String::from_utf8_lossy(&taken.stderr));
    assert_eq!(taken.status.code(), Some(0), "{err}");
    assert!(
        out.contains("# not kept: uESpeed: 3") && err.contains("not kept: uESpeed"),
        "{out}{err}"
    );
    let objects = selvedge_slices::parse("imported", &out).expect("documents that apply takes");
    assert_eq!(objects.len(), 1, "{out}");
}

#[test]
fn ten_thousand_levels_of_yaml_are_an_error_and_no_crash() {
    let path = std::env::temp_dir().join(format!("selvedge-deep-{}.yaml", std::process::id()));
    std::fs::write(&path, "[".repeat(10_000)).expect("a temporary file");
    let output = selvedge(&["validate", path.to_str().expect("a path in UTF-8")]);
    std::fs::remove_file(&path).expect("it is ours");
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_reader_that_leaves_ends_nothing_and_a_full_disk_is_told() {
    let slices = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/metro/slices.yaml");
    let validate = |stdout: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_selvedge"));
        command.args(["validate", slices]).stdout(stdout).stderr(Stdio::piped());
        command.output().expect("the binary starts")
    };
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    let output = validate(writer.into());
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &[][..]));

    let full = File::options().write(true).open("/dev/full").expect("/dev/full");
    let output = validate(full.into());
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("standard output: No space left"), "{err}");
}
