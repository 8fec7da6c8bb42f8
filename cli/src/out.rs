//! Printing, for a command whose reader may leave: `selvedge get entries s1 | head`.

use std::fmt;
use std::io::{self, ErrorKind, Write};

use tracing_subscriber::EnvFilter;

/// Shadows the standard macro, which panics where the reader of a pipe is gone.
macro_rules! println {
    () => { crate::out::write(format_args!("\n")) };
    ($($text:tt)*) => {
        crate::out::write(format_args!("{}\n", format_args!($($text)*)))
    };
}

macro_rules! print {
    ($($text:tt)*) => { crate::out::write(format_args!($($text)*)) };
}

macro_rules! eprintln {
    ($($text:tt)*) => { crate::out::note(format_args!("{}\n", format_args!($($text)*))) };
}

/// Writes to standard error, where nothing is left to tell that it failed.
pub(crate) fn note(text: fmt::Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}

/// Writes to standard output. A reader that left has seen enough: what the command does is
/// done all the same. A full disk ends the command, for its output would be cut.
pub(crate) fn write(text: fmt::Arguments<'_>) {
    match io::stdout().lock().write_fmt(text) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        Err(error) => {
            eprintln!("error: cannot write to standard output: {error}");
            std::process::exit(1);
        }
    }
}

/// The log of a long-running part: to standard error, `info` unless `SELVEDGE_LOG` says more,
/// in color for a person only.
pub(crate) fn log() {
    use std::io::IsTerminal;
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::try_from_env("SELVEDGE_LOG").unwrap_or_else(|_| EnvFilter::new("info")),
        )
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
}
