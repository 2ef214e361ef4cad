//! Every request, as somebody without the right to it.
//!
//! Ann may read and write `app/…`, read `seen` and write `drop`; `hidden` is not hers. A
//! stranger has no token. Whether something was refused, and how, is what is compared.

use std::net::SocketAddr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clusterdb::doors::etcd::proto::{
    authpb::{Permission, permission::Type},
    etcdserverpb::{
        AlarmRequest, AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest,
        AuthRoleDeleteRequest, AuthRoleGetRequest, AuthRoleGrantPermissionRequest,
        AuthRoleListRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest,
        AuthUserChangePasswordRequest, AuthUserDeleteRequest, AuthUserGetRequest,
        AuthUserGrantRoleRequest, AuthUserListRequest, AuthUserRevokeRoleRequest,
        AuthenticateRequest, CompactionRequest, Compare, DefragmentRequest, DeleteRangeRequest,
        HashKvRequest, HashRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest,
        LeaseRevokeRequest, LeaseTimeToLiveRequest, MemberAddRequest, MemberListRequest,
        MemberPromoteRequest, MemberRemoveRequest, MemberUpdateRequest, MoveLeaderRequest,
        PutRequest, SnapshotRequest, StatusRequest, TxnRequest, WatchCreateRequest, WatchRequest,
        auth_client::AuthClient, request_op::Request as Op, watch_request::RequestUnion,
    },
    v3electionpb::{
        CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest,
        election_client::ElectionClient,
    },
    v3lockpb::{LockRequest, UnlockRequest, lock_client::LockClient},
};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::time::timeout;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Endpoint},
};

use crate::{
    keys::{get, op, put},
    play::{ANSWER, Answers, Play, told},
    web,
};

/// The leases: under each hangs the key of that name.
const UNDER_HIDDEN: i64 = 7;
const UNDER_APP: i64 = 8;
const UNDER_SEEN: i64 = 9;

/// Somebody, and what was answered.
struct Caller {
    name: &'static str,
    token: String,
    play: Play,
    auth: AuthClient<Channel>,
    lock: LockClient<Channel>,
    election: ElectionClient<Channel>,
}

impl Caller {
    async fn new(address: &str, name: &'static str, password: &str) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let channel = endpoint.timeout(ANSWER).connect().await.unwrap();
        let mut auth = AuthClient::new(channel.clone());
        let token = if password.is_empty() {
            String::new()
        } else {
            let who = AuthenticateRequest { name: name.into(), password: password.into() };
            auth.authenticate(who).await.unwrap().into_inner().token
        };
        let (lock, election) = (LockClient::new(channel.clone()), ElectionClient::new(channel));
        Self { name, token, play: Play::begin(address).await, auth, lock, election }
    }

    /// A request of this caller.
    fn asks<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if !self.token.is_empty() {
            request.metadata_mut().insert("token", self.token.parse().unwrap());
        }
        request
    }

    fn say(&mut self, step: &str, answer: &str) {
        let step = format!("{}: {step}", self.name);
        self.play.answers.push((step, answer.to_owned()));
    }

    fn note<T>(&mut self, step: &str, answer: Result<Response<T>, Status>) {
        let answer = answer.map_or_else(|status| told(&status), |_| "done".to_owned());
        self.say(step, &answer);
    }

    /// The first message of a stream.
    async fn note_stream<T>(&mut self, step: &str, answer: Result<Response<Streaming<T>>, Status>) {
        let first = match answer {
            Err(status) => Err(status),
            Ok(answer) => match timeout(ANSWER, answer.into_inner().message()).await {
                Ok(Ok(Some(first))) => Ok(Response::new(first)),
                Ok(Ok(None)) => return self.say(step, "ends"),
                Ok(Err(status)) => Err(status),
                Err(_) => Err(Status::unknown("nothing came")),
            },
        };
        self.note(step, first);
    }
}

