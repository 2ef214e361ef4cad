//! Keys: ranges, puts, deletes, transactions, compaction.

use clusterdb::doors::etcd::proto::{
    etcdserverpb::{
        CompactionRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp,
        TxnRequest, TxnResponse,
        compare::{CompareResult, CompareTarget, TargetUnion},
        range_request::{SortOrder, SortTarget},
        request_op::Request,
        response_op::Response,
    },
    mvccpb::KeyValue,
};
use tonic::Status;

use crate::play::Play;

pub(crate) fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() }
}

pub(crate) fn get(key: &str, end: &str) -> RangeRequest {
    RangeRequest { key: key.into(), range_end: end.into(), ..RangeRequest::default() }
}

pub(crate) fn delete(key: &str, end: &str) -> DeleteRangeRequest {
    let (key, range_end) = (key.into(), end.into());
    DeleteRangeRequest { key, range_end, prev_kv: true }
}

pub(crate) async fn play(play: &mut Play) {
    puts(play).await;
    ranges(play).await;
    deletes(play).await;
}

async fn puts(play: &mut Play) {
    let steps: Vec<(&str, PutRequest)> = vec![
        ("put a new key", put("a", "1")),
        ("put it again, with what was there", PutRequest { prev_kv: true, ..put("a", "2") }),
        ("put b", put("b", "9")),
        ("put c", put("c", "5")),
        ("put a binary key", PutRequest { key: vec![0xff, 0], ..put("", "bytes") }),
        ("put an empty value", put("e", "")),
        ("put no key", put("", "1")),
        ("put leaving the value", PutRequest { ignore_value: true, ..put("a", "") }),
        ("put leaving the lease", PutRequest { ignore_lease: true, ..put("a", "3") }),
        ("put leaving what is not there", PutRequest { ignore_value: true, ..put("no", "") }),
        ("put a value and leave it", PutRequest { ignore_value: true, ..put("a", "1") }),
        ("put a lease and leave it", PutRequest { ignore_lease: true, lease: 7, ..put("a", "1") }),
        ("put under an unknown lease", PutRequest { lease: 77, ..put("a", "1") }),
        ("put 1.6 MB", put("large", &"x".repeat(1_600_000))),
    ];
    let first = play.kv.range(get("a", "")).await;
    play.note("get from a fresh store", first);
    for (step, request) in steps {
        let answer = play.kv.put(request).await;
        play.note(step, answer);
    }
}

async fn ranges(play: &mut Play) {
    let sorted = |target: SortTarget, order: SortOrder| RangeRequest {
        sort_target: target as i32,
        sort_order: order as i32,
        ..get("a", "f")
    };
    let steps: Vec<(&str, RangeRequest)> = vec![
        ("get one", get("a", "")),
        ("get what is not there", get("zz", "")),
        ("get no key", get("", "")),
        ("get a range", get("a", "c")),
        ("get all", get("\0", "\0")),
        ("get from a key on", get("c", "\0")),
        ("get a range that ends before it begins", get("c", "a")),
        ("get some", RangeRequest { limit: 2, ..get("a", "f") }),
        ("get a negative number of them", RangeRequest { limit: -1, ..get("a", "f") }),
        ("get keys only", RangeRequest { keys_only: true, ..get("a", "f") }),
        ("count", RangeRequest { count_only: true, ..get("a", "f") }),
        ("count some", RangeRequest { count_only: true, limit: 1, ..get("a", "f") }),
        ("get the past", RangeRequest { revision: 3, ..get("a", "f") }),
        ("get the first revision", RangeRequest { revision: 1, ..get("a", "f") }),
        ("get a negative revision", RangeRequest { revision: -5, ..get("a", "") }),
        ("get the future", RangeRequest { revision: 999, ..get("a", "") }),
        ("get what this member has", RangeRequest { serializable: true, ..get("b", "") }),
        ("created since", RangeRequest { min_create_revision: 4, ..get("a", "f") }),
        ("created until", RangeRequest { max_create_revision: 4, ..get("a", "f") }),
        ("changed since", RangeRequest { min_mod_revision: 5, limit: 1, ..get("a", "f") }),
        ("changed until", RangeRequest { max_mod_revision: 5, ..get("a", "f") }),
        ("by key, backwards", sorted(SortTarget::Key, SortOrder::Descend)),
        ("by creation", sorted(SortTarget::Create, SortOrder::Descend)),
        ("by change", sorted(SortTarget::Mod, SortOrder::None)),
        ("by value", sorted(SortTarget::Value, SortOrder::Ascend)),
        (
            "by value, heads of two",
            RangeRequest {
                limit: 2,
                keys_only: true,
                ..sorted(SortTarget::Value, SortOrder::Descend)
            },
        ),
    ];
    for (step, request) in steps {
        let answer = play.kv.range(request).await;
        play.note(step, answer);
    }
}

