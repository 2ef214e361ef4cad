//! Every way a client's request can fail, each with its own words.

use std::time::Duration;

use cluster::ports::network::RequestClass;

use crate::tls::CertificateFault;

/// Why a request of a client has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The profile names no endpoint.
    #[error("no endpoint is given: add one to the profile")]
    NoEndpoint,
    /// The host name is unknown.
    #[error("cannot look up {endpoint}: {cause}")]
    Lookup {
        /// The endpoint asked.
        endpoint: String,
        /// What the resolver said.
        cause: String,
    },
    /// Nobody listens there, or the way is closed.
    #[error("cannot reach {endpoint}: {cause}: is the node running?")]
    Unreachable {
        /// The endpoint asked.
        endpoint: String,
        /// What the system said.
        cause: String,
    },
    /// Nothing came back while connecting: nothing was sent.
    #[error("{endpoint} did not answer within {after:?}: is it up, and is UDP open on the way?")]
    NoAnswer {
        /// The endpoint asked.
        endpoint: String,
        /// How long was waited.
        after: Duration,
    },
    /// The request was sent and not answered in time; it may have been executed.
    #[error("{endpoint} did not answer the request within {after:?}: it may have been executed")]
    Timeout {
        /// The endpoint asked.
        endpoint: String,
        /// How long was waited.
        after: Duration,
    },
    /// The server is not a node of the cluster.
    #[error("{endpoint} is not a node of this cluster: {fault}")]
    WrongCertificate {
        /// The endpoint asked.
        endpoint: String,
        /// What was wrong.
        fault: CertificateFault,
    },
    /// The server does not take the client's certificate.
    #[error("{endpoint} refused this client's certificate: {cause}")]
    CertificateRefused {
        /// The endpoint asked.
        endpoint: String,
        /// What the server said.
        cause: String,
    },
    /// No common protocol version.
    #[error("{endpoint} speaks another protocol: {cause}")]
    Version {
        /// The endpoint asked.
        endpoint: String,
        /// Which.
        cause: String,
    },
    /// The server has no room; nothing was done.
    #[error("{endpoint} is busy: try again")]
    Busy {
        /// The endpoint asked.
        endpoint: String,
    },
    /// The server does not take such requests from this client.
    #[error("{endpoint} does not take {class:?} requests from this client")]
    NotAllowed {
        /// The endpoint asked.
        endpoint: String,
        /// The class of the request.
        class: RequestClass,
    },
    /// The request exceeds the largest frame.
    #[error("request of {bytes} bytes exceeds the limit of {bytes_max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The connection ended first; the request may have been executed.
    #[error("the connection to {endpoint} was lost: {cause}: the request may have been executed")]
    Lost {
        /// The endpoint asked.
        endpoint: String,
        /// What the transport said.
        cause: String,
    },
    /// This side cannot set up its end.
    #[error("cannot set up the client: {0}")]
    Local(String),
}

impl ClientError {
    /// Whether the request certainly was not executed.
    pub fn not_sent(&self) -> bool {
        !matches!(self, Self::Timeout { .. } | Self::Lost { .. })
    }

    /// Which of several failures says most: trust, then protocol, then names,
    /// then the network.
    pub(super) fn weight(&self) -> u8 {
        match self {
            Self::Timeout { .. } | Self::Lost { .. } | Self::TooLarge { .. } => 8,
            Self::WrongCertificate { .. } | Self::CertificateRefused { .. } => 7,
            Self::NotAllowed { .. } => 6,
            Self::Version { .. } => 5,
            Self::Busy { .. } => 4,
            Self::Lookup { .. } => 3,
            Self::NoAnswer { .. } => 2,
            Self::Unreachable { .. } => 1,
            Self::NoEndpoint | Self::Local(_) => 0,
        }
    }
}
