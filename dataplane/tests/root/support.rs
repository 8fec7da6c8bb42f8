//! Namespaces, agents and certificates for the tests; all of it goes when a test ends, by
//! panic as well.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use selvedge_dataplane::{HostOptions, Management, Options, PortRule, run_until};
use selvedge_pipeline::{
    DeliveryEntry, Direction, EndpointEntry, EndpointId, EndpointTag, Entry, PortEntry, PortId,
    PortKind, RouteAction, SliceId, SliceRouteEntry, SliceSet,
};
use selvedge_southbound::client::{P4Client, Target, Update};
use tokio::sync::oneshot;

/// How long a test waits for what has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// Runs `body` on its own thread in a fresh network namespace, which goes with the thread.
pub(crate) fn in_netns(body: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let run = scope.spawn(|| {
            // Fails rather than skips: a skipped test reads as a passed one.
            unshare(CloneFlags::CLONE_NEWNET).expect("netns tests run as root: CAP_SYS_ADMIN");
            ip("link set lo up");
            body();
        });
        if let Err(panic) = run.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// `ip ARGS`, in the namespace of this thread.
pub(crate) fn ip(args: &str) {
    let output = Command::new("ip").args(args.split_whitespace()).output();
    let output = output.expect("iproute2 is installed");
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
}

/// `ethtool -K eth0 FEATURES`, in the namespace of this thread.
pub(crate) fn ethtool(features: &str) {
    let output = Command::new("ethtool").args(["-K", "eth0"]).args(features.split(' ')).output();
    let output = output.expect("ethtool is installed");
    assert!(output.status.success(), "{features}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs an asynchronous body in this thread's namespace.
pub(crate) fn block_on<T>(body: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(body)
}

/// Waits until `condition` is true.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// A host: a thread in a namespace of its own, at the end of a veth pair.
pub(crate) struct Host {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
    pub(crate) tid: nix::unistd::Pid,
    pub(crate) name: &'static str,
}

impl Host {
    pub(crate) fn new(name: &'static str) -> Self {
        let (jobs, received) = mpsc::channel::<Job>();
        let (told, tid) = mpsc::channel();
        let thread = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ip("link set lo up");
            told.send(nix::unistd::gettid()).unwrap();
            for job in received {
                job();
            }
        });
        let tid = tid.recv().unwrap();
        Self { jobs: Some(jobs), thread: Some(thread), tid, name }
    }

    /// A veth pair: `port` here, `eth0` there; the host's end is up and fit for XDP.
    pub(crate) fn cable(&self, port: &str) {
        let (name, tid) = (self.name, self.tid);
        ip(&format!("link add {port} type veth peer name {name}0 netns {tid}"));
        self.run(move || {
            ip(&format!("link set {name}0 name eth0"));
            ip("link set eth0 up");
            selvedge_xdp::offload::prepare_veth("eth0").unwrap();
        });
    }

    /// A veth pair whose ends have what the kernel gives them, up; at the host's end `before`
    /// is run as `ethtool -K eth0 ...` before that.
    pub(crate) fn plain_cable(&self, port: &str, before: Option<&'static str>) {
        let (name, tid) = (self.name, self.tid);
        ip(&format!("link add {port} type veth peer name {name}0 netns {tid}"));
        ip(&format!("link set {port} up"));
        self.run(move || {
            ip(&format!("link set {name}0 name eth0"));
            if let Some(features) = before {
                ethtool(features);
            }
            ip("link set eth0 up");
        });
    }

    /// A name for the host's namespace in `/run/netns`, while the result lives.
    pub(crate) fn namespace(&self) -> Namespace {
        let name = format!("test-agent-{}-{}", std::process::id(), self.name);
        ip(&format!("netns attach {name} {}", self.tid));
        Namespace(name)
    }

    /// An address, and the any-cast gateway as the way to everybody else.
    pub(crate) fn address(&self, address: &str) {
        let address = address.to_owned();
        self.run(move || {
            ip(&format!("address add {address}/32 dev eth0"));
            ip("route add default via 169.254.1.1 dev eth0 onlink");
        });
    }

    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let result = self.start(job);
        result.recv().expect("the job panicked")
    }

    /// As `run`, without waiting.
    pub(crate) fn start<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> mpsc::Receiver<T> {
        let (done, result) = mpsc::channel();
        let job: Job = Box::new(move || drop(done.send(job())));
        self.jobs.as_ref().unwrap().send(job).unwrap();
        result
    }

    pub(crate) fn mac(&self) -> [u8; 6] {
        self.run(|| {
            let interface = nix::ifaddrs::getifaddrs()
                .unwrap()
                .filter(|interface| interface.interface_name == "eth0")
                .find_map(|interface| interface.address?.as_link_addr()?.addr());
            interface.unwrap()
        })
    }
}

/// A name in `/run/netns`.
pub(crate) struct Namespace(pub(crate) String);

