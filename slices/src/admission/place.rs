//! Placing one slice: which ways it needs, whether they fit, and what to say when they do not.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_topology::{ArcIx, BitRate, Bytes, Metric, NodeIx, Path, Query, shortest_path};

use super::delay::{Queues, arc_name, broken, queues};
use super::memory::{instances, segments};
use super::route::best;
use super::{
    Admitted, DelayBound, Ledger, Network, Placed, Refusal, Segment, frame_rate, ip_rate, overhead,
    scale, usable,
};
use crate::limits::MTU_BYTES;
use crate::{Direction, NetworkSlice};

/// A way that is needed: between two switches, in one direction.
struct Demand {
    direction: Direction,
    from: NodeIx,
    to: NodeIx,
    /// Arcs to the receivers on `to`.
    exits: BTreeSet<ArcIx>,
}

/// How often a direction's traffic crosses each arc, at most, on any one path.
type Uses = BTreeMap<ArcIx, u64>;

#[derive(Clone, Copy)]
enum By {
    Cost,
    /// Delay as the network is now, with the slice's own bursts.
    Delay,
}

struct Placing<'a> {
    ledger: &'a Ledger,
    network: &'a Network<'a>,
    slice: &'a NetworkSlice,
    hooks: Vec<&'a [NodeIx]>,
    demands: Vec<Demand>,
    /// Access links by direction: what the slice sends and receives there.
    access: [BTreeSet<ArcIx>; 2],
    /// What others have reserved, as frames' rate.
    reserved: BTreeMap<ArcIx, u64>,
    /// The others' queues; `None` when their bursts do not settle.
    queues: Option<Queues>,
    /// What others leave of the compute memory of nodes, in bytes.
    memory: BTreeMap<NodeIx, u64>,
}

fn at(direction: Direction) -> usize {
    match direction {
        Direction::Downlink => 0,
        Direction::Uplink => 1,
    }
}

pub(super) fn promised(
    ledger: &Ledger,
    network: &Network<'_>,
    slice: &NetworkSlice,
) -> Result<Admitted, Box<Refusal>> {
    let placing = Placing::new(ledger, network, slice)?;
    placing.reachable()?;
    placing.access_fits()?;
    let mut refused: Option<Box<Refusal>> = None;
    for by in [By::Cost, By::Delay] {
        let why = match placing.place(by) {
            Ok(admitted) => match placing.keeps_delays(&admitted) {
                Ok(()) => return Ok(admitted),
                Err(why) => why,
            },
            Err(blocked) => placing.too_narrow(blocked, by),
        };
        refused = Some(match refused {
            Some(first) => closer(first, why),
            None => why,
        });
        // The second try is for delay only: it finds no more bandwidth than the first.
        if matches!(refused.as_deref(), Some(Refusal::Bandwidth { .. })) {
            break;
        }
    }
    Err(refused.expect("two tries that both failed"))
}

/// Of two refusals the one that asks for less.
fn closer(first: Box<Refusal>, second: Box<Refusal>) -> Box<Refusal> {
    let least = |refusal: &Refusal| match refusal {
        Refusal::Delay { least: Some(bound), .. } => Some(bound.total),
        _ => None,
    };
    match (least(&first), least(&second)) {
        (Some(a), Some(b)) if b < a => second,
        (None, Some(_)) if matches!(*first, Refusal::Delay { .. }) => second,
        _ => first,
    }
}

pub(super) fn waived(
    ledger: &Ledger,
    network: &Network<'_>,
    slice: &NetworkSlice,
    why: Refusal,
) -> Result<Admitted, Box<Refusal>> {
    let placing = Placing::new(ledger, network, slice)?;
    placing.reachable()?;
    let (placed, _) =
        placing.place_at([0, 0], By::Cost).map_err(|blocked| placing.unreachable(&blocked))?;
    let slice = slice.clone();
    Ok(Admitted { slice, placed, reserved: BTreeMap::new(), waived: Some(why) })
}

/// The demand that could not be placed, and what was in place before it.
struct Blocked {
    index: usize,
    uses: [Uses; 2],
    placed: Vec<Placed>,
}

