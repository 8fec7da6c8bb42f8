//! A controller without sockets for the tests of this crate: the real engine and store, and
//! switches that live in a task and keep their tables in a map.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use selvedge_core::{Config, Core, Event, HookLoad, Neighbor, Port, Report, Update};
use selvedge_pipeline::{Entry, HookId, Key, PortId};
use selvedge_southbound::client::CounterCell;
use selvedge_topology::read::{Format, from_str};
use selvedge_topology::{NodeName, Topology};
use tokio::sync::watch;

use crate::engine::{Command, Handle, Input, SessionId, SwitchLink, embedded};
use crate::store::{
    Leadership, Operation, RedbStore, Revision, Store, StoreError, Transaction, Versioned, Watch,
};

pub(crate) const PAIR: &str = r#"
name: pair
topology:
  nodes:
    s1: { kind: switch, role: access, compute: { cpu: 2, memory: 1Gi } }
    s2: { kind: switch, role: edge }
    h1: { kind: host, ipv4: 10.0.0.1/32, ipv6: fd10::1/128, mac: "02:00:00:00:01:01" }
    h2: { kind: host, ipv4: 10.0.0.2/32, ipv6: fd10::2/128, mac: "02:00:00:00:01:02" }
    h3: { kind: host, ipv4: 10.0.0.3/32, mac: "02:00:00:00:01:03" }
  links:
    - { endpoints: ["s1:p1", "s2:p1"], capacity: 100Mbps, delay: 300us }
    - { endpoints: ["s1:p2", "h1:eth0"], capacity: 1Gbps, delay: 10us }
    - { endpoints: ["s2:p2", "h2:eth0"], capacity: 1Gbps, delay: 10us }
    - { endpoints: ["s1:p3", "h3:eth0"], capacity: 1Gbps, delay: 10us }
"#;

pub(crate) fn pair() -> Arc<Topology> {
    Arc::new(from_str("pair.yaml", PAIR, Format::Selvedge).unwrap().topology)
}

pub(crate) struct Controller {
    pub(crate) handle: Handle,
    pub(crate) store: Arc<FaultyStore>,
    pub(crate) topology: Arc<Topology>,
    /// Dropping it stops the engine.
    _stop: watch::Sender<bool>,
    pub(crate) dir: tempfile::TempDir,
}

impl Controller {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("controller.redb");
        let store = Arc::new(FaultyStore::new(RedbStore::open(path).unwrap()));
        let topology = pair();
        let core = Core::new(Topology::clone(&topology), Config::default());
        let (stop, stopped) = watch::channel(false);
        let (handle, _engine) = embedded(core, store.clone(), stopped);
        Self { handle, store, topology, _stop: stop, dir }
    }

    pub(crate) async fn until_converged(&self) {
        let mut last = Vec::new();
        for _ in 0..500 {
            let status = self.handle.query(|core| core.status()).await.unwrap();
            if status.converged {
                return;
            }
            last = status.waiting_for;
            last.extend(status.blocked);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not converged: {last:?}");
    }
}

/// A store whose disk is full while the test says so.
pub(crate) struct FaultyStore {
    store: RedbStore,
    pub(crate) full: AtomicBool,
    /// Commits until it is full.
    pub(crate) room: AtomicU64,
    /// Commits wait while it is.
    pub(crate) busy: watch::Sender<bool>,
    pub(crate) asked: AtomicUsize,
    /// Commits that changed slices.
    pub(crate) of_slices: AtomicUsize,
}

impl FaultyStore {
    pub(crate) fn new(store: RedbStore) -> Self {
        let (full, room) = (AtomicBool::new(false), AtomicU64::new(u64::MAX));
        let (asked, of_slices) = Default::default();
        Self { store, full, room, busy: watch::Sender::new(false), asked, of_slices }
    }
}

impl Store for FaultyStore {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Versioned>, StoreError>> {
        self.store.get(key)
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
    ) -> BoxFuture<'a, Result<Vec<(String, Versioned)>, StoreError>> {
        self.store.list(prefix)
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
        self.store.keys(prefix)
    }

    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Revision, StoreError>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut busy = self.busy.subscribe();
        Box::pin(async move {
            busy.wait_for(|busy| !busy).await.expect("the sender is this store's");
            let count = |room: u64| room.checked_sub(1);
            let room = self.room.fetch_update(Ordering::SeqCst, Ordering::SeqCst, count);
            if self.full.load(Ordering::SeqCst) || room.is_err() {
                let path = self.store.path().to_owned();
                let source = std::io::Error::from(std::io::ErrorKind::StorageFull).into();
                return Err(StoreError::Write { path, source });
            }
            let of_slice = |operation: &Operation| match operation {
                Operation::Put { key, .. } | Operation::Delete { key } => {
                    key.starts_with("intent/slice/")
                }
            };
            if transaction.operations.iter().any(of_slice) {
                self.of_slices.fetch_add(1, Ordering::SeqCst);
            }
            self.store.commit(transaction).await
        })
    }

    fn watch(&self, prefix: &str) -> Watch {
        self.store.watch(prefix)
    }

    fn campaign<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Leadership, StoreError>> {
        self.store.campaign(name)
    }

    fn leader(&self) -> Option<String> {
        self.store.leader()
    }
}

