//! Feasibility of slices as JSON, in the names of TS 28.541's FeasibilityCheckAndReservationJob.

use std::collections::BTreeMap;

use selvedge_core::Feasibility;
use selvedge_slices::schedule::Timestamp;
use selvedge_slices::{Object, document};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::wire_intent::Documents;

#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FeasibilityJob {
    /// Slices, and the hooks that they need, as YAML.
    pub documents: Documents,
    /// As in a change of intent.
    #[serde(default)]
    pub modules: BTreeMap<String, String>,
    /// Hold the capacity, until `requestedReservationExpiration`.
    #[serde(default)]
    pub resource_reservation: bool,
    /// RFC 3339; at most 30 days ahead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_reservation_expiration: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FeasibilityResult {
    Feasible,
    Infeasible,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ResourceReservationStatus {
    Reserved,
    Unreserved,
}

/// About one slice of a job.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    pub slice: String,
    pub feasibility_result: FeasibilityResult,
    /// The constraint that fails, by how much and where.
    pub in_feasible_reason: Option<String>,
    /// A document that would be accepted in its place, as YAML.
    pub recommended_requirements: Option<String>,
    pub resource_reservation_status: ResourceReservationStatus,
    /// RFC 3339.
    pub reservation_expiration: Option<String>,
    /// Of a check, which holds no capacity: until when its answer is good at the latest, RFC
    /// 3339. Whatever changes intent or network ends it before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feasibility_expiration: Option<String>,
    /// What the check was made on: the intent's revision and a digest of the network. As long
    /// as another check names the same, the answer is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feasibility_state: Option<String>,
}

impl Answer {
    pub(crate) fn reserved(slice: &str, until: Timestamp) -> Self {
        Self {
            slice: slice.to_owned(),
            feasibility_result: FeasibilityResult::Feasible,
            in_feasible_reason: None,
            recommended_requirements: None,
            resource_reservation_status: ResourceReservationStatus::Reserved,
            reservation_expiration: Some(until.to_string()),
            feasibility_expiration: None,
            feasibility_state: None,
        }
    }
}

impl From<&Feasibility> for Answer {
    fn from(from: &Feasibility) -> Self {
        let recommended = from.recommended.clone().map(Object::NetworkSlice);
        Self {
            slice: from.slice.to_string(),
            feasibility_result: match from.refusal {
                None => FeasibilityResult::Feasible,
                Some(_) => FeasibilityResult::Infeasible,
            },
            in_feasible_reason: from.refusal.as_ref().map(ToString::to_string),
            recommended_requirements: recommended.as_ref().map(document::text),
            resource_reservation_status: ResourceReservationStatus::Unreserved,
            reservation_expiration: None,
            feasibility_expiration: Some(Timestamp(from.valid.until_ms).to_string()),
            feasibility_state: Some(from.valid.state.to_string()),
        }
    }
}
