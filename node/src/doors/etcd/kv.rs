//! etcd's service KV: ranges, puts, deletes, transactions, compaction.

use std::sync::Arc;

use actors::client::{Client, Room};
use cluster::{
    auth::{Access, Need, needs},
    limits::TRANSACTION_REPLY_BYTES_MAX,
    mvcc::version::Version,
    request::{Item, ReadLevel},
    shard::{
        range::{Range, RangeResult},
        transaction::{Keys, Step, Transaction, TransactionError},
    },
};
use futures_util::{Stream, stream};
use prost::Message;
use tonic::{Request, Response, Status};

use super::{
    bodies::PIECE_BYTES,
    faults::EtcdFault,
    gateway::{Gateway, Telling},
    proto::etcdserverpb::{
        CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
        PutResponse, RangeRequest, RangeResponse, RangeStreamResponse, TxnRequest, TxnResponse,
        kv_server::Kv, request_op,
    },
    quotas::{brought_by, brought_by_put},
    rates::keys_of,
    translate::{
        Assembly, Translated, delete_of, delete_response, key_value, put_of, range_of,
        range_response, txn_of,
    },
};
use crate::observe::audit::{Subject, changed_by};

/// Keys in one message of a streamed range.
const STREAMED_KEYS: usize = 256;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct KvService(pub(super) Arc<Gateway>);

impl KvService {
    /// The service of a door.
    pub(crate) fn new(gateway: Arc<Gateway>) -> Self {
        Self(gateway)
    }

