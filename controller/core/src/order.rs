//! In which order next hops change, so that no packet goes round on the way.
//!
//! While the ways to one node change at several switches, a packet may meet old and new next
//! hops in any mixture. It can go round only within a strongly connected part of the graph that
//! has both. There a switch changes after those that its new way leads through (the order of
//! RFC 6976 §4, by what is needed rather than by distance): then behind a switch that has
//! changed lies only the new way, and among those that have not, only the old one. Elsewhere
//! all change at once.
//!
//! A switch that cannot be written now, or whose entries nobody knows, keeps an old way. A new
//! way that could come back through it is withheld until that switch has answered: a packet
//! that is lost costs its sender, one that goes round costs everybody.

use std::collections::BTreeMap;

use selvedge_pipeline::{Entry, Key, NodeSid};
use selvedge_topology::NodeName;

use crate::effect::Update;
use crate::plan::{Step, Table};

/// What a switch holds, as far as it is known.
#[derive(Clone, Copy)]
pub(crate) enum Held<'a> {
    /// It can be written.
    Known(&'a Table),
    /// It cannot be written now. This, and of these updates nobody knows how many.
    Fixed(&'a Table, &'a [Update]),
    Unknown,
}

/// Where ports lead.
pub(crate) trait Wiring {
    /// The switch behind the port that a next hop names.
    fn leads_to(&self, switch: &NodeName, hop: &Entry) -> Option<NodeName>;
    /// All switches that links of this one lead to.
    fn neighbors(&self, switch: &NodeName) -> Vec<NodeName>;
}

/// Splits a step of the fabric's stage into rounds, to be carried out one after the other. True
/// beside them: some next hops were withheld.
///
/// `held` has every switch. Cost: for each node whose next hop changes somewhere, the number
/// of switches.
pub(crate) fn in_rounds(
    step: Step,
    held: &BTreeMap<&NodeName, Held<'_>>,
    wiring: &impl Wiring,
) -> (Vec<Step>, bool) {
    let names: Vec<&NodeName> = held.keys().copied().collect();
    let index = |name: &NodeName| names.binary_search(&name).ok();
    let leads_to = |name: &NodeName, entry: &Entry| index(&wiring.leads_to(name, entry)?);
    let mut changes: BTreeMap<NodeSid, Vec<(usize, Option<usize>)>> = BTreeMap::new();
    for (name, updates) in &step.updates {
        for (node, entry) in updates.iter().filter_map(next_hop) {
            let switch = index(name).expect("held has every switch");
            changes.entry(node).or_default().push((switch, leads_to(name, entry)));
        }
    }
    let all_known = held.values().all(|held| matches!(held, Held::Known(_)));
    let mut rounds: BTreeMap<(usize, NodeSid), Round> = BTreeMap::new();
    for (node, changes) in changes {
        // What one switch changes alone is the new way at once.
        if all_known && changes.len() == 1 {
            continue;
        }
        let before = |(name, held): (&&NodeName, &Held<'_>)| match held {
            Held::Known(table) => {
                let way = table.get(&Key::NextHop(node)).and_then(|hop| leads_to(name, hop));
                way.into_iter().collect()
            }
            Held::Fixed(table, tried) => {
                let tried = tried.iter().filter_map(next_hop).filter(|(other, _)| *other == node);
                let hops = table.get(&Key::NextHop(node)).into_iter().chain(tried.map(|(_, e)| e));
                let mut ways: Vec<usize> = hops.filter_map(|hop| leads_to(name, hop)).collect();
                ways.dedup();
                ways
            }
            Held::Unknown => wiring.neighbors(name).iter().filter_map(index).collect(),
        };
        let before = held.iter().map(before).collect();
        for (switch, round) in (Ways { before, after: changes.into_iter().collect() }).rounds() {
            rounds.insert((switch, node), round);
        }
    }
    let mut withheld = false;
    let mut steps: Vec<Step> = Vec::new();
    for (name, updates) in step.updates {
        for update in updates {
            let known = next_hop(&update).and_then(|(node, _)| rounds.get(&(index(&name)?, node)));
            let Some(round) = known.copied().unwrap_or(Some(0)) else {
                withheld = true;
                continue;
            };
            if steps.len() <= round {
                let empty = || Step { stage: step.stage, updates: BTreeMap::new() };
                steps.resize_with(round + 1, empty);
            }
            steps[round].updates.entry(name.clone()).or_default().push(update);
        }
    }
    steps.retain(|step| !step.updates.is_empty());
    (steps, withheld)
}

