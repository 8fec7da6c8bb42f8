//! Which interface is which port ([`table`]), and keeping that true as interfaces come and go:
//! links are watched ([`netlink`]), prepared, and carry the XDP program.

pub mod facing;
pub mod glob;
pub mod netlink;
pub mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use selvedge_pipeline::PortId;
use selvedge_xdp as xdp;
use tokio::sync::{oneshot, watch};

use crate::options::PortRule;
use crate::report::{PortStatus, Report};
use facing::Trouble;
use netlink::{Changed, Monitor, Netlink};
use table::{Action, Link, Port, Table};

/// A look at all links although nothing was heard: an attachment that failed is tried again,
/// a message that was lost is made good.
const RESYNC: Duration = Duration::from_secs(30);
/// Pause before the monitor is opened again.
const REOPEN: Duration = Duration::from_millis(100);

/// How long a port that was taken down and up again is left alone.
const CYCLE_PAUSE: Duration = Duration::from_secs(10);

/// The data plane, shared by who attaches ports and who attaches hooks.
pub type SharedSwitch = Arc<Mutex<xdp::Switch>>;

#[derive(Debug, thiserror::Error)]
pub enum PortsError {
    #[error("cannot hear of links")]
    Monitor(#[source] io::Error),
    #[error("cannot list links")]
    List(#[source] rtnetlink::Error),
    #[error("cannot read the ports of the data plane")]
    Read(#[source] xdp::Error),
}

/// Runs `change` on the data plane.
pub fn with<R>(switch: &SharedSwitch, change: impl FnOnce(&mut xdp::Switch) -> R) -> R {
    // A panic elsewhere leaves the maps whole: each change is one system call.
    change(&mut switch.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The ports of a switch; [`Ports::run`] is its task.
#[derive(Debug)]
pub struct Ports {
    switch: SharedSwitch,
    netlink: Netlink,
    table: Table,
    /// Complaints that were made, so that each is made once.
    complained: BTreeMap<PortId, String>,
    /// What is wrong behind ports that work as far as they go.
    troubles: BTreeMap<PortId, Trouble>,
    /// When ports were last taken down and up again.
    cycled: BTreeMap<PortId, Instant>,
    current: watch::Sender<BTreeMap<PortId, Port>>,
    report: watch::Sender<Report>,
    /// Ports that no frame gets through in spite of their carrier.
    silent: watch::Receiver<BTreeSet<PortId>>,
}

impl Ports {
    /// # Errors
    /// [`PortsError::Read`].
    pub fn new(
        rules: Vec<PortRule>,
        switch: SharedSwitch,
        netlink: Netlink,
        report: watch::Sender<Report>,
        silent: watch::Receiver<BTreeSet<PortId>>,
    ) -> Result<Self, PortsError> {
        let numbers = with(&switch, |switch| switch.facts.ports()).map_err(PortsError::Read)?;
        let numbers = numbers.into_iter().map(|(name, id)| (name, PortId(id)));
        let table = Table::new(rules, numbers);
        let current = watch::Sender::new(BTreeMap::new());
        Ok(Self {
            switch,
            netlink,
            table,
            complained: BTreeMap::new(),
            troubles: BTreeMap::new(),
            cycled: BTreeMap::new(),
            current,
            report,
            silent,
        })
    }

    /// The ports that have an interface.
    pub fn current(&self) -> watch::Receiver<BTreeMap<PortId, Port>> {
        self.current.subscribe()
    }

    /// Keeps ports true for ever. `taken` is told when those that are there at first are in the
    /// report.
    ///
    /// # Errors
    /// [`PortsError`] when links cannot be watched at all.
    pub async fn run(
        mut self,
        taken: oneshot::Sender<()>,
    ) -> Result<std::convert::Infallible, PortsError> {
        let mut monitor = Monitor::open().map_err(PortsError::Monitor)?;
        self.first_pass().await?;
        // Nobody waits where there is no controller.
        let _ = taken.send(());
        loop {
            let deleted = tokio::select! {
                changed = monitor.changed() => match changed {
                    Changed::Links { deleted } => deleted,
                    Changed::Lost => {
                        tokio::time::sleep(REOPEN).await;
                        monitor = Monitor::open().map_err(PortsError::Monitor)?;
                        self.attach_again().await?;
                        continue;
                    }
                },
                Ok(()) = self.silent.changed() => {
                    self.publish();
                    continue;
                }
                () = tokio::time::sleep(RESYNC) => {
                    self.look_at_troubles().await;
                    BTreeSet::new()
                }
            };
            self.pass(&deleted).await?;
        }
    }

    /// What an earlier agent attached is adopted where it is still wanted, else taken off
    /// first: an interface carries one program.
    async fn first_pass(&mut self) -> Result<(), PortsError> {
        let actions = self.observe(&BTreeSet::new()).await?;
        let wanted: BTreeSet<(u16, u32)> = actions
            .iter()
            .filter_map(|action| match action {
                Action::Attach(id, port) => Some((id.0, port.link.ifindex)),
                Action::Detach(_) | Action::Update(..) => None,
            })
            .collect();
        let attached = with(&self.switch, |switch| switch.attached()).map_err(PortsError::Read)?;
        for old in attached {
            if !wanted.contains(&(old.port, old.ifindex)) {
                self.detach(PortId(old.port));
            }
        }
        self.carry_out(actions).await;
        Ok(())
    }

    async fn pass(&mut self, deleted: &BTreeSet<u32>) -> Result<(), PortsError> {
        let actions = self.observe(deleted).await?;
        self.carry_out(actions).await;
        Ok(())
    }

    /// After lost messages: an interface may have been away and have come back as it was, and
    /// the kernel has then taken it out of the devices that frames are redirected to.
    async fn attach_again(&mut self) -> Result<(), PortsError> {
        self.pass(&BTreeSet::new()).await?;
        let ports: Vec<(PortId, Port)> =
            self.table.ports().iter().map(|(id, port)| (*id, port.clone())).collect();
        let again = ports.into_iter().map(|(id, port)| Action::Attach(id, port)).collect();
        self.carry_out(again).await;
        Ok(())
    }

    async fn observe(&mut self, deleted: &BTreeSet<u32>) -> Result<Vec<Action>, PortsError> {
        let links = self.netlink.links().await.map_err(PortsError::List)?;
        let switch = &self.switch;
        let allocate = |name: &str| {
            let id = with(switch, |switch| switch.facts.port_id(name));
            match id {
                Ok(id) => Some(PortId(id)),
                Err(xdp::Error::NoPortFree(_)) => None,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(port = name, error, "no number for a port");
                    None
                }
            }
        };
        let (actions, refused) = self.table.observe(&links, deleted, allocate);
        for refusal in refused {
            tracing::warn!(%refusal, "not a port");
        }
        Ok(actions)
    }

    async fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Detach(id) => self.detach(id),
                Action::Attach(id, port) => self.attach(id, &port).await,
                // A new MAC address is the one frames are to leave with.
                Action::Update(id, port) => self.attach(id, &port).await,
            }
        }
        self.publish();
    }

    fn detach(&mut self, id: PortId) {
        self.complained.remove(&id);
        self.troubles.remove(&id);
        match with(&self.switch, |switch| switch.detach(id.0)) {
            Ok(()) => tracing::info!(port = id.0, "port has no interface"),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(port = id.0, error, "cannot take the interface off a port");
            }
        }
    }

