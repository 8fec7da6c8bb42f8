//! Carrying out what the core wants of one switch, in order, over P4Runtime and the session.

use std::sync::Arc;
use std::time::{Duration, Instant};

use selvedge_core::{Event, HookLoad, ReadId, Update, WriteId};
use selvedge_pipeline::{Entry, HookId};
use selvedge_southbound::client::{
    self, CONTROLLER_ROLE, Channel, ChannelEvent, P4Client, WriteError,
};
use selvedge_southbound::p4info;
use selvedge_southbound::selvedge::v1::{LoadHook, ToSwitch, UnloadHook, to_switch};
use selvedge_southbound::tls::Credentials;
use selvedge_topology::NodeName;
use tokio::sync::mpsc;
use tonic::Status;

use super::session::Southbound;
use crate::api::problem::chain;
use crate::engine::{Command, CountersError, Input, SessionId};

/// One read or write, dialing included. A little less than the core waits for an answer.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(4_500);
/// A message for the switch waits so long for it to read the ones before.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// Pauses between attempts to dial: doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(8);

/// How many updates of a write went out. Where no answer came nobody knows; then all count.
fn sent(updates: &[client::Update], result: &Result<(), WriteError>) -> usize {
    match result {
        Ok(()) | Err(WriteError::Client(_)) => updates.len(),
        Err(WriteError::Updates { attempted, .. }) => *attempted,
        Err(WriteError::Encode { .. }) => 0,
    }
}

/// As whom we dial switches.
pub(crate) struct Dialer {
    pub(crate) credentials: Credentials,
}

/// Where a switch's P4Runtime server is.
pub(crate) struct Target {
    pub(crate) address: String,
    pub(crate) device_id: u64,
}

pub(crate) struct SwitchTask {
    pub(crate) southbound: Arc<Southbound>,
    pub(crate) switch: NodeName,
    pub(crate) session: SessionId,
    /// Under which this controller leads.
    pub(crate) election_id: u128,
    pub(crate) target: Target,
    pub(crate) to_switch: mpsc::Sender<Result<ToSwitch, Status>>,
}

/// The connection to a switch's P4Runtime server, or when to try again.
enum Connection {
    Open(Box<(P4Client, Channel)>),
    Closed { again_at: Option<Instant>, pause: Duration, why: String },
}

impl Connection {
    fn new() -> Self {
        Self::Closed { again_at: None, pause: FIRST_PAUSE, why: String::new() }
    }
}

impl SwitchTask {
    /// Runs until the engine drops its end of `commands`.
    pub(crate) async fn run(self, mut commands: mpsc::Receiver<Command>) {
        let mut connection = Connection::new();
        let mut keys = self.southbound.keys.clone();
        keys.mark_changed();
        let mut sampling = self.southbound.sampling.asked();
        loop {
            let said = async {
                match &mut connection {
                    Connection::Open(open) => open.1.next().await,
                    Connection::Closed { .. } => std::future::pending().await,
                }
            };
            let command = tokio::select! {
                // All are cancel-safe.
                command = commands.recv() => command,
                said = said => {
                    match said {
                        Ok(event) => self.said(&event),
                        Err(error) => {
                            let why = chain(&error);
                            tracing::debug!(node = %self.switch, why, "P4Runtime closed");
                            connection = Connection::new();
                        }
                    }
                    continue;
                }
                Ok(()) = keys.changed() => {
                    let message = keys.borrow_and_update().message();
                    self.send(to_switch::Message::DiscoveryKeys(message)).await;
                    continue;
                }
                Ok(()) = sampling.changed() => {
                    let asked = sampling.borrow_and_update().clone();
                    if let Some(asked) = asked {
                        self.send(to_switch::Message::Sampling(asked)).await;
                    }
                    continue;
                }
            };
            let Some(command) = command else { return };
            self.carry_out(&mut connection, command).await;
        }
    }

    fn said(&self, event: &ChannelEvent) {
        match event {
            ChannelEvent::Arbitration { primary: false, highest } => {
                let ours = self.election_id;
                tracing::warn!(node = %self.switch, highest, ours, "another controller took over");
            }
            ChannelEvent::Arbitration { primary: true, .. } | ChannelEvent::PacketIn(_) => {}
            ChannelEvent::Error(error) => {
                tracing::debug!(node = %self.switch, ?error, "stream error");
            }
        }
    }

    async fn carry_out(&self, connection: &mut Connection, command: Command) {
        let switch = self.switch.clone();
        let event = match command {
            Command::Read { read } => self.read(connection, switch, read).await,
            Command::Write { write, updates } => {
                self.write(connection, switch, write, updates).await
            }
            Command::LoadHook { hook, load } => return self.load(hook, load).await,
            Command::UnloadHook { hook } => {
                let unload = UnloadHook { hook: u32::from(hook.0) };
                return self.send(to_switch::Message::UnloadHook(unload)).await;
            }
            // Whoever asked has given up.
            Command::ReadCounters { answer, .. } if answer.is_closed() => return,
            Command::ReadCounters { cells, answer } => {
                let result = self
                    .timed(connection, async |client: &P4Client| {
                        client.read_cells(&cells).await.map_err(|error| chain(&error))
                    })
                    .await;
                drop(answer.send(result.map_err(CountersError::Switch)));
                return;
            }
        };
        let (switch, session) = (self.switch.clone(), self.session);
        // While stopping, nobody needs to know.
        drop(self.southbound.handle.send(Input::FromSwitch { switch, session, event }).await);
    }

