//! What is derived step by step is what is derived from nothing.

use std::sync::Arc;

use selvedge_pipeline::{HookId, PortId};
use selvedge_topology::{BitRate, End, Host, Link, Node, NodeName, Shaped, Switch, Topology};

use super::Derived;
use crate::event::{Compute, HookState, HookStatus, Neighbor, Port, Report};
use crate::prove::View;
use crate::truth::Truth;
use crate::{
    Change, Config, Core, Defect, Effect, Event, ObjectId, Refusal, Request, RequestId, Target,
    TargetKind,
};

const SWITCHES: usize = 6;
const HOSTS: usize = 14;
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(n).unwrap()).unwrap()
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

/// A ring with a chord; hosts in turn, some without a MAC address, one without a place.
fn topology() -> Topology {
    let end = |node: &str, port: &str| End { node: name(node), port: port.parse().unwrap() };
    let mut nodes = std::collections::BTreeMap::new();
    let mut links = Vec::new();
    let capacity = Some(BitRate::from_mbps(100));
    for n in 0..SWITCHES {
        let compute = (n < 3).then_some(selvedge_topology::Compute {
            cpu: 2,
            memory_bytes: 64 << 20,
            ..Default::default()
        });
        nodes.insert(name(&format!("s{n}")), Node::Switch(Switch { compute, ..Switch::default() }));
        let far = end(&format!("s{}", (n + 1) % SWITCHES), "p2");
        let shaped = Shaped { guaranteed: n % 2 == 0, urllc: false };
        links.push(Link { capacity, shaped, ..Link::new(end(&format!("s{n}"), "p1"), far) });
    }
    links.push(Link { capacity, ..Link::new(end("s0", "p3"), end("s3", "p3")) });
    for n in 0..HOSTS {
        let number = u8::try_from(n).unwrap();
        let host = Host {
            ipv4: Some(format!("10.0.0.{n}/32").parse().unwrap()),
            ipv6: n.is_multiple_of(2).then(|| format!("fd10::{n:x}/128").parse().unwrap()),
            mac: (!n.is_multiple_of(5)).then_some([2, 0xff, 0, 0, 0, number]),
        };
        nodes.insert(name(&format!("h{n:02}")), Node::Host(host));
        if n + 1 < HOSTS {
            let near = end(&format!("s{}", n % SWITCHES), &format!("q{}", n / SWITCHES));
            links.push(Link::new(near, end(&format!("h{n:02}"), "eth0")));
        }
    }
    Topology { name: name("t"), nodes, links }
}

fn ports(switch: usize) -> Vec<Port> {
    let names = ["p1", "p2", "p3", "q0", "q1", "q2", "q9"];
    let port = |(id, name): (u16, &&str)| Port {
        id: PortId(id),
        name: (*name).to_owned(),
        mac: [2, 0, 0, 0, u8::try_from(switch).unwrap(), u8::try_from(id).unwrap()],
        up: true,
    };
    (1..).zip(&names).map(port).collect()
}

fn slice(random: &mut Random) -> String {
    let one = NAMES[random.below(NAMES.len())];
    let mut text = format!(
        "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: {{ name: {one} }}\nspec:\n  \
         priority: {}\n",
        random.below(3)
    );
    if random.one_in(2) {
        text += &format!("  uplink: {{ guaranteed: {}Mbps }}\n", 1 + random.below(60));
    }
    if random.one_in(2) {
        text += ["  availability: 99.9\n", "  availability: 99.99\n"][random.below(2)];
    }
    if random.one_in(4) {
        text += &format!("  maxNumberofUEs: {}\n", 1 + random.below(3));
    }
    text += "  endpoints:\n";
    let two_sided = random.one_in(2);
    for host in 0..HOSTS - 1 {
        if host == 12 || random.one_in(4) {
            let side = if two_sided && host < 4 { "dn" } else { "ue" };
            text += &format!("    - {{ {side}: h{host:02} }}\n");
        }
    }
    text += "    - { ue: h13 }\n";
    if random.one_in(3) {
        let then = if random.one_in(2) { "drop" } else { "bypass" };
        text += &format!("  through: [{{ hook: mark, onFailure: {then} }}]\n");
    }
    text
}

fn hook(random: &mut Random) -> String {
    let memory = 1 + random.below(3);
    format!(
        "apiVersion: selvedge/v1\nkind: Hook\nmetadata: {{ name: mark }}\nspec:\n  module: m.wasm\n  \
         memory: {memory}Mi\n"
    )
}

