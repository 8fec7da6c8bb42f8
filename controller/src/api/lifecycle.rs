//! The life of slices: whether they would fit, reservations, activation (TS 28.531 §5.1).

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use selvedge_core::{Reply, Request, SliceRequest};
use selvedge_slices::schedule::Timestamp;
use selvedge_slices::{Object, ObjectName};

use super::caller::Caller;
use super::change::{Checked, check};
use super::problem::{Body, ProblemDetails};
use super::wire_intent::{Applied, Change};
use super::wire_lifecycle::{Answer, FeasibilityJob};
use super::{Api, Problem};

/// Would these slices fit, one after the other? With `resourceReservation` they are taken, all
/// or none, and hold their capacity until `requestedReservationExpiration`; switches have
/// nothing of them until they are activated.
#[utoipa::path(
    post, path = "/v1/feasibility", tag = "intent", request_body = FeasibilityJob,
    responses(
        (status = 200, description = "For each slice of the documents", body = Vec<Answer>),
        (status = 409, description = "Not reserved: the detail says what stands against it",
         body = ProblemDetails),
        (status = 422, description = "The documents are wrong: one line for each problem",
         body = ProblemDetails)
    )
)]
pub(super) async fn feasibility(
    State(api): State<Api>,
    caller: Caller,
    body: Result<Body<FeasibilityJob>, Problem>,
) -> Result<Json<Vec<Answer>>, Problem> {
    let FeasibilityJob {
        documents,
        modules,
        resource_reservation,
        requested_reservation_expiration,
    } = body?.0;
    let until = requested_reservation_expiration.as_deref().map(str::parse::<Timestamp>);
    let until = until.transpose().map_err(|error| {
        Problem::unprocessable(format!("requestedReservationExpiration: {error}"))
    })?;
    let until = match (resource_reservation, until) {
        (true, None) => {
            let detail = "a reservation has an end: state requestedReservationExpiration";
            return Err(Problem::unprocessable(detail));
        }
        (true, until) => until,
        (false, _) => None,
    };
    let Checked { change, modules, .. } =
        check(Change { documents, modules, ..Change::default() })?;
    let Some(until) = until else {
        let request = Request::Slice(SliceRequest::Check(change));
        return match api.handle.request(caller.author(None).await, request).await? {
            Reply::Feasibility(answers) => Ok(Json(answers.iter().map(Answer::from).collect())),
            _ => Err(super::intent::unexpected()),
        };
    };
    let slices = change.put.iter().filter_map(|object| match object {
        Object::NetworkSlice(slice) => Some(Answer::reserved(slice.name.as_str(), until)),
        _ => None,
    });
    let answers = slices.collect();
    let request = SliceRequest::Reserve { change, until_ms: until.0 };
    let author = caller.author(None).await;
    let Json(_) = super::intent::take(&api, author, modules, Request::Slice(request)).await?;
    Ok(Json(answers))
}

/// Puts a slice that is reserved, designed or deactivated into service.
#[utoipa::path(
    post, path = "/v1/slices/{name}/activate", tag = "intent",
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, body = Applied),
        (status = 404, body = ProblemDetails),
        (status = 409, description = "It does not fit, or its schedule says otherwise",
         body = ProblemDetails)
    )
)]
pub(super) async fn activate(
    State(api): State<Api>,
    caller: Caller,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Applied>, Problem> {
    of_slice(&api, caller, name, SliceRequest::Activate).await
}

/// Takes an active slice out of service. It keeps its capacity; deleting gives it back.
#[utoipa::path(
    post, path = "/v1/slices/{name}/deactivate", tag = "intent",
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, body = Applied),
        (status = 404, body = ProblemDetails),
        (status = 409, description = "It is not active", body = ProblemDetails)
    )
)]
pub(super) async fn deactivate(
    State(api): State<Api>,
    caller: Caller,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Applied>, Problem> {
    of_slice(&api, caller, name, SliceRequest::Deactivate).await
}

async fn of_slice(
    api: &Api,
    caller: Caller,
    name: Result<Path<String>, PathRejection>,
    request: fn(ObjectName) -> SliceRequest,
) -> Result<Json<Applied>, Problem> {
    let Path(name) = name?;
    let known = name.parse().map_err(|_| Problem::not_found("NetworkSlice", &name))?;
    super::intent::take(api, caller.author(None).await, Vec::new(), Request::Slice(request(known)))
        .await
}
