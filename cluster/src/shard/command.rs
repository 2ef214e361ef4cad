//! What a log entry asks of the state machine, and what it answers.
//!
//! Apply depends on the entry and the state only. What must be refused for a
//! reason outside them (quota, space, clock) is refused before it is proposed.
#![allow(missing_docs, reason = "rkyv gives the fields of archived enum variants no docs")]

use rkyv::{Archive, Deserialize, Serialize};

use crate::{
    auth::{AuthCommand, AuthError, AuthOutcome, Principal},
    catalog::command::{CatalogCommand, CatalogOutcome},
    formats,
    ids::SessionId,
    mvcc::version::{Hlc, Version},
    shard::{
        leases::{LeaseCommand, LeaseError, LeaseOutcome},
        restore::{RestoreCommand, RestoreError, Restored},
        transaction::{Transacted, Transaction, TransactionError},
    },
};

/// Version of the command encoding, first in every entry (`u16`, little-endian).
pub const COMMAND_VERSION: u16 = 1;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Command {
    /// The leader's hybrid clock when it proposed.
    pub time: Hlc,
    /// Monotonic milliseconds to add to shard time, capped by the leader.
    pub shard_time_step_ms: u32,
    /// As whom it is done.
    pub principal: Principal,
    /// What to do.
    pub action: Action,
}

/// Bytes of an entry that are no command this release can execute. They are
/// committed, so skipping them would part this replica from the others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Written by a newer release.
    #[error("command has format {0}, this release reads up to {COMMAND_VERSION}")]
    Version(u16),
    /// Not a command at all, or of a kind this release does not know.
    #[error("command cannot be read: {0}")]
    Invalid(String),
}

impl Command {
    /// The bytes of an entry's payload.
    pub fn encode(&self) -> Vec<u8> {
        formats::to_versioned_bytes(COMMAND_VERSION, self)
    }

    /// Reads an entry's payload. The log and the wire have checked its CRC.
    ///
    /// # Errors
    /// If a newer release wrote it or it is no command.
    pub fn decode(bytes: &[u8]) -> Result<Self, CommandError> {
        let (version, body) = bytes
            .split_first_chunk::<2>()
            .ok_or_else(|| CommandError::Invalid("it is empty".to_owned()))?;
        let version = u16::from_le_bytes(*version);
        if version != COMMAND_VERSION {
            return Err(CommandError::Version(version));
        }
        formats::from_bytes(body).map_err(|error| CommandError::Invalid(error.0))
    }
}

/// What a command does.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Action {
    /// Only lets time pass: closes [`Command::time`] for readers.
    Close,
    /// Opens a session; its id is the entry's position.
    OpenSession,
    /// Ends a session before it expires.
    CloseSession(SessionId),
    /// Changes data.
    Write {
        /// Exactly-once bookkeeping; none for blind writes of the weaker levels.
        request: Option<SessionRequest>,
        /// Atomic, in order, all at one version with rising sub-versions.
        ops: Vec<Op>,
    },
    /// Compares, then does one thing or another.
    Transact {
        /// Exactly-once bookkeeping.
        request: Option<SessionRequest>,
        /// What to compare and to do.
        transaction: Transaction,
    },
    /// Changes the catalog. Only in the catalog shard.
    Catalog {
        /// Exactly-once bookkeeping.
        request: Option<SessionRequest>,
        /// The change.
        command: CatalogCommand,
    },
    /// Grants, keeps or ends a lease.
    Lease {
        /// Exactly-once bookkeeping; none for what the leader asks itself.
        request: Option<SessionRequest>,
        /// What to do.
        command: LeaseCommand,
    },
    /// Changes accounts.
    Auth {
        /// Exactly-once bookkeeping.
        request: Option<SessionRequest>,
        /// The change.
        command: AuthCommand,
    },
    /// Does a step of a restore.
    Restore {
        /// Exactly-once bookkeeping.
        request: Option<SessionRequest>,
        /// The step.
        command: RestoreCommand,
    },
    /// Lets versions begin above this one, after a restore: whoever saw what was
    /// here before must not take what comes for the past. Where a clock names
    /// versions it does nothing, for they rise by themselves.
    Advance {
        /// No later change gets this version or a lower one.
        version: Version,
    },
    /// Lets go of the history below a version; not if that lies in the future.
    Compact {
        /// The oldest version that shall stay readable.
        version: Version,
    },
}

