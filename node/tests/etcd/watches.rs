//! Watches: created, told, filtered, cancelled, compacted.

use std::time::Duration;

use clusterdb::doors::etcd::proto::etcdserverpb::{
    CompactionRequest, RangeRequest, TxnRequest, WatchCancelRequest, WatchCreateRequest,
    WatchProgressRequest, WatchRequest, WatchResponse, request_op::Request,
    watch_create_request::FilterType, watch_request::RequestUnion,
};
use futures_util::stream;
use tokio::{sync::mpsc, time::timeout};
use tonic::Streaming;

use crate::{
    keys::{delete, get, op, put},
    play::{ANSWER, Play, told},
};

/// One stream of watches.
struct Stream {
    asks: mpsc::UnboundedSender<WatchRequest>,
    told: Streaming<WatchResponse>,
}

impl Stream {
    /// etcd answers nothing, not even headers, before it has a first request.
    async fn open(play: &mut Play, first: WatchCreateRequest) -> Self {
        let (asks, mut asked) = mpsc::unbounded_channel();
        asks.send(created(first)).unwrap();
        let requests = stream::poll_fn(move |context| asked.poll_recv(context));
        let told = play.watch.watch(requests).await.unwrap().into_inner();
        Self { asks, told }
    }

    fn ask(&self, request: RequestUnion) {
        self.asks.send(WatchRequest { request_union: Some(request) }).unwrap();
    }

    fn create(&self, request: WatchCreateRequest) {
        self.asks.send(created(request)).unwrap();
    }

    async fn next(&mut self) -> Result<WatchResponse, String> {
        match timeout(ANSWER, self.told.message()).await {
            Ok(Ok(Some(response))) => Ok(response),
            Ok(Ok(None)) => Err("the stream ended".to_owned()),
            Ok(Err(status)) => Err(told(&status)),
            Err(_) => Err("nothing came".to_owned()),
        }
    }

    /// Writes the next response down.
    async fn note(&mut self, play: &mut Play, step: &str) {
        let response = self.next().await;
        play.say(step, &format!("{response:?}"));
    }

    /// Writes so many events down, however they were grouped.
    async fn note_events(&mut self, play: &mut Play, step: &str, count: usize) {
        let mut events = Vec::new();
        while events.len() < count {
            match self.next().await {
                Ok(response) => events.extend(response.events),
                Err(cause) => {
                    play.say(step, &format!("{events:?} then {cause}"));
                    return;
                }
            }
        }
        play.say(step, &format!("{events:?}"));
    }
}

fn created(request: WatchCreateRequest) -> WatchRequest {
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(request)) }
}

fn watch(key: &str, end: &str, start_revision: i64) -> WatchCreateRequest {
    let (key, range_end) = (key.into(), end.into());
    WatchCreateRequest { key, range_end, start_revision, ..WatchCreateRequest::default() }
}

pub(crate) async fn play(play: &mut Play) {
    news(play).await;
    past(play).await;
    odd(play).await;
}

async fn news(play: &mut Play) {
    let mut stream =
        Stream::open(play, WatchCreateRequest { prev_kv: true, ..watch("w/", "w0", 0) }).await;
    stream.note(play, "watch from now on").await;
    drop(play.kv.put(put("w/1", "1")).await);
    drop(play.kv.put(put("w/1", "2")).await);
    let both = [op(Request::RequestPut(put("w/2", "3"))), op(Request::RequestPut(put("w/3", "4")))];
    drop(play.kv.txn(TxnRequest { success: both.to_vec(), ..TxnRequest::default() }).await);
    drop(play.kv.delete_range(delete("w/1", "w/3")).await);
    stream.note_events(play, "what happened, with what was there", 6).await;
    stream.ask(RequestUnion::ProgressRequest(WatchProgressRequest {}));
    stream.note(play, "how far nothing more happened").await;
    stream.ask(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 0 }));
    stream.note(play, "cancel").await;
}

async fn past(play: &mut Play) {
    let mut stream = Stream::open(play, watch("a", "", 2)).await;
    stream.note(play, "watch from a revision on").await;
    stream.note_events(play, "all that happened to one key", 4).await;
    let filters = vec![FilterType::Noput as i32];
    stream.create(WatchCreateRequest { filters, ..watch("\0", "\0", 2) });
    stream.note(play, "watch deletes of all keys").await;
    stream.note_events(play, "all deletes", 8).await;
    let filters = vec![FilterType::Nodelete as i32];
    stream.create(WatchCreateRequest { filters, ..watch("a", "b", 2) });
    stream.note(play, "watch puts only").await;
    stream.note_events(play, "all puts", 3).await;
    let filters = vec![FilterType::Noput as i32, FilterType::Nodelete as i32];
    stream.create(WatchCreateRequest { filters, ..watch("a", "b", 2) });
    stream.note(play, "watch neither").await;
    let filters = vec![7];
    stream.create(WatchCreateRequest { filters, ..watch("zz", "", 0) });
    stream.note(play, "watch with a filter that is none").await;
    stream.create(watch("", "\0", 2));
    stream.note(play, "watch from the empty key on").await;
    stream.note_events(play, "all that happened", 12).await;
}

async fn odd(play: &mut Play) {
    let mut stream =
        Stream::open(play, WatchCreateRequest { watch_id: 5, ..watch("o", "", 0) }).await;
    stream.note(play, "watch under a number").await;
    stream.create(WatchCreateRequest { watch_id: 5, ..watch("o", "", 0) });
    stream.note(play, "watch under a number in use").await;
    stream.create(watch("z", "a", 0));
    stream.note(play, "watch a range that ends before it begins").await;
    stream.create(watch("o", "", 1_000_000));
    stream.note(play, "watch the future").await;
    stream.ask(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 99 }));
    drop(play.kv.put(put("o", "1")).await);
    stream.note_events(play, "what happened after an unknown one was cancelled", 1).await;
    compacted(play).await;
}

async fn compacted(play: &mut Play) {
    let compact = CompactionRequest { revision: 3, physical: true };
    let answer = play.kv.compact(compact).await;
    play.note("compact below watches", answer);
    // A member that has not applied it yet may still tell what it has.
    let old = RangeRequest { revision: 2, serializable: true, ..get("a", "") };
    while play.kv.range(old.clone()).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut stream = Stream::open(play, watch("a", "", 2)).await;
    stream.note(play, "watch what is gone").await;
    stream.note(play, "what is gone cannot be told").await;
    stream.create(watch("a", "", 3));
    stream.note(play, "watch from the compacted revision on").await;
    stream.note_events(play, "what happened since", 3).await;
}
