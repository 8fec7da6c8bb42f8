//! Arrivals and departures on small random networks: never over-committed, after no single
//! failure that a slice is protected against; delay bounds against a solver of their own.

mod net;
mod recount;

use std::collections::BTreeMap;
use std::sync::Arc;

use net::{Net, in_order, slice};
use proptest::prelude::*;
use recount::Recount;
use selvedge_slices::admission::{InOrder, Offer, Placed, Protection, frame_rate};
use selvedge_slices::{
    Admitted, Direction, Endpoint, Ledger, NetworkSlice, ObjectName, Refusal, Side,
};
use selvedge_topology::{
    ArcIx, BitRate, Delay, End, Link, LinkIx, Metric, Node, NodeName, Scratch, Snapshot, Switch,
    Topology, lengths_from,
};

impl Net {
    fn new(nodes: usize, links: Vec<Link>) -> Self {
        let switch = |i: usize| (format!("n{i}").parse().unwrap(), Node::Switch(Switch::default()));
        let all = (0..nodes).map(switch).collect();
        let topology = Topology { name: "t".parse().unwrap(), nodes: all, links };
        Self::of(Snapshot::new(Arc::new(topology), 1))
    }

    fn of(snapshot: Snapshot) -> Self {
        Self::one_each(snapshot, 'h')
    }
}

fn link(i: usize, a: usize, b: usize, mbps: u64) -> Link {
    let end = |node: usize| End {
        node: format!("n{node}").parse().unwrap(),
        port: format!("p{i}").parse().unwrap(),
    };
    Link {
        capacity: Some(BitRate::from_mbps(mbps)),
        delay: Some(Delay(100)),
        ..Link::new(end(a), end(b))
    }
}

prop_compose! {
    fn net()(nodes in 4usize..9)(
        chords in proptest::collection::vec((0..nodes, 1..nodes, 20u64..200, 0u32..6), 1..12),
        nodes in Just(nodes),
    ) -> Net {
        let ring = (0..nodes).map(|i| link(i, i, (i + 1) % nodes, 150));
        let chords = chords.iter().enumerate().map(|(i, &(a, by, mbps, group))| {
            let srlg = if group > 2 { vec![group] } else { Vec::new() };
            Link { srlg, ..link(nodes + i, a, (a + by) % nodes, mbps) }
        });
        Net::new(nodes, ring.chain(chords).collect())
    }
}

fn any_slice(nodes: usize) -> impl Strategy<Value = NetworkSlice> {
    let availability = proptest::sample::select(&["99", "99.9", "99.99", "99.999"][..]);
    let rates = (1u64..40, 0u64..40);
    let latency = proptest::option::weighted(0.3, 10u64..200);
    let ends = proptest::collection::btree_set(0..nodes, 2..4);
    let level = proptest::sample::select(&["shared", "shared", "non-shared"][..]);
    (0usize..24, rates, latency, (availability, level), ends).prop_map(
        |(name, (down, up), latency, (availability, level), ends)| {
            let mut spec = format!("x{name} downlink: {{ guaranteed: {down}Mbps }}");
            if up > 0 {
                spec += &format!(", uplink: {{ guaranteed: {up}Mbps, burst: 20kB }}");
            }
            spec += &latency.map_or(String::new(), |ms| format!(", latency: {ms}ms"));
            let ends: Vec<usize> = ends.into_iter().collect();
            let ues: Vec<String> = ends[1..].iter().map(|n| format!("{{ ue: h{n} }}")).collect();
            spec += &format!(", endpoints: [{{ dn: h{} }}, {}]", ends[0], ues.join(", "));
            spec += &format!(", availability: {availability}, resourceSharingLevel: {level}");
            slice(&spec)
        },
    )
}

