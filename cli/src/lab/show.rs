//! How labs and what is measured in them are printed.

use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use selvedge_lab::{Event, Step};

/// Columns two spaces apart, no lines.
pub(super) fn table<'a>(header: impl IntoIterator<Item = &'a str>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

pub(super) fn ms(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}

pub(super) fn as_ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Shows on standard error how bringing up goes: a bar where that is a terminal, a line for each
/// finished step where it is not.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    start: Instant,
    finished: Mutex<Option<Step>>,
}

impl Progress {
    pub(super) fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            let template = "{elapsed:>4} {bar:24} {pos:>3}/{len:<3} {msg}";
            let style = ProgressStyle::with_template(template);
            bar.set_style(style.expect("a valid template"));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { bar, start: Instant::now(), finished: Mutex::new(None) }
    }

    pub(super) fn show(&self, event: Event) {
        match event {
            Event::Note(note) => self.line(&format!("note: {note}")),
            Event::Step { step, done, total } => {
                if let Some(bar) = &self.bar {
                    bar.set_length(total as u64);
                    bar.set_position(done as u64);
                    bar.set_message(step.to_string());
                }
                let mut finished = self.finished.lock().expect("no thread panics holding it");
                if done == total && total > 0 && *finished != Some(step) {
                    *finished = Some(step);
                    let seconds = self.start.elapsed().as_secs_f64();
                    self.line(&format!("{seconds:5.1} s  {total} {step}"));
                }
            }
        }
    }

    fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Sets `flag` at the first SIGINT, SIGTERM or SIGHUP from now on.
pub(crate) fn on_interrupt(flag: impl AsRef<AtomicBool> + Send + 'static) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = runtime.block_on(async {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let signals: std::io::Result<Vec<_>> = kinds.into_iter().map(signal).collect();
        signals
    });
    let mut signals = signals?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            let [interrupt, terminate, hangup] = &mut signals[..] else { return };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            flag.as_ref().store(true, Ordering::Relaxed);
            // Signals stay caught: what is under way removes what it made.
            std::future::pending::<()>().await;
        });
    })?;
    Ok(())
}
