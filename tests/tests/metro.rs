//! examples/metro: reachability, guarantee, isolation, refusal.

use std::net::{Ipv6Addr, UdpSocket};
use std::time::Duration;

use anyhow::Result;
use selvedge_lab::{Congestion, Family, IperfOptions, Lab, PingOptions};
use selvedge_tests::scenario::{self, METRO, PATIENCE};
use selvedge_tests::{apply, eventually, json, up, up_with};

#[test]
fn everyone_reaches_everyone_before_any_slice() -> Result<()> {
    let lab = up("t-pingall", METRO)?;
    assert_eq!(scenario::ping_all(&lab)?, 100.0);
    Ok(())
}

#[test]
fn a_guarantee_holds_under_a_flood() -> Result<()> {
    let lab = up("t-guarantee", METRO)?;
    scenario::apply_slices(&lab)?;

    let loss = scenario::guarantee(&lab, Duration::from_secs(5))?;
    println!("guaranteed 20 Mbit/s, sent 19.5, flooded with 1 Gbit/s: loss {:.3} %", loss * 100.0);
    assert!(loss <= 0.01, "lost {:.2} % of what is guaranteed", loss * 100.0);

    for congestion in [Congestion::Cubic, Congestion::Reno] {
        let seconds = 6;
        let (name, congestion) = (congestion.as_str(), Some(congestion));
        let options = IperfOptions { seconds, congestion, ..IperfOptions::default() };
        let flood = Duration::from_secs(u64::from(seconds) + 8);
        let tcp = || Ok(lab.iperf("robot-1", "plc", options)?);
        let (tcp, _) = scenario::under_flood(&lab, flood, tcp)?;
        // iperf3 counts payload; a full segment of 1,448 bytes is a packet of 1,500.
        let mbps = tcp.received.0 as f64 * 1500.0 / 1448.0 / 1e6;
        println!("TCP ({name}) under the flood: {mbps:.1} Mbit/s of IP bytes");
        assert!(mbps >= 19.0, "TCP ({name}) got {mbps:.1} of 20 Mbit/s");
    }

    let rate = scenario::idle_reuse(&lab, Duration::from_secs(4))?;
    println!("best effort while the slice is idle: {rate}");
    assert!(rate.0 >= 90_000_000, "best effort got {rate} of an idle 100 Mbit/s");
    Ok(())
}

/// So that it is known that the test above bites: ten times what it allows is lost, and more the
/// faster this machine can send.
#[test]
fn without_metering_the_guarantee_does_not_hold() -> Result<()> {
    let lab = up_with("t-unmetered", METRO, |options| options.metering = false)?;
    scenario::apply_slices(&lab)?;
    let loss = scenario::guarantee(&lab, Duration::from_secs(4))?;
    println!("the same with metering off: loss {:.1} %", loss * 100.0);
    assert!(loss >= 0.1, "lost only {:.2} %", loss * 100.0);
    Ok(())
}

const TWO_SLICES: &str = "\
apiVersion: selvedge/v1
kind: NetworkSlice
metadata: { name: a }
spec:
  uplink: { guaranteed: 10Mbps }
  endpoints: [{ ue: robot-1 }, { dn: plc }]
---
apiVersion: selvedge/v1
kind: NetworkSlice
metadata: { name: b }
spec:
  uplink: { guaranteed: 10Mbps }
  endpoints: [{ ue: phone-1 }, { dn: video }]
";

#[test]
fn slices_are_isolated_and_each_offence_has_its_reason() -> Result<()> {
    let lab = up("t-isolation", METRO)?;
    apply(&lab, TWO_SLICES)?;
    lab.converged(PATIENCE)?;
    for family in [Family::V4, Family::V6] {
        assert!(answers(&lab, "robot-1", "plc", family)?, "{family}: not within its slice");
        let before = dropped(&lab, "gnb1", "no_route")?;
        assert!(!answers(&lab, "robot-1", "video", family)?, "{family} leaks");
        assert!(dropped(&lab, "gnb1", "no_route")? > before, "{family}: counted elsewhere");
    }

    // An address that is robot-1's to have, but not to send from here.
    let before = dropped(&lab, "gnb1", "spoofed_source")?;
    let spoofed = lab.address("phone-1", Family::V4)?;
    let plc = lab.address("plc", Family::V4)?;
    let add = ["ip", "address", "add", &format!("{spoofed}/32"), "dev", "eth0"];
    assert!(lab.exec("robot-1", &add)?.success());
    lab.run("robot-1", || UdpSocket::bind((spoofed, 0))?.send_to(b"spoof", (plc, 9)))?;
    eventually("a spoofed source dropped", PATIENCE, || {
        Ok(dropped(&lab, "gnb1", "spoofed_source")? > before)
    })?;

    let before = dropped(&lab, "gnb1", "srv6_from_access")?;
    let sid = Ipv6Addr::new(0x5f00, 0, 1, 0xe001, 0, 0, 0, 0);
    lab.run("robot-1", || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?.send_to(b"x", (sid, 9)))?;
    eventually("SRv6 from an access port dropped", PATIENCE, || {
        Ok(dropped(&lab, "gnb1", "srv6_from_access")? > before)
    })?;
    Ok(())
}

fn answers(lab: &Lab, from: &str, to: &str, family: Family) -> Result<bool> {
    let pongs = lab.ping(from, to, family, 3, PingOptions::default())?;
    Ok(pongs.iter().any(|pong| pong.rtt.is_some()))
}

fn dropped(lab: &Lab, node: &str, reason: &str) -> Result<u64> {
    let counters = json(lab, &["get", "counters", node])?;
    let count = counters["drops"][reason].as_u64();
    count.ok_or_else(|| anyhow::anyhow!("no drops by {reason} in {counters}"))
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() -> Result<()> {
    let lab = up("t-refusal", METRO)?;
    scenario::apply_slices(&lab)?;
    let entries = |node| json(&lab, &["get", "entries", node]);
    let before: Vec<_> = ["gnb1", "dc1", "s1"].iter().map(|node| entries(node)).collect();
    let slices = json(&lab, &["get", "slices"])?;
    let refusal = scenario::refusal(&lab)?;
    println!("{refusal}");
    assert!(refusal.contains("gnb1"), "names no link: {refusal}");
    assert!(refusal.contains("bps"), "names no shortfall: {refusal}");
    let after: Vec<_> = ["gnb1", "dc1", "s1"].iter().map(|node| entries(node)).collect();
    for (before, after) in before.into_iter().zip(after) {
        assert_eq!(before?, after?);
    }
    assert_eq!(slices, json(&lab, &["get", "slices"])?);
    Ok(())
}
