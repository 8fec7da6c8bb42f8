//! One module, instantiated: checked against the ABI, given its packet window, called by the
//! batch within its limits.
//!
//! Linear memory of a guest once it is ready, in order: what the module defined, then
//! [`WINDOW`] bytes of packet window, then one page of 64 KiB that the host writes: the
//! configuration for `hook_init`, later the descriptors of each batch. The host grows the
//! memory by these, so a module needs no knowledge of them and cannot have put anything there.
//!
//! No Rust reference to guest memory is ever formed: the kernel writes to the window while
//! the guest runs. All access is by [`copy_in`] and [`copy_out`].

use wasmtime::{
    AsContext, AsContextMut, Config, Engine, FuncType, Instance, Linker, Memory, Module, OptLevel,
    Store, StoreLimitsBuilder, TypedFunc, UpdateDeadline, ValType, WasmParams, WasmResults,
};

use crate::{
    LoadError,
    batch::{BATCH, DESCRIPTOR, Decision, Descriptor, Violation},
    error::Failure,
    frames::{FRAMES, Frames, PAGE, WINDOW},
    imports::{self, State},
    manifest::{ABI, Manifest, Verdict},
    memory::Creator,
    outer::MAX_INNER,
    watchdog::{BATCH_BUDGET, Budget, Deadline, Guard, INIT_BUDGET, Watchdog},
};

/// Wasm page.
const WASM_PAGE: usize = 64 << 10;
/// Bytes of Wasm stack; deeper recursion traps.
pub const STACK: usize = 256 << 10;
/// Fuel for instantiation and `hook_init` together; about one unit an instruction.
pub const INIT_FUEL: u64 = 200_000_000;
/// Fuel for `hook_quiesce`.
pub(crate) const QUIESCE_FUEL: u64 = 1_000_000;
/// Where a Load leaves it to the host: fuel for each packet, bytes of memory.
pub const DEFAULT_FUEL_PER_PACKET: u64 = 100_000;
pub const DEFAULT_MEMORY: u64 = 64 << 20;
/// Most that a Load may ask for.
pub const MAX_MEMORY: u64 = 1 << 30;
const TABLE_ELEMENTS: usize = 10_000;

const HOST_PAGES: u64 = ((WINDOW + WASM_PAGE) / WASM_PAGE) as u64;
const _: () = assert!(WINDOW.is_multiple_of(WASM_PAGE) && BATCH * DESCRIPTOR <= WASM_PAGE);
const _: () = assert!(selvedge_southbound::compute::MAX_CONFIG <= WASM_PAGE);
const _: () = assert!(MAX_INNER <= crate::frames::FRAME_INNER && MAX_INNER <= PAGE);

/// What a guest may use, and what it is told.
pub(crate) struct Terms<'a> {
    pub(crate) config: &'a [u8],
    pub(crate) fuel_per_packet: u64,
    pub(crate) memory_bytes: u64,
}

/// Compiles and runs all hooks of a process.
pub(crate) struct Machine {
    engine: Engine,
    watchdog: Watchdog,
}

impl Machine {
    pub(crate) fn new() -> Result<Self, LoadError> {
        let mut config = Config::new();
        config
            .with_host_memory(Creator::shared())
            .memory_init_cow(false)
            .memory_may_move(false)
            .consume_fuel(true)
            .epoch_interruption(true)
            .max_wasm_stack(STACK)
            .cranelift_opt_level(OptLevel::Speed)
            .wasm_multi_memory(false)
            .wasm_memory64(false)
            .wasm_relaxed_simd(false)
            .wasm_tail_call(false);
        let engine = Engine::new(&config).map_err(|e| LoadError::Compile { source: e.into() })?;
        let watchdog = Watchdog::start(&engine)
            .map_err(|error| LoadError::Instantiate { source: error.into() })?;
        Ok(Self { engine, watchdog })
    }
}

/// A running instance. Not `Sync`: one thread calls it.
pub(crate) struct Guest {
    store: Store<State>,
    memory: Memory,
    batch: TypedFunc<(u32, u32), i32>,
    quiesce: TypedFunc<(), ()>,
    window: u32,
    fuel_per_packet: u64,
    may_reply: bool,
    _ticking: Guard,
}

