//! What a monitoring system scrapes: the status in figures, in the text format of Prometheus
//! (exposition format 0.0.4).

use std::fmt::Write as _;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use selvedge_core::view::Status;

use super::{Api, Problem};

/// Figures for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "network",
    responses((status = 200, body = String, content_type = "text/plain"))
)]
pub(super) async fn metrics(State(api): State<Api>) -> Result<impl IntoResponse, Problem> {
    let status = api.handle.query(|core| core.status()).await?;
    let text = text(&status, api.handle.writes());
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text))
}

fn text(status: &Status, writes: u64) -> String {
    let mut page = Page(String::new());
    let count = |number: usize| number as u64;
    page.gauge("converged", "1: every switch holds what it should", status.converged.into());
    page.gauge("intent_revision", "Counts up with every change of intent", status.revision);
    page.gauge("switches_declared", "Switches of the topology", count(status.switches_declared));
    page.gauge("switches_joined", "Switches with a session", count(status.switches_joined));
    page.gauge("links_declared", "Links between switches", count(status.links_declared));
    page.gauge("links_usable", "Links that carry packets", count(status.links_usable));
    page.gauge("endpoints_declared", "Hosts of the topology", count(status.endpoints_declared));
    page.gauge("endpoints_attached", "Hosts that are reached", count(status.endpoints_attached));
    page.gauge("slices", "Slices of the intent", count(status.slices));
    page.gauge(
        "slices_degraded",
        "Slices whose promise is not kept",
        count(status.slices_degraded),
    );
    page.gauge("drained", "Nodes and links that are drained", count(status.drained.len()));
    let unwritable = status.store_unwritable.is_some();
    page.gauge("store_unwritable", "1: every change is refused", unwritable.into());
    page.gauge("plan_blocked", "1: the last plan was not written", status.blocked.is_some().into());
    page.counter("table_writes_total", "Table entries sent to switches", writes);
    if let Some(files) = &status.files {
        let refused = files.refused.is_some();
        page.gauge("intent_files_refused", "1: the files are not what runs", refused.into());
        page.counter("intent_files_refusals_total", "States of files refused", files.refusals);
    }
    page.0
}

struct Page(String);

impl Page {
    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.metric("gauge", name, help, value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.metric("counter", name, help, value);
    }

    fn metric(&mut self, kind: &str, name: &str, help: &str, value: u64) {
        let name = format!("selvedge_{name}");
        let written =
            write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
        written.expect("a String takes all");
    }
}
