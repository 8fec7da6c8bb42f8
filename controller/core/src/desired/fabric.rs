//! What every switch needs whatever the slices are: ports, queues, its own ids, and the way to
//! every other switch along the shortest path tree over usable links.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use selvedge_pipeline::{
    BackupEntry, Entry, FUNCTION_UDT46, LocalSidAction, LocalSidEntry, N3AddressEntry,
    NextHopEntry, NodeSid, PortEntry, PortKind, PortQueueEntry,
};
use selvedge_slices::Class;
use selvedge_topology::{ArcIx, Backup, BitRate, LinkIx, NodeIx, NodeName};

use crate::derived::Derived;
use crate::event::Port;
use crate::network::{Attached, LinkState, Network, Use};
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
            if let Some(Use::Fabric(link) | Use::Host(link)) = used {
                queue(network, derived, (name, port), link, table);
            }
        }
        let local = |sid, action| Entry::LocalSid(LocalSidEntry { sid, action });
        put(table, local(sids[node.index()].0, LocalSidAction::Node));
        put(table, local(FUNCTION_UDT46, LocalSidAction::Decapsulate));
        for root in snapshot.nodes() {
            if let Some(hop) = hop(derived, (node, root), sids[root.index()]) {
                put(table, hop);
            }
        }
        for backup in backups(derived, node, |node| sids[node.index()].0) {
            put(table, backup);
        }
    }
    Ok(())
}

/// Adds the queues of ports that shape, of switches that are known and not among `but`.
pub(crate) fn shaped(
    network: &Network,
    derived: &Derived,
    but: &BTreeSet<&NodeName>,
    tables: &mut BTreeMap<NodeName, Table>,
) {
    for &ix in network.declared.shaped() {
        let link = network.link(ix);
        for end in [&link.a, &link.b] {
            let switch = derived.of.switches.get(&end.node);
            let Some(switch) = switch.filter(|s| s.known && !but.contains(&end.node)) else {
                continue;
            };
            if let Some(port) = switch.ports.values().find(|port| end.port.as_str() == port.name) {
                let table = tables.entry(end.node.clone()).or_default();
                queue(network, derived, (&end.node, port), ix, table);
            }
        }
    }
}

/// Adds the queue of a port, if its link has a capacity.
fn queue(
    network: &Network,
    derived: &Derived,
    (name, port): (&NodeName, &Port),
    ix: LinkIx,
    table: &mut Table,
) {
    let link = network.link(ix);
    let Some(capacity) = link.capacity else { return };
    let (rate_bps, mut threshold_bytes) = queue::of(capacity);
    let mut shaped_bps = [0; 3];
    let out = ArcIx::new(ix, link.a.node == *name);
    for class in Class::ALL.into_iter().filter(|class| class.is_shaped(link.shaped)) {
        let promised = BitRate(derived.ledger.promised(out, class).bps().min(rate_bps));
        if promised.bps() >= queue::MIN_SHAPED_BPS {
            shaped_bps[class as usize] = promised.bps();
            threshold_bytes[class as usize] = queue::threshold(class, promised);
        }
    }
    let port = port.id;
    let queue = PortQueueEntry { port, rate_bps, threshold_bytes, shaped_bps };
    put(table, Entry::PortQueue(queue));
}

/// Adds the addresses of N3, which every switch has, to the tables of those of `switches` (`None`:
/// all) that are known.
pub(crate) fn n3(
    derived: &Derived,
    addresses: &BTreeSet<IpAddr>,
    switches: Option<&BTreeSet<&NodeName>>,
    tables: &mut BTreeMap<NodeName, Table>,
) {
    if addresses.is_empty() {
        return;
    }
    let wanted = |name: &&NodeName| switches.is_none_or(|switches| switches.contains(*name));
    let known = derived.of.switches.iter().filter(|(_, switch)| switch.known);
    for name in known.map(|(name, _)| name).filter(wanted) {
        let table = tables.entry(name.clone()).or_default();
        for address in addresses {
            put(table, Entry::N3Address(N3AddressEntry { address: *address }));
        }
    }
}

/// The way from a switch to another; `None`: there is none.
pub(crate) fn hop(derived: &Derived, (at, root): (NodeIx, NodeIx), node: NodeSid) -> Option<Entry> {
    let (next, backup) = derived.next_hop(at, root)?;
    let (near, far) = ends(&derived.links, next)?;
    Some(Entry::NextHop(NextHopEntry { node, port: near.port, mac: far.mac, backup }))
}

/// The ways around what is next to a switch.
pub(crate) fn backups(
    derived: &Derived,
    at: NodeIx,
    sid: impl Fn(NodeIx) -> u16,
) -> impl Iterator<Item = Entry> {
    let (snapshot, links) = (&derived.snapshot, &derived.links);
    let out = snapshot.graph().out(at).iter().map(|edge| edge.arc);
    let usable = out.filter_map(|next| Some((next, ends(links, next)?.0.port)));
    usable.flat_map(move |(next, around)| {
        let of = derived.repairs.of(snapshot, next);
        let entry = |(backup, way, ids): (u8, &Backup, &[NodeIx])| {
            let (near, far) = ends(links, *way.path.arcs.first()?)?;
            let sids = ids.iter().map(|node| sid(*node)).collect();
            let (port, mac) = (near.port, far.mac);
            Some(Entry::Backup(BackupEntry { around, backup, port, mac, sids }))
        };
        of.filter_map(entry).collect::<Vec<_>>()
    })
}

/// The ports at both ends of an arc, in its direction, if its link is usable.
fn ends(links: &BTreeMap<LinkIx, LinkState>, arc: ArcIx) -> Option<(&Attached, &Attached)> {
    let LinkState::Usable { a, b } = links.get(&arc.link())? else { return None };
    Some(if arc.a_to_b() { (a, b) } else { (b, a) })
}

/// Adds an entry; no two of one key are ever wanted.
pub(crate) fn put(table: &mut Table, entry: Entry) {
    let before = table.insert(entry);
    debug_assert!(before.is_none(), "two entries of one key: {before:?}");
}
