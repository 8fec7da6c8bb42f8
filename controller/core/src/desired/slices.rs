//! Endpoints, their slices, and the routes between them.
//!
//! Which slices an endpoint is in, and on which side, is one number (its *slice set*), by which
//! its switch looks up routes. `dn` endpoints of a slice that has `ue` endpoints too have a set
//! of their own, since each side reaches the other one only.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use selvedge_pipeline::{
    DeliveryEntry, Direction, EndpointEntry, EndpointId, EndpointTag, Entry, GtpSessionEntry,
    HookId, PolicyEntry, PolicyId, RouteAction, SliceId, SliceRouteEntry, SliceSet,
};
use selvedge_slices::{Endpoint, ObjectName, Side};
use selvedge_topology::NodeName;

use super::Scope;
use super::fabric::put;
use super::meters;
use super::ways::{Way, Ways};
use crate::attach::{Located, prefixes};
use crate::derived::{Derived, HookWanted};
use crate::intent::{Intent, N3Way};
use crate::network::Network;
use crate::numbers::{DEFAULT_SLICE, Numbers};
use crate::refusal::Refusal;
use crate::table::Table;

/// An endpoint that packets can be delivered to, and what it is in.
pub(super) struct Member<'a> {
    pub(super) host: &'a NodeName,
    pub(super) located: &'a Located,
    prefixes: Vec<IpNet>,
    /// `None`: no slice names it.
    pub(super) side: Option<Side>,
    /// Best first: by priority, then name. Empty for the default slice.
    pub(super) slices: Vec<&'a ObjectName>,
    set: SliceSet,
    /// What it has for rates of its own, by slice; mostly nothing.
    pub(super) own: BTreeMap<&'a ObjectName, &'a Endpoint>,
    /// Its number, if it has any.
    pub(super) endpoint: EndpointId,
}

impl Member<'_> {
    /// Whose rates hold for what goes in a direction to or from it, in one of these slices.
    fn rated<'s>(
        &self,
        direction: selvedge_slices::Direction,
        slices: impl IntoIterator<Item = &'s ObjectName>,
    ) -> EndpointId {
        let has = |slice: &ObjectName| {
            self.own.get(slice).is_some_and(|own| own.rates(direction).is_some())
        };
        if slices.into_iter().any(has) { self.endpoint } else { EndpointId::NONE }
    }

    pub(super) fn direction(&self) -> Direction {
        match self.side {
            Some(Side::Dn) => Direction::Downlink,
            Some(Side::Ue) | None => Direction::Uplink,
        }
    }
}

