//! The judge barks at every kind of lie, keeps quiet at the truth, and agrees with
//! a judge that tries every order.

use std::time::Duration;

use cluster::{
    ids::LeaseId,
    shard::{
        range::SortBy,
        transaction::{Compare, Put, Relation, Step, StepResult, Target},
    },
};

use super::*;
use crate::{
    rng::Rng,
    workloads::transactions::draw::{Sight, Taste},
};

fn at(ms: u64) -> Instant {
    Instant::ORIGIN + Duration::from_millis(ms)
}

/// A store that tells the truth to one client after the other.
struct Teller {
    space: Space,
    history: Vec<Operation>,
}

impl Teller {
    fn new() -> Self {
        Self { space: Space::empty(Version(1)), history: Vec::new() }
    }

    /// The place of what was asked, in the history.
    fn ask(&mut self, call: Call) -> usize {
        let (answer, place) = (self.effect(&call), self.history.len());
        let called = 10 * place as u64;
        let answered = Some((at(called + 5), answer));
        self.history.push(Operation { client: 1, call, called: at(called), answered });
        place
    }

    /// Asks something that is never answered.
    fn lose(&mut self, call: Call, takes_effect: bool) {
        if takes_effect {
            self.effect(&call);
        }
        let called = at(10 * self.history.len() as u64);
        self.history.push(Operation { client: 2, call, called, answered: None });
    }

    fn effect(&mut self, call: &Call) -> Answer {
        let name = self.history.len();
        let answer = self.space.answer(call, name).1;
        self.space = self.space.step(call, Some(&answer), name).expect("it is the truth");
        answer
    }

    fn put(&mut self, key: &str, value: &str) -> usize {
        self.ask(Call::Write(vec![put(key, value)]))
    }

    fn is_right(&self) {
        if let Err(violation) = check(Version(1), &self.history) {
            panic!("the judge barks at the truth: {violation}");
        }
    }

    /// Whether the judge finds a lie, where it was told.
    fn lied(&self, place: usize, lie: impl FnOnce(&mut Answer)) {
        let (found, lie) = self.found(place, lie);
        assert_eq!(found.stuck, lie, "{found}");
    }

    /// What the judge finds of a lie, and the lie.
    fn found(&self, place: usize, lie: impl FnOnce(&mut Answer)) -> (Box<Violation>, Operation) {
        let mut history = self.history.clone();
        let told = history[place].answered.as_mut().unwrap();
        lie(&mut told.1);
        assert_ne!(history[place], self.history[place], "this is no lie");
        let found = check(Version(1), &history).expect_err("the judge kept quiet");
        assert!(found.is_proven);
        (found, history.swap_remove(place))
    }
}

fn put(key: &str, value: &str) -> Op {
    Op::Put { key: key.into(), value: value.into() }
}

fn all() -> Range {
    Range::of(Keys::range("", ""))
}

fn transacted(answer: &mut Answer) -> &mut Transacted {
    let Answer::Transacted(done) = answer else { panic!("no transaction: {answer}") };
    done
}

fn results(answer: &mut Answer) -> &mut Vec<StepResult> {
    transacted(answer).results.as_mut().unwrap()
}

fn ranged(answer: &mut Answer) -> (&mut RangeResult, &mut Version) {
    let Answer::Range { result, now, .. } = answer else { panic!("no range: {answer}") };
    (result, now)
}

fn written(answer: &mut Answer) -> (&mut Version, &mut u32) {
    let Answer::Written { version, deleted } = answer else { panic!("not written: {answer}") };
    (version, deleted)
}

fn gone(answer: &mut Answer) -> (&mut u32, &mut Vec<Item>) {
    let Answer::Deleted { count, previous, .. } = answer else { panic!("no delete: {answer}") };
    (count, previous)
}

/// A store of three keys: `a` twice changed, `b` under a lease, `c` created last.
fn three() -> Teller {
    let mut teller = Teller::new();
    teller.put("a", "1");
    let under = Put::new("b", "2").under(LeaseId(7));
    teller.ask(Call::Transact(Transaction::new().then(Step::Put(under))));
    teller.put("a", "3");
    teller.put("c", "4");
    teller
}

