//! Promised beside measured, as JSON. Rates are bits per second of the user's IP packets, delays
//! are one way in microseconds; what is absent is not promised, or was not measured.

use selvedge_core::assure;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::wire::LinkDelay;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SliceAssurance {
    pub slice: String,
    /// The last second that was judged, since the Unix epoch; absent: none was.
    pub second: Option<u64>,
    /// Promised share of time, in percent.
    pub availability_percent: Option<f64>,
    /// Downlink, uplink.
    pub directions: Vec<DirectionAssurance>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DirectionAssurance {
    /// `downlink` or `uplink`.
    pub direction: String,
    /// Promised.
    pub guaranteed_bps: Option<u64>,
    pub maximum_bps: Option<u64>,
    pub latency_us: Option<u64>,
    /// Over the last 5 s, minute and 15 minutes.
    pub windows: Vec<Window>,
    /// The links of its paths, over the last seconds; empty in lists of slices.
    pub hops: Vec<Hop>,
    /// Promises that are not kept now.
    pub breaches: Vec<Breach>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Window {
    pub seconds: u64,
    /// Of it.
    pub measured_seconds: u32,
    pub offered_bps: Option<u64>,
    pub delivered_bps: Option<u64>,
    /// Share of the packets within the guarantee that were lost, 0 to 1; absent: none entered.
    pub loss: Option<f64>,
    /// Of the worst path: the mean, and the sum of the largest on each link.
    pub delay_us: Option<f64>,
    pub delay_max_us: Option<f64>,
    /// Share of the seconds watched in which the slice worked, in percent.
    pub availability_percent: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Hop {
    /// `near:port -> far:port`.
    pub link: String,
    pub delay_us: Option<f64>,
    /// Of all test packets, not only of their means.
    pub delays: Option<LinkDelay>,
    /// Its part of the bound by which the slice was admitted.
    pub bound_us: Option<f64>,
    /// Share of the packets of all slices that were lost on it, 0 to 1.
    pub loss: Option<f64>,
    /// Test packets, both ends together.
    pub probes: u32,
    pub probes_answered: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Breach {
    /// `rate`, `delay` or `availability`.
    pub kind: String,
    /// Milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// The link, switch or hook to blame, if that can be told.
    pub hop: Option<String>,
    /// Measured and promised, when it began.
    pub text: String,
}

/// Of millionths.
fn share(ppm: u64) -> f64 {
    ppm as f64 / 1e6
}

fn percent(ppm: u64) -> f64 {
    ppm as f64 / 1e4
}

fn us(ns: u64) -> f64 {
    ns as f64 / 1e3
}

impl From<assure::SliceAssurance> for SliceAssurance {
    fn from(view: assure::SliceAssurance) -> Self {
        Self {
            slice: view.slice,
            second: view.second,
            availability_percent: view.availability_ppm.map(|ppm| percent(ppm.into())),
            directions: view.directions.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<assure::DirectionView> for DirectionAssurance {
    fn from(view: assure::DirectionView) -> Self {
        Self {
            direction: view.direction.to_owned(),
            guaranteed_bps: view.guaranteed_bps,
            maximum_bps: view.maximum_bps,
            latency_us: view.latency_us,
            windows: view.windows.into_iter().map(Into::into).collect(),
            hops: view.hops.into_iter().map(Into::into).collect(),
            breaches: view.breaches.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<assure::WindowView> for Window {
    fn from(view: assure::WindowView) -> Self {
        Self {
            seconds: view.seconds,
            measured_seconds: view.measured_seconds,
            offered_bps: view.offered_bps,
            delivered_bps: view.delivered_bps,
            loss: view.loss_ppm.map(share),
            delay_us: view.delay_ns.map(us),
            delay_max_us: view.delay_max_ns.map(us),
            availability_percent: view.availability_ppm.map(percent),
        }
    }
}

impl From<assure::HopView> for Hop {
    fn from(view: assure::HopView) -> Self {
        Self {
            link: view.link,
            delay_us: view.delay_ns.map(us),
            delays: view.delays.map(Into::into),
            bound_us: view.bound_ns.map(us),
            loss: view.loss_ppm.map(share),
            probes: view.probes,
            probes_answered: view.probes_answered,
        }
    }
}

impl From<assure::BreachView> for Breach {
    fn from(view: assure::BreachView) -> Self {
        let assure::Breach { since_ms, hop, text } = view.breach;
        Self { kind: view.kind.as_str().to_owned(), since_ms, hop, text }
    }
}