    async fn attach(&mut self, id: PortId, port: &Port) {
        let Err(problem) = self.prepare_and_attach(id, port).await else {
            self.look_beyond(id, &port.link).await;
            if self.complained.remove(&id).is_some() || !self.current.borrow().contains_key(&id) {
                tracing::info!(port = %port.name, id = id.0, interface = %port.link.name, "port");
            }
            return;
        };
        self.table.failed(id);
        if self.complained.get(&id) != Some(&problem) {
            tracing::warn!(port = %port.name, interface = %port.link.name, problem, "no port");
            self.complained.insert(id, problem);
        }
    }

    async fn prepare_and_attach(&mut self, id: PortId, port: &Port) -> Result<(), String> {
        let link = &port.link;
        let mac = link.mac.expect("a port's interface is Ethernet");
        silence(&link.name);
        if link.is_veth {
            xdp::offload::prepare_veth(&link.name).map_err(|error| chain(&error))?;
        }
        let interface = xdp::Interface { index: link.ifindex, name: link.name.clone(), mac };
        with(&self.switch, |switch| switch.attach(id.0, &interface))
            .map_err(|error| chain(&error))?;
        // Up last: what arrives finds the program.
        self.netlink.set_up(link.ifindex, true).await.map_err(|error| chain(&error))
    }

