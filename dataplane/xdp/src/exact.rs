//! Writes the tables of `selvedge_ebpf_common::exact`, whose reader is
//! `ebpf/programs/src/bpf/lookup.rs`. One writer; programs read meanwhile.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use selvedge_ebpf_common::exact::{
    GROUPS, IN_WORD, LIVE, MAX_KEYS, NARROW, NarrowLine, ROWS, WIDE, displaced, displacement,
    group, narrow_hash, narrow_key, next_key, row, wide_hash,
};

use crate::Error;
use crate::map::{Map, RawEntry};
use crate::mapped::Mapped;

/// Displacements that are tried to give each key of a group a row of its own, before one of them is
/// content with another row of its line.
const TRIES: u16 = 2000;
/// The end of a list.
const END: u32 = u32::MAX;

/// What a table's keys are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    /// An IPv4 address, mapped, and a scope of 16 bits.
    V4,
    /// An IPv6 address and a scope.
    V6,
    /// A scope alone, with nothing but data.
    Number,
    /// A scope alone, with an address that is not of the key.
    NumberOfAddress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) scope: u32,
    /// In wire order; 0 where there is none.
    pub(crate) address: [u64; 2],
    pub(crate) data: u64,
}

/// The first eight bytes of mapped addresses are 0, and this is in the others.
const MAPPED: u64 = 0xffff_0000;

/// Whether an address is an IPv4 one.
pub(crate) const fn is_mapped(address: [u64; 2]) -> bool {
    address[0] == 0 && address[1] as u32 as u64 == MAPPED
}

impl Keys {
    const fn is_wide(self) -> bool {
        matches!(self, Self::V6 | Self::NumberOfAddress)
    }

    const fn rows_of_line(self) -> u32 {
        if self.is_wide() { WIDE } else { NARROW }
    }

    /// Of a row.
    const fn words(self) -> usize {
        if self.is_wide() { 4 } else { 2 }
    }

    /// What is beside the count in a row's key.
    fn key(self, scope: u32, address: [u64; 2]) -> u64 {
        match self {
            Self::V4 => {
                let scope = u16::try_from(scope).expect("scopes have 16 bits");
                assert!(is_mapped(address));
                narrow_key(scope, (address[1] >> 32) as u32)
            }
            Self::V6 | Self::Number | Self::NumberOfAddress => scope.into(),
        }
    }

    fn hash(self, scope: u32, address: [u64; 2]) -> u64 {
        match self {
            Self::V4 | Self::Number => narrow_hash(self.key(scope, address)),
            Self::V6 => wide_hash(scope, address),
            Self::NumberOfAddress => wide_hash(scope, [0; 2]),
        }
    }

    fn same(self, one: &Entry, scope: u32, address: [u64; 2]) -> bool {
        let has_address = matches!(self, Self::V4 | Self::V6);
        one.scope == scope && (!has_address || one.address == address)
    }
}

/// One table, and which rows the keys of each group have: what can be told from the rows, so that
/// it is made anew with them.
#[derive(Debug)]
pub(crate) struct Exact {
    rows: Mapped,
    places: Mapped,
    /// In errors.
    table: &'static str,
    keys: Keys,
    /// By group, a list of rows: its first, and what follows each.
    first: Vec<u32>,
    next: Vec<u32>,
    len: u32,
}

/// Of a table.
const PLACES: usize = (GROUPS / IN_WORD) as usize;

impl Exact {
    pub(crate) fn open(
        table: &'static str,
        keys: Keys,
        rows: &Map,
        places: &Map,
    ) -> Result<Self, Error> {
        let open = |map: &Map| {
            let words = map.spec.entries as usize * map.spec.value_bytes / size_of::<u64>();
            Mapped::open(map, words).map_err(Error::map("map the memory of", map.spec.name))
        };
        Ok(Self::new(table, keys, open(rows)?, open(places)?))
    }

    /// Takes over what is there. A row that no packet is led to was being moved when an agent
    /// died, and is freed.
    fn new(table: &'static str, keys: Keys, rows: Mapped, places: Mapped) -> Self {
        assert_eq!((rows.len(), places.len()), (ROWS as usize * keys.words(), PLACES));
        let (first, next) = (vec![END; GROUPS as usize], vec![END; ROWS as usize]);
        let mut this = Self { rows, places, table, keys, first, next, len: 0 };
        for at in 0..ROWS {
            let Some(entry) = this.entry(at) else { continue };
            // Of two rows of one line either is as good.
            if this.find(entry.scope, entry.address) == Some(at) {
                this.link(group(keys.hash(entry.scope, entry.address)), at);
            } else {
                this.free(at);
            }
        }
        this
    }

