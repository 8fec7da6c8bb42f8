//! Traffic in a lab, measured.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use selvedge_lab::measure::{Flow, FlowReport};
use selvedge_lab::{
    CaptureOptions, Congestion, Family, IperfOptions, LabError, Matrix, PingOptions,
};
use selvedge_topology::BitRate;
use serde_json::json;

use super::show::{as_ms, ms, on_interrupt, table};
use super::{Which, rate};
use crate::Output;

/// Address family, where one is meant.
#[derive(clap::Args)]
struct Families {
    /// IPv4 only.
    #[arg(short = '4', long)]
    ipv4: bool,
    /// IPv6 only.
    #[arg(short = '6', long, conflicts_with = "ipv4")]
    ipv6: bool,
}

impl Families {
    fn all(&self) -> Vec<Family> {
        match (self.ipv4, self.ipv6) {
            (true, _) => vec![Family::V4],
            (_, true) => vec![Family::V6],
            _ => vec![Family::V4, Family::V6],
        }
    }

    fn one(&self) -> Family {
        if self.ipv6 { Family::V6 } else { Family::V4 }
    }
}

#[derive(clap::Args)]
pub(super) struct Ping {
    #[command(flatten)]
    which: Which,
    from: String,
    to: String,
    #[command(flatten)]
    families: Families,
    /// Questions, each asked once.
    #[arg(short, long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: u32,
    /// Bytes after the ICMP header.
    #[arg(short, long, default_value_t = 56, value_parser = clap::value_parser!(u16).range(0..=1472))]
    size: u16,
}

#[derive(clap::Args)]
pub(super) struct Pingall {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    families: Families,
    /// How often a host that does not answer is asked, for a second each.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    attempts: u32,
}

#[derive(clap::Args)]
pub(super) struct Iperf {
    #[command(flatten)]
    which: Which,
    from: String,
    to: String,
    #[command(flatten)]
    families: Families,
    #[arg(short = 't', long, default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(selvedge_lab::MAX_SECONDS)))]
    seconds: u32,
    /// UDP at this rate instead of TCP.
    #[arg(short, long, value_name = "RATE", value_parser = rate)]
    udp: Option<BitRate>,
    /// TCP's congestion control: cubic, reno or bbr.
    #[arg(short = 'C', long, value_name = "NAME", conflicts_with = "udp")]
    congestion: Option<Congestion>,
    /// From the second host to the first.
    #[arg(short = 'R', long)]
    reverse: bool,
    /// Streams side by side.
    #[arg(short = 'P', long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    parallel: u32,
}

#[derive(clap::Args)]
pub(super) struct Udp {
    #[command(flatten)]
    which: Which,
    from: String,
    to: String,
    #[command(flatten)]
    families: Families,
    /// Of IP bytes.
    #[arg(long, value_parser = rate)]
    rate: BitRate,
    #[arg(short = 't', long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Bytes of a packet with its IP header.
    #[arg(short, long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(60..=1500))]
    size: u16,
    /// UDP destination port; 0 for any that is free.
    #[arg(short, long, default_value_t = 0)]
    port: u16,
}

#[derive(clap::Args)]
pub(super) struct Capture {
    #[command(flatten)]
    which: Which,
    /// A node, or NODE:PORT where several links join the two.
    a: String,
    b: String,
    /// The pcap file; `-` for standard output.
    #[arg(short, long, value_name = "FILE")]
    write: PathBuf,
    /// End after so many frames.
    #[arg(short, long)]
    count: Option<u64>,
    /// End after so many seconds; else with Ctrl-C.
    #[arg(short = 't', long)]
    seconds: Option<u64>,
}

