//! Putting it together: start, serve, stop.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use selvedge_southbound::tls::Credentials;
use selvedge_topology::Problems;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api::serve::{self, ListenError};
use crate::api::{self, Api};
use crate::clock::Clock;
use crate::engine::Engine;
use crate::intent_dir::{self, IntentDir};
use crate::lead::{self, Records, Start};
use crate::modules::Modules;
use crate::sampling::Sampling;
use crate::southbound::{self, Dialer, Southbound};
use crate::store::{ELECTION_KEY, EtcdTls, EtcdTlsError, Location, StoreError};

/// The controller's name in certificates.
const NAME: &str = "controller";
/// What requests under way may take to finish once we are told to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Where things are.
#[derive(Clone, Debug)]
pub struct Options {
    /// The network as declared; see `selvedge_topology::read`.
    pub topology: PathBuf,
    pub store: Location,
    /// For a store in etcd: TLS, with what is in this directory; see [`EtcdTls::load`].
    pub store_tls: Option<PathBuf>,
    /// How the other controllers name this one to their clients; the API's address if absent.
    pub advertise: Option<String>,
    /// Directory with `ca.pem`, `controller.pem` and `controller.key`.
    pub tls: PathBuf,
    /// Where switches register.
    pub southbound: SocketAddr,
    /// The API's Unix socket.
    pub api_socket: PathBuf,
    /// The API on TCP too: in the clear and open to whoever can reach it.
    pub api: Option<SocketAddr>,
    /// Directory whose files of objects are the whole intent.
    pub intent: Option<PathBuf>,
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
    #[error("the certificates for etcd cannot be used")]
    StoreTls(#[from] EtcdTlsError),
    #[error("cannot listen for switches at {address}")]
    Southbound {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("what is in the store {store} cannot be used with this topology")]
    Restore {
        store: Location,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error(
        "the store {store} holds a part of a backup, whose restore was cut off: run `selvedge \
         restore` again"
    )]
    HalfRestored { store: Location },
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
    let Options { topology, store: location, store_tls, advertise, tls, .. } = options;
    let Options { southbound, api_socket, api, intent, .. } = options;
    let read = selvedge_topology::read::from_path(&topology).map_err(RunError::Topology)?;
    for assumption in &read.assumptions {
        tracing::info!("{assumption}");
    }
    let topology = Arc::new(read.topology);
    let credentials = Credentials::load(&tls, NAME)
        .map_err(|source| RunError::Credentials { dir: tls.clone(), source })?;

    let name = advertise.unwrap_or_else(|| match api {
        Some(address) => format!("http://{address}"),
        None => format!("unix:{}", api_socket.display()),
    });
    let store_tls = store_tls.as_deref().map(EtcdTls::load).transpose()?;
    let records = Records { topology: Arc::clone(&topology), location: location.clone() };
    let clock = Clock::start();
    let (store, first) = lead::begin(&location, store_tls.as_ref(), &records).await?;

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
    let Start { core, role, owed } = first;
    let several = role.election_id().is_none();
    let (mut engine, handle) = Engine::new(core, Arc::clone(&store), clock, role);
    if let Some((value, error)) = owed {
        engine.owe(ELECTION_KEY, value, &error);
    }
    let engine = engine.start(engine_stopped);

    let dialer = Dialer { credentials };
    let modules = Modules::new(Arc::clone(&store));
    let sampling = Arc::<Sampling>::default();
    let switch_side = Southbound::new(
        handle.clone(),
        switches,
        modules,
        dialer,
        Arc::clone(&sampling),
        stopped.clone(),
    );
    let mut switch_server = tokio::spawn(southbound::serve(southbound_listener, switch_side));

    let candidate = several.then(|| {
        let (store, handle) = (Arc::clone(&store), handle.clone());
        tokio::spawn(lead::stand_for_ever(store, handle, records, name))
    });
    let mut api = Api::new(handle, store, Arc::clone(&topology));
    api.sampling = sampling;
    api.intent_dir = intent.as_deref().map(Arc::from);
    let mut servers = JoinSet::new();
    servers.spawn(sweep_when_leading(api.clone(), stopped.clone()));
    match intent {
        Some(dir) => servers.spawn(IntentDir::new(dir, api.clone()).run(stopped.clone())),
        None => servers.spawn(intent_dir::forget(api.clone())),
    };
    let router = api::router(api);
    servers.spawn(serve_http(socket, router.clone(), stopped.clone()));
    if let Some(listener) = tcp {
        servers.spawn(serve_http(listener, router, stopped.clone()));
    }
    tracing::info!(
        network = %topology.name,
        southbound = %southbound,
        api = %api_socket.display(),
        store = %location,
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
    if let Some(candidate) = candidate {
        lead::resign(candidate).await;
    }
    engine_stopping.send_replace(true);
    // A panic of the engine has been reported where it happened.
    drop(tokio::time::timeout(STOP_TIMEOUT, engine).await);
    match ended {
        Some(Ok(Err(error))) => Err(RunError::Serve(error)),
        _ => Ok(()),
    }
}

/// Removes what the last leader left of modules and services that nothing refers to. Ends by
/// itself when told to stop, so that nobody holds the store after that.
async fn sweep_when_leading(api: Api, mut stop: watch::Receiver<bool>) {
    let mut role = api.role();
    let mut leads = true;
    loop {
        let changed =
            async { role.wait_for(|role| role.election_id().is_some() == leads).await.is_ok() };
        tokio::select! {
            () = async { drop(stop.wait_for(|stop| *stop).await) } => return,
            changed = changed => if !changed { return },
        }
        if leads {
            api.sweep_alone().await;
        }
        leads = !leads;
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
