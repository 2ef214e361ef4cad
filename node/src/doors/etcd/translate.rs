//! From etcd's requests to the store's words, and back. Pure; semantics live in
//! the store.
//!
//! - `range_end` empty means one key, `"\0"` all from the key on; an end at or
//!   before its key is a range of no keys, never an error.
//! - A revision of zero or less reads the newest; a limit of zero or less is none.
//! - A transaction may read old revisions. The store's may not (what it could
//!   read would depend on how far a replica has swept), so such steps are taken
//!   out, read before it, and put back into its answer: the past does not change.

use cluster::{
    ids::LeaseId,
    mvcc::version::Version,
    request::Item,
    shard::{
        range::{Range, RangeResult, Show, Sort, SortBy, Span},
        transaction::{
            Block, Compare, Keys, Put, Relation, Step, StepResult, Target, Transacted, Transaction,
        },
    },
};

use super::{
    faults::EtcdFault,
    gateway::revision,
    proto::{
        etcdserverpb::{
            self as pb, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
            RangeRequest, RangeResponse, RequestOp, ResponseHeader, ResponseOp, TxnRequest,
            TxnResponse,
            compare::{CompareResult, CompareTarget, TargetUnion},
            range_request::{SortOrder, SortTarget},
            request_op::Request,
            response_op::Response,
        },
        mvccpb::KeyValue,
    },
};

/// The keys of a range.
pub(super) fn keys_of(key: &[u8], end: &[u8]) -> Keys {
    match end {
        [] => Keys::One(key.to_vec()),
        [0] => Keys::Range { from: from_of(key), to: Vec::new() },
        end if end <= key => Keys::Range { from: key.to_vec(), to: key.to_vec() },
        end => Keys::Range { from: from_of(key), to: end.to_vec() },
    }
}

/// `"\0"` is the first key there can be, so a range from it is one from the
/// beginning.
fn from_of(key: &[u8]) -> Vec<u8> {
    if key == [0] { Vec::new() } else { key.to_vec() }
}

/// A key as etcd shows it.
pub(super) fn key_value(item: Item) -> KeyValue {
    KeyValue {
        key: item.key,
        create_revision: revision(item.created),
        mod_revision: revision(item.modified),
        version: i64::try_from(item.changes).unwrap_or(i64::MAX),
        value: item.value,
        lease: item.lease.0.cast_signed(),
    }
}

/// What etcd's `Range` asks.
pub(super) fn range_of(request: &RangeRequest) -> Result<Range, EtcdFault> {
    if request.key.is_empty() {
        return Err(EtcdFault::EmptyKey);
    }
    let order = SortOrder::try_from(request.sort_order);
    let target = SortTarget::try_from(request.sort_target);
    let (Ok(order), Ok(target)) = (order, target) else {
        return Err(EtcdFault::InvalidSortOption);
    };
    let by = match target {
        SortTarget::Key => SortBy::Key,
        SortTarget::Version => SortBy::Changes,
        SortTarget::Create => SortBy::Created,
        SortTarget::Mod => SortBy::Modified,
        SortTarget::Value => SortBy::Value,
    };
    let descending = match order {
        SortOrder::Descend => true,
        SortOrder::None | SortOrder::Ascend => false,
    };
    let show = match (request.count_only, request.keys_only) {
        (true, _) => Show::Count,
        (false, true) => Show::Heads,
        (false, false) => Show::Items,
    };
    let bound = |revision: i64| Version(u64::try_from(revision).unwrap_or(0));
    Ok(Range {
        keys: keys_of(&request.key, &request.range_end),
        at: (request.revision > 0).then(|| bound(request.revision)),
        limit: u32::try_from(request.limit.max(0)).unwrap_or(u32::MAX),
        show,
        sort: Sort { by, descending },
        created: Span {
            from: bound(request.min_create_revision),
            to: bound(request.max_create_revision),
        },
        modified: Span {
            from: bound(request.min_mod_revision),
            to: bound(request.max_mod_revision),
        },
        // etcd always counts.
        count: true,
    })
}

/// What a range came to.
pub(super) fn range_response(result: RangeResult, header: ResponseHeader) -> RangeResponse {
    RangeResponse {
        header: Some(header),
        kvs: result.items.into_iter().map(key_value).collect(),
        more: result.more,
        count: i64::try_from(result.count).unwrap_or(i64::MAX),
    }
}

