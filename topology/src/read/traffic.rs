//! What traffic engineering works on: a network with its directed links, and a traffic matrix.
//!
//! A REPETITA `.graph` is taken with the labels and the directions that it has, where
//! [`super::from_path`] would rename nodes and join directions. Other formats are read by
//! [`super::from_path`]; their nodes have the file's own labels here, too.
//!
//! A matrix is REPETITA's `.demands`: `DEMANDS n`, a header line, then rows
//! `label src dest bw`, bw in kbit/s. `src` and `dest` are rows of the `.graph`, from 0; of any
//! network they may also be labels of nodes, and of a Selvedge topology names of hosts, which
//! stand for the switch that they hang on.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::repetita::{Row, rows, section};
use super::{Format, Read, text_of};
use crate::limits::{
    MAX_CAPACITY_BPS, MAX_COST, MAX_DELAY_US, MAX_FILE_BYTES, MAX_LINKS, MAX_NODES,
    MIN_CAPACITY_BPS,
};
use crate::te::{Demand, Edge, Network};
use crate::{Assumption, BitRate, DEFAULT_COST, End, Problem, Problems, Topology};

/// A `.demands` file. Cogentco's, 38,612 demands, has 0.8 MB.
pub const MAX_DEMANDS_BYTES: usize = 64 << 20;
pub const MAX_DEMANDS: usize = 1 << 20;

/// A network, and how files name its nodes.
#[derive(Clone, Debug)]
pub struct Directed {
    pub network: Network,
    pub assumptions: Vec<Assumption>,
    /// Whether demands may name nodes by their row.
    by_row: bool,
    by_name: HashMap<String, u32>,
}

/// Reads the network of a file whose format its extension tells. Links without a capacity have
/// `capacity`; without that they are a problem, since their utilisation means nothing.
pub fn network_from_path(path: &Path, capacity: Option<BitRate>) -> Result<Directed, Problems> {
    let file = path.display().to_string();
    if Format::of_file(&file) == Some(Format::Repetita) {
        let text = text_of(path, MAX_FILE_BYTES)?;
        return graph(&text).map_err(|problems| Problems::new(&file, &text, problems));
    }
    let Read { topology, assumptions } = super::from_path(path)?;
    of_topology(&file, topology, assumptions, capacity)
}

/// Reads the traffic matrix of a network.
pub fn demands_from_path(path: &Path, directed: &Directed) -> Result<Vec<Demand>, Problems> {
    let file = path.display().to_string();
    let text = text_of(path, MAX_DEMANDS_BYTES)?;
    demands(&text, directed).map_err(|problems| Problems::new(&file, &text, problems))
}

impl Directed {
    /// The node of that label, of that host, or of that row of the file.
    pub fn node(&self, text: &str) -> Option<u32> {
        let row = || text.parse().ok().filter(|row| self.by_row && (*row as usize) < self.len());
        self.by_name.get(text).copied().or_else(row)
    }

    fn len(&self) -> usize {
        self.network.len()
    }
}