/// The bounds of every arc in ns by plain iteration over every slice's ways, in floating point;
/// `None`: they do not settle.
fn bounds(net: &Net, ledger: &Ledger) -> Option<BTreeMap<ArcIx, f64>> {
    let mut waits: BTreeMap<ArcIx, f64> = BTreeMap::new();
    // Close to where there is no bound it takes hundreds of thousands.
    for _ in 0..2_000_000 {
        let arcs = net.snapshot.arcs().iter();
        let mut bursts: BTreeMap<ArcIx, f64> = arcs.map(|arc| (arc.ix, 0.0)).collect();
        for (_, admitted) in ledger.iter() {
            for direction in Direction::ALL {
                let mut worst: BTreeMap<ArcIx, f64> = BTreeMap::new();
                for way in ways(admitted, direction) {
                    let rates = admitted.slice.rates(direction);
                    let Some(rate) = rates.guaranteed else { continue };
                    let mut waited = 0.0;
                    for arc in way {
                        let own = rates.guaranteed_burst(admitted.slice.class).0 as f64;
                        let burst = own + rate.0 as f64 * waited / 8e9;
                        let known = worst.entry(*arc).or_default();
                        *known = known.max(burst);
                        waited += waits.get(arc).copied().unwrap_or(0.0);
                    }
                }
                for (arc, burst) in worst {
                    *bursts.entry(arc).or_default() += burst;
                }
            }
        }
        let next: BTreeMap<ArcIx, f64> = bursts
            .iter()
            .map(|(arc, burst)| {
                let rate = net.snapshot.arc(*arc).unwrap().capacity.unwrap().0 as f64 * 0.97;
                let threshold = (rate * 0.004 / 8.0).max(80.0 * 1554.0);
                (*arc, (burst * 1554.0 / 1500.0 + threshold + 1554.0) * 8e9 / rate)
            })
            .collect();
        if next.values().any(|wait| *wait > 1e12) {
            return None;
        }
        let still = next
            .iter()
            .all(|(arc, wait)| waits.get(arc).is_some_and(|before| (wait - before).abs() < 1e-3));
        waits = next;
        if still {
            return Some(waits);
        }
    }
    None
}

fn ways(admitted: &Admitted, direction: Direction) -> impl Iterator<Item = &[ArcIx]> {
    let placed = admitted.placed.iter().filter(move |placed| placed.direction == direction);
    placed.flat_map(|placed| {
        let backup = placed.backup.iter().map(|backup| &backup.path.arcs[..]);
        std::iter::once(&placed.path.arcs[..]).chain(backup)
    })
}

#[derive(Clone, Debug)]
enum Step {
    /// Behind all others, whatever was there under that name.
    Put(Box<NetworkSlice>),
    /// In the place of one.
    Replace(prop::sample::Index, Box<NetworkSlice>),
    Remove(String),
    /// Takes a link down, or up again.
    Flip(LinkIx),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Every state of arrivals and departures, before and after every single failure.
    #[test]
    fn never_over_committed(
        (net, steps) in net().prop_flat_map(|net| {
            let steps = proptest::collection::vec((any_slice(net.snapshot.len()), 0u8..4), 1..40);
            (Just(net), steps)
        })
    ) {
        let mut ledger = Ledger::new();
        let mut recount = Recount::new(&net.snapshot);
        for (slice, step) in &steps {
            if *step == 0 {
                if let Some(gone) = ledger.remove(&slice.name) {
                    recount.count(&gone, -1).map_err(TestCaseError::fail)?;
                }
                continue;
            }
            let before = ledger.clone();
            let replaced = ledger.get(slice.name.as_str()).cloned();
            match ledger.admit(&net.network(), slice) {
                Ok(admitted) => {
                    if let Some(gone) = replaced {
                        recount.count(&gone, -1).map_err(TestCaseError::fail)?;
                    }
                    recount.count(admitted, 1).map_err(TestCaseError::fail)?;
                }
                Err(refusal) => {
                    prop_assert!(ledger == before, "changed by {refusal}");
                }
            }
        }
        let all = ledger.iter().map(|(_, admitted)| admitted);
        recount.agrees(&net.snapshot, all).map_err(TestCaseError::fail)?;
        for arc in net.snapshot.arcs() {
            prop_assert_eq!(ledger.reserved(arc.ix).0, recount.worst(arc.ix));
        }
        // Delay bounds: as if computed from nothing, and every promise within them.
        let waits = bounds(&net, &ledger);
        for (name, admitted) in ledger.iter() {
            let paths = ledger.explain(&net.network(), name.as_str()).unwrap().paths;
            for path in paths {
                let total = path.delay.map(|delay| delay.total.us());
                prop_assert_eq!(total.is_some(), waits.is_some());
                let mut arcs = Direction::ALL.into_iter().flat_map(|d| ways(admitted, d));
                let named = |way: &[ArcIx]| {
                    way.len() == path.links.len()
                        && way.iter().zip(&path.links).all(|(arc, link)| {
                            let (near, far) = net.snapshot.ends(*arc);
                            link.link == format!("{near} -> {far}")
                        })
                };
                let way = arcs.find(|way| named(way)).unwrap();
                if let (Some(total), Some(waits)) = (total, &waits) {
                    let ns: f64 = way.iter().map(|arc| waits[arc] + 100_000.0).sum();
                    let error = total as f64 - ns / 1000.0;
                    // Close to where there is no bound every rounding counts many times.
                    let close = 20.0 + ns / 1000.0 * 1e-5;
                    prop_assert!(error.abs() < close, "{total} us, {ns} ns");
                }
                if let Some(latency) = admitted.slice.latency {
                    prop_assert!(total.is_some_and(|total| total <= latency.us()));
                }
            }
        }
    }

