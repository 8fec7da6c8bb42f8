//! A P4Runtime switch that keeps its tables in memory: what the client is tried against.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
};

use selvedge_pipeline::{Code, CounterKind, Entry, Key};
use selvedge_southbound::{
    convert, limits,
    p4::v1::{self as p4v1, p4_runtime_server, stream_message_request, stream_message_response},
    p4info,
    status::{UpdateError, write_status},
    tls,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::mpsc,
};
use tokio_stream::{
    Stream, StreamExt,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{ServerTlsConfig, server::Connected},
};

pub(crate) const DEVICE: u64 = 7;

type Events = mpsc::Sender<Result<p4v1::StreamMessageResponse, Status>>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[derive(Default)]
pub(crate) struct State {
    pub(crate) entries: BTreeMap<Key, Entry>,
    /// Election id of each candidate, and where to tell it.
    candidates: Vec<(u128, Events)>,
    /// Names in the certificates that streams came with.
    pub(crate) peers: Vec<String>,
    pub(crate) writes: usize,
}

impl State {
    fn highest(&self) -> u128 {
        self.candidates.iter().map(|(id, _)| *id).max().unwrap_or(0)
    }

    fn arbitrate(&self) {
        let highest = self.highest();
        for (id, events) in &self.candidates {
            let code = if *id == highest { Code::Ok } else { Code::AlreadyExists };
            let update = p4v1::MasterArbitrationUpdate {
                device_id: DEVICE,
                role: None,
                election_id: Some(highest.into()),
                status: Some(selvedge_southbound::google::rpc::Status {
                    code: code as i32,
                    ..Default::default()
                }),
            };
            let message = p4v1::StreamMessageResponse {
                update: Some(stream_message_response::Update::Arbitration(update)),
            };
            drop(events.try_send(Ok(message)));
        }
    }

    fn update(&mut self, update: p4v1::Update) -> Result<(), UpdateError> {
        use p4v1::{entity::Entity, update::Type};
        let kind = update.r#type();
        let Some(Entity::TableEntry(wire)) = update.entity.and_then(|entity| entity.entity) else {
            return Err(UpdateError::new(Code::Unimplemented, "tables only"));
        };
        if kind == Type::Delete {
            let key = convert::key_from_wire(&wire)?;
            let gone = self.entries.remove(&key);
            return gone.map(drop).ok_or(UpdateError::new(Code::NotFound, "no such entry"));
        }
        let entry = convert::entry_from_wire(&wire)?;
        match (kind, self.entries.contains_key(&entry.key())) {
            (Type::Insert, true) => Err(UpdateError::new(Code::AlreadyExists, "it is there")),
            (Type::Modify, false) => Err(UpdateError::new(Code::NotFound, "no such entry")),
            _ => {
                self.entries.insert(entry.key(), entry);
                Ok(())
            }
        }
    }
}

#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) state: Arc<Mutex<State>>,
    tls: bool,
}

/// Serves on loopback until the runtime ends.
pub(crate) async fn start(tls: Option<ServerTlsConfig>) -> (SocketAddr, Server) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let is_tls = tls.is_some();
    let mut builder = tonic::transport::Server::builder();
    if let Some(tls) = tls {
        builder = builder.tls_config(tls).unwrap();
    }
    (address, serve(builder, TcpListenerStream::new(listener), is_tls))
}

/// Serves what comes in until the runtime ends.
pub(crate) fn serve<I>(
    mut builder: tonic::transport::Server,
    incoming: impl Stream<Item = std::io::Result<I>> + Send + 'static,
    tls: bool,
) -> Server
where
    I: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let server = Server { state: Arc::default(), tls };
    let service = p4_runtime_server::P4RuntimeServer::new(server.clone())
        .max_decoding_message_size(limits::MAX_MESSAGE_BYTES);
    tokio::spawn(builder.add_service(service).serve_with_incoming(incoming));
    server
}

#[tonic::async_trait]
impl p4_runtime_server::P4Runtime for Server {
    type ReadStream = Answers<p4v1::ReadResponse>;
    type StreamChannelStream = Answers<p4v1::StreamMessageResponse>;

