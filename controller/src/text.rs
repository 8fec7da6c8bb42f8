//! Entries as text for people.

use std::fmt::Display;

use selvedge_pipeline::{
    Class, ClassifierAction, ClassifierEntry, Direction, EndpointId, EndpointTag, Entry,
    GtpSessionEntry, LocalSidAction, OnFailure, Path, PortKind, RouteAction, SliceMeterEntry,
};
use selvedge_slices::rules;

/// What an entry matches.
pub(crate) fn key(entry: &Entry) -> String {
    match entry {
        Entry::Port(e) => format!("port {}", e.port.0),
        Entry::Endpoint(e) => format!("port {}, from {}", e.port.0, e.prefix),
        Entry::Classifier(e) => classifier_key(e),
        Entry::SliceRoute(e) => format!("set {}, to {}", e.slice_set.0, e.prefix),
        Entry::SliceMeter(e) => format!("slice {}, {}", e.slice.0, direction(e.direction)),
        Entry::EndpointMeter(e) => {
            format!("slice {}, {}, endpoint {}", e.slice.0, direction(e.direction), e.endpoint.0)
        }
        Entry::Policy(e) => format!("policy {}", e.policy.0),
        Entry::LocalSid(e) => format!("sid {:#06x}", e.sid),
        Entry::NextHop(e) => format!("node {}", e.node.0),
        Entry::Backup(e) => format!("port {}, backup {}", e.around.0, e.backup),
        Entry::Delivery(e) => format!("slice {}, to {}", e.slice.0, e.prefix),
        Entry::PortQueue(e) => format!("port {}", e.port.0),
        Entry::Generation(_) => String::new(),
        Entry::N3Address(e) => e.address.to_string(),
        Entry::GtpSession(e) => format!("teid {:#010x}", e.teid),
    }
}

fn sids(sids: &[u16]) -> String {
    let sids: Vec<String> = sids.iter().map(|sid| format!("{sid:04x}")).collect();
    sids.join(":")
}

/// Of several the weight of each.
fn paths(paths: &[Path]) -> String {
    match paths {
        [path] => sids(&path.sids),
        paths => {
            let each = paths.iter().map(|path| format!("{} x {}", path.weight, sids(&path.sids)));
            each.collect::<Vec<_>>().join(", ")
        }
    }
}

/// What it does.
pub(crate) fn value(entry: &Entry) -> String {
    match entry {
        Entry::Port(e) => match e.kind {
            PortKind::Access => "access".to_owned(),
            PortKind::Fabric => "fabric".to_owned(),
        },
        Entry::Endpoint(e) => {
            let (set, way) = (e.slice_set.0, direction(e.direction));
            format!("set {set}, {way}{}{}", rated(e.endpoint), tagged(e.tag))
        }
        Entry::Classifier(e) => match e.action {
            ClassifierAction::Drop => "drop".to_owned(),
            ClassifierAction::Pass => "pass".to_owned(),
            ClassifierAction::SetSlice(slice) => format!("slice {}", slice.0),
            ClassifierAction::Mark(dscp) => format!("mark with dscp {dscp}"),
            ClassifierAction::Steer(policy) => format!("steer to policy {}", policy.0),
        },
        Entry::SliceRoute(e) => match e.action {
            RouteAction::Local => format!("slice {}, local{}", e.slice.0, rated(e.endpoint)),
            RouteAction::Policy(policy) => {
                format!("slice {}, policy {}{}", e.slice.0, policy.0, rated(e.endpoint))
            }
        },
        Entry::SliceMeter(e) => meter(e),
        Entry::EndpointMeter(e) => {
            let guaranteed = (e.guaranteed_bps, e.guaranteed_burst_bytes);
            rates(guaranteed, (e.maximum_bps, e.maximum_burst_bytes)).join(", ")
        }
        Entry::Policy(e) => paths(&e.paths),
        Entry::LocalSid(e) => match e.action {
            LocalSidAction::Node => "this node".to_owned(),
            LocalSidAction::Decapsulate => "decapsulate".to_owned(),
            LocalSidAction::Compute { hook, on_failure } => {
                let otherwise = match on_failure {
                    OnFailure::Bypass => "bypass",
                    OnFailure::Drop => "drop",
                };
                format!("hook {}, else {otherwise}", hook.0)
            }
        },
        Entry::NextHop(e) => match e.backup {
            0 => format!("port {}, {}", e.port.0, mac(e.mac)),
            backup => format!("port {}, {}, backup {backup}", e.port.0, mac(e.mac)),
        },
        Entry::Backup(e) if e.sids.is_empty() => format!("port {}, {}", e.port.0, mac(e.mac)),
        Entry::Backup(e) => format!("port {}, {}, {}", e.port.0, mac(e.mac), sids(&e.sids)),
        Entry::Delivery(e) => match &e.tunnel {
            None => format!("port {}, {}", e.port.0, mac(e.mac)),
            Some(t) => format!(
                "port {}, {}, GTP-U {} -> {}, teid {:#010x}, qfi {}, mtu {}",
                e.port.0,
                mac(e.mac),
                t.local,
                t.gnb,
                t.teid,
                t.qfi,
                t.mtu
            ),
        },
        Entry::PortQueue(e) => {
            let [best_effort, guaranteed, urllc] = e.threshold_bytes;
            let mut text =
                format!("{}, excess below {best_effort}/{guaranteed}/{urllc} B", rate(e.rate_bps));
            let classes = ["best-effort", "guaranteed", "urllc"].into_iter().zip(e.shaped_bps);
            for (class, bps) in classes.filter(|(_, bps)| *bps != 0) {
                text += &format!(", {class} in HTB at {}", rate(bps));
            }
            text
        }
        Entry::Generation(e) => e.generation.to_string(),
        Entry::N3Address(_) => "GTP-U ends here".to_owned(),
        Entry::GtpSession(e) => session(e),
    }
}

