//! Instances of functions and applications onto nodes, together with the paths to their users:
//! one decision, both or neither.
//!
//! Pure. A [`Request`] says what an instance needs ([`Demand`]) and which slices lead to it; an
//! [`Offer`] says what a node has. Where the instance then is, [`Placement`] decides: on each
//! node that could run it, its slices are reserved through a [`Reach`], and the node that costs
//! least is taken. [`Paths`] is the `Reach` over the slices' [`Ledger`](crate::Ledger).
//!
//! Everything is priced in milliwatts ([`Cost`]): energy is what a node draws for the
//! processors that are used, traffic what its links draw, and moving or being away from a
//! preferred site is worth so many milliwatts saved.
//!
//! [`Placement::place`] finds the best node for one instance with all others where they are.
//! [`Placement::place_all`] places many and then improves on them by moving, exchanging and
//! making room, until nothing helps or the caller stops it. Neither is optimal in general (the
//! problem contains bin packing); `cargo xtask bench placement` compares with an exact program.

mod model;
mod paths;
mod refusal;
mod search;

use std::collections::BTreeMap;

use selvedge_topology::{Bytes, NodeIx};

use crate::{NetworkSlice, ObjectName, Refusal};

pub use model::{AWAY_MW, Area, Cost, Demand, MOVING_MW, Offer, Request};
pub use paths::{NETWORK_MW, NOMINAL_BPS, Paths};
pub use refusal::{Counter, Lack, NoNode, Would};
pub use search::MAX_ROUNDS;

/// The network's side of the decision: may an instance's users reach it on a node, with their
/// rates and delays? If so, reserve it.
pub trait Reach {
    /// What was reserved, to be put back as it was.
    type Held;

    /// What [`Self::reserve`] costs at least on this node, in milliwatts.
    fn at_least(&self, request: &Request, node: NodeIx) -> u64;

    /// Reserves everything that leads to the instance on this node, or nothing; what the
    /// traffic costs, in milliwatts.
    ///
    /// # Errors
    /// The first slice that is refused, and why.
    fn reserve(&mut self, request: &Request, node: NodeIx) -> Result<u64, Blocked>;

    /// What is reserved for the instance costs, in milliwatts.
    fn price(&self, request: &Request) -> u64;

    /// Undoes [`Self::reserve`].
    fn release(&mut self, request: &Request) -> Self::Held;

    /// Undoes [`Self::release`], with everything else as it was then.
    fn restore(&mut self, held: Self::Held);

    /// Memory of a node that is not for instances: hooks on the slices' paths have it.
    fn taken(&self, node: NodeIx) -> Bytes;
}

/// The network does not reach an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    pub slice: ObjectName,
    pub refusal: Box<Refusal>,
}

/// Where an instance is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    pub request: Request,
    /// Index into the offers.
    pub at: usize,
    pub cost: Cost,
}

impl Put {
    /// Worth less costs, in milliwatts.
    pub fn gain(&self) -> i64 {
        gain(self.request.worth_mw, self.cost.total())
    }
}

fn gain(worth_mw: u64, cost_mw: u64) -> i64 {
    let signed = |value| i64::try_from(value).unwrap_or(i64::MAX);
    signed(worth_mw).saturating_sub(signed(cost_mw))
}

/// What was taken away, to be put back as it was.
struct Taken<Held> {
    put: Put,
    held: Held,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Used {
    cpu_milli: u64,
    memory: u64,
    accelerators: BTreeMap<String, u64>,
    /// Instances of each anti-affinity group.
    groups: BTreeMap<String, u64>,
}

/// What an instance lacks on a node, by index into the offers.
type Lacks = Vec<(usize, Vec<Lack>)>;

/// What runs where. What is reserved for it is in the [`Reach`] that each call is given: always
/// the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    offers: Vec<Offer>,
    used: Vec<Used>,
    put: BTreeMap<ObjectName, Put>,
}

