//! Placement: one decision with the paths, both or neither; against trying everything, and
//! recounted.

mod net;

use std::collections::BTreeMap;
use std::sync::Arc;

use net::Net;
use proptest::prelude::*;
use selvedge_slices::admission::{Attachment, Network, usable};
use selvedge_slices::placement::{
    AWAY_MW, Area, Demand, Lack, NoNode, Offer, Paths, Placement, Request, Would,
};
use selvedge_slices::{Ledger, NetworkSlice};
use selvedge_topology::{
    ArcIx, BitRate, Bytes, Delay, End, Link, LinkIx, Node, NodeIx, NodeName, Position, Snapshot,
    Switch, Topology,
};

impl Net {
    /// Switches n0.. on a ring of 100 Mbit/s and 1 ms with these chords; a user u<i> on each.
    fn new(nodes: usize, chords: &[(usize, usize)]) -> Self {
        let ring = (0..nodes).map(|i| (i, (i + 1) % nodes));
        let links = ring.chain(chords.iter().copied()).enumerate().map(|(i, (a, b))| {
            let end = |node: usize| End {
                node: format!("n{node}").parse().unwrap(),
                port: format!("p{i}").parse().unwrap(),
            };
            Link {
                capacity: Some(BitRate::from_mbps(100)),
                delay: Some(Delay(1000)),
                ..Link::new(end(a), end(b))
            }
        });
        let links = links.collect();
        let switch = |i: usize| (format!("n{i}").parse().unwrap(), Node::Switch(Switch::default()));
        let all = (0..nodes).map(switch).collect();
        let topology = Topology { name: "t".parse().unwrap(), nodes: all, links };
        let snapshot = Snapshot::new(Arc::new(topology), 1);
        Self::one_each(snapshot, 'u')
    }
}

/// What is decided together.
#[derive(Clone)]
struct State<'a> {
    net: &'a Net,
    placement: Placement,
    ledger: Ledger,
    /// Paths know where instances are, so there is one for all calls.
    placed: Arc<BTreeMap<NodeName, Attachment>>,
}

impl<'a> State<'a> {
    fn new(net: &'a Net, offers: Vec<Offer>) -> Self {
        let (placement, ledger) = (Placement::new(offers), Ledger::new());
        Self { net, placement, ledger, placed: net.endpoints.clone() }
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Placement, &mut Paths<'_>) -> T) -> T {
        let endpoints = self.placed.clone();
        let network = Network { endpoints: &endpoints, ..self.net.network() };
        let mut paths = Paths::new(&mut self.ledger, network);
        let result = act(&mut self.placement, &mut paths);
        self.placed = paths.into_parts().0;
        result
    }

    fn place(&mut self, request: &Request) -> Result<u32, NoNode> {
        let found = self.with(|placement, paths| {
            placement.place(paths, request).map(|put| put.at).map_err(|refusal| *refusal)
        });
        found.map(|at| self.placement.offers()[at].node.0)
    }
}

fn slice(name: &str, user: usize, mbps: u64, latency: Option<u64>) -> NetworkSlice {
    let latency = latency.map_or(String::new(), |ms| format!("latency: {ms}ms,"));
    net::slice(&format!(
        "{name} uplink: {{ guaranteed: {mbps}Mbps, burst: 20kB }}, {latency} \
         endpoints: [{{ ue: u{user} }}, {{ dn: {name} }}]"
    ))
}

fn offer(node: u32, cpu_milli: u64, watts: u64) -> Offer {
    Offer {
        node: NodeIx(node),
        name: format!("n{node}").parse().unwrap(),
        cpu_milli,
        memory: Bytes(8 << 30),
        accelerators: BTreeMap::new(),
        architecture: Some("x86_64".into()),
        site: Some(format!("room-{node}")),
        position: Position::from_degrees(49.0 + f64::from(node), 6.0),
        mw_per_cpu: watts * 1000,
    }
}

fn request(name: &str, cpu_milli: u64, slice: Option<NetworkSlice>) -> Request {
    Request {
        name: name.parse().unwrap(),
        demand: Demand { cpu_milli, memory: Bytes(1 << 30), ..Demand::default() },
        endpoint: name.parse().unwrap(),
        slices: slice.into_iter().collect(),
        worth_mw: 1_000_000,
        now: None,
        fixed: None,
    }
}

