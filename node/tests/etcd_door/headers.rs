//! What stands in the header of every answer: the cluster and the member that was asked,
//! its term, and the revision that the answer is of. Defragment and Snapshot have none, as
//! etcd's.

use std::time::Duration;

use clusterdb::doors::etcd::proto::{
    etcdserverpb::{
        AlarmRequest, AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGetRequest,
        AuthRoleListRequest, AuthStatusRequest, AuthUserAddRequest, AuthUserDeleteRequest,
        AuthUserGetRequest, AuthUserListRequest, CompactionRequest, DeleteRangeRequest,
        HashKvRequest, HashRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest,
        LeaseRevokeRequest, LeaseTimeToLiveRequest, MemberListRequest, RangeRequest, RequestOp,
        ResponseHeader, StatusRequest, TxnRequest, auth_client::AuthClient,
        cluster_client::ClusterClient, kv_client::KvClient, lease_client::LeaseClient,
        maintenance_client::MaintenanceClient, request_op,
    },
    v3electionpb::{
        CampaignRequest, LeaderRequest, ProclaimRequest, ResignRequest,
        election_client::ElectionClient,
    },
    v3lockpb::{LockRequest, UnlockRequest, lock_client::LockClient},
};
use futures_util::stream;
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;

use super::{
    Stream,
    common::LONG,
    doors::{Doors, get, put},
    watch,
};

/// Who must stand in the headers of one member, and the newest revision.
struct Expected {
    cluster: u64,
    member: u64,
    term: u64,
    revision: i64,
}

impl Expected {
    /// An answer that changed nothing. There may be a new leader meanwhile: the term never
    /// falls.
    fn same(&mut self, what: &str, header: Option<ResponseHeader>) {
        let header = header.unwrap_or_else(|| panic!("{what}: no header"));
        let said = (header.cluster_id, header.member_id, header.revision);
        assert_eq!(said, (self.cluster, self.member, self.revision), "{what}");
        assert!(header.raft_term >= self.term, "{what}: {header:?} after {}", self.term);
        self.term = header.raft_term;
    }

