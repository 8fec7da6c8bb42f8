//! The whole controller on loopback, with real mutual TLS, P4Runtime and store, against
//! switches whose tables are maps.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::mount::{MsFlags, mount};
use selvedge_controller::pki::{self, Node, Validity};
use selvedge_controller::store::Location;
use selvedge_controller::{Options, RunError, run};
use selvedge_pipeline::Entry;
use selvedge_southbound::selvedge::v1::{Port, from_switch, to_switch};
use selvedge_southbound::tls::Credentials;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

mod fake;
use fake::{Session, Switch, dial, register};

const TOPOLOGY: &str = r#"
name: pair
topology:
  nodes:
    s1: { kind: switch, compute: { cpu: 1, memory: 1Gi } }
    s2: { kind: switch }
    h1: { kind: host, ipv4: 10.0.0.1/32, mac: "02:00:00:00:01:01" }
    h2: { kind: host, ipv4: 10.0.0.2/32, mac: "02:00:00:00:01:02" }
  links:
    - { endpoints: ["s1:p1", "s2:p1"], capacity: 100Mbps, delay: 300us }
    - { endpoints: ["s1:p2", "h1:eth0"], capacity: 1Gbps }
    - { endpoints: ["s2:p2", "h2:eth0"], capacity: 1Gbps }
"#;

struct Place {
    dir: tempfile::TempDir,
}

struct Running {
    southbound: SocketAddr,
    socket: PathBuf,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), RunError>>,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("pair.yaml"), TOPOLOGY).unwrap();
        std::fs::create_dir(dir.path().join("disk")).unwrap();
        let nodes: Vec<Node> =
            ["controller", "s1", "s2", "stranger"].map(|name| name.parse().unwrap()).into();
        pki::init(&dir.path().join("pki"), &nodes, pki::Options::default()).unwrap();
        Self { dir }
    }

    fn pki(&self) -> PathBuf {
        self.dir.path().join("pki")
    }

    /// A directory of its own, so that a test can mount something there.
    fn disk(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    fn options(&self, southbound: SocketAddr) -> Options {
        let at = |name: &str| self.dir.path().join(name);
        Options {
            topology: at("pair.yaml"),
            store_tls: None,
            store: Location::File(self.disk().join("controller.redb")),
            advertise: None,
            tls: self.pki(),
            southbound,
            api_socket: at("api.sock"),
            api: None,
            intent: None,
        }
    }

    async fn start(&self) -> Running {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let options = self.options(free);
        let socket = options.api_socket.clone();
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = oneshot::channel();
        let stopped = async {
            let _ = stopped.await;
        };
        let task = tokio::spawn(run(options, stopped, || ready.send(()).unwrap()));
        is_ready.await.unwrap();
        Running { southbound: free, socket, stop, task }
    }

    fn tls(&self, name: &str) -> tonic::transport::ClientTlsConfig {
        Credentials::load(&self.pki(), name).unwrap().tonic_client("controller")
    }

    async fn join(&self, running: &Running, name: &str, at: SocketAddr) -> Session {
        let (number, peer) = if name == "s1" { (1, "s2") } else { (2, "s1") };
        let registration = register(at, number, peer);
        let mut session = dial(running.southbound, self.tls(name), registration).await.unwrap();
        let first = session.from_controller.message().await.unwrap().unwrap();
        assert!(matches!(first.message, Some(to_switch::Message::Registered(_))), "{first:?}");
        let second = session.from_controller.message().await.unwrap().unwrap();
        let Some(to_switch::Message::DiscoveryKeys(keys)) = second.message else {
            panic!("{second:?}")
        };
        let lengths: Vec<usize> = keys.keys.iter().map(Vec::len).collect();
        assert_eq!(lengths, [32, 32], "to send with, and the next");
        session
    }
}

impl Running {
    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
        assert!(!self.socket.exists(), "the socket's file goes with the controller");
    }

    async fn status(&self) -> Value {
        get(&self.socket, "/v1/status").await
    }

    async fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let mut status = Value::Null;
        for _ in 0..1_000 {
            status = self.status().await;
            if holds(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("not {what}: {status}");
    }

    async fn until_converged(&self) {
        self.until("converged", |status| status["converged"] == true).await;
    }
}

async fn get(socket: &Path, path: &str) -> Value {
    call(socket, "GET", path, "").await
}

