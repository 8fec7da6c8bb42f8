//! Everything that must hold of one state of the network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use selvedge_pipeline::{
    ClassifierEntry, Direction, Entry, HookId, Key, PolicyId, PortId, SliceId, SliceMeterEntry,
};
use selvedge_topology::NodeName;

use super::walk::{Fate, State, Walk};
use super::world::{Endpoint, Rule, Slice, World};
use super::{CounterExample, Defect};
use crate::plan::Table;

/// Sources that are in profile up to their meter: slice, direction and ingress.
type Source = (SliceId, usize, usize);

/// What is wrong with `tables`, in a fixed order. Defects at switches that cannot be written
/// are left out.
pub(crate) fn check(world: &World, tables: &BTreeMap<NodeName, Arc<Table>>) -> Vec<CounterExample> {
    let mut checker = Checker {
        world,
        state: State::new(world, tables),
        used: BTreeMap::new(),
        defects: Vec::new(),
    };
    checker.bindings();
    checker.deliveries();
    checker.pairs();
    checker.meters();
    checker.loads();
    checker.rules();
    checker.defects
}

struct Checker<'a> {
    world: &'a World,
    state: State<'a>,
    /// Policies that traffic was seen to take.
    used: BTreeMap<Source, BTreeSet<PolicyId>>,
    defects: Vec<CounterExample>,
}