/// The next hop that the update puts.
fn next_hop(update: &Update) -> Option<(NodeSid, &Entry)> {
    match update {
        Update::Insert(entry) | Update::Modify(entry) => match entry.key() {
            Key::NextHop(node) => Some((node, entry)),
            _ => None,
        },
        Update::Delete(_) => None,
    }
}

/// `None`: withheld.
type Round = Option<usize>;

/// The ways to one node: by switch, the switches that it may send to.
struct Ways {
    before: Vec<Vec<usize>>,
    /// Where the next hops that change will lead.
    after: BTreeMap<usize, Option<usize>>,
}

impl Ways {
    /// The round of each switch that cannot change in the first one.
    fn rounds(&self) -> BTreeMap<usize, Round> {
        let part = self.parts();
        let mut sizes = vec![0usize; part.len()];
        for part in &part {
            sizes[*part] += 1;
        }
        let mut rounds: BTreeMap<usize, Round> = BTreeMap::new();
        for (&start, &next) in self.after.iter().filter(|(start, _)| sizes[part[**start]] > 1) {
            // Down the new way as far as nothing is known, and back up.
            let (mut way, mut at) = (vec![start], next);
            let end = loop {
                let Some(node) = at.filter(|node| part[*node] == part[start]) else {
                    break Some(0);
                };
                if let Some(round) = rounds.get(&node) {
                    break round.map(|round| round + 1);
                }
                at = match (self.after.get(&node), &self.before[node][..]) {
                    (Some(next), _) => {
                        way.push(node);
                        *next
                    }
                    (None, []) => None,
                    (None, [only]) => Some(*only),
                    (None, _) => break None,
                };
                // Round a switch that keeps its old way.
                if way.len() > part.len() || at == Some(start) {
                    break None;
                }
            };
            let mut round = end;
            for switch in way.into_iter().rev() {
                round = rounds.entry(switch).or_insert(round).map(|round| round + 1);
            }
        }
        rounds
    }

    /// Numbers the strongly connected parts of the graph of old and new next hops: Tarjan's
    /// algorithm, on a stack of its own since a network may be a long chain.
    fn parts(&self) -> Vec<usize> {
        const NEW: usize = usize::MAX;
        let count = self.before.len();
        let (mut order, mut low, mut part) = (vec![NEW; count], vec![NEW; count], vec![NEW; count]);
        let (mut open, mut calls, mut clock, mut parts) = (Vec::new(), Vec::new(), 0, 0);
        for root in 0..count {
            if order[root] == NEW {
                calls.push((root, 0));
            }
            while let Some((node, edge)) = calls.pop() {
                if edge == 0 {
                    (order[node], low[node]) = (clock, clock);
                    clock += 1;
                    open.push(node);
                }
                let mut after = self.after.get(&node).copied().flatten().into_iter();
                let before = &self.before[node];
                let next = before.get(edge).copied().or_else(|| {
                    let first = edge == before.len();
                    first.then(|| after.next()).flatten()
                });
                match next {
                    Some(next) if order[next] == NEW => {
                        calls.extend([(node, edge + 1), (next, 0)]);
                    }
                    Some(next) => {
                        if part[next] == NEW {
                            low[node] = low[node].min(order[next]);
                        }
                        calls.push((node, edge + 1));
                    }
                    None => {
                        if low[node] == order[node] {
                            while let Some(member) = open.pop() {
                                part[member] = parts;
                                if member == node {
                                    break;
                                }
                            }
                            parts += 1;
                        }
                        if let Some((caller, _)) = calls.last() {
                            low[*caller] = low[*caller].min(low[node]);
                        }
                    }
                }
            }
        }
        part
    }
}
