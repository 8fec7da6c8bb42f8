//! Somebody else's P4Runtime client, p4runtime-shell 0.0.6 from PyPI, at an unmanaged switch:
//! it reads the P4Info and every table, inserts and removes entries, and a second client with
//! a lower election id is refused for writes.

use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use selvedge_tests::{binary, file};

/// A switch's agent; ended, and the switch taken off, when dropped.
struct Switch {
    agent: Child,
    instance: String,
}

impl Switch {
    fn start(instance: String) -> Self {
        let args = ["switch", "--name", "s1", "--unmanaged", "--ports", "p*", "--instance"];
        let agent = Command::new(binary().unwrap()).args(args).arg(&instance).spawn().unwrap();
        Self { agent, instance }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.agent.id()).expect("a process id"));
        // It may have ended already, which the assertion below tells.
        let _ = kill(pid, Signal::SIGTERM);
        let ended = self.agent.wait();
        let removed = Command::new(binary().unwrap())
            .args(["switch", "--remove", "--instance", &self.instance])
            .status();
        if !thread::panicking() {
            assert!(ended.unwrap().success(), "SIGTERM is a good end");
            assert!(removed.unwrap().success());
        }
    }
}

fn ip(args: &str) {
    let status = Command::new("ip").args(args.split_whitespace()).status();
    assert!(status.expect("iproute2 is installed").success(), "ip {args}");
}

#[test]
fn p4runtime_shell_programs_an_unmanaged_switch() {
    let python = file("target/venv/bin/python3");
    assert!(python.exists(), "p4runtime-shell is not installed: cargo xtask setup");
    let session = thread::spawn(move || {
        // The namespace goes with this thread and the processes it starts.
        unshare(CloneFlags::CLONE_NEWNET).expect("as root: CAP_SYS_ADMIN");
        ip("link set lo up");
        ip("link add p1 type veth peer name x1");
        ip("link set x1 up");
        let mut switch = Switch::start(format!("test-shell-{}", std::process::id()));
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect("127.0.0.1:9559").is_err() {
            assert!(switch.agent.try_wait().unwrap().is_none(), "the agent ended");
            assert!(Instant::now() < deadline, "nobody listens");
            thread::sleep(Duration::from_millis(20));
        }
        // Ports follow the server at once, but not before it.
        let script = file("tests/tests/p4runtime_shell.py");
        let output = Command::new(&python).arg(script).output().unwrap();
        let (said, failed) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{said}{failed}");
        assert!(said.contains("You are not the primary client"), "{said}");
        drop(switch);
    });
    if let Err(panic) = session.join() {
        std::panic::resume_unwind(panic);
    }
}
