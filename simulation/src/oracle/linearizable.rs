//! Is a history of registers linearizable?
//!
//! In plain words: is there one order of all operations in which each takes
//! effect at one instant between its call and its return, and every read sees
//! the last write before it? Keys are independent, so each is judged alone.
//!
//! How an order is searched for is said in `search.rs`. Deletes of unknown outcome
//! are all alike, and are placed only where there is something to delete.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

use cluster::units::Instant;

use super::{
    history::{Action, Operation, Value},
    search::{self, AROUND, Lost, Object, STATES_MAX},
};

#[cfg(test)]
mod second;
#[cfg(test)]
mod tests;

/// Why a history is not linearizable, or not known to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The key whose register misbehaved.
    pub key: String,
    /// Whether it did: a search that needs too many states gives up.
    pub is_proven: bool,
    /// The operation that could not be placed in the search that came furthest.
    pub stuck: Operation,
    /// Operations around it, by call.
    pub around: Vec<Operation>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = search::verdict(self.is_proven);
        writeln!(f, "key {} {verdict}; no place for: {}", self.key, self.stuck)?;
        for operation in &self.around {
            writeln!(f, "    {operation}")?;
        }
        Ok(())
    }
}

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
    let register = Register::new(&relevant);
    let Err(lost) = search::order(&register, STATES_MAX) else { return Ok(()) };
    let Lost { is_proven, operation: stuck, .. } = lost;
    let from = stuck.saturating_sub(AROUND);
    let to = (stuck + AROUND).min(relevant.len());
    Err(Box::new(Violation {
        key: key.to_owned(),
        is_proven,
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

/// The operations on one key.
struct Register<'a> {
    operations: &'a [&'a Operation],
    /// For each delete of unknown outcome the one called before it.
    twins: Vec<Option<usize>>,
}

impl<'a> Register<'a> {
    fn new(operations: &'a [&'a Operation]) -> Self {
        let mut last = None;
        let twin = |(index, operation): (usize, &&Operation)| {
            if is_unknown_delete(operation) { last.replace(index) } else { None }
        };
        Self { operations, twins: operations.iter().enumerate().map(twin).collect() }
    }
}

impl Object for Register<'_> {
    type State = Option<Value>;
    type Mark = Option<Value>;

    fn operations(&self) -> usize {
        self.operations.len()
    }

    fn span(&self, operation: usize) -> (Instant, Option<Instant>) {
        (self.operations[operation].called, self.operations[operation].returned)
    }

    fn twin(&self, operation: usize) -> Option<usize> {
        self.twins[operation]
    }

    fn only_looks(&self, operation: usize) -> bool {
        matches!(self.operations[operation].action, Action::Read(_))
    }

    fn begin(&self) -> Option<Value> {
        None
    }

    fn step(&self, state: &Option<Value>, operation: usize) -> Option<Option<Value>> {
        let operation = self.operations[operation];
        match operation.action {
            Action::Read(seen) => (seen == *state).then_some(seen),
            Action::Write(None) if state.is_none() && operation.returned.is_none() => None,
            Action::Write(value) => Some(value),
        }
    }

    fn mark(&self, state: &Option<Value>) -> Option<Value> {
        *state
    }
}

/// Whether nobody knows if this deleted anything.
fn is_unknown_delete(operation: &Operation) -> bool {
    operation.returned.is_none() && operation.action == Action::Write(None)
}
