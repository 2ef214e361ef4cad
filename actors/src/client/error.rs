//! What can go wrong for a client, each with code, cause and what mends it.
//!
//! `Display` is the headline, [`ClientError::cause`] what was seen,
//! [`ClientError::fix`] what to do. The command line prints them as four lines.

use std::time::Duration;

use cluster::{
    catalog::command::CatalogRefusal,
    codes::ErrorCode,
    ids::{NodeId, SessionId, ShardId},
    limits::{BATCH_OPS_MAX, ENTRY_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX},
    mvcc::version::Version,
    request::Fault,
    shard::{leases::LeaseError, restore::RestoreError, transaction::TransactionError},
    units::ByteSize,
};

use super::door::DoorError;

/// Why a client's operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No volume of that name.
    #[error("there is no volume named {volume}")]
    UnknownVolume {
        /// The name.
        volume: String,
    },
    /// No member of that id.
    #[error("node {node} is not a member of this cluster")]
    UnknownNode {
        /// The node.
        node: NodeId,
    },
    /// A key may not be empty.
    #[error("the key is empty")]
    EmptyKey,
    /// A key is longer than a store takes.
    #[error("the key has {bytes} bytes; at most {KEY_BYTES_MAX} are taken", KEY_BYTES_MAX = group(KEY_BYTES_MAX))]
    KeyTooLong {
        /// Its length.
        bytes: usize,
    },
    /// A value is larger than what is kept inline.
    #[error("the value has {bytes} bytes; at most {max} are taken", max = ByteSize(VALUE_BYTES_MAX as u64))]
    ValueTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// A batch that is no single log entry.
    #[error("the batch has {ops} operations of {bytes} bytes for one shard")]
    BatchTooLarge {
        /// Operations.
        ops: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// A transaction that no shard takes.
    #[error("{0}")]
    BadTransaction(TransactionError),
    /// A lease that is not as it was asked to be.
    #[error("{0}")]
    BadLease(LeaseError),
    /// A restore that does not fit what is in the volume.
    #[error("{0}")]
    BadRestore(RestoreError),
    /// Something of one shard was asked of several: a transaction, a delete of a range, a
    /// lease.
    #[error("what is asked needs one shard and meets several shards of volume {volume}")]
    SpansShards {
        /// The volume.
        volume: String,
    },
    /// A transaction was executed, but its answer came too late to be kept.
    #[error("the transaction was executed at version {version}, but what it read is gone")]
    AnswerLost {
        /// Its version.
        version: Version,
        /// Whether its compares held.
        succeeded: bool,
    },
    /// Some shards of a batch were written, another was not.
    #[error("{written} of {parts} shards of the batch were written, then: {failure}")]
    PartOfBatch {
        /// Shards written.
        written: usize,
        /// Shards in all.
        parts: usize,
        /// Why the next was not.
        failure: Box<ClientError>,
    },
    /// The catalog refused.
    #[error("{0}")]
    Refused(CatalogRefusal),
    /// The session expired while a try was in doubt.
    #[error("unknown outcome: whether {subject} was executed is not known")]
    UnknownOutcome {
        /// What was asked.
        subject: String,
        /// The session that expired.
        session: SessionId,
    },
    /// The deadline passed; nodes were reached.
    #[error("no quorum for {subject} within {after:?}")]
    NoQuorum {
        /// What was asked.
        subject: String,
        /// The deadline.
        after: Duration,
        /// How often it was tried.
        tries: u32,
        /// What the last tries came to.
        last: String,
        /// Whether it may have been executed all the same.
        in_doubt: bool,
    },
    /// The deadline passed; no node could be reached.
    #[error("no node of the cluster can be reached for {subject}")]
    Unreachable {
        /// What was asked.
        subject: String,
        /// What the last try came to.
        last: String,
    },
    /// A fault that repeating does not mend.
    #[error("{subject}: {fault}")]
    Fault {
        /// What was asked.
        subject: String,
        /// What was answered.
        fault: Fault,
    },
    /// The connection could not be trusted.
    #[error("the cluster and this profile do not trust each other")]
    BadCertificate {
        /// What TLS said.
        cause: String,
    },
    /// The answer is not one to the request.
    #[error("{subject}: the answer was not understood")]
    BadAnswer {
        /// What was asked.
        subject: String,
        /// What came.
        cause: String,
    },
    /// A volume exists, but not all its shards serve yet.
    #[error("volume {volume} is created, but {waiting} of its {shards} shards have no leader yet", waiting = waiting.len())]
    NotServing {
        /// The volume.
        volume: String,
        /// All its shards.
        shards: usize,
        /// Those without a leader.
        waiting: Vec<ShardId>,
    },
}

