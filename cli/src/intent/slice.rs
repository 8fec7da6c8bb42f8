//! `selvedge slice`: the life of a slice. `apply` and `delete` are the short way through it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use selvedge_controller::api::wire_intent::{Applied, Documents};
use selvedge_controller::api::wire_lifecycle::{Answer, FeasibilityJob, FeasibilityResult};
use selvedge_slices::schedule::Timestamp;

use super::{change, files, print_json, table};
use crate::Output;
use crate::client::{self, Client, ControllerArg};

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// Would they fit? Changes nothing; says what would be accepted instead.
    Check {
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        #[command(flatten)]
        controller: ControllerArg,
    },
    /// Hold the capacity of the slices in files, without service, for a time.
    Reserve {
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// How long, such as 90s, 10m, 2h or 7d; at most 30d.
        #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = duration)]
        time: Duration,
        #[command(flatten)]
        controller: ControllerArg,
    },
    /// Put a slice that is reserved, designed or deactivated into service.
    Activate(Named),
    /// Take an active slice out of service; it keeps its capacity until it is deleted.
    Deactivate(Named),
}

#[derive(clap::Args)]
pub(crate) struct Named {
    #[arg(value_name = "SLICE")]
    name: String,
    /// Wait until the switches hold it, at most so many seconds.
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
    #[command(flatten)]
    controller: ControllerArg,
}

pub(super) fn run(verb: Verb, output: Output) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Check { files, controller } => feasibility(job_of(&files)?, &controller, output),
        Verb::Reserve { files, time, controller } => {
            let until = SystemTime::now().duration_since(UNIX_EPOCH)? + time;
            let until = Timestamp(u64::try_from(until.as_millis())?);
            let job = FeasibilityJob {
                resource_reservation: true,
                requested_reservation_expiration: Some(until.to_string()),
                ..job_of(&files)?
            };
            feasibility(job, &controller, output)
        }
        Verb::Activate(named) => switch(&named, "activate", output),
        Verb::Deactivate(named) => switch(&named, "deactivate", output),
    }
}

fn job_of(paths: &[PathBuf]) -> anyhow::Result<FeasibilityJob> {
    let files::Files { documents, modules, .. } = files::read(paths)?;
    let documents = Documents::Many(documents);
    Ok(FeasibilityJob { documents, modules, ..FeasibilityJob::default() })
}

fn feasibility(
    job: FeasibilityJob,
    controller: &ControllerArg,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let answer: client::Answer<Vec<Answer>> =
        Client::find(controller)?.post("/v1/feasibility", &job)?;
    let feasible = |answer: &Answer| answer.feasibility_result == FeasibilityResult::Feasible;
    let all = answer.value.iter().all(feasible);
    match output {
        Output::Json => print_json(&answer)?,
        Output::Text => {
            answer.value.iter().for_each(show);
            if let Some(until) = answer.value.iter().find_map(valid) {
                println!("{until}");
            }
        }
    }
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// For how long a check's answers hold; the same for all of one.
fn valid(answer: &Answer) -> Option<String> {
    let (until, state) =
        (answer.feasibility_expiration.as_ref()?, answer.feasibility_state.as_ref()?);
    Some(format!(
        "valid until {until}, while nothing changes (state {state}); `slice reserve` holds it"
    ))
}

fn show(answer: &Answer) {
    match (&answer.in_feasible_reason, &answer.reservation_expiration) {
        (None, None) => println!("slice {}: feasible", answer.slice),
        (None, Some(until)) => println!("slice {}: reserved until {until}", answer.slice),
        (Some(reason), _) => println!("slice {}: INFEASIBLE: {reason}", answer.slice),
    }
    if let Some(recommended) = &answer.recommended_requirements {
        println!("this would be accepted:\n{}", recommended.trim_end());
    }
}

fn switch(named: &Named, verb: &str, output: Output) -> anyhow::Result<ExitCode> {
    let client = Client::find(&named.controller)?;
    let path = format!("/v1/slices/{}/{verb}", table::segment(&named.name));
    let answer: client::Answer<Applied> = client.post(&path, &serde_json::json!({}))?;
    change::report(&client, &answer, named.wait, output)
}

/// `90s`, `10m`, `2h`, `7d`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time such as 90s, 10m, 2h or 7d");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let digits = &text[..text.len() - 1];
    let number: u64 = digits.parse().ok().filter(|n| *n > 0).ok_or_else(wrong)?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, want) in [
            ("90s", Some(90)),
            ("10m", Some(600)),
            ("2h", Some(7_200)),
            ("7d", Some(604_800)),
            ("0s", None),
            ("h", None),
            ("5", None),
            ("-1h", None),
            ("1w", None),
            ("", None),
            ("1é", None),
            ("99999999999999999999d", None),
        ] {
            assert_eq!(duration(text).ok().map(|d| d.as_secs()), want, "{text:?}");
        }
    }
}
