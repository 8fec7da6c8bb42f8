//! The numbers that entries carry in place of names: given once, kept in the store.
//!
//! A number that is released is not given again until all others have been, so that packets
//! in flight never meet a number that has changed its meaning.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use selvedge_pipeline::{Direction, HookId, NodeSid, PolicyId, SliceId, SliceSet};
use selvedge_slices::ObjectName;
use selvedge_topology::NodeName;
use serde::{Deserialize, Serialize};

use crate::refusal::Refusal;

/// The slice of endpoints that no slice names; no file can name it.
pub(crate) const DEFAULT_SLICE: &str = ObjectName::DEFAULT_SLICE;

/// The first policy number that is not the default slice's: in that slice the policy towards
/// a node has the node's own number.
const FIRST_POLICY: u32 = 4096;

/// The first number of a set of slices: below are slices.
const FIRST_SET: u32 = SliceId::MAX.0 as u32 + 1;
/// Where slices ended before there could be so many; sets began after it.
const OLD_LAST_SLICE: u32 = 4095;

/// Numbers of one kind, by name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Pool {
    first: u32,
    last: u32,
    /// Where the search for a free number starts.
    next: u32,
    pub(crate) numbers: BTreeMap<String, u32>,
    /// Those of `numbers`, or too many: made anew when it is not as long.
    #[serde(skip)]
    used: BTreeSet<u32>,
}

impl PartialEq for Pool {
    fn eq(&self, other: &Self) -> bool {
        (self.first, self.last, self.next) == (other.first, other.last, other.next)
            && self.numbers == other.numbers
    }
}

impl Eq for Pool {}

impl Pool {
    const fn new(first: u32, last: u32) -> Self {
        Self { first, last, next: first, numbers: BTreeMap::new(), used: BTreeSet::new() }
    }

    /// The number of `name`, given now if it has none. `None`: all are in use.
    fn number(&mut self, name: &str) -> Option<u32> {
        if let Some(number) = self.numbers.get(name) {
            return Some(*number);
        }
        let span = self.last - self.first + 1;
        if self.numbers.len() >= span as usize {
            return None;
        }
        if self.used.len() != self.numbers.len() {
            self.used = self.numbers.values().copied().collect();
        }
        let mut candidate = self.next;
        while self.used.contains(&candidate) {
            candidate = if candidate == self.last { self.first } else { candidate + 1 };
        }
        self.next = if candidate == self.last { self.first } else { candidate + 1 };
        self.numbers.insert(name.to_owned(), candidate);
        self.used.insert(candidate);
        Some(candidate)
    }

    /// As a pool of this kind, where it is from when slices were numbered to 4,095 only: a set
    /// whose number a slice can have now is given another.
    fn widened(mut self, like: &Self) -> Self {
        let old = (self.first == like.first && self.last == OLD_LAST_SLICE)
            || (self.first == OLD_LAST_SLICE + 1 && like.first == FIRST_SET);
        if old {
            (self.first, self.last) = (like.first, like.last);
            self.next = self.next.max(like.first);
            self.numbers.retain(|_, number| *number >= like.first);
        }
        self
    }

    /// Whether what a store returned can have come from a pool of this kind.
    fn is_sound(&self, like: &Self) -> bool {
        let range = like.first..=like.last;
        let mut numbers: Vec<u32> = self.numbers.values().copied().collect();
        numbers.sort_unstable();
        let unique = numbers.windows(2).all(|pair| pair[0] != pair[1]);
        (self.first, self.last) == (like.first, like.last)
            && range.contains(&self.next)
            && unique
            && numbers.iter().all(|number| range.contains(number))
    }
}

/// Cheap to clone: pools are shared until they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Numbers {
    nodes: Arc<Pool>,
    slices: Arc<Pool>,
    /// By the members' slice ids in rising order, joined by `+`; `/dn` behind for that side.
    sets: Arc<Pool>,
    /// By application, rule and fields.
    rules: Arc<Pool>,
    /// Of one ingress switch; by slice and path.
    policies: BTreeMap<NodeName, Arc<Pool>>,
    /// Of one switch; by slice and hook.
    hooks: BTreeMap<NodeName, Arc<Pool>>,
}

const POLICIES: Pool = Pool::new(FIRST_POLICY, 65_535);
const HOOKS: Pool = Pool::new(0, 255);

impl Default for Numbers {
    fn default() -> Self {
        Self::new()
    }
}

impl Numbers {
    pub(crate) fn new() -> Self {
        let mut slices = Pool::new(1, SliceId::MAX.0.into());
        let default = slices.number(DEFAULT_SLICE);
        debug_assert_eq!(default, Some(u32::from(SliceId::DEFAULT.0)));
        Self {
            nodes: Arc::new(Pool::new(1, 4095)),
            slices: Arc::new(slices),
            sets: Arc::new(Pool::new(FIRST_SET, 65_535)),
            rules: Arc::new(Pool::new(0, 0xFFFF)),
            policies: BTreeMap::new(),
            hooks: BTreeMap::new(),
        }
    }

