//! Making certificates, and telling whether one that is there is the one wanted.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData,
    RevokedCertParams, SanType,
};
use time::{Duration, OffsetDateTime};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;

use super::files::{self, MODE_PRIVATE, MODE_PUBLIC};
use super::{CA_VALIDITY_DAYS, Done, Node, NodeFiles, PkiError, Validity, What};

pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Pem,
}

impl Authority {
    /// The one that is there.
    pub(super) fn open(dir: &Path) -> Result<Self, PkiError> {
        let path = dir.join("ca.pem");
        match files::read(&path)? {
            Some(_) => Ok(Self::open_or_create(dir)?.0),
            None => Err(PkiError::NotThere { path }),
        }
    }

    pub(super) fn open_or_create(dir: &Path) -> Result<(Self, Done), PkiError> {
        let certificate = dir.join("ca.pem");
        let key = dir.join("ca.key");
        let (pem, key_pem, what) = match (files::read(&certificate)?, files::read(&key)?) {
            (Some(pem), Some(key_pem)) => (pem, key_pem, What::Kept),
            (Some(_), None) => {
                return Err(PkiError::HalfAnAuthority { found: certificate, missing: key });
            }
            // A key alone is what a run leaves that was stopped between its two writes.
            (None, key_pem) => {
                let (pem, key_pem) = create(key_pem.as_deref())
                    .map_err(|source| PkiError::Issue { name: "ca".to_owned(), source })?;
                files::write(&key, &key_pem, MODE_PRIVATE)?;
                files::write(&certificate, &pem, MODE_PUBLIC)?;
                (pem, key_pem, What::Created)
            }
        };
        let unusable =
            |path: &Path, reason: String| PkiError::Unusable { path: path.to_owned(), reason };
        let key_pair =
            KeyPair::from_pem(&key_pem).map_err(|error| unusable(&key, error.to_string()))?;
        let public = key_pair.subject_public_key_info();
        let issuer = Issuer::from_ca_cert_pem(&pem, key_pair)
            .map_err(|error| unusable(&certificate, error.to_string()))?;
        let parsed = parse_pem(&pem).map_err(|reason| unusable(&certificate, reason))?;
        {
            let x509 = parse_x509(&parsed).map_err(|reason| unusable(&certificate, reason))?;
            if !x509.is_ca() {
                return Err(unusable(&certificate, "it may not sign others".to_owned()));
            }
            if x509.public_key().raw != public {
                return Err(unusable(&key, "it is not the key of ca.pem".to_owned()));
            }
            if !x509.validity().is_valid() {
                return Err(unusable(&certificate, "it is not valid now".to_owned()));
            }
        }
        let done = Done { name: "ca".to_owned(), certificate, what };
        Ok((Self { issuer, certificate: parsed }, done))
    }

    /// `None`: `node` has no certificate. `Some(Err(why))`: it has one, which differs from
    /// the one that would be issued.
    pub(super) fn existing(
        &self,
        dir: &Path,
        node: &Node,
    ) -> Result<Option<Result<(), String>>, PkiError> {
        let files = NodeFiles::of(dir, node.name());
        let Some(pem) = files::read(&files.certificate)? else { return Ok(None) };
        let Some(key_pem) = files::read(&files.key)? else {
            return Ok(Some(Err(format!("{}.key is not", node.name()))));
        };
        Ok(Some(self.differs(node, &pem, &key_pem)))
    }

    fn differs(&self, node: &Node, pem: &str, key_pem: &str) -> Result<(), String> {
        let parsed = parse_pem(pem)?;
        let x509 = parse_x509(&parsed)?;
        let ca = parse_x509(&self.certificate)?;
        if x509.verify_signature(Some(ca.public_key())).is_err() {
            return Err("is signed by another authority".to_owned());
        }
        let (name, mut addresses) = names(&x509);
        if name.as_deref() != Some(node.name()) {
            return Err("is another node's".to_owned());
        }
        if !x509.validity().is_valid() {
            return Err("is not valid now".to_owned());
        }
        let mut wanted = node.addresses.clone();
        wanted.sort();
        wanted.dedup();
        addresses.sort();
        if addresses != wanted {
            return Err(format!("names the addresses {addresses:?}, not {wanted:?}"));
        }
        let key = KeyPair::from_pem(key_pem).map_err(|error| format!("its key: {error}"))?;
        if x509.public_key().raw != key.subject_public_key_info() {
            return Err("its key is another's".to_owned());
        }
        Ok(())
    }