impl Placement {
    pub fn new(offers: Vec<Offer>) -> Self {
        let used = vec![Used::default(); offers.len()];
        Self { offers, used, put: BTreeMap::new() }
    }

    pub fn offers(&self) -> &[Offer] {
        &self.offers
    }

    pub fn get(&self, name: &str) -> Option<&Put> {
        self.put.get(name)
    }

    /// By name.
    pub fn iter(&self) -> impl Iterator<Item = &Put> {
        self.put.values()
    }

    /// The sum of all instances' worth less costs, in milliwatts.
    pub fn gain(&self) -> i64 {
        self.put.values().map(Put::gain).sum()
    }

    /// Takes the node that costs least for the instance, and reserves its slices there; in place
    /// of an earlier instance of that name. A refusal changes nothing. What the instance is
    /// worth plays no part.
    ///
    /// # Errors
    /// [`NoNode`]: no node has all that it needs.
    pub fn place<R: Reach>(
        &mut self,
        reach: &mut R,
        request: &Request,
    ) -> Result<&Put, Box<NoNode>> {
        let before = self.take(reach, &request.name);
        match self.best(reach, request) {
            Ok((at, cost)) => {
                self.enter(Put { request: request.clone(), at, cost });
                Ok(&self.put[&request.name])
            }
            Err(lacks) => {
                let refusal = self.refusal(reach, request, lacks);
                if let Some(before) = before {
                    self.restore(reach, before);
                }
                Err(Box::new(refusal))
            }
        }
    }

    /// Takes the instance to exactly this node, if it has what the instance needs.
    ///
    /// # Errors
    /// What it lacks there; nothing has changed.
    pub fn place_at<R: Reach>(
        &mut self,
        reach: &mut R,
        request: &Request,
        at: usize,
    ) -> Result<&Put, Vec<Lack>> {
        let before = self.take(reach, &request.name);
        match self.try_at(reach, request, at) {
            Ok(cost) => {
                self.enter(Put { request: request.clone(), at, cost });
                Ok(&self.put[&request.name])
            }
            Err(lacks) => {
                if let Some(before) = before {
                    self.restore(reach, before);
                }
                Err(lacks)
            }
        }
    }

    /// Enters an instance on a node where it is: whatever the network has to do with it is the
    /// caller's, who says so by [`Self::reserved`]. Memory that hooks have does not count.
    ///
    /// # Errors
    /// What it lacks there; nothing has changed.
    pub fn adopt(&mut self, request: Request, at: usize) -> Result<(), Vec<Lack>> {
        let lacks = self.lacks_beside(Bytes(0), &request, at);
        if lacks.is_empty() {
            let cost = self.cost(&request, at, 0);
            self.enter(Put { request, at, cost });
            Ok(())
        } else {
            Err(lacks)
        }
    }

    /// These slices are what is reserved for an instance that is in place.
    pub fn reserved<R: Reach>(&mut self, reach: &R, name: &ObjectName, slices: Vec<NetworkSlice>) {
        let Some(put) = self.put.get_mut(name) else { return };
        put.request.slices = slices;
        put.cost.network_mw = reach.price(&put.request);
    }

    /// Moves an instance if another node costs less, moving included; by how much less, in
    /// milliwatts.
    pub fn better<R: Reach>(&mut self, reach: &mut R, name: &ObjectName) -> Option<u64> {
        let put = self.put.get(name)?;
        let (before, here) = (put.cost.total(), put.at);
        let cheaper = |at| self.at_least(reach, &put.request, at) < before;
        if !(0..self.offers.len()).any(|at| at != here && cheaper(at)) {
            return None;
        }
        let taken = self.take(reach, name)?;
        match self.best(reach, &taken.put.request) {
            Ok((at, cost)) if at != here && cost.total() < before => {
                self.enter(Put { at, cost, ..taken.put });
                Some(before - cost.total())
            }
            found => {
                if found.is_ok() {
                    reach.release(&taken.put.request);
                }
                self.restore(reach, taken);
                None
            }
        }
    }

