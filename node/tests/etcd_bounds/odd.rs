//! Requests that no client library would make: names that are no text, more watches in a
//! stream than it may have, and keep-alives of somebody who does not listen.

use bytes::Bytes;
use clusterdb::doors::etcd::proto::{
    etcdserverpb::{
        LeaseGrantRequest, LeaseKeepAliveRequest, LeaseTimeToLiveRequest, WatchCancelRequest,
        WatchCreateRequest, WatchRequest, WatchResponse, lease_client::LeaseClient,
        watch_client::WatchClient, watch_request::RequestUnion,
    },
    v3electionpb::{CampaignRequest, LeaderRequest, election_client::ElectionClient},
    v3lockpb::{LockRequest, UnlockRequest, lock_client::LockClient},
};
use futures_util::{StreamExt, stream};
use h2::SendStream;
use prost::Message;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tonic::{Code, Status, Streaming, transport::Channel};

use super::{Door, SECOND, common::LONG, framed, get, put};

/// A message whose first two fields are texts, with bytes in their place.
#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(bytes = "vec", tag = "1")]
    name: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    more: Vec<u8>,
}

/// Sends a message to a method, whatever that expects.
async fn ask(channel: &Channel, method: &str, message: Named) -> Result<Named, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let path = format!("/{method}").parse().unwrap();
    let codec = tonic_prost::ProstCodec::<Named, Named>::default();
    let answer = client.unary(tonic::Request::new(message), path, codec).await?;
    Ok(answer.into_inner())
}

#[tokio::test]
async fn names_of_users_and_roles_are_text_and_those_of_locks_and_elections_any_bytes() {
    let door = Door::open("").await;
    let channel = door.channel().await;
    let odd = || b"\xff\xfe\0odd".to_vec();
    for method in [
        "UserAdd",
        "UserGet",
        "UserDelete",
        "UserChangePassword",
        "UserGrantRole",
        "UserRevokeRole",
        "RoleAdd",
        "RoleGet",
        "RoleDelete",
        "RoleGrantPermission",
        "RoleRevokePermission",
        "Authenticate",
    ] {
        let message = Named { name: odd(), more: b"text".to_vec() };
        let refused = ask(&channel, &format!("etcdserverpb.Auth/{method}"), message).await;
        let refused = refused.expect_err("what is no text names nobody");
        assert_eq!(refused.code(), Code::Internal, "{method}: {refused:?}");
    }
    for method in ["UserChangePassword", "UserGrantRole", "UserRevokeRole"] {
        let message = Named { name: b"text".to_vec(), more: odd() };
        let refused = ask(&channel, &format!("etcdserverpb.Auth/{method}"), message).await;
        assert_eq!(refused.unwrap_err().code(), Code::Internal, "{method}");
    }

    let mut locks = LockClient::new(channel.clone());
    let held = locks.lock(LockRequest { name: odd(), lease: 0 }).await.unwrap().into_inner();
    assert!(held.key.starts_with(&[&odd()[..], b"/"].concat()), "{held:?}");
    locks.unlock(UnlockRequest { key: held.key }).await.unwrap();
    let mut elections = ElectionClient::new(channel);
    let campaign = CampaignRequest { name: odd(), lease: 0, value: odd() };
    let won = elections.campaign(campaign).await.unwrap().into_inner().leader.unwrap();
    assert_eq!(won.name, odd());
    let leads = elections.leader(LeaderRequest { name: odd() }).await.unwrap().into_inner();
    let leader = leads.kv.unwrap();
    assert_eq!((leader.key, leader.value), (won.key, odd()));
}

/// A stream of watches.
struct Watches {
    asks: mpsc::UnboundedSender<WatchRequest>,
    told: Streaming<WatchResponse>,
}

impl Watches {
    async fn open(door: &Door) -> Self {
        let (asks, asked) = mpsc::unbounded_channel();
        let asked = stream::unfold(asked, |mut asked| async {
            let request = asked.recv().await?;
            Some((request, asked))
        });
        let mut client = WatchClient::new(door.channel().await);
        let told = client.watch(asked.boxed()).await.unwrap().into_inner();
        Self { asks, told }
    }

