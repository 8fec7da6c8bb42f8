//! What dies, breaks or moves, under traffic.

use std::time::Duration;

use anyhow::Result;
use selvedge_lab::{Lab, ProcessName};
use selvedge_tests::scenario::{self, METRO};
use selvedge_tests::{json, up};

#[test]
fn a_link_goes_down_and_traffic_takes_another_path() -> Result<()> {
    let lab = up("t-link", METRO)?;
    scenario::apply_slices(&lab)?;
    let gap = scenario::link_down(&lab)?;
    println!("link down: interrupted for {:.1} ms", gap.as_secs_f64() * 1e3);
    assert!(gap < Duration::from_secs(1), "interrupted for {gap:?}");
    Ok(())
}

#[test]
fn an_endpoint_moves_and_keeps_address_and_slice() -> Result<()> {
    let lab = up("t-move", METRO)?;
    scenario::apply_slices(&lab)?;
    let gap = scenario::moved(&lab)?;
    println!("moved to the other gNB: interrupted for {:.1} ms", gap.as_secs_f64() * 1e3);
    assert!(gap < Duration::from_secs(3), "interrupted for {gap:?}");
    Ok(())
}

/// Entries written by the controller since it started, all switches together.
fn writes(lab: &Lab) -> Result<u64> {
    let status = json(lab, &["get", "status"])?;
    status["writes"].as_u64().ok_or_else(|| anyhow::anyhow!("no `writes` in {status}"))
}

#[test]
fn killing_the_controller_loses_nothing() -> Result<()> {
    let lab = up("t-kill-ctl", METRO)?;
    scenario::apply_slices(&lab)?;
    assert!(writes(&lab)? > 0);
    let lost = scenario::killed(&lab, &ProcessName::Controller)?;
    println!("kill -9 of the controller: {lost} packets lost");
    assert_eq!(lost, 0);
    assert_eq!(writes(&lab)?, 0, "the new controller had something to write");
    Ok(())
}

#[test]
fn killing_an_agent_loses_nothing() -> Result<()> {
    let lab = up("t-kill-agent", METRO)?;
    scenario::apply_slices(&lab)?;
    for node in ["gnb1", "s1", "edge1"] {
        let before = writes(&lab)?;
        let lost = scenario::killed(&lab, &ProcessName::Switch(node.parse()?))?;
        println!("kill -9 of {node}'s agent: {lost} packets lost");
        assert_eq!(lost, 0, "{node}");
        assert_eq!(writes(&lab)?, before, "{node}: something was written on its return");
    }
    Ok(())
}