#[test]
fn what_compares_mean_is_as_written_here() {
    let mut teller = three();
    let (one, range) = (Keys::from("a"), Keys::range("a", "c"));
    let gone = Keys::from("d");
    let cases = [
        (&one, Relation::Equal, Target::Value("3".into()), true),
        (&one, Relation::Less, Target::Value("3".into()), false),
        (&one, Relation::Greater, Target::Value("2".into()), true),
        (&one, Relation::NotEqual, Target::Changes(2), false),
        (&one, Relation::Equal, Target::Created(Version(2)), true),
        (&one, Relation::Equal, Target::Modified(Version(4)), true),
        (&one, Relation::Equal, Target::Lease(LeaseId(0)), true),
        (&range, Relation::Less, Target::Created(Version(4)), true),
        (&range, Relation::Equal, Target::Lease(LeaseId(7)), false),
        (&range, Relation::Greater, Target::Modified(Version(3)), false),
        (&gone, Relation::Equal, Target::Changes(0), true),
        (&gone, Relation::Equal, Target::Created(Version(0)), true),
        (&gone, Relation::Less, Target::Modified(Version(1)), true),
        (&gone, Relation::Greater, Target::Lease(LeaseId(0)), false),
        (&gone, Relation::NotEqual, Target::Value("3".into()), false),
    ];
    for (keys, is, target, expected) in cases {
        let compare = Compare::new(keys.clone(), is, target);
        let named = format!("{compare:?}");
        let ask = Call::Transact(Transaction::new().when(compare).then(Step::get("a")));
        let place = teller.ask(ask);
        let Answer::Transacted(done) = &teller.history[place].answered.as_ref().unwrap().1 else {
            panic!("no transaction");
        };
        assert_eq!(
            (done.succeeded, done.changed, done.version),
            (expected, false, Version(5)),
            "{named}"
        );
        // The other branch is empty: who says that it ran lies.
        teller.lied(place, |answer| {
            let done = transacted(answer);
            done.succeeded = !done.succeeded;
        });
        teller.lied(place, |answer| {
            let results = results(answer);
            if results.pop().is_none() {
                results.push(StepResult::Put { previous: None });
            }
        });
    }
    teller.is_right();
}

#[test]
fn what_a_range_shows_is_as_written_here() {
    let mut teller = three();
    let keys = |range: Range| -> (String, bool, u64) {
        let place = teller.ask(Call::Range(range));
        let Answer::Range { result, .. } = &teller.history[place].answered.as_ref().unwrap().1
        else {
            panic!("no range");
        };
        let keys = result.items.iter().map(|item| String::from_utf8_lossy(&item.key).into_owned());
        (keys.collect(), result.more, result.count)
    };
    let mut keys = keys;
    assert_eq!(keys(all().counted()), ("abc".into(), false, 3));
    assert_eq!(keys(all().limit(2).counted()), ("ab".into(), true, 3));
    assert_eq!(keys(all().limit(2).sorted(SortBy::Modified, true)), ("ca".into(), true, 0));
    assert_eq!(keys(all().sorted(SortBy::Changes, true)), ("abc".into(), false, 0));
    assert_eq!(keys(all().sorted(SortBy::Value, false)), ("bac".into(), false, 0));
    assert_eq!(keys(all().count_only()), (String::new(), false, 3));
    assert_eq!(keys(Range { limit: 1, ..all() }.at(Version(3))), ("a".into(), true, 0));
    assert_eq!(keys(Range::of("d").counted()), (String::new(), false, 0));
}

#[test]
fn lies_about_ranges_are_found() {
    let mut teller = three();
    let range = teller.ask(Call::Range(all().counted()));
    let past = teller.ask(Call::Range(all().at(Version(3))));
    let get = teller.ask(Call::Get("a".into()));
    teller.is_right();
    teller.lied(range, |answer| drop(ranged(answer).0.items.pop()));
    teller.lied(range, |answer| ranged(answer).0.items[0].value = "1".into());
    teller.lied(range, |answer| ranged(answer).0.items[1].lease = LeaseId(0));
    teller.lied(range, |answer| ranged(answer).0.items.swap(0, 1));
    teller.lied(past, |answer| ranged(answer).0.items[0].value = "3".into());
    teller.lied(past, |answer| *answer = Answer::Future);
    for place in [range, past] {
        teller.lied(place, |answer| ranged(answer).0.count += 1);
        teller.lied(place, |answer| ranged(answer).1.0 += 1);
        // Whoever claims to have seen a version late holds up what came after it.
        teller.found(place, |answer| ranged(answer).1.0 -= 1);
    }
    teller.lied(get, |answer| *answer = Answer::Item(None));
    teller.lied(get, |answer| {
        let Answer::Item(Some(item)) = answer else { panic!("no item: {answer}") };
        item.created.0 += 1;
    });
}