    /// After one link or switch has failed, every slice that is protected against it keeps its
    /// promise, on its backup.
    #[test]
    fn a_failure_leaves_the_protected_their_promise(
        (net, slices) in net().prop_flat_map(|net| {
            let slices = proptest::collection::vec(any_slice(net.snapshot.len()), 1..16);
            (Just(net), slices)
        }),
        failed in any::<proptest::sample::Index>(),
    ) {
        let slices: BTreeMap<ObjectName, NetworkSlice> =
            slices.into_iter().map(|slice| (slice.name.clone(), slice)).collect();
        let (before, _) = Ledger::rebuilt(&net.network(), &in_order(slices.values()));
        let links = net.snapshot.topology().links.len();
        let failed = selvedge_topology::LinkIx(failed.index(links) as u32);
        let broken = Net::of(net.snapshot.with_down(2, [failed]));
        let (after, _) = Ledger::rebuilt(&broken.network(), &in_order(slices.values()));
        for (name, admitted) in before.iter() {
            let level = Protection::of(admitted.slice.availability);
            if level == Protection::None || admitted.waived.is_some() {
                continue;
            }
            let now = after.get(name.as_str()).unwrap();
            prop_assert!(now.waived.is_none(), "{name}: {:?}", now.waived);
            for (was, is) in admitted.placed.iter().zip(&now.placed) {
                let hit = was.path.arcs.iter().any(|arc| arc.link() == failed);
                let want = if hit { &was.backup.as_ref().unwrap().path } else { &was.path };
                prop_assert_eq!(want, &is.path);
            }
        }
        let mut load: BTreeMap<ArcIx, u64> = BTreeMap::new();
        for (_, admitted) in after.iter() {
            for (arc, rate) in &admitted.reserved {
                *load.entry(*arc).or_default() += rate.0;
            }
        }
        for (arc, load) in load {
            let capacity = broken.snapshot.arc(arc).unwrap().capacity.unwrap();
            prop_assert!(load <= capacity.0 / 100 * 97);
        }
    }