    /// The far ends of ports that were in trouble: somebody may have done what was asked.
    async fn look_at_troubles(&mut self) {
        let ports: Vec<(PortId, Link)> = (self.troubles.keys())
            .filter_map(|id| Some((*id, self.table.ports().get(id)?.link.clone())))
            .collect();
        for (id, link) in ports {
            self.look_beyond(id, &link).await;
        }
    }

    /// Says what hinders traffic behind a port, once, and what helps.
    async fn look_beyond(&mut self, id: PortId, link: &Link) {
        let mut found = facing::trouble(link);
        if matches!(found, Ok(Some(Trouble::NotPolled(..)))) && self.cycle(id, link).await {
            found = facing::trouble(link);
        }
        match found {
            Ok(Some(trouble)) => {
                if self.troubles.get(&id) != Some(&trouble) {
                    tracing::warn!(port = id.0, "{trouble}");
                    self.troubles.insert(id, trouble);
                }
            }
            Ok(None) => {
                if self.troubles.remove(&id).is_some() {
                    tracing::info!(port = id.0, interface = %link.name, "frames get through now");
                }
            }
            Err(error) => {
                tracing::debug!(port = id.0, %error, "cannot see what is behind a port");
            }
        }
    }

    /// Takes a port that can send nothing down and up again. A veth end that got its GRO while
    /// it was down has not told its peer that it takes frames; the peer asks when it is opened.
    async fn cycle(&mut self, id: PortId, link: &Link) -> bool {
        // The carrier's going and coming leads here again.
        if self.cycled.get(&id).is_some_and(|at| at.elapsed() < CYCLE_PAUSE) {
            return false;
        }
        self.cycled.insert(id, Instant::now());
        let cycled = async {
            self.netlink.set_down(link.ifindex).await?;
            self.netlink.set_up(link.ifindex, true).await
        };
        match cycled.await {
            Ok(()) => true,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(port = id.0, error, "cannot take a port down and up again");
                false
            }
        }
    }

    fn publish(&self) {
        let ports = self.table.ports();
        let silent = self.silent.borrow().clone();
        let status = |(id, port): (&PortId, &Port)| {
            let mac = port.link.mac.expect("a port's interface is Ethernet");
            let up = port.link.up && !silent.contains(id);
            (*id, PortStatus { name: port.name.clone(), mac, up })
        };
        let statuses: BTreeMap<PortId, PortStatus> = ports.iter().map(status).collect();
        self.current.send_if_modified(|current| {
            let changed = current != ports;
            current.clone_from(ports);
            changed
        });
        self.report.send_if_modified(|report| {
            let changed = report.ports != statuses;
            report.neighbors.retain(|id, _| statuses.contains_key(id));
            report.seen.retain(|(id, _), _| statuses.contains_key(id));
            report.ports = statuses;
            changed
        });
    }
}

/// Keeps the kernel's own IPv6 off an interface: router solicitations and listener reports
/// of its own would come to the neighbors as traffic that nobody sent. Where there is no
/// IPv6, or the setting is not ours to write, the neighbors drop them.
pub fn silence(interface: &str) {
    let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
    if let Err(error) = std::fs::write(&path, "1") {
        tracing::debug!(path, %error, "IPv6 stays on");
    }
}

/// An error and what is behind it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
