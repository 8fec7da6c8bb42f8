//! A body of `/v1/plan` or `/v1/apply`, checked and turned into the core's request.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use selvedge_core as core;
use selvedge_slices::{Hook, Object, ObjectKind, ObjectName};
use selvedge_topology::Problems;

use super::Problem;
use super::wire_intent::{Change, Document, Documents, ObjectRef, Target};
use crate::modules::{MAX_MODULE_BYTES, sha256};

/// Documents in one change.
const MAX_DOCUMENTS: usize = 256;
/// Nodes and links that one change drains, or undrains.
const MAX_TARGETS: usize = 256;
/// Why a change is made, in bytes of UTF-8.
const MAX_REASON_BYTES: usize = 1024;
/// On whose behalf, in bytes of UTF-8.
const MAX_AUTHOR_BYTES: usize = 128;

/// The core's change, and the modules that it needs kept: digest and bytes.
pub(super) struct Checked {
    pub(super) change: core::Change,
    pub(super) modules: Vec<(String, Vec<u8>)>,
    pub(super) plan: Option<core::PlanId>,
    /// As the caller gave it.
    pub(super) author: Option<String>,
}

/// Every problem of every document in one answer.
pub(super) fn check(body: Change) -> Result<Checked, Problem> {
    let documents = match body.documents {
        Documents::One(text) => vec![Document { name: "documents".to_owned(), text }],
        Documents::Many(documents) => documents,
    };
    if documents.len() > MAX_DOCUMENTS {
        let count = documents.len();
        return Err(Problem::unprocessable(format!(
            "documents: {count} are too many, at most {MAX_DOCUMENTS}"
        )));
    }
    let mut problems = Vec::new();
    let mut put = Vec::new();
    let mut first: BTreeMap<(ObjectKind, ObjectName), String> = BTreeMap::new();
    for Document { name, text } in &documents {
        let objects = match selvedge_slices::parse_lines(name, text) {
            Ok(objects) => objects,
            Err(found) => {
                problems.extend(lines(&found));
                continue;
            }
        };
        for (line, object) in objects {
            let (kind, of, place) =
                (object.kind(), object.name().clone(), format!("{name}:{line}"));
            if let Some(first) = first.get(&(kind, of.clone())) {
                problems.push(format!("{place}: {kind} {of:?} is at {first} too"));
                continue;
            }
            first.insert((kind, of), place);
            put.push(object);
        }
    }
    let delete: Vec<core::ObjectId> = body
        .delete
        .iter()
        .filter_map(|reference| object_id(reference).map_err(|problem| problems.push(problem)).ok())
        .collect();
    let modules = modules(&put, &body.modules, &mut problems);
    let plan = body.plan.as_deref().map(str::parse::<core::PlanId>).transpose();
    let plan = plan.unwrap_or_else(|error| {
        problems.push(format!("plan: {error}"));
        None
    });
    let objects = !put.is_empty() || !delete.is_empty();
    let drain = targets("drain", &body.drain, &mut problems);
    let undrain = targets("undrain", &body.undrain, &mut problems);
    let anything = objects || !drain.is_empty() || !undrain.is_empty();
    if problems.is_empty() && !anything && body.rollback.is_none() {
        problems.push("nothing to put and nothing to delete".to_owned());
    }
    if anything && body.rollback.is_some() {
        problems.push("rollback: it goes alone, without anything to put, delete or drain".into());
    }
    let reason = note("reason", body.reason, MAX_REASON_BYTES, &mut problems);
    let author = note("author", body.author, MAX_AUTHOR_BYTES, &mut problems);
    if !problems.is_empty() {
        return Err(Problem::unprocessable(problems.join("\n")));
    }
    let digests = modules.iter().map(|(hook, digest, _)| (hook.clone(), digest.clone())).collect();
    let modules = modules.into_iter().map(|(_, digest, bytes)| (digest, bytes)).collect();
    let (rollback, reason) = (body.rollback, reason.unwrap_or_default());
    let change = core::Change { put, modules: digests, delete, rollback, drain, undrain, reason };
    Ok(Checked { change, modules, plan, author })
}

fn targets(what: &str, targets: &[Target], problems: &mut Vec<String>) -> Vec<core::Target> {
    if targets.len() > MAX_TARGETS {
        let count = targets.len();
        problems.push(format!("{what}: {count} are too many, at most {MAX_TARGETS}"));
        return Vec::new();
    }
    let mut known = Vec::new();
    for Target { kind, name } in targets {
        let kind = match kind.as_str() {
            "node" => core::TargetKind::Node,
            "link" => core::TargetKind::Link,
            other => {
                problems.push(format!("{what}: {other:?} is not a kind: node or link"));
                continue;
            }
        };
        known.push(core::Target { kind, name: name.clone() });
    }
    known
}

/// A line for the history; an empty one is none.
fn note(
    what: &str,
    text: Option<String>,
    limit: usize,
    problems: &mut Vec<String>,
) -> Option<String> {
    let text = text?.trim().to_owned();
    if text.len() > limit {
        problems.push(format!("{what}: {} bytes are too many, at most {limit}", text.len()));
    }
    if text.chars().any(char::is_control) {
        problems.push(format!("{what}: it is one line, without control characters"));
    }
    Some(text).filter(|text| !text.is_empty())
}

/// `file:line:column: message (help)`.
pub(crate) fn lines(problems: &Problems) -> Vec<String> {
    let line = |(line, column, problem): (usize, usize, &selvedge_topology::Problem)| {
        let help = problem.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
        format!("{}:{line}:{column}: {}{help}", problems.file(), problem.message)
    };
    problems.places().map(line).collect()
}

pub(super) fn object_id(reference: &ObjectRef) -> Result<core::ObjectId, String> {
    let ObjectRef { kind, name } = reference;
    let known = ObjectKind::ALL.into_iter().find(|known| known.as_str() == kind);
    let kind = known.ok_or_else(|| {
        let kinds = ObjectKind::ALL.map(ObjectKind::as_str).join(", ");
        format!("delete: {kind:?} is not a kind: {kinds}")
    })?;
    let name = name.parse().map_err(|error| format!("delete: {error}"))?;
    Ok(core::ObjectId { kind, name })
}

/// The module of each hook in `put`, by the hook's name or by its path: name, digest, bytes.
fn modules(
    put: &[Object],
    encoded: &BTreeMap<String, String>,
    problems: &mut Vec<String>,
) -> Vec<(ObjectName, String, Vec<u8>)> {
    let mut modules = Vec::new();
    for object in put {
        let Object::Hook(Hook { name, module, .. }) = object else { continue };
        let Some(text) = encoded.get(name.as_str()).or_else(|| encoded.get(module)) else {
            problems.push(format!("hook {name:?}: its module {module:?} is not in `modules`"));
            continue;
        };
        let bytes = match STANDARD.decode(text) {
            Ok(bytes) => bytes,
            Err(error) => {
                problems.push(format!("hook {name:?}: its module is not base64: {error}"));
                continue;
            }
        };
        if bytes.len() > MAX_MODULE_BYTES {
            let size = bytes.len();
            problems.push(format!(
                "hook {name:?}: its module is {size} bytes, at most {MAX_MODULE_BYTES}"
            ));
            continue;
        }
        modules.push((name.clone(), sha256(&bytes), bytes));
    }
    modules
}
