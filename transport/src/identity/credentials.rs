//! A private key, and a private key with its certificate.
//!
//! Keys are Ed25519 in PKCS#8 form. Ed25519 because the key is any 32 random
//! bytes (so the simulator can draw it) and signatures need no chance at all.

use std::{fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cluster::{ids::NodeId, ports::entropy::Entropy, units::WallTime};
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    sign::CertifiedKey,
};

use super::{CERTIFICATE_LIFETIME_DAYS, CertificateNames, IdentityError, names};
use crate::tls;

/// PKCS#8 version 1 around a 32-byte Ed25519 secret. Source: RFC 8410 §7.
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// An Ed25519 private key. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey {
    pkcs8: Vec<u8>,
}

impl PrivateKey {
    /// Draws a new key.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let mut secret = [0; 32];
        entropy.fill(&mut secret);
        let mut pkcs8 = PKCS8_PREFIX.to_vec();
        pkcs8.extend_from_slice(&secret);
        Self { pkcs8 }
    }

    /// Reads what [`Self::to_pkcs8`] gave.
    ///
    /// # Errors
    /// If the bytes are no such key.
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, IdentityError> {
        let key = Self { pkcs8: bytes.to_vec() };
        key.signer()?;
        Ok(key)
    }

    /// The key as PKCS#8 DER. Secret.
    pub fn to_pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// Asks an authority to certify this key for `node` (PKCS#10 DER).
    ///
    /// # Errors
    /// If the key cannot sign.
    pub fn signing_request(&self, node: NodeId) -> Result<Vec<u8>, IdentityError> {
        let failed = |error: rcgen::Error| IdentityError::SigningRequest(error.to_string());
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, node.to_hex());
        let request = params.serialize_request(&self.signer()?).map_err(failed)?;
        Ok(request.der().to_vec())
    }

    pub(super) fn signer(&self) -> Result<rcgen::KeyPair, IdentityError> {
        let der = PrivatePkcs8KeyDer::from(self.pkcs8.as_slice());
        rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ED25519)
            .map_err(|error| IdentityError::Key(error.to_string()))
    }

    fn to_rustls(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8.clone()))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(secret)")
    }
}

/// A certificate, its key and the authority that signed it: all a node or a
/// client needs to prove itself and to check others.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    authority: Vec<u8>,
    certificate: Vec<u8>,
    key: PrivateKey,
    names: CertificateNames,
    ends: WallTime,
}

impl Credentials {
    /// Joins a certificate (DER), its key and the authority's certificate (DER).
    ///
    /// # Errors
    /// If one is malformed, or key and certificate do not belong together.
    pub fn new(
        authority: Vec<u8>,
        certificate: Vec<u8>,
        key: PrivateKey,
    ) -> Result<Self, IdentityError> {
        let names = CertificateNames::read(&certificate)?;
        let issuer = CertificateNames::read(&authority)?;
        if issuer.cluster != names.cluster {
            return Err(IdentityError::Certificate(format!(
                "it names cluster {}, its authority cluster {}",
                names.cluster, issuer.cluster
            )));
        }
        let (_, ends) = names::validity(&certificate)?;
        let credentials = Self { authority, certificate, key, names, ends };
        credentials.certified_key()?;
        Ok(credentials)
    }

    /// The authority's certificate (DER).
    pub fn authority(&self) -> &[u8] {
        &self.authority
    }

    /// The certificate (DER).
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The private key. Secret.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// Whom the certificate names.
    pub fn names(&self) -> &CertificateNames {
        &self.names
    }

    /// When the certificate ends.
    pub fn ends(&self) -> WallTime {
        self.ends
    }

    /// Whether it is time for another one: a third of its life is left, so that months
    /// go by in which it can be had before anybody is refused.
    pub fn is_due(&self, now: WallTime) -> bool {
        const LEFT: Duration = Duration::from_hours(24 * CERTIFICATE_LIFETIME_DAYS / 3);
        self.ends.0.saturating_sub(now.0) < u64::try_from(LEFT.as_millis()).unwrap_or(u64::MAX)
    }

    /// Certificate and authority as PEM text. Not secret.
    pub fn certificates_pem(&self) -> String {
        [pem("CERTIFICATE", &self.certificate), pem("CERTIFICATE", &self.authority)].concat()
    }

    /// The private key as PEM text. Secret: write it with mode 0600.
    pub fn key_pem(&self) -> String {
        pem("PRIVATE KEY", self.key.to_pkcs8())
    }

    /// Reads what [`Self::certificates_pem`] and [`Self::key_pem`] wrote.
    ///
    /// # Errors
    /// If the text is malformed or the parts do not belong together.
    pub fn from_pem(certificates: &str, key: &str) -> Result<Self, IdentityError> {
        let malformed =
            |error: rustls::pki_types::pem::Error| IdentityError::Pem(error.to_string());
        let chain = CertificateDer::pem_slice_iter(certificates.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(malformed)?;
        let [certificate, authority] = chain.as_slice() else {
            return Err(IdentityError::Pem(format!(
                "expected two certificates (own, authority), found {}",
                chain.len()
            )));
        };
        let key = PrivatePkcs8KeyDer::from_pem_slice(key.as_bytes()).map_err(malformed)?;
        let key = PrivateKey::from_pkcs8(key.secret_pkcs8_der())?;
        Self::new(authority.to_vec(), certificate.to_vec(), key)
    }

    /// The chain and key as rustls wants them. The authority's certificate is
    /// part of the chain: a joiner knows only its fingerprint.
    pub(crate) fn certified_key(&self) -> Result<CertifiedKey, IdentityError> {
        let failed = |error: rustls::Error| IdentityError::Key(error.to_string());
        let key = tls::load_key(&self.key.to_rustls()).map_err(failed)?;
        let chain = vec![
            CertificateDer::from(self.certificate.clone()),
            CertificateDer::from(self.authority.clone()),
        ];
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|_| IdentityError::Mismatch)?;
        Ok(certified)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("names", &self.names).finish_non_exhaustive()
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    /// Source: RFC 7468 §2.
    const LINE_CHARS: usize = 64;
    let mut text = format!("-----BEGIN {label}-----\n");
    for (index, letter) in STANDARD.encode(der).chars().enumerate() {
        if index > 0 && index % LINE_CHARS == 0 {
            text.push('\n');
        }
        text.push(letter);
    }
    text + &format!("\n-----END {label}-----\n")
}