pub(super) fn ping(args: Ping, output: Output) -> anyhow::Result<ExitCode> {
    let lab = args.which.open()?;
    let options = PingOptions {
        attempts: 1,
        payload_bytes: usize::from(args.size),
        ..PingOptions::default()
    };
    let (mut lost, mut shown) = (0, Vec::new());
    let families = args.families.all();
    for &family in &families {
        match lab.address(&args.to, family) {
            Err(LabError::NoAddress { .. }) if families.len() > 1 => continue,
            other => other?,
        };
        let pongs = lab.ping(&args.from, &args.to, family, args.count, options)?;
        let rtts: Vec<_> = pongs.iter().filter_map(|pong| pong.rtt).collect();
        lost += pongs.len() - rtts.len();
        let mean = rtts.iter().sum::<Duration>() / u32::try_from(rtts.len().max(1))?;
        let (min, max) = (rtts.iter().min(), rtts.iter().max());
        if output == Output::Text {
            let answered = format!("{family}: {} of {} answered", rtts.len(), pongs.len());
            match (min, max) {
                (Some(min), Some(max)) => {
                    println!(
                        "{answered}, {} / {} / {} (min/mean/max)",
                        ms(*min),
                        ms(mean),
                        ms(*max)
                    );
                }
                _ => println!("{answered}"),
            }
        }
        let all: Vec<_> = pongs.iter().map(|pong| pong.rtt.map(as_ms)).collect();
        shown.push(json!({ "family": family.to_string(), "rtt_ms": all }));
    }
    if output == Output::Json {
        println!("{:#}", json!({ "from": args.from, "to": args.to, "answers": shown }));
    }
    Ok(code(lost == 0 && !shown.is_empty()))
}

fn code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

pub(super) fn pingall(args: Pingall, output: Output) -> anyhow::Result<ExitCode> {
    let lab = args.which.open()?;
    let start = Instant::now();
    let options = PingOptions { attempts: args.attempts, ..PingOptions::default() };
    let matrix = lab.pingall(&args.families.all(), options)?;
    let seconds = start.elapsed().as_secs_f64();
    match output {
        Output::Text => print_matrix(&matrix, seconds),
        Output::Json => {
            let missing: Vec<_> = matrix
                .missing()
                .map(|(from, to, family)| {
                    json!({ "from": from, "to": to, "family": family.to_string() })
                })
                .collect();
            println!(
                "{:#}",
                json!({
                    "asked": matrix.pongs.len(), "reached": matrix.reached(),
                    "percent": matrix.percent(), "missing": missing, "seconds": seconds,
                })
            );
        }
    }
    Ok(code(matrix.is_complete()))
}

/// Beyond so many hosts a matrix does not fit a line.
const MATRIX_HOSTS: usize = 16;
/// Pairs that are listed one by one.
const LISTED: usize = 20;

/// A cell is what answered: both families, one of them, or none.
fn print_matrix(matrix: &Matrix, seconds: f64) {
    let mut hosts: Vec<&str> = matrix.pongs.keys().map(|(from, ..)| from.as_str()).collect();
    hosts.dedup();
    if hosts.len() <= MATRIX_HOSTS {
        let mut rows = table(std::iter::once("").chain(hosts.iter().copied()));
        for from in &hosts {
            let cell = |to: &&str| {
                let answered = |family| {
                    let key = ((*from).to_owned(), (*to).to_owned(), family);
                    matrix.pongs.get(&key).map(|pong| pong.rtt.is_some())
                };
                let [v4, v6] = [Family::V4, Family::V6].map(answered);
                match (v4, v6) {
                    (None, None) => "-",
                    (Some(false) | None, Some(false) | None) => "NONE",
                    (Some(false), _) => "IPv6",
                    (_, Some(false)) => "IPv4",
                    _ => "ok",
                }
                .to_owned()
            };
            let row: Vec<_> =
                std::iter::once((*from).to_owned()).chain(hosts.iter().map(cell)).collect();
            rows.add_row(row);
        }
        println!("{rows}");
    }
    for (from, to, family) in matrix.missing().take(LISTED) {
        println!("{from} does not reach {to} over {family}");
    }
    let (reached, asked) = (matrix.reached(), matrix.pongs.len());
    if asked - reached > LISTED {
        println!("and {} more", asked - reached - LISTED);
    }
    let percent = matrix.percent();
    println!("{reached} of {asked} reached: {percent:.1} % ({seconds:.1} s)");
}

