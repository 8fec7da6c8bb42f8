//! What a hook may import, from the module `selvedge`, and the state behind it. Everything is
//! bounded; nothing blocks.
//!
//! | function | answer |
//! |---|---|
//! | `counter(id: i32, n: i64)` | adds n to counter `id`, `0..16`; another id traps |
//! | `clock_ns() -> i64` | monotonic nanoseconds |
//! | `map_get(key, key_len, value, capacity: i32) -> i32` | length of the value, copied out as far as it fits; -1 when there is none |
//! | `map_put(key, key_len, value, value_len: i32) -> i32` | 0; -1 when the map is full; -2 when key or value is too long. An empty value removes the key |
//! | `emit(ptr, len: i32) -> i32` | 0; -1 above 16 a second; -2 above 256 bytes |

use std::{
    collections::HashMap,
    ops::Range,
    time::{Duration, Instant},
};

use wasmtime::{Caller, Linker, Memory, StoreLimits, bail, ensure};

use crate::{
    guest::{self, copy_in, copy_out},
    watchdog::Deadline,
};

/// Import module of everything below.
pub(crate) const MODULE: &str = "selvedge";
/// Everything that a manifest may name.
pub(crate) const NAMES: [&str; 5] = ["clock_ns", "counter", "emit", "map_get", "map_put"];
/// Counters of one hook.
pub const COUNTERS: usize = 16;
/// Entries of one hook's map, and bytes of a key and a value.
pub const MAP_ENTRIES: usize = 4096;
pub const MAP_KEY: usize = 64;
pub const MAP_VALUE: usize = 256;
/// Events of one hook: bytes of one, and how many in a second.
pub const EVENT: usize = 256;
pub const EVENTS_PER_SECOND: u32 = 16;

/// What one guest has besides its memory.
pub(crate) struct State {
    pub(crate) limits: StoreLimits,
    pub(crate) memory: Option<Memory>,
    pub(crate) deadline: Deadline,
    pub(crate) counters: [u64; COUNTERS],
    map: HashMap<Vec<u8>, Vec<u8>>,
    events: Events,
}

/// Where events go, and how many still may in this second.
struct Events {
    sink: Box<dyn FnMut(Vec<u8>) + Send>,
    second: Instant,
    left: u32,
    dropped: u64,
}

impl State {
    pub(crate) fn new(
        limits: StoreLimits,
        deadline: Deadline,
        sink: Box<dyn FnMut(Vec<u8>) + Send>,
    ) -> Self {
        let second = Instant::now();
        let events = Events { sink, second, left: EVENTS_PER_SECOND, dropped: 0 };
        let map = HashMap::new();
        Self { limits, memory: None, deadline, counters: [0; COUNTERS], map, events }
    }

    pub(crate) fn events_dropped(&self) -> u64 {
        self.events.dropped
    }
}

impl Events {
    fn emit(&mut self, payload: Vec<u8>, now: Instant) -> i32 {
        if now.duration_since(self.second) >= Duration::from_secs(1) {
            self.second = now;
            self.left = EVENTS_PER_SECOND;
        }
        if self.left == 0 {
            self.dropped += 1;
            return -1;
        }
        self.left -= 1;
        (self.sink)(payload);
        0
    }
}

