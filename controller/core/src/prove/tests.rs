//! Defects planted into entries that are right: each must be found.

use std::sync::Arc;

use selvedge_pipeline::{
    ClassifierAction, ClassifierEntry, Entry, FUNCTION_UDT46, Key, LocalSidAction, PolicyEntry,
    PortKind, SliceId,
};
use selvedge_topology::{Node, NodeName, read};

use super::{Cause, CounterExample, Defect, Proofs, Rigor, Tables, View, World, prove};
use crate::effect::Update;
use crate::event::{Change, Compute, Event, Port, Report, Request, RequestId};
use crate::plan::{self, Stage, Step, Table};
use crate::{Config, Core};

mod judge;
mod mutation;
mod survive;

const ASKED: Rigor = Rigor { cause: Cause::Intent, whole: true };
const FORCED: Rigor = Rigor { cause: Cause::Network, whole: true };
const IN_PART: Rigor = Rigor { cause: Cause::Network, whole: false };

const OBJECTS: &str = "apiVersion: selvedge/v1\nkind: Hook\nmetadata: { name: mark }\nspec:\n  \
    module: mark.wasm\n  memory: 1Mi\n---\napiVersion: selvedge/v1\nkind: NetworkSlice\n\
    metadata: { name: factory }\nspec:\n  downlink: { guaranteed: 20Mbps }\n  \
    uplink: { guaranteed: 20Mbps }\n  endpoints: [{ ue: robot-1 }, { dn: plc }]\n  \
    through: [{ hook: mark, onFailure: drop }]\n---\napiVersion: selvedge/v1\n\
    kind: Application\nmetadata: { name: player }\nspec:\n  endpoint: video\n  trafficRules:\n    \
    - trafficRuleId: block\n      filterType: PACKET\n      priority: 1\n      action: DROP\n      \
    state: ACTIVE\n      trafficFilter: [{ srcAddress: [10.1.0.12], dstPort: [\"9\"] }]\n";

/// Metro with everybody there, and what `OBJECTS` asks for if `with_objects`.
fn core(with_objects: bool) -> Core {
    let text = include_str!("../../../../examples/metro/topology.yaml");
    core_of(text, if with_objects { OBJECTS } else { "" })
}

fn has_hook(policy: &PolicyEntry) -> bool {
    policy.paths.iter().any(|path| path.sids.iter().any(|sid| *sid >= 0xE100))
}

/// A network with everybody there, and what objects ask for.
fn core_of(topology: &str, objects: &str) -> Core {
    let read = read::from_str("test", topology, read::Format::Selvedge);
    let mut topology = read.unwrap().topology;
    for (number, node) in (0..).zip(topology.nodes.values_mut()) {
        if let Node::Host(host) = node {
            host.mac = Some([2, 0xff, 0, 0, 0, number]);
        }
    }
    let mut core = Core::new(topology.clone(), Config::default());
    for (index, (name, switch)) in (0..).zip(topology.switches()) {
        let ends = topology.links.iter().filter_map(|link| Some(link.seen_from(name)?.0));
        let port = |(id, end): (u16, &selvedge_topology::End)| Port {
            id: selvedge_pipeline::PortId(id),
            name: end.port.to_string(),
            mac: [2, 0, 0, 0, index, u8::try_from(id).unwrap()],
            up: true,
        };
        let compute =
            switch.compute.as_ref().map(|c| Compute { cpu: c.cpu, memory_bytes: c.memory_bytes });
        let ports = (1..).zip(ends).map(port).collect();
        let report = Report { ports, compute, ..Report::default() };
        core.handle(Event::SwitchJoined { switch: name.clone(), report }, 1);
    }
    if !objects.is_empty() {
        let put = selvedge_slices::parse("test", objects).unwrap();
        let hook = objects.contains("kind: Hook").then(|| "mark".parse().unwrap());
        let modules = hook.into_iter().map(|hook| (hook, String::from("00"))).collect();
        let change = Change { put, modules, ..Change::default() };
        let request = Request::Apply { change, plan: None };
        let request = Event::Request { id: RequestId(1), author: "t".into(), request };
        let effects = core.handle(request, 2);
        assert_eq!(core.intent.revision, 1, "it was not taken: {effects:?}");
    }
    core.derive().unwrap();
    core
}

