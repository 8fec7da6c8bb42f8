//! The arrows between the rooms (ARCHITECTURE.md §3): who may depend on whom, and which rooms
//! stay pure.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Room, and the rooms it may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    ("topology", &[]),
    ("slices", &["topology"]),
    ("pipeline", &[]),
    ("southbound", &["pipeline"]),
    ("ebpf-common", &[]),
    ("ebpf-parse", &[]),
    ("ebpf-programs", &["ebpf-common", "ebpf-parse"]),
    ("xdp", &["ebpf-common"]),
    ("wasm", &["southbound"]),
    ("dataplane", &["xdp", "southbound", "pipeline"]),
    ("mec-api", &["topology", "slices"]),
    ("core", &["topology", "slices", "pipeline"]),
    ("controller", &["core", "topology", "slices", "pipeline", "southbound", "mec-api"]),
    ("lab", &["topology"]),
    ("inputs", &["ebpf-parse", "pipeline", "slices", "southbound", "topology"]),
    (
        "bench",
        &["xdp", "topology", "slices", "pipeline", "southbound", "core", "controller", "dataplane"],
    ),
];

/// Rooms without runtime, kernel, network, clock or randomness.
const PURE: &[&str] = &["topology", "slices", "pipeline", "core", "ebpf-common", "ebpf-parse"];
const IMPURE: &[&str] = &["tokio", "axum", "hyper", "aya", "tonic", "nix", "rand", "uuid", "redb"];

/// What each of our packages depends on when it is built, its tests left out.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(selvedge_tests::root())
        .output()
        .expect("cargo starts");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let name = |value: &Value| value["name"].as_str().expect("a name").to_owned();
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let all = package["dependencies"].as_array().expect("dependencies").iter();
            (name(package), all.filter(|one| one["kind"].is_null()).map(name).collect())
        })
        .collect()
}

#[test]
fn rooms_depend_only_on_those_they_may_know() {
    let dependencies = dependencies();
    for (room, allowed) in ARROWS {
        let own = &dependencies[&format!("selvedge-{room}")];
        for dependency in own.iter().filter_map(|name| name.strip_prefix("selvedge-")) {
            assert!(allowed.contains(&dependency), "{room} must not know {dependency}");
        }
        if PURE.contains(room) {
            let impure = IMPURE.iter().find(|name| own.contains(**name));
            assert_eq!(impure, None, "{room} is pure");
        }
    }
}
