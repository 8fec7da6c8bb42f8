//! Values in the order of their keys, in a tree whose parts copies share.
//!
//! A controller has several states of everything: what is wanted, what is held, what a proof
//! supposes, what there would be after a request. So a copy costs a pointer, a change of a copy
//! one leaf, one branch and a pointer for each branch, and a comparison passes over what is
//! shared.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::{Index, RangeInclusive};
use std::sync::Arc;

/// Entries in a leaf and leaves in a branch at most; what grows beyond it is halved.
const WIDTH: usize = if cfg!(test) { 4 } else { 32 };

/// In a leaf `T` is a value. Above it is a level, which is never empty, and `K` is not above any
/// key in it, and above all keys before.
type Level<K, T> = Arc<Vec<(K, T)>>;
type Leaf<K, V> = Level<K, V>;
type Branch<K, V> = Level<K, Leaf<K, V>>;

/// A map whose copies are cheap to make and to compare.
#[derive(Debug)]
pub struct Sorted<K, V> {
    branches: Level<K, Branch<K, V>>,
    len: usize,
}

/// A copy of its own if it is shared, with room for one more.
fn with_room<T: Clone>(shared: &mut Arc<Vec<T>>) -> &mut Vec<T> {
    if Arc::get_mut(shared).is_none() {
        let mut copy = Vec::with_capacity(shared.len() + 1);
        copy.extend_from_slice(shared);
        *shared = Arc::new(copy);
    }
    Arc::get_mut(shared).expect("it is a copy of its own")
}

/// Where the key is, if anywhere.
fn part<K: Borrow<Q>, T, Q: Ord + ?Sized>(level: &[(K, T)], key: &Q) -> usize {
    level.partition_point(|(from, _)| from.borrow() <= key).saturating_sub(1)
}

fn entry<K: Borrow<Q>, V, Q: Ord + ?Sized>(leaf: &[(K, V)], key: &Q) -> Result<usize, usize> {
    leaf.binary_search_by(|(other, _)| other.borrow().cmp(key))
}

/// Takes the upper half of what has become too wide, after something was put at `place`.
fn halved<K: Clone, T>(level: &mut Vec<(K, T)>, place: usize) -> Option<(K, Level<K, T>)> {
    if level.len() <= WIDTH {
        return None;
    }
    // Keys often come in rising order: then leaves stay full.
    let half = if place + 1 == level.len() { WIDTH } else { WIDTH / 2 };
    let upper = level.split_off(half);
    Some((upper[0].0.clone(), Arc::new(upper)))
}

fn packed<K: Clone, T>(level: Vec<(K, T)>) -> Vec<(K, Level<K, T>)> {
    let mut parts = Vec::with_capacity(level.len().div_ceil(WIDTH));
    let mut level = level.into_iter();
    loop {
        let part: Vec<(K, T)> = level.by_ref().take(WIDTH).collect();
        let Some((from, _)) = part.first() else { return parts };
        parts.push((from.clone(), Arc::new(part)));
    }
}

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Self { branches: Arc::default(), len: 0 }
    }
}

