//! The answer in words.

use std::fmt::Write as _;

use super::{Never, NoPath, Relaxation};
use crate::{BitRate, Delay, Disjoint, Elements, LinkIx, Shared, Snapshot};

impl NoPath {
    /// For people, with the snapshot's names.
    pub fn describe(&self, snapshot: &Snapshot) -> String {
        let (from, to) = (snapshot.name(self.from), snapshot.name(self.to));
        let what = match self.disjoint {
            None => format!("no path from {from} to {to} keeps"),
            Some(disjoint) => {
                let element = disjoint.describe();
                match &self.never {
                    None => {
                        format!("no two paths from {from} to {to} that share no {element} keep")
                    }
                    Some(_) => format!("no two paths from {from} to {to} share no {element}"),
                }
            }
        };
        match self.never {
            None => {}
            Some(Never::Disconnected { reached }) => {
                let switches = snapshot.len();
                return format!(
                    "{from} and {to} are not connected: from {from} one reaches {reached} of \
                     {switches} switches"
                );
            }
            Some(Never::Shared(shared)) => {
                return format!("{what}: every path passes {}", shared.describe(snapshot));
            }
            Some(Never::NoSecond) => {
                return format!("{what}: whatever the first is, no second one is left");
            }
        }
        let mut text = format!("{what} to the constraints");
        for (i, alternative) in self.alternatives.iter().enumerate() {
            let all: Vec<String> = alternative.iter().map(|one| one.describe(snapshot)).collect();
            let so = match (i, self.disjoint) {
                (0, None) => "; there is one",
                (0, Some(_)) => "; there are two",
                _ => ", or",
            };
            write!(text, "{so} {}", all.join(" and ")).expect("strings take all");
        }
        text
    }
}

impl Relaxation {
    /// As in "there is one ...".
    pub fn describe(&self, snapshot: &Snapshot) -> String {
        let named = |elements: &Elements| elements.describe(snapshot);
        match self {
            Self::MaxDelay { asked, needed } => {
                let more = Delay(needed.us() - asked.us());
                format!("with a delay of {needed} ({more} more than asked)")
            }
            Self::MaxHops { asked, needed } => {
                format!("with {needed} hops ({} more than asked)", needed - asked)
            }
            Self::Bandwidth { asked, available, bottleneck } => {
                let less = BitRate(asked.bps() - available.bps());
                let link = snapshot.link(bottleneck.link());
                format!("with {available} ({less} less than asked; the bottleneck is {link})")
            }
            Self::Affinity { links } => {
                let name = |link: &LinkIx| snapshot.link(*link).to_string();
                let links: Vec<String> = links.iter().map(name).collect();
                format!("if these links had the affinity: {}", links.join(", "))
            }
            Self::Exclude { elements } => format!("over what is excluded: {}", named(elements)),
            Self::Include { elements } => format!("without passing {}", named(elements)),
        }
    }
}

impl Elements {
    /// For people, with the snapshot's names.
    pub fn describe(&self, snapshot: &Snapshot) -> String {
        let nodes = self.nodes.iter().map(|node| snapshot.name(*node).to_string());
        let links = self.links.iter().map(|link| snapshot.link(*link).to_string());
        let srlgs = self.srlgs.iter().map(|srlg| format!("shared-risk group {srlg}"));
        nodes.chain(links).chain(srlgs).collect::<Vec<_>>().join(", ")
    }
}

impl Disjoint {
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Node => "node",
            Self::Srlg => "shared-risk group",
        }
    }
}

impl Shared {
    /// For people, with the snapshot's names.
    pub fn describe(self, snapshot: &Snapshot) -> String {
        match self {
            Self::Node(node) => format!("switch {}", snapshot.name(node)),
            Self::Link(link) => format!("link {}", snapshot.link(link)),
            Self::Srlg(srlg) => format!("shared-risk group {srlg}"),
        }
    }
}