fn view(world: &World, tables: &Tables) -> View {
    let mut view = View::default();
    view.advance(&Arc::new(world.clone()), tables);
    view
}

fn check(world: &World, tables: &Tables) -> Vec<CounterExample> {
    let view = view(world, tables);
    view.wrong().filter_map(|(topic, _)| Some(view.explain(&topic)?.0)).collect()
}

fn table<'a>(tables: &'a mut Tables, switch: &str) -> &'a mut Table {
    Arc::make_mut(tables.get_mut(switch).expect("a switch"))
}

/// Changes every entry that `change` returns something else for.
fn edit(tables: &mut Tables, switch: &str, change: impl Fn(&Entry) -> Option<Entry>) {
    let table = table(tables, switch);
    let edits: Vec<(Key, Entry)> =
        table.iter().filter_map(|(key, entry)| Some((*key, change(entry)?))).collect();
    assert!(!edits.is_empty(), "nothing to change at {switch}");
    for (key, entry) in edits {
        table.remove(&key);
        table.insert(entry);
    }
}

fn drop_all(tables: &mut Tables, switch: &str, which: impl Fn(&Entry) -> bool) {
    let table = table(tables, switch);
    let before = table.len();
    *table = table.values().filter(|entry| !which(entry)).cloned().collect();
    assert!(table.len() < before, "nothing to remove at {switch}");
}

#[test]
fn what_is_desired_is_right() {
    for with_objects in [false, true] {
        let core = core(with_objects);
        assert_eq!(check(&core.world(), &core.derived.tables), []);
    }
}

type Plant = fn(&mut Tables, &Core);

