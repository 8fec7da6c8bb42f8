//! A path, for people and for programs.

use selvedge_topology::{
    ArcIx, Backup, Backups, BitRate, Delay, Forwarding, Graph, LinkIx, MAX_REPAIR_SIDS, MAX_SIDS,
    NodeIx, Path, Relaxation, Routes, Sid, Snapshot, encode,
};
use serde_json::{Value, json};

/// Shows paths of one network.
pub(super) struct Shower<'a> {
    snapshot: &'a Snapshot,
    forwarding: Forwarding,
    hooks: &'a [NodeIx],
    backups: Option<Backups>,
}

pub(super) struct Shown {
    nodes: Vec<String>,
    links: Vec<ShownLink>,
    cost: u64,
    /// As far as links state it.
    delay_us: u64,
    bottleneck: Option<BitRate>,
    /// Ids without the last, which delivers: way-points of the fabric's own forwarding, and
    /// hooks. Or why there are none.
    segments: Result<Vec<String>, String>,
    /// By link, where they were asked for.
    backups: Option<Vec<Around>>,
}

struct ShownLink {
    ends: String,
    capacity: Option<BitRate>,
    delay: Option<Delay>,
    cost: u32,
}

/// Ways around a link of a path, and around the switch that it leads to.
struct Around {
    link: Option<Shown>,
    node: Option<Shown>,
    /// The path ends there: nothing leads around.
    is_last: bool,
}

impl<'a> Shower<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, hooks: &'a [NodeIx], backups: bool) -> Self {
        let backups = backups.then(|| {
            let routes = Routes::new(Graph::clone(snapshot.graph()), Forwarding::METRIC, THREADS);
            Backups::new(&routes, THREADS)
        });
        Self { snapshot, forwarding: Forwarding::new(snapshot), hooks, backups }
    }

    pub(super) fn show(&self, path: &Path) -> Shown {
        let mut shown = self.shown(path, self.segments(path));
        shown.backups = self.backups.as_ref().map(|backups| {
            let around = |(at, next): (usize, &ArcIx)| {
                let after = path.arcs.get(at + 1);
                Around {
                    link: self.backup(backups.link(*next)),
                    node: after.and_then(|after| self.backup(backups.node(*next, *after))),
                    is_last: after.is_none(),
                }
            };
            path.arcs.iter().enumerate().map(around).collect()
        });
        shown
    }

    fn backup(&self, backup: Option<&Backup>) -> Option<Shown> {
        let Backup { path, segments } = backup?;
        let names = |segments: &Vec<NodeIx>| {
            segments.iter().map(|node| self.snapshot.name(*node).to_string()).collect()
        };
        let none = || format!("no {MAX_REPAIR_SIDS} way-points lead along it");
        Some(self.shown(path, segments.as_ref().map(names).ok_or_else(none)))
    }

    fn shown(&self, path: &Path, segments: Result<Vec<String>, String>) -> Shown {
        let snapshot = self.snapshot;
        let link = |ix: &ArcIx| {
            let arc = snapshot.arc(*ix)?;
            let (near, far) = snapshot.ends(*ix);
            let ends = format!("{near} -> {far}");
            Some(ShownLink { ends, capacity: arc.capacity, delay: arc.delay, cost: arc.cost })
        };
        Shown {
            nodes: path.nodes.iter().map(|node| snapshot.name(*node).to_string()).collect(),
            links: path.arcs.iter().filter_map(link).collect(),
            cost: path.cost(snapshot),
            delay_us: path.delay(snapshot).us(),
            bottleneck: path.bottleneck(snapshot).map(|(_, rate)| rate),
            segments,
            backups: None,
        }
    }

    fn segments(&self, path: &Path) -> Result<Vec<String>, String> {
        let snapshot = self.snapshot;
        let mut positions = Vec::with_capacity(self.hooks.len());
        let mut at = 0;
        for hook in self.hooks {
            let rest = path.nodes[at..].iter().position(|node| node == hook);
            at += rest.ok_or_else(|| {
                let hook = snapshot.name(*hook);
                format!("the path passes {hook} before the hook that comes first")
            })?;
            positions.push(at);
        }
        let sids = encode(snapshot, &self.forwarding, path, &positions, MAX_SIDS);
        let sids = sids.map_err(|error| error.to_string())?;
        let text = |sid: &Sid| match sid {
            Sid::Node(node) => Some(snapshot.name(*node).to_string()),
            Sid::Hook(index) => Some(format!("hook:{}", index + 1)),
            Sid::Deliver => None,
        };
        Ok(sids.iter().filter_map(text).collect())
    }
}

