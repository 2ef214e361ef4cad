//! Is a history of a small key space linearizable, transactions and all?
//!
//! The object is what etcd promises: keys with values, versions and leases, one
//! revision that each change raises by one, and what was there at each revision
//! until it is let go of. Every answer is judged whole: which branch ran, counts, what
//! was there before, every version. Nothing of the product decides here: `model.rs`
//! says once more, in as few words as may be, what requests mean.
//!
//! Revisions make the search short: a change that was acknowledged at a revision is
//! the only one that may make it. Changes of unknown outcome fill what is left.
//!
//! History may also be let go of by itself, on a full disk: a reader who is told so
//! is believed, and nobody may read there after it.
//! Source: etcd's KV API.

use std::{collections::BTreeMap, fmt};

use cluster::{
    mvcc::version::Version,
    request::Item,
    shard::{
        command::Op,
        range::{Range, RangeResult},
        transaction::{Keys, Step, Transacted, Transaction, TransactionError},
    },
    units::Instant,
};

use self::{evidence::Evidence, model::Space};
use super::search::{self, AROUND, Object, STATES_MAX};

mod evidence;
mod model;
mod show;
#[cfg(test)]
mod tests;

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// One key, as it is now.
    Get(String),
    /// Keys, as they are now or were.
    Range(Range),
    /// Plain puts and deletes, together.
    Write(Vec<Op>),
    /// Deletes keys and shows what they were.
    DeleteRange(Keys),
    /// A transaction.
    Transact(Transaction),
    /// Lets go of what was before a version.
    Compact(Version),
}

/// What was answered. Times of the wall are left out of items: nobody promised any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A key, or that there is none.
    Item(Option<Item>),
    /// Keys, as of a version, and the newest version then.
    Range { result: RangeResult, at: Version, now: Version },
    /// What was written lies at a version; so many deletes found their key.
    Written { version: Version, deleted: u32 },
    /// Deleted at a version.
    Deleted { version: Version, count: u32, previous: Vec<Item> },
    /// What a transaction came to.
    Transacted(Transacted),
    /// A transaction was refused, and changed nothing.
    Refused(TransactionError),
    /// History was let go of.
    Compacted,
    /// What was asked for was let go of before: all below this version.
    Gone(Version),
    /// The version lies in the future.
    Future,
}

/// An operation of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    /// Who asked.
    pub(crate) client: u32,
    /// What.
    pub(crate) call: Call,
    /// When.
    pub(crate) called: Instant,
    /// When it was answered and what; none if it may take effect at any time after it was
    /// asked, or never.
    pub(crate) answered: Option<(Instant, Answer)>,
}

impl Operation {
    /// The version that this operation is known to have made.
    fn made(&self) -> Option<Version> {
        match &self.answered.as_ref()?.1 {
            Answer::Written { version, deleted } => {
                let puts = matches!(&self.call, Call::Write(ops) if ops.iter().any(is_put));
                (puts || *deleted > 0).then_some(*version)
            }
            Answer::Deleted { version, count, .. } => (*count > 0).then_some(*version),
            Answer::Transacted(done) => done.changed.then_some(done.version),
            Answer::Item(_)
            | Answer::Range { .. }
            | Answer::Refused(_)
            | Answer::Compacted
            | Answer::Gone(_)
            | Answer::Future => None,
        }
    }

    /// The version that this operation saw and left as it was, if it says so.
    fn saw(&self) -> Option<Version> {
        let version = match &self.answered.as_ref()?.1 {
            Answer::Range { now: version, .. }
            | Answer::Written { version, .. }
            | Answer::Deleted { version, .. }
            | Answer::Transacted(Transacted { version, .. }) => *version,
            Answer::Item(_)
            | Answer::Refused(_)
            | Answer::Compacted
            | Answer::Gone(_)
            | Answer::Future => return None,
        };
        self.made().is_none().then_some(version)
    }

    fn may_change(&self) -> bool {
        match &self.call {
            Call::Write(_) | Call::DeleteRange(_) => true,
            Call::Transact(transaction) => transaction.writes(),
            // Whether somebody let go is judged by what others are told.
            Call::Get(_) | Call::Range(_) | Call::Compact(_) => false,
        }
    }
}

fn is_put(op: &Op) -> bool {
    matches!(op, Op::Put { .. })
}

/// Whether a transaction reads keys as they were: what is refused, for replicas let go
/// of history at times of their own.
pub(crate) fn reads_the_past(transaction: &Transaction) -> bool {
    let past = |step: &Step| matches!(step, Step::Read(range) if range.at.is_some());
    transaction.blocks.iter().any(|block| block.then.iter().chain(&block.otherwise).any(past))
}

/// What a history came to that was judged to be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Judged {
    /// States that the search came to.
    pub(crate) states: usize,
}

/// Why a history is not linearizable, or not known to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Whether it is known not to be.
    pub(crate) is_proven: bool,
    /// The operation that could not be placed in the search that came furthest.
    pub(crate) stuck: Operation,
    /// What was there then, and what it would have been told.
    expected: String,
    /// Operations around it, by call.
    around: Vec<Operation>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { is_proven, stuck, expected, around } = self;
        writeln!(f, "the key space {}; no place for:", search::verdict(*is_proven))?;
        writeln!(f, "    {stuck}\n{expected}")?;
        writeln!(f, "(if it did, others claim to have seen or made that version); around it:")?;
        around.iter().try_for_each(|operation| writeln!(f, "    {operation}"))
    }
}

