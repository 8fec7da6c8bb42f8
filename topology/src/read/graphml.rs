//! Topology Zoo GraphML (Knight et al., IEEE JSAC 29(9), 2011).
//!
//! `label` becomes the node's name, `Latitude`/`Longitude` its place, `LinkSpeedRaw` (bit/s) the
//! capacity; a link between two places gets the propagation of the great circle at 5 µs/km.
//! What a file lacks stays unknown and is reported.

use std::collections::HashMap;

use roxmltree::{Document, Node as Xml, ParsingOptions};

use super::names::{Ports, assign};
use super::{Assumption, Read, assumption};
use crate::limits::{MAX_CAPACITY_BPS, MAX_LINKS, MAX_NODES, MIN_CAPACITY_BPS};
use crate::{BitRate, Link, Node, NodeName, Position, Problem, Switch, Topology};

/// XML nodes of one file; Kdl, the largest of the zoo, has 20,000.
const MAX_XML_NODES: u32 = 2_000_000;

pub(super) fn read(text: &str, stem: &str) -> Result<Read, Vec<Problem>> {
    let options = ParsingOptions { nodes_limit: MAX_XML_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).map_err(|error| {
        let at = offset(text, error.pos());
        vec![Problem::new(at..at, format!("not XML: {error}"))]
    })?;
    let root = document.root_element();
    let graphs: Vec<Xml<'_, '_>> = children(root, "graph").collect();
    let [graph] = graphs[..] else {
        let message = format!("a GraphML file has one <graph>, not {}", graphs.len());
        return Err(vec![Problem::new(head(root), message)]);
    };
    let keys = Keys::of(root);
    let mut problems = Vec::new();

    let rows: Vec<Xml<'_, '_>> = children(graph, "node").collect();
    if rows.is_empty() || rows.len() > MAX_NODES {
        let message = format!("{} nodes: a network has 1 to {MAX_NODES}", rows.len());
        return Err(vec![Problem::new(head(graph), message)]);
    }
    let mut by_id: HashMap<&str, usize> = HashMap::new();
    for (row, node) in rows.iter().enumerate() {
        match node.attribute("id") {
            None => problems.push(Problem::new(head(*node), "a <node> has no \"id\"")),
            Some(id) => {
                if let Some(first) = by_id.insert(id, row) {
                    let problem = Problem::new(head(*node), format!("node {id:?} is here twice"));
                    problems.push(problem.also(head(rows[first]), "first here"));
                }
            }
        }
    }
    let labels: Vec<&str> = rows
        .iter()
        .map(|node| keys.get(*node, "label").or(node.attribute("id")).unwrap_or(""))
        .collect();
    let (names, renamed) = assign(&labels);
    let mut nodes = std::collections::BTreeMap::new();
    let mut without_position = Vec::new();
    for (node, name) in rows.iter().zip(&names) {
        let position = position(&keys, *node, &mut problems);
        if position.is_none() {
            without_position.push(name.to_string());
        }
        nodes.insert(name.clone(), Node::Switch(Switch { position, ..Switch::default() }));
    }

    let directed = graph.attribute("edgedefault") == Some("directed");
    let mut edges = Edges { directed, ..Edges::default() };
    for edge in children(graph, "edge") {
        match edges.add(edge, &keys, &by_id, &names) {
            Ok(()) => {}
            Err(problem) => problems.push(problem),
        }
    }
    if edges.links.len() > MAX_LINKS {
        let message = format!("{} links: at most {MAX_LINKS} are allowed", edges.links.len());
        problems.push(Problem::new(head(graph), message));
    }
    let place = |name: &NodeName| nodes.get(name).and_then(Node::as_switch)?.position;
    for link in &mut edges.links {
        let ends = place(&link.a.node).zip(place(&link.b.node));
        link.delay = ends.map(|(a, b)| a.propagation(b));
    }
    let name = NodeName::from_label(stem).unwrap_or_else(|| "network".parse().expect("valid"));
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut assumptions: Vec<Assumption> = renamed.into_iter().collect();
    if !without_position.is_empty() {
        assumptions.push(Assumption::NoPosition { nodes: without_position });
    }
    assumptions.extend(edges.assumptions());
    let topology = Topology { name, nodes, links: edges.links };
    assumptions.extend(assumption::of_topology(&topology));
    Ok(Read { topology, assumptions })
}

#[derive(Default)]
struct Edges {
    directed: bool,
    links: Vec<Link>,
    ports: Ports,
    self_links: Vec<String>,
    /// Of a directed graph: links that wait for their way back.
    one_way: HashMap<(usize, usize), Vec<usize>>,
    asymmetric: Vec<String>,
}

