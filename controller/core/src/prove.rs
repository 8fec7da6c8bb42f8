//! Is it safe to write this? An independent walk over the entries themselves.
//!
//! Nothing here is shared with what computes the entries: packets are followed in the
//! pipeline's order over tables of plain entries, and what they do is held against the truth
//! alone ([`World`]): which links are usable, where endpoints are, what the slices promise. A
//! plan is refused with a [`CounterExample`] if its result has a defect, or if a step brings
//! about a defect that was not there before.
//!
//! The proof is incremental: a [`View`] knows what is wrong in one state, and finds out for the
//! next by looking at the classes of packets that the change concerns.
//!
//! A switch leads packets around a failure next to it by itself (`around.rs`), over what happens
//! to be there; then a new plan, proven in its turn, sends them where room is kept for them. So
//! what is proven beforehand, for each single failure that a slice is protected against, is that
//! this place exists and is enough (`survive.rs`): from the way that packets take by the entries,
//! the backup that admission promises, and sums by link and failure.
//!
//! What cannot be helped by refusing is not held against a plan: traffic between parts of the
//! network that are not connected, and packets that meet a switch whose entries are not known
//! or that cannot be written at present.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use selvedge_pipeline::{Direction, Entry, Key};
use selvedge_topology::NodeName;

use crate::effect::Update;
use crate::plan::{Stage, Step, Table};

mod around;
mod class;
mod groups;
mod node;
mod packets;
mod sums;
mod survive;
#[cfg(test)]
mod tests;
mod view;
mod world;

pub(crate) use view::View;
use view::{Changes, Topic};
pub(crate) use world::{
    Backup, Endpoint, HookAt, Hosts, Level, Member, Protected, Rule, Slice, Wire, Wires, World,
};

const DIRECTIONS: [Direction; 2] = [Direction::Downlink, Direction::Uplink];

fn index(direction: Direction) -> usize {
    match direction {
        Direction::Downlink => 0,
        Direction::Uplink => 1,
    }
}

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
    /// A failure that a slice is protected against would leave it without a way, or a link without
    /// room.
    Unprotected,
    /// A slice's meters do not carry out what it promises.
    Promise,
    /// A classifier entry that no active rule asks for, or the other way round.
    Rule,
    /// A source bound where it is not attached.
    Spoof,
    /// A switch would lead packets around a failure, and not back to where they would have been.
    Detour,
}

impl fmt::Display for CounterExample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.defect {
            Defect::Loop => "loop",
            Defect::BlackHole => "black hole",
            Defect::Leak => "leak between slices",
            Defect::HookMissed => "hook missed",
            Defect::Overload => "link overloaded",
            Defect::Unprotected => "not protected against a failure",
            Defect::Promise => "promise not carried out",
            Defect::Rule => "traffic rule not carried out",
            Defect::Spoof => "source bound at the wrong port",
            Defect::Detour => "way around a failure leads astray",
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
pub(crate) struct Rigor {
    pub(crate) cause: Cause,
    /// Its result is what is wanted: no next hop is withheld, no switch is left out. Otherwise
    /// what was wrong before may be left, and what a failure would do is not told of the result.
    pub(crate) whole: bool,
}

/// Who makes a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A client, whom nobody forces: no state may have a defect that was not there before.
    Intent,
    /// The network, and the state before is worse: the result of a whole plan has no defect at
    /// all; in exchange a state on the way may have those that pass.
    Network,
}

impl Defect {
    /// Whether it does no more harm than a little loss while the plan is under way.
    fn passes(self) -> bool {
        match self {
            Self::BlackHole | Self::Overload | Self::Unprotected | Self::Promise | Self::Detour => {
                true
            }
            Self::Loop | Self::Leak | Self::HookMissed | Self::Rule | Self::Spoof => false,
        }
    }
}

/// What is wrong in some states, as last looked at: so that the next look is at what changed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proofs {
    /// What switches hold.
    held: View,
    /// What they should.
    wanted: View,
    /// Steps from what they hold that were proven for a change, and the result: mostly the plan
    /// that carries it out has the same.
    next: Option<(Vec<Step>, View)>,
}

pub(crate) type Tables = BTreeMap<NodeName, Arc<Table>>;

impl Proofs {
    /// Proves what somebody asks for: the tables as they should be then, and the steps there from
    /// what switches hold, or as far as they can go now.
    pub(crate) fn change(
        &mut self,
        world: &Arc<World>,
        (held, wanted): (&Tables, &Tables),
        (steps, whole): (&[Step], bool),
    ) -> Result<(), CounterExample> {
        self.held.advance(world, held);
        // Most of what switches should hold they do, once the network is up.
        if self.wanted.known() < self.held.known() {
            self.wanted = self.held.clone();
        }
        self.wanted.advance(world, wanted);
        if let Some(wrong) = first_wrong(&self.wanted) {
            return Err(wrong);
        }
        self.next = match steps {
            [] => None,
            steps => {
                let rigor = Rigor { cause: Cause::Intent, whole };
                Some((steps.to_vec(), prove(&self.held, steps, rigor)?))
            }
        };
        Ok(())
    }

    /// Proves what the network forces, or a change that was proven: the way from what switches
    /// hold. Answers the view of the result.
    pub(crate) fn plan(
        &mut self,
        world: &Arc<World>,
        held: &Tables,
        steps: &[Step],
        rigor: Rigor,
    ) -> Result<View, CounterExample> {
        let other = self.held.advance(world, held);
        match self.next.take() {
            Some((same, result)) if !other && same == steps && result.wrong().next().is_none() => {
                Ok(result)
            }
            _ => prove(&self.held, steps, rigor),
        }
    }

