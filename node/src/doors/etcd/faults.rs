//! What can go wrong at the etcd door: the one table of gRPC codes and texts.
//!
//! Client libraries match on etcd's texts, so they are etcd's to the letter.
//! What etcd does not know (a key of two kilobytes, too many leases) is told in
//! our words under the code that fits. Source: etcd's `rpctypes` (error.go) in
//! release 3.5.

use std::{borrow::Cow, fmt};

use actors::client::ClientError;
use cluster::{
    auth::AuthError,
    request::Fault,
    shard::{leases::LeaseError, transaction::TransactionError},
};
use tonic::{Code, Status};

/// Why the door refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EtcdFault {
    /// No key.
    EmptyKey,
    /// A key whose value or lease was to stay as it is, and that is not there.
    KeyNotFound,
    /// A value beside `ignore_value`.
    ValueProvided,
    /// A lease beside `ignore_lease`.
    LeaseProvided,
    /// A transaction of too many operations.
    TooManyOps,
    /// A transaction that writes a key twice.
    DuplicateKey,
    /// A sort order or target that is none.
    InvalidSortOption,
    /// The revision is gone.
    Compacted,
    /// The revision is yet to come.
    FutureRev,
    /// The disks are full, or the volume's store is near its limit.
    NoSpace,
    /// No such lease.
    LeaseNotFound,
    /// The lease's id is in use.
    LeaseExists,
    /// A lease that would outlive any clock.
    LeaseTtlTooLarge,
    /// The watch ended because its client went.
    WatchCanceled,
    /// No such member.
    MemberNotFound,
    /// The request is too large.
    RequestTooLarge,
    /// Too much is under way.
    TooManyRequests,
    /// Nobody is named where somebody must be.
    UserEmpty,
    /// A role or user named without permission to do it.
    PermissionDenied,
    /// The token is none, or is over.
    InvalidAuthToken,
    /// Users and roles are not in force.
    AuthNotEnabled,
    /// User name or password are wrong.
    AuthFailed,
    /// A request that needs a leader, where none is known.
    NoLeader,
    /// Only the leader can do that.
    NotLeader,
    /// The leader changed while the request was under way.
    LeaderChanged,
    /// The member stops.
    Stopped,
    /// No quorum answered in time.
    Timeout,
    /// Bytes are damaged.
    Corrupt,
    /// The new leader is none of the voters.
    BadLeaderTransferee,
    /// A version to go back to that is none.
    InvalidDowngradeTarget,
    /// No way back was begun.
    NoInflightDowngrade,
    /// etcd has no words for it: ours, under this code.
    Other(Code, String),
}

impl EtcdFault {
    /// Its gRPC code.
    pub fn code(&self) -> Code {
        match self {
            Self::EmptyKey
            | Self::KeyNotFound
            | Self::ValueProvided
            | Self::LeaseProvided
            | Self::TooManyOps
            | Self::DuplicateKey
            | Self::InvalidSortOption
            | Self::RequestTooLarge
            | Self::UserEmpty
            | Self::AuthFailed
            | Self::InvalidDowngradeTarget => Code::InvalidArgument,
            Self::Compacted | Self::FutureRev | Self::LeaseTtlTooLarge => Code::OutOfRange,
            Self::NoSpace | Self::TooManyRequests => Code::ResourceExhausted,
            Self::LeaseNotFound | Self::MemberNotFound => Code::NotFound,
            Self::LeaseExists
            | Self::AuthNotEnabled
            | Self::NotLeader
            | Self::BadLeaderTransferee
            | Self::NoInflightDowngrade => Code::FailedPrecondition,
            Self::WatchCanceled => Code::Cancelled,
            Self::PermissionDenied => Code::PermissionDenied,
            Self::InvalidAuthToken => Code::Unauthenticated,
            Self::NoLeader | Self::LeaderChanged | Self::Stopped | Self::Timeout => {
                Code::Unavailable
            }
            Self::Corrupt => Code::DataLoss,
            Self::Other(code, _) => *code,
        }
    }

