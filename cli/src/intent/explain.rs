//! `selvedge explain slice`: why a slice goes where it goes, and what its delay is made of.

use std::process::ExitCode;

use selvedge_controller::api::wire::SliceState;
use selvedge_controller::api::wire_explain::{Explanation, PathExplanation, Placement};

use super::table::{delay, new, optional_rate};
use super::{print_json, rate};
use crate::Output;
use crate::client::{Client, ControllerArg};

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Kind {
    Slice,
    #[value(alias = "app")]
    Application,
}

pub(super) fn slice(
    name: &str,
    controller: &ControllerArg,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let path = format!("/v1/slices/{}/explanation", super::table::segment(name));
    let answer = Client::find(controller)?.get::<Explanation>(&path)?;
    match output {
        Output::Json => print_json(&answer)?,
        Output::Text => show(&answer.value),
    }
    Ok(ExitCode::SUCCESS)
}

fn show(explanation: &Explanation) {
    let Explanation { slice, id, state, lifecycle, reasons, placement, .. } = explanation;
    let Explanation { meters, avoided, protection, notes, .. } = explanation;
    let state = match (state, lifecycle.as_str()) {
        (SliceState::Degraded, "active") => "DEGRADED",
        (SliceState::Kept, "active") => "its promise is kept",
        (SliceState::Degraded, _) => "not active, and DEGRADED",
        (SliceState::Kept, "designed") => "designed, nothing is held for it",
        (SliceState::Kept, _) => "not active, its capacity is held",
    };
    println!("slice {slice} (number {id}): {state}");
    for reason in reasons {
        println!("  {reason}");
    }
    match placement {
        Some(placement) => show_placement(placement),
        None => println!("there is no place for it in the network as it is"),
    }
    for avoided in avoided {
        println!("avoided, for it is drained: {avoided}");
    }
    println!("protection: {protection}");
    for note in notes {
        println!("note: {note}");
    }
    if !meters.is_empty() {
        println!("\nmetered, by the user's IP bytes, at");
        let mut table = new(["switch", "direction", "endpoint", "class", "guaranteed", "maximum"]);
        for meter in meters {
            let maximum = (meter.maximum_bps > 0).then_some(meter.maximum_bps);
            let guaranteed = match (&meter.endpoint, meter.guaranteed_bps) {
                (Some(_), 0) => "the slice's".to_owned(),
                (_, bps) => rate(bps),
            };
            table.add_row([
                meter.switch.clone(),
                meter.direction.clone(),
                meter.endpoint.clone().unwrap_or_else(|| "all".to_owned()),
                meter.class.clone(),
                guaranteed,
                optional_rate(maximum),
            ]);
        }
        println!("{}", table.trim_fmt());
    }
}

fn show_placement(placement: &Placement) {
    let Placement { class, class_reason, promises, waived, paths, assumed } = placement;
    println!("class {class}: {class_reason}");
    for promise in promises {
        println!("  {promise}");
    }
    if let Some(waived) = waived {
        println!("  NOT KEPT at present: {waived}");
    }
    for path in paths {
        println!();
        show_path(path);
    }
    println!();
    for assumed in assumed {
        println!("assumed: {assumed}");
    }
}

fn show_path(path: &PathExplanation) {
    println!("{}: {}", path.direction, path.nodes.join(" > "));
    println!("  segments: {}", path.segments.join(", "));
    let mut table = new(["  link", "cost", "capacity", "promised to it", "in all", "left"]);
    for link in &path.links {
        table.add_row([
            format!("  {}", link.link),
            link.cost.to_string(),
            optional_rate(link.capacity_bps),
            rate(link.reserved_bps),
            rate(link.reserved_in_all_bps),
            optional_rate(link.left_bps),
        ]);
    }
    if !path.links.is_empty() {
        println!("{}", table.trim_fmt());
    }
    match &path.delay {
        Some(bound) => {
            println!("  delay at most {}:", delay(bound.total_us));
            for hop in &bound.hops {
                println!("    {}", hop.text);
            }
            for unknown in &bound.unknown {
                println!("    without {unknown}");
            }
        }
        None => println!("  no bound on its delay: the bursts that meet do not settle"),
    }
}