#[test]
fn lies_about_writes_are_found() {
    let mut teller = three();
    let put = teller.put("a", "5");
    let nothing = teller.ask(Call::Write(vec![Op::Delete { key: "d".into() }]));
    let range = teller.ask(Call::DeleteRange(Keys::range("a", "c")));
    teller.put("e", "6");
    teller.is_right();
    teller.lied(put, |answer| written(answer).0.0 += 1);
    teller.lied(put, |answer| written(answer).0.0 -= 1);
    teller.lied(nothing, |answer| *written(answer).1 = 1);
    teller.lied(nothing, |answer| written(answer).0.0 += 1);
    teller.lied(range, |answer| *gone(answer).0 -= 1);
    teller.lied(range, |answer| gone(answer).1[0].changes -= 1);
    teller.lied(range, |answer| drop(gone(answer).1.pop()));
}

/// `a` is put, a nested block reads that and deletes `b` and `c`.
fn nested() -> Transaction {
    let inner = Transaction::new()
        .when(Compare::value("a", "3"))
        .then(Step::get("a"))
        .then(Step::Delete { keys: Keys::range("b", "d"), previous: true })
        .otherwise(Step::put("x", "y"));
    Transaction::new()
        .when(Compare::present("a"))
        .then(Step::Put(Put::new("a", "5").showing_previous()))
        .then_transact(inner)
}

#[test]
fn lies_about_transactions_are_found() {
    let mut teller = three();
    let done = teller.ask(Call::Transact(nested()));
    teller.put("e", "6");
    teller.is_right();
    let told = teller.history[done].answered.clone().unwrap().1;
    let mut told = told;
    let StepResult::Read(read) = &results(&mut told)[2] else { panic!("no read: {told}") };
    assert_eq!(read.items[0].value, b"5", "steps see what came before them");
    teller.lied(done, |answer| transacted(answer).version.0 += 1);
    teller.lied(done, |answer| transacted(answer).succeeded = false);
    teller.lied(done, |answer| drop(results(answer).pop()));
    let others = [
        StepResult::Put { previous: None },
        StepResult::Nested { succeeded: false, results: 2 },
        StepResult::Read(RangeResult::default()),
        StepResult::Deleted { count: 1, previous: Vec::new() },
    ];
    for (place, other) in others.into_iter().enumerate() {
        teller.lied(done, |answer| results(answer)[place] = other);
    }
    // Who lost the answer may say so, but not that another branch ran.
    let mut late = teller.history.clone();
    transacted(&mut late[done].answered.as_mut().unwrap().1).results = None;
    assert!(check(Version(1), &late).is_ok());
    transacted(&mut late[done].answered.as_mut().unwrap().1).succeeded = false;
    assert_eq!(check(Version(1), &late).unwrap_err().stuck, late[done]);
}

#[test]
fn a_refusal_without_a_cause_and_a_missing_one_are_found() {
    let mut teller = three();
    let kept = |key: &str| {
        let put = Put { value: None, ..Put::new(key, "") };
        Call::Transact(Transaction::new().then(Step::put("z", "1")).then(Step::Put(put)))
    };
    let refused = teller.ask(kept("d"));
    let taken = teller.ask(kept("a"));
    let past = Transaction::new()
        .then(Step::put("z", "1"))
        .then_transact(Transaction::new().then(Step::Read(all().at(Version(2)))));
    let past = teller.ask(Call::Transact(past));
    let why = Answer::Refused(TransactionError::NoSuchKey("d".into()));
    assert_eq!(teller.history[refused].answered.clone().unwrap().1, why);
    teller.is_right();
    let granted = teller.history[taken].answered.clone().unwrap().1;
    teller.lied(refused, |answer| *answer = granted.clone());
    teller.lied(past, |answer| *answer = granted);
    teller.lied(taken, |answer| *answer = why);
}

