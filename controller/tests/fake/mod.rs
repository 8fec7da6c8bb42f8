//! A switch for tests: a P4Runtime server over a map behind real mutual TLS, and a session
//! with the controller.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use selvedge_pipeline::{Entry, Key};
use selvedge_southbound::p4::v1::{self as p4, p4_runtime_server};
use selvedge_southbound::selvedge::v1::controller_client::ControllerClient;
use selvedge_southbound::selvedge::v1::{
    Compute, FromSwitch, Neighbor, Port, Register, ToSwitch, from_switch,
};
use selvedge_southbound::tls::{Credentials, peer_name};
use selvedge_southbound::{convert, p4info};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{ClientTlsConfig, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

/// What the switch holds, and what was asked of it.
#[derive(Default)]
pub(crate) struct State {
    pub entries: BTreeMap<Key, Entry>,
    pub writes: usize,
    pub updates: usize,
    pub election_ids: Vec<u128>,
}

#[derive(Clone, Default)]
pub(crate) struct Switch {
    pub state: Arc<Mutex<State>>,
}

impl Switch {
    /// Serves P4Runtime with `name`'s certificate; returns where.
    pub(crate) async fn serve(&self, pki: &Path, name: &str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = Credentials::load(pki, name).unwrap().tonic_server();
        let service = p4_runtime_server::P4RuntimeServer::new(self.clone());
        let server = Server::builder().tls_config(tls).unwrap().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        address
    }
}

type Answers<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl p4_runtime_server::P4Runtime for Switch {
    type ReadStream = Answers<p4::ReadResponse>;
    type StreamChannelStream = Answers<p4::StreamMessageResponse>;

    async fn write(
        &self,
        request: Request<p4::WriteRequest>,
    ) -> Result<Response<p4::WriteResponse>, Status> {
        assert_eq!(peer_name(&request).unwrap(), "controller");
        let mut state = self.state.lock().unwrap();
        state.writes += 1;
        for update in request.into_inner().updates {
            state.updates += 1;
            let kind = update.r#type();
            let Some(p4::entity::Entity::TableEntry(wire)) = update.entity.unwrap().entity else {
                return Err(Status::invalid_argument("not a table entry"));
            };
            let key = convert::key_from_wire(&wire).unwrap();
            match kind {
                p4::update::Type::Delete => assert!(state.entries.remove(&key).is_some()),
                p4::update::Type::Insert => {
                    let entry = convert::entry_from_wire(&wire).unwrap();
                    assert!(state.entries.insert(key, entry).is_none(), "inserted twice: {key:?}");
                }
                p4::update::Type::Modify => {
                    let entry = convert::entry_from_wire(&wire).unwrap();
                    assert!(state.entries.insert(key, entry).is_some(), "not there: {key:?}");
                }
                p4::update::Type::Unspecified => return Err(Status::invalid_argument("type")),
            }
        }
        Ok(Response::new(p4::WriteResponse::default()))
    }

    async fn read(
        &self,
        request: Request<p4::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let entries: Vec<Entry> = self.state.lock().unwrap().entries.values().cloned().collect();
        let mut entities = Vec::new();
        for wanted in request.into_inner().entities {
            match wanted.entity.unwrap() {
                p4::entity::Entity::TableEntry(_) => entities.extend(
                    entries.iter().map(|e| convert::entity(convert::entry_to_wire(e).unwrap())),
                ),
                p4::entity::Entity::CounterEntry(mut cell) => {
                    let packet_count = cell.index.unwrap().index;
                    let byte_count = 64 * packet_count;
                    cell.data = Some(p4::CounterData { byte_count, packet_count });
                    let entity = Some(p4::entity::Entity::CounterEntry(cell));
                    entities.push(p4::Entity { entity });
                }
                other => panic!("{other:?}"),
            }
        }
        let (sender, answers) = mpsc::channel(1);
        sender.send(Ok(p4::ReadResponse { entities })).await.unwrap();
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn set_forwarding_pipeline_config(
        &self,
        _: Request<p4::SetForwardingPipelineConfigRequest>,
    ) -> Result<Response<p4::SetForwardingPipelineConfigResponse>, Status> {
        Err(Status::unimplemented("the pipeline is fixed"))
    }

    async fn get_forwarding_pipeline_config(
        &self,
        _: Request<p4::GetForwardingPipelineConfigRequest>,
    ) -> Result<Response<p4::GetForwardingPipelineConfigResponse>, Status> {
        let cookie = p4::forwarding_pipeline_config::Cookie { cookie: p4info::cookie() };
        let config = p4::ForwardingPipelineConfig { cookie: Some(cookie), ..Default::default() };
        Ok(Response::new(p4::GetForwardingPipelineConfigResponse { config: Some(config) }))
    }

    async fn stream_channel(
        &self,
        request: Request<Streaming<p4::StreamMessageRequest>>,
    ) -> Result<Response<Self::StreamChannelStream>, Status> {
        let mut messages = request.into_inner();
        let (sender, answers) = mpsc::channel(4);
        let state = Arc::clone(&self.state);
        tokio::spawn(async move {
            while let Ok(Some(message)) = messages.message().await {
                let Some(p4::stream_message_request::Update::Arbitration(asked)) = message.update
                else {
                    continue;
                };
                let id = u128::from(asked.election_id.unwrap());
                state.lock().unwrap().election_ids.push(id);
                let answer = p4::StreamMessageResponse {
                    update: Some(p4::stream_message_response::Update::Arbitration(
                        p4::MasterArbitrationUpdate { status: Some(Default::default()), ..asked },
                    )),
                };
                if sender.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn capabilities(
        &self,
        _: Request<p4::CapabilitiesRequest>,
    ) -> Result<Response<p4::CapabilitiesResponse>, Status> {
        Ok(Response::new(p4::CapabilitiesResponse::default()))
    }
}

/// A session with the controller; dropping it ends it.
pub(crate) struct Session {
    pub to_controller: mpsc::Sender<FromSwitch>,
    pub from_controller: Streaming<ToSwitch>,
}

/// Dials the controller at `address` and sends `first`.
pub(crate) async fn dial(
    address: SocketAddr,
    tls: ClientTlsConfig,
    first: from_switch::Message,
) -> Result<Session, String> {
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
    let channel = endpoint.tls_config(tls).unwrap().connect().await;
    let channel = channel.map_err(|error| format!("{error:?}"))?;
    let (to_controller, messages) = mpsc::channel(16);
    to_controller.send(FromSwitch { message: Some(first) }).await.unwrap();
    let answer = ControllerClient::new(channel).session(ReceiverStream::new(messages)).await;
    let from_controller = answer.map_err(|status| format!("{status:?}"))?.into_inner();
    Ok(Session { to_controller, from_controller })
}

/// Ports `p1` and `p2`, both up; `p1` leads to `peer`'s `p1`.
pub(crate) fn register(p4runtime: SocketAddr, number: u8, peer: &str) -> from_switch::Message {
    let port = |id: u8| Port {
        id: id.into(),
        name: format!("p{id}"),
        mac: vec![2, 0, 0, 0, number, id],
        up: true,
    };
    let neighbor = Neighbor {
        port: 1,
        chassis: peer.to_owned(),
        port_name: "p1".to_owned(),
        authenticated: true,
    };
    from_switch::Message::Register(Register {
        p4runtime_address: p4runtime.to_string(),
        device_id: 1,
        version: "test".to_owned(),
        ports: vec![port(1), port(2)],
        compute: (number == 1).then_some(Compute { cpu: 1, memory_bytes: 1 << 30 }),
        neighbors: vec![neighbor],
        ..Register::default()
    })
}

pub(crate) fn message(message: Option<from_switch::Message>) -> FromSwitch {
    FromSwitch { message }
}
