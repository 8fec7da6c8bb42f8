//! One kernel map, typed by the caller with [`Plain`] keys and values.
//!
//! Each call is one system call; sizes are checked when the map is opened, so that a key or a
//! value of another size is a programming error here and panics.

use std::collections::BTreeMap;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use selvedge_ebpf_common::Plain;
use selvedge_ebpf_common::map::{Kind, Spec};

use crate::{Error, sys};

#[derive(Debug)]
pub(crate) struct Map {
    fd: OwnedFd,
    pub(crate) spec: &'static Spec,
    /// Of a per-CPU map, what counts as one CPU more: see [`Map::with_base`].
    base: Option<Box<Map>>,
}

/// One entry of a pinned map, as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawEntry {
    pub map: &'static str,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

impl Map {
    /// `fd` is a map of exactly this spec; [`mismatch`] has been asked.
    pub(crate) fn new(fd: OwnedFd, spec: &'static Spec) -> Self {
        Self { fd, spec, base: None }
    }

    /// Adds to what is read of a per-CPU array what `base`, an array as long, holds.
    pub(crate) fn with_base(self, base: Map) -> Self {
        assert_eq!(base.spec.value_bytes, self.spec.value_bytes, "{}", base.spec.name);
        Self { base: Some(Box::new(base)), ..self }
    }

    pub(crate) fn base(&self) -> &Map {
        self.base.as_ref().expect("counters have one")
    }

    fn check<K: Plain, V: Plain>(&self) {
        assert_eq!(size_of::<K>(), self.spec.key_bytes, "key of {}", self.spec.name);
        assert_eq!(size_of::<V>(), self.spec.value_bytes, "value of {}", self.spec.name);
        assert_ne!(self.spec.kind, Kind::PerCpuArray, "{} is per CPU", self.spec.name);
    }

    /// Also `None` for an index beyond the end of an array.
    pub(crate) fn get<K: Plain, V: Plain>(&self, key: &K) -> Result<Option<V>, Error> {
        self.check::<K, V>();
        let mut value = MaybeUninit::<V>::uninit();
        // SAFETY: sizes checked above.
        let found = unsafe {
            sys::lookup(self.fd.as_fd(), std::ptr::from_ref(key).cast(), value.as_mut_ptr().cast())
        };
        let found = found.map_err(Error::map("read", self.spec.name))?;
        // SAFETY: the kernel has written the whole value, and any bits are a valid `Plain`.
        Ok(found.map(|()| unsafe { value.assume_init() }))
    }

    /// An element of an array.
    pub(crate) fn at<V: Plain>(&self, index: u32) -> Result<V, Error> {
        Ok(self.get(&index)?.expect("callers check indices against the map's size"))
    }

    pub(crate) fn put<K: Plain, V: Plain>(&self, key: &K, value: &V) -> Result<(), Error> {
        self.check::<K, V>();
        // SAFETY: sizes checked above.
        let result = unsafe {
            sys::update(
                self.fd.as_fd(),
                std::ptr::from_ref(key).cast(),
                std::ptr::from_ref(value).cast(),
            )
        };
        result.map_err(|source| match source.raw_os_error() {
            Some(libc::E2BIG | libc::ENOSPC) => {
                Error::Full { table: self.spec.name, capacity: self.spec.entries }
            }
            _ => Error::Map { doing: "write", map: self.spec.name, source },
        })
    }

    /// Elements of an array from an index on; each is written whole.
    pub(crate) fn put_array<V: Plain>(&self, first: u32, values: &[V]) -> Result<(), Error> {
        self.check::<u32, V>();
        let keys: Vec<u32> = (first..).zip(values).map(|(key, _)| key).collect();
        let Ok(count @ 1..) = u32::try_from(keys.len()) else { return Ok(()) };
        // SAFETY: as many keys as values, of the sizes checked above.
        let put = unsafe {
            sys::update_many(self.fd.as_fd(), keys.as_ptr().cast(), values.as_ptr().cast(), count)
        };
        put.map_err(Error::map("write", self.spec.name))
    }

    /// Whether there was one.
    pub(crate) fn remove<K: Plain>(&self, key: &K) -> Result<bool, Error> {
        assert_eq!(size_of::<K>(), self.spec.key_bytes, "key of {}", self.spec.name);
        // SAFETY: size checked above.
        let found = unsafe { sys::delete(self.fd.as_fd(), std::ptr::from_ref(key).cast()) };
        Ok(found.map_err(Error::map("delete from", self.spec.name))?.is_some())
    }

