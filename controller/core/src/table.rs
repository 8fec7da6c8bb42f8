//! Values in the order of their keys, in chunks that copies share.
//!
//! A thousand switches hold a thousand entries each and more, and the core has several states of
//! each: what is wanted, what is held, what a proof supposes. So a copy costs a pointer for each
//! chunk, a change copies one chunk, and a comparison passes over chunks that are shared.

use std::cmp::Ordering;
use std::ops::RangeInclusive;
use std::sync::Arc;

use selvedge_pipeline::{Entry, Key};

/// Entries in one chunk at most; one that grows beyond it is halved.
const CHUNK: usize = 64;

#[derive(Debug)]
struct Chunk<K, V> {
    /// Not above any key in the chunk, and above all keys of those before it.
    from: K,
    /// Never empty.
    entries: Arc<Vec<(K, V)>>,
}

impl<K: Clone, V> Clone for Chunk<K, V> {
    fn clone(&self) -> Self {
        Self { from: self.from.clone(), entries: self.entries.clone() }
    }
}

/// A map whose copies are cheap to make and to compare.
#[derive(Clone, Debug)]
pub struct Sorted<K, V> {
    chunks: Vec<Chunk<K, V>>,
    len: usize,
}

/// The entries of one switch.
pub type Table = Sorted<Key, Entry>;

