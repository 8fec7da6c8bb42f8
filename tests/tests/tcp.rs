//! TCP inside a guaranteed slice while everything else floods its wire: what it gets of its rate,
//! by the burst it may send, the round-trip time and how it reacts to loss; and with its class
//! queued by the kernel's HTB.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use selvedge_lab::{Congestion, IperfOptions, Lab};
use selvedge_tests::scenario::{self, PATIENCE};
use selvedge_tests::{apply, eventually, json, selvedge, succeed, up};

/// Guaranteed, as IP bytes.
const MBPS: f64 = 20.0;
const CONGESTIONS: [Congestion; 2] = [Congestion::Cubic, Congestion::Reno];

/// Both users' traffic meets on the one wire, of 100 Mbit/s.
fn topology(one_way_ms: u32, shaped: bool) -> Result<tempfile::NamedTempFile> {
    let shaped = if shaped { ", shaped: [guaranteed]" } else { "" };
    let text = format!(
        "name: wire
topology:
  nodes:
    gnb1: {{ kind: switch }}
    edge1: {{ kind: switch }}
    robot-1: {{ kind: host, ipv4: 10.1.0.11/32 }}
    phone-1: {{ kind: host, ipv4: 10.1.0.12/32 }}
    plc: {{ kind: host, ipv4: 10.2.0.21/32 }}
    video: {{ kind: host, ipv4: 10.3.0.31/32 }}
  links:
    - {{ endpoints: [\"gnb1:p1\", \"edge1:p1\"], capacity: 100Mbps, delay: {one_way_ms}ms{shaped} }}
    - {{ endpoints: [\"gnb1:p3\", \"robot-1:eth0\"] }}
    - {{ endpoints: [\"gnb1:p4\", \"phone-1:eth0\"] }}
    - {{ endpoints: [\"edge1:p3\", \"plc:eth0\"] }}
    - {{ endpoints: [\"edge1:p4\", \"video:eth0\"] }}
"
    );
    let file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
    std::fs::write(file.path(), text)?;
    Ok(file)
}

fn slice(burst: &str) -> String {
    format!(
        "apiVersion: selvedge/v1
kind: NetworkSlice
metadata: {{ name: robots }}
spec:
  class: guaranteed
  uplink: {{ guaranteed: 20Mbps{burst} }}
  endpoints: [{{ ue: robot-1 }}, {{ dn: plc }}]
"
    )
}

/// What TCP gets under the flood, in Mbit/s of IP.
fn mbps(lab: &Lab, congestion: Congestion, seconds: u32) -> Result<f64> {
    let options = IperfOptions { seconds, congestion: Some(congestion), ..IperfOptions::default() };
    let flood = Duration::from_secs(u64::from(seconds) + 10);
    let tcp = || Ok(lab.iperf("robot-1", "plc", options)?);
    let (tcp, _) = scenario::under_flood(lab, flood, tcp)?;
    // iperf3 counts payload; a full segment of 1,448 bytes is a packet of 1,500.
    Ok(tcp.received.0 as f64 * 1500.0 / 1448.0 / 1e6)
}

/// Whether the queue of the wire at gnb1 is, as its switch holds it, in HTB at that rate.
fn is_shaped(lab: &Lab, rate: Option<&str>) -> Result<bool> {
    let entries = json(lab, &["get", "entries", "gnb1"])?;
    let mut queues =
        entries.as_array().into_iter().flatten().filter(|e| e["table"] == "port_queue");
    let queue = queues.next().and_then(|queue| queue["value"].as_str()).context("a queue")?;
    Ok(queue.split_once("guaranteed in HTB at ").map(|(_, rate)| rate) == rate)
}

#[test]
fn a_class_in_htb_gives_tcp_what_is_guaranteed() -> Result<()> {
    let file = topology(5, true)?;
    let lab = up("t-tcp-htb", file.path().to_str().context("a path")?)?;
    ensure!(is_shaped(&lab, None)?, "nothing is promised yet");
    apply(&lab, &slice(""))?;
    // Frames of the fabric.
    eventually("the rate of one", PATIENCE, || is_shaped(&lab, Some("20.72 Mbit/s")))?;
    for congestion in CONGESTIONS {
        let got = mbps(&lab, congestion, 6)?;
        println!("TCP ({}) in HTB under the flood: {got:.1} Mbit/s of IP", congestion.as_str());
        ensure!(got >= 0.95 * MBPS, "TCP ({}) got {got:.1}", congestion.as_str());
        ensure!(got <= 1.03 * MBPS, "TCP ({}) got {got:.1}", congestion.as_str());
    }
    let explained = succeed(&lab, &["explain", "slice", "robots"])?;
    let queue = "the queue of the class guaranteed into gnb1:p1 -> edge1:p1";
    ensure!(explained.contains(queue), "{explained}");
    // A second slice of the class raises its rate; one that goes lowers it.
    let other = slice(", burst: 64KiB").replace("robots", "others").replace("20Mbps", "10Mbps");
    apply(&lab, &other)?;
    eventually("the rate of both", PATIENCE, || is_shaped(&lab, Some("31.08 Mbit/s")))?;
    succeed(&lab, &["delete", "slice/others"])?;
    eventually("the rate of one", PATIENCE, || is_shaped(&lab, Some("20.72 Mbit/s")))?;
    let late = other.replace("  class: guaranteed", "  class: guaranteed\n  latency: 50ms");
    let path = selvedge_tests::intent_file(&lab, &late)?;
    let refused = selvedge(&lab, &["apply", path.to_str().context("a path")?])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && said.contains("gnb1:p1 - edge1:p1 shapes it"), "{said}");
    Ok(())
}

/// `SELVEDGE_TCP=1`: the table of docs/slices.md.
#[test]
fn goodput_by_burst_and_round_trip_time() -> Result<()> {
    if std::env::var_os("SELVEDGE_TCP").is_none() {
        return Ok(());
    }
    let bursts = ["64KiB", "256KiB", "610KiB", "1MiB"];
    println!("| round trip | burst | cubic | reno |\n|---|---|---|---|");
    for one_way_ms in [0, 5, 20] {
        for shaped in [false, true] {
            let file = topology(one_way_ms, shaped)?;
            let lab = up("t-tcp-table", file.path().to_str().context("a path")?)?;
            for burst in &bursts[if shaped { 2..3 } else { 0..4 }] {
                // Without a maximum its excess would take what others leave.
                let most = if shaped { "" } else { ", maximum: 20Mbps" };
                apply(&lab, &slice(&format!("{most}, burst: {burst}")))?;
                lab.converged(PATIENCE)?;
                let [cubic, reno] = CONGESTIONS.map(|congestion| mbps(&lab, congestion, 10));
                let by = if shaped { "HTB" } else { burst };
                println!("| {} ms | {by} | {:.1} | {:.1} |", 2 * one_way_ms, cubic?, reno?);
            }
        }
    }
    Ok(())
}
