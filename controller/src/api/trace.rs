//! The way of a packet, by the model of the pipeline over the entries that switches hold.

use axum::Json;
use axum::extract::State;
use selvedge_core::Core;

use super::problem::{Body, ProblemDetails};
use super::wire_trace::{Trace, TraceRequest};
use super::{Api, Problem};
use crate::trace::{self, Network, packet};

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