fn group(number: usize) -> String {
    let digits = number.to_string();
    let head = digits.len() % 3;
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && place % 3 == head {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

impl ClientError {
    /// Its stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownVolume { .. } => ErrorCode::UnknownVolume,
            Self::UnknownNode { .. } => ErrorCode::UnknownNode,
            Self::EmptyKey | Self::KeyTooLong { .. } => ErrorCode::BadKey,
            Self::ValueTooLarge { .. } => ErrorCode::ValueTooLarge,
            Self::BatchTooLarge { .. } => ErrorCode::BadBatch,
            Self::BadTransaction(_) | Self::SpansShards { .. } => ErrorCode::BadTransaction,
            Self::BadLease(LeaseError::Unknown(_)) => ErrorCode::UnknownLease,
            Self::BadLease(LeaseError::Exists(_)) => ErrorCode::LeaseExists,
            Self::BadLease(_) => ErrorCode::InvalidRequest,
            Self::BadRestore(_) => ErrorCode::RestoreRefused,
            Self::AnswerLost { .. } => ErrorCode::AnswerLost,
            Self::PartOfBatch { failure, .. } => failure.code(),
            Self::Refused(refusal) => refusal_code(refusal),
            Self::UnknownOutcome { .. } => ErrorCode::UnknownOutcome,
            Self::NoQuorum { .. } => ErrorCode::NoQuorum,
            Self::Unreachable { .. } => ErrorCode::Unreachable,
            Self::Fault { fault, .. } => fault_code(fault),
            Self::BadCertificate { .. } => ErrorCode::BadCertificate,
            Self::BadAnswer { .. } => ErrorCode::BadAnswer,
            Self::NotServing { .. } => ErrorCode::WaitedInVain,
        }
    }

    /// What was seen.
    pub fn cause(&self) -> String {
        match self {
            Self::UnknownVolume { .. } => "the catalog has no such record".into(),
            Self::UnknownNode { .. } => "the catalog has no such record, or it was removed".into(),
            Self::EmptyKey => "a key names what is stored; it has 1 to 1,024 bytes".into(),
            Self::KeyTooLong { .. } => "longer keys do not fit one page of the store".into(),
            Self::ValueTooLarge { .. } => {
                "values lie in the log and the store in one piece; objects in many pieces come later"
                    .into()
            }
            Self::BatchTooLarge { .. } => format!(
                "a batch is one log entry: at most {BATCH_OPS_MAX} operations and {} per shard",
                ByteSize(ENTRY_BYTES_MAX as u64)
            ),
            Self::BadTransaction(_) => "it was refused whole; nothing was changed".into(),
            Self::BadLease(_) | Self::BadRestore(_) => {
                "the shard decided so; nothing was changed".into()
            }
            Self::SpansShards { .. } => {
                "transactions, deletes of ranges, leases and accounts are of one shard; those over shards come later".into()
            }
            Self::AnswerLost { succeeded, .. } => {
                let branch = if *succeeded { "held" } else { "did not hold" };
                format!(
                    "its compares {branch}; the answer was lost on its way, and the shard keeps only so many unread ones"
                )
            }
            Self::PartOfBatch { failure, .. } => {
                format!("a batch is atomic per shard, not over shards; {}", failure.cause())
            }
            Self::Refused(_) => "the catalog decided so; nothing was changed".into(),
            Self::UnknownOutcome { session, .. } => {
                format!("{session} expired between two tries, so the retry was not executed")
            }
            Self::NoQuorum { tries, last, in_doubt, .. } => {
                let doubt = if *in_doubt { "; it may have been executed all the same" } else { "" };
                format!("{tries} tries; last: {last}{doubt}")
            }
            Self::Unreachable { last, .. } => last.clone(),
            Self::Fault { fault, .. } => fault.to_string(),
            Self::BadCertificate { cause } | Self::BadAnswer { cause, .. } => cause.clone(),
            Self::NotServing { waiting, .. } => {
                let names: Vec<String> = waiting.iter().take(5).map(ToString::to_string).collect();
                format!("waiting for {}{}", names.join(", "), if waiting.len() > 5 { " …" } else { "" })
            }
        }
    }

    /// What mends it.
    pub fn fix(&self) -> String {
        match self {
            Self::UnknownVolume { volume } => {
                format!("create it: cdb volume create {volume}   (or look: cdb volume ls)")
            }
            Self::UnknownNode { .. } => "see the members: cdb node ls".into(),
            Self::EmptyKey => "name a key: cdb put VOLUME/KEY FILE".into(),
            Self::KeyTooLong { .. } => "use a shorter key, or a hash of it".into(),
            Self::ValueTooLarge { .. } => "split the value into several keys".into(),
            Self::BatchTooLarge { .. } => "send several smaller batches".into(),
            Self::BadTransaction(_) => "change the transaction as the message says".into(),
            Self::BadLease(LeaseError::Unknown(_)) => {
                "grant a new one, and put its keys again: cdb kv lease grant VOLUME SECONDS".into()
            }
            Self::BadLease(_) => "change the request as the message says".into(),
            Self::BadRestore(error) => restore_fix(*error).into(),
            Self::SpansShards { volume } => format!(
                "use a volume of kind single, which has one shard (cdb volume create NAME --kind single); keys of {volume} go one by one with cdb rm -r"
            ),
            Self::AnswerLost { .. } => "read the keys again; do not repeat the transaction".into(),
            Self::PartOfBatch { failure, .. } => {
                format!("repeat the batch: puts and deletes may be repeated; {}", failure.fix())
            }
            Self::Refused(refusal) => refusal_fix(refusal),
            Self::UnknownOutcome { .. } => "read the key, then decide whether to try again".into(),
            Self::NoQuorum { .. } => {
                "see which nodes are down: cdb status; start them: cdb node start N".into()
            }
            Self::Unreachable { .. } => {
                "start the cluster (cdb dev), or name another profile with --profile".into()
            }
            Self::Fault { fault, .. } => fault_fix(fault),
            Self::BadCertificate { .. } => {
                "use the client.yaml this cluster wrote; after `cdb dev` on a new directory it is a new one"
                    .into()
            }
            Self::BadAnswer { .. } => "use the same release of cdb on both sides: cdb version".into(),
            Self::NotServing { .. } => "wait for it: cdb status --wait healthy".into(),
        }
    }

    /// Whether the same call may succeed later without anything being changed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NoQuorum { .. } | Self::Unreachable { .. } | Self::NotServing { .. } => true,
            Self::PartOfBatch { failure, .. } => failure.is_retryable(),
            Self::Fault { fault, .. } => match fault {
                Fault::NotLeader { .. }
                | Fault::NoReplica(_)
                | Fault::StaleEpoch(_)
                | Fault::Busy { .. }
                | Fault::Interrupted
                | Fault::Timeout
                | Fault::DiskFull { .. }
                | Fault::StoreFull { .. }
                | Fault::Restoring
                | Fault::ClockAhead(_) => true,
                Fault::Stopped(_)
                | Fault::NoSuchVersion(_)
                | Fault::Compacted { .. }
                | Fault::NotAllowed(_)
                | Fault::Denied(_)
                | Fault::TooLarge(_)
                | Fault::Invalid(_) => false,
            },
            Self::UnknownVolume { .. }
            | Self::UnknownNode { .. }
            | Self::EmptyKey
            | Self::KeyTooLong { .. }
            | Self::ValueTooLarge { .. }
            | Self::BatchTooLarge { .. }
            | Self::BadTransaction(_)
            | Self::BadLease(_)
            | Self::BadRestore(_)
            | Self::SpansShards { .. }
            | Self::AnswerLost { .. }
            | Self::Refused(_)
            | Self::UnknownOutcome { .. }
            | Self::BadCertificate { .. }
            | Self::BadAnswer { .. } => false,
        }
    }
}