impl<'a> Placing<'a> {
    fn new(
        ledger: &'a Ledger,
        network: &'a Network<'a>,
        slice: &'a NetworkSlice,
    ) -> Result<Self, Box<Refusal>> {
        let name = || slice.name.clone();
        for endpoint in &slice.endpoints {
            if !network.endpoints.contains_key(&endpoint.name) {
                let endpoint = endpoint.name.clone();
                return Err(Box::new(Refusal::Endpoint { slice: name(), endpoint }));
            }
        }
        let mut hooks = Vec::new();
        for through in &slice.through {
            let hook = through.hook.clone();
            match network.hooks.get(&through.hook) {
                None => return Err(Box::new(Refusal::Hook { slice: name(), hook })),
                Some(nodes) if nodes.is_empty() => {
                    return Err(Box::new(Refusal::NoCompute { slice: name(), hook }));
                }
                Some(nodes) => hooks.push(nodes.as_slice()),
            }
        }
        let mut demands: BTreeMap<(Direction, NodeIx, NodeIx), BTreeSet<ArcIx>> = BTreeMap::new();
        let mut access: [BTreeSet<ArcIx>; 2] = Default::default();
        for (from, to, direction) in slice.pairs() {
            let switch = |endpoint| network.endpoints[endpoint].switch;
            let exits = demands.entry((direction, switch(from), switch(to))).or_default();
            exits.extend(network.access(to));
            let links = &mut access[at(direction)];
            links.extend(network.access(from).map(ArcIx::reverse));
            links.extend(network.access(to));
        }
        let demands = demands
            .into_iter()
            .map(|((direction, from, to), exits)| Demand { direction, from, to, exits })
            .collect();
        let mut reserved: BTreeMap<ArcIx, u64> = BTreeMap::new();
        for (_, admitted) in ledger.iter() {
            for (arc, rate) in &admitted.reserved {
                let sum = reserved.entry(*arc).or_default();
                *sum = sum.saturating_add(rate.0);
            }
        }
        let queues = queues(network, ledger.iter().map(|(_, admitted)| admitted));
        let mut memory = BTreeMap::new();
        if !hooks.is_empty() {
            for (node, total) in &network.memory.nodes {
                let holders = network.memory.holders(ledger, *node);
                let left =
                    holders.iter().fold(total.0, |left, (_, held)| left.saturating_sub(held.0));
                memory.insert(*node, left);
            }
        }
        Ok(Self { ledger, network, slice, hooks, demands, access, reserved, queues, memory })
    }

    fn guaranteed(&self, direction: Direction) -> BitRate {
        self.slice.rates(direction).guaranteed.unwrap_or_default()
    }

    /// The guaranteed rates as frames of the fabric, by direction.
    fn frames(&self) -> [u64; 2] {
        Direction::ALL.map(|direction| frame_rate(self.guaranteed(direction)).0)
    }

    /// What others leave of an arc; `None`: not limited.
    fn left(&self, arc: ArcIx) -> Option<u64> {
        let usable = usable(self.network.capacity(arc)?).0;
        Some(usable.saturating_sub(self.reserved.get(&arc).copied().unwrap_or(0)))
    }

    /// What others and the slice's other direction leave of an arc.
    fn left_for(
        &self,
        arc: ArcIx,
        direction: Direction,
        uses: &[Uses; 2],
        rates: [u64; 2],
    ) -> Option<u64> {
        let other = 1 - at(direction);
        let own = uses[other].get(&arc).copied().unwrap_or(0).saturating_mul(rates[other]);
        Some(self.left(arc)?.saturating_sub(own))
    }

    /// Every demand has a way at all.
    fn reachable(&self) -> Result<(), Box<Refusal>> {
        match self.place_at([0, 0], By::Cost) {
            Ok(_) => Ok(()),
            Err(blocked) => Err(self.unreachable(&blocked)),
        }
    }

    fn unreachable(&self, blocked: &Blocked) -> Box<Refusal> {
        let demand = &self.demands[blocked.index];
        if let Some((_, segments)) = self.way(demand, None, &Default::default(), [0, 0], By::Cost)
            && let Some((index, _)) = self.overfull(&blocked.placed, &segments)
        {
            return self.no_memory(index, &blocked.placed);
        }
        let snapshot = self.network.snapshot;
        let slice = self.slice.name.clone();
        let Demand { direction, from, to, .. } = *demand;
        if let Err(reason) = shortest_path(snapshot, &Query::new(from, to, Metric::Cost)) {
            return Box::new(Refusal::NoPath { slice, direction, reason });
        }
        let (from_name, to_name) = (snapshot.name(from).clone(), snapshot.name(to).clone());
        // The first hook that cannot be added is the one to name.
        let reached = |count: usize| {
            let weight = |arc| Some(u64::from(snapshot.arc(arc)?.cost));
            best(self.network, (from, to), &self.hooks[..count], &weight, None).is_some()
        };
        let missing = (1..=self.hooks.len()).find(|count| !reached(*count));
        let on_the_way = |node: &NodeIx| {
            let leads = |a, b| shortest_path(snapshot, &Query::new(a, b, Metric::Cost)).is_ok();
            leads(from, *node) && leads(*node, to)
        };
        match missing.map(|count| count - 1) {
            Some(index) if !self.hooks[index].iter().any(on_the_way) => {
                Box::new(Refusal::HookUnreachable {
                    slice,
                    direction,
                    from: from_name,
                    to: to_name,
                    hook: self.slice.through[index].hook.clone(),
                })
            }
            _ => {
                let (from, to) = (from_name, to_name);
                Box::new(Refusal::TooManyIds { slice, direction, from, to })
            }
        }
    }

