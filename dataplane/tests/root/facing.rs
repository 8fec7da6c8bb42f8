//! Hosts whose interfaces are as the kernel makes them.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use selvedge_dataplane::ports::facing::{Trouble, Where, trouble};
use selvedge_dataplane::ports::netlink::Netlink;
use selvedge_pipeline::Entry;

use super::support::{
    Agent, Host, PATIENCE, Place, access, block_on, endpoint, ethtool, in_netns, program,
};

const A: &str = "10.1.0.11";
const B: &str = "10.1.0.12";

/// Bytes of a transfer: many windows.
const TRANSFER: usize = 1 << 20;

fn entries(a: &Host, b: &Host) -> Vec<Entry> {
    let mut entries = vec![access(1), access(2)];
    entries.extend(endpoint(1, A, a.mac()));
    entries.extend(endpoint(2, B, b.mac()));
    entries
}

/// How many bytes `b` gets of a transfer over TCP from `a`.
fn transfer(a: &Host, b: &Host) -> usize {
    let listener = b.run(|| TcpListener::bind((B, 7)).unwrap());
    listener.set_nonblocking(true).unwrap();
    let received = b.start(move || {
        let deadline = Instant::now() + PATIENCE;
        let mut stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "nobody connects: {error}"),
            }
            thread::sleep(Duration::from_millis(5));
        };
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        bytes.len()
    });
    a.run(|| {
        let address = (B.parse::<std::net::IpAddr>().unwrap(), 7).into();
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(&vec![0x5a; TRANSFER]).unwrap();
    });
    received.recv().unwrap()
}

/// A host's end that got its GRO while it was down does not tell the switch's end that frames
/// can be redirected to it: they all vanished, address resolution first.
#[test]
fn tcp_flows_to_hosts_that_were_prepared_while_down() {
    in_netns(|| {
        let place = Place::new();
        let (a, b) = (Host::new("a"), Host::new("b"));
        a.plain_cable("p1", Some("gro on tx off"));
        b.plain_cable("p2", Some("gro on tx off"));
        a.address(A);
        b.address(B);
        let agent = Agent::start(place.unmanaged());
        program(&entries(&a, &b));
        assert_eq!(transfer(&a, &b), TRANSFER);
        agent.kill();
    });
}

#[test]
fn what_only_the_far_end_can_do_is_said() {
    in_netns(|| {
        let place = Place::new();
        let (a, b) = (Host::new("a"), Host::new("b"));
        a.plain_cable("p1", None);
        b.plain_cable("p2", None);
        let space = a.namespace();
        let agent = Agent::start(place.unmanaged());
        program(&entries(&a, &b));
        let look = |port: &'static str| {
            block_on(async {
                let link = Netlink::open().unwrap().find(port).await.unwrap().unwrap();
                trouble(&link).unwrap()
            })
        };

        let there = Where::Namespace(space.0.clone(), "eth0".into());
        let found = look("p1");
        assert_eq!(found, Some(Trouble::NotPolled("p1".into(), there.clone())));
        let advice = format!("ip netns exec {} ethtool -K eth0 gro on tx off", space.0);
        assert!(found.unwrap().to_string().ends_with(&advice));
        assert_eq!(look("p2"), Some(Trouble::NotPolled("p2".into(), Where::Unknown)));

        a.run(|| ethtool("gro on"));
        assert_eq!(look("p1"), Some(Trouble::Checksums("p1".into(), there)));
        a.run(|| ethtool("tx off"));
        assert_eq!(look("p1"), None);
        agent.kill();
    });
}
