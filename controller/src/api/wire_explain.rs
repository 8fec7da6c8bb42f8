//! Why a slice goes where it goes, as JSON. Rates are bits per second of frames, but for those
//! of meters, which count the user's IP bytes.

use selvedge_core::view;
use selvedge_slices::admission::HopDelay;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::wire::SliceState;

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    pub slice: String,
    /// Its number in the data plane.
    pub id: u16,
    pub state: SliceState,
    /// `designed`, `reserved`, `active` or `deactivated`.
    pub lifecycle: String,
    /// Why degraded.
    pub reasons: Vec<String>,
    /// Absent: there is no place for it in the network as it is.
    pub placement: Option<Placement>,
    pub meters: Vec<Meter>,
    /// What is drained, so that its paths avoid it.
    pub avoided: Vec<String>,
    /// What happens to it when a link fails.
    pub protection: String,
    /// What came from its template, who is attached where it has a maximum, and what of it is
    /// not enforced.
    #[serde(default)]
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Placement {
    pub class: String,
    pub class_reason: String,
    /// Rates and bursts of each direction.
    pub promises: Vec<String>,
    /// Why the promises are not kept at present.
    pub waived: Option<String>,
    pub paths: Vec<PathExplanation>,
    /// What is taken for granted.
    pub assumed: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PathExplanation {
    /// `uplink` or `downlink`.
    pub direction: String,
    /// Switches in travelling order.
    pub nodes: Vec<String>,
    /// The ids that packets carry, in words.
    pub segments: Vec<String>,
    pub links: Vec<LinkUse>,
    /// Absent: the bursts of the slices that meet have no bound.
    pub delay: Option<DelayBound>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LinkUse {
    pub link: String,
    pub cost: u32,
    pub capacity_bps: Option<u64>,
    /// By this slice.
    pub reserved_bps: u64,
    /// By all slices.
    pub reserved_in_all_bps: u64,
    /// What can still be promised; absent: not limited.
    pub left_bps: Option<u64>,
}

/// The sum of its hops.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DelayBound {
    pub total_us: u64,
    pub hops: Vec<HopTerm>,
    /// What the total does not count.
    pub unknown: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct HopTerm {
    pub link: String,
    pub propagation_us: Option<u64>,
    /// Absent: the port's capacity is not stated.
    pub queue: Option<QueueTerm>,
    /// All of it in words.
    pub text: String,
}

/// What can stand before a packet at a port, and how long it takes to drain.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct QueueTerm {
    pub bursts_bytes: u64,
    pub threshold_bytes: u64,
    pub frame_bytes: u64,
    pub rate_bps: u64,
    pub delay_ns: u64,
}

/// A share of the slice's total, where its traffic enters, or an endpoint's own rates there.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Meter {
    pub switch: String,
    pub direction: String,
    /// Whose own rates these are; absent: the slice's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Of the slice.
    pub class: String,
    pub guaranteed_bps: u64,
    /// `0`: none.
    pub maximum_bps: u64,
}

impl From<view::Explanation> for Explanation {
    fn from(view: view::Explanation) -> Self {
        Self {
            slice: view.slice,
            id: view.id,
            state: view.state.into(),
            lifecycle: view.phase.as_str().to_owned(),
            reasons: view.reasons,
            placement: view.placement.map(Placement::from),
            meters: view.meters.into_iter().map(Meter::from).collect(),
            avoided: view.avoided,
            protection: view.protection,
            notes: view.notes,
        }
    }
}

impl From<view::MeterView> for Meter {
    fn from(view: view::MeterView) -> Self {
        Self {
            switch: view.switch.to_string(),
            direction: view.direction.to_owned(),
            endpoint: view.endpoint,
            class: view.class.to_owned(),
            guaranteed_bps: view.guaranteed_bps,
            maximum_bps: view.maximum_bps,
        }
    }
}

impl From<selvedge_slices::Explanation> for Placement {
    fn from(from: selvedge_slices::Explanation) -> Self {
        Self {
            class: from.class,
            class_reason: from.class_reason,
            promises: from.promises,
            waived: from.waived,
            paths: from.paths.into_iter().map(PathExplanation::from).collect(),
            assumed: from.assumed,
        }
    }
}

impl From<selvedge_slices::admission::PathExplanation> for PathExplanation {
    fn from(from: selvedge_slices::admission::PathExplanation) -> Self {
        let link = |link: selvedge_slices::admission::LinkUse| LinkUse {
            link: link.link,
            cost: link.cost,
            capacity_bps: link.capacity.map(|rate| rate.bps()),
            reserved_bps: link.reserved.bps(),
            reserved_in_all_bps: link.reserved_in_all.bps(),
            left_bps: link.left.map(|rate| rate.bps()),
        };
        let delay = |bound: selvedge_slices::admission::DelayBound| DelayBound {
            total_us: bound.total.us(),
            hops: bound.hops.iter().map(HopTerm::from).collect(),
            unknown: bound.unknown,
        };
        Self {
            direction: from.direction.to_string(),
            nodes: from.nodes,
            segments: from.segments,
            links: from.links.into_iter().map(link).collect(),
            delay: from.delay.map(delay),
        }
    }
}

impl From<&HopDelay> for HopTerm {
    fn from(hop: &HopDelay) -> Self {
        Self {
            link: hop.link.clone(),
            propagation_us: hop.propagation.map(|delay| delay.us()),
            queue: hop.queue.map(|queue| QueueTerm {
                bursts_bytes: queue.bursts.0,
                threshold_bytes: queue.threshold.0,
                frame_bytes: queue.frame.0,
                rate_bps: queue.rate.bps(),
                delay_ns: queue.nanoseconds,
            }),
            text: hop.to_string(),
        }
    }
}