    /// Whatever comes, goes, fails and is mended: what was updated is what is made from nothing.
    #[test]
    fn updated_is_rebuilt(
        (net, steps) in net().prop_flat_map(|net| {
            let links = net.snapshot.topology().links.len() as u32;
            let step = prop_oneof![
                3 => any_slice(net.snapshot.len()).prop_map(|slice| Step::Put(Box::new(slice))),
                1 => (any::<prop::sample::Index>(), any_slice(net.snapshot.len()))
                    .prop_map(|(at, slice)| Step::Replace(at, Box::new(slice))),
                1 => (0usize..24).prop_map(|name| Step::Remove(format!("x{name}"))),
                2 => (0..links).prop_map(|link| Step::Flip(LinkIx(link))),
            ];
            (Just(net), proptest::collection::vec(step, 1..30))
        }),
    ) {
        let mut net = net;
        let mut slices = InOrder::new();
        let (mut ledger, mut last) = (Ledger::new(), Ledger::new());
        for (number, step) in (0u64..).zip(steps) {
            let key = |slices: &InOrder, name: &str| {
                slices.keys().find(|key| key.1.as_str() == name).cloned()
            };
            match step {
                Step::Put(slice) => {
                    key(&slices, slice.name.as_str()).and_then(|key| slices.remove(&key));
                    slices.insert((number, slice.name.clone()), Arc::new(*slice));
                }
                Step::Replace(at, mut slice) => {
                    let at = slices.keys().nth(at.index(slices.len().max(1))).cloned();
                    if let Some(key) = at {
                        slice.name = key.1.clone();
                        slices.insert(key, Arc::new(*slice));
                    }
                }
                Step::Remove(name) => {
                    key(&slices, &name).and_then(|key| slices.remove(&key));
                }
                Step::Flip(link) => {
                    let mut down = net.snapshot.down().clone();
                    if !down.remove(&link) {
                        down.insert(link);
                    }
                    net = Net::of(net.snapshot.with_down(2, down));
                }
            }
            let (updated, out) = ledger.updated(&net.network(), &slices);
            let (rebuilt, left_out) = Ledger::rebuilt(&net.network(), &slices);
            prop_assert!(updated == rebuilt);
            prop_assert_eq!(out, left_out);
            ledger = updated;
            last = rebuilt;
        }
        for slice in slices.values() {
            let explained = |of: &Ledger| of.explain(&net.network(), slice.name.as_str());
            prop_assert_eq!(explained(&ledger), explained(&last));
        }
    }

    /// Where bandwidth is missing, the rate that is said to fit is admitted. A kbit/s more is not,
    /// unless backups are asked for: with another rate these may take other ways.
    #[test]
    fn what_is_said_to_fit_is_the_largest_that_does(
        (net, slices, last) in net().prop_flat_map(|net| {
            let nodes = net.snapshot.len();
            (Just(net), proptest::collection::vec(any_slice(nodes), 1..30), any_slice(nodes))
        })
    ) {
        // No delays: they would refuse what has the bandwidth.
        let at_leisure = |slice: &NetworkSlice| NetworkSlice { latency: None, ..slice.clone() };
        let mut ledger = Ledger::new();
        for slice in &slices {
            drop(ledger.admit(&net.network(), &at_leisure(slice)));
        }
        let last = at_leisure(&last);
        let result = ledger.clone().admit(&net.network(), &last).map(drop);
        let Err(Refusal::Bandwidth { direction, fits, .. }) = result.map_err(|why| *why) else {
            return Ok(());
        };
        let admits = |kbps: u64| {
            let mut less = last.clone();
            let rate = Some(BitRate(kbps * 1000)).filter(|rate| rate.0 > 0);
            match direction {
                Direction::Downlink => {
                    (less.downlink.guaranteed, less.uplink.guaranteed) = (rate, None);
                }
                Direction::Uplink => less.uplink.guaranteed = rate,
            }
            ledger.clone().admit(&net.network(), &less).is_ok()
        };
        let fits = fits.0 / 1000;
        prop_assert!(fits == 0 || admits(fits), "{direction}: {fits} kbit/s do not fit");
        let protected = Protection::of(last.availability) > Protection::None;
        prop_assert!(protected || !admits(fits + 1), "{direction}: more than {fits} kbit/s fit");
        // The rest of the slice being as it was, that is what is offered.
        let mut less = last.clone();
        match direction {
            Direction::Downlink => less.downlink.guaranteed = Some(BitRate(fits * 1000)),
            Direction::Uplink => less.uplink.guaranteed = Some(BitRate(fits * 1000)),
        }
        let own = |e: &Endpoint| Direction::ALL.iter().any(|d| e.rates(*d).guaranteed.is_some());
        if fits >= 64 && !last.endpoints.iter().any(own) {
            let offers = ledger.offers(&net.network(), &last, &[]);
            let (downlink, uplink) = (less.downlink.guaranteed, less.uplink.guaranteed);
            let wanted = Offer::Rate { downlink, uplink };
            let admitted = ledger.admit(&net.network(), &less).is_ok();
            prop_assert!(!admitted || offers.contains(&wanted), "{wanted}, not {offers:?}");
        }
    }

