//! The JSON Schema of a file's objects, for editors. It states shapes; what it cannot say
//! (rates that contradict each other, names twice) only [`crate::parse`] finds.
#![allow(dead_code, reason = "these types are read by schemars, at compile time")]

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema as schema};

macro_rules! pattern {
    ($name:ident, $title:literal, $pattern:literal) => {
        struct $name;

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                schema!({ "type": "string", "title": $title, "pattern": $pattern })
            }
        }
    };
}

pattern!(Name, "a name", "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$");
pattern!(Rate, "a bit rate", r"^[0-9]+(\.[0-9]+)? *([kKMGT]?bps)$");
pattern!(Time, "a time", r"^[0-9]+(\.[0-9]+)? *(us|µs|ms|s)$");
pattern!(Size, "a size", r"^[0-9]+(\.[0-9]+)? *([kMG]?B|[KMGT]iB?)$");
pattern!(Thousandths, "thousandths of a processor", "^[0-9]+m$");
pattern!(Watts, "a power", r"^[0-9]+(\.[0-9]+)? *(mW|W|kW)$");
pattern!(Distance, "a distance", "^[0-9]+ *(m|km)$");
pattern!(
    Moment,
    "a moment, RFC 3339",
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:]{8}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})$"
);
pattern!(Address, "an IP address or prefix", r"^[0-9a-fA-F.:]+(/[0-9]{1,3})?$");

#[derive(JsonSchema)]
#[schemars(title = "Selvedge object", tag = "kind")]
enum ObjectFile {
    NetworkSlice(ObjectOf<SliceSpec>),
    Hook(ObjectOf<HookSpec>),
    Application(ObjectOf<ApplicationSpec>),
    ClassMap(ObjectOf<ClassMapSpec>),
    PduSession(ObjectOf<SessionSpec>),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields, inline)]
struct ObjectOf<Spec> {
    api_version: ApiVersion,
    metadata: Metadata,
    spec: Spec,
}

#[derive(JsonSchema)]
#[schemars(inline)]
enum ApiVersion {
    #[schemars(rename = "selvedge/v1")]
    V1,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Metadata {
    name: Name,
}

/// A network slice: what its endpoints are promised.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct SliceSpec {
    /// Fills what is not stated: sst, 5qi and latency (GSMA NG.116, 3GPP TS 23.501).
    template: Option<TemplateSpec>,
    /// Slice identity (3GPP TS 23.003 §28.4.2).
    s_nssai: Option<SnssaiSpec>,
    /// A standardized 5QI (3GPP TS 23.501, table 5.7.4-1); decides the class.
    #[schemars(rename = "5qi", range(min = 1, max = 255))]
    five_qi: Option<u8>,
    class: Option<ClassSpec>,
    /// Decides among slices that two endpoints share: the highest wins.
    priority: Option<u8>,
    /// From dn to ue: the slice's total.
    downlink: Option<RatesSpec>,
    /// From ue to dn: the slice's total.
    uplink: Option<RatesSpec>,
    /// One way.
    latency: Option<Time>,
    /// Percent of time.
    #[schemars(range(max = 100))]
    availability: Option<f64>,
    /// Of links and nodes with other slices; shared by default (3GPP TS 28.541).
    resource_sharing_level: Option<SharingSpec>,
    /// ue endpoints that may be attached at one time (3GPP TS 28.541).
    #[schemars(rename = "maxNumberofUEs", range(min = 1, max = 1_000_000_000))]
    max_ues: Option<u32>,
    /// Their sessions at one time; an attached ue endpoint is one (3GPP TS 28.541).
    #[schemars(rename = "maxNumberofPDUSessions", range(min = 1, max = 1_000_000_000))]
    max_pdu_sessions: Option<u32>,
    /// When it starts and ends; at least one of both.
    schedule: Option<ScheduleSpec>,
    #[schemars(length(min = 2, max = 1024))]
    endpoints: Vec<EndpointSpec>,
    /// Hooks on the path, in order.
    #[schemars(length(max = 3))]
    through: Option<Vec<ThroughSpec>>,
}

#[derive(JsonSchema)]
#[schemars(rename = "Class", rename_all = "kebab-case")]
enum ClassSpec {
    Urllc,
    Guaranteed,
    BestEffort,
}

