//! Backups and spare capacity that are not what they should be: each must be found, and nothing
//! that admission rightly made.

use selvedge_pipeline::PolicyEntry;
use selvedge_slices::ObjectKind;

use super::*;
use crate::ObjectId;
use crate::prove::{Backup, Level, Protected, Slice};

/// `OBJECTS`, with the slice protected against whatever there is.
fn protected() -> Core {
    let text = include_str!("../../../../../examples/metro/topology.yaml");
    core_of(text, &OBJECTS.replace("through:", "availability: 99.999\n  through:"))
}

fn node(world: &World, name: &str) -> usize {
    world.nodes.iter().position(|node| node.as_str() == name).expect("a switch")
}

/// The links between switches, one after the other.
fn hops(world: &World, names: &[&str]) -> Vec<(usize, u32)> {
    let hop = |pair: &[&str]| {
        let (from, to) = (node(world, pair[0]), node(world, pair[1]));
        let mut wires = world.wires.iter().filter(|((at, _), wire)| (*at, wire.node) == (from, to));
        (from, wires.next().expect("a link").1.link)
    };
    names.windows(2).map(hop).collect()
}

fn change(world: &mut World, change: impl Fn(&mut Slice)) {
    for (id, slice) in &world.slices.clone() {
        if slice.protected.is_some() {
            let mut slice = Slice::clone(slice);
            change(&mut slice);
            world.slices.insert(*id, Arc::new(slice));
        }
    }
}

fn protect(world: &mut World, change_it: impl Fn(&mut Protected)) {
    change(world, |slice| change_it(Arc::make_mut(slice.protected.as_mut().expect("protected"))));
}

/// Changes the backup from robot-1 to plc.
fn uplink(world: &mut World, change_it: impl Fn(&mut Backup)) {
    protect(world, |protected| {
        let uplinks = protected.backups.iter_mut();
        let mut uplinks = uplinks.filter(|(key, _)| key.0 == selvedge_pipeline::Direction::Uplink);
        let (_, backup) = uplinks.next().expect("an uplink");
        change_it(backup.as_mut().expect("a backup"));
    });
}

fn level(world: &mut World, level: Level) {
    protect(world, |protected| protected.level = level);
}

fn unprotected(world: &World, tables: &Tables) -> Vec<CounterExample> {
    let mut found = check(world, tables);
    found.retain(|found| found.defect == Defect::Unprotected);
    found
}

/// The link of gnb1 to s2 shares the risk of that to s1.
fn share_risk(world: &mut World) {
    let links = hops(world, &["s1", "gnb1", "s2"]);
    let groups = Arc::make_mut(&mut world.groups);
    groups[links[1].1 as usize] = groups[links[0].1 as usize].clone();
}

const DETOUR: [&str; 6] = ["gnb1", "s2", "s1", "edge2", "s2", "edge1"];

#[test]
fn what_admission_protects_is_protected() {
    let core = protected();
    let world = core.world();
    let slices = world.slices.values().filter_map(|slice| slice.protected.as_ref());
    let backups: Vec<_> = slices.flat_map(|protected| &protected.backups).collect();
    assert_eq!(backups.len(), 2, "{backups:?}");
    let want = hops(&world, &["gnb1", "s2", "edge1"]);
    let uplink = backups.iter().find(|((_, from, _), _)| *from == node(&world, "gnb1")).unwrap();
    assert_eq!(uplink.1.as_ref().unwrap().hops, want);
    assert_eq!(check(&world, &core.derived.tables), []);
}

