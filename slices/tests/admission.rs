//! Admission: promises add up, refusals say what is missing, ways can be written down.

mod net;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use net::{Net, in_order, slice};
use proptest::prelude::*;
use selvedge_slices::admission::{
    Attachment, MAX_HOOKS_IN_A_ROW, MAX_IDS, Placed, Segment, frame_rate, usable,
};
use selvedge_slices::{
    Admitted, Class, Direction, Endpoint, Ledger, NetworkSlice, Object, OnFailure, Rates, Refusal,
    Side, Through,
};
use selvedge_topology::{
    ArcIx, BitRate, Bytes, Delay, End, Link, LinkIx, Node, NodeIx, Snapshot, Switch, Topology, read,
};

impl Net {
    /// With the hosts of the topology.
    fn of(snapshot: Snapshot) -> Self {
        let attachment = |(switch, link)| Attachment { switch, link: Some(link) };
        let hosts = snapshot.attachments().into_iter();
        let endpoints = hosts.map(|(host, at)| (host, attachment(at))).collect();
        Self::with_endpoints(snapshot, endpoints)
    }

    fn metro() -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/metro/topology.yaml");
        let topology = read::from_path(&file).unwrap().topology;
        let mut net = Self::of(Snapshot::new(Arc::new(topology), 1));
        let edges = ["edge1", "edge2"].map(|name| net.node(name)).to_vec();
        net.hooks.insert("dedup".parse().unwrap(), edges);
        net.hooks.insert("nowhere".parse().unwrap(), Vec::new());
        net
    }

    fn node(&self, name: &str) -> NodeIx {
        self.snapshot.node(name).unwrap()
    }

    fn nodes(&self, placed: &Placed) -> Vec<&str> {
        placed.path.nodes.iter().map(|node| self.snapshot.name(*node).as_str()).collect()
    }
}

#[test]
fn hooks_share_the_memory_of_their_nodes() {
    let mib = |count: u64| Bytes(count << 20);
    let mut net = Net::metro();
    let edges = ["edge1", "edge2"].map(|name| net.node(name));
    net.memory.nodes = edges.map(|node| (node, mib(100))).into();
    net.hooks.insert("mark".parse().unwrap(), edges.to_vec());
    net.memory.needs =
        [("dedup", 60), ("mark", 50)].map(|(name, need)| (name.parse().unwrap(), mib(need))).into();
    let at = |admitted: &Admitted| -> Vec<String> {
        let segments = admitted.placed.iter().flat_map(|placed| &placed.segments);
        let nodes: std::collections::BTreeSet<NodeIx> = segments
            .filter_map(|segment| match segment {
                Segment::Hook { node, .. } => Some(*node),
                _ => None,
            })
            .collect();
        nodes.into_iter().map(|node| net.snapshot.name(node).to_string()).collect()
    };
    let through = |name: &str, hooks: &str| {
        slice(&format!("{name} through: [{hooks}], endpoints: [{{ ue: robot-1 }}, {{ dn: plc }}]"))
    };
    let dedup = "{ hook: dedup, onFailure: drop }";
    let both = "{ hook: dedup, onFailure: drop }, { hook: mark, onFailure: drop }";
    let mut ledger = Ledger::new();
    // Two hooks of one slice do not fit one node; both directions share an instance.
    let first = ledger.admit(&net.network(), &through("a", both)).unwrap();
    assert_eq!(at(first), ["edge1", "edge2"]);
    // 40 MiB and 50 MiB are left.
    let refused = ledger.admit(&net.network(), &through("b", dedup)).unwrap_err().to_string();
    assert_eq!(
        refused,
        "hook dedup needs 60Mi of compute memory; of the nodes that can run it edge2 has most \
         left, 50Mi of 100Mi (held there: 50Mi by a)"
    );
    assert!(ledger.get("b").is_none());
    // In its own place it fits, and what it gives up is there for others.
    ledger.admit(&net.network(), &through("a", both)).unwrap();
    ledger.admit(&net.network(), &through("a", "{ hook: mark, onFailure: drop }")).unwrap();
    ledger.admit(&net.network(), &through("b", dedup)).unwrap();
    // Rebuilt, the same: none is left out, and none is over.
    let slices: Vec<NetworkSlice> = ledger.iter().map(|(_, a)| a.slice.clone()).collect();
    let (again, unplaced) = Ledger::rebuilt(&net.network(), &in_order(&slices));
    assert!(unplaced.is_empty() && again.len() == 2, "{unplaced:?}");
}