impl<K, V> Clone for Sorted<K, V> {
    fn clone(&self) -> Self {
        Self { branches: self.branches.clone(), len: self.len }
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> Sorted<K, V> {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The branch, its leaf and its entry that have the key, if any has.
    fn place<Q: Ord + ?Sized>(&self, key: &Q) -> Option<[usize; 3]>
    where
        K: Borrow<Q>,
    {
        let branch = part(&self.branches, key);
        let (_, leaves) = self.branches.get(branch)?;
        let leaf = part(leaves, key);
        let at = entry(&leaves[leaf].1, key).ok()?;
        Some([branch, leaf, at])
    }

    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let [branch, leaf, at] = self.place(key)?;
        Some(&self.branches[branch].1[leaf].1[at].1)
    }

    /// Copies what the value is in where it is shared.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let [branch, leaf, at] = self.place(key)?;
        let leaves = Arc::make_mut(&mut Arc::make_mut(&mut self.branches)[branch].1);
        Some(&mut Arc::make_mut(&mut leaves[leaf].1)[at].1)
    }

    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.place(key).is_some()
    }

    /// Puts a value; answers the one of that key before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let branches = with_room(&mut self.branches);
        if branches.is_empty() {
            branches.extend(packed(packed(vec![(key, value)])));
            self.len = 1;
            return None;
        }
        let branch = part(branches, &key);
        let (from, leaves) = &mut branches[branch];
        lower(from, &key);
        let leaves = with_room(leaves);
        let leaf = part(leaves, &key);
        let (from, entries) = &mut leaves[leaf];
        lower(from, &key);
        let entries = with_room(entries);
        let at = match entry(entries, &key) {
            Ok(at) => return Some(std::mem::replace(&mut entries[at].1, value)),
            Err(at) => at,
        };
        entries.insert(at, (key, value));
        self.len += 1;
        if let Some(upper) = halved(entries, at) {
            leaves.insert(leaf + 1, upper);
            if let Some(upper) = halved(leaves, leaf + 1) {
                branches.insert(branch + 1, upper);
            }
        }
        None
    }

    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let place = self.place(key)?;
        Some(self.take(place).1)
    }

    /// Takes the pair of the least key out.
    pub fn pop_first(&mut self) -> Option<(K, V)> {
        (!self.is_empty()).then(|| self.take([0, 0, 0]))
    }

    fn take(&mut self, [branch, leaf, at]: [usize; 3]) -> (K, V) {
        let branches = Arc::make_mut(&mut self.branches);
        let leaves = Arc::make_mut(&mut branches[branch].1);
        let entries = Arc::make_mut(&mut leaves[leaf].1);
        let taken = entries.remove(at);
        if entries.is_empty() {
            leaves.remove(leaf);
            if leaves.is_empty() {
                branches.remove(branch);
            }
        }
        self.len -= 1;
        taken
    }

    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter { branches: self.branches.iter(), ..Iter::default() }
    }

    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// Values with keys in a range, in order.
    pub fn range(&self, keys: RangeInclusive<K>) -> impl Iterator<Item = &V> {
        let (first, last) = keys.into_inner();
        let from = self.from(&first);
        from.take_while(move |(key, _)| **key <= last).map(|(_, value)| value)
    }

    /// Pairs from a key on, in order.
    pub fn from<Q: Ord + ?Sized>(&self, first: &Q) -> Iter<'_, K, V>
    where
        K: Borrow<Q>,
    {
        let branch = part(&self.branches, first);
        let Some((_, leaves)) = self.branches.get(branch) else { return Iter::default() };
        let leaf = part(leaves, first);
        let entries = &leaves[leaf].1;
        let skip = entries.partition_point(|(key, _)| key.borrow() < first);
        Iter {
            front: entries[skip..].iter(),
            front_leaves: leaves[leaf + 1..].iter(),
            branches: self.branches[branch + 1..].iter(),
            ..Iter::default()
        }
    }

    /// What is different in `after`, in the order of keys: key, value before and after. Cost: the
    /// branches, and the leaves and entries of those that are not shared.
    pub fn differences<'a>(
        &'a self,
        after: &'a Self,
        mut each: impl FnMut(&'a K, Option<&'a V>, Option<&'a V>),
    ) {
        if Arc::ptr_eq(&self.branches, &after.branches) {
            return;
        }
        let (mut old, mut new) = (Walk::of(self), Walk::of(after));
        loop {
            if old.branch().zip(new.branch()).is_some_and(|(a, b)| Arc::ptr_eq(a, b)) {
                old.leave_branch();
                new.leave_branch();
                continue;
            }
            if old.leaf().zip(new.leaf()).is_some_and(|(a, b)| Arc::ptr_eq(a, b)) {
                old.leave_leaf();
                new.leave_leaf();
                continue;
            }
            let order = match (old.entries.first(), new.entries.first()) {
                (None, None) => return,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((a, _)), Some((b, _))) => a.cmp(b),
            };
            let before = if order.is_le() { old.next() } else { None };
            let now = if order.is_ge() { new.next() } else { None };
            let (old, new) = (before.map(|(_, value)| value), now.map(|(_, value)| value));
            if old != new
                && let Some((key, _)) = before.or(now)
            {
                each(key, old, new);
            }
        }
    }
}

fn lower<K: Ord + Clone>(from: &mut K, key: &K) {
    if key < from {
        *from = key.clone();
    }
}