/// Judges the history of a key space that was empty at a revision.
///
/// # Errors
/// Why no order of its operations is right.
pub(crate) fn check(begin: Version, history: &[Operation]) -> Result<Judged, Box<Violation>> {
    judge(begin, history, STATES_MAX)
}

fn judge(
    begin: Version,
    history: &[Operation],
    states_max: usize,
) -> Result<Judged, Box<Violation>> {
    let matters = |operation: &&Operation| operation.answered.is_some() || operation.may_change();
    let mut operations: Vec<&Operation> = history.iter().filter(matters).collect();
    operations.sort_by_key(|operation| operation.called);
    let object = Keyspace::new(begin, operations);
    let lost = match search::order(&object, states_max) {
        Ok(states) => return Ok(Judged { states }),
        Err(lost) => lost,
    };
    let stuck = object.operations[lost.operation];
    let from = lost.operation.saturating_sub(AROUND);
    let to = (lost.operation + AROUND).min(object.operations.len());
    Err(Box::new(Violation {
        is_proven: lost.is_proven,
        stuck: stuck.clone(),
        expected: lost.state.space.expects(&stuck.call),
        around: object.operations[from..to].iter().map(|one| (*one).clone()).collect(),
    }))
}

/// What was done to a key space, by call.
struct Keyspace<'a> {
    begin: Version,
    operations: Vec<&'a Operation>,
    /// Who made which version, as far as that is known.
    makers: BTreeMap<Version, usize>,
    /// What is known of the others.
    evidence: Evidence,
    /// How many saw a version and made none: all of them came before the next one.
    viewers: BTreeMap<Version, u32>,
    /// For each operation of unknown outcome one before it that is quite alike.
    twins: Vec<Option<usize>>,
}

impl<'a> Keyspace<'a> {
    fn new(begin: Version, operations: Vec<&'a Operation>) -> Self {
        let mut makers = BTreeMap::new();
        for (index, one) in operations.iter().enumerate() {
            if let Some(version) = one.made() {
                // Of two that claim to have made it the first is believed.
                makers.entry(version).or_insert(index);
            }
        }
        let twin = |index: usize| {
            let one = operations[index];
            let alike = |other: &usize| {
                let other = operations[*other];
                other.answered.is_none() && other.call == one.call
            };
            (0..index).rev().find(alike).filter(|_| one.answered.is_none())
        };
        let twins = (0..operations.len()).map(twin).collect();
        let evidence = Evidence::of(begin, &operations, &makers);
        let mut viewers = BTreeMap::new();
        for version in operations.iter().filter_map(|one| one.saw()) {
            *viewers.entry(version).or_default() += 1;
        }
        Self { begin, operations, makers, evidence, viewers, twins }
    }
}

/// A key space, and how many have seen its version so far.
#[derive(Clone)]
struct Moment {
    space: Space,
    viewers: u32,
}

impl Object for Keyspace<'_> {
    type State = Moment;
    type Mark = (u128, Version);

    fn operations(&self) -> usize {
        self.operations.len()
    }

    fn span(&self, operation: usize) -> (Instant, Option<Instant>) {
        let operation = self.operations[operation];
        (operation.called, operation.answered.as_ref().map(|(returned, _)| *returned))
    }

    fn twin(&self, operation: usize) -> Option<usize> {
        self.twins[operation]
    }

    fn only_looks(&self, operation: usize) -> bool {
        let operation = self.operations[operation];
        operation.answered.as_ref().is_some_and(|(_, answer)| match answer {
            Answer::Item(_) | Answer::Range { .. } | Answer::Refused(_) | Answer::Future => true,
            Answer::Written { .. } | Answer::Deleted { .. } | Answer::Transacted(_) => {
                operation.made().is_none()
            }
            Answer::Compacted | Answer::Gone(_) => false,
        })
    }

    fn begin(&self) -> Moment {
        Moment { space: Space::empty(self.begin), viewers: 0 }
    }

    fn step(&self, moment: &Moment, operation: usize) -> Option<Moment> {
        let Moment { space, viewers } = moment;
        let known = self.operations[operation];
        let answer = known.answered.as_ref().map(|(_, answer)| answer);
        if answer.is_none() || known.made().is_some() {
            let is_maker = self.makers.get(&space.next()).is_none_or(|maker| *maker == operation);
            let all_saw = self.viewers.get(&space.now()).is_none_or(|all| all == viewers);
            if !is_maker || !all_saw {
                return None;
            }
        }
        let after = space.step(&known.call, answer, operation)?;
        if answer.is_none() && !self.evidence.allows(space, &after) {
            return None;
        }
        let viewers = if after.now() > space.now() { 0 } else { *viewers };
        Some(Moment { viewers: viewers + u32::from(known.saw().is_some()), space: after })
    }

    fn mark(&self, moment: &Moment) -> (u128, Version) {
        moment.space.mark()
    }
}