#[test]
fn both_or_neither() {
    let net = Net::new(4, &[]);
    let mut state = State::new(&net, vec![offer(0, 1000, 10), offer(2, 1000, 10)]);
    // The user is at n1, equally far from both; the first in order takes it.
    let a = request("a", 600, Some(slice("a", 1, 60, None)));
    assert_eq!(state.place(&a), Ok(0));
    // There is no room for another beside it: the other node.
    let b = request("b", 600, Some(slice("b", 1, 60, None)));
    assert_eq!(state.place(&b), Ok(2));
    // Neither has the processors.
    let before = state.clone();
    let c = request("c", 600, Some(slice("c", 1, 10, None)));
    let text = state.place(&c).unwrap_err().to_string();
    assert!(text.contains("n0: 0.6 cpu wanted, 0.4 of 1 left, 0.2 missing"), "{text}");
    assert!(text.contains("it would be placed with cpu 0.4 on n0"), "{text}");
    // Both have, but not the network.
    let d = request("d", 100, Some(slice("d", 1, 60, None)));
    let text = state.place(&d).unwrap_err().to_string();
    assert!(text.contains("the network refuses slice d: uplink from n1 to"), "{text}");
    assert!(text.contains("60Mbps are to be guaranteed"), "{text}");
    assert!(
        text.contains("33629kbps guaranteed uplink in slice d (n0)"),
        "a counter-offer: {text}"
    );
    assert!(state.placement == before.placement, "a refusal changes nothing");
    assert!(state.ledger == before.ledger && state.placed == before.placed);
    // Gone is gone, compute and paths.
    let gone = state.with(|placement, paths| placement.remove(paths, &"a".parse().unwrap()));
    assert!(gone.is_some() && state.ledger.get("a").is_none());
    assert_eq!(state.place(&d), Ok(0));
}

#[test]
fn what_is_in_the_way_and_what_pays() {
    let net = Net::new(4, &[]);
    let offers = || {
        let mut gpu = offer(2, 4000, 50);
        gpu.accelerators.insert("gpu".into(), 1);
        gpu.architecture = Some("aarch64".into());
        vec![offer(0, 4000, 10), gpu]
    };
    let with = |demand: Demand| Request { demand, ..request("a", 1000, None) };
    let base = || request("a", 1000, None).demand;
    let gpu = || BTreeMap::from([("gpu".to_owned(), 1)]);
    let n2 = || Position::from_degrees(51.0, 6.0).unwrap();
    let moving =
        |moving_mw, now| Request { now: Some(NodeIx(now)), ..with(Demand { moving_mw, ..base() }) };
    // (request, node)
    let cases = [
        (with(base()), Some(0)), // draws 40 W less
        (with(Demand { accelerators: gpu(), ..base() }), Some(2)),
        (with(Demand { architectures: vec!["aarch64".into()], ..base() }), Some(2)),
        (with(Demand { sites: vec!["room-2".into()], ..base() }), Some(2)),
        (with(Demand { preferred_sites: vec!["room-2".into()], ..base() }), Some(0)), // 20 of 40 W
        (with(Demand { area: Some(Area { center: n2(), radius_m: 1 }), ..base() }), Some(2)),
        (moving(50_000, 2), Some(2)), // 40 W are not worth it
        (moving(30_000, 2), Some(0)),
        (with(Demand { anti_affinity: vec!["group".into()], ..base() }), Some(2)),
        (with(Demand { cpu_milli: 3500, ..base() }), Some(2)), // the first has taken 1
        (with(Demand { architectures: vec!["riscv64".into()], ..base() }), None),
        (Request { fixed: Some(NodeIx(2)), ..with(base()) }, Some(2)),
        // Two of three hops of 1 ms are too many for the one at n0.
        (request("a", 1000, Some(slice("a", 2, 1, Some(1)))), Some(2)),
    ];
    for (request, want) in cases {
        let mut state = State::new(&net, offers());
        let mut first = with(base());
        first.name = "first".parse().unwrap();
        first.endpoint = "first".parse().unwrap();
        first.demand.anti_affinity = vec!["group".into()];
        assert_eq!(state.place(&first), Ok(0));
        let got = state.place(&request);
        assert_eq!(got.as_ref().ok(), want.as_ref(), "{request:?}: {got:?}");
        if let Err(refusal) = got {
            let only = |lacks: &[Lack]| matches!(lacks, [Lack::Architecture(_)]);
            assert!(refusal.nodes.iter().all(|(_, lacks)| only(lacks)), "{refusal}");
        }
    }
}

