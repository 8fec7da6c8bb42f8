//! Promises beside what is measured: as JSON.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};

use super::problem::ProblemDetails;
use super::wire_assure::SliceAssurance;
use super::{Api, Problem};

/// What is promised to a slice beside what is measured, hop by hop.
#[utoipa::path(
    get, path = "/v1/slices/{name}/assurance", tag = "network",
    params(("name" = String, Path, description = "The slice")),
    responses((status = 200, body = SliceAssurance), (status = 404, body = ProblemDetails))
)]
pub(super) async fn assurance(
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
pub(super) async fn assurances(
    State(api): State<Api>,
) -> Result<Json<Vec<SliceAssurance>>, Problem> {
    let views = api.handle.query(|core| core.assurances()).await?;
    Ok(Json(views.into_iter().map(Into::into).collect()))
}
