//! Users, roles, locks and elections at the etcd door, asked by etcdctl and by a
//! client of the services; and the same script against a real etcd, if there is
//! one, answer by answer.
#![cfg(feature = "etcd")]
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking and waits on the machine's own clock"
)]

mod common;
#[path = "common/need.rs"]
mod need;
#[path = "common/real_etcd.rs"]
mod real_etcd;

use std::{net::SocketAddr, process::Command, time::Duration};

use clusterdb::doors::etcd::proto::{
    etcdserverpb::{
        AuthEnableRequest, AuthRoleGrantPermissionRequest, AuthUserAddRequest,
        AuthUserGrantRoleRequest, AuthenticateRequest, LeaseGrantRequest, MemberListRequest,
        PutRequest, auth_client::AuthClient, cluster_client::ClusterClient, kv_client::KvClient,
        lease_client::LeaseClient,
    },
    v3electionpb::{
        CampaignRequest, LeaderRequest, LeaderResponse, ProclaimRequest, ResignRequest,
        election_client::ElectionClient,
    },
    v3lockpb::{LockRequest, UnlockRequest, lock_client::LockClient},
};
use common::{Cluster, LONG, Ports, until};
use need::missing;
use real_etcd::{RealEtcd, has};
use tonic::{Request, Streaming, transport::Channel};

/// A node with an open etcd door.
struct Door {
    _cluster: Cluster,
    _ports: Ports,
    _folder: tempfile::TempDir,
    address: SocketAddr,
}

/// Starts it. From the test's own thread: a node ends with the thread that started it.
fn door() -> Door {
    let folder = tempfile::tempdir().unwrap();
    let ports = Ports::take();
    let address = ports.of(1).0;
    let extra = format!("doors:\n  etcd:\n    listen: {address}\n    replicas: 1\n");
    let mut cluster = Cluster::prepare(folder.path(), 1, &extra);
    cluster.found();
    Door { _cluster: cluster, _ports: ports, _folder: folder, address }
}

/// What a call of etcdctl prints, or its error.
fn etcdctl(address: SocketAddr, user: &str, words: &str) -> String {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints", &address.to_string()]);
    if !user.is_empty() {
        command.args(["--user", user]);
    }
    let output = command.args(words.split(' ').map(|word| word.replace('_', ""))).output().unwrap();
    if output.status.success() {
        return String::from_utf8_lossy(&output.stdout).into_owned();
    }
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    errors.lines().rfind(|line| line.starts_with("Error: ")).unwrap_or(&errors).to_owned()
}

