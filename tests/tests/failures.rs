//! What dies, breaks or moves, under traffic.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;
use selvedge_lab::{Impairment, Lab, ProcessName};
use selvedge_tests::scenario::{self, METRO};
use selvedge_tests::{binary, eventually, json, succeed, up};

#[test]
fn a_link_goes_down_and_traffic_takes_another_path() -> Result<()> {
    let lab = up("t-link", METRO)?;
    scenario::apply_slices(&lab)?;
    let gap = scenario::link_down(&lab)?;
    println!("link down: interrupted for {:.1} ms", gap.as_secs_f64() * 1e3);
    assert!(gap < Duration::from_secs(1), "interrupted for {gap:?}");
    Ok(())
}

/// At the ingress and on the way; with carrier lost and with frames that vanish.
#[test]
fn switches_alone_go_around_a_cut_and_come_back_without_a_loss() -> Result<()> {
    let lab = up("t-alone", METRO)?;
    scenario::apply_slices(&lab)?;
    // As wires that can lose: laid anew before anything is measured.
    for (a, b) in [("gnb1", "s1"), ("s1", "s3")] {
        vanish(&lab, a, b, "1%")?;
        vanish(&lab, a, b, "0%")?;
    }
    lab.converged(scenario::PATIENCE)?;
    assert!(lab.kill(&ProcessName::Controller)?);
    for (a, b) in [("gnb1", "s1"), ("s1", "s3")] {
        let (gap, _) = scenario::interruption(&lab, || Ok(lab.link(a, b, false)?))?;
        println!("{a} - {b} without carrier: interrupted for {:.1} ms", gap.as_secs_f64() * 1e3);
        assert!(gap < Duration::from_millis(500), "{a} - {b}: interrupted for {gap:?}");
        let (_, back) = scenario::interruption(&lab, || Ok(lab.link(a, b, true)?))?;
        assert_eq!(back.lost(), 0, "{a} - {b} comes back");

        let (gap, _) = scenario::interruption(&lab, || vanish(&lab, a, b, "100%"))?;
        println!("{a} - {b} in silence: interrupted for {:.1} ms", gap.as_secs_f64() * 1e3);
        assert!(gap < Duration::from_millis(500), "{a} - {b}: interrupted for {gap:?}");
        let (_, back) = scenario::interruption(&lab, || vanish(&lab, a, b, "0%"))?;
        assert_eq!(back.lost(), 0, "{a} - {b} comes back");
    }
    Ok(())
}

/// Flaps of the link, unless as many as are asked for: `SELVEDGE_FLAPS=1000`.
const FLAPS: u32 = 30;

/// Neither do packets go in circles or arrive twice, nor is anything left in a table.
#[test]
fn a_link_that_flaps_leaves_nothing_behind() -> Result<()> {
    let flaps = match std::env::var("SELVEDGE_FLAPS") {
        Ok(flaps) => flaps.parse()?,
        Err(_) => FLAPS,
    };
    let lab = up("t-flap", METRO)?;
    scenario::apply_slices(&lab)?;
    let before = tables(&lab)?;
    let mut flow = scenario::robot(10_000_000, Duration::from_millis(100) * flaps * 2);
    flow.duration += Duration::from_secs(20);
    let flow = lab.start_flow(&flow)?;
    eventually("a flow", scenario::PATIENCE, || Ok(flow.progress().1 > 100))?;
    for _ in 0..flaps {
        for up in [false, true] {
            lab.link("gnb1", "s1", up)?;
            std::thread::sleep(Duration::from_millis(20)); // How long it is so, not a wait.
        }
    }
    lab.converged(scenario::PATIENCE)?;
    let sent = flow.progress().0;
    eventually("the flow after it", scenario::PATIENCE, || Ok(flow.progress().0 > sent + 1000))?;
    flow.stop();
    let flow = flow.finish();
    let (lost, sent) = (flow.lost(), flow.sent);
    println!("{flaps} flaps: {lost} of {sent} packets lost, {} twice", flow.duplicates);
    assert_eq!(flow.duplicates, 0);
    // Each time less than it takes to notice it.
    assert!(lost <= u64::from(flaps) * 25, "{flow:?}");
    assert_eq!(tables(&lab)?, before);
    for node in ["gnb1", "s1"] {
        let counters = json(&lab, &["get", "counters", node])?;
        assert_eq!(counters["drops"]["hop_limit"], 0, "{node}: {counters}");
    }
    Ok(())
}