impl Guest {
    /// Takes `module` in: manifest, compilation, imports, exports, instantiation, window over
    /// `frames`, `hook_init`. `sink` gets its events.
    pub(crate) fn load(
        machine: &Machine,
        module: &[u8],
        terms: &Terms<'_>,
        frames: &Frames,
        sink: Box<dyn FnMut(Vec<u8>) + Send>,
    ) -> Result<Self, LoadError> {
        let manifest = Manifest::read(module)?;
        let module = Module::from_binary(&machine.engine, module)
            .map_err(|error| LoadError::Compile { source: error.into() })?;
        imports::check(&module, &manifest)?;
        check_exports(&module)?;

        let memory_bytes = usize::try_from(terms.memory_bytes).expect("checked by the host");
        let limit = |memory| {
            StoreLimitsBuilder::new()
                .memory_size(memory)
                .table_elements(TABLE_ELEMENTS)
                .instances(1)
                .memories(1)
                .tables(4)
                .build()
        };
        let ticking = machine.watchdog.guard();
        let state = State::new(limit(memory_bytes), Deadline::start(INIT_BUDGET), sink);
        let mut store = Store::new(&machine.engine, state);
        store.limiter(|state| &mut state.limits);
        store.epoch_deadline_callback(|store| {
            Ok(if store.data().deadline.passed() {
                UpdateDeadline::Interrupt
            } else {
                UpdateDeadline::Continue(1)
            })
        });
        allow(&mut store, INIT_FUEL, INIT_BUDGET);

        let mut linker = Linker::new(&machine.engine);
        let instance = imports::link(&mut linker)
            .and_then(|()| linker.instantiate(&mut store, &module))
            .map_err(|error| LoadError::Instantiate {
                source: Failure::of(error, INIT_FUEL, INIT_BUDGET).into(),
            })?;
        let memory = instance.get_memory(&mut store, "memory").expect("exports are checked");
        store.data_mut().memory = Some(memory);

        let abi = function::<(), i32>(&instance, &mut store, "hook_abi")
            .call(&mut store, ())
            .map_err(|error| Failure::of(error, INIT_FUEL, INIT_BUDGET))
            .map_err(|source| LoadError::AbiCall { source })?;
        if abi != ABI {
            return Err(LoadError::Abi { found: abi });
        }

        store.data_mut().limits = limit(memory_bytes + HOST_PAGES as usize * WASM_PAGE);
        let window = add_window(&mut store, memory, frames)?;
        let host_page = window + WINDOW as u32;
        copy_in(memory, &mut store, host_page as usize, terms.config);
        let init = function::<(u32, u32), i32>(&instance, &mut store, "hook_init");
        let config_len = u32::try_from(terms.config.len()).expect("checked by the host");
        match init.call(&mut store, (host_page, config_len)) {
            Ok(0) => {}
            Ok(code) => return Err(LoadError::InitRefused { code }),
            Err(error) => {
                let source = Failure::of(error, INIT_FUEL, INIT_BUDGET);
                return Err(LoadError::Init { source });
            }
        }
        Ok(Self {
            batch: function(&instance, &mut store, "hook_batch"),
            quiesce: function(&instance, &mut store, "hook_quiesce"),
            store,
            memory,
            window,
            fuel_per_packet: terms.fuel_per_packet,
            may_reply: manifest.verdicts.contains(&Verdict::Reply),
            _ticking: ticking,
        })
    }

    /// The descriptor that tells this guest of the packet in `frame`.
    pub(crate) fn describe(&self, frame: u32, len: usize, meta: u32) -> Descriptor {
        assert!(frame < FRAMES && len <= MAX_INNER, "frame {frame}, {len} bytes");
        Descriptor { offset: self.window + frame * PAGE as u32, len: len as u32, verdict: 0, meta }
    }

    /// One call of `hook_batch`. On success there is one decision for each packet; after a
    /// failure the guest must not be called again.
    pub(crate) fn run(
        &mut self,
        packets: &[Descriptor],
        decisions: &mut Vec<Decision>,
    ) -> Result<(), Failure> {
        assert!(packets.len() <= BATCH, "{} packets in a batch", packets.len());
        decisions.clear();
        let at = self.window as usize + WINDOW;
        let mut bytes = [0; BATCH * DESCRIPTOR];
        let bytes = &mut bytes[..packets.len() * DESCRIPTOR];
        for (packet, into) in packets.iter().zip(bytes.as_chunks_mut::<DESCRIPTOR>().0) {
            *into = packet.to_bytes();
        }
        copy_in(self.memory, &mut self.store, at, bytes);

        let fuel = self.fuel_per_packet.saturating_mul(packets.len() as u64);
        allow(&mut self.store, fuel, BATCH_BUDGET);
        let status = self
            .batch
            .call(&mut self.store, (at as u32, packets.len() as u32))
            .map_err(|error| Failure::of(error, fuel, BATCH_BUDGET))?;
        if status != 0 {
            return Err(Violation::Status { code: status }.into());
        }

        copy_out(self.memory, &self.store, at, bytes);
        for (index, (given, back)) in
            packets.iter().zip(bytes.as_chunks::<DESCRIPTOR>().0).enumerate()
        {
            let decision = given.decide(index, Descriptor::from_bytes(*back))?;
            if matches!(decision, Decision::Reply { .. }) && !self.may_reply {
                return Err(Violation::Reply { index }.into());
            }
            decisions.push(decision);
        }
        Ok(())
    }

