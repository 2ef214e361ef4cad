//! What members say of leader, term and revision: with a copy of the volume, without
//! one, and without a quorum.

use std::time::{Duration, Instant};

use clusterdb::doors::etcd::proto::{
    etcdserverpb::{
        AlarmRequest, LeaseGrantRequest, LeaseKeepAliveRequest, MemberListRequest, RangeRequest,
        RequestOp, ResponseHeader, StatusRequest, StatusResponse, TxnRequest,
        cluster_client::ClusterClient, kv_client::KvClient, lease_client::LeaseClient,
        maintenance_client::MaintenanceClient, request_op,
    },
    v3electionpb::{LeaderRequest, election_client::ElectionClient},
};
use futures_util::{StreamExt, stream};
use tokio::time::{sleep, timeout};
use tonic::{Code, Request, Status, metadata::MetadataMap, transport::Channel};

use super::{
    Stream,
    common::{LONG, http_get},
    doors::{Doors, get, put},
    move_leader_to, watch,
};

const SECOND: Duration = Duration::from_secs(1);
const NO_LEADER: &str = "etcdserver: no leader";

/// The numbers of the nodes that have a copy of the volume.
fn holders(doors: &Doors) -> Vec<usize> {
    let shown = doors.cluster.cdb(&["volume", "show", "etcd", "-o", "json"]).ok().json();
    let nodes = shown["shards"][0]["nodes"].as_array().unwrap().iter();
    let number = |name: &str| name.trim_matches(['n', '*']).parse().unwrap();
    nodes.map(|name| number(name.as_str().unwrap())).collect()
}

/// A request of somebody who requires a leader.
fn requiring<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    *request.metadata_mut() = required();
    request
}

fn required() -> MetadataMap {
    let mut metadata = MetadataMap::new();
    metadata.insert("hasleader", "true".parse().unwrap());
    metadata
}

/// A member, and the last term it told of.
struct Member {
    maintenance: MaintenanceClient<Channel>,
    term: u64,
}

impl Member {
    async fn of(doors: &Doors, number: usize) -> Self {
        Self { maintenance: MaintenanceClient::new(doors.channel(number).await), term: 0 }
    }

    /// Takes in a header: its term is told, and never falls.
    fn hear(&mut self, header: Option<ResponseHeader>) -> ResponseHeader {
        let header = header.unwrap();
        assert!(header.raft_term > 0 && header.raft_term >= self.term, "{header:?}");
        self.term = header.raft_term;
        header
    }

    async fn status(&mut self) -> StatusResponse {
        let status = self.maintenance.status(StatusRequest {}).await.unwrap().into_inner();
        self.hear(status.header);
        assert!(status.raft_term >= self.term, "{status:?}");
        status
    }

    /// Its status once it is as wanted.
    async fn status_until(&mut self, is: impl Fn(&StatusResponse) -> bool) -> StatusResponse {
        let begun = Instant::now();
        loop {
            let status = self.status().await;
            if is(&status) {
                return status;
            }
            assert!(begun.elapsed() < LONG, "{status:?}");
            sleep(SECOND / 10).await;
        }
    }
}

