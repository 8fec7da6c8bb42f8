//! What building Selvedge takes.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Check, Found, Group, in_path};

const SETUP: &str = "cargo xtask setup";

/// Looks at the toolchain for the source tree that `dir` is in; nothing where it is in none.
pub fn toolchain(dir: &Path) -> Vec<Check> {
    let is_ours = |dir: &&Path| dir.join("xtask").is_dir() && dir.join("ebpf/programs").is_dir();
    let Some(tree) = dir.ancestors().find(is_ours) else { return Vec::new() };
    let mut checks = vec![tool("rustup", "https://rustup.rs"), rustc(tree)];
    checks.extend(components(tree));
    checks.push(bpf_linker(tree));
    checks.push(tool("cc", "apt-get install gcc libc6-dev"));
    checks
}

fn tool(name: &str, fix: &str) -> Check {
    let found = match in_path(name) {
        Some(path) => Found::Present(path),
        None => Found::Missing("not in PATH".to_owned()),
    };
    Check::new(Group::Building, name, found, true, fix)
}

/// A value of `rust-toolchain.toml`: `name = "text"`, or the texts of `name = [..]`.
fn pinned(tree: &Path, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(tree.join("rust-toolchain.toml")).unwrap_or_default();
    let line = text.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == name).then(|| value.to_owned())
    });
    let line = line.unwrap_or_default();
    line.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

fn says(tree: &Path, program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).current_dir(tree).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn rustc(tree: &Path) -> Check {
    let wanted = pinned(tree, "channel").pop().unwrap_or_default();
    let found = match says(tree, "rustc", &["--version"]) {
        Ok(version) if version.contains(&wanted) => Found::Present(version),
        Ok(version) => Found::Missing(version),
        Err(why) => Found::Missing(why),
    };
    let what = format!("rustc {wanted}");
    Check::new(Group::Building, what, found, true, format!("rustup toolchain install {wanted}"))
}

/// Components and targets that `rust-toolchain.toml` names.
fn components(tree: &Path) -> Vec<Check> {
    let mut checks = Vec::new();
    for (list, of) in [("components", "component"), ("targets", "target")] {
        let installed = says(tree, "rustup", &[of, "list", "--installed"]);
        for wanted in pinned(tree, list) {
            let found = match &installed {
                // Components carry the target's name behind their own.
                Ok(all) => Found::yes(all.lines().any(|l| l.starts_with(&wanted)), "not installed"),
                Err(why) => Found::Unknown(why.clone()),
            };
            let fix = format!("rustup {of} add {wanted}");
            checks.push(Check::new(Group::Building, format!("{of} {wanted}"), found, true, fix));
        }
    }
    checks
}

fn bpf_linker(tree: &Path) -> Check {
    let own: PathBuf = tree.join("target/tools/bin/bpf-linker");
    let program =
        if own.is_file() { Some(own.display().to_string()) } else { in_path("bpf-linker") };
    let found = match program.map(|program| says(tree, &program, &["--version"])) {
        Some(Ok(version)) => Found::Present(version),
        Some(Err(why)) => Found::Missing(why),
        None => Found::Missing("neither in target/tools/bin nor in PATH".to_owned()),
    };
    Check::new(Group::Building, "bpf-linker", found, true, SETUP)
}
