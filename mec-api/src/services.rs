//! Service management (GS MEC 011 §8): an application registers the services it offers, and
//! others find them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::body::{InPath, RawBody, parse, unwrapped};
use crate::{
    MAX_SERVICES_PER_APPLICATION, Platform, PlatformError, ProblemDetails, known_application,
};

/// A service of a MEC application (GS MEC 011 §8.1.2.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceInfo {
    /// Given by the platform: absent in a registration, present in every answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ser_instance_id: Option<String>,
    /// The name of the service, as its consumers look for it.
    pub ser_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ser_category: Option<CategoryRef>,
    /// The service's version.
    pub version: String,
    pub state: ServiceState,
    /// How to reach it. One of `transportInfo` and `transportId` is required by the
    /// standard; this platform provides no transports of its own, so it is this one.
    pub transport_info: TransportInfo,
    pub serializer: Serializer,
    #[serde(default = "mec_host")]
    pub scope_of_locality: Locality,
    #[serde(default = "yes")]
    pub consumed_local_only: bool,
    #[serde(default = "yes")]
    pub is_local: bool,
    /// Seconds between heartbeats. Kept and returned; this platform does not ask for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness_interval: Option<u32>,
}

/// GS MEC 011 §8.1.5.2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CategoryRef {
    pub href: String,
    pub id: String,
    pub name: String,
    pub version: String,
}

/// GS MEC 011 §8.1.6.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServiceState {
    Active,
    Inactive,
    Suspended,
}

/// GS MEC 011 §8.1.6.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Serializer {
    Json,
    Xml,
    Protobuf3,
}

/// GS MEC 011 §8.1.6.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Locality {
    MecSystem,
    MecHost,
    NfviPop,
    Zone,
    ZoneGroup,
    NfviNode,
}

fn mec_host() -> Locality {
    Locality::MecHost
}

fn yes() -> bool {
    true
}

/// GS MEC 011 §8.1.2.3. `endpoint`, `security` and `implSpecificInfo` are the application's:
/// kept and returned as they came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransportInfo {
    pub id: String,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(rename = "type")]
    pub kind: TransportType,
    pub protocol: String,
    pub version: String,
    #[schema(value_type = Object)]
    pub endpoint: Value,
    #[schema(value_type = Object)]
    pub security: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub impl_specific_info: Option<Value>,
}

/// GS MEC 011 §8.1.6.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TransportType {
    RestHttp,
    MbTopicBased,
    MbRouting,
    MbPubsub,
    Rpc,
    RpcStreaming,
    Websocket,
}

impl ServiceInfo {
    /// Reads a body, and checks what the types do not: GS MEC 011 §8.1.2.2 note 2, §8.1.5.3.
    fn from_body(body: RawBody) -> Result<Self, ProblemDetails> {
        let value = unwrapped(body, "ServiceInfo")?;
        match (value.get("transportId"), value.get("transportInfo")) {
            (Some(_), Some(_)) => {
                return Err(bad("transportId and transportInfo are both present; give one"));
            }
            (Some(id), None) => {
                return Err(bad(format!(
                    "transportId {id}: this platform provides no transports; give transportInfo"
                )));
            }
            _ => {}
        }
        let service: Self = parse(value, "ServiceInfo")?;
        if service.ser_name.is_empty() {
            return Err(bad("serName is empty"));
        }
        let forms = ["uris", "fqdn", "addresses", "alternative"];
        let endpoint = &service.transport_info.endpoint;
        if forms.iter().filter(|form| endpoint.get(form).is_some()).count() != 1 {
            return Err(bad(format!(
                "transportInfo.endpoint: exactly one of {} is needed",
                forms.join(", ")
            )));
        }
        Ok(service)
    }
}

fn bad(detail: impl Into<String>) -> ProblemDetails {
    ProblemDetails::bad_request(detail)
}

pub(crate) fn router<P: Platform>() -> Router<Arc<P>> {
    Router::new()
        .route("/services", get(list_all::<P>))
        .route("/services/{service_id}", get(read_any::<P>))
        .route("/applications/{app_instance_id}/services", get(list::<P>).post(register::<P>))
        .route(
            "/applications/{app_instance_id}/services/{service_id}",
            get(read::<P>).put(update::<P>).delete(remove::<P>),
        )
}

