//! What can go wrong in an embedded store.

use std::io;

use actors::client::ClientError;
use cluster::{
    request::Fault,
    shard::{leases::LeaseError, transaction::TransactionError},
};

use crate::devices::runtime::Unanswered;

/// What a backend comes to.
pub type BackendResult<T> = Result<T, BackendError>;
/// What a store comes to.
pub type StorageResult<T> = Result<T, StorageError>;

/// Why the node behind a store fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// It does not start: the directory is in use, damaged or cannot be written.
    #[error("the node in this program does not start: {0}")]
    Start(String),
    /// It does not serve.
    #[error("the node in this program does not serve: {0}")]
    Serve(String),
    /// The system gives no threads.
    #[error("the system gives no threads: {0}")]
    Threads(#[from] io::Error),
}

/// Why a store refuses or fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// No such key or lease.
    #[error("key not found")]
    NotFound,
    /// A lease of that id exists, or a transaction changes a key twice.
    #[error("transaction conflict: {0}")]
    Conflict(String),
    /// The request is none.
    #[error("invalid argument: {0}")]
    InvalidArgument(String),
    /// The revision cannot be read.
    #[error("MVCC error: {0}")]
    Mvcc(String),
    /// A snapshot cannot be read.
    #[error("snapshot error: {0}")]
    Snapshot(String),
    /// The node behind it fails.
    #[error("backend error: {0}")]
    Backend(#[from] BackendError),
}

impl From<Unanswered> for BackendError {
    fn from(error: Unanswered) -> Self {
        Self::Serve(error.to_string())
    }
}

impl From<Unanswered> for StorageError {
    fn from(error: Unanswered) -> Self {
        BackendError::from(error).into()
    }
}

impl From<ClientError> for StorageError {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::BadLease(LeaseError::Unknown(_))
            | ClientError::BadTransaction(
                TransactionError::NoSuchKey(_) | TransactionError::Lease(LeaseError::Unknown(_)),
            ) => Self::NotFound,
            ClientError::BadLease(LeaseError::Exists(_))
            | ClientError::BadTransaction(TransactionError::DuplicateKey(_)) => {
                Self::Conflict(error.to_string())
            }
            ClientError::Fault {
                fault: fault @ (Fault::Compacted { .. } | Fault::NoSuchVersion(_)),
                ..
            } => Self::Mvcc(fault.to_string()),
            ClientError::BadTransaction(_)
            | ClientError::BadLease(_)
            | ClientError::EmptyKey
            | ClientError::KeyTooLong { .. }
            | ClientError::ValueTooLarge { .. }
            | ClientError::BatchTooLarge { .. }
            | ClientError::Fault { fault: Fault::TooLarge(_) | Fault::Invalid(_), .. } => {
                Self::InvalidArgument(error.to_string())
            }
            ClientError::UnknownVolume { .. }
            | ClientError::UnknownNode { .. }
            | ClientError::SpansShards { .. }
            | ClientError::BadRestore(_)
            | ClientError::AnswerLost { .. }
            | ClientError::PartOfBatch { .. }
            | ClientError::Refused(_)
            | ClientError::UnknownOutcome { .. }
            | ClientError::NoQuorum { .. }
            | ClientError::Unreachable { .. }
            | ClientError::Fault { .. }
            | ClientError::BadCertificate { .. }
            | ClientError::BadAnswer { .. }
            | ClientError::NotServing { .. }
            | _ => BackendError::Serve(format!("{error} ({})", error.cause())).into(),
        }
    }
}

/// As a gRPC service over a store tells it: a program that embeds one cannot say so
/// itself, for neither type is its own.
#[cfg(feature = "etcd")]
impl From<StorageError> for tonic::Status {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::NotFound => Self::not_found("Key not found"),
            StorageError::Conflict(_) => Self::failed_precondition("Transaction conflict"),
            StorageError::InvalidArgument(cause) => Self::invalid_argument(cause),
            StorageError::Mvcc(cause) => Self::internal(format!("MVCC error: {cause}")),
            StorageError::Backend(error) => Self::internal(format!("Backend error: {error}")),
            StorageError::Snapshot(_) => Self::internal("Storage error"),
        }
    }
}