/// Four nodes and three copies.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_without_a_copy_tells_of_leader_term_and_revision_as_others_do() {
    let mut doors = Doors::open_of(4, "").serve().await;
    let holders = holders(&doors);
    let bare = (1..=4).find(|number| !holders.contains(number)).unwrap();
    let mut kv = KvClient::new(doors.channel(bare).await);
    let mut newest = 0;
    for n in 0..5 {
        let put = kv.put(put("k", vec![n])).await.unwrap().into_inner();
        newest = put.header.unwrap().revision;
    }
    // It begins anew and remembers nothing.
    doors.cluster.nodes[bare - 1].kill();
    doors.cluster.restart(bare);
    let mut member = Member::of(&doors, bare).await;
    // Before it was asked for any key; what it hears may be some seconds old.
    let begun = Instant::now();
    loop {
        let first = member.maintenance.alarm(AlarmRequest::default()).await.unwrap().into_inner();
        let header = first.header.unwrap();
        // It waits for a first word of a term, but for a moment only.
        if header.raft_term > 0 && member.hear(Some(header)).revision == newest {
            break;
        }
        let told = header.revision;
        assert!(told <= newest && begun.elapsed() < LONG, "{told} of {newest}");
        sleep(SECOND / 10).await;
    }

    let channel = doors.channel(bare).await;
    let mut members = ClusterClient::new(channel.clone());
    let list = members.member_list(MemberListRequest::default()).await.unwrap().into_inner();
    let cluster_id = member.hear(list.header).cluster_id;
    let ids: Vec<u64> = list.members.iter().map(|member| member.id).collect();
    assert!(cluster_id != 0 && ids.len() == 4, "{list:?}");
    for number in 1..=4 {
        let has_leader = |status: &StatusResponse| {
            status.errors.is_empty() && holders.iter().any(|at| ids[at - 1] == status.leader)
        };
        let status = Member::of(&doors, number).await.status_until(has_leader).await;
        let header = status.header.unwrap();
        assert_eq!((header.cluster_id, header.member_id), (cluster_id, ids[number - 1]));
        assert!(status.raft_index > 0 && !status.is_learner, "{status:?}");
    }

    member.status_until(|status| status.leader != 0).await;
    let mut kv = KvClient::new(channel.clone());
    let written = kv.put(requiring(put("k", vec![9]))).await.unwrap().into_inner();
    let newest = member.hear(written.header).revision;
    let mut leases = LeaseClient::new(channel);
    let grant = LeaseGrantRequest { ttl: 60, id: 7 };
    member.hear(leases.lease_grant(requiring(grant)).await.unwrap().into_inner().header);
    for (id, ttl) in [(7, 60), (8, 0)] {
        let asks = stream::iter([LeaseKeepAliveRequest { id }]);
        let mut kept = leases.lease_keep_alive(requiring(asks)).await.unwrap().into_inner();
        let kept = kept.message().await.unwrap().unwrap();
        assert_eq!((kept.ttl, member.hear(kept.header).revision), (ttl, newest));
    }

    let old = member.status_until(|status| status.leader != 0).await;
    let next = holders.iter().find(|number| ids[**number - 1] != old.leader).unwrap();
    move_leader_to(&doors, *next).await;
    let target_id = ids[next - 1];
    let moved = member.status_until(|status| status.leader == target_id).await;
    assert!(moved.raft_term > old.raft_term, "{moved:?}");

    for number in &holders[..2] {
        doors.cluster.nodes[number - 1].kill();
    }
    let status = member.status_until(|status| status.leader == 0).await;
    assert_eq!(status.errors, [NO_LEADER]);
    let refused = kv.put(requiring(put("k", vec![1]))).await.unwrap_err();
    assert_eq!(told(&refused), (Code::Unavailable, NO_LEADER));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_that_has_just_opened_waits_for_its_first_leader() {
    let mut doors = Doors::open("").serve().await;
    for node in &mut doors.cluster.nodes {
        node.kill();
    }
    doors.cluster.nodes[2].start(&[]);
    let opens = async {
        while std::net::TcpStream::connect(doors.addresses[2]).is_err() {
            sleep(SECOND / 20).await;
        }
    };
    timeout(LONG, opens).await.expect("a door");
    let opened = Instant::now();
    let mut kv = KvClient::new(doors.channel(3).await);
    let own = || requiring(RangeRequest { serializable: true, ..get("a", "") });
    let first = own();
    let mut asked = kv.clone();
    let waits = tokio::spawn(async move { asked.range(first).await.map(drop) });
    sleep(SECOND / 2).await;
    assert!(!waits.is_finished(), "nobody leads");
    for node in &mut doors.cluster.nodes[..2] {
        node.start(&[]);
    }
    let mut told = timeout(LONG, waits).await.unwrap().unwrap();
    // A busy machine may elect nobody meanwhile; it is not said before ten seconds.
    while let Err(status) = &told {
        assert_eq!((status.code(), status.message()), (Code::Unavailable, NO_LEADER));
        assert!(opened.elapsed() > 8 * SECOND && opened.elapsed() < LONG, "{:?}", opened.elapsed());
        sleep(SECOND).await;
        told = kv.range(own()).await.map(drop);
    }
}

