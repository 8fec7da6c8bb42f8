//! Wires the parts of an agent together.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use selvedge_pipeline::PortId;
use selvedge_southbound::compute::{AsyncListener, Listener};
use selvedge_southbound::selvedge::v1;
use selvedge_southbound::tls::Credentials;
use selvedge_xdp as xdp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::assure::{Measured, Told};
use crate::backend::xdp::XdpTables;
use crate::error::AgentError;
use crate::guard::{self, Guard};
use crate::hooks::store::Store;
use crate::hooks::{self, HookTask};
use crate::hosts::{self, Hosts};
use crate::lock::InstanceLock;
use crate::options::{Management, OptionError, Options, PortRule, is_instance};
use crate::p4rt::core::{Core, Mode};
use crate::p4rt::server::{self, Service};
use crate::ports::Ports;
use crate::ports::netlink::Netlink;
use crate::report::Report;
use crate::session::Session;
use crate::{gateway, lldp, sample, seen};

/// Where the instances of this machine have their pins.
const PINS: &str = "/sys/fs/bpf/selvedge";

/// What a part of the agent that should run for ever ended with.
type Ended = (&'static str, Option<Box<dyn std::error::Error + Send + Sync>>);

/// Runs a switch until SIGTERM or SIGINT. Then the agent ends and the switch goes on
/// forwarding; [`remove`] ends that too.
///
/// # Errors
/// See [`AgentError`].
pub async fn run(options: Options) -> Result<(), AgentError> {
    let signals = "listen for signals";
    let mut terminate = signal(SignalKind::terminate()).map_err(AgentError::system(signals))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(AgentError::system(signals))?;
    run_until(options, async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: the agent ends, forwarding goes on"),
            _ = interrupt.recv() => tracing::info!("SIGINT: the agent ends, forwarding goes on"),
        }
    })
    .await
}

