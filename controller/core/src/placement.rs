//! Where applications run (DESIGN §8): decided together with the slices that lead to them.
//!
//! An application with a `computeDescriptor` is placed on a switch with compute, and its
//! endpoint, a host without a link, counts as attached there. While nothing of it has been seen
//! it may be placed anew, when its switch is gone or no longer does, or when another saves more
//! than moving costs. Once its endpoint was seen on a live port, it is there.
//!
//! Everything is decided anew whenever the state is another, from where applications were last:
//! those that still fit stay, then those in trouble are placed, in the order of their promises.

mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use selvedge_slices::admission::{Attachment, HookMemory, InOrder, Network};
use selvedge_slices::placement::{Demand, Offer, Paths, Placement, Request};
use selvedge_slices::{Application, Ledger, NetworkSlice, ObjectName, Refusal};
use selvedge_topology::{Bytes, LinkIx, NodeIx, NodeName, Snapshot};

use crate::Core;
use crate::attach::attached;
use crate::intent::Stored;
use crate::network::LinkState;

/// What has been decided for an application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its switch; `None`: none takes it.
    pub(crate) node: Option<NodeName>,
    /// It was seen there: it is, whatever would be decided.
    pub(crate) seen: bool,
    /// Why it has no switch, or why that one does not do.
    pub(crate) reason: Option<String>,
    /// Why it is not where it was, when that was just decided.
    pub(crate) moved: Option<String>,
}

/// What a network gives slices and applications.
pub(crate) struct Settled {
    pub(crate) ledger: Ledger,
    /// Slices that have no place at all.
    pub(crate) unplaced: BTreeMap<ObjectName, Refusal>,
    /// Endpoints with those of placed applications, and the memory of nodes less what
    /// applications take; `None`: as they were given.
    pub(crate) placed: Option<(Arc<BTreeMap<NodeName, Attachment>>, HookMemory)>,
    pub(crate) places: BTreeMap<ObjectName, Place>,
}

/// An application that is to be placed.
struct Wanted<'a> {
    name: &'a ObjectName,
    endpoint: &'a NodeName,
    demand: &'a Demand,
    /// Where it was seen.
    seen: Option<NodeIx>,
    /// Where it is or was.
    now: Option<NodeIx>,
}

impl Wanted<'_> {
    fn request(&self, slices: Vec<NetworkSlice>) -> Request {
        Request {
            name: self.name.clone(),
            demand: self.demand.clone(),
            endpoint: self.endpoint.clone(),
            slices,
            worth_mw: 0,
            now: self.now,
            fixed: self.seen,
        }
    }
}

/// Slices that hold capacity, with the latency of the applications that they lead to where that
/// is less.
fn in_order(core: &Core) -> InOrder {
    let mut slices = core.intent.slices.holding().clone();
    for stored in core.intent.applications.values() {
        let latency = stored.object.demand.as_ref().and_then(|demand| demand.latency);
        let Some(latency) = latency else { continue };
        for key in leading(core, &stored.object.endpoint) {
            let Some(slice) = slices.get(&key) else { continue };
            if slice.latency.is_none_or(|stated| latency < stated) {
                let slice = NetworkSlice { latency: Some(latency), ..NetworkSlice::clone(slice) };
                slices.insert(key, Arc::new(slice));
            }
        }
    }
    slices
}

/// Where in this order those are that lead to an endpoint.
fn leading(core: &Core, endpoint: &NodeName) -> BTreeSet<(u64, ObjectName)> {
    let slices = &core.intent.slices;
    let key = |name: &ObjectName| Some((slices.get(name)?.meta.revision, name.clone()));
    slices.naming(endpoint).filter_map(key).collect()
}

/// Those that lead to an endpoint.
fn those_leading<'s>(
    core: &Core,
    slices: &'s InOrder,
    endpoint: &NodeName,
) -> impl Iterator<Item = &'s NetworkSlice> {
    leading(core, endpoint).into_iter().filter_map(|key| slices.get(&key)).map(Arc::as_ref)
}

/// Applications that are to be placed, in the order in which they were taken.
fn wanted<'a>(
    core: &'a Core,
    snapshot: &Snapshot,
    links: &BTreeMap<LinkIx, LinkState>,
) -> Vec<Wanted<'a>> {
    let mut stored: Vec<&Arc<Stored<Application>>> = core.intent.applications.values().collect();
    stored.sort_by_key(|stored| (stored.meta.revision, &stored.object.name));
    let node = |name: &NodeName| snapshot.node(name.as_str());
    let each = stored.into_iter().filter_map(|stored| {
        let Application { name, endpoint, demand, .. } = &stored.object;
        let place = core.endpoints.place(&core.network, endpoint);
        let place = place.filter(|place| attached(&core.network, links, place));
        let seen = place.and_then(|(switch, _)| node(&switch));
        let now = seen.or_else(|| node(core.places.get(name)?));
        Some(Wanted { name, endpoint, demand: demand.as_ref()?, seen, now })
    });
    each.collect()
}

