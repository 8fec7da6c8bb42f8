//! What a fresh Debian 12 machine with rustup and git lacks. Each part looks first, says what
//! it will install, and is quick when there is nothing to do.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{run, succeed};

/// For building: the compiler's own parts, LLVM for the BPF linker, the linker itself.
const BUILD_PACKAGES: &[&str] =
    &["gcc", "g++", "libc6-dev", "llvm-22-dev", "libpolly-22-dev", "libzstd-dev", "zlib1g-dev"];
/// For labs and the demo: `ip`, the traffic generator behind `lab iperf`, a MEC client.
const LAB_PACKAGES: &[&str] = &["iproute2", "iperf3", "curl"];
/// For tests alone: other people's clients and servers.
const TEST_PACKAGES: &[&str] = &[
    "python3",
    "python3-venv",
    "python3-dev",
    "dnsmasq-base",
    "isc-dhcp-client",
    "ethtool",
    "iputils-ping",
    "etcd-server",
    "prometheus",
    "tshark",
];

const BPF_LINKER: &str = "target/tools/bin/bpf-linker";
const BPF_LINKER_VERSION: &str = "0.13.0";
const CARGO_DENY: &str = "target/tools/bin/cargo-deny";
const CARGO_DENY_VERSION: &str = "0.20.2";
pub(crate) const CARGO_FUZZ: &str = "target/tools/bin/cargo-fuzz";
const CARGO_FUZZ_VERSION: &str = "0.13.2";
const PYTHON: &str = "target/venv/bin/python3";
const P4RUNTIME_PACKAGES: &[&str] = &["p4runtime-shell==0.0.6", "ptf==0.12.0"];
/// What the benches `admission`, `paths`, `placement` and `te` compare with.
const BASELINE_PACKAGES: &[&str] =
    &["highspy==1.12.0", "igraph==0.11.8", "networkx==3.4.2", "numpy==2.4.6", "rustworkx==0.16.0"];

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
    cargo_deny()?;
    p4runtime_shell()
}

/// A C++ compiler for libFuzzer, and what starts it.
pub(crate) fn fuzz_tools() -> Result<()> {
    toolchain()?;
    debian(&["gcc", "g++", "libc6-dev"])?;
    if prints_version(CARGO_FUZZ, CARGO_FUZZ_VERSION) {
        return Ok(());
    }
    say(&format!("cargo-fuzz {CARGO_FUZZ_VERSION} under target/tools (about a minute)"));
    let mut install = cargo_install("cargo-fuzz", CARGO_FUZZ_VERSION);
    install.arg("--debug").env("CARGO_PROFILE_DEV_DEBUG", "0");
    succeed("cargo install cargo-fuzz", install.status())
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
    if prints_version(BPF_LINKER, BPF_LINKER_VERSION) {
        return Ok(());
    }
    say(&format!("bpf-linker {BPF_LINKER_VERSION} under target/tools (about two minutes)"));
    let mut install = cargo_install("bpf-linker", BPF_LINKER_VERSION);
    install
        .args(["--no-default-features", "--features", "llvm-22"])
        .env("LLVM_PREFIX", "/usr/lib/llvm-22")
        .env("LLVM_SYS_221_PREFIX", "/usr/lib/llvm-22");
    succeed("cargo install bpf-linker", install.status())
}

/// Unoptimised: it runs for a second, and would take four times as long to build.
fn cargo_deny() -> Result<()> {
    if prints_version(CARGO_DENY, CARGO_DENY_VERSION) {
        return Ok(());
    }
    say(&format!("cargo-deny {CARGO_DENY_VERSION} under target/tools (about two minutes)"));
    let mut install = cargo_install("cargo-deny", CARGO_DENY_VERSION);
    install.args(["--debug", "--no-default-features"]).env("CARGO_PROFILE_DEV_DEBUG", "0");
    succeed("cargo install cargo-deny", install.status())
}

fn prints_version(program: &str, version: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .output()
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(version))
}

fn cargo_install(name: &str, version: &str) -> Command {
    let mut install = Command::new("cargo");
    install
        .args(["install", name, "--locked", "--root", "target/tools", "--version", version])
        .env("CARGO_TARGET_DIR", "target/tools/build");
    install
}

fn p4runtime_shell() -> Result<()> {
    python("import p4runtime_sh.shell, ptf.testutils", P4RUNTIME_PACKAGES)
}

/// What a bench compares with.
pub(crate) fn bench_tools(name: &str) -> Result<()> {
    if matches!(name, "admission" | "paths" | "placement" | "te") {
        debian(&["python3", "python3-venv"])?;
        python("import highspy, igraph, networkx, numpy, rustworkx", BASELINE_PACKAGES)?;
    }
    Ok(())
}

/// Packages in the one Python environment, which is made if it is not there.
fn python(proof: &str, packages: &[&str]) -> Result<()> {
    let starts = |program: &str| {
        Command::new(PYTHON)
            .args(["-c", program])
            .output()
            .is_ok_and(|output| output.status.success())
    };
    if starts(proof) {
        return Ok(());
    }
    say(&format!("{} in a Python environment under target/venv", packages.join(", ")));
    if !starts("import pip") {
        let venv = ["-m", "venv", "--clear", "target/venv"];
        succeed("python3 -m venv", Command::new("/usr/bin/python3").args(venv).status())?;
    }
    let mut pip = Command::new(PYTHON);
    pip.args(["-m", "pip", "install", "--quiet"]).args(packages);
    succeed("pip install", pip.status())?;
    if !starts(proof) {
        bail!("{packages:?} were installed but do not work; remove target/venv and try again");
    }
    Ok(())
}

fn say(what: &str) {
    eprintln!("==> installing {what}");
}
