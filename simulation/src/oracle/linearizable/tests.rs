//! The judge barks at wrong histories, keeps quiet at right ones, and agrees
//! with a judge that tries every order.

use std::time::Duration;

use super::*;
use crate::rng::Rng;

fn at(ms: u64) -> Instant {
    Instant::ORIGIN + Duration::from_millis(ms)
}

fn op(client: u32, action: Action, called: u64, returned: impl Into<Option<u64>>) -> Operation {
    let returned = returned.into().map(at);
    Operation { client, key: "k".to_owned(), action, called: at(called), returned }
}

pub(super) fn put(value: Value) -> Action {
    Action::Write(Some(value))
}

pub(super) fn read(value: impl Into<Option<Value>>) -> Action {
    Action::Read(value.into())
}

const DELETE: Action = Action::Write(None);

fn stuck(history: &[Operation]) -> Operation {
    check(history).expect_err("the judge kept quiet").stuck
}

#[test]
fn a_stale_read_is_found() {
    let stale = op(2, read(1), 30, 40);
    let history = [op(1, put(1), 0, 10), op(1, put(2), 11, 20), stale.clone()];
    assert_eq!(stuck(&history), stale);
}

#[test]
fn a_read_that_goes_back_behind_another_read_is_found() {
    let history = [
        op(1, put(1), 0, 10),
        op(1, put(2), 11, 100),
        op(2, read(2), 20, 30),
        op(3, read(1), 40, 50),
    ];
    assert_eq!(stuck(&history), history[3]);
}

#[test]
fn a_lost_write_is_found() {
    let history = [op(1, put(1), 0, 10), op(2, read(None), 20, 30)];
    assert_eq!(stuck(&history), history[1]);
}

#[test]
fn a_write_applied_twice_is_found() {
    // put 1 was retried: its second execution covers put 2.
    let history = [op(1, put(1), 0, 10), op(2, put(2), 11, 20), op(3, read(1), 30, 40)];
    assert_eq!(stuck(&history), history[2]);
    // And with an unknown outcome it may take effect late, but only once.
    let history = [
        op(1, put(1), 0, None),
        op(3, read(1), 5, 8),
        op(2, put(2), 11, 20),
        op(3, read(2), 21, 25),
        op(3, read(1), 30, 40),
    ];
    assert_eq!(stuck(&history), history[4]);
}

#[test]
fn a_resurrected_delete_is_found() {
    let history = [op(1, put(1), 0, 10), op(1, DELETE, 11, 20), op(2, read(1), 30, 40)];
    assert_eq!(stuck(&history), history[2]);
}

#[test]
fn a_value_nobody_wrote_is_found() {
    assert_eq!(stuck(&[op(1, read(9), 0, 10)]).action, read(9));
}

#[test]
fn concurrent_operations_may_take_any_order() {
    let history = [
        op(1, put(1), 0, 100),
        op(2, put(2), 0, 100),
        op(3, read(2), 10, 20),
        op(3, read(1), 30, 40),
    ];
    assert_eq!(check(&history), Ok(()));
}

#[test]
fn an_unknown_write_may_happen_late_or_never() {
    let unknown = op(1, put(1), 0, None);
    let late = [unknown.clone(), op(2, read(None), 50, 60), op(2, read(1), 70, 80)];
    assert_eq!(check(&late), Ok(()));
    let never = [unknown, op(2, put(2), 10, 20), op(2, read(2), 70, 80)];
    assert_eq!(check(&never), Ok(()));
    let unknown_delete = [
        op(1, put(1), 0, 5),
        op(1, DELETE, 6, None),
        op(2, read(1), 10, 20),
        op(2, read(None), 30, 40),
    ];
    assert_eq!(check(&unknown_delete), Ok(()));
}

#[test]
fn keys_are_judged_apart() {
    let mut other = op(1, read(None), 20, 30);
    other.key = "other".to_owned();
    assert_eq!(check(&[op(1, put(1), 0, 10), other]), Ok(()));
}

