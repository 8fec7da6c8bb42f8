//! Certificates of a deployment: one authority, one certificate for each node.
//!
//! A directory holds `ca.pem`, `ca.key`, and `NAME.pem`, `NAME.key` for each node; keys have
//! mode 0600. A node's name stands in the subject's common name and as a DNS name, and is
//! the only thing that says who a peer is. `controller` is a name like any other. Keys are
//! ECDSA P-256.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use time::{Duration, OffsetDateTime};

mod files;
mod issue;

/// Longest directory-independent part of a file's name: an RFC 1123 label.
const MAX_NAME_BYTES: usize = 63;
/// What `selvedge pki init` gives nodes: a little over two years.
pub const NODE_VALIDITY_DAYS: u32 = 825;
/// What it gives the authority.
pub const CA_VALIDITY_DAYS: u32 = 3650;

/// A node to be certified: `NAME` or `NAME=ADDRESS,..`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    name: String, // invariant: an RFC 1123 label other than `ca`
    /// Addresses under which it is dialed, for clients that check those.
    pub addresses: Vec<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    #[error(
        "{0:?} is not a node name: lower-case letters, digits and inner hyphens, at most 63 of them"
    )]
    Name(String),
    #[error("a node cannot be called \"ca\": those files are the authority's")]
    Reserved,
    #[error("node {node}: {address:?} is not an IP address")]
    Address { node: String, address: String },
}

impl Node {
    pub fn new(name: &str, addresses: Vec<IpAddr>) -> Result<Self, NodeError> {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let label = !name.is_empty()
            && name.len() <= MAX_NAME_BYTES
            && name.bytes().all(inner)
            && !name.starts_with('-')
            && !name.ends_with('-');
        if !label {
            return Err(NodeError::Name(name.to_owned()));
        }
        if name == "ca" {
            return Err(NodeError::Reserved);
        }
        Ok(Self { name: name.to_owned(), addresses })
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for Node {
    type Err = NodeError;

    fn from_str(text: &str) -> Result<Self, NodeError> {
        let (name, list) = match text.split_once('=') {
            Some((name, list)) => (name, list),
            None => (text, ""),
        };
        let mut addresses = Vec::new();
        for address in list.split(',').filter(|address| !address.is_empty()) {
            addresses.push(address.parse().map_err(|_| NodeError::Address {
                node: name.to_owned(),
                address: address.to_owned(),
            })?);
        }
        Self::new(name, addresses)
    }
}

/// From when until when certificates hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
}

impl Validity {
    /// From now on. Starts an hour back, since two machines' clocks differ.
    pub fn days(days: u32) -> Self {
        let now = OffsetDateTime::now_utc();
        Self {
            not_before: now - Duration::hours(1),
            not_after: now + Duration::days(i64::from(days)),
        }
    }

    /// Over since an hour ago, so that a test can show that it is refused.
    pub fn expired() -> Self {
        let now = OffsetDateTime::now_utc();
        Self { not_before: now - Duration::days(2), not_after: now - Duration::hours(1) }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Issue a node's certificate anew although there is one. Never the authority's.
    pub force: bool,
    /// Of the nodes' certificates.
    pub validity: Validity,
}

impl Default for Options {
    fn default() -> Self {
        Self { force: false, validity: Validity::days(NODE_VALIDITY_DAYS) }
    }
}

/// What [`init`] did about one name (`ca` for the authority).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    pub name: String,
    pub certificate: PathBuf,
    pub what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Created,
    /// It was there and is what was asked for.
    Kept,
    Replaced,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Kept => "kept",
            Self::Replaced => "replaced",
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} holds no usable certificate or key: {reason}", path.display())]
    Unusable { path: PathBuf, reason: String },
    #[error("{} is there without {}: an authority needs both", found.display(), missing.display())]
    HalfAnAuthority { found: PathBuf, missing: PathBuf },
    #[error(
        "{} is there and {why}; --force issues it anew", path.display()
    )]
    WouldOverwrite { path: PathBuf, why: String },
    #[error("{} is not there: nothing to revoke it with, or to be revoked", path.display())]
    NotThere { path: PathBuf },
    #[error("cannot make a certificate for {name}")]
    Issue {
        name: String,
        #[source]
        source: rcgen::Error,
    },
}

/// Makes the authority if `dir` has none, then a certificate for each of `nodes` that has
/// none. Doing it again changes nothing.
///
/// A node whose certificate is there but is not what would be issued (another authority's,
/// other addresses, expired, its key missing) is refused without [`Options::force`], before
/// any node's file is written.
pub fn init(dir: &Path, nodes: &[Node], options: Options) -> Result<Vec<Done>, PkiError> {
    files::make_dir(dir)?;
    let (authority, made) = issue::Authority::open_or_create(dir)?;
    let mut done = vec![made];
    let mut due = Vec::new();
    for node in nodes {
        let certificate = dir.join(format!("{}.pem", node.name));
        let what = match authority.existing(dir, node)? {
            None => What::Created,
            Some(Ok(())) if !options.force => What::Kept,
            Some(Err(why)) if !options.force => {
                return Err(PkiError::WouldOverwrite { path: certificate, why });
            }
            Some(_) => What::Replaced,
        };
        if what != What::Kept {
            due.push(node);
        }
        done.push(Done { name: node.name.clone(), certificate, what });
    }
    for node in due {
        authority.issue(dir, node, options.validity)?;
    }
    Ok(done)
}

/// Puts the certificates that `nodes` have in `dir` on the authority's list of those that are
/// revoked, `crl.pem` (RFC 5280 §5), and keeps who is on it. Whoever has that file beside his
/// own certificate talks to them no more. [`init`] with [`Options::force`] gives a node a new
/// certificate.
///
/// # Errors
/// There is no authority, or a node has no certificate of it; then nothing is written.
pub fn revoke(dir: &Path, nodes: &[Node]) -> Result<PathBuf, PkiError> {
    issue::Authority::open(dir)?.revoke(dir, nodes)
}

/// Paths of one node's files in a directory that [`init`] made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFiles {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl NodeFiles {
    pub fn of(dir: &Path, name: &str) -> Self {
        Self {
            ca: dir.join("ca.pem"),
            certificate: dir.join(format!("{name}.pem")),
            key: dir.join(format!("{name}.key")),
        }
    }
}

#[cfg(test)]
mod tests;