#[test]
fn refusals_offer_what_would_do() {
    let net = Net::new(4, &[]);
    let mut small = offer(2, 500, 10);
    small.memory = Bytes(512 << 20);
    small.accelerators.insert("gpu".into(), 1);
    let offers = || vec![offer(0, 4000, 10), small.clone()];
    let base = || request("a", 400, None).demand;
    let center = Position::from_degrees(49.0, 6.0).unwrap();
    let two = BTreeMap::from([("gpu".to_owned(), 2)]);
    // (demand, what would do, where)
    let cases: [(Demand, Option<Would>); 6] = [
        (Demand { cpu_milli: 5000, ..base() }, Some(Would::Cpu(4000))),
        (Demand { sites: vec!["room-2".into()], ..base() }, Some(Would::Memory(Bytes(512 << 20)))),
        (
            Demand { memory: Bytes(1), accelerators: two, ..base() },
            Some(Would::Accelerators { kind: "gpu".into(), count: 1 }),
        ),
        (
            Demand { sites: vec!["nowhere".into()], ..base() },
            Some(Would::Site(Some("room-0".into()))),
        ),
        (
            Demand {
                memory: Bytes(1),
                area: Some(Area { center, radius_m: 10 }),
                accelerators: BTreeMap::from([("gpu".to_owned(), 1)]),
                ..base()
            },
            Some(Would::Area(222_380)), // two degrees of latitude, less 10 m
        ),
        (Demand { architectures: vec!["riscv64".into()], ..base() }, None),
    ];
    for (demand, want) in cases {
        let mut state = State::new(&net, offers());
        let refusal = state.place(&Request { demand, ..request("a", 0, None) }).unwrap_err();
        let got = refusal.counters.first().map(|counter| counter.would.clone());
        assert_eq!(got, want, "{refusal}");
    }
    // More delay than was asked for, as much as admission says, is then taken.
    let mut state = State::new(&net, vec![offer(0, 4000, 10)]);
    let refusal = state.place(&request("a", 1, Some(slice("a", 2, 1, Some(1))))).unwrap_err();
    let Some(Would::Latency(_, least)) = refusal.counters.first().map(|c| c.would.clone()) else {
        panic!("{refusal}")
    };
    let mut slower = slice("a", 2, 1, Some(1));
    slower.latency = Some(least);
    assert_eq!(state.place(&request("a", 1, Some(slower))), Ok(0));
}

#[test]
fn alternatives_are_tried_and_nothing_stays() {
    let net = Net::new(4, &[]);
    let mut away = offer(3, 4000, 10);
    away.architecture = None;
    let mut state = State::new(&net, vec![offer(0, 4000, 20), offer(1, 4000, 10), away]);
    let mut a = request("a", 1000, Some(slice("a", 1, 10, None)));
    a.demand.architectures = vec!["x86_64".into()];
    a.demand.preferred_sites = vec!["room-0".into()];
    assert_eq!(state.place(&a), Ok(0));
    let before = state.clone();
    let found = state.with(|placement, paths| placement.alternatives(paths, &a.name));
    assert!(state.placement == before.placement && state.ledger == before.ledger);
    let costs: Vec<_> = found.iter().map(|found| found.as_ref().map(|cost| cost.total())).collect();
    // 20 W and a link of cost 10 for 10 Mbit/s up and 1 (nominal) down; 10 W and away.
    assert_eq!(costs[0], Ok(20_000 + 220));
    assert_eq!(costs[1], Ok(10_000 + AWAY_MW));
    assert_eq!(costs[2], Err(&vec![Lack::Architecture(None)]));
}

/// The largest gain over all assignments, each tried in order on a ledger of its own.
fn exhaustive(net: &Net, offers: &[Offer], requests: &[Request]) -> i64 {
    let choices = (offers.len() + 1) as u32;
    (0..choices.pow(requests.len() as u32))
        .filter_map(|mut code| {
            let mut state = State::new(net, offers.to_vec());
            for request in requests {
                let choice = (code % choices) as usize;
                code /= choices;
                if choice < offers.len() {
                    let fixed = Some(offers[choice].node);
                    state.place(&Request { fixed, ..request.clone() }).ok()?;
                }
            }
            Some(state.placement.gain())
        })
        .max()
        .unwrap()
}

