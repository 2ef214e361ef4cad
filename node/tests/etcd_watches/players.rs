//! Clients of the door: they write, watch and read until they are told to end.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use cluster::mvcc::version::Version;
use clusterdb::doors::etcd::proto::{
    etcdserverpb::{
        CompactionRequest, DeleteRangeRequest, RangeRequest, RequestOp, TxnRequest,
        WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse, kv_client::KvClient,
        request_op::Request, watch_client::WatchClient, watch_request::RequestUnion,
    },
    mvccpb::{Event, event::EventType},
};
use futures_util::stream;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

use crate::{
    doors::{get, put},
    watched::{Piece, Shown, State, Telling, Told},
};

/// All keys lie between these.
const FIRST: &str = "watch/";
const BEHIND: &str = "watch0";
/// The key whose change ends everything.
pub(crate) const END: &str = "watch/end";
const KEYS: u64 = 5;
/// Revisions that a compaction leaves.
const KEPT: i64 = 25;
/// Longest wait for an answer of a node that may be dead.
const ANSWER: Duration = Duration::from_secs(3);

/// What everybody knows.
pub(crate) struct World {
    addresses: Vec<SocketAddr>,
    telling: Mutex<Telling>,
    changes_over: AtomicBool,
    /// The last revision, once it is known.
    end: AtomicI64,
    begun: AtomicUsize,
}

