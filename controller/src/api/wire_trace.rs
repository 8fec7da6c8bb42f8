//! What `/v1/trace` is asked and answers, as JSON. Frames are in hex.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A frame at a port (`node`, `port`, `frame`), or a packet from one endpoint to another
/// (`from`, `to` and what follows).
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TraceRequest {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Name of the port that the frame comes in by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// The whole Ethernet frame without its check sequence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame: Option<String>,
    /// The sender, an endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The receiver: an endpoint or an address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// `udp` (if absent), `tcp` or `icmp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<u16>,
    /// Differentiated services code point, 0 to 63.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dscp: Option<u8>,
    /// 4 or 6; if absent, the one both endpoints have, 4 before 6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_version: Option<u8>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Trace {
    /// Each switch that the packet passes, in order; a hook on the way makes two steps.
    pub steps: Vec<TraceStep>,
    pub result: TraceResult,
    /// The endpoint, the drop reason or what else there is to say.
    pub detail: String,
    /// What went in, and what came out at the end.
    pub frame_in: String,
    pub frame_out: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TraceResult {
    /// It left by a port with an endpoint behind it.
    Delivered,
    Dropped,
    /// A switch answered it (ARP, neighbor solicitation).
    Answered,
    /// The switch's agent gets it (LLDP).
    Local,
    /// It left by a port that nothing is known to be behind of, or that is down.
    Lost,
    /// It was on its way for longer than any packet should be.
    Endless,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TraceStep {
    pub node: String,
    /// Name of the port it came in by; `hook N` when it comes back from a hook.
    pub ingress: String,
    /// The tables it met.
    pub hits: Vec<TraceHit>,
    /// `forward`, `drop`, `answer`, `local` or `hook`.
    pub verdict: String,
    /// Port, drop reason or hook.
    pub detail: String,
    /// As it leaves this switch.
    pub frame: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TraceHit {
    pub table: String,
    pub key: String,
    pub detail: String,
}

/// Packets that switches are to tell of: those of all that is given. Of the intent and of what is
/// on the wire nothing changes.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SampleRequest {
    /// Who sends: an endpoint or an address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Who receives: an endpoint or an address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slice: Option<String>,
    /// `downlink` or `uplink`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<String>,
    /// One packet in so many, the same ones at every switch.
    pub one_in: u32,
    /// It ends after so many packets, 1 to 100.
    pub packets: u32,
    /// And after so many seconds, 1 to 20.
    pub seconds: u32,
}

impl Default for SampleRequest {
    fn default() -> Self {
        let (from, to, slice, direction) = Default::default();
        Self { from, to, slice, direction, one_in: 1, packets: 10, seconds: 5 }
    }
}

/// A packet that was on the wire.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SampledPacket {
    /// When the first switch saw it, since the Unix epoch.
    pub at_ms: u64,
    /// Each switch that told of it, in the order of its way.
    pub steps: Vec<SampledStep>,
}

/// What a switch did with it: verdict, detail, slice and colour as it tells; `hits` are the tables
/// that say so.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SampledStep {
    #[serde(flatten)]
    pub step: TraceStep,
    /// Since the Unix epoch, by the switch's clock.
    pub at_ns: u64,
    pub slice: Option<String>,
    pub direction: Option<String>,
    /// Within its slice's guarantee.
    pub in_profile: Option<bool>,
    /// What the entries say becomes of it, where that is not what did.
    pub tables_say: Option<String>,
    /// Bytes of the frame as it came in, and the first of them.
    pub frame_len: usize,
    pub head: String,
}
