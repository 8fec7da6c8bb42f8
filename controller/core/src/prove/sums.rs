//! What adds up: meters, loads; and traffic rules.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_pipeline::{
    ClassifierEntry, Direction, EndpointId, Entry, HookId, Key, PolicyId, PortId, RouteAction,
    SliceId, SliceMeterEntry,
};

use super::view::{End, Text, Topic, View};
use super::world::{Endpoint, Rule};
use super::{Defect, index};

/// Bytes of a full packet, and of its frame on a fabric link: 40 + 14 more.
const PACKET_AND_FRAME: (u128, u128) = (1_500, 1_554);

impl View {
    fn meter(&self, node: usize, slice: SliceId, direction: Direction) -> Option<&SliceMeterEntry> {
        match self.nodes[node].get(&Key::SliceMeter(slice, direction))? {
            Entry::SliceMeter(entry) => Some(entry),
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

    /// What endpoints are guaranteed of a share where their traffic enters.
    fn own_bps(&self, node: usize, slice: SliceId, direction: Direction) -> u64 {
        let key = |endpoint| Key::EndpointMeter(slice, direction, EndpointId(endpoint));
        let own = self.nodes[node].range(key(0)..=key(u16::MAX)).map(|entry| match entry {
            Entry::EndpointMeter(entry) => entry.guaranteed_bps,
            _ => 0,
        });
        own.fold(0, u64::saturating_add)
    }

    /// Shares of a total add up to it at most; where a kept slice's traffic enters there is one,
    /// unless all of it is endpoints' own elsewhere; and endpoints are guaranteed no more than it.
    pub(super) fn meters(
        &self,
        id: SliceId,
        direction: Direction,
        text: Option<&mut Text>,
    ) -> Option<Defect> {
        let slice = self.world.slices.get(&id)?;
        let total = slice.guaranteed_bps[index(direction)];
        let endpoints = slice.members.iter().filter_map(|host| self.world.endpoint(*host));
        let sends = |e: &&Endpoint| e.member.direction == direction;
        let ingresses: BTreeSet<usize> = endpoints.filter(sends).map(|e| e.node).collect();
        let known = || ingresses.iter().copied().filter(|node| self.nodes[*node].known());
        let own = known().map(|node| self.own_bps(node, id, direction));
        let all_own = own.fold(0, u64::saturating_add) >= total;
        let mut sum: u64 = 0;
        let (mut without, mut over) = (None, None);
        for node in known() {
            let meter = self.meter(node, id, direction);
            let share = meter.map_or(0, |meter| self.entering_bps(node, id, meter));
            sum = sum.saturating_add(share);
            let right =
                meter.is_some_and(|meter| meter.class == slice.class && (share > 0 || all_own));
            if slice.kept && total > 0 && !right && without.is_none() {
                without = Some(node);
            }
            let own = self.own_bps(node, id, direction);
            if own > share && over.is_none() {
                over = Some((node, own, share));
            }
        }
        if without.is_none() && over.is_none() && sum <= total {
            return None;
        }
        if let Some(text) = text {
            text.subject = format!("{direction:?} of slice {}", slice.name);
            (text.nodes, text.detail) = match (without, over) {
                (Some(node), _) => {
                    (vec![node], String::from("the meter where it enters has no share of it"))
                }
                (None, Some((node, own, share))) => (
                    vec![node],
                    format!("endpoints are guaranteed {own} bit/s of a share of {share}"),
                ),
                (None, None) => (
                    ingresses.into_iter().collect(),
                    format!("shares add up to {sum} bit/s of {total}"),
                ),
            };
        }
        Some(Defect::Promise)
    }

    /// What a slice guarantees in one direction from one ingress, bits per second.
    pub(super) fn share_bps(&self, node: usize, slice: SliceId, direction: Direction) -> u64 {
        let promised =
            self.world.slices.get(&slice).map_or(0, |s| s.guaranteed_bps[index(direction)]);
        let meter = self.meter(node, slice, direction).filter(|_| promised > 0);
        meter.map_or(0, |meter| self.entering_bps(node, slice, meter))
    }

    /// What sends off a slice's packets in one direction at one ingress.
    pub(super) fn policies(
        &self,
        node: usize,
        slice: SliceId,
        direction: Direction,
    ) -> BTreeSet<PolicyId> {
        let mut policies: BTreeSet<PolicyId> = BTreeSet::new();
        for set in self.nodes[node].sets_in(slice) {
            let sends = |member: &super::world::Member| {
                member.direction == direction && member.slices.binary_search(&slice).is_ok()
            };
            if self.nodes[node].groups().of(set).any(|(member, _)| sends(member)) {
                let routes = self.nodes[node].routes_of(set).filter(|r| r.slice == slice);
                policies.extend(routes.filter_map(|route| match route.action {
                    RouteAction::Policy(policy) => Some(policy),
                    RouteAction::Local => None,
                }));
            }
        }
        policies
    }

    /// What a slice guarantees in one direction from one ingress, on each arc that its packets
    /// may take: the meter's share, as often as one path crosses the arc. Each path of a policy
    /// counts whole: one flow may be all there is.
    pub(super) fn carried(
        &self,
        node: usize,
        slice: SliceId,
        direction: Direction,
    ) -> Vec<((usize, PortId), u64)> {
        let share = self.share_bps(node, slice, direction);
        if share == 0 {
            return Vec::new();
        }
        let mut most: BTreeMap<(usize, PortId), u64> = BTreeMap::new();
        for policy in self.policies(node, slice, direction) {
            let mut arcs: Vec<(usize, usize, PortId)> = Vec::new();
            let mut cross = |path, node, port| arcs.push((path, node, port));
            let sent = self.sent(node, policy, Some(&mut cross));
            // What does not arrive is found elsewhere.
            arcs.retain(|(path, ..)| sent[*path].end == End::Decapsulated);
            // A path that crosses an arc twice, to a hook and back, counts twice.
            arcs.sort_unstable();
            for crossed in arcs.chunk_by(|a, b| a == b) {
                let (_, node, port) = crossed[0];
                let most = most.entry((node, port)).or_default();
                *most = (*most).max(crossed.len() as u64);
            }
        }
        most.into_iter().map(|(arc, times)| (arc, share.saturating_mul(times))).collect()
    }

    /// No link's guarantees are over what it may carry, counted in frames of full packets.
    pub(super) fn overload(
        &self,
        node: usize,
        port: PortId,
        text: Option<&mut Text>,
    ) -> Option<Defect> {
        let bps = *self.load.get(&(node, port))?;
        let wire = self.world.wires.get(&(node, port))?;
        let reservable = wire.reservable_bps?;
        if !is_over(bps, reservable) {
            return None;
        }
        if let Some(text) = text {
            let sum = frames(bps);
            text.subject = format!("{} port {}", self.world.name(node), port.0);
            text.nodes = vec![node, wire.node];
            text.detail =
                format!("guarantees of {sum} bit/s of frames, at most {reservable} may be");
        }
        Some(Defect::Overload)
    }

    /// Classifier entries are those of active rules.
    pub(super) fn asked(
        &self,
        node: usize,
        priority: u32,
        text: Option<&mut Text>,
    ) -> Option<Defect> {
        let Some(Entry::Classifier(entry)) = self.nodes[node].get(&Key::Classifier(priority))
        else {
            return None;
        };
        if self.world.rules.iter().any(|rule| asks_for(rule, entry)) {
            return None;
        }
        if let Some(text) = text {
            text.subject = format!("classifier entry {priority} of {}", self.world.name(node));
            text.nodes = vec![node];
            text.detail = String::from("no active traffic rule asks for it");
        }
        Some(Defect::Rule)
    }

    /// Each active rule is where the traffic that it concerns enters.
    pub(super) fn rule(&self, rule: usize, host: u32, text: Option<&mut Text>) -> Option<Defect> {
        let rule = self.world.rules.get(rule)?;
        let endpoint = self.world.endpoint(host).filter(|endpoint| concerns(rule, endpoint))?;
        let here = &self.nodes[endpoint.node];
        let mut entries = here.range(Key::Classifier(0)..=Key::Classifier(u32::MAX));
        let there = entries.any(|entry| match entry {
            Entry::Classifier(entry) => asks_for(rule, entry),
            _ => false,
        });
        if there || !here.known() {
            return None;
        }
        if let Some(text) = text {
            let name = self.world.host(host);
            text.subject = format!("rule {} for packets of {name}", rule.name);
            text.nodes = vec![endpoint.node];
            text.detail = String::from("no classifier entry carries it out");
        }
        Some(Defect::Rule)
    }

    /// Every question about rules: there are few.
    pub(super) fn rule_topics(&self, topics: &mut Vec<Topic>) {
        for (node, here) in self.nodes.iter().enumerate() {
            for entry in here.range(Key::Classifier(0)..=Key::Classifier(u32::MAX)) {
                if let Entry::Classifier(entry) = entry {
                    topics.push(Topic::Asked(node, entry.priority));
                }
            }
        }
        for (number, rule) in self.world.rules.iter().enumerate() {
            for (host, endpoint) in (0..).zip(self.world.endpoints.iter()) {
                if endpoint.as_ref().is_some_and(|endpoint| concerns(rule, endpoint)) {
                    topics.push(Topic::Rule(number, host));
                }
            }
        }
        // Of rules that are not there any more.
        let (first, last) = (Topic::Rule(0, 0), Topic::Rule(usize::MAX, u32::MAX));
        topics.extend(self.wrong_between(&first, &last));
    }
}

/// The rate of full packets' frames on a fabric link.
pub(super) fn frames(bps: u64) -> u128 {
    let (packet, frame) = PACKET_AND_FRAME;
    (u128::from(bps) * frame).div_ceil(packet)
}

/// Whether frames of full packets at that rate are more than may be.
pub(super) fn is_over(bps: u64, reservable_bps: u64) -> bool {
    frames(bps) > u128::from(reservable_bps)
}

/// Whether the entry is one of the combinations of the rule's fields.
fn asks_for(rule: &Rule, entry: &ClassifierEntry) -> bool {
    fn one<T: PartialEq>(of: &[T], field: Option<T>) -> bool {
        field.map_or(of.is_empty(), |field| of.contains(&field))
    }
    one(&rule.sources, entry.source)
        && one(&rule.destinations, entry.destination)
        && one(&rule.protocols, entry.protocol)
        && one(&rule.source_ports, entry.source_ports)
        && one(&rule.destination_ports, entry.destination_ports)
        && one(&rule.dscps, entry.dscp)
        && entry.slice_set.is_none()
        && entry.endpoint_tag.is_none()
        && entry.tunnel_id.is_none()
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