    /// Most likely the next state to start from.
    pub(crate) fn will_hold(&mut self, result: View) {
        self.held = result;
    }

    /// What a switch holds is this object now. If the entries are those that were last looked
    /// at, they are not looked at again.
    pub(crate) fn share(&mut self, switch: &NodeName, table: &Arc<Table>) {
        self.held.share(switch, table);
    }
}

/// Checks the result of a plan and each state on the way there, starting from what switches
/// hold (`view`). Answers the view of the result.
///
/// Cost: a few microseconds for each update, and some tens for each switch in a step.
fn prove(view: &View, steps: &[Step], rigor: Rigor) -> Result<View, CounterExample> {
    let before = view;
    let mut view = view.clone();
    let result = steps.iter().rposition(|step| step.stage != Stage::Generation);
    let world = view.world.clone();
    let forced = rigor.cause == Cause::Network;
    let (moves, some_unknown) = (moves_fabric(steps), view.known() < world.nodes.len());
    for (index, step) in steps.iter().enumerate() {
        if step.stage == Stage::Generation {
            view.step(changes(&world, step)); // no packet meets it
            continue;
        }
        let concerned = view.step(changes(&world, step));
        let is_result = Some(index) == result;
        let must_be_gone = forced && rigor.whole && is_result;
        let wrong: Vec<Topic> = match must_be_gone {
            true => view.wrong().map(|(topic, _)| topic).collect(),
            false => concerned,
        };
        for topic in wrong {
            let Some(defect) = view.defect(&topic) else { continue };
            if forced && !is_result && defect.passes() {
                continue;
            }
            let in_part = !rigor.whole || (moves && (!is_result || some_unknown));
            if defect == Defect::Unprotected && in_part {
                continue;
            }
            if !must_be_gone && was_wrong(before, &view, &topic, defect) {
                continue;
            }
            let Some((mut counter, nodes)) = view.explain(&topic) else { continue };
            // What switches that cannot be written do wrong cannot be helped.
            if nodes.iter().any(|node| world.stuck.contains(node)) {
                continue;
            }
            counter.step = index + 1;
            return Err(counter);
        }
    }
    // Of switches that cannot be written, or are not known, nobody can say where they lead.
    if rigor.whole
        && !some_unknown
        && world.stuck.is_empty()
        && changes_repairs(steps)
        && let Some(mut counter) = around::astray(&view)
    {
        counter.step = result.map_or(0, |result| result + 1);
        return Err(counter);
    }
    Ok(view)
}

fn changes_repairs(steps: &[Step]) -> bool {
    let updates = steps.iter().flat_map(|step| step.updates.values()).flatten();
    updates.into_iter().any(|update| match update {
        Update::Insert(entry) | Update::Modify(entry) | Update::Delete(entry) => {
            matches!(entry, Entry::NextHop(_) | Entry::Backup(_))
        }
    })
}

/// Whether next hops become others. Until all of them have, packets are neither on the way that
/// they leave nor on the one that their backup is for: then what a failure would do is told of the
/// result, if all of it can be written.
fn moves_fabric(steps: &[Step]) -> bool {
    let updates = steps.iter().flat_map(|step| step.updates.values()).flatten();
    updates.into_iter().any(|update| match update {
        Update::Insert(entry) | Update::Modify(entry) | Update::Delete(entry) => {
            matches!(entry, Entry::NextHop(_))
        }
    })
}

/// Whether something was wrong there before the plan, so that the plan is not to blame.
///
/// Traffic that was lost before may show the rest of what was wrong with it once the way is
/// mended, and before its ingress is.
fn was_wrong(before: &View, now: &View, topic: &Topic, defect: Defect) -> bool {
    let excuses = |old: Defect| old == defect || defect != Defect::Loop;
    // Nobody loses what nobody could reach rightly.
    if let Topic::Source(host) = topic
        && let Some(endpoint) = now.world.endpoint(*host)
    {
        let mut others = now.world.reached(&endpoint.member).filter(|to| to != host);
        return others.all(|to| before.was_wrong(*host, to).is_some_and(excuses));
    }
    let Topic::Pair(node, set, member, to) = topic else {
        return before.defect(topic).is_some_and(excuses);
    };
    let group = now.nodes[*node].groups().get(*set, member).unwrap_or_default();
    let mut froms = group.iter().filter(|from| *from != to);
    froms.all(|from| before.was_wrong(*from, *to).is_some_and(excuses))
}

fn changes<'a>(world: &'a World, step: &'a Step) -> impl Iterator<Item = (usize, Changes)> + 'a {
    let change = |update: &Update| -> (Key, Option<selvedge_pipeline::Entry>) {
        match update {
            Update::Insert(entry) | Update::Modify(entry) => (entry.key(), Some(entry.clone())),
            Update::Delete(entry) => (entry.key(), None),
        }
    };
    step.updates.iter().filter_map(move |(name, updates)| {
        Some((world.nodes.binary_search(name).ok()?, updates.iter().map(change).collect()))
    })
}

/// Everything that is wrong, whoever could help it; in a fixed order.
fn first_wrong(view: &View) -> Option<CounterExample> {
    let (topic, _) = view.wrong().next()?;
    view.explain(&topic).map(|(counter, _)| counter)
}

/// The steps as if they were one: for a check of the result alone.
pub(crate) fn at_one_go(steps: &[Step]) -> Vec<Step> {
    let mut updates: BTreeMap<NodeName, Vec<Update>> = BTreeMap::new();
    for step in steps.iter().filter(|step| step.stage != Stage::Generation) {
        for (name, more) in &step.updates {
            updates.entry(name.clone()).or_default().extend(more.iter().cloned());
        }
    }
    vec![Step { stage: Stage::Removal, updates }]
}
