//! Time limits of guests. A thread moves the engine's epoch on every [`TICK`] while there are
//! guests; at each tick that a guest is running it is asked whether its time is over.
//!
//! The limit is processor time, so that a guest which the machine did not let run is not
//! punished for it; a limit by the clock, much longer, bounds what a queue can wait.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use wasmtime::Engine;

const TICK: Duration = Duration::from_millis(5);

/// What one call into a guest may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    pub cpu: Duration,
    pub wall: Duration,
}

/// One call of `hook_batch` (and of `hook_quiesce`, `hook_abi`).
pub const BATCH_BUDGET: Budget =
    Budget { cpu: Duration::from_millis(10), wall: Duration::from_millis(200) };
/// Instantiation and `hook_init`.
pub const INIT_BUDGET: Budget =
    Budget { cpu: Duration::from_secs(1), wall: Duration::from_secs(5) };

/// When the call that runs now is over its budget. Belongs to the thread that makes the call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    cpu: Duration,
    wall: Instant,
}

impl Deadline {
    pub(crate) fn start(budget: Budget) -> Self {
        Self { cpu: thread_cpu() + budget.cpu, wall: Instant::now() + budget.wall }
    }

    pub(crate) fn passed(self) -> bool {
        thread_cpu() >= self.cpu || Instant::now() >= self.wall
    }
}

/// Processor time of the calling thread.
fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(failed, 0, "this clock exists for every thread");
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The ticking thread. It sleeps while there are no guests and ends with the last handle.
pub(crate) struct Watchdog {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    guests: usize,
    handles: usize,
}

impl Watchdog {
    pub(crate) fn start(engine: &Engine) -> std::io::Result<Self> {
        let state = Mutex::new(State { guests: 0, handles: 1 });
        let shared = Arc::new(Shared { state, changed: Condvar::new() });
        let (engine, theirs) = (engine.clone(), shared.clone());
        thread::Builder::new().name("watchdog".into()).spawn(move || tick(&engine, &theirs))?;
        Ok(Self { shared })
    }

    /// Ticks go on until the answer is dropped.
    pub(crate) fn guard(&self) -> Guard {
        self.change(|state| state.guests += 1);
        Guard { watchdog: self.share() }
    }

    pub(crate) fn share(&self) -> Self {
        self.change(|state| state.handles += 1);
        Self { shared: self.shared.clone() }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.changed.notify_all();
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.change(|state| state.handles -= 1);
    }
}

/// A guest that may run.
pub(crate) struct Guard {
    watchdog: Watchdog,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.watchdog.change(|state| state.guests -= 1);
    }
}

fn tick(engine: &Engine, shared: &Shared) {
    loop {
        let state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = shared
            .changed
            .wait_while(state, |state| state.guests == 0 && state.handles > 0)
            .unwrap_or_else(PoisonError::into_inner);
        if state.handles == 0 {
            return;
        }
        drop(state);
        thread::sleep(TICK);
        engine.increment_epoch();
    }
}
