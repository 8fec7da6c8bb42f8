//! The agent's line to the controller (proto/selvedge/session.proto): dial, register, tell
//! what changes, hear about hooks; when it breaks, dial again. Nothing here touches the wire
//! that the switch forwards on.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use std::{fmt, io};

use selvedge_southbound::selvedge::v1;
use selvedge_southbound::selvedge::v1::controller_client::ControllerClient;
use selvedge_southbound::tls::Credentials;
use selvedge_southbound::{compute, limits};
use tokio::net::UdpSocket;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;
use v1::hook_state::State;
use v1::to_switch::Message;

use crate::assure::Told;
use crate::backoff::{Backoff, random};
use crate::hooks::Command;
use crate::lldp::auth::{KEY_LEN, KEYS_MAX, Key};
use crate::p4rt::server::CONTROLLER;
use crate::report::{HookStatus, Report, changes};

/// Messages under way to the controller; when it does not read, the session waits, and the
/// report goes on changing behind it.
const OUTGOING: usize = 64;
/// Longest pause where there are several controllers: one of them may lead already.
const SEEKING: Duration = Duration::from_millis(300);
/// Where there are several controllers: how long one may be silent before it is asked whether
/// it is there, and how long it may take to answer, to connect or to register.
const ALIVE_AMONG_SEVERAL: Duration = Duration::from_secs(1);
/// A `LoadHook`: its module and what surrounds it.
const MESSAGE_MAX: usize = compute::MAX_MODULE + compute::MAX_MESSAGE;

/// What a session needs to know of its switch.
#[derive(Clone, Debug)]
pub struct Session {
    pub credentials: Credentials,
    /// `https://host:port` of each controller; the one that leads takes us.
    pub controllers: Vec<String>,
    /// Where our P4Runtime server listens; an unspecified address is filled in.
    pub p4runtime: SocketAddr,
    pub device_id: u64,
    pub compute: Option<v1::Compute>,
    /// What was measured in the last second.
    pub telemetry: watch::Receiver<Told>,
    /// Of neighbor discovery, as the controller last gave them.
    pub keys: watch::Sender<Vec<Key>>,
    /// Packets that the controller wants to be told of, and those told.
    pub sampling: watch::Sender<Option<v1::Sampling>>,
    pub samples: broadcast::Sender<v1::Samples>,
}

/// Why a session ended; the next one is on its way.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("cannot {doing}")]
    Transport {
        doing: &'static str,
        #[source]
        source: tonic::transport::Error,
    },
    #[error("no answer within {limit:?} when trying to {doing}")]
    Timeout { doing: &'static str, limit: Duration },
    #[error("the controller ended the session: {0}")]
    Refused(Status),
    #[error("the controller closed the session")]
    Closed,
    #[error("the controller sent {0}")]
    BadKeys(String),
    #[error("cannot tell which of our addresses the controller can dial")]
    OwnAddress(#[source] io::Error),
}

/// A gRPC status in words, without its metadata.
#[derive(Debug)]
struct Status(tonic::Status);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.0.message(), self.0.code())
    }
}

impl Session {
    /// Keeps a session up for ever. `commands` go to the hooks; without, this switch has none.
    pub async fn run(self, report: watch::Sender<Report>, commands: Option<mpsc::Sender<Command>>) {
        let mut backoff = Backoff::default();
        let mut quiet = false; // the same failure again and again is told once
        let mut turn = 0;
        loop {
            let controller = &self.controllers[turn % self.controllers.len()];
            let mut registered = false;
            let ended = self.once(controller, &report, commands.as_ref(), &mut registered).await;
            if registered {
                backoff.reset();
                quiet = false;
            }
            let Err(error) = ended;
            say(&error, quiet);
            turn += 1;
            quiet = true;
            let pause = backoff.next(random());
            let several = self.controllers.len() > 1;
            tokio::time::sleep(if several { pause.min(SEEKING) } else { pause }).await;
        }
    }

