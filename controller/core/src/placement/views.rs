//! What is said of placed applications: events, views, and why each node does or does not do.

use std::collections::BTreeMap;

use selvedge_slices::ObjectName;
use selvedge_slices::placement::Lack;
use selvedge_topology::NodeName;

use super::misplaced;
use crate::Core;
use crate::derived::Derived;
use crate::effect::{Effect, Severity};
use crate::view::{ApplicationExplanation, NodeVerdict, PlacementView};

impl Core {
    /// Keeps what was just derived: where applications are next time it is asked.
    pub(crate) fn take_places(&mut self) {
        let derived = self.derived.clone();
        let gone: Vec<NodeName> = misplaced(self, &derived.places).cloned().collect();
        for endpoint in gone {
            self.endpoints.learned.remove(&endpoint);
        }
        let places = derived.places.iter();
        let places = places.filter_map(|(name, place)| Some((name.clone(), place.node.clone()?)));
        self.places = places.collect();
    }

    pub(crate) fn log_places(
        &mut self,
        before: &Derived,
        after: &Derived,
        now_ms: u64,
        out: &mut Vec<Effect>,
    ) {
        for (name, place) in &after.places {
            let old = before.places.get(name);
            let (old_node, old_reason) =
                old.map_or((None, None), |old| (old.node.as_ref(), old.reason.as_ref()));
            match (old_node, &place.node) {
                (from, Some(to)) if from == Some(to) => {}
                (None, Some(to)) => {
                    let text = format!("on {to}");
                    self.log(Severity::Info, "application-placed", name, text, now_ms, out);
                }
                (Some(from), Some(to)) => {
                    let why = match &place.moved {
                        Some(why) => format!(": {why}"),
                        None if place.seen => ", where it was seen".to_owned(),
                        None => String::new(),
                    };
                    let text = format!("from {from} to {to}{why}");
                    self.log(Severity::Warning, "application-moved", name, text, now_ms, out);
                }
                (_, None) => {}
            }
            match &place.reason {
                Some(reason) if old_reason != Some(reason) => {
                    let kind = match place.node {
                        Some(_) => "application-unkept",
                        None => "application-unplaced",
                    };
                    self.log(Severity::Error, kind, name, reason.clone(), now_ms, out);
                }
                None if old_reason.is_some() => {
                    let text = String::from("it has what it needs again");
                    self.log(Severity::Info, "application-restored", name, text, now_ms, out);
                }
                _ => {}
            }
        }
    }

    /// Where applications are that were elsewhere or nowhere in another state.
    pub(crate) fn places_new_to(&self, before: &Self) -> Vec<String> {
        let new = self.places.iter().filter(|(name, node)| before.places.get(*name) != Some(node));
        new.map(|(name, node)| format!("application {name} on {node}")).collect()
    }

    /// `None`: the controller does not place it.
    pub(crate) fn placement_of(&self, name: &ObjectName) -> Option<PlacementView> {
        self.intent.applications.get(name)?.object.demand.as_ref()?;
        let place = self.derived.places.get(name).cloned().unwrap_or_default();
        Some(PlacementView { node: place.node, seen: place.seen, reason: place.reason })
    }

    /// Why an application is where it is: what every node would cost or lacks, tried one by one
    /// on a copy. `None`: there is none of that name.
    pub fn explain_application(&self, name: &str) -> Option<ApplicationExplanation> {
        let application = &self.intent.applications.get(name)?.object;
        let (placement, endpoint) =
            (self.placement_of(&application.name), application.endpoint.clone());
        let slices = self.intent.slices.naming(&endpoint);
        Some(ApplicationExplanation {
            application: name.to_owned(),
            slices: slices.map(ToString::to_string).collect(),
            nodes: if placement.is_some() { self.verdicts(&application.name) } else { Vec::new() },
            placement,
            endpoint,
        })
    }

    fn verdicts(&self, name: &ObjectName) -> Vec<NodeVerdict> {
        let request = self.request_of(name.as_str());
        self.with_placement(|placement, paths| {
            let nodes: Vec<NodeName> =
                placement.offers().iter().map(|offer| offer.name.clone()).collect();
            if placement.get(name.as_str()).is_some() {
                let found = placement.alternatives(paths, name);
                let verdicts = nodes.into_iter().zip(found).map(|(node, found)| match found {
                    Ok(cost) => NodeVerdict { node, cost: Some(cost), lacks: Vec::new() },
                    Err(lacks) => lacking(node, &lacks),
                });
                return verdicts.collect();
            }
            let Some(Err(refusal)) =
                request.map(|request| placement.place(paths, &request).map(drop))
            else {
                return Vec::new();
            };
            let lacks: BTreeMap<NodeName, Vec<Lack>> = refusal.nodes.into_iter().collect();
            let lacks_of = |node: &NodeName| lacks.get(node).cloned().unwrap_or_default();
            nodes.into_iter().map(|node| lacking(node.clone(), &lacks_of(&node))).collect()
        })
    }
}

fn lacking(node: NodeName, lacks: &[Lack]) -> NodeVerdict {
    NodeVerdict { node, cost: None, lacks: lacks.iter().map(Lack::to_string).collect() }
}
