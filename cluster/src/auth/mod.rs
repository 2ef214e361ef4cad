//! Accounts of a volume: who somebody is behind a door that asks for names, and
//! what they may do. They mean what etcd's users, roles and permissions mean.
//!
//! [`Accounts`] are part of a shard's replicated state, beside its sessions and
//! leases, so a change of them is an entry of the log like any other and moves
//! no version. A request carries the [`Principal`] its door has established, and
//! is judged where it takes effect: a change by apply, on the accounts that
//! stand at its place in the log; a read on the accounts of the very state it
//! reads. Between judgement and effect nothing can change.
//!
//! There is one judgement. [`needs`] flattens a request into what it needs, by
//! matches without a rest, so that no kind of request or step can be added
//! without deciding its rule; [`Accounts::check`] holds that against what the
//! principal was granted. What nobody granted is denied.
//!
//! A principal only narrows: a node asks as [`Principal::Trusted`], and a door
//! that knows accounts puts somebody lesser in its place.
//!
//! Departs from etcd: a token or password is void from the moment its user's
//! password was set anew, its user deleted, or authentication switched off, not
//! with every change of any account. etcd refuses what was under way during a
//! change with *revision of auth store is old*; here it is judged anew instead.
//!
//! Source: etcd's auth store and its auth applier; why it is kept here is argued
//! in `cluster/docs/decisions/2026-11-26-accounts.md`.
#![allow(missing_docs, reason = "rkyv gives the fields of archived enum variants no docs")]

mod accounts;
mod command;
pub mod needs;
mod permission;

pub use accounts::{Accounts, Denial, ROOT};
pub use command::{AuthCommand, AuthOutcome, AuthQuery, AuthView};
pub use needs::Need;
pub use permission::{Access, Permission};

use rkyv::{Archive, Deserialize, Serialize};

use crate::limits::ACCOUNTS_BYTES_MAX;

/// As whom something is asked.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize,
)]
pub enum Principal {
    /// The cluster itself, or who came with its certificate: accounts do not
    /// bind it.
    #[default]
    Trusted,
    /// Somebody behind a door of accounts who showed no name.
    Nameless,
    /// Somebody who proved a name.
    User {
        /// The name.
        name: String,
        /// The revision of the accounts at which a password proved it; none if a
        /// certificate does.
        since: Option<u64>,
    },
}

/// Why accounts say no. The texts are etcd's, less their `etcdserver: `.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum AuthError {
    #[error("root user does not exist")]
    RootUserMissing,
    #[error("root user does not have root role")]
    RootRoleMissing,
    #[error("user name already exists")]
    UserExists,
    #[error("user name is empty")]
    UserEmpty,
    #[error("user name not found")]
    UserUnknown,
    #[error("role name already exists")]
    RoleExists,
    #[error("role name is empty")]
    RoleEmpty,
    #[error("role name not found")]
    RoleUnknown,
    #[error("authentication failed, invalid user ID or password")]
    Failed,
    #[error("permission not given")]
    PermissionMissing,
    #[error("permission denied")]
    Denied,
    #[error("role is not granted to the user")]
    RoleNotGranted,
    #[error("permission is not granted to the role")]
    PermissionNotGranted,
    #[error("authentication is not enabled")]
    NotEnabled,
    #[error("invalid auth token")]
    InvalidToken,
    #[error("invalid auth management")]
    InvalidManagement,
    #[error("users, roles and permissions of one volume take at most {ACCOUNTS_BYTES_MAX} bytes")]
    TooMany,
}