/// Who asks, what, and what the answer holds. An underscore stands for an empty word.
const SCRIPT: &[(&str, &str, &str)] = &[
    ("", "auth enable", "Error: etcdserver: root user does not exist"),
    ("", "user add root:rootpw", "User root created"),
    ("", "user add root:rootpw", "Error: etcdserver: user name already exists"),
    ("", "user add ann:annpw", "User ann created"),
    ("", "role add app", "Role app created"),
    ("", "role add app", "Error: etcdserver: role name already exists"),
    ("", "role grant-permission --prefix app readwrite app/", "Role app updated"),
    ("", "role grant-permission app read seen", "Role app updated"),
    ("", "role grant-permission none read seen", "Error: etcdserver: role name not found"),
    ("", "role add all", "Role all created"),
    ("", "role grant-permission all read --prefix _", "Role all updated"),
    ("", "role get all", "<open ended>"),
    ("", "role revoke-permission all --prefix _", "is revoked from role all"),
    ("", "role revoke-permission app seen seem", "permission is not granted to the role"),
    ("", "user grant-role ann none", "Error: etcdserver: role name not found"),
    ("", "user grant-role ann app", "Role app is granted to user ann"),
    ("", "user revoke-role ann none", "Error: etcdserver: role is not granted to the user"),
    ("", "put seen 1", "OK"),
    ("", "put hidden 1", "OK"),
    ("ann:annpw", "put app/1 x", ""),
    ("", "auth enable", "Authentication Enabled"),
    ("", "get app/1", "Error: etcdserver: user name is empty"),
    ("", "user list", "Error: etcdserver: user name is empty"),
    ("", "lease grant 60", "etcdserver: user name is empty"),
    ("ann:wrong", "get app/1", "authentication failed, invalid user ID or password"),
    ("bob:annpw", "get app/1", "authentication failed, invalid user ID or password"),
    ("ann:annpw", "put app/1 one", "OK"),
    ("ann:annpw", "put app/1 two --prev-kv", "one"),
    ("ann:annpw", "get app/1", "two"),
    ("ann:annpw", "get seen", "1"),
    ("ann:annpw", "put seen 2", "Error: etcdserver: permission denied"),
    ("ann:annpw", "get hidden", "Error: etcdserver: permission denied"),
    ("ann:annpw", "get --prefix _", "Error: etcdserver: permission denied"),
    ("ann:annpw", "get --prefix app/", "two"),
    ("ann:annpw", "get --prefix app", "Error: etcdserver: permission denied"),
    ("ann:annpw", "del --prefix app/ --prev-kv", "two"),
    ("ann:annpw", "del hidden", "Error: etcdserver: permission denied"),
    ("ann:annpw", "user list", "Error: etcdserver: permission denied"),
    ("ann:annpw", "user get ann", "Roles: app"),
    ("ann:annpw", "user get root", "Error: etcdserver: permission denied"),
    ("ann:annpw", "role get app", "[app/, app0) (prefix app/)"),
    ("ann:annpw", "role get other", "Error: etcdserver: permission denied"),
    ("ann:annpw", "auth disable", "Error: etcdserver: permission denied"),
    ("root:rootpw", "user delete root", "Error: etcdserver: invalid auth management"),
    ("root:rootpw", "user revoke-role root root", "Error: etcdserver: invalid auth management"),
    ("root:rootpw", "role delete root", "Error: etcdserver: invalid auth management"),
    ("root:rootpw", "user list", "ann\nroot"),
    ("root:rootpw", "role list", "app\nroot"),
    ("root:rootpw", "role get root", "[, <open ended>"),
    ("root:rootpw", "get hidden", "1"),
    ("root:rootpw", "role revoke-permission app seen", "Permission of key seen is revoked"),
    ("ann:annpw", "get seen", "Error: etcdserver: permission denied"),
    ("root:rootpw", "role delete app", "Role app deleted"),
    ("ann:annpw", "get app/1", "Error: etcdserver: permission denied"),
    ("root:rootpw", "user delete ann", "User ann deleted"),
    ("ann:annpw", "get app/1", "authentication failed, invalid user ID or password"),
    ("root:rootpw", "user get ann", "Error: etcdserver: user name not found"),
    ("root:rootpw", "role get app", "Error: etcdserver: role name not found"),
    ("root:rootpw", "auth disable", "Authentication Disabled"),
    ("", "get hidden", "1"),
];

/// Steps that Debian's etcd 3.4 answers otherwise than newer ones: it lets strangers
/// grant leases, and shows no permission of the role root.
const NEWER: &[&str] = &["lease grant 60", "role get root"];

