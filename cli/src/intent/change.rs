//! `selvedge plan`, `apply` and `delete`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use selvedge_controller::api::wire::{RoleName, Status};
use selvedge_controller::api::wire_intent::{Applied, Change, Documents, ObjectRef, Plan};

use super::{How, files, print_json, table};
use crate::Output;
use crate::client::{Answer, Client, ControllerArg};

/// Between two looks at whether the network has converged.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

pub(super) fn plan(
    paths: &[PathBuf],
    save: Option<&Path>,
    controller: &ControllerArg,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let mut change = change_of(paths)?;
    let answer = Client::find(controller)?.post::<Plan>("/v1/plan", &change)?;
    match output {
        Output::Json => print_json(&answer)?,
        Output::Text => table::plan(&answer.value),
    }
    if let Some(refusal) = &answer.value.refusal {
        eprintln!("refused: {refusal}");
        return Ok(ExitCode::FAILURE);
    }
    if let Some(path) = save {
        change.plan = Some(answer.value.id);
        let text = serde_json::to_string_pretty(&change)?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn apply(
    paths: &[PathBuf],
    plan: Option<&Path>,
    how: &How,
    controller: &ControllerArg,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let change = match (plan, paths) {
        (Some(path), _) => saved(path)?,
        (None, [path]) if is_saved(path) => saved(path)?,
        (None, paths) => change_of(paths)?,
    };
    send(change, how, controller, output)
}

pub(super) fn delete(
    what: &[String],
    how: &How,
    controller: &ControllerArg,
    output: Output,
) -> anyhow::Result<ExitCode> {
    send(deletion_of(what)?, how, controller, output)
}

/// Shows what the change would do, and then makes it, unless something else has changed
/// meanwhile.
pub(super) fn planned(
    mut change: Change,
    dry_run: bool,
    how: &How,
    controller: &ControllerArg,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let answer = Client::find(controller)?.post::<Plan>("/v1/plan", &change)?;
    match output {
        Output::Json if dry_run => print_json(&answer)?,
        Output::Json => {}
        Output::Text => table::plan(&answer.value),
    }
    if let Some(refusal) = &answer.value.refusal {
        eprintln!("refused: {refusal}");
        return Ok(ExitCode::FAILURE);
    }
    if dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    change.plan = Some(answer.value.id);
    send(change, how, controller, output)
}

/// `what`: files, or objects by kind and name.
pub(crate) fn deletion_of(what: &[String]) -> anyhow::Result<Change> {
    let mut change = Change::default();
    let mut paths = Vec::new();
    for text in what {
        match object(text) {
            Some(object) => change.delete.push(object),
            None => paths.push(PathBuf::from(text)),
        }
    }
    if !paths.is_empty() {
        change.delete.extend(files::read(&paths)?.objects);
    }
    Ok(change)
}

/// `slice/factory-control`; `None` if it is a file or looks like one.
fn object(text: &str) -> Option<ObjectRef> {
    let (kind, name) = text.split_once('/')?;
    if name.contains('/') || Path::new(text).exists() {
        return None;
    }
    let kind = match kind.to_ascii_lowercase().as_str() {
        "slice" | "slices" | "networkslice" => "NetworkSlice",
        "hook" | "hooks" => "Hook",
        "application" | "applications" | "app" => "Application",
        "class-map" | "classmap" => "ClassMap",
        "pdu-session" | "pdu-sessions" | "session" => "PduSession",
        _ => return None,
    };
    Some(ObjectRef { kind: kind.to_owned(), name: name.to_owned() })
}

/// What applying files asks for.
pub(crate) fn change_of(paths: &[PathBuf]) -> anyhow::Result<Change> {
    let files::Files { documents, modules, .. } = files::read(paths)?;
    Ok(Change { documents: Documents::Many(documents), modules, ..Change::default() })
}

/// Whether a file is a plan that was saved, as JSON, and no document.
fn is_saved(path: &Path) -> bool {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.trim_start().starts_with('{')
        && serde_json::from_str(&text).is_ok_and(|change: Change| change.plan.is_some())
}

fn saved(path: &Path) -> anyhow::Result<Change> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    let change: Change =
        serde_json::from_str(&text).with_context(|| format!("{shown} is not a saved plan"))?;
    anyhow::ensure!(change.plan.is_some(), "{shown} is not a saved plan: it names none");
    Ok(change)
}

fn send(
    mut change: Change,
    how: &How,
    controller: &ControllerArg,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let How { reason, author, wait } = how.clone();
    change.reason = reason.or(change.reason);
    change.author = author.or(change.author);
    let client = Client::find(controller)?;
    let answer = commit(&client, &change)?;
    report(&client, &answer, wait, output)
}

/// Says what became of a change, once the switches hold it if that is waited for.
pub(super) fn report(
    client: &Client,
    answer: &Answer<Applied>,
    wait: Option<u64>,
    output: Output,
) -> anyhow::Result<ExitCode> {
    if let Some(seconds) = wait {
        converge(client, Duration::from_secs(seconds))?;
    }
    match output {
        Output::Json => print_json(answer)?,
        Output::Text => match answer.value {
            Applied { changed: true, revision } => println!("applied, revision {revision}"),
            Applied { changed: false, revision } => {
                println!("nothing to change, revision {revision}");
            }
        },
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn commit(client: &Client, change: &Change) -> anyhow::Result<Answer<Applied>> {
    client.post("/v1/apply", change)
}

/// Waits until every switch holds what it should.
fn converge(client: &Client, limit: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        let status = client.get::<Status>("/v1/status")?.value;
        if status.converged {
            return Ok(());
        }
        // Another one may have been elected meanwhile.
        if let (RoleName::Follower, Some(leader)) = (status.role, &status.leader) {
            client.prefer(leader)?;
        }
        if Instant::now() >= deadline {
            let reasons = match status.blocked {
                Some(blocked) => blocked,
                None => status.waiting_for.join("; "),
            };
            anyhow::bail!("applied, but not converged after {limit:?}: {reasons}");
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_by_kind_and_name() {
        let cases = [
            ("slice/a", Some(("NetworkSlice", "a"))),
            ("NetworkSlice/a", Some(("NetworkSlice", "a"))),
            ("hook/h", Some(("Hook", "h"))),
            ("app/x", Some(("Application", "x"))),
            ("class-map/m", Some(("ClassMap", "m"))),
            ("slice/a/b", None),
            ("slices.yaml", None),
            ("examples/slice.yaml", None),
        ];
        for (text, want) in cases {
            let got = object(text);
            let got = got.as_ref().map(|o| (o.kind.as_str(), o.name.as_str()));
            assert_eq!(got, want, "{text:?}");
        }
    }
}