/// Asks one method of a service; the answer is noted.
macro_rules! ask {
    ($caller:ident, $service:ident.$method:ident, $step:expr, $message:expr) => {
        let request = $caller.asks($message);
        let answer = $caller.$service.$method(request).await;
        $caller.note($step, answer);
    };
    ($caller:ident, play.$service:ident.$method:ident, $step:expr, $message:expr) => {
        let request = $caller.asks($message);
        let answer = $caller.play.$service.$method(request).await;
        $caller.note($step, answer);
    };
}

/// All steps by gRPC.
pub(crate) async fn play(address: &str) -> Answers {
    prepare(address).await;
    let mut answers = Answers::new();
    for (name, password) in [("ann", "of ann"), ("a stranger", "")] {
        let mut caller = Caller::new(address, name, password).await;
        keys(&mut caller).await;
        leases(&mut caller).await;
        watches(&mut caller).await;
        queues(&mut caller).await;
        members(&mut caller).await;
        accounts(&mut caller).await;
        roles(&mut caller).await;
        let (name, token, at) = (caller.name, caller.token.clone(), address.parse().unwrap());
        let by_json = tokio::task::spawn_blocking(move || in_json(at, name, &token));
        caller.play.answers.append(&mut by_json.await.unwrap());
        // What etcd lets happen here changes what follows.
        transactions(&mut caller).await;
        answers.append(&mut caller.play.answers);
    }
    loses_the_right(address, &mut answers).await;
    answers
}

fn permission(kind: Type, key: &str, end: &str) -> Permission {
    Permission { perm_type: kind as i32, key: key.into(), range_end: end.into() }
}

async fn prepare(address: &str) {
    let mut root = Caller::new(address, "root", "").await;
    for (id, key) in [(UNDER_HIDDEN, "hidden"), (UNDER_APP, "app/1"), (UNDER_SEEN, "seen")] {
        root.play.lease.lease_grant(LeaseGrantRequest { ttl: 600, id }).await.unwrap();
        root.play.kv.put(PutRequest { lease: id, ..put(key, "1") }).await.unwrap();
    }
    root.play.kv.put(put("drop", "1")).await.unwrap();
    for name in ["root", "ann"] {
        let user = AuthUserAddRequest {
            name: name.into(),
            password: format!("of {name}"),
            ..AuthUserAddRequest::default()
        };
        root.auth.user_add(user).await.unwrap();
        root.auth.role_add(AuthRoleAddRequest { name: name.into() }).await.unwrap();
    }
    for perm in [
        permission(Type::Readwrite, "app/", "app0"),
        permission(Type::Read, "seen", ""),
        permission(Type::Write, "drop", ""),
    ] {
        let grant = AuthRoleGrantPermissionRequest { name: "ann".into(), perm: Some(perm) };
        root.auth.role_grant_permission(grant).await.unwrap();
    }
    for name in ["root", "ann"] {
        let grant = AuthUserGrantRoleRequest { user: name.into(), role: name.into() };
        root.auth.user_grant_role(grant).await.unwrap();
    }
    root.auth.auth_enable(AuthEnableRequest {}).await.unwrap();
}

fn delete(key: &str, end: &str, prev_kv: bool) -> DeleteRangeRequest {
    DeleteRangeRequest { key: key.into(), range_end: end.into(), prev_kv }
}