/// All functions of [`NAMES`]; which of them a module gets is checked before.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap(MODULE, "counter", |mut caller: Caller<'_, State>, id: u32, n: u64| {
        let Some(counter) = caller.data_mut().counters.get_mut(id as usize) else {
            bail!("counter {id} of {COUNTERS}");
        };
        *counter = counter.wrapping_add(n);
        Ok(())
    })?;
    linker.func_wrap(MODULE, "clock_ns", clock_ns)?;
    linker.func_wrap(
        MODULE,
        "map_get",
        |mut caller: Caller<'_, State>, key: u32, key_len: u32, value: u32, capacity: u32| {
            if key_len as usize > MAP_KEY {
                return Ok(-1);
            }
            let key = bytes(&caller, key, key_len)?;
            let Some(found) = caller.data().map.get(&key).cloned() else {
                return Ok(-1);
            };
            let fits = found.len().min(capacity as usize);
            let range = range(&caller, value, fits as u32)?;
            let memory = memory(&caller)?;
            copy_in(memory, &mut caller, range.start, &found[..fits]);
            Ok(i32::try_from(found.len()).expect("at most MAP_VALUE"))
        },
    )?;
    linker.func_wrap(
        MODULE,
        "map_put",
        |mut caller: Caller<'_, State>, key: u32, key_len: u32, value: u32, value_len: u32| {
            if key_len as usize > MAP_KEY || value_len as usize > MAP_VALUE {
                return Ok(-2);
            }
            let key = bytes(&caller, key, key_len)?;
            let value = bytes(&caller, value, value_len)?;
            let map = &mut caller.data_mut().map;
            if value.is_empty() {
                map.remove(&key);
            } else if map.len() >= MAP_ENTRIES && !map.contains_key(&key) {
                return Ok(-1);
            } else {
                map.insert(key, value);
            }
            wasmtime::Result::Ok(0)
        },
    )?;
    linker.func_wrap(MODULE, "emit", |mut caller: Caller<'_, State>, at: u32, len: u32| {
        if len as usize > EVENT {
            return Ok(-2);
        }
        let payload = bytes(&caller, at, len)?;
        wasmtime::Result::Ok(caller.data_mut().events.emit(payload, Instant::now()))
    })?;
    Ok(())
}

fn clock_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

fn memory(caller: &Caller<'_, State>) -> wasmtime::Result<Memory> {
    match caller.data().memory {
        Some(memory) => Ok(memory),
        None => bail!("called before the module's memory is known (in its start function)"),
    }
}

/// The bytes `at..at + len` of guest memory, as offsets; an error (a trap) beyond its end.
fn range(caller: &Caller<'_, State>, at: u32, len: u32) -> wasmtime::Result<Range<usize>> {
    let size = memory(caller)?.data_size(caller);
    let range = at as usize..at as usize + len as usize;
    ensure!(range.end <= size, "{len} bytes at {at} are beyond the memory's {size}");
    Ok(range)
}

fn bytes(caller: &Caller<'_, State>, at: u32, len: u32) -> wasmtime::Result<Vec<u8>> {
    let range = range(caller, at, len)?;
    let mut bytes = vec![0; range.len()];
    copy_out(memory(caller)?, caller, range.start, &mut bytes);
    Ok(bytes)
}

/// Names of a module's imports that it is not given: those that nobody is, and those that its
/// manifest does not name.
pub(crate) fn check(
    module: &wasmtime::Module,
    manifest: &crate::manifest::Manifest,
) -> Result<(), crate::LoadError> {
    let full = |import: &wasmtime::ImportType<'_>| format!("{}.{}", import.module(), import.name());
    let known = |import: &wasmtime::ImportType<'_>| {
        import.module() == MODULE
            && NAMES.contains(&import.name())
            && import.ty().func().is_some_and(guest::is_simple)
    };
    let (known, unknown): (Vec<_>, Vec<_>) = module.imports().partition(known);
    if !unknown.is_empty() {
        let names = unknown.iter().map(full).collect();
        return Err(crate::LoadError::UnknownImports { names });
    }
    let undeclared: Vec<_> =
        known.iter().filter(|import| !manifest.imports.contains(import.name())).collect();
    if !undeclared.is_empty() {
        let names = undeclared.into_iter().map(full).collect();
        return Err(crate::LoadError::UndeclaredImports { names });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_bounded_by_the_second() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let start = Instant::now();
        let sink = Box::new(move |payload| sender.send(payload).unwrap());
        let mut events = Events { sink, second: start, left: EVENTS_PER_SECOND, dropped: 0 };
        let answers = |events: &mut Events, at: Instant| {
            (0..20).filter(|n| events.emit(vec![*n], at) == 0).count()
        };
        assert_eq!(answers(&mut events, start), 16);
        assert_eq!(answers(&mut events, start + Duration::from_millis(999)), 0);
        assert_eq!(answers(&mut events, start + Duration::from_millis(1000)), 16);
        assert_eq!(events.dropped, 28);
        assert_eq!(receiver.try_iter().count(), 32);
    }
}
