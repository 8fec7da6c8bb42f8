//! Errors of the operator API, as ProblemDetails (RFC 9457).

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use selvedge_core::Refusal;
pub use selvedge_mec_api::ProblemDetails;
use serde::de::DeserializeOwned;

use crate::engine::RequestError;
use crate::store::StoreError;

/// An error on its way out.
#[derive(Debug)]
pub struct Problem(pub ProblemDetails);

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self(ProblemDetails::new(status, detail))
    }

    pub(crate) fn not_found(kind: &str, name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is no {kind} {name:?}"))
    }

    /// The body was read and makes no sense.
    pub(crate) fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Refused(refusal) => refusal.into(),
            RequestError::Store(error) => (&*error).into(),
            RequestError::Stopping => Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = match &refusal {
            Refusal::NotFound { .. }
            | Refusal::UnknownNode { .. }
            | Refusal::UnknownLink { .. }
            | Refusal::NoRevision { .. }
            | Refusal::RevisionGone { .. } => StatusCode::NOT_FOUND,
            Refusal::OtherPlan { .. } | Refusal::RuleChanged { .. } => {
                StatusCode::PRECONDITION_FAILED
            }
            _ => StatusCode::CONFLICT,
        };
        Self::new(status, refusal.to_string())
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        (&error).into()
    }
}

impl From<&StoreError> for Problem {
    fn from(error: &StoreError) -> Self {
        let status = match error {
            StoreError::Precondition { .. } => StatusCode::PRECONDITION_FAILED,
            StoreError::Limit { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            StoreError::NotLeader { .. } | StoreError::Unreachable { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => StatusCode::INSUFFICIENT_STORAGE,
        };
        Self::new(status, chain(error))
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        Self(rejection.into())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self(rejection.into())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self(rejection.into())
    }
}

/// A JSON body whose rejections are [`Problem`]s.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let Json(body) = Json::<T>::from_request(request, state).await?;
        Ok(Self(body))
    }
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
