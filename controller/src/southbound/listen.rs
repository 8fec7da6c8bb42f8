//! Accepting switches: TCP, then TLS 1.3 with a certificate of our authority required.
//!
//! A refused handshake is logged with the peer's address and the reason; one that goes on for
//! ever costs a task for [`HANDSHAKE_TIMEOUT`] and no more.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, version};
use tokio_rustls::server::TlsStream;

/// Handshakes under way at one time; further connections wait in the listener's backlog.
const HANDSHAKES: usize = 64;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that have shaken hands and wait for the gRPC server.
const ACCEPTED: usize = 16;
/// The same reason from the same address is logged once in this time.
const REPEAT_AFTER: Duration = Duration::from_secs(60);
/// Addresses remembered for that.
const REMEMBERED: usize = 1024;
/// Pause after the system refused a connection, which is when it is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Why the controller cannot offer TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read a certificate or key from {}", path.display())]
    Pem {
        path: std::path::PathBuf,
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    #[error("the certificate and key in {} cannot be used", path.display())]
    Config {
        path: std::path::PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// TLS as the controller's server end speaks it.
pub(crate) fn server_config(files: &crate::pki::NodeFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let pem = |path: &std::path::Path| {
        let path = path.to_owned();
        move |source| TlsError::Pem { path, source }
    };
    let config = |path: &std::path::Path| {
        let path = path.to_owned();
        move |source: Box<dyn std::error::Error + Send + Sync>| TlsError::Config { path, source }
    };
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(&files.ca).map_err(pem(&files.ca))? {
        let root = root.map_err(pem(&files.ca))?;
        roots.add(root).map_err(|error| config(&files.ca)(error.into()))?;
    }
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(pem(&files.certificate))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(pem(&files.key))?;
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider))
        .build()
        .map_err(|error| config(&files.ca)(error.into()))?;
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .map_err(|error| config(&files.certificate)(error.into()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| config(&files.key)(error.into()))?;
    tls.alpn_protocols.push(b"h2".to_vec());
    Ok(Arc::new(tls))
}

/// Accepts until `stop` is set or the receiver is dropped.
pub(crate) fn accept(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    stop: watch::Receiver<bool>,
) -> mpsc::Receiver<std::io::Result<TlsStream<TcpStream>>> {
    let (accepted, connections) = mpsc::channel(ACCEPTED);
    let (refused, refusals) = mpsc::channel(HANDSHAKES);
    tokio::spawn(log_refusals(refusals));
    tokio::spawn(accept_loop(listener, TlsAcceptor::from(tls), accepted, refused, stop));
    connections
}

async fn accept_loop(
    listener: TcpListener,
    tls: TlsAcceptor,
    accepted: mpsc::Sender<std::io::Result<TlsStream<TcpStream>>>,
    refused: mpsc::Sender<(SocketAddr, String)>,
    mut stop: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("it is never closed");
        let next = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = accepted.closed() => return,
            next = listener.accept() => next,
        };
        let (stream, peer) = match next {
            Ok(next) => next,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (tls, accepted, refused) = (tls.clone(), accepted.clone(), refused.clone());
        tokio::spawn(async move {
            let _slot = slot;
            // Registration and route changes are short messages that wait for nothing.
            let _ = stream.set_nodelay(true);
            let reason = match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
                Ok(Ok(stream)) => {
                    // The server has stopped.
                    let _ = accepted.send(Ok(stream)).await;
                    return;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no handshake within {} s", HANDSHAKE_TIMEOUT.as_secs()),
            };
            let _ = refused.send((peer, reason)).await;
        });
    }
}

async fn log_refusals(mut refusals: mpsc::Receiver<(SocketAddr, String)>) {
    let mut told: HashMap<IpAddr, (Instant, String)> = HashMap::new();
    while let Some((peer, reason)) = refusals.recv().await {
        let now = Instant::now();
        let again = told
            .get(&peer.ip())
            .is_some_and(|(at, before)| *before == reason && now - *at < REPEAT_AFTER);
        if again {
            tracing::debug!(%peer, reason, "connection refused again");
            continue;
        }
        tracing::warn!(%peer, reason, "connection refused: no acceptable certificate");
        if told.len() >= REMEMBERED {
            told.retain(|_, (at, _)| now - *at < REPEAT_AFTER);
        }
        if told.len() < REMEMBERED {
            told.insert(peer.ip(), (now, reason));
        }
    }
}

#[cfg(test)]
mod tests {
    use selvedge_southbound::tls::Credentials;
    use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

    use super::*;
    use crate::pki::{self, NodeFiles, Validity};

    #[tokio::test]
    async fn refusals_have_their_reason() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let nodes = |names: &[&str]| names.iter().map(|n| n.parse().unwrap()).collect::<Vec<_>>();
        pki::init(&at("pki"), &nodes(&["controller", "s1"]), pki::Options::default()).unwrap();
        pki::init(&at("other"), &nodes(&["s1"]), pki::Options::default()).unwrap();
        std::fs::create_dir(at("expired")).unwrap();
        for file in ["ca.pem", "ca.key"] {
            std::fs::copy(at("pki").join(file), at("expired").join(file)).unwrap();
        }
        let expired = pki::Options { force: false, validity: Validity::expired() };
        pki::init(&at("expired"), &nodes(&["s1"]), expired).unwrap();
        // For us to judge it, the other has to believe our controller.
        std::fs::copy(at("pki").join("ca.pem"), at("other").join("ca.pem")).unwrap();

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("https://{}", listener.local_addr().unwrap());
        let tls = server_config(&NodeFiles::of(&at("pki"), "controller")).unwrap();
        let (_stop, stopped) = watch::channel(false);
        let (accepted, mut connections) = mpsc::channel(1);
        let (refused, mut refusals) = mpsc::channel(1);
        tokio::spawn(accept_loop(listener, tls.into(), accepted, refused, stopped));

        let of = |name: &str| Credentials::load(&at(name), "s1").unwrap().client("controller");
        let ca = Certificate::from_pem(std::fs::read(at("pki").join("ca.pem")).unwrap());
        let nobody = ClientTlsConfig::new().ca_certificate(ca).domain_name("controller");
        let dial = |tls: ClientTlsConfig| {
            let endpoint = Endpoint::from_shared(uri.clone()).unwrap().tls_config(tls).unwrap();
            tokio::spawn(async move { endpoint.connect().await })
        };
        let cases = [
            (nobody, "no certificates"),
            (of("expired"), "xpired"),
            (of("other"), "invalid peer certificate"),
        ];
        for (tls, want) in cases {
            let _dialing = dial(tls);
            let (_, reason) = refusals.recv().await.unwrap();
            assert!(reason.contains(want), "want {want:?} in {reason:?}");
        }
        let _dialing = dial(of("pki"));
        assert!(connections.recv().await.unwrap().is_ok());
    }
}
