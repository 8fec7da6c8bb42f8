//! `selvedge export` and `import`: slices as 3GPP TS 28.541 has them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use selvedge_slices::limits::MAX_FILE_BYTES;
use selvedge_slices::ts28541::{self, Imported};
use selvedge_slices::{Side, document};
use selvedge_topology::NodeName;

use super::{print_json, table};
use crate::Output;
use crate::client::{Client, ControllerArg};

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum What {
    #[value(alias = "slice")]
    Slices,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Format {
    Ts28541,
}

#[derive(clap::Args)]
pub(crate) struct Import {
    /// JSON of TS 28.541: a SubNetwork's NetworkSlices, one of them, or ServiceProfiles.
    file: PathBuf,
    /// User endpoints of slices that come without any.
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    ue: Vec<NodeName>,
    /// Data network endpoints of slices that come without any.
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    dn: Vec<NodeName>,
}

/// JSON in either output: that is the format.
pub(super) fn export(plmn: Option<&str>, controller: &ControllerArg) -> anyhow::Result<ExitCode> {
    let query = plmn.map(|plmn| format!("?plmn={}", table::segment(plmn))).unwrap_or_default();
    let path = format!("/v1/export/ts28541{query}");
    print_json(&Client::find(controller)?.get::<serde_json::Value>(&path)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Documents that `apply` takes, with what they do not keep as comments and on standard error.
pub(super) fn import(args: &Import, output: Output) -> anyhow::Result<ExitCode> {
    let read = read(&args.file, args)?;
    for lost in read.iter().flat_map(|one| &one.lost) {
        eprintln!("not kept: {lost}");
    }
    match output {
        Output::Text => {
            for (index, Imported { object, lost }) in read.iter().enumerate() {
                if index > 0 {
                    println!("---");
                }
                lost.iter().for_each(|lost| println!("# not kept: {}", one_line(lost)));
                print!("{}", document::text(object));
            }
        }
        Output::Json => {
            let each = read.iter().map(|Imported { object, lost }| {
                serde_json::json!({ "document": document::of(object), "not_kept": lost })
            });
            println!("{}", serde_json::to_string_pretty(&each.collect::<Vec<_>>())?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn read(file: &Path, args: &Import) -> anyhow::Result<Vec<Imported>> {
    let text = selvedge_topology::read::text_of(file, MAX_FILE_BYTES);
    let text = text.map_err(|problems| anyhow::anyhow!("{:?}", miette::Report::new(problems)))?;
    let side = |side, names: &[NodeName]| -> Vec<(Side, NodeName)> {
        names.iter().map(|name| (side, name.clone())).collect()
    };
    let endpoints = [side(Side::Ue, &args.ue), side(Side::Dn, &args.dn)].concat();
    match ts28541::import(&text, &endpoints) {
        Ok(read) => Ok(read),
        Err(wrong) => {
            let shown = file.display();
            bail!("{shown}: {}", wrong.join(&format!("\n       {shown}: ")))
        }
    }
}

/// A comment ends with its line.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}
