//! The server's state, and each call as a plain function on it: who is connected, who may
//! write, what is in the tables. One lock around it makes every call whole: a `Read` sees a
//! `Write` done or not begun (P4Runtime 1.4 §13.4).

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;

use selvedge_pipeline::tables::{PACKET_IN, PACKET_OUT, Param};
use selvedge_pipeline::{Code, PortId, raw};
use selvedge_southbound::client::CONTROLLER_ROLE;
use selvedge_southbound::google::rpc;
use selvedge_southbound::p4::v1::{self as p4v1, write_request::Atomicity};
use selvedge_southbound::status::UpdateError;
use selvedge_southbound::{p4info, status};
use tokio::sync::mpsc;
use tonic::Status;

use super::arbitration::{Arbitration, BidError, ClientId, Memory, Notice, Standing, WriteRefusal};
use super::read;
use super::write::{self, Generations};
use crate::backend::{BackendError, Tables};

/// Messages that wait for a client; one that does not read them is cut off.
pub const OUTBOX: usize = 64;

/// To one client's stream.
pub type Outbox = mpsc::Sender<Result<p4v1::StreamMessageResponse, Status>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// For our controller alone: generation and election id are kept, older ones refused.
    Managed,
    /// For any client.
    Unmanaged,
}

/// How a frame is sent on a port. `NotFound`: there is no such port.
pub type SendFrame = Box<dyn Fn(PortId, &[u8]) -> io::Result<()> + Send>;

/// Bytes of a frame that is sent for a client: Ethernet's header at least; ports have their own
/// limits below the greatest that the kernel has for an interface.
const FRAME_BYTES: RangeInclusive<usize> = 14..=65_535;

pub struct Core<T> {
    tables: T,
    send_frame: SendFrame,
    mode: Mode,
    device_id: u64,
    arbitration: Arbitration,
    clients: BTreeMap<ClientId, Outbox>,
    next_client: u64,
    cookie: u64,
    /// A pipeline was saved and not committed; it can only be ours.
    saved: bool,
}

impl<T: Tables> Core<T> {
    /// # Errors
    /// When the election id of an earlier agent cannot be read.
    pub fn new(
        tables: T,
        send_frame: SendFrame,
        mode: Mode,
        device_id: u64,
    ) -> Result<Self, BackendError> {
        let mut arbitration = Arbitration::new(match mode {
            Mode::Managed => Memory::Keep,
            Mode::Unmanaged => Memory::Forget,
        });
        if mode == Mode::Managed
            && let Some(election) = tables.election()?
        {
            arbitration.remember(CONTROLLER_ROLE, election);
        }
        Ok(Self {
            tables,
            send_frame,
            mode,
            device_id,
            arbitration,
            clients: BTreeMap::new(),
            next_client: 0,
            cookie: p4info::cookie(),
            saved: false,
        })
    }

    pub fn tables(&self) -> &T {
        &self.tables
    }

    /// A stream was opened; nothing is known of its client yet.
    pub fn connect(&mut self, outbox: Outbox) -> ClientId {
        self.next_client += 1;
        let client = ClientId(self.next_client);
        self.clients.insert(client, outbox);
        client
    }

    /// Ends a client's stream. When there is no room for the reason, it ends without.
    pub fn end(&mut self, client: ClientId, reason: Status) {
        if let Some(outbox) = self.clients.remove(&client) {
            drop(outbox.try_send(Err(reason)));
        }
    }

    /// A stream has ended, by either side.
    pub fn disconnect(&mut self, client: ClientId) {
        self.clients.remove(&client);
        let notices = self.arbitration.leave(client);
        self.tell(notices);
    }

