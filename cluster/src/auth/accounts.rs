//! Users, roles and permissions of a volume, and the one judgement over them.

use std::{cell::OnceCell, collections::BTreeSet};

use rkyv::{Archive, Deserialize, Serialize};

use super::{
    AuthError, Principal,
    command::{AuthCommand, AuthQuery, AuthView},
    needs::Need,
    permission::{Access, Covered, Permission},
};
use crate::{ids::LeaseId, limits::ACCOUNTS_BYTES_MAX, shard::transaction::Keys};

/// The user that must exist, and the role that permits everything.
pub const ROOT: &str = "root";

/// Accounts of one shard: lists in the order of names.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Accounts {
    enabled: bool,
    /// Rises with every change but that to enabled, as etcd's does.
    revision: u64,
    /// What was proved by a password before this revision counts no more.
    valid_from: u64,
    users: Vec<User>,
    roles: Vec<Role>,
}

/// One user.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
struct User {
    name: String,
    hash: Option<String>,
    /// In order.
    roles: Vec<String>,
    /// The revision at which the password was set.
    since: u64,
}

/// One role.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
struct Role {
    name: String,
    /// In the order of keys.
    permissions: Vec<Permission>,
}

/// Why a request was not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial<E> {
    /// The principal may not.
    Denied(AuthError),
    /// It could not be judged: the keys of a lease could not be read.
    Unread(E),
}

impl<E> From<AuthError> for Denial<E> {
    fn from(error: AuthError) -> Self {
        Self::Denied(error)
    }
}

/// What a user's roles permit together, joined once for all that is judged.
struct Grants<'a> {
    accounts: &'a Accounts,
    user: &'a User,
    read: OnceCell<Covered>,
    write: OnceCell<Covered>,
}

impl<'a> Grants<'a> {
    fn of(accounts: &'a Accounts, user: &'a User) -> Self {
        Self { accounts, user, read: OnceCell::new(), write: OnceCell::new() }
    }

    fn hold(&self, access: Access, keys: &Keys) -> bool {
        let joined = match access {
            Access::Read => &self.read,
            Access::Write => &self.write,
            Access::ReadWrite => {
                return self.hold(Access::Read, keys) && self.hold(Access::Write, keys);
            }
        };
        joined.get_or_init(|| self.join(access)).holds(keys)
    }

    fn join(&self, access: Access) -> Covered {
        let roles = self.user.roles.iter().filter_map(|name| self.accounts.role(name).ok());
        let permissions = roles.flat_map(|role| &role.permissions);
        let granted = permissions.filter(|permission| permission.access.includes(access));
        Covered::by(granted.map(|permission| &permission.keys))
    }
}

impl Default for Accounts {
    /// Nobody, and not in force, at etcd's first revision.
    fn default() -> Self {
        Self { enabled: false, revision: 1, valid_from: 0, users: Vec::new(), roles: Vec::new() }
    }
}

impl Accounts {
    /// Whether `principal` may do what needs all of `needs`: the one judgement
    /// of requests of all kinds. `keys_of` tells the keys that hang on a lease, one
    /// by one until it hears that no more is wanted.
    ///
    /// # Errors
    /// If it may not, or the keys of a lease cannot be told.
    pub fn check<E>(
        &self,
        principal: &Principal,
        needs: &[Need],
        mut keys_of: impl FnMut(LeaseId, &mut dyn FnMut(&[u8]) -> bool) -> Result<(), E>,
    ) -> Result<(), Denial<E>> {
        if *principal == Principal::Trusted {
            return Ok(());
        }
        let mut leases = BTreeSet::new();
        let grants = OnceCell::new();
        for need in needs {
            // What only the cluster may is no matter of being in force.
            if *need == Need::Trust {
                return Err(AuthError::Denied.into());
            }
            if *need == Need::Nothing || !self.enabled {
                continue;
            }
            let user = self.user_of(principal)?;
            if user.has(ROOT) {
                continue;
            }
            let grants = grants.get_or_init(|| Grants::of(self, user));
            let may = match need {
                Need::Nothing | Need::Name => true,
                Need::Root | Need::Trust | Need::LeasesAfter(..) => false,
                Need::BeUser(name) => user.name == *name,
                Need::HaveRole(role) => user.has(role),
                Need::Keys(access, keys) => grants.hold(*access, keys),
                Need::Lease(access, lease) => {
                    let mut all = true;
                    let mut judge = |key: &[u8]| {
                        all = grants.hold(*access, &Keys::One(key.to_vec()));
                        all
                    };
                    // One of many keys is put under one lease again and again.
                    if leases.insert((*access == Access::Read, *lease)) {
                        keys_of(*lease, &mut judge).map_err(Denial::Unread)?;
                    }
                    all
                }
            };
            if !may {
                return Err(AuthError::Denied.into());
            }
        }
        Ok(())
    }