impl Table {
    /// Puts an entry; answers the one of that key before.
    pub fn insert(&mut self, entry: Entry) -> Option<Entry> {
        self.put(entry.key(), entry)
    }
}

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> Sorted<K, V> {
    pub const fn new() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The chunk that has the key, if any has.
    fn chunk(&self, key: &K) -> usize {
        self.chunks.partition_point(|chunk| chunk.from <= *key).saturating_sub(1)
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        let entries = &self.chunks.get(self.chunk(key))?.entries;
        let at = entries.binary_search_by(|(other, _)| other.cmp(key)).ok()?;
        Some(&entries[at].1)
    }

    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// Puts a value; answers the one of that key before.
    pub fn put(&mut self, key: K, value: V) -> Option<V> {
        let at = self.chunk(&key);
        let Some(chunk) = self.chunks.get_mut(at) else {
            self.chunks.push(Chunk { from: key.clone(), entries: Arc::new(vec![(key, value)]) });
            self.len = 1;
            return None;
        };
        let entries = Arc::make_mut(&mut chunk.entries);
        let place = match entries.binary_search_by(|(other, _)| other.cmp(&key)) {
            Ok(place) => return Some(std::mem::replace(&mut entries[place].1, value)),
            Err(place) => place,
        };
        if key < chunk.from {
            chunk.from = key.clone();
        }
        entries.insert(place, (key, value));
        self.len += 1;
        if entries.len() > CHUNK {
            // Keys often come in rising order: then chunks stay full.
            let half = if place + 1 == entries.len() { CHUNK } else { CHUNK / 2 };
            let upper = entries.split_off(half);
            let chunk = Chunk { from: upper[0].0.clone(), entries: Arc::new(upper) };
            self.chunks.insert(at + 1, chunk);
        }
        None
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.chunk(key);
        let chunk = self.chunks.get_mut(at)?;
        let place = chunk.entries.binary_search_by(|(other, _)| other.cmp(key)).ok()?;
        let entries = Arc::make_mut(&mut chunk.entries);
        let (_, value) = entries.remove(place);
        if entries.is_empty() {
            self.chunks.remove(at);
        }
        self.len -= 1;
        Some(value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.chunks.iter().flat_map(|chunk| chunk.entries.iter()).map(|(key, value)| (key, value))
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// Values with keys in a range, in order.
    pub fn range(&self, keys: RangeInclusive<K>) -> impl Iterator<Item = &V> {
        let (first, last) = keys.into_inner();
        let chunk = self.chunk(&first);
        let from = self.chunks.get(chunk);
        let from = from.map_or(0, |c| c.entries.partition_point(|(key, _)| *key < first));
        let chunks = self.chunks.iter().skip(chunk).flat_map(|chunk| chunk.entries.iter());
        chunks.skip(from).take_while(move |(key, _)| *key <= last).map(|(_, value)| value)
    }

    /// What is different in `after`, in the order of keys: key, value before and after. Cost: the
    /// chunks, and the entries of those that are not shared.
    pub fn differences<'a>(
        &'a self,
        after: &'a Self,
        mut each: impl FnMut(&'a K, Option<&'a V>, Option<&'a V>),
    ) {
        let (mut old, mut new) = (Walk::of(self), Walk::of(after));
        loop {
            if old.at == 0
                && new.at == 0
                && let (Some(a), Some(b)) = (old.chunks.first(), new.chunks.first())
                && Arc::ptr_eq(&a.entries, &b.entries)
            {
                (old.chunks, new.chunks) = (&old.chunks[1..], &new.chunks[1..]);
                continue;
            }
            let order = match (old.peek(), new.peek()) {
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

/// Where a comparison is in one of its tables.
struct Walk<'a, K, V> {
    chunks: &'a [Chunk<K, V>],
    /// In the first of them.
    at: usize,
}

impl<'a, K, V> Walk<'a, K, V> {
    fn of(table: &'a Sorted<K, V>) -> Self {
        Self { chunks: &table.chunks, at: 0 }
    }

    fn peek(&self) -> Option<&'a (K, V)> {
        self.chunks.first()?.entries.get(self.at)
    }

    fn next(&mut self) -> Option<&'a (K, V)> {
        let entry = self.peek()?;
        self.at += 1;
        if self.at == self.chunks[0].entries.len() {
            (self.chunks, self.at) = (&self.chunks[1..], 0);
        }
        Some(entry)
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

impl FromIterator<Entry> for Table {
    /// Of two entries of one key the later one counts.
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        let mut entries: Vec<(Key, Entry)> =
            entries.into_iter().map(|entry| (entry.key(), entry)).collect();
        entries.sort_by_key(|(key, _)| *key); // stable
        entries.reverse();
        entries.dedup_by_key(|(key, _)| *key);
        let mut table = Self { chunks: Vec::new(), len: entries.len() };
        while let Some((key, _)) = entries.last() {
            let from = *key;
            let chunk: Vec<_> =
                entries.drain(entries.len().saturating_sub(CHUNK)..).rev().collect();
            table.chunks.push(Chunk { from, entries: Arc::new(chunk) });
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use selvedge_pipeline::{NextHopEntry, NodeSid, PolicyEntry, PolicyId, PortId};

    use super::*;

    fn entry(number: u16, value: u8) -> Entry {
        if number.is_multiple_of(3) {
            let sids = vec![u16::from(value)];
            return Entry::Policy(PolicyEntry { policy: PolicyId(number.into()), sids });
        }
        let hop = NextHopEntry { node: NodeSid(number), port: PortId(1), mac: [value; 6] };
        Entry::NextHop(hop)
    }

    fn apply(table: &mut Table, map: &mut BTreeMap<Key, Entry>, number: u16, value: Option<u8>) {
        match value {
            Some(value) => {
                let entry = entry(number, value);
                assert_eq!(table.insert(entry.clone()), map.insert(entry.key(), entry));
            }
            None => {
                let key = entry(number, 0).key();
                assert_eq!(table.remove(&key), map.remove(&key));
            }
        }
    }

    type Changes = Vec<(u16, Option<u8>)>;

    fn changes(most: usize) -> impl Strategy<Value = Changes> {
        prop::collection::vec((0u16..400, prop::option::weighted(0.7, 0u8..4)), 0..most)
    }

    proptest! {
        /// As a map does, and a copy stays as it was.
        #[test]
        fn a_table_is_a_map((first, second) in (changes(800), changes(40))) {
            let (mut table, mut map) = (Table::new(), BTreeMap::new());
            for (number, value) in first {
                apply(&mut table, &mut map, number, value);
            }
            let (before, before_map) = (table.clone(), map.clone());
            for (number, value) in second {
                apply(&mut table, &mut map, number, value);
            }
            for (table, map) in [(&before, &before_map), (&table, &map)] {
                prop_assert_eq!(table.len(), map.len());
                prop_assert!(table.iter().eq(map.iter()));
                prop_assert!(*table == map.values().rev().cloned().collect::<Table>());
                for number in 0..400 {
                    let key = entry(number, 0).key();
                    prop_assert_eq!(table.get(&key), map.get(&key));
                    let last = entry(number.saturating_add(37), 0).key();
                    if key <= last {
                        prop_assert!(table.range(key..=last).eq(map.range(key..=last).map(|e| e.1)));
                    }
                }
            }
            let mut want: Vec<(Option<&Entry>, Option<&Entry>)> = Vec::new();
            let keys: std::collections::BTreeSet<_> = map.keys().chain(before_map.keys()).collect();
            want.extend(keys.into_iter().map(|key| (before_map.get(key), map.get(key))));
            want.retain(|(old, new)| old != new);
            let mut found = Vec::new();
            before.differences(&table, |_, old, new| found.push((old, new)));
            prop_assert_eq!(found, want);
        }
    }
}
