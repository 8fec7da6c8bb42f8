//! The `selvedge.v1.Controller` service: a stream for each switch, from its registration on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use selvedge_core::Event;
use selvedge_southbound::accept;
use selvedge_southbound::selvedge::v1::{
    FromSwitch, Registered, ToSwitch, controller_server, from_switch, to_switch,
};
use selvedge_topology::NodeName;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::CertificateDer;
use tonic::{Request, Response, Status, Streaming};

use super::keys::{self, Keys};
use super::message::{self, Registration};
use super::switch;
use super::switch::{Dialer, SwitchTask};
use crate::engine::{Handle, Input, Role, SessionId, SwitchLink};
use crate::modules::Modules;
use crate::sampling::Sampling;

/// Messages that may wait to be sent to one switch; each can be a module of 8 MiB.
const TO_SWITCH: usize = 4;
/// Largest message of a switch, in bytes: a registration of 255 ports has about 40 kB.
const MAX_MESSAGE_BYTES: usize = 256 << 10;
/// How long a switch may take from opening its stream to its registration.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);
/// A switch that is silent for so long is asked, and is gone if it does not answer for as
/// long again (HTTP/2 PING, RFC 9113 §6.7).
const KEEPALIVE: Duration = Duration::from_secs(5);
/// How often it is looked whether a switch's certificate would still be accepted.
const RECHECK: Duration = Duration::from_secs(5);
/// The controller's name in certificates.
const CONTROLLER: &str = "controller";

/// What all sessions share.
pub(crate) struct Southbound {
    pub(crate) handle: Handle,
    /// The topology's switches.
    pub(crate) switches: BTreeSet<NodeName>,
    pub(crate) modules: Modules,
    pub(crate) dialer: Dialer,
    pub(crate) stop: watch::Receiver<bool>,
    /// Of neighbor discovery.
    pub(crate) keys: watch::Receiver<Keys>,
    pub(crate) sampling: Arc<Sampling>,
    sessions: AtomicU64,
}

impl Southbound {
    /// Must be called inside a runtime.
    pub(crate) fn new(
        handle: Handle,
        switches: BTreeSet<NodeName>,
        modules: Modules,
        dialer: Dialer,
        sampling: Arc<Sampling>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let (keys, sessions) = (keys::rotating(), AtomicU64::new(0));
        Self { handle, switches, modules, dialer, stop, keys, sampling, sessions }
    }
}

/// Serves switches until `stop` is set.
pub(crate) async fn serve(
    listener: TcpListener,
    southbound: Southbound,
) -> Result<(), tonic::transport::Error> {
    let mut stop = southbound.stop.clone();
    let credentials = southbound.dialer.credentials.clone();
    let connections = accept::accept(listener, credentials, stop.clone());
    let service = controller_server::ControllerServer::new(Service(Arc::new(southbound)))
        .max_decoding_message_size(MAX_MESSAGE_BYTES);
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_service(service)
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), async move {
            // An error is a sender that is gone, which is a stop as well.
            drop(stop.wait_for(|stop| *stop).await);
        })
        .await
}

struct Service(Arc<Southbound>);

