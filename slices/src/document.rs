//! An object as its file has it, in JSON: read back by the reader of files, so that a store is
//! held to the same rules as an operator.

use std::collections::BTreeMap;
use std::fmt::Write;

use selvedge_topology::{Cpu, Loss, Power};
use serde_json::{Map, Value, json};

use crate::class::{Class, ClassReason};
use crate::placement::Demand;
use crate::read::API_VERSION;
use crate::rules::{FilterType, RuleAction, RuleState, ports_text};
use crate::schedule::{Schedule, Timestamp};
use crate::template::Attribute;
use crate::{
    Application, ClassMap, Endpoint, Hook, NetworkSlice, Object, OnFailure, PduSession, Rates,
    ResourceSharingLevel, Side, TrafficFilter, TrafficRule,
};

/// The object as a document, as its file has it but for comments and order.
pub fn of(object: &Object) -> Value {
    let spec = match object {
        Object::NetworkSlice(slice) => slice_spec(slice),
        Object::Hook(hook) => hook_spec(hook),
        Object::Application(application) => application_spec(application),
        Object::ClassMap(map) => class_map_spec(map),
        Object::PduSession(session) => session_spec(session),
    };
    json!({
        "apiVersion": API_VERSION,
        "kind": object.kind().as_str(),
        "metadata": { "name": object.name().as_str() },
        "spec": spec,
    })
}

/// The object of a document.
///
/// # Errors
/// What is wrong with it, in words.
pub fn object(document: &Value) -> Result<Object, String> {
    let mut text = String::new();
    yaml(document, &mut text);
    let objects = crate::parse("record", &text).map_err(|problems| {
        let all: Vec<String> =
            problems.problems().iter().map(|problem| problem.message.clone()).collect();
        all.join("; ")
    })?;
    match <[Object; 1]>::try_from(objects) {
        Ok([object]) => Ok(object),
        Err(objects) => Err(format!("{} objects, not one", objects.len())),
    }
}

/// JSON as YAML that any reader agrees on: all but plain ASCII is escaped (YAML 1.2 §5.7), since
/// JSON lets through what YAML does not.
fn yaml(value: &Value, out: &mut String) {
    let text = |text: &str, out: &mut String| {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                ' '..='~' => out.push(c),
                _ => write!(out, "\\U{:08X}", u32::from(c)).expect("a String takes all"),
            }
        }
        out.push('"');
    };
    match value {
        Value::String(string) => text(string, out),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                yaml(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            for (index, (key, value)) in fields.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                text(key, out);
                out.push_str(": ");
                yaml(value, out);
            }
            out.push('}');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            write!(out, "{value}").expect("a String takes all");
        }
    }
}

/// The object as a file that is read back as the same object.
pub fn text(object: &Object) -> String {
    let document = of(object);
    let mut out = String::new();
    for (key, value) in document.as_object().into_iter().flatten() {
        match value {
            Value::Object(fields) if key == "spec" => {
                out.push_str("spec:\n");
                for (key, value) in fields {
                    write!(out, "  {key}: ").expect("a String takes all");
                    plain(value, &mut out);
                    out.push('\n');
                }
            }
            _ => {
                write!(out, "{key}: ").expect("a String takes all");
                plain(value, &mut out);
                out.push('\n');
            }
        }
    }
    out
}