impl Edges {
    fn add(
        &mut self,
        edge: Xml<'_, '_>,
        keys: &Keys<'_>,
        by_id: &HashMap<&str, usize>,
        names: &[NodeName],
    ) -> Result<(), Problem> {
        let end = |attribute: &str| {
            let id = edge.attribute(attribute);
            id.and_then(|id| by_id.get(id).copied()).ok_or_else(|| match id {
                None => Problem::new(head(edge), format!("an <edge> has no {attribute:?}")),
                Some(id) => Problem::new(head(edge), format!("there is no node {id:?}"))
                    .label("a link to nowhere"),
            })
        };
        let (source, target) = (end("source")?, end("target")?);
        let capacity = capacity(keys, edge)?;
        if source == target {
            self.self_links.push(names[source].to_string());
            return Ok(());
        }
        if self.directed {
            if let Some(at) = self.one_way.get_mut(&(target, source)).and_then(Vec::pop) {
                let link = &mut self.links[at];
                if link.capacity != capacity {
                    self.asymmetric.push(link.to_string());
                    link.capacity = link.capacity.min(capacity).or(link.capacity).or(capacity);
                }
                return Ok(());
            }
            self.one_way.entry((source, target)).or_default().push(self.links.len());
        }
        let port = |ports: &mut Ports, node: usize| {
            ports.next(&names[node]).map_err(|problem| Problem { span: head(edge), ..problem })
        };
        let (a, b) = (port(&mut self.ports, source)?, port(&mut self.ports, target)?);
        self.links.push(Link { capacity, ..Link::new(a, b) });
        Ok(())
    }

    fn assumptions(&self) -> Vec<Assumption> {
        let mut one_way: Vec<usize> = self.one_way.values().flatten().copied().collect();
        one_way.sort_unstable();
        let one_way: Vec<String> = one_way.iter().map(|&at| self.links[at].to_string()).collect();
        let example = |list: &[String]| list.first().cloned();
        let mut found = Vec::new();
        if let Some(example) = example(&self.self_links) {
            found.push(Assumption::SelfLinks { count: self.self_links.len(), example });
        }
        if let Some(example) = example(&one_way) {
            found.push(Assumption::OneWay { count: one_way.len(), example });
        }
        if let Some(example) = example(&self.asymmetric) {
            found.push(Assumption::Asymmetric { count: self.asymmetric.len(), example });
        }
        found
    }
}

/// `<key attr.name=".." for=".." id="..">`: what a `<data key="..">` of a node or edge means.
struct Keys<'a>(HashMap<(&'a str, &'a str), Vec<&'a str>>);

impl<'a> Keys<'a> {
    fn of(root: Xml<'a, '_>) -> Self {
        let mut keys: HashMap<(&str, &str), Vec<&str>> = HashMap::new();
        for key in children(root, "key") {
            if let (Some(name), Some(of), Some(id)) =
                (key.attribute("attr.name"), key.attribute("for"), key.attribute("id"))
            {
                keys.entry((of, name)).or_default().push(id);
            }
        }
        Self(keys)
    }

    /// The attribute `name` of a `<node>` or `<edge>`.
    fn get<'b>(&self, of: Xml<'b, '_>, name: &str) -> Option<&'b str> {
        let ids = self.0.get(&(of.tag_name().name(), name))?;
        let has = |data: &Xml<'_, '_>| data.attribute("key").is_some_and(|id| ids.contains(&id));
        children(of, "data").find(has)?.text().map(str::trim).filter(|text| !text.is_empty())
    }
}

fn children<'a, 'i: 'a>(of: Xml<'a, 'i>, tag: &'static str) -> impl Iterator<Item = Xml<'a, 'i>> {
    of.children().filter(move |child| child.has_tag_name(tag) || child.tag_name().name() == tag)
}

fn position(keys: &Keys<'_>, node: Xml<'_, '_>, problems: &mut Vec<Problem>) -> Option<Position> {
    let (latitude, longitude) = (keys.get(node, "Latitude")?, keys.get(node, "Longitude")?);
    let parsed = latitude.parse().ok().zip(longitude.parse().ok());
    let position = parsed.and_then(|(lat, lon)| Position::from_degrees(lat, lon));
    if position.is_none() {
        let message = format!("{latitude:?}, {longitude:?} is not a place on Earth, in degrees");
        problems.push(Problem::new(head(node), message));
    }
    position
}

/// `LinkSpeedRaw`, in bit/s; 0 is the zoo's way of saying nothing.
fn capacity(keys: &Keys<'_>, edge: Xml<'_, '_>) -> Result<Option<BitRate>, Problem> {
    let Some(text) = keys.get(edge, "LinkSpeedRaw") else { return Ok(None) };
    #[expect(clippy::cast_precision_loss, reason = "both limits are exact in f64")]
    let range = MIN_CAPACITY_BPS as f64..=MAX_CAPACITY_BPS as f64;
    match text.parse::<f64>() {
        Ok(0.0) => Ok(None),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "within the range"
        )]
        Ok(bps) if range.contains(&bps) => Ok(Some(BitRate(bps.round() as u64))),
        _ => {
            let (low, high) = (BitRate(MIN_CAPACITY_BPS), BitRate(MAX_CAPACITY_BPS));
            let message = format!("LinkSpeedRaw {text:?} is not bit/s from {low} to {high}");
            Err(Problem::new(head(edge), message))
        }
    }
}

/// An element's opening, not all that is in it.
fn head(node: Xml<'_, '_>) -> std::ops::Range<usize> {
    let range = node.range();
    let text = &node.document().input_text()[range.clone()];
    range.start..range.start + text.find('>').map_or(text.len(), |end| end + 1)
}

fn offset(text: &str, pos: roxmltree::TextPos) -> usize {
    let line = text.split_inclusive('\n').take(pos.row.saturating_sub(1) as usize);
    let start: usize = line.map(str::len).sum();
    let column = pos.col.saturating_sub(1) as usize;
    text[start..].char_indices().nth(column).map_or(text.len(), |(at, _)| start + at)
}