/// What a list may be narrowed by (GS MEC 011 §8.2.3.3.1). Lists are comma-separated; at most
/// one of the first three may be given.
#[derive(Default)]
struct Filter {
    ser_instance_id: Option<Vec<String>>,
    ser_name: Option<Vec<String>>,
    ser_category_id: Option<String>,
    scope_of_locality: Option<Locality>,
    consumed_local_only: Option<bool>,
    is_local: Option<bool>,
}

/// [`Filter`] as the API's description has it.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the names and types are what is read of it")]
struct FilterParams {
    /// Comma-separated. At most one of this, `ser_name` and `ser_category_id` may be given.
    ser_instance_id: Option<String>,
    /// Comma-separated.
    ser_name: Option<String>,
    ser_category_id: Option<String>,
    #[param(inline)]
    scope_of_locality: Option<Locality>,
    consumed_local_only: Option<bool>,
    is_local: Option<bool>,
}

type RawQuery = Result<Query<Vec<(String, String)>>, QueryRejection>;

impl Filter {
    fn from_query(query: RawQuery) -> Result<Self, ProblemDetails> {
        let Query(pairs) = query?;
        let mut merged: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in pairs {
            merged
                .entry(name)
                .and_modify(|list| {
                    list.push(',');
                    list.push_str(&value);
                })
                .or_insert(value);
        }
        let mut filter = Self::default();
        for (name, value) in merged {
            let list = || value.split(',').map(str::to_owned).collect();
            let boolean = || {
                value.parse().map_err(|_| bad(format!("{name}={value}: neither true nor false")))
            };
            match name.as_str() {
                "ser_instance_id" => filter.ser_instance_id = Some(list()),
                "ser_name" => filter.ser_name = Some(list()),
                "ser_category_id" => filter.ser_category_id = Some(value),
                "scope_of_locality" => {
                    let locality = Value::String(value.clone());
                    let locality = serde_json::from_value(locality)
                        .map_err(|error| bad(format!("{name}={value}: {error}")))?;
                    filter.scope_of_locality = Some(locality);
                }
                "consumed_local_only" => filter.consumed_local_only = Some(boolean()?),
                "is_local" => filter.is_local = Some(boolean()?),
                _ => return Err(bad(format!("{name}: no such query parameter"))),
            }
        }
        let exclusive = [
            filter.ser_instance_id.is_some(),
            filter.ser_name.is_some(),
            filter.ser_category_id.is_some(),
        ];
        if exclusive.iter().filter(|given| **given).count() > 1 {
            return Err(bad("give at most one of ser_instance_id, ser_name, ser_category_id"));
        }
        Ok(filter)
    }

    fn admits(&self, service: &ServiceInfo) -> bool {
        let id = service.ser_instance_id.as_deref();
        self.ser_instance_id
            .as_ref()
            .is_none_or(|ids| ids.iter().any(|wanted| Some(wanted.as_str()) == id))
            && self.ser_name.as_ref().is_none_or(|names| names.contains(&service.ser_name))
            && self.ser_category_id.as_ref().is_none_or(|wanted| {
                service.ser_category.as_ref().is_some_and(|category| category.id == *wanted)
            })
            && self.scope_of_locality.is_none_or(|wanted| wanted == service.scope_of_locality)
            && self.consumed_local_only.is_none_or(|wanted| wanted == service.consumed_local_only)
            && self.is_local.is_none_or(|wanted| wanted == service.is_local)
    }
}

/// Every service, of every application instance (GS MEC 011 §8.2.3.3.1).
#[utoipa::path(
    get, path = "/mec_service_mgmt/v1/services", tag = "mec", operation_id = "ServicesGET",
    params(
        FilterParams,
    ),
    responses(
        (status = 200, description = "The services", body = Vec<ServiceInfo>),
        (status = 400, description = "The request is wrong: the detail names the attribute or parameter", body = ProblemDetails),
        (status = 503, description = "The platform cannot answer at present; the detail says why", body = ProblemDetails),
        (status = 504, description = "Not answered in time", body = ProblemDetails),
    )
)]
pub(crate) async fn list_all<P: Platform>(
    State(platform): State<Arc<P>>,
    query: RawQuery,
) -> Result<Json<Vec<ServiceInfo>>, ProblemDetails> {
    let filter = Filter::from_query(query)?;
    let services = platform.services().await?.into_iter().map(|(_, service)| service);
    Ok(Json(services.filter(|service| filter.admits(service)).collect()))
}

