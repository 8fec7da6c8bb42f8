//! The controller's end of P4Runtime: one switch, one session.
//!
//! [`P4Client`] makes calls and may be cloned; [`Channel`] is the open stream that makes us a
//! candidate for primary, and must live as long as the client writes. Nothing here retries:
//! an error says what happened, the reconciler decides.

use std::time::Duration;

use prost::Message;
use selvedge_pipeline::{Code, CodecError, CounterKind, Entry};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

use crate::{
    convert::{self, ConvertError},
    limits,
    p4::{
        config::v1::P4Info,
        v1::{self as p4v1, p4_runtime_client::P4RuntimeClient},
    },
    status,
    tls::Credentials,
};

/// The role our controller takes. It is the whole pipeline; its name keeps the election ids
/// of other clients apart from ours.
pub const CONTROLLER_ROLE: &str = "selvedge";

/// Which switch, and as whom.
#[derive(Clone, Debug)]
pub struct Target {
    /// `https://192.0.2.2:9559`, or `http://` without TLS.
    pub uri: String,
    /// As whom, and the name of who answers. `None`: in the clear.
    pub tls: Option<(Credentials, String)>,
    pub device_id: u64,
    /// Empty: the default role, everything.
    pub role: String,
    /// The highest that is connected under a role is primary, and alone may write.
    pub election_id: u128,
}

#[derive(Clone, Debug)]
pub struct P4Client {
    rpc: P4RuntimeClient<tonic::transport::Channel>,
    device_id: u64,
    role: String,
    election_id: u128,
}

/// The stream of a session. Dropping it gives up the candidacy.
#[derive(Debug)]
pub struct Channel {
    primary: bool,
    highest: u128,
    incoming: tonic::Streaming<p4v1::StreamMessageResponse>,
    /// Held open: its end is the session's end. The capacity is the one arbitration in it.
    _outgoing: mpsc::Sender<p4v1::StreamMessageRequest>,
}

/// What the switch says of its own accord.
#[derive(Clone, Debug, PartialEq)]
pub enum ChannelEvent {
    /// We became primary, or somebody else did.
    Arbitration {
        primary: bool,
        highest: u128,
    },
    PacketIn(p4v1::PacketIn),
    Error(p4v1::StreamError),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// The key must be free.
    Insert(Entry),
    /// The key must be there; the new value replaces the old in one step.
    Modify(Entry),
    /// The key must be there; the rest of the entry does not matter.
    Delete(Entry),
}

impl Update {
    pub fn entry(&self) -> &Entry {
        match self {
            Self::Insert(entry) | Self::Modify(entry) | Self::Delete(entry) => entry,
        }
    }

    fn to_wire(&self) -> Result<p4v1::Update, CodecError> {
        let kind = match self {
            Self::Insert(_) => p4v1::update::Type::Insert,
            Self::Modify(_) => p4v1::update::Type::Modify,
            Self::Delete(_) => p4v1::update::Type::Delete,
        };
        Ok(p4v1::Update {
            r#type: kind.into(),
            entity: Some(convert::entity(convert::entry_to_wire(self.entry())?)),
        })
    }
}

/// One cell of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterCell {
    pub counter: CounterKind,
    pub index: u32,
    pub packets: u64,
    /// `0` where the counter has packets only.
    pub bytes: u64,
}

