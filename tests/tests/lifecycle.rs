//! The life of a slice through the command line, and slices of TS 28.541 both ways.

use anyhow::{Context, Result, ensure};
use selvedge_lab::Lab;
use selvedge_tests::scenario::{METRO, PATIENCE};
use selvedge_tests::{eventually, intent_file, json, selvedge, succeed, up};

const LARGE: &str = "\
apiVersion: selvedge/v1
kind: NetworkSlice
metadata: { name: large }
spec:
  downlink: { guaranteed: 90Mbps }
  uplink: { guaranteed: 90Mbps }
  endpoints: [{ ue: robot-1 }, { dn: plc }]
";

fn file(lab: &Lab, text: &str) -> Result<String> {
    Ok(intent_file(lab, text)?.to_str().context("a path in UTF-8")?.to_owned())
}

fn slice(lab: &Lab, name: &str) -> Result<serde_json::Value> {
    json(lab, &["get", "slices", name])
}

/// Meters of slices that gnb1 holds.
fn meters(lab: &Lab) -> Result<usize> {
    let entries = json(lab, &["get", "entries", "gnb1"])?;
    let entries = entries.as_array().context("a list")?;
    Ok(entries.iter().filter(|entry| entry["table"] == "slice_meter").count())
}

#[test]
fn checked_reserved_activated_deactivated_deleted() -> Result<()> {
    let lab = up("t-life", METRO)?;
    let large = file(&lab, LARGE)?;
    assert!(succeed(&lab, &["slice", "check", &large])?.contains("slice large: feasible"));
    assert_eq!(json(&lab, &["get", "slices"])?, serde_json::json!([]), "a check changes nothing");

    // A reservation keeps others out, costs switches nothing, and ends by itself.
    let said = succeed(&lab, &["slice", "reserve", &large, "--for", "8s"])?;
    assert!(said.contains("reserved until"), "{said}");
    assert_eq!(slice(&lab, "large")?["lifecycle"], "reserved");
    let rival = LARGE.replace("name: large", "name: rival").replace("90Mbps", "95Mbps");
    let both = format!("{}---\n{rival}", LARGE.replace("name: large", "name: second"));
    let both = file(&lab, &both)?;
    let output = selvedge(&lab, &["slice", "check", &both])?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("slice second: feasible"), "{said}");
    assert!(said.contains("slice rival: INFEASIBLE"), "{said}");
    assert_eq!(meters(&lab)?, 0, "a reservation is nothing to a switch");
    eventually("given back", PATIENCE, || Ok(slice(&lab, "large")?["lifecycle"] == "designed"))?;
    assert_eq!(slice(&lab, "large")?["operational_state"], "DISABLED");

    succeed(&lab, &["slice", "activate", "large", "--wait", "20"])?;
    assert_eq!(meters(&lab)?, 1);
    assert_eq!(slice(&lab, "large")?["administrative_state"], "UNLOCKED");
    succeed(&lab, &["slice", "deactivate", "large", "--wait", "20"])?;
    assert_eq!(meters(&lab)?, 0);
    let locked = slice(&lab, "large")?;
    assert_eq!(locked["administrative_state"], "LOCKED");
    assert_eq!(locked["operational_state"], "ENABLED");
    let again = selvedge(&lab, &["slice", "reserve", &file(&lab, LARGE)?])?;
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    ensure!(again.status.code() == Some(1) && said.contains("deactivated"), "{said}");
    succeed(&lab, &["delete", "slice/large", "--wait", "20"])?;

    exchange(&lab)
}

/// What is exported is imported as the same, and is taken.
fn exchange(lab: &Lab) -> Result<()> {
    succeed(lab, &["apply", "examples/slices/robots.yaml"])?;
    let exported = succeed(lab, &["export", "slices", "--format", "ts28541", "--plmn", "00101"])?;
    let profile: serde_json::Value = serde_json::from_str(&exported)?;
    let profile = &profile["NetworkSlice"][0]["attributes"]["serviceProfileList"][0];
    assert_eq!(profile["dLThptPerSlice"]["guaThpt"], 5_000, "{exported}");
    let path = lab.run_dir().join("exported.json");
    std::fs::write(&path, exported)?;
    let yaml = succeed(lab, &["import", path.to_str().context("a path in UTF-8")?])?;
    assert!(yaml.contains("# not kept") && yaml.contains("plmnId"), "{yaml}");
    let yaml = file(lab, &yaml)?;
    let before = json(lab, &["explain", "slice", "motion"])?;
    succeed(lab, &["apply", &yaml])?;
    let after = json(lab, &["explain", "slice", "motion"])?;
    // All but where it came from: the standard has no templates.
    assert_eq!(before["placement"], after["placement"]);
    assert_eq!(before["meters"], after["meters"]);
    Ok(())
}