    /// Where the list is.
    pub(super) fn revoke(&self, dir: &Path, nodes: &[Node]) -> Result<PathBuf, PkiError> {
        let path = dir.join("crl.pem");
        let unusable =
            |path: &Path, reason: String| PkiError::Unusable { path: path.to_owned(), reason };
        let now = OffsetDateTime::now_utc();
        // By serial number, with the time.
        let mut revoked = BTreeMap::new();
        if let Some(list) = files::read(&path)? {
            let pem = parse_pem(&list).map_err(|reason| unusable(&path, reason))?;
            let (_, list) = CertificateRevocationList::from_der(&pem.contents)
                .map_err(|error| unusable(&path, format!("is not a revocation list ({error})")))?;
            revoked.extend(list.iter_revoked_certificates().map(|certificate| {
                (certificate.raw_serial().to_vec(), certificate.revocation_date.to_datetime())
            }));
        }
        for node in nodes {
            let path = NodeFiles::of(dir, node.name()).certificate;
            let pem = files::read(&path)?;
            let pem = pem.ok_or_else(|| PkiError::NotThere { path: path.clone() })?;
            let pem = parse_pem(&pem).map_err(|reason| unusable(&path, reason))?;
            let x509 = parse_x509(&pem).map_err(|reason| unusable(&path, reason))?;
            let ca = parse_x509(&self.certificate).map_err(|reason| unusable(&path, reason))?;
            if x509.verify_signature(Some(ca.public_key())).is_err() {
                return Err(unusable(&path, "it is signed by another authority".to_owned()));
            }
            revoked.entry(x509.raw_serial().to_vec()).or_insert(now);
        }
        let certificate = |(serial, at): (Vec<u8>, OffsetDateTime)| RevokedCertParams {
            serial_number: serial.into(),
            revocation_time: at,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now,
            next_update: now + Duration::days(CA_VALIDITY_DAYS.into()),
            crl_number: u64::try_from(now.unix_timestamp()).unwrap_or_default().into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.into_iter().map(certificate).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).and_then(|list| list.pem());
        let list = list.map_err(|source| PkiError::Issue { name: "crl".to_owned(), source })?;
        files::write(&path, &list, MODE_PUBLIC)?;
        Ok(path)
    }

    pub(super) fn issue(
        &self,
        dir: &Path,
        node: &Node,
        validity: Validity,
    ) -> Result<(), PkiError> {
        let (pem, key_pem) = self
            .sign(node, validity)
            .map_err(|source| PkiError::Issue { name: node.name().to_owned(), source })?;
        let files = NodeFiles::of(dir, node.name());
        // The key first: a certificate is never there without it.
        files::write(&files.key, &key_pem, MODE_PRIVATE)?;
        files::write(&files.certificate, &pem, MODE_PUBLIC)
    }

    fn sign(&self, node: &Node, validity: Validity) -> Result<(String, String), rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = params(node.name(), validity);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // A switch is a server (P4Runtime) and a client (its session); so is the controller.
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![SanType::DnsName(node.name().try_into()?)];
        let mut addresses = node.addresses.clone();
        addresses.sort();
        addresses.dedup();
        params.subject_alt_names.extend(addresses.into_iter().map(SanType::IpAddress));
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

fn create(key_pem: Option<&str>) -> Result<(String, String), rcgen::Error> {
    let key = match key_pem {
        Some(pem) => KeyPair::from_pem(pem)?,
        None => KeyPair::generate()?,
    };
    let mut params = params("Selvedge CA", Validity::days(CA_VALIDITY_DAYS));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn params(common_name: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = validity.not_before;
    params.not_after = validity.not_after;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn parse_pem(text: &str) -> Result<Pem, String> {
    match Pem::iter_from_buffer(text.as_bytes()).next() {
        Some(Ok(pem)) => Ok(pem),
        Some(Err(error)) => Err(format!("is not PEM ({error})")),
        None => Err("is empty".to_owned()),
    }
}

fn parse_x509(pem: &Pem) -> Result<X509Certificate<'_>, String> {
    pem.parse_x509().map_err(|error| format!("is not an X.509 certificate ({error})"))
}

/// The first DNS name, and all addresses.
fn names(certificate: &X509Certificate<'_>) -> (Option<String>, Vec<IpAddr>) {
    let mut name = None;
    let mut addresses = Vec::new();
    let extension = certificate.subject_alternative_name().ok().flatten();
    for general in extension.iter().flat_map(|extension| &extension.value.general_names) {
        match general {
            GeneralName::DNSName(dns) if name.is_none() => name = Some((*dns).to_owned()),
            GeneralName::IPAddress(bytes) => {
                if let Ok(v4) = <[u8; 4]>::try_from(*bytes) {
                    addresses.push(v4.into());
                } else if let Ok(v6) = <[u8; 16]>::try_from(*bytes) {
                    addresses.push(v6.into());
                }
            }
            _ => {}
        }
    }
    (name, addresses)
}
