//! Why a slice is placed as it is, in a form to print or to send.

use std::fmt;

use selvedge_topology::BitRate;

use super::delay::{arc_name, bound};
use super::{Admitted, DelayBound, Ledger, MARGIN_PERCENT, Network, Protection, Segment, usable};
use crate::class::FRAME_BYTES;
use crate::{Direction, ResourceSharingLevel};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub slice: String,
    pub class: String,
    /// Why it is in that class.
    pub class_reason: String,
    /// Rates and bursts of each direction, in words.
    pub promises: Vec<String>,
    /// Why the promises are not kept at present.
    pub waived: Option<String>,
    pub paths: Vec<PathExplanation>,
    /// What is taken for granted.
    pub assumed: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathExplanation {
    pub direction: Direction,
    /// The way that is taken after a failure of the one before it in the list.
    pub is_backup: bool,
    pub nodes: Vec<String>,
    /// The ids that packets carry, in words.
    pub segments: Vec<String>,
    pub links: Vec<LinkUse>,
    /// `None`: the bursts of the slices that meet have no bound.
    pub delay: Option<DelayBound>,
}

/// Rates are those of frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkUse {
    pub link: String,
    pub cost: u32,
    pub capacity: Option<BitRate>,
    /// By this slice.
    pub reserved: BitRate,
    /// By all slices.
    pub reserved_in_all: BitRate,
    /// What can still be promised; `None`: not limited.
    pub left: Option<BitRate>,
}

pub(super) fn explain(ledger: &Ledger, network: &Network<'_>, of: &Admitted) -> Explanation {
    let slice = &of.slice;
    let snapshot = network.snapshot;
    let mut bounds = ledger.bounds.clone();
    let values = bounds.settle().cloned();
    let promises = Direction::ALL.iter().map(|&direction| {
        let rates = slice.rates(direction);
        let mut parts = Vec::new();
        match rates.guaranteed {
            Some(rate) => {
                let burst = rates.guaranteed_burst(slice.class);
                parts.push(format!("{rate} guaranteed (burst {burst})"));
            }
            None => parts.push("nothing guaranteed".to_owned()),
        }
        if let Some(rate) = rates.maximum {
            parts.push(format!("{rate} maximum (burst {})", rates.maximum_burst(slice.class)));
        }
        parts.extend(slice.latency.map(|latency| format!("within {latency}")));
        format!("{direction}: {}", parts.join(", "))
    });
    let mut promises: Vec<String> = promises.collect();
    let level = Protection::of(slice.availability);
    if level > Protection::None && of.waived.is_none() {
        let all = of.placed.iter().all(|p| p.backup.is_some() || p.path.arcs.is_empty());
        let state = if all { "" } else { " (at present without a backup)" };
        promises.push(format!("protected against any one failure: {level}{state}"));
        if slice.resource_sharing_level == ResourceSharingLevel::NonShared {
            promises.push("not shared: its backups' capacity is kept for it alone".to_owned());
        }
    }
    let mut assumed = Vec::new();
    let ways = of.placed.iter().flat_map(|placed| {
        let backup = placed.backup.iter().map(move |b| (placed, true, &b.path, &b.segments));
        std::iter::once((placed, false, &placed.path, &placed.segments)).chain(backup)
    });
    let paths = ways
        .map(|(placed, is_backup, path, segments)| {
            let links = path.arcs.iter().filter_map(|&ix| {
                let arc = snapshot.arc(ix)?;
                let all = ledger.reserved(ix);
                let left = arc.capacity.map(|c| BitRate(usable(c).0.saturating_sub(all.0)));
                Some(LinkUse {
                    link: arc_name(network, ix),
                    cost: arc.cost,
                    capacity: arc.capacity,
                    reserved: of.reserved.get(&ix).copied().unwrap_or_default(),
                    reserved_in_all: all,
                    left,
                })
            });
            let delay = values.as_ref().map(|values| {
                let route: Vec<_> =
                    path.arcs.iter().chain(placed.exits.iter().take(1)).copied().collect();
                bound(network, (&bounds, values), &route, slice)
            });
            let name = |node| snapshot.name(node).to_string();
            let segment = |segment: &Segment| match *segment {
                Segment::Node(node) => format!("to {}", name(node)),
                Segment::Hook { index, node } => {
                    format!("hook {} on {}", slice.through[index].hook, name(node))
                }
                Segment::Deliver => "deliver".to_owned(),
            };
            PathExplanation {
                direction: placed.direction,
                is_backup,
                nodes: path.nodes.iter().map(|&node| name(node)).collect(),
                segments: segments.iter().map(segment).collect(),
                links: links.collect(),
                delay,
            }
        })
        .collect::<Vec<_>>();
    if paths.iter().flat_map(|path| &path.links).any(|link| link.capacity.is_none()) {
        assumed.push("links without a stated capacity carry what is promised".to_owned());
    }
    if Direction::ALL.iter().any(|&direction| slice.rates(direction).guaranteed.is_some()) {
        assumed.push(format!(
            "packets are full: {FRAME_BYTES} bytes on a fabric wire; smaller ones need more of \
             it for the same rate"
        ));
    }
    let unknown = paths.iter().filter_map(|path| path.delay.as_ref()).flat_map(|d| &d.unknown);
    let mut unknown: Vec<String> =
        unknown.map(|what| format!("the delay bound leaves out {what}")).collect();
    unknown.sort();
    unknown.dedup();
    assumed.extend(unknown);
    Explanation {
        slice: slice.name.to_string(),
        class: slice.class.to_string(),
        class_reason: slice.class_reason.to_string(),
        promises,
        waived: of.waived.as_ref().map(ToString::to_string),
        paths,
        assumed,
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "slice {}: class {}, {}", self.slice, self.class, self.class_reason)?;
        for promise in &self.promises {
            writeln!(f, "  {promise}")?;
        }
        if let Some(waived) = &self.waived {
            writeln!(f, "  NOT KEPT at present: {waived}")?;
        }
        for path in &self.paths {
            let backup = if path.is_backup { " after a failure" } else { "" };
            writeln!(f, "  {}{backup}: {}", path.direction, path.nodes.join(" > "))?;
            writeln!(f, "    ids: {}", path.segments.join(", "))?;
            for link in &path.links {
                write!(f, "    {}: cost {}", link.link, link.cost)?;
                match (link.capacity, link.left) {
                    (Some(capacity), Some(left)) => writeln!(
                        f,
                        ", {} reserved of {MARGIN_PERCENT}% of {capacity}, {} by all, {left} left",
                        link.reserved, link.reserved_in_all
                    )?,
                    _ => writeln!(f, ", {} reserved, capacity not stated", link.reserved)?,
                }
            }
            match &path.delay {
                None => writeln!(f, "    delay: no bound, the bursts that meet do not settle")?,
                Some(bound) => {
                    writeln!(f, "    delay: at most {}", bound.total)?;
                    for hop in &bound.hops {
                        writeln!(f, "      {hop}")?;
                    }
                }
            }
        }
        for assumed in &self.assumed {
            writeln!(f, "  assumed: {assumed}")?;
        }
        Ok(())
    }
}
