//! What was changed when, by whom and why.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};

use super::problem::ProblemDetails;
use super::wire_history::{Documents, Revision, RevisionDetails};
use super::{Api, Problem};

/// Changes of intent that were taken, oldest first: the last 1,000, and less where they are
/// large.
#[utoipa::path(
    get, path = "/v1/history", tag = "intent", responses((status = 200, body = Vec<Revision>))
)]
pub(super) async fn history(State(api): State<Api>) -> Result<Json<Vec<Revision>>, Problem> {
    let views: Vec<_> = api.handle.query(|core| core.history().collect()).await?;
    Ok(Json(views.into_iter().map(Revision::from).collect()))
}

/// One change, with its objects before and after.
#[utoipa::path(
    get, path = "/v1/history/{revision}", tag = "intent",
    params(("revision" = u64, Path, description = "Its number")),
    responses(
        (status = 200, body = RevisionDetails),
        (status = 404, description = "There is none, or not any more", body = ProblemDetails)
    )
)]
pub(super) async fn revision(
    State(api): State<Api>,
    revision: Result<Path<u64>, PathRejection>,
) -> Result<Json<RevisionDetails>, Problem> {
    let Path(number) = revision?;
    let found = api.handle.query(move |core| {
        let revision = core.history().rev().find(|view| view.revision == number)?;
        Some((revision, core.changes_of(number)?))
    });
    match found.await? {
        Some((view, changes)) => Ok(Json(RevisionDetails {
            revision: view.into(),
            documents: changes.iter().map(Documents::from).collect(),
        })),
        None => Err(Problem::not_found("revision", &number.to_string())),
    }
}
