//! What nodes offer and instances need.

use std::collections::BTreeMap;

use selvedge_topology::{Bytes, Delay, NodeIx, NodeName, Position};

use crate::{NetworkSlice, ObjectName};

/// What it is worth to be at a preferred site, in milliwatts.
pub const AWAY_MW: u64 = 20_000;
/// What moving costs where a demand does not say, in milliwatts: so much must be saved.
pub const MOVING_MW: u64 = 10_000;

/// A node that can run instances, and how much of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    pub node: NodeIx,
    /// For texts.
    pub name: NodeName,
    /// Thousandths of a processor.
    pub cpu_milli: u64,
    pub memory: Bytes,
    /// By kind, such as `gpu`.
    pub accelerators: BTreeMap<String, u64>,
    /// Such as `x86_64`.
    pub architecture: Option<String>,
    pub site: Option<String>,
    pub position: Option<Position>,
    /// What it draws more for each processor in use, in milliwatts.
    pub mw_per_cpu: u64,
}

/// What an instance needs of its node (ETSI GS MEC 010-2 §6.2.1.2, AppD:
/// virtualComputeDescriptor, appLatency), and what else decides where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Thousandths of a processor.
    pub cpu_milli: u64,
    pub memory: Bytes,
    /// By kind.
    pub accelerators: BTreeMap<String, u64>,
    /// Any of these; empty: all.
    pub architectures: Vec<String>,
    /// One way, between its users' switches and its own: an upper bound on the latency of every
    /// slice that leads to it.
    pub latency: Option<Delay>,
    /// Any of these; empty: all.
    pub sites: Vec<String>,
    /// Any of these is better than others ([`AWAY_MW`]).
    pub preferred_sites: Vec<String>,
    pub area: Option<Area>,
    /// No two instances of a group on one node.
    pub anti_affinity: Vec<String>,
    /// What moving it costs, in milliwatts.
    pub moving_mw: u64,
}

impl Default for Demand {
    /// Nothing, anywhere.
    fn default() -> Self {
        Self {
            cpu_milli: 0,
            memory: Bytes(0),
            accelerators: BTreeMap::new(),
            architectures: Vec::new(),
            latency: None,
            sites: Vec::new(),
            preferred_sites: Vec::new(),
            area: None,
            anti_affinity: Vec::new(),
            moving_mw: MOVING_MW,
        }
    }
}

/// A circle on the ground.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    pub center: Position,
    pub radius_m: u64,
}

impl Area {
    pub fn holds(&self, position: Position) -> bool {
        self.beyond_m(position) == 0
    }

    /// How far outside a place is, in whole metres.
    pub fn beyond_m(&self, position: Position) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "half the Earth's circumference is 2e7 m, never negative"
        )]
        let metres = (self.center.distance_km(position) * 1000.0).round() as u64;
        metres.saturating_sub(self.radius_m)
    }
}

/// An instance that wants a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub name: ObjectName,
    pub demand: Demand,
    /// The endpoint that it is in its slices. Of no meaning without slices.
    pub endpoint: NodeName,
    /// Those that lead to it: rates, delay bound, hooks. Not in the network's books when a node
    /// is looked for.
    pub slices: Vec<NetworkSlice>,
    /// What it is worth to have it placed, in milliwatts; [`super::Placement::place_all`] leaves
    /// out what costs more.
    pub worth_mw: u64,
    /// Where it is now: any other node costs a move.
    pub now: Option<NodeIx>,
    /// It can be here only.
    pub fixed: Option<NodeIx>,
}

/// What an instance costs on a node, in milliwatts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// The processors it uses.
    pub energy_mw: u64,
    /// The links its guaranteed traffic uses.
    pub network_mw: u64,
    /// It is not at a preferred site.
    pub away_mw: u64,
    /// It is not where it was.
    pub moving_mw: u64,
}

impl Cost {
    pub fn total(&self) -> u64 {
        [self.energy_mw, self.network_mw, self.away_mw, self.moving_mw]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}