    /// Takes an instance away, with what was reserved for it.
    pub fn remove<R: Reach>(&mut self, reach: &mut R, name: &ObjectName) -> Option<Put> {
        self.take(reach, name).map(|taken| taken.put)
    }

    /// What each node would cost for an instance that is in place, or what it lacks there; by
    /// the order of offers.
    pub fn alternatives<R: Reach>(
        &mut self,
        reach: &mut R,
        name: &ObjectName,
    ) -> Vec<Result<Cost, Vec<Lack>>> {
        let Some(taken) = self.take(reach, name) else { return Vec::new() };
        let each = (0..self.offers.len()).map(|at| {
            let found = self.try_at(reach, &taken.put.request, at);
            if found.is_ok() {
                reach.release(&taken.put.request);
            }
            found
        });
        let found = each.collect();
        self.restore(reach, taken);
        found
    }

    fn take<R: Reach>(&mut self, reach: &mut R, name: &ObjectName) -> Option<Taken<R::Held>> {
        let put = self.put.remove(name)?;
        let used = &mut self.used[put.at];
        let demand = &put.request.demand;
        used.cpu_milli -= demand.cpu_milli;
        used.memory -= demand.memory.0;
        for (kind, count) in &demand.accelerators {
            *used.accelerators.get_mut(kind).expect("it was counted") -= count;
        }
        for group in &demand.anti_affinity {
            *used.groups.get_mut(group).expect("it was counted") -= 1;
        }
        let held = reach.release(&put.request);
        Some(Taken { put, held })
    }

    /// Undoes [`Self::take`], with everything else as it was then.
    fn restore<R: Reach>(&mut self, reach: &mut R, taken: Taken<R::Held>) {
        reach.restore(taken.held);
        self.enter(taken.put);
    }

    /// Enters an instance whose slices are reserved.
    fn enter(&mut self, put: Put) {
        let used = &mut self.used[put.at];
        let demand = &put.request.demand;
        used.cpu_milli += demand.cpu_milli;
        used.memory += demand.memory.0;
        for (kind, count) in &demand.accelerators {
            *used.accelerators.entry(kind.clone()).or_default() += count;
        }
        for group in &demand.anti_affinity {
            *used.groups.entry(group.clone()).or_default() += 1;
        }
        self.put.insert(put.request.name.clone(), put);
    }

    /// The node that costs least, with everything reserved there.
    fn best<R: Reach>(&self, reach: &mut R, request: &Request) -> Result<(usize, Cost), Lacks> {
        let mut lacks: Lacks = Vec::new();
        let mut nodes: Vec<(u64, usize)> = Vec::new();
        for at in 0..self.offers.len() {
            let here = self.lacks(reach, request, at);
            if here.is_empty() {
                nodes.push((self.at_least(reach, request, at), at));
            } else {
                lacks.push((at, here));
            }
        }
        // By rising floor: what comes after cannot cost less than what was found.
        nodes.sort_unstable();
        let mut best: Option<(usize, Cost)> = None;
        for (floor, at) in nodes {
            if best.is_some_and(|(_, cost)| cost.total() <= floor) {
                break;
            }
            let held = best.is_some().then(|| reach.release(request));
            match (reach.reserve(request, self.offers[at].node), held) {
                (Ok(network_mw), held) => {
                    let cost = self.cost(request, at, network_mw);
                    match (best, held) {
                        (Some((_, known)), Some(held)) if known.total() <= cost.total() => {
                            reach.release(request);
                            reach.restore(held);
                        }
                        _ => best = Some((at, cost)),
                    }
                }
                (Err(blocked), held) => {
                    lacks.push((at, vec![Lack::Network(blocked)]));
                    if let Some(held) = held {
                        reach.restore(held);
                    }
                }
            }
        }
        best.ok_or(lacks)
    }

