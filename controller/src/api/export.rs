//! Slices for other systems.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use selvedge_slices::ts28541::{self, Plmn};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Api, Problem};

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ExportQuery {
    /// MCC and MNC of the network, such as 00101: then S-NSSAIs are in `plmnInfoList`.
    plmn: Option<String>,
}

/// Every slice as a NetworkSlice of 3GPP TS 28.541, with its states.
#[utoipa::path(
    get, path = "/v1/export/ts28541", tag = "intent", params(ExportQuery),
    responses(
        (status = 200, description = "Contents of a SubNetwork", body = Object),
        (status = 422, description = "It is not a PLMN", body = super::problem::ProblemDetails)
    )
)]
pub(super) async fn ts28541(
    State(api): State<Api>,
    query: Result<Query<ExportQuery>, QueryRejection>,
) -> Result<Json<serde_json::Value>, Problem> {
    let Query(ExportQuery { plmn }) = query?;
    let plmn = plmn.as_deref().map(str::parse::<Plmn>).transpose();
    let plmn = plmn.map_err(|error| Problem::unprocessable(error.to_string()))?;
    let slices = api.handle.query(selvedge_core::Core::exported).await?;
    Ok(Json(ts28541::export(&slices, plmn.as_ref())))
}
