//! `trace --live` over a lab: packets of a flow, at every switch of its way, with the tables they
//! met; and what ports and links do meanwhile.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use selvedge_lab::Lab;
use selvedge_tests::scenario::{self, METRO, PATIENCE};
use selvedge_tests::{apply, eventually, json, selvedge, succeed, up};
use serde_json::Value;

/// The robot's slice, over gnb1, s1, s3 and edge1.
const SLICE: &str = "\
apiVersion: selvedge/v1
kind: NetworkSlice
metadata: { name: control }
spec:
  sNssai: { sst: 2 }
  downlink: { guaranteed: 20Mbps }
  uplink: { guaranteed: 20Mbps }
  endpoints: [{ ue: robot-1 }, { dn: plc }]
";

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn nodes(packet: &Value) -> Vec<&str> {
    let steps = packet["steps"].as_array().into_iter().flatten();
    steps.map(|step| text(&step["node"])).collect()
}

/// The first packet; all have all four switches.
fn whole(lab: &Lab, args: &[&str]) -> Result<Value> {
    let packets = json(lab, args)?;
    let packets = packets.as_array().context("a list")?;
    ensure!(packets.iter().all(|packet| nodes(packet).len() == 4), "{packets:#?}");
    packets.first().cloned().context("no packet")
}

#[test]
fn real_packets_are_told_of_hop_by_hop_with_the_tables_they_met() -> Result<()> {
    let lab = up("t-sample", METRO)?;
    apply(&lab, SLICE)?;
    lab.converged(PATIENCE)?;
    let flow = lab.start_flow(&scenario::robot(5_000_000, Duration::from_secs(120)))?;
    let told = json(&lab, &["trace", "--live", "any", "robot-1", "--seconds", "1"])?;
    ensure!(told.as_array().is_some_and(Vec::is_empty), "nobody sends to the robot: {told}");

    let packet = whole(&lab, &["trace", "--live", "robot-1", "plc"])?;
    ensure!(nodes(&packet) == ["gnb1", "s1", "s3", "edge1"], "{packet:#}");
    for step in packet["steps"].as_array().into_iter().flatten() {
        let is = |field: &str| text(&step[field]);
        ensure!((is("slice"), is("direction")) == ("control", "uplink"), "{step:#}");
        ensure!(step["in_profile"] == true && step["tables_say"].is_null(), "{step:#}");
        ensure!(is("verdict") == "forward", "{step:#}");
    }
    let tables = |at: usize| -> Vec<String> {
        let hits = packet["steps"][at]["hits"].as_array().into_iter().flatten();
        hits.map(|hit| text(&hit["table"]).to_owned()).collect()
    };
    for (at, wanted) in [
        (0, &["port", "endpoint", "slice_route", "slice_meter", "policy", "next_hop"][..]),
        (1, &["port", "next_hop", "port_queue"]),
        (3, &["port", "local_sid", "delivery"]),
    ] {
        let met = tables(at);
        ensure!(wanted.iter().all(|table| met.iter().any(|t| t == table)), "{at}: {met:?}");
    }
    // Chosen by a digest, the same ones at every switch.
    whole(
        &lab,
        &["trace", "--live", "--slice", "control", "--direction", "uplink", "--one-in", "5"],
    )?;
    let shown = succeed(&lab, &["trace", "--live", "robot-1", "plc", "--packets", "2"])?;
    for wanted in ["gnb1 (in by ", "control uplink, within its guarantee", "out by ", "slice_route"]
    {
        ensure!(shown.contains(wanted), "{wanted} in {shown}");
    }
    let top = succeed(&lab, &["top"])?;
    ensure!(top.contains("gnb1 > s1 > s3 > edge1"), "{top}");
    let refused = selvedge(&lab, &["trace", "--live", "nobody"])?;
    ensure!(!refused.status.success(), "there is no such endpoint");

    eventually("rates and delays of links and ports", PATIENCE, || {
        let links = json(&lab, &["get", "links"])?;
        let links = links.as_array().cloned().unwrap_or_default();
        let used = links.iter().any(|link| {
            let rate = |field: &str| link[field].as_u64().unwrap_or(0);
            let sent = rate("rate_ab_bps").max(rate("rate_ba_bps"));
            (4_000_000..8_000_000).contains(&sent)
        });
        let measured = links.iter().all(|link| link["measured"]["p99_us"].is_number());
        let counters = json(&lab, &["get", "counters", "gnb1"])?;
        let ports = counters["ports"].as_array().cloned().unwrap_or_default();
        let came = ports.iter().any(|port| port["rate"]["rx_bps"].as_u64() > Some(4_000_000));
        Ok(used && measured && came)
    })?;
    flow.stop();
    flow.finish();
    Ok(())
}
