//! The entries of one switch in one state, with what look-ups need.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;
use selvedge_pipeline::{
    DeliveryEntry, EndpointEntry, Entry, Key, LocalSidAction, PolicyId, PortId, PortKind,
    RouteAction, SliceId, SliceRouteEntry, SliceSet, prefix,
};

use super::world::{Member, World};
use crate::plan::Table;

/// Endpoints of one switch whose packets are treated alike: bound to one slice set there, and
/// members of the same slices on the same side.
pub(crate) type Groups = BTreeMap<SliceSet, BTreeMap<Arc<Member>, Vec<u32>>>;

/// The guarantee of one slice, by direction (as index), where it enters: on each arc.
pub(crate) type Carried = Arc<Vec<((usize, PortId), u64)>>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    /// As last read or written; `None`: not known.
    pub(crate) base: Option<Arc<Table>>,
    /// Changes since; `None`: removed.
    over: BTreeMap<Key, Option<Entry>>,
    lengths: [Lengths; 3],
    /// Local ids and node ids of this switch, in rising order.
    pub(crate) locals: Vec<(u16, LocalSidAction)>,
    pub(crate) ports: BTreeMap<PortId, PortKind>,
    pub(crate) routes_by_policy: BTreeMap<PolicyId, Vec<(SliceSet, IpNet)>>,
    pub(crate) groups: Groups,
    pub(crate) sources: BTreeMap<(SliceId, usize), Carried>,
}

/// How many prefixes there are of each length, longest first.
type Lengths = Vec<(u8, u32)>;

#[derive(Clone, Copy)]
enum Match {
    Endpoint(PortId),
    Route(SliceSet),
    Delivery(SliceId),
}

impl Match {
    fn key(self, net: IpNet) -> Key {
        match self {
            Self::Endpoint(port) => Key::Endpoint(port, net),
            Self::Route(set) => Key::SliceRoute(set, net),
            Self::Delivery(slice) => Key::Delivery(slice, net),
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Endpoint(_) => 0,
            Self::Route(_) => 1,
            Self::Delivery(_) => 2,
        }
    }
}

/// Below and above every prefix, in the order of [`IpNet`].
fn all_nets() -> (IpNet, IpNet) {
    let ends = ("0.0.0.0/0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128");
    let net = |text: &str| text.parse().expect("a prefix");
    (net(ends.0), net(ends.1))
}

impl Node {
    pub(crate) fn known(&self) -> bool {
        self.base.is_some()
    }

