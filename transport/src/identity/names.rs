//! The names inside a certificate, and how to read them back; and how long it is good.
//!
//! | holder | subject alternative name |
//! |---|---|
//! | authority | DNS `authority.<cluster>.cdb` |
//! | node | DNS `<node>.node.<cluster>.cdb` |
//! | client | URI `cdb:<cluster>:client:<tenant>:<principal>` |
//!
//! Ids are 32 lower-case hexadecimal digits. Names are believed only after the
//! chain was verified; before that they serve error messages alone.

use std::fmt;

use cluster::{
    ids::{ClusterId, NodeId, TenantId},
    ports::network::Peer,
    units::WallTime,
};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use super::IdentityError;

/// Characters a principal's name may have; keeps the name in one log line.
pub const PRINCIPAL_CHARS_MAX: usize = 128;

/// Whom a certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The cluster's authority itself.
    Authority,
    /// A node.
    Node(NodeId),
    /// A client.
    Client {
        /// Name of the principal.
        principal: String,
        /// The tenant it acts for.
        tenant: TenantId,
    },
}

/// What a certificate says: whom it names, in which cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateNames {
    /// The cluster.
    pub cluster: ClusterId,
    /// The holder.
    pub subject: Subject,
}

impl CertificateNames {
    /// Reads the names of a certificate (DER). Verifies nothing.
    ///
    /// # Errors
    /// If the bytes are no certificate, or one with other names.
    pub fn read(certificate: &[u8]) -> Result<Self, IdentityError> {
        let refuse = |cause: &str| IdentityError::Certificate(cause.to_owned());
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|_| refuse("malformed DER"))?;
        let names = parsed
            .subject_alternative_name()
            .map_err(|_| refuse("malformed alternative names"))?
            .ok_or_else(|| refuse("it has no alternative name"))?;
        match names.value.general_names.as_slice() {
            [GeneralName::DNSName(name)] => Self::from_dns(name),
            [GeneralName::URI(name)] => Self::from_uri(name),
            _ => None,
        }
        .ok_or_else(|| refuse("its alternative name is of another form"))
    }

    /// Reads a DNS name as used for authorities and nodes.
    pub fn from_dns(name: &str) -> Option<Self> {
        let labels: Vec<&str> = name.split('.').collect();
        match labels.as_slice() {
            ["authority", cluster, "cdb"] => {
                Some(Self { cluster: ClusterId::from_hex(cluster)?, subject: Subject::Authority })
            }
            [node, "node", cluster, "cdb"] => Some(Self {
                cluster: ClusterId::from_hex(cluster)?,
                subject: Subject::Node(NodeId::from_hex(node)?),
            }),
            _ => None,
        }
    }

    fn from_uri(name: &str) -> Option<Self> {
        let parts: Vec<&str> = name.split(':').collect();
        let ["cdb", cluster, "client", tenant, principal] = parts.as_slice() else { return None };
        check_principal(principal).ok()?;
        Some(Self {
            cluster: ClusterId::from_hex(cluster)?,
            subject: Subject::Client {
                principal: (*principal).to_owned(),
                tenant: TenantId(tenant.parse().ok()?),
            },
        })
    }

    /// The name as written into the certificate.
    pub fn to_name(&self) -> String {
        let cluster = self.cluster.to_hex();
        match &self.subject {
            Subject::Authority => format!("authority.{cluster}.cdb"),
            Subject::Node(node) => format!("{}.node.{cluster}.cdb", node.to_hex()),
            Subject::Client { principal, tenant } => {
                format!("cdb:{cluster}:client:{}:{principal}", tenant.0)
            }
        }
    }

    /// The peer this certificate speaks for; an authority speaks for nobody.
    pub fn peer(&self) -> Option<Peer> {
        match &self.subject {
            Subject::Authority => None,
            Subject::Node(node) => Some(Peer::Node(*node)),
            Subject::Client { principal, tenant } => {
                Some(Peer::Client { principal: principal.clone(), tenant: *tenant })
            }
        }
    }
}

impl fmt::Display for CertificateNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Subject::Authority => write!(f, "authority of cluster {}", self.cluster),
            Subject::Node(node) => write!(f, "node {node} of cluster {}", self.cluster),
            Subject::Client { principal, .. } => {
                write!(f, "client {principal} of cluster {}", self.cluster)
            }
        }
    }
}

/// From when until when a certificate (DER) is good.
pub(super) fn validity(certificate: &[u8]) -> Result<(WallTime, WallTime), IdentityError> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|_| IdentityError::Certificate("malformed DER".to_owned()))?;
    let wall = |seconds| WallTime(u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000));
    let validity = parsed.validity();
    Ok((wall(validity.not_before.timestamp()), wall(validity.not_after.timestamp())))
}

/// Refuses names that could break out of the certificate's name form.
pub(super) fn check_principal(name: &str) -> Result<(), IdentityError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._@+-".contains(&byte);
    if name.is_empty() || name.len() > PRINCIPAL_CHARS_MAX || !name.bytes().all(allowed) {
        return Err(IdentityError::Principal {
            name: name.chars().take(PRINCIPAL_CHARS_MAX).collect(),
            chars_max: PRINCIPAL_CHARS_MAX,
        });
    }
    Ok(())
}
