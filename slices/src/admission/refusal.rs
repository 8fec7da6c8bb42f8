//! Why a slice is not admitted: the constraint, by how much, where, and what would do instead.

use selvedge_topology::{BitRate, Delay, NodeName};

use crate::admission::DelayBound;
use crate::{Direction, ObjectName};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("slice {slice}: endpoint {endpoint} is not attached to any switch")]
    Endpoint { slice: ObjectName, endpoint: NodeName },

    #[error("slice {slice}: there is no hook {hook}")]
    Hook { slice: ObjectName, hook: ObjectName },

    #[error("slice {slice}: no node can run hook {hook}")]
    NoCompute { slice: ObjectName, hook: ObjectName },

    #[error("slice {slice}: {direction}: {reason}")]
    NoPath { slice: ObjectName, direction: Direction, reason: String },

    #[error("slice {slice}: {direction}: no way from {from} through {hook} to {to}")]
    HookUnreachable {
        slice: ObjectName,
        direction: Direction,
        from: NodeName,
        to: NodeName,
        hook: ObjectName,
    },

    /// Rates count the user's IP bytes.
    #[error(
        "slice {slice}: {direction} from {from} to {to}: {wanted} guaranteed do not fit: link \
         {link} has {available} left, {missing} are missing; {fits} would fit{}",
        held(.holders)
    )]
    Bandwidth {
        slice: ObjectName,
        direction: Direction,
        from: NodeName,
        to: NodeName,
        /// The link that has least to give on the widest way, `near:port -> far:port`.
        link: String,
        wanted: BitRate,
        /// What that link has left for this slice.
        available: BitRate,
        /// `wanted - available`.
        missing: BitRate,
        /// The largest guaranteed rate of this direction that would be admitted; 0: none.
        fits: BitRate,
        /// Whose promises are on that link.
        holders: Vec<(ObjectName, BitRate)>,
    },

    #[error(
        "slice {slice}: {direction} from {from} to {to}: a latency of {wanted} cannot be \
         promised: {}{}",
        achievable(.least),
        worst(.least)
    )]
    Delay {
        slice: ObjectName,
        direction: Direction,
        from: NodeName,
        to: NodeName,
        wanted: Delay,
        /// The least bound found, term by term. `None`: bursts grow without bound.
        least: Option<DelayBound>,
    },

    #[error(
        "slice {slice} would break the promise to slice {other}: its {direction} delay bound \
         would be {}, {promised} are promised{}",
        total(.bound),
        worst(.bound)
    )]
    OtherSlice {
        slice: ObjectName,
        other: ObjectName,
        direction: Direction,
        promised: Delay,
        /// `None`: bursts grow without bound.
        bound: Option<DelayBound>,
    },

    #[error(
        "slice {slice}: {direction} from {from} to {to}: every way with enough bandwidth needs \
         more ids than the {} that a packet carries",
        crate::admission::MAX_IDS
    )]
    TooManyIds { slice: ObjectName, direction: Direction, from: NodeName, to: NodeName },
}

fn held(holders: &[(ObjectName, BitRate)]) -> String {
    if holders.is_empty() {
        return String::new();
    }
    let each: Vec<String> =
        holders.iter().map(|(name, rate)| format!("{rate} by {name}")).collect();
    format!(" (held there: {})", each.join(", "))
}

fn total(bound: &Option<DelayBound>) -> String {
    bound.as_ref().map_or("without limit".to_owned(), |bound| bound.total.to_string())
}

fn achievable(bound: &Option<DelayBound>) -> String {
    match bound {
        Some(bound) => format!("the least that can is {}", bound.total),
        None => "the bursts of the slices that meet grow without limit".to_owned(),
    }
}

fn worst(bound: &Option<DelayBound>) -> String {
    let hop = bound.as_ref().and_then(DelayBound::worst);
    hop.map_or(String::new(), |hop| format!("; the largest term is {hop}"))
}
