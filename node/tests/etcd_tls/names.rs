//! The name in a client's certificate is the user that asks, as at a real etcd.

use clusterdb::doors::etcd::proto::{
    authpb::{Permission, UserAddOptions, permission::Type},
    etcdserverpb::{
        AuthEnableRequest, AuthRoleAddRequest, AuthRoleGrantPermissionRequest, AuthUserAddRequest,
        AuthUserGrantRoleRequest, AuthenticateRequest, RangeRequest, auth_client::AuthClient,
        kv_client::KvClient,
    },
};
use tonic::{Request, Response, Status, transport::Channel};

use super::{
    Door, NAMES,
    doors::{connect, get, put},
    endpoint, made,
    need::missing,
    real_etcd::RealEtcd,
};

/// Users, roles and keys: Ann, who has no password, may use `app/…`.
async fn prepare(root: Channel) {
    let (mut auth, mut kv) = (AuthClient::new(root.clone()), KvClient::new(root));
    for (name, password) in [("root", "of root"), ("ann", "")] {
        let options = password.is_empty().then_some(UserAddOptions { no_password: true });
        let user = AuthUserAddRequest {
            name: name.into(),
            password: password.into(),
            options,
            ..AuthUserAddRequest::default()
        };
        auth.user_add(user).await.unwrap();
        auth.role_add(AuthRoleAddRequest { name: name.into() }).await.unwrap();
        let grant = AuthUserGrantRoleRequest { user: name.into(), role: name.into() };
        auth.user_grant_role(grant).await.unwrap();
    }
    let (perm_type, key, range_end) = (Type::Readwrite as i32, b"app/".to_vec(), b"app0".to_vec());
    let perm = Some(Permission { perm_type, key, range_end });
    let grant = AuthRoleGrantPermissionRequest { name: "ann".into(), perm };
    auth.role_grant_permission(grant).await.unwrap();
    kv.put(put("hidden", vec![1])).await.unwrap();
    auth.auth_enable(AuthEnableRequest {}).await.unwrap();
}

fn told<T>(answer: Result<Response<T>, Status>) -> String {
    answer.map_or_else(|no| format!("{:?}: {}", no.code(), no.message()), |_| "done".to_owned())
}

/// What somebody is answered who also sends a token, or none.
async fn ask(channel: &Channel, token: Option<&str>) -> Vec<String> {
    let mut kv = KvClient::new(channel.clone());
    let own: RangeRequest = RangeRequest { serializable: true, ..get("hidden", "") };
    vec![
        told(kv.put(with(token, put("app/1", vec![1]))).await),
        told(kv.range(with(token, get("app/", "app0"))).await),
        told(kv.put(with(token, put("hidden", vec![2]))).await),
        told(kv.range(with(token, get("hidden", ""))).await),
        told(kv.range(with(token, own)).await),
    ]
}

fn with<T>(token: Option<&str>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert("token", token.parse().unwrap());
    }
    request
}

/// All that is asked of one who knows the certificates of [`NAMES`]; each with what
/// was answered.
async fn play(channels: [Channel; 3]) -> Vec<(String, Vec<String>)> {
    prepare(channels[0].clone()).await;
    let mut auth = AuthClient::new(channels[2].clone());
    let root = AuthenticateRequest { name: "root".into(), password: "of root".into() };
    let token = auth.authenticate(root).await.unwrap().into_inner().token;
    let mut answers = Vec::new();
    for (name, channel) in NAMES.into_iter().zip(&channels) {
        answers.push((name.to_owned(), ask(channel, None).await));
        answers.push((format!("{name}, token of root"), ask(channel, Some(&token)).await));
        answers.push((format!("{name}, strange token"), ask(channel, Some("strange.1")).await));
    }
    answers
}

/// Everybody who comes, over connections that show their certificates.
async fn everybody(of: impl Fn(&str) -> tonic::transport::Endpoint) -> [Channel; 3] {
    let [root, ann, bob] = NAMES.map(of).map(connect);
    [root.await, ann.await, bob.await]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_in_a_certificate_is_the_user_that_asks_as_at_a_real_etcd() {
    let door = Door::open(true).await;
    let ours = play(everybody(|name| door.endpoint(Some(name))).await).await;
    let denied = || "PermissionDenied: etcdserver: permission denied".to_owned();
    let ann = &ours.iter().find(|(who, _)| who == "ann").unwrap().1;
    assert_eq!(ann[..2], ["done", "done"].map(str::to_owned));
    assert_eq!(ann[2..], [denied(), denied(), denied()]);
    let by_token = |(who, _): &&(String, Vec<String>)| who.ends_with("token of root");
    for (who, answers) in ours.iter().filter(by_token) {
        assert!(answers.iter().all(|answer| answer == "done"), "{who}: {answers:?}");
    }

    let anonymous = connect(door.endpoint(None)).await;
    let guess = AuthenticateRequest { name: "ann".into(), password: "guessed".into() };
    let refused = told(AuthClient::new(anonymous.clone()).authenticate(guess).await);
    assert!(refused.ends_with("authentication failed, invalid user ID or password"), "{refused}");
    let nobody = ask(&anonymous, None).await;
    assert!(nobody.iter().all(|said| said.ends_with("user name is empty")), "{nobody:?}");
    let stranger = made(&door.folder, "root2");
    let stranger = endpoint(door.address, &door.shows, Some(&stranger));
    let refused = match stranger.connect().await {
        Ok(channel) => KvClient::new(channel).range(get("app/1", "")).await.is_err(),
        Err(_) => true,
    };
    assert!(refused, "a certificate nobody vouches for is none, and no anonymous caller either");
    compare(&door, &ours).await;
}

/// The same of a real etcd, if there is one.
async fn compare(door: &Door, ours: &[(String, Vec<String>)]) {
    if !RealEtcd::is_installed() {
        missing("etcd");
        return;
    }
    let [certificate, key] = door.shows.files.each_ref().map(|file| file.display());
    let clients = door.folder.path().join("clients.pem");
    let arguments = [
        format!("--cert-file={certificate}"),
        format!("--key-file={key}"),
        format!("--trusted-ca-file={}", clients.display()),
        "--client-cert-auth".to_owned(),
    ];
    let etcd = RealEtcd::start_with(1, "https", &arguments);
    let at = |name: &str| endpoint(etcd.addresses[0], &door.shows, Some(door.known(name)));
    let begun = std::time::Instant::now();
    while KvClient::new(connect(at(NAMES[0])).await).range(get("a", "")).await.is_err() {
        assert!(begun.elapsed() < super::common::LONG, "etcd does not serve");
    }
    let theirs = play(everybody(at).await).await;
    for (theirs, ours) in theirs.iter().zip(ours) {
        assert_eq!(theirs, ours, "etcd, and here");
    }
    assert_eq!(theirs.len(), ours.len());
}
