//! Assurance over a lab: what breaks a promise is told within 5 s, by its name, and a promise
//! that is kept is not.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use selvedge_lab::{Impairment, Lab};
use selvedge_tests::scenario::{self, METRO, PATIENCE};
use selvedge_tests::{apply, eventually, json, succeed, up};
use serde_json::Value;

/// From the cause to the event.
const WITHIN: Duration = Duration::from_secs(5);

/// The robot's slice with a latency. Its uplink goes over gnb1-s1.
const SLICE: &str = "\
apiVersion: selvedge/v1
kind: NetworkSlice
metadata: { name: control }
spec:
  sNssai: { sst: 2 }
  downlink: { guaranteed: 20Mbps }
  uplink: { guaranteed: 20Mbps }
  latency: 100ms
  endpoints: [{ ue: robot-1 }, { dn: plc }]
";

/// Lines of the event log of this kind after `after`, about the slice.
fn events(lab: &Lab, kind: &str, after: u64) -> Result<Vec<String>> {
    let all = json(lab, &["get", "events"])?;
    let lines = all.as_array().into_iter().flatten();
    let ours = lines.filter(|line| {
        line["kind"] == kind && line["sequence"].as_u64().is_some_and(|number| number > after)
    });
    Ok(ours.map(|line| line["text"].as_str().unwrap_or_default().to_owned()).collect())
}

fn newest(lab: &Lab) -> Result<u64> {
    let all = json(lab, &["get", "events"])?;
    let last = all.as_array().and_then(|lines| lines.last()).context("there are events")?;
    last["sequence"].as_u64().context("a sequence number")
}

/// The last 5 s of a direction: 0 downlink, 1 uplink.
fn window(lab: &Lab, direction: usize) -> Result<Value> {
    let slice = json(lab, &["get", "slice", "control"])?;
    Ok(slice["assurance"]["directions"][direction]["windows"][0].clone())
}

fn measured(lab: &Lab) -> Result<()> {
    eventually("four measured seconds of traffic", PATIENCE, || {
        let uplink = window(lab, 1)?;
        let enough = uplink["measured_seconds"].as_u64() >= Some(4);
        Ok(enough && uplink["loss"].is_number() && uplink["delay_us"].is_number())
    })
}

/// Impairs gnb1-s1, waits for the breach and removes the cause: how long the event took.
fn breach(lab: &Lab, kind: &str, impairment: Impairment) -> Result<Duration> {
    let after = newest(lab)?;
    lab.impair("gnb1", "s1", impairment)?;
    let since = Instant::now();
    eventually("an event of the breach", WITHIN, || {
        let breaches = events(lab, "slice-breach", after)?;
        Ok(breaches.iter().any(|text| text.contains(&format!("{kind}:"))))
    })?;
    let took = since.elapsed();
    let breaches = events(lab, "slice-breach", after)?;
    println!("{kind}: {breaches:?} after {took:?}");
    for text in &breaches {
        let named = ["gnb1:p1 -> s1:p3", "s1:p3 -> gnb1:p1"].iter().any(|link| text.contains(link));
        assert!(named, "the link is not named: {text}");
    }
    let top = succeed(lab, &["top"])?;
    assert!(top.contains(&kind.to_uppercase()), "{top}");
    let slice = succeed(lab, &["get", "slice", "control"])?;
    assert!(slice.contains("NOT KEPT:"), "{slice}");
    let begun = breaches.len();
    let none = Impairment { rate: None, delay: Some("0ms".parse()?), loss: Some("0%".parse()?) };
    lab.impair("gnb1", "s1", none)?;
    eventually("its end", PATIENCE, || {
        Ok(events(lab, "slice-breach-ended", after)?.len() >= begun)
    })?;
    Ok(took)
}

#[test]
fn an_impaired_link_is_named_within_five_seconds_and_its_end_is_told() -> Result<()> {
    let lab = up("t-assure", METRO)?;
    apply(&lab, SLICE)?;
    lab.converged(PATIENCE)?;
    let flow = lab.start_flow(&scenario::robot(10_000_000, Duration::from_secs(120)))?;
    measured(&lab)?;
    assert_eq!(events(&lab, "slice-breach", 0)?, [""; 0]);
    // The first seconds that were measured may have begun before the flow.
    eventually("10 Mbit/s delivered", PATIENCE, || {
        let rate = window(&lab, 1)?["delivered_bps"].as_u64();
        Ok(rate.is_some_and(|rate| (8_000_000..12_000_000).contains(&rate)))
    })?;

    breach(&lab, "rate", Impairment { loss: Some("5%".parse()?), ..Impairment::default() })?;
    breach(&lab, "delay", Impairment { delay: Some("200ms".parse()?), ..Impairment::default() })?;
    flow.stop();
    flow.finish();
    Ok(())
}

#[test]
fn a_flooded_slice_keeps_its_promise_and_says_nothing_else() -> Result<()> {
    let lab = up("t-assure-flood", METRO)?;
    scenario::apply_slices(&lab)?;
    let before = newest(&lab)?;
    let loss = scenario::guarantee(&lab, Duration::from_secs(10))?;
    println!("{:.2} % lost of what the flow sent", 100.0 * loss);
    assert_eq!(events(&lab, "slice-breach", before)?, [""; 0]);
    let slice = json(&lab, &["get", "slice", "factory-control"])?;
    let minute = &slice["assurance"]["directions"][1]["windows"][1];
    println!("measured: {minute}");
    assert!(minute["measured_seconds"].as_u64() >= Some(5), "{minute}");
    assert!(minute["loss"].as_f64().context("a loss")? < 0.01, "{minute}");
    Ok(())
}