    async fn once(
        &self,
        controller: &str,
        report: &watch::Sender<Report>,
        commands: Option<&mpsc::Sender<Command>>,
        registered: &mut bool,
    ) -> Result<std::convert::Infallible, SessionError> {
        let (interval, timeout, patience) = if self.controllers.len() > 1 {
            (ALIVE_AMONG_SEVERAL, ALIVE_AMONG_SEVERAL, ALIVE_AMONG_SEVERAL)
        } else {
            (limits::KEEP_ALIVE_INTERVAL, limits::KEEP_ALIVE_TIMEOUT, limits::CONNECT_TIMEOUT)
        };
        let configure = |endpoint: Endpoint| {
            endpoint
                .connect_timeout(patience)
                .http2_keep_alive_interval(interval)
                .keep_alive_timeout(timeout)
                .keep_alive_while_idle(true)
        };
        let connecting = self.credentials.connect(controller, CONTROLLER, configure);
        let doing = "connect to the controller";
        let channel = within(doing, patience, connecting)
            .await?
            .map_err(|source| SessionError::Transport { doing, source })?;
        let mut client = ControllerClient::new(channel).max_decoding_message_size(MESSAGE_MAX);

        let address = self.own_address(controller).await.map_err(SessionError::OwnAddress)?;
        let (outgoing, messages) = mpsc::channel(OUTGOING);
        let mut changed = report.subscribe();
        let mut told = {
            let now = changed.borrow_and_update();
            let register = now.register(address.to_string(), self.device_id, self.compute);
            let register = v1::from_switch::Message::Register(register);
            outgoing.try_send(from_switch(register)).expect("the channel is new");
            now.registered()
        };
        changed.mark_changed(); // what is not in a registration follows it
        let mut telemetry = self.telemetry.clone();
        telemetry.mark_unchanged();
        let mut samples = self.samples.subscribe();
        let opening = client.session(ReceiverStream::new(messages));
        let answer = if self.controllers.len() > 1 { patience } else { limits::CALL_TIMEOUT };
        let mut answers = within("register", answer, opening)
            .await?
            .map_err(|status| SessionError::Refused(Status(status)))?
            .into_inner();
        loop {
            tokio::select! {
                message = next(&mut answers) => match message? {
                    Message::Registered(v1::Registered { controller }) => {
                        *registered = true;
                        tracing::info!(controller, "registered");
                    }
                    Message::LoadHook(load) => {
                        command(Command::Load(load), report, commands).await;
                    }
                    Message::UnloadHook(v1::UnloadHook { hook }) => {
                        command(Command::Unload(hook), report, commands).await;
                    }
                    Message::DiscoveryKeys(v1::DiscoveryKeys { keys }) => {
                        drop(self.keys.send_replace(discovery_keys(&keys)?));
                    }
                    Message::Sampling(sampling) => {
                        drop(self.sampling.send_replace(Some(sampling)));
                    }
                },
                _ = changed.changed() => {
                    let now = changed.borrow_and_update().clone();
                    if !tell(&outgoing, changes(&told, &now)).await {
                        return Err(reason(&mut answers).await);
                    }
                    told = now;
                }
                // Not those that were pushed out.
                Ok(samples) = samples.recv() => {
                    let message = v1::from_switch::Message::Samples(samples);
                    if !tell(&outgoing, [message]).await {
                        return Err(reason(&mut answers).await);
                    }
                }
                Ok(()) = telemetry.changed() => {
                    let now = telemetry.borrow_and_update().clone();
                    let messages = now.iter().cloned().map(v1::from_switch::Message::Telemetry);
                    if !tell(&outgoing, messages).await {
                        return Err(reason(&mut answers).await);
                    }
                }
            }
        }
    }