/// What a comparison has not come to in one of its tables.
struct Walk<'a, K, V> {
    /// With the one that `leaves` is of.
    branches: &'a [(K, Branch<K, V>)],
    /// With the one that `entries` is of.
    leaves: &'a [(K, Leaf<K, V>)],
    /// Not empty before the end.
    entries: &'a [(K, V)],
}

impl<'a, K, V> Walk<'a, K, V> {
    fn of(table: &'a Sorted<K, V>) -> Self {
        let mut walk = Self { branches: &table.branches, leaves: &[], entries: &[] };
        walk.enter_branch();
        walk
    }

    /// The present branch, if nothing of it has been passed.
    fn branch(&self) -> Option<&'a Branch<K, V>> {
        self.leaf()?;
        let (_, branch) = self.branches.first()?;
        (branch.len() == self.leaves.len()).then_some(branch)
    }

    /// The present leaf, if nothing of it has been passed.
    fn leaf(&self) -> Option<&'a Leaf<K, V>> {
        let (_, leaf) = self.leaves.first()?;
        (leaf.len() == self.entries.len()).then_some(leaf)
    }

    fn enter_branch(&mut self) {
        self.leaves = self.branches.first().map_or(&[], |(_, leaves)| leaves);
        self.enter_leaf();
    }

    fn enter_leaf(&mut self) {
        self.entries = self.leaves.first().map_or(&[], |(_, entries)| entries);
    }

    fn leave_branch(&mut self) {
        self.branches = &self.branches[1..];
        self.enter_branch();
    }

    fn leave_leaf(&mut self) {
        self.leaves = &self.leaves[1..];
        if self.leaves.is_empty() {
            self.leave_branch();
        } else {
            self.enter_leaf();
        }
    }

    fn next(&mut self) -> Option<&'a (K, V)> {
        let (first, rest) = self.entries.split_first()?;
        self.entries = rest;
        if rest.is_empty() {
            self.leave_leaf();
        }
        Some(first)
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> PartialEq for Sorted<K, V> {
    fn eq(&self, other: &Self) -> bool {
        let mut same = self.len == other.len;
        if same {
            self.differences(other, |_, _, _| same = false);
        }
        same
    }
}

impl<K: Ord + Clone, V: Clone + Eq> Eq for Sorted<K, V> {}

impl<K: Ord + Clone + Borrow<Q>, V: Clone + PartialEq, Q: Ord + ?Sized> Index<&Q> for Sorted<K, V> {
    type Output = V;

    /// # Panics
    /// If there is no such key.
    fn index(&self, key: &Q) -> &V {
        self.get(key).expect("no such key")
    }
}

/// Pairs in the order of keys.
#[derive(Debug)]
pub struct Iter<'a, K, V> {
    /// What is left of the leaf and of the branch before those in `branches`.
    front: std::slice::Iter<'a, (K, V)>,
    front_leaves: std::slice::Iter<'a, (K, Leaf<K, V>)>,
    branches: std::slice::Iter<'a, (K, Branch<K, V>)>,
    /// What is left of those behind them.
    back_leaves: std::slice::Iter<'a, (K, Leaf<K, V>)>,
    back: std::slice::Iter<'a, (K, V)>,
}

impl<K, V> Default for Iter<'_, K, V> {
    fn default() -> Self {
        Self {
            front: [].iter(),
            front_leaves: [].iter(),
            branches: [].iter(),
            back_leaves: [].iter(),
            back: [].iter(),
        }
    }
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.front.next() {
                return Some((key, value));
            }
            if let Some((_, entries)) = self.front_leaves.next() {
                self.front = entries.iter();
            } else if let Some((_, leaves)) = self.branches.next() {
                self.front_leaves = leaves.iter();
            } else if let Some((_, entries)) = self.back_leaves.next() {
                self.front = entries.iter();
            } else {
                return self.back.next().map(|(key, value)| (key, value));
            }
        }
    }
}

impl<K, V> DoubleEndedIterator for Iter<'_, K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.back.next_back() {
                return Some((key, value));
            }
            if let Some((_, entries)) = self.back_leaves.next_back() {
                self.back = entries.iter();
            } else if let Some((_, leaves)) = self.branches.next_back() {
                self.back_leaves = leaves.iter();
            } else if let Some((_, entries)) = self.front_leaves.next_back() {
                self.back = entries.iter();
            } else {
                return self.front.next_back().map(|(key, value)| (key, value));
            }
        }
    }
}

