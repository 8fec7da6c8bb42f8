//! Values in the order of their keys, in chunks that copies share.
//!
//! A controller has several states of everything: what is wanted, what is held, what a proof
//! supposes, what there would be after a request. So a copy costs a pointer, the first change of a
//! copy a pointer for each chunk, a change copies one chunk, and a comparison passes over chunks
//! that are shared.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::{Index, RangeInclusive};
use std::sync::Arc;

/// Entries in one chunk at most; one that grows beyond it is halved.
const CHUNK: usize = 128;

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
#[derive(Debug)]
pub struct Sorted<K, V> {
    chunks: Arc<Vec<Chunk<K, V>>>,
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

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Self { chunks: Arc::default(), len: 0 }
    }
}

impl<K, V> Clone for Sorted<K, V> {
    fn clone(&self) -> Self {
        Self { chunks: self.chunks.clone(), len: self.len }
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

    /// The chunk that has the key, if any has.
    fn chunk<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        self.chunks.partition_point(|chunk| chunk.from.borrow() <= key).saturating_sub(1)
    }

    /// The chunk that has the key and where, if any has.
    fn place<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(usize, usize)>
    where
        K: Borrow<Q>,
    {
        let chunk = self.chunk(key);
        let entries = &self.chunks.get(chunk)?.entries;
        let at = entries.binary_search_by(|(other, _)| other.borrow().cmp(key)).ok()?;
        Some((chunk, at))
    }

    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let (chunk, at) = self.place(key)?;
        Some(&self.chunks[chunk].entries[at].1)
    }

    /// Copies the chunk if it is shared.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let (chunk, at) = self.place(key)?;
        let chunk = &mut Arc::make_mut(&mut self.chunks)[chunk];
        Some(&mut Arc::make_mut(&mut chunk.entries)[at].1)
    }

    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.place(key).is_some()
    }

    /// Puts a value; answers the one of that key before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let at = self.chunk(&key);
        let chunks = with_room(&mut self.chunks);
        let Some(chunk) = chunks.get_mut(at) else {
            chunks.push(Chunk { from: key.clone(), entries: Arc::new(vec![(key, value)]) });
            self.len = 1;
            return None;
        };
        let entries = with_room(&mut chunk.entries);
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
            chunks.insert(at + 1, chunk);
        }
        None
    }

    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (chunk, at) = self.place(key)?;
        let chunks = Arc::make_mut(&mut self.chunks);
        let entries = Arc::make_mut(&mut chunks[chunk].entries);
        let (_, value) = entries.remove(at);
        if entries.is_empty() {
            chunks.remove(chunk);
        }
        self.len -= 1;
        Some(value)
    }

    /// Takes the pair of the least key out.
    pub fn pop_first(&mut self) -> Option<(K, V)> {
        let chunks = Arc::make_mut(&mut self.chunks);
        let entries = Arc::make_mut(&mut chunks.first_mut()?.entries);
        let first = entries.remove(0);
        if entries.is_empty() {
            chunks.remove(0);
        }
        self.len -= 1;
        Some(first)
    }

    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter { front: [].iter(), chunks: self.chunks.iter(), back: [].iter() }
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
        let at = self.chunk(first);
        let mut chunks = self.chunks[at.min(self.chunks.len())..].iter();
        let entries = chunks.next().map_or(&[][..], |chunk| &chunk.entries[..]);
        let skip = entries.partition_point(|(key, _)| key.borrow() < first);
        Iter { front: entries[skip..].iter(), chunks, back: [].iter() }
    }

    /// What is different in `after`, in the order of keys: key, value before and after. Cost: the
    /// chunks, and the entries of those that are not shared.
    pub fn differences<'a>(
        &'a self,
        after: &'a Self,
        mut each: impl FnMut(&'a K, Option<&'a V>, Option<&'a V>),
    ) {
        if Arc::ptr_eq(&self.chunks, &after.chunks) {
            return;
        }
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
    /// What is left of the chunk before those in `chunks`.
    front: std::slice::Iter<'a, (K, V)>,
    chunks: std::slice::Iter<'a, Chunk<K, V>>,
    /// What is left of the chunk behind them.
    back: std::slice::Iter<'a, (K, V)>,
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.front.next() {
                return Some((key, value));
            }
            match self.chunks.next() {
                Some(chunk) => self.front = chunk.entries.iter(),
                None => return self.back.next().map(|(key, value)| (key, value)),
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
            match self.chunks.next_back() {
                Some(chunk) => self.back = chunk.entries.iter(),
                None => return self.front.next_back().map(|(key, value)| (key, value)),
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
        entries.reverse();
        entries.dedup_by(|(a, _), (b, _)| a == b);
        let (mut chunks, len) = (Vec::new(), entries.len());
        while let Some((key, _)) = entries.last() {
            let from = key.clone();
            let chunk: Vec<_> =
                entries.drain(entries.len().saturating_sub(CHUNK)..).rev().collect();
            chunks.push(Chunk { from, entries: Arc::new(chunk) });
        }
        Self { chunks: Arc::new(chunks), len }
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
