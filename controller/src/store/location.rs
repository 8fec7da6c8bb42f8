//! Where the store is: a file, or the members of an etcd cluster.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// `FILE`, or `etcd://HOST:PORT,HOST:PORT,...[/PREFIX]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    File(PathBuf),
    Etcd {
        /// `HOST:PORT` of each member.
        members: Vec<String>,
        /// What our keys in etcd begin with.
        prefix: String,
    },
}

/// What keys in etcd begin with where the location does not say.
const PREFIX: &str = "selvedge";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a store: give a FILE, or etcd://HOST:PORT,HOST:PORT,...[/PREFIX]")]
pub struct BadLocation {
    text: String,
}

impl FromStr for Location {
    type Err = BadLocation;

    fn from_str(text: &str) -> Result<Self, BadLocation> {
        let bad = || BadLocation { text: text.to_owned() };
        let Some(rest) = text.strip_prefix("etcd://") else {
            let is_file = !text.is_empty() && !text.contains("://");
            return if is_file { Ok(Self::File(text.into())) } else { Err(bad()) };
        };
        let (members, prefix) = rest.split_once('/').unwrap_or((rest, PREFIX));
        let is_member = |member: &str| {
            let authority = member.parse::<tonic::codegen::http::uri::Authority>();
            authority.is_ok_and(|authority| authority.port().is_some())
        };
        let members: Vec<String> = members.split(',').map(str::to_owned).collect();
        if !members.iter().all(|member| is_member(member)) || prefix.is_empty() {
            return Err(bad());
        }
        Ok(Self::Etcd { members, prefix: prefix.to_owned() })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Etcd { members, prefix } => write!(f, "etcd://{}/{prefix}", members.join(",")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_or_members() {
        for (text, want) in [
            ("c.redb", "c.redb"),
            ("etcd://a:2379", "etcd://a:2379/selvedge"),
            ("etcd://a:2379,[::1]:1/lab", "etcd://a:2379,[::1]:1/lab"),
        ] {
            assert_eq!(text.parse::<Location>().unwrap().to_string(), want);
        }
        for bad in ["", "etcd://", "etcd://a", "etcd://a:1,", "etcd://a:1/", "http://a:1"] {
            assert!(bad.parse::<Location>().is_err(), "{bad}");
        }
    }
}
