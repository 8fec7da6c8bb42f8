//! Accepting whoever has a certificate of our authority: TCP, then TLS 1.3.
//!
//! A refused handshake is logged with the peer's address and the reason; one that goes on for
//! ever costs a task for [`HANDSHAKE_TIMEOUT`] and no more.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::tls::Credentials;

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

/// Accepts until `stop` is set or the receiver is dropped. Must be called inside a runtime.
pub fn accept(
    listener: TcpListener,
    credentials: Credentials,
    stop: watch::Receiver<bool>,
) -> mpsc::Receiver<std::io::Result<TlsStream<TcpStream>>> {
    let (accepted, connections) = mpsc::channel(ACCEPTED);
    let (refused, refusals) = mpsc::channel(HANDSHAKES);
    tokio::spawn(log_refusals(refusals));
    tokio::spawn(accept_loop(listener, credentials, accepted, refused, stop));
    connections
}

async fn accept_loop(
    listener: TcpListener,
    credentials: Credentials,
    accepted: mpsc::Sender<std::io::Result<TlsStream<TcpStream>>>,
    refused: mpsc::Sender<(SocketAddr, String)>,
    mut stop: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("it is never closed");
        let next = tokio::select! {
            // An error is a sender that is gone, which is a stop as well.
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
        let tls = TlsAcceptor::from(credentials.server());
        let (accepted, refused) = (accepted.clone(), refused.clone());
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
