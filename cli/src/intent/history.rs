//! `selvedge history`: what was changed when, by whom and why.

use std::collections::BTreeMap;
use std::process::ExitCode;

use selvedge_controller::api::wire_history::{Documents, Revision, RevisionDetails};
use serde_json::Value;

use super::print_json;
use super::table::{ago_of, new, or_dash, touched};
use crate::Output;
use crate::client::{Client, ControllerArg};

/// Objects that a line of the list names.
const NAMED: usize = 3;

pub(super) fn run(
    revision: Option<u64>,
    controller: &ControllerArg,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let client = Client::find(controller)?;
    match revision {
        None => {
            let answer = client.get::<Vec<Revision>>("/v1/history")?;
            match output {
                Output::Json => print_json(&answer)?,
                Output::Text => list(&answer.value),
            }
        }
        Some(revision) => {
            let answer = client.get::<RevisionDetails>(&format!("/v1/history/{revision}"))?;
            match output {
                Output::Json => print_json(&answer)?,
                Output::Text => show(&answer.value),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(revisions: &[Revision]) {
    let mut table = new(["revision", "ago", "by", "what", "why"]);
    for revision in revisions {
        table.add_row([
            revision.revision.to_string(),
            ago_of(revision.at_ms),
            revision.author.clone(),
            what(revision),
            or_dash(Some(&revision.reason)),
        ]);
    }
    println!("{}", table.trim_fmt());
}

fn what(revision: &Revision) -> String {
    let objects = &revision.objects;
    let mut parts = revision.operations.clone();
    parts.extend(objects.iter().take(NAMED).map(touched));
    if objects.len() > NAMED {
        parts.push(format!("{} more", objects.len() - NAMED));
    }
    let what = parts.join(", ");
    match revision.rollback {
        Some(to) => format!("back to {to}: {what}"),
        None => what,
    }
}

fn show(details: &RevisionDetails) {
    let RevisionDetails { revision, documents } = details;
    println!(
        "revision {}, {} ago, by {}",
        revision.revision,
        ago_of(revision.at_ms),
        revision.author
    );
    if let Some(to) = revision.rollback {
        println!("back to revision {to}");
    }
    if !revision.reason.is_empty() {
        println!("why: {}", revision.reason);
    }
    let Revision { added, changed, removed, switches, .. } = revision;
    println!(
        "{switches} switches, {added} entries to add, {changed} to change, {removed} to remove"
    );
    if !revision.undoable {
        println!("too large for its objects to be kept: no rollback leads past it");
    }
    for operation in &revision.operations {
        println!("\n{operation}");
    }
    for (object, Documents { before, after }) in revision.objects.iter().zip(documents) {
        println!("\n{}", touched(object));
        for line in differences(before.as_ref(), after.as_ref()) {
            println!("  {line}");
        }
    }
}

/// Fields that two documents have otherwise: `~ spec.downlink.guaranteed: 20Mbps -> 30Mbps`.
fn differences(before: Option<&Value>, after: Option<&Value>) -> Vec<String> {
    let fields = |document: Option<&Value>| {
        let mut fields = BTreeMap::new();
        if let Some(spec) = document.and_then(|document| document.get("spec")) {
            flatten("spec".to_owned(), spec, &mut fields);
        }
        fields
    };
    let (before, after) = (fields(before), fields(after));
    let mut lines = Vec::new();
    for (path, value) in &before {
        match after.get(path) {
            None => lines.push(format!("- {path}: {value}")),
            Some(new) if new != value => lines.push(format!("~ {path}: {value} -> {new}")),
            Some(_) => {}
        }
    }
    let new = after.iter().filter(|(path, _)| !before.contains_key(*path));
    lines.extend(new.map(|(path, value)| format!("+ {path}: {value}")));
    lines
}

fn flatten(path: String, value: &Value, fields: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                flatten(format!("{path}.{key}"), value, fields);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                flatten(format!("{path}[{index}]"), value, fields);
            }
        }
        Value::String(text) => drop(fields.insert(path, text.clone())),
        other => drop(fields.insert(path, other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_differ_by_field() {
        let before = json!({ "spec": { "a": 1, "b": { "c": "x" }, "d": ["p", "q"] } });
        let after = json!({ "spec": { "a": 2, "b": { "c": "x" }, "d": ["p"], "e": true } });
        assert_eq!(
            differences(Some(&before), Some(&after)),
            ["~ spec.a: 1 -> 2", "- spec.d[1]: q", "+ spec.e: true"]
        );
        assert_eq!(differences(None, Some(&after)).len(), 4);
        assert_eq!(differences(None, None), [""; 0]);
    }
}
