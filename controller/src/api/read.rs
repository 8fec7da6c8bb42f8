//! What is: every handler here asks the core for a view, and changes nothing.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::IntoResponse;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::leader::follows;
use super::wire::{
    Application, ClassMap, Endpoint, Hook, Link, LogLine, Node, PduSession, RoleName, Slice, Status,
};
use super::wire_explain::Explanation;
use super::wire_intent::Entry;
use super::wire_placement::ApplicationExplanation;
use super::{Api, MAX_WAIT_S, Problem};

type Found<T> = Result<Json<T>, Problem>;
type Name = Result<Path<String>, PathRejection>;

/// Is everything as it should be?
#[utoipa::path(get, path = "/v1/status", tag = "network", responses((status = 200, body = Status)))]
pub(super) async fn status(State(api): State<Api>) -> Found<Status> {
    let view = api.handle.query(|core| core.status()).await?;
    let mut status = Status::new(view, api.handle.writes());
    status.leader = api.store.leader();
    if api.handle.role().borrow().election_id().is_none() {
        status.role = RoleName::Follower;
        status.converged = false;
        status.waiting_for = vec![follows(status.leader.as_deref())];
    }
    Ok(Json(status))
}

/// The switches of the topology.
#[utoipa::path(get, path = "/v1/nodes", tag = "network", responses((status = 200, body = Vec<Node>)))]
pub(super) async fn nodes(State(api): State<Api>) -> Found<Vec<Node>> {
    let views = api.handle.query(|core| core.nodes()).await?;
    Ok(Json(views.into_iter().map(Node::from).collect()))
}

/// One switch.
#[utoipa::path(
    get, path = "/v1/nodes/{name}", tag = "network",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, body = Node), (status = 404, body = super::problem::ProblemDetails))
)]
pub(super) async fn node(State(api): State<Api>, name: Name) -> Found<Node> {
    let Path(name) = name?;
    let views = api.handle.query(|core| core.nodes()).await?;
    match views.into_iter().find(|view| view.name.as_str() == name) {
        Some(view) => Ok(Json(view.into())),
        None => Err(Problem::not_found("switch", &name)),
    }
}

/// Which entries of a switch.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EntriesQuery {
    /// `observed` (the default): as the switch was last seen to hold them; `desired`: as it
    /// should.
    #[serde(default)]
    #[param(inline)]
    which: Which,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum Which {
    #[default]
    Observed,
    Desired,
}

/// The rows of a switch's tables.
#[utoipa::path(
    get, path = "/v1/nodes/{name}/entries", tag = "network",
    params(("name" = String, Path, description = "The switch"), EntriesQuery),
    responses(
        (status = 200, body = Vec<Entry>), (status = 404, body = super::problem::ProblemDetails)
    )
)]
pub(super) async fn entries(
    State(api): State<Api>,
    name: Name,
    query: Result<Query<EntriesQuery>, QueryRejection>,
) -> Found<Vec<Entry>> {
    let (Path(name), Query(EntriesQuery { which })) = (name?, query?);
    let switch = name.clone();
    let rows: Option<Vec<Entry>> = api
        .handle
        .query(move |core| {
            let rows = match which {
                // A switch that was never read holds nothing that we know of.
                Which::Observed => core.entries_held(&switch).map(|t| t.values().collect()),
                Which::Desired => core.entries_desired(&switch).map(|t| t.values().collect()),
            };
            let known = core.entries_desired(&switch).is_some();
            let rows: Vec<_> = rows.unwrap_or_default();
            known.then(|| rows.into_iter().map(Entry::from).collect())
        })
        .await?;
    rows.map(Json).ok_or_else(|| Problem::not_found("switch", &name))
}

/// The links, and what of them is promised.
#[utoipa::path(get, path = "/v1/links", tag = "network", responses((status = 200, body = Vec<Link>)))]
pub(super) async fn links(State(api): State<Api>) -> Found<Vec<Link>> {
    let views = api.handle.query(|core| core.links()).await?;
    Ok(Json(views.into_iter().map(Link::from).collect()))
}

