//! What must hold, whatever happens.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_core::{Change, Core, ObjectId};
use selvedge_pipeline::DropReason;
use selvedge_slices::Object;
use selvedge_topology::NodeName;

use super::world::World;
use crate::forward::Fate;

#[derive(Default)]
pub(super) struct Judge {
    /// Per object, what it may be: what was acknowledged last, and what was asked for since
    /// and not answered. `None`: not there.
    possible: BTreeMap<ObjectId, BTreeSet<Wanted>>,
    /// Who may reach whom, by any intent since the network last was as intended.
    allowed: BTreeSet<(NodeName, NodeName)>,
}

/// An object as text, which has an order.
type Wanted = Option<String>;

pub(super) struct Attempt {
    id: ObjectId,
    wanted: Wanted,
    was_possible: bool,
}

impl Judge {
    /// Called before the core hears of it: from now on it may hold.
    pub(super) fn attempt(&mut self, change: &Change) -> Attempt {
        let (id, wanted) = match (change.put.first(), change.delete.first()) {
            (Some(object), _) => {
                let id = ObjectId { kind: object.kind(), name: object.name().clone() };
                (id, Some(text(object)))
            }
            (None, Some(id)) => (id.clone(), None),
            (None, None) => unreachable!("a change of nothing"),
        };
        let possible = self.possible.entry(id.clone()).or_insert_with(|| BTreeSet::from([None]));
        let was_possible = !possible.insert(wanted.clone());
        Attempt { id, wanted, was_possible }
    }

    pub(super) fn answered(&mut self, attempt: Attempt, done: bool) {
        let Attempt { id, wanted, was_possible } = attempt;
        let possible = self.possible.get_mut(&id).expect("it was attempted");
        if done {
            *possible = BTreeSet::from([wanted]);
        } else if !was_possible {
            possible.remove(&wanted);
        }
    }

    /// What the store has now may be in switches from now on.
    pub(super) fn allow(&mut self, core: &Core) {
        self.allowed.extend(pairs(core));
    }
}

fn text(object: &Object) -> String {
    format!("{object:?}")
}

/// Who shares a slice with whom.
fn pairs(core: &Core) -> BTreeSet<(NodeName, NodeName)> {
    let endpoints = core.endpoints();
    let mut pairs = BTreeSet::new();
    for a in &endpoints {
        for b in endpoints.iter().filter(|b| b.slices.iter().any(|s| a.slices.contains(s))) {
            pairs.insert((a.name.clone(), b.name.clone()));
        }
    }
    pairs
}

/// Sends a packet from each host to each.
pub(super) fn look(world: &World) {
    let hosts: Vec<NodeName> = world.net.places.keys().cloned().collect();
    for from in &hosts {
        let up = world.port_at(&world.net.places[from]).is_some_and(|port| port.up);
        for to in hosts.iter().filter(|to| up && *to != from) {
            let delivery = world.net.send(from, world.net.addresses(to)[0]);
            let path =
                || delivery.nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(" > ");
            match &delivery.fate {
                // Plugged in where another was a moment ago: its interface takes no frame that
                // is for another MAC address.
                Fate::Delivered(host, frame) if frame[..6] != world.net.macs[host] => {}
                Fate::Delivered(host, _) => {
                    let allowed = world.judge.allowed.contains(&(from.clone(), host.clone()));
                    assert!(host == to && allowed, "{from} -> {to} came to {host}: {}", path());
                }
                Fate::Dropped(DropReason::HopLimit) => panic!("{from} -> {to} loops: {}", path()),
                Fate::Dropped(_) | Fate::Lost => {}
            }
        }
    }
}

/// The network has converged.
pub(super) fn end(world: &World) {
    let leader = world.leaders().next().expect("it is quiet, so one leads");
    for (id, possible) in &world.judge.possible {
        let held = leader.core.object(id).as_ref().map(text);
        assert!(possible.contains(&held), "{id:?} is {held:?}, may be {possible:?}");
    }
    for from in world.net.places.keys() {
        for to in world.net.places.keys().filter(|to| *to != from) {
            let reaches = world.net.reaches(from, to, false);
            assert_eq!(reaches, may_talk(&leader.core, from, to), "{from} -> {to}");
        }
    }
}

/// In the default slice everyone reaches everyone; in another, the other side only.
fn may_talk(core: &Core, from: &NodeName, to: &NodeName) -> bool {
    let endpoints = core.endpoints();
    let slices = |host: &NodeName| {
        endpoints.iter().find(|endpoint| endpoint.name == *host).map(|e| e.slices.clone())
    };
    let (Some(from), Some(to)) = (slices(from), slices(to)) else { return false };
    from.iter().any(|slice| to.contains(slice))
}
