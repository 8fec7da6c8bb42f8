//! Selvedge YAML (DESIGN §11): containerlab's shape, plus what routing needs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Read, assumption};
use crate::limits::{
    MAX_ACCELERATOR_COUNT, MAX_ACCELERATORS, MAX_AFFINITIES, MAX_CAPACITY_BPS, MAX_COST,
    MAX_DELAY_US, MAX_ENERGY_MW, MAX_LINKS, MAX_NODES, MAX_PORTS, MAX_SRLGS, MAX_TEXT,
    MIN_CAPACITY_BPS,
};
use crate::yaml::{self, Decoder, Fields, Value, Wrong, word};
use crate::{
    BitRate, Bytes, Compute, Delay, End, Host, Link, Loss, Node, NodeName, PortName, Position,
    Power, Problem, Role, Shaped, Switch, Topology,
};

pub(super) fn read(text: &str) -> Result<Read, Vec<Problem>> {
    let documents = yaml::documents(text);
    let mut reader = Reader { d: Decoder { problems: documents.problems }, ..Reader::default() };
    let topology = match documents.values.as_slice() {
        [] => {
            if reader.d.problems.is_empty() {
                reader.d.problem(Problem::new(0..0, "there is no topology in this file"));
            }
            None
        }
        [document] => reader.topology(document),
        [_, second, ..] => {
            let span = second.span.start..second.span.end.min(second.span.start + 40);
            let problem = Problem::new(span, "a topology is one YAML document");
            reader.d.problem(problem.label("a second one begins here"));
            None
        }
    };
    match topology {
        Some(topology) if reader.d.problems.is_empty() => {
            let assumptions = assumption::of_topology(&topology);
            Ok(Read { topology, assumptions })
        }
        _ => Err(reader.d.problems),
    }
}

#[derive(Default)]
struct Reader {
    d: Decoder,
    /// Every name under `nodes`, also of nodes that are wrong otherwise, so that a problem of a
    /// node does not bring one for each of its links.
    names: BTreeSet<String>,
    hosts: BTreeSet<String>,
    ports: HashMap<End, Range<usize>>,
    port_count: HashMap<NodeName, usize>,
    /// The link of each host.
    host_links: HashMap<NodeName, Range<usize>>,
    prefixes: Vec<(IpNet, NodeName, Range<usize>)>,
    macs: HashMap<[u8; 6], Range<usize>>,
    affinities: BTreeSet<NodeName>,
}

impl Reader {
    fn topology(&mut self, document: &Value) -> Option<Topology> {
        let mut top = self.d.fields(document, "a topology file")?;
        let name = top.required(&mut self.d, "name");
        let name = name.and_then(|value| self.d.parse(value, "the network's name"));
        let body = top.required(&mut self.d, "topology");
        for outside in ["nodes", "links"] {
            top.deny(outside, "it belongs under \"topology\"");
        }
        top.finish(&mut self.d);
        let mut body = self.d.fields(body?, "the topology")?;
        let nodes = body.required(&mut self.d, "nodes");
        let links = body.optional("links");
        body.finish(&mut self.d);
        let nodes = nodes.map(|value| self.nodes(value)).unwrap_or_default();
        let links = links.map(|value| self.links(value)).unwrap_or_default();
        self.overlaps();
        Some(Topology { name: name?, nodes, links })
    }

    fn nodes(&mut self, value: &Value) -> BTreeMap<NodeName, Node> {
        let entries = self.d.entries(value, "nodes");
        if entries.len() > MAX_NODES {
            let at = entries[MAX_NODES].0.span.clone();
            let message = format!("{} nodes: at most {MAX_NODES} have a segment id", entries.len());
            self.d.problem(Problem::new(at, message).label("one too many"));
        }
        let mut nodes = BTreeMap::new();
        for (key, value) in entries {
            self.names.insert(key.text.clone());
            let name = NodeName::from_str(&key.text).map_err(Wrong::from);
            if let Err(Wrong { message, help }) = &name {
                let problem = Problem::new(key.span.clone(), message).label("a node's name");
                self.d.problem(Problem { help: help.clone(), ..problem });
            }
            let node = self.node(&key.text, name.as_ref().ok(), value);
            if let (Ok(name), Some(node)) = (name, node) {
                nodes.insert(name, node);
            }
        }
        nodes
    }