impl From<DoorError> for ClientError {
    fn from(error: DoorError) -> Self {
        let subject = "the node".to_owned();
        match error {
            DoorError::BadCertificate { .. } => Self::BadCertificate { cause: error.to_string() },
            DoorError::BadAnswer { cause, .. } => Self::BadAnswer { subject, cause },
            DoorError::Unreachable { .. }
            | DoorError::Busy { .. }
            | DoorError::Timeout { .. }
            | DoorError::Lost { .. } => Self::Unreachable { subject, last: error.to_string() },
        }
    }
}

fn fault_code(fault: &Fault) -> ErrorCode {
    match fault {
        Fault::NotLeader { .. }
        | Fault::NoReplica(_)
        | Fault::StaleEpoch(_)
        | Fault::Interrupted
        | Fault::Timeout => ErrorCode::NoQuorum,
        Fault::Busy { .. } => ErrorCode::Overloaded,
        Fault::DiskFull { .. } => ErrorCode::DiskFull,
        Fault::StoreFull { .. } => ErrorCode::StoreFull,
        Fault::ClockAhead(_) => ErrorCode::ClockSkew,
        Fault::Restoring => ErrorCode::Restoring,
        Fault::Stopped(_) => ErrorCode::ReplicaStopped,
        Fault::NoSuchVersion(_) => ErrorCode::NoSuchVersion,
        Fault::Compacted { .. } => ErrorCode::Compacted,
        Fault::NotAllowed(_) | Fault::Denied(_) => ErrorCode::NotAllowed,
        Fault::TooLarge(_) | Fault::Invalid(_) => ErrorCode::InvalidRequest,
    }
}

