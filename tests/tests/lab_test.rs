//! `selvedge lab test`: networks that are asserted on, from a file.

use std::fs;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use selvedge_tests::{binary, file, turn};

/// Runs a test file under a name of ours; nothing of its lab may be left.
fn lab_test(name: &str, path: &str, more: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary()?);
    command.args(["lab", "test", "--name", name]).args(more).arg(file(path));
    let output = command.output().context("run selvedge lab test")?;
    let left = Command::new("ip").args(["netns", "list"]).output()?;
    let left = String::from_utf8_lossy(&left.stdout).into_owned();
    ensure!(!left.contains(&format!("{name}-")), "left behind: {left}");
    Ok(output)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

#[test]
fn the_example_passes_and_is_told_in_tap_and_junit() -> Result<()> {
    let _turn = turn();
    let junit = std::env::temp_dir().join("selvedge-t-labtest.xml");
    let junit_path = junit.to_str().context("a path in UTF-8")?;
    let output = lab_test("t-labtest", "examples/tests/metro.yaml", &["--junit", junit_path])?;
    let tap = text(&output.stdout);
    println!("{tap}");
    ensure!(output.status.success(), "{tap}{}", text(&output.stderr));
    let points: Vec<&str> = tap.lines().filter(|line| !line.starts_with('#')).collect();
    ensure!(points[..2] == ["TAP version 14", "1..18"], "{points:?}");
    for (number, point) in (1..=18).zip(&points[2..]) {
        ensure!(point.starts_with(&format!("ok {number} - ")), "{point}");
    }
    ensure!(points.len() == 20 && !tap.contains("# SKIP"), "{tap}");
    let xml = fs::read_to_string(&junit)?;
    fs::remove_file(&junit)?;
    ensure!(xml.contains("tests=\"18\" failures=\"0\" errors=\"0\" skipped=\"0\""), "{xml}");
    ensure!(xml.matches("<testcase ").count() == 18 && xml.ends_with("</testsuites>\n"), "{xml}");
    Ok(())
}

#[test]
fn endpoints_get_their_own_rates() -> Result<()> {
    let _turn = turn();
    let output = lab_test("t-labrates", "examples/tests/rates.yaml", &[])?;
    ensure!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    Ok(())
}

#[test]
fn a_step_that_fails_ends_the_test_and_says_why() -> Result<()> {
    let _turn = turn();
    let dir = std::env::temp_dir().join("selvedge-t-labfail");
    fs::create_dir_all(&dir)?;
    let topology = file("examples/metro/topology.yaml");
    let path = dir.join("fails.yaml");
    fs::write(
        &path,
        format!(
            "apiVersion: selvedge/v1\nkind: LabTest\nmetadata: {{ name: fails }}\nspec:\n  \
             topology: {}\n  steps:\n  - ping: {{ from: robot-1, to: plc }}\n  \
             - udp: {{ from: phone-1, to: video, rate: 1Mbps, seconds: 1, maxLoss: 100% }}\n    \
             during:\n    - unreachable: {{ from: robot-1, to: plc }}\n    - pingall:\n  \
             - link: {{ ends: [gnb1, s1], state: down }}\n",
            topology.display()
        ),
    )?;
    let output = lab_test("t-labfail", path.to_str().context("UTF-8")?, &["--output", "json"])?;
    fs::remove_dir_all(&dir)?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let steps = report["steps"].as_array().context("steps")?;
    let results: Vec<_> = steps.iter().filter_map(|step| step["result"].as_str()).collect();
    // What was to be done during the flow ends before it.
    ensure!(results == ["passed", "failed", "skipped", "passed", "skipped"], "{report:#}");
    let failed = &steps[1];
    ensure!(failed["text"] == "expected no answer; saw 6 of 6 answered", "{failed}");
    ensure!(failed["line"] == 10, "{failed}");
    Ok(())
}

#[test]
fn a_wrong_file_brings_nothing_up() -> Result<()> {
    let dir = std::env::temp_dir().join("selvedge-t-labwrong");
    fs::create_dir_all(&dir)?;
    let path = dir.join("wrong.yaml");
    fs::write(&path, "apiVersion: selvedge/v1\nkind: LabTest\nmetadata: { name: x }\nspec: {}\n")?;
    let name = path.to_str().context("UTF-8")?;
    for (path, want) in [
        (name, "a spec has no \"steps\""),
        ("README.md", "README.md"),
        ("/nonexistent", "/nonexistent"),
    ] {
        let output = lab_test("t-labwrong", path, &[])?;
        let said = text(&output.stderr);
        ensure!(output.status.code() == Some(2) && said.contains(want), "{path}: {output:?}");
        ensure!(output.stdout.is_empty(), "{output:?}");
    }
    fs::remove_dir_all(&dir)?;
    Ok(())
}