async fn keys(caller: &mut Caller) {
    for (step, request) in [
        ("read a hidden key", get("hidden", "")),
        ("read what this member has of it", {
            let mut own = get("hidden", "");
            own.serializable = true;
            own
        }),
        ("count hidden keys", {
            let mut count = get("hidden", "hiddeo");
            count.count_only = true;
            count
        }),
        ("read what may be written", get("drop", "")),
        ("read more than is allowed", get("app/", "app1")),
        ("read all", get("\0", "\0")),
        ("read what is allowed", get("app/", "app0")),
    ] {
        ask!(caller, play.kv.range, step, request);
    }
    let shows = |key: &str| PutRequest { prev_kv: true, ..put(key, "2") };
    for (step, request) in [
        ("write a hidden key", put("hidden", "2")),
        ("write it and see what was there", shows("hidden")),
        ("write what may be read", put("seen", "2")),
        ("write what may be written", put("drop", "2")),
        ("see what was there without the right to read", shows("drop")),
        (
            "write under the lease of a hidden key",
            PutRequest { lease: UNDER_HIDDEN, ..put("app/2", "2") },
        ),
        ("write what is allowed", shows("app/2")),
    ] {
        ask!(caller, play.kv.put, step, request);
    }
    for (step, request) in [
        ("delete a hidden key", delete("hidden", "", false)),
        ("delete what may be read", delete("seen", "", false)),
        ("delete more than is allowed", delete("app/", "app1", false)),
        ("delete and see without the right to read", delete("drop", "", true)),
        ("delete what is allowed", delete("app/2", "", true)),
    ] {
        ask!(caller, play.kv.delete_range, step, request);
    }
    let compact = CompactionRequest { revision: 2, physical: false };
    ask!(caller, play.kv.compact, "compact", compact);
}

async fn transactions(caller: &mut Caller) {
    let of = |compare: Vec<Compare>, success: Vec<Op>, failure: Vec<Op>| {
        let ops = |ops: Vec<Op>| ops.into_iter().map(op).collect();
        TxnRequest { compare, success: ops(success), failure: ops(failure) }
    };
    let compares = |key: &str| vec![Compare { key: key.into(), ..Compare::default() }];
    let writes = |key: &str| vec![Op::RequestPut(put(key, "3"))];
    let reads = |key: &str| vec![Op::RequestRange(get(key, ""))];
    let none = Vec::new;
    let inner = |txn| vec![Op::RequestTxn(txn)];
    for (step, request) in [
        ("nothing at all", of(vec![], none(), none())),
        ("compare a hidden key", of(compares("hidden"), none(), none())),
        ("compare what may be written", of(compares("drop"), none(), none())),
        ("write a hidden key in one branch", of(compares("app/1"), writes("hidden"), none())),
        ("write it in the other", of(compares("app/1"), none(), writes("hidden"))),
        ("read a hidden key in one branch", of(compares("app/1"), reads("hidden"), none())),
        ("read it in the other", of(compares("app/1"), none(), reads("hidden"))),
        (
            "delete it in one",
            of(vec![], vec![Op::RequestDeleteRange(delete("hidden", "", false))], vec![]),
        ),
        ("write it inside", of(vec![], inner(of(vec![], writes("hidden"), none())), none())),
        ("compare it inside", of(vec![], inner(of(compares("hidden"), none(), none())), none())),
        (
            "write it inside the other",
            of(vec![], none(), inner(of(vec![], none(), writes("hidden")))),
        ),
        ("delete and see it in a transaction", {
            of(vec![], vec![Op::RequestDeleteRange(delete("drop", "", true))], vec![])
        }),
        ("see in a transaction what was there", {
            let shows = PutRequest { prev_kv: true, ..put("drop", "3") };
            of(vec![], vec![Op::RequestPut(shows)], vec![])
        }),
        ("join the lease of a hidden key", {
            let joins = PutRequest { lease: UNDER_HIDDEN, ..put("app/3", "3") };
            of(vec![], vec![Op::RequestPut(joins)], vec![])
        }),
        ("a transaction that is allowed", of(compares("seen"), writes("app/4"), writes("app/4"))),
    ] {
        ask!(caller, play.kv.txn, step, request);
    }
}