impl<'a, K: Ord + Clone, V: Clone + PartialEq> IntoIterator for &'a Sorted<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Iter<'a, K, V> {
        self.iter()
    }
}

impl<K: Ord + Clone, V> FromIterator<(K, V)> for Sorted<K, V> {
    /// Of two values of one key the later one counts.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut entries: Vec<(K, V)> = entries.into_iter().collect();
        entries.sort_by(|(a, _), (b, _)| a.cmp(b)); // stable
        entries.dedup_by(|later, first| {
            let same = later.0 == first.0;
            if same {
                std::mem::swap(later, first);
            }
            same
        });
        let len = entries.len();
        Self { branches: Arc::new(packed(packed(entries))), len }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    type Map = BTreeMap<u16, u8>;

    fn apply(sorted: &mut Sorted<u16, u8>, map: &mut Map, key: u16, value: Option<u8>) {
        match value {
            Some(value) => assert_eq!(sorted.insert(key, value), map.insert(key, value)),
            None => assert_eq!(sorted.remove(&key), map.remove(&key)),
        }
    }

    type Changes = Vec<(u16, Option<u8>)>;

    fn changes(most: usize) -> impl Strategy<Value = Changes> {
        prop::collection::vec((0u16..400, prop::option::weighted(0.7, 0u8..4)), 0..most)
    }

    proptest! {
        /// As a map does, and a copy stays as it was.
        #[test]
        fn it_is_a_map((first, second) in (changes(800), changes(40))) {
            let (mut sorted, mut map) = (Sorted::new(), Map::new());
            for (key, value) in first {
                apply(&mut sorted, &mut map, key, value);
            }
            let (before, before_map) = (sorted.clone(), map.clone());
            for (key, value) in second {
                apply(&mut sorted, &mut map, key, value);
            }
            for (sorted, map) in [(&before, &before_map), (&sorted, &map)] {
                prop_assert_eq!(sorted.len(), map.len());
                prop_assert!(sorted.iter().eq(map.iter()));
                prop_assert!(sorted.iter().rev().eq(map.iter().rev()));
                let (mut both, mut want) = (sorted.iter(), map.iter());
                for turn in 0..=map.len() {
                    match turn % 3 {
                        0 => prop_assert_eq!(both.next_back(), want.next_back()),
                        _ => prop_assert_eq!(both.next(), want.next()),
                    }
                }
                prop_assert!(*sorted == map.iter().rev().map(|(k, v)| (*k, *v)).collect());
                for key in 0..400 {
                    prop_assert_eq!(sorted.get(&key), map.get(&key));
                    let range = key..=key + 37;
                    prop_assert!(sorted.range(range.clone()).eq(map.range(range).map(|e| e.1)));
                }
            }
            let mut rest = sorted.clone();
            let popped: Vec<(u16, u8)> = std::iter::from_fn(|| rest.pop_first()).collect();
            prop_assert!(popped == map.iter().map(|(k, v)| (*k, *v)).collect::<Vec<_>>());
            prop_assert!(rest.is_empty());
            let mut changed = sorted.clone();
            for key in 0..400 {
                let value = changed.get_mut(&key).map(|value| std::mem::replace(value, 9));
                prop_assert_eq!(value.as_ref(), map.get(&key));
            }
            prop_assert!(changed.values().all(|value| *value == 9));
            prop_assert!(sorted.iter().eq(map.iter()));
            let mut want: Vec<(u16, Option<&u8>, Option<&u8>)> = Vec::new();
            let keys: std::collections::BTreeSet<_> = map.keys().chain(before_map.keys()).collect();
            want.extend(keys.into_iter().map(|key| (*key, before_map.get(key), map.get(key))));
            want.retain(|(_, old, new)| old != new);
            let mut found = Vec::new();
            before.differences(&sorted, |key, old, new| found.push((*key, old, new)));
            prop_assert_eq!(found, want);
        }
    }

    #[test]
    fn of_two_values_of_one_key_the_later_counts() {
        let sorted: Sorted<u16, u8> = [(2, 1), (1, 1), (2, 2)].into_iter().collect();
        assert!(sorted.iter().eq([(&1, &1), (&2, &2)]));
    }
}
