//! One hook: a thread that takes its module in, waits until it may bind the interface, then
//! moves packets until it is told to stop.
//!
//! ```text
//!   start -> [taking in] -> Prepared -> [waiting] -bind-> Running -> [serving] -stop-> end
//!                 |                                  |                  |  |
//!                 +-> Refused -> end                 +-> Refused        |  +-> Gone -> end
//!                                                                       +-> Quarantined, serving
//! ```

use std::{
    os::fd::{AsFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};

use crate::{
    LoadError,
    bridge::{Bridge, OnFailure, Turn},
    error::chain,
    frames::Frames,
    guest::{Guest, Machine, Terms},
    socket::{Socket, SocketError},
    stats::Stats,
};

/// How long an idle hook sleeps at most.
const IDLE: Duration = CHECK;
/// And while packets wait for room in the device.
const UNSENT: Duration = Duration::from_millis(1);
/// How often the kernel's own counts are read, and whether the interface is still there
/// (poll(2) does not say so for AF_XDP).
const CHECK: Duration = Duration::from_millis(500);

/// What was asked for, limits filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) hook: u32,
    pub(crate) name: String,
    pub(crate) ifname: String,
    pub(crate) sha256: String,
    pub(crate) config: Vec<u8>,
    pub(crate) fuel_per_packet: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) on_failure: OnFailure,
}

impl Spec {
    /// Whether nothing but `on_failure` tells the two apart.
    pub(crate) fn is_same_but_for_failure(&self, other: &Self) -> bool {
        *self == Self { on_failure: self.on_failure, ..other.clone() }
    }
}

/// What a hook's thread tells the host, with the hook's id and which start of it this was.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) hook: u32,
    pub(crate) start: u64,
    pub(crate) news: News,
}

#[derive(Debug)]
pub(crate) enum News {
    /// The module is taken in; [`Hook::bind`] lets it go on.
    Prepared,
    Running(OwnedFd),
    Refused(String),
    Quarantined(String),
    /// The interface went away, or this thread has a bug.
    Gone(String),
    Emitted(Vec<u8>),
}

/// Where reports go. Unbounded, but a hook sends a handful and its events, of which there are
/// at most 16 a second.
#[derive(Clone)]
pub(crate) struct Reports {
    sender: mpsc::Sender<Report>,
    wake: Wake,
}

impl Reports {
    pub(crate) fn new(wake: Wake) -> (Self, mpsc::Receiver<Report>) {
        let (sender, receiver) = mpsc::channel();
        (Self { sender, wake }, receiver)
    }

    fn send(&self, hook: u32, start: u64, news: News) {
        // The host that no longer listens is about to end this thread.
        drop(self.sender.send(Report { hook, start, news }));
        self.wake.wake();
    }
}

/// Makes a poll(2) of another thread return.
#[derive(Clone, Debug)]
pub(crate) struct Wake(Arc<OwnedFd>);

