//! Who is who. Both ends of every connection between controller and switch show a certificate
//! of one authority; a peer's name is its certificate's, never what it says.
//!
//! Files in one directory: `ca.pem`, and for each name `NAME.pem` and `NAME.key` (PKCS #8).

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    pem::Pem,
    prelude::{FromDer, ParsedExtension},
};

/// Our own certificate and key, and the authority that we believe. Cheap to clone beside what
/// it is used for.
#[derive(Clone)]
pub struct Credentials {
    name: String,
    ca: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Credentials {
    /// Reads `ca.pem`, `NAME.pem` and `NAME.key` from `dir`.
    ///
    /// # Errors
    /// A file that cannot be read, holds no PEM of its sort, or, for `NAME.pem`, is another
    /// name's; each names the file. Whether the certificate is still valid is the peer's to
    /// judge.
    pub fn load(dir: &Path, name: &str) -> Result<Self, TlsError> {
        let (ca_path, certificate_path, key_path) =
            (dir.join("ca.pem"), dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
        };
        let (ca, certificate, key) = (read(&ca_path)?, read(&certificate_path)?, read(&key_path)?);
        first_certificate(&ca).ok_or(TlsError::NoCertificate { path: ca_path })?;
        let own = first_certificate(&certificate)
            .ok_or_else(|| TlsError::NoCertificate { path: certificate_path.clone() })?;
        let found = certificate_name(&own)
            .map_err(|source| TlsError::Name { path: certificate_path.clone(), source })?;
        if found != name {
            return Err(TlsError::OtherName {
                path: certificate_path,
                wanted: name.to_owned(),
                found,
            });
        }
        let has_key = Pem::iter_from_buffer(&key)
            .any(|pem| pem.is_ok_and(|pem| pem.label.ends_with("PRIVATE KEY")));
        if !has_key {
            return Err(TlsError::NoKey { path: key_path });
        }
        Ok(Self { name: name.to_owned(), ca, certificate, key })
    }

    /// Our own name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// For a server that talks to nobody without a certificate of the authority.
    pub fn server(&self) -> ServerTlsConfig {
        ServerTlsConfig::new()
            .identity(self.identity())
            .client_ca_root(Certificate::from_pem(&self.ca))
            .client_auth_optional(false)
    }

    /// For a client that expects the server to be `peer`, whatever its address.
    pub fn client(&self, peer: &str) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .identity(self.identity())
            .ca_certificate(Certificate::from_pem(&self.ca))
            .domain_name(peer)
    }

    fn identity(&self) -> Identity {
        Identity::from_pem(&self.certificate, &self.key)
    }
}

impl fmt::Debug for Credentials {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {path:?}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path:?} holds no PEM certificate")]
    NoCertificate { path: PathBuf },
    #[error("{path:?} holds no PEM private key")]
    NoKey { path: PathBuf },
    #[error("the certificate in {path:?} names nobody")]
    Name {
        path: PathBuf,
        #[source]
        source: PeerError,
    },
    #[error("the certificate in {path:?} is {found:?}'s, not {wanted:?}'s")]
    OtherName { path: PathBuf, wanted: String, found: String },
}

/// The name of whoever sent `request`, from the certificate it connected with. The handshake
/// has checked the certificate against the authority and the clock.
///
/// # Errors
/// See [`PeerError`]; a server's answer to it is UNAUTHENTICATED ([`PeerError`] converts).
pub fn peer_name<T>(request: &tonic::Request<T>) -> Result<String, PeerError> {
    let certificates = request.peer_certs().ok_or(PeerError::NoCertificate)?;
    certificate_name(certificates.first().ok_or(PeerError::NoCertificate)?)
}

/// The name in a DER certificate: its only DNS name (RFC 5280 §4.2.1.6); of several the one
/// that is the common name too; the common name if there is none.
///
/// # Errors
/// See [`PeerError`].
pub fn certificate_name(der: &[u8]) -> Result<String, PeerError> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| PeerError::BadCertificate)?;
    let alternative = certificate.extensions().iter().filter_map(|extension| {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        }
    });
    let dns: Vec<&str> = alternative
        .flatten()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(*name),
            _ => None,
        })
        .collect();
    let common = certificate.subject().iter_common_name().next().and_then(|cn| cn.as_str().ok());
    match (&dns[..], common) {
        ([only], _) => Ok((*only).to_owned()),
        ([], Some(common)) => Ok(common.to_owned()),
        (names, Some(common)) if names.contains(&common) => Ok(common.to_owned()),
        _ => Err(PeerError::NoName),
    }
}

/// Why a peer has no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    #[error("the peer showed no certificate")]
    NoCertificate,
    #[error("the certificate is not X.509")]
    BadCertificate,
    #[error("the certificate has no single DNS name and no common name that tells which counts")]
    NoName,
}

impl From<PeerError> for tonic::Status {
    fn from(error: PeerError) -> Self {
        Self::unauthenticated(error.to_string())
    }
}

fn first_certificate(pem: &[u8]) -> Option<Vec<u8>> {
    Pem::iter_from_buffer(pem)
        .filter_map(Result::ok)
        .find(|pem| pem.label == "CERTIFICATE")
        .map(|pem| pem.contents)
}