async fn deletes(play: &mut Play) {
    let steps = vec![
        ("delete nothing", delete("zz", "")),
        ("delete one", delete("e", "")),
        ("delete it again", delete("e", "")),
        ("delete no key", delete("", "")),
        ("delete a range that ends before it begins", delete("c", "a")),
        ("delete a range", delete("b", "d")),
        ("delete from a key on", delete("\u{7f}", "\0")),
        ("delete a key of 1.6 MB", delete(&"x".repeat(1_600_000), "")),
        ("delete up to a key of 1.6 MB", delete("x", &"x".repeat(1_600_000))),
    ];
    for (step, request) in steps {
        let answer = play.kv.delete_range(request).await;
        play.note(step, answer);
    }
    let answer = play.kv.range(get("\0", "\0")).await;
    play.note("what is left", answer);
}

pub(crate) fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn puts_op(key: &str, value: &str) -> RequestOp {
    op(Request::RequestPut(put(key, value)))
}

fn gets_op(key: &str, end: &str) -> RequestOp {
    op(Request::RequestRange(get(key, end)))
}

fn deletes_op(key: &str, end: &str) -> RequestOp {
    op(Request::RequestDeleteRange(delete(key, end)))
}

fn compare(
    key: &str,
    end: &str,
    result: CompareResult,
    target: CompareTarget,
    with: TargetUnion,
) -> Compare {
    Compare {
        result: result as i32,
        target: target as i32,
        key: key.into(),
        range_end: end.into(),
        target_union: Some(with),
    }
}

fn when(compare: Vec<Compare>) -> TxnRequest {
    TxnRequest {
        compare,
        success: vec![gets_op("a", "")],
        failure: vec![deletes_op("nothing", "")],
    }
}

fn then(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { success, ..TxnRequest::default() }
}

pub(crate) async fn transactions(play: &mut Play) {
    for (step, request) in compares().into_iter().chain(branches()) {
        let answer = play.kv.txn(request).await;
        play.note(step, answer);
    }
    let answer = play.kv.range(get("\0", "\0")).await;
    play.note("what transactions left", answer);
}

/// A value near the largest request, shown by all that shows one.
pub(crate) async fn large(play: &mut Play) {
    let value = "x".repeat(1_400_000);
    let put_it = PutRequest { prev_kv: true, ..put("large", &value) };
    let shown = |status: Status| (0, status.to_string());
    let before = |kv: Option<KeyValue>| (kv.map_or(0, |kv| kv.value.len()), String::new());
    for step in ["put 1.4 MB", "put them again, with what was there"] {
        let answer = play.kv.put(put_it.clone()).await;
        let told = answer.map_or_else(shown, |put| before(put.into_inner().prev_kv));
        play.say(step, &format!("{told:?}"));
    }
    let never = compare(
        "large",
        "",
        CompareResult::Equal,
        CompareTarget::Version,
        TargetUnion::Version(77),
    );
    let failure = vec![gets_op("large", "")];
    let answer = play.kv.txn(TxnRequest { failure, ..when(vec![never]) }).await;
    let told = answer.map_or_else(shown, |txn| before(read_by(txn.into_inner())));
    play.say("get them where a compare fails", &format!("{told:?}"));
    let answer = play.kv.delete_range(delete("large", "")).await;
    let told = answer.map_or_else(shown, |gone| before(gone.into_inner().prev_kvs.pop()));
    play.say("delete them, with what was there", &format!("{told:?}"));
}

/// The last key that the last step of a transaction read.
fn read_by(mut done: TxnResponse) -> Option<KeyValue> {
    let read = done.responses.pop()?.response?;
    if let Response::ResponseRange(mut range) = read { range.kvs.pop() } else { None }
}

