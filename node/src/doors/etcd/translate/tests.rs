//! etcd's words in the store's, and the answers in etcd's.

use super::*;

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn put(key: &str) -> RequestOp {
    let put = PutRequest { key: key.into(), value: b"v".to_vec(), ..PutRequest::default() };
    op(Request::RequestPut(put))
}

fn get(key: &str, revision: i64) -> RequestOp {
    let range = RangeRequest { key: key.into(), revision, ..RangeRequest::default() };
    op(Request::RequestRange(range))
}

fn item(key: &str) -> Item {
    Item {
        key: key.into(),
        value: b"v".to_vec(),
        value_bytes: 1,
        created: Version(2),
        modified: Version(3),
        changes: 2,
        modified_ms: 0,
        lease: LeaseId(0),
    }
}

#[test]
fn ends_of_ranges_mean_what_they_mean_in_etcd() {
    assert_eq!(keys_of(b"a", b""), Keys::One(b"a".to_vec()));
    assert_eq!(keys_of(b"a", b"b"), Keys::range("a", "b"));
    assert_eq!(keys_of(b"a", b"\0"), Keys::range("a", ""));
    assert_eq!(keys_of(b"\0", b"\0"), Keys::range("", ""));
    assert_eq!(keys_of(b"b", b"a"), Keys::range("b", "b"), "no keys, and no error");
}

#[test]
fn a_range_without_order_by_another_target_ascends() {
    let request = RangeRequest {
        key: b"a".to_vec(),
        sort_target: SortTarget::Mod as i32,
        ..RangeRequest::default()
    };
    let range = range_of(&request).unwrap();
    assert_eq!(range.sort, Sort { by: SortBy::Modified, descending: false });
    assert_eq!((range.at, range.limit, range.count), (None, 0, true));
    let odd = RangeRequest { sort_order: 7, ..request };
    assert_eq!(range_of(&odd), Err(EtcdFault::InvalidSortOption));
}

#[test]
fn operations_are_counted_by_the_longest_list_and_by_depth() {
    let flat = TxnRequest {
        compare: vec![],
        success: (0..3).map(|n| put(&n.to_string())).collect(),
        failure: (0..3).map(|n| put(&n.to_string())).collect(),
    };
    assert!(txn_of(flat.clone(), 3).is_ok());
    assert_eq!(txn_of(flat.clone(), 2), Err(EtcdFault::TooManyOps));
    let nested = TxnRequest { success: vec![op(Request::RequestTxn(flat))], ..Default::default() };
    assert!(txn_of(nested.clone(), 4).is_ok());
    assert_eq!(txn_of(nested, 3), Err(EtcdFault::TooManyOps));
}

#[test]
fn reads_of_the_past_are_counted_over_all_branches() {
    let two = || TxnRequest { success: vec![get("a", 3), get("b", 3)], ..Default::default() };
    let beside = || op(Request::RequestTxn(two()));
    let request = TxnRequest { success: vec![beside(), beside()], ..Default::default() };
    assert!(txn_of(request.clone(), 4).is_ok());
    let three = TxnRequest { failure: vec![beside()], ..request };
    assert_eq!(txn_of(three, 4), Err(EtcdFault::TooManyOps), "six in all");
}

#[test]
fn an_operation_that_is_none_is_refused_as_etcd_does() {
    let empty = TxnRequest { success: vec![RequestOp { request: None }], ..Default::default() };
    assert_eq!(txn_of(empty, 128), Err(EtcdFault::KeyNotFound));
}

#[test]
fn negative_numbers_are_below_all_that_is_there() {
    let compare = |result: CompareResult| {
        let compare = pb::Compare {
            result: result as i32,
            target: CompareTarget::Version as i32,
            key: b"a".to_vec(),
            range_end: vec![],
            target_union: Some(TargetUnion::Version(-1)),
        };
        compare_of(compare).unwrap().is
    };
    // Compared with the highest number, which no key has.
    assert_eq!(compare(CompareResult::Greater), Relation::NotEqual);
    assert_eq!(compare(CompareResult::NotEqual), Relation::NotEqual);
    assert_eq!(compare(CompareResult::Less), Relation::Equal);
    assert_eq!(compare(CompareResult::Equal), Relation::Equal);
}

#[test]
fn headers_inside_a_transaction_tell_what_was_changed_so_far() {
    let request =
        TxnRequest { success: vec![get("a", 0), put("a"), get("a", 0)], ..TxnRequest::default() };
    let read = || StepResult::Read(RangeResult { items: vec![item("a")], more: false, count: 1 });
    let done = Transacted {
        version: Version(9),
        succeeded: true,
        changed: true,
        results: Some(vec![read(), StepResult::Put { previous: None }, read()]),
    };
    let header = ResponseHeader { revision: 9, ..ResponseHeader::default() };
    let response = Assembly::response(&request, done, vec![], header).unwrap();
    let revisions: Vec<i64> = response.responses.iter().map(revision_in).collect();
    assert_eq!(revisions, [8, 9, 9]);
}

fn revision_in(op: &ResponseOp) -> i64 {
    let header = match op.response.as_ref().unwrap() {
        Response::ResponseRange(range) => range.header,
        Response::ResponsePut(put) => put.header,
        Response::ResponseDeleteRange(delete) => delete.header,
        Response::ResponseTxn(txn) => txn.header,
    };
    header.unwrap().revision
}

#[test]
fn steps_of_the_past_come_back_in_their_places() {
    let inner = TxnRequest {
        success: vec![get("in", 4)],
        failure: vec![get("not", 5)],
        ..TxnRequest::default()
    };
    let request = TxnRequest {
        compare: vec![],
        success: vec![get("unread", 3)],
        failure: vec![get("now", 0), op(Request::RequestTxn(inner)), get("then", 6)],
    };
    let translated = txn_of(request.clone(), 128).unwrap();
    let asked: Vec<_> = translated.past.iter().map(|range| range.at.unwrap().0).collect();
    assert_eq!(asked, [3, 4, 5, 6]);
    assert_eq!(translated.transaction.check(), Ok(()));
    let of = |key: &str| RangeResult { items: vec![item(key)], more: false, count: 1 };
    let done = Transacted {
        version: Version(9),
        succeeded: false,
        changed: false,
        results: Some(vec![
            StepResult::Read(of("now")),
            StepResult::Nested { succeeded: true, results: 0 },
        ]),
    };
    let past = ["unread", "in", "not", "then"].map(of).to_vec();
    let header = ResponseHeader::default();
    let response = Assembly::response(&request, done, past, header).unwrap();
    let keys: Vec<_> = response.responses.iter().flat_map(keys_in).collect();
    assert_eq!(keys, ["now", "in", "then"]);
}

fn keys_in(op: &ResponseOp) -> Vec<String> {
    match op.response.as_ref().unwrap() {
        Response::ResponseRange(range) => {
            range.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect()
        }
        Response::ResponseTxn(txn) => txn.responses.iter().flat_map(keys_in).collect(),
        Response::ResponsePut(_) | Response::ResponseDeleteRange(_) => vec![],
    }
}
