//! An etcd cluster on loopback: processes and directories of our own, gone when dropped.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(crate) struct Cluster {
    children: Vec<Child>,
    pub(crate) members: Vec<String>,
    _dir: tempfile::TempDir,
}

impl Cluster {
    /// `size` members; `more` are further arguments of etcd.
    pub(crate) fn start(size: usize, more: &[&str]) -> Self {
        Self::start_with("http", size, more)
    }

    /// As [`start`](Self::start); `scheme` is what clients come by.
    pub(crate) fn start_with(scheme: &str, size: usize, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Free at this moment; all are held until all are known.
        let held: Vec<TcpListener> =
            (0..2 * size).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = held.iter().map(|l| l.local_addr().unwrap().port()).collect();
        drop(held);
        let peer = |n: usize| format!("http://127.0.0.1:{}", ports[size + n]);
        let peers: Vec<String> = (0..size).map(|n| format!("m{n}={}", peer(n))).collect();
        let mut cluster = Self { children: Vec::new(), members: Vec::new(), _dir: dir };
        for (n, port) in ports.iter().enumerate().take(size) {
            let client = format!("{scheme}://127.0.0.1:{port}");
            let log = std::fs::File::create(cluster._dir.path().join(format!("m{n}.log"))).unwrap();
            let child = Command::new("etcd")
                .args(["--name", &format!("m{n}"), "--data-dir"])
                .arg(cluster._dir.path().join(format!("m{n}")))
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer(n), "--initial-advertise-peer-urls", &peer(n)])
                .args(["--initial-cluster", &peers.join(",")])
                .args(["--max-txn-ops", "65536", "--max-request-bytes", "33554432"])
                .args(more)
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .expect("etcd is installed: cargo xtask setup --test");
            cluster.children.push(child);
            cluster.members.push(format!("127.0.0.1:{port}"));
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        for member in &cluster.members {
            while TcpStream::connect(member).is_err() {
                assert!(Instant::now() < deadline, "etcd does not listen at {member}");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        cluster
    }

    /// By the JSON gateway of etcd 3.4.
    pub(crate) fn delete(&self, key: &str) {
        use base64::Engine as _;
        use std::io::{Read as _, Write as _};
        let key = base64::engine::general_purpose::STANDARD.encode(key);
        let body = format!("{{\"key\":\"{key}\"}}");
        let mut stream = TcpStream::connect(&self.members[0]).unwrap();
        let (host, length) = (&self.members[0], body.len());
        write!(
            stream,
            "POST /v3/kv/deleterange HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("\"deleted\":\"1\""), "{answer}");
    }

    pub(crate) fn signal(&self, member: usize, signal: Signal) {
        let pid = i32::try_from(self.children[member].id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
