//! What a request needs: all of its operation tree, flattened.
//!
//! | what | needs |
//! |---|---|
//! | read, list, range, watch, compare | reading its keys |
//! | put | writing its key; reading it too if it shows what was there; writing all keys of the lease it is put under |
//! | delete | writing its keys; reading them too if it shows what they were |
//! | transaction | all of that for both branches, and for those of nested ones |
//! | grant a lease | a name |
//! | keep a lease alive, revoke it | a name, and writing all its keys |
//! | show a lease with its keys | a name, and reading them all |
//! | list leases | a name, and reading all keys of all leases |
//! | compact | a name |
//! | accounts | the root role; a user may ask for itself and its roles |
//! | password hashes, the catalog, versions that jump | to be of the cluster |
//!
//! A question of what somebody may do needs what it asks for.
//!
//! Both tables below match without a rest: a new kind of request must decide.
//!
//! Departs from etcd: it lets anybody compact and lets a lease of unseen keys be
//! kept by their reader; what is said here is what its advisories of 2026 asked
//! for, and no more than its own applier asks of a revocation.

use rkyv::{Archive, Deserialize, Serialize};

use super::{
    command::{AuthCommand, AuthQuery},
    permission::Access,
};
use crate::{
    ids::LeaseId,
    request::ShardBody,
    shard::{
        command::{Action, Op},
        leases::LeaseCommand,
        transaction::{Compare, Keys, Put, Step, Transaction},
    },
};

/// One thing that is needed.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Need {
    /// Not even a name.
    Nothing,
    /// Any name.
    Name,
    /// The root role.
    Root,
    /// The root role, or to be this user.
    BeUser(String),
    /// The root role, or this one.
    HaveRole(String),
    /// To be of the cluster: nobody behind a door of accounts is.
    Trust,
    /// Access to keys.
    Keys(Access, Keys),
    /// Access to each key that hangs on a lease.
    Lease(Access, LeaseId),
    /// The same for each lease of the page behind one, which whoever reads it puts in
    /// its place.
    LeasesAfter(Access, LeaseId),
}

/// What a request needs.
pub fn of_body(body: &ShardBody) -> Vec<Need> {
    match body {
        // They hold numbers of a door's own; what is done under them is judged.
        ShardBody::OpenSession | ShardBody::CloseSession(_) => vec![Need::Nothing],
        ShardBody::Write { ops, .. } => ops.iter().map(of_op).collect(),
        ShardBody::Transact { transaction, .. } | ShardBody::Look { transaction, .. } => {
            of_transaction(transaction)
        }
        ShardBody::Catalog { .. } | ShardBody::Restore { .. } | ShardBody::Advance { .. } => {
            vec![Need::Trust]
        }
        ShardBody::Get { key, .. } => vec![read(&Keys::One(key.clone()))],
        ShardBody::List { prefix, .. } => vec![read(&Keys::prefix(prefix.clone()))],
        ShardBody::Range { range, .. } => vec![read(&range.keys)],
        ShardBody::Watch { watch, .. } => vec![read(&watch.keys)],
        ShardBody::Lease { command, .. } => of_lease(*command),
        ShardBody::ShowLease { lease, keys: true } => {
            vec![Need::Name, Need::Lease(Access::Read, *lease)]
        }
        ShardBody::ShowLease { keys: false, .. } | ShardBody::Compact { .. } => vec![Need::Name],
        ShardBody::ListLeases { after } => {
            vec![Need::Name, Need::LeasesAfter(Access::Read, *after)]
        }
        ShardBody::Auth { command, .. } => vec![of_command(command)],
        ShardBody::ShowAuth(query) => of_query(query),
        ShardBody::Inspect => vec![Need::Root],
    }
}

/// Whether only the cluster itself may do it: told without what else it would need, which
/// does not matter where accounts are not in force.
pub fn is_for_the_cluster(action: &Action) -> bool {
    match action {
        Action::Catalog { .. } | Action::Restore { .. } | Action::Advance { .. } => true,
        Action::Lease { command, .. } => matches!(command, LeaseCommand::Expire(_)),
        Action::Close
        | Action::OpenSession
        | Action::CloseSession(_)
        | Action::Write { .. }
        | Action::Transact { .. }
        | Action::Compact { .. }
        | Action::Auth { .. } => false,
    }
}

