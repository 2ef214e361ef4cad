//! The cluster's certificate authority.
//!
//! Made once by `cluster init`. Its certificate is public and lies in the
//! catalog; its key lies there sealed under the cluster key, which every node
//! holds, so any node can sign a joiner in.

use std::{fmt, time::Duration};

use cluster::{
    ids::{ClusterId, NodeId, TenantId},
    ports::entropy::Entropy,
    units::WallTime,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};

use super::{
    AUTHORITY_LIFETIME_DAYS, CERTIFICATE_LIFETIME_DAYS, CertificateNames, ClusterKey, Credentials,
    IdentityError, PrivateKey, Subject,
    names::{check_principal, validity},
};

/// Certificates begin to be valid so long before they are issued, because
/// the nodes that check them have clocks of their own.
const CLOCK_SKEW: Duration = Duration::from_mins(5);
const DAY: Duration = Duration::from_hours(24);

/// The authority with its private key.
pub struct Authority {
    cluster: ClusterId,
    certificate: Vec<u8>,
    key: PrivateKey,
}

impl Authority {
    /// Makes the authority of a new cluster.
    ///
    /// # Errors
    /// If the certificate cannot be written.
    pub fn create(
        cluster: ClusterId,
        entropy: &dyn Entropy,
        now: WallTime,
    ) -> Result<Self, IdentityError> {
        let key = PrivateKey::generate(entropy);
        let names = CertificateNames { cluster, subject: Subject::Authority };
        let mut params = params(&names, AUTHORITY_LIFETIME_DAYS, entropy, now)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key.signer()?).map_err(failed)?.der().to_vec();
        Ok(Self { cluster, certificate, key })
    }

    /// Opens the authority from its certificate (DER) and its sealed key.
    ///
    /// # Errors
    /// If the seal does not open with `cluster_key`, or key and certificate do
    /// not belong together.
    pub fn open(
        certificate: &[u8],
        sealed: &[u8],
        cluster_key: &ClusterKey,
    ) -> Result<Self, IdentityError> {
        let names = CertificateNames::read(certificate)?;
        let key = PrivateKey::from_pkcs8(&cluster_key.open(sealed, certificate)?)?;
        if names.subject != Subject::Authority {
            return Err(IdentityError::Certificate(format!("it names a {names}")));
        }
        // Checks that the key matches the certificate.
        Credentials::new(certificate.to_vec(), certificate.to_vec(), key.clone())?;
        Ok(Self { cluster: names.cluster, certificate: certificate.to_vec(), key })
    }

    /// The private key, sealed for the catalog.
    pub fn seal(&self, cluster_key: &ClusterKey, entropy: &dyn Entropy) -> Vec<u8> {
        cluster_key.seal(self.key.to_pkcs8(), &self.certificate, entropy)
    }

    /// The authority's certificate (DER).
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The cluster it speaks for.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Makes a key and a certificate for a node.
    ///
    /// # Errors
    /// If the certificate cannot be signed.
    pub fn issue_node(
        &self,
        node: NodeId,
        entropy: &dyn Entropy,
        now: WallTime,
    ) -> Result<Credentials, IdentityError> {
        self.issue(Subject::Node(node), entropy, now)
    }

    /// Makes a key and a certificate for a client.
    ///
    /// # Errors
    /// If the principal's name has forbidden characters, or signing fails.
    pub fn issue_client(
        &self,
        principal: &str,
        tenant: TenantId,
        entropy: &dyn Entropy,
        now: WallTime,
    ) -> Result<Credentials, IdentityError> {
        check_principal(principal)?;
        self.issue(Subject::Client { principal: principal.to_owned(), tenant }, entropy, now)
    }

    /// Certifies a joiner's key for `node` and returns the certificate (DER).
    /// Only the key is taken from the request: names, lifetime and uses are
    /// the authority's to choose.
    ///
    /// # Errors
    /// If the request is malformed or not signed by its own key.
    pub fn sign_node_request(
        &self,
        signing_request: &[u8],
        node: NodeId,
        entropy: &dyn Entropy,
        now: WallTime,
    ) -> Result<Vec<u8>, IdentityError> {
        let refuse = |error: rcgen::Error| IdentityError::SigningRequest(error.to_string());
        let der = CertificateSigningRequestDer::from(signing_request);
        let mut request = CertificateSigningRequestParams::from_der(&der).map_err(refuse)?;
        let names = CertificateNames { cluster: self.cluster, subject: Subject::Node(node) };
        request.params = self.leaf_params(&names, entropy, now)?;
        Ok(request.signed_by(&self.issuer()?).map_err(refuse)?.der().to_vec())
    }

    /// Certifies the same holder's same key anew. Whoever has a node's key has what opens
    /// the authority's too, so that another key would keep nobody out; and one file is
    /// replaced whole where two are not.
    ///
    /// # Errors
    /// If another authority signed the old certificate, or signing fails.
    pub fn renew(
        &self,
        old: &Credentials,
        entropy: &dyn Entropy,
        now: WallTime,
    ) -> Result<Credentials, IdentityError> {
        if old.authority() != self.certificate {
            let theirs = format!("{} was signed by another authority", old.names());
            return Err(IdentityError::Certificate(theirs));
        }
        self.certify(old.names().subject.clone(), old.key().clone(), entropy, now)
    }

    fn issue(
        &self,
        subject: Subject,
        entropy: &dyn Entropy,
        now: WallTime,
    ) -> Result<Credentials, IdentityError> {
        self.certify(subject, PrivateKey::generate(entropy), entropy, now)
    }

    fn certify(
        &self,
        subject: Subject,
        key: PrivateKey,
        entropy: &dyn Entropy,
        now: WallTime,
    ) -> Result<Credentials, IdentityError> {
        let names = CertificateNames { cluster: self.cluster, subject };
        let params = self.leaf_params(&names, entropy, now)?;
        let certificate = params.signed_by(&key.signer()?, &self.issuer()?).map_err(failed)?;
        Credentials::new(self.certificate.clone(), certificate.der().to_vec(), key)
    }

    /// Of a certificate for a node or a client. It is good from the authority's own
    /// beginning on: one that was made under a clock that ran ahead must not be refused
    /// for years once the clock is right.
    fn leaf_params(
        &self,
        names: &CertificateNames,
        entropy: &dyn Entropy,
        now: WallTime,
    ) -> Result<CertificateParams, IdentityError> {
        let mut params = params(names, CERTIFICATE_LIFETIME_DAYS, entropy, now)?;
        let (begins, _) = validity(&self.certificate)?;
        let begins = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_millis(begins.0);
        params.not_before = params.not_before.min(begins);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match names.subject {
            // A node both dials and answers; a client only dials.
            Subject::Node(_) => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
            Subject::Client { .. } => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Subject::Authority => vec![],
        };
        Ok(params)
    }

    fn issuer(&self) -> Result<Issuer<'static, rcgen::KeyPair>, IdentityError> {
        let der = CertificateDer::from(self.certificate.as_slice());
        Issuer::from_ca_cert_der(&der, self.key.signer()?).map_err(failed)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