    /// A range, and the room it holds. Of many large ones that meet, one after
    /// another is gathered: each gives back what it held and begins anew in its turn.
    async fn read(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<(RangeResponse, Arc<Room>), EtcdFault> {
        let (client, request) = self.0.admit(request).await?;
        let level = if request.serializable { ReadLevel::Eventual } else { ReadLevel::Strong };
        let range = range_of(&request)?;
        let (needs, keys) = (|| reading(&range.keys), || vec![range.keys.clone()]);
        self.0.pass(&client, Telling::nothing, needs, keys).await?;
        let room = self.0.modest_room();
        match self.gather(&client, range.clone(), level, &room).await {
            Err(EtcdFault::TooManyRequests) if room.taken() > 0 => drop(room),
            read => return Ok((read?, room)),
        }
        let (room, _turn) = self.0.room_in_turn().await?;
        Ok((self.gather(&client, range, level, &room).await?, room))
    }

    async fn gather(
        &self,
        client: &Client,
        range: Range,
        level: ReadLevel,
        room: &Arc<Room>,
    ) -> Result<RangeResponse, EtcdFault> {
        let client = client.within(room.clone());
        let read = client.range(self.0.volume(), range, level).await?;
        let response = range_response(read.result, self.0.header(read.now));
        // One key took none before it was read, and what is small goes as it is.
        let bytes = counted(&response);
        if (room.taken() == 0 || bytes == 0) && !room.set(bytes) {
            return Err(EtcdFault::TooManyRequests);
        }
        Ok(response)
    }

    async fn write(
        &self,
        request: Request<PutRequest>,
        room: Option<&Room>,
    ) -> Result<PutResponse, EtcdFault> {
        let (client, request) = self.0.admit(request).await?;
        self.check_size(&request)?;
        let put = put_of(request)?;
        let telling = || self.0.telling(&client, "put", || vec![Subject::key(&put.key)]);
        let (needs, keys) = (|| needs::of_put(&put), || vec![Keys::One(put.key.clone())]);
        self.0.pass(&client, telling, needs, keys).await?;
        // What it shows must have room before it happens.
        if let Some(room) = room
            && !room.grow(self.shown_most()).await
        {
            return Err(EtcdFault::TooManyRequests);
        }
        let passes = self.0.within_quotas(|| brought_by_put(&put)).await?;
        let telling = telling();
        let written = client.put_as(self.0.volume(), put);
        let (version, previous) = telling.watch(written, |(version, _)| *version).await?;
        passes.written(version);
        let header = Some(self.0.header(version));
        Ok(PutResponse { header, prev_kv: previous.map(key_value) })
    }

    async fn delete(
        &self,
        request: Request<DeleteRangeRequest>,
        room: &Arc<Room>,
    ) -> Result<DeleteRangeResponse, EtcdFault> {
        let (client, request) = self.0.admit(request).await?;
        let client = client.within(room.clone());
        self.check_size(&request)?;
        let Step::Delete { keys, previous } = delete_of(&request)? else {
            return Err(EtcdFault::KeyNotFound);
        };
        let telling = || self.0.telling(&client, "delete", || vec![Subject::keys(&keys)]);
        let (needs, touched) = (|| needs::of_delete(&keys, previous), || vec![keys.clone()]);
        self.0.pass(&client, telling, needs, touched).await?;
        let telling = telling();
        let deleted = client.delete_range_in_parts(self.0.volume(), keys, previous);
        let deleted = telling.watch(deleted, |done| done.version).await?;
        let header = self.0.header(deleted.version);
        Ok(delete_response(deleted.count, deleted.previous, header))
    }

    async fn transact(
        &self,
        request: Request<TxnRequest>,
        room: &Arc<Room>,
    ) -> Result<TxnResponse, EtcdFault> {
        let (client, request) = self.0.admit(request).await?;
        let client = client.within(room.clone());
        self.check_size(&request)?;
        let Translated { transaction, past } = txn_of(request.clone(), self.0.config.operations)?;
        transaction.check().map_err(|error| EtcdFault::from(&error))?;
        let telling = || {
            if transaction.writes() {
                self.0.telling(&client, "transaction", || changed_by(&transaction))
            } else {
                Telling::nothing()
            }
        };
        let needs = || {
            let past = past.iter().flat_map(|range| reading(&range.keys));
            needs::of_transaction(&transaction).into_iter().chain(past).collect()
        };
        self.0.pass(&client, telling, needs, || keys_of(&transaction, &past)).await?;
        let passes = self.0.within_quotas(|| brought_by(&transaction)).await?;
        // As etcd: what only reads, and asks of nothing to be the newest, asks this member alone.
        let level = if is_serializable(&request) { ReadLevel::Eventual } else { ReadLevel::Strong };
        let past = self.read_past(&client, past, level).await?;
        // What it shows must have room before it happens.
        let shown = if shows(&transaction) { self.shown_most() } else { 0 };
        if shown > 0 && !room.grow(shown).await {
            return Err(EtcdFault::TooManyRequests);
        }
        let telling = telling();
        let done = async {
            if transaction.writes() {
                client.transact(self.0.volume(), transaction).await
            } else {
                client.look(self.0.volume(), transaction, level).await
            }
        };
        let done = telling.watch(done, |done| done.version).await?;
        if done.changed {
            passes.written(done.version);
        }
        let header = self.0.header(done.version);
        let response = Assembly::response(&request, done, past, header)?;
        settle(room, &response);
        Ok(response)
    }

    /// Reads what a transaction wants to know of the past: no more bytes than it
    /// may read of the present.
    async fn read_past(
        &self,
        client: &Client,
        ranges: Vec<Range>,
        level: ReadLevel,
    ) -> Result<Vec<RangeResult>, EtcdFault> {
        let mut results = Vec::with_capacity(ranges.len());
        let mut bytes = 0;
        for range in ranges {
            let read = client.range(self.0.volume(), range, level).await?;
            for Item { key, value, .. } in &read.result.items {
                if bytes > TRANSACTION_REPLY_BYTES_MAX {
                    return Err(EtcdFault::from(&TransactionError::ReadsTooMuch));
                }
                bytes += key.len() + value.len();
            }
            results.push(read.result);
        }
        Ok(results)
    }

    async fn compaction(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<CompactionResponse, EtcdFault> {
        let (client, request) = self.0.admit(request).await?;
        let at = u64::try_from(request.revision).map_err(|_| EtcdFault::Compacted)?;
        let below = || vec![Subject::Below(request.revision)];
        let telling = self.0.telling(&client, "compact", below);
        let newest = client.compact(self.0.volume(), Version(at));
        let newest = telling.watch(newest, |newest| *newest).await?;
        if request.physical {
            self.0.swept(Version(at)).await?;
        }
        Ok(CompactionResponse { header: Some(self.0.header(newest)) })
    }

    /// Bytes that a put or a transaction usually shows at most: a page, or the largest value
    /// that comes through this door.
    fn shown_most(&self) -> usize {
        let request = usize::try_from(self.0.config.request.bytes()).unwrap_or(usize::MAX);
        TRANSACTION_REPLY_BYTES_MAX.max(request)
    }

    fn check_size(&self, request: &impl Message) -> Result<(), EtcdFault> {
        let bytes = request.encoded_len() as u64;
        if bytes > self.0.config.request.bytes() { Err(EtcdFault::RequestTooLarge) } else { Ok(()) }
    }
}

#[tonic::async_trait]
impl Kv for KvService {
    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        let (answer, room) = Box::pin(self.read(request)).await?;
        Ok(holding(answer, room))
    }

    type RangeStreamStream =
        std::pin::Pin<Box<dyn Stream<Item = Result<RangeStreamResponse, Status>> + Send>>;

    async fn range_stream(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let (whole, room) = Box::pin(self.read(request)).await?;
        let pieces: Self::RangeStreamStream =
            Box::pin(stream::iter(pieces_of(whole).into_iter().map(Ok)));
        Ok(holding(pieces, room))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let Some(room) = request.get_ref().prev_kv.then(|| self.0.room()) else {
            return Ok(Response::new(Box::pin(self.write(request, None)).await?));
        };
        let answer = Box::pin(self.write(request, Some(&room))).await?;
        settle(&room, &answer);
        Ok(holding(answer, room))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let room = self.0.room();
        Ok(holding(Box::pin(self.delete(request, &room)).await?, room))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let room = self.0.room();
        Ok(holding(Box::pin(self.transact(request, &room)).await?, room))
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        Ok(Response::new(Box::pin(self.compaction(request)).await?))
    }
}

impl Gateway {
    /// An answer that was made at once, with room for it unless it is a small one.
    pub(super) fn with_room<A: Message>(&self, answer: A) -> Result<Response<A>, EtcdFault> {
        let room = self.room();
        if room.set(counted(&answer)) {
            Ok(holding(answer, room))
        } else {
            Err(EtcdFault::TooManyRequests)
        }
    }
}

/// An answer that holds its room until it is read.
pub(super) fn holding<T>(answer: T, room: Arc<Room>) -> Response<T> {
    let mut response = Response::new(answer);
    if room.taken() > 0 {
        response.extensions_mut().insert(room);
    }
    response
}

/// Counts an answer as large as it came. It has happened: what is more than there is
/// room for (a page and a largest value, or a value that another door took) is not counted.
fn settle(room: &Room, answer: &impl Message) {
    let bytes = counted(answer);
    if !room.set(bytes) {
        tracing::debug!(bytes, taken = room.taken(), "an answer is larger than its room");
    }
}

/// Bytes of an answer that are counted: small ones go as they are.
pub(super) fn counted(answer: &impl Message) -> usize {
    Some(answer.encoded_len()).filter(|bytes| *bytes > PIECE_BYTES).unwrap_or(0)
}

/// What it needs to read keys.
pub(super) fn reading(keys: &Keys) -> Vec<Need> {
    vec![Need::Keys(Access::Read, keys.clone())]
}

/// Whether all that a transaction does is to read, and none of it need be the newest.
fn is_serializable(request: &TxnRequest) -> bool {
    let mut steps = request.success.iter().chain(&request.failure).peekable();
    steps.peek().is_some()
        && steps.all(|step| match &step.request {
            Some(request_op::Request::RequestRange(range)) => range.serializable,
            Some(request_op::Request::RequestTxn(inner)) => is_serializable(inner),
            Some(
                request_op::Request::RequestPut(_) | request_op::Request::RequestDeleteRange(_),
            )
            | None => false,
        })
}

/// Whether a transaction shows values.
fn shows(transaction: &Transaction) -> bool {
    transaction.steps().any(|step| match step {
        Step::Read(_) => true,
        Step::Put(put) => put.previous,
        Step::Delete { previous, .. } => *previous,
        Step::Nested(_) => false,
    })
}

/// A range in several messages; what is said of the whole comes with the last.
fn pieces_of(whole: RangeResponse) -> Vec<RangeStreamResponse> {
    let RangeResponse { header, kvs, more, count } = whole;
    let mut kvs = kvs.into_iter();
    let mut pieces = Vec::new();
    loop {
        let piece: Vec<_> = kvs.by_ref().take(STREAMED_KEYS).collect();
        if kvs.len() == 0 {
            let last = RangeResponse { header, kvs: piece, more, count };
            pieces.push(RangeStreamResponse { range_response: Some(last) });
            return pieces;
        }
        let part = RangeResponse { kvs: piece, ..RangeResponse::default() };
        pieces.push(RangeStreamResponse { range_response: Some(part) });
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::Door, *};
    use crate::doors::etcd::proto::etcdserverpb::{
        RequestOp,
        range_request::{SortOrder, SortTarget},
        response_op,
    };

    /// Whoever asked for the one key that was changed last was refused for the size of
    /// all others.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_sorted_range_holds_little_more_than_it_shows() {
        const MIB: usize = 1 << 20;
        let door = Door::open().await;
        let gateway = &door.gateway;
        // Of 16 MiB answers have half.
        for number in 10..22 {
            let put = cluster::shard::transaction::Put::new(format!("/{number}"), vec![7; MIB]);
            gateway.client.put_as(gateway.volume(), put).await.unwrap();
        }
        let service = KvService(gateway.clone());
        let sorted = |limit, target: SortTarget| RangeRequest {
            key: b"/".to_vec(),
            range_end: b"0".to_vec(),
            limit,
            sort_order: SortOrder::Descend as i32,
            sort_target: target as i32,
            ..RangeRequest::default()
        };
        for target in [SortTarget::Mod, SortTarget::Key, SortTarget::Create] {
            let told = service.range(Request::new(sorted(2, target))).await.unwrap().into_inner();
            let keys: Vec<_> = told.kvs.iter().map(|kv| kv.key.as_slice()).collect();
            assert_eq!((keys, told.more, told.count), (vec![&b"/21"[..], b"/20"], true, 12));
        }
        let all = service.range(Request::new(sorted(0, SortTarget::Mod))).await;
        all.expect_err("more than there is room for");
    }
    #[tokio::test(flavor = "multi_thread")]
    async fn a_transaction_reads_no_more_of_the_past_than_of_the_present() {
        let door = Door::open().await;
        let gateway = &door.gateway;
        let put = async |key: &str, bytes: usize| {
            let put = cluster::shard::transaction::Put::new(key, vec![7; bytes]);
            gateway.client.put_as(gateway.volume(), put).await.unwrap().0
        };
        let mut past = Version(0);
        for key in ["/1", "/2", "/3"] {
            past = put(key, 600 << 10).await;
        }
        for key in ["/1", "/2", "/3"] {
            put(key, 1).await;
        }
        let service = KvService(gateway.clone());
        let read = async |limit, revision| {
            let range = RangeRequest {
                key: b"/".to_vec(),
                range_end: b"0".to_vec(),
                limit,
                revision,
                ..RangeRequest::default()
            };
            let step = RequestOp { request: Some(request_op::Request::RequestRange(range)) };
            let request = TxnRequest { success: vec![step], ..TxnRequest::default() };
            service.txn(Request::new(request)).await
        };
        let then = past.0.cast_signed();
        read(0, 0).await.expect("they are small now");
        // As of the present, the last key may be larger than what is left.
        let two = read(2, then).await.unwrap().into_inner();
        let Some(response_op::Response::ResponseRange(two)) = &two.responses[0].response else {
            panic!("{two:?}")
        };
        assert_eq!(two.kvs.iter().map(|kv| kv.value.len()).collect::<Vec<_>>(), [600 << 10; 2]);
        let all = read(0, then).await.unwrap_err();
        assert_eq!(all.code(), tonic::Code::ResourceExhausted, "{all}");
    }
    /// Their number was looked at, and not how large they are.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_range_of_more_bytes_than_one_entry_meets_is_deleted() {
        const MIB: usize = 1 << 20;
        let door = Door::open().await;
        let gateway = &door.gateway;
        for number in 10..22 {
            let put = cluster::shard::transaction::Put::new(format!("/{number}"), vec![7; 3 * MIB]);
            gateway.client.put_as(gateway.volume(), put).await.unwrap();
        }
        let (key, range_end) = (b"/".to_vec(), b"0".to_vec());
        let all = DeleteRangeRequest { key, range_end, prev_kv: false };
        let service = KvService(gateway.clone());
        let deleted = service.delete_range(Request::new(all)).await.unwrap().into_inner();
        assert_eq!(deleted.deleted, 12);
    }
}
