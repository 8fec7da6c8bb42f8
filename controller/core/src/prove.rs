//! Is it safe to write this? An independent walk over the entries themselves.
//!
//! Nothing here is shared with what computes the entries: the walk follows the pipeline's
//! order over tables of plain entries, and is told only the truth that it checks against
//! ([`World`]): which links are usable, where endpoints are, what the slices promise. A plan is
//! refused with a [`CounterExample`] if its result has a defect, or if a step brings about a
//! defect that was not there before.
//!
//! What cannot be helped by refusing is not held against a plan: traffic between parts of the
//! network that are not connected, and packets that meet a switch whose entries are not known
//! or that cannot be written at present.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use selvedge_topology::NodeName;

use crate::plan::{Stage, Step, Table, apply};

mod check;
#[cfg(test)]
mod tests;
mod walk;
mod world;

pub(crate) use check::check;
pub(crate) use world::{Endpoint, HookAt, Rule, Slice, Wire, World};

/// A packet, or a sum, that shows what is wrong with a plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CounterExample {
    pub defect: Defect,
    /// After which step of the plan, from 1; the last is its result.
    pub step: usize,
    /// The packet or the entry, for people: `10.1.0.11 -> 10.1.0.21 in slice factory-control`.
    pub subject: String,
    /// Switches walked, in order.
    pub nodes: Vec<NodeName>,
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Defect {
    Loop,
    BlackHole,
    /// An endpoint can be reached from outside its slices, or its packets are delivered to
    /// another.
    Leak,
    /// Not through its hooks in order.
    HookMissed,
    /// A link's guarantees are over its capacity times the margin.
    Overload,
    /// A slice's meters do not carry out what it promises.
    Promise,
    /// A classifier entry that no active rule asks for, or the other way round.
    Rule,
    /// A source bound where it is not attached.
    Spoof,
}

impl fmt::Display for CounterExample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.defect {
            Defect::Loop => "loop",
            Defect::BlackHole => "black hole",
            Defect::Leak => "leak between slices",
            Defect::HookMissed => "hook missed",
            Defect::Overload => "link overloaded",
            Defect::Promise => "promise not carried out",
            Defect::Rule => "traffic rule not carried out",
            Defect::Spoof => "source bound at the wrong port",
        };
        write!(f, "{what} after step {}: {}", self.step, self.subject)?;
        for (index, node) in self.nodes.iter().enumerate() {
            f.write_str(if index == 0 { " at " } else { " -> " })?;
            write!(f, "{node}")?;
        }
        write!(f, ": {}", self.detail)
    }
}

/// How much a plan must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rigor {
    /// No state may have a defect that was not there before. For changes of intent, which
    /// nobody is forced to make.
    NothingNew,
    /// Besides, the result has no defect at all; in exchange a state on the way may have
    /// those that pass. For changes that the network forces, where the state before is worse.
    Result,
    /// The same, but what was wrong before may be left: not everything can be written.
    Part,
}

impl Defect {
    /// Whether it does no more harm than a little loss while the plan is under way.
    fn passes(self) -> bool {
        match self {
            Self::BlackHole | Self::Overload | Self::Promise => true,
            Self::Loop | Self::Leak | Self::HookMissed | Self::Rule | Self::Spoof => false,
        }
    }
}

/// Checks the result of a plan and each state on the way there, starting from what switches
/// hold. Switches that are not in `held` are not known.
///
/// Cost: per state, pairs of endpoints times a few look-ups, plus one walk for each different
/// policy.
pub(crate) fn prove(
    world: &World,
    held: &BTreeMap<NodeName, Arc<Table>>,
    steps: &[Step],
    rigor: Rigor,
) -> Result<(), CounterExample> {
    let mut state = held.clone();
    let mut before: Option<Vec<CounterExample>> = None;
    let result = steps.iter().rposition(|step| step.stage != Stage::Generation);
    for (index, step) in steps.iter().enumerate() {
        if step.stage == Stage::Generation {
            continue; // no packet meets it
        }
        for (name, updates) in &step.updates {
            apply(Arc::make_mut(state.entry(name.clone()).or_default()), updates);
        }
        for mut defect in check(world, &state) {
            let is_result = Some(index) == result;
            if rigor != Rigor::NothingNew && !is_result && defect.defect.passes() {
                continue;
            }
            let must_be_gone = rigor == Rigor::Result && is_result;
            let before = before.get_or_insert_with(|| check(&unstuck(world), held));
            // Traffic that was lost before may show the rest of what was wrong with it once the
            // way is mended, and before its ingress is.
            let same = |old: &CounterExample| {
                old.subject == defect.subject
                    && (old.defect == defect.defect || defect.defect != Defect::Loop)
            };
            if must_be_gone || !before.iter().any(same) {
                defect.step = index + 1;
                return Err(defect);
            }
        }
    }
    Ok(())
}

/// The same world, where nothing is overlooked because it cannot be helped.
fn unstuck(world: &World) -> World {
    World { stuck: std::collections::BTreeSet::new(), ..world.clone() }
}

/// The steps as if they were one: for a check of the result alone.
pub(crate) fn at_one_go(steps: &[Step]) -> Vec<Step> {
    let mut updates: BTreeMap<NodeName, Vec<crate::effect::Update>> = BTreeMap::new();
    for step in steps.iter().filter(|step| step.stage != Stage::Generation) {
        for (name, more) in &step.updates {
            updates.entry(name.clone()).or_default().extend(more.iter().cloned());
        }
    }
    vec![Step { stage: Stage::Removal, updates }]
}
