//! `selvedge explain application`: why it is where it is, and what the other nodes lack or cost.

use std::process::ExitCode;

use selvedge_controller::api::wire_placement::{ApplicationExplanation, Cost, NodeVerdict};

use super::print_json;
use super::table::{new, segment};
use crate::Output;
use crate::client::{Client, ControllerArg};

pub(super) fn run(
    name: &str,
    controller: &ControllerArg,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let path = format!("/v1/applications/{}/explanation", segment(name));
    let answer = Client::find(controller)?.get::<ApplicationExplanation>(&path)?;
    match output {
        Output::Json => print_json(&answer)?,
        Output::Text => show(&answer.value),
    }
    Ok(ExitCode::SUCCESS)
}

fn show(explanation: &ApplicationExplanation) {
    let ApplicationExplanation { application, endpoint, placement, slices, nodes } = explanation;
    let Some(placement) = placement else {
        println!(
            "application {application}: not placed by the controller (no computeDescriptor); it \
             is where its endpoint {endpoint} is"
        );
        return;
    };
    match (&placement.node, placement.seen) {
        (Some(node), true) => {
            println!(
                "application {application}: on {node}, where its endpoint {endpoint} was seen"
            );
        }
        (Some(node), false) => {
            println!("application {application}: on {node}");
            println!(
                "  decided and reserved; start its instance there, with the address of host {endpoint}"
            );
        }
        (None, _) => println!("application {application}: NO NODE"),
    }
    if let Some(reason) = &placement.reason {
        println!("  {reason}");
    }
    match slices.as_slice() {
        [] => println!(
            "no slice leads to it: its users are unknown, and nothing is reserved for them"
        ),
        slices => println!("reserved together with slice {}", slices.join(", ")),
    }
    if nodes.is_empty() {
        return;
    }
    println!();
    let mut table = new(["node", "cost", "energy", "traffic", "away", "moving", "lacks"]);
    for NodeVerdict { node, chosen, cost, lacks } in nodes {
        let node = if *chosen { format!("{node} *") } else { node.clone() };
        let watts = |of: fn(&Cost) -> u64| match cost {
            Some(cost) => format!("{}.{:02} W", of(cost) / 1000, of(cost) % 1000 / 10),
            None => "-".to_owned(),
        };
        table.add_row([
            node,
            watts(|cost| cost.total_mw),
            watts(|cost| cost.energy_mw),
            watts(|cost| cost.network_mw),
            watts(|cost| cost.away_mw),
            watts(|cost| cost.moving_mw),
            lacks.join("; "),
        ]);
    }
    println!("{}", table.trim_fmt());
}
