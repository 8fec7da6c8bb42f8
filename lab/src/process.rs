//! Processes of a lab: started in a namespace, detached, known by pid and start time.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use serde::{Deserialize, Serialize};

use crate::error::{Doing as _, LabError, Result};
use crate::netns::NetNs;

/// A process, and not another one that got its number later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pid {
    pub pid: u32,
    /// Clock ticks since boot (proc_pid_stat(5), field 22).
    pub start: u64,
}

impl Pid {
    /// The calling process.
    pub(crate) fn own() -> Self {
        let pid = std::process::id();
        Self { pid, start: stat(pid).map_or(0, |stat| stat.start) }
    }

    /// Runs, and is no zombie.
    pub fn is_alive(self) -> bool {
        match stat(self.pid) {
            Some(stat) if stat.start == self.start => {
                if !stat.dead {
                    return true;
                }
                bury();
                false
            }
            _ => false,
        }
    }

    /// Sends a signal; nothing to do where it is gone.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn signal(self, signal: Signal) -> io::Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        match kill(self.nix(), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn nix(self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(i32::try_from(self.pid).unwrap_or(i32::MAX))
    }
}

struct Stat {
    dead: bool,
    start: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses, which may hold anything.
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X" | "x");
    // Files are closed, and locks free, when the last thread has ended, not the first.
    let threads: u32 = fields.nth(16)?.parse().ok()?;
    Some(Stat { dead: ended && threads <= 1, start: fields.nth(1)?.parse().ok()? })
}

/// Processes that this one launched, so that none stays a zombie while this one lives.
static LAUNCHED: Mutex<Vec<Child>> = Mutex::new(Vec::new());

/// Waits for those of them that have ended.
fn bury() {
    let mut launched = LAUNCHED.lock().expect("no thread panics holding it");
    launched.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
}

/// Starts `binary lab launch -- args` in `ns`: it makes a session of its own and becomes
/// `binary args`, or `program args`, so that neither Ctrl-C nor the end of the caller reaches it.
/// Output goes to the end of `log`.
pub(crate) fn launch(
    ns: &NetNs,
    binary: &Path,
    program: Option<&str>,
    args: &[String],
    log: &Path,
) -> Result<Pid> {
    let open = || File::options().create(true).append(true).open(log);
    let out = open().doing("open", log.display())?;
    let err = out.try_clone().doing("open", log.display())?;
    let mut command = Command::new(binary);
    command.args(["lab", "launch"]);
    command.args(program.map(|program| format!("--program={program}")));
    command.arg("--").args(args);
    command.stdin(Stdio::null()).stdout(out).stderr(err).current_dir("/");
    let child = ns.run(|| command.spawn()).doing("start", binary.display())?;
    let pid = child.id();
    // A child that is dead already is still there to be asked, since nobody waited for it.
    let start = stat(pid).map_or(0, |stat| stat.start);
    LAUNCHED.lock().expect("no thread panics holding it").push(child);
    Ok(Pid { pid, start })
}

/// Makes the calling process the leader of a session of its own: what `lab launch` does.
///
/// # Errors
/// What the kernel said.
pub fn new_session() -> io::Result<()> {
    nix::unistd::setsid()?;
    Ok(())
}

/// Ends processes: SIGTERM, and SIGKILL to those that are still there after `grace`.
pub(crate) fn end(processes: &[Pid], grace: Duration) -> Result<()> {
    let signal = |signal| {
        for process in processes {
            process.signal(signal).doing("end process", process.pid)?;
        }
        Ok::<_, LabError>(())
    };
    signal(Signal::SIGTERM)?;
    if !gone(processes, grace) {
        signal(Signal::SIGKILL)?;
        gone(processes, Duration::from_secs(5));
    }
    Ok(())
}