/// Adds endpoints, routes, policies, deliveries, meters and the functions of hooks: those of the
/// slices asked for. Answers their hooks.
pub(crate) fn slices(
    network: &Network,
    derived: &Derived,
    scope: &Scope,
    numbers: &mut Numbers,
    tables: &mut BTreeMap<NodeName, Table>,
) -> Result<BTreeMap<(NodeName, HookId), HookWanted>, Refusal> {
    let hosts = hosts_of(derived, scope, &scope.slices);
    if hosts.is_empty() && scope.slices.is_empty() {
        return Ok(BTreeMap::new());
    }
    // Whoever is in one of them may send in its other slices too.
    let mut met = scope.slices.clone();
    for host in &hosts {
        met.extend(derived.named.get(*host).into_iter().flat_map(|n| n.slices.iter().cloned()));
    }
    let own = own_rates(&derived.of.intent, &met);
    let members = members(network, derived, &hosts_of(derived, scope, &met), &own, numbers)?;
    let ways = Ways::new(derived, &met, numbers)?;
    let mut at: BTreeMap<&NodeName, Vec<&Member<'_>>> = BTreeMap::new();
    for member in members.iter().filter(|member| hosts.contains(member.host)) {
        at.entry(&member.located.switch).or_default().push(member);
    }
    // Whom it can concern, by slice; `None`: the default one.
    let mut of: BTreeMap<Option<&ObjectName>, Vec<&Member<'_>>> = BTreeMap::new();
    for member in &members {
        for slice in &member.slices {
            of.entry(Some(slice)).or_default().push(member);
        }
        if member.slices.is_empty() {
            of.entry(None).or_default().push(member);
        }
    }
    for (switch, here) in at {
        let table = tables.entry(switch.clone()).or_default();
        let mut sets: BTreeMap<SliceSet, Vec<&Member<'_>>> = BTreeMap::new();
        for member in here {
            bind(member, numbers, table)?;
            sets.entry(member.set).or_default().push(member);
        }
        let mut policies: BTreeMap<PolicyId, Vec<u16>> = BTreeMap::new();
        for (set, sources) in sets {
            let slices: Vec<Option<&ObjectName>> = match sources[0].slices.as_slice() {
                [] => vec![None],
                slices => slices.iter().map(|slice| Some(*slice)).collect(),
            };
            let met = slices.iter().filter_map(|slice| of.get(slice)).flatten();
            let mut tos: BTreeMap<&NodeName, &Member<'_>> = BTreeMap::new();
            tos.extend(met.map(|to| (to.host, *to)));
            for to in tos.into_values() {
                // Nobody needs a way to itself.
                let Some(from) = sources.iter().find(|from| from.host != to.host) else { continue };
                let Some(slice) = shared(&derived.of.intent, from, to) else { continue };
                let way = ways.way(slice, from.direction(), switch, &to.located.switch);
                let action = match way {
                    None => continue,
                    Some(Way::Local) => RouteAction::Local,
                    Some(Way::Policy { policy, sids }) => {
                        policies.entry(policy).or_insert(sids);
                        RouteAction::Policy(policy)
                    }
                };
                let endpoint = to.rated(selvedge_slices::Direction::Downlink, slice);
                let slice = numbers.slice(slice.map_or(DEFAULT_SLICE, ObjectName::as_str))?;
                for prefix in to.prefixes.iter().copied() {
                    let route = SliceRouteEntry { slice_set: set, prefix, slice, action, endpoint };
                    put(table, Entry::SliceRoute(route));
                }
            }
        }
        for (policy, sids) in policies {
            put(table, Entry::Policy(PolicyEntry::one(policy, sids)));
        }
    }
    ways.functions(scope, tables);
    meters::meters(derived, scope, &members, &ways, numbers, tables)?;
    let mut hooks = ways.into_hooks();
    hooks.retain(|_, wanted| scope.slices.contains(&wanted.slice));
    Ok(hooks)
}

/// Binds an endpoint to its port and delivers to it, in each of its slices.
fn bind(member: &Member<'_>, numbers: &mut Numbers, table: &mut Table) -> Result<(), Refusal> {
    let Located { port, mac, n3, .. } = *member.located;
    let tunnel = n3.map(|way| way.tunnel);
    let mut slices: Vec<SliceId> = Vec::new();
    for slice in &member.slices {
        slices.push(numbers.slice(slice.as_str())?);
    }
    if slices.is_empty() {
        slices.push(SliceId::DEFAULT);
    }
    let (slice_set, direction) = (member.set, member.direction());
    let endpoint = member.rated(selvedge_slices::Direction::Uplink, member.slices.iter().copied());
    if let Some(N3Way { tunnel, uplink_teid, qfis }) = n3 {
        put(
            table,
            Entry::GtpSession(Box::new(GtpSessionEntry {
                teid: uplink_teid,
                port,
                gnb: tunnel.gnb,
                ue_ipv4: member.prefixes.iter().find_map(|net| match net {
                    IpNet::V4(net) => Some(net.addr()),
                    IpNet::V6(_) => None,
                }),
                ue_ipv6: member.prefixes.iter().find_map(|net| match net {
                    IpNet::V6(net) => Some(*net),
                    IpNet::V4(_) => None,
                }),
                slice_set,
                direction,
                qfis,
                endpoint,
                tag: EndpointTag::NONE,
            })),
        );
    }
    for prefix in member.prefixes.iter().copied() {
        if n3.is_none() {
            let entry = EndpointEntry {
                port,
                prefix,
                slice_set,
                direction,
                endpoint,
                tag: EndpointTag::NONE,
            };
            put(table, Entry::Endpoint(entry));
        }
        for slice in slices.iter().copied() {
            let tunnel = tunnel.map(Box::new);
            put(table, Entry::Delivery(DeliveryEntry { slice, prefix, port, mac, tunnel }));
        }
    }
    Ok(())
}