    pub(crate) fn node(&mut self, name: &NodeName) -> Result<NodeSid, Refusal> {
        number(&mut self.nodes, name.as_str(), "switches").map(NodeSid)
    }

    pub(crate) fn slice(&mut self, name: &str) -> Result<SliceId, Refusal> {
        number(&mut self.slices, name, "slices").map(SliceId)
    }

    /// The number of a set of slices, given in rising order. One slice is its own set; `apart`:
    /// the endpoints on its `dn` side, where those on the `ue` side are another set.
    pub(crate) fn set(&mut self, slices: &[SliceId], apart: bool) -> Result<SliceSet, Refusal> {
        if let ([slice], false) = (slices, apart) {
            return Ok(SliceSet(slice.0));
        }
        let name: Vec<String> = slices.iter().map(|slice| slice.0.to_string()).collect();
        let name = name.join("+") + if apart { "/dn" } else { "" };
        number(&mut self.sets, &name, "sets of slices").map(SliceSet)
    }

    /// The default slice's policy towards a node.
    pub(crate) fn default_policy(node_sid: u16) -> PolicyId {
        PolicyId(u32::from(node_sid))
    }

    /// The policy at `ingress` that carries a direction of `slice` towards `egress`.
    pub(crate) fn policy(
        &mut self,
        ingress: &NodeName,
        slice: &str,
        egress: &NodeName,
        direction: Direction,
    ) -> Result<PolicyId, Refusal> {
        let pool = self.policies.entry(ingress.clone()).or_insert_with(|| Arc::new(POLICIES));
        let direction = match direction {
            Direction::Downlink => "down",
            Direction::Uplink => "up",
        };
        let name = format!("{slice}/{egress}/{direction}");
        given(pool, &name).map(PolicyId).ok_or(exhausted("policies of a switch", pool))
    }

    pub(crate) fn hook(
        &mut self,
        switch: &NodeName,
        slice: &str,
        hook: &str,
    ) -> Result<HookId, Refusal> {
        let pool = self.hooks.entry(switch.clone()).or_insert_with(|| Arc::new(HOOKS));
        number(pool, &format!("{slice}/{hook}"), "hooks of a switch").map(HookId)
    }

    pub(crate) fn rule(&mut self, name: &str) -> Result<u16, Refusal> {
        number(&mut self.rules, name, "traffic rules")
    }

    /// A node that has a number, by it.
    pub(crate) fn known_node(&self, name: &NodeName) -> Option<NodeSid> {
        self.nodes.numbers.get(name.as_str()).map(|number| NodeSid(narrow(*number)))
    }

    pub(crate) fn known_slice(&self, name: &str) -> Option<SliceId> {
        self.slices.numbers.get(name).map(|number| SliceId(narrow(*number)))
    }

    /// The hook of a number on a switch: `slice/hook`.
    pub(crate) fn hook_name(&self, switch: &NodeName, hook: HookId) -> Option<&str> {
        let pool = self.hooks.get(switch)?;
        let found = pool.numbers.iter().find(|(_, number)| **number == u32::from(hook.0))?;
        Some(found.0)
    }

    /// Gives back what belonged to slices that are gone, and numbers of rules that are.
    pub(crate) fn release(
        &mut self,
        slice_lives: impl Fn(&str) -> bool,
        rule_lives: impl Fn(&str) -> bool,
    ) {
        keep(&mut self.rules, rule_lives);
        if !keep(&mut self.slices, |name| name == DEFAULT_SLICE || slice_lives(name)) {
            return;
        }
        let of_living = |name: &str| slice_lives(name.split('/').next().unwrap_or_default());
        for pool in self.policies.values_mut().chain(self.hooks.values_mut()) {
            keep(pool, of_living);
        }
        // A set of several slices lives while each of its slices has a number.
        let living: std::collections::BTreeSet<String> =
            self.slices.numbers.values().map(u32::to_string).collect();
        keep(&mut self.sets, |name| {
            let members = name.split('/').next().unwrap_or_default();
            members.split('+').all(|slice| living.contains(slice))
        });
    }

    /// Record key below `number/` and pool.
    pub(crate) fn pools(&self) -> impl Iterator<Item = (String, &Arc<Pool>)> {
        let single = [
            ("node", &self.nodes),
            ("slice", &self.slices),
            ("set", &self.sets),
            ("rule", &self.rules),
        ];
        let policies = self.policies.iter().map(|(node, pool)| (format!("policy/{node}"), pool));
        let hooks = self.hooks.iter().map(|(node, pool)| (format!("hook/{node}"), pool));
        single.into_iter().map(|(key, pool)| (key.to_owned(), pool)).chain(policies).chain(hooks)
    }

