//! `cargo xtask fuzz`: looks for bytes that one of our parsers does not stand. Which they are,
//! and what must hold, is in tests/inputs; that package's test replays `fuzz/corpus`.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{run, setup, succeed};

/// How long one target runs unless said otherwise.
const SECONDS: u32 = 600;
/// One input may be as long, bytes, and take as long, seconds; the whole as much memory, MiB.
const LIMITS: &[&str] = &["-max_len=1500", "-timeout=10", "-rss_limit_mb=2048"];

/// `[NAME] [--seconds N] [--keep]`
pub(crate) fn start(args: &[&str]) -> Result<()> {
    let known = names()?;
    let (mut chosen, mut seconds, mut keep) = (None, SECONDS, false);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match *arg {
            "--keep" => keep = true,
            "--seconds" => {
                let value = args.next().context("--seconds wants a number")?;
                seconds = value.parse().with_context(|| format!("--seconds {value:?}"))?;
            }
            name if chosen.is_none() && known.iter().any(|one| one == name) => {
                chosen = Some(name.to_owned());
            }
            other => bail!("{other:?}: no such target; there are {}", known.join(", ")),
        }
    }
    setup::fuzz_tools()?;
    let targets = chosen.map_or(known, |name| vec![name]);
    for name in &targets {
        target(name, seconds, keep)?;
    }
    Ok(())
}

fn names() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir("fuzz/targets").context("list fuzz/targets")? {
        let path = entry.context("list fuzz/targets")?.path();
        names.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// Starts from what is kept and what earlier runs found, which is in `target/fuzz/corpus`.
fn target(name: &str, seconds: u32, keep: bool) -> Result<()> {
    let found = format!("target/fuzz/corpus/{name}");
    let kept = format!("fuzz/corpus/{name}");
    fs::create_dir_all(&found).with_context(|| format!("make {found}"))?;
    let time = format!("-max_total_time={seconds}");
    cargo_fuzz(&[&["run", name, &found, &kept, "--", &time], LIMITS].concat())?;
    if keep {
        // The fewest that reach all the code which either folder reaches; how often does not
        // count, or there would be thousands.
        let merge = ["--", "-set_cover_merge=1", "-use_counters=0"];
        cargo_fuzz(&[&["run", name, &kept, &found], &merge[..], LIMITS].concat())?;
    }
    Ok(())
}

/// Sanitizers and coverage are unstable flags of the pinned compiler, allowed here alone.
fn cargo_fuzz(args: &[&str]) -> Result<()> {
    eprintln!("==> cargo fuzz {}", args.join(" "));
    let mut command = Command::new(setup::CARGO_FUZZ);
    command
        .arg("fuzz")
        .args(args)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", run::root().join("target/fuzz"));
    succeed(&format!("cargo fuzz {}", args.join(" ")), command.status())
}