/// Hosts of some slices that packets can be delivered to, and of the default one if asked for.
fn hosts_of<'a>(
    derived: &'a Derived,
    scope: &Scope,
    slices: &BTreeSet<ObjectName>,
) -> BTreeSet<&'a NodeName> {
    let objects = slices.iter().filter_map(|name| derived.of.intent.active_slice(name));
    let named = objects.flat_map(|stored| &stored.object.endpoints).map(|endpoint| &endpoint.name);
    let mut hosts: BTreeSet<&NodeName> =
        named.filter(|host| derived.located.contains_key(*host)).collect();
    if scope.default {
        hosts.extend(derived.in_default.keys());
    }
    hosts
}

/// Endpoints of these slices that have rates of their own, by host and slice.
fn own_rates<'a>(
    intent: &'a Intent,
    slices: &BTreeSet<ObjectName>,
) -> BTreeMap<&'a NodeName, BTreeMap<&'a ObjectName, &'a Endpoint>> {
    let mut own: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for stored in slices.iter().filter_map(|name| intent.active_slice(name)) {
        for endpoint in stored.object.rated() {
            own.entry(&endpoint.name).or_default().insert(&stored.object.name, endpoint);
        }
    }
    own
}

fn members<'a>(
    network: &'a Network,
    derived: &'a Derived,
    hosts: &BTreeSet<&'a NodeName>,
    own: &BTreeMap<&'a NodeName, BTreeMap<&'a ObjectName, &'a Endpoint>>,
    numbers: &mut Numbers,
) -> Result<Vec<Member<'a>>, Refusal> {
    let intent = &derived.of.intent;
    let mut members = Vec::with_capacity(hosts.len());
    for host in hosts {
        let declared = network.topology.nodes.get(*host).and_then(|node| node.as_host());
        let located = derived.located.get(*host);
        let Some((declared, located)) = declared.zip(located) else { continue };
        let named = derived.named.get(*host);
        let mut slices: Vec<&ObjectName> = named.iter().flat_map(|n| &n.slices).collect();
        slices.sort_by_key(|name| {
            let priority = intent.slices.get(*name).map(|stored| stored.object.priority);
            (std::cmp::Reverse(priority), *name)
        });
        let side = named.map(|named| named.side);
        slices.retain(|slice| !derived.seats.waits(slice, host));
        // A slice that is full does not make its endpoint everybody's.
        if side.is_some() && slices.is_empty() {
            continue;
        }
        let set = set(intent, side, &slices, numbers)?;
        let mut own = own.get(host).cloned().unwrap_or_default();
        own.retain(|slice, _| slices.contains(slice));
        let endpoint = match own.is_empty() {
            true => EndpointId::NONE,
            false => numbers.endpoint(host)?,
        };
        let prefixes = prefixes(declared);
        members.push(Member { host, located, prefixes, side, slices, set, own, endpoint });
    }
    Ok(members)
}

/// The number of an endpoint's slices and side.
fn set(
    intent: &Intent,
    side: Option<Side>,
    slices: &[&ObjectName],
    numbers: &mut Numbers,
) -> Result<SliceSet, Refusal> {
    let mut ids = BTreeSet::new();
    for slice in slices {
        ids.insert(numbers.slice(slice.as_str())?);
    }
    if ids.is_empty() {
        ids.insert(SliceId::DEFAULT);
    }
    let apart = side == Some(Side::Dn)
        && slices.iter().any(|slice| {
            let stored = intent.slices.get(*slice);
            stored.is_some_and(|stored| stored.object.endpoints_on(Side::Ue).next().is_some())
        });
    numbers.set(&ids.into_iter().collect::<Vec<_>>(), apart)
}

/// The slice that traffic takes: the best that both are in and in which they talk. `Some(None)`
/// is the default slice.
fn shared<'a>(
    intent: &Intent,
    from: &Member<'a>,
    to: &Member<'_>,
) -> Option<Option<&'a ObjectName>> {
    if from.side.is_none() || to.side.is_none() {
        return (from.side.is_none() && to.side.is_none()).then_some(None);
    }
    let talk = |slice: &ObjectName| {
        let Some(stored) = intent.slices.get(slice) else { return false };
        let both = |side| stored.object.endpoints_on(side).next().is_some();
        from.side != to.side || !(both(Side::Ue) && both(Side::Dn))
    };
    let mut common = from.slices.iter().filter(|slice| to.slices.contains(slice));
    common.find(|slice| talk(slice)).map(|slice| Some(*slice))
}