    async fn read(&self, connection: &mut Connection, switch: NodeName, read: ReadId) -> Event {
        let result = self
            .timed(connection, async |client: &P4Client| -> Result<Vec<Entry>, String> {
                client.read_entries().await.map_err(|error| chain(&error))
            })
            .await;
        Event::EntriesRead { switch, read, result }
    }

    async fn write(
        &self,
        connection: &mut Connection,
        switch: NodeName,
        write: WriteId,
        updates: Vec<Update>,
    ) -> Event {
        let updates: Vec<client::Update> = updates
            .into_iter()
            .map(|update| match update {
                Update::Insert(entry) => client::Update::Insert(entry),
                Update::Modify(entry) => client::Update::Modify(entry),
                Update::Delete(entry) => client::Update::Delete(entry),
            })
            .collect();
        let result = self
            .timed(connection, async |client: &P4Client| {
                let result = client.write(&updates).await;
                self.southbound.handle.wrote(sent(&updates, &result));
                result.map_err(|error| chain(&error))
            })
            .await;
        Event::WriteDone { switch, write, result }
    }

    /// Dials if need be, then calls. After an error of either the connection is given up: the
    /// next command starts afresh.
    async fn timed<T>(
        &self,
        connection: &mut Connection,
        call: impl AsyncFnOnce(&P4Client) -> Result<T, String>,
    ) -> Result<T, String> {
        let attempt = async {
            let client = self.connected(connection).await?;
            call(client).await.map_err(|why| (FIRST_PAUSE, why))
        };
        let result = match tokio::time::timeout(COMMAND_TIMEOUT, attempt).await {
            Ok(result) => result,
            Err(_) => {
                let seconds = COMMAND_TIMEOUT.as_secs_f32();
                Err((FIRST_PAUSE, format!("not done within {seconds} s")))
            }
        };
        result.map_err(|(pause, why)| {
            // A failed dial has said when to try again already.
            if matches!(connection, Connection::Open(_)) {
                *connection = Connection::Closed { again_at: None, pause, why: why.clone() };
            }
            why
        })
    }

    /// The client of an open connection on which we are primary.
    async fn connected<'c>(
        &self,
        connection: &'c mut Connection,
    ) -> Result<&'c P4Client, (Duration, String)> {
        if let Connection::Closed { again_at, pause, why } = connection {
            if again_at.is_some_and(|at| Instant::now() < at) {
                return Err((*pause, why.clone()));
            }
            let pause = *pause;
            // If this is cut off by the time limit, the pause stands.
            let closed = |why: String| Connection::Closed {
                again_at: Some(Instant::now() + pause),
                pause: (pause * 2).min(LAST_PAUSE),
                why,
            };
            *connection = closed("dialing took too long".to_owned());
            match self.dial().await {
                Ok(open) => *connection = Connection::Open(Box::new(open)),
                Err(why) => {
                    *connection = closed(why.clone());
                    return Err((pause, why));
                }
            }
        }
        match connection {
            Connection::Open(open) => Ok(&open.0),
            Connection::Closed { pause, why, .. } => Err((*pause, why.clone())),
        }
    }

    async fn dial(&self) -> Result<(P4Client, Channel), String> {
        let Dialer { credentials } = &self.southbound.dialer;
        let election_id = self.election_id;
        let target = client::Target {
            uri: format!("https://{}", self.target.address),
            tls: Some((credentials.clone(), self.switch.to_string())),
            device_id: self.target.device_id,
            role: CONTROLLER_ROLE.to_owned(),
            election_id,
        };
        let (client, channel) = P4Client::connect(target).await.map_err(|error| chain(&error))?;
        if !channel.is_primary() {
            let highest = channel.highest();
            return Err(format!(
                "it obeys another controller (election id {highest}, ours is {election_id})"
            ));
        }
        let found = client.cookie().await.map_err(|error| chain(&error))?;
        let ours = p4info::cookie();
        if found != ours {
            return Err(format!(
                "it runs another pipeline ({found:016x}, ours is {ours:016x}): controller and \
                 switch are of different versions"
            ));
        }
        Ok((client, channel))
    }

    async fn load(&self, hook: HookId, load: HookLoad) {
        let HookLoad { name, sha256, config, fuel_per_packet, memory_bytes } = load;
        let module = match self.southbound.modules.bytes(&sha256).await {
            Ok(Some(module)) => module,
            Ok(None) => {
                let node = &self.switch;
                tracing::error!(%node, hook = name, sha256, "its module is not in the store");
                return;
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(node = %self.switch, hook = name, error, "cannot load its module");
                return;
            }
        };
        let hook = u32::from(hook.0);
        let load = LoadHook { hook, name, module, config, fuel_per_packet, memory_bytes };
        self.send(to_switch::Message::LoadHook(load)).await;
    }

    async fn send(&self, message: to_switch::Message) {
        let message = ToSwitch { message: Some(message) };
        if self.to_switch.send_timeout(Ok(message), SEND_TIMEOUT).await.is_err() {
            tracing::debug!(node = %self.switch, "a message was not taken; the core asks again");
        }
    }
}
