//! The way of a packet, by the model of the pipeline over the entries that switches hold.

use std::sync::PoisonError;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use selvedge_core::Core;
use selvedge_pipeline::SliceId;
use selvedge_slices::ObjectName;

use super::problem::{Body, ProblemDetails};
use super::wire_trace::{SampleRequest, SampledPacket, Trace, TraceRequest};
use super::{Api, Problem};
use crate::sampling::Busy;
use crate::trace::{self, Network, packet, sampled};

/// Follows a packet from switch to switch, with every table it meets. Nothing is sent; hooks
/// are taken to forward what they get unchanged.
#[utoipa::path(
    post, path = "/v1/trace", tag = "network", request_body = TraceRequest,
    responses(
        (status = 200, body = Trace),
        (status = 404, description = "There is no such node, port or endpoint",
         body = ProblemDetails),
        (status = 422, body = ProblemDetails)
    )
)]
pub(super) async fn trace(
    State(api): State<Api>,
    body: Result<Body<TraceRequest>, Problem>,
) -> Result<Json<Trace>, Problem> {
    let Body(request) = body?;
    let topology = api.topology.clone();
    let network = api.handle.query(move |core: &Core| Network::of(core, topology)).await?;
    let (start, frame) = packet::start(&network, &request)?;
    Ok(Json(trace::follow(&network, start, frame)))
}

/// Has switches tell of packets that are on the wire, and answers when it has enough of them. One
/// request at a time.
#[utoipa::path(
    post, path = "/v1/samples", tag = "network", request_body = SampleRequest,
    responses(
        (status = 200, body = Vec<SampledPacket>),
        (status = 404, description = "There is no such endpoint or slice", body = ProblemDetails),
        (status = 409, description = "Somebody else is asking", body = ProblemDetails),
        (status = 422, body = ProblemDetails)
    )
)]
pub(super) async fn sample(
    State(api): State<Api>,
    body: Result<Body<SampleRequest>, Problem>,
) -> Result<Json<Vec<SampledPacket>>, Problem> {
    let Body(request) = body?;
    let (network, slices) = network(&api).await?;
    let wanted = sampled::wanted(&network, &slices, &request)?;
    let most = usize::try_from(request.packets).expect("a hundred at most");
    let packets = api.sampling.collect(wanted, most).await.map_err(|Busy| {
        Problem::new(StatusCode::CONFLICT, "somebody else is having packets told of; try again")
    })?;
    // As the network is by now: entries are written meanwhile.
    let (network, slices) = self::network(&api).await?;
    let shown = packets.shown(&network, &slices, most);
    *api.sampled.lock().unwrap_or_else(PoisonError::into_inner) = shown.clone();
    Ok(Json(shown))
}

/// The packets that were told of when somebody last asked.
#[utoipa::path(
    get, path = "/v1/samples", tag = "network",
    responses((status = 200, body = Vec<SampledPacket>))
)]
pub(super) async fn samples(State(api): State<Api>) -> Json<Vec<SampledPacket>> {
    Json(api.sampled.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

async fn network(api: &Api) -> Result<(Network, sampled::Slices), Problem> {
    let topology = api.topology.clone();
    let query = move |core: &Core| {
        let slices = core.slices().into_iter().map(|slice| (slice.name, slice.id));
        let default = (ObjectName::DEFAULT_SLICE.to_owned(), SliceId::DEFAULT.0);
        (Network::of(core, topology), slices.chain([default]).collect())
    };
    Ok(api.handle.query(query).await?)
}