/// One service, whoever offers it (GS MEC 011 §8.2.4.3.1).
#[utoipa::path(
    get, path = "/mec_service_mgmt/v1/services/{service_id}", tag = "mec", operation_id = "ServicesServiceIdGET",
    params(
        ("service_id" = String, Path, description = "`serInstanceId`"),
    ),
    responses(
        (status = 200, description = "The service", body = ServiceInfo),
        (status = 404, description = "There is no such service", body = ProblemDetails),
        (status = 503, description = "The platform cannot answer at present; the detail says why", body = ProblemDetails),
        (status = 504, description = "Not answered in time", body = ProblemDetails),
    )
)]
pub(crate) async fn read_any<P: Platform>(
    State(platform): State<Arc<P>>,
    InPath(service_id): InPath<String>,
) -> Result<Json<ServiceInfo>, ProblemDetails> {
    let (_, service) = find(&*platform, None, &service_id).await?;
    Ok(Json(service))
}

/// The services of one application instance (GS MEC 011 §8.2.6.3.1).
#[utoipa::path(
    get, path = "/mec_service_mgmt/v1/applications/{app_instance_id}/services", tag = "mec", operation_id = "AppServicesGET",
    params(
        ("app_instance_id" = String, Path, description = "Name of the `kind: Application`"),
        FilterParams,
    ),
    responses(
        (status = 200, description = "The services", body = Vec<ServiceInfo>),
        (status = 400, description = "The request is wrong: the detail names the attribute or parameter", body = ProblemDetails),
        (status = 404, description = "There is no such application instance", body = ProblemDetails),
        (status = 503, description = "The platform cannot answer at present; the detail says why", body = ProblemDetails),
        (status = 504, description = "Not answered in time", body = ProblemDetails),
    )
)]
pub(crate) async fn list<P: Platform>(
    State(platform): State<Arc<P>>,
    InPath(application): InPath<String>,
    query: RawQuery,
) -> Result<Json<Vec<ServiceInfo>>, ProblemDetails> {
    let filter = Filter::from_query(query)?;
    known_application(&*platform, &application).await?;
    let services = platform.services().await?.into_iter();
    let own = services.filter(|(owner, service)| *owner == application && filter.admits(service));
    Ok(Json(own.map(|(_, service)| service).collect()))
}

/// Registers a service (GS MEC 011 §8.2.6.3.4). The body may be wrapped in `ServiceInfo`.
#[utoipa::path(
    post, path = "/mec_service_mgmt/v1/applications/{app_instance_id}/services", tag = "mec", operation_id = "AppServicesPOST",
    params(
        ("app_instance_id" = String, Path, description = "Name of the `kind: Application`"),
    ),
    request_body = ServiceInfo,
    responses(
        (
            status = 201, description = "Registered", body = ServiceInfo,
            headers(("Location" = String, description = "The new service's path"))
        ),
        (status = 400, description = "The request is wrong: the detail names the attribute or parameter", body = ProblemDetails),
        (status = 403, description = "The application instance may have no more services", body = ProblemDetails),
        (status = 404, description = "There is no such application instance", body = ProblemDetails),
        (status = 413, description = "The body is larger than 64 KiB", body = ProblemDetails),
        (status = 415, description = "The body is not JSON", body = ProblemDetails),
        (status = 503, description = "The platform cannot take it: its store is full or read-only", body = ProblemDetails),
        (status = 504, description = "Not answered in time; it may yet be carried out", body = ProblemDetails),
    )
)]
pub(crate) async fn register<P: Platform>(
    State(platform): State<Arc<P>>,
    InPath(application): InPath<String>,
    body: RawBody,
) -> Result<Response, ProblemDetails> {
    let mut service = ServiceInfo::from_body(body)?;
    known_application(&*platform, &application).await?;
    if service.ser_instance_id.is_some() {
        return Err(bad("serInstanceId is given by the platform; leave it out"));
    }
    let services = platform.services().await?;
    let held = services.iter().filter(|(owner, _)| *owner == application).count();
    if held >= MAX_SERVICES_PER_APPLICATION {
        return Err(ProblemDetails::new(
            StatusCode::FORBIDDEN,
            format!("{application:?} has {held} services already, and may have no more"),
        ));
    }
    let id = Uuid::new_v4().to_string();
    service.ser_instance_id = Some(id.clone());
    platform.put_service(&application, service.clone()).await?;
    let location = format!("/mec_service_mgmt/v1/applications/{application}/services/{id}");
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(service)).into_response())
}

