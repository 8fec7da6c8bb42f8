//! A path, for people and for programs.

use selvedge_topology::{
    BitRate, Delay, Forwarding, MAX_SIDS, NodeIx, Path, Sid, Snapshot, encode,
};
use serde_json::json;

/// Shows paths of one network.
pub(super) struct Shower<'a> {
    snapshot: &'a Snapshot,
    forwarding: Forwarding,
    hooks: &'a [NodeIx],
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
}

struct ShownLink {
    ends: String,
    capacity: Option<BitRate>,
    delay: Option<Delay>,
    cost: u32,
}

impl<'a> Shower<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, hooks: &'a [NodeIx]) -> Self {
        Self { snapshot, forwarding: Forwarding::new(snapshot), hooks }
    }

    pub(super) fn show(&self, path: &Path) -> Shown {
        let snapshot = self.snapshot;
        let link = |ix: &selvedge_topology::ArcIx| {
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
            segments: self.segments(path),
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

impl Shown {
    pub(super) fn json(&self) -> serde_json::Value {
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
        path
    }

    pub(super) fn print(&self) {
        println!("{}", self.nodes.join(" > "));
        let stated = |figure: Option<String>| figure.unwrap_or_else(|| "not stated".to_owned());
        for ShownLink { ends, capacity, delay, cost } in &self.links {
            let capacity = stated(capacity.map(|rate| rate.to_string()));
            let delay = stated(delay.map(|delay| delay.to_string()));
            println!("  {ends}  cost {cost}, delay {delay}, capacity {capacity}");
        }
        let delay = Delay(self.delay_us);
        let bottleneck = stated(self.bottleneck.map(|rate| rate.to_string()));
        println!("cost {}, delay {delay}, bottleneck {bottleneck}", self.cost);
        match &self.segments {
            Ok(waypoints) if waypoints.is_empty() => println!("way-points: none"),
            Ok(waypoints) => println!("way-points: {}", waypoints.join(", ")),
            Err(why) => println!("way-points: none possible: {why}"),
        }
    }
}
