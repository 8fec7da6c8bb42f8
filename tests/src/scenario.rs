//! What Selvedge promises, each as something done to a running lab of examples/metro and the
//! figures that came of it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use selvedge_lab::measure::{Flow, FlowReport, RunningFlow};
use selvedge_lab::{Family, Lab, PingOptions, ProcessName, end};
use selvedge_topology::BitRate;

use crate::{eventually, selvedge, succeed};

pub const METRO: &str = "examples/metro/topology.yaml";
pub const SLICES: &str = "examples/metro/slices.yaml";

/// How long anything may take to be as it should be again.
pub const PATIENCE: Duration = Duration::from_secs(20);

const MBPS: u64 = 1_000_000;

/// Percent of all (host, host, family) that answer a ping.
pub fn ping_all(lab: &Lab) -> Result<f64> {
    let matrix = lab.pingall(&[Family::V4, Family::V6], PingOptions::default())?;
    Ok(matrix.percent())
}

/// A robot's uplink, in packets of 1,000 bytes.
pub fn robot(rate_bps: u64, duration: Duration) -> Flow {
    let mut flow = Flow::new("robot-1", "plc", BitRate(rate_bps));
    flow.duration = duration;
    flow
}

/// Best effort over the same wire, ten times what it carries.
pub fn flood(duration: Duration) -> Flow {
    let mut flow = Flow::new("phone-1", "video", BitRate(1000 * MBPS));
    flow.packet_bytes = 1500;
    flow.duration = duration;
    flow
}

/// Runs `foreground` while the flood lasts; the flood is up to speed before it begins.
pub fn under_flood<T>(
    lab: &Lab,
    duration: Duration,
    foreground: impl FnOnce() -> Result<T>,
) -> Result<(T, FlowReport)> {
    let flood = lab.start_flow(&flood(duration))?;
    eventually("a flood", PATIENCE, || Ok(flood.progress().0 > 20_000))?;
    let result = foreground();
    flood.stop();
    let report = flood.finish();
    Ok((result?, report))
}

/// Loss of the robot's 19.5 Mbit/s while the wire it shares is flooded: 0 to 1.
pub fn guarantee(lab: &Lab, duration: Duration) -> Result<f64> {
    let whole = duration + Duration::from_secs(5);
    // As large as the flood's: a full wire drops by bytes, and small packets slip in.
    let mut flow = robot(19_500_000, duration);
    flow.packet_bytes = 1500;
    let one = || Ok(lab.flows(std::slice::from_ref(&flow))?.remove(0));
    let (report, _) = under_flood(lab, whole, one)?;
    ensure!(report.refused == 0, "the sender's own kernel refused {} packets", report.refused);
    Ok(report.loss())
}

/// What best effort gets of the wire while the slice is idle, in IP bits per second.
pub fn idle_reuse(lab: &Lab, duration: Duration) -> Result<BitRate> {
    Ok(lab.flows(&[flood(duration)])?[0].rate())
}

/// The longest time without a packet, and packets lost, of 10 Mbit/s robot traffic while
/// `disturbance` happens a second into it.
pub fn interruption(
    lab: &Lab,
    disturbance: impl FnOnce() -> Result<()>,
) -> Result<(Duration, FlowReport)> {
    let flow = lab.start_flow(&robot(10 * MBPS, Duration::from_secs(30)))?;
    let done = after_a_second(&flow).and_then(|()| disturbance()).and_then(|()| some_more(&flow));
    flow.stop();
    let report = flow.finish();
    done?;
    Ok((report.longest_gap, report))
}

/// 10 Mbit/s in packets of 1,000 bytes are 1,250 a second.
fn after_a_second(flow: &RunningFlow) -> Result<()> {
    eventually("a flow that arrives", PATIENCE, || Ok(flow.progress().1 > 1250))
}

/// Waits for a second's worth of packets to arrive from now on.
fn some_more(flow: &RunningFlow) -> Result<()> {
    let (_, so_far) = flow.progress();
    eventually("the flow arriving again", PATIENCE, || Ok(flow.progress().1 > so_far + 1250))
}

/// Takes the link that robot-1's traffic uses down, and brings it up again.
pub fn link_down(lab: &Lab) -> Result<Duration> {
    let (gap, _) = interruption(lab, || Ok(lab.link("gnb1", "s1", false)?))?;
    lab.link("gnb1", "s1", true)?;
    lab.converged(PATIENCE)?;
    Ok(gap)
}

/// Moves robot-1 to the other base station, and back.
pub fn moved(lab: &Lab) -> Result<Duration> {
    let home = lab.attachment("robot-1")?;
    let (gap, _) = interruption(lab, || {
        lab.move_host("robot-1", &end("gnb2:p9")?)?;
        Ok(())
    })?;
    ensure!(lab.attachment("robot-1")?.node.as_str() == "gnb2", "robot-1 did not move");
    lab.move_host("robot-1", &home)?;
    // It is attached there once it has been seen.
    eventually("robot-1 at home again", PATIENCE, || {
        let pongs = lab.ping("robot-1", "plc", Family::V4, 1, PingOptions::default())?;
        Ok(pongs[0].rtt.is_some())
    })?;
    lab.converged(PATIENCE)?;
    Ok(gap)
}

/// Kills a process on the spot under traffic, starts it again, waits for the network to be as
/// it should be. Packets lost.
pub fn killed(lab: &Lab, process: &ProcessName) -> Result<u64> {
    let (_, report) = interruption(lab, || {
        ensure!(lab.kill(process)?, "{process} did not run");
        std::thread::sleep(Duration::from_millis(500)); // Traffic without it, not a wait.
        lab.start(process)?;
        lab.converged(PATIENCE)?;
        Ok(())
    })?;
    Ok(report.lost())
}

/// A slice that does not fit: what `apply` says to it.
pub const TOO_MUCH: &str = "\
apiVersion: selvedge/v1
kind: NetworkSlice
metadata: { name: too-much }
spec:
  uplink: { guaranteed: 95Mbps }
  endpoints: [{ ue: phone-1 }, { dn: video }]
";

/// Applies [`TOO_MUCH`] and returns the refusal.
pub fn refusal(lab: &Lab) -> Result<String> {
    let path = crate::intent_file(lab, TOO_MUCH)?;
    let output = selvedge(lab, &["apply", path.to_str().context("a path in UTF-8")?])?;
    ensure!(output.status.code() == Some(1), "not refused: {}", output.status);
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Applies the example's slices and waits until the switches hold them.
pub fn apply_slices(lab: &Lab) -> Result<()> {
    succeed(lab, &["apply", SLICES])?;
    Ok(lab.converged(PATIENCE)?)
}