/// What etcd's `Put` asks.
pub(super) fn put_of(request: PutRequest) -> Result<Put, EtcdFault> {
    if request.key.is_empty() {
        return Err(EtcdFault::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(EtcdFault::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(EtcdFault::LeaseProvided);
    }
    Ok(Put {
        key: request.key,
        value: (!request.ignore_value).then_some(request.value),
        lease: (!request.ignore_lease).then_some(LeaseId(request.lease.cast_unsigned())),
        previous: request.prev_kv,
    })
}

/// The keys of etcd's `DeleteRange`.
pub(super) fn delete_of(request: &DeleteRangeRequest) -> Result<Step, EtcdFault> {
    if request.key.is_empty() {
        return Err(EtcdFault::EmptyKey);
    }
    let keys = keys_of(&request.key, &request.range_end);
    Ok(Step::Delete { keys, previous: request.prev_kv })
}

/// A transaction in the store's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Translated {
    /// What the store does.
    pub(super) transaction: Transaction,
    /// What is read of the past before it, in the order of the steps it is taken
    /// from: those of `success` before those of `failure`, nested ones in place.
    pub(super) past: Vec<Range>,
}

/// What etcd's `Txn` asks, of at most `ops_max` operations as etcd counts them.
pub(super) fn txn_of(request: TxnRequest, ops_max: usize) -> Result<Translated, EtcdFault> {
    let mut translated = Translated { transaction: Transaction { blocks: vec![] }, past: vec![] };
    translated.take(request, ops_max)?;
    // What is read beforehand is not judged by the store: side by side in nested
    // transactions it could be far more than one path through them.
    if translated.past.len() > ops_max {
        return Err(EtcdFault::TooManyOps);
    }
    Ok(translated)
}

impl Translated {
    /// Takes in a block and those below it; its place.
    fn take(&mut self, request: TxnRequest, ops_max: usize) -> Result<u32, EtcdFault> {
        let TxnRequest { compare, success, failure } = request;
        let ops = compare.len().max(success.len()).max(failure.len());
        let below = ops_max.checked_sub(ops).ok_or(EtcdFault::TooManyOps)?;
        let place = self.transaction.blocks.len();
        self.transaction.blocks.push(Block::default());
        let block = Block {
            compares: compare.into_iter().map(compare_of).collect::<Result<_, _>>()?,
            then: self.branch(success, below)?,
            otherwise: self.branch(failure, below)?,
        };
        if let Some(own) = self.transaction.blocks.get_mut(place) {
            *own = block;
        }
        u32::try_from(place).map_err(|_| EtcdFault::TooManyOps)
    }

    fn branch(&mut self, ops: Vec<RequestOp>, ops_max: usize) -> Result<Vec<Step>, EtcdFault> {
        let mut steps = Vec::with_capacity(ops.len());
        for op in ops {
            let step = match op.request {
                Some(Request::RequestRange(range)) => match range_of(&range)? {
                    range @ Range { at: Some(_), .. } => {
                        self.past.push(range);
                        continue;
                    }
                    range => Step::Read(range),
                },
                Some(Request::RequestPut(put)) => Step::Put(put_of(put)?),
                Some(Request::RequestDeleteRange(delete)) => delete_of(&delete)?,
                Some(Request::RequestTxn(txn)) => Step::Nested(self.take(txn, ops_max)?),
                // etcd's answer to an operation that is none.
                None => return Err(EtcdFault::KeyNotFound),
            };
            steps.push(step);
        }
        Ok(steps)
    }
}

fn compare_of(compare: pb::Compare) -> Result<Compare, EtcdFault> {
    if compare.key.is_empty() {
        return Err(EtcdFault::EmptyKey);
    }
    let unknown = |what: &str| {
        EtcdFault::Other(tonic::Code::InvalidArgument, format!("etcdserver: unknown {what}"))
    };
    let is = match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => Relation::Equal,
        Ok(CompareResult::NotEqual) => Relation::NotEqual,
        Ok(CompareResult::Greater) => Relation::Greater,
        Ok(CompareResult::Less) => Relation::Less,
        Err(_) => return Err(unknown("result of a compare")),
    };
    let keys = keys_of(&compare.key, &compare.range_end);
    let union = compare.target_union;
    // etcd compares with zero what is not said, or said of another target.
    let (is, target) = match CompareTarget::try_from(compare.target) {
        Err(_) => return Err(unknown("target of a compare")),
        Ok(CompareTarget::Value) => {
            let value = match union {
                Some(TargetUnion::Value(value)) => value,
                Some(
                    TargetUnion::Version(_)
                    | TargetUnion::CreateRevision(_)
                    | TargetUnion::ModRevision(_)
                    | TargetUnion::Lease(_),
                )
                | None => Vec::new(),
            };
            (is, Target::Value(value))
        }
        Ok(target) => number_of(is, target, union.as_ref()),
    };
    Ok(Compare { keys, is, target })
}

/// A compare with a number. Ours are not negative: what a negative one says is
/// said with the highest instead.
fn number_of(
    is: Relation,
    target: CompareTarget,
    union: Option<&TargetUnion>,
) -> (Relation, Target) {
    let said = match (target, union) {
        (CompareTarget::Version, Some(TargetUnion::Version(number)))
        | (CompareTarget::Create, Some(TargetUnion::CreateRevision(number)))
        | (CompareTarget::Mod, Some(TargetUnion::ModRevision(number)))
        | (CompareTarget::Lease, Some(TargetUnion::Lease(number))) => *number,
        (
            CompareTarget::Version
            | CompareTarget::Create
            | CompareTarget::Mod
            | CompareTarget::Lease
            | CompareTarget::Value,
            _,
        ) => 0,
    };
    let (is, number) = match (u64::try_from(said), is) {
        (Ok(number), is) => (is, number),
        (Err(_), Relation::Greater | Relation::NotEqual) => (Relation::NotEqual, u64::MAX),
        (Err(_), Relation::Less | Relation::Equal) => (Relation::Equal, u64::MAX),
    };
    let target = match target {
        CompareTarget::Version => Target::Changes(number),
        CompareTarget::Create => Target::Created(Version(number)),
        CompareTarget::Mod => Target::Modified(Version(number)),
        CompareTarget::Lease | CompareTarget::Value => Target::Lease(LeaseId(number)),
    };
    (is, target)
}

