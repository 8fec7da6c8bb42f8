//! What only the controller that leads can answer: changes, and what switches say at this moment.

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::{Api, Problem};
use crate::engine::Role;
use crate::store::{StoreError, leads};

/// Where the leader's API is, as it advertises itself: `http://HOST:PORT` or `unix:PATH`.
pub const LEADER: HeaderName = HeaderName::from_static("selvedge-leader");

/// Sends such requests on to the leader where this controller only follows: 307 to the same path
/// where the leader has an HTTP address (RFC 9110 §15.4.8), else 503. Both name it in
/// [`LEADER`]. What the store knows is read here.
pub(super) async fn leader_only(State(api): State<Api>, request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let path = request.uri().path();
    let live = path.ends_with("/counters") || path.ends_with("/entries");
    let follows = matches!(*api.handle.role().borrow(), Role::Follower { .. });
    if !follows || (reads && !live) {
        return next.run(request).await;
    }
    let leader = api.store.leader();
    let why = StoreError::NotLeader { leader: leader.clone() }.to_string();
    let there = leader.as_ref().filter(|leader| leader.starts_with("http://"));
    let location = there.and_then(|leader| {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        HeaderValue::from_str(&format!("{}{path}", leader.trim_end_matches('/'))).ok()
    });
    let status = match location {
        Some(_) => StatusCode::TEMPORARY_REDIRECT,
        None => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = Problem::new(status, why).into_response();
    let headers = response.headers_mut();
    match location {
        Some(location) => headers.insert(header::LOCATION, location),
        None => headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1")),
    };
    if let Some(leader) = leader.and_then(|leader| HeaderValue::from_str(&leader).ok()) {
        headers.insert(LEADER, leader);
    }
    response
}

/// What a follower's status waits for: it has no sessions with switches.
pub(super) fn follows(leader: Option<&str>) -> String {
    format!("this controller follows, and has no switches; {}", leads(leader))
}
