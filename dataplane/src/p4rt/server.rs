//! The gRPC service around [`Core`]: streams, TLS, and who may connect at all.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::Stream;
use selvedge_pipeline::PortId;
use selvedge_southbound::p4::v1::p4_runtime_server::{P4Runtime, P4RuntimeServer};
use selvedge_southbound::p4::v1::{self as p4v1};
use selvedge_southbound::tls::{self, Credentials};
use selvedge_southbound::{accept, limits};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use super::arbitration::ClientId;
use super::core::{Core, OUTBOX};
use crate::backend::Tables;

/// Name of the certificate that may program a managed switch.
pub const CONTROLLER: &str = "controller";

/// P4Runtime version that we implement (Capabilities).
pub const API_VERSION: &str = "1.4.1";

/// A frame and the port that it came in on.
pub type FrameIn = (PortId, Vec<u8>);
/// Frames that wait for being handed to clients; one more is dropped.
pub const FRAMES_IN: usize = 64;

/// Streams of one HTTP/2 connection; a controller needs a handful.
const STREAMS_MAX: u32 = 64;

/// The service, for one switch. Clones share it.
pub struct Service<T> {
    core: Arc<Mutex<Core<T>>>,
    /// Raised after every write.
    written: watch::Sender<u64>,
}

impl<T> Clone for Service<T> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core), written: self.written.clone() }
    }
}

impl<T: Tables> Service<T> {
    pub fn new(core: Core<T>) -> Self {
        Self { core: Arc::new(Mutex::new(core)), written: watch::Sender::new(0) }
    }

    /// Changes whenever entries may have.
    pub fn written(&self) -> watch::Receiver<u64> {
        self.written.subscribe()
    }

    /// Hands what comes in on ports to clients, until nobody sends any more.
    pub async fn packets_in(self, mut frames: mpsc::Receiver<FrameIn>) {
        while let Some((port, frame)) = frames.recv().await {
            self.core().packet_in(port, &frame);
        }
    }