/// As [`run`], until `shutdown`. Must run in the network namespace of the switch, all threads
/// of the runtime included.
///
/// # Errors
/// See [`AgentError`]. What was forwarding goes on.
pub async fn run_until(
    options: Options,
    shutdown: impl Future<Output = ()>,
) -> Result<(), AgentError> {
    options.check().map_err(AgentError::Options)?;
    let credentials = match &options.management {
        Management::Managed { tls, .. } => {
            Some(Credentials::load(tls, &options.name).map_err(AgentError::Credentials)?)
        }
        Management::Unmanaged => None,
    };
    make_dir(&options.run_dir)?;
    let _lock = InstanceLock::take(&options.run_dir, &options.instance)?;
    // Whatever can be refused is refused before the data plane is touched.
    let listener = server::listen(options.p4runtime)
        .await
        .map_err(|source| AgentError::Listen { address: options.p4runtime, source })?;
    let compute = options.compute.as_ref().map(|compute| {
        Listener::bind(&compute.socket)
            .and_then(AsyncListener::new)
            .map_err(|source| AgentError::ComputeSocket { path: compute.socket.clone(), source })
    });
    let compute = compute.transpose()?;
    let sockets = hosts::Sockets::open(&options.hosts)?;

    let data_plane =
        xdp::Options { pin_dir: pin_dir(&options.instance), metering: options.metering };
    let switch = xdp::Switch::open(&data_plane).map_err(AgentError::DataPlane)?;
    let events = switch.events().map_err(AgentError::DataPlane)?;
    let tables = XdpTables::of(&switch);
    let (counters, probes) = (switch.counters.clone(), switch.probes.clone());
    let states = switch.port_states.clone();
    let sampler = switch.sampler.clone();
    let switch = Arc::new(Mutex::new(switch));
    let netlink = Netlink::open().map_err(AgentError::system("open a netlink socket"))?;
    let report = watch::Sender::new(Report::default());

    let mode = if credentials.is_some() { Mode::Managed } else { Mode::Unmanaged };
    warn_of_absent(&options.ports, &netlink).await;
    let (silent, is_silent) = watch::channel(BTreeSet::new());
    let shared = Arc::clone(&switch);
    let ports =
        Ports::new(options.ports.clone(), shared, netlink.clone(), report.clone(), is_silent)
            .map_err(AgentError::Ports)?;
    let sender = gateway::Sender::open().map_err(AgentError::system("open a packet socket"))?;
    let at = ports.current();
    let send_frame = move |port: PortId, frame: &[u8]| {
        let ifindex = at.borrow().get(&port).map(|port| port.link.ifindex);
        sender.send(ifindex.ok_or(io::ErrorKind::NotFound)?, frame)
    };
    let core = Core::new(tables.clone(), Box::new(send_frame), mode, options.device_id)
        .map_err(AgentError::Tables)?;
    let service = Service::new(core);
    let written = service.written();
    let probing = guard::Probes::default();
    let guard = Guard {
        tables: tables.clone(),
        states,
        answers: probes.clone(),
        counters: counters.clone(),
        ports: ports.current(),
        interval: options.probe_interval,
        probes: Arc::clone(&probing),
        silent,
    };

    let mut tasks: JoinSet<Ended> = JoinSet::new();
    let guarding = guard.start().map_err(AgentError::system("start a thread"))?;
    tasks.spawn(async move { ended("guard", guarding.await.err()) });
    let around = || seen::Around {
        tables: tables.clone(),
        ports: ports.current(),
        written: service.written(),
    };
    let (for_lldp, for_hosts, around) = (around(), around(), around());
    let (keys, keys_given) = watch::channel(Vec::new());
    let (lldp_in, packets_in) = mpsc::channel(server::FRAMES_IN);
    tasks.spawn({
        let (service, held_open) = (service.clone(), lldp_in.clone());
        async move {
            service.packets_in(packets_in).await;
            drop(held_open);
            ("packets in", None)
        }
    });
    let (taken, ports_taken) = oneshot::channel();
    tasks.spawn(async move {
        let Err(error) = ports.run(taken).await;
        ended("ports", Some(error))
    });
    tasks.spawn({
        let (name, report) = (options.name.clone(), report.clone());
        let lldp = lldp::run(name, for_lldp, keys_given, report, lldp_in);
        async move { ended("LLDP", lldp.await.err()) }
    });
    tasks.spawn({
        let (name, report) = (options.name.clone(), report.clone());
        let hosts = Hosts::new(name, &options.hosts, sockets, for_hosts, report);
        async move { ended("hosts", hosts.run().await.err()) }
    });
    tasks.spawn({
        let report = report.clone();
        async move {
            let Err(error) = seen::run(events, report, around).await;
            ended("events", Some(error))
        }
    });
    tasks.spawn({
        let credentials = credentials.clone();
        async move { ended("P4Runtime", service.serve(listener, credentials).await.err()) }
    });
    let commands = match compute {
        Some(listener) => {
            let stored = Store::open(&options.run_dir)
                .map_err(|source| AgentError::RunDir { path: options.run_dir.clone(), source })?;
            let task =
                HookTask::new(Arc::clone(&switch), tables.clone(), netlink, stored, report.clone())
                    .await
                    .map_err(|source| AgentError::RunDir {
                        path: options.run_dir.clone(),
                        source,
                    })?;
            let (commands, received) = mpsc::channel(hooks::COMMANDS);
            tasks.spawn({
                // Held open also where no session sends.
                let commands = commands.clone();
                async move {
                    task.run(listener, received, written).await;
                    drop(commands);
                    ("hooks", None)
                }
            });
            Some(commands)
        }
        None => {
            hooks::remove_all(&switch, &netlink).await;
            None
        }
    };
    if let (Some(credentials), Management::Managed { controllers, .. }) =
        (credentials, &options.management)
    {
        let compute = options
            .compute
            .as_ref()
            .map(|compute| v1::Compute { cpu: compute.cpu, memory_bytes: compute.memory_bytes });
        let (told, telemetry) = watch::channel(Told::default());
        let (asked, sampling) = watch::channel(None);
        let sampled = broadcast::Sender::new(sample::WAITING);
        let session = Session {
            credentials,
            controllers: controllers.clone(),
            p4runtime: options.p4runtime,
            device_id: options.device_id,
            compute,
            telemetry,
            keys,
            sampling: asked,
            samples: sampled.clone(),
        };
        tasks.spawn(async move {
            let Err(error) = sample::run(sampler, sampling, sampled).await;
            ended("samples", Some(error))
        });
        let measured = Measured { counters, probes, probing };
        let measuring = measured.start(told).map_err(AgentError::system("start a thread"))?;
        tasks.spawn(async move { ended("assurance", measuring.await.err()) });
        tasks.spawn(async move {
            // A controller that heard of half the ports would route around the other half. Not
            // told: the ports' task has ended, and so will the agent.
            drop(ports_taken.await);
            session.run(report, commands).await;
            ("session", None)
        });
    }
    tracing::info!(node = options.name, instance = options.instance, "switch");

    tokio::select! {
        () = shutdown => Ok(()),
        ended = tasks.join_next() => Err(match ended {
            Some(Ok((task, source))) => AgentError::Task { task, source },
            Some(Err(panic)) => AgentError::Task { task: "panicked", source: Some(panic.into()) },
            None => unreachable!("there are tasks"),
        }),
    }
}

