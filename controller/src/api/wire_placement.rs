//! Where applications are, and why, as JSON. Costs are milliwatts.

use selvedge_core::view;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where an application is that the controller places.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Placed {
    /// Absent: no node takes it at present.
    pub node: Option<String>,
    /// It was seen there. Else this is a decision, and nothing has started it yet.
    pub seen: bool,
    /// Why it has no node, or why what it needs is not kept there.
    pub reason: Option<String>,
}

impl From<view::PlacementView> for Placed {
    fn from(view: view::PlacementView) -> Self {
        let node = view.node.map(|node| node.to_string());
        Self { node, seen: view.seen, reason: view.reason }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ApplicationExplanation {
    pub application: String,
    pub endpoint: String,
    /// Absent: the controller does not place it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placed>,
    /// Slices that lead to it.
    pub slices: Vec<String>,
    /// Every node with compute.
    pub nodes: Vec<NodeVerdict>,
}

/// What a node would be for the application, its slices tried there.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NodeVerdict {
    pub node: String,
    /// It is there.
    pub chosen: bool,
    /// Absent: it lacks something.
    pub cost: Option<Cost>,
    pub lacks: Vec<String>,
}

/// In milliwatts.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct Cost {
    /// Processors in use.
    pub energy_mw: u64,
    /// Links that its traffic uses.
    pub network_mw: u64,
    /// Not at a preferred site.
    pub away_mw: u64,
    /// Not where it is.
    pub moving_mw: u64,
    pub total_mw: u64,
}

impl From<view::ApplicationExplanation> for ApplicationExplanation {
    fn from(view: view::ApplicationExplanation) -> Self {
        let at = view.placement.as_ref().and_then(|placement| placement.node.clone());
        let verdict = |one: view::NodeVerdict| NodeVerdict {
            chosen: at.as_ref() == Some(&one.node),
            node: one.node.to_string(),
            cost: one.cost.map(|cost| Cost {
                energy_mw: cost.energy_mw,
                network_mw: cost.network_mw,
                away_mw: cost.away_mw,
                moving_mw: cost.moving_mw,
                total_mw: cost.total(),
            }),
            lacks: one.lacks,
        };
        Self {
            nodes: view.nodes.into_iter().map(verdict).collect(),
            application: view.application,
            endpoint: view.endpoint.to_string(),
            placement: view.placement.map(Placed::from),
            slices: view.slices,
        }
    }
}
