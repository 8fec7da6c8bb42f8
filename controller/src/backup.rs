//! Backups: everything that a store holds, in one file that a person can read.
//!
//! Text, one JSON object a line: what it is, `{"selvedge":"backup","format":1,...}`; then the
//! records in order of their keys, `{"key":...,"text":...}`, or `"base64"` where a value is not
//! UTF-8; last `{"sha256":...}` of the lines before it, by which a file is known that was cut
//! off or changed.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::modules::sha256;
use crate::store::{MAX_KEY_BYTES, MAX_VALUE_BYTES, RESTORING_KEY, Store, StoreError};

mod restore;
pub use restore::{RestoreError, Restored, restore};

/// Of the file. Raised when an older program would misread it.
pub const FORMAT: u32 = 1;

/// What a store held at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Of the program that took it.
    pub version: String,
    /// Milliseconds of Unix time.
    pub taken_at_ms: u64,
    pub records: BTreeMap<String, Vec<u8>>,
}

/// Why there is no backup of a store.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the store holds a part of a backup, whose restore was cut off: restore it again")]
    HalfRestored,
}

/// Why a file is not taken for a backup.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("this is no backup of Selvedge: its first line does not say so")]
    Foreign,
    #[error(
        "this backup has format {found}, written by Selvedge {version}; this is {own}, which \
         knows up to {FORMAT}: restore it with a Selvedge as new as that",
        own = env!("CARGO_PKG_VERSION")
    )]
    Newer { found: u32, version: String },
    #[error("this backup is not whole: {0}")]
    Damaged(String),
}

#[derive(Serialize, Deserialize)]
struct Head {
    selvedge: String,
    format: u32,
    version: String,
    #[serde(default)]
    taken_at_ms: u64,
    #[serde(default)]
    records: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tail {
    sha256: String,
}

const KIND: &str = "backup";

impl Backup {
    /// What the store holds now, of one moment.
    ///
    /// # Errors
    /// [`TakeError::HalfRestored`] for a store that no controller takes; those of the store.
    pub async fn take(store: &dyn Store) -> Result<Self, TakeError> {
        let rows = store.list("").await?.into_iter();
        let records: BTreeMap<_, _> = rows.map(|(key, stored)| (key, stored.value)).collect();
        if records.contains_key(RESTORING_KEY) {
            return Err(TakeError::HalfRestored);
        }
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(Self { version, taken_at_ms: clock::unix_ms(), records })
    }

    /// The file. Takes three times the memory of the records.
    pub fn encode(&self) -> Vec<u8> {
        let head = Head {
            selvedge: KIND.to_owned(),
            format: FORMAT,
            version: self.version.clone(),
            taken_at_ms: self.taken_at_ms,
            records: self.records.len(),
        };
        let mut file = Vec::new();
        put(&mut file, &head);
        for (key, value) in &self.records {
            let text = std::str::from_utf8(value).ok().map(str::to_owned);
            let base64 = text.is_none().then(|| STANDARD.encode(value));
            put(&mut file, &Line { key: key.clone(), text, base64 });
        }
        let sha256 = sha256(&file);
        put(&mut file, &Tail { sha256 });
        file
    }

    /// # Errors
    /// [`ReadError`]; a file in which any byte was changed, added or left out is one.
    pub fn decode(file: &[u8]) -> Result<Self, ReadError> {
        let damaged = |what: &str| ReadError::Damaged(what.to_owned());
        let first = file.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let head: Head = serde_json::from_slice(first).map_err(|_| ReadError::Foreign)?;
        if head.selvedge != KIND {
            return Err(ReadError::Foreign);
        }
        if head.format > FORMAT {
            return Err(ReadError::Newer { found: head.format, version: head.version });
        }
        let cut = || damaged("it does not end with its SHA-256; it was cut off");
        let body = file.strip_suffix(b"\n").ok_or_else(cut)?;
        let start = body.iter().rposition(|byte| *byte == b'\n').ok_or_else(cut)? + 1;
        let tail: Tail = serde_json::from_slice(&body[start..]).map_err(|_| cut())?;
        if sha256(&file[..start]) != tail.sha256 {
            return Err(damaged("its SHA-256 is another; it was changed"));
        }
        let mut records = BTreeMap::new();
        let lines = file[..start - 1].split(|byte| *byte == b'\n').skip(1);
        for (number, line) in lines.enumerate() {
            let (key, value) =
                record(line).map_err(|why| damaged(&format!("line {}: {why}", number + 2)))?;
            records.insert(key, value);
        }
        if records.len() != head.records {
            return Err(damaged("it has not as many records as it says"));
        }
        Ok(Self { version: head.version, taken_at_ms: head.taken_at_ms, records })
    }
}

fn put(file: &mut Vec<u8>, line: &impl Serialize) {
    serde_json::to_writer(&mut *file, line).expect("plain fields into memory");
    file.push(b'\n');
}

fn record(line: &[u8]) -> Result<(String, Vec<u8>), String> {
    let Line { key, text, base64 } =
        serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let value = match (text, base64) {
        (Some(text), None) => text.into_bytes(),
        (None, Some(base64)) => STANDARD.decode(base64).map_err(|error| error.to_string())?,
        _ => return Err("a record has either text or base64".to_owned()),
    };
    if key.is_empty() || key.len() > MAX_KEY_BYTES || value.len() > MAX_VALUE_BYTES {
        return Err(format!("the record {key:?} is larger than a store takes"));
    }
    Ok((key, value))
}

#[cfg(test)]
mod tests;
