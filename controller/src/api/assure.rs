//! Promises beside what is measured: as JSON, and as Prometheus metrics.

use std::fmt::Write as _;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::IntoResponse;
use selvedge_core::assure::{self, Kind};
use selvedge_core::view::Status;

use super::problem::ProblemDetails;
use super::wire_assure::SliceAssurance;
use super::{Api, Problem};

/// What is promised to a slice beside what is measured, hop by hop.
#[utoipa::path(
    get, path = "/v1/slices/{name}/assurance", tag = "network",
    params(("name" = String, Path, description = "The slice")),
    responses((status = 200, body = SliceAssurance), (status = 404, body = ProblemDetails))
)]
pub(super) async fn slice(
    State(api): State<Api>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<SliceAssurance>, Problem> {
    let Path(name) = name?;
    let wanted = name.clone();
    match api.handle.query(move |core| core.assurance(&wanted)).await? {
        Some(view) => Ok(Json(view.into())),
        None => Err(Problem::not_found("slice", &name)),
    }
}

/// The same of every slice, without hops.
#[utoipa::path(
    get, path = "/v1/assurance", tag = "network",
    responses((status = 200, body = Vec<SliceAssurance>))
)]
pub(super) async fn slices(State(api): State<Api>) -> Result<Json<Vec<SliceAssurance>>, Problem> {
    let views = api.handle.query(|core| core.assurances()).await?;
    Ok(Json(views.into_iter().map(Into::into).collect()))
}

/// For Prometheus (text exposition format 0.0.4).
#[utoipa::path(
    get, path = "/metrics", tag = "network",
    responses((status = 200, body = String, content_type = "text/plain"))
)]
pub(super) async fn metrics(State(api): State<Api>) -> Result<impl IntoResponse, Problem> {
    let (status, slices) = api.handle.query(|core| (core.status(), core.assurances())).await?;
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], exposition(&status, &slices)))
}

/// A metric: its name, what it says, and the value for one direction of one slice.
type Metric = (
    &'static str,
    &'static str,
    fn(&assure::SliceAssurance, &assure::DirectionView) -> Option<f64>,
);

const METRICS: [Metric; 10] = [
    (
        "selvedge_slice_promised_bits_per_second",
        "Guaranteed rate of IP packets.",
        |_, direction| Some(direction.guaranteed_bps? as f64),
    ),
    (
        "selvedge_slice_offered_bits_per_second",
        "IP bits that entered, last 5 s.",
        |_, direction| Some(direction.windows.first()?.offered_bps? as f64),
    ),
    ("selvedge_slice_delivered_bits_per_second", "IP bits delivered, last 5 s.", |_, direction| {
        Some(direction.windows.first()?.delivered_bps? as f64)
    }),
    (
        "selvedge_slice_loss_ratio",
        "Share of the packets within the guarantee that were lost, last 5 s.",
        |_, direction| Some(direction.windows.first()?.loss_ppm? as f64 / 1e6),
    ),
    ("selvedge_slice_promised_delay_seconds", "Latency, one way.", |_, direction| {
        Some(direction.latency_us? as f64 / 1e6)
    }),
    (
        "selvedge_slice_delay_seconds",
        "Mean delay of the worst path, one way, last 5 s.",
        |_, direction| Some(direction.windows.first()?.delay_ns? as f64 / 1e9),
    ),
    (
        "selvedge_slice_delay_max_seconds",
        "Sum of the largest delay on each link of the worst path, one way, last 5 s.",
        |_, direction| Some(direction.windows.first()?.delay_max_ns? as f64 / 1e9),
    ),
    ("selvedge_slice_promised_availability_ratio", "Share of time.", |slice, _| {
        Some(f64::from(slice.availability_ppm?) / 1e6)
    }),
    (
        "selvedge_slice_availability_ratio",
        "Share of the seconds watched in which the slice worked, last 15 min.",
        |_, direction| Some(direction.windows.last()?.availability_ppm? as f64 / 1e6),
    ),
    (
        "selvedge_slice_measured_ratio",
        "Share of the last 5 s that was measured.",
        |_, direction| {
            let window = direction.windows.first()?;
            Some(f64::from(window.measured_seconds) / window.seconds as f64)
        },
    ),
];

fn exposition(status: &Status, slices: &[assure::SliceAssurance]) -> String {
    let mut text = String::new();
    let flag = |value: bool| usize::from(value);
    for (name, help, value) in [
        ("selvedge_converged", "All is as it should be.", flag(status.converged)),
        ("selvedge_switches_declared", "Switches of the topology.", status.switches_declared),
        ("selvedge_switches_joined", "Switches with a session.", status.switches_joined),
        ("selvedge_slices", "Slices.", status.slices),
        ("selvedge_slices_degraded", "Slices without their place.", status.slices_degraded),
        (
            "selvedge_store_unwritable",
            "The store takes no writes, and changes are refused.",
            flag(status.store_unwritable.is_some()),
        ),
    ] {
        head(&mut text, name, help);
        // Writing to a string does not fail, here and below.
        let _ = writeln!(text, "{name} {value}");
    }
    for (name, help, value) in METRICS {
        head(&mut text, name, help);
        for slice in slices {
            for direction in &slice.directions {
                let Some(value) = value(slice, direction) else { continue };
                let labels = labels(&slice.slice, direction.direction);
                let _ = writeln!(text, "{name}{{{labels}}} {value}");
            }
        }
    }
    let name = "selvedge_slice_breach";
    head(&mut text, name, "1: the promise of that kind is not kept now.");
    for slice in slices {
        for direction in &slice.directions {
            for kind in Kind::ALL {
                let broken = direction.breaches.iter().any(|breach| breach.kind == kind);
                let labels = labels(&slice.slice, direction.direction);
                let (kind, broken) = (kind.as_str(), flag(broken));
                let _ = writeln!(text, "{name}{{{labels},kind=\"{kind}\"}} {broken}");
            }
        }
    }
    text
}

fn head(text: &mut String, name: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
}

fn labels(slice: &str, direction: &str) -> String {
    // A slice's name has nothing that would have to be escaped (RFC 1123 labels).
    format!("slice=\"{slice}\",direction=\"{direction}\"")
}