/// A chance of one's own: nothing here can be repeated, so no more than that.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % bound
    }

    async fn rest(&mut self, millis: std::ops::Range<u64>) {
        let span = millis.start + self.below(millis.end - millis.start);
        sleep(Duration::from_millis(span)).await;
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn version(revision: i64) -> Version {
    Version(u64::try_from(revision).unwrap())
}

impl World {
    pub(crate) fn new(addresses: Vec<SocketAddr>, streams: usize) -> Self {
        // A fresh store's first change has revision 2.
        let streams = vec![vec![Piece::starting(Version(1))]; streams];
        Self {
            addresses,
            telling: Mutex::new(Telling { streams, ..Telling::default() }),
            changes_over: AtomicBool::new(false),
            end: AtomicI64::new(0),
            begun: AtomicUsize::new(0),
        }
    }

    pub(crate) fn end_changes(&self) {
        self.changes_over.store(true, Ordering::Relaxed);
    }

    pub(crate) fn end_at(&self, revision: i64) {
        self.end.store(revision, Ordering::Relaxed);
    }

    pub(crate) fn begun(&self) -> usize {
        self.begun.load(Ordering::Relaxed)
    }

    pub(crate) fn telling(&self) -> Telling {
        self.telling.lock().unwrap().clone()
    }

    /// Whether everything up to here was all.
    fn is_end(&self, upto: Version) -> bool {
        let end = self.end.load(Ordering::Relaxed);
        end > 0 && upto >= version(end)
    }

    async fn channel(&self, member: usize) -> Option<Channel> {
        let address = self.addresses[member % self.addresses.len()];
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        endpoint.timeout(ANSWER).connect_timeout(ANSWER).connect().await.ok()
    }

    fn wrote(&self, changes: Vec<(i64, String, Option<String>)>) {
        let changes = changes.into_iter().map(|(at, key, value)| (version(at), key, value));
        self.telling.lock().unwrap().written.extend(changes);
    }
}

/// Changes keys, at one member until it fails.
pub(crate) async fn write(world: Arc<World>, number: usize) {
    let (mut chance, mut member, mut made) = (Chance(number as u64), number, 0);
    while !world.changes_over.load(Ordering::Relaxed) {
        let Some(channel) = world.channel(member).await else {
            member += 1;
            chance.rest(20..100).await;
            continue;
        };
        let mut kv = KvClient::new(channel);
        while !world.changes_over.load(Ordering::Relaxed) {
            made += 1;
            let value = format!("{number}-{made}");
            // A change whose outcome is unknown is not claimed.
            let Ok(changes) = change(&mut kv, &mut chance, value).await else { break };
            world.wrote(changes);
            chance.rest(5..40).await;
        }
        member += 1;
    }
}

type Changes = Vec<(i64, String, Option<String>)>;

async fn change(
    kv: &mut KvClient<Channel>,
    chance: &mut Chance,
    value: String,
) -> Result<Changes, Status> {
    let key = format!("{FIRST}{}", chance.below(KEYS));
    match chance.below(20) {
        0..11 => {
            let done = kv.put(put(&key, value.clone().into_bytes())).await?.into_inner();
            Ok(vec![(done.header.unwrap().revision, key, Some(value))])
        }
        11..15 => {
            let gone = DeleteRangeRequest { key: key.clone().into(), ..Default::default() };
            let gone = kv.delete_range(gone).await?.into_inner();
            let deleted = (gone.header.unwrap().revision, key, None);
            Ok(if gone.deleted > 0 { vec![deleted] } else { Vec::new() })
        }
        15..19 => {
            let both = [key, format!("{FIRST}{KEYS}")];
            let op = |key: &String| {
                let put = put(key, value.clone().into_bytes());
                RequestOp { request: Some(Request::RequestPut(put)) }
            };
            let txn = TxnRequest { success: both.iter().map(op).collect(), ..Default::default() };
            let revision = kv.txn(txn).await?.into_inner().header.unwrap().revision;
            Ok(both.into_iter().map(|key| (revision, key, Some(value.clone()))).collect())
        }
        _ => {
            let now = kv.range(get("none", "")).await?.into_inner().header.unwrap().revision;
            let revision = (now - KEPT).max(1);
            // Another one may have compacted more.
            let _ = kv.compact(CompactionRequest { revision, physical: false }).await;
            Ok(Vec::new())
        }
    }
}

/// All keys, and the revision they are of.
pub(crate) async fn range(
    kv: &mut KvClient<Channel>,
    serializable: bool,
) -> Result<(Version, State), Status> {
    let all = RangeRequest { serializable, ..get(FIRST, BEHIND) };
    let read = kv.range(all).await?.into_inner();
    let found = read.kvs.into_iter().map(|kv| (text(&kv.key), text(&kv.value))).collect();
    Ok((version(read.header.unwrap().revision), found))
}

/// Reads what a member has, on one connection until it fails.
pub(crate) async fn read(world: Arc<World>, number: usize) {
    let (mut chance, mut member) = (Chance(100 + number as u64), number);
    while world.end.load(Ordering::Relaxed) == 0 {
        member += 1;
        let Some(channel) = world.channel(member).await else {
            chance.rest(20..100).await;
            continue;
        };
        let mut kv = KvClient::new(channel);
        let mut shown = Vec::new();
        while world.end.load(Ordering::Relaxed) == 0 && chance.below(60) > 0 {
            let Ok((at, found)) = range(&mut kv, true).await else { break };
            shown.push(Shown { at, found });
            chance.rest(5..40).await;
        }
        world.telling.lock().unwrap().read.push(shown);
    }
}

/// Watches, with all the vices of a client, until the end.
pub(crate) async fn follow(world: Arc<World>, stream: usize) {
    let (mut chance, mut member) = (Chance(200 + stream as u64), stream);
    loop {
        let watching = match world.channel(member).await {
            Some(channel) => Watching::begin(channel, from(&world, stream)).await,
            None => None,
        };
        member += 1;
        let Some(mut watching) = watching else {
            chance.rest(20..100).await;
            continue;
        };
        world.begun.fetch_add(1, Ordering::Relaxed);
        while let Some(response) = watching.next().await {
            let is_over = response.canceled;
            let upto = world.heard(stream, response);
            if world.is_end(upto) {
                return;
            }
            if is_over {
                break;
            }
            match chance.below(40) {
                0 => break,
                1..4 => watching.ask_progress(),
                4 | 5 => chance.rest(200..1_500).await,
                _ => {}
            }
        }
    }
}

/// Where a stream begins, or goes on.
fn from(world: &World, stream: usize) -> i64 {
    let telling = world.telling.lock().unwrap();
    let piece = telling.streams[stream].last().unwrap();
    i64::try_from(piece.upto.0 + 1).unwrap()
}

struct Watching {
    asks: mpsc::UnboundedSender<WatchRequest>,
    told: Streaming<WatchResponse>,
}

impl Watching {
    async fn begin(channel: Channel, start_revision: i64) -> Option<Self> {
        let (asks, mut asked) = mpsc::unbounded_channel();
        let create = WatchCreateRequest {
            key: FIRST.into(),
            range_end: BEHIND.into(),
            start_revision,
            prev_kv: true,
            progress_notify: true,
            ..WatchCreateRequest::default()
        };
        let union = Some(RequestUnion::CreateRequest(create));
        asks.send(WatchRequest { request_union: union }).ok()?;
        let requests = stream::poll_fn(move |context| asked.poll_recv(context));
        let told = timeout(ANSWER, WatchClient::new(channel).watch(requests)).await;
        Some(Self { asks, told: told.ok()?.ok()?.into_inner() })
    }

    fn ask_progress(&self) {
        let union = Some(RequestUnion::ProgressRequest(WatchProgressRequest {}));
        let _ = self.asks.send(WatchRequest { request_union: union });
    }

    /// None if the stream is over, or silent: a progress is due each second.
    async fn next(&mut self) -> Option<WatchResponse> {
        timeout(ANSWER, self.told.message()).await.ok()?.ok()?
    }
}

impl World {
    /// Writes down what a stream was told; up to where it knows everything.
    fn heard(&self, stream: usize, response: WatchResponse) -> Version {
        let mut telling = self.telling.lock().unwrap();
        let pieces = &mut telling.streams[stream];
        if response.compact_revision > 0 {
            pieces.push(Piece::starting(version(response.compact_revision)));
        }
        let piece = pieces.last_mut().unwrap();
        let is_progress = response.events.is_empty() && !response.created && !response.canceled;
        for event in response.events {
            let change = told(piece.told.last(), event);
            piece.upto = piece.upto.max(change.place.0);
            piece.told.push(change);
        }
        if is_progress {
            piece.upto = piece.upto.max(version(response.header.unwrap().revision));
        }
        piece.upto
    }
}

fn told(last: Option<&Told>, event: Event) -> Told {
    let put = event.r#type() == EventType::Put;
    let kv = event.kv.unwrap();
    let at = version(kv.mod_revision);
    let sub = last.filter(|last| last.place.0 == at).map_or(0, |last| last.place.1 + 1);
    Told {
        place: (at, sub),
        key: text(&kv.key),
        value: put.then(|| text(&kv.value)),
        before: event.prev_kv.map(|before| text(&before.value)),
    }
}