    /// Our P4Runtime address as the controller can dial it.
    async fn own_address(&self, controller: &str) -> io::Result<SocketAddr> {
        if !self.p4runtime.ip().is_unspecified() {
            return Ok(self.p4runtime);
        }
        let authority = controller.trim_start_matches("https://").trim_end_matches('/');
        let peer = tokio::net::lookup_host(authority).await?.next();
        let peer = peer.ok_or(io::ErrorKind::NotFound)?;
        let any: IpAddr = match peer.ip() {
            IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        // Connecting a datagram socket sends nothing; it asks the routing table.
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(peer).await?;
        Ok(SocketAddr::new(socket.local_addr()?.ip(), self.p4runtime.port()))
    }
}

fn discovery_keys(secrets: &[Vec<u8>]) -> Result<Vec<Key>, SessionError> {
    if !(1..=KEYS_MAX).contains(&secrets.len()) {
        let text = format!("{} keys of neighbor discovery, 1 to {KEYS_MAX}", secrets.len());
        return Err(SessionError::BadKeys(text));
    }
    let key = |secret: &Vec<u8>| match <&[u8; KEY_LEN]>::try_from(secret.as_slice()) {
        Ok(secret) => Ok(Key::new(secret)),
        Err(_) => {
            let text = format!("a key of {} bytes, it should have {KEY_LEN}", secret.len());
            Err(SessionError::BadKeys(text))
        }
    };
    secrets.iter().map(key).collect()
}

/// False: the session has ended.
async fn tell(
    outgoing: &mpsc::Sender<v1::FromSwitch>,
    messages: impl IntoIterator<Item = v1::from_switch::Message>,
) -> bool {
    for message in messages {
        if outgoing.send(from_switch(message)).await.is_err() {
            return false;
        }
    }
    true
}

/// Why what we send is not taken any more: that is on the other half.
async fn reason(answers: &mut Streaming<v1::ToSwitch>) -> SessionError {
    next(answers).await.err().unwrap_or(SessionError::Closed)
}

fn say(error: &SessionError, quiet: bool) {
    let error = error as &dyn std::error::Error;
    if quiet {
        tracing::debug!(error, "no session with the controller");
    } else {
        tracing::warn!(error, "no session with the controller; forwarding goes on");
    }
}

async fn next(answers: &mut Streaming<v1::ToSwitch>) -> Result<Message, SessionError> {
    loop {
        match answers.message().await {
            Ok(Some(v1::ToSwitch { message: Some(message) })) => return Ok(message),
            Ok(Some(v1::ToSwitch { message: None })) => {} // of a later version
            Ok(None) => return Err(SessionError::Closed),
            Err(status) => return Err(SessionError::Refused(Status(status))),
        }
    }
}

/// Hands a command to the hooks, or says that there are none here.
async fn command(
    command: Command,
    report: &watch::Sender<Report>,
    commands: Option<&mpsc::Sender<Command>>,
) {
    match (commands, command) {
        // The hooks end with the agent only.
        (Some(commands), command) => drop(commands.send(command).await),
        (None, Command::Load(load)) => report.send_modify(|report| {
            let answers = report.hooks.get(&load.hook).map_or(0, |was| was.answers + 1);
            report.hooks.insert(
                load.hook,
                HookStatus {
                    state: State::Refused,
                    reason: "this switch runs no hooks: it was started without a compute socket"
                        .to_owned(),
                    sha256: String::new(),
                    answers,
                },
            );
        }),
        (None, Command::Unload(hook)) => {
            report.send_modify(|report| drop(report.hooks.remove(&hook)));
        }
    }
}

fn from_switch(message: v1::from_switch::Message) -> v1::FromSwitch {
    v1::FromSwitch { message: Some(message) }
}

async fn within<T>(
    doing: &'static str,
    limit: Duration,
    future: impl Future<Output = T>,
) -> Result<T, SessionError> {
    timeout(limit, future).await.map_err(|_| SessionError::Timeout { doing, limit })
}
