//! What the engine holds of a switch that has a session.

use selvedge_core::{Event, HookLoad, ReadId, Update, WriteId};
use selvedge_pipeline::{CounterKind, HookId};
use selvedge_southbound::client::CounterCell;
use selvedge_topology::NodeName;
use tokio::sync::{mpsc, oneshot};

use super::CountersError;

/// Commands that may wait for one switch. The core has one read and one write under way for
/// a switch, the rest are hooks. A command that finds the queue full fails at once, and the
/// core comes back to it.
pub(crate) const COMMANDS: usize = 512;

/// Counts sessions of all switches, so that what an earlier one still says is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SessionId(pub(crate) u64);

#[derive(Debug)]
pub(crate) enum Command {
    Read {
        read: ReadId,
    },
    Write {
        write: WriteId,
        updates: Vec<Update>,
    },
    LoadHook {
        hook: HookId,
        load: HookLoad,
    },
    UnloadHook {
        hook: HookId,
    },
    /// Not the core's, but an operator's who waits for the answer.
    ReadCounters {
        cells: Vec<(CounterKind, u32)>,
        answer: CountersAnswer,
    },
}

pub(crate) type CountersAnswer = oneshot::Sender<Result<Vec<CounterCell>, CountersError>>;

impl Command {
    /// The event that says it was not done. Hooks have none: the core sees by the switch's
    /// reports that nothing came of it. Who asked for counters is told here.
    pub(crate) fn failed(self, switch: &NodeName, why: &str) -> Option<Event> {
        let switch = switch.clone();
        match self {
            Self::Read { read } => {
                Some(Event::EntriesRead { switch, read, result: Err(why.to_owned()) })
            }
            Self::Write { write, .. } => {
                Some(Event::WriteDone { switch, write, result: Err(why.to_owned()) })
            }
            Self::LoadHook { .. } | Self::UnloadHook { .. } => None,
            Self::ReadCounters { answer, .. } => {
                // Whoever asked may have gone.
                drop(answer.send(Err(CountersError::Switch(why.to_owned()))));
                None
            }
        }
    }
}

/// The engine's end of a session. Dropping it ends the session.
#[derive(Debug)]
pub(crate) struct SwitchLink {
    session: SessionId,
    commands: mpsc::Sender<Command>,
}

impl SwitchLink {
    pub(crate) fn new(session: SessionId) -> (Self, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        (Self { session, commands }, receiver)
    }

    pub(super) fn session(&self) -> SessionId {
        self.session
    }

    /// Never waits. Operators get half of the queue: however much they ask, the core's
    /// commands have room.
    pub(super) fn read_counters(&self, cells: Vec<(CounterKind, u32)>, answer: CountersAnswer) {
        if self.commands.capacity() <= COMMANDS / 2 {
            drop(answer.send(Err(CountersError::Busy)));
            return;
        }
        let command = Command::ReadCounters { cells, answer };
        if let Err(error) = self.commands.try_send(command) {
            let (mpsc::error::TrySendError::Full(command)
            | mpsc::error::TrySendError::Closed(command)) = error;
            if let Command::ReadCounters { answer, .. } = command {
                drop(answer.send(Err(CountersError::NotJoined)));
            }
        }
    }

    /// Never waits. Returns the event that the command fails with, if it could not be queued.
    pub(super) fn send(&self, switch: &NodeName, command: Command) -> Option<Event> {
        match self.commands.try_send(command) {
            Ok(()) => None,
            Err(mpsc::error::TrySendError::Full(command)) => {
                command.failed(switch, "the switch is behind: too many commands wait for it")
            }
            Err(mpsc::error::TrySendError::Closed(command)) => {
                command.failed(switch, "the switch's session has ended")
            }
        }
    }
}