#[test]
fn planted_backups_are_found() {
    type Plant = fn(&mut World);
    let cases: &[(&str, Plant, &str)] = &[
        ("none", |w| protect(w, |p| p.backups.values_mut().for_each(|b| *b = None)), "no backup"),
        ("none that is known", |w| protect(w, |p| p.backups.clear()), "there is no backup"),
        (
            "the way itself",
            |w| {
                let way = hops(w, &["gnb1", "s1", "s3", "edge1"]);
                uplink(w, |backup| backup.hops = way.clone());
            },
            "loss of the link between",
        ),
        (
            "a link of the way",
            |w| {
                let way = hops(w, &["gnb1", "s2", "s3", "edge1"]);
                uplink(w, |backup| backup.hops = way.clone());
                level(w, Level::Link);
            },
            "loss of the link between edge1 and s3",
        ),
        (
            "a switch of the way",
            |w| {
                let way = hops(w, &DETOUR);
                uplink(w, |backup| backup.hops = way.clone());
                level(w, Level::Node);
            },
            "loss of switch s1",
        ),
        ("a risk of the way", share_risk, "loss of shared-risk group 4"),
        (
            "a link that is down",
            |w| {
                let link = hops(w, &["s2", "edge1"])[0].1;
                Arc::make_mut(&mut w.wires).retain(|_, wire| wire.link != link);
            },
            "leaves s2 by a link that is not usable",
        ),
        ("too short", |w| uplink(w, |b| b.hops.truncate(1)), "its backup ends at s2"),
        ("a gap", |w| uplink(w, |b| b.hops = vec![b.hops[1]]), "breaks off at gnb1"),
        ("no hook", |w| uplink(w, |b| b.hooks.clear()), "not go through its hooks"),
        (
            "a hook elsewhere",
            |w| {
                let dc1 = node(w, "dc1");
                uplink(w, |backup| backup.hooks[0].0 = dc1);
            },
            "not go through its hooks",
        ),
        (
            "another hook",
            |w| uplink(w, |backup| backup.hooks[0].1 = "other".into()),
            "not go through its hooks",
        ),
    ];
    let core = protected();
    for (what, plant, want) in cases {
        let mut world = core.world();
        plant(&mut world);
        let found = unprotected(&world, &core.derived.tables);
        let text = found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(text.contains(want), "{what}: found {text:?}");
    }
}

#[test]
fn what_a_level_does_not_cover_is_no_defect() {
    type Plant = fn(&mut World);
    let cases: &[(&str, Plant, Level)] = &[
        (
            "a switch of the way",
            |w| {
                let way = hops(w, &DETOUR);
                uplink(w, |backup| backup.hops = way.clone());
            },
            Level::Link,
        ),
        ("a risk of the way", share_risk, Level::Node),
    ];
    let core = protected();
    for (what, plant, level) in cases {
        let mut world = core.world();
        plant(&mut world);
        protect(&mut world, |protected| protected.level = *level);
        assert_eq!(check(&world, &core.derived.tables), [], "{what}");
        // Whoever is not protected needs no backup.
        protect(&mut world, |protected| protected.backups.clear());
        change(&mut world, |slice| slice.protected = None);
        assert_eq!(check(&world, &core.derived.tables), [], "{what}");
    }
}

/// The ids that lead packets of the slice over their backup: what the ledger believes is as ever.
fn over_the_backup(core: &Core, tables: &Tables) -> (Entry, Entry) {
    let s2 = core.numbers.known_node(&"s2".parse().unwrap()).unwrap().0;
    let policies = tables["gnb1"].values().find_map(|entry| match entry {
        Entry::Policy(policy) if has_hook(policy) => Some(policy),
        _ => None,
    });
    let right = policies.expect("a policy with a hook").clone();
    let sids = [s2].into_iter().chain(right.paths[0].sids.iter().copied()).collect();
    let wrong = PolicyEntry::one(right.policy, sids);
    (Entry::Policy(right), Entry::Policy(wrong))
}

#[test]
fn it_is_the_way_that_packets_take_that_counts() {
    let core = protected();
    let mut tables = core.derived.tables.clone();
    // The cheapest way from s2 to edge1 is over s3: a link of the way, but not of the backup.
    let (_, wrong) = over_the_backup(&core, &tables);
    table(&mut tables, "gnb1").insert(wrong);
    let found = check(&core.world(), &tables);
    let text = found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(text.contains("loss of the link between gnb1 and s2 either"), "{text}");
    assert!(text.contains(" at gnb1 -> s2 -> "), "{text}");
}