fn restore_fix(error: RestoreError) -> &'static str {
    match error {
        RestoreError::NotEmpty => {
            "restore into a new volume, or let what is there go first: --replace"
        }
        RestoreError::Another(_) => {
            "run the restore of that file again; or remove the volume (cdb volume rm), create it and begin anew"
        }
        RestoreError::BegunAnew(_) => {
            "let the command that began anew restore it, or run this one again once that has ended"
        }
        RestoreError::Underway
        | RestoreError::NotBegun
        | RestoreError::TooFar
        | RestoreError::OutOfOrder
        | RestoreError::Lease(_)
        | RestoreError::TooManyLeases => "run the restore again, with a file that is sound",
    }
}

fn fault_fix(fault: &Fault) -> String {
    match fault {
        Fault::NotLeader { .. }
        | Fault::NoReplica(_)
        | Fault::StaleEpoch(_)
        | Fault::Interrupted
        | Fault::Timeout => "see which nodes are down: cdb status",
        Fault::Busy { .. } => "send less at once, or try again later",
        Fault::DiskFull { .. } => {
            "delete keys (cdb rm; room comes back within a minute or two), remove a volume (cdb volume rm), or give the node a larger disk"
        }
        Fault::StoreFull { .. } => {
            "delete keys (cdb rm) and let go of history (cdb kv compact), or raise limits.store in node.yaml of every node and restart them one after another"
        }
        Fault::ClockAhead(_) => "set the clocks of all machines by NTP",
        Fault::Restoring => {
            "wait until the restore has ended; if it was interrupted, run it again with the same file: cdb volume restore VOLUME FILE"
        }
        Fault::Stopped(_) => "see the node's log, then restart it: cdb node start N",
        Fault::NoSuchVersion(_) => "name a version up to the newest, or none to read that",
        Fault::Compacted { .. } => {
            "name a version from the oldest kept on, or none to read the newest; begin a list anew"
        }
        Fault::NotAllowed(_) => "use a profile that may",
        Fault::Denied(_) => {
            "ask as somebody whose roles permit it, or change users, roles and permissions as root"
        }
        Fault::TooLarge(_) | Fault::Invalid(_) => "change the request as the message says",
    }
    .into()
}

fn refusal_code(refusal: &CatalogRefusal) -> ErrorCode {
    match refusal {
        CatalogRefusal::UnknownNode(_) => ErrorCode::UnknownNode,
        CatalogRefusal::UnknownVolume(_) => ErrorCode::UnknownVolume,
        CatalogRefusal::VolumeExists(_) => ErrorCode::VolumeExists,
        CatalogRefusal::UnknownToken | CatalogRefusal::ExpiredToken | CatalogRefusal::UsedToken => {
            ErrorCode::TokenRefused
        }
        CatalogRefusal::Invalid(_) => ErrorCode::InvalidRequest,
        CatalogRefusal::AlreadyBootstrapped
        | CatalogRefusal::RemovedNode(_)
        | CatalogRefusal::OldBoot { .. }
        | CatalogRefusal::UnknownShard(_)
        | CatalogRefusal::AlreadyPlaced => ErrorCode::CatalogRefused,
    }
}

fn refusal_fix(refusal: &CatalogRefusal) -> String {
    match refusal {
        CatalogRefusal::UnknownVolume(volume) => {
            format!("create it: cdb volume create {volume}   (or look: cdb volume ls)")
        }
        CatalogRefusal::VolumeExists(volume) => {
            format!("use it as it is (cdb volume show {volume}), or choose another name")
        }
        CatalogRefusal::UnknownToken | CatalogRefusal::ExpiredToken | CatalogRefusal::UsedToken => {
            "make a new token: cdb cluster token".into()
        }
        CatalogRefusal::UnknownNode(_) => "see the members: cdb node ls".into(),
        CatalogRefusal::AlreadyBootstrapped
        | CatalogRefusal::RemovedNode(_)
        | CatalogRefusal::OldBoot { .. }
        | CatalogRefusal::UnknownShard(_)
        | CatalogRefusal::AlreadyPlaced
        | CatalogRefusal::Invalid(_) => "change the request as the message says".into(),
    }
}