#[derive(JsonSchema)]
#[schemars(rename = "Snssai", deny_unknown_fields)]
struct SnssaiSpec {
    /// Required without a template.
    sst: Option<u8>,
    #[schemars(regex(pattern = "^[0-9A-Fa-f]{6}$"))]
    sd: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename = "Rates", deny_unknown_fields)]
struct RatesSpec {
    guaranteed: Option<Rate>,
    maximum: Option<Rate>,
    /// 250 ms of the rate by default, 5 ms for urllc.
    burst: Option<Size>,
}

/// Either a ue or a dn.
#[derive(JsonSchema)]
#[schemars(rename = "Endpoint", untagged)]
enum EndpointSpec {
    Ue(UeSpec),
    Dn(DnSpec),
}

#[derive(JsonSchema)]
#[schemars(inline, deny_unknown_fields)]
struct UeSpec {
    ue: Name,
    /// To this endpoint, within the slice's (dLThptPerUE).
    downlink: Option<OwnRatesSpec>,
    /// From this endpoint, within the slice's (uLThptPerUE).
    uplink: Option<OwnRatesSpec>,
}

#[derive(JsonSchema)]
#[schemars(inline, deny_unknown_fields)]
struct DnSpec {
    dn: Name,
}

#[derive(JsonSchema)]
#[schemars(rename = "OwnRates", deny_unknown_fields)]
struct OwnRatesSpec {
    guaranteed: Option<Rate>,
    maximum: Option<Rate>,
}

#[derive(JsonSchema)]
#[schemars(rename = "Schedule", deny_unknown_fields)]
struct ScheduleSpec {
    start: Option<Moment>,
    end: Option<Moment>,
}

#[derive(JsonSchema)]
#[schemars(rename = "Template")]
enum TemplateSpec {
    #[schemars(rename = "eMBB")]
    Embb,
    #[schemars(rename = "URLLC")]
    Urllc,
    #[schemars(rename = "MIoT")]
    Miot,
}

#[derive(JsonSchema)]
#[schemars(rename = "ResourceSharingLevel", rename_all = "kebab-case")]
enum SharingSpec {
    Shared,
    NonShared,
}

/// Which class 5QIs, SSTs and DSCPs stand for, where 3GPP's tables are not to hold. One in a
/// network.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ClassMapSpec {
    /// By slice/service type, 0 to 255: of a slice.
    sst: Option<BTreeMap<String, ClassSpec>>,
    /// By 5QI, standardized (3GPP TS 23.501, table 5.7.4-1) or 128 to 254: of a slice.
    #[schemars(rename = "5qi")]
    five_qi: Option<BTreeMap<String, ClassSpec>>,
    /// By DSCP, 0 to 63: of packets inside a slice. Not enforced by switches yet.
    dscp: Option<BTreeMap<String, ClassSpec>>,
}

/// A UE behind a gNB: the tunnels between it and the switch that the gNB is attached to (3GPP
/// TS 29.281).
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct SessionSpec {
    /// A host of the topology, without a link; the UE's addresses are its.
    ue: Name,
    /// One that names the UE.
    slice: Name,
    /// A host of the topology.
    gnb: Name,
    /// The address that the gNB sends to.
    n3: Address,
    uplink: TunnelSpec,
    downlink: TunnelSpec,
    #[schemars(length(min = 1, max = 64))]
    qos_flows: Vec<FlowSpec>,
    /// Bytes of IP between switch and gNB; 1500 by default.
    #[schemars(range(min = 1344))]
    mtu: Option<u16>,
}

#[derive(JsonSchema)]
#[schemars(rename = "Tunnel", deny_unknown_fields)]
struct TunnelSpec {
    #[schemars(range(min = 1))]
    teid: u32,
}

#[derive(JsonSchema)]
#[schemars(rename = "QosFlow", deny_unknown_fields)]
struct FlowSpec {
    #[schemars(range(max = 63))]
    qfi: u8,
    #[schemars(rename = "5qi", range(min = 1, max = 255))]
    five_qi: u8,
}

#[derive(JsonSchema)]
#[schemars(rename = "Through", rename_all = "camelCase", deny_unknown_fields)]
struct ThroughSpec {
    hook: Name,
    on_failure: OnFailureSpec,
}

#[derive(JsonSchema)]
#[schemars(rename = "OnFailure", rename_all = "lowercase")]
enum OnFailureSpec {
    Bypass,
    Drop,
}

