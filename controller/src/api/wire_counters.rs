//! What a switch has counted, as JSON. Every count is since the switch's maps were made; they
//! outlive its agent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counters {
    pub node: String,
    /// Packets that ended here, by reason; every reason is there.
    pub drops: BTreeMap<String, u64>,
    /// By port, lowest id first.
    pub ports: Vec<PortCounters>,
    /// For every slice both directions.
    pub slices: Vec<SliceCounters>,
}

/// Bytes with the Ethernet header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortCounters {
    pub port: u16,
    pub name: String,
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    /// Packets that the port's device was given and did not send.
    #[serde(default)]
    pub tx_errors: u64,
    /// In the last second; null: the switch has not told.
    pub rate: Option<PortRate>,
    /// Of its link, as declared.
    pub capacity_bps: Option<u64>,
}

/// A second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortRate {
    pub rx_packets: u64,
    pub rx_bps: u64,
    pub tx_packets: u64,
    pub tx_bps: u64,
}

/// What entered the slice at this switch, in IP bytes, and what of the slice was dropped here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SliceCounters {
    pub slice: String,
    /// `uplink` or `downlink`.
    pub direction: String,
    pub packets: u64,
    pub bytes: u64,
    pub dropped_packets: u64,
    pub dropped_bytes: u64,
}
