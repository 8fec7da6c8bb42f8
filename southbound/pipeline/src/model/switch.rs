//! The tables of one switch, indexed for look-up, and the state that is not in tables.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{prefix, *};

/// An interface of the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    pub mac: [u8; 6],
    /// Whether a frame can be sent there: the interface exists.
    pub up: bool,
}

/// One switch. Entries, its ports' interfaces, and which hooks run; hooks that were not
/// mentioned do not.
#[derive(Clone, Debug, Default)]
pub struct Switch {
    entries: BTreeMap<Key, Entry>,
    endpoints: Lpm<EndpointEntry>,
    routes: Lpm<SliceRouteEntry>,
    deliveries: Lpm<DeliveryEntry>,
    ports: BTreeMap<PortId, Port>,
    down: BTreeSet<PortId>,
    hooks: BTreeSet<HookId>,
    mark: bool,
}

impl Switch {
    /// Of two entries with one key the later counts.
    pub fn new(entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut switch = Self::default();
        for entry in entries {
            switch.insert(entry);
        }
        switch
    }

    /// Puts `entry` in place of what had its key.
    pub fn insert(&mut self, entry: Entry) {
        let key = entry.key();
        match &entry {
            Entry::Endpoint(e) => self.endpoints.insert(e.port.0, e.prefix, *e),
            Entry::SliceRoute(e) => self.routes.insert(e.slice_set.0, e.prefix, *e),
            Entry::Delivery(e) => self.deliveries.insert(e.slice.0, e.prefix, e.clone()),
            _ => {}
        }
        self.entries.insert(key, entry);
    }

    pub fn remove(&mut self, key: &Key) -> Option<Entry> {
        match *key {
            Key::Endpoint(port, prefix) => self.endpoints.remove(port.0, prefix),
            Key::SliceRoute(set, prefix) => self.routes.remove(set.0, prefix),
            Key::Delivery(slice, prefix) => self.deliveries.remove(slice.0, prefix),
            _ => {}
        }
        self.entries.remove(key)
    }