impl P4Client {
    /// Connects, opens the stream and waits for the first arbitration. The session may turn
    /// out not to be primary: see [`Channel::is_primary`].
    ///
    /// # Errors
    /// Nobody there, another certificate than expected, or the switch refuses the device id,
    /// the role or the election id; see [`ClientError`].
    pub async fn connect(target: Target) -> Result<(Self, Channel), ClientError> {
        let Target { uri, tls, device_id, role, election_id } = target;
        let connect = |source| ClientError::Connect { uri: uri.clone(), source: Box::new(source) };
        let configure = |endpoint: Endpoint| {
            endpoint
                .connect_timeout(limits::CONNECT_TIMEOUT)
                .http2_keep_alive_interval(limits::KEEP_ALIVE_INTERVAL)
                .keep_alive_timeout(limits::KEEP_ALIVE_TIMEOUT)
                .keep_alive_while_idle(true)
                .http2_max_header_list_size(limits::MAX_HEADER_BYTES)
        };
        let connecting = async {
            match &tls {
                Some((credentials, peer)) => credentials.connect(&uri, peer, configure).await,
                None => configure(Endpoint::from_shared(uri.clone())?).connect().await,
            }
        };
        // The connector's own time limit does not cover the TLS handshake.
        let channel = within("connect", limits::CONNECT_TIMEOUT, connecting).await?;
        let channel = channel.map_err(connect)?;
        let mut rpc =
            P4RuntimeClient::new(channel).max_decoding_message_size(limits::MAX_MESSAGE_BYTES);

        let (outgoing, requests) = mpsc::channel(1);
        let arbitration = p4v1::MasterArbitrationUpdate {
            device_id,
            role: (!role.is_empty())
                .then(|| p4v1::Role { name: role.clone(), ..Default::default() }),
            election_id: Some(election_id.into()),
            status: None,
        };
        outgoing
            .try_send(p4v1::StreamMessageRequest {
                update: Some(p4v1::stream_message_request::Update::Arbitration(arbitration)),
            })
            .expect("the channel is new, with room for one");
        let open = async {
            let answer = rpc.stream_channel(ReceiverStream::new(requests)).await;
            let incoming = answer.map_err(rpc_error("StreamChannel"))?.into_inner();
            let mut channel = Channel { primary: false, highest: 0, incoming, _outgoing: outgoing };
            match channel.next().await? {
                ChannelEvent::Arbitration { .. } => Ok(channel),
                ChannelEvent::PacketIn(_) | ChannelEvent::Error(_) => {
                    Err(ClientError::Unexpected { what: "no arbitration came first" })
                }
            }
        };
        let channel = within("StreamChannel", limits::CALL_TIMEOUT, open).await??;
        Ok((Self { rpc, device_id, role, election_id }, channel))
    }

    /// Carries out `updates` in order, in batches of at most
    /// [`limits::MAX_UPDATES_PER_WRITE`]. Within a batch the switch goes on after a failure;
    /// the batches behind it are not sent.
    ///
    /// # Errors
    /// [`WriteError::Encode`] before anything is sent; [`WriteError::Updates`] with what
    /// failed; [`WriteError::Client`] if the switch refused or did not answer, and then up to
    /// one batch may have been carried out.
    pub async fn write(&self, updates: &[Update]) -> Result<(), WriteError> {
        let wire = updates
            .iter()
            .enumerate()
            .map(|(index, update)| {
                update.to_wire().map_err(|source| WriteError::Encode { index, source })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let mut first = 0;
        for batch in batches(wire) {
            let count = batch.len();
            let request = p4v1::WriteRequest {
                device_id: self.device_id,
                role: self.role.clone(),
                election_id: Some(self.election_id.into()),
                updates: batch,
                atomicity: p4v1::write_request::Atomicity::ContinueOnError.into(),
                ..Default::default()
            };
            let mut rpc = self.rpc.clone();
            let answer = within("Write", limits::CALL_TIMEOUT, rpc.write(request)).await?;
            if let Err(answer) = answer {
                let results = status::update_results(&answer)
                    .filter(|results| results.len() == count)
                    .ok_or_else(|| rpc_error("Write")(answer))?;
                let failed = results.into_iter().enumerate().filter_map(|(n, result)| {
                    let error = result.err()?;
                    let (index, update) = (first + n, updates[first + n].clone());
                    Some(FailedUpdate { index, update, code: error.code, message: error.message })
                });
                return Err(WriteError::Updates {
                    failed: failed.collect(),
                    attempted: first + count,
                });
            }
            first += count;
        }
        Ok(())
    }

    /// Every entry of every table, in no particular order.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Undecodable`] is a switch of another version.
    pub async fn read_entries(&self) -> Result<Vec<Entry>, ClientError> {
        let entity = convert::entity(p4v1::TableEntry::default());
        let mut entries = Vec::new();
        for entity in self.read(vec![entity]).await? {
            if let Some(p4v1::entity::Entity::TableEntry(entry)) = entity.entity {
                entries.push(
                    convert::entry_from_wire(&entry)
                        .map_err(|source| ClientError::Undecodable { source })?,
                );
            }
        }
        Ok(entries)
    }

    /// Every cell of `counter` that the switch reports.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn read_counter(
        &self,
        counter: CounterKind,
    ) -> Result<Vec<CounterCell>, ClientError> {
        let cells = self.read(vec![counter_entity(counter, None)]).await?;
        Ok(cells.into_iter().filter_map(counter_cell).collect())
    }

    /// These cells, in one call, in the order given.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Unexpected`] when the answer has other cells.
    pub async fn read_cells(
        &self,
        cells: &[(CounterKind, u32)],
    ) -> Result<Vec<CounterCell>, ClientError> {
        let wanted = cells.iter().map(|(counter, index)| counter_entity(*counter, Some(*index)));
        let found = self.read(wanted.collect()).await?;
        let found: Vec<_> = found.into_iter().filter_map(counter_cell).collect();
        if !found.iter().map(|cell| (cell.counter, cell.index)).eq(cells.iter().copied()) {
            return Err(ClientError::Unexpected { what: "other counter cells than asked for" });
        }
        Ok(found)
    }

    /// The pipeline the switch runs, and its cookie.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn pipeline(&self) -> Result<(P4Info, u64), ClientError> {
        use p4v1::get_forwarding_pipeline_config_request::ResponseType::P4infoAndCookie;
        let config = self.config(P4infoAndCookie).await?;
        let cookie = config.cookie.unwrap_or_default().cookie;
        Ok((config.p4info.unwrap_or_default(), cookie))
    }

