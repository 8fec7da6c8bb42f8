//! Asks the controller how far it is.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

/// Largest answer that is read: a thousand switches with room.
const MAX_ANSWER: u64 = 4 << 20;

/// For a controller to read or write some: of several, one may be paused.
const PATIENCE: Duration = Duration::from_secs(2);

/// As far as bringing up needs it (`Status` of the operator API).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Status {
    pub(crate) role: String,
    pub(crate) converged: bool,
    pub(crate) switches: Share,
    pub(crate) waiting_for: Vec<String>,
}

/// So many of those declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Share {
    pub(crate) ready: usize,
}

/// As far as waiting for carriers needs it (`Node` of the operator API).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) ports: Vec<Port>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) up: bool,
}

/// As far as waiting for moves needs it (`Endpoint` of the operator API).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Endpoint {
    pub(crate) name: String,
    pub(crate) switch: Option<String>,
    pub(crate) port: Option<String>,
    pub(crate) attached: bool,
}

/// `GET /v1/status` on the controller's socket.
pub(crate) fn status(socket: &Path) -> io::Result<Status> {
    Ok(serde_json::from_slice(&get(socket, "/v1/status")?)?)
}

pub(crate) fn nodes(socket: &Path) -> io::Result<Vec<Node>> {
    Ok(serde_json::from_slice(&get(socket, "/v1/nodes")?)?)
}

pub(crate) fn endpoints(socket: &Path) -> io::Result<Vec<Endpoint>> {
    Ok(serde_json::from_slice(&get(socket, "/v1/endpoints")?)?)
}

/// One HTTP/1.0 request (RFC 1945), whose answer ends with the connection.
fn get(socket: &Path, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let end = answer.windows(4).position(|at| at == b"\r\n\r\n").ok_or_else(|| bad("no header"))?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let line = head.lines().next().unwrap_or_default();
    if line.split(' ').nth(1) != Some("200") {
        return Err(bad(line));
    }
    Ok(answer.split_off(end + 4))
}