    /// The links to the endpoints themselves.
    fn access_fits(&self) -> Result<(), Box<Refusal>> {
        for direction in Direction::ALL {
            let wanted = self.guaranteed(direction);
            for &arc in &self.access[at(direction)] {
                let Some(left) = self.left(arc) else { continue };
                let frame = MTU_BYTES + overhead(self.network, arc);
                // The slice's other direction on the same arc, where one side talks to itself.
                let other = Direction::ALL[1 - at(direction)];
                let both = self.access[at(other)].contains(&arc);
                let own = if both { scale(self.guaranteed(other), frame).0 } else { 0 };
                let left = left.saturating_sub(own);
                if scale(wanted, frame).0 <= left {
                    continue;
                }
                let ip = u128::from(left) * u128::from(MTU_BYTES) / u128::from(frame);
                let available = BitRate(u64::try_from(ip).expect("less than what is left"));
                let fits = BitRate(available.0 / 1000 * 1000);
                let (near, far) = self.network.snapshot.ends(arc);
                return Err(Box::new(Refusal::Bandwidth {
                    slice: self.slice.name.clone(),
                    direction,
                    from: near.node.clone(),
                    to: far.node.clone(),
                    link: arc_name(self.network, arc),
                    wanted,
                    available,
                    missing: BitRate(wanted.0 - available.0),
                    fits,
                    holders: self.ledger.holders(arc),
                }));
            }
        }
        Ok(())
    }

    fn place(&self, by: By) -> Result<Admitted, Blocked> {
        let rates = self.frames();
        let (placed, uses) = self.place_at(rates, by)?;
        let mut reserved: BTreeMap<ArcIx, u64> = BTreeMap::new();
        let mut add = |arc: ArcIx, rate: u64| {
            if rate > 0 {
                let sum = reserved.entry(arc).or_default();
                *sum = sum.saturating_add(rate);
            }
        };
        for direction in Direction::ALL {
            for (arc, count) in &uses[at(direction)] {
                add(*arc, count.saturating_mul(rates[at(direction)]));
            }
            for arc in &self.access[at(direction)] {
                let frame = MTU_BYTES + overhead(self.network, *arc);
                add(*arc, scale(self.guaranteed(direction), frame).0);
            }
        }
        let reserved = reserved.into_iter().map(|(arc, rate)| (arc, BitRate(rate))).collect();
        Ok(Admitted { slice: self.slice.clone(), placed, reserved, waived: None })
    }

    /// All demands, one after the other, at these rates of frames.
    fn place_at(&self, rates: [u64; 2], by: By) -> Result<(Vec<Placed>, [Uses; 2]), Blocked> {
        let mut uses: [Uses; 2] = Default::default();
        let mut placed = Vec::new();
        for (index, demand) in self.demands.iter().enumerate() {
            let Some((path, segments)) = self.way(demand, Some(&placed), &uses, rates, by) else {
                return Err(Blocked { index, uses, placed });
            };
            for (arc, count) in crossings(&path) {
                let most = uses[at(demand.direction)].entry(arc).or_default();
                *most = count.max(*most);
            }
            let Demand { direction, from, to, .. } = *demand;
            let exits = demand.exits.iter().copied().collect();
            placed.push(Placed { direction, from, to, path, segments, exits });
        }
        Ok((placed, uses))
    }