async fn leases(caller: &mut Caller) {
    ask!(caller, play.lease.lease_grant, "grant a lease", LeaseGrantRequest { ttl: 60, id: 20 });
    for (of, id) in [("hidden", UNDER_HIDDEN), ("seen", UNDER_SEEN), ("allowed", UNDER_APP)] {
        for keys in [false, true] {
            let step = format!("show the lease of a key that is {of}, with keys: {keys}");
            let show = LeaseTimeToLiveRequest { id, keys };
            ask!(caller, play.lease.lease_time_to_live, &step, show);
        }
        let asked = caller.asks(stream::iter([LeaseKeepAliveRequest { id }]));
        let kept = caller.play.lease.lease_keep_alive(asked).await;
        let step = format!("keep the lease of a key alive that is {of}");
        caller.note_stream(&step, kept).await;
    }
    ask!(caller, play.lease.lease_leases, "list leases", LeaseLeasesRequest {});
    for (of, id) in [("hidden", UNDER_HIDDEN), ("seen", UNDER_SEEN), ("none", 20)] {
        let step = format!("revoke the lease of a key that is {of}");
        ask!(caller, play.lease.lease_revoke, &step, LeaseRevokeRequest { id });
    }
}

/// A watch, and what the first response says.
async fn watch(caller: &mut Caller, key: &str, end: &str) -> (String, Option<Watching>) {
    let create = WatchCreateRequest {
        key: key.into(),
        range_end: end.into(),
        ..WatchCreateRequest::default()
    };
    let first = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let asks = caller.asks(stream::iter([first]).chain(stream::pending()));
    let mut stream = match caller.play.watch.watch(asks).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => return (told(&status), None),
    };
    let answer = timeout(ANSWER, stream.message()).await.expect("a response");
    let answer = answer.map(|answer| {
        let answer = answer.unwrap();
        let (created, canceled) = (answer.created, answer.canceled);
        format!("created {created} canceled {canceled} {}", answer.cancel_reason)
    });
    (answer.unwrap_or_else(|status| told(&status)), Some(stream))
}

type Watching = Streaming<clusterdb::doors::etcd::proto::etcdserverpb::WatchResponse>;

async fn watches(caller: &mut Caller) {
    for (step, key, end) in [
        ("watch a hidden key", "hidden", ""),
        ("watch what may be written", "drop", ""),
        ("watch more than is allowed", "app/", "app1"),
        ("watch all", "\0", "\0"),
        ("watch what is allowed", "app/", "app0"),
    ] {
        let (answer, _) = watch(caller, key, end).await;
        caller.say(step, &answer);
    }
}

async fn queues(caller: &mut Caller) {
    let name = || b"hidden".to_vec();
    ask!(caller, lock.lock, "lock", LockRequest { name: name(), lease: 0 });
    ask!(caller, lock.unlock, "unlock", UnlockRequest { key: name() });
    let value = b"ann".to_vec();
    let campaign = CampaignRequest { name: name(), lease: 0, value: value.clone() };
    ask!(caller, election.campaign, "campaign", campaign);
    let leader = Some(LeaderKey { name: name(), key: name(), rev: 2, lease: UNDER_HIDDEN });
    let proclaim = ProclaimRequest { leader: leader.clone(), value };
    ask!(caller, election.proclaim, "proclaim", proclaim);
    ask!(caller, election.leader, "who leads", LeaderRequest { name: name() });
    let asked = caller.asks(LeaderRequest { name: name() });
    let told = caller.election.observe(asked).await;
    caller.note_stream("observe", told).await;
    ask!(caller, election.resign, "resign", ResignRequest { leader });
    let allowed = LockRequest { name: b"app/lock".to_vec(), lease: UNDER_APP };
    ask!(caller, lock.lock, "lock what is allowed", allowed);
}