fn compares() -> Vec<(&'static str, TxnRequest)> {
    use CompareResult::{Equal, Greater, Less, NotEqual};
    use CompareTarget as On;
    let value = |text: &str| TargetUnion::Value(text.into());
    let one = |result, target, with| when(vec![compare("a", "", result, target, with)]);
    let none = |result, target, with| when(vec![compare("no", "", result, target, with)]);
    let both = |result, target, with| when(vec![compare("a", "z", result, target, with)]);
    vec![
        ("nothing at all", TxnRequest::default()),
        ("when the value is so", one(Equal, On::Value, value("3"))),
        ("when the value is not so", one(NotEqual, On::Value, value("3"))),
        ("when the value is less", one(Less, On::Value, value("4"))),
        ("when it changed often", one(Greater, On::Version, TargetUnion::Version(3))),
        ("when it was created so", one(Equal, On::Create, TargetUnion::CreateRevision(2))),
        ("when it was changed before", one(Less, On::Mod, TargetUnion::ModRevision(3))),
        ("when it hangs on no lease", one(Equal, On::Lease, TargetUnion::Lease(0))),
        ("when it is more than negative", one(Greater, On::Version, TargetUnion::Version(-1))),
        ("when it is less than negative", one(Less, On::Version, TargetUnion::Version(-1))),
        ("when another thing is said", one(Equal, On::Value, TargetUnion::Version(1))),
        ("when it is not there", none(Equal, On::Version, TargetUnion::Version(0))),
        ("when its value is not there", none(NotEqual, On::Value, value("x"))),
        ("when all of a range are so", both(Greater, On::Mod, TargetUnion::ModRevision(1))),
        (
            "when nothing is compared with a key",
            when(vec![compare("", "", Equal, On::Version, TargetUnion::Version(0))]),
        ),
    ]
}

fn branches() -> Vec<(&'static str, TxnRequest)> {
    let many = |count: usize| (0..count).map(|n| puts_op(&format!("k{n}"), "")).collect();
    let half = "x".repeat(800_000);
    let past = RangeRequest { revision: 3, ..get("a", "f") };
    let future = RangeRequest { revision: 9_999, ..get("a", "f") };
    let inner = TxnRequest {
        compare: vec![compare(
            "t",
            "",
            CompareResult::Equal,
            CompareTarget::Version,
            TargetUnion::Version(0),
        )],
        success: vec![gets_op("t", ""), puts_op("u", "inner")],
        failure: vec![puts_op("u", "else")],
    };
    vec![
        ("read, write, read", then(vec![gets_op("t", ""), puts_op("t", "1"), gets_op("t", "")])),
        ("delete and count", then(vec![deletes_op("t", ""), gets_op("a", "z")])),
        ("delete nothing and write", then(vec![deletes_op("no", ""), puts_op("v", "1")])),
        ("one inside another", then(vec![puts_op("t", "2"), op(Request::RequestTxn(inner))])),
        ("read the past", then(vec![op(Request::RequestRange(past)), puts_op("w", "1")])),
        ("read the future", then(vec![op(Request::RequestRange(future)), puts_op("w", "2")])),
        ("write a key twice", then(vec![puts_op("x", "1"), puts_op("x", "2")])),
        ("write what is deleted", then(vec![deletes_op("x", ""), puts_op("x", "2")])),
        ("delete twice", then(vec![deletes_op("v", ""), deletes_op("v", "w")])),
        ("an operation that is none", then(vec![RequestOp { request: None }])),
        ("an empty key inside", then(vec![puts_op("", "1")])),
        (
            "an unknown lease inside",
            then(vec![op(Request::RequestPut(PutRequest { lease: 77, ..put("x", "1") }))]),
        ),
        (
            "leave a value that is not there",
            then(vec![op(Request::RequestPut(PutRequest {
                ignore_value: true,
                ..put("none", "")
            }))]),
        ),
        ("128 operations", then(many(128))),
        ("129 operations", then(many(129))),
        ("1.6 MB in two parts", then(vec![puts_op("m", &half), puts_op("n", &half)])),
        (
            "1.6 MB that would not be done",
            TxnRequest {
                failure: vec![puts_op("m", &half), puts_op("n", &half)],
                ..TxnRequest::default()
            },
        ),
    ]
}

pub(crate) async fn compaction(play: &mut Play) {
    let compact = |revision: i64| CompactionRequest { revision, physical: false };
    for (step, revision) in [
        ("compact the future", 9_999),
        ("compact", 10),
        ("compact it again", 10),
        ("compact what is gone", 9),
        ("compact a negative revision", -1),
    ] {
        let answer = play.kv.compact(compact(revision)).await;
        play.note(step, answer);
    }
    for (step, revision) in [("read the compacted revision", 10), ("read below it", 9)] {
        let answer = play.kv.range(RangeRequest { revision, ..get("a", "f") }).await;
        play.note(step, answer);
    }
}
