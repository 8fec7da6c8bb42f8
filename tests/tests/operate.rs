//! An operator at work: maintenance under traffic, who did what, and the way back.

use anyhow::{Context, Result, ensure};
use selvedge_lab::{Lab, ProcessName};
use selvedge_tests::scenario::{self, METRO, SLICES};
use selvedge_tests::{json, selvedge, succeed, up};

/// What a command that is refused says.
fn refused(lab: &Lab, args: &[&str]) -> Result<String> {
    let output = selvedge(lab, args)?;
    ensure!(output.status.code() == Some(1), "{}: {}", args.join(" "), output.status);
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_link_is_drained_and_cut_under_traffic_and_nothing_is_lost() -> Result<()> {
    let lab = up("t-drain", METRO)?;
    scenario::apply_slices(&lab)?;
    // The link that the robot's traffic takes.
    let (_, report) = scenario::interruption(&lab, || {
        succeed(&lab, &["drain", "link", "gnb1", "s1", "--reason", "new fibre"])?;
        lab.link("gnb1", "s1", false)?;
        Ok(())
    })?;
    println!("drained and cut: {} of {} packets lost", report.lost(), report.sent);
    assert_eq!(report.lost(), 0);

    // Back in its place, under traffic as well.
    lab.link("gnb1", "s1", true)?;
    lab.converged(scenario::PATIENCE)?;
    let (_, report) = scenario::interruption(&lab, || {
        succeed(&lab, &["undrain", "link", "gnb1:p1", "--wait", "20"]).map(drop)
    })?;
    assert_eq!(report.lost(), 0, "undrained");

    // A whole switch, taken down for good.
    let (_, report) = scenario::interruption(&lab, || {
        succeed(&lab, &["drain", "node", "s1"])?;
        for peer in ["gnb1", "s2", "s3", "edge2"] {
            lab.link("s1", peer, false)?;
        }
        Ok(())
    })?;
    println!("node drained and cut: {} of {} packets lost", report.lost(), report.sent);
    assert_eq!(report.lost(), 0);

    // It stays drained when the controller starts again, and says so.
    assert!(lab.kill(&ProcessName::Controller)?);
    lab.start(&ProcessName::Controller)?;
    lab.converged(scenario::PATIENCE)?;
    let node = json(&lab, &["get", "nodes", "s1"])?;
    assert_eq!(node["drained"], "by root");
    let again = json(&lab, &["drain", "node", "s1"])?;
    assert_eq!(again["changed"], false);
    let said = refused(&lab, &["drain", "node", "gnb1"])?;
    assert!(said.contains("robot-1") && said.contains("factory-control"), "{said}");
    let said = refused(&lab, &["drain", "link", "gnb1", "s2"])?;
    assert!(said.contains("nothing else leads to gnb1"), "{said}");
    let said = refused(&lab, &["drain", "node", "s11"])?;
    assert!(said.contains("did you mean \"s1\"?"), "{said}");
    Ok(())
}

#[test]
fn who_did_what_and_back_again() -> Result<()> {
    let lab = up("t-history", METRO)?;
    let applied = ["apply", SLICES, "--reason", "go live", "--author", "alice", "--wait", "20"];
    succeed(&lab, &applied)?;
    succeed(&lab, &["delete", "slice/factory-control"])?;
    let history = json(&lab, &["history"])?;
    assert_eq!(history[0]["author"], "alice (root)");
    assert_eq!(history[0]["reason"], "go live");
    assert_eq!(history[1]["objects"][0]["verb"], "deleted");
    // The plan of a rollback is kept in a file, and is for this state only.
    let text = succeed(&lab, &["rollback", "1", "--dry-run"])?;
    assert!(text.contains("+ NetworkSlice factory-control"), "{text}");
    assert_eq!(json(&lab, &["get", "slices"])?.as_array().map(Vec::len), Some(0));
    let plan = lab.run_dir().join("saved.plan");
    let plan = plan.to_str().context("a path in UTF-8")?;
    succeed(&lab, &["plan", SLICES, "-o", plan])?;
    succeed(&lab, &["rollback", "1", "--wait", "20"])?;
    let said = refused(&lab, &["apply", plan])?;
    assert!(said.contains("made on another state"), "{said}");
    assert_eq!(json(&lab, &["get", "slices"])?[0]["state"], "kept");
    let text = succeed(&lab, &["history", "3"])?;
    assert!(text.contains("back to revision 1"), "{text}");
    let said = refused(&lab, &["rollback", "7"])?;
    assert!(said.contains("there is no revision 7: the newest is 3"), "{said}");
    Ok(())
}
