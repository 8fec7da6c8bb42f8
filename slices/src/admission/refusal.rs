//! Why a slice is not admitted: the constraint, by how much, where, and what would do instead.
//!
//! The texts leave out the slice's own name: whoever shows one has said which slice it is of.

use selvedge_topology::{BitRate, Bytes, Delay, NodeName};

use crate::admission::{DelayBound, Protection};
use crate::{Class, Direction, ObjectName};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("endpoint {endpoint} is not attached to any switch")]
    Endpoint { slice: ObjectName, endpoint: NodeName },

    #[error("there is no hook {hook}")]
    Hook { slice: ObjectName, hook: ObjectName },

    #[error("no node can run hook {hook}: none has the compute memory that it needs")]
    NoCompute { slice: ObjectName, hook: ObjectName },

    #[error(
        "hook {hook} needs {needed} of compute memory; of the nodes that can run it {node} has \
         most left, {left} of {total}{}",
        held(.holders)
    )]
    Memory {
        slice: ObjectName,
        hook: ObjectName,
        needed: Bytes,
        node: NodeName,
        /// What the slice's other hooks leave, too.
        left: Bytes,
        total: Bytes,
        /// Whose hooks are on that node.
        holders: Vec<(ObjectName, Bytes)>,
    },

    #[error("{direction}: {reason}")]
    NoPath { slice: ObjectName, direction: Direction, reason: String },

    #[error("{direction}: no way from {from} through {hook} to {to}")]
    HookUnreachable {
        slice: ObjectName,
        direction: Direction,
        from: NodeName,
        to: NodeName,
        hook: ObjectName,
    },

    /// Rates count the user's IP bytes.
    #[error(
        "{direction} from {from} to {to}: {wanted} are to be guaranteed, link {link} has \
         {available} left, {missing} are missing; {fits} would fit{}",
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
        /// Whose promises are on that link: the largest eight.
        holders: Vec<(ObjectName, BitRate)>,
    },

    #[error(
        "{direction} from {from} to {to}: a latency of {wanted} cannot be \
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
        "a latency of {latency} cannot be promised to the class {class}: link {link} shapes it, and \
         no bound counts what waits there; give the slice another class"
    )]
    Shaped {
        slice: ObjectName,
        class: Class,
        latency: Delay,
        /// A link that shapes the class, `near:port - far:port`.
        link: String,
    },

    #[error(
        "it would break the promise to slice {other}, whose {direction} delay bound would be \
         {} where {promised} are promised{}",
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
        "{direction} from {from} to {to}: every way with enough bandwidth needs \
         more ids than the {} that a packet carries",
        crate::admission::MAX_IDS
    )]
    TooManyIds { slice: ObjectName, direction: Direction, from: NodeName, to: NodeName },

    #[error(
        "slice {slice}: {direction} from {from} to {to}: its availability asks for a backup that \
         survives any one failure ({wanted} protection), and there is none: {shared}{}",
        weaker(*.offered)
    )]
    Protection {
        slice: ObjectName,
        direction: Direction,
        from: NodeName,
        to: NodeName,
        wanted: Protection,
        /// What no second way stays clear of, in words.
        shared: String,
        /// The strongest that the slice would be admitted with.
        offered: Protection,
    },
}

fn weaker(offered: Protection) -> String {
    match offered {
        Protection::None => String::new(),
        level => format!("; {level} protection can be had"),
    }
}

fn held<T: std::fmt::Display>(holders: &[(ObjectName, T)]) -> String {
    if holders.is_empty() {
        return String::new();
    }
    let each: Vec<String> =
        holders.iter().map(|(name, what)| format!("{what} by {name}")).collect();
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
