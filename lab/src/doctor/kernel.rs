//! The kernel: version, options, what it shows of itself.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::net::{AddressFamily, SocketType, socket};

use super::{Check, Found, Group};
use crate::up::is_bpffs;

/// BPF instruction set v3, links on XDP, `PROG_TEST_RUN` with live frames, and what Debian 12
/// has. Tried with 6.18.
const OLDEST: (u32, u32) = (6, 1);

/// (option, what for, needed). Any of `y` and `m` will do.
const OPTIONS: [(&str, &str, bool); 17] = [
    ("BPF_SYSCALL", "eBPF", true),
    ("BPF_JIT", "eBPF at full speed", true),
    ("XDP_SOCKETS", "compute hooks", true),
    ("DEBUG_INFO_BTF", "eBPF with types", true),
    ("NET_NS", "labs", true),
    ("VETH", "links of labs", true),
    ("BRIDGE", "management network of labs", true),
    ("PACKET", "neighbor discovery", true),
    ("IPV6", "segment routing", true),
    ("ETHTOOL_NETLINK", "offloads of ports", true),
    ("NET_CLS_ACT", "wires of labs", true),
    ("NET_SCH_INGRESS", "wires of labs (clsact)", true),
    ("NET_CLS_U32", "wires of labs", true),
    ("NET_ACT_MIRRED", "wires of labs", true),
    ("NET_SCH_TBF", "wires of labs with a rate", true),
    ("IPV6_SEG6_LWTUNNEL", "tests against the kernel's own SRv6", false),
    ("NET_SCH_HTB", "shaped classes on ports", false),
];

pub(super) fn checks() -> Vec<Check> {
    let mut checks = vec![version(), btf(), bpffs(), jit(), xdp_socket()];
    checks.extend(options());
    checks
}

fn version() -> Check {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let number = parse(release);
    let (major, minor) = OLDEST;
    let found = match number {
        Some(number) if number >= OLDEST => Found::Present(release.to_owned()),
        Some(_) => Found::Missing(release.to_owned()),
        None => Found::Unknown(format!("{release:?} is no version")),
    };
    let what = format!("Linux {major}.{minor} or newer");
    Check::new(Group::Kernel, what, found, true, "boot a newer kernel (Debian 12 has 6.1)")
}

/// `6.18.44-something` as (6, 18).
fn parse(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-', '+']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn btf() -> Check {
    let found = Found::yes(Path::new("/sys/kernel/btf/vmlinux").exists(), "no /sys/kernel/btf");
    let fix = "a kernel with CONFIG_DEBUG_INFO_BTF, and sysfs mounted";
    Check::new(Group::Kernel, "BTF of the kernel", found, true, fix)
}

fn bpffs() -> Check {
    let found = Found::yes(is_bpffs(Path::new("/sys/fs/bpf")), "not mounted");
    let fix = "mount -t bpf bpf /sys/fs/bpf (`selvedge lab up` does it itself)";
    Check::new(Group::Kernel, "bpffs at /sys/fs/bpf", found, true, fix)
}

fn jit() -> Check {
    let found = match fs::read_to_string("/proc/sys/net/core/bpf_jit_enable") {
        Ok(value) => Found::yes(value.trim() != "0", "switched off"),
        Err(error) => Found::Unknown(error.to_string()),
    };
    let fix = "sysctl -w net.core.bpf_jit_enable=1";
    Check::new(Group::Kernel, "eBPF compiled to machine code", found, false, fix)
}

fn xdp_socket() -> Check {
    let found = match socket(AddressFamily::XDP, SocketType::RAW, None) {
        Ok(_) => Found::Present(String::new()),
        Err(error) if error == rustix::io::Errno::PERM => Found::Unknown("needs root".to_owned()),
        Err(error) => Found::Missing(error.to_string()),
    };
    let fix = "a kernel with CONFIG_XDP_SOCKETS";
    Check::new(Group::Kernel, "AF_XDP sockets (compute hooks)", found, true, fix)
}

fn options() -> Vec<Check> {
    let config = config();
    let check = |(option, what, needed): (&str, &str, bool)| {
        let found = match &config {
            Ok(config) => {
                let set = |value| config.lines().any(|l| l == format!("CONFIG_{option}={value}"));
                match (set("y"), set("m")) {
                    (true, _) => Found::Present(String::new()),
                    (_, true) => Found::Present("as a module".to_owned()),
                    _ => Found::Missing("not set".to_owned()),
                }
            }
            Err(why) => Found::Unknown(why.clone()),
        };
        let fix = format!("a kernel with CONFIG_{option}");
        Check::new(Group::Kernel, format!("CONFIG_{option} ({what})"), found, needed, fix)
    };
    OPTIONS.into_iter().map(check).collect()
}

/// The configuration of the running kernel, from where distributions and kernels keep it.
fn config() -> Result<String, String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    for file in [format!("/boot/config-{release}"), format!("/lib/modules/{release}/config")] {
        if let Ok(text) = fs::read_to_string(file) {
            return Ok(text);
        }
    }
    let packed = Path::new("/proc/config.gz");
    if !packed.exists() {
        return Err("the kernel's configuration is nowhere to be read".to_owned());
    }
    let unpacked = Command::new("gzip").arg("-dc").arg(packed).output();
    match unpacked {
        Ok(output) if output.status.success() => {
            String::from_utf8(output.stdout).map_err(|error| error.to_string())
        }
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("gzip: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let cases = [
            ("6.18.44-fc-v595", Some((6, 18))),
            ("6.1.0-28-amd64", Some((6, 1))),
            ("5.15", Some((5, 15))),
            ("6", None),
            ("", None),
        ];
        for (release, want) in cases {
            assert_eq!(parse(release), want, "{release:?}");
        }
    }
}
