//! Why an instance has no node: what each node lacks and by how much, and what would be taken
//! instead.

use std::fmt;

use selvedge_topology::{BitRate, Bytes, Cpu, Delay, NodeName};

use super::{Blocked, Lacks, Placement, Reach, Request};
use crate::{Direction, ObjectName, Refusal};

/// Nodes that a text names; the rest is counted.
const NAMED: usize = 4;
/// How often what the network says it would take is tried: another delay can lead another way,
/// whose bound is another.
const TRIES: usize = 3;

/// What keeps an instance from a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    #[error("it was seen on another node")]
    Elsewhere,
    #[error("its architecture is {}", or_unknown(.0))]
    Architecture(Option<String>),
    #[error("its site is {}", or_unknown(.0))]
    Site(Option<String>),
    /// Metres outside the area.
    #[error("{}", outside(.0))]
    Area(Option<u64>),
    #[error("{wanted} {kind} wanted, {left} of {all} left, {} missing", wanted - left)]
    Accelerator { kind: String, wanted: u64, left: u64, all: u64 },
    #[error("an instance of the anti-affinity group {0} is there")]
    AntiAffinity(String),
    #[error(
        "{} cpu wanted, {} of {} left, {} missing",
        Cpu(*wanted), Cpu(*left), Cpu(*all), Cpu(wanted - left)
    )]
    Cpu { wanted: u64, left: u64, all: u64 },
    #[error("{wanted} of memory wanted, {left} of {all} left, {} missing", Bytes(wanted.0 - left.0))]
    Memory { wanted: Bytes, left: Bytes, all: Bytes },
    #[error("the network refuses slice {}: {}", .0.slice, .0.refusal)]
    Network(Blocked),
}

fn or_unknown(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or("not stated")
}

fn outside(metres: &Option<u64>) -> String {
    match metres {
        Some(metres) => format!("it is {metres} m outside the area"),
        None => "its position is not stated".to_owned(),
    }
}

impl Lack {
    /// How close, with what can be had by asking for less first; then in thousandths of what is
    /// wanted.
    fn distance(&self) -> (u8, u64) {
        let missing = |wanted: u64, left: u64| (wanted - left).saturating_mul(1000) / wanted.max(1);
        match self {
            Self::Network(_) => (0, 0),
            Self::Cpu { wanted, left, .. } => (1, missing(*wanted, *left)),
            Self::Memory { wanted, left, .. } => (1, missing(wanted.0, left.0)),
            Self::Accelerator { wanted, left, .. } => (2, missing(*wanted, *left)),
            Self::AntiAffinity(_) => (3, 0),
            Self::Area(metres) => (4, metres.unwrap_or(u64::MAX)),
            Self::Site(_) => (5, 0),
            Self::Architecture(_) => (6, 0),
            Self::Elsewhere => (7, 0),
        }
    }
}

/// What would be taken instead of what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    pub node: NodeName,
    pub would: Would,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Would {
    /// Thousandths of a processor, and not more.
    Cpu(u64),
    Memory(Bytes),
    Accelerators {
        kind: String,
        count: u64,
    },
    /// This site too.
    Site(Option<String>),
    /// An area larger by so many metres.
    Area(u64),
    /// Not in this anti-affinity group.
    WithoutGroup(String),
    /// So much delay in this slice.
    Latency(ObjectName, Delay),
    /// Not more than this rate in this slice.
    Rate(ObjectName, Direction, BitRate),
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = &self.node;
        match &self.would {
            Would::Cpu(milli) => write!(f, "cpu {} on {node}", Cpu(*milli)),
            Would::Memory(bytes) => write!(f, "memory {bytes} on {node}"),
            Would::Accelerators { kind, count } => write!(f, "{count} {kind} on {node}"),
            Would::Site(Some(site)) => write!(f, "site {site} ({node})"),
            Would::Site(None) => write!(f, "no constraint on sites ({node})"),
            Would::Area(metres) => write!(f, "a radius {metres} m longer ({node})"),
            Would::WithoutGroup(group) => write!(f, "not in group {group} ({node})"),
            Would::Latency(slice, delay) => {
                write!(f, "a latency of {delay} in slice {slice} ({node})")
            }
            Would::Rate(slice, direction, rate) => {
                write!(f, "{rate} guaranteed {direction} in slice {slice} ({node})")
            }
        }
    }
}

/// No node takes an instance.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct NoNode {
    pub instance: ObjectName,
    /// All that each node lacks, the node that comes closest first.
    pub nodes: Vec<(NodeName, Vec<Lack>)>,
    /// Each would be taken as things are, nearest first.
    pub counters: Vec<Counter>,
}

