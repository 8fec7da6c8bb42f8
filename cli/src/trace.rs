//! `selvedge trace`: the path a packet takes, with every table it hits.

use std::process::ExitCode;

use selvedge_controller::api::wire_trace::{Trace, TraceRequest, TraceResult};

use crate::Output;
use crate::client::{Client, ControllerArg};
use crate::intent::print_json;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The endpoint that sends.
    #[arg(required_unless_present = "node", requires = "to")]
    from: Option<String>,
    /// The endpoint that receives, or an address.
    to: Option<String>,
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

fn show(trace: &Trace) {
    for step in &trace.steps {
        println!("{} (in by {})", step.node, step.ingress);
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
