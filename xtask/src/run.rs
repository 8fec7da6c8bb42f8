//! Starting cargo and what it built.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::succeed;

/// The workspace: where this package's manifest lies one folder down.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

pub(crate) fn cargo(args: &[&str]) -> Result<()> {
    step("cargo", args);
    succeed(&format!("cargo {}", args.join(" ")), Command::new("cargo").args(args).status())
}

pub(crate) fn as_user(program: &str, args: &[&str]) -> Result<()> {
    step(program, args);
    succeed(program, Command::new(program).args(args).status())
}

/// Runs a test of ours as root: cargo builds as the user, only what was built runs as root.
pub(crate) fn cargo_as_root(args: &[&str]) -> Result<()> {
    step("cargo", args);
    let mut command = Command::new("cargo");
    command.args(args);
    if !is_root()? {
        command.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", "sudo -E");
        command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", "sudo -E");
    }
    succeed(&format!("cargo {}", args.join(" ")), command.status())
}

pub(crate) fn as_root(program: &str, args: &[&str]) -> Result<()> {
    let mut command = if is_root()? {
        Command::new(program)
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["-E", program]);
        sudo
    };
    succeed(program, command.args(args).status())
}

pub(crate) fn is_root() -> Result<bool> {
    let output = Command::new("id").arg("-u").output().context("start id")?;
    Ok(output.stdout.trim_ascii() == b"0")
}

/// The example hooks, for the target that the switch's Wasm host runs.
pub(crate) fn hooks() -> Result<()> {
    cargo(&[
        "build",
        "--release",
        "--quiet",
        "--manifest-path",
        "examples/hooks/Cargo.toml",
        "--target",
        "wasm32-unknown-unknown",
        "--target-dir",
        "target/hooks",
    ])
}

fn step(program: &str, args: &[&str]) {
    eprintln!("==> {program} {}", args.join(" "));
}
