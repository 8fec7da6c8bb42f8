//! Pipeline entries into a switch's tables.

use selvedge_pipeline::{
    ClassifierAction, Direction, Entry, Key, LocalSidAction, OnFailure, PortKind, RouteAction,
};
use selvedge_xdp::{self as xdp, Switch, Table};

pub fn direction(direction: Direction) -> xdp::Direction {
    match direction {
        Direction::Downlink => xdp::Direction::Downlink,
        Direction::Uplink => xdp::Direction::Uplink,
    }
}

pub fn put(switch: &Switch, entry: &Entry) {
    let result = match entry {
        Entry::Port(e) => {
            let kind = match e.kind {
                PortKind::Access => xdp::PortKind::Access,
                PortKind::Fabric => xdp::PortKind::Fabric,
            };
            switch.port.put(e.port.0, &kind)
        }
        Entry::Endpoint(e) => {
            let value = xdp::Endpoint {
                slice_set: e.slice_set.0,
                direction: direction(e.direction),
                endpoint: e.endpoint.0,
                tag: e.tag.0,
            };
            switch.endpoint.put((e.port.0, e.prefix), &value)
        }
        Entry::Classifier(e) => {
            let action = match e.action {
                ClassifierAction::Drop => xdp::RuleAction::Drop,
                ClassifierAction::Pass => xdp::RuleAction::Pass,
                ClassifierAction::SetSlice(slice) => xdp::RuleAction::SetSlice(slice.0),
                ClassifierAction::Mark(dscp) => xdp::RuleAction::Mark(dscp),
                ClassifierAction::Steer(policy) => {
                    xdp::RuleAction::Steer(policy.0.try_into().expect("at most 65,535"))
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
            switch.classifier.put(e.priority, &rule)
        }
        Entry::SliceRoute(e) => {
            let action = match e.action {
                RouteAction::Local => xdp::RouteAction::Local,
                RouteAction::Policy(policy) => xdp::RouteAction::Policy(policy.0),
            };
            let value = xdp::Route { slice: e.slice.0, action, endpoint: e.endpoint.0 };
            switch.route.put((e.slice_set.0, e.prefix), &value)
        }
        Entry::SliceMeter(e) => {
            let class = match e.class {
                selvedge_pipeline::Class::BestEffort => xdp::Class::BestEffort,
                selvedge_pipeline::Class::Guaranteed => xdp::Class::Guaranteed,
                selvedge_pipeline::Class::Urllc => xdp::Class::Urllc,
            };
            let value = xdp::Meter {
                class,
                guaranteed_bps: e.guaranteed_bps,
                guaranteed_burst_bytes: e.guaranteed_burst_bytes,
                maximum_bps: e.maximum_bps,
                maximum_burst_bytes: e.maximum_burst_bytes,
            };
            switch.meter.put((e.slice.0, direction(e.direction)), &value)
        }
        Entry::EndpointMeter(e) => {
            let value = xdp::EndpointMeter {
                guaranteed_bps: e.guaranteed_bps,
                guaranteed_burst_bytes: e.guaranteed_burst_bytes,
                maximum_bps: e.maximum_bps,
                maximum_burst_bytes: e.maximum_burst_bytes,
            };
            let at = (e.slice.0, direction(e.direction), e.endpoint.0);
            switch.endpoint_meter.put(at, &value)
        }
        Entry::Policy(e) => {
            let each = e.paths.iter();
            let each = each.map(|path| xdp::Path { sids: path.sids.clone(), weight: path.weight });
            let buckets = selvedge_pipeline::paths::buckets(&e.paths);
            switch.policy.put(e.policy.0, &xdp::Policy { paths: each.collect(), buckets })
        }
        Entry::LocalSid(e) => {
            let action = match e.action {
                LocalSidAction::Node => xdp::LocalSid::Node,
                LocalSidAction::Decapsulate => xdp::LocalSid::Decapsulate,
                LocalSidAction::Compute { hook, on_failure } => {
                    xdp::LocalSid::Compute { hook: hook.0, bypass: on_failure == OnFailure::Bypass }
                }
            };
            switch.local_sid.put(e.sid, &action)
        }
        Entry::NextHop(e) => {
            let hop = xdp::NextHop { port: e.port.0, mac: e.mac, backup: e.backup };
            switch.next_hop.put(e.node.0, &hop)
        }
        Entry::Backup(e) => switch.backup.put(
            (e.around.0, e.backup),
            &xdp::Backup { port: e.port.0, mac: e.mac, sids: e.sids.clone() },
        ),
        Entry::Delivery(e) => {
            let tunnel = e.tunnel.as_deref().map(|t| xdp::Tunnel {
                local: t.local,
                gnb: t.gnb,
                teid: t.teid,
                qfi: t.qfi,
                mtu: t.mtu,
            });
            let value = xdp::Delivery { port: e.port.0, mac: e.mac, tunnel };
            switch.delivery.put((e.slice.0, e.prefix), &value)
        }
        Entry::PortQueue(e) => switch.queue.put(
            e.port.0,
            &xdp::Queue {
                rate_bps: e.rate_bps,
                threshold_bytes: e.threshold_bytes,
                shaped_bps: e.shaped_bps,
            },
        ),
        Entry::Generation(e) => switch.facts.set_generation(Some(e.generation)),
        Entry::N3Address(e) => switch.n3.put(e.address, &()),
        Entry::GtpSession(e) => {
            let value = xdp::Session {
                port: e.port.0,
                gnb: e.gnb,
                ue_ipv4: e.ue_ipv4,
                ue_ipv6: e.ue_ipv6,
                slice_set: e.slice_set.0,
                direction: direction(e.direction),
                qfis: e.qfis,
                endpoint: e.endpoint.0,
                tag: e.tag.0,
            };
            switch.session.put(e.teid, &value)
        }
    };
    result.unwrap_or_else(|error| panic!("{entry:?}: {}", super::chain(&error)));
}

/// Whether there was one.
pub fn remove(switch: &Switch, key: &Key) -> bool {
    let result = match *key {
        Key::Port(port) => switch.port.remove(port.0),
        Key::Endpoint(port, prefix) => switch.endpoint.remove((port.0, prefix)),
        Key::Classifier(priority) => switch.classifier.remove(priority),
        Key::SliceRoute(set, prefix) => switch.route.remove((set.0, prefix)),
        Key::SliceMeter(slice, way) => switch.meter.remove((slice.0, direction(way))),
        Key::Policy(policy) => switch.policy.remove(policy.0),
        Key::LocalSid(sid) => switch.local_sid.remove(sid),
        Key::NextHop(node) => switch.next_hop.remove(node.0),
        Key::Backup(around, backup) => switch.backup.remove((around.0, backup)),
        Key::Delivery(slice, prefix) => switch.delivery.remove((slice.0, prefix)),
        Key::PortQueue(port) => switch.queue.remove(port.0),
        Key::Generation => switch.facts.set_generation(None).map(|()| true),
        Key::N3Address(address) => switch.n3.remove(address),
        Key::GtpSession(teid) => switch.session.remove(teid),
        Key::EndpointMeter(slice, way, endpoint) => {
            switch.endpoint_meter.remove((slice.0, direction(way), endpoint.0))
        }
    };
    result.unwrap_or_else(|error| panic!("{key:?}: {}", super::chain(&error)))
}