/// What switches have for applications: as they report, beside what the topology states.
/// `declared`: of all switches, as if they had joined; else of those that have or that a link
/// leads to.
fn offers(core: &Core, snapshot: &Snapshot, declared: bool) -> Vec<Offer> {
    let offer = |node: NodeIx| {
        let name = snapshot.name(node);
        let switch = &core.network.switches[name];
        let stated = core.network.topology.nodes.get(name)?.as_switch()?;
        let compute = stated.compute.as_ref();
        let (cpu, memory) = if switch.known {
            switch.compute.map(|compute| (compute.cpu, compute.memory_bytes))?
        } else {
            compute.filter(|_| declared).map(|compute| (compute.cpu, compute.memory_bytes))?
        };
        if !declared && !switch.joined && snapshot.arcs_from(node).is_empty() {
            return None;
        }
        let accelerators = compute.into_iter().flat_map(|compute| &compute.accelerators);
        Some(Offer {
            node,
            name: name.clone(),
            cpu_milli: u64::from(cpu) * 1_000,
            memory: Bytes(memory),
            accelerators: accelerators.map(|(kind, n)| (kind.clone(), u64::from(*n))).collect(),
            architecture: compute.and_then(|compute| compute.architecture.clone()),
            site: stated.site.clone(),
            position: stated.position,
            mw_per_cpu: compute.and_then(|compute| compute.energy).map_or(0, |energy| energy.0),
        })
    };
    snapshot.nodes().filter_map(offer).collect()
}

fn here(switch: NodeIx) -> Attachment {
    Attachment { switch, link: None }
}

fn name_of(snapshot: &Snapshot, node: NodeIx) -> NodeName {
    snapshot.name(node).clone()
}

/// Decides everything: first slices and applications where they are, then what is in trouble,
/// then what would be better elsewhere. `network`: without applications.
pub(crate) fn settle(
    core: &Core,
    network: Network<'_>,
    links: &BTreeMap<LinkIx, LinkState>,
    declared: bool,
) -> Settled {
    let snapshot = network.snapshot;
    let slices = in_order(core);
    let applications = wanted(core, snapshot, links);
    if applications.is_empty() {
        let known = &core.derived.ledger;
        let (ledger, unplaced) = known.updated(&network, &slices);
        return Settled { ledger, unplaced, placed: None, places: BTreeMap::new() };
    }
    let mut placement = Placement::new(offers(core, snapshot, declared));
    let mut places: BTreeMap<ObjectName, Place> = BTreeMap::new();
    let (mut endpoints, mut memory) = (network.endpoints.clone(), network.memory.clone());
    for application in &applications {
        let place = stay(application, snapshot, &mut placement, &mut endpoints, &mut memory);
        places.insert(application.name.clone(), place);
    }
    let placed = Network { endpoints: &endpoints, memory: &memory, ..network };
    let known = &core.derived.ledger;
    let (mut ledger, mut unplaced) = known.updated(&placed, &slices);
    let mut paths = Paths::new(&mut ledger, placed);
    take_stock(core, &applications, &slices, &mut placement, &paths);
    for application in applications.iter().filter(|application| application.seen.is_none()) {
        let place = places.get_mut(application.name).expect("each has been looked at");
        rescue(core, application, &slices, &unplaced, &mut placement, &mut paths, place);
    }
    take_stock(core, &applications, &slices, &mut placement, &paths);
    for application in applications.iter().filter(|application| application.seen.is_none()) {
        let place = places.get_mut(application.name).expect("each has been looked at");
        if place.reason.is_some() || place.moved.is_some() {
            continue;
        }
        if let Some(saved_mw) = placement.better(&mut paths, application.name) {
            let at = placement.get(application.name.as_str()).map(|put| put.at);
            place.node = at.map(|at| placement.offers()[at].name.clone());
            let saved = selvedge_topology::Power(saved_mw);
            place.moved = Some(format!("it saves {saved} there, more than moving costs"));
        }
    }
    let placed = Some(paths.into_parts());
    unplaced.retain(|name, _| ledger.get(name.as_str()).is_none());
    Settled { ledger, unplaced, placed, places }
}

/// Leaves an application where it is or was, if it can stay there apart from its slices.
fn stay(
    application: &Wanted<'_>,
    snapshot: &Snapshot,
    placement: &mut Placement,
    endpoints: &mut Arc<BTreeMap<NodeName, Attachment>>,
    memory: &mut HookMemory,
) -> Place {
    if application.seen.is_none() {
        Arc::make_mut(endpoints).remove(application.endpoint);
    }
    let Some(now) = application.now else { return Place::default() };
    let node = name_of(snapshot, now);
    let at = placement.offers().iter().position(|offer| offer.node == now);
    let lacks = match at.map(|at| placement.adopt(application.request(Vec::new()), at)) {
        None if application.seen.is_some() => Some(format!("{node} has no compute to offer")),
        None => Some(format!("{node} is gone")),
        Some(Ok(())) => None,
        Some(Err(lacks)) => {
            let each: Vec<String> = lacks.iter().map(ToString::to_string).collect();
            Some(format!("{node}: {}", each.join(", ")))
        }
    };
    let seen = application.seen.is_some();
    if lacks.is_some() {
        return Place { node: seen.then_some(node), seen, reason: lacks, moved: None };
    }
    if !seen {
        Arc::make_mut(endpoints).insert(application.endpoint.clone(), here(now));
    }
    if let Some(left) = memory.nodes.get_mut(&now) {
        left.0 = left.0.saturating_sub(application.demand.memory.0);
    }
    Place { node: Some(node), seen, reason: None, moved: None }
}

