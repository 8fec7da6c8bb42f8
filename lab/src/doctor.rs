//! What this machine lacks for switches, labs and building, with the fix for each.
//!
//! What can be tried is tried, in a namespace of its own that goes afterwards: an option of the
//! kernel's says less than a qdisc that was added. The kernel's configuration is read only to
//! explain, and where trying needs more rights than the caller has.

use std::fmt;
use std::path::Path;

use crate::run::effective_capabilities;

mod build;
mod kernel;
mod probe;

pub use build::toolchain;
pub use probe::Bench;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub group: Group,
    pub what: String,
    pub found: Found,
    /// Nothing works without it; otherwise only what `what` names.
    pub needed: bool,
    /// What to do where it is missing.
    pub fix: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    Kernel,
    Rights,
    Tools,
    Building,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// With a detail such as a version, or nothing.
    Present(String),
    Missing(String),
    /// Could not be looked at, and why.
    Unknown(String),
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Rights => "rights",
            Self::Tools => "tools",
            Self::Building => "building",
        })
    }
}

impl Check {
    pub fn new(
        group: Group,
        what: impl Into<String>,
        found: Found,
        needed: bool,
        fix: impl Into<String>,
    ) -> Self {
        Self { group, what: what.into(), found, needed, fix: fix.into() }
    }

    /// Needed, and missing.
    pub fn fails(&self) -> bool {
        self.needed && matches!(self.found, Found::Missing(_))
    }
}

impl Found {
    pub fn yes(yes: bool, missing: &str) -> Self {
        if yes { Self::Present(String::new()) } else { Self::Missing(missing.to_owned()) }
    }
}

/// Kernel, rights and tools; what a kernel can do for wires is tried where the rights suffice.
pub fn machine() -> Vec<Check> {
    let mut checks = kernel::checks();
    checks.extend(rights());
    checks.extend(probe::checks());
    checks.extend(tools());
    checks.sort_by_key(|check| check.group);
    checks
}

/// (name, bit, what for), by capabilities(7).
const CAPABILITIES: [(&str, u32, &str); 5] = [
    ("CAP_NET_ADMIN", 12, "interfaces, XDP"),
    ("CAP_NET_RAW", 13, "neighbor discovery, capture"),
    ("CAP_SYS_ADMIN", 21, "namespaces, mounts"),
    ("CAP_PERFMON", 38, "eBPF programs that walk packets"),
    ("CAP_BPF", 39, "eBPF programs and maps"),
];

fn rights() -> Vec<Check> {
    let held = effective_capabilities(Path::new("/proc/thread-self/status"));
    let check = |(name, bit, what): (&str, u32, &str)| {
        let found = match held {
            Some(held) => Found::yes(held >> bit & 1 == 1, "not held"),
            None => Found::Unknown("/proc is not mounted".to_owned()),
        };
        let what = format!("{name} ({what})");
        Check::new(Group::Rights, what, found, true, "run it with sudo")
    };
    CAPABILITIES.into_iter().map(check).collect()
}

/// (program, what for, Debian package). None is needed to run a switch or a lab.
const TOOLS: [(&str, &str, &str); 5] = [
    ("iperf3", "selvedge lab iperf", "iperf3"),
    ("tc", "looking at wires by hand", "iproute2"),
    ("ip", "looking at namespaces by hand; tests", "iproute2"),
    ("tcpdump", "reading captures by hand", "tcpdump"),
    ("ethtool", "tests", "ethtool"),
];

fn tools() -> Vec<Check> {
    let check = |(program, what, package): (&str, &str, &str)| {
        let found = match in_path(program) {
            Some(path) => Found::Present(path),
            None => Found::Missing("not in PATH".to_owned()),
        };
        let fix = format!("apt-get install {package}");
        Check::new(Group::Tools, format!("{program} ({what})"), found, false, fix)
    };
    TOOLS.into_iter().map(check).collect()
}

/// Where a program is, in `PATH` and where root's are.
fn in_path(program: &str) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = dirs.map(|dir| dir.join(program)).find(|file| file.is_file());
    found.map(|file| file.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_and_missing_fails() {
        let check = |found, needed| Check::new(Group::Tools, "x", found, needed, "y").fails();
        assert!(check(Found::Missing(String::new()), true));
        assert!(!check(Found::Missing(String::new()), false));
        assert!(!check(Found::Unknown(String::new()), true));
        assert!(!check(Found::Present(String::new()), true));
    }

    #[test]
    fn this_machine_is_looked_at() {
        let checks = machine();
        for group in [Group::Kernel, Group::Rights, Group::Tools] {
            assert!(checks.iter().any(|check| check.group == group), "{group}");
        }
        assert!(checks.iter().all(|check| !check.fix.is_empty()));
    }
}
