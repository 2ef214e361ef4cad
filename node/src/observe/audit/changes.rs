//! What changes are called and what they are of, whichever door they come through.

use cluster::{
    auth::{Access, AuthCommand},
    shard::transaction::{Step, Transaction},
};

use super::Subject;

/// The keys that a transaction may change.
pub fn changed_by(transaction: &Transaction) -> Vec<Subject> {
    let changed = transaction.steps().filter_map(|step| match step {
        Step::Put(put) => Some(Subject::key(&put.key)),
        Step::Delete { keys, .. } => Some(Subject::keys(keys)),
        Step::Read(_) | Step::Nested(_) => None,
    });
    changed.collect()
}

/// What a change of accounts is called, as `etcdctl` does.
pub fn name_of(command: &AuthCommand) -> &'static str {
    match command {
        AuthCommand::Enable => "auth enable",
        AuthCommand::Disable => "auth disable",
        AuthCommand::AddUser { .. } => "user add",
        AuthCommand::DeleteUser(_) => "user delete",
        AuthCommand::ChangePassword { .. } => "user passwd",
        AuthCommand::GrantRole { .. } => "user grant-role",
        AuthCommand::RevokeRole { .. } => "user revoke-role",
        AuthCommand::AddRole(_) => "role add",
        AuthCommand::DeleteRole(_) => "role delete",
        AuthCommand::GrantPermission { .. } => "role grant-permission",
        AuthCommand::RevokePermission { .. } => "role revoke-permission",
    }
}

/// What is told of a change of accounts: names, and never a hash.
pub fn changed_accounts(command: &AuthCommand) -> Vec<Subject> {
    match command {
        AuthCommand::Enable | AuthCommand::Disable => Vec::new(),
        AuthCommand::AddUser { name, hash: _ }
        | AuthCommand::DeleteUser(name)
        | AuthCommand::ChangePassword { name, hash: _ } => vec![Subject::user(name)],
        AuthCommand::GrantRole { user, role } | AuthCommand::RevokeRole { user, role } => {
            vec![Subject::user(user), Subject::role(role)]
        }
        AuthCommand::AddRole(name) | AuthCommand::DeleteRole(name) => vec![Subject::role(name)],
        AuthCommand::GrantPermission { role, permission } => {
            let access = match permission.access {
                Access::Read => "read",
                Access::Write => "write",
                Access::ReadWrite => "readwrite",
            };
            vec![Subject::role(role), Subject::Access(access), Subject::keys(&permission.keys)]
        }
        AuthCommand::RevokePermission { role, keys } => {
            vec![Subject::role(role), Subject::keys(keys)]
        }
    }
}