/// A WebAssembly module that can stand on a slice's path.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct HookSpec {
    /// A file, relative to this one.
    module: String,
    /// Handed to the module as it is.
    config: Option<String>,
    #[schemars(range(min = 1, max = 1_000_000_000))]
    fuel_per_packet: Option<u64>,
    memory: Option<Size>,
}

/// An application on an endpoint, with its traffic rules (ETSI GS MEC 011) and what it needs of
/// the node that it is placed on (ETSI GS MEC 010-2, AppD).
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct ApplicationSpec {
    /// A host of the topology; without a link if the application is to be placed.
    endpoint: Name,
    /// Present: the controller places it.
    compute_descriptor: Option<ComputeSpec>,
    /// One way, of every slice that leads to it.
    latency: Option<Time>,
    placement: Option<PlacementSpec>,
    #[schemars(length(max = 64))]
    traffic_rules: Option<Vec<RuleSpec>>,
}

#[derive(JsonSchema)]
#[schemars(rename = "ComputeDescriptor", deny_unknown_fields)]
struct ComputeSpec {
    cpu: Processors,
    memory: Size,
    architecture: Option<WordsSpec>,
    /// How many of each kind.
    accelerators: Option<std::collections::BTreeMap<String, u32>>,
}

#[derive(JsonSchema)]
#[schemars(rename = "Placement", rename_all = "camelCase", deny_unknown_fields)]
struct PlacementSpec {
    /// Any of these.
    sites: Option<WordsSpec>,
    /// Any of these is better than others.
    preferred_sites: Option<WordsSpec>,
    area: Option<AreaSpec>,
    /// No two of a group on one node.
    anti_affinity: Option<WordsSpec>,
    moving_cost: Option<Watts>,
}

#[derive(JsonSchema)]
#[schemars(rename = "Area", deny_unknown_fields)]
struct AreaSpec {
    /// Latitude and longitude in degrees.
    position: [f64; 2],
    radius: Distance,
}

/// YAML writes 2, 1.5 and 500m.
#[derive(JsonSchema)]
#[schemars(rename = "Processors", untagged)]
enum Processors {
    Number(f64),
    Text(Thousandths),
}

/// One or a list.
#[derive(JsonSchema)]
#[schemars(rename = "Words", untagged)]
enum WordsSpec {
    One(String),
    List(Vec<String>),
}

#[derive(JsonSchema)]
#[schemars(rename = "TrafficRule", rename_all = "camelCase", deny_unknown_fields)]
struct RuleSpec {
    #[schemars(length(min = 1, max = 64))]
    traffic_rule_id: String,
    filter_type: FilterTypeSpec,
    /// 0 is the highest.
    priority: u8,
    #[schemars(length(min = 1, max = 16))]
    traffic_filter: Vec<FilterSpec>,
    action: ActionSpec,
    /// INACTIVE by default.
    state: Option<StateSpec>,
}

#[derive(JsonSchema)]
#[schemars(rename = "FilterType", rename_all = "SCREAMING_SNAKE_CASE")]
enum FilterTypeSpec {
    Flow,
    Packet,
}

#[derive(JsonSchema)]
#[schemars(rename = "Action", rename_all = "SCREAMING_SNAKE_CASE")]
enum ActionSpec {
    Drop,
    Passthrough,
}

#[derive(JsonSchema)]
#[schemars(rename = "State", rename_all = "SCREAMING_SNAKE_CASE")]
enum StateSpec {
    Active,
    Inactive,
}

#[derive(JsonSchema)]
#[schemars(rename = "TrafficFilter", rename_all = "camelCase", deny_unknown_fields)]
struct FilterSpec {
    src_address: Option<Vec<Address>>,
    dst_address: Option<Vec<Address>>,
    /// A port, or a range such as 80-90.
    src_port: Option<Vec<PortSpec>>,
    dst_port: Option<Vec<PortSpec>>,
    /// A name or a number.
    protocol: Option<Vec<PortSpec>>,
    #[schemars(rename = "dSCP", range(max = 63))]
    dscp: Option<u8>,
}

/// YAML writes 80 and "80-90".
#[derive(JsonSchema)]
#[schemars(rename = "Number", untagged)]
enum PortSpec {
    Number(u16),
    Text(String),
}

/// The schema of one document of a file.
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(ObjectFile).to_value()
}