    /// Every entry, by key.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    pub fn set_port(&mut self, port: PortId, state: Port) {
        self.ports.insert(port, state);
    }

    pub fn remove_port(&mut self, port: PortId) {
        self.ports.remove(&port);
    }

    /// Has packets to other nodes go around a port, or not.
    pub fn set_down(&mut self, port: PortId, down: bool) {
        if down {
            self.down.insert(port);
        } else {
            self.down.remove(&port);
        }
    }

    pub(super) fn is_down(&self, port: PortId) -> bool {
        self.down.contains(&port)
    }

    pub fn set_hook(&mut self, hook: HookId, running: bool) {
        if running {
            self.hooks.insert(hook);
        } else {
            self.hooks.remove(&hook);
        }
    }

    /// What packets that enter from now on are marked with.
    pub fn set_mark(&mut self, mark: bool) {
        self.mark = mark;
    }

    pub(super) fn mark(&self) -> bool {
        self.mark
    }

    /// This switch's node id: the `local_sid` that says so, the lowest if several do; 0 if
    /// none does.
    pub fn node(&self) -> u16 {
        let mut sids = self.entries.range(Key::LocalSid(0)..=Key::LocalSid(u16::MAX));
        sids.find_map(|(_, entry)| match entry {
            Entry::LocalSid(LocalSidEntry { sid, action: LocalSidAction::Node }) => Some(*sid),
            _ => None,
        })
        .unwrap_or(0)
    }

    pub(super) fn port_kind(&self, port: PortId) -> Option<PortKind> {
        match self.entries.get(&Key::Port(port))? {
            Entry::Port(entry) => Some(entry.kind),
            _ => None,
        }
    }

    pub(super) fn endpoint(&self, port: PortId, source: IpAddr) -> Option<&EndpointEntry> {
        self.endpoints.get(port.0, source)
    }

    /// By falling priority.
    pub(super) fn rules(&self) -> impl Iterator<Item = &ClassifierEntry> {
        let rules = self.entries.range(Key::Classifier(0)..=Key::Classifier(u32::MAX));
        rules.rev().filter_map(|(_, entry)| match entry {
            Entry::Classifier(rule) => Some(&**rule),
            _ => None,
        })
    }

    pub(super) fn route(&self, set: SliceSet, destination: IpAddr) -> Option<&SliceRouteEntry> {
        self.routes.get(set.0, destination)
    }

    pub(super) fn meter(&self, slice: SliceId, direction: Direction) -> Option<&SliceMeterEntry> {
        match self.entries.get(&Key::SliceMeter(slice, direction))? {
            Entry::SliceMeter(entry) => Some(entry),
            _ => None,
        }
    }

    pub(super) fn endpoint_meter(
        &self,
        slice: SliceId,
        direction: Direction,
        endpoint: EndpointId,
    ) -> Option<&EndpointMeterEntry> {
        match self.entries.get(&Key::EndpointMeter(slice, direction, endpoint))? {
            Entry::EndpointMeter(entry) => Some(entry),
            _ => None,
        }
    }

    pub(super) fn policy(&self, policy: PolicyId) -> Option<&PolicyEntry> {
        match self.entries.get(&Key::Policy(policy))? {
            Entry::Policy(entry) => Some(entry),
            _ => None,
        }
    }

    pub(super) fn local_sid(&self, sid: u16) -> Option<LocalSidAction> {
        match self.entries.get(&Key::LocalSid(sid))? {
            Entry::LocalSid(entry) => Some(entry.action),
            _ => None,
        }
    }

    pub(super) fn next_hop(&self, node: NodeSid) -> Option<&NextHopEntry> {
        match self.entries.get(&Key::NextHop(node))? {
            Entry::NextHop(entry) => Some(entry),
            _ => None,
        }
    }

    pub(super) fn backup(&self, around: PortId, backup: u8) -> Option<&BackupEntry> {
        match self.entries.get(&Key::Backup(around, backup))? {
            Entry::Backup(entry) => Some(entry),
            _ => None,
        }
    }

    pub(super) fn delivery(&self, slice: SliceId, destination: IpAddr) -> Option<&DeliveryEntry> {
        self.deliveries.get(slice.0, destination)
    }

    pub(super) fn is_n3(&self, address: IpAddr) -> bool {
        self.entries.contains_key(&Key::N3Address(address))
    }

    pub(super) fn session(&self, teid: u32) -> Option<&GtpSessionEntry> {
        match self.entries.get(&Key::GtpSession(teid))? {
            Entry::GtpSession(entry) => Some(entry),
            _ => None,
        }
    }

    pub(super) fn port_queue(&self, port: PortId) -> Option<&PortQueueEntry> {
        match self.entries.get(&Key::PortQueue(port))? {
            Entry::PortQueue(entry) => Some(entry),
            _ => None,
        }
    }

    pub(super) fn egress(&self, port: PortId) -> Option<Port> {
        self.ports.get(&port).copied().filter(|port| port.up)
    }

    pub(super) fn runs(&self, hook: HookId) -> bool {
        self.hooks.contains(&hook)
    }
}

/// Longest prefix match within a scope (a port, a slice), by trying the lengths in use.
#[derive(Clone, Debug)]
struct Lpm<V> {
    entries: BTreeMap<(u16, u8, u128), V>,
    /// How many entries have each prefix length.
    lengths: BTreeMap<u8, usize>,
}

impl<V> Default for Lpm<V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), lengths: BTreeMap::new() }
    }
}

impl<V> Lpm<V> {
    fn insert(&mut self, scope: u16, net: IpNet, value: V) {
        let (bits, len) = prefix::prefix_bits(net);
        if self.entries.insert((scope, len, bits), value).is_none() {
            *self.lengths.entry(len).or_default() += 1;
        }
    }

    fn remove(&mut self, scope: u16, net: IpNet) {
        let (bits, len) = prefix::prefix_bits(net);
        if self.entries.remove(&(scope, len, bits)).is_some() {
            let count = self.lengths.get_mut(&len).expect("counted when inserted");
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&len);
            }
        }
    }

    fn get(&self, scope: u16, address: IpAddr) -> Option<&V> {
        let bits = prefix::address_bits(address);
        let lengths = self.lengths.keys().rev();
        lengths.filter_map(|len| self.entries.get(&(scope, *len, bits & prefix::mask(*len)))).next()
    }
}