    /// Its text.
    pub fn text(&self) -> Cow<'static, str> {
        let text = match self {
            Self::EmptyKey => "etcdserver: key is not provided",
            Self::KeyNotFound => "etcdserver: key not found",
            Self::ValueProvided => "etcdserver: value is provided",
            Self::LeaseProvided => "etcdserver: lease is provided",
            Self::TooManyOps => "etcdserver: too many operations in txn request",
            Self::DuplicateKey => "etcdserver: duplicate key given in txn request",
            Self::InvalidSortOption => "etcdserver: invalid sort option",
            Self::Compacted => "etcdserver: mvcc: required revision has been compacted",
            Self::FutureRev => "etcdserver: mvcc: required revision is a future revision",
            Self::NoSpace => "etcdserver: mvcc: database space exceeded",
            Self::LeaseNotFound => "etcdserver: requested lease not found",
            Self::LeaseExists => "etcdserver: lease already exists",
            Self::LeaseTtlTooLarge => "etcdserver: too large lease TTL",
            Self::WatchCanceled => "etcdserver: watch canceled",
            Self::MemberNotFound => "etcdserver: member not found",
            Self::RequestTooLarge => "etcdserver: request is too large",
            Self::TooManyRequests => "etcdserver: too many requests",
            Self::UserEmpty => "etcdserver: user name is empty",
            Self::PermissionDenied => "etcdserver: permission denied",
            Self::InvalidAuthToken => "etcdserver: invalid auth token",
            Self::AuthNotEnabled => "etcdserver: authentication is not enabled",
            Self::AuthFailed => "etcdserver: authentication failed, invalid user ID or password",
            Self::NoLeader => "etcdserver: no leader",
            Self::NotLeader => "etcdserver: not leader",
            Self::LeaderChanged => "etcdserver: leader changed",
            Self::Stopped => "etcdserver: server stopped",
            Self::Timeout => "etcdserver: request timed out",
            Self::Corrupt => "etcdserver: corrupt cluster",
            Self::BadLeaderTransferee => "etcdserver: bad leader transferee",
            Self::InvalidDowngradeTarget => "etcdserver: invalid downgrade target version",
            Self::NoInflightDowngrade => "etcdserver: no inflight downgrade job",
            Self::Other(_, text) => return text.clone().into(),
        };
        text.into()
    }

    /// The same where a text must say all, as Go's gRPC writes a status: what etcd
    /// answers whoever may not watch.
    pub(super) fn status_text(&self) -> String {
        format!("rpc error: code = {:?} desc = {}", self.code(), self.text())
    }
}

impl fmt::Display for EtcdFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl From<EtcdFault> for Status {
    fn from(fault: EtcdFault) -> Self {
        Self::new(fault.code(), fault.text())
    }
}

impl From<ClientError> for EtcdFault {
    fn from(error: ClientError) -> Self {
        let other = |code| Self::Other(code, format!("etcdserver: {error}"));
        match &error {
            ClientError::EmptyKey => Self::EmptyKey,
            ClientError::ValueTooLarge { .. } | ClientError::BatchTooLarge { .. } => {
                Self::RequestTooLarge
            }
            ClientError::KeyTooLong { .. } => other(Code::InvalidArgument),
            ClientError::BadTransaction(error) => error.into(),
            ClientError::BadLease(error) => error.into(),
            ClientError::Fault { fault, .. } => fault.into(),
            // It may have been executed: etcd's clients treat it so, and do not
            // repeat a write.
            ClientError::NoQuorum { .. } | ClientError::UnknownOutcome { .. } => Self::Timeout,
            ClientError::Unreachable { .. } => Self::NoLeader,
            ClientError::UnknownVolume { .. } | ClientError::NotServing { .. } => {
                other(Code::Unavailable)
            }
            ClientError::SpansShards { .. }
            | ClientError::BadRestore(_)
            | ClientError::Refused(_) => other(Code::FailedPrecondition),
            // Nothing the door's requests come to.
            ClientError::AnswerLost { .. }
            | ClientError::PartOfBatch { .. }
            | ClientError::UnknownNode { .. }
            | ClientError::BadCertificate { .. }
            | ClientError::BadAnswer { .. } => other(Code::Internal),
            // A kind that was added since.
            _ => other(Code::Unknown),
        }
    }
}

impl From<&TransactionError> for EtcdFault {
    fn from(error: &TransactionError) -> Self {
        let other = |code| Self::Other(code, format!("etcdserver: {error}"));
        match error {
            TransactionError::TooManyOps(_) => Self::TooManyOps,
            TransactionError::DuplicateKey(_) => Self::DuplicateKey,
            TransactionError::NoSuchKey(_) => Self::KeyNotFound,
            TransactionError::InvalidKey(0) => Self::EmptyKey,
            TransactionError::TooLarge(_) => Self::RequestTooLarge,
            TransactionError::Lease(error) => error.into(),
            TransactionError::Malformed
            | TransactionError::TooDeep
            | TransactionError::InvalidKey(_)
            | TransactionError::InvalidRange
            | TransactionError::ReadsThePast => other(Code::InvalidArgument),
            TransactionError::ReadsTooMuch | TransactionError::TouchesTooMuch => {
                other(Code::ResourceExhausted)
            }
        }
    }
}

