//! Labs for tests: namespaces and links only, with the kernel's own forwarding as the switch.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::path::PathBuf;

use selvedge_lab::{Control, Guard, Lab, Options, Source};
use selvedge_topology::{Format, read};

/// A name that no other test run has.
pub(crate) fn unique(name: &str) -> String {
    format!("t{}-{name}", std::process::id())
}

/// The `selvedge` binary beside the test's own; only relayed wires need it here.
pub(crate) fn binary() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().unwrap().parent().unwrap().join("selvedge")
}

pub(crate) fn options(name: &str, nodes_and_links: &str) -> Options {
    let text = format!("name: {}\ntopology:\n{nodes_and_links}", unique(name));
    let read = read::from_str("test.yaml", &text, Format::Selvedge)
        .unwrap_or_else(|problems| panic!("{problems:?}\n{text}"));
    Options { control: Control::Cables, ..Options::new(Source::from(read.topology), binary()) }
}

pub(crate) fn up(name: &str, nodes_and_links: &str) -> Guard {
    Lab::up(options(name, nodes_and_links)).unwrap_or_else(|e| panic!("{e:?}")).guard()
}

/// Runs `ip` or another tool in a node's namespace; it must succeed.
pub(crate) fn tool(lab: &Lab, node: &str, command: &str) -> String {
    let words: Vec<_> = command.split_whitespace().collect();
    let output = lab.output(node, &words).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{node}: {command}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Has a switch's namespace route for its hosts (port, IPv4, IPv6), as their gateway.
pub(crate) fn route_in(lab: &Lab, switch: &str, hosts: &[(&str, &str, &str)]) {
    let set = |file: &str, value: &str| {
        lab.run(switch, || std::fs::write(format!("/proc/sys/net/{file}"), value)).unwrap();
    };
    set("ipv4/ip_forward", "1");
    set("ipv6/conf/all/disable_ipv6", "0");
    set("ipv6/conf/all/forwarding", "1");
    for (port, ipv4, ipv6) in hosts {
        set(&format!("ipv6/conf/{port}/accept_dad"), "0");
        tool(lab, switch, &format!("ip address add 169.254.1.1/32 dev {port}"));
        tool(lab, switch, &format!("ip address add fe80::1/64 dev {port} nodad"));
        tool(lab, switch, &format!("ip route add {ipv4}/32 dev {port}"));
        tool(lab, switch, &format!("ip route add {ipv6}/128 dev {port}"));
    }
}

/// Two hosts on one switch, the second behind `figures`.
pub(crate) fn pair(figures: &str) -> String {
    format!(
        "  nodes:
    s: {{ kind: switch }}
    a: {{ kind: host, ipv4: 10.0.0.1/32, ipv6: fd10::1/128 }}
    b: {{ kind: host, ipv4: 10.0.0.2/32, ipv6: fd10::2/128 }}
  links:
    - {{ endpoints: ['s:p1', 'a:eth0'] }}
    - {{ endpoints: ['s:p2', 'b:eth0']{figures} }}
"
    )
}

pub(crate) fn route_pair(lab: &Lab) {
    route_in(lab, "s", &[("p1", "10.0.0.1", "fd10::1"), ("p2", "10.0.0.2", "fd10::2")]);
}
