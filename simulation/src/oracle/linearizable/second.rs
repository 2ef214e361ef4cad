//! Other judges of the same question, to judge the judge by.
//!
//! The first is another algorithm, written here: just-in-time linearization. It
//! walks the events once and carries all states the register may be in, each
//! with the operations that took effect before they returned. The second is
//! another implementation by other people: `todc-utils`, which searches as Wing
//! and Gong do, but shares no line with ours.
//! Source: Lowe, "Testing for Linearizability" §4.

use std::collections::BTreeSet;

use todc_utils::{
    linearizability::{
        WGLChecker,
        history::{Action as Event, History as Events},
    },
    specifications::Specification,
};

use super::{tests::*, *};
use crate::rng::Rng;

/// What the register holds, and which operations under way have taken effect.
type State = (Option<Value>, BTreeSet<usize>);

fn just_in_time(history: &[Operation]) -> bool {
    let mut events: Vec<(Instant, bool, usize)> = Vec::new();
    for (index, operation) in history.iter().enumerate() {
        events.push((operation.called, false, index));
        events.extend(operation.returned.map(|returned| (returned, true, index)));
    }
    events.sort_unstable();
    let mut under_way: BTreeSet<usize> = BTreeSet::new();
    let mut states: BTreeSet<State> = [(None, BTreeSet::new())].into();
    for (_, is_return, index) in events {
        if !is_return {
            under_way.insert(index);
            continue;
        }
        states = return_of(history, index, &under_way, states);
        under_way.remove(&index);
        if states.is_empty() {
            return false;
        }
    }
    true
}

/// The states in which `index` may return.
fn return_of(
    history: &[Operation],
    index: usize,
    under_way: &BTreeSet<usize>,
    states: BTreeSet<State>,
) -> BTreeSet<State> {
    let (mut after, mut seen) = (BTreeSet::new(), BTreeSet::new());
    let mut open: Vec<State> = states.into_iter().collect();
    while let Some((value, mut done)) = open.pop() {
        if done.contains(&index) {
            done.remove(&index);
            after.insert((value, done));
            continue;
        }
        for next in under_way.iter().filter(|next| !done.contains(next)) {
            let value = match history[*next].action {
                Action::Read(read) if read != value => continue,
                Action::Read(read) => read,
                Action::Write(written) => written,
            };
            let mut done = done.clone();
            done.insert(*next);
            let state = (value, done);
            if seen.insert(state.clone()) {
                open.push(state);
            }
        }
    }
    after
}

struct Register;

impl Specification for Register {
    type State = Option<Value>;
    type Operation = Action;

    fn init() -> Self::State {
        None
    }

    fn apply(operation: &Action, state: &Self::State) -> (bool, Self::State) {
        match operation {
            Action::Read(read) => (read == state, *state),
            Action::Write(written) => (true, *written),
        }
    }
}

/// The same history for the other implementation: each operation is a process
/// of its own, and an unknown write returns after everything else. An unknown
/// read says nothing.
fn by_others(history: &[Operation]) -> bool {
    let mut events: Vec<(Option<Instant>, bool, usize)> = Vec::new();
    for (index, operation) in history.iter().enumerate() {
        if operation.returned.is_none() && matches!(operation.action, Action::Read(_)) {
            continue;
        }
        events.push((Some(operation.called), false, index));
        events.push((operation.returned, true, index));
    }
    events.sort_by_key(|(at, is_return, index)| (at.is_none(), *at, *is_return, *index));
    if events.is_empty() {
        return true;
    }
    let event = |(_, is_return, index): (_, bool, usize)| {
        let action = history[index].action;
        (index, if is_return { Event::Response(action) } else { Event::Call(action) })
    };
    WGLChecker::<Register>::is_linearizable(Events::from_actions(
        events.into_iter().map(event).collect(),
    ))
}

fn agree(history: &[Operation]) -> bool {
    let ours = check(history).is_ok();
    assert_eq!(just_in_time(history), ours, "the other algorithm disagrees: {history:#?}");
    assert_eq!(by_others(history), ours, "the other implementation disagrees: {history:#?}");
    ours
}

#[test]
fn three_judges_agree_on_small_histories_of_every_kind() {
    let mut rng = Rng::stream(2, "small histories", 0);
    let right = (0..5_000).filter(|_| agree(&random_history(&mut rng))).count();
    assert!((500..4_500).contains(&right), "{right} of 5,000 are right: one-sided");
}

/// A lie somewhere in a true history: another value read, a write that never
/// was, an answer that came sooner.
fn spoil(history: &mut Vec<Operation>, rng: &mut Rng) {
    let at = rng.index(history.len());
    match rng.below(3) {
        0 => history[at].action = read(rng.below(history.len() as u64)),
        1 => drop(history.remove(at)),
        _ => {
            let called = history[at].called;
            history[at].returned = Some(called);
        }
    }
}

#[test]
fn three_judges_agree_on_real_histories_true_and_spoilt() {
    let mut rng = Rng::stream(3, "spoilt histories", 0);
    let mut verdicts = [0, 0];
    for seed in 0..24 {
        let mut history = real_history(80, seed);
        history.retain(|operation| operation.key == "0" || operation.key == "1");
        for operation in &mut history {
            operation.key = "k".to_owned();
        }
        // Two registers seen as one are mostly wrong; one alone is right.
        let one: Vec<_> =
            history.iter().take(if seed % 2 == 0 { 20 } else { 10 }).cloned().collect();
        verdicts[usize::from(agree(&one))] += 1;
        let mut single = real_history(50, seed);
        single.retain(|operation| operation.key == "0");
        assert!(agree(&single), "a real register is linearizable");
        spoil(&mut single, &mut rng);
        verdicts[usize::from(agree(&single))] += 1;
    }
    assert!(verdicts.iter().all(|count| *count > 5), "one-sided: {verdicts:?}");
}

#[test]
fn the_other_implementation_agrees_on_a_long_history() {
    let history: Vec<_> =
        real_history(500, 4).into_iter().filter(|operation| operation.key == "0").collect();
    assert!(history.len() > 80);
    assert!(check(&history).is_ok() && by_others(&history));
    let mut lie = history;
    let liar = lie.iter().rposition(|one| one.action != read(None) && one.returned.is_some());
    lie[liar.unwrap()].action = read(u64::MAX);
    assert!(check(&lie).is_err() && !by_others(&lie));
}
