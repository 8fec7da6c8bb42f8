//! `selvedge trace`: the path a packet takes, with every table it hits. It is made up and followed
//! over the entries, or with `--live` one that was on the wire.

use std::process::ExitCode;

use selvedge_controller::api::wire_trace::{
    SampleRequest, SampledPacket, Trace, TraceRequest, TraceResult, TraceStep,
};

use crate::Output;
use crate::client::{Client, ControllerArg};
use crate::intent::print_json;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The endpoint that sends; with --live an address too, or `any`.
    #[arg(required_unless_present_any = ["node", "live"])]
    from: Option<String>,
    /// The endpoint that receives, or an address.
    #[arg(required_unless_present_any = ["node", "live"])]
    to: Option<String>,
    /// Real packets, as the switches see them now, instead of one that is made up: from FROM, to
    /// TO, as far as these are given.
    #[arg(long, conflicts_with_all = ["node", "protocol", "sport", "dport", "dscp", "ip_version"])]
    live: bool,
    /// Of this slice.
    #[arg(long, value_name = "NAME", requires = "live")]
    slice: Option<String>,
    /// downlink or uplink.
    #[arg(long, value_name = "DIRECTION", requires = "live",
          value_parser = ["downlink", "uplink"])]
    direction: Option<String>,
    /// One packet in so many, the same ones at every switch.
    #[arg(long, value_name = "N", requires = "live", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..))]
    one_in: u32,
    /// End after so many packets.
    #[arg(long, value_name = "N", requires = "live", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..=100))]
    packets: u32,
    /// End after so many seconds.
    #[arg(long, value_name = "SECONDS", requires = "live", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..=20))]
    seconds: u32,
    /// udp, tcp or icmp.
    #[arg(long, value_name = "PROTOCOL", requires = "from")]
    protocol: Option<String>,
    /// Source port.
    #[arg(long, value_name = "N", requires = "from")]
    sport: Option<u16>,
    /// Destination port.
    #[arg(long, value_name = "N", requires = "from")]
    dport: Option<u16>,
    /// Differentiated services code point.
    #[arg(long, value_name = "N", requires = "from",
          value_parser = clap::value_parser!(u8).range(0..=63))]
    dscp: Option<u8>,
    /// 4 or 6; if absent, what both endpoints have.
    #[arg(long = "ip", value_name = "VERSION", requires = "from",
          value_parser = clap::value_parser!(u8).range(4..=6))]
    ip_version: Option<u8>,
    /// The switch that a given frame comes to.
    #[arg(long, requires_all = ["port", "frame"], conflicts_with = "from")]
    node: Option<String>,
    /// The port it comes in by.
    #[arg(long, requires = "node")]
    port: Option<String>,
    /// The whole Ethernet frame.
    #[arg(long, value_name = "HEX", requires = "node")]
    frame: Option<String>,
    #[command(flatten)]
    controller: ControllerArg,
}

pub(crate) fn run(args: Args, output: Output) -> anyhow::Result<ExitCode> {
    if args.live {
        return live(args, output);
    }
    let request = TraceRequest {
        node: args.node,
        port: args.port,
        frame: args.frame,
        from: args.from,
        to: args.to,
        protocol: args.protocol,
        source_port: args.sport,
        destination_port: args.dport,
        dscp: args.dscp,
        ip_version: args.ip_version,
    };
    let answer = Client::find(&args.controller)?.post::<Trace>("/v1/trace", &request)?;
    match output {
        Output::Json => print_json(&answer)?,
        Output::Text => show(&answer.value),
    }
    Ok(ExitCode::SUCCESS)
}

fn live(args: Args, output: Output) -> anyhow::Result<ExitCode> {
    let request = SampleRequest {
        from: args.from.filter(|from| from != "any"),
        to: args.to.filter(|to| to != "any"),
        slice: args.slice,
        direction: args.direction,
        one_in: args.one_in,
        packets: args.packets,
        seconds: args.seconds,
    };
    let client = Client::find(&args.controller)?;
    let answer = client.post::<Vec<SampledPacket>>("/v1/samples", &request)?;
    match output {
        Output::Json => print_json(&answer)?,
        Output::Text => show_packets(&answer.value),
    }
    Ok(ExitCode::SUCCESS)
}

fn show_packets(packets: &[SampledPacket]) {
    for (number, packet) in (1..).zip(packets) {
        let first = packet.steps.first().map_or(0, |step| step.at_ns);
        println!("packet {number}, {}", time_of_day(packet.at_ms));
        for step in &packet.steps {
            let after_us = step.at_ns.saturating_sub(first) / 1000;
            show_step(&step.step, &format!("{} bytes, {after_us} us on", step.frame_len));
            if let (Some(slice), Some(direction)) = (&step.slice, &step.direction) {
                let in_profile = step.in_profile == Some(true);
                let colour = if in_profile { "within its guarantee" } else { "excess" };
                println!("  {slice} {direction}, {colour}");
            }
            if let Some(tables) = &step.tables_say {
                println!("  its entries say otherwise: {tables}");
            }
        }
    }
    match packets.len() {
        0 => println!("no such packet came"),
        1 => println!("1 packet"),
        n => println!("{n} packets"),
    }
}

fn show_step(step: &TraceStep, about: &str) {
    let about = if about.is_empty() { String::new() } else { format!(", {about}") };
    println!("{} (in by {}{about})", step.node, step.ingress);
    for hit in &step.hits {
        println!("  {:<12} {}: {}", hit.table, hit.key, hit.detail);
    }
    let detail = &step.detail;
    match step.verdict.as_str() {
        "forward" => println!("  out by {detail}"),
        "hook" => println!("  to {detail}"),
        verdict => println!("  {verdict} {detail}"),
    }
}

fn show(trace: &Trace) {
    trace.steps.iter().for_each(|step| show_step(step, ""));
    let detail = &trace.detail;
    match trace.result {
        TraceResult::Delivered => println!("delivered to {detail}"),
        TraceResult::Dropped => println!("dropped: {detail}"),
        TraceResult::Answered => println!("answered by {detail}"),
        TraceResult::Local => println!("kept by {detail}"),
        TraceResult::Lost => println!("lost: {detail}"),
        TraceResult::Endless => println!("endless: {detail}"),
    }
}

/// Of milliseconds since the Unix epoch.
fn time_of_day(at_ms: u64) -> String {
    let (seconds, ms) = (at_ms / 1000 % 86_400, at_ms % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{hour:02}:{minute:02}:{second:02}.{ms:03} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(time_of_day(1_796_020_992_858), "06:43:12.858 UTC");
    }
}