/// What an entry of the log needs.
pub fn of_action(action: &Action) -> Vec<Need> {
    // Told in one place, for apply trusts it alone where accounts are not in force.
    if is_for_the_cluster(action) {
        return vec![Need::Trust];
    }
    match action {
        Action::Close | Action::OpenSession | Action::CloseSession(_) => vec![Need::Nothing],
        Action::Write { ops, .. } => ops.iter().map(of_op).collect(),
        Action::Transact { transaction, .. } => of_transaction(transaction),
        Action::Catalog { .. } | Action::Restore { .. } | Action::Advance { .. } => {
            vec![Need::Trust]
        }
        Action::Lease { command, .. } => of_lease(*command),
        Action::Compact { .. } => vec![Need::Name],
        Action::Auth { command, .. } => vec![of_command(command)],
    }
}

fn read(keys: &Keys) -> Need {
    Need::Keys(Access::Read, keys.clone())
}

fn write(keys: &Keys) -> Need {
    Need::Keys(Access::Write, keys.clone())
}

fn of_op(op: &Op) -> Need {
    match op {
        Op::Put { key, .. } | Op::Delete { key } => write(&Keys::One(key.clone())),
    }
}

/// What a transaction needs: every block is walked, whichever branch will run.
pub fn of_transaction(transaction: &Transaction) -> Vec<Need> {
    // One that neither compares nor does anything still tells the version.
    let mut needs = vec![Need::Name];
    for block in &transaction.blocks {
        needs.extend(block.compares.iter().map(|Compare { keys, .. }| read(keys)));
        for step in block.then.iter().chain(&block.otherwise) {
            of_step(step, &mut needs);
        }
    }
    needs
}

fn of_step(step: &Step, needs: &mut Vec<Need>) {
    match step {
        Step::Put(put) => needs.extend(of_put(put)),
        Step::Delete { keys, previous } => needs.extend(of_delete(keys, *previous)),
        Step::Read(range) => needs.push(read(&range.keys)),
        // Its block is one of the transaction's.
        Step::Nested(_) => {}
    }
}

/// What a put needs.
pub fn of_put(put: &Put) -> Vec<Need> {
    let Put { key, value: _, lease, previous } = put;
    let key = Keys::One(key.clone());
    let mut needs = vec![write(&key)];
    needs.extend(previous.then(|| read(&key)));
    // Who cannot write what hangs on it already could not revoke it either.
    needs.extend(lease.filter(|lease| lease.0 != 0).map(|lease| Need::Lease(Access::Write, lease)));
    needs
}

/// What a delete needs that shows what was there, or does not.
pub fn of_delete(keys: &Keys, previous: bool) -> Vec<Need> {
    let mut needs = vec![write(keys)];
    needs.extend(previous.then(|| read(keys)));
    needs
}

fn of_lease(command: LeaseCommand) -> Vec<Need> {
    match command {
        LeaseCommand::Grant { .. } => vec![Need::Name],
        LeaseCommand::KeepAlive(lease) | LeaseCommand::Revoke(lease) => {
            vec![Need::Name, Need::Lease(Access::Write, lease)]
        }
        LeaseCommand::Expire(_) => vec![Need::Trust],
    }
}

fn of_command(command: &AuthCommand) -> Need {
    match command {
        AuthCommand::Enable
        | AuthCommand::Disable
        | AuthCommand::AddUser { .. }
        | AuthCommand::DeleteUser(_)
        | AuthCommand::ChangePassword { .. }
        | AuthCommand::GrantRole { .. }
        | AuthCommand::RevokeRole { .. }
        | AuthCommand::AddRole(_)
        | AuthCommand::DeleteRole(_)
        | AuthCommand::GrantPermission { .. }
        | AuthCommand::RevokePermission { .. } => Need::Root,
    }
}

fn of_query(query: &AuthQuery) -> Vec<Need> {
    let need = match query {
        AuthQuery::May(needs) => return needs.clone(),
        AuthQuery::Status => Need::Nothing,
        AuthQuery::Named => Need::Name,
        AuthQuery::User(name) => Need::BeUser(name.clone()),
        AuthQuery::Role(name) => Need::HaveRole(name.clone()),
        AuthQuery::Users | AuthQuery::Roles => Need::Root,
        AuthQuery::Secret(_) => Need::Trust,
    };
    vec![need]
}