    fn core(&self) -> MutexGuard<'_, Core<T>> {
        // A panic in one call left the tables whole: every update is.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_write(&self) {
        self.written.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Serves until the listener fails. With `credentials` nobody gets in but who shows the
    /// certificate named [`CONTROLLER`]; without, everybody.
    ///
    /// # Errors
    /// When the certificates are no good, or the listener fails.
    pub async fn serve(
        self,
        listener: TcpListener,
        credentials: Option<Credentials>,
    ) -> Result<(), tonic::transport::Error> {
        let mut server = Server::builder()
            .http2_keepalive_interval(Some(limits::KEEP_ALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(limits::KEEP_ALIVE_TIMEOUT))
            .max_concurrent_streams(Some(STREAMS_MAX));
        let guarded = Guarded { service: self, credentials: credentials.clone() };
        let service =
            P4RuntimeServer::new(guarded).max_decoding_message_size(limits::MAX_MESSAGE_BYTES);
        let server = server.add_service(service);
        match credentials {
            Some(credentials) => {
                let (_never, stop) = watch::channel(false);
                let incoming = accept::accept(listener, credentials, stop);
                server.serve_with_incoming(ReceiverStream::new(incoming)).await
            }
            None => {
                let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                server.serve_with_incoming(incoming).await
            }
        }
    }
}

/// Binds here, so that the error is about the address and nothing else.
pub async fn listen(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// The service behind the check of who calls.
struct Guarded<T> {
    service: Service<T>,
    /// `None`: everybody may.
    credentials: Option<Credentials>,
}

impl<T: Tables> Guarded<T> {
    fn admit<R>(&self, request: Request<R>) -> Result<R, Status> {
        if let Some(credentials) = &self.credentials {
            self.check(credentials, &request).inspect_err(|status| {
                let peer = request.remote_addr().map(|peer| peer.to_string());
                tracing::warn!(peer, reason = status.message(), "P4Runtime call refused");
            })?;
        }
        Ok(request.into_inner())
    }

    /// With each call: the certificate may have been revoked since its connection was made.
    fn check<R>(&self, credentials: &Credentials, request: &Request<R>) -> Result<(), Status> {
        let name = tls::peer_name(request)?;
        if name != CONTROLLER {
            return Err(Status::permission_denied(format!(
                "this switch obeys {CONTROLLER:?}; your certificate is {name:?}'s"
            )));
        }
        let certificates = request.peer_certs().unwrap_or_default();
        credentials.still_good(&certificates).map_err(|error| {
            Status::unauthenticated(format!("your certificate is good no more: {error}"))
        })
    }
}

type ResponseStream<R> = Pin<Box<dyn Stream<Item = Result<R, Status>> + Send>>;

#[tonic::async_trait]
impl<T: Tables> P4Runtime for Guarded<T> {
    async fn write(
        &self,
        request: Request<p4v1::WriteRequest>,
    ) -> Result<Response<p4v1::WriteResponse>, Status> {
        let request = self.admit(request)?;
        let result = self.service.core().write(&request);
        // Also after a failure: some updates may have been done.
        self.service.note_write();
        result.map(|()| Response::new(p4v1::WriteResponse::default()))
    }

    type ReadStream = ResponseStream<p4v1::ReadResponse>;

    async fn read(
        &self,
        request: Request<p4v1::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let request = self.admit(request)?;
        let (entities, end) = self.service.core().read(&request)?;
        let mut messages: Vec<Result<p4v1::ReadResponse, Status>> = Vec::new();
        let mut entities = entities.into_iter().peekable();
        while entities.peek().is_some() {
            let entities = entities.by_ref().take(limits::MAX_ENTITIES_PER_RESPONSE).collect();
            messages.push(Ok(p4v1::ReadResponse { entities }));
        }
        messages.extend(end.err().map(Err));
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    async fn set_forwarding_pipeline_config(
        &self,
        request: Request<p4v1::SetForwardingPipelineConfigRequest>,
    ) -> Result<Response<p4v1::SetForwardingPipelineConfigResponse>, Status> {
        let request = self.admit(request)?;
        self.service.core().set_pipeline(&request)?;
        self.service.note_write();
        Ok(Response::new(p4v1::SetForwardingPipelineConfigResponse::default()))
    }

    async fn get_forwarding_pipeline_config(
        &self,
        request: Request<p4v1::GetForwardingPipelineConfigRequest>,
    ) -> Result<Response<p4v1::GetForwardingPipelineConfigResponse>, Status> {
        let request = self.admit(request)?;
        let config = Some(self.service.core().pipeline(&request)?);
        Ok(Response::new(p4v1::GetForwardingPipelineConfigResponse { config }))
    }

    type StreamChannelStream = ResponseStream<p4v1::StreamMessageResponse>;

    async fn stream_channel(
        &self,
        request: Request<Streaming<p4v1::StreamMessageRequest>>,
    ) -> Result<Response<Self::StreamChannelStream>, Status> {
        let requests = self.admit(request)?;
        let (outbox, responses) = mpsc::channel(OUTBOX);
        let client = self.service.core().connect(outbox);
        let (open, closed) = oneshot::channel();
        tokio::spawn(hear(Leave { service: self.service.clone(), client }, requests, closed));
        Ok(Response::new(Box::pin(Answers { responses: ReceiverStream::new(responses), open })))
    }

    async fn capabilities(
        &self,
        request: Request<p4v1::CapabilitiesRequest>,
    ) -> Result<Response<p4v1::CapabilitiesResponse>, Status> {
        self.admit(request)?;
        Ok(Response::new(p4v1::CapabilitiesResponse {
            p4runtime_api_version: API_VERSION.to_owned(),
            ..Default::default()
        }))
    }
}

/// Takes a client out of the arbitration when its stream ends, however it ends.
struct Leave<T: Tables> {
    service: Service<T>,
    client: ClientId,
}

impl<T: Tables> Drop for Leave<T> {
    fn drop(&mut self) {
        self.service.core().disconnect(self.client);
    }
}

/// What a client is told, until the core drops its end. Dropped in turn when the stream is
/// over, it lets [`hear`] know.
struct Answers {
    responses: ReceiverStream<Result<p4v1::StreamMessageResponse, Status>>,
    #[expect(dead_code, reason = "its drop is the message")]
    open: oneshot::Sender<()>,
}

impl Stream for Answers {
    type Item = Result<p4v1::StreamMessageResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.responses).poll_next(cx)
    }
}

/// Hears a client until it stops talking, breaks the rules, or nobody reads our answers.
async fn hear<T: Tables>(
    leave: Leave<T>,
    mut requests: Streaming<p4v1::StreamMessageRequest>,
    mut closed: oneshot::Receiver<()>,
) {
    loop {
        let message = tokio::select! {
            message = requests.message() => message,
            _ = &mut closed => return,
        };
        let Ok(Some(message)) = message else { return };
        let mut core = leave.service.core();
        if let Err(reason) = core.hear(leave.client, message) {
            core.end(leave.client, reason);
            return;
        }
    }
}
