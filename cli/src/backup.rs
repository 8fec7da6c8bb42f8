//! `selvedge backup` and `selvedge restore`: a store in a file, and back.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use selvedge_controller::backup::{self, Backup};
use selvedge_controller::store::{EtcdStore, EtcdTls, Location, RedbStore, Store};
use serde_json::json;

use crate::Output;
use crate::client::{Client, ControllerArg};

/// The file is text, one record a line, readable by its owner alone. It is taken of one moment,
/// while the controller runs.
#[derive(clap::Args)]
pub(crate) struct BackupArgs {
    /// Replaced as a whole if it is there.
    file: PathBuf,
    #[command(flatten)]
    controller: ControllerArg,
    /// Read the store itself and ask no controller: a FILE that none uses, or etcd's members.
    #[arg(long, value_name = "FILE|etcd://HOST:PORT,...[/PREFIX]")]
    store: Option<Location>,
    /// For etcd over TLS: a directory with ca.pem, client.pem and client.key.
    #[arg(long, value_name = "DIR", requires = "store")]
    store_tls: Option<PathBuf>,
}

/// Every controller of the store has to be stopped. Switches go on forwarding meanwhile; a
/// controller that starts on the restored store brings them to what it says.
#[derive(clap::Args)]
pub(crate) struct RestoreArgs {
    /// What `selvedge backup` wrote, of this version or an older one.
    file: PathBuf,
    /// Made if it is not there; a backup fits either kind.
    #[arg(long, value_name = "FILE|etcd://HOST:PORT,...[/PREFIX]")]
    store: Location,
    /// For etcd over TLS: a directory with ca.pem, client.pem and client.key.
    #[arg(long, value_name = "DIR")]
    store_tls: Option<PathBuf>,
    /// Also where the store holds something, which is lost.
    #[arg(long)]
    replace: bool,
}

pub(crate) fn backup(args: BackupArgs, output: Output) -> anyhow::Result<ExitCode> {
    let bytes = match &args.store {
        Some(location) => runtime()?.block_on(async {
            let store = open(location, args.store_tls.as_deref(), false)?;
            anyhow::Ok(Backup::take(store.as_ref()).await?.encode())
        })?,
        None => Client::find(&args.controller)?.get_text("/v1/backup")?.into_bytes(),
    };
    // What came over a connection may have been cut off.
    let taken = Backup::decode(&bytes).context("what the controller sent")?;
    write(&args.file, &bytes).with_context(|| format!("cannot write {}", args.file.display()))?;
    let (records, size) = (taken.records.len(), bytes.len());
    match output {
        Output::Text => println!("{records} records in {}, {size} bytes", args.file.display()),
        Output::Json => {
            let file = args.file.display().to_string();
            println!("{:#}", json!({ "file": file, "records": records, "bytes": size }));
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn restore(args: RestoreArgs, output: Output) -> anyhow::Result<ExitCode> {
    let RestoreArgs { file, store: location, store_tls, replace } = args;
    let shown = file.display();
    let bytes = fs::read(&file).with_context(|| format!("cannot read {shown}"))?;
    let backup = Backup::decode(&bytes).with_context(|| format!("{shown} is not restored"))?;
    let restored = runtime()?.block_on(async {
        let store = open(&location, store_tls.as_deref(), true)?;
        anyhow::Ok(backup::restore(store.as_ref(), &backup, replace).await?)
    });
    let restored = restored.with_context(|| format!("cannot restore {shown} to {location}"))?;
    let backup::Restored { records, replaced, generation } = restored;
    match output {
        Output::Text => {
            println!("restored {records} records to {location}, in place of {replaced}");
            println!("generations go on from {generation}: switches with newer entries obey");
        }
        Output::Json => {
            let values = json!({
                "store": location.to_string(), "records": records, "replaced": replaced,
                "generation": generation, "taken_at_ms": backup.taken_at_ms,
            });
            println!("{values:#}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().context("cannot start the runtime")
}

/// Inside a runtime.
fn open(location: &Location, tls: Option<&Path>, make: bool) -> anyhow::Result<Box<dyn Store>> {
    let tls = tls.map(EtcdTls::load).transpose()?;
    Ok(match location {
        Location::File(path) => {
            if !make {
                path.metadata().with_context(|| format!("cannot read {}", path.display()))?;
            }
            Box::new(RedbStore::open(path)?)
        }
        Location::Etcd { members, prefix } => {
            Box::new(EtcdStore::new(members, prefix, tls.as_ref())?)
        }
    })
}

/// The whole file or, after a failure, the one that was there.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let write = || {
        let mut options = File::options();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    let written = write();
    if written.is_err() {
        // The first failure is the one to tell.
        drop(fs::remove_file(&new));
    }
    written
}
