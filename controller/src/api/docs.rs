//! The API's own description: OpenAPI, and a page that shows it without any other server.

use axum::Json;
use axum::http::header;
use axum::response::{Html, IntoResponse};
use utoipa::OpenApi;

use super::{assure, backup, counters, export, history, intent, lifecycle, metrics, read, trace};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Selvedge operator API",
        description = "Topology, slices, plans, paths and events of a Selvedge network. Errors \
                       are ProblemDetails (RFC 9457). The ETSI MEC APIs stand beside it at their \
                       published base URIs."
    ),
    paths(
        read::status,
        read::nodes,
        read::node,
        read::entries,
        counters::counters,
        read::links,
        read::topology,
        read::endpoints,
        read::endpoint,
        read::events,
        read::slices,
        read::slice,
        read::explanation,
        assure::assurance,
        assure::assurances,
        read::class_map,
        read::pdu_sessions,
        export::ts28541,
        lifecycle::feasibility,
        lifecycle::activate,
        lifecycle::deactivate,
        read::hooks,
        read::hook,
        read::applications,
        read::application,
        read::application_explanation,
        intent::plan,
        intent::apply,
        history::history,
        history::revision,
        intent::delete_slice,
        intent::delete_hook,
        intent::delete_application,
        trace::trace,
        trace::sample,
        trace::samples,
        backup::backup,
        metrics::metrics,
        document,
        reader,
    ),
    tags(
        (name = "network", description = "What is there, and how it does"),
        (name = "intent", description = "What is wanted"),
    )
)]
struct Document;

/// The OpenAPI 3.1 document of every route: `/v1` and the MEC APIs.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Document::openapi().merge_from(selvedge_mec_api::openapi())
}

/// This document.
#[utoipa::path(
    get, path = "/v1/openapi.json", tag = "network",
    responses((status = 200, description = "OpenAPI 3.1", body = Object))
)]
pub(super) async fn document() -> impl IntoResponse {
    Json(openapi())
}

/// This document as a page.
#[utoipa::path(
    get, path = "/docs", tag = "network",
    responses((status = 200, body = String, content_type = "text/html"))
)]
pub(super) async fn reader() -> impl IntoResponse {
    // It loads nothing from elsewhere, and a browser is told to see to that.
    let policy = "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; \
                  script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(include_str!("docs.html")))
}
