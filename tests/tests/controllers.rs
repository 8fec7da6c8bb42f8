//! Several controllers on an etcd of three members: one dies, sleeps or loses the majority of its
//! store, under traffic.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use selvedge_lab::{Lab, ProcessName, Signal};
use selvedge_tests::scenario::{self, METRO, PATIENCE, SLICES};
use selvedge_tests::{Running, apply, eventually, json, selvedge, succeed, up_with};
use serde_json::Value;

/// What the network may be without a controller (issue 3).
const WITHOUT_CONTROL: Duration = Duration::from_secs(4);
/// Further deaths of leaders, where one took longer.
const TRIES: usize = 3;

fn several(name: &str) -> Result<Running> {
    let lab = up_with(name, METRO, |options| options.controllers = 2)?;
    scenario::apply_slices(&lab)?;
    Ok(lab)
}

/// A slice that fits.
fn slice(name: &str, rate: &str) -> String {
    format!(
        "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: {{ name: {name} }}\nspec:\n  \
         uplink: {{ guaranteed: {rate} }}\n  endpoints: [{{ ue: phone-1 }}, {{ dn: video }}]\n"
    )
}

/// What the leader says; followers know it a moment later.
fn leaders(lab: &Lab, args: &[&str]) -> Result<Value> {
    let [(_, socket), _] = roles(lab)?;
    json(lab, &[args, &["--controller", &format!("unix:{}", socket.display())]].concat())
}

fn slices(lab: &Lab) -> Result<Vec<String>> {
    let slices = leaders(lab, &["get", "slices"])?;
    let names = slices.as_array().context("a list")?.iter();
    Ok(names.filter_map(|slice| slice["name"].as_str().map(str::to_owned)).collect())
}

/// The controller that leads and its socket; the one that does not and its socket.
fn roles(lab: &Lab) -> Result<[(ProcessName, PathBuf); 2]> {
    let leader = lab.leader()?.context("a controller that leads")?;
    let controllers = lab.controllers()?.into_iter();
    let (mut leads, mut follows): (Vec<_>, Vec<_>) =
        controllers.partition(|(name, _)| *name == leader);
    Ok([leads.remove(0), follows.remove(0)])
}

/// Status, `selvedge-leader` and body of an answer.
type Answer = (u16, Option<String>, Value);

/// Sends a request, and leaves its answer for [`answer`].
fn ask(socket: &Path, method: &str, path: &str, body: &str) -> Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    // At once: who refuses may answer and hang up before he has read the body.
    stream.write_all(request.as_bytes())?;
    Ok(stream)
}

fn answer(mut stream: UnixStream) -> Result<Answer> {
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("a head and a body")?;
    let status = head.split(' ').nth(1).context("a status")?.parse()?;
    let field = head.lines().find_map(|line| line.strip_prefix("selvedge-leader: "));
    Ok((status, field.map(str::to_owned), serde_json::from_str(body).unwrap_or_default()))
}

fn apply_to(socket: &Path, documents: &str) -> Result<UnixStream> {
    ask(socket, "POST", "/v1/apply", &serde_json::json!({ "documents": documents }).to_string())
}