    /// One node, with everything reserved there.
    fn try_at<R: Reach>(
        &self,
        reach: &mut R,
        request: &Request,
        at: usize,
    ) -> Result<Cost, Vec<Lack>> {
        let lacks = self.lacks(reach, request, at);
        if !lacks.is_empty() {
            return Err(lacks);
        }
        match reach.reserve(request, self.offers[at].node) {
            Ok(network_mw) => Ok(self.cost(request, at, network_mw)),
            Err(blocked) => Err(vec![Lack::Network(blocked)]),
        }
    }

    /// Everything that a node lacks for the instance, apart from the network.
    fn lacks<R: Reach>(&self, reach: &R, request: &Request, at: usize) -> Vec<Lack> {
        self.lacks_beside(reach.taken(self.offers[at].node), request, at)
    }

    /// The same, beside so much memory that hooks have.
    fn lacks_beside(&self, hooks: Bytes, request: &Request, at: usize) -> Vec<Lack> {
        let (offer, used, demand) = (&self.offers[at], &self.used[at], &request.demand);
        let mut lacks = Vec::new();
        if request.fixed.is_some_and(|node| node != offer.node) {
            lacks.push(Lack::Elsewhere);
        }
        if !demand.architectures.is_empty()
            && !offer.architecture.as_ref().is_some_and(|a| demand.architectures.contains(a))
        {
            lacks.push(Lack::Architecture(offer.architecture.clone()));
        }
        if !demand.sites.is_empty()
            && !offer.site.as_ref().is_some_and(|site| demand.sites.contains(site))
        {
            lacks.push(Lack::Site(offer.site.clone()));
        }
        if let Some(area) = &demand.area
            && !offer.position.is_some_and(|position| area.holds(position))
        {
            lacks.push(Lack::Area(offer.position.map(|position| area.beyond_m(position))));
        }
        for (kind, &wanted) in &demand.accelerators {
            let all = offer.accelerators.get(kind).copied().unwrap_or(0);
            let left = all - used.accelerators.get(kind).copied().unwrap_or(0).min(all);
            if wanted > left {
                lacks.push(Lack::Accelerator { kind: kind.clone(), wanted, left, all });
            }
        }
        for group in &demand.anti_affinity {
            if used.groups.get(group).is_some_and(|count| *count > 0) {
                lacks.push(Lack::AntiAffinity(group.clone()));
            }
        }
        let (wanted, all) = (demand.cpu_milli, offer.cpu_milli);
        let left = all.saturating_sub(used.cpu_milli);
        if wanted > left {
            lacks.push(Lack::Cpu { wanted, left, all });
        }
        let (wanted, all) = (demand.memory, offer.memory);
        let left = Bytes(all.0.saturating_sub(used.memory).saturating_sub(hooks.0));
        if wanted > left {
            lacks.push(Lack::Memory { wanted, left, all });
        }
        lacks
    }

    fn cost(&self, request: &Request, at: usize, network_mw: u64) -> Cost {
        let (offer, demand) = (&self.offers[at], &request.demand);
        let moves = request.now.is_some_and(|now| now != offer.node);
        let away = !demand.preferred_sites.is_empty()
            && !offer.site.as_ref().is_some_and(|site| demand.preferred_sites.contains(site));
        Cost {
            energy_mw: offer.mw_per_cpu.saturating_mul(demand.cpu_milli) / 1000,
            network_mw,
            away_mw: if away { AWAY_MW } else { 0 },
            moving_mw: if moves { demand.moving_mw } else { 0 },
        }
    }

    /// Not more than the cost on a node.
    fn at_least<R: Reach>(&self, reach: &R, request: &Request, at: usize) -> u64 {
        let network = reach.at_least(request, self.offers[at].node);
        self.cost(request, at, network).total()
    }
}
