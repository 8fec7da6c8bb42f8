//! The operator's API (`/v1`), and beside it the MEC APIs.
//!
//! Served on a Unix socket of mode 0600, and on TCP where asked for. It has no users of its
//! own yet: whoever may open the socket may change the network, so TCP belongs on loopback or
//! behind something that checks. Every error is ProblemDetails.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::{Mutex, Semaphore};

use crate::engine::{Handle, Role};
use crate::mec::MecPlatform;
use crate::modules::Modules;
use crate::sampling::Sampling;
use crate::store::Store;
use selvedge_topology::Topology;
use wire_trace::SampledPacket;

mod assure;
mod backup;
mod caller;
mod change;
mod counters;
mod docs;
mod export;
mod history;
mod intent;
mod leader;
mod lifecycle;
mod metrics;
pub mod problem;
mod read;
pub(crate) mod serve;
mod trace;
pub mod wire;
pub mod wire_assure;
pub mod wire_counters;
pub mod wire_explain;
pub mod wire_history;
pub mod wire_intent;
pub mod wire_lifecycle;
pub mod wire_placement;
pub mod wire_trace;

pub(crate) use caller::Caller;
pub(crate) use change::lines;
pub use docs::openapi;
pub use leader::LEADER;
pub use problem::Problem;

/// Largest body of `/v1/plan` and `/v1/apply`: four modules of the largest size, in base64.
pub const MAX_BODY_BYTES: usize = 48 << 20;
/// Requests under way at one time; more are told to come back (503).
pub const MAX_REQUESTS: usize = 64;
/// Longest wait for events, in seconds.
pub const MAX_WAIT_S: u64 = 60;
/// A request that takes longer is given up (504). Waiting for events is not counted.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What the handlers share.
#[derive(Clone)]
pub struct Api {
    pub(crate) handle: Handle,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) modules: Modules,
    pub(crate) topology: Arc<Topology>,
    pub(crate) platform: Arc<MecPlatform>,
    /// One change of intent at a time, from its modules to its reply.
    pub(crate) changing: Arc<Mutex<()>>,
    /// The directory whose files are the whole intent, if one is: objects are changed there.
    pub(crate) intent_dir: Option<Arc<Path>>,
    pub(crate) sampling: Arc<Sampling>,
    /// What was told of the last packets asked for.
    pub(crate) sampled: Arc<std::sync::Mutex<Vec<SampledPacket>>>,
}

impl Api {
    pub fn new(handle: Handle, store: Arc<dyn Store>, topology: Arc<Topology>) -> Self {
        let platform = Arc::new(MecPlatform::new(handle.clone(), Arc::clone(&store)));
        let modules = Modules::new(Arc::clone(&store));
        Self {
            handle,
            store,
            modules,
            topology,
            platform,
            changing: Arc::default(),
            intent_dir: None,
            sampling: Arc::default(),
            sampled: Arc::default(),
        }
    }

    pub(crate) fn role(&self) -> tokio::sync::watch::Receiver<Role> {
        self.handle.role()
    }
}

/// Everything the controller serves over HTTP.
pub fn router(api: Api) -> Router {
    let mec = selvedge_mec_api::router(Arc::clone(&api.platform));
    let events = Router::new().route("/v1/events", get(read::events)).with_state(api.clone());
    let timed = Router::new()
        .route("/v1/status", get(read::status))
        .route("/v1/nodes", get(read::nodes))
        .route("/v1/nodes/{name}", get(read::node))
        .route("/v1/nodes/{name}/entries", get(read::entries))
        .route("/v1/nodes/{name}/counters", get(counters::counters))
        .route("/v1/links", get(read::links))
        .route("/v1/topology", get(read::topology))
        .route("/v1/endpoints", get(read::endpoints))
        .route("/v1/endpoints/{name}", get(read::endpoint))
        .route("/v1/slices", get(read::slices))
        .route("/v1/slices/{name}", get(read::slice).delete(intent::delete_slice))
        .route("/v1/slices/{name}/explanation", get(read::explanation))
        .route("/v1/slices/{name}/assurance", get(assure::assurance))
        .route("/v1/assurance", get(assure::assurances))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/slices/{name}/activate", post(lifecycle::activate))
        .route("/v1/slices/{name}/deactivate", post(lifecycle::deactivate))
        .route("/v1/feasibility", post(lifecycle::feasibility))
        .route("/v1/export/ts28541", get(export::ts28541))
        .route("/v1/class-map", get(read::class_map))
        .route("/v1/pdu-sessions", get(read::pdu_sessions))
        .route("/v1/hooks", get(read::hooks))
        .route("/v1/hooks/{name}", get(read::hook).delete(intent::delete_hook))
        .route("/v1/applications", get(read::applications))
        .route("/v1/applications/{name}/explanation", get(read::application_explanation))
        .route("/v1/applications/{name}", get(read::application).delete(intent::delete_application))
        .route("/v1/history", get(history::history))
        .route("/v1/history/{revision}", get(history::revision))
        .route("/v1/plan", post(intent::plan))
        .route("/v1/apply", post(intent::apply))
        .route("/v1/trace", post(trace::trace))
        .route("/v1/samples", get(trace::samples).post(trace::sample))
        .route("/v1/backup", get(backup::backup))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(api.clone())
        .merge(mec)
        .layer(middleware::from_fn_with_state(api, leader::leader_only))
        .layer(middleware::from_fn(time_limit));
    let slots = Arc::new(Semaphore::new(MAX_REQUESTS));
    Router::new()
        .route("/v1/openapi.json", get(docs::document))
        .route("/docs", get(docs::reader))
        .merge(events)
        .merge(timed)
        .fallback(unknown_route)
        .method_not_allowed_fallback(unknown_method)
        .layer(middleware::from_fn_with_state(slots, concurrency_limit))
}

async fn unknown_route(request: Request) -> Problem {
    let path = request.uri().path();
    Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {path:?}; see /docs"))
}

async fn unknown_method(request: Request) -> Problem {
    let (method, path) = (request.method(), request.uri().path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{path} does not know {method}"))
}

async fn concurrency_limit(
    State(slots): State<Arc<Semaphore>>,
    request: Request,
    next: Next,
) -> Response {
    match slots.try_acquire() {
        Ok(_slot) => next.run(request).await,
        Err(_) => {
            let detail = format!("{MAX_REQUESTS} requests are under way; come back");
            let mut response =
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response();
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            response
        }
    }
}

async fn time_limit(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let seconds = REQUEST_TIMEOUT.as_secs();
            let detail = format!("not answered within {seconds} s; it may yet be carried out");
            Problem::new(StatusCode::GATEWAY_TIMEOUT, detail).into_response()
        }
    }
}

#[cfg(test)]
mod tests;
