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

use std::collections::{BTreeMap, HashMap};

use selvedge_pipeline::{Entry, Key, NextHopEntry, NodeSid, PortId};
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
    /// Ports of a switch that may lead to another one, and to which. More than one stands there
    /// for a port where that is not known.
    fn ways_out(&self, switch: &NodeName) -> Vec<(PortId, NodeName)>;
    /// All switches that links of this one are declared to lead to.
    fn neighbors(&self, switch: &NodeName) -> Vec<NodeName>;
}

/// Splits a step of the fabric's stage into rounds, to be carried out one after the other. True
/// beside them: some next hops were withheld.
///
/// `held` has every switch; `own` tells the node that a switch is. Cost: for each node whose next hop changes somewhere, the switches
/// where it does and those on the ways from there.
pub(crate) fn in_rounds(
    step: Step,
    held: &BTreeMap<&NodeName, Held<'_>>,
    wiring: &impl Wiring,
    own: impl Fn(&NodeName) -> Option<NodeSid>,
) -> (Vec<Step>, bool) {
    if !step.updates.values().flatten().any(|update| next_hop(update).is_some()) {
        return (vec![step], false);
    }
    let fabric = Fabric::new(held, wiring, own);
    let mut changes: BTreeMap<NodeSid, BTreeMap<usize, Option<usize>>> = BTreeMap::new();
    for (name, updates) in &step.updates {
        let switch = fabric.index(name).expect("held has every switch");
        for hop in updates.iter().filter_map(next_hop) {
            changes
                .entry(hop.node)
                .or_default()
                .insert(switch, fabric.leads_to(switch, hop).next());
        }
    }
    let all_known = held.values().all(|held| matches!(held, Held::Known(_)));
    let mut rounds: BTreeMap<(usize, NodeSid), Round> = BTreeMap::new();
    for (node, changes) in changes {
        // What one switch changes alone is the new way at once.
        if all_known && changes.len() == 1 {
            continue;
        }
        let (switches, ways) = fabric.ways(node, &changes);
        // Without an old way there is nothing to mix with.
        if ways.before.iter().all(Vec::is_empty) {
            continue;
        }
        for (switch, round) in ways.rounds() {
            rounds.insert((switches[switch], node), round);
        }
    }
    if rounds.is_empty() {
        return (vec![step], false);
    }
    let mut withheld = false;
    let mut steps: Vec<Step> = Vec::new();
    for (name, updates) in step.updates {
        let switch = fabric.index(&name).expect("held has every switch");
        for update in updates {
            let known = next_hop(&update).and_then(|hop| rounds.get(&(switch, hop.node)));
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

/// What switches hold and where it leads; switches by index, in the order of names.
struct Fabric<'a> {
    names: Vec<&'a NodeName>,
    own: Vec<Option<NodeSid>>,
    held: Vec<Held<'a>>,
    out: Vec<Vec<(PortId, usize)>>,
    neighbors: BTreeMap<usize, Vec<usize>>,
}

impl<'a> Fabric<'a> {
    fn new(
        held: &BTreeMap<&'a NodeName, Held<'a>>,
        wiring: &impl Wiring,
        own: impl Fn(&NodeName) -> Option<NodeSid>,
    ) -> Self {
        let names: Vec<&NodeName> = held.keys().copied().collect();
        let mut fabric = Self {
            own: names.iter().map(|name| own(name)).collect(),
            out: Vec::with_capacity(names.len()),
            held: held.values().copied().collect(),
            neighbors: BTreeMap::new(),
            names,
        };
        for (switch, name) in fabric.names.iter().enumerate() {
            let out = wiring.ways_out(name).into_iter();
            fabric
                .out
                .push(out.filter_map(|(port, to)| Some((port, fabric.index(&to)?))).collect());
            if matches!(fabric.held[switch], Held::Unknown) {
                let all = wiring.neighbors(name);
                let all = all.iter().filter_map(|name| fabric.index(name)).collect();
                fabric.neighbors.insert(switch, all);
            }
        }
        fabric
    }

    fn index(&self, name: &NodeName) -> Option<usize> {
        self.names.binary_search(&name).ok()
    }

    fn leads_to(&self, switch: usize, hop: &NextHopEntry) -> impl Iterator<Item = usize> {
        let port = hop.port;
        self.out[switch].iter().filter(move |(out, _)| *out == port).map(|(_, to)| *to)
    }

    /// The switches that one may send to on the way to a node, by what it holds.
    fn before(&self, switch: usize, node: NodeSid) -> Vec<usize> {
        let of = |table: &Table| match table.get(&Key::NextHop(node)) {
            Some(Entry::NextHop(hop)) => self.leads_to(switch, hop).collect(),
            _ => Vec::new(),
        };
        match self.held[switch] {
            // A packet that has come to where it goes is not sent on.
            _ if self.own[switch] == Some(node) => Vec::new(),
            Held::Known(table) => of(table),
            Held::Fixed(table, tried) => {
                let tried = tried.iter().filter_map(next_hop).filter(|hop| hop.node == node);
                let tried = tried.flat_map(|hop| self.leads_to(switch, hop));
                let mut ways: Vec<usize> = of(table).into_iter().chain(tried).collect();
                ways.dedup();
                ways
            }
            Held::Unknown => self.neighbors[&switch].clone(),
        }
    }

    /// The ways from where next hops towards a node change: switches, and among those by their
    /// place in that list, the ways.
    fn ways(&self, node: NodeSid, changes: &BTreeMap<usize, Option<usize>>) -> (Vec<usize>, Ways) {
        let mut switches: Vec<usize> = changes.keys().copied().collect();
        let mut place: HashMap<usize, usize> =
            switches.iter().enumerate().map(|(place, switch)| (*switch, place)).collect();
        let mut ways = Ways { before: Vec::new(), after: BTreeMap::new() };
        let mut at = 0;
        while let Some(&switch) = switches.get(at) {
            let mut placed = |to: usize| {
                *place.entry(to).or_insert_with(|| {
                    switches.push(to);
                    switches.len() - 1
                })
            };
            let before = self.before(switch, node).into_iter().map(&mut placed).collect();
            ways.before.push(before);
            if let Some(to) = changes.get(&switch) {
                ways.after.insert(at, to.map(&mut placed));
            }
            at += 1;
        }
        (switches, ways)
    }
}

/// The next hop that the update puts.
fn next_hop(update: &Update) -> Option<&NextHopEntry> {
    match update {
        Update::Insert(Entry::NextHop(hop)) | Update::Modify(Entry::NextHop(hop)) => Some(hop),
        _ => None,
    }
}

/// `None`: withheld.
type Round = Option<usize>;

/// The ways to one node: by switch (its place in a list), the switches that it may send to.
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
        // Parts are numbered from where ways end.
        let mut changes: Vec<(usize, Option<usize>)> =
            self.after.iter().map(|(switch, next)| (*switch, *next)).collect();
        changes.sort_by_key(|(switch, _)| part[*switch]);
        let mut rounds: BTreeMap<usize, Round> = BTreeMap::new();
        for (start, next) in changes {
            if sizes[part[start]] == 1 {
                if self.waits(&rounds, next) {
                    rounds.insert(start, None);
                }
                continue;
            }
            // Down the new way as far as nothing is known, and back up.
            let (mut way, mut at) = (vec![start], next);
            let end = loop {
                let Some(node) = at.filter(|node| part[*node] == part[start]) else {
                    break (!self.waits(&rounds, at)).then_some(0);
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

    /// Whether the way from a switch leads through one whose own new way is withheld: what came
    /// there would be lost, while the old way may still lead on.
    fn waits(&self, rounds: &BTreeMap<usize, Round>, mut at: Option<usize>) -> bool {
        for _ in 0..self.before.len() {
            let Some(node) = at else { return false };
            if rounds.get(&node) == Some(&None) {
                return true;
            }
            at = match (self.after.get(&node), &self.before[node][..]) {
                (Some(next), _) => *next,
                (None, [only]) => Some(*only),
                (None, _) => None,
            };
        }
        false
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