/// A REPETITA `.graph` as it is.
fn graph(text: &str) -> Result<Directed, Vec<Problem>> {
    let mut rows = rows(text);
    let end = text.len()..text.len();
    let count = section(&mut rows, "NODES", 1..=MAX_NODES, &end).map_err(|p| vec![p])?;
    let nodes: Vec<Row<'_>> = rows.by_ref().take(count).collect();
    let count = section(&mut rows, "EDGES", 0..=2 * MAX_LINKS, &end).map_err(|p| vec![p])?;
    let edge_rows: Vec<Row<'_>> = rows.by_ref().take(count).collect();
    let mut problems = counted("EDGES", count, edge_rows.len(), rows.next(), &end);

    let mut by_name = HashMap::new();
    let mut labels = Vec::new();
    for (node, row) in (0..).zip(&nodes) {
        let (span, label) = row[0].clone();
        if row.len() != 3 {
            problems.push(Problem::new(span.clone(), "a node's row is: label x y"));
        }
        if by_name.insert(label.to_owned(), node).is_some() {
            problems.push(Problem::new(span, format!("label {label} is used twice")));
        }
        labels.push(label.to_owned());
    }
    let mut edges = Vec::new();
    let mut self_links: Vec<&str> = Vec::new();
    for row in &edge_rows {
        match edge(row, labels.len()) {
            Ok(edge) if edge.from == edge.to => self_links.push(row[0].1),
            Ok(edge) => edges.push(edge),
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let assumptions = self_links.first().map(|first| Assumption::SelfLinks {
        count: self_links.len(),
        example: (*first).to_owned(),
    });
    Ok(Directed {
        network: Network::new(labels, edges),
        assumptions: assumptions.into_iter().collect(),
        by_row: true,
        by_name,
    })
}

fn edge(row: &Row<'_>, nodes: usize) -> Result<Edge, Problem> {
    let [(_, label), from, to, weight, bandwidth, delay] = row.as_slice() else {
        let what = "an edge's row is: label src dest weight bw delay";
        return Err(Problem::new(row[0].0.clone(), what));
    };
    let last = nodes as u64 - 1;
    let node = |field| -> Result<u32, Problem> {
        Ok(u32::try_from(number(field, "node", 0..=last)?).expect("nodes are limited"))
    };
    let weight = number(weight, "weight", 1..=u64::from(MAX_COST))?;
    let kbps = MIN_CAPACITY_BPS / 1000..=MAX_CAPACITY_BPS / 1000;
    let capacity = BitRate(number(bandwidth, "bw (kbit/s)", kbps)? * 1000);
    number(delay, "delay (us)", 0..=MAX_DELAY_US)?;
    Ok(Edge {
        label: (*label).to_owned(),
        from: node(from)?,
        to: node(to)?,
        weight: u32::try_from(weight).expect("bounded above"),
        capacity,
    })
}

fn number(
    (span, text): &(std::ops::Range<usize>, &str),
    what: &str,
    range: std::ops::RangeInclusive<u64>,
) -> Result<u64, Problem> {
    let found = text.parse().ok().filter(|number| range.contains(number));
    found.ok_or_else(|| {
        let (low, high) = (range.start(), range.end());
        Problem::new(span.clone(), format!("{what} {text:?} is not a number from {low} to {high}"))
    })
}

/// Whether there are as many rows as the section says.
fn counted(
    word: &str,
    says: usize,
    found: usize,
    more: Option<Row<'_>>,
    end: &std::ops::Range<usize>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    if found < says {
        let message = format!("{word} {says} is followed by {found} rows only");
        problems.push(Problem::new(end.clone(), message));
    }
    if let Some(row) = more {
        problems.push(Problem::new(row[0].0.clone(), "more rows than the counts say"));
    }
    problems
}

fn of_topology(
    file: &str,
    topology: Topology,
    assumptions: Vec<Assumption>,
    capacity: Option<BitRate>,
) -> Result<Directed, Problems> {
    let mut labels: Vec<String> = Vec::new();
    let mut by_name = HashMap::new();
    for (node, (name, _)) in (0..).zip(topology.switches()) {
        labels.push(name.to_string());
        by_name.insert(name.to_string(), node);
    }
    let renamed = assumptions.iter().filter_map(|assumption| match assumption {
        Assumption::Renamed { names } => Some(names),
        _ => None,
    });
    // The file's own labels, where they are unique.
    let given: Vec<&(String, String)> = renamed.flatten().collect();
    let mut once = HashSet::new();
    let twice: HashSet<&str> = given
        .iter()
        .map(|(label, _)| label.as_str())
        .filter(|label| !once.insert(*label))
        .collect();
    for (label, name) in given.iter().filter(|(label, _)| !twice.contains(label.as_str())) {
        if let Some(&node) = by_name.get(name) {
            labels[node as usize].clone_from(label);
            by_name.entry(label.clone()).or_insert(node);
        }
    }
    let mut edges = Vec::new();
    let mut silent = Vec::new();
    for link in &topology.links {
        let node = |end: &End| by_name.get(end.node.as_str()).copied();
        let (Some(a), Some(b)) = (node(&link.a), node(&link.b)) else { continue };
        let Some(capacity) = link.capacity.or(capacity) else {
            silent.push(link);
            continue;
        };
        let weight = link.cost.unwrap_or(DEFAULT_COST);
        let edge = |from, to, label| Edge { label, from, to, weight, capacity };
        edges.push(edge(a, b, format!("{} -> {}", link.a, link.b)));
        edges.push(edge(b, a, format!("{} -> {}", link.b, link.a)));
    }
    for (host, _) in topology.hosts() {
        let switch = topology.attachment(host).map(|(_, _, switch)| switch.node.as_str());
        if let Some(&switch) = switch.and_then(|switch| by_name.get(switch)) {
            by_name.insert(host.to_string(), switch);
        }
    }
    if let Some(first) = silent.first() {
        let message = format!("{} links state no capacity, such as {first}", silent.len());
        let help = "traffic engineering needs one: state it, or give `--capacity RATE` for all \
                    links without";
        return Err(Problems::of_file(file, message, Some(help.into())));
    }
    Ok(Directed { network: Network::new(labels, edges), assumptions, by_row: false, by_name })
}

fn demands(text: &str, directed: &Directed) -> Result<Vec<Demand>, Vec<Problem>> {
    let mut rows = rows(text);
    let end = text.len()..text.len();
    let count = section(&mut rows, "DEMANDS", 0..=MAX_DEMANDS, &end).map_err(|p| vec![p])?;
    let mut found = Vec::new();
    let mut number = 0;
    let mut problems = Vec::new();
    let mut labels = HashSet::new();
    let mut reached = Reached::new(&directed.network);
    for row in rows.by_ref().take(count) {
        number += 1;
        match demand(&row, directed, &mut reached) {
            Ok(_) if !labels.insert(row[0].1) => {
                let message = format!("label {} is used twice", row[0].1);
                problems.push(Problem::new(row[0].0.clone(), message));
            }
            Ok(demand) => found.push(demand),
            Err(problem) => problems.push(problem),
        }
        if problems.len() >= crate::limits::MAX_COUNTED_PROBLEMS {
            return Err(problems);
        }
    }
    problems.extend(counted("DEMANDS", count, number, rows.next(), &end));
    if problems.is_empty() { Ok(found) } else { Err(problems) }
}

fn demand(
    row: &Row<'_>,
    directed: &Directed,
    reached: &mut Reached<'_>,
) -> Result<Demand, Problem> {
    let [(span, label), from, to, rate] = row.as_slice() else {
        let what = "a demand's row is: label src dest bw";
        return Err(Problem::new(row[0].0.clone(), what));
    };
    let node = |(span, text): &(std::ops::Range<usize>, &str)| {
        directed.node(text).ok_or_else(|| {
            let problem = Problem::new(span.clone(), format!("there is no node {text:?}"));
            problem.meant(text, directed.by_name.keys().map(String::as_str))
        })
    };
    let (source, target) = (node(from)?, node(to)?);
    if from.1 == to.1 {
        return Err(Problem::new(span.clone(), format!("{label} leads from a node to itself")));
    }
    let rate = BitRate(number(rate, "bw (kbit/s)", 0..=MAX_CAPACITY_BPS / 1000)? * 1000);
    if !reached.from(source)[target as usize] {
        let message = format!("no path leads from {} to {}, as {label} needs", from.1, to.1);
        return Err(Problem::new(span.clone(), message));
    }
    Ok(Demand { label: (*label).to_owned(), from: source, to: target, rate })
}

/// Which nodes a node reaches, worked out when asked.
struct Reached<'a> {
    neighbors: Vec<Vec<u32>>,
    network: &'a Network,
    from: HashMap<u32, Vec<bool>>,
}

impl<'a> Reached<'a> {
    fn new(network: &'a Network) -> Self {
        let mut neighbors = vec![Vec::new(); network.len()];
        for edge in network.edges() {
            neighbors[edge.from as usize].push(edge.to);
        }
        Self { neighbors, network, from: HashMap::new() }
    }

    fn from(&mut self, node: u32) -> &[bool] {
        let (neighbors, nodes) = (&self.neighbors, self.network.len());
        self.from.entry(node).or_insert_with(|| {
            let mut reached = vec![false; nodes];
            reached[node as usize] = true;
            let mut open = vec![node];
            while let Some(node) = open.pop() {
                for &next in &neighbors[node as usize] {
                    if !std::mem::replace(&mut reached[next as usize], true) {
                        open.push(next);
                    }
                }
            }
            reached
        })
    }
}
