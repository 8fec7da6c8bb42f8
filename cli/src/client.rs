//! Reaching the controller's API, on its Unix socket or over HTTP.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use selvedge_controller::api::LEADER;
use selvedge_lab::Lab;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{TcpStream, UnixStream};

/// Where labs keep their run files: one directory each, with `api.sock` in it.
const LABS: &str = "/run/selvedge";
const SOCKET: &str = "api.sock";
/// Further controllers of a lab have `api-2.sock` and so on.
const MORE_SOCKETS: &str = "api-";
/// One call, longer than the controller takes to give it up.
const TIMEOUT: Duration = Duration::from_secs(75);
/// How long to wait for a controller that leads: an election takes 4 seconds at most.
const ELECTION: Duration = Duration::from_secs(6);
/// Between two questions while none leads.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// Largest answer we read.
const MAX_ANSWER_BYTES: usize = 256 << 20;

const HOW_TO_START: &str = "start one with `selvedge lab up FILE` or `selvedge controller`, or \
                            name one with --controller or SELVEDGE_CONTROLLER";

/// Which controller to talk to.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ControllerArg {
    /// The controller; of several that share a store, any or all: what concerns the one that
    /// leads is asked there. If absent, those of the only running lab.
    #[arg(
        long,
        env = "SELVEDGE_CONTROLLER",
        value_name = "unix:PATH|http://HOST:PORT,...",
        value_delimiter = ','
    )]
    controller: Vec<String>,
}

/// A controller's API.
pub(crate) struct Client {
    runtime: tokio::runtime::Runtime,
    /// Tried in this order, until one answers.
    addresses: Vec<Address>,
    /// Where one of them has sent us, tried before them: what follows a change is asked of whoever
    /// has made it.
    leader: RefCell<Option<Address>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Address {
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "http://{address}"),
        }
    }
}

impl Client {
    pub(crate) fn find(arg: &ControllerArg) -> anyhow::Result<Self> {
        match &arg.controller[..] {
            [] => Self::at(only_lab(Path::new(LABS))?),
            several => Self::at(several.iter().map(|text| parse(text)).collect::<Result<_, _>>()?),
        }
    }

    /// The controllers of a lab.
    pub(crate) fn of(lab: &Lab) -> anyhow::Result<Self> {
        let controllers = lab.controllers()?.into_iter();
        Self::at(controllers.map(|(_, socket)| Address::Unix(socket)).collect())
    }

    fn at(addresses: Vec<Address>) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, addresses, leader: RefCell::default() })
    }

    /// Asks this one first from now on: the leader, as another has named it.
    pub(crate) fn prefer(&self, leader: &str) -> anyhow::Result<()> {
        self.leader.replace(Some(parse(leader)?));
        Ok(())
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<Answer<T>> {
        self.call(Method::GET, path, Bytes::new())
    }

    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<Answer<T>> {
        self.call(Method::POST, path, serde_json::to_vec(body)?.into())
    }

    /// The body as it is.
    pub(crate) fn get_text(&self, path: &str) -> anyhow::Result<String> {
        self.text(Method::GET, path, Bytes::new())
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<Answer<T>> {
        let text = self.text(method, path, body)?;
        let value = serde_json::from_str(&text).with_context(|| {
            format!("{self}: the answer to {path} is none that this version knows")
        })?;
        Ok(Answer { value, text })
    }

    fn text(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<String> {
        // The timer needs the runtime's context, so it is made inside.
        let answered = self
            .runtime
            .block_on(async { tokio::time::timeout(TIMEOUT, self.ask(method, path, body)).await });
        let (status, bytes) =
            answered.map_err(|_| anyhow::anyhow!("{self}: no answer within {TIMEOUT:?}"))??;
        if !status.is_success() {
            bail!(problem(status, &bytes));
        }
        String::from_utf8(bytes.into()).context("the answer is not text")
    }

    /// Asks the one that leads. While none does, which an election ends, asks
    /// again.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let deadline = tokio::time::Instant::now() + ELECTION;
        loop {
            let asked = self.ask_leader(&method, path, &body).await?;
            let again = tokio::time::Instant::now() + ASK_AGAIN < deadline;
            match asked {
                Asked::NotNow(_) if again => tokio::time::sleep(ASK_AGAIN).await,
                Asked::NotNow(answer) => return answer,
                Asked::Answered(status, body) => return Ok((status, body)),
            }
        }
    }

    /// Asks the first controller that answers, and then the one that leads, if it says that this
    /// is for that one.
    async fn ask_leader(&self, method: &Method, path: &str, body: &Bytes) -> anyhow::Result<Asked> {
        let mut dead = None;
        let leader = self.leader.borrow().clone();
        for address in leader.iter().chain(&self.addresses) {
            let stream = match address.connect().await {
                Ok(stream) => stream,
                Err(error) => {
                    dead.get_or_insert(error);
                    continue;
                }
            };
            let answer = stream.send(method, path, body).await;
            let answer =
                answer.with_context(|| format!("talking to the controller at {address}"))?;
            let leader = answer.leader.as_deref().map(parse).transpose()?;
            let Some(leader) = leader.filter(|leader| leader != address) else {
                return Ok(answer.into());
            };
            let what = || format!("talking to the controller that leads, at {leader}");
            // It may have died since; what has not been sent may be asked again.
            let stream = match leader.connect().await.with_context(what) {
                Ok(stream) => stream,
                Err(error) => return Ok(Asked::NotNow(Err(error))),
            };
            let answer = stream.send(method, path, body).await.with_context(what)?;
            self.leader.replace(Some(leader));
            return Ok(answer.into());
        }
        Err(dead.unwrap_or_else(|| anyhow::anyhow!("no controller; {HOW_TO_START}")))
    }
}

/// What became of a question.
enum Asked {
    Answered(StatusCode, Bytes),
    /// Nobody leads, or too many ask: what was said to that, or what went wrong. Nothing has been
    /// done.
    NotNow(anyhow::Result<(StatusCode, Bytes)>),
}

impl From<Raw> for Asked {
    fn from(raw: Raw) -> Self {
        match raw.not_now {
            true => Self::NotNow(Ok((raw.status, raw.body))),
            false => Self::Answered(raw.status, raw.body),
        }
    }
}

impl std::fmt::Display for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let addresses: Vec<_> = self.addresses.iter().map(Address::to_string).collect();
        f.write_str(&addresses.join(","))
    }
}

