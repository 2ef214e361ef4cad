//! Is a history of registers linearizable?
//!
//! In plain words: is there one order of all operations in which each takes
//! effect at one instant between its call and its return, and every read sees
//! the last write before it? Keys are independent, so each is judged alone.
//!
//! The search takes the earliest operation it may, goes on, and turns back
//! when an operation returned before it could be placed; a set of placed
//! operations with the same resulting value is tried once. An operation of
//! unknown outcome has no return: it may be placed anywhere after its call, or
//! left out. Deletes of unknown outcome are all alike, so the first called is
//! placed first, and only where there is something to delete: without this rule
//! twenty of them double the work twenty times. Sources: Wing and Gong, "Testing and Verifying Concurrent
//! Objects"; Lowe, "Testing for Linearizability" (the memo).

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

use cluster::units::Instant;

use super::history::{Action, Operation, Value};

#[cfg(test)]
mod second;
#[cfg(test)]
mod tests;

/// Why a history is not linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The key whose register misbehaved.
    pub key: String,
    /// The operation that could not be placed in the search that came furthest.
    pub stuck: Operation,
    /// Operations around it, by call.
    pub around: Vec<Operation>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "key {} is not linearizable; no place for: {}", self.key, self.stuck)?;
        for operation in &self.around {
            writeln!(f, "    {operation}")?;
        }
        Ok(())
    }
}

/// How far around a stuck operation a violation shows others.
const AROUND: usize = 12;

/// Judges a history.
///
/// # Errors
/// The first key that is not linearizable.
pub fn check(history: &[Operation]) -> Result<(), Box<Violation>> {
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        keys.entry(&operation.key).or_default().push(operation);
    }
    keys.into_iter().try_for_each(|(key, operations)| check_key(key, &operations))
}

fn check_key(key: &str, operations: &[&Operation]) -> Result<(), Box<Violation>> {
    let read: HashSet<Value> = operations.iter().filter_map(|operation| seen(operation)).collect();
    let mut relevant: Vec<&Operation> =
        operations.iter().copied().filter(|operation| matters(operation, &read)).collect();
    relevant.sort_by_key(|operation| operation.called);
    let Err(stuck) = Search::new(&relevant).run() else { return Ok(()) };
    let from = stuck.saturating_sub(AROUND);
    let to = (stuck + AROUND).min(relevant.len());
    Err(Box::new(Violation {
        key: key.to_owned(),
        stuck: relevant[stuck].clone(),
        around: relevant[from..to].iter().map(|operation| (*operation).clone()).collect(),
    }))
}

fn seen(operation: &Operation) -> Option<Value> {
    match operation.action {
        Action::Read(value) => value,
        Action::Write(_) => None,
    }
}

/// An unknown read constrains nothing. An unknown put whose value nobody read
/// may be left out: whatever order holds with it holds without it.
fn matters(operation: &Operation, read: &HashSet<Value>) -> bool {
    if operation.returned.is_some() {
        return true;
    }
    match operation.action {
        Action::Read(_) => false,
        Action::Write(None) => true,
        Action::Write(Some(value)) => read.contains(&value),
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
    fn new(operations: &[&Operation]) -> Self {
        let mut order: Vec<(Instant, bool, usize)> = Vec::new();
        for (index, operation) in operations.iter().enumerate() {
            order.push((operation.called, false, index));
            if let Some(returned) = operation.returned {
                order.push((returned, true, index));
            }
        }
        // At one instant calls come first: who returned first is not known.
        order.sort_unstable();
        let mut events = vec![Event { operation: usize::MAX, is_return: false }];
        let mut returns = vec![None; operations.len()];
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
}

/// The search over one key's operations.
#[derive(Debug)]
struct Search<'a> {
    operations: &'a [&'a Operation],
    timeline: Timeline,
    /// Deletes of unknown outcome, by call, and how many of them are placed.
    deletes: Vec<usize>,
    deleted: usize,
    /// Operations that returned and are not yet placed.
    required: usize,
    value: Option<Value>,
    /// Name of the set of placed operations: the sum (xor) of their names.
    placed: u128,
    /// Places of calls, with the value before them.
    path: Vec<(usize, Option<Value>)>,
    tried: HashSet<(u128, Option<Value>)>,
    /// The deepest path, and what stopped it.
    furthest: (usize, usize),
}

impl<'a> Search<'a> {
    fn new(operations: &'a [&'a Operation]) -> Self {
        let is_delete = |index: &usize| is_unknown_delete(operations[*index]);
        Self {
            operations,
            timeline: Timeline::new(operations),
            deletes: (0..operations.len()).filter(is_delete).collect(),
            deleted: 0,
            required: operations.iter().filter(|operation| operation.returned.is_some()).count(),
            value: None,
            placed: 0,
            path: Vec::new(),
            tried: HashSet::new(),
            furthest: (0, 0),
        }
    }

    /// Finds an order, or the operation that no order has a place for.
    fn run(mut self) -> Result<(), usize> {
        let mut at = self.timeline.next[0];
        while self.required > 0 {
            let event = self.timeline.events[at];
            if event.is_return {
                self.note_stuck(event.operation);
                at = self.turn_back().ok_or(self.furthest.1)?;
            } else if self.place(at) {
                at = self.timeline.next[0];
            } else {
                at = self.timeline.next[at];
            }
        }
        Ok(())
    }

    fn place(&mut self, call: usize) -> bool {
        let index = self.timeline.events[call].operation;
        let operation = self.operations[index];
        let after = match operation.action {
            Action::Read(seen) if seen != self.value => return false,
            Action::Read(seen) => seen,
            Action::Write(value) => value,
        };
        let unknown_delete = is_unknown_delete(operation);
        if unknown_delete
            && (self.value.is_none() || self.deletes.get(self.deleted) != Some(&index))
        {
            return false;
        }
        let placed = self.placed ^ name(index);
        if !self.tried.insert((placed, after)) {
            return false;
        }
        self.deleted += usize::from(unknown_delete);
        self.path.push((call, self.value));
        self.placed = placed;
        self.value = after;
        self.required -= usize::from(operation.returned.is_some());
        self.timeline.lift(call);
        true
    }

    /// Undoes the last placing; where to go on, or none if there is nothing.
    fn turn_back(&mut self) -> Option<usize> {
        let (call, value) = self.path.pop()?;
        let index = self.timeline.events[call].operation;
        self.placed ^= name(index);
        self.value = value;
        self.deleted -= usize::from(is_unknown_delete(self.operations[index]));
        self.required += usize::from(self.operations[index].returned.is_some());
        self.timeline.put_back(call);
        Some(self.timeline.next[call])
    }

    fn note_stuck(&mut self, operation: usize) {
        if self.path.len() >= self.furthest.0 {
            self.furthest = (self.path.len(), operation);
        }
    }
}

/// Whether nobody knows if this deleted anything.
fn is_unknown_delete(operation: &Operation) -> bool {
    operation.returned.is_none() && operation.action == Action::Write(None)
}

/// A wide random-looking number per operation: equal sums of different sets
/// are a matter of 2^-128.
fn name(index: usize) -> u128 {
    xxhash_rust::xxh3::xxh3_128(&index.to_le_bytes())
}
