//! From what switches hold to what they should hold, in steps that are each safe.
//!
//! 1. [`Stage::Fabric`]: what packets meet after the ingress is added and changed everywhere,
//!    and meters shrink.
//! 2. [`Stage::Ingress`]: what sends packets on their way is added and changed, and routes that
//!    are not wanted go. A route or a policy is one map write, so each packet takes the old way
//!    whole or the new way whole.
//! 3. [`Stage::Removal`], after the longest time a packet can be in flight: what nothing uses
//!    any more goes, and meters grow into what others gave up.
//! 4. [`Stage::Generation`]: the switch's generation.
//!
//! The price is headroom: a table holds the union of old and new between 1 and 3. Within one
//! step switches are written in any order; where next hops would make a loop of old and new
//! ones, [`order`](crate::order) splits the first stage into several steps.

use std::collections::BTreeMap;
use std::fmt;

use selvedge_pipeline::{Entry, GenerationEntry, Key};
use selvedge_topology::NodeName;

use crate::effect::Update;
use crate::refusal::Refusal;
use crate::view::Touched;

pub use crate::table::Table;

/// What a change of intent would do. See [`Request::Plan`](crate::Request::Plan).
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub id: PlanId,
    /// Objects that would be put or deleted.
    pub objects: Vec<Touched>,
    /// What else: `drain node s1`.
    pub operations: Vec<String>,
    /// Against what the switches should hold now. Switches with no difference are not listed.
    pub switches: BTreeMap<NodeName, Difference>,
    /// Why [`Request::Apply`](crate::Request::Apply) would be refused; then `switches` is empty
    /// unless the proof refused them.
    pub refusal: Option<Refusal>,
    /// Promises that would be taken on but not kept at present, and what is asked for but not
    /// carried out by this version.
    pub warnings: Vec<String>,
    /// What the documents did not state and a template filled in.
    pub notes: Vec<String>,
}

/// Entries of one switch, in the order of their keys; the generation is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    pub added: Vec<Entry>,
    /// Before and after.
    pub changed: Vec<(Entry, Entry)>,
    pub removed: Vec<Entry>,
}

impl Difference {
    pub fn between(before: &Table, after: &Table) -> Self {
        let mut difference = Self::default();
        before.differences(after, |_, old, new| match (old, new) {
            (Some(Entry::Generation(_)), _) | (_, Some(Entry::Generation(_))) => {}
            (None, Some(new)) => difference.added.push(new.clone()),
            (Some(old), Some(new)) => difference.changed.push((old.clone(), new.clone())),
            (Some(old), None) => difference.removed.push(old.clone()),
            (None, None) => {}
        });
        difference
    }

    /// Whether anything differs, the generation left out.
    pub(crate) fn is_any(before: &Table, after: &Table) -> bool {
        let mut any = false;
        before.differences(after, |key, _, _| {
            any |= *key != Key::Generation;
        });
        any
    }

    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

/// Names a plan by the state it was made on and what it would change. Text form:
/// `<revision>-<digest>`, decimal and 16 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlanId {
    revision: u64,
    digest: u64,
}

impl PlanId {
    /// `change`: of the intent, in text. The digest guards against mistakes, not malice: FNV-1a.
    pub(crate) fn new(
        revision: u64,
        change: &str,
        switches: &BTreeMap<NodeName, Difference>,
    ) -> Self {
        let mut digest = 0xCBF2_9CE4_8422_2325;
        let mut feed = |text: &str| {
            for byte in text.bytes() {
                digest = (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
            }
        };
        feed(change);
        for (name, difference) in switches {
            feed(name.as_str());
            feed(&format!("{difference:?}"));
        }
        Self { revision, digest }
    }
}

impl fmt::Display for PlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.revision, self.digest)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a plan id: {0:?}")]
pub struct PlanIdError(String);

impl std::str::FromStr for PlanId {
    type Err = PlanIdError;

