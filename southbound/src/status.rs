//! How a `Write` fails: one `p4.v1.Error` for each update, packed into the details of the
//! gRPC status (P4Runtime §10.4). Built by the switch, taken apart by the client.

use std::fmt;

use prost::Message;
use selvedge_pipeline::Code;

use crate::{convert::ConvertError, google::rpc, p4};

/// Longest message of one update's error, bytes; what is longer is cut. All errors of a batch
/// travel in one HTTP/2 header.
pub const MAX_MESSAGE_BYTES: usize = 200;

/// `space` of our errors: whose `code` it is.
const SPACE: &str = "selvedge";
const ERROR_TYPE: &str = "type.googleapis.com/p4.v1.Error";

/// Why one update was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateError {
    pub code: Code,
    pub message: String,
}

impl UpdateError {
    pub fn new(code: Code, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }
}

impl fmt::Display for UpdateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.message, self.code)
    }
}

impl std::error::Error for UpdateError {}

impl From<ConvertError> for UpdateError {
    fn from(error: ConvertError) -> Self {
        Self::new(error.code(), error)
    }
}

/// The answer to a write whose updates ended so, in the request's order.
///
/// # Errors
/// If any of them failed: UNKNOWN, as P4Runtime has it, with one `p4.v1.Error` an update.
pub fn write_status(results: &[Result<(), UpdateError>]) -> Result<(), Box<tonic::Status>> {
    let failed = results.iter().filter(|result| result.is_err()).count();
    if failed == 0 {
        return Ok(());
    }
    let errors = results.iter().map(|result| match result {
        Ok(()) => p4::v1::Error::default(),
        Err(error) => p4::v1::Error {
            canonical_code: error.code as i32,
            message: cut(&error.message).to_owned(),
            space: SPACE.to_owned(),
            code: 0,
            details: None,
        },
    });
    let message = format!("{failed} of {} updates failed", results.len());
    let status = rpc::Status {
        code: Code::Unknown as i32,
        message: message.clone(),
        details: errors
            .map(|error| prost_types::Any {
                type_url: ERROR_TYPE.to_owned(),
                value: error.encode_to_vec(),
            })
            .collect(),
    };
    Err(Box::new(tonic::Status::with_details(
        tonic::Code::Unknown,
        message,
        status.encode_to_vec().into(),
    )))
}

/// The updates' results within a failed write's status. `None`: the status is about the whole
/// request, no update was tried.
pub fn update_results(status: &tonic::Status) -> Option<Vec<Result<(), UpdateError>>> {
    if status.code() != tonic::Code::Unknown || status.details().is_empty() {
        return None;
    }
    let details = rpc::Status::decode(status.details()).ok()?.details;
    details
        .into_iter()
        .map(|any| {
            let error = p4::v1::Error::decode(&*any.value).ok()?;
            Some(match Code::from_i32(error.canonical_code) {
                Code::Ok => Ok(()),
                code => Err(UpdateError { code, message: error.message }),
            })
        })
        .collect()
}

fn cut(message: &str) -> &str {
    &message[..message.floor_char_boundary(MAX_MESSAGE_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_update_has_its_error() {
        let long = "ä".repeat(300);
        let results = [
            Ok(()),
            Err(UpdateError::new(Code::NotFound, "no such entry")),
            Ok(()),
            Err(UpdateError::new(Code::OutOfRange, &long)),
        ];
        let status = write_status(&results).unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unknown);
        assert_eq!(status.message(), "2 of 4 updates failed");
        let back = update_results(&status).unwrap();
        assert_eq!(back[..3], results[..3]);
        assert_eq!(back[3].as_ref().unwrap_err().message, "ä".repeat(100));
        assert_eq!(write_status(&results[..1]).map_err(|_| ()), Ok(()));
    }

    #[test]
    fn a_status_about_the_request_has_no_updates() {
        assert_eq!(update_results(&tonic::Status::permission_denied("not primary")), None);
        assert_eq!(update_results(&tonic::Status::unknown("no details")), None);
        let garbage = tonic::Status::with_details(
            tonic::Code::Unknown,
            "",
            bytes::Bytes::from_static(&[0xff, 0xff]),
        );
        assert_eq!(update_results(&garbage), None);
    }
}
