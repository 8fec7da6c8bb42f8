//! Carrying out steps, and judging what came of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use selvedge_controller::api::wire_counters::Counters;
use selvedge_lab::measure::{Flow, FlowReport, RunningFlow};
use selvedge_lab::{Done, Family, IperfOptions, Lab, LabError, PingOptions, Signal};
use selvedge_topology::Loss;

use super::file::{Action, Families, Step, Tcp, Udp};
use super::report::{Report, Verdict};
use crate::client::Client;
use crate::intent::{change_of, commit, deletion_of};

/// Longest wait for the network to settle after a step.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest time for a command of an `exec` step.
const MAX_EXEC: Duration = Duration::from_secs(60);
/// How often an interrupt is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Questions of an `unreachable` step, and how long each may be answered.
const UNREACHABLE_PINGS: u32 = 3;
const UNREACHABLE_TIMEOUT: Duration = Duration::from_millis(300);

type Seen = anyhow::Result<Result<String, String>>;

/// Carries out all steps, or skips those after one that failed.
///
/// # Errors
/// An interrupt.
pub(super) fn steps(
    lab: &Lab,
    steps: &[Step],
    cancel: &AtomicBool,
    report: &mut Report<'_>,
) -> anyhow::Result<()> {
    for step in steps {
        if report.failed() > 0 {
            skip(step, report);
            continue;
        }
        let start = Instant::now();
        let seen = match &step.action {
            Action::Udp(udp) => self::udp(lab, udp, &step.during, cancel, report),
            action => again(step.within, cancel, || act(lab, action, cancel)),
        };
        if cancel.load(Ordering::Relaxed) {
            return Err(LabError::Cancelled.into());
        }
        let verdict = match seen {
            Ok(Ok(text)) => Verdict::Passed(text),
            Ok(Err(text)) => Verdict::Failed(text),
            Err(error) => Verdict::Failed(format!("{error:#}")),
        };
        report.add(step, start.elapsed(), verdict);
    }
    Ok(())
}

/// Tries until it is as expected, or the time is over.
fn again(within: Option<Duration>, cancel: &AtomicBool, act: impl Fn() -> Seen) -> Seen {
    let start = Instant::now();
    loop {
        let seen = act();
        let late = within.is_none_or(|within| start.elapsed() > within);
        if matches!(seen, Ok(Ok(_))) || late || cancel.load(Ordering::Relaxed) {
            return seen;
        }
        thread::sleep(LOOK_AGAIN);
    }
}

fn skip(step: &Step, report: &mut Report<'_>) {
    for inner in &step.during {
        skip(inner, report);
    }
    report.add(step, Duration::ZERO, Verdict::Skipped);
}

