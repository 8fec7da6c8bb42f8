//! `cargo xtask demo`: examples/metro end to end, a line for each promise as it is proven.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use selvedge_lab::{Lab, ProcessName, Signal};
use selvedge_tests::scenario::{self, METRO};
use selvedge_tests::{hook, mec, up};

fn main() -> ExitCode {
    let start = Instant::now();
    match demo(start) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One line of the table.
fn line(what: &str, figure: String, holds: bool) -> Result<()> {
    println!("{} {what:<58} {figure}", if holds { "ok  " } else { "FAIL" });
    ensure!(holds, "{what}: {figure}");
    Ok(())
}

fn demo(start: Instant) -> Result<()> {
    println!("Selvedge: examples/metro, 8 switches and 4 hosts in network namespaces\n");
    let lab = up("demo", METRO)?;
    line("lab is up", format!("{:.1} s", start.elapsed().as_secs_f64()), true)?;
    let outcome = prove(&lab);
    drop(lab);
    outcome?;
    let left = selvedge_lab::list()?.iter().any(|lab| lab.name.as_str() == "demo");
    line("nothing is left behind", String::new(), !left)?;
    println!("\n{:.1} s in all", start.elapsed().as_secs_f64());
    Ok(())
}

fn prove(lab: &Lab) -> Result<()> {
    let percent = scenario::ping_all(lab)?;
    line("before any slice everyone reaches everyone", format!("{percent} %"), percent == 100.0)?;

    scenario::apply_slices(lab)?;
    line("slice factory-control is applied: 20 Mbit/s", String::new(), true)?;
    let loss = scenario::guarantee(lab, Duration::from_secs(3))?;
    let figure = format!("{:.3} % lost", loss * 100.0);
    line("it keeps them while 1 Gbit/s floods the same wire", figure, loss <= 0.01)?;
    let rate = scenario::idle_reuse(lab, Duration::from_secs(2))?;
    line("best effort uses what it leaves idle", rate.to_string(), rate.0 >= 90_000_000)?;
    let refusal = scenario::refusal(lab)?;
    let first = refusal.lines().find(|line| line.contains("bps")).unwrap_or_default().trim();
    line("a slice that does not fit is refused", first.to_owned(), !first.is_empty())?;

    let gap = scenario::link_down(lab)?;
    line("the link it uses fails: interrupted for", millis(gap), gap < Duration::from_secs(1))?;
    let gap = scenario::moved(lab)?;
    line("robot-1 moves to the other gNB: interrupted for", millis(gap), gap.as_secs() < 3)?;

    let lost = scenario::killed(lab, &ProcessName::Controller)?;
    line("kill -9 of the controller", format!("{lost} packets lost"), lost == 0)?;
    let lost = scenario::killed(lab, &ProcessName::Switch("gnb1".parse()?))?;
    line("kill -9 of a switch's agent", format!("{lost} packets lost"), lost == 0)?;

    let changed = hook::through_hook(lab)?;
    line("a WebAssembly hook changes every packet of its slice", changed.figure(), changed.all())?;
    let blocked = mec::block_and_release(lab)?;
    line("a MEC traffic rule stops a flow, and lets it go on", blocked.figure(), blocked.holds())?;

    lab.stop(&ProcessName::Controller, Signal::SIGTERM)?;
    Ok(())
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}