/// Says which of the reserved slices lead to which application.
fn take_stock(
    core: &Core,
    applications: &[Wanted<'_>],
    slices: &InOrder,
    placement: &mut Placement,
    paths: &Paths<'_>,
) {
    for application in applications {
        let leading = those_leading(core, slices, application.endpoint);
        let reserved = leading.filter(|slice| paths.ledger.get(slice.name.as_str()).is_some());
        placement.reserved(paths, application.name, reserved.cloned().collect());
    }
}

/// Finds a place for an application that has none, or where a slice that leads to it is not
/// kept.
fn rescue(
    core: &Core,
    application: &Wanted<'_>,
    slices: &InOrder,
    unplaced: &BTreeMap<ObjectName, Refusal>,
    placement: &mut Placement,
    paths: &mut Paths<'_>,
    place: &mut Place,
) {
    // Slices whose other ends are nowhere are not this application's trouble.
    let known = |slice: &&NetworkSlice| {
        let mut others = slice.endpoints.iter().filter(|e| e.name != *application.endpoint);
        others.all(|endpoint| paths.endpoints().contains_key(&endpoint.name))
    };
    let leading: Vec<NetworkSlice> =
        those_leading(core, slices, application.endpoint).filter(known).cloned().collect();
    let broken = leading.iter().find_map(|slice| {
        let why = match paths.ledger.get(slice.name.as_str()) {
            Some(admitted) => admitted.waived.as_ref()?.to_string(),
            None => unplaced.get(&slice.name)?.to_string(),
        };
        Some(format!("slice {} is not kept: {why}", slice.name))
    });
    let stays = placement.get(application.name.as_str()).is_some();
    if stays && broken.is_none() {
        return;
    }
    match placement.place(paths, &application.request(leading)) {
        Ok(put) => {
            let at = put.at;
            let node = Some(placement.offers()[at].name.clone());
            let why = place.reason.take().or(broken).filter(|_| application.now.is_some());
            let moved = why.filter(|_| place.node != node);
            *place = Place { node, seen: false, reason: None, moved };
        }
        Err(refusal) => {
            place.reason = Some(match broken {
                Some(broken) => format!("{broken}; {refusal}"),
                None => refusal.to_string(),
            });
        }
    }
}

impl Core {
    /// The decisions of [`settle`] as a placement on copies, to try things with.
    pub(crate) fn with_placement<T>(
        &self,
        act: impl FnOnce(&mut Placement, &mut Paths<'_>) -> T,
    ) -> T {
        let derived = &self.derived;
        let snapshot = &*derived.snapshot;
        let slices = in_order(self);
        let applications = wanted(self, snapshot, &derived.links);
        let mut placement = Placement::new(offers(self, snapshot, false));
        for application in &applications {
            let node = derived.places.get(application.name).and_then(|place| place.node.clone());
            let node = node.and_then(|node| snapshot.node(node.as_str()));
            let at = placement.offers().iter().position(|offer| Some(offer.node) == node);
            if let Some(at) = at {
                // One that was seen where it does not fit takes nothing, as in `stay`.
                drop(placement.adopt(application.request(Vec::new()), at));
            }
        }
        let mut ledger = Ledger::clone(&derived.ledger);
        let mut paths = Paths::new(&mut ledger, derived.placement());
        take_stock(self, &applications, &slices, &mut placement, &paths);
        act(&mut placement, &mut paths)
    }

    /// What is asked for by an application that is to be placed, as things are.
    pub(crate) fn request_of(&self, name: &str) -> Option<Request> {
        let derived = &self.derived;
        let slices = in_order(self);
        let applications = wanted(self, &derived.snapshot, &derived.links);
        let application = applications.iter().find(|one| one.name.as_str() == name)?;
        let known = |slice: &&NetworkSlice| {
            let mut others = slice.endpoints.iter().filter(|e| e.name != *application.endpoint);
            others.all(|endpoint| derived.attachments.contains_key(&endpoint.name))
        };
        let leading = those_leading(self, &slices, application.endpoint).filter(known).cloned();
        Some(application.request(leading.collect()))
    }
}

/// Endpoints that were seen where their application no longer is: nowhere until they are seen
/// again, since an instance elsewhere is another one.
pub(crate) fn misplaced<'a>(
    core: &'a Core,
    places: &'a BTreeMap<ObjectName, Place>,
) -> impl Iterator<Item = &'a NodeName> {
    places.iter().filter_map(|(name, place)| {
        let endpoint = &core.intent.applications.get(name)?.object.endpoint;
        let (at, _) = core.endpoints.place(&core.network, endpoint)?;
        (Some(&at) != place.node.as_ref()).then_some(endpoint)
    })
}
