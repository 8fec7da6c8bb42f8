//! Endpoints, their slices, and the routes between them.
//!
//! Which slices an endpoint is in, and on which side, is one number (its *slice set*), by which
//! its switch looks up routes. `dn` endpoints of a slice that has `ue` endpoints too have a set
//! of their own, since each side reaches the other one only.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use selvedge_pipeline::{
    DeliveryEntry, Direction, EndpointEntry, Entry, PolicyEntry, PolicyId, RouteAction, SliceId,
    SliceRouteEntry, SliceSet,
};
use selvedge_slices::{ObjectName, Side};
use selvedge_topology::NodeName;

use super::fabric::put;
use super::meters;
use super::ways::{Way, Ways};
use crate::Core;
use crate::attach::{Located, prefixes};
use crate::derived::Derived;
use crate::numbers::{DEFAULT_SLICE, Numbers};
use crate::plan::Table;
use crate::refusal::Refusal;
use crate::seats::Seats;

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
}

impl Member<'_> {
    pub(super) fn direction(&self) -> Direction {
        match self.side {
            Some(Side::Dn) => Direction::Downlink,
            Some(Side::Ue) | None => Direction::Uplink,
        }
    }
}

/// Adds endpoints, routes, policies, deliveries, meters and the functions of hooks.
pub(crate) fn slices(
    core: &Core,
    derived: &mut Derived,
    numbers: &mut Numbers,
    tables: &mut BTreeMap<NodeName, Table>,
) -> Result<(), Refusal> {
    let located = derived.located.clone();
    let members = members(core, &located, &derived.seats, numbers)?;
    let ways = Ways::new(core, derived, numbers)?;
    let mut at: BTreeMap<&NodeName, Vec<&Member<'_>>> = BTreeMap::new();
    for member in &members {
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
                let Some(slice) = shared(core, from, to) else { continue };
                let way = ways.way(slice, from.direction(), switch, &to.located.switch);
                let action = match way {
                    None => continue,
                    Some(Way::Local) => RouteAction::Local,
                    Some(Way::Policy { policy, sids }) => {
                        policies.entry(policy).or_insert(sids);
                        RouteAction::Policy(policy)
                    }
                };
                let slice = numbers.slice(slice.map_or(DEFAULT_SLICE, ObjectName::as_str))?;
                for prefix in to.prefixes.iter().copied() {
                    let route = SliceRouteEntry { slice_set: set, prefix, slice, action };
                    put(table, Entry::SliceRoute(route));
                }
            }
        }
        for (policy, sids) in policies {
            put(table, Entry::Policy(PolicyEntry { policy, sids }));
        }
    }
    ways.functions(tables);
    meters::meters(core, derived, &members, &ways, numbers, tables)?;
    derived.hooks = ways.into_hooks();
    Ok(())
}

/// Binds an endpoint to its port and delivers to it, in each of its slices.
fn bind(member: &Member<'_>, numbers: &mut Numbers, table: &mut Table) -> Result<(), Refusal> {
    let Located { port, mac, .. } = *member.located;
    let mut slices: Vec<SliceId> = Vec::new();
    for slice in &member.slices {
        slices.push(numbers.slice(slice.as_str())?);
    }
    if slices.is_empty() {
        slices.push(SliceId::DEFAULT);
    }
    for prefix in member.prefixes.iter().copied() {
        let direction = member.direction();
        let entry = EndpointEntry { port, prefix, slice_set: member.set, direction };
        put(table, Entry::Endpoint(entry));
        for slice in slices.iter().copied() {
            put(table, Entry::Delivery(DeliveryEntry { slice, prefix, port, mac }));
        }
    }
    Ok(())
}

fn members<'a>(
    core: &'a Core,
    located: &'a BTreeMap<NodeName, Located>,
    seats: &Seats,
    numbers: &mut Numbers,
) -> Result<Vec<Member<'a>>, Refusal> {
    // Best slice first, so that each member's list is in order.
    let mut by_rank: Vec<_> = core.intent.active().collect();
    by_rank.sort_by_key(|(name, stored)| (std::cmp::Reverse(stored.object.priority), *name));
    let mut named: BTreeMap<&NodeName, (Side, Vec<&ObjectName>)> = BTreeMap::new();
    for (name, stored) in &by_rank {
        for endpoint in &stored.object.endpoints {
            let (_, slices) =
                named.entry(&endpoint.name).or_insert_with(|| (endpoint.side, Vec::new()));
            slices.push(name);
        }
    }
    let mut members = Vec::new();
    for (host, located) in located {
        let declared = core.network.topology.nodes.get(host).and_then(|node| node.as_host());
        let Some(declared) = declared else { continue };
        let (side, mut slices) = match named.remove(host) {
            Some((side, slices)) => (Some(side), slices),
            None => (None, Vec::new()),
        };
        slices.retain(|slice| !seats.waits(slice, host));
        // A slice that is full does not make its endpoint everybody's.
        if side.is_some() && slices.is_empty() {
            continue;
        }
        let set = set(core, side, &slices, numbers)?;
        members.push(Member { host, located, prefixes: prefixes(declared), side, slices, set });
    }
    Ok(members)
}

/// The number of an endpoint's slices and side.
fn set(
    core: &Core,
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
            let stored = core.intent.slices.get(*slice);
            stored.is_some_and(|stored| stored.object.endpoints_on(Side::Ue).next().is_some())
        });
    numbers.set(&ids.into_iter().collect::<Vec<_>>(), apart)
}

/// The slice that traffic takes: the best that both are in and in which they talk. `Some(None)`
/// is the default slice.
fn shared<'a>(core: &Core, from: &Member<'a>, to: &Member<'_>) -> Option<Option<&'a ObjectName>> {
    if from.side.is_none() || to.side.is_none() {
        return (from.side.is_none() && to.side.is_none()).then_some(None);
    }
    let talk = |slice: &ObjectName| {
        let Some(stored) = core.intent.slices.get(slice) else { return false };
        let both = |side| stored.object.endpoints_on(side).next().is_some();
        from.side != to.side || !(both(Side::Ue) && both(Side::Dn))
    };
    let mut common = from.slices.iter().filter(|slice| to.slices.contains(slice));
    common.find(|slice| talk(slice)).map(|slice| Some(*slice))
}