    /// What a client's stream said.
    ///
    /// # Errors
    /// What the stream has to [end](Self::end) with.
    pub fn hear(
        &mut self,
        client: ClientId,
        message: p4v1::StreamMessageRequest,
    ) -> Result<(), Status> {
        use p4v1::stream_error::Details;
        use p4v1::stream_message_request::Update;
        let details = match message.update {
            Some(Update::Arbitration(update)) => return self.arbitrate(client, &update),
            Some(Update::Packet(packet)) => {
                if let Err((code, message)) = self.packet_out(client, &packet) {
                    let packet_out = Some(packet);
                    let details = Details::PacketOut(p4v1::PacketOutError { packet_out });
                    self.complain(client, code, message, details);
                }
                return Ok(());
            }
            Some(Update::DigestAck(ack)) => {
                Details::DigestListAck(p4v1::DigestListAckError { digest_list_ack: Some(ack) })
            }
            Some(Update::Other(other)) => {
                Details::Other(p4v1::StreamOtherError { other: Some(other) })
            }
            None => return Ok(()),
        };
        let message = "this pipeline has no digests".to_owned();
        self.complain(client, Code::Unimplemented, message, details);
        Ok(())
    }

    /// Said on the stream, which goes on (§16.6).
    fn complain(
        &mut self,
        client: ClientId,
        code: Code,
        message: String,
        details: p4v1::stream_error::Details,
    ) {
        let error = p4v1::StreamError {
            canonical_code: code as i32,
            message,
            details: Some(details),
            ..Default::default()
        };
        self.send(client, p4v1::stream_message_response::Update::Error(error));
    }