#[test]
fn half_a_transaction_is_found() {
    let mut teller = three();
    teller
        .ask(Call::Transact(Transaction::new().then(Step::put("a", "5")).then(Step::delete("c"))));
    let get = teller.ask(Call::Get("c".into()));
    let range = teller.ask(Call::Range(all()));
    teller.is_right();
    let kept = three().space.answer(&Call::Get("c".into()), 0).1;
    teller.lied(get, |answer| *answer = kept);
    teller.lied(range, |answer| ranged(answer).0.items[0].value = "3".into());
}

#[test]
fn an_order_against_time_is_found() {
    let mut teller = Teller::new();
    let first = teller.put("a", "1");
    let second = teller.put("b", "2");
    teller.is_right();
    // Each got the other's version: right only if they met.
    let mut history = teller.history.clone();
    let (one, other) = (history[first].answered.clone(), history[second].answered.clone());
    history[first].answered = one.map(|(returned, _)| (returned, other.clone().unwrap().1));
    history[second].answered =
        other.map(|(returned, _)| (returned, teller.history[first].answered.clone().unwrap().1));
    assert!(check(Version(1), &history).is_err());
    history[second].called = history[first].called;
    assert!(check(Version(1), &history).is_ok());
}

#[test]
fn what_is_in_doubt_happens_late_or_never_but_once() {
    for takes_effect in [true, false] {
        let mut teller = three();
        teller.lose(Call::Transact(nested()), takes_effect);
        teller.lose(Call::Write(vec![Op::Delete { key: "q".into() }]), takes_effect);
        teller.put("e", "6");
        teller.ask(Call::Range(all()));
        teller.is_right();
    }
    let mut teller = three();
    teller.lose(Call::Write(vec![put("a", "9")]), false);
    teller.put("b", "5");
    teller.effect(&Call::Write(vec![put("a", "9")]));
    teller.put("e", "6");
    teller.is_right();
    teller.effect(&Call::Write(vec![put("a", "9")]));
    let twice = teller.put("e", "7");
    let found = check(Version(1), &teller.history).expect_err("executed twice");
    assert_eq!(found.stuck, teller.history[twice], "{found}");
}

#[test]
fn what_was_let_go_of_is_not_read_again() {
    let mut teller = three();
    let past = || Call::Range(all().at(Version(3)));
    let before = teller.ask(past());
    teller.ask(Call::Compact(Version(4)));
    let after = teller.ask(past());
    let at_it = teller.ask(Call::Range(all().at(Version(4))));
    let again = teller.ask(Call::Compact(Version(4)));
    assert_eq!(teller.history[after].answered.clone().unwrap().1, Answer::Gone(Version(4)));
    teller.history[again].answered.as_mut().unwrap().1 = Answer::Gone(Version(4));
    teller.is_right();
    let shown = teller.history[before].answered.clone().unwrap().1;
    teller.lied(after, |answer| *answer = shown);
    teller.lied(after, |answer| *answer = Answer::Gone(Version(3)));
    teller.lied(after, |answer| *answer = Answer::Gone(Version(9)));
    teller.lied(at_it, |answer| *answer = Answer::Gone(Version(4)));
    teller.lied(again, |answer| *answer = Answer::Gone(Version(3)));
}

#[test]
fn a_search_that_gives_up_says_so_and_fails() {
    let mut teller = three();
    for number in 0..8 {
        teller.lose(Call::Write(vec![put("a", &number.to_string())]), false);
    }
    // Eight writes may have happened, in any order; that `c` is gone nobody did.
    teller.effect(&Call::Write(vec![Op::Delete { key: "c".into() }]));
    for number in 0..7 {
        teller.effect(&Call::Write(vec![put("a", &format!("y{number}"))]));
    }
    let read = teller.ask(Call::Get("c".into()));
    assert!(check(Version(1), &teller.history).unwrap_err().is_proven);
    let found = judge(Version(1), &teller.history, 1_000).unwrap_err();
    assert!(!found.is_proven);
    assert_eq!(found.stuck, teller.history[read]);
    assert!(found.to_string().contains("is not judged"), "{found}");
}