/// One service of an application instance (GS MEC 011 §8.2.7.3.1).
#[utoipa::path(
    get, path = "/mec_service_mgmt/v1/applications/{app_instance_id}/services/{service_id}", tag = "mec", operation_id = "AppServicesServiceIdGET",
    params(
        ("app_instance_id" = String, Path, description = "Name of the `kind: Application`"),
        ("service_id" = String, Path, description = "`serInstanceId`"),
    ),
    responses(
        (status = 200, description = "The service", body = ServiceInfo),
        (status = 404, description = "There is no such application instance or service", body = ProblemDetails),
        (status = 503, description = "The platform cannot answer at present; the detail says why", body = ProblemDetails),
        (status = 504, description = "Not answered in time", body = ProblemDetails),
    )
)]
pub(crate) async fn read<P: Platform>(
    State(platform): State<Arc<P>>,
    InPath((application, service_id)): InPath<(String, String)>,
) -> Result<Json<ServiceInfo>, ProblemDetails> {
    let (_, service) = find(&*platform, Some(&application), &service_id).await?;
    Ok(Json(service))
}

/// Replaces a service (GS MEC 011 §8.2.7.3.2). The body may be wrapped in `ServiceInfo`.
#[utoipa::path(
    put, path = "/mec_service_mgmt/v1/applications/{app_instance_id}/services/{service_id}", tag = "mec", operation_id = "AppServicesServiceIdPUT",
    params(
        ("app_instance_id" = String, Path, description = "Name of the `kind: Application`"),
        ("service_id" = String, Path, description = "`serInstanceId`"),
    ),
    request_body = ServiceInfo,
    responses(
        (status = 200, description = "The service as it is now", body = ServiceInfo),
        (status = 400, description = "The request is wrong: the detail names the attribute or parameter", body = ProblemDetails),
        (status = 404, description = "There is no such application instance or service", body = ProblemDetails),
        (status = 412, description = "It was changed by somebody else meanwhile", body = ProblemDetails),
        (status = 413, description = "The body is larger than 64 KiB", body = ProblemDetails),
        (status = 415, description = "The body is not JSON", body = ProblemDetails),
        (status = 503, description = "The platform cannot take it: its store is full or read-only", body = ProblemDetails),
        (status = 504, description = "Not answered in time; it may yet be carried out", body = ProblemDetails),
    )
)]
pub(crate) async fn update<P: Platform>(
    State(platform): State<Arc<P>>,
    InPath((application, service_id)): InPath<(String, String)>,
    body: RawBody,
) -> Result<Json<ServiceInfo>, ProblemDetails> {
    let mut service = ServiceInfo::from_body(body)?;
    find(&*platform, Some(&application), &service_id).await?;
    if service.ser_instance_id.as_ref().is_some_and(|id| *id != service_id) {
        return Err(bad(format!(
            "serInstanceId in the body is not {service_id:?}, as in the path"
        )));
    }
    service.ser_instance_id = Some(service_id);
    platform.put_service(&application, service.clone()).await?;
    Ok(Json(service))
}

/// Deregisters a service (GS MEC 011 §8.2.7.3.5).
#[utoipa::path(
    delete, path = "/mec_service_mgmt/v1/applications/{app_instance_id}/services/{service_id}", tag = "mec", operation_id = "AppServicesServiceIdDELETE",
    params(
        ("app_instance_id" = String, Path, description = "Name of the `kind: Application`"),
        ("service_id" = String, Path, description = "`serInstanceId`"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "There is no such application instance or service", body = ProblemDetails),
        (status = 412, description = "It was changed by somebody else meanwhile", body = ProblemDetails),
        (status = 503, description = "The platform cannot take it: its store is full or read-only", body = ProblemDetails),
        (status = 504, description = "Not answered in time; it may yet be carried out", body = ProblemDetails),
    )
)]
pub(crate) async fn remove<P: Platform>(
    State(platform): State<Arc<P>>,
    InPath((application, service_id)): InPath<(String, String)>,
) -> Result<StatusCode, ProblemDetails> {
    find(&*platform, Some(&application), &service_id).await?;
    platform.delete_service(&application, &service_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn find<P: Platform>(
    platform: &P,
    application: Option<&str>,
    id: &str,
) -> Result<(String, ServiceInfo), ProblemDetails> {
    if let Some(application) = application {
        known_application(platform, application).await?;
    }
    let wanted = |(owner, service): &(String, ServiceInfo)| {
        application.is_none_or(|application| application == owner)
            && service.ser_instance_id.as_deref() == Some(id)
    };
    let found = platform.services().await?.into_iter().find(wanted);
    found.ok_or_else(|| PlatformError::NotFound { kind: "service", name: id.to_owned() }.into())
}