/// What was seen: as expected, or not.
fn act(lab: &Lab, action: &Action, cancel: &AtomicBool) -> Seen {
    match action {
        Action::Apply { files, refused } => {
            let applied = change_of(files).and_then(|change| commit(&Client::of(lab)?, &change));
            match (applied, refused) {
                (Ok(applied), None) => {
                    lab.settled(Done::Told, PATIENCE)?;
                    Ok(Ok(format!("revision {}", applied.value.revision)))
                }
                (Ok(applied), Some(want)) => {
                    let revision = applied.value.revision;
                    Ok(Err(format!(
                        "expected a refusal with {want:?}; applied, revision {revision}"
                    )))
                }
                (Err(error), Some(want)) => {
                    let text = format!("{error:#}");
                    Ok(judge(text.contains(want), text, || format!("a refusal with {want:?}")))
                }
                (Err(error), None) => Err(error),
            }
        }
        Action::Delete { what } => {
            let applied = commit(&Client::of(lab)?, &deletion_of(what)?)?;
            lab.settled(Done::Told, PATIENCE)?;
            Ok(Ok(format!("revision {}", applied.value.revision)))
        }
        Action::Ping { from, to, families, count, max_loss } => {
            let options = PingOptions { attempts: 1, ..PingOptions::default() };
            let (lost, asked) = ping(lab, (from, to), *families, *count, options)?;
            let seen = format!("{} of {asked} answered", asked - lost);
            Ok(judge(share(lost, asked) <= *max_loss, seen, || at_most(*max_loss)))
        }
        Action::Unreachable { from, to, families, dropped } => {
            unreachable(lab, (from, to), *families, dropped.as_deref())
        }
        Action::Pingall { families, max_loss } => {
            let families = families.map_or(vec![Family::V4, Family::V6], |one| vec![one]);
            let matrix = lab.pingall(&families, PingOptions::default())?;
            let (asked, reached) = (matrix.pongs.len() as u64, matrix.reached() as u64);
            let mut seen = format!("{reached} of {asked} reached");
            for (from, to, family) in matrix.missing().take(10) {
                seen += &format!("; not {from} -> {to} over {family}");
            }
            Ok(judge(share(asked - reached, asked) <= *max_loss, seen, || at_most(*max_loss)))
        }
        Action::Udp(_) => unreachable!("it has steps during it, and is carried out by `steps`"),
        Action::Tcp(tcp) => self::tcp(lab, tcp),
        Action::Link { a, b, up } => {
            lab.link(a, b, *up)?;
            settle(lab, Done::Link { a, b, up: *up })
        }
        Action::Impair { a, b, impairment } => {
            let notes = lab.impair(a, b, *impairment)?;
            let notes: Vec<_> = notes.iter().map(ToString::to_string).collect();
            Ok(Ok(notes.join("; ")))
        }
        Action::Move { host, to } => {
            let was = lab.move_host(host, to)?;
            let settled = settle(lab, Done::Moved { host, to })?;
            let was = was.map_or("nowhere".to_owned(), |was| was.to_string());
            Ok(settled.map(|seen| format!("from {was}; {seen}")))
        }
        Action::Kill(process) => {
            let ran = lab.stop(process, Signal::SIGKILL)?;
            Ok(judge(ran, format!("{process} has ended"), || format!("{process} to run")))
        }
        Action::Start(process) => {
            let pid = lab.start(process)?.pid;
            lab.settled(Done::Told, PATIENCE)?;
            Ok(Ok(format!("{process} runs as process {pid}")))
        }
        Action::Exec { node, command, code, output } => {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            let start = Instant::now();
            let stop = || cancel.load(Ordering::Relaxed) || start.elapsed() > MAX_EXEC;
            let Some(done) = lab.output_until(node, &words, stop)? else {
                let seconds = MAX_EXEC.as_secs();
                return Ok(Err(format!("expected it to end within {seconds} s; it was killed")));
            };
            let out = String::from_utf8_lossy(&done.stdout);
            let seen = format!(
                "{}: {} {}",
                done.status,
                out.trim(),
                String::from_utf8_lossy(&done.stderr).trim()
            );
            let has = output.as_ref().is_none_or(|part| out.contains(part));
            let good = has && done.status.code() == Some(*code);
            let part = || output.as_ref().map(|part| format!(" and {part:?}")).unwrap_or_default();
            Ok(judge(good, seen, || format!("exit code {code}{}", part())))
        }
    }
}

fn judge(good: bool, seen: String, expected: impl FnOnce() -> String) -> Result<String, String> {
    if good { Ok(seen) } else { Err(format!("expected {}; saw {seen}", expected())) }
}

fn at_most(loss: Loss) -> String {
    format!("at most {loss} lost")
}

/// Rounded up, so that one of very many counts.
fn share(part: u64, of: u64) -> Loss {
    let ppm = (part * 1_000_000).div_ceil(of.max(1));
    u32::try_from(ppm).ok().and_then(Loss::from_ppm).expect("a part is not more than the whole")
}

fn settle(lab: &Lab, done: Done<'_>) -> Seen {
    let start = Instant::now();
    Ok(Ok(if lab.settled(done, PATIENCE)? {
        format!("settled after {} ms", start.elapsed().as_millis())
    } else {
        "no controller runs".to_owned()
    }))
}

/// (lost, asked), over the families that the hosts have.
fn ping(
    lab: &Lab,
    (from, to): (&str, &str),
    families: Families,
    count: u32,
    options: PingOptions,
) -> anyhow::Result<(u64, u64)> {
    let (mut lost, mut asked) = (0, 0);
    for family in families.map_or(vec![Family::V4, Family::V6], |one| vec![one]) {
        match lab.ping(from, to, family, count, options) {
            Ok(pongs) => {
                asked += pongs.len() as u64;
                lost += pongs.iter().filter(|pong| pong.rtt.is_none()).count() as u64;
            }
            Err(LabError::NoAddress { .. }) if families.is_none() => {}
            Err(error) => return Err(error.into()),
        }
    }
    anyhow::ensure!(asked > 0, "{from} and {to} have no address of the same family");
    Ok((lost, asked))
}

fn unreachable(
    lab: &Lab,
    (from, to): (&str, &str),
    families: Families,
    dropped: Option<&str>,
) -> Seen {
    let drops = || dropped.map(|reason| drops(lab, reason)).transpose();
    let before = drops()?;
    let options =
        PingOptions { attempts: 1, timeout: UNREACHABLE_TIMEOUT, ..PingOptions::default() };
    let (lost, asked) = ping(lab, (from, to), families, UNREACHABLE_PINGS, options)?;
    if lost < asked {
        return Ok(Err(format!("expected no answer; saw {} of {asked} answered", asked - lost)));
    }
    let (Some(reason), Some(before), Some(after)) = (dropped, before, drops()?) else {
        return Ok(Ok(format!("none of {asked} answered")));
    };
    let more = after.saturating_sub(before);
    let seen = format!("{more} more dropped for {reason}");
    Ok(judge(more >= asked, seen, || format!("at least {asked} dropped for {reason}")))
}

