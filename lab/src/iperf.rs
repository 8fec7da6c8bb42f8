//! Throughput between hosts, by iperf3.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::IpAddr;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use selvedge_topology::BitRate;

use crate::Family;
use crate::error::{Doing as _, LabError, Result};
use crate::lab::Lab;

/// How to measure.
#[derive(Clone, Copy, Debug)]
pub struct IperfOptions {
    pub family: Family,
    /// Whole seconds, at least one and at most [`MAX_SECONDS`].
    pub seconds: u32,
    /// UDP at this rate (of payload, as iperf3 counts); TCP where absent.
    pub udp: Option<BitRate>,
    /// From the second host to the first.
    pub reverse: bool,
    /// Streams side by side, at most 64.
    pub parallel: u32,
    /// TCP's congestion control; the machine's own where absent.
    pub congestion: Option<Congestion>,
    /// Where the server listens.
    pub port: u16,
}

pub const MAX_SECONDS: u32 = 3600;

impl Default for IperfOptions {
    fn default() -> Self {
        let family = Family::V4;
        let (udp, congestion) = (None, None);
        Self { family, seconds: 5, udp, reverse: false, parallel: 1, congestion, port: 5201 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Congestion {
    Cubic,
    Reno,
    Bbr,
}

impl Congestion {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Reno => "reno",
            Self::Bbr => "bbr",
        }
    }
}

impl std::str::FromStr for Congestion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Cubic, Self::Reno, Self::Bbr];
        let found = all.into_iter().find(|congestion| congestion.as_str() == text);
        found.ok_or_else(|| format!("{text:?} is none of cubic, reno, bbr"))
    }
}

/// As iperf3 counts: payload only.
#[derive(Clone, Debug, PartialEq)]
pub struct IperfReport {
    pub sent: BitRate,
    pub received: BitRate,
    /// TCP.
    pub retransmits: Option<u64>,
    /// UDP, in percent.
    pub lost_percent: Option<f64>,
    /// UDP.
    pub jitter_ms: Option<f64>,
}

/// Beyond the time that it was asked to take.
const GRACE: Duration = Duration::from_secs(15);

impl Lab {
    /// Measures from `from` to `to`.
    ///
    /// # Errors
    /// [`LabError::Tool`] without iperf3; [`LabError::Iperf`] with what it says;
    /// [`LabError::Deadline`] where it takes much longer than asked.
    pub fn iperf(&self, from: &str, to: &str, options: IperfOptions) -> Result<IperfReport> {
        let seconds = options.seconds.clamp(1, MAX_SECONDS);
        let target = self.address(to, options.family)?;
        self.address(from, options.family)?;
        let port = options.port.to_string();

        let mut server = iperf3(&["-s", "-1", "--forceflush", "-p", &port]);
        server.stdout(Stdio::piped()).stderr(Stdio::null()).stdin(Stdio::null());
        let mut server = Ended(self.start_tool(to, &mut server)?);
        listening(&mut server.0)?;

        let mut args = arguments(target, &port, seconds, options);
        args.push("-J".to_owned());
        let mut client = iperf3(&args.iter().map(String::as_str).collect::<Vec<_>>());
        client.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null());
        let client = self.start_tool(from, &mut client)?;
        let output = bounded(client, Duration::from_secs(seconds.into()) + GRACE)?;
        read(&output)
    }

    fn start_tool(&self, node: &str, command: &mut Command) -> Result<Child> {
        match self.spawn(node, command) {
            Err(LabError::System { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Err(LabError::Tool { tool: "iperf3", fix: "apt-get install iperf3" })
            }
            started => started,
        }
    }
}

fn iperf3(args: &[&str]) -> Command {
    let mut command = Command::new("iperf3");
    command.args(args);
    command
}

fn arguments(target: IpAddr, port: &str, seconds: u32, options: IperfOptions) -> Vec<String> {
    let mut args = vec!["-c".to_owned(), target.to_string(), "-p".to_owned(), port.to_owned()];
    args.extend(["-t".to_owned(), seconds.to_string()]);
    args.extend(["-P".to_owned(), options.parallel.clamp(1, 64).to_string()]);
    args.extend(["--connect-timeout".to_owned(), "5000".to_owned()]);
    if let Some(rate) = options.udp {
        args.extend(["-u".to_owned(), "-b".to_owned(), rate.0.to_string()]);
        // A datagram that fits the access MTU in either family.
        args.extend(["-l".to_owned(), "1448".to_owned()]);
    }
    if let Some(congestion) = options.congestion {
        args.extend(["-C".to_owned(), congestion.as_str().to_owned()]);
    }
    if options.reverse {
        args.push("-R".to_owned());
    }
    args
}

/// Kills the server where the client did not end it.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until the server says that it listens.
fn listening(server: &mut Child) -> Result<()> {
    let stdout = server.stdout.take().expect("piped");
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(std::io::Result::ok) {
            let _ = sender.send(line);
        }
    });
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) if line.contains("Server listening") => return Ok(()),
            Ok(_) => {}
            Err(_) => {
                return Err(LabError::Iperf { message: "the server does not listen".to_owned() });
            }
        }
    }
}

/// Waits for a child that was started with pipes, and kills it when it takes too long.
fn bounded(mut child: Child, patience: Duration) -> Result<Output> {
    let (mut stdout, mut stderr) =
        (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let out = thread::spawn(move || {
        let mut text = Vec::new();
        stdout.read_to_end(&mut text).map(|_| text)
    });
    let err = thread::spawn(move || {
        let mut text = Vec::new();
        stderr.read_to_end(&mut text).map(|_| text)
    });
    let deadline = Instant::now() + patience;
    let status = loop {
        match child.try_wait().doing("wait for", "iperf3")? {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                let _ = child.kill();
                let _ = child.wait();
                let missing = "iperf3 to end".to_owned();
                return Err(LabError::Deadline { after: patience, missing, log: Vec::new() });
            }
            None => thread::sleep(Duration::from_millis(20)),
        }
    };
    let text = |thread: thread::JoinHandle<std::io::Result<Vec<u8>>>| {
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).unwrap_or_default()
    };
    Ok(Output { status, stdout: text(out), stderr: text(err) })
}

fn read(output: &Output) -> Result<IperfReport> {
    let failed = |message: String| LabError::Iperf { message };
    let value: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|_| failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))?;
    if let Some(error) = value["error"].as_str() {
        return Err(failed(error.to_owned()));
    }
    let end = &value["end"];
    let rate = |sum: &str| end[sum]["bits_per_second"].as_f64().map(|rate| BitRate(rate as u64));
    let received = rate("sum_received").ok_or_else(|| failed("it gave no result".to_owned()))?;
    Ok(IperfReport {
        sent: rate("sum_sent").unwrap_or_default(),
        received,
        retransmits: end["sum_sent"]["retransmits"].as_u64(),
        lost_percent: end["sum_received"]["lost_percent"]
            .as_f64()
            .or_else(|| end["sum"]["lost_percent"].as_f64()),
        jitter_ms: end["sum"]["jitter_ms"].as_f64(),
    })
}
