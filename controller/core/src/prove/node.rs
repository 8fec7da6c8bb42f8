//! The entries of one switch in one state, with what look-ups need.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;
use selvedge_pipeline::{
    DeliveryEntry, EndpointEntry, Entry, GtpSessionEntry, Key, LocalSidAction, PolicyId, PortId,
    PortKind, RouteAction, SliceId, SliceRouteEntry, SliceSet, prefix,
};

use super::groups::Groups;
use super::survive::Moved;
use super::world::{Endpoint, Member, World};
use crate::plan::Table;
use selvedge_topology::sorted::Sorted;

/// The guarantee of one slice, by direction (as index), where it enters: on each arc.
pub(crate) type Carried = Arc<Vec<((usize, PortId), u64)>>;

/// The same of what failures add to arcs.
pub(crate) type Added = Arc<Vec<((usize, PortId), Moved, u64)>>;

/// Cheap to clone: what a step does not touch stays shared with the state before it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    /// As read or written; `None`: not known.
    pub(crate) table: Option<Arc<Table>>,
    lengths: [Lengths; 3],
    /// Local ids and node ids of this switch, in rising order.
    pub(crate) locals: Vec<(u16, LocalSidAction)>,
    pub(crate) ports: Sorted<PortId, PortKind>,
    pub(crate) routes_by_policy: Sorted<PolicyId, Vec<(SliceSet, IpNet)>>,
    /// How many routes of each set are in a slice.
    routes_in: Sorted<(SliceId, SliceSet), u32>,
    groups: Arc<Groups>,
    /// Sets of groups with a member of a slice, in rising order.
    sets_in: Arc<Vec<(SliceId, SliceSet)>>,
    pub(crate) sources: Sorted<(SliceId, usize), Carried>,
    pub(crate) added: Sorted<(SliceId, usize), Added>,
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
        self.table.is_some()
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Entry> {
        self.table.as_ref()?.get(key)
    }

    /// Entries with keys of a range, in order.
    pub(crate) fn range(&self, keys: RangeInclusive<Key>) -> impl Iterator<Item = &Entry> {
        self.table.iter().flat_map(move |table| table.range(keys.clone()))
    }

    /// Changes that turn what is here into `table`, by key.
    pub(crate) fn towards(&self, table: &Table) -> Vec<(Key, Option<Entry>)> {
        let (mut changes, empty) = (Vec::new(), Table::new());
        self.table.as_deref().unwrap_or(&empty).differences(table, |key, _, new| {
            changes.push((*key, new.cloned()));
        });
        changes
    }

    /// Returns what was there before.
    pub(crate) fn set(&mut self, key: Key, entry: Option<Entry>) -> Option<Entry> {
        let table = Arc::make_mut(self.table.get_or_insert_default());
        let old = match entry.clone() {
            Some(entry) => table.insert(entry),
            None => table.remove(&key),
        };
        if let Some(old) = &old {
            self.count(old, false);
        }
        if let Some(new) = &entry {
            self.count(new, true);
        }
        old
    }

    fn count(&mut self, entry: &Entry, there: bool) {
        match entry {
            Entry::Endpoint(e) => tally(&mut self.lengths[0], e.prefix, there),
            Entry::Delivery(e) => tally(&mut self.lengths[2], e.prefix, there),
            Entry::SliceRoute(e) => {
                tally(&mut self.lengths[1], e.prefix, there);
                let key = (e.slice, e.slice_set);
                let before = self.routes_in.get(&key).copied().unwrap_or(0);
                match if there { before + 1 } else { before - 1 } {
                    0 => drop(self.routes_in.remove(&key)),
                    routes => drop(self.routes_in.insert(key, routes)),
                }
                let RouteAction::Policy(policy) = e.action else { return };
                let mut routes = self.routes_by_policy.remove(&policy).unwrap_or_default();
                match there {
                    true => routes.push((e.slice_set, e.prefix)),
                    false => routes.retain(|route| *route != (e.slice_set, e.prefix)),
                }
                if !routes.is_empty() {
                    self.routes_by_policy.insert(policy, routes);
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

    pub(crate) fn session(&self, teid: u32) -> Option<&GtpSessionEntry> {
        match self.get(&Key::GtpSession(teid))? {
            Entry::GtpSession(entry) => Some(entry),
            _ => None,
        }
    }

    pub(crate) fn sessions(&self) -> impl Iterator<Item = &GtpSessionEntry> {
        let all = Key::GtpSession(0)..=Key::GtpSession(u32::MAX);
        self.range(all).filter_map(|entry| match entry {
            Entry::GtpSession(entry) => Some(&**entry),
            _ => None,
        })
    }

    /// The slice set of what an endpoint of this switch sends from an address of its own, on the
    /// way that it has: bare, or through its gNB's tunnel.
    pub(crate) fn bound(&self, endpoint: &Endpoint, source: IpAddr) -> Option<SliceSet> {
        let Some(way) = endpoint.n3 else {
            return Some(self.endpoint(endpoint.port, source)?.slice_set);
        };
        let session = self.session(way.uplink_teid)?;
        let ends_here = self.get(&Key::N3Address(way.tunnel.local)).is_some();
        let is_its = (session.port, session.gnb, session.qfis)
            == (endpoint.port, way.tunnel.gnb, way.qfis)
            && sends_from(session, source);
        (ends_here && is_its).then_some(session.slice_set)
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

    pub(crate) fn groups(&self) -> &Groups {
        &self.groups
    }

    pub(crate) fn set_groups(&mut self, groups: Groups) {
        let of = |(set, member, _): (SliceSet, &Arc<Member>, _)| {
            member.slices.clone().into_iter().map(move |slice| (slice, set))
        };
        let mut sets: Vec<(SliceId, SliceSet)> = groups.iter().flat_map(of).collect();
        sets.sort_unstable();
        sets.dedup();
        self.sets_in = Arc::new(sets);
        self.groups = Arc::new(groups);
    }

    /// Sets whose packets may travel in a slice: they have routes there, or should have.
    pub(crate) fn sets_in(&self, slice: SliceId) -> BTreeSet<SliceSet> {
        let routed = self.routes_in.from(&(slice, SliceSet(0))).map(|(key, _)| key);
        let first = self.sets_in.partition_point(|(of, _)| *of < slice);
        let of_slice = |key: &&(SliceId, SliceSet)| key.0 == slice;
        let wanted = self.sets_in[first..].iter().take_while(of_slice);
        routed.take_while(of_slice).chain(wanted).map(|(_, set)| *set).collect()
    }

    /// The groups of endpoints that are bound here now; those bound where they are not belong
    /// to none.
    pub(crate) fn regrouped(&self, here: usize, world: &World) -> Groups {
        let mut bound: Vec<(SliceSet, &Arc<Member>, u32)> = Vec::new();
        for entry in self.bindings() {
            world.hosts.overlapping(entry.prefix, |host| {
                let Some(endpoint) = world.endpoint(host) else { return };
                if (endpoint.node, endpoint.port) == (here, entry.port) {
                    bound.push((entry.slice_set, &endpoint.member, host));
                }
            });
        }
        for entry in self.sessions() {
            for net in sources(entry) {
                world.hosts.overlapping(net, |host| {
                    let Some(endpoint) = world.endpoint(host) else { return };
                    let teid = endpoint.n3.map(|way| way.uplink_teid);
                    if endpoint.node == here && teid == Some(entry.teid) {
                        bound.push((entry.slice_set, &endpoint.member, host));
                    }
                });
            }
        }
        Groups::new(bound)
    }
}

/// What the UE of a session may send from.
pub(crate) fn sources(entry: &GtpSessionEntry) -> impl Iterator<Item = IpNet> {
    let ipv4 = entry.ue_ipv4.map(|v4| IpNet::from(IpAddr::V4(v4)));
    ipv4.into_iter().chain(entry.ue_ipv6.map(IpNet::V6))
}

fn sends_from(entry: &GtpSessionEntry, source: IpAddr) -> bool {
    sources(entry).any(|net| net.contains(&source))
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