    fn node(&mut self, written: &str, name: Option<&NodeName>, value: &Value) -> Option<Node> {
        let mut fields = self.d.fields(value, "a node")?;
        let kind = fields.required(&mut self.d, "kind")?;
        let kinds = [("switch", false), ("host", true)];
        if self.d.choice(kind, "a kind of node", &kinds)? {
            self.hosts.insert(written.to_owned());
            Some(Node::Host(self.host(name, fields)))
        } else {
            Some(Node::Switch(self.switch(fields)))
        }
    }

    fn switch(&mut self, mut fields: Fields<'_>) -> Switch {
        let roles = Role::ALL.map(|role| (role.as_str(), role));
        let role = fields.optional("role").and_then(|v| self.d.choice(v, "a role", &roles));
        let site = fields.optional("site").and_then(|value| {
            let text = self.d.text(value, "a site")?;
            if text.is_empty() || text.len() > MAX_TEXT || text.contains(char::is_control) {
                let message = format!("a site is 1 to {MAX_TEXT} bytes of text on one line");
                self.d.problem(Problem::new(value.span.clone(), message));
            }
            Some(text.to_owned())
        });
        let position = fields.optional("position").and_then(|value| self.position(value));
        let compute = fields.optional("compute").and_then(|value| self.compute(value));
        for host in ["ipv4", "ipv6", "mac"] {
            fields.deny(host, "only a host has addresses");
        }
        fields.finish(&mut self.d);
        Switch { role, site, position, compute }
    }