impl Checker<'_> {
    fn defect(&mut self, defect: Defect, subject: String, nodes: &[usize], detail: String) {
        if nodes.iter().any(|node| self.world.stuck.contains(node)) {
            return;
        }
        let nodes = nodes.iter().map(|node| self.world.name(*node).clone()).collect();
        self.defects.push(CounterExample { defect, step: 0, subject, nodes, detail });
    }

    /// Entries of a kind, with their nodes.
    fn entries<T>(&self, pick: impl Fn(&Entry) -> Option<T>) -> Vec<(usize, T)> {
        let known =
            self.state.tables.iter().enumerate().filter_map(|(n, t)| Some((n, t.as_ref()?)));
        known
            .flat_map(|(node, indexed)| indexed.table.values().map(move |entry| (node, entry)))
            .filter_map(|(node, entry)| Some((node, pick(entry)?)))
            .collect()
    }

    /// Every source is bound where it is attached and nowhere else.
    fn bindings(&mut self) {
        let bound = self.entries(|entry| match entry {
            Entry::Endpoint(entry) => Some(*entry),
            _ => None,
        });
        for (node, entry) in bound {
            let subject =
                format!("{} at port {} of {}", entry.prefix, entry.port.0, self.world.name(node));
            let there = |e: &&Endpoint| e.node == node && e.port == entry.port;
            let owner = self.world.endpoints.iter().filter(there).find(|endpoint| {
                endpoint.prefixes.iter().any(|prefix| prefix.contains(&entry.prefix))
            });
            match owner {
                None => {
                    let detail = String::from("no endpoint of that address is attached there");
                    self.defect(Defect::Spoof, subject, &[node], detail);
                }
                Some(owner) if owner.direction != entry.direction => {
                    let detail = format!("its packets count as {:?}", entry.direction);
                    self.defect(Defect::Promise, subject, &[node], detail);
                }
                Some(_) => {}
            }
        }
    }

    /// Every delivery is of an endpoint in that slice, to where it is.
    fn deliveries(&mut self) {
        let deliveries = self.entries(|entry| match entry {
            Entry::Delivery(entry) => Some(*entry),
            _ => None,
        });
        for (node, entry) in deliveries {
            let name = self.world.name(node);
            let subject =
                format!("delivery of {} in slice {} at {name}", entry.prefix, entry.slice.0);
            let right = self.world.endpoints.iter().any(|endpoint| {
                (endpoint.node, endpoint.port, endpoint.mac) == (node, entry.port, entry.mac)
                    && endpoint.slices.contains(&entry.slice)
                    && endpoint.prefixes.iter().any(|prefix| prefix.contains(&entry.prefix))
            });
            if !right {
                let detail = format!(
                    "no endpoint of that slice and address is at port {} with that MAC address",
                    entry.port.0
                );
                self.defect(Defect::Leak, subject, &[node], detail);
            }
        }
    }

    /// Every two endpoints, both ways and in each family that both have.
    fn pairs(&mut self) {
        let world = self.world;
        let parts = world.parts();
        for from in &world.endpoints {
            for to in world.endpoints.iter().filter(|to| to.name != from.name) {
                for ipv6 in [false, true] {
                    let address = |endpoint: &Endpoint| -> Option<IpAddr> {
                        let mut addresses = endpoint.prefixes.iter().map(|prefix| prefix.addr());
                        addresses.find(|address| address.is_ipv6() == ipv6)
                    };
                    let (Some(source), Some(destination)) = (address(from), address(to)) else {
                        continue;
                    };
                    let walk = self.state.walk(from, source, destination);
                    let connected = parts[from.node] == parts[to.node];
                    self.pair(from, to, &walk, connected, (source, destination));
                }
            }
        }
    }

    fn pair(
        &mut self,
        from: &Endpoint,
        to: &Endpoint,
        walk: &Walk,
        connected: bool,
        (source, destination): (IpAddr, IpAddr),
    ) {
        let world = self.world;
        let shared = world.shared(from, to).and_then(|id| Some((id, world.slices.get(&id)?)));
        let egress = *walk.nodes.last().expect("a walk has an ingress");
        let named = |slice: &str| {
            let (from, to) = (&from.name, &to.name);
            format!("{source} -> {destination} ({from} -> {to}) in {slice}")
        };
        let Some((id, slice)) = shared else {
            // A route of its own is a leak even where nothing arrives at present.
            let own =
                walk.route.is_some_and(|route| to.prefixes.iter().any(|p| p.contains(&route)));
            let there = match walk.fate {
                Fate::Delivered { port, .. } => (egress, port) == (to.node, to.port),
                Fate::Unknown | Fate::Loop | Fate::Lost(_) => false,
            };
            if own || there {
                let detail = String::from("they share no slice, yet there is a way");
                // Its ingress is where that can be helped.
                self.defect(Defect::Leak, named("no slice"), &walk.nodes[..1], detail);
            }
            return;
        };
        let subject = named(&slice.name);
        if let Some(taken) = walk.slice.filter(|taken| *taken != id) {
            let detail = format!("it travels in {}", self.slice_name(taken));
            self.defect(Defect::Leak, subject, &walk.nodes, detail);
            return;
        }
        match &walk.fate {
            Fate::Unknown => return,
            Fate::Loop => {
                let detail = String::from("it comes back to where it was, with the same ids left");
                self.defect(Defect::Loop, subject, &walk.nodes, detail);
                return;
            }
            Fate::Lost(why) => {
                if connected && (slice.placed || slice.hooks.is_empty()) {
                    self.defect(Defect::BlackHole, subject, &walk.nodes, why.clone());
                }
                return;
            }
            Fate::Delivered { port, mac } => {
                if (egress, *port, *mac) != (to.node, to.port, to.mac) {
                    let detail = format!("it leaves by port {}, where {} is not", port.0, to.name);
                    self.defect(Defect::Leak, subject, &walk.nodes, detail);
                    return;
                }
            }
        }
        self.hooks((id, slice), walk, subject);
        if let Some(policy) = walk.policy {
            let source = (id, index(from.direction), from.node);
            self.used.entry(source).or_default().insert(policy);
        }
    }

    fn hooks(&mut self, (id, slice): (SliceId, &Slice), walk: &Walk, subject: String) {
        let seen: Vec<String> = walk.hooks.iter().map(|at| self.hook_name(id, *at)).collect();
        let mut rest = seen.as_slice();
        let met = slice.hooks.iter().all(|(wanted, may_be_missed)| match rest {
            [next, after @ ..] if next == wanted => {
                rest = after;
                true
            }
            _ => *may_be_missed,
        });
        if !met || !rest.is_empty() {
            let list = |names: &[&str]| match names {
                [] => String::from("no hook"),
                names => names.join(", "),
            };
            let seen: Vec<&str> = seen.iter().map(String::as_str).collect();
            let wanted: Vec<&str> = slice.hooks.iter().map(|(name, _)| name.as_str()).collect();
            let detail = format!("it goes through {}, not {}", list(&seen), list(&wanted));
            self.defect(Defect::HookMissed, subject, &walk.nodes, detail);
        }
    }

    fn hook_name(&self, slice: SliceId, at: (usize, HookId)) -> String {
        match self.world.hooks.get(&at) {
            Some(hook) if hook.slice == slice => hook.name.clone(),
            Some(hook) => format!("{} of {}", hook.name, self.slice_name(hook.slice)),
            None => format!("unknown function {}", at.1.0),
        }
    }

    fn slice_name(&self, id: SliceId) -> String {
        match self.world.slices.get(&id) {
            Some(slice) => format!("slice {}", slice.name),
            None => format!("slice number {}, which nobody has", id.0),
        }
    }

    fn meter(&self, node: usize, slice: SliceId, direction: Direction) -> Option<SliceMeterEntry> {
        match self.state.tables[node].as_ref()?.table.get(&Key::SliceMeter(slice, direction))? {
            Entry::SliceMeter(entry) => Some(*entry),
            _ => None,
        }
    }

    /// What of a meter's guarantee is for traffic that enters there: at a switch that runs one
    /// of the slice's hooks the meter also counts what comes back from it, up to the total.
    fn entering_bps(&self, node: usize, slice: SliceId, meter: &SliceMeterEntry) -> u64 {
        let total =
            self.world.slices.get(&slice).map_or(0, |s| s.guaranteed_bps[index(meter.direction)]);
        let hooks = self.world.hooks.range((node, HookId(0))..=(node, HookId(u16::MAX)));
        let counts = |hook: &super::HookAt| {
            hook.slice == slice && hook.running && hook.directions[index(meter.direction)]
        };
        let runs = hooks.filter(|(_, hook)| counts(hook)).count();
        let returning = total.saturating_mul(u64::try_from(runs).expect("few hooks"));
        meter.guaranteed_bps.saturating_sub(returning)
    }

    /// Shares of a total add up to it at most; where a kept slice's traffic enters there is one.
    fn meters(&mut self) {
        let world = self.world;
        for (&id, slice) in &world.slices {
            for direction in DIRECTIONS {
                let total = slice.guaranteed_bps[index(direction)];
                let sends = |e: &&Endpoint| e.direction == direction && e.slices.contains(&id);
                let ingresses: BTreeSet<usize> =
                    world.endpoints.iter().filter(sends).map(|e| e.node).collect();
                let subject = format!("{direction:?} of slice {}", slice.name);
                let mut sum: u64 = 0;
                for &node in &ingresses {
                    if self.state.tables[node].is_none() {
                        continue;
                    }
                    let meter = self.meter(node, id, direction);
                    let share = meter.as_ref().map_or(0, |m| self.entering_bps(node, id, m));
                    sum = sum.saturating_add(share);
                    let right = meter.is_some_and(|meter| meter.class == slice.class && share > 0);
                    if slice.kept && total > 0 && !right {
                        let detail = String::from("the meter where it enters has no share of it");
                        self.defect(Defect::Promise, subject.clone(), &[node], detail);
                    }
                }
                if sum > total {
                    let nodes: Vec<usize> = ingresses.into_iter().collect();
                    let detail = format!("shares add up to {sum} bit/s of {total}");
                    self.defect(Defect::Promise, subject, &nodes, detail);
                }
            }
        }
    }

    /// No link's guarantees are over what it may carry, counted in frames of full packets.
    fn loads(&mut self) {
        /// Bytes of a full packet, and of its frame on a fabric link: 40 + 14 more.
        const PACKET_AND_FRAME: (u128, u128) = (1_500, 1_554);
        let used = std::mem::take(&mut self.used);
        // By arc, then by slice and direction: rounding is up, once for each.
        let mut load: BTreeMap<(usize, PortId), BTreeMap<(SliceId, usize), u64>> = BTreeMap::new();
        for (&(slice, direction, ingress), policies) in &used {
            let direction = DIRECTIONS[direction];
            let Some(meter) = self.meter(ingress, slice, direction) else { continue };
            let share = self.entering_bps(ingress, slice, &meter);
            // A path that crosses an arc twice, to a hook and back, counts twice.
            let mut most: BTreeMap<(usize, PortId), u64> = BTreeMap::new();
            for policy in policies {
                let mut times: BTreeMap<(usize, PortId), u64> = BTreeMap::new();
                for arc in &self.state.carried(ingress, *policy).arcs {
                    *times.entry(*arc).or_default() += 1;
                }
                for (arc, times) in times {
                    let most = most.entry(arc).or_default();
                    *most = times.max(*most);
                }
            }
            for (arc, times) in most {
                let sum =
                    load.entry(arc).or_default().entry((slice, index(direction))).or_default();
                *sum = sum.saturating_add(share.saturating_mul(times));
            }
        }
        for ((node, port), slices) in load {
            let Some(wire) = self.world.wires.get(&(node, port)) else { continue };
            let (packet, frame) = PACKET_AND_FRAME;
            let framed = slices.values().map(|bps| (u128::from(*bps) * frame).div_ceil(packet));
            let sum: u128 = framed.sum();
            let fits = |reservable: u64| sum <= u128::from(reservable);
            let Some(reservable) = wire.reservable_bps.filter(|most| !fits(*most)) else {
                continue;
            };
            let subject = format!("{} port {}", self.world.name(node), port.0);
            let detail =
                format!("guarantees of {sum} bit/s of frames, at most {reservable} may be");
            self.defect(Defect::Overload, subject, &[node, wire.node], detail);
        }
    }

    /// Classifier entries are those of active rules, and each active rule is where the traffic
    /// that it concerns enters.
    fn rules(&mut self) {
        let world = self.world;
        let entries = self.entries(|entry| match entry {
            Entry::Classifier(entry) => Some(*entry),
            _ => None,
        });
        for (node, entry) in &entries {
            if !world.rules.iter().any(|rule| asks_for(rule, entry)) {
                let subject =
                    format!("classifier entry {} of {}", entry.priority, world.name(*node));
                let detail = String::from("no active traffic rule asks for it");
                self.defect(Defect::Rule, subject, &[*node], detail);
            }
        }
        for rule in &world.rules {
            for endpoint in world.endpoints.iter().filter(|e| concerns(rule, e)) {
                let there = |(node, entry): &(usize, ClassifierEntry)| {
                    *node == endpoint.node && asks_for(rule, entry)
                };
                let known = self.state.tables[endpoint.node].is_some();
                if known && !entries.iter().any(there) {
                    let subject = format!("rule {} for packets of {}", rule.name, endpoint.name);
                    let detail = String::from("no classifier entry carries it out");
                    self.defect(Defect::Rule, subject, &[endpoint.node], detail);
                }
            }
        }
    }
}

