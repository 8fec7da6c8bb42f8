//! A state of the network with what is wrong in it, kept up to date change by change.
//!
//! What packets do falls into classes, and a change is judged by the classes that it concerns:
//!
//! | class | concerned by |
//! |---|---|
//! | packets towards one node id ([`Class`]) | its next hops, local ids, ports, links |
//! | one policy of one ingress: ids in turn | the policy; the classes of its ids, where their end changed; functions of switches it goes to |
//! | endpoints of one switch that are bound and belong alike (a group), towards one endpoint | its route; the route's policy; deliveries to the endpoint |
//! | what a slice guarantees in one direction from one ingress | its meter, its routes, the ways of its policies |
//! | the failures that the same is protected against, and what they add to arcs | the same; its backups and their links |
//!
//! A [`Topic`] is one such question; the view holds those whose answer is a defect. Cheap to
//! clone: everything is shared until it changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use selvedge_pipeline::{Direction, Entry, Key, PolicyId, PortId, SliceId, SliceSet};
use selvedge_topology::NodeName;
use selvedge_topology::sorted::Sorted;

use self::concern::Dirty;
use super::class::Class;
use super::node::Node;
use super::survive::Moved;
use super::world::{Member, World};
use super::{CounterExample, Defect, Tables};
use crate::table::Table;

mod concern;
mod sent;
mod settle;

pub(crate) use sent::{End, Sent, Why, function_name};

/// Node ids are below.
const FIRST_FUNCTION: u16 = 0xE000;

/// One thing that may be wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Topic {
    /// A bound source is attached there.
    Binding(usize, PortId, IpNet),
    Delivery(usize, SliceId, IpNet),
    /// A PDU session, by its TEID, is of a UE whose gNB is attached there.
    Session(usize, u32),
    /// An endpoint is bound where it is attached.
    Source(u32),
    /// A group of a switch towards an endpoint.
    Pair(usize, SliceSet, Arc<Member>, u32),
    Meter(SliceId, Direction),
    /// What guarantees put on an arc.
    Load(usize, PortId),
    /// Packets of a protected slice in one direction from one ingress have where to go after any
    /// failure of what they cross.
    Backup(usize, SliceId, Direction),
    /// The same with what any one failure adds.
    Spare(usize, PortId),
    /// A classifier entry, by its priority.
    Asked(usize, u32),
    /// A traffic rule, by its place in the world's list, where an endpoint that it concerns is.
    Rule(usize, u32),
}

/// For people. Filled in when somebody asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Text {
    pub(crate) subject: String,
    pub(crate) nodes: Vec<usize>,
    pub(crate) detail: String,
}

type Pairs = BTreeMap<(Arc<Member>, u32), Defect>;

/// A usable link of a node: its port, the far MAC address, the far node, or
/// [`LOST`](super::class::LOST) or [`UNKNOWN`](super::class::UNKNOWN).
type Out = (PortId, [u8; 6], u16);

#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) world: Arc<World>,
    pub(crate) nodes: Vec<Arc<Node>>,
    /// By node id.
    pub(crate) classes: Vec<Arc<Class>>,
    /// Policies with that id among theirs, by node id; and whether it is their first.
    users: Vec<Arc<Vec<(u32, PolicyId, bool)>>>,
    /// Usable links of each node.
    outs: Arc<Vec<Vec<Out>>>,
    pub(crate) part: Arc<Vec<usize>>,
    /// Guarantees on each arc, bits per second of packets.
    pub(crate) load: Arc<BTreeMap<(usize, PortId), u64>>,
    /// What each failure adds there, of those that somebody is protected against.
    pub(crate) spare: Spare,
    pairs: Arc<BTreeMap<(usize, SliceSet), Pairs>>,
    others: Arc<BTreeMap<Topic, Defect>>,
}

/// Bits per second of packets by arc, then by what moves; no entry is 0.
type Spare = Sorted<(usize, PortId), Arc<BTreeMap<Moved, u64>>>;

/// A change of one entry of a node; `None`: removed.
pub(crate) type Changes = Vec<(Key, Option<Entry>)>;

impl View {
    /// Of nothing known in `world`'s network.
    fn of(world: &Arc<World>) -> Self {
        let n = world.nodes.len();
        let mut view = Self {
            world: world.clone(),
            nodes: vec![Arc::default(); n],
            part: Arc::new(world.parts()),
            ..Self::default()
        };
        view.outs = Arc::new(view.all_outs());
        view
    }

    /// Switches whose entries are known.
    pub(crate) fn known(&self) -> usize {
        self.nodes.iter().filter(|node| node.known()).count()
    }