impl Drop for Namespace {
    fn drop(&mut self) {
        let deleted = Command::new("ip").args(["netns", "delete", &self.0]).status();
        if !thread::panicking() {
            assert!(deleted.unwrap().success());
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.jobs = None;
        let ended = self.thread.take().unwrap().join();
        if !thread::panicking() {
            ended.unwrap();
        }
    }
}

/// Names and folders of one switch. Dropped, it takes the switch off.
pub(crate) struct Place {
    pub(crate) instance: String,
    pub(crate) dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let instance = format!("test-agent-{}-{n}", std::process::id());
        Self { instance, dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    pub(crate) fn unmanaged(&self) -> Options {
        unmanaged(&self.instance, &self.run_dir())
    }
}

/// A switch whose ports are all `p*`, and that listens at 127.0.0.1.
pub(crate) fn unmanaged(instance: &str, run_dir: &Path) -> Options {
    Options {
        name: "s1".into(),
        instance: instance.into(),
        ports: vec![PortRule::Glob("p*".into())],
        p4runtime: "127.0.0.1:9559".parse().unwrap(),
        device_id: 1,
        management: Management::Unmanaged,
        metering: true,
        probe_interval: selvedge_dataplane::guard::probe::INTERVAL,
        compute: None,
        hosts: HostOptions::default(),
        run_dir: run_dir.into(),
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let removed = block_on(selvedge_dataplane::remove(&self.instance, &self.run_dir()));
        if !thread::panicking() {
            removed.unwrap();
            let pins = Path::new("/sys/fs/bpf/selvedge").join(&self.instance);
            assert!(!pins.exists());
        }
    }
}

/// A running agent.
pub(crate) struct Agent {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<Result<(), String>>>,
}

impl Agent {
    /// In the namespace of this thread.
    pub(crate) fn start(options: Options) -> Self {
        // SELVEDGE_LOG=debug shows what an agent says.
        let filter = tracing_subscriber::EnvFilter::try_from_env("SELVEDGE_LOG")
            .unwrap_or_else(|_| "off".into());
        drop(tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init());
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            let result = block_on(run_until(options, async { drop(stopped.await) }));
            result.map_err(|error| selvedge_dataplane::ports::chain(&error))
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }

    /// Its end as the kernel sees it: tasks dropped where they stand, descriptors closed.
    /// There is nothing more that a graceful end would do.
    pub(crate) fn kill(mut self) {
        self.finish().unwrap();
    }

    /// Waits for it to end by itself.
    pub(crate) fn failure(mut self) -> String {
        self.thread.take().unwrap().join().unwrap().unwrap_err()
    }

    fn finish(&mut self) -> Result<(), String> {
        drop(self.stop.take());
        self.thread.take().map_or(Ok(()), |thread| thread.join().unwrap())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let ended = self.finish();
        if !thread::panicking() {
            ended.unwrap();
        }
    }
}

/// A P4Runtime client in the clear; retried while the agent starts.
pub(crate) async fn connect(election_id: u128) -> (P4Client, selvedge_southbound::client::Channel) {
    let target = Target {
        uri: "http://127.0.0.1:9559".into(),
        tls: None,
        device_id: 1,
        role: String::new(),
        election_id,
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        match P4Client::connect(target.clone()).await {
            Ok(connected) => return connected,
            Err(error) if Instant::now() > deadline => panic!("{error:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Puts entries into the switch of this namespace as soon as it has their ports.
pub(crate) fn program(entries: &[Entry]) {
    block_on(async {
        let (client, _channel) = connect(1).await;
        until("ports are known", async || {
            let _ = client.write(&inserts(entries.to_vec())).await;
            client.read_entries().await.unwrap().len() == entries.len()
        })
        .await;
    });
}

pub(crate) fn access(port: u16) -> Entry {
    Entry::Port(PortEntry { port: PortId(port), kind: PortKind::Access })
}

pub(crate) fn fabric(port: u16) -> Entry {
    Entry::Port(PortEntry { port: PortId(port), kind: PortKind::Fabric })
}

/// What binds an endpoint to a port and delivers to it, in the default slice.
pub(crate) fn endpoint(port: u16, address: &str, mac: [u8; 6]) -> [Entry; 3] {
    let prefix = format!("{address}/32").parse().unwrap();
    let (slice, slice_set) = (SliceId::DEFAULT, SliceSet(SliceId::DEFAULT.0));
    let (port, direction, endpoint) = (PortId(port), Direction::Uplink, EndpointId::NONE);
    let action = RouteAction::Local;
    [
        Entry::Endpoint(EndpointEntry {
            port,
            prefix,
            slice_set,
            direction,
            endpoint,
            tag: EndpointTag::NONE,
        }),
        Entry::SliceRoute(SliceRouteEntry { slice_set, prefix, slice, action, endpoint }),
        Entry::Delivery(DeliveryEntry { slice, prefix, port, mac, tunnel: None }),
    ]
}

pub(crate) fn inserts(entries: impl IntoIterator<Item = Entry>) -> Vec<Update> {
    entries.into_iter().map(Update::Insert).collect()
}

/// Certificates of one authority, `NAME.pem` and `NAME.key` in `dir`.
pub(crate) fn certificates(dir: &Path, names: &[&str]) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "test authority");
    let ca = params.self_signed(&key).unwrap();
    std::fs::write(dir.join("ca.pem"), ca.pem()).unwrap();
    let issuer = Issuer::from_params(&params, key);
    for name in names {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![(*name).to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, *name);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        std::fs::write(dir.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}
