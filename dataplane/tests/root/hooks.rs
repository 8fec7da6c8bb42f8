//! A compute hook in a real Wasm host, through its host's death and the agent's.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use selvedge_dataplane::{ComputeOptions, Options};
use selvedge_pipeline::{
    CounterKind, Entry, HookId, LocalSidAction, LocalSidEntry, NextHopEntry, NodeSid, OnFailure,
    PortId, hook_function,
};
use selvedge_southbound::client::{CONTROLLER_ROLE, P4Client};
use selvedge_southbound::selvedge::v1;
use socket2::{Domain, Protocol, Socket, Type};
use v1::from_switch::Message;
use v1::hook_state::State;

use super::managed::{Listener, dial, managed};
use super::support::{
    Agent, Host, Place, block_on, certificates, fabric, in_netns, inserts, until,
};

const HOOK: HookId = HookId(2);
/// Ethertype of IPv6.
const IPV6: u16 = 0x86DD;

/// The Wasm host, on a thread of this namespace.
struct Wasm {
    stop: Option<OwnedFd>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Wasm {
    fn start(place: &Place) -> Self {
        let (stop, stopped) = std::os::unix::net::UnixStream::pair().unwrap();
        let options = selvedge_wasm::Options { socket: socket(place), drop_privileges: false };
        let thread = std::thread::spawn(move || {
            let stop = selvedge_wasm::StopSignal::on(stopped.into());
            selvedge_wasm::run(&options, &stop).unwrap();
        });
        Self { stop: Some(stop.into()), thread: Some(thread) }
    }
}

impl Drop for Wasm {
    fn drop(&mut self) {
        self.stop = None;
        self.thread.take().unwrap().join().unwrap();
    }
}

fn socket(place: &Place) -> std::path::PathBuf {
    place.dir.path().join("compute.sock")
}

fn options(place: &Place) -> Options {
    let compute = ComputeOptions { socket: socket(place), cpu: 1, memory_bytes: 1 << 30 };
    Options { compute: Some(compute), ..managed(place) }
}

/// An encapsulated packet for node 1, its hook, then node 7; numbered in its payload.
fn packet(number: u32) -> Vec<u8> {
    let mut inner = vec![0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0];
    inner.extend([10, 1, 0, 11, 10, 1, 0, 12]);
    let sum = inner.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum::<u32>();
    let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    inner[10..12].copy_from_slice(&sum.to_be_bytes());
    inner.extend([0x13, 0x88, 0x13, 0x89, 0, 12, 0, 0]);
    inner.extend(number.to_be_bytes());
    let mut frame = vec![2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8];
    frame.extend(IPV6.to_be_bytes());
    frame.extend([0x60, 0, 0, 0]);
    frame.extend((inner.len() as u16).to_be_bytes());
    frame.extend([4, 64]);
    for group in [0x5f00, 0, 9, 0xfffe, 1, 0, 0, 0] {
        frame.extend(u16::to_be_bytes(group));
    }
    for group in [0x5f00, 0, 1, hook_function(HOOK), 7, 0xE001, 0, 0] {
        frame.extend(u16::to_be_bytes(group));
    }
    frame.extend(inner);
    frame
}

/// Sends numbered packets until told to stop; says how many.
fn send(host: &Host, stop: &Arc<AtomicBool>) -> std::sync::mpsc::Receiver<u32> {
    let stop = Arc::clone(stop);
    host.start(move || {
        let socket = raw();
        let mut sent = 0;
        while !stop.load(Ordering::Relaxed) {
            socket.send(&packet(sent)).unwrap();
            sent += 1;
            std::thread::sleep(Duration::from_micros(500));
        }
        sent
    })
}

/// Counts the packets that arrive, until none has for a while after the end.
fn receive(
    host: &Host,
    stop: &Arc<AtomicBool>,
    arrived: &Arc<AtomicU32>,
) -> std::sync::mpsc::Receiver<()> {
    let (stop, arrived) = (Arc::clone(stop), Arc::clone(arrived));
    let (opened, open) = std::sync::mpsc::channel();
    let done = host.start(move || {
        let socket = raw();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        opened.send(()).unwrap();
        let mut last = Instant::now();
        while !stop.load(Ordering::Relaxed) || last.elapsed() < Duration::from_millis(300) {
            let mut bytes = [std::mem::MaybeUninit::uninit(); 256];
            if let Ok(len) = socket.recv(&mut bytes)
                && len == packet(0).len()
            {
                arrived.fetch_add(1, Ordering::Relaxed);
                last = Instant::now();
            }
        }
    });
    // What is sent from here on is seen.
    open.recv().unwrap();
    done
}

/// A packet socket for IPv6 on this host's only link that is up besides `lo`.
fn raw() -> Socket {
    let protocol = Protocol::from(i32::from(IPV6.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).unwrap();
    let address = nix::ifaddrs::getifaddrs()
        .unwrap()
        .filter(|interface| interface.interface_name == "eth0")
        .find_map(|interface| interface.address?.as_link_addr().copied())
        .unwrap();
    // The address says the interface; the protocol in it is none, so the socket's is kept.
    nix::sys::socket::bind(socket.as_raw_fd(), &address).unwrap();
    socket
}

async fn handed_over(client: &P4Client) -> u64 {
    let cells = client.read_counter(CounterKind::Hook).await.unwrap();
    cells[usize::from(HOOK.0)].packets
}

#[test]
fn a_hook_lives_and_dies_and_others_do_not_notice() {
    in_netns(|| {
        let place = Place::new();
        let pki = place.dir.path();
        certificates(pki, &["controller", "s1"]);
        let (a, b) = (Host::new("a"), Host::new("b"));
        a.cable("p1");
        b.cable("p2");
        let agent = Agent::start(options(&place));
        let wasm = Wasm::start(&place);
        let stop = Arc::new(AtomicBool::new(false));
        let arrived = Arc::new(AtomicU32::new(0));
        let mut agent = Some(agent);
        block_on(async {
            let listener = Listener::default();
            let serving = listener.start(pki);
            let state = |wanted: State| {
                let heard = listener.heard.lock().unwrap();
                let last = heard.iter().rev().find_map(|(_, message)| match message {
                    Message::HookState(hook) => Some(hook.state()),
                    Message::Register(r) => r.hooks.first().map(v1::HookState::state),
                    _ => None,
                });
                last == Some(wanted)
            };
            until("both ports are known", async || {
                let ports = |m: &Message, id| match m {
                    Message::Register(r) => r.ports.iter().any(|p| p.id == id),
                    Message::Port(p) => p.id == id,
                    _ => false,
                };
                listener.has(|m| ports(m, 1)) && listener.has(|m| ports(m, 2))
            })
            .await;
            let (client, channel) = dial(pki, "controller", CONTROLLER_ROLE, 1).await.unwrap();
            let local = |sid, action| Entry::LocalSid(LocalSidEntry { sid, action });
            let compute = LocalSidAction::Compute { hook: HOOK, on_failure: OnFailure::Bypass };
            let next_hop = NextHopEntry {
                node: NodeSid(7),
                port: PortId(2),
                mac: [2, 0, 0, 0, 0, 7],
                backup: 0,
            };
            client
                .write(&inserts([
                    fabric(1),
                    fabric(2),
                    local(1, LocalSidAction::Node),
                    local(hook_function(HOOK), compute),
                    Entry::NextHop(next_hop),
                ]))
                .await
                .unwrap();
            let module = wat::parse_str(include_str!("../../../examples/hooks/wat/forward.wat"));
            let load = |module: Vec<u8>| {
                v1::to_switch::Message::LoadHook(v1::LoadHook {
                    hook: HOOK.0.into(),
                    name: "forward".into(),
                    module,
                    ..Default::default()
                })
            };
            let module = module.unwrap();
            listener.say(load(module.clone())).await;
            until("the hook runs", async || state(State::Running)).await;

            let received = receive(&b, &stop, &arrived);
            let sent = send(&a, &stop);
            until("packets come through the hook", async || {
                arrived.load(Ordering::Relaxed) > 100 && handed_over(&client).await > 100
            })
            .await;

            // The agent dies and another takes over; packets go through the hook all along.
            drop((client, channel));
            agent.take().unwrap().kill();
            let before = arrived.load(Ordering::Relaxed);
            until("packets go on without an agent", async || {
                arrived.load(Ordering::Relaxed) > before + 100
            })
            .await;
            agent = Some(Agent::start(options(&place)));
            until("the next agent has the hook", async || {
                dial(pki, "controller", CONTROLLER_ROLE, 2).await.is_ok() && state(State::Running)
            })
            .await;
            let (client, _channel) = dial(pki, "controller", CONTROLLER_ROLE, 3).await.unwrap();
            let hooked = handed_over(&client).await;
            until("packets still go through the hook", async || {
                handed_over(&client).await > hooked + 100
            })
            .await;

            stop.store(true, Ordering::Relaxed);
            let sent = sent.recv().unwrap();
            received.recv().unwrap();
            assert_eq!(arrived.load(Ordering::Relaxed), sent, "none lost over all that");

            // The host dies: down at once, and packets pass by as the segment says.
            let dying = Instant::now();
            drop(wasm);
            until("the hook is down", async || state(State::Down)).await;
            assert!(dying.elapsed() < Duration::from_secs(2), "{:?}", dying.elapsed());
            let hooked = handed_over(&client).await;
            let stop = Arc::new(AtomicBool::new(false));
            let arrived = Arc::new(AtomicU32::new(0));
            let received = receive(&b, &stop, &arrived);
            let sent = send(&a, &stop);
            until("packets pass by", async || arrived.load(Ordering::Relaxed) > 100).await;
            assert_eq!(handed_over(&client).await, hooked);
            stop.store(true, Ordering::Relaxed);
            sent.recv().unwrap();
            received.recv().unwrap();

            // It comes back, and is given its hook without the controller.
            let wasm = Wasm::start(&place);
            until("the hook runs again", async || state(State::Running)).await;

            // A module that is none is refused, and the one that runs goes on.
            listener.say(load(b"\0asm".to_vec())).await;
            until("it is refused", async || state(State::Refused)).await;
            let unload = v1::UnloadHook { hook: HOOK.0.into() };
            listener.say(v1::to_switch::Message::UnloadHook(unload)).await;
            until("the compute port is gone", async || {
                nix::net::if_::if_nametoindex("hk2").is_err()
            })
            .await;
            drop(wasm);
            drop(serving);
        });
        drop(agent);
    });
}