async fn members(caller: &mut Caller) {
    ask!(caller, play.cluster.member_list, "members", MemberListRequest::default());
    let linearizable = MemberListRequest { linearizable: true };
    ask!(caller, play.cluster.member_list, "members by a quorum", linearizable);
    ask!(caller, play.cluster.member_add, "add a member", MemberAddRequest::default());
    ask!(caller, play.cluster.member_remove, "remove one", MemberRemoveRequest { id: 7 });
    ask!(caller, play.cluster.member_update, "update one", MemberUpdateRequest::default());
    ask!(caller, play.cluster.member_promote, "promote one", MemberPromoteRequest { id: 7 });
    ask!(caller, play.maintenance.status, "status", StatusRequest {});
    ask!(caller, play.maintenance.alarm, "alarms", AlarmRequest::default());
    let off = AlarmRequest { action: 2, ..AlarmRequest::default() };
    ask!(caller, play.maintenance.alarm, "switch an alarm off", off);
    ask!(caller, play.maintenance.defragment, "defragment", DefragmentRequest {});
    ask!(caller, play.maintenance.hash, "hash", HashRequest {});
    ask!(caller, play.maintenance.hash_kv, "hash keys", HashKvRequest { revision: 0 });
    let asked = caller.asks(SnapshotRequest {});
    let pieces = caller.play.maintenance.snapshot(asked).await;
    caller.note_stream("snapshot", pieces).await;
    let nobody = MoveLeaderRequest { target_id: 7 };
    ask!(caller, play.maintenance.move_leader, "move the leader", nobody);
}

async fn accounts(caller: &mut Caller) {
    let ann = || "ann".to_owned();
    ask!(caller, auth.auth_enable, "switch accounts on", AuthEnableRequest {});
    ask!(caller, auth.auth_disable, "switch accounts off", AuthDisableRequest {});
    let user = AuthUserAddRequest { name: "new".into(), ..AuthUserAddRequest::default() };
    ask!(caller, auth.user_add, "add a user", user);
    ask!(caller, auth.user_get, "show oneself", AuthUserGetRequest { name: ann() });
    ask!(caller, auth.user_get, "show another", AuthUserGetRequest { name: "root".into() });
    ask!(caller, auth.user_list, "list users", AuthUserListRequest {});
    ask!(caller, auth.user_delete, "delete a user", AuthUserDeleteRequest { name: ann() });
    let password = AuthUserChangePasswordRequest {
        name: ann(),
        password: "new".into(),
        ..AuthUserChangePasswordRequest::default()
    };
    ask!(caller, auth.user_change_password, "change one's password", password);
    let root = AuthUserGrantRoleRequest { user: ann(), role: "root".into() };
    ask!(caller, auth.user_grant_role, "become root", root);
    let revoke = AuthUserRevokeRoleRequest { name: ann(), role: ann() };
    ask!(caller, auth.user_revoke_role, "take a role away", revoke);
}

async fn roles(caller: &mut Caller) {
    let ann = || "ann".to_owned();
    ask!(caller, auth.role_add, "add a role", AuthRoleAddRequest { name: "new".into() });
    ask!(caller, auth.role_get, "show one's role", AuthRoleGetRequest { role: ann() });
    ask!(caller, auth.role_get, "show another role", AuthRoleGetRequest { role: "root".into() });
    ask!(caller, auth.role_list, "list roles", AuthRoleListRequest {});
    ask!(caller, auth.role_delete, "delete a role", AuthRoleDeleteRequest { role: ann() });
    let perm = Some(permission(Type::Read, "hidden", ""));
    let grant = AuthRoleGrantPermissionRequest { name: ann(), perm };
    ask!(caller, auth.role_grant_permission, "grant oneself a right", grant);
    let revoke = AuthRoleRevokePermissionRequest {
        role: ann(),
        key: "seen".into(),
        ..AuthRoleRevokePermissionRequest::default()
    };
    ask!(caller, auth.role_revoke_permission, "take a right away", revoke);
}

