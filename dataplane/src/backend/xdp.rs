//! Typed entries in the pinned maps of the XDP programs.

use selvedge_pipeline::{
    BackupEntry, Class, ClassifierAction, ClassifierEntry, CounterKind, DeliveryEntry, Direction,
    EndpointEntry, EndpointId, EndpointMeterEntry, EndpointTag, Entry, GenerationEntry,
    GtpSessionEntry, HookId, Key, LocalSidAction, LocalSidEntry, N3AddressEntry, NextHopEntry,
    NodeSid, OnFailure, Path, PolicyEntry, PolicyId, PortEntry, PortId, PortKind, PortQueueEntry,
    RouteAction, SliceId, SliceMeterEntry, SliceRouteEntry, SliceSet, TableKind, Tunnel, paths,
};
use selvedge_xdp::{self as xdp, Table};

use super::{BackendError, Count, Tables};

/// The tables of an open switch. Holds the maps, not the programs: cheap to make, and good
/// for as long as anything.
#[derive(Clone, Debug)]
pub struct XdpTables {
    port: xdp::PortTable,
    endpoint: xdp::PrefixTable<xdp::Endpoint>,
    classifier: xdp::Classifier,
    route: xdp::PrefixTable<xdp::Route>,
    meter: xdp::MeterTable,
    endpoint_meter: xdp::EndpointMeterTable,
    policy: xdp::PolicyTable,
    local_sid: xdp::LocalSidTable,
    next_hop: xdp::NextHopTable,
    backup: xdp::BackupTable,
    delivery: xdp::DeliveryTable,
    queue: xdp::QueueTable,
    n3: xdp::N3Table,
    session: xdp::SessionTable,
    facts: xdp::Facts,
    counters: xdp::Counters,
}

impl XdpTables {
    pub fn of(switch: &xdp::Switch) -> Self {
        Self {
            port: switch.port.clone(),
            endpoint: switch.endpoint.clone(),
            classifier: switch.classifier.clone(),
            route: switch.route.clone(),
            meter: switch.meter.clone(),
            endpoint_meter: switch.endpoint_meter.clone(),
            policy: switch.policy.clone(),
            local_sid: switch.local_sid.clone(),
            next_hop: switch.next_hop.clone(),
            backup: switch.backup.clone(),
            delivery: switch.delivery.clone(),
            queue: switch.queue.clone(),
            n3: switch.n3.clone(),
            session: switch.session.clone(),
            facts: switch.facts.clone(),
            counters: switch.counters.clone(),
        }
    }
}

impl Tables for XdpTables {
    fn batch<T>(&self, work: impl FnOnce() -> T) -> (T, Result<(), BackendError>) {
        let (done, ended) = self.classifier.batch(work);
        (done, ended.map_err(BackendError::from))
    }

    fn get(&self, key: &Key) -> Result<Option<Entry>, BackendError> {
        Ok(match *key {
            Key::Port(port) => self.port.get(port.0)?.map(|kind| entry::port(port.0, kind)),
            Key::Endpoint(port, prefix) => {
                let at = (port.0, prefix);
                self.endpoint.get(at)?.map(|endpoint| entry::endpoint(at, endpoint))
            }
            Key::Classifier(priority) => {
                self.classifier.get(priority)?.map(|rule| entry::rule(priority, rule))
            }
            Key::SliceRoute(set, prefix) => {
                let at = (set.0, prefix);
                self.route.get(at)?.map(|route| entry::route(at, route))
            }
            Key::SliceMeter(slice, direction) => {
                let at = (slice.0, to_direction(direction));
                self.meter.get(at)?.map(|meter| entry::meter(at, meter))
            }
            Key::Policy(policy) => {
                self.policy.get(policy.0)?.map(|held| entry::policy(policy.0, held))
            }
            Key::LocalSid(sid) => self.local_sid.get(sid)?.map(|sort| entry::local_sid(sid, sort)),
            Key::NextHop(node) => {
                self.next_hop.get(node.0)?.map(|hop| entry::next_hop(node.0, hop))
            }
            Key::Backup(port, backup) => {
                let at = (port.0, backup);
                self.backup.get(at)?.map(|backup| entry::backup(at, backup))
            }
            Key::Delivery(slice, prefix) => {
                let at = (slice.0, prefix);
                self.delivery.get(at)?.map(|delivery| entry::delivery(at, delivery))
            }
            Key::PortQueue(port) => {
                self.queue.get(port.0)?.map(|queue| entry::queue(port.0, queue))
            }
            Key::Generation => self.facts.generation()?.map(entry::generation),
            Key::N3Address(address) => {
                self.n3.get(address)?.map(|()| entry::n3_address(address, ()))
            }
            Key::EndpointMeter(slice, direction, endpoint) => {
                let at = (slice.0, to_direction(direction), endpoint.0);
                self.endpoint_meter.get(at)?.map(|meter| entry::endpoint_meter(at, meter))
            }
            Key::GtpSession(teid) => {
                self.session.get(teid)?.map(|session| entry::session(teid, session))
            }
        })
    }