#[test]
fn etcdctl_is_answered_about_users_as_by_a_real_etcd() {
    if !has("etcdctl", "version") {
        return missing("etcdctl");
    }
    let door = door();
    let etcd = RealEtcd::is_installed().then(|| RealEtcd::start(1));
    if etcd.is_none() {
        missing("etcd");
    }
    let theirs = etcd.as_ref().map(|etcd| etcd.addresses[0]);
    for address in [Some(door.address), theirs].into_iter().flatten() {
        until("an answer", LONG, || etcdctl(address, "", "get nothing").is_empty().then_some(()));
    }
    let mut wrong = Vec::new();
    for (user, words, wanted) in SCRIPT {
        let ours = etcdctl(door.address, user, words);
        if !ours.contains(wanted) {
            wrong.push(format!("{user} {words}: {ours}"));
        }
        if let Some(theirs) = theirs.filter(|_| !NEWER.contains(words)) {
            let theirs = etcdctl(theirs, user, words);
            if ours != theirs {
                wrong.push(format!("{user} {words}: {ours} and etcd {theirs}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

async fn connect(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// A client that repeats a request under its lease stands in the place of the first
/// one: whatever becomes of that one, two must not hold and none must lose its turn.
#[tokio::test]
async fn who_gives_up_a_lock_leaves_the_place_to_its_own_retry() {
    let door = door();
    let channel = connect(door.address).await;
    let (mut locks, mut leases) = (LockClient::new(channel.clone()), LeaseClient::new(channel));
    let ttl = LeaseGrantRequest { ttl: 60, id: 0 };
    let lease = loop {
        match leases.lease_grant(ttl).await {
            Ok(granted) => break granted.into_inner().id,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    let lock = |lease| LockRequest { name: b"r".to_vec(), lease };
    let first = locks.lock(lock(0)).await.unwrap().into_inner();
    let waiting = locks.clone();
    let begin = |lease| {
        let mut locks = waiting.clone();
        tokio::spawn(async move { locks.lock(lock(lease)).await })
    };
    let given_up = begin(lease);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let retry = begin(lease);
    tokio::time::sleep(Duration::from_millis(500)).await;
    given_up.abort();
    tokio::time::sleep(Duration::from_millis(500)).await;
    locks.unlock(UnlockRequest { key: first.key }).await.unwrap();
    let held = tokio::time::timeout(LONG, retry).await.unwrap().unwrap().unwrap().into_inner();
    let third = begin(0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!third.is_finished(), "somebody holds");
    locks.unlock(UnlockRequest { key: held.key }).await.unwrap();
    tokio::time::timeout(LONG, third).await.unwrap().unwrap().unwrap();
}

/// What the leader says whom an observer is told of next.
async fn value_told(told: &mut Streaming<LeaderResponse>) -> Vec<u8> {
    let leader = tokio::time::timeout(LONG, told.message()).await.unwrap().unwrap().unwrap();
    leader.kv.unwrap().value
}

#[tokio::test]
async fn locks_are_queues_and_leaders_are_told_of() {
    let door = door();
    let channel = connect(door.address).await;
    let mut locks = LockClient::new(channel.clone());
    let lock = || LockRequest { name: b"l".to_vec(), lease: 0 };
    // The volume is made while this is asked.
    let first = loop {
        match locks.lock(lock()).await {
            Ok(held) => break held.into_inner(),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    assert!(first.key.starts_with(b"l/"), "{first:?}");
    let mut other = locks.clone();
    let second = tokio::spawn(async move { other.lock(lock()).await });
    let mut third = locks.clone();
    let given_up = tokio::time::timeout(Duration::from_millis(500), third.lock(lock())).await;
    assert!(given_up.is_err() && !second.is_finished(), "it is held");
    locks.unlock(UnlockRequest { key: first.key }).await.unwrap();
    let second = tokio::time::timeout(LONG, second).await.unwrap().unwrap().unwrap().into_inner();
    locks.unlock(UnlockRequest { key: second.key }).await.unwrap();
    // Who gave up left the queue, long before its lease ends.
    let third = tokio::time::timeout(Duration::from_secs(10), locks.lock(lock())).await;
    third.unwrap().unwrap();
    let none = locks.lock(LockRequest { name: b"m".to_vec(), lease: 77 }).await.unwrap_err();
    assert_eq!(none.message(), "etcdserver: requested lease not found");

    let mut elections = ElectionClient::new(channel);
    let name = || b"e".to_vec();
    let none = elections.leader(LeaderRequest { name: name() }).await.unwrap_err();
    assert_eq!(none.message(), "election: no leader");
    let mut told = elections.observe(LeaderRequest { name: name() }).await.unwrap().into_inner();
    let campaign = |value: &str| CampaignRequest { name: name(), lease: 0, value: value.into() };
    let won = elections.campaign(campaign("one")).await.unwrap().into_inner();
    let leader = won.leader.unwrap();
    // Read before there is another one: an observer is told of whoever leads when it looks.
    assert_eq!(value_told(&mut told).await, b"one");
    let mut next = elections.clone();
    let waiting = tokio::spawn({
        let two = campaign("two");
        async move { next.campaign(two).await }
    });
    let say = ProclaimRequest { leader: Some(leader.clone()), value: b"more".to_vec() };
    elections.proclaim(say.clone()).await.unwrap();
    let seen = elections.leader(LeaderRequest { name: name() }).await.unwrap().into_inner();
    assert_eq!(seen.kv.unwrap().value, b"more");
    assert_eq!(value_told(&mut told).await, b"more");
    assert!(!waiting.is_finished());
    elections.resign(ResignRequest { leader: Some(leader) }).await.unwrap();
    let second = tokio::time::timeout(LONG, waiting).await.unwrap().unwrap().unwrap();
    assert!(second.into_inner().leader.unwrap().rev > seen.header.unwrap().revision - 10);
    let late = elections.proclaim(say).await.unwrap_err();
    assert_eq!(late.message(), "election: not leader");
    assert_eq!(value_told(&mut told).await, b"two");
    let none = elections.resign(ResignRequest { leader: None }).await.unwrap_err();
    assert_eq!(none.message(), "\"leader\" field must be provided");
}

#[tokio::test]
async fn a_token_stands_for_its_user_until_the_password_changes() {
    let door = door();
    let channel = connect(door.address).await;
    let (mut auth, mut kv) = (AuthClient::new(channel.clone()), KvClient::new(channel.clone()));
    let user = |name: &str| AuthUserAddRequest {
        name: name.into(),
        password: "pw".into(),
        ..Default::default()
    };
    // The volume is made while this is asked, and a first answer may be lost.
    while let Err(status) = auth.user_add(user("root")).await
        && status.message() != "etcdserver: user name already exists"
    {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let root = AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() };
    auth.user_grant_role(root).await.unwrap();
    let none = AuthRoleGrantPermissionRequest { name: "r".into(), perm: None };
    let missing = auth.role_grant_permission(none).await.unwrap_err();
    assert_eq!(missing.message(), "etcdserver: permission not given");
    let show =
        |password: &str| AuthenticateRequest { name: "root".into(), password: password.into() };
    let off = auth.authenticate(show("pw")).await.unwrap_err();
    assert_eq!(off.message(), "etcdserver: authentication is not enabled");
    auth.auth_enable(AuthEnableRequest {}).await.unwrap();
    let list = MemberListRequest { linearizable: true };
    let stranger = ClusterClient::new(channel).member_list(list).await.unwrap_err();
    assert_eq!(stranger.message(), "etcdserver: user name is empty");
    let token = auth.authenticate(show("pw")).await.unwrap().into_inner().token;
    let with = |token: &str| {
        let put = PutRequest { key: b"k".to_vec(), value: b"v".to_vec(), ..Default::default() };
        let mut request = Request::new(put);
        request.metadata_mut().insert("token", token.parse().unwrap());
        request
    };
    kv.put(with(&token)).await.unwrap();
    let strange = kv.put(with("strange")).await.unwrap_err();
    assert_eq!(
        (strange.code(), strange.message()),
        (tonic::Code::Unauthenticated, "etcdserver: invalid auth token")
    );
    let mut change =
        Request::new(clusterdb::doors::etcd::proto::etcdserverpb::AuthUserChangePasswordRequest {
            name: "root".into(),
            password: "new".into(),
            ..Default::default()
        });
    change.metadata_mut().insert("token", token.parse().unwrap());
    auth.user_change_password(change).await.unwrap();
    assert_eq!(kv.put(with(&token)).await.unwrap_err().code(), tonic::Code::Unauthenticated);
    auth.authenticate(show("pw")).await.unwrap_err();
    let token = auth.authenticate(show("new")).await.unwrap().into_inner().token;
    kv.put(with(&token)).await.unwrap();
}