/// The same requests in JSON.
fn in_json(address: SocketAddr, name: &str, token: &str) -> Answers {
    let b64 = |text: &str| STANDARD.encode(text);
    let (hidden, drop) = (b64("hidden"), b64("drop"));
    let key = json!({ "key": hidden, "value": hidden });
    let shows = json!({ "key": drop, "value": hidden, "prev_kv": true });
    let txn = |put: &Value| json!({ "failure": [{ "request_put": put }] });
    let compare = json!({ "compare": [{ "key": hidden }] });
    let lease = json!({ "ID": UNDER_HIDDEN, "keys": true });
    let queue = json!({ "name": hidden });
    let user = json!({ "name": "ann", "role": "root", "user": "ann", "password": "new" });
    let steps = [
        ("/v3/kv/range", &key),
        ("/v3/kv/put", &key),
        ("/v3/kv/put", &shows),
        ("/v3/kv/deleterange", &key),
        ("/v3/kv/txn", &txn(&key)),
        ("/v3/kv/txn", &txn(&shows)),
        ("/v3/kv/txn", &compare),
        ("/v3/kv/compaction", &json!({ "revision": "2" })),
        ("/v3/watch", &json!({ "create_request": { "key": hidden } })),
        ("/v3/watch", &json!({ "create_request": { "key": drop } })),
        ("/v3/lease/grant", &json!({ "ID": "21", "TTL": "60" })),
        ("/v3/lease/revoke", &json!({ "ID": "21" })),
        ("/v3/lease/revoke", &lease),
        ("/v3/lease/keepalive", &lease),
        ("/v3/lease/timetolive", &lease),
        ("/v3/lease/leases", &json!({})),
        ("/v3/lock/lock", &queue),
        ("/v3/lock/unlock", &key),
        ("/v3/election/campaign", &queue),
        ("/v3/election/leader", &queue),
        ("/v3/election/observe", &queue),
        ("/v3/cluster/member/list", &json!({})),
        ("/v3/cluster/member/remove", &json!({ "ID": "7" })),
        ("/v3/maintenance/status", &json!({})),
        ("/v3/maintenance/alarm", &json!({})),
        ("/v3/maintenance/hash", &json!({})),
        ("/v3/maintenance/snapshot", &json!({})),
        ("/v3/maintenance/defragment", &json!({})),
        ("/v3/maintenance/transfer-leadership", &json!({ "targetID": "7" })),
        ("/v3/auth/disable", &json!({})),
        ("/v3/auth/user/list", &json!({})),
        ("/v3/auth/user/add", &user),
        ("/v3/auth/user/grant", &user),
        ("/v3/auth/user/changepw", &user),
        ("/v3/auth/role/list", &json!({})),
    ];
    let headers =
        if token.is_empty() { String::new() } else { format!("Authorization: {token}\r\n") };
    let ask = |(path, body): (&str, &Value)| {
        let mut answer = web::ask(address, "POST", path, &headers, &body.to_string());
        let said = serde_json::from_str(&answer.line_or_rest()).unwrap_or_default();
        (format!("{name}, in JSON: {path} {body}"), format!("{} {}", answer.status, refusal(&said)))
    };
    steps.into_iter().map(ask).collect()
}

/// What refuses in an answer.
fn refusal(said: &Value) -> String {
    let result = &said["result"];
    let refused = ["error", "code", "message"].map(|name| &said[name]);
    if refused.iter().any(|said| !said.is_null()) {
        return refused.map(Value::to_string).join(" ");
    }
    let told = ["created", "canceled", "cancel_reason"].map(|name| &result[name]);
    if told[1].is_null() { "done".to_owned() } else { told.map(Value::to_string).join(" ") }
}

/// A right that is taken away while its owner watches.
async fn loses_the_right(address: &str, answers: &mut Answers) {
    let mut root = Caller::new(address, "root", "of root").await;
    let mut ann = Caller::new(address, "ann", "of ann").await;
    let (_, stream) = watch(&mut ann, "app/", "app0").await;
    let revoke = AuthRoleRevokePermissionRequest {
        role: "ann".into(),
        key: "app/".into(),
        range_end: "app0".into(),
    };
    root.auth.role_revoke_permission(root.asks(revoke)).await.unwrap();
    root.play.kv.put(root.asks(put("app/5", "5"))).await.unwrap();
    let told = timeout(ANSWER, stream.unwrap().message()).await.expect("a response");
    let told = told.unwrap().unwrap();
    let told =
        format!("{} events, canceled {} {}", told.events.len(), told.canceled, told.cancel_reason);
    ann.say("watch what is no longer allowed", &told);
    ask!(ann, play.kv.range, "read what is no longer allowed", get("app/1", ""));
    answers.append(&mut ann.play.answers);
}