    /// An answer of this member's own copy, which may lag: repeated until it does not.
    async fn same_at_last(
        &mut self,
        what: &str,
        mut ask: impl AsyncFnMut() -> Option<ResponseHeader>,
    ) {
        let newest = self.revision;
        let told = async {
            loop {
                let header = ask().await;
                if header.is_none_or(|header| header.revision >= newest) {
                    return header;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        let told = timeout(LONG, told).await.unwrap_or_else(|_| panic!("{what} lags"));
        self.same(what, told);
    }

    /// An answer that made so many revisions.
    fn more(&mut self, what: &str, revisions: i64, header: Option<ResponseHeader>) {
        self.revision += revisions;
        self.same(what, header);
    }
}

/// The header of what a service answers.
macro_rules! header {
    ($client:ident.$method:ident($request:expr)) => {
        $client.$method($request).await.unwrap().into_inner().header
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_of_every_member_names_cluster_member_term_and_revision() {
    let doors = Doors::open("").serve().await;
    let mut members = ClusterClient::new(doors.channel(1).await);
    let list = members.member_list(MemberListRequest::default()).await.unwrap().into_inner();
    let cluster = list.header.unwrap().cluster_id;
    let mut revision = 0;
    for (at, member) in list.members.iter().map(|member| member.id).enumerate() {
        let channel = doors.channel(at + 1).await;
        let mut kv = KvClient::new(channel.clone());
        let header = header!(kv.put(put("h/first", vec![1]))).unwrap();
        assert!(header.revision > revision && header.raft_term > 0 && cluster > 0, "{header:?}");
        let term = header.raft_term;
        let mut expected = Expected { cluster, member, term, revision: header.revision };
        keys(&mut expected, &channel).await;
        leases(&mut expected, &channel).await;
        queues(&mut expected, &channel).await;
        upkeep(&mut expected, &channel).await;
        accounts(&mut expected, &channel).await;
        revision = expected.revision;
    }
}

async fn keys(expected: &mut Expected, channel: &Channel) {
    let mut kv = KvClient::new(channel.clone());
    let at = expected.revision;
    let mut watched = Stream::open(channel.clone(), watch("h/", "h0", 0)).await;
    expected.same("watch", watched.next().await.header);
    expected.more("put", 1, header!(kv.put(put("h/a", vec![1]))));
    expected.same("news", watched.next().await.header);
    expected.same("range", header!(kv.range(get("h/a", ""))));
    let own = RangeRequest { serializable: true, revision: at, ..get("h/a", "") };
    expected.same("range of the past", header!(kv.range(own)));
    expected.same("transaction of nothing", header!(kv.txn(TxnRequest::default())));
    let request = Some(request_op::Request::RequestPut(put("h/b", vec![1])));
    let txn = TxnRequest { success: vec![RequestOp { request }], ..TxnRequest::default() };
    expected.more("transaction", 1, header!(kv.txn(txn)));
    let delete =
        |key: &str| DeleteRangeRequest { key: key.into(), ..DeleteRangeRequest::default() };
    expected.same("delete of nothing", header!(kv.delete_range(delete("h/none"))));
    expected.more("delete", 1, header!(kv.delete_range(delete("h/b"))));
    let compact = CompactionRequest { revision: at, physical: false };
    expected.same("compact", header!(kv.compact(compact)));
}

async fn leases(expected: &mut Expected, channel: &Channel) {
    let (mut kv, mut leases) = (KvClient::new(channel.clone()), LeaseClient::new(channel.clone()));
    let id = 7;
    expected.same("grant", header!(leases.lease_grant(LeaseGrantRequest { ttl: 60, id })));
    let mut held = put("h/held", vec![1]);
    held.lease = id;
    expected.more("put under a lease", 1, header!(kv.put(held)));
    let show = LeaseTimeToLiveRequest { id, keys: true };
    expected.same("show", header!(leases.lease_time_to_live(show)));
    expected.same("list", header!(leases.lease_leases(LeaseLeasesRequest {})));
    let asks = stream::iter([LeaseKeepAliveRequest { id }]);
    let mut kept = leases.lease_keep_alive(asks).await.unwrap().into_inner();
    expected.same("keep alive", kept.message().await.unwrap().unwrap().header);
    expected.more("revoke", 1, header!(leases.lease_revoke(LeaseRevokeRequest { id })));
}

async fn queues(expected: &mut Expected, channel: &Channel) {
    let (mut lock, mut election) =
        (LockClient::new(channel.clone()), ElectionClient::new(channel.clone()));
    let mut leases = LeaseClient::new(channel.clone());
    let (name, lease) = (|| b"h/queue".to_vec(), 9);
    leases.lease_grant(LeaseGrantRequest { ttl: 60, id: lease }).await.unwrap();
    let held = lock.lock(LockRequest { name: name(), lease }).await.unwrap().into_inner();
    expected.more("lock", 1, held.header);
    expected.more("unlock", 1, header!(lock.unlock(UnlockRequest { key: held.key })));
    let campaign = CampaignRequest { name: name(), lease, value: b"1".to_vec() };
    let won = election.campaign(campaign).await.unwrap().into_inner();
    expected.more("campaign", 1, won.header);
    let leader = won.leader;
    let proclaim = ProclaimRequest { leader: leader.clone(), value: b"2".to_vec() };
    expected.more("proclaim", 1, header!(election.proclaim(proclaim)));
    expected.same("who leads", header!(election.leader(LeaderRequest { name: name() })));
    let told = election.observe(LeaderRequest { name: name() }).await.unwrap();
    expected.same("observe", told.into_inner().message().await.unwrap().unwrap().header);
    expected.more("resign", 1, header!(election.resign(ResignRequest { leader })));
    leases.lease_revoke(LeaseRevokeRequest { id: lease }).await.unwrap();
}

async fn upkeep(expected: &mut Expected, channel: &Channel) {
    let (mut members, mut upkeep) =
        (ClusterClient::new(channel.clone()), MaintenanceClient::new(channel.clone()));
    let list = MemberListRequest { linearizable: true };
    expected.same("members", header!(members.member_list(list)));
    expected.same("status", header!(upkeep.status(StatusRequest {})));
    expected.same("alarms", header!(upkeep.alarm(AlarmRequest::default())));
    expected.same_at_last("hash", async || header!(upkeep.hash(HashRequest {}))).await;
    let newest = HashKvRequest { revision: 0 };
    expected.same_at_last("hash of keys", async || header!(upkeep.hash_kv(newest))).await;
}

async fn accounts(expected: &mut Expected, channel: &Channel) {
    let mut auth = AuthClient::new(channel.clone());
    let name = || "h".to_owned();
    let (password, role) = (name(), name());
    let user = AuthUserAddRequest { name: name(), password, ..AuthUserAddRequest::default() };
    expected.same("add a user", header!(auth.user_add(user)));
    expected.same("show one", header!(auth.user_get(AuthUserGetRequest { name: name() })));
    expected.same("list users", header!(auth.user_list(AuthUserListRequest {})));
    expected.same("add a role", header!(auth.role_add(AuthRoleAddRequest { name: name() })));
    expected.same("show it", header!(auth.role_get(AuthRoleGetRequest { role })));
    expected.same("list roles", header!(auth.role_list(AuthRoleListRequest {})));
    expected.same("accounts", header!(auth.auth_status(AuthStatusRequest {})));
    let role = name();
    expected.same("delete it", header!(auth.role_delete(AuthRoleDeleteRequest { role })));
    let user = AuthUserDeleteRequest { name: name() };
    expected.same("delete the user", header!(auth.user_delete(user)));
}
