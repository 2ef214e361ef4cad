//! Who is who: the cluster's authority, certificates, tokens and sealed keys.
//!
//! A cluster is the set of nodes that share one certificate authority. The
//! authority signs one certificate per node (cluster id and node id inside)
//! and per client (principal and tenant inside). Nothing else proves identity:
//! addresses are hints, host names play no part.
//!
//! Invariants: every private key is Ed25519, drawn from the [`Entropy`] port,
//! so a simulated cluster is the same for the same seed; no secret is ever
//! printed by `Debug`; the authority's private key leaves memory only sealed.
//!
//! [`Entropy`]: cluster::ports::entropy::Entropy

mod authority;
mod credentials;
mod names;
mod seal;
#[cfg(test)]
mod tests;
pub(crate) mod token;

pub use authority::Authority;
pub use credentials::{Credentials, PrivateKey};
pub use names::{CertificateNames, PRINCIPAL_CHARS_MAX, Subject};
pub use seal::ClusterKey;
pub use token::{JoinToken, TokenError, token_hash};

/// Days an authority's certificate lives: longer than any node's disk.
pub const AUTHORITY_LIFETIME_DAYS: u64 = 10 * 365;
/// Days a node's or client's certificate lives; renewal swaps it while running.
pub const CERTIFICATE_LIFETIME_DAYS: u64 = 365;

/// Why a key, certificate or sealed secret cannot be made or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The bytes are not a certificate this system issued.
    #[error("not a certificate of this system: {0}")]
    Certificate(String),
    /// The bytes are not a private key this system made.
    #[error("not a private key of this system: {0}")]
    Key(String),
    /// Certificate and key do not belong together.
    #[error("private key and certificate do not belong together")]
    Mismatch,
    /// The signing request is malformed, or not signed by its own key.
    #[error("signing request refused: {0}")]
    SigningRequest(String),
    /// The name cannot stand in a certificate.
    #[error(
        "principal {name:?} must have 1 to {chars_max} characters out of a-z A-Z 0-9 . _ @ + -"
    )]
    Principal {
        /// What was asked for.
        name: String,
        /// The limit.
        chars_max: usize,
    },
    /// The sealed authority key does not open.
    #[error("the sealed authority key does not open with this cluster key")]
    Sealed,
    /// The PEM text is malformed.
    #[error("PEM text is malformed: {0}")]
    Pem(String),
}
