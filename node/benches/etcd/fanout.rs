//! One writer, many watchers: how soon all of them have heard of a put.
//!
//! The next put is sent when all have, so nothing piles up: the rate is what the
//! server tells, the delay what a watcher waits from the moment of the put.

use std::time::{Duration, Instant};

use clusterdb::doors::etcd::proto::etcdserverpb::{
    PutRequest, WatchCreateRequest, WatchRequest, kv_client::KvClient, watch_client::WatchClient,
    watch_request::RequestUnion,
};
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tonic::transport::Channel;

use crate::{asks::VALUE_BYTES, report::Figures, servers::Server};

/// Streams that share a connection, one watch each.
const STREAMS: usize = 20;
const KEY: &[u8] = b"watched";

/// A watcher: tells that it watches, and then of each event.
async fn watch(channel: Channel, heard: mpsc::UnboundedSender<()>) {
    let create = WatchCreateRequest { key: KEY.to_vec(), ..WatchCreateRequest::default() };
    let first = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    // The stream of requests stays open: its end would be the watcher's.
    let asks = stream::iter([first]).chain(stream::pending());
    let told = WatchClient::new(channel).watch(asks).await;
    let mut told = told.unwrap().into_inner();
    while let Ok(Some(response)) = told.message().await {
        for _ in 0..response.events.len() + usize::from(response.created) {
            if heard.send(()).is_err() {
                return;
            }
        }
    }
}

pub(crate) async fn measure(server: &Server, watchers: usize, seconds: u64) -> Figures {
    let (tells, mut heard) = mpsc::unbounded_channel();
    let mut channel = server.connect(0).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..watchers {
        if number % STREAMS == 0 {
            channel = server.connect(number / STREAMS).await;
        }
        tasks.spawn(watch(channel.clone(), tells.clone()));
    }
    let mut all_hear = async || {
        for _ in 0..watchers {
            heard.recv().await.unwrap();
        }
    };
    // Each tells that it began.
    all_hear().await;
    let mut kv = KvClient::new(server.connect(0).await);
    let (before, begin) = (server.cpu(), Instant::now());
    let mut took = Vec::new();
    while begin.elapsed() < Duration::from_secs(seconds) {
        let sent = Instant::now();
        let put = PutRequest {
            key: KEY.to_vec(),
            value: vec![b'v'; VALUE_BYTES],
            ..PutRequest::default()
        };
        let put = kv.put(put);
        let delays = async {
            for _ in 0..watchers {
                heard.recv().await.unwrap();
                took.push(u64::try_from(sent.elapsed().as_micros()).unwrap());
            }
        };
        let (put, ()) = tokio::join!(put, delays);
        put.unwrap();
    }
    Figures::of(took, begin.elapsed(), server.cpu() - before)
}
