//! `selvedge pki`: certificates for the controller and the switches.

use std::path::PathBuf;
use std::process::ExitCode;

use selvedge_controller::pki;
use serde_json::json;

use crate::Output;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make an authority if there is none, and certificates for nodes that have none.
    Init(Init),
    /// Put the certificates that nodes have now on the list of those that nobody talks to.
    Revoke(Revoke),
}

#[derive(clap::Args)]
struct Revoke {
    /// Where ca.pem and ca.key are; gets crl.pem, to be copied beside every ca.pem.
    dir: PathBuf,
    /// A switch's name, or `controller`.
    #[arg(long = "node", value_name = "NAME", required = true)]
    nodes: Vec<pki::Node>,
}

#[derive(clap::Args)]
struct Init {
    /// Gets ca.pem and ca.key, and NAME.pem and NAME.key for each node.
    dir: PathBuf,
    /// A switch's name, or `controller`; with the addresses that clients check, if any.
    #[arg(long = "node", value_name = "NAME[=ADDR,..]", required = true)]
    nodes: Vec<pki::Node>,
    /// Days that the nodes' certificates hold.
    #[arg(long, default_value_t = pki::NODE_VALIDITY_DAYS,
          value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// Issue anew what is there already. The authority is always kept.
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(args: Args, output: Output) -> anyhow::Result<ExitCode> {
    let Init { dir, nodes, days, force } = match args.command {
        Command::Init(init) => init,
        Command::Revoke(Revoke { dir, nodes }) => {
            let list = pki::revoke(&dir, &nodes)?;
            match output {
                Output::Json => println!("{}", json!({ "list": list })),
                Output::Text => println!("revoked in {}", list.display()),
            }
            return Ok(ExitCode::SUCCESS);
        }
    };
    let options = pki::Options { force, validity: pki::Validity::days(days) };
    let done = pki::init(&dir, &nodes, options)?;
    match output {
        Output::Json => {
            let list: Vec<_> = done
                .iter()
                .map(|d| {
                    let (name, certificate) = (&d.name, &d.certificate);
                    json!({ "name": name, "certificate": certificate, "what": d.what.to_string() })
                })
                .collect();
            println!("{}", serde_json::to_string_pretty(&list)?);
        }
        Output::Text => {
            for pki::Done { certificate, what, .. } in done {
                println!("{what} {}", certificate.display());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
