//! etcd's service Auth: users, roles, permissions, and who has shown a password.
//!
//! Accounts are the volume's own (`cluster::auth`) and changes of them are judged
//! there; what is left to do here is slow and salted, or only words.

use std::sync::Arc;

use actors::client::Client;
use cluster::{
    auth::{Access, AuthCommand, AuthError, AuthQuery, AuthView, Permission, ROOT},
    mvcc::version::Version,
    shard::transaction::Keys,
};
use tonic::{Code, Request, Response, Status};

use super::{
    faults::EtcdFault,
    gateway::Gateway,
    proto::{
        authpb::{self, permission::Type},
        etcdserverpb::{
            AuthDisableRequest, AuthDisableResponse, AuthEnableRequest, AuthEnableResponse,
            AuthRoleAddRequest, AuthRoleAddResponse, AuthRoleDeleteRequest, AuthRoleDeleteResponse,
            AuthRoleGetRequest, AuthRoleGetResponse, AuthRoleGrantPermissionRequest,
            AuthRoleGrantPermissionResponse, AuthRoleListRequest, AuthRoleListResponse,
            AuthRoleRevokePermissionRequest, AuthRoleRevokePermissionResponse, AuthStatusRequest,
            AuthStatusResponse, AuthUserAddRequest, AuthUserAddResponse,
            AuthUserChangePasswordRequest, AuthUserChangePasswordResponse, AuthUserDeleteRequest,
            AuthUserDeleteResponse, AuthUserGetRequest, AuthUserGetResponse,
            AuthUserGrantRoleRequest, AuthUserGrantRoleResponse, AuthUserListRequest,
            AuthUserListResponse, AuthUserRevokeRoleRequest, AuthUserRevokeRoleResponse,
            AuthenticateRequest, AuthenticateResponse, ResponseHeader, auth_server::Auth,
        },
    },
    translate::keys_of,
};
use crate::observe::audit::{Subject, changed_accounts, name_of};

/// The service.
#[derive(Clone, Debug)]
pub(super) struct AuthService(pub(super) Arc<Gateway>);

impl AuthService {
    /// Changes accounts as whoever asks.
    async fn change<T>(
        &self,
        request: Request<T>,
        command: impl FnOnce(T) -> Result<AuthCommand, EtcdFault>,
    ) -> Result<Option<ResponseHeader>, Status> {
        let (client, request) = self.0.admit(request).await?;
        let command = command(request)?;
        let telling = self.0.telling(&client, name_of(&command), || changed_accounts(&command));
        let changed = client.change_accounts(self.0.volume(), command);
        let changed = telling.watch(changed, |done| done.version).await;
        Ok(Some(self.0.header(changed.map_err(EtcdFault::from)?.version)))
    }

    /// The same with a new password, whose hash is only made for who may set it.
    async fn change_password(
        &self,
        client: &Client,
        password: Option<String>,
        command: impl Fn(Option<String>) -> AuthCommand,
    ) -> Result<Option<ResponseHeader>, Status> {
        let asked = command(None);
        let telling = self.0.telling(client, name_of(&asked), || changed_accounts(&asked));
        let changed = async {
            self.0.check_root(client).await?;
            let hash = match password {
                Some(password) => Some(self.0.accounts.hash(&password).await),
                None => None,
            };
            client.change_accounts(self.0.volume(), command(hash)).await
        };
        let changed = telling.watch(changed, |done| done.version).await;
        Ok(Some(self.0.header(changed.map_err(EtcdFault::from)?.version)))
    }

    async fn ask<T>(
        &self,
        request: Request<T>,
        query: impl FnOnce(T) -> AuthQuery,
    ) -> Result<(AuthView, Option<ResponseHeader>), Status> {
        let (client, request) = self.0.admit(request).await?;
        let asked = client.ask_accounts(self.0.volume(), query(request)).await;
        let (view, version): (AuthView, Version) = asked.map_err(EtcdFault::from)?;
        Ok((view, Some(self.0.header(version))))
    }

    async fn names<T>(
        &self,
        request: Request<T>,
        query: impl FnOnce(T) -> AuthQuery,
    ) -> Result<(Vec<String>, Option<ResponseHeader>), Status> {
        match self.ask(request, query).await? {
            (AuthView::Names(names), header) => Ok((names, header)),
            (other, _) => Err(strange(&other)),
        }
    }
}