#[test]
fn a_plan_that_takes_protection_away_is_refused() {
    let core = protected();
    let (world, held) = (core.world(), &core.derived.tables);
    let before = view(&world, held);
    let (right, wrong) = over_the_backup(&core, held);
    let step = |stage, switch: &str, entry: &Entry| {
        let updates = [(switch.parse().unwrap(), vec![Update::Modify(entry.clone())])].into();
        Step { stage, updates }
    };
    let away = step(Stage::Ingress, "gnb1", &wrong);
    let back = step(Stage::Removal, "gnb1", &right);
    let refused = |steps: &[Step], rigor| prove(&before, steps, rigor).err().map(|c| c.to_string());
    let text = refused(std::slice::from_ref(&away), ASKED).expect("refused");
    assert!(text.starts_with("not protected against a failure after step 1: Uplink of"), "{text}");
    assert!(refused(std::slice::from_ref(&away), FORCED).is_some());
    // What can only be carried out in part is not held against.
    assert_eq!(refused(std::slice::from_ref(&away), IN_PART), None);
    let there_and_back = [away.clone(), back.clone()];
    assert!(refused(&there_and_back, ASKED).is_some(), "each step counts");
    assert_eq!(refused(&there_and_back, FORCED), None, "it passes");
    // While next hops move, nobody is where he will be.
    let hop = held["dc1"].values().find(|entry| matches!(entry, Entry::NextHop(_)));
    let hop = step(Stage::Fabric, "dc1", hop.expect("a next hop"));
    assert_eq!(refused(&[hop.clone(), away.clone(), back], ASKED), None);
    let result = [hop, away];
    assert!(refused(&result, ASKED).is_some(), "the result counts");
    // It does not where next hops have to wait for a switch of which nobody knows what it holds.
    let mut known = held.clone();
    known.remove("edge2");
    assert_eq!(prove(&view(&world, &known), &result, ASKED).err(), None);
}

#[test]
fn after_a_failure_nobody_is_promised_a_second_one() {
    let mut core = protected();
    let port = |core: &mut Core, up: bool| {
        let s1: NodeName = "s1".parse().unwrap();
        let port = core.network.switches["s1"].port_named("p2").unwrap().clone();
        let event = Event::PortChanged { switch: s1, port: Port { up, ..port } };
        core.handle(event, if up { 4_000 } else { 3_000 });
        core.derive().unwrap();
    };
    let promised = |core: &Core| {
        assert_eq!(check(&core.world(), &core.derived.tables), []);
        core.world().slices.values().filter(|slice| slice.protected.is_some()).count()
    };
    assert_eq!(promised(&core), 1);
    port(&mut core, false);
    assert_eq!(promised(&core), 0, "it is on its backup");
    port(&mut core, true);
    assert_eq!(promised(&core), 1);
}

/// Two slices with a way of their own each, whose backups share m - n.
fn pairs() -> Core {
    let topology = "name: pairs\ntopology:\n  nodes:\n    a: { kind: switch }\n    \
        b: { kind: switch }\n    c: { kind: switch }\n    d: { kind: switch }\n    \
        m: { kind: switch }\n    n: { kind: switch }\n    \
        ha: { kind: host, ipv4: 10.0.0.1/32 }\n    hb: { kind: host, ipv4: 10.0.0.2/32 }\n    \
        hc: { kind: host, ipv4: 10.0.0.3/32 }\n    hd: { kind: host, ipv4: 10.0.0.4/32 }\n  \
        links:\n    \
        - { endpoints: [\"a:p1\", \"b:p1\"], capacity: 100Mbps }\n    \
        - { endpoints: [\"c:p1\", \"d:p1\"], capacity: 100Mbps }\n    \
        - { endpoints: [\"a:p2\", \"m:p1\"], capacity: 100Mbps }\n    \
        - { endpoints: [\"c:p2\", \"m:p2\"], capacity: 100Mbps }\n    \
        - { endpoints: [\"m:p3\", \"n:p3\"], capacity: 100Mbps }\n    \
        - { endpoints: [\"n:p1\", \"b:p2\"], capacity: 100Mbps }\n    \
        - { endpoints: [\"n:p2\", \"d:p2\"], capacity: 100Mbps }\n    \
        - { endpoints: [\"a:p3\", \"ha:eth0\"] }\n    - { endpoints: [\"b:p3\", \"hb:eth0\"] }\n    \
        - { endpoints: [\"c:p3\", \"hc:eth0\"] }\n    - { endpoints: [\"d:p3\", \"hd:eth0\"] }\n";
    let slice = |name: &str, ends: &str| {
        format!(
            "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: {{ name: {name} }}\nspec:\n  \
             downlink: {{ guaranteed: 60Mbps }}\n  uplink: {{ guaranteed: 60Mbps }}\n  \
             availability: 99.999\n  endpoints: {ends}\n"
        )
    };
    let first = slice("first", "[{ ue: ha }, { dn: hb }]");
    let second = slice("second", "[{ ue: hc }, { dn: hd }]");
    core_of(topology, &format!("{first}---\n{second}"))
}

