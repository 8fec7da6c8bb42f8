//! Names on the command line, as parts of the network.

use selvedge_topology::{Affinity, Constraints, LinkIx, NodeIx, NodeName, Snapshot};

use super::Elements;

/// The switch of that name, or of the host of that name.
pub(super) fn switch_or_host(
    snapshot: &Snapshot,
    name: &str,
    assumed: &mut Vec<String>,
) -> Result<NodeIx, String> {
    if let Some(node) = snapshot.node(name) {
        return Ok(node);
    }
    let topology = snapshot.topology();
    let host = name.parse::<NodeName>().ok().filter(|name| topology.nodes.contains_key(name));
    let Some(host) = host else {
        return Err(unknown("node", name, topology.nodes.keys().map(NodeName::as_str)));
    };
    let switch = topology.attachment(&host).map(|(_, _, switch)| switch.node.clone());
    let switch = switch.ok_or_else(|| format!("host {host} is not linked to any switch"))?;
    assumed.push(format!("{host} stands for its switch {switch}"));
    snapshot.node(switch.as_str()).ok_or_else(|| format!("there is no switch {switch}"))
}

pub(super) fn switch(snapshot: &Snapshot, name: &str) -> Result<NodeIx, String> {
    let names = snapshot.nodes().map(|node| snapshot.name(node).as_str());
    snapshot.node(name).ok_or_else(|| unknown("switch", name, names))
}

fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let near = selvedge_topology::problem::nearest(name, known);
    let help = near.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
    format!("there is no {what} {name:?}{help}")
}

/// What is asked of elements; of the rest, nothing.
pub(super) fn elements(snapshot: &Snapshot, asked: &Elements) -> Result<Constraints, String> {
    let mut constraints = Constraints::default();
    for name in &asked.include_node {
        constraints.include.nodes.insert(switch(snapshot, name)?);
    }
    for name in &asked.exclude_node {
        constraints.exclude.nodes.insert(switch(snapshot, name)?);
    }
    for name in &asked.include_link {
        let links = links(snapshot, name)?;
        let [link] = links[..] else {
            return Err(format!("{name} is {} links; name one by NODE:PORT", links.len()));
        };
        constraints.include.links.insert(link);
    }
    for name in &asked.exclude_link {
        constraints.exclude.links.extend(links(snapshot, name)?);
    }
    for (srlgs, wanted) in [
        (&asked.include_srlg, &mut constraints.include.srlgs),
        (&asked.exclude_srlg, &mut constraints.exclude.srlgs),
    ] {
        for srlg in srlgs {
            if !snapshot.topology().links.iter().any(|link| link.srlg.contains(srlg)) {
                return Err(format!("no link is in shared-risk group {srlg}"));
            }
            wanted.insert(*srlg);
        }
    }
    let groups = |names: &[String]| {
        let bit = |name: &String| {
            let bit = name.parse().ok().and_then(|group| snapshot.affinity_bit(&group));
            let known = snapshot.affinities().iter().map(NodeName::as_str);
            bit.ok_or_else(|| unknown("administrative group", name, known))
        };
        names.iter().try_fold(0, |set, name| Ok::<u64, String>(set | bit(name)?))
    };
    constraints.affinity.include_any = groups(&asked.affinity_any)?;
    constraints.affinity.include_all = groups(&asked.affinity_all)?;
    constraints.affinity.exclude_any = groups(&asked.affinity_none)?;
    let Affinity { exclude_any, include_any, include_all } = constraints.affinity;
    let all_out = include_any != 0 && include_any & !exclude_any == 0;
    if all_out || include_all & exclude_any != 0 {
        let asked = [&asked.affinity_any[..], &asked.affinity_all[..]].concat();
        return Err(format!(
            "no link can do: --affinity-none rules out what is asked of it, {}",
            asked.join(", ")
        ));
    }
    Ok(constraints)
}

/// `NODE:PORT` of either end, or `NODE:NODE` for all links between two switches.
fn links(snapshot: &Snapshot, text: &str) -> Result<Vec<LinkIx>, String> {
    let wrong = || format!("{text:?} is not a link: NODE:PORT of either end, or NODE:NODE");
    let (node, other) = text.split_once(':').ok_or_else(wrong)?;
    let node = switch(snapshot, node)?;
    let arcs = || snapshot.arcs_from(node).iter();
    let by_port = arcs().filter(|arc| snapshot.ends(arc.ix).0.port.as_str() == other);
    let by_port: Vec<LinkIx> = by_port.map(|arc| arc.ix.link()).collect();
    if !by_port.is_empty() {
        return Ok(by_port);
    }
    let by_node = arcs().filter(|arc| snapshot.name(arc.to).as_str() == other);
    let by_node: Vec<LinkIx> = by_node.map(|arc| arc.ix.link()).collect();
    if by_node.is_empty() {
        return Err(format!(
            "{} has no link to another switch at port {other:?}, and none to a switch of that name",
            snapshot.name(node)
        ));
    }
    Ok(by_node)
}
