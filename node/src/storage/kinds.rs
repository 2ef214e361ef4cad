//! What an embedded store shows, in etcd's words.

use cluster::{
    request::Item,
    shard::{
        range,
        transaction::{Keys, StepResult, Transacted},
        watch::{self, EventKind},
    },
};

/// A key with its value and history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Vec<u8>,
    /// The revision that created it.
    pub create_revision: i64,
    /// The revision that changed it last.
    pub mod_revision: i64,
    /// Changes since it was created, from 1.
    pub version: i64,
    /// The value.
    pub value: Vec<u8>,
    /// The lease it hangs on; zero for none.
    pub lease: i64,
}

/// What a range came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResult {
    /// The keys.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit left some out.
    pub more: bool,
    /// Keys between the bounds, whatever the limit.
    pub count: usize,
}

/// A point in the history of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// Number of the change.
    pub main: i64,
    /// Place within it.
    pub sub: i64,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `Put` or `Delete`.
    pub event_type: String,
    /// The key from then on; of a deleted one only key and revision.
    pub kv: KeyValue,
    /// What it was before.
    pub prev_kv: Option<KeyValue>,
    /// When it happened.
    pub revision: Revision,
}

/// What a transaction came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnResult {
    /// Its revision; the newest if it changed nothing.
    pub revision: i64,
    /// Whether its compares held.
    pub succeeded: bool,
    /// What its steps came to.
    pub responses: Vec<OpResponse>,
}

/// What one step came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpResponse {
    /// Read.
    Range(RangeResult),
    /// Written; what was there, if that was asked.
    Put(Option<KeyValue>),
    /// Deleted.
    DeleteRange {
        /// How many.
        deleted: u32,
        /// What they were, if that was asked.
        prev_kvs: Vec<KeyValue>,
    },
    /// A transaction inside was done.
    Txn(TxnResult),
}

/// State of a store in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StorageMetrics {
    /// The newest revision.
    pub current_revision: i64,
    /// The oldest that can be read; zero if nothing was compacted.
    pub compact_revision: i64,
    /// Keys at the newest revision.
    pub key_count: usize,
    /// Bytes on the disk.
    pub db_size_bytes: u64,
}

/// etcd's numbers are signed; ours stay far below where that matters.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl From<Item> for KeyValue {
    fn from(item: Item) -> Self {
        Self {
            key: item.key,
            create_revision: signed(item.created.0),
            mod_revision: signed(item.modified.0),
            version: signed(item.changes),
            value: item.value,
            lease: signed(item.lease.0),
        }
    }
}

impl From<range::RangeResult> for RangeResult {
    fn from(result: range::RangeResult) -> Self {
        let kvs: Vec<_> = result.items.into_iter().map(KeyValue::from).collect();
        // What was not counted is all there.
        let count = usize::try_from(result.count).unwrap_or(usize::MAX).max(kvs.len());
        Self { kvs, more: result.more, count }
    }
}

impl From<watch::Event> for Event {
    fn from(event: watch::Event) -> Self {
        let event_type = match event.kind {
            EventKind::Put => "Put",
            EventKind::Delete => "Delete",
        };
        let revision = Revision { main: signed(event.item.modified.0), sub: i64::from(event.sub) };
        Self {
            event_type: event_type.to_owned(),
            kv: event.item.into(),
            prev_kv: event.previous.map(KeyValue::from),
            revision,
        }
    }
}

impl From<Transacted> for TxnResult {
    fn from(done: Transacted) -> Self {
        let mut results = done.results.unwrap_or_default().into_iter();
        let revision = signed(done.version.0);
        let responses = responses(&mut results, usize::MAX, revision);
        Self { revision, succeeded: done.succeeded, responses }
    }
}

/// The next so many results as a tree. Its depth is that of the transaction.
fn responses(
    results: &mut std::vec::IntoIter<StepResult>,
    count: usize,
    revision: i64,
) -> Vec<OpResponse> {
    let mut out = Vec::new();
    let end = results.len().saturating_sub(count);
    while results.len() > end {
        let Some(result) = results.next() else { break };
        out.push(match result {
            StepResult::Read(read) => OpResponse::Range(read.into()),
            StepResult::Put { previous } => OpResponse::Put(previous.map(KeyValue::from)),
            StepResult::Deleted { count, previous } => OpResponse::DeleteRange {
                deleted: count,
                prev_kvs: previous.into_iter().map(KeyValue::from).collect(),
            },
            StepResult::Nested { succeeded, results: inside } => {
                let inside = usize::try_from(inside).unwrap_or(usize::MAX);
                let responses = responses(results, inside, revision);
                OpResponse::Txn(TxnResult { revision, succeeded, responses })
            }
        });
    }
    out
}

/// Keys as etcd names them: an empty end for one key, a zero for no end.
pub(super) fn keys_of(key: &[u8], end: &[u8]) -> Keys {
    match end {
        [] => Keys::One(key.to_vec()),
        [0] => Keys::range(key, ""),
        end => Keys::range(key, end),
    }
}
