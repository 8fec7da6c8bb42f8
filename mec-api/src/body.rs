//! What requests carry: bodies, and names in paths.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::ProblemDetails;

pub(crate) type RawBody = Result<Json<Value>, JsonRejection>;

/// Names in the path; what is no text there is a [`ProblemDetails`] too.
pub(crate) struct InPath<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for InPath<T> {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ProblemDetails> {
        let Path(names) = Path::<T>::from_request_parts(parts, state).await?;
        Ok(Self(names))
    }
}

/// The body's object, with or without the wrapper `{"<wrapper>": ..}` of the published files.
pub(crate) fn unwrapped(body: RawBody, wrapper: &str) -> Result<Value, ProblemDetails> {
    let Json(value) = body?;
    match value {
        Value::Object(mut fields) if fields.len() == 1 && fields.contains_key(wrapper) => {
            Ok(fields.remove(wrapper).expect("the key is there"))
        }
        Value::Object(fields) => Ok(Value::Object(fields)),
        _ => Err(ProblemDetails::bad_request(format!("the body is not a {wrapper} object"))),
    }
}

/// Reads `value` as a `T`, naming the attribute that does not fit.
pub(crate) fn parse<T: DeserializeOwned>(value: Value, what: &str) -> Result<T, ProblemDetails> {
    serde_json::from_value(value)
        .map_err(|error| ProblemDetails::bad_request(format!("not a {what}: {error}")))
}
