//! `selvedge validate`: every problem of every file, without a controller.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use selvedge_slices::Object;
use selvedge_slices::limits::MAX_FILE_BYTES;
use selvedge_topology::Problems;
use selvedge_topology::read::{self, Format};
use serde_json::json;

use super::files;
use crate::Output;

pub(super) fn run(files: &[impl AsRef<Path>], output: Output) -> anyhow::Result<ExitCode> {
    let mut answers = Vec::new();
    let mut all_right = true;
    for path in files {
        let path = path.as_ref();
        match check(path) {
            Ok(Checked { what, notes }) => match output {
                Output::Text => {
                    println!("{}: {what}", path.display());
                    for note in notes {
                        println!("  {note}");
                    }
                }
                Output::Json => answers.push(
                    json!({ "file": path, "ok": true, "what": what, "notes": notes, "problems": [] }),
                ),
            },
            Err(problems) => {
                all_right = false;
                if output == Output::Json {
                    let list: Vec<_> = problems
                        .places()
                        .map(|(line, column, problem)| {
                            json!({
                                "line": line, "column": column,
                                "message": problem.message, "help": problem.help,
                            })
                        })
                        .collect();
                    answers.push(json!({ "file": path, "ok": false, "problems": list }));
                } else {
                    eprintln!("{:?}", miette::Report::new(problems));
                }
            }
        }
    }
    if output == Output::Json {
        println!("{}", serde_json::to_string_pretty(&answers)?);
    }
    Ok(if all_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Checked {
    /// `metro: 8 switches, 4 hosts, 16 links`; `2 NetworkSlices, 1 Hook`.
    what: String,
    /// What was taken for granted, filled in, or will not be enforced.
    notes: Vec<String>,
}

fn check(path: &Path) -> Result<Checked, Problems> {
    let text = read::text_of(path, MAX_FILE_BYTES)?;
    let name = path.display().to_string();
    let format = Format::of_file(&name);
    match format {
        Some(format @ (Format::GraphMl | Format::Repetita)) => topology(&name, &text, format),
        Some(Format::Selvedge) if is_topology(&text) => topology(&name, &text, Format::Selvedge),
        Some(Format::Selvedge) if text.lines().any(|line| line.trim_end() == "kind: LabTest") => {
            let (test, steps) = crate::lab::check_test(path)?;
            let what = format!("lab test {test}: {steps} steps");
            Ok(Checked { what, notes: Vec::new() })
        }
        Some(Format::Selvedge) | None => objects(path, &name, &text),
    }
}

/// A topology has a `topology:` at the left edge, an object an `apiVersion:`.
fn is_topology(text: &str) -> bool {
    let has = |key: &str| text.lines().any(|line| line.starts_with(key));
    has("topology:") && !has("apiVersion:")
}

fn topology(name: &str, text: &str, format: Format) -> Result<Checked, Problems> {
    let read::Read { topology, assumptions } = read::from_str(name, text, format)?;
    let (switches, hosts) = (topology.switches().count(), topology.hosts().count());
    let links = topology.links.len();
    Ok(Checked {
        what: format!(
            "network {}: {switches} switches, {hosts} hosts, {links} links",
            topology.name
        ),
        notes: assumptions.iter().map(ToString::to_string).collect(),
    })
}

fn objects(path: &Path, name: &str, text: &str) -> Result<Checked, Problems> {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    let mut notes = Vec::new();
    for object in selvedge_slices::parse(name, text)? {
        if let Object::Hook(hook) = &object
            && let Err(error) = files::module(path, &hook.module)
        {
            let message = format!("hook {}: {error:#}", hook.name);
            let help = "a module's path is relative to the file that names it".to_owned();
            return Err(Problems::of_file(name, message, Some(help)));
        }
        *kinds.entry(object.kind().to_string()).or_default() += 1;
        notes.extend(object.filled_in());
        notes.extend(object.not_enforced());
    }
    let counted = kinds.into_iter().map(|(kind, n)| {
        let s = if n == 1 { "" } else { "s" };
        format!("{n} {kind}{s}")
    });
    Ok(Checked { what: counted.collect::<Vec<_>>().join(", "), notes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topologies_are_told_from_objects() {
        for (text, want) in [
            ("name: x\ntopology:\n  nodes: {}\n", true),
            ("apiVersion: selvedge/v1\nkind: Hook\n", false),
            ("apiVersion: selvedge/v1\ntopology: x\n", false),
            ("kind: NetworkSlice\nspec:\n  topology: x\n", false),
        ] {
            assert_eq!(is_topology(text), want, "{text:?}");
        }
    }
}
