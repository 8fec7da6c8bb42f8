//! Active traffic rules of applications, as classifier entries where their traffic enters.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use selvedge_pipeline::{ClassifierAction, ClassifierEntry, Entry, TableKind};
use selvedge_slices::TrafficRule;
use selvedge_slices::rules::{Match, RuleAction, RuleState, ports_text};
use selvedge_topology::{NodeName, Topology};

use super::fabric::put;
use crate::attach::{Located, as_held, prefixes};
use crate::intent::Intent;
use crate::numbers::Numbers;
use crate::refusal::Refusal;
use crate::table::Table;
use selvedge_topology::sorted::Sorted;

/// Classifier entries of one switch.
const MAX_ENTRIES: usize = TableKind::Classifier.table().size as usize;

/// Adds the rules' entries. A rule that is INACTIVE has none.
///
/// Priorities: MEC 011 has 0 for the highest, the classifier the largest number; among rules
/// of one priority the one that was numbered first wins.
pub(crate) fn rules(
    intent: &Intent,
    topology: &Topology,
    located: &Sorted<NodeName, Located>,
    numbers: &mut Numbers,
    tables: &mut BTreeMap<NodeName, Table>,
) -> Result<(), Refusal> {
    let mut count: BTreeMap<&NodeName, usize> = BTreeMap::new();
    for (application, stored) in &intent.applications {
        let active = |rule: &&TrafficRule| rule.state == RuleState::Active;
        for rule in stored.object.traffic_rules.iter().filter(active) {
            let action = match rule.action {
                RuleAction::Drop => ClassifierAction::Drop,
                RuleAction::Passthrough => ClassifierAction::Pass,
            };
            for one in rule.matches() {
                let one = canonical(one);
                // The fields are in the name, so that a number never changes what it matches.
                let name = format!("{application}/{}/{}", rule.id, fields(&one));
                let number = numbers.rule(&name)?;
                let priority = (u32::from(u8::MAX - rule.priority) << 16) | u32::from(!number);
                let entry = ClassifierEntry {
                    source: one.source,
                    destination: one.destination,
                    protocol: one.protocol,
                    source_ports: one.source_ports,
                    destination_ports: one.destination_ports,
                    dscp: one.dscp,
                    ..ClassifierEntry::any(priority, action)
                };
                for switch in entered(&one, topology, located) {
                    put(
                        tables.entry(switch.clone()).or_default(),
                        Entry::Classifier(Box::new(entry)),
                    );
                    *count.entry(switch).or_default() += 1;
                }
            }
        }
    }
    match count.into_iter().find(|(_, wanted)| *wanted > MAX_ENTRIES) {
        Some((switch, wanted)) => {
            Err(Refusal::TooManyRules { switch: switch.clone(), wanted, limit: MAX_ENTRIES })
        }
        None => Ok(()),
    }
}

/// Switches that have an endpoint whose packets can match.
fn entered<'a>(
    one: &Match,
    topology: &Topology,
    located: &'a Sorted<NodeName, Located>,
) -> BTreeSet<&'a NodeName> {
    let overlap = |a: &IpNet, b: &IpNet| a.contains(b) || b.contains(a);
    let same_family = |prefix: &IpNet| {
        one.destination.is_none_or(|d| d.addr().is_ipv4() == prefix.addr().is_ipv4())
    };
    let sends = |prefix: &IpNet| {
        same_family(prefix) && one.source.is_none_or(|source| overlap(&source, prefix))
    };
    let matching = |(host, _): &(&NodeName, &Located)| {
        let host = topology.nodes.get(*host).and_then(|node| node.as_host());
        host.is_some_and(|host| prefixes(host).iter().any(sends))
    };
    located.iter().filter(matching).map(|(_, located)| &located.switch).collect()
}

/// Prefixes as switches read them back.
fn canonical(one: Match) -> Match {
    Match { source: one.source.map(as_held), destination: one.destination.map(as_held), ..one }
}

fn fields(one: &Match) -> String {
    fn text<T: ToString>(field: Option<T>) -> String {
        field.map_or_else(|| String::from("*"), |value| value.to_string())
    }
    [
        text(one.source),
        text(one.destination),
        text(one.protocol),
        text(one.source_ports.map(ports_text)),
        text(one.destination_ports.map(ports_text)),
        text(one.dscp),
    ]
    .join(" ")
}
