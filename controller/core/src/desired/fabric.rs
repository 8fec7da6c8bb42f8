//! What every switch needs whatever the slices are: ports, queues, its own ids, and the way to
//! every other switch along the shortest path tree over usable links.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_pipeline::{
    Entry, FUNCTION_UDT46, LocalSidAction, LocalSidEntry, NextHopEntry, NodeSid, PortEntry,
    PortKind, PortQueueEntry,
};
use selvedge_topology::{ArcIx, LinkIx, NodeName};

use crate::derived::Derived;
use crate::network::{LinkState, Network, Use};
use crate::numbers::Numbers;
use crate::plan::Table;
use crate::queue;
use crate::refusal::Refusal;

/// Adds the fabric's entries to the tables of those of `switches` that are known.
pub(crate) fn fabric(
    network: &Network,
    derived: &Derived,
    switches: &BTreeSet<&NodeName>,
    numbers: &mut Numbers,
    tables: &mut BTreeMap<NodeName, Table>,
) -> Result<(), Refusal> {
    if switches.is_empty() {
        return Ok(());
    }
    let snapshot = &derived.snapshot;
    let mut sids = Vec::with_capacity(snapshot.len());
    for node in snapshot.nodes() {
        sids.push(numbers.node(snapshot.name(node))?);
    }
    for node in snapshot.nodes().filter(|node| switches.contains(snapshot.name(*node))) {
        let name = snapshot.name(node);
        let Some(switch) = derived.of.switches.get(name).filter(|switch| switch.known) else {
            continue;
        };
        let table = tables.entry(name.clone()).or_default();
        for port in switch.ports.values() {
            let used = network.port_use(name, port);
            let kind = match used {
                Some(Use::Fabric(_)) => PortKind::Fabric,
                Some(Use::Host(_)) | None => PortKind::Access,
            };
            put(table, Entry::Port(PortEntry { port: port.id, kind }));
            let link = used.map(|(Use::Fabric(link) | Use::Host(link))| network.link(link));
            if let Some(capacity) = link.and_then(|link| link.capacity) {
                let (rate_bps, threshold_bytes) = queue::of(capacity);
                let queue = PortQueueEntry { port: port.id, rate_bps, threshold_bytes };
                put(table, Entry::PortQueue(queue));
            }
        }
        let local = |sid, action| Entry::LocalSid(LocalSidEntry { sid, action });
        put(table, local(sids[node.index()].0, LocalSidAction::Node));
        put(table, local(FUNCTION_UDT46, LocalSidAction::Decapsulate));
        for root in snapshot.nodes() {
            let next = derived.forwarding.tree(snapshot, root).next(node);
            if let Some(hop) = hop(&derived.links, next, sids[root.index()]) {
                put(table, hop);
            }
        }
    }
    Ok(())
}

/// The way to a node by an arc from where the entry is; `None`: there is none.
pub(crate) fn hop(
    links: &BTreeMap<LinkIx, LinkState>,
    arc: Option<ArcIx>,
    node: NodeSid,
) -> Option<Entry> {
    let arc = arc?;
    let LinkState::Usable { a, b } = links.get(&arc.link())? else { return None };
    let (near, far) = if arc.a_to_b() { (a, b) } else { (b, a) };
    Some(Entry::NextHop(NextHopEntry { node, port: near.port, mac: far.mac }))
}

/// Adds an entry; no two of one key are ever wanted.
pub(super) fn put(table: &mut Table, entry: Entry) {
    let before = table.insert(entry);
    debug_assert!(before.is_none(), "two entries of one key: {before:?}");
}