    fn position(&mut self, value: &Value) -> Option<Position> {
        let items = self.d.items(value, "a position");
        if items.len() != 2 {
            let problem = Problem::new(value.span.clone(), "a position is [latitude, longitude]");
            self.d.problem(problem.help("in degrees, such as [49.61, 6.13]"));
            return None;
        }
        let mut degrees = |at: usize, what: &'static str, limit: f64| {
            self.d.parse_with(&items[at], what, |text| {
                let number = text.parse::<f64>().ok().filter(|n| n.abs() <= limit);
                number.ok_or_else(|| {
                    Wrong::new(format!("{text:?} is not degrees from -{limit} to {limit}"))
                })
            })
        };
        let latitude = degrees(0, "the latitude", 90.0);
        let longitude = degrees(1, "the longitude", 180.0);
        Position::from_degrees(latitude?, longitude?)
    }

    fn compute(&mut self, value: &Value) -> Option<Compute> {
        let mut fields = self.d.fields(value, "compute")?;
        let cpu = fields.required(&mut self.d, "cpu");
        let cpu = cpu.and_then(|v| self.d.integer(v, "processors", 1..=4096));
        let memory = fields.required(&mut self.d, "memory");
        let range = Bytes(1 << 20)..=Bytes(1 << 50);
        let memory = memory.and_then(|v| self.d.parse_in(v, "memory", range));
        let architecture = fields.optional("architecture");
        let architecture = architecture.and_then(|v| self.d.parse_with(v, "an architecture", word));
        let accelerators = fields.optional("accelerators").map(|value| self.accelerators(value));
        let energy = fields.optional("energy").and_then(|value| {
            self.d.parse_in(value, "a processor's power", Power(0)..=Power(MAX_ENERGY_MW))
        });
        fields.finish(&mut self.d);
        let cpu = u32::try_from(cpu?).expect("bounded above");
        let accelerators = accelerators.unwrap_or_default();
        Some(Compute { cpu, memory_bytes: memory?.0, architecture, accelerators, energy })
    }

    fn accelerators(&mut self, value: &Value) -> BTreeMap<String, u32> {
        let entries = self.d.entries(value, "accelerators");
        if entries.len() > MAX_ACCELERATORS {
            let message = format!("a node has at most {MAX_ACCELERATORS} kinds of accelerators");
            self.d.problem(Problem::new(entries[MAX_ACCELERATORS].0.span.clone(), message));
        }
        let mut accelerators = BTreeMap::new();
        for (key, value) in entries {
            if let Err(wrong) = word(&key.text) {
                self.d.problem(Problem::new(key.span.clone(), wrong.message));
            }
            let count =
                self.d.integer(value, "a number of accelerators", 1..=MAX_ACCELERATOR_COUNT);
            let count = count.map(|count| u32::try_from(count).expect("bounded above"));
            accelerators.extend(count.map(|count| (key.text.clone(), count)));
        }
        accelerators
    }

    fn host(&mut self, name: Option<&NodeName>, mut fields: Fields<'_>) -> Host {
        let ipv4 = fields.optional("ipv4").and_then(|value| {
            let net: Ipv4Net = self.d.parse_with(value, "an IPv4 address", prefix)?;
            self.prefix(net.into(), name, value);
            Some(net)
        });
        let ipv6 = fields.optional("ipv6").and_then(|value| {
            let net: Ipv6Net = self.d.parse_with(value, "an IPv6 address", prefix)?;
            self.prefix(net.into(), name, value);
            Some(net)
        });
        let mac = fields.optional("mac").and_then(|value| {
            let mac = self.d.parse_with(value, "a MAC address", mac)?;
            if let Some(first) = self.macs.insert(mac, value.span.clone()) {
                let problem = Problem::new(value.span.clone(), "two hosts have this MAC address");
                self.d.problem(problem.label("again here").also(first, "first here"));
            }
            Some(mac)
        });
        for switch in ["role", "site", "position", "compute"] {
            fields.deny(switch, "only a switch has one");
        }
        if fields.optional("ipv4").or(fields.optional("ipv6")).is_none() {
            let span = fields.span.start..fields.span.end.min(fields.span.start + 40);
            let problem = Problem::new(span, "a host has an ipv4 or ipv6 address, or both");
            self.d.problem(problem.help("such as ipv4: 10.1.0.11/32"));
        }
        fields.finish(&mut self.d);
        Host { ipv4, ipv6, mac }
    }

    fn prefix(&mut self, net: IpNet, name: Option<&NodeName>, value: &Value) {
        let span = value.span.clone();
        if let Some((_, why)) = not_for_hosts().into_iter().find(|(taken, _)| overlap(*taken, net))
        {
            let message = format!("{net} is not an address that a host can have");
            self.d.problem(Problem::new(span, message).label(why));
        } else if let Some(name) = name {
            self.prefixes.push((net, name.clone(), span));
        }
    }

    /// Two hosts that may send from one address could not be told apart.
    fn overlaps(&mut self) {
        // A prefix sorts directly before what lies within it, so the widest open one suffices.
        self.prefixes.sort_by_key(|(net, ..)| (net.network(), net.prefix_len()));
        let mut widest: Option<&(IpNet, NodeName, Range<usize>)> = None;
        for this in &self.prefixes {
            match widest {
                Some(other) if overlap(other.0, this.0) => {
                    // Point at the later of the two in the file.
                    let (first, second) =
                        if other.2.start < this.2.start { (other, this) } else { (this, other) };
                    let message = format!("{} overlaps {} of {}", second.0, first.0, first.1);
                    let problem = Problem::new(second.2.clone(), message).label("again here");
                    self.d.problem(problem.also(first.2.clone(), "first here"));
                }
                _ => widest = Some(this),
            }
        }
    }

    fn links(&mut self, value: &Value) -> Vec<Link> {
        let items = self.d.items(value, "links");
        if items.len() > MAX_LINKS {
            let message = format!("{} links: at most {MAX_LINKS} are allowed", items.len());
            self.d.problem(Problem::new(items[MAX_LINKS].span.clone(), message));
        }
        items.iter().filter_map(|item| self.link(item)).collect()
    }

    fn link(&mut self, value: &Value) -> Option<Link> {
        let mut fields = self.d.fields(value, "a link")?;
        let endpoints = fields.required(&mut self.d, "endpoints");
        let capacity = fields.optional("capacity").and_then(|value| {
            let range = BitRate(MIN_CAPACITY_BPS)..=BitRate(MAX_CAPACITY_BPS);
            self.d.parse_in(value, "a link's capacity", range)
        });
        let delay = fields.optional("delay").and_then(|value| {
            self.d.parse_in(value, "a link's delay", Delay(0)..=Delay(MAX_DELAY_US))
        });
        let cost = fields.optional("cost").and_then(|value| {
            let cost = self.d.integer(value, "a link's cost", 1..=u64::from(MAX_COST))?;
            u32::try_from(cost).ok()
        });
        let srlg = fields.optional("srlg").map(|value| self.srlg(value)).unwrap_or_default();
        let affinity =
            fields.optional("affinity").map(|value| self.affinity(value)).unwrap_or_default();
        let loss = fields.optional("loss").and_then(|v| self.d.parse::<Loss>(v, "a link's loss"));
        let shaped = fields.optional("shaped").map(|value| self.shaped(value)).unwrap_or_default();
        if let (Some((span, _)), None) = (&shaped, capacity) {
            let problem = Problem::new(span.clone(), "a link that shapes has to have a capacity");
            self.d.problem(problem);
        }
        fields.deny("bandwidth", "it is called \"capacity\"");
        fields.deny("latency", "it is called \"delay\"");
        fields.finish(&mut self.d);
        let (a, b) = self.ends(endpoints?)?;
        let shaped = shaped.map_or(Shaped::NONE, |(_, shaped)| shaped);
        Some(Link { a, b, capacity, delay, cost, srlg, affinity, loss, shaped })
    }

    fn shaped(&mut self, value: &Value) -> Option<(Range<usize>, Shaped)> {
        let mut shaped = Shaped::NONE;
        for item in self.d.items(value, "shaped") {
            let class = self.d.parse_with(item, "a class that is shaped", |text| match text {
                "guaranteed" | "urllc" => Ok(text == "urllc"),
                _ => Err(Wrong {
                    message: format!("{text:?} is not guaranteed or urllc"),
                    help: None,
                }),
            });
            match class {
                Some(true) => shaped.urllc = true,
                Some(false) => shaped.guaranteed = true,
                None => {}
            }
        }
        Some((value.span.clone(), shaped))
    }

    fn srlg(&mut self, value: &Value) -> Vec<u32> {
        let items = self.d.items(value, "srlg");
        if items.len() > MAX_SRLGS {
            let message = format!("a link is in at most {MAX_SRLGS} shared-risk groups");
            self.d.problem(Problem::new(value.span.clone(), message));
        }
        let mut groups: Vec<u32> = Vec::new();
        for item in items {
            let range = 0..=u64::from(u32::MAX);
            if let Some(group) = self.d.integer(item, "a shared-risk group", range) {
                let group = u32::try_from(group).expect("bounded above");
                if groups.contains(&group) {
                    let message = format!("shared-risk group {group} is here twice");
                    self.d.problem(Problem::new(item.span.clone(), message));
                } else {
                    groups.push(group);
                }
            }
        }
        groups
    }

    fn affinity(&mut self, value: &Value) -> Vec<NodeName> {
        let mut groups: Vec<NodeName> = Vec::new();
        for item in self.d.items(value, "affinity") {
            let group = self.d.parse_with(item, "an administrative group", |text| {
                text.parse::<NodeName>().map_err(|_| Wrong {
                    message: format!("{text:?} is not a group: 1 to 63 of a-z, 0-9 and '-'"),
                    help: NodeName::from_label(text).map(|near| format!("did you mean {near}?")),
                })
            });
            let Some(group) = group else { continue };
            if groups.contains(&group) {
                let message = format!("administrative group {group} is here twice");
                self.d.problem(Problem::new(item.span.clone(), message));
                continue;
            }
            if self.affinities.insert(group.clone()) && self.affinities.len() == MAX_AFFINITIES + 1
            {
                let message =
                    format!("a network has at most {MAX_AFFINITIES} administrative groups");
                self.d.problem(Problem::new(item.span.clone(), message).label("one too many"));
            }
            groups.push(group);
        }
        groups
    }

    fn ends(&mut self, value: &Value) -> Option<(End, End)> {
        let items = self.d.items(value, "endpoints");
        if items.len() != 2 {
            let message = format!("a link has two endpoints, not {}", items.len());
            let problem = Problem::new(value.span.clone(), message);
            self.d.problem(problem.help("such as [\"s1:p1\", \"s2:p1\"]"));
            return None;
        }
        let ends: Vec<Option<End>> = items.iter().map(|item| self.end(item)).collect();
        let [Some(a), Some(b)] = ends.as_slice() else { return None };
        if a.node == b.node {
            let message = format!("a link from {} to itself", a.node);
            self.d.problem(Problem::new(value.span.clone(), message).label("both ends are here"));
            return None;
        }
        let is_host = |end: &End| self.hosts.contains(end.node.as_str());
        if is_host(a) && is_host(b) {
            let problem = Problem::new(value.span.clone(), "a link between two hosts");
            self.d.problem(problem.help("a host hangs on a switch"));
            return None;
        }
        for end in [a, b] {
            if !self.hosts.contains(end.node.as_str()) {
                continue;
            }
            if let Some(first) = self.host_links.insert(end.node.clone(), value.span.clone()) {
                let problem =
                    Problem::new(value.span.clone(), format!("{} has two links", end.node));
                let problem = problem.label("again here").also(first, "first here");
                self.d.problem(problem.help("a host has one link; name a second host"));
            }
        }
        Some((a.clone(), b.clone()))
    }

    fn end(&mut self, value: &Value) -> Option<End> {
        let (node, port) = self.d.parse_with(value, "an endpoint", |text| {
            let Some((node, port)) = text.split_once(':') else {
                let help = Some("such as \"s1:p1\"".to_owned());
                return Err(Wrong { message: format!("{text:?} is not node:port"), help });
            };
            Ok((node.to_owned(), PortName::from_str(port).map_err(Wrong::from)?))
        })?;
        if !self.names.contains(&node) {
            let message = format!("there is no node {node:?}");
            let problem = Problem::new(value.span.clone(), message).label("a link to nowhere");
            // A name that is itself refused would be bad advice.
            let valid = self.names.iter().filter(|name| name.parse::<NodeName>().is_ok());
            self.d.unknown(problem, &node, valid.map(String::as_str));
            return None;
        }
        let end = End { node: node.parse().ok()?, port };
        if let Some(first) = self.ports.insert(end.clone(), value.span.clone()) {
            let problem = Problem::new(value.span.clone(), format!("port {end} is used twice"));
            self.d.problem(problem.label("again here").also(first, "first here"));
            return None;
        }
        let count = self.port_count.entry(end.node.clone()).or_default();
        *count += 1;
        if *count == MAX_PORTS + 1 {
            let message = format!("{} has more than {MAX_PORTS} ports", end.node);
            self.d.problem(Problem::new(value.span.clone(), message));
        }
        Some(end)
    }
}

fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// Ranges that a switch drops or answers itself.
fn not_for_hosts() -> Vec<(IpNet, &'static str)> {
    [
        ("0.0.0.0/8", "\"this\" network (RFC 1122)"),
        ("127.0.0.0/8", "loopback (RFC 1122)"),
        ("169.254.0.0/16", "link-local (RFC 3927); the gateway is 169.254.1.1"),
        ("224.0.0.0/3", "multicast and reserved (RFC 1112)"),
        ("::/127", "unspecified and loopback (RFC 4291)"),
        ("5f00::/16", "segment ids (RFC 9602)"),
        ("fe80::/10", "link-local (RFC 4291); the gateway is fe80::1"),
        ("ff00::/8", "multicast (RFC 4291)"),
    ]
    .map(|(net, why)| (net.parse().expect("a constant prefix"), why))
    .into()
}

/// `10.1.0.11/32`: an address block without bits beyond its length.
fn prefix<N>(text: &str) -> Result<N, Wrong>
where
    N: FromStr + Copy + Into<IpNet>,
{
    let full = if text.contains(':') { 128 } else { 32 };
    let help = |text: String| Some(format!("did you mean {text}?"));
    let Ok(net) = text.parse::<N>() else {
        let bare = text.parse::<std::net::IpAddr>().is_ok();
        let help = if bare { help(format!("{text}/{full}")) } else { None };
        let message =
            format!("{text:?} is not an address block such as 10.1.0.11/32 or fd10::11/128");
        return Err(Wrong { message, help });
    };
    let whole: IpNet = net.into();
    if whole.trunc() == whole {
        return Ok(net);
    }
    let message = format!("{text} has bits beyond its prefix length");
    Err(Wrong { message, help: help(format!("{}/{full}", whole.addr())) })
}

fn mac(text: &str) -> Result<[u8; 6], Wrong> {
    let wrong = || Wrong::new(format!("{text:?} is not a MAC address such as 02:00:00:00:00:01"));
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part =
            parts.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
        *byte = part.and_then(|part| u8::from_str_radix(part, 16).ok()).ok_or_else(wrong)?;
    }
    if parts.next().is_some() {
        return Err(wrong());
    }
    if mac[0] & 1 != 0 || mac == [0; 6] {
        return Err(Wrong::new(format!("{text} is not one station's address")));
    }
    Ok(mac)
}
