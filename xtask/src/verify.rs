//! `cargo xtask test`: every check, in order of price, each one a command a person can type.

use anyhow::{Result, bail};

use crate::{run, setup};

/// Name and what it checks.
pub(crate) const STEPS: &[(&str, &str)] = &[
    ("format", "cargo fmt --check"),
    ("licences", "cargo-deny: licences, banned crates, sources of every dependency"),
    ("hooks", "examples/hooks build to WebAssembly"),
    ("lints", "clippy on everything, warnings denied"),
    ("tests", "every test of every room, those with namespaces too, as root"),
    ("docs", "rustdoc without warnings"),
];

/// Runs the named steps, or all of them.
pub(crate) fn run(names: &[&str]) -> Result<()> {
    if let Some(unknown) = names.iter().find(|name| STEPS.iter().all(|(step, _)| step != *name)) {
        bail!("no step {unknown:?}: `cargo xtask test --list` names them");
    }
    setup::build_tools()?;
    setup::test_tools()?;
    for (name, _) in STEPS {
        if names.is_empty() || names.contains(name) {
            step(name)?;
        }
    }
    Ok(())
}

fn step(name: &str) -> Result<()> {
    match name {
        "format" => run::cargo(&["fmt", "--all", "--check"]),
        "licences" => run::as_user(
            "target/tools/bin/cargo-deny",
            &["--workspace", "check", "bans", "licenses", "sources"],
        ),
        "hooks" => run::hooks(),
        "lints" => run::cargo(&[
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]),
        // One invocation: another choice of packages would unify features differently and
        // build half of the dependencies again.
        "tests" => run::cargo_as_root(&["test", "--quiet", "--workspace"]),
        "docs" => run::cargo(&["doc", "--quiet", "--no-deps", "--workspace"]),
        other => unreachable!("{other} is not in STEPS"),
    }
}