/// Takes a switch off its ports: detaches the programs, deletes compute ports, pins and the run
/// directory. Traffic through it stops. What is not there is as good as removed.
///
/// # Errors
/// [`AgentError::Lock`] while an agent runs it; what cannot be removed.
pub async fn remove(instance: &str, run_dir: &Path) -> Result<(), AgentError> {
    if !is_instance(instance) {
        return Err(AgentError::Options(vec![OptionError::Instance(instance.to_owned())]));
    }
    let _lock = match run_dir.exists() {
        true => Some(InstanceLock::take(run_dir, instance)?),
        false => None,
    };
    let pins = pin_dir(instance);
    let hooks = pinned_hooks(&pins);
    xdp::remove_all(&pins).map_err(AgentError::DataPlane)?;
    if !hooks.is_empty() {
        let netlink = Netlink::open().map_err(AgentError::system("open a netlink socket"))?;
        for hook in hooks {
            if let Err(reason) = hooks::port::delete_pair(hook, &netlink).await {
                tracing::warn!(hook, reason, "cannot delete a compute port");
            }
        }
    }
    match std::fs::remove_dir_all(run_dir) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(AgentError::RunDir { path: run_dir.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn pin_dir(instance: &str) -> PathBuf {
    Path::new(PINS).join(instance)
}

/// Hooks whose compute ports carry our programs, by the names of their links.
fn pinned_hooks(pins: &Path) -> Vec<u32> {
    let layouts = std::fs::read_dir(pins).into_iter().flatten().flatten();
    let links = layouts.filter_map(|layout| std::fs::read_dir(layout.path().join("links")).ok());
    let names = links.flatten().flatten().map(|link| link.file_name());
    names.filter_map(|name| name.to_str()?.strip_prefix("socket-")?.parse().ok()).collect()
}

fn make_dir(path: &Path) -> Result<(), AgentError> {
    std::fs::create_dir_all(path)
        .map_err(|source| AgentError::RunDir { path: path.to_owned(), source })
}

/// A port that is named for an interface which is not there is most often a typing error; but
/// it may come, so it is waited for.
async fn warn_of_absent(rules: &[PortRule], netlink: &Netlink) {
    for rule in rules {
        if let PortRule::Named { port, interface } = rule
            && let Ok(None) = netlink.find(interface).await
        {
            tracing::warn!(port, interface, "no such interface; waiting for it");
        }
    }
}

fn ended<E: std::error::Error + Send + Sync + 'static>(
    task: &'static str,
    error: Option<E>,
) -> Ended {
    (task, error.map(Into::into))
}
