//! Request bodies.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::ProblemDetails;

pub(crate) type RawBody = Result<Json<Value>, JsonRejection>;

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
