//! The numbers that entries carry in place of names: given once, kept in the store.
//!
//! A number that is released is not given again until all others have been, so that packets
//! in flight never meet a number that has changed its meaning.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use selvedge_pipeline::{Direction, EndpointId, HookId, NodeSid, PolicyId, SliceId, SliceSet};
use selvedge_slices::ObjectName;
use selvedge_topology::NodeName;
use selvedge_topology::sorted::Sorted;
use serde::{Deserialize, Serialize};

use crate::records::{json, parse};
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

/// Numbers that one record holds.
const BUCKET: u32 = 64;

/// Numbers of one kind, by name. Cheap to clone and to compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pool {
    first: u32,
    last: u32,
    /// Where the search for a free number starts.
    next: u32,
    numbers: Sorted<Arc<str>, u32>,
    /// The other way round.
    names: Sorted<u32, Arc<str>>,
}

/// A pool without its numbers, which are in records of their own.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PoolRecord {
    first: u32,
    last: u32,
    next: u32,
    /// Where a pool was one record.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    numbers: BTreeMap<String, u32>,
}

impl Pool {
    fn new(first: u32, last: u32) -> Self {
        Self { first, last, next: first, numbers: Sorted::new(), names: Sorted::new() }
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
        let after = |number| if number == self.last { self.first } else { number + 1 };
        let mut candidate = self.next;
        while self.names.contains_key(&candidate) {
            candidate = after(candidate);
        }
        self.next = after(candidate);
        self.give(candidate, name);
        Some(candidate)
    }

    fn give(&mut self, number: u32, name: &str) {
        let name: Arc<str> = name.into();
        self.numbers.insert(name.clone(), number);
        self.names.insert(number, name);
    }

    fn give_back(&mut self, name: &str) {
        if let Some(number) = self.numbers.remove(name) {
            self.names.remove(&number);
        }
    }

    /// Records that are others than `before` has: what follows the pool in their keys, and the
    /// value; `None`: there is none any more.
    fn records_since(&self, before: Option<&Self>) -> Vec<(String, Option<Vec<u8>>)> {
        let Self { first, last, next, .. } = *self;
        let mut records = Vec::new();
        if before.is_none_or(|b| (b.first, b.last, b.next) != (first, last, next)) {
            let numbers = BTreeMap::new();
            let record = PoolRecord { first, last, next, numbers };
            records.push((String::new(), Some(json(&record))));
        }
        let mut buckets: BTreeSet<u32> = BTreeSet::new();
        let none = Sorted::new();
        let old = before.map_or(&none, |before| &before.names);
        old.differences(&self.names, |number, _, _| buckets.extend([number / BUCKET]));
        for bucket in buckets {
            let here = bucket * BUCKET..=bucket * BUCKET + (BUCKET - 1);
            let numbers = self.names.range(here).map(|name| (&**name, self.numbers[&**name]));
            let numbers: BTreeMap<&str, u32> = numbers.collect();
            let value = (!numbers.is_empty()).then(|| json(&numbers));
            records.push((format!("#{bucket}"), value));
        }
        records
    }

    /// Takes a record. False: no pool of this kind has written it.
    fn restore(&mut self, bucket: Option<u32>, value: &[u8]) -> Result<bool, String> {
        if let Some(bucket) = bucket {
            let numbers: BTreeMap<String, u32> = parse(value)?;
            let mut all = numbers.iter();
            return Ok(all.all(|(name, n)| n / BUCKET == bucket && self.restore_one(name, *n)));
        }
        let PoolRecord { first, last, next, mut numbers } = parse(value)?;
        // It is from when slices were numbered to 4,095 only: a set whose number a slice can have
        // now is given another.
        let old = (first == self.first && last == OLD_LAST_SLICE)
            || (first == OLD_LAST_SLICE + 1 && self.first == FIRST_SET);
        self.next = if old { next.max(self.first) } else { next };
        if old {
            numbers.retain(|_, number| *number >= self.first);
        }
        Ok((old || (first, last) == (self.first, self.last))
            && (self.first..=self.last).contains(&self.next)
            && numbers.iter().all(|(name, number)| self.restore_one(name, *number)))
    }

