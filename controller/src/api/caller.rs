//! Who asks: what the connection says of its other end, for the record of changes.

use std::fmt;
use std::net::SocketAddr;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::{TcpListener, UnixListener};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A process of this user, as the kernel says (`SO_PEERCRED`, unix(7)).
    User(u32),
    Address(SocketAddr),
    Unknown,
}

impl Caller {
    /// For the record of changes: the user's name where the system knows one, behind the name
    /// that the caller gave, if any.
    pub(crate) async fn author(&self, stated: Option<&str>) -> String {
        let known = match *self {
            // Users may be in a directory that is asked over the network.
            Self::User(uid) => tokio::task::spawn_blocking(move || user_name(uid)).await.ok(),
            Self::Address(_) | Self::Unknown => None,
        };
        let known = known.flatten().unwrap_or_else(|| self.to_string());
        match stated {
            Some(stated) if stated != known => format!("{stated} ({known})"),
            _ => known,
        }
    }
}

fn user_name(uid: u32) -> Option<String> {
    let user = nix::unistd::User::from_uid(uid.into()).ok()??;
    Some(user.name)
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(uid) => write!(f, "uid {uid}"),
            Self::Address(address) => write!(f, "{}", address.ip()),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        stream.io().peer_cred().map_or(Self::Unknown, |peer| Self::User(peer.uid()))
    }
}

impl Connected<IncomingStream<'_, TcpListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self::Address(*stream.remote_addr())
    }
}

impl<S: Sync> axum::extract::FromRequestParts<S> for Caller {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        _: &S,
    ) -> Result<Self, Self::Rejection> {
        let info = parts.extensions.get::<axum::extract::ConnectInfo<Self>>();
        Ok(info.map_or(Self::Unknown, |info| info.0.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn authors_have_names() {
        let address = Caller::Address("192.0.2.7:4711".parse().unwrap());
        for (caller, stated, want) in [
            (Caller::User(0), None, "root"),
            (Caller::User(0), Some("alice"), "alice (root)"),
            (Caller::User(0), Some("root"), "root"),
            (Caller::User(4_000_000_001), None, "uid 4000000001"),
            (address, Some("ci"), "ci (192.0.2.7)"),
            (Caller::Unknown, None, "unknown"),
        ] {
            assert_eq!(caller.author(stated).await, want);
        }
    }
}
