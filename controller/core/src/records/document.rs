//! An object as its file has it, in JSON: read back by the reader of files, so that a store is
//! held to the same rules as an operator.

use std::fmt::Write;

use selvedge_slices::class::ClassReason;
use selvedge_slices::rules::{FilterType, RuleAction, RuleState};
use selvedge_slices::{
    Application, Hook, NetworkSlice, Object, OnFailure, Rates, Side, TrafficFilter, TrafficRule,
};
use selvedge_topology::Loss;
use serde_json::{Map, Value, json};

/// The object as a document, as its file has it but for comments and order.
pub fn of(object: &Object) -> Value {
    let spec = match object {
        Object::NetworkSlice(slice) => slice_spec(slice),
        Object::Hook(hook) => hook_spec(hook),
        Object::Application(application) => application_spec(application),
    };
    json!({
        "apiVersion": "selvedge/v1",
        "kind": object.kind().as_str(),
        "metadata": { "name": object.name().as_str() },
        "spec": spec,
    })
}

/// The object of a document.
pub(crate) fn object(document: &Value) -> Result<Object, String> {
    let mut text = String::new();
    yaml(document, &mut text);
    let objects = selvedge_slices::parse("record", &text).map_err(|problems| {
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

/// Leaves out what is not stated.
fn stated<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let stated = fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Value::Object(stated.collect::<Map<String, Value>>())
}

fn slice_spec(slice: &NetworkSlice) -> Value {
    let rates = |rates: &Rates| {
        (*rates != Rates::default()).then(|| {
            stated([
                ("guaranteed", rates.guaranteed.map(|rate| rate.to_string().into())),
                ("maximum", rates.maximum.map(|rate| rate.to_string().into())),
                ("burst", rates.burst.map(|burst| burst.to_string().into())),
            ])
        })
    };
    let s_nssai = slice.s_nssai.map(|id| {
        let sd = id.sd().map(|sd| format!("{sd:06X}").into());
        stated([("sst", Some(id.sst().into())), ("sd", sd)])
    });
    let class = (slice.class_reason == ClassReason::Stated).then(|| slice.class.as_str().into());
    let availability = slice.availability.and_then(|share| Loss::from_ppm(share.ppm()));
    let endpoints = slice.endpoints.iter().map(|endpoint| {
        let side = match endpoint.side {
            Side::Ue => "ue",
            Side::Dn => "dn",
        };
        json!({ side: endpoint.name.as_str() })
    });
    let through = slice.through.iter().map(|through| {
        let on_failure = match through.on_failure {
            OnFailure::Bypass => "bypass",
            OnFailure::Drop => "drop",
        };
        json!({ "hook": through.hook.as_str(), "onFailure": on_failure })
    });
    let through: Vec<Value> = through.collect();
    stated([
        ("sNssai", s_nssai),
        ("5qi", slice.five_qi.map(Into::into)),
        ("class", class),
        ("priority", Some(slice.priority.into())),
        ("downlink", rates(&slice.downlink)),
        ("uplink", rates(&slice.uplink)),
        ("latency", slice.latency.map(|delay| delay.to_string().into())),
        ("availability", availability.map(|share| share.to_string().into())),
        ("endpoints", Some(endpoints.collect())),
        ("through", (!through.is_empty()).then_some(Value::Array(through))),
    ])
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
    json!({
        "endpoint": application.endpoint.as_str(),
        "trafficRules": application.traffic_rules.iter().map(rule).collect::<Vec<Value>>(),
    })
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
    stated([
        ("srcAddress", list(&filter.src_address)),
        ("dstAddress", list(&filter.dst_address)),
        ("srcPort", list(&filter.src_port)),
        ("dstPort", list(&filter.dst_port)),
        ("protocol", list(&filter.protocol)),
        ("dSCP", filter.dscp.map(Into::into)),
    ])
}