    fn words(&self, at: u32) -> &[AtomicU64] {
        let words = self.keys.words();
        &self.rows[at as usize * words..][..words]
    }

    /// The word that has the key.
    fn key_of(&self, at: u32) -> &AtomicU64 {
        let words = self.words(at);
        if self.keys.is_wide() { &words[3] } else { &words[0] }
    }

    fn data_of(&self, at: u32) -> &AtomicU64 {
        let words = self.words(at);
        if self.keys.is_wide() { &words[2] } else { &words[1] }
    }

    /// What row `at` holds.
    fn entry(&self, at: u32) -> Option<Entry> {
        let key = self.key_of(at).load(Ordering::Relaxed);
        let (scope, address) = match self.keys {
            Keys::V4 => (u32::from((key >> 32) as u16), [0, key << 32 | MAPPED]),
            Keys::Number => (key as u32, [0; 2]),
            Keys::V6 | Keys::NumberOfAddress => {
                let words = self.words(at);
                let address = [&words[0], &words[1]].map(|word| word.load(Ordering::Relaxed));
                (key as u32, address)
            }
        };
        let data = self.data_of(at).load(Ordering::Relaxed);
        (key & LIVE != 0).then_some(Entry { scope, address, data })
    }

    fn displacement(&self, group: u32) -> u16 {
        displacement(self.places[(group / IN_WORD) as usize].load(Ordering::Relaxed), group)
    }

    /// Where packets look for a key: at its row, then at the others of the line.
    fn line(&self, hash: u64, displacement: u16) -> impl Iterator<Item = u32> + use<> {
        let (row, rows) = (row(hash, displacement), self.keys.rows_of_line());
        (0..rows).map(move |n| row / rows * rows + (row + n) % rows)
    }

    fn is_free(&self, at: u32) -> bool {
        self.key_of(at).load(Ordering::Relaxed) & LIVE == 0
    }

    fn link(&mut self, group: u32, at: u32) {
        self.next[at as usize] = std::mem::replace(&mut self.first[group as usize], at);
        self.len += 1;
    }

    /// In place of what a group had.
    fn relink(&mut self, group: u32, rows: &[u32]) {
        self.len -= self.members(group).count() as u32;
        self.first[group as usize] = END;
        for at in rows {
            self.link(group, *at);
        }
    }

    fn members(&self, group: u32) -> impl Iterator<Item = u32> {
        let mut at = self.first[group as usize];
        std::iter::from_fn(move || {
            let this = (at != END).then_some(at)?;
            at = self.next[this as usize];
            Some(this)
        })
    }

    /// The key goes; who has read it reads its count once more.
    fn free(&self, at: u32) {
        let key = self.key_of(at);
        key.store(next_key(key.load(Ordering::Relaxed), 0), Ordering::Relaxed);
        // Before what is written there next.
        fence(Ordering::Release);
    }

    /// Into a row that is free.
    fn fill(&self, at: u32, entry: &Entry) {
        if self.keys.is_wide() {
            let words = self.words(at);
            words[0].store(entry.address[0], Ordering::Relaxed);
            words[1].store(entry.address[1], Ordering::Relaxed);
        }
        self.data_of(at).store(entry.data, Ordering::Relaxed);
        let key = self.key_of(at);
        let before = key.load(Ordering::Relaxed);
        let after = next_key(before, self.keys.key(entry.scope, entry.address));
        key.store(after, Ordering::Release);
    }

    fn find(&self, scope: u32, address: [u64; 2]) -> Option<u32> {
        let hash = self.keys.hash(scope, address);
        let same = |found: Entry| self.keys.same(&found, scope, address);
        let mut line = self.line(hash, self.displacement(group(hash)));
        line.find(|at| self.entry(*at).is_some_and(same))
    }

    pub(crate) fn get(&self, scope: u32, address: [u64; 2]) -> Option<Entry> {
        self.entry(self.find(scope, address)?)
    }

