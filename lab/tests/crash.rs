//! `selvedge lab up` killed in the middle: what is left is listed, and goes.

mod common;

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use common::{binary, unique};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use selvedge_lab::{LabError, list, netns, run_dir};
use selvedge_topology::NodeName;

/// A ring of switches, large enough that bringing it up takes a while.
fn ring(name: &str) -> String {
    const SIZE: usize = 30;
    let mut text = format!("name: {name}\ntopology:\n  nodes:\n");
    for node in 0..SIZE {
        text += &format!("    s{node}: {{ kind: switch }}\n");
        text += &format!("    h{node}: {{ kind: host, ipv4: 10.0.0.{}/32 }}\n", node + 1);
    }
    text += "  links:\n";
    for node in 0..SIZE {
        let next = (node + 1) % SIZE;
        text += &format!(
            "    - {{ endpoints: ['s{node}:p1', 's{next}:p2'], capacity: 10Mbps, delay: 1ms }}\n"
        );
        text += &format!("    - {{ endpoints: ['s{node}:p3', 'h{node}:eth0'] }}\n");
    }
    text
}

fn traces(lab: &NodeName) -> Vec<String> {
    let prefix = format!("{lab}-");
    let spaces = std::fs::read_dir(netns::DIR).unwrap();
    let spaces = spaces.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut found: Vec<_> = spaces.filter(|name| name.starts_with(&prefix)).collect();
    found.extend(run_dir(lab).exists().then(|| run_dir(lab).display().to_string()));
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        // The relays say which lab they are of by their log alone, which is their output.
        let output = std::fs::read_link(entry.path().join("fd/1")).unwrap_or_default();
        if output.starts_with(run_dir(lab)) {
            found.push(entry.path().display().to_string());
        }
    }
    found
}

/// Takes away what a failed assertion leaves.
struct Sweep(NodeName);

impl Drop for Sweep {
    fn drop(&mut self) {
        let _ = selvedge_lab::down(&self.0);
    }
}

#[test]
fn whatever_a_crash_leaves_is_listed_and_goes() {
    assert!(binary().exists(), "cargo build -p selvedge first");
    let dir = std::env::temp_dir().join(unique("crash"));
    std::fs::create_dir_all(&dir).unwrap();
    let mut left_over = 0;
    for (round, after_ms) in [5, 20, 50, 90, 140, 200, 300, 500, 5].into_iter().enumerate() {
        let name: NodeName = unique(&format!("crash{round}")).parse().unwrap();
        let sweep = Sweep(name.clone());
        let file = dir.join("ring.yaml");
        std::fs::write(&file, ring(name.as_str())).unwrap();
        let signal = if round % 3 == 2 { Signal::SIGINT } else { Signal::SIGKILL };
        let mut up = Command::new(binary())
            .args(["lab", "up", "--cables"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_millis(after_ms));
        // It may have come through by then.
        let _ = kill(Pid::from_raw(i32::try_from(up.id()).unwrap()), signal);
        let status = up.wait().unwrap();

        let found = list().unwrap().into_iter().find(|lab| lab.name == name);
        let about = format!("{signal} after {after_ms} ms, {status}");
        if let Some(found) = &found {
            assert_eq!(found.is_leftover(), !found.is_running(), "{about}");
            left_over += u32::from(found.is_leftover());
        } else {
            assert_eq!(traces(&name), Vec::<String>::new(), "{about}: not listed, but there");
        }
        if signal == Signal::SIGINT && !status.success() {
            assert!(found.is_none(), "{about}: an interrupted one cleans up itself");
        }
        match selvedge_lab::down(&name) {
            Ok(()) => assert!(found.is_some(), "{about}"),
            Err(LabError::NoSuchLab { .. }) => assert!(found.is_none(), "{about}"),
            Err(error) => panic!("{about}: {error:?}"),
        }
        assert_eq!(traces(&name), Vec::<String>::new(), "{about}");
        let again = selvedge_lab::down(&name).unwrap_err();
        assert!(matches!(again, LabError::NoSuchLab { .. }), "{about}: {again}");
        drop(sweep);
    }
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(left_over > 0, "no round was cut short: the test does not bite");
}