impl From<&LeaseError> for EtcdFault {
    fn from(error: &LeaseError) -> Self {
        let other = |code| Self::Other(code, format!("etcdserver: {error}"));
        match error {
            LeaseError::Unknown(_) => Self::LeaseNotFound,
            LeaseError::Exists(_) => Self::LeaseExists,
            LeaseError::TooLong(_) => Self::LeaseTtlTooLarge,
            LeaseError::InvalidId(_) => other(Code::InvalidArgument),
            LeaseError::TooMany | LeaseError::Full(_) => other(Code::ResourceExhausted),
        }
    }
}

/// The texts of accounts are etcd's; here are the codes.
impl From<&AuthError> for EtcdFault {
    fn from(error: &AuthError) -> Self {
        let other = |code| Self::Other(code, format!("etcdserver: {error}"));
        match error {
            AuthError::RootUserMissing
            | AuthError::RootRoleMissing
            | AuthError::UserExists
            | AuthError::UserUnknown
            | AuthError::RoleExists
            | AuthError::RoleUnknown
            | AuthError::RoleNotGranted
            | AuthError::PermissionNotGranted => other(Code::FailedPrecondition),
            AuthError::UserEmpty => Self::UserEmpty,
            AuthError::RoleEmpty | AuthError::PermissionMissing | AuthError::InvalidManagement => {
                other(Code::InvalidArgument)
            }
            AuthError::Failed => Self::AuthFailed,
            AuthError::Denied => Self::PermissionDenied,
            AuthError::NotEnabled => Self::AuthNotEnabled,
            AuthError::InvalidToken => Self::InvalidAuthToken,
            AuthError::TooMany => other(Code::ResourceExhausted),
        }
    }
}

impl From<Fault> for EtcdFault {
    fn from(fault: Fault) -> Self {
        (&fault).into()
    }
}

impl From<&Fault> for EtcdFault {
    fn from(fault: &Fault) -> Self {
        let other = |code| Self::Other(code, format!("etcdserver: {fault}"));
        match fault {
            Fault::Compacted { .. } => Self::Compacted,
            Fault::NoSuchVersion(_) => Self::FutureRev,
            Fault::DiskFull { .. } | Fault::StoreFull { .. } => Self::NoSpace,
            Fault::Busy { .. } => Self::TooManyRequests,
            Fault::NotLeader { .. } | Fault::NoReplica(_) => Self::NoLeader,
            Fault::Interrupted => Self::LeaderChanged,
            Fault::Timeout => Self::Timeout,
            Fault::Stopped(_) => Self::Corrupt,
            Fault::NotAllowed(_) => Self::PermissionDenied,
            Fault::Denied(error) => error.into(),
            Fault::StaleEpoch(_) | Fault::ClockAhead(_) | Fault::Restoring => {
                other(Code::Unavailable)
            }
            Fault::TooLarge(_) | Fault::Invalid(_) => other(Code::InvalidArgument),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster::{ids::LeaseId, mvcc::version::Version};

    #[test]
    fn clients_find_the_texts_and_codes_they_match_on() {
        let status = |error: ClientError| Status::from(EtcdFault::from(error));
        let fault = |fault| ClientError::Fault { subject: String::new(), fault };
        let compacted = Fault::Compacted { at: Version(1), compacted: Version(2) };
        // What etcd 3.5 says, written out: a table must not be its own witness.
        let cases = [
            (fault(compacted), 11, "etcdserver: mvcc: required revision has been compacted"),
            (
                fault(Fault::NoSuchVersion(String::new())),
                11,
                "etcdserver: mvcc: required revision is a future revision",
            ),
            (
                ClientError::BadLease(LeaseError::Unknown(LeaseId(7))),
                5,
                "etcdserver: requested lease not found",
            ),
            (
                ClientError::BadTransaction(TransactionError::DuplicateKey("a".into())),
                3,
                "etcdserver: duplicate key given in txn request",
            ),
            (
                ClientError::BadTransaction(TransactionError::NoSuchKey("a".into())),
                3,
                "etcdserver: key not found",
            ),
            (fault(Fault::NotLeader { leader: None }), 14, "etcdserver: no leader"),
        ];
        for (error, code, text) in cases {
            let status = status(error);
            assert_eq!((i32::from(status.code()), status.message()), (code, text));
        }
    }
}
