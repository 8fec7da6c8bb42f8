//! Putting it together: start, serve, stop.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use selvedge_core::{Config, Core};
use selvedge_southbound::tls::Credentials;
use selvedge_topology::{Problems, Topology};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api::serve::{self, ListenError};
use crate::api::{self, Api};
use crate::clock::{self, Clock};
use crate::engine::Engine;
use crate::modules::Modules;
use crate::pki::NodeFiles;
use crate::southbound::listen::{self, TlsError};
use crate::southbound::{self, Dialer, Southbound};
use crate::store::{RedbStore, Store, StoreError, Transaction};

/// The controller's name in certificates.
const NAME: &str = "controller";
/// The last election id that this controller has used, in decimal.
const ELECTION_KEY: &str = "controller/election";
/// What requests under way may take to finish once we are told to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Where things are.
#[derive(Clone, Debug)]
pub struct Options {
    /// The network as declared; see `selvedge_topology::read`.
    pub topology: PathBuf,
    pub store: PathBuf,
    /// Directory with `ca.pem`, `controller.pem` and `controller.key`.
    pub tls: PathBuf,
    /// Where switches register.
    pub southbound: SocketAddr,
    /// The API's Unix socket.
    pub api_socket: PathBuf,
    /// The API on TCP too: in the clear and open to whoever can reach it.
    pub api: Option<SocketAddr>,
}

/// Why the controller does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// As a [`miette::Diagnostic`](https://docs.rs/miette) it shows the places.
    #[error("the topology cannot be used")]
    Topology(#[source] Problems),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the certificates in {} cannot be used", dir.display())]
    Credentials {
        dir: PathBuf,
        #[source]
        source: selvedge_southbound::tls::TlsError,
    },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("cannot listen for switches at {address}")]
    Southbound {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("what is in the store {} cannot be used with this topology", path.display())]
    Restore {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the server for switches failed")]
    Serve(#[source] tonic::transport::Error),
}

/// Runs until `stop` is ready. Dying without it loses nothing either.
///
/// `ready` is called once everything listens.
pub async fn run(
    options: Options,
    stop: impl Future<Output = ()>,
    ready: impl FnOnce(),
) -> Result<(), RunError> {
    let Options { topology, store: store_path, tls, southbound, api_socket, api } = options;
    let read = selvedge_topology::read::from_path(&topology).map_err(RunError::Topology)?;
    for assumption in &read.assumptions {
        tracing::info!("{assumption}");
    }
    let topology = Arc::new(read.topology);
    let credentials = Credentials::load(&tls, NAME)
        .map_err(|source| RunError::Credentials { dir: tls.clone(), source })?;
    let server_tls = listen::server_config(&NodeFiles::of(&tls, NAME))?;

    let store: Arc<dyn Store> = Arc::new(RedbStore::open(&store_path)?);
    let election_id = next_election_id(store.as_ref()).await?;
    let elected = Transaction::default().put(ELECTION_KEY, election_id.to_string());
    let kept = store.commit(elected).await;
    let clock = Clock::start();
    let core = restore(&topology, store.as_ref(), &store_path).await?;

    let switches = topology.switches().map(|(name, _)| name.clone()).collect();
    let southbound_listener = TcpListener::bind(southbound)
        .await
        .map_err(|source| RunError::Southbound { address: southbound, source })?;
    let (socket, _socket_file) = serve::listen_unix(&api_socket)?;
    let tcp = match api {
        Some(address) => Some(serve::listen_tcp(address).await?),
        None => None,
    };

    let (stopping, stopped) = watch::channel(false);
    // The engine stops last: what is under way elsewhere still gets its answers.
    let (engine_stopping, engine_stopped) = watch::channel(false);
    let (mut engine, handle) = Engine::new(core, Arc::clone(&store), clock);
    // A store that can be read is enough to serve; the next id is greater by the clock.
    match kept {
        Err(error) if error.is_retryable() => {
            engine.owe(ELECTION_KEY, election_id.to_string().into_bytes(), &error);
        }
        kept => drop(kept?),
    }
    let engine = tokio::spawn(engine.run(engine_stopped));

    let dialer = Dialer { credentials, election_id: election_id.into() };
    let modules = Modules::new(Arc::clone(&store));
    let switch_side = Southbound::new(handle.clone(), switches, modules, dialer, stopped.clone());
    let mut switch_server =
        tokio::spawn(southbound::serve(southbound_listener, server_tls, switch_side));

    let api = Api::new(handle, store, Arc::clone(&topology));
    api.sweep().await;
    let router = api::router(api);
    let mut servers = JoinSet::new();
    servers.spawn(serve_http(socket, router.clone(), stopped.clone()));
    if let Some(listener) = tcp {
        servers.spawn(serve_http(listener, router, stopped.clone()));
    }
    tracing::info!(
        network = %topology.name,
        southbound = %southbound,
        api = %api_socket.display(),
        election_id,
        "controller runs"
    );
    ready();

    let failed = tokio::select! {
        () = stop => None,
        ended = &mut switch_server => Some(ended),
    };
    tracing::info!("controller stops; switches forward as before");
    stopping.send_replace(true);
    let rest = async {
        while servers.join_next().await.is_some() {}
        match failed {
            Some(ended) => Some(ended),
            None => Some(switch_server.await),
        }
    };
    let ended = tokio::time::timeout(STOP_TIMEOUT, rest).await.ok().flatten();
    engine_stopping.send_replace(true);
    // A panic of the engine has been reported where it happened.
    drop(tokio::time::timeout(STOP_TIMEOUT, engine).await);
    match ended {
        Some(Ok(Err(error))) => Err(RunError::Serve(error)),
        _ => Ok(()),
    }
}

async fn serve_http<L>(listener: L, router: Router, mut stop: watch::Receiver<bool>)
where
    L: Listener,
    L::Addr: std::fmt::Debug,
    api::Caller: for<'a> axum::extract::connect_info::Connected<axum::serve::IncomingStream<'a, L>>,
{
    let service = router.into_make_service_with_connect_info::<api::Caller>();
    let served = axum::serve(listener, service).with_graceful_shutdown(async move {
        drop(stop.wait_for(|stop| *stop).await);
    });
    if let Err(error) = served.await {
        tracing::error!(error = &error as &dyn std::error::Error, "the API's server failed");
    }
}

/// A greater id than any before: the store's plus one, or the time in seconds where that is
/// more, so that a store restored from a backup does not fall behind either.
async fn next_election_id(store: &dyn Store) -> Result<u64, StoreError> {
    let last = store.get(ELECTION_KEY).await?.and_then(|stored| {
        let text = String::from_utf8(stored.value).ok()?;
        text.parse::<u64>().ok()
    });
    Ok(last.map_or(1, |last| last.saturating_add(1)).max(clock::unix_ms() / 1_000))
}

/// The core as the store has it. Keys of ours that are not the core's are left out.
async fn restore(
    topology: &Arc<Topology>,
    store: &dyn Store,
    path: &std::path::Path,
) -> Result<Core, RunError> {
    let mut records = BTreeMap::new();
    for key in store.keys("").await? {
        let ours = ["controller/", "module/", "mec/"].iter().any(|prefix| key.starts_with(prefix));
        if !ours && let Some(stored) = store.get(&key).await? {
            records.insert(key, stored.value);
        }
    }
    Core::restore(Topology::clone(topology), Config::default(), records)
        .map_err(|source| RunError::Restore { path: path.to_owned(), source: source.into() })
}