/// Sends the packets of the first slice that enter at a there.
fn by_way_of_m_and_n(core: &Core, tables: &mut Tables) {
    let sid = |node: &str| core.numbers.known_node(&node.parse().unwrap()).unwrap().0;
    edit(tables, "a", |entry| match entry {
        // Those of named slices.
        Entry::Policy(policy) if policy.policy.0 >= 4096 => {
            let mut policy = policy.clone();
            policy.paths[0].sids.splice(0..0, ["m", "n"].map(sid));
            Some(Entry::Policy(policy))
        }
        _ => None,
    });
}

#[test]
fn slices_that_fail_together_need_room_together() {
    let core = pairs();
    let mut world = core.world();
    // Each has 60 of the 97 Mbit/s when its own link fails.
    assert_eq!(check(&world, &core.derived.tables), []);
    // One duct for both links: now they fail together.
    let (first, second) = (hops(&world, &["a", "b"])[0].1, hops(&world, &["c", "d"])[0].1);
    let groups = Arc::make_mut(&mut world.groups);
    (groups[first as usize], groups[second as usize]) = (vec![7], vec![7]);
    let found = check(&world, &core.derived.tables);
    let subjects: Vec<&str> = found.iter().map(|found| found.subject.as_str()).collect();
    assert_eq!(subjects, ["m port 3", "n port 1"], "{found:?}");
    assert_eq!(found[0].defect, Defect::Unprotected);
    let want = "after the loss of shared-risk group 7 guarantees of 124320000 bit/s of frames, at \
                most 97000000 may be";
    assert_eq!(found[0].detail, want);
    // The level says what counts.
    level(&mut world, Level::Node);
    assert_eq!(check(&world, &core.derived.tables), []);
}

#[test]
fn slices_that_do_not_share_have_room_of_their_own() {
    let core = pairs();
    let world = core.world();
    let dedicated = |names: &[&str]| {
        let mut world = world.clone();
        for name in names {
            let id = core.numbers.known_slice(name).unwrap();
            Arc::make_mut(world.slices.get_mut(&id).unwrap()).dedicated = true;
        }
        world
    };
    let mut kept = view(&world, &core.derived.tables);
    // Each has 60 of the 97 Mbit/s, at different times: enough if both share it.
    for (names, enough) in [(&[][..], true), (&["first"], false), (&["first", "second"], false)] {
        let world = dedicated(names);
        kept.advance(&Arc::new(world.clone()), &core.derived.tables);
        let found = check(&world, &core.derived.tables);
        let subjects: Vec<&str> = found.iter().map(|found| found.subject.as_str()).collect();
        let want: &[&str] = if enough { &[] } else { &["m port 3", "n port 1"] };
        assert_eq!(subjects, want, "{names:?}: {found:?}");
        assert_eq!(kept.wrong().count(), found.len(), "{names:?}");
        assert!(found.iter().all(|found| found.detail.contains("for slices that do not share")));
    }
    // Alone on an arc: its own room is there once, whatever fails.
    let mut world = dedicated(&["first"]);
    let second = core.numbers.known_slice("second").unwrap();
    Arc::make_mut(world.slices.get_mut(&second).unwrap()).protected = None;
    assert_eq!(check(&world, &core.derived.tables), []);
}

#[test]
fn what_a_failure_adds_comes_on_top_of_what_is_there() {
    let core = pairs();
    // 60 Mbit/s are 62.16 of frames.
    for (reservable, enough) in [(62_160_000, true), (62_159_999, false)] {
        let mut world = core.world();
        let link = hops(&world, &["m", "n"])[0].1;
        let wires = Arc::make_mut(&mut world.wires).values_mut().filter(|wire| wire.link == link);
        wires.for_each(|wire| wire.reservable_bps = Some(reservable));
        let found = unprotected(&world, &core.derived.tables);
        assert_eq!(found.is_empty(), enough, "{reservable}: {found:?}");
    }
    // The first slice goes over m and n in place of its own link: with the second, when that
    // fails, it is too much there.
    let mut tables = core.derived.tables.clone();
    by_way_of_m_and_n(&core, &mut tables);
    let found = unprotected(&core.world(), &tables);
    let m_to_n = found.iter().find(|found| found.subject == "m port 3");
    let detail = &m_to_n.expect("found").detail;
    assert!(detail.contains("the link between c and d guarantees of 124320000 bit/s"), "{detail}");
}