    /// Puts back a pool that [`Numbers::pools`] gave. False: it cannot have come from there.
    pub(crate) fn restore(&mut self, key: &str, pool: Pool) -> bool {
        let (slot, like) = match key.split_once('/') {
            None => {
                let slot = match key {
                    "node" => &mut self.nodes,
                    "slice" => &mut self.slices,
                    "set" => &mut self.sets,
                    "rule" => &mut self.rules,
                    _ => return false,
                };
                let like = (**slot).clone();
                (slot, like)
            }
            Some((kind, node)) => {
                let Ok(node) = node.parse::<NodeName>() else { return false };
                match kind {
                    "policy" => {
                        (self.policies.entry(node).or_insert_with(|| Arc::new(POLICIES)), POLICIES)
                    }
                    "hook" => (self.hooks.entry(node).or_insert_with(|| Arc::new(HOOKS)), HOOKS),
                    _ => return false,
                }
            }
        };
        let default = key != "slice"
            || pool.numbers.get(DEFAULT_SLICE) == Some(&u32::from(SliceId::DEFAULT.0));
        let pool = match key {
            "slice" | "set" => pool.widened(&like),
            _ => pool,
        };
        let sound = default && pool.is_sound(&like);
        if sound {
            *slot = Arc::new(pool);
        }
        sound
    }
}

/// The number of a name, given now if it has none; a pool that has it stays shared.
fn given(pool: &mut Arc<Pool>, name: &str) -> Option<u32> {
    let known = pool.numbers.get(name).copied();
    known.or_else(|| Arc::make_mut(pool).number(name))
}

/// Gives back the numbers of other names; says whether there were any.
fn keep(pool: &mut Arc<Pool>, lives: impl Fn(&str) -> bool) -> bool {
    let dead = pool.numbers.keys().any(|name| !lives(name));
    if dead {
        Arc::make_mut(pool).numbers.retain(|name, _| lives(name));
    }
    dead
}

fn number(pool: &mut Arc<Pool>, name: &str, what: &'static str) -> Result<u16, Refusal> {
    given(pool, name).map(narrow).ok_or(exhausted(what, pool))
}

fn exhausted(what: &'static str, pool: &Pool) -> Refusal {
    Refusal::NumbersExhausted { what, limit: (pool.last - pool.first + 1) as usize }
}

fn narrow(number: u32) -> u16 {
    u16::try_from(number).expect("the pools end at 65535")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_kept_and_not_given_again_soon() {
        let mut pool = Pool::new(1, 3);
        assert_eq!(pool.number("a"), Some(1));
        assert_eq!(pool.number("b"), Some(2));
        assert_eq!(pool.number("a"), Some(1));
        pool.numbers.remove("a");
        assert_eq!(pool.number("c"), Some(3), "1 is free, but was used before");
        assert_eq!(pool.number("d"), Some(1), "nothing else is left");
        assert_eq!(pool.number("e"), None);
    }

    #[test]
    fn what_was_numbered_when_slices_were_fewer_is_taken() {
        let mut numbers = Numbers::new();
        let mut slices = Pool::new(1, 4095);
        slices.numbers = [(DEFAULT_SLICE.to_owned(), 1), ("a".to_owned(), 4095)].into();
        assert!(numbers.restore("slice", slices));
        assert_eq!(numbers.known_slice("a"), Some(SliceId(4095)));
        let mut sets = Pool::new(4096, 65_535);
        sets.numbers = [("2+3".to_owned(), 4096), ("2+4".to_owned(), 20_000)].into();
        assert!(numbers.restore("set", sets));
        let mut set = |slices: &[u16]| {
            let slices: Vec<SliceId> = slices.iter().copied().map(SliceId).collect();
            numbers.set(&slices, false).unwrap().0
        };
        assert_eq!(set(&[2, 4]), 20_000);
        assert_eq!(set(&[2, 3]), 16_384, "4096 may be a slice's");
    }

    #[test]
    fn what_the_store_returns_is_checked() {
        let mut numbers = Numbers::new();
        let node: NodeName = "s1".parse().unwrap();
        numbers.node(&node).unwrap();
        numbers.slice("a").unwrap();
        numbers.policy(&node, "a", &node, Direction::Uplink).unwrap();
        let mut again = Numbers::new();
        for (key, pool) in numbers.pools() {
            assert!(again.restore(&key, (**pool).clone()), "{key}");
        }
        assert_eq!(again, numbers);
        let bad = |change: fn(&mut Pool)| {
            let mut pool = (*numbers.slices).clone();
            change(&mut pool);
            Numbers::new().restore("slice", pool)
        };
        assert!(bad(|_| ()));
        assert!(!bad(|pool| pool.numbers.extend([("b".to_owned(), 2)])), "two with one number");
        assert!(!bad(|pool| pool.numbers.extend([("b".to_owned(), 16_384)])), "out of range");
        assert!(
            !bad(|pool| pool.numbers.retain(|name, _| name != "default")),
            "default is always 1"
        );
        assert!(!bad(|pool| pool.next = 0));
        assert!(!again.restore("policy/UPPER", POLICIES));
        assert!(!again.restore("other", POLICIES));
    }
}