    fn put(&self, entry: &Entry) -> Result<(), BackendError> {
        match entry {
            Entry::Port(e) => {
                let kind = match e.kind {
                    PortKind::Access => xdp::PortKind::Access,
                    PortKind::Fabric => xdp::PortKind::Fabric,
                };
                self.port.put(e.port.0, &kind)?;
            }
            Entry::Endpoint(e) => {
                let endpoint = xdp::Endpoint {
                    slice_set: e.slice_set.0,
                    direction: to_direction(e.direction),
                    endpoint: e.endpoint.0,
                    tag: e.tag.0,
                };
                self.endpoint.put((e.port.0, e.prefix), &endpoint)?;
            }
            Entry::Classifier(e) => {
                let action = match e.action {
                    ClassifierAction::Drop => xdp::RuleAction::Drop,
                    ClassifierAction::Pass => xdp::RuleAction::Pass,
                    ClassifierAction::SetSlice(slice) => xdp::RuleAction::SetSlice(slice.0),
                    ClassifierAction::Mark(dscp) => xdp::RuleAction::Mark(dscp),
                    ClassifierAction::Steer(PolicyId(policy)) => {
                        xdp::RuleAction::Steer(policy.try_into().map_err(|_| {
                            let (field, value, most) = ("policy", policy.into(), u16::MAX.into());
                            BackendError::Range { field, value, least: 1, most }
                        })?)
                    }
                };
                let rule = xdp::Rule {
                    source: e.source,
                    destination: e.destination,
                    protocol: e.protocol,
                    source_ports: e.source_ports,
                    destination_ports: e.destination_ports,
                    dscp: e.dscp,
                    slice_set: e.slice_set.map(|set| set.0),
                    tag: e.endpoint_tag.map(|tag| tag.0),
                    teid: e.tunnel_id,
                    action,
                };
                self.classifier.put(e.priority, &rule)?;
            }
            Entry::SliceRoute(e) => {
                let action = match e.action {
                    RouteAction::Local => xdp::RouteAction::Local,
                    RouteAction::Policy(policy) => xdp::RouteAction::Policy(policy.0),
                };
                let route = xdp::Route { slice: e.slice.0, action, endpoint: e.endpoint.0 };
                self.route.put((e.slice_set.0, e.prefix), &route)?;
            }
            Entry::SliceMeter(e) => {
                let class = match e.class {
                    Class::BestEffort => xdp::Class::BestEffort,
                    Class::Guaranteed => xdp::Class::Guaranteed,
                    Class::Urllc => xdp::Class::Urllc,
                };
                let meter = xdp::Meter {
                    class,
                    guaranteed_bps: e.guaranteed_bps,
                    guaranteed_burst_bytes: e.guaranteed_burst_bytes,
                    maximum_bps: e.maximum_bps,
                    maximum_burst_bytes: e.maximum_burst_bytes,
                };
                self.meter.put((e.slice.0, to_direction(e.direction)), &meter)?;
            }
            Entry::EndpointMeter(e) => {
                let at = (e.slice.0, to_direction(e.direction), e.endpoint.0);
                let meter = xdp::EndpointMeter {
                    guaranteed_bps: e.guaranteed_bps,
                    guaranteed_burst_bytes: e.guaranteed_burst_bytes,
                    maximum_bps: e.maximum_bps,
                    maximum_burst_bytes: e.maximum_burst_bytes,
                };
                self.endpoint_meter.put(at, &meter)?;
            }
            Entry::Policy(e) => self.policy.put(e.policy.0, &to_policy(&e.paths)?)?,
            Entry::LocalSid(e) => {
                let local = match e.action {
                    LocalSidAction::Node => xdp::LocalSid::Node,
                    LocalSidAction::Decapsulate => xdp::LocalSid::Decapsulate,
                    LocalSidAction::Compute { hook, on_failure } => xdp::LocalSid::Compute {
                        hook: hook.0,
                        bypass: on_failure == OnFailure::Bypass,
                    },
                };
                self.local_sid.put(e.sid, &local)?;
            }
            Entry::NextHop(e) => {
                let NextHopEntry { node, port, mac, backup } = *e;
                self.next_hop.put(node.0, &xdp::NextHop { port: port.0, mac, backup })?;
            }
            Entry::Backup(e) => {
                let (port, sids) = (e.port.0, e.sids.clone());
                self.backup.put((e.around.0, e.backup), &xdp::Backup { port, mac: e.mac, sids })?;
            }
            Entry::Delivery(e) => {
                let tunnel = e.tunnel.as_deref().map(|tunnel| {
                    let Tunnel { local, gnb, teid, qfi, mtu } = *tunnel;
                    xdp::Tunnel { local, gnb, teid, qfi, mtu }
                });
                let delivery = xdp::Delivery { port: e.port.0, mac: e.mac, tunnel };
                self.delivery.put((e.slice.0, e.prefix), &delivery)?;
            }
            Entry::PortQueue(e) => {
                let PortQueueEntry { rate_bps, threshold_bytes, shaped_bps, .. } = *e;
                let queue = xdp::Queue { rate_bps, threshold_bytes, shaped_bps };
                self.queue.put(e.port.0, &queue)?;
            }
            Entry::Generation(e) => self.facts.set_generation(Some(e.generation))?,
            Entry::N3Address(e) => self.n3.put(e.address, &())?,
            Entry::GtpSession(e) => {
                let session = xdp::Session {
                    port: e.port.0,
                    gnb: e.gnb,
                    ue_ipv4: e.ue_ipv4,
                    ue_ipv6: e.ue_ipv6,
                    slice_set: e.slice_set.0,
                    direction: to_direction(e.direction),
                    qfis: e.qfis,
                    endpoint: e.endpoint.0,
                    tag: e.tag.0,
                };
                self.session.put(e.teid, &session)?;
            }
        }
        Ok(())
    }