    /// Keys of a hash or prefix map, in no order.
    pub(crate) fn keys<K: Plain>(&self) -> Result<Vec<K>, Error> {
        assert_eq!(size_of::<K>(), self.spec.key_bytes, "key of {}", self.spec.name);
        let mut keys: Vec<K> = Vec::new();
        loop {
            let last = keys.last().map_or(std::ptr::null(), |key| std::ptr::from_ref(key).cast());
            let mut next = MaybeUninit::<K>::uninit();
            // SAFETY: sizes checked above; null means from the start.
            let found = unsafe { sys::next_key(self.fd.as_fd(), last, next.as_mut_ptr().cast()) };
            match found.map_err(Error::map("list", self.spec.name))? {
                // SAFETY: the kernel has written the key.
                Some(()) => keys.push(unsafe { next.assume_init() }),
                None => return Ok(keys),
            }
        }
    }

    pub(crate) fn is_empty<K: Plain>(&self) -> Result<bool, Error> {
        assert_eq!(size_of::<K>(), self.spec.key_bytes, "key of {}", self.spec.name);
        let mut first = MaybeUninit::<K>::uninit();
        // SAFETY: size checked above; null means from the start.
        let found =
            unsafe { sys::next_key(self.fd.as_fd(), std::ptr::null(), first.as_mut_ptr().cast()) };
        Ok(found.map_err(Error::map("list", self.spec.name))?.is_none())
    }

    /// Entries of a hash or prefix map, in no order.
    pub(crate) fn entries<K: Plain, V: Plain>(&self) -> Result<Vec<(K, V)>, Error> {
        let mut entries = Vec::new();
        for key in self.keys::<K>()? {
            if let Some(value) = self.get(&key)? {
                entries.push((key, value));
            }
        }
        Ok(entries)
    }

    /// All elements of an array.
    pub(crate) fn array<V: Plain + Default>(&self) -> Result<Vec<V>, Error> {
        self.check::<u32, V>();
        let count = self.spec.entries;
        let mut keys = vec![0u32; count as usize];
        let mut values = vec![V::default(); count as usize];
        // SAFETY: both have room for `count`.
        let got = unsafe {
            sys::lookup_array(
                self.fd.as_fd(),
                None,
                keys.as_mut_ptr(),
                values.as_mut_ptr().cast(),
                count,
            )
        };
        let got = got.map_err(Error::map("read", self.spec.name))?;
        values.truncate(got as usize);
        Ok(values)
    }

    /// Entries as bytes, without the elements of an array that are all zero.
    pub(crate) fn raw_entries(&self) -> Result<Vec<RawEntry>, Error> {
        let Spec { name, kind, key_bytes, value_bytes, entries } = *self.spec;
        assert_ne!(kind, Kind::PerCpuArray, "{name} is per CPU");
        let entry = |key, value| RawEntry { map: name, key, value };
        if kind == Kind::Array {
            let mut keys = vec![0u32; entries as usize];
            let mut values = vec![0u8; entries as usize * value_bytes];
            // SAFETY: both have room for all elements.
            let got = unsafe {
                sys::lookup_array(
                    self.fd.as_fd(),
                    None,
                    keys.as_mut_ptr(),
                    values.as_mut_ptr(),
                    entries,
                )
            };
            let got = got.map_err(Error::map("read", name))?;
            let numbered = (0u32..got).zip(values.chunks_exact(value_bytes));
            return Ok(numbered
                .filter(|(_, value)| value.iter().any(|byte| *byte != 0))
                .map(|(index, value)| entry(index.to_ne_bytes().to_vec(), value.to_vec()))
                .collect());
        }
        let mut found = Vec::new();
        let mut last: Option<Vec<u8>> = None;
        loop {
            let (mut key, mut value) = (vec![0; key_bytes], vec![0; value_bytes]);
            let from = last.as_ref().map_or(std::ptr::null(), |key| key.as_ptr());
            // SAFETY: of the map's sizes; null means from the start.
            let next = unsafe { sys::next_key(self.fd.as_fd(), from, key.as_mut_ptr()) };
            if next.map_err(Error::map("list", name))?.is_none() {
                return Ok(found);
            }
            // SAFETY: of the map's sizes.
            let one = unsafe { sys::lookup(self.fd.as_fd(), key.as_ptr(), value.as_mut_ptr()) };
            if one.map_err(Error::map("read", name))?.is_some() {
                found.push(entry(key.clone(), value));
            }
            last = Some(key);
        }
    }

