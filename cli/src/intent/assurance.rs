//! Promised beside measured, as tables for people.

use comfy_table::Table;
use selvedge_controller::api::wire::LinkDelay;
use selvedge_controller::api::wire_assure::{DirectionAssurance, SliceAssurance, Window};

use super::table::new;

/// Columns of [`add`].
pub(crate) fn table() -> Table {
    new(["slice", "direction", "Mbit/s", "loss", "delay", "available", "breach"])
}

/// A figure, two decimals at most.
fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    text.to_owned()
}

fn mbps(bps: Option<u64>) -> String {
    bps.map_or_else(|| "-".to_owned(), |bps| format!("{:.1}", bps as f64 / 1e6))
}

fn ms(us: Option<f64>) -> String {
    us.map_or_else(|| "-".to_owned(), |us| short(us / 1e3))
}

/// `median / 99 % / largest`.
pub(crate) fn delays(of: Option<LinkDelay>) -> String {
    let text = |us: f64| match us < 1000.0 {
        true => format!("{} us", short(us.round())),
        false => format!("{} ms", short(us / 1e3)),
    };
    of.map_or_else(
        || "-".to_owned(),
        |of| [of.median_us, of.p99_us, of.max_us].map(text).join(" / "),
    )
}

/// Percent with all that a promise like 99.999 has.
fn percent(value: Option<f64>) -> String {
    match value {
        Some(value) => {
            let text = format!("{value:.4}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        None => "-".to_owned(),
    }
}

fn loss(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{} %", short(100.0 * share)))
}

/// Where there is a figure.
fn with_unit(figure: String, unit: &str) -> String {
    if figure == "-" { figure } else { format!("{figure} {unit}") }
}

/// `measured of promised unit`.
fn beside(measured: String, promised: Option<String>, unit: &str) -> String {
    let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
    match promised {
        Some(promised) => format!("{measured} of {promised}{unit}"),
        None => format!("{measured}{unit}"),
    }
}

/// One direction of a slice over one window.
pub(crate) fn add(
    table: &mut Table,
    slice: &str,
    availability_percent: Option<f64>,
    direction: &DirectionAssurance,
    window: &Window,
) {
    let breaches = direction.breaches.iter().map(|breach| {
        let hop = breach.hop.as_ref().map(|hop| format!(": {hop}")).unwrap_or_default();
        format!("{}{hop}", breach.kind.to_uppercase())
    });
    let promised_rate = direction.guaranteed_bps.map(|bps| mbps(Some(bps)));
    let promised_delay = direction.latency_us.map(|us| ms(Some(us as f64)));
    table.add_row([
        slice.to_owned(),
        direction.direction.clone(),
        beside(mbps(window.delivered_bps), promised_rate, ""),
        loss(window.loss),
        beside(ms(window.delay_us), promised_delay, "ms"),
        beside(
            percent(window.availability_percent),
            availability_percent.map(|share| percent(Some(share))),
            "%",
        ),
        breaches.collect::<Vec<_>>().join("; "),
    ]);
}

/// What a slice is promised, what its windows measured, and how its paths do hop by hop.
pub(super) fn show(assurance: &SliceAssurance) {
    let columns = ["", "over", "Mbit/s in", "Mbit/s out", "loss", "delay", "largest", "available"];
    let mut windows = new(columns);
    for direction in &assurance.directions {
        let promised_us = direction.latency_us.map(|us| us as f64);
        windows.add_row([
            direction.direction.clone(),
            "promised".to_owned(),
            mbps(direction.guaranteed_bps),
            mbps(direction.guaranteed_bps),
            loss(direction.guaranteed_bps.map(|_| 0.0)),
            with_unit(ms(promised_us), "ms"),
            with_unit(ms(promised_us), "ms"),
            with_unit(percent(assurance.availability_percent), "%"),
        ]);
        for window in &direction.windows {
            windows.add_row([
                String::new(),
                format!("{} s", window.seconds),
                mbps(window.offered_bps),
                mbps(window.delivered_bps),
                loss(window.loss),
                with_unit(ms(window.delay_us), "ms"),
                with_unit(ms(window.delay_max_us), "ms"),
                with_unit(percent(window.availability_percent), "%"),
            ]);
        }
    }
    println!("\n{}", windows.trim_fmt());
    let columns = [
        "",
        "hop",
        "delay",
        "half / 99 % / all below",
        "its part of the bound",
        "loss",
        "test packets answered",
    ];
    let mut hops = new(columns);
    for direction in &assurance.directions {
        for (number, hop) in direction.hops.iter().enumerate() {
            let heading = if number == 0 { direction.direction.as_str() } else { "" };
            hops.add_row([
                heading.to_owned(),
                hop.link.clone(),
                with_unit(ms(hop.delay_us), "ms"),
                delays(hop.delays),
                with_unit(ms(hop.bound_us), "ms"),
                loss(hop.loss),
                format!("{} of {}", hop.probes_answered, hop.probes),
            ]);
        }
    }
    if !hops.is_empty() {
        println!("\n{}", hops.trim_fmt());
    }
    for direction in &assurance.directions {
        for breach in &direction.breaches {
            let hop = breach.hop.as_ref().map(|hop| format!("; {hop}")).unwrap_or_default();
            let (side, kind) = (&direction.direction, &breach.kind);
            println!("\nNOT KEPT: {side} {kind}: {}{hop}", breach.text);
        }
    }
}