    /// Inserts or replaces, and says what was there; a packet sees the old or the new.
    ///
    /// # Errors
    /// [`Error::Full`] with [`MAX_KEYS`] others.
    pub(crate) fn put(&mut self, entry: Entry) -> Result<Option<Entry>, Error> {
        let hash = self.keys.hash(entry.scope, entry.address);
        let group = group(hash);
        if let Some(at) = self.find(entry.scope, entry.address) {
            let old = self.entry(at);
            if old.is_some_and(|old| old.address == entry.address) {
                self.data_of(at).store(entry.data, Ordering::Release);
            } else {
                self.place(group, Some(at), entry)?;
            }
            return Ok(old);
        }
        if self.len >= MAX_KEYS {
            return Err(self.full());
        }
        let at = row(hash, self.displacement(group));
        if self.is_free(at) {
            self.fill(at, &entry);
            self.link(group, at);
        } else {
            self.place(group, None, entry)?;
        }
        Ok(None)
    }

    fn full(&self) -> Error {
        Error::Full { table: self.table, capacity: MAX_KEYS }
    }

    /// Gives a group another displacement, with an entry more, or in place of that in row `old`.
    ///
    /// # Errors
    /// [`Error::Full`]: with none there is room. That does not come about by chance.
    fn place(&mut self, group: u32, old: Option<u32>, entry: Entry) -> Result<(), Error> {
        let before: Vec<u32> = self.members(group).collect();
        let kept = before.iter().filter(|at| Some(**at) != old);
        let mut entries: Vec<Entry> =
            kept.map(|at| self.entry(*at).expect("rows of a list are live")).collect();
        entries.push(entry);
        let hash = |entry: &Entry| self.keys.hash(entry.scope, entry.address);
        let hashes: Vec<u64> = entries.iter().map(hash).collect();
        let now = self.displacement(group);
        let placed =
            (1..TRIES).find_map(|n| self.rows(now.wrapping_add(n), &hashes, 1)).or_else(|| {
                (1..=u16::MAX).find_map(|n| self.rows(now.wrapping_add(n), &hashes, NARROW))
            });
        let (other, rows) = placed.ok_or_else(|| self.full())?;
        for (at, entry) in rows.iter().zip(&entries) {
            self.fill(*at, entry);
        }
        let place = &self.places[(group / IN_WORD) as usize];
        let word = displaced(place.load(Ordering::Relaxed), group, other);
        place.store(word, Ordering::Release);
        // A reader that still goes to one of these sees that it is free, and looks again.
        fence(Ordering::Release);
        for at in &before {
            self.free(*at);
        }
        self.relink(group, &rows);
        Ok(())
    }

    /// Free rows for keys with a displacement, of the first `of_line` where packets look for each.
    fn rows(&self, other: u16, hashes: &[u64], of_line: u32) -> Option<(u16, Vec<u32>)> {
        let mut rows = Vec::with_capacity(hashes.len());
        for hash in hashes {
            let mut line = self.line(*hash, other).take(of_line as usize);
            rows.push(line.find(|at| self.is_free(*at) && !rows.contains(at))?);
        }
        Some((other, rows))
    }

    /// What was there.
    pub(crate) fn remove(&mut self, scope: u32, address: [u64; 2]) -> Option<Entry> {
        let at = self.find(scope, address)?;
        let old = self.entry(at);
        self.free(at);
        let group = group(self.keys.hash(scope, address));
        let rest: Vec<u32> = self.members(group).filter(|member| *member != at).collect();
        self.relink(group, &rest);
        old
    }

    /// In no order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> {
        (0..ROWS).filter_map(|at| self.entry(at))
    }

    /// The elements of both maps that are not all zero.
    pub(crate) fn raw_entries(&self, names: [&'static str; 2]) -> Vec<RawEntry> {
        let of = |words: &Mapped, each: usize, map: &'static str| {
            let elements = words.chunks_exact(each).enumerate().filter_map(move |(at, words)| {
                let words = words.iter().map(|word| word.load(Ordering::Relaxed));
                let value: Vec<u8> = words.flat_map(u64::to_ne_bytes).collect();
                let key = (at as u32).to_ne_bytes().to_vec();
                value.iter().any(|byte| *byte != 0).then_some(RawEntry { map, key, value })
            });
            elements.collect::<Vec<_>>()
        };
        let [lines, places] = names;
        let mut all = of(&self.rows, size_of::<NarrowLine>() / size_of::<u64>(), lines);
        all.extend(of(&self.places, 1, places));
        all
    }
}

#[cfg(test)]
mod tests;