/// Threads that compute backups.
const THREADS: usize = 2;

impl Shown {
    pub(super) fn json(&self) -> Value {
        let links: Vec<_> = self
            .links
            .iter()
            .map(|link| {
                json!({
                    "ends": link.ends,
                    "cost": link.cost,
                    "delay_us": link.delay.map(Delay::us),
                    "capacity_bps": link.capacity.map(BitRate::bps),
                })
            })
            .collect();
        let mut path = json!({
            "nodes": self.nodes,
            "links": links,
            "cost": self.cost,
            "delay_us": self.delay_us,
            "bottleneck_bps": self.bottleneck.map(BitRate::bps),
            "segments": self.segments.as_ref().ok(),
        });
        if let Err(why) = &self.segments {
            path["segments_refused"] = json!(why);
        }
        if let Some(backups) = &self.backups {
            let json = |way: &Option<Shown>| way.as_ref().map(Self::json);
            let each = backups.iter();
            let each = each.map(|way| json!({ "link": json(&way.link), "node": json(&way.node) }));
            path["backups"] = each.collect();
        }
        path
    }

    pub(super) fn print(&self) {
        println!("{}", self.nodes.join(" > "));
        let stated = |figure: Option<String>| figure.unwrap_or_else(|| "not stated".to_owned());
        for (at, ShownLink { ends, capacity, delay, cost }) in self.links.iter().enumerate() {
            let capacity = stated(capacity.map(|rate| rate.to_string()));
            let delay = stated(delay.map(|delay| delay.to_string()));
            println!("  {ends}  cost {cost}, delay {delay}, capacity {capacity}");
            if let Some(around) = self.backups.as_ref().map(|backups| &backups[at]) {
                println!("    without this link: {}", way(around.link.as_ref()));
                if !around.is_last {
                    let node = &self.nodes[at + 1];
                    println!("    without {node}: {}", way(around.node.as_ref()));
                }
            }
        }
        let delay = Delay(self.delay_us);
        let bottleneck = stated(self.bottleneck.map(|rate| rate.to_string()));
        println!("cost {}, delay {delay}, bottleneck {bottleneck}", self.cost);
        println!("way-points: {}", self.waypoints());
    }

    fn waypoints(&self) -> String {
        match &self.segments {
            Ok(waypoints) if waypoints.is_empty() => "none".to_owned(),
            Ok(waypoints) => waypoints.join(", "),
            Err(why) => format!("none possible: {why}"),
        }
    }
}

fn way(backup: Option<&Shown>) -> String {
    let Some(backup) = backup else { return "no way".to_owned() };
    format!("{}, way-points: {}", backup.nodes.join(" > "), backup.waypoints())
}

/// A constraint as it would have to be, by the option that sets it.
pub(super) fn relaxed(snapshot: &Snapshot, relaxation: &Relaxation) -> Value {
    let elements = |of: &selvedge_topology::Elements| -> Value {
        let nodes: Vec<_> = of.nodes.iter().map(|node| snapshot.name(*node).as_str()).collect();
        let links: Vec<_> = of.links.iter().map(|link| snapshot.link(*link).to_string()).collect();
        json!({ "nodes": nodes, "links": links, "srlgs": of.srlgs })
    };
    let link = |link: LinkIx| snapshot.link(link).to_string();
    match relaxation {
        Relaxation::MaxDelay { asked, needed } => {
            json!({ "max_delay": { "asked_us": asked.us(), "needed_us": needed.us() } })
        }
        Relaxation::MaxHops { asked, needed } => {
            json!({ "max_hops": { "asked": asked, "needed": needed } })
        }
        Relaxation::Bandwidth { asked, available, bottleneck } => json!({ "bandwidth": {
            "asked_bps": asked.bps(),
            "available_bps": available.bps(),
            "bottleneck": link(bottleneck.link()),
        }}),
        Relaxation::Affinity { links } => {
            let links: Vec<String> = links.iter().map(|of| link(*of)).collect();
            json!({ "affinity": { "links": links } })
        }
        Relaxation::Exclude { elements: of } => json!({ "exclude": elements(of) }),
        Relaxation::Include { elements: of } => json!({ "include": elements(of) }),
    }
}