    /// Brings the view to another world and other tables, judging what is concerned. Answers
    /// whether anything is another.
    ///
    /// Cost: for each switch whose table is another object what differs in it; for the world its
    /// endpoints and slices, if those are other objects.
    pub(crate) fn advance(&mut self, world: &Arc<World>, tables: &Tables) -> bool {
        let mut dirty = Dirty::default();
        let mut other = false;
        let same = Arc::ptr_eq(&self.world.nodes, &world.nodes)
            && Arc::ptr_eq(&self.world.hosts, &world.hosts);
        if !same {
            *self = Self::of(world);
            dirty.everything = true;
            other = true;
        } else if self.world != *world {
            let before = std::mem::replace(&mut self.world, world.clone());
            self.world_changed(&before, &mut dirty);
            other = true;
        }
        // What an unknown switch is supposed to hold.
        let empty = Table::new();
        for node in 0..self.nodes.len() {
            let table = tables.get(world.name(node));
            let known = &self.nodes[node].table;
            let same = match (known, table) {
                (Some(known), Some(table)) => Arc::ptr_eq(known, table),
                (None, None) => true,
                _ => false,
            };
            if same {
                continue;
            }
            let changes = self.nodes[node].towards(table.map_or(&empty, Arc::as_ref));
            other |= !changes.is_empty() || known.is_some() != table.is_some();
            if known.is_some() != table.is_some() {
                self.known_changed(node, &mut dirty);
            }
            self.change(node, changes, &mut dirty);
            // The same entries, but shared.
            Arc::make_mut(&mut self.nodes[node]).table = table.cloned();
        }
        self.settle(dirty);
        other
    }

    /// Takes a switch's table for its own, if that has the same entries.
    pub(crate) fn share(&mut self, switch: &NodeName, table: &Arc<Table>) {
        let Ok(node) = self.world.nodes.binary_search(switch) else { return };
        if self.nodes[node].table.as_ref() == Some(table) {
            Arc::make_mut(&mut self.nodes[node]).table = Some(table.clone());
        }
    }

    /// Carries out one step of a plan; answers what is wrong now among what was concerned.
    pub(crate) fn step(&mut self, steps: impl Iterator<Item = (usize, Changes)>) -> Vec<Topic> {
        let mut dirty = Dirty::default();
        for (node, changes) in steps {
            if !self.nodes[node].known() {
                Arc::make_mut(&mut self.nodes[node]).table = Some(Arc::default());
                self.known_changed(node, &mut dirty);
            }
            self.change(node, changes, &mut dirty);
        }
        self.settle(dirty)
    }

    /// Everything that is wrong, in a fixed order.
    pub(crate) fn wrong(&self) -> impl Iterator<Item = (Topic, Defect)> + '_ {
        let pairs = self.pairs.iter().flat_map(|((node, set), pairs)| {
            let topic = |((member, to), defect): (&(Arc<Member>, u32), &Defect)| {
                (Topic::Pair(*node, *set, member.clone(), *to), *defect)
            };
            pairs.iter().map(topic)
        });
        let others = self.others.iter().map(|(topic, defect)| (topic.clone(), *defect));
        others.chain(pairs)
    }

    /// What is wrong among topics of a range that are not pairs.
    pub(super) fn wrong_between(&self, first: &Topic, last: &Topic) -> Vec<Topic> {
        self.others.range(first..=last).map(|(topic, _)| topic.clone()).collect()
    }

    pub(crate) fn defect(&self, topic: &Topic) -> Option<Defect> {
        match topic {
            Topic::Pair(node, set, member, to) => {
                self.pairs.get(&(*node, *set))?.get(&(member.clone(), *to)).copied()
            }
            other => self.others.get(other).copied(),
        }
    }

    /// What is wrong there, for people.
    pub(crate) fn explain(&self, topic: &Topic) -> Option<(CounterExample, Vec<usize>)> {
        let mut text = Text::default();
        let defect = self.judge(topic, Some(&mut text))?;
        let nodes = text.nodes.iter().map(|node| self.world.name(*node).clone()).collect();
        let Text { subject, detail, .. } = text;
        Some((CounterExample { defect, step: 0, subject, nodes, detail }, text.nodes))
    }

    fn judge(&self, topic: &Topic, text: Option<&mut Text>) -> Option<Defect> {
        match topic {
            Topic::Binding(node, port, net) => self.binding(*node, *port, *net, text),
            Topic::Delivery(node, slice, net) => self.delivery(*node, *slice, *net, text),
            Topic::Session(node, teid) => self.session(*node, *teid, text),
            Topic::Source(host) => self.source(*host, text),
            Topic::Pair(node, set, member, to) => {
                let froms = self.nodes[*node].groups().get(*set, member)?;
                self.pair((*node, *set), member, froms, *to, text)
            }
            Topic::Meter(slice, direction) => self.meters(*slice, *direction, text),
            Topic::Load(node, port) => self.overload(*node, *port, text),
            Topic::Backup(node, slice, direction) => self.backup(*node, *slice, *direction, text),
            Topic::Spare(node, port) => self.short(*node, *port, text),
            Topic::Asked(node, priority) => self.asked(*node, *priority, text),
            Topic::Rule(rule, host) => self.rule(*rule, *host, text),
        }
    }
}
