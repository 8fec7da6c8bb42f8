//! The process: dials the agent, carries out what it says, tells it what became of the hooks,
//! and goes on without it while it is away.
//!
//! State: which hooks run is here and nowhere else; the agent learns it anew on each
//! connection. One thread for this, one for each hook, one watchdog; reports come in over a
//! channel, everything else is called directly.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    time::{Duration, Instant},
};

use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use rustix::event::{PollFd, PollFlags, Timespec};
use selvedge_southbound::{
    compute::{Channel, PROTOCOL},
    selvedge::v1::{FromHost, Hello, ToHost, from_host, to_host},
};

use crate::{LoadError, hook::Wake, hooks::Hooks, privileges};

/// Between attempts to reach an agent that is away.
const REDIAL: Duration = Duration::from_millis(200);
/// Between statistics.
const STATS: Duration = Duration::from_secs(1);
/// How long an agent that does not read may hold this process up.
const PATIENCE_MS: u32 = 1000;

/// How the host is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The agent's socket.
    pub socket: PathBuf,
    /// Give up every capability but those that AF_XDP needs. Only tests, which share their
    /// process with others, do not.
    pub drop_privileges: bool,
}

/// Why the host could not run. What goes wrong with one hook or the agent is never the end.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("cannot give up capabilities")]
    Privileges { source: io::Error },
    #[error("cannot {doing}")]
    System { doing: &'static str, source: io::Error },
    #[error("cannot start the Wasm engine")]
    Machine { source: LoadError },
}

/// Readable when the host is to end.
#[derive(Debug)]
pub struct StopSignal(OwnedFd);

impl StopSignal {
    /// On SIGTERM and SIGINT, which the calling thread and those it starts then block. Call
    /// it before there are other threads.
    pub fn on_termination() -> Result<Self, HostError> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGTERM);
        signals.add(Signal::SIGINT);
        signals
            .thread_block()
            .and_then(|()| SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC))
            .map_err(io::Error::from)
            .and_then(|fd| fd.as_fd().try_clone_to_owned())
            .map(Self)
            .map_err(|source| HostError::System { doing: "wait for signals", source })
    }

    /// On whatever `fd` becomes readable for (its other end closed, say).
    pub fn on(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

/// Runs until `stop`; then every hook is quiesced and its socket closed.
///
/// # Errors
/// [`HostError`], all of them at the start.
pub fn run(options: &Options, stop: &StopSignal) -> Result<(), HostError> {
    if options.drop_privileges {
        privileges::drop_all_but_sockets().map_err(|source| HostError::Privileges { source })?;
    }
    let wake = Wake::new().map_err(|source| HostError::System { doing: "make a wake", source })?;
    let mut hooks = Hooks::new(wake.clone()).map_err(|source| HostError::Machine { source })?;
    let mut agent = Agent { socket: options.socket.clone(), channel: None, waiting: false };
    let mut next_dial = Instant::now();
    let mut next_stats = Instant::now() + STATS;
    loop {
        let now = Instant::now();
        if agent.channel.is_none() && now >= next_dial {
            next_dial = now + REDIAL;
            agent.dial(&hooks);
        }
        if now >= next_stats {
            next_stats = now + STATS;
            hooks.statistics(&mut agent);
        }
        let wake_at = if agent.channel.is_some() { next_stats } else { next_stats.min(next_dial) };
        let ready = poll(stop, &wake, agent.channel.as_ref(), wake_at)
            .map_err(|source| HostError::System { doing: "poll", source })?;
        if ready.stop {
            tracing::info!("ending");
            return Ok(());
        }
        if ready.wake {
            wake.clear();
            hooks.take_reports(&mut agent);
        }
        if ready.agent {
            agent.receive(&mut hooks);
        }
    }
}

struct Ready {
    stop: bool,
    wake: bool,
    agent: bool,
}

fn poll(
    stop: &StopSignal,
    wake: &Wake,
    channel: Option<&Channel>,
    until: Instant,
) -> io::Result<Ready> {
    let mut fds = vec![PollFd::new(&stop.0, PollFlags::IN), PollFd::new(wake, PollFlags::IN)];
    fds.extend(channel.map(|channel| PollFd::new(channel, PollFlags::IN)));
    let timeout = until.saturating_duration_since(Instant::now());
    let timeout = Timespec::try_from(timeout).expect("a second at most");
    match rustix::event::poll(&mut fds, Some(&timeout)) {
        Ok(_) => {
            let ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
            Ok(Ready { stop: ready(0), wake: ready(1), agent: ready(2) })
        }
        Err(rustix::io::Errno::INTR) => Ok(Ready { stop: false, wake: false, agent: false }),
        Err(error) => Err(error.into()),
    }
}

/// The other end, when it is there.
pub(crate) struct Agent {
    socket: PathBuf,
    channel: Option<Channel>,
    /// Whether it was said that the agent is away.
    waiting: bool,
}

impl Agent {
    fn dial(&mut self, hooks: &Hooks) {
        match Channel::connect(&self.socket) {
            Ok(channel) => {
                tracing::info!(socket = %self.socket.display(), "agent found");
                self.waiting = false;
                self.channel = Some(channel);
                let hello = Hello { protocol: PROTOCOL, pid: std::process::id() };
                self.tell(from_host::Message::Hello(hello), None);
                hooks.announce(self);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.waiting, true) {
                    let socket = self.socket.display();
                    tracing::info!(%socket, %error, "waiting for the agent");
                }
            }
        }
    }

    /// Tells the agent, if it is there: what it misses it learns when it comes back.
    pub(crate) fn tell(&mut self, message: from_host::Message, fd: Option<BorrowedFd<'_>>) {
        self.send(message, fd, PATIENCE_MS);
    }

    /// As `tell`, for what may get lost: an agent with a full queue is not waited for.
    pub(crate) fn mention(&mut self, message: from_host::Message) {
        self.send(message, None, 0);
    }

    fn send(&mut self, message: from_host::Message, fd: Option<BorrowedFd<'_>>, patience: u32) {
        let Some(channel) = &self.channel else { return };
        let message = FromHost { message: Some(message) };
        let error = match channel.send(&message, fd) {
            Ok(()) => return,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && patience == 0 => return,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                match channel.wait_writable(patience).and_then(|_| channel.send(&message, fd)) {
                    Ok(()) => return,
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        tracing::warn!(%error, "agent lost");
        self.channel = None;
    }

    fn receive(&mut self, hooks: &mut Hooks) {
        while let Some(channel) = &self.channel {
            match channel.recv::<ToHost>() {
                Ok(Some((ToHost { message }, fd))) => match message {
                    Some(to_host::Message::Load(load)) => hooks.load(load, fd, self),
                    Some(to_host::Message::Unload(unload)) => hooks.unload(unload.hook, self),
                    None => tracing::warn!("a message that this version does not know"),
                },
                Ok(None) => {
                    tracing::info!("the agent closed the connection; hooks go on");
                    self.channel = None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::warn!(%error, "unreadable message from the agent");
                }
                Err(error) => {
                    tracing::warn!(%error, "agent lost");
                    self.channel = None;
                }
            }
        }
    }
}
