//! Made-up loads: networks, what their nodes offer, instances with users. The same for the same
//! seed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use selvedge_slices::admission::{Attachment, HookMemory, Network};
use selvedge_slices::placement::{Demand, Offer, Request};
use selvedge_slices::{NetworkSlice, Object, ObjectName, parse};
use selvedge_topology::{
    BitRate, Bytes, Delay, End, Forwarding, Link, Node, NodeIx, NodeName, Snapshot, Switch,
    Topology, read,
};

use crate::paths::Random;

const GEANT: &str = "examples/topologies/Geant2012.graphml";
const MIB: u64 = 1 << 20;

/// A network with a user `u<i>` on each node.
pub(super) struct Net {
    pub(super) snapshot: Snapshot,
    forwarding: Forwarding,
    endpoints: Arc<BTreeMap<NodeName, Attachment>>,
    hooks: BTreeMap<ObjectName, Vec<NodeIx>>,
    memory: HookMemory,
}

pub(super) struct Load {
    pub(super) net: Net,
    pub(super) offers: Vec<Offer>,
    pub(super) requests: Vec<Request>,
}

impl Net {
    fn of(topology: Topology) -> Result<Self> {
        let snapshot = Snapshot::new(Arc::new(topology), 1);
        let forwarding = Forwarding::new(&snapshot);
        let user = |switch: NodeIx| -> Result<_> {
            Ok((format!("u{}", switch.0).parse()?, Attachment { switch, link: None }))
        };
        let endpoints = Arc::new(snapshot.nodes().map(user).collect::<Result<_>>()?);
        let (hooks, memory) = (BTreeMap::new(), HookMemory::default());
        Ok(Self { snapshot, forwarding, endpoints, hooks, memory })
    }

    /// A ring with chords: about three links a node, of so many Mbit/s.
    fn random(nodes: usize, mbps: u64, random: &mut Random) -> Result<Self> {
        let mut links = Vec::new();
        let mut add = |a: usize, b: usize, random: &mut Random| -> Result<()> {
            let port = format!("p{}", links.len());
            let end =
                |node| -> Result<End> { Ok(End { node: node_name(node)?, port: port.parse()? }) };
            let mut link = Link::new(end(a)?, end(b)?);
            link.capacity = Some(BitRate::from_mbps(mbps));
            link.delay = Some(Delay(200 + random.below(1_800)));
            link.cost = Some(u32::try_from(5 + random.below(20))?);
            links.push(link);
            Ok(())
        };
        for node in 0..nodes {
            add(node, (node + 1) % nodes, random)?;
        }
        for _ in 0..nodes / 2 {
            let (a, by) = (random.below(nodes as u64), 2 + random.below(nodes as u64 - 3));
            add(usize::try_from(a)?, usize::try_from(a + by)? % nodes, random)?;
        }
        let switch = |node| Ok((node_name(node)?, Node::Switch(Switch::default())));
        let nodes = (0..nodes).map(switch).collect::<Result<_>>()?;
        Self::of(Topology { name: "random".parse()?, nodes, links })
    }

    pub(super) fn network(&self) -> Network<'_> {
        let Self { snapshot, forwarding, endpoints, hooks, memory } = self;
        Network { snapshot, forwarding, endpoints, hooks, memory }
    }

    /// The cost of the ways from an instance's users to a node.
    pub(super) fn away(&self, request: &Request, node: NodeIx) -> u64 {
        let users = request.slices.iter().flat_map(|slice| &slice.endpoints);
        let switches = users.filter_map(|user| Some(self.endpoints.get(&user.name)?.switch));
        let tree = self.forwarding.tree(&self.snapshot, node);
        let way =
            |from| tree.walk(&self.snapshot, from).map(|arc| u64::from(arc.cost)).sum::<u64>();
        switches.map(way).sum()
    }
}

fn node_name(node: usize) -> Result<NodeName> {
    format!("n{node}").parse().context("a node's name")
}

impl Load {
    /// `nodes` nodes, half of them with compute, and as many instances. Without latencies links
    /// are of 100 Mbit/s and rates up to 25; with them, links of 1 Gbit/s and rates up to 40,
    /// since a delay bound needs ports with room for bursts.
    pub(super) fn small(nodes: usize, latency: bool, seed: u64) -> Result<Self> {
        let mut random = Random(1_000 + seed);
        let (capacity, rate, latency) =
            if latency { (1_000, 40, Some(8..40)) } else { (100, 25, None) };
        let net = Net::random(nodes, capacity, &mut random)?;
        let offers = offers(&net, 2, &mut random);
        let requests = requests(&net, &offers, nodes, rate, latency, &mut random)?;
        Ok(Self { net, offers, requests })
    }