/// Tries every subset of the unknown operations in every order.
fn brute(history: &[Operation]) -> bool {
    fn extend(history: &[Operation], used: u32, space: &Space) -> bool {
        let is_used = |index: usize| used & 1 << index != 0;
        let mut numbered = history.iter().enumerate();
        if numbered.all(|(index, one)| one.answered.is_none() || is_used(index)) {
            return true;
        }
        history.iter().enumerate().any(|(index, next)| {
            let in_time = history.iter().enumerate().all(|(other, before)| {
                let ended = before.answered.as_ref().map(|(returned, _)| *returned);
                is_used(other) || ended.is_none_or(|end| end >= next.called)
            });
            if is_used(index) || !in_time {
                return false;
            }
            let answer = next.answered.as_ref().map(|(_, answer)| answer);
            let after = space.step(&next.call, answer, index);
            after.is_some_and(|after| extend(history, used | 1 << index, &after))
        })
    }
    extend(history, 0, &Space::empty(Version(1)))
}

/// What clients that overlap ask of a true store, and are told; some of it is lost.
fn drawn(rng: &mut Rng, count: usize, width: u64) -> Vec<Operation> {
    let (mut teller, mut sight) = (Teller::new(), Sight::new(Taste::Everything, 3));
    let mut now = 0;
    for client in 0..count {
        now += 1 + rng.below(10);
        let call = sight.draw(rng, u32::try_from(client).unwrap());
        let (called, returned) = (now.saturating_sub(rng.below(width)), now + rng.below(width));
        if width > 1 && rng.chance(50_000) {
            teller.lose(call, rng.chance(500_000));
        } else {
            let place = teller.ask(call);
            sight.see(&teller.history[place].answered.as_ref().unwrap().1);
        }
        let last = teller.history.last_mut().unwrap();
        last.called = at(called);
        last.answered = last.answered.take().map(|(_, answer)| (at(returned), answer));
    }
    teller.history
}

#[test]
fn thousands_of_true_answers_pass_and_in_few_states() {
    for seed in 0..4 {
        let mut rng = Rng::stream(seed, "true key spaces", 0);
        let history = drawn(&mut rng, 1_500, 40);
        match check(Version(1), &history) {
            Ok(Judged { states }) => assert!(states < 20_000, "{states} states"),
            Err(violation) => panic!("seed {seed}: {violation}"),
        }
    }
}

#[test]
fn an_answer_of_another_time_is_found() {
    let mut rng = Rng::stream(1, "answers of another time", 0);
    let mut found = 0;
    for _ in 0..300 {
        let mut history = drawn(&mut rng, 40, 1);
        let (place, other) = (rng.index(40), rng.index(40));
        let mut space = Space::empty(Version(1));
        for one in &history[..other] {
            let answer = one.answered.as_ref().map(|(_, answer)| answer);
            space = space.step(&one.call, answer, 0).unwrap();
        }
        let stale = space.answer(&history[place].call, 0).1;
        let told = &mut history[place].answered.as_mut().unwrap().1;
        let gone = matches!((&*told, &stale), (Answer::Gone(_), _) | (_, Answer::Gone(_)));
        if *told == stale || gone || matches!(history[place].call, Call::Compact(_)) {
            continue;
        }
        history[place].answered.as_mut().unwrap().1 = stale;
        assert!(check(Version(1), &history).is_err(), "{}", history[place]);
        found += 1;
    }
    assert!(found > 100, "only {found} lies");
}

#[test]
fn both_judges_agree_on_thousands_of_small_histories() {
    let mut rng = Rng::stream(1, "small key spaces", 0);
    let (mut right, mut wrong) = (0, 0);
    for _ in 0..6_000 {
        let mut history = drawn(&mut rng, 6, 30);
        if rng.chance(700_000) {
            // Two of them were told what the other one was.
            let (one, other) = (rng.index(6), rng.index(6));
            let told = history[one].answered.clone();
            if let (Some(told), Some(heard)) = (told, history[other].answered.clone()) {
                history[one].answered = Some((told.0, heard.1));
                history[other].answered = Some((heard.0, told.1));
            }
        }
        let expected = brute(&history);
        assert_eq!(check(Version(1), &history).is_ok(), expected, "{history:#?}");
        *(if expected { &mut right } else { &mut wrong }) += 1;
    }
    assert!(right > 1_000 && wrong > 1_000, "{right} right, {wrong} wrong: one-sided");
}