fn strange(view: &AuthView) -> Status {
    let kind = match view {
        AuthView::Status { .. } => "a status",
        AuthView::Names(_) => "names",
        AuthView::Permissions(_) => "permissions",
        AuthView::Secret { .. } => "a hash",
    };
    Status::new(Code::Internal, format!("etcdserver: {kind} came instead"))
}

fn permission_of(permission: Option<authpb::Permission>) -> Result<Permission, EtcdFault> {
    let given = permission.ok_or_else(|| EtcdFault::from(&AuthError::PermissionMissing))?;
    let access = match given.perm_type() {
        Type::Read => Access::Read,
        Type::Write => Access::Write,
        Type::Readwrite => Access::ReadWrite,
    };
    if given.key.is_empty() {
        return Err(EtcdFault::from(&AuthError::InvalidManagement));
    }
    Ok(Permission { access, keys: keys_of(&given.key, &given.range_end) })
}

/// The beginning of all keys, as etcd writes it.
fn shown_from(from: Vec<u8>) -> Vec<u8> {
    if from.is_empty() { vec![0] } else { from }
}

fn shown(permission: Permission) -> authpb::Permission {
    let perm_type = match permission.access {
        Access::Read => Type::Read,
        Access::Write => Type::Write,
        Access::ReadWrite => Type::Readwrite,
    };
    let (key, range_end) = match permission.keys {
        Keys::One(key) => (key, Vec::new()),
        Keys::Range { from, to } if to.is_empty() => (shown_from(from), vec![0]),
        Keys::Range { from, to } => (shown_from(from), to),
    };
    authpb::Permission { perm_type: perm_type.into(), key, range_end }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Auth for AuthService {
    async fn auth_enable(&self, request: Request<AuthEnableRequest>) -> Answer<AuthEnableResponse> {
        let header = self.change(request, |_| Ok(AuthCommand::Enable)).await?;
        Ok(Response::new(AuthEnableResponse { header }))
    }

    async fn auth_disable(
        &self,
        request: Request<AuthDisableRequest>,
    ) -> Answer<AuthDisableResponse> {
        let header = self.change(request, |_| Ok(AuthCommand::Disable)).await?;
        Ok(Response::new(AuthDisableResponse { header }))
    }

    async fn auth_status(&self, request: Request<AuthStatusRequest>) -> Answer<AuthStatusResponse> {
        match self.ask(request, |_| AuthQuery::Status).await? {
            (AuthView::Status { enabled, revision }, header) => {
                Ok(Response::new(AuthStatusResponse { header, enabled, auth_revision: revision }))
            }
            (other, _) => Err(strange(&other)),
        }
    }

    async fn authenticate(
        &self,
        request: Request<AuthenticateRequest>,
    ) -> Answer<AuthenticateResponse> {
        let AuthenticateRequest { name, password } = request.into_inner();
        let telling = self.0.telling(&self.0.client, "authenticate", || vec![Subject::user(&name)]);
        let token = self.0.accounts.authenticate(&name, &password);
        let now = Version(self.0.header_now().revision.cast_unsigned());
        let token = telling.watch(token, |_| now).await;
        let (token, header) = (token.map_err(EtcdFault::from)?, Some(self.0.header_now()));
        Ok(Response::new(AuthenticateResponse { header, token }))
    }

    async fn user_add(&self, request: Request<AuthUserAddRequest>) -> Answer<AuthUserAddResponse> {
        let (client, request) = self.0.admit(request).await?;
        let AuthUserAddRequest { name, password, options, .. } = request;
        let none = options.is_some_and(|options| options.no_password);
        let add = |hash| AuthCommand::AddUser { name: name.clone(), hash };
        let header = self.change_password(&client, (!none).then_some(password), add).await?;
        Ok(Response::new(AuthUserAddResponse { header }))
    }

    async fn user_get(&self, request: Request<AuthUserGetRequest>) -> Answer<AuthUserGetResponse> {
        let (roles, header) = self.names(request, |user| AuthQuery::User(user.name)).await?;
        Ok(self.0.with_room(AuthUserGetResponse { header, roles })?)
    }

    async fn user_list(
        &self,
        request: Request<AuthUserListRequest>,
    ) -> Answer<AuthUserListResponse> {
        let (users, header) = self.names(request, |_| AuthQuery::Users).await?;
        Ok(self.0.with_room(AuthUserListResponse { header, users })?)
    }

    async fn user_delete(
        &self,
        request: Request<AuthUserDeleteRequest>,
    ) -> Answer<AuthUserDeleteResponse> {
        let delete = |user: AuthUserDeleteRequest| Ok(AuthCommand::DeleteUser(user.name));
        let header = self.change(request, delete).await?;
        Ok(Response::new(AuthUserDeleteResponse { header }))
    }

    async fn user_change_password(
        &self,
        request: Request<AuthUserChangePasswordRequest>,
    ) -> Answer<AuthUserChangePasswordResponse> {
        let (client, request) = self.0.admit(request).await?;
        let AuthUserChangePasswordRequest { name, password, .. } = request;
        let change = |hash: Option<String>| AuthCommand::ChangePassword {
            name: name.clone(),
            hash: hash.unwrap_or_default(),
        };
        let header = self.change_password(&client, Some(password), change).await?;
        Ok(Response::new(AuthUserChangePasswordResponse { header }))
    }

    async fn user_grant_role(
        &self,
        request: Request<AuthUserGrantRoleRequest>,
    ) -> Answer<AuthUserGrantRoleResponse> {
        let grant =
            |AuthUserGrantRoleRequest { user, role }| Ok(AuthCommand::GrantRole { user, role });
        let header = self.change(request, grant).await?;
        Ok(Response::new(AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<AuthUserRevokeRoleRequest>,
    ) -> Answer<AuthUserRevokeRoleResponse> {
        let revoke = |AuthUserRevokeRoleRequest { name, role }| {
            Ok(AuthCommand::RevokeRole { user: name, role })
        };
        let header = self.change(request, revoke).await?;
        Ok(Response::new(AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(&self, request: Request<AuthRoleAddRequest>) -> Answer<AuthRoleAddResponse> {
        let add = |role: AuthRoleAddRequest| Ok(AuthCommand::AddRole(role.name));
        let header = self.change(request, add).await?;
        Ok(Response::new(AuthRoleAddResponse { header }))
    }

    async fn role_get(&self, request: Request<AuthRoleGetRequest>) -> Answer<AuthRoleGetResponse> {
        let root = request.get_ref().role == ROOT;
        match self.ask(request, |role| AuthQuery::Role(role.role)).await? {
            (AuthView::Permissions(permissions), header) => {
                let mut perm: Vec<_> = permissions.into_iter().map(shown).collect();
                // What root holds nobody granted: etcd shows it without a key.
                for all in perm.iter_mut().filter(|perm| root && perm.key == [0]) {
                    all.key.clear();
                }
                Ok(self.0.with_room(AuthRoleGetResponse { header, perm })?)
            }
            (other, _) => Err(strange(&other)),
        }
    }

    async fn role_list(
        &self,
        request: Request<AuthRoleListRequest>,
    ) -> Answer<AuthRoleListResponse> {
        let (roles, header) = self.names(request, |_| AuthQuery::Roles).await?;
        Ok(self.0.with_room(AuthRoleListResponse { header, roles })?)
    }

    async fn role_delete(
        &self,
        request: Request<AuthRoleDeleteRequest>,
    ) -> Answer<AuthRoleDeleteResponse> {
        let delete = |role: AuthRoleDeleteRequest| Ok(AuthCommand::DeleteRole(role.role));
        let header = self.change(request, delete).await?;
        Ok(Response::new(AuthRoleDeleteResponse { header }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<AuthRoleGrantPermissionRequest>,
    ) -> Answer<AuthRoleGrantPermissionResponse> {
        let grant = |AuthRoleGrantPermissionRequest { name, perm }| {
            let permission = permission_of(perm)?;
            Ok(AuthCommand::GrantPermission { role: name, permission })
        };
        let header = self.change(request, grant).await?;
        Ok(Response::new(AuthRoleGrantPermissionResponse { header }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<AuthRoleRevokePermissionRequest>,
    ) -> Answer<AuthRoleRevokePermissionResponse> {
        let revoke = |request: AuthRoleRevokePermissionRequest| {
            let keys = keys_of(&request.key, &request.range_end);
            Ok(AuthCommand::RevokePermission { role: request.role, keys })
        };
        let header = self.change(request, revoke).await?;
        Ok(Response::new(AuthRoleRevokePermissionResponse { header }))
    }
}