impl NoNode {
    fn text(&self) -> String {
        if self.nodes.is_empty() {
            return "no node has compute to offer".to_owned();
        }
        let of = |(node, lacks): &(NodeName, Vec<Lack>)| {
            let each: Vec<String> = lacks.iter().map(Lack::to_string).collect();
            format!("{node}: {}", each.join(", "))
        };
        let mut parts: Vec<String> = self.nodes.iter().take(NAMED).map(of).collect();
        if self.nodes.len() > NAMED {
            parts.push(format!("and {} nodes more", self.nodes.len() - NAMED));
        }
        let mut text = format!("no node has all that it needs: {}", parts.join("; "));
        if !self.counters.is_empty() {
            let each = self.counters.iter().take(NAMED).map(Counter::to_string);
            text += "; it would be placed with ";
            text += &each.collect::<Vec<String>>().join(", or ");
        }
        text
    }
}

impl Placement {
    pub(super) fn refusal<R: Reach>(
        &self,
        reach: &mut R,
        request: &Request,
        mut lacks: Lacks,
    ) -> NoNode {
        // Few things that are nearly there are closer than many.
        let distance = |lacks: &[Lack]| lacks.iter().map(Lack::distance).max();
        lacks.sort_by_key(|(at, lacks)| (distance(lacks), lacks.len(), *at));
        let counter = |(at, lacks): &(usize, Vec<Lack>)| self.counter(reach, request, *at, lacks);
        let counters = lacks.iter().filter_map(counter).collect();
        let name = |at: usize| self.offers[at].name.clone();
        let nodes = lacks.into_iter().map(|(at, lacks)| (name(at), lacks)).collect();
        NoNode { instance: request.name.clone(), nodes, counters }
    }

    /// What a node would take instead, where one thing is lacking; tried.
    fn counter<R: Reach>(
        &self,
        reach: &mut R,
        request: &Request,
        at: usize,
        lacks: &[Lack],
    ) -> Option<Counter> {
        let [lack] = lacks else { return None };
        let node = self.offers[at].name.clone();
        let mut less = request.clone();
        let demand = &mut less.demand;
        let would = match lack {
            Lack::Elsewhere | Lack::Architecture(_) => return None,
            Lack::Network(blocked) => {
                let would = self.network_would(reach, less, at, blocked)?;
                return Some(Counter { node, would });
            }
            Lack::Cpu { left: 0, .. }
            | Lack::Memory { left: Bytes(0), .. }
            | Lack::Accelerator { left: 0, .. }
            | Lack::Area(None) => {
                return None;
            }
            Lack::Cpu { left, .. } => {
                demand.cpu_milli = *left;
                Would::Cpu(*left)
            }
            Lack::Memory { left, .. } => {
                demand.memory = *left;
                Would::Memory(*left)
            }
            Lack::Accelerator { kind, left, .. } => {
                demand.accelerators.insert(kind.clone(), *left);
                Would::Accelerators { kind: kind.clone(), count: *left }
            }
            Lack::Site(site) => {
                demand.sites.clear();
                Would::Site(site.clone())
            }
            Lack::Area(Some(metres)) => {
                demand.area = None;
                Would::Area(*metres)
            }
            Lack::AntiAffinity(group) => {
                demand.anti_affinity.retain(|other| other != group);
                Would::WithoutGroup(group.clone())
            }
        };
        self.try_at(reach, &less, at).ok()?;
        reach.release(&less);
        Some(Counter { node, would })
    }

    /// What the network says it would take, if it does.
    fn network_would<R: Reach>(
        &self,
        reach: &mut R,
        mut less: Request,
        at: usize,
        blocked: &Blocked,
    ) -> Option<Would> {
        let mut would = of_refusal(&blocked.refusal)?;
        for _ in 0..TRIES {
            would.ask(&mut less);
            let lacks = match self.try_at(reach, &less, at) {
                Ok(_) => {
                    reach.release(&less);
                    return Some(would);
                }
                Err(lacks) => lacks,
            };
            let [Lack::Network(blocked)] = lacks.as_slice() else { return None };
            let next = of_refusal(&blocked.refusal).filter(|next| next.is_like(&would))?;
            would = next;
        }
        None
    }
}

impl Would {
    /// Asks for that instead.
    fn ask(&self, request: &mut Request) {
        let (Self::Latency(name, _) | Self::Rate(name, ..)) = self else { return };
        let Some(slice) = request.slices.iter_mut().find(|slice| slice.name == *name) else {
            return;
        };
        match self {
            Self::Latency(_, delay) => slice.latency = Some(*delay),
            Self::Rate(_, Direction::Downlink, rate) => slice.downlink.guaranteed = Some(*rate),
            Self::Rate(_, Direction::Uplink, rate) => slice.uplink.guaranteed = Some(*rate),
            _ => {}
        }
    }

    /// Less or more of the same thing.
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Latency(a, _), Self::Latency(b, _)) => a == b,
            (Self::Rate(a, to, _), Self::Rate(b, other, _)) => a == b && to == other,
            _ => false,
        }
    }
}

fn of_refusal(refusal: &Refusal) -> Option<Would> {
    match refusal {
        Refusal::Bandwidth { slice, direction, fits, .. } if fits.0 > 0 => {
            Some(Would::Rate(slice.clone(), *direction, *fits))
        }
        Refusal::Delay { slice, least: Some(bound), .. } => {
            Some(Would::Latency(slice.clone(), bound.total))
        }
        _ => None,
    }
}
