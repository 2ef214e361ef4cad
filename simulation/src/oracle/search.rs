//! Is there one order of operations that an object allows?
//!
//! In plain words: is there one order of all operations in which each takes
//! effect at one instant between its call and its return, and answers what the
//! object, at that instant, would answer?
//!
//! The search takes the earliest operation it may, goes on, and turns back
//! when an operation returned before it could be placed; a set of placed
//! operations with the same resulting state is tried once. An operation of
//! unknown outcome has no return: it may be placed anywhere after its call, or
//! left out. Of those that are all alike the first called is placed first:
//! without this rule twenty of them double the work twenty times. An operation that only
//! looks is placed as soon as its answer is right, and never taken back by itself: an
//! order in which it comes later stays right when it comes now.
//! A history may still need more states than a judge can look at. So their number
//! is bounded, and a search that reaches the bound says so: it found no order, and
//! did not prove that there is none.
//! Sources: Wing and Gong, "Testing and Verifying Concurrent Objects"; Lowe,
//! "Testing for Linearizability" (the memo).

use std::{collections::HashSet, hash::Hash};

use cluster::units::Instant;

/// States that one search may come to. Of some 100 bytes each in the memo, and a
/// microsecond or ten to come to: 100 MB and some seconds at worst.
pub(crate) const STATES_MAX: usize = 1 << 20;

/// How far around a stuck operation a judge shows others.
pub(super) const AROUND: usize = 12;

/// An object, and what was done to it: operations have numbers.
pub(crate) trait Object {
    /// What the object holds.
    type State: Clone;
    /// What tells states apart.
    type Mark: Eq + Hash;

    /// How many operations there are.
    fn operations(&self) -> usize;

    /// When an operation was asked and, if that is known, answered.
    fn span(&self, operation: usize) -> (Instant, Option<Instant>);

    /// The operation of unknown outcome, called no later and alike in all it does,
    /// that is placed before this one.
    fn twin(&self, operation: usize) -> Option<usize>;

    /// Whether an operation, having answered what it did, changed nothing.
    fn only_looks(&self, operation: usize) -> bool;

    /// What the object holds at first.
    fn begin(&self) -> Self::State;

    /// What it holds after an operation; none if the operation would have answered
    /// something else, or has no answer and changes nothing.
    fn step(&self, state: &Self::State, operation: usize) -> Option<Self::State>;

    /// What tells this state from others.
    fn mark(&self, state: &Self::State) -> Self::Mark;
}

/// No order was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lost<S> {
    /// Whether there is none. Else the search gave up, and there may be one.
    pub(crate) is_proven: bool,
    /// States that were tried.
    pub(crate) tried: usize,
    /// The operation that could not be placed in the search that came furthest.
    pub(crate) operation: usize,
    /// What the object held there.
    pub(crate) state: S,
}

/// Finds an order, and tells how many states that took.
///
/// # Errors
/// Why there is none, or none was found.
pub(crate) fn order<O: Object>(object: &O, states_max: usize) -> Result<usize, Lost<O::State>> {
    Search::new(object, states_max).run()
}

/// What a lost search says of its history.
pub(super) fn verdict(is_proven: bool) -> &'static str {
    if is_proven {
        "is not linearizable"
    } else {
        "is not judged: no order was found, and not all were tried"
    }
}

/// One event of the timeline: an operation's call or its return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Event {
    operation: usize,
    is_return: bool,
}

/// A doubly linked list of events in time order, by index; 0 is the head and
/// its own end.
#[derive(Debug)]
struct Timeline {
    events: Vec<Event>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Place of each operation's return.
    returns: Vec<Option<usize>>,
}

impl Timeline {
    fn new(spans: &[(Instant, Option<Instant>)]) -> Self {
        let mut order: Vec<(Instant, bool, usize)> = Vec::new();
        for (index, (called, returned)) in spans.iter().enumerate() {
            order.push((*called, false, index));
            if let Some(returned) = returned {
                order.push((*returned, true, index));
            }
        }
        // At one instant calls come first: who returned first is not known.
        order.sort_unstable();
        let mut events = vec![Event { operation: usize::MAX, is_return: false }];
        let mut returns = vec![None; spans.len()];
        for (_, is_return, operation) in order {
            if is_return {
                returns[operation] = Some(events.len());
            }
            events.push(Event { operation, is_return });
        }
        let len = events.len();
        let next = (0..len).map(|at| (at + 1) % len).collect();
        let previous = (0..len).map(|at| (at + len - 1) % len).collect();
        Self { events, next, previous, returns }
    }