    /// The cookie of the pipeline the switch runs; ours is [`crate::p4info::cookie`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn cookie(&self) -> Result<u64, ClientError> {
        use p4v1::get_forwarding_pipeline_config_request::ResponseType::CookieOnly;
        Ok(self.config(CookieOnly).await?.cookie.unwrap_or_default().cookie)
    }

    async fn config(
        &self,
        response: p4v1::get_forwarding_pipeline_config_request::ResponseType,
    ) -> Result<p4v1::ForwardingPipelineConfig, ClientError> {
        const CALL: &str = "GetForwardingPipelineConfig";
        let request = p4v1::GetForwardingPipelineConfigRequest {
            device_id: self.device_id,
            response_type: response.into(),
        };
        let mut rpc = self.rpc.clone();
        let call = rpc.get_forwarding_pipeline_config(request);
        let answer = within(CALL, limits::CALL_TIMEOUT, call).await?.map_err(rpc_error(CALL))?;
        Ok(answer.into_inner().config.unwrap_or_default())
    }

    async fn read(&self, wanted: Vec<p4v1::Entity>) -> Result<Vec<p4v1::Entity>, ClientError> {
        let request = p4v1::ReadRequest {
            device_id: self.device_id,
            entities: wanted,
            role: self.role.clone(),
        };
        let mut rpc = self.rpc.clone();
        let read = async {
            let mut answers = rpc.read(request).await?.into_inner();
            let mut entities = Vec::new();
            while let Some(answer) = answers.message().await? {
                entities.extend(answer.entities);
            }
            Ok(entities)
        };
        within("Read", limits::CALL_TIMEOUT, read).await?.map_err(rpc_error("Read"))
    }
}

impl Channel {
    /// As of the last arbitration that was heard of.
    pub fn is_primary(&self) -> bool {
        self.primary
    }

    /// The highest election id under our role, as of the last arbitration.
    pub fn highest(&self) -> u128 {
        self.highest
    }