async fn call(socket: &Path, method: &str, path: &str, body: &str) -> Value {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switches_are_programmed_and_a_restart_writes_nothing() {
    let place = Place::new();
    let (s1, s2) = (Switch::default(), Switch::default());
    let (at1, at2) = (s1.serve(&place.pki(), "s1").await, s2.serve(&place.pki(), "s2").await);

    let running = place.start().await;
    let _one = place.join(&running, "s1", at1).await;
    let _two = place.join(&running, "s2", at2).await;
    running.until_converged().await;
    {
        let state = s1.state.lock().unwrap();
        let has = |pick: fn(&Entry) -> bool| state.entries.values().any(pick);
        assert!(has(|entry| matches!(entry, Entry::NextHop(_))));
        assert!(has(|entry| matches!(entry, Entry::Generation(_))));
        assert_eq!(state.election_ids.len(), 1);
    }
    let updates = [&s1, &s2].map(|s| s.state.lock().unwrap().updates).iter().sum::<usize>();
    assert!(updates > 0);
    assert_eq!(running.status().await["writes"], updates);
    // The fake's counts are the index in packets, 64 bytes each.
    let counters = get(&running.socket, "/v1/nodes/s1/counters").await;
    assert_eq!(counters["drops"]["no_route"], 5, "{counters}");
    assert_eq!(
        (&counters["ports"][1]["name"], &counters["ports"][1]["tx_bytes"]),
        (&Value::from("p2"), &Value::from(128))
    );
    running.stop().await;

    let before: Vec<_> = [&s1, &s2].map(|s| s.state.lock().unwrap().entries.clone()).into();
    let writes: Vec<_> = [&s1, &s2].map(|s| s.state.lock().unwrap().writes).into();
    let running = place.start().await;
    let _one = place.join(&running, "s1", at1).await;
    let _two = place.join(&running, "s2", at2).await;
    running.until_converged().await;
    let after: Vec<_> = [&s1, &s2].map(|s| s.state.lock().unwrap().entries.clone()).into();
    assert_eq!(before, after);
    assert_eq!(writes, Vec::from([&s1, &s2].map(|s| s.state.lock().unwrap().writes)));
    assert_eq!(running.status().await["writes"], 0);
    let ids = s1.state.lock().unwrap().election_ids.clone();
    assert!(ids[0] < ids[1], "election ids rise over restarts: {ids:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_a_switch_of_ours_is_refused() {
    let place = Place::new();
    let running = place.start().await;
    let nowhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let refusal = async |tls| {
        let registration = register(nowhere, 1, "s2");
        dial(running.southbound, tls, registration).await.err().expect("it is refused")
    };

    let ca = std::fs::read(place.pki().join("ca.pem")).unwrap();
    let anonymous = tonic::transport::ClientTlsConfig::new()
        .ca_certificate(tonic::transport::Certificate::from_pem(&ca))
        .domain_name("controller");
    // What the refused hear depends on how far they have come when the connection closes;
    // the reasons that the controller logs are looked at in `southbound::listen`.
    refusal(anonymous).await;

    // The same authority, but over.
    let expired = place.dir.path().join("expired");
    std::fs::create_dir(&expired).unwrap();
    for file in ["ca.pem", "ca.key"] {
        std::fs::copy(place.pki().join(file), expired.join(file)).unwrap();
    }
    let options = pki::Options { force: false, validity: Validity::expired() };
    pki::init(&expired, &["s1".parse().unwrap()], options).unwrap();
    refusal(Credentials::load(&expired, "s1").unwrap().tonic_client("controller")).await;

    let other = place.dir.path().join("other");
    pki::init(&other, &["s1".parse().unwrap()], pki::Options::default()).unwrap();
    // It has to believe our controller for us to see that we do not believe it.
    std::fs::copy(place.pki().join("ca.pem"), other.join("ca.pem")).unwrap();
    refusal(Credentials::load(&other, "s1").unwrap().tonic_client("controller")).await;

    let text = refusal(place.tls("stranger")).await;
    assert!(text.contains("no switch") && text.contains("stranger"), "other name: {text}");
    let text = refusal(place.tls("controller")).await;
    assert!(text.contains("no switch"), "{text}");

    // Whoever is let in still has to register, and sanely.
    let late = from_switch::Message::Port(Port::default());
    let text = dial(running.southbound, place.tls("s1"), late).await.err().unwrap();
    assert!(text.contains("not a registration"), "{text}");
    let mut mad = register(nowhere, 1, "s2");
    if let from_switch::Message::Register(register) = &mut mad {
        register.ports[0].id = 300;
    }
    let text = dial(running.southbound, place.tls("s1"), mad).await.err().unwrap();
    assert!(text.contains("register.port.id") && text.contains("300"), "{text}");
    assert_eq!(running.status().await["switches"]["ready"], 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_impostor_is_not_programmed_and_a_dead_switch_holds_up_nobody() {
    let place = Place::new();
    let running = place.start().await;
    let (s1, impostor) = (Switch::default(), Switch::default());
    let at1 = s1.serve(&place.pki(), "s1").await;
    // Shows the stranger's certificate where s2's is due.
    let at2 = impostor.serve(&place.pki(), "stranger").await;
    let _two = place.join(&running, "s2", at2).await;
    let _one = place.join(&running, "s1", at1).await;
    running.until("joined", |status| status["switches"]["ready"] == 2).await;
    let in_sync = async |name: &str| {
        get(&running.socket, &format!("/v1/nodes/{name}")).await["entries"].clone()
    };
    for _ in 0..500 {
        if in_sync("s1").await != 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_ne!(in_sync("s1").await, 0, "s1 is programmed although s2 cannot be");
    assert_eq!(impostor.state.lock().unwrap().writes, 0);
    assert_eq!(impostor.state.lock().unwrap().election_ids.len(), 0);
    let status = running.status().await;
    assert_eq!(status["converged"], false, "{status}");

    // The real one takes over, and all is well. First one that accepts and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _silent = place.join(&running, "s2", silent.local_addr().unwrap()).await;
    let s2 = Switch::default();
    let at2 = s2.serve(&place.pki(), "s2").await;
    let _two = place.join(&running, "s2", at2).await;
    running.until_converged().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hooks_module_reaches_the_switch_that_runs_it() {
    let place = Place::new();
    let running = place.start().await;
    let (s1, s2) = (Switch::default(), Switch::default());
    let (at1, at2) = (s1.serve(&place.pki(), "s1").await, s2.serve(&place.pki(), "s2").await);
    let mut one = place.join(&running, "s1", at1).await;
    let _two = place.join(&running, "s2", at2).await;
    running.until_converged().await;
    let module = b"\0asm and three bytes\0\xFF\xFE";
    let yaml = "apiVersion: selvedge/v1\nkind: Hook\nmetadata: { name: mark }\n\
                spec: { module: mark.wasm, config: \"key=1\" }\n---\n\
                apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: { name: a }\n\
                spec:\n  endpoints: [{ ue: h1 }, { dn: h2 }]\n  \
                through: [{ hook: mark, onFailure: bypass }]\n";
    let body = serde_json::json!({
        "documents": yaml, "modules": { "mark": STANDARD.encode(module) }
    });
    let applied = call(&running.socket, "POST", "/v1/apply", &body.to_string()).await;
    assert_eq!(applied["changed"], true, "{applied}");
    let message = one.from_controller.message().await.unwrap().unwrap().message;
    let Some(to_switch::Message::LoadHook(load)) = message else { panic!("{message:?}") };
    assert_eq!(load.module, module);
    assert_eq!(load.config, b"key=1");
    assert_eq!(load.name, "a/mark");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_revoked_is_out_and_whose_certificate_is_renewed_stays() {
    let place = Place::new();
    let running = place.start().await;
    let (s1, s2) = (Switch::default(), Switch::default());
    let (at1, at2) = (s1.serve(&place.pki(), "s1").await, s2.serve(&place.pki(), "s2").await);
    let mut one = place.join(&running, "s1", at1).await;
    let _two = place.join(&running, "s2", at2).await;
    running.until_converged().await;

    let nodes = |names: &[&str]| names.iter().map(|n| n.parse().unwrap()).collect::<Vec<_>>();
    let force = pki::Options { force: true, ..pki::Options::default() };
    pki::init(&place.pki(), &nodes(&["controller", "s2"]), force).unwrap();
    pki::revoke(&place.pki(), &nodes(&["s1"])).unwrap();
    running.until("left", |status| status["switches"]["ready"] == 1).await;
    let told = loop {
        match one.from_controller.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it was not told why"),
            Err(status) => break status,
        }
    };
    assert!(told.message().contains("Revoked"), "{told:?}");
    let registration = register(at1, 1, "s2");
    assert!(dial(running.southbound, place.tls("s1"), registration).await.is_err());
    // With what it has now.
    let _again = place.join(&running, "s2", at2).await;
    running.until("there", |status| status["switches"]["ready"] == 1).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_or_misbehaves_is_told_apart() {
    let place = Place::new();
    let running = place.start().await;
    let s1 = Switch::default();
    let at1 = s1.serve(&place.pki(), "s1").await;
    let first = place.join(&running, "s1", at1).await;
    running.until("joined", |status| status["switches"]["ready"] == 1).await;
    drop(first);
    running.until("left", |status| status["switches"]["ready"] == 0).await;

    let mut second = place.join(&running, "s1", at1).await;
    let port = Port { id: 0, ..Port::default() };
    let message = Some(from_switch::Message::Port(port));
    second.to_controller.send(fake::message(message)).await.unwrap();
    let told = loop {
        match second.from_controller.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it was not told why"),
            Err(status) => break status,
        }
    };
    assert!(told.message().contains("port.name"), "{told:?}");
    running.until("left", |status| status["switches"]["ready"] == 0).await;

    // A newer session of the same switch ends the older one.
    let mut third = place.join(&running, "s1", at1).await;
    let _fourth = place.join(&running, "s1", at1).await;
    while let Ok(Some(_)) = third.from_controller.message().await {}
    running.until("joined", |status| status["switches"]["ready"] == 1).await;
    running.stop().await;
}

#[tokio::test]
async fn what_is_missing_or_taken_is_named() {
    let place = Place::new();
    let running = place.start().await;
    let anywhere: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let fails = async |options| {
        let error = run(options, std::future::pending(), || panic!("it runs")).await.unwrap_err();
        let mut text = error.to_string();
        let mut next = std::error::Error::source(&error);
        while let Some(source) = next {
            text += &format!(": {source}");
            next = source.source();
        }
        text
    };
    let text = fails(place.options(anywhere)).await;
    assert!(text.contains("controller.redb") && text.contains("in use"), "{text}");

    let own_store = |name: &str| {
        let store = place.dir.path().join(name);
        Options { store: Location::File(store), ..place.options(anywhere) }
    };
    let text = fails(own_store("2.redb")).await;
    assert!(text.contains("api.sock") && text.contains("another controller"), "{text}");
    let text = fails(Options { southbound: running.southbound, ..own_store("3.redb") }).await;
    assert!(text.contains(&running.southbound.to_string()), "{text}");
    let text = fails(Options { tls: place.dir.path().join("none"), ..own_store("4.redb") }).await;
    assert!(text.contains("none"), "{text}");
    let text = fails(Options { topology: "none.yaml".into(), ..own_store("5.redb") }).await;
    assert!(text.contains("none.yaml"), "{text}");
    let taken = place.dir.path().join("pair.yaml");
    let text = fails(Options { api_socket: taken.clone(), ..own_store("6.redb") }).await;
    assert!(text.contains("pair.yaml") && text.contains("no socket"), "{text}");
    assert!(taken.exists());
    running.stop().await;
}

#[test]
fn a_controller_starts_on_a_disk_that_is_read_only_and_serves() {
    // Root of a mount namespace of its own, which any user may have; what is mounted goes with
    // it.
    let status = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child_read_only_start", "--ignored", "--nocapture"])
        .status()
        .expect("util-linux is installed");
    assert!(status.success(), "see above");
}

#[tokio::test]
#[ignore = "run by a_controller_starts_on_a_disk_that_is_read_only_and_serves"]
async fn child_read_only_start() {
    let slice = |name: &str| {
        let text = format!(
            "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: {{ name: {name} }}\nspec:\n  \
             endpoints: [{{ ue: h1 }}, {{ dn: h2 }}]\n"
        );
        serde_json::json!({ "documents": text }).to_string()
    };
    let place = Place::new();
    let remount = |flags| {
        mount(Some("tmpfs"), &place.disk(), Some("tmpfs"), flags, Some("size=8m")).unwrap();
    };
    remount(MsFlags::empty());
    let running = place.start().await;
    let applied = call(&running.socket, "POST", "/v1/apply", &slice("kept")).await;
    assert_eq!(applied["changed"], true, "{applied}");
    assert_eq!(running.status().await["store_unwritable"], Value::Null);
    running.stop().await;

    remount(MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY);
    let running = place.start().await;
    // Switches join it and are kept as they should be.
    let (one, two) = (Switch::default(), Switch::default());
    let at = [one.serve(&place.pki(), "s1").await, two.serve(&place.pki(), "s2").await];
    let _sessions =
        [place.join(&running, "s1", at[0]).await, place.join(&running, "s2", at[1]).await];
    running.until_converged().await;
    let status = running.status().await;
    let why = status["store_unwritable"].as_str().unwrap_or_default();
    assert!(why.contains("controller.redb") && why.contains("Read-only"), "{status}");
    assert_eq!(get(&running.socket, "/v1/slices/kept").await["name"], "kept");
    let refused = call(&running.socket, "POST", "/v1/apply", &slice("more")).await;
    let detail = refused["detail"].as_str().unwrap_or_default();
    assert_eq!(refused["status"], 507, "{refused}");
    assert!(detail.contains("Read-only") && detail.contains("nothing was changed"), "{detail}");
    let writes = [&one, &two].map(|switch| switch.state.lock().unwrap().writes);

    remount(MsFlags::MS_REMOUNT);
    running.until("writable", |status| status["store_unwritable"].is_null()).await;
    let now = [&one, &two].map(|switch| switch.state.lock().unwrap().writes);
    assert_eq!(now, writes, "switches stay as they are");
    let applied = call(&running.socket, "POST", "/v1/apply", &slice("more")).await;
    assert_eq!(applied["changed"], true, "{applied}");
    running.stop().await;
    let running = place.start().await;
    assert_eq!(get(&running.socket, "/v1/slices/more").await["name"], "more");
    running.stop().await;
}
