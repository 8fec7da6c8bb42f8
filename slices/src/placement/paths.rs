//! The network's side of placement: slices that lead to an instance, in the ledger of all
//! slices.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use selvedge_topology::{ArcIx, Bytes, NodeIx, NodeName};

use super::{Blocked, Reach, Request};
use crate::admission::{Admitted, Attachment, HookMemory, Ledger, Network};
use crate::{Direction, NetworkSlice};

/// What 1 Mbit/s over a link of cost 1 costs, in milliwatts: 20 mW for a link of the default
/// cost 10, so 20 nJ a bit and hop (Vishwanath et al., IEEE JSAC 32(4), 2014, have 10 to 100 for
/// edge and metro routers).
pub const NETWORK_MW: u64 = 2;
/// What a direction of a slice without a guaranteed rate counts, so that near is better than
/// far for it too.
pub const NOMINAL_BPS: u64 = 1_000_000;

/// A [`Reach`] over the slices' ledger.
pub struct Paths<'a> {
    pub ledger: &'a mut Ledger,
    network: Network<'a>,
    /// Where endpoints are, placed instances included.
    endpoints: Arc<BTreeMap<NodeName, Attachment>>,
    /// What nodes have for hooks: less what instances take.
    memory: HookMemory,
    /// By node, the costs of the ways to it from all others; `None`: there is none.
    costs: Vec<OnceCell<Vec<Option<u64>>>>,
}

/// What one instance had reserved.
pub struct Held {
    endpoint: NodeName,
    node: NodeIx,
    memory: Bytes,
    admitted: Vec<Admitted>,
}

impl<'a> Paths<'a> {
    /// `network`: without the instances that are to be placed, and with the whole memory of its
    /// nodes.
    pub fn new(ledger: &'a mut Ledger, network: Network<'a>) -> Self {
        Self {
            ledger,
            network,
            endpoints: network.endpoints.clone(),
            memory: network.memory.clone(),
            costs: vec![OnceCell::new(); network.snapshot.len()],
        }
    }

    /// Where endpoints are, placed instances included.
    pub fn endpoints(&self) -> &Arc<BTreeMap<NodeName, Attachment>> {
        &self.endpoints
    }

    /// The network with the instances that are placed.
    pub fn into_parts(self) -> (Arc<BTreeMap<NodeName, Attachment>>, HookMemory) {
        (self.endpoints, self.memory)
    }

    fn attach(&mut self, endpoint: &NodeName, switch: NodeIx, memory: Bytes) {
        let attachment = Attachment { switch, link: None };
        Arc::make_mut(&mut self.endpoints).insert(endpoint.clone(), attachment);
        if let Some(left) = self.memory.nodes.get_mut(&switch) {
            left.0 = left.0.saturating_sub(memory.0);
        }
    }

    fn detach(&mut self, endpoint: &NodeName, memory: Bytes) -> Option<NodeIx> {
        let node = Arc::make_mut(&mut self.endpoints).remove(endpoint)?.switch;
        if let Some(left) = self.memory.nodes.get_mut(&node) {
            left.0 = left.0.saturating_add(memory.0);
        }
        Some(node)
    }

    /// The cost of the way between two nodes.
    fn way(&self, from: NodeIx, to: NodeIx) -> Option<u64> {
        let Network { snapshot, forwarding, .. } = self.network;
        let costs = self.costs[to.index()].get_or_init(|| {
            let tree = forwarding.tree(snapshot, to);
            let walk = |node| tree.walk(snapshot, node).map(|arc| u64::from(arc.cost)).sum();
            snapshot.nodes().map(|node| tree.reaches(node).then(|| walk(node))).collect()
        });
        costs[from.index()]
    }

    /// What a slice's traffic costs over these arcs, each once: a hose is reserved once on each.
    fn price_of(&self, slice: &NetworkSlice, admitted: &Admitted) -> u64 {
        let price = |direction| {
            let ways = admitted.placed.iter().filter(|placed| placed.direction == direction);
            let mut arcs: Vec<ArcIx> =
                ways.flat_map(|placed| placed.path.arcs.iter().copied()).collect();
            arcs.sort_unstable();
            arcs.dedup();
            let costs = arcs.iter().filter_map(|arc| self.network.snapshot.arc(*arc));
            of_links(costs.map(|arc| u64::from(arc.cost)).sum(), slice, direction)
        };
        Direction::ALL.into_iter().map(price).fold(0, u64::saturating_add)
    }
}

/// Traffic over links whose costs add up to `cost`, in milliwatts.
fn of_links(cost: u64, slice: &NetworkSlice, direction: Direction) -> u64 {
    let bps = slice.rates(direction).guaranteed.map_or(NOMINAL_BPS, |rate| rate.0);
    let mw = u128::from(cost) * u128::from(bps) * u128::from(NETWORK_MW) / 1_000_000;
    u64::try_from(mw).unwrap_or(u64::MAX)
}

impl Reach for Paths<'_> {
    type Held = Held;

    fn at_least(&self, request: &Request, node: NodeIx) -> u64 {
        let switch = |name: &NodeName| {
            let here = *name == request.endpoint;
            if here { Some(node) } else { Some(self.endpoints.get(name)?.switch) }
        };
        let mut floor = 0u64;
        for slice in &request.slices {
            // Each way is part of what a direction reserves, so the dearest is a floor.
            let mut dearest = [0u64; 2];
            for (from, to, direction) in slice.pairs_of(switch) {
                let (Some(from), Some(to)) = (from, to) else { continue };
                let cost = self.way(from, to).unwrap_or(0);
                let known = &mut dearest[usize::from(direction == Direction::Uplink)];
                *known = cost.max(*known);
            }
            for (direction, cost) in
                [Direction::Downlink, Direction::Uplink].into_iter().zip(dearest)
            {
                floor = floor.saturating_add(of_links(cost, slice, direction));
            }
        }
        floor
    }

    fn reserve(&mut self, request: &Request, node: NodeIx) -> Result<u64, Blocked> {
        self.attach(&request.endpoint, node, request.demand.memory);
        for (done, slice) in request.slices.iter().enumerate() {
            let network =
                Network { endpoints: &self.endpoints, memory: &self.memory, ..self.network };
            if let Err(refusal) = self.ledger.admit(&network, slice) {
                for slice in &request.slices[..done] {
                    self.ledger.remove(&slice.name);
                }
                self.detach(&request.endpoint, request.demand.memory);
                return Err(Blocked { slice: slice.name.clone(), refusal });
            }
        }
        Ok(self.price(request))
    }

    fn price(&self, request: &Request) -> u64 {
        let admitted = request
            .slices
            .iter()
            .filter_map(|slice| Some(self.price_of(slice, self.ledger.get(slice.name.as_str())?)));
        admitted.fold(0, u64::saturating_add)
    }

    fn release(&mut self, request: &Request) -> Held {
        let admitted = request.slices.iter().filter_map(|slice| self.ledger.remove(&slice.name));
        let admitted = admitted.collect();
        let (endpoint, memory) = (request.endpoint.clone(), request.demand.memory);
        let node = self.detach(&endpoint, memory).expect("an instance with a place is released");
        Held { endpoint, node, memory, admitted }
    }

    fn restore(&mut self, held: Held) {
        self.attach(&held.endpoint, held.node, held.memory);
        let network = Network { endpoints: &self.endpoints, memory: &self.memory, ..self.network };
        for admitted in held.admitted {
            self.ledger.restore(&network, admitted);
        }
    }

    fn taken(&self, node: NodeIx) -> Bytes {
        self.network.memory.held(self.ledger, node)
    }
}