    /// `placed`: the slice's ways so far, whose hooks take memory too; `None`: whatever the
    /// memory is.
    fn way(
        &self,
        demand: &Demand,
        placed: Option<&[Placed]>,
        uses: &[Uses; 2],
        rates: [u64; 2],
        by: By,
    ) -> Option<(Path, Vec<Segment>)> {
        let Demand { direction, from, to, .. } = *demand;
        let rate = rates[at(direction)];
        let fits = |arc, times: u64| {
            let times = uses[at(direction)].get(&arc).copied().unwrap_or(0).max(times);
            let left = self.left_for(arc, direction, uses, rates);
            rate == 0 || left.is_none_or(|left| rate.saturating_mul(times) <= left)
        };
        let burst = self.slice.rates(direction).guaranteed_burst(self.slice.class);
        // Arcs that a path may cross once but not as often as it did.
        let mut narrow: BTreeSet<ArcIx> = BTreeSet::new();
        // Nodes that have no room for one more of the slice's hooks.
        let mut full: BTreeSet<(usize, NodeIx)> = BTreeSet::new();
        loop {
            let weight = |arc: ArcIx| {
                if narrow.contains(&arc) || !fits(arc, 1) {
                    return None;
                }
                match (by, &self.queues) {
                    (By::Delay, Some(queues)) => Some(queues.weight(self.network, arc, burst)),
                    _ => Some(u64::from(self.network.snapshot.arc(arc)?.cost)),
                }
            };
            let metric = matches!(by, By::Cost).then_some(Metric::Cost);
            let open = |(index, nodes): (usize, &&[NodeIx])| -> Vec<NodeIx> {
                nodes.iter().copied().filter(|node| !full.contains(&(index, *node))).collect()
            };
            let hooks: Vec<Vec<NodeIx>> = self.hooks.iter().enumerate().map(open).collect();
            let hooks: Vec<&[NodeIx]> = hooks.iter().map(Vec::as_slice).collect();
            let found = best(self.network, (from, to), &hooks, &weight, metric)?;
            if let Some(over) = placed.and_then(|placed| self.overfull(placed, &found.1)) {
                full.insert(over);
                continue;
            }
            let too_often: Vec<ArcIx> = crossings(&found.0)
                .into_iter()
                .filter(|(arc, times)| *times > 1 && !fits(*arc, *times))
                .map(|(arc, _)| arc)
                .collect();
            if too_often.is_empty() {
                return Some(found);
            }
            narrow.extend(too_often);
        }
    }

    /// A hook of a new way, by its place in the slice, that is one too many for its node beside
    /// those of `placed`.
    fn overfull(&self, placed: &[Placed], way: &[Segment]) -> Option<(usize, NodeIx)> {
        let before = instances(self.slice, segments(placed));
        let mut all = before.clone();
        for segment in way {
            let Segment::Hook { index, node } = *segment else { continue };
            all.insert((node, &self.slice.through[index].hook));
            let left = self.memory.get(&node);
            if left.is_some_and(|left| self.network.memory.taken(&all, node) > *left) {
                return Some((index, node));
            }
        }
        None
    }

    fn no_memory(&self, index: usize, placed: &[Placed]) -> Box<Refusal> {
        let memory = self.network.memory;
        let own = instances(self.slice, segments(placed));
        let left = |node: NodeIx| {
            let left = self.memory.get(&node).copied().unwrap_or(0);
            left.saturating_sub(memory.taken(&own, node))
        };
        let most = self.hooks[index].iter().copied().rev().max_by_key(|node| left(*node));
        let node = most.expect("a hook without a node is refused before");
        let hook = self.slice.through[index].hook.clone();
        Box::new(Refusal::Memory {
            slice: self.slice.name.clone(),
            needed: Bytes(memory.need(&hook)),
            hook,
            node: self.network.snapshot.name(node).clone(),
            left: Bytes(left(node)),
            total: memory.nodes.get(&node).copied().unwrap_or_default(),
            holders: memory.holders(self.ledger, node),
        })
    }