/// Adds up what is used anew, from the instances and their ways.
fn recount(state: &State<'_>) -> Result<(), TestCaseError> {
    let (placement, ledger) = (&state.placement, &state.ledger);
    for (at, offer) in placement.offers().iter().enumerate() {
        let here: Vec<_> = placement.iter().filter(|put| put.at == at).collect();
        let sum = |of: fn(&Demand) -> u64| here.iter().map(|put| of(&put.request.demand)).sum();
        let (cpu, memory): (u64, u64) = (sum(|d| d.cpu_milli), sum(|d| d.memory.0));
        prop_assert!(cpu <= offer.cpu_milli && memory <= offer.memory.0);
        let grouped = here.iter().filter(|put| !put.request.demand.anti_affinity.is_empty());
        prop_assert!(grouped.count() <= 1);
        for put in here {
            let of = ledger.get(put.request.name.as_str()).unwrap();
            let leads =
                |p: &selvedge_slices::admission::Placed| p.to == offer.node || p.from == offer.node;
            prop_assert!(!of.placed.is_empty() && of.placed.iter().all(leads));
        }
    }
    let snapshot = &state.net.snapshot;
    for (index, link) in (0..).zip(&snapshot.topology().links) {
        for a_to_b in [true, false] {
            let arc = ArcIx::new(LinkIx(index), a_to_b);
            let carried: u64 = ledger
                .iter()
                .flat_map(|(_, admitted)| {
                    let up = admitted.slice.uplink.guaranteed.unwrap_or_default().0;
                    let ways = admitted.placed.iter();
                    let up_ways = ways.filter(|way| way.direction.as_str() == "uplink");
                    up_ways.filter(|way| way.path.arcs.contains(&arc)).map(move |_| up)
                })
                .sum();
            prop_assert!(carried <= usable(link.capacity.unwrap()).0, "{link}: {carried}");
        }
    }
    Ok(())
}

prop_compose! {
    fn case()(nodes in 3usize..6)(
        chords in proptest::collection::vec((0..nodes, 0..nodes), 0..3),
        offers in proptest::collection::btree_map(0..nodes as u32, (500u64..2500, 0u64..300), 1..4),
        requests in proptest::collection::vec(
            (200u64..1500, 0..nodes, 1u64..60, 100u64..1500, any::<bool>()), 1..5),
        nodes in Just(nodes),
    ) -> (Net, Vec<Offer>, Vec<Request>) {
        let chords: Vec<_> = chords.into_iter().filter(|(a, b)| a != b).collect();
        let offers = offers.into_iter().map(|(node, (cpu, watts))| offer(node, cpu, watts));
        let requests = requests.into_iter().enumerate().map(|(i, (cpu, user, mbps, watts, apart))| {
            let name = format!("r{i}");
            let mut request = request(&name, cpu, Some(slice(&name, user, mbps, None)));
            request.worth_mw = watts * 1000;
            request.demand.anti_affinity = apart.then(|| "group".to_owned()).into_iter().collect();
            request
        });
        (Net::new(nodes, &chords), offers.collect(), requests.collect())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn within_what_there_is_and_close_to_the_best((net, offers, requests) in case()) {
        let mut state = State::new(&net, offers.clone());
        let out = state.with(|placement, paths| placement.place_all(paths, &requests, &|| false));
        prop_assert_eq!(state.placement.iter().count() + out.len(), requests.len());
        // Both or neither.
        prop_assert_eq!(state.ledger.len(), state.placement.iter().count());
        recount(&state)?;
        let best = exhaustive(&net, &offers, &requests);
        let got = state.placement.gain();
        prop_assert!(got as f64 >= best as f64 * 0.7, "{got} of {best}");
        // The same call, the same answer; and whoever is in place is not given up.
        let mut again = State::new(&net, offers);
        again.with(|placement, paths| placement.place_all(paths, &requests, &|| false));
        prop_assert!(again.placement == state.placement);
        let placed: Vec<_> = state.placement.iter().map(|put| put.request.name.clone()).collect();
        state.with(|placement, paths| placement.place_all(paths, &out, &|| false));
        prop_assert!(placed.iter().all(|name| state.placement.get(name.as_str()).is_some()));
        recount(&state)?;
    }

    /// Stopped at any moment, what is there is whole.
    #[test]
    fn it_can_be_stopped((net, offers, requests) in case(), after in 0u32..40) {
        let mut state = State::new(&net, offers);
        let asked = std::cell::Cell::new(0);
        let stop = || asked.replace(asked.get() + 1) >= after;
        let out = state.with(|placement, paths| placement.place_all(paths, &requests, &stop));
        prop_assert_eq!(state.placement.iter().count() + out.len(), requests.len());
        prop_assert_eq!(state.ledger.len(), state.placement.iter().count());
        recount(&state)?;
    }

    /// One decision is the best there is, with all others where they are.
    #[test]
    fn one_is_placed_best((net, offers, requests) in case()) {
        let mut state = State::new(&net, offers.clone());
        let (last, first) = requests.split_last().unwrap();
        for request in first {
            drop(state.place(request));
        }
        let each = offers.iter().filter_map(|offer| {
            let mut trial = state.clone();
            trial.place(&Request { fixed: Some(offer.node), ..last.clone() }).ok()?;
            Some(trial.placement.get(last.name.as_str())?.cost.total())
        });
        let best = each.min();
        let got = state.place(last).ok();
        let cost = got.and_then(|_| Some(state.placement.get(last.name.as_str())?.cost.total()));
        prop_assert_eq!(cost, best);
        recount(&state)?;
    }
}