/// What a made-up switch holds; shared with its task.
#[derive(Clone, Default)]
pub(crate) struct FakeSwitch {
    pub(crate) entries: Arc<Mutex<BTreeMap<Key, Entry>>>,
    pub(crate) loads: Arc<Mutex<BTreeMap<HookId, HookLoad>>>,
    pub(crate) writes: Arc<Mutex<usize>>,
}

impl FakeSwitch {
    /// Joins with ports named `p1`.. `pN`, all up, and the given LLDP neighbors.
    pub(crate) async fn join(
        &self,
        handle: &Handle,
        session: u64,
        name: &str,
        report: Report,
    ) -> NodeName {
        let switch: NodeName = name.parse().unwrap();
        let (link, mut commands) = SwitchLink::new(SessionId(session));
        let event = Event::SwitchJoined { switch: switch.clone(), report };
        handle.send(Input::Joined { switch: switch.clone(), link, event }).await.unwrap();
        let (this, handle, name) = (self.clone(), handle.clone(), switch.clone());
        tokio::spawn(async move {
            while let Some(command) = commands.recv().await {
                let Some(event) = this.carry_out(name.clone(), command) else { continue };
                let (switch, session) = (name.clone(), SessionId(session));
                if handle.send(Input::FromSwitch { switch, session, event }).await.is_err() {
                    return;
                }
            }
        });
        switch
    }

    fn carry_out(&self, switch: NodeName, command: Command) -> Option<Event> {
        let mut entries = self.entries.lock().unwrap();
        match command {
            Command::Read { read } => {
                let result = Ok(entries.values().cloned().collect());
                Some(Event::EntriesRead { switch, read, result })
            }
            Command::Write { write, updates } => {
                *self.writes.lock().unwrap() += 1;
                for update in updates {
                    match update {
                        Update::Insert(entry) | Update::Modify(entry) => {
                            entries.insert(entry.key(), entry);
                        }
                        Update::Delete(entry) => {
                            entries.remove(&entry.key());
                        }
                    }
                }
                Some(Event::WriteDone { switch, write, result: Ok(()) })
            }
            Command::LoadHook { hook, load } => {
                self.loads.lock().unwrap().insert(hook, load);
                None
            }
            Command::UnloadHook { hook } => {
                self.loads.lock().unwrap().remove(&hook);
                None
            }
            Command::ReadCounters { cells, answer } => {
                // Every cell is different, and can be told.
                let cell = |(counter, index)| CounterCell {
                    counter,
                    index,
                    packets: 1_000 * (counter as u64 + 1) + u64::from(index),
                    bytes: 100_000 * (counter as u64 + 1) + u64::from(index),
                };
                answer.send(Ok(cells.into_iter().map(cell).collect())).unwrap();
                None
            }
        }
    }
}

/// Ports `p1`.. `pN`, all up; `p1` leads to `peer`'s `p1`.
pub(crate) fn report(number: u8, ports: u8, peer: &str) -> Report {
    let port = |id: u8| Port {
        id: PortId(id.into()),
        name: format!("p{id}"),
        mac: [2, 0, 0, 0, number, id],
        up: true,
    };
    let neighbor =
        Neighbor { chassis: peer.to_owned(), port: "p1".to_owned(), authenticated: true };
    Report {
        version: "test".to_owned(),
        ports: (1..=ports).map(port).collect(),
        compute: (number == 1).then_some(selvedge_core::Compute { cpu: 2, memory_bytes: 1 << 30 }),
        neighbors: vec![(PortId(1), neighbor)],
        hooks: Vec::new(),
    }
}

/// Both switches of [`PAIR`], joined.
pub(crate) async fn join_pair(controller: &Controller) -> [FakeSwitch; 2] {
    let (s1, s2) = (FakeSwitch::default(), FakeSwitch::default());
    s1.join(&controller.handle, 1, "s1", report(1, 3, "s2")).await;
    s2.join(&controller.handle, 2, "s2", report(2, 2, "s1")).await;
    [s1, s2]
}