/// Flow style, with quotes only where some reader of YAML might need them.
fn plain(value: &Value, out: &mut String) {
    match value {
        Value::String(text) => {
            let safe = |b: u8| b.is_ascii_alphanumeric() || b"-._/%".contains(&b);
            let word = ["true", "false", "null", "yes", "no", "on", "off"];
            let quoted = !text.bytes().all(safe)
                || !text.starts_with(|c: char| c.is_ascii_alphanumeric())
                || text.bytes().all(|b| b.is_ascii_digit() || b"eE.".contains(&b))
                || word.iter().any(|word| text.eq_ignore_ascii_case(word));
            if quoted { yaml(value, out) } else { out.push_str(text) }
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                plain(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            for (index, (key, value)) in fields.iter().enumerate() {
                out.push_str(if index == 0 { "{ " } else { ", " });
                write!(out, "{key}: ").expect("a String takes all");
                plain(value, out);
            }
            out.push_str(if fields.is_empty() { "{}" } else { " }" });
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => yaml(value, out),
    }
}

/// Leaves out what is not stated.
fn stated<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let stated = fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Value::Object(stated.collect::<Map<String, Value>>())
}

fn rates(rates: &Rates) -> Option<Value> {
    (*rates != Rates::default()).then(|| {
        stated([
            ("guaranteed", rates.guaranteed.map(|rate| rate.to_string().into())),
            ("maximum", rates.maximum.map(|rate| rate.to_string().into())),
            ("burst", rates.burst.map(|burst| burst.to_string().into())),
        ])
    })
}

fn endpoint(endpoint: &Endpoint) -> Value {
    let name = || Some(endpoint.name.as_str().into());
    stated([
        ("ue", name().filter(|_| endpoint.side == Side::Ue)),
        ("dn", name().filter(|_| endpoint.side == Side::Dn)),
        ("downlink", rates(&endpoint.downlink)),
        ("uplink", rates(&endpoint.uplink)),
    ])
}

fn schedule(schedule: Schedule) -> Value {
    let moment = |at: Option<Timestamp>| at.map(|at| at.to_string().into());
    stated([("start", moment(schedule.start)), ("end", moment(schedule.end))])
}

/// What came from a template is left out: it comes from there again.
fn slice_spec(slice: &NetworkSlice) -> Value {
    let own = |attribute| !slice.is_filled(attribute);
    let s_nssai = slice.s_nssai.and_then(|id| {
        let sst = own(Attribute::Sst).then(|| id.sst().into());
        let sd = id.sd().map(|sd| format!("{sd:06X}").into());
        (sst.is_some() || sd.is_some()).then(|| stated([("sst", sst), ("sd", sd)]))
    });
    let class = (slice.class_reason == ClassReason::Stated).then(|| slice.class.as_str().into());
    let latency = slice.latency.filter(|_| own(Attribute::Latency));
    let availability = slice.availability.and_then(|share| Loss::from_ppm(share.ppm()));
    let non_shared = slice.resource_sharing_level == ResourceSharingLevel::NonShared;
    let through = slice.through.iter().map(|through| {
        let on_failure = match through.on_failure {
            OnFailure::Bypass => "bypass",
            OnFailure::Drop => "drop",
        };
        json!({ "hook": through.hook.as_str(), "onFailure": on_failure })
    });
    let through: Vec<Value> = through.collect();
    stated([
        ("template", slice.template.as_ref().map(|from| from.template.as_str().into())),
        ("sNssai", s_nssai),
        ("5qi", slice.five_qi.filter(|_| own(Attribute::FiveQi)).map(Into::into)),
        ("class", class),
        ("priority", Some(slice.priority.into())),
        ("downlink", rates(&slice.downlink)),
        ("uplink", rates(&slice.uplink)),
        ("latency", latency.map(|delay| delay.to_string().into())),
        ("availability", availability.map(|share| share.to_string().into())),
        ("resourceSharingLevel", non_shared.then(|| "non-shared".into())),
        ("maxNumberofUEs", slice.max_ues.map(Into::into)),
        ("maxNumberofPDUSessions", slice.max_pdu_sessions.map(Into::into)),
        ("schedule", slice.schedule.map(schedule)),
        ("endpoints", Some(slice.endpoints.iter().map(endpoint).collect())),
        ("through", (!through.is_empty()).then_some(Value::Array(through))),
    ])
}

fn class_map_spec(map: &ClassMap) -> Value {
    let classes = |classes: &BTreeMap<u8, Class>| {
        let each =
            classes.iter().map(|(number, class)| (number.to_string(), class.as_str().into()));
        (!classes.is_empty()).then(|| Value::Object(each.collect()))
    };
    stated([
        ("sst", classes(&map.sst)),
        ("5qi", classes(&map.five_qi)),
        ("dscp", classes(&map.dscp)),
    ])
}

fn session_spec(session: &PduSession) -> Value {
    let flow = |(qfi, five_qi): (&u8, &u8)| json!({ "qfi": qfi, "5qi": five_qi });
    json!({
        "ue": session.ue.as_str(),
        "slice": session.slice.as_str(),
        "gnb": session.gnb.as_str(),
        "n3": session.n3.to_string(),
        "uplink": { "teid": session.uplink_teid },
        "downlink": { "teid": session.downlink_teid },
        "qosFlows": session.flows.iter().map(flow).collect::<Vec<Value>>(),
        "mtu": session.mtu,
    })
}

fn hook_spec(hook: &Hook) -> Value {
    json!({
        "module": hook.module,
        "config": hook.config,
        "fuelPerPacket": hook.fuel_per_packet,
        "memory": hook.memory.to_string(),
    })
}

fn application_spec(application: &Application) -> Value {
    let demand = application.demand.as_ref();
    stated([
        ("endpoint", Some(application.endpoint.as_str().into())),
        ("computeDescriptor", demand.map(compute_descriptor)),
        ("latency", demand.and_then(|demand| demand.latency).map(|delay| delay.to_string().into())),
        ("placement", demand.map(placement)),
        ("trafficRules", Some(application.traffic_rules.iter().map(rule).collect())),
    ])
}

/// Leaves out a list of nothing.
fn listed(words: &[String]) -> Option<Value> {
    (!words.is_empty()).then(|| words.into())
}

fn compute_descriptor(demand: &Demand) -> Value {
    stated([
        ("cpu", Some(Cpu(demand.cpu_milli).to_string().into())),
        ("memory", Some(demand.memory.to_string().into())),
        ("architecture", listed(&demand.architectures)),
        ("accelerators", Some(json!(demand.accelerators))),
    ])
}

fn placement(demand: &Demand) -> Value {
    let area = demand.area.map(|area| {
        let position = [area.center.latitude_degrees(), area.center.longitude_degrees()];
        json!({ "position": position, "radius": format!("{}m", area.radius_m) })
    });
    stated([
        ("sites", listed(&demand.sites)),
        ("preferredSites", listed(&demand.preferred_sites)),
        ("area", area),
        ("antiAffinity", listed(&demand.anti_affinity)),
        ("movingCost", Some(Power(demand.moving_mw).to_string().into())),
    ])
}

fn rule(rule: &TrafficRule) -> Value {
    fn word<T: PartialEq>(words: &[(&'static str, T)], value: &T) -> &'static str {
        let found = words.iter().find(|(_, known)| known == value);
        found.expect("every value has its word").0
    }
    json!({
        "trafficRuleId": rule.id,
        "filterType": word(&FilterType::WORDS, &rule.filter_type),
        "priority": rule.priority,
        "trafficFilter": rule.filters.iter().map(filter).collect::<Vec<Value>>(),
        "action": word(&RuleAction::WORDS, &rule.action),
        "state": word(&RuleState::WORDS, &rule.state),
    })
}

fn filter(filter: &TrafficFilter) -> Value {
    fn list<T: ToString>(items: &[T]) -> Option<Value> {
        let texts: Vec<Value> = items.iter().map(|item| item.to_string().into()).collect();
        (!texts.is_empty()).then_some(Value::Array(texts))
    }
    let ports = |ports: &[[u16; 2]]| ports.iter().copied().map(ports_text).collect::<Vec<_>>();
    stated([
        ("srcAddress", list(&filter.src_address)),
        ("dstAddress", list(&filter.dst_address)),
        ("srcPort", list(&ports(&filter.src_port))),
        ("dstPort", list(&ports(&filter.dst_port))),
        ("protocol", list(&filter.protocol)),
        ("dSCP", filter.dscp.map(Into::into)),
    ])
}