#[tonic::async_trait]
impl controller_server::Controller for Service {
    type SessionStream = ReceiverStream<Result<ToSwitch, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<FromSwitch>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let peer = request.remote_addr().map(|peer| peer.to_string()).unwrap_or_default();
        let name = selvedge_southbound::tls::peer_name(&request)?;
        let refuse = |status: Status| {
            tracing::warn!(node = %name, peer, reason = status.message(), "switch refused");
            status
        };
        let switch = self.declared(&name).map_err(refuse)?;
        let certificates = request.peer_certs().unwrap_or_default();
        let mut messages = request.into_inner();
        let registration = registration(&mut messages).await.map_err(refuse)?;
        let (to_switch, answers) = mpsc::channel(TO_SWITCH);
        let session = Session::open(&self.0, switch, registration, to_switch).await?;
        tokio::spawn(session.run(messages, certificates));
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

impl Service {
    fn declared(&self, name: &str) -> Result<NodeName, Status> {
        let refused = || {
            Status::permission_denied(format!(
                "the topology has no switch {name:?}, which is the name in the certificate"
            ))
        };
        let node: NodeName = name.parse().map_err(|_| refused())?;
        if self.0.switches.contains(&node) { Ok(node) } else { Err(refused()) }
    }
}

/// The first message has to be a registration, and soon.
async fn registration(messages: &mut Streaming<FromSwitch>) -> Result<Registration, Status> {
    let first = tokio::time::timeout(REGISTER_TIMEOUT, messages.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no registration came"))??;
    match first.and_then(|first| first.message) {
        Some(from_switch::Message::Register(register)) => message::registration(register)
            .map_err(|bad| Status::invalid_argument(format!("register.{bad}"))),
        Some(_) => Err(Status::invalid_argument("the first message is not a registration")),
        None => Err(Status::invalid_argument("the stream ended before a registration")),
    }
}

/// One session, from its registration to its end.
struct Session {
    southbound: Arc<Southbound>,
    switch: NodeName,
    id: SessionId,
    /// Ends when the engine drops its end: another session took over.
    task: tokio::task::JoinHandle<()>,
    election_id: u128,
    to_switch: mpsc::Sender<Result<ToSwitch, Status>>,
}

impl Session {
    async fn open(
        southbound: &Arc<Southbound>,
        switch: NodeName,
        registration: Registration,
        to_switch: mpsc::Sender<Result<ToSwitch, Status>>,
    ) -> Result<Self, Status> {
        let role = southbound.handle.role().borrow().clone();
        let election_id = match role {
            Role::Leader { election_id } => election_id,
            Role::Follower { leader } => {
                let leads = crate::store::leads(leader.as_deref());
                return Err(Status::unavailable(format!("this controller does not lead; {leads}")));
            }
        };
        let stopping = |_| Status::unavailable("the controller is stopping");
        let id = SessionId(southbound.sessions.fetch_add(1, Ordering::Relaxed) + 1);
        let (link, commands) = SwitchLink::new(id);
        let Registration { p4runtime_address, device_id, report } = registration;
        let registered = Registered { controller: CONTROLLER.to_owned() };
        let first = ToSwitch { message: Some(to_switch::Message::Registered(registered)) };
        to_switch.try_send(Ok(first)).expect("a new channel is empty");
        let task = SwitchTask {
            southbound: Arc::clone(southbound),
            switch: switch.clone(),
            session: id,
            election_id,
            target: switch::Target { address: p4runtime_address, device_id },
            to_switch: to_switch.clone(),
        };
        let event = Event::SwitchJoined { switch: switch.clone(), report };
        let input = Input::Joined { switch: switch.clone(), link, event };
        southbound.handle.send(input).await.map_err(stopping)?;
        let task = tokio::spawn(task.run(commands));
        Ok(Self { southbound: Arc::clone(southbound), switch, id, task, election_id, to_switch })
    }

    async fn run(
        mut self,
        mut messages: Streaming<FromSwitch>,
        certificates: Arc<Vec<CertificateDer<'static>>>,
    ) {
        let mut recheck = tokio::time::interval(RECHECK);
        let mut stop = self.southbound.stop.clone();
        let mut role = self.southbound.handle.role();
        let id = Some(self.election_id);
        let reason = loop {
            let next = tokio::select! {
                // While stopping, the core need not know: it comes back to this state.
                () = async { drop(stop.wait_for(|stop| *stop).await) } => {
                    self.task.abort();
                    return;
                }
                _ = role.wait_for(|role| role.election_id() != id) => {
                    let status = Status::unavailable("this controller leads no more");
                    // One that does not read learns it by the end of the stream.
                    drop(self.to_switch.try_send(Err(status)));
                    break "this controller leads no more".to_owned();
                }
                _ = recheck.tick() => {
                    let credentials = &self.southbound.dialer.credentials;
                    let Err(error) = credentials.still_good(&certificates) else { continue };
                    let reason = format!("its certificate is good no more: {error}");
                    tracing::warn!(node = %self.switch, reason, "session ended");
                    let status = Status::unauthenticated(reason.clone());
                    // One that does not read learns it by the end of the stream.
                    drop(self.to_switch.try_send(Err(status)));
                    break reason;
                }
                _ = &mut self.task => break "another session took its place".to_owned(),
                next = messages.message() => next,
            };
            let message = match next {
                Ok(Some(message)) => message,
                Ok(None) => break "the switch ended it".to_owned(),
                Err(status) => break format!("the connection broke: {}", status.message()),
            };
            // A message of a newer agent that we do not know is not an error.
            let Some(message) = message.message else { continue };
            let event = match message {
                from_switch::Message::Samples(samples) => {
                    self.southbound.sampling.told(&self.switch, samples).map(|()| None)
                }
                message => message::event(&self.switch, message).map(Some),
            };
            match event {
                Ok(None) => {}
                Ok(Some(event)) => {
                    let (switch, session) = (self.switch.clone(), self.id);
                    let input = Input::FromSwitch { switch, session, event };
                    if self.southbound.handle.send(input).await.is_err() {
                        break "the controller is stopping".to_owned();
                    }
                }
                Err(bad) => {
                    tracing::warn!(node = %self.switch, %bad, "bad message; session ended");
                    let status = Status::invalid_argument(bad.to_string());
                    // One that does not read either learns it by the end of the stream.
                    drop(self.to_switch.try_send(Err(status)));
                    break format!("bad message: {bad}");
                }
            }
        };
        tracing::debug!(node = %self.switch, reason, "session ended");
        self.task.abort();
        let left = Input::Left { switch: self.switch, session: self.id };
        // While stopping, nobody needs to know.
        drop(self.southbound.handle.send(left).await);
    }
}