    async fn write(
        &self,
        request: Request<p4v1::WriteRequest>,
    ) -> Result<Response<p4v1::WriteResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state.lock().unwrap();
        state.writes += 1;
        if request.election_id.map(u128::from) != Some(state.highest()) {
            return Err(Status::permission_denied("not primary"));
        }
        let results: Vec<_> =
            request.updates.into_iter().map(|update| state.update(update)).collect();
        write_status(&results).map_err(|status| *status)?;
        Ok(Response::new(p4v1::WriteResponse {}))
    }

    async fn read(
        &self,
        request: Request<p4v1::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        use p4v1::entity::Entity;
        let state = self.state.lock().unwrap();
        let mut found = Vec::new();
        for entity in request.into_inner().entities {
            match entity.entity {
                Some(Entity::TableEntry(wire)) => {
                    let selector = convert::selector_from_wire(&wire).unwrap();
                    let entries = state.entries.values().filter(|entry| selector.selects(entry));
                    found.extend(
                        entries
                            .map(|entry| convert::entity(convert::entry_to_wire(entry).unwrap())),
                    );
                }
                Some(Entity::CounterEntry(counter)) => {
                    assert_eq!(counter.counter_id, CounterKind::Drops.counter().id);
                    for index in [0, 3] {
                        found.push(p4v1::Entity {
                            entity: Some(Entity::CounterEntry(p4v1::CounterEntry {
                                index: Some(p4v1::Index { index }),
                                data: Some(p4v1::CounterData {
                                    byte_count: 0,
                                    packet_count: 10 + index,
                                }),
                                ..counter
                            })),
                        });
                    }
                }
                other => return Err(Status::unimplemented(format!("{other:?}"))),
            }
        }
        let answers: Vec<_> = found
            .chunks(limits::MAX_ENTITIES_PER_RESPONSE)
            .map(|entities| Ok(p4v1::ReadResponse { entities: entities.to_vec() }))
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(answers))))
    }

    async fn get_forwarding_pipeline_config(
        &self,
        request: Request<p4v1::GetForwardingPipelineConfigRequest>,
    ) -> Result<Response<p4v1::GetForwardingPipelineConfigResponse>, Status> {
        use p4v1::get_forwarding_pipeline_config_request::ResponseType;
        let with_info = request.into_inner().response_type() == ResponseType::P4infoAndCookie;
        let cookie = p4info::cookie();
        let config = p4v1::ForwardingPipelineConfig {
            p4info: with_info.then(p4info::p4info),
            p4_device_config: Vec::new(),
            cookie: Some(p4v1::forwarding_pipeline_config::Cookie { cookie }),
        };
        Ok(Response::new(p4v1::GetForwardingPipelineConfigResponse { config: Some(config) }))
    }

    async fn set_forwarding_pipeline_config(
        &self,
        _: Request<p4v1::SetForwardingPipelineConfigRequest>,
    ) -> Result<Response<p4v1::SetForwardingPipelineConfigResponse>, Status> {
        Err(Status::unimplemented("one pipeline"))
    }

    async fn stream_channel(
        &self,
        request: Request<Streaming<p4v1::StreamMessageRequest>>,
    ) -> Result<Response<Self::StreamChannelStream>, Status> {
        if self.tls {
            let peer = tls::peer_name(&request)?;
            self.state.lock().unwrap().peers.push(peer);
        }
        let mut incoming = request.into_inner();
        let (events, answers) = mpsc::channel(16);
        let state = self.state.clone();
        tokio::spawn(async move {
            while let Some(Ok(message)) = incoming.next().await {
                let Some(stream_message_request::Update::Arbitration(update)) = message.update
                else {
                    continue;
                };
                if update.device_id != DEVICE {
                    drop(events.try_send(Err(Status::not_found("no such device"))));
                    return;
                }
                let id = update.election_id.map_or(0, u128::from);
                let mut state = state.lock().unwrap();
                state.candidates.push((id, events.clone()));
                state.arbitrate();
            }
            let mut state = state.lock().unwrap();
            state.candidates.retain(|(_, other)| !other.same_channel(&events));
            state.arbitrate();
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn capabilities(
        &self,
        _: Request<p4v1::CapabilitiesRequest>,
    ) -> Result<Response<p4v1::CapabilitiesResponse>, Status> {
        Ok(Response::new(p4v1::CapabilitiesResponse {
            p4runtime_api_version: "1.4.0".to_owned(),
            ..Default::default()
        }))
    }
}
