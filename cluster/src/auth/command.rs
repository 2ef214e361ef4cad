//! What is asked of accounts, and what they answer.

use rkyv::{Archive, Deserialize, Serialize};

use super::{needs::Need, permission::Permission};
use crate::{mvcc::version::Version, shard::transaction::Keys};

/// A change of accounts. Passwords come as hashes: what makes and checks them
/// is slow and salted, and stays outside of apply.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum AuthCommand {
    /// From now on everybody behind a door of accounts needs a name.
    Enable,
    /// From now on nobody does.
    Disable,
    /// A new user.
    AddUser {
        /// The name.
        name: String,
        /// Of the password; none for a user that only a certificate proves.
        hash: Option<String>,
    },
    /// Removes a user.
    DeleteUser(String),
    /// Sets a password anew.
    ChangePassword {
        /// Whose.
        name: String,
        /// Of the password. A user without one keeps none.
        hash: String,
    },
    /// Gives a role to a user.
    GrantRole {
        /// To whom.
        user: String,
        /// Which.
        role: String,
    },
    /// Takes a role from a user.
    RevokeRole {
        /// From whom.
        user: String,
        /// Which.
        role: String,
    },
    /// A new role.
    AddRole(String),
    /// Removes a role, from its users too.
    DeleteRole(String),
    /// Gives a permission to a role; over the same keys it replaces the old one.
    GrantPermission {
        /// To which.
        role: String,
        /// What.
        permission: Permission,
    },
    /// Takes a permission from a role.
    RevokePermission {
        /// From which.
        role: String,
        /// Over which keys, exactly.
        keys: Keys,
    },
}

/// Accounts were changed, or were so already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct AuthOutcome {
    /// The revision of the accounts.
    pub revision: u64,
    /// The newest version of the data, which accounts do not move.
    pub version: Version,
}

/// A question about accounts.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum AuthQuery {
    /// Whether they are in force.
    Status,
    /// The same, for who has a name: whether somebody may be served what any
    /// user may know.
    Named,
    /// The same, for who has all of this: whether somebody may do what needs it.
    May(Vec<Need>),
    /// The roles of a user.
    User(String),
    /// All users.
    Users,
    /// The permissions of a role.
    Role(String),
    /// All roles.
    Roles,
    /// The hash of a user's password: for who checks passwords, nobody else.
    Secret(String),
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum AuthView {
    /// Whether they are in force.
    Status {
        /// Whether.
        enabled: bool,
        /// The revision of the accounts.
        revision: u64,
    },
    /// Names in order: of users, or of roles.
    Names(Vec<String>),
    /// Permissions in the order of their keys.
    Permissions(Vec<Permission>),
    /// The hash of a password.
    Secret {
        /// The hash.
        hash: String,
        /// The revision of the accounts at which it was read.
        revision: u64,
    },
}