    fn unlink(&mut self, at: usize) {
        let (before, after) = (self.previous[at], self.next[at]);
        self.next[before] = after;
        self.previous[after] = before;
    }

    fn relink(&mut self, at: usize) {
        let (before, after) = (self.previous[at], self.next[at]);
        self.next[before] = at;
        self.previous[after] = at;
    }

    /// Takes an operation out, its call first.
    fn lift(&mut self, call: usize) {
        self.unlink(call);
        if let Some(end) = self.returns[self.events[call].operation] {
            self.unlink(end);
        }
    }

    /// Puts back what [`Self::lift`] took, in opposite order.
    fn put_back(&mut self, call: usize) {
        if let Some(end) = self.returns[self.events[call].operation] {
            self.relink(end);
        }
        self.relink(call);
    }

    fn has_returned(&self, operation: usize) -> bool {
        self.returns[operation].is_some()
    }
}

struct Search<'o, O: Object> {
    object: &'o O,
    states_max: usize,
    timeline: Timeline,
    /// Operations that returned and are not yet placed.
    required: usize,
    state: O::State,
    is_placed: Vec<bool>,
    /// Name of the set of placed operations: the sum (xor) of their names.
    placed: u128,
    /// Places of calls, with the state before them.
    path: Vec<(usize, O::State)>,
    tried: HashSet<(u128, O::Mark)>,
    /// The deepest path, what stopped it, and the state there.
    furthest: (usize, usize, O::State),
}

impl<'o, O: Object> Search<'o, O> {
    fn new(object: &'o O, states_max: usize) -> Self {
        let spans: Vec<_> = (0..object.operations()).map(|index| object.span(index)).collect();
        let begin = object.begin();
        Self {
            object,
            states_max,
            timeline: Timeline::new(&spans),
            required: spans.iter().filter(|(_, returned)| returned.is_some()).count(),
            is_placed: vec![false; spans.len()],
            placed: 0,
            path: Vec::new(),
            tried: HashSet::new(),
            furthest: (0, 0, begin.clone()),
            state: begin,
        }
    }

    fn run(mut self) -> Result<usize, Lost<O::State>> {
        let mut at = self.timeline.next[0];
        while self.required > 0 {
            let event = self.timeline.events[at];
            if self.tried.len() > self.states_max {
                return Err(self.lost(false));
            }
            if event.is_return {
                self.note_stuck(event.operation);
                let Some(next) = self.turn_back() else { return Err(self.lost(true)) };
                at = next;
            } else if self.place(at) {
                at = self.timeline.next[0];
            } else {
                at = self.timeline.next[at];
            }
        }
        Ok(self.tried.len())
    }

    fn lost(self, is_proven: bool) -> Lost<O::State> {
        let (_, operation, state) = self.furthest;
        Lost { is_proven, tried: self.tried.len(), operation, state }
    }

    fn place(&mut self, call: usize) -> bool {
        let index = self.timeline.events[call].operation;
        if self.object.twin(index).is_some_and(|twin| !self.is_placed[twin]) {
            return false;
        }
        let Some(after) = self.object.step(&self.state, index) else { return false };
        let placed = self.placed ^ name(index);
        if !self.tried.insert((placed, self.object.mark(&after))) {
            return false;
        }
        self.path.push((call, std::mem::replace(&mut self.state, after)));
        self.placed = placed;
        self.is_placed[index] = true;
        self.required -= usize::from(self.timeline.has_returned(index));
        self.timeline.lift(call);
        true
    }

    /// Undoes the last placing that may have been wrong; where to go on, or none if
    /// there is nothing.
    fn turn_back(&mut self) -> Option<usize> {
        loop {
            let (next, only_looked) = self.undo()?;
            if !only_looked {
                return Some(next);
            }
        }
    }

    /// Undoes the last placing; what comes after it, and whether it only looked.
    fn undo(&mut self) -> Option<(usize, bool)> {
        let (call, state) = self.path.pop()?;
        let index = self.timeline.events[call].operation;
        self.placed ^= name(index);
        self.state = state;
        self.is_placed[index] = false;
        self.required += usize::from(self.timeline.has_returned(index));
        self.timeline.put_back(call);
        Some((self.timeline.next[call], self.object.only_looks(index)))
    }

    fn note_stuck(&mut self, operation: usize) {
        if self.path.len() >= self.furthest.0 {
            self.furthest = (self.path.len(), operation, self.state.clone());
        }
    }
}

/// A wide random-looking number per operation: equal sums of different sets
/// are a matter of 2^-128.
fn name(index: usize) -> u128 {
    xxhash_rust::xxh3::xxh3_128(&index.to_le_bytes())
}