/// Of ways around failures, which packets take while a port is down.
#[test]
fn planted_detours_are_found() {
    let backups = |tables: &mut Tables, change: fn(&mut selvedge_pipeline::BackupEntry)| {
        edit(tables, "gnb1", |entry| match entry {
            Entry::Backup(backup) => {
                let mut backup = backup.clone();
                change(&mut backup);
                Some(Entry::Backup(backup))
            }
            _ => None,
        });
    };
    type Plant<'a> = &'a dyn Fn(&mut Tables);
    let cases: [(&str, Plant<'_>); 6] = [
        ("over the link that failed", &|tables| {
            backups(tables, |backup| backup.port = backup.around)
        }),
        ("to a neighbor that is not there", &|tables| backups(tables, |b| b.mac = [2; 6])),
        ("to elsewhere", &|tables| backups(tables, |backup| backup.sids.push(1))),
        ("to a node that is not there", &|tables| backups(tables, |backup| backup.sids.push(99))),
        ("one that is not there", &|tables| {
            drop_all(tables, "gnb1", |entry| matches!(entry, Entry::Backup(_)));
        }),
        ("another's", &|tables| {
            edit(tables, "gnb1", |entry| match entry {
                Entry::NextHop(hop) if hop.backup > 2 => {
                    let backup = hop.backup - 1;
                    Some(Entry::NextHop(selvedge_pipeline::NextHopEntry { backup, ..*hop }))
                }
                _ => None,
            });
        }),
    ];
    let core = core(true);
    let (world, held) = (core.world(), &core.derived.tables);
    assert_eq!(super::around::astray(&view(&world, held)), None);
    for (what, plant) in cases {
        let mut wanted = held.clone();
        plant(&mut wanted);
        let found = super::around::astray(&view(&world, &wanted));
        assert_eq!(found.map(|counter| counter.defect), Some(Defect::Detour), "{what}");
        let switches = held.iter().map(|(n, table)| (n, &**table, &*wanted[n]));
        let steps = plan::steps(switches, 1, false);
        let refused = prove(&view(&world, held), &steps, ASKED).err();
        assert_eq!(refused.map(|counter| counter.defect), Some(Defect::Detour), "{what}");
    }
}

#[test]
fn planted_defects_are_found() {
    let cases: &[(&str, Defect, Plant)] = &[
        ("next hop by another port", Defect::BlackHole, |tables, _| {
            edit(tables, "gnb1", |entry| match entry {
                Entry::NextHop(hop) => {
                    let port = selvedge_pipeline::PortId(3 - hop.port.0);
                    Some(Entry::NextHop(selvedge_pipeline::NextHopEntry { port, ..*hop }))
                }
                _ => None,
            });
        }),
        ("no next hop", Defect::BlackHole, |tables, _| {
            drop_all(tables, "s1", |entry| matches!(entry, Entry::NextHop(_)));
        }),
        ("no delivery", Defect::BlackHole, |tables, _| {
            drop_all(tables, "edge1", |entry| matches!(entry, Entry::Delivery(_)));
        }),
        ("no uDT46", Defect::BlackHole, |tables, _| {
            let key = Key::LocalSid(FUNCTION_UDT46);
            drop_all(tables, "dc1", |entry| entry.key() == key);
        }),
        ("no uN", Defect::BlackHole, |tables, _| {
            drop_all(tables, "dc1", |entry| match entry {
                Entry::LocalSid(entry) => entry.action == LocalSidAction::Node,
                _ => false,
            });
        }),
        ("a fabric port that is access", Defect::BlackHole, |tables, _| {
            edit(tables, "s3", |entry| match entry {
                Entry::Port(port) => {
                    let kind = PortKind::Access;
                    Some(Entry::Port(selvedge_pipeline::PortEntry { kind, ..*port }))
                }
                _ => None,
            });
        }),
        ("next hops that point at each other", Defect::Loop, |tables, core| {
            // s1 sends everything back to gnb1, which sends most to s1.
            let gnb1 = &core.network.switches["gnb1"];
            let mac = gnb1.port_named("p1").unwrap().mac;
            let port = core.network.switches["s1"].port_named("p3").unwrap().id;
            edit(tables, "s1", |entry| match entry {
                Entry::NextHop(hop) => {
                    Some(Entry::NextHop(selvedge_pipeline::NextHopEntry { port, mac, ..*hop }))
                }
                _ => None,
            });
        }),
        ("routes into another slice", Defect::Leak, |tables, _| {
            edit(tables, "gnb1", |entry| match entry {
                Entry::SliceRoute(route) if route.slice != SliceId::DEFAULT => {
                    let slice = SliceId::DEFAULT;
                    Some(Entry::SliceRoute(selvedge_pipeline::SliceRouteEntry { slice, ..*route }))
                }
                _ => None,
            });
        }),
        ("an endpoint in another's slices", Defect::Leak, |tables, core| {
            let factory = core.numbers.known_slice("factory").unwrap();
            edit(tables, "gnb1", |entry| match entry {
                Entry::Endpoint(bound) if bound.slice_set.0 == SliceId::DEFAULT.0 => {
                    let slice_set = selvedge_pipeline::SliceSet(factory.0);
                    let bound = selvedge_pipeline::EndpointEntry { slice_set, ..*bound };
                    Some(Entry::Endpoint(bound))
                }
                _ => None,
            });
        }),
        ("delivery to another's MAC address", Defect::Leak, |tables, _| {
            edit(tables, "dc1", |entry| match entry {
                Entry::Delivery(delivery) => {
                    let mac = [2, 6, 6, 6, 6, 6];
                    Some(Entry::Delivery(selvedge_pipeline::DeliveryEntry {
                        mac,
                        ..delivery.clone()
                    }))
                }
                _ => None,
            });
        }),
        ("delivery in a slice it is not in", Defect::Leak, |tables, _| {
            let table = table(tables, "edge1");
            let stray = table.values().find_map(|entry| match entry {
                Entry::Delivery(delivery) => Some(delivery.clone()),
                _ => None,
            });
            let slice = SliceId::DEFAULT;
            let stray = selvedge_pipeline::DeliveryEntry { slice, ..stray.unwrap() };
            table.insert(Entry::Delivery(stray));
        }),
        ("a source bound at a port where it is not", Defect::Spoof, |tables, core| {
            let p4 = core.network.switches["gnb1"].port_named("p4").unwrap().id;
            edit(tables, "gnb1", |entry| match entry {
                Entry::Endpoint(bound) if bound.port != p4 => {
                    let bound = selvedge_pipeline::EndpointEntry { port: p4, ..*bound };
                    Some(Entry::Endpoint(bound))
                }
                _ => None,
            });
        }),
        ("a policy past the hook", Defect::HookMissed, |tables, _| {
            edit(tables, "gnb1", |entry| match entry {
                Entry::Policy(policy) if has_hook(policy) => {
                    let mut policy = policy.clone();
                    policy.paths[0].sids.retain(|sid| *sid < 0xE100);
                    Some(Entry::Policy(policy))
                }
                _ => None,
            });
        }),
        ("one path of several past the hook", Defect::HookMissed, |tables, _| {
            edit(tables, "gnb1", |entry| match entry {
                Entry::Policy(policy) if has_hook(policy) => {
                    let mut policy = policy.clone();
                    let mut past = policy.paths[0].clone();
                    past.sids.retain(|sid| *sid < 0xE100);
                    policy.paths.push(past);
                    Some(Entry::Policy(policy))
                }
                _ => None,
            });
        }),
        ("one path of several to nowhere", Defect::BlackHole, |tables, _| {
            edit(tables, "gnb1", |entry| match entry {
                Entry::Policy(policy) => {
                    let mut policy = policy.clone();
                    policy.paths.insert(0, policy.paths[0].clone());
                    policy.paths[1].sids = vec![999, 0xE001];
                    Some(Entry::Policy(policy))
                }
                _ => None,
            });
        }),
        ("no meter where traffic enters", Defect::Promise, |tables, _| {
            drop_all(tables, "gnb1", |entry| matches!(entry, Entry::SliceMeter(_)));
        }),
        ("more than was promised", Defect::Promise, |tables, _| {
            edit(tables, "gnb1", |entry| match entry {
                Entry::SliceMeter(meter) => {
                    let guaranteed_bps = meter.guaranteed_bps * 2;
                    let meter = selvedge_pipeline::SliceMeterEntry { guaranteed_bps, ..*meter };
                    Some(Entry::SliceMeter(meter))
                }
                _ => None,
            });
        }),
        ("an endpoint's own beyond the share", Defect::Promise, |tables, _| {
            let own = selvedge_pipeline::EndpointMeterEntry {
                slice: SliceId(2),
                direction: selvedge_pipeline::Direction::Uplink,
                endpoint: selvedge_pipeline::EndpointId(1),
                guaranteed_bps: 1_000_000_000,
                guaranteed_burst_bytes: 1_500,
                maximum_bps: 0,
                maximum_burst_bytes: 0,
            };
            table(tables, "gnb1").insert(Entry::EndpointMeter(own));
        }),
        ("the wrong class", Defect::Promise, |tables, _| {
            edit(tables, "gnb1", |entry| match entry {
                Entry::SliceMeter(meter) => {
                    let class = selvedge_pipeline::Class::BestEffort;
                    let meter = selvedge_pipeline::SliceMeterEntry { class, ..*meter };
                    Some(Entry::SliceMeter(meter))
                }
                _ => None,
            });
        }),
        ("a rule nobody asked for", Defect::Rule, |tables, _| {
            let entry =
                Entry::Classifier(Box::new(ClassifierEntry::any(7, ClassifierAction::Drop)));
            table(tables, "s1").insert(entry);
        }),
        ("an active rule that is not there", Defect::Rule, |tables, _| {
            drop_all(tables, "gnb1", |entry| matches!(entry, Entry::Classifier(_)));
        }),
    ];
    let core = core(true);
    for (what, defect, plant) in cases {
        let mut tables = core.derived.tables.clone();
        plant(&mut tables, &core);
        let found = check(&core.world(), &tables);
        let kinds: Vec<Defect> = found.iter().map(|found| found.defect).collect();
        assert!(kinds.contains(defect), "{what}: found {found:?}");
        assert!(found.iter().all(|found| !found.to_string().is_empty()));
    }
}

/// Whatever carries traffic is missed when it is taken away, one entry at a time.
#[test]
fn no_entry_that_traffic_needs_can_go_unnoticed() {
    let core = core(true);
    let world = core.world();
    let mut removed = 0;
    for (switch, entries) in &core.derived.tables {
        for (key, entry) in entries.iter() {
            // A destination nobody sends to that way needs no next hop, and a queue is no
            // condition for delivery.
            let needed = matches!(
                entry,
                Entry::Endpoint(_) | Entry::SliceRoute(_) | Entry::Delivery(_) | Entry::Policy(_)
            );
            if needed {
                let mut tables = core.derived.tables.clone();
                table(&mut tables, switch.as_str()).remove(key);
                assert_ne!(check(&world, &tables), [], "{switch} without {entry:?}");
                removed += 1;
            }
        }
    }
    assert!(removed > 20, "{removed}");
}

#[test]
fn too_much_on_a_link_is_found() {
    let core = core(true);
    let mut world = core.world();
    for wire in Arc::make_mut(&mut world.wires).values_mut() {
        wire.reservable_bps = Some(20_000_000); // less than 20 Mbit/s of packets in frames
    }
    let found = check(&world, &core.derived.tables);
    assert!(found.iter().any(|found| found.defect == Defect::Overload), "{found:?}");
}

/// Steps that break before they make: refused, where the plan's own order is not.
#[test]
fn steps_that_break_before_they_make_are_refused() {
    let (with, without) = (core(true), core(false));
    // The slice goes away: its endpoints are to be in `default`, as they were.
    let (held, wanted) = (&with.derived.tables, &without.derived.tables);
    let switches = || held.iter().map(|(name, table)| (name, &**table, &*wanted[name]));
    let steps = plan::steps(switches(), 1, false);
    let world = without.world();
    let before = view(&world, held);
    assert_eq!(prove(&before, &steps, ASKED).err(), None);
    assert_eq!(prove(&before, &steps, FORCED).err(), None);
    // Without the ingress step the result is not what was asked for.
    let short: Vec<Step> = steps.into_iter().filter(|s| s.stage != Stage::Ingress).collect();
    assert!(prove(&before, &short, FORCED).is_err());
    // Deliveries that go before anything else cut off those that need them.
    let dc1 = &held["dc1"];
    let deliveries = dc1.values().filter(|entry| matches!(entry, Entry::Delivery(_)));
    let gone: Vec<Update> = deliveries.cloned().map(Update::Delete).collect();
    let back = gone.iter().map(|update| match update {
        Update::Delete(entry) => Update::Insert(entry.clone()),
        other => other.clone(),
    });
    let step = |updates| Step {
        stage: Stage::Fabric,
        updates: [("dc1".parse().unwrap(), updates)].into(),
    };
    let steps = vec![step(gone.clone()), step(back.collect())];
    let refused = prove(&view(&with.world(), held), &steps, ASKED).unwrap_err();
    assert_eq!((refused.defect, refused.step), (Defect::BlackHole, 1));
}

#[test]
fn what_was_proven_for_a_change_counts_for_its_own_plan_alone() {
    let (with, without) = (core(true), core(false));
    let (held, wanted) = (&with.derived.tables, &without.derived.tables);
    let switches = || held.iter().map(|(name, table)| (name, &**table, &*wanted[name]));
    let steps = plan::steps(switches(), 1, false);
    let world = Arc::new(without.world());
    let mut proofs = Proofs::default();
    proofs.change(&world, (held, wanted), (&steps, true)).unwrap();
    let of = |world: &Arc<World>, held: &Tables, steps: &[Step]| {
        proofs.clone().plan(world, held, steps, FORCED)
    };
    let result = of(&world, held, &steps).unwrap();
    assert_eq!(result.wrong().next(), None);
    let short: Vec<Step> = steps.iter().filter(|s| s.stage != Stage::Ingress).cloned().collect();
    assert!(of(&world, held, &short).is_err());
    assert!(of(&Arc::new(with.world()), held, &steps).is_err());
    let mut other = held.clone();
    drop_all(&mut other, "dc1", |entry| matches!(entry, Entry::NextHop(_)));
    assert!(of(&world, &other, &steps).is_err());
}
