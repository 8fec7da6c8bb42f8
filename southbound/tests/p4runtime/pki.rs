//! Certificates for tests: an authority and whom it vouches for, as files.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
};
use time::{Duration, OffsetDateTime};

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test authority {}", NUMBER.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// Writes `crl.pem`, which revokes the certificates that these names have in `dir`.
    pub(crate) fn revoke(&self, dir: &Path, names: &[&str]) {
        let now = OffsetDateTime::now_utc();
        let revoked = names.iter().map(|name| {
            let pem = std::fs::read(dir.join(format!("{name}.pem"))).unwrap();
            let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
            let serial = pem.parse_x509().unwrap().raw_serial().to_vec();
            RevokedCertParams {
                serial_number: serial.into(),
                revocation_time: now,
                reason_code: None,
                invalidity_date: None,
            }
        });
        let params = CertificateRevocationListParams {
            this_update: now - Duration::DAY,
            // Past it already: a list counts nevertheless.
            next_update: now - Duration::HOUR,
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).unwrap().pem().unwrap();
        std::fs::write(dir.join("crl.pem"), list).unwrap();
    }

    /// Writes `ca.pem`, `NAME.pem` and `NAME.key` to `dir`, for `names` (the first counts),
    /// valid until `valid` from now.
    pub(crate) fn issue(&self, dir: &Path, names: &[&str], valid: Duration) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).unwrap();
        params.distinguished_name.push(DnType::CommonName, names[0].clone());
        params.not_before = OffsetDateTime::now_utc() - Duration::days(2);
        params.not_after = OffsetDateTime::now_utc() + valid;
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(dir.join("ca.pem"), &self.pem).unwrap();
        std::fs::write(dir.join(format!("{}.pem", names[0])), certificate.pem()).unwrap();
        std::fs::write(dir.join(format!("{}.key", names[0])), key.serialize_pem()).unwrap();
    }
}
