//! The documentation against the program: every command runs, every link leads somewhere,
//! every example is taken.
//!
//! A file's ```` ```console ```` blocks are one shell session, line by line. Its last block
//! removes what the others made, and is also run when one of them failed. Labs get a name of
//! the test's own, so that somebody's `metro` is left alone.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use selvedge_tests::{binary, root, turn};

/// Name of the labs that documents bring up, instead of the topology's.
const LAB: &str = "t-docs";
/// How long one document may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Commands that are not run: building and testing is what runs this test.
fn is_skipped(command: &str) -> bool {
    command.starts_with("cargo ")
}

/// README.md, and docs/*.md.
fn documents() -> Result<Vec<PathBuf>> {
    let mut found = vec![root().join("README.md")];
    found.extend(files(&root().join("docs"), &["md"])?);
    Ok(found)
}

/// All files below `dir` with one of the extensions, sorted.
fn files(dir: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            found.extend(files(&path, extensions)?);
        } else if path.extension().is_some_and(|found| extensions.iter().any(|e| found == *e)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The commands of each ```` ```console ```` block.
fn blocks(text: &str) -> Vec<Vec<String>> {
    let mut blocks = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line.trim_start() {
            "```console" => {
                inside = true;
                blocks.push(Vec::new());
            }
            fence if fence.starts_with("```") => inside = false,
            line if inside => {
                let block: &mut Vec<String> = blocks.last_mut().expect("inside a block");
                block.extend(line.strip_prefix("$ ").map(str::to_owned));
            }
            _ => {}
        }
    }
    blocks
}

/// A documented command as the test runs it; `None` for those that it does not.
fn translated(command: &str, binary: &str) -> Option<String> {
    let command = command.strip_prefix("sudo ").unwrap_or(command);
    if is_skipped(command) {
        return None;
    }
    let mut command = command
        .replace("target/debug/selvedge", binary)
        .replace("/run/selvedge/metro/", &format!("/run/selvedge/{LAB}/"));
    for verb in ["up", "test"] {
        command = command.replace(&format!(" lab {verb} "), &format!(" lab {verb} --name {LAB} "));
    }
    Some(command)
}

/// A shell session of its own; what it prints goes to `log`. Processes that it left in the
/// background are ended.
fn run(script: &str, log: &File) -> Result<ExitStatus> {
    let socket = |name: &str| format!("unix:/run/selvedge/{LAB}/{name}");
    // The second is there in labs of several controllers, where the first may be dead.
    let controllers = ["api.sock", "api-2.sock", "api-3.sock"].map(socket).join(",");
    let mut shell = Command::new("bash")
        .args(["-c", script])
        .current_dir(root())
        .env("SELVEDGE_LAB", LAB)
        .env("SELVEDGE_CONTROLLER", controllers)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?)
        .process_group(0)
        .spawn()
        .context("start bash")?;
    let group = Pid::from_raw(i32::try_from(shell.id())?);
    let deadline = Instant::now() + PATIENCE;
    let ended = loop {
        if let Some(status) = shell.try_wait()? {
            break Ok(status);
        }
        if Instant::now() > deadline {
            break Err(anyhow::anyhow!("not done within {PATIENCE:?}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    // None is left where all ended by themselves.
    let _ = killpg(group, Signal::SIGKILL);
    if ended.is_err() {
        shell.wait()?;
    }
    ended
}

/// Runs what is left to be run when a document's commands fail, or the test panics.
struct Removal<'a> {
    script: String,
    log: &'a File,
    needed: bool,
}

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        if self.needed {
            let _ = run(&self.script, self.log);
        }
    }
}

/// Runs a document's commands; fails with what the session printed.
fn follow(document: &Path) -> Result<usize> {
    let text = fs::read_to_string(document)?;
    let binary = binary()?;
    let binary = binary.to_str().context("a path in UTF-8")?;
    let blocks: Vec<Vec<String>> = blocks(&text)
        .iter()
        .map(|block| block.iter().filter_map(|line| translated(line, binary)).collect())
        .filter(|block: &Vec<String>| !block.is_empty())
        .collect();
    let Some(last) = blocks.last() else { return Ok(0) };
    let commands: Vec<&str> = blocks.iter().flatten().map(String::as_str).collect();
    // Each is shown before it runs; the session ends at the first that fails.
    let shown = |command: &&str| format!("cat <<'SHOWN'\n$ {command}\nSHOWN\n{command}\n");
    let script = commands.iter().map(shown).collect::<String>();
    let name = document.file_stem().and_then(|name| name.to_str()).context("a document's name")?;
    let path = std::env::temp_dir().join(format!("selvedge-docs-{name}.log"));
    let mut log = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    let mut removal = Removal { script: last.join("\n"), log: &log.try_clone()?, needed: true };
    let ended = run(&format!("set -e\n{script}"), &log)?;
    removal.needed = !ended.success();
    drop(removal);
    log.flush()?;
    if !ended.success() {
        bail!("{}: {ended}\n{}", document.display(), fs::read_to_string(&path)?);
    }
    fs::remove_file(&path)?;
    Ok(commands.len())
}

#[test]
fn every_documented_command_works() -> Result<()> {
    let _turn = turn();
    let mut failed = Vec::new();
    for document in documents()? {
        let start = Instant::now();
        match follow(&document) {
            Ok(commands) => println!(
                "{}: {commands} commands in {:.1} s",
                document.display(),
                start.elapsed().as_secs_f64()
            ),
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n\n"));
    Ok(())
}

/// Targets of inline links, without their fragments.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next())
}

#[test]
fn every_relative_link_leads_somewhere() -> Result<()> {
    let mut broken = Vec::new();
    let mut checked = 0;
    for document in documents()?.into_iter().chain([root().join("ARCHITECTURE.md")]) {
        let text = fs::read_to_string(&document)?;
        let dir = document.parent().context("a document lies in a directory")?;
        for link in links(&text).filter(|link| !link.is_empty() && !link.contains("://")) {
            checked += 1;
            if !dir.join(link).exists() {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere: {broken:#?}");
    assert!(checked > 5, "only {checked} links found");
    Ok(())
}

#[test]
fn every_example_is_taken() -> Result<()> {
    let examples = root().join("examples");
    let found = files(&examples, &["yaml", "yml", "graphml", "graph"])?;
    assert!(found.len() > 5, "only {found:?}");
    for file in found {
        let output = Command::new(binary()?).arg("validate").arg(&file).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", file.display());
    }
    for file in files(&examples, &["wat"])? {
        let parsed = wat::parse_bytes(&fs::read(&file)?).map(|_| ());
        assert!(parsed.is_ok(), "{}: {parsed:?}", file.display());
    }
    Ok(())
}

#[test]
fn commands_are_found_and_translated() {
    let text = "```console\n$ sudo target/debug/selvedge lab up x.yaml\nup\n```\n$ not this\n\
                ```text\n$ nor this\n```\n```console\n$ cargo build\n$ cat /run/selvedge/metro/a\n```";
    let found = blocks(text);
    assert_eq!(found.len(), 2);
    let translate = |line: &String| translated(line, "/bin/selvedge");
    let commands: Vec<String> = found.iter().flatten().filter_map(translate).collect();
    assert_eq!(
        commands,
        ["/bin/selvedge lab up --name t-docs x.yaml", "cat /run/selvedge/t-docs/a"]
    );
}