    fn remove(&self, key: &Key) -> Result<bool, BackendError> {
        Ok(match *key {
            Key::Port(port) => self.port.remove(port.0)?,
            Key::Endpoint(port, prefix) => self.endpoint.remove((port.0, prefix))?,
            Key::Classifier(priority) => self.classifier.remove(priority)?,
            Key::SliceRoute(set, prefix) => self.route.remove((set.0, prefix))?,
            Key::SliceMeter(slice, direction) => {
                self.meter.remove((slice.0, to_direction(direction)))?
            }
            Key::Policy(policy) => self.policy.remove(policy.0)?,
            Key::LocalSid(sid) => self.local_sid.remove(sid)?,
            Key::NextHop(node) => self.next_hop.remove(node.0)?,
            Key::Backup(port, backup) => self.backup.remove((port.0, backup))?,
            Key::Delivery(slice, prefix) => self.delivery.remove((slice.0, prefix))?,
            Key::PortQueue(port) => self.queue.remove(port.0)?,
            Key::N3Address(address) => self.n3.remove(address)?,
            Key::GtpSession(teid) => self.session.remove(teid)?,
            Key::EndpointMeter(slice, direction, endpoint) => {
                self.endpoint_meter.remove((slice.0, to_direction(direction), endpoint.0))?
            }
            Key::Generation => {
                let held = self.facts.generation()?.is_some();
                self.facts.set_generation(None)?;
                held
            }
        })
    }