fn told(status: &Status) -> (Code, &str) {
    (status.code(), status.message())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_whoever_requires_a_leader_is_refused_and_others_wait() {
    let mut doors = Doors::open("").serve().await;
    let channel = doors.channel(3).await;
    Member::of(&doors, 3).await.status_until(|status| status.leader != 0).await;
    let mut kv = KvClient::new(channel.clone());
    kv.put(requiring(put("a", b"1".to_vec()))).await.unwrap();
    let mut waits = Stream::open(channel.clone(), watch("a", "", 0)).await;
    let mut requires = Stream::open_with(channel.clone(), watch("a", "", 0), required()).await;
    assert!(waits.next().await.created && requires.next().await.created);
    // Go's client keeps its leases by such a stream, and goes elsewhere when it ends.
    let mut leases = LeaseClient::new(channel.clone());
    let granted = leases.lease_grant(LeaseGrantRequest { ttl: 60, id: 7 }).await.unwrap();
    let keep = LeaseKeepAliveRequest { id: granted.into_inner().id };
    let keeps = stream::iter([keep]).chain(stream::pending());
    let mut keeps = leases.lease_keep_alive(requiring(keeps)).await.unwrap().into_inner();
    assert_eq!(keeps.message().await.unwrap().unwrap().ttl, 60);
    let observes = requiring(LeaderRequest { name: b"e".to_vec() });
    let mut observes = ElectionClient::new(channel).observe(observes).await.unwrap().into_inner();
    for node in &mut doors.cluster.nodes[..2] {
        node.kill();
    }
    let own = RangeRequest { serializable: true, ..get("a", "") };
    assert_eq!(kv.range(own.clone()).await.unwrap().into_inner().kvs[0].value, b"1");
    let begun = Instant::now();
    let refused = kv.range(get("a", "")).await.unwrap_err();
    assert_eq!(told(&refused), (Code::Unavailable, "etcdserver: request timed out"));
    assert!(begun.elapsed() < SECOND * 9, "after {:?}", begun.elapsed());
    let refused = kv.put(put("a", b"2".to_vec())).await.unwrap_err();
    assert_eq!(told(&refused), (Code::Unavailable, "etcdserver: request timed out"));

    let read = RequestOp { request: Some(request_op::Request::RequestRange(own.clone())) };
    let read = TxnRequest { success: vec![read], ..TxnRequest::default() };
    let read = kv.txn(read).await.expect("of this member alone").into_inner();
    assert!(read.succeeded && read.responses.len() == 1, "{read:?}");

    let ended = timeout(LONG, requires.told.message()).await.expect("an end").unwrap_err();
    assert_eq!(told(&ended), (Code::Unavailable, NO_LEADER));
    let ended = timeout(LONG, keeps.message()).await.expect("an end").unwrap_err();
    assert_eq!(told(&ended), (Code::Unavailable, NO_LEADER));
    let ended = timeout(LONG, observes.message()).await.expect("an end").unwrap_err();
    assert_eq!(told(&ended), (Code::Unavailable, NO_LEADER));
    let refused = kv.range(requiring(own.clone())).await.unwrap_err();
    assert_eq!(told(&refused), (Code::Unavailable, NO_LEADER));
    assert_eq!(kv.range(own).await.unwrap().into_inner().kvs[0].value, b"1", "still");
    let probe = |path: &str| http_get(doors.addresses[2], path).expect("an answer");
    let (status, said) = probe("/health");
    assert_eq!((status, &said[..]), (503, r#"{"health":"false","reason":"RAFT NO LEADER"}"#));
    assert_eq!(probe("/health?serializable=true").0, 200);
    assert_eq!(probe("/livez"), (200, "ok\n".to_owned()), "a restart would not mend it");
    assert!(timeout(SECOND * 5, waits.told.message()).await.is_err(), "it stays");

    doors.cluster.restart(1);
    let again = async { while kv.put(requiring(put("a", b"3".to_vec()))).await.is_err() {} };
    timeout(LONG, again).await.expect("a quorum");
    let news = waits.next().await.events.into_iter().next_back().unwrap();
    // What was refused for lack of a quorum may have happened since.
    assert!([&b"2"[..], b"3"].contains(&&news.kv.unwrap().value[..]));
}