/// The topology as declared, in YAML.
#[utoipa::path(
    get, path = "/v1/topology", tag = "network",
    responses((status = 200, body = String, content_type = "application/yaml"))
)]
pub(super) async fn topology(State(api): State<Api>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/yaml")], api.topology.to_yaml())
}

/// Hosts: where they are and in which slices.
#[utoipa::path(
    get, path = "/v1/endpoints", tag = "network", responses((status = 200, body = Vec<Endpoint>))
)]
pub(super) async fn endpoints(State(api): State<Api>) -> Found<Vec<Endpoint>> {
    let views = api.handle.query(|core| core.endpoints()).await?;
    Ok(Json(views.into_iter().map(Endpoint::from).collect()))
}

/// One host.
#[utoipa::path(
    get, path = "/v1/endpoints/{name}", tag = "network",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, body = Endpoint), (status = 404, body = super::problem::ProblemDetails))
)]
pub(super) async fn endpoint(State(api): State<Api>, name: Name) -> Found<Endpoint> {
    let Path(name) = name?;
    let views = api.handle.query(|core| core.endpoints()).await?;
    match views.into_iter().find(|view| view.name.as_str() == name) {
        Some(view) => Ok(Json(view.into())),
        None => Err(Problem::not_found("endpoint", &name)),
    }
}

/// The slices.
#[utoipa::path(get, path = "/v1/slices", tag = "intent", responses((status = 200, body = Vec<Slice>)))]
pub(super) async fn slices(State(api): State<Api>) -> Found<Vec<Slice>> {
    let views = api.handle.query(|core| core.slices()).await?;
    Ok(Json(views.into_iter().map(Slice::from).collect()))
}

/// One slice.
#[utoipa::path(
    get, path = "/v1/slices/{name}", tag = "intent",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, body = Slice), (status = 404, body = super::problem::ProblemDetails))
)]
pub(super) async fn slice(State(api): State<Api>, name: Name) -> Found<Slice> {
    let Path(name) = name?;
    let views = api.handle.query(|core| core.slices()).await?;
    match views.into_iter().find(|view| view.name == name) {
        Some(view) => Ok(Json(view.into())),
        None => Err(Problem::not_found("slice", &name)),
    }
}

/// Why a slice goes where it goes: paths, reservations, the delay bound term by term.
#[utoipa::path(
    get, path = "/v1/slices/{name}/explanation", tag = "intent",
    params(("name" = String, Path, description = "The slice")),
    responses(
        (status = 200, body = Explanation), (status = 404, body = super::problem::ProblemDetails)
    )
)]
pub(super) async fn explanation(State(api): State<Api>, name: Name) -> Found<Explanation> {
    let Path(name) = name?;
    let wanted = name.clone();
    match api.handle.query(move |core| core.explain(&wanted)).await? {
        Some(view) => Ok(Json(view.into())),
        None => Err(Problem::not_found("slice", &name)),
    }
}

/// Which classes 5QIs, SSTs and DSCPs stand for: the operator's ClassMap over 3GPP's tables.
#[utoipa::path(
    get, path = "/v1/class-map", tag = "intent", responses((status = 200, body = ClassMap))
)]
pub(super) async fn class_map(State(api): State<Api>) -> Found<ClassMap> {
    Ok(Json(api.handle.query(|core| core.class_map()).await?.into()))
}

/// PDU sessions: UEs behind gNBs.
#[utoipa::path(
    get, path = "/v1/pdu-sessions", tag = "intent",
    responses((status = 200, body = Vec<PduSession>))
)]
pub(super) async fn pdu_sessions(State(api): State<Api>) -> Found<Vec<PduSession>> {
    let views = api.handle.query(|core| core.pdu_sessions()).await?;
    Ok(Json(views.into_iter().map(PduSession::from).collect()))
}

