//! What goes wrong.

use selvedge_core::{Change, Port};
use selvedge_pipeline::PortId;
use selvedge_slices::ObjectKind;
use selvedge_topology::{End, NodeName, read};

use super::world::{CONTROLLERS, Mail, World};
use crate::intent::{AVAILABILITIES, delete, protected};
use crate::net::Net;

pub(super) const KINDS: &[&str] = &[
    "link down",
    "link up",
    "session broken",
    "controller killed",
    "controller stopped",
    "controller cut off",
    "store down",
    "host moved",
];

const HOSTS: [&str; 3] = ["h1", "h2", "h3"];

/// A ring of four switches with a chord, a host on three of them, a spare port on each.
pub(super) fn network() -> Net {
    let text = "name: ring\ntopology:\n  nodes:\n    s1: { kind: switch }\n    s2: { kind: switch }\n    \
        s3: { kind: switch }\n    s4: { kind: switch }\n    h1: { kind: host, ipv4: 10.0.0.1/32 }\n    \
        h2: { kind: host, ipv4: 10.0.0.2/32 }\n    h3: { kind: host, ipv4: 10.0.0.3/32 }\n  links:\n    \
        - { endpoints: [\"s1:p1\", \"s2:p1\"], capacity: 100Mbps, srlg: [1] }\n    \
        - { endpoints: [\"s2:p2\", \"s3:p1\"], capacity: 100Mbps, cost: 3 }\n    \
        - { endpoints: [\"s3:p2\", \"s4:p1\"], capacity: 100Mbps }\n    \
        - { endpoints: [\"s4:p2\", \"s1:p2\"], capacity: 100Mbps, cost: 2 }\n    \
        - { endpoints: [\"s1:p3\", \"s3:p3\"], capacity: 100Mbps, cost: 5, srlg: [1, 2] }\n    \
        - { endpoints: [\"s1:p4\", \"h1:eth0\"] }\n    \
        - { endpoints: [\"s2:p4\", \"h2:eth0\"] }\n    \
        - { endpoints: [\"s3:p4\", \"h3:eth0\"] }\n";
    let topology = read::from_str("ring", text, read::Format::Selvedge).expect("valid").topology;
    let mut net = Net::new(topology);
    for (number, switch) in net.switches.values_mut().enumerate() {
        let mac = [2, 0, 9, 9, 9, number as u8];
        let port = Port { id: PortId(9), name: "p9".into(), mac, up: false };
        switch.ports.insert(port.id, port);
    }
    net
}

/// A slice put, changed or deleted.
pub(super) fn change(world: &mut World) -> Change {
    let name = format!("n{}", world.below(3));
    if world.chance(20) {
        return delete(ObjectKind::NetworkSlice, &name);
    }
    let from = world.below(3) as usize;
    let to = (from + 1 + world.below(2) as usize) % 3;
    let rate = format!("{}Mbps", 1 + world.below(60));
    let availability = AVAILABILITIES[world.below(4) as usize];
    let ends = format!("{{ ue: {} }}, {{ dn: {} }}", HOSTS[from], HOSTS[to]);
    protected(&name, &rate, availability, &ends)
}

pub(super) fn happen(world: &mut World) {
    let kind = KINDS[world.below(KINDS.len() as u64) as usize];
    let number = world.below(CONTROLLERS as u64) as usize;
    // A leader is where it hurts.
    let leads = (0..CONTROLLERS).find(|number| world.controllers[*number].leader.is_some());
    let number = leads.filter(|_| world.chance(70)).unwrap_or(number);
    let time = 100 + world.below(6_000);
    let until = world.now_ms + time;
    match kind {
        "link down" | "link up" => {
            let links = fabric(&world.net);
            let (a, b) = links[world.below(links.len() as u64) as usize].clone();
            world.set_port(&a, kind == "link up");
            world.set_port(&b, kind == "link up");
        }
        "session broken" => {
            let switches: Vec<NodeName> = world.net.switches.keys().cloned().collect();
            let switch = &switches[world.below(switches.len() as u64) as usize];
            world.hang_up(number, switch);
        }
        // Before its next effect, or one soon after: what follows is lost.
        "controller killed" => {
            world.controllers[number].dies_in = Some(world.below(12) as u32);
        }
        "controller stopped" => world.controllers[number].away_until = until,
        "controller cut off" => {
            world.controllers[number].cut_off_until = until;
            for switch in world.net.switches.keys().cloned().collect::<Vec<_>>() {
                world.hang_up(number, &switch);
            }
        }
        "store down" => world.store.down_until = until,
        "host moved" => {
            let host: NodeName = HOSTS[world.below(3) as usize].parse().expect("a name");
            move_host(world, &host);
        }
        other => unreachable!("{other} is not in KINDS"),
    }
    world.note(kind);
}

/// Unplugged here, plugged in at another switch's spare port, or back home.
fn move_host(world: &mut World, host: &NodeName) {
    let from = world.net.places[host].clone();
    let home = world.net.topology.attachment(host).expect("declared").2.clone();
    let spare: Vec<End> = world
        .net
        .switches
        .keys()
        .map(|switch| End { node: switch.clone(), port: "p9".parse().expect("a name") })
        .filter(|end| world.net.places.values().all(|place| place != end))
        .collect();
    let to =
        if from == home { spare[world.below(spare.len() as u64) as usize].clone() } else { home };
    world.set_port(&from, false);
    world.net.places.insert(host.clone(), to.clone());
    world.set_port(&to, true);
}

/// Everything that was broken works again; links that are down stay so, but for what would
/// leave the network in parts.
pub(super) fn heal(world: &mut World) {
    world.healed = true;
    world.store.down_until = 0;
    for controller in &mut world.controllers {
        controller.away_until = 0;
        controller.cut_off_until = 0;
        controller.dies_in = None;
    }
    for (a, b) in fabric(&world.net) {
        world.set_port(&a, true);
        world.set_port(&b, true);
    }
    for number in 0..CONTROLLERS {
        world.post(1, Mail::Poll(number));
    }
}

fn fabric(net: &Net) -> Vec<(End, End)> {
    let switch = |end: &End| net.switches.contains_key(&end.node);
    let links = net.topology.links.iter().filter(|link| switch(&link.a) && switch(&link.b));
    links.map(|link| (link.a.clone(), link.b.clone())).collect()
}