#[expect(clippy::needless_pass_by_value, reason = "handed to map_err")]
fn failed(error: rcgen::Error) -> IdentityError {
    IdentityError::Certificate(error.to_string())
}

fn params(
    names: &CertificateNames,
    days: u64,
    entropy: &dyn Entropy,
    now: WallTime,
) -> Result<CertificateParams, IdentityError> {
    let name = names.to_name().try_into().map_err(failed)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, names.to_string());
    params.subject_alt_names = vec![match names.subject {
        Subject::Authority | Subject::Node(_) => SanType::DnsName(name),
        Subject::Client { .. } => SanType::URI(name),
    }];
    // Positive and at most 20 bytes: RFC 5280 §4.1.2.2.
    let mut serial = entropy.next_u128().to_be_bytes();
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let origin = rcgen::date_time_ymd(1970, 1, 1);
    let now = Duration::from_millis(now.0.min(WALL_MS_MAX));
    params.not_before = origin + now.saturating_sub(CLOCK_SKEW);
    params.not_after = origin + now + DAY * u32::try_from(days).unwrap_or(u32::MAX);
    Ok(params)
}

/// A wall clock beyond the year 9000 is broken; certificates end in 9999.
const WALL_MS_MAX: u64 = 7_000 * 365 * 24 * 60 * 60 * 1_000;