fn application(random: &mut Random) -> String {
    let state = if random.one_in(2) { "ACTIVE" } else { "INACTIVE" };
    format!(
        "apiVersion: selvedge/v1\nkind: Application\nmetadata: {{ name: player }}\nspec:\n  \
         endpoint: h03\n  trafficRules:\n    - trafficRuleId: block\n      filterType: PACKET\n      \
         priority: 1\n      action: DROP\n      state: {state}\n      trafficFilter: \
         [{{ srcAddress: [10.0.0.{}], dstPort: [\"9\"] }}]\n",
        random.below(4)
    )
}

/// To be placed: its endpoint has no link.
fn placed(random: &mut Random) -> String {
    format!(
        "apiVersion: selvedge/v1\nkind: Application\nmetadata: {{ name: placed }}\nspec:\n  \
         endpoint: h13\n  computeDescriptor: {{ cpu: {}, memory: {}Mi }}\n",
        1 + random.below(2),
        1 + random.below(40)
    )
}

/// A switch or a link; of one name in two it is taken back.
fn drain(random: &mut Random, change: &mut Change) {
    let switch = format!("s{}", random.below(SWITCHES));
    let target = if random.one_in(2) {
        Target { kind: TargetKind::Node, name: switch }
    } else {
        Target { kind: TargetKind::Link, name: format!("{switch}:p1") }
    };
    if random.one_in(2) {
        change.drain.push(target);
    } else {
        change.undrain.push(target);
    }
}

fn apply(core: &mut Core, random: &mut Random, now_ms: u64) {
    let mut change = Change::default();
    let text = match random.below(11) {
        0 => hook(random),
        1 => application(random),
        3 => placed(random),
        4 => {
            drain(random, &mut change);
            String::new()
        }
        5 if random.one_in(3) => {
            let name = "placed".parse().unwrap();
            change.delete.push(ObjectId { kind: selvedge_slices::ObjectKind::Application, name });
            String::new()
        }
        2 => {
            let name = NAMES[random.below(NAMES.len())].parse().unwrap();
            let kind = selvedge_slices::ObjectKind::NetworkSlice;
            change.delete.push(ObjectId { kind, name });
            String::new()
        }
        _ => slice(random),
    };
    if !text.is_empty() {
        change.put = selvedge_slices::parse("test", &text).unwrap();
        change.modules.insert("mark".parse().unwrap(), format!("{:02x}", random.below(3)));
    }
    let request = Request::Apply { change, plan: None };
    let request = Event::Request { id: RequestId(1), author: "t".into(), request };
    // Refused, it changes nothing.
    for effect in core.handle(request, now_ms) {
        if let Effect::Reply { reply: Err(Refusal::NotProven(counter)), .. } = effect {
            assert!(counter.defect != Defect::Unprotected, "admitted, but {counter}");
        }
    }
}

fn event(core: &mut Core, random: &mut Random, now_ms: u64) {
    let number = random.below(SWITCHES);
    let switch = name(&format!("s{number}"));
    let port = ports(number).swap_remove(random.below(7));
    match random.below(12) {
        0..=4 => apply(core, random, now_ms),
        5 => {
            let memory_bytes = 1 << (20 + random.below(5));
            let compute = (number < 3).then_some(Compute { cpu: 2, memory_bytes });
            let report = Report { ports: ports(number), compute, ..Report::default() };
            core.handle(Event::SwitchJoined { switch, report }, now_ms);
        }
        6 => drop(core.handle(Event::SwitchLeft { switch }, now_ms)),
        7 => {
            let port = Port { up: random.one_in(3), ..port };
            core.handle(Event::PortChanged { switch, port }, now_ms);
        }
        8 => drop(core.handle(Event::PortGone { switch, port: port.id }, now_ms)),
        9 => {
            let neighbor =
                Neighbor { chassis: "s9".into(), port: "p9".into(), authenticated: true };
            let neighbor = random.one_in(2).then_some(neighbor);
            let event = Event::NeighborChanged { switch, port: port.id, neighbor };
            core.handle(event, now_ms);
        }
        10 => {
            let host = u8::try_from(random.below(HOSTS)).unwrap();
            let address = std::net::IpAddr::from([10, 0, 0, host]);
            let mac = [2, 0xff, 0, 0, 0, host];
            core.handle(Event::EndpointSeen { switch, port: port.id, mac, address }, now_ms);
        }
        _ => {
            let hook = HookId(u16::try_from(random.below(2)).unwrap());
            let state = if random.one_in(2) { HookState::Running } else { HookState::Down };
            let status = HookStatus { state, reason: String::new(), sha256: "00".into() };
            core.handle(Event::HookChanged { switch, hook, status }, now_ms);
        }
    }
}

