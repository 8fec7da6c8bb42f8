//! Calls to an etcd cluster: the member that answered last first, the others after it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::EtcdTls;

/// etcd's messages.
pub(super) mod proto {
    #![allow(
        unreachable_pub,
        clippy::all,
        clippy::pedantic,
        clippy::allow_attributes_without_reason,
        reason = "generated"
    )]
    include!(concat!(env!("OUT_DIR"), "/etcd.rs"));
}

use proto::etcdserverpb as pb;

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Reads and leases.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_millis(800);
/// A transaction can carry a module.
pub(super) const COMMIT_TIMEOUT: Duration = Duration::from_secs(2);
/// All objects and modules, listed.
const LIST_BYTES: usize = 1 << 30;
/// HTTP/2 ping while nothing is said, and how long its answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

pub(super) struct Members {
    channels: Vec<Channel>,
    current: AtomicUsize,
}

impl Members {
    /// Dials nobody yet. Inside a tokio runtime.
    pub(super) fn new(
        addresses: &[String],
        tls: Option<&EtcdTls>,
    ) -> Result<Self, tonic::transport::Error> {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let channel = |address: &String| {
            let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))?;
            if let Some(tls) = tls {
                endpoint = endpoint.tls_config(tls.config())?;
            }
            let endpoint = endpoint
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE);
            Ok(endpoint.connect_lazy())
        };
        let channels = addresses.iter().map(channel).collect::<Result<_, _>>()?;
        Ok(Self { channels, current: AtomicUsize::new(0) })
    }

    /// Asks each member once, until one answers. A member's refusal is an answer.
    pub(super) async fn call<T>(
        &self,
        limit: Duration,
        call: impl Fn(Channel) -> BoxFuture<'static, Result<T, Status>> + Send + Sync,
    ) -> Result<T, Status> {
        let mut last = Status::unavailable("no member");
        for _ in 0..self.channels.len() {
            let index = self.current.load(Ordering::Relaxed) % self.channels.len();
            let answered = tokio::time::timeout(limit, call(self.channels[index].clone())).await;
            match answered {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) if !is_silence(&status) => return Err(status),
                Ok(Err(status)) => last = status,
                Err(_) => last = Status::deadline_exceeded(format!("no answer within {limit:?}")),
            }
            // Another call may have moved on already.
            let next = index + 1;
            let order = Ordering::Relaxed;
            let _ = self.current.compare_exchange(index, next % self.channels.len(), order, order);
        }
        Err(last)
    }

    pub(super) async fn range(
        &self,
        request: pb::RangeRequest,
    ) -> Result<pb::RangeResponse, Status> {
        self.call(CALL_TIMEOUT, |channel| {
            let request = request.clone();
            Box::pin(async move {
                let mut client =
                    pb::kv_client::KvClient::new(channel).max_decoding_message_size(LIST_BYTES);
                client.range(request).await.map(tonic::Response::into_inner)
            })
        })
        .await
    }

    pub(super) async fn txn(
        &self,
        limit: Duration,
        request: &pb::TxnRequest,
    ) -> Result<pb::TxnResponse, Status> {
        self.call(limit, |channel| {
            let request = request.clone();
            Box::pin(async move {
                let mut client =
                    pb::kv_client::KvClient::new(channel).max_decoding_message_size(LIST_BYTES);
                client.txn(request).await.map(tonic::Response::into_inner)
            })
        })
        .await
    }

    /// A lease of `ttl_s` seconds; its id.
    pub(super) async fn grant(&self, ttl_s: i64) -> Result<i64, Status> {
        self.call(CALL_TIMEOUT, |channel| {
            Box::pin(async move {
                let request = pb::LeaseGrantRequest { ttl: ttl_s, id: 0 };
                let granted =
                    pb::lease_client::LeaseClient::new(channel).lease_grant(request).await?;
                Ok(granted.into_inner().id)
            })
        })
        .await
    }

    /// Whether the lease was there to be renewed.
    pub(super) async fn renew(&self, lease: i64) -> Result<bool, Status> {
        self.call(CALL_TIMEOUT, |channel| {
            Box::pin(async move {
                let request = tokio_stream::once(pb::LeaseKeepAliveRequest { id: lease });
                let mut client = pb::lease_client::LeaseClient::new(channel);
                let mut answers = client.lease_keep_alive(request).await?.into_inner();
                let answer = answers.message().await?;
                answer.map(|answer| answer.ttl > 0).ok_or_else(|| Status::unavailable("no answer"))
            })
        })
        .await
    }

    pub(super) async fn revoke(&self, lease: i64) -> Result<(), Status> {
        self.call(CALL_TIMEOUT, |channel| {
            Box::pin(async move {
                let request = pb::LeaseRevokeRequest { id: lease };
                pb::lease_client::LeaseClient::new(channel).lease_revoke(request).await.map(drop)
            })
        })
        .await
    }

    /// Changes of keys in a range; the sender has to be kept.
    pub(super) async fn watch(
        &self,
        create: pb::WatchCreateRequest,
    ) -> Result<
        (tonic::Streaming<pb::WatchResponse>, tokio::sync::mpsc::Sender<pb::WatchRequest>),
        Status,
    > {
        self.call(CALL_TIMEOUT, |channel| {
            let create = create.clone();
            Box::pin(async move {
                let (sender, requests) = tokio::sync::mpsc::channel(1);
                let request = pb::watch_request::RequestUnion::CreateRequest(create);
                let request = pb::WatchRequest { request_union: Some(request) };
                sender.try_send(request).expect("a new channel is empty");
                let mut client = pb::watch_client::WatchClient::new(channel)
                    .max_decoding_message_size(LIST_BYTES);
                let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
                let mut requests = tonic::Request::new(requests);
                // A member that is cut off from the majority ends the stream instead of saying
                // nothing for as long as it is (etcd's `WithRequireLeader`).
                requests.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
                let answers = client.watch(requests).await?.into_inner();
                Ok((answers, sender))
            })
        })
        .await
    }
}

/// Whether another member may do better: this one did not answer, or could not ask the others.
fn is_silence(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown
    )
}