    fn restore_one(&mut self, name: &str, number: u32) -> bool {
        let known = self.numbers.get(name);
        if known == Some(&number) {
            return true;
        }
        let sound = (self.first..=self.last).contains(&number)
            && known.is_none()
            && !self.names.contains_key(&number);
        if sound {
            self.give(number, name);
        }
        sound
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
    /// Of endpoints with rates of their own, by host.
    endpoints: Arc<Pool>,
    /// Of one ingress switch; by slice and path.
    policies: Sorted<NodeName, Arc<Pool>>,
    /// Of one switch; by slice and hook.
    hooks: Sorted<NodeName, Arc<Pool>>,
}

/// First and last number of a switch's policies, and of its hooks.
const POLICIES: (u32, u32) = (FIRST_POLICY, 65_535);
const HOOKS: (u32, u32) = (0, 255);

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
            endpoints: Arc::new(Pool::new(1, 65_535)),
            policies: Sorted::new(),
            hooks: Sorted::new(),
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
        let direction = match direction {
            Direction::Downlink => "down",
            Direction::Uplink => "up",
        };
        let name = format!("{slice}/{egress}/{direction}");
        if let Some(number) = self.policies.get(ingress).and_then(|pool| pool.numbers.get(&*name)) {
            return Ok(PolicyId(*number));
        }
        let pool = of_node(&mut self.policies, ingress, POLICIES);
        given(pool, &name).map(PolicyId).ok_or(exhausted("policies of a switch", pool))
    }

    pub(crate) fn hook(
        &mut self,
        switch: &NodeName,
        slice: &str,
        hook: &str,
    ) -> Result<HookId, Refusal> {
        let name = format!("{slice}/{hook}");
        if let Some(number) = self.hooks.get(switch).and_then(|pool| pool.numbers.get(&*name)) {
            return Ok(HookId(narrow(*number)));
        }
        let pool = of_node(&mut self.hooks, switch, HOOKS);
        number(pool, &name, "hooks of a switch").map(HookId)
    }

    pub(crate) fn rule(&mut self, name: &str) -> Result<u16, Refusal> {
        number(&mut self.rules, name, "traffic rules")
    }

    pub(crate) fn endpoint(&mut self, host: &NodeName) -> Result<EndpointId, Refusal> {
        number(&mut self.endpoints, host.as_str(), "endpoints with rates of their own")
            .map(EndpointId)
    }

    /// The host of a number.
    pub(crate) fn endpoint_name(&self, endpoint: EndpointId) -> Option<&str> {
        self.endpoints.names.get(&u32::from(endpoint.0)).map(|name| &**name)
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
        pool.names.get(&u32::from(hook.0)).map(|name| &**name)
    }

    /// Gives back what belonged to slices that are gone.
    pub(crate) fn release_slices(&mut self, gone: &BTreeSet<&str>) {
        if gone.is_empty() {
            return;
        }
        keep(&mut self.slices, |name| !gone.contains(name));
        for pools in [&mut self.policies, &mut self.hooks] {
            let mut dead: Vec<(NodeName, Arc<str>)> = Vec::new();
            for slice in gone {
                let prefix = format!("{slice}/");
                for (node, pool) in &*pools {
                    let names = pool.numbers.from(&*prefix).map(|(name, _)| name);
                    let mine = names.take_while(|name| name.starts_with(&prefix));
                    dead.extend(mine.map(|name| (node.clone(), name.clone())));
                }
            }
            for (node, name) in dead {
                let pool = pools.get_mut(&node).expect("it was just there");
                Arc::make_mut(pool).give_back(&name);
            }
        }
        // A set of several slices lives while each of its slices has a number.
        let lives =
            |slice: &str| slice.parse().is_ok_and(|n: u32| self.slices.names.contains_key(&n));
        keep(&mut self.sets, |name| {
            let members = name.split('/').next().unwrap_or_default();
            members.split('+').all(lives)
        });
    }

    /// Gives back the numbers of rules that are gone.
    pub(crate) fn release_rules(&mut self, lives: impl Fn(&str) -> bool) {
        keep(&mut self.rules, lives);
    }

    /// Gives back the numbers of endpoints that have no rates of their own any more.
    pub(crate) fn release_endpoints<'a>(&mut self, gone: impl Iterator<Item = &'a NodeName>) {
        for host in gone {
            if self.endpoints.numbers.contains_key(host.as_str()) {
                Arc::make_mut(&mut self.endpoints).give_back(host.as_str());
            }
        }
    }

    /// Records that are others than those of `before`: what follows `number/` in their keys.
    pub(crate) fn records_since(&self, before: &Self) -> Vec<(String, Option<Vec<u8>>)> {
        let mut records = Vec::new();
        let mut pool = |name: String, old: Option<&Arc<Pool>>, new: &Arc<Pool>| {
            if !old.is_some_and(|old| Arc::ptr_eq(old, new)) {
                let more = new.records_since(old.map(Arc::as_ref));
                records.extend(more.into_iter().map(|(rest, value)| (name.clone() + &rest, value)));
            }
        };
        for (name, old, new) in [
            ("node", &before.nodes, &self.nodes),
            ("slice", &before.slices, &self.slices),
            ("set", &before.sets, &self.sets),
            ("rule", &before.rules, &self.rules),
            ("endpoint", &before.endpoints, &self.endpoints),
        ] {
            pool(name.to_owned(), Some(old), new);
        }
        for (kind, old, new) in
            [("policy", &before.policies, &self.policies), ("hook", &before.hooks, &self.hooks)]
        {
            old.differences(new, |node, old, new| {
                new.into_iter().for_each(|new| pool(format!("{kind}/{node}"), old, new));
            });
        }
        records
    }

    /// Puts back a record: what followed `number/` in its key, and its value.
    ///
    /// # Errors
    /// Why it cannot have come from [`Numbers::records_since`].
    pub(crate) fn restore(&mut self, key: &str, value: &[u8]) -> Result<(), String> {
        let (key, bucket) = match key.split_once('#') {
            Some((key, bucket)) => (key, Some(bucket.parse().map_err(|_| unsound())?)),
            None => (key, None),
        };
        let pool = match key.split_once('/') {
            None => match key {
                "node" => &mut self.nodes,
                "slice" => &mut self.slices,
                "set" => &mut self.sets,
                "rule" => &mut self.rules,
                "endpoint" => &mut self.endpoints,
                _ => return Err(unsound()),
            },
            Some((kind, node)) => {
                let node: NodeName = node.parse().map_err(|_| unsound())?;
                match kind {
                    "policy" => of_node(&mut self.policies, &node, POLICIES),
                    "hook" => of_node(&mut self.hooks, &node, HOOKS),
                    _ => return Err(unsound()),
                }
            }
        };
        match Arc::make_mut(pool).restore(bucket, value)? {
            true => Ok(()),
            false => Err(unsound()),
        }
    }
}

