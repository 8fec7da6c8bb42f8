//! `bench NAME`: measures, prints a table and writes target/bench/NAME.json (DESIGN §12).
//!
//! Started as root by `cargo xtask bench NAME`. Each figure has its baseline from the same run,
//! because only ratios mean something on another machine.

mod admission;
mod forward;
mod meter;
mod net;
mod paths;
mod placement;
mod protect;
mod queue;
mod report;
mod scale;
mod te;
mod update;

use std::process::ExitCode;

const USAGE: &str = "\
usage: bench admission | forward | meter | paths | placement | protect | queue | scale | te | update

  admission slices admitted a second on a full network, beside an exact integer program
  forward   packets per second of ingress, transit, egress and GTP-U, beside a bare XDP redirect
            and beside the kernel's own SRv6 encapsulation; of 100,000 PDU sessions beside one
  meter     how exactly slices get their rates, from 1 Mbit/s to 100 Gbit/s
  paths     path computation beside igraph, rustworkx, networkx and HiGHS
  placement instances onto nodes together with their paths, beside HiGHS and simple rules
  protect   how long a cut interrupts what a switch forwards, without a controller
  queue     what a guaranteed slice keeps under a flood, and what is made of what it leaves
  te        utilisation of the fullest link on 260 networks, beside shortest paths
  update    table entries that a switch takes in a second, and what packets notice of it
  scale     one controller core with 1,000 switches, 100,000 endpoints and 10,000 slices
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args[..] {
        ["admission"] => admission::run().and_then(|rows| report::write_values("admission", &rows)),
        ["forward"] => forward::run().and_then(|rows| report::write("forward", &rows)),
        ["meter"] => meter::run().and_then(|rows| report::write_values("meter", &rows)),
        ["paths"] => paths::run(),
        ["placement"] => placement::run().and_then(|rows| report::write_values("placement", &rows)),
        ["protect"] => protect::run().and_then(|rows| report::write_values("protect", &rows)),
        ["queue"] => queue::run().and_then(|rows| report::write_values("queue", &rows)),
        ["scale"] => scale::run(),
        ["te"] => te::run().and_then(|rows| report::write_values("te", &rows)),
        ["update"] => update::run().and_then(|rows| report::write_values("update", &rows)),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
