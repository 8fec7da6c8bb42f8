//! What is wanted: plan it, apply it, delete it.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use selvedge_core::{Change, Reply, Request, SliceRequest};
use selvedge_slices::ObjectKind;

use super::caller::Caller;
use super::change::{Checked, check, object_id};
use super::problem::{Body, ProblemDetails};
use super::wire_intent::{self, Applied, ObjectRef, Plan};
use super::{Api, Problem};
use crate::engine::RequestError;

/// What would this change do? Changes nothing. A plan that would be refused says why.
#[utoipa::path(
    post, path = "/v1/plan", tag = "intent", request_body = wire_intent::Change,
    responses(
        (status = 200, body = Plan),
        (status = 422, description = "The documents are wrong: one line for each problem",
         body = ProblemDetails)
    )
)]
pub(super) async fn plan(
    State(api): State<Api>,
    caller: Caller,
    body: Result<Body<wire_intent::Change>, Problem>,
) -> Result<Json<Plan>, Problem> {
    let Checked { change, author, .. } = check(body?.0)?;
    let author = caller.author(author.as_deref()).await;
    match api.handle.request(author, Request::Plan(change)).await? {
        Reply::Plan(plan) => Ok(Json(plan.into())),
        Reply::Applied { .. } | Reply::Feasibility(_) => Err(unexpected()),
    }
}

/// Makes it so: all of it, or nothing and the reason. Answered when it is durable; the
/// switches follow, see `converged` in the status.
#[utoipa::path(
    post, path = "/v1/apply", tag = "intent", request_body = wire_intent::Change,
    responses(
        (status = 200, body = Applied),
        (status = 404, description = "Something to delete is not there", body = ProblemDetails),
        (status = 409, description = "Refused: the detail says what stands against it",
         body = ProblemDetails),
        (status = 412, description = "The plan was made on another state", body = ProblemDetails),
        (status = 422, description = "The documents are wrong: one line for each problem",
         body = ProblemDetails),
        (status = 507, description = "The store cannot be written; the detail names the file",
         body = ProblemDetails)
    )
)]
pub(super) async fn apply(
    State(api): State<Api>,
    caller: Caller,
    body: Result<Body<wire_intent::Change>, Problem>,
) -> Result<Json<Applied>, Problem> {
    let checked = check(body?.0)?;
    change(&api, caller, checked).await
}

async fn change(api: &Api, caller: Caller, checked: Checked) -> Result<Json<Applied>, Problem> {
    let Checked { change, modules, plan, author } = checked;
    let author = caller.author(author.as_deref()).await;
    take(api, author, modules, Request::Apply { change, plan }).await
}

/// Whether it is for the files to say, where files are the intent.
fn changes_objects(request: &Request) -> bool {
    match request {
        Request::Apply { change, .. } => {
            !change.put.is_empty() || !change.delete.is_empty() || change.rollback.is_some()
        }
        Request::Slice(request) => matches!(request, SliceRequest::Reserve { .. }),
        Request::Plan(_) | Request::ReplaceTrafficRule { .. } => false,
    }
}

/// Has the core take a change, with the modules that it needs kept.
pub(super) async fn take(
    api: &Api,
    author: String,
    modules: Vec<(String, Vec<u8>)>,
    request: Request,
) -> Result<Json<Applied>, Problem> {
    if let Some(dir) = &api.intent_dir
        && changes_objects(&request)
    {
        let detail = crate::intent_dir::refusal(dir);
        return Err(Problem::new(axum::http::StatusCode::CONFLICT, detail));
    }
    let api = api.clone();
    // A task of its own: a client that hangs up half-way leaves nothing half done.
    let done = tokio::spawn(async move { api.take(author, request, modules).await });
    match done.await {
        Ok(Ok(Reply::Applied { changed, revision })) => Ok(Json(Applied { changed, revision })),
        Ok(Ok(Reply::Plan(_) | Reply::Feasibility(_))) => Err(unexpected()),
        Ok(Err(error)) => Err(error.into()),
        Err(error) => {
            Err(Problem::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
        }
    }
}

impl Api {
    /// As [`sweep`](Self::sweep), while nobody changes anything.
    pub(crate) async fn sweep_alone(&self) {
        let _one_at_a_time = self.changing.lock().await;
        self.sweep().await;
    }

    /// Makes a change of intent, whose modules (digest and bytes) are kept before it and looked
    /// through after it.
    pub(crate) async fn take(
        &self,
        author: String,
        request: Request,
        modules: Vec<(String, Vec<u8>)>,
    ) -> Result<Reply, RequestError> {
        let _one_at_a_time = self.changing.lock().await;
        self.modules.keep(modules).await.map_err(|error| RequestError::Store(error.into()))?;
        let reply = self.handle.request(author, request).await;
        // A store that has just failed is not asked again before the client has its answer.
        if !matches!(reply, Err(RequestError::Store(_))) {
            self.sweep().await;
        }
        reply
    }

    /// Forgets modules and services that nothing refers to any more. What cannot be forgotten
    /// now is forgotten after the next change that is taken.
    async fn sweep(&self) {
        let used = self.handle.query(|core| core.modules().map(str::to_owned).collect()).await;
        let Ok(used) = used else { return };
        if let Err(error) = self.modules.retain(&used).await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "modules that no hook uses are still kept");
        }
        if let Err(error) = self.platform.retain_services().await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "services of deleted applications are still kept");
        }
    }

    async fn delete(
        &self,
        caller: Caller,
        kind: ObjectKind,
        name: Result<Path<String>, PathRejection>,
    ) -> Result<Json<Applied>, Problem> {
        let Path(name) = name?;
        let id = object_id(&ObjectRef { kind: kind.to_string(), name: name.clone() })
            .map_err(|_| Problem::not_found(kind.as_str(), &name))?;
        let wanted = Change { delete: vec![id], ..Change::default() };
        let (modules, plan, author) = (Vec::new(), None, None);
        change(self, caller, Checked { change: wanted, modules, plan, author }).await
    }
}

/// Deletes a slice.
#[utoipa::path(
    delete, path = "/v1/slices/{name}", tag = "intent",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, body = Applied), (status = 404, body = ProblemDetails))
)]
pub(super) async fn delete_slice(
    State(api): State<Api>,
    caller: Caller,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Applied>, Problem> {
    api.delete(caller, ObjectKind::NetworkSlice, name).await
}

/// Deletes a hook that no slice uses.
#[utoipa::path(
    delete, path = "/v1/hooks/{name}", tag = "intent",
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, body = Applied),
        (status = 404, body = ProblemDetails),
        (status = 409, description = "A slice uses it", body = ProblemDetails)
    )
)]
pub(super) async fn delete_hook(
    State(api): State<Api>,
    caller: Caller,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Applied>, Problem> {
    api.delete(caller, ObjectKind::Hook, name).await
}

/// Deletes an application with its rules and services.
#[utoipa::path(
    delete, path = "/v1/applications/{name}", tag = "intent",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, body = Applied), (status = 404, body = ProblemDetails))
)]
pub(super) async fn delete_application(
    State(api): State<Api>,
    caller: Caller,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Applied>, Problem> {
    api.delete(caller, ObjectKind::Application, name).await
}

pub(super) fn unexpected() -> Problem {
    let detail = "the core gave the answer to another question";
    Problem::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, detail)
}