impl Address {
    async fn connect(&self) -> anyhow::Result<Connection<'_>> {
        let dead = || format!("no controller answers at {self}; {HOW_TO_START}");
        Ok(match self {
            Self::Unix(socket) => {
                Connection::Unix(UnixStream::connect(socket).await.with_context(dead)?)
            }
            Self::Tcp(host) => {
                Connection::Tcp(TcpStream::connect(host).await.with_context(dead)?, host)
            }
        })
    }
}

enum Connection<'a> {
    Unix(UnixStream),
    /// And the host that it leads to.
    Tcp(TcpStream, &'a str),
}

/// As it came over a connection.
struct Raw {
    status: StatusCode,
    body: Bytes,
    /// Who is to be asked instead.
    leader: Option<String>,
    /// It has done nothing and is to be asked again, as it knows of nobody else.
    not_now: bool,
}

impl Connection<'_> {
    async fn send(self, method: &Method, path: &str, body: &Bytes) -> anyhow::Result<Raw> {
        let (method, body) = (method.clone(), body.clone());
        match self {
            Self::Unix(stream) => send(TokioIo::new(stream), "localhost", method, path, body).await,
            Self::Tcp(stream, host) => send(TokioIo::new(stream), host, method, path, body).await,
        }
    }
}

/// An answer, and its text as it came.
pub(crate) struct Answer<T> {
    pub(crate) value: T,
    pub(crate) text: String,
}

impl<T> Answer<T> {
    /// The text, indented.
    pub(crate) fn pretty(&self) -> anyhow::Result<String> {
        let value: serde_json::Value = serde_json::from_str(&self.text)?;
        Ok(serde_json::to_string_pretty(&value)?)
    }
}

async fn send<S>(
    stream: TokioIo<S>,
    host: &str,
    method: Method,
    path: &str,
    body: Bytes,
) -> anyhow::Result<Raw>
where
    TokioIo<S>: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(hyper::header::HOST, host)
        .header(hyper::header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let leader = answer.headers().get(LEADER).and_then(|leader| leader.to_str().ok());
    let leader = leader.map(str::to_owned);
    let not_now = status == StatusCode::SERVICE_UNAVAILABLE
        && leader.is_none()
        && answer.headers().contains_key(hyper::header::RETRY_AFTER);
    let body = http_body_util::Limited::new(answer.into_body(), MAX_ANSWER_BYTES);
    let body = body.collect().await.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
    Ok(Raw { status, body, leader, not_now })
}

/// What an error's ProblemDetails say.
fn problem(status: StatusCode, body: &[u8]) -> String {
    let details: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let detail = details.as_ref().and_then(|details| details.get("detail")?.as_str());
    match detail {
        Some(detail) => detail.to_owned(),
        None => format!("the controller answered {status}"),
    }
}

fn parse(text: &str) -> anyhow::Result<Address> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(Address::Unix(path.trim_start_matches("//").into()));
    }
    match text.strip_prefix("http://") {
        Some(rest) => {
            let address = rest.trim_end_matches('/');
            if address.is_empty() || address.contains('/') {
                bail!("{text:?} is not a controller: http://HOST:PORT");
            }
            let port =
                address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            Ok(Address::Tcp(if port { address.to_owned() } else { format!("{address}:80") }))
        }
        None => bail!("{text:?} is not a controller: unix:PATH or http://HOST:PORT"),
    }
}

