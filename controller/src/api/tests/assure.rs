//! Assurance and metrics.

use selvedge_pipeline::{CounterKind, DropReason};

use super::*;

#[tokio::test]
async fn promises_stand_beside_what_is_measured() {
    let api = Fixture::new();
    let _switches = join_pair(&api.controller).await;
    assert_eq!(api.apply(&slice("control", "20Mbps")).await.0, 200);
    let one = api.get("/v1/slices/control/assurance").await;
    assert_eq!(one["slice"], "control");
    assert_eq!(one["directions"][1]["direction"], "uplink");
    assert_eq!(one["directions"][1]["guaranteed_bps"], 20_000_000);
    let windows = one["directions"][0]["windows"].as_array().unwrap();
    let lengths: Vec<_> = windows.iter().map(|window| window["seconds"].clone()).collect();
    assert_eq!(lengths, [5, 60, 900]);
    assert_eq!(windows[0]["loss"], Value::Null, "nothing was measured");
    let hops = one["directions"][1]["hops"].as_array().unwrap();
    assert_eq!(hops[0]["link"], "s1:p1 -> s2:p1");
    let all = api.get("/v1/assurance").await;
    assert_eq!(all[0]["directions"][1]["hops"], json!([]));
    assert_eq!(api.call("GET", "/v1/slices/none/assurance", None).await.0, 404);
}

/// In the text format, and in docs/assurance.md.
#[tokio::test]
async fn metrics_are_well_formed_and_documented() {
    let api = Fixture::new();
    let _switches = join_pair(&api.controller).await;
    assert_eq!(api.apply(&slice("control", "20Mbps")).await.0, 200);
    let metrics = api.get("/metrics").await;
    let text = metrics.as_str().unwrap();
    let labels = "slice=\"control\",direction=\"uplink\"";
    for line in [
        format!("selvedge_slice_promised_bits_per_second{{{labels}}} 20000000"),
        format!("selvedge_slice_breach{{{labels},kind=\"delay\"}} 0"),
        "selvedge_switches_declared 2".to_owned(),
        "selvedge_leads 1".to_owned(),
        "selvedge_link_usable{link=\"s1:p1 - s2:p1\"} 1".to_owned(),
        // As the made-up switch counts.
        format!(
            "selvedge_drops_total{{node=\"s2\",reason=\"no_route\"}} {}",
            1_000 * (CounterKind::Drops as u64 + 1) + DropReason::NoRoute as u64
        ),
        "selvedge_lldp_discarded_total{node=\"s1\",reason=\"forged\"} 0".to_owned(),
        "selvedge_host_messages_total{node=\"s1\",what=\"to_servers\"} 0".to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    // What alerts are made of.
    let rules = include_str!("../../../../docs/monitoring/alerts.yml");
    let mut names: Vec<&str> = rules
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("selvedge_"))
        .collect();
    names.sort_unstable();
    names.dedup();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        // The one that is there with `--intent` only.
        let exists = text.contains(&format!("# TYPE {name} "));
        assert!(exists || name == "selvedge_intent_files_refused", "{name} in\n{text}");
    }
    let document = include_str!("../../../../docs/assurance.md");
    for line in text.lines() {
        match line.strip_prefix("# HELP ") {
            Some(help) => {
                let (name, help) = help.split_once(' ').unwrap();
                assert!(document.contains(&format!("`{name}`")) && !help.is_empty(), "{name}");
            }
            None if line.starts_with("# TYPE ") => {
                let kinds = [" gauge", " counter", " histogram"];
                assert!(kinds.iter().any(|kind| line.ends_with(kind)), "{line}");
            }
            None => {
                let (name, value) = line.rsplit_once(' ').unwrap();
                assert!(name.starts_with("selvedge_") && value.parse::<f64>().is_ok(), "{line}");
            }
        }
    }
}
