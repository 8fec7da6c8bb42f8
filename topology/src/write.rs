//! A topology as Selvedge YAML, which reads back as the same.

use std::fmt::Write as _;

use crate::{Bytes, Compute, Link, Node, Topology};

/// Words that other YAML readers take for something else than a text.
const NOT_TEXT: [&str; 9] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];

/// A name as a key or value.
fn plain(name: &str) -> String {
    let text = name.starts_with(|c: char| c.is_ascii_alphabetic()) && !NOT_TEXT.contains(&name);
    if text { name.to_owned() } else { quoted(name) }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                write!(out, "\\U{:08x}", u32::from(c)).expect("strings take all");
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

impl Topology {
    pub fn to_yaml(&self) -> String {
        let mut lines = vec![format!("name: {}", plain(self.name.as_str())), "topology:".into()];
        lines.push(if self.nodes.is_empty() { "  nodes: {}" } else { "  nodes:" }.into());
        for (name, node) in &self.nodes {
            lines.push(format!("    {}: {{ {} }}", plain(name.as_str()), node_yaml(node)));
        }
        lines.push(if self.links.is_empty() { "  links: []" } else { "  links:" }.into());
        lines.extend(self.links.iter().map(|link| format!("    - {{ {} }}", link_yaml(link))));
        lines.join("\n") + "\n"
    }
}

fn node_yaml(node: &Node) -> String {
    let mut keys = Vec::new();
    match node {
        Node::Switch(switch) => {
            keys.push("kind: switch".to_owned());
            keys.extend(switch.role.map(|role| format!("role: {}", role.as_str())));
            keys.extend(switch.site.as_ref().map(|site| format!("site: {}", quoted(site))));
            keys.extend(switch.position.map(|p| {
                format!("position: [{}, {}]", p.latitude_degrees(), p.longitude_degrees())
            }));
            keys.extend(switch.compute.as_ref().map(compute_yaml));
        }
        Node::Host(host) => {
            keys.push("kind: host".to_owned());
            keys.extend(host.ipv4.map(|net| format!("ipv4: {net}")));
            keys.extend(host.ipv6.map(|net| format!("ipv6: \"{net}\"")));
            keys.extend(host.mac.map(|mac| {
                let bytes = mac.map(|byte| format!("{byte:02x}"));
                format!("mac: {}", quoted(&bytes.join(":")))
            }));
        }
    }
    keys.join(", ")
}

fn compute_yaml(compute: &Compute) -> String {
    let memory = Bytes(compute.memory_bytes);
    let mut keys = vec![format!("cpu: {}, memory: {memory}", compute.cpu)];
    keys.extend(
        compute.architecture.as_ref().map(|name| format!("architecture: {}", quoted(name))),
    );
    if !compute.accelerators.is_empty() {
        let kinds = compute.accelerators.iter();
        let kinds: Vec<String> =
            kinds.map(|(kind, count)| format!("{}: {count}", quoted(kind))).collect();
        keys.push(format!("accelerators: {{ {} }}", kinds.join(", ")));
    }
    keys.extend(compute.energy.map(|energy| format!("energy: {energy}")));
    format!("compute: {{ {} }}", keys.join(", "))
}

fn link_yaml(link: &Link) -> String {
    let mut keys = vec![format!("endpoints: [\"{}\", \"{}\"]", link.a, link.b)];
    keys.extend(link.capacity.map(|capacity| format!("capacity: {capacity}")));
    keys.extend(link.delay.map(|delay| format!("delay: {delay}")));
    keys.extend(link.cost.map(|cost| format!("cost: {cost}")));
    if !link.srlg.is_empty() {
        let groups: Vec<String> = link.srlg.iter().map(u32::to_string).collect();
        keys.push(format!("srlg: [{}]", groups.join(", ")));
    }
    if !link.affinity.is_empty() {
        let groups: Vec<String> = link.affinity.iter().map(|group| plain(group.as_str())).collect();
        keys.push(format!("affinity: [{}]", groups.join(", ")));
    }
    keys.extend(link.loss.map(|loss| format!("loss: {loss}")));
    let shaped: Vec<_> = link.shaped.names().collect();
    if !shaped.is_empty() {
        keys.push(format!("shaped: [{}]", shaped.join(", ")));
    }
    keys.join(", ")
}