    /// Sends a frame on the port it names; why not, if it is not sent.
    fn packet_out(&self, client: ClientId, packet: &p4v1::PacketOut) -> Result<(), (Code, String)> {
        if !self.arbitration.is_primary(client) {
            let why = "only a primary client sends packets";
            return Err((Code::PermissionDenied, why.to_owned()));
        }
        let port = egress_port(packet).map_err(|why| (Code::InvalidArgument, why))?;
        let len = packet.payload.len();
        if !FRAME_BYTES.contains(&len) {
            let (least, most) = (FRAME_BYTES.start(), FRAME_BYTES.end());
            let why = format!("a frame of {len} bytes; frames have {least} to {most}");
            return Err((Code::InvalidArgument, why));
        }
        let sent = (self.send_frame)(port, &packet.payload);
        sent.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => (Code::NotFound, format!("there is no port {}", port.0)),
            _ => (Code::Unavailable, format!("not sent on port {}: {error}", port.0)),
        })
    }

    /// A frame that came in on a port, to each primary client (§16.1). A client that is behind
    /// misses it: it may be about to hear of its own writes, which matters more.
    pub fn packet_in(&self, port: PortId, frame: &[u8]) {
        if self.mode == Mode::Managed {
            return;
        }
        let value = raw::canonical(port.0.into());
        let metadata = p4v1::PacketMetadata { metadata_id: PACKET_IN.metadata.id, value };
        let packet = p4v1::PacketIn { payload: frame.to_vec(), metadata: vec![metadata] };
        let update = Some(p4v1::stream_message_response::Update::Packet(packet));
        let message = p4v1::StreamMessageResponse { update };
        let primaries = self.clients.iter().filter(|(id, _)| self.arbitration.is_primary(**id));
        for (_, outbox) in primaries.filter(|(_, outbox)| outbox.capacity() > OUTBOX / 2) {
            drop(outbox.try_send(Ok(message.clone())));
        }
    }

    fn arbitrate(
        &mut self,
        client: ClientId,
        update: &p4v1::MasterArbitrationUpdate,
    ) -> Result<(), Status> {
        self.check_device(update.device_id)?;
        let role = update.role.as_ref();
        if role.is_some_and(|role| role.config.is_some()) {
            return Err(Status::invalid_argument("no role of this switch has a configuration"));
        }
        let role = role.map_or("", |role| role.name.as_str());
        if self.mode == Mode::Managed && role != CONTROLLER_ROLE {
            return Err(Status::permission_denied(format!(
                "a managed switch has the role {CONTROLLER_ROLE:?} only; others would get \
                 around its election ids"
            )));
        }
        let bid = update.election_id.map(u128::from);
        let raised = self.arbitration.raises(role, bid);
        let notices = self.arbitration.bid(client, role, bid).map_err(bid_status)?;
        if self.mode == Mode::Managed
            && let Some(id) = raised
            && let Err(error) = self.tables.set_election(id)
        {
            // Primary only once it is written down: the next agent must know.
            let notices = self.arbitration.leave(client);
            self.tell(notices);
            return Err(Status::internal(error.to_string()));
        }
        self.tell(notices);
        Ok(())
    }

    fn tell(&mut self, notices: Vec<Notice>) {
        for notice in notices {
            let (code, message) = match notice.standing {
                Standing::Primary => (Code::Ok, ""),
                Standing::Backup => (Code::AlreadyExists, "another client is primary"),
                Standing::Vacant => (Code::NotFound, "no client is primary"),
            };
            let role = (!notice.role.is_empty())
                .then(|| p4v1::Role { name: notice.role.clone(), ..Default::default() });
            let update = p4v1::MasterArbitrationUpdate {
                device_id: self.device_id,
                role,
                election_id: notice.election_id.map(Into::into),
                status: Some(rpc::Status {
                    code: code as i32,
                    message: message.to_owned(),
                    details: Vec::new(),
                }),
            };
            let update = p4v1::stream_message_response::Update::Arbitration(update);
            self.send(notice.to, update);
        }
    }

    fn send(&mut self, client: ClientId, update: p4v1::stream_message_response::Update) {
        let message = p4v1::StreamMessageResponse { update: Some(update) };
        let Some(outbox) = self.clients.get(&client) else { return };
        if outbox.try_send(Ok(message)).is_err() {
            // Full: it does not read. Without its outbox its stream ends.
            self.clients.remove(&client);
        }
    }

    fn check_device(&self, device_id: u64) -> Result<(), Status> {
        if device_id == self.device_id {
            return Ok(());
        }
        Err(Status::not_found(format!("no device {device_id} here, only {}", self.device_id)))
    }

    fn check_writer(
        &self,
        device_id: u64,
        role: &str,
        election_id: Option<p4v1::Uint128>,
    ) -> Result<(), Status> {
        self.check_device(device_id)?;
        let Some(id) = election_id else {
            return Err(Status::permission_denied("without an election id nobody may write"));
        };
        self.arbitration.may_write(role, id.into()).map_err(|refusal| match refusal {
            WriteRefusal::NoSuchRole(_) => Status::not_found(refusal.to_string()),
            WriteRefusal::NotPrimary { .. } | WriteRefusal::Vacant(_) => {
                Status::permission_denied(refusal.to_string())
            }
        })
    }

    fn generations(&self) -> Generations {
        match self.mode {
            Mode::Managed => Generations::Guarded,
            Mode::Unmanaged => Generations::Free,
        }
    }

    /// # Errors
    /// About the whole request, or with the result of every update.
    pub fn write(&mut self, request: &p4v1::WriteRequest) -> Result<(), Status> {
        self.check_writer(request.device_id, &request.role, request.election_id)?;
        let (tables, generations) = (&self.tables, self.generations());
        let all_or_none = match request.atomicity() {
            Atomicity::ContinueOnError => false,
            Atomicity::RollbackOnError => true,
            Atomicity::DataplaneAtomic if write::is_atomic(&request.updates) => true,
            Atomicity::DataplaneAtomic => {
                let what = "DATAPLANE_ATOMIC: packets would meet some of this batch's entries and \
                            not yet the others; it is offered for rules of classifier alone and \
                            for one policy, CONTINUE_ON_ERROR and ROLLBACK_ON_ERROR for all";
                return Err(Status::unimplemented(what));
            }
        };
        let results = write::batch(tables, generations, &request.updates, all_or_none);
        status::write_status(&results).map_err(|status| *status)
    }

    /// What was read, and how the call ends after it.
    ///
    /// # Errors
    /// About the whole request.
    pub fn read(
        &self,
        request: &p4v1::ReadRequest,
    ) -> Result<(Vec<p4v1::Entity>, Result<(), Status>), Status> {
        self.check_device(request.device_id)?;
        let mut entities = Vec::new();
        let results: Vec<Result<(), UpdateError>> = request
            .entities
            .iter()
            .map(|wanted| read::read(&self.tables, wanted).map(|read| entities.extend(read)))
            .collect();
        Ok((entities, status::write_status(&results).map_err(|status| *status)))
    }

    /// # Errors
    /// See P4Runtime 1.4 §14.
    pub fn set_pipeline(
        &mut self,
        request: &p4v1::SetForwardingPipelineConfigRequest,
    ) -> Result<(), Status> {
        use p4v1::set_forwarding_pipeline_config_request::Action;
        self.check_writer(request.device_id, &request.role, request.election_id)?;
        let config = request.config.as_ref();
        match request.action() {
            Action::Unspecified => return Err(Status::invalid_argument("no action")),
            Action::Verify => {
                verify(config)?;
            }
            Action::VerifyAndSave => {
                self.cookie = verify(config)?;
                self.saved = true;
            }
            Action::VerifyAndCommit => {
                self.cookie = verify(config)?;
                write::clear(&self.tables, self.generations())
                    .map_err(|error| Status::internal(error.to_string()))?;
                self.saved = false;
            }
            Action::Commit if config.is_some() => {
                return Err(Status::invalid_argument("COMMIT takes no configuration"));
            }
            Action::Commit if !self.saved => {
                return Err(Status::not_found("no configuration was saved"));
            }
            // Entries written since went into the same pipeline, and are in force already.
            Action::Commit => self.saved = false,
            Action::ReconcileAndCommit => {
                self.cookie = verify(config)?;
                self.saved = false;
            }
        }
        Ok(())
    }

    /// # Errors
    /// NOT_FOUND for another device.
    pub fn pipeline(
        &self,
        request: &p4v1::GetForwardingPipelineConfigRequest,
    ) -> Result<p4v1::ForwardingPipelineConfig, Status> {
        use p4v1::get_forwarding_pipeline_config_request::ResponseType;
        self.check_device(request.device_id)?;
        let p4info = match request.response_type() {
            ResponseType::All | ResponseType::P4infoAndCookie => Some(p4info::p4info()),
            ResponseType::CookieOnly | ResponseType::DeviceConfigAndCookie => None,
        };
        let cookie = p4v1::forwarding_pipeline_config::Cookie { cookie: self.cookie };
        // The device's own program is not something a client could give or use.
        Ok(p4v1::ForwardingPipelineConfig {
            p4info,
            p4_device_config: Vec::new(),
            cookie: Some(cookie),
        })
    }
}