    /// Nothing changed since it was last read or written.
    pub(crate) fn is_settled(&self) -> bool {
        self.over.is_empty()
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Entry> {
        if !self.over.is_empty()
            && let Some(entry) = self.over.get(key)
        {
            return entry.as_ref();
        }
        self.base.as_ref()?.get(key)
    }

    /// Entries with keys of a range, in no particular order.
    pub(crate) fn range(&self, keys: RangeInclusive<Key>) -> impl Iterator<Item = &Entry> {
        let base = self.base.iter().flat_map({
            let keys = keys.clone();
            move |table| table.range(keys.clone())
        });
        let hidden = |key: &Key| !self.over.is_empty() && self.over.contains_key(key);
        let base = base.filter(move |(key, _)| !hidden(key)).map(|(_, entry)| entry);
        base.chain(self.over.range(keys).filter_map(|(_, entry)| entry.as_ref()))
    }

    /// Changes that turn what is here into `table`, by key.
    pub(crate) fn towards(&self, table: &Table) -> Vec<(Key, Option<Entry>)> {
        let mut changes = Vec::new();
        let empty = Table::new();
        let base = self.base.as_deref().unwrap_or(&empty);
        let (mut old, mut new) = (base.iter().peekable(), table.iter().peekable());
        let mut put = |key: &Key, entry: Option<&Entry>| {
            if self.get(key) != entry {
                changes.push((*key, entry.cloned()));
            }
        };
        loop {
            match (old.peek().copied(), new.peek().copied()) {
                (None, None) => break,
                (Some((a, before)), Some((b, after))) if a == b => {
                    if before != after || !self.over.is_empty() {
                        put(b, Some(after));
                    }
                    old.next();
                    new.next();
                }
                (Some((a, _)), after) if after.is_none_or(|(b, _)| a < b) => {
                    put(a, None);
                    old.next();
                }
                (_, Some((b, after))) => {
                    put(b, Some(after));
                    new.next();
                }
                (Some(_), None) => unreachable!("the guard above has no condition then"),
            }
        }
        // What was added since, and is not wanted.
        let gone = |key: &&Key| !base.contains_key(key) && !table.contains_key(key);
        let added = self.over.iter().filter(|(_, entry)| entry.is_some()).map(|(key, _)| key);
        changes.extend(added.filter(gone).map(|key| (*key, None)));
        changes
    }

    /// The changes since are in `table` now.
    pub(crate) fn rebase(&mut self, table: Arc<Table>) {
        self.base = Some(table);
        self.over.clear();
    }

    /// Returns what was there before.
    pub(crate) fn set(&mut self, key: Key, entry: Option<Entry>) -> Option<Entry> {
        let old = self.get(&key).cloned();
        if let Some(old) = &old {
            self.count(old, false);
        }
        if let Some(new) = &entry {
            self.count(new, true);
        }
        self.over.insert(key, entry);
        old
    }

    fn count(&mut self, entry: &Entry, there: bool) {
        match entry {
            Entry::Endpoint(e) => tally(&mut self.lengths[0], e.prefix, there),
            Entry::Delivery(e) => tally(&mut self.lengths[2], e.prefix, there),
            Entry::SliceRoute(e) => {
                tally(&mut self.lengths[1], e.prefix, there);
                let RouteAction::Policy(policy) = e.action else { return };
                let routes = self.routes_by_policy.entry(policy).or_default();
                if there {
                    routes.push((e.slice_set, e.prefix));
                } else {
                    routes.retain(|route| *route != (e.slice_set, e.prefix));
                    if routes.is_empty() {
                        self.routes_by_policy.remove(&policy);
                    }
                }
            }
            Entry::Port(e) => {
                match there {
                    true => self.ports.insert(e.port, e.kind),
                    false => self.ports.remove(&e.port),
                };
            }
            Entry::LocalSid(e) => {
                let at = self.locals.binary_search_by_key(&e.sid, |(sid, _)| *sid);
                match (at, there) {
                    (Ok(at), true) => self.locals[at].1 = e.action,
                    (Ok(at), false) => drop(self.locals.remove(at)),
                    (Err(at), true) => self.locals.insert(at, (e.sid, e.action)),
                    (Err(_), false) => {}
                }
            }
            _ => {}
        }
    }

    pub(crate) fn local(&self, sid: u16) -> Option<LocalSidAction> {
        let at = self.locals.binary_search_by_key(&sid, |(sid, _)| *sid).ok()?;
        Some(self.locals[at].1)
    }

    fn longest(&self, what: Match, address: IpAddr) -> Option<&Entry> {
        let bits = prefix::address_bits(address);
        let lengths = self.lengths[what.index()].iter();
        lengths.map(|(length, _)| *length).find_map(|length| {
            self.get(&what.key(prefix::prefix(bits & prefix::mask(length), length)))
        })
    }

    pub(crate) fn endpoint(&self, port: PortId, source: IpAddr) -> Option<&EndpointEntry> {
        match self.longest(Match::Endpoint(port), source)? {
            Entry::Endpoint(entry) => Some(entry),
            _ => None,
        }
    }

    pub(crate) fn route(&self, set: SliceSet, destination: IpAddr) -> Option<&SliceRouteEntry> {
        match self.longest(Match::Route(set), destination)? {
            Entry::SliceRoute(entry) => Some(entry),
            _ => None,
        }
    }

    pub(crate) fn delivery(&self, slice: SliceId, destination: IpAddr) -> Option<&DeliveryEntry> {
        match self.longest(Match::Delivery(slice), destination)? {
            Entry::Delivery(entry) => Some(entry),
            _ => None,
        }
    }

    pub(crate) fn routes_of(&self, set: SliceSet) -> impl Iterator<Item = &SliceRouteEntry> {
        let (first, last) = all_nets();
        let keys = Key::SliceRoute(set, first)..=Key::SliceRoute(set, last);
        self.range(keys).filter_map(|entry| match entry {
            Entry::SliceRoute(route) => Some(route),
            _ => None,
        })
    }

    pub(crate) fn bindings(&self) -> impl Iterator<Item = &EndpointEntry> {
        let (first, last) = all_nets();
        let keys = Key::Endpoint(PortId(0), first)..=Key::Endpoint(PortId(u16::MAX), last);
        self.range(keys).filter_map(|entry| match entry {
            Entry::Endpoint(entry) => Some(entry),
            _ => None,
        })
    }

    /// The groups of endpoints that are bound here now; those bound where they are not belong
    /// to none.
    pub(crate) fn regrouped(&self, here: usize, world: &World) -> Groups {
        let mut groups = Groups::new();
        for entry in self.bindings() {
            world.hosts.overlapping(entry.prefix, |host| {
                let Some(endpoint) = world.endpoint(host) else { return };
                if (endpoint.node, endpoint.port) == (here, entry.port) {
                    let members = groups.entry(entry.slice_set).or_default();
                    let group = members.entry(endpoint.member.clone()).or_default();
                    if !group.contains(&host) {
                        group.push(host);
                    }
                }
            });
        }
        for group in groups.values_mut().flat_map(BTreeMap::values_mut) {
            group.sort_unstable();
        }
        groups
    }
}

fn tally(lengths: &mut Lengths, net: IpNet, there: bool) {
    let (_, len) = prefix::prefix_bits(net);
    match (lengths.binary_search_by_key(&std::cmp::Reverse(len), |l| std::cmp::Reverse(l.0)), there)
    {
        (Ok(at), true) => lengths[at].1 += 1,
        (Ok(at), false) => {
            lengths[at].1 -= 1;
            if lengths[at].1 == 0 {
                lengths.remove(at);
            }
        }
        (Err(at), true) => lengths.insert(at, (len, 1)),
        (Err(_), false) => {}
    }
}