/// The hooks, and how they run.
#[utoipa::path(get, path = "/v1/hooks", tag = "intent", responses((status = 200, body = Vec<Hook>)))]
pub(super) async fn hooks(State(api): State<Api>) -> Found<Vec<Hook>> {
    let views = api.handle.query(|core| core.hooks()).await?;
    Ok(Json(views.into_iter().map(Hook::from).collect()))
}

/// One hook.
#[utoipa::path(
    get, path = "/v1/hooks/{name}", tag = "intent",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, body = Hook), (status = 404, body = super::problem::ProblemDetails))
)]
pub(super) async fn hook(State(api): State<Api>, name: Name) -> Found<Hook> {
    let Path(name) = name?;
    let views = api.handle.query(|core| core.hooks()).await?;
    match views.into_iter().find(|view| view.name == name) {
        Some(view) => Ok(Json(view.into())),
        None => Err(Problem::not_found("hook", &name)),
    }
}

/// The applications and their traffic rules.
#[utoipa::path(
    get, path = "/v1/applications", tag = "intent",
    responses((status = 200, body = Vec<Application>))
)]
pub(super) async fn applications(State(api): State<Api>) -> Found<Vec<Application>> {
    let views = api.handle.query(|core| core.applications()).await?;
    Ok(Json(views.into_iter().map(Application::from).collect()))
}

/// One application.
#[utoipa::path(
    get, path = "/v1/applications/{name}", tag = "intent",
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, body = Application), (status = 404, body = super::problem::ProblemDetails)
    )
)]
pub(super) async fn application(State(api): State<Api>, name: Name) -> Found<Application> {
    let Path(name) = name?;
    let views = api.handle.query(|core| core.applications()).await?;
    match views.into_iter().find(|view| view.name == name) {
        Some(view) => Ok(Json(view.into())),
        None => Err(Problem::not_found("application", &name)),
    }
}

/// Why an application is where it is: what every node would cost, or lacks.
#[utoipa::path(
    get, path = "/v1/applications/{name}/explanation", tag = "intent",
    params(("name" = String, Path, description = "The application")),
    responses(
        (status = 200, body = ApplicationExplanation),
        (status = 404, body = super::problem::ProblemDetails)
    )
)]
pub(super) async fn application_explanation(
    State(api): State<Api>,
    name: Name,
) -> Found<ApplicationExplanation> {
    let Path(name) = name?;
    let wanted = name.clone();
    match api.handle.query(move |core| core.explain_application(&wanted)).await? {
        Some(view) => Ok(Json(view.into())),
        None => Err(Problem::not_found("application", &name)),
    }
}

/// Which events.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsQuery {
    /// Only lines with a greater sequence number.
    #[serde(default)]
    after: u64,
    /// If there is none, wait so many seconds for one, at most 60.
    #[serde(default)]
    wait: u64,
}

/// The event log, oldest first: its last 1,000 lines.
#[utoipa::path(
    get, path = "/v1/events", tag = "network", params(EventsQuery),
    responses((status = 200, body = Vec<LogLine>))
)]
pub(super) async fn events(
    State(api): State<Api>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Found<Vec<LogLine>> {
    let Query(EventsQuery { after, wait }) = query?;
    // Subscribed before the look, so that no line falls between the two.
    let mut logged = api.handle.logged();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(wait.min(MAX_WAIT_S));
    loop {
        logged.borrow_and_update();
        let lines: Vec<LogLine> = api
            .handle
            .query(move |core| {
                let newer = core.events().filter(|entry| entry.sequence > after);
                newer.map(LogLine::from).collect()
            })
            .await?;
        if !lines.is_empty() {
            return Ok(Json(lines));
        }
        match tokio::time::timeout_at(deadline, logged.changed()).await {
            Ok(Ok(())) => {}
            // Nothing came, or the engine is gone and nothing will.
            Ok(Err(_)) | Err(_) => return Ok(Json(Vec::new())),
        }
    }
}
