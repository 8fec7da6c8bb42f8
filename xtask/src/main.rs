//! `cargo xtask`: what a person types to set up, see, test and measure Selvedge.
//!
//! It starts other programs and decides in which order; nothing of Selvedge itself is in it,
//! so that it builds in seconds on a machine that has nothing yet.

use std::env;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

mod fuzz;
mod run;
mod setup;
mod verify;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  setup          install what building and testing need (asks for root once)
  demo           bring up examples/metro end to end and show it work
  test           run every check and every test, cheapest first
  test NAME ...  run only these steps (see `cargo xtask test --list`)
  bench NAME     measure; writes target/bench/NAME.json (NAME: admission, forward, paths,
                 placement, protect, scale, te)
  fuzz [NAME]    look for bytes that a parser does not stand, in one target or all of them
                 (--seconds N for each, 600 unless said; --keep adds to fuzz/corpus)
  hooks          build examples/hooks to WebAssembly
";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match command(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command(args: &[&str]) -> Result<ExitCode> {
    env::set_current_dir(run::root()).context("enter the workspace")?;
    match args {
        ["setup"] => {
            setup::build_tools()?;
            setup::test_tools()?;
        }
        ["demo"] => {
            setup::build_tools()?;
            setup::lab_tools()?;
            run::hooks()?;
            run::cargo(&["build", "-p", "selvedge", "-p", "selvedge-tests", "--bins"])?;
            run::as_root("target/debug/demo", &[])?;
        }
        ["test", "--list"] => {
            for (name, what) in verify::STEPS {
                println!("{name:<10} {what}");
            }
        }
        ["test", names @ ..] => verify::run(names)?,
        ["bench", name] => {
            setup::build_tools()?;
            setup::lab_tools()?;
            setup::bench_tools(name)?;
            run::cargo(&["build", "--release", "-p", "selvedge-bench"])?;
            run::as_root("target/release/bench", &[name])?;
        }
        ["fuzz", args @ ..] => fuzz::start(args)?,
        ["hooks"] => {
            setup::build_tools()?;
            run::hooks()?;
        }
        [] | ["help" | "--help" | "-h"] => print!("{USAGE}"),
        [unknown, ..] => {
            eprint!("{USAGE}");
            eprintln!("\nxtask: no command {unknown:?}, or not with these arguments");
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Fails with what was being done when a program could not be started or did not succeed.
fn succeed(what: &str, status: std::io::Result<std::process::ExitStatus>) -> Result<()> {
    let status = status.with_context(|| format!("start {what}"))?;
    if !status.success() {
        bail!("{what}: {status}");
    }
    Ok(())
}
