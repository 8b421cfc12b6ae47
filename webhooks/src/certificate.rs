//! The certificate that is served, swapped while connections come in: each handshake takes the newest.

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

/// How long an authority and a leaf are good for; a leaf is renewed when a third of its life is left.
pub const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);
pub const LEAF_LIFE: Duration = Duration::from_secs(7 * 86_400);
/// An authority with less than this left is followed by another.
pub const AUTHORITY_REST: Duration = Duration::from_secs(365 * 86_400);
/// Clocks differ: so much of the past is included.
const BEFORE: Duration = Duration::from_secs(3_600);

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("making a certificate: {0}")]
    Making(#[from] rcgen::Error),
    #[error("the certificate or its key can't be read: {0}")]
    Reading(#[from] rustls::pki_types::pem::Error),
    #[error("the key can't be used: {0}")]
    Key(#[from] rustls::Error),
}

/// An authority and its key, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Authority {
    pub certificate: String,
    pub key: String,
    /// When, if it is one of ours.
    pub made: Option<SystemTime>,
}

/// A new authority of our own.
pub fn new_authority(now: SystemTime) -> Result<Authority, CertificateError> {
    let key = KeyPair::generate()?;
    let certificate = authority_parameters(now).self_signed(&key)?;
    Ok(Authority { certificate: certificate.pem(), key: key.serialize_pem(), made: Some(now) })
}

fn authority_parameters(now: SystemTime) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, "supercargo-gate");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut parameters, now, AUTHORITY_LIFE);
    parameters
}

fn valid(parameters: &mut CertificateParams, now: SystemTime, life: Duration) {
    parameters.not_before = (now - BEFORE).into();
    parameters.not_after = (now + life).into();
}

/// A leaf for these names, signed by the authority.
pub fn new_leaf(authority: &Authority, names: &[String], now: SystemTime) -> Result<Arc<CertifiedKey>, CertificateError> {
    // The issuer's name and key are all that a leaf takes of its authority, and the name is always the same.
    let issuer = Issuer::new(authority_parameters(now), KeyPair::from_pem(&authority.key)?);
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::new(names.to_vec())?;
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    valid(&mut parameters, now, LEAF_LIFE);
    let leaf = parameters.signed_by(&key, &issuer)?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok(Arc::new(CertifiedKey::new(vec![leaf.der().clone()], rustls::crypto::ring::sign::any_supported_type(&private)?)))
}

/// Whether an authority is to be followed by another; one whose key is not its certificate's is an error. One that we have
/// not made is somebody else's to renew.
pub fn is_ending(authority: &Authority, now: SystemTime) -> Result<bool, CertificateError> {
    read(authority.certificate.as_bytes(), authority.key.as_bytes())?;
    Ok(authority.made.is_some_and(|made| now + AUTHORITY_REST > made + AUTHORITY_LIFE))
}

/// A certificate that somebody else made, such as cert-manager.
pub fn read(certificate: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, CertificateError> {
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(key)?;
    // Held to each other: a pair that is caught half-written is refused, and the last good one stays.
    Ok(Arc::new(CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())?))
}

/// Whether a text is one certificate that can be trusted.
pub fn is_certificate(pem: &str) -> bool {
    CertificateDer::from_pem_slice(pem.as_bytes()).is_ok_and(|der| rustls::RootCertStore::empty().add(der).is_ok())
}

/// What is served now.
#[derive(Debug)]
pub struct Served(RwLock<Arc<CertifiedKey>>);

impl Served {
    pub fn new(first: Arc<CertifiedKey>) -> Self {
        Self(RwLock::new(first))
    }

    pub fn swap(&self, next: Arc<CertifiedKey>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = next;
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let certificate =
            CertificateParams::new(vec!["a.test".to_owned()]).and_then(|parameters| parameters.self_signed(&key)).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn an_authority_is_followed_by_another_in_its_last_year_and_a_foreign_key_is_noticed() {
        let made = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let (authority, other) = (new_authority(made).expect("an authority"), new_authority(made).expect("an authority"));
        assert!(!is_ending(&authority, made).expect("fits"));
        let nearly = made + AUTHORITY_LIFE - AUTHORITY_REST;
        assert!(!is_ending(&authority, nearly - BEFORE).expect("fits") && is_ending(&authority, nearly + BEFORE).expect("fits"));
        let foreign = Authority { made: None, ..authority.clone() };
        assert!(!is_ending(&foreign, made + AUTHORITY_LIFE * 2).expect("fits"), "it is somebody else's to renew");
        let mixed = Authority { key: other.key, ..authority };
        assert!(is_ending(&mixed, made).is_err());
    }

    #[test]
    fn a_pair_that_does_not_belong_together_is_refused() {
        let ((certificate, key), (_, other)) = (pair(), pair());
        assert!(read(certificate.as_bytes(), key.as_bytes()).is_ok());
        assert!(read(certificate.as_bytes(), other.as_bytes()).is_err());
        assert!(read(b"", key.as_bytes()).is_err());
    }
}
