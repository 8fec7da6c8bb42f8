//! Who is who. Both ends of every connection between controller and switch show a certificate
//! of one authority; a peer's name is its certificate's, never what it says.
//!
//! Files in one directory: `ca.pem` (several authorities while one replaces another), for each
//! name `NAME.pem` and `NAME.key` (PKCS #8), and `crl.pem` if somebody was revoked (RFC 5280 §5;
//! a list that is past its next update still counts). They are looked at with each handshake:
//! who replaces a file has it count from the next connection on, and those that are open stay
//! open, but for those of a peer that was revoked ([`Credentials::still_good`]).

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fmt, io};

use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, ServerConfig, version};
use tonic::transport::{
    Certificate, Channel, ClientTlsConfig, Endpoint, Identity, ServerTlsConfig, Uri,
};
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    pem::Pem,
    prelude::{FromDer, ParsedExtension},
};

/// Our own certificate and key, the authorities that we believe, and whom they have revoked.
/// Cheap to clone.
#[derive(Clone)]
pub struct Credentials(Arc<Inner>);

struct Inner {
    name: String,
    dir: PathBuf,
    current: Mutex<Current>,
}

struct Current {
    /// Of the files that all this was read from.
    stamps: [Option<Stamp>; 4],
    read: Arc<Read>,
    /// The files are others by now, and cannot be used: as it was said already.
    unusable: Option<String>,
}

struct Read {
    ca: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
}

/// What tells that a file was replaced: inode, size, and seconds and nanoseconds of its last
/// change.
type Stamp = (u64, u64, i64, i64);

impl Credentials {
    /// Reads `ca.pem`, `NAME.pem`, `NAME.key` and, if there is one, `crl.pem` from `dir`.
    ///
    /// # Errors
    /// A file that cannot be read, holds no PEM of its sort, or, for `NAME.pem`, is another
    /// name's; each names the file. Whether the certificate is still valid is the peer's to
    /// judge.
    pub fn load(dir: &Path, name: &str) -> Result<Self, TlsError> {
        let stamps = stamps(dir, name);
        let read = Arc::new(Read::from_files(dir, name)?);
        let current = Mutex::new(Current { stamps, read, unusable: None });
        Ok(Self(Arc::new(Inner { name: name.to_owned(), dir: dir.to_owned(), current })))
    }

    /// Our own name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// As the files are now. Files that cannot be used are said once, and what was read before
    /// goes on: a deployment that replaces them one by one does not take anybody down.
    fn current(&self) -> Arc<Read> {
        let Inner { name, dir, current } = &*self.0;
        let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = stamps(dir, name);
        if stamps != current.stamps {
            match Read::from_files(dir, name) {
                Ok(read) => {
                    tracing::info!(node = name, dir = %dir.display(), "certificates read again");
                    *current = Current { stamps, read: Arc::new(read), unusable: None };
                }
                Err(error) => {
                    let text = error.to_string();
                    if current.unusable.as_ref() != Some(&text) {
                        let error = &error as &dyn std::error::Error;
                        tracing::error!(node = name, error, "new certificates cannot be used");
                        current.unusable = Some(text);
                    }
                }
            }
        }
        Arc::clone(&current.read)
    }

    /// For a server that talks to nobody without a certificate of the authority: for the next
    /// handshake.
    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current().server)
    }

    /// Whether somebody with these certificates, his own first, would be let in now: it is of an
    /// authority of ours, not over, and not revoked.
    ///
    /// # Errors
    /// Why not.
    pub fn still_good(&self, certificates: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let Some((own, rest)) = certificates.split_first() else {
            return Err(rustls::Error::NoCertificatesPresented);
        };
        self.current().verifier.verify_client_cert(own, rest, UnixTime::now()).map(drop)
    }

    /// Connects to `peer` at `uri`, `https://HOST:PORT`, whatever its address; `configure` sets
    /// the rest.
    ///
    /// # Errors
    /// Nobody there, or another than `peer`; the chain of sources has the reason. A server that
    /// does not like our certificate says so only when something is read (RFC 8446 §4.4.2.4).
    pub async fn connect(
        &self,
        uri: &str,
        peer: &str,
        configure: impl FnOnce(Endpoint) -> Endpoint,
    ) -> Result<Channel, tonic::transport::Error> {
        let origin = Endpoint::from_shared(uri.to_owned())?.uri().clone();
        // To tonic it is in the clear: TLS is in the connector.
        let endpoint = Endpoint::from_shared(uri.replacen("https://", "http://", 1))?;
        let (credentials, peer) = (self.clone(), peer.to_owned());
        let connect = move |uri: Uri| {
            let (credentials, peer) = (credentials.clone(), peer.clone());
            async move {
                let host = uri.host().ok_or(io::ErrorKind::InvalidInput)?;
                let host = host.trim_start_matches('[').trim_end_matches(']');
                let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await?;
                stream.set_nodelay(true)?;
                let peer = ServerName::try_from(peer).map_err(io::Error::other)?;
                let tls = TlsConnector::from(Arc::clone(&credentials.current().client));
                tls.connect(peer, stream).await.map(TokioIo::new)
            }
        };
        let endpoint = configure(endpoint).origin(origin);
        endpoint.connect_with_connector(tower::service_fn(connect)).await
    }

    /// What [`Self::server`] is, in tonic's words and once for all: for peers that are no
    /// Selvedge.
    pub fn tonic_server(&self) -> ServerTlsConfig {
        let read = self.current();
        ServerTlsConfig::new()
            .identity(Identity::from_pem(&read.certificate, &read.key))
            .client_ca_root(Certificate::from_pem(&read.ca))
            .client_auth_optional(false)
    }

    /// The same of [`Self::connect`].
    pub fn tonic_client(&self, peer: &str) -> ClientTlsConfig {
        let read = self.current();
        ClientTlsConfig::new()
            .identity(Identity::from_pem(&read.certificate, &read.key))
            .ca_certificate(Certificate::from_pem(&read.ca))
            .domain_name(peer)
    }
}

