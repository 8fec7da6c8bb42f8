//! End-to-end scenarios: a lab of namespaces, the real binary in it, real packets.
//!
//! A scenario takes a lab that is up and returns what it measured; the tests in `tests/`
//! assert on it, and the demo (`src/bin/demo.rs`) prints it. Everything here runs as root.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{Flock, FlockArg};
use selvedge_lab::{Guard, Lab, Options};
use serde_json::Value;

pub mod hook;
pub mod mec;
pub mod scenario;

/// The workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package lies in the workspace")
}

/// A file of the repository.
pub fn file(path: &str) -> PathBuf {
    root().join(path)
}

/// The binary that was built beside this one.
pub fn binary() -> Result<PathBuf> {
    let own = std::env::current_exe().context("find this program")?;
    let found = own.ancestors().skip(1).take(2).map(|dir| dir.join("selvedge"));
    let missing = || format!("no `selvedge` beside {}: cargo build -p selvedge", own.display());
    found.into_iter().find(|path| path.is_file()).with_context(missing)
}

/// One lab at a time on this machine: two cores carry one flood. Held until dropped.
pub fn turn() -> Flock<File> {
    let path = std::env::temp_dir().join("selvedge-tests.lock");
    let file = File::options().create(true).append(true).open(&path);
    let file = file.unwrap_or_else(|error| panic!("open {}: {error}", path.display()));
    Flock::lock(file, FlockArg::LockExclusive).expect("lock a file of our own")
}

/// A running lab, taken down when dropped, and its turn.
pub struct Running {
    // Dropped in this order: the lab before the turn of the next.
    pub lab: Guard,
    /// How long it took to come up, once it was its turn.
    pub up_in: Duration,
    _turn: Flock<File>,
}

impl std::ops::Deref for Running {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

/// Brings up `topology` as a lab called `name`, and returns once it has converged.
pub fn up(name: &str, topology: &str) -> Result<Running> {
    up_with(name, topology, |_| {})
}

/// As [`up`], with other options.
pub fn up_with(name: &str, topology: &str, change: impl FnOnce(&mut Options)) -> Result<Running> {
    let turn = turn();
    let mut options = Options::new(file(topology).as_path(), binary()?);
    options.name = Some(name.parse().context("a lab's name")?);
    change(&mut options);
    let start = Instant::now();
    let lab = Lab::up(options).with_context(|| format!("bring up {topology}"))?;
    Ok(Running { lab: lab.guard(), up_in: start.elapsed(), _turn: turn })
}

/// Runs `selvedge` against a lab's controller.
pub fn selvedge(lab: &Lab, args: &[&str]) -> Result<Output> {
    let controllers = lab.controllers()?.into_iter();
    let sockets: Vec<_> = controllers.map(|(_, s)| format!("unix:{}", s.display())).collect();
    let mut command = Command::new(binary()?);
    command
        .args(args)
        .current_dir(root())
        .stdin(Stdio::null())
        .env("SELVEDGE_CONTROLLER", sockets.join(","))
        .env("SELVEDGE_LAB", lab.name().as_str());
    command.output().with_context(|| format!("run selvedge {}", args.join(" ")))
}

/// Runs `selvedge` and fails unless it exits with 0; its standard output.
pub fn succeed(lab: &Lab, args: &[&str]) -> Result<String> {
    let output = selvedge(lab, args)?;
    ensure!(
        output.status.success(),
        "selvedge {}: {}\n{}{}",
        args.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What `selvedge ... --output json` prints.
pub fn json(lab: &Lab, args: &[&str]) -> Result<Value> {
    let text = succeed(lab, &[args, &["--output", "json"]].concat())?;
    serde_json::from_str(&text).with_context(|| format!("selvedge {}: {text}", args.join(" ")))
}

/// Writes documents to a file in the lab's run directory and applies them.
pub fn apply(lab: &Lab, documents: &str) -> Result<String> {
    let path = intent_file(lab, documents)?;
    succeed(lab, &["apply", path.to_str().context("a path in UTF-8")?])
}

/// A file in the lab's run directory; it goes with the lab.
pub fn intent_file(lab: &Lab, documents: &str) -> Result<PathBuf> {
    let path = lab.run_dir().join("test-intent.yaml");
    fs::write(&path, documents).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// Waits until `condition` holds.
pub fn eventually(
    what: &str,
    patience: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + patience;
    while !condition()? {
        if Instant::now() > deadline {
            bail!("after {patience:?}: not yet {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