    /// Who this is, if what proved it still counts.
    fn user_of(&self, principal: &Principal) -> Result<&User, AuthError> {
        let Principal::User { name, since } = principal else { return Err(AuthError::UserEmpty) };
        match (self.user(name), since) {
            (Ok(user), Some(since)) if *since >= user.since.max(self.valid_from) => Ok(user),
            (Ok(user), None) => Ok(user),
            (Ok(_) | Err(_), Some(_)) => Err(AuthError::InvalidToken),
            (Err(_), None) => Err(AuthError::Denied),
        }
    }

    /// Changes them; all or nothing.
    ///
    /// # Errors
    /// As etcd refuses it, or if there would be too many.
    pub fn change(&mut self, command: &AuthCommand) -> Result<(), AuthError> {
        let mut next = self.clone();
        if next.apply(command)? {
            next.revision += 1;
        }
        if next.bytes() > ACCOUNTS_BYTES_MAX && next.bytes() > self.bytes() {
            return Err(AuthError::TooMany);
        }
        *self = next;
        Ok(())
    }

    /// Changes what was cloned; whether the revision moves.
    fn apply(&mut self, command: &AuthCommand) -> Result<bool, AuthError> {
        match command {
            AuthCommand::Enable => self.enable().map(|()| false),
            AuthCommand::Disable => Ok(self.disable()),
            AuthCommand::AddUser { name, hash } => self.add_user(name, hash.as_ref()),
            AuthCommand::DeleteUser(name) => self.delete_user(name),
            AuthCommand::ChangePassword { name, hash } => self.change_password(name, hash),
            AuthCommand::GrantRole { user, role } => self.grant_role(user, role),
            AuthCommand::RevokeRole { user, role } => self.revoke_role(user, role),
            AuthCommand::AddRole(name) => self.add_role(name),
            AuthCommand::DeleteRole(name) => self.delete_role(name),
            AuthCommand::GrantPermission { role, permission } => {
                self.grant_permission(role, permission)
            }
            AuthCommand::RevokePermission { role, keys } => self.revoke_permission(role, keys),
        }
    }

    fn enable(&mut self) -> Result<(), AuthError> {
        if !self.enabled {
            let root = self.user(ROOT).map_err(|_| AuthError::RootUserMissing)?;
            if !root.has(ROOT) {
                return Err(AuthError::RootRoleMissing);
            }
            self.enabled = true;
        }
        Ok(())
    }

    fn disable(&mut self) -> bool {
        if self.enabled {
            self.valid_from = self.revision + 1;
        }
        std::mem::take(&mut self.enabled)
    }

    fn add_user(&mut self, name: &str, hash: Option<&String>) -> Result<bool, AuthError> {
        if name.is_empty() {
            return Err(AuthError::UserEmpty);
        }
        let Err(place) = self.user_place(name) else { return Err(AuthError::UserExists) };
        let (roles, since) = (Vec::new(), self.revision + 1);
        self.users.insert(place, User { name: name.to_owned(), hash: hash.cloned(), roles, since });
        Ok(true)
    }

    fn delete_user(&mut self, name: &str) -> Result<bool, AuthError> {
        if self.enabled && name == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        let place = self.user_place(name).map_err(|_| AuthError::UserUnknown)?;
        self.users.remove(place);
        Ok(true)
    }

    fn change_password(&mut self, name: &str, hash: &str) -> Result<bool, AuthError> {
        let since = self.revision + 1;
        let user = self.user_mut(name)?;
        user.hash = user.hash.as_ref().map(|_| hash.to_owned());
        user.since = since;
        Ok(true)
    }

    fn grant_role(&mut self, user: &str, role: &str) -> Result<bool, AuthError> {
        let known = role == ROOT || self.role(role).is_ok();
        let user = self.user_mut(user)?;
        if !known {
            return Err(AuthError::RoleUnknown);
        }
        let place = user.roles.binary_search_by(|held| held.as_str().cmp(role));
        if let Err(place) = place {
            user.roles.insert(place, role.to_owned());
        }
        Ok(place.is_err())
    }

    fn revoke_role(&mut self, user: &str, role: &str) -> Result<bool, AuthError> {
        if self.enabled && user == ROOT && role == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        let user = self.user_mut(user)?;
        if !user.has(role) {
            return Err(AuthError::RoleNotGranted);
        }
        user.roles.retain(|held| held != role);
        Ok(true)
    }

    fn add_role(&mut self, name: &str) -> Result<bool, AuthError> {
        if name.is_empty() {
            return Err(AuthError::RoleEmpty);
        }
        let Err(place) = self.role_place(name) else { return Err(AuthError::RoleExists) };
        self.roles.insert(place, Role { name: name.to_owned(), permissions: Vec::new() });
        Ok(true)
    }

    fn delete_role(&mut self, name: &str) -> Result<bool, AuthError> {
        if self.enabled && name == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        let place = self.role_place(name).map_err(|_| AuthError::RoleUnknown)?;
        self.roles.remove(place);
        for user in &mut self.users {
            user.roles.retain(|held| held != name);
        }
        Ok(true)
    }