/// Packets that any switch has dropped for a reason.
fn drops(lab: &Lab, reason: &str) -> anyhow::Result<u64> {
    let client = Client::of(lab)?;
    let mut sum = 0;
    for switch in lab.switches()? {
        let counters = client.get::<Counters>(&format!("/v1/nodes/{switch}/counters"))?.value;
        sum += counters.drops.get(reason).copied().unwrap_or(0);
    }
    Ok(sum)
}

/// Sends for its time; where steps are to be carried out meanwhile, as long as those take.
fn udp(
    lab: &Lab,
    udp: &Udp,
    during: &[Step],
    cancel: &AtomicBool,
    report: &mut Report<'_>,
) -> Seen {
    let mut flow = Flow::new(&udp.from, &udp.to, udp.rate);
    flow.family = udp.family;
    flow.packet_bytes = udp.packet_bytes;
    flow.duration = if during.is_empty() { udp.duration } else { MAX_FLOW.min(flow.longest()) };
    let running = lab.start_flow(&flow).inspect_err(|_| {
        during.iter().for_each(|step| skip(step, report));
    })?;
    let interrupted = || cancel.load(Ordering::Relaxed);
    let start = Instant::now();
    if !during.is_empty() {
        // The flow is there before, and after, for a moment at least.
        settle_flow(&running, interrupted);
        steps(lab, during, cancel, report)?;
        settle_flow(&running, interrupted);
        if start.elapsed() >= flow.duration {
            let after = flow.duration.as_secs();
            return Ok(Err(format!(
                "its packets ended before the steps during it, after {after} s"
            )));
        }
    } else {
        wait(|| interrupted() || start.elapsed() > udp.duration);
    }
    running.stop();
    Ok(judge_flow(udp, &running.finish()))
}

/// Longer than any steps during a flow take.
const MAX_FLOW: Duration = Duration::from_secs(3_600);
/// How long a flow is left alone before and after the steps during it.
const ALONE: Duration = Duration::from_millis(300);

fn settle_flow(running: &RunningFlow, interrupted: impl Fn() -> bool) {
    let start = Instant::now();
    let (sent, _) = running.progress();
    let flows = || running.progress().0 > sent || start.elapsed() > PATIENCE;
    wait(|| interrupted() || (start.elapsed() > ALONE && flows()));
}

fn wait(until: impl Fn() -> bool) {
    while !until() {
        thread::sleep(LOOK_AGAIN);
    }
}

fn judge_flow(udp: &Udp, flow: &FlowReport) -> Result<String, String> {
    let loss = share(flow.lost(), flow.sent);
    let gap = flow.longest_gap;
    let seen = format!(
        "{} of {} lost ({loss}), {} received, longest gap {:.1} ms",
        flow.lost(),
        flow.sent,
        crate::intent::rate(flow.rate().0),
        gap.as_secs_f64() * 1e3,
    );
    if flow.refused > 0 {
        return Err(format!("{seen}; the sender's own kernel refused {} packets", flow.refused));
    }
    let mut expected = Vec::new();
    if loss > udp.max_loss {
        expected.push(at_most(udp.max_loss));
    }
    if let Some(min) = udp.min_loss.filter(|min| loss < *min) {
        expected.push(format!("at least {min} lost"));
    }
    if let Some(min) = udp.min_rate.filter(|min| flow.rate() < *min) {
        expected.push(format!("at least {min}"));
    }
    if let Some(max) = udp.max_gap.filter(|max| gap > Duration::from_micros(max.0)) {
        expected.push(format!("no gap over {max}"));
    }
    judge(expected.is_empty(), seen, || expected.join(", "))
}

fn tcp(lab: &Lab, tcp: &Tcp) -> Seen {
    let options =
        IperfOptions { family: tcp.family, seconds: tcp.seconds, ..IperfOptions::default() };
    let received = lab.iperf(&tcp.from, &tcp.to, options)?.received;
    let seen = format!("{} received", crate::intent::rate(received.0));
    if let Some(min) = tcp.min_rate.filter(|min| received < *min) {
        return Ok(Err(format!("expected at least {min}; saw {seen}")));
    }
    if let Some(max) = tcp.max_rate.filter(|max| received > *max) {
        return Ok(Err(format!("expected at most {max}; saw {seen}")));
    }
    Ok(Ok(seen))
}