impl Wake {
    pub(crate) fn new() -> std::io::Result<Self> {
        let fd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(fd)))
    }

    pub(crate) fn wake(&self) {
        // Full means that it is readable, which is all that is wanted.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    pub(crate) fn clear(&self) {
        let _ = rustix::io::read(&*self.0, &mut [0; 8]);
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

enum Command {
    Bind,
    OnFailure(OnFailure),
    Stop,
}

/// The host's handle. Dropping it stops the hook and waits for its thread.
pub(crate) struct Hook {
    pub(crate) spec: Arc<Spec>,
    pub(crate) start: u64,
    pub(crate) stats: Arc<Stats>,
    commands: mpsc::Sender<Command>,
    wake: Wake,
    thread: Option<JoinHandle<()>>,
}

impl Hook {
    pub(crate) fn start(
        machine: Arc<Machine>,
        spec: Spec,
        module: Vec<u8>,
        start: u64,
        reports: Reports,
    ) -> std::io::Result<Self> {
        let (commands, received) = mpsc::channel();
        let (spec, stats, wake) = (Arc::new(spec), Arc::<Stats>::default(), Wake::new()?);
        let theirs = Thread {
            machine,
            spec: spec.clone(),
            start,
            stats: stats.clone(),
            reports,
            commands: received,
            wake: wake.clone(),
        };
        let thread =
            thread::Builder::new().name(format!("hook-{}", spec.hook)).spawn(move || {
                let run = catch_unwind(AssertUnwindSafe(|| theirs.run(&module)));
                if run.is_err() {
                    theirs.report(News::Gone("its thread failed; this is a bug".into()));
                }
            })?;
        Ok(Self { spec, start, stats, commands, wake, thread: Some(thread) })
    }

    /// Lets a prepared hook bind its interface.
    pub(crate) fn bind(&self) {
        drop(self.commands.send(Command::Bind));
    }

    /// Changes what becomes of packets when the hook fails, without restarting it.
    pub(crate) fn set_on_failure(&mut self, on_failure: OnFailure) {
        Arc::make_mut(&mut self.spec).on_failure = on_failure;
        drop(self.commands.send(Command::OnFailure(on_failure)));
        self.wake.wake();
    }

    /// Lets a hook that is still taking its module in end by itself, since compilation cannot
    /// be interrupted.
    pub(crate) fn abandon(mut self) {
        drop(self.commands.send(Command::Stop));
        drop(self.thread.take());
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        drop(self.commands.send(Command::Stop));
        self.wake.wake();
        if let Some(thread) = self.thread.take() {
            // It catches its panics, so there is nothing to learn.
            drop(thread.join());
        }
    }
}

/// What the thread owns.
struct Thread {
    machine: Arc<Machine>,
    spec: Arc<Spec>,
    start: u64,
    stats: Arc<Stats>,
    reports: Reports,
    commands: mpsc::Receiver<Command>,
    wake: Wake,
}

impl Thread {
    fn report(&self, news: News) {
        self.reports.send(self.spec.hook, self.start, news);
    }

    fn run(&self, module: &[u8]) {
        let (frames, guest) = match self.take_in(module) {
            Ok(ready) => ready,
            Err(error) => return self.report(News::Refused(chain(&error))),
        };
        self.report(News::Prepared);
        let Ok(Command::Bind) = self.commands.recv() else { return };
        let socket = match Socket::bind(&self.spec.ifname, frames) {
            Ok(socket) => socket,
            Err(error) => return self.report(News::Refused(chain(&error))),
        };
        match socket.as_fd().try_clone_to_owned() {
            Ok(fd) => self.report(News::Running(fd)),
            Err(error) => return self.report(News::Refused(chain(&error))),
        }
        let mut bridge = Bridge::new(socket, guest, self.spec.on_failure, self.stats.clone());
        if let Err(error) = self.serve(&mut bridge) {
            return self.report(News::Gone(format!("{}: {error}", self.spec.ifname)));
        }
        if let Err(failure) = bridge.quiesce() {
            let error = &failure as &dyn std::error::Error;
            tracing::warn!(hook = self.spec.hook, error, "hook_quiesce failed");
        }
        bridge.update_kernel_stats();
    }

    fn take_in(&self, module: &[u8]) -> Result<(Frames, Guest), LoadError> {
        let frames = Frames::new().map_err(|source| SocketError::Map { source })?;
        let Spec { hook, config, fuel_per_packet, memory_bytes, .. } = &*self.spec;
        let terms =
            Terms { config, fuel_per_packet: *fuel_per_packet, memory_bytes: *memory_bytes };
        let (reports, hook, start) = (self.reports.clone(), *hook, self.start);
        let sink = Box::new(move |payload| reports.send(hook, start, News::Emitted(payload)));
        let guest = Guest::load(&self.machine, module, &terms, &frames, sink)?;
        Ok((frames, guest))
    }

    /// Until told to stop. An error is the interface's end.
    fn serve(&self, bridge: &mut Bridge) -> std::io::Result<()> {
        let mut next_check = Instant::now() + CHECK;
        loop {
            match self.commands.try_recv() {
                Ok(Command::OnFailure(on_failure)) => bridge.set_on_failure(on_failure),
                Ok(Command::Bind) | Err(mpsc::TryRecvError::Empty) => {}
                Ok(Command::Stop) | Err(mpsc::TryRecvError::Disconnected) => return Ok(()),
            }
            let now = Instant::now();
            if now >= next_check {
                bridge.socket().check()?;
                bridge.update_kernel_stats();
                next_check = now + CHECK;
            }
            match bridge.turn()? {
                Turn::Busy => {}
                Turn::Idle { unsent } => {
                    self.wait(bridge.socket(), if unsent { UNSENT } else { IDLE })?;
                }
                Turn::Failed(failure) => {
                    let reason = chain(&failure);
                    tracing::warn!(hook = self.spec.hook, reason, "hook quarantined");
                    self.report(News::Quarantined(reason));
                }
            }
        }
    }

    fn wait(&self, socket: &Socket, timeout: Duration) -> std::io::Result<()> {
        let mut fds = [PollFd::new(socket, PollFlags::IN), PollFd::new(&self.wake, PollFlags::IN)];
        let timeout = Timespec::try_from(timeout).expect("less than a second");
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => self.wake.clear(),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
