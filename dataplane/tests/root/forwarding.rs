//! An unmanaged switch between two hosts.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use selvedge_dataplane::PortRule;
use selvedge_pipeline::{Code, CounterKind, Entry};
use selvedge_southbound::client::{Update, WriteError};

use super::support::{
    Agent, Host, Place, access, block_on, connect, endpoint, in_netns, inserts, ip, until,
};

pub(crate) const A: &str = "10.1.0.11";
pub(crate) const B: &str = "10.1.0.12";

/// Tells what runs on hosts to stop, also when a test panics: hosts are waited for.
pub(crate) struct Stop(pub(crate) Arc<AtomicBool>);

impl Stop {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicBool::new(false)))
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Answers every datagram until told to stop.
pub(crate) fn echo(host: &Host, stop: &Stop) {
    let stop = Arc::clone(&stop.0);
    host.start(move || {
        let socket = UdpSocket::bind((B, 7)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut bytes = [0; 2048];
        while !stop.load(Ordering::Relaxed) {
            if let Ok((len, from)) = socket.recv_from(&mut bytes) {
                socket.send_to(&bytes[..len], from).unwrap();
            }
        }
    });
}

/// How many of `count` datagrams come back, each given 500 ms.
pub(crate) fn exchange(host: &Host, count: u32) -> u32 {
    host.run(move || {
        let socket = UdpSocket::bind((A, 0)).unwrap();
        socket.connect((B, 7)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let sent = |n: u32| {
            socket.send(&n.to_be_bytes()).unwrap();
            socket.recv(&mut [0; 2048]).is_ok()
        };
        (0..count).filter(|n| sent(*n)).count() as u32
    })
}

fn program(a: &Host, b: &Host) -> Vec<Entry> {
    let mut entries = vec![access(1), access(2)];
    entries.extend(endpoint(1, A, a.mac()));
    entries.extend(endpoint(2, B, b.mac()));
    entries
}

#[test]
fn packets_flow_as_programmed_and_while_the_agent_is_away() {
    in_netns(|| {
        let place = Place::new();
        let (a, b) = (Host::new("a"), Host::new("b"));
        a.cable("p1");
        b.cable("p2");
        a.address(A);
        b.address(B);
        let stop = Stop::new();
        let agent = Agent::start(place.unmanaged());
        let entries = program(&a, &b);
        let read = block_on(async {
            let (client, channel) = connect(1).await;
            assert!(channel.is_primary());
            // Ports are there a moment after the server is.
            until("ports are known", async || {
                match client.write(&inserts(entries[..2].to_vec())).await {
                    Ok(()) => true,
                    Err(WriteError::Updates { failed, .. }) => {
                        failed.iter().all(|failed| failed.code == Code::AlreadyExists)
                    }
                    Err(error) => panic!("{error:?}"),
                }
            })
            .await;
            client.write(&inserts(entries[2..].to_vec())).await.unwrap();
            client.read_entries().await.unwrap()
        });
        let mut wanted = entries.clone();
        wanted.sort();
        let mut read = read;
        read.sort();
        assert_eq!(read, wanted);

        echo(&b, &stop);
        // Address resolution costs the first ones.
        block_on(until("the hosts have found each other", async || exchange(&a, 1) == 1));
        assert_eq!(exchange(&a, 20), 20);

        // The agent goes under traffic, and another takes over under traffic.
        let (sent, running) = (Arc::new(AtomicBool::new(false)), Arc::clone(&stop.0));
        let flow = a.start({
            let sent = Arc::clone(&sent);
            move || {
                let socket = UdpSocket::bind((A, 0)).unwrap();
                socket.connect((B, 7)).unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
                let (mut count, mut lost) = (0u32, 0u32);
                while !running.load(Ordering::Relaxed) {
                    socket.send(b"x").unwrap();
                    lost += u32::from(socket.recv(&mut [0; 8]).is_err());
                    count += 1;
                    sent.store(true, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_micros(200));
                }
                (count, lost)
            }
        });
        while !sent.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        agent.kill();
        std::thread::sleep(Duration::from_millis(300));
        let agent = Agent::start(place.unmanaged());
        let (read, counted) = block_on(async {
            let (client, _channel) = connect(1).await;
            let mut read = client.read_entries().await.unwrap();
            read.sort();
            (read, client.read_counter(CounterKind::PortRx).await.unwrap())
        });
        std::thread::sleep(Duration::from_millis(300));
        drop(stop);
        let (count, lost) = flow.recv().unwrap();
        assert_eq!(lost, 0, "of {count}");
        assert!(count > 500, "{count} datagrams only");
        assert_eq!(read, wanted, "the next agent finds the entries as they were");
        assert!(counted[1].packets >= 20 && counted[0].packets == 0, "{:?}", &counted[..3]);
        agent.kill();
    });
}

#[test]
fn an_interface_that_goes_and_returns_is_the_same_port() {
    in_netns(|| {
        let place = Place::new();
        let (a, b) = (Host::new("a"), Host::new("b"));
        a.cable("p1");
        b.cable("p2");
        a.address(A);
        b.address(B);
        let agent = Agent::start(place.unmanaged());
        block_on(async {
            let (client, _channel) = connect(1).await;
            let entries = program(&a, &b);
            until("ports are known", async || {
                let _ = client.write(&inserts(entries.clone())).await;
                client.read_entries().await.unwrap().len() == entries.len()
            })
            .await;
        });
        let stop = Stop::new();
        echo(&b, &stop);
        block_on(until("the hosts have found each other", async || exchange(&a, 1) == 1));

        // Away for good: another pair of the same name.
        ip("link delete p1");
        let a = Host::new("a");
        a.cable("p1");
        a.address(A);
        let mac = a.mac();
        block_on(async {
            let (client, _channel) = connect(1).await;
            let [_, _, delivery] = endpoint(1, A, mac);
            client.write(&[Update::Modify(delivery)]).await.unwrap();
            until("the new interface forwards", async || exchange(&a, 1) == 1).await;
        });
        assert_eq!(exchange(&a, 20), 20);

        // Down and up again.
        ip("link set p1 down");
        ip("link set p1 up");
        block_on(until("carrier is back", async || exchange(&a, 1) == 1));
        drop(stop);
        agent.kill();
    });
}

#[test]
fn writes_end_as_p4runtime_says() {
    in_netns(|| {
        let place = Place::new();
        let a = Host::new("a");
        a.cable("p1");
        let mut options = place.unmanaged();
        options.ports = vec!["north=p1".parse::<PortRule>().unwrap()];
        let agent = Agent::start(options.clone());
        block_on(async {
            let (client, _channel) = connect(5).await;
            until("the port is known", async || client.write(&inserts([access(1)])).await.is_ok())
                .await;
            let codes = async |updates: &[Update]| match client.write(updates).await {
                Ok(()) => vec![],
                Err(WriteError::Updates { failed, .. }) => {
                    failed.into_iter().map(|failed| (failed.index, failed.code)).collect()
                }
                Err(error) => panic!("{error:?}"),
            };
            let updates = [
                Update::Insert(access(1)),
                Update::Insert(access(2)),
                Update::Modify(access(1)),
                Update::Delete(access(1)),
                Update::Delete(access(1)),
                Update::Modify(access(1)),
            ];
            assert_eq!(
                codes(&updates).await,
                [
                    (0, Code::AlreadyExists),
                    (1, Code::InvalidArgument),
                    (4, Code::NotFound),
                    (5, Code::NotFound),
                ]
            );

            // A second client with a lower election id may read, not write.
            let (second, channel) = connect(4).await;
            assert!(!channel.is_primary());
            assert_eq!(second.read_entries().await.unwrap(), []);
            match second.write(&inserts([access(1)])).await {
                Err(WriteError::Client(error)) => {
                    assert!(format!("{error:?}").contains("PermissionDenied"), "{error:?}");
                }
                other => panic!("{other:?}"),
            }
        });

        // One agent an instance.
        let mut second = options;
        second.p4runtime = "127.0.0.1:9560".parse().unwrap();
        let refused = Agent::start(second).failure();
        let pid = std::process::id().to_string();
        assert!(refused.contains(&place.instance) && refused.contains(&pid), "{refused}");
        agent.kill();
    });
}