    fn entries(&self, table: TableKind) -> Result<Vec<Entry>, BackendError> {
        Ok(match table {
            TableKind::Port => all(&self.port, entry::port)?,
            TableKind::Endpoint => all(&self.endpoint, entry::endpoint)?,
            TableKind::Classifier => all(&self.classifier, entry::rule)?,
            TableKind::SliceRoute => all(&self.route, entry::route)?,
            TableKind::SliceMeter => all(&self.meter, entry::meter)?,
            TableKind::Policy => all(&self.policy, entry::policy)?,
            TableKind::LocalSid => all(&self.local_sid, entry::local_sid)?,
            TableKind::NextHop => all(&self.next_hop, entry::next_hop)?,
            TableKind::Backup => all(&self.backup, entry::backup)?,
            TableKind::Delivery => all(&self.delivery, entry::delivery)?,
            TableKind::PortQueue => all(&self.queue, entry::queue)?,
            TableKind::N3Address => all(&self.n3, entry::n3_address)?,
            TableKind::GtpSession => all(&self.session, entry::session)?,
            TableKind::EndpointMeter => all(&self.endpoint_meter, entry::endpoint_meter)?,
            TableKind::Generation => {
                self.facts.generation()?.map(entry::generation).into_iter().collect()
            }
        })
    }

    fn count(&self, counter: CounterKind, index: u32) -> Result<Count, BackendError> {
        let narrow = u16::try_from(index).unwrap_or(u16::MAX);
        let slice = narrow / 2;
        let direction =
            if narrow % 2 == 0 { xdp::Direction::Downlink } else { xdp::Direction::Uplink };
        Ok(match counter {
            // There is no port 0 and no slice 0: cells that never count.
            CounterKind::PortRx | CounterKind::PortTx | CounterKind::PortTxErrors
                if narrow == 0 =>
            {
                Count::default()
            }
            CounterKind::SliceIn | CounterKind::SliceDropped | CounterKind::SliceDelivered
                if slice == 0 =>
            {
                Count::default()
            }
            CounterKind::PortRx => {
                let port = self.counters.port(narrow)?;
                Count { packets: port.rx_packets, bytes: port.rx_bytes }
            }
            CounterKind::PortTx => {
                let port = self.counters.port(narrow)?;
                Count { packets: port.left_packets, bytes: port.left_bytes }
            }
            CounterKind::PortTxErrors => {
                let port = self.counters.port(narrow)?;
                let packets = port.failed_packets + port.failed_answers;
                Count { packets, bytes: port.failed_bytes }
            }
            CounterKind::Drops => {
                let drops = self.counters.drops()?;
                let packets = drops.get(usize::from(narrow)).copied().unwrap_or_default();
                Count { packets, bytes: 0 }
            }
            CounterKind::SliceIn => {
                let slice = self.counters.slice(slice, direction)?;
                Count { packets: slice.packets, bytes: slice.bytes }
            }
            CounterKind::SliceDropped => {
                let slice = self.counters.slice(slice, direction)?;
                Count { packets: slice.dropped_packets, bytes: slice.dropped_bytes }
            }
            CounterKind::SliceDelivered => {
                let slice = self.counters.slice(slice, direction)?;
                Count { packets: slice.delivered_packets, bytes: slice.delivered_bytes }
            }
            CounterKind::Hook => {
                let hook = self.counters.hook(narrow)?;
                Count { packets: hook.to_packets, bytes: hook.to_bytes }
            }
        })
    }

    fn knows_port(&self, port: PortId) -> Result<bool, BackendError> {
        Ok(self.facts.knows_port(port.0)?)
    }

    fn election(&self) -> Result<Option<u128>, BackendError> {
        Ok(self.facts.election()?)
    }

    fn set_election(&self, id: u128) -> Result<(), BackendError> {
        Ok(self.facts.set_election(id)?)
    }
}

fn all<T: Table>(
    table: &T,
    entry: impl Fn(T::Key, T::Value) -> Entry,
) -> Result<Vec<Entry>, BackendError> {
    Ok(table.entries()?.into_iter().map(|(key, value)| entry(key, value)).collect())
}

