//! `selvedge doctor`: what this machine lacks, with the fix for each.

use std::process::ExitCode;

use selvedge_lab::doctor::{self, Bench, Check, Found, Group};
use selvedge_xdp::{Interface, Options, Switch};
use serde_json::json;

use crate::Output;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Show what is there too, not only what is missing.
    #[arg(short, long)]
    verbose: bool,
}

pub(crate) fn run(args: Args, output: Output) -> anyhow::Result<ExitCode> {
    let mut checks = doctor::machine();
    checks.push(xdp());
    if let Ok(dir) = std::env::current_dir() {
        checks.extend(doctor::toolchain(&dir));
    }
    checks.sort_by_key(|check| check.group);
    match output {
        Output::Json => println!("{:#}", json!(checks.iter().map(as_json).collect::<Vec<_>>())),
        Output::Text => print(&checks, args.verbose),
    }
    let fails = checks.iter().any(Check::fails);
    Ok(if fails { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Loads the switch's own programs and attaches them to a veth, where nobody sees it.
fn xdp() -> Check {
    let found = match try_xdp() {
        Ok(()) => Found::Present("tried".to_owned()),
        Err(error) => match error.downcast_ref() {
            Some(selvedge_lab::LabError::Privilege) => Found::Unknown("needs root".to_owned()),
            _ => Found::Missing(format!("{error:#}")),
        },
    };
    let fix = "see the reason; a kernel of 6.1 or newer with BPF, BTF and XDP on veth, and bpffs";
    Check::new(Group::Kernel, "this switch's XDP programs on a veth", found, true, fix)
}

fn try_xdp() -> anyhow::Result<()> {
    let bench = Bench::new()?;
    selvedge_lab::prepare_bpffs()?;
    let pin_dir = std::path::Path::new(selvedge_lab::PIN_DIR).join(bench.netns().name());
    let attach = || {
        let options = Options { pin_dir: pin_dir.clone(), metering: true };
        let mut switch = Switch::open(&options).map_err(std::io::Error::other)?;
        for (port, (name, index)) in (1..).zip(Bench::PORTS) {
            let (name, mac) = (name.to_owned(), Bench::mac(index));
            let interface = Interface { index, name, mac };
            switch.attach(port, &interface).map_err(std::io::Error::other)?;
        }
        Ok(())
    };
    let tried = bench.netns().run(attach);
    let removed = selvedge_xdp::remove_all(&pin_dir);
    tried?;
    Ok(removed?)
}

fn as_json(check: &Check) -> serde_json::Value {
    let (state, detail) = match &check.found {
        Found::Present(detail) => ("present", detail),
        Found::Missing(detail) => ("missing", detail),
        Found::Unknown(detail) => ("unknown", detail),
    };
    json!({
        "group": check.group.to_string(), "what": check.what, "state": state, "detail": detail,
        "needed": check.needed, "fix": check.fix,
    })
}

fn print(checks: &[Check], verbose: bool) {
    let mut shown = None;
    for check in checks {
        let (mark, detail) = match &check.found {
            Found::Present(_) if !verbose => continue,
            Found::Present(detail) => ("ok      ", detail),
            Found::Missing(detail) if check.needed => ("MISSING ", detail),
            Found::Missing(detail) => ("absent  ", detail),
            Found::Unknown(detail) => ("unknown ", detail),
        };
        if shown != Some(check.group) {
            println!("{}", check.group);
            shown = Some(check.group);
        }
        let colon = if detail.is_empty() { "" } else { ": " };
        println!("  {mark}{}{colon}{detail}", check.what);
        if !matches!(check.found, Found::Present(_)) {
            println!("            {}", check.fix);
        }
    }
    let present = checks.iter().filter(|c| matches!(c.found, Found::Present(_))).count();
    let fails = checks.iter().filter(|check| check.fails()).count();
    let rest = checks.len() - present - fails;
    println!(
        "{present} of {} are there; {fails} missing, {rest} optional or unknown",
        checks.len()
    );
}
