//! Both ends refuse whom they should, and say why; files are replaced under open connections.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use selvedge_southbound::accept;
use selvedge_southbound::client::{Channel, ClientError, P4Client, Target};
use selvedge_southbound::tls::Credentials;
use time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio_stream::wrappers::ReceiverStream;

use crate::pki::Authority;
use crate::server;

const DAY: Duration = Duration::DAY;
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// What is logged by this thread, and by the tasks on it.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn start(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || log.clone()).finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    async fn until(&self, wanted: &str) {
        let since = Instant::now();
        while !self.text().contains(wanted) {
            assert!(since.elapsed() < PATIENCE, "{wanted:?} in\n{}", self.text());
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

/// A P4Runtime server behind our own end of TLS, until the runtime ends.
async fn serve(credentials: Credentials) -> (SocketAddr, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let incoming = accept::accept(listener, credentials, stopped);
    server::serve(tonic::transport::Server::builder(), ReceiverStream::new(incoming), true);
    (address, stop)
}

async fn dial(
    credentials: &Credentials,
    address: SocketAddr,
    peer: &str,
) -> Result<(P4Client, Channel), ClientError> {
    let tls = Some((credentials.clone(), peer.to_owned()));
    let uri = format!("https://{address}");
    P4Client::connect(Target { uri, tls, ..crate::target(address, 1) }).await
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Says nothing of itself.
async fn anonymous(dir: &Path, address: SocketAddr) {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("s1").unwrap();
    // The client's part is over before the server has seen its certificate.
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    assert!(stream.read_u8().await.is_err());
}

/// Everybody's files: `s1` and `controller`, and who should be refused.
fn pki() -> (tempfile::TempDir, Authority) {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    for name in ["s1", "s2", "controller", "revoked"] {
        authority.issue(dir.path(), &[name], DAY);
    }
    authority.issue(dir.path(), &["late"], -DAY);
    authority.revoke(dir.path(), &["revoked"]);
    let elsewhere = dir.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    Authority::new().issue(&elsewhere, &["stranger"], DAY);
    // It believes in our authority, but was issued by another.
    std::fs::copy(dir.path().join("ca.pem"), elsewhere.join("ca.pem")).unwrap();
    (dir, authority)
}

fn load(dir: &Path, name: &str) -> Credentials {
    let dir = if name == "stranger" { &dir.join("elsewhere") } else { dir };
    Credentials::load(dir, name).unwrap()
}

/// (who, the reason). Whose certificate is another node's is let in by TLS, and refused by
/// what it asks for: the agent's and the controller's tests.
const REFUSED: [(&str, &str); 3] =
    [("stranger", "UnknownIssuer"), ("late", "certificate expired"), ("revoked", "Revoked")];

#[tokio::test]
async fn a_server_refuses_and_logs_why() {
    let log = Log::default();
    let _guard = log.start();
    let (dir, _authority) = pki();
    let dir = dir.path();
    let (address, _stop) = serve(load(dir, "s1")).await;
    let (client, _channel) = dial(&load(dir, "controller"), address, "s1").await.unwrap();
    assert!(client.read_entries().await.unwrap().is_empty());

    anonymous(dir, address).await;
    log.until("peer sent no certificates").await;
    for (who, reason) in REFUSED {
        assert!(dial(&load(dir, who), address, "s1").await.is_err(), "{who}");
        log.until(reason).await;
    }
    let plain = crate::target(address, 1);
    assert!(P4Client::connect(plain).await.is_err(), "in the clear");
    log.until("received corrupt message").await;
    let refusals = log.text().matches("connection refused: no acceptable certificate").count();
    assert_eq!(refusals, 5, "{}", log.text());
    assert!(client.read_entries().await.is_ok(), "who was let in stays");
}

#[tokio::test]
async fn a_client_refuses_and_says_why() {
    let (dir, _authority) = pki();
    let dir = dir.path();
    let ours = load(dir, "controller");
    for (who, reason) in REFUSED {
        let (address, _stop) = serve(load(dir, who)).await;
        let error = dial(&ours, address, who).await.unwrap_err();
        assert!(chain(&error).contains(reason), "{who}: {}", chain(&error));
    }
    let (address, _stop) = serve(load(dir, "s2")).await;
    let error = chain(&dial(&ours, address, "s1").await.unwrap_err());
    assert!(error.contains("not valid for name \"s1\""), "another node: {error}");
    let (address, _server) = server::start(None).await;
    let error = chain(&dial(&ours, address, "s1").await.unwrap_err());
    assert!(error.contains("corrupt message"), "no certificate: {error}");
}

/// What a call over a connection from before needs to go on, and a new one.
#[tokio::test]
async fn certificates_and_authorities_change_under_open_sessions() {
    let log = Log::default();
    let _guard = log.start();
    let (dir, old) = pki();
    let dir = dir.path();
    let (s1, controller) = (load(dir, "s1"), load(dir, "controller"));
    let (address, _stop) = serve(s1.clone()).await;
    let (before, _first) = dial(&controller, address, "s1").await.unwrap();
    let shown = |name: &str| {
        let path = dir.join(format!("{name}.pem"));
        vec![CertificateDer::from_pem_file(path).unwrap()]
    };
    let of_old = shown("controller");

    // New certificates of the same authority.
    old.issue(dir, &["s1"], DAY);
    old.issue(dir, &["controller"], DAY);
    let (_, _second) = dial(&controller, address, "s1").await.unwrap();
    assert!(s1.still_good(&of_old).is_ok());

    // Half of a replacement goes on with what was.
    let key = std::fs::read(dir.join("s1.key")).unwrap();
    std::fs::write(dir.join("s1.key"), "not a key").unwrap();
    let (_, _third) = dial(&controller, address, "s1").await.unwrap();
    log.until("new certificates cannot be used").await;
    std::fs::write(dir.join("s1.key"), key).unwrap();

    // Another authority: first both are believed, then all have new certificates, then the old
    // one goes.
    let new = Authority::new();
    let both = format!("{}{}", old.pem(), new.pem());
    std::fs::write(dir.join("ca.pem"), &both).unwrap();
    let (_, _fourth) = dial(&controller, address, "s1").await.unwrap();
    for name in ["s1", "controller"] {
        new.issue(dir, &[name], DAY);
        std::fs::write(dir.join("ca.pem"), &both).unwrap();
        let (_, _each) = dial(&controller, address, "s1").await.unwrap();
    }
    assert!(s1.still_good(&of_old).is_ok());
    std::fs::write(dir.join("ca.pem"), new.pem()).unwrap();
    std::fs::remove_file(dir.join("crl.pem")).unwrap();
    let (_, _fifth) = dial(&controller, address, "s1").await.unwrap();
    let gone = s1.still_good(&of_old).unwrap_err().to_string();
    assert!(gone.contains("UnknownIssuer"), "{gone}");

    // Somebody is revoked while connected.
    let own = shown("controller");
    assert!(s1.still_good(&own).is_ok());
    new.revoke(dir, &["controller"]);
    let revoked = s1.still_good(&own).unwrap_err().to_string();
    assert!(revoked.contains("Revoked"), "{revoked}");
    assert!(dial(&controller, address, "s1").await.is_err());
    log.until("Revoked").await;

    // All the while.
    assert!(before.read_entries().await.unwrap().is_empty());
}
