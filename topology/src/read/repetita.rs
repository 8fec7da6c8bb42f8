//! REPETITA `.graph`: `NODES n`, a header line, `label x y` rows; `EDGES m`, a header line,
//! `label src dest weight bw delay` rows, directed, bw in kbit/s, delay in microseconds.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::names::{Ports, assign};
use super::{Assumption, Read, assumption};
use crate::limits::{
    MAX_CAPACITY_BPS, MAX_COST, MAX_DELAY_US, MAX_LINKS, MAX_NODES, MIN_CAPACITY_BPS,
};
use crate::{BitRate, Delay, Link, Node, NodeName, Position, Problem, Switch, Topology};

/// A non-empty line as its fields, each with its place.
pub(super) type Row<'a> = Vec<(Range<usize>, &'a str)>;

pub(super) fn rows(text: &str) -> impl Iterator<Item = Row<'_>> {
    let start = text.as_ptr() as usize;
    let place = move |field: &str| {
        let at = field.as_ptr() as usize - start;
        at..at + field.len()
    };
    text.lines()
        .map(move |line| line.split_whitespace().map(|field| (place(field), field)).collect())
        .filter(|row: &Row<'_>| !row.is_empty())
}

pub(super) fn read(text: &str, stem: &str) -> Result<Read, Vec<Problem>> {
    let mut rows = rows(text);
    let end = text.len()..text.len();
    let mut problems = Vec::new();

    let count = section(&mut rows, "NODES", 1..=MAX_NODES, &end).map_err(|p| vec![p])?;
    let node_rows: Vec<Row<'_>> = rows.by_ref().take(count).collect();
    let edges = section(&mut rows, "EDGES", 0..=2 * MAX_LINKS, &end).map_err(|p| vec![p])?;
    let edge_rows: Vec<Row<'_>> = rows.by_ref().take(edges).collect();
    if edge_rows.len() < edges {
        let message = format!("EDGES {edges} is followed by {} rows only", edge_rows.len());
        problems.push(Problem::new(end.clone(), message));
    }
    if let Some(row) = rows.next() {
        problems.push(Problem::new(row[0].0.clone(), "more rows than the counts say"));
    }

    // The published files put the row's number before each label.
    let label = |row: &Row<'_>| row.first().map_or(0..0, |(span, _)| span.clone());
    let labels: Vec<&str> = node_rows.iter().map(|row| &text[label(row)]).collect();
    let numbered = |(i, label): (usize, &&str)| label.strip_prefix(&format!("{i}_")).is_some();
    let all_numbered = labels.iter().enumerate().all(numbered);
    let stripped: Vec<&str> =
        labels
            .iter()
            .map(|label| {
                if all_numbered { label.split_once('_').map_or(*label, |(_, l)| l) } else { label }
            })
            .collect();
    let (names, renamed) = assign(&stripped);
    let mut nodes = BTreeMap::new();
    for (row, name) in node_rows.iter().zip(&names) {
        let position = match row.as_slice() {
            // x is the longitude, y the latitude.
            [_, (_, x), (_, y)] => x.parse().ok().zip(y.parse().ok()),
            _ => None,
        };
        if position.is_none() {
            problems.push(Problem::new(label(row), "a node's row is: label x y"));
        }
        let position = position.and_then(|(x, y)| Position::from_degrees(y, x));
        nodes.insert(name.clone(), Node::Switch(Switch { position, ..Switch::default() }));
    }

    let mut links = Links::default();
    for row in &edge_rows {
        if let Err(problem) = links.add(row, &names) {
            problems.push(problem);
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let name = NodeName::from_label(stem).unwrap_or_else(|| "network".parse().expect("valid"));
    let mut assumptions: Vec<Assumption> = renamed.into_iter().collect();
    let links = links.finish(&mut assumptions);
    let topology = Topology { name, nodes, links };
    assumptions.extend(assumption::of_topology(&topology));
    Ok(Read { topology, assumptions })
}

/// `WORD n` and the header line after it.
pub(super) fn section<'a>(
    rows: &mut impl Iterator<Item = Row<'a>>,
    word: &str,
    range: std::ops::RangeInclusive<usize>,
    end: &Range<usize>,
) -> Result<usize, Problem> {
    let row = rows.next().unwrap_or_default();
    let span = row.first().map_or(end.clone(), |(span, _)| span.clone());
    let count = match row.as_slice() {
        [(_, found), (_, count)] if *found == word => count.parse::<usize>().ok(),
        _ => None,
    };
    let Some(count) = count else {
        return Err(Problem::new(span, format!("here should be: {word} and a number")));
    };
    if !range.contains(&count) {
        let message = format!("{word} {count}: from {} to {} are read", range.start(), range.end());
        return Err(Problem::new(span, message));
    }
    rows.next(); // the header
    Ok(count)
}

#[derive(Default)]
struct Links {
    links: Vec<Link>,
    ports: Ports,
    one_way: HashMap<(usize, usize), Vec<usize>>,
    asymmetric: Vec<String>,
    self_links: Vec<String>,
}

impl Links {
    fn add(&mut self, row: &Row<'_>, names: &[NodeName]) -> Result<(), Problem> {
        let [_, source, target, weight, bandwidth, delay] = row.as_slice() else {
            let span = row[0].0.clone();
            return Err(Problem::new(span, "an edge's row is: label src dest weight bw delay"));
        };
        let number = |(span, text): &(Range<usize>, &str), what: &str, low: u64, high: u64| {
            text.parse::<u64>().ok().filter(|n| (low..=high).contains(n)).ok_or_else(|| {
                Problem::new(span.clone(), format!("{what} {text:?} is not from {low} to {high}"))
            })
        };
        let last = names.len() as u64 - 1;
        #[expect(clippy::cast_possible_truncation, reason = "bounded by the number of nodes")]
        let node = |field| number(field, "node", 0, last).map(|n| n as usize);
        let (source, target) = (node(source)?, node(target)?);
        let cost = number(weight, "weight", 1, u64::from(MAX_COST))?;
        let cost = u32::try_from(cost).expect("bounded above");
        let kbps =
            number(bandwidth, "bw (kbit/s)", MIN_CAPACITY_BPS / 1000, MAX_CAPACITY_BPS / 1000)?;
        let capacity = BitRate(kbps * 1000);
        let delay = Delay(number(delay, "delay (us)", 0, MAX_DELAY_US)?);
        if source == target {
            self.self_links.push(names[source].to_string());
            return Ok(());
        }
        if let Some(at) = self.one_way.get_mut(&(target, source)).and_then(Vec::pop) {
            let link = &mut self.links[at];
            let forth = (link.capacity, link.delay, link.cost);
            if forth != (Some(capacity), Some(delay), Some(cost)) {
                self.asymmetric.push(link.to_string());
                link.capacity = link.capacity.min(Some(capacity));
                link.delay = link.delay.max(Some(delay));
                link.cost = link.cost.max(Some(cost));
            }
            return Ok(());
        }
        self.one_way.entry((source, target)).or_default().push(self.links.len());
        let at = |problem| Problem { span: row[0].0.clone(), ..problem };
        let a = self.ports.next(&names[source]).map_err(at)?;
        let b = self.ports.next(&names[target]).map_err(at)?;
        let figures = Link::new(a, b);
        self.links.push(Link {
            capacity: Some(capacity),
            delay: Some(delay),
            cost: Some(cost),
            ..figures
        });
        Ok(())
    }

    fn finish(self, assumptions: &mut Vec<Assumption>) -> Vec<Link> {
        let mut one_way: Vec<usize> = self.one_way.into_values().flatten().collect();
        one_way.sort_unstable();
        if let Some(example) = self.self_links.first().cloned() {
            assumptions.push(Assumption::SelfLinks { count: self.self_links.len(), example });
        }
        if let Some(&first) = one_way.first() {
            let example = self.links[first].to_string();
            assumptions.push(Assumption::OneWay { count: one_way.len(), example });
        }
        if let Some(example) = self.asymmetric.first().cloned() {
            assumptions.push(Assumption::Asymmetric { count: self.asymmetric.len(), example });
        }
        self.links
    }
}