fn to_policy(paths: &[Path]) -> Result<xdp::Policy, BackendError> {
    let count = paths.len() as u64;
    if !(1..=paths::MAX_PATHS as u64).contains(&count) {
        let (field, most) = ("number of paths", paths::MAX_PATHS as u64);
        return Err(BackendError::Range { field, value: count, least: 1, most });
    }
    let buckets = paths::buckets(paths);
    let paths =
        paths.iter().map(|Path { sids, weight }| xdp::Path { sids: sids.clone(), weight: *weight });
    Ok(xdp::Policy { paths: paths.collect(), buckets })
}

fn to_direction(direction: Direction) -> xdp::Direction {
    match direction {
        Direction::Downlink => xdp::Direction::Downlink,
        Direction::Uplink => xdp::Direction::Uplink,
    }
}

impl From<xdp::Error> for BackendError {
    fn from(error: xdp::Error) -> Self {
        match error {
            xdp::Error::Full { table, capacity } => Self::Full { table, capacity },
            xdp::Error::Range { field, value, least, most } => {
                Self::Range { field, value, least, most }
            }
            error => {
                // The chain in one line: it travels as one string.
                let mut text = error.to_string();
                let mut source = std::error::Error::source(&error);
                while let Some(error) = source {
                    text = format!("{text}: {error}");
                    source = error.source();
                }
                Self::System(text)
            }
        }
    }
}

/// From what a map holds to the typed entry.
mod entry {
    use std::net::IpAddr;

    use ipnet::IpNet;

    use super::*;

    pub(super) fn port(port: u16, kind: xdp::PortKind) -> Entry {
        let kind = match kind {
            xdp::PortKind::Access => PortKind::Access,
            xdp::PortKind::Fabric => PortKind::Fabric,
        };
        Entry::Port(PortEntry { port: PortId(port), kind })
    }

    pub(super) fn endpoint((port, prefix): (u16, IpNet), value: xdp::Endpoint) -> Entry {
        Entry::Endpoint(EndpointEntry {
            port: PortId(port),
            prefix,
            slice_set: SliceSet(value.slice_set),
            direction: direction(value.direction),
            endpoint: EndpointId(value.endpoint),
            tag: EndpointTag(value.tag),
        })
    }

    pub(super) fn rule(priority: u32, rule: xdp::Rule) -> Entry {
        let action = match rule.action {
            xdp::RuleAction::Drop => ClassifierAction::Drop,
            xdp::RuleAction::Pass => ClassifierAction::Pass,
            xdp::RuleAction::SetSlice(slice) => ClassifierAction::SetSlice(SliceId(slice)),
            xdp::RuleAction::Mark(dscp) => ClassifierAction::Mark(dscp),
            xdp::RuleAction::Steer(policy) => ClassifierAction::Steer(PolicyId(policy.into())),
        };
        Entry::Classifier(Box::new(ClassifierEntry {
            priority,
            source: rule.source,
            destination: rule.destination,
            protocol: rule.protocol,
            source_ports: rule.source_ports,
            destination_ports: rule.destination_ports,
            dscp: rule.dscp,
            slice_set: rule.slice_set.map(SliceSet),
            endpoint_tag: rule.tag.map(EndpointTag),
            tunnel_id: rule.teid,
            action,
        }))
    }

    pub(super) fn route((set, prefix): (u16, IpNet), route: xdp::Route) -> Entry {
        let action = match route.action {
            xdp::RouteAction::Local => RouteAction::Local,
            xdp::RouteAction::Policy(policy) => RouteAction::Policy(PolicyId(policy)),
        };
        Entry::SliceRoute(SliceRouteEntry {
            slice_set: SliceSet(set),
            prefix,
            slice: SliceId(route.slice),
            action,
            endpoint: EndpointId(route.endpoint),
        })
    }

    pub(super) fn meter(at: (u16, xdp::Direction), meter: xdp::Meter) -> Entry {
        let class = match meter.class {
            xdp::Class::BestEffort => Class::BestEffort,
            xdp::Class::Guaranteed => Class::Guaranteed,
            xdp::Class::Urllc => Class::Urllc,
        };
        Entry::SliceMeter(SliceMeterEntry {
            slice: SliceId(at.0),
            direction: direction(at.1),
            class,
            guaranteed_bps: meter.guaranteed_bps,
            guaranteed_burst_bytes: meter.guaranteed_burst_bytes,
            maximum_bps: meter.maximum_bps,
            maximum_burst_bytes: meter.maximum_burst_bytes,
        })
    }