pub(super) fn iperf(args: Iperf, output: Output) -> anyhow::Result<ExitCode> {
    let lab = args.which.open()?;
    let options = IperfOptions {
        family: args.families.one(),
        seconds: args.seconds,
        udp: args.udp,
        reverse: args.reverse,
        parallel: args.parallel,
        congestion: args.congestion,
        ..IperfOptions::default()
    };
    let report = lab.iperf(&args.from, &args.to, options)?;
    match output {
        Output::Text => {
            let mut line = format!("received {}", mbps(report.received));
            if let Some(retransmits) = report.retransmits {
                line += &format!(", {retransmits} retransmits");
            }
            if let Some(lost) = report.lost_percent {
                line += &format!(", {lost:.2} % lost of {}", mbps(report.sent));
            }
            println!("{line}");
        }
        Output::Json => println!(
            "{:#}",
            json!({
                "sent_bps": report.sent.0, "received_bps": report.received.0,
                "retransmits": report.retransmits, "lost_percent": report.lost_percent,
                "jitter_ms": report.jitter_ms,
            })
        ),
    }
    Ok(ExitCode::SUCCESS)
}

fn mbps(rate: BitRate) -> String {
    format!("{:.2} Mbit/s", rate.0 as f64 / 1e6)
}

pub(super) fn udp(args: Udp, output: Output) -> anyhow::Result<ExitCode> {
    let lab = args.which.open()?;
    let flow = Flow {
        family: args.families.one(),
        packet_bytes: args.size.into(),
        duration: Duration::from_secs(args.seconds.into()),
        port: args.port,
        ..Flow::new(&args.from, &args.to, args.rate)
    };
    let report = lab.start_flow(&flow)?.finish();
    match output {
        Output::Text => print_flow(&report),
        Output::Json => println!(
            "{:#}",
            json!({
                "sent": report.sent, "received": report.received, "lost": report.lost(),
                "loss": report.loss(), "duplicates": report.duplicates,
                "reordered": report.reordered, "refused": report.refused,
                "rate_bps": report.rate().0, "longest_gap_ms": as_ms(report.longest_gap),
                "longest_loss": report.longest_loss,
                "delay_ms": {
                    "min": as_ms(report.delay.min), "mean": as_ms(report.delay.mean),
                    "max": as_ms(report.delay.max),
                },
            })
        ),
    }
    Ok(code(report.received > 0))
}

fn print_flow(report: &FlowReport) {
    let FlowReport { sent, received, delay, .. } = report;
    let loss = report.loss() * 100.0;
    println!("received {received} of {sent} packets ({loss:.2} % lost), {}", mbps(report.rate()));
    println!(
        "longest silence {}, longest loss {} packets",
        ms(report.longest_gap),
        report.longest_loss
    );
    println!("delay {} / {} / {} (min/mean/max)", ms(delay.min), ms(delay.mean), ms(delay.max));
    if report.duplicates + report.reordered + report.refused > 0 {
        let FlowReport { duplicates, reordered, refused, .. } = report;
        println!("{duplicates} duplicates, {reordered} reordered, {refused} refused by the sender");
    }
}

pub(super) fn capture(args: Capture, output: Output) -> anyhow::Result<ExitCode> {
    let lab = args.which.open()?;
    let stop = Arc::new(AtomicBool::new(false));
    on_interrupt(Arc::clone(&stop))?;
    let to_stdout = args.write.as_os_str() == "-";
    let mut to: Box<dyn Write> = if to_stdout {
        Box::new(std::io::stdout().lock())
    } else {
        let file = File::create(&args.write);
        Box::new(BufWriter::new(
            file.with_context(|| format!("cannot write {}", args.write.display()))?,
        ))
    };
    let options = CaptureOptions {
        frames: args.count,
        duration: args.seconds.map(Duration::from_secs),
        stop: &stop,
        snap_bytes: 65_535,
    };
    let started = |at: &str| eprintln!("capturing at {at}");
    let captured = lab.capture(&args.a, &args.b, &mut to, options, started)?;
    let (frames, at) = (captured.frames, captured.at);
    match output {
        _ if to_stdout => {}
        Output::Text => println!("{frames} frames in {}", args.write.display()),
        Output::Json => {
            println!("{:#}", json!({ "frames": frames, "at": at, "file": args.write }));
        }
    }
    Ok(ExitCode::SUCCESS)
}