    /// The next thing the switch says. Cancel-safe.
    ///
    /// # Errors
    /// The session is over: the switch has gone or refuses it.
    pub async fn next(&mut self) -> Result<ChannelEvent, ClientError> {
        use p4v1::stream_message_response::Update;
        loop {
            let message = self.incoming.message().await.map_err(rpc_error("StreamChannel"))?;
            let Some(message) = message else { return Err(ClientError::Closed) };
            match message.update {
                Some(Update::Arbitration(update)) => {
                    // P4Runtime §5.1: OK to the primary, ALREADY_EXISTS to the others,
                    // NOT_FOUND where there is none.
                    self.primary =
                        update.status.is_none_or(|status| status.code == Code::Ok as i32);
                    self.highest = update.election_id.map_or(0, u128::from);
                    let (primary, highest) = (self.primary, self.highest);
                    return Ok(ChannelEvent::Arbitration { primary, highest });
                }
                Some(Update::Packet(packet)) => return Ok(ChannelEvent::PacketIn(packet)),
                Some(Update::Error(error)) => return Ok(ChannelEvent::Error(error)),
                // No table has digests or idle time-outs.
                Some(Update::Digest(_) | Update::IdleTimeoutNotification(_) | Update::Other(_))
                | None => {}
            }
        }
    }
}

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot connect to {uri}")]
    Connect {
        uri: String,
        #[source]
        source: Box<tonic::transport::Error>,
    },
    #[error("{call}: {}", status.message())]
    Rpc {
        call: &'static str,
        #[source]
        status: Box<tonic::Status>,
    },
    #[error("{call}: no answer within {limit:?}")]
    Timeout { call: &'static str, limit: Duration },
    #[error("the switch closed the session")]
    Closed,
    #[error("the switch does not keep to P4Runtime: {what}")]
    Unexpected { what: &'static str },
    #[error("the switch holds an entry that this version cannot read")]
    Undecodable {
        #[source]
        source: ConvertError,
    },
}

impl ClientError {
    /// The gRPC code, if the switch answered with one.
    pub fn code(&self) -> Option<tonic::Code> {
        match self {
            Self::Rpc { status, .. } => Some(status.code()),
            _ => None,
        }
    }
}

/// Why updates were not all carried out.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("update {index} cannot be expressed; nothing was sent")]
    Encode {
        index: usize,
        #[source]
        source: CodecError,
    },
    #[error("{} of {attempted} updates failed, first: {}", failed.len(), first(failed))]
    Updates {
        failed: Vec<FailedUpdate>,
        /// Updates from here on were not sent.
        attempted: usize,
    },
    #[error(transparent)]
    Client(#[from] ClientError),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedUpdate {
    /// In what was given to [`P4Client::write`].
    pub index: usize,
    pub update: Update,
    pub code: Code,
    pub message: String,
}

fn first(failed: &[FailedUpdate]) -> String {
    failed.first().map_or_else(String::new, |failed| {
        let FailedUpdate { index, update, code, message } = failed;
        format!("update {index} of {} ({code:?}): {message}", update.entry().table().name())
    })
}

/// One cell, or all of them.
fn counter_entity(counter: CounterKind, index: Option<u32>) -> p4v1::Entity {
    let wanted = p4v1::CounterEntry {
        counter_id: counter.counter().id,
        index: index.map(|index| p4v1::Index { index: index.into() }),
        data: None,
    };
    p4v1::Entity { entity: Some(p4v1::entity::Entity::CounterEntry(wanted)) }
}

/// `None` for anything but a cell of a counter of ours.
fn counter_cell(entity: p4v1::Entity) -> Option<CounterCell> {
    let Some(p4v1::entity::Entity::CounterEntry(cell)) = entity.entity else { return None };
    let data = cell.data.unwrap_or_default();
    Some(CounterCell {
        counter: CounterKind::from_id(cell.counter_id)?,
        index: u32::try_from(cell.index?.index).ok()?,
        // Counters do not go below 0, P4Runtime has them signed all the same.
        packets: data.packet_count.max(0) as u64,
        bytes: data.byte_count.max(0) as u64,
    })
}

fn rpc_error(call: &'static str) -> impl Fn(tonic::Status) -> ClientError {
    move |status| ClientError::Rpc { call, status: Box::new(status) }
}

async fn within<T>(
    call: &'static str,
    limit: Duration,
    future: impl Future<Output = T>,
) -> Result<T, ClientError> {
    tokio::time::timeout(limit, future).await.map_err(|_| ClientError::Timeout { call, limit })
}

/// Cuts updates into requests that keep to the limits.
fn batches(updates: Vec<p4v1::Update>) -> Vec<Vec<p4v1::Update>> {
    let mut batches: Vec<Vec<p4v1::Update>> = Vec::new();
    let mut bytes = 0;
    for update in updates {
        let len = update.encoded_len();
        match batches.last_mut() {
            Some(batch)
                if batch.len() < limits::MAX_UPDATES_PER_WRITE
                    && bytes + len <= limits::MAX_WRITE_BYTES =>
            {
                batch.push(update);
                bytes += len;
            }
            _ => {
                batches.push(vec![update]);
                bytes = len;
            }
        }
    }
    batches
}