fn unsound() -> String {
    String::from("numbers that cannot have been given")
}

fn of_node<'p>(
    pools: &'p mut Sorted<NodeName, Arc<Pool>>,
    node: &NodeName,
    (first, last): (u32, u32),
) -> &'p mut Arc<Pool> {
    if !pools.contains_key(node) {
        pools.insert(node.clone(), Arc::new(Pool::new(first, last)));
    }
    pools.get_mut(node).expect("it was put if it was not there")
}

/// The number of a name, given now if it has none; a pool that has it stays shared.
fn given(pool: &mut Arc<Pool>, name: &str) -> Option<u32> {
    let known = pool.numbers.get(name).copied();
    known.or_else(|| Arc::make_mut(pool).number(name))
}

/// Gives back the numbers of other names.
fn keep(pool: &mut Arc<Pool>, lives: impl Fn(&str) -> bool) {
    let dead: Vec<Arc<str>> = pool.numbers.keys().filter(|name| !lives(name)).cloned().collect();
    for name in dead {
        Arc::make_mut(pool).give_back(&name);
    }
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
        pool.give_back("a");
        assert_eq!(pool.number("c"), Some(3), "1 is free, but was used before");
        assert_eq!(pool.number("d"), Some(1), "nothing else is left");
        assert_eq!(pool.number("e"), None);
    }

    /// A store of a version that had one record for each pool.
    #[test]
    fn what_was_numbered_when_slices_were_fewer_is_taken() {
        let mut numbers = Numbers::new();
        let slices = br#"{"first":1,"last":4095,"next":2,"numbers":{"default":1,"a":4095}}"#;
        numbers.restore("slice", slices).unwrap();
        assert_eq!(numbers.known_slice("a"), Some(SliceId(4095)));
        let sets = br#"{"first":4096,"last":65535,"next":4096,"numbers":{"2+3":4096,"2+4":20000}}"#;
        numbers.restore("set", sets).unwrap();
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
        for slice in 0..200 {
            numbers.slice(&format!("a{slice}")).unwrap();
            numbers.policy(&node, &format!("a{slice}"), &node, Direction::Uplink).unwrap();
        }
        let mut store: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut last = Numbers::new();
        let mut save = |numbers: &Numbers| {
            let changes = numbers.records_since(&last);
            last = numbers.clone();
            let count = changes.len();
            for (key, value) in changes {
                match value {
                    Some(value) => drop(store.insert(key, value)),
                    None => drop(store.remove(&key)),
                }
            }
            let mut again = Numbers::new();
            for (key, value) in &store {
                again.restore(key, value).unwrap();
            }
            assert_eq!(again, *numbers);
            count
        };
        // The rest of the slices: default has a number already, in a new store too.
        assert_eq!(save(&numbers), 2 + (1 + 4) + (1 + 4));
        numbers.slice("b").unwrap();
        assert_eq!(save(&numbers), 2, "the pool, and what holds the number");
        numbers.release_slices(&["a0", "a1", "a199"].into());
        assert_eq!(save(&numbers), 2 + 2, "numbers of slices and policies, low and high");
        assert_eq!(save(&numbers), 0);
        let bad = |key: &str, value: &str| numbers.clone().restore(key, value.as_bytes()).is_err();
        assert!(!bad("slice#0", r#"{"a2":4}"#), "as it is");
        assert!(bad("slice#0", r#"{"c":4}"#), "two with one number");
        assert!(bad("slice#0", r#"{"a2":5}"#), "one with two numbers");
        assert!(bad("slice#0", r#"{"c":1}"#), "default is always 1");
        assert!(bad("slice#0", r#"{"c":64}"#), "not of those numbers");
        assert!(bad("slice#256", r#"{"c":16384}"#), "out of range");
        assert!(bad("slice", r#"{"first":1,"last":16383,"next":0}"#));
        assert!(bad("slice", r#"{"first":1,"last":16384,"next":1}"#));
        let policies = r#"{"first":4096,"last":65535,"next":4096}"#;
        assert!(!bad("policy/s1", policies));
        assert!(bad("policy/UPPER", policies));
        assert!(bad("other", policies));
    }
}