/// Whoever comes onto an arc takes the room that others keep there, himself protected or not.
#[test]
fn room_that_others_keep_may_not_be_used() {
    let core = pairs();
    let mut world = core.world();
    let first = core.numbers.known_slice("first").unwrap();
    Arc::make_mut(world.slices.get_mut(&first).unwrap()).protected = None;
    let mut tables = core.derived.tables.clone();
    let mut kept = view(&world, &tables);
    assert_eq!(kept.wrong().next(), None);
    by_way_of_m_and_n(&core, &mut tables);
    kept.advance(&Arc::new(world.clone()), &tables);
    let wrong = |view: &View| view.wrong().collect::<Vec<_>>();
    assert_eq!(wrong(&kept), wrong(&view(&world, &tables)));
    let found = unprotected(&world, &tables);
    let subjects: Vec<&str> = found.iter().map(|found| found.subject.as_str()).collect();
    assert_eq!(subjects, ["m port 3"], "{found:?}");
}

/// A slice without a rate needs no room, but a way.
#[test]
fn a_slice_without_a_rate_is_protected_all_the_same() {
    let text = include_str!("../../../../../examples/metro/topology.yaml");
    let objects = "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: { name: factory }\nspec:\n  \
        availability: 99.99\n  endpoints: [{ ue: robot-1 }, { dn: plc }]\n";
    let core = core_of(text, objects);
    let world = core.world();
    let mut tables = core.derived.tables.clone();
    let mut kept = view(&world, &tables);
    assert_eq!(kept.wrong().next(), None);
    assert_eq!(kept.spare.len(), 0);
    // From s1 by way of s2, where the backup leads over.
    let edge1 = core.numbers.known_node(&"edge1".parse().unwrap()).unwrap();
    let switches = &core.network.switches;
    let port = switches["s1"].port_named("p1").unwrap().id;
    let mac = switches["s2"].port_named("p1").unwrap().mac;
    let (s1, s2) = (node(&world, "s1"), node(&world, "s2"));
    assert_eq!(world.wires[&(s1, port)].node, s2);
    edit(&mut tables, "s1", |entry| match entry {
        Entry::NextHop(hop) if hop.node == edge1 => {
            Some(Entry::NextHop(selvedge_pipeline::NextHopEntry { port, mac, ..*hop }))
        }
        _ => None,
    });
    kept.advance(&Arc::new(world.clone()), &tables);
    let wrong: Vec<_> = kept.wrong().map(|(topic, _)| kept.explain(&topic).unwrap().0).collect();
    let text = wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(text.starts_with("not protected against a failure"), "{text}");
    assert!(
        text.contains("Uplink of slice factory from gnb1 to edge1 at gnb1 -> s1 -> s2"),
        "{text}"
    );
}

/// What is kept of sums and questions from state to state is what a look at the last one alone
/// gives.
#[test]
fn state_by_state_is_as_from_nothing() {
    let with = protected();
    let mut without = with.clone();
    let id = ObjectId { kind: ObjectKind::NetworkSlice, name: "factory".parse().unwrap() };
    let change = Change { delete: vec![id], ..Change::default() };
    let request = Request::Apply { change, plan: None };
    without.handle(Event::Request { id: RequestId(2), author: "t".into(), request }, 9);
    assert_eq!(without.intent.revision, 2);
    let mut broken = with.world();
    let link = hops(&broken, &["s2", "edge1"])[0].1;
    Arc::make_mut(&mut broken.wires).retain(|_, wire| wire.link != link);
    assert!(Arc::ptr_eq(&broken.nodes, &without.world().nodes));
    let mut other = with.world();
    uplink(&mut other, |backup| backup.hops.truncate(1));
    let mut plain = with.world();
    self::change(&mut plain, |slice| slice.protected = None);
    let tables = &with.derived.tables;
    let states = [
        (with.world(), tables),
        (broken.clone(), tables),
        (with.world(), tables),
        (other, tables),
        (plain, tables),
        (broken, tables),
        (without.world(), &without.derived.tables),
        (with.world(), &without.derived.tables),
        (with.world(), tables),
    ];
    let mut kept = View::default();
    let mut spares = 0;
    for (number, (world, tables)) in states.into_iter().enumerate() {
        kept.advance(&Arc::new(world.clone()), tables);
        let fresh = view(&world, tables);
        let wrong = |view: &View| view.wrong().collect::<Vec<_>>();
        assert_eq!(wrong(&kept), wrong(&fresh), "state {number}");
        let spare = |view: &View| {
            view.spare.iter().map(|(arc, sums)| (*arc, sums.clone())).collect::<Vec<_>>()
        };
        assert_eq!(spare(&kept), spare(&fresh), "state {number}");
        spares += spare(&kept).len();
    }
    assert!(spares > 10, "{spares}");
}
