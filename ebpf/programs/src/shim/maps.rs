//! Maps, as bytes: each thread has its own of every definition, empty at first.

use std::borrow::Borrow;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::marker::PhantomData;
use std::ptr::NonNull;

use selvedge_ebpf_common::map::Kind;

use super::bindings::xdp_action::XDP_REDIRECT;
use super::{EbpfContext, MACHINE, over};

/// A map's definition. Its address is the map's name within a thread.
pub(crate) struct Def {
    pub(crate) kind: Kind,
    pub(crate) key_bytes: usize,
    pub(crate) value_bytes: usize,
    pub(crate) entries: u32,
}

/// Memory for a value or an array of them: aligned to 8, zero at first, and never moved, because
/// programs hold pointers to it.
struct Words(NonNull<[u64]>);

impl Words {
    fn zero(bytes: usize) -> Self {
        let words = vec![0u64; bytes.div_ceil(8)].into_boxed_slice();
        Self(NonNull::from(Box::leak(words)))
    }

    fn of(bytes: &[u8]) -> Self {
        let words = Self::zero(bytes.len());
        // SAFETY: as many bytes have just been allocated.
        unsafe { words.at(0).copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        words
    }

    fn at(&self, byte: usize) -> NonNull<u8> {
        assert!(byte < self.0.len() * 8);
        // SAFETY: inside the allocation, by the assertion.
        unsafe { self.0.cast::<u8>().add(byte) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: it came from a box, and no program runs while maps change.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

enum Store {
    /// Values at distances of a multiple of 8, as in the kernel.
    Array(Words),
    Hash(BTreeMap<Box<[u8]>, Words>),
    /// Longest prefixes first.
    Trie(Vec<(Box<[u8]>, Words)>),
    Ring(VecDeque<Box<[u8]>>),
}

thread_local! {
    static STORES: RefCell<BTreeMap<usize, Store>> = const { RefCell::new(BTreeMap::new()) };
}

/// Empties all maps of this thread.
pub(crate) fn clear() {
    STORES.with_borrow_mut(BTreeMap::clear);
}

/// Bits of a trie's key that count.
fn bits(key: &[u8]) -> u32 {
    u32::from_ne_bytes(*key.first_chunk().expect("a key begins with its length"))
}

/// Whether a trie's entry of key `prefix` is found by `key`.
fn covers(prefix: &[u8], key: &[u8]) -> bool {
    let bits = bits(prefix);
    let (whole, rest) = (bits as usize / 8, bits % 8);
    let (prefix, key) = (&prefix[4..], &key[4..]);
    let mask = 0xffu8.checked_shl(8 - rest).unwrap_or(0);
    prefix[..whole] == key[..whole] && (rest == 0 || (prefix[whole] ^ key[whole]) & mask == 0)
}

impl Def {
    const fn new<K, V>(kind: Kind, entries: u32) -> Self {
        Self { kind, key_bytes: size_of::<K>(), value_bytes: size_of::<V>(), entries }
    }

    fn with<T>(&'static self, work: impl FnOnce(&mut Store) -> T) -> T {
        STORES.with_borrow_mut(|stores| {
            work(stores.entry(std::ptr::from_ref(self).addr()).or_insert_with(|| match self.kind {
                Kind::Array | Kind::PerCpuArray => Store::Array(Words::zero(
                    self.entries as usize * self.value_bytes.next_multiple_of(8),
                )),
                Kind::Hash | Kind::LruHash | Kind::DevMap | Kind::XskMap => {
                    Store::Hash(BTreeMap::new())
                }
                Kind::LpmTrie => Store::Trie(Vec::new()),
                Kind::RingBuf => Store::Ring(VecDeque::new()),
                Kind::ProgramArray => unreachable!("the host calls stages itself"),
            }))
        })
    }

    /// The value of `key`, aligned to 8.
    pub(crate) fn find(&'static self, key: &[u8]) -> Option<NonNull<u8>> {
        assert_eq!(key.len(), self.key_bytes);
        self.with(|store| match store {
            Store::Array(words) => {
                let index = u32::from_ne_bytes(*key.first_chunk().expect("an index"));
                let distance = self.value_bytes.next_multiple_of(8);
                (index < self.entries).then(|| words.at(index as usize * distance))
            }
            Store::Hash(entries) => entries.get(key).map(|value| value.at(0)),
            Store::Trie(entries) => {
                let found = entries.iter().find(|(p, _)| bits(p) <= bits(key) && covers(p, key));
                found.map(|(_, value)| value.at(0))
            }
            Store::Ring(_) => None,
        })
    }

    /// A copy of the value of `key`.
    pub(crate) fn read(&'static self, key: &[u8]) -> Option<Vec<u8>> {
        let value = self.find(key)?;
        // SAFETY: a value of this map, which only this thread changes.
        Some(unsafe { std::slice::from_raw_parts(value.as_ptr(), self.value_bytes) }.to_vec())
    }

    /// Inserts or replaces. A full LRU map makes room; which entry goes is not said.
    ///
    /// # Errors
    /// The map is full, or an array without that index.
    pub(crate) fn write(&'static self, key: &[u8], value: &[u8]) -> Result<(), i32> {
        const E2BIG: i32 = 7;
        assert_eq!((key.len(), value.len()), (self.key_bytes, self.value_bytes));
        let array = matches!(self.kind, Kind::Array | Kind::PerCpuArray);
        if array || self.kind == Kind::Hash {
            if let Some(old) = self.find(key) {
                // SAFETY: a value of this map, as long as `value`.
                unsafe { old.copy_from_nonoverlapping(NonNull::from(value).cast(), value.len()) };
                return Ok(());
            } else if array {
                return Err(-E2BIG);
            }
        }
        self.with(|store| match store {
            Store::Hash(entries) => {
                if entries.len() >= self.entries as usize && !entries.contains_key(key) {
                    if self.kind != Kind::LruHash {
                        return Err(-E2BIG);
                    }
                    entries.pop_first();
                }
                entries.insert(key.into(), Words::of(value));
                Ok(())
            }
            Store::Trie(entries) => {
                entries.retain(|(old, _)| bits(old) != bits(key) || !covers(old, key));
                if entries.len() >= self.entries as usize {
                    return Err(-E2BIG);
                }
                let place = entries.partition_point(|(other, _)| bits(other) > bits(key));
                entries.insert(place, (key.into(), Words::of(value)));
                Ok(())
            }
            Store::Array(_) | Store::Ring(_) => unreachable!("no map to insert into"),
        })
    }

    /// Takes all records of a ring.
    pub(crate) fn drain(&'static self) -> Vec<Box<[u8]>> {
        self.with(|store| match store {
            Store::Ring(records) => records.drain(..).collect(),
            _ => unreachable!("not a ring"),
        })
    }

    fn get<K, V>(&'static self, key: &K) -> Option<NonNull<V>> {
        if over() { None } else { self.find(bytes(key)).map(NonNull::cast) }
    }

    /// `bpf_redirect_map`.
    fn redirect(&'static self, index: u32, flags: u64) -> Result<u32, u32> {
        if over() || self.find(bytes(&index)).is_none() {
            return Err(flags as u32 & 3);
        }
        MACHINE.with(|machine| machine.redirected.set(Some(index)));
        Ok(XDP_REDIRECT)
    }
}

/// Keys and values have no hidden padding (`selvedge_ebpf_common::Plain`).
fn bytes<T>(value: &T) -> &[u8] {
    // SAFETY: all bytes of the value are initialized, as said above.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

macro_rules! map {
    ($name:ident$(<$($parameter:ident),*>)?, $kind:ident, $key:ty, $value:ty) => {
        pub(crate) struct $name$(<$($parameter),*>)? {
            def: Def,
            _of: PhantomData<fn() -> ($($($parameter,)*)?)>,
        }

        impl$(<$($parameter),*>)? $name$(<$($parameter),*>)? {
            pub(crate) const fn with_max_entries(entries: u32, _flags: u32) -> Self {
                Self { def: Def::new::<$key, $value>(Kind::$kind, entries), _of: PhantomData }
            }

            pub(crate) const fn def(&self) -> &Def {
                &self.def
            }
        }
    };
}

map!(Array<V>, Array, u32, V);
map!(PerCpuArray<V>, PerCpuArray, u32, V);
map!(HashMap<K, V>, Hash, K, V);
map!(LruHashMap<K, V>, LruHash, K, V);
map!(LpmTrie<K, V>, LpmTrie, lpm_trie::Key<K>, V);
map!(DevMap, DevMap, u32, [u32; 2]);
map!(XskMap, XskMap, u32, u32);

impl<V> Array<V> {
    pub(crate) fn get(&'static self, index: u32) -> Option<&'static V> {
        // SAFETY: a value of this map, which stays where it is while the program runs.
        self.def.get(&index).map(|value| unsafe { value.as_ref() })
    }

    pub(crate) fn get_ptr_mut(&'static self, index: u32) -> Option<*mut V> {
        self.def.get(&index).map(NonNull::as_ptr)
    }
}

/// This thread is a CPU.
impl<V> PerCpuArray<V> {
    pub(crate) fn get_ptr_mut(&'static self, index: u32) -> Option<*mut V> {
        self.def.get(&index).map(NonNull::as_ptr)
    }
}

impl<K, V> HashMap<K, V> {
    /// # Safety
    /// None needed here; aya's has this signature.
    pub(crate) unsafe fn get(&'static self, key: impl Borrow<K>) -> Option<&'static V> {
        // SAFETY: a value of this map, which stays where it is while the program runs.
        self.def.get(key.borrow()).map(|value| unsafe { value.as_ref() })
    }

    pub(crate) fn get_ptr_mut(&'static self, key: impl Borrow<K>) -> Option<*mut V> {
        self.def.get(key.borrow()).map(NonNull::as_ptr)
    }
}

impl<K, V: Copy> LruHashMap<K, V> {
    /// # Safety
    /// The value is read before anything is inserted.
    pub(crate) unsafe fn get(&'static self, key: impl Borrow<K>) -> Option<&'static V> {
        // SAFETY: by this function's contract.
        self.def.get(key.borrow()).map(|value| unsafe { value.as_ref() })
    }

    pub(crate) fn insert(
        &'static self,
        key: impl Borrow<K>,
        value: impl Borrow<V>,
        _flags: u64,
    ) -> Result<(), i32> {
        if over() { Ok(()) } else { self.def.write(bytes(key.borrow()), bytes(value.borrow())) }
    }
}

impl<K, V> LpmTrie<K, V> {
    pub(crate) fn get(&'static self, key: impl Borrow<lpm_trie::Key<K>>) -> Option<&'static V> {
        // SAFETY: a value of this map, which stays where it is while the program runs.
        self.def.get(key.borrow()).map(|value| unsafe { value.as_ref() })
    }
}

pub(crate) mod lpm_trie {
    #[repr(C, packed)]
    pub(crate) struct Key<K> {
        prefix_len: u32,
        data: K,
    }

    impl<K> Key<K> {
        pub(crate) const fn new(prefix_len: u32, data: K) -> Self {
            Self { prefix_len, data }
        }
    }
}

impl DevMap {
    pub(crate) fn redirect(&'static self, index: u32, flags: u64) -> Result<u32, u32> {
        self.def.redirect(index, flags)
    }
}

impl XskMap {
    pub(crate) fn get(&'static self, index: u32) -> Option<u32> {
        // SAFETY: a value of this map.
        self.def.get(&index).map(|value| unsafe { value.read() })
    }

    pub(crate) fn redirect(&'static self, index: u32, flags: u64) -> Result<u32, u32> {
        self.def.redirect(index, flags)
    }
}

pub(crate) struct RingBuf(Def);

impl RingBuf {
    pub(crate) const fn with_byte_size(bytes: u32, _flags: u32) -> Self {
        Self(Def { kind: Kind::RingBuf, key_bytes: 0, value_bytes: 0, entries: bytes })
    }

    pub(crate) const fn def(&self) -> &Def {
        &self.0
    }

    /// A record takes its length and 8 bytes, rounded up to 8 (Documentation/bpf/ringbuf.rst).
    pub(crate) fn output<T>(&'static self, record: impl Borrow<T>, _flags: u64) -> Result<(), i32> {
        const EAGAIN: i32 = 11;
        if over() {
            return Ok(());
        }
        self.0.with(|store| {
            let Store::Ring(records) = store else { unreachable!("a ring") };
            let taken = |len: usize| (len + 8).next_multiple_of(8);
            let used: usize = records.iter().map(|record| taken(record.len())).sum();
            if used + taken(size_of::<T>()) >= self.0.entries as usize {
                return Err(-EAGAIN);
            }
            records.push_back(bytes(record.borrow()).into());
            Ok(())
        })
    }
}

/// Its stages are always there; the host calls them.
pub(crate) struct ProgramArray(Def);

impl ProgramArray {
    pub(crate) const fn with_max_entries(stages: u32, _flags: u32) -> Self {
        Self(Def { kind: Kind::ProgramArray, key_bytes: 4, value_bytes: 4, entries: stages })
    }

    pub(crate) const fn def(&self) -> &Def {
        &self.0
    }

    /// # Safety
    /// None needed here; aya's has this signature.
    pub(crate) unsafe fn tail_call<C: EbpfContext>(&self, _ctx: &C, stage: u32) {
        if !over() && stage < self.0.entries {
            MACHINE.with(|machine| machine.next.set(Some(stage)));
        }
    }
}
