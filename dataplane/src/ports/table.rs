//! Which interface carries which port. Pure: observed links in, ordered actions out.
//!
//! A port is a name; its number is given once and kept as long as the pins live, so that an
//! interface that goes and comes back (a moved host, a reloaded driver) is the same port.
//! Every pass takes all links there are, so that a lost netlink message costs nothing; what
//! was deleted in between is said apart, because the kernel has forgotten an interface that
//! left its namespace even when it is back under the same name and index.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_pipeline::PortId;

use super::glob;
use crate::options::PortRule;

/// Port numbers (pipeline, `PortId`).
pub const MAX_PORTS: u16 = 255;

/// One interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub ifindex: u32,
    pub name: String,
    /// `None`: not an Ethernet interface, which cannot be a port.
    pub mac: Option<[u8; 6]>,
    /// Up and with carrier.
    pub up: bool,
    pub is_veth: bool,
    /// Of a veth pair.
    pub far: Option<Far>,
}

/// The far end of a veth pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Far {
    pub ifindex: u32,
    /// This namespace's number for the far end's; `None`: it is this one.
    pub namespace: Option<i32>,
}

/// A port that has an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    pub name: String,
    pub link: Link,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The port's interface is gone or another.
    Detach(PortId),
    /// Bring the interface up and put the programs on it.
    Attach(PortId, Port),
    /// Carrier or MAC address changed.
    Update(PortId, Port),
}

/// Why an interface that a rule names is not a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    #[error("interface {0:?} is no Ethernet interface")]
    NotEthernet(String),
    #[error("interface {0:?}: all {MAX_PORTS} port numbers are taken")]
    NoNumber(String),
    #[error("interface {0:?}: port name {1:?} is already used by interface {2:?}")]
    NameTaken(String, String, String),
}

#[derive(Debug)]
pub struct Table {
    rules: Vec<PortRule>,
    numbers: BTreeMap<String, PortId>,
    attached: BTreeMap<PortId, Port>,
    refused: BTreeSet<Refusal>,
}

impl Table {
    /// `numbers`: names that have a number from before.
    pub fn new(rules: Vec<PortRule>, numbers: impl IntoIterator<Item = (String, PortId)>) -> Self {
        Self {
            rules,
            numbers: numbers.into_iter().collect(),
            attached: BTreeMap::new(),
            refused: BTreeSet::new(),
        }
    }

    pub fn ports(&self) -> &BTreeMap<PortId, Port> {
        &self.attached
    }

    /// The port that `ifindex` carries.
    pub fn by_ifindex(&self, ifindex: u32) -> Option<PortId> {
        self.attached.iter().find(|(_, port)| port.link.ifindex == ifindex).map(|(id, _)| *id)
    }

    /// One pass: what to do about `links`, detachments first. `deleted` are interface indices
    /// that went away since the last pass, whether or not they are back. `allocate` gives a
    /// name that has none a number, for good. Second: refusals that the last pass did not have.
    pub fn observe(
        &mut self,
        links: &[Link],
        deleted: &BTreeSet<u32>,
        mut allocate: impl FnMut(&str) -> Option<PortId>,
    ) -> (Vec<Action>, Vec<Refusal>) {
        let mut wanted: BTreeMap<String, &Link> = BTreeMap::new();
        let mut refused = BTreeSet::new();
        for link in links {
            let Some(name) = self.port_name(&link.name) else { continue };
            if link.mac.is_none() {
                refused.insert(Refusal::NotEthernet(link.name.clone()));
            } else if let Some(first) = wanted.get(name) {
                let first = first.name.clone();
                refused.insert(Refusal::NameTaken(link.name.clone(), name.to_owned(), first));
            } else {
                wanted.insert(name.to_owned(), link);
            }
        }

        let mut actions = Vec::new();
        self.attached.retain(|id, port| {
            let link = wanted.get(&port.name);
            let stays = link.is_some_and(|link| link.ifindex == port.link.ifindex)
                && !deleted.contains(&port.link.ifindex);
            if !stays {
                actions.push(Action::Detach(*id));
            }
            stays
        });
        // p2 before p10, so that fresh numbers follow the names.
        let mut wanted: Vec<(String, &Link)> = wanted.into_iter().collect();
        wanted.sort_by_key(|(name, _)| name.len());
        for (name, link) in wanted {
            let id = match self.numbers.get(&name) {
                Some(id) => *id,
                None => match allocate(&name) {
                    Some(id) => id,
                    None => {
                        refused.insert(Refusal::NoNumber(link.name.clone()));
                        continue;
                    }
                },
            };
            self.numbers.insert(name.clone(), id);
            let port = Port { name, link: link.clone() };
            match self.attached.insert(id, port.clone()) {
                None => actions.push(Action::Attach(id, port)),
                Some(was) if was != port => actions.push(Action::Update(id, port)),
                Some(_) => {}
            }
        }
        let news = refused.difference(&self.refused).cloned().collect();
        self.refused = refused;
        (actions, news)
    }