/// Waits until none is alive; false when some still are in the end.
pub(crate) fn gone(processes: &[Pid], patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while processes.iter().any(|process| process.is_alive()) {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    true
}

/// All processes whose main thread is in one of the namespaces, but the caller.
pub(crate) fn inside(inodes: &[u64]) -> Result<Vec<Pid>> {
    use std::os::unix::fs::MetadataExt as _;

    let own = std::process::id();
    let entries = fs::read_dir("/proc").doing("list", "/proc")?;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let there = pids.filter(|pid| *pid != own).filter(|pid| {
        // Gone in the meantime, or a zombie: not inside.
        let ns = fs::metadata(format!("/proc/{pid}/ns/net"));
        ns.is_ok_and(|ns| inodes.contains(&ns.ino()))
    });
    Ok(there.filter_map(|pid| Some(Pid { pid, start: stat(pid)?.start })).collect())
}

/// Lines of a log that are worth showing.
const TAIL: usize = 12;

/// The last lines of a log file, without terminal colours.
pub(crate) fn tail(log: &Path) -> Vec<String> {
    use std::io::{Read as _, Seek as _, SeekFrom};

    let read = || {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(16 << 10)))?;
        let mut bytes = Vec::new();
        file.take(16 << 10).read_to_end(&mut bytes)?;
        io::Result::Ok(bytes)
    };
    let text = String::from_utf8_lossy(&read().unwrap_or_default()).into_owned();
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(TAIL)..].iter().map(|line| plain(line)).collect()
}

/// Without escape sequences (ECMA-48 §5.4, CSI).
fn plain(line: &str) -> String {
    let mut chars = line.chars();
    let mut text = String::new();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            chars.by_ref().skip(1).find(|c| ('\u{40}'..='\u{7e}').contains(c));
        } else if !c.is_control() || c == '\t' {
            text.push(c);
        }
    }
    text
}

/// Makes a command fit for [`output_until`]: its output is collected, it has no input, and it
/// leads a process group, so that what it starts ends with it.
pub(crate) fn collected(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0)
}

/// Bytes of a command's output that are kept; one that prints more waits until it is stopped.
const MAX_OUTPUT: u64 = 16 << 20;
/// Between two looks whether a command has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What a child made by [`collected`] prints until it ends and nobody holds its output open. Its
/// process group is killed once `stop` says so: then `None`.
pub(crate) fn output_until(
    mut child: Child,
    stop: impl Fn() -> bool,
) -> io::Result<Option<Output>> {
    let group = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid is an i32"));
    let out = reader(child.stdout.take());
    let err = reader(child.stderr.take());
    loop {
        // Waited for last: until then the number of the group stays its own.
        if out.is_finished() && err.is_finished() && child.try_wait()?.is_some() {
            break;
        }
        if stop() {
            let _ = killpg(group, Signal::SIGKILL); // ESRCH: all of it has ended
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(LOOK_AGAIN);
    }
    let read = |thread: thread::JoinHandle<io::Result<Vec<u8>>>| {
        thread.join().map_err(|_| io::Error::other("the reader of its output died"))?
    };
    Ok(Some(Output { status: child.wait()?, stdout: read(out)?, stderr: read(err)? }))
}

fn reader<R: Read + Send + 'static>(pipe: Option<R>) -> thread::JoinHandle<io::Result<Vec<u8>>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.map_or(Ok(0), |pipe| pipe.take(MAX_OUTPUT).read_to_end(&mut bytes))?;
        Ok(bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Child {
        collected(Command::new("sh").args(["-c", script])).spawn().unwrap()
    }

    #[test]
    fn output_is_whole_and_what_does_not_end_is_killed_with_its_children() {
        let done = output_until(shell("seq 50000; echo no >&2; exit 3"), || false);
        let done = done.unwrap().unwrap();
        assert_eq!(done.status.code(), Some(3));
        assert_eq!(done.stdout.iter().filter(|byte| **byte == b'\n').count(), 50_000);
        assert_eq!(done.stderr, b"no\n");
        for script in ["sleep 100", "sleep 100 & sleep 100", "sleep 100 &"] {
            let start = Instant::now();
            let child = shell(script);
            let group = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
            let ended = output_until(child, || start.elapsed() > Duration::from_millis(200));
            assert!(ended.unwrap().is_none(), "{script}");
            // A killed orphan is in its group until pid 1 has reaped it.
            while killpg(group, None).is_ok() {
                assert!(start.elapsed() < Duration::from_secs(30), "{script} goes on");
                thread::sleep(LOOK_AGAIN);
            }
        }
    }

    #[test]
    fn a_process_is_known_by_its_start_too() {
        let own = Pid::own();
        assert!(own.is_alive());
        assert!(!Pid { start: own.start + 1, ..own }.is_alive());
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let pid = child.id();
        let known = Pid { pid, start: stat(pid).unwrap().start };
        assert!(known.is_alive());
        end(&[known], Duration::from_secs(5)).unwrap();
        assert!(!known.is_alive());
        let _ = child.wait();
    }

    #[test]
    fn escape_sequences_go() {
        assert_eq!(plain("\u{1b}[2mINFO\u{1b}[0m ready\u{7}"), "INFO ready");
    }
}
