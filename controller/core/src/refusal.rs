//! Why the core will not do what was asked. A refusal changes nothing.

use std::net::IpAddr;

use selvedge_slices::schedule::Timestamp;
use selvedge_slices::{ObjectKind, ObjectName};
use selvedge_topology::NodeName;

use crate::lifecycle::Phase;
use crate::offers::Offers;
use crate::plan::PlanId;
use crate::prove::CounterExample;

/// Why a PDU session cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionFault {
    #[error("the topology has no host {host}")]
    UnknownHost { host: NodeName },
    #[error("UE {ue} hangs on {at}; a UE behind a gNB has no link of its own")]
    UeIsLinked { ue: NodeName, at: String },
    #[error("gNB {gnb} is the UE of another session")]
    GnbIsUe { gnb: NodeName },
    #[error("UE {ue} needs one IPv4 address (/32), an IPv6 prefix, or both")]
    UeAddress { ue: NodeName },
    #[error("gNB {gnb} has no address of the version of {n3}")]
    GnbWithoutAddress { gnb: NodeName, n3: IpAddr },
    #[error("n3 {n3} is an address of host {host}")]
    N3IsHost { n3: IpAddr, host: NodeName },
    #[error("slice {slice} does not name {ue} as a ue; apply it too, or first")]
    NotInSlice { ue: NodeName, slice: ObjectName },
    #[error("5QI {number} has no class; name it in the ClassMap")]
    UnknownFiveQi { number: u8 },
    #[error("UE {ue} is that of session {other} too")]
    SecondOfUe { ue: NodeName, other: ObjectName },
    #[error("uplink TEID {teid} is that of session {other} too")]
    SameTeid { teid: u32, other: ObjectName },
    #[error("all sessions together have at most {limit} addresses of N3")]
    TooManyAddresses { limit: usize },
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no {kind} {name:?}")]
    NotFound { kind: ObjectKind, name: ObjectName },
    /// An object twice in one change.
    #[error("{kind} {name:?} is there twice")]
    Twice { kind: ObjectKind, name: ObjectName },
    #[error(
        "a network has one ClassMap at most, here are {first:?} and {second:?}; delete one in the \
         same change, or give both the same name"
    )]
    SecondClassMap { first: ObjectName, second: ObjectName },
    #[error(
        "slice {slice:?}: 5QI {number} has no class; name it in the ClassMap, or state the \
         slice's class"
    )]
    UnknownFiveQi { slice: ObjectName, number: u8 },
    #[error("PDU session {session:?}: {fault}")]
    Session { session: ObjectName, fault: SessionFault },
    #[error("slice {slice:?}: its schedule ended at {end}; give it another")]
    ScheduleOver { slice: ObjectName, end: Timestamp },
    #[error("a reservation ends in the future, at most {days} days ahead")]
    ReservationTime { days: u64 },
    /// The slice is not in a phase where that can be done.
    #[error("slice {slice:?} is {}: {why}", .phase.as_str())]
    Phase { slice: ObjectName, phase: Phase, why: &'static str },
    #[error("slice {slice:?}: the topology has no host {endpoint:?}")]
    UnknownEndpoint { slice: String, endpoint: String },
    #[error("slice {slice:?}: host {endpoint:?} has no address, so nothing can be sent to it")]
    EndpointWithoutAddress { slice: String, endpoint: String },
    /// The data plane tells a packet's direction by its source alone.
    #[error(
        "endpoint {endpoint:?} is `ue` in slice {as_ue:?} and `dn` in slice {as_dn:?}; it can be \
         only one of them"
    )]
    TwoSides { endpoint: String, as_ue: String, as_dn: String },
    #[error(
        "slice {slice:?} goes through hook {hook:?}, which there is not; apply it too, or first"
    )]
    UnknownHook { slice: String, hook: String },
    #[error("hook {hook:?} is used by {}; delete or change that first", quoted(.slices))]
    HookInUse { hook: String, slices: Vec<String> },
    #[error("hook {hook:?}: the digest of its module is missing")]
    ModuleMissing { hook: String },
    #[error("application {application:?}: the topology has no host {endpoint:?}")]
    UnknownApplicationEndpoint { application: String, endpoint: String },
    #[error("application {application:?} has no traffic rule {rule:?}")]
    UnknownRule { application: String, rule: String },
    /// The rule is no longer what the request was based on.
    #[error("traffic rule {rule:?} of application {application:?} was changed meanwhile")]
    RuleChanged { application: String, rule: String },
    #[error(
        "switch {switch}: active traffic rules need {wanted} classifier entries, it holds {limit}"
    )]
    TooManyRules { switch: NodeName, wanted: usize, limit: usize },
    #[error("application {application:?}, rule {rule:?}: {reason}")]
    RuleUnsupported { application: String, rule: String, reason: String },
    /// No number is left: the data plane counts slices, sets and policies in 16 bits or fewer.
    #[error("no number is left for {what}: there are at most {limit}")]
    NumbersExhausted { what: &'static str, limit: usize },
    #[error(
        "application {application:?} is to be placed, but its endpoint {endpoint:?} hangs on \
         {at}; give it an endpoint without a link, or no computeDescriptor"
    )]
    EndpointIsLinked { application: String, endpoint: String, at: String },
    #[error(
        "applications {first:?} and {second:?} have the same endpoint {endpoint:?}, and both are \
         to be placed"
    )]
    EndpointShared { endpoint: String, first: String, second: String },
    /// Placement's own words: what each node lacks, what would fit.
    #[error("application {application:?} cannot be placed: {reason}")]
    NoPlace { application: String, reason: String },
    /// Admission's own words: link, shortfall, what would fit.
    #[error("slice {slice:?} does not fit: {reason}{}", instead(.offers))]
    DoesNotFit {
        slice: String,
        reason: String,
        /// What would be admitted instead, the nearest change of each kind.
        offers: Offers,
    },
    #[error(
        "the plan was made on another state (plan {asked}, now it would be {now}); make it again"
    )]
    OtherPlan { asked: PlanId, now: PlanId },
    #[error("the topology has no switch {name:?}{}", did_you_mean(near))]
    UnknownNode { name: String, near: Option<String> },
    #[error(
        "the topology has no link {name:?} between switches{}; a link is named by a port, \
         `s1:p2`, or by both ends, `s1 - s2`",
        did_you_mean(near)
    )]
    UnknownLink { name: String, near: Option<String> },
    #[error("{name:?} is several links: {}; name one by a port", .links.join(", "))]
    SeveralLinks { name: String, links: Vec<String> },
    #[error(
        "node {node} cannot be drained: endpoint {endpoint:?} of {} is attached to it; move it, \
         or change the slice, first",
        quoted(.slices)
    )]
    DrainNeeded { node: String, endpoint: String, slices: Vec<String> },
    #[error(
        "slice {slice:?}: its endpoint {endpoint:?} is attached to node {node}, which is drained; \
         undrain it first"
    )]
    AtDrained { slice: String, endpoint: String, node: String },
    #[error("{what} cannot be drained: nothing else leads to {behind}")]
    DrainCuts { what: String, behind: String },
    /// Admission's own words: link, shortfall, what would fit.
    #[error("with {what} drained, slice {slice:?} is no longer kept: {reason}")]
    DrainBreaks { what: String, slice: String, reason: String },
    #[error("there is no revision {revision}: the newest is {last}")]
    NoRevision { revision: u64, last: u64 },
    #[error(
        "revision {revision} is no longer in the history; the oldest that can be gone back to is \
         {oldest}"
    )]
    RevisionGone { revision: u64, oldest: u64 },
    #[error("the plan is not safe: {0}")]
    NotProven(CounterExample),
}