    /// Geant2012 with links of 1 Gbit/s, every second node with compute.
    pub(super) fn geant(instances: usize, seed: u64) -> Result<Self> {
        let mut random = Random(2_000 + seed);
        let read = read::from_path(Path::new(GEANT)).map_err(|problems| anyhow!("{problems}"))?;
        let mut topology = read.topology;
        for link in &mut topology.links {
            link.capacity = Some(BitRate::from_mbps(1_000));
        }
        let net = Net::of(topology)?;
        let offers = offers(&net, 2, &mut random);
        let requests = requests(&net, &offers, instances, 40, Some(10..70), &mut random)?;
        Ok(Self { net, offers, requests })
    }
}

/// Every `each`th node has compute.
fn offers(net: &Net, each: usize, random: &mut Random) -> Vec<Offer> {
    let nodes = net.snapshot.nodes().step_by(each);
    nodes
        .map(|node| Offer {
            node,
            name: net.snapshot.name(node).clone(),
            cpu_milli: 1_000 * (2 + random.below(15)),
            memory: Bytes(1_024 * MIB * (2 + random.below(31))),
            accelerators: match random.chance(30) {
                true => BTreeMap::from([("gpu".to_owned(), 1 + random.below(4))]),
                false => BTreeMap::new(),
            },
            architecture: Some(if random.chance(80) { "x86_64" } else { "aarch64" }.to_owned()),
            site: Some(format!("site-{}", random.below(4))),
            position: None,
            mw_per_cpu: 1_000 * (4 + random.below(20)),
        })
        .collect()
}

/// One or two users each, up to `mbps` in each direction, worth 20 to 120 W; half of them with a
/// latency in this range of milliseconds.
fn requests(
    net: &Net,
    offers: &[Offer],
    count: usize,
    mbps: u64,
    latency: Option<Range<u64>>,
    random: &mut Random,
) -> Result<Vec<Request>> {
    (0..count)
        .map(|index| {
            let name = format!("r{index}");
            let chance = |random: &mut Random, percent, value: &str| {
                random.chance(percent).then(|| value.to_owned()).into_iter().collect::<Vec<_>>()
            };
            let gpu = random.chance(15);
            let demand = Demand {
                cpu_milli: 250 * (1 + random.below(14)),
                memory: Bytes(256 * MIB * (1 + random.below(24))),
                accelerators: gpu.then(|| ("gpu".to_owned(), 1)).into_iter().collect(),
                architectures: chance(random, 40, "x86_64"),
                preferred_sites: chance(random, 30, "site-1"),
                anti_affinity: chance(random, 20, &format!("group-{}", index % 3)),
                ..Demand::default()
            };
            let now = &offers[usize::try_from(random.below(offers.len() as u64))?];
            Ok(Request {
                endpoint: name.parse()?,
                slices: vec![slice(net, &name, mbps, latency.clone(), random)?],
                worth_mw: 1_000 * (20 + random.below(100)),
                now: random.chance(30).then_some(now.node),
                fixed: None,
                name: name.parse()?,
                demand,
            })
        })
        .collect()
}

fn slice(
    net: &Net,
    name: &str,
    mbps: u64,
    latency: Option<Range<u64>>,
    random: &mut Random,
) -> Result<NetworkSlice> {
    let mut user = || random.below(net.snapshot.len() as u64);
    let (one, other) = (user(), user());
    let mut users = vec![one];
    users.extend(Some(other).filter(|other| *other != one && random.chance(40)));
    let users: Vec<String> = users.iter().map(|user| format!("{{ ue: u{user} }}")).collect();
    let (up, down) = (1 + random.below(mbps), 1 + random.below(mbps));
    let latency = latency.filter(|_| random.chance(50)).map_or(String::new(), |range| {
        format!("latency: {}ms, ", range.start + random.below(range.end - range.start))
    });
    let text = format!(
        "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: {{ name: {name} }}\nspec: {{ \
         uplink: {{ guaranteed: {up}Mbps, burst: 3kB }}, \
         downlink: {{ guaranteed: {down}Mbps, burst: 3kB }}, {latency}\
         endpoints: [{}, {{ dn: {name} }}] }}",
        users.join(", ")
    );
    match parse("load", &text).map_err(|problems| anyhow!("{problems}"))?.pop() {
        Some(Object::NetworkSlice(slice)) => Ok(slice),
        other => Err(anyhow!("{other:?} is no slice")),
    }
}