    /// One element of a per-CPU array, for each possible CPU, and after them its base.
    pub(crate) fn per_cpu<V: Plain>(&self, index: u32) -> Result<Vec<V>, Error> {
        self.check_per_cpu::<V>();
        let n_cpus = self.cpus()?;
        let mut values: Vec<MaybeUninit<V>> = vec![MaybeUninit::uninit(); n_cpus];
        // SAFETY: room for one value for each CPU.
        let found = unsafe {
            sys::lookup(
                self.fd.as_fd(),
                std::ptr::from_ref(&index).cast(),
                values.as_mut_ptr().cast(),
            )
        };
        match found.map_err(Error::map("read", self.spec.name))? {
            Some(()) => {
                // SAFETY: the kernel has written all of them.
                let values = values.into_iter().map(|value| unsafe { value.assume_init() });
                let base = self.base.as_ref().map(|base| base.at(index)).transpose()?;
                Ok(values.chain(base).collect())
            }
            None => Ok(Vec::new()),
        }
    }

    /// All elements of a per-CPU array, each added up over the CPUs and its base.
    pub(crate) fn per_cpu_array<V: Plain + Default>(
        &self,
        add: impl Fn(V, V) -> V,
    ) -> Result<Vec<V>, Error> {
        self.check_per_cpu::<V>();
        let n_cpus = self.cpus()?;
        let count = self.spec.entries;
        let mut keys = vec![0u32; count as usize];
        let mut values = vec![V::default(); count as usize * n_cpus];
        // SAFETY: room for `count` keys, and for one value of each CPU for each.
        let got = unsafe {
            sys::lookup_array(
                self.fd.as_fd(),
                None,
                keys.as_mut_ptr(),
                values.as_mut_ptr().cast(),
                count,
            )
        };
        let got = got.map_err(Error::map("read", self.spec.name))?;
        let whole = values.chunks_exact(n_cpus).take(got as usize);
        let mut sums: Vec<V> =
            whole.map(|cpus| cpus.iter().copied().fold(V::default(), &add)).collect();
        if let Some(base) = &self.base {
            for (sum, more) in sums.iter_mut().zip(base.array()?) {
                *sum = add(*sum, more);
            }
        }
        Ok(sums)
    }

    /// The elements of a per-CPU array that are not zero on every CPU, each added up over the CPUs
    /// without its base. For large arrays that are mostly zero: few are in memory at a time.
    pub(crate) fn per_cpu_used<V: Plain + Default + PartialEq>(
        &self,
        add: impl Fn(V, V) -> V,
    ) -> Result<BTreeMap<u32, V>, Error> {
        const AT_ONCE: usize = 512;
        self.check_per_cpu::<V>();
        let n_cpus = self.cpus()?;
        let mut keys = vec![0u32; AT_ONCE];
        let mut values = vec![V::default(); AT_ONCE * n_cpus];
        let (mut used, mut after) = (BTreeMap::new(), None);
        loop {
            // SAFETY: room for so many keys, and for one value of each CPU for each.
            let got = unsafe {
                let (keys, values) = (keys.as_mut_ptr(), values.as_mut_ptr().cast());
                sys::lookup_array(self.fd.as_fd(), after, keys, values, AT_ONCE as u32)
            };
            let got = got.map_err(Error::map("read", self.spec.name))? as usize;
            for (key, cpus) in keys.iter().zip(values.chunks_exact(n_cpus)).take(got) {
                if cpus.iter().any(|value| *value != V::default()) {
                    used.insert(*key, cpus.iter().copied().fold(V::default(), &add));
                }
            }
            if got < AT_ONCE || keys[got - 1] + 1 == self.spec.entries {
                return Ok(used);
            }
            after = Some(keys[got - 1]);
        }
    }

    fn check_per_cpu<V: Plain>(&self) {
        assert_eq!(size_of::<V>(), self.spec.value_bytes, "value of {}", self.spec.name);
        assert_eq!(size_of::<V>() % 8, 0, "the kernel rounds per-CPU values up to 8");
        assert_eq!(self.spec.kind, Kind::PerCpuArray);
    }

    fn cpus(&self) -> Result<usize, Error> {
        aya::util::nr_cpus().map_err(|(_, source)| Error::Map {
            doing: "read",
            map: self.spec.name,
            source,
        })
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// How a kernel map differs from what `spec` wants: what it is, what it should be.
pub(crate) fn mismatch(fd: BorrowedFd<'_>, spec: &Spec) -> io::Result<Option<(String, String)>> {
    let info = sys::map_info(fd)?;
    let text = |kind: u32, key: u32, value: u32, entries: u32| {
        format!("a map of type {kind} with {entries} entries of {key}+{value} bytes")
    };
    let size = |bytes: usize| u32::try_from(bytes).expect("a map value is small");
    let wanted = (spec.kind as u32, size(spec.key_bytes), size(spec.value_bytes), spec.entries);
    let found = (info.kind, info.key_size, info.value_size, info.max_entries);
    let say = |(kind, key, value, entries)| text(kind, key, value, entries);
    Ok((found != wanted).then(|| (say(found), say(wanted))))
}
