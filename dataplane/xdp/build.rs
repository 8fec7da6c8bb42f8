//! Builds ebpf/programs for the BPF target and leaves the object for `include_bytes`.
//!
//! A cargo call of its own, because target, standard library, linker and flags are all
//! different; its target directory is `target/bpf` beside ours, so that it is built once for
//! all profiles. Nightly features (`-Zbuild-std`, BPF intrinsics) are allowed in it alone.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

const TARGET: &str = "bpfel-unknown-none";
const LINKER: &str = "bpf-linker";

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let root = manifest.ancestors().nth(2).expect("this package is dataplane/xdp").to_owned();
    for input in ["ebpf/common", "ebpf/parse", "ebpf/programs"] {
        for part in ["src", "Cargo.toml"] {
            // From this package, so that a copied target directory asks for its own sources.
            println!("cargo::rerun-if-changed=../../{input}/{part}");
        }
    }
    println!("cargo::rerun-if-changed=build.rs");
    let Some(linker) = find_linker(&root) else {
        fail(&format!(
            "{LINKER} is neither in {} nor on PATH; run: cargo xtask setup",
            root.join("target/tools/bin").display()
        ));
    };
    println!("cargo::rerun-if-changed={}", linker.display());
    println!("cargo::rerun-if-env-changed=PATH");

    let target_dir = root.join("target/bpf");
    let flags = [
        &format!("-Clinker={}", linker.display()),
        "-Ctarget-cpu=v3",
        "-Ctarget-feature=+allows-misaligned-mem-access",
        "-Clink-arg=--btf",
        "-Cdebuginfo=2",
    ];
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets it"));
    cargo
        .args(["build", "--quiet", "--release", "-Zbuild-std=core", "--target", TARGET])
        .arg("--manifest-path")
        .arg(root.join("ebpf/programs/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target_dir)
        .current_dir(&root);
    // What the outer cargo says about its own target and wrappers is not meant for this one.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_") && !keep(&text)
            || ["RUSTFLAGS", "RUSTC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTDOC"]
                .contains(&&*text)
        {
            cargo.env_remove(&name);
        }
    }
    cargo
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3");
    match cargo.status() {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("building ebpf/programs for {TARGET} failed ({status})")),
        Err(error) => fail(&format!("cannot start cargo for ebpf/programs: {error}")),
    }

    let object = target_dir.join(TARGET).join("release/selvedge-ebpf");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    if let Err(error) = fs::copy(&object, out.join("selvedge-ebpf.o")) {
        fail(&format!("cannot copy {}: {error}", object.display()));
    }
}

/// Where registries, caches and networks are, which the outer cargo knows best.
fn keep(name: &str) -> bool {
    ["CARGO_HOME", "CARGO_TERM_COLOR"].contains(&name)
        || ["CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR", "CARGO_SOURCE_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

fn find_linker(root: &Path) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = std::iter::once(root.join("target/tools/bin")).chain(env::split_paths(&path));
    dirs.map(|dir| dir.join(LINKER)).find(|file| file.is_file())
}

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    exit(1);
}