const DIRECTIONS: [Direction; 2] = [Direction::Downlink, Direction::Uplink];

fn index(direction: Direction) -> usize {
    match direction {
        Direction::Downlink => 0,
        Direction::Uplink => 1,
    }
}

/// Whether the entry is one of the combinations of the rule's fields.
fn asks_for(rule: &Rule, entry: &ClassifierEntry) -> bool {
    fn one<T: PartialEq>(of: &[T], field: Option<T>) -> bool {
        field.map_or(of.is_empty(), |field| of.contains(&field))
    }
    one(&rule.sources, entry.source)
        && one(&rule.destinations, entry.destination)
        && one(&rule.protocols, entry.protocol)
        && one(&rule.source_ports, entry.source_port)
        && one(&rule.destination_ports, entry.destination_port)
        && one(&rule.dscps, entry.dscp)
        && rule.action == Some(entry.action)
}

/// Whether packets that the endpoint sends can match the rule.
fn concerns(rule: &Rule, endpoint: &Endpoint) -> bool {
    let overlap = |a: &ipnet::IpNet, b: &ipnet::IpNet| a.contains(b) || b.contains(a);
    let answers = |prefix: &ipnet::IpNet| {
        let family = |d: &ipnet::IpNet| d.addr().is_ipv4() == prefix.addr().is_ipv4();
        rule.destinations.is_empty() || rule.destinations.iter().any(family)
    };
    let sends = |prefix: &ipnet::IpNet| {
        rule.sources.is_empty() || rule.sources.iter().any(|source| overlap(source, prefix))
    };
    endpoint.prefixes.iter().any(|prefix| answers(prefix) && sends(prefix))
}
