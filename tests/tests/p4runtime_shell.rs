//! Somebody else's P4Runtime clients at an unmanaged switch. p4runtime-shell 0.0.6 from PyPI reads
//! the P4Info and every table, inserts and removes entries, and a second client with a lower
//! election id is refused for writes. ptf 0.12.0 does so with each table, and sends and receives
//! packets: through the switch, by packet-out and by packet-in.

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
    run("ip", args);
}

fn run(program: &str, args: &str) {
    let status = Command::new(program).args(args.split_whitespace()).status();
    assert!(status.expect("it is installed").success(), "{program} {args}");
}

/// A switch with the ports 1 and 2 in a namespace of its own, and a program of target/venv there,
/// which has to succeed: what it said.
fn at_a_switch(instance: &'static str, program: &str, args: &[&str]) -> String {
    let program = file("target/venv/bin").join(program);
    assert!(program.exists(), "{} is not installed: cargo xtask setup", program.display());
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let session = thread::spawn(move || {
        // The namespace goes with this thread and the processes it starts.
        unshare(CloneFlags::CLONE_NEWNET).expect("as root: CAP_SYS_ADMIN");
        // Nobody but the test sends.
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        ip("link set lo up");
        for port in ["1", "2"] {
            ip(&format!("link add p{port} type veth peer name x{port}"));
            ip(&format!("link set x{port} up"));
            // Its driver polls then, and takes what is redirected to it.
            run("ethtool", &format!("-K x{port} gro on"));
        }
        let mut switch = Switch::start(format!("test-{instance}-{}", std::process::id()));
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect("127.0.0.1:9559").is_err() {
            assert!(switch.agent.try_wait().unwrap().is_none(), "the agent ended");
            assert!(Instant::now() < deadline, "nobody listens");
            thread::sleep(Duration::from_millis(20));
        }
        // Ports follow the server at once, but not before it.
        let dir = tempfile::tempdir().unwrap();
        let output = Command::new(&program).args(args).current_dir(dir.path()).output().unwrap();
        let (said, failed) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{said}{failed}");
        drop(switch);
        format!("{said}{failed}")
    });
    match session.join() {
        Ok(said) => said,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

#[test]
fn p4runtime_shell_programs_an_unmanaged_switch() {
    let script = file("tests/tests/p4runtime_shell.py");
    let said = at_a_switch("shell", "python3", &[script.to_str().unwrap()]);
    assert!(said.contains("You are not the primary client"), "{said}");
}

#[test]
fn a_ptf_test_drives_an_unmanaged_switch() {
    let tests = file("tests/tests/ptf");
    let args = ["--test-dir", tests.to_str().unwrap(), "-i", "1@x1", "-i", "2@x2"];
    let said = at_a_switch("ptf", "ptf", &args);
    for test in ["Tables", "Deliver", "Paths", "Rules", "Tags", "Meter", "Packets"] {
        assert!(said.contains(&format!("selvedge.{test} ... ok")), "{said}");
    }
}
