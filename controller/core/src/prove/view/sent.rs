//! Where a policy sends packets, id by id, as the pipeline does.

use selvedge_pipeline::{Entry, FUNCTION_UDT46, HookId, Key, LocalSidAction, PolicyId, PortId};

use super::super::class::{LOOP, LOST, UNKNOWN};
use super::{FIRST_FUNCTION, View};

/// One packet that a policy sent off.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    /// Where it ended.
    pub(crate) at: usize,
    /// Compute functions on the way, in order.
    pub(crate) hooks: Vec<(usize, HookId)>,
    pub(crate) end: End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Stripped of its outer header.
    Decapsulated,
    /// At a switch whose entries are not known.
    Unknown,
    Loop,
    Lost(Why),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    NoPolicy(PolicyId),
    TooManyIds(PolicyId),
    UnknownId(u16),
    NoWay(u16),
    TooManyLocal,
    HopLimit,
}

/// Rounds of the local-id loop in one switch.
const ROUNDS: usize = 4;
/// Ids of 16 bits after the block in an outer destination.
const IDS: usize = 6;
/// Links that a packet crosses at most: its first hop limit is 64, and one that arrives with 1
/// is still decapsulated.
const HOPS: usize = 64;

impl View {
    /// What becomes of packets that `policy` sends off at `ingress`: of those on each of its
    /// paths, one at least. `arcs`: given each path's place and each link on its way.
    pub(crate) fn sent(
        &self,
        ingress: usize,
        policy: PolicyId,
        mut arcs: Option<&mut dyn FnMut(usize, usize, PortId)>,
    ) -> Vec<Sent> {
        let lost = |end| vec![Sent { at: ingress, hooks: Vec::new(), end }];
        if !self.nodes[ingress].known() {
            return lost(End::Unknown);
        }
        let paths = match self.nodes[ingress].get(&Key::Policy(policy)) {
            Some(Entry::Policy(entry)) if !entry.paths.is_empty() => &entry.paths,
            _ => return lost(End::Lost(Why::NoPolicy(policy))),
        };
        let each = paths.iter().enumerate().map(|(place, path)| {
            if path.sids.len() > IDS {
                let end = End::Lost(Why::TooManyIds(policy));
                return Sent { at: ingress, hooks: Vec::new(), end };
            }
            match &mut arcs {
                None => self.sent_along(ingress, &path.sids, None),
                Some(arcs) => {
                    let mut of_path = |node, port| arcs(place, node, port);
                    self.sent_along(ingress, &path.sids, Some(&mut of_path))
                }
            }
        });
        each.collect()
    }

    /// Steps C.3 of the pipeline, from one end of a class to the next.
    fn sent_along(
        &self,
        ingress: usize,
        sids: &[u16],
        mut arcs: Option<&mut dyn FnMut(usize, PortId)>,
    ) -> Sent {
        let mut sent = Sent { at: ingress, hooks: Vec::new(), end: End::Unknown };
        let mut ids = sids.iter().copied().chain(std::iter::repeat(0));
        let mut active = ids.next().expect("endless");
        let (mut rounds, mut hops) = (0, 0);
        sent.end = loop {
            if let Some(action) = self.nodes[sent.at].local(active) {
                if rounds == ROUNDS {
                    break End::Lost(Why::TooManyLocal);
                }
                rounds += 1;
                match action {
                    LocalSidAction::Decapsulate => break End::Decapsulated,
                    LocalSidAction::Node => {}
                    LocalSidAction::Compute { hook, .. } => {
                        sent.hooks.push((sent.at, hook));
                        rounds = 0; // it comes in anew, from the compute port
                    }
                }
                active = ids.next().expect("endless");
                continue;
            }
            if rounds == ROUNDS {
                break End::Lost(Why::TooManyLocal);
            }
            if active == 0 || active >= FIRST_FUNCTION {
                break End::Lost(Why::UnknownId(active));
            }
            let Some(class) = self.classes.get(usize::from(active)) else {
                break End::Lost(Why::NoWay(active));
            };
            let end = class.end[sent.at];
            if let Some(arcs) = &mut arcs {
                // As far as it goes; in a circle once round is enough.
                let mut left = self.nodes.len();
                while class.next[sent.at] < UNKNOWN && usize::from(class.next[sent.at]) != sent.at {
                    if left == 0 {
                        break;
                    }
                    left -= 1;
                    if let Some((port, _)) = class.hop[sent.at] {
                        arcs(sent.at, port);
                    }
                    sent.at = usize::from(class.next[sent.at]);
                }
            }
            match end {
                LOST => break End::Lost(Why::NoWay(active)),
                LOOP => break End::Loop,
                UNKNOWN => break End::Unknown,
                _ => {}
            }
            if arcs.is_none() {
                hops += usize::from(class.hops[sent.at]);
                sent.at = usize::from(end);
            }
            if hops > HOPS {
                break End::Lost(Why::HopLimit);
            }
            rounds = 0;
        };
        sent
    }
}

/// For messages.
pub(crate) fn function_name(id: u16) -> &'static str {
    if id == FUNCTION_UDT46 { "uDT46" } else { "the function" }
}