#[test]
fn metro_keeps_its_example() {
    let net = Net::metro();
    let mut ledger = Ledger::new();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/metro/slices.yaml");
    let Object::NetworkSlice(slice) = selvedge_slices::check(&file).unwrap().remove(0) else {
        panic!("a slice")
    };
    let admitted = ledger.admit(&net.network(), &slice).unwrap();
    let up = admitted.way(Direction::Uplink, net.node("gnb1"), net.node("edge1")).unwrap();
    assert_eq!(net.nodes(up), ["gnb1", "s1", "s3", "edge1"]);
    assert_eq!(up.segments, [Segment::Node(net.node("edge1")), Segment::Deliver]);
    let down = admitted.way(Direction::Downlink, net.node("edge1"), net.node("gnb1")).unwrap();
    assert_eq!(net.nodes(down), ["edge1", "s3", "s1", "gnb1"]);
    // 20 Mbit/s of 1500-byte packets in 1554-byte frames, on three links and two access links,
    // each way.
    assert_eq!(admitted.reserved.len(), 2 * 3 + 2 * 2);
    assert_eq!(admitted.reserved[&up.path.arcs[0]], BitRate(20_720_000));
    let text = ledger.explain(&net.network(), "factory-control").unwrap().to_string();
    for part in [
        "class guaranteed, by its guaranteed rate",
        "downlink: 20Mbps guaranteed (burst 625kB), 40Mbps maximum (burst 1250kB)",
        "uplink: gnb1 > s1 > s3 > edge1",
        "ids: to edge1, deliver",
        "gnb1:p1 -> s1:p3: cost 10, 20720kbps reserved of 97% of 100Mbps",
        "assumed: packets are full",
        "no delay is stated",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn what_does_not_fit_is_refused_with_the_reason() {
    let net = Net::metro();
    let ends = "endpoints: [{ ue: robot-1 }, { dn: plc }]";
    let mut ledger = Ledger::new();
    ledger
        .admit(&net.network(), &slice(&format!("a uplink: {{ guaranteed: 60Mbps }}, {ends}")))
        .unwrap();
    // (slice, part of the refusal)
    let cases = [
        (format!("b uplink: {{ guaranteed: 60Mbps }}, {ends}"), ""), // over the far uplink
        (
            format!("b uplink: {{ guaranteed: 95Mbps }}, {ends}"),
            "uplink from gnb1 to edge1: 95Mbps are to be guaranteed, link gnb1:p2 -> s2:p3 has \
             93629343bps left, 1370657bps are missing; 93629kbps would fit",
        ),
        (format!("b downlink: {{ guaranteed: 95Mbps }}, {ends}"), "downlink from edge1 to gnb1"),
        ("b endpoints: [{ ue: nobody }, { dn: plc }]".into(), "nobody is not attached"),
        (format!("b through: [{{ hook: x, onFailure: drop }}], {ends}"), "there is no hook x"),
        (format!("b through: [{{ hook: nowhere, onFailure: drop }}], {ends}"), "no node can run"),
        (
            format!("b class: urllc, uplink: {{ guaranteed: 1Mbps }}, latency: 1ms, {ends}"),
            "a latency of 1ms cannot be promised: the least that can is",
        ),
        (format!("b class: urllc, uplink: {{ guaranteed: 1Mbps }}, latency: 200ms, {ends}"), ""),
    ];
    for (spec, want) in cases {
        let mut tried = ledger.clone();
        match tried.admit(&net.network(), &slice(&spec)) {
            Ok(_) => assert_eq!(want, "", "{spec}"),
            Err(refusal) => {
                let got = refusal.to_string();
                assert!(!want.is_empty() && got.contains(want), "{spec}: {got}");
                assert_eq!(tried, ledger, "a refusal changes nothing");
            }
        }
    }
}

#[test]
fn a_second_slice_takes_the_other_way_and_a_third_is_told_who_holds_the_link() {
    let net = Net::metro();
    let network = net.network();
    let ends = "endpoints: [{ ue: robot-1 }, { dn: plc }]";
    let named = |name: &str, mbps: u64| {
        slice(&format!("{name} uplink: {{ guaranteed: {mbps}Mbps }}, {ends}"))
    };
    let mut ledger = Ledger::new();
    let (gnb1, edge1) = (net.node("gnb1"), net.node("edge1"));
    let first = ledger.admit(&network, &named("a", 60)).unwrap();
    assert_eq!(
        net.nodes(first.way(Direction::Uplink, gnb1, edge1).unwrap()),
        ["gnb1", "s1", "s3", "edge1"]
    );
    let second = ledger.admit(&network, &named("b", 60)).unwrap();
    let way = second.way(Direction::Uplink, gnb1, edge1).unwrap();
    assert_eq!(net.nodes(way), ["gnb1", "s2", "edge1"]);
    let s2 = Segment::Node(net.node("s2"));
    assert_eq!(way.segments, [s2, Segment::Node(edge1), Segment::Deliver]);
    let refusal = *ledger.admit(&network, &named("c", 60)).unwrap_err();
    let Refusal::Bandwidth { link, available, missing, fits, holders, .. } = refusal else {
        panic!("{refusal}")
    };
    assert!(link == "gnb1:p1 -> s1:p3" || link == "gnb1:p2 -> s2:p3", "{link}");
    assert_eq!(available.0 + missing.0, 60_000_000);
    assert_eq!(fits, BitRate(available.0 / 1000 * 1000));
    assert_eq!(holders.len(), 1);
    // What would fit does.
    let mut fitting = named("c", 1);
    fitting.uplink.guaranteed = Some(fits);
    ledger.admit(&network, &fitting).unwrap();
    // Gone is gone.
    ledger.remove(&"a".parse().unwrap());
    ledger.admit(&network, &named("c", 60)).unwrap();
}

#[test]
fn hooks_are_on_the_way_in_order() {
    let mut net = Net::metro();
    net.hooks.insert("second".parse().unwrap(), vec![net.node("edge2")]);
    let spec = "a uplink: { guaranteed: 10Mbps }, endpoints: [{ ue: robot-1 }, { dn: video }], \
                through: [{ hook: dedup, onFailure: drop }, { hook: second, onFailure: bypass }]";
    let mut ledger = Ledger::new();
    let admitted = ledger.admit(&net.network(), &slice(spec)).unwrap();
    let (gnb1, dc1, edge2) = (net.node("gnb1"), net.node("dc1"), net.node("edge2"));
    let up = admitted.way(Direction::Uplink, gnb1, dc1).unwrap();
    // Both on edge2: its id once, then both functions.
    let (first, second) =
        (Segment::Hook { index: 0, node: edge2 }, Segment::Hook { index: 1, node: edge2 });
    let want = [Segment::Node(edge2), first, second, Segment::Node(dc1), Segment::Deliver];
    assert_eq!(up.segments, want);
    let down = admitted.way(Direction::Downlink, dc1, gnb1).unwrap();
    assert_eq!(down.segments[1..3], [first, second], "the same order both ways");
}

#[test]
fn a_later_slice_does_not_break_an_earlier_promise_of_delay() {
    let net = Net::metro();
    let network = net.network();
    let mut ledger = Ledger::new();
    let ends = "endpoints: [{ ue: robot-1 }, { dn: plc }]";
    let urllc =
        slice(&format!("a class: urllc, uplink: {{ guaranteed: 5Mbps }}, latency: 40ms, {ends}"));
    ledger.admit(&network, &urllc).unwrap();
    let before = ledger.clone();
    // 250 ms of 30 Mbit/s are 937 kB of burst: 78 ms at 97 Mbit/s, on whichever uplink; over the
    // far one it still meets the first at edge1.
    let bursty = |name: &str| {
        slice(&format!(
            "{name} uplink: {{ guaranteed: 30Mbps }}, endpoints: [{{ ue: phone-1 }}, {{ dn: plc }}]"
        ))
    };
    match ledger.admit(&network, &bursty("b")) {
        Ok(admitted) => {
            // It went where it does not meet the first.
            let own = admitted.placed[1].path.arcs.clone();
            let first = &before.get("a").unwrap().placed[1].path.arcs;
            assert!(own.iter().all(|arc| !first.contains(arc)));
        }
        Err(refusal) => panic!("{refusal}"),
    }
    // Nothing is left that does not meet either.
    let video =
        slice("c uplink: { guaranteed: 30Mbps }, endpoints: [{ ue: robot-1 }, { dn: plc }]");
    let after = ledger.clone();
    match ledger.admit(&network, &video) {
        Ok(admitted) => {
            let own = admitted.placed[1].path.arcs.clone();
            let first = &after.get("a").unwrap().placed[1].path.arcs;
            assert!(own.iter().all(|arc| !first.contains(arc)));
        }
        Err(refusal) => assert!(matches!(*refusal, Refusal::OtherSlice { .. }), "{refusal}"),
    }
}

#[test]
fn the_delay_bound_by_hand() {
    // One link of 100 Mbit/s and 300 us, one slice: 20 Mbit/s urllc, so a burst of 12,500 bytes.
    let mut link = Link::new(end("n0", "p0"), end("n1", "p0"));
    link.capacity = Some(BitRate::from_mbps(100));
    link.delay = Some(Delay(300));
    let net = with_hosts(2, vec![link]);
    let mut ledger = Ledger::new();
    let spec = "a class: urllc, uplink: { guaranteed: 20Mbps }, \
                endpoints: [{ ue: h0 }, { dn: h1 }]";
    ledger.admit(&net.network(), &slice(spec)).unwrap();
    let explanation = ledger.explain(&net.network(), "a").unwrap();
    let up = explanation.paths.iter().find(|p| p.direction == Direction::Uplink).unwrap();
    let bound = up.delay.as_ref().unwrap();
    let queue = bound.hops[0].queue.unwrap();
    // 12,500 bytes of IP are 12,950 of frames; the threshold is 80 frames.
    assert_eq!(queue.bursts, Bytes(12_950));
    assert_eq!(queue.threshold, Bytes(124_320));
    assert_eq!(queue.frame, Bytes(1_554));
    let us = ((12_950 + 124_320 + 1_554) * 8u64).div_ceil(97);
    assert_eq!(bound.total, Delay(300 + us));
    // The hop to the host has no stated capacity: said, not guessed.
    assert_eq!(bound.hops.len(), 2);
    assert!(bound.unknown.iter().any(|u| u.contains("queueing into n1:h -> h1:eth0")), "{bound:?}");
}

#[test]
fn a_burst_grows_along_its_path() {
    let link = |a, b| Link {
        capacity: Some(BitRate::from_mbps(100)),
        ..Link::new(end(a, "p0"), end(b, "p1"))
    };
    let net = with_hosts(3, vec![link("n0", "n1"), link("n1", "n2")]);
    let mut ledger = Ledger::new();
    let spec = "a class: urllc, uplink: { guaranteed: 20Mbps }, \
                endpoints: [{ ue: h0 }, { dn: h2 }]";
    ledger.admit(&net.network(), &slice(spec)).unwrap();
    let explanation = ledger.explain(&net.network(), "a").unwrap();
    let up = explanation.paths.iter().find(|p| p.direction == Direction::Uplink).unwrap();
    let queues: Vec<_> =
        up.delay.as_ref().unwrap().hops.iter().filter_map(|hop| hop.queue).collect();
    // 138,824 bytes at 97 Mbit/s; in that time 20 Mbit/s bring 28,624 bytes more.
    assert_eq!((queues[0].bursts, queues[0].nanoseconds), (Bytes(12_950), 11_449_403));
    assert_eq!(queues[1].bursts, Bytes(((12_500 + 28_624) * 1_554u64).div_ceil(1_500)));
}

#[test]
fn what_no_longer_fits_is_waived_and_what_is_cut_off_is_listed() {
    let net = Net::metro();
    let ends = "endpoints: [{ ue: robot-1 }, { dn: plc }]";
    let slices = [
        slice(&format!("a uplink: {{ guaranteed: 60Mbps }}, {ends}")),
        slice(&format!("b uplink: {{ guaranteed: 60Mbps }}, {ends}")),
    ];
    let (ledger, unplaced) = Ledger::rebuilt(&net.network(), &in_order(&slices));
    assert!(unplaced.is_empty());
    assert!(ledger.iter().all(|(_, admitted)| admitted.waived.is_none()));
    let link = |at: &str, port: &str| net.snapshot.link_at(&end(at, port)).unwrap();
    // One uplink left: the first keeps its promise, the second its way.
    let one = Net {
        hooks: net.hooks.clone(),
        ..Net::of(net.snapshot.with_down(2, [link("gnb1", "p2")]))
    };
    let (ledger, unplaced) = Ledger::rebuilt(&one.network(), &in_order(&slices));
    assert!(unplaced.is_empty());
    assert!(ledger.get("a").unwrap().waived.is_none());
    let second = ledger.get("b").unwrap();
    assert!(matches!(second.waived, Some(Refusal::Bandwidth { .. })));
    assert!(second.reserved.is_empty() && second.placed.len() == 2);
    // None left.
    let none = Net::of(one.snapshot.with_down(3, [link("gnb1", "p1"), link("gnb1", "p2")]));
    let (ledger, unplaced) = Ledger::rebuilt(&none.network(), &in_order(&slices));
    assert!(ledger.is_empty());
    let refusal = unplaced.get("a").unwrap();
    assert!(refusal.to_string().contains("not connected"), "{refusal}");
}

#[test]
fn a_loaded_access_link_refuses_too() {
    let link = Link::new(end("n0", "p0"), end("n1", "p0"));
    let mut net = with_hosts(2, vec![link]);
    let mut topology = (**net.snapshot.topology()).clone();
    topology.links[1].capacity = Some(BitRate::from_mbps(10));
    net = Net::of(Snapshot::new(Arc::new(topology), 1));
    let mut ledger = Ledger::new();
    let spec = |mbps| {
        slice(&format!(
            "a uplink: {{ guaranteed: {mbps}Mbps }}, endpoints: [{{ ue: h0 }}, {{ dn: h1 }}]"
        ))
    };
    let refusal = ledger.admit(&net.network(), &spec(10)).unwrap_err().to_string();
    assert!(refusal.contains("link h0:eth0 -> n0:h has 9610303bps left"), "{refusal}");
    ledger.admit(&net.network(), &spec(9)).unwrap();
}

fn end(node: &str, port: &str) -> End {
    End { node: node.parse().unwrap(), port: port.parse().unwrap() }
}

/// Switches n0.. with these links, then a host h<i> on each, without figures.
fn with_hosts(nodes: usize, mut links: Vec<Link>) -> Net {
    let mut all = BTreeMap::new();
    for i in 0..nodes {
        let (switch, host) = (format!("n{i}"), format!("h{i}"));
        all.insert(switch.parse().unwrap(), Node::Switch(Switch::default()));
        all.insert(host.parse().unwrap(), Node::Host(Default::default()));
        links.push(Link::new(end(&switch, "h"), end(&host, "eth0")));
    }
    let topology = Topology { name: "t".parse().unwrap(), nodes: all, links };
    Net::of(Snapshot::new(Arc::new(topology), 1))
}

prop_compose! {
    fn net()(nodes in 2usize..6)(
        edges in proptest::collection::vec((0..nodes, 1..nodes, 1u32..4, 0u64..120), 1..10),
        hooks in proptest::collection::vec(proptest::collection::btree_set(0..nodes, 1..3), 3),
        nodes in Just(nodes),
    ) -> Net {
        let links = edges.iter().enumerate().map(|(i, &(a, by, cost, mbps))| {
            let port = format!("p{i}");
            let b = (a + by) % nodes;
            Link {
                cost: Some(cost),
                capacity: (mbps > 0).then(|| BitRate::from_mbps(mbps)),
                delay: Some(Delay(100)),
                ..Link::new(end(&format!("n{a}"), &port), end(&format!("n{b}"), &port))
            }
        });
        let mut net = with_hosts(nodes, links.collect());
        for (i, nodes) in hooks.iter().enumerate() {
            let nodes = nodes.iter().map(|n| net.node(&format!("n{n}"))).collect();
            net.hooks.insert(format!("k{i}").parse().unwrap(), nodes);
        }
        net
    }
}

prop_compose! {
    fn any_slice()(
        name in 0usize..4,
        class in proptest::sample::select(&Class::ALL[..]),
        rates in (proptest::option::of(1u64..60), proptest::option::of(1u64..60)),
        latency in proptest::option::of(1u64..200),
        endpoints in proptest::collection::btree_map(0usize..6, any::<bool>(), 2..4),
        through in 0usize..4,
    ) -> NetworkSlice {
        let promise = |rate: Option<u64>| Rates {
            guaranteed: rate.map(BitRate::from_mbps),
            ..Rates::default()
        };
        let mut slice = slice("x endpoints: [{ ue: a }, { dn: b }]");
        slice.name = format!("x{name}").parse().unwrap();
        slice.class = class;
        slice.latency = latency.map(Delay::from_ms);
        slice.endpoints = endpoints
            .into_iter()
            .map(|(n, ue)| {
                let side = if ue { Side::Ue } else { Side::Dn };
                Endpoint::new(side, format!("h{n}").parse().unwrap())
            })
            .collect();
        slice.through = (0..through)
            .map(|i| Through {
                hook: format!("k{i}").parse().unwrap(),
                on_failure: OnFailure::Drop,
            })
            .collect();
        NetworkSlice { downlink: promise(rates.0), uplink: promise(rates.1), ..slice }
    }
}

/// What every ledger has to hold, computed anew from its paths.
fn holds(net: &Net, ledger: &Ledger) -> Result<(), TestCaseError> {
    let mut promised: BTreeMap<ArcIx, u64> = BTreeMap::new();
    for (_, admitted) in ledger.iter().filter(|(_, admitted)| admitted.waived.is_none()) {
        for direction in Direction::ALL {
            let rate = admitted.slice.rates(direction).guaranteed.unwrap_or_default();
            let mut most: BTreeMap<ArcIx, u64> = BTreeMap::new();
            for placed in admitted.placed.iter().filter(|p| p.direction == direction) {
                let mut count: BTreeMap<ArcIx, u64> = BTreeMap::new();
                placed.path.arcs.iter().for_each(|arc| *count.entry(*arc).or_default() += 1);
                for (arc, count) in count {
                    let known = most.entry(arc).or_default();
                    *known = count.max(*known);
                }
            }
            for (arc, times) in most {
                *promised.entry(arc).or_default() += times * frame_rate(rate).0;
            }
        }
        written(net, admitted)?;
    }
    for (arc, sum) in promised {
        prop_assert_eq!(ledger.reserved(arc), BitRate(sum));
        if let Some(capacity) = net.snapshot.arc(arc).unwrap().capacity {
            prop_assert!(sum <= usable(capacity).0, "{} promised of {capacity}", BitRate(sum));
        }
    }
    Ok(())
}

/// Each way does what its ids say, and each pair has one.
fn written(net: &Net, admitted: &Admitted) -> Result<(), TestCaseError> {
    for placed in &admitted.placed {
        prop_assert!(placed.segments.len() <= MAX_IDS);
        let (mut at, mut arcs, mut hooks, mut run) = (placed.from, Vec::new(), Vec::new(), 0);
        for (i, segment) in placed.segments.iter().enumerate() {
            match *segment {
                Segment::Node(node) => {
                    prop_assert!(node != at, "an id for where the packet is already");
                    let tree = net.forwarding.tree(&net.snapshot, node);
                    arcs.extend(tree.walk(&net.snapshot, at).map(|arc| arc.ix));
                    (at, run) = (node, 0);
                }
                Segment::Hook { index, node } => {
                    prop_assert_eq!(node, at);
                    let can = &net.hooks[&admitted.slice.through[index].hook];
                    prop_assert!(can.contains(&node));
                    hooks.push(index);
                    run += 1;
                    prop_assert!(run <= MAX_HOOKS_IN_A_ROW);
                }
                Segment::Deliver => prop_assert_eq!(i, placed.segments.len() - 1),
            }
        }
        prop_assert_eq!(at, placed.to);
        prop_assert_eq!(&arcs, &placed.path.arcs);
        prop_assert_eq!(hooks, (0..admitted.slice.through.len()).collect::<Vec<_>>());
    }
    for (from, to, direction) in admitted.slice.pairs() {
        let at = |name| net.endpoints[name].switch;
        prop_assert!(admitted.way(direction, at(from), at(to)).is_some());
    }
    Ok(())
}

/// Every slice's promised latency, against the bound that `explain` prints.
fn in_time(net: &Net, ledger: &Ledger) -> Result<(), TestCaseError> {
    for (name, admitted) in ledger.iter().filter(|(_, admitted)| admitted.waived.is_none()) {
        let Some(latency) = admitted.slice.latency else { continue };
        for path in ledger.explain(&net.network(), name.as_str()).unwrap().paths {
            let bound = path.delay.map(|bound| bound.total);
            prop_assert!(bound.is_some_and(|bound| bound <= latency), "{bound:?} > {latency}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn promises_never_exceed_what_there_is(
        net in net(),
        steps in proptest::collection::vec((any_slice(), 0u8..4), 1..8),
        down in proptest::collection::btree_set(0u32..10, 0..3),
    ) {
        let mut ledger = Ledger::new();
        for (slice, step) in &steps {
            let before = ledger.clone();
            if *step == 0 {
                ledger.remove(&slice.name);
            } else if let Err(refusal) = ledger.admit(&net.network(), slice) {
                prop_assert!(!refusal.to_string().is_empty());
                prop_assert_eq!(&ledger, &before);
            }
            holds(&net, &ledger)?;
            in_time(&net, &ledger)?;
        }
        // Links fail: what is kept is still within what there is.
        let links = net.snapshot.topology().links.len() as u32;
        let down: Vec<LinkIx> = down.into_iter().filter(|l| *l < links).map(LinkIx).collect();
        let hooks = net.hooks.clone();
        let broken = Net { hooks, ..Net::of(net.snapshot.with_down(2, down)) };
        let slices: Vec<NetworkSlice> = ledger.iter().map(|(_, a)| a.slice.clone()).collect();
        let (rebuilt, unplaced) = Ledger::rebuilt(&broken.network(), &in_order(&slices));
        prop_assert_eq!(rebuilt.len() + unplaced.len(), slices.len());
        holds(&broken, &rebuilt)?;
        in_time(&broken, &rebuilt)?;
    }

    #[test]
    fn what_is_said_to_fit_fits(net in net(), first in any_slice(), mut second in any_slice()) {
        let mut ledger = Ledger::new();
        drop(ledger.admit(&net.network(), &first));
        second.name = "second".parse().unwrap();
        second.latency = None;
        if let Err(refusal) = ledger.admit(&net.network(), &second)
            && let Refusal::Bandwidth { direction, wanted, available, missing, fits, .. } = *refusal
        {
            prop_assert!(fits < wanted && available < wanted);
            prop_assert_eq!(available.0 + missing.0, wanted.0);
            // The other direction may be too much as well: leave it out.
            let only = |fits: BitRate| {
                let rates = Rates {
                    guaranteed: Some(fits).filter(|fits| fits.0 > 0),
                    ..Rates::default()
                };
                let mut slice = second.clone();
                match direction {
                    Direction::Downlink => (slice.downlink, slice.uplink) = (rates, Rates::default()),
                    Direction::Uplink => slice.uplink = rates,
                }
                slice
            };
            if let Err(refusal) = ledger.clone().admit(&net.network(), &only(fits)) {
                // Only another slice's delay can stand against it.
                prop_assert!(matches!(*refusal, Refusal::OtherSlice { .. }), "{refusal}");
            }
            let more = BitRate(fits.0 + 2_000);
            if second.endpoints.len() == 2 && more < wanted {
                prop_assert!(ledger.clone().admit(&net.network(), &only(more)).is_err());
            }
        }
    }
}