    /// An attachment failed: the next pass tries it again.
    pub fn failed(&mut self, id: PortId) {
        self.attached.remove(&id);
    }

    /// The name of the port that an interface of this name is. Rules that name it come first.
    fn port_name<'a>(&'a self, interface: &'a str) -> Option<&'a str> {
        let named = self.rules.iter().find_map(|rule| match rule {
            PortRule::Named { port, interface: i } if i == interface => Some(port.as_str()),
            _ => None,
        });
        let matched = || {
            let matches = self.rules.iter().any(|rule| match rule {
                PortRule::Glob(pattern) => glob::matches(pattern, interface),
                PortRule::Named { .. } => false,
            });
            (matches && !is_compute(interface) && interface != "lo").then_some(interface)
        };
        named.or_else(matched)
    }
}

/// Interfaces that [`crate::hooks`] makes: `hk<N>` and `hk<N>x`.
fn is_compute(interface: &str) -> bool {
    interface.strip_prefix("hk").is_some_and(|rest| {
        let digits = rest.strip_suffix('x').unwrap_or(rest);
        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn link(ifindex: u32, name: &str) -> Link {
        Link { ifindex, name: name.into(), mac: Some([2; 6]), up: true, is_veth: true, far: None }
    }

    fn globs(patterns: &[&str]) -> Vec<PortRule> {
        patterns.iter().map(|p| PortRule::Glob((*p).to_owned())).collect()
    }

    fn named(port: &str, interface: &str) -> PortRule {
        PortRule::Named { port: port.into(), interface: interface.into() }
    }

    /// The lowest free number, as the pinned facts have it.
    fn observe(table: &mut Table, links: &[Link], deleted: &[u32]) -> (Vec<Action>, Vec<Refusal>) {
        let mut taken: BTreeSet<u16> = table.numbers.values().map(|id| id.0).collect();
        table.observe(links, &deleted.iter().copied().collect(), |_| {
            let id = (1..=MAX_PORTS).find(|id| !taken.contains(id))?;
            taken.insert(id);
            Some(PortId(id))
        })
    }

    /// Actions in a form that fits a table: `+3 p3@7`, `-3`, `~3 p3@7`.
    fn brief(actions: &[Action]) -> Vec<String> {
        let text = |sign, id: &PortId, port: &Port| {
            format!("{sign}{} {}@{}", id.0, port.name, port.link.ifindex)
        };
        let one = |action: &Action| match action {
            Action::Detach(id) => format!("-{}", id.0),
            Action::Attach(id, port) => text('+', id, port),
            Action::Update(id, port) => text('~', id, port),
        };
        actions.iter().map(one).collect()
    }

    #[test]
    fn interfaces_come_go_and_return() {
        let mut table = Table::new(globs(&["p*"]), [("p9".to_owned(), PortId(2))]);
        let down = Link { up: false, ..link(11, "p1") };
        // (links, deleted, actions)
        let script: &[(Vec<Link>, &[u32], &[&str])] = &[
            (vec![link(1, "lo"), link(10, "mgmt0")], &[], &[]),
            (vec![link(11, "p1"), link(12, "p2")], &[], &["+1 p1@11", "+3 p2@12"]),
            (vec![link(11, "p1"), link(12, "p2")], &[], &[]),
            (vec![down.clone(), link(12, "p2")], &[], &["~1 p1@11"]),
            // Same name and index, but it was away.
            (vec![down.clone(), link(12, "p2")], &[12], &["-3", "+3 p2@12"]),
            // Another interface under the name.
            (vec![down.clone(), link(13, "p2")], &[12], &["-3", "+3 p2@13"]),
            // Renamed out of the pattern, and into it.
            (vec![down.clone(), link(13, "x2")], &[], &["-3"]),
            (vec![down.clone(), link(13, "p9")], &[], &["+2 p9@13"]),
            (vec![], &[11, 13], &["-1", "-2"]),
            (vec![link(20, "p2")], &[], &["+3 p2@20"]),
        ];
        for (step, (links, deleted, want)) in script.iter().enumerate() {
            let (actions, refused) = observe(&mut table, links, deleted);
            assert_eq!(brief(&actions), *want, "step {step}");
            assert_eq!(refused, [], "step {step}");
        }
        assert_eq!(table.by_ifindex(20), Some(PortId(3)));
        assert_eq!(table.by_ifindex(11), None);
    }

    #[test]
    fn rules_choose_and_refuse() {
        let mut rules = globs(&["*"]);
        rules.extend([named("north", "eth0"), named("p7", "eth1")]);
        let mut table = Table::new(rules, []);
        let tunnel = Link { mac: None, ..link(9, "tun0") };
        let links = [
            link(1, "lo"),
            link(2, "eth0"),
            link(3, "eth1"),
            link(4, "hk0"),
            link(5, "hk0x"),
            link(6, "hkey"),
            link(7, "p7"),
            tunnel,
        ];
        let (actions, refused) = observe(&mut table, &links, &[]);
        assert_eq!(brief(&actions), ["+1 p7@3", "+2 hkey@6", "+3 north@2"]);
        assert_eq!(
            refused,
            [
                Refusal::NotEthernet("tun0".into()),
                Refusal::NameTaken("p7".into(), "p7".into(), "eth1".into()),
            ]
        );
        let (_, refused) = observe(&mut table, &links, &[]);
        assert_eq!(refused, [], "said once");
    }

    #[test]
    fn a_failed_attachment_is_tried_again() {
        let mut table = Table::new(globs(&["p*"]), []);
        observe(&mut table, &[link(5, "p1")], &[]);
        table.failed(PortId(1));
        let (actions, _) = observe(&mut table, &[link(5, "p1")], &[]);
        assert_eq!(brief(&actions), ["+1 p1@5"]);
    }

    #[test]
    fn numbers_run_out() {
        let mut table = Table::new(globs(&["p*"]), []);
        let links: Vec<Link> = (0..256).map(|n| link(10 + n, &format!("p{n}"))).collect();
        let (actions, refused) = observe(&mut table, &links, &[]);
        assert_eq!(actions.len(), 255);
        assert_eq!(refused, [Refusal::NoNumber("p255".into())]);
    }

    proptest! {
        /// Whatever comes and goes, carrying out the actions in order gives each wanted
        /// interface one port, and a name keeps its number.
        #[test]
        fn actions_lead_to_the_links(
            passes in prop::collection::vec(
                prop::collection::btree_map(0u8..12, 1u32..30, 0..8), 1..20)
        ) {
            let mut table = Table::new(globs(&["p*"]), []);
            let mut state: BTreeMap<PortId, Port> = BTreeMap::new();
            let mut numbers: BTreeMap<String, PortId> = BTreeMap::new();
            let mut before: BTreeSet<u32> = BTreeSet::new();
            for pass in passes {
                let links: Vec<Link> =
                    pass.iter().map(|(n, index)| link(*index, &format!("p{n}"))).collect();
                let indices: BTreeSet<u32> = links.iter().map(|l| l.ifindex).collect();
                let deleted: Vec<u32> = before.difference(&indices).copied().collect();
                for action in observe(&mut table, &links, &deleted).0 {
                    match action {
                        Action::Detach(id) => prop_assert!(state.remove(&id).is_some()),
                        Action::Attach(id, port) => {
                            prop_assert_eq!(*numbers.entry(port.name.clone()).or_insert(id), id);
                            prop_assert!(state.insert(id, port).is_none());
                        }
                        Action::Update(id, port) => {
                            prop_assert!(state.insert(id, port).is_some());
                        }
                    }
                }
                let mut have: Vec<_> = state.values().map(|port| port.link.clone()).collect();
                let mut want = links.clone();
                have.sort_by(|a, b| a.name.cmp(&b.name));
                want.sort_by(|a, b| a.name.cmp(&b.name));
                prop_assert_eq!(have, want);
                before = indices;
            }
        }
    }
}