/// The sockets that answer, of the only lab with a controller that does.
fn only_lab(labs: &Path) -> anyhow::Result<Vec<Address>> {
    let mut tried = Vec::new();
    let mut running = Vec::new();
    let entries = std::fs::read_dir(labs).into_iter().flatten().flatten();
    for lab in entries {
        let mut answering = Vec::new();
        for socket in sockets(&lab.path()) {
            match std::os::unix::net::UnixStream::connect(&socket) {
                Ok(_) => answering.push(Address::Unix(socket)),
                Err(error) => tried.push(format!("unix:{} ({error})", socket.display())),
            }
        }
        if !answering.is_empty() {
            running.push(answering);
        }
    }
    running.sort();
    match (running.len(), tried.is_empty()) {
        (1, _) => Ok(running.remove(0)),
        (0, true) => {
            bail!("no controller: there is no {}/*/{SOCKET}; {HOW_TO_START}", labs.display())
        }
        (0, false) => bail!("no controller answers: tried {}; {HOW_TO_START}", tried.join(", ")),
        _ => {
            let list: Vec<_> = running.iter().flatten().map(Address::to_string).collect();
            bail!("several controllers run; choose one with --controller: {}", list.join(", "))
        }
    }
}

/// Of the controllers of a lab, sorted.
fn sockets(lab: &Path) -> Vec<PathBuf> {
    let is_socket =
        |name: &str| name == SOCKET || (name.starts_with(MORE_SOCKETS) && name.ends_with(".sock"));
    let files = std::fs::read_dir(lab).into_iter().flatten().flatten();
    let named = files.filter(|file| file.file_name().to_str().is_some_and(is_socket));
    let mut sockets: Vec<_> = named.map(|file| file.path()).collect();
    sockets.sort();
    sockets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let tcp = |address: &str| Some(Address::Tcp(address.to_owned()));
        let cases = [
            ("unix:/run/x/api.sock", Some(Address::Unix("/run/x/api.sock".into()))),
            ("http://192.0.2.1:8080", tcp("192.0.2.1:8080")),
            ("http://192.0.2.1:8080/", tcp("192.0.2.1:8080")),
            ("http://[2001:db8::1]:80", tcp("[2001:db8::1]:80")),
            ("http://edge.example", tcp("edge.example:80")),
            ("https://192.0.2.1", None),
            ("http://", None),
            ("/run/x/api.sock", None),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text).ok(), want, "{text:?}");
        }
    }

    #[test]
    fn the_only_lab_is_found_and_failures_name_what_was_tried() {
        let dir = std::env::temp_dir().join(format!("selvedge-client-{}", std::process::id()));
        let text = only_lab(&dir).unwrap_err().to_string();
        assert!(text.contains("there is no") && text.contains("selvedge lab up"), "{text}");
        let listen = |lab: &str| {
            std::fs::create_dir_all(dir.join(lab)).unwrap();
            std::os::unix::net::UnixListener::bind(dir.join(lab).join(SOCKET)).unwrap()
        };
        drop(listen("dead")); // the file stays, nobody listens
        let text = only_lab(&dir).unwrap_err().to_string();
        assert!(text.contains("dead/api.sock"), "{text}");
        let _a = listen("a");
        assert_eq!(only_lab(&dir).unwrap(), [Address::Unix(dir.join("a").join(SOCKET))]);
        let second = dir.join("a/api-2.sock");
        let _second = std::os::unix::net::UnixListener::bind(&second).unwrap();
        let sockets = [second, dir.join("a").join(SOCKET)].map(Address::Unix);
        assert_eq!(only_lab(&dir).unwrap(), sockets);
        let _b = listen("b");
        let text = only_lab(&dir).unwrap_err().to_string();
        assert!(text.contains("a/api.sock") && text.contains("b/api.sock"), "{text}");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    /// Two answers that nobody leads, as a controller gives them, and then one that is taken.
    #[test]
    fn an_election_is_waited_for() {
        use std::io::{Read as _, Write as _};
        let path = std::env::temp_dir().join(format!("selvedge-election-{}", std::process::id()));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let answers = [
            "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ntrue",
        ];
        let serving = std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let read = stream.read(&mut [0; 1024]).unwrap();
                assert!(read > 0);
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let client = Client::at(vec![Address::Unix(path.clone())]).unwrap();
        assert!(client.get::<bool>("/v1/anything").unwrap().value);
        serving.join().unwrap();
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn problems_are_told_by_their_detail() {
        let body = br#"{"type":"about:blank","status":409,"detail":"slice \"x\" does not fit"}"#;
        assert_eq!(problem(StatusCode::CONFLICT, body), "slice \"x\" does not fit");
        assert!(problem(StatusCode::BAD_GATEWAY, b"<html>").contains("502"));
    }
}