/// The same state, as if nothing had followed before.
fn from_nothing(core: &Core) -> Result<Core, Refusal> {
    let mut other = core.clone();
    let seats = core.derived.seats.clone(); // who came first is not to be seen from the state
    other.derived = Arc::new(Derived { seats, ..Derived::empty(&core.network.topology) });
    other.truth = Truth::new(&core.network);
    other.derive()?;
    Ok(other)
}

#[test]
fn step_by_step_is_as_from_nothing() {
    let seeds = std::env::var("SELVEDGE_DERIVE_SEEDS").ok().and_then(|text| text.parse().ok());
    let (mut entries, mut drained, mut moved) = (0, 0, 0);
    let (mut protected, mut spares) = (0, 0);
    for seed in 1..=seeds.unwrap_or(60) {
        let mut random = Random(0x9E37_79B9_7F4A_7C15 ^ (seed << 32));
        let mut core = Core::new(topology(), Config::default());
        let mut view = View::default();
        for at in 0..60 {
            let now_ms = 1_000 * (at + 1);
            if at < 6 {
                let number = usize::try_from(at).unwrap();
                let compute = (number < 3).then_some(Compute { cpu: 2, memory_bytes: 64 << 20 });
                let report = Report { ports: ports(number), compute, ..Report::default() };
                let switch = name(&format!("s{number}"));
                core.handle(Event::SwitchJoined { switch, report }, now_ms);
            } else {
                event(&mut core, &mut random, now_ms);
            }
            let whole = from_nothing(&core);
            if core.derive().is_err() {
                assert!(whole.is_err(), "seed {seed}, event {at}: refused only step by step");
                continue;
            }
            let whole = whole.unwrap();
            let (now, want) = (&core.derived, &whole.derived);
            let at = format!("seed {seed}, event {at}");
            assert_eq!(now.links, want.links, "{at}");
            assert_eq!(now.snapshot.down(), want.snapshot.down(), "{at}");
            assert_eq!(now.attachments, want.attachments, "{at}");
            assert_eq!((&now.hook_nodes, &now.hook_memory), (&want.hook_nodes, &want.hook_memory));
            assert_eq!(now.places, want.places, "{at}");
            assert!(now.ledger == want.ledger, "{at}: promised is another");
            assert_eq!(core.places, whole.places, "{at}");
            drained += core.intent.drained.len();
            moved += now.places.values().filter(|place| place.moved.is_some()).count();
            assert_eq!(now.slices, want.slices, "{at}");
            assert!(now.located == want.located && now.named == want.named, "{at}");
            assert_eq!(now.hooks, want.hooks, "{at}");
            assert_eq!(
                now.tables.keys().collect::<Vec<_>>(),
                want.tables.keys().collect::<Vec<_>>()
            );
            for (name, table) in &now.tables {
                let difference = crate::Difference::between(&want.tables[name], table);
                assert!(difference.is_empty(), "{at}, {name}: {difference:#?}");
                entries += table.len();
            }
            assert_eq!(core.numbers, whole.numbers, "{at}: nothing is numbered again");
            let (world, truth) = (Arc::new(core.world()), Arc::new(whole.world()));
            assert!(world == truth, "{at}: the truth is another");
            // Whatever admission makes of it outlives the failures that it is protected against.
            view.advance(&world, &now.tables);
            let mut fresh = View::default();
            fresh.advance(&truth, &want.tables);
            let wrong: Vec<_> = fresh.wrong().map(|(topic, _)| fresh.explain(&topic)).collect();
            assert!(wrong.is_empty(), "{at}: {wrong:?}");
            assert_eq!(view.wrong().next(), None, "{at}");
            let carried = |view: &View| -> Vec<_> {
                let sums = view.load.iter().filter(|(_, bps)| **bps > 0);
                sums.map(|(arc, bps)| (*arc, *bps)).collect()
            };
            assert_eq!(carried(&view), carried(&fresh), "{at}");
            assert!(view.spare.iter().eq(fresh.spare.iter()), "{at}: spare is another");
            spares += view.spare.len();
            protected += world.slices.values().filter(|slice| slice.protected.is_some()).count();
        }
    }
    assert!(protected > 200 && spares > 200, "{protected} {spares}");
    assert!(entries > 100_000 && drained > 100 && moved > 0, "{entries} {drained} {moved}");
}
