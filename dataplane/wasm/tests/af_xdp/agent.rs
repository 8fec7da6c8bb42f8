//! The agent's end, and the host run in this process on a thread.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use selvedge_southbound::{
    compute::{Channel, Listener, module_memfd},
    selvedge::v1::{
        FromHost, HookOnFailure, HookStats, Load, LoadHook, ToHost, UnloadHook, from_host::Message,
        to_host,
    },
};
use selvedge_wasm::{HostError, Options, StopSignal};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running host and the agent that it dialed.
pub(crate) struct Rig {
    pub(crate) path: PathBuf,
    listener: Option<Listener>,
    channel: Option<Channel>,
    stop: Option<OwnedFd>,
    host: Option<JoinHandle<Result<(), HostError>>>,
}

impl Rig {
    pub(crate) fn start(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("selvedge-{name}-{}", std::process::id()));
        let listener = Listener::bind(&path).unwrap();
        let (stop, stopped) = nix::unistd::pipe().unwrap();
        let options = Options { socket: path.clone(), drop_privileges: false };
        let host = std::thread::spawn(move || selvedge_wasm::run(&options, &StopSignal::on(stop)));
        let mut rig = Self {
            path,
            listener: Some(listener),
            channel: None,
            stop: Some(stopped),
            host: Some(host),
        };
        rig.accept();
        rig.expect(|message| matches!(message, Message::Announced(_)).then_some(()));
        rig
    }

    /// Takes the host's (next) connection and its Hello.
    pub(crate) fn accept(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        self.channel = loop {
            match self.listener.as_ref().unwrap().accept() {
                Ok(channel) => break Some(channel),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    assert!(Instant::now() < deadline, "the host does not dial");
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => panic!("{error}"),
            }
        };
        self.expect(|message| matches!(message, Message::Hello(_)).then_some(()));
    }

    /// The agent dies: its connection and its socket file's listener are gone.
    pub(crate) fn kill_agent(&mut self) {
        self.channel = None;
        self.listener = None;
    }

    pub(crate) fn restart_agent(&mut self) {
        self.listener = Some(Listener::bind(&self.path).unwrap());
        self.accept();
    }

    pub(crate) fn send(&self, message: to_host::Message, fd: Option<&OwnedFd>) {
        let message = ToHost { message: Some(message) };
        self.channel.as_ref().unwrap().send(&message, fd.map(AsFd::as_fd)).unwrap();
    }

    pub(crate) fn load(&self, load: Load, module: &[u8]) {
        let memfd = module_memfd(module).unwrap();
        self.send(to_host::Message::Load(load), Some(&memfd));
    }

    pub(crate) fn unload(&self, hook: u32) {
        self.send(to_host::Message::Unload(UnloadHook { hook }), None);
    }

    /// The first message that `wanted` answers; others are skipped.
    pub(crate) fn expect<T>(&self, mut wanted: impl FnMut(Message) -> Option<T>) -> T {
        self.expect_with_fd(|message, _| wanted(message))
    }

    pub(crate) fn expect_with_fd<T>(
        &self,
        mut wanted: impl FnMut(Message, Option<OwnedFd>) -> Option<T>,
    ) -> T {
        let channel = self.channel.as_ref().unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            match channel.recv::<FromHost>() {
                Ok(Some((message, fd))) => {
                    if let Some(found) = wanted(message.message.unwrap(), fd) {
                        return found;
                    }
                }
                Ok(None) => panic!("the host closed the connection"),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    assert!(Instant::now() < deadline, "no such message");
                    channel.wait_readable(100).unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The socket of hook `hook`, which must not be refused.
    pub(crate) fn running(&self, hook: u32) -> OwnedFd {
        self.expect_with_fd(|message, fd| match message {
            Message::Running(running) if running.hook == hook => {
                Some(fd.expect("Running brings the socket"))
            }
            Message::Refused(refused) => panic!("{refused:?}"),
            _ => None,
        })
    }

    pub(crate) fn refused(&self, hook: u32) -> String {
        self.expect(|message| match message {
            Message::Refused(refused) if refused.hook == hook => Some(refused.reason),
            Message::Running(running) => panic!("{running:?}"),
            _ => None,
        })
    }

    pub(crate) fn quarantined(&self, hook: u32) -> String {
        self.expect(|message| match message {
            Message::Quarantined(quarantined) if quarantined.hook == hook => {
                Some(quarantined.reason)
            }
            _ => None,
        })
    }

    /// Statistics of `hook` once they are as `wanted`.
    pub(crate) fn stats(&self, hook: u32, wanted: impl Fn(&HookStats) -> bool) -> HookStats {
        self.expect(|message| match message {
            Message::Stats(stats) if stats.hook == hook && wanted(&stats) => Some(stats),
            _ => None,
        })
    }

    /// Stops the host in an orderly way.
    pub(crate) fn stop(&mut self) {
        self.stop = None;
        self.host.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(host) = self.host.take() {
            drop(host.join());
        }
    }
}

pub(crate) fn load(hook: u32, ifname: &str, on_failure: HookOnFailure) -> Load {
    Load {
        hook: Some(LoadHook { hook, name: format!("hook {hook}"), ..Default::default() }),
        ifname: ifname.into(),
        on_failure: on_failure.into(),
    }
}

pub(crate) fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/hooks")
}

/// One of examples/hooks/wat.
pub(crate) fn example_wat(name: &str) -> Vec<u8> {
    wat::parse_file(examples().join(format!("wat/{name}.wat"))).unwrap()
}

/// One of the hooks in Rust, built as xtask builds them.
pub(crate) fn example(name: &str) -> Vec<u8> {
    const TARGET: &str = "wasm32-unknown-unknown";
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/hooks");
        let status = Command::new(env!("CARGO"))
            .args(["build", "--release", "--locked", "--target", TARGET, "--target-dir"])
            .arg(&target)
            .current_dir(examples())
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env_remove("RUSTC_WORKSPACE_WRAPPER")
            .status();
        assert!(status.expect("cargo runs").success(), "the example hooks build");
        target.join(TARGET).join("release")
    });
    std::fs::read(folder.join(format!("{name}.wasm"))).unwrap()
}