    async fn ask(&mut self, request: RequestUnion) -> WatchResponse {
        self.asks.send(WatchRequest { request_union: Some(request) }).unwrap();
        self.next().await
    }

    async fn next(&mut self) -> WatchResponse {
        timeout(LONG, self.told.message()).await.expect("a response").unwrap().unwrap()
    }

    async fn create(&mut self) -> WatchResponse {
        let create = WatchCreateRequest { key: b"w".to_vec(), ..WatchCreateRequest::default() };
        self.ask(RequestUnion::CreateRequest(create)).await
    }
}

#[tokio::test]
async fn a_stream_has_no_more_watches_than_it_may_and_the_others_go_on() {
    let door = Door::open("    watches: 3\n").await;
    let mut stream = Watches::open(&door).await;
    for id in 0..3 {
        let told = stream.create().await;
        assert!(told.created && !told.canceled && told.watch_id == id, "{told:?}");
    }
    let told = stream.create().await;
    let refused = (told.created, told.canceled, told.watch_id, told.cancel_reason.as_str());
    assert_eq!(refused, (true, true, -1, "etcdserver: too many requests"));
    let mut other = Watches::open(&door).await;
    assert!(!other.create().await.canceled, "each stream has its own");

    door.kv().await.put(put("w", vec![1])).await.unwrap();
    let mut heard = Vec::new();
    for _ in 0..3 {
        heard.push(stream.next().await.watch_id);
    }
    heard.sort_unstable();
    assert_eq!(heard, [0, 1, 2], "those it has go on");
    let cancel = WatchCancelRequest { watch_id: 1 };
    assert!(stream.ask(RequestUnion::CancelRequest(cancel)).await.canceled);
    let told = stream.create().await;
    assert!(told.created && !told.canceled, "there is a place again: {told:?}");
}

/// Sends the same until it is taken no more, or the stream is closed; the bytes that
/// were taken, and whether it was closed.
async fn flood(body: &mut SendStream<Bytes>, bytes: &Bytes) -> (usize, bool) {
    let (mut sent, begun) = (0, Instant::now());
    while begun.elapsed() < SECOND * 60 {
        body.reserve_capacity(bytes.len());
        let room = std::future::poll_fn(|context| body.poll_capacity(context));
        match timeout(SECOND * 5, room).await {
            Err(_) => return (sent, false),
            Ok(None | Some(Err(_))) => return (sent, true),
            Ok(Some(Ok(room))) if room < bytes.len() => sleep(SECOND / 100).await,
            Ok(Some(Ok(_))) => {
                body.send_data(bytes.clone(), false).unwrap();
                sent += bytes.len();
            }
        }
    }
    panic!("{sent} bytes were taken, and no end");
}

#[tokio::test]
async fn who_keeps_leases_alive_and_does_not_listen_is_read_no_further() {
    let door = Door::open("").await;
    let mut leases = LeaseClient::new(door.channel().await);
    let id = 7;
    leases.lease_grant(LeaseGrantRequest { ttl: 600, id }).await.unwrap();
    let before = door.resident();
    let one = framed(&LeaseKeepAliveRequest { id });
    let (silent, hasty) = (door.raw().await, door.raw().await);
    let (_answer, mut body) = silent.begin("etcdserverpb.Lease/LeaseKeepAlive").await;
    let (sent, _) = flood(&mut body, &one.repeat(1_000).into()).await;
    println!("{sent} bytes were taken");
    assert!(sent < 2 << 20, "the window of a stream, whether it is closed then or not: {sent}");
    // Each in a frame of its own takes more than its bytes.
    let (_answer, mut body) = hasty.begin("etcdserverpb.Lease/LeaseKeepAlive").await;
    let (sent, closed) = flood(&mut body, &one).await;
    println!("{sent} bytes were sent in small frames");
    assert!(closed, "after {sent} bytes");

    let grown = door.resident().saturating_sub(before);
    assert!(grown < 32, "{grown} MiB more");
    door.kv().await.range(get("a", "")).await.expect("others are served");
    let shown = leases.lease_time_to_live(LeaseTimeToLiveRequest { id, keys: false });
    assert!(shown.await.unwrap().into_inner().ttl > 500, "and so is the lease");
}
