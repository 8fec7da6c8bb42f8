//! The store as a file.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

use super::problem::{ProblemDetails, chain};
use super::{Api, Problem};
use crate::backup::{Backup, TakeError};

/// Everything that the store holds, of one moment, modules included: what `selvedge restore`
/// takes.
#[utoipa::path(
    get, path = "/v1/backup", tag = "intent",
    responses(
        (status = 200, description = "JSON, an object a line", body = String,
         content_type = "application/x-ndjson"),
        (status = 409, description = "The store holds a part of a backup", body = ProblemDetails),
        (status = 507, description = "The store cannot be read", body = ProblemDetails)
    )
)]
pub(super) async fn backup(State(api): State<Api>) -> Result<impl IntoResponse, Problem> {
    let backup = Backup::take(api.store.as_ref()).await.map_err(|error| match error {
        TakeError::Store(error) => error.into(),
        half @ TakeError::HalfRestored => Problem::new(StatusCode::CONFLICT, chain(&half)),
    })?;
    // Modules can be hundreds of megabytes.
    let file = tokio::task::spawn_blocking(move || backup.encode()).await;
    let failed = |error: tokio::task::JoinError| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    };
    let headers = [
        (header::CONTENT_TYPE, "application/x-ndjson"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"selvedge.backup\""),
    ];
    Ok((headers, file.map_err(failed)?))
}