    /// Why the demand does not fit at the slice's rates, and the largest rate that would.
    fn too_narrow(&self, blocked: Blocked, by: By) -> Box<Refusal> {
        let direction = self.demands[blocked.index].direction;
        let wanted = self.guaranteed(direction);
        // What fits is what some link has left, once or shared by several crossings.
        let mut steps: BTreeSet<u64> = [0].into();
        for arc in self.network.snapshot.arcs() {
            let left = self.left_for(arc.ix, direction, &blocked.uses, self.frames());
            let rates = left
                .iter()
                .flat_map(|left| (1..=self.hooks.len() as u64 + 1).map(move |n| left / n));
            steps.extend(rates.map(|left| ip_rate(BitRate(left)).0 / 1000));
        }
        let steps: Vec<u64> = steps.into_iter().filter(|kbps| kbps * 1000 < wanted.0).collect();
        let at_rate = |kbps: u64| {
            let mut rates = self.frames();
            // Downlink is placed first and does not wait for uplink.
            if direction == Direction::Downlink {
                rates[at(Direction::Uplink)] = 0;
            }
            rates[at(direction)] = frame_rate(BitRate(kbps * 1000)).0;
            (rates, self.place_at(rates, by))
        };
        let (mut low, mut high) = (0, steps.len());
        let mut stuck = blocked;
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match at_rate(steps[middle]).1 {
                Ok(_) => low = middle,
                Err(blocked) => (high, stuck) = (middle, blocked),
            }
        }
        let low = steps[low];
        let demand = &self.demands[stuck.index];
        let slice = self.slice.name.clone();
        let name = |node| self.network.snapshot.name(node).clone();
        let (from, to) = (name(demand.from), name(demand.to));
        let (rates, _) = at_rate(low);
        let way = self.way(demand, Some(&stuck.placed), &stuck.uses, rates, by);
        let bottleneck = way.and_then(|(path, _)| {
            let crossed = crossings(&path);
            let left = path.arcs.iter().filter_map(|arc| {
                let left = self.left_for(*arc, direction, &stuck.uses, rates)?;
                Some((left / crossed[arc], *arc))
            });
            left.min_by_key(|(left, _)| *left) // the first of equals
        });
        match bottleneck {
            Some((left, arc)) if ip_rate(BitRate(left)) < wanted => {
                let available = ip_rate(BitRate(left));
                Box::new(Refusal::Bandwidth {
                    slice,
                    direction: demand.direction,
                    from,
                    to,
                    link: arc_name(self.network, arc),
                    wanted,
                    available,
                    missing: BitRate(wanted.0 - available.0),
                    fits: BitRate(low * 1000),
                    holders: self.ledger.holders(arc),
                })
            }
            _ => Box::new(Refusal::TooManyIds { slice, direction: demand.direction, from, to }),
        }
    }

    /// The slice's own delay bound and those of the others, with the slice in place.
    fn keeps_delays(&self, admitted: &Admitted) -> Result<(), Box<Refusal>> {
        let others = || self.ledger.iter().map(|(_, admitted)| admitted);
        let anyone = |admitted: &Admitted| admitted.slice.latency.is_some();
        if !anyone(admitted) && !others().any(anyone) {
            return Ok(());
        }
        let queues = queues(self.network, others().chain([admitted]));
        let own = broken(self.network, queues.as_ref(), std::iter::once(admitted));
        if let Some((slice, direction, wanted, least)) = own {
            let demand = self.demands.iter().find(|demand| demand.direction == direction);
            let demand = demand.expect("a bound belongs to a demand");
            let name = |node| self.network.snapshot.name(node).clone();
            let (from, to) = (name(demand.from), name(demand.to));
            let (from, to) = worst_ends(least.as_ref()).unwrap_or((from, to));
            return Err(Box::new(Refusal::Delay { slice, direction, from, to, wanted, least }));
        }
        // A promise that is broken already is not this slice's doing.
        let before = |other: &Admitted| {
            broken(self.network, self.queues.as_ref(), std::iter::once(other)).is_none()
        };
        let harmed = broken(self.network, queues.as_ref(), others().filter(|other| before(other)));
        match harmed {
            None => Ok(()),
            Some((other, direction, promised, bound)) => {
                let slice = self.slice.name.clone();
                Err(Box::new(Refusal::OtherSlice { slice, other, direction, promised, bound }))
            }
        }
    }
}

/// The first and last node of the hops that a bound adds up.
fn worst_ends(
    bound: Option<&DelayBound>,
) -> Option<(selvedge_topology::NodeName, selvedge_topology::NodeName)> {
    let hops = &bound?.hops;
    let node = |end: &str| end.split(':').next()?.parse().ok();
    let first = hops.first()?.link.split(" -> ").next().and_then(node)?;
    let last = hops.last()?.link.split(" -> ").nth(1).and_then(node)?;
    Some((first, last))
}

fn crossings(path: &Path) -> BTreeMap<ArcIx, u64> {
    let mut counts = BTreeMap::new();
    for arc in &path.arcs {
        *counts.entry(*arc).or_default() += 1;
    }
    counts
}