    pub(super) fn endpoint_meter(
        (slice, way, endpoint): (u16, xdp::Direction, u16),
        meter: xdp::EndpointMeter,
    ) -> Entry {
        Entry::EndpointMeter(EndpointMeterEntry {
            slice: SliceId(slice),
            direction: direction(way),
            endpoint: EndpointId(endpoint),
            guaranteed_bps: meter.guaranteed_bps,
            guaranteed_burst_bytes: meter.guaranteed_burst_bytes,
            maximum_bps: meter.maximum_bps,
            maximum_burst_bytes: meter.maximum_burst_bytes,
        })
    }

    pub(super) fn policy(policy: u32, held: xdp::Policy) -> Entry {
        let paths = held.paths.into_iter().map(|xdp::Path { sids, weight }| Path { sids, weight });
        Entry::Policy(PolicyEntry { policy: PolicyId(policy), paths: paths.collect() })
    }

    pub(super) fn local_sid(sid: u16, local: xdp::LocalSid) -> Entry {
        let action = match local {
            xdp::LocalSid::Node => LocalSidAction::Node,
            xdp::LocalSid::Decapsulate => LocalSidAction::Decapsulate,
            xdp::LocalSid::Compute { hook, bypass } => LocalSidAction::Compute {
                hook: HookId(hook),
                on_failure: if bypass { OnFailure::Bypass } else { OnFailure::Drop },
            },
        };
        Entry::LocalSid(LocalSidEntry { sid, action })
    }

    pub(super) fn backup((around, backup): (u16, u8), value: xdp::Backup) -> Entry {
        let xdp::Backup { port, mac, sids } = value;
        let (around, port) = (PortId(around), PortId(port));
        Entry::Backup(BackupEntry { around, backup, port, mac, sids })
    }

    pub(super) fn next_hop(node: u16, hop: xdp::NextHop) -> Entry {
        let xdp::NextHop { port, mac, backup } = hop;
        Entry::NextHop(NextHopEntry { node: NodeSid(node), port: PortId(port), mac, backup })
    }

    pub(super) fn delivery((slice, prefix): (u16, IpNet), value: xdp::Delivery) -> Entry {
        Entry::Delivery(DeliveryEntry {
            slice: SliceId(slice),
            prefix,
            port: PortId(value.port),
            mac: value.mac,
            tunnel: value.tunnel.map(|tunnel| {
                let xdp::Tunnel { local, gnb, teid, qfi, mtu } = tunnel;
                Box::new(Tunnel { local, gnb, teid, qfi, mtu })
            }),
        })
    }

    pub(super) fn n3_address(address: IpAddr, (): ()) -> Entry {
        Entry::N3Address(N3AddressEntry { address })
    }

    pub(super) fn session(teid: u32, session: xdp::Session) -> Entry {
        Entry::GtpSession(Box::new(GtpSessionEntry {
            teid,
            port: PortId(session.port),
            gnb: session.gnb,
            ue_ipv4: session.ue_ipv4,
            ue_ipv6: session.ue_ipv6,
            slice_set: SliceSet(session.slice_set),
            direction: direction(session.direction),
            qfis: session.qfis,
            endpoint: EndpointId(session.endpoint),
            tag: EndpointTag(session.tag),
        }))
    }

    pub(super) fn queue(port: u16, queue: xdp::Queue) -> Entry {
        Entry::PortQueue(PortQueueEntry {
            port: PortId(port),
            rate_bps: queue.rate_bps,
            threshold_bytes: queue.threshold_bytes,
            shaped_bps: queue.shaped_bps,
        })
    }

    pub(super) fn generation(generation: u64) -> Entry {
        Entry::Generation(GenerationEntry { generation })
    }

    fn direction(direction: xdp::Direction) -> Direction {
        match direction {
            xdp::Direction::Downlink => Direction::Downlink,
            xdp::Direction::Uplink => Direction::Uplink,
        }
    }
}