/// Tries every subset of the unknown operations in every order.
fn brute(history: &[Operation]) -> bool {
    fn extend(history: &[Operation], used: u32, value: Option<Value>) -> bool {
        let done = |(index, operation): (usize, &Operation)| {
            operation.returned.is_none() || used & 1 << index != 0
        };
        if history.iter().enumerate().all(done) {
            return true;
        }
        history.iter().enumerate().any(|(index, next)| {
            let free = used & 1 << index == 0;
            // Nothing unplaced may have returned before this one was called.
            let in_time = history.iter().enumerate().all(|(other, before)| {
                used & 1 << other != 0 || before.returned.is_none_or(|end| end >= next.called)
            });
            let fits = match next.action {
                Action::Read(seen) => seen == value,
                Action::Write(_) => true,
            };
            let after = match next.action {
                Action::Read(seen) => seen,
                Action::Write(written) => written,
            };
            free && in_time && fits && extend(history, used | 1 << index, after)
        })
    }
    extend(history, 0, None)
}

pub(super) fn random_history(rng: &mut Rng) -> Vec<Operation> {
    let count = 1 + rng.below(6);
    (0..count)
        .map(|_| {
            let value = Some(rng.below(3)).filter(|value| *value != 0);
            let action =
                if rng.chance(500_000) { Action::Write(value) } else { Action::Read(value) };
            let called = rng.below(12);
            let returned = called + rng.below(8);
            let known = !rng.chance(200_000);
            op(0, action, called, known.then_some(returned))
        })
        .collect()
}

#[test]
fn both_judges_agree_on_thousands_of_small_histories() {
    let mut rng = Rng::stream(1, "small histories", 0);
    let (mut right, mut wrong) = (0, 0);
    for _ in 0..20_000 {
        let history = random_history(&mut rng);
        let expected = brute(&history);
        assert_eq!(check(&history).is_ok(), expected, "{history:#?}");
        *(if expected { &mut right } else { &mut wrong }) += 1;
    }
    assert!(right > 2_000 && wrong > 2_000, "{right} right, {wrong} wrong: one-sided");
}

/// A history of a real register, used by concurrent clients; some outcomes
/// stay unknown.
pub(super) fn real_history(count: usize, seed: u64) -> Vec<Operation> {
    let mut rng = Rng::stream(seed, "real history", 0);
    let mut registers: BTreeMap<u64, Option<Value>> = BTreeMap::new();
    let mut history = Vec::new();
    let mut now = 0;
    for number in 0..count {
        now += rng.below(3);
        // It takes effect now; call and return lie around that instant.
        let (called, returned) = (now.saturating_sub(rng.below(20)), now + rng.below(20));
        let key = rng.below(5);
        let register = registers.entry(key).or_default();
        let unknown = rng.chance(20_000);
        let takes_effect = !unknown || rng.chance(500_000);
        let value = u64::try_from(number).unwrap();
        let action = match rng.below(10) {
            0 => DELETE,
            1..5 => put(value),
            _ => read(*register),
        };
        if let (Action::Write(written), true) = (action, takes_effect) {
            *register = written;
        }
        let mut done = op(0, action, called, (!unknown).then_some(returned));
        done.key = key.to_string();
        history.push(done);
    }
    history
}

/// Processor time of this thread: other processes do not count.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split_whitespace().next().unwrap().parse().unwrap())
}

#[test]
fn ten_thousand_operations_are_judged_in_seconds() {
    let mut history = real_history(10_000, 1);
    let began = processor_time();
    assert_eq!(check(&history), Ok(()));
    // And one lie among them is found.
    let liar = history
        .iter()
        .rposition(|operation| {
            matches!(operation.action, Action::Read(Some(_))) && operation.returned.is_some()
        })
        .unwrap();
    history[liar].action = read(7);
    assert!(check(&history).is_err());
    let took = processor_time().saturating_sub(began);
    println!("20,000 operations were judged in {took:?} of processor time");
    assert!(took < Duration::from_secs(4), "10,000 operations take {:?}", took / 2);
}

#[test]
fn many_deletes_of_unknown_outcome_do_not_keep_a_wrong_read_from_being_found() {
    // Each may be placed or not: told apart, they would be 2^64 sets.
    let mut history: Vec<_> = (0..64).map(|call| op(call, DELETE, u64::from(call), None)).collect();
    history.extend([op(70, put(1), 70, 80), op(71, read(1), 81, 90), op(72, read(2), 91, 99)]);
    assert_eq!(stuck(&history), history[66]);
    // And one of them may be why a put is not there.
    history.extend([op(73, read(None), 100, 110), op(74, put(3), 111, 120)]);
    history.remove(66);
    assert_eq!(check(&history), Ok(()));
}
