//! What a fresh Debian 12 machine with rustup and git lacks. Each part looks first, says what
//! it will install, and is quick when there is nothing to do.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{run, succeed};

/// For building: the compiler's own parts, LLVM for the BPF linker, the linker itself.
const BUILD_PACKAGES: &[&str] =
    &["gcc", "g++", "libc6-dev", "llvm-22-dev", "libpolly-22-dev", "libzstd-dev", "zlib1g-dev"];
/// For labs and the demo: `ip`, the traffic generator behind `lab iperf`, a MEC client.
const LAB_PACKAGES: &[&str] = &["iproute2", "iperf3", "curl"];
/// For tests alone: other people's clients.
const TEST_PACKAGES: &[&str] = &["python3", "python3-venv", "ethtool", "etcd-server"];

const BPF_LINKER: &str = "target/tools/bin/bpf-linker";
const BPF_LINKER_VERSION: &str = "0.13.0";
const P4RUNTIME_SHELL: &str = "target/venv/bin/python3";
const P4RUNTIME_PACKAGES: &[&str] = &["p4runtime-shell==0.0.6"];

pub(crate) fn build_tools() -> Result<()> {
    toolchain()?;
    debian(BUILD_PACKAGES)?;
    bpf_linker()
}

pub(crate) fn lab_tools() -> Result<()> {
    debian(LAB_PACKAGES)
}

pub(crate) fn test_tools() -> Result<()> {
    debian(&[LAB_PACKAGES, TEST_PACKAGES].concat())?;
    p4runtime_shell()
}

/// `rust-toolchain.toml` names components and targets; rustup adds those it lacks.
fn toolchain() -> Result<()> {
    let installed = |what| -> Result<String> {
        let output = Command::new("rustup")
            .args([what, "list", "--installed"])
            .output()
            .context("start rustup: install it from https://rustup.rs")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let components = installed("component")?;
    let targets = installed("target")?;
    let complete = ["rust-src", "rustfmt", "clippy"].iter().all(|part| components.contains(part))
        && targets.contains("wasm32-unknown-unknown");
    if complete {
        return Ok(());
    }
    say("the components and targets that rust-toolchain.toml names");
    succeed(
        "rustup toolchain install",
        Command::new("rustup").args(["toolchain", "install"]).status(),
    )
}

fn debian(packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|name| !is_installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    say(&format!("Debian packages: {}", missing.join(" ")));
    run::as_root("apt-get", &["update", "-q"])?;
    let install = ["install", "-y", "-q", "--no-install-recommends"];
    run::as_root("apt-get", &[&install[..], &missing].concat())
        .context("these packages are in Debian 12 with its security archive")
}

fn is_installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}

/// Built against the LLVM of the pinned rustc, so that it reads that compiler's bitcode.
fn bpf_linker() -> Result<()> {
    let version = Command::new(BPF_LINKER).arg("--version").output();
    if version
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(BPF_LINKER_VERSION))
    {
        return Ok(());
    }
    say(&format!("bpf-linker {BPF_LINKER_VERSION} under target/tools (about two minutes)"));
    let mut install = Command::new("cargo");
    install
        .args(["install", "bpf-linker", "--locked", "--root", "target/tools"])
        .args(["--version", BPF_LINKER_VERSION, "--no-default-features", "--features", "llvm-22"])
        .env("LLVM_PREFIX", "/usr/lib/llvm-22")
        .env("LLVM_SYS_221_PREFIX", "/usr/lib/llvm-22")
        .env("CARGO_TARGET_DIR", "target/tools/build");
    succeed("cargo install bpf-linker", install.status())
}

fn p4runtime_shell() -> Result<()> {
    let works = |python: &Path| {
        Command::new(python)
            .args(["-c", "import p4runtime_sh.shell"])
            .output()
            .is_ok_and(|output| output.status.success())
    };
    let python = Path::new(P4RUNTIME_SHELL);
    if works(python) {
        return Ok(());
    }
    say(&format!("{} in a Python environment under target/venv", P4RUNTIME_PACKAGES.join(", ")));
    let venv = ["-m", "venv", "--clear", "target/venv"];
    succeed("python3 -m venv", Command::new("/usr/bin/python3").args(venv).status())?;
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--quiet"]).args(P4RUNTIME_PACKAGES);
    succeed("pip install", pip.status())?;
    if !works(python) {
        bail!(
            "p4runtime-shell was installed but does not import; remove target/venv and try again"
        );
    }
    Ok(())
}

fn say(what: &str) {
    eprintln!("==> installing {what}");
}