    fn grant_permission(&mut self, role: &str, permission: &Permission) -> Result<bool, AuthError> {
        let sound = match &permission.keys {
            Keys::One(key) => !key.is_empty(),
            Keys::Range { from, to } => to.is_empty() || from < to,
        };
        if !sound {
            return Err(AuthError::InvalidManagement);
        }
        let held = &mut self.role_mut(role)?.permissions;
        if let Some(held) = held.iter_mut().find(|held| held.keys == permission.keys) {
            held.access = permission.access;
        } else {
            let from = first(&permission.keys);
            let place = held.partition_point(|held| first(&held.keys) <= from);
            held.insert(place, permission.clone());
        }
        Ok(true)
    }

    fn revoke_permission(&mut self, role: &str, keys: &Keys) -> Result<bool, AuthError> {
        let held = &mut self.role_mut(role)?.permissions;
        let before = held.len();
        held.retain(|held| held.keys != *keys);
        if held.len() == before { Err(AuthError::PermissionNotGranted) } else { Ok(true) }
    }

    /// Answers a question; whether it may be asked is judged before.
    ///
    /// # Errors
    /// As etcd refuses it.
    pub fn answer(&self, query: &AuthQuery) -> Result<AuthView, AuthError> {
        Ok(match query {
            AuthQuery::Status | AuthQuery::Named | AuthQuery::May(_) => {
                AuthView::Status { enabled: self.enabled, revision: self.revision }
            }
            AuthQuery::User(name) => AuthView::Names(self.user(name)?.roles.clone()),
            AuthQuery::Users => names(self.users.iter().map(|user| &user.name)),
            AuthQuery::Role(name) => AuthView::Permissions(self.role(name)?.shown()),
            AuthQuery::Roles => names(self.roles.iter().map(|role| &role.name)),
            AuthQuery::Secret(_) if !self.enabled => return Err(AuthError::NotEnabled),
            AuthQuery::Secret(name) => {
                let hash = self.user(name).ok().and_then(|user| user.hash.clone());
                AuthView::Secret { hash: hash.ok_or(AuthError::Failed)?, revision: self.revision }
            }
        })
    }

    /// The revision.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether they are in force.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    fn user_place(&self, name: &str) -> Result<usize, usize> {
        self.users.binary_search_by(|user| user.name.as_str().cmp(name))
    }

    fn role_place(&self, name: &str) -> Result<usize, usize> {
        self.roles.binary_search_by(|role| role.name.as_str().cmp(name))
    }

    fn user(&self, name: &str) -> Result<&User, AuthError> {
        let place = self.user_place(name).map_err(|_| AuthError::UserUnknown)?;
        self.users.get(place).ok_or(AuthError::UserUnknown)
    }

    fn user_mut(&mut self, name: &str) -> Result<&mut User, AuthError> {
        let place = self.user_place(name).map_err(|_| AuthError::UserUnknown)?;
        self.users.get_mut(place).ok_or(AuthError::UserUnknown)
    }

    fn role(&self, name: &str) -> Result<&Role, AuthError> {
        let place = self.role_place(name).map_err(|_| AuthError::RoleUnknown)?;
        self.roles.get(place).ok_or(AuthError::RoleUnknown)
    }

    fn role_mut(&mut self, name: &str) -> Result<&mut Role, AuthError> {
        let place = self.role_place(name).map_err(|_| AuthError::RoleUnknown)?;
        self.roles.get_mut(place).ok_or(AuthError::RoleUnknown)
    }

    /// About the bytes they take in a root record.
    fn bytes(&self) -> usize {
        const HEAD: usize = 32;
        let names = |names: &[String]| names.iter().map(|name| HEAD + name.len()).sum::<usize>();
        let users = self.users.iter().map(|user| {
            2 * HEAD
                + user.name.len()
                + user.hash.as_ref().map_or(0, String::len)
                + names(&user.roles)
        });
        let roles = self.roles.iter().map(|role| {
            let keys = role.permissions.iter().map(|held| HEAD + held.keys.bytes());
            HEAD + role.name.len() + keys.sum::<usize>()
        });
        users.sum::<usize>() + roles.sum::<usize>()
    }
}

impl User {
    fn has(&self, role: &str) -> bool {
        self.roles.iter().any(|held| held == role)
    }
}

impl Role {
    /// Its permissions; all there is, for the role that needs none.
    fn shown(&self) -> Vec<Permission> {
        if self.name == ROOT {
            let keys = Keys::range("", "");
            return vec![Permission { access: Access::ReadWrite, keys }];
        }
        self.permissions.clone()
    }
}

fn names<'a>(names: impl Iterator<Item = &'a String>) -> AuthView {
    AuthView::Names(names.cloned().collect())
}

fn first(keys: &Keys) -> &[u8] {
    match keys {
        Keys::One(key) | Keys::Range { from: key, .. } => key,
    }
}