fn session(entry: &GtpSessionEntry) -> String {
    let ue = [entry.ue_ipv4.map(|v4| v4.to_string()), entry.ue_ipv6.map(|v6| v6.to_string())];
    let ue: Vec<String> = ue.into_iter().flatten().collect();
    let GtpSessionEntry { port, gnb, slice_set, qfis, .. } = entry;
    let (way, rated) = (direction(entry.direction), rated(entry.endpoint));
    let (port, set, ue, tag) = (port.0, slice_set.0, ue.join(" and "), tagged(entry.tag));
    format!("port {port}, gNB {gnb}, UE {ue}: set {set}, {way}{rated}{tag}, qfis {qfis:#x}")
}

fn classifier_key(entry: &ClassifierEntry) -> String {
    let mut text = format!("priority {}", entry.priority);
    let mut add = |name: &str, value: Option<&dyn Display>| {
        if let Some(value) = value {
            text += &format!(", {name} {value}");
        }
    };
    fn some<T: Display>(value: &Option<T>) -> Option<&dyn Display> {
        value.as_ref().map(|value| value as &dyn Display)
    }
    add("from", some(&entry.source));
    add("to", some(&entry.destination));
    add("protocol", some(&entry.protocol));
    add("source port", some(&entry.source_ports.map(rules::ports_text)));
    add("destination port", some(&entry.destination_ports.map(rules::ports_text)));
    add("dscp", some(&entry.dscp));
    add("set", some(&entry.slice_set.map(|set| set.0)));
    add("tag", some(&entry.endpoint_tag.map(|tag| tag.0)));
    add("tunnel", some(&entry.tunnel_id.map(|teid| format!("{teid:#010x}"))));
    text
}

fn meter(entry: &SliceMeterEntry) -> String {
    let class = match entry.class {
        Class::BestEffort => "best-effort",
        Class::Guaranteed => "guaranteed",
        Class::Urllc => "urllc",
    };
    let guaranteed = (entry.guaranteed_bps, entry.guaranteed_burst_bytes);
    let rates = rates(guaranteed, (entry.maximum_bps, entry.maximum_burst_bytes));
    [vec![class.to_owned()], rates].concat().join(", ")
}

/// A guaranteed rate and a maximum with their bursts, those that are not 0.
fn rates(guaranteed: (u64, u32), maximum: (u64, u32)) -> Vec<String> {
    let some = [(guaranteed, "guaranteed"), (maximum, "at most")];
    let some = some.into_iter().filter(|((bps, _), _)| *bps > 0);
    some.map(|((bps, burst), what)| format!("{} {what} (burst {burst} B)", rate(bps))).collect()
}

fn rated(endpoint: EndpointId) -> String {
    match endpoint {
        EndpointId::NONE => String::new(),
        EndpointId(number) => format!(", endpoint {number}"),
    }
}

fn tagged(tag: EndpointTag) -> String {
    match tag {
        EndpointTag::NONE => String::new(),
        EndpointTag(number) => format!(", tag {number}"),
    }
}

pub(crate) fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Downlink => "downlink",
        Direction::Uplink => "uplink",
    }
}

fn mac(bytes: [u8; 6]) -> String {
    crate::api::wire::mac_text(bytes)
}

/// `20 Mbit/s`; never rounded.
pub fn rate(bps: u64) -> String {
    for (unit, name) in [(1_000_000_000, "Gbit/s"), (1_000_000, "Mbit/s"), (1_000, "kbit/s")] {
        if bps >= unit && bps.is_multiple_of(unit / 1_000) {
            let (whole, thousandths) = (bps / unit, bps % unit / (unit / 1_000));
            let fraction = format!(".{thousandths:03}");
            return format!(
                "{whole}{} {name}",
                fraction.trim_end_matches('0').trim_end_matches('.')
            );
        }
    }
    format!("{bps} bit/s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_not_rounded() {
        let cases = [
            (0, "0 bit/s"),
            (999, "999 bit/s"),
            (1_000, "1 kbit/s"),
            (20_000_000, "20 Mbit/s"),
            (19_500_000, "19.5 Mbit/s"),
            (97_000_000, "97 Mbit/s"),
            (1_000_000_000, "1 Gbit/s"),
            (1_234_567_000, "1234.567 Mbit/s"),
            (1_234_567_891, "1234567.891 kbit/s"),
        ];
        for (bps, want) in cases {
            assert_eq!(rate(bps), want, "{bps}");
        }
    }
}
