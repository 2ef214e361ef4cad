//! Tokens of accounts hold at every member: Go's client balances each call over all its
//! endpoints, and shows its password to one of them.
#![cfg(feature = "etcd")]
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking and waits on the machine's own clock"
)]

mod common;
#[path = "common/doors.rs"]
mod doors;
#[path = "common/web.rs"]
mod web;

use clusterdb::doors::etcd::proto::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthUserAddRequest, AuthUserChangePasswordRequest,
    AuthUserDeleteRequest, AuthUserGrantRoleRequest, AuthenticateRequest, MemberListRequest,
    auth_client::AuthClient, cluster_client::ClusterClient, kv_client::KvClient,
};
use doors::{Doors, put};
use tonic::{Request, Status, transport::Channel};

const INVALID: &str = "etcdserver: invalid auth token";

fn with<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("token", token.parse().unwrap());
    request
}

/// What is said of a token at a member: by gRPC if it reads and writes, and by JSON.
async fn ask(doors: &Doors, number: usize, token: &str) -> [String; 3] {
    let channel = doors.channel(number).await;
    let told = |answer: Result<(), Status>| match answer {
        Ok(()) => "done".to_owned(),
        Err(status) => status.message().to_owned(),
    };
    let wrote = KvClient::new(channel.clone()).put(with(token, put("k", b"v".to_vec()))).await;
    let list = MemberListRequest { linearizable: true };
    let listed = ClusterClient::new(channel).member_list(with(token, list)).await;
    let (address, header) = (doors.addresses[number - 1], format!("Authorization: {token}\r\n"));
    let read = move || web::post(address, "/v3/kv/range", &header, r#"{"key":"aw=="}"#);
    let (status, body) = tokio::task::spawn_blocking(read).await.unwrap();
    let read = if status == 200 { "done".to_owned() } else { body };
    [told(wrote.map(drop)), told(listed.map(drop)), read]
}

/// Whether it holds at all members, or at none.
async fn everywhere(doors: &Doors, token: &str, holds: bool) {
    for number in 1..=3 {
        let said = ask(doors, number, token).await;
        let wanted = if holds { "done" } else { INVALID };
        assert!(said.iter().all(|said| said.contains(wanted)), "member {number}: {said:?}");
    }
}

async fn authenticate(auth: &mut AuthClient<Channel>, name: &str, password: &str) -> String {
    let shown = AuthenticateRequest { name: name.into(), password: password.into() };
    auth.authenticate(shown).await.unwrap().into_inner().token
}

/// Two users who may do everything.
async fn prepare(auth: &mut AuthClient<Channel>) {
    for name in ["root", "ann"] {
        let (name, password) = (name.to_owned(), format!("of {name}"));
        let user = AuthUserAddRequest { name: name.clone(), password, ..Default::default() };
        auth.user_add(user).await.unwrap();
        let role = "root".into();
        auth.user_grant_role(AuthUserGrantRoleRequest { user: name, role }).await.unwrap();
    }
    auth.auth_enable(AuthEnableRequest {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_holds_at_every_member_until_the_password_changes_or_its_user_goes() {
    let mut doors = Doors::open("    replicas: 3\n").serve().await;
    let mut auth = AuthClient::new(doors.channel(1).await);
    prepare(&mut auth).await;
    let ann = authenticate(&mut auth, "ann", "of ann").await;
    everywhere(&doors, &ann, true).await;

    // A byte more, another user's name, nothing of a token at all.
    let root = authenticate(&mut auth, "root", "of root").await;
    let of = |token: &str| token.split('.').map(str::to_owned).collect::<Vec<_>>();
    let mut swapped = of(&ann);
    swapped[1].clone_from(&of(&root)[1]);
    for strange in [format!("{ann}A"), swapped.join("."), "strange.1".to_owned()] {
        everywhere(&doors, &strange, false).await;
    }

    let change = AuthUserChangePasswordRequest {
        name: "ann".into(),
        password: "new".into(),
        ..Default::default()
    };
    auth.user_change_password(with(&root, change)).await.unwrap();
    everywhere(&doors, &ann, false).await;
    let mut third = AuthClient::new(doors.channel(3).await);
    let ann = authenticate(&mut third, "ann", "new").await;
    everywhere(&doors, &ann, true).await;

    // A member that begins anew remembers no token, and needs none shown again.
    doors.cluster.nodes[1].stop();
    doors.cluster.nodes[1].start(&[]);
    doors.cluster.nodes[1].wait_ready();
    everywhere(&doors, &ann, true).await;

    auth.user_delete(with(&root, AuthUserDeleteRequest { name: "ann".into() })).await.unwrap();
    everywhere(&doors, &ann, false).await;
    everywhere(&doors, &root, true).await;
    auth.auth_disable(with(&root, AuthDisableRequest {})).await.unwrap();
    everywhere(&doors, "strange.1", true).await;
    auth.auth_enable(AuthEnableRequest {}).await.unwrap();
    everywhere(&doors, &root, false).await;
}
