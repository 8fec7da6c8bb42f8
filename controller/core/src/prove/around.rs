//! Whether switches lead packets around a failure to where they would have been.
//!
//! From the entries alone: a backup is walked, from the other port along its ids by the next hops
//! of all, to its end. It must not cross the link that it leads around. Its end must be the switch
//! behind that link, or, for packets that are not for that one, the switch after it, and then it
//! must not pass the one between either. From there on a packet is on the way that it would have
//! taken, which has been proven.
//!
//! Judged where a plan changes next hops or backups, of its result: on the way there a switch may
//! lead around by what was, which serves as long as there is no second failure.

use std::collections::BTreeMap;

use selvedge_pipeline::{BackupEntry, Entry, Key, NextHopEntry, NodeSid, PortId};

use super::class::UNKNOWN;
use super::view::View;
use super::{CounterExample, Defect};

/// Where a backup leads.
struct Lead {
    end: usize,
    /// Not counting its end.
    passes: Vec<usize>,
}

/// The first backup, or next hop with one, that leads astray.
pub(super) fn astray(view: &View) -> Option<CounterExample> {
    (0..view.nodes.len()).find_map(|at| at_node(view, at))
}

fn at_node(view: &View, at: usize) -> Option<CounterExample> {
    let node = &view.nodes[at];
    let mut leads: BTreeMap<(PortId, u8), Lead> = BTreeMap::new();
    let backups = Key::Backup(PortId(0), 0)..=Key::Backup(PortId(u16::MAX), u8::MAX);
    for entry in node.range(backups) {
        let Entry::Backup(backup) = entry else { continue };
        match lead(view, at, backup) {
            Ok(lead) => drop(leads.insert((backup.around, backup.backup), lead)),
            Err(why) => {
                let subject = format!("backup {} of port {}", backup.backup, backup.around.0);
                return Some(counter(view, subject, vec![at], why));
            }
        }
    }
    let hops = Key::NextHop(NodeSid(0))..=Key::NextHop(NodeSid(u16::MAX));
    let hops = node.range(hops).filter_map(|entry| match entry {
        Entry::NextHop(hop) => Some(hop),
        _ => None,
    });
    let mut named = hops.filter(|hop| hop.backup != 0);
    named.find_map(|hop| {
        let why = misled(view, at, hop, leads.get(&(hop.port, hop.backup)))?;
        let subject = format!("packets to node {} while port {} is down", hop.node.0, hop.port.0);
        Some(counter(view, subject, vec![at], why))
    })
}

fn counter(view: &View, subject: String, nodes: Vec<usize>, detail: String) -> CounterExample {
    let nodes = nodes.into_iter().map(|node| view.world.name(node).clone()).collect();
    CounterExample { defect: Defect::Detour, step: 0, subject, nodes, detail }
}

/// Why a next hop's backup does not lead its packets on; `None`: it does, or they go nowhere.
fn misled(view: &View, at: usize, hop: &NextHopEntry, lead: Option<&Lead>) -> Option<String> {
    let over = view.world.wires.get(&(at, hop.port))?.node;
    let Some(Lead { end, passes }) = lead else {
        return Some(format!("there is no backup {} of that port", hop.backup));
    };
    if *end == over {
        return None;
    }
    let next = view.classes.get(usize::from(hop.node.0))?.next[over];
    if next >= UNKNOWN {
        return None;
    }
    let name = |node: usize| view.world.name(node);
    if usize::from(next) == over || usize::from(next) != *end {
        return Some(format!("they are led to {}, which is not on their way", name(*end)));
    }
    let passed = passes.contains(&over);
    passed.then(|| format!("they are led around {} and through it", name(over)))
}

/// Walks a backup. Fails with why it leads nowhere.
fn lead(view: &View, at: usize, backup: &BackupEntry) -> Result<Lead, String> {
    let world = &view.world;
    let around = world.wires.get(&(at, backup.around)).map(|wire| wire.link);
    let wire = world.wires.get(&(at, backup.port)).filter(|wire| wire.mac == backup.mac);
    let wire = wire.ok_or_else(|| format!("no usable link at port {}", backup.port.0))?;
    if Some(wire.link) == around {
        return Err("it leads over the link that it leads around".to_owned());
    }
    let (mut end, mut passes) = (wire.node, Vec::new());
    for sid in &backup.sids {
        let nowhere = |at: usize| format!("there is no way from {} to node {sid}", world.name(at));
        let class = view.classes.get(usize::from(*sid)).ok_or_else(|| nowhere(end))?;
        for _ in 0..=view.nodes.len() {
            let next = class.next[end];
            if next >= UNKNOWN {
                return Err(nowhere(end));
            }
            if usize::from(next) == end {
                break;
            }
            let (port, _) = class.hop[end].ok_or_else(|| nowhere(end))?;
            let link = world.wires.get(&(end, port)).map(|wire| wire.link);
            if link.is_some() && link == around {
                return Err("it leads over the link that it leads around".to_owned());
            }
            passes.push(end);
            end = usize::from(next);
        }
    }
    Ok(Lead { end, passes })
}
