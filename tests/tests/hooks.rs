//! WebAssembly on the path of a slice.

use std::time::Duration;

use anyhow::Result;
use selvedge_lab::{Lab, ProcessName};
use selvedge_tests::scenario::{self, METRO, PATIENCE};
use selvedge_tests::{apply, eventually, hook, json, succeed, up};
use selvedge_topology::BitRate;

#[test]
fn every_packet_of_the_slice_is_changed_and_none_of_another() -> Result<()> {
    let lab = up("t-hook", METRO)?;
    scenario::apply_slices(&lab)?;
    let marked = hook::through_hook(&lab)?;
    println!("through the hook: {}", marked.figure());
    assert!(marked.all(), "{marked:?}");
    Ok(())
}

/// robot-1's slice through a module of examples/hooks/wat.
fn through(lab: &Lab, module: &str, on_failure: &str) -> Result<String> {
    let text = std::fs::read(selvedge_tests::file(&format!("examples/hooks/wat/{module}.wat")))?;
    std::fs::write(lab.run_dir().join("bad.wasm"), wat::parse_bytes(&text)?)?;
    Ok(format!(
        "\
apiVersion: selvedge/v1
kind: Hook
metadata: {{ name: bad }}
spec: {{ module: bad.wasm }}
---
apiVersion: selvedge/v1
kind: NetworkSlice
metadata: {{ name: factory-control }}
spec:
  uplink: {{ guaranteed: 20Mbps }}
  downlink: {{ guaranteed: 20Mbps }}
  endpoints: [{{ ue: robot-1 }}, {{ dn: plc }}]
  through: [{{ hook: bad, onFailure: {on_failure} }}]
"
    ))
}

/// Loss of robot-1's slice once its hook is quarantined, while another slice's loss stays 0.
fn quarantined(lab: &Lab, module: &str, on_failure: &str) -> Result<f64> {
    apply(lab, &through(lab, module, on_failure)?)?;
    lab.converged(PATIENCE)?;
    hook::running(lab, "bad")?;
    let mut other = selvedge_lab::measure::Flow::new("phone-1", "video", BitRate(8_000_000));
    other.duration = Duration::from_secs(20);
    let beside = lab.start_flow(&other)?;
    // The first packet is its undoing.
    lab.flows(&[scenario::robot(1_000_000, Duration::from_millis(200))])?;
    eventually("quarantine", PATIENCE, || Ok(hook::state(lab, "bad")? == "quarantined"))?;
    let after = lab.flows(&[scenario::robot(8_000_000, Duration::from_secs(2))])?.remove(0);
    beside.stop();
    let beside = beside.finish();
    assert_eq!(beside.lost(), 0, "{module}: another slice lost packets");
    let hooks = json(lab, &["get", "hooks", "bad"])?;
    // Quarantine holds until the hook is taken out: applying the same again changes nothing.
    succeed(lab, &["delete", "slice/factory-control"])?;
    succeed(lab, &["delete", "hook/bad"])?;
    lab.converged(PATIENCE)?;
    println!("{module}, onFailure {on_failure}: loss {:.2}; {hooks}", after.loss());
    Ok(after.loss())
}

#[test]
fn a_hook_that_loops_or_traps_is_quarantined_and_hurts_nobody_else() -> Result<()> {
    let lab = up("t-hook-bad", METRO)?;
    for module in ["loop", "trap"] {
        assert_eq!(quarantined(&lab, module, "bypass")?, 0.0, "{module}: bypass");
        assert_eq!(quarantined(&lab, module, "drop")?, 1.0, "{module}: drop");
    }
    Ok(())
}

#[test]
fn killing_the_hook_process_leaves_slices_to_on_failure() -> Result<()> {
    let lab = up("t-hook-kill", METRO)?;
    succeed(&lab, &["apply", hook::HOOKS])?;
    lab.converged(PATIENCE)?;
    hook::running(&lab, "mark")?;
    let compute = ProcessName::Compute(hook::switch(&lab, "mark")?.parse()?);

    let mut other = selvedge_lab::measure::Flow::new("phone-1", "video", BitRate(8_000_000));
    other.duration = Duration::from_secs(30);
    let beside = lab.start_flow(&other)?;
    eventually("traffic", PATIENCE, || Ok(beside.progress().1 > 100))?;
    assert!(lab.kill(&compute)?);
    eventually("the hook down", PATIENCE, || Ok(hook::state(&lab, "mark")? == "down"))?;
    let bypassed = hook::exchange(&lab, "robot-1", "plc")?;
    assert_eq!((bypassed.changed, bypassed.unchanged), (0, 1000), "onFailure: bypass");
    lab.start(&compute)?;
    hook::running(&lab, "mark")?;
    let back = hook::exchange(&lab, "robot-1", "plc")?;
    assert_eq!((back.changed, back.unchanged), (1000, 0), "the hook is back");
    beside.stop();
    assert_eq!(beside.finish().lost(), 0, "another slice lost packets");
    Ok(())
}