/// Until it is refused no more: how long that took.
fn until_applied(lab: &Lab, documents: &str) -> Result<Duration> {
    let path = selvedge_tests::intent_file(lab, documents)?;
    let path = path.to_str().context("UTF-8")?;
    let start = Instant::now();
    loop {
        match leaders(lab, &["apply", path]) {
            Ok(_) => return Ok(start.elapsed()),
            Err(error) if start.elapsed() > PATIENCE => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Kills the leader under traffic: who led, and how long nobody did in the end.
fn leader_dies(lab: &Lab) -> Result<(ProcessName, Duration)> {
    let [(leader, _), (other, _)] = roles(lab)?;
    let mut without = Duration::ZERO;
    let (_, report) = scenario::interruption(lab, || {
        ensure!(lab.kill(&leader)?, "{leader} did not run");
        let dead = Instant::now();
        until_applied(lab, &slice("late", "1Mbps"))?;
        lab.converged(PATIENCE)?;
        without = dead.elapsed();
        Ok(())
    })?;
    println!("kill -9 of the leader: {without:?} without control, {} lost", report.lost());
    ensure!(report.lost() == 0, "{} packets were lost", report.lost());
    ensure!(lab.leader()?.as_ref() == Some(&other), "{other} does not lead");
    Ok((leader, without))
}

#[test]
fn the_leaders_death_costs_seconds_of_control_and_no_packet() -> Result<()> {
    let lab = several("t-lead")?;
    let (mut leader, mut without) = leader_dies(&lab)?;
    // Processes of a lab wait for a processor where something else is built meanwhile.
    for _ in 0..TRIES {
        if without <= WITHOUT_CONTROL {
            break;
        }
        lab.start(&leader)?;
        succeed(&lab, &["delete", "slice/late"])?;
        (leader, without) = leader_dies(&lab)?;
    }
    assert!(without <= WITHOUT_CONTROL, "{without:?} without control");

    // The one that died follows when it is back: it reads what the store has, and says who leads.
    lab.start(&leader)?;
    let [(_, others_socket), (_, socket)] = roles(&lab)?;
    let leads = format!("unix:{}", others_socket.display());
    eventually("following", PATIENCE, || {
        let Ok(stream) = ask(&socket, "GET", "/v1/status", "") else { return Ok(false) };
        let (_, _, status) = answer(stream)?;
        Ok(status["role"] == "follower" && status["leader"] == leads.as_str())
    })?;
    let read = |path: &str| answer(ask(&socket, "GET", path, "")?);
    eventually("the slice", PATIENCE, || Ok(read("/v1/slices/late")?.0 == 200))?;
    for (method, path, body) in [
        ("POST", "/v1/apply", r#"{"documents":""}"#),
        ("DELETE", "/v1/slices/late", ""),
        ("GET", "/v1/nodes/s1/counters", ""),
        ("POST", "/mec_service_mgmt/v1/applications/camera/services", "{}"),
    ] {
        let (status, leader, body) = answer(ask(&socket, method, path, body)?)?;
        assert_eq!((status, leader.as_deref()), (503, Some(leads.as_str())), "{path}: {body}");
        assert!(body["detail"].as_str().is_some_and(|detail| detail.contains(&leads)), "{body}");
    }
    // The command line goes on to the leader by itself, and has the follower's word on its role.
    let only = format!("unix:{}", socket.display());
    succeed(&lab, &["delete", "slice/late", "--controller", &only])?;
    let text = succeed(&lab, &["get", "status", "--controller", &only])?;
    assert!(text.contains("follower") && text.contains(&leads), "{text}");
    eventually("the slice is gone", PATIENCE, || Ok(read("/v1/slices/late")?.0 == 404))
}

#[test]
fn a_paused_leader_that_wakes_up_writes_nothing() -> Result<()> {
    let lab = several("t-paused")?;
    let [(leader, socket), (other, _)] = roles(&lab)?;
    let pid = lab.processes()?.into_iter().find_map(|(name, pid)| pid.filter(|_| name == leader));
    let pid = pid.context("the leader runs")?;
    let (_, report) = scenario::interruption(&lab, || {
        pid.signal(Signal::SIGSTOP)?;
        eventually("the other leads", PATIENCE, || Ok(lab.leader()?.as_ref() == Some(&other)))
            .inspect_err(|_| drop(pid.signal(Signal::SIGCONT)))?;
        // Asked of the one that sleeps, which does not know yet.
        let stale = apply_to(&socket, &slice("stale", "1Mbps"))?;
        until_applied(&lab, &slice("late", "1Mbps"))?;
        lab.converged(PATIENCE)?;
        let before = leaders(&lab, &["get", "status"])?;
        pid.signal(Signal::SIGCONT)?;

        let (status, _, body) = answer(stale)?;
        ensure!(status == 503, "it was told {status}: {body}");
        eventually("following", PATIENCE, || {
            let (_, _, status) = answer(ask(&socket, "GET", "/v1/status", "")?)?;
            Ok(status["role"] == "follower")
        })?;
        lab.converged(PATIENCE)?;
        let after = leaders(&lab, &["get", "status"])?;
        for field in ["leader", "revision", "generation", "writes", "converged"] {
            ensure!(before[field] == after[field], "{field}: {before} became {after}");
        }
        let slices = slices(&lab)?;
        ensure!(slices.iter().any(|name| name == "late"), "{slices:?}");
        ensure!(!slices.iter().any(|name| name == "stale"), "{slices:?}");
        Ok(())
    })?;
    println!("a leader slept and woke up: {} lost", report.lost());
    assert_eq!(report.lost(), 0);
    Ok(())
}

#[test]
fn without_a_majority_of_etcd_no_intent_is_acknowledged_and_the_rest_goes_on() -> Result<()> {
    let lab = several("t-quorum")?;
    let (_, report) = scenario::interruption(&lab, || {
        for member in [1, 2] {
            ensure!(lab.kill(&ProcessName::Etcd(member))?, "etcd {member} did not run");
        }
        let path = selvedge_tests::intent_file(&lab, &slice("late", "1Mbps"))?;
        let refused = selvedge(&lab, &["apply", path.to_str().context("UTF-8")?])?;
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(refused.status.code() == Some(1) && why.contains("etcd://"), "{why}");
        // Reads go on, and say what is wrong.
        let [(_, socket), _] = roles(&lab)?;
        let (status, _, slice) = answer(ask(&socket, "GET", "/v1/slices/factory-control", "")?)?;
        ensure!(status == 200, "{slice}");
        eventually("told in the status", PATIENCE, || {
            let (_, _, status) = answer(ask(&socket, "GET", "/v1/status", "")?)?;
            Ok(status["store_unwritable"].is_string())
        })?;
        lab.start(&ProcessName::Etcd(1))?;
        let took = until_applied(&lab, &slice_of("late"))?;
        println!("two of three members are back to being two: changes again after {took:?}");
        lab.converged(PATIENCE)?;
        ensure!(slices(&lab)?.iter().any(|name| name == "late"));
        lab.start(&ProcessName::Etcd(2))?;
        Ok(())
    })?;
    println!("etcd without a majority: {} lost", report.lost());
    assert_eq!(report.lost(), 0);
    Ok(())
}

/// As [`slice`], with another rate than the one that was refused.
fn slice_of(name: &str) -> String {
    slice(name, "2Mbps")
}

/// Runs `selvedge` where etcd can be reached.
fn beside_etcd(lab: &Lab, args: &[&str]) -> Result<(bool, String)> {
    let binary = selvedge_tests::binary()?;
    let command = [&[binary.to_str().context("UTF-8")?], args].concat();
    let output = lab.output("mgmt", &command)?;
    let said = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
    Ok((output.status.success(), said.concat()))
}

const ETCD: &str = "etcd://127.0.0.1:2379,127.0.0.2:2379,127.0.0.3:2379";

#[test]
fn a_backup_restores_to_etcd_and_to_a_file_and_switches_obey() -> Result<()> {
    let lab = several("t-backup")?;
    let in_run_dir = |name: &str| {
        Ok::<_, anyhow::Error>(lab.run_dir().join(name).to_str().context("UTF-8")?.to_owned())
    };
    let (file, redb) = (in_run_dir("taken.backup")?, in_run_dir("copy.redb")?);
    let taken = json(&lab, &["backup", &file])?;
    ensure!(taken["records"].as_u64() > Some(5), "{taken}");
    apply(&lab, &slice("late", "1Mbps"))?;
    succeed(&lab, &["delete", "slice/factory-control"])?;
    lab.converged(PATIENCE)?;
    let newest = leaders(&lab, &["get", "status"])?["generation"].as_u64().context("a number")?;

    // Under a controller's feet, over something, garbled, cut off: nothing happens.
    let restore = ["restore", &file, "--store", ETCD];
    let replace = [&restore[..], &["--replace"]].concat();
    let (done, said) = beside_etcd(&lab, &replace)?;
    ensure!(!done && said.contains("unix:") && said.contains("stop"), "{said}");
    let bytes = std::fs::read(&file)?;
    let bad = in_run_dir("bad.backup")?;
    let mut garbled = bytes.clone();
    garbled[bytes.len() / 2] ^= 1;
    for bad_bytes in [&bytes[..bytes.len() - 100], &garbled] {
        std::fs::write(&bad, bad_bytes)?;
        let (done, said) = beside_etcd(&lab, &["restore", &bad, "--store", ETCD, "--replace"])?;
        ensure!(!done && said.contains("not whole"), "{said}");
    }

    let controllers: Vec<_> = lab.controllers()?.into_iter().map(|(name, _)| name).collect();
    for controller in &controllers {
        lab.stop(controller, Signal::SIGTERM)?;
    }
    let (done, said) = beside_etcd(&lab, &restore)?;
    ensure!(!done && said.contains("--replace"), "{said}");
    let (_, report) = scenario::interruption(&lab, || {
        let (done, said) = beside_etcd(&lab, &replace)?;
        ensure!(done, "{said}");
        for controller in &controllers {
            lab.start(controller)?;
        }
        Ok(lab.converged(PATIENCE)?)
    })?;
    println!("restored: {} lost", report.lost());
    assert_eq!(slices(&lab)?, ["factory-control"], "as it was");
    let status = leaders(&lab, &["get", "status"])?;
    assert!(status["generation"].as_u64() > Some(newest), "{status}");

    // Into a file, which says the same.
    let (done, said) = beside_etcd(&lab, &["restore", &file, "--store", &redb])?;
    ensure!(done, "{said}");
    let again = in_run_dir("again.backup")?;
    succeed(&lab, &["backup", &again, "--store", &redb])?;
    if !std::fs::read_to_string(&again)?.contains("intent/slice/factory-control") {
        bail!("the slice is not in {again}");
    }
    succeed(&lab, &["apply", SLICES])?;
    Ok(())
}