impl Action {
    /// Its exactly-once bookkeeping, if it has any.
    pub fn request(&self) -> Option<&SessionRequest> {
        match self {
            Self::Close
            | Self::OpenSession
            | Self::CloseSession(_)
            | Self::Compact { .. }
            | Self::Advance { .. } => None,
            Self::Write { request, .. }
            | Self::Transact { request, .. }
            | Self::Catalog { request, .. }
            | Self::Lease { request, .. }
            | Self::Restore { request, .. }
            | Self::Auth { request, .. } => request.as_ref(),
        }
    }
}

/// Names a request within its session, so that a retry is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct SessionRequest {
    /// The session.
    pub session: SessionId,
    /// Number of the request, rising from 1; at most
    /// [`crate::limits::SESSION_IN_FLIGHT_MAX`] above `answered`.
    pub number: u64,
    /// Every number up to here has its answer; kept replies to them may go.
    pub answered: u64,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Op {
    /// Writes a value.
    Put {
        /// The key.
        key: Vec<u8>,
        /// The value.
        value: Vec<u8>,
    },
    /// Deletes a key; deleting what is not there is no error.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
}

impl Op {
    /// The key it changes.
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// What applying a command came to. Kept per session for retries.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Outcome {
    /// Time passed.
    Closed,
    /// A session is open (or closed).
    Session(SessionId),
    /// Data was changed.
    Written {
        /// At this version.
        version: Version,
        /// How many deletes found their key.
        deleted: u32,
    },
    /// A transaction was done.
    Transacted(Transacted),
    /// What became of a lease.
    Lease(LeaseOutcome),
    /// Accounts are as was asked.
    Auth(AuthOutcome),
    /// History is let go of.
    Compacted {
        /// The oldest version that could be read before.
        before: Version,
        /// The oldest version that can be read.
        compacted: Version,
        /// The newest version.
        now: Version,
    },
    /// A step of a restore was done.
    Restored(Restored),
    /// What the catalog answers.
    Catalog(CatalogOutcome),
    /// The command was not executed, with a reason that every replica sees.
    Refused(Refusal),
}

/// Why apply refused a command; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The session expired or never was: whether an earlier try was executed is
    /// not known, and it is certainly not executed now.
    #[error(
        "session {0} has expired: whether the request was executed is unknown; read before trying again"
    )]
    UnknownOutcome(SessionId),
    /// The number lies too far above the answered ones.
    #[error("more than {in_flight_max} requests of {session} are in flight")]
    TooManyInFlight {
        /// The session.
        session: SessionId,
        /// The limit.
        in_flight_max: u32,
    },
    /// A key is not (or no longer) this shard's.
    #[error("a key does not belong to this shard at its present epoch")]
    WrongShard,
    /// A key is empty or longer than [`crate::limits::KEY_BYTES_MAX`].
    #[error("a key has 1 to {bytes_max} bytes, this one has {bytes}")]
    InvalidKey {
        /// Its length.
        bytes: u32,
        /// The limit.
        bytes_max: u32,
    },
    /// The transaction is none, or reads or touches too much.
    #[error(transparent)]
    Transaction(TransactionError),
    /// The lease is not as it was asked to be.
    #[error(transparent)]
    Lease(LeaseError),
    /// A restore is not as the step takes it to be, or is under way.
    #[error(transparent)]
    Restore(RestoreError),
    /// Who asked may not, or accounts are not as the change takes them to be.
    #[error(transparent)]
    Auth(AuthError),
    /// The command is of a kind this shard does not take.
    #[error("this shard takes no such command")]
    WrongKind,
}
