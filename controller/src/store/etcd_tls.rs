//! How to reach etcd over TLS.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// Of a directory with `ca.pem`, by which etcd's members are known, and `client.pem` and
/// `client.key`, by which etcd knows us.
#[derive(Clone)]
pub struct EtcdTls {
    config: ClientTlsConfig,
}

/// Why they cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EtcdTlsError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} holds no {what} in PEM form", path.display())]
    Empty { path: PathBuf, what: &'static str },
}

impl EtcdTls {
    /// # Errors
    /// [`EtcdTlsError`], which names the file.
    pub fn load(dir: &Path) -> Result<Self, EtcdTlsError> {
        let read = |name: &str, what: &'static str| {
            let path = dir.join(name);
            match std::fs::read_to_string(&path) {
                Ok(text) if text.contains(&format!("{what}-----")) => Ok(text),
                Ok(_) => Err(EtcdTlsError::Empty { path, what }),
                Err(source) => Err(EtcdTlsError::Read { path, source }),
            }
        };
        let ca = Certificate::from_pem(read("ca.pem", "CERTIFICATE")?);
        let certificate = read("client.pem", "CERTIFICATE")?;
        let identity = Identity::from_pem(certificate, read("client.key", "PRIVATE KEY")?);
        Ok(Self { config: ClientTlsConfig::new().ca_certificate(ca).identity(identity) })
    }

    /// A member's certificate has to name the address that it is reached at.
    pub(super) fn config(&self) -> ClientTlsConfig {
        self.config.clone()
    }
}

impl fmt::Debug for EtcdTls {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdTls").finish_non_exhaustive()
    }
}