/// What switches hold, but for the generation.
fn tables(lab: &Lab) -> Result<Vec<serde_json::Value>> {
    let nodes = json(lab, &["get", "nodes"])?;
    let names = nodes.as_array().into_iter().flatten().filter_map(|node| node["name"].as_str());
    let table = |name: &str| {
        let mut entries = json(lab, &["get", "entries", name])?;
        if let Some(entries) = entries.as_array_mut() {
            entries.retain(|entry| entry["table"] != "generation");
        }
        Ok(entries)
    };
    names.map(table).collect()
}

/// Has a link lose frames while it keeps its carrier.
fn vanish(lab: &Lab, a: &str, b: &str, loss: &str) -> Result<()> {
    let loss = Some(loss.parse()?);
    lab.impair(a, b, Impairment { loss, ..Impairment::default() })?;
    Ok(())
}

#[test]
fn an_endpoint_moves_and_keeps_address_and_slice() -> Result<()> {
    let lab = up("t-move", METRO)?;
    scenario::apply_slices(&lab)?;
    let gap = scenario::moved(&lab)?;
    println!("moved to the other gNB: interrupted for {:.1} ms", gap.as_secs_f64() * 1e3);
    // Less than a host waits before it asks for its gateway again.
    assert!(gap < Duration::from_millis(500), "interrupted for {gap:?}");
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

/// What goes over the wire with no, an expired or a foreign certificate is in
/// `controller/tests/session.rs` and `southbound/tests/p4runtime`; this is what an operator who
/// copies the wrong file sees.
#[test]
fn a_switch_with_anothers_certificate_or_none_does_not_come_back() -> Result<()> {
    let lab = up("t-cert", METRO)?;
    let s3 = ProcessName::Switch("s3".parse()?);
    let pki = lab.run_dir().join("pki");
    assert!(lab.kill(&s3)?);
    for end in ["pem", "key"] {
        std::fs::copy(pki.join(format!("gnb1.{end}")), pki.join(format!("s3.{end}")))?;
    }
    let refused = |words: &str| -> Result<()> {
        lab.start(&s3)?;
        eventually("the reason in its log", scenario::PATIENCE, || {
            Ok(std::fs::read_to_string(lab.log(&s3))?.contains(words))
        })?;
        let nodes = json(&lab, &["get", "nodes"])?;
        let joined = |name: &str| {
            let nodes = nodes.as_array().into_iter().flatten();
            nodes.clone().find(|node| node["name"] == name).map(|node| node["joined"] == true)
        };
        assert_eq!((joined("s3"), joined("gnb1")), (Some(false), Some(true)), "{words}");
        Ok(())
    };
    refused("is \"gnb1\"'s, not \"s3\"'s")?;
    std::fs::remove_file(pki.join("s3.pem"))?;
    refused("s3.pem\": No such file")?;
    // It forwards all the same.
    assert_eq!(scenario::ping_all(&lab)?, 100.0);
    Ok(())
}

/// New keys and certificates for everybody, by replacing files: packets and sessions know nothing
/// of it, and whoever connects anew is known by what it has now.
#[test]
fn certificates_are_renewed_under_traffic() -> Result<()> {
    let lab = up("t-renew", METRO)?;
    scenario::apply_slices(&lab)?;
    let (dir, agent) = (lab.run_dir().join("pki"), ProcessName::Switch("s1".parse()?));
    let (_, report) = scenario::interruption(&lab, || {
        let mut renew = Command::new(binary()?);
        renew.args(["pki", "init", "--force"]).arg(&dir).args(["--node", "controller"]);
        for switch in lab.switches()? {
            renew.args(["--node", &switch]);
        }
        assert!(renew.stdout(Stdio::null()).status()?.success());
        // In use for longer than the controller takes to look at the certificates of sessions.
        let since = Instant::now();
        eventually("sessions go on", Duration::from_secs(20), || {
            lab.converged(scenario::PATIENCE)?;
            Ok(since.elapsed() > Duration::from_secs(6))
        })?;
        let events = succeed(&lab, &["get", "events"])?;
        assert!(!events.contains("session ended"), "{events}");
        assert!(lab.kill(&agent)?);
        lab.start(&agent)?;
        Ok(lab.converged(scenario::PATIENCE)?)
    })?;
    assert_eq!(report.lost(), 0);
    Ok(())
}
