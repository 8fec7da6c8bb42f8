//! `selvedge lab test`: a topology, steps, and what is expected of them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use selvedge_lab::{Lab, Options, Source, down};
use selvedge_topology::{NodeName, Problems};

use super::own_binary;
use super::show::{Progress, on_interrupt};
use crate::Output;

mod file;
mod report;
mod run;

use report::Report;

#[derive(clap::Args)]
pub(super) struct Test {
    /// What to bring up, what to do, what to expect: see docs/lab.md.
    file: PathBuf,
    /// What to call the lab, instead of by the test's name.
    #[arg(long, visible_alias = "lab", value_name = "NAME")]
    name: Option<NodeName>,
    /// Write the outcome as JUnit XML too.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Leave the lab as it is where a step fails, to look at it.
    #[arg(long)]
    keep: bool,
}

/// A test's name and its number of steps, or what is wrong with its file.
pub(crate) fn check(path: &Path) -> Result<(NodeName, usize), Problems> {
    let test = file::read(path)?;
    Ok((test.name.clone(), test.count()))
}

/// Of a file that cannot be read.
const USAGE: u8 = 2;

pub(super) fn test(args: Test, output: Output) -> anyhow::Result<ExitCode> {
    let test = match file::read(&args.file) {
        Ok(test) => test,
        Err(problems) => {
            crate::path::refuse_file(problems, output);
            return Ok(ExitCode::from(USAGE));
        }
    };
    if let Some(path) = &args.junit {
        // Before minutes have gone into what could not be written.
        std::fs::write(path, "").with_context(|| format!("cannot write {}", path.display()))?;
    }
    let cancel = Arc::new(AtomicBool::new(false));
    on_interrupt(Arc::clone(&cancel))?;
    let shown = args.file.display().to_string();
    let tap = output == Output::Text;
    let mut report = Report::begin(&shown, test.name.to_string(), test.count(), tap);
    let name = args.name.clone().unwrap_or_else(|| test.name.clone());
    let done = up(&test, &name, Arc::clone(&cancel), &report).and_then(|lab| {
        let lab = lab.guard();
        let done = run::steps(&lab, &test.steps, &cancel, &mut report);
        if args.keep && (done.is_err() || report.failed() > 0) {
            report.say(&format!("lab {name} is kept: `selvedge lab down {name}` removes it"));
            // Its guard would take it down.
            std::mem::forget(lab);
        }
        done
    });
    let error = done.as_ref().err().map(|error| format!("{error:#}"));
    if let Some(error) = &error {
        report.bail(error);
    }
    if output == Output::Json {
        report.print_json();
    }
    if let Some(path) = &args.junit {
        report.write_junit(path, error.as_deref())?;
    }
    done?;
    Ok(if report.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn up(
    test: &file::LabTest,
    name: &NodeName,
    cancel: Arc<AtomicBool>,
    report: &Report<'_>,
) -> anyhow::Result<Lab> {
    // Of a run that was killed.
    let left_over = |lab: &selvedge_lab::Summary| lab.name == *name && lab.is_leftover();
    if selvedge_lab::list()?.iter().any(left_over) {
        report.say(&format!("removing what an earlier run left of lab {name}"));
        down(name)?;
    }
    let progress = Arc::new(Progress::new());
    let watcher = Arc::clone(&progress);
    let mut options = Options::new(Source::File(test.topology.clone()), own_binary()?);
    options.name = Some(name.clone());
    options.cancel = cancel;
    options.watch = Box::new(move |event| watcher.show(event));
    let lab = Lab::up(options);
    progress.end();
    lab.with_context(|| format!("lab {name} did not come up"))
}