impl Read {
    fn from_files(dir: &Path, name: &str) -> Result<Self, TlsError> {
        let [ca_path, certificate_path, key_path, crl_path] = paths(dir, name);
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
        };
        let (ca, certificate, key) = (read(&ca_path)?, read(&certificate_path)?, read(&key_path)?);
        let own = first_certificate(&certificate)
            .ok_or_else(|| TlsError::NoCertificate { path: certificate_path.clone() })?;
        let found = certificate_name(&own)
            .map_err(|source| TlsError::Name { path: certificate_path.clone(), source })?;
        if found != name {
            let (path, wanted) = (certificate_path, name.to_owned());
            return Err(TlsError::OtherName { path, wanted, found });
        }
        let unusable = |path: &Path| {
            let path = path.to_owned();
            move |source: Box<dyn std::error::Error + Send + Sync>| TlsError::Unusable {
                path,
                source,
            }
        };
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(&ca) {
            let root = root.map_err(|error| unusable(&ca_path)(error.into()))?;
            roots.add(root).map_err(|error| unusable(&ca_path)(error.into()))?;
        }
        if roots.is_empty() {
            return Err(TlsError::NoCertificate { path: ca_path });
        }
        let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| unusable(&certificate_path)(error.into()))?;
        let private = PrivateKeyDer::from_pem_slice(&key)
            .map_err(|_| TlsError::NoKey { path: key_path.clone() })?;
        let revoked = match std::fs::read(&crl_path) {
            Ok(pem) => CertificateRevocationListDer::pem_slice_iter(&pem)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| unusable(&crl_path)(error.into()))
                .and_then(|lists| match lists.is_empty() {
                    true => Err(TlsError::NoList { path: crl_path.clone() }),
                    false => Ok(lists),
                })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(TlsError::Read { path: crl_path, source }),
        };

        let provider = Arc::new(ring::default_provider());
        let roots = Arc::new(roots);
        // With several authorities not each has a list: nobody of theirs is revoked.
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .with_crls(revoked.clone())
                .allow_unknown_revocation_status()
                .build()
                .map_err(|error| unusable(&crl_path)(error.into()))?;
        let servers = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .with_crls(revoked)
            .allow_unknown_revocation_status()
            .build()
            .map_err(|error| unusable(&crl_path)(error.into()))?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|error| unusable(&certificate_path)(error.into()))?
            .with_client_cert_verifier(Arc::clone(&verifier))
            .with_single_cert(chain.clone(), private.clone_key())
            .map_err(|error| unusable(&key_path)(error.into()))?;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|error| unusable(&certificate_path)(error.into()))?
            .with_webpki_verifier(servers)
            .with_client_auth_cert(chain, private)
            .map_err(|error| unusable(&key_path)(error.into()))?;
        server.alpn_protocols.push(b"h2".to_vec());
        client.alpn_protocols.push(b"h2".to_vec());
        // A ticket would let in who was revoked since.
        server.send_tls13_tickets = 0;
        client.resumption = rustls::client::Resumption::disabled();
        let (server, client) = (Arc::new(server), Arc::new(client));
        Ok(Self { ca, certificate, key, server, client, verifier })
    }
}

fn paths(dir: &Path, name: &str) -> [PathBuf; 4] {
    let own = |extension| dir.join(format!("{name}.{extension}"));
    [dir.join("ca.pem"), own("pem"), own("key"), dir.join("crl.pem")]
}

fn stamps(dir: &Path, name: &str) -> [Option<Stamp>; 4] {
    paths(dir, name).map(|path| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
    })
}

impl fmt::Debug for Credentials {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("name", &self.0.name).finish_non_exhaustive()
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
    #[error("{path:?} holds no PEM revocation list")]
    NoList { path: PathBuf },
    #[error("{path:?} cannot be used")]
    Unusable {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
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
