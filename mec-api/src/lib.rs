//! The ETSI MEC REST APIs, as a router over a trait.
//!
//! Offered: GS MEC 011 V3.1.1, service management (`/mec_service_mgmt/v1`) and, of
//! application support (`/mec_app_support/v1`), the traffic rules. What an API needs from the
//! platform is the trait [`Platform`], which the controller implements; so the API can be
//! read and tested with no network behind it. Only this crate knows the wire's JSON: its
//! structs convert to and from the domain types of `selvedge-slices`.
//!
//! Bodies are accepted with and without the `{"ServiceInfo": ..}`, `{"TrafficRule": ..}`
//! wrapper that the published OpenAPI files have, and answered without. Unknown attributes
//! are ignored (GS MEC 009 §5.2.4). An application instance's id is the name of its
//! `kind: Application`.
//!
//! Limits: a body has at most [`MAX_BODY_BYTES`], an application at most
//! [`MAX_SERVICES_PER_APPLICATION`] services.

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use selvedge_slices::TrafficRule;
use utoipa::OpenApi;

mod body;
mod problem;
pub mod services;
pub mod traffic_rules;

pub use problem::ProblemDetails;
pub use services::ServiceInfo;

pub const MAX_BODY_BYTES: usize = 64 * 1024;
pub const MAX_SERVICES_PER_APPLICATION: usize = 100;

/// What the MEC APIs need from the platform they are offered by.
///
/// A change is durable before its future is ready.
pub trait Platform: Send + Sync + 'static {
    /// The names of every application instance.
    fn applications(&self) -> impl Future<Output = Result<Vec<String>, PlatformError>> + Send;

    /// Every registered service, with the application instance that offers it, in a stable
    /// order.
    fn services(
        &self,
    ) -> impl Future<Output = Result<Vec<(String, ServiceInfo)>, PlatformError>> + Send;

    /// Adds a service, or replaces the one with its `ser_instance_id`.
    fn put_service(
        &self,
        application: &str,
        service: ServiceInfo,
    ) -> impl Future<Output = Result<(), PlatformError>> + Send;

    fn delete_service(
        &self,
        application: &str,
        ser_instance_id: &str,
    ) -> impl Future<Output = Result<(), PlatformError>> + Send;

    /// The rules of one application instance, in the order of its descriptor.
    fn traffic_rules(
        &self,
        application: &str,
    ) -> impl Future<Output = Result<Vec<TrafficRule>, PlatformError>> + Send;

    /// Replaces the rule `old`, as it was read, by `new`; their ids are equal. Ready when the
    /// change is durable and handed to the switches.
    ///
    /// # Errors
    /// [`PlatformError::Changed`] if the rule is no longer `old`.
    fn replace_traffic_rule(
        &self,
        application: &str,
        old: TrafficRule,
        new: TrafficRule,
    ) -> impl Future<Output = Result<(), PlatformError>> + Send;
}

#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    #[error("there is no {kind} {name:?}")]
    NotFound { kind: &'static str, name: String },
    #[error("it was changed by somebody else meanwhile")]
    Changed,
    /// The platform understood and will not do it; the text names what stands against it.
    #[error("{0}")]
    Refused(String),
    /// The platform cannot do it at present: its store is full, it is shutting down.
    #[error("{0}")]
    Unavailable(String),
}

impl From<PlatformError> for ProblemDetails {
    fn from(error: PlatformError) -> Self {
        let status = match &error {
            PlatformError::NotFound { .. } => StatusCode::NOT_FOUND,
            PlatformError::Changed => StatusCode::PRECONDITION_FAILED,
            PlatformError::Refused(_) => StatusCode::CONFLICT,
            PlatformError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

/// Every route of the APIs, at their published base URIs.
pub fn router<P: Platform>(platform: Arc<P>) -> Router {
    Router::new()
        .nest("/mec_service_mgmt/v1", services::router())
        .nest("/mec_app_support/v1", traffic_rules::router())
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(platform)
}

/// The description of every route of [`router`], with the published operation names.
#[derive(OpenApi)]
#[openapi(
    paths(
        services::list_all,
        services::read_any,
        services::list,
        services::register,
        services::read,
        services::update,
        services::remove,
        traffic_rules::list,
        traffic_rules::read,
        traffic_rules::update,
    ),
    tags((name = "mec", description = "ETSI GS MEC 011: service management, traffic rules"))
)]
struct Document;

/// The OpenAPI 3.1 document of the routes, at their published base URIs.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// Fails with 404 unless the application instance exists.
async fn known_application<P: Platform>(platform: &P, name: &str) -> Result<(), ProblemDetails> {
    if platform.applications().await?.iter().any(|known| known == name) {
        return Ok(());
    }
    Err(PlatformError::NotFound { kind: "application instance", name: name.to_owned() }.into())
}
