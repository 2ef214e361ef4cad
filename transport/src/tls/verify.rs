//! Who is on the other side: chains to the authority, then names.
//!
//! Chains, dates and uses are checked by webpki; these verifiers add what the
//! cluster's names mean and turn a refusal into words. Reading the names of a
//! certificate that failed serves the message only.

use std::{fmt, sync::Arc};

use cluster::ids::{ClusterId, NodeId};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::FaultSlot;
use crate::identity::{CertificateNames, Subject, token::sha256};

/// Why a certificate was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    /// It belongs to another cluster.
    #[error("it belongs to cluster {theirs}, expected cluster {ours}")]
    OtherCluster {
        /// The cluster expected.
        ours: ClusterId,
        /// The cluster named.
        theirs: ClusterId,
    },
    /// It is another node of the right cluster: the address was reused.
    #[error("expected node {expected}, found node {found}: the address was taken over")]
    OtherNode {
        /// The node dialed.
        expected: NodeId,
        /// The node that answered.
        found: NodeId,
    },
    /// It names something that may not stand in this place.
    #[error("it belongs to {0}, which may not answer here")]
    Role(String),
    /// Not signed by the authority although it names the right cluster.
    #[error("it names cluster {0} but another authority signed it: was the cluster made anew?")]
    Authority(ClusterId),
    /// No authority with the token's fingerprint was shown.
    #[error("its authority is not the one of the join token: check the address and the token")]
    Fingerprint,
    /// Outside its dates.
    #[error("it is expired or not yet valid: renew it, or set the clocks right")]
    Dates,
    /// Anything else.
    #[error("it is not valid: {0}")]
    Invalid(String),
}

impl From<CertificateFault> for Error {
    fn from(fault: CertificateFault) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Worded(fault)))))
    }
}

/// rustls sends the `Debug` form of foreign errors to the peer; this one's is
/// the sentence.
struct Worded(CertificateFault);

impl fmt::Debug for Worded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for Worded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Worded {}

/// The sentence inside the reason a peer gave for refusing our certificate.
pub(crate) fn refusal_sentence(reason: &str) -> &str {
    match reason.split_once("Other(OtherError(") {
        Some((_, rest)) => rest.strip_suffix("))").unwrap_or(rest),
        None => reason,
    }
}

/// Whom the dialing side accepts.
#[derive(Clone, Debug)]
pub(crate) enum Expected {
    /// One node, or any node, of a cluster.
    Node { cluster: ClusterId, authority: CertificateDer<'static>, node: Option<NodeId> },
    /// Any node whose authority has this fingerprint.
    Fingerprint([u8; 32]),
}

/// Verifies what answers.
pub(super) struct ServerVerifier {
    expected: Expected,
    provider: Arc<CryptoProvider>,
    slot: FaultSlot,
}

impl ServerVerifier {
    pub(super) fn new(
        expected: Expected,
        provider: &Arc<CryptoProvider>,
        slot: FaultSlot,
    ) -> Result<Self, Error> {
        if let Expected::Node { authority, .. } = &expected {
            roots(authority)?;
        }
        Ok(Self { expected, provider: Arc::clone(provider), slot })
    }

    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), CertificateFault> {
        let (authority, cluster, node) = match &self.expected {
            Expected::Node { cluster, authority, node } => (authority, Some(*cluster), *node),
            Expected::Fingerprint(fingerprint) => {
                let authority = intermediates
                    .iter()
                    .find(|certificate| sha256(certificate) == *fingerprint)
                    .ok_or(CertificateFault::Fingerprint)?;
                (authority, None, None)
            }
        };
        let chained = self.check_chain(end_entity, intermediates, authority, now);
        chained.map_err(|error| explain(&error, end_entity, cluster))?;
        let names = names(end_entity)?;
        check_cluster(&names, cluster)?;
        match (&names.subject, node) {
            (Subject::Node(found), Some(expected)) if *found != expected => {
                Err(CertificateFault::OtherNode { expected, found: *found })
            }
            (Subject::Node(_), _) => Ok(()),
            (Subject::Authority | Subject::Client { .. }, _) => {
                Err(CertificateFault::Role(names.to_string()))
            }
        }
    }

    fn check_chain(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        authority: &CertificateDer<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &roots(authority)?,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )
    }
}

impl fmt::Debug for ServerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerVerifier").field("expected", &self.expected).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.check(end_entity, intermediates, now) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(fault) => {
                let _ = self.slot.set(fault.clone());
                Err(fault.into())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Verifies what dials in: a node or client of this cluster, or a stranger
/// without any certificate, who gets next to nothing.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    cluster: ClusterId,
    inner: Arc<dyn ClientCertVerifier>,
}

impl ClientVerifier {
    pub(super) fn new(
        cluster: ClusterId,
        authority: &CertificateDer<'static>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let inner = WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots(authority)?),
            Arc::clone(provider),
        )
        .allow_unauthenticated()
        .clear_root_hint_subjects()
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
        Ok(Self { cluster, inner })
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .inner
            .verify_client_cert(end_entity, intermediates, now)
            .map_err(|error| explain(&error, end_entity, Some(self.cluster)))?;
        let names = names(end_entity)?;
        check_cluster(&names, Some(self.cluster))?;
        match names.subject {
            Subject::Node(_) | Subject::Client { .. } => Ok(verified),
            Subject::Authority => Err(CertificateFault::Role(names.to_string()).into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

fn roots(authority: &CertificateDer<'_>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone().into_owned())?;
    Ok(roots)
}

fn names(certificate: &CertificateDer<'_>) -> Result<CertificateNames, CertificateFault> {
    CertificateNames::read(certificate)
        .map_err(|error| CertificateFault::Invalid(error.to_string()))
}

fn check_cluster(
    names: &CertificateNames,
    cluster: Option<ClusterId>,
) -> Result<(), CertificateFault> {
    match cluster {
        Some(ours) if ours != names.cluster => {
            Err(CertificateFault::OtherCluster { ours, theirs: names.cluster })
        }
        Some(_) | None => Ok(()),
    }
}

/// Puts webpki's refusal in the cluster's words.
fn explain(
    error: &Error,
    certificate: &CertificateDer<'_>,
    cluster: Option<ClusterId>,
) -> CertificateFault {
    if let (Ok(names), Some(ours)) = (CertificateNames::read(certificate), cluster) {
        if names.cluster != ours {
            return CertificateFault::OtherCluster { ours, theirs: names.cluster };
        }
        // Authorities of one cluster id share their name, not their key.
        if let Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) = error
        {
            return CertificateFault::Authority(ours);
        }
    }
    if let Error::InvalidCertificate(
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. },
    ) = error
    {
        return CertificateFault::Dates;
    }
    CertificateFault::Invalid(error.to_string())
}
