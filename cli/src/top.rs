//! `selvedge top`: every slice's promises beside what is measured, live.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use selvedge_controller::api::wire::Link;
use selvedge_controller::api::wire_assure::{DirectionAssurance, SliceAssurance, Window};
use selvedge_controller::api::wire_trace::SampledPacket;

use crate::Output;
use crate::client::{Client, ControllerArg};
use crate::intent::{assurance, print_json, table};

/// Each second on a terminal; once into a pipe or a file.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// Looks; without it, as many as until Ctrl-C on a terminal, and one elsewhere.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    controller: ControllerArg,
}

/// Sampled packets that are shown.
const SAMPLES: usize = 5;

/// Cursor to the top left, and nothing below it (ECMA-48 CUP, ED).
const CLEAR: &str = "\x1b[H\x1b[J";

pub(crate) fn run(args: Args, output: Output) -> anyhow::Result<ExitCode> {
    let client = Client::find(&args.controller)?;
    let live = output == Output::Text && std::io::stdout().is_terminal();
    let looks = args.count.or_else(|| (!live).then_some(1));
    let mut look = 0;
    while looks.is_none_or(|looks| look < looks) {
        if look > 0 {
            std::thread::sleep(Duration::from_secs(args.interval));
        }
        look += 1;
        let answer = client.get::<Vec<SliceAssurance>>("/v1/assurance")?;
        match output {
            Output::Json => print_json(&answer)?,
            Output::Text => {
                let links = client.get::<Vec<Link>>("/v1/links")?.value;
                let packets = client.get::<Vec<SampledPacket>>("/v1/samples")?.value;
                let text = [screen(&answer.value), fabric(&links), sampled(&packets)].concat();
                let mut stdout = std::io::stdout().lock();
                writeln!(stdout, "{}{text}", if live { CLEAR } else { "" })?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What is broken comes first.
fn screen(slices: &[SliceAssurance]) -> String {
    if slices.is_empty() {
        return "no slices".to_owned();
    }
    let mut rows: Vec<(&SliceAssurance, &DirectionAssurance)> =
        slices.iter().flat_map(|slice| slice.directions.iter().map(move |d| (slice, d))).collect();
    rows.sort_by_key(|(_, direction)| direction.breaches.is_empty());
    let mut table = assurance::table();
    for (slice, direction) in rows {
        let nothing = Window {
            seconds: 0,
            measured_seconds: 0,
            offered_bps: None,
            delivered_bps: None,
            loss: None,
            delay_us: None,
            delay_max_us: None,
            availability_percent: None,
        };
        let (first, last) = (direction.windows.first(), direction.windows.last());
        let window = Window {
            availability_percent: last.and_then(|last| last.availability_percent),
            ..first.cloned().unwrap_or(nothing)
        };
        assurance::add(&mut table, &slice.slice, slice.availability_percent, direction, &window);
    }
    table.trim_fmt()
}

/// What links carry, and how long they take.
fn fabric(links: &[Link]) -> String {
    if links.is_empty() {
        return String::new();
    }
    let mut table = table::new(["link", "used >", "used <", "half / 99 % / all below"]);
    for link in links {
        table.add_row([
            format!("{} - {}", link.a, link.b),
            table::used(link.rate_ab_bps, link.capacity_bps),
            table::used(link.rate_ba_bps, link.capacity_bps),
            assurance::delays(link.measured),
        ]);
    }
    format!("\n\n{}", table.trim_fmt())
}

/// The last packets that `trace --live` showed, a line each.
fn sampled(packets: &[SampledPacket]) -> String {
    let recent = packets.iter().rev().take(SAMPLES);
    let mut table = table::new(["sampled packet", "way", "end"]);
    for packet in recent {
        let nodes: Vec<&str> = packet.steps.iter().map(|step| step.step.node.as_str()).collect();
        let last = packet.steps.last();
        let slice = last.and_then(|last| last.slice.clone()).unwrap_or_else(|| "-".to_owned());
        let end = last.map(|last| format!("{} {}", last.step.verdict, last.step.detail));
        table.add_row([slice, nodes.join(" > "), end.unwrap_or_default()]);
    }
    if table.is_empty() { String::new() } else { format!("\n\n{}", table.trim_fmt()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use selvedge_controller::api::wire_assure::Breach;

    #[test]
    fn what_is_broken_is_first_and_marked() {
        let window = |loss, availability_percent| Window {
            seconds: 5,
            measured_seconds: 5,
            offered_bps: Some(20_000_000),
            delivered_bps: Some(19_000_000),
            loss: Some(loss),
            delay_us: Some(1_500.0),
            delay_max_us: Some(2_000.0),
            availability_percent,
        };
        let direction = |name: &str, breaches: Vec<Breach>| DirectionAssurance {
            direction: name.to_owned(),
            guaranteed_bps: Some(20_000_000),
            maximum_bps: None,
            latency_us: Some(5_000),
            windows: vec![window(0.05, Some(100.0)), window(0.0, Some(99.5))],
            hops: Vec::new(),
            breaches,
        };
        let breach = Breach {
            kind: "rate".into(),
            since_ms: 0,
            hop: Some("s1:p1 -> s2:p1 lost 5 of 100 packets".into()),
            text: "5 % are lost".into(),
        };
        let slice = SliceAssurance {
            slice: "control".into(),
            second: Some(1),
            availability_percent: Some(99.99),
            directions: vec![direction("downlink", vec![]), direction("uplink", vec![breach])],
        };
        let text = screen(&[slice]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("uplink") && lines[1].contains("RATE"), "{text}");
        assert!(lines[1].contains("s1:p1 -> s2:p1"), "{text}");
        assert!(lines[2].contains("downlink") && !lines[2].contains("RATE"), "{text}");
        for figure in ["19.0 of 20.0", "5 %", "1.5 of 5 ms", "99.5 of 99.99 %"] {
            assert!(lines[1].contains(figure), "{figure} in {text}");
        }
        assert_eq!(screen(&[]), "no slices");
    }
}