    /// Tells the guest that there will be no more packets.
    pub(crate) fn quiesce(&mut self) -> Result<(), Failure> {
        allow(&mut self.store, QUIESCE_FUEL, BATCH_BUDGET);
        self.quiesce
            .call(&mut self.store, ())
            .map_err(|error| Failure::of(error, QUIESCE_FUEL, BATCH_BUDGET))
    }

    pub(crate) fn state(&self) -> &State {
        self.store.data()
    }
}

fn allow(store: &mut Store<State>, fuel: u64, budget: Budget) {
    store.set_fuel(fuel).expect("the engine consumes fuel");
    store.set_epoch_deadline(1);
    store.data_mut().deadline = Deadline::start(budget);
}

/// Grows `memory` by window and host page and maps the window; answers where it begins.
fn add_window(store: &mut Store<State>, memory: Memory, frames: &Frames) -> Result<u32, LoadError> {
    let grown = memory.grow(&mut *store, HOST_PAGES);
    let pages =
        grown.map_err(|error| LoadError::Window { pages: HOST_PAGES, source: error.into() })?;
    let window = usize::try_from(pages).expect("a 32-bit memory") * WASM_PAGE;
    // SAFETY: these bytes are of a memory that `memory::Creator` mapped, were added by the
    // call above, and nobody has seen them; they are page-aligned as Wasm pages are.
    unsafe { frames.map_window(memory.data_ptr(&*store).add(window)) }
        .map_err(|source| LoadError::MapWindow { source })?;
    Ok(u32::try_from(window).expect("a 32-bit memory"))
}

const EXPORTS: &str = "memory, hook_abi() -> i32, hook_init(ptr: i32, len: i32) -> i32, \
                       hook_batch(descriptors: i32, n: i32) -> i32 and hook_quiesce()";

fn check_exports(module: &Module) -> Result<(), LoadError> {
    let functions =
        [("hook_abi", 0, 1), ("hook_init", 2, 1), ("hook_batch", 2, 1), ("hook_quiesce", 0, 0)];
    match module.get_export("memory") {
        None => return Err(LoadError::NoExport { name: "memory", wanted: EXPORTS }),
        Some(export) if export.memory().is_none() => {
            return Err(LoadError::ExportType { name: "memory", wanted: EXPORTS });
        }
        Some(_) => {}
    }
    for (name, params, results) in functions {
        let Some(export) = module.get_export(name) else {
            return Err(LoadError::NoExport { name, wanted: EXPORTS });
        };
        let right = export.func().is_some_and(|function| {
            let i32s = |mut types: &mut dyn Iterator<Item = ValType>, n: usize| {
                let types: Vec<_> = (&mut types).collect();
                types.len() == n && types.iter().all(ValType::is_i32)
            };
            i32s(&mut function.params(), params) && i32s(&mut function.results(), results)
        });
        if !right {
            return Err(LoadError::ExportType { name, wanted: EXPORTS });
        }
    }
    Ok(())
}

fn function<P: WasmParams, R: WasmResults>(
    instance: &Instance,
    store: &mut Store<State>,
    name: &str,
) -> TypedFunc<P, R> {
    instance.get_typed_func(store, name).expect("exports are checked")
}

/// Whether a function takes and answers plain integers only, as all imports do.
pub(crate) fn is_simple(function: &FuncType) -> bool {
    function.params().chain(function.results()).all(|ty| ty.is_i32() || ty.is_i64())
}

/// Copies `bytes` into guest memory at `at`.
///
/// # Panics
/// When they do not fit: the caller has checked, or chose the place itself.
pub(crate) fn copy_in(memory: Memory, mut store: impl AsContextMut, at: usize, bytes: &[u8]) {
    let size = memory.data_size(store.as_context());
    assert!(at <= size && bytes.len() <= size - at, "{} bytes at {at} of {size}", bytes.len());
    let base = memory.data_ptr(store.as_context_mut());
    // SAFETY: inside the memory by the assertion; no reference into it exists.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), base.add(at), bytes.len()) };
}

/// Fills `bytes` from guest memory at `at`; panics as [`copy_in`].
pub(crate) fn copy_out(memory: Memory, store: impl AsContext, at: usize, bytes: &mut [u8]) {
    let size = memory.data_size(store.as_context());
    assert!(at <= size && bytes.len() <= size - at, "{} bytes at {at} of {size}", bytes.len());
    let base = memory.data_ptr(store.as_context());
    // SAFETY: inside the memory by the assertion.
    unsafe { std::ptr::copy_nonoverlapping(base.add(at), bytes.as_mut_ptr(), bytes.len()) };
}

#[cfg(test)]
#[path = "guest_tests.rs"]
mod tests;
