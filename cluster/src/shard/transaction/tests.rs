//! What is refused before anything is proposed.

use super::*;
use crate::shard::descriptor::Predicate;

fn put(key: &str) -> Step {
    Step::put(key, "x")
}

fn delete(from: &str, to: &str) -> Step {
    Step::delete(Keys::range(from, to))
}

fn duplicate(key: &str) -> Result<(), TransactionError> {
    Err(TransactionError::DuplicateKey(key.to_owned()))
}

#[test]
fn one_branch_may_not_put_a_key_twice_but_both_branches_may() {
    let both = Transaction::new().then(put("a")).otherwise(put("a"));
    assert_eq!(both.check(), Ok(()));
    assert_eq!(both.then(put("b")).then(put("a")).check(), duplicate("a"));
}

#[test]
fn one_branch_may_not_put_what_it_deletes_in_whatever_order() {
    let (first, last) = (Transaction::new().then(delete("a", "c")), Transaction::new());
    assert_eq!(first.then(put("b")).check(), duplicate("b"));
    assert_eq!(last.clone().then(put("b")).then(delete("a", "c")).check(), duplicate("b"));
    assert_eq!(last.clone().then(put("c")).then(delete("a", "c")).check(), Ok(()));
    assert_eq!(last.then(put("b")).then(Step::delete("b")).check(), duplicate("b"));
}

#[test]
fn nested_blocks_count_with_the_branch_that_holds_them() {
    let inner = || Transaction::new().then(put("a")).otherwise(delete("a", "b"));
    assert_eq!(inner().check(), Ok(()), "only one of them runs");
    let outer = Transaction::new().then_transact(inner());
    assert_eq!(outer.check(), Ok(()));
    assert_eq!(outer.clone().then(put("a")).check(), duplicate("a"));
    assert_eq!(outer.clone().then_transact(inner()).check(), duplicate("a"));
    assert_eq!(outer.otherwise_transact(inner()).check(), Ok(()));
}

#[test]
fn what_is_no_tree_is_refused() {
    let nested = |child| Block { then: vec![Step::Nested(child)], ..Block::default() };
    let plain = Block::default;
    for blocks in [
        vec![],
        vec![nested(0)],
        vec![nested(1)],
        vec![plain(), plain()],
        vec![nested(2), nested(1), plain()],
        vec![nested(1), nested(0)],
        vec![nested(1), Block { then: vec![Step::Nested(2), Step::Nested(2)], ..plain() }, plain()],
        vec![nested(u32::MAX)],
    ] {
        let transaction = Transaction { blocks };
        assert_eq!(transaction.check(), Err(TransactionError::Malformed), "{transaction:?}");
    }
    assert_eq!(Transaction { blocks: vec![nested(1), nested(2), plain()] }.check(), Ok(()));
}

#[test]
fn the_builder_nests_to_the_depth_that_apply_walks_and_no_deeper() {
    let mut transaction = Transaction::new().then(put("a"));
    for _ in 1..TRANSACTION_DEPTH_MAX {
        transaction = Transaction::new().then_transact(transaction);
    }
    assert_eq!(transaction.check(), Ok(()));
    let deeper = Transaction::new().otherwise_transact(transaction);
    assert_eq!(deeper.check(), Err(TransactionError::TooDeep));
}

#[test]
fn limits_are_exact() {
    let steps = |count: usize| {
        (0..count).fold(Transaction::new(), |all, n| all.then(Step::get(format!("{n}").as_str())))
    };
    assert_eq!(steps(TRANSACTION_OPS_MAX).check(), Ok(()));
    let over = TRANSACTION_OPS_MAX as u64 + 1;
    let one_more = steps(TRANSACTION_OPS_MAX).when(Compare::absent("a"));
    assert_eq!(one_more.check(), Err(TransactionError::TooManyOps(over)));
    let value = vec![0; VALUE_BYTES_MAX];
    let full = Transaction::new().then(Step::put("a", value));
    assert_eq!(full.check(), Ok(()));
    let full = full.when(Compare::value("b", "1"));
    assert_eq!(full.check(), Err(TransactionError::TooLarge(VALUE_BYTES_MAX as u64 + 1)));
}

#[test]
fn keys_are_checked_wherever_they_stand() {
    let long = "k".repeat(KEY_BYTES_MAX + 1);
    for (key, bytes) in [("", 0), (long.as_str(), KEY_BYTES_MAX as u64 + 1)] {
        for transaction in [
            Transaction::new().then(put(key)),
            Transaction::new().otherwise(Step::get(key)),
            Transaction::new().when(Compare::absent(key)),
            Transaction::new().then_transact(Transaction::new().then(Step::delete(key))),
        ] {
            assert_eq!(transaction.check(), Err(TransactionError::InvalidKey(bytes)));
        }
    }
    assert_eq!(Transaction::new().then(Step::get(Keys::range("", ""))).check(), Ok(()));
    let backwards = Transaction::new().then(delete("b", "a"));
    assert_eq!(backwards.check(), Err(TransactionError::InvalidRange));
}

#[test]
fn a_range_lies_in_a_shard_only_as_a_whole() {
    let shard = Predicate::Range { from: b"b".to_vec(), to: b"d".to_vec() };
    let lies = |from, to| Transaction::new().then(delete(from, to)).lies_in(&shard);
    assert!(lies("b", "d") && lies("bb", "c"));
    assert!(!lies("a", "c") && !lies("c", "e") && !lies("c", ""));
    assert!(Transaction::new().then(put("c")).lies_in(&shard));
    assert!(!Transaction::new().then(put("d")).lies_in(&shard));
    assert!(!Transaction::new().when(Compare::absent("d")).lies_in(&shard));
    let parts = Predicate::hash_parts(2);
    assert!(!parts.iter().any(|part| Transaction::new().then(delete("a", "b")).lies_in(part)));
    let whole = Predicate::Hash { from: 0, to: u64::MAX };
    assert!(Transaction::new().then(delete("a", "")).lies_in(&whole));
}