    fn from_str(text: &str) -> Result<Self, PlanIdError> {
        let parse = || {
            let (revision, digest) = text.split_once('-')?;
            let revision = revision.parse().ok()?;
            let plan = Self { revision, digest: u64::from_str_radix(digest, 16).ok()? };
            (plan.to_string() == text).then_some(plan)
        };
        parse().ok_or_else(|| PlanIdError(text.to_owned()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Fabric,
    Ingress,
    Removal,
    Generation,
}

impl Stage {
    const ALL: [Self; 4] = [Self::Fabric, Self::Ingress, Self::Removal, Self::Generation];
}

/// Writes that may be done at the same time at different switches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) stage: Stage,
    pub(crate) updates: BTreeMap<NodeName, Vec<Update>>,
}

/// The smallest ordered edit that turns what `switches` hold (first) into what they should hold
/// (second). Steps with nothing to do are left out.
///
/// With `keep_transit`, nothing is removed that a packet from another switch may still need:
/// for when the state of some switch is not known.
pub(crate) fn steps<'a>(
    switches: impl Iterator<Item = (&'a NodeName, &'a Table, &'a Table)>,
    generation: u64,
    keep_transit: bool,
) -> Vec<Step> {
    let mut stages: BTreeMap<Stage, BTreeMap<NodeName, Vec<Update>>> = BTreeMap::new();
    for (name, held, wanted) in switches {
        let Difference { added, changed, removed } = Difference::between(held, wanted);
        let added = added.into_iter().map(|e| (stage_of_put(None, &e), Update::Insert(e)));
        let changed =
            changed.into_iter().map(|(old, e)| (stage_of_put(Some(&old), &e), Update::Modify(e)));
        let removed = removed
            .into_iter()
            .filter(|entry| !keep_transit || !serves_others(entry))
            .map(|e| (stage_of_removal(&e), Update::Delete(e)));
        let mut updates: Vec<(Stage, Update)> = added.chain(changed).chain(removed).collect();
        if !updates.is_empty() || !held.contains_key(&Key::Generation) {
            let entry = Entry::Generation(GenerationEntry { generation });
            let known = held.contains_key(&Key::Generation);
            let update = if known { Update::Modify(entry) } else { Update::Insert(entry) };
            updates.push((Stage::Generation, update));
        }
        updates.sort_by_key(|(stage, update)| (*stage, rank(update)));
        let mut of_stage: BTreeMap<Stage, Vec<Update>> = BTreeMap::new();
        for (stage, update) in updates {
            of_stage.entry(stage).or_default().push(update);
        }
        for (stage, updates) in of_stage {
            stages.entry(stage).or_default().insert(name.clone(), updates);
        }
    }
    Stage::ALL
        .into_iter()
        .filter_map(|stage| Some(Step { stage, updates: stages.remove(&stage)? }))
        .collect()
}

/// Carries out updates on a table as a switch does.
pub(crate) fn apply(table: &mut Table, updates: &[Update]) {
    for update in updates {
        match update {
            Update::Insert(entry) | Update::Modify(entry) => {
                table.insert(entry.clone());
            }
            Update::Delete(entry) => {
                table.remove(&entry.key());
            }
        }
    }
}

fn stage_of_put(old: Option<&Entry>, new: &Entry) -> Stage {
    match (old, new) {
        // Shares of one total never add up to more: they shrink first and grow last.
        (Some(Entry::SliceMeter(old)), Entry::SliceMeter(new))
            if new.guaranteed_bps > old.guaranteed_bps =>
        {
            Stage::Removal
        }
        // What is an endpoint's own is part of a share, which has grown by then.
        (Some(Entry::EndpointMeter(old)), Entry::EndpointMeter(new))
            if new.guaranteed_bps > old.guaranteed_bps =>
        {
            Stage::Removal
        }
        (None, Entry::EndpointMeter(new)) if new.guaranteed_bps > 0 => Stage::Removal,
        (
            _,
            Entry::Policy(_)
            | Entry::SliceRoute(_)
            | Entry::Endpoint(_)
            | Entry::GtpSession(_)
            | Entry::Classifier(_),
        ) => Stage::Ingress,
        (_, Entry::Generation(_)) => Stage::Generation,
        _ => Stage::Fabric,
    }
}

fn stage_of_removal(entry: &Entry) -> Stage {
    match entry {
        // No packet in flight meets them again: they go at once, so that an endpoint that comes
        // back to an earlier set of slices finds no route of before.
        Entry::Classifier(_) | Entry::SliceRoute(_) => Stage::Ingress,
        // A promise ends before another takes its place.
        Entry::SliceMeter(_) | Entry::EndpointMeter(_) => Stage::Fabric,
        _ => Stage::Removal,
    }
}

/// Whether packets that came in at another switch may need the entry.
fn serves_others(entry: &Entry) -> bool {
    match entry {
        Entry::Port(_)
        | Entry::LocalSid(_)
        | Entry::NextHop(_)
        | Entry::Backup(_)
        | Entry::Delivery(_)
        | Entry::PortQueue(_)
        | Entry::Generation(_) => true,
        Entry::Endpoint(_)
        | Entry::N3Address(_)
        | Entry::GtpSession(_)
        | Entry::Classifier(_)
        | Entry::SliceRoute(_)
        | Entry::SliceMeter(_)
        | Entry::EndpointMeter(_)
        | Entry::Policy(_) => false,
    }
}

/// Order within one write: what is referred to is there before and after what refers to it.
fn rank(update: &Update) -> i8 {
    let place = |entry: &Entry| match entry {
        Entry::Port(_) => 0,
        Entry::PortQueue(_) | Entry::N3Address(_) => 1,
        Entry::SliceMeter(_) | Entry::EndpointMeter(_) => 2,
        Entry::Backup(_) => 3,
        Entry::NextHop(_) => 4,
        Entry::LocalSid(_) => 5,
        Entry::Delivery(_) => 6,
        Entry::Policy(_) => 7,
        Entry::SliceRoute(_) => 8,
        Entry::Endpoint(_) | Entry::GtpSession(_) => 9,
        Entry::Classifier(_) => 10,
        Entry::Generation(_) => 11,
    };
    match update {
        Update::Insert(entry) | Update::Modify(entry) => place(entry),
        // Endpoints of the same switch that used it have been bound otherwise just before.
        Update::Delete(Entry::SliceRoute(_)) => 12,
        // First, since there is room for few rules.
        Update::Delete(entry) => -place(entry),
    }
}
