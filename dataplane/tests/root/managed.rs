//! A managed switch, and a controller that listens.

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::Stream;
use selvedge_dataplane::lldp::auth::{KEY_LEN, Key};
use selvedge_dataplane::lldp::frame;
use selvedge_dataplane::packet::{FRAME_MAX, PacketSocket};
use selvedge_dataplane::{Management, Options};
use selvedge_pipeline::{Entry, GenerationEntry, PortEntry, PortId, PortKind};
use selvedge_southbound::client::{CONTROLLER_ROLE, ClientError, P4Client, Target, Update};
use selvedge_southbound::selvedge::v1;
use selvedge_southbound::tls::{self, Credentials};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use v1::controller_server::{Controller, ControllerServer};
use v1::from_switch::Message;

use super::support::{
    Agent, Host, PATIENCE, Place, access, block_on, certificates, in_netns, inserts, ip, until,
};

type Answers = mpsc::Sender<Result<v1::ToSwitch, Status>>;

/// What switches told, and where answers go.
#[derive(Clone, Default)]
pub(crate) struct Listener {
    pub(crate) heard: Arc<Mutex<Vec<(String, Message)>>>,
    pub(crate) answers: Arc<Mutex<Option<Answers>>>,
}

impl Listener {
    /// A controller in this namespace, until what is returned is dropped: then it is gone with
    /// all its connections.
    pub(crate) fn start(&self, pki: &Path) -> Serving {
        let credentials = Credentials::load(pki, "controller").unwrap();
        let service = ControllerServer::new(self.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            block_on(async move {
                let mut server = Server::builder().tls_config(credentials.tonic_server()).unwrap();
                let address = "127.0.0.1:9558".parse().unwrap();
                tokio::select! {
                    ended = server.add_service(service).serve(address) => ended.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Serving { stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn has(&self, wanted: impl Fn(&Message) -> bool) -> bool {
        self.heard.lock().unwrap().iter().any(|(_, message)| wanted(message))
    }

    pub(crate) async fn say(&self, message: v1::to_switch::Message) {
        let answers = self.answers.lock().unwrap().clone().unwrap();
        answers.send(Ok(v1::ToSwitch { message: Some(message) })).await.unwrap();
    }
}

/// A controller that runs.
pub(crate) struct Serving {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

#[tonic::async_trait]
impl Controller for Listener {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<v1::ToSwitch, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::FromSwitch>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let name = tls::peer_name(&request)?;
        let mut messages = request.into_inner();
        let (answers, stream) = mpsc::channel(16);
        let registered = v1::Registered { controller: "test".into() };
        let registered = v1::to_switch::Message::Registered(registered);
        answers.try_send(Ok(v1::ToSwitch { message: Some(registered) })).unwrap();
        *self.answers.lock().unwrap() = Some(answers);
        let heard = Arc::clone(&self.heard);
        tokio::spawn(async move {
            while let Ok(Some(message)) = messages.message().await {
                heard.lock().unwrap().push((name.clone(), message.message.unwrap()));
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

pub(crate) fn managed(place: &Place) -> Options {
    let pki = place.dir.path().to_owned();
    let controller = "https://127.0.0.1:9558".to_owned();
    Options {
        management: Management::Managed { tls: pki, controllers: vec![controller] },
        ..place.unmanaged()
    }
}

pub(crate) async fn dial(
    pki: &Path,
    name: &str,
    role: &str,
    election_id: u128,
) -> Result<(P4Client, selvedge_southbound::client::Channel), ClientError> {
    P4Client::connect(Target {
        uri: "https://127.0.0.1:9559".into(),
        tls: Some((Credentials::load(pki, name).unwrap(), "s1".into())),
        device_id: 1,
        role: role.into(),
        election_id,
    })
    .await
}

fn generation(generation: u64) -> Entry {
    Entry::Generation(GenerationEntry { generation })
}

fn text(error: &dyn std::fmt::Debug) -> String {
    format!("{error:?}")
}

#[test]
fn a_managed_switch_obeys_its_controller_alone() {
    in_netns(|| {
        let place = Place::new();
        let pki = place.dir.path();
        certificates(pki, &["controller", "s1", "s2"]);
        let agent = Agent::start(managed(&place));
        block_on(async {
            until("P4Runtime listens", async || {
                dial(pki, "controller", CONTROLLER_ROLE, 7).await.is_ok()
            })
            .await;
            let (client, channel) = dial(pki, "controller", CONTROLLER_ROLE, 8).await.unwrap();
            assert!(channel.is_primary());
            client.write(&inserts([generation(5)])).await.unwrap();
            let older = client.write(&[Update::Modify(generation(4))]).await.unwrap_err();
            assert!(text(&older).contains("FailedPrecondition"), "{older:?}");
            // Other roles, other names, nobody.
            let refused = dial(pki, "controller", "", 9).await.unwrap_err();
            assert!(text(&refused).contains("PermissionDenied"), "{refused:?}");
            let refused = dial(pki, "s2", CONTROLLER_ROLE, 9).await.unwrap_err();
            assert!(text(&refused).contains("PermissionDenied"), "{refused:?}");
            let plain = Target {
                uri: "http://127.0.0.1:9559".into(),
                tls: None,
                device_id: 1,
                role: CONTROLLER_ROLE.into(),
                election_id: 9,
            };
            assert!(P4Client::connect(plain).await.is_err());
            let strangers = tempfile::tempdir().unwrap();
            certificates(strangers.path(), &["controller"]);
            assert!(dial(strangers.path(), "controller", CONTROLLER_ROLE, 9).await.is_err());
        });
        // The next agent refuses what this one would.
        agent.kill();
        let agent = Agent::start(managed(&place));
        block_on(async {
            until("P4Runtime listens", async || {
                dial(pki, "controller", CONTROLLER_ROLE, 1).await.is_ok()
            })
            .await;
            let (client, channel) = dial(pki, "controller", CONTROLLER_ROLE, 7).await.unwrap();
            assert!(!channel.is_primary() && channel.highest() == 8);
            assert!(client.write(&inserts([access(1)])).await.is_err());
            let (client, channel) = dial(pki, "controller", CONTROLLER_ROLE, 8).await.unwrap();
            assert!(channel.is_primary());
            assert_eq!(client.read_entries().await.unwrap(), [generation(5)]);
        });
        agent.kill();
    });
}

#[test]
fn the_controller_is_told_what_happens() {
    in_netns(|| {
        let place = Place::new();
        let pki = place.dir.path();
        certificates(pki, &["controller", "s1"]);
        let a = Host::new("a");
        a.cable("p1");
        let agent = Agent::start(managed(&place));
        block_on(async {
            let listener = Listener::default();
            let serving = listener.start(pki);
            until("the switch registers", async || {
                listener.has(|message| matches!(message, Message::Register(_)))
            })
            .await;
            until("port 1 is up", async || {
                listener.has(|message| match message {
                    Message::Port(port) => port.name == "p1" && port.up,
                    Message::Register(register) => register.ports.iter().any(|port| port.up),
                    _ => false,
                })
            })
            .await;
            assert!(listener.heard.lock().unwrap().iter().all(|(name, _)| name == "s1"));

            // LLDP both ways; a port that is not enabled drops everything.
            let (client, _channel) = dial(pki, "controller", CONTROLLER_ROLE, 1).await.unwrap();
            client.write(&inserts([access(1)])).await.unwrap();
            let sent = a.start(|| {
                block_on(async {
                    let mut socket = PacketSocket::open(frame::ETHERTYPE).unwrap();
                    socket.refresh().unwrap();
                    let index = nix::net::if_::if_nametoindex("eth0").unwrap();
                    let ttl = Duration::from_secs(2);
                    socket.send(index, &frame::encode([2; 6], "s9", "p3", ttl, None)).unwrap();
                    let mut bytes = [0; FRAME_MAX];
                    let heard =
                        tokio::time::timeout(Duration::from_secs(8), socket.recv(&mut bytes));
                    let (len, from) = heard.await.unwrap().unwrap();
                    assert_eq!(from, index);
                    let ours = frame::parse(&bytes[..len]).unwrap();
                    (ours.advertisement, ours.proof)
                })
            });
            until("the neighbor is told", async || {
                listener.has(|message| match message {
                    Message::Neighbor(n) => {
                        (n.chassis.as_str(), n.port_name.as_str()) == ("s9", "p3")
                    }
                    _ => false,
                })
            })
            .await;
            let (ours, proof) = sent.recv().unwrap();
            assert_eq!((ours.chassis.as_str(), ours.port.as_str()), ("s1", "p1"));
            assert_eq!(proof, None, "a host is shown no proof");
            until("the neighbor expires", async || {
                listener
                    .has(|message| matches!(message, Message::Neighbor(n) if n.chassis.is_empty()))
            })
            .await;

            // An address that nobody bound.
            a.address("10.1.0.77");
            let _ = a.start(|| {
                let socket = std::net::UdpSocket::bind("10.1.0.77:0").unwrap();
                for _ in 0..20 {
                    let _ = socket.send_to(b"x", "10.1.0.1:9");
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
            until("the endpoint is seen", async || {
                listener.has(|message| match message {
                    Message::EndpointSeen(seen) => seen.port == 1 && seen.address == [10, 1, 0, 77],
                    _ => false,
                })
            })
            .await;

            // A hook, where there is no compute.
            let load = v1::LoadHook { hook: 3, ..Default::default() };
            listener.say(v1::to_switch::Message::LoadHook(load)).await;
            until("the hook is refused", async || {
                listener.has(|message| match message {
                    Message::HookState(h) => {
                        h.hook == 3 && h.state() == v1::hook_state::State::Refused
                    }
                    _ => false,
                })
            })
            .await;

            // The controller goes and returns: everything is told again.
            drop(serving);
            let listener = Listener::default();
            let serving = listener.start(pki);
            until("the switch registers again, whole", async || {
                listener.has(|message| match message {
                    Message::Register(r) => {
                        r.ports.len() == 1
                            && r.hooks.len() == 1
                            && r.p4runtime_address == "127.0.0.1:9559"
                    }
                    _ => false,
                })
            })
            .await;

            ip("link delete p1");
            until("the port is gone", async || {
                listener.has(|message| matches!(message, Message::PortGone(p) if p.id == 1))
            })
            .await;
            drop(serving);
        });
        agent.kill();
    });
}

/// Sends LLDP frames in this thread's namespace.
struct Speaker {
    socket: PacketSocket,
    eth0: u32,
}

impl Speaker {
    fn open() -> Self {
        let mut socket = PacketSocket::open(frame::ETHERTYPE).unwrap();
        socket.refresh().unwrap();
        Self { socket, eth0: nix::net::if_::if_nametoindex("eth0").unwrap() }
    }

    /// `false`: the queue was full.
    fn say(&self, chassis: &str, key: Option<&Key>) -> bool {
        let ttl = Duration::from_secs(20);
        let encode =
            |prover: Option<frame::Prover<'_>>| frame::encode([2; 6], chassis, "p9", ttl, prover);
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
        let frame = match key {
            Some(key) => key.proving(now, |prover| encode(Some(prover))),
            None => encode(None),
        };
        self.socket.send(self.eth0, &frame).is_ok()
    }
}

#[test]
fn who_has_the_key_is_believed_and_whoever_shouts_does_no_harm() {
    in_netns(|| {
        let place = Place::new();
        let pki = place.dir.path();
        certificates(pki, &["controller", "s1"]);
        let (switch, host) = (Host::new("a"), Host::new("b"));
        switch.cable("p1");
        host.cable("p2");
        let agent = Agent::start(managed(&place));
        block_on(async {
            let listener = Listener::default();
            let serving = listener.start(pki);
            until("the switch registers", async || {
                listener.has(|message| matches!(message, Message::Register(_)))
            })
            .await;
            until("P4Runtime listens", async || {
                dial(pki, "controller", CONTROLLER_ROLE, 1).await.is_ok()
            })
            .await;
            let (client, _channel) = dial(pki, "controller", CONTROLLER_ROLE, 1).await.unwrap();
            let fabric = Entry::Port(PortEntry { port: PortId(1), kind: PortKind::Fabric });
            client.write(&inserts([fabric, access(2)])).await.unwrap();
            let secret = [7; KEY_LEN];
            let keys = v1::DiscoveryKeys { keys: vec![secret.to_vec(), vec![8; KEY_LEN]] };
            listener.say(v1::to_switch::Message::DiscoveryKeys(keys)).await;

            let proven = switch.run(move || {
                block_on(async {
                    let socket = PacketSocket::open(frame::ETHERTYPE).unwrap();
                    let key = Key::new(&secret);
                    let mut bytes = [0; FRAME_MAX];
                    let proven = async {
                        loop {
                            let (len, _) = socket.recv(&mut bytes).await.unwrap();
                            if let Some(proof) = frame::parse(&bytes[..len]).unwrap().proof {
                                return key.holds(&bytes[..len], &proof);
                            }
                        }
                    };
                    tokio::time::timeout(PATIENCE, proven).await
                })
            });
            assert_eq!(proven, Ok(true), "the switch proves what it says");

            let neighbor = |chassis: &str, authenticated| {
                listener.has(|message| match message {
                    Message::Neighbor(n) => {
                        n.chassis == chassis && n.authenticated == authenticated
                    }
                    _ => false,
                })
            };
            let said = switch.run(move || {
                block_on(async {
                    let speaker = Speaker::open();
                    speaker.say("forger", Some(&Key::new(&[9; KEY_LEN])))
                        && speaker.say("nobody", None)
                        && speaker.say("s2", Some(&Key::new(&secret)))
                })
            });
            assert!(said);
            until("s2 is believed", async || neighbor("s2", true)).await;
            until("the others are counted", async || {
                listener.has(|message| match message {
                    Message::Discovery(d) => (d.unknown_key, d.unauthenticated) == (1, 1),
                    _ => false,
                })
            })
            .await;

            // A host shouts, and repeats what it got hold of; who has the key is heard.
            let until_then = std::time::Instant::now() + Duration::from_millis(2_500);
            let shouting = host.start(move || {
                block_on(async {
                    let (speaker, key) = (Speaker::open(), Key::new(&secret));
                    let mut sent = 0_u64;
                    while std::time::Instant::now() < until_then {
                        sent += u64::from(speaker.say("liar", Some(&key)));
                    }
                    sent
                })
            });
            until("the liar is heard", async || neighbor("liar", false)).await;
            switch.run(move || {
                block_on(async { assert!(Speaker::open().say("s3", Some(&Key::new(&secret)))) });
            });
            until("s3 is believed", async || neighbor("s3", true)).await;
            assert!(std::time::Instant::now() < until_then, "it was to be heard meanwhile");
            let sent = shouting.recv().unwrap();
            until("all is counted", async || {
                listener.has(|message| matches!(message, Message::Discovery(d) if d.limited > 2))
            })
            .await;
            let heard = listener.heard.lock().unwrap();
            let mut received = heard.iter().filter_map(|(_, message)| match message {
                Message::Discovery(d) => Some((d.received, d.misplaced)),
                _ => None,
            });
            let (received, misplaced) = received.next_back().unwrap();
            assert!((1..=40).contains(&misplaced), "ten a second: {misplaced}");
            assert!(sent > 20_000 && received < sent / 5, "{received} of {sent} reached the agent");
            let told = |name: &str, yes| {
                heard.iter().any(|(_, message)| match message {
                    Message::Neighbor(n) => n.chassis == name && n.authenticated == yes,
                    _ => false,
                })
            };
            assert!(!told("liar", true) && !told("forger", false) && !told("nobody", false));
            drop(heard);
            drop(serving);
        });
        agent.kill();
    });
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    in_netns(|| {
        let place = Place::new();
        certificates(place.dir.path(), &["controller", "s2"]);
        let missing = Agent::start(managed(&place)).failure();
        assert!(missing.contains("s1.pem"), "{missing}");
        std::fs::copy(place.dir.path().join("s2.pem"), place.dir.path().join("s1.pem")).unwrap();
        std::fs::copy(place.dir.path().join("s2.key"), place.dir.path().join("s1.key")).unwrap();
        let other = Agent::start(managed(&place)).failure();
        assert!(other.contains("s2"), "{other}");
        let elsewhere =
            Options { p4runtime: "192.0.2.9:9559".parse().unwrap(), ..place.unmanaged() };
        let elsewhere = Agent::start(elsewhere).failure();
        assert!(elsewhere.contains("192.0.2.9:9559"), "{elsewhere}");
        let file = Options { run_dir: "/proc/version/x".into(), ..place.unmanaged() };
        let file = Agent::start(file).failure();
        assert!(file.contains("/proc/version/x"), "{file}");
    });
}