    /// An offer is admitted; where less rate is offered, a little more is not.
    #[test]
    fn offers_hold(
        (net, slices, last) in net().prop_flat_map(|net| {
            let nodes = net.snapshot.len();
            (Just(net), proptest::collection::vec(any_slice(nodes), 1..16), any_slice(nodes))
        })
    ) {
        let mut ledger = Ledger::new();
        for slice in &slices {
            drop(ledger.admit(&net.network(), slice));
        }
        let sites: Vec<NodeName> = net.endpoints.keys().cloned().collect();
        let offers = ledger.offers(&net.network(), &last, &sites);
        let admitted = ledger.clone().admit(&net.network(), &last).is_ok();
        prop_assert!(!admitted || offers.is_empty());
        for offer in offers {
            prop_assert!(offer.applied(&last) != last);
            let admits = |offer: &Offer| {
                ledger.clone().admit(&net.network(), &offer.applied(&last)).is_ok()
            };
            prop_assert!(admits(&offer), "{offer}");
            // A little less delay is refused.
            match &offer {
                Offer::Latency(Delay(us)) if Some(Delay(us - 1)) > last.latency => {
                    prop_assert!(!admits(&Offer::Latency(Delay(us - 1))), "{offer}");
                }
                Offer::Site { instead_of, site } => {
                    let us = |site: &NodeName| {
                        let ue = last.endpoints_on(Side::Ue).next().unwrap();
                        let [ue, site] = [ue, site].map(|name| net.endpoints[name].switch);
                        let scratch = &mut Scratch::new();
                        let graph = net.snapshot.graph();
                        lengths_from(graph, scratch, ue, Metric::Delay)[site.index()].sum()
                    };
                    let free = sites.iter().filter(|s| last.endpoints.iter().all(|e| e.name != **s));
                    for nearer in free.filter(|other| us(other) < us(site)) {
                        let (instead_of, site) = (instead_of.clone(), nearer.clone());
                        let nearer = Offer::Site { instead_of, site };
                        prop_assert!(!admits(&nearer), "{nearer}, not {offer}");
                    }
                }
                _ => {}
            }
        }
    }
}

#[test]
fn slices_that_cannot_fail_together_share_spare_capacity() {
    // The third way has room for one of two backups.
    let net = three_ways();
    let mut ledger = Ledger::new();
    let spec = |name, mbps| protected(name, mbps, "shared");
    ledger.admit(&net.network(), &spec("a", 60)).unwrap();
    ledger.admit(&net.network(), &spec("b", 60)).unwrap();
    let [a, b] = ["a", "b"].map(|name| ledger.get(name).unwrap());
    let (a, b) = (way(a), way(b));
    assert_ne!(a.path, b.path);
    let frames = frame_rate(BitRate::from_mbps(60));
    let shared = b.backup.unwrap().path.arcs[0];
    assert_eq!(a.backup.unwrap().path.arcs[0], shared);
    assert_eq!(ledger.reserved(shared), frames, "one of them at a time");
    let refusal = ledger.admit(&net.network(), &spec("c", 60)).unwrap_err().to_string();
    assert!(refusal.contains("60Mbps are to be guaranteed"), "{refusal}");
}