/// What the one metadata of a packet-out says.
fn egress_port(packet: &p4v1::PacketOut) -> Result<PortId, String> {
    let Param { id, name, .. } = PACKET_OUT.metadata;
    let [metadata] = &packet.metadata[..] else {
        return Err(format!("{} metadata; a packet has one, {name}", packet.metadata.len()));
    };
    if metadata.metadata_id != id {
        return Err(format!("metadata {}: {name} has the id {id}", metadata.metadata_id));
    }
    let port = raw::number(&metadata.value).and_then(|port| u8::try_from(port).ok());
    let port =
        port.filter(|port| *port != 0).ok_or_else(|| format!("{name}: not within 1..=255"))?;
    Ok(PortId(port.into()))
}

/// The cookie of a pipeline that this switch can realize: its own, which is the only one.
fn verify(config: Option<&p4v1::ForwardingPipelineConfig>) -> Result<u64, Status> {
    let config = config.ok_or_else(|| Status::invalid_argument("no configuration"))?;
    if !config.p4_device_config.is_empty() {
        return Err(Status::invalid_argument("p4_device_config: this switch takes none"));
    }
    let given = config.p4info.as_ref().ok_or_else(|| Status::invalid_argument("no P4Info"))?;
    if *given != p4info::p4info() {
        return Err(Status::invalid_argument(
            "the P4Info is another pipeline's; this switch has one, which \
             GetForwardingPipelineConfig returns",
        ));
    }
    Ok(config.cookie.as_ref().map_or_else(p4info::cookie, |cookie| cookie.cookie))
}

fn bid_status(error: BidError) -> Status {
    let message = error.to_string();
    match error {
        BidError::Taken(_) => Status::invalid_argument(message),
        BidError::RoleChanged(_) => Status::failed_precondition(message),
        BidError::Clients | BidError::Roles => Status::resource_exhausted(message),
    }
}

#[cfg(test)]
mod tests;