/// Puts the answer to a transaction together.
pub(super) struct Assembly {
    /// What the store's steps came to.
    results: std::vec::IntoIter<StepResult>,
    /// What the past held, as [`Translated::past`] names it.
    past: std::vec::IntoIter<RangeResult>,
    /// The version its steps see: one more once something has changed.
    version: Version,
    /// The version of its changes.
    last: Version,
}

impl Assembly {
    /// The answer to `request`, which the store did as `done`.
    pub(super) fn response(
        request: &TxnRequest,
        done: Transacted,
        past: Vec<RangeResult>,
        header: ResponseHeader,
    ) -> Result<TxnResponse, EtcdFault> {
        let before = Version(done.version.0 - u64::from(done.changed));
        let mut assembly = Assembly {
            results: done.results.unwrap_or_default().into_iter(),
            past: past.into_iter(),
            version: before,
            last: done.version,
        };
        assembly.txn(request, done.succeeded, Some(header))
    }

    fn txn(
        &mut self,
        request: &TxnRequest,
        succeeded: bool,
        header: Option<ResponseHeader>,
    ) -> Result<TxnResponse, EtcdFault> {
        let responses = if succeeded {
            let responses = self.steps(&request.success)?;
            self.skip(&request.failure);
            responses
        } else {
            self.skip(&request.success);
            self.steps(&request.failure)?
        };
        Ok(TxnResponse { header, succeeded, responses })
    }

    fn steps(&mut self, ops: &[RequestOp]) -> Result<Vec<ResponseOp>, EtcdFault> {
        ops.iter().map(|op| Ok(ResponseOp { response: Some(self.step(op)?) })).collect()
    }

    fn step(&mut self, op: &RequestOp) -> Result<Response, EtcdFault> {
        let strange = || {
            let text = "etcdserver: the result of another step came instead";
            EtcdFault::Other(tonic::Code::Unknown, text.to_owned())
        };
        if let Some(Request::RequestRange(range)) = &op.request
            && range.revision > 0
        {
            let result = self.past.next().ok_or_else(strange)?;
            return Ok(Response::ResponseRange(range_response(result, self.header())));
        }
        match (&op.request, self.results.next().ok_or_else(strange)?) {
            (Some(Request::RequestRange(_)), StepResult::Read(result)) => {
                Ok(Response::ResponseRange(range_response(result, self.header())))
            }
            (Some(Request::RequestPut(_)), StepResult::Put { previous }) => {
                self.version = self.last;
                let (header, prev_kv) = (Some(self.header()), previous.map(key_value));
                Ok(Response::ResponsePut(PutResponse { header, prev_kv }))
            }
            (Some(Request::RequestDeleteRange(_)), StepResult::Deleted { count, previous }) => {
                if count > 0 {
                    self.version = self.last;
                }
                Ok(Response::ResponseDeleteRange(delete_response(count, previous, self.header())))
            }
            (Some(Request::RequestTxn(txn)), StepResult::Nested { succeeded, .. }) => {
                // etcd leaves the header of a nested answer empty.
                let header = Some(ResponseHeader::default());
                Ok(Response::ResponseTxn(self.txn(txn, succeeded, header)?))
            }
            (Some(_) | None, _) => Err(strange()),
        }
    }

    /// Passes by what was read of the past for a branch that was not taken.
    fn skip(&mut self, ops: &[RequestOp]) {
        for op in ops {
            match &op.request {
                Some(Request::RequestRange(range)) if range.revision > 0 => {
                    drop(self.past.next());
                }
                Some(Request::RequestTxn(txn)) => {
                    self.skip(&txn.success);
                    self.skip(&txn.failure);
                }
                Some(
                    Request::RequestRange(_)
                    | Request::RequestPut(_)
                    | Request::RequestDeleteRange(_),
                )
                | None => {}
            }
        }
    }

    /// Headers inside an answer tell the revision only.
    fn header(&self) -> ResponseHeader {
        ResponseHeader { revision: revision(self.version), ..ResponseHeader::default() }
    }
}

/// What a delete came to.
pub(super) fn delete_response(
    count: u32,
    previous: Vec<Item>,
    header: ResponseHeader,
) -> DeleteRangeResponse {
    DeleteRangeResponse {
        header: Some(header),
        deleted: i64::from(count),
        prev_kvs: previous.into_iter().map(key_value).collect(),
    }
}

#[cfg(test)]
mod tests;