/// Three ways of 100 Mbit/s from n0 to n1, by n2, n3 and n4.
fn three_ways() -> Net {
    let ends = [(0, 2), (2, 1), (0, 3), (3, 1), (0, 4), (4, 1)];
    let links = ends.iter().enumerate().map(|(i, &(a, b))| link(i, a, b, 100));
    Net::new(5, links.collect())
}

fn protected(name: &str, mbps: u64, level: &str) -> NetworkSlice {
    slice(&format!(
        "{name} uplink: {{ guaranteed: {mbps}Mbps }}, availability: 99.9, \
         resourceSharingLevel: {level}, endpoints: [{{ ue: h0 }}, {{ dn: h1 }}]"
    ))
}

fn way(admitted: &Admitted) -> Placed {
    admitted.placed.iter().find(|p| p.direction == Direction::Uplink).unwrap().clone()
}

/// TS 28.541 §6.3.3: what is allocated to a slice that is non-shared is no other slice's.
#[test]
fn what_is_not_shared_is_kept_for_one_alone() {
    let net = three_ways();
    // The backups of a and b meet where one of both would fit at a time.
    for (first, second) in [("shared", "non-shared"), ("non-shared", "shared")] {
        let mut ledger = Ledger::new();
        ledger.admit(&net.network(), &protected("a", 60, first)).unwrap();
        let wanted = protected("b", 60, second);
        let refusal = ledger.admit(&net.network(), &wanted).unwrap_err().to_string();
        assert!(refusal.contains("60Mbps are to be guaranteed"), "{refusal}");
        // What it comes to is what is left beside the other's backup.
        let offers = ledger.offers(&net.network(), &wanted, &[]);
        let shared = offers.contains(&Offer::Shared);
        assert_eq!(shared, second == "non-shared", "{offers:?}");
        let less = offers.iter().find(|offer| matches!(offer, Offer::Rate { .. })).unwrap();
        let admitted = ledger.admit(&net.network(), &less.applied(&wanted)).unwrap();
        let Offer::Rate { uplink: Some(rate), .. } = less else { panic!("{less}") };
        assert!((33..36).contains(&(rate.0 / 1_000_000)), "{less}");
        let arc = way(admitted).backup.unwrap().path.arcs[0];
        let both = frame_rate(BitRate::from_mbps(60)).0 + frame_rate(*rate).0;
        assert_eq!(ledger.reserved(arc).0, both, "beside each other");
    }
    // Held by name: whoever is refused there is told so.
    let mut ledger = Ledger::new();
    let admitted = ledger.admit(&net.network(), &protected("a", 60, "non-shared")).unwrap();
    assert!(admitted.spare.is_empty());
    let backup = way(admitted).backup.unwrap();
    let held = vec![("a".parse().unwrap(), frame_rate(BitRate::from_mbps(60)))];
    assert_eq!(ledger.holders(backup.path.arcs[0], 8), held);
    let promises = ledger.explain(&net.network(), "a").unwrap().promises;
    assert!(promises.iter().any(|line| line.starts_with("not shared")), "{promises:?}");
}

#[test]
fn without_a_second_way_the_refusal_says_what_all_ways_need() {
    // Two ways to n3 and two from there to n6.
    let ends = [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4), (3, 5), (4, 6), (5, 6)];
    let links = ends.iter().enumerate().map(|(i, &(a, b))| link(i, a, b, 100));
    let net = Net::new(7, links.collect());
    let mut ledger = Ledger::new();
    let spec = |availability| {
        slice(&format!(
            "a uplink: {{ guaranteed: 1Mbps }}, availability: {availability}, \
             endpoints: [{{ ue: h0 }}, {{ dn: h6 }}]"
        ))
    };
    let refusal = *ledger.admit(&net.network(), &spec("99.99")).unwrap_err();
    let text = refusal.to_string();
    assert!(text.contains("every way needs switch n3"), "{text}");
    let Refusal::Protection { wanted, offered, .. } = refusal else { panic!("{text}") };
    assert_eq!(wanted, Protection::Node);
    assert_eq!(offered, Protection::Link);
}