impl Refusal {
    /// What is still to be worked out before it can be shown without a wait.
    pub fn offers(&self) -> Option<&Offers> {
        match self {
            Self::DoesNotFit { offers, .. } => Some(offers),
            _ => None,
        }
    }

    /// The object that it is about, where it is about one.
    pub fn object(&self) -> Option<(ObjectKind, &str)> {
        match self {
            Self::NotFound { kind, name } | Self::Twice { kind, name } => {
                Some((*kind, name.as_str()))
            }
            Self::UnknownEndpoint { slice, .. }
            | Self::EndpointWithoutAddress { slice, .. }
            | Self::UnknownHook { slice, .. }
            | Self::AtDrained { slice, .. }
            | Self::DrainBreaks { slice, .. }
            | Self::DoesNotFit { slice, .. }
            | Self::TwoSides { as_ue: slice, .. } => Some((ObjectKind::NetworkSlice, slice)),
            Self::HookInUse { slices, .. } | Self::DrainNeeded { slices, .. } => {
                Some((ObjectKind::NetworkSlice, slices.first()?))
            }
            Self::ModuleMissing { hook } => Some((ObjectKind::Hook, hook)),
            Self::Session { session, .. } => Some((ObjectKind::PduSession, session.as_str())),
            Self::UnknownApplicationEndpoint { application, .. }
            | Self::UnknownRule { application, .. }
            | Self::RuleChanged { application, .. }
            | Self::RuleUnsupported { application, .. } => {
                Some((ObjectKind::Application, application))
            }
            _ => None,
        }
    }
}

fn did_you_mean(near: &Option<String>) -> String {
    near.as_ref().map(|near| format!("; did you mean {near:?}?")).unwrap_or_default()
}

fn quoted(names: &[String]) -> String {
    let mut text = String::from(if names.len() == 1 { "slice " } else { "slices " });
    for (index, name) in names.iter().enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        text.push_str(&format!("{name:?}"));
    }
    text
}

fn instead(offers: &Offers) -> String {
    let each: Vec<String> = offers.iter().map(ToString::to_string).collect();
    if each.is_empty() {
        String::new()
    } else {
        format!("; accepted would be {}", each.join(", or "))
    }
}
